//! Who and what: users, devices, groups, and the number of a device's life.
//!
//! ```
//! use shoal_protocol::{DeviceId, GroupId, Slot, UserId};
//!
//! let ada: UserId = "ada@example.org".parse()?;
//! let general: GroupId = "#general".parse()?;
//! assert_eq!(general, GroupId::named("general"));
//! assert_eq!(general.to_string().parse(), Ok(general), "32 hexadecimal digits");
//! assert_eq!(GroupId::from_wire(&general.to_wire()), Ok(general));
//! assert!(GroupId::own(&ada).is_own() && !general.is_own());
//! assert_eq!("00000000000000ff".parse(), Ok(DeviceId(255)));
//! # let _ = Slot::of(&ada);
//! # Ok::<(), shoal_protocol::IdError>(())
//! ```

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

/// The most bytes in a user id.
pub const USER_ID_BYTES_MAX: usize = 64;

/// The most bytes in the name of a group, without its `#`.
pub const GROUP_NAME_BYTES_MAX: usize = 64;

/// The most bytes in the name of a region.
pub const REGION_BYTES_MAX: usize = 64;

/// An id that breaks its rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty or longer than [`USER_ID_BYTES_MAX`], or with a character outside the set.
    #[error("a user id has 1 to 64 characters out of a-z A-Z 0-9 . _ - @ +, not {0:?}")]
    User(String),
    /// Not the 32 hexadecimal digits of a group's id, nor `#name`.
    #[error("a group is '#' and a name of 1 to 64 bytes, or an id of 32 hexadecimal digits, not {0:?}")]
    Group(String),
    /// A group id on the wire has 16 bytes.
    #[error("a group id has 16 bytes, not {0}")]
    GroupBytes(usize),
    /// Not 1 to 16 hexadecimal digits.
    #[error("a device id has 1 to 16 hexadecimal digits, not {0:?}")]
    Device(String),
}

/// A user, as the token names them: 1 to 64 characters out of `a-z A-Z 0-9 . _ - @ +`.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`IdError::User`] where the name is empty, too long or has a character outside the set.
    pub fn new(name: impl AsRef<str>) -> Result<Self, IdError> {
        let name = name.as_ref();
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'@' | b'+');
        if name.is_empty() || name.len() > USER_ID_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(IdError::User(name.chars().take(USER_ID_BYTES_MAX).collect()));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserId {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Self, IdError> {
        Self::new(name)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One installation of an app: chosen at random once and kept by it. In text it is up to 16
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u64);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError::Device(text.chars().take(32).collect());
        // Rust's own parser would let a sign pass.
        if text.len() > 16 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(refused());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| refused())
    }
}

/// One life of a device, as far as numbering its messages goes; issued by a node.
///
/// The upper 44 bits are the milliseconds since 1970 at which it was issued, so that a home can
/// tell an incarnation it has never seen from one it has forgotten; the lower 20 bits are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    const RANDOM_BITS: u32 = 20;

    /// An incarnation issued at `now_ms` (milliseconds since 1970, up to the year 2527) with the
    /// low bits of `random`.
    #[must_use]
    pub fn issue(now_ms: u64, random: u64) -> Self {
        Self(now_ms << Self::RANDOM_BITS | random & ((1 << Self::RANDOM_BITS) - 1))
    }

    /// When it was issued, milliseconds since 1970.
    #[must_use]
    pub fn issued_ms(self) -> u64 {
        self.0 >> Self::RANDOM_BITS
    }
}

/// A group: 16 bytes.
///
/// The first bit says whose it is: clear for a group that somebody created, set for a user's own
/// sequence. In text it is 32 hexadecimal digits, or `#name` for the group with that name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId([u8; 16]);

impl GroupId {
    const OWN: u8 = 0x80;

    /// A group with a random id.
    #[must_use]
    pub fn from_random(random: u128) -> Self {
        let mut id = random.to_be_bytes();
        id[0] &= !Self::OWN;
        Self(id)
    }

    /// The group that everybody who knows its name can find, given without its `#`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut id = digest("group:", name);
        id[0] &= !Self::OWN;
        Self(id)
    }

    /// A user's own sequence.
    #[must_use]
    pub fn own(user: &UserId) -> Self {
        let mut id = digest("user:", user.as_str());
        id[0] |= Self::OWN;
        Self(id)
    }

    /// Is it some user's own sequence?
    #[must_use]
    pub fn is_own(self) -> bool {
        self.0[0] & Self::OWN != 0
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As a `bytes` field of the wire.
    #[must_use]
    pub fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// From a `bytes` field of the wire.
    ///
    /// # Errors
    /// [`IdError::GroupBytes`] where there are not 16.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, IdError> {
        bytes.try_into().map(Self).map_err(|_| IdError::GroupBytes(bytes.len()))
    }

    /// A hash that is the same on every node and in every version, for lanes and partitions.
    #[must_use]
    pub fn stable_hash(self) -> u64 {
        xxh3_64(&self.0)
    }
}

impl FromStr for GroupId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError::Group(text.chars().take(80).collect());
        if let Some(name) = text.strip_prefix('#') {
            let fits = !name.is_empty() && name.len() <= GROUP_NAME_BYTES_MAX;
            return if fits { Ok(Self::named(name)) } else { Err(refused()) };
        }
        if text.len() != 32 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(refused());
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| refused())
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first 16 bytes of a SHA-256. Users choose names, and nobody must be able to choose one whose
/// id is another's: a faster hash would not promise that.
fn digest(kind: &str, name: &str) -> [u8; 16] {
    let hash = Sha256::new().chain_update(kind).chain_update(name).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id
}

/// How many slots a group's members are spread over, and so the most sub-groups it can be cut into:
/// at a thousand members in each, sixteen million members. A layout names ranges of them, so their
/// number costs nothing.
pub const SLOTS: u16 = 16_384;

/// A member's slot in every group: a fixed hash of the user id, below [`SLOTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a user.
    #[must_use]
    pub fn of(user: &UserId) -> Self {
        // The remainder is below 16,384 and so fits.
        Self((xxh3_64(user.as_str().as_bytes()) % u64::from(SLOTS)) as u16)
    }

    /// A slot by its number, if there is one.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    /// Its number, below [`SLOTS`].
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Who numbers their messages 1, 2, 3, …: one life of one device of one user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenderId {
    /// The user the token names.
    pub user: UserId,
    /// Their device.
    pub device: DeviceId,
    /// The device's life.
    pub incarnation: Incarnation,
}

#[cfg(test)]
mod tests;
