//! Nodes and twenty clients live through what a seed has in store for them; whatever that is, the
//! rules hold. `SHOAL_SIM_SEEDS=1000..9000` runs others than the first thousand; `shoal-sim` runs one
//! and shows what happens.

use std::{collections::BTreeSet, process::Command, thread, time::Instant};

use shoal_tests::sim::{
    mutation::Mutation,
    plan::WeakNetwork,
    run::{Options, run},
    seeds::{self, run_all, run_guarded},
    slowing::Slowing,
    strike::Strike,
};

/// As many as the machine that runs the tests is sure to have processors.
const THREADS: usize = 2;

#[test]
fn a_thousand_seeds_keep_every_rule() {
    let text = std::env::var("SHOAL_SIM_SEEDS").unwrap_or_else(|_| "0..1000".into());
    let chosen = seeds::parse(&text).expect("SHOAL_SIM_SEEDS");
    let begun = Instant::now();
    let reports = run_all(chosen, THREADS, Options::default(), |report| {
        if !report.is_clean() {
            eprint!("{report}");
        }
    });
    let total = |count: fn(&shoal_tests::sim::run::Report) -> usize| reports.iter().map(count).sum::<usize>();
    let (cuts, merges) = (total(|report| report.counts.cuts), total(|report| report.counts.merges));
    let clusters = reports.iter().filter(|report| report.nodes > 1).count();
    println!(
        "{} seeds ({clusters} of clusters) in {:.1} s: {} messages committed, {} of the muted refused, {} records \
         delivered, {} silent, {} changes, {cuts} cuts and {merges} merges of sub-groups, {} lives of apps",
        reports.len(),
        begun.elapsed().as_secs_f64(),
        total(|report| report.counts.committed),
        total(|report| report.counts.muted),
        total(|report| report.counts.delivered),
        total(|report| report.counts.silent),
        total(|report| report.counts.changed),
        total(|report| report.counts.lives),
    );
    let failed: Vec<_> =
        reports.iter().filter(|report| !report.is_clean()).map(|report| report.seed).collect();
    assert!(failed.is_empty(), "these seeds broke a rule: {failed:?}");
    assert!(reports.iter().all(|report| report.counts.delivered > 0), "a run in which nothing happens");
    let is_told = |report: &&shoal_tests::sim::run::Report| report.counts.silent > 0;
    let silent = reports.iter().filter(is_told).count();
    assert!(reports.len() < 100 || silent * 2 >= reports.len(), "hardly anything is silent");
    assert!(reports.len() < 100 || cuts.min(merges) >= reports.len(), "groups hardly grow, or shrink");
    assert!(reports.len() < 100 || clusters * 2 >= reports.len(), "too few clusters: {clusters}");
}

/// The old owner, the new one, the home and the leader go down, or stand still, at each step of a plan:
/// it ends committed or rolled back. `shoal-sim --strikes --nodes 3` does so with other seeds.
#[test]
fn a_plan_ends_whoever_dies_at_whichever_step() {
    let mut struck = 0;
    for (seed, strike) in (2_000..).zip(Strike::all()) {
        for seed in [seed, seed + 1] {
            let report =
                run_guarded(seed, Options { nodes: Some(3), strike: Some(strike), ..Options::default() });
            assert!(report.is_clean(), "{strike:?}: {report}");
            struck += report.counts.struck;
        }
    }
    assert!(struck >= 28, "of 32 runs only {struck} had such a moment");
}

/// The home, an owner and the leader become a hundred times as slow, and hold their leases: within ten
/// seconds they have nothing any more. `shoal-sim --slowings` does so with other seeds.
#[test]
fn a_node_that_is_slow_and_holds_its_lease_is_emptied_within_ten_seconds() {
    for (seed, slowing) in (3_000..3_006).zip(Slowing::ALL.into_iter().cycle()) {
        let report = run_guarded(seed, Options { slowing: Some(slowing), ..Options::default() });
        assert!(report.is_clean(), "{slowing:?}: {report}");
    }
}

/// Every profile × steady, another address each 5 s, blackouts of 3 s, and one of 90 s: nothing is lost, doubled
/// or out of order, whatever the network does. `shoal-sim --networks` does so with other seeds.
#[test]
fn every_weak_network_and_every_trouble_keeps_every_rule() {
    let all: Vec<_> = (4_000..).zip(WeakNetwork::all()).collect();
    let failed: Vec<_> = thread::scope(|scope| {
        let halves = all.chunks(all.len().div_ceil(THREADS));
        let threads: Vec<_> = halves.map(|half| scope.spawn(|| failed_on(half))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("runs")).collect()
    });
    assert!(failed.is_empty(), "these seeds broke a rule: {failed:?}");
}

fn failed_on(networks: &[(u64, WeakNetwork)]) -> Vec<u64> {
    let mut failed = Vec::new();
    for (seed, network) in networks {
        let report = run_guarded(*seed, Options { network: Some(*network), ..Options::default() });
        if !report.is_clean() {
            eprint!("{network:?}: {report}");
            failed.push(*seed);
        }
    }
    failed
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let in_a_thread = |seed, options| thread::spawn(move || run(seed, options).hash).join().expect("runs");
    let mut hashes = BTreeSet::new();
    for (seed, nodes) in [(1, 1), (7, 1), (42, 2), (57, 3), (58, 3), (58, 2)] {
        let options = Options { nodes: Some(nodes), ..Options::default() };
        let hash = run(seed, options).hash;
        assert_eq!(run(seed, options).hash, hash, "seed {seed}, again");
        assert_eq!(in_a_thread(seed, options), hash, "seed {seed}, in another thread");
        assert_eq!(in_a_process(seed, nodes), format!("{hash:016x}"), "seed {seed}, in another process");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 6, "another seed gives another run");
}

fn in_a_process(seed: u64, nodes: usize) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_shoal-sim"))
        .args(["--seed", &seed.to_string(), "--nodes", &nodes.to_string()])
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let hash = said.lines().next().and_then(|line| line.split("trace ").nth(1));
    hash.unwrap_or_else(|| panic!("no trace in {said}")).to_owned()
}

#[test]
fn every_promise_that_is_broken_on_purpose_is_found_within_so_many_seeds() {
    // What needs a crash, or an unknown outcome, at the right moment takes a few seeds.
    let within = |mutation| match mutation {
        Mutation::UnknownTakenForDone => 40,
        Mutation::AcknowledgedEarly | Mutation::SendersForgotten => 12,
        Mutation::EpochsStand | Mutation::RemovedGoesOn => 6,
        _ => 2,
    };
    for mutation in Mutation::OF_ONE_NODE {
        find(mutation, 1, within(mutation));
    }
}

#[test]
fn every_promise_that_a_cluster_breaks_on_purpose_is_found_within_so_many_seeds() {
    // Two homes must write at the same time. That a node is fed what it has, or not yet wants, is
    // more common; that somebody comes to feel it, of twelve runs one.
    let within = |mutation| if mutation == Mutation::FedAsItComes { 60 } else { 20 };
    for mutation in Mutation::OF_A_CLUSTER {
        find(mutation, 3, within(mutation));
    }
}

fn find(mutation: Mutation, nodes: usize, within: u64) {
    let options = Options { mutation: Some(mutation), nodes: Some(nodes), ..Options::default() };
    let found = (0..within).find(|seed| !run_guarded(*seed, options).is_clean());
    let found = found.unwrap_or_else(|| panic!("{mutation:?} was not found within {within} seeds"));
    println!("{mutation:?} is found by seed {found}");
}
