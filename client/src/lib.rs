//! The Shoal client: follow groups and publish to them, over networks that drop, stall and change.
//!
//! A Shoal group is one sequence of records (messages, changes of members and settings), the same
//! for each of its members, whether these are ten or a hundred thousand. A [`Client`] keeps one
//! session with whichever node is there; a [`Follow`] reads a group from a place in its sequence;
//! [`publish`](Client::publish) writes to it. Reconnecting, resuming, retrying, ordering and
//! refilling happen inside.
//!
//! ```
//! use shoal_client::{Client, Config, Delivered, GroupId, Start, wire::record::Body};
//!
//! async fn chat(ca_pem: &str, token: String) -> Result<(), Box<dyn std::error::Error>> {
//!     // Chosen once for this installation, and kept; see `new_device`.
//!     let device = "00c0ffee00c0ffee".parse()?;
//!     let tls = shoal_client::tls_from_ca(ca_pem)?;
//!     let client = Client::connect(Config::new(["127.0.0.1:4433"], tls, token, device)).await?;
//!
//!     let group: GroupId = "#general".parse()?;
//!     client.join(group).await?;
//!     let mut records = client.follow(group, Start::Join).await?;
//!
//!     // Durable, and on its way to every member, once this returns.
//!     let seq = client.publish(group, "Hello, shoal").await?;
//!     println!("mine is number {seq}");
//!
//!     while let Some(delivered) = records.next().await {
//!         let Delivered::Record(record) = delivered? else { continue };
//!         if let Some(Body::Message(message)) = record.body {
//!             println!("{}: {}", record.seq, String::from_utf8_lossy(&message.payload));
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What an app may rely on
//!
//! - **A receipt means durable.** [`publish`](Client::publish) returns the message's place once it
//!   is on disk; every member gets it, in that place.
//! - **Records come in order, each once, without a hole**, from the place where the follow began,
//!   over any loss, reconnect or move. Should a delivery leave something out, the client fetches it
//!   before the app sees what comes after, and counts it in [`Stats::gaps_refilled`].
//! - **One's own messages keep their order**, over retries and reconnects, and are never doubled.
//!   What passes (too fast, busy, no network) is waited out inside; what does not is told, for
//!   that message.
//! - **Bounds everywhere.** What waits to be read, to be sent and to be answered is bounded in
//!   bytes or numbers ([`Config`]); an app that does not read or sends too much is slowed, and
//!   costs no memory.
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | [`Seq`] | a record's place in its group: 1, 2, 3, …, the same for every member |
//! | watermark | the next `Seq` wanted: all below it, one has |
//! | tail | the first `Seq` not yet written; who has everything has watermark = tail |
//! | receipt | the answer to a message: its `Seq`, or why it has none |
//! | own sequence | a group of one for each user: notices to all of their devices ([`Client::own`]) |
//!
//! # Common tasks
//!
//! **Many messages at once.** [`send`](Client::send) returns when a message is queued, with a
//! future of its receipt; messages to one group keep the order of the calls.
//!
//! ```
//! # async fn example(client: &shoal_client::Client, group: shoal_client::GroupId)
//! # -> Result<(), shoal_client::PublishError> {
//! let mut receipts = Vec::new();
//! for number in 1..=100 {
//!     receipts.push(client.send(group, format!("message {number}")).await?);
//! }
//! for receipt in receipts {
//!     println!("at {}", receipt.await?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **The latest messages first, then everything new**, without a gap or a double between them:
//! read the history backwards, and follow from its tail.
//!
//! ```
//! # use shoal_client::{Client, GroupId, Seq, Start};
//! # async fn example(client: &Client, group: GroupId) -> Result<(), Box<dyn std::error::Error>> {
//! let history = client.history(group, None, 50, true).await?;
//! for record in &history.records {
//!     println!("{record:?}");
//! }
//! let tail = Seq::new(history.tail).unwrap_or(Seq::FIRST);
//! let mut records = client.follow(group, Start::Watermark(tail)).await?;
//! # records.next().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Across restarts.** [`Client::save`] gives the watermarks and the unsent messages;
//! [`Config::saved`] takes them back. See [`Saved`] for what a save that is not the latest means.
//!
//! ```
//! # use shoal_client::{Client, Config, GroupId, Saved, Start};
//! # async fn example(config: Config, group: GroupId) -> Result<(), Box<dyn std::error::Error>> {
//! let saved = match std::fs::read("shoal.save") {
//!     Ok(bytes) => Some(Saved::from_bytes(&bytes)?),
//!     Err(_) => None,
//! };
//! let client = Client::connect(config.saved(saved)).await?;
//! let mut records = client.follow(group, Start::Resume).await?;
//! // … and regularly, and whenever the app goes to the background:
//! std::fs::write("shoal.save", client.save().to_bytes())?;
//! # records.next().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Showing the state.** [`Client::state`] is a watch of [`State`]. While it is
//! [`Degraded`](State::Degraded) (the node should have answered by now) or
//! [`Reconnecting`](State::Reconnecting), nothing is lost and what is sent is queued; after
//! [`Closed`](State::Closed) nothing more comes, and it says why.
//!
//! **Whether a network change is under way** is something the machine knows first: call
//! [`Client::network_changed`] from the platform's callback, and the connection moves at once.
//!
//! **A feature for some members first** is a named value that the group's admins give to a share of its
//! members, then to more, live: see [`Features`].
//!
//! **Everything else** (joining, members, history, read positions, presence, typing) is a method
//! of [`Client`]. The structures that travel are in [`wire`], generated from the protocol's files.
//!
//! # What a client costs
//!
//! One task, one more for each group that is delivering at the moment, and about 60 KB with its
//! connection; about 300 bytes for each group that is followed and quiet. Many clients in one
//! process share sockets through one [`UdpTransport`] ([`Config::transport`]).
//!
//! # Cancellation
//!
//! Futures may be dropped at any time. Reading ([`Follow::next`], [`Signals::next`]) loses nothing.
//! A message is queued whole or not at all, and once queued goes its way. A request that was sent
//! may be carried out though nobody waits for its answer.
#![warn(missing_docs)]

mod config;

mod token;

mod transport;

mod client;

mod state;

mod follow;

mod sending;

mod asking;

mod features;

mod signal;

mod saved;

mod stats;

#[cfg(feature = "network-watch")]
mod watch;

mod core;

mod shell;

pub use asking::RequestError;
pub use client::{Client, ConnectError};
pub use config::Config;
pub use features::Features;
pub use follow::{Delivered, Follow, FollowError, Start};
pub use saved::{Saved, SavedError};
pub use sending::{Message, PublishError, Sending};
pub use shoal_certs::IdentityError as TlsError;
pub use shoal_protocol::{Code, DeviceId, GroupId, IdError, Incarnation, Refusal, Retry, Seq, UserId, wire};
pub use signal::{Signal, SignalKind, Signals};
pub use state::{Activity, Closed, Lost, State};
pub use stats::Stats;
pub use token::{TokenError, TokenSource};
pub use transport::{NetworkChanges, Resolving, Transport, UdpTransport};

/// Trusts the authority whose certificate this is (PEM, as in a node's `ca.pem`), and nobody else.
///
/// Clients that share what this gives share their session tickets, and reconnect the quicker.
///
/// # Errors
/// Where the text holds no certificate.
pub fn tls_from_ca(ca_pem: &str) -> Result<rustls::ClientConfig, TlsError> {
    Ok(shoal_certs::client_config(shoal_certs::roots_from_pem(ca_pem)?))
}

/// A device id for a new installation of the app, which keeps it from then on.
#[must_use]
pub fn new_device() -> DeviceId {
    DeviceId(rand::random())
}

/// The README's example, kept true.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
