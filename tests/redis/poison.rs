//! Forged entries, records and keys, by a client that can write to Redis: a hub skips or replaces
//! them, and goes on.

use std::time::{Duration, Instant};

use redis::{Commands as _, Connection};
use sse_hub::redis::Redis;
use sse_hub::{Audience, Event, EventId, LastEventId, Presence, Subscriber, TokioTimer};
use tokio::time::timeout;

use crate::load::{Client, Instance, until, until_within};
use crate::presence::LEASE;
use crate::server::{DEADLINE, Line, Server, Wire};

const STREAM: &str = "{sse-hub}:events";
const LAST: &str = "{sse-hub}:last";
const GREATEST: &str = "18446744073709551615-18446744073709551615";

/// An event as a hub writes it, for all clients.
const ENTRY: &[u8] = b"\x01\x00\x00event: n\ndata: forged\n";

fn connection(server: &Server) -> Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

fn add(connection: &mut Connection, id: &str, fields: &[(&str, &[u8])]) {
    add_to(connection, STREAM, id, fields);
}

/// Redis refuses an id that is not greater than the last: then there is nothing to forge.
fn add_to(connection: &mut Connection, stream: &str, id: &str, fields: &[(&str, &[u8])]) {
    let mut command = redis::cmd("XADD");
    command.arg(stream).arg(id);
    for (name, value) in fields {
        command.arg(*name).arg(*value);
    }
    let _: Option<String> = command.query(connection).unwrap_or_default();
}

fn length(connection: &mut Connection) -> usize {
    redis::cmd("XLEN").arg(STREAM).query(connection).unwrap()
}

/// Publishes and reads, on all instances, until no reset is on its way any more.
async fn works(instances: &[&Instance], name: &str) {
    let mut clients: Vec<Client> = instances.iter().map(|instance| instance.client()).collect();
    for (number, instance) in instances.iter().enumerate() {
        instance.publish(&format!("{name}-{number}")).await;
    }
    // An event that is followed by a reset is passed over with it: publish again.
    for client in &mut clients {
        let start = Instant::now();
        let mut round = 0;
        while !client.seen.iter().any(|(_, data)| data.starts_with(name)) {
            assert!(start.elapsed() < DEADLINE, "{name} does not come");
            round += 1;
            instances[0].publish(&format!("{name}-again-{round}")).await;
            let _ = timeout(Duration::from_millis(200), client.read()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn entries_without_a_successor_are_skipped() {
    for id in [
        GREATEST,
        "18446744073709551615-0",
        "18446744073709551614-18446744073709551615",
        // Fourteen digits, and more than a number of Lua holds.
        "99999999999999-9007199254740993",
        "9999999999999-1",
    ] {
        let server = Server::start(&[]);
        let mut forger = connection(&server);
        let (here, there) =
            (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
        let mut client = there.client();
        let first = here.publish("1").await;
        client.until("1").await;
        let last: String = forger.get(LAST).unwrap();
        add(&mut forger, id, &[("e", ENTRY), ("p", last.as_bytes())]);
        add(&mut forger, "*", &[("x", b"y")]);
        for number in 2..6 {
            let id = [&here, &there][number % 2].publish(&number.to_string()).await;
            assert!(id > first && id.epoch() < first.epoch() + 60_000, "{id} is of the clock");
        }
        client.until("5").await;
        assert_eq!(client.names(), ["1", "2", "3", "4", "5"]);
        assert_eq!(client.gaps, [""; 0], "nothing of the hubs was lost");
        for instance in [&here, &there] {
            assert_eq!(instance.hub.stats().resets, 0);
            instance.until("a hub that works", |hub| !hub.stats().degraded).await;
        }
        // A client from before, and an instance that starts now, have all of them.
        let late = Instance::ready(&server.url()).await;
        let mut back = Client::at(first);
        back.connect(&late.hub);
        back.until("5").await;
        assert_eq!((back.names(), back.gaps.len()), (vec!["2", "3", "4", "5"], 0));
        let _: () = redis::cmd("FLUSHALL").query(&mut forger).unwrap();
        works(&[&here, &there, &late], "after").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stream_is_repaired_while_nobody_publishes() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let here = Instance::ready(&server.url()).await;
    let mut client = here.client();
    here.publish("1").await;
    client.until("1").await;
    add(&mut forger, GREATEST, &[("e", ENTRY), ("p", b"1-0")]);
    here.until("one that is counted", |hub| hub.stats().malformed > 0).await;
    until("a stream with room", || length(&mut forger) == 1).await;
    assert!(here.hub.stats().malformed < 5, "the entry must not be read again and again");
    here.publish("2").await;
    client.until("2").await;
    assert_eq!(client.names(), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn page_that_ends_with_the_greatest_id_is_repaired() {
    // Beside a waiting read, a page of the script begins after the first of these entries. Both
    // steps of a page, of an entry and of two, end with the greatest id in one of the rounds.
    for before in 0..3 {
        let server = Server::start(&[]);
        let mut forger = connection(&server);
        let here = Instance::ready(&server.url()).await;
        let mut client = here.client();
        here.publish("1").await;
        client.until("1").await;
        let mut entries = redis::pipe();
        entries.atomic();
        for _ in 0..before {
            entries.cmd("XADD").arg(STREAM).arg("*").arg("x").arg("y");
        }
        entries.cmd("XADD").arg(STREAM).arg(GREATEST).arg("e").arg(ENTRY).arg("p").arg("1-0");
        let _: redis::Value = entries.query(&mut forger).unwrap();
        here.until("all are counted", |hub| hub.stats().malformed > before).await;
        assert_eq!(here.hub.stats().malformed, before + 1, "the entries must not be read again");
        here.publish("2").await;
        client.until("2").await;
        assert_eq!(client.names(), ["1", "2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn start_with_the_greatest_id_in_the_stream() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let before = Instance::ready(&server.url()).await;
    let first = before.publish("1").await;
    before.publish("2").await;
    before.close().await;
    for key_too in [false, true] {
        add(&mut forger, GREATEST, &[("e", ENTRY), ("p", b"1-0")]);
        if key_too {
            let _: () = forger.set(LAST, GREATEST).unwrap();
        }
        let here = Instance::ready(&server.url()).await;
        let mut client = Client::at(first);
        client.connect(&here.hub);
        here.publish("3").await;
        client.until("3").await;
        assert_eq!(client.names()[0], "2");
        assert_eq!(client.gaps, [""; 0]);
        here.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn forged_positions_do_not_stop_a_hub() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let (here, there) =
        (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
    works(&[&here, &there], "before").await;
    for id in [GREATEST, "18446744073709551615-0", "99999999999999-1"] {
        let _: () = forger.set(LAST, id).unwrap();
        works(&[&here, &there], "last").await;
        let _: () = forger.set("{sse-hub}:reset", id).unwrap();
        let _: () = redis::cmd("FLUSHALL").query(&mut forger).unwrap();
        let _: () = forger.set("{sse-hub}:reset", id).unwrap();
        works(&[&here, &there], "reset").await;
        // A link that names one after itself.
        add(&mut forger, "*", &[("e", ENTRY), ("p", id.as_bytes())]);
        works(&[&here, &there], "previous").await;
    }
    let _: () = forger.del("{sse-hub}:reset").unwrap();
    let _: () = forger.hset("{sse-hub}:reset", "a", "b").unwrap();
    let _: () = redis::cmd("DEL").arg(STREAM).arg(LAST).query(&mut forger).unwrap();
    works(&[&here, &there], "type").await;
    let mut stream =
        here.hub.subscribe(Subscriber::new().resume(LastEventId::from(GREATEST))).unwrap();
    let mut text = String::new();
    until("a gap", || {
        text += &crate::support::read(&mut stream);
        !crate::support::gaps(&text).is_empty()
    })
    .await;
    assert_eq!(crate::support::gaps(&text), ["unknown"]);
}

fn publishers(connection: &mut Connection) -> Vec<String> {
    connection.keys("{sse-hub}:publisher:*").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn forged_records_of_publishers_confirm_nothing() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let (here, there) =
        (Instance::ready(&server.url()).await, Instance::ready(&server.url()).await);
    let mut client = there.client();
    let (mut count, mut expected) = (0, Vec::new());
    let last = here.publish("0").await;
    there.publish("0 too").await;
    for record in [
        // More ids than the batch has events; then as many, but none of the hub's.
        format!("NEXT{}", " 5-5".repeat(40)),
        "NEXT 5-5".to_owned(),
        format!("NEXT {last}"),
        format!("NEXT {GREATEST}"),
        "NEXT 99999999999999999999999999-1".to_owned(),
        "NEXT 05-1".to_owned(),
        "NEXT x".to_owned(),
        "NEXT".to_owned(),
        // Of a later batch.
        "99999999 5-5".to_owned(),
        "9007199254740993 5-5".to_owned(),
        "999999999999999999999999999999999 5-5".to_owned(),
        "x 5-5".to_owned(),
        String::new(),
        "\u{0}\u{ff}".to_owned(),
    ] {
        count += 1;
        let next = (count + 1).to_string();
        for key in publishers(&mut forger) {
            let _: () = forger.set(&key, record.replace("NEXT", &next)).unwrap();
        }
        for (instance, name) in [(&here, "here"), (&there, "there")] {
            let name = format!("{name} {count}");
            let id = instance.publish(&name).await;
            expected.push((id, name));
        }
    }
    for key in publishers(&mut forger) {
        let _: () = forger.del(&key).unwrap();
        let _: () = forger.hset(&key, "a", "b").unwrap();
    }
    let id = here.publish("type").await;
    expected.push((id, "type".to_owned()));
    client.until("type").await;
    let got: Vec<_> =
        client.seen.iter().filter(|(_, name)| !name.starts_with('0')).cloned().collect();
    assert_eq!(got, expected, "each was published once, under the id that was confirmed");
    until("empty outboxes", || here.backplane.waiting() + there.backplane.waiting() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn forged_idempotency_keys_are_replaced_and_block_nothing() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let here = Instance::ready(&server.url()).await;
    let mut client = here.client();
    here.publish("first").await;
    type Forge<'a> = &'a dyn Fn(&mut Connection, &str);
    let forge: [(&str, Forge<'_>); 7] = [
        ("hash", &|forger, key| forger.hset(key, "a", "b").unwrap()),
        ("list", &|forger, key| forger.lpush(key, "a").unwrap()),
        ("stream", &|forger, key| add_to(forger, key, "*", &[("a", b"b")])),
        ("nonsense", &|forger, key| forger.set(key, "nonsense").unwrap()),
        ("zeros", &|forger, key| forger.set(key, "05-1").unwrap()),
        ("greatest", &|forger, key| forger.set(key, GREATEST).unwrap()),
        ("future", &|forger, key| forger.set(key, "1999999999999-1").unwrap()),
    ];
    let mut last = EventId::new(0, 0);
    for (name, forge) in forge {
        forge(&mut forger, &format!("{{sse-hub}}:once:{name}"));
        let keyed = || {
            let event = Event::new("n").data(name).idempotency_key(name);
            here.hub.publish_confirmed(Audience::all(), event).unwrap()
        };
        // Beside others in one batch, and again.
        let (one, other) =
            (keyed(), here.hub.publish_confirmed(Audience::all(), Event::new("n").data("beside")));
        let id = timeout(DEADLINE, one).await.expect(name).unwrap();
        timeout(DEADLINE, other.unwrap()).await.expect(name).unwrap();
        assert!(id > last, "{name}: {id}");
        assert_eq!(timeout(DEADLINE, keyed()).await.unwrap().unwrap(), id, "{name} lands once");
        last = id;
    }
    here.publish("end").await;
    client.until("end").await;
    assert_eq!(client.seen.len(), 2 + 2 * 7);
    here.until("a hub that works", |hub| !hub.stats().degraded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn settings_for_ever_work_or_are_refused() {
    let server = Server::start(&[]);
    let ever = Duration::MAX;
    for set in [
        (|redis: Redis| redis.remember(Duration::MAX)) as fn(Redis) -> Redis,
        |redis| redis.keep_events(u64::MAX),
        |redis| redis.keep_events(1 << 63),
        |redis| redis.keep_for(Duration::MAX),
        |redis| redis.outbox(usize::MAX, usize::MAX),
        |redis| redis.timeout(Duration::from_secs(3600)),
        |redis| redis.lease(Duration::from_secs(24 * 3600)),
    ] {
        let _: String = server.run("FLUSHALL");
        let presence = Presence::default().grace(Duration::ZERO);
        let here = Instance::with(&server.url(), set, |hub| hub.presence(presence));
        let mut client = here.client();
        let _tab = here.hub.subscribe(Subscriber::new().user("ann")).unwrap();
        for _ in 0..2 {
            let event = Event::new("n").data("once").idempotency_key("order 17");
            let sent = here.hub.publish_confirmed(Audience::all(), event).unwrap();
            timeout(DEADLINE, sent).await.expect("in time").unwrap();
        }
        here.publish("end").await;
        client.until("end").await;
        assert_eq!(client.names(), ["once", "end"]);
        until("ann in Redis", || server.run::<u32>("HLEN {sse-hub}:instances") == 1).await;
        here.until("a hub that works", |hub| !hub.stats().degraded).await;
    }
    for (error, limit) in [
        (Redis::new(&server.url()).unwrap().timeout(ever).build().unwrap_err(), "1 hour"),
        (Redis::new(&server.url()).unwrap().lease(ever).build().unwrap_err(), "1 day"),
    ] {
        assert!(error.to_string().contains(limit), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn forged_instances_do_not_hide_real_ones() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let here = crate::presence::instance(&server.url());
    here.backplane.ready().await;
    let mut all = redis::pipe();
    for number in 0..5_000 {
        let alive = [u64::MAX, 1 << 62, 0, 9_999_999_999_999][number % 4];
        let record = format!("{} {alive} {number}", number % 3);
        all.cmd("HSET").arg("{sse-hub}:instances").arg(format!("forged{number}")).arg(record);
    }
    let _: () = all.query(&mut forger).unwrap();
    let there = crate::presence::instance(&server.url());
    let _ann = crate::presence::tab(&there.hub, "ann");
    let _bob = crate::presence::tab(&here.hub, "bob");
    // Each hub asks for the users of 4096 forged instances first: 12,000 questions, one by one.
    let are_online = || here.hub.is_online("ann") && there.hub.is_online("bob");
    until_within(4 * DEADLINE, "ann and bob", are_online).await;
    // Their times count from now, and then they are forgotten.
    let start = Instant::now();
    let listed = || server.run::<u32>("HLEN {sse-hub}:instances");
    while listed() > 2 {
        assert!(start.elapsed() < LEASE * 20 + DEADLINE, "{} are listed", listed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(here.hub.is_online("ann") && there.hub.is_online("bob"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn presence_stream_without_room_is_made_anew() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let (here, there) =
        (crate::presence::instance(&server.url()), crate::presence::instance(&server.url()));
    let ann = crate::presence::tab(&there.hub, "ann");
    here.until("ann", |hub| hub.is_online("ann")).await;
    add_to(&mut forger, "{sse-hub}:presence", GREATEST, &[("x", b"y")]);
    let _bob = crate::presence::tab(&there.hub, "bob");
    here.until("bob", |hub| hub.is_online("bob")).await;
    drop(ann);
    here.until("her end", |hub| !hub.is_online("ann")).await;
}

/// A source of numbers that is the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    /// Changes, inserts, removes or repeats some bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 => bytes.insert(at, self.below(256) as u8),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => {
                    let again = bytes[at / 2..at].to_vec();
                    bytes.splice(at..at, again);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn ten_thousand_mutated_entries_and_records() {
    const MUTATIONS: usize = 10_000;
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let set = |redis: Redis| redis.lease(LEASE).timeout(Duration::from_millis(500));
    let presence = Presence::default().grace(Duration::ZERO).all_topics();
    let instance = || Instance::with(&server.url(), set, |hub| hub.presence(presence));
    let (here, there) = (instance(), instance());
    let _ann = here.hub.subscribe(Subscriber::new().user("ann").topic("t")).unwrap();
    for instance in [&here, &there] {
        timeout(DEADLINE, instance.backplane.ready()).await.unwrap();
    }
    let command = b"\x02\x01\x00\x01\0\0\0t".to_vec();
    let mut numbers = Numbers(17);
    let start = Instant::now();
    for round in 0..MUTATIONS / 100 {
        here.hub.broadcast(Event::new("n").data("real")).unwrap();
        let last: String = forger.get(LAST).unwrap_or_default();
        let newest = last.into_bytes();
        // The publishers write theirs with their first batches.
        let mut publishers = publishers(&mut forger);
        publishers.push("{sse-hub}:publisher:of-nobody".to_owned());
        let mut all = redis::pipe();
        for number in 0..100 {
            let mut mutated = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                numbers.mutate(&mut bytes);
                bytes
            };
            let which = (round * 100 + number) % 10;
            match which {
                0..=3 => {
                    let (entry, previous) = match which {
                        0 => (mutated(ENTRY), newest.clone()),
                        1 => (mutated(&command), newest.clone()),
                        2 => (ENTRY.to_vec(), mutated(&newest)),
                        _ => (mutated(ENTRY), mutated(&newest)),
                    };
                    let (e, p) = (mutated(b"e"), mutated(b"p"));
                    let (e, p): (&[u8], &[u8]) =
                        if number % 3 == 0 { (&e, &p) } else { (b"e", b"p") };
                    all.cmd("XADD").arg(STREAM).arg("*").arg(e).arg(entry).arg(p).arg(previous);
                }
                4 => {
                    let id = mutated(b"1899999999999-1");
                    all.cmd("XADD").arg(STREAM).arg(id).arg("e").arg(ENTRY).arg("p").arg("1-0");
                }
                5 => {
                    let since = mutated(&newest);
                    all.cmd("XADD").arg(STREAM).arg("*").arg("r").arg(since).arg("p").arg(&newest);
                }
                6 => {
                    let record =
                        mutated(format!("{} {}", round + 2, "5-5 ".repeat(round)).as_bytes());
                    let key = &publishers[number % publishers.len()];
                    all.cmd("SET").arg(key).arg(record);
                }
                7 => {
                    let position = mutated(&newest);
                    all.cmd("SET").arg("{sse-hub}:reset").arg(&position);
                    all.cmd("SET").arg(format!("{{sse-hub}}:once:{}", number % 7)).arg(position);
                }
                8 => {
                    let record = mutated(b"1 1795535342753 1 2");
                    let name = mutated(b"another");
                    let set = [&b"{sse-hub}:users:"[..], &name].concat();
                    all.cmd("HSET").arg("{sse-hub}:instances").arg(name).arg(record);
                    let (user, member) = (mutated(b"bob"), mutated(b"\xff\x01\0\0\0tbob"));
                    all.cmd("SADD").arg(set).arg(user).arg(member);
                }
                _ => {
                    let changes = mutated(b"\x00\x03\0\0\0bob");
                    let (name, version) = (mutated(b"another"), mutated(b"2"));
                    let mut command = redis::cmd("XADD");
                    command.arg("{sse-hub}:presence").arg("*").arg("i").arg(name);
                    command.arg("v").arg(version).arg("c").arg(changes);
                    if number % 20 == 9 {
                        command.arg(mutated(b"t")).arg(mutated(b"\x00\x01\0\0\0t\x03\0\0\0bob"));
                    }
                    all.add_command(command);
                }
            };
        }
        all.ignore_errors();
        let _: redis::Value = all.query(&mut forger).unwrap();
        let event = Event::new("n").data("keyed").idempotency_key((round % 7).to_string());
        there.hub.publish(Audience::all(), event).unwrap();
    }
    works(&[&here, &there], "after").await;
    until("an empty outbox", || here.backplane.waiting() + there.backplane.waiting() == 0).await;
    for instance in [&here, &there] {
        instance.until("a hub that works", |hub| !hub.stats().degraded).await;
        // How many depends on the time: a repair removes entries that no reader has read.
        assert!(instance.hub.stats().malformed > 0);
    }
    there.until("ann", |hub| hub.is_online("ann")).await;
    let has_ann = |hub: &sse_hub::Hub| crate::presence::members(hub, "t").contains_key("ann");
    there.until("ann in the topic", has_ann).await;
    // An instance that starts over all of it.
    let late = instance();
    timeout(DEADLINE, late.backplane.ready()).await.unwrap();
    works(&[&late, &here, &there], "late").await;
    late.until("ann in the topic", has_ann).await;
    println!("{MUTATIONS} mutations in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn records_forged_between_batches_repeat_no_event() {
    let server = Server::start(&[]);
    let mut forger = connection(&server);
    let wire = Wire::to(&server).await;
    let backplane = Redis::new(&wire.url()).unwrap().timeout(Duration::from_millis(200));
    let backplane = backplane.build().unwrap();
    let hub =
        sse_hub::Hub::builder(TokioTimer::new()).backplane(backplane.clone()).build().unwrap();
    let running = tokio::spawn(backplane.run(&hub));
    timeout(DEADLINE, backplane.ready()).await.unwrap();
    for number in 0..20 {
        for key in publishers(&mut forger) {
            // Of another publisher's writing, between two batches.
            let _: () = forger.set(&key, "7 5-5 5-6").unwrap();
        }
        wire.set(Line::Silent);
        let sent = hub.publish_confirmed(Audience::all(), Event::new("n").data(number.to_string()));
        tokio::task::yield_now().await;
        wire.set(Line::Open);
        timeout(DEADLINE, sent.unwrap()).await.unwrap().unwrap();
    }
    assert_eq!(length(&mut forger), 20, "each once");
    hub.close();
    timeout(DEADLINE, running).await.unwrap().unwrap();
}
