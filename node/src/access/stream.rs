//! A bidirectional stream of a client's: its first frame says what it is for.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prost::Message;
use quinn::{RecvStream, SendStream};
use shoal_protocol::{Code, FrameBuffer, wire};
use wire::stream_open::Body;

use super::{Shared, hello::CHUNK_BYTES_MAX, publish, request, session::Session, violation::Violation};

/// A frame is a payload and what goes with it.
const FRAME_OVERHEAD_BYTES: usize = 16 << 10;

/// How many streams of each kind a session has.
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    publish: AtomicUsize,
    requests: AtomicUsize,
}

/// A place among them, given back when dropped.
struct Place<'count>(&'count AtomicUsize);

impl<'count> Place<'count> {
    fn take(count: &'count AtomicUsize, max: usize) -> Result<Self, Violation> {
        let place = Self(count);
        match count.fetch_add(1, Ordering::Relaxed) < max {
            true => Ok(place),
            false => Err(Violation::new(Code::TooMany, "more streams of this kind than a session may have")),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's half of a stream, frame by frame.
pub(super) struct Incoming {
    pub(super) recv: RecvStream,
    frames: FrameBuffer,
}

impl Incoming {
    fn new(recv: RecvStream, bytes_max: usize) -> Self {
        Self { recv, frames: FrameBuffer::new(bytes_max) }
    }

    /// The next frame of those that have been read.
    pub(super) fn buffered<M: Message + Default>(&mut self) -> Result<Option<M>, Violation> {
        Ok(self.frames.next_message()?)
    }

    /// Reads on; false at the stream's end. Cancellation safe.
    pub(super) async fn read(&mut self) -> Result<bool, Violation> {
        match self.recv.read_chunk(CHUNK_BYTES_MAX, true).await? {
            Some(chunk) => {
                self.frames.push(chunk.bytes);
                Ok(true)
            }
            None => {
                self.frames.finish()?;
                Ok(false)
            }
        }
    }

    /// The next frame; none at the stream's end.
    async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Violation> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }
}

/// Serves a stream to its end. What it does wrong is its own end only.
pub(super) async fn serve(
    shared: Arc<Shared>,
    session: Arc<Session>,
    mut send: SendStream,
    recv: RecvStream,
) {
    let mut incoming = Incoming::new(recv, shared.groups.payload_bytes_max() + FRAME_OVERHEAD_BYTES);
    if let Err(violation) = dispatch(&shared, &session, &mut send, &mut incoming).await {
        tracing::debug!(%violation, "a stream was ended");
        violation.end(&mut send, &mut incoming.recv);
    }
}

async fn dispatch(
    shared: &Shared,
    session: &Session,
    send: &mut SendStream,
    incoming: &mut Incoming,
) -> Result<(), Violation> {
    let patience = shared.limits.load().hello();
    let opened = tokio::time::timeout(patience, incoming.next::<wire::StreamOpen>()).await;
    let opened =
        opened.map_err(|_| Violation::new(Code::TimedOut, "a stream said too late what it is for"))??;
    match opened.and_then(|open| open.body) {
        Some(Body::Publish(_)) => {
            let _place = Place::take(&session.open.publish, shared.limits.load().publish_streams_max)?;
            publish::serve(shared, session, send, incoming).await
        }
        // It may be a replay, and not every request may be answered twice.
        Some(Body::Request(_)) if incoming.recv.is_0rtt() => {
            Err(Violation::new(Code::TooEarly, "a request in early data"))
        }
        Some(Body::Request(request)) => {
            let _place = Place::take(&session.open.requests, shared.limits.load().requests_max)?;
            // Few streams are requests, and each but for a moment.
            Box::pin(request::serve(shared, session, send, request)).await
        }
        None => Err(Violation::new(Code::BadFrame, "a stream begins with what it is for")),
    }
}
