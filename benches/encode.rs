//! What an event costs up to its finished bytes: this crate, axum's `response::sse`, and a bare copy of the result.
//!
//! Each group is one event (a type, an id, the data from a `&str`) and each row ends with its bytes freed again:
//!
//! - `publish`: `Event::new(..).data(..)`, given to a hub without clients that retains one event. An upper bound on
//!   the encoder, which is private: the hub's locks and its log are in it.
//! - `event`: the same event built and dropped: all fields but the id are written, nothing is frozen.
//! - `axum body`: axum's event, taken as a frame out of the body of one endless `Sse` response, the only public way
//!   to its finished bytes. The response is built before the clock starts; polling its boxed body is in the row, a
//!   few nanoseconds.
//! - `axum builder`: the same event built and dropped, a lower bound on axum: it has written all fields, and lacks the
//!   blank line and the `freeze`.
//! - `copy`: one allocation and one copy, of a frame that is there already.
//!
//! Fair pairs are `publish` with `axum body`, and `event` with `axum builder`. Both favour axum: its id is given as
//! text, where the hub issues and formats one, and it neither orders nor retains anything.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use axum::response::{IntoResponse as _, Sse, sse};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use sse_hub::{Event, Hub, ManualTimer, Retain, Subscriber};

const TYPE: &str = "notification";

fn encode(c: &mut Criterion) {
    let line = |len: usize| "x".repeat(len);
    let lines = |len: usize| (line(79) + "\n").repeat(len / 80);
    compare(c, "200 B", line(200));
    compare(c, "64 KiB of 80-column lines", lines(64 << 10));
    compare(c, "64 KiB in one line", line(64 << 10));
}

fn compare(c: &mut Criterion, name: &str, data: String) {
    let (id, frame) = finished(&data);
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(frame.len() as u64));

    let hub = hub();
    group.bench_function("publish", |b| b.iter(|| hub.broadcast(ours(black_box(&data)))));
    group.bench_function("event", |b| b.iter(|| ours(black_box(&data))));

    let events = {
        let (id, data) = (id.clone(), data.clone());
        stream::repeat_with(move || Ok::<_, Infallible>(axums(&id, black_box(&data))))
    };
    let mut body = Sse::new(events).into_response().into_body();
    let mut next = move || {
        let frame = body.frame().now_or_never().flatten().expect("the stream is endless");
        frame.expect("it has no errors").into_data().expect("it has no trailers")
    };
    assert_eq!(next().len(), frame.len(), "both write the same fields");
    group.bench_function("axum body", |b| b.iter(&mut next));
    group.bench_function("axum builder", |b| b.iter(|| axums(&id, black_box(&data))));

    group.bench_function("copy", |b| b.iter(|| Bytes::copy_from_slice(black_box(&frame))));
    group.finish();
}

fn ours(data: &str) -> Event {
    Event::new(TYPE).data(data)
}

fn axums(id: &str, data: &str) -> sse::Event {
    sse::Event::default().event(TYPE).id(id).data(data)
}

/// The id and the frame that a hub makes of this data.
fn finished(data: &str) -> (String, Bytes) {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).expect("an open hub lets everybody in");
    stream.next().now_or_never().expect("`hub:open` is there at once");
    let receipt = hub.broadcast(ours(data)).expect("the event is valid");
    let frame = stream.next().now_or_never().flatten().expect("it was published");
    (receipt.id().to_string(), frame)
}

fn hub() -> Hub {
    let builder = Hub::builder(ManualTimer::new()).retain(Retain::events(1));
    builder.build().expect("the settings are valid")
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
