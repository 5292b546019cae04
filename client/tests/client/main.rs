//! The client against a real node and against one that follows a script, on a network in memory
//! and a paused clock.

mod net;

mod world;

mod with_node;
