//! Pages of the store for cursors behind their tail's window: aligned, fetched once for everybody.

use std::{
    collections::hash_map::DefaultHasher,
    hash::BuildHasherDefault,
    sync::{Arc, Weak},
};

use quick_cache::{
    Weighter,
    sync::{Cache, DefaultLifecycle, EntryAction, EntryResult},
};
use shoal_protocol::{GroupId, RecordFrame, Seq};

use super::{
    runs::{Held, side_by_side},
    tail::Tail,
};
use crate::{
    config::AccessLimits,
    ops::Metrics,
    store::{ReadLimit, Store, StoreError},
};

/// Some records of one group, framed.
#[derive(Debug)]
pub struct Page {
    start: Seq,
    records: Box<[Held]>,
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
        self.start.advance(self.records.len() as u64)
    }

    /// Its records from `from` up to, not including, `until`, no more than `bytes_max` beyond the first.
    pub(super) fn records(&self, from: Seq, until: Seq, bytes_max: usize) -> impl Iterator<Item = &Held> {
        let first = place(from, self.start).min(self.records.len());
        let end = place(until, self.start).clamp(first, self.records.len());
        let mut bytes = 0;
        self.records[first..end].iter().take_while(move |record| {
            let fits = bytes == 0 || bytes + record.len() <= bytes_max;
            bytes += record.len();
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
        let overhead = size_of::<Page>() + page.records.len() * size_of::<Held>();
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
            if page.records.is_empty() {
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
        let records = side_by_side(records.iter().map(|record| RecordFrame::from_encoded(record)));
        let bytes = records.iter().map(Held::len).sum();
        let is_cut = records.len() < records_max;
        Ok(Page { start, records: records.into(), bytes, is_cut, tail: Arc::downgrade(tail), redactions })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use shoal_protocol::{WindowLimits, wire};

    use super::*;
    use crate::{
        delivery::{Runs, WindowBudget, runs::Reader},
        store::{Append, Changes, Create, memory::MemoryStore},
    };

    const GROUP: &str = "a";

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn record(number: u64, payload: &[u8]) -> wire::Record {
        let message = wire::Message { payload: Bytes::copy_from_slice(payload), ..Default::default() };
        wire::Record { seq: number, body: Some(wire::record::Body::Message(message)), ..Default::default() }
    }

    fn encoded(record: &wire::Record) -> Bytes {
        RecordFrame::encode(record).record()
    }

    /// What a stream is given of a page.
    fn written(page: &Page, from: u64, until: u64, bytes_max: usize) -> Vec<u8> {
        let mut runs = Runs::new();
        runs.extend(seq(from), page.records(seq(from), seq(until), bytes_max), Reader::Session);
        runs.bytes()
    }

    struct Shelf {
        store: Arc<dyn Store>,
        pages: Pages,
        tail: Arc<Tail>,
        metrics: Arc<Metrics>,
    }

    impl Shelf {
        /// A group with so many records, of which the node's tail knows `known`.
        async fn new(records: u64, known: u64, limits: AccessLimits) -> Self {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1));
            let group = GroupId::named(GROUP);
            let row =
                store.activate(group, Some(Create { incarnation: 1, created_ms: 1 })).await.unwrap().unwrap();
            let records = (1..=records).map(|number| encoded(&record(number, &[7; 100]))).collect();
            let changes = Changes { records, ..Changes::default() };
            store
                .append(Append { group, epoch: row.epoch, expected_tail: Seq::FIRST, changes })
                .await
                .unwrap();
            let metrics = Arc::new(Metrics::new());
            let pages = Pages::new(Arc::clone(&store), &limits, Arc::clone(&metrics));
            let window = WindowLimits { records_max: 1, bytes_max: 1 };
            let tail =
                Arc::new(Tail::new(group, seq(known + 1), window, Arc::new(WindowBudget::new(1 << 20))));
            Self { store, pages, tail, metrics }
        }

        async fn bounds(&self, watermark: u64) -> (u64, u64) {
            let page = self.pages.page(&self.tail, seq(watermark)).await.unwrap();
            (page.start.get(), page.next().get())
        }
    }

    fn limits(page_records_max: usize, page_bytes_max: usize) -> AccessLimits {
        AccessLimits { page_records_max, page_bytes_max, ..AccessLimits::default() }
    }

    #[tokio::test]
    async fn pages_are_aligned_and_end_at_the_nodes_tail() {
        let shelf = Shelf::new(30, 25, limits(10, 1 << 20)).await;
        assert_eq!(shelf.bounds(1).await, (1, 11));
        assert_eq!(shelf.bounds(10).await, (1, 11));
        assert_eq!(shelf.bounds(11).await, (11, 21));
        assert_eq!(shelf.bounds(25).await, (21, 26), "no further than the node knows");
        assert_eq!(shelf.metrics.pages_fetched.get(), 3);
        assert_eq!(shelf.metrics.pages_shared.get(), 1);
    }

    #[tokio::test]
    async fn a_page_that_ended_at_the_tail_is_read_again_when_the_tail_has_moved() {
        let shelf = Shelf::new(30, 25, limits(10, 1 << 20)).await;
        assert_eq!(shelf.bounds(22).await, (21, 26));
        let later = (26..=30).map(|number| RecordFrame::encode(&record(number, b"x")));
        shelf.tail.append(later, &BTreeMap::new());
        assert_eq!(shelf.bounds(22).await, (21, 26), "still good for who is in it");
        assert_eq!(shelf.bounds(26).await, (21, 31));
    }

    #[tokio::test]
    async fn large_records_make_shorter_pages_that_lead_on_to_each_other() {
        let shelf = Shelf::new(30, 30, limits(10, 250)).await;
        let mut watermark = 1;
        while watermark < 31 {
            let (start, next) = shelf.bounds(watermark).await;
            assert!(start <= watermark && watermark < next, "{start} {watermark} {next}");
            assert!(next - start <= 4, "some 250 bytes");
            watermark = next;
        }
        let fetched = shelf.metrics.pages_fetched.get();
        assert_eq!(shelf.bounds(20).await.1, 21);
        assert_eq!(shelf.metrics.pages_fetched.get(), fetched, "all of them were there");
    }

    #[tokio::test]
    async fn many_who_want_a_page_wait_for_one_fetch() {
        let shelf = Shelf::new(100, 100, limits(100, 1 << 20)).await;
        let wanting = (0..50).map(|_| shelf.pages.page(&shelf.tail, seq(50)));
        let pages = futures_util::future::join_all(wanting).await;
        assert!(pages.iter().all(|page| page.as_ref().is_ok_and(|page| page.records.len() == 100)));
        assert_eq!(shelf.metrics.pages_fetched.get(), 1);
    }

    #[tokio::test]
    async fn a_recalled_payload_is_not_served_from_a_page_read_before() {
        let shelf = Shelf::new(10, 10, limits(10, 1 << 20)).await;
        let before = written(&shelf.pages.page(&shelf.tail, seq(4)).await.unwrap(), 4, 5, 1);
        let gone = record(4, b"");
        let row = shelf.store.group(GroupId::named(GROUP)).await.unwrap().unwrap();
        let redaction = Append {
            group: GroupId::named(GROUP),
            epoch: row.epoch,
            expected_tail: row.tail,
            changes: Changes { redactions: vec![(seq(4), encoded(&gone))], ..Changes::default() },
        };
        shelf.store.append(redaction).await.unwrap();
        shelf.tail.redact(seq(4), RecordFrame::encode(&gone));
        let after = written(&shelf.pages.page(&shelf.tail, seq(4)).await.unwrap(), 4, 5, 1);
        assert_ne!(before, after);
        assert_eq!(after, **RecordFrame::encode(&gone).frame());
    }

    #[tokio::test]
    async fn the_cache_keeps_within_its_bytes() {
        let limits = AccessLimits { page_cache_bytes: 100_000, ..limits(10, 1 << 20) };
        let shelf = Shelf::new(5_000, 5_000, limits).await;
        for number in (1..5_000).step_by(10) {
            shelf.bounds(number).await;
        }
        assert!(shelf.pages.cache.weight() <= 100_000, "{}", shelf.pages.cache.weight());
    }

    #[test]
    fn frames_are_cut_at_both_ends_and_by_bytes() {
        let window = WindowLimits { records_max: 1, bytes_max: 1 };
        let budget = Arc::new(WindowBudget::new(1));
        let tail = Arc::new(Tail::new(GroupId::named(GROUP), seq(9), window, budget));
        let frames: Vec<_> = (5..9).map(|number| RecordFrame::encode(&record(number, b"word"))).collect();
        let records: Box<[Held]> = side_by_side(frames.iter().cloned()).into();
        let frame_bytes = records[0].len();
        let page = Page {
            start: seq(5),
            bytes: records.iter().map(Held::len).sum(),
            records,
            is_cut: false,
            tail: Arc::downgrade(&tail),
            redactions: 0,
        };
        let taken = |from, until, bytes_max| written(&page, from, until, bytes_max);
        let these = |range: std::ops::Range<usize>| {
            frames[range].iter().flat_map(|frame| frame.frame().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(taken(5, 9, 1_000), these(0..4));
        assert_eq!(taken(6, 8, 1_000), these(1..3));
        assert_eq!(taken(6, 100, frame_bytes * 5 / 2), these(1..3), "no more bytes than wanted");
        assert_eq!(taken(6, 100, 1), these(1..2), "but one at least");
        assert!(taken(7, 6, 1_000).is_empty());
    }
}
