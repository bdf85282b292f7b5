//! The time from an event to its bytes on the wire, and until the bytes are freed.
//!
//! | peer | does |
//! |---|---|
//! | `sse-hub` | `Event::new(..).data(..).encode()` |
//! | `axum` | axum's event, read as a frame from the body of an endless `Sse` response: the only public way to the finished bytes. The response is built before. Polling the boxed body takes a few nanoseconds. |
//! | `axum builder` | the same event built and dropped: a lower bound for axum. All fields are written, but the blank line and the `freeze` are missing. |
//! | `warp` | the same with warp's event and reply |
//! | `copy` | an allocation and a copy of a finished frame |
//! | `publish` | the event published by a hub without clients that retains a single event: encoding, id, locks and log |
//!
//! Each event has a type, and data from a `&str`. The peers take turns, and a ratio compares turns of
//! one round.

use std::convert::Infallible;
use std::hint::black_box;

use axum::response::{IntoResponse as _, Sse, sse};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http_body_util::BodyExt as _;
use sse_hub::{Event, Hub, ManualTimer, Retain};
use warp::Reply as _;

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/report.rs"]
mod report;

use report::Bench;

const TYPE: &str = "notification";

fn main() {
    let mut bench = Bench::start("encode");
    for (name, data) in [
        ("200 B", "x".repeat(200)),
        ("4 KiB in one line", "x".repeat(4 << 10)),
        ("64 KiB in one line", "x".repeat(64 << 10)),
        ("1 MiB in one line", "x".repeat(1 << 20)),
        ("4 KiB in 80-column lines", lines(80, 4 << 10)),
        ("64 KiB in 80-column lines", lines(80, 64 << 10)),
        ("64 KiB in 20-column lines", lines(20, 64 << 10)),
        ("1 MiB in 80-column lines", lines(80, 1 << 20)),
    ] {
        if bench.wants(name) {
            compare(&mut bench, name, &data);
        }
    }
    bench.finish();
}

fn lines(columns: usize, len: usize) -> String {
    ("x".repeat(columns - 1) + "\n").repeat(len / columns)
}

fn compare(bench: &mut Bench, name: &str, data: &str) {
    let frame = ours(data).encode().expect("the event is valid");
    let mut axum_body = {
        let data = data.to_string();
        let events = stream::repeat_with(move || Ok::<_, Infallible>(axums(black_box(&data))));
        Sse::new(events).into_response().into_body()
    };
    let mut axum = move || {
        let frame = axum_body.frame().now_or_never().flatten().expect("the stream is endless");
        frame.expect("it has no errors").into_data().expect("it has no trailers")
    };
    assert_eq!(axum(), frame, "both must write the same frame");
    let mut warp_body = {
        let data = data.to_string();
        let events = stream::repeat_with(move || {
            let event = warp::sse::Event::default().event(TYPE);
            Ok::<_, Infallible>(event.data(black_box(data.as_str())))
        });
        warp::sse::reply(events).into_response().into_body()
    };
    let mut warp = move || {
        let frame = warp_body.frame().now_or_never().flatten().expect("the stream is endless");
        frame.expect("it has no errors").into_data().expect("it has no trailers")
    };
    warp();
    let hub = Hub::builder(ManualTimer::new()).retain(Retain::default().events(1)).build();
    let hub = hub.expect("the settings are valid");

    let mut peers: [(&str, &mut dyn FnMut()); 6] = [
        ("sse-hub", &mut || _ = black_box(ours(black_box(data)).encode())),
        ("axum", &mut || _ = black_box(axum())),
        ("axum builder", &mut || _ = black_box(axums(black_box(data)))),
        ("warp", &mut || _ = black_box(warp())),
        ("copy", &mut || _ = black_box(Bytes::copy_from_slice(black_box(&frame)))),
        ("publish", &mut || _ = black_box(hub.broadcast(ours(black_box(data))))),
    ];
    let turns = if bench.is_smoke() { 1 } else { 1_000_000 / (100 + data.len() / 10) + 10 };
    let mut times: Vec<(&str, Vec<f64>)> =
        peers.iter().map(|(peer, _)| (*peer, Vec::new())).collect();
    for _ in 0..bench.rounds(101, 2) {
        for ((peer, encode), (_, times)) in peers.iter_mut().zip(&mut times) {
            if bench.wants_peer(peer) {
                let start = cpu::thread_time();
                (0..turns).for_each(|_| encode());
                times.push((cpu::thread_time() - start).as_nanos() as f64 / turns as f64);
            }
        }
    }
    times.retain(|(_, times)| !times.is_empty());
    bench.compare(name, 0, "ns", &times);
}

fn ours(data: &str) -> Event {
    Event::new(TYPE).data(data)
}

fn axums(data: &str) -> sse::Event {
    sse::Event::default().event(TYPE).data(data)
}
