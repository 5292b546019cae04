//! Every number the node keeps of itself, in one place; shown at `/metrics`.

use std::fmt;

use prometheus_client::{encoding::text, registry::Registry};

use super::{Counter, Gauge, Histogram, Peak, RefusalCounter, process::Process};

/// Declares the struct and its registration at once: a field's first line of documentation is its
/// help text, its name (with `shoal_` before it, and `_total` after a counter's) that of the metric.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $instrument:ty = $new:expr,)+) => {
        /// The node's numbers. Add a line here to add one.
        pub struct Metrics {
            $($(#[doc = $help])+ pub $name: $instrument,)+
            registry: Registry,
        }

        impl Metrics {
            /// All at zero.
            #[must_use]
            pub fn new() -> Self {
                let mut registry = Registry::default();
                registry.register_collector(Box::new(Process::started_now()));
                let shoal = registry.sub_registry_with_prefix("shoal");
                $(let $name: $instrument = $new;
                shoal.register(stringify!($name), first_line(&[$($help),+]), $name.clone());)+
                Self { $($name,)+ registry }
            }
        }
    };
}

metrics! {
    // Access.
    /// Connections whose handshake was begun.
    connections_accepted: Counter = Counter::default(),
    /// Connections told to prove their address first, because many handshakes were pending.
    connections_retried: Counter = Counter::default(),
    /// Connections turned away before their handshake.
    connections_refused: Counter = Counter::default(),
    /// Sessions open now.
    sessions: Gauge = Gauge::default(),
    /// Sessions opened.
    sessions_opened: Counter = Counter::default(),
    /// Hellos that came in early data (0-RTT), replays among them.
    early_hellos: Counter = Counter::default(),
    /// Sessions that ended, and hellos that were refused, by code.
    sessions_ended: RefusalCounter = RefusalCounter::default(),
    /// Changes of address that sessions outlived: clients on another network, or NATs that forgot them.
    path_changes: Counter = Counter::default(),
    /// Sessions offered another node, since this one had more than its share.
    sessions_offered: Counter = Counter::default(),
    /// Of these, those that left for it.
    sessions_moved: Counter = Counter::default(),
    /// Cursors of sessions attached to tails now.
    follows: Gauge = Gauge::default(),
    /// Delivery streams open now.
    delivery_streams: Gauge = Gauge::default(),
    /// Records written to delivery streams.
    delivered: Counter = Counter::default(),
    /// Bytes written to delivery streams.
    delivered_bytes: Counter = Counter::default(),
    /// Requests answered.
    requests: Counter = Counter::default(),
    /// Requests refused, by code.
    requests_refused: RefusalCounter = RefusalCounter::default(),
    /// Datagrams passed on to sessions here.
    datagrams_forwarded: Counter = Counter::default(),
    /// Datagrams dropped.
    datagrams_dropped: Counter = Counter::default(),
    /// Datagrams sent to other nodes, for those who follow there.
    peer_datagrams_sent: Counter = Counter::default(),
    /// Datagrams received from other nodes.
    peer_datagrams_received: Counter = Counter::default(),
    /// Datagrams to or from other nodes dropped: too many, or of a group that this node is not asked for.
    peer_datagrams_dropped: Counter = Counter::default(),
    /// Pages of the store fetched for cursors behind the window.
    pages_fetched: Counter = Counter::default(),
    /// Pages for cursors behind the window that were there already.
    pages_shared: Counter = Counter::default(),

    // Groups.
    /// Groups with a home on this node that is awake.
    groups_active: Gauge = Gauge::default(),
    /// Activations of homes, each of which raised an epoch.
    activations: Counter = Counter::default(),
    /// Plans begun: changes of a group's layout.
    plans_begun: Counter = Counter::default(),
    /// Plans that reached their end.
    plans_committed: Counter = Counter::default(),
    /// Plans that were rolled back.
    plans_rolled_back: Counter = Counter::default(),
    /// Members fetched for sub-groups that this node is to own.
    members_loaded: Counter = Counter::default(),
    /// Messages judged here, by the owner of their sender's slot.
    judged: Counter = Counter::default(),
    /// Records committed: messages, and changes of groups.
    committed: Counter = Counter::default(),
    /// Messages answered with a refusal, by code.
    publishes_refused: RefusalCounter = RefusalCounter::default(),
    /// Messages answered with the number expected instead of theirs.
    publishes_out_of_order: Counter = Counter::default(),
    /// From a message's arrival at its home to its receipt.
    publish_seconds: Histogram = Histogram::seconds(),
    /// Records in an append.
    batch_records: Histogram = Histogram::sizes(),
    /// Records received from homes on other nodes.
    received: Counter = Counter::default(),
    /// Milliseconds from a record being numbered on another node to its arrival, the longest of late.
    received_lag_ms: Peak = Peak::default(),
    /// Records that a home elsewhere has and has not sent here, the most of one group.
    received_lag_records: Gauge = Gauge::default(),
    /// Records fed to other nodes: one copy for each that follows.
    fed: Counter = Counter::default(),
    /// Appends refused because another home has taken over.
    fenced: Counter = Counter::default(),
    /// Watermarks seen above their group's tail: the sequence went back. Look at once.
    watermarks_ahead: Counter = Counter::default(),

    // Cluster.
    /// Nodes that hold their leases and are emptied because they are slow, as this node sees it.
    slow_nodes: Gauge = Gauge::default(),
    /// Milliseconds until another node or the store gave a sign of life, the longest of late.
    sign_of_life_ms: Peak = Peak::default(),
    /// Milliseconds by which this node's own timers fired late, the most of late.
    timers_late_ms: Peak = Peak::default(),
    /// Nodes that the cluster would like to have; every node says the same, but for moments.
    nodes_desired: Gauge = Gauge::default(),

    // Store.
    /// From a batch's first write to its sync.
    commit_seconds: Histogram = Histogram::seconds(),
    /// Appends and other writes in a commit.
    commit_writes: Histogram = Histogram::sizes(),
    /// Reads of the store.
    store_reads: Counter = Counter::default(),
    /// Reads of what is not what was written. Look at once.
    store_corrupt: Counter = Counter::default(),
    /// 1 as long as the store writes.
    store_writable: Gauge = Gauge::default(),
}

impl Metrics {
    /// Another second has passed: what was most of late is counted anew.
    pub(crate) fn turn(&self) {
        self.received_lag_ms.turn();
        self.sign_of_life_ms.turn();
        self.timers_late_ms.turn();
    }

    /// As OpenMetrics text, which Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        text::encode(&mut out, &self.registry).expect("a String takes all that is written to it");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Without its full stop, which the encoder adds.
fn first_line(help: &[&'static str]) -> &'static str {
    help[0].trim().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_protocol::Code;

    use super::*;

    fn line(text: &str, wanted: &str) -> bool {
        text.lines().any(|line| line == wanted)
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.delivered.add(3);
        metrics.sessions.inc();
        metrics.publishes_refused.inc(Code::Muted);
        metrics.publish_seconds.observe(Duration::from_micros(80));
        let text = metrics.render();
        assert!(line(&text, "shoal_delivered_total 3"), "{text}");
        assert!(line(&text, "shoal_sessions 1"), "{text}");
        assert!(line(&text, "shoal_publishes_refused_total{code=\"Muted\"} 1"), "{text}");
        assert!(line(&text, "shoal_publish_seconds_count 1"), "{text}");
        assert!(line(&text, "shoal_publish_seconds_bucket{le=\"0.00005\"} 0"), "{text}");
        assert!(line(&text, "shoal_publish_seconds_bucket{le=\"0.0001\"} 1"), "{text}");
    }

    #[test]
    fn every_metric_has_a_help_text_and_a_name_of_its_own() {
        let text = Metrics::new().render();
        let helps: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let mut names: Vec<&str> = helps.iter().filter_map(|help| help.split(' ').next()).collect();
        assert!(helps.iter().all(|help| help.split(' ').count() > 2), "{helps:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), helps.len());
        assert!(text.ends_with("# EOF\n"));
    }
}
