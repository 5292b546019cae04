//! One live session: its parts run side by side in the client's task, and the first to end ends it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::VarInt;
use shoal_protocol::{Code, GroupId, Incarnation, Refusal, wire};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    delivery,
    dial::{Connected, DialError, dial, refused},
    following::Following,
    framed::{self, StreamError},
    lock, request,
    shared::{Link, Shared},
};
use crate::{
    Closed, Lost, Signal,
    core::{backoff::Backoff, liveness::Liveness},
};

/// How many ends of follows wait to be looked at.
const ENDINGS_MAX: usize = 16;

/// How long answers of a node that is left are waited for.
const ANSWERS_WAIT: Duration = Duration::from_secs(2);

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client is closed.
    Closed(Closed),
    /// Connect again.
    Lost(Lost),
    /// There is a session on another node already: this one had asked for it.
    Moved(Box<Connected>),
    /// The node was silent, and there is another session already, there or elsewhere.
    Outlived(Box<Connected>),
}

/// One live session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: String,
    pub(crate) connection: quinn::Connection,
    pub(super) link: Link,
    pub(crate) liveness: Mutex<Liveness>,
    /// A token to send to the node.
    pub(crate) renew: Mutex<Option<String>>,
    /// When the token expires.
    pub(crate) expires: watch::Sender<Option<Instant>>,
    /// Where the node wants this client to go.
    pub(crate) leave_for: watch::Sender<Option<Departure>>,
    /// Another session is being opened, which will replace this one.
    pub(super) moving: AtomicBool,
    /// The node has answered.
    pub(super) heard: Notify,
    /// Groups that this node delivers no more.
    handed_off: Mutex<BTreeSet<GroupId>>,
    /// The node's clock when the session began, milliseconds since 1970, and ours.
    began: (u64, Instant),
}

/// Where a client is to go.
#[derive(Debug, Clone)]
pub(crate) struct Departure {
    pub(crate) nodes: Vec<String>,
    /// The node is not going: it only has more sessions than others.
    pub(crate) may_stay: bool,
}

/// A follow that the node ended.
pub(crate) type FollowEnd = (Arc<Following>, wire::FollowEnded);

/// Runs a session until it ends.
pub(crate) async fn run(shared: &Arc<Shared>, connected: Connected) -> End {
    let limits = connected.welcome.limits.unwrap_or_default();
    shared.follows.adopted(&connected.asked, limits.follows_max);
    shared.queue.welcomed(Incarnation(connected.welcome.incarnation), &limits);
    shared.online(&connected);
    let Connected { node, connection, link, to_node, from_node, welcome, publishing, .. } = connected;
    let session = Session {
        shared: shared.clone(),
        node,
        connection,
        link,
        liveness: Mutex::new(Liveness::new(welcome.heartbeat_ms, shared.activity(), shared.now())),
        renew: Mutex::new(None),
        expires: watch::Sender::new(expiry(welcome.token_expires_ms, welcome.time_ms)),
        leave_for: watch::Sender::new(None),
        moving: AtomicBool::new(false),
        heard: Notify::new(),
        handed_off: Mutex::new(BTreeSet::new()),
        began: (welcome.time_ms, Instant::now()),
    };
    let (endings, ended) = mpsc::channel(ENDINGS_MAX);
    let end = tokio::select! {
        biased;
        end = session.read_control(from_node, endings) => end,
        end = session.write_control(to_node) => end,
        end = session.watch_silence() => end,
        end = session.publish(publishing) => end,
        end = session.read_deliveries() => end,
        end = session.end_follows(ended) => end,
        end = session.read_signals() => end,
        end = session.fetch_incarnations() => end,
        end = session.renew_token() => end,
        end = session.leave() => end,
    };
    shared.queue.disconnected();
    session.connection.close(VarInt::from_u32(Code::None as u32), b"");
    shared.disconnected(&session.connection);
    end
}

/// When a token expires by this machine's clock, given both times by the node's.
pub(crate) fn expiry(expires_ms: u64, node_now_ms: u64) -> Option<Instant> {
    let left = Duration::from_millis(expires_ms.checked_sub(node_now_ms)?);
    (expires_ms != 0).then(|| Instant::now().checked_add(left))?
}

impl Session {
    /// What a broken stream or connection means. Does not return while the client is moving and
    /// this session has been replaced by its own next one.
    pub(crate) async fn ended(&self, error: StreamError) -> End {
        if let StreamError::Frame(frame) = &error {
            tracing::warn!(node = %self.node, %frame, "the node broke the protocol");
            self.connection.close(VarInt::from_u32(error.code() as u32), b"bad frame");
            return End::Lost(error.into_lost());
        }
        match self.connection.close_reason().as_ref().and_then(framed::refusal_of) {
            Some(refusal) if refusal.code != Code::None => self.refused(refusal).await,
            _ => End::Lost(error.into_lost()),
        }
    }

    /// The node ended the session with a refusal.
    pub(crate) async fn refused(&self, refusal: Refusal) -> End {
        if refusal.code == Code::SessionReplaced && self.moving.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        match refused(&self.shared, refusal) {
            DialError::Closed(why) => End::Closed(why),
            DialError::Lost(why) => End::Lost(why),
        }
    }

    /// Takes delivery streams, each read by a task of its own, so that one group's app that does
    /// not read holds up no other.
    async fn read_deliveries(&self) -> End {
        let mut streams = JoinSet::new();
        loop {
            let stream = tokio::select! {
                biased;
                Some(done) = streams.join_next(), if !streams.is_empty() => {
                    match done {
                        Ok(Ok(None)) => {}
                        Ok(Ok(Some((group, handoff)))) => self.hand_off(group, handoff),
                        Ok(Err(error)) => return self.ended(error).await,
                        Err(failed) => return End::Lost(Lost::Broken(failed.to_string())),
                    }
                    continue;
                }
                stream = self.connection.accept_uni() => stream,
            };
            match stream {
                Ok(stream) => {
                    streams.spawn(delivery::read(self.shared.clone(), stream));
                }
                Err(error) => return self.ended(StreamError::Connection(error)).await,
            }
        }
    }

    /// A group goes on at another node, and the session with it.
    fn hand_off(&self, group: GroupId, handoff: wire::Handoff) {
        lock(&self.handed_off).insert(group);
        if handoff.node.is_empty() || handoff.node == self.node {
            self.ask_here_again();
        } else {
            self.leave_for.send_replace(Some(Departure { nodes: vec![handoff.node], may_stay: false }));
        }
    }

    /// What was to go on elsewhere goes on here.
    fn ask_here_again(&self) {
        for group in std::mem::take(&mut *lock(&self.handed_off)) {
            if let Some(following) = self.shared.follows.get(group) {
                self.shared.follows.ask_again(&following);
            }
        }
    }

    /// The node's clock, milliseconds since 1970.
    pub(crate) fn node_now_ms(&self) -> u64 {
        let (then, began) = self.began;
        then.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Datagrams, to whoever listens. What comes faster than it is read is dropped.
    async fn read_signals(&self) -> End {
        loop {
            match self.connection.read_datagram().await {
                Ok(datagram) => self.signal(datagram),
                Err(error) => return self.ended(StreamError::Connection(error)).await,
            }
        }
    }

    fn signal(&self, datagram: Bytes) {
        if let Some(signal) = Signal::decode(datagram) {
            let full_or_sent = |listener: &mut mpsc::Sender<Signal>| {
                !matches!(listener.try_send(signal.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            };
            lock(&self.shared.signals).retain_mut(full_or_sent);
        }
    }

    /// Asks for a new incarnation whenever a group needs one.
    async fn fetch_incarnations(&self) -> End {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            if !self.shared.queue.wants_incarnation() {
                self.shared.queue.incarnation.notified().await;
                continue;
            }
            let body = wire::request::Body::Incarnation(wire::NewIncarnation {});
            match request::ask(&self.connection, body).await {
                Ok(wire::response::Body::Incarnation(issued)) => {
                    backoff.reset();
                    self.shared.queue.issued(Incarnation(issued.incarnation));
                }
                Ok(other) => tracing::debug!(?other, "no incarnation"),
                Err(error) => tracing::debug!(?error, "no incarnation"),
            }
            if self.shared.queue.wants_incarnation() {
                sleep(backoff.failed(self.shared.chance())).await;
            }
        }
    }

    /// When the node is to be left, or another has more room: opens a session there first.
    async fn leave(&self) -> End {
        let mut leave_for = self.leave_for.subscribe();
        loop {
            let departure = leave_for.borrow_and_update().clone();
            match departure {
                Some(Departure { nodes, may_stay: false }) => return self.leave_for(nodes).await,
                Some(Departure { nodes, .. }) => {
                    if let Some(end) = self.take_offer(nodes).await {
                        return end;
                    }
                }
                None => {}
            }
            // The sender lives as long as `self`.
            let _ = leave_for.changed().await;
        }
    }

    /// Tries each of the nodes once; goes on here where none takes this client.
    async fn take_offer(&self, nodes: Vec<String>) -> Option<End> {
        for node in nodes.iter().filter(|node| **node != self.node) {
            if let Some(end) = self.move_to(node).await {
                return Some(end);
            }
        }
        self.moving.store(false, Ordering::Relaxed);
        // One of them may have replaced it before the attempt failed.
        self.connection.close_reason().map(|error| End::Lost(framed::lost(&error)))
    }

    /// Tries these first, and then all that there are, again and again.
    async fn leave_for(&self, first: Vec<String>) -> End {
        {
            let mut nodes = lock(&self.shared.nodes);
            nodes.prefer(first);
            nodes.avoid(&self.node);
        }
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let node = lock(&self.shared.nodes).next();
            match node {
                None => {
                    self.ask_here_again();
                    sleep(backoff.failed(self.shared.chance())).await;
                }
                Some(node) if node == self.node => {}
                Some(node) => {
                    if let Some(end) = self.move_to(&node).await {
                        return end;
                    }
                }
            }
            if let Some(error) = self.connection.close_reason() {
                return End::Lost(framed::lost(&error));
            }
        }
    }

    /// Opens a session on another node, which replaces this one. Where that fails, this one goes on for as
    /// long as its node does.
    async fn move_to(&self, node: &str) -> Option<End> {
        self.begin_to_move();
        match Box::pin(dial(&self.shared, node)).await {
            Ok(connected) => {
                self.finish_requests(&connected).await;
                Some(End::Moved(Box::new(connected)))
            }
            Err(why) => {
                tracing::debug!(%node, ?why, "cannot move");
                None
            }
        }
    }

    /// From here on the node may hear of another session of this client's.
    pub(super) fn begin_to_move(&self) {
        self.moving.store(true, Ordering::Relaxed);
    }

    /// From here on requests go to the next node; those that are under way are waited for, since
    /// not all of them can be asked again.
    async fn finish_requests(&self, next: &Connected) {
        if let Some(link) = self.shared.link.send_replace(Some(next.link.clone())) {
            let _ = timeout(ANSWERS_WAIT, link.answered()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::driver;

    fn bytes_of<A, F: Future>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }

    fn bytes_of_two<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_thousand_clients_fit_into_one_process() {
        assert!(size_of::<Shared>() <= 2 << 10, "{}", size_of::<Shared>());
        assert!(size_of::<Following>() <= 256, "{}", size_of::<Following>());
        assert!(bytes_of(driver::run) <= 2 << 10, "{}", bytes_of(driver::run));
        assert!(bytes_of_two(delivery::read) <= 1 << 10, "{}", bytes_of_two(delivery::read));
        let session = bytes_of_two(|shared: &'static Arc<Shared>, connected| run(shared, connected));
        assert!(session <= 8 << 10, "{session}");
    }
}
