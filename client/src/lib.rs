//! The Shoal client: follow groups and publish to them, over networks that drop, stall and change.
#![warn(missing_docs)]

mod config;

mod token;

mod transport;

mod client;

mod state;

mod follow;

mod sending;

mod asking;

mod signal;

mod saved;

mod stats;

mod core;

mod shell;

pub use asking::RequestError;
pub use client::{Client, ConnectError};
pub use config::Config;
pub use follow::{Delivered, Follow, FollowError, Start};
pub use saved::{Saved, SavedError};
pub use sending::{Message, PublishError, Sending};
pub use shoal_certs::IdentityError as TlsError;
pub use shoal_protocol::{Code, DeviceId, GroupId, IdError, Incarnation, Refusal, Retry, Seq, UserId, wire};
pub use signal::{Signal, SignalKind, Signals};
pub use state::{Closed, Lost, State};
pub use stats::Stats;
pub use token::{TokenError, TokenSource};
pub use transport::{Resolving, Transport, UdpTransport};

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
