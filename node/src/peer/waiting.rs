//! What is asked of a node while it is not reached.
//!
//! A node that dies is replaced within its lease. Its messages wait for that, so that they are on
//! their way again the moment the placement names another; their senders would ask again only after
//! a wait of their own.

use std::{collections::VecDeque, future::pending, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::link::Command;

/// How long anything waits for a node that is not reached. Whoever sent a message is asked then whether
/// it is still wanted: one who has gone, and begun anew elsewhere, would find it behind what they have
/// said since.
const PATIENCE: Duration = Duration::from_secs(1);

/// What waits for one node at most.
const WAITING_MAX: usize = 4096;

/// Commands for one node, in the order in which they came.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<(Instant, Command)>);

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, command: Command) {
        match command {
            Command::LookAgain => self.look_again(),
            command if self.0.len() < WAITING_MAX => self.0.push_back((Instant::now(), command)),
            command => command.refuse(),
        }
    }

    /// Takes what comes, until nobody can ask for anything any more. Nothing is lost when it is cancelled.
    pub(super) async fn take(&mut self, commands: &mut mpsc::Receiver<Command>) {
        loop {
            let impatient_at = self.0.front().map(|(since, _)| *since + PATIENCE);
            tokio::select! {
                biased;
                () = until(impatient_at) => self.refuse_oldest(),
                command = commands.recv() => match command {
                    Some(command) => self.push(command),
                    None => return,
                },
            }
        }
    }

    /// Each message's group says where it is to go now, be it here again.
    fn look_again(&mut self) {
        for (since, command) in std::mem::take(&mut self.0) {
            match command {
                Command::Publish(passage) => passage.go_back(),
                command => self.0.push_back((since, command)),
            }
        }
    }

    fn refuse_oldest(&mut self) {
        if let Some((_, command)) = self.0.pop_front() {
            command.refuse();
        }
    }

    /// The node was not reached: only messages wait on.
    pub(super) fn give_up(&mut self) {
        for (since, command) in std::mem::take(&mut self.0) {
            match command {
                Command::Publish(_) => self.0.push_back((since, command)),
                command => command.refuse(),
            }
        }
    }

    /// The node is reached.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Command> {
        self.0.drain(..).map(|(_, command)| command)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.drain().for_each(Command::refuse);
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
