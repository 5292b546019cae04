//! What each value allows by itself may still make no sense: zeros, contradictions, engines that
//! do not go together.

use std::{collections::BTreeSet, fmt, path::Path};

use shoal_protocol::{frame::FRAME_BYTES_MAX, id::REGION_BYTES_MAX};
use tokio_postgres::config::SslMode;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::{Config, CoordinationConfig, Limits, load::entries};
use crate::{coordination::Roles, store::postgres};

/// Keys whose value may be 0.
const ZERO_ALLOWED: [&str; 8] = [
    "drain_grace_ms",
    "drain_max_ms",
    "worker_threads",
    "limits.access.surplus_percent",
    "limits.access.surplus_sessions",
    "limits.access.offer_after_ms",
    "limits.group.plans_max",
    "limits.group.announced_members_max",
];

/// Sub-groups are spread anew no more often than this.
const REBALANCE_MIN_MS: u64 = 1_000;

/// What is in time by two looks of nodes at each other is not late.
const SLOW_MIN_MS: u64 = 500;

/// A node that offers clients another stops at a little less than this, in hundredths of its share.
const SURPLUS_MIN_PERCENT: u32 = 115;

/// Each record of a feature carries all of them.
const FEATURES_MAX: usize = 256;

/// The longest that a step of a plan is observed.
const OBSERVE_MAX_MS: u64 = 300_000;

/// The most events that a node keeps: some fifty megabytes.
const EVENTS_MAX: usize = 100_000;

/// A user's id of the greatest length, as it lies in a request.
const USER_BYTES_MAX: usize = shoal_protocol::id::USER_ID_BYTES_MAX + 2;

/// A key with a value that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key.
    pub key: String,
    /// A sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// All that is wrong with a configuration.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    zeros(config, &mut found);
    node(config, &mut found);
    engines(config, &mut found);
    etcd(&config.coordination, &mut found);
    access(&config.limits, &mut found);
    group(&config.limits, &mut found);
    cluster(&config.limits, &mut found);
    found
}

fn zeros(config: &Config, found: &mut Vec<Problem>) {
    let zero = |(_, value): &(String, Value)| value.as_integer() == Some(0);
    for (key, _) in entries(config).into_iter().filter(zero) {
        if !ZERO_ALLOWED.contains(&key.as_str()) {
            found.push(Problem { key, message: "0 is not allowed".into() });
        }
    }
}

fn node(config: &Config, found: &mut Vec<Problem>) {
    let mut problem = |key: &str, message| found.push(Problem { key: key.into(), message });
    if config.listen.is_empty() {
        problem("listen", "a node needs one address at least".into());
    }
    let twice = |addresses: &[std::net::SocketAddr]| {
        let fixed: Vec<_> = addresses.iter().filter(|address| address.port() != 0).collect();
        fixed.iter().collect::<BTreeSet<_>>().len() != fixed.len()
    };
    if twice(&config.listen) {
        problem("listen", "an address is named twice".into());
    }
    if twice(&config.ops) {
        problem("ops", "an address is named twice".into());
    }
    let roles: BTreeSet<_> = config.roles.iter().collect();
    if roles.is_empty() || roles.len() < config.roles.len() {
        problem("roles", "one or more of access, group and coordination are wanted, each once".into());
    }
    if config.coordination.etcd.is_empty() && config.roles() != Roles::ALL {
        problem("roles", "a node alone has all roles: others are reached by coordination.etcd".into());
    }
    if config.region.trim().is_empty() {
        problem("region", "a node is in one region".into());
    }
    if config.region.len() > REGION_BYTES_MAX {
        problem("region", format!("its name has {REGION_BYTES_MAX} bytes at most"));
    }
    if let Some(address) = config.advertise.iter().find(|address| !is_host_and_port(address)) {
        problem("advertise", format!("{address:?} is not of the form host:port"));
    }
    if let Some(address) = config.peer_advertise.iter().find(|address| !is_host_and_port(address)) {
        problem("peer_advertise", format!("{address:?} is not of the form host:port"));
    }
    let is_clustered = !config.coordination.etcd.is_empty();
    if is_clustered && config.peer_listen.ip().is_unspecified() && config.peer_advertise.is_empty() {
        problem(
            "peer_advertise",
            format!("other nodes cannot reach {}: say at which address they can", config.peer_listen.ip()),
        );
    }
    if let Err(error) = EnvFilter::try_new(&config.log) {
        problem("log", format!("{:?} is no filter: {error}", config.log));
    }
}

fn engines(config: &Config, found: &mut Vec<Problem>) {
    let store = &config.store;
    let mut problem = |key: &str, message| found.push(Problem { key: key.into(), message });
    if !config.coordination.etcd.is_empty() && store.postgres.is_empty() {
        problem(
            "coordination.etcd",
            "etcd is for several nodes, and these must share one store; with an embedded store each would \
             number the same groups in a store of its own. Set store.postgres, or leave etcd out"
                .into(),
        );
    }
    let trusts_nobody = store.postgres_ca.as_os_str().is_empty();
    for (number, url) in (1..).zip(&store.postgres) {
        match postgres::parse_url(url) {
            Err(why) => problem("store.postgres", format!("URL {number}: {why}")),
            Ok(parsed) if trusts_nobody && parsed.get_ssl_mode() == SslMode::Require => problem(
                "store.postgres_ca",
                format!("URL {number} of store.postgres asks for TLS; say which authorities to trust"),
            ),
            Ok(_) => {}
        }
    }
    if store.postgres.is_empty() && !trusts_nobody {
        problem("store.postgres_ca", "it is of no use without store.postgres".into());
    }
}

fn etcd(config: &CoordinationConfig, found: &mut Vec<Problem>) {
    let mut problem = |key: &str, message| found.push(Problem { key: key.into(), message });
    let is_set = |path: &Path| !path.as_os_str().is_empty();
    for endpoint in &config.etcd {
        match endpoint.split_once("://") {
            Some(("http", host)) if is_host_and_port(host) => {}
            Some(("https", host)) if is_host_and_port(host) && is_set(&config.etcd_ca) => {}
            Some(("https", host)) if is_host_and_port(host) => problem(
                "coordination.etcd_ca",
                format!("{endpoint} asks for TLS; say which authorities to trust"),
            ),
            _ => problem("coordination.etcd", format!("{endpoint:?} is not of the form http://host:port")),
        }
    }
    if config.cluster.is_empty() || config.cluster.contains('/') {
        problem("coordination.cluster", "a name without / is wanted".into());
    }
    if is_set(&config.etcd_certificate) != is_set(&config.etcd_key) {
        problem("coordination.etcd_key", "a certificate and its key go together".into());
    }
    if is_set(&config.etcd_certificate) && !is_set(&config.etcd_ca) {
        problem("coordination.etcd_certificate", "it is of no use without coordination.etcd_ca".into());
    }
}

fn access(limits: &Limits, found: &mut Vec<Problem>) {
    let access = &limits.access;
    let mut at_most = |key: &str, value: u64, limit: u64, of: &str| {
        if value > limit {
            found.push(Problem {
                key: key.into(),
                message: format!("{value} is above {of}, which is {limit}"),
            });
        }
    };
    at_most(
        "limits.access.newcomers_before_retry",
        access.newcomers_before_retry as u64,
        access.newcomers_max as u64,
        "limits.access.newcomers_max",
    );
    at_most(
        "limits.access.sessions_per_user_max",
        access.sessions_per_user_max as u64,
        access.sessions_max as u64,
        "limits.access.sessions_max",
    );
    at_most(
        "limits.access.heartbeat_ms",
        access.heartbeat_ms.into(),
        access.idle_timeout_ms.into(),
        "limits.access.idle_timeout_ms",
    );
}

fn group(limits: &Limits, found: &mut Vec<Problem>) {
    let (group, access) = (&limits.group, &limits.access);
    let mut at_least = |key: &str, value: usize, least: usize, what: &str| {
        if value < least {
            found.push(Problem {
                key: key.into(),
                message: format!("{value} is below {what}, which is {least}"),
            });
        }
    };
    let payload = group.payload_bytes_max;
    at_least(
        "limits.group.window_bytes_max",
        group.window_bytes_max,
        payload,
        "limits.group.payload_bytes_max",
    );
    at_least(
        "limits.group.windows_bytes_max",
        group.windows_bytes_max,
        group.window_bytes_max,
        "limits.group.window_bytes_max",
    );
    at_least(
        "limits.group.batch_bytes_max",
        group.batch_bytes_max,
        payload,
        "limits.group.payload_bytes_max",
    );
    let window = access.stream_receive_window_bytes as usize;
    at_least(
        "limits.access.receive_window_bytes",
        access.receive_window_bytes as usize,
        window,
        "limits.access.stream_receive_window_bytes",
    );
    if group.rebalance_ms < REBALANCE_MIN_MS {
        let message = format!("{} is below {REBALANCE_MIN_MS}, the least", group.rebalance_ms);
        found.push(Problem { key: "limits.group.rebalance_ms".into(), message });
    }
    if group.features_max > FEATURES_MAX {
        let message = format!("a group's row holds no more than {FEATURES_MAX}");
        found.push(Problem { key: "limits.group.features_max".into(), message });
    }
    let users_max = FRAME_BYTES_MAX / USER_BYTES_MAX;
    if group.change_users_max > users_max {
        let message = format!("a request holds no more than {users_max} users");
        found.push(Problem { key: "limits.group.change_users_max".into(), message });
    }
    let mut at_most = |key: &str, value: u64, most: u64, why: &str| {
        if value > most {
            found.push(Problem { key: key.into(), message: format!("{value} is above {most}: {why}") });
        }
    };
    at_most(
        "limits.group.plan_observe_ms",
        group.plan_observe_ms,
        OBSERVE_MAX_MS,
        "a plan that takes hours is overtaken by its group",
    );
    at_most("limits.group.plan_rate_percent", group.plan_rate_percent.into(), 100, "a plan slows members");
}

fn cluster(limits: &Limits, found: &mut Vec<Problem>) {
    let surplus = limits.access.surplus_percent;
    if (1..SURPLUS_MIN_PERCENT).contains(&surplus) {
        let message = format!("{surplus} is below {SURPLUS_MIN_PERCENT}, the least; 0 offers nothing");
        found.push(Problem { key: "limits.access.surplus_percent".into(), message });
    }
    let headroom = limits.cluster.headroom_percent;
    if headroom > 90 {
        let message = format!("{headroom} hundredths leave no room for work: up to 90 may stay free");
        found.push(Problem { key: "limits.cluster.headroom_percent".into(), message });
    }
    let cluster = &limits.cluster;
    if cluster.events_max > EVENTS_MAX {
        let message = format!("{} is above {EVENTS_MAX}: they are kept in memory", cluster.events_max);
        found.push(Problem { key: "limits.cluster.events_max".into(), message });
    }
    let leasts = [
        ("limits.cluster.slow_ms", cluster.slow_ms, SLOW_MIN_MS, "nodes look at each other no more often"),
        ("limits.cluster.slow_after_ms", cluster.slow_after_ms, 1_000, "one look is not enough"),
        ("limits.cluster.well_after_ms", cluster.well_after_ms, 1_000, "one look is not enough"),
    ];
    for (key, value, least, why) in leasts {
        if value < least {
            found.push(Problem { key: key.into(), message: format!("{value} is below {least}: {why}") });
        }
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        problems(&config).into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_defaults_can_be_used() {
        assert_eq!(problems(&Config::default()), []);
    }

    #[test]
    fn who_offers_clients_another_node_has_clearly_too_many() {
        let wrong = |percent| keys(|config| config.limits.access.surplus_percent = percent);
        assert_eq!(wrong(114), ["limits.access.surplus_percent"]);
        assert!([0, 115, 125].into_iter().all(|percent| wrong(percent).is_empty()));
    }

    #[test]
    fn a_region_has_a_name_that_clients_can_state() {
        let wrong = |name: &str| keys(|config| config.region = name.into());
        assert_eq!([wrong(" "), wrong(&"r".repeat(REGION_BYTES_MAX + 1))], [["region"], ["region"]]);
        assert!(wrong(&"r".repeat(REGION_BYTES_MAX)).is_empty());
    }

    #[test]
    fn a_zero_is_refused_by_the_name_of_its_key() {
        assert_eq!(keys(|config| config.limits.group.queue_max = 0), ["limits.group.queue_max"]);
        assert_eq!(keys(|config| config.limits.store.appends_max = 0), ["limits.store.appends_max"]);
        assert_eq!(keys(|config| config.drain_grace_ms = 0), [""; 0]);
    }

    #[test]
    fn contradictions_are_all_reported_at_once() {
        let found = keys(|config| {
            config.listen.clear();
            config.log = "shoal=loud".into();
            config.advertise = vec!["no-port".into()];
            config.limits.access.newcomers_before_retry = config.limits.access.newcomers_max + 1;
            config.limits.group.window_bytes_max = 10;
        });
        let expected = [
            "listen",
            "advertise",
            "log",
            "limits.access.newcomers_before_retry",
            "limits.group.window_bytes_max",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_node_has_a_role_and_one_alone_has_all() {
        let with = |roles: &[Role], etcd: &[&str]| {
            keys(|config| {
                config.roles = roles.into();
                config.store.postgres = vec!["postgres://db/shoal".into()];
                config.coordination.etcd = etcd.iter().map(ToString::to_string).collect();
            })
        };
        let etcd = ["http://a:2379"];
        assert_eq!(with(&[Role::Access], &etcd), [""; 0]);
        assert_eq!(with(&[Role::Group, Role::Group], &etcd), ["roles"]);
        assert_eq!(with(&[Role::Access, Role::Group], &[]), ["roles"]);
        assert_eq!(with(&[], &etcd), ["roles"]);
    }

    #[test]
    fn etcd_over_an_embedded_store_is_refused_with_the_reason() {
        let mut config = Config::default();
        config.coordination.etcd = vec!["http://etcd:2379".into()];
        let found = problems(&config);
        assert_eq!(found[0].key, "coordination.etcd");
        assert!(found[0].message.contains("share one store"), "{}", found[0].message);
    }

    #[test]
    fn databases_that_cannot_be_used_are_refused_by_the_names_of_their_keys() {
        let with = |url: &str, ca: &str| {
            keys(|config| {
                config.store.postgres = url.split_whitespace().map(Into::into).collect();
                config.store.postgres_ca = ca.into();
                config.coordination.etcd = vec!["http://etcd:2379".into()];
            })
        };
        assert_eq!(with("postgres://shoal@db/shoal postgres://a,b/shoal?sslmode=disable", ""), [""; 0]);
        assert_eq!(with("postgres://db/shoal?sslmode=require", "ca.pem"), [""; 0]);
        assert_eq!(with("db:5432", ""), ["store.postgres"]);
        assert_eq!(with("postgres://db/shoal mysql://db", ""), ["store.postgres"]);
        assert_eq!(with("postgres://db/shoal?sslmode=perhaps", ""), ["store.postgres"]);
        assert_eq!(with("postgres://db/shoal?sslmode=require", ""), ["store.postgres_ca"]);
        assert_eq!(with("", "ca.pem"), ["coordination.etcd", "store.postgres_ca"]);
    }

    #[test]
    fn an_etcd_that_cannot_be_used_is_refused_by_the_names_of_its_keys() {
        let with = |etcd: &str, change: fn(&mut CoordinationConfig)| {
            keys(|config| {
                config.store.postgres = vec!["postgres://db/shoal".into()];
                config.coordination.etcd = etcd.split_whitespace().map(Into::into).collect();
                change(&mut config.coordination);
            })
        };
        assert_eq!(with("http://a:2379 http://[::1]:2379", |_| {}), [""; 0]);
        assert_eq!(with("https://a:2379", |etcd| etcd.etcd_ca = "ca.pem".into()), [""; 0]);
        assert_eq!(with("https://a:2379", |_| {}), ["coordination.etcd_ca"]);
        assert_eq!(with("a:2379", |_| {}), ["coordination.etcd"]);
        assert_eq!(with("http://a", |_| {}), ["coordination.etcd"]);
        assert_eq!(with("", |etcd| etcd.cluster = "a/b".into()), ["coordination.cluster"]);
        assert_eq!(with("", |etcd| etcd.lease_ms = 0), ["coordination.lease_ms"]);
        assert_eq!(
            with("", |etcd| etcd.etcd_certificate = "node.pem".into()),
            ["coordination.etcd_key", "coordination.etcd_certificate"]
        );
    }
}
