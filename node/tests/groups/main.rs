//! The group layer over a store in memory: what it promises, whatever the store does meanwhile.

mod changes;

mod features;

mod limits;

mod plans;

mod references;

mod removals;

mod retries;

mod world;
