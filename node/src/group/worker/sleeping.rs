//! When a group may go to sleep, and how it does.

use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use crate::group::going;

impl Worker {
    /// The node is going: the group sleeps as soon as nothing is under way.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.loading = None;
        self.let_go(&going());
        self.refuse_astray(&going());
    }

    pub(super) fn idle_at(&self) -> Instant {
        let unknown = self.tail.is_none() && self.home.is_none();
        let idle = if unknown || self.is_stopping { Duration::ZERO } else { self.limits.idle() };
        self.used + idle
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        // Of owners that were asked a node that goes needs no answer.
        let unneeded = if self.is_stopping { self.asked.len() } else { 0 };
        self.append.is_none()
            && self.jobs.len() <= unneeded
            && self.errands.is_empty()
            && self.loading.is_none()
            && self.parked.is_empty()
            && self.astray.is_empty()
            // A node that goes leaves a plan where it stands: the next home goes on.
            && self.home.as_ref().is_none_or(|home| home.is_quiet() && (self.is_stopping || !home.is_moving()))
    }

    /// Writes back what only memory has; once that is done, and nothing has come, the group sleeps.
    pub(super) fn fall_asleep(&mut self) -> bool {
        if self.is_followed_here() && !self.is_stopping {
            self.used = Instant::now();
            return false;
        }
        if let Some(home) = self.home.as_mut().filter(|home| home.needs_checkpoint()) {
            home.checkpoint();
            return false;
        }
        if !self.groups.forget(self.group, &self.inputs) {
            return false;
        }
        self.ring_for_silent();
        if let Some(tail) = &self.tail {
            tail.sleep();
        }
        true
    }
}
