//! Commands to clients, on several instances.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sse_hub::backplane::{Backplane, Feed, Incoming, Loaded, Outgoing, SendError};
use sse_hub::{
    Audience, DisconnectError, EndReason, Event, EventId, FollowError, Goodbye, Hub, HubBuilder,
    JoinError, Limits, ManualTimer, Subscriber, Subscription,
};

use crate::support::{data, end, gaps, has_ended, last_id, read};

/// Sent entries that are not placed yet.
#[derive(Debug, Clone, Default)]
struct Outbox(Arc<Mutex<VecDeque<Outgoing>>>, Arc<AtomicBool>);

impl Backplane for Outbox {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(SendError::Closed);
        }
        let mut waiting = self.0.lock().unwrap();
        if waiting.len() >= 8 {
            return Err(SendError::Full);
        }
        waiting.push_back(event);
        Ok(())
    }

    fn on_close(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

/// A hub and the number of entries that it has read.
struct Instance {
    hub: Hub,
    feed: Feed,
    outbox: Outbox,
    read: usize,
}

/// Entries without ids: an id is the index in the list plus one.
type Order = Vec<bytes::Bytes>;

fn id(at: usize) -> EventId {
    EventId::new(at as u64 + 1, 0)
}

impl Instance {
    fn with(set: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        let outbox = Outbox::default();
        let builder = Hub::builder(ManualTimer::new()).backplane(outbox.clone());
        let hub = set(builder).build().unwrap();
        let feed = Feed::new(&hub).unwrap();
        Self { hub, feed, outbox, read: 0 }
    }

    fn new() -> Self {
        let instance = Self::with(|hub| hub);
        instance.feed.load(Loaded::new(EventId::new(1, 0), []));
        instance
    }

    fn flush(&self, order: &mut Order) {
        order.extend(self.outbox.0.lock().unwrap().drain(..).map(|event| event.entry().clone()));
    }

    fn read(&mut self, order: &Order) {
        for entry in &order[self.read..] {
            self.read += 1;
            self.feed.append(id(self.read), Incoming::parse(entry).unwrap());
        }
    }

    fn connect(&self, who: Subscriber) -> Subscription {
        let mut client = self.hub.subscribe(who).unwrap();
        read(&mut client);
        client
    }
}

/// Places every sent entry, and reads every entry on every instance.
fn settle<const N: usize>(order: &mut Order, instances: [&mut Instance; N]) {
    instances.iter().for_each(|instance| instance.flush(order));
    instances.into_iter().for_each(|instance| instance.read(order));
}

fn ann() -> Subscriber {
    Subscriber::new().user("ann")
}

fn event(data: &str) -> Event {
    Event::new("n").data(data)
}

#[test]
fn disconnect_ends_user_streams_on_every_instance() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    let mut hers = [here.connect(ann()), there.connect(ann())];
    let mut other = there.connect(Subscriber::new().user("bob"));
    let goodbye = Goodbye::from_static("kicked").event(event("bye"));
    let ended = here.hub.disconnect(Audience::user("ann"), goodbye).unwrap();
    assert_eq!((ended.matched, ended.changed), (1, 1), "the counts must cover local clients");
    assert_eq!(here.hub.stats().clients, 1, "the command is not placed yet");
    settle(&mut order, [&mut here, &mut there]);
    for client in &mut hers {
        let text = read(client);
        assert_eq!((data(&text), end(&text).as_deref()), (vec!["bye".into()], Some("kicked")));
        assert!(has_ended(client));
    }
    assert!(!has_ended(&mut other));
    for hub in [&here.hub, &there.hub] {
        assert_eq!(hub.stats().ended(EndReason::Disconnected), 1);
        assert_eq!((hub.stats().malformed, hub.stats().published), (0, 0));
    }
}

#[test]
fn command_skips_clients_that_come_later() {
    let (mut here, mut order) = (Instance::new(), Order::new());
    here.hub.disconnect(Audience::all(), Goodbye::from_static("x")).unwrap();
    settle(&mut order, [&mut here]);
    let mut client = here.connect(ann());
    here.feed.append(id(1), Incoming::parse(&order[0]).unwrap());
    assert!(!has_ended(&mut client), "reading a command twice must not end the client");
}

#[test]
fn joined_clients_of_every_instance_get_the_last_events() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    let publish = |hub: &sse_hub::Hub, data: &str| {
        hub.send_to_topic("t", event(data)).unwrap();
    };
    for data in ["1", "2", "3"] {
        publish(&here.hub, data);
    }
    settle(&mut order, [&mut here, &mut there]);
    let mut hers = [here.connect(ann()), there.connect(ann())];
    let joined = there.hub.join_with_last(Audience::user("ann"), "t", 2).unwrap();
    assert_eq!((joined.matched, joined.changed), (1, 1), "clients of this instance");
    publish(&there.hub, "4");
    settle(&mut order, [&mut here, &mut there]);
    for client in &mut hers {
        let text = read(client);
        assert_eq!(data(&text), ["2", "3", "4"]);
        assert_eq!(gaps(&text), [""; 0]);
    }
    assert_eq!((here.hub.stats().malformed, there.hub.stats().malformed), (0, 0));
}

#[test]
fn own_client_of_another_instance_follows_and_others_do_not() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    let session = |user: &str, session: &str| Subscriber::new().user(user).session(session);
    let mut clients = [
        there.connect(session("ann", "s1")),
        there.connect(session("ann", "s2")),
        there.connect(session("bob", "s1")),
        there.connect(Subscriber::new()),
    ];
    // A request of each identity names each client. All reach an instance without these clients.
    let identities = [session("ann", "s1"), session("ann", "s2"), session("bob", "s1")];
    for (number, client) in clients.iter().enumerate() {
        for (asker, who) in identities.iter().enumerate() {
            let topic = format!("{asker} for {number}");
            assert_eq!(here.hub.follow(who, client.client_id(), topic, 0), Ok(()));
        }
        // Without a name, the other instance could not tell whose client it is.
        let denied = here.hub.follow(&Subscriber::new(), client.client_id(), "none", 0);
        assert_eq!(denied, Err(FollowError::Denied));
        settle(&mut order, [&mut here, &mut there]);
    }
    let topics = |client: &Subscription| there.hub.clients(client.client_id())[0].topics.concat();
    assert_eq!(clients.each_ref().map(topics), ["0 for 0", "1 for 1", "2 for 2", ""]);
    here.hub.unfollow(&identities[1], clients[0].client_id(), "0 for 0").unwrap();
    here.hub.unfollow(&identities[1], clients[1].client_id(), "1 for 1").unwrap();
    settle(&mut order, [&mut here, &mut there]);
    let topics = |client: &Subscription| there.hub.clients(client.client_id())[0].topics.concat();
    assert_eq!(clients.each_ref().map(topics), ["0 for 0", "", "2 for 2", ""]);
    assert_eq!(clients.each_mut().map(|client| data(&read(client)).len()), [0; 4]);
    // A user or a session is enough.
    for who in [Subscriber::new().user("zoe"), Subscriber::new().session("s3")] {
        let client = there.connect(who.clone());
        assert_eq!(here.hub.follow(&who, client.client_id(), "t", 0), Ok(()));
        settle(&mut order, [&mut here, &mut there]);
        assert_eq!(there.hub.clients(client.client_id())[0].topics.concat(), "t");
    }
}

#[test]
fn events_after_a_join_reach_all_instances() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    let mut hers = [here.connect(ann()), there.connect(ann())];
    let publish = |data: &str| here.hub.publish(Audience::topic("t"), event(data)).unwrap();
    publish("before");
    assert_eq!(here.hub.join(Audience::user("ann"), "t").map(|clients| clients.changed), Ok(1));
    publish("joined");
    assert_eq!(
        here.hub.leave(Audience::user("ann"), "t").map(|clients| clients.changed),
        Ok(0),
        "the join is not placed yet"
    );
    publish("left");
    settle(&mut order, [&mut here, &mut there]);
    for client in &mut hers {
        // The event was in the window when the clients left.
        let text = read(client);
        assert_eq!(data(&text), ["joined"]);
        assert_eq!(gaps(&text), [""; 0]);
    }
    there.hub.join(Audience::user("ann"), "t").unwrap();
    settle(&mut order, [&mut here, &mut there]);
    here.hub.publish(Audience::topic("t"), event("again")).unwrap();
    settle(&mut order, [&mut here, &mut there]);
    assert_eq!(hers.each_mut().map(|client| data(&read(client))), [["again"], ["again"]]);
    assert_eq!(here.hub.leave(Audience::all(), "t").map(|clients| clients.changed), Ok(1));
    settle(&mut order, [&mut here, &mut there]);
    assert_eq!(here.hub.leave(Audience::all(), "t").map(|clients| clients.changed), Ok(0));
}

#[test]
fn client_resumes_at_position_of_a_command() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    here.hub.join(Audience::all(), "t").unwrap();
    settle(&mut order, [&mut here]);
    let mut client = here.hub.subscribe(Subscriber::new()).unwrap();
    let opening = read(&mut client);
    assert_eq!(last_id(&opening), id(1), "the opening carries the position of the command");
    here.hub.broadcast(event("1")).unwrap();
    settle(&mut order, [&mut here]);
    let mut client = there.hub.subscribe(Subscriber::new().resume(last_id(&opening))).unwrap();
    there.read(&order);
    let text = read(&mut client);
    assert_eq!((data(&text), gaps(&text)), (vec!["1".to_owned()], vec![]));
}

#[test]
fn commands_before_loading_are_ignored() {
    let (here, mut order) = (Instance::new(), Order::new());
    here.hub.disconnect(Audience::all(), Goodbye::from_static("x")).unwrap();
    here.hub.broadcast(event("1")).unwrap();
    here.flush(&mut order);
    let there = Instance::with(|hub| hub);
    let mut early = there.connect(Subscriber::new().resume(id(0)));
    let tail = order.iter().zip(1..);
    let tail = tail.map(|(entry, at)| (id(at), Duration::ZERO, Incoming::parse(entry).unwrap()));
    there.feed.load(Loaded::new(id(0), tail));
    assert_eq!(data(&read(&mut early)), ["1"]);
    assert!(!has_ended(&mut early));
    assert_eq!((there.hub.stats().malformed, there.hub.stats().retained), (0, 1));
}

#[test]
fn full_outbox_and_closed_hub_are_errors() {
    let here = Instance::new();
    while here.hub.broadcast(event("")).is_ok() {}
    let who = Audience::all();
    assert_eq!(here.hub.disconnect(&who, Goodbye::from_static("x")), Err(DisconnectError::Backlog));
    assert_eq!(here.hub.join(&who, "t"), Err(JoinError::Backlog));
    assert_eq!(here.hub.leave(&who, "t"), Err(JoinError::Backlog));
    assert_eq!(
        here.hub.leave(&who, "").map(|clients| clients.changed),
        Ok(0),
        "an empty topic has no members"
    );
    here.hub.close();
    assert_eq!(here.hub.disconnect(&who, Goodbye::from_static("x")), Err(DisconnectError::Closed));
    assert_eq!(here.hub.join(&who, "t"), Err(JoinError::Closed));
    assert_eq!(here.hub.leave(&who, "t"), Err(JoinError::Closed));
}

#[test]
fn remote_client_at_topic_limit_does_not_join() {
    let limits =
        |topics: usize| move |hub: HubBuilder| hub.limits(Limits::default().topics(topics));
    let mut order = Order::new();
    let (mut here, mut there) = (Instance::with(limits(2)), Instance::with(limits(1)));
    for instance in [&here, &there] {
        instance.feed.load(Loaded::new(EventId::new(1, 0), []));
    }
    let _tabs = [here.connect(ann().topic("a")), there.connect(ann().topic("a"))];
    let _free = there.connect(ann());
    assert_eq!(here.hub.join(Audience::user("ann"), "b").map(|clients| clients.changed), Ok(1));
    settle(&mut order, [&mut here, &mut there]);
    let joined = [&here, &there].map(|instance| instance.hub.count(Audience::topic("b")));
    assert_eq!(joined, [1, 1]);
    settle(&mut order, [&mut here, &mut there]);
    let error = JoinError::TooManyTopics { limit: 2 };
    assert_eq!(here.hub.join(Audience::user("ann"), "c"), Err(error));
    assert!(here.outbox.0.lock().unwrap().is_empty(), "a refused command must not be sent");
}
