//! From a group's tail to its sessions: cursors over shared bytes, never a queue for each session.

mod budget;

mod signal;

mod tail;

mod rest;

mod runs;

mod pages;

mod cursors;

mod streams;

mod deliveries;

pub use budget::WindowBudget;
pub use deliveries::{Deliveries, Ended};
pub use pages::{Page, Pages};
pub use runs::Runs;
pub use signal::Signal;
pub use tail::{Attachment, Tail, TailTurn};
