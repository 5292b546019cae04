//! Shoal as a whole, held against what it promises.
//!
//! - [`sim`]: a node and its clients on a virtual network and clock, replayed from a seed;
//! - [`process`]: the binary `shoal` as an operator runs it; [`slowed`]: and gives it hardly any time;
//! - [`node_hours`]: what a day costs where nodes come and go.

pub mod sim;

pub mod process;

pub mod slowed;

pub mod node_hours;
