//! Several hubs act as a single hub.

use sse_hub::{
    Audience, Event, EventId, PublishError, Retain, RunLimits, RunOptions, RunState, Subscriber,
};

use crate::load::{Instance, Load, until};
use crate::server::{DEADLINE, Server, connect_to};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn event_has_one_id_on_all_instances() {
    let server = Server::start(&[]);
    let (here, there) =
        (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
    let mut clients = [here.client(), there.client()];
    let id = here.publish("1").await;
    let next = there.publish("2").await;
    assert!(next > id);
    for client in &mut clients {
        client.until("2").await;
        assert_eq!(client.seen, [(id, "1".to_owned()), (next, "2".to_owned())]);
    }
    let last: Vec<(String, Vec<String>)> = server.run("XREVRANGE {sse-hub}:events + - COUNT 1");
    assert_eq!(last[0].0, next.to_string(), "the entry's id is the event's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn audience_filter_and_conflation_hold_across_instances() {
    let server = Server::start(&[]);
    let (here, there) =
        (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
    let who = Subscriber::new().user("ann").topic("t,:\u{0}|").event_types(["n"]);
    let mut stream = there.hub.subscribe(who).unwrap();
    let mut other = there.client();
    let publish = |audience: Audience, event: Event| here.hub.publish(audience, event).unwrap();
    publish(Audience::user("bob"), Event::new("n").data("not hers"));
    publish(Audience::user("ann"), Event::new("other").data("not wanted"));
    publish(Audience::topic("t"), Event::new("n").data("another topic"));
    let topic = Audience::topic("t,:\u{0}|").except(Audience::user("bob"));
    publish(topic, Event::new("n").data("hers"));
    for price in ["1", "2", "3"] {
        publish(Audience::user("ann"), Event::new("n").data(price).conflate("acme"));
    }
    here.publish("end").await;
    // The instance hands an event to all clients at once.
    other.until("end").await;
    let text = crate::support::read(&mut stream);
    assert_eq!(crate::support::data(&text), ["hers", "3", "end"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn late_instance_has_the_missed_events() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let mut client = here.client();
    here.publish("1").await;
    client.until("1").await;
    client.disconnect();
    for name in ["2", "3", "4"] {
        here.publish(name).await;
    }
    here.close().await;

    let there = Instance::ready(&server.url()).await;
    client.connect(&there.hub);
    client.until("4").await;
    assert_eq!(client.names(), ["1", "2", "3", "4"]);
    assert_eq!(client.gaps, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn older_events_are_a_gap_without_history() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let mut client = here.client();
    here.publish("1").await;
    client.until("1").await;
    client.disconnect();
    for number in 2..=700 {
        here.hub.broadcast(Event::new("n").data(number.to_string())).unwrap();
    }
    here.publish("701").await;
    let retain = |hub: sse_hub::HubBuilder| hub.retain(Retain::default().events(600)).history(None);
    let there = Instance::with(&server.url(), |redis| redis, retain);
    there.backplane.ready().await;
    assert_eq!(there.hub.stats().retained, 600);
    client.connect(&there.hub);
    client.until("701").await;
    assert_eq!(client.gaps, ["evicted"]);
    assert_eq!(client.seen.len(), 601);
    assert_eq!(client.names()[1], "102");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn foreign_id_gets_a_gap_soon() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    here.publish("1").await;
    let resume = Subscriber::new().resume(EventId::new(u64::MAX, 7));
    let mut stream = here.hub.subscribe(resume).unwrap();
    let mut text = String::new();
    until("a gap", || {
        text += &crate::support::read(&mut stream);
        !crate::support::gaps(&text).is_empty()
    })
    .await;
    assert_eq!(crate::support::gaps(&text), ["unknown"]);
    here.publish("2").await;
    until("an event", || {
        text += &crate::support::read(&mut stream);
        crate::support::data(&text) == ["2"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn idempotency_key_lands_once_from_any_instance() {
    let server = Server::start(&[]);
    let (here, there) =
        (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
    let mut client = there.client();
    let event = |data: &str| Event::new("n").data(data).idempotency_key("order 17 {paid}");
    let first = here.hub.publish_confirmed(Audience::all(), event("a")).unwrap().await.unwrap();
    let again = there.hub.publish_confirmed(Audience::all(), event("b")).unwrap();
    let third = there.hub.publish_confirmed(Audience::all(), event("c")).unwrap();
    assert_eq!((again.await.unwrap(), third.await.unwrap()), (first, first));
    there.publish("end").await;
    client.until("end").await;
    assert_eq!(client.names(), ["a", "end"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn hubs_with_other_prefixes_share_nothing() {
    let server = Server::start(&[]);
    let of = |prefix: &'static str| {
        Instance::with(&server.url(), move |redis| redis.prefix(prefix), |hub| hub)
    };
    let (one, other) = (of("one"), of("other"));
    let mut client = other.client();
    one.publish("1").await;
    other.publish("2").await;
    client.until("2").await;
    assert_eq!(client.names(), ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stream_is_trimmed_and_close_sends_the_rest() {
    let server = Server::start(&[]);
    let here = Instance::with(&server.url(), |redis| redis.keep_events(200), |hub| hub);
    for number in 0..2_000 {
        here.hub.broadcast(Event::new("n").data(number.to_string())).unwrap();
    }
    // Also before the end of the stream is known.
    here.close().await;
    let length: usize = server.run("XLEN {sse-hub}:events");
    assert!((200..400).contains(&length), "{length}");
    let last: Vec<(String, Vec<String>)> = server.run("XREVRANGE {sse-hub}:events + - COUNT 1");
    assert!(last[0].1[1].ends_with("data: 1999\n"), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stream_is_trimmed_by_age() {
    let server = Server::start(&[]);
    let age = std::time::Duration::from_millis(1);
    let here = Instance::with(&server.url(), |redis| redis.keep_for(age), |hub| hub);
    // Each event is confirmed, so that time passes.
    for number in 0..1_000 {
        here.publish(&number.to_string()).await;
    }
    let length: usize = server.run("XLEN {sse-hub}:events");
    assert!((1..500).contains(&length), "{length}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn full_outbox_is_an_error_and_drops_nothing() {
    let mut server = Server::durable();
    let here = Instance::with(&server.url(), |redis| redis.outbox(100, 1 << 20), |hub| hub);
    here.backplane.ready().await;
    let mut client = here.client();
    server.kill();
    let mut taken = 0;
    let full = loop {
        match here.hub.broadcast(Event::new("n").data(taken.to_string())) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full, taken), (PublishError::Backlog, 100));
    assert_eq!(here.backplane.waiting(), 100);
    server.restart();
    here.publish_when_there_is_room("end").await;
    client.until("end").await;
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(client.names()[..100], expected);
    here.until("an empty outbox", |_| here.backplane.waiting() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn clients_of_three_instances_get_the_exact_sequence() {
    let server = Server::start(&[]);
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Instance::ready(&server.url()).await);
    }
    let load = Load::start(&instances.iter().collect::<Vec<_>>(), 8, 300);
    until("some load", || load.confirmed() > 300).await;
    let outcome = load.stop().await;
    outcome.check_exact();
}

impl Instance {
    async fn publish_when_there_is_room(&self, name: &str) {
        let event = || Event::new("n").data(name);
        until("room", || self.hub.broadcast(event()).is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn sockets_and_databases_are_addresses() {
    let directory = tempfile::TempDir::new().unwrap();
    let socket = directory.path().join("redis.sock");
    let socket = socket.to_str().unwrap();
    let server = Server::start(&["--unixsocket", socket]);
    let here = Instance::ready(&format!("unix://{socket}?db=3")).await;
    let there = Instance::ready(&format!("{}/3", server.url())).await;
    let mut client = there.client();
    here.publish("1").await;
    client.until("1").await;
    let keys: String = server.run("INFO keyspace");
    assert!(keys.contains("db3:") && !keys.contains("db0:"), "{keys}");
}

/// Creates the user of the guide's ACL line for instances, with `more` rights. Returns the line.
pub(crate) fn allow_hub(server: &Server, more: &str) -> &'static str {
    allow(server, "hub", more)
}

/// Creates a user of the guide's ACL lines, with `more` rights. Returns the line.
pub(crate) fn allow(server: &Server, user: &str, more: &str) -> &'static str {
    let guide = include_str!("../../src/redis/mod.rs");
    assert!(
        more.is_empty() || guide.contains(&format!("`{more}`")),
        "the guide says nothing of {more}"
    );
    let start = format!("//! ACL SETUSER {user} ");
    let line = guide.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    let _: String = server.run(format!("ACL SETUSER {user} {line} {more}").trim_end());
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn acl_line_of_the_guide_is_exact() {
    let server = Server::start(&[]);
    let line = allow_hub(&server, "");
    let _: String = server.run("ACL SETUSER admin on >root ~* &* +@all");
    let _: String = server.run("ACL SETUSER default off");
    let url = format!("redis://hub:secret@127.0.0.1:{}", server.port());
    let presence = sse_hub::Presence::default().grace(std::time::Duration::ZERO);
    let retain = Retain::default().keep_latest(1);
    let runs = RunLimits::default().bytes_per_run(4096);
    let set = |hub: sse_hub::HubBuilder| hub.presence(presence).retain(retain).runs(runs);
    let instance = || Instance::with(&url, |redis| redis.prefix("shop"), set);
    let here = instance();
    let ann = here.hub.subscribe(Subscriber::new().user("ann")).unwrap();
    let mut client = here.client();
    here.publish("1").await;
    // More values than are kept.
    for key in ["a", "b"] {
        let event = Event::new("n").data(key).conflate(key);
        here.hub.publish_confirmed(Audience::all(), event).unwrap().await.unwrap();
    }
    here.backplane.ready().await;
    let there = instance();
    there.backplane.ready().await;
    there.until("ann", |hub| hub.is_online("ann")).await;
    drop(ann);
    there.until("her end", |hub| !hub.is_online("ann")).await;
    let event = Event::new("n").data("2").idempotency_key("key");
    there.hub.publish_confirmed(Audience::all(), event).unwrap().await.unwrap();
    client.until("2").await;
    // Of the runs: a copy that is trimmed, a lease that is watched, and the end.
    let run = here.hub.start_run("job", RunOptions::default()).unwrap();
    run.started().await.unwrap();
    for _ in 0..100 {
        run.publish(Event::new("n").data("x".repeat(100))).unwrap();
    }
    there.until("the run", |hub| hub.run("job").is_some_and(|run| run.events > 99)).await;
    let address = format!("redis://admin:root@127.0.0.1:{}", server.port());
    let mut operator = redis::Client::open(address).unwrap().get_connection().unwrap();
    until("a watched lease", || {
        let stats = redis::cmd("INFO").arg("commandstats").query::<String>(&mut operator);
        stats.unwrap().contains("cmdstat_mget:")
    })
    .await;
    run.finish(None).unwrap();
    // Also for rare events.
    let mut connection = connect_to(&url, DEADLINE).unwrap();
    let mut last_is = |id: &str| {
        redis::cmd("SET").arg("{shop}:last").arg(id).query::<String>(&mut connection).unwrap();
    };
    last_is("2000000000000-0");
    here.publish("3").await;
    client.until("3").await;
    last_is("1-0");
    client.until_gap().await;
    assert_eq!(client.gaps.last().map(String::as_str), Some("reset"));
    here.until("a hub that works", |hub| !hub.stats().degraded).await;
    let admin = format!("redis://admin:root@127.0.0.1:{}", server.port());
    let mut connection = connect_to(&admin, DEADLINE).unwrap();
    let mut maxmemory = |bytes: u32| {
        let mut command = redis::cmd("CONFIG");
        let command = command.arg("SET").arg("maxmemory").arg(bytes);
        command.query::<String>(&mut connection).unwrap();
    };
    maxmemory(1);
    here.hub.broadcast(Event::new("n").data("4")).unwrap();
    here.until("a full Redis", |hub| hub.stats().degraded).await;
    maxmemory(0);
    client.until("4").await;
    there.close().await;
    let late = instance();
    late.backplane.ready().await;
    assert_eq!(late.hub.run("job").map(|run| run.state), Some(RunState::Finished));
    // All rights are needed.
    let refused: Vec<redis::Value> = redis::cmd("ACL").arg("LOG").query(&mut connection).unwrap();
    assert_eq!(refused, []);
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
    for command in line.split(" +").skip(1) {
        assert!(stats.contains(&format!("cmdstat_{command}:")), "{command} is never used");
    }
}
