//! `shoal serve`: a node from its first start to its last client.

mod announce;

mod coordination;

mod lifecycle;

mod sockets;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use quinn::{Runtime, TokioRuntime};
use shoal_node::{
    clock::{Clock, SystemClock},
    config::{Config, Loaded, LogFormat, Origin, Override},
    coordination::{Coordination, Load, NodeName, NodeRecord},
    node::{ClusterParts, Node, Parts},
    ops::Metrics,
    peer::PeerTls,
    settings::Settings,
    store::{FjallStore, PostgresStore, Store},
};
use tracing::{info, warn};

use super::{Shared, config::Sources, config::flag, folder::Folder, log};
use announce::Announcement;
pub(super) use lifecycle::Signals;
use lifecycle::{Phase, Running};
use sockets::Sockets;

/// Threads for reads of the store; more reads wait. tokio's 512 would each keep memory of its own.
const BLOCKING_THREADS_MAX: usize = 16;

/// Run a node until it is told to stop.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    sources: Sources,
    /// A UDP address for clients; give one for each [default: 127.0.0.1:4433, and ::1 at the same port].
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// The folder of keys and records [default: shoal-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A TCP address for /metrics, /healthz and /readyz, or `off` [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR")]
    ops: Vec<String>,
}

impl Serve {
    pub(super) fn run(self, shared: &Shared) -> anyhow::Result<()> {
        let mut loaded = self.sources.load(shared, self.flags()?)?;
        let config = &mut loaded.config;
        if shared.json {
            config.log_format = LogFormat::Json;
            loaded.origins.insert("log_format".into(), Origin::Flag);
        }
        let filter = log::init(&config.log, config.log_format)?;
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.max_blocking_threads(BLOCKING_THREADS_MAX);
        if config.worker_threads > 0 {
            runtime.worker_threads(config.worker_threads);
        }
        let runtime = runtime.enable_all().build().context("the runtime cannot be started")?;
        let outcome = runtime.block_on(Box::pin(serve(loaded, filter)));
        runtime.shutdown_background();
        outcome
    }

    fn flags(&self) -> anyhow::Result<Vec<Override>> {
        let mut flags = Vec::new();
        if !self.listen.is_empty() {
            let all: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
            flags.push(flag("listen", &all.join(","), "--listen"));
        }
        if let Some(data) = &self.data {
            let data = data.to_str().context("--data: the path is not UTF-8")?;
            flags.push(flag("data", data, "--data"));
        }
        match self.ops.as_slice() {
            [] => {}
            [off] if off == "off" => flags.push(flag("ops", "", "--ops")),
            addresses => flags.push(flag("ops", &addresses.join(","), "--ops")),
        }
        Ok(flags)
    }
}

/// From the folder to the last client.
async fn serve(loaded: Loaded, filter: log::Filter) -> anyhow::Result<()> {
    let config = loaded.config.clone();
    let signals = Signals::install()?;
    let folder = Folder::open_or_create(&config).context("data folder")?;
    let sockets = Sockets::bind(&config).await?;
    let metrics = Arc::new(Metrics::new());
    let phase = Phase::starting();
    let ops = sockets.serve_ops(&metrics, &phase)?;

    let store = open_store(&config, &folder, &metrics).await?;
    phase.follow(&store);
    let addresses = advertised(&config, &sockets);
    let (coordination, driver) =
        coordination::open(&config.coordination, &store).await.context("coordination")?;
    let record = record(&config, &folder, &sockets, addresses.clone());
    let settings = Settings::begin(loaded, Arc::clone(&coordination)).await.context("coordination")?;
    let settings = Arc::new(settings);
    let mut parts = parts(&config, &folder, &sockets, &store, &metrics, addresses)?;
    (parts.limits, parts.settings) = (settings.config().limits, Some(Arc::clone(&settings)));
    parts.cluster = others(&config, &folder, &sockets, &coordination, &*parts.runtime)?;
    let node = Node::start(parts).await.context("the node cannot be started")?;
    // Nothing is given to it before it serves.
    let registration = coordination.register(record).await.context("coordination")?;
    phase.ready();
    info!(node = folder.name, version = env!("CARGO_PKG_VERSION"), listen = ?sockets.clients, "serving");
    Announcement::new(&config, &folder, &sockets)?.show(config.log_format)?;

    let (roles, grace) = (config.roles(), config.coordination.lease());
    let running = Running { node, coordination, registration, settings, filter, roles, grace, phase };
    running.until_stopped(signals).await;
    ops.abort();
    // It ends with the last handle, and the store is closed with it.
    driver.await.context("coordination's task")
}

/// Opening reads what a crash left, which may take a while.
async fn open_store(
    config: &Config,
    folder: &Folder,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Arc<dyn Store>> {
    if !config.store.postgres.is_empty() {
        let opened = PostgresStore::open_counted(&config.store, &config.limits.store, Arc::clone(metrics));
        return Ok(Arc::new(Box::pin(opened).await.context("the store on PostgreSQL does not open")?));
    }
    let (path, limits, metrics) = (folder.store.clone(), config.limits.store.clone(), Arc::clone(metrics));
    let open = move || FjallStore::open_counted(&path, &limits, metrics);
    let store = tokio::task::spawn_blocking(open).await?;
    Ok(Arc::new(store.with_context(|| format!("the store in {} does not open", folder.store.display()))?))
}

fn parts(
    config: &Config,
    folder: &Folder,
    sockets: &Sockets,
    store: &Arc<dyn Store>,
    metrics: &Arc<Metrics>,
    addresses: Vec<String>,
) -> anyhow::Result<Parts> {
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
    let identity = folder.keys.identity()?;
    Ok(Parts {
        sockets: sockets.wrapped(&*runtime)?,
        runtime,
        tls: shoal_certs::server_config(&identity, config.limits.access.sessions_max),
        tokens: folder.keys.token_verifier()?,
        store: Arc::clone(store),
        clock: Arc::new(SystemClock),
        limits: config.limits.clone(),
        metrics: Arc::clone(metrics),
        seed: rand::random(),
        secret: folder.secret,
        name: folder.name.clone(),
        addresses,
        cluster: None,
        settings: None,
    })
}

/// What it takes to be one node among others, where the configuration says that there are some.
fn others(
    config: &Config,
    folder: &Folder,
    sockets: &Sockets,
    coordination: &Arc<dyn Coordination>,
    runtime: &dyn Runtime,
) -> anyhow::Result<Option<ClusterParts>> {
    let Some(socket) = sockets.wrapped_peer(runtime)? else { return Ok(None) };
    let identity = folder.keys.identity()?;
    Ok(Some(ClusterParts {
        socket,
        tls: PeerTls {
            server: shoal_certs::peer_server_config(&identity),
            client: shoal_certs::peer_client_config(&identity),
        },
        coordination: Arc::clone(coordination),
        cluster: config.coordination.cluster.clone(),
        through: None,
    }))
}

/// The addresses that clients are told: those of the configuration, or those listened on.
fn advertised(config: &Config, sockets: &Sockets) -> Vec<String> {
    if !config.advertise.is_empty() {
        return config.advertise.clone();
    }
    let reachable = sockets.clients.iter().filter(|address| !address.ip().is_unspecified());
    reachable.map(ToString::to_string).collect()
}

fn record(config: &Config, folder: &Folder, sockets: &Sockets, addresses: Vec<String>) -> NodeRecord {
    let listened = || sockets.peers.iter().map(ToString::to_string).collect();
    let peers = if config.peer_advertise.is_empty() { listened() } else { config.peer_advertise.clone() };
    NodeRecord {
        name: NodeName(folder.name.clone()),
        addresses,
        peer_addresses: peers,
        roles: config.roles(),
        region: config.region.clone(),
        capacity: std::thread::available_parallelism()
            .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
        started_ms: SystemClock.now_ms(),
        load: Load::default(),
    }
}
