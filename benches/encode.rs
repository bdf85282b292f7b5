//! The time from an event to its bytes on the wire: this crate, axum's `response::sse`, and a plain
//! copy.
//!
//! Each group is an event (a type, and data from a `&str`). Each row ends when the bytes are freed:
//!
//! - `encode`: `Event::new(..).data(..).encode()`.
//! - `axum`: axum's event, read as a frame from the body of an endless `Sse` response, the only
//!   public way to the finished bytes. The response is built before the clock starts. Polling the
//!   boxed body is part of the row and takes a few nanoseconds.
//! - `axum builder`: the same event built and dropped. A lower bound for axum: all fields are
//!   written, but the blank line and the `freeze` are missing.
//! - `copy`: an allocation and a copy of a finished frame.
//! - `publish`: the event published by a hub without clients that retains a single event: encoding,
//!   id, locks and log.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use axum::response::{IntoResponse as _, Sse, sse};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt as _, stream};
use http_body_util::BodyExt as _;
use sse_hub::{Event, Hub, ManualTimer, Retain};

const TYPE: &str = "notification";

fn encode(c: &mut Criterion) {
    let line = |len: usize| "x".repeat(len);
    let lines = |len: usize| (line(79) + "\n").repeat(len / 80);
    compare(c, "200 B", line(200));
    compare(c, "64 KiB of 80-column lines", lines(64 << 10));
    compare(c, "64 KiB in one line", line(64 << 10));
}

fn compare(c: &mut Criterion, name: &str, data: String) {
    let frame = ours(&data).encode().expect("the event is valid");
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("encode", |b| b.iter(|| ours(black_box(&data)).encode()));

    let events = {
        let data = data.clone();
        stream::repeat_with(move || Ok::<_, Infallible>(axums(black_box(&data))))
    };
    let mut body = Sse::new(events).into_response().into_body();
    let mut next = move || {
        let frame = body.frame().now_or_never().flatten().expect("the stream is endless");
        frame.expect("it has no errors").into_data().expect("it has no trailers")
    };
    assert_eq!(next(), frame, "both must write the same frame");
    group.bench_function("axum", |b| b.iter(&mut next));
    group.bench_function("axum builder", |b| b.iter(|| axums(black_box(&data))));

    group.bench_function("copy", |b| b.iter(|| Bytes::copy_from_slice(black_box(&frame))));

    let builder = Hub::builder(ManualTimer::new()).retain(Retain::default().events(1));
    let hub = builder.build().expect("the settings are valid");
    group.bench_function("publish", |b| b.iter(|| hub.broadcast(ours(black_box(&data)))));
    group.finish();
}

fn ours(data: &str) -> Event {
    Event::new(TYPE).data(data)
}

fn axums(data: &str) -> sse::Event {
    sse::Event::default().event(TYPE).data(data)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = encode
}
criterion_main!(benches);
