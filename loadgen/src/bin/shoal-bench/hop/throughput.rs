//! What crossing between nodes costs: messages into one group, from senders on either node to a
//! receiver on either.
//!
//! PostgreSQL sets the pace, not the link. So what a message costs both nodes says more than how many
//! there are: what it costs beyond what it does where nothing crosses is the crossing.

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;
use shoal_protocol::GroupId;

use crate::{cluster::Cluster, setup::Setup, throughput::Flow};

/// With a hundred unanswered messages each, fewer than may wait for a lane: one too many is answered
/// `Busy`, and a client would send it again.
const SENDERS: usize = 8;

/// A node of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Node {
    Home,
    Other,
}

/// What one round of one way came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// Where the senders are.
    pub(crate) from: Node,
    /// Where the receiver is.
    pub(crate) to: Node,
    pub(crate) durable_per_second: f64,
    pub(crate) delivered_per_second: f64,
    pub(crate) home_cpu_us_per_message: f64,
    pub(crate) other_cpu_us_per_message: f64,
}

/// The ways that a message can take, from its sender to its receiver.
pub(super) const WAYS: [(Node, Node); 4] = [
    (Node::Home, Node::Home),
    (Node::Home, Node::Other),
    (Node::Other, Node::Home),
    (Node::Other, Node::Other),
];

/// Measures each of [`WAYS`].
pub(super) async fn measure(shoal: &Path, dir: &Path, length: Duration) -> Result<Vec<Sample>> {
    let cluster = Cluster::start(shoal, dir).await?;
    let mut samples = Vec::new();
    for (from, to) in WAYS {
        samples.push(way(&cluster, from, to, length).await?);
    }
    cluster.stop()?;
    Ok(samples)
}

async fn way(cluster: &Cluster, from: Node, to: Node, length: Duration) -> Result<Sample> {
    let name = format!("bench-{from:?}-{to:?}").to_lowercase();
    let group = GroupId::named(&name);
    let senders: Vec<_> = (0..SENDERS).map(|at| format!("{name}-sender-{at}")).collect();
    let receiver = format!("{name}-receiver");
    cluster.home.create_groups(&[group], &[senders.clone(), vec![receiver.clone()]].concat()).await?;
    let (sending, receiving) = (cluster.node(from), cluster.node(to));
    let logins = senders.iter().map(|user| sending.login(user, false, &[])).collect::<Result<_>>()?;
    let senders = sending.connect_all(logins).await?;
    let receivers = receiving.connect_all(vec![receiving.login(&receiver, false, &[group])?]).await?;
    let flow = Flow { groups: &[group], senders: &senders, receivers: &receivers };
    let rates = flow.measure(&[&cluster.home.server, &cluster.other.server], length).await?;
    let [home_cpu_us_per_message, other_cpu_us_per_message] = rates.cpu_us_per_message[..] else {
        unreachable!("two servers were looked at");
    };
    Ok(Sample {
        from,
        to,
        durable_per_second: rates.durable_per_second,
        delivered_per_second: rates.delivered_per_second,
        home_cpu_us_per_message,
        other_cpu_us_per_message,
    })
}

impl Cluster {
    fn node(&self, node: Node) -> &Setup {
        match node {
            Node::Home => &self.home,
            Node::Other => &self.other,
        }
    }
}
