//! What a process did to its files, in order, as the preloaded library wrote it down.

use std::path::Path;

/// One call. Paths are inside the recorded folder and begin with a slash; the folder itself is
/// the empty path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Create { path: String },
    Write { path: String, at: u64, data: Vec<u8> },
    SetLength { path: String, bytes: u64 },
    SyncBegin { path: String, sync: u64 },
    SyncEnd { path: String, sync: u64 },
    Rename { from: String, to: String },
    Remove { path: String },
    MakeFolder { path: String },
    Acknowledge { line: String },
}

pub(crate) fn read(log: &Path) -> Vec<Call> {
    let bytes = std::fs::read(log).unwrap();
    let mut rest = bytes.as_slice();
    let mut calls = Vec::new();
    while let Some((kind, after)) = rest.split_first() {
        rest = after;
        let number = u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap());
        let path = String::from_utf8(part(&mut rest).to_vec()).unwrap();
        let data = part(&mut rest).to_vec();
        calls.push(call(*kind, path, number, data));
    }
    calls
}

fn call(kind: u8, path: String, number: u64, data: Vec<u8>) -> Call {
    let text = |data| String::from_utf8(data).unwrap();
    match kind {
        1 => Call::Create { path },
        2 => Call::Write { path, at: number, data },
        3 => Call::SetLength { path, bytes: number },
        4 => Call::SyncBegin { path, sync: number },
        5 => Call::SyncEnd { path, sync: number },
        6 => Call::Rename { from: path, to: text(data) },
        7 => Call::Remove { path },
        8 => Call::MakeFolder { path },
        9 => Call::Acknowledge { line: text(data) },
        10 => panic!("{path}: {} cannot be recorded", text(data)),
        other => panic!("there is no call {other}"),
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let bytes = u32::from_le_bytes(take(rest, 4).try_into().unwrap());
    take(rest, bytes as usize)
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(bytes);
    *rest = after;
    taken
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Create { path } => write!(f, "create {path}"),
            Self::Write { path, at, data } => write!(f, "write {path} at {at}, {} bytes", data.len()),
            Self::SetLength { path, bytes } => write!(f, "set the length of {path} to {bytes}"),
            Self::SyncBegin { path, .. } => write!(f, "begin to sync {path}"),
            Self::SyncEnd { path, .. } => write!(f, "end to sync {path}"),
            Self::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Self::Remove { path } => write!(f, "remove {path}"),
            Self::MakeFolder { path } => write!(f, "make the folder {path}"),
            Self::Acknowledge { line } => write!(f, "acknowledge {line:?}"),
        }
    }
}
