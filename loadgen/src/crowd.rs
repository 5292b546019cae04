//! The members of one group along a curve: they connect, join, talk, leave and disconnect.
//!
//! ```text
//!  connecting ─► lobby ─► joining ─► following: a member ─► leaving ─► gone
//!                  └ one joins by itself,  │                 └ one leaves by itself,
//!                    others are added      └ says what is due  others are removed
//! ```
//!
//! Who is about to join is connected already, and who has left stays until it has had all that was its
//! own: the judge is told of each step. A user who has left comes back later, under another number.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_client::{Client, Config, ConnectError, Follow, FollowError, RequestError, UserId, wire};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::{
    change::Change,
    curve::{Curve, leavers},
    judge::{Judge, Progress},
    member::Done,
    network::Network,
    options::{Clients, Sabotage},
    plan::{Due, MemberId},
    report::{Report, Turnout},
    setup::{CHANGE_USERS_MAX, Present, Setup},
    timeline::Attendance,
};

mod coming;

/// The group's number in the run.
const GROUP: u32 = 0;
/// Messages that wait for one client; what is due above that is counted as never sent.
const DUE_MAX: usize = 64;
/// How often clients are connected for those who are to come.
const INVITE_EVERY: Duration = Duration::from_millis(100);
/// How often the crowd is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to look whether everything has arrived.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(20);

/// The members of one group, and all that is under way to make them more or fewer.
pub(crate) struct Crowd<'a> {
    setup: &'a Setup<'a>,
    clients: &'a Clients,
    judge: Arc<Judge>,
    admin: Client,
    stopped: watch::Receiver<bool>,
    random: StdRng,
    sabotage: Option<Sabotage>,

    /// The user of each member, by the member's number: they are numbered as they come.
    users: Vec<u32>,
    /// Users who have left, the first of them to come back first.
    away: VecDeque<u32>,
    /// Of users who were there.
    users_known: u32,

    connecting: u32,
    lobby: Vec<Guest>,
    joining: u32,
    present: Vec<Talker>,
    leaving: u32,
    /// Of those who leave and are not done: how many sessions they had had before.
    reconnects: BTreeMap<u32, u64>,
    /// Those who still read, and nobody can say with which record they left: the judge hears it when they
    /// are done.
    unplaced: BTreeSet<u32>,
    /// Members that are to be replaced, with a share of one.
    turnover: f64,
    sub_groups: (u32, u64),

    under_way: FuturesUnordered<Happening<'a>>,
    looking: bool,
    members: JoinSet<Done>,
    turnout: Turnout,
    report: Report,
}

/// A client that is connected, and about to join.
struct Guest {
    member: u32,
    user: UserId,
    config: Config,
    client: Client,
    network: Option<Arc<Network>>,
}

/// A member that may be asked to say something.
struct Talker {
    member: u32,
    user: UserId,
    client: Client,
    queue: mpsc::Sender<Due>,
    said: u64,
}

type Happening<'a> = Pin<Box<dyn Future<Output = Happened> + Send + 'a>>;

/// What was under way and has come about.
enum Happened {
    Connected(u32, Result<Guest, ConnectError>),
    /// Some asked to join when the tail was known to be `asked`.
    Joined(Vec<Guest>, u64, Result<Option<u64>, RequestError>),
    Following(Guest, u64, Option<u64>, Result<Follow, FollowError>),
    Left(Vec<u32>, Result<Option<u64>, RequestError>),
    Looked(Result<wire::Group, RequestError>),
}

impl<'a> Crowd<'a> {
    /// Those who are there from the beginning, numbered from 0.
    pub(crate) fn new(
        setup: &'a Setup<'a>,
        clients: &'a Clients,
        judge: Arc<Judge>,
        admin: Client,
        stopped: watch::Receiver<bool>,
        report: Report,
    ) -> Self {
        Self {
            setup,
            clients,
            judge,
            admin,
            stopped,
            random: StdRng::seed_from_u64(report.seed),
            sabotage: clients.sabotage,
            users: Vec::new(),
            away: VecDeque::new(),
            users_known: 0,
            connecting: 0,
            lobby: Vec::new(),
            joining: 0,
            present: Vec::new(),
            leaving: 0,
            reconnects: BTreeMap::new(),
            unplaced: BTreeSet::new(),
            turnover: 0.0,
            sub_groups: (1, 0),
            under_way: FuturesUnordered::new(),
            looking: false,
            members: JoinSet::new(),
            turnout: Turnout::default(),
            report,
        }
    }

    /// One more of those who are there from the beginning.
    pub(crate) fn begin_with(&mut self, id: MemberId, user: UserId, present: Present) {
        self.users.push(id.member);
        self.users_known += 1;
        self.seat(id.member, user, present, None);
    }

    /// Goes along the curve to its end.
    pub(crate) async fn follow(&mut self, curve: &Curve, turnover_percent: f64, begun: Instant) {
        let mut messages = curve.messages().peekable();
        let [mut invites, mut looks] = [INVITE_EVERY, LOOK_EVERY].map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let mut change_at = begun;
        let end = begun + curve.length();
        loop {
            let at = begun.elapsed();
            let wanted = curve.members(at);
            let due = messages.peek().copied();
            tokio::select! {
                biased;
                () = self.happen() => {}
                () = sleep_until(begun + due.unwrap_or_default()), if due.is_some() => {
                    messages.next();
                    self.say(due.unwrap_or_default());
                }
                _ = looks.tick() => self.look(wanted),
                () = sleep_until(change_at) => {
                    change_at = Instant::now() + curve.change_every(at);
                    self.change(wanted);
                }
                _ = invites.tick() => {
                    let share = turnover_percent / 100.0 / 60.0 * INVITE_EVERY.as_secs_f64();
                    self.turnover += self.present.len() as f64 * share;
                    self.invite(wanted);
                }
                () = sleep_until(end) => return,
            }
        }
    }

    /// Waits until everything has arrived and been answered, up to a bound; then all are done.
    pub(crate) async fn finish(mut self, stop: &watch::Sender<bool>, linger: Duration) -> Report {
        let end = Instant::now() + self.clients.drain;
        while Instant::now() < end && !self.is_at_rest() {
            tokio::select! {
                biased;
                () = self.happen() => {}
                () = sleep(DRAIN_LOOK_EVERY) => {}
            }
        }
        sleep(linger).await;
        stop.send_replace(true);
        while let Some(done) = self.members.join_next().await {
            self.done(done);
        }
        self.admin.close().await;
        self.report.turnout = Some(self.turnout);
        self.report
    }

    fn is_at_rest(&self) -> bool {
        self.joining + self.leaving == 0 && self.judge.progress() == Progress::default()
    }

    /// Something comes about of what is under way.
    async fn happen(&mut self) {
        tokio::select! {
            biased;
            Some(done) = self.members.join_next(), if !self.members.is_empty() => self.done(done),
            Some(happened) = self.under_way.next(), if !self.under_way.is_empty() => self.handle(happened),
            else => pending().await,
        }
    }

    fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Connected(member, guest) => self.connected(member, guest),
            Happened::Joined(guests, asked, seq) => self.joined(guests, asked, seq),
            Happened::Following(guest, asked, seq, follow) => self.following(guest, asked, seq, follow),
            Happened::Left(members, seq) => self.left(&members, seq),
            Happened::Looked(group) => {
                self.looking = false;
                if let Ok(group) = group {
                    self.sub_groups = (group.sub_groups.max(1), group.layout_version);
                }
            }
        }
    }

    fn id(member: u32) -> MemberId {
        MemberId { group: GROUP, member }
    }

    /// Lets those in who wait, and sends as many away as the curve wants.
    fn change(&mut self, wanted: u32) {
        if self.joining == 0 && !self.lobby.is_empty() {
            let mut guests = std::mem::take(&mut self.lobby);
            let mut others = guests.split_off(1);
            let joining = Change::Join(guests[0].client.clone());
            self.join(guests, joining);
            while !others.is_empty() {
                let some = others.split_off(others.len().saturating_sub(CHANGE_USERS_MAX));
                let users = some.iter().map(|guest| guest.user.clone()).collect();
                self.join(some, Change::Add(self.admin.clone(), users));
            }
        }
        let turnover = self.turnover as u32;
        let go = leavers(wanted, self.present.len() as u32, self.coming(), turnover);
        if self.leaving == 0 && go > 0 {
            self.turnover -= f64::from(turnover);
            let first = self.pick();
            let leaving = Change::Leave(first.client.clone());
            self.leave(vec![first], leaving);
            let mut others: Vec<_> = (1..go).map(|_| self.pick()).collect();
            while !others.is_empty() {
                let some = others.split_off(others.len().saturating_sub(CHANGE_USERS_MAX));
                let users = some.iter().map(|talker| talker.user.clone()).collect();
                self.leave(some, Change::Remove(self.admin.clone(), users));
            }
        }
    }

    /// One of the present, who is so no more.
    fn pick(&mut self) -> Talker {
        let at = self.random.random_range(0..self.present.len());
        self.present.swap_remove(at)
    }

    fn leave(&mut self, talkers: Vec<Talker>, change: Change) {
        let reconnects = |talker: &Talker| (talker.member, talker.client.stats().reconnects);
        self.reconnects.extend(talkers.iter().map(reconnects));
        let members: Vec<_> = talkers.into_iter().map(|talker| talker.member).collect();
        self.leaving += members.len() as u32;
        let group = self.setup.group(GROUP);
        self.under_way.push(Box::pin(async move {
            let seq = change.carry_out(group).await;
            Happened::Left(members, seq)
        }));
    }

    fn left(&mut self, members: &[u32], seq: Result<Option<u64>, RequestError>) {
        self.leaving -= members.len() as u32;
        match seq {
            Ok(seq) => {
                self.turnout.left += members.len() as u64;
                for member in members {
                    if seq.is_none() && self.reconnects.contains_key(member) {
                        self.unplaced.insert(*member);
                    } else {
                        self.judge.left(Self::id(*member), seq);
                    }
                }
            }
            Err(error) => self.report.fail(format!("{} could not leave: {error}", members.len())),
        }
    }

    /// A member is done: its user may come back.
    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(done) => {
                let member = done.id.member;
                self.present.retain(|talker| talker.member != member);
                self.away.push_back(self.users[member as usize]);
                let before = self.reconnects.remove(&member);
                let is_cut_off = before.is_some_and(|before| done.reconnects() > before);
                self.turnout.cut_off += u64::from(is_cut_off);
                // Nobody serves it what it has not had.
                if self.unplaced.remove(&member) || is_cut_off {
                    self.judge.left(done.id, None);
                }
                done.tell(&self.judge, &mut self.report);
            }
            Err(panic) => self.report.fail(format!("a client panicked: {panic}")),
        }
    }

    /// Somebody says what is due.
    fn say(&mut self, at: Duration) {
        let talker = self.random.random_range(0..self.present.len().max(1));
        let Some(talker) = self.present.get_mut(talker) else { return };
        let due = Due { at, sender: Self::id(talker.member), number: talker.said + 1 };
        match talker.queue.try_send(due) {
            Ok(()) => talker.said += 1,
            Err(_) => self.report.unsent += 1,
        }
    }

    /// Who is there, for the timeline; and asks the node how the group is cut.
    fn look(&mut self, wanted: u32) {
        let (sub_groups, layout_version) = self.sub_groups;
        let members = self.present.len() as u32;
        let connected = self.members.len() as u32 + self.lobby.len() as u32 + self.joining;
        let attendance = Attendance { wanted, members, connected, sub_groups, layout_version };
        self.turnout.saw(&attendance);
        self.judge.observe(GROUP, attendance);
        if !std::mem::replace(&mut self.looking, true) {
            let (admin, group) = (self.admin.clone(), self.setup.group(GROUP));
            self.under_way.push(Box::pin(async move { Happened::Looked(admin.group(group).await) }));
        }
    }
}
