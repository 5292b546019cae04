//! The groups that a link follows, and their records as they come.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use quinn::RecvStream;
use shoal_protocol::{Code, GroupId, RecordFrame, Refusal, frame::FRAME_BYTES_MAX, wire};
use tokio::sync::mpsc;

use super::framed::{Frames, LinkError};
use crate::delivery::Tail;

/// Where a group's records are put.
pub(super) type FeedSender = mpsc::Sender<Vec<RecordFrame>>;

/// Who follows what over a link.
#[derive(Debug, Default)]
pub(super) struct Feeds(Mutex<BTreeMap<GroupId, Followed>>);

/// A group's records go to its worker, its datagrams to whoever is at its tail.
#[derive(Debug)]
struct Followed {
    to: FeedSender,
    tail: Weak<Tail>,
}

impl Feeds {
    /// A group is followed from now on; a feed that it had before has ended.
    pub(super) fn put(&self, tail: &Arc<Tail>, to: FeedSender) {
        self.lock().insert(tail.group(), Followed { to, tail: Arc::downgrade(tail) });
    }

    /// The tail of a group that is followed over this link.
    pub(super) fn tail(&self, group: GroupId) -> Option<Arc<Tail>> {
        let followed = self.lock();
        followed.get(&group).filter(|followed| !followed.to.is_closed())?.tail.upgrade()
    }

    /// A group is followed no more.
    pub(super) fn remove(&self, group: GroupId) {
        self.lock().remove(&group);
    }

    /// The groups that nobody here wants any more; they are forgotten.
    pub(super) fn sweep(&self) -> Vec<GroupId> {
        self.lock().extract_if(.., |_, followed| followed.to.is_closed()).map(|(group, _)| group).collect()
    }

    /// Reads a delivery stream to its end, as fast as its group takes the records.
    pub(super) async fn read(&self, stream: RecvStream) -> Result<(), LinkError> {
        let mut frames = Frames::new(stream, FRAME_BYTES_MAX);
        let Some(open) = frames.next::<wire::DeliveryOpen>().await? else { return Ok(()) };
        let group = GroupId::from_wire(&open.group)
            .map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))?;
        let Some(to) = self.lock().get(&group).map(|followed| followed.to.clone()) else {
            frames.stop();
            return Ok(());
        };
        loop {
            let mut records = Vec::new();
            while let Some(body) = frames.buffer().next_frame()? {
                records.push(RecordFrame::from_delivery(body)?);
            }
            if !records.is_empty() && to.send(records).await.is_err() {
                frames.stop();
                return Ok(());
            }
            if !frames.fill().await? {
                return Ok(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
