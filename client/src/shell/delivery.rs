//! One delivery stream, read into its follow's inbox as far as the app makes room.

use std::{sync::Arc, time::Duration};

use quinn::RecvStream;
use shoal_protocol::{Code, FrameError, GroupId, Seq, wire};
use tokio::time::timeout;

use super::{
    following::{Filled, Following, Position, Tally},
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
    match reached(&following, from).await {
        Wait::Done => {}
        Wait::Over => {
            reader.stop(Code::None);
            return Ok(None);
        }
        Wait::Late => {
            missing(&shared, &following, &mut reader);
            return Ok(None);
        }
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

/// How a wait for a follow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Done,
    /// Nothing is wanted any more.
    Over,
    /// It took too long.
    Late,
}

/// Waits until everything before `from` has come.
async fn reached(following: &Following, from: Seq) -> Wait {
    let is_live = |position| matches!(position, Position::Live { .. });
    match wait(following, ANSWER_WAIT, is_live).await {
        Wait::Done => {}
        other => return other,
    }
    let is_here = |position| matches!(position, Position::Live { wanted, .. } if wanted >= from);
    wait(following, EARLIER_STREAMS_WAIT, is_here).await
}

/// Waits for a follow to come to a position.
async fn wait(following: &Following, longest: Duration, is_there: impl Fn(Position) -> bool) -> Wait {
    let waiting = async {
        loop {
            let changed = following.changed();
            match following.position() {
                Position::Over => return Wait::Over,
                position if is_there(position) => return Wait::Done,
                _ => changed.await,
            }
        }
    };
    timeout(longest, waiting).await.unwrap_or(Wait::Late)
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
            Filled::Full => match wait(following, PARK_AFTER, has_room).await {
                Wait::Done => {}
                Wait::Over => break,
                Wait::Late => {
                    count(&shared.counters.parked, 1);
                    shared.follows.park(following);
                    break;
                }
            },
            Filled::Over => break,
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
    reader.stop(Code::None);
    Ok(None)
}

/// Has the app made room? A follow that is asked for again has the room that it had.
fn has_room(position: Position) -> bool {
    matches!(position, Position::Live { has_room: true, .. })
}

/// The stream left something out: the node is asked for it.
fn missing(shared: &Shared, following: &Following, reader: &mut FrameReader) {
    tracing::warn!(group = %following.group, "records are missing; asking for them again");
    count(&shared.counters.gaps_refilled, 1);
    shared.follows.ask_again(following);
    reader.stop(Code::None);
}
