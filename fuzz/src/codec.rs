//! Any bytes, in any chunks, as frames; and each frame as every message.

use bytes::Bytes;
use prost::Message;
use shoal_protocol::{FrameBuffer, FrameError, RecordFrame, frame, wire};

/// Panics where reading depends on how the bytes were cut, a frame is above the limit or leaves
/// its chunk, or a message that decodes is not itself again.
pub fn run(input: &[u8]) {
    let Some(([limit, size], stream)) = input.split_first_chunk() else { return };
    let limit = usize::from(*limit) << 6;
    let stream = Bytes::copy_from_slice(stream);
    let whole = read(&stream, stream.len(), limit);
    let cut = read(&stream, usize::from(*size), limit);
    assert_eq!(whole, cut, "the same frames however they are cut");
    let Ok(frames) = whole else { return };
    for body in frames {
        assert!(body.len() <= limit, "a frame above the limit");
        assert!(stream.as_ptr_range().contains(&body.as_ptr()) || body.is_empty(), "a copied frame");
        every_message(&body);
    }
}

fn read(stream: &Bytes, size: usize, limit: usize) -> Result<Vec<Bytes>, FrameError> {
    let mut buffer = FrameBuffer::new(limit);
    let mut rest = stream.clone();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        buffer.push(rest.split_to(size.max(1).min(rest.len())));
        while let Some(frame) = buffer.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn every_message(body: &Bytes) {
    round_trip::<wire::ToNode>(body);
    round_trip::<wire::ToClient>(body);
    round_trip::<wire::StreamOpen>(body);
    round_trip::<wire::Publish>(body);
    round_trip::<wire::Receipt>(body);
    round_trip::<wire::Request>(body);
    round_trip::<wire::Response>(body);
    round_trip::<wire::DeliveryOpen>(body);
    round_trip::<wire::Delivery>(body);
    round_trip::<wire::Signal>(body);
    round_trip::<wire::Record>(body);
    if let Ok(record) = frame::decode::<wire::Record>(body.clone()) {
        shared_record(&record);
    }
}

fn round_trip<M: Message + Default + PartialEq + std::fmt::Debug>(body: &Bytes) {
    if let Ok(message) = frame::decode::<M>(body.clone()) {
        let again = frame::decode::<M>(message.encode_to_vec().into());
        assert_eq!(again.as_ref(), Ok(&message), "a message is itself again");
    }
}

fn shared_record(record: &wire::Record) {
    let shared = RecordFrame::encode(record);
    let mut buffer = FrameBuffer::new(frame::FRAME_BYTES_MAX);
    buffer.push(shared.frame().clone());
    let delivery: Option<wire::Delivery> = buffer.next_message().expect("a record's frame is a delivery");
    let body = delivery.and_then(|delivery| delivery.body);
    assert_eq!(body.as_ref(), Some(&wire::delivery::Body::Record(record.clone())));
    assert_eq!(RecordFrame::from_encoded(&shared.record()), shared);
}
