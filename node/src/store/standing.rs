//! How an engine that has been opened stands to its witness.

use super::{operations::Operations, witness::Testimony};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Everything is there that was acknowledged.
    Whole,
    /// The last commit is missing, and the witness holds it: it is to be written again. Perhaps it
    /// was never acknowledged; then that does no harm.
    OneShort(Operations),
    /// What was acknowledged is missing.
    Lost(String),
}

/// Judges the engine of `store` whose last commit is `commit`.
pub(super) fn standing(witness: Testimony, store: u64, commit: u64) -> Standing {
    if witness.store != store {
        let other = witness.store;
        return Standing::Lost(format!("the file witness is that of another store ({other:016x})"));
    }
    if commit >= witness.commit {
        return Standing::Whole;
    }
    let needed = witness.journaled();
    match witness.operations {
        Some(operations) if commit >= needed => Standing::OneShort(operations),
        _ => Standing::Lost(format!("commits up to {needed} were acknowledged, and it ends at {commit}")),
    }
}
