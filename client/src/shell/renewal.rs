//! A new token before the old one expires, so that the session outlives it.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    lock,
    session::{End, Session},
};
use crate::core::backoff::Backoff;

/// A token is renewed when this share of its time is left,
const LEFT_DIVISOR: u32 = 5;
/// but not later than this before its end, where it lives that long.
const LEFT_MAX: Duration = Duration::from_secs(300);
/// How long the node has to take the new one.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

impl Session {
    /// Keeps the session's token fresh, if the source can.
    pub(super) async fn renew_token(&self) -> End {
        if !self.shared.config.token.renews() {
            return std::future::pending().await;
        }
        let mut expires = self.expires.subscribe();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let Some(at) = *expires.borrow_and_update() else {
                return std::future::pending().await;
            };
            sleep_until(renew_at(Instant::now(), at)).await;
            match self.shared.fetch_token().await {
                Ok(token) => {
                    *lock(&self.renew) = Some(token);
                    self.shared.follows.wake.notify_one();
                    // An answer moves the expiry; without one it is tried again.
                    let _ = tokio::time::timeout(ANSWER_WAIT, expires.changed()).await;
                    backoff.reset();
                }
                Err(why) => {
                    tracing::debug!(%why, "no new token");
                }
            }
            // A source that gives tokens which hardly last is not asked all the time.
            sleep(backoff.failed(self.shared.chance())).await;
        }
    }
}

fn renew_at(now: Instant, expires: Instant) -> Instant {
    let left = expires.saturating_duration_since(now);
    expires.checked_sub((left / LEFT_DIVISOR).min(LEFT_MAX)).unwrap_or(now)
}
