//! Starting, stopping, starting again.

use std::os::unix::fs::PermissionsExt;

use crate::running::{Running, read, run, shoal, stderr};

const KEPT: [&str; 8] =
    ["ca.pem", "ca.key", "node.pem", "node.key", "token.key", "token.pub", "node.name", "quic.secret"];

#[test]
fn a_first_start_makes_keys_and_says_how_to_try_it() {
    let node = Running::start(&[]);
    assert_eq!(node.announced["first_start"], true);
    let tried = node.announced["try_it"].to_string();
    assert!(tried.contains(&node.address()) && tried.contains(node.data()), "{tried}");
    for name in ["ca.key", "node.key", "token.key", "node.name", "quic.secret"] {
        let mode = std::fs::metadata(node.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_restart_keeps_keys_name_and_secret() {
    let first = Running::start(&[]);
    let name = first.announced["node"].clone();
    let dir = first.stop();
    let before = KEPT.map(|name| read(dir.path(), name));
    let second = Running::start_in(dir, &[]);
    assert_eq!(second.announced["first_start"], false);
    assert_eq!(second.announced["node"], name);
    assert_eq!(KEPT.map(|name| read(second.dir.path(), name)), before);
}

#[test]
fn a_node_that_was_killed_starts_again() {
    let first = Running::start(&[]);
    first.signal("-KILL");
    let (status, dir) = first.wait();
    assert!(!status.success());
    assert_eq!(Running::start_in(dir, &[]).get("/readyz").0, 200);
}

#[test]
fn health_readiness_and_metrics_are_shown() {
    let node = Running::start(&[]);
    assert_eq!(node.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(node.get("/readyz"), (200, "ready\n".into()));
    let (status, metrics) = node.get("/metrics");
    assert_eq!(status, 200);
    for name in ["shoal_sessions 0", "shoal_committed_total 0", "process_resident_memory_bytes"] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    assert_eq!(node.get("/").0, 404);
}

#[test]
fn the_file_is_read_and_flags_stand_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("shoal.toml");
    std::fs::write(&config, "name = 'from-the-file'\nops = ['127.0.0.1:1']\n").unwrap();
    let node = Running::start_in(dir, &["--config", config.to_str().unwrap()]);
    assert_eq!(node.announced["node"], "from-the-file");
    assert_eq!(node.get("/readyz").0, 200);
}

#[test]
fn two_nodes_cannot_share_a_folder() {
    let node = Running::start(&[]);
    let second = run(&["serve", "--listen", "127.0.0.1:0", "--ops", "off", "--data", node.data()]);
    assert!(!second.status.success());
    assert!(stderr(&second).contains("store"), "{}", stderr(&second));
}

#[test]
fn an_address_in_use_is_named_with_what_helps() {
    let node = Running::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let second = shoal()
        .args(["serve", "--ops", "off", "--listen", &node.address(), "--data"])
        .arg(dir.path())
        .output()
        .unwrap();
    let said = stderr(&second);
    assert!(!second.status.success());
    assert!(said.contains(&node.address()) && said.contains("--listen ADDR"), "{said}");
}

#[test]
fn a_folder_of_keys_that_anybody_may_read_is_refused() {
    let dir = Running::start(&[]).stop();
    let key = dir.path().join("token.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(&["token", "--user", "ann", "--data", dir.path().to_str().unwrap()]);
    assert!(stderr(&refused).contains("chmod"), "{}", stderr(&refused));
}

#[test]
fn an_interrupt_stops_a_node_without_clients_at_once() {
    let node = Running::start(&["--set", "drain_grace_ms=60000"]);
    let started = std::time::Instant::now();
    node.signal("-INT");
    let (status, _) = node.wait();
    assert!(status.success());
    assert!(started.elapsed().as_secs() < 30, "it waited for clients that are not there");
}
