use proptest::prelude::*;

use super::*;

const MEMBERS: u32 = 3;

/// What happens to a group, as the checker is told it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Sent(MessageId),
    Acknowledged(MessageId, u64),
    Refused(MessageId),
    Delivered(u32, u64, Content),
    Passed(u32, u64),
}

fn message(sender: u32, number: u64) -> MessageId {
    MessageId { sender, number }
}

fn whole(message: MessageId) -> Content {
    Content::Whole { message, checksum: u64::from(message.sender) << 32 | message.number }
}

/// Four messages of two senders at the places 2, 3, 5 and 6 (4 is no message), to all.
fn order() -> Vec<(u64, MessageId)> {
    vec![(2, message(0, 1)), (3, message(1, 1)), (5, message(0, 2)), (6, message(1, 2))]
}

fn judge(events: impl IntoIterator<Item = Event>) -> Verdict {
    let mut checker = GroupChecker::new("group", MEMBERS);
    for event in events {
        match event {
            Event::Sent(message) => checker.sent(message),
            Event::Acknowledged(message, seq) => checker.acknowledged(message, seq),
            Event::Refused(message) => checker.refused(message),
            Event::Delivered(receiver, seq, content) => checker.delivered(receiver, seq, content),
            Event::Passed(receiver, seq) => checker.passed(receiver, seq),
        }
    }
    checker.finish()
}

/// Everything sent and acknowledged, then these deliveries.
fn judge_deliveries(deliveries: &[(u32, u64, Content)]) -> Verdict {
    let sent = order().into_iter().map(|(_, message)| Event::Sent(message));
    let acknowledged = order().into_iter().map(|(seq, message)| Event::Acknowledged(message, seq));
    let mut passed = [false; MEMBERS as usize];
    let delivered = deliveries.iter().flat_map(|&(receiver, seq, content)| {
        // The record at 4, which is no message, comes before the first delivery above it.
        let passes = seq > 4 && !std::mem::replace(&mut passed[receiver as usize], true);
        let other = passes.then_some(Event::Passed(receiver, 4));
        other.into_iter().chain([Event::Delivered(receiver, seq, content)])
    });
    judge(sent.chain(acknowledged).chain(delivered))
}

fn good_deliveries() -> Vec<(u32, u64, Content)> {
    (0..MEMBERS)
        .flat_map(|receiver| order().into_iter().map(move |(seq, message)| (receiver, seq, whole(message))))
        .collect()
}

#[test]
fn a_good_run_is_clean() {
    let verdict = judge_deliveries(&good_deliveries());
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.published, verdict.acknowledged, verdict.deliveries), (4, 4, 12));
}

#[test]
fn any_dropped_delivery_is_lost() {
    for at in 0..good_deliveries().len() {
        let mut deliveries = good_deliveries();
        deliveries.remove(at);
        assert_eq!(judge_deliveries(&deliveries).lost, 1, "without delivery {at}");
    }
}

#[test]
fn a_place_passed_over_by_everybody_is_a_hole() {
    let verdict = judge((0..MEMBERS).flat_map(|receiver| [2, 3, 5].map(|seq| Event::Passed(receiver, seq))));
    assert_eq!(verdict.holes, u64::from(MEMBERS));
    assert!(!verdict.is_clean());
}

#[test]
fn a_message_that_nobody_got_is_lost_for_all() {
    let deliveries: Vec<_> = good_deliveries().into_iter().filter(|&(_, seq, _)| seq != 6).collect();
    assert_eq!(judge_deliveries(&deliveries).lost, u64::from(MEMBERS));
}

#[test]
fn any_doubled_delivery_is_found() {
    for at in 0..good_deliveries().len() {
        let mut deliveries = good_deliveries();
        deliveries.insert(at, deliveries[at]);
        assert_eq!(judge_deliveries(&deliveries).duplicated, 1, "delivery {at} twice");
        let mut deliveries = good_deliveries();
        deliveries.push(deliveries[at]);
        assert_eq!(judge_deliveries(&deliveries).duplicated, 1, "delivery {at} again at the end");
    }
}

#[test]
fn any_two_swapped_deliveries_are_found() {
    for at in 1..good_deliveries().len() {
        let mut deliveries = good_deliveries();
        if deliveries[at].0 != deliveries[at - 1].0 {
            continue;
        }
        deliveries.swap(at - 1, at);
        let verdict = judge_deliveries(&deliveries);
        assert_eq!((verdict.reordered, verdict.lost), (1, 0), "deliveries {at} and the one before");
    }
}

#[test]
fn two_receivers_with_different_messages_at_one_place_are_found() {
    let mut deliveries = good_deliveries();
    // The last receiver gets two messages in the other order, under the places' own numbers.
    let first = deliveries.len() - 4;
    (deliveries[first].2, deliveries[first + 1].2) = (deliveries[first + 1].2, deliveries[first].2);
    assert_eq!(judge_deliveries(&deliveries).reordered, 2);
}

#[test]
fn corrupt_and_altered_bytes_are_found() {
    for at in 0..good_deliveries().len() {
        let mut deliveries = good_deliveries();
        deliveries[at].2 = Content::Corrupt;
        let verdict = judge_deliveries(&deliveries);
        assert_eq!((verdict.corrupted, verdict.lost), (1, 0), "delivery {at}");
    }
    let mut deliveries = good_deliveries();
    let Content::Whole { checksum, .. } = &mut deliveries[7].2 else { unreachable!() };
    *checksum ^= 1;
    assert_eq!(judge_deliveries(&deliveries).corrupted, 1);
}

#[test]
fn a_message_with_two_places_is_doubled() {
    let mut deliveries = good_deliveries();
    deliveries.extend((0..MEMBERS).map(|receiver| (receiver, 7, whole(message(0, 1)))));
    assert_eq!(judge_deliveries(&deliveries).duplicated, 1);
}

#[test]
fn a_sender_whose_messages_changed_places_is_found() {
    let sent = [message(0, 1), message(0, 2)];
    let places = [(1, message(0, 2)), (2, message(0, 1))];
    let verdict =
        judge(sent.into_iter().map(Event::Sent).chain(places.into_iter().flat_map(|(seq, message)| {
            (0..MEMBERS).map(move |receiver| Event::Delivered(receiver, seq, whole(message)))
        })));
    assert_eq!(verdict.reordered, 1);
}

#[test]
fn what_was_refused_or_never_sent_is_a_phantom() {
    let refused = message(0, 1);
    let everywhere =
        |message| (0..MEMBERS).map(move |receiver| Event::Delivered(receiver, 1, whole(message)));
    let before = [Event::Sent(refused), Event::Refused(refused)].into_iter().chain(everywhere(refused));
    assert_eq!(judge(before).phantoms, 1);
    let after =
        [Event::Sent(refused)].into_iter().chain(everywhere(refused)).chain([Event::Refused(refused)]);
    assert_eq!(judge(after).phantoms, 1);
    assert_eq!(judge(everywhere(message(2, 9))).phantoms, u64::from(MEMBERS));
    assert_eq!(judge(everywhere(message(9, 1))).phantoms, u64::from(MEMBERS));
}

#[test]
fn a_receipt_for_another_place_is_found() {
    let sent = message(0, 1);
    let deliveries = (0..MEMBERS).map(|receiver| Event::Delivered(receiver, 1, whole(sent)));
    for acknowledged_first in [true, false] {
        let acknowledged = Event::Acknowledged(sent, 2);
        let mut events: Vec<_> = deliveries.clone().collect();
        events.insert(if acknowledged_first { 0 } else { events.len() }, acknowledged);
        let verdict = judge([Event::Sent(sent)].into_iter().chain(events));
        assert_eq!(verdict.lost, u64::from(MEMBERS), "receipt first: {acknowledged_first}");
    }
}

#[test]
fn a_message_without_receipt_may_arrive_or_not_but_never_at_some_only() {
    let sent = message(0, 1);
    let to = |receivers: u32| {
        let deliveries = (0..receivers).map(|receiver| Event::Delivered(receiver, 1, whole(sent)));
        judge([Event::Sent(sent)].into_iter().chain(deliveries))
    };
    assert!(to(0).is_clean());
    assert!(to(MEMBERS).is_clean());
    assert_eq!(to(1).lost, 2);
}

#[test]
fn an_unknown_outcome_is_not_waited_for() {
    let mut checker = GroupChecker::new("group", MEMBERS);
    checker.sent(message(0, 1));
    checker.unknown(message(0, 1));
    assert_eq!(checker.outstanding(), (0, 0));
    checker.acknowledged(message(0, 1), 1);
    assert_eq!(checker.outstanding(), (0, 0));
}

#[test]
fn outstanding_says_what_is_to_come_and_nothing_is_kept_after() {
    let mut checker = GroupChecker::new("group", MEMBERS);
    checker.sent(message(0, 1));
    assert_eq!(checker.outstanding(), (0, 1));
    checker.acknowledged(message(0, 1), 1);
    assert_eq!(checker.outstanding(), (3, 0));
    for receiver in 0..MEMBERS {
        checker.delivered(receiver, 1, whole(message(0, 1)));
    }
    assert_eq!(checker.outstanding(), (0, 0));
    assert!(checker.order.is_empty());
    assert_eq!(checker.senders[0].unconfirmed().count(), 0);
}

/// A history of one group: messages sent, numbered in some interleaving, with receipts and
/// deliveries in any order that keeps each receiver's and comes after the sending.
fn history() -> impl Strategy<Value = Vec<Event>> {
    let steps = prop::collection::vec((0..MEMBERS, any::<u64>()), 1..40);
    (steps, any::<u64>()).prop_map(|(sends, seed)| {
        let mut numbers = [0_u64; MEMBERS as usize];
        // One queue for the receipts and one for each receiver; what is in each keeps its order.
        let mut queues = vec![Vec::new(); MEMBERS as usize + 1];
        let mut events = Vec::new();
        let mut dice = seed;
        let mut seq = seed % 5;
        for (sender, roll) in sends {
            numbers[sender as usize] += 1;
            let message = message(sender, numbers[sender as usize]);
            seq += 1;
            if roll % 3 == 0 {
                (1..=MEMBERS).for_each(|of| queues[of as usize].push(Event::Passed(of - 1, seq)));
                seq += 1;
            }
            events.push(Event::Sent(message));
            if roll % 8 != 0 {
                queues[0].push(Event::Acknowledged(message, seq));
            }
            for receiver in 0..MEMBERS {
                queues[receiver as usize + 1].push(Event::Delivered(receiver, seq, whole(message)));
            }
            drain_some(&mut queues, &mut events, &mut dice, 3);
        }
        drain_some(&mut queues, &mut events, &mut dice, usize::MAX);
        events
    })
}

fn drain_some(queues: &mut [Vec<Event>], events: &mut Vec<Event>, dice: &mut u64, most: usize) {
    for _ in 0..most {
        if queues.iter().all(Vec::is_empty) {
            return;
        }
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let queue = &mut queues[(*dice >> 33) as usize % (MEMBERS as usize + 1)];
        if !queue.is_empty() {
            events.push(queue.remove(0));
        }
    }
}

proptest! {
    #[test]
    fn any_history_without_a_fault_is_clean(events in history()) {
        let verdict = judge(events);
        prop_assert!(verdict.is_clean(), "{verdict:?}");
    }

    #[test]
    fn one_fault_in_any_history_is_found(events in history(), at in any::<prop::sample::Index>(), fault in 0..3) {
        let deliveries: Vec<_> =
            (0..events.len()).filter(|&at| matches!(events[at], Event::Delivered(..))).collect();
        let at = deliveries[at.index(deliveries.len())];
        let Event::Delivered(receiver, seq, _) = events[at] else { unreachable!() };
        let mut events = events;
        match fault {
            0 => { events.remove(at); }
            1 => events.push(events[at]),
            _ => events[at] = Event::Delivered(receiver, seq, Content::Corrupt),
        }
        prop_assert!(!judge(events).is_clean());
    }
}
