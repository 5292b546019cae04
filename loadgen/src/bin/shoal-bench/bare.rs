//! The bare server to measure against: what quinn alone costs for writing the same messages to the
//! same connections. It checks no token, keeps nothing, and knows one group.
//!
//! One task for each connection waits on a watch and writes what is new, up to 64 messages at once,
//! as shared bytes. A line with a number on its standard input moves the tail there.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use quinn::{Connection, Endpoint, SendStream};
use shoal_certs::KeyFolder;
use shoal_protocol::{RecordFrame, frame, wire};
use tokio::sync::watch;

use crate::{endpoint, raw::Frames};

/// The most messages in one write.
const WRITE_MESSAGES_MAX: usize = 64;
/// How many of the latest messages are held: more than any receiver is allowed to be behind.
const WINDOW_MESSAGES: usize = 8192;

/// Serves until the standard input ends.
pub(crate) async fn serve(listen: SocketAddr, data: &Path, payload_bytes: usize) -> Result<()> {
    let endpoint = endpoint::server(listen, &KeyFolder::open(data)?)?;
    let log = Arc::new(Log::new(payload_bytes));
    tokio::spawn(accept(endpoint, log.clone()));
    let (advances, mut advanced) = watch::channel(1);
    // The standard input blocks, so it has a thread.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if line.parse().is_ok_and(|tail| advances.send(tail).is_err()) {
                return;
            }
        }
    });
    while advanced.changed().await.is_ok() {
        let tail = *advanced.borrow_and_update();
        log.advance(tail);
    }
    Ok(())
}

/// The latest messages, encoded once.
struct Log {
    frames: Mutex<(u64, VecDeque<Bytes>)>,
    tail: watch::Sender<u64>,
    payload: Bytes,
}

impl Log {
    fn new(payload_bytes: usize) -> Self {
        let payload = vec![b'.'; payload_bytes].into();
        Self { frames: Mutex::new((1, VecDeque::new())), tail: watch::channel(1).0, payload }
    }

    fn advance(&self, tail: u64) {
        {
            let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            let (start, window) = &mut *frames;
            for seq in *start + window.len() as u64..tail {
                window.push_back(self.encode(seq));
                if window.len() > WINDOW_MESSAGES {
                    window.pop_front();
                    *start += 1;
                }
            }
        }
        self.tail.send_replace(tail);
    }

    /// A record as large as the node's.
    fn encode(&self, seq: u64) -> Bytes {
        let message = wire::Message { payload: self.payload.clone(), ..Default::default() };
        let author =
            wire::Author { user: "bench-publisher-0".into(), device: 1, incarnation: 1 << 60, number: seq };
        let body = Some(wire::record::Body::Message(message));
        let record = wire::Record {
            seq,
            time_ms: 1_790_000_000_000,
            author: Some(author),
            body,
            ..Default::default()
        };
        RecordFrame::encode(&record).frame().clone()
    }

    fn read(&self, from: u64) -> Result<Vec<Bytes>> {
        let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, window) = &*frames;
        let skip = from.checked_sub(*start).context("a receiver fell out of the window")?;
        Ok(window.iter().skip(usize::try_from(skip)?).take(WRITE_MESSAGES_MAX).cloned().collect())
    }
}

async fn accept(endpoint: Endpoint, log: Arc<Log>) {
    while let Some(incoming) = endpoint.accept().await {
        let log = log.clone();
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await
                && let Err(error) = session(connection, log).await
            {
                tracing::debug!(%error, "a session ended");
            }
        });
    }
}

async fn session(connection: Connection, log: Arc<Log>) -> Result<()> {
    let (mut send, recv) = connection.accept_bi().await?;
    let mut recv = Frames::new(recv);
    let Some(wire::to_node::Body::Hello(hello)) = recv.message::<wire::ToNode>().await?.body else {
        bail!("the first frame was no hello");
    };
    let welcome = wire::Welcome { version: hello.version_max, heartbeat_ms: 20_000, ..Default::default() };
    answer(&mut send, wire::to_client::Body::Welcome(welcome)).await?;
    let mut tail = log.tail.subscribe();
    let from = *tail.borrow_and_update();
    for follow in &hello.follows {
        let followed = wire::Followed { group: follow.group.clone(), from, tail: from };
        answer(&mut send, wire::to_client::Body::Followed(followed)).await?;
    }
    let group = hello.follows.into_iter().next().map(|follow| follow.group).unwrap_or_default();
    tokio::select! {
        biased;
        ended = heartbeats(&mut send, &mut recv) => ended,
        ended = deliver(&connection, &log, tail, group, from) => ended,
    }
}

async fn heartbeats(send: &mut SendStream, recv: &mut Frames) -> Result<()> {
    while recv.next().await?.is_some() {
        answer(send, wire::to_client::Body::HeartbeatAck(wire::HeartbeatAck::default())).await?;
    }
    Ok(())
}

async fn deliver(
    connection: &Connection,
    log: &Log,
    mut tail: watch::Receiver<u64>,
    group: Bytes,
    mut next: u64,
) -> Result<()> {
    tail.changed().await?;
    let mut stream = connection.open_uni().await?;
    stream.write_chunk(frame::encode(&wire::DeliveryOpen { group, from: next })).await?;
    loop {
        let mut frames = log.read(next)?;
        next += frames.len() as u64;
        if frames.is_empty() {
            tail.changed().await?;
        } else {
            stream.write_all_chunks(&mut frames).await?;
        }
    }
}

async fn answer(send: &mut SendStream, body: wire::to_client::Body) -> Result<()> {
    Ok(send.write_chunk(frame::encode(&wire::ToClient { body: Some(body) })).await?)
}
