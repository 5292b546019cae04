//! The store on PostgreSQL against real servers: what nodes do to each other in it, and what is left
//! of it when a server or a connection dies. The suite that every store passes is in the crate.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod world;

mod opening;

mod nodes;

mod failures;

mod damage;

#[path = "../cli/running.rs"]
#[allow(dead_code, reason = "the tests of the command use the rest")]
mod running;

mod serve;

mod throughput;
