//! The access layer, tried by a client that is written out frame by frame over real QUIC, so that
//! it can also do what no good client does.

mod client;

mod world;

mod hello;

mod streams;

mod sessions;

mod deliveries;

mod pressure;
