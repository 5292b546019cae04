//! What keys mean: nodes, the leader, the placement and settings, as changes make them.

use std::{collections::BTreeMap, sync::Arc};

use tracing::error;

use super::{api::KeyValue, election};
use crate::{
    coordination::{CoordinationError, Leadership, NodeName, NodeRecord, Nodes, Placed},
    store::Setting,
};

pub(super) fn node_changed(nodes: &mut Arc<Nodes>, key: &str, found: Option<&KeyValue>) {
    let nodes = Arc::make_mut(nodes);
    match found.map(|found| serde_json::from_slice::<NodeRecord>(&found.value)) {
        Some(Ok(node)) => drop(nodes.insert(node.name.clone(), node)),
        Some(Err(error)) => error!(node = key, %error, "a node's record cannot be read"),
        None => drop(nodes.remove(&NodeName(key.to_owned()))),
    }
}

pub(super) fn leader_changed(leader: &mut Option<Leadership>, _: &str, found: Option<&KeyValue>) {
    *leader = found.and_then(election::leadership);
}

/// What cannot be read leaves the last placement standing.
pub(super) fn placement_changed(placement: &mut Arc<Placed>, _: &str, found: Option<&KeyValue>) {
    match found.map(placed).transpose() {
        Ok(placed) => *placement = Arc::new(placed.unwrap_or_default()),
        Err(error) => error!(%error, "the placement cannot be read"),
    }
}

pub(super) fn setting_changed(
    settings: &mut Arc<BTreeMap<String, Setting>>,
    key: &str,
    found: Option<&KeyValue>,
) {
    let settings = Arc::make_mut(settings);
    match found {
        Some(found) => drop(settings.insert(key.to_owned(), setting(found))),
        None => drop(settings.remove(key)),
    }
}

pub(super) fn placed(found: &KeyValue) -> Result<Placed, CoordinationError> {
    let placement = serde_json::from_slice(&found.value)
        .map_err(|error| CoordinationError::Corrupt(format!("placement: {error}")))?;
    Ok(Placed { version: found.version.unsigned_abs(), placement })
}

pub(super) fn setting(found: &KeyValue) -> Setting {
    Setting { version: found.version.unsigned_abs(), value: found.value.clone() }
}
