use shoal_protocol::wire;

use super::*;

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

fn frame(number: u64) -> RecordFrame {
    RecordFrame::encode(&wire::Record { seq: number, ..Default::default() })
}

/// What a stream carries for these records.
fn bytes(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().flat_map(|number| frame(number).frame().to_vec()).collect()
}

fn tail(records_max: usize) -> Tail {
    let limits = WindowLimits { records_max, bytes_max: 1 << 20 };
    Tail::new(GroupId::named("a"), Seq::FIRST, limits, Arc::new(WindowBudget::new(1 << 20)))
}

fn signal(user: &str) -> Arc<Signal> {
    Arc::new(Signal::new(UserId::new(user).unwrap()))
}

fn silent(number: u64) -> RecordFrame {
    RecordFrame::encode(&wire::Record { seq: number, silent: true, ..Default::default() })
}

fn append(tail: &Tail, records: impl IntoIterator<Item = RecordFrame>) {
    tail.append(records, &BTreeMap::new());
}

fn due(signal: &Signal) -> Vec<u32> {
    let mut due = Vec::new();
    signal.take(&mut due);
    due
}

#[test]
fn an_attachment_is_small() {
    assert!(size_of::<Option<Attached>>() <= 24, "{} bytes", size_of::<Option<Attached>>());
}

#[test]
fn a_tail_rings_once_until_the_session_has_read() {
    let (tail, ada) = (tail(10), signal("ada"));
    let attachment = tail.attach(Arc::clone(&ada), 7, Seq::FIRST);
    assert!(due(&ada).is_empty(), "there is nothing yet");
    append(&tail, [frame(1)]);
    append(&tail, [frame(2), frame(3)]);
    assert_eq!(due(&ada), [7]);
    let turn = tail.read(attachment, seq(1), 1 << 20, &mut Runs::new());
    assert_eq!(turn, TailTurn::Records { next: seq(4), more: false });
    append(&tail, [frame(4)]);
    assert_eq!(due(&ada), [7], "it read all, so it is rung for the next");
}

#[test]
fn who_has_not_read_all_is_not_rung_and_reads_on() {
    let (tail, ada) = (tail(10), signal("ada"));
    let attachment = tail.attach(Arc::clone(&ada), 7, Seq::FIRST);
    append(&tail, [frame(1), frame(2)]);
    due(&ada);
    let mut runs = Runs::new();
    let turn = tail.read(attachment, seq(1), 1, &mut runs);
    assert_eq!(turn, TailTurn::Records { next: seq(2), more: true });
    append(&tail, [frame(3)]);
    assert!(due(&ada).is_empty());
    assert_eq!(tail.read(attachment, seq(4), 1, &mut runs), TailTurn::CaughtUp);
    append(&tail, [frame(4)]);
    assert_eq!(due(&ada), [7]);
}

#[test]
fn a_cursor_before_the_window_is_sent_to_the_store() {
    let (tail, ada) = (tail(2), signal("ada"));
    let attachment = tail.attach(Arc::clone(&ada), 0, Seq::FIRST);
    append(&tail, (1..=5).map(frame));
    let read = |watermark| tail.read(attachment, seq(watermark), 100, &mut Runs::new());
    assert_eq!(read(1), TailTurn::Behind { until: seq(4) });
    tail.sleep();
    assert_eq!(read(5), TailTurn::Behind { until: seq(6) });
    assert_eq!(read(9), TailTurn::Ahead);
}

#[test]
fn nothing_after_the_end_of_a_membership_is_read() {
    let (tail, ada, bob) = (tail(10), signal("ada"), signal("bob"));
    let of_ada = tail.attach(Arc::clone(&ada), 0, Seq::FIRST);
    let of_bob = tail.attach(Arc::clone(&bob), 0, Seq::FIRST);
    append(&tail, [frame(1)]);
    tail.append((2..=4).map(frame), &BTreeMap::from([("ada", seq(3))]));
    let mut runs = Runs::new();
    let turn = tail.read(of_ada, seq(1), 1 << 20, &mut runs);
    assert_eq!((turn, runs.bytes()), (TailTurn::Records { next: seq(3), more: true }, bytes(1..=2)));
    assert_eq!(tail.read(of_ada, seq(3), 1 << 20, &mut runs), TailTurn::Ended);
    runs.clear();
    tail.read(of_bob, seq(1), 1 << 20, &mut runs);
    assert_eq!(runs.bytes(), bytes(1..=4));
}

#[test]
fn who_is_gone_hears_of_it_though_nobody_hears_of_the_record() {
    let (tail, ada, bob) = (tail(10), signal("ada"), signal("bob"));
    let of_ada = tail.attach(Arc::clone(&ada), 3, Seq::FIRST);
    tail.attach(Arc::clone(&bob), 4, Seq::FIRST);
    tail.append([silent(1)], &BTreeMap::from([("ada", seq(2))]));
    assert_eq!((due(&ada), due(&bob)), (vec![3], vec![]));
    let turn = tail.read(of_ada, Seq::FIRST, 100, &mut Runs::new());
    assert_eq!(turn, TailTurn::Records { next: seq(2), more: true });
    assert_eq!(tail.until(of_ada), Some(seq(2)));
    assert_eq!(tail.read(of_ada, seq(2), 100, &mut Runs::new()), TailTurn::Ended);
}

#[test]
fn silent_records_come_along_with_the_next_that_is_not() {
    let (tail, ada) = (tail(100), signal("ada"));
    let attachment = tail.attach(Arc::clone(&ada), 7, Seq::FIRST);
    append(&tail, [silent(1), silent(2)]);
    assert!(due(&ada).is_empty());
    assert!(tail.has_unrung());
    append(&tail, [silent(3), frame(4)]);
    assert_eq!(due(&ada), [7]);
    assert!(!tail.has_unrung());
    let turn = tail.read(attachment, seq(1), 1 << 20, &mut Runs::new());
    assert_eq!(turn, TailTurn::Records { next: seq(5), more: false });
    append(&tail, [silent(5)]);
    assert!(due(&ada).is_empty());
    append(&tail, [frame(6)]);
    assert_eq!(due(&ada), [7], "it had not read the silent one, and is rung all the same");
}

#[test]
fn silent_records_that_nothing_comes_along_for_are_rung_for_once() {
    let (tail, ada) = (tail(100), signal("ada"));
    let attachment = tail.attach(Arc::clone(&ada), 7, Seq::FIRST);
    tail.ring_for_silent();
    assert!(due(&ada).is_empty(), "there is nothing");
    append(&tail, [silent(1)]);
    tail.ring_for_silent();
    tail.ring_for_silent();
    assert_eq!(due(&ada), [7]);
    tail.read(attachment, seq(1), 100, &mut Runs::new());
    tail.ring_for_silent();
    assert!(due(&ada).is_empty());
}

#[test]
fn silent_records_are_rung_for_before_they_leave_the_window() {
    let (tail, ada) = (tail(10), signal("ada"));
    let attachment = tail.attach(Arc::clone(&ada), 7, Seq::FIRST);
    append(&tail, (1..=4).map(silent));
    assert!(due(&ada).is_empty());
    append(&tail, [silent(5)]);
    assert_eq!(due(&ada), [7]);
    let turn = tail.read(attachment, seq(1), 1 << 20, &mut Runs::new());
    assert_eq!(turn, TailTurn::Records { next: seq(6), more: false });
}

#[test]
fn a_node_is_rung_for_every_record_and_a_session_that_comes_for_what_it_lacks() {
    let (tail, node, ada) = (tail(100), Arc::new(Signal::of_absent_node()), signal("ada"));
    tail.attach(Arc::clone(&node), 1, Seq::FIRST);
    append(&tail, [silent(1)]);
    assert_eq!(due(&node), [1]);
    tail.attach(Arc::clone(&ada), 7, Seq::FIRST);
    assert_eq!(due(&ada), [7]);
}

#[test]
fn places_are_used_again_and_given_back() {
    let (tail, ada) = (tail(10), signal("ada"));
    let first = tail.attach(Arc::clone(&ada), 0, Seq::FIRST);
    let second = tail.attach(Arc::clone(&ada), 1, Seq::FIRST);
    tail.detach(first);
    assert_eq!(tail.attach(Arc::clone(&ada), 2, Seq::FIRST), first);
    assert_eq!(tail.attached(), 2);
    tail.detach(second);
    tail.detach(first);
    assert_eq!(tail.attached(), 0);
    assert_eq!(Arc::strong_count(&ada), 1);
}
