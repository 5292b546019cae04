//! Runs: neighbouring records as one piece of bytes.
//!
//! A stream pays for every piece it is given until the piece is acknowledged, and there are as many
//! streams as sessions. So records that come together are laid side by side once, for everybody, and
//! whoever reads several of them gets one slice.
//!
//! ```text
//!   piece   │ frame 7 │ frame 8 │ frame 9 │     frames of one append, or of one page
//!   held      0..190    190..380  380..570      one for each record
//!   run                └── 8 and 9: one slice ─┘  for who stands at 8
//! ```
//!
//! A session is given silent records as one frame that names their places, however many they are; a
//! node is given them whole.

use bytes::Bytes;
use shoal_protocol::{RecordFrame, Seq, frame, wire};

/// The most bytes laid side by side: what one blocked stream may hold on to, and some ten packets.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Who is given records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Another node, which folds them and passes them on.
    Node,
    /// A member's session.
    Session,
}

/// A record's frame, in memory that it may share with its neighbours.
#[derive(Debug, Clone)]
pub(super) struct Held {
    piece: Bytes,
    start: u32,
    end: u32,
    is_silent: bool,
}

impl Held {
    /// Bytes of the frame.
    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Need members not see it?
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    fn within(piece: Bytes, start: usize, record: &RecordFrame) -> Self {
        let narrow = |at: usize| u32::try_from(at).expect("a frame is far smaller than 4 GiB");
        let (start, end) = (narrow(start), narrow(start + record.frame().len()));
        Self { piece, start, end, is_silent: record.is_silent() }
    }

    /// Does it begin in the same piece where the one that began with `first` ends?
    fn goes_on(&self, first: &Self, end: u32) -> bool {
        self.piece.as_ptr() == first.piece.as_ptr() && self.start == end
    }
}

impl From<&RecordFrame> for Held {
    fn from(record: &RecordFrame) -> Self {
        Self::within(record.frame().clone(), 0, record)
    }
}

/// Lays records side by side, in their order.
pub(super) fn side_by_side(records: impl IntoIterator<Item = RecordFrame>) -> Vec<Held> {
    let records: Vec<RecordFrame> = records.into_iter().collect();
    let mut held = Vec::with_capacity(records.len());
    let mut rest = &records[..];
    while !rest.is_empty() {
        let (together, after) = rest.split_at(how_many_fit(rest));
        let piece = in_one_piece(together);
        let mut start = 0;
        for record in together {
            held.push(Held::within(piece.clone(), start, record));
            start += record.frame().len();
        }
        rest = after;
    }
    held
}

fn in_one_piece(records: &[RecordFrame]) -> Bytes {
    if let [alone] = records {
        return alone.frame().clone();
    }
    let frames: Vec<&[u8]> = records.iter().map(|record| &record.frame()[..]).collect();
    frames.concat().into()
}

/// How many of the first records fit into one piece; one at least.
fn how_many_fit(records: &[RecordFrame]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&RecordFrame| {
        bytes += record.frame().len();
        bytes <= PIECE_BYTES_MAX
    };
    records.iter().take_while(fits).count().max(1)
}

/// What is written to a stream next: runs, in order. The list is used again and again.
#[derive(Debug, Default)]
pub struct Runs {
    slices: Vec<Bytes>,
    /// How many records are in each.
    records: Vec<usize>,
}

impl Runs {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { slices: Vec::new(), records: Vec::new() }
    }

    /// Adds records that follow each other, the first of them at `from`; returns how many.
    pub(super) fn extend<'held>(
        &mut self,
        from: Seq,
        held: impl IntoIterator<Item = &'held Held>,
        reader: Reader,
    ) -> usize {
        let mut held = held.into_iter().peekable();
        let passes_over = |record: &Held| record.is_silent && reader == Reader::Session;
        let mut added = 0;
        while let Some(first) = held.next() {
            let mut records = 1;
            if passes_over(first) {
                while held.next_if(|next| passes_over(next)).is_some() {
                    records += 1;
                }
                self.slices.push(silent(from.advance(added as u64), records as u64));
            } else {
                let mut end = first.end;
                while let Some(next) = held.next_if(|next| !passes_over(next) && next.goes_on(first, end)) {
                    end = next.end;
                    records += 1;
                }
                self.slices.push(first.piece.slice(first.start as usize..end as usize));
            }
            self.records.push(records);
            added += records;
        }
        added
    }

    /// The bytes of each run; a stream cuts off what it has taken.
    pub(super) fn slices_mut(&mut self) -> &mut [Bytes] {
        &mut self.slices
    }

    /// How many records are in the first `runs`.
    pub(super) fn records(&self, runs: usize) -> usize {
        self.records[..runs].iter().sum()
    }

    /// How many bytes are in the runs from this one on.
    pub(super) fn bytes_from(&self, run: usize) -> usize {
        self.slices[run..].iter().map(Bytes::len).sum()
    }

    /// All that would be written.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.slices.concat()
    }

    /// Is there nothing to write?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.records.clear();
    }
}

/// What stands for so many silent records.
fn silent(from: Seq, records: u64) -> Bytes {
    let silent = wire::Silent { from: from.get(), to: from.advance(records).get() };
    frame::encode(&wire::Delivery { body: Some(wire::delivery::Body::Silent(silent)) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use shoal_protocol::wire;

    use super::*;

    fn record(number: u64, payload_bytes: usize) -> RecordFrame {
        let message = wire::Message { payload: Bytes::from(vec![b'.'; payload_bytes]), ..Default::default() };
        let body = Some(wire::record::Body::Message(message));
        RecordFrame::encode(&wire::Record { seq: number, body, ..Default::default() })
    }

    fn runs_of(held: &[Held]) -> Runs {
        let mut runs = Runs::new();
        assert_eq!(runs.extend(Seq::FIRST, held, Reader::Session), held.len());
        runs
    }

    fn silent_record(number: u64) -> RecordFrame {
        RecordFrame::encode(&wire::Record { seq: number, silent: true, ..Default::default() })
    }

    #[test]
    fn records_that_came_together_are_one_slice() {
        let held = side_by_side((0..8).map(|number| record(number, 128)));
        let runs = runs_of(&held[3..]);
        assert_eq!((runs.slices.len(), runs.records(1)), (1, 5));
    }

    #[test]
    fn a_replaced_record_stands_alone_among_its_neighbours() {
        let mut held = side_by_side((0..5).map(|number| record(number, 128)));
        held[2] = Held::from(&record(2, 0));
        assert_eq!(runs_of(&held).records, [2, 1, 2]);
    }

    #[test]
    fn silent_records_are_their_places_for_a_session_and_whole_for_a_node() {
        let frames: Vec<_> = [record(3, 9), silent_record(4), silent_record(5), record(6, 9)].to_vec();
        // The second of the silent ones came later.
        let mut held = side_by_side(frames[..2].iter().cloned());
        held.extend(side_by_side(frames[2..].iter().cloned()));
        let from = Seq::new(3).unwrap();
        let mut runs = Runs::new();
        runs.extend(from, &held, Reader::Session);
        let places = silent(from.next(), 2);
        assert_eq!(runs.bytes(), [&frames[0].frame()[..], &places, frames[3].frame()].concat());
        assert_eq!(runs.records, [1, 2, 1]);
        runs.clear();
        runs.extend(from, &held, Reader::Node);
        assert_eq!(runs.bytes(), frames.iter().flat_map(|frame| frame.frame().to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn a_piece_is_bounded_and_a_great_record_has_its_own() {
        let sizes = [100, PIECE_BYTES_MAX - 300, 100, PIECE_BYTES_MAX * 3, 100];
        let held = side_by_side(sizes.iter().zip(0..).map(|(size, number)| record(number, *size)));
        assert_eq!(runs_of(&held).records, [3, 1, 1]);
    }

    proptest! {
        /// However records came, were left out and are written: the same bytes, in the same order.
        #[test]
        fn runs_are_the_frames_in_their_order(
            appends in prop::collection::vec(prop::collection::vec(0..3000_usize, 1..20), 1..5),
            skip in 0..30_usize,
        ) {
            let records: Vec<Vec<_>> = appends
                .iter()
                .map(|sizes| sizes.iter().zip(0..).map(|(size, number)| record(number, *size)).collect())
                .collect();
            let held: Vec<_> = records.iter().flat_map(|append| side_by_side(append.iter().cloned())).collect();
            let skip = skip.min(held.len());
            let runs = runs_of(&held[skip..]);
            let frames: Vec<_> = records.iter().flatten().skip(skip).map(|record| record.frame().to_vec()).collect();
            prop_assert_eq!(runs.bytes(), frames.concat());
            for begun in 0..=runs.slices.len() {
                let after: usize = frames[runs.records(begun)..].iter().map(Vec::len).sum();
                prop_assert_eq!(runs.bytes_from(begun), after);
            }
        }
    }
}
