//! The embedded store against a machine that loses power, flips bits and runs out of space.
//!
//! - [`workload`]: what is written, in a process of its own, and what was promised;
//! - [`record`]: what that process did to its files, as `shoal-power-loss` recorded it;
//! - [`disk`]: what a disk may hold of it after a power loss;
//! - [`power_loss`], [`bit_flips`], [`disk_full`], [`opening`]: the tests.
#![allow(clippy::unwrap_used, reason = "these are tests, helpers and all")]

mod bit_flips;
mod disk;
mod disk_full;
mod opening;
mod power_loss;
mod record;
mod workload;
