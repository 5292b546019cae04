//! One node and its clients on a virtual network and clock: a seed decides everything.
//!
//! - [`plan`]: what a seed stands for;
//! - [`run`]: the world is put together, disturbed, made good again, emptied and judged;
//! - [`seeds`]: many runs, a few at a time;
//! - [`node`], [`app`]: who is in it, over all their crashes and restarts;
//! - [`network`], [`keys`], [`store`]: what they are given instead of a machine's;
//! - [`chronicle`]: what happened; [`judge`]: whether it may;
//! - [`mutation`]: what is broken on purpose, so that the judge can be judged.

pub mod plan;

pub mod run;

pub mod seeds;

pub mod node;

pub mod app;

pub mod network;

pub mod keys;

pub mod store;

pub mod chronicle;

pub mod judge;

pub mod mutation;
