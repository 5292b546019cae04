use proptest::prelude::*;

use super::*;

const MEMBERS: u32 = 3;
/// One more, who joins late and leaves early.
const PASSER: u32 = MEMBERS;

/// What happens to a group, as the checker is told it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Joined(u32, u64),
    Left(u32, u64),
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

/// What happens in a group of [`MEMBERS`] that all joined with the record at 1, which is no message.
fn judge(events: impl IntoIterator<Item = Event>) -> Verdict {
    judge_since(1, events)
}

/// The same, joined at `seq`; one more asks to join before anything happens.
fn judge_since(seq: u64, events: impl IntoIterator<Item = Event>) -> Verdict {
    let mut checker = group_since(seq);
    let asked = checker.joining(1);
    for event in events {
        match event {
            Event::Joined(member, seq) => checker.joined(member, asked, seq),
            Event::Left(member, seq) => checker.left(member, Some(seq)),
            Event::Sent(message) => checker.sent(message),
            Event::Acknowledged(message, seq) => checker.acknowledged(message, seq),
            Event::Refused(message) => checker.refused(message),
            Event::Delivered(receiver, seq, content) => checker.delivered(receiver, seq, content),
            Event::Passed(receiver, seq) => checker.passed(receiver, seq..seq + 1),
        }
    }
    checker.finish()
}

fn group_since(seq: u64) -> GroupChecker {
    let mut checker = GroupChecker::new("group");
    let asked = checker.joining(MEMBERS);
    for member in 0..MEMBERS {
        checker.joined(member, asked, seq);
        checker.passed(member, seq..seq + 1);
    }
    checker
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
fn what_stands_for_many_is_had_by_whoever_got_it_and_is_no_message_to_anybody() {
    let mut checker = group_since(1);
    checker.sent(message(0, 1));
    checker.acknowledged(message(0, 1), 9);
    checker.passed(0, 2..9);
    checker.passed(1, 2..5);
    checker.passed(1, 5..9);
    assert_eq!(checker.outstanding(), (10, 0), "one each, and seven more of the third");
    checker.passed(2, 2..9);
    for receiver in 0..2 {
        checker.delivered(receiver, 9, whole(message(0, 1)));
    }
    assert!(checker.so_far().is_clean());
    checker.passed(2, 9..12);
    let verdict = checker.finish();
    assert_eq!((verdict.reordered, verdict.lost), (1, 0), "{verdict:?}");
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
    let places = [(2, message(0, 2)), (3, message(0, 1))];
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
        |message| (0..MEMBERS).map(move |receiver| Event::Delivered(receiver, 2, whole(message)));
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
    let deliveries = (0..MEMBERS).map(|receiver| Event::Delivered(receiver, 2, whole(sent)));
    for acknowledged_first in [true, false] {
        let acknowledged = Event::Acknowledged(sent, 3);
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
        let deliveries = (0..receivers).map(|receiver| Event::Delivered(receiver, 2, whole(sent)));
        judge([Event::Sent(sent)].into_iter().chain(deliveries))
    };
    assert!(to(0).is_clean());
    assert!(to(MEMBERS).is_clean());
    assert_eq!(to(1).lost, 2);
}

#[test]
fn an_unknown_outcome_is_not_waited_for() {
    let mut checker = group_since(1);
    checker.sent(message(0, 1));
    checker.unknown(message(0, 1));
    assert_eq!(checker.outstanding(), (0, 0));
    checker.acknowledged(message(0, 1), 2);
    assert_eq!(checker.outstanding(), (0, 0));
}

#[test]
fn outstanding_says_what_is_to_come_and_nothing_is_kept_after() {
    let mut checker = group_since(1);
    checker.sent(message(0, 1));
    assert_eq!(checker.outstanding(), (0, 1));
    checker.acknowledged(message(0, 1), 2);
    assert_eq!(checker.outstanding(), (3, 0));
    for receiver in 0..MEMBERS {
        assert_eq!((checker.behind(receiver), checker.furthest_behind()), (1, (2, 3)));
        checker.delivered(receiver, 2, whole(message(0, 1)));
    }
    assert_eq!((checker.outstanding(), checker.furthest_behind()), ((0, 0), (3, 3)));
    assert!(checker.order.is_empty());
    assert_eq!(checker.senders[0].unconfirmed().count(), 0);
}

/// One joins with the record at 4 and leaves with the one at 7; the others get everything, before it is
/// known that it has joined.
fn judge_passer(gets: &[u64]) -> Verdict {
    let messages = [2, 3, 5, 6, 8].into_iter().zip((1..).map(|number| message(0, number)));
    let delivered = |receiver, seq| match messages.clone().find(|(at, _)| *at == seq) {
        Some((_, message)) => Event::Delivered(receiver, seq, whole(message)),
        None => Event::Passed(receiver, seq),
    };
    let sent = messages.clone().map(|(_, message)| Event::Sent(message));
    let acknowledged = messages.clone().map(|(seq, message)| Event::Acknowledged(message, seq));
    let others = (0..MEMBERS).flat_map(|receiver| (2..=8).map(move |seq| (receiver, seq)));
    let passer = gets.iter().map(|&seq| delivered(PASSER, seq));
    let before = sent.chain(acknowledged).chain(others.map(|(receiver, seq)| delivered(receiver, seq)));
    judge(before.chain([Event::Joined(PASSER, 4)]).chain(passer).chain([Event::Left(PASSER, 7)]))
}

#[test]
fn who_joins_late_and_leaves_early_is_owed_what_was_said_in_between() {
    assert!(judge_passer(&[4, 5, 6, 7]).is_clean());
    assert!(judge_passer(&[4, 5, 6]).is_clean(), "the record of the leave may come, and need not");
    assert_eq!(judge_passer(&[4, 5, 7]).lost, 1);
    assert_eq!(judge_passer(&[4, 5]).lost, 1);
    assert_eq!(judge_passer(&[]).lost, 2);
    assert_eq!(judge_passer(&[4, 5, 5, 6]).duplicated, 1);
    assert_eq!(judge_passer(&[4, 6, 5]).reordered, 1);
    assert_eq!(judge_passer(&[3, 4, 5, 6]).strays, 1, "said before it joined");
    assert_eq!(judge_passer(&[4, 5, 6, 7, 8]).strays, 1, "said after it left");
    assert_eq!(judge_passer(&[5, 6]).holes, 1, "the record of its own join");
}

#[test]
fn what_a_joining_member_may_need_is_kept_until_it_is_answered() {
    let mut checker = group_since(1);
    let asked = checker.joining(2);
    checker.sent(message(0, 1));
    checker.acknowledged(message(0, 1), 2);
    (0..MEMBERS).for_each(|receiver| checker.delivered(receiver, 2, whole(message(0, 1))));
    assert_eq!(checker.order.len(), 1);
    checker.not_joined(asked);
    assert_eq!(checker.order.len(), 1);
    checker.joined(PASSER, asked, 3);
    assert_eq!(checker.order.len(), 0);
    assert_eq!(checker.outstanding(), (4, 0), "the record of the join is owed to all");
    checker.left(PASSER, None);
    assert_eq!(checker.outstanding(), (3, 0));
}

/// A history of one group: messages sent, numbered in some interleaving, with receipts and
/// deliveries in any order that keeps each receiver's and comes after the sending. One member joins and
/// leaves on the way. With it, where the others had joined.
fn history() -> impl Strategy<Value = (u64, Vec<Event>)> {
    let steps = prop::collection::vec((0..MEMBERS, any::<u64>()), 1..40);
    (steps, any::<u64>(), 0..20_usize, 0..30_usize).prop_map(|(sends, seed, join, stay)| {
        let mut numbers = [0_u64; MEMBERS as usize];
        // One queue for the receipts and one for each receiver; what is in each keeps its order.
        let mut queues = vec![Vec::new(); MEMBERS as usize + 2];
        let mut events = Vec::new();
        let mut dice = seed;
        let joined = 1 + seed % 5;
        let mut seq = joined;
        for (at, (sender, roll)) in sends.into_iter().enumerate() {
            numbers[sender as usize] += 1;
            let message = message(sender, numbers[sender as usize]);
            let stays = (join..join + stay).contains(&at);
            let receivers = if stays { MEMBERS + 1 } else { MEMBERS };
            seq += 1;
            if roll % 3 == 0 || at == join || at == join + stay {
                (0..MEMBERS).for_each(|of| queues[of as usize + 1].push(Event::Passed(of, seq)));
                let passer = &mut queues[PASSER as usize + 1];
                match at {
                    _ if at == join && stays => {
                        passer.extend([Event::Joined(PASSER, seq), Event::Passed(PASSER, seq)]);
                    }
                    _ if at == join + stay && stay > 0 => passer.push(Event::Left(PASSER, seq)),
                    _ if stays => passer.push(Event::Passed(PASSER, seq)),
                    _ => {}
                }
                seq += 1;
            }
            events.push(Event::Sent(message));
            if roll % 8 != 0 {
                queues[0].push(Event::Acknowledged(message, seq));
            }
            for receiver in 0..receivers {
                queues[receiver as usize + 1].push(Event::Delivered(receiver, seq, whole(message)));
            }
            drain_some(&mut queues, &mut events, &mut dice, 3);
        }
        drain_some(&mut queues, &mut events, &mut dice, usize::MAX);
        (joined, events)
    })
}

fn drain_some(queues: &mut [Vec<Event>], events: &mut Vec<Event>, dice: &mut u64, most: usize) {
    for _ in 0..most {
        if queues.iter().all(Vec::is_empty) {
            return;
        }
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (*dice >> 33) as usize % queues.len();
        let queue = &mut queues[at];
        if !queue.is_empty() {
            events.push(queue.remove(0));
        }
    }
}

proptest! {
    #[test]
    fn any_history_without_a_fault_is_clean((joined, events) in history()) {
        let verdict = judge_since(joined, events);
        prop_assert!(verdict.is_clean(), "{verdict:?}");
    }

    #[test]
    fn one_fault_in_any_history_is_found((joined, events) in history(), at in any::<prop::sample::Index>(), fault in 0..3) {
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
        prop_assert!(!judge_since(joined, events).is_clean());
    }
}

#[test]
fn a_message_that_is_none_to_some_is_found() {
    let sent = message(0, 1);
    for other in 0..MEMBERS {
        let gets = |receiver| {
            if receiver == other {
                Event::Passed(receiver, 2)
            } else {
                Event::Delivered(receiver, 2, whole(sent))
            }
        };
        let before = [Event::Sent(sent), Event::Acknowledged(sent, 2)];
        let verdict = judge(before.into_iter().chain((0..MEMBERS).map(gets)));
        assert_eq!(verdict.reordered, 1, "member {other}");
    }
}
