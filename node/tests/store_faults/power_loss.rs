//! The power goes at any moment, and what was acknowledged is there.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    disk::Disk,
    record::{self, Call},
    workload::{Judgement, Place, Promised, Workload, seed},
};

/// How often the power went, by what came of it.
type Outcomes = BTreeMap<&'static str, Vec<String>>;

/// Crashes a recorded run at `moments` and judges each.
fn crash_at(calls: &[Call], moments: &[usize], workload: &Workload, random: &mut StdRng) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let (mut disk, mut promised) = (Disk::new(), Promised::default());
    for (number, call) in calls.iter().enumerate() {
        disk.call(call);
        if let Call::Acknowledge { line } = call {
            promised.take(line.trim_end());
        }
        if moments.binary_search(&number).is_err() {
            continue;
        }
        let place = Place::new();
        disk.crash(random).lay_down(&place.root());
        let (outcome, said) = match promised.judge(&place.root(), workload) {
            Judgement::Kept => ("kept", String::new()),
            Judgement::Refused(error) => ("refused", error.to_string()),
            Judgement::Reported(error) => ("reported", error),
            Judgement::Broken(promise) => ("broken", promise),
        };
        outcomes.entry(outcome).or_default().push(format!("after call {number} ({call:?}): {said}"));
    }
    outcomes
}

fn recorded(workload: &Workload, variables: &[(&str, &str)]) -> (Vec<Call>, Place) {
    let place = Place::new();
    workload.run(&place, variables);
    (record::read(&place.log()), place)
}

fn some_moments(calls: &[Call], count: usize, random: &mut StdRng) -> Vec<usize> {
    let mut moments: Vec<_> = (0..count).map(|_| random.random_range(0..calls.len())).collect();
    moments.sort_unstable();
    moments.dedup();
    moments
}

#[test]
fn the_record_is_complete() {
    let workload = Workload::small(1);
    let (calls, place) = recorded(&workload, &[]);
    let mut disk = Disk::new();
    calls.iter().for_each(|call| disk.call(call));
    assert_eq!(disk.whole().differs(&place.root()), None, "every call that changed a file was recorded");
    let promised = Promised::of(&place.acks());
    assert!(promised.records() > 500, "{}", promised.records());
    let is_table = |call: &&Call| matches!(call, Call::Create { path } if path.contains("/1/tables/"));
    assert!(calls.iter().any(|call| is_table(&call)), "the engine has written a table");
}

#[test]
fn nothing_is_acknowledged_before_both_journal_and_witness_are_synced() {
    // The last one's commits are too big for the witness, and told by number.
    for (slow, record_bytes_max) in [(".jnl", 600), ("witness", 600), ("witness", 40_000)] {
        let workload = Workload { tasks: 1, rounds: 20, record_bytes_max, ..Workload::small(seed()) };
        let (calls, _place) = recorded(&workload, &[("POWER_LOSS_SLOW_SYNC", slow)]);
        let mut disk = Disk::new();
        for call in &calls {
            disk.call(call);
            if let Call::Acknowledge { line } = call {
                for file in ["/store/engine/0.jnl", "/store/witness"] {
                    assert!(disk.is_synced(file), "{file} was not, at {line}");
                }
            }
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_loss_at_any_moment() {
    let seed = seed();
    let workload = Workload::small(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let (calls, _place) = recorded(&workload, &[]);
    let moments = some_moments(&calls, 150, &mut random);
    let outcomes = crash_at(&calls, &moments, &workload, &mut random);
    assert!(outcomes.keys().eq(&["kept"]), "seed {seed}: {outcomes:#?}");
}

#[test]
fn commits_told_whole_and_by_number_survive_in_any_mixture() {
    let seed = seed();
    let workload = Workload { record_bytes_max: 4_000, memtable_bytes: 1 << 20, ..Workload::small(seed) };
    let mut random = StdRng::seed_from_u64(seed);
    let (calls, _place) = recorded(&workload, &[]);
    let told = |call: &Call| match call {
        Call::Write { path, data, .. } if path == "/store/witness" => Some(data.len() > 100),
        _ => None,
    };
    let told: Vec<_> = calls.iter().filter_map(told).collect();
    assert!(told.contains(&true) && told.contains(&false), "seed {seed}: {told:?}");
    let moments = some_moments(&calls, 60, &mut random);
    let outcomes = crash_at(&calls, &moments, &workload, &mut random);
    assert!(outcomes.keys().eq(&["kept"]), "seed {seed}: {outcomes:#?}");
}

#[test]
fn without_its_syncs_the_same_test_finds_a_loss() {
    let seed = seed();
    let workload = Workload::small(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let (calls, _place) = recorded(&workload, &[("POWER_LOSS_IGNORE_SYNC", "")]);
    let moments = some_moments(&calls, 30, &mut random);
    let outcomes = crash_at(&calls, &moments, &workload, &mut random);
    assert!(outcomes.contains_key("broken"), "seed {seed}: {outcomes:#?}");
}

#[test]
fn without_the_journals_syncs_the_witness_finds_the_loss() {
    let seed = seed();
    let workload = Workload::small(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let (calls, _place) = recorded(&workload, &[("POWER_LOSS_IGNORE_SYNC", ".jnl")]);
    let moments = some_moments(&calls, 60, &mut random);
    let outcomes = crash_at(&calls, &moments, &workload, &mut random);
    assert!(outcomes.contains_key("refused"), "seed {seed}: {outcomes:#?}");
    assert!(!outcomes.contains_key("broken"), "seed {seed}: {outcomes:#?}");
}

#[test]
fn a_new_journal_takes_over_and_the_old_one_goes_without_a_loss() {
    let seed = seed();
    let workload = Workload {
        rounds: 190,
        record_bytes_max: 64 << 10,
        memtable_bytes: 24 << 20,
        ..Workload::small(seed)
    };
    let mut random = StdRng::seed_from_u64(seed);
    let (calls, _place) = recorded(&workload, &[]);
    let takes_over = |call: &Call| matches!(call, Call::Create { path } if path == "/store/engine/1.jnl");
    let goes = |call: &Call| matches!(call, Call::Remove { path } if path == "/store/engine/0.jnl");
    let first = calls.iter().position(takes_over).expect("the journal is full once");
    let mut moments = vec![first, first + 3, first + random.random_range(6..60)];
    // It goes when the engine gets round to it, and on a busy machine that may be later than this.
    if let Some(gone) = calls.iter().position(goes) {
        moments.extend([gone, gone + random.random_range(1..60)]);
    }
    moments.sort_unstable();
    let outcomes = crash_at(&calls, &moments, &workload, &mut random);
    assert!(outcomes.keys().eq(&["kept"]), "seed {seed}: {outcomes:#?}");
}
