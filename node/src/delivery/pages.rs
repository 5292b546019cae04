//! Aligned pages of records from the store, for whoever is behind a tail's window.

use shoal_protocol::{GroupId, Seq};

/// Pages that were fetched lately.
#[derive(Debug, Default)]
pub struct Pages {}

impl Pages {
    /// A record's payload was recalled: its page is fetched again.
    pub fn invalidate(&self, _group: GroupId, _seq: Seq) {}
}
