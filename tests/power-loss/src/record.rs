//! The record: one entry for each call, written with plain system calls.
//!
//! An entry is a kind (1 byte), a number (8 bytes), then a path and data, each with its length
//! (4 bytes) before it; all little-endian.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_int, c_void},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Create = 1,
    Write = 2,
    SetLength = 3,
    SyncBegin = 4,
    SyncEnd = 5,
    Rename = 6,
    Remove = 7,
    MakeFolder = 8,
    Acknowledge = 9,
    Unsupported = 10,
}

pub(crate) struct Recorder {
    root: Vec<u8>,
    log: c_int,
    acks: Vec<u8>,
    ignore_sync: Option<Vec<u8>>,
    space: Option<usize>,
    /// Of which files, and how many syncs are left before the one that fails.
    fail_sync: Option<(Vec<u8>, u64)>,
    slow_sync: Option<Vec<u8>>,
    syncs: u64,
}

/// The recorder, if there is one; held while a call is made, so that the order of the record is
/// the order of the calls.
pub(crate) fn recorder() -> Option<MutexGuard<'static, Recorder>> {
    static RECORDER: OnceLock<Option<Mutex<Recorder>>> = OnceLock::new();
    let recorder = RECORDER.get_or_init(|| Recorder::from_environment().map(Mutex::new)).as_ref()?;
    Some(recorder.lock().unwrap_or_else(PoisonError::into_inner))
}

fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes)
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn fail_sync() -> Option<(Vec<u8>, u64)> {
    let which = std::env::var("POWER_LOSS_FAIL_SYNC").ok()?;
    let (suffix, number) = which.rsplit_once(':')?;
    Some((suffix.into(), number.parse().ok()?))
}

impl Recorder {
    fn from_environment() -> Option<Self> {
        let root = variable("POWER_LOSS_ROOT")?;
        let mut log = variable("POWER_LOSS_LOG")?;
        log.push(0);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        // SAFETY: the path ends with a zero byte and outlives the call.
        let log = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, log.as_ptr(), flags, 0o644) };
        Some(Self {
            root,
            log: c_int::try_from(log).ok().filter(|log| *log >= 0)?,
            acks: variable("POWER_LOSS_ACKS").unwrap_or_default(),
            ignore_sync: variable("POWER_LOSS_IGNORE_SYNC"),
            space: number("POWER_LOSS_SPACE"),
            fail_sync: fail_sync(),
            slow_sync: variable("POWER_LOSS_SLOW_SYNC"),
            syncs: 0,
        })
    }

    pub(crate) fn is_acks(&self, path: &[u8]) -> bool {
        !self.acks.is_empty() && self.acks == path
    }

    /// The path inside the folder.
    pub(crate) fn inside<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let inside = path.strip_prefix(self.root.as_slice())?;
        (inside.is_empty() || inside[0] == b'/').then_some(inside)
    }

    pub(crate) fn entry(&self, kind: Kind, path: &[u8], number: u64, data: &[u8]) {
        let mut entry = Vec::with_capacity(32 + path.len() + data.len());
        entry.push(kind as u8);
        entry.extend_from_slice(&number.to_le_bytes());
        for part in [path, data] {
            entry.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            entry.extend_from_slice(part);
        }
        let mut rest = entry.as_slice();
        while !rest.is_empty() {
            // SAFETY: the pointer and the length are those of a slice.
            let written = unsafe { libc::syscall(libc::SYS_write, self.log, rest.as_ptr(), rest.len()) };
            match usize::try_from(written) {
                Ok(written) => rest = &rest[written..],
                // A record with a hole would prove nothing.
                Err(_) => std::process::abort(),
            }
        }
    }

    /// How many of so many bytes may be written; none where the disk is full.
    pub(crate) fn grant(&mut self, bytes: usize) -> Option<usize> {
        let Some(space) = &mut self.space else { return Some(bytes) };
        let granted = bytes.min(*space);
        *space -= granted;
        (granted > 0 || bytes == 0).then_some(granted)
    }

    /// The number of a sync that counts; none for one that is to be forgotten.
    pub(crate) fn begin_sync(&mut self, path: &[u8]) -> Option<u64> {
        if self.ignore_sync.as_ref().is_some_and(|suffix| path.ends_with(suffix)) {
            return None;
        }
        self.entry(Kind::SyncBegin, path, self.syncs, &[]);
        self.syncs += 1;
        Some(self.syncs - 1)
    }

    pub(crate) fn slows_sync(&self, path: &[u8]) -> bool {
        self.slow_sync.as_ref().is_some_and(|suffix| path.ends_with(suffix))
    }

    pub(crate) fn fails_sync(&mut self, path: &[u8]) -> bool {
        let Some((suffix, left)) = &mut self.fail_sync else { return false };
        if !path.ends_with(suffix) {
            return false;
        }
        let fails = *left == 0;
        *left = left.wrapping_sub(1);
        fails
    }
}

/// The path of an open file; none for one that has been removed, or is no file.
pub(crate) fn path_of(fd: c_int) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{fd}\0");
    let mut path = vec![0_u8; 4096];
    // SAFETY: the link ends with a zero byte, and the buffer has the length that is stated.
    let length = unsafe {
        libc::syscall(
            libc::SYS_readlinkat,
            libc::AT_FDCWD,
            link.as_ptr(),
            path.as_mut_ptr().cast::<c_void>(),
            path.len(),
        )
    };
    path.truncate(usize::try_from(length).ok()?);
    (path.starts_with(b"/") && !path.ends_with(b" (deleted)")).then_some(path)
}

/// A path as an argument, made absolute and free of `.` and `..`.
///
/// # Safety
/// `path` is null or ends with a zero byte.
pub(crate) unsafe fn path_at(folder: c_int, path: *const libc::c_char) -> Option<Vec<u8>> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller says so.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if path.starts_with(b"/") {
        return Some(normal(path));
    }
    let mut whole = if folder == libc::AT_FDCWD {
        std::env::current_dir().ok()?.into_os_string().into_encoded_bytes()
    } else {
        path_of(folder)?
    };
    whole.push(b'/');
    whole.extend_from_slice(path);
    Some(normal(&whole))
}

fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: BTreeMap<usize, &[u8]> = BTreeMap::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop_last()),
            part => drop(parts.insert(parts.len(), part)),
        }
    }
    parts.values().flat_map(|part| [b"/".as_slice(), part]).flatten().copied().collect()
}
