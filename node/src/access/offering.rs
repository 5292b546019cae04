//! Offering clients another node while this one carries clearly more than its share of the region's: after a
//! node has joined, or come back. In waves, to some who have been here for a while, drawn by lot. Who
//! stays is left alone.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Shared, session::Order};
use crate::{
    cluster::{Others, Tolerance},
    ops::{Event, Kind},
};

/// Between two waves, and between two looks.
const WAVE: Duration = Duration::from_secs(1);

/// In so many waves all that is too much is offered, where that is no faster than may be.
const WAVES: u64 = 10;

/// Until what moved stands in all nodes' records.
const SETTLE: Duration = Duration::from_secs(5);

/// Looks for as long as the node lives.
pub(super) async fn run(shared: Arc<Shared>, others: Arc<Others>) {
    let mut looks = interval(WAVE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if even_out(&shared, &others).await > 0 {
            sleep(SETTLE).await;
        }
    }
}

/// Offers what is too much now; to how many.
async fn even_out(shared: &Shared, others: &Others) -> usize {
    let limits = shared.limits.load();
    let tolerance = Tolerance { percent: limits.surplus_percent, sessions: limits.surplus_sessions };
    let surplus = others.surplus(shared.carried(), tolerance);
    let rested = Duration::from_millis(limits.offer_after_ms);
    let mut waiting = shared.draw_rested(usize::try_from(surplus).unwrap_or(usize::MAX), rested);
    let offered = waiting.len();
    if offered > 0 {
        let text = format!("{offered} sessions are offered nodes of the region that carry less");
        shared.events.tell(Event::new(Kind::SessionsOffered, text));
    }
    let wave = wave_sessions(surplus, limits.offers_per_second);
    while !waiting.is_empty() && others.above_enough(shared.carried()) > 0 {
        for session in waiting.drain(..wave.min(waiting.len())) {
            session.order(Order::Offer);
        }
        sleep(WAVE).await;
    }
    offered
}

fn wave_sessions(surplus: u64, per_second_max: u32) -> usize {
    usize::try_from(surplus.div_ceil(WAVES).clamp(1, per_second_max.into())).unwrap_or(usize::MAX)
}

impl Shared {
    /// How many sessions it has.
    fn carried(&self) -> u64 {
        self.sessions.len() as u64
    }

    /// So many, or all, of the sessions that began, and were offered another node, longer ago than this.
    fn draw_rested(&self, most: usize, rested: Duration) -> Vec<Arc<super::session::Session>> {
        if most == 0 {
            return Vec::new();
        }
        let now = self.started.elapsed();
        let mut random = StdRng::seed_from_u64(self.random());
        self.sessions.draw(most, |session| session.has_rested(rested, now), &mut random)
    }

    /// Where fewer clients are than here.
    pub(super) fn roomier(&self) -> Vec<String> {
        let others = self.others.as_ref();
        others.map(|others| others.roomier(self.carried(), || self.chance())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_a_part_of_the_surplus_and_bounded_and_never_empty() {
        assert_eq!([1, 10, 11, 400, 100_000].map(|surplus| wave_sessions(surplus, 50)), [1, 1, 2, 40, 50]);
    }
}
