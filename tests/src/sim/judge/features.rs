//! What members have been given by name is what the records say, wherever one stands in the sequence.

use shoal_protocol::{Features, Seq, wire};
use wire::record::Body;

use super::{Case, Event, Findings, Holding, seq_of};

pub(super) fn check(case: &Case<'_>, findings: &mut Findings) {
    for (group, holding) in &case.holdings.groups {
        let row = holding.row.state.features.as_deref().cloned().unwrap_or_default();
        let records = below(holding, holding.tail());
        if row != records {
            findings.find(|| format!("{group}: its row has the features {row:?}, its records {records:?}"));
        }
    }
    for (_, event) in case.events {
        let Event::Features { app, group, features } = event else { continue };
        let Some(holding) = case.holdings.groups.get(group) else { continue };
        let end = Seq::new(features.changed_seq).map_or(Seq::FIRST, Seq::next);
        let records = below(holding, end);
        if *features != records {
            findings
                .find(|| format!("{group}: {app:?} was told of {features:?}, the records say {records:?}"));
        }
    }
}

/// What the records below a place add up to.
fn below(holding: &Holding, end: Seq) -> wire::Features {
    let mut features = Features::default();
    for record in holding.records.iter().filter(|record| seq_of(record) < end) {
        if let Some(Body::Feature(feature)) = &record.body {
            features.fold(seq_of(record), feature);
        }
    }
    features.to_wire()
}
