//! The client against a real node and against one that follows a script, on a network in memory
//! and a paused clock.

#![allow(clippy::unwrap_used)]

mod net;

mod world;

mod script;

mod with_node;

mod with_script;
