//! A Shoal node. The modules are the layers, from the data up.

pub mod config;

pub mod clock;

pub mod store;

pub mod delivery;

pub mod group;

mod pace;

mod presence;

mod access;

pub mod peer;

mod cluster;

pub mod node;

pub mod coordination;

pub mod settings;

pub mod ops;
