//! Two nodes of one cluster, on an etcd and a PostgreSQL of their own: every group has its home on
//! one of them, and clients connect to either.

use std::path::Path;

use anyhow::{Result, ensure};
use shoal_engines::{Etcd, Postgres};

use crate::setup::Setup;

/// Both nodes, and what they run on. The nodes end first.
pub(crate) struct Cluster {
    pub(crate) home: Setup,
    /// No group's home is here.
    pub(crate) other: Setup,
    _engines: (Etcd, Postgres),
}

impl Cluster {
    /// Fails where a cluster's engines are not installed.
    pub(crate) fn ensure_engines() -> Result<()> {
        let missing = shoal_engines::missing();
        ensure!(
            missing.is_empty(),
            "two nodes need what is not here: apt-get install {}; or name the measurements to take, without hop",
            missing.join(" ")
        );
        Ok(())
    }

    /// Starts everything, and returns once a group can be made through either node.
    pub(crate) async fn start(shoal: &Path, dir: &Path) -> Result<Self> {
        let engines = tokio::task::spawn_blocking(|| (Etcd::start(), Postgres::start())).await?;
        let settings = |roles: &str| {
            [
                format!("coordination.etcd={}", engines.0.endpoint()),
                format!("store.postgres={}", engines.1.url()),
                "peer_listen=127.0.0.1:0".to_owned(),
                format!("roles={roles}"),
            ]
        };
        let home = Setup::start_node(shoal, dir, &settings("access,group,coordination"), None).await?;
        let other = Setup::start_node(shoal, dir, &settings("access"), Some(&home)).await?;
        for (node, name) in [(&home, "bench-home-is-ready"), (&other, "bench-other-is-ready")] {
            node.wait_until_groups_have_homes(name).await?;
        }
        Ok(Self { home, other, _engines: engines })
    }

    /// Ends both nodes and takes their folders away.
    pub(crate) fn stop(self) -> Result<()> {
        self.other.stop()?;
        self.home.stop()
    }
}
