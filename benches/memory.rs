//! Bytes of an idle client, and allocations of a publish, counted by the allocator.
//!
//! | part | measures |
//! |---|---|
//! | `idle` | the bytes of a stream that was polled until it waits: its queue, its waker, its armed timer, and its share of the hub's tables. Tasks and sockets are not part of it. |
//! | `publish` | allocations of a publish and of the reads, with 1,000 and more clients |
//!
//! The peer is the body of axum's `Sse` with `KeepAlive`, over a receiver of
//! `tokio::sync::broadcast`. The bytes are those that the program asks for: what the allocator adds
//! to an allocation does not count.

use std::alloc::System;
use std::convert::Infallible;
use std::hint::black_box;

use axum::response::{IntoResponse as _, Sse, sse};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use sse_hub::{Audience, Event, Hub, Subscriber, Subscription, TokioTimer};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime;
use tokio::sync::broadcast;

#[path = "support/report.rs"]
mod report;

use report::Bench;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let mut bench = Bench::start("memory");
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    if bench.wants("idle") {
        for clients in bench.clients(&[10_000, 100_000], 1_000) {
            idle(&mut bench, clients);
        }
    }
    if bench.wants("publish") {
        for clients in bench.clients(&[1_000, 100_000], 1_000) {
            publish(&mut bench, clients);
        }
    }
    bench.finish();
}

fn idle(bench: &mut Bench, clients: usize) {
    let hub = || Hub::builder(TokioTimer::new()).build().expect("the settings are valid");
    let mut record = |peer, metric, held: usize| {
        bench.record(peer, clients, metric, held as f64 / clients as f64, "bytes");
    };
    let anonymous = hub();
    record("sse-hub", "idle: anonymous", held(clients, |_| open(&anonymous, Subscriber::new())));
    let named = hub();
    let held_named = held(clients, |client| {
        let subscriber = Subscriber::new().user(format!("user-{client}"));
        let subscriber = subscriber.session(format!("session-{client}"));
        open(&named, subscriber.topic(format!("topic-{}", client % 20)))
    });
    record("sse-hub", "idle: user, session and topic", held_named);
    let (sender, _) = broadcast::channel::<String>(32);
    let held_axum = held(clients, |_| {
        let events = stream::unfold(sender.subscribe(), |mut receiver| async {
            let data: String = receiver.recv().await.ok()?;
            Some((Ok::<_, Infallible>(sse::Event::default().data(data)), receiver))
        });
        let response = Sse::new(events).keep_alive(sse::KeepAlive::new()).into_response();
        let mut body = response.into_body();
        assert!(body.frame().now_or_never().is_none());
        body
    });
    record("axum Sse", "idle: anonymous", held_axum);
}

/// Returns the bytes that the streams hold, and everything that was allocated for them.
fn held<T>(clients: usize, connect: impl FnMut(usize) -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    let streams: Vec<T> = (0..clients).map(connect).collect();
    let change = region.change();
    drop(black_box(streams));
    change.bytes_allocated - change.bytes_deallocated
}

fn open(hub: &Hub, subscriber: Subscriber) -> Subscription {
    let mut stream = hub.subscribe(subscriber).expect("the hub is open");
    stream.next().now_or_never().expect("the opening is there at once");
    // Arms the timer.
    assert!(stream.next().now_or_never().is_none());
    stream
}

fn publish(bench: &mut Bench, clients: usize) {
    const TIMES: usize = 1_000;
    let hub = Hub::builder(TokioTimer::new()).build().expect("the settings are valid");
    let mut streams: Vec<_> = (0..clients)
        .map(|client| {
            let subscriber = Subscriber::new().user(format!("user-{client}"));
            let is_in_topic = client % (clients / 10) == 0;
            open(&hub, if is_in_topic { subscriber.topic("ten") } else { subscriber })
        })
        .collect();
    let client = streams[1].client_id();
    let topic = (0..clients).step_by(clients / 10).collect();
    let audiences = [
        ("publish: to a user, and its read", Audience::user("user-1"), vec![1]),
        ("publish: to a client, and its read", Audience::client(client), vec![1]),
        ("publish: to a topic of 10, and 10 reads", Audience::topic("ten"), topic),
    ];
    let data = "x".repeat(200);
    for (metric, audience, readers) in audiences {
        let mut turn = || {
            let event = Event::new("notification").data(&data);
            hub.publish(audience.clone(), event).expect("valid");
            for &reader in &readers {
                black_box(streams[reader].next().now_or_never().expect("it was published"));
                assert!(streams[reader].next().now_or_never().is_none());
            }
        };
        // The log and the queues grow, until the log evicts.
        (0..10_000).for_each(|_| turn());
        let region = Region::new(ALLOCATOR);
        (0..TIMES).for_each(|_| turn());
        let change = region.change();
        let allocations = (change.allocations + change.reallocations) as f64 / TIMES as f64;
        bench.record("sse-hub", clients, metric, allocations, "allocations");
    }
}
