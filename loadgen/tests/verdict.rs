//! The real binary against a node in this process: it passes a good run, and fails one in which a
//! delivery was spoilt on purpose.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use quinn::Runtime;
use serde_json::Value;
use shoal_certs::{KeyFolder, Seed};
use shoal_loadgen::{Options, plan::Shape};
use shoal_node::{
    clock::{Clock, SystemClock},
    config::Limits,
    node::{Node, Parts},
    ops::Metrics,
    store::MemoryStore,
};
use tempfile::TempDir;

struct Served {
    node: Node,
    data: TempDir,
}

impl Served {
    async fn start() -> Self {
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
            limits: Limits::default(),
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

    fn addr(&self) -> String {
        self.node.local_addresses().unwrap()[0].to_string()
    }

    /// Runs the binary for a second, and what it wrote as JSON.
    async fn judge(&self, more: &[&str]) -> (Output, Value) {
        let json = self.data.path().join("report.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-loadgen"));
        command.args(["run", "--node", &self.addr(), "--data"]).arg(self.data.path());
        command.args([
            "--groups",
            "2",
            "--members",
            "3",
            "--rate",
            "50",
            "--duration",
            "1s",
            "--drain",
            "5s",
        ]);
        command.args(more).arg("--json").arg(&json);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output, read_json(&json))
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_run_exits_with_0_and_says_what_it_saw() {
    let served = Served::start().await;
    let (output, report) = served.judge(&["--seed", "7"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(report["connections"], 6);
    assert_eq!(report["published"], 50);
    assert_eq!(report["acknowledged"], 50);
    assert_eq!(report["deliveries"], 150);
    assert_eq!(report["seed"], 7);
    assert!(report["delivery_latency_ms"]["p50"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_a_spoilt_delivery_exits_with_1_and_names_it() {
    let served = Served::start().await;
    let spoilt =
        [("drop", "lost"), ("double", "duplicated"), ("swap", "reordered"), ("corrupt", "corrupted")];
    for (how, field) in spoilt {
        let (output, report) = served.judge(&["--sabotage", how]).await;
        assert_eq!(output.status.code(), Some(1), "{how}: {output:?}");
        assert_eq!(report[field], 1, "{how}: {report}");
        assert_ne!(report["findings"].as_array().unwrap().len(), 0, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_begin_exits_with_2_and_says_what_to_do() {
    let served = Served::start().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-loadgen"));
    command.args(["run", "--node", &served.addr(), "--data", "no-such-folder"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("no-such-folder") && told.contains("--data"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_reading_or_leave_and_come_back_miss_nothing() {
    let served = Served::start().await;
    let mut options = Options::new(served.addr(), served.data.path());
    options.shapes = vec![Shape::new(2, 10)];
    options.rate = 400.0;
    options.duration = Duration::from_secs(4);
    options.slow = 20.0;
    options.churn = 30.0;
    let report = shoal_loadgen::run(options).await.unwrap();
    assert!(report.passed, "{report}");
    assert!(report.restarts > 0 && report.pauses > 0 && report.behind_max > 0, "{report}");
    assert_eq!((report.acknowledged, report.deliveries), (1600, 16_000), "{report}");
}
