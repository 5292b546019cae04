//! One node and its clients on a virtual network and clock: a seed decides everything.

pub mod mutation;

pub mod chronicle;

pub mod judge;

pub mod network;

pub mod keys;

pub mod store;

pub mod plan;

pub mod node;
