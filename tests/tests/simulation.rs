//! A node and twenty clients live through what a seed has in store for them; whatever that is, the
//! rules hold. `SHOAL_SIM_SEEDS=0..1000` runs others than the two hundred; `shoal-sim` runs one and
//! shows what happens.

use std::{process::Command, thread, time::Instant};

use shoal_tests::sim::{
    mutation::Mutation,
    run::{Options, run},
    seeds::{self, run_all, run_guarded},
};

/// As many as the machine that runs the tests is sure to have processors.
const THREADS: usize = 2;

#[test]
fn two_hundred_seeds_keep_every_rule() {
    let text = std::env::var("SHOAL_SIM_SEEDS").unwrap_or_else(|_| "0..200".into());
    let chosen = seeds::parse(&text).expect("SHOAL_SIM_SEEDS");
    let begun = Instant::now();
    let reports = run_all(chosen, THREADS, Options::default(), |report| {
        if !report.is_clean() {
            eprint!("{report}");
        }
    });
    let total = |count: fn(&shoal_tests::sim::run::Report) -> usize| reports.iter().map(count).sum::<usize>();
    println!(
        "{} seeds in {:.1} s: {} messages committed, {} records delivered, {} changes, {} lives of apps",
        reports.len(),
        begun.elapsed().as_secs_f64(),
        total(|report| report.counts.committed),
        total(|report| report.counts.delivered),
        total(|report| report.counts.changed),
        total(|report| report.counts.lives),
    );
    let failed: Vec<_> =
        reports.iter().filter(|report| !report.is_clean()).map(|report| report.seed).collect();
    assert!(failed.is_empty(), "these seeds broke a rule: {failed:?}");
    assert!(reports.iter().all(|report| report.counts.delivered > 0), "a run in which nothing happens");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let in_a_thread = |seed| thread::spawn(move || run(seed, Options::default()).hash).join().expect("runs");
    let mut hashes = Vec::new();
    for seed in [1, 7, 42, 57] {
        let hash = run(seed, Options::default()).hash;
        assert_eq!(run(seed, Options::default()).hash, hash, "seed {seed}, again");
        assert_eq!(in_a_thread(seed), hash, "seed {seed}, in another thread");
        assert_eq!(in_a_process(seed), format!("{hash:016x}"), "seed {seed}, in another process");
        hashes.push(hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 4, "another seed gives another run");
}

fn in_a_process(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_shoal-sim"))
        .args(["--seed", &seed.to_string()])
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
    for mutation in Mutation::ALL {
        let options = Options { mutation: Some(mutation), ..Options::default() };
        let most = within(mutation);
        let found = (0..most).find(|seed| !run_guarded(*seed, options).is_clean());
        assert!(found.is_some(), "{mutation:?} was not found within {most} seeds");
        println!("{mutation:?} is found by seed {}", found.unwrap_or_default());
    }
}
