//! What goes on in the node, for whoever runs it: numbers, and whether it serves.

mod instrument;

mod metrics;

mod process;

mod http;

pub use http::{Probe, serve};
pub use instrument::{Counter, Histogram, Peak, RefusalCounter};
pub use metrics::Metrics;
pub(crate) use process::processor_time;
pub use prometheus_client::metrics::gauge::Gauge;
