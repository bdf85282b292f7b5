//! Presence over a real Redis, and its faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{
    Audience, EndReason, Goodbye, Hub, Presence, PresenceEvent, PresenceWatch, Subscriber,
    Subscription, TopicEvent, TopicWatch,
};

use crate::busy::BusyClock;
use crate::load::{Instance, until};
use crate::server::{Line, Server, Wire};

/// Short for quick tests, and long enough for a busy machine.
pub(crate) const LEASE: Duration = Duration::from_millis(1200);
pub(crate) const GRACE: Duration = Duration::from_millis(300);

/// Returns an instance with presence.
pub(crate) fn instance(url: &str) -> Instance {
    instance_with(url, GRACE)
}

fn instance_with(url: &str, grace: Duration) -> Instance {
    let redis =
        |redis: sse_hub::redis::Redis| redis.lease(LEASE).timeout(Duration::from_millis(200));
    Instance::with(url, redis, |hub| {
        hub.presence(Presence::default().grace(grace).event_buffer(100_000).topics(&["room-"]))
    })
}

pub(crate) fn tab(hub: &Hub, user: &str) -> Subscription {
    hub.subscribe(Subscriber::new().user(user)).unwrap()
}

/// Returns the users, with their numbers of local clients and of other instances.
fn users(hub: &Hub) -> BTreeMap<String, (usize, usize)> {
    let users = hub.users().into_iter();
    users.map(|info| (info.user.to_string(), (info.clients, info.other_instances))).collect()
}

/// Returns the users that joined, and with a `-` the users that left.
pub(crate) fn seen(watch: &mut PresenceWatch) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(Some(event)) = watch.next().now_or_never() {
        seen.push(match event {
            PresenceEvent::Joined { user } => user.to_string(),
            PresenceEvent::Left { user, .. } => format!("-{user}"),
            other => panic!("{other:?}"),
        });
    }
    seen
}

fn member(hub: &Hub, user: &str, room: &str) -> Subscription {
    hub.subscribe(Subscriber::new().user(user).topic(room)).unwrap()
}

/// Returns the members of a room, with their numbers of local clients and of other instances.
pub(crate) fn members(hub: &Hub, room: &str) -> BTreeMap<String, (usize, usize)> {
    let members = hub.users_in(room).unwrap().into_iter();
    members.map(|info| (info.user.to_string(), (info.clients, info.other_instances))).collect()
}

fn names(hub: &Hub, room: &str) -> Vec<String> {
    members(hub, room).into_keys().collect()
}

/// Returns the changes in topics: the user, the topic and, of a user that left, the reason.
fn seen_in_topics(watch: &mut TopicWatch) -> Vec<(String, String, Option<EndReason>)> {
    let mut seen = Vec::new();
    while let Some(Some(event)) = watch.next().now_or_never() {
        seen.push(match event {
            TopicEvent::Joined { user, topic } => (user.to_string(), topic.to_string(), None),
            TopicEvent::Left { user, topic, reason } => {
                (user.to_string(), topic.to_string(), Some(reason))
            }
            other => panic!("{other:?}"),
        });
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn users_are_online_at_all_instances() {
    let server = Server::start(&[]);
    let early = instance(&server.url());
    let ann = tab(&early.hub, "ann");
    early.until("ann in Redis", |_| server.run::<u32>("XLEN {sse-hub}:presence") > 0).await;
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    let mut watch = here.hub.watch().unwrap();
    here.until("ann, who was there before", |hub| hub.is_online("ann")).await;
    let start = Instant::now();
    let bob = tab(&there.hub, "bob\n:|\u{0}");
    let (_more, _and_more) = (tab(&here.hub, "ann"), tab(&here.hub, "ann"));
    here.until("bob", |hub| hub.is_online("bob\n:|\u{0}")).await;
    let took = start.elapsed();
    println!("who comes is known elsewhere after {took:?}");
    let expected = [("ann".into(), (2, 1)), ("bob\n:|\u{0}".into(), (0, 1))].into();
    until("everybody", || users(&here.hub) == expected).await;
    until("everybody", || there.hub.users().len() == 2).await;
    until("ann on two", || users(&there.hub).get("ann") == Some(&(0, 2))).await;

    // Ann stays on another instance, and Bob leaves.
    drop(ann);
    there.hub.disconnect(Audience::user("bob\n:|\u{0}"), Goodbye::from_static("bye")).unwrap();
    until("bob has left", || !here.hub.is_online("bob\n:|\u{0}")).await;
    drop(bob);
    let bob = |sign: &str| format!("{sign}bob\n:|\u{0}");
    let mut all = Vec::new();
    until("bob's departure", || {
        all.extend(seen(&mut watch));
        all.contains(&bob("-"))
    })
    .await;
    // This hub may have learned of ann before the watch began.
    all.retain(|event| event != "ann");
    assert_eq!(all, [bob(""), bob("-")]);
    until("ann on one", || users(&there.hub) == [("ann".into(), (0, 1))].into()).await;
    early.close().await;
    assert_eq!(seen(&mut watch), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn members_are_known_at_all_instances() {
    let server = Server::start(&[]);
    let early = instance(&server.url());
    let ann = member(&early.hub, "ann", "room-1");
    early.until("ann in Redis", |_| server.run::<u32>("XLEN {sse-hub}:presence") > 0).await;
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    for instance in [&here, &there] {
        instance.backplane.ready().await;
    }
    let mut watch = here.hub.watch_topics().unwrap();
    here.until("ann, who was there before", |hub| names(hub, "room-1") == ["ann"]).await;
    // By a command of another instance, and in a topic with every kind of letter.
    let strange = "room-\n:|\u{0}\u{ff}";
    let bob = tab(&there.hub, "bob");
    here.hub.join(Audience::user("bob"), "room-1").unwrap();
    here.hub.join(Audience::user("bob"), strange).unwrap();
    here.until("bob", |hub| members(hub, strange) == [("bob".into(), (0, 1))].into()).await;
    let _more = member(&here.hub, "bob", "room-1");
    let all = [("ann".into(), (0, 1)), ("bob".into(), (1, 1))].into();
    here.until("bob", |hub| members(hub, "room-1") == all).await;
    assert_eq!(names(&here.hub, "room-2"), [""; 0]);
    early.until("bob", |hub| members(hub, "room-1").get("bob") == Some(&(0, 2))).await;

    let start = BusyClock::start();
    here.hub.leave(Audience::user("bob"), "room-1").unwrap();
    early.until("his leave", |hub| names(hub, "room-1") == ["ann"]).await;
    here.until("his leave", |hub| names(hub, "room-1") == ["ann"]).await;
    println!("a member that leaves is known elsewhere after {:?}", start.elapsed());
    drop((ann, bob));
    here.until("empty rooms", |hub| names(hub, "room-1").len() + names(hub, strange).len() == 0)
        .await;
    let mut events = seen_in_topics(&mut watch);
    events.sort_by_key(|(user, topic, _)| (user.clone(), topic.clone()));
    let of = |user: &str, topic: &str, reason| (user.to_owned(), topic.to_owned(), reason);
    // This hub may have learned of ann before the watch began.
    events.retain(|event| *event != of("ann", "room-1", None));
    assert_eq!(
        events,
        [
            of("ann", "room-1", Some(EndReason::Left)),
            of("bob", strange, None),
            of("bob", strange, Some(EndReason::Left)),
            of("bob", "room-1", None),
            of("bob", "room-1", Some(EndReason::LeftTopic)),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_instance_takes_its_members_within_the_lease() {
    let server = Server::start(&[]);
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    let _bob = member(&here.hub, "bob", "room-1");
    let _tabs = [member(&there.hub, "ann", "room-1"), member(&there.hub, "bob", "room-1")];
    here.until("both", |hub| members(hub, "room-1").values().filter(|all| all.1 > 0).count() == 2)
        .await;
    let mut watch = here.hub.watch_topics().unwrap();
    let start = BusyClock::start();
    // Without a farewell: the driver is gone before the hub is closed.
    drop(there);
    let event = watch.next().await.unwrap();
    let took = start.elapsed();
    println!("the members of a killed instance have left after {took:?}");
    assert!(took < LEASE + GRACE + Duration::from_secs(2), "{took:?}");
    let reason = EndReason::Vanished;
    let expected = TopicEvent::Left { user: "ann".into(), topic: "room-1".into(), reason };
    assert_eq!(event, expected);
    assert_eq!(members(&here.hub, "room-1"), [("bob".into(), (1, 0))].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn emptied_or_killed_redis_loses_no_member() {
    let mut server = Server::start(&[]);
    let instances = [instance(&server.url()), instance(&server.url())];
    let tabs = [
        member(&instances[0].hub, "ann", "room-1"),
        member(&instances[1].hub, "bob", "room-1"),
        member(&instances[1].hub, "bob", "room-2"),
    ];
    let is_whole = |server: &Server| {
        let keys: Vec<String> = server.run("KEYS {sse-hub}:users:*");
        let size = |key: &String| server.run::<usize>(&format!("SCARD {key}"));
        server.run::<u32>("HLEN {sse-hub}:instances") == 2
            && keys.iter().map(size).sum::<usize>() == 5
    };
    for instance in &instances {
        instance.until("both", |hub| names(hub, "room-1") == ["ann", "bob"]).await;
    }
    let mut watches = instances.each_ref().map(|instance| instance.hub.watch_topics().unwrap());
    until("all is told", || is_whole(&server)).await;
    let _: String = server.run("FLUSHALL");
    until("all is told anew", || is_whole(&server)).await;
    server.kill();
    tokio::time::sleep(LEASE * 2).await;
    server.restart();
    until("all is told anew", || is_whole(&server)).await;
    let cid = member(&instances[0].hub, "cid", "room-2");
    instances[1].until("cid", |hub| names(hub, "room-2") == ["bob", "cid"]).await;
    drop((cid, tabs));
    for (instance, watch) in instances.iter().zip(&mut watches) {
        instance.until("empty rooms", |hub| hub.users().is_empty()).await;
        instance
            .until("empty rooms", |hub| {
                names(hub, "room-1").len() + names(hub, "room-2").len() == 0
            })
            .await;
        let events = seen_in_topics(watch);
        let joined: Vec<_> = events.iter().filter(|event| event.2.is_none()).collect();
        assert_eq!(joined, [&("cid".to_owned(), "room-2".to_owned(), None)], "{events:?}");
        assert_eq!(events.len(), 5, "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn older_versions_and_instances_know_each_others_users() {
    let server = Server::start(&[]);
    let here = instance(&server.url());
    let _ann = member(&here.hub, "ann", "room-1");
    until("ann in Redis", || server.run::<u32>("HLEN {sse-hub}:instances") == 1).await;
    until("her room in Redis", || {
        let keys: Vec<String> = server.run("KEYS {sse-hub}:users:*");
        keys.iter().any(|key| server.run::<u32>(&format!("SCARD {key}")) == 2)
    })
    .await;
    // An older version reads three numbers, skips elements that are not UTF-8, and compares.
    let keys: Vec<String> = server.run("KEYS {sse-hub}:users:*");
    let elements: Vec<Vec<u8>> = server.run(&format!("SMEMBERS {}", keys[0]));
    let texts: Vec<String> =
        elements.into_iter().filter_map(|element| String::from_utf8(element).ok()).collect();
    let records: Vec<String> = server.run("HVALS {sse-hub}:instances");
    let numbers: Vec<u64> = records[0].split(' ').map(|number| number.parse().unwrap()).collect();
    assert_eq!(texts, ["ann"]);
    assert_eq!((numbers.len(), numbers[2], numbers[3]), (4, 1, 2));
    // An instance without topics knows the users, and not the members.
    let plain = Instance::with(
        &server.url(),
        |redis| redis.lease(LEASE),
        |hub| hub.presence(Presence::default().grace(GRACE)),
    );
    plain.until("ann", |hub| hub.is_online("ann")).await;
    assert!(plain.hub.users_in("room-1").is_err());
    // And an older version announces three numbers.
    let _: u32 = server.run("SADD {sse-hub}:users:older zed");
    forge(&server, "older", 1, &format!("{} 1", u64::MAX / 2));
    for instance in [&here, &plain] {
        instance.until("zed", |hub| hub.is_online("zed")).await;
    }
    assert_eq!(names(&here.hub, "room-1"), ["ann"]);
}

/// Writes a record `version rest` of an instance, and tells of it.
fn forge(server: &Server, name: &str, version: u64, rest: &str) {
    let client = redis::Client::open(server.url()).unwrap();
    let mut command = redis::cmd("HSET");
    command.arg("{sse-hub}:instances").arg(name).arg(format!("{version} {rest}"));
    let _: u32 = command.query(&mut client.get_connection().unwrap()).unwrap();
    let _: String = server.run(&format!("XADD {{sse-hub}}:presence * i {name} v {version} a x"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn forged_members_are_skipped() {
    let server = Server::start(&[]);
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    let _ann = member(&there.hub, "ann", "room-1");
    here.until("ann", |hub| names(hub, "room-1") == ["ann"]).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    // A set with elements that no hub writes, beside two that it could have written.
    for element in [
        &b"\xff"[..],
        b"\xff\xff\xff\xff\xffroom-1bob",
        b"\xff\x06\0\0\0room-1\xff",
        b"\xff\x06\0\0\0room-1",
        b"\xff\x01\0\0\0xbob",
        b"\xff\x06\0\0\0room-1zed",
        b"zed",
    ] {
        let mut command = redis::cmd("SADD");
        command.arg("{sse-hub}:users:ghost").arg(element);
        let _: u32 = command.query(&mut connection).unwrap();
    }
    // Four of these are seats, of which two have valid names.
    forge(&server, "ghost", 1, &format!("{} 1 4", u64::MAX / 2));
    here.until("the forged member", |hub| names(hub, "room-1") == ["ann", "zed"]).await;
    assert!(here.hub.is_online("zed"));
    // Changes with names that are not selected, empty or too long, and then malformed ones.
    let long = [&b"\0\x06\0\0\0room-1"[..], &300u32.to_le_bytes(), &[b'x'; 300]].concat();
    for (forged, version) in [
        &b"\0\x01\0\0\0x\x03\0\0\0bob"[..],
        b"\0\x06\0\0\0room-1\0\0\0\0",
        b"\xee\x06\0\0\0room-1\x03\0\0\0bob",
        &long,
        b"\0\x06\0\0\0room-1",
        b"\0\x06\0\0\0room-1\x09\0\0\0bob",
        b"\0\x06\0\0\0room-\xff\x03\0\0\0bob",
        b"\0\x03\0\0\0bob",
    ]
    .into_iter()
    .zip(2..)
    {
        let mut command = redis::cmd("XADD");
        command.arg("{sse-hub}:presence").arg("*").arg("i").arg("ghost").arg("v").arg(version);
        command.arg("c").arg("").arg("t").arg(forged);
        let _: String = command.query(&mut connection).unwrap();
    }
    // A record that counts other seats is not believed, and one that is malformed neither.
    for (version, rest) in [(100, "1 5"), (101, "1 x"), (102, "18446744073709551616 4")] {
        let _: u32 = redis::cmd("SREM")
            .arg("{sse-hub}:users:ghost")
            .arg(&b"\xff\x06\0\0\0room-1zed"[..])
            .query(&mut connection)
            .unwrap();
        forge(&server, "ghost", version, &format!("{} {rest}", u64::MAX / 2));
    }
    let bob = member(&there.hub, "bob", "room-1");
    here.until("bob", |hub| names(hub, "room-1") == ["ann", "bob", "zed"]).await;
    drop(bob);
    here.until("his end", |hub| names(hub, "room-1") == ["ann", "zed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn closed_instance_takes_its_users_at_once() {
    let server = Server::start(&[]);
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    let _ann = tab(&there.hub, "ann");
    here.until("ann", |hub| hub.is_online("ann")).await;
    let mut watch = here.hub.watch().unwrap();
    let start = BusyClock::start();
    there.close().await;
    let event = watch.next().await.unwrap();
    let reason = EndReason::Vanished;
    assert_eq!(event, PresenceEvent::Left { user: "ann".into(), reason });
    assert!(start.elapsed() < LEASE, "{:?}", start.elapsed());
    let keys: Vec<String> = server.run("KEYS {sse-hub}:users:*");
    assert_eq!(keys, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn short_cut_is_no_departure() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    // Without a grace, each step is an event.
    let [here, cut] = [server.url(), wire.url()].map(|url| instance_with(&url, Duration::ZERO));
    let (_ann, _bob) = (tab(&here.hub, "ann"), tab(&cut.hub, "bob"));
    here.until("bob", |hub| hub.is_online("bob")).await;
    cut.until("ann", |hub| hub.is_online("ann")).await;
    let mut watches = [&here, &cut].map(|instance| instance.hub.watch().unwrap());
    for line in [Line::Silent, Line::Down] {
        wire.set(line);
        tokio::time::sleep(LEASE * 3 / 4).await;
        wire.set(Line::Open);
        // Later changes are announced after the earlier ones.
        let mark = tab(&cut.hub, "mark");
        here.until("a mark", |hub| hub.is_online("mark")).await;
        drop(mark);
        tokio::time::sleep(LEASE / 2).await;
        here.until("its end", |hub| !hub.is_online("mark")).await;
    }
    let expected = ["mark", "-mark", "mark", "-mark"];
    assert_eq!(watches.each_mut().map(seen), [expected; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn long_cut_is_a_departure_and_a_return() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let (here, cut) = (instance(&server.url()), instance(&wire.url()));
    let (_ann, bob, _cid) = (tab(&here.hub, "ann"), tab(&cut.hub, "bob"), tab(&cut.hub, "cid"));
    here.until("both", |hub| hub.users().len() == 3).await;
    cut.until("ann", |hub| hub.is_online("ann")).await;
    let mut watch = here.hub.watch().unwrap();
    let mut inside = cut.hub.watch().unwrap();
    for line in [Line::Down, Line::Silent] {
        wire.set(line);
        let start = Instant::now();
        here.until("they have left", |hub| hub.users().len() == 1).await;
        let took = start.elapsed();
        println!("{line:?}: users have left after {took:?}");
        assert!(took >= LEASE + GRACE, "{took:?}");
        assert!(cut.hub.is_online("ann"), "it keeps what it knew");
        wire.set(Line::Open);
        here.until("they are back", |hub| hub.users().len() == 3).await;
    }
    let mut all = seen(&mut watch);
    assert_eq!(all.len(), 8, "{all:?}");
    for pair in all.chunks_mut(2) {
        pair.sort();
    }
    assert_eq!(all, ["-bob", "-cid", "bob", "cid", "-bob", "-cid", "bob", "cid"]);
    drop(bob);
    here.until("he has left", |hub| !hub.is_online("bob")).await;
    assert_eq!(seen(&mut watch), ["-bob"]);
    until("he has left", || !cut.hub.is_online("bob")).await;
    assert_eq!(seen(&mut inside), ["-bob"], "nothing else had happened there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn emptied_redis_gets_all_users_again_unnoticed() {
    let mut server = Server::start(&[]);
    let instances = [instance(&server.url()), instance(&server.url())];
    let (ann, _bob) = (tab(&instances[0].hub, "ann"), tab(&instances[1].hub, "bob"));
    for instance in &instances {
        instance.until("both", |hub| hub.users().len() == 2).await;
    }
    let mut watches = instances.each_ref().map(|instance| instance.hub.watch().unwrap());
    let is_whole = |server: &Server| {
        let keys: Vec<String> = server.run("KEYS {sse-hub}:users:*");
        keys.len() == 2 && server.run::<u32>("HLEN {sse-hub}:instances") == 2
    };
    until("all is told", || is_whole(&server)).await;
    let _: String = server.run("FLUSHALL");
    until("all is told anew", || is_whole(&server)).await;
    let _: u32 = server.run("DEL {sse-hub}:presence {sse-hub}:instances");
    until("all is told anew", || is_whole(&server)).await;
    let keys: Vec<String> = server.run("KEYS {sse-hub}:users:*");
    let _: u32 = server.run(&format!("DEL {}", keys[0]));
    until("all is told anew", || is_whole(&server)).await;
    // Redis is away for longer than any lease, and empty then.
    server.kill();
    tokio::time::sleep(LEASE * 2).await;
    server.restart();
    until("all is told anew", || is_whole(&server)).await;

    let cid = tab(&instances[0].hub, "cid");
    instances[1].until("cid", |hub| hub.is_online("cid")).await;
    drop((ann, cid));
    instances[1].until("bob alone", |hub| hub.users().len() == 1).await;
    instances[0].until("bob alone", |hub| hub.users().len() == 1).await;
    for mut all in watches.each_mut().map(seen) {
        assert_eq!(all.remove(0), "cid");
        all.sort();
        assert_eq!(all, ["-ann", "-cid"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn older_redis_gets_all_users_again() {
    let server = Server::start(&[]);
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    let _ann = tab(&there.hub, "ann");
    here.until("ann", |hub| hub.is_online("ann")).await;
    // A position ahead of all others, and then a stream with lower positions.
    let _: String = server.run("XADD {sse-hub}:presence 99999999999999-1 x y");
    let bob = tab(&there.hub, "bob");
    here.until("bob", |hub| hub.is_online("bob")).await;
    let _: u32 = server.run("DEL {sse-hub}:presence");
    let cid = tab(&there.hub, "cid");
    here.until("cid", |hub| hub.is_online("cid")).await;
    tokio::time::sleep(LEASE / 2).await;
    // From here on, no set needs to be read.
    let sets_read = || {
        let stats: String = server.run("INFO commandstats");
        stats.lines().find(|line| line.starts_with("cmdstat_sscan:")).unwrap().to_owned()
    };
    let before = sets_read();
    drop((bob, cid));
    here.until("ann alone", |hub| hub.users().len() == 1).await;
    assert_eq!(sets_read(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn trimmed_announcements_are_found_in_the_sets() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let [here, there, other] = [wire.url(), server.url(), server.url()].map(|url| instance(&url));
    let ann = tab(&there.hub, "ann");
    let _bob = tab(&other.hub, "bob");
    here.until("both", |hub| hub.users().len() == 2).await;
    wire.set(Line::Down);
    drop(ann);
    let (_cid, _dan) = (tab(&there.hub, "cid"), tab(&other.hub, "dan"));
    other.until("cid", |hub| hub.is_online("cid")).await;
    there.until("dan", |hub| hub.is_online("dan")).await;
    let _: u32 = server.run("XTRIM {sse-hub}:presence MAXLEN 0");
    let _eve = tab(&other.hub, "eve");
    there.until("eve", |hub| hub.is_online("eve")).await;
    wire.set(Line::Open);
    let expected = ["bob", "cid", "dan", "eve"];
    here.until("who is there", |hub| users(hub).into_keys().eq(expected)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn crowd_is_announced_in_few_entries() {
    const CROWD: usize = 10_000;
    let server = Server::start(&[]);
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    here.backplane.ready().await;
    let start = Instant::now();
    let mut crowd: Vec<_> = (0..CROWD).map(|user| tab(&here.hub, &user.to_string())).collect();
    there.until("the crowd", |hub| hub.users().len() == CROWD).await;
    let came = start.elapsed();
    // As a reload does: all leave, and come back before or right after the announcement.
    for _ in 0..3 {
        crowd.clear();
        crowd.extend((0..CROWD).map(|user| tab(&here.hub, &user.to_string())));
    }
    let late = instance(&server.url());
    late.until("the crowd", |hub| hub.users().len() == CROWD).await;
    // Users that join singly, for about a second.
    for user in CROWD..CROWD + 500 {
        crowd.push(tab(&here.hub, &user.to_string()));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    crowd.truncate(1);
    let gone = Instant::now();
    there.until("one of them", |hub| hub.users().len() == 1).await;
    late.until("one of them", |hub| hub.users().len() == 1).await;
    let gone = gone.elapsed();
    assert_eq!(server.run::<u32>("XLEN {sse-hub}:events"), 0);
    let added = server.commands().into_iter().find(|(name, _)| name == "xadd").unwrap().1 as usize;
    let took = start.elapsed();
    println!("{CROWD} users came in {came:?} and went in {gone:?}: {added} entries in {took:?}");
    // A full entry for each thousand, and an entry for each tenth of a second.
    let full = 8 * CROWD / 1024;
    assert!(added <= full + took.as_millis() as usize / 100 + 3 + 8, "{added} in {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn malformed_announcements_are_skipped() {
    let server = Server::start(&[]);
    let (here, there) = (instance(&server.url()), instance(&server.url()));
    let _ann = tab(&there.hub, "ann");
    here.until("ann", |hub| hub.is_online("ann")).await;
    let stream = "XADD {sse-hub}:presence *";
    for garbage in [
        "x y",
        "i ghost v 18446744073709551615 c x",
        "i ghost v 0 c \u{0}",
        "i ghost v 7 a ",
        "i ghost v 8 g ",
        "i  v 1 a ",
    ] {
        let _: String = server.run(&format!("{stream} {garbage}"));
    }
    for garbage in ["a b", "b 18446744073709551615 1 1", "c -1 1 1", "d", "e 1 1 -1", "f 1 1"] {
        let parts: Vec<&str> = garbage.split(' ').collect();
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut command = redis::cmd("HSET");
        command.arg("{sse-hub}:instances").arg(parts[0]).arg(parts[1..].join(" "));
        let _: u32 = command.query(&mut connection).unwrap();
    }
    let bob = tab(&there.hub, "bob");
    here.until("bob", |hub| hub.is_online("bob")).await;
    assert_eq!(here.hub.users().len(), 2);

    let _: u32 = server.run("DEL {sse-hub}:presence");
    let _: String = server.run("SET {sse-hub}:presence something");
    drop(bob);
    tokio::time::sleep(LEASE / 2).await;
    assert!(here.hub.is_online("bob"));
    let id = there.publish("events go on").await;
    assert!(id.epoch() > 0 && !here.hub.stats().degraded);
    let _: u32 = server.run("DEL {sse-hub}:presence");
    here.until("bob has left", |hub| !hub.is_online("bob")).await;
    assert!(here.hub.is_online("ann"));
    until("garbage is cleared away", || server.run::<u32>("HLEN {sse-hub}:instances") == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn removed_set_is_not_read_as_empty() {
    let server = Server::start(&[]);
    let here = instance_with(&server.url(), Duration::ZERO);
    let tell = |name: &str, version: u64| {
        let now = u64::MAX / 2 + version;
        let client = redis::Client::open(server.url()).unwrap();
        let mut command = redis::cmd("HSET");
        command.arg("{sse-hub}:instances").arg(name).arg(format!("{version} {now} 1"));
        let _: u32 = command.query(&mut client.get_connection().unwrap()).unwrap();
        let _: String =
            server.run(&format!("XADD {{sse-hub}}:presence * i {name} v {version} a x"));
    };
    let _: u32 = server.run("SADD {sse-hub}:users:first zed");
    tell("first", 1);
    here.until("zed", |hub| hub.is_online("zed")).await;
    let mut watch = here.hub.watch().unwrap();

    let _: u32 = server.run("DEL {sse-hub}:users:first");
    tell("first", 2);
    // The next announcement.
    let _: u32 = server.run("SADD {sse-hub}:users:second mark");
    tell("second", 1);
    here.until("mark", |hub| hub.is_online("mark")).await;
    assert_eq!(seen(&mut watch), ["mark"]);

    // A new announcement, of another set.
    let _: u32 = server.run("SADD {sse-hub}:users:first ann");
    tell("first", 3);
    here.until("ann", |hub| hub.is_online("ann")).await;
    let mut all = seen(&mut watch);
    all.sort();
    assert_eq!(all, ["-zed", "ann"]);
}

/// Users join and leave at three instances, while connections are killed and cut, and Redis is
/// emptied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn instances_agree_after_all_faults() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    // Without a grace, each step is an event.
    let all =
        [server.url(), wire.url(), server.url()].map(|url| instance_with(&url, Duration::ZERO));
    let mut watches = all.each_ref().map(|instance| instance.hub.watch().unwrap());
    let mut topic_watches = all.each_ref().map(|instance| instance.hub.watch_topics().unwrap());
    let mut events: [Vec<String>; 3] = Default::default();
    let mut tabs: Vec<(usize, Subscription)> = Vec::new();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (chance >> 33) % below
    };
    let rounds: u64 =
        std::env::var("SSE_HUB_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    for step in 0..rounds * 40 {
        match next(20) {
            0 => wire.set(Line::Down),
            1 => wire.set(Line::Silent),
            2..=5 => wire.set(Line::Open),
            6 => drop(server.run::<u32>("CLIENT KILL TYPE normal SKIPME yes")),
            7 if step % 3 == 0 => drop(server.run::<String>("FLUSHALL")),
            8..=13 => {
                let (at, user) = (next(3) as usize, next(12) as usize);
                let room = format!("room-{}", next(3));
                tabs.push((user, member(&all[at].hub, &user.to_string(), &room)));
            }
            14 if !tabs.is_empty() => {
                // A command through Redis, which may be lost with it.
                let (at, nth) = (next(3) as usize, next(tabs.len() as u64) as usize);
                let (who, room) = (tabs[nth].1.client_id(), format!("room-{}", next(3)));
                if next(2) == 0 {
                    let _ = all[at].hub.join(who, room);
                } else {
                    let _ = all[at].hub.leave(who, room);
                }
            }
            _ if tabs.is_empty() => {}
            _ => drop(tabs.swap_remove(next(tabs.len() as u64) as usize)),
        }
        // Sometimes shorter than the pace, always shorter than the lease.
        tokio::time::sleep(Duration::from_millis(next(60))).await;
        for (all, watch) in events.iter_mut().zip(&mut watches) {
            all.extend(seen(watch));
        }
    }
    wire.set(Line::Open);
    let mut online: Vec<String> = tabs.iter().map(|tab| tab.0.to_string()).collect();
    online.sort();
    online.dedup();
    for instance in &all {
        instance.until("the same", |hub| users(hub).into_keys().eq(online.iter().cloned())).await;
    }
    tokio::time::sleep(LEASE * 2).await;
    let clients = all.iter().flat_map(|instance| instance.hub.clients(Audience::all()));
    let in_rooms: BTreeSet<(String, String)> = clients
        .flat_map(|client| {
            let user = client.user.unwrap();
            client.topics.into_iter().map(move |topic| (user.to_string(), topic.to_string()))
        })
        .collect();
    for (instance, watch) in all.iter().zip(&mut topic_watches) {
        let mut there = BTreeSet::new();
        for (user, topic, reason) in seen_in_topics(watch) {
            let seat = (user, topic);
            let turns = if reason.is_some() { there.remove(&seat) } else { there.insert(seat) };
            assert!(turns, "a change out of turn");
        }
        assert_eq!(there, in_rooms, "the changes lead to the members");
        let rooms = (0..3).map(|number| format!("room-{number}"));
        let listed = rooms.flat_map(|room| {
            names(&instance.hub, &room).into_iter().map(move |user| (user, room.clone()))
        });
        assert_eq!(listed.collect::<BTreeSet<_>>(), in_rooms);
    }
    for (at, instance) in all.iter().enumerate() {
        assert!(users(&instance.hub).into_keys().eq(online.iter().cloned()));
        events[at].extend(seen(&mut watches[at]));
        let mut there = BTreeSet::new();
        for event in &events[at] {
            let turns = match event.strip_prefix('-') {
                Some(user) => there.remove(user),
                None => there.insert(event.clone()),
            };
            assert!(turns, "{event} out of turn at {at}");
        }
        assert!(there.into_iter().eq(online.iter().cloned()), "what was told is what is so");
    }
    println!("{} users at last, {} events at each", online.len(), events[0].len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn closed_hub_ends_while_redis_is_away() {
    let mut server = Server::start(&[]);
    let here = instance(&server.url());
    let _ann = tab(&here.hub, "ann");
    until("ann in Redis", || server.run::<u32>("XLEN {sse-hub}:presence") > 0).await;
    server.kill();
    here.close().await;
}
