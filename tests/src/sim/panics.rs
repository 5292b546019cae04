//! Panics of a run, also of tasks that nobody waits for: each is a finding.

use std::{
    cell::RefCell,
    panic::{set_hook, take_hook},
    sync::Once,
};

thread_local! {
    /// A run has a thread to itself.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics of every thread are remembered, and told as before.
pub(super) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let tell = take_hook();
        set_hook(Box::new(move |panic| {
            SEEN.with_borrow_mut(|seen| seen.push(panic.to_string()));
            tell(panic);
        }));
    });
}

/// Those of this thread since it was asked last.
pub(super) fn take() -> Vec<String> {
    SEEN.take()
}
