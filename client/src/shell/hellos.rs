//! Hellos that nobody answered. Each may have reached its node, or still be on its way: where it arrives after
//! a later one it begins a session that nobody has, and ends the one that there is.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use super::lock;

/// After so long a hello has arrived, or never will: a connection whose client is gone times out before.
const LATE_MAX: Duration = Duration::from_secs(60);

/// When hellos were given up without an answer.
#[derive(Debug, Default)]
pub(crate) struct Hellos(Mutex<Vec<Instant>>);

/// A hello without an answer; dropped as such, it is given up.
#[derive(Debug)]
pub(crate) struct Unanswered<'h>(&'h Hellos);

impl Hellos {
    /// One is about to be sent.
    pub(crate) fn leaves(&self) -> Unanswered<'_> {
        Unanswered(self)
    }

    /// A session of this device was replaced: may that have been done by a hello that this client had given up?
    /// Each accounts for one such end, so two clients with the same device do not contend for ever.
    pub(crate) fn one_came_late(&self) -> bool {
        let mut given_up = lock(&self.0);
        given_up.retain(|at| at.elapsed() < LATE_MAX);
        given_up.pop().is_some()
    }
}

impl Unanswered<'_> {
    /// The node has said what it makes of it.
    pub(crate) fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let mut given_up = lock(&self.0.0);
        given_up.retain(|at| at.elapsed() < LATE_MAX);
        given_up.push(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_hello_that_was_given_up_accounts_for_one_end_soon_after() {
        let hellos = Hellos::default();
        assert!(!hellos.one_came_late());
        hellos.leaves().answered();
        assert!(!hellos.one_came_late(), "it was answered");
        drop(hellos.leaves());
        drop(hellos.leaves());
        assert_eq!([(); 3].map(|()| hellos.one_came_late()), [true, true, false]);
        drop(hellos.leaves());
        advance(LATE_MAX).await;
        assert!(!hellos.one_came_late(), "that was long ago");
    }
}
