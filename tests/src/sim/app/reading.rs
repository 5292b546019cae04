//! Following: the user's own sequence says which groups they are in, and each of these is read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_client::{Client, Delivered, Follow, FollowError, Start};
use shoal_protocol::{Code, GroupId, Seq, wire};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use wire::{notice::What, record::Body};

use super::App;
use crate::sim::{chronicle::Event, mutation::Mutation};

/// The longest pause of an app that reads slowly.
const PAUSE_MAX_MS: u64 = 3_000;

/// One record in so many is spoilt where something is broken on purpose.
const SPOILT: u32 = 40;

/// What a user's own sequence says of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Membership {
    /// Where in the group it was decided.
    at: u64,
    pub(super) is_member: bool,
    pub(super) is_admin: bool,
}

/// By group, as far as the own sequence was read.
pub(super) type Memberships = BTreeMap<GroupId, Membership>;

/// Reads the user's own sequence and every group it names, until it is dropped.
pub(super) async fn read_all(app: Arc<App>, client: Client) {
    let memberships = app.memberships();
    let own = GroupId::own(app.user());
    let mut readers = JoinSet::new();
    let mut known = app.saved_groups();
    for group in &known {
        readers.spawn(read_group(app.clone(), client.clone(), *group, memberships.subscribe()));
    }
    let start = if app.saved_watermark(own).is_some() { Start::Resume } else { Start::Watermark(Seq::FIRST) };
    let Ok(mut follow) = client.follow(own, start).await else { return };
    let mut reader = Reader::begin(&app, own, Some(follow.watermark()));
    while let Some(Ok(delivered)) = follow.next().await {
        if let Delivered::Record(record) = &delivered
            && let Some((group, membership)) = membership(record)
        {
            memberships.send_modify(|all| {
                all.insert(group, membership);
            });
            if !known.contains(&group) {
                known.push(group);
                readers.spawn(read_group(app.clone(), client.clone(), group, memberships.subscribe()));
            }
        }
        reader.take(delivered, follow.watermark()).await;
    }
}

fn membership(record: &wire::Record) -> Option<(GroupId, Membership)> {
    let Some(Body::Notice(notice)) = &record.body else { return None };
    let role = match &notice.what {
        Some(What::Joined(joined)) => joined.role(),
        Some(What::Left(_)) => wire::Role::None,
        _ => return None,
    };
    let is_member = role != wire::Role::None;
    let is_admin = matches!(role, wire::Role::Admin | wire::Role::Owner);
    Some((GroupId::from_wire(&notice.group).ok()?, Membership { at: notice.group_seq, is_member, is_admin }))
}

/// Follows a group whenever its user is in it.
async fn read_group(
    app: Arc<App>,
    client: Client,
    group: GroupId,
    mut memberships: watch::Receiver<Memberships>,
) {
    // What was followed before goes on without being asked again.
    let mut go_on = app.saved_watermark(group);
    // Told of a membership at or below this place, it is over already.
    let mut over = 0;
    loop {
        if go_on.is_none() {
            let joined = memberships.wait_for(|all| {
                all.get(&group).is_some_and(|membership| membership.is_member && membership.at > over)
            });
            match joined.await {
                Ok(all) => over = over.max(all.get(&group).map_or(0, |membership| membership.at)),
                Err(_) => return,
            }
        }
        let follow = client.follow(group, Start::Resume).await;
        match follow {
            Ok(follow) => {
                let from = go_on.map(|_| follow.watermark());
                over = over.max(read_one(&app, follow, from).await);
            }
            Err(FollowError::Closed) => return,
            Err(error) => app.note(format!("does not follow {group}: {error}")),
        }
        go_on = None;
    }
}

/// Reads a follow to its end; the last place it was given.
async fn read_one(app: &Arc<App>, mut follow: Follow, from: Option<Seq>) -> u64 {
    let group = follow.group();
    let mut reader = Reader::begin(app, group, from);
    while let Some(delivered) = follow.next().await {
        match delivered {
            Ok(delivered) => reader.take(delivered, follow.watermark()).await,
            Err(FollowError::Refused(why)) => reader.end(why.code),
            // The life is over.
            Err(_) => break,
        }
    }
    follow.watermark().get() - 1
}

/// What an app does with what it is given: it tells the chronicle, at its own pace.
struct Reader {
    app: Arc<App>,
    group: GroupId,
    random: StdRng,
    is_slow: bool,
    held: Option<wire::Record>,
}

impl Reader {
    fn begin(app: &Arc<App>, group: GroupId, from: Option<Seq>) -> Self {
        app.tell(Event::Followed { app: app.id(), group, from });
        if let Some(from) = from {
            app.position(group, Some(from));
        }
        let mut random = StdRng::seed_from_u64(app.draw_seed() ^ group.stable_hash());
        let is_slow = random.random_ratio(1, 6);
        Self { app: app.clone(), group, random, is_slow, held: None }
    }

    async fn take(&mut self, delivered: Delivered, watermark: Seq) {
        let (app, group) = (self.app.id(), self.group);
        match delivered {
            Delivered::Record(record) => self.take_record(record),
            Delivered::Skipped { from, to } => self.app.tell(Event::Skipped { app, group, from, to }),
            Delivered::GroupChanged { from, to } => {
                self.app.tell(Event::PassedOver { app, group, from, to });
            }
            _ => {}
        }
        self.app.position(group, Some(watermark));
        if self.is_slow && !self.app.is_over() && self.random.random_ratio(1, 8) {
            sleep(Duration::from_millis(self.random.random_range(1..PAUSE_MAX_MS))).await;
        }
    }

    fn take_record(&mut self, record: wire::Record) {
        let mutation = self.app.mutation().filter(|_| !self.group.is_own());
        let spoils = |mutation: Option<Mutation>, wanted| mutation == Some(wanted);
        if spoils(mutation, Mutation::GapAccepted) && self.random.random_ratio(1, SPOILT) {
            return;
        }
        if spoils(mutation, Mutation::TakenForSilent) && self.random.random_ratio(1, SPOILT) {
            let (app, group, from) = (self.app.id(), self.group, seq_of(&record));
            return self.app.tell(Event::PassedOver { app, group, from, to: from.next() });
        }
        if spoils(mutation, Mutation::Swapped) && self.held.is_none() && self.random.random_ratio(1, SPOILT) {
            self.held = Some(record);
            return;
        }
        if spoils(mutation, Mutation::Doubled) && self.random.random_ratio(1, SPOILT) {
            self.deliver(record.clone());
        }
        let goes_on = spoils(mutation, Mutation::RemovedGoesOn) && self.is_own_end(&record);
        let after = goes_on.then(|| wire::Record { seq: record.seq + 1, ..record.clone() });
        self.deliver(record);
        let held = self.held.take();
        after.into_iter().chain(held).for_each(|record| self.deliver(record));
    }

    fn deliver(&self, record: wire::Record) {
        self.app.tell(Event::Delivered { app: self.app.id(), group: self.group, record });
    }

    fn is_own_end(&self, record: &wire::Record) -> bool {
        use wire::member_change::Kind;
        let Some(Body::Members(changes)) = &record.body else { return false };
        let ends = |kind| matches!(kind, Kind::Left | Kind::Removed | Kind::Banned);
        let mut mine = changes.changes.iter().filter(|change| change.user == self.app.user().as_str());
        mine.any(|change| ends(change.kind()))
    }

    fn end(&mut self, code: Code) {
        let (app, group) = (self.app.id(), self.group);
        self.app.tell(Event::FollowEnded { app, group, code });
        self.app.position(group, None);
    }
}

fn seq_of(record: &wire::Record) -> Seq {
    Seq::new(record.seq).expect("no record is at 0")
}
