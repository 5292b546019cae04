//! Shoal's wire format and the follow model. Nothing here does IO, reads a clock or rolls a die.
//!
//! **A group is one sequence; everyone follows its tail holding a watermark; a hand-off changes
//! whom you follow, never where you are.** The modules, in reading order:
//!
//! - [`seq`]: places in a sequence, and what a watermark and a tail are;
//! - [`follower`]: the accept rule;
//! - [`tail`]: the window of the latest records;
//! - [`sender`]: a sender's numbers and what became of them;
//! - [`id`]: users, devices, groups, slots;
//! - [`share`]: shares of a group's slots;
//! - [`feature`]: what is given to some members first;
//! - [`code`]: what can go wrong, and whether to retry;
//! - [`frame`]: bytes on a stream;
//! - [`wire`]: the messages, generated from `proto/shoal/v1/*.proto`.
#![warn(missing_docs)]

pub mod seq;

pub mod follower;

pub mod tail;

pub mod sender;

pub mod id;

pub mod share;

pub mod feature;

pub mod code;

pub mod frame;

/// The messages of the wire, generated from `proto/shoal/v1/*.proto`, which other languages can use
/// as they are. Times are milliseconds since 1970, ids of groups 16 bytes.
///
/// ```
/// use shoal_protocol::{FrameError, GroupId, frame, wire};
///
/// let follow = wire::Follow {
///     group: GroupId::named("general").to_wire(),
///     from: Some(wire::follow::From::Watermark(42)),
/// };
/// let body = prost::Message::encode_to_vec(&follow);
/// assert_eq!(frame::decode::<wire::Follow>(body.into())?, follow);
/// # Ok::<(), FrameError>(())
/// ```
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/shoal.v1.rs"));
}

pub use code::{Code, Refusal, Retry};
pub use feature::{Feature, FeatureError, FeatureSlots, Features};
pub use follower::{Accept, Follower};
pub use frame::{FrameBuffer, FrameError, RecordFrame};
pub use id::{DeviceId, GroupId, IdError, Incarnation, SLOTS, SenderId, Slot, UserId};
pub use sender::{Outcome, PUBLISH_WINDOW, SenderNumbers, Verdict};
pub use seq::Seq;
pub use tail::{Place, Read, TailWindow, WindowLimits};

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;
/// The oldest version that this crate still speaks.
pub const VERSION_MIN: u32 = 1;
/// The version to speak with someone who speaks `min` to `max`: the latest that both do.
///
/// # Errors
/// [`Code::VersionUnsupported`], with what this crate speaks.
pub fn negotiate(min: u32, max: u32) -> Result<u32, Refusal> {
    let version = max.min(VERSION);
    if version < min || version < VERSION_MIN {
        let reason = format!("this node speaks versions {VERSION_MIN} to {VERSION}");
        return Err(Refusal::new(Code::VersionUnsupported, reason));
    }
    Ok(version)
}

/// The ALPN of clients.
pub const ALPN: &[u8] = b"shoal/1";
/// The ALPN between nodes.
pub const ALPN_PEER: &[u8] = b"shoal-peer/1";
