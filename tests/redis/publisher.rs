//! `Redis::publisher`: a program without a hub publishes to the clients of hubs, and reads nothing.

use std::collections::VecDeque;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use redis::Value;
use sse_hub::redis::{Credentials, NotFlushedCause, Redis, RedisPublisher};
use sse_hub::{
    Audience, Event, EventId, Goodbye, JoinError, Limits, PublishError, Retain, RunLimits,
    RunOptions, Subscriber,
};
use tokio::time::timeout;

use crate::exit::end_under_way;
use crate::faults::check_recovery;
use crate::instances::allow;
use crate::load::{Client, Instance, Load, Source, until};
use crate::processes::{URL, printed};
use crate::server::{DEADLINE, Line, Nobody, Server, Wire};
use crate::support::{data, read};
use crate::told::Told;

fn publisher(url: &str) -> RedisPublisher {
    Redis::new(url).unwrap().publisher().unwrap()
}

fn event(name: impl ToString) -> Event {
    Event::new("n").data(name.to_string())
}

async fn flush(publisher: &RedisPublisher) {
    timeout(DEADLINE, publisher.flush()).await.expect("in time").unwrap();
}

async fn publish(publisher: &RedisPublisher, event: Event) -> EventId {
    let confirmation = publisher.publish_confirmed(Audience::all(), event).unwrap();
    timeout(DEADLINE, confirmation).await.expect("Redis answers").unwrap()
}

/// Connections of a server, without the one that asks.
fn connections(server: &Server) -> usize {
    let clients: String = server.run("CLIENT LIST");
    clients.lines().filter(|line| !line.contains(" cmd=client")).count()
}

fn two_publishers(url: &str) -> Vec<Source> {
    (0..2).map(|_| Source::Publisher(publisher(url))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn cron_job_publishes_and_flushes() {
    let server = Server::start(&[]);
    let url = server.url();
    let there = Instance::with(&url, |redis| redis.prefix("shop"), |hub| hub);
    there.backplane.ready().await;
    let mut page = there.hub.subscribe(Subscriber::new().user(42)).unwrap();
    // The example of the documentation, in a process of its own except for the runtime.
    let job = async move {
        let publisher = Redis::new(&url)?.prefix("shop").publisher()?;
        for order in ["17", "18", "19"] {
            publisher.send_to_user(42, Event::new("shipped").data(order))?;
        }
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(publisher.flush().await?)
    };
    let runtime = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(job)
    });
    runtime.join().unwrap().unwrap();
    let mut text = String::new();
    until("the last event", || {
        text += &read(&mut page);
        text.contains("data: 19\n")
    })
    .await;
    assert!(data(&text).ends_with(&["17".into(), "18".into(), "19".into()]), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn publisher_has_one_connection_and_reads_nothing() {
    let server = Server::start(&[]);
    let _: String = server.run("CONFIG RESETSTAT");
    let publisher = publisher(&server.url());
    assert_eq!(connections(&server), 0, "the first event connects");
    let done = Arc::new(AtomicBool::new(false));
    let most = {
        let (done, port) = (Arc::clone(&done), server.port());
        std::thread::spawn(move || {
            let mut most = 0;
            let mut connection = crate::server::connect(port, DEADLINE).unwrap();
            while !done.load(Ordering::Relaxed) {
                let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut connection).unwrap();
                most = most.max(list.lines().count() - 1);
            }
            most
        })
    };
    for round in 0..200 {
        publisher.broadcast(event(round)).unwrap();
        publisher.join(Audience::user(round), "t").unwrap();
        publish(&publisher, event("confirmed").idempotency_key(round.to_string())).await;
    }
    publisher.finish(Audience::topic("t"), Goodbye::from_static("done")).unwrap();
    flush(&publisher).await;
    done.store(true, Ordering::Relaxed);
    assert_eq!(most.join().unwrap(), 1);
    assert_eq!(connections(&server), 1);
    assert_eq!(server.run::<u32>("XLEN {sse-hub}:events"), 601);

    let commands = server.commands();
    let calls = |name: &str| {
        let found = commands.iter().find(|(known, _)| known == name);
        found.map_or(0, |(_, calls)| *calls)
    };
    // Each round waits for its batch: an event can leave before the rest of its round is there.
    assert!((200..=601).contains(&calls("evalsha")), "{commands:?}");
    // The first entry of an order is taken back, and added in the next millisecond.
    assert_eq!((calls("eval"), calls("xadd"), calls("xdel")), (1, 602, 1), "{commands:?}");
    let own = ["client", "config", "info", "xlen", "hello", "client|list", "config|resetstat"];
    let known = ["evalsha", "eval", "xadd", "xdel", "get", "set", "time"];
    for (name, _) in &commands {
        assert!(known.contains(&name.as_str()) || own.contains(&name.as_str()), "{commands:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn commands_of_a_publisher_reach_clients_in_order() {
    let server = Server::start(&[]);
    let there = Instance::ready(&server.url()).await;
    let publisher = publisher(&server.url());
    let open = || there.hub.subscribe(Subscriber::new().user("ann").session("s9")).unwrap();
    let (mut stays, mut ends) = (open(), open());
    let id = stays.client_id();
    publisher.send_to_topic("t", event("before")).unwrap();
    publisher.join(id, "t").unwrap();
    publisher.send_to_topic("t", event("joined")).unwrap();
    publisher.leave(Audience::user("ann"), "t").unwrap();
    publisher.send_to_topic("t", event("left")).unwrap();
    publisher.join_with_last(ends.client_id(), "t", 2).unwrap();
    publisher.send_to_client(id, event("to the client")).unwrap();
    publisher.send_to_session("s9", event("to the session")).unwrap();
    publisher.send_to_user("bob", event("to another")).unwrap();
    let bye = Goodbye::from_static("done").event(event("bye"));
    publisher.finish(ends.client_id(), bye).unwrap();
    publisher.send_to_user("ann", event("end")).unwrap();
    flush(&publisher).await;
    let (mut first, mut second) = (String::new(), String::new());
    until("the ends of both", || {
        first += &read(&mut stays);
        second += &read(&mut ends);
        first.contains("data: end\n") && second.contains("event: hub:end\n")
    })
    .await;
    assert_eq!(data(&first), ["joined", "to the client", "to the session", "end"]);
    let with_last = ["joined", "left", "to the session", "bye"];
    assert_eq!(data(&second)[..4], with_last, "{second}");
    assert!(second.contains("{\"reason\":\"done\",\"final\":true}"), "{second}");
    publisher.disconnect(Audience::session("s9"), Goodbye::from_static("logout")).unwrap();
    flush(&publisher).await;
    let mut rest = String::new();
    until("the other end", || {
        rest += &read(&mut stays);
        rest.contains("\"reason\":\"logout\"")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn key_of_two_publishers_lands_once() {
    let server = Server::start(&[]);
    let there = Instance::ready(&server.url()).await;
    let mut client = there.client();
    let (one, other) = (publisher(&server.url()), publisher(&server.url()));
    let keyed = || event("once").idempotency_key("order 17");
    let id = publish(&one, keyed()).await;
    assert_eq!(publish(&one, keyed()).await, id);
    assert_eq!(publish(&other, keyed()).await, id);
    assert!(publish(&other, event("end")).await > id);
    client.until("end").await;
    assert_eq!(client.names(), ["once", "end"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_connections_lose_and_repeat_nothing() {
    let server = Server::start(&[]);
    let there = Instance::ready(&server.url()).await;
    let load = Load::of(&[&there], two_publishers(&server.url()), 4);
    let mut times = Vec::new();
    for _ in 0..10 {
        load.goes_on().await;
        assert!(server.run::<u32>("CLIENT KILL TYPE normal SKIPME yes") > 0);
        times.push(load.goes_on().await);
    }
    load.stop().await.check_exact();
    check_recovery(&times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn lost_answers_repeat_no_event() {
    let server = Server::start(&[]);
    let there = Instance::ready(&server.url()).await;
    let wire = Wire::to(&server).await;
    let redis = Redis::new(&wire.url()).unwrap().timeout(Duration::from_millis(200));
    let load = Load::of(&[&there], vec![Source::Publisher(redis.publisher().unwrap())], 4);
    for _ in 0..5 {
        load.goes_on().await;
        // Batches arrive at Redis or do not, and no answer comes back.
        wire.set(Line::Down);
        wire.set(Line::Open);
        load.goes_on().await;
        wire.forget();
    }
    load.stop().await.check_exact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn restarted_redis_loses_and_repeats_nothing() {
    let mut server = Server::durable();
    let (here, there) =
        (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
    let load = Load::of(&[&here, &there], two_publishers(&server.url()), 8);
    let mut times = Vec::new();
    for _ in 0..5 {
        load.goes_on().await;
        server.kill();
        server.restart();
        times.push(load.goes_on().await);
    }
    load.stop().await.check_exact();
    check_recovery(&times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn events_wait_while_redis_is_away() {
    let mut server = Server::durable();
    let there = Instance::ready(&server.url()).await;
    let mut client = there.client();
    let redis = Redis::new(&server.url()).unwrap().timeout(Duration::from_millis(100));
    let publisher = redis.outbox(50, 1 << 20).publisher().unwrap();
    publish(&publisher, event("first")).await;
    // The timeout is short for a busy machine.
    assert!(publisher.last_error().is_none_or(|error| error.is_resolved));
    server.kill();
    for number in 0..50 {
        publisher.broadcast(event(number)).unwrap();
    }
    assert_eq!(publisher.broadcast(event("too many")), Err(PublishError::Backlog));
    assert_eq!(publisher.join(Audience::all(), "t"), Err(JoinError::Backlog));
    let start = Instant::now();
    let error = timeout(DEADLINE, publisher.flush()).await.expect("in time").unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!((error.left, publisher.waiting()), (50, 50));
    assert!(matches!(&error.cause, NotFlushedCause::Failed(cause) if !cause.is_empty()));
    assert!(error.to_string().starts_with("unacknowledged events: 50; "), "{error}");
    assert!(publisher.last_error().is_some_and(|error| !error.is_resolved));
    server.restart();
    flush(&publisher).await;
    assert_eq!(publisher.waiting(), 0);
    let is_resolved = || publisher.last_error().is_some_and(|error| error.is_resolved);
    until("a publisher that works", is_resolved).await;
    publisher.broadcast(event("last")).unwrap();
    client.until("last").await;
    let expected = (0..50).map(|number| number.to_string());
    let all: Vec<_> = ["first".to_owned()].into_iter().chain(expected).collect();
    assert_eq!(client.names()[..51], all);
    assert_eq!((client.seen.len(), client.gaps.len()), (52, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn slow_line_does_not_fail_a_flush() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let limit = Duration::from_millis(600);
    let publisher = Redis::new(&wire.url()).unwrap().timeout(limit).publisher().unwrap();
    publish(&publisher, event("first")).await;
    wire.limit(1 << 20);
    for _ in 0..64 {
        publisher.broadcast(event("x".repeat(64 << 10))).unwrap();
    }
    let start = Instant::now();
    flush(&publisher).await;
    assert!(start.elapsed() > 5 * limit, "the whole takes longer than a flush may stand still");
    assert_eq!(server.run::<u32>("XLEN {sse-hub}:events"), 65);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn flush_waits_only_for_events_before_it() {
    let server = Server::start(&[]);
    let publisher = publisher(&server.url());
    flush(&publisher).await;
    publish(&publisher, event("first")).await;
    server.pause();
    publisher.broadcast(event("before")).unwrap();
    let flushing = publisher.flush();
    // A flush that is dropped has no effect.
    assert!(publisher.flush().now_or_never().is_none());
    publisher.broadcast(event("after")).unwrap();
    let confirmation = publisher.publish_confirmed(Audience::all(), event("last")).unwrap();
    assert_eq!(confirmation.id(), None);
    server.resume();
    timeout(DEADLINE, flushing).await.unwrap().unwrap();
    flush(&publisher).await;
    assert!(confirmation.id().is_some(), "confirmed when the flush is over");
    assert_eq!(server.run::<u32>("XLEN {sse-hub}:events"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn wrong_password_fails_the_flush_with_its_cause() {
    let server = Server::start(&[]);
    let _: String = server.run("CONFIG SET requirepass secret");
    let url = format!("redis://:wrong@127.0.0.1:{}", server.port());
    let redis = Redis::new(&url).unwrap().timeout(Duration::from_millis(100));
    let publisher = redis.publisher().unwrap();
    publisher.broadcast(event("x")).unwrap();
    let error = timeout(DEADLINE, publisher.flush()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("Password authentication failed"), "{error}");
    assert!(!error.to_string().contains(":wrong@"), "{error}");
}

/// Creates the user of the guide's ACL line for publishers, with `more` rights. Returns the line.
pub(crate) fn allow_worker(server: &Server, more: &str) -> &'static str {
    allow(server, "worker", more)
}

fn worker(server: &Server) -> RedisPublisher {
    let url = format!("redis://worker:secret@127.0.0.1:{}", server.port());
    Redis::new(&url).unwrap().prefix("shop").publisher().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn acl_line_for_publishers_is_exact() {
    let server = Server::start(&[]);
    let line = allow_worker(&server, "");
    let _: String = server.run("CONFIG RESETSTAT");
    let publisher = worker(&server);
    publish(&publisher, event("1").idempotency_key("one")).await;
    publish(&publisher, event("1").idempotency_key("one")).await;
    // Rare events: the clock went back, an entry from the far future, and a full memory.
    let _: String = server.run("SET {shop}:last 2000000000000-0");
    publish(&publisher, event("2")).await;
    let _: String = server.run("XADD {shop}:events 18446744073709551615-18446744073709551615 x y");
    publish(&publisher, event("3")).await;
    let _: String = server.run("CONFIG SET maxmemory 1");
    publisher.broadcast(event("4")).unwrap();
    until("a full Redis", || publisher.last_error().is_some()).await;
    let _: String = server.run("CONFIG SET maxmemory 0");
    flush(&publisher).await;
    assert_eq!(server.run::<Vec<Value>>("ACL LOG"), []);
    let used = server.commands();
    for command in line.split(" +").skip(1) {
        assert!(used.iter().any(|(name, _)| name == command), "{command} is never used");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn event_whose_value_is_refused_is_published_once() {
    let server = Server::start(&[]);
    allow_worker(&server, "");
    let _: u64 = server.run("HSET {shop}:latest another value");
    let retain = Retain::default().keep_latest(1);
    let publisher = worker(&server).limits(&Limits::default(), &retain);
    for name in ["1", "2"] {
        publish(&publisher, event(name).conflate(name)).await;
        until("an error", || publisher.last_error().is_some_and(|error| !error.is_resolved)).await;
    }
    let error = publisher.last_error().unwrap();
    assert!(error.cause.contains("value not kept: "), "{error}");
    // As worded by Redis 6.2, and by later versions.
    let refusals = ["can't run this command", "ACL failure in script"];
    assert!(refusals.iter().any(|refusal| error.cause.contains(refusal)), "{error}");
    assert_eq!(server.run::<u32>("XLEN {shop}:events"), 2);
    assert_eq!(server.run::<u64>("HLEN {shop}:latest"), 1, "the values of others stay");
    // With the rights of the guide, beyond the bound of the values too.
    allow_worker(&server, "+hdel +hset +zadd +zcard +zpopmin");
    for name in ["3", "4"] {
        publish(&publisher, event(name).conflate(name)).await;
    }
    until("a publisher that works", || publisher.last_error().unwrap().is_resolved).await;
    assert_eq!(server.run::<u64>("ZCARD {shop}:latest-order"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn rights_for_runs_of_publishers_are_exact() {
    let server = Server::start(&[]);
    let rights = "+hdel +hget +hset +pexpire +xrange +zadd";
    allow_worker(&server, rights);
    let _: String = server.run("CONFIG RESETSTAT");
    let url = format!("redis://worker:secret@127.0.0.1:{}", server.port());
    let limits = RunLimits::default().bytes_per_run(4096);
    let redis = Redis::new(&url).unwrap().prefix("shop").run_limits(limits);
    let publisher = redis.publisher().unwrap();
    publisher.stop_run("unknown", "user").unwrap();
    let run = publisher.start_run("job", RunOptions::default()).unwrap();
    timeout(DEADLINE, run.started()).await.expect("Redis answers").unwrap();
    for _ in 0..100 {
        run.publish(event("x".repeat(100))).unwrap();
    }
    run.finish(None).unwrap();
    flush(&publisher).await;
    assert_eq!(publisher.last_error().map(|error| error.cause), None);
    assert_eq!(server.run::<Vec<Value>>("ACL LOG"), []);
    let used = server.commands();
    for command in rights.split(" +").map(|name| name.trim_start_matches('+')) {
        assert!(used.iter().any(|(name, _)| name == command), "{command} is never used");
    }
    let length: usize = server.run("XLEN {shop}:run:job");
    assert!((2..40).contains(&length), "{length}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn late_instance_knows_of_joins_by_publishers() {
    let server = Server::start(&[]);
    allow_worker(&server, "");
    let publisher = worker(&server);
    // The instance with the client is killed before it announces the client.
    let client = "00112233445566778899aabbccddeeff".parse().unwrap();
    publisher.join(Audience::client(client), "room").unwrap();
    let position = publish(&publisher, event("1")).await;
    let _: u64 = server.run("XTRIM {shop}:events MAXLEN 1");
    let late = Instance::with(&server.url(), |redis| redis.prefix("shop"), |hub| hub);
    late.backplane.ready().await;
    let claim = Subscriber::new().client_id(client).resume(position);
    assert!(!late.hub.subscribe(claim).unwrap().is_resumed(), "its topics are unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn each_connection_asks_for_the_credentials() {
    let server = Server::start(&[]);
    allow_worker(&server, "");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // Those of the address are not used.
    let url = format!("redis://nobody:wrong@127.0.0.1:{}", server.port());
    let redis = Redis::new(&url).unwrap().prefix("shop").credentials(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let password = if number == 0 { "secret" } else { "rotated" };
        async move { Ok::<_, std::io::Error>(Credentials::new("worker", password)) }
    });
    let publisher = redis.publisher().unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    publish(&publisher, event("1")).await;
    let _: String = server.run("ACL SETUSER worker resetpass >rotated");
    let _: u32 = server.run("CLIENT KILL USER worker");
    publish(&publisher, event("2")).await;
    // More often only if a busy machine is late for a connection.
    assert!(asked.load(Ordering::Relaxed) >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn limits_of_the_hubs_apply() {
    let server = Server::start(&[]);
    let there = Instance::with(
        &server.url(),
        |redis| redis,
        |hub| hub.limits(Limits::default().name_len(1_000)),
    );
    there.backplane.ready().await;
    let name = "x".repeat(1_000);
    let mut page = there.hub.subscribe(Subscriber::new().user(&name)).unwrap();
    let publisher = publisher(&server.url());
    let refused = publisher.send_to_user(&name, event("refused"));
    assert!(matches!(refused, Err(PublishError::Audience(_))), "{refused:?}");
    assert_eq!(publisher.waiting(), 0, "a refused event has no effect");
    let limits = Limits::default().name_len(1_000);
    let publisher = publisher.limits(&limits, &Retain::default().bytes(10_000));
    publisher.send_to_user(&name, event("taken")).unwrap();
    let large = publisher.broadcast(event("x".repeat(10_000)));
    assert!(matches!(large, Err(PublishError::TooLarge { limit: 10_000, .. })), "{large:?}");
    let mut text = String::new();
    until("the event", || {
        text += &read(&mut page);
        text.contains("data: taken\n")
    })
    .await;
}

// The tests of the end run on a single thread, where `tracing` is recorded.

const LEFT: &str = "publisher ended with unacknowledged events";

#[tokio::test]
async fn events_left_at_the_drop_are_counted() {
    let nobody = Nobody::new();
    for count in [0, 1, 100, 1_000, 1_025, 3_000] {
        for has_started in [false, true] {
            let (told, _guard) = Told::record();
            let publisher = publisher(&format!("redis://127.0.0.1:{}", nobody.port()));
            let clone = publisher.clone();
            let mut waiting = Vec::new();
            for number in 0..count {
                waiting.push(publisher.publish_confirmed(Audience::all(), event(number)).unwrap());
            }
            if has_started && count > 0 {
                until("an attempt", || publisher.last_error().is_some()).await;
            }
            let flushing = publisher.flush();
            drop(publisher);
            assert!(!told.contains(LEFT), "another handle is left");
            drop(clone);
            // Counted by the drop itself, and once.
            let text = told.text();
            assert_eq!(text.matches(LEFT).count(), usize::from(count > 0), "{text}");
            if count > 0 {
                assert!(text.contains(&format!("left={count} ")), "{text}");
                let error = timeout(DEADLINE, flushing).await.unwrap().unwrap_err();
                assert_eq!((error.left, error.cause), (count, NotFlushedCause::Ended));
            }
            for confirmation in waiting {
                assert!(timeout(DEADLINE, confirmation).await.unwrap().is_err());
            }
            tokio::task::yield_now().await;
            assert_eq!(told.text().matches(LEFT).count(), usize::from(count > 0));
        }
    }
}

#[test]
fn events_left_at_the_end_of_the_runtime_are_counted() {
    let (told, _guard) = Told::record();
    let nobody = Nobody::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let publisher = runtime.block_on(async {
        let publisher = publisher(&format!("redis://127.0.0.1:{}", nobody.port()));
        for number in 0..7 {
            publisher.broadcast(event(number)).unwrap();
        }
        tokio::task::yield_now().await;
        publisher
    });
    drop(runtime);
    assert!(told.contains("left=7 "), "{}", told.text());
    assert_eq!(publisher.broadcast(event("late")), Err(PublishError::Closed));
    let flushed = futures_executor::block_on(publisher.flush()).unwrap_err();
    assert_eq!((flushed.left, flushed.cause), (7, NotFlushedCause::Ended));
    drop(publisher);
    assert_eq!(told.text().matches(LEFT).count(), 1, "counted once");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn events_left_with_a_batch_under_way_are_counted() {
    let (told, _guard) = Told::record();
    let server = Server::start(&[]);
    let source = Source::Publisher(publisher(&server.url()));
    end_under_way(&server, &told, source, async |source| drop(source)).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn outage_is_logged_once_with_its_end() {
    let (told, _guard) = Told::record();
    let mut server = Server::start(&[]);
    let publisher = publisher(&server.url());
    publish(&publisher, event("1")).await;
    assert!(!told.contains("publisher"), "{}", told.text());
    server.kill();
    publisher.broadcast(event("2")).unwrap();
    until("an outage", || publisher.last_error().is_some()).await;
    server.restart();
    flush(&publisher).await;
    drop(publisher);
    let text = told.text();
    assert_eq!(text.matches("publisher cannot reach Redis").count(), 1, "{text}");
    assert_eq!(text.matches("publisher reaches Redis again").count(), 1, "{text}");
    assert!(!text.contains(LEFT), "{text}");
}

/// The number of events that the killed process publishes.
const EVENTS: usize = 2_000;

/// Not a test: another test runs this as a process, and kills it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs redis-server"]
async fn process() {
    let Ok(url) = std::env::var(URL) else { return };
    let publisher = publisher(&url);
    let mut waiting = VecDeque::new();
    for number in 0..EVENTS {
        // A job that starts again begins at the first event.
        let event = event(number).idempotency_key(number.to_string());
        waiting.push_back(publisher.publish_confirmed(Audience::all(), event).unwrap());
        if waiting.len() == 16 {
            waiting.pop_front().unwrap().await.unwrap();
            println!("\nconfirmed {}", number - 15);
        }
    }
    publisher.flush().await.unwrap();
    println!("\nconfirmed {}", EVENTS - 1);
}

/// Starts the process, and waits until it says that the event is confirmed.
fn until_confirmed(server: &Server, number: usize) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "publisher::process"])
        .env(URL, server.url())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let wanted = format!("confirmed {number}");
    let said = printed(&mut child, move |line| (line == wanted).then_some(()));
    if said.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    assert_eq!(said, Ok::<(), mpsc::RecvTimeoutError>(()), "{number}");
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_process_repeats_nothing_when_it_starts_again() {
    let server = Server::start(&[]);
    let there = Instance::ready(&server.url()).await;
    let mut client: Client = there.client();
    let mut cut = 0;
    for kill in 0..8 {
        let mut child = until_confirmed(&server, 100 + 180 * kill);
        child.kill().unwrap();
        child.wait().unwrap();
        let length: usize = server.run("XLEN {sse-hub}:events");
        cut += usize::from(length < EVENTS);
    }
    assert_eq!(cut, 8, "each process was killed among its events");
    let mut child = until_confirmed(&server, EVENTS - 1);
    assert!(child.wait().unwrap().success());
    there.publish("end").await;
    client.until("end").await;
    let expected: Vec<String> = (0..EVENTS).map(|number| number.to_string()).collect();
    let seen: Vec<&str> = client.names();
    assert_eq!(seen[..seen.len() - 1], expected, "each once, in order");
    assert_eq!(client.gaps, [""; 0]);
}
