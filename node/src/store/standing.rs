//! How an engine that has been opened stands to its witness.

use super::{operations::Operations, witness::Testimony};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Everything is there that was acknowledged.
    Whole,
    /// The last commits are missing, and the witness holds them: they are to be written again.
    /// Perhaps the very last was never acknowledged; then that does no harm.
    Short(Vec<Operations>),
    /// What was acknowledged is missing.
    Lost(String),
}

/// Judges the engine of `store`, which has everything up to `commit`.
pub(super) fn standing(mut witness: Testimony, store: u64, commit: u64) -> Standing {
    if witness.store != store {
        let other = witness.store;
        return Standing::Lost(format!("the file witness is that of another store ({other:016x})"));
    }
    if commit >= witness.commit {
        return Standing::Whole;
    }
    let needed = witness.journaled();
    let had = commit.checked_sub(needed).and_then(|had| usize::try_from(had).ok());
    match had {
        Some(had) => Standing::Short(witness.whole.split_off(had)),
        None => Standing::Lost(format!("commits up to {needed} were acknowledged, and it ends at {commit}")),
    }
}
