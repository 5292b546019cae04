//! What outlives the process: watermarks, and messages without a receipt.
//!
//! ```text
//!  "SHSV" │ version │ protobuf … │ crc32c, little endian
//! ```

use std::collections::BTreeMap;

use prost::Message as _;
use shoal_protocol::{DeviceId, GroupId, Incarnation, Seq, UserId, wire};

use crate::core::lane::Place;

const MAGIC: &[u8; 4] = b"SHSV";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 1;
const CHECKSUM_BYTES: usize = 4;

/// What a client knows that must outlive the process: the watermark of each follow, and the
/// messages that have no receipt yet, with their numbers. From [`Client::save`], for
/// [`Config::saved`].
///
/// **When to save.** Whenever it suits: regularly, when the app goes to the background, when the
/// client is first [`Online`], and after a message failed. A crash then costs little: records that
/// the app took since the save come again (it can tell by their [`Seq`]), and messages that were
/// acknowledged since are known by their numbers and not sent twice.
///
/// What a save that is not the latest does not know:
/// - messages queued since: those that had no receipt yet may be lost with the process;
/// - messages that failed since: they are tried again;
/// - the numbers of messages that were queued before the client had ever been online, or right
///   after it was refused as a member: sent since, they are sent once more.
///
/// [`Client::save`]: crate::Client::save
/// [`Config::saved`]: crate::Config::saved
/// [`Online`]: crate::State::Online
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    pub(crate) device: DeviceId,
    pub(crate) user: Option<UserId>,
    pub(crate) watermarks: BTreeMap<GroupId, Seq>,
    pub(crate) queued: Vec<Queued>,
}

/// A message without a receipt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Queued {
    pub(crate) group: GroupId,
    pub(crate) place: Option<Place>,
    pub(crate) message: wire::Message,
}

/// Why bytes are nothing that was saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// They begin otherwise: not a save.
    #[error("this is not what a Shoal client saved")]
    NotSaved,
    /// Of a later version of this crate.
    #[error("saved by a later version ({0}) of this crate")]
    Version(u8),
    /// Cut off or changed.
    #[error("what was saved is damaged")]
    Damaged,
}

impl Saved {
    /// Whose it is: the device that [`Config::new`](crate::Config::new) must be given with it.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The watermark of a group that was followed: the next [`Seq`] the app wanted.
    #[must_use]
    pub fn watermark(&self, group: GroupId) -> Option<Seq> {
        self.watermarks.get(&group).copied()
    }

    /// Messages without a receipt.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Messages without a number, which a run that goes on from this save sends twice where this run
    /// sends them after it. Save again soon where there are some.
    #[must_use]
    pub fn unnumbered(&self) -> usize {
        self.queued.iter().filter(|queued| queued.place.is_none()).count()
    }

    /// As bytes, with a version and a checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        self.to_format().encode(&mut bytes).expect("a Vec grows as needed");
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`SavedError`] where they are of something else, of a later version, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SavedError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SavedError::NotSaved)?;
        let version = *rest.first().ok_or(SavedError::Damaged)?;
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(SavedError::Damaged)?;
        if crc32c::crc32c(content).to_le_bytes() != *checksum {
            return Err(SavedError::Damaged);
        }
        if version > VERSION {
            return Err(SavedError::Version(version));
        }
        let body = content.get(HEADER_BYTES..).ok_or(SavedError::Damaged)?;
        let format = Format::decode(body).map_err(|_| SavedError::Damaged)?;
        Self::from_format(format).ok_or(SavedError::Damaged)
    }

    fn to_format(&self) -> Format {
        let watermark =
            |(group, seq): (&GroupId, &Seq)| wire::Watermark { group: group.to_wire(), watermark: seq.get() };
        let queued = |queued: &Queued| wire::Publish {
            group: queued.group.to_wire(),
            incarnation: queued.place.map_or(0, |place| place.incarnation.0),
            number: queued.place.map_or(0, |place| place.number),
            message: Some(queued.message.clone()),
        };
        Format {
            device: self.device.0,
            user: self.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            watermarks: self.watermarks.iter().map(watermark).collect(),
            queued: self.queued.iter().map(queued).collect(),
        }
    }

    fn from_format(format: Format) -> Option<Self> {
        let watermark = |watermark: wire::Watermark| {
            Some((GroupId::from_wire(&watermark.group).ok()?, Seq::new(watermark.watermark)?))
        };
        let queued = |publish: wire::Publish| {
            let place = Place { incarnation: Incarnation(publish.incarnation), number: publish.number };
            Some(Queued {
                group: GroupId::from_wire(&publish.group).ok()?,
                place: (place.number != 0).then_some(place),
                message: publish.message?,
            })
        };
        let user = match format.user.as_str() {
            "" => None,
            user => Some(UserId::new(user).ok()?),
        };
        Some(Self {
            device: DeviceId(format.device),
            user,
            watermarks: format.watermarks.into_iter().map(watermark).collect::<Option<_>>()?,
            queued: format.queued.into_iter().map(queued).collect::<Option<_>>()?,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Format {
    #[prost(fixed64, tag = "1")]
    device: u64,
    #[prost(string, tag = "2")]
    user: String,
    #[prost(message, repeated, tag = "3")]
    watermarks: Vec<wire::Watermark>,
    #[prost(message, repeated, tag = "4")]
    queued: Vec<wire::Publish>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn saved() -> Saved {
        let group = GroupId::named("g");
        let message = wire::Message { payload: Bytes::from_static(b"hello"), ..Default::default() };
        let place = Some(Place { incarnation: Incarnation(7), number: 3 });
        Saved {
            device: DeviceId(5),
            user: Some("ada".parse().unwrap()),
            watermarks: [(group, Seq::FIRST.next())].into(),
            queued: vec![
                Queued { group, place, message: message.clone() },
                Queued { group, place: None, message },
            ],
        }
    }

    #[test]
    fn what_is_saved_comes_back() {
        assert_eq!(Saved::from_bytes(&saved().to_bytes()), Ok(saved()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = saved().to_bytes();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(Saved::from_bytes(&flipped).is_err(), "byte {at}");
            assert!(Saved::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = saved().to_bytes();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        bytes[MAGIC.len()] = 9;
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        assert_eq!(Saved::from_bytes(&bytes), Err(SavedError::Version(9)));
        assert_eq!(Saved::from_bytes(b"hello"), Err(SavedError::NotSaved));
    }
}
