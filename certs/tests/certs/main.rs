//! What `shoal-certs` promises to whoever uses it.
#![allow(clippy::unwrap_used)]

mod folder;
mod handshake;
mod token;

/// In September 2026.
const NOW_MS: u64 = 1_790_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;
