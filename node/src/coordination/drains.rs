//! Which nodes are to be emptied: a wish of whoever runs them, kept as a setting, so that it outlives
//! the node that was asked.
//!
//! A wish ends by [`end`]: when somebody takes it back, when the node has gone in good order, and when
//! it starts anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;

use super::{Coordination, CoordinationError, NodeName};
use crate::store::Setting;

const PREFIX: &str = "drain/";

/// The nodes that are to be emptied, now and whenever that changes.
#[derive(Debug, Clone)]
pub struct Drains(watch::Receiver<Arc<BTreeMap<String, Setting>>>);

impl Drains {
    /// Begins to watch.
    ///
    /// # Errors
    /// Where coordination is away.
    pub async fn watch(coordination: &dyn Coordination) -> Result<Self, CoordinationError> {
        Ok(Self(coordination.watch(PREFIX).await?))
    }

    /// Is this node to be emptied?
    #[must_use]
    pub fn contains(&self, node: &NodeName) -> bool {
        self.0.borrow().contains_key(&key(node))
    }

    /// All of them.
    #[must_use]
    pub fn names(&self) -> BTreeSet<NodeName> {
        names(&self.0.borrow())
    }

    /// All of them; [`Self::changed`] waits for others than these.
    pub fn see(&mut self) -> BTreeSet<NodeName> {
        names(&self.0.borrow_and_update())
    }

    /// Waits for a change; false once nobody will say so any more. Cancellation safe.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Wishes a node emptied, in the name of `by`. One that is wished for already stays.
///
/// # Errors
/// Where coordination is away; it may have been written.
pub async fn wish(
    coordination: &dyn Coordination,
    node: &NodeName,
    by: &str,
) -> Result<(), CoordinationError> {
    let value = by.as_bytes().to_vec().into();
    coordination.compare_and_swap(&key(node), 0, Some(value)).await.map(drop)
}

/// Takes the wish back, if there is one.
///
/// # Errors
/// Where coordination is away; it may have been taken back.
pub async fn end(coordination: &dyn Coordination, node: &NodeName) -> Result<(), CoordinationError> {
    let key = key(node);
    while let Some(wish) = coordination.setting(&key).await? {
        if coordination.compare_and_swap(&key, wish.version, None).await?.is_ok() {
            break;
        }
    }
    Ok(())
}

fn names(wishes: &BTreeMap<String, Setting>) -> BTreeSet<NodeName> {
    wishes.keys().filter_map(|key| Some(NodeName(key.strip_prefix(PREFIX)?.to_owned()))).collect()
}

/// The setting that says so.
#[must_use]
pub fn key(node: &NodeName) -> String {
    format!("{PREFIX}{}", node.0)
}
