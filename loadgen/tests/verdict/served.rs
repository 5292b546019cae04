//! A node in this process, and the binary that loads it.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use quinn::Runtime;
use serde_json::Value;
use shoal_certs::{KeyFolder, Seed};
use shoal_node::{
    clock::{Clock, SystemClock},
    config::Limits,
    node::{Node, Parts},
    ops::Metrics,
    store::MemoryStore,
};
use tempfile::TempDir;

pub(crate) struct Served {
    node: Node,
    pub(crate) data: TempDir,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let names = ["127.0.0.1".to_owned()];
        let keys =
            KeyFolder::open_or_create(data.path(), &names, &Seed::random(), SystemClock.now_ms()).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let parts = Parts {
            sockets: vec![runtime.wrap_udp_socket(socket).unwrap()],
            runtime,
            tls: shoal_certs::server_config(&keys.identity().unwrap(), 256),
            tokens: keys.token_verifier().unwrap(),
            store: Arc::new(MemoryStore::new(1)),
            clock: Arc::new(SystemClock),
            limits,
            metrics: Arc::new(Metrics::new()),
            seed: [1; 32],
            secret: [2; 32],
            name: "node".into(),
            addresses: Vec::new(),
            cluster: None,
            settings: None,
        };
        Self { node: Node::start(parts).await.unwrap(), data }
    }

    pub(crate) fn addr(&self) -> String {
        self.node.local_addresses().unwrap()[0].to_string()
    }

    /// Runs the binary, and what it wrote as JSON.
    pub(crate) async fn load(&self, command: &str, arguments: &[&str]) -> (Output, Value) {
        let json = self.data.path().join("report.json");
        let mut load = Command::new(env!("CARGO_BIN_EXE_shoal-loadgen"));
        load.args([command, "--node", &self.addr(), "--data"]).arg(self.data.path());
        load.args(arguments).args(["--drain", "10s", "--json"]).arg(&json);
        let output = tokio::task::spawn_blocking(move || load.output().unwrap()).await.unwrap();
        (output, read_json(&json))
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
