//! What has changed among the nodes, as operators are told. Pure: what is seen goes in, events come out.
//!
//! Every node sees the same, and each logs it; the leader alone keeps it, so that whoever follows the events
//! of all nodes reads it once. While nobody leads, or the leader is gone, it waits for the next one to
//! tell: what happens in the second in which a leader dies may be told twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    coordination::NodeName,
    ops::{Event, Events, Kind},
};

/// The nodes at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Who leads, and since which election.
    pub(crate) leader: Option<(NodeName, u64)>,
    /// Those that live.
    pub(crate) nodes: BTreeMap<NodeName, Drain>,
    /// Those of them that are slow, and who says so.
    pub(crate) slow: BTreeMap<NodeName, BTreeSet<NodeName>>,
}

/// Whether a node is to be emptied, and is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    None,
    Begun,
    Done,
}

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct News {
    told: Option<Seen>,
}

impl News {
    /// Tells what is new since the last turn.
    pub(crate) fn turn(&mut self, me: &NodeName, now: Seen, events: &Events) {
        let Some((leader, _)) = now.leader.as_ref().filter(|(leader, _)| now.nodes.contains_key(leader))
        else {
            return;
        };
        let leads = leader == me;
        for event in self.take(now) {
            if leads { events.tell(event) } else { event.log() }
        }
    }

    /// What is new. Those whom a node finds when it begins have not come.
    fn take(&mut self, now: Seen) -> Vec<Event> {
        let first = || Seen { leader: None, ..now.clone() };
        let before = self.told.take().unwrap_or_else(first);
        let news = news(&before, &now);
        self.told = Some(now);
        news
    }
}

fn news(before: &Seen, now: &Seen) -> Vec<Event> {
    let leader =
        now.leader.iter().filter(|leader| before.leader.as_ref() != Some(leader)).map(|(node, term)| {
            Event::new(Kind::LeaderChanged, format!("node {} leads, by election {term}", node.0))
        });
    let gone = before.nodes.iter().filter(|(node, _)| !now.nodes.contains_key(*node)).map(gone);
    let drains = now.nodes.iter().flat_map(|(node, drain)| lives(node, before.nodes.get(node), *drain));
    let is_slow = now.slow.iter().filter(|(node, _)| !before.slow.contains_key(*node)).map(slow);
    let is_well = |node: &&NodeName| !now.slow.contains_key(*node) && now.nodes.contains_key(*node);
    let well =
        before.slow.keys().filter(is_well).map(|node| {
            Event::new(Kind::NodeWell, format!("node {}, which was slow, takes part again", node.0))
        });
    leader.chain(gone).chain(drains).chain(is_slow).chain(well).collect()
}

fn gone((node, drain): (&NodeName, &Drain)) -> Event {
    match drain {
        Drain::None => {
            let text = format!("node {} is gone: it has stopped, or its lease has run out", node.0);
            Event::new(Kind::NodeLost, text)
        }
        Drain::Begun | Drain::Done => Event::new(Kind::NodeLeft, format!("node {} has left", node.0)),
    }
}

fn lives(node: &NodeName, before: Option<&Drain>, drain: Drain) -> Vec<Event> {
    const DRAINING: (Kind, &str) = (Kind::NodeDraining, "is to be emptied");
    const DRAINED: (Kind, &str) = (Kind::NodeDrained, "is empty, and safe to remove");
    let news: &[_] = match (before, drain) {
        (None, _) => &[(Kind::NodeJoined, "has joined")],
        (Some(before), drain) if *before == drain => &[],
        (_, Drain::None) => &[(Kind::NodeStays, "is not to be emptied any more")],
        (_, Drain::Begun) => &[DRAINING],
        // One that has nothing is empty at once.
        (Some(Drain::None), Drain::Done) => &[DRAINING, DRAINED],
        (_, Drain::Done) => &[DRAINED],
    };
    news.iter().map(|(kind, what)| Event::new(*kind, format!("node {} {what}", node.0))).collect()
}

fn slow((node, by): (&NodeName, &BTreeSet<NodeName>)) -> Event {
    let by = by.iter().map(|judge| judge.0.as_str()).collect::<Vec<_>>().join(", ");
    let text = format!("node {} holds its lease and is slow, as said by {by}: it is emptied", node.0);
    Event::new(Kind::NodeSlow, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> NodeName {
        NodeName(name.into())
    }

    fn seen(leader: Option<(&str, u64)>, nodes: &[(&str, Drain)], slow: &[&str]) -> Seen {
        Seen {
            leader: leader.map(|(node, term)| (named(node), term)),
            nodes: nodes.iter().map(|(node, drain)| (named(node), *drain)).collect(),
            slow: slow.iter().map(|node| (named(node), [named("a")].into())).collect(),
        }
    }

    fn kinds(news: &[Event]) -> Vec<Kind> {
        news.iter().map(|event| event.kind).collect()
    }

    #[test]
    fn each_change_is_told_once_by_its_kind() {
        use Drain::{Begun, Done, None};
        let leads = Some(("a", 1));
        let mut news = News::default();
        let turns = [
            (seen(leads, &[("a", None), ("b", None)], &[]), vec![Kind::LeaderChanged]),
            (seen(leads, &[("a", None), ("b", None)], &[]), vec![]),
            (seen(leads, &[("a", None), ("b", None), ("c", None)], &[]), vec![Kind::NodeJoined]),
            (
                seen(leads, &[("a", None), ("b", Begun), ("c", None)], &["c"]),
                vec![Kind::NodeDraining, Kind::NodeSlow],
            ),
            (
                seen(leads, &[("a", None), ("b", Done), ("c", None)], &[]),
                vec![Kind::NodeDrained, Kind::NodeWell],
            ),
            (
                seen(leads, &[("a", None), ("b", None), ("c", None)], &["c"]),
                vec![Kind::NodeStays, Kind::NodeSlow],
            ),
            // A slow one that dies is not well.
            (
                seen(leads, &[("a", None), ("b", Done)], &[]),
                vec![Kind::NodeLost, Kind::NodeDraining, Kind::NodeDrained],
            ),
            (seen(Some(("a", 2)), &[("a", None)], &[]), vec![Kind::LeaderChanged, Kind::NodeLeft]),
        ];
        for (now, expected) in turns {
            assert_eq!(kinds(&news.take(now)), expected);
        }
    }
}
