//! A session's control stream, and all else its own task looks after.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use bytes::{Buf, BytesMut};
use quinn::{Chunk, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use shoal_protocol::{Code, FrameBuffer, GroupId, Refusal, Seq, frame, wire};
use tokio::{
    task::{JoinError, JoinSet, consume_budget},
    time::{Duration, Instant, Sleep, sleep_until},
};
use wire::{to_client::Body as ToClient, to_node::Body as ToNode};

use super::{
    Shared, datagrams,
    follows::{Follows, Outcome, bad_id, parse},
    handshake::Handshake,
    hello::{CHUNK_BYTES_MAX, Greeting, NoSession, check_token},
    registry::Registered,
    session::{Order, Session},
    stream,
    violation::Violation,
};
use crate::{config::AccessLimits, delivery::Ended, group::From, pace::Pace};

/// Control frames that the client has not taken; above, nothing is read that would add to them.
const OUT_BYTES_MAX: usize = 64 << 10;

/// The control stream goes before what is delivered.
const PRIORITY: i32 = 1;

/// How a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The connection is gone.
    Lost(ConnectionError),
    /// The node closes it.
    Closed(Refusal),
}

impl std::convert::From<Refusal> for End {
    fn from(why: Refusal) -> Self {
        Self::Closed(why)
    }
}

impl std::convert::From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error)
    }
}

impl std::convert::From<End> for NoSession {
    fn from(end: End) -> Self {
        match end {
            End::Lost(error) => Self::Lost(error),
            End::Closed(why) => Self::Refused(why),
        }
    }
}

/// What a session's task waits for.
enum Event {
    Ordered,
    Timer,
    Wrote(Result<usize, WriteError>),
    Followed(Option<Outcome>),
    FollowsEnded,
    Read(Result<Option<Chunk>, ReadError>),
    Stream(Result<(SendStream, RecvStream), ConnectionError>),
    Datagram(Result<bytes::Bytes, ConnectionError>),
    TaskEnded(Result<(), JoinError>),
}

/// See the module.
pub(super) struct Control {
    shared: Arc<Shared>,
    session: Arc<Session>,
    send: SendStream,
    recv: RecvStream,
    frames: FrameBuffer,
    /// Frames for the client, not yet written.
    out: BytesMut,
    follows: Option<Box<Follows>>,
    /// Its deliveries and its streams; they end with it.
    tasks: JoinSet<()>,
    timer: Pin<Box<Sleep>>,
    /// How often the client was asked to send a heartbeat.
    heartbeat: Duration,
    /// When one came last.
    heard: Instant,
    /// Where the client was then.
    address: SocketAddr,
    /// Groups that it may follow, as it was told.
    follows_max: usize,
    expires_ms: u64,
    /// When it is closed, since the client was told to leave.
    leave_by: Option<Instant>,
    signal_pace: Pace,
    /// A frame that came too fast, and when it is due.
    parked: Option<Box<(wire::ToNode, Instant)>>,
}

impl Control {
    pub(super) fn new(
        shared: Arc<Shared>,
        session: Arc<Session>,
        greeting: Greeting,
        welcome: &wire::Welcome,
    ) -> Self {
        let Greeting { send, recv, frames, identity, .. } = greeting;
        // Fails only where the stream has ended already, and then the first write says so.
        let _ = send.set_priority(PRIORITY);
        let mut control = Self {
            signal_pace: Pace::new(&shared.limits, AccessLimits::signal_rate),
            shared,
            send,
            recv,
            frames,
            out: BytesMut::new(),
            follows: None,
            tasks: JoinSet::new(),
            timer: Box::pin(sleep_until(Instant::now())),
            heartbeat: Duration::from_millis(welcome.heartbeat_ms.into()),
            heard: Instant::now(),
            address: session.connection().remote_address(),
            session,
            follows_max: welcome.limits.map_or(0, |limits| limits.follows_max as usize),
            expires_ms: identity.claims.expires_ms,
            leave_by: None,
            parked: None,
        };
        let session = Arc::clone(&control.session);
        control.tasks.spawn(async move {
            session.deliveries().run().await;
        });
        control.arm_timer();
        control
    }

    /// Serves a client whose hello came in early data, until its handshake is done: the client is who it was then.
    ///
    /// Until there, all that comes may be said for the second time. That harms neither messages, which have their
    /// numbers, nor watermarks, which only rise. Requests are refused where they come in ([`stream`]), and datagrams
    /// are left out: nobody begins to type twice.
    pub(super) async fn run_early(&mut self, handshake: &mut Handshake) -> Result<(), NoSession> {
        loop {
            consume_budget().await;
            let event = tokio::select! {
                biased;
                () = handshake.ended() => break,
                event = self.next() => event,
            };
            match event {
                Event::Datagram(Ok(_)) => {}
                event => self.handle(event).await?,
            }
        }
        // It ends with a connection that is lost before, too.
        match self.session.connection().close_reason() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Serves until the session ends.
    pub(super) async fn run(mut self) -> End {
        loop {
            consume_budget().await;
            let event = self.next().await;
            if let Err(end) = self.handle(event).await {
                return end;
            }
        }
    }

    /// Puts a frame on its way to the client.
    pub(super) fn tell(&mut self, body: ToClient) {
        frame::encode_into(&wire::ToClient { body: Some(body) }, &mut self.out);
    }

    /// Sends a follow on its way to its group.
    pub(super) fn follow(&mut self, group: GroupId, from: From) {
        self.session.deliveries().remove(group);
        self.follows.get_or_insert_default().add(group, from, &self.shared, &self.session);
    }

    /// Puts a notice into the user's own sequence.
    pub(super) fn notify(&mut self, notice: wire::Notice) {
        let (groups, session) = (self.shared.groups.clone(), Arc::clone(&self.session));
        self.tasks.spawn(async move {
            if let Err(error) = groups.notify(session.user(), notice).await {
                tracing::warn!(user = %session.user(), %error, "a notice was not written");
            }
        });
    }

    async fn next(&mut self) -> Event {
        let Self { shared, session, send, recv, out, follows, tasks, timer, parked, .. } = self;
        let has_room = out.len() < OUT_BYTES_MAX;
        let follow = async {
            match follows {
                Some(follows) => follows.next(shared, session).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = session.ordered() => Event::Ordered,
            () = timer.as_mut() => Event::Timer,
            wrote = send.write(out), if !out.is_empty() => Event::Wrote(wrote),
            outcome = follow, if has_room => Event::Followed(outcome),
            () = session.deliveries().ended(), if has_room => Event::FollowsEnded,
            read = recv.read_chunk(CHUNK_BYTES_MAX, true), if has_room && parked.is_none() => Event::Read(read),
            stream = session.connection().accept_bi() => Event::Stream(stream),
            datagram = session.connection().read_datagram() => Event::Datagram(datagram),
            Some(ended) = tasks.join_next() => Event::TaskEnded(ended),
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Ordered => self.obey(),
            Event::Timer => self.look_at_the_clock().await,
            Event::Wrote(wrote) => self.wrote(wrote).await,
            Event::Followed(outcome) => {
                self.tell_followed(outcome);
                Ok(())
            }
            Event::FollowsEnded => {
                self.tell_ended();
                Ok(())
            }
            Event::Read(read) => self.read(read).await,
            Event::Stream(stream) => {
                let (send, recv) = stream?;
                let (shared, session) = (Arc::clone(&self.shared), Arc::clone(&self.session));
                self.tasks.spawn(stream::serve(shared, session, send, recv));
                Ok(())
            }
            Event::Datagram(datagram) => {
                let finding_out =
                    datagrams::forward(&self.shared, &self.session, &self.signal_pace, datagram?);
                if let Some(finding_out) = finding_out {
                    self.tasks.spawn(finding_out);
                }
                Ok(())
            }
            Event::TaskEnded(ended) => ended.map_err(|error| {
                tracing::error!(user = %self.session.user(), %error, "a task of a session panicked");
                Refusal::new(Code::Internal, "the node failed").into()
            }),
        }
    }

    fn obey(&mut self) -> Result<(), End> {
        if self.session.take_order(Order::Replaced) {
            return Err(Refusal::new(Code::SessionReplaced, "the device has opened another session").into());
        }
        if self.session.take_order(Order::Drain) {
            let grace = self.shared.grace();
            let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
            let nodes = self.shared.elsewhere(self.session.region());
            self.tell(ToClient::Drain(wire::Drain { nodes, grace_ms, may_stay: false }));
            self.leave_by = Some(Instant::now() + grace);
            self.arm_timer();
        }
        if self.session.take_order(Order::Stay) {
            self.leave_by = None;
        }
        if self.session.take_order(Order::Offer) && self.leave_by.is_none() {
            self.offer();
        }
        Ok(())
    }

    /// Tells the client where it is better off, if it still is.
    fn offer(&mut self) {
        let nodes = self.shared.better_for(&self.session);
        if !nodes.is_empty() {
            self.tell(ToClient::Drain(wire::Drain { nodes, grace_ms: 0, may_stay: true }));
            self.session.offered(self.shared.started.elapsed());
            self.shared.metrics.sessions_offered.inc();
        }
    }

    async fn look_at_the_clock(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.shared.clock.now_ms() >= self.expires_ms {
            return Err(Refusal::new(Code::TokenExpired, "the token has expired").into());
        }
        if self.leave_by.is_some_and(|leave_by| now >= leave_by) {
            return Err(Refusal::new(Code::Draining, "the node is going").into());
        }
        if now >= self.silent_at() {
            return Err(Refusal::new(Code::TimedOut, "no heartbeat came in time").into());
        }
        if let Some((message, _)) = self.parked.take_if(|parked| now >= parked.1).map(|parked| *parked) {
            self.take_paced(message).await?;
            self.take_frames().await?;
        }
        self.arm_timer();
        Ok(())
    }

    /// Sets the timer to whatever must be looked at first.
    fn arm_timer(&mut self) {
        let token_ms = self.expires_ms.saturating_sub(self.shared.clock.now_ms());
        // The wall clock may be set: it is looked at again before long.
        let expires = Instant::now() + Duration::from_millis(token_ms.min(3_600_000));
        let parked = self.parked.as_ref().map(|parked| parked.1);
        let first =
            [Some(self.silent_at()), Some(expires), self.leave_by, parked].into_iter().flatten().min();
        self.timer.as_mut().reset(first.expect("two of them are there"));
    }

    fn silent_at(&self) -> Instant {
        self.heard + self.shared.limits.load().heartbeat_silence(self.heartbeat)
    }

    async fn wrote(&mut self, wrote: Result<usize, WriteError>) -> Result<(), End> {
        let written = wrote.map_err(|error| match error {
            WriteError::ConnectionLost(lost) => End::Lost(lost),
            _ => Refusal::new(Code::BadFrame, "the control stream was stopped").into(),
        })?;
        self.out.advance(written);
        if self.out.is_empty() {
            // An idle session keeps no buffer.
            self.out = BytesMut::new();
        }
        self.take_frames().await
    }

    async fn read(&mut self, read: Result<Option<Chunk>, ReadError>) -> Result<(), End> {
        let chunk = read.map_err(|error| match error {
            ReadError::ConnectionLost(lost) => End::Lost(lost),
            _ => Refusal::new(Code::BadFrame, "the control stream was reset").into(),
        })?;
        let Some(chunk) = chunk else {
            self.frames.finish().map_err(|error| Violation::from(error).refusal())?;
            return Err(Refusal::new(Code::None, "goodbye").into());
        };
        self.frames.push(chunk.bytes);
        self.take_frames().await
    }

    /// Takes the frames that have come, as fast as the session may send them.
    async fn take_frames(&mut self) -> Result<(), End> {
        while self.parked.is_none() && self.out.len() < OUT_BYTES_MAX {
            let message = self.frames.next_message().map_err(|error| Violation::from(error).refusal())?;
            let Some(message) = message else { return Ok(()) };
            self.take_paced(message).await?;
        }
        Ok(())
    }

    async fn take_paced(&mut self, message: wire::ToNode) -> Result<(), End> {
        match self.session.request_pace.check() {
            Ok(()) => self.take(message).await,
            Err(until) => {
                self.parked = Some(Box::new((message, until)));
                self.arm_timer();
                Ok(())
            }
        }
    }

    async fn take(&mut self, message: wire::ToNode) -> Result<(), End> {
        match message.body {
            Some(ToNode::Heartbeat(heartbeat)) => self.take_heartbeat(heartbeat).await?,
            Some(ToNode::Follow(follow)) => self.take_follow(&follow)?,
            Some(ToNode::Unfollow(unfollow)) => self.take_unfollow(&unfollow)?,
            Some(ToNode::Renew(renew)) => self.take_renewal(&renew)?,
            Some(ToNode::Goodbye(_)) => return Err(Refusal::new(Code::None, "goodbye").into()),
            Some(ToNode::Hello(_)) => return Err(Refusal::new(Code::BadFrame, "a second hello").into()),
            None => return Err(Refusal::new(Code::BadFrame, "an empty frame").into()),
        }
        Ok(())
    }

    /// QUIC follows a client to another address without a word: it is seen at the next heartbeat.
    fn note_path(&mut self) {
        let address = self.session.connection().remote_address();
        if address != self.address {
            self.address = address;
            self.shared.metrics.path_changes.inc();
        }
    }

    async fn take_heartbeat(&mut self, heartbeat: wire::Heartbeat) -> Result<(), Refusal> {
        self.heard = Instant::now();
        self.note_path();
        let time_ms = self.shared.clock.now_ms();
        self.tell(ToClient::HeartbeatAck(wire::HeartbeatAck { token: heartbeat.token, time_ms }));
        for wire::Watermark { group, watermark } in &heartbeat.watermarks {
            let group = GroupId::from_wire(group).map_err(bad_id)?;
            let watermark =
                Seq::new(*watermark).ok_or_else(|| Refusal::new(Code::BadRequest, "no Seq is 0"))?;
            // Above what was written to it, it speaks of a follow that it has begun anew since.
            if self.session.deliveries().watermark(group).is_some_and(|written| watermark <= written) {
                self.shared.delivered.raise(self.session.user(), group, watermark).await;
            }
        }
        self.session.deliveries().sweep();
        Ok(())
    }

    fn take_follow(&mut self, follow: &wire::Follow) -> Result<(), Refusal> {
        let (group, from) = parse(follow)?;
        let pending = self.follows.as_ref().map_or(0, |follows| follows.len());
        if self.session.deliveries().len() + pending >= self.follows_max {
            return Err(Refusal::new(Code::TooMany, "more follows than a session may have"));
        }
        self.follow(group, from);
        Ok(())
    }

    fn take_unfollow(&mut self, unfollow: &wire::Unfollow) -> Result<(), Refusal> {
        let group = GroupId::from_wire(&unfollow.group).map_err(bad_id)?;
        if let Some(follows) = &mut self.follows {
            follows.cancel(group);
        }
        self.session.deliveries().remove(group);
        Ok(())
    }

    fn take_renewal(&mut self, renew: &wire::Renew) -> Result<(), Refusal> {
        let now_ms = self.shared.clock.now_ms();
        let claims = check_token(&renew.token, self.session.device(), &self.shared.tokens, now_ms)?;
        if claims.user != *self.session.user() {
            return Err(Refusal::new(Code::TokenInvalid, "the token is another user's"));
        }
        self.session.set_admin(claims.admin);
        self.expires_ms = claims.expires_ms;
        self.arm_timer();
        self.tell(ToClient::Renewed(wire::Renewed { token_expires_ms: claims.expires_ms }));
        Ok(())
    }

    fn tell_followed(&mut self, outcome: Option<Outcome>) {
        if self.follows.as_ref().is_some_and(|follows| follows.is_done()) {
            self.follows = None;
            self.session.deliveries().shrink();
        }
        let Some((group, followed)) = outcome else { return };
        let group = group.to_wire();
        self.tell(match followed {
            Ok(followed) => {
                let (from, tail) = (followed.from.get(), followed.at.get());
                ToClient::Followed(wire::Followed { group, from, tail })
            }
            Err(why) => ToClient::FollowEnded(wire::FollowEnded { group, why: Some(why.into()), next: 0 }),
        });
    }

    fn tell_ended(&mut self) {
        for Ended { group, next, why } in self.session.deliveries().take_ended() {
            let why = Some(Refusal::new(why, "the follow has ended").into());
            let ended = wire::FollowEnded { group: group.to_wire(), why, next: next.get() };
            self.tell(ToClient::FollowEnded(ended));
        }
    }
}
