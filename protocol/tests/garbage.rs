//! The bodies of the fuzz targets over random input, so that they are kept and run by everybody.
#![allow(clippy::unwrap_used, unreachable_pub)]

use proptest::prelude::*;
use shoal_protocol::{GroupId, frame, wire};

#[path = "../../fuzz/src/codec.rs"]
mod codec;
#[path = "../../fuzz/src/session.rs"]
mod session;

fn publish(number: u64) -> wire::Publish {
    let message = wire::Message { payload: "payload".into(), ..Default::default() };
    wire::Publish {
        group: GroupId::named("general").to_wire(),
        incarnation: 1,
        number,
        message: Some(message),
    }
}

/// One piece of a session's input; see `session::run`.
fn piece(what: u8, stream: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what, stream, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

proptest! {
    #[test]
    fn the_codec_takes_any_bytes(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        codec::run(&input);
    }

    /// Valid frames of one kind, with a few bytes changed.
    #[test]
    fn the_codec_takes_frames_with_changed_bytes(
        numbers in prop::collection::vec(any::<u64>(), 1..20),
        size: u8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut input = vec![16, size];
        for number in numbers {
            let record = wire::Record { seq: number, time_ms: number, ..Default::default() };
            input.extend_from_slice(&frame::encode(&record));
            input.extend_from_slice(&frame::encode(&publish(number)));
        }
        for (at, byte) in changes {
            let at = at.index(input.len());
            input[at] = byte;
        }
        codec::run(&input);
    }

    #[test]
    fn a_session_takes_any_bytes(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        session::run(&input);
    }

    /// A session that says hello, opens publish streams and publishes numbers in any order, with
    /// bytes changed.
    #[test]
    fn a_session_takes_any_publishes(
        publishes in prop::collection::vec((0..4_u8, prop::array::uniform3(0..20_u8)), 0..200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut input = piece(1, 0, b"ada");
        for stream in 0..4 {
            input.extend(piece(2, stream, b""));
        }
        for (stream, publish) in publishes {
            input.extend(piece(3, stream, &publish));
        }
        for (at, byte) in changes {
            let at = at.index(input.len());
            input[at] = byte;
        }
        session::run(&input);
    }
}
