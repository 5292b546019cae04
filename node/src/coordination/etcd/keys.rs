//! Where things lie in etcd, below the cluster's name.

use crate::coordination::NodeName;

/// The keys of one cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    cluster: std::sync::Arc<str>,
}

impl Keys {
    pub(super) fn new(cluster: &str) -> Self {
        Self { cluster: cluster.into() }
    }

    /// What the key of every node begins with.
    pub(super) fn nodes(&self) -> String {
        format!("{}/nodes/", self.cluster)
    }

    pub(super) fn node(&self, name: &NodeName) -> String {
        format!("{}{}", self.nodes(), name.0)
    }

    pub(super) fn leader(&self) -> String {
        format!("{}/leader", self.cluster)
    }

    pub(super) fn placement(&self) -> String {
        format!("{}/placement", self.cluster)
    }

    /// What the key of every setting begins with.
    pub(super) fn settings(&self) -> String {
        format!("{}/settings/", self.cluster)
    }

    pub(super) fn setting(&self, key: &str) -> String {
        format!("{}{key}", self.settings())
    }
}

/// The first key that does not begin with `prefix`.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // The last byte of UTF-8 is never the greatest.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
