//! The data layer: what is durable, behind one trait.
//!
//! A [`Store`] keeps, for each group, its records, its members, its senders and one row. Only
//! [`Store::append`] changes a group, and it states the epoch and the tail it expects: a home
//! that has been replaced is refused by the store itself, whatever it believes.

mod write;

pub mod fjall;

mod committer;

mod acknowledger;

mod journal_sync;

mod staged;

mod encode;

mod operations;

mod codec;

mod engine;

mod open;

mod create;

mod settle;

mod standing;

mod journal;

mod manifest;

mod witness;

pub mod memory;

mod model;

pub mod postgres;

#[cfg(test)]
mod conformance;

use std::{collections::BTreeMap, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_protocol::{GroupId, SenderId, SenderNumbers, Seq, Slot, UserId, wire};

pub use self::{fjall::FjallStore, open::OpenError};
pub use memory::{MemoryDisk, MemoryFault, MemoryStore, MemoryTiming, MemoryWrite};
pub use postgres::{PostgresError, PostgresStore};

/// A number in the group's row that only grows: a write under an old one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A group's row, as it was when read.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRow {
    /// Whoever activated last writes under this one.
    pub epoch: Epoch,
    /// The first Seq not yet written.
    pub tail: Seq,
    /// A random number given at creation: a group that was deleted and made again is another.
    pub incarnation: u64,
    /// What its records add up to.
    pub state: GroupState,
}

/// What a group's records add up to, and how far its followers inside the home have got. Written
/// by the home with the append that changes it.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupState {
    /// Title, who may join, and so on.
    pub settings: wire::Settings,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Closed for good.
    pub closed: bool,
    /// How many members there are.
    pub members: u64,
    /// Sender rows hold everything below; from here on the records themselves say it.
    pub senders_watermark: Seq,
    /// Members have been told, in their own sequences, of everything below; none where they have
    /// been told of all.
    pub notices_watermark: Option<Seq>,
    /// How it is cut into sub-groups; none where it never was.
    pub layout: Option<Box<wire::Layout>>,
    /// What some or all of its members have been given by name; none where nothing ever was.
    pub features: Option<Box<wire::Features>>,
}

/// One member's row. A banned user who is no member has one too, with `Role::None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// Who.
    pub user: UserId,
    /// `Role::None`: not a member (then the row is kept only while banned).
    pub role: wire::Role,
    /// Milliseconds since 1970; 0 if not muted.
    pub muted_until_ms: u64,
    /// May not join.
    pub banned: bool,
    /// The record of the join that holds.
    pub joined: Seq,
    /// The record that changed this row last.
    pub changed: Seq,
}

/// How far a user has read a group, and how far it has reached one of their devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursors {
    /// A watermark; none if never set.
    pub read: Option<Seq>,
    /// A watermark; none if never set.
    pub delivered: Option<Seq>,
}

/// Raises a user's cursors in a group; a lower value than the stored one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorRaise {
    /// Whose.
    pub user: UserId,
    /// Where.
    pub group: GroupId,
    /// To what.
    pub cursors: Cursors,
}

/// One change of one group, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Encoded [`wire::Record`]s; the first stands at the expected tail.
    pub records: Vec<Bytes>,
    /// Senders' numbers to keep.
    pub senders: Vec<(SenderId, SenderNumbers)>,
    /// Senders to forget: their incarnations have expired.
    pub senders_expired: Vec<SenderId>,
    /// Member rows to put; one with `Role::None` that is not banned is deleted.
    pub members: Vec<MemberRow>,
    /// Records to overwrite: their payloads were recalled.
    pub redactions: Vec<(Seq, Bytes)>,
    /// (of which record, the edit that refers to it): found again by [`Store::edits_of`].
    pub edits: Vec<(Seq, Seq)>,
    /// The group's state, where it changed.
    pub state: Option<GroupState>,
    /// Put the group on the list of those with notices to send, or take it off.
    pub notices_due: Option<bool>,
}

/// A change with what must hold for it to be written.
#[derive(Debug, Clone)]
pub struct Append {
    /// Which group.
    pub group: GroupId,
    /// The epoch of the home's activation.
    pub epoch: Epoch,
    /// Where the home believes the tail is.
    pub expected_tail: Seq,
    /// What to write.
    pub changes: Changes,
}

/// Why nothing was appended, or why nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another home has activated the group since.
    #[error("the group's epoch is {current:?} now")]
    Fenced {
        /// The epoch in the row.
        current: Epoch,
    },
    /// The row's tail is another.
    #[error("the group's tail is {tail}")]
    TailMoved {
        /// The tail in the row.
        tail: Seq,
    },
    /// It may or may not have been written: activate again, and look.
    #[error("the outcome of the commit is unknown: {0}")]
    OutcomeUnknown(String),
    /// Not written, and the store writes no more.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store does not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A write or a sync failed, and the store has stopped writing: nobody can tell what the disk
    /// holds. Restart the node once the disk is mended.
    #[error("the store has stopped writing: {0}")]
    Stopped(String),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// It is out of reach, or a read failed; another time may do.
    #[error("the store is out of reach: {0}")]
    Unavailable(String),
}

/// Records, groups, members, senders, cursors and settings, durable.
///
/// Every method that writes returns once it is durable. Dropping a future that writes leaves it
/// open whether it is written. Reads see everything that was acknowledged before they began.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Raises the group's epoch and reads its row in one transaction: from then on every earlier
    /// home is shut out. With `create`, a group that has no row gets one, with this incarnation
    /// and an empty sequence; otherwise there is none.
    async fn activate(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError>;

    /// Writes a change, if epoch and tail are as stated.
    async fn append(&self, append: Append) -> Result<(), AppendError>;

    /// The group's row, without raising its epoch.
    async fn group(&self, group: GroupId) -> Result<Option<GroupRow>, StoreError>;

    /// Encoded records from `from` on, ascending and without a hole: up to `records_max`, and no
    /// more than `bytes_max` beyond the first. Empty only at or above the tail.
    async fn read(&self, group: GroupId, from: Seq, limit: ReadLimit) -> Result<Vec<Bytes>, StoreError>;

    /// The edits of a record, ascending.
    async fn edits_of(&self, group: GroupId, record: Seq) -> Result<Vec<Seq>, StoreError>;

    /// These senders' numbers as they were last kept, in the order asked for.
    async fn senders(
        &self,
        group: GroupId,
        senders: &[SenderId],
    ) -> Result<Vec<Option<SenderNumbers>>, StoreError>;

    /// One sender's.
    async fn sender(&self, group: GroupId, sender: &SenderId) -> Result<Option<SenderNumbers>, StoreError> {
        let found = self.senders(group, std::slice::from_ref(sender)).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// Every sender row of one user in one group: how many incarnations they have.
    async fn senders_of(&self, group: GroupId, user: &UserId) -> Result<Vec<SenderId>, StoreError>;

    /// The rows of these users, in the order asked for.
    async fn members(&self, group: GroupId, users: &[UserId]) -> Result<Vec<Option<MemberRow>>, StoreError>;

    /// Member rows of some slots in the order of (slot, user), from after a position, banned users'
    /// rows among them. An empty page is the end.
    async fn members_page(
        &self,
        group: GroupId,
        slots: Range<u16>,
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError>;

    /// The groups a user is a member of, ascending, from after one.
    async fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError>;

    /// A user's cursors in these groups, in the order asked for.
    async fn cursors(&self, user: &UserId, groups: &[GroupId]) -> Result<Vec<Cursors>, StoreError>;

    /// Raises cursors; none ever goes back.
    async fn raise_cursors(&self, raises: Vec<CursorRaise>) -> Result<(), StoreError>;

    /// Groups with notices to send, ascending, from after one.
    async fn notices_due(&self, after: Option<GroupId>, limit: usize) -> Result<Vec<GroupId>, StoreError>;

    /// A setting with its version, which starts at 1.
    async fn setting(&self, key: &str) -> Result<Option<Setting>, StoreError>;

    /// Writes a setting if its version is still `expected` (0: there is none); the new version,
    /// or what stands there instead.
    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, StoreError>;

    /// Settings whose keys begin with `prefix`, ascending.
    async fn settings(&self, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError>;

    /// Has the engine answer, past all that waits for it here: how long that takes says how the engine is,
    /// and the way to it, and not how much there is to do.
    async fn sign_of_life(&self) -> Result<(), StoreError> {
        // Looked up, not found.
        self.setting("sign-of-life").await.map(drop)
    }

    /// Does it still write? The reason if not.
    fn health(&self) -> Result<(), StoreError>;
}

/// What a new group's row starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Create {
    /// The group's incarnation, random.
    pub incarnation: u64,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// How much to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// The most records.
    pub records_max: usize,
    /// The most bytes, beyond the first record.
    pub bytes_max: usize,
}

/// A value of the coordination layer, with the version that a change must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Raised by each change.
    pub version: u64,
    /// What was written.
    pub value: Bytes,
}

impl GroupState {
    /// The state of a group without records.
    #[must_use]
    pub fn new(created_ms: u64) -> Self {
        Self {
            settings: wire::Settings::default(),
            created_ms,
            closed: false,
            members: 0,
            senders_watermark: Seq::FIRST,
            notices_watermark: None,
            layout: None,
            features: None,
        }
    }
}

impl MemberRow {
    /// Is there anything to keep? Neither a member nor banned is no row.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.banned || self.role != wire::Role::None
    }
}

impl Cursors {
    /// The greater of each.
    #[must_use]
    pub fn raised(self, to: Self) -> Self {
        Self { read: self.read.max(to.read), delivered: self.delivered.max(to.delivered) }
    }
}
