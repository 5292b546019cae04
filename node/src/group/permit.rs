//! How many plans are under way on this node.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// One plan under way, until it is dropped.
#[derive(Debug)]
pub(super) struct PlanPermit(Arc<AtomicUsize>);

impl PlanPermit {
    /// One more, if there are fewer than so many.
    pub(super) fn take(plans: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let more = |plans: usize| (plans < max).then_some(plans + 1);
        plans.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(plans)))
    }

    /// One more, however many there are: it is under way already.
    pub(super) fn adopt(plans: &Arc<AtomicUsize>) -> Self {
        plans.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(plans))
    }
}

impl Drop for PlanPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_than_may_be_but_for_those_that_are() {
        let plans = Arc::default();
        let first = PlanPermit::take(&plans, 1);
        assert!(first.is_some() && PlanPermit::take(&plans, 1).is_none());
        let adopted = PlanPermit::adopt(&plans);
        drop(first);
        assert!(PlanPermit::take(&plans, 1).is_none());
        drop(adopted);
        assert!(PlanPermit::take(&plans, 1).is_some());
    }
}
