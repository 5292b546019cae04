use bytes::Bytes;
use shoal_protocol::{Code, Refusal};

use super::*;
use crate::core::lane::Failed;

const NOW: Duration = Duration::from_secs(100);

struct Bench {
    outbox: Outbox,
    group: GroupId,
    settled: Vec<Settled>,
}

impl Bench {
    fn new(incarnation: u64) -> Self {
        let mut outbox = Outbox::new();
        outbox.welcomed(Incarnation(incarnation), &wire::Limits::default());
        Self { outbox, group: GroupId::named("g"), settled: Vec::new() }
    }

    fn push(&mut self, text: &'static str) -> Ticket {
        self.outbox.push(self.group, message(text))
    }

    /// What goes on the wire now: (incarnation, number, text).
    fn sent(&mut self, now: Duration) -> Vec<(u64, u64, String)> {
        std::iter::from_fn(|| self.outbox.send(now, &mut self.settled))
            .map(|publish| {
                let text = publish.message.unwrap().payload;
                (publish.incarnation, publish.number, String::from_utf8(text.to_vec()).unwrap())
            })
            .collect()
    }

    fn answer(&mut self, incarnation: u64, number: u64, outcome: wire::receipt::Outcome) -> Vec<Settled> {
        let group = self.group.to_wire();
        let receipt = wire::Receipt { group, incarnation, number, outcome: Some(outcome) };
        self.outbox.receipt(receipt, NOW, 0.0, &mut self.settled).unwrap();
        std::mem::take(&mut self.settled)
    }
}

fn message(text: &'static str) -> wire::Message {
    wire::Message { payload: Bytes::from_static(text.as_bytes()), ..Default::default() }
}

fn committed(seq: u64) -> wire::receipt::Outcome {
    wire::receipt::Outcome::Committed(wire::Committed { seq })
}

fn refused(code: Code, consumed: bool, retry_after_ms: u32) -> wire::receipt::Outcome {
    let why = Refusal { code, reason: String::new(), retry_after_ms };
    wire::receipt::Outcome::Refused(wire::Refused { why: Some(why.into()), consumed, succeeded_by: 0 })
}

fn out_of_order(expected: u64) -> wire::receipt::Outcome {
    wire::receipt::Outcome::OutOfOrder(wire::OutOfOrder { expected })
}

fn numbers(sent: &[(u64, u64, String)]) -> Vec<(u64, u64)> {
    sent.iter().map(|(incarnation, number, _)| (*incarnation, *number)).collect()
}

#[test]
fn messages_are_pipelined_with_numbers_from_one() {
    let mut bench = Bench::new(7);
    for text in ["a", "b", "c"] {
        bench.push(text);
    }
    assert_eq!(numbers(&bench.sent(NOW)), [(7, 1), (7, 2), (7, 3)]);
    assert_eq!(bench.answer(7, 1, committed(10))[0].outcome.as_ref().unwrap().get(), 10);
    assert!(bench.sent(NOW).is_empty());
}

#[test]
fn no_more_than_the_window_is_unanswered() {
    let mut bench = Bench::new(7);
    bench.outbox.welcomed(Incarnation(8), &wire::Limits { publish_window: 3, ..Default::default() });
    for _ in 0..5 {
        bench.push("x");
    }
    assert_eq!(bench.sent(NOW).len(), 3);
    bench.answer(8, 1, committed(1));
    assert_eq!(numbers(&bench.sent(NOW)), [(8, 4)]);
}

#[test]
fn a_refusal_for_a_while_keeps_the_order_and_the_numbers() {
    let mut bench = Bench::new(7);
    for text in ["a", "b", "c"] {
        bench.push(text);
    }
    bench.sent(NOW);
    assert!(bench.answer(7, 1, refused(Code::TooFast, false, 400)).is_empty());
    bench.push("d");
    assert!(bench.sent(NOW).is_empty(), "answers to the first attempt are still to come");
    bench.answer(7, 2, out_of_order(1));
    bench.answer(7, 3, out_of_order(1));
    assert!(bench.sent(NOW).is_empty(), "the node said when");
    assert_eq!(bench.outbox.next_at(NOW), Some(NOW + Duration::from_millis(400)));
    let sent = bench.sent(NOW + Duration::from_millis(400));
    assert_eq!(numbers(&sent), [(7, 1), (7, 2), (7, 3), (7, 4)]);
    assert_eq!(sent[0].2, "a");
}

/// The third came to the home before the first did, by another way, and its answer is late.
#[test]
fn an_answer_that_was_overtaken_gives_nothing_another_number() {
    let mut bench = Bench::new(7);
    for text in ["a", "b", "c"] {
        bench.push(text);
    }
    bench.sent(NOW);
    bench.answer(7, 1, committed(10));
    assert!(bench.answer(7, 3, out_of_order(1)).is_empty());
    assert!(bench.sent(NOW).is_empty(), "the second may be committed");
    assert_eq!(bench.answer(7, 2, committed(11)).len(), 1);
    assert_eq!(numbers(&bench.sent(NOW)), [(7, 3)]);
}

#[test]
fn what_was_in_flight_goes_again_after_a_reconnect_under_its_numbers() {
    let mut bench = Bench::new(7);
    bench.push("a");
    bench.push("b");
    bench.sent(NOW);
    bench.outbox.disconnected();
    bench.outbox.welcomed(Incarnation(8), &wire::Limits::default());
    bench.push("c");
    assert_eq!(numbers(&bench.sent(NOW)), [(7, 1), (7, 2), (7, 3)]);
}

#[test]
fn a_refusal_that_used_up_its_number_fails_that_message_alone() {
    let mut bench = Bench::new(7);
    let muted = bench.push("a");
    bench.push("b");
    bench.sent(NOW);
    let settled = bench.answer(7, 1, refused(Code::Muted, true, 0));
    assert_eq!(settled[0].ticket, muted);
    assert!(matches!(&settled[0].outcome, Err(Failed::Refused(why)) if why.code == Code::Muted));
    assert_eq!(bench.answer(7, 2, committed(1)).len(), 1);
}

#[test]
fn who_is_no_member_fails_the_queue_and_begins_anew_under_another_incarnation() {
    let mut bench = Bench::new(7);
    for text in ["a", "b", "c"] {
        bench.push(text);
    }
    bench.sent(NOW);
    bench.answer(7, 1, committed(1));
    let settled = bench.answer(7, 2, refused(Code::NotMember, false, 0));
    assert_eq!(settled.len(), 2, "the one that was refused and the one behind it");
    bench.push("d");
    assert!(bench.outbox.wants_incarnation());
    assert!(bench.answer(7, 3, refused(Code::NotMember, false, 0)).is_empty(), "it has failed before");
    assert!(bench.sent(NOW).is_empty());
    bench.outbox.issue(Incarnation(9));
    assert_eq!(numbers(&bench.sent(NOW)), [(9, 1)]);
}

/// It would count if its user became a member again.
#[test]
fn of_what_a_copy_may_be_on_its_way_nobody_says_that_it_was_refused() {
    let no_member = || refused(Code::NotMember, false, 0);
    for (before, is_known) in [
        (refused(Code::TooFast, false, 5), true),
        (refused(Code::Busy, false, 0), false),
        (refused(Code::NotHome, false, 0), false),
    ] {
        let mut bench = Bench::new(7);
        bench.push("a");
        bench.sent(NOW);
        bench.answer(7, 1, before);
        bench.sent(NOW + Duration::from_secs(9));
        let settled = bench.answer(7, 1, no_member());
        assert_eq!(matches!(settled[0].outcome, Err(Failed::Refused(_))), is_known, "{settled:?}");
    }
    let mut bench = Bench::new(7);
    bench.push("a");
    bench.sent(NOW);
    bench.outbox.disconnected();
    bench.sent(NOW);
    let settled = bench.answer(7, 1, no_member());
    assert!(matches!(settled[0].outcome, Err(Failed::Unknown(_))), "{settled:?}");
}

#[test]
fn an_expired_incarnation_fails_what_may_have_been_sent_and_renumbers_the_rest() {
    let mut bench = Bench::new(7);
    let uncertain = bench.push("a");
    bench.sent(NOW);
    bench.outbox.disconnected();
    bench.push("b");
    bench.sent(NOW);
    bench.push("c");
    let settled = bench.answer(7, 1, refused(Code::IncarnationExpired, false, 0));
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].ticket, uncertain);
    assert!(matches!(settled[0].outcome, Err(Failed::Unknown(_))));
    bench.answer(7, 2, refused(Code::IncarnationExpired, false, 0));
    bench.outbox.issue(Incarnation(8));
    let sent = bench.sent(NOW);
    assert_eq!(numbers(&sent), [(8, 1), (8, 2)]);
    assert_eq!((sent[0].2.as_str(), sent[1].2.as_str()), ("b", "c"));
}

#[test]
fn a_node_that_expects_a_number_with_an_answer_has_forgotten_the_sender() {
    let mut bench = Bench::new(7);
    bench.push("a");
    bench.sent(NOW);
    bench.answer(7, 1, committed(1));
    bench.push("b");
    bench.sent(NOW);
    assert!(bench.answer(7, 2, out_of_order(1)).is_empty());
    bench.outbox.issue(Incarnation(8));
    assert_eq!(numbers(&bench.sent(NOW)), [(8, 1)]);
}

#[test]
fn a_message_that_can_never_be_sent_holds_up_nothing_behind_it() {
    let mut bench = Bench::new(7);
    bench.push("a");
    bench.push("b");
    bench.sent(NOW);
    let settled = bench.answer(7, 1, refused(Code::BadRequest, false, 0));
    assert_eq!(settled.len(), 1);
    bench.outbox.issue(Incarnation(8));
    let sent = bench.sent(NOW);
    assert_eq!((numbers(&sent), sent[0].2.as_str()), (vec![(8, 1)], "b"));
}

#[test]
fn a_message_above_the_nodes_limit_fails_alone_once_those_before_it_are_answered() {
    let mut bench = Bench::new(7);
    for text in ["a", "too large", "b"] {
        bench.push(text);
    }
    bench.outbox.welcomed(Incarnation(8), &wire::Limits { payload_bytes_max: 4, ..Default::default() });
    assert_eq!(numbers(&bench.sent(NOW)), [(7, 1)]);
    bench.answer(7, 1, committed(1));
    let sent = bench.sent(NOW);
    assert!(
        matches!(&bench.settled[0].outcome, Err(Failed::Refused(why)) if why.code == Code::PayloadTooLarge)
    );
    assert_eq!((numbers(&sent), sent[0].2.as_str()), (vec![(8, 1)], "b"));
}

#[test]
fn a_number_whose_outcome_is_gone_is_unknown_to_the_app() {
    let mut bench = Bench::new(7);
    bench.push("a");
    bench.sent(NOW);
    let settled = bench.answer(7, 1, refused(Code::NumberForgotten, true, 0));
    assert!(matches!(settled[0].outcome, Err(Failed::Unknown(_))));
}

#[test]
fn a_queue_of_an_earlier_run_goes_first_and_new_messages_take_a_fresh_incarnation() {
    let mut bench = Bench::new(7);
    bench.push("a");
    bench.push("b");
    let saved: Vec<_> =
        bench.outbox.queued().map(|(group, place, message)| (group, place, message.clone())).collect();

    let mut next = Bench { outbox: Outbox::new(), group: bench.group, settled: Vec::new() };
    for (group, place, message) in saved {
        next.outbox.restore(group, message, place);
    }
    next.push("c");
    next.outbox.welcomed(Incarnation(8), &wire::Limits::default());
    assert_eq!(numbers(&next.sent(NOW)), [(7, 1), (7, 2)]);
    next.answer(7, 1, committed(1));
    assert!(next.sent(NOW).is_empty(), "the other incarnation waits, or the order would be lost");
    next.answer(7, 2, committed(2));
    assert_eq!(numbers(&next.sent(NOW)), [(8, 1)]);
}

#[test]
fn before_the_first_session_messages_wait_without_numbers() {
    let mut outbox = Outbox::new();
    outbox.push(GroupId::named("g"), message("a"));
    assert!(outbox.send(NOW, &mut Vec::new()).is_none());
    outbox.welcomed(Incarnation(7), &wire::Limits::default());
    assert_eq!(outbox.send(NOW, &mut Vec::new()).unwrap().number, 1);
}

#[test]
fn groups_are_served_in_turn_and_one_that_is_held_back_holds_up_no_other() {
    let mut bench = Bench::new(7);
    let other = GroupId::named("other");
    for _ in 0..2 {
        bench.push("x");
        bench.outbox.push(other, message("y"));
    }
    let texts: Vec<_> = bench.sent(NOW).into_iter().map(|(_, _, text)| text).collect();
    assert!(texts == ["x", "y", "x", "y"] || texts == ["y", "x", "y", "x"], "{texts:?}");
    bench.answer(7, 1, refused(Code::Busy, false, 1000));
    bench.outbox.push(other, message("z"));
    assert_eq!(bench.sent(NOW)[0].2, "z");
}

#[test]
fn a_receipt_without_sense_is_told() {
    let mut bench = Bench::new(7);
    let receipt = wire::Receipt { group: bench.group.to_wire(), incarnation: 7, number: 1, outcome: None };
    assert_eq!(bench.outbox.receipt(receipt, NOW, 0.0, &mut Vec::new()), Err(BadReceipt));
}

#[test]
fn the_oldest_unanswered_message_is_known_by_its_time() {
    let mut bench = Bench::new(7);
    bench.push("a");
    assert_eq!(bench.outbox.unanswered_since(), None);
    bench.sent(NOW);
    bench.push("b");
    bench.sent(NOW + Duration::from_secs(1));
    assert_eq!(bench.outbox.unanswered_since(), Some(NOW));
    bench.answer(7, 1, committed(1));
    assert_eq!(bench.outbox.unanswered_since(), Some(NOW + Duration::from_secs(1)));
}
