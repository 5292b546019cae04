//! Changes of the machine's own network, in a network namespace that the test makes.

use std::{process::Command, time::Duration};

use futures_util::StreamExt;
use shoal_client::{Transport, UdpTransport};
use tokio::time::timeout;

/// An address that nobody else has, on the interface that every machine has.
const ADDRESS: &str = "10.1.2.3/32";

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments:?}");
}

/// Set where the test runs in a namespace of its own.
const WITHIN: &str = "SHOAL_TEST_WITHIN_NAMESPACE";

#[test]
fn an_address_that_comes_or_goes_is_noticed_once() {
    if std::env::var_os(WITHIN).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(notice());
    }
    let status = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "watching::an_address_that_comes_or_goes_is_noticed_once", "--nocapture"])
        .env(WITHIN, "1")
        .status()
        .expect("util-linux is installed");
    assert!(status.success());
}

async fn notice() {
    ip(&["link", "set", "lo", "up"]);
    let mut changes = UdpTransport::watching().changes();
    let (soon, later) = (Duration::from_secs(3), Duration::from_secs(1));
    assert!(timeout(later, changes.next()).await.is_err(), "nothing has changed");
    for what in ["add", "del"] {
        ip(&["address", what, ADDRESS, "dev", "lo"]);
        assert_eq!(timeout(soon, changes.next()).await, Ok(Some(())), "{what}");
        assert!(timeout(later, changes.next()).await.is_err(), "it has changed once");
    }
}
