//! The home alone.
