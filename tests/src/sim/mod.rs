//! Nodes and their clients on a virtual network and clock: a seed decides everything.
//!
//! - [`plan`]: what a seed stands for;
//! - [`run`]: a world is put together, disturbed, made good again, emptied and judged;
//! - [`seeds`]: many runs, a few at a time; [`strike`]: a node that dies at a step of a plan; [`slowing`]:
//!   one that is slow and holds its lease;
//! - [`scene`]: what all hosts share; [`node`], [`app`]: who they are, over all crashes and restarts;
//!   [`operator`]: who orders plans;
//! - [`network`], [`reception`], [`keys`], [`standstill`]: what they are given instead of a machine's;
//! - [`database`], [`coordination`]: what the nodes of a cluster share; [`store`], [`elsewhere`]: what
//!   lies to them;
//! - [`chronicle`], [`ledger`]: what happened, and became durable; [`judge`]: whether it may;
//! - [`mutation`]: what is broken on purpose, so that the judge can be judged.

pub mod plan;

mod world;

pub mod run;

mod panics;

pub mod seeds;

pub mod strike;

pub mod slowing;

pub mod scene;

pub mod node;

pub mod app;

pub mod operator;

pub mod network;

pub mod reception;

pub mod keys;

pub mod standstill;

pub mod database;

pub mod coordination;

pub mod store;

pub mod elsewhere;

pub mod chronicle;

pub mod ledger;

pub mod judge;

pub mod mutation;
