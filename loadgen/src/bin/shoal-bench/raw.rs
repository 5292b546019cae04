//! A client reduced to what the protocol asks of it, so that its own cost does not drown what is
//! measured: it says hello, follows, and looks at nothing of a record but its place.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use shoal_protocol::{FrameBuffer, GroupId, frame, wire};
use tokio::{sync::watch, time::Instant};

/// The most bytes of a frame that is read.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Reads frames from a stream.
pub(crate) struct Frames {
    stream: RecvStream,
    buffer: FrameBuffer,
}

impl Frames {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: FrameBuffer::new(FRAME_BYTES_MAX) }
    }

    /// The next frame's body; none at the stream's end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(body) = self.buffer.next_frame()? {
                return Ok(Some(body));
            }
            match self.stream.read_chunk(usize::MAX, true).await? {
                Some(chunk) => self.buffer.push(chunk.bytes),
                None => return Ok(None),
            }
        }
    }

    /// The next frame, decoded; its absence is an error.
    pub(crate) async fn message<M: prost::Message + Default>(&mut self) -> Result<M> {
        let body = self.next().await?.context("the stream ended")?;
        Ok(frame::decode(body)?)
    }
}

/// How far a receiver is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The next Seq of the stream that was read last.
    pub(crate) next: AtomicU64,
    /// Records, over all its streams.
    pub(crate) records: AtomicU64,
    /// Records that were not the next of their stream.
    pub(crate) faults: AtomicU64,
    /// When the last one came, where that is asked for.
    arrivals: Option<watch::Sender<Arrival>>,
}

/// Up to where records had come, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) next: u64,
    pub(crate) at: Instant,
}

impl Progress {
    fn new(is_timed: bool) -> Self {
        let arrivals = is_timed.then(|| watch::channel(Arrival { next: 0, at: Instant::now() }).0);
        Self { arrivals, ..Self::default() }
    }

    /// What there is to wait for, where that is asked for.
    pub(crate) fn arrivals(&self) -> Option<watch::Receiver<Arrival>> {
        self.arrivals.as_ref().map(watch::Sender::subscribe)
    }
}

/// Who connects, and what it follows.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) token: String,
    pub(crate) device: u64,
    /// Followed from the tail.
    pub(crate) groups: Vec<GroupId>,
    /// Is it noted when records come?
    pub(crate) is_timed: bool,
}

/// A session.
pub(crate) struct Raw {
    pub(crate) connection: Connection,
    pub(crate) welcome: wire::Welcome,
    pub(crate) progress: Arc<Progress>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Raw {
    /// Connects, says hello, and waits until every follow is answered. Deliveries are counted and
    /// heartbeats sent from then on.
    pub(crate) async fn connect(endpoint: &Endpoint, addr: SocketAddr, login: &Login) -> Result<Self> {
        let connection = endpoint.connect(addr, shoal_certs::NODE_NAME)?.await?;
        let (mut send, recv) = connection.open_bi().await?;
        let mut recv = Frames::new(recv);
        send.write_chunk(frame::encode(&login.hello())).await?;
        let wire::ToClient { body: Some(wire::to_client::Body::Welcome(welcome)) } = recv.message().await?
        else {
            bail!("the first answer was no welcome");
        };
        let progress = Arc::new(Progress::new(login.is_timed));
        let deliveries = tokio::spawn(count_deliveries(connection.clone(), progress.clone()));
        for _ in &login.groups {
            match recv.message::<wire::ToClient>().await?.body {
                Some(wire::to_client::Body::Followed(followed)) => {
                    progress.next.fetch_max(followed.from, Ordering::Relaxed);
                }
                other => bail!("a follow was answered with {other:?}"),
            }
        }
        let heartbeats =
            tokio::spawn(keep_alive(send, recv, Duration::from_millis(welcome.heartbeat_ms.into())));
        Ok(Self { connection, welcome, progress, tasks: vec![deliveries, heartbeats] })
    }

    /// Sends one request and returns its answer.
    pub(crate) async fn request(&self, body: wire::request::Body) -> Result<wire::response::Body> {
        let (mut send, recv) = self.connection.open_bi().await?;
        let request = wire::Request { body: Some(body) };
        let open = wire::StreamOpen { body: Some(wire::stream_open::Body::Request(request)) };
        send.write_chunk(frame::encode(&open)).await?;
        send.finish()?;
        let response: wire::Response = Frames::new(recv).message().await?;
        match response.body {
            Some(wire::response::Body::Failure(failure)) => bail!("refused: {}", failure.reason),
            Some(body) => Ok(body),
            None => bail!("an empty answer"),
        }
    }

    /// Opens a publish stream.
    pub(crate) async fn publisher(&self) -> Result<(PublishHalf, ReceiptHalf)> {
        let (mut send, recv) = self.connection.open_bi().await?;
        let open = wire::StreamOpen { body: Some(wire::stream_open::Body::Publish(wire::PublishOpen {})) };
        send.write_chunk(frame::encode(&open)).await?;
        let incarnation = self.welcome.incarnation;
        Ok((PublishHalf { send, incarnation }, ReceiptHalf { recv: Frames::new(recv) }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.connection.close(0_u32.into(), b"");
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Login {
    fn hello(&self) -> wire::ToNode {
        let follow = |group: &GroupId| wire::Follow {
            group: group.to_wire(),
            from: Some(wire::follow::From::Tail(true)),
        };
        let hello = wire::Hello {
            version_min: shoal_protocol::VERSION_MIN,
            version_max: shoal_protocol::VERSION,
            token: self.token.clone(),
            device: self.device,
            follows: self.groups.iter().map(follow).collect(),
            agent: "shoal-bench".into(),
            region: String::new(),
        };
        wire::ToNode { body: Some(wire::to_node::Body::Hello(hello)) }
    }
}

/// The sending side of a publish stream.
pub(crate) struct PublishHalf {
    send: SendStream,
    incarnation: u64,
}

impl PublishHalf {
    pub(crate) async fn publish(&mut self, group: GroupId, number: u64, payload: Bytes) -> Result<()> {
        let message = wire::Message { payload, ..wire::Message::default() };
        let publish = wire::Publish {
            group: group.to_wire(),
            incarnation: self.incarnation,
            number,
            message: Some(message),
        };
        Ok(self.send.write_chunk(frame::encode(&publish)).await?)
    }
}

/// The side of a publish stream on which receipts come.
pub(crate) struct ReceiptHalf {
    recv: Frames,
}

impl ReceiptHalf {
    /// The next receipt; anything but "durable" is an error.
    pub(crate) async fn committed(&mut self) -> Result<()> {
        let receipt: wire::Receipt = self.recv.message().await?;
        match receipt.outcome {
            Some(wire::receipt::Outcome::Committed(_)) => Ok(()),
            other => bail!("message {} was answered with {other:?}", receipt.number),
        }
    }
}

async fn count_deliveries(connection: Connection, progress: Arc<Progress>) {
    while let Ok(stream) = connection.accept_uni().await {
        let progress = progress.clone();
        tokio::spawn(async move {
            if let Err(error) = count_stream(stream, &progress).await {
                // Streams end with their connection, which is closed at the end of a measurement.
                tracing::debug!(%error, "a delivery stream ended");
            }
        });
    }
}

async fn count_stream(stream: RecvStream, progress: &Progress) -> Result<()> {
    let mut frames = Frames::new(stream);
    let open: wire::DeliveryOpen = frames.message().await?;
    let mut next = open.from;
    while let Some(body) = frames.next().await? {
        let places = places_of(&body).context("a delivery without a record")?;
        if places.start != next {
            progress.faults.fetch_add(1, Ordering::Relaxed);
        }
        next = places.end;
        progress.next.store(next, Ordering::Relaxed);
        progress.records.fetch_add(places.end.saturating_sub(places.start), Ordering::Relaxed);
        if let Some(arrivals) = &progress.arrivals {
            arrivals.send_replace(Arrival { next, at: Instant::now() });
        }
    }
    Ok(())
}

async fn keep_alive(mut send: SendStream, mut recv: Frames, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(100)));
    loop {
        tokio::select! {
            biased;
            frame = recv.next() => if !matches!(frame, Ok(Some(_))) { return },
            _ = ticks.tick() => {
                let heartbeat = wire::to_node::Body::Heartbeat(wire::Heartbeat::default());
                let frame = frame::encode(&wire::ToNode { body: Some(heartbeat) });
                if send.write_chunk(frame).await.is_err() { return }
            }
        }
    }
}

/// The places of the records that a delivery is, or stands for.
fn places_of(delivery: &Bytes) -> Option<Range<u64>> {
    if let Some(seq) = seq_of(delivery) {
        return Some(seq..seq.saturating_add(1));
    }
    match frame::decode::<wire::Delivery>(delivery.clone()).ok()?.body? {
        wire::delivery::Body::Silent(silent) => Some(silent.from..silent.to),
        _ => None,
    }
}

/// The Seq in a `Delivery { record }`, without decoding the rest: it is the record's first field.
fn seq_of(delivery: &[u8]) -> Option<u64> {
    const RECORD_KEY: u8 = 0x0a;
    const SEQ_KEY: u8 = 0x08;
    let rest = delivery.strip_prefix(&[RECORD_KEY])?;
    let (_, rest) = varint(rest)?;
    let rest = rest.strip_prefix(&[SEQ_KEY])?;
    varint(rest).map(|(seq, _)| seq)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// Fails where a receiver got something other than the next record.
pub(crate) fn ensure_in_order<'a>(receivers: impl IntoIterator<Item = &'a Raw>) -> Result<()> {
    let faults: u64 = receivers.into_iter().map(|raw| raw.progress.faults.load(Ordering::Relaxed)).sum();
    ensure!(faults == 0, "{faults} records were not the next of their stream");
    Ok(())
}

#[cfg(test)]
mod tests {
    use shoal_protocol::RecordFrame;

    use super::*;

    #[test]
    fn the_seq_is_read_without_decoding_the_record() {
        for seq in [1, 127, 128, 300, u64::MAX] {
            let message = wire::Message { payload: vec![7; 300].into(), ..Default::default() };
            let body = Some(wire::record::Body::Message(message));
            let encoded = RecordFrame::encode(&wire::Record { seq, time_ms: 5, body, ..Default::default() });
            let mut buffer = FrameBuffer::new(FRAME_BYTES_MAX);
            buffer.push(encoded.frame().clone());
            assert_eq!(seq_of(&buffer.next_frame().unwrap().unwrap()), Some(seq));
        }
    }
}
