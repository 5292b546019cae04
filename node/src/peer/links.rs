//! The other nodes, as the group layer sees them: where a group's home is, and the way there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use shoal_protocol::{Code, GroupId, Refusal, Seq, UserId, wire};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};
use wire::{peer_request::Body as Asked, peer_response::Body as Answered};

use super::{
    dial::Dialer,
    link::{self, Command},
};
use crate::{
    coordination::{NodeName, Partition, Placed},
    group::{Actor, Elsewhere, Feed, Passage, Place},
};

/// What waits for one link to take it.
const COMMANDS_MAX: usize = 4096;

/// This node's links to others, dialled at first use.
#[derive(Debug)]
pub(crate) struct Links {
    dialer: Arc<Dialer>,
    placement: watch::Receiver<Arc<Placed>>,
    links: Mutex<BTreeMap<NodeName, mpsc::Sender<Command>>>,
}

impl Links {
    pub(crate) fn new(dialer: Arc<Dialer>, placement: watch::Receiver<Arc<Placed>>) -> Self {
        Self { dialer, placement, links: Mutex::default() }
    }

    /// Hands a command to the node's link, which is begun where there is none.
    fn send(&self, node: &NodeName, command: Command) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose task has ended is begun anew.
        links.retain(|_, commands| !commands.is_closed());
        let commands = links.entry(node.clone()).or_insert_with(|| {
            let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
            let (dialer, placement) = (Arc::clone(&self.dialer), self.placement.clone());
            tokio::spawn(link::run(dialer, node.clone(), placement, receiver));
            commands
        });
        if let Err(TrySendError::Full(command) | TrySendError::Closed(command)) = commands.try_send(command) {
            command.refuse();
        }
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

    fn follow(&self, home: &NodeName, group: GroupId, watermark: Seq) -> Feed {
        let (to, feed) = Feed::new();
        self.send(home, Command::Follow { group, watermark, to });
        feed
    }
}

fn unfit() -> Refusal {
    Refusal::new(Code::Internal, "the answer does not fit the request")
}
