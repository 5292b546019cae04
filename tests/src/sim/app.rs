//! An app with a client: it sends, follows, asks and changes things, goes away and comes back from
//! what it had saved, and tells the chronicle all of it.

mod acting;

mod payload;

mod reading;

mod socket;

pub(super) mod transport;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_client::{Client, Config, Message, PublishError, Saved, Sending, State};
use shoal_protocol::{DeviceId, GroupId, Seq, UserId};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    chronicle::{AppId, Event, MessageId, Outcome},
    judge::Cast,
    mutation::Mutation,
    node::client_addresses,
    plan::{APPS_PER_PHONE, PHONES},
    scene::Scene,
};
use acting::Actor;
use reading::Memberships;
use transport::SimTransport;

/// Apps beyond this many are second devices of the first users.
const USERS: usize = PHONES * APPS_PER_PHONE - 2;

/// Messages of an app are numbered from its own number times this on.
const MESSAGES_PER_APP: u64 = 1 << 32;

/// When an app saves again where a message had no number yet.
const SAVE_AGAIN: Duration = Duration::from_millis(20);

/// Are apps still to do things? Cheap to clone; all clones are the same stage.
#[derive(Debug, Clone, Default)]
pub struct Stage(Arc<AtomicBool>);

impl Stage {
    /// From now on nothing new is done; what is under way goes on.
    pub fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Are they to do nothing new?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One app, over all its lives.
#[derive(Debug)]
pub struct App {
    id: AppId,
    user: UserId,
    scene: Arc<Scene>,
    inner: Mutex<Inner>,
}

/// What outlives the process, and what the run looks at.
#[derive(Debug)]
struct Inner {
    lives: u32,
    messages: u64,
    random: StdRng,
    /// As it would be in a file.
    saved: Option<Vec<u8>>,
    /// Saved with it.
    saved_memberships: Memberships,
    memberships: Arc<watch::Sender<Memberships>>,
    is_away: bool,
    is_online: bool,
    /// Messages without a receipt, of this life.
    waiting: BTreeSet<MessageId>,
    /// Watermarks of what is followed.
    positions: BTreeMap<GroupId, Seq>,
}

impl App {
    /// An app that has never started.
    #[must_use]
    pub fn new(number: usize, scene: &Arc<Scene>) -> Self {
        let id = AppId(u32::try_from(number).expect("a run has few apps"));
        let seed = scene.plan.seed ^ (u64::from(id.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            id,
            user: user(number % USERS),
            scene: Arc::clone(scene),
            inner: Mutex::new(Inner {
                lives: 0,
                messages: 0,
                random: StdRng::seed_from_u64(seed),
                saved: None,
                saved_memberships: Memberships::new(),
                memberships: Arc::default(),
                is_away: true,
                is_online: false,
                waiting: BTreeSet::new(),
                positions: BTreeMap::new(),
            }),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> AppId {
        self.id
    }

    /// Whose it is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// What it still waits for, in words.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let inner = self.lock();
        let app = self.id;
        if inner.is_away || !inner.is_online {
            return Some(format!("{app:?} is not online"));
        }
        if let Some(message) = inner.waiting.first() {
            return Some(format!("{app:?} waits for the receipt of {message:?}"));
        }
        let behind = inner.positions.iter().find(|(group, at)| **at < self.scene.ledger.tail(**group));
        behind.map(|(group, at)| {
            format!("{app:?} is at {at} of {group}, whose tail is {}", self.scene.ledger.tail(*group))
        })
    }

    /// One life after the other, until the host goes down.
    async fn run(self: Arc<Self>) {
        loop {
            self.live().await;
            let away = self.lock().random.random_range(50..4_000);
            sleep(Duration::from_millis(away)).await;
        }
    }

    /// From a start to the moment the app goes away.
    async fn live(self: &Arc<Self>) {
        let (life, seed, saved) = self.begin_life();
        self.tell(Event::Life { app: self.id, life });
        let unnumbered = saved.as_ref().map_or(0, Saved::unnumbered);
        let reception = &self.scene.receptions[self.id.0 as usize / APPS_PER_PHONE];
        let transport = SimTransport::new(&self.scene.weather, reception, seed).expect("a port is free");
        let token = self.scene.keys.token(&self.user);
        let config = Config::new(
            self.addresses(),
            self.scene.keys.client_tls(),
            token,
            DeviceId(u64::from(self.id.0) + 1),
        )
        .saved(saved)
        .seed(seed)
        .transport(Arc::new(transport))
        .request_timeout(Duration::from_secs(5))
        .queue(64, 256 << 10)
        .follow_buffer_bytes(8 << 10);
        let client = Client::start(config).expect("a good configuration");
        let tasks = Tasks::default();
        self.settle_restored(&client, unnumbered, &tasks);
        tasks.spawn(self.clone().watch_state(client.clone()));
        tasks.spawn(reading::read_all(self.clone(), client.clone()));
        Actor::new(self.clone(), client.clone(), tasks.clone(), life).act().await;
        self.lock().is_away = true;
        tasks.end().await;
        if self.lock().random.random() {
            client.close().await;
        }
        self.save(&client);
    }

    fn begin_life(&self) -> (u32, u64, Option<Saved>) {
        let mut inner = self.lock();
        let life = inner.lives;
        inner.lives += 1;
        (inner.is_away, inner.is_online) = (false, false);
        inner.waiting.clear();
        inner.positions.clear();
        inner.memberships = Arc::new(watch::Sender::new(inner.saved_memberships.clone()));
        let saved = inner.saved.as_deref().map(|saved| Saved::from_bytes(saved).expect("what was saved"));
        (life, inner.random.random(), saved)
    }

    /// Messages of the life before, which are sent first.
    fn settle_restored(self: &Arc<Self>, client: &Client, unnumbered: usize, tasks: &Tasks) {
        let mut messages = Vec::new();
        for (_, message, sending) in client.restored() {
            if let Some(message) = payload::read(message.payload()) {
                messages.push(message);
                self.lock().waiting.insert(message);
                tasks.spawn(self.clone().settle(client.clone(), message, sending));
            }
        }
        if !messages.is_empty() {
            self.tell(Event::Restored { app: self.id, messages, unnumbered });
        }
    }

    /// Tells what becomes of a message.
    async fn settle(self: Arc<Self>, client: Client, message: MessageId, sending: Sending) {
        let outcome = match sending.await {
            Ok(seq) => Outcome::Committed(seq),
            Err(PublishError::Refused(why)) => Outcome::Refused(why.code),
            Err(PublishError::Unknown(why)) => Outcome::Unknown(why.code),
            Err(PublishError::TooLarge { .. }) => Outcome::Refused(shoal_protocol::Code::PayloadTooLarge),
            // The life is over: the message is in the save.
            Err(_) => return,
        };
        self.lock().waiting.remove(&message);
        self.tell(Event::Settled { app: self.id, message, outcome });
        if !matches!(outcome, Outcome::Committed(_)) {
            // An older save would try it again; one without numbers would send the rest twice.
            while self.save(&client) > 0 {
                sleep(SAVE_AGAIN).await;
            }
        }
    }

    async fn watch_state(self: Arc<Self>, client: Client) {
        let mut states = client.state();
        loop {
            let state = states.borrow_and_update().clone();
            let was_online = std::mem::replace(&mut self.lock().is_online, state.is_online());
            if was_online != state.is_online() {
                self.tell(Event::Online { app: self.id, is_online: state.is_online() });
            }
            match &state {
                State::Online { .. } => drop(self.save(&client)),
                State::Reconnecting { why, attempt, .. } => self.note(format!("offline {attempt}: {why}")),
                State::Closed { why } => self.note(format!("closed: {why}")),
                _ => {}
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Saves; how many messages had no number yet.
    fn save(&self, client: &Client) -> usize {
        let saved = client.save();
        let mut inner = self.lock();
        inner.saved = Some(saved.to_bytes());
        let memberships = inner.memberships.borrow().clone();
        inner.saved_memberships = memberships;
        saved.unnumbered()
    }

    /// All nodes, each app beginning with another.
    fn addresses(&self) -> Vec<String> {
        let mut all = client_addresses(self.scene.plan.nodes);
        let first = self.id.0 as usize % all.len();
        all.rotate_left(first);
        all
    }

    fn memberships(&self) -> Arc<watch::Sender<Memberships>> {
        self.lock().memberships.clone()
    }

    fn saved_watermark(&self, group: GroupId) -> Option<Seq> {
        let saved = self.lock().saved.clone()?;
        Saved::from_bytes(&saved).ok()?.watermark(group)
    }

    /// The groups it knew of when it was saved.
    fn saved_groups(&self) -> Vec<GroupId> {
        self.lock().saved_memberships.keys().copied().collect()
    }

    fn next_message(&self) -> MessageId {
        let mut inner = self.lock();
        inner.messages += 1;
        let message = MessageId(u64::from(self.id.0) * MESSAGES_PER_APP + inner.messages);
        inner.waiting.insert(message);
        message
    }

    fn position(&self, group: GroupId, watermark: Option<Seq>) {
        let mut inner = self.lock();
        match watermark {
            Some(watermark) => drop(inner.positions.insert(group, watermark)),
            None => drop(inner.positions.remove(&group)),
        }
    }

    fn draw_seed(&self) -> u64 {
        self.lock().random.random()
    }

    fn is_over(&self) -> bool {
        self.scene.stage.is_over()
    }

    fn mutation(&self) -> Option<Mutation> {
        self.scene.mutation
    }

    fn tell(&self, event: Event) {
        self.scene.chronicle.tell(event);
    }

    fn note(&self, what: impl Into<String>) {
        self.scene.chronicle.note(format!("app{}", self.id.0), what);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tasks of one life: none of them outlives it, for each holds the client.
#[derive(Debug, Clone, Default)]
struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().spawn_local(task);
    }

    async fn end(&self) {
        let mut tasks = self.0.take();
        tasks.shutdown().await;
    }
}

/// All apps of a phone, until it goes down.
///
/// # Errors
/// Where one of them panics.
pub async fn run_all(apps: Vec<Arc<App>>) -> turmoil::Result {
    let mut running = JoinSet::new();
    for app in apps {
        running.spawn_local(app.run());
    }
    while let Some(ended) = running.join_next().await {
        ended?;
    }
    Ok(())
}

/// Reads what apps write.
#[must_use]
pub fn read_payload(payload: &[u8]) -> Option<MessageId> {
    payload::read(payload)
}

/// The groups of a run, without users' own sequences.
#[must_use]
pub fn shared_groups() -> Vec<GroupId> {
    acting::groups()
}

/// The group that all are in.
#[must_use]
pub fn town() -> GroupId {
    acting::town()
}

/// Every group of a run, users' own sequences among them.
#[must_use]
pub fn groups(cast: &Cast) -> Vec<GroupId> {
    acting::groups().into_iter().chain(cast.users.values().map(GroupId::own)).collect()
}

fn user(number: usize) -> UserId {
    UserId::new(format!("u{number}")).expect("a good name")
}

/// Queues a message; its outcome is told by a task of its own.
async fn send(
    app: &Arc<App>,
    client: &Client,
    tasks: &Tasks,
    group: GroupId,
    id: MessageId,
    message: Message,
) {
    app.tell(Event::Sent { app: app.id, group, message: id });
    match client.send(group, message).await {
        Ok(sending) => tasks.spawn(app.clone().settle(client.clone(), id, sending)),
        Err(error) => {
            app.lock().waiting.remove(&id);
            app.note(format!("did not send {id:?}: {error}"));
        }
    }
}
