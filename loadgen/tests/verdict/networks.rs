//! Clients on weak networks, and a node on a good one.

use std::time::Duration;

use shoal_loadgen::{NetworkOptions, Options, Report, plan::Shape};
use shoal_network::Profile;

use crate::served::Served;

/// Twenty clients in two groups, for six seconds.
async fn report(network: NetworkOptions) -> Report {
    let served = Served::start().await;
    let mut options = Options::new(served.addr(), served.data.path());
    options.shapes = vec![Shape::new(2, 10)];
    (options.rate, options.duration, options.clients.network) = (40.0, Duration::from_secs(6), network);
    let report = shoal_loadgen::run(options).await.unwrap();
    assert!(report.passed && report.acknowledged == report.published, "{report}");
    assert_eq!(report.deliveries, report.published * 10, "{report}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_twentieth_is_lost_everything_arrives() {
    let network = Profile::named("conference-hall");
    let report = report(NetworkOptions { network, ..NetworkOptions::default() }).await;
    let felt = report.network.as_ref().unwrap();
    assert!(felt.lost * 50 > felt.packets && felt.lost * 10 < felt.packets, "{report}");
    assert!(report.delivery_latency_ms.p50 > 20.0, "there and back again: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_whose_addresses_change_keep_their_sessions() {
    let network = Profile::named("clear");
    let moves_every = Some(Duration::from_secs(1));
    for told in [false, true] {
        let report = report(NetworkOptions { network, moves_every, told, ..NetworkOptions::default() }).await;
        let felt = report.network.as_ref().unwrap();
        assert!(felt.moves >= 100 && felt.resumed >= 100, "{report}");
        assert_eq!(report.reconnects, 0, "{report}");
        assert_eq!(report.rebinds >= 100, told, "{report}");
    }
}
