//! The events of all nodes, asked for through one: it asks the others by their links. So it does not matter
//! which of them a follower is on, nor whether another takes clients: it has a watermark for each.

use std::time::Duration;

use futures_util::future::join_all;
use shoal_protocol::{Code, Refusal, wire};
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use crate::coordination::NodeName;

/// How long whoever waits for something new is kept waiting,
const WAIT_MAX: Duration = Duration::from_secs(5);

/// and how often the other nodes are asked meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// How long another node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The most events in one answer, of all nodes together.
const ANSWER_EVENTS_MAX: usize = 16_384;

/// What is new on all nodes; nothing, where there is nothing after a while.
pub(super) async fn of_all(shared: &Shared, asked: &wire::GetEvents) -> wire::Events {
    let until = Instant::now() + WAIT_MAX;
    let mut told = shared.events.subscribe();
    loop {
        told.mark_unchanged();
        let nodes = gather(shared, asked).await;
        let left = until.saturating_duration_since(Instant::now());
        if !asked.wait || left.is_zero() || nodes.iter().any(|node| is_news(node, asked)) {
            return wire::Events { nodes };
        }
        tokio::select! {
            biased;
            // Its sender lives as long as `shared`.
            _ = told.changed() => {}
            () = sleep(LOOK.min(left)) => {}
        }
    }
}

/// Asks all nodes at once.
async fn gather(shared: &Shared, asked: &wire::GetEvents) -> Vec<wire::NodeEvents> {
    let others = shared.others.as_ref().map(|others| others.nodes()).unwrap_or_default();
    let others: Vec<_> = others.keys().filter(|node| node.0 != shared.name).collect();
    let limit = limit(asked.limit, others.len() + 1);
    let question = |node: &str| {
        let from = watermark(asked, node).cloned();
        wire::GetNodeEvents { from, limit }
    };
    let mut nodes = join_all(others.into_iter().map(|node| ask(shared, node, question(&node.0)))).await;
    nodes.push(shared.events.page(&question(&shared.name)));
    nodes
}

/// Asks another node; one that does not answer says nothing new, and why.
async fn ask(shared: &Shared, node: &NodeName, question: wire::GetNodeEvents) -> wire::NodeEvents {
    let from = question.from.clone();
    let answer = async {
        match &shared.links {
            Some(links) => links.events(node, question).await,
            None => Err(Refusal::new(Code::Busy, "there is no way there")),
        }
    };
    let late = |_| Err(Refusal::new(Code::Busy, "it did not answer in time"));
    timeout(ANSWER_MAX, answer).await.unwrap_or_else(late).unwrap_or_else(|why| {
        let nowhere = || wire::EventWatermark { node: node.0.clone(), ..Default::default() };
        let watermark = Some(from.unwrap_or_else(nowhere));
        wire::NodeEvents { watermark, failure: Some(why.into()), ..Default::default() }
    })
}

/// So many of each node.
fn limit(asked: u32, nodes: usize) -> u32 {
    let most = u32::try_from((ANSWER_EVENTS_MAX / nodes).max(1)).unwrap_or(u32::MAX);
    if asked == 0 { most } else { asked.min(most) }
}

fn watermark<'e>(asked: &'e wire::GetEvents, node: &str) -> Option<&'e wire::EventWatermark> {
    asked.from.iter().find(|from| from.node == node)
}

/// Does the asker learn from it what it did not know?
fn is_news(node: &wire::NodeEvents, asked: &wire::GetEvents) -> bool {
    let Some(now) = node.watermark.as_ref().filter(|_| node.failure.is_none()) else { return false };
    watermark(asked, &now.node) != Some(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_no_more_however_many_nodes_there_are() {
        assert_eq!([limit(0, 1), limit(7, 1), limit(1_000, 100)], [16_384, 7, 163]);
        assert_eq!(limit(0, 1_000_000), 1);
    }

    #[test]
    fn another_watermark_or_another_life_is_news_and_silence_is_none() {
        let at = |life, watermark| Some(wire::EventWatermark { node: "a".into(), life, watermark });
        let node = |watermark| wire::NodeEvents { watermark, ..Default::default() };
        let asked = wire::GetEvents { from: at(1, 5).into_iter().collect(), ..Default::default() };
        assert!(!is_news(&node(at(1, 5)), &asked));
        assert!(is_news(&node(at(1, 6)), &asked) && is_news(&node(at(2, 5)), &asked));
        assert!(is_news(&node(at(1, 5)), &wire::GetEvents::default()));
        let silent = wire::NodeEvents { failure: Some(wire::Failure::default()), ..node(at(1, 6)) };
        assert!(!is_news(&silent, &asked));
    }
}
