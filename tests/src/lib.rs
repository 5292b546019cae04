//! Shoal as a whole, held against what it promises.
//!
//! - [`sim`]: a node and its clients on a virtual network and clock, replayed from a seed.

pub mod sim;
