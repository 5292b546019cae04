//! The judges of all groups of a run, shared by its clients, with the clock beside them.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::{
    checker::{Content, GroupChecker, MessageId, Verdict},
    lag::Lags,
    payload::Payload,
    plan::{Due, Habit, MemberId, Plan},
    report::{Latencies, Quantiles},
    setup::Made,
    timeline::{Attendance, Crowd, Step, Timeline},
};

/// Judges what all clients of a run send and get.
#[derive(Debug)]
pub struct Judge {
    run: u64,
    /// The moment from which messages are due.
    begun: Instant,
    groups: Vec<Mutex<GroupChecker>>,
    /// Of each group's members.
    habits: Vec<Vec<Habit>>,
    lags: Vec<Mutex<Lags>>,
    publish: Mutex<Latencies>,
    delivery: Mutex<Latencies>,
    timeline: Mutex<Timeline>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Deliveries owed.
    pub owed: u64,
    /// Messages without receipt or refusal.
    pub unanswered: u64,
}

impl Judge {
    /// The judge of the run with this number, whose first message is due at `begun`.
    #[must_use]
    pub fn new(run: u64, begun: Instant, plan: &Plan) -> Self {
        let checker = |group| Mutex::new(GroupChecker::new(format!("group {group}")));
        let mut habits: Vec<Vec<Habit>> = plan.groups().iter().map(|_| Vec::new()).collect();
        for (id, habit) in plan.members() {
            habits[id.group as usize].push(habit);
        }
        Self {
            run,
            begun,
            habits,
            groups: (0..plan.groups().len()).map(checker).collect(),
            lags: plan.groups().iter().map(|_| Mutex::default()).collect(),
            publish: Mutex::default(),
            delivery: Mutex::default(),
            timeline: Mutex::new(Timeline::new(plan.duration())),
        }
    }

    /// The connected members of groups that were just made.
    pub(crate) fn begin(&self, plan: &Plan, made: impl IntoIterator<Item = Made>) {
        let members = |id: MemberId| plan.groups()[id.group as usize];
        let asked: Vec<_> =
            (0..).zip(plan.groups()).map(|(group, members)| self.joining(group, *members)).collect();
        for Made { id, seq } in made.into_iter().filter(|made| made.id.member < members(made.id)) {
            self.joined(id, asked[id.group as usize], seq);
        }
    }

    /// The moment from which messages are due.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The same moment in milliseconds since 1970, for whoever sets a report beside what others have noted.
    #[must_use]
    pub fn began_ms(&self) -> u64 {
        let began = SystemTime::now() - self.begun.elapsed();
        began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    /// So many are about to ask to join a group: see [`GroupChecker::joining`].
    #[must_use]
    pub fn joining(&self, group: u32, count: u32) -> u64 {
        self.group(group).joining(count)
    }

    /// One of those who began to join at `asked` did not.
    pub fn not_joined(&self, group: u32, asked: u64) {
        self.group(group).not_joined(asked);
    }

    /// One of those who began to join at `asked` is a member from the record at `seq` on.
    pub fn joined(&self, member: MemberId, asked: u64, seq: u64) {
        self.group(member.group).joined(member.member, asked, seq);
    }

    /// A member left with the record at `seq`; none where nobody can say.
    pub fn left(&self, member: MemberId, seq: Option<u64>) {
        self.group(member.group).left(member.member, seq);
    }

    /// The payload of a message that is about to be given to its sender's client.
    pub fn send(&self, due: Due) -> Payload {
        self.group(due.sender.group).sent(message(due));
        lock(&self.timeline).published(self.begun.elapsed());
        Payload {
            run: self.run,
            group: due.sender.group,
            sender: due.sender.member,
            number: due.number,
            intended_ns: u64::try_from(due.at.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Its receipt came: durable at `seq`.
    pub fn acknowledged(&self, due: Due, seq: u64) {
        let now = self.begun.elapsed();
        if self.habit(due.sender) != Habit::Churns {
            let latency = now.saturating_sub(due.at);
            lock(&self.publish).record(latency);
            lock(&self.timeline).acknowledged(now, latency);
        }
        lock(&self.lags[due.sender.group as usize]).known(seq, now);
        self.group(due.sender.group).acknowledged(message(due), seq);
    }

    /// It was refused for good, or never left its client.
    pub fn refused(&self, due: Due) {
        self.group(due.sender.group).refused(message(due));
    }

    /// Nobody will ever say what became of it.
    pub fn unknown(&self, due: Due) {
        self.group(due.sender.group).unknown(message(due));
    }

    /// A member's app got the message at `seq`.
    pub fn delivered(&self, member: MemberId, seq: u64, bytes: &[u8]) {
        let now = self.begun.elapsed();
        let lag = lock(&self.lags[member.group as usize]).had(member.member, seq, now);
        if self.habit(member) == Habit::Steady {
            lock(&self.timeline).lagged(now, lag);
        }
        let content = match Payload::decode(bytes, self.run, member.group) {
            Ok(received) => {
                self.time(member, &received.payload);
                let Payload { sender, number, .. } = received.payload;
                Content::Whole { message: MessageId { sender, number }, checksum: received.checksum }
            }
            Err(_) => Content::Corrupt,
        };
        self.group(member.group).delivered(member.member, seq, content);
    }

    /// A member's app got the records at these places, or what stands for all of them: none is a message.
    pub fn passed(&self, member: MemberId, places: Range<u64>) {
        self.group(member.group).passed(member.member, places);
    }

    /// How many places a member is behind the last that is known of.
    #[must_use]
    pub fn behind(&self, member: MemberId) -> u64 {
        self.group(member.group).behind(member.member)
    }

    /// How the crowd of a group is at this moment.
    pub fn observe(&self, group: u32, attendance: Attendance) {
        let now = self.begun.elapsed();
        let (behind, tail) = self.group(group).furthest_behind();
        // Who lacks something lags by as long as that has been there.
        let since = lock(&self.lags[group as usize]).known_since(behind);
        let crowd = Crowd { attendance, behind_records: tail - behind };
        let mut timeline = lock(&self.timeline);
        timeline.lagged(now, since.map_or(Duration::ZERO, |since| now.saturating_sub(since)));
        timeline.observed(now, crowd);
    }

    /// What is still to come, over all groups.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for group in &self.groups {
            let (owed, unanswered) = lock(group).outstanding();
            progress.owed += owed;
            progress.unanswered += unanswered;
        }
        progress
    }

    /// What has happened so far, over all groups.
    #[must_use]
    pub fn so_far(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for group in &self.groups {
            verdict.add(lock(group).so_far().clone());
        }
        verdict
    }

    /// From the intended moment to the receipt.
    #[must_use]
    pub fn publish_latency(&self) -> Quantiles {
        lock(&self.publish).quantiles()
    }

    /// From the intended moment to an app.
    #[must_use]
    pub fn delivery_latency(&self) -> Quantiles {
        lock(&self.delivery).quantiles()
    }

    /// The longest that a member was behind the first to have a message; none where it leaves or stops
    /// reading, which is not lag.
    #[must_use]
    pub fn worst_lag(&self, member: MemberId) -> Option<Duration> {
        let is_steady = self.habit(member) == Habit::Steady;
        is_steady.then(|| lock(&self.lags[member.group as usize]).worst(member.member))
    }

    /// What happened when.
    #[must_use]
    pub fn timeline(&self) -> Vec<Step> {
        lock(&self.timeline).steps()
    }

    /// Who was there of late, in a run along a curve.
    #[must_use]
    pub fn crowd(&self) -> Option<Crowd> {
        lock(&self.timeline).crowd()
    }

    /// The verdict, once nothing more will come: the judge forgets all it knew.
    #[must_use]
    pub fn finish(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for group in &self.groups {
            verdict.add(std::mem::take(&mut *lock(group)).finish());
        }
        verdict
    }

    fn group(&self, number: u32) -> MutexGuard<'_, GroupChecker> {
        lock(&self.groups[number as usize])
    }

    /// How long a delivery took, where neither end was away or did not read: that is not latency.
    fn time(&self, receiver: MemberId, payload: &Payload) {
        let sender = MemberId { group: payload.group, member: payload.sender };
        if self.habit(receiver) == Habit::Steady && self.habit(sender) != Habit::Churns {
            let now = self.begun.elapsed();
            let latency = now.saturating_sub(Duration::from_nanos(payload.intended_ns));
            lock(&self.delivery).record(latency);
            lock(&self.timeline).delivered(now, latency);
        }
    }

    /// A member that nobody knows is a corrupt payload's, which the checker finds.
    fn habit(&self, member: MemberId) -> Habit {
        let of_group = self.habits.get(member.group as usize);
        of_group.and_then(|habits| habits.get(member.member as usize)).copied().unwrap_or(Habit::Steady)
    }
}

fn message(due: Due) -> MessageId {
    MessageId { sender: due.sender.member, number: due.number }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::{options::Sabotage, plan::Shape, report::Report, sabotage::Saboteur};

    /// A perfect group of three, with what one member gets spoilt on the way to the judge.
    fn run(how: Option<Sabotage>) -> Report {
        let shape = Shape::new(1, 3);
        let plan = Plan::new(&[shape], Duration::from_secs(1), 0.0, 0.0, 1);
        let judge = Judge::new(1, Instant::now(), &plan);
        let asked = judge.joining(0, 3);
        for member in 0..3 {
            let id = MemberId { group: 0, member };
            judge.joined(id, asked, 1);
            judge.passed(id, 1..2);
        }
        let mut saboteur = how.map(Saboteur::new);
        for (due, seq) in plan.messages(10.0).zip(2..) {
            let bytes = judge.send(due).encode(128);
            judge.acknowledged(due, seq);
            for member in 0..3 {
                let deliveries = match &mut saboteur {
                    Some(saboteur) if member == 1 => saboteur.pass((seq, bytes.clone())),
                    _ => vec![(seq, bytes.clone())],
                };
                for (seq, bytes) in deliveries {
                    judge.delivered(MemberId { group: 0, member }, seq, &bytes);
                }
            }
        }
        let mut report = Report::default();
        report.judge(judge.finish());
        report
    }

    #[test]
    fn a_run_without_sabotage_passes() {
        let report = run(None);
        assert!(report.passed, "{report}");
        assert_eq!((report.acknowledged, report.deliveries), (10, 30));
    }

    #[test]
    fn a_run_with_any_sabotage_fails_for_what_was_done() {
        for &how in Sabotage::value_variants() {
            let report = run(Some(how));
            assert!(!report.passed, "{how:?}: {report}");
            let counts = [report.lost, report.duplicated, report.reordered, report.corrupted];
            let mut expected = [0; 4];
            expected[how as usize] = 1;
            assert_eq!(counts, expected, "lost, doubled, out of order, corrupt after {how:?}");
        }
    }
}
