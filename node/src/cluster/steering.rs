//! Where clients are sent. Pure: nodes and chances in, an order out.

use crate::coordination::NodeRecord;

/// The nodes in the order in which a client is to try them: those of `regions` first, in the order of these,
/// and each the sooner the more room it has. They are drawn by lot (`chance` in `0.0..1.0`), so that many clients that leave
/// at once, by the same figures, do not all go to the same node.
pub(super) fn order<'n>(
    nodes: impl Iterator<Item = &'n NodeRecord>,
    regions: &[&str],
    chance: impl FnMut() -> f64,
) -> Vec<&'n NodeRecord> {
    let mut drawn = by_lot(nodes.map(|node| (node, room(node))), chance);
    let rank = |node: &NodeRecord| regions.iter().position(|region| node.region == *region);
    drawn.sort_by_key(|node| rank(node).unwrap_or(regions.len()));
    drawn
}

/// The nodes in an order that is drawn by lot, each the sooner the more lots it has.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
pub(super) fn order_by_lots<'n>(
    nodes: impl Iterator<Item = (&'n NodeRecord, u64)>,
    chance: impl FnMut() -> f64,
) -> Vec<&'n NodeRecord> {
    by_lot(nodes.map(|(node, lots)| (node, lots as f64)), chance)
}

/// Among exponential waits, each comes first as often as its rate says.
fn by_lot<'n>(
    nodes: impl Iterator<Item = (&'n NodeRecord, f64)>,
    mut chance: impl FnMut() -> f64,
) -> Vec<&'n NodeRecord> {
    let wait = |rate: f64, chance: f64| -chance.max(f64::MIN_POSITIVE).ln() / rate;
    let mut drawn: Vec<_> = nodes.map(|(node, rate)| (wait(rate, chance()), node)).collect();
    drawn.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    drawn.into_iter().map(|(_, node)| node).collect()
}

/// What a node can carry, shared by those who are there.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
fn room(node: &NodeRecord) -> f64 {
    f64::from(node.capacity.max(1)) / (node.load.sessions as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::coordination::{Load, NodeName, Roles};

    fn node(name: &str, region: &str, capacity: u32, sessions: u64) -> NodeRecord {
        NodeRecord {
            name: NodeName(name.into()),
            addresses: Vec::new(),
            peer_addresses: Vec::new(),
            roles: Roles::ALL,
            region: region.into(),
            capacity,
            started_ms: 0,
            load: Load { sessions, ..Load::default() },
        }
    }

    /// How often each comes first.
    fn first(nodes: &[NodeRecord], draws: usize) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(1);
        let mut counts = vec![0; nodes.len()];
        for _ in 0..draws {
            let ordered = order(nodes.iter(), &["here"], || random.random());
            assert_eq!(ordered.len(), nodes.len());
            counts[nodes.iter().position(|node| node == ordered[0]).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn each_comes_first_by_the_room_it_has() {
        let nodes = [node("a", "here", 1, 99), node("b", "here", 1, 199), node("c", "here", 4, 99)];
        let counts = first(&nodes, 11_000);
        for (count, expected) in counts.iter().zip([2_000_f64, 1_000.0, 8_000.0]) {
            assert!((*count as f64 - expected).abs() < 300.0, "{counts:?}");
        }
    }

    #[test]
    fn another_region_comes_last_however_empty_it_is() {
        let nodes = [node("far", "there", 8, 0), node("near", "here", 1, 1_000)];
        assert_eq!(first(&nodes, 100), [0, 100]);
    }

    #[test]
    fn the_clients_own_region_comes_before_the_nodes_and_both_before_the_rest() {
        let nodes = [node("far", "there", 8, 0), node("near", "here", 4, 9), node("own", "home", 1, 1_000)];
        let named = |regions: &[&str]| {
            let ordered = order(nodes.iter(), regions, || 0.5);
            ordered.into_iter().map(|node| node.name.0.clone()).collect::<Vec<_>>()
        };
        assert_eq!(named(&["home", "here"]), ["own", "near", "far"]);
        assert_eq!(named(&["", "here"]), ["near", "far", "own"], "it said nothing");
        assert_eq!(named(&["nowhere", "here"]), ["near", "far", "own"], "no node is there");
        assert_eq!(named(&["here", "here"]), ["near", "far", "own"]);
    }

    #[test]
    fn any_chance_gives_an_order() {
        let nodes = [node("a", "here", 0, 0), node("b", "here", 1, u64::MAX)];
        for chance in [0.0, 1.0] {
            assert_eq!(order(nodes.iter(), &[""], || chance).len(), 2);
        }
    }
}
