//! What can be asked of a store's writer, and what it answers: one list for all implementations.

use bytes::Bytes;
use shoal_protocol::{GroupId, Seq};

use super::{Append, AppendError, Create, CursorRaise, GroupRow, Setting};

/// One write, all of it or nothing.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Activate { group: GroupId, create: Option<Create> },
    Append(Box<Append>),
    RaiseCursors(Vec<CursorRaise>),
    Swap { key: String, expected: u64, value: Option<Bytes> },
}

/// What became of a write that the store itself had no trouble with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Written {
    Activated(Option<GroupRow>),
    Appended(Result<(), AppendError>),
    CursorsRaised,
    Swapped(Result<u64, Option<Setting>>),
}

impl Append {
    /// The tail once it is written.
    pub(super) fn tail_after(&self) -> Seq {
        let count = u64::try_from(self.changes.records.len()).expect("a usize fits in 64 bits");
        self.expected_tail.advance(count)
    }

    /// # Panics
    /// Where it redacts or edits what is not there: that would be a record above the tail.
    pub(super) fn assert_refers_below_tail(&self) {
        let tail = self.tail_after();
        let redacted = self.changes.redactions.iter().map(|(seq, _)| seq);
        let edited = self.changes.edits.iter().flat_map(|(record, edit)| [record, edit]);
        assert!(
            redacted.chain(edited).all(|seq| *seq < tail),
            "redactions and edits are of records below the tail"
        );
    }
}
