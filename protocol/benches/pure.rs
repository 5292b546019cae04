//! What the pure parts cost: `cargo bench -p shoal-protocol`.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shoal_protocol::{
    Follower, FrameBuffer, GroupId, Outcome, PUBLISH_WINDOW, RecordFrame, SenderNumbers, Seq, TailWindow,
    UserId, WindowLimits, frame, wire,
};

const PAYLOAD_SIZES: [usize; 3] = [16, 128, 4096];

fn publish(payload: usize) -> wire::Publish {
    wire::Publish {
        group: GroupId::named("general").to_wire(),
        incarnation: 1,
        number: 123_456,
        message: Some(wire::Message { payload: vec![b'x'; payload].into(), ..Default::default() }),
    }
}

fn record(payload: usize) -> wire::Record {
    wire::Record {
        seq: 123_456,
        time_ms: 1_790_000_000_000,
        author: Some(wire::Author { user: "ada@example.org".into(), device: 1, incarnation: 2, number: 3 }),
        body: Some(wire::record::Body::Message(publish(payload).message.expect("it has one"))),
        ..Default::default()
    }
}

/// A publish in, and a record out, of a few sizes.
fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for size in PAYLOAD_SIZES {
        let (publish, record) = (publish(size), record(size));
        let encoded = frame::encode(&publish);
        let stored = RecordFrame::encode(&record).record();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("encode publish", size), &publish, |b, publish| {
            b.iter(|| frame::encode(black_box(publish)));
        });
        group.bench_with_input(BenchmarkId::new("read and decode publish", size), &encoded, |b, encoded| {
            let mut buffer = FrameBuffer::new(frame::FRAME_BYTES_MAX);
            b.iter(|| {
                buffer.push(encoded.clone());
                buffer.next_message::<wire::Publish>()
            });
        });
        group.bench_with_input(BenchmarkId::new("encode record", size), &record, |b, record| {
            b.iter(|| RecordFrame::encode(black_box(record)));
        });
        group.bench_with_input(BenchmarkId::new("frame stored record", size), &stored, |b, stored| {
            b.iter(|| RecordFrame::from_encoded(black_box(stored)));
        });
    }
    group.finish();
}

/// A stream of a thousand frames, whole and in packets.
fn streams(c: &mut Criterion) {
    let one = frame::encode(&publish(128));
    let stream = Bytes::from(one.repeat(1000));
    let mut group = c.benchmark_group("stream of 1000 publishes");
    group.throughput(Throughput::Elements(1000));
    for (name, chunk) in [("in one chunk", stream.len()), ("in packets of 1200 bytes", 1200)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut buffer = FrameBuffer::new(frame::FRAME_BYTES_MAX);
                let mut rest = stream.clone();
                let mut frames = 0;
                while !rest.is_empty() {
                    buffer.push(rest.split_to(chunk.min(rest.len())));
                    while let Ok(Some(frame)) = buffer.next_frame() {
                        black_box(frame);
                        frames += 1;
                    }
                }
                assert_eq!(frames, 1000);
            });
        });
    }
    group.finish();
}

/// What one session's turn at a full window costs, by how far behind it is.
fn window(c: &mut Criterion) {
    let limits = WindowLimits { records_max: 1024, bytes_max: 1 << 20 };
    let frame = RecordFrame::encode(&record(128));
    let mut window = TailWindow::new(Seq::FIRST, limits);
    for _ in 0..4096 {
        window.push(frame.clone(), frame.frame().len());
    }
    let mut group = c.benchmark_group("window");
    for behind in [1_u64, 8, 64, 512] {
        let watermark = Seq::FIRST.advance(4096 - behind);
        group.throughput(Throughput::Elements(behind));
        group.bench_with_input(BenchmarkId::new("read", behind), &watermark, |b, watermark| {
            b.iter(|| window.read(black_box(*watermark), 1 << 20));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("push", |b| b.iter(|| window.push(frame.clone(), frame.frame().len())));
    group.finish();
}

fn sender(c: &mut Criterion) {
    let outcome = Outcome::Committed { seq: Seq::FIRST };
    let mut numbers = SenderNumbers::new();
    for number in 1..=1000 {
        numbers.record(number, outcome);
    }
    let mut group = c.benchmark_group("sender");
    for (name, number) in [("next", 1001), ("retry", 1001 - PUBLISH_WINDOW as u64), ("too high", 2000)] {
        group
            .bench_function(BenchmarkId::new("judge", name), |b| b.iter(|| numbers.judge(black_box(number))));
    }
    group.bench_function("record", |b| {
        let mut numbers = numbers.clone();
        b.iter(|| numbers.record(numbers.last() + 1, outcome));
    });
    group.bench_function("follower accept", |b| {
        let mut follower = Follower::new(Seq::FIRST);
        b.iter(|| follower.accept(black_box(follower.watermark())));
    });
    group.finish();
}

fn ids(c: &mut Criterion) {
    let user: UserId = "ada@example.org".parse().expect("a user");
    let mut group = c.benchmark_group("id");
    group.bench_function("parse user", |b| b.iter(|| UserId::new(black_box("ada@example.org"))));
    group.bench_function("own group", |b| b.iter(|| GroupId::own(black_box(&user))));
    group.bench_function("slot", |b| b.iter(|| shoal_protocol::Slot::of(black_box(&user))));
    group.finish();
}

criterion_group!(benches, codec, streams, window, sender, ids);
criterion_main!(benches);
