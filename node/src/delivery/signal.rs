//! How a session learns that one of its groups has something for it.

use std::sync::{Mutex, PoisonError};

use shoal_protocol::UserId;
use tokio::sync::Notify;

/// One session's bell: which of its cursors are due. The list is bounded by the cursors, since a
/// tail rings once and then not again until the session has read.
#[derive(Debug)]
pub struct Signal {
    user: UserId,
    due: Mutex<Vec<u32>>,
    notify: Notify,
}

impl Signal {
    /// A session's bell.
    #[must_use]
    pub fn new(user: UserId) -> Self {
        Self { user, due: Mutex::new(Vec::new()), notify: Notify::new() }
    }

    /// Whose session it is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The cursor is due.
    pub fn ring(&self, cursor: u32) {
        let first = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            due.push(cursor);
            due.len() == 1
        };
        if first {
            self.notify.notify_one();
        }
    }

    /// Waits until [`Self::take`] has something. Cancellation safe.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// Moves the cursors that are due to the end of `into`.
    pub fn take(&self, into: &mut Vec<u32>) {
        into.append(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
