//! Keys, certificates, tokens and TLS for Shoal.
//!
//! - [`identity`]: who a node is: its certificate, its key and the authority it trusts;
//! - [`tls`]: rustls and quinn configurations for clients, nodes and peers;
//! - [`key`], [`authority`]: Ed25519 keys and the development authority (feature `keys`);
//! - [`folder`]: a node's keys and certificates on disk (feature `keys`);
//! - [`token`]: JWTs that say who a user is (feature `keys`).
//!
//! A client needs the authority's certificate only, and so no feature:
//!
//! ```
//! # use shoal_certs::{Authority, PrivateKey, Seed};
//! # let now_ms = 1_790_000_000_000;
//! # let ca_pem = Authority::new(PrivateKey::derive(&Seed::from_number(1), "ca"), now_ms).cert_pem().to_owned();
//! let roots = shoal_certs::roots_from_pem(&ca_pem)?;
//! let crypto = shoal_certs::quic_client(shoal_certs::client_config(roots));
//! let config = quinn::ClientConfig::new(crypto);
//! # Ok::<(), shoal_certs::IdentityError>(())
//! ```
#![warn(missing_docs)]

pub mod identity;

pub mod tls;

#[cfg(feature = "keys")]
pub mod key;

#[cfg(feature = "keys")]
pub mod authority;

#[cfg(feature = "keys")]
pub mod folder;

#[cfg(feature = "keys")]
mod jwt;

#[cfg(feature = "keys")]
pub mod token;

#[cfg(feature = "keys")]
pub use authority::{Authority, IssueError};
#[cfg(feature = "keys")]
pub use folder::{FolderError, KeyFolder};
pub use identity::{Identity, IdentityError, NODE_NAME, roots_from_pem};
#[cfg(feature = "keys")]
pub use key::{KeyError, PrivateKey, Seed};
pub use tls::{
    client_config, peer_client_config, peer_server_config, quic_client, quic_server, server_config,
};
#[cfg(feature = "keys")]
pub use token::{Claims, TokenError, TokenKeyError, TokenSigner, TokenVerifier};
