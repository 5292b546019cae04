//! A client that says what it is told to, good or bad, frame by frame.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, ReadError, RecvStream, SendStream, TokioRuntime,
    VarInt,
};
use shoal_protocol::{ALPN, Code, FrameBuffer, GroupId, Incarnation, frame, wire};
use tokio::time::timeout;
use wire::{
    receipt::Outcome, request::Body as Ask, response::Body as Answer, stream_open::Body as Open,
    to_client::Body as Told, to_node::Body as Say,
};

/// Nothing that is waited for here takes longer, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The name in the nodes' certificates.
const SERVER_NAME: &str = shoal_certs::NODE_NAME;

/// A socket of this machine.
#[must_use]
pub fn endpoint() -> Endpoint {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).expect("an endpoint")
}

/// Connects, and says nothing.
///
/// # Errors
/// Where the node does not let it.
pub async fn dial(
    endpoint: &Endpoint,
    node: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Connection, ConnectionError> {
    let config = quinn::ClientConfig::new(shoal_certs::quic_client(tls));
    let connecting = endpoint.connect_with(config, node, SERVER_NAME).expect("a good configuration");
    timeout(PATIENCE, connecting).await.expect("a handshake comes to an end")
}

/// A hello that is good.
#[must_use]
pub fn hello(token: impl Into<String>, device: u64) -> wire::Hello {
    wire::Hello { version_min: 1, version_max: 1, token: token.into(), device, ..Default::default() }
}

/// A frame of the control stream.
#[must_use]
pub fn say(body: Say) -> Bytes {
    frame::encode(&wire::ToNode { body: Some(body) })
}

/// The frame that opens a publish stream.
#[must_use]
pub fn open_publish() -> Bytes {
    frame::encode(&wire::StreamOpen { body: Some(Open::Publish(wire::PublishOpen {})) })
}

/// The frame that opens a request.
#[must_use]
pub fn open_request(ask: Ask) -> Bytes {
    frame::encode(&wire::StreamOpen { body: Some(Open::Request(wire::Request { body: Some(ask) })) })
}

/// The code that the node closes a connection with.
///
/// # Panics
/// Where it does not close it in time, or without a code.
pub async fn closed_with(connection: &Connection) -> Code {
    match timeout(PATIENCE, connection.closed()).await.expect("the connection is closed in time") {
        ConnectionError::ApplicationClosed(close) => code(close.error_code),
        error => panic!("no code, but {error}"),
    }
}

/// The ALPN of clients in a configuration, or another.
#[must_use]
pub fn with_alpn(mut tls: rustls::ClientConfig, alpn: Option<&[u8]>) -> rustls::ClientConfig {
    tls.alpn_protocols = vec![alpn.unwrap_or(ALPN).to_vec()];
    tls
}

fn code(number: VarInt) -> Code {
    u32::try_from(number.into_inner()).map_or(Code::Unknown, Code::from_wire)
}

/// A client with a session.
#[derive(Debug)]
pub struct Raw {
    /// The connection.
    pub connection: Connection,
    /// The client's half of the control stream.
    pub control: SendStream,
    /// What it was welcomed with.
    pub welcome: wire::Welcome,
    told: Frames,
}

impl Raw {
    /// Says hello on a connection.
    ///
    /// # Panics
    /// Where it is not welcomed.
    pub async fn greet(connection: Connection, hello: wire::Hello) -> Self {
        let (mut control, recv) = connection.open_bi().await.expect("a stream");
        control.write_all(&say(Say::Hello(hello))).await.expect("a hello is taken");
        let mut told = Frames::new(recv);
        match told.next::<wire::ToClient>().await.and_then(|told| told.body) {
            Some(Told::Welcome(welcome)) => Self { connection, control, welcome, told },
            other => panic!("not welcomed: {other:?}"),
        }
    }

    /// Says something.
    pub async fn say(&mut self, body: Say) {
        self.control.write_all(&say(body)).await.expect("the control stream is open");
    }

    /// The next thing it is told.
    pub async fn told(&mut self) -> Told {
        self.told.next::<wire::ToClient>().await.and_then(|told| told.body).expect("something is said")
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let (mut send, recv) = self.connection.open_bi().await.expect("a stream");
        send.write_all(&open_request(ask)).await.expect("a request is taken");
        // Fails only where the node has ended the stream already.
        let _ = send.finish();
        let answer = Frames::new(recv).next::<wire::Response>().await;
        answer.and_then(|answer| answer.body).expect("a request is answered")
    }

    /// Carries out a change, or is told why not.
    ///
    /// # Errors
    /// The code of the refusal.
    pub async fn change(&self, group: GroupId, body: wire::change::Body) -> Result<u64, Code> {
        let change = wire::Change { group: group.to_wire(), body: Some(body) };
        match self.ask(Ask::Change(change)).await {
            Answer::Changed(changed) => Ok(changed.seq),
            Answer::Failure(failure) => Err(Code::from_wire(failure.code)),
            other => panic!("no answer to a change: {other:?}"),
        }
    }

    /// Opens a stream and writes bytes to it.
    pub async fn open(&self, bytes: &[u8]) -> (SendStream, Frames) {
        let (mut send, recv) = self.connection.open_bi().await.expect("a stream");
        // The node may have had enough before it has read all.
        let _ = send.write_all(bytes).await;
        (send, Frames::new(recv))
    }

    /// Opens a publish stream.
    pub async fn publisher(&self) -> Publisher {
        let (send, receipts) = self.open(&open_publish()).await;
        Publisher { send, receipts, incarnation: Incarnation(self.welcome.incarnation) }
    }
}

/// A publish stream.
#[derive(Debug)]
pub struct Publisher {
    send: SendStream,
    receipts: Frames,
    /// Under which the numbers count.
    pub incarnation: Incarnation,
}

impl Publisher {
    /// Publishes and waits for the outcome.
    pub async fn publish(&mut self, group: GroupId, number: u64, payload: impl Into<Bytes>) -> Outcome {
        self.send(group, number, payload).await;
        self.receipt().await
    }

    /// Publishes.
    pub async fn send(&mut self, group: GroupId, number: u64, payload: impl Into<Bytes>) {
        let message = Some(wire::Message { payload: payload.into(), ..Default::default() });
        let publish =
            wire::Publish { group: group.to_wire(), incarnation: self.incarnation.0, number, message };
        self.send.write_all(&frame::encode(&publish)).await.expect("the stream is open");
    }

    /// The next receipt's outcome.
    pub async fn receipt(&mut self) -> Outcome {
        let receipt = self.receipts.next::<wire::Receipt>().await.expect("a message is answered");
        receipt.outcome.expect("a receipt has an outcome")
    }
}

/// The code of a refusal, and whether it used up the number.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn refused(outcome: &Outcome) -> (Code, bool) {
    match outcome {
        Outcome::Refused(refused) => {
            (Code::from_wire(refused.why.as_ref().map_or(0, |why| why.code)), refused.consumed)
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// What the node sends on a stream, frame by frame.
#[derive(Debug)]
pub struct Frames {
    recv: RecvStream,
    buffer: FrameBuffer,
}

impl Frames {
    /// Of a stream.
    #[must_use]
    pub fn new(recv: RecvStream) -> Self {
        Self { recv, buffer: FrameBuffer::new(frame::FRAME_BYTES_MAX) }
    }

    /// The next frame; none at the end of the stream or the connection.
    pub async fn next<M: Message + Default>(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.buffer.next_message().expect("the node sends good frames") {
                return Some(message);
            }
            let read = timeout(PATIENCE, self.recv.read_chunk(usize::MAX, true)).await;
            match read.expect("something comes in time") {
                Ok(Some(chunk)) => self.buffer.push(chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The code that the node resets the stream with, after whatever it sent before.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn reset_with(&mut self) -> Code {
        loop {
            let read = timeout(PATIENCE, self.recv.read_chunk(usize::MAX, true)).await;
            match read.expect("the stream ends in time") {
                Ok(Some(_)) => {}
                Err(ReadError::Reset(number)) => return code(number),
                other => panic!("not reset: {other:?}"),
            }
        }
    }
}
