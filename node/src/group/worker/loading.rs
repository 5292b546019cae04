//! Members on their way from the store to an owner: a few pages at a time, so that the group goes on
//! meanwhile.

use std::sync::Arc;

use shoal_protocol::{Code, GroupId, Refusal, Slot};
use tokio::sync::mpsc;

use super::Worker;
use crate::{
    group::{activation::refusal, layout::Slots, member_list::MemberList, meter::Meter, sub_group::SubGroup},
    store::{MemberRow, Store},
};

/// Member rows in a page.
const ROWS_MAX: usize = 1024;

type Page = Result<Vec<MemberRow>, Refusal>;

/// The rows of some slots, as they come. Dropping it ends the reading.
#[derive(Debug)]
pub(super) struct Loading {
    pages: mpsc::Receiver<Page>,
}

impl Loading {
    /// Reads in a task of its own: it would keep the store's room, were it looked at by the worker alone.
    fn begin(
        store: Arc<dyn Store>,
        group: GroupId,
        slots: Slots,
        meter: Arc<Meter>,
        rows_per_second: u32,
    ) -> Self {
        let (to, pages) = mpsc::channel(2);
        tokio::spawn(async move {
            for range in slots.ranges() {
                let mut after = None;
                loop {
                    let page = store.members_page(group, range.clone(), after.take(), ROWS_MAX).await;
                    let rows = page.as_ref().map_or(0, Vec::len);
                    after =
                        page.iter().flatten().last().map(|last| (Slot::of(&last.user), last.user.clone()));
                    let has_failed = page.is_err();
                    meter.take(rows, rows_per_second).await;
                    if to.send(page.map_err(refusal)).await.is_err() || has_failed {
                        return;
                    }
                    if rows < ROWS_MAX {
                        break;
                    }
                }
            }
        });
        Self { pages }
    }
}

/// The next rows; none once all have come. Cancellation safe.
pub(super) async fn next(loading: &mut Option<Loading>) -> Option<Page> {
    match loading {
        Some(loading) => loading.pages.recv().await,
        None => std::future::pending().await,
    }
}

impl Worker {
    /// Begins to fetch the members of the slots that are to be here and are not yet.
    pub(super) async fn prepare(&mut self) -> Result<(), Refusal> {
        let tail = self.open_tail().await?;
        let here = self.slots_here();
        let owner = self
            .owner
            .get_or_insert_with(|| Box::new(SubGroup::new(MemberList::new(tail.tail()), &self.limits)));
        let members = owner.members_mut();
        if self.loading.is_none() {
            let gained = here.without(members.slots());
            if !gained.is_empty() {
                members.begin_loading(gained.clone());
                let (store, meter) = (self.store.clone(), Arc::clone(self.groups.migration()));
                let rows_per_second = self.limits.migration_rows_per_second;
                self.loading = Some(Loading::begin(store, self.group, gained, meter, rows_per_second));
            }
        }
        self.slow_down();
        self.follow_home();
        Ok(())
    }

    pub(super) fn take_page(&mut self, page: Option<Page>) {
        if let Err(why) = self.handle_page(page) {
            tracing::warn!(group = %self.group, %why, "members were not fetched for their new owner");
        }
    }

    /// Rows have come, or all have.
    fn handle_page(&mut self, page: Option<Page>) -> Result<(), Refusal> {
        let Some(members) = self.owner.as_mut().map(|owner| owner.members_mut()) else {
            self.loading = None;
            return Ok(());
        };
        match page {
            Some(Ok(rows)) => {
                self.groups.metrics().members_loaded.add(rows.len() as u64);
                members.load(rows);
            }
            Some(Err(why)) => {
                members.abort_loading();
                self.loading = None;
                return Err(why);
            }
            None => {
                members.end_loading();
                self.loading = None;
            }
        }
        Ok(())
    }

    /// Owns the slot, with all others that are placed here.
    pub(super) async fn own(&mut self, slot: Slot) -> Result<(), Refusal> {
        // Once for what is on its way, and once for what that did not have.
        for _ in 0..2 {
            if self.owner.as_ref().is_some_and(|owner| owner.members().slots().contains(slot)) {
                return Ok(());
            }
            self.prepare().await?;
            while self.loading.is_some() {
                let page = next(&mut self.loading).await;
                self.handle_page(page)?;
            }
        }
        let owns = self.owner.as_ref().is_some_and(|owner| owner.members().slots().contains(slot));
        owns.then_some(()).ok_or_else(|| Refusal::new(Code::NotHome, "the sender is being moved"))
    }
}
