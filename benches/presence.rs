//! The cost of presence in topics: time of joins and leaves, and memory.
//!
//! | part | measures |
//! |---|---|
//! | `join` | `Hub::join` and then `Hub::leave` of one client, beside 100,000 memberships |
//! | `connect` | a client with ten topics that connects and closes, beside 100,000 memberships |
//! | `memory` | bytes for each user, and for each member of small and large topics |
//!
//! The peers of the first two parts are the same hub without presence in topics (`users`), and with
//! it (`topics`). They take turns, and the times are processor time of the thread. `clients` is the
//! number of memberships, of which each user has ten.
//!
//! The part `count` runs 1,000 operations of each kind without a clock, for callgrind, which counts
//! the instructions in the functions `counted_*`:
//!
//! ```text
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*counted_join*' \
//!     PROGRAM count --peers topics
//! ```

use std::alloc::System;
use std::time::Duration;

use sse_hub::backplane::{Backplane, Feed, Outgoing, Seat, SendError};
use sse_hub::{ClientId, Hub, ManualTimer, Presence, Subscriber, Subscription};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/report.rs"]
mod report;

use cpu::thread_time;
use report::Bench;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The topics of each user.
const TOPICS: usize = 10;

/// The members of each topic.
const MEMBERS: usize = 100;

/// The operations of a round.
const OPERATIONS: usize = 1_000;

fn main() {
    let mut bench = Bench::start("presence");
    if std::env::args().any(|argument| argument == "count") {
        for (_, presence) in peers(&bench) {
            let scene = Scene::new(presence, 100_000);
            scene.operate("join");
            scene.operate("connect");
        }
        return;
    }
    for part in ["join", "connect"] {
        if bench.wants(part) {
            for memberships in bench.clients(&[1_000, 100_000], 1_000) {
                compare(&mut bench, part, memberships);
            }
        }
    }
    if bench.wants("memory") {
        for seats in bench.clients(&[100_000, 120_000], 1_000) {
            for members in [None, Some(1), Some(2), Some(100)] {
                memory(&mut bench, seats, members);
            }
        }
    }
    bench.finish();
}

/// A hub with its clients.
struct Scene {
    hub: Hub,
    crowd: Vec<Subscription>,
    times: Vec<f64>,
}

impl Scene {
    fn new(presence: Presence, memberships: usize) -> Self {
        let hub = Hub::builder(ManualTimer::new()).heartbeat(None).presence(presence);
        let hub = hub.build().expect("the settings are valid");
        // A watcher that reads nothing: the events are kept.
        std::mem::forget(hub.watch().expect("presence is on"));
        if let Ok(watch) = hub.watch_topics() {
            std::mem::forget(watch);
        }
        let crowd = crowd(&hub, memberships);
        Self { hub, crowd, times: Vec::new() }
    }

    fn round(&mut self, part: &str) {
        let start = thread_time();
        self.operate(part);
        let calls = if part == "join" { 2 * OPERATIONS } else { OPERATIONS };
        self.times.push((thread_time() - start).as_nanos() as f64 / calls as f64);
    }

    fn operate(&self, part: &str) {
        for number in 0..OPERATIONS {
            let nth = number * 7919;
            if part == "join" {
                let client = self.crowd[nth % self.crowd.len()].client_id();
                let topic = format!("extra-{}", nth % MEMBERS);
                counted_join(&self.hub, client, &topic);
                counted_leave(&self.hub, client, &topic);
            } else {
                let who = subscriber(nth % self.crowd.len(), self.crowd.len());
                counted_connect(&self.hub, who);
            }
        }
    }
}

#[inline(never)]
fn counted_join(hub: &Hub, client: ClientId, topic: &str) {
    assert_eq!(hub.join(client, topic).expect("the client has room").changed, 1);
}

#[inline(never)]
fn counted_leave(hub: &Hub, client: ClientId, topic: &str) {
    assert_eq!(hub.leave(client, topic).expect("the topic is valid").changed, 1);
}

#[inline(never)]
fn counted_connect(hub: &Hub, who: Subscriber) {
    drop(hub.subscribe(who).expect("the hub is open"));
}

/// The client of a user that follows ten topics, of 100 members each.
fn subscriber(user: usize, users: usize) -> Subscriber {
    let topics = users.div_ceil(MEMBERS / TOPICS);
    let topic = |nth: usize| format!("room-{}", (user + nth * topics.div_ceil(TOPICS)) % topics);
    Subscriber::new().user(format!("user-{user}")).topics((0..TOPICS).map(topic))
}

fn crowd(hub: &Hub, memberships: usize) -> Vec<Subscription> {
    let users = memberships / TOPICS;
    let open = |user| hub.subscribe(subscriber(user, users)).expect("the hub is open");
    (0..users).map(open).collect()
}

fn presence() -> Presence {
    Presence::default().grace(Duration::from_secs(10)).max_away(1_000_000)
}

/// The wanted peers with their settings.
fn peers(bench: &Bench) -> Vec<(&'static str, Presence)> {
    let mut peers = vec![("topics", presence().all_topics()), ("users", presence())];
    peers.retain(|(peer, _)| bench.wants_peer(peer));
    peers
}

fn compare(bench: &mut Bench, part: &str, memberships: usize) {
    let mut scenes: Vec<_> = peers(bench)
        .into_iter()
        .map(|(peer, presence)| (peer, Scene::new(presence, memberships)))
        .collect();
    for round in 0..bench.rounds(31, 2) {
        // The first of a round finds other data in the caches than the second.
        let first = round % scenes.len();
        scenes.rotate_left(first);
        scenes.iter_mut().for_each(|(_, scene)| scene.round(part));
        scenes.rotate_right(first);
    }
    let scenes: Vec<_> = scenes.into_iter().map(|(peer, scene)| (peer, scene.times)).collect();
    bench.compare(part, memberships, "ns", &scenes);
}

/// Takes nothing anywhere.
#[derive(Debug)]
struct Nowhere;

impl Backplane for Nowhere {
    fn send(&self, _: Outgoing) -> Result<(), SendError> {
        Ok(())
    }
}

/// Measures `seats` users without topics, or `seats` members of topics with so many members each.
fn memory(bench: &mut Bench, seats: usize, members: Option<usize>) {
    let peer = members.map_or_else(|| "users".to_owned(), |members| format!("rooms of {members}"));
    let mut record = |metric: &str, bytes: isize| {
        bench.record(peer.as_str(), seats, metric, bytes as f64 / seats as f64, "bytes");
    };
    // Names of 12 and 14 bytes.
    let user = |nth: usize| format!("user-{nth:07}");
    let topic = |members: usize, nth: usize| format!("room-{:09}", nth / members);
    let [with, without] = [Some(presence().all_topics()), None].map(|presence| {
        let hub = Hub::builder(ManualTimer::new()).heartbeat(None).presence(presence);
        let hub = hub.build().expect("the settings are valid");
        let region = Region::new(ALLOCATOR);
        let open = |nth| {
            let topics = members.map(|members| topic(members, nth));
            hub.subscribe(Subscriber::new().user(user(nth)).topics(topics))
                .expect("the hub is open")
        };
        let crowd: Vec<_> = (0..seats).map(open).collect();
        let online = bytes(&region);
        drop(crowd);
        [online, bytes(&region)]
    });
    record("online", with[0] - without[0]);
    // With topics: the user and the member.
    record("away", with[1] - without[1]);

    let hub = Hub::builder(ManualTimer::new()).presence(presence().all_topics());
    let hub = hub.backplane(Nowhere).build().expect("the settings are valid");
    let feed = Feed::new(&hub).expect("the hub has a backplane");
    let region = Region::new(ALLOCATOR);
    let all = (0..seats).map(|nth| match members {
        None => Seat::user(user(nth)),
        Some(members) => Seat::member(user(nth), topic(members, nth)),
    });
    feed.replace_users("other", all);
    record("on one other instance", bytes(&region));
}

fn bytes(region: &Region<'_, System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}
