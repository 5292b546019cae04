//! What is asked of a node while it is not reached.

use tokio::sync::mpsc;

use super::link::Command;

/// What waits for one node at most.
const WAITING_MAX: usize = 4096;

/// Requests and feeds, in the order in which they came. Messages do not wait here: another node may look
/// after them by now, which their groups find out.
#[derive(Default)]
pub(super) struct Waiting {
    commands: Vec<Command>,
    /// Something has come since the last attempt.
    is_needed: bool,
}

impl Waiting {
    /// Does anybody need the node?
    pub(super) fn is_needed(&self) -> bool {
        self.is_needed
    }

    pub(super) fn push(&mut self, command: Command) {
        self.is_needed = true;
        match command {
            Command::Publish(passage) => passage.go_astray(),
            command if self.commands.len() < WAITING_MAX => self.commands.push(command),
            command => command.refuse(),
        }
    }

    /// Takes what comes, until nobody can ask for anything any more. Nothing is lost when it is cancelled.
    pub(super) async fn take(&mut self, commands: &mut mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            self.push(command);
        }
    }

    /// The node was not reached.
    pub(super) fn give_up(&mut self) {
        self.drain().for_each(Command::refuse);
    }

    /// The node is reached.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Command> {
        self.is_needed = false;
        self.commands.drain(..)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.give_up();
    }
}
