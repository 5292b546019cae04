//! Loads a Shoal node with real clients, and judges every delivery.
//!
//! In reading order:
//!
//! - [`payload`]: what a message carries, so that its receiver can be checked;
//! - [`checker`]: the judge of one group, pure: what happened goes in, a verdict comes out;
//! - [`plan`]: who does what when, from a seed;
//! - [`curve`]: how many members one group has and how much they say, over time;
//! - [`report`]: what a run found;
//! - [`options`]: what to run;
//! - [`sabotage`]: spoils a delivery, to show that the judge bites;
//! - [`judge`]: the judges of all groups, with the clock beside them;
//! - [`run()`]: makes the groups, connects, sends, waits, judges;
//! - [`follow_curve()`]: the same with one group that grows and shrinks;
//! - [`plot`]: draws what happened when.

pub mod payload;

pub mod checker;

pub mod plan;

pub mod curve;

pub mod report;

pub mod options;

pub mod sabotage;

pub mod judge;

pub mod lag;

pub mod timeline;

mod network;

mod setup;

mod member;

mod change;

mod crowd;

mod display;

mod run;

mod grow;

pub mod plot;

pub use grow::follow_curve;
pub use network::NetworkReport;
pub use options::{Bounds, Clients, DayOptions, GrowOptions, NetworkOptions, Options, Sabotage};
pub use report::Report;
pub use run::run;
pub use setup::SetupError;
