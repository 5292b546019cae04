//! The real binary against a node in this process: it passes a good run, and fails one in which a
//! delivery was spoilt on purpose.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod served;

mod runs;

mod curves;

mod networks;
