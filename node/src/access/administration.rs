//! What administrators ask: how the node does, how all of them do, to empty one, which settings hold, how
//! groups are cut, and what has happened.

use shoal_protocol::{Code, Refusal, wire};
use wire::response::Body as Answer;

use super::{Shared, events, session::Session};
use crate::{
    cluster::describe,
    coordination::{Load, NodeName, NodeRecord, PARTITIONS, Roles},
    ops::{Event, Kind},
    settings::Settings,
};

/// What this node does.
pub(super) fn status(shared: &Shared, session: &Session) -> Result<Answer, Refusal> {
    check(session)?;
    let uptime = shared.started.elapsed().as_millis();
    Ok(Answer::Status(wire::Status {
        node: shared.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: u64::try_from(uptime).unwrap_or(u64::MAX),
        sessions: shared.sessions.len() as u64,
        active_groups: shared.groups.awake() as u64,
        committed: shared.metrics.committed.get(),
        delivered: shared.metrics.delivered.get(),
        writable: shared.store.health().is_ok(),
    }))
}

/// All nodes; of a node alone, itself.
pub(super) async fn cluster(shared: &Shared, session: &Session) -> Result<Answer, Refusal> {
    check(session)?;
    let cluster = match &shared.others {
        Some(others) => others.state().await,
        None => alone(shared),
    };
    let nodes_desired = u32::try_from(shared.metrics.nodes_desired.get()).unwrap_or_default();
    Ok(Answer::Cluster(wire::Cluster { nodes_desired, ..cluster }))
}

/// Wishes a node emptied, or takes the wish back.
pub(super) async fn drain(
    shared: &Shared,
    session: &Session,
    asked: wire::DrainNode,
) -> Result<Answer, Refusal> {
    check(session)?;
    let alone = || Refusal::new(Code::BadRequest, "there is no other node that could take over");
    let others = shared.others.as_ref().ok_or_else(alone)?;
    let node = NodeName(asked.node);
    if asked.cancel {
        others.cancel_drain(&node).await?;
    } else {
        others.wish_drained(&node, session.actor().user.as_str()).await?;
    }
    Ok(Answer::Done(wire::Done {}))
}

/// The settings by which this node goes; once others are set live, where the asker waits for that.
pub(super) async fn config(
    shared: &Shared,
    session: &Session,
    asked: wire::GetConfig,
) -> Result<Answer, Refusal> {
    let settings = settings(shared, session)?;
    if asked.unless != 0 {
        settings.changed_from(asked.unless).await;
    }
    Ok(Answer::Config(settings.shown()))
}

/// Sets something live, for all nodes, or takes it away.
pub(super) async fn set_config(
    shared: &Shared,
    session: &Session,
    asked: wire::SetConfig,
) -> Result<Answer, Refusal> {
    let settings = settings(shared, session)?;
    settings.change(&asked.key, asked.value.as_deref()).await?;
    let by = &session.actor().user;
    let text = match &asked.value {
        Some(value) => format!("{by} has set {} to {value}, for all nodes", asked.key),
        None => format!("{by} has taken away what was set for all nodes as {}", asked.key),
    };
    shared.events.tell(Event::new(Kind::SettingChanged, text));
    Ok(Answer::Done(wire::Done {}))
}

/// How a group is cut, and how its owners do.
pub(super) async fn layout(
    shared: &Shared,
    session: &Session,
    asked: &wire::GetLayout,
) -> Result<Answer, Refusal> {
    check(session)?;
    shared.views.layout(asked, &shared.name).await.map(Answer::Layout)
}

/// Which groups' layouts are being changed.
pub(super) async fn plans(
    shared: &Shared,
    session: &Session,
    asked: &wire::GetPlans,
) -> Result<Answer, Refusal> {
    check(session)?;
    shared.views.plans(asked, &shared.name).await.map(Answer::Plans)
}

/// What has happened on all nodes; once something has, where the asker waits for that.
pub(super) async fn events(
    shared: &Shared,
    session: &Session,
    asked: &wire::GetEvents,
) -> Result<Answer, Refusal> {
    check(session)?;
    Ok(Answer::Events(events::of_all(shared, asked).await))
}

fn settings<'s>(shared: &'s Shared, session: &Session) -> Result<&'s Settings, Refusal> {
    check(session)?;
    let none = || Refusal::new(Code::BadRequest, "this node's settings do not change while it runs");
    shared.settings.as_deref().ok_or_else(none)
}

fn check(session: &Session) -> Result<(), Refusal> {
    match session.actor().admin {
        true => Ok(()),
        false => Err(Refusal::new(Code::NotAllowed, "the state of nodes is for administrators")),
    }
}

fn alone(shared: &Shared) -> wire::Cluster {
    let load = Load {
        sessions: shared.sessions.len() as u64,
        groups: shared.groups.awake() as u64,
        committed: shared.metrics.committed.get(),
        ..Load::default()
    };
    let node = NodeRecord {
        name: NodeName(shared.name.clone()),
        addresses: shared.addresses.clone(),
        peer_addresses: Vec::new(),
        roles: Roles::ALL,
        region: String::new(),
        capacity: 1,
        started_ms: 0,
        load,
    };
    wire::Cluster {
        nodes: vec![describe(&node, false, None, true, PARTITIONS.into())],
        leader: shared.name.clone(),
        partitions: PARTITIONS.into(),
        ..wire::Cluster::default()
    }
}
