//! One task for each group that somebody on this node needs: the shell round its home, or the follower
//! of a home elsewhere; and round what this node owns of its members.

mod advancing;

mod astray;

mod attaching;

mod following;

mod loading;

mod owning;

mod planning;

mod sleeping;

mod waits;

use std::{
    collections::BTreeSet,
    future::{Future, pending},
    pin::pin,
    sync::Arc,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use shoal_protocol::{Code, Features, GroupId, Refusal, SenderId, Seq, wire};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    Follow, Followed, Groups, Opinion, Place, Publish,
    activation::{self, Active, refusal},
    going,
    home::{Answered, Effect, Home, LoadedRecord, LoadedSender, Unanswered},
    input::{Input, Reply, rejoin, split},
    judgement::Judged,
    layout::Layout,
    loads, notices,
    permit::PlanPermit,
    sub_group::SubGroup,
};
use crate::{
    config::GroupLimits,
    coordination::{NodeName, Partition},
    delivery::Tail,
    ops::{Event, Kind},
    store::{AppendError, Create, MemberRow, Store},
};
use astray::Astray;
use following::Following;
use loading::Loading;
use owning::Parked;
use waits::Waits;

/// What a worker has waited for.
enum Done {
    Sender(SenderId, Result<LoadedSender, Refusal>),
    Record {
        sender: SenderId,
        as_of: Seq,
        loaded: Result<LoadedRecord, Refusal>,
    },
    Members(Result<Vec<MemberRow>, Refusal>),
    /// Up to where members have been told.
    Notices(Result<Seq, notices::Going>),
    /// What a node says of itself as the owner in these partitions.
    Owner {
        node: NodeName,
        partitions: Vec<Partition>,
        answered: Result<Answered, Refusal>,
    },
}

/// A cursor that is to be attached.
type Waiting = (Follow, oneshot::Sender<Result<Followed, Refusal>>);

/// One group's task.
pub(super) struct Worker {
    groups: Groups,
    store: Arc<dyn Store>,
    group: GroupId,
    limits: Arc<GroupLimits>,
    inputs: mpsc::Receiver<Input>,
    is_stopping: bool,
    tail: Option<Arc<Tail>>,
    /// As the row said, or a record since.
    layout: Option<Layout>,
    /// The same; none before the row was read.
    features: Option<Features>,
    home: Option<Box<Home<Reply>>>,
    /// The home has moved here, and is about to be needed.
    is_awaited: bool,
    /// Another home took the group over: none is woken here for a while.
    shut_out: Option<Instant>,
    /// The members whose slots are this node's, once one of them has sent something.
    owner: Option<Box<SubGroup>>,
    /// More members on their way to it.
    loading: Option<Loading>,
    /// How often a feed did not bring what was next.
    gaps: u64,
    waits: Waits,
    /// The home's plan is one of so many.
    permit: Option<PlanPermit>,
    /// Nodes that owe an answer as owners.
    asked: BTreeSet<NodeName>,
    /// Owners that the home wants asked.
    to_ask: Option<(Vec<Partition>, u64)>,
    parked: Parked,
    astray: Astray,
    following: Option<Following>,
    /// The home's append under way.
    append: Option<BoxFuture<'static, Result<(), AppendError>>>,
    /// What else is under way for the home here; it ends with it. Tasks of their own, for they read: were
    /// they looked at here alone, one that has the store's room would keep it while the worker waits for
    /// a read itself.
    jobs: JoinSet<Done>,
    /// What was passed on to the home, elsewhere.
    errands: FuturesUnordered<BoxFuture<'static, ()>>,
    follows: Vec<Waiting>,
    is_telling: bool,
    /// When sessions are to be rung for silent records.
    ring_at: Option<Instant>,
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
            limits: groups.limits().latest(),
            groups,
            group,
            inputs,
            layout: None,
            features: None,
            home: None,
            is_awaited: false,
            shut_out: None,
            owner: None,
            loading: None,
            gaps: 0,
            waits: Waits::new(Instant::now()),
            permit: None,
            asked: BTreeSet::new(),
            to_ask: None,
            parked: Parked::default(),
            astray: Astray::new(Instant::now()),
            following: None,
            append: None,
            jobs: JoinSet::new(),
            errands: FuturesUnordered::new(),
            follows: Vec::new(),
            is_telling: false,
            ring_at: None,
            used: Instant::now(),
        }
    }

    /// Runs until the group has been idle for long enough, and is asleep.
    pub(super) async fn run(mut self) {
        let groups = self.groups.clone();
        let mut stopping = pin!(groups.stopping().wait());
        loop {
            let has_room = self.has_room();
            self.waits.note_room(has_room);
            let (is_quiet, idle_at, tick_at) = (self.is_quiet(), self.idle_at(), self.tick_at());
            tokio::select! {
                biased;
                appended = finish(&mut self.append) => self.handle_appended(appended),
                Some(done) = self.jobs.join_next() => self.handle_done(done),
                Some(()) = self.errands.next() => {}
                fed = following::next(&mut self.following) => self.handle_fed(fed).await,
                page = loading::next(&mut self.loading) => self.take_page(page),
                () = tick(tick_at) => self.tick(),
                () = tick(self.ring_at) => self.ring_for_silent(),
                () = self.astray.due(), if has_room && !self.astray.is_empty() => self.send_again().await,
                input = self.inputs.recv(), if has_room => match input {
                    Some(input) => self.take(input).await,
                    None => return,
                },
                () = tokio::time::sleep_until(idle_at), if is_quiet => {
                    if self.fall_asleep() {
                        return;
                    }
                }
                () = stopping.as_mut(), if !self.is_stopping => self.stop(),
            }
            self.perform();
            if let Some((partitions, layout)) = self.to_ask.take() {
                self.ask_owners(partitions, layout).await;
            }
            self.resume().await;
        }
    }

    /// Does the home here, if there is one, take more before its next append?
    fn has_room(&self) -> bool {
        self.home.as_ref().is_none_or(|home| home.has_room())
    }

    /// Takes the limits that hold now, if they are others.
    pub(super) fn take_limits(&mut self) {
        if self.groups.limits().is(&self.limits) {
            return;
        }
        self.limits = self.groups.limits().latest();
        self.slow_down();
        if let Some(home) = &mut self.home {
            home.set_limits(Arc::clone(&self.limits));
        }
    }

    /// Takes an input, and what else has come by now.
    async fn take(&mut self, first: Input) {
        let begun = Instant::now();
        self.used = begun;
        self.take_limits();
        let home = self.take_place();
        self.handle_input(&home, first).await;
        for _ in 1..Self::INPUTS_AT_ONCE {
            let has_room = self.has_room();
            match self.inputs.try_recv() {
                Ok(input) if has_room => self.handle_input(&home, input).await,
                Ok(input) => {
                    self.handle_input(&home, input).await;
                    break;
                }
                Err(_) => break,
            }
        }
        self.settle_follows().await;
        // A placement that changed meanwhile has had its look among these.
        self.take_place();
        self.waits.note_turn(begun.elapsed());
        self.waits.note_room(self.has_room());
    }

    async fn handle_input(&mut self, home: &Place, input: Input) {
        if self.is_stopping {
            return input.refuse(going(), self.groups.metrics());
        }
        if let Input::Publish(publish) | Input::Owned(publish, _) = &input {
            self.waits.note(publish.arrived, self.used);
        }
        match (home, input) {
            (_, Input::Astray(publish)) => self.turn_away(publish, homeless()),
            (Place::Nowhere, Input::Publish(publish) | Input::Again(publish, _)) => {
                self.turn_away(publish, homeless());
            }
            (Place::Nowhere, input) => {
                input.refuse(homeless(), self.groups.metrics());
            }
            (_, Input::Publish(publish)) => self.route(home, publish, None).await,
            (_, Input::Owned(publish, layout)) => self.route(home, publish, Some(layout)).await,
            (_, Input::Again(publish, at)) => self.park(publish, at).await,
            (_, Input::Owner(asked, to)) => drop(to.send(self.report(asked).await)),
            (Place::There(node), input) => self.pass_on(node, input),
            (Place::Here, Input::Follow(follow, to)) => self.follows.push((follow, to)),
            (Place::Here, Input::Look) => self.look_or_warn().await,
            (Place::Here, input) => {
                let create = self.create_for(&input);
                if let Err(refusal) = self.wake(create).await {
                    return input.refuse(refusal, self.groups.metrics());
                }
                let now = self.groups.now();
                let home = self.home.as_mut().expect("it has just been woken");
                match input {
                    Input::Judged(publish, opinion) => home.handle_publish(judged(publish, opinion), now),
                    Input::Change(actor, change, to) => {
                        home.handle_change(actor, change, Reply::Changed(to), now);
                    }
                    Input::Notice(user, notice, to) => {
                        home.handle_notice(&user, notice, Reply::Noticed(to), now);
                    }
                    _ => {}
                }
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

    /// Wakes the home, unless it is awake.
    async fn wake(&mut self, create: Option<Create>) -> Result<(), Refusal> {
        // A cursor is attached before anything that came after it is numbered.
        self.settle_follows().await;
        if self.home.is_some() {
            return Ok(());
        }
        if self.shut_out.is_some_and(|until| until > Instant::now()) {
            return Err(Refusal::new(Code::NotHome, "another home has just taken the group over"));
        }
        let tail_here = match self.open_tail().await {
            Ok(tail) => tail.tail(),
            Err(refusal) if refusal.code == Code::UnknownGroup && create.is_some() => Seq::FIRST,
            Err(refusal) => return Err(refusal),
        };
        let limits = Arc::clone(&self.limits);
        let active = activation::activate(&self.store, self.group, create, tail_here, limits).await?;
        let Active { home, state, missed } = active;
        if self.tail.is_none() {
            self.tail = Some(self.groups.open_tail(self.group, tail_here));
        }
        self.advance(missed);
        self.learn(&state);
        self.home = Some(Box::new(home));
        self.count_plan();
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
            Some(row) => {
                self.learn(&row.state);
                row.tail
            }
            None if self.group.is_own() => Seq::FIRST,
            None => return Err(Refusal::new(Code::UnknownGroup, "no such group")),
        };
        let tail = self.groups.open_tail(self.group, tail);
        self.tail = Some(tail.clone());
        Ok(tail)
    }

    fn handle_appended(&mut self, appended: Result<(), AppendError>) {
        match (appended, &mut self.home) {
            (Ok(()), Some(home)) => home.handle_appended(),
            (Ok(()), None) => {}
            (Err(error), _) => self.give_up(&error),
        }
    }

    fn handle_done(&mut self, done: Result<Done, JoinError>) {
        let done = match done.map_err(JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => return,
        };
        let now = self.groups.now();
        if matches!(done, Done::Notices(_)) {
            self.is_telling = false;
        }
        if let Done::Owner { node, partitions, answered } = done {
            return self.handle_owner(&node, &partitions, answered);
        }
        let Some(home) = &mut self.home else { return };
        match done {
            Done::Owner { .. } => {}
            Done::Sender(id, loaded) => home.handle_sender(&id, loaded, now),
            Done::Record { sender, as_of, loaded } => home.handle_record(&sender, as_of, loaded, now),
            Done::Members(rows) => home.handle_members(rows, now),
            Done::Notices(Err(notices::Going)) => {}
            Done::Notices(Ok(watermark)) => {
                home.handle_notices_sent(watermark);
                self.tell_members();
            }
        }
    }

    /// An append has failed: the home is finished, and the next one reads what is there.
    fn give_up(&mut self, error: &AppendError) {
        self.groups.tell(Event::new(Kind::HomeGaveUp, format!("the home gives up: {error}")).of(self.group));
        let code = match error {
            AppendError::Store(_) => Code::StoreUnavailable,
            _ => Code::Busy,
        };
        let why = Refusal::new(code, error.to_string());
        if matches!(error, AppendError::Fenced { .. }) {
            self.be_shut_out();
        } else {
            self.abandon(&why);
        }
        if matches!(error, AppendError::OutcomeUnknown(_)) {
            self.wake_again_soon();
        }
    }

    /// What the last home was writing may become durable yet, with nobody there to say so: the next one shuts
    /// it out, or finds it. Where there is no room to say so, there is other work that wakes one.
    fn wake_again_soon(&mut self) {
        self.is_awaited = self.tail.as_ref().is_some_and(|tail| tail.attached() > 0);
        let _ = self.groups.send(self.group, Input::Look);
    }

    /// Lets go of the home, and answers everybody who waits for it; but messages are turned away. What
    /// it was writing may be durable: it goes again under the same number, which says so.
    fn abandon(&mut self, why: &Refusal) {
        if let Some(home) = self.home.take() {
            // What the append under way was waited for with goes with the home that waited.
            self.append = None;
            self.jobs = JoinSet::new();
            self.is_telling = false;
            self.permit = None;
            self.asked.clear();
            self.to_ask = None;
            let (told, unanswered) = home.abandon();
            told.into_iter().for_each(|effect| self.perform_one(effect));
            for unanswered in unanswered {
                self.give_back(unanswered, why);
            }
        }
        // What waits to be judged again comes after what the home had taken of the same sender.
        self.let_go(why);
    }

    fn give_back(&mut self, unanswered: Unanswered<Reply>, why: &Refusal) {
        match unanswered {
            Unanswered::Message(numbered, reply) => {
                self.turn_away(rejoin(self.group, numbered, reply), why.clone());
            }
            Unanswered::Other(reply) => reply.refuse(self.group, why.clone(), self.groups.metrics()),
        }
    }

    /// Performs what the home wants done, and starts the next append.
    fn perform(&mut self) {
        while let Some(effect) = self.home.as_mut().and_then(|home| home.poll_effect()) {
            self.perform_one(effect);
        }
        if let Some(append) = self.home.as_mut().and_then(|home| home.poll_append()) {
            self.groups.metrics().batch_records.observe_size(append.changes.records.len() as u64);
            let store = self.store.clone();
            self.append = Some(Box::pin(async move { store.append(append).await }));
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
            Effect::LoadSender(id) => self.begin(async move {
                let loaded = loads::sender(&store, group, &id).await;
                Done::Sender(id, loaded)
            }),
            Effect::LoadRecord { sender, record, with_edits } => {
                let as_of = self.home.as_ref().map_or(Seq::FIRST, |home| home.durable());
                self.begin(async move {
                    let loaded = loads::record(&store, group, record, with_edits).await;
                    Done::Record { sender, as_of, loaded }
                });
            }
            Effect::LoadMembers(users) => self.begin(async move {
                let rows = store.members(group, &users).await.map_err(refusal);
                Done::Members(rows.map(|rows| rows.into_iter().flatten().collect()))
            }),
            Effect::Rejudge(Judged { publish, reply, .. }, at) => {
                self.parked.push(rejoin(group, publish, reply), at);
            }
            Effect::LayOut(wanted) => self.lay_out(wanted),
            Effect::AskOwners(partitions, layout) => self.to_ask = Some((partitions, layout)),
            Effect::Committed(entries) => self.commit(entries),
            Effect::Redacted(redactions) => {
                for (seq, frame) in redactions {
                    self.groups.redact(group, seq, frame);
                }
            }
        }
    }

    fn begin(&mut self, job: impl Future<Output = Done> + Send + 'static) {
        drop(self.jobs.spawn(job));
    }
}

/// Waits for the append, if one is under way. Cancellation safe.
async fn finish<T>(append: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(under_way) = append else { return pending().await };
    let finished = under_way.await;
    *append = None;
    finished
}

/// Waits until then, if it is ever. Cancellation safe.
async fn tick(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

fn homeless() -> Refusal {
    Refusal::new(Code::NotHome, "the group has no home at the moment")
}

/// A message as its owner on another node has judged it.
fn judged(publish: Publish, opinion: Opinion) -> Judged<Reply> {
    let (publish, reply) = split(publish);
    Judged { publish, opinion, reply }
}
