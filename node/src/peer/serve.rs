//! The home's end of a link: another node follows groups here, and speaks for its users.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use shoal_protocol::{Code, GroupId, Refusal, Seq, UserId, frame, frame::FRAME_BYTES_MAX, negotiate, wire};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use wire::{
    peer_request::Body as Asked, peer_response::Body as Answered, peer_stream_open::Body as Opened,
    to_follower::Body as ToFollower, to_home::Body as ToHome,
};

use super::{
    BEAT, CONNECT_MAX, SILENCE,
    framed::{Frames, LinkError},
    hints, lane,
    outbox::Outbox,
    transport::FEED_STREAMS_MAX,
};
use crate::{
    config::{AccessLimits, Current},
    coordination::NodeName,
    delivery::{Deliveries, Ended, Pages, Signal},
    group::{Actor, Follow, Followed, From, Groups},
    ops::{Events, Metrics},
    pace::Pace,
    presence::{self, Audience, Presence},
};

/// Nodes that follow at the same time: more than a cluster has, and twice while links are renewed.
const LINKS_MAX: usize = 1024;

/// What serving other nodes takes.
pub(crate) struct ServerParts {
    pub(crate) me: NodeName,
    pub(crate) cluster: String,
    pub(crate) groups: Groups,
    pub(crate) presence: Presence,
    pub(crate) pages: Arc<Pages>,
    pub(crate) limits: Current<AccessLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
}

/// Serves other nodes until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    endpoint: Endpoint,
    tasks: JoinSet<()>,
}

struct Shared {
    me: NodeName,
    cluster: String,
    groups: Groups,
    presence: Presence,
    pages: Arc<Pages>,
    limits: Current<AccessLimits>,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
}

impl Server {
    pub(crate) fn start(parts: ServerParts, endpoint: Endpoint) -> Self {
        let shared = Arc::new(Shared {
            me: parts.me,
            cluster: parts.cluster,
            groups: parts.groups,
            presence: parts.presence,
            pages: parts.pages,
            limits: parts.limits,
            metrics: parts.metrics,
            events: parts.events,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(shared, endpoint.clone()));
        Self { endpoint, tasks }
    }

    /// Tells the other nodes that this one is going.
    pub(crate) async fn shut_down(mut self) {
        self.endpoint.close(Code::Draining.number().into(), b"the node is going");
        self.tasks.shutdown().await;
    }
}

async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = links.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) if links.len() >= LINKS_MAX => incoming.refuse(),
                Some(incoming) => drop(links.spawn(serve(Arc::clone(&shared), incoming))),
                None => return,
            },
        }
    }
}

async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let greeted = timeout(CONNECT_MAX, async {
        let connection = incoming.await?;
        match greet(&shared, &connection).await {
            Ok((node, out, frames)) => {
                Ok((node.clone(), Session::new(shared, node, connection, out, frames)))
            }
            Err(error) => {
                connection.close(error.wire_code(), error.to_string().as_bytes());
                Err(error)
            }
        }
    });
    match greeted.await {
        Err(_) => tracing::debug!("a node did not say hello in time"),
        Ok(Err(error)) => tracing::warn!(%error, "a node was not let in"),
        Ok(Ok((node, mut session))) => {
            if let Err(error) = session.run().await {
                tracing::info!(node = node.0, %error, "a node follows no more");
                session.connection.close(error.wire_code(), error.to_string().as_bytes());
            }
        }
    }
}

async fn greet(shared: &Shared, connection: &Connection) -> Result<(NodeName, Outbox, Frames), LinkError> {
    let (send, recv) = connection.accept_bi().await?;
    let (mut out, mut frames) = (Outbox::new(send), Frames::new(recv, FRAME_BYTES_MAX));
    let Some(ToHome::Hello(hello)) = frames.next::<wire::ToHome>().await?.and_then(|frame| frame.body) else {
        return Err(Refusal::new(Code::BadFrame, "the first frame is a hello").into());
    };
    let version = negotiate(hello.version_min, hello.version_max)?;
    if hello.cluster != shared.cluster {
        let reason = format!("this node belongs to {}, not to {}", shared.cluster, hello.cluster);
        return Err(Refusal::new(Code::NotAllowed, reason).into());
    }
    let welcome = wire::PeerWelcome { version, node: shared.me.0.clone() };
    out.put(&wire::ToFollower { body: Some(ToFollower::Welcome(welcome)) });
    Ok((NodeName(hello.node), out, frames))
}

/// What became of a follow.
struct Outcome {
    group: GroupId,
    cursor: u32,
    followed: Result<Followed, Refusal>,
}

/// One node that follows groups here.
struct Session {
    shared: Arc<Shared>,
    connection: Connection,
    out: Outbox,
    frames: Frames,
    signal: Arc<Signal>,
    deliveries: Arc<Deliveries>,
    /// The cursor that is being attached in each group; an answer for another is not wanted.
    pending: BTreeMap<GroupId, u32>,
    follows: FuturesUnordered<BoxFuture<'static, Outcome>>,
    tasks: JoinSet<Result<(), LinkError>>,
    heard: Instant,
    /// How fast the other node's datagrams are taken.
    hint_pace: Pace,
}

impl Session {
    fn new(shared: Arc<Shared>, node: NodeName, connection: Connection, out: Outbox, frames: Frames) -> Self {
        let signal = Arc::new(Signal::of_node(node, connection.clone(), hints::pace(&shared.limits)));
        let deliveries = Deliveries::new(
            connection.clone(),
            Arc::clone(&signal),
            Arc::clone(&shared.pages),
            shared.limits.clone(),
            Arc::clone(&shared.metrics),
        );
        let deliveries = Arc::new(deliveries.with_streams(FEED_STREAMS_MAX as usize));
        let mut tasks = JoinSet::new();
        let delivering = Arc::clone(&deliveries);
        tasks.spawn(async move { Err(delivering.run().await.into()) });
        let hint_pace = hints::pace(&shared.limits);
        let (pending, follows) = (BTreeMap::new(), FuturesUnordered::new());
        Self {
            shared,
            connection,
            out,
            frames,
            signal,
            deliveries,
            pending,
            follows,
            tasks,
            heard: Instant::now(),
            hint_pace,
        }
    }

    async fn run(&mut self) -> Result<(), LinkError> {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (has_room, may_read) = (self.out.has_room(), self.may_read());
            tokio::select! {
                biased;
                frame = self.frames.next::<wire::ToHome>(), if may_read => {
                    self.take(frame?.ok_or(LinkError::Stream)?)?;
                }
                _ = beats.tick() => self.beat()?,
                Some(outcome) = self.follows.next(), if has_room => self.followed(outcome),
                () = self.deliveries.ended(), if has_room => self.tell_ended(),
                wrote = self.out.write(), if !self.out.is_empty() => wrote?,
                stream = self.connection.accept_bi() => self.open(stream?),
                Some(ended) = self.tasks.join_next() => ended.unwrap_or(Err(LinkError::Stream))?,
                datagram = self.connection.read_datagram() => self.hand_out(&datagram?)?,
            }
        }
    }

    /// Can more be taken on? If not, a sign of life is not read either.
    fn may_read(&self) -> bool {
        self.out.has_room() && self.follows.len() < self.shared.limits.load().follows_pending_max.max(1)
    }

    fn take(&mut self, frame: wire::ToHome) -> Result<(), Refusal> {
        self.heard = Instant::now();
        match frame.body {
            Some(ToHome::Follow(follow)) => self.follow(&follow),
            Some(ToHome::Unfollow(unfollow)) => {
                let group = group_of(&unfollow.group)?;
                self.pending.remove(&group);
                self.deliveries.remove(group);
                Ok(())
            }
            Some(ToHome::Beat(_)) => {
                self.deliveries.sweep();
                Ok(())
            }
            Some(ToHome::Hello(_)) => Err(Refusal::new(Code::BadFrame, "a second hello")),
            None => Err(Refusal::new(Code::BadFrame, "an empty frame")),
        }
    }

    fn follow(&mut self, follow: &wire::Follow) -> Result<(), Refusal> {
        let group = group_of(&follow.group)?;
        let Some(wire::follow::From::Watermark(watermark)) = follow.from else {
            return Err(Refusal::new(Code::BadRequest, "a node follows by its watermark"));
        };
        let watermark = Seq::new(watermark).ok_or_else(|| Refusal::new(Code::BadRequest, "no Seq is 0"))?;
        self.deliveries.remove(group);
        let cursor = self.deliveries.reserve();
        self.pending.insert(group, cursor);
        let groups = self.shared.groups.clone();
        let follow =
            Follow { group, signal: Arc::clone(&self.signal), cursor, from: From::Watermark(watermark) };
        let outcome = async move { Outcome { group, cursor, followed: groups.follow(follow).await } };
        self.follows.push(outcome.boxed());
        Ok(())
    }

    fn followed(&mut self, outcome: Outcome) {
        let Outcome { group, cursor, followed } = outcome;
        let is_wanted = self.pending.get(&group) == Some(&cursor);
        if is_wanted {
            self.pending.remove(&group);
        }
        let body = match followed {
            Ok(Followed { tail, attachment, from, at }) if is_wanted => {
                self.deliveries.put(cursor, tail, attachment, from);
                let (from, tail) = (from.get(), at.get());
                ToFollower::Followed(wire::Followed { group: group.to_wire(), from, tail })
            }
            Ok(Followed { tail, attachment, .. }) => {
                tail.detach(attachment);
                return self.deliveries.release(cursor);
            }
            Err(why) => {
                self.deliveries.release(cursor);
                if !is_wanted {
                    return;
                }
                let why = Some(why.into());
                ToFollower::FollowEnded(wire::FollowEnded { group: group.to_wire(), why, next: 0 })
            }
        };
        self.tell(body);
    }

    /// A datagram of a session on the other node, for everybody who follows the home.
    fn hand_out(&self, datagram: &Bytes) -> Result<(), Refusal> {
        let Shared { groups, limits, metrics, .. } = &*self.shared;
        metrics.peer_datagrams_received.inc();
        let group = presence::read(datagram)?.filter(|_| self.hint_pace.check().is_ok());
        let Some(tail) = group.filter(|group| groups.is_home(*group)).and_then(|group| groups.tail(group))
        else {
            metrics.peer_datagrams_dropped.inc();
            return Ok(());
        };
        let (from, sessions_max) = (Some(&self.signal), limits.load().signal_sessions_max);
        presence::pass_on(&tail, datagram, from, Audience::Everybody, sessions_max, metrics);
        Ok(())
    }

    fn tell_ended(&mut self) {
        for Ended { group, .. } in self.deliveries.take_ended() {
            let why = Some(lane::not_home().into());
            self.tell(ToFollower::FollowEnded(wire::FollowEnded { group: group.to_wire(), why, next: 0 }));
        }
    }

    fn beat(&mut self) -> Result<(), LinkError> {
        if !self.may_read() {
            self.heard = Instant::now();
        }
        if self.heard.elapsed() > SILENCE {
            return Err(LinkError::Silent(SILENCE));
        }
        let behind = self.deliveries.behind();
        self.tell(ToFollower::Beat(wire::Beat { behind }));
        Ok(())
    }

    fn open(&mut self, (send, recv): (SendStream, RecvStream)) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            match stream(&shared, send, Frames::new(recv, FRAME_BYTES_MAX)).await {
                Err(LinkError::Stream) => Ok(()),
                ended => ended,
            }
        });
    }

    fn tell(&mut self, body: ToFollower) {
        self.out.put(&wire::ToFollower { body: Some(body) });
    }
}

/// Serves a stream for what its first frame says it is.
async fn stream(shared: &Shared, mut send: SendStream, mut frames: Frames) -> Result<(), LinkError> {
    match frames.next::<wire::PeerStreamOpen>().await?.and_then(|open| open.body) {
        Some(Opened::Publish(_)) => lane::serve(&shared.groups, send, frames).await,
        Some(Opened::Request(request)) => {
            let body = match answer(shared, request).await {
                Ok(body) => body,
                Err(why) => Answered::Failure(why.into()),
            };
            send.write_chunk(frame::encode(&wire::PeerResponse { body: Some(body) })).await?;
            // Fails only where the other node has stopped the stream.
            let _ = send.finish();
            Ok(())
        }
        None => Err(Refusal::new(Code::BadFrame, "a stream begins with what it is for").into()),
    }
}

async fn answer(shared: &Shared, request: wire::PeerRequest) -> Result<Answered, Refusal> {
    let groups = &shared.groups;
    let bad = |reason: &str| Refusal::new(Code::BadRequest, reason);
    let user = |name: String| UserId::new(name).map_err(|error| bad(&error.to_string()));
    match request.body {
        Some(Asked::Change(wire::PeerChange { user: name, admin, change })) => {
            let change = change.ok_or_else(|| bad("a change says what to change"))?;
            if !groups.is_home(group_of(&change.group)?) {
                return Err(lane::not_home());
            }
            Ok(Answered::Changed(groups.change(Actor { user: user(name)?, admin }, change).await?))
        }
        Some(Asked::Notice(wire::PeerNotice { user: name, notice })) => {
            let notice = notice.ok_or_else(|| bad("a notice says something"))?;
            let user = user(name)?;
            if !groups.is_home(GroupId::own(&user)) {
                return Err(lane::not_home());
            }
            groups.notify(&user, notice).await?;
            Ok(Answered::Done(wire::Done {}))
        }
        Some(Asked::SignOfLife(_)) => Ok(Answered::Done(wire::Done {})),
        Some(Asked::Events(asked)) => Ok(Answered::Events(shared.events.page(&asked))),
        Some(Asked::Attendance(asked)) => Ok(Answered::Attendance(shared.presence.answer(asked).await?)),
        Some(Asked::Owner(asked)) => {
            let group = group_of(&asked.group)?;
            Ok(Answered::Owner(groups.owner(group, asked.layout, asked.count).await?))
        }
        None => Err(bad("a request says what it wants")),
    }
}

fn group_of(group: &Bytes) -> Result<GroupId, Refusal> {
    GroupId::from_wire(group).map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))
}
