//! `Retain`, `RunLimits`, `HubBuilder::window` and `Limits::remembered` must bound the memory of a
//! hub, and a streamed snapshot must not be held as a whole: the allocator counts.
//!
//! A single test, because tests of the same binary share the allocator.

mod support;

use std::alloc::System;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cap::Cap;
use futures_util::{StreamExt as _, stream};
use sse_hub::{
    Audience, Event, Hub, Limits, Retain, Run, RunLimits, RunOptions, Subscriber, Subscription,
};
use support::{hub_with, poll, read};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const EVENTS: usize = 1_000;
const WINDOW: usize = 32;

/// The bookkeeping of an event, from the documentation of `Retain`.
const PER_EVENT: usize = 700;

/// The audiences of the last 256 evicted events, from the documentation of `Retain`.
const COMBINED: usize = 2 << 20;

/// Returns a name of 256 bytes, the default limit.
fn long(number: usize) -> String {
    format!("{number:x>256}")
}

/// Returns `count` names, which differ from the names of every other event.
fn names(event: usize, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |name| long(event * count + name))
}

type Publish = fn(&Hub, usize);

const LOADS: [(&str, Publish); 12] = [
    ("tiny, for every client", |hub, _| send(hub, Audience::all(), Event::new("x"))),
    ("tiny, each for a user", |hub, n| send(hub, Audience::user(n.to_string()), Event::new("x"))),
    ("tiny, each for a long name", |hub, n| send(hub, Audience::user(long(n)), Event::new("x"))),
    ("tiny, each for 64 topics", |hub, n| {
        send(hub, Audience::topics(names(n, 64)), Event::new("x"));
    }),
    ("tiny, for the same 64 topics", |hub, _| {
        send(hub, Audience::topics(names(0, 64)), Event::new("x"));
    }),
    ("tiny, combined: each for all but 64 users", |hub, n| {
        send(hub, Audience::all().except(Audience::users(names(n, 64))), Event::new("x"));
    }),
    ("tiny, combined: each for 16 pairs", |hub, n| {
        let pair = |name: String| Audience::user(name).and(Audience::session(long(n)));
        send(hub, names(n, 16).map(pair).reduce(Audience::or).unwrap(), Event::new("x"));
    }),
    ("tiny, each with a conflation key", |hub, n| {
        send(hub, Audience::all(), Event::new(long(n)).conflate(long(n)));
    }),
    ("tiny, with one of 100 conflation keys", |hub, n| {
        send(hub, Audience::all(), Event::new(long(0)).conflate(long(n % 100)));
    }),
    ("tiny, conflated for 16 topics each", |hub, n| {
        send(hub, Audience::topics(names(n, 16)), Event::new("x").conflate(long(n)));
    }),
    ("many lines", |hub, n| {
        send(hub, Audience::all(), Event::new("x").data("\n".repeat(n % 2_000)));
    }),
    ("long lines", |hub, n| {
        send(hub, Audience::all(), Event::new("x").data("x".repeat(n * 37 % 9_000)));
    }),
];

/// Values with many audiences.
const VALUES: [(&str, Publish); 3] = [
    ("a value for each user", |hub, n| {
        send(hub, Audience::user(n.to_string()), Event::new("x").conflate("count"));
    }),
    ("a value of each topic, changed often", |hub, n| {
        send(hub, Audience::topic((n % 700).to_string()), Event::new("x").conflate("count"));
    }),
    ("combined: a value for all but a user", |hub, n| {
        let audience = Audience::all().except(Audience::user(long(n)));
        send(hub, audience, Event::new("x").conflate("count"));
    }),
];

fn send(hub: &Hub, audience: Audience, event: Event) {
    hub.publish(audience, event).unwrap();
}

/// Returns the most bytes that a hub held for its events, and the most that it counted.
fn held(publish: Publish, retain: Retain) -> (usize, usize) {
    let before = ALLOCATOR.allocated();
    let (hub, _) = hub_with(|hub| hub.retain(retain));
    let (mut most, mut counted) = (0, 0);
    for round in 0..3 {
        for number in 0..EVENTS {
            publish(&hub, round * EVENTS + number);
        }
        most = most.max(ALLOCATOR.allocated() - before);
        counted = counted.max(hub.stats().retained_bytes);
    }
    (most, counted)
}

/// Publishes an event to one of the runs.
type Tell = fn(&[Run], usize);

/// The runs, and how each event is published.
const RUN_LOADS: [(&str, usize, Tell); 7] = [
    ("an answer of tokens", 1, |runs, n| tell(&runs[0], Event::new("token").data(word(n)))),
    ("an answer of empty tokens", 1, |runs, _| tell(&runs[0], Event::new("token").data(""))),
    ("an answer of lines", 1, |runs, n| {
        tell(&runs[0], Event::new("token").data("\n".repeat(n % 400)));
    }),
    ("many short answers", 500, |runs, n| {
        tell(&runs[n % 500], Event::new("token").data(word(n)));
    }),
    ("a job of small events", 1, |runs, _| tell(&runs[0], Event::new("x"))),
    ("jobs with progress", 50, |runs, n| {
        tell(&runs[n % 50], Event::new("progress").data(word(n)).conflate(long(n % 3)));
    }),
    ("tokens and large events", 20, |runs, n| {
        let event = if n % 5 == 0 { Event::new("tool") } else { Event::new("token") };
        tell(&runs[n % 20], event.data("x".repeat(if n % 5 == 0 { n % 9_000 } else { 4 })));
    }),
];

fn word(number: usize) -> String {
    format!("w{} ", number % 100)
}

fn tell(run: &Run, event: Event) {
    run.publish(event).unwrap();
}

/// Returns the most bytes that a hub held for its runs, and the most that it counted. `events`: how
/// many are published.
fn held_by_runs(runs: usize, tell: Tell, limits: RunLimits, events: usize) -> (usize, usize) {
    let before = ALLOCATOR.allocated();
    let (hub, _) = hub_with(|hub| hub.runs(limits));
    let start = |number| {
        let options = RunOptions::default().append("token").take_over(true);
        hub.start_run(long(number), options).unwrap()
    };
    let mut producers: Vec<Run> = (0..runs).map(start).collect();
    let (mut most, mut counted) = (0, 0);
    for number in 0..events {
        tell(&producers, number);
        if number % 10_000 == 9_999 {
            // Ended runs count too.
            producers[number / 10_000 % runs].finish(None).unwrap();
            producers[number / 10_000 % runs] = start(number / 10_000 % runs);
        }
        if number % 100 == 0 {
            most = most.max(ALLOCATOR.allocated() - before);
            counted = counted.max(hub.stats().run_bytes);
        }
    }
    (most, counted)
}

/// Returns the bytes that a hub holds for each client that does not read, after the client's events
/// were evicted.
fn held_for_a_stalled_client() -> usize {
    const CLIENTS: usize = 500;
    let (hub, _) = hub_with(|hub| hub.window(WINDOW).retain(Retain::default().events(EVENTS)));
    let user = |client: usize| Audience::user(client.to_string());
    let subscribe = |client: usize| {
        let mut stream = hub.subscribe(Subscriber::new().user(client.to_string())).unwrap();
        read(&mut stream);
        stream
    };
    let streams: Vec<_> = (0..CLIENTS).map(subscribe).collect();
    let evict = || {
        (0..2 * EVENTS).for_each(|_| send(&hub, Audience::user("other"), Event::new("x")));
    };
    evict();
    let before = ALLOCATOR.allocated();
    for client in 0..CLIENTS {
        (0..WINDOW).for_each(|_| send(&hub, user(client), Event::new("x").data("y".repeat(500))));
    }
    evict();
    let held = ALLOCATOR.allocated().saturating_sub(before);
    drop(streams);
    held / CLIENTS
}

/// Returns the bytes that a client holds which does not read the newest events of a text, of at most
/// 1 KiB each. Each client reads another run, so that no two clients share an event.
fn held_for_a_reader_of_a_text(data: &str) -> usize {
    const CLIENTS: usize = 200;
    let (hub, _) = hub_with(|hub| hub.runs(RunLimits::default().bytes(1 << 30)));
    let mut readers: Vec<(Run, Subscription)> = (0..CLIENTS)
        .map(|client| {
            let options = RunOptions::default().append("token");
            let run = hub.start_run(long(client), options).unwrap();
            let mut stream = hub.subscribe(Subscriber::new().run(long(client))).unwrap();
            read(&mut stream);
            (run, stream)
        })
        .collect();
    for (run, _) in &readers {
        (0..8).for_each(|_| tell(run, Event::new("token").data(data)));
    }
    let unread = ALLOCATOR.allocated();
    for (_, stream) in &mut readers {
        let text = read(stream);
        assert_eq!(text.matches("event: token").count(), 8, "the client held the events itself");
        assert!(text.len() <= 8 * 1024);
    }
    unread.saturating_sub(ALLOCATOR.allocated()) / CLIENTS
}

/// Returns the most bytes that a snapshot held which the application reads meanwhile, and the bytes
/// of the whole snapshot.
fn held_by_a_streamed_snapshot() -> (usize, usize) {
    const PARTS: usize = 20_000;
    let (hub, _) = hub_with(|hub| hub);
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    let before = ALLOCATOR.allocated();
    let most = Arc::new(AtomicUsize::new(0));
    let held = Arc::clone(&most);
    let parts = stream::iter(0..PARTS).map(move |_| {
        held.fetch_max(ALLOCATOR.allocated().saturating_sub(before), Ordering::Relaxed);
        Ok::<_, Infallible>(Event::new("row").data("y".repeat(1_000)))
    });
    let mut stream = stream.with_snapshot_stream(parts).unwrap();
    let mut bytes = 0;
    while let Some(Some(item)) = poll(&mut stream) {
        bytes += item.len();
    }
    (most.load(Ordering::Relaxed), bytes)
}

/// Returns the most bytes that a hub held for clients that left, of which it remembers some. The
/// names of each client have `len` bytes and differ from all others.
fn held_for_departed_clients(remembered: usize, topics: usize, len: usize) -> usize {
    let before = ALLOCATOR.allocated();
    let limits = Limits::default().remembered(remembered);
    let (hub, _) = hub_with(|hub| hub.limits(limits));
    let mut most = 0;
    for number in 0..3 * CLIENTS {
        let name = |kind: usize| format!("{:x>len$}", number * 100 + kind);
        let stream = hub.subscribe(Subscriber::new().user(name(0)).session(name(1))).unwrap();
        for topic in 0..topics {
            hub.join(stream.client_id(), name(2 + topic)).unwrap();
        }
        drop(stream);
        most = most.max(ALLOCATOR.allocated() - before);
    }
    most
}

/// The clients that a hub remembers here.
const CLIENTS: usize = 2_000;

/// Compares the memory of remembered clients with the equation at `Limits::remembered`.
fn remembered_clients_are_bounded() {
    for (topics, len) in [(0, 20), (1, 20), (8, 20), (64, 20), (4, 256)] {
        let without = held_for_departed_clients(0, topics, len);
        let held = held_for_departed_clients(CLIENTS, topics, len) - without;
        let bound = CLIENTS * (1200 + 2 * len + topics * (400 + len));
        println!("{} B for a client with {topics} topics of {len} B", held / CLIENTS);
        assert!(held <= bound, "{topics} topics of {len} bytes: {held} of {bound}");
    }
}

/// Returns the loads of which the kept values hold more than the bound in the documentation of
/// `Retain::keep_latest`. The retention holds a single event.
fn over_the_bound_of_values() -> Vec<&'static str> {
    let mut over = Vec::new();
    let conflated = LOADS.into_iter().filter(|(load, _)| load.contains("conflat"));
    for (load, publish) in conflated.chain(VALUES) {
        for bytes in [usize::MAX, 1 << 20] {
            let retain = Retain::default().events(1).keep_latest(EVENTS).latest_bytes(bytes);
            let (held, counted) = held(publish, retain);
            let bound = counted + counted / 4 + 2 * PER_EVENT * EVENTS.max(1_024);
            let bound = if load.contains("combined") { bound + COMBINED } else { bound };
            println!("values, {load}: {held} held, {counted} counted, at most {bound}");
            over.extend((held > bound).then_some(load));
        }
    }
    over
}

#[test]
fn retention_bounds_the_memory_of_events() {
    let mut over = over_the_bound_of_values();
    for (load, publish) in LOADS {
        for bytes in [usize::MAX, 1 << 20] {
            let retain = Retain::default().events(EVENTS).bytes(bytes);
            let (held, counted) = held(publish, retain);
            let bound = counted + counted / 4 + PER_EVENT * EVENTS.max(1_024);
            let bound = if load.contains("combined") { bound + COMBINED } else { bound };
            println!("{load}: {held} held, {counted} counted, at most {bound}");
            over.extend((held > bound).then_some(load));
        }
    }
    for (load, runs, tell) in RUN_LOADS {
        for bytes in [300_000, 2 << 20] {
            let limits = RunLimits::default().bytes(bytes).bytes_per_run(bytes / 2);
            // Without a restart of the run in between, and with.
            for events in [999, 30_000] {
                let (held, counted) = held_by_runs(runs, tell, limits, events);
                // From the documentation of `RunLimits`.
                let bound = counted + counted / 4 + 1024 * runs;
                println!("{load}, {bytes}: {held} held, {counted} counted, at most {bound}");
                assert!(counted <= bytes);
                over.extend((held > bound).then_some(load));
            }
        }
    }
    assert!(over.is_empty(), "more held than the bound: {over:?}");
    let (held, bytes) = held_by_a_streamed_snapshot();
    println!("{held} bytes held of a snapshot of {bytes} bytes");
    // An item of 64 KiB, in a vector that grew by doubling, and its copy.
    assert!(bytes > 16 << 20 && held < 256 << 10, "{held} bytes held of {bytes}");
    let held = held_for_a_stalled_client();
    println!("{held} bytes for a client that does not read");
    assert!(held <= 48 * WINDOW + 256, "{held} bytes for a client that does not read");
    // Frames of nearly 1 KiB: of one line, and of many, whose buffer grows.
    for data in ["y".repeat(970), "\n".repeat(138)] {
        let held = held_for_a_reader_of_a_text(&data);
        println!("{held} bytes for a client that does not read a text");
        // From the documentation of `RunLimits`.
        assert!(held > 8 << 10 && held <= 14 << 10, "{held} bytes for {} of data", data.len());
    }
    remembered_clients_are_bounded();
}
