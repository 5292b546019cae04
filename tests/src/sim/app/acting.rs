//! What an app does, drawn from its seed: most of the time it sends; now and then it edits,
//! recalls, changes a group, asks for something, saves, or goes away.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use shoal_client::{Client, Message, RequestError};
use shoal_node::clock::Clock;
use shoal_protocol::{GroupId, Seq, UserId, wire};
use tokio::time::sleep;
use wire::{message::Kind, set_feature::Slots};

use super::{App, Tasks, USERS, payload, send, user};
use crate::sim::{
    chronicle::{AppId, Event, Outcome},
    mutation::Mutation,
};

/// One message in so many is spoilt where something is broken on purpose.
const SPOILT: u32 = 20;

/// All are in it from the beginning, and may come and go.
const TOWN: &str = "town";
/// A few, who come and go.
const CREW: &str = "crew";
/// Two, and nobody else may join.
const DUO: &str = "duo";
/// Made in the middle of things.
const LATE: &str = "late";

pub(super) fn town() -> GroupId {
    GroupId::named(TOWN)
}

/// The groups of a run.
pub(super) fn groups() -> Vec<GroupId> {
    [TOWN, CREW, DUO, LATE].map(GroupId::named).to_vec()
}

/// Who makes which group, and with whom.
fn founded_by(app: AppId) -> Option<(&'static str, std::ops::Range<usize>)> {
    match app.0 {
        0 => Some((TOWN, 0..USERS)),
        1 => Some((CREW, 2..8)),
        8 => Some((DUO, 9..10)),
        3 => Some((LATE, 4..14)),
        _ => None,
    }
}

/// One life's doings.
pub(super) struct Actor {
    app: Arc<App>,
    client: Client,
    tasks: Tasks,
    random: StdRng,
    life: u32,
}

impl Actor {
    pub(super) fn new(app: Arc<App>, client: Client, tasks: Tasks, life: u32) -> Self {
        let random = StdRng::seed_from_u64(app.draw_seed());
        Self { app, client, tasks, random, life }
    }

    /// Does one thing after the other until it goes away; once the stage is over it stays, and
    /// does nothing more.
    pub(super) async fn act(mut self) {
        self.found().await;
        loop {
            let pause_max = u64::try_from(self.app.scene.plan.pause_max.as_millis()).unwrap_or(1);
            sleep(Duration::from_millis(self.random.random_range(0..=pause_max))).await;
            if self.app.is_over() {
                return std::future::pending().await;
            }
            match self.random.random_range(0..100) {
                0..50 => self.send_some().await,
                50..60 => self.refer().await,
                60..77 => self.change_something().await,
                77..84 => self.read_on().await,
                84..89 => self.ask().await,
                89..94 => drop(self.app.save(&self.client)),
                94..97 => drop(self.client.network_changed()),
                _ => return,
            }
        }
    }

    /// Makes the groups that are its to make.
    async fn found(&mut self) {
        let Some((name, members)) = founded_by(self.app.id()).filter(|_| self.life == 0) else { return };
        if name == LATE {
            sleep(self.app.scene.plan.busy / 3).await;
        }
        let members: Vec<_> = members.map(user).collect();
        let settings = wire::Settings { open: name != DUO, ..self.draw_settings() };
        let group = GroupId::named(name);
        // Whether the first attempt was carried out is not known where its answer was lost.
        for _ in 0..20 {
            let changed = self.client.create(group, settings.clone(), &members).await;
            let done = changed.is_ok();
            self.tell_changed(group, changed);
            if done || self.app.is_over() {
                return;
            }
        }
    }

    async fn send_some(&mut self) {
        let Some(group) = self.draw_group() else { return };
        let many = if self.random.random_ratio(1, 6) { self.random.random_range(2..12) } else { 1 };
        for _ in 0..many {
            self.send_one(group, Kind::New, 0).await;
        }
    }

    async fn send_one(&mut self, group: GroupId, kind: Kind, refers_to: u64) {
        let bytes = if self.random.random_ratio(1, 10) { 3_000 } else { 200 };
        let id = self.app.next_message();
        let payload = payload::write(id, self.random.random_range(0..bytes));
        let message =
            Message::from(wire::Message { kind: kind.into(), payload, refers_to, ..Default::default() });
        let mutation = self.app.mutation().filter(|_| self.random.random_ratio(1, SPOILT));
        if mutation == Some(Mutation::ReceiptInvented) {
            let outcome = Outcome::Committed(self.app.scene.ledger.tail(group));
            self.app.tell(Event::Sent { app: self.app.id(), group, message: id });
            self.app.lock().waiting.remove(&id);
            return self.app.tell(Event::Settled { app: self.app.id(), message: id, outcome });
        }
        if mutation == Some(Mutation::Renumbered) {
            send(&self.app, &self.client, &self.tasks, group, id, message.clone()).await;
        }
        send(&self.app, &self.client, &self.tasks, group, id, message).await;
    }

    /// Edits, recalls or reacts to something that it has read.
    async fn refer(&mut self) {
        let Some(group) = self.draw_group() else { return };
        let below = self.watermark(group).get();
        let refers_to = self.random.random_range(1..=below);
        let kind =
            *[Kind::Edit, Kind::Recall, Kind::Reaction].choose(&mut self.random).expect("three of them");
        self.send_one(group, kind, refers_to).await;
    }

    /// Changes who is in a group, and what they may do.
    async fn change_something(&mut self) {
        let group = self.draw_group_to_change();
        let other = user(self.random.random_range(0..USERS));
        let some = self.draw_users();
        let client = self.client.clone();
        let changed = match self.random.random_range(0..18) {
            0..2 => client.join(group).await,
            2..4 if group != GroupId::named(TOWN) => client.leave(group).await,
            4..8 => client.add(group, &some).await,
            8..11 => client.remove(group, &some).await,
            11..13 => client.mute(group, &other, self.mute_until()).await,
            13 => client.ban(group, &other, self.random.random_ratio(1, 3)).await,
            14 => client.set_settings(group, self.draw_settings()).await,
            15 => client.set_feature(group, self.draw_feature()).await,
            16 if group == GroupId::named(LATE) => client.close_group(group).await,
            _ => self.set_role(group, &other).await,
        };
        self.tell_changed(group, changed);
    }

    /// One or two; now and then so many that the group is cut otherwise for it.
    fn draw_users(&mut self) -> Vec<UserId> {
        let many = if self.random.random_ratio(1, 5) { USERS / 2 } else { 2 };
        let (from, count) = (self.random.random_range(0..USERS), self.random.random_range(1..=many));
        (from..from + count).map(|number| user(number % USERS)).collect()
    }

    /// Often one that it may change.
    fn draw_group_to_change(&mut self) -> GroupId {
        let memberships = self.app.memberships().borrow().clone();
        let mine = memberships.into_iter().filter(|(_, membership)| membership.is_admin);
        let mine: Vec<_> = mine.map(|(group, _)| group).collect();
        let often = mine.choose(&mut self.random).copied().filter(|_| self.random.random_ratio(9, 10));
        often.unwrap_or_else(|| *groups().choose(&mut self.random).expect("there are groups"))
    }

    fn draw_settings(&mut self) -> wire::Settings {
        wire::Settings {
            title: format!("title {}", self.random.random_range(0..100)),
            open: self.random.random_ratio(3, 4),
            history_before_join: self.random.random(),
            members_max: 0,
        }
    }

    /// A flag, or a rate that some of them come to feel; or it is taken from all.
    fn draw_feature(&mut self) -> wire::SetFeature {
        let name = if self.random.random() { "composer" } else { "shoal.messages_per_second" };
        let value = self.random.random_range(0..40);
        let slots = match self.random.random_range(0..3) {
            0 => None,
            1 => Some(Slots::Percent(self.random.random_range(1..=100))),
            _ => Some(Slots::SubGroup(self.random.random_range(0..3))),
        };
        let value = (value > 8).then(|| value.to_string());
        wire::SetFeature { name: name.to_owned(), value, slots }
    }

    async fn set_role(&mut self, group: GroupId, other: &UserId) -> Result<wire::Changed, RequestError> {
        let role = if self.random.random_ratio(2, 3) { wire::Role::Admin } else { wire::Role::Member };
        self.client.set_role(group, other, role).await
    }

    fn mute_until(&mut self) -> u64 {
        let for_ms = self.random.random_range(0..4_000);
        if for_ms < 1_000 { 0 } else { self.app.scene.clock.now_ms() + for_ms }
    }

    fn tell_changed(&self, group: GroupId, changed: Result<wire::Changed, RequestError>) {
        let app = self.app.id();
        match changed {
            Ok(changed) => match Seq::new(changed.seq) {
                Some(seq) => self.app.tell(Event::Changed { app, group, seq }),
                None => self.app.note("a change at no place"),
            },
            Err(RequestError::Refused(why)) => {
                self.app.tell(Event::ChangeRefused { app, group, code: why.code });
            }
            Err(error) => self.app.note(format!("a change of {group}: {error}")),
        }
    }

    /// Says how far it has read, and looks at what the node says.
    async fn read_on(&mut self) {
        let Some(group) = self.draw_group() else { return };
        let watermark = self.watermark(group);
        if self.client.set_read(group, watermark).await.is_ok() {
            self.app.tell(Event::ReadSet { app: self.app.id(), group, read: watermark });
        }
        if let Ok(told) = self.client.group(group).await {
            let (read, delivered) = (Seq::new(told.read), Seq::new(told.delivered));
            self.app.tell(Event::Cursors { app: self.app.id(), group, read, delivered });
            let features = told.features.unwrap_or_default();
            self.app.tell(Event::Features { app: self.app.id(), group, features });
        }
    }

    /// Asks for history, or for all members page by page.
    async fn ask(&mut self) {
        let Some(group) = self.draw_group() else { return };
        if self.random.random() {
            let from = Seq::new(self.random.random_range(1..=self.watermark(group).get()));
            let (limit, backwards) = (self.random.random_range(1..20), self.random.random());
            if let Ok(history) = self.client.history(group, from, limit, backwards).await {
                let records = history.records;
                self.app.tell(Event::History { app: self.app.id(), group, records });
            }
        } else {
            self.ask_members(group).await;
        }
    }

    async fn ask_members(&mut self, group: GroupId) {
        let (mut users, mut after) = (Vec::new(), None);
        loop {
            let limit = self.random.random_range(1..6);
            let Ok(page) = self.client.members(group, after, limit).await else { return };
            users.extend(page.members.into_iter().map(|member| member.user));
            after = page.next;
            if after.is_none() {
                return self.app.tell(Event::Members { app: self.app.id(), group, users });
            }
        }
    }

    /// One of the groups it is in, as far as it knows; sometimes another.
    fn draw_group(&mut self) -> Option<GroupId> {
        if self.random.random_ratio(1, 30) {
            return groups().choose(&mut self.random).copied();
        }
        let memberships = self.app.memberships().borrow().clone();
        let mine = memberships.into_iter().filter(|(_, membership)| membership.is_member);
        let mine: Vec<_> = mine.map(|(group, _)| group).collect();
        mine.choose(&mut self.random).copied()
    }

    fn watermark(&self, group: GroupId) -> Seq {
        self.app.lock().positions.get(&group).copied().unwrap_or(Seq::FIRST)
    }
}
