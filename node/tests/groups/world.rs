//! A group layer, a disk that survives it, and short words for what tests do with them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use prost::Message as _;
use shoal_node::{
    clock::Clock,
    config::GroupLimits,
    group::{Actor, Groups, Publish, ReceiptTo},
    store::{MemoryDisk, MemoryStore, MemoryTiming, ReadLimit, Store},
};
use shoal_protocol::{Code, DeviceId, GroupId, Incarnation, Refusal, SenderId, Seq, UserId, wire};
use tokio::{sync::mpsc, time::Instant};
use wire::{change::Body, receipt::Outcome};

/// A clock that a test sets.
#[derive(Debug, Clone)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) struct World {
    pub(crate) groups: Groups,
    pub(crate) disk: MemoryDisk,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: TestClock,
    pub(crate) limits: GroupLimits,
    timing: MemoryTiming,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, GroupLimits::default(), MemoryTiming::default())
    }

    pub(crate) fn with(seed: u64, limits: GroupLimits, timing: MemoryTiming) -> Self {
        let disk = MemoryDisk::new(seed);
        let clock = TestClock(Arc::new(AtomicU64::new(1_800_000_000_000)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&disk, timing.clone()));
        let groups = groups(&store, &clock, &limits);
        Self { groups, disk, store, clock, limits, timing }
    }

    /// The node dies and starts again on the same disk.
    pub(crate) fn restart(&mut self) {
        self.store = Arc::new(MemoryStore::open(&self.disk, self.timing.clone()));
        self.groups = groups(&self.store, &self.clock, &self.limits);
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation::issue(self.clock.now_ms(), 7)
    }

    pub(crate) fn sender(&self, user: &str) -> SenderId {
        SenderId { user: id(user), device: DeviceId(1), incarnation: self.incarnation() }
    }

    pub(crate) async fn change(
        &self,
        actor: &str,
        group: GroupId,
        body: Body,
    ) -> Result<wire::Changed, Refusal> {
        let actor = Actor { user: id(actor), admin: false };
        self.groups.change(actor, wire::Change { group: group.to_wire(), body: Some(body) }).await
    }

    pub(crate) async fn create(&self, owner: &str, group: GroupId, members: &[&str]) {
        let members = members.iter().map(ToString::to_string).collect();
        let settings = Some(wire::Settings { open: true, ..wire::Settings::default() });
        self.change(owner, group, Body::Create(wire::Create { settings, members })).await.expect("creates");
    }

    /// Publishes and waits for the receipt.
    pub(crate) async fn publish(
        &self,
        group: GroupId,
        sender: &SenderId,
        number: u64,
        text: &str,
    ) -> Outcome {
        self.publish_message(group, sender, number, text_message(text)).await
    }

    pub(crate) async fn publish_message(
        &self,
        group: GroupId,
        sender: &SenderId,
        number: u64,
        message: wire::Message,
    ) -> Outcome {
        let mut receipts = self.send(group, sender, number, message);
        receipts.recv().await.expect("every message is answered").outcome.expect("a receipt has an outcome")
    }

    /// Publishes; the receipt comes through the channel.
    pub(crate) fn send(
        &self,
        group: GroupId,
        sender: &SenderId,
        number: u64,
        message: wire::Message,
    ) -> mpsc::Receiver<wire::Receipt> {
        self.send_arrived(group, sender, number, message, Instant::now())
    }

    /// The same, of a message that came to the node at some moment.
    pub(crate) fn send_arrived(
        &self,
        group: GroupId,
        sender: &SenderId,
        number: u64,
        message: wire::Message,
        arrived: Instant,
    ) -> mpsc::Receiver<wire::Receipt> {
        let (to, receipts) = mpsc::channel(1);
        let receipt = to.try_reserve_owned().expect("a new channel has room");
        self.groups.publish(Publish {
            group,
            sender: sender.clone(),
            number,
            message,
            receipt: ReceiptTo::Session(receipt),
            arrived,
        });
        receipts
    }

    /// Every record of a group, in order.
    pub(crate) async fn records(&self, group: GroupId) -> Vec<wire::Record> {
        let mut records: Vec<wire::Record> = Vec::new();
        loop {
            let from = Seq::FIRST.advance(records.len() as u64);
            let limit = ReadLimit { records_max: 100, bytes_max: 1 << 20 };
            // A read that was made to fail succeeds the next time.
            let Ok(page) = self.store.read(group, from, limit).await else { continue };
            if page.is_empty() {
                return records;
            }
            for record in page {
                let record = wire::Record::decode(record).expect("decodes");
                assert_eq!(record.seq, records.len() as u64 + 1, "no hole, no double");
                records.push(record);
            }
        }
    }

    /// The payloads of a group's messages, in order.
    pub(crate) async fn texts(&self, group: GroupId) -> Vec<String> {
        let payload = |record: wire::Record| match record.body {
            Some(wire::record::Body::Message(message)) => {
                Some(String::from_utf8_lossy(&message.payload).into_owned())
            }
            _ => None,
        };
        self.records(group).await.into_iter().filter_map(payload).collect()
    }
}

fn groups(store: &Arc<dyn Store>, clock: &TestClock, limits: &GroupLimits) -> Groups {
    Groups::new(store.clone(), Arc::new(clock.clone()), Arc::default(), limits.clone(), 1)
}

pub(crate) fn id(user: &str) -> UserId {
    UserId::new(user).expect("a user id")
}

pub(crate) fn text_message(text: &str) -> wire::Message {
    wire::Message { payload: Bytes::copy_from_slice(text.as_bytes()), ..wire::Message::default() }
}

pub(crate) fn committed(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Committed(committed) => committed.seq,
        other => panic!("not committed: {other:?}"),
    }
}

/// The code of a refusal, and whether it used up the number.
pub(crate) fn refused(outcome: &Outcome) -> (Code, bool) {
    match outcome {
        Outcome::Refused(refused) => {
            (Code::from_wire(refused.why.as_ref().expect("says why").code), refused.consumed)
        }
        other => panic!("not refused: {other:?}"),
    }
}
