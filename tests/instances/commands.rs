//! Commands to clients, on several instances.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sse_hub::backplane::{Backplane, Feed, Incoming, Outgoing, SendError};
use sse_hub::{
    Audience, DisconnectError, EndReason, Event, EventId, Goodbye, Hub, HubBuilder, JoinError,
    Limits, ManualTimer, Subscriber, Subscription,
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
        instance.feed.load(EventId::new(1, 0), []);
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
    let ended = here
        .hub
        .disconnect(Audience::user("ann"), Goodbye::from_static("kicked").event(event("bye")));
    assert_eq!(ended, Ok(1), "the count must cover local clients");
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
fn events_after_a_join_reach_all_instances() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    let mut hers = [here.connect(ann()), there.connect(ann())];
    let publish = |data: &str| here.hub.publish(Audience::topic("t"), event(data)).unwrap();
    publish("before");
    assert_eq!(here.hub.join(Audience::user("ann"), "t"), Ok(1));
    publish("joined");
    assert_eq!(here.hub.leave(Audience::user("ann"), "t"), Ok(0), "the join is not placed yet");
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
    assert_eq!(here.hub.leave(Audience::all(), "t"), Ok(1));
    settle(&mut order, [&mut here, &mut there]);
    assert_eq!(here.hub.leave(Audience::all(), "t"), Ok(0));
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
    there.feed.load(id(0), tail);
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
    assert_eq!(here.hub.leave(&who, ""), Ok(0), "an empty topic has no members");
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
        instance.feed.load(EventId::new(1, 0), []);
    }
    let _tabs = [here.connect(ann().topic("a")), there.connect(ann().topic("a"))];
    let _free = there.connect(ann());
    assert_eq!(here.hub.join(Audience::user("ann"), "b"), Ok(1));
    settle(&mut order, [&mut here, &mut there]);
    let joined = [&here, &there].map(|instance| instance.hub.count(Audience::topic("b")));
    assert_eq!(joined, [1, 1]);
    let error = JoinError::TooManyTopics { limit: 2 };
    assert_eq!(here.hub.join(Audience::user("ann"), "c"), Err(error));
    assert!(here.outbox.0.lock().unwrap().is_empty(), "a refused command must not be sent");
}
