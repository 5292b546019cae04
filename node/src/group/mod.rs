//! The business layer: homes, which number a group's records, and sub-groups, which know its
//! members. Everything outside reaches them through [`Groups`].

mod change;

mod home;

mod judgement;

mod layout;

mod plan;

mod member_list;

mod obeyed;

mod rates;

mod sub_group;

mod asked;

mod activation;

mod attach;

mod notices;

mod input;

mod meter;

mod permit;

mod loads;

mod tails;

mod worker;

mod view;

mod elsewhere;

mod receipt;

mod passage;

mod stopping;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_protocol::{Code, GroupId, RecordFrame, Refusal, Seq, UserId, WindowLimits, wire};
use tokio::{
    sync::{Notify, mpsc, mpsc::error::TrySendError, oneshot},
    time::Instant,
};

use crate::{
    clock::Clock,
    config::{Current, GroupLimits},
    coordination::Partition,
    delivery::{Tail, WindowBudget},
    ops::{Event, Events, Metrics},
    store::{Create, MemberRow, Store, StoreError},
};
use input::{AskedOwner, Input};
use meter::Meter;
use permit::PlanPermit;
use stopping::{Stopping, going};
use sub_group::Now;
use tails::Tails;
use worker::Worker;

pub use asked::{Actor, Follow, Followed, From, Publish};
pub use elsewhere::{Elsewhere, Feed, Place};
pub use judgement::Opinion;
pub use passage::{Passage, Stage};
pub use receipt::{ReceiptTo, ToLane};
pub use view::Views;

/// The group layer of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Groups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: StoreHandle,
    limits: Current<GroupLimits>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// What operators are told; nothing where nobody listens.
    events: Option<Arc<Events>>,
    started: Instant,
    random: Mutex<StdRng>,
    /// The groups that are awake. A group's worker takes itself off under the lock, once nothing
    /// is left for it to take.
    awake: Mutex<BTreeMap<GroupId, mpsc::Sender<Input>>>,
    tails: Mutex<Tails>,
    windows: Arc<WindowBudget>,
    /// The plans of the homes here.
    plans: Arc<AtomicUsize>,
    /// How fast members are fetched for new owners.
    migration: Arc<Meter>,
    stopping: Stopping,
    emptied: Notify,
    elsewhere: Option<ElsewhereHandle>,
}

impl Groups {
    /// The group layer over a store. Everything random comes from `seed`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        limits: GroupLimits,
        seed: u64,
    ) -> Self {
        Self(Arc::new(Shared {
            store: StoreHandle(store),
            windows: Arc::new(WindowBudget::new(limits.windows_bytes_max)),
            limits: limits.into(),
            clock,
            metrics,
            events: None,
            started: Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            awake: Mutex::default(),
            tails: Mutex::default(),
            plans: Arc::default(),
            migration: Arc::default(),
            stopping: Stopping::default(),
            emptied: Notify::new(),
            elsewhere: None,
        }))
    }

    /// The group layer of one node among others.
    #[must_use]
    pub fn among(self, elsewhere: Arc<dyn Elsewhere>) -> Self {
        self.with(|shared| shared.elsewhere = Some(ElsewhereHandle(elsewhere)))
    }

    /// The group layer that tells operators here what happens.
    pub(crate) fn telling(self, events: Arc<Events>) -> Self {
        self.with(|shared| shared.events = Some(events))
    }

    fn with(self, set: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Arc::try_unwrap(self.0).unwrap_or_else(|_| unreachable!("nobody has it yet"));
        set(&mut shared);
        Self(Arc::new(shared))
    }

    /// From now on these hold: a group takes them when it does the next thing. The sizes of its queue
    /// and of its tail's window stay as they were when they were made.
    pub fn set_limits(&self, limits: GroupLimits) {
        self.0.windows.set_bytes_max(limits.windows_bytes_max);
        self.0.limits.set(limits);
    }

    /// Bytes of a message's payload.
    #[must_use]
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.0.limits.load().payload_bytes_max
    }

    /// Wakes the groups that a crash kept from telling their members something. Run it when the node
    /// starts; false where some could not be woken now.
    ///
    /// # Errors
    /// What the store says.
    pub async fn finish_notices(&self) -> Result<bool, StoreError> {
        const PAGE: usize = 256;
        let (mut after, mut all) = (None, true);
        loop {
            let page = self.store().notices_due(after, PAGE).await?;
            after = page.last().copied();
            for group in page.iter().filter(|group| self.is_home(**group)) {
                all &= self.send(*group, Input::Wake).is_ok();
            }
            if page.len() < PAGE {
                return Ok(all);
            }
        }
    }

    /// Sends a message on its way. Never waits: a full queue is answered `Busy` through the permit.
    pub fn publish(&self, publish: Publish) {
        let group = publish.group;
        if group.is_own() {
            let refusal =
                Refusal::new(Code::NotMember, "a user's own sequence is written by the nodes alone");
            return Input::Publish(publish).refuse(refusal, self.metrics());
        }
        self.send_or_refuse(group, Input::Publish(publish));
    }

    /// Takes a message from a node that believes the owner of its sender's slot to be here, by this
    /// version of the layout.
    pub(crate) fn judge(&self, publish: Publish, layout: u64) {
        self.send_or_refuse(publish.group, Input::Owned(publish, layout));
    }

    /// Takes a message from its owner on another node, for the home here.
    pub(crate) fn number(&self, publish: Publish, opinion: Opinion) {
        self.send_or_refuse(publish.group, Input::Judged(publish, opinion));
    }

    /// Attaches a session's cursor to the group's tail, if the user is a member (or it is their
    /// own sequence). Cancellation: a cursor attached for nobody is taken off again.
    ///
    /// # Errors
    /// `UnknownGroup`, `NotMember`, `WatermarkAhead`, `Busy`, `StoreUnavailable`.
    pub async fn follow(&self, follow: Follow) -> Result<Followed, Refusal> {
        self.ask(follow.group, |to| Input::Follow(follow, to)).await
    }

    /// Carries out a change of membership, roles or settings, or creates a group. Dropping the
    /// future leaves it open whether it is carried out.
    ///
    /// # Errors
    /// With the code that says what is not allowed.
    pub async fn change(&self, actor: Actor, change: wire::Change) -> Result<wire::Changed, Refusal> {
        let group = GroupId::from_wire(&change.group).map_err(bad_request)?;
        let body = change.body.ok_or_else(|| bad_request("a change says what to change"))?;
        if group.is_own() {
            return Err(Refusal::new(Code::NotAllowed, "a user's own sequence has no members to change"));
        }
        self.ask(group, |to| Input::Change(actor, body, to)).await
    }

    /// The user's member row: for requests that members may make.
    ///
    /// # Errors
    /// `UnknownGroup`, `NotMember`; an admin who is no member gets a row with `Role::None`.
    pub async fn authorize(&self, actor: &Actor, group: GroupId) -> Result<MemberRow, Refusal> {
        let nobody = |role| MemberRow {
            user: actor.user.clone(),
            role,
            muted_until_ms: 0,
            banned: false,
            joined: Seq::FIRST,
            changed: Seq::FIRST,
        };
        if group == GroupId::own(&actor.user) {
            return Ok(nobody(wire::Role::Member));
        }
        let users = std::slice::from_ref(&actor.user);
        let rows = self.store().members(group, users).await.map_err(activation::refusal)?;
        let member = rows.into_iter().flatten().find(|row| row.role != wire::Role::None);
        if let Some(member) = member {
            return Ok(member);
        }
        let row = self.store().group(group).await.map_err(activation::refusal)?;
        match row.filter(|row| row.tail > Seq::FIRST) {
            None => Err(Refusal::new(Code::UnknownGroup, "no such group")),
            Some(_) if actor.admin => Ok(nobody(wire::Role::None)),
            Some(_) => Err(Refusal::new(Code::NotMember, "you are not a member of this group")),
        }
    }

    /// Puts a notice into a user's own sequence. One with a `group_seq` that is not above the last
    /// of that group is known already, and told again for nothing.
    ///
    /// # Errors
    /// `Busy`, `StoreUnavailable`.
    pub async fn notify(&self, user: &UserId, notice: wire::Notice) -> Result<(), Refusal> {
        let user = user.clone();
        self.ask(GroupId::own(&user), |to| Input::Notice(user, notice, to)).await
    }

    /// How this node does as an owner of some of the group's slots, by this version of the layout; it
    /// fetches the members that it does not have.
    ///
    /// # Errors
    /// `NotHome` where it is to own none; `UnknownGroup`, `Busy`, `StoreUnavailable`.
    pub(crate) async fn owner(
        &self,
        group: GroupId,
        layout: u64,
        count: bool,
    ) -> Result<wire::Owner, Refusal> {
        self.ask(group, |to| Input::Owner(AskedOwner { layout, count }, to)).await
    }

    /// One more plan may be under way here, as long as this is kept; none where there are as many as may be.
    fn permit_plan(&self) -> Option<PlanPermit> {
        PlanPermit::take(&self.0.plans, self.0.limits.load().plans_max)
    }

    /// A plan that another home began, or somebody asked for, is under way here.
    fn adopt_plan(&self) -> PlanPermit {
        PlanPermit::adopt(&self.0.plans)
    }

    fn migration(&self) -> &Arc<Meter> {
        &self.0.migration
    }

    /// The group's tail on this node, if anybody needs it here.
    #[must_use]
    pub fn tail(&self, group: GroupId) -> Option<Arc<Tail>> {
        lock(&self.0.tails).get(group)
    }

    /// How many groups are awake.
    #[must_use]
    pub fn awake(&self) -> usize {
        lock(&self.0.awake).len()
    }

    /// Writes back what only memory has and puts all groups to sleep.
    pub async fn shut_down(&self) {
        self.0.stopping.begin();
        while self.awake() > 0 {
            self.0.emptied.notified().await;
        }
    }

    /// Looks again at the groups among these that somebody here needs: their placement has changed.
    pub fn look_again(&self, concerned: impl Fn(GroupId) -> bool) {
        let held = lock(&self.0.tails).followed();
        let awake: Vec<_> = lock(&self.0.awake).keys().copied().collect();
        let concerned = held.into_iter().chain(awake).filter(|group| concerned(*group));
        for group in concerned.collect::<BTreeSet<_>>() {
            // A full queue makes the worker look as well, at the next of what is in it.
            let _ = self.send(group, Input::Look);
        }
    }

    /// Does this node number the group's records, as far as it knows?
    #[must_use]
    pub fn is_home(&self, group: GroupId) -> bool {
        self.home(group) == Place::Here
    }

    /// Where the group's home is, as far as this node knows.
    pub(crate) fn home(&self, group: GroupId) -> Place {
        self.place(Partition::of(group))
    }

    /// Is there no other node?
    pub(crate) fn is_alone(&self) -> bool {
        self.0.elsewhere.is_none()
    }

    /// Looks into the store whether another home has written what nobody here has heard of: one
    /// that was put in this node's place, or that believes it was.
    pub async fn look_for_other_homes(&self) {
        let followed = lock(&self.0.tails).followed();
        for group in followed.into_iter().filter(|group| self.is_home(*group)) {
            let Some(tail) = self.tail(group) else { continue };
            let before = tail.tail();
            // What cannot be read now is looked at the next time.
            let Ok(Some(row)) = self.store().group(group).await else { continue };
            if row.tail > before && tail.tail() < row.tail {
                let _ = self.send(group, Input::Look);
            }
        }
    }

    fn place(&self, partition: Partition) -> Place {
        self.0.elsewhere.as_ref().map_or(Place::Here, |elsewhere| elsewhere.0.place(partition))
    }

    /// Is there a node beyond so many that groups are placed on?
    fn are_more_nodes_than(&self, count: usize) -> bool {
        let mut places = BTreeSet::new();
        Partition::all().any(|partition| {
            let place = self.place(partition);
            place != Place::Nowhere && places.insert(place) && places.len() > count
        })
    }

    /// The other nodes, for what one of them looks after.
    pub(crate) fn elsewhere(&self) -> &dyn Elsewhere {
        &*self.0.elsewhere.as_ref().expect("a node alone is every group's home").0
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.0.store.0
    }

    fn limits(&self) -> &Current<GroupLimits> {
        &self.0.limits
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Tells operators.
    fn tell(&self, event: Event) {
        match &self.0.events {
            Some(events) => events.tell(event),
            None => event.log(),
        }
    }

    fn count_awake(&self, awake: usize) {
        self.0.metrics.groups_active.set(i64::try_from(awake).unwrap_or(i64::MAX));
    }

    fn stopping(&self) -> &Stopping {
        &self.0.stopping
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.0.clock.now_ms(), since_start: self.0.started.elapsed() }
    }

    fn started(&self) -> Instant {
        self.0.started
    }

    fn create(&self) -> Create {
        let incarnation = lock(&self.0.random).random();
        Create { incarnation, created_ms: self.0.clock.now_ms() }
    }

    fn open_tail(&self, group: GroupId, tail: Seq) -> Arc<Tail> {
        let limits = self.0.limits.load();
        let limits =
            WindowLimits { records_max: limits.window_records_max, bytes_max: limits.window_bytes_max };
        let new = || Tail::new(group, tail, limits, Arc::clone(&self.0.windows));
        lock(&self.0.tails).open(group, new)
    }

    /// A record's payload was recalled: nobody is given the old bytes any more.
    fn redact(&self, group: GroupId, seq: Seq, frame: RecordFrame) {
        if let Some(tail) = self.tail(group) {
            tail.redact(seq, frame);
        }
    }

    async fn ask<T>(
        &self,
        group: GroupId,
        input: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Input,
    ) -> Result<T, Refusal> {
        let (to, answer) = oneshot::channel();
        self.send_or_refuse(group, input(to));
        answer.await.unwrap_or_else(|_| Err(Refusal::new(Code::Internal, "the group's task ended")))
    }

    fn send_or_refuse(&self, group: GroupId, input: Input) {
        if let Err(refused) = self.send(group, input) {
            let (input, refusal) = *refused;
            input.refuse(refusal, self.metrics());
        }
    }

    /// Hands an input to the group's worker, and starts one if there is none.
    fn send(&self, group: GroupId, input: Input) -> Result<(), Box<(Input, Refusal)>> {
        let mut awake = lock(&self.0.awake);
        let input = match awake.get(&group) {
            None => input,
            Some(inputs) => match inputs.try_send(input) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(input)) => {
                    return Err(Box::new((input, Refusal::new(Code::Busy, "too much waits for this group"))));
                }
                // Its worker panicked: another begins from what is durable.
                Err(TrySendError::Closed(input)) => input,
            },
        };
        // One that is followed here must hear where its home is: it is awake for nothing else.
        if awake.len() >= self.0.limits.load().awake_max && !matches!(input, Input::Look) {
            return Err(Box::new((
                input,
                Refusal::new(Code::Busy, "too many groups are awake on this node"),
            )));
        }
        if self.0.stopping.has_begun() {
            return Err(Box::new((input, going())));
        }
        let (inputs, receiver) = mpsc::channel(self.0.limits.load().queue_max);
        inputs.try_send(input).map_err(|_| unreachable!("a new queue has room")).ok();
        awake.insert(group, inputs);
        self.count_awake(awake.len());
        tokio::spawn(Worker::new(self.clone(), group, receiver).run());
        Ok(())
    }

    /// Takes the group off the list, unless its queue has something for it.
    fn forget(&self, group: GroupId, inputs: &mpsc::Receiver<Input>) -> bool {
        let mut awake = lock(&self.0.awake);
        if !inputs.is_empty() {
            return false;
        }
        awake.remove(&group);
        self.count_awake(awake.len());
        if awake.is_empty() {
            self.0.emptied.notify_one();
        }
        true
    }
}

/// A store that can stand in a `Debug` struct.
struct StoreHandle(Arc<dyn Store>);

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// The other nodes, as they can stand in a `Debug` struct.
struct ElsewhereHandle(Arc<dyn Elsewhere>);

impl std::fmt::Debug for ElsewhereHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Elsewhere")
    }
}

fn bad_request(reason: impl ToString) -> Refusal {
    Refusal::new(Code::BadRequest, reason.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
