//! One direction of a path. Pure: the moment and a packet's size go in, the moments at which it arrives come
//! out; chance comes from a seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::loss::{Losing, Loss};

/// What comes on top of a UDP payload on the wire: the headers of IPv4 and UDP.
const HEADER_BYTES: usize = 28;

/// Jitter is no more than so many times its mean.
const JITTER_MAX: f64 = 4.0;

/// A packet that is overtaken is so much later, at least.
const OVERTAKEN: Duration = Duration::from_millis(10);

/// A second copy follows the first.
const COPY: Duration = Duration::from_millis(2);

/// How one direction of a path is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// The shortest time from one end to the other.
    pub delay: Duration,
    /// What each packet takes longer, on average: exponentially distributed, four times as much at most.
    pub jitter: Duration,
    /// How packets are lost.
    pub loss: Loss,
    /// So many are overtaken by those behind them: `0.0..=1.0`. All others arrive in order.
    pub reordered: f64,
    /// So many arrive twice: `0.0..=1.0`.
    pub doubled: f64,
    /// Bits a second, with the headers of IP and UDP.
    pub bits_per_second: u64,
    /// A packet waits for its turn no longer than that; one that would is dropped.
    pub queue: Duration,
    /// Bytes of the largest UDP payload that passes; larger ones are dropped without a word.
    pub payload_bytes_max: usize,
}

impl Conditions {
    /// Without any fault, and without delay.
    pub const CLEAR: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: Loss::NONE,
        reordered: 0.0,
        doubled: 0.0,
        bits_per_second: 1_000_000_000,
        queue: Duration::from_millis(100),
        payload_bytes_max: 1472,
    };

    fn transmission(&self, payload_bytes: usize) -> Duration {
        let bits = (payload_bytes + HEADER_BYTES) as f64 * 8.0;
        Duration::from_secs_f64(bits / self.bits_per_second.max(1) as f64)
    }
}

/// One direction of a path, and what is on its way.
#[derive(Debug)]
pub struct Path {
    losing: Losing,
    /// When the last packet has left the queue.
    free_at: Duration,
    /// When the last one that keeps its place arrives.
    last_arrival: Duration,
    random: StdRng,
}

/// When a packet arrives: never, once or twice.
pub type Arrivals = [Option<Duration>; 2];

impl Path {
    /// Nothing is on its way.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            losing: Losing::default(),
            free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// A packet with so many bytes of payload is sent; `now` never goes back.
    pub fn send(&mut self, conditions: &Conditions, payload_bytes: usize, now: Duration) -> Arrivals {
        let turn = self.free_at.max(now);
        let is_too_large = payload_bytes > conditions.payload_bytes_max;
        if is_too_large || turn - now > conditions.queue {
            return [None; 2];
        }
        // What is lost on the way has taken its room before.
        self.free_at = turn + conditions.transmission(payload_bytes);
        if self.losing.next(conditions.loss, &mut self.random) {
            return [None; 2];
        }
        let arrival = self.free_at + conditions.delay + self.jitter(conditions);
        let arrival = if self.happens(conditions.reordered) {
            arrival + conditions.jitter.max(OVERTAKEN)
        } else {
            self.last_arrival = arrival.max(self.last_arrival);
            self.last_arrival
        };
        [Some(arrival), self.happens(conditions.doubled).then_some(arrival + COPY)]
    }

    fn jitter(&mut self, conditions: &Conditions) -> Duration {
        let chance: f64 = self.random.random();
        conditions.jitter.mul_f64((-(1.0 - chance).ln()).min(JITTER_MAX))
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The first arrival of each of so many packets, one each millisecond.
    fn first(conditions: &Conditions, packets: u64, bytes: usize) -> Vec<Option<Duration>> {
        let mut path = Path::new(7);
        (0..packets).map(|at| path.send(conditions, bytes, ms(at))[0]).collect()
    }

    #[test]
    fn a_clear_path_takes_what_the_way_takes() {
        let conditions = Conditions { delay: ms(40), ..Conditions::CLEAR };
        for (arrival, at) in first(&conditions, 100, 1_222).into_iter().zip(0..) {
            assert_eq!(arrival, Some(ms(at) + ms(40) + Duration::from_micros(10)));
        }
    }

    #[test]
    fn no_more_arrives_than_there_is_room_for() {
        // A thousand packets a second, of a thousand bytes, where there is room for a tenth of that.
        let conditions = Conditions { bits_per_second: 800_000, queue: ms(50), ..Conditions::CLEAR };
        let arrivals = first(&conditions, 10_000, 972);
        let arrived = arrivals.iter().flatten().count();
        assert!((1_000..=1_010).contains(&arrived), "{arrived}");
        for (arrival, at) in arrivals.iter().zip(0..).filter_map(|(arrival, at)| Some(((*arrival)?, ms(at))))
        {
            assert!(arrival - at <= ms(60), "it waits no longer than the queue is");
        }
    }

    #[test]
    fn what_is_too_large_does_not_pass() {
        assert_eq!(first(&Conditions::CLEAR, 1, 1_473), [None]);
        assert!(first(&Conditions::CLEAR, 1, 1_472)[0].is_some());
    }

    #[test]
    fn some_arrive_twice() {
        let conditions = Conditions { doubled: 0.25, ..Conditions::CLEAR };
        let mut path = Path::new(3);
        let twice = (0..4_000).filter(|at| path.send(&conditions, 100, ms(*at))[1].is_some()).count();
        assert!((900..1_100).contains(&twice), "{twice}");
    }

    proptest! {
        /// Only those that are overtaken are out of order.
        #[test]
        fn without_reordering_packets_arrive_in_order(jitter in 0_u64..200, loss in 0.0..0.5_f64, seed: u64) {
            let conditions = Conditions { jitter: ms(jitter), loss: Loss::random(loss), ..Conditions::CLEAR };
            let mut path = Path::new(seed);
            let arrivals: Vec<_> = (0..500).filter_map(|at| path.send(&conditions, 200, ms(at))[0]).collect();
            prop_assert!(arrivals.is_sorted());
        }

        #[test]
        fn with_reordering_some_are_overtaken(seed: u64) {
            let conditions = Conditions { reordered: 0.1, ..Conditions::CLEAR };
            let mut path = Path::new(seed);
            let arrivals: Vec<_> = (0..1_000).filter_map(|at| path.send(&conditions, 200, ms(at))[0]).collect();
            let overtaken = arrivals.windows(2).filter(|pair| pair[0] > pair[1]).count();
            prop_assert!((40..160).contains(&overtaken), "{overtaken}");
        }
    }
}
