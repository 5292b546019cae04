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

/// In the witness: of two copies each.
const SLOT_BYTES: u64 = 256 << 10;

/// What the witness is told of a commit, where a call tells it anything: is it whole?
fn told(call: &Call) -> Option<bool> {
    const OPERATIONS_BYTES_AT: usize = 7 + 1 + 8 + 8;
    match call {
        Call::Write { path, data, .. } if path == "/store/witness" => {
            Some(data[OPERATIONS_BYTES_AT..][..4] != [0; 4])
        }
        _ => None,
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_synced_whole_in_the_witness_or_in_both() {
    for (slow, record_bytes_max) in [("witness", 600), (".jnl", 80_000), ("witness", 80_000)] {
        let workload = Workload { tasks: 1, rounds: 20, record_bytes_max, ..Workload::small(seed()) };
        let (calls, _place) = recorded(&workload, &[("POWER_LOSS_SLOW_SYNC", slow)]);
        let (mut disk, mut is_whole, mut seen) = (Disk::new(), false, [0, 0]);
        for call in &calls {
            disk.call(call);
            is_whole = told(call).unwrap_or(is_whole);
            if let Call::Acknowledge { line } = call {
                seen[usize::from(is_whole)] += 1;
                assert!(disk.is_synced("/store/witness"), "the witness was not, at {line}");
                assert!(is_whole || disk.is_synced("/store/engine/0.jnl"), "the journal was not, at {line}");
            }
        }
        assert_eq!(seen[0] > 0, record_bytes_max > 600, "{seen:?} commits were told by number, and whole");
    }
}

#[test]
fn no_slot_of_the_witness_is_used_again_before_its_commit_is_synced_in_the_journal() {
    let workload = Workload { tasks: 1, rounds: 300, ..Workload::small(seed()) };
    let (calls, _place) = recorded(&workload, &[("POWER_LOSS_SLOW_SYNC", ".jnl")]);
    let (mut disk, mut slots, mut last, mut again) = (Disk::new(), BTreeMap::new(), None, 0);
    for (number, call) in calls.iter().enumerate() {
        if let (Some(is_whole), Call::Write { at, .. }) = (told(call), call)
            && at % SLOT_BYTES == 0
        {
            // A commit is in the journal when the next one begins.
            if let Some(before) = last.filter(|before| before != at) {
                slots.entry(before).and_modify(|(_, begins)| *begins = number);
            }
            if let Some((true, begins)) = slots.insert(*at, (is_whole, usize::MAX)) {
                again += 1;
                let journal = disk.unsynced_since("/store/engine/0.jnl");
                assert!(journal.is_none_or(|since| since > begins), "call {number} at {at}");
            }
            last = Some(*at);
        }
        disk.call(call);
    }
    assert!(again > 50, "only {again} were used again");
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
    let workload = Workload { record_bytes_max: 40_000, memtable_bytes: 4 << 20, ..Workload::small(seed) };
    let mut random = StdRng::seed_from_u64(seed);
    let (calls, _place) = recorded(&workload, &[]);
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
fn without_the_witnesss_syncs_the_same_test_finds_a_loss() {
    let seed = seed();
    let workload = Workload::small(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let (calls, _place) = recorded(&workload, &[("POWER_LOSS_IGNORE_SYNC", "witness")]);
    let moments = some_moments(&calls, 60, &mut random);
    let outcomes = crash_at(&calls, &moments, &workload, &mut random);
    assert!(outcomes.contains_key("broken"), "seed {seed}: {outcomes:#?}");
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
