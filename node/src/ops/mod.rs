//! What goes on in the node, for whoever runs it: numbers, events, and whether it serves.

mod event;

mod events;

mod instrument;

mod metrics;

mod process;

mod http;

pub(crate) use event::{Event, Kind};
pub(crate) use events::Events;
pub use http::{Probe, serve};
pub use instrument::{Counter, Histogram, Peak, RefusalCounter};
pub use metrics::Metrics;
pub(crate) use process::processor_time;
pub use prometheus_client::metrics::gauge::Gauge;
