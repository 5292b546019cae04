//! The binary as an operator meets it: a real process, a real folder, real sockets.

mod config;

mod groups;

mod running;

mod serve;

mod token;
