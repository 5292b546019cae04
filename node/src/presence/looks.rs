//! What was found of late, so that everybody who asks within a second shares one look.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shoal_protocol::GroupId;
use tokio::{sync::OnceCell, time::Instant};

use super::Attendance;

/// How old an answer may be.
const AGE_MAX: Duration = Duration::from_secs(1);

/// Groups whose answers are kept.
const GROUPS_MAX: usize = 1024;

/// The latest look at each group.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<BTreeMap<GroupId, Arc<Look>>>);

#[derive(Debug)]
struct Look {
    begun: Instant,
    found: OnceCell<Arc<Attendance>>,
}

impl Looks {
    /// What was found within the last second, or what `look` finds now, for all who ask meanwhile.
    /// Cancellation safe: another goes on.
    pub(super) async fn get(
        &self,
        group: GroupId,
        look: impl Future<Output = Attendance>,
    ) -> Arc<Attendance> {
        let latest = self.latest(group);
        let found = latest.found.get_or_init(async || Arc::new(look.await)).await;
        Arc::clone(found)
    }

    fn latest(&self, group: GroupId) -> Arc<Look> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = looks.get(&group).filter(|look| look.is_recent()) {
            return Arc::clone(look);
        }
        if looks.len() >= GROUPS_MAX {
            looks.retain(|_, look| look.is_recent());
        }
        if looks.len() >= GROUPS_MAX {
            // Whoever asks for it next looks again.
            looks.pop_first();
        }
        let look = Arc::new(Look { begun: Instant::now(), found: OnceCell::new() });
        looks.insert(group, Arc::clone(&look));
        look
    }
}

impl Look {
    fn is_recent(&self) -> bool {
        self.begun.elapsed() < AGE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_within_a_second_share_one_look() {
        let (looks, count) = (Looks::default(), AtomicU64::new(0));
        let ask = async || {
            let look = async {
                sleep(Duration::from_millis(100)).await;
                Attendance::large(count.fetch_add(1, Ordering::Relaxed) + 1, [])
            };
            looks.get(GroupId::named("a"), look).await.sessions
        };
        assert_eq!(tokio::join!(ask(), ask(), ask()), (1, 1, 1));
        sleep(Duration::from_millis(800)).await;
        assert_eq!(ask().await, 1);
        sleep(Duration::from_millis(200)).await;
        assert_eq!(ask().await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_leaves_the_look_to_the_next() {
        let looks = Looks::default();
        let never = looks.get(GroupId::named("a"), std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(10), never).await.is_err());
        let found = looks.get(GroupId::named("a"), async { Attendance::large(7, []) }).await;
        assert_eq!(found.sessions, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_is_kept() {
        let looks = Looks::default();
        for number in 0..GROUPS_MAX + 10 {
            looks.get(GroupId::named(&number.to_string()), async { Attendance::default() }).await;
        }
        assert_eq!(looks.0.lock().unwrap().len(), GROUPS_MAX);
    }
}
