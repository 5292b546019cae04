//! A value that is replaced while others read it.

use std::{ops::Deref, sync::Arc};

use arc_swap::ArcSwap;

/// What holds now, shared by all who read it. Reading takes neither a lock nor a reference count, and
/// nobody is told of a change: whoever acts by the value reads it when they act. Cheap to clone.
#[derive(Debug)]
pub struct Current<T>(Arc<ArcSwap<T>>);

impl<T> Current<T> {
    /// What holds at this moment. For one act, not to be kept.
    #[must_use]
    pub fn load(&self) -> impl Deref<Target = Arc<T>> + use<T> {
        self.0.load()
    }

    /// What holds at this moment, to be kept until [`Self::is`] says that it is replaced.
    #[must_use]
    pub fn latest(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Does this hold still?
    #[must_use]
    pub fn is(&self, kept: &Arc<T>) -> bool {
        Arc::ptr_eq(&self.0.load(), kept)
    }

    /// Replaces it, for all who share it.
    pub fn set(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<T> for Current<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_share_a_value_see_it_replaced() {
        let one = Current::from(1);
        let (other, kept) = (one.clone(), one.latest());
        assert!(other.is(&kept) && **other.load() == 1);
        one.set(2);
        assert!(!other.is(&kept) && **other.load() == 2 && *kept == 1);
    }
}
