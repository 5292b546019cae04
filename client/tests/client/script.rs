//! A node that does what a test tells it to, right or wrong.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;
use quinn::{
    Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig, TokioRuntime, VarInt,
};
use shoal_client::{Client, Code, Config, DeviceId, Follow, GroupId, Seq, Start, wire};
use shoal_protocol::{FrameBuffer, frame};
use tokio::time::timeout;
use wire::{to_client::Body as Told, to_node::Body as Said};

use crate::{
    net::{MemoryTransport, Net},
    world::{Keys, NODE, PATIENCE, START_MS},
};

pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);

/// One or more scripted nodes' network and keys.
pub(crate) struct Stage {
    pub(crate) net: Net,
    pub(crate) keys: Keys,
}

/// A scripted node.
pub(crate) struct Script {
    endpoint: Endpoint,
}

/// Frames of a stream.
pub(crate) struct Frames {
    recv: RecvStream,
    buffer: FrameBuffer,
}

/// A client's connection, after its hello.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) hello: wire::Hello,
    to_client: SendStream,
    from_client: Frames,
}

/// A publish stream.
pub(crate) struct Publishes {
    send: SendStream,
    frames: Frames,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { net: Net::default(), keys: Keys::new() }
    }

    pub(crate) fn node(&self, address: SocketAddr) -> Script {
        let crypto = shoal_certs::quic_server(shoal_certs::server_config(&self.keys.identity, 64));
        let config = ServerConfig::with_crypto(crypto);
        let (socket, runtime) = (self.net.bind(address), Arc::new(TokioRuntime));
        let endpoint =
            Endpoint::new_with_abstract_socket(EndpointConfig::default(), Some(config), socket, runtime);
        Script { endpoint: endpoint.unwrap() }
    }

    pub(crate) fn config(&self, nodes: &[SocketAddr]) -> Config {
        let transport = Arc::new(MemoryTransport::new(&self.net, "10.0.1.1".parse().unwrap()));
        let nodes = nodes.iter().map(ToString::to_string);
        Config::new(nodes, self.keys.tls.clone(), self.keys.token("ada"), DeviceId(7))
            .transport(transport)
            .seed(1)
    }

    /// A client and its connection to a scripted node.
    pub(crate) async fn online(&self) -> (Script, Client, Peer) {
        let node = self.node(NODE);
        let client = Client::start(self.config(&[NODE])).unwrap();
        let peer = node.welcome().await;
        (node, client, peer)
    }
}

impl Script {
    /// The next client, before it is answered.
    pub(crate) async fn accept(&self) -> Peer {
        let connection = loop {
            let incoming = patient(self.endpoint.accept()).await.unwrap();
            // One that was given up meanwhile is none.
            if let Ok(connection) = patient(incoming).await {
                break connection;
            }
        };
        let (to_client, from_client) = patient(connection.accept_bi()).await.unwrap();
        let mut from_client = Frames::new(from_client);
        let said = from_client.next::<wire::ToNode>().await.and_then(|frame| frame.body);
        let Some(Said::Hello(hello)) = said else { panic!("no hello: {said:?}") };
        Peer { connection, hello, to_client, from_client }
    }

    /// The next client, let in.
    pub(crate) async fn welcome(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.welcome(&[]).await;
        peer
    }
}

impl Peer {
    pub(crate) async fn tell(&mut self, body: Told) {
        let frame = frame::encode(&wire::ToClient { body: Some(body) });
        self.to_client.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn tell_bytes(&mut self, bytes: &[u8]) {
        self.to_client.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn welcome(&mut self, nodes: &[SocketAddr]) {
        let session = rand_like(&self.connection);
        self.tell(Told::Welcome(wire::Welcome {
            version: 1,
            session,
            user: "ada".to_owned(),
            limits: None,
            heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).unwrap(),
            nodes: nodes.iter().map(ToString::to_string).collect(),
            incarnation: 1000 + session,
            token_expires_ms: START_MS + 86_400_000,
            time_ms: START_MS,
            own_group: Bytes::new(),
        }))
        .await;
    }

    /// The next thing on the control stream that is no heartbeat; those are answered.
    pub(crate) async fn said(&mut self) -> Said {
        loop {
            match self.said_or_beat().await {
                Some(Said::Heartbeat(heartbeat)) => {
                    let ack = wire::HeartbeatAck { token: heartbeat.token, time_ms: START_MS };
                    self.tell(Told::HeartbeatAck(ack)).await;
                }
                Some(said) => return said,
                None => panic!("the control stream ended"),
            }
        }
    }

    pub(crate) async fn said_or_beat(&mut self) -> Option<Said> {
        self.from_client.next::<wire::ToNode>().await.and_then(|frame| frame.body)
    }

    /// The next follow, and from where.
    pub(crate) async fn asked(&mut self) -> wire::follow::From {
        match self.said().await {
            Said::Follow(follow) => follow.from.unwrap(),
            other => panic!("no follow: {other:?}"),
        }
    }

    pub(crate) async fn followed(&mut self, group: GroupId, from: u64) {
        self.tell(Told::Followed(wire::Followed { group: group.to_wire(), from, tail: from })).await;
    }

    /// A follow has ended, or is refused; `next`: the place after the last record that was sent for it.
    pub(crate) async fn follow_ended(&mut self, group: GroupId, code: Code, next: u64) {
        let why = Some(wire::Failure { code: code as u32, ..Default::default() });
        self.tell(Told::FollowEnded(wire::FollowEnded { group: group.to_wire(), why, next })).await;
    }

    /// A delivery stream that begins at `from`.
    pub(crate) async fn delivery(&self, group: GroupId, from: u64) -> SendStream {
        let mut stream = self.connection.open_uni().await.unwrap();
        let open = wire::DeliveryOpen { group: group.to_wire(), from };
        stream.write_all(&frame::encode(&open)).await.unwrap();
        stream
    }

    pub(crate) async fn publishes(&self) -> Publishes {
        let (send, recv) = patient(self.connection.accept_bi()).await.unwrap();
        let mut frames = Frames::new(recv);
        let open = frames.next::<wire::StreamOpen>().await.and_then(|open| open.body);
        assert!(matches!(open, Some(wire::stream_open::Body::Publish(_))), "{open:?}");
        Publishes { send, frames }
    }

    /// The next request stream, to answer on.
    pub(crate) async fn request(&self) -> (wire::request::Body, SendStream) {
        let (send, recv) = patient(self.connection.accept_bi()).await.unwrap();
        let open = Frames::new(recv).next::<wire::StreamOpen>().await.and_then(|open| open.body);
        let Some(wire::stream_open::Body::Request(request)) = open else { panic!("{open:?}") };
        (request.body.unwrap(), send)
    }

    pub(crate) fn close(&self, code: Code) {
        self.connection.close(VarInt::from_u32(code as u32), b"as the script says");
    }
}

pub(crate) async fn answer(stream: &mut SendStream, body: wire::response::Body) {
    stream.write_all(&frame::encode(&wire::Response { body: Some(body) })).await.unwrap();
    stream.finish().unwrap();
}

/// Writes records with these places.
pub(crate) async fn deliver(stream: &mut SendStream, places: &[u64]) {
    for seq in places {
        let message = wire::Message { payload: Bytes::from(format!("{seq}")), ..Default::default() };
        let body = Some(wire::record::Body::Message(message));
        let record = wire::Record { seq: *seq, body, ..Default::default() };
        stream.write_all(shoal_protocol::RecordFrame::encode(&record).frame()).await.unwrap();
    }
}

impl Publishes {
    /// The next publish: incarnation, number and text.
    pub(crate) async fn next(&mut self) -> (u64, u64, String) {
        let publish: wire::Publish = self.frames.next().await.expect("a publish comes");
        let payload = publish.message.unwrap().payload;
        (publish.incarnation, publish.number, String::from_utf8(payload.to_vec()).unwrap())
    }

    /// Nothing comes for a while.
    pub(crate) async fn quiet(&mut self, wait: Duration) {
        let next = timeout(wait, self.frames.read::<wire::Publish>()).await;
        assert!(next.is_err(), "{next:?}");
    }

    pub(crate) async fn receipt(
        &mut self,
        group: GroupId,
        place: (u64, u64),
        outcome: wire::receipt::Outcome,
    ) {
        let (incarnation, number) = place;
        let receipt = wire::Receipt { group: group.to_wire(), incarnation, number, outcome: Some(outcome) };
        self.send.write_all(&frame::encode(&receipt)).await.unwrap();
    }
}

pub(crate) fn committed(seq: u64) -> wire::receipt::Outcome {
    wire::receipt::Outcome::Committed(wire::Committed { seq })
}

pub(crate) fn refused(code: Code, retry_after_ms: u32) -> wire::receipt::Outcome {
    let why = Some(wire::Failure { code: code as u32, reason: String::new(), retry_after_ms });
    wire::receipt::Outcome::Refused(wire::Refused { why, consumed: false, succeeded_by: 0 })
}

impl Frames {
    fn new(recv: RecvStream) -> Self {
        Self { recv, buffer: FrameBuffer::new(1 << 20) }
    }

    /// The next frame; none at the end of the stream or connection.
    async fn next<M: Message + Default>(&mut self) -> Option<M> {
        patient(self.read()).await
    }

    async fn read<M: Message + Default>(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.buffer.next_message().unwrap() {
                return Some(message);
            }
            let chunk = self.recv.read_chunk(usize::MAX, true).await.ok().flatten()?;
            self.buffer.push(chunk.bytes);
        }
    }
}

pub(crate) async fn patient<F: IntoFuture>(future: F) -> F::Output {
    timeout(PATIENCE, future.into_future()).await.expect("it comes in time")
}

/// A number that differs from session to session.
fn rand_like(connection: &Connection) -> u64 {
    connection.stable_id() as u64
}

/// The group of these tests.
pub(crate) fn group() -> GroupId {
    GroupId::named("test")
}

pub(crate) fn other_node() -> SocketAddr {
    "10.0.0.2:4433".parse().unwrap()
}

pub(crate) fn watermark(number: u64) -> wire::follow::From {
    wire::follow::From::Watermark(number)
}

/// A follow from a watermark that the node has taken.
pub(crate) async fn follow(client: &Client, peer: &mut Peer, from: u64) -> Follow {
    let start = Start::Watermark(Seq::new(from).unwrap());
    let node = async {
        assert_eq!(peer.asked().await, watermark(from));
        peer.followed(group(), from).await;
    };
    let (follow, ()) = tokio::join!(client.follow(group(), start), node);
    follow.unwrap()
}
