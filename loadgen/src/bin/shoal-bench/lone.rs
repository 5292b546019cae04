//! How long a lone sender waits for a receipt, against what the disk alone takes.

use std::{io::Write, path::Path, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use serde::Serialize;
use shoal_loadgen::report::{Latencies, Quantiles};
use shoal_protocol::GroupId;
use tokio::time::Instant;

use crate::{process::Kind, setup::Setup};

/// About what a record and its index entries take.
const APPEND_BYTES: usize = 256;
const WARM_UP: Duration = Duration::from_secs(1);

/// What one round came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// From the publish to its receipt.
    pub(crate) receipt_ms: Quantiles,
    /// Appending to a growing file and fdatasync.
    pub(crate) fdatasync_ms: Quantiles,
}

/// Measures the disk, then the node on the same disk.
pub(crate) async fn measure(shoal: &Path, dir: &Path, length: Duration) -> Result<Sample> {
    let file = dir.to_owned();
    let fdatasync_ms = tokio::task::spawn_blocking(move || appends(&file, length)).await??;
    let (shoal, dir) = (shoal.to_owned(), dir.to_owned());
    // An app's client waits for one thing at a time: threads that wake each other are not its own.
    let receipt_ms = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(publishes(&shoal, &dir, length))
    })
    .await??;
    Ok(Sample { receipt_ms, fdatasync_ms })
}

fn appends(dir: &Path, length: Duration) -> Result<Quantiles> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut latencies = Latencies::default();
    let bytes = [b'.'; APPEND_BYTES];
    let started = std::time::Instant::now();
    while started.elapsed() < WARM_UP + length {
        let begun = std::time::Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        if started.elapsed() > WARM_UP {
            latencies.record(begun.elapsed());
        }
    }
    Ok(latencies.quantiles())
}

async fn publishes(shoal: &Path, dir: &Path, length: Duration) -> Result<Quantiles> {
    let group = GroupId::named("bench");
    let setup = Setup::start(Kind::Shoal, shoal, dir, 128).await?;
    setup.create_groups(&[group], &["bench-sender".into()]).await?;
    let session = setup.connect_all(vec![setup.login("bench-sender", false, &[group])?]).await?;
    let (mut send, mut receipts) = session[0].publisher().await?;
    let payload = Bytes::from(vec![b'.'; 128]);
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for number in 1.. {
        if started.elapsed() > WARM_UP + length {
            break;
        }
        let begun = Instant::now();
        send.publish(group, number, payload.clone()).await?;
        receipts.committed().await?;
        if started.elapsed() > WARM_UP {
            latencies.record(begun.elapsed());
        }
    }
    drop(session);
    setup.stop()?;
    Ok(latencies.quantiles())
}
