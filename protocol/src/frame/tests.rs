//! Any frames in any chunks; and what is no frame.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 300;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encoding::encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

/// Cuts a stream into chunks, by sizes that are repeated as needed.
fn chunks(stream: &[u8], sizes: &[usize]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(stream);
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        chunks.push(rest.split_to((*size).min(rest.len())));
    }
    chunks
}

/// All frames, read as they come.
fn read(chunks: Vec<Bytes>, limit: usize) -> Result<(Vec<Bytes>, FrameBuffer), FrameError> {
    let mut buffer = FrameBuffer::new(limit);
    let mut frames = Vec::new();
    for chunk in chunks {
        buffer.push(chunk);
        while let Some(frame) = buffer.next_frame()? {
            frames.push(frame);
        }
    }
    Ok((frames, buffer))
}

fn within(part: &[u8], whole: &[u8]) -> bool {
    whole.as_ptr_range().contains(&part.as_ptr()) && part.as_ptr_range().end <= whole.as_ptr_range().end
}

fn message() -> wire::Publish {
    wire::Publish {
        group: Bytes::from_static(&[7; 16]),
        incarnation: 1,
        number: 2,
        message: Some(wire::Message {
            payload: Bytes::from_static(b"a payload of some bytes"),
            ..Default::default()
        }),
    }
}

proptest! {
    #[test]
    fn any_chunking_of_any_frames_gives_the_same_frames(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LIMIT), 0..12),
        sizes in prop::collection::vec(1..400_usize, 1..20),
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
        let (frames, buffer) = read(chunks(&stream, &sizes), LIMIT).unwrap();
        prop_assert_eq!(frames, bodies);
        prop_assert_eq!(buffer.finish(), Ok(()));
    }

    /// Whoever pushes without reading gets the same frames too.
    #[test]
    fn chunks_may_be_pushed_ahead_of_reading(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
        sizes in prop::collection::vec(1..60_usize, 1..20),
        reads in prop::collection::vec(0..3_usize, 1..20),
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
        let mut buffer = FrameBuffer::new(LIMIT);
        let mut frames = Vec::new();
        for (chunk, reads) in chunks(&stream, &sizes).into_iter().zip(reads.iter().cycle()) {
            buffer.push(chunk);
            for _ in 0..*reads {
                frames.extend(buffer.next_frame().unwrap());
            }
        }
        while let Some(frame) = buffer.next_frame().unwrap() {
            frames.push(frame);
        }
        prop_assert_eq!(frames, bodies);
        prop_assert_eq!(buffer.finish(), Ok(()));
    }

    #[test]
    fn a_stream_cut_off_inside_a_frame_is_found_out(
        body in prop::collection::vec(any::<u8>(), 0..LIMIT),
        cut: prop::sample::Index,
        sizes in prop::collection::vec(1..100_usize, 1..20),
    ) {
        let stream = frame(&body);
        let cut = cut.index(stream.len());
        let (frames, buffer) = read(chunks(&stream[..cut], &sizes), LIMIT).unwrap();
        prop_assert!(frames.is_empty());
        prop_assert_eq!(buffer.finish(), if cut == 0 { Ok(()) } else { Err(FrameError::CutOff) });
    }

    /// Bytes of any kind give frames within the limit or an error, and the same however they are
    /// cut.
    #[test]
    fn garbage_is_an_error_or_frames_within_the_limit(
        stream in prop::collection::vec(prop_oneof![any::<u8>(), 0..8_u8, Just(0x80), Just(0xff)], 0..600),
        sizes in prop::collection::vec(1..100_usize, 1..20),
        limit in 0..LIMIT,
    ) {
        let cut = read(chunks(&stream, &sizes), limit);
        let whole = read(chunks(&stream, &[stream.len().max(1)]), limit);
        match (&cut, &whole) {
            (Ok((frames, _)), Ok((same, _))) => {
                prop_assert!(frames.iter().all(|frame| frame.len() <= limit));
                prop_assert_eq!(frames, same);
            }
            (Err(error), Err(same)) => prop_assert_eq!(error, same),
            _ => prop_assert!(false, "{cut:?} but {whole:?}"),
        }
    }

    #[test]
    fn a_body_of_any_bytes_decodes_or_is_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        if let Err(error) = decode::<wire::ToNode>(body.clone()) {
            prop_assert_eq!(error.code(), Code::BadFrame);
        }
        let _ = decode::<wire::Publish>(body.clone());
        let _ = decode::<wire::Record>(body);
    }

    /// The shared encoding is what prost would write.
    #[test]
    fn a_record_frame_is_a_delivery_around_the_record(seq: u64, payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let body = wire::Message { payload: payload.into(), ..Default::default() };
        let record = wire::Record { seq, body: Some(wire::record::Body::Message(body)), ..Default::default() };
        let shared = RecordFrame::encode(&record);
        let delivery = wire::Delivery { body: Some(wire::delivery::Body::Record(record.clone())) };
        prop_assert_eq!(shared.frame(), &encode(&delivery));
        prop_assert_eq!(shared.record(), Bytes::from(record.encode_to_vec()));
        prop_assert_eq!(RecordFrame::from_encoded(&record.encode_to_vec()), shared);
    }
}

#[test]
fn a_frame_and_its_payload_share_the_memory_of_their_chunk() {
    let chunk = Bytes::from([encode(&message()), encode(&message())].concat());
    let mut buffer = FrameBuffer::new(LIMIT);
    buffer.push(chunk.clone());
    for _ in 0..2 {
        let body = buffer.next_frame().unwrap().unwrap();
        assert!(within(&body, &chunk));
        let publish: wire::Publish = decode(body).unwrap();
        assert_eq!(publish, message());
        assert!(within(&publish.group, &chunk));
        assert!(within(&publish.message.unwrap().payload, &chunk));
    }
}

#[test]
fn a_frame_over_two_chunks_is_put_together_once() {
    let stream = encode(&message());
    let mut buffer = FrameBuffer::new(LIMIT);
    buffer.push(stream.slice(..10));
    assert_eq!(buffer.next_frame(), Ok(None));
    buffer.push(stream.slice(10..));
    let body = buffer.next_frame().unwrap().unwrap();
    let publish: wire::Publish = decode(body.clone()).unwrap();
    assert!(within(&publish.message.unwrap().payload, &body));
}

#[test]
fn a_record_shares_the_memory_of_its_frame() {
    let record = wire::Record { seq: 1, ..Default::default() };
    let shared = RecordFrame::encode(&record);
    assert!(within(&shared.record(), shared.frame()));
    assert_eq!(shared.clone().frame().as_ptr(), shared.frame().as_ptr());
}

#[test]
fn a_frame_above_the_limit_is_refused_before_its_body_comes() {
    let mut buffer = FrameBuffer::new(LIMIT);
    buffer.push(Bytes::from(frame(&[0; LIMIT + 1])).slice(..2));
    for _ in 0..2 {
        let error = buffer.next_frame().unwrap_err();
        assert_eq!(error, FrameError::TooLarge { limit: LIMIT });
        assert_eq!(error.code(), Code::FrameTooLarge);
    }
}

#[test]
fn the_limit_itself_is_allowed_and_can_be_raised() {
    let mut buffer = FrameBuffer::new(2);
    buffer.push(Bytes::from([frame(b"ab"), frame(b"abc")].concat()));
    assert_eq!(buffer.next_frame(), Ok(Some(Bytes::from_static(b"ab"))));
    assert!(buffer.next_frame().is_err());
    buffer.set_limit(3);
    assert_eq!(buffer.next_frame(), Ok(Some(Bytes::from_static(b"abc"))));
}

#[test]
fn a_length_that_does_not_end_is_refused() {
    for length in 1..12 {
        let mut buffer = FrameBuffer::new(usize::MAX);
        buffer.push(Bytes::from(vec![0xff; length]));
        let expected = if length < 4 { Ok(None) } else { Err(FrameError::TooLarge { limit: usize::MAX }) };
        assert_eq!(buffer.next_frame(), expected, "{length} bytes");
    }
}

#[test]
fn a_delivered_record_is_framed_again_byte_for_byte() {
    let record = wire::Record { seq: 7, time_ms: 9, ..Default::default() };
    let framed = RecordFrame::encode(&record);
    let mut stream = FrameBuffer::new(FRAME_BYTES_MAX);
    stream.push(framed.frame().clone());
    let body = stream.next_frame().unwrap().unwrap();
    assert_eq!(RecordFrame::from_delivery(body).unwrap(), framed);
    let handoff = wire::Delivery { body: Some(wire::delivery::Body::Handoff(wire::Handoff::default())) };
    assert!(RecordFrame::from_delivery(handoff.encode_to_vec().into()).is_err());
}

#[test]
fn a_silent_record_is_known_without_the_rest_of_it() {
    let body = wire::record::Body::Message(wire::Message { payload: "hi".into(), ..Default::default() });
    let record = |silent| wire::Record { seq: 7, body: Some(body.clone()), silent, ..Default::default() };
    assert!(RecordFrame::encode(&record(true)).is_silent());
    assert!(!RecordFrame::encode(&record(false)).is_silent());
}

/// What a peer says and does not send takes no memory.
#[test]
fn a_promised_body_takes_no_memory_before_it_comes() {
    let mut buffer = FrameBuffer::new(FRAME_BYTES_MAX);
    buffer.push(Bytes::from(frame(&[0; 1 << 19])).slice(..100));
    assert_eq!(buffer.next_frame(), Ok(None));
    assert!(buffer.partial.capacity() < 4096);
}
