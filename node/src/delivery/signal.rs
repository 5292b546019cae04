//! How a session learns that one of its groups has something for it.

use std::{
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use shoal_protocol::UserId;

use super::runs::Reader;
#[cfg(test)]
use crate::config::AccessLimits;
use crate::{coordination::NodeName, pace::Pace};

/// One session's bell: which of its cursors are due. The list is bounded by the cursors, since a
/// tail rings once and then not again until the session has read.
#[derive(Debug)]
pub struct Signal {
    whose: Whose,
    /// What datagrams for the session leave on; none where there is nobody to see them.
    connection: Option<quinn::Connection>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Whose {
    User(UserId),
    /// A node follows for its users, and is sent datagrams no faster than this.
    Node(Box<(NodeName, Pace)>),
}

#[derive(Debug, Default)]
struct State {
    due: Vec<u32>,
    waiting: Option<Waker>,
}

impl Signal {
    /// A bell without a connection.
    #[must_use]
    pub fn new(user: UserId) -> Self {
        Self { whose: Whose::User(user), connection: None, state: Mutex::default() }
    }

    /// The bell of another node, which is sent datagrams at this pace.
    pub(crate) fn of_node(name: NodeName, connection: quinn::Connection, pace: Pace) -> Self {
        let whose = Whose::Node(Box::new((name, pace)));
        Self { whose, connection: Some(connection), state: Mutex::default() }
    }

    /// The bell of another node that is sent no datagrams.
    #[cfg(test)]
    pub(super) fn of_absent_node() -> Self {
        let pace = Pace::new(&AccessLimits::default().into(), AccessLimits::signal_rate);
        let whose = Whose::Node(Box::new((NodeName("away".into()), pace)));
        Self { whose, connection: None, state: Mutex::default() }
    }

    /// The bell of a session on `connection`.
    #[must_use]
    pub fn over(user: UserId, connection: quinn::Connection) -> Self {
        Self { whose: Whose::User(user), connection: Some(connection), state: Mutex::default() }
    }

    /// Whose session it is; none for another node.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        match &self.whose {
            Whose::User(user) => Some(user),
            Whose::Node(_) => None,
        }
    }

    /// How it is given records.
    pub(super) fn reader(&self) -> Reader {
        match &self.whose {
            Whose::User(_) => Reader::Session,
            Whose::Node(_) => Reader::Node,
        }
    }

    /// The node that follows for its users; none for a session.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        match &self.whose {
            Whose::User(_) => None,
            Whose::Node(node) => Some(&node.0),
        }
    }

    /// The cursor is due.
    pub fn ring(&self, cursor: u32) {
        let waiting = {
            let mut state = self.lock();
            state.due.push(cursor);
            state.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Waits until [`Self::take`] has something. Cancellation safe.
    pub async fn rung(&self) {
        poll_fn(|cx| self.poll_rung(cx)).await;
    }

    /// Ready if [`Self::take`] has something; otherwise the next ring wakes. One task may wait.
    pub fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.due.is_empty() {
            return Poll::Ready(());
        }
        match &mut state.waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// As [`Self::take`]; the next ring wakes the task, whether there was something or not.
    pub fn take_and_wait(&self, into: &mut Vec<u32>, cx: &Context<'_>) {
        let mut state = self.lock();
        into.append(&mut state.due);
        match &mut state.waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Moves the cursors that are due to the end of `into`.
    pub fn take(&self, into: &mut Vec<u32>) {
        into.append(&mut self.lock().due);
    }

    /// Sends what may be lost, and what does not fit is. False where it certainly is: too much for a
    /// node, a client without datagrams, or gone.
    pub fn send_datagram(&self, datagram: Bytes) -> bool {
        let may_send = match &self.whose {
            Whose::User(_) => true,
            Whose::Node(node) => node.1.check().is_ok(),
        };
        let connection = self.connection.as_ref().filter(|_| may_send);
        connection.is_some_and(|connection| connection.send_datagram(datagram).is_ok())
    }

    /// Gives back memory that a burst took.
    pub fn shrink(&self) {
        let mut state = self.lock();
        if state.due.is_empty() {
            state.due = Vec::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal() -> Signal {
        Signal::new(UserId::new("ada").unwrap())
    }

    #[tokio::test]
    async fn a_ring_before_the_wait_is_not_lost() {
        let signal = signal();
        signal.ring(3);
        signal.ring(1);
        signal.rung().await;
        let mut due = Vec::new();
        signal.take(&mut due);
        assert_eq!(due, [3, 1]);
    }

    #[tokio::test]
    async fn a_ring_wakes_whoever_waits_and_only_once() {
        let signal = signal();
        let mut waiting = tokio_test_waker::Counting::default();
        assert!(waiting.poll(|cx| signal.poll_rung(cx)).is_pending());
        signal.ring(0);
        signal.ring(1);
        assert_eq!(waiting.woken(), 1, "the second ring finds nobody waiting");
        assert!(waiting.poll(|cx| signal.poll_rung(cx)).is_ready());
    }

    /// A task context that counts its wakes.
    mod tokio_test_waker {
        use std::{
            sync::{
                Arc,
                atomic::{AtomicU32, Ordering},
            },
            task::{Context, Poll, Wake, Waker},
        };

        #[derive(Default)]
        struct Count(AtomicU32);

        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        #[derive(Default)]
        pub(super) struct Counting(Arc<Count>);

        impl Counting {
            pub(super) fn poll<T>(&mut self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
                poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.0))))
            }

            pub(super) fn woken(&self) -> u32 {
                self.0.0.load(Ordering::Relaxed)
            }
        }
    }
}
