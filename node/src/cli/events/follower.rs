//! Follows the events of all nodes, each at a watermark of its own: what nodes answer goes in, lines come
//! out. What cannot be shown is said: events that a node keeps no more, a node that counts anew, one that
//! does not answer.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use serde::Serialize;
use shoal_protocol::{GroupId, Refusal, wire};
use wire::event::Severity;

/// An event of a node, or what the follower says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// As RFC 3339, by the node's clock.
    time: String,
    node: String,
    /// Where it stands among the node's events; null of what the follower says itself.
    number: Option<u64>,
    kind: String,
    /// info, warning or error.
    severity: &'static str,
    /// Null where it is about no group.
    group: Option<String>,
    text: String,
}

/// How far it has got.
#[derive(Debug, Default)]
pub(super) struct Follower {
    nodes: BTreeMap<String, Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    /// None before the node has answered.
    watermark: Option<wire::EventWatermark>,
    is_silent: bool,
}

impl Follower {
    /// Where to go on.
    pub(super) fn watermarks(&self) -> Vec<wire::EventWatermark> {
        self.nodes.values().filter_map(|node| node.watermark.clone()).collect()
    }

    /// What is to be shown, in the order of its time, and each node's in the node's own.
    pub(super) fn take(&mut self, answer: wire::Events, now_ms: u64) -> Vec<Line> {
        let mut lines: Vec<(u64, Line)> = Vec::new();
        for node in answer.nodes {
            // A clock that is set back does not put a node's events into another order.
            let mut latest = 0;
            for (time_ms, line) in self.take_node(node, now_ms) {
                latest = latest.max(time_ms);
                lines.push((latest, line));
            }
        }
        lines.sort_by_key(|(time_ms, _)| *time_ms);
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn take_node(&mut self, answer: wire::NodeEvents, now_ms: u64) -> Vec<(u64, Line)> {
        let Some(watermark) = answer.watermark else { return Vec::new() };
        let name = watermark.node.clone();
        let node = self.nodes.entry(name.clone()).or_default();
        let mut lines = Vec::new();
        let was_silent = std::mem::replace(&mut node.is_silent, answer.failure.is_some());
        if let Some(failure) = answer.failure {
            let text = format!("the node does not answer: {}", Refusal::from(failure).reason);
            let silent = (now_ms, Line::own(&name, now_ms, "silent", "warning", text));
            lines.extend((!was_silent).then_some(silent));
            return lines;
        }
        let at = answer.events.first().map_or(now_ms, |event| event.time_ms);
        let mut say = |kind, severity, text: &str| {
            lines.push((at, Line::own(&name, at, kind, severity, text.to_owned())));
        };
        if was_silent {
            say("answers", "info", "the node answers again");
        }
        if node.watermark.as_ref().is_some_and(|before| before.life != watermark.life) {
            say("restarted", "warning", "the node has begun anew: what it told last may be lost");
        }
        if answer.missed > 0 {
            say("missed", "warning", &format!("{} events of the node are kept no more", answer.missed));
        }
        lines.extend(answer.events.into_iter().map(|event| (event.time_ms, Line::of(&name, event))));
        node.watermark = Some(watermark);
        lines
    }
}

impl Line {
    fn of(node: &str, event: wire::Event) -> Self {
        let severity = match event.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info | Severity::Unknown => "info",
        };
        let group = GroupId::from_wire(&event.group).ok().map(|group| group.to_string());
        Self {
            number: Some(event.number),
            group,
            ..Self::own(node, event.time_ms, &event.kind, severity, event.text)
        }
    }

    fn own(node: &str, time_ms: u64, kind: &str, severity: &'static str, text: String) -> Self {
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(time_ms)).unwrap_or(UNIX_EPOCH);
        Self {
            time: humantime::format_rfc3339_millis(time).to_string(),
            node: node.to_owned(),
            number: None,
            kind: kind.to_owned(),
            severity,
            group: None,
            text,
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Self { time, node, kind, severity, text, .. } = self;
        let group = self.group.as_ref().map(|group| format!("{group}: ")).unwrap_or_default();
        format!("{time}  {node:<10}  {severity:<7}  {kind:<16}  {group}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: &str, life: u64, missed: u64, times: &[(u64, u64)]) -> wire::NodeEvents {
        let event = |(number, time_ms): &(u64, u64)| wire::Event {
            number: *number,
            time_ms: *time_ms,
            kind: "plan_begun".into(),
            ..Default::default()
        };
        let next = times.last().map_or(1, |(number, _)| number + 1);
        let watermark = wire::EventWatermark { node: node.into(), life, watermark: next };
        let events = times.iter().map(event).collect();
        wire::NodeEvents { watermark: Some(watermark), events, missed, failure: None }
    }

    fn silent(node: &str) -> wire::NodeEvents {
        let watermark = wire::EventWatermark { node: node.into(), ..Default::default() };
        let failure = wire::Failure { reason: "no way".into(), ..Default::default() };
        wire::NodeEvents { watermark: Some(watermark), failure: Some(failure), ..Default::default() }
    }

    fn shown(follower: &mut Follower, nodes: Vec<wire::NodeEvents>) -> Vec<String> {
        let lines = follower.take(wire::Events { nodes }, 1_000);
        let name = |line: &Line| line.number.map_or(line.kind.clone(), |number| number.to_string());
        lines.iter().map(|line| format!("{}{}", line.node, name(line))).collect()
    }

    #[test]
    fn events_of_all_nodes_come_by_their_time_and_each_nodes_in_its_own_order() {
        let mut follower = Follower::default();
        let nodes = vec![answer("a", 1, 0, &[(1, 10), (2, 30), (3, 20)]), answer("b", 1, 0, &[(7, 25)])];
        assert_eq!(shown(&mut follower, nodes), ["a1", "b7", "a2", "a3"]);
        let watermarks: Vec<_> = follower.watermarks().into_iter().map(|at| at.watermark).collect();
        assert_eq!(watermarks, [4, 8]);
    }

    #[test]
    fn a_hole_and_another_life_are_said_before_what_follows_them() {
        let mut follower = Follower::default();
        assert_eq!(shown(&mut follower, vec![answer("a", 1, 0, &[(1, 10)])]), ["a1"]);
        assert_eq!(shown(&mut follower, vec![answer("a", 1, 4, &[(6, 20)])]), ["amissed", "a6"]);
        assert_eq!(shown(&mut follower, vec![answer("a", 2, 0, &[(1, 30)])]), ["arestarted", "a1"]);
    }

    #[test]
    fn a_node_that_does_not_answer_is_named_once_and_followed_from_where_it_was() {
        let mut follower = Follower::default();
        assert_eq!(shown(&mut follower, vec![answer("a", 1, 0, &[(1, 10)]), silent("b")]), ["a1", "bsilent"]);
        assert_eq!(follower.watermarks().len(), 1, "b is to say its latest");
        assert_eq!(shown(&mut follower, vec![silent("a"), silent("b")]), ["asilent"]);
        assert_eq!(follower.watermarks()[0].watermark, 2);
        assert_eq!(shown(&mut follower, vec![answer("a", 1, 0, &[(2, 20)])]), ["aanswers", "a2"]);
    }
}
