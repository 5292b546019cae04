//! A client, frame by frame.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use prost::Message;
use quinn::{
    Connecting, ConnectionError, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime,
    TransportConfig, VarInt,
};
use shoal_protocol::{ALPN, Code, FrameBuffer, GroupId, frame, wire};
use tokio::time::timeout;
use wire::{
    receipt::Outcome, request::Body as Ask, response::Body as Answer, to_client::Body as Told,
    to_node::Body as Say,
};

use super::world::{PATIENCE, World};

/// The receiving half of a stream, as frames.
pub(super) struct Frames {
    pub(super) recv: RecvStream,
    buffer: FrameBuffer,
}

impl Frames {
    pub(super) fn new(recv: RecvStream) -> Self {
        Self { recv, buffer: FrameBuffer::new(16 << 20) }
    }

    /// The next frame; none at the end of the stream.
    pub(super) async fn try_next<M: Message + Default>(&mut self) -> Result<Option<M>, quinn::ReadError> {
        loop {
            if let Some(message) = self.buffer.next_message().expect("the node sends good frames") {
                return Ok(Some(message));
            }
            let read = self.recv.read_chunk(usize::MAX, true);
            match timeout(PATIENCE, read).await.expect("a frame or an end comes in time")? {
                Some(chunk) => self.buffer.push(chunk.bytes),
                None => {
                    self.buffer.finish().expect("a stream does not end inside a frame");
                    return Ok(None);
                }
            }
        }
    }

    pub(super) async fn next<M: Message + Default>(&mut self) -> M {
        self.try_next().await.expect("the stream goes on").expect("another frame comes")
    }

    /// The code with which the node resets the stream.
    pub(super) async fn reset_code(&mut self) -> Code {
        loop {
            match timeout(PATIENCE, self.recv.read_chunk(usize::MAX, true))
                .await
                .expect("the stream ends in time")
            {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream was finished, not reset"),
                Err(quinn::ReadError::Reset(code)) => return code_of(code),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The first Seq after the records of a group's creation: its members and its settings.
pub(super) const CREATED: u64 = 3;

/// How a client connects.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) alpn: Vec<u8>,
    pub(super) transport: Arc<TransportConfig>,
}

impl Default for Dial {
    fn default() -> Self {
        Self { alpn: ALPN.to_vec(), transport: Arc::new(TransportConfig::default()) }
    }
}

impl Dial {
    pub(super) fn transport(change: impl FnOnce(&mut TransportConfig)) -> Self {
        let mut transport = TransportConfig::default();
        change(&mut transport);
        Self { transport: Arc::new(transport), ..Self::default() }
    }
}

/// A socket of its own.
pub(super) fn endpoint() -> Endpoint {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).unwrap()
}

/// Begins a handshake with whoever is at an address.
pub(super) fn connect(world: &World, endpoint: &Endpoint, to: SocketAddr, dial: &Dial) -> Connecting {
    let roots = shoal_certs::roots_from_pem(&world.ca_pem).unwrap();
    let mut tls = shoal_certs::client_config(roots);
    tls.alpn_protocols = vec![dial.alpn.clone()];
    let mut config = quinn::ClientConfig::new(shoal_certs::quic_client(tls));
    config.transport_config(dial.transport.clone());
    endpoint.connect_with(config, to, "127.0.0.1").unwrap()
}

/// A connection that has not said hello.
pub(super) async fn dial(
    world: &World,
    dial: &Dial,
) -> Result<(Endpoint, quinn::Connection), ConnectionError> {
    let endpoint = endpoint();
    let connecting = connect(world, &endpoint, world.address, dial);
    let connection = timeout(PATIENCE, connecting).await.expect("a handshake ends in time")?;
    Ok((endpoint, connection))
}

/// The code with which the node closes a connection.
pub(super) async fn close_code(connection: &quinn::Connection) -> Code {
    match timeout(PATIENCE, connection.closed()).await.expect("the connection is closed in time") {
        ConnectionError::ApplicationClosed(close) => code_of(close.error_code),
        error => panic!("{error}"),
    }
}

fn code_of(code: VarInt) -> Code {
    Code::from_wire(u32::try_from(code.into_inner()).unwrap())
}

/// A hello that is good.
pub(super) fn hello(token: String, device: u64) -> wire::Hello {
    wire::Hello { version_min: 1, version_max: 1, token, device, agent: "test".into(), ..Default::default() }
}

pub(super) fn say(body: Say) -> Bytes {
    frame::encode(&wire::ToNode { body: Some(body) })
}

/// A client with a session.
pub(super) struct Client {
    pub(super) connection: quinn::Connection,
    pub(super) send: SendStream,
    pub(super) control: Frames,
    pub(super) welcome: wire::Welcome,
    /// Closing it would take the connection with it.
    pub(super) endpoint: Endpoint,
}

impl Client {
    pub(super) async fn connect(world: &World, user: &str, device: u64) -> Self {
        Self::connect_with(world, hello(world.token(user), device), &Dial::default()).await
    }

    pub(super) async fn connect_with(world: &World, hello: wire::Hello, how: &Dial) -> Self {
        let (endpoint, connection) = dial(world, how).await.unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&say(Say::Hello(hello))).await.unwrap();
        let mut control = Frames::new(recv);
        let told = control.next::<wire::ToClient>().await.body;
        let Some(Told::Welcome(welcome)) = told else { panic!("{told:?}") };
        Self { connection, send, control, welcome, endpoint }
    }

    pub(super) async fn say(&mut self, body: Say) {
        self.send.write_all(&say(body)).await.unwrap();
    }

    pub(super) async fn told(&mut self) -> Told {
        self.control.next::<wire::ToClient>().await.body.expect("a frame says something")
    }

    pub(super) async fn ask(&self, body: Ask) -> Answer {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        let open = wire::stream_open::Body::Request(wire::Request { body: Some(body) });
        send.write_all(&frame::encode(&wire::StreamOpen { body: Some(open) })).await.unwrap();
        send.finish().unwrap();
        let mut frames = Frames::new(recv);
        let response = frames.next::<wire::Response>().await;
        assert!(frames.try_next::<wire::Response>().await.unwrap().is_none(), "one answer");
        response.body.expect("an answer says something")
    }

    /// Carries out a change.
    pub(super) async fn change(&self, group: GroupId, body: wire::change::Body) -> wire::Changed {
        let change = wire::Change { group: group.to_wire(), body: Some(body) };
        match self.ask(Ask::Change(change)).await {
            Answer::Changed(changed) => changed,
            answer => panic!("{answer:?}"),
        }
    }

    /// Creates a group with these members besides oneself.
    pub(super) async fn create(&self, group: GroupId, members: &[&str]) {
        let members = members.iter().map(|&member| member.to_owned()).collect();
        let settings = Some(wire::Settings { history_before_join: true, ..Default::default() });
        self.change(group, wire::change::Body::Create(wire::Create { settings, members })).await;
    }

    /// Follows a group from its first record, and waits until it does.
    pub(super) async fn follow(&mut self, group: GroupId) -> wire::Followed {
        self.follow_from(group, wire::follow::From::Join(true)).await
    }

    pub(super) async fn follow_from(&mut self, group: GroupId, from: wire::follow::From) -> wire::Followed {
        self.say(Say::Follow(wire::Follow { group: group.to_wire(), from: Some(from) })).await;
        match self.told().await {
            Told::Followed(followed) if followed.group == group.to_wire() => followed,
            told => panic!("{told:?}"),
        }
    }

    pub(super) async fn publisher(&self) -> Publisher {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        let open = wire::stream_open::Body::Publish(wire::PublishOpen {});
        send.write_all(&frame::encode(&wire::StreamOpen { body: Some(open) })).await.unwrap();
        Publisher { send, receipts: Frames::new(recv), incarnation: self.welcome.incarnation }
    }

    /// The next delivery stream.
    pub(super) async fn delivery(&self) -> Delivery {
        Delivery::new(timeout(PATIENCE, self.connection.accept_uni()).await.expect("a stream comes").unwrap())
            .await
    }

    /// Is nothing delivered for a while?
    pub(super) async fn is_left_alone(&self) -> bool {
        timeout(Duration::from_millis(60), self.connection.accept_uni()).await.is_err()
    }
}

/// A publish stream.
pub(super) struct Publisher {
    pub(super) send: SendStream,
    pub(super) receipts: Frames,
    pub(super) incarnation: u64,
}

impl Publisher {
    pub(super) fn publish(&self, group: GroupId, number: u64, payload: &[u8]) -> wire::Publish {
        let message = wire::Message { payload: Bytes::copy_from_slice(payload), ..Default::default() };
        let incarnation = self.incarnation;
        wire::Publish { group: group.to_wire(), incarnation, number, message: Some(message) }
    }

    pub(super) async fn send(&mut self, group: GroupId, number: u64, payload: &[u8]) {
        let publish = self.publish(group, number, payload);
        self.send.write_all(&frame::encode(&publish)).await.unwrap();
    }

    /// Publishes numbers `first..first + count`, a window at a time, and waits for their receipts.
    pub(super) async fn send_many(&mut self, group: GroupId, first: u64, count: u64, payload: &[u8]) {
        const WINDOW: u64 = 64;
        let mut next = first;
        while next < first + count {
            let until = (next + WINDOW).min(first + count);
            let mut frames = BytesMut::new();
            for number in next..until {
                frame::encode_into(&self.publish(group, number, payload), &mut frames);
            }
            self.send.write_all(&frames).await.unwrap();
            for _ in next..until {
                self.committed().await;
            }
            next = until;
        }
    }

    /// What the next receipt says.
    pub(super) async fn outcome(&mut self) -> Outcome {
        self.receipts.next::<wire::Receipt>().await.outcome.expect("a receipt says something")
    }

    /// The next receipt, which is good.
    pub(super) async fn committed(&mut self) -> u64 {
        match self.outcome().await {
            Outcome::Committed(committed) => committed.seq,
            outcome => panic!("{outcome:?}"),
        }
    }
}

/// A delivery stream.
pub(super) struct Delivery {
    pub(super) group: GroupId,
    pub(super) from: u64,
    pub(super) frames: Frames,
}

impl Delivery {
    pub(super) async fn new(recv: RecvStream) -> Self {
        let mut frames = Frames::new(recv);
        let open = frames.next::<wire::DeliveryOpen>().await;
        Self { group: GroupId::from_wire(&open.group).unwrap(), from: open.from, frames }
    }

    /// The next record; none at the end of the stream.
    pub(super) async fn try_next(&mut self) -> Option<wire::Record> {
        let delivery = self.frames.try_next::<wire::Delivery>().await.unwrap()?;
        match delivery.body {
            Some(wire::delivery::Body::Record(record)) => Some(record),
            body => panic!("{body:?}"),
        }
    }

    pub(super) async fn next(&mut self) -> wire::Record {
        self.try_next().await.expect("another record comes")
    }

    /// Reads records up to, not including, `until`; they have no hole.
    pub(super) async fn read_until(&mut self, until: u64) -> Vec<wire::Record> {
        let mut records: Vec<wire::Record> = Vec::new();
        let mut wanted = self.from;
        while wanted < until {
            let record = self.next().await;
            assert_eq!(record.seq, wanted, "in order, each once");
            wanted += 1;
            records.push(record);
        }
        self.from = wanted;
        records
    }
}

/// The payload of a record that is a message.
pub(super) fn payload(record: &wire::Record) -> &[u8] {
    match &record.body {
        Some(wire::record::Body::Message(message)) => &message.payload,
        body => panic!("{body:?}"),
    }
}
