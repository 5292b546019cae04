//! The binary `shoal` with clients of its own library, as an operator and their users have it:
//! killed, restarted, talked through.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod beside_mqtt;

mod chat;

mod load;

mod cluster;

mod early;

mod faults;

mod measured;

mod plans;

mod restarts;

mod settings;

mod storm;

mod tunnel;
