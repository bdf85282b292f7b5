//! What is done to clients wherever they are.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sse_hub::backplane::{Backplane, Feed, Outgoing, Unsent};
use sse_hub::{
    Audience, DisconnectError, EndReason, Event, EventId, Hub, HubBuilder, JoinError, Limits,
    ManualTimer, Subscriber, Subscription,
};

use crate::support::{data, end, gaps, has_ended, last_id, read};

/// What a hub has sent and what has no place in the order yet.
#[derive(Debug, Clone, Default)]
struct Outbox(Arc<Mutex<VecDeque<Outgoing>>>, Arc<AtomicBool>);

impl Backplane for Outbox {
    fn send(&self, event: Outgoing) -> Result<(), Unsent> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Unsent::Closed);
        }
        let mut waiting = self.0.lock().unwrap();
        if waiting.len() >= 8 {
            return Err(Unsent::Full);
        }
        waiting.push_back(event);
        Ok(())
    }

    fn close(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

/// A hub that has read so much of the order.
struct Instance {
    hub: Hub,
    feed: Feed,
    outbox: Outbox,
    read: usize,
}

/// Entries without their ids, which are their places, from 1 on.
type Order = Vec<bytes::Bytes>;

fn id(at: usize) -> EventId {
    EventId::new(at as u64 + 1, 0)
}

impl Instance {
    fn with(set: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        let outbox = Outbox::default();
        let builder = Hub::builder(ManualTimer::new()).backplane(outbox.clone());
        let hub = set(builder).build().unwrap();
        let feed = Feed::of(&hub).unwrap();
        Self { hub, feed, outbox, read: 0 }
    }

    fn new() -> Self {
        let instance = Self::with(|hub| hub);
        instance.feed.load(EventId::new(1, 0), None::<(EventId, Duration, Vec<u8>)>);
        instance
    }

    fn flush(&self, order: &mut Order) {
        order.extend(self.outbox.0.lock().unwrap().drain(..).map(|event| event.entry().clone()));
    }

    fn read(&mut self, order: &Order) {
        for entry in &order[self.read..] {
            self.read += 1;
            self.feed.append(id(self.read), entry).unwrap();
        }
    }

    fn client(&self, who: Subscriber) -> Subscription {
        let mut client = self.hub.subscribe(who).unwrap();
        read(&mut client);
        client
    }
}

/// Everything that was sent reaches everybody.
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
fn a_user_is_disconnected_on_every_instance_with_the_last_event_and_the_reason() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    let mut hers = [here.client(ann()), there.client(ann())];
    let mut other = there.client(Subscriber::new().user("bob"));
    let ended = here.hub.disconnect(&Audience::user("ann"), "kicked", Some(event("bye")));
    assert_eq!(ended, Ok(1), "so many are here");
    assert_eq!(here.hub.stats().clients, 1, "it has no place in the order yet");
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
fn what_was_done_is_not_done_again_to_those_who_come_after_it() {
    let (mut here, mut order) = (Instance::new(), Order::new());
    here.hub.disconnect(&Audience::all(), "x", None).unwrap();
    settle(&mut order, [&mut here]);
    let mut client = here.client(ann());
    here.feed.append(id(1), &order[0]).unwrap();
    assert!(!has_ended(&mut client), "an engine that reads twice");
}

#[test]
fn what_is_published_after_a_join_reaches_whom_it_joined_wherever_they_are() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    let mut hers = [here.client(ann()), there.client(ann())];
    let publish = |data: &str| here.hub.publish(Audience::topic("t"), event(data)).unwrap();
    publish("before");
    assert_eq!(here.hub.join(&Audience::user("ann"), "t"), Ok(1));
    publish("joined");
    assert_eq!(here.hub.leave(&Audience::user("ann"), "t"), Ok(0), "none of them is in it yet");
    publish("left");
    settle(&mut order, [&mut here, &mut there]);
    for client in &mut hers {
        // It was in the window when they left.
        let text = read(client);
        assert_eq!(data(&text), ["joined"]);
        assert_eq!(gaps(&text), [""; 0]);
    }
    there.hub.join(&Audience::user("ann"), "t").unwrap();
    settle(&mut order, [&mut here, &mut there]);
    here.hub.publish(Audience::topic("t"), event("again")).unwrap();
    settle(&mut order, [&mut here, &mut there]);
    assert_eq!(hers.each_mut().map(|client| data(&read(client))), [["again"], ["again"]]);
    assert_eq!(here.hub.leave(&Audience::all(), "t"), Ok(1));
    settle(&mut order, [&mut here, &mut there]);
    assert_eq!(here.hub.leave(&Audience::all(), "t"), Ok(0));
}

#[test]
fn a_client_resumes_at_the_place_of_a_command() {
    let (mut here, mut there, mut order) = (Instance::new(), Instance::new(), Order::new());
    here.hub.join(&Audience::all(), "t").unwrap();
    settle(&mut order, [&mut here]);
    let mut client = here.hub.subscribe(Subscriber::new()).unwrap();
    let opening = read(&mut client);
    assert_eq!(last_id(&opening), id(1), "where it stands");
    here.hub.broadcast(event("1")).unwrap();
    settle(&mut order, [&mut here]);
    let mut client = there.hub.subscribe(Subscriber::new().resume(last_id(&opening))).unwrap();
    there.read(&order);
    let text = read(&mut client);
    assert_eq!((data(&text), gaps(&text)), (vec!["1".to_owned()], vec![]));
}

#[test]
fn what_was_done_before_a_hub_loads_is_left_out() {
    let (here, mut order) = (Instance::new(), Order::new());
    here.hub.disconnect(&Audience::all(), "x", None).unwrap();
    here.hub.broadcast(event("1")).unwrap();
    here.flush(&mut order);
    let there = Instance::with(|hub| hub);
    let mut early = there.client(Subscriber::new().resume(id(0)));
    let mut tail = Vec::new();
    for (at, entry) in order.iter().enumerate() {
        tail.push((id(at + 1), Duration::ZERO, entry));
    }
    there.feed.load(id(0), tail);
    assert_eq!(data(&read(&mut early)), ["1"]);
    assert!(!has_ended(&mut early));
    assert_eq!((there.hub.stats().malformed, there.hub.stats().retained), (0, 1));
}

#[test]
fn a_full_outbox_and_a_closed_hub_are_errors() {
    let here = Instance::new();
    while here.hub.broadcast(event("")).is_ok() {}
    let who = Audience::all();
    assert_eq!(here.hub.disconnect(&who, "x", None), Err(DisconnectError::Backlog));
    assert_eq!(here.hub.join(&who, "t"), Err(JoinError::Backlog));
    assert_eq!(here.hub.leave(&who, "t"), Err(JoinError::Backlog));
    assert_eq!(here.hub.disconnect(&who, "two words", None), Err(DisconnectError::Reason));
    assert_eq!(here.hub.leave(&who, ""), Ok(0), "nobody can be in it");
    here.hub.close();
    assert_eq!(here.hub.disconnect(&who, "x", None), Err(DisconnectError::Closed));
    assert_eq!(here.hub.join(&who, "t"), Err(JoinError::Closed));
    assert_eq!(here.hub.leave(&who, "t"), Err(JoinError::Closed));
}

#[test]
fn a_client_elsewhere_that_has_no_room_does_not_join() {
    let limits =
        |topics: usize| move |hub: HubBuilder| hub.limits(Limits::default().topics(topics));
    let mut order = Order::new();
    let (mut here, mut there) = (Instance::with(limits(2)), Instance::with(limits(1)));
    for instance in [&here, &there] {
        instance.feed.load(EventId::new(1, 0), None::<(EventId, Duration, Vec<u8>)>);
    }
    let _tabs = [here.client(ann().topic("a")), there.client(ann().topic("a"))];
    let _free = there.client(ann());
    assert_eq!(here.hub.join(&Audience::user("ann"), "b"), Ok(1));
    settle(&mut order, [&mut here, &mut there]);
    let joined = [&here, &there].map(|instance| instance.hub.count(&Audience::topic("b")));
    assert_eq!(joined, [1, 1]);
    let error = JoinError::TooManyTopics { limit: 2 };
    assert_eq!(here.hub.join(&Audience::user("ann"), "c"), Err(error));
    assert!(here.outbox.0.lock().unwrap().is_empty(), "nothing was sent");
}
