//! What the client decides, without IO, clock or randomness: time comes in as a [`Duration`] since
//! the client started, chance as a number in `0.0..1.0`.
//!
//! [`Duration`]: std::time::Duration

pub(crate) mod lane;

pub(crate) mod outbox;

pub(crate) mod inbox;

pub(crate) mod liveness;

pub(crate) mod backoff;

pub(crate) mod nodes;

#[cfg(test)]
mod outbox_properties;
