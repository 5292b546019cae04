//! Every rule is broken once, and found.

use std::time::Duration;

use bytes::Bytes;
use shoal_node::store::{Epoch, GroupState};
use shoal_protocol::Code;
use wire::{MemberChange, Role, member_change::Kind, record::Body};

use super::*;
use crate::sim::chronicle::Outcome;

const ANN: AppId = AppId(0);
const BOB: AppId = AppId(1);

fn user(app: AppId) -> UserId {
    UserId::new(["ann", "bob"][app.0 as usize]).unwrap()
}

fn group() -> GroupId {
    GroupId::named("g")
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

fn read(payload: &[u8]) -> Option<MessageId> {
    payload.try_into().ok().map(|bytes| MessageId(u64::from_be_bytes(bytes)))
}

fn message(at: u64, app: AppId, id: u64) -> wire::Record {
    let payload = Bytes::copy_from_slice(&id.to_be_bytes());
    wire::Record {
        seq: at,
        time_ms: 5,
        author: Some(wire::Author { user: user(app).to_string(), ..Default::default() }),
        body: Some(Body::Message(wire::Message { payload, ..Default::default() })),
        ..Default::default()
    }
}

fn change(at: u64, app: AppId, kind: Kind) -> wire::Record {
    let change = MemberChange {
        user: user(app).to_string(),
        kind: kind.into(),
        role: Role::Member.into(),
        until_ms: if kind == Kind::Muted { 100 } else { 0 },
    };
    let changes = vec![change];
    wire::Record { seq: at, body: Some(Body::Members(wire::MemberChanges { changes })), ..Default::default() }
}

/// A run, with a store in which ann and bob joined at 1 and 2.
struct Run {
    events: Vec<(Duration, Event)>,
    records: Vec<wire::Record>,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            events: Vec::new(),
            records: vec![change(1, ANN, Kind::Joined), change(2, BOB, Kind::Joined)],
        };
        run.tell(Event::Followed { app: BOB, group: group(), from: None });
        run.deliver(2);
        run
    }

    fn tell(&mut self, event: Event) {
        self.events.push((Duration::ZERO, event));
    }

    fn write(&mut self, record: wire::Record) {
        self.records.push(record);
    }

    fn deliver(&mut self, at: usize) {
        let record = self.records[at - 1].clone();
        self.tell(Event::Delivered { app: BOB, group: group(), record });
    }

    /// Ann sends, it is written at the tail, acknowledged and delivered.
    fn publish(&mut self, id: u64) {
        let at = self.records.len() + 1;
        self.tell(Event::Sent { app: ANN, group: group(), message: MessageId(id) });
        self.write(message(at as u64, ANN, id));
        self.settle(id, Outcome::Committed(seq(at as u64)));
        self.deliver(at);
    }

    fn settle(&mut self, id: u64, outcome: Outcome) {
        self.tell(Event::Settled { app: ANN, message: MessageId(id), outcome });
    }

    fn holdings(&self) -> Holdings {
        let mut holdings = Holdings::default();
        let mut fold = membership::Fold::default();
        self.records.iter().for_each(|record| fold.take(record));
        let members = [ANN, BOB].into_iter().filter_map(|app| {
            let joined = fold.joined(&user(app))?;
            let (user, role) = (user(app), Role::Member);
            Some(MemberRow { user, role, muted_until_ms: 0, banned: false, joined, changed: joined })
        });
        let members: Vec<_> = members.collect();
        for app in [ANN, BOB] {
            let told = self.records.iter().filter(|record| membership::moves(record, &user(app)).is_some());
            let notices: Vec<_> = told.zip(1..).map(|(record, at)| notice(at, record.seq)).collect();
            holdings.groups.insert(GroupId::own(&user(app)), holding(notices, Vec::new()));
        }
        holdings.groups.insert(group(), holding(self.records.clone(), members));
        holdings
    }

    fn findings(&self) -> Vec<String> {
        self.findings_with(&self.holdings())
    }

    fn findings_with(&self, holdings: &Holdings) -> Vec<String> {
        let users = [ANN, BOB].map(|app| (app, user(app))).into();
        let cast = Cast { users, sessions_move: false, read };
        let mut events = self.events.clone();
        events.extend(self.followed_elsewhere(holdings));
        judge(&Case { cast: &cast, events: &events, holdings }).told().to_vec()
    }

    /// What these tests are not about: Ann follows the group, and both follow their own sequences.
    fn followed_elsewhere(&self, holdings: &Holdings) -> Vec<(Duration, Event)> {
        let follows = [(ANN, group()), (ANN, GroupId::own(&user(ANN))), (BOB, GroupId::own(&user(BOB)))];
        let followed = follows.into_iter().filter_map(|(app, group)| {
            let from = Some(holdings.groups.get(&group)?.tail());
            Some((Duration::ZERO, Event::Followed { app, group, from }))
        });
        followed.collect()
    }

    /// Exactly what is wrong is found.
    fn assert_found(&self, what: &str) {
        let findings = self.findings();
        assert!(findings.iter().any(|finding| finding.contains(what)), "{what:?} in {findings:?}");
    }
}

fn notice(at: u64, group_seq: u64) -> wire::Record {
    let what = Some(wire::notice::What::Joined(wire::notice::Joined::default()));
    let notice = wire::Notice { group: group().to_wire(), what, group_seq };
    wire::Record { seq: at, body: Some(Body::Notice(notice)), ..Default::default() }
}

fn holding(records: Vec<wire::Record>, members: Vec<MemberRow>) -> Holding {
    let mut state = GroupState::new(0);
    state.members = members.len() as u64;
    state.layout = records.iter().rev().find_map(|record| match &record.body {
        Some(Body::Layout(layout)) => Some(Box::new(layout.clone())),
        _ => None,
    });
    let tail = Seq::FIRST.advance(records.len() as u64);
    Holding { row: GroupRow { epoch: Epoch(1), tail, incarnation: 1, state }, records, members }
}

#[test]
fn a_run_that_went_well_has_no_findings() {
    let mut run = Run::new();
    run.publish(1);
    run.publish(2);
    assert_eq!(run.findings(), [""; 0]);
}

#[test]
fn an_acknowledged_message_that_is_not_there_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.tell(Event::Sent { app: ANN, group: group(), message: MessageId(2) });
    run.settle(2, Outcome::Committed(seq(9)));
    run.assert_found("not there");
}

#[test]
fn a_receipt_for_another_place_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.settle(1, Outcome::Committed(seq(2)));
    run.assert_found("where it is not");
}

#[test]
fn a_message_that_stands_twice_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.write(message(4, ANN, 1));
    run.deliver(4);
    run.assert_found("is at");
}

#[test]
fn a_refused_message_that_stands_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.settle(1, Outcome::Refused(Code::Muted));
    run.assert_found("was refused");
}

#[test]
fn a_message_that_nobody_sent_is_found() {
    let mut run = Run::new();
    run.write(message(3, ANN, 7));
    run.deliver(3);
    run.assert_found("nobody sent");
}

#[test]
fn a_message_under_another_name_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.records[2].author.as_mut().unwrap().user = "bob".into();
    run.assert_found("stands for");
}

#[test]
fn a_message_that_overtakes_one_of_its_sender_is_found() {
    let mut run = Run::new();
    run.tell(Event::Sent { app: ANN, group: group(), message: MessageId(1) });
    run.publish(2);
    run.write(message(4, ANN, 1));
    run.deliver(4);
    run.assert_found("then");
}

#[test]
fn a_receiver_that_misses_one_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.publish(2);
    run.events.remove(4);
    run.assert_found("and wanted 3");
}

#[test]
fn a_receiver_that_gets_one_again_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.deliver(3);
    run.assert_found("and wanted 4");
}

#[test]
fn a_receiver_that_gets_other_bytes_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.records[2].time_ms = 6;
    run.assert_found("others");
}

#[test]
fn a_receiver_that_still_waits_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.events.pop();
    run.assert_found("waits for");
}

#[test]
fn a_record_after_ones_own_removal_is_found() {
    let mut run = Run::new();
    run.write(change(3, BOB, Kind::Removed));
    run.deliver(3);
    assert_eq!(run.findings(), [""; 0], "one's own removal is the last");
    run.publish(1);
    run.assert_found("but left it at 3");
}

#[test]
fn a_start_that_is_not_ones_join_is_found() {
    let mut run = Run::new();
    run.publish(1);
    run.events.remove(1);
    run.assert_found("which is not its join");
}

#[test]
fn who_joins_again_skips_to_the_new_join_and_nowhere_else() {
    let mut run = Run::new();
    for (at, kind) in [(3, Kind::Removed), (4, Kind::Added)] {
        run.write(change(at, BOB, kind));
    }
    run.tell(Event::Skipped { app: BOB, group: group(), from: seq(3), to: seq(4) });
    run.deliver(4);
    assert_eq!(run.findings(), [""; 0]);
    let mut run = Run::new();
    run.publish(1);
    run.tell(Event::Skipped { app: BOB, group: group(), from: seq(4), to: seq(5) });
    run.assert_found("skipped 4 to 5");
}

/// The layouts of a plan that comes to nothing.
fn begun_and_undone() -> [wire::Layout; 2] {
    let plan = wire::Plan { number: 1, ..Default::default() };
    let end = wire::PlanEnd { number: 1, ..Default::default() };
    [
        wire::Layout { version: 1, plan: Some(plan), ..Default::default() },
        wire::Layout { version: 2, last: Some(end), ..Default::default() },
    ]
}

#[test]
fn silent_records_are_passed_over_in_their_place_and_no_others() {
    let told = |from, to| Event::PassedOver { app: BOB, group: group(), from: seq(from), to: seq(to) };
    let run_with_two = || {
        let mut run = Run::new();
        for (at, layout) in (3..).zip(begun_and_undone()) {
            run.write(wire::Record {
                seq: at,
                silent: true,
                body: Some(Body::Layout(layout)),
                ..Default::default()
            });
        }
        run
    };
    let mut run = run_with_two();
    run.tell(told(3, 5));
    run.publish(1);
    assert_eq!(run.findings(), [""; 0]);
    run.tell(told(5, 6));
    run.assert_found("passed over 5 ");
    let mut run = run_with_two();
    run.tell(told(4, 5));
    run.assert_found("and wanted 3");
    let mut run = run_with_two();
    run.deliver(3);
    run.assert_found("which is silent");
    let mut run = run_with_two();
    run.tell(told(3, 5));
    run.publish(1);
    run.events.pop();
    run.tell(told(5, 6));
    run.assert_found("which is not silent");
}

#[test]
fn a_mute_that_members_are_not_told_of_is_found() {
    let mut run = Run::new();
    run.write(wire::Record { silent: true, ..change(3, ANN, Kind::Muted) });
    run.assert_found("the record at 3 is kept from members");
}

#[test]
fn a_silent_removal_of_ones_own_is_the_last() {
    let mut run = Run::new();
    run.write(wire::Record { silent: true, ..change(3, BOB, Kind::Removed) });
    run.tell(Event::PassedOver { app: BOB, group: group(), from: seq(3), to: seq(4) });
    assert_eq!(run.findings(), [""; 0]);
    run.publish(1);
    run.assert_found("but left it at 3");
}

#[test]
fn a_message_of_a_stranger_and_one_of_a_muted_member_are_found() {
    let mut run = Run::new();
    run.write(change(3, ANN, Kind::Muted));
    run.deliver(3);
    run.publish(1);
    run.assert_found("is muted");
    let mut run = Run::new();
    run.write(change(3, ANN, Kind::Left));
    run.deliver(3);
    run.publish(1);
    run.assert_found("is not a member");
}

#[test]
fn a_table_that_is_not_the_fold_is_found() {
    let run = Run::new();
    let mut holdings = run.holdings();
    holdings.groups.get_mut(&group()).unwrap().members.pop();
    assert!(run.findings_with(&holdings)[0].contains("the table says"));
}

#[test]
fn a_member_who_was_not_told_is_found() {
    let run = Run::new();
    let mut holdings = run.holdings();
    holdings.groups.remove(&GroupId::own(&user(BOB)));
    assert!(run.findings_with(&holdings)[0].contains("bob was told"));
}

#[test]
fn a_hole_and_a_row_with_another_tail_are_found() {
    let mut run = Run::new();
    run.publish(1);
    let mut holdings = run.holdings();
    holdings.groups.get_mut(&group()).unwrap().row.tail = seq(9);
    assert!(run.findings_with(&holdings)[0].contains("its row says"));
    run.records.remove(1);
    run.assert_found("says it is at");
}

#[test]
fn features_that_the_records_do_not_say_are_found() {
    let feature = wire::Feature {
        name: "composer".into(),
        value: Some("new".into()),
        slots: Some(wire::feature::Slots::Percent(10)),
        otherwise: None,
    };
    let mut run = Run::new();
    let body = Some(Body::Feature(feature.clone()));
    run.write(wire::Record { seq: 3, body, ..Default::default() });
    run.deliver(3);
    run.assert_found("its row has the features");
    let mut holdings = run.holdings();
    let features = wire::Features { changed_seq: 3, features: vec![feature] };
    holdings.groups.get_mut(&group()).unwrap().row.state.features = Some(Box::new(features.clone()));
    assert_eq!(run.findings_with(&holdings), [""; 0]);
    for (changed_seq, is_found) in [(3, false), (2, true)] {
        let features = wire::Features { changed_seq, ..features.clone() };
        run.tell(Event::Features { app: BOB, group: group(), features });
        assert_eq!(run.findings_with(&holdings).len(), usize::from(is_found), "at {changed_seq}");
    }
}

#[test]
fn epochs_that_stand_and_tails_and_cursors_that_go_back_are_found() {
    let activated = |epoch, tail| Event::Activated { group: group(), epoch, tail: seq(tail) };
    let cursors = |read| Event::Cursors { app: BOB, group: group(), read: Some(seq(read)), delivered: None };
    for (events, found) in [
        ([activated(1, 3), activated(1, 3)], "went from epoch"),
        ([activated(1, 3), activated(2, 2)], "tail went back"),
        ([cursors(4), cursors(3)], "was told"),
        (
            [activated(2, 3), Event::Appended { group: group(), epoch: 1, from: seq(3), count: 1 }],
            "under 1 of 2",
        ),
        (
            [activated(1, 3), Event::Appended { group: group(), epoch: 1, from: seq(2), count: 1 }],
            "was written at",
        ),
    ] {
        let mut run = Run::new();
        events.into_iter().for_each(|event| run.tell(event));
        run.assert_found(found);
    }
}
