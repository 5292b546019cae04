//! A disk under a file system that promises what POSIX does and no more: what was synced is there
//! after a power loss; of the rest, any part, in any order, torn anywhere. A file's name lasts once
//! its folder was synced, its contents once it was.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt, path::Path};

use rand::{RngExt, rngs::StdRng};

use super::record::Call;

const SECTOR_BYTES: usize = 512;

type Id = usize;

/// What a file holds: its bytes up to the last written one, and its length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Content {
    data: Vec<u8>,
    bytes: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: u64, data: Vec<u8> },
    SetLength(u64),
    Name { name: String, id: Id },
    Unname { name: String },
    Rename { from: String, to: String, id: Id },
}

/// A file or a folder: what lasts, and what was changed since, by the number of the call.
#[derive(Debug, Clone, Default)]
struct Node {
    content: Content,
    names: BTreeMap<String, Id>,
    pending: Vec<(usize, Change)>,
    /// What the process sees.
    seen: BTreeMap<String, Id>,
    is_folder: bool,
}

/// The disk after the calls it was given.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
    calls: usize,
    syncs: BTreeMap<u64, (Id, usize)>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let root = Node { is_folder: true, ..Node::default() };
        Self { nodes: vec![root], calls: 0, syncs: BTreeMap::new() }
    }

    pub(crate) fn call(&mut self, call: &Call) {
        self.calls += 1;
        match call {
            Call::Create { path } => self.create(path, false),
            Call::MakeFolder { path } => self.create(path, true),
            Call::Write { path, at, data } => {
                self.change(path, Change::Write { at: *at, data: data.clone() })
            }
            Call::SetLength { path, bytes } => self.change(path, Change::SetLength(*bytes)),
            Call::SyncBegin { path, sync } => drop(self.syncs.insert(*sync, (self.id(path), self.calls))),
            Call::SyncEnd { sync, .. } => self.end_sync(*sync),
            Call::Rename { from, to } => self.rename(from, to),
            Call::Remove { path } => {
                let (folder, name) = split(path);
                let folder = self.id(folder);
                self.nodes[folder].seen.remove(name).unwrap();
                self.pending(folder, Change::Unname { name: name.into() });
            }
            Call::Acknowledge { .. } => {}
        }
    }

    fn id(&self, path: &str) -> Id {
        path.split('/').filter(|name| !name.is_empty()).fold(0, |folder, name| {
            *self.nodes[folder].seen.get(name).unwrap_or_else(|| panic!("{path} is there"))
        })
    }

    fn pending(&mut self, id: Id, change: Change) {
        let calls = self.calls;
        self.nodes[id].pending.push((calls, change));
    }

    fn change(&mut self, path: &str, change: Change) {
        self.pending(self.id(path), change);
    }

    fn create(&mut self, path: &str, is_folder: bool) {
        let (folder, name) = split(path);
        let (folder, id) = (self.id(folder), self.nodes.len());
        self.nodes.push(Node { is_folder, ..Node::default() });
        self.nodes[folder].seen.insert(name.into(), id);
        self.pending(folder, Change::Name { name: name.into(), id });
    }

    fn rename(&mut self, from: &str, to: &str) {
        let ((folder, from), (other, to)) = (split(from), split(to));
        assert_eq!(folder, other, "a rename stays in its folder");
        let folder = self.id(folder);
        let id = self.nodes[folder].seen.remove(from).unwrap();
        self.nodes[folder].seen.insert(to.into(), id);
        self.pending(folder, Change::Rename { from: from.into(), to: to.into(), id });
    }

    fn end_sync(&mut self, sync: u64) {
        let (id, begun) = self.syncs.remove(&sync).unwrap();
        let node = &mut self.nodes[id];
        for (call, change) in std::mem::take(&mut node.pending) {
            if call < begun { node.apply(change) } else { node.pending.push((call, change)) }
        }
    }

    /// Would the file lose nothing?
    pub(crate) fn is_synced(&self, path: &str) -> bool {
        self.nodes[self.id(path)].pending.is_empty()
    }

    /// The first call whose change the file would lose.
    pub(crate) fn unsynced_since(&self, path: &str) -> Option<usize> {
        self.nodes[self.id(path)].pending.first().map(|(call, _)| *call)
    }

    /// What the process would see: everything, in order.
    pub(crate) fn whole(&self) -> Self {
        let mut whole = self.clone();
        for node in &mut whole.nodes {
            for (_, change) in std::mem::take(&mut node.pending) {
                node.apply(change);
            }
        }
        whole
    }

    /// The power goes.
    pub(crate) fn crash(&self, random: &mut StdRng) -> Self {
        let mut left = self.clone();
        for node in &mut left.nodes {
            let pending = std::mem::take(&mut node.pending);
            for change in survivors(pending, random) {
                node.apply(change);
            }
        }
        left
    }

    /// Lays the files down in a folder.
    pub(crate) fn lay_down(&self, root: &Path) {
        self.lay_down_node(0, root);
    }

    fn lay_down_node(&self, id: Id, path: &Path) {
        let node = &self.nodes[id];
        if !node.is_folder {
            let file = fs::File::create(path).unwrap();
            file.write_all_at(&node.content.data, 0).unwrap();
            return file.set_len(node.content.bytes).unwrap();
        }
        fs::create_dir_all(path).unwrap();
        for (name, id) in &node.names {
            self.lay_down_node(*id, &path.join(name));
        }
    }

    /// Where the files of a folder differ from these, if they do.
    pub(crate) fn differs(&self, root: &Path) -> Option<String> {
        self.node_differs(0, root)
    }

    fn node_differs(&self, id: Id, path: &Path) -> Option<String> {
        let node = &self.nodes[id];
        if !node.is_folder {
            let mut expected = node.content.data.clone();
            expected.resize(usize::try_from(node.content.bytes).unwrap(), 0);
            let is_same = fs::read(path).is_ok_and(|found| found == expected);
            return (!is_same).then(|| format!("{} differs", path.display()));
        }
        let names =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        if !names.iter().eq(node.names.keys()) {
            return Some(format!(
                "{} holds {names:?}, and {:?} were recorded",
                path.display(),
                node.names.keys()
            ));
        }
        node.names.iter().find_map(|(name, id)| self.node_differs(*id, &path.join(name)))
    }
}

impl Node {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Write { at, data } => self.content.write(at, &data),
            Change::SetLength(bytes) => self.content.set_length(bytes),
            Change::Name { name, id } => drop(self.names.insert(name, id)),
            Change::Unname { name } => drop(self.names.remove(&name)),
            Change::Rename { from, to, id } => {
                self.names.remove(&from);
                self.names.insert(to, id);
            }
        }
    }
}

impl Content {
    fn write(&mut self, at: u64, data: &[u8]) {
        let at = usize::try_from(at).unwrap();
        let end = at + data.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[at..end].copy_from_slice(data);
        self.bytes = self.bytes.max(end as u64);
    }

    fn set_length(&mut self, bytes: u64) {
        self.data.truncate(usize::try_from(bytes).unwrap());
        self.bytes = bytes;
    }
}

/// Of the changes since the last sync, those that the disk has nevertheless: none, all, the first
/// ones, or any; and of a write perhaps only some sectors or bytes.
fn survivors(pending: Vec<(usize, Change)>, random: &mut StdRng) -> Vec<Change> {
    let choice = random.random_range(0..5);
    let first = random.random_range(0..=pending.len());
    let survives = |at: usize, random: &mut StdRng| match choice {
        0 => false,
        1 => true,
        2 => at < first,
        _ => random.random(),
    };
    let mut left = Vec::new();
    for (at, (_, change)) in pending.into_iter().enumerate() {
        match change {
            Change::Write { at: place, data } if choice == 4 || choice == 2 && at == first => {
                tear(place, data, random, &mut left);
            }
            change if survives(at, random) => left.push(change),
            // The file may have grown although the data never came.
            Change::Write { at: place, data } if choice == 3 && random.random_ratio(1, 4) => {
                left.push(Change::Write { at: place, data: vec![0; data.len()] });
            }
            _ => {}
        }
    }
    left
}

fn tear(at: u64, data: Vec<u8>, random: &mut StdRng, left: &mut Vec<Change>) {
    if random.random() {
        let kept = random.random_range(0..=data.len());
        return left.push(Change::Write { at, data: data[..kept].to_vec() });
    }
    let mut place = at;
    for sector in data.chunks(SECTOR_BYTES) {
        if random.random() {
            left.push(Change::Write { at: place, data: sector.to_vec() });
        }
        place += sector.len() as u64;
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').expect("a path inside the folder has a slash")
}
