//! A node that is slowed a hundred times while all else is well. It holds its lease, so the nodes themselves
//! must find out, and take from it what it has. [`check`] is pure.

use std::time::Duration;

use shoal_node::coordination::{NodeName, Partition, Placement};
use shoal_protocol::{GroupId, wire};

use super::judge::Findings;

/// When it becomes slow: groups have been cut by then.
pub(super) const FROM: Duration = Duration::from_secs(8);
/// How long it is.
pub(super) const LASTS: Duration = Duration::from_secs(20);
/// Apps are busy for so long: until it has been well for a while.
pub(super) const BUSY: Duration = Duration::from_secs(44);

/// By then it is emptied.
const EMPTIED: Duration = Duration::from_secs(18);
/// What is committed from then on, before it becomes slow, is the usual.
const USUAL: Duration = Duration::from_secs(4);

/// The node that it is, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slowing {
    /// It numbers a group's records.
    Home,
    /// It owns a sub-group of which it is not the home, if there is such a node.
    Owner,
    /// It decides which node has what.
    Leader,
}

impl Slowing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Home, Self::Owner, Self::Leader];

    /// The node that is to be slowed now.
    pub(super) fn victim(
        self,
        group: GroupId,
        layout: Option<&wire::Layout>,
        placement: &Placement,
        leader: Option<NodeName>,
    ) -> Option<NodeName> {
        let home = placement.node_of(Partition::of(group)).cloned();
        match self {
            Self::Home => home,
            Self::Leader => leader,
            Self::Owner => {
                let partitions = layout.into_iter().flat_map(|layout| &layout.partitions);
                let mut owners = partitions.filter_map(|number| {
                    placement.node_of(Partition::new(u16::try_from(*number).ok()?)?).cloned()
                });
                owners.find(|owner| Some(owner) != home.as_ref()).or(home)
            }
        }
    }
}

/// What coordination has of the node, at a moment after it became slow.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// It holds its lease.
    pub lives: bool,
    /// It leads.
    pub leads: bool,
    /// What it has.
    pub partitions: usize,
}

/// Was it found out and emptied in time, did the others go on, and did it get something back once it was
/// well? `commits` are the moments at which apps were told of one.
pub fn check(samples: &[Sample], commits: &[Duration], findings: &mut Findings) {
    let Some(last) = samples.last() else {
        return findings.find(|| "there was no node to be slowed".into());
    };
    for sample in samples {
        let is_empty = sample.partitions == 0 && !sample.leads;
        if !sample.lives {
            findings.find(|| format!("who is slow loses its lease: {sample:?}"));
        }
        if (EMPTIED..FROM + LASTS).contains(&sample.at) && !is_empty {
            findings.find(|| format!("who is slow is not emptied: {sample:?}"));
        }
    }
    if last.partitions == 0 {
        findings.find(|| format!("who is well again gets nothing: {last:?}"));
    }
    let a_minute = |from: Duration, to: Duration| {
        let count = commits.iter().filter(|at| (from..to).contains(*at)).count() as u64;
        count * 60 / (to - from).as_secs()
    };
    let (usual, without) = (a_minute(USUAL, FROM), a_minute(EMPTIED, FROM + LASTS));
    if without * 2 < usual || without == 0 {
        findings.find(|| format!("{without} commits a minute without who is slow, {usual} before"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second apart, until the end.
    fn samples(change: impl Fn(&mut Sample)) -> Vec<Sample> {
        let at = (0..72).map(|half| FROM + Duration::from_millis(500 * half));
        let mut samples: Vec<_> = at
            .map(|at| {
                let has_some =
                    at < FROM + Duration::from_secs(7) || at > FROM + LASTS + Duration::from_secs(9);
                Sample { at, lives: true, leads: false, partitions: usize::from(has_some) }
            })
            .collect();
        samples.iter_mut().for_each(change);
        samples
    }

    fn found(samples: &[Sample], is_told: impl Fn(Duration) -> bool) -> usize {
        let commits: Vec<_> = (0..440).map(|tenth| Duration::from_millis(100 * tenth)).collect();
        let commits: Vec<_> = commits.into_iter().filter(|at| is_told(*at)).collect();
        let mut findings = Findings::default();
        check(samples, &commits, &mut findings);
        findings.count()
    }

    #[test]
    fn who_is_emptied_in_time_and_gets_something_back_is_as_it_should_be() {
        assert_eq!(found(&samples(|_| ()), |_| true), 0);
        assert_eq!(found(&samples(|_| ()), |at| !(FROM..FROM + Duration::from_secs(9)).contains(&at)), 0);
    }

    #[test]
    fn whatever_else_happens_is_found() {
        let late = |sample: &Sample| (EMPTIED..EMPTIED + Duration::from_millis(500)).contains(&sample.at);
        assert_eq!(found(&[], |_| true), 1);
        assert_eq!(found(&samples(|sample| sample.lives = !late(sample)), |_| true), 1);
        assert_eq!(found(&samples(|sample| sample.leads = late(sample)), |_| true), 1);
        assert_eq!(found(&samples(|sample| sample.partitions += usize::from(late(sample))), |_| true), 1);
        assert_eq!(found(&samples(|sample| sample.partitions = 0), |_| true), 1);
        assert_eq!(found(&samples(|_| ()), |at| !(FROM..FROM + LASTS).contains(&at)), 1);
    }
}
