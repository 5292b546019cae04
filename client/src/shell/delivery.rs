//! One delivery stream, read into its follow's inbox as far as the app makes room.

use std::{sync::Arc, time::Duration};

use quinn::RecvStream;
use shoal_protocol::{Code, FrameError, GroupId, Seq, wire};
use tokio::time::timeout;

use super::{
    following::{Filled, Following, Tally},
    framed::{FrameReader, StreamError},
    shared::Shared,
};
use crate::stats::count;

/// The largest record: a change of ten thousand members, or a message of the largest size.
const DELIVERY_BYTES_MAX: usize = 4 << 20;
/// How long an app may leave its inbox full before the node is told to stop: until then the
/// stream's flow control holds it, and takes part of the connection's.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// How long a stream waits for those before it, which may have lost a packet, before what they
/// should have brought counts as missing.
const EARLIER_STREAMS_WAIT: Duration = Duration::from_secs(5);
/// How long it waits for the node to say from where records come.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Reads a stream to its end. The group and its hand-off, if it ends with one.
pub(crate) async fn read(
    shared: Arc<Shared>,
    stream: RecvStream,
) -> Result<Option<(GroupId, wire::Handoff)>, StreamError> {
    let mut reader = FrameReader::new(stream, DELIVERY_BYTES_MAX);
    let open = match reader.next::<wire::DeliveryOpen>().await {
        Ok(Some(open)) => open,
        // It was given up before it began; the node says elsewhere what that means.
        Ok(None) | Err(StreamError::Stream(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let group = GroupId::from_wire(&open.group).map_err(|error| FrameError::Body(error.to_string()))?;
    let from = Seq::new(open.from).ok_or_else(|| FrameError::Body("a delivery from 0".to_owned()))?;
    let Some(following) = shared.follows.get(group) else {
        reader.stop(Code::None);
        return Ok(None);
    };
    let _open = Open::new(&following);
    if !reached(&following, from).await {
        missing(&shared, &following, &mut reader);
        return Ok(None);
    }
    match fill(&shared, &following, &mut reader).await {
        // The node gave it up without a word on what comes next.
        Err(StreamError::Stream(_)) => {
            shared.follows.ask_again(&following);
            Ok(None)
        }
        other => Ok(other?.map(|handoff| (group, handoff))),
    }
}

/// Counts among the streams of its follow as long as it lives.
struct Open<'a>(&'a Following);

impl<'a> Open<'a> {
    fn new(following: &'a Following) -> Self {
        following.stream_opened();
        Self(following)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.stream_closed();
    }
}

/// Waits until everything before `from` has come; whether it has.
async fn reached(following: &Following, from: Seq) -> bool {
    let wait_for = |ready: fn(Option<Seq>, Seq) -> bool| async move {
        loop {
            let changed = following.changed();
            if ready(following.position(), from) {
                return;
            }
            changed.await;
        }
    };
    if timeout(ANSWER_WAIT, wait_for(|position, _| position.is_some())).await.is_err() {
        return false;
    }
    let here = |position: Option<Seq>, from| position.is_some_and(|position| position >= from);
    timeout(EARLIER_STREAMS_WAIT, wait_for(here)).await.is_ok()
}

async fn fill(
    shared: &Shared,
    following: &Following,
    reader: &mut FrameReader,
) -> Result<Option<wire::Handoff>, StreamError> {
    loop {
        let mut tally = Tally::default();
        let filled = following.fill(reader.frames(), &mut tally);
        count(&shared.counters.records, tally.records);
        count(&shared.counters.duplicates_dropped, tally.duplicates);
        match filled? {
            Filled::Drained => {
                if !reader.fill().await? {
                    reader.frames().finish()?;
                    return Ok(None);
                }
            }
            Filled::Full => {
                if !room(following).await {
                    count(&shared.counters.parked, 1);
                    shared.follows.park(following);
                    reader.stop(Code::None);
                    return Ok(None);
                }
            }
            Filled::Gap => {
                missing(shared, following, reader);
                return Ok(None);
            }
            Filled::Handoff(handoff) => {
                reader.stop(Code::None);
                return Ok(Some(handoff));
            }
        }
    }
}

/// Waits for the app to make room; whether it did in time.
async fn room(following: &Following) -> bool {
    let room = async {
        loop {
            let changed = following.changed();
            if following.has_room() {
                return;
            }
            changed.await;
        }
    };
    timeout(PARK_AFTER, room).await.is_ok()
}

/// The stream left something out: the node is asked for it.
fn missing(shared: &Shared, following: &Following, reader: &mut FrameReader) {
    tracing::warn!(group = %following.group, "records are missing; asking for them again");
    count(&shared.counters.gaps_refilled, 1);
    shared.follows.ask_again(following);
    reader.stop(Code::None);
}
