//! The control stream: heartbeats, follows, and what the node has to say about the session.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{SendStream, WriteError};
use shoal_protocol::{Code, GroupId, Refusal, Retry, Seq, frame, wire};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    following::Following,
    framed::{FrameReader, StreamError},
    lock,
    session::{Departure, End, FollowEnd, Session, expiry},
    sleep_until,
};
use crate::Closed;

/// How long the last records of a follow that has ended have to arrive: as long as a connection may be silent.
const LAST_RECORDS_WAIT: Duration = Duration::from_secs(30);
/// The shortest wait before a follow that was refused for now is asked for again.
const FOLLOW_RETRY: Duration = Duration::from_millis(500);
/// How long the node has to take our goodbye.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);

impl Session {
    /// What the node says.
    pub(super) async fn read_control(
        &self,
        mut from_node: FrameReader,
        endings: mpsc::Sender<FollowEnd>,
    ) -> End {
        loop {
            let body = match from_node.next::<wire::ToClient>().await {
                Ok(Some(frame)) => frame.body,
                // The connection's end says why, and comes next.
                Ok(None) => {
                    let error = self.connection.closed().await;
                    return self.ended(StreamError::Connection(error)).await;
                }
                Err(error) => return self.ended(error).await,
            };
            match body {
                Some(wire::to_client::Body::HeartbeatAck(ack)) => {
                    lock(&self.liveness).ack(ack.token, self.shared.now());
                    self.heard.notify_one();
                }
                Some(wire::to_client::Body::Followed(followed)) => self.followed(&followed),
                Some(wire::to_client::Body::FollowEnded(ended)) => {
                    if let Some(end) = self.follow_ended(ended) {
                        // The receiver lives as long as the session.
                        let _ = endings.send(end).await;
                    }
                }
                Some(wire::to_client::Body::Drain(drain)) => {
                    let wire::Drain { nodes, may_stay, .. } = drain;
                    self.leave_for.send_replace(Some(Departure { nodes, may_stay }));
                }
                Some(wire::to_client::Body::Renewed(renewed)) => self.renewed(renewed),
                Some(wire::to_client::Body::Failure(failure)) => return self.refused(failure.into()).await,
                // A second welcome says nothing new; what is empty is of a later version.
                Some(wire::to_client::Body::Welcome(_)) | None => {}
            }
        }
    }

    /// What is to be said to the node: heartbeats, and changes of follows in between.
    pub(super) async fn write_control(&self, mut to_node: SendStream) -> End {
        loop {
            let out = self.due();
            if !out.is_empty()
                && let Err(error) = to_node.write_chunk(out.freeze()).await
            {
                return self.ended(error.into()).await;
            }
            let next_beat = lock(&self.liveness).next_beat();
            tokio::select! {
                biased;
                () = self.shared.closing() => return self.say_goodbye(to_node).await,
                () = self.shared.follows.wake.notified() => {}
                () = sleep_until(next_beat.map(|at| self.shared.instant(at))) => {}
            }
        }
    }

    fn due(&self) -> BytesMut {
        let mut out = BytesMut::new();
        let mut put = |body| frame::encode_into(&wire::ToNode { body: Some(body) }, &mut out);
        self.shared.follows.take_due().into_iter().for_each(&mut put);
        if let Some(token) = lock(&self.renew).take() {
            put(wire::to_node::Body::Renew(wire::Renew { token }));
        }
        let now = self.shared.now();
        let mut liveness = lock(&self.liveness);
        if liveness.next_beat().is_some_and(|at| at <= now) {
            let watermarks = self.shared.follows.moved();
            put(wire::to_node::Body::Heartbeat(wire::Heartbeat { token: liveness.beat(now), watermarks }));
        }
        out
    }

    /// The app is done: the node learns what it took, and forgets the session now rather than
    /// after a timeout.
    async fn say_goodbye(&self, mut to_node: SendStream) -> End {
        let mut out = BytesMut::new();
        let token = lock(&self.liveness).beat(self.shared.now());
        let heartbeat = wire::Heartbeat { token, watermarks: self.shared.follows.moved() };
        for body in
            [wire::to_node::Body::Heartbeat(heartbeat), wire::to_node::Body::Goodbye(wire::Goodbye {})]
        {
            frame::encode_into(&wire::ToNode { body: Some(body) }, &mut out);
        }
        let said = async {
            to_node.write_chunk(out.freeze()).await?;
            // It cannot be finished twice.
            let _ = to_node.finish();
            let _ = to_node.stopped().await;
            Ok::<_, WriteError>(())
        };
        let _ = timeout(GOODBYE_WAIT, said).await;
        End::Closed(Closed::ByApp)
    }

    fn followed(&self, followed: &wire::Followed) {
        let (Ok(group), Some(from)) = (GroupId::from_wire(&followed.group), Seq::new(followed.from)) else {
            return;
        };
        match self.shared.follows.answered(group) {
            Some(following) => following.followed(from),
            None if self.shared.follows.get(group).is_none() => self.shared.follows.tell(group, true),
            None => {}
        }
    }

    /// A follow that has ended, or was refused; none where nobody waits for it any more.
    fn follow_ended(&self, ended: wire::FollowEnded) -> Option<FollowEnd> {
        let group = GroupId::from_wire(&ended.group).ok()?;
        Some((self.shared.follows.answered(group)?, ended))
    }

    fn renewed(&self, renewed: wire::Renewed) {
        self.expires.send_replace(expiry(renewed.token_expires_ms, self.node_now_ms()));
    }

    /// Brings follows that the node ended to their end, each when its last records have come.
    pub(super) async fn end_follows(&self, mut ended: mpsc::Receiver<FollowEnd>) -> End {
        let mut ending = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                end = ended.recv() => match end {
                    Some((following, ended)) => ending.push(self.end_follow(following, ended)),
                    // The reader of the control stream has returned, and with it the session.
                    None => std::future::pending().await,
                },
                Some(()) = ending.next(), if !ending.is_empty() => {}
            }
        }
    }

    async fn end_follow(&self, following: Arc<Following>, ended: wire::FollowEnded) {
        let unsaid = || Refusal::new(Code::Unknown, "the node did not say why");
        let why = ended.why.map_or_else(unsaid, Refusal::from);
        let for_now =
            matches!(why.code.retry(), Retry::Later | Retry::Elsewhere) && why.code != Code::TooMany;
        if for_now {
            let wait = Duration::from_millis(u64::from(why.retry_after_ms)).max(FOLLOW_RETRY);
            sleep(wait.mul_f64(1.0 + self.shared.chance())).await;
            self.shared.follows.ask_again(&following);
            return;
        }
        let turn = following.turn();
        if let Some(next) = Seq::new(ended.next) {
            let _ = timeout(LAST_RECORDS_WAIT, following.received(next)).await;
        }
        following.end_of(turn, why);
    }
}
