//! quinn alone between two processes: what stands beside a link.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use quinn::{Connection, Endpoint};
use serde::Serialize;
use shoal_protocol::{RecordFrame, wire};
use tokio::time::{Instant, sleep};

use crate::{
    endpoint,
    process::{self, Server},
    setup::new_keys,
};

const START_MAX: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(2);
/// Records in one write: what a node's deliveries put together at most is of this order.
const WRITE_RECORDS: usize = 64;

/// What one round came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) records_per_second: f64,
    pub(crate) mib_per_second: f64,
    /// Of both processes.
    pub(crate) cpu_us_per_record: f64,
}

/// The other process, connected.
pub(super) struct Bare {
    server: Server,
    pub(super) connection: Connection,
    _endpoint: Endpoint,
}

impl Bare {
    pub(super) async fn start(dir: &Path) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("shoal-bench-").tempdir_in(dir)?.keep();
        let keys = new_keys(&data)?;
        let mut server = Server::echo(&data)?;
        let endpoint = endpoint::peer((Ipv4Addr::LOCALHOST, 0).into(), &keys)?;
        let started = Instant::now();
        loop {
            server.ensure_running()?;
            let connecting = endpoint.connect(server.addr, shoal_certs::NODE_NAME)?;
            match tokio::time::timeout(Duration::from_secs(1), connecting).await {
                Ok(Ok(connection)) => return Ok(Self { server, connection, _endpoint: endpoint }),
                _ if started.elapsed() > START_MAX => anyhow::bail!("the bare server does not answer"),
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(super) fn stop(self) -> Result<()> {
        let data = self.server.data.clone();
        drop(self);
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))
    }

    /// Sends records as large as the node's on one stream, as fast as the other end takes them.
    async fn stream(&self, length: Duration, payload_bytes: usize) -> Result<Sample> {
        let record = record(payload_bytes);
        let mut stream = self.connection.open_uni().await?;
        let cpu = || Ok::<_, anyhow::Error>(self.server.cpu()? + process::cpu(std::process::id())?);
        let started = Instant::now();
        let mut before = None;
        let mut records = 0_u64;
        while started.elapsed() < WARM_UP + length {
            if before.is_none() && started.elapsed() >= WARM_UP {
                before = Some((Instant::now(), records, cpu()?));
            }
            let mut frames: [Bytes; WRITE_RECORDS] = std::array::from_fn(|_| record.clone());
            stream.write_all_chunks(&mut frames).await?;
            records += WRITE_RECORDS as u64;
        }
        let (begun, first, cpu_before) = before.context("there was time to measure")?;
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), (cpu()? - cpu_before).as_secs_f64());
        let records = (records - first) as f64;
        Ok(Sample {
            records_per_second: records / seconds,
            mib_per_second: records * record.len() as f64 / seconds / f64::from(1 << 20),
            cpu_us_per_record: cpu * 1e6 / records,
        })
    }
}

/// Measures how many records one stream carries.
pub(super) async fn measure(dir: &Path, length: Duration, payload_bytes: usize) -> Result<Sample> {
    let bare = Bare::start(dir).await?;
    let sample = bare.stream(length, payload_bytes).await?;
    bare.stop()?;
    Ok(sample)
}

/// A record as large as those of the node's group.
pub(super) fn record(payload_bytes: usize) -> Bytes {
    let message = wire::Message { payload: vec![b'.'; payload_bytes].into(), ..Default::default() };
    let author =
        wire::Author { user: "bench-sender-10".into(), device: 1, incarnation: 1 << 60, number: 100_000 };
    let body = Some(wire::record::Body::Message(message));
    let record = wire::Record {
        seq: 1_000_000,
        time_ms: 1_790_000_000_000,
        author: Some(author),
        body,
        ..Default::default()
    };
    RecordFrame::encode(&record).frame().clone()
}
