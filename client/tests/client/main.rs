//! The client against a real node and against one that follows a script, on a network in memory
//! and a paused clock.
#![allow(clippy::unwrap_used)]

mod net;

mod world;

mod script;

mod talking;

mod surviving;

mod admission;

mod deliveries;

mod early;

mod many;

mod moving;

mod sessions;
mod silence;

mod watching;
