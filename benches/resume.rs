//! The time in which clients that reconnect get the events that they missed.
//!
//! - `many`: 10,000 clients resume, and each is behind by 100 events.
//! - `far`: a client resumes, and is behind by 100,000 events.
//! - `page`: `Hub::read` of the 100 events of a topic, in a log with 0 and with 1,000,000 events of
//!   1,000 other topics. The bound is 50 us. The number of clients is that of the other events.
//!
//! A turn connects the clients and reads until they wait for new events. The row `reading` leaves
//! the connecting out. The peer copies the same frames, of events of 200 bytes, into items of the
//! same size, and does nothing else. The peers take turns.

use std::hint::black_box;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{
    Audience, Event, EventId, Hub, LastEventId, Retain, Subscriber, Subscription, TokioTimer,
};
use tokio::runtime;

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/report.rs"]
mod report;

use report::Bench;

/// The default of `HubBuilder::max_batch_bytes`.
const ITEM: usize = 64 << 10;

fn main() {
    let mut bench = Bench::start("resume");
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    if bench.wants("many") {
        for clients in bench.clients(&[10_000], 100) {
            resume(&mut bench, "many: 100 events each", clients, 100);
        }
    }
    if bench.wants("far") {
        let behind = if bench.is_smoke() { 1_000 } else { 100_000 };
        resume(&mut bench, "far: 100,000 events", 1, behind);
    }
    if bench.wants("page") {
        for others in bench.clients(&[0, 1_000_000], 10_000) {
            page(&mut bench, others);
        }
    }
    bench.finish();
}

/// Reads the events of a topic, which lie between events of other topics.
fn page(bench: &mut Bench, others: usize) {
    const EVENTS: usize = 100;
    let retain = Retain::default().events(others + EVENTS).bytes(usize::MAX).age(None);
    let hub = Hub::builder(TokioTimer::new()).retain(retain).build().expect("valid");
    let data = "x".repeat(200);
    let publish = |topic: &str| {
        let event = Event::new("notification").data(&data);
        hub.send_to_topic(topic, event).expect("valid");
    };
    let names: Vec<String> = (0..1_000).map(|number| format!("other-{number}")).collect();
    for number in 0..EVENTS {
        publish("ours");
        (0..others / EVENTS).for_each(|other| publish(&names[(number + other) % names.len()]));
    }
    let reader = Subscriber::new().user("42").topic("ours");
    let read = || {
        let page = hub.read(&reader, LastEventId::none(), EVENTS).expect("valid");
        assert!(page.events.len() == EVENTS && !page.has_more);
        black_box(page)
    };
    read();
    let rounds = bench.rounds(201, 3);
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = cpu::thread_time();
        drop(read());
        times.push(cpu::thread_time() - start);
    }
    times.sort_unstable();
    for (share, metric) in [(0.5, "page of 100 events, median"), (0.99, "page of 100 events, p99")]
    {
        let time = times[((rounds - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        bench.record("sse-hub", others, metric, time, "us");
    }
}

fn resume(bench: &mut Bench, part: &str, clients: usize, behind: usize) {
    let retain = Retain::default().events(behind + 1).bytes(usize::MAX).age(None);
    let hub = Hub::builder(TokioTimer::new()).retain(retain).build().expect("valid");
    let data = "x".repeat(200);
    let publish = |_| {
        let event = Event::new("notification").data(&data);
        let published = hub.publish_confirmed(Audience::all(), event).expect("valid");
        published.id().expect("the hub has no backplane")
    };
    let ids: Vec<EventId> = (0..=behind).map(publish).collect();
    let frame = |id: &EventId| {
        let event = Event::new("notification").data(&data).id(id.to_string());
        event.encode().expect("valid")
    };
    let frames: Vec<Bytes> = ids[1..].iter().map(frame).collect();
    let bytes: usize = frames.iter().map(Bytes::len).sum();

    let mut times = [Vec::new(), Vec::new()];
    let mut reads = [Vec::new(), Vec::new()];
    for _ in 0..bench.rounds(21, 2) {
        let [start, connected, read] = hub_turn(&hub, ids[0], clients, bytes);
        times[0].push(per_event(read - start, clients * behind));
        reads[0].push(per_event(read - connected, clients * behind));
        let start = cpu::thread_time();
        for _ in 0..clients {
            copy(&frames);
        }
        let time = per_event(cpu::thread_time() - start, clients * behind);
        times[1].push(time);
        reads[1].push(time);
    }
    let [ours, copies] = times;
    bench.compare(part, clients, "ns/event", &[("sse-hub", ours), ("copy", copies)]);
    let [ours, copies] = reads;
    let part = format!("{part}, reading");
    bench.compare(&part, clients, "ns/event", &[("sse-hub", ours), ("copy", copies)]);
}

fn per_event(time: Duration, events: usize) -> f64 {
    time.as_nanos() as f64 / events as f64
}

/// Returns the times of the start, of the moment when all clients are connected, and of the end.
fn hub_turn(hub: &Hub, from: EventId, clients: usize, bytes: usize) -> [Duration; 3] {
    let start = cpu::thread_time();
    let connect = |_| {
        let subscriber = Subscriber::new().resume(LastEventId::from(from));
        let mut stream = hub.subscribe(subscriber).expect("the hub is open");
        stream.next().now_or_never().expect("the opening is there at once");
        stream
    };
    let mut streams: Vec<Subscription> = (0..clients).map(connect).collect();
    let connected = cpu::thread_time();
    for stream in &mut streams {
        let mut read = 0;
        while let Some(item) = stream.next().now_or_never() {
            read += item.expect("the stream goes on").len();
        }
        assert_eq!(read, bytes);
    }
    [start, connected, cpu::thread_time()]
}

/// Copies the frames into items, and drops each item.
fn copy(frames: &[Bytes]) {
    let per_item = ITEM / frames[0].len();
    for frames in frames.chunks(per_item) {
        // A reader of the log holds the frames while it joins them.
        let frames: Vec<Bytes> = frames.to_vec();
        let mut item = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        frames.iter().for_each(|frame| item.put_slice(frame));
        black_box(item.freeze());
    }
}
