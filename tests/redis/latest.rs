//! The values of conflation keys: an instance that starts later has the values, also if the stream is
//! short, and after faults of Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use sse_hub::redis::Redis;
use sse_hub::{Audience, Event, EventId, Hub, HubBuilder, Limits, Retain, Subscriber};

use crate::load::{Instance, until};
use crate::server::{Line, Server, Wire};
use crate::support::{data, gaps, names, read};

const LATEST: &str = "{sse-hub}:latest";

/// Retains a few events beside the values.
fn keeping(keys: usize) -> impl FnOnce(HubBuilder) -> HubBuilder {
    move |hub| hub.retain(Retain::default().events(4).keep_latest(keys)).history(None)
}

async fn ready(url: &str, keys: usize) -> Instance {
    let instance = Instance::with(url, |redis| redis, keeping(keys));
    instance.backplane.ready().await;
    instance
}

async fn price(instance: &Instance, symbol: usize, value: usize) -> EventId {
    let event = Event::new("n").data(value.to_string()).conflate(symbol.to_string());
    instance.hub.publish_confirmed(Audience::topic("t"), event).unwrap().await.unwrap()
}

/// Reads the values of a page that opens now.
fn values(hub: &Hub) -> (Vec<String>, Vec<String>) {
    let text = read(&mut hub.subscribe(Subscriber::new().topic("t").latest()).unwrap());
    (data(&text), gaps(&text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn late_instance_begins_with_the_values() {
    let server = Server::start(&[]);
    let here = ready(&server.url(), 100).await;
    for (symbol, value) in [(1, 10), (2, 20), (1, 11)] {
        price(&here, symbol, value).await;
    }
    for number in 0..50 {
        here.publish(&number.to_string()).await;
    }
    // The values are beside the stream.
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 2");
    let there = ready(&server.url(), 100).await;
    assert_eq!(values(&there.hub), (names([20, 11]), vec![]));
    price(&there, 2, 21).await;
    here.until("the new value", |hub| values(hub).0 == names([11, 21])).await;
    here.close().await;
    there.close().await;
    // Only Redis has the values now.
    let late = ready(&server.url(), 100).await;
    assert_eq!(values(&late.hub), (names([11, 21]), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn bound_of_values_holds_and_losses_are_told() {
    let server = Server::start(&[]);
    let here = ready(&server.url(), 3).await;
    for symbol in 0..10 {
        price(&here, symbol, symbol).await;
    }
    assert_eq!(server.run::<u64>("ZCARD {sse-hub}:latest-order"), 3);
    assert_eq!(server.run::<u64>(&format!("HLEN {LATEST}")), 4, "three, and the note of a loss");
    let there = ready(&server.url(), 3).await;
    assert_eq!(values(&there.hub).1, ["evicted"]);
    assert!(values(&there.hub).0.ends_with(&names(7..10)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn forged_values_are_skipped_and_replaced() {
    let server = Server::start(&[]);
    let _: () = server.run(&format!("SET {LATEST} nonsense"));
    let here = ready(&server.url(), 100).await;
    price(&here, 1, 1).await;
    price(&here, 2, 2).await;
    let _: u64 = server.run(&format!("HSET {LATEST} forged nonsense"));
    let there = ready(&server.url(), 100).await;
    assert_eq!(there.hub.stats().malformed, 1);
    assert_eq!(values(&there.hub).0, names([1, 2]));
    // The set that orders the values is replaced, too, and the loss of the other values is noted.
    let _: () = server.run("SET {sse-hub}:latest-order nonsense");
    price(&there, 2, 3).await;
    assert_eq!(server.run::<u64>("ZCARD {sse-hub}:latest-order"), 1);
    let late = ready(&server.url(), 100).await;
    let (got, told) = values(&late.hub);
    assert!(got.ends_with(&names([3])), "{got:?}");
    assert_eq!(told, ["evicted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn emptied_redis_has_only_new_values() {
    let server = Server::start(&[]);
    let here = ready(&server.url(), 100).await;
    price(&here, 1, 1).await;
    here.until("the value", |hub| values(hub).0 == names([1])).await;
    let _: () = server.run("FLUSHALL");
    price(&here, 2, 2).await;
    here.until("the new order", |hub| hub.stats().resets > 0).await;
    here.until("the new value", |hub| values(hub).0 == names([2])).await;
}

/// Symbols, each with the newest confirmed value.
type Newest = BTreeMap<usize, (EventId, usize)>;

/// Publishes values over both instances while `disturb` runs, and returns the newest of each symbol.
async fn publish_during(
    instances: [&Instance; 2],
    from: usize,
    disturb: impl Future<Output = ()>,
) -> Newest {
    let publish = async |at: usize| {
        let mut newest = Newest::new();
        for number in (from + at..from + 120).step_by(2) {
            let id = price(instances[at], number % 9, number).await;
            newest.insert(number % 9, (id, number));
        }
        newest
    };
    let (first, second, ()) = tokio::join!(publish(0), publish(1), disturb);
    let mut newest = first;
    for (symbol, value) in second {
        let known = newest.entry(symbol).or_insert(value);
        *known = value.max(*known);
    }
    newest
}

/// Checks that pages that open now show these values, on both instances and a new one.
async fn check(url: &str, instances: [&Instance; 2], newest: Newest) {
    let mut expected: Vec<_> = newest.into_values().collect();
    expected.sort_unstable();
    let expected = names(expected.into_iter().map(|(_, value)| value));
    let late = ready(url, 100).await;
    for instance in instances.into_iter().chain([&late]) {
        until("the newest values", || {
            let (got, told) = values(&instance.hub);
            assert_eq!(told, [""; 0]);
            got == expected
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn values_are_exact_after_kills_pauses_and_cuts() {
    let mut server = Server::durable();
    let wire = Wire::to(&server).await;
    let (here, there) = (ready(&server.url(), 100).await, ready(&wire.url(), 100).await);
    let url = server.url();
    let some_time = || tokio::time::sleep(Duration::from_millis(50));

    let connections = async {
        for _ in 0..5 {
            some_time().await;
            let _: u32 = server.run("CLIENT KILL TYPE normal SKIPME yes");
        }
    };
    let newest = publish_during([&here, &there], 0, connections).await;
    check(&url, [&here, &there], newest).await;

    let line = async {
        for line in [Line::Silent, Line::Open, Line::Down, Line::Open] {
            some_time().await;
            wire.set(line);
        }
    };
    let newest = publish_during([&here, &there], 1_000, line).await;
    check(&url, [&here, &there], newest).await;

    let pause = async {
        server.pause();
        some_time().await;
        server.resume();
    };
    let newest = publish_during([&here, &there], 2_000, pause).await;
    check(&url, [&here, &there], newest).await;

    let kill = async {
        for _ in 0..2 {
            some_time().await;
            server.kill();
            server.restart();
        }
    };
    let newest = publish_during([&here, &there], 3_000, kill).await;
    check(&url, [&here, &there], newest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn publisher_without_a_hub_writes_the_values() {
    let server = Server::start(&[]);
    let retain = Retain::default().keep_latest(100);
    let publisher = Redis::new(&server.url()).unwrap().publisher().unwrap();
    let publisher = publisher.limits(&Limits::default(), &retain);
    for value in 1..=3 {
        let event = Event::new("n").data(value.to_string()).conflate("a");
        publisher.send_to_topic("t", event).unwrap();
        // Keys and commands in the same batch.
        let other = Event::new("n").data("x").idempotency_key(value.to_string());
        publisher.send_to_topic("t", other).unwrap();
        publisher.leave(Audience::all(), "another").unwrap();
    }
    publisher.flush().await.unwrap();
    // Only Redis has the values now.
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 1");
    let late = ready(&server.url(), 100).await;
    assert_eq!(values(&late.hub), (names([3]), vec![]));
}
