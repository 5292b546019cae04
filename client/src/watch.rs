//! Notices when the machine's network changes, and when the machine has slept.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, StreamExt, stream};
use if_watch::{IfEvent, tokio::IfWatcher};
use tokio::time::{Instant, sleep, timeout};

/// Addresses come and go in groups: so long after the first the others are there.
const SETTLE: Duration = Duration::from_millis(200);

/// How often it is looked whether the machine has slept.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who has slept for less needs not be told: heartbeats find out.
const SLEPT_MIN: Duration = Duration::from_secs(3);

/// An item for each change, from now on; none of the addresses that there are already.
pub(crate) fn changes() -> impl Stream<Item = ()> {
    let watcher = IfWatcher::new().map_err(|error| {
        // As on Android, where the app is told by its platform.
        tracing::debug!(%error, "changes of address are not seen here");
    });
    stream::unfold((watcher.ok(), Sleeps::now()), |(mut watcher, mut sleeps)| async move {
        loop {
            tokio::select! {
                biased;
                () = changed(&mut watcher) => {
                    while timeout(SETTLE, changed(&mut watcher)).await.is_ok() {}
                    return Some(((), (watcher, sleeps)));
                }
                () = sleep(LOOK_EVERY) => {
                    if sleeps.look(Instant::now(), SystemTime::now()) {
                        return Some(((), (watcher, sleeps)));
                    }
                }
            }
        }
    })
}

/// Waits for an address that matters to come or go. Cancellation safe.
async fn changed(watcher: &mut Option<IfWatcher>) {
    while let Some(watching) = watcher {
        match watching.next().await {
            Some(Ok(IfEvent::Up(net) | IfEvent::Down(net))) if is_of_a_network(net.addr()) => return,
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "changes of address are not seen any more");
                *watcher = None;
            }
            None => *watcher = None,
        }
    }
    std::future::pending().await
}

/// Neither of the machine alone nor of a link alone, as every interface has.
fn is_of_a_network(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

/// Finds out by two clocks, of which one stands still while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Sleeps {
    monotonic: Instant,
    wall: SystemTime,
}

impl Sleeps {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Has the machine slept since the last look? A clock that was set forward looks the same, and one look at
    /// the connection too many does no harm.
    fn look(&mut self, monotonic: Instant, wall: SystemTime) -> bool {
        let awake = monotonic.saturating_duration_since(self.monotonic);
        let passed = wall.duration_since(self.wall).unwrap_or_default();
        *self = Self { monotonic, wall };
        passed.saturating_sub(awake) >= SLEPT_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_has_slept_where_the_wall_clock_went_on_without_the_other() {
        let (second, mut sleeps) = (Duration::from_secs(1), Sleeps::now());
        let Sleeps { monotonic, wall } = sleeps;
        assert!(!sleeps.look(monotonic + second * 5, wall + second * 6));
        assert!(sleeps.look(monotonic + second * 10, wall + second * 900));
        assert!(!sleeps.look(monotonic + second * 15, wall + second * 905), "it is told once");
        assert!(!sleeps.look(monotonic + second * 20, wall), "a clock that is set back is no sleep");
    }

    #[test]
    fn addresses_that_are_always_there_do_not_matter() {
        let matter = |address: &str| is_of_a_network(address.parse().unwrap());
        assert!(["192.168.1.7", "100.64.3.2", "2001:db8::7", "fd00::1"].into_iter().all(matter));
        assert!(!["127.0.0.1", "169.254.9.9", "::1", "fe80::1"].into_iter().any(matter));
    }
}
