//! Epochs only grow, one of them writes, and cursors never go back.

use std::collections::BTreeMap;

use shoal_protocol::{GroupId, Seq};

use super::{Case, Findings};
use crate::sim::chronicle::{AppId, Event};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    let mut epochs: BTreeMap<GroupId, u64> = BTreeMap::new();
    let mut tails: BTreeMap<GroupId, Seq> = BTreeMap::new();
    let mut cursors: BTreeMap<(AppId, GroupId), (Option<Seq>, Option<Seq>)> = BTreeMap::new();
    for (at, event) in case.events {
        match event {
            Event::Activated { group, epoch, tail } => {
                let before = epochs.insert(*group, *epoch).unwrap_or(0);
                if *epoch <= before {
                    findings.find(|| format!("{at:?}: {group} went from epoch {before} to {epoch}"));
                }
                let known = tails.insert(*group, *tail).unwrap_or(Seq::FIRST);
                if *tail < known {
                    findings.find(|| format!("{at:?}: {group}'s tail went back from {known} to {tail}"));
                }
            }
            Event::Appended { group, epoch, from, count } => {
                let current = epochs.get(group).copied().unwrap_or(0);
                if *epoch != current {
                    findings.find(|| format!("{at:?}: {group} was written under {epoch} of {current}"));
                }
                let tail = tails.get(group).copied().unwrap_or(Seq::FIRST);
                if *from != tail {
                    findings.find(|| format!("{at:?}: {group} was written at {from}, its tail was {tail}"));
                }
                tails.insert(*group, from.advance(*count));
            }
            Event::ReadSet { app, group, read } => {
                let known = cursors.entry((*app, *group)).or_default();
                known.0 = known.0.max(Some(*read));
            }
            // Answers to several of a user's apps may cross on their way.
            Event::Cursors { app, group, read, delivered } => {
                let known = cursors.entry((*app, *group)).or_default();
                if *read < known.0 || *delivered < known.1 {
                    let told = (read, delivered);
                    findings
                        .find(|| format!("{at:?}: {app:?} was told {group} is at {known:?}, then {told:?}"));
                }
                *known = (known.0.max(*read), known.1.max(*delivered));
            }
            _ => {}
        }
    }
}
