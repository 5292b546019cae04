//! A node's link to another: it dials, follows groups, carries messages and requests, and is dialled
//! again when it is lost.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{Connection, RecvStream};
use shoal_protocol::{Code, GroupId, Refusal, VERSION, VERSION_MIN, frame, frame::FRAME_BYTES_MAX, wire};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use wire::{to_follower::Body as ToFollower, to_home::Body as ToHome};

use super::{
    BEAT, CONNECT_MAX, SILENCE,
    dial::Dialer,
    feeds::{FeedSender, Feeds},
    framed::{Frames, LinkError},
    hints::{self, Hints},
    lane::{Lane, busy},
    outbox::Outbox,
    waiting::Waiting,
};
use crate::{
    coordination::NodeName,
    delivery::Tail,
    group::Passage,
    pace::Pace,
    presence::{self, Audience},
};

/// Publish lanes of a link: a lost packet holds up one of them.
const LANES: usize = 4;

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(200);

/// Lanes, feeds and requests under way; more requests are answered `Busy`.
const TASKS_MAX: usize = 4096;

/// How long an answer to a request may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What a link is asked for.
pub(super) enum Command {
    Publish(Passage),
    Request(wire::PeerRequest, oneshot::Sender<Answer>),
    Follow { tail: Arc<Tail>, to: FeedSender },
}

pub(super) type Answer = Result<wire::peer_response::Body, Refusal>;

impl Command {
    /// The node is not reached. A feed ends with its sender.
    pub(super) fn refuse(self) {
        match self {
            Self::Publish(passage) => passage.go_astray(),
            // Whoever does not wait any more does not need it.
            Self::Request(_, to) => drop(to.send(Err(busy()))),
            Self::Follow { .. } => {}
        }
    }
}

/// Keeps a link to one node for as long as anybody has its handle: dialled when something is asked
/// for, so that one that has gone for good is left alone.
pub(super) async fn run(
    dialer: Arc<Dialer>,
    node: NodeName,
    mut commands: mpsc::Receiver<Command>,
    hints: Arc<Hints>,
    behind: Arc<AtomicU64>,
) {
    let mut waiting = Waiting::default();
    while let Some(command) = commands.recv().await {
        waiting.push(command);
        while waiting.is_needed() {
            let reached = tokio::select! {
                biased;
                reached = timeout(CONNECT_MAX, connect(&dialer, &node, &behind)) => reached,
                () = waiting.take(&mut commands) => return,
            };
            let error = match reached.unwrap_or(Err(LinkError::Silent(CONNECT_MAX))) {
                Ok(mut link) => {
                    hints.set(Some(link.connection.clone()));
                    waiting.drain().for_each(|command| link.obey(command));
                    let served = link.serve(&mut commands).await;
                    hints.set(None);
                    behind.store(0, Relaxed);
                    match served {
                        Ok(()) => return,
                        Err(error) => link.close(error),
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(node = node.0, %error, "no link");
            waiting.give_up();
            tokio::select! {
                biased;
                () = sleep(RETRY) => {}
                () = waiting.take(&mut commands) => return,
            }
        }
    }
}

async fn connect(dialer: &Arc<Dialer>, node: &NodeName, behind: &Arc<AtomicU64>) -> Result<Link, LinkError> {
    let connection = dialer.dial(node).await?;
    let (send, recv) = connection.open_bi().await?;
    let (mut out, mut frames) = (Outbox::new(send), Frames::new(recv, FRAME_BYTES_MAX));
    let hello = wire::PeerHello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        node: dialer.me.0.clone(),
        cluster: dialer.cluster.clone(),
    };
    out.put(&wire::ToHome { body: Some(ToHome::Hello(hello)) });
    out.flush().await?;
    let welcome = frames.next::<wire::ToFollower>().await?.and_then(|frame| frame.body);
    match welcome {
        Some(ToFollower::Welcome(welcome)) if welcome.node == node.0 => {
            Ok(Link::new(Arc::clone(dialer), Arc::clone(behind), connection, out, frames))
        }
        Some(ToFollower::Welcome(welcome)) => {
            let reason = format!("{} answers where {} should", welcome.node, node.0);
            Err(Refusal::new(Code::BadRequest, reason).into())
        }
        _ => Err(Refusal::new(Code::BadFrame, "the first frame is a welcome").into()),
    }
}

/// A connection whose other end has said welcome.
struct Link {
    dialer: Arc<Dialer>,
    /// The most records of one group that the home has and has not sent.
    behind: Arc<AtomicU64>,
    connection: Connection,
    out: Outbox,
    frames: Frames,
    feeds: Arc<Feeds>,
    lanes: [Lane; LANES],
    /// Its lanes and streams; they end with it.
    tasks: JoinSet<Result<(), LinkError>>,
    heard: Instant,
    /// How fast the other node's datagrams are taken.
    hint_pace: Pace,
}

impl Link {
    fn new(
        dialer: Arc<Dialer>,
        behind: Arc<AtomicU64>,
        connection: Connection,
        out: Outbox,
        frames: Frames,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let lanes = array::from_fn(|_| {
            let (lane, sending) = Lane::new();
            tasks.spawn(sending.run(connection.clone()));
            lane
        });
        let hint_pace = hints::pace(&dialer.limits);
        Self {
            dialer,
            behind,
            connection,
            out,
            frames,
            feeds: Arc::default(),
            lanes,
            tasks,
            heard: Instant::now(),
            hint_pace,
        }
    }

    /// Serves until nobody has a handle any more, or the link is lost.
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<(), LinkError> {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.out.has_room();
            tokio::select! {
                biased;
                frame = self.frames.next::<wire::ToFollower>() => self.take(frame?.ok_or(LinkError::Stream)?),
                _ = beats.tick() => self.beat()?,
                wrote = self.out.write(), if !self.out.is_empty() => wrote?,
                stream = self.connection.accept_uni() => self.read(stream?),
                command = commands.recv(), if has_room => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next() => ended.unwrap_or(Err(LinkError::Stream))?,
                datagram = self.connection.read_datagram() => self.hand_down(&datagram?)?,
            }
        }
    }

    /// Tells the other end why.
    fn close(self, why: LinkError) -> LinkError {
        self.connection.close(why.wire_code(), why.to_string().as_bytes());
        why
    }

    fn take(&mut self, frame: wire::ToFollower) {
        self.heard = Instant::now();
        match frame.body {
            Some(ToFollower::Beat(beat)) => self.behind.store(beat.behind, Relaxed),
            Some(ToFollower::FollowEnded(ended)) => {
                if let Ok(group) = GroupId::from_wire(&ended.group) {
                    self.feeds.remove(group);
                }
            }
            _ => {}
        }
    }

    fn beat(&mut self) -> Result<(), LinkError> {
        if self.heard.elapsed() > SILENCE {
            return Err(LinkError::Silent(SILENCE));
        }
        self.tell(ToHome::Beat(wire::Beat::default()));
        for group in self.feeds.sweep() {
            self.tell(ToHome::Unfollow(wire::Unfollow { group: group.to_wire() }));
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish(passage) => {
                let lane = passage.publish.group.stable_hash() % LANES as u64;
                self.lanes[lane as usize].publish(passage);
            }
            request @ Command::Request(..) if self.tasks.len() >= TASKS_MAX => request.refuse(),
            Command::Request(request, to) => {
                drop(self.tasks.spawn(ask(self.connection.clone(), request, to)))
            }
            Command::Follow { tail, to } => {
                self.feeds.put(&tail, to);
                let from = Some(wire::follow::From::Watermark(tail.tail().get()));
                self.tell(ToHome::Follow(wire::Follow { group: tail.group().to_wire(), from }));
            }
        }
    }

    /// A datagram from a home, for the sessions here.
    fn hand_down(&self, datagram: &Bytes) -> Result<(), Refusal> {
        let metrics = &self.dialer.metrics;
        metrics.peer_datagrams_received.inc();
        let group = presence::read(datagram)?.filter(|_| self.hint_pace.check().is_ok());
        let Some(tail) = group.and_then(|group| self.feeds.tail(group)) else {
            metrics.peer_datagrams_dropped.inc();
            return Ok(());
        };
        let sessions_max = self.dialer.limits.load().signal_sessions_max;
        presence::pass_on(&tail, datagram, None, Audience::Sessions, sessions_max, metrics);
        Ok(())
    }

    fn read(&mut self, stream: RecvStream) {
        let feeds = Arc::clone(&self.feeds);
        self.tasks.spawn(async move {
            match feeds.read(stream).await {
                // The home has finished with this stream, or begun the group anew.
                Ok(()) | Err(LinkError::Stream) => Ok(()),
                Err(error) => Err(error),
            }
        });
    }

    fn tell(&mut self, body: ToHome) {
        self.out.put(&wire::ToHome { body: Some(body) });
    }
}

/// One request, one answer, on a stream of their own.
async fn ask(
    connection: Connection,
    request: wire::PeerRequest,
    to: oneshot::Sender<Answer>,
) -> Result<(), LinkError> {
    let answer = async {
        let (mut send, recv) = connection.open_bi().await?;
        let body = Some(wire::peer_stream_open::Body::Request(request));
        send.write_chunk(frame::encode(&wire::PeerStreamOpen { body })).await?;
        // Fails only where the stream has ended already, and then no answer comes.
        let _ = send.finish();
        let response = Frames::new(recv, FRAME_BYTES_MAX).next::<wire::PeerResponse>().await?;
        response.and_then(|response| response.body).ok_or(LinkError::Stream)
    };
    let answer = match timeout(ANSWER_MAX, answer).await {
        Ok(Ok(wire::peer_response::Body::Failure(failure))) => Err(Refusal::from(failure)),
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(Refusal::new(Code::Busy, error.to_string())),
        Err(_) => Err(Refusal::new(Code::Busy, "the group's home did not answer in time")),
    };
    // Whoever does not wait any more does not need it.
    drop(to.send(answer));
    Ok(())
}
