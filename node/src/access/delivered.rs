//! How far records have reached users' devices, on its way to the store: gathered from all
//! sessions and written together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shoal_protocol::{GroupId, Seq, UserId};
use tokio::sync::Notify;

use crate::{
    config::{AccessLimits, Current},
    store::{CursorRaise, Cursors, Store},
};

/// Raises in one write.
const RAISES_MAX: usize = 4096;

/// Watermarks that wait to be written, the highest of each user and group.
pub(super) struct Delivered {
    pending: Mutex<BTreeMap<(UserId, GroupId), Seq>>,
    limits: Current<AccessLimits>,
    /// There is no room: write now.
    full: Notify,
    /// There is room again.
    room: Notify,
}

impl Delivered {
    pub(super) fn new(limits: Current<AccessLimits>) -> Self {
        Self { pending: Mutex::default(), limits, full: Notify::new(), room: Notify::new() }
    }

    /// Notes a watermark. Waits while too many wait.
    pub(super) async fn raise(&self, user: &UserId, group: GroupId, watermark: Seq) {
        while !self.try_raise(user, group, watermark) {
            let room = self.room.notified();
            self.full.notify_one();
            room.await;
        }
    }

    fn try_raise(&self, user: &UserId, group: GroupId, watermark: Seq) -> bool {
        let mut pending = self.lock();
        let is_full = pending.len() >= self.limits.load().delivered_pending_max;
        let key = (user.clone(), group);
        if let Some(before) = pending.get_mut(&key) {
            *before = watermark.max(*before);
            return true;
        }
        if !is_full {
            pending.insert(key, watermark);
        }
        !is_full
    }

    /// Writes what has gathered, again and again.
    pub(super) async fn run(&self, store: &Arc<dyn Store>) {
        loop {
            let gathered = tokio::time::sleep(self.limits.load().delivered_flush());
            tokio::select! {
                biased;
                () = self.full.notified() => {}
                () = gathered => {}
            }
            self.flush(store).await;
        }
    }

    /// Writes what has gathered. What the store does not take is given up: it moves the mark that
    /// others see, and no record depends on it.
    pub(super) async fn flush(&self, store: &Arc<dyn Store>) {
        let raises = std::mem::take(&mut *self.lock());
        self.room.notify_waiters();
        let mut raises = raises.into_iter().map(|((user, group), watermark)| {
            let cursors = Cursors { read: None, delivered: Some(watermark) };
            CursorRaise { user, group, cursors }
        });
        loop {
            let batch: Vec<CursorRaise> = raises.by_ref().take(RAISES_MAX).collect();
            if batch.is_empty() {
                return;
            }
            if let Err(error) = store.raise_cursors(batch).await {
                tracing::warn!(%error, "delivered watermarks were not written");
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(UserId, GroupId), Seq>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::memory::MemoryStore;

    fn delivered(delivered_pending_max: usize, delivered_flush_ms: u64) -> Delivered {
        let limits = AccessLimits { delivered_pending_max, delivered_flush_ms, ..AccessLimits::default() };
        Delivered::new(limits.into())
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_highest_watermark_is_written_once_for_many_raises() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1));
        let delivered = delivered(10, 2_000);
        let group = GroupId::named("a");
        for number in [3, 9, 5] {
            delivered.raise(&user("ada"), group, seq(number)).await;
        }
        let running = delivered.run(&store);
        assert!(tokio::time::timeout(Duration::from_secs(3), running).await.is_err(), "it runs for ever");
        let cursors = store.cursors(&user("ada"), &[group]).await.unwrap();
        assert_eq!(cursors[0].delivered, Some(seq(9)));
        assert!(delivered.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_for_a_flush_and_loses_nothing() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1));
        let delivered = delivered(2, 3_600_000);
        let groups: Vec<GroupId> = (0..20).map(|n| GroupId::named(&format!("g{n}"))).collect();
        let ada = user("ada");
        let raising = async {
            for group in &groups {
                delivered.raise(&ada, *group, seq(7)).await;
            }
        };
        tokio::select! {
            () = delivered.run(&store) => {}
            () = raising => {}
        }
        delivered.flush(&store).await;
        let cursors = store.cursors(&ada, &groups).await.unwrap();
        assert!(cursors.iter().all(|cursors| cursors.delivered == Some(seq(7))));
    }
}
