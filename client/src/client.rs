//! The client: what an app holds.

use std::{fmt, sync::Arc};

use shoal_protocol::{GroupId, Seq, UserId, wire};
use tokio::sync::{mpsc, watch};

use crate::{
    Activity, Closed, Config, Follow, FollowError, Lost, Message, PublishError, Saved, Sending, SignalKind,
    Signals, Start, State, Stats,
    sending::PAYLOAD_BYTES_MAX,
    shell::{driver, lock, shared::Shared},
    signal::SIGNALS_MAX,
};

/// A user's device on Shoal: one session with whichever node is there, for as long as the app
/// likes.
///
/// Cheap to clone; all clones are the same client. It is closed with [`close`](Self::close), or
/// when the last clone and the last [`Follow`] are dropped. It needs a tokio runtime with IO and
/// time, on which it keeps one task, and one more for each group that is delivering.
///
/// Every method may be called in any state: while there is no session, what can wait waits. The
/// methods that wait are cancel safe unless they say otherwise.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Closes the client when the last of the app's handles is dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration names no node.
    #[error("no node is named")]
    NoNodes,
    /// The TLS configuration lacks TLS 1.3 or the cipher suite that QUIC begins with.
    #[error("the TLS configuration does not allow QUIC")]
    Tls,
    /// What was saved is another device's.
    #[error("what was saved belongs to another device")]
    OtherDevice,
    /// Refused for good.
    #[error("{0}")]
    Closed(#[from] Closed),
    /// No node gave a session in time; the last failure.
    #[error("no session in time: {0}")]
    TimedOut(Lost),
}

impl Client {
    /// Starts a client and waits for its first session, up to
    /// [`connect_timeout`](Config::connect_timeout).
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration is wrong, a node refused for good, or no node
    /// answered in time. There is no client then.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let timeout = config.connect_timeout;
        let client = Self::start(config)?;
        let mut states = client.state();
        let settled = states.wait_for(|state| !matches!(state, State::Connecting));
        match tokio::time::timeout(timeout, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Closed { why } => Err(why.clone().into()),
                _ => {
                    drop(state);
                    Ok(client)
                }
            },
            _ => {
                let last = lock(&client.handle.shared.last_failure).clone();
                Err(ConnectError::TimedOut(last.unwrap_or(Lost::Silent)))
            }
        }
    }

    /// Starts a client that connects when it can, for apps that start without a network. Its
    /// state is [`State::Connecting`] until then.
    ///
    /// # Errors
    /// [`ConnectError`] where the configuration is wrong.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: Config) -> Result<Self, ConnectError> {
        let shared = Arc::new(Shared::new(config)?);
        tokio::spawn(driver::run(shared.clone()));
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// The state, now and whenever it changes.
    ///
    /// ```
    /// # async fn show(client: &shoal_client::Client) {
    /// let mut states = client.state();
    /// while states.changed().await.is_ok() {
    ///     println!("{:?}", *states.borrow_and_update());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared().state.subscribe()
    }

    /// The user that the token names; none before the first session of a client that was started
    /// without a save.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        lock(&self.shared().welcomed).as_ref().map(|welcomed| welcomed.user.clone())
    }

    /// Follows a group: everything from `start` on. Waits for a node's answer, over reconnects.
    ///
    /// Dropping the future unfollows.
    ///
    /// # Errors
    /// [`FollowError`] where the node refuses, the group is followed already by this client, or
    /// the client is closed.
    pub async fn follow(&self, group: GroupId, start: Start) -> Result<Follow, FollowError> {
        Follow::open(self, group, start).await
    }

    /// Follows the user's own sequence: notices to all of their devices (added to a group, removed
    /// from it, read elsewhere). Resumes where it was followed last, or else begins with what
    /// comes from now on.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub async fn own(&self) -> Result<Follow, FollowError> {
        let mut states = self.state();
        let known = states.wait_for(|state| self.user().is_some() || matches!(state, State::Closed { .. }));
        // The sender lives as long as this client.
        let _ = known.await;
        let user = self.user().ok_or(FollowError::Closed)?;
        self.follow(GroupId::own(&user), Start::Resume).await
    }

    /// Sends a message and waits for its receipt: the message is durable at this place of the
    /// group, and every member gets it.
    ///
    /// Waits as long as it takes: through reconnects, and through refusals that pass. Messages to
    /// one group keep the order of the calls; with several at once, use [`send`](Self::send).
    ///
    /// **Cancellation.** Dropping the future while it waits for room does not send; after that the
    /// message goes its way without anybody waiting for its receipt.
    ///
    /// # Errors
    /// [`PublishError`]: refused for good, too large, closed, or of unknown outcome.
    pub async fn publish(&self, group: GroupId, message: impl Into<Message>) -> Result<Seq, PublishError> {
        self.send(group, message).await?.await
    }

    /// Queues a message; a future of its receipt. Many messages may be under way at once, and keep
    /// their order.
    ///
    /// Waits for room while [`queue`](Config::queue) is full: that is the back-pressure. Up to 128
    /// messages of each group are unanswered on the wire, the others wait in the queue.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] or [`PublishError::Closed`]; refusals come with the receipt.
    pub async fn send(&self, group: GroupId, message: impl Into<Message>) -> Result<Sending, PublishError> {
        let message = message.into().wire;
        let (bytes, bytes_max) = (message.payload.len(), self.payload_bytes_max());
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        let receipt = self.shared().queue.push(group, message).await?;
        Ok(Sending { receipt })
    }

    /// Replaces the payload of one's own message; waits as [`publish`](Self::publish) does.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`NotAllowed`](crate::Code::NotAllowed) for another's
    /// message, [`UnknownRecord`](crate::Code::UnknownRecord) for what is no message.
    pub async fn edit(
        &self,
        group: GroupId,
        seq: Seq,
        payload: impl Into<bytes::Bytes>,
    ) -> Result<Seq, PublishError> {
        self.publish(group, Message::edit(seq, payload)).await
    }

    /// Takes back one's own message, also from the store; waits as [`publish`](Self::publish) does.
    ///
    /// # Errors
    /// As [`edit`](Self::edit).
    pub async fn recall(&self, group: GroupId, seq: Seq) -> Result<Seq, PublishError> {
        self.publish(group, Message::recall(seq)).await
    }

    /// Reacts to a message; waits as [`publish`](Self::publish) does.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`UnknownRecord`](crate::Code::UnknownRecord) for what is no
    /// message.
    pub async fn react(
        &self,
        group: GroupId,
        seq: Seq,
        payload: impl Into<bytes::Bytes>,
    ) -> Result<Seq, PublishError> {
        self.publish(group, Message::reaction(seq, payload)).await
    }

    /// The messages that an earlier run had saved without a receipt, which are sent first: their
    /// group, content and receipts, for the first caller. In each group in the order of sending.
    pub fn restored(&self) -> Vec<(GroupId, Message, Sending)> {
        std::mem::take(&mut *lock(&self.shared().restored))
            .into_iter()
            .map(|(queued, receipt)| (queued.group, queued.message.into(), Sending { receipt }))
            .collect()
    }

    /// Tells the members of a group something that may be lost. Whether it was sent: not while
    /// there is no session.
    pub fn signal(&self, group: GroupId, what: SignalKind) -> bool {
        let link = self.shared().link.borrow().clone();
        link.is_some_and(|link| link.connection.send_datagram(what.encode(group)).is_ok())
    }

    /// What others signal, from now on. Up to 64 wait; more are dropped.
    #[must_use]
    pub fn signals(&self) -> Signals {
        let (sender, receiver) = mpsc::channel(SIGNALS_MAX);
        let closed = matches!(*self.shared().state.borrow(), State::Closed { .. });
        if !closed {
            let mut listeners = lock(&self.shared().signals);
            listeners.retain(|listener| !listener.is_closed());
            listeners.push(sender);
        }
        Signals { receiver }
    }

    /// What must outlive the process: see [`Saved`] for when to call this. It may be called in any
    /// state, also after [`close`](Self::close), and costs time and memory in proportion to the
    /// follows and the queue.
    #[must_use]
    pub fn save(&self) -> Saved {
        let shared = self.shared();
        Saved {
            device: shared.config.device,
            user: self.user(),
            watermarks: shared.follows.watermarks(),
            queued: shared.queue.queued(),
        }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let live = self.shared().link.borrow().clone();
        self.shared().counters.read(live.as_ref().map(|link| &link.connection))
    }

    /// The machine's network has changed (another Wi-Fi, from Wi-Fi to mobile, awake again): moves
    /// the connection to a new socket at once, where the transport can, and asks the node for a
    /// sign of life. Without an answer within some seconds the client connects anew.
    ///
    /// # Errors
    /// Where no new socket could be had; the connection is checked all the same.
    pub fn network_changed(&self) -> std::io::Result<()> {
        self.shared().network_changed()
    }

    /// The app comes to the front, goes to the background, or is about to be suspended: how often heartbeats
    /// are sent follows. Unless it is suspended, the node is asked for a sign of life at once, so an app that
    /// wakes up learns within some round trips whether its session is still there. Holds for the sessions
    /// after this one, too.
    pub fn set_activity(&self, activity: Activity) {
        self.shared().set_activity(activity);
    }

    /// Says goodbye to the node and ends: follows and receipts that are waited for end with an
    /// error. Takes a second at most. Messages without a receipt are not waited for, and are still
    /// in [`save`](Self::save).
    pub async fn close(&self) {
        self.shared().close();
        let mut states = self.state();
        // The sender lives as long as this client.
        let _ = states.wait_for(|state| matches!(state, State::Closed { .. })).await;
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    fn payload_bytes_max(&self) -> usize {
        let welcomed = lock(&self.shared().welcomed);
        let limits = welcomed.as_ref().map_or_else(wire::Limits::default, |welcomed| welcomed.limits);
        match limits.payload_bytes_max {
            0 => PAYLOAD_BYTES_MAX,
            bytes => PAYLOAD_BYTES_MAX.min(bytes as usize),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared();
        f.debug_struct("Client")
            .field("device", &shared.config.device)
            .field("state", &*shared.state.borrow())
            .finish_non_exhaustive()
    }
}
