//! The access layer, tried by a client that is written out frame by frame over real QUIC, so that
//! it can also do what no good client does.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod client;

mod world;

mod bystander;

mod early;

mod hello;

mod streams;

mod groups;

mod sessions;

mod deliveries;

mod pressure;
