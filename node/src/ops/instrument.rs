//! Instruments for hot paths. A count is one relaxed add to a cache line that other threads
//! rarely touch; whoever scrapes adds the stripes up.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use shoal_protocol::Code;

/// Threads share a stripe only where there are more of them.
const STRIPES: usize = 8;

/// Two cache lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// What only grows. Cheap to clone; all clones are one counter.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<[Stripe; STRIPES]>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0[stripe()].0.fetch_add(count, Relaxed);
    }

    /// How many there have been.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Relaxed)).sum()
    }
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// The greatest of what was observed of late: since the turn before the last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Peak(Arc<Peaks>);

#[derive(Debug, Default)]
struct Peaks {
    now: AtomicU64,
    before: AtomicU64,
}

impl Peak {
    /// Observes a value.
    pub fn observe(&self, value: u64) {
        self.0.now.fetch_max(value, Relaxed);
    }

    /// Begins anew: what was before the last turn is forgotten. Whoever reports calls it each second.
    pub fn turn(&self) {
        self.0.before.store(self.0.now.swap(0, Relaxed), Relaxed);
    }

    /// The greatest.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.now.load(Relaxed).max(self.0.before.load(Relaxed))
    }
}

impl EncodeMetric for Peak {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// How many observations fell between which bounds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Upper bounds, ascending, in the unit that is observed.
    bounds: Vec<u64>,
    /// How many units observed are one unit shown.
    scale: f64,
    stripes: Vec<BucketStripe>,
}

#[derive(Debug)]
#[repr(align(128))]
struct BucketStripe {
    sum: AtomicU64,
    /// One for each bound, and one above.
    counts: Box<[AtomicU64]>,
}

impl Histogram {
    /// Durations from 50 µs to 26 s, a factor of two each, shown in seconds.
    #[must_use]
    pub fn seconds() -> Self {
        Self::new((0..20).map(|power| 50_000_u64 << power).collect(), 1e9)
    }

    /// Sizes from 1 to 65,536, a factor of two each.
    #[must_use]
    pub fn sizes() -> Self {
        Self::new((0..17).map(|power| 1_u64 << power).collect(), 1.0)
    }

    fn new(bounds: Vec<u64>, scale: f64) -> Self {
        let stripe = || BucketStripe {
            sum: AtomicU64::new(0),
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
        };
        let stripes = (0..STRIPES).map(|_| stripe()).collect();
        Self(Arc::new(Buckets { bounds, scale, stripes }))
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_size(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a size.
    pub fn observe_size(&self, size: u64) {
        let stripe = &self.0.stripes[stripe()];
        stripe.counts[self.0.bounds.partition_point(|bound| *bound < size)].fetch_add(1, Relaxed);
        stripe.sum.fetch_add(size, Relaxed);
    }
}

impl EncodeMetric for Histogram {
    #[expect(clippy::cast_precision_loss, reason = "a scraped figure needs no more than 53 bits")]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let Buckets { bounds, scale, stripes } = &*self.0;
        let count_at = |at: usize| stripes.iter().map(|stripe| stripe.counts[at].load(Relaxed)).sum::<u64>();
        let buckets: Vec<(f64, u64)> = (0..=bounds.len())
            .map(|at| (bounds.get(at).map_or(f64::INFINITY, |bound| *bound as f64 / scale), count_at(at)))
            .collect();
        let sum = stripes.iter().map(|stripe| stripe.sum.load(Relaxed)).sum::<u64>() as f64 / scale;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Refusals, by code. Not for hot paths: codes share cache lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RefusalCounter(Arc<[AtomicU64]>);

impl Default for RefusalCounter {
    fn default() -> Self {
        Self((0..=Code::Unknown as usize).map(|_| AtomicU64::new(0)).collect())
    }
}

impl RefusalCounter {
    /// One more with this code.
    pub fn inc(&self, code: Code) {
        self.0[code as usize].fetch_add(1, Relaxed);
    }

    /// How many with this code there have been.
    #[must_use]
    pub fn get(&self, code: Code) -> u64 {
        self.0[code as usize].load(Relaxed)
    }
}

impl EncodeMetric for RefusalCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (number, count) in (0_u32..).zip(self.0.iter()) {
            let count = count.load(Relaxed);
            if count > 0 {
                let labels = [("code", Code::from_wire(number).to_string())];
                encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// This thread's stripe.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT.fetch_add(1, Relaxed) % STRIPES);
        }
        stripe.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_adds_up_what_all_threads_counted() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..1000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.get(), 2 * STRIPES as u64 * 1000);
    }

    #[test]
    fn a_peak_is_forgotten_after_two_turns() {
        let peak = Peak::default();
        let mut seen = Vec::new();
        for value in [9, 3, 1] {
            peak.observe(value);
            seen.push(peak.get());
            peak.turn();
        }
        peak.turn();
        seen.push(peak.get());
        assert_eq!(seen, [9, 9, 3, 0]);
    }

    #[test]
    fn an_observation_on_a_bound_falls_below_it() {
        let histogram = Histogram::sizes();
        for size in [0, 1, 2, 3, 65_536, 65_537] {
            histogram.observe_size(size);
        }
        let counts: Vec<u64> = (0..=17)
            .map(|at| histogram.0.stripes.iter().map(|stripe| stripe.counts[at].load(Relaxed)).sum())
            .collect();
        assert_eq!((counts[0], counts[1], counts[2]), (2, 1, 1));
        assert_eq!((counts[16], counts[17]), (1, 1));
    }
}
