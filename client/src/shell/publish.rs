//! The publish stream: messages one way, receipts the other.

use std::time::Duration;

use bytes::BytesMut;
use quinn::{Connection, RecvStream, SendStream};
use shoal_protocol::{FrameError, frame, frame::FRAME_BYTES_MAX, wire};
use tokio::time::sleep_until;

use super::{
    framed::{self, FrameReader, StreamError},
    queue::Queue,
    session::{End, Session},
    shared::Shared,
};
use crate::{Lost, stats::count};

/// How much is put together for one write. What has been written is the connection's to send, so
/// little of it keeps groups taking turns.
const BATCH_BYTES: usize = 16 << 10;
/// A message that has been without an answer for so long makes the client ask for a sign of life,
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// and after so long connect anew, whatever else the node answers.
const UNANSWERED_MAX: Duration = Duration::from_secs(30);

/// A publish stream that was begun behind a hello. Where the node does not let the client in, what was sent on it is
/// taken for lost, and sent again.
#[derive(Debug)]
pub(super) struct Publishing<'q> {
    queue: &'q Queue,
    streams: Option<(SendStream, RecvStream)>,
    is_let_in: bool,
}

impl Publishing<'_> {
    /// The node has let the client in.
    pub(super) fn go_on(mut self) -> Option<(SendStream, RecvStream)> {
        self.is_let_in = true;
        self.streams.take()
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        if !self.is_let_in {
            self.queue.disconnected();
        }
    }
}

/// Begins to send what is queued, on a connection without a session yet; none where nothing is. No other session may
/// be sending.
pub(super) async fn ahead<'s>(
    shared: &'s Shared,
    connection: &Connection,
) -> Result<Option<Publishing<'s>>, StreamError> {
    let mut publishing = Publishing { queue: &shared.queue, streams: None, is_let_in: false };
    let first = batch(shared);
    if first.is_empty() {
        return Ok(None);
    }
    let streams = connection.open_bi().await.map_err(StreamError::Connection)?;
    let (send, _) = publishing.streams.insert(streams);
    begin(send, first).await?;
    Ok(Some(publishing))
}

async fn begin(send: &mut SendStream, first: BytesMut) -> Result<(), StreamError> {
    let open = wire::StreamOpen { body: Some(wire::stream_open::Body::Publish(wire::PublishOpen {})) };
    framed::write(send, &open).await?;
    Ok(send.write_chunk(first.freeze()).await?)
}

/// What may be sent now, as much of it as is put together for one write.
fn batch(shared: &Shared) -> BytesMut {
    let mut batch = BytesMut::new();
    if shared.is_closing() {
        // What an app saves as it goes is all that it needs to know: nothing of it leaves afterwards.
        return batch;
    }
    shared.queue.send(shared.now(), |publish| {
        frame::encode_into(&publish, &mut batch);
        batch.len() < BATCH_BYTES
    });
    batch
}

impl Session {
    /// Sends what is queued and takes its receipts. The stream is opened for the first message, unless that was
    /// sent with the hello.
    pub(super) async fn publish(&self, begun: Option<(SendStream, RecvStream)>) -> End {
        let (send, receive) = match begun {
            Some(streams) => streams,
            None => match self.begin_to_publish().await {
                Ok(streams) => streams,
                Err(error) => return self.ended(error).await,
            },
        };
        tokio::select! {
            biased;
            end = self.read_receipts(FrameReader::new(receive, FRAME_BYTES_MAX)) => end,
            end = self.write_publishes(send) => end,
        }
    }

    async fn begin_to_publish(&self) -> Result<(SendStream, RecvStream), StreamError> {
        let first = self.next_batch().await;
        let (mut send, receive) = self.connection.open_bi().await.map_err(StreamError::Connection)?;
        begin(&mut send, first).await?;
        Ok((send, receive))
    }

    async fn read_receipts(&self, mut receipts: FrameReader) -> End {
        loop {
            let receipt = match receipts.next::<wire::Receipt>().await {
                Ok(Some(receipt)) => receipt,
                // Without receipts there is no publishing; a new session brings a new stream.
                Ok(None) => return End::Lost(Lost::Network("the node closed the publish stream".to_owned())),
                Err(error) => return self.ended(error).await,
            };
            let chance = self.shared.chance();
            match self.shared.queue.receipt(receipt, self.shared.now(), chance) {
                Ok(acknowledged) => count(&self.shared.counters.acknowledged, acknowledged),
                Err(bad) => return self.ended(FrameError::Body(bad.to_string()).into()).await,
            }
        }
    }

    async fn write_publishes(&self, mut send: SendStream) -> End {
        loop {
            let batch = tokio::select! {
                biased;
                batch = self.next_batch() => batch,
                () = self.unanswered() => return End::Lost(Lost::Silent),
            };
            if let Err(error) = send.write_chunk(batch.freeze()).await {
                return self.ended(error.into()).await;
            }
        }
    }

    /// Waits until there is something to send.
    async fn next_batch(&self) -> BytesMut {
        loop {
            if self.shared.is_closing() {
                return std::future::pending().await;
            }
            let now = self.shared.now();
            let batch = batch(&self.shared);
            if !batch.is_empty() {
                return batch;
            }
            let next_at = self.shared.queue.next_at(now).map(|at| self.shared.instant(at));
            tokio::select! {
                biased;
                () = self.shared.queue.wake.notified() => {}
                () = sleep_until(next_at.unwrap_or_else(tokio::time::Instant::now)), if next_at.is_some() => {}
            }
        }
    }

    /// Completes when a message has been without an answer for too long.
    async fn unanswered(&self) {
        loop {
            let Some(since) = self.shared.queue.unanswered_since() else {
                // Whatever is sent next begins this anew.
                return std::future::pending().await;
            };
            let waited = self.shared.now().saturating_sub(since);
            if waited >= UNANSWERED_MAX {
                return;
            }
            if waited < PROBE_AFTER {
                sleep_until(self.shared.instant(since + PROBE_AFTER)).await;
            } else {
                self.shared.probe.notify_one();
                sleep_until(self.shared.instant(since + UNANSWERED_MAX)).await;
            }
        }
    }
}
