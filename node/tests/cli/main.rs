//! The binary as an operator meets it: a real process, a real folder, real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod config;

mod events;

mod features;

mod groups;

mod live;

mod plans;

mod running;

mod serve;

mod token;
