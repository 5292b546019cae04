//! Letting the clients go to other nodes, while somebody wishes it and there are such nodes: in waves,
//! so that the others are not overrun. Whoever stays beyond the time there is to leave is closed.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{Shared, session::Order};
use crate::cluster::Others;

/// Between two waves.
const WAVE: Duration = Duration::from_millis(50);

/// How long all of them take to leave, where that is no faster than they may: each costs its next node
/// a handshake, which delays what others there are sent.
const UNHURRIED: Duration = Duration::from_secs(5);

/// Follows the wish for as long as the node lives.
pub(super) async fn run(shared: Arc<Shared>, others: Arc<Others>) {
    loop {
        others.clients_leave(true).await;
        tracing::info!(sessions = shared.sessions.len(), "clients are told to go elsewhere");
        tokio::select! {
            biased;
            () = others.clients_leave(false) => {}
            () = let_go(&shared) => {}
        }
        tracing::info!("clients may stay");
        for session in shared.sessions.stay() {
            session.order(Order::Stay);
        }
    }
}

/// Tells everybody, wave by wave. Never ends.
async fn let_go(shared: &Shared) {
    shared.set_grace(shared.limits.load().leave());
    let mut waiting = shared.sessions.drain().into_iter();
    let sessions = waiting.len();
    let mut waves = interval(WAVE);
    waves.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while waiting.len() > 0 {
        waves.tick().await;
        let wave = wave_sessions(sessions, shared.limits.load().leaves_per_second);
        for session in waiting.by_ref().take(wave) {
            session.order(Order::Drain);
        }
    }
    pending().await
}

fn wave_sessions(sessions: usize, per_second_max: u32) -> usize {
    let waves_in = |time: Duration| (time.as_millis() / WAVE.as_millis()) as usize;
    let most = (per_second_max as usize).div_ceil(waves_in(Duration::from_secs(1)));
    sessions.div_ceil(waves_in(UNHURRIED)).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_a_part_of_what_may_leave_in_a_second_and_never_empty() {
        assert_eq!([1, 20, 21, 500].map(|most| wave_sessions(1_000_000, most)), [1, 1, 2, 25]);
    }

    #[test]
    fn few_leave_without_hurry() {
        assert_eq!([0, 1, 100, 101, 1_000, 10_000].map(|few| wave_sessions(few, 500)), [1, 1, 1, 2, 10, 25]);
    }
}
