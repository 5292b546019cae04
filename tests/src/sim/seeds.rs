//! Many seeds, a few at a time.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    thread,
};

use super::run::{Options, Report, run};

/// Runs seeds on so many threads, and shows each report as it comes. A run that panics is a
/// finding of its seed.
pub fn run_all(
    seeds: Range<u64>,
    threads: usize,
    options: Options,
    show: impl Fn(&Report) + Sync,
) -> Vec<Report> {
    let (next, reports) = (Mutex::new(seeds), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(seed) = seed else { return };
                    let report = run_guarded(seed, options);
                    show(&report);
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|report| report.seed);
    reports
}

/// Seeds as text: `FROM..TO`, without the last.
///
/// # Errors
/// Where it is something else.
pub fn parse(text: &str) -> Result<Range<u64>, String> {
    let parsed =
        text.split_once("..").and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?));
    parsed.ok_or_else(|| format!("seeds are FROM..TO, not {text:?}"))
}

/// A run, or what a panic in it says.
#[must_use]
pub fn run_guarded(seed: u64, options: Options) -> Report {
    let ran = std::panic::catch_unwind(|| run(seed, options));
    ran.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("something");
        Report::of_panic(seed, said)
    })
}
