//! The disk is full, or a sync fails: the store stops writing, says so, reads on, and has lost
//! nothing once there is space again.

use std::ops::Range;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    disk::Disk,
    record,
    workload::{Judgement, Place, Promised, Workload, seed},
};

const WITNESS_BYTES: u64 = 8 << 20;

fn stopped(workload: &Workload, variable: (&str, &str)) -> (Place, Promised) {
    let place = Place::new();
    workload.run(&place, &[variable]);
    let promised = Promised::of(&place.acks());
    assert!(promised.stopped, "{variable:?}: the store went on writing");
    assert!(promised.read_on, "{variable:?}: the store did not read on");
    (place, promised)
}

fn assert_kept(promised: &Promised, place: &Place, workload: &Workload, what: &str) {
    match promised.judge(&place.root(), workload) {
        Judgement::Kept => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_full_disk_stops_the_writing_and_loses_nothing() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..6 {
        let workload = Workload::small(random.random());
        let space = (WITNESS_BYTES + random.random_range(60_000..400_000)).to_string();
        let (place, promised) = stopped(&workload, ("POWER_LOSS_SPACE", &space));
        assert_kept(&promised, &place, &workload, &format!("seed {seed}, {space} bytes"));
    }
}

/// The first syncs are those of the creation.
fn assert_failed_syncs_lose_nothing(file: &str, syncs: Range<u64>) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..6 {
        let workload = Workload { rounds: 400, ..Workload::small(random.random()) };
        let failing = format!("{file}:{}", random.random_range(syncs.clone()));
        let (place, promised) = stopped(&workload, ("POWER_LOSS_FAIL_SYNC", &failing));
        let mut disk = Disk::new();
        record::read(&place.log()).iter().for_each(|call| disk.call(call));
        assert_kept(&promised, &place, &workload, &format!("seed {seed}, sync {failing}"));
        let after = Place::new();
        disk.crash(&mut random).lay_down(&after.root());
        assert_kept(&promised, &after, &workload, &format!("seed {seed}, sync {failing}, power loss"));
    }
}

#[test]
fn a_failed_sync_stops_the_writing_and_loses_nothing_even_if_the_power_goes_then() {
    assert_failed_syncs_lose_nothing(".jnl", 16..24);
}

#[test]
fn so_does_a_failed_sync_of_the_witness() {
    assert_failed_syncs_lose_nothing("witness", 8..60);
}
