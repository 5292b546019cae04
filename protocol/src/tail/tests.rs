//! The window against a plain list.

use proptest::prelude::*;

use super::*;

/// Every record there ever was, and where the window begins.
struct Model {
    first: u64,
    records: Vec<(u32, usize)>,
    start: usize,
    limits: WindowLimits,
}

impl Model {
    fn held(&self) -> &[(u32, usize)] {
        &self.records[self.start..]
    }

    fn bytes(&self) -> usize {
        self.held().iter().map(|(_, bytes)| bytes).sum()
    }

    fn seq(&self, at: usize) -> Seq {
        Seq::new(self.first).unwrap().advance(at as u64)
    }

    fn push(&mut self, record: u32, bytes: usize) {
        self.records.push((record, bytes));
        while self.held().len() > 1
            && (self.held().len() > self.limits.records_max || self.bytes() > self.limits.bytes_max)
        {
            self.start += 1;
        }
    }

    fn replace(&mut self, seq: Seq, record: u32, bytes: usize) {
        let at = seq.get().checked_sub(self.first).map(|at| usize::try_from(at).unwrap());
        if let Some(at) = at.filter(|at| *at >= self.start && *at < self.records.len()) {
            self.records[at] = (record, bytes);
        }
    }

    fn read(&self, watermark: Seq, bytes_max: usize) -> Read<u32> {
        if watermark > self.seq(self.records.len()) {
            return Read::Ahead { tail: self.seq(self.records.len()) };
        }
        if watermark == self.seq(self.records.len()) {
            return Read::CaughtUp;
        }
        if watermark < self.seq(self.start) {
            return Read::Behind { start: self.seq(self.start) };
        }
        let at = usize::try_from(watermark.since(self.seq(0))).unwrap();
        let mut read = vec![self.records[at].0];
        let mut bytes = self.records[at].1;
        for (record, weight) in &self.records[at + 1..] {
            bytes += weight;
            if bytes > bytes_max {
                break;
            }
            read.push(*record);
        }
        Read::Records(read)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { bytes: usize },
    Replace { at: u64, bytes: usize },
    Read { at: u64, bytes_max: usize },
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..50_usize).prop_map(|bytes| Step::Push { bytes }),
        2 => (0..40_u64, 0..50_usize).prop_map(|(at, bytes)| Step::Replace { at, bytes }),
        4 => (0..40_u64, 0..200_usize).prop_map(|(at, bytes_max)| Step::Read { at, bytes_max }),
        1 => Just(Step::Clear),
    ]
}

/// Everything a window says of `seq` agrees with the model.
fn check_read(
    window: &TailWindow<u32>,
    model: &Model,
    seq: Seq,
    bytes_max: usize,
) -> Result<(), TestCaseError> {
    let expected = model.read(seq, bytes_max);
    let place = match &expected {
        Read::Records(records) => {
            prop_assert_eq!(window.get(seq), records.first());
            prop_assert!(window.up_to(seq, bytes_max).eq(records));
            Place::Held
        }
        Read::CaughtUp => Place::CaughtUp,
        Read::Behind { .. } => Place::Behind,
        Read::Ahead { .. } => Place::Ahead,
    };
    prop_assert_eq!(window.place(seq), place);
    prop_assert_eq!(window.get(seq).is_some(), place == Place::Held);
    prop_assert_eq!(window.read(seq, bytes_max), expected);
    Ok(())
}

proptest! {
    #[test]
    fn a_window_is_what_a_plain_list_would_be(
        first in 1..10_u64,
        records_max in 0..12_usize,
        bytes_max in 0..300_usize,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let limits = WindowLimits { records_max, bytes_max };
        let mut window = TailWindow::new(Seq::new(first).unwrap(), limits);
        let mut model = Model { first, records: Vec::new(), start: 0, limits };
        for (number, step) in (0_u32..).zip(steps) {
            match step {
                Step::Push { bytes } => {
                    window.push(number, bytes);
                    model.push(number, bytes);
                }
                Step::Replace { at, bytes } => {
                    window.replace(Seq::FIRST.advance(at), number, bytes);
                    model.replace(Seq::FIRST.advance(at), number, bytes);
                }
                Step::Read { at, bytes_max } => check_read(&window, &model, Seq::FIRST.advance(at), bytes_max)?,
                Step::Clear => {
                    window.clear();
                    model.start = model.records.len();
                }
            }
            prop_assert_eq!(window.start(), model.seq(model.start));
            prop_assert_eq!(window.tail(), model.seq(model.records.len()));
            prop_assert_eq!(window.bytes(), model.bytes());
        }
    }
}

#[test]
fn the_latest_record_is_held_whatever_its_size() {
    let mut window = TailWindow::new(Seq::FIRST, WindowLimits { records_max: 10, bytes_max: 10 });
    window.push('a', 5);
    window.push('b', 1000);
    assert_eq!(window.read(Seq::FIRST.next(), 0), Read::Records(vec!['b']));
    window.push('c', 5);
    assert_eq!(window.read(window.start(), 0), Read::Records(vec!['c']));
}

#[test]
fn a_watermark_above_the_tail_is_never_called_caught_up() {
    let window = TailWindow::<u8>::new(Seq::FIRST, WindowLimits { records_max: 1, bytes_max: 1 });
    assert_eq!(window.read(Seq::FIRST.next(), 1), Read::Ahead { tail: Seq::FIRST });
}
