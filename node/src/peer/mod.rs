//! Between nodes: what a home and those who follow it say to each other.
//!
//! ```text
//!  following node                                   home's node
//!  links ─► link ── control: follow, unfollow, beat ─► serve ─► groups
//!             │  ── publish lanes ────────────────────►   │
//!             │  ── requests ─────────────────────────►   │
//!           feeds ◄─ delivery streams, one for a group ─ deliveries
//!             │  ◄─ datagrams: who types ─────────────►   │
//! ```
//!
//! It is the protocol of clients again, for a node that speaks for its users: the home gives a node
//! what it gives a session, from a cursor in the group's one tail, once for each node however many
//! of its users follow. Both ends prove who they are by certificates of one authority (mutual TLS).
//!
//! A link is a few persistent streams. One that is lost is dialled again; messages that were on their
//! way, and those for a node that is not reached, go back to their groups, which send them again under
//! their numbers, to whoever has the node's place then. Both ends beat every 500 ms; after 1.5 s of
//! silence a link is given up, and whoever followed over it reads the store and looks for the home.

mod dial;

mod link;

mod lane;

mod feeds;

mod hints;

mod links;

mod serve;

mod waiting;

mod framed;

mod outbox;

mod transport;

use std::time::Duration;

pub(crate) use dial::Dialer;
pub(crate) use links::Links;
pub(crate) use serve::{Server, ServerParts};
pub use transport::PeerTls;
pub(crate) use transport::endpoint;

/// A sign of life from each end.
const BEAT: Duration = Duration::from_millis(500);
/// Without one for so long, a link is given up.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long a connection and its hello may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
