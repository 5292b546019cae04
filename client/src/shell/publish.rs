//! The publish stream: messages one way, receipts the other.

use std::time::Duration;

use bytes::BytesMut;
use quinn::SendStream;
use shoal_protocol::{FrameError, frame, frame::FRAME_BYTES_MAX, wire};
use tokio::time::sleep_until;

use super::{
    framed::{self, FrameReader, StreamError},
    session::{End, Session},
};
use crate::{Lost, stats::count};

/// How much is put together for one write. What has been written is the connection's to send, so
/// little of it keeps groups taking turns.
const BATCH_BYTES: usize = 16 << 10;
/// A message that has been without an answer for so long makes the client ask for a sign of life,
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// and after so long connect anew, whatever else the node answers.
const UNANSWERED_MAX: Duration = Duration::from_secs(30);

impl Session {
    /// Sends what is queued and takes its receipts. The stream is opened for the first message.
    pub(super) async fn publish(&self) -> End {
        let first = self.next_batch().await;
        let (send, receive) = match self.connection.open_bi().await {
            Ok(stream) => stream,
            Err(error) => return self.ended(StreamError::Connection(error)).await,
        };
        tokio::select! {
            biased;
            end = self.read_receipts(FrameReader::new(receive, FRAME_BYTES_MAX)) => end,
            end = self.write_publishes(send, first) => end,
        }
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

    async fn write_publishes(&self, mut send: SendStream, first: BytesMut) -> End {
        let open = wire::StreamOpen { body: Some(wire::stream_open::Body::Publish(wire::PublishOpen {})) };
        if let Err(error) = framed::write(&mut send, &open).await {
            return self.ended(error).await;
        }
        let mut batch = first;
        loop {
            if let Err(error) = send.write_chunk(batch.freeze()).await {
                return self.ended(error.into()).await;
            }
            batch = tokio::select! {
                biased;
                batch = self.next_batch() => batch,
                () = self.unanswered() => return End::Lost(Lost::Silent),
            };
        }
    }

    /// Waits until there is something to send.
    async fn next_batch(&self) -> BytesMut {
        loop {
            if self.shared.is_closing() {
                // What an app saves as it goes is all that it needs to know: nothing of it leaves
                // afterwards.
                return std::future::pending().await;
            }
            let now = self.shared.now();
            let mut batch = BytesMut::new();
            self.shared.queue.send(now, |publish| {
                frame::encode_into(&publish, &mut batch);
                batch.len() < BATCH_BYTES
            });
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
