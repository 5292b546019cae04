//! stub
mod core;
