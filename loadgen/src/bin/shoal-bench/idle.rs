//! What an idle session weighs: the growth of the server's resident memory for each.

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;
use shoal_protocol::GroupId;

use crate::{process::Kind, setup::Setup};

/// How long the server rests before its memory is read: past a heartbeat of everybody.
const REST: Duration = Duration::from_secs(30);

/// What one server came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) server: Kind,
    pub(crate) sessions: usize,
    pub(crate) groups: usize,
    pub(crate) resident_before_mib: f64,
    pub(crate) kib_per_session: f64,
}

/// Opens `sessions`, each following the same `groups` groups, and reads the memory before and after.
///
/// Before that, the server is started anew, so that nothing that making the groups has left is taken
/// for room; and one session follows all groups, so that the groups themselves are there already.
pub(crate) async fn measure(
    kind: Kind,
    sessions: usize,
    groups: usize,
    shoal: &Path,
    dir: &Path,
) -> Result<Sample> {
    let mut setup = Setup::start(kind, shoal, dir, 128).await?;
    let users: Vec<_> = (0..sessions).map(|at| format!("bench-idle-{at}")).collect();
    let groups: Vec<_> = (0..groups).map(|at| GroupId::named(&format!("bench-{at}"))).collect();
    setup.create_groups(&groups, &users).await?;
    setup.restart().await?;
    let mut logins: Vec<_> =
        users.iter().map(|user| setup.login(user, false, &groups)).collect::<Result<_>>()?;
    let first = setup.connect_all(logins.split_off(sessions - 1)).await?;
    tokio::time::sleep(REST).await;
    let before = setup.server.resident_bytes()?;
    let open = setup.connect_all(logins).await?;
    tokio::time::sleep(REST).await;
    let after = setup.server.resident_bytes()?;
    let sample = Sample {
        server: kind,
        sessions: open.len(),
        groups: groups.len(),
        resident_before_mib: before as f64 / f64::from(1 << 20),
        kib_per_session: after.saturating_sub(before) as f64 / 1024.0 / open.len() as f64,
    };
    drop((first, open));
    setup.stop()?;
    Ok(sample)
}
