//! How long messages wait for this worker.

use std::time::Duration;

/// The longest that a message has waited for its turn, of late.
#[derive(Debug, Default)]
pub(super) struct Waits {
    longest: Duration,
    /// The home here had no room: it was the store that kept them waiting, and no other owner would have
    /// taken them sooner.
    was_full: bool,
}

impl Waits {
    pub(super) fn note(&mut self, waited: Duration) {
        self.longest = self.longest.max(waited);
    }

    pub(super) fn note_room(&mut self, has_room: bool) {
        self.was_full |= !has_room;
    }

    /// Since it was last taken.
    pub(super) fn take(&mut self) -> Duration {
        let Self { longest, was_full } = std::mem::take(self);
        if was_full { Duration::ZERO } else { longest }
    }
}
