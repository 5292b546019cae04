//! Loads a Shoal node with real clients, and judges every delivery.
//!
//! In reading order:
//!
//! - [`payload`]: what a message carries, so that its receiver can be checked;
//! - [`checker`]: the judge, pure: what happened goes in, a verdict comes out;
//! - [`plan`]: who does what when, from a seed;
//! - [`report`]: what a run found.

pub mod payload;

pub mod checker;

pub mod plan;

pub mod report;
