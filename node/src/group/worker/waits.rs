//! How long messages wait for this worker.

use std::time::Duration;

use tokio::time::Instant;

/// A turn of the worker that takes so long has waited for the store.
const TURN_MAX: Duration = Duration::from_millis(100);

/// What was longer ago is forgotten.
const LATELY: Duration = Duration::from_secs(4);

/// The longest that a message has waited for its turn, of late.
#[derive(Debug)]
pub(super) struct Waits {
    since: Instant,
    longest: Duration,
    /// It was the store that kept them waiting, and no other owner would have taken them sooner: the home
    /// here had no room, or the worker stood still until something was read.
    was_held_up: bool,
}

impl Waits {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, longest: Duration::ZERO, was_held_up: false }
    }

    /// A message that came then has its turn.
    pub(super) fn note(&mut self, arrived: Instant, now: Instant) {
        if now.saturating_duration_since(self.since) > LATELY {
            *self = Self::new(now);
        }
        self.longest = self.longest.max(now.saturating_duration_since(arrived));
    }

    /// The home here has room for more before its next append, or not.
    pub(super) fn note_room(&mut self, has_room: bool) {
        self.was_held_up |= !has_room;
    }

    /// A turn took so long.
    pub(super) fn note_turn(&mut self, took: Duration) {
        self.was_held_up |= took > TURN_MAX;
    }

    /// Since it was last taken.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let Self { longest, was_held_up, .. } = std::mem::replace(self, Self::new(now));
        if was_held_up { Duration::ZERO } else { longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITED: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn what_waited_for_the_store_waited_for_no_owner() {
        let begun = Instant::now();
        let now = begun + WAITED;
        let mut waits = Waits::new(begun);
        for (took, has_room, waited) in [
            (TURN_MAX, true, WAITED),
            (TURN_MAX * 2, true, Duration::ZERO),
            (Duration::ZERO, false, Duration::ZERO),
        ] {
            waits.note(begun, now);
            waits.note_turn(took);
            waits.note_room(has_room);
            assert_eq!(waits.take(now), waited);
        }
        waits.note(begun, now);
        waits.note(now + LATELY * 2, now + LATELY * 2);
        assert_eq!(waits.take(now + LATELY * 2), Duration::ZERO, "that was long ago");
    }
}
