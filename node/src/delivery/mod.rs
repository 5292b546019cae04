//! From a group's tail to its sessions: cursors over shared bytes, never a queue for each session.

mod pages;

mod signal;

mod tail;

pub use pages::Pages;
pub use signal::Signal;
pub use tail::{Attachment, Tail, TailRead};
