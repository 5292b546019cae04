//! Pages of the store for cursors behind their tail's window: aligned, fetched once for everybody.

use std::{
    collections::hash_map::DefaultHasher,
    hash::BuildHasherDefault,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use quick_cache::{
    Weighter,
    sync::{Cache, DefaultLifecycle, EntryAction, EntryResult},
};
use shoal_protocol::{GroupId, RecordFrame, Seq};

use super::tail::Tail;
use crate::{
    config::AccessLimits,
    ops::Metrics,
    store::{ReadLimit, Store, StoreError},
};

/// Some records of one group, framed.
#[derive(Debug)]
pub struct Page {
    start: Seq,
    frames: Box<[Bytes]>,
    bytes: usize,
    /// It ends before its boundary because of its bytes, not because the tail was there.
    is_cut: bool,
    tail: Weak<Tail>,
    redactions: u64,
}

impl Page {
    /// The first Seq after it.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.start.advance(self.frames.len() as u64)
    }

    /// Its frames from `from` up to, not including, `until`, no more than `bytes_max` beyond the first.
    pub fn frames(&self, from: Seq, until: Seq, bytes_max: usize) -> impl Iterator<Item = &Bytes> {
        let first = place(from, self.start).min(self.frames.len());
        let end = place(until, self.start).clamp(first, self.frames.len());
        let mut bytes = 0;
        self.frames[first..end].iter().take_while(move |frame| {
            let fits = bytes == 0 || bytes + frame.len() <= bytes_max;
            bytes += frame.len();
            fits
        })
    }

    /// Is it what a reader at `watermark` may be given, or lead on to it?
    fn is_good(&self, tail: &Arc<Tail>, watermark: Seq) -> bool {
        let is_current =
            Weak::as_ptr(&self.tail) == Arc::as_ptr(tail) && self.redactions == tail.redactions();
        is_current && (self.is_cut || self.next() > watermark)
    }
}

/// How many places `seq` is above `start`; pages are far smaller than an address space.
fn place(seq: Seq, start: Seq) -> usize {
    usize::try_from(seq.since(start)).unwrap_or(usize::MAX)
}

#[derive(Debug, Clone)]
struct PageWeight;

impl Weighter<(GroupId, Seq), Arc<Page>> for PageWeight {
    fn weight(&self, _key: &(GroupId, Seq), page: &Arc<Page>) -> u64 {
        let overhead = size_of::<Page>() + page.frames.len() * size_of::<Bytes>();
        (page.bytes + overhead) as u64
    }
}

/// The same order of eviction in every run.
type PageHasher = BuildHasherDefault<DefaultHasher>;

/// This node's pages.
pub struct Pages {
    store: Arc<dyn Store>,
    cache: Cache<(GroupId, Seq), Arc<Page>, PageWeight, PageHasher>,
    records_max: u64,
    bytes_max: usize,
    metrics: Arc<Metrics>,
}

impl Pages {
    /// None yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, limits: &AccessLimits, metrics: Arc<Metrics>) -> Self {
        /// For the cache's table; a page has some dozens of records.
        const PAGE_BYTES_TYPICAL: u64 = 16 << 10;
        let pages = usize::try_from(limits.page_cache_bytes / PAGE_BYTES_TYPICAL).unwrap_or(usize::MAX);
        let hasher = PageHasher::default();
        Self {
            store,
            cache: Cache::with(
                pages,
                limits.page_cache_bytes,
                PageWeight,
                hasher,
                DefaultLifecycle::default(),
            ),
            records_max: limits.page_records_max.max(1) as u64,
            bytes_max: limits.page_bytes_max,
            metrics,
        }
    }

    /// The page with the record at `watermark`, which lies below `tail`. Nothing at or above the
    /// node's tail is in it, nor a payload that had been recalled when it was asked for.
    ///
    /// # Errors
    /// [`StoreError`]: the store could not read it.
    pub async fn page(&self, tail: &Arc<Tail>, watermark: Seq) -> Result<Arc<Page>, StoreError> {
        let mut start = self.boundary(watermark);
        loop {
            let page = self.page_at(tail, start, watermark).await?;
            if page.next() > watermark {
                return Ok(page);
            }
            start = page.next();
        }
    }

    async fn page_at(&self, tail: &Arc<Tail>, start: Seq, watermark: Seq) -> Result<Arc<Page>, StoreError> {
        let judge = |_: &(GroupId, Seq), page: &mut Arc<Page>| match page.is_good(tail, watermark) {
            true => EntryAction::Retain(Arc::clone(page)),
            false => EntryAction::ReplaceWithGuard,
        };
        let guard = match self.cache.entry_async(&(tail.group(), start), judge).await {
            EntryResult::Retained(page) => {
                self.metrics.pages_shared.inc();
                return Ok(page);
            }
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => guard,
            EntryResult::Removed(..) | EntryResult::Timeout => unreachable!("neither was asked for"),
        };
        let page = self.fetch(tail, start, watermark).await?;
        // An insertion fails only where the guard was overtaken, and then the next reader fetches.
        let _ = guard.insert(Arc::clone(&page));
        Ok(page)
    }

    /// Reads until no recall came in between.
    async fn fetch(&self, tail: &Arc<Tail>, start: Seq, watermark: Seq) -> Result<Arc<Page>, StoreError> {
        loop {
            let page = Arc::new(self.read(tail, start).await?);
            if page.frames.is_empty() {
                let group = tail.group();
                return Err(StoreError::Corrupt(format!(
                    "group {group} has no record {start}, below its tail"
                )));
            }
            if page.is_good(tail, watermark) {
                return Ok(page);
            }
        }
    }

    async fn read(&self, tail: &Arc<Tail>, start: Seq) -> Result<Page, StoreError> {
        let redactions = tail.redactions();
        let end = self.boundary(start).advance(self.records_max).min(tail.tail());
        let records_max = place(end, start);
        let limit = ReadLimit { records_max, bytes_max: self.bytes_max };
        let records = self.store.read(tail.group(), start, limit).await?;
        self.metrics.pages_fetched.inc();
        let frames: Box<[Bytes]> =
            records.iter().map(|record| RecordFrame::from_encoded(record).frame().clone()).collect();
        let bytes = frames.iter().map(Bytes::len).sum();
        let is_cut = frames.len() < records_max;
        Ok(Page { start, frames, bytes, is_cut, tail: Arc::downgrade(tail), redactions })
    }

    /// The first Seq of the aligned page in which `seq` lies.
    fn boundary(&self, seq: Seq) -> Seq {
        let above_first = seq.since(Seq::FIRST);
        Seq::FIRST.advance(above_first - above_first % self.records_max)
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("pages", &self.cache.len()).finish_non_exhaustive()
    }
}
