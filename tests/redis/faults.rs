//! Faults of Redis, under load: confirmed events are neither lost, repeated nor out of order,
//! streams stay open, and losses are reported.
//!
//! `SSE_HUB_ROUNDS` sets how often each fault is repeated (default 5), and `SSE_HUB_SECONDS` how
//! long the connections are cut (default 3).

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use sse_hub::redis::Redis;
use sse_hub::{Audience, Event, EventId};

use crate::busy::BusyClock;
use crate::load::{Instance, Load, until};
use crate::server::{DEADLINE, Line, Server, Wire};

/// The usual limit for a hub to work again once Redis accepts connections, and the limit on a busy
/// machine: the clock of the test leaves out only the waits of the test's own process.
const RECOVERY: Duration = Duration::from_secs(1);
const SLOW_RECOVERY: Duration = Duration::from_secs(10);

/// Checks that the quickest recovery is within the usual limit, if there are several, and that all are
/// within the other.
#[track_caller]
pub(crate) fn check_recovery(times: &[Duration]) {
    let quickest = times.iter().min().expect("a recovery");
    assert!(times.len() == 1 || *quickest < RECOVERY, "{times:?}");
    assert!(times.iter().all(|time| *time < SLOW_RECOVERY), "{times:?}");
}

fn rounds() -> u32 {
    number("SSE_HUB_ROUNDS").unwrap_or(5)
}

fn seconds() -> Duration {
    Duration::from_secs(number("SSE_HUB_SECONDS").unwrap_or(3).into())
}

fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}

async fn two(url: &str) -> [Instance; 2] {
    [Instance::ready(url).await, Instance::ready(url).await]
}

fn load(instances: &[Instance; 2]) -> Load {
    Load::start(&instances.each_ref(), 4, 24)
}

/// Prints the longest time.
fn report(what: &str, times: &[Duration]) {
    let longest = times.iter().max().unwrap();
    println!("{what}: {} rounds, the longest recovery took {longest:?}", times.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_and_restarted_with_every_write_on_disk() {
    let mut server = Server::durable();
    let instances = two(&server.url()).await;
    let load = load(&instances);
    let mut times = Vec::new();
    for _ in 0..rounds() {
        load.goes_on().await;
        server.kill();
        server.restart();
        times.push(load.goes_on().await);
    }
    let outcome = load.stop().await;
    report("kill -9", &times);
    outcome.check_exact();
    check_recovery(&times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn connections_killed_over_and_over() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    let start = Instant::now();
    let mut kills = 0;
    while start.elapsed() < seconds() {
        let killed: u32 = server.run("CLIENT KILL TYPE normal SKIPME yes");
        kills += killed;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let confirmed = load.confirmed();
    let outcome = load.stop().await;
    println!("CLIENT KILL: {kills} connections in {:?}, {confirmed} events", start.elapsed());
    outcome.check_exact();
    assert!(kills > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn paused() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    let mut times = Vec::new();
    for _ in 0..2 {
        load.goes_on().await;
        server.pause();
        tokio::time::sleep(seconds()).await;
        instances[0].until("a hub that knows", |hub| hub.stats().degraded).await;
        server.resume();
        times.push(load.goes_on().await);
    }
    let outcome = load.stop().await;
    report("SIGSTOP", &times);
    outcome.check_exact();
    check_recovery(&times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn silent_cut_of_one_of_two_instances() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let instances = [Instance::ready(&wire.url()).await, Instance::ready(&server.url()).await];
    let load = load(&instances);
    let mut times = Vec::new();
    for line in [Line::Silent, Line::Down] {
        load.goes_on().await;
        wire.set(line);
        tokio::time::sleep(seconds()).await;
        instances[0].until("a hub that knows", |hub| hub.stats().degraded).await;
        assert!(!instances[1].hub.stats().degraded);
        load.goes_on().await;
        wire.set(Line::Open);
        let start = BusyClock::start();
        instances[0].until("a hub that is back", |hub| !hub.stats().degraded).await;
        times.push(start.elapsed());
    }
    let outcome = load.stop().await;
    report("a cut", &times);
    outcome.check_exact();
    check_recovery(&times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn cut_at_every_stage_of_a_batch() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let instances = two(&wire.url()).await;
    let load = load(&instances);
    for round in 0..20 * rounds() {
        // The bytes arrive late at first; then the connection breaks, and the batch is sent again.
        wire.set(Line::Silent);
        tokio::time::sleep(Duration::from_millis(u64::from(round % 7))).await;
        wire.set(Line::Down);
        wire.set(Line::Open);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    load.goes_on().await;
    load.stop().await.check_exact();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn late_copies_of_batches_are_not_added() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let here = Instance::ready(&wire.url()).await;
    for name in ["1", "2", "3"] {
        here.publish(name).await;
    }
    let newest = here.publish("4").await;
    // As over an abandoned connection.
    let sent = wire.sent();
    let sent = sent.iter().find(|sent| sent.windows(8).any(|part| part == b"data: 4\n")).unwrap();
    let mut again = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    again.set_read_timeout(Some(DEADLINE)).unwrap();
    again.write_all(sent).unwrap();
    let mut answers = String::new();
    until("the last answer", || {
        let mut part = [0; 4096];
        let read = again.read(&mut part).unwrap();
        answers += std::str::from_utf8(&part[..read]).unwrap();
        answers.contains(&newest.to_string())
    })
    .await;
    // The first command came twice: by the hash of the script, and with the whole script.
    assert_eq!(answers.matches("-STALE").count(), 4, "{answers}");
    let kept: u64 = server.run("XLEN {sse-hub}:events");
    assert_eq!(kept, 4);
    here.publish("5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn away_when_the_hub_starts() {
    let mut server = Server::start(&[]);
    server.kill();
    let here = Instance::new(&server.url());
    here.until("a hub that knows", |hub| hub.stats().degraded).await;
    let mut client = here.client();
    here.hub.publish(Audience::all(), Event::new("n").data("early")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart();
    let start = BusyClock::start();
    client.until("early").await;
    let took = start.elapsed();
    println!("away at the start: {took:?}");
    assert_eq!(client.gaps, ["unknown"], "nobody knew where now was");
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn away_when_the_hubs_start_under_load() {
    let mut server = Server::durable();
    server.kill();
    let instances = [Instance::new(&server.url()), Instance::new(&server.url())];
    let load = load(&instances);
    for instance in &instances {
        instance.until("a hub that knows", |hub| hub.stats().degraded).await;
        instance.until("all the clients", |hub| hub.stats().clients >= 6).await;
    }
    assert_eq!(load.confirmed(), 0);
    server.restart();
    let took = load.goes_on().await;
    let outcome = load.stop().await;
    report("away at the start", &[took]);
    outcome.check();
    // Also those that moved to the other instance before that knew the order.
    for client in &outcome.clients {
        assert!(client.gaps.iter().all(|gap| gap == "unknown"), "{:?}", client.gaps);
    }
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn emptied() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    let mut times = Vec::new();
    for _ in 0..rounds() {
        load.goes_on().await;
        let _: String = server.run("FLUSHALL");
        times.push(load.goes_on().await);
    }
    let outcome = load.stop().await;
    report("FLUSHALL", &times);
    outcome.check();
    check_recovery(&times);
    for client in &outcome.clients {
        assert!(!client.gaps.is_empty(), "a history that is gone is told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn emptied_while_nothing_happens() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let mut client = here.client();
    let before = here.publish("1").await;
    client.until("1").await;
    let _: String = server.run("FLUSHALL");
    client.until_gap().await;
    assert_eq!(client.gaps, ["reset"]);
    let after = here.publish("2").await;
    assert!(before < client.from && client.from < after, "ids go on");
    client.until("2").await;
    here.until("no more of it", |hub| hub.stats().resets == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stream_deleted_after_all_have_read_it() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let mut clients = instances.each_ref().map(Instance::client);
    instances[0].publish("1").await;
    for client in &mut clients {
        client.until("1").await;
    }
    let _: u32 = server.run("DEL {sse-hub}:events");
    instances[0].publish("2").await;
    for client in &mut clients {
        client.until("2").await;
        assert_eq!((client.names(), client.gaps.len()), (vec!["1", "2"], 0), "nothing was missed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stream_deleted_after_the_clock_went_back() {
    let server = Server::start(&[]);
    // The last id is of a clock of the year 2033.
    let _: String = server.run("SET {sse-hub}:last 2000000000000-7");
    let instances = two(&server.url()).await;
    let mut clients = instances.each_ref().map(Instance::client);
    for round in 1..=3 {
        // An older entry with more digits.
        let _: String = server.run("XADD {sse-hub}:events 1900000000000-10 of another");
        // Alone, and in batches.
        for number in 0..5 {
            instances[number % 2].publish("alone").await;
        }
        for number in 0..120 {
            instances[number % 2].hub.broadcast(Event::new("n").data("one of many")).unwrap();
        }
        instances[1].publish("its last").await;
        let end = format!("end of {round}");
        instances[0].publish(&end).await;
        for client in &mut clients {
            client.until(&end).await;
            let ids = client.seen.iter().map(|(id, _)| *id);
            assert!(ids.eq((8..8 + 127 * round).map(|seq| EventId::new(2_000_000_000_000, seq))));
            assert_eq!(client.gaps, [""; 0]);
        }
        let kept: u64 = server.run("XLEN {sse-hub}:events");
        assert_eq!(kept, 128, "what was taken back is not there");
        let _: u32 = server.run("DEL {sse-hub}:events");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stream_deleted_under_load() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    let mut times = Vec::new();
    for _ in 0..rounds() {
        load.goes_on().await;
        let _: u32 = server.run("DEL {sse-hub}:events");
        times.push(load.goes_on().await);
    }
    // Clients behind get a gap; the others get none and have all events.
    load.stop().await.check();
    report("DEL", &times);
    check_recovery(&times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stream_deleted_before_an_instance_has_read_it() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let (here, there) = (Instance::ready(&server.url()).await, Instance::ready(&wire.url()).await);
    let mut client = there.client();
    here.publish("1").await;
    client.until("1").await;
    wire.set(Line::Down);
    here.publish("2").await;
    let _: u32 = server.run("DEL {sse-hub}:events");
    wire.set(Line::Open);
    client.until_gap().await;
    here.publish("3").await;
    client.until("3").await;
    assert_eq!(client.names(), ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn back_at_an_older_dump() {
    let mut server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    let mut times = Vec::new();
    for _ in 0..rounds() {
        load.goes_on().await;
        let _: String = server.run("SAVE");
        load.goes_on().await;
        server.kill();
        server.restart();
        times.push(load.goes_on().await);
    }
    let outcome = load.stop().await;
    report("an older dump", &times);
    outcome.check();
    for client in &outcome.clients {
        assert!(!client.gaps.is_empty(), "a history that went backwards is told");
    }
    check_recovery(&times);
}

/// Redis loses an event that it has confirmed, before any instance has read the event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn rollback_of_unread_confirmed_events_is_told() {
    for (is_next_here, is_next_there) in [(true, false), (false, true), (false, false)] {
        let mut server = Server::start(&[]);
        let (here, there) =
            (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
        let mut clients = [here.client(), there.client()];
        here.publish("1").await;
        for client in &mut clients {
            client.until("1").await;
        }
        let _: String = server.run("SAVE");
        // Readers cannot read, and senders can send.
        let _: String = server.run("ACL SETUSER default -xread -xrange -xrevrange");
        let _: u32 = server.run("CLIENT KILL TYPE normal");
        here.publish("2").await;
        here.publish("3").await;
        server.kill();
        server.restart();
        if is_next_here {
            here.publish("4").await;
        }
        if is_next_there {
            there.publish("4").await;
        }
        for client in &mut clients {
            client.until_gap().await;
            assert_eq!(client.gaps, ["reset"], "after {:?}", client.names());
        }
        there.publish("5").await;
        for client in &mut clients {
            client.until("5").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn instance_behind_a_rollback_reports_it_too() {
    let mut server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let (here, there) = (Instance::ready(&server.url()).await, Instance::ready(&wire.url()).await);
    let mut clients = [here.client(), there.client()];
    here.publish("1").await;
    for client in &mut clients {
        client.until("1").await;
    }
    let _: String = server.run("SAVE");
    wire.set(Line::Down);
    here.publish("2").await;
    clients[0].until("2").await;
    server.kill();
    server.restart();
    here.publish("3").await;
    wire.set(Line::Open);
    for client in &mut clients {
        // "3" comes before the gap, or is part of the loss.
        client.until_gap().await;
        assert_eq!(client.gaps[0], "reset");
    }
    there.until("the news", |hub| hub.stats().resets > 0).await;
    let last = here.publish("4").await;
    for client in &mut clients {
        client.until("4").await;
        assert_eq!(client.seen.last().unwrap().0, last);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn failover_to_a_replica_without_the_end() {
    let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&[]);
    let wire = Wire::to(&master).await;
    let instances = two(&wire.url()).await;
    let load = load(&instances);
    load.goes_on().await;
    let _: String = replica.run(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
    let follows = || replica.run::<String>("INFO replication").contains("master_link_status:up");
    until("a replica that follows", follows).await;
    load.goes_on().await;
    // The replica no longer follows, and lacks all later events.
    let _: String = replica.run("REPLICAOF NO ONE");
    load.goes_on().await;
    wire.set(Line::Down);
    wire.lead_to(&replica);
    wire.set(Line::Open);
    let took = load.goes_on().await;
    let outcome = load.stop().await;
    println!("failover: {took:?}");
    outcome.check();
    for client in &outcome.clients {
        assert!(!client.gaps.is_empty(), "what the replica lacks is told");
    }
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn out_of_memory() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    load.goes_on().await;
    let _: String = server.run("CONFIG SET maxmemory 1");
    instances[0].until("a hub that knows", |hub| hub.stats().degraded).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = load.confirmed();
    let _: String = server.run("CONFIG SET maxmemory 0");
    let took = load.goes_on().await;
    let outcome = load.stop().await;
    println!("out of memory: {took:?} after {before} events");
    outcome.check_exact();
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn another_type_at_the_key() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    load.goes_on().await;
    let _: String = server.run("SET {sse-hub}:events something");
    for instance in &instances {
        instance.until("a hub that knows", |hub| hub.stats().degraded).await;
    }
    let _: u32 = server.run("DEL {sse-hub}:events");
    let took = load.goes_on().await;
    load.stop().await.check();
    report("another type", &[took]);
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn malformed_last_is_an_outage_until_repaired() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let mut client = here.client();
    let mut last = here.publish("first").await;
    for (nonsense, before) in [("nonsense", 1), ("1795535342753-x", 3), ("-", 5), ("7", 7)] {
        let _: String = server.run(format!("SET {{sse-hub}}:last {nonsense}").as_str());
        here.hub.broadcast(Event::new("n").data("2")).unwrap();
        here.until("a hub that knows", |hub| hub.stats().degraded).await;
        let _: String = server.run(format!("SET {{sse-hub}}:last {last}").as_str());
        last = here.publish(nonsense).await;
        client.until(nonsense).await;
        let kept: u64 = server.run("XLEN {sse-hub}:events");
        assert_eq!(kept, before + 2, "nothing was added meanwhile");
    }
    assert_eq!((client.seen.len(), client.gaps.len()), (9, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn no_longer_authorised() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    load.goes_on().await;
    let _: String = server.run("ACL SETUSER default resetpass >secret");
    let client = redis::Client::open(format!("redis://:secret@127.0.0.1:{}", server.port()));
    let mut connection = client.unwrap().get_connection().unwrap();
    let _: u32 =
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query(&mut connection).unwrap();
    for instance in &instances {
        instance.until("a hub that knows", |hub| hub.stats().degraded).await;
    }
    let mut command = redis::cmd("ACL");
    let _: String =
        command.arg("SETUSER").arg("default").arg("nopass").query(&mut connection).unwrap();
    let took = load.goes_on().await;
    load.stop().await.check_exact();
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn ten_thousand_malformed_entries() {
    let server = Server::start(&[]);
    let instances = two(&server.url()).await;
    let load = load(&instances);
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for batch in 0..100u8 {
        let mut pipeline = redis::pipe();
        for number in 0..100u8 {
            let junk: Vec<u8> = (0..number).map(|at| at.wrapping_mul(batch) ^ number).collect();
            let field: &[u8] = [&b"e"[..], b"p", b"m", b"x"][usize::from(number) % 4];
            let mut command = redis::cmd("XADD");
            command.arg("{sse-hub}:events").arg("*").arg(field).arg(&junk);
            if number % 3 == 0 && field != b"m" {
                // A malformed entry that names a predecessor.
                command.arg("p").arg("0-0");
            }
            pipeline.add_command(command).ignore();
        }
        let () = pipeline.query(&mut connection).unwrap();
    }
    load.goes_on().await;
    let outcome = load.stop().await;
    outcome.check();
    let counted = instances[0].hub.stats().malformed;
    assert!((6_000..=10_000).contains(&counted), "{counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn dropped_driver_resolves_confirmations() {
    let mut server = Server::start(&[]);
    server.kill();
    let backplane = Redis::new(&server.url()).unwrap().build().unwrap();
    let timer = sse_hub::TokioTimer::new();
    let hub = sse_hub::Hub::builder(timer).backplane(backplane.clone()).build().unwrap();
    let running = tokio::spawn(backplane.run(&hub));
    let waiting = hub.publish_confirmed(Audience::all(), Event::new("n")).unwrap();
    until("one that is sent", || backplane.waiting() == 1).await;
    running.abort();
    assert!(waiting.await.is_err());
    // The batch of the sender is dropped before the outbox is abandoned.
    assert!(running.await.unwrap_err().is_cancelled());
    assert!(hub.broadcast(Event::new("n")).is_err(), "it takes nothing more");
}
