//! The coordination that the configuration asks for.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context;
use shoal_node::{
    config::CoordinationConfig,
    coordination::{Coordination, Etcd, EtcdOptions, EtcdTls, InProcess},
    store::Store,
};
use tokio::task::JoinHandle;

/// Coordination, and the task that works for it: it ends with the last who uses it.
pub(super) async fn open(
    config: &CoordinationConfig,
    store: &Arc<dyn Store>,
) -> anyhow::Result<(Arc<dyn Coordination>, JoinHandle<()>)> {
    if config.etcd.is_empty() {
        let (in_process, writer) = InProcess::open(Arc::clone(store)).await?;
        return Ok((Arc::new(in_process), tokio::spawn(writer.run())));
    }
    let (etcd, driver) = Box::pin(Etcd::open(&options(config)?)).await?;
    Ok((Arc::new(etcd), tokio::spawn(driver.run())))
}

fn options(config: &CoordinationConfig) -> anyhow::Result<EtcdOptions> {
    Ok(EtcdOptions {
        endpoints: config.etcd.clone(),
        cluster: config.cluster.clone(),
        lease: config.lease(),
        tls: tls(config)?,
    })
}

fn tls(config: &CoordinationConfig) -> anyhow::Result<Option<EtcdTls>> {
    let read = |key: &str, path: &Path| {
        fs::read_to_string(path).with_context(|| format!("coordination.{key}: {}", path.display()))
    };
    let Some(ca) = named(&config.etcd_ca) else { return Ok(None) };
    let identity = match named(&config.etcd_certificate).zip(named(&config.etcd_key)) {
        Some((certificate, key)) => Some((read("etcd_certificate", certificate)?, read("etcd_key", key)?)),
        None => None,
    };
    Ok(Some(EtcdTls { ca: read("etcd_ca", ca)?, identity }))
}

fn named(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}
