//! One task for each group that somebody on this node needs: the shell round its home and sub-group,
//! or the follower of a home elsewhere.

mod following;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use shoal_protocol::{Code, GroupId, Refusal, SenderId, Seq, UserId, wire};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use wire::member_change::Kind;

use super::{
    Follow, Followed, From, Groups, Standing,
    activation::{self, Active, refusal},
    attach::attach,
    home::{Answer, Effect, Entry, Home, LoadedRecord, LoadedSender},
    input::{Input, Reply, split},
    judgement::Judged,
    loads, notices,
    sub_group::{Now, SubGroup},
};
use crate::{
    delivery::Tail,
    store::{AppendError, Create, MemberRow, Store},
};
use following::Following;

/// What a worker has waited for.
enum Done {
    Appended(Result<(), AppendError>),
    Sender(SenderId, Result<LoadedSender, Refusal>),
    Record {
        sender: SenderId,
        as_of: Seq,
        loaded: Result<LoadedRecord, Refusal>,
    },
    Members(Result<Vec<MemberRow>, Refusal>),
    /// Up to where members have been told.
    Notices(Result<Seq, notices::Going>),
    /// A home elsewhere has answered whoever asked.
    PassedOn,
}

/// A cursor that is to be attached.
type Waiting = (Follow, oneshot::Sender<Result<Followed, Refusal>>);

/// A group's home and sub-group while they are awake.
struct Awake {
    home: Home<Reply>,
    sub_group: SubGroup,
    /// Messages to judge again once the sub-group has folded everything below.
    rejudge: Vec<(Judged<Reply>, Seq)>,
}

/// One group's task.
pub(super) struct Worker {
    groups: Groups,
    store: Arc<dyn Store>,
    group: GroupId,
    inputs: mpsc::Receiver<Input>,
    is_stopping: bool,
    tail: Option<Arc<Tail>>,
    awake: Option<Box<Awake>>,
    following: Option<Following>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    follows: Vec<Waiting>,
    is_telling: bool,
    used: Instant,
}

impl Worker {
    /// The most inputs taken before what they amount to is performed.
    const INPUTS_AT_ONCE: usize = 512;

    pub(super) fn new(groups: Groups, group: GroupId, inputs: mpsc::Receiver<Input>) -> Self {
        Self {
            store: groups.store().clone(),
            is_stopping: false,
            // Somebody may have held it while the group slept.
            tail: groups.tail(group),
            groups,
            group,
            inputs,
            awake: None,
            following: None,
            jobs: FuturesUnordered::new(),
            follows: Vec::new(),
            is_telling: false,
            used: Instant::now(),
        }
    }

    /// Runs until the group has been idle for long enough, and is asleep.
    pub(super) async fn run(mut self) {
        let groups = self.groups.clone();
        let mut stopping = pin!(groups.stopping().wait());
        loop {
            let has_room = self.awake.as_ref().is_none_or(|awake| awake.home.has_room());
            let (is_quiet, idle_at) = (self.is_quiet(), self.idle_at());
            tokio::select! {
                biased;
                Some(done) = self.jobs.next() => self.handle_done(done),
                fed = following::next(&mut self.following) => self.handle_fed(fed).await,
                input = self.inputs.recv(), if has_room => match input {
                    Some(input) => self.take(input).await,
                    None => return,
                },
                () = tokio::time::sleep_until(idle_at), if is_quiet => {
                    if self.fall_asleep() {
                        return;
                    }
                }
                () = stopping.as_mut(), if !self.is_stopping => self.is_stopping = true,
            }
            self.perform();
        }
    }

    /// Takes an input, and what else has come by now.
    async fn take(&mut self, first: Input) {
        self.used = Instant::now();
        let standing = self.take_standing();
        self.handle_input(&standing, first).await;
        for _ in 1..Self::INPUTS_AT_ONCE {
            let has_room = self.awake.as_ref().is_none_or(|awake| awake.home.has_room());
            match self.inputs.try_recv() {
                Ok(input) if has_room => self.handle_input(&standing, input).await,
                Ok(input) => {
                    self.handle_input(&standing, input).await;
                    break;
                }
                Err(_) => break,
            }
        }
        self.settle_follows().await;
    }

    async fn handle_input(&mut self, standing: &Standing, input: Input) {
        match (standing, input) {
            (Standing::Unplaced, input) => {
                let why = Refusal::new(Code::Busy, "the group has no home at the moment");
                input.refuse(why, self.groups.metrics());
            }
            (Standing::Follower(home), input) => self.pass_on(home, input),
            (Standing::Home, Input::Follow(follow, to)) => self.follows.push((follow, to)),
            (Standing::Home, Input::Look) => self.look().await,
            (Standing::Home, input) => {
                // A cursor is attached before anything that came after it is numbered.
                self.settle_follows().await;
                let create = self.create_for(&input);
                if let Err(refusal) = self.wake(create).await {
                    return input.refuse(refusal, self.groups.metrics());
                }
                let now = self.groups.now();
                let awake = self.awake.as_mut().expect("it has just been woken");
                awake.handle_input(input, now);
            }
        }
    }

    /// What may make the group, if there is none.
    fn create_for(&self, input: &Input) -> Option<Create> {
        let makes = match input {
            Input::Change(_, wire::change::Body::Create(_), _) => !self.group.is_own(),
            Input::Notice(..) => self.group.is_own(),
            _ => false,
        };
        makes.then(|| self.groups.create())
    }

    /// Wakes the home and the sub-group, unless they are awake.
    async fn wake(&mut self, create: Option<Create>) -> Result<(), Refusal> {
        if self.awake.is_some() {
            return Ok(());
        }
        let tail_here = match self.open_tail().await {
            Ok(tail) => tail.tail(),
            Err(refusal) if refusal.code == Code::UnknownGroup && create.is_some() => Seq::FIRST,
            Err(refusal) => return Err(refusal),
        };
        let limits = self.groups.limits();
        let active = activation::activate(&self.store, self.group, create, tail_here, limits).await?;
        let Active { home, sub_group, missed } = active;
        if self.tail.is_none() {
            self.tail = Some(self.groups.open_tail(self.group, tail_here));
        }
        self.move_tail(missed);
        self.awake = Some(Box::new(Awake { home, sub_group, rejudge: Vec::new() }));
        self.groups.metrics().activations.inc();
        self.tell_members();
        Ok(())
    }

    /// The group's tail on this node, as the row says.
    async fn open_tail(&mut self) -> Result<Arc<Tail>, Refusal> {
        if let Some(tail) = &self.tail {
            return Ok(tail.clone());
        }
        let row = self.store.group(self.group).await.map_err(refusal)?;
        let tail = match row {
            Some(row) => row.tail,
            None if self.group.is_own() => Seq::FIRST,
            None => return Err(Refusal::new(Code::UnknownGroup, "no such group")),
        };
        let tail = self.groups.open_tail(self.group, tail);
        self.tail = Some(tail.clone());
        Ok(tail)
    }

    /// Attaches the cursors that wait, with one look at the members for all of them.
    async fn settle_follows(&mut self) {
        if self.follows.is_empty() {
            return;
        }
        let follows = std::mem::take(&mut self.follows);
        match self.joined(&follows).await {
            Err(refusal) => follows.into_iter().for_each(|(_, to)| drop(to.send(Err(refusal.clone())))),
            Ok((tail, joined)) => {
                let wanted = follows.iter().zip(&joined).filter_map(|((follow, _), joined)| {
                    let From::Watermark(watermark) = follow.from else { return *joined };
                    joined.map(|joined| joined.max(watermark))
                });
                if wanted.max().is_some_and(|wanted| wanted > tail.tail()) {
                    self.look().await;
                }
                for ((follow, to), joined) in follows.into_iter().zip(joined) {
                    let followed = attach(&tail, follow, joined);
                    if let Err(Ok(followed)) = to.send(followed) {
                        followed.tail.detach(followed.attachment);
                    }
                }
            }
        }
        self.follow_home();
    }

    /// Where each of them joined; none for those who are no members.
    async fn joined(&mut self, follows: &[Waiting]) -> Result<(Arc<Tail>, Vec<Option<Seq>>), Refusal> {
        let tail = self.open_tail().await?;
        let of_own = |user: &UserId| (GroupId::own(user) == self.group).then_some(Seq::FIRST);
        if !self.group.is_own() && tail.tail() == Seq::FIRST {
            return Err(Refusal::new(Code::UnknownGroup, "no such group"));
        }
        let users: Vec<_> = follows.iter().map(|(follow, _)| follow.signal.user()).collect();
        if self.group.is_own() || users.iter().all(Option::is_none) {
            let joined = users.into_iter().map(|user| user.map_or(Some(Seq::FIRST), of_own)).collect();
            return Ok((tail, joined));
        }
        let members = self.members(users.iter().copied().flatten().cloned().collect()).await?;
        let joined = |user| members.get(user).copied();
        Ok((tail, users.into_iter().map(|user| user.map_or(Some(Seq::FIRST), joined)).collect()))
    }

    /// Where those of them joined who are members.
    async fn members(&mut self, users: Vec<UserId>) -> Result<BTreeMap<UserId, Seq>, Refusal> {
        if let Some(awake) = &self.awake {
            let members = awake.sub_group.members();
            let joined = |user: UserId| members.get(&user).map(|member| (user, member.joined));
            return Ok(users.into_iter().filter_map(joined).collect());
        }
        let rows = self.store.members(self.group, &users).await.map_err(refusal)?;
        let members = rows.into_iter().flatten().filter(|row| row.role != wire::Role::None);
        Ok(members.map(|row| (row.user, row.joined)).collect())
    }

    fn handle_done(&mut self, done: Done) {
        let now = self.groups.now();
        if matches!(done, Done::Notices(_)) {
            self.is_telling = false;
        }
        let Some(awake) = &mut self.awake else { return };
        match done {
            Done::Appended(Ok(())) => awake.home.handle_appended(),
            Done::Appended(Err(error)) => self.give_up(&error),
            Done::Sender(id, loaded) => awake.home.handle_sender(&id, loaded, now),
            Done::Record { sender, as_of, loaded } => awake.home.handle_record(&sender, as_of, loaded, now),
            Done::Members(rows) => awake.home.handle_members(rows, now),
            Done::Notices(Err(notices::Going)) | Done::PassedOn => {}
            Done::Notices(Ok(watermark)) => {
                if watermark == awake.home.durable() {
                    awake.home.handle_notices_sent(watermark);
                } else {
                    self.tell_members_from(watermark);
                }
            }
        }
    }

    /// An append has failed: the home is finished, and the next one reads what is there.
    fn give_up(&mut self, error: &AppendError) {
        tracing::error!(group = %self.group, %error, "the home gives up");
        let code = match error {
            AppendError::Store(_) => Code::StoreUnavailable,
            _ => Code::Busy,
        };
        let why = Refusal::new(code, error.to_string());
        if matches!(error, AppendError::Fenced { .. }) {
            self.groups.metrics().fenced.inc();
            self.step_down(&why);
        } else {
            self.abandon(&why);
        }
    }

    /// Answers everybody who waits for the home, and lets go of it. What it was writing may be
    /// durable: whoever sent it asks again, under the same number.
    fn abandon(&mut self, why: &Refusal) {
        let Some(awake) = self.awake.take() else { return };
        let Awake { home, rejudge, .. } = *awake;
        // What the append under way was waited for with goes with the home that waited.
        self.jobs.clear();
        self.is_telling = false;
        for effect in home.abandon(why) {
            match effect {
                Effect::Answer(to, answer) => to.answer(self.group, answer, self.groups.metrics()),
                Effect::Changed(Reply::Changed(to), result) => drop(to.send(result)),
                Effect::Noticed(Reply::Noticed(to), result) => drop(to.send(result)),
                Effect::Rejudge(judged, _) => {
                    judged.reply.answer(self.group, Answer::Refused(why.clone()), self.groups.metrics())
                }
                _ => {}
            }
        }
        for (judged, _) in rejudge {
            judged.reply.answer(self.group, Answer::Refused(why.clone()), self.groups.metrics());
        }
    }

    /// Performs what the home wants done, and starts the next append.
    fn perform(&mut self) {
        while let Some(effect) = self.awake.as_mut().and_then(|awake| awake.home.poll_effect()) {
            self.perform_one(effect);
        }
        if let Some(append) = self.awake.as_mut().and_then(|awake| awake.home.poll_append()) {
            self.groups.metrics().batch_records.observe_size(append.changes.records.len() as u64);
            let store = self.store.clone();
            self.jobs.push(Box::pin(async move { Done::Appended(store.append(append).await) }));
        }
    }

    fn perform_one(&mut self, effect: Effect<Reply>) {
        let (store, group) = (self.store.clone(), self.group);
        match effect {
            Effect::Answer(to, answer) => to.answer(group, answer, self.groups.metrics()),
            Effect::Changed(Reply::Changed(to), result) => drop(to.send(result)),
            Effect::Noticed(Reply::Noticed(to), result) => drop(to.send(result)),
            Effect::Changed(..) | Effect::Noticed(..) => {
                unreachable!("an answer goes where its question came from")
            }
            Effect::LoadSender(id) => self.jobs.push(Box::pin(async move {
                let loaded = loads::sender(&store, group, &id).await;
                Done::Sender(id, loaded)
            })),
            Effect::LoadRecord { sender, record, with_edits } => {
                let as_of = self.awake.as_ref().map_or(Seq::FIRST, |awake| awake.home.durable());
                self.jobs.push(Box::pin(async move {
                    let loaded = loads::record(&store, group, record, with_edits).await;
                    Done::Record { sender, as_of, loaded }
                }));
            }
            Effect::LoadMembers(users) => self.jobs.push(Box::pin(async move {
                let rows = store.members(group, &users).await.map_err(refusal);
                Done::Members(rows.map(|rows| rows.into_iter().flatten().collect()))
            })),
            Effect::Rejudge(judged, at) => {
                if let Some(awake) = &mut self.awake {
                    awake.rejudge.push((judged, at));
                }
                self.rejudge();
            }
            Effect::Committed(entries) => self.commit(entries),
            Effect::Redacted(redactions) => {
                for (seq, frame) in redactions {
                    self.groups.redact(group, seq, frame);
                }
            }
        }
    }

    /// Durable and acknowledged: the tail moves, the owner folds.
    fn commit(&mut self, entries: Vec<Entry>) {
        self.groups.metrics().committed.add(entries.len() as u64);
        let concerns_members = entries.iter().any(|entry| entry.members.is_some());
        if let Some(awake) = &mut self.awake {
            for entry in &entries {
                awake.sub_group.fold(entry.seq, entry.members.as_ref());
            }
            awake.home.handle_owner_watermark(awake.sub_group.watermark());
        }
        self.move_tail(entries);
        self.rejudge();
        if concerns_members {
            self.tell_members();
        }
    }

    fn move_tail(&self, entries: Vec<Entry>) {
        let Some(tail) = &self.tail else { return };
        for entry in &entries {
            if let Some(changes) = &entry.members {
                let gone = gone(changes);
                if !gone.is_empty() {
                    tail.end_membership(|user| gone.contains(&user.as_str()), entry.seq.next());
                }
            }
        }
        tail.append(entries.into_iter().map(|entry| entry.frame));
    }

    fn rejudge(&mut self) {
        let now = self.groups.now();
        let Some(awake) = &mut self.awake else { return };
        let reached = awake.sub_group.watermark();
        for (judged, at) in std::mem::take(&mut awake.rejudge) {
            if at <= reached {
                let judged = awake.sub_group.judge(judged.publish, judged.reply, now);
                awake.home.handle_publish(judged, now);
            } else {
                awake.rejudge.push((judged, at));
            }
        }
    }

    /// Tells members what concerns them, if there is something untold.
    fn tell_members(&mut self) {
        let from = self.awake.as_ref().and_then(|awake| awake.home.state().notices_watermark);
        if let Some(from) = from {
            self.tell_members_from(from);
        }
    }

    fn tell_members_from(&mut self, from: Seq) {
        let Some(awake) = self.awake.as_ref().filter(|_| !self.is_telling) else { return };
        let (to, title) = (awake.home.durable(), awake.home.state().settings.title.clone());
        self.is_telling = true;
        let (groups, store, group) = (self.groups.clone(), self.store.clone(), self.group);
        self.jobs.push(Box::pin(async move {
            Done::Notices(notices::send(groups, store, group, title, from, to).await.map(|()| to))
        }));
    }

    fn idle_at(&self) -> Instant {
        let unknown = self.tail.is_none() && self.awake.is_none();
        let idle = if unknown || self.is_stopping { Duration::ZERO } else { self.groups.limits().idle() };
        self.used + idle
    }

    /// Nothing is under way.
    fn is_quiet(&self) -> bool {
        self.jobs.is_empty() && self.awake.as_ref().is_none_or(|awake| awake.home.is_quiet())
    }

    /// Writes back what only memory has; once that is done, and nothing has come, the group sleeps.
    fn fall_asleep(&mut self) -> bool {
        if self.is_followed_here() && !self.is_stopping {
            self.used = Instant::now();
            return false;
        }
        if let Some(awake) = self.awake.as_mut().filter(|awake| awake.home.needs_checkpoint()) {
            awake.home.checkpoint();
            return false;
        }
        if !self.groups.forget(self.group, &self.inputs) {
            return false;
        }
        if let Some(tail) = &self.tail {
            tail.sleep();
        }
        true
    }
}

impl Awake {
    fn handle_input(&mut self, input: Input, now: Now) {
        match input {
            Input::Publish(publish) => {
                let (publish, reply) = split(publish);
                let judged = self.sub_group.judge(publish, reply, now);
                self.home.handle_publish(judged, now);
            }
            Input::Change(actor, change, to) => self.home.handle_change(actor, change, Reply::Changed(to)),
            Input::Notice(user, notice, to) => {
                self.home.handle_notice(&user, notice, Reply::Noticed(to), now);
            }
            Input::Follow(..) => unreachable!("follows are settled before"),
            Input::Wake | Input::Look => {}
        }
    }
}

fn gone(changes: &wire::MemberChanges) -> BTreeSet<&str> {
    let is_gone =
        |change: &&wire::MemberChange| matches!(change.kind(), Kind::Left | Kind::Removed | Kind::Banned);
    changes.changes.iter().filter(is_gone).map(|change| change.user.as_str()).collect()
}
