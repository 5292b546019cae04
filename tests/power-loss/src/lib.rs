//! A library for `LD_PRELOAD` that records, in order, what a process writes, syncs, creates,
//! renames and removes in one folder. From the record, what a disk could hold after a power loss
//! at any moment can be built: everything synced, and any part of the rest.
//!
//! | variable | meaning |
//! |---|---|
//! | `POWER_LOSS_ROOT` | the folder, canonical; without it everything passes through |
//! | `POWER_LOSS_LOG` | where the record goes |
//! | `POWER_LOSS_ACKS` | a file outside the folder: what is written to it stands in the record, so that acknowledgements have their place in the order |
//! | `POWER_LOSS_IGNORE_SYNC` | syncs of files whose names end with this are not recorded: as if they had never been called |
//! | `POWER_LOSS_SPACE` | so many bytes fit into the folder; then `ENOSPC` |
//! | `POWER_LOSS_FAIL_SYNC` | `NAME:NUMBER`: of the syncs of files whose names end with NAME, the one with this number (from 0) fails with `EIO` |
//! | `POWER_LOSS_SLOW_SYNC` | syncs of files whose names end with this take 2 ms longer |
//!
//! A call that cannot be recorded (a shared writable mapping, a copy inside the kernel) stands in
//! the record as unsupported, and the test that reads it fails.

mod calls;
mod record;
