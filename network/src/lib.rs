//! Weak networks to test on: packets are lost, late, doubled, out of order, held up and cut off as they are
//! on a train or behind a satellite.
//!
//! In reading order:
//!
//! - [`loss`]: packets that are lost in bursts, pure;
//! - [`path`]: one direction of a path: a packet goes in, the moments at which it arrives come out, pure;
//! - [`profile`]: named networks, each with its numbers and where they come from;
//! - [`weather`]: what a network does over time, blackouts and changes of address among it, pure;
//! - [`relay`]: the same between real sockets.

pub mod loss;

pub mod path;

pub mod profile;

pub mod weather;

pub mod relay;

pub use path::{Conditions, Path};
pub use profile::Profile;
pub use relay::{Relay, RelayStats};
pub use weather::{Sky, Trouble, Weather};
