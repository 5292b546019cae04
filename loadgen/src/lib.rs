//! Loads a Shoal node with real clients, and judges every delivery.
//!
//! In reading order:
//!
//! - [`payload`]: what a message carries, so that its receiver can be checked;
//! - [`checker`]: the judge of one group, pure: what happened goes in, a verdict comes out;
//! - [`plan`]: who does what when, from a seed;
//! - [`report`]: what a run found;
//! - [`options`]: what to run;
//! - [`sabotage`]: spoils a delivery, to show that the judge bites;
//! - [`judge`]: the judges of all groups, with the clock beside them;
//! - [`run()`]: makes the groups, connects, sends, waits, judges.

pub mod payload;

pub mod checker;

pub mod plan;

pub mod report;

pub mod options;

pub mod sabotage;

pub mod judge;

pub mod lag;

pub mod timeline;

mod setup;

mod member;

mod display;

mod run;

pub use options::{Options, Sabotage};
pub use report::Report;
pub use run::run;
pub use setup::SetupError;
