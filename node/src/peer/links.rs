//! The other nodes, as the group layer sees them: where a group's home is, and the way there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_protocol::{Code, Refusal, UserId, wire};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};
use wire::{peer_request::Body as Asked, peer_response::Body as Answered};

use super::{
    dial::Dialer,
    hints::Hints,
    link::{self, Command},
};
use crate::{
    coordination::{NodeName, Partition, Placed},
    delivery::Tail,
    group::{Actor, Elsewhere, Feed, Passage, Place},
};

/// What waits for one link to take it.
const COMMANDS_MAX: usize = 4096;

/// This node's links to others, dialled at first use.
#[derive(Debug)]
pub(crate) struct Links {
    dialer: Arc<Dialer>,
    placement: watch::Receiver<Arc<Placed>>,
    links: Mutex<BTreeMap<NodeName, Handle>>,
}

/// The way to one link.
#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    hints: Arc<Hints>,
    /// The most records of one group that the node has and has not sent.
    behind: Arc<AtomicU64>,
}

impl Links {
    pub(crate) fn new(dialer: Arc<Dialer>, placement: watch::Receiver<Arc<Placed>>) -> Self {
        Self { dialer, placement, links: Mutex::default() }
    }

    /// Hands a command to the node's link, which is begun where there is none.
    fn send(&self, node: &NodeName, command: Command) {
        let mut links = self.lock();
        // One whose task has ended is begun anew.
        links.retain(|_, link| !link.commands.is_closed());
        let link = links.entry(node.clone()).or_insert_with(|| self.begin(node));
        if let Err(TrySendError::Full(command) | TrySendError::Closed(command)) =
            link.commands.try_send(command)
        {
            command.refuse();
        }
    }

    /// The most records of one group that its home elsewhere has and has not sent here.
    pub(crate) fn behind(&self) -> u64 {
        self.lock().values().map(|link| link.behind.load(Relaxed)).max().unwrap_or_default()
    }

    /// Waits until the node has answered something that costs it nothing.
    ///
    /// # Errors
    /// `Busy` where it is not reached, or does not answer in time; else what it refused.
    pub(crate) async fn sign_of_life(&self, node: &NodeName) -> Result<(), Refusal> {
        self.ask(node, Asked::SignOfLife(wire::SignOfLife {})).await.map(drop)
    }

    /// The events of a node.
    ///
    /// # Errors
    /// `Busy` where it is not reached, or does not answer in time; else what it refused.
    pub(crate) async fn events(
        &self,
        node: &NodeName,
        asked: wire::GetNodeEvents,
    ) -> Result<wire::NodeEvents, Refusal> {
        match self.ask(node, Asked::Events(asked)).await? {
            Answered::Events(events) => Ok(events),
            _ => Err(unfit()),
        }
    }

    fn begin(&self, node: &NodeName) -> Handle {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (hints, behind) = (Arc::new(Hints::new(&self.dialer.limits)), Arc::default());
        tokio::spawn(link::run(
            Arc::clone(&self.dialer),
            node.clone(),
            receiver,
            Arc::clone(&hints),
            Arc::clone(&behind),
        ));
        Handle { commands, hints, behind }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Handle>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, node: &NodeName, body: Asked) -> Result<Answered, Refusal> {
        let (to, answer) = oneshot::channel();
        self.send(node, Command::Request(wire::PeerRequest { body: Some(body) }, to));
        answer
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Code::Busy, "the link to the group's home was lost")))
    }
}

#[async_trait]
impl Elsewhere for Links {
    fn place(&self, partition: Partition) -> Place {
        match self.placement.borrow().placement.node_of(partition) {
            Some(node) if *node == self.dialer.me => Place::Here,
            Some(node) => Place::There(node.clone()),
            None => Place::Nowhere,
        }
    }

    fn publish(&self, to: &NodeName, passage: Passage) {
        self.send(to, Command::Publish(passage));
    }

    async fn change(
        &self,
        home: &NodeName,
        actor: Actor,
        change: wire::Change,
    ) -> Result<wire::Changed, Refusal> {
        let change =
            wire::PeerChange { user: actor.user.to_string(), admin: actor.admin, change: Some(change) };
        match self.ask(home, Asked::Change(change)).await? {
            Answered::Changed(changed) => Ok(changed),
            _ => Err(unfit()),
        }
    }

    async fn notify(&self, home: &NodeName, user: UserId, notice: wire::Notice) -> Result<(), Refusal> {
        let notice = wire::PeerNotice { user: user.to_string(), notice: Some(notice) };
        match self.ask(home, Asked::Notice(notice)).await? {
            Answered::Done(_) => Ok(()),
            _ => Err(unfit()),
        }
    }

    fn follow(&self, home: &NodeName, tail: &Arc<Tail>) -> Feed {
        let (to, feed) = Feed::new();
        self.send(home, Command::Follow { tail: Arc::clone(tail), to });
        feed
    }

    fn signal(&self, home: &NodeName, datagram: Bytes) {
        let hints = self.lock().get(home).map(|link| Arc::clone(&link.hints));
        let metrics = &self.dialer.metrics;
        match hints.is_some_and(|hints| hints.send(datagram)) {
            true => metrics.peer_datagrams_sent.inc(),
            false => metrics.peer_datagrams_dropped.inc(),
        }
    }

    async fn attendance(
        &self,
        node: &NodeName,
        asked: wire::GetAttendance,
    ) -> Result<wire::Attendance, Refusal> {
        match self.ask(node, Asked::Attendance(asked)).await? {
            Answered::Attendance(attendance) => Ok(attendance),
            _ => Err(unfit()),
        }
    }

    async fn owner(&self, node: &NodeName, asked: wire::GetOwner) -> Result<wire::Owner, Refusal> {
        match self.ask(node, Asked::Owner(asked)).await? {
            Answered::Owner(owner) => Ok(owner),
            _ => Err(unfit()),
        }
    }
}

fn unfit() -> Refusal {
    Refusal::new(Code::Internal, "the answer does not fit the request")
}
