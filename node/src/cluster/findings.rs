//! What a node makes of how long others take to answer it, and of how late its own timers fire. Pure: looks
//! and answers in, complaints and questions out.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    clock::milliseconds,
    coordination::{Complaints, NodeName, Nodes},
};

/// How much a node puts up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// What takes longer is late.
    pub(super) late: Duration,
    /// Who is late for so long, every time, is slow.
    pub(super) slow_after: Duration,
    /// Who is slow is well once it has been in time for so long, every time.
    pub(super) well_after: Duration,
}

impl Patience {
    /// Of two who see the same, one may find it just slow and the other not yet, and be well sooner: who is
    /// in doubt begins sooner than anybody complains, and ends later.
    fn in_doubt(self) -> Self {
        let (slow_after, well_after) = (self.slow_after / 2, self.well_after + self.slow_after);
        Self { slow_after, well_after, ..self }
    }
}

/// Who is asked for a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Node(NodeName),
    Store,
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Of this node itself.
    own: Suspicion,
    others: BTreeMap<Asked, Subject>,
}

impl Findings {
    /// Looks at everybody, at a moment that was due so long ago; who is to be asked now.
    pub(super) fn look(
        &mut self,
        now: Duration,
        overdue: Duration,
        nodes: &Nodes,
        me: &NodeName,
        patience: Patience,
    ) -> Vec<Asked> {
        self.meet(nodes, me);
        let is_late = overdue > patience.late;
        self.own.see(is_late, now, patience);
        let mut asked = Vec::new();
        for (whom, subject) in &mut self.others {
            if is_late {
                subject.excuse(now);
            } else {
                subject.look(now, patience);
            }
            if subject.is_there && subject.asked_at.is_none() {
                subject.asked_at = Some(now);
                asked.push(whom.clone());
            }
        }
        asked
    }

    /// An answer has come, or there will be none; how long that took.
    pub(super) fn answered(&mut self, whom: &Asked, is_well: bool, now: Duration) -> Duration {
        let Some(subject) = self.others.get_mut(whom) else { return Duration::ZERO };
        let took = now.saturating_sub(subject.asked_at.take().unwrap_or(now));
        subject.longest = subject.longest.max(Some(if is_well { took } else { Duration::MAX }));
        took
    }

    /// Who is slow, with moments that are counted from `began_ms`.
    pub(super) fn complaints(&self, me: &NodeName, began_ms: u64) -> Complaints {
        let at_ms = |since| began_ms.saturating_add(milliseconds(since));
        let mut complaints = Complaints::default();
        if let Some(since) = self.own.slow_since() {
            complaints.of.insert(me.clone(), at_ms(since));
        }
        for (whom, subject) in &self.others {
            if *whom == Asked::Store {
                complaints.store_doubted_since_ms = subject.doubted_since().map(at_ms);
            }
            match (whom, subject.suspicion.slow_since()) {
                (Asked::Node(node), Some(since)) => drop(complaints.of.insert(node.clone(), at_ms(since))),
                (Asked::Store, Some(since)) => complaints.store_since_ms = Some(at_ms(since)),
                (_, None) => {}
            }
        }
        complaints
    }

    /// Goes by who is there now. One that started anew is judged anew; one that is gone is remembered while
    /// it is slow, for its lease may come and go.
    fn meet(&mut self, nodes: &Nodes, me: &NodeName) {
        for subject in self.others.values_mut() {
            subject.is_there = false;
        }
        let others = nodes.values().filter(|node| node.name != *me);
        let others = others.map(|node| (Asked::Node(node.name.clone()), node.started_ms));
        for (whom, started_ms) in others.chain([(Asked::Store, 0)]) {
            let subject = self.others.entry(whom).or_default();
            if subject.started_ms != started_ms {
                *subject = Subject { started_ms, ..Subject::default() };
            }
            subject.is_there = true;
        }
        self.others.retain(|_, subject| subject.is_there || subject.suspicion.slow_since().is_some());
    }
}

/// One that is asked again and again.
#[derive(Debug, Default)]
struct Subject {
    started_ms: u64,
    is_there: bool,
    /// Since when an answer is due.
    asked_at: Option<Duration>,
    /// How long the slowest answer took, of those since the last look.
    longest: Option<Duration>,
    suspicion: Suspicion,
    /// The same, with another patience.
    doubt: Suspicion,
}

impl Subject {
    fn look(&mut self, now: Duration, patience: Patience) {
        let waited = self.asked_at.map(|asked_at| now.saturating_sub(asked_at));
        let longest = self.longest.take();
        let is_late = longest.max(waited) > Some(patience.late);
        if !self.is_there {
            // Who is gone is not late.
            self.see(false, now, patience);
        } else if is_late || longest.is_some() {
            self.see(is_late, now, patience);
        }
        // Of a question that is under way nothing can be said yet.
    }

    fn see(&mut self, is_late: bool, now: Duration, patience: Patience) {
        self.suspicion.see(is_late, now, patience);
        self.doubt.see(is_late, now, patience.in_doubt());
    }

    /// Since when it has been so late that another might complain of it for the same reason.
    fn doubted_since(&self) -> Option<Duration> {
        let late = match self.suspicion {
            Suspicion::Well { late_since } => late_since,
            Suspicion::Slow { .. } => None,
        };
        late.into_iter().chain(self.doubt.slow_since()).min()
    }

    /// Whoever was late in looking cannot tell whether others were.
    fn excuse(&mut self, now: Duration) {
        self.asked_at = self.asked_at.map(|_| now);
        self.longest = None;
    }
}

/// Is somebody slow, or going to be, or to be well again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    Well { late_since: Option<Duration> },
    Slow { since: Duration, in_time_since: Option<Duration> },
}

impl Suspicion {
    fn see(&mut self, is_late: bool, now: Duration, patience: Patience) {
        let lasts = |since: Duration, time: Duration| now.saturating_sub(since) >= time;
        *self = match (*self, is_late) {
            (Self::Well { .. }, false) => Self::default(),
            (Self::Well { late_since }, true) => match late_since.unwrap_or(now) {
                since if lasts(since, patience.slow_after) => Self::Slow { since, in_time_since: None },
                since => Self::Well { late_since: Some(since) },
            },
            (Self::Slow { since, .. }, true) => Self::Slow { since, in_time_since: None },
            (Self::Slow { since, in_time_since }, false) => match in_time_since.unwrap_or(now) {
                in_time if lasts(in_time, patience.well_after) => Self::default(),
                in_time => Self::Slow { since, in_time_since: Some(in_time) },
            },
        };
    }

    fn slow_since(self) -> Option<Duration> {
        match self {
            Self::Well { .. } => None,
            Self::Slow { since, .. } => Some(since),
        }
    }
}

impl Default for Suspicion {
    fn default() -> Self {
        Self::Well { late_since: None }
    }
}

#[cfg(test)]
mod tests;
