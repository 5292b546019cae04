//! Which node to try next.

use std::collections::VecDeque;

/// How many nodes are remembered besides those that the app named.
const LEARNED_MAX: usize = 32;

/// The nodes that the app named and those that nodes told of, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Nodes {
    named: Vec<String>,
    learned: Vec<String>,
    /// What is left of this round, the next one first.
    round: VecDeque<String>,
}

impl Nodes {
    /// The nodes that the app named. The first round begins with the one that `chance` (in
    /// `0.0..1.0`) points at, so that clients with the same list spread over it.
    pub(crate) fn new(named: Vec<String>, chance: f64) -> Self {
        let mut round: VecDeque<_> = named.iter().cloned().collect();
        let first = (chance.clamp(0.0, 1.0) * named.len() as f64) as usize;
        round.rotate_left(first.min(named.len().saturating_sub(1)));
        Self { named, learned: Vec::new(), round }
    }

    /// The node to try; none at the end of a round, which is when to wait. The next call begins
    /// another round.
    pub(crate) fn next(&mut self) -> Option<String> {
        let next = self.round.pop_front();
        if next.is_none() {
            self.round = self.all().cloned().collect();
        }
        next
    }

    /// A session begins on `node`, which knows of `others`. After it, the same node is tried
    /// first, since it may be the network that failed.
    pub(crate) fn online(&mut self, node: &str, others: Vec<String>) {
        if !others.is_empty() {
            self.learned =
                others.into_iter().filter(|other| !self.named.contains(other)).take(LEARNED_MAX).collect();
        }
        self.prefer([node.to_owned()]);
    }

    /// Tries these first, in this order.
    pub(crate) fn prefer(&mut self, first: impl IntoIterator<Item = String>) {
        let mut round: VecDeque<_> = first.into_iter().collect();
        for node in self.all() {
            if !round.contains(node) {
                round.push_back(node.clone());
            }
        }
        self.round = round;
    }

    /// Tries `node`, which is going, last.
    pub(crate) fn avoid(&mut self, node: &str) {
        self.round.retain(|other| other != node);
        self.round.push_back(node.to_owned());
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.named.iter().chain(&self.learned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn round(nodes: &mut Nodes) -> Vec<String> {
        std::iter::from_fn(|| nodes.next()).collect()
    }

    #[test]
    fn every_node_is_tried_once_in_a_round() {
        let mut nodes = Nodes::new(names(&["a", "b", "c"]), 0.5);
        assert_eq!(round(&mut nodes), names(&["b", "c", "a"]));
        assert_eq!(round(&mut nodes), names(&["a", "b", "c"]));
    }

    #[test]
    fn any_chance_points_at_a_node() {
        for chance in [0.0, 0.999_999, 1.0, 7.0, -1.0, f64::NAN] {
            assert_eq!(round(&mut Nodes::new(names(&["a", "b", "c"]), chance)).len(), 3);
        }
    }

    #[test]
    fn the_node_that_worked_comes_first_and_learned_ones_last() {
        let mut nodes = Nodes::new(names(&["a", "b"]), 0.0);
        nodes.online("b", names(&["a", "x"]));
        assert_eq!(round(&mut nodes), names(&["b", "a", "x"]));
    }

    #[test]
    fn a_node_that_goes_is_tried_last() {
        let mut nodes = Nodes::new(names(&["a", "b"]), 0.0);
        nodes.online("a", Vec::new());
        nodes.prefer(names(&["y"]));
        nodes.avoid("a");
        assert_eq!(round(&mut nodes), names(&["y", "b", "a"]));
    }

    #[test]
    fn what_nodes_tell_of_is_bounded() {
        let mut nodes = Nodes::new(names(&["a"]), 0.0);
        nodes.online("a", (0..1000).map(|n| format!("n{n}")).collect());
        assert_eq!(round(&mut nodes).len(), 1 + LEARNED_MAX);
    }
}
