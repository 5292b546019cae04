//! Groups that stay as they are.

use std::{
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use shoal_loadgen::{Options, plan::Shape};

use crate::served::Served;

/// Loads the node for a second.
async fn judge(served: &Served, more: &[&str]) -> (Output, Value) {
    let short = ["--groups", "2", "--members", "3", "--rate", "50", "--duration", "1s"];
    served.load("run", &[&short[..], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_run_exits_with_0_and_says_what_it_saw() {
    let served = Served::start().await;
    let (output, report) = judge(&served, &["--seed", "7"]).await;
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
        let (output, report) = judge(&served, &["--sabotage", how]).await;
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
