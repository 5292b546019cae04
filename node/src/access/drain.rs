//! Letting the clients go to other nodes, while somebody wishes it and there are such nodes: in waves,
//! so that the others are not overrun. Whoever stays beyond the time there is to leave is closed.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{Shared, session::Order};
use crate::cluster::Others;

/// Between two waves.
const WAVE: Duration = Duration::from_millis(50);

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
    let mut waves = interval(WAVE);
    waves.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while waiting.len() > 0 {
        waves.tick().await;
        let wave = wave_sessions(shared.limits.load().leaves_per_second);
        for session in waiting.by_ref().take(wave) {
            session.order(Order::Drain);
        }
    }
    pending().await
}

fn wave_sessions(per_second: u32) -> usize {
    let waves_per_second = (Duration::from_secs(1).as_millis() / WAVE.as_millis()) as usize;
    (per_second as usize).div_ceil(waves_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_a_part_of_what_may_leave_in_a_second_and_never_empty() {
        assert_eq!([1, 20, 21, 500].map(wave_sessions), [1, 1, 2, 25]);
    }
}
