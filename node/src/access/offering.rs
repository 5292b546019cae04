//! Offering clients another node: of their own region, while this one is of another; and in this region, while
//! this node carries clearly more than its share, after a node has joined or come back. In waves, to some who
//! have been here for a while, drawn by lot. Who stays is left alone.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    Shared,
    registry::Registered,
    session::{Order, Session},
};
use crate::{
    cluster::{Homes, Others, Tolerance},
    ops::{Event, Kind},
};

/// Between two waves, and between two looks.
const WAVE: Duration = Duration::from_secs(1);

/// In so many waves all that is too much is offered, where that is no faster than may be.
const WAVES: u32 = 10;

/// Until what moved stands in all nodes' records.
const SETTLE: Duration = Duration::from_secs(5);

/// Looks for as long as the node lives.
pub(super) async fn run(shared: Arc<Shared>, others: Arc<Others>) {
    let mut looks = interval(WAVE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let offered = send_home(&shared, &others).await + even_out(&shared, &others).await;
        if offered > 0 {
            sleep(SETTLE).await;
        }
    }
}

/// Offers guests nodes of their own regions; to how many. In so many waves at most that those who do not take
/// it do not keep the load from being evened out.
async fn send_home(shared: &Shared, others: &Others) -> usize {
    let mut homes = others.homes();
    if !shared.has_guests(&homes) {
        return 0;
    }
    let limits = shared.limits.load();
    let most = limits.offers_per_second.saturating_mul(WAVES) as usize;
    let mut waiting = shared.draw_rested(most, limits.offer_after(), |guest| homes.have(guest.region()));
    waiting.retain(|guest| homes.take(guest.region()));
    let offered = waiting.len();
    if offered > 0 {
        let text = format!("{offered} sessions are offered nodes of their own region");
        shared.events.tell(Event::new(Kind::SessionsOffered, text));
    }
    offer_in_waves(waiting, limits.offers_per_second, || true).await;
    offered
}

/// Offers what is too much now; to how many.
async fn even_out(shared: &Shared, others: &Others) -> usize {
    let limits = shared.limits.load();
    let tolerance = Tolerance { percent: limits.surplus_percent, sessions: limits.surplus_sessions };
    let homes = others.homes();
    let surplus = others.surplus(shared.settled(&homes), tolerance);
    let most = usize::try_from(surplus).unwrap_or(usize::MAX);
    let waiting = shared.draw_rested(most, limits.offer_after(), |session| !homes.have(session.region()));
    let offered = waiting.len();
    if offered > 0 {
        let text = format!("{offered} sessions are offered nodes of the region that carry less");
        shared.events.tell(Event::new(Kind::SessionsOffered, text));
    }
    let is_above = || others.above_enough(shared.settled(&others.homes())) > 0;
    offer_in_waves(waiting, limits.offers_per_second, is_above).await;
    offered
}

/// Offers these another node, a wave each second, for as long as there is need.
async fn offer_in_waves(mut waiting: Vec<Arc<Session>>, per_second_max: u32, is_needed: impl Fn() -> bool) {
    let wave = wave_sessions(waiting.len(), per_second_max);
    while !waiting.is_empty() && is_needed() {
        for session in waiting.drain(..wave.min(waiting.len())) {
            session.order(Order::Offer);
        }
        sleep(WAVE).await;
    }
}

fn wave_sessions(waiting: usize, per_second_max: u32) -> usize {
    waiting.div_ceil(WAVES as usize).clamp(1, per_second_max as usize)
}

impl Shared {
    /// How many sessions it has.
    fn carried(&self) -> u64 {
        self.sessions.len() as u64
    }

    /// Do any of them belong in these regions?
    fn has_guests(&self, homes: &Homes) -> bool {
        homes.names().any(|region| self.sessions.len_of(region) > 0)
    }

    /// How many sessions it has without the guests, for they are about to go: all but those who were asked and
    /// have stayed.
    fn settled(&self, homes: &Homes) -> u64 {
        let guests = if self.has_guests(homes) {
            let (rested, now) = (self.limits.load().offer_after(), self.started.elapsed());
            let goes = |session: &Session| homes.have(session.region()) && !session.has_stayed(rested, now);
            self.sessions.count(goes) as u64
        } else {
            0
        };
        self.carried().saturating_sub(guests)
    }

    /// So many, or all, of the sessions that `may` go and that began, and were offered another node, longer
    /// ago than this.
    fn draw_rested(
        &self,
        most: usize,
        rested: Duration,
        may: impl Fn(&Session) -> bool,
    ) -> Vec<Arc<Session>> {
        if most == 0 {
            return Vec::new();
        }
        let now = self.started.elapsed();
        let mut random = StdRng::seed_from_u64(self.random());
        self.sessions.draw(most, |session| may(session) && session.has_rested(rested, now), &mut random)
    }

    /// Where a client is better off: at home, or else where fewer clients are than here.
    pub(super) fn better_for(&self, session: &Session) -> Vec<String> {
        let Some(others) = &self.others else { return Vec::new() };
        let at_home = others.at_home(session.region(), || self.chance());
        if at_home.is_empty() { others.roomier(self.carried(), || self.chance()) } else { at_home }
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
