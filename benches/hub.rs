//! The cost of publishing as the number of clients grows.
//!
//! - `send_to_user`: a user with one client among 1,000 and among 1,000,000 connected clients,
//!   published and read.
//! - `read`: a page of 100 events, and the last 20, of a topic among 1,000,000 events of others.
//! - `deliver`: a broadcast to 1,000 and 10,000 clients that all read: the time per client. For
//!   comparison the same over `tokio::sync::broadcast`, bare and within axum's `Sse`.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use axum::response::{IntoResponse as _, Sse, sse};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use sse_hub::{Audience, Event, Hub, LastEventId, Retain, Subscriber, Subscription, TokioTimer};
use tokio::sync::broadcast;

fn hub() -> Hub {
    let builder = Hub::builder(TokioTimer::new()).retain(Retain::default().events(1024));
    builder.build().expect("the settings are valid")
}

fn connected(hub: &Hub, users: usize) -> Vec<Subscription> {
    let connect = |user: usize| {
        let mut stream = hub.subscribe(Subscriber::new().user(user.to_string())).expect("open");
        stream.next().now_or_never().expect("the opening is there at once");
        // Waits, as a served stream does.
        assert!(stream.next().now_or_never().is_none());
        stream
    };
    (0..users).map(connect).collect()
}

fn event() -> Event {
    Event::new("notification").data("x".repeat(200))
}

fn send_to_user(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("tokio");
    let _inside = runtime.enter();
    let mut group = c.benchmark_group("send_to_user");
    for clients in [1_000, 1_000_000] {
        let hub = hub();
        let mut streams = connected(&hub, clients);
        let at = clients / 2;
        let user = at.to_string();
        group.bench_function(BenchmarkId::from_parameter(clients), |b| {
            b.iter(|| {
                hub.send_to_user(user.as_str(), event()).expect("valid");
                streams[at].next().now_or_never()
            });
        });
    }
    group.finish();
}

/// Reads the 100 events of a topic from a log that retains 1,000,000 events of other topics.
fn read(c: &mut Criterion) {
    let retain = Retain::default().events(2_000_000).bytes(1 << 30).age(None);
    let builder = Hub::builder(TokioTimer::new()).retain(retain);
    let hub = builder.build().expect("the settings are valid");
    for number in 0..1_000_000 {
        let topic = if number % 10_000 == 0 { 0 } else { 1 + number % 1000 };
        hub.send_to_topic(topic, event()).expect("valid");
    }
    let who = Subscriber::new().user("ann").topic(0);
    let mut group = c.benchmark_group("read");
    group.bench_function("100 of 1000000", |b| {
        b.iter(|| {
            let page = hub.read(&who, LastEventId::none(), 100).expect("valid");
            assert_eq!((page.events.len(), page.has_more), (100, false));
            page
        });
    });
    group.bench_function("last 20 of 1000000", |b| {
        b.iter(|| hub.recent(Audience::topic(0), 20).expect("valid"));
    });
    group.finish();
}

fn deliver(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("tokio");
    let _inside = runtime.enter();
    let mut group = c.benchmark_group("deliver");
    for clients in [1_000, 10_000] {
        group.throughput(Throughput::Elements(clients as u64));

        let hub = hub();
        let mut streams = connected(&hub, clients);
        group.bench_function(BenchmarkId::new("sse-hub", clients), |b| {
            b.iter(|| {
                hub.broadcast(event()).expect("valid");
                for stream in &mut streams {
                    black_box(stream.next().now_or_never().expect("it was published"));
                    assert!(stream.next().now_or_never().is_none());
                }
            });
        });

        let (sender, receivers) = channel::<Bytes>(clients);
        let mut receivers: Vec<_> = receivers
            .into_iter()
            .map(|receiver| {
                Box::pin(stream::unfold(receiver, |mut receiver| async {
                    let next = receiver.recv().await.ok()?;
                    Some((next, receiver))
                }))
            })
            .collect();
        let frame = event().encode().expect("valid");
        group.bench_function(BenchmarkId::new("bare broadcast", clients), |b| {
            b.iter(|| {
                sender.send(Bytes::copy_from_slice(&frame)).expect("there are receivers");
                for receiver in &mut receivers {
                    black_box(receiver.next().now_or_never().expect("it was sent"));
                    assert!(receiver.next().now_or_never().is_none());
                }
            });
        });

        let (sender, receivers) = channel::<String>(clients);
        let mut bodies: Vec<_> = receivers
            .into_iter()
            .map(|receiver| {
                let events = stream::unfold(receiver, |mut receiver| async {
                    let data: String = receiver.recv().await.ok()?;
                    let event = sse::Event::default().event("notification").data(data);
                    Some((Ok::<_, Infallible>(event), receiver))
                });
                let keep_alive = sse::KeepAlive::new().interval(Duration::from_secs(15));
                Sse::new(events).keep_alive(keep_alive).into_response().into_body()
            })
            .collect();
        for body in &mut bodies {
            assert!(body.frame().now_or_never().is_none());
        }
        group.bench_function(BenchmarkId::new("axum Sse over broadcast", clients), |b| {
            b.iter(|| {
                sender.send("x".repeat(200)).expect("there are receivers");
                for body in &mut bodies {
                    black_box(body.frame().now_or_never().expect("it was sent"));
                    assert!(body.frame().now_or_never().is_none());
                }
            });
        });
    }
    group.finish();
}

fn channel<T: Clone>(receivers: usize) -> (broadcast::Sender<T>, Vec<broadcast::Receiver<T>>) {
    let (sender, first) = broadcast::channel(32);
    let more = (1..receivers).map(|_| sender.subscribe());
    let receivers = std::iter::once(first).chain(more.collect::<Vec<_>>()).collect();
    (sender, receivers)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = send_to_user, read, deliver
}
criterion_main!(benches);
