//! The store on PostgreSQL: one database or several, shared by all nodes. README.md beside this file
//! shows the schema, how a batch travels, and what was measured.
//!
//! A group's rows are all in one database, chosen by the group's partition, so that an append is one
//! transaction there; its epoch and tail are checked in that transaction. Nothing is kept in memory:
//! another node may have written since.

mod error;

mod target;

mod durability;

mod migrate;

mod list;

mod statements;

mod rows;

mod session;

mod link;

mod batch;

mod transaction;

mod writer;

mod database;

mod open;

mod settings;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use shoal_protocol::{DeviceId, GroupId, Incarnation, SenderId, SenderNumbers, Seq, Slot, UserId};
use tokio_postgres::{Row, Statement, types::ToSql};

use self::{batch::Request, database::Database, rows::to_column, statements::Statements};
use super::{
    Append, AppendError, Create, CursorRaise, Cursors, GroupRow, MemberRow, ReadLimit, Setting, Store,
    StoreError,
};
use crate::{coordination::Partition, ops::Metrics};

pub use error::PostgresError;
pub(crate) use target::parse as parse_url;

/// [`Store`] on PostgreSQL. Dropping it ends its connections once what was accepted is written.
pub struct PostgresStore {
    /// In the order that was recorded when the store was made; one at least.
    databases: Vec<Database>,
    metrics: Arc<Metrics>,
}

impl PostgresStore {
    /// The database of a group, and a number that spreads its groups over its writers.
    fn place(&self, group: GroupId) -> (&Database, usize) {
        let (partition, count) = (usize::from(Partition::of(group).number()), self.databases.len());
        (&self.databases[partition % count], partition / count)
    }

    fn of(&self, group: GroupId) -> &Database {
        self.place(group).0
    }

    /// Counts damage, wherever it was found.
    fn checked<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(read, Err(StoreError::Corrupt(_))) {
            self.metrics.store_corrupt.inc();
        }
        read
    }

    /// The groups that a statement finds, in all databases, ascending.
    async fn list(
        &self,
        statement: impl Fn(&Statements) -> &Statement + Copy,
        parameters: &[&(dyn ToSql + Sync)],
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        let found = self.databases.iter().map(|database| database.read(statement, parameters));
        let found = try_join_all(found).await?;
        let groups = found.iter().flatten().map(|row| rows::group_id(row, 0));
        let mut groups: Vec<GroupId> = self.checked(groups.collect())?;
        groups.sort_unstable();
        groups.truncate(limit);
        Ok(groups)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn activate(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError> {
        let (database, key) = self.place(group);
        let request = |answer| Request::Activate { group, create, answer };
        database.write(key, request, StoreError::Unavailable).await
    }

    async fn append(&self, append: Append) -> Result<(), AppendError> {
        append.assert_refers_below_tail();
        let (database, key) = self.place(append.group);
        let request = |answer| Request::Append { append: Box::new(append), answer };
        database.write(key, request, AppendError::OutcomeUnknown).await
    }

    async fn group(&self, group: GroupId) -> Result<Option<GroupRow>, StoreError> {
        let found = self.of(group).read(|to| &to.group, &[&group.as_bytes().as_slice()]).await?;
        let row = found.first().map(rows::group).transpose();
        Ok(self.checked(row)?.map(|(_, row)| row))
    }

    async fn read(&self, group: GroupId, from: Seq, limit: ReadLimit) -> Result<Vec<Bytes>, StoreError> {
        let (records, bytes) = (bounded(limit.records_max.max(1)), bounded(limit.bytes_max));
        let (id, start) = (group.as_bytes().as_slice(), to_column(from.get()));
        let found = self.of(group).read(|to| &to.read, &[&id, &start, &records, &bytes]).await?;
        let mut expected = from;
        let record = |row: &Row| {
            if rows::seq(row, 0)? != expected {
                return Err(StoreError::Corrupt(format!("group {group}: record {expected} is missing")));
            }
            expected = expected.next();
            rows::bytes(row, 1)
        };
        self.checked(found.iter().map(record).collect())
    }

    async fn edits_of(&self, group: GroupId, record: Seq) -> Result<Vec<Seq>, StoreError> {
        let (id, record) = (group.as_bytes().as_slice(), to_column(record.get()));
        let found = self.of(group).read(|to| &to.edits_of, &[&id, &record]).await?;
        self.checked(found.iter().map(|row| rows::seq(row, 0)).collect())
    }

    async fn senders(
        &self,
        group: GroupId,
        senders: &[SenderId],
    ) -> Result<Vec<Option<SenderNumbers>>, StoreError> {
        let users: Vec<&[u8]> = senders.iter().map(|sender| sender.user.as_str().as_bytes()).collect();
        let devices: Vec<i64> = senders.iter().map(|sender| to_column(sender.device.0)).collect();
        let incarnations: Vec<i64> = senders.iter().map(|sender| to_column(sender.incarnation.0)).collect();
        let id = group.as_bytes().as_slice();
        let found = self.of(group).read(|to| &to.senders, &[&id, &users, &devices, &incarnations]).await?;
        let found: HashMap<SenderId, SenderNumbers> =
            self.checked(found.iter().map(rows::sender).collect())?;
        Ok(senders.iter().map(|sender| found.get(sender).cloned()).collect())
    }

    async fn senders_of(&self, group: GroupId, user: &UserId) -> Result<Vec<SenderId>, StoreError> {
        let (id, name) = (group.as_bytes().as_slice(), user.as_str().as_bytes());
        let found = self.of(group).read(|to| &to.senders_of, &[&id, &name]).await?;
        let sender = |row: &Row| {
            let (device, incarnation) = (DeviceId(rows::number(row, 0)?), Incarnation(rows::number(row, 1)?));
            Ok(SenderId { user: user.clone(), device, incarnation })
        };
        let mut senders: Vec<SenderId> = self.checked(found.iter().map(sender).collect())?;
        senders.sort_unstable();
        Ok(senders)
    }

    async fn members(&self, group: GroupId, users: &[UserId]) -> Result<Vec<Option<MemberRow>>, StoreError> {
        let slots: Vec<i32> = users.iter().map(|user| Slot::of(user).number().into()).collect();
        let names: Vec<&[u8]> = users.iter().map(|user| user.as_str().as_bytes()).collect();
        let id = group.as_bytes().as_slice();
        let found = self.of(group).read(|to| &to.members_of, &[&id, &slots, &names]).await?;
        let row = |row: &Row| rows::member(row).map(|row| (row.user.clone(), row));
        let found: HashMap<UserId, MemberRow> = self.checked(found.iter().map(row).collect())?;
        Ok(users.iter().map(|user| found.get(user).cloned()).collect())
    }

    async fn members_page(
        &self,
        group: GroupId,
        slots: Range<u16>,
        after: Option<(Slot, UserId)>,
        limit: usize,
    ) -> Result<Vec<MemberRow>, StoreError> {
        let id = group.as_bytes().as_slice();
        let after = after.filter(|(slot, _)| slot.number() >= slots.start);
        let slot = i32::from(after.as_ref().map_or(slots.start, |(slot, _)| slot.number()));
        // No user's name is empty, so this is before the first.
        let user = after.as_ref().map_or(&[][..], |(_, user)| user.as_str().as_bytes());
        let (end, most) = (i32::from(slots.end), bounded(limit));
        let found = self.of(group).read(|to| &to.members_page, &[&id, &slot, &user, &end, &most]).await?;
        self.checked(found.iter().map(rows::member).collect())
    }

    async fn groups_of(
        &self,
        user: &UserId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<GroupId>, StoreError> {
        let (name, most) = (user.as_str().as_bytes(), bounded(limit));
        let after = above(after.as_ref());
        self.list(|to| &to.groups_of, &[&name, &after, &most], limit).await
    }

    /// A user's cursors are where the user's own sequence is: all of them with one look.
    async fn cursors(&self, user: &UserId, groups: &[GroupId]) -> Result<Vec<Cursors>, StoreError> {
        let ids: Vec<&[u8]> = groups.iter().map(|group| group.as_bytes().as_slice()).collect();
        let name = user.as_str().as_bytes();
        let found = self.of(GroupId::own(user)).read(|to| &to.cursors_of, &[&name, &ids]).await?;
        let found: HashMap<GroupId, Cursors> = self.checked(found.iter().map(rows::cursors).collect())?;
        Ok(groups.iter().map(|group| found.get(group).copied().unwrap_or_default()).collect())
    }

    async fn raise_cursors(&self, raises: Vec<CursorRaise>) -> Result<(), StoreError> {
        let mut by_user: BTreeMap<UserId, Vec<CursorRaise>> = BTreeMap::new();
        raises.into_iter().for_each(|raise| by_user.entry(raise.user.clone()).or_default().push(raise));
        let writes = by_user.into_iter().map(|(user, raises)| {
            let (database, key) = self.place(GroupId::own(&user));
            let request = |answer| Request::RaiseCursors { raises, answer };
            database.write(key, request, StoreError::Unavailable)
        });
        try_join_all(writes).await.map(drop)
    }

    async fn notices_due(&self, after: Option<GroupId>, limit: usize) -> Result<Vec<GroupId>, StoreError> {
        let (after, most) = (above(after.as_ref()), bounded(limit));
        self.list(|to| &to.notices_due, &[&after, &most], limit).await
    }

    async fn setting(&self, key: &str) -> Result<Option<Setting>, StoreError> {
        self.checked(settings::get(self.settings_database(), key).await)
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<Result<u64, Option<Setting>>, StoreError> {
        self.checked(settings::compare_and_swap(self.settings_database(), key, expected, value).await)
    }

    async fn settings(&self, prefix: &str) -> Result<BTreeMap<String, Setting>, StoreError> {
        self.checked(settings::list(self.settings_database(), prefix).await)
    }

    async fn sign_of_life(&self) -> Result<(), StoreError> {
        let signs = self.databases.iter().map(Database::sign_of_life);
        self.checked(try_join_all(signs).await.map(drop))
    }

    /// A database that is away comes back by itself, so this is of the moment.
    fn health(&self) -> Result<(), StoreError> {
        self.databases.iter().try_for_each(Database::health)
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("databases", &self.databases.len()).finish_non_exhaustive()
    }
}

/// Every group's id is above no bytes at all.
fn above(after: Option<&GroupId>) -> &[u8] {
    after.map_or(&[], |group| group.as_bytes())
}

/// As a column counts.
fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
