//! Members on their way from the store to an owner: a few pages at a time, so that the group goes on
//! meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use shoal_protocol::{Code, GroupId, Refusal, Slot};
use tokio::sync::mpsc;

use super::Worker;
use crate::{
    group::{activation::refusal, layout::Slots, member_list::MemberList, meter::Meter, sub_group::SubGroup},
    store::{MemberRow, Store, StoreError},
};

/// Member rows in a page.
const ROWS_MAX: usize = 1024;

/// Some rows; none once all have come.
type Page = Result<Option<Vec<MemberRow>>, Refusal>;

/// The rows of some slots, as they come. Dropping it ends the reading.
#[derive(Debug)]
pub(super) struct Loading {
    pages: mpsc::Receiver<Page>,
    /// Somebody waits for them: they are not held back.
    is_urgent: Arc<AtomicBool>,
}

/// Whence rows come, and how fast.
struct Source {
    store: Arc<dyn Store>,
    group: GroupId,
    meter: Arc<Meter>,
    rows_per_second: u32,
    is_urgent: Arc<AtomicBool>,
}

impl Loading {
    /// Reads in a task of its own: it would keep the store's room, were it looked at by the worker alone.
    fn begin(source: Source, slots: Slots) -> Self {
        let (to, pages) = mpsc::channel(2);
        let is_urgent = Arc::clone(&source.is_urgent);
        tokio::spawn(async move {
            let read = source.read(&slots, &to).await;
            // Whoever does not wait any more does not need it.
            drop(to.send(read.map(|()| None).map_err(refusal)).await);
        });
        Self { pages, is_urgent }
    }
}

impl Source {
    async fn read(&self, slots: &Slots, to: &mpsc::Sender<Page>) -> Result<(), StoreError> {
        for range in slots.ranges() {
            let mut after = None;
            loop {
                let page = self.store.members_page(self.group, range.clone(), after.take(), ROWS_MAX).await?;
                let rows = page.len();
                after = page.last().map(|last| (Slot::of(&last.user), last.user.clone()));
                if rows > 0 && !self.is_urgent.load(Ordering::Relaxed) {
                    self.meter.take(rows, self.rows_per_second).await;
                }
                if to.send(Ok(Some(page))).await.is_err() {
                    return Ok(());
                }
                if rows < ROWS_MAX {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The next rows. Cancellation safe.
pub(super) async fn next(loading: &mut Option<Loading>) -> Page {
    let Some(loading) = loading else { return std::future::pending().await };
    let ended = || Err(Refusal::new(Code::Internal, "the reading of members has ended too early"));
    loading.pages.recv().await.unwrap_or_else(ended)
}

impl Worker {
    /// Begins to fetch the members of those slots `here` that are not there yet; as fast as they come, where
    /// somebody waits for them.
    pub(super) async fn prepare(&mut self, here: &Slots, is_urgent: bool) -> Result<(), Refusal> {
        let tail = self.open_tail().await?;
        let owner = self.owner.get_or_insert_with(|| {
            let mut owner = SubGroup::new(MemberList::new(tail.tail()), &self.limits);
            if let Some(features) = &self.features {
                owner.set_features(features);
            }
            Box::new(owner)
        });
        let members = owner.members_mut();
        if let Some(loading) = &self.loading {
            loading.is_urgent.fetch_or(is_urgent, Ordering::Relaxed);
        } else {
            let gained = here.without(members.slots());
            if !gained.is_empty() {
                members.begin_loading(gained.clone());
                let source = Source {
                    store: self.store.clone(),
                    group: self.group,
                    meter: Arc::clone(self.groups.migration()),
                    rows_per_second: self.limits.migration_rows_per_second,
                    is_urgent: Arc::new(AtomicBool::new(is_urgent)),
                };
                self.loading = Some(Loading::begin(source, gained));
            }
        }
        self.slow_down();
        self.follow_home();
        Ok(())
    }

    pub(super) fn take_page(&mut self, page: Page) {
        if let Err(why) = self.handle_page(page) {
            tracing::warn!(group = %self.group, %why, "members were not fetched for their new owner");
        }
    }

    /// Rows have come, or all have.
    fn handle_page(&mut self, page: Page) -> Result<(), Refusal> {
        let Some(members) = self.owner.as_mut().map(|owner| owner.members_mut()) else {
            self.loading = None;
            return Ok(());
        };
        match page {
            Ok(Some(rows)) => {
                self.groups.metrics().members_loaded.add(rows.len() as u64);
                members.load(rows);
                return Ok(());
            }
            Ok(None) => members.end_loading(),
            Err(_) => members.abort_loading(),
        }
        self.loading = None;
        page.map(drop)
    }

    /// Owns the slot, with all others that are placed here.
    pub(super) async fn own(&mut self, slot: Slot) -> Result<(), Refusal> {
        // Once for what is on its way, and once for what that did not have.
        for _ in 0..2 {
            if self.owner.as_ref().is_some_and(|owner| owner.members().slots().contains(slot)) {
                return Ok(());
            }
            self.prepare(&self.slots_here(), true).await?;
            while self.loading.is_some() {
                let page = next(&mut self.loading).await;
                self.handle_page(page)?;
            }
        }
        let owns = self.owner.as_ref().is_some_and(|owner| owner.members().slots().contains(slot));
        owns.then_some(()).ok_or_else(|| Refusal::new(Code::NotHome, "the sender is being moved"))
    }
}
