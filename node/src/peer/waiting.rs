//! What is asked of a node while it is not reached.
//!
//! A node that dies is replaced within its lease. Its messages wait for that, so that they are on
//! their way again the moment the placement names another; their senders would ask again only after
//! a wait of their own.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::link::Command;
use crate::coordination::Placed;

/// How long a message waits for a node that is not reached: its lease, and what its replacement may
/// take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What waits for one node at most.
const WAITING_MAX: usize = 4096;

/// Commands for one node, in the order in which they came.
pub(super) struct Waiting {
    commands: VecDeque<(Instant, Command)>,
    placement: watch::Receiver<Arc<Placed>>,
}

impl Waiting {
    pub(super) fn new(placement: watch::Receiver<Arc<Placed>>) -> Self {
        Self { commands: VecDeque::new(), placement }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn push(&mut self, command: Command) {
        if self.commands.len() < WAITING_MAX {
            self.commands.push_back((Instant::now(), command));
        } else {
            command.refuse();
        }
    }

    /// Takes what comes, and sends messages elsewhere as the placement changes, until nobody can ask
    /// for anything any more. Nothing is lost when it is cancelled.
    pub(super) async fn take(&mut self, commands: &mut mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.placement.changed() => self.look_again(),
                command = commands.recv() => match command {
                    Some(command) => self.push(command),
                    None => return,
                },
            }
        }
    }

    /// Each message's group says where it is to go now, be it here again.
    fn look_again(&mut self) {
        for (since, command) in std::mem::take(&mut self.commands) {
            match command {
                Command::Publish(passage) => passage.go_back(),
                command => self.commands.push_back((since, command)),
            }
        }
    }

    /// The node was not reached: only messages wait on, and no longer than they may.
    pub(super) fn give_up(&mut self) {
        for (since, command) in std::mem::take(&mut self.commands) {
            match command {
                Command::Publish(_) if since.elapsed() < PATIENCE => {
                    self.commands.push_back((since, command))
                }
                command => command.refuse(),
            }
        }
    }

    /// The node is reached.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Command> {
        self.commands.drain(..).map(|(_, command)| command)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.drain().for_each(Command::refuse);
    }
}
