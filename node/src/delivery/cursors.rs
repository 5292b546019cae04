//! One session's cursors: where it stands in each of its groups, in 28 bytes.

use std::sync::Arc;

use shoal_protocol::{GroupId, Seq};

use super::tail::{Attachment, Tail};

/// What a cursor waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// For its tail to ring.
    Ring,
    /// For its turn.
    Turn,
    /// For its stream to take more.
    Room,
    /// For a stream to be opened.
    Stream,
    /// For a page of the store.
    Page,
}

/// A place in one group.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) tail: Arc<Tail>,
    pub(super) watermark: Seq,
    pub(super) attachment: Attachment,
    /// Its stream among the session's; [`Cursor::NO_STREAM`] for none.
    stream: u16,
    pub(super) waits: Waits,
}

impl Cursor {
    const NO_STREAM: u16 = u16::MAX;

    pub(super) fn new(tail: Arc<Tail>, attachment: Attachment, watermark: Seq) -> Self {
        Self { tail, watermark, attachment, stream: Self::NO_STREAM, waits: Waits::Ring }
    }

    pub(super) fn stream(&self) -> Option<u16> {
        (self.stream != Self::NO_STREAM).then_some(self.stream)
    }

    pub(super) fn set_stream(&mut self, stream: Option<u16>) {
        self.stream = stream.unwrap_or(Self::NO_STREAM);
    }
}

/// All cursors of a session, by number and by group.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    slots: Vec<Option<Cursor>>,
    free: Vec<u32>,
    /// The numbers of the cursors, in the order of their groups.
    by_group: Vec<u32>,
}

impl Cursors {
    pub(super) fn len(&self) -> usize {
        self.by_group.len()
    }

    /// A number for a cursor that will come, or be given back.
    pub(super) fn reserve(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        push_tight(&mut self.slots, None);
        u32::try_from(self.slots.len() - 1).expect("fewer cursors than 2^32")
    }

    /// Gives back a reserved number that no cursor came for.
    pub(super) fn release(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Puts a cursor in its reserved place. Its group has no other.
    pub(super) fn put(&mut self, number: u32, cursor: Cursor) {
        let group = cursor.tail.group();
        self.slots[number as usize] = Some(cursor);
        let at = self.search(group).expect_err("a group has one cursor");
        reserve_tight(&mut self.by_group);
        self.by_group.insert(at, number);
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Cursor> {
        let group = self.get(number)?.tail.group();
        let at = self.search(group).expect("every cursor is listed");
        self.by_group.remove(at);
        self.free.push(number);
        self.slots[number as usize].take()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Cursor> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Cursor> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// The number of a group's cursor.
    pub(super) fn find(&self, group: GroupId) -> Option<u32> {
        self.search(group).ok().map(|at| self.by_group[at])
    }

    /// The most records by which one of them is behind its tail; those that wait for it have read all.
    pub(super) fn behind(&self) -> u64 {
        let late = self.slots.iter().flatten().filter(|cursor| cursor.waits != Waits::Ring);
        late.map(|cursor| cursor.tail.tail().since(cursor.watermark)).max().unwrap_or_default()
    }

    /// Gives back memory of those that went.
    pub(super) fn shrink(&mut self) {
        if self.by_group.is_empty() && self.free.len() == self.slots.len() {
            *self = Self::default();
        }
    }

    /// Takes all of them out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Cursor> {
        self.by_group = Vec::new();
        self.free = Vec::new();
        std::mem::take(&mut self.slots).into_iter().flatten()
    }

    fn search(&self, group: GroupId) -> Result<usize, usize> {
        self.by_group.binary_search_by_key(&group, |number| {
            self.get(*number).expect("what is listed is there").tail.group()
        })
    }
}

/// Doubling would leave up to half of the room empty, in each of many thousand sessions.
fn reserve_tight<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 4 + 2);
    }
}

fn push_tight<T>(list: &mut Vec<T>, value: T) {
    reserve_tight(list);
    list.push(value);
}

#[cfg(test)]
mod tests {
    use shoal_protocol::{UserId, WindowLimits};

    use super::*;
    use crate::delivery::{Signal, WindowBudget};

    fn cursor(name: &str) -> Cursor {
        let limits = WindowLimits { records_max: 8, bytes_max: 1024 };
        let budget = Arc::new(WindowBudget::new(1 << 20));
        let tail = Arc::new(Tail::new(GroupId::named(name), Seq::FIRST, limits, budget));
        let signal = Arc::new(Signal::new(UserId::new("ada").unwrap()));
        let attachment = tail.attach(signal, 0, Seq::FIRST);
        Cursor::new(tail, attachment, Seq::FIRST)
    }

    #[test]
    fn a_cursor_is_small() {
        assert!(size_of::<Option<Cursor>>() <= 24, "{} bytes", size_of::<Option<Cursor>>());
    }

    #[test]
    fn cursors_are_found_by_group_in_whatever_order_they_came_and_went() {
        let mut cursors = Cursors::default();
        let names: Vec<String> = (0..100).map(|n| format!("group {n}")).collect();
        for name in &names {
            let number = cursors.reserve();
            cursors.put(number, cursor(name));
        }
        for name in names.iter().step_by(3) {
            let number = cursors.find(GroupId::named(name)).unwrap();
            assert_eq!(cursors.remove(number).unwrap().tail.group(), GroupId::named(name));
        }
        for (n, name) in names.iter().enumerate() {
            let found = cursors.find(GroupId::named(name));
            assert_eq!(found.is_some(), n % 3 != 0, "{name}");
            if let Some(number) = found {
                assert_eq!(cursors.get(number).unwrap().tail.group(), GroupId::named(name));
            }
        }
        assert_eq!(cursors.len(), 66);
    }

    #[test]
    fn numbers_are_used_again() {
        let mut cursors = Cursors::default();
        let number = cursors.reserve();
        cursors.release(number);
        assert_eq!(cursors.reserve(), number);
        cursors.put(number, cursor("one"));
        cursors.remove(number);
        assert_eq!(cursors.reserve(), number);
        assert!(cursors.get(number).is_none());
    }
}
