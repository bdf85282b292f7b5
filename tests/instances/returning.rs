//! Topics of clients that return, also on another instance.
//!
//! The model knows every join and leave by the place in the order. A client that returns must have
//! the topics of the model, or must be told a gap.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::backplane::{Backplane, Feed, Incoming, Loaded, Outgoing, SendError};
use sse_hub::{
    Audience, ClientId, Event, EventId, Hub, Limits, ManualTimer, Retain, Subscriber, Subscription,
};

use crate::support::{data, frames, gaps, last_id, read, read_items, wait};

#[derive(Debug, Clone, Default)]
struct Outbox(Arc<Mutex<VecDeque<Outgoing>>>);

impl Backplane for Outbox {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        let mut waiting = self.0.lock().unwrap();
        if waiting.len() >= 6 {
            return Err(SendError::Full);
        }
        waiting.push_back(event);
        Ok(())
    }
}

/// The entries; an id is the index plus two.
#[derive(Default)]
struct Order {
    entries: Vec<bytes::Bytes>,
    /// The note of an engine beside the order.
    has_joins: bool,
}

fn id(at: usize) -> EventId {
    EventId::new(1, at as u64 + 1)
}

struct Instance {
    hub: Hub,
    feed: Feed,
    outbox: Outbox,
    timer: ManualTimer,
    read: usize,
}

impl Instance {
    /// Builds an instance that loads the newest entries.
    fn new(order: &Order, limits: Limits, tail: usize) -> Self {
        let (outbox, timer) = (Outbox::default(), ManualTimer::new());
        let builder = Hub::builder(timer.clone()).limits(limits).heartbeat(None);
        let retain = Retain::default().events(1_000);
        let hub = builder.retain(retain).backplane(outbox.clone()).build().unwrap();
        let feed = Feed::new(&hub).unwrap();
        let read = order.entries.len();
        let first = read.saturating_sub(tail);
        let tail = order.entries.iter().enumerate().skip(first);
        let floor = EventId::new(1, first as u64);
        let tail =
            tail.map(|(at, entry)| (id(at), Duration::ZERO, Incoming::parse(entry).unwrap()));
        feed.load(Loaded::new(floor, tail));
        if !order.has_joins {
            feed.no_earlier_joins();
        }
        Self { hub, feed, outbox, timer, read }
    }

    fn flush(&self, order: &mut Order) {
        for event in self.outbox.0.lock().unwrap().drain(..) {
            order.has_joins |= event.joins();
            order.entries.push(event.entry().clone());
        }
    }

    fn read(&mut self, order: &Order, count: usize) {
        for entry in order.entries.iter().skip(self.read).take(count) {
            self.feed.append(id(self.read), Incoming::parse(entry).unwrap());
            self.read += 1;
        }
    }

    /// Places the sent entries, and reads all entries.
    fn settle(&mut self, order: &mut Order) {
        self.flush(order);
        self.read(order, usize::MAX);
    }

    fn publish(&self, topic: &str, data: &str) {
        self.hub.send_to_topic(topic, Event::new("n").data(data)).unwrap();
    }

    fn topics(&self, client: ClientId) -> BTreeSet<String> {
        let clients = self.hub.clients(Audience::client(client));
        clients
            .into_iter()
            .flat_map(|client| client.topics)
            .map(|topic| topic.to_string())
            .collect()
    }
}

/// Places and reads all entries, also those that an instance sends while reading others.
fn settle(order: &mut Order, instances: &mut [Instance]) {
    for _ in 0..2 {
        instances.iter().for_each(|instance| instance.flush(order));
        instances.iter_mut().for_each(|instance| instance.read(order, usize::MAX));
    }
}

fn two() -> (Order, [Instance; 2]) {
    let order = Order::default();
    let instances = [(); 2].map(|()| Instance::new(&order, Limits::default(), 0));
    (order, instances)
}

fn ann() -> Subscriber {
    Subscriber::new().user("ann").session("s")
}

fn joined(order: &mut Order, instances: &mut [Instance; 2]) -> (Subscription, EventId) {
    let mut tab = instances[0].hub.subscribe(ann()).unwrap();
    instances[0].hub.join(tab.client_id(), "room").unwrap();
    settle(order, instances);
    instances[0].publish("room", "1");
    settle(order, instances);
    let text = read(&mut tab);
    assert_eq!(data(&text), ["1"]);
    let position = last_id(&text);
    (tab, position)
}

#[test]
fn topics_return_on_another_instance() {
    let (mut order, mut instances) = two();
    let (tab, position) = joined(&mut order, &mut instances);
    let client = tab.client_id();
    // The first instance is killed, and sends nothing more.
    instances[1].publish("room", "2");
    instances[1].flush(&mut order);
    instances[1].read(&order, usize::MAX);
    let again = ann().client_id(client).resume(position);
    let mut again = instances[1].hub.subscribe(again).unwrap();
    assert_eq!((again.client_id(), again.is_resumed()), (client, true));
    assert_eq!(instances[1].topics(client), BTreeSet::from(["room".to_owned()]));
    instances[1].publish("room", "3");
    instances[1].flush(&mut order);
    instances[1].read(&order, usize::MAX);
    let text = read(&mut again);
    assert_eq!((data(&text), gaps(&text)), (vec!["2".into(), "3".into()], vec![]));
}

#[test]
fn unread_join_is_a_gap_on_another_instance() {
    for (read_by_other, by_user) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut order, mut instances) = two();
        let [here, there] = &mut instances;
        let mut tab = here.hub.subscribe(ann()).unwrap();
        let client = tab.client_id();
        read(&mut tab);
        let to = if by_user { Audience::user("ann") } else { Audience::client(client) };
        here.hub.join(to, "room").unwrap();
        here.publish("room", "1");
        here.flush(&mut order);
        here.read(&order, usize::MAX);
        let text = read(&mut tab);
        assert_eq!(data(&text), ["1"]);
        // Killed with the announcement unsent.
        here.outbox.0.lock().unwrap().clear();
        if read_by_other {
            there.read(&order, usize::MAX);
        }
        let again = ann().client_id(client).resume(last_id(&text));
        let mut again = there.hub.subscribe(again).unwrap();
        assert!(!again.is_resumed());
        assert_eq!(gaps(&read(&mut again)), ["evicted"]);
        there.read(&order, usize::MAX);
        assert_eq!(gaps(&read(&mut again)), [""; 0], "the client was told already");
        // Another user's tab cannot have joined.
        let bob = Subscriber::new().user("bob");
        let unknown: ClientId = "00112233445566778899aabbccddeeff".parse().unwrap();
        let bob = there.hub.subscribe(bob.client_id(unknown).resume(last_id(&text))).unwrap();
        assert!(bob.is_resumed());
    }
}

#[test]
fn other_owner_gets_no_topics_on_another_instance() {
    let (mut order, mut instances) = two();
    let (tab, position) = joined(&mut order, &mut instances);
    let client = tab.client_id();
    let others = [
        Subscriber::new(),
        Subscriber::new().user("ann"),
        Subscriber::new().session("s"),
        Subscriber::new().user("bob").session("s"),
        Subscriber::new().user("s").session("ann"),
    ];
    for other in others {
        let other = other.client_id(client).resume(position);
        let other = instances[1].hub.subscribe(other).unwrap();
        assert!(other.is_resumed(), "the client is another, and lacks nothing");
        assert_ne!(other.client_id(), client);
        assert_eq!(instances[1].topics(other.client_id()), BTreeSet::new());
    }
    let again = instances[1].hub.subscribe(ann().client_id(client).resume(position)).unwrap();
    assert_eq!(instances[1].topics(again.client_id()).len(), 1);
}

#[test]
fn join_that_is_read_late_is_a_gap() {
    let (mut order, mut instances) = two();
    let mut tab = instances[0].hub.subscribe(ann()).unwrap();
    instances[0].hub.broadcast(Event::new("n").data("1")).unwrap();
    settle(&mut order, &mut instances);
    let again = ann().client_id(tab.client_id()).resume(last_id(&read(&mut tab)));
    let [here, there] = &mut instances;
    here.hub.join(tab.client_id(), "room").unwrap();
    here.flush(&mut order);
    // The other instance knows neither the client nor the join.
    let mut lacking = there.hub.subscribe(again.clone()).unwrap();
    let mut following = there.hub.subscribe(again.topic("room")).unwrap();
    assert!(lacking.is_resumed() && following.is_resumed());
    read(&mut lacking);
    read(&mut following);
    let woken = wait(&mut lacking);
    there.read(&order, usize::MAX);
    assert_eq!((woken.count(), gaps(&read(&mut lacking))), (1, vec!["evicted".to_owned()]));
    assert_eq!(gaps(&read(&mut following)), [""; 0], "the request named the topic");
}

#[test]
fn loaded_commands_complete_an_announcement() {
    let (mut order, mut instances) = two();
    let (tab, position) = joined(&mut order, &mut instances);
    let client = tab.client_id();
    instances[0].hub.join(client, "hall").unwrap();
    instances[0].hub.leave(client, "room").unwrap();
    settle(&mut order, &mut instances);
    let late = Instance::new(&order, Limits::default(), order.entries.len());
    let again = late.hub.subscribe(ann().client_id(client).resume(position)).unwrap();
    assert_eq!((again.client_id(), again.is_resumed()), (client, true));
    assert_eq!(late.topics(client), BTreeSet::from(["hall".to_owned()]));
}

#[test]
fn other_instances_learn_the_topics_of_a_new_request() {
    let (mut order, mut instances) = two();
    let (tab, position) = joined(&mut order, &mut instances);
    let client = tab.client_id();
    drop(tab);
    let again = |topic| ann().client_id(client).resume(position).topic(topic);
    let tab = instances[1].hub.subscribe(again("x")).unwrap();
    settle(&mut order, &mut instances);
    instances[1].hub.join(Audience::topic("x"), "hall").unwrap();
    settle(&mut order, &mut instances);
    drop(tab);
    let back = instances[0].hub.subscribe(again("y")).unwrap();
    assert!(back.is_resumed());
    let topics = ["hall", "room", "y"].map(str::to_owned);
    assert_eq!(instances[0].topics(client), BTreeSet::from(topics));
}

#[test]
fn later_instance_knows_clients_of_a_drained_instance() {
    let (mut order, mut instances) = two();
    let (tab, position) = joined(&mut order, &mut instances);
    let client = tab.client_id();
    let mut late = Instance::new(&order, Limits::default(), 0);
    let again = || ann().client_id(client).resume(position);
    let strange = late.hub.subscribe(again()).unwrap();
    assert!(!strange.is_resumed(), "the join was before the order that this instance has read");
    drop(strange);
    late.hub.broadcast(Event::new("n")).unwrap();
    late.flush(&mut order);
    late.read(&order, usize::MAX);
    let again = || ann().client_id(client).resume(id(order.entries.len() - 1));
    let mut strange = late.hub.subscribe(again()).unwrap();
    assert!(!strange.is_resumed(), "the client may have joined on the first instance");
    assert_eq!(gaps(&read(&mut strange)), ["evicted"]);
    drop(strange);
    let position = id(order.entries.len() - 1);
    let again = || ann().client_id(client).resume(position);
    let _drain = instances[0].hub.drain(Duration::from_secs(1));
    let mut all: Vec<Instance> = instances.into_iter().chain([late]).collect();
    settle(&mut order, &mut all);
    let known = all[2].hub.subscribe(again()).unwrap();
    assert_eq!((known.client_id(), known.is_resumed()), (client, true));
    assert_eq!(all[2].topics(client).len(), 1);
}

#[test]
fn unknown_client_is_resumed_if_nobody_has_joined() {
    let (mut order, mut instances) = two();
    let mut tab = instances[0].hub.subscribe(ann()).unwrap();
    instances[0].hub.broadcast(Event::new("n").data("1")).unwrap();
    settle(&mut order, &mut instances);
    let again = ann().client_id(tab.client_id()).resume(last_id(&read(&mut tab)));
    for tail in [0, 1] {
        let late = Instance::new(&order, Limits::default(), tail);
        assert!(late.hub.subscribe(again.clone()).unwrap().is_resumed());
    }
    assert!(instances[1].hub.subscribe(again).unwrap().is_resumed());
}

#[test]
fn id_of_another_owner_reveals_no_events() {
    let mut order = Order::default();
    let [limits, few] = [Limits::default(), Limits::default().remembered(1)];
    let mut instances = [limits, few].map(|limits| Instance::new(&order, limits, 0));
    let local = instances[1].hub.subscribe(ann()).unwrap();
    let local_id = local.client_id();
    drop(local);
    // The announced client takes the place of the local client, of which only the id stays known.
    let (tab, position) = joined(&mut order, &mut instances);
    for id in [tab.client_id(), local_id] {
        instances[1].hub.send_to_client(id, Event::new("n")).unwrap();
        instances[1].settle(&mut order);
        let bob = Subscriber::new().user("bob").client_id(id).resume(position);
        let page = instances[1].hub.read(&bob, position, 10).unwrap();
        assert!(!page.truncated && page.events.is_empty(), "{page:?}");
    }
}

#[test]
fn join_that_is_read_after_the_return_is_a_gap() {
    type Commanded = fn(ClientId) -> Audience;
    let audiences: [Commanded; 2] = [Audience::client, |_| Audience::topic("x")];
    for audience in audiences {
        let (mut order, mut instances) = two();
        let [here, there] = &mut instances;
        let tabs = ["ann", "bob"].map(|user| {
            let mut tab = here.hub.subscribe(Subscriber::new().user(user).topic("x")).unwrap();
            (user, tab.client_id(), last_id(&read(&mut tab)))
        });
        // Both instances know the clients, if at all, without a topic.
        let moved = tabs.map(|(user, client, position)| {
            let again = Subscriber::new().user(user).client_id(client).resume(position);
            let mut tab = there.hub.subscribe(again).unwrap();
            assert!(tab.is_resumed());
            read(&mut tab);
            tab
        });
        for (_, client, _) in tabs {
            here.hub.join(audience(client), "room").unwrap();
        }
        here.flush(&mut order);
        there.read(&order, usize::MAX);
        for mut tab in moved {
            assert_eq!(gaps(&read(&mut tab)), ["evicted"], "the joined topic is missing");
        }
    }
}

#[test]
fn announcement_is_completed_by_later_commands() {
    let (mut order, mut instances) = two();
    let [here, there] = &mut instances;
    let mut tab = here.hub.subscribe(ann()).unwrap();
    let client = tab.client_id();
    for topic in ["kept", "left"] {
        here.hub.join(client, topic).unwrap();
    }
    here.settle(&mut order);
    let position = last_id(&read(&mut tab));
    // Placed before the announcement, which does not know of these.
    there.hub.leave(client, "left").unwrap();
    there.hub.join(client, "later").unwrap();
    there.flush(&mut order);
    here.flush(&mut order);
    there.read(&order, usize::MAX);
    let again = there.hub.subscribe(ann().client_id(client).resume(position)).unwrap();
    assert!(again.is_resumed());
    assert_eq!(there.topics(client), ["kept", "later"].map(str::to_owned).into());
}

#[test]
fn topics_beyond_the_limit_of_an_instance_are_a_gap() {
    for limit in [1, 2] {
        let mut order = Order::default();
        let [limits, few] = [Limits::default(), Limits::default().topics(limit)];
        let mut instances = [limits, few].map(|limits| Instance::new(&order, limits, 0));
        let tab = instances[0].hub.subscribe(ann().topic("own")).unwrap();
        let client = tab.client_id();
        instances[0].hub.join(client, "room").unwrap();
        settle(&mut order, &mut instances);
        let again = ann().client_id(client).resume(id(order.entries.len() - 1));
        let again = instances[1].hub.subscribe(again).unwrap();
        assert_eq!((again.client_id(), again.is_resumed()), (client, limit == 2));
        assert_eq!(instances[1].topics(client).len(), limit - 1);
    }
}

#[test]
fn client_that_joins_while_away_is_announced() {
    let (mut order, mut instances) = two();
    let mut tab = instances[0].hub.subscribe(ann()).unwrap();
    let (client, position) = (tab.client_id(), last_id(&read(&mut tab)));
    drop(tab);
    instances[1].hub.join(Audience::user("ann"), "room").unwrap();
    settle(&mut order, &mut instances);
    let again = instances[1].hub.subscribe(ann().client_id(client).resume(position)).unwrap();
    assert_eq!((again.client_id(), again.is_resumed()), (client, true));
    assert_eq!(instances[1].topics(client), ["room".to_owned()].into());
}

/// The commands and the names in their audiences that an instance remembers, and how long an
/// unknown client can be one of a forgotten join.
const COMMANDS: usize = 512;
const NAMES: usize = 8192;
const DOUBT: Duration = Duration::from_secs(60);

/// Places and reads commands that reach no client.
fn command_nobody(order: &mut Order, by: &mut Instance, commands: usize, names: usize) {
    for _ in 0..commands {
        let nobody = Audience::users((0..names).map(|name| name.to_string()));
        by.hub.leave(nobody, "nothing").unwrap();
        by.settle(order);
    }
}

#[test]
fn outdated_announcement_makes_unknown_clients_uncertain() {
    for (commands, names) in [(COMMANDS, 1), (8, NAMES / 8)] {
        for more in [0, 1] {
            let (mut order, mut instances) = two();
            let [here, there] = &mut instances;
            let tab = here.hub.subscribe(ann()).unwrap();
            let client = tab.client_id();
            here.hub.join(client, "room").unwrap();
            here.settle(&mut order);
            // The announcement waits while the other instance reads the commands.
            there.read(&order, usize::MAX);
            command_nobody(&mut order, there, commands, names);
            command_nobody(&mut order, there, more, 1);
            here.flush(&mut order);
            there.read(&order, usize::MAX);
            there.timer.advance(DOUBT);
            let again = ann().client_id(client).resume(id(order.entries.len() - 1));
            let again = there.hub.subscribe(again).unwrap();
            let is_remembered = more == 0;
            assert_eq!(again.client_id() == client, is_remembered);
            assert_eq!(again.is_resumed(), is_remembered, "a forgotten client may lack topics");
        }
    }
}

/// Lets an instance read a join while the backplane is full: the announcement must wait.
fn refuse_announcement(by: &mut Instance, order: &Order) {
    while by.hub.broadcast(Event::new("n")).is_ok() {}
    by.read(order, usize::MAX);
    by.outbox.0.lock().unwrap().clear();
}

#[test]
fn late_announcement_is_a_gap_for_the_client() {
    let (mut order, mut instances) = two();
    let [here, there] = &mut instances;
    let tab = here.hub.subscribe(ann()).unwrap();
    let client = tab.client_id();
    here.hub.join(client, "room").unwrap();
    here.flush(&mut order);
    refuse_announcement(here, &order);
    there.read(&order, usize::MAX);
    command_nobody(&mut order, there, COMMANDS, 1);
    let again = |who: Subscriber| {
        let mut again =
            there.hub.subscribe(who.client_id(client).resume(id(order.entries.len() - 1))).unwrap();
        read(&mut again);
        again
    };
    // The join is forgotten, and may not be announced yet.
    there.timer.advance(DOUBT - Duration::from_millis(1));
    assert!(!again(ann()).is_resumed());
    there.timer.advance(Duration::from_millis(1));
    let mut mine = again(ann());
    let mut of_another = again(Subscriber::new().user("bob"));
    assert!(mine.is_resumed() && of_another.is_resumed());
    there.hub.join(Audience::user("carl"), "other").unwrap();
    there.flush(&mut order);
    here.settle(&mut order);
    here.flush(&mut order);
    there.read(&order, usize::MAX);
    assert_eq!(gaps(&read(&mut mine)), ["evicted"]);
    assert_eq!(gaps(&read(&mut of_another)), [""; 0]);
}

#[test]
fn watched_clients_are_bounded() {
    const WATCHED: usize = 4096;
    let (_, instances) = two();
    let there = &instances[1];
    let position = last_id(&read(&mut there.hub.subscribe(Subscriber::new()).unwrap()));
    let is_resumed = |number: usize| {
        let unknown: ClientId = format!("{number:032x}").parse().unwrap();
        let again = Subscriber::new().client_id(unknown).resume(position);
        there.hub.subscribe(again).unwrap().is_resumed()
    };
    assert!((1..=WATCHED).all(is_resumed));
    assert!(
        !is_resumed(WATCHED + 1),
        "a client that is not watched may lack a topic without a gap"
    );
    there.timer.advance(DOUBT);
    assert!(is_resumed(WATCHED + 1));
}

#[test]
fn replaced_order_keeps_no_topics_of_others() {
    let (mut order, mut instances) = two();
    let (mut tab, _) = joined(&mut order, &mut instances);
    let client = tab.client_id();
    // The order is emptied. The first instance announces the connected clients again.
    order.entries.clear();
    for instance in &mut instances {
        instance.read = 0;
        instance.feed.load(Loaded::new(EventId::new(2, 0), []));
        // The note that clients have joined topics is gone with the order.
        instance.feed.no_earlier_joins();
    }
    let text = read(&mut tab);
    assert_eq!(gaps(&text), ["reset"]);
    let again = || ann().client_id(client).resume(last_id(&text));
    let strange = instances[1].hub.subscribe(again()).unwrap();
    assert!(!strange.is_resumed());
    drop(strange);
    instances[0].flush(&mut order);
    assert!(!order.entries.is_empty());
    for (at, entry) in order.entries.iter().enumerate() {
        instances[1].feed.append(EventId::new(3, at as u64), Incoming::parse(entry).unwrap());
    }
    let position = EventId::new(3, 0);
    let known = instances[1].hub.subscribe(ann().client_id(client).resume(position)).unwrap();
    assert_eq!((known.client_id(), known.is_resumed()), (client, true));
    assert_eq!(instances[1].topics(client).len(), 1);
}

#[test]
fn full_backplane_announces_with_the_next_join() {
    let (mut order, mut instances) = two();
    let [here, there] = &mut instances;
    let tab = here.hub.subscribe(ann()).unwrap();
    let client = tab.client_id();
    here.hub.join(client, "room").unwrap();
    here.flush(&mut order);
    refuse_announcement(here, &order);
    there.hub.join(Audience::user("bob"), "other").unwrap();
    settle(&mut order, &mut instances);
    let again = ann().client_id(client).resume(id(order.entries.len() - 1));
    let again = instances[1].hub.subscribe(again).unwrap();
    assert_eq!((again.client_id(), again.is_resumed()), (client, true));
    assert_eq!(instances[1].topics(client).len(), 1);
}

const BROWSERS: usize = 3;
const USERS: [&str; 2] = ["ann", "bob"];
/// Topics that clients join, and topics that requests name.
const TOPICS: [&str; 3] = ["a", "b", "c"];
const OWN: [&str; 2] = ["x", "y"];

#[derive(Debug, Clone)]
enum Op {
    Publish {
        at: usize,
        topic: usize,
    },
    Join {
        at: usize,
        to: To,
        topic: usize,
    },
    Leave {
        at: usize,
        to: To,
        topic: usize,
    },
    Flush {
        at: usize,
    },
    Read {
        at: usize,
        count: usize,
    },
    Connect {
        browser: usize,
        at: usize,
    },
    /// A request of another user names the client.
    Forge {
        browser: usize,
        at: usize,
    },
    /// Drops the stream with everything unread.
    Cut {
        browser: usize,
    },
    Take {
        browser: usize,
    },
    /// An instance is killed with everything unsent, and starts anew.
    Kill {
        at: usize,
        tail: usize,
    },
    /// Other clients come and go.
    Crowd {
        at: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum To {
    Browser(usize),
    User(usize),
    Follower(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (at, browser, topic) = (|| 0..2usize, || 0..BROWSERS, || 0..TOPICS.len());
    let to = || {
        prop_oneof![
            3 => browser().prop_map(To::Browser),
            2 => (0..2usize).prop_map(To::User),
            1 => (0..5usize).prop_map(To::Follower),
        ]
    };
    prop_oneof![
        6 => (at(), 0..5usize).prop_map(|(at, topic)| Op::Publish { at, topic }),
        4 => (at(), to(), topic()).prop_map(|(at, to, topic)| Op::Join { at, to, topic }),
        2 => (at(), to(), topic()).prop_map(|(at, to, topic)| Op::Leave { at, to, topic }),
        8 => at().prop_map(|at| Op::Flush { at }),
        10 => (at(), 1..6usize).prop_map(|(at, count)| Op::Read { at, count }),
        6 => (browser(), at()).prop_map(|(browser, at)| Op::Connect { browser, at }),
        1 => (browser(), at()).prop_map(|(browser, at)| Op::Forge { browser, at }),
        2 => browser().prop_map(|browser| Op::Cut { browser }),
        6 => browser().prop_map(|browser| Op::Take { browser }),
        1 => (at(), 0..20usize).prop_map(|(at, tail)| Op::Kill { at, tail }),
        1 => at().prop_map(|at| Op::Crowd { at }),
    ]
}

fn topic(number: usize) -> &'static str {
    TOPICS.into_iter().chain(OWN).nth(number).unwrap()
}

/// The meaning of an entry of the order.
#[derive(Debug, Clone)]
enum Meaning {
    Event(usize),
    Join(ToWhom, usize),
    Leave(ToWhom, usize),
    /// An instance's own entry.
    Other,
}

#[derive(Debug, Clone, Copy)]
enum ToWhom {
    Client(ClientId),
    User(usize),
    Follower(usize),
}

struct Browser {
    user: usize,
    /// The topic that each request of the browser names.
    own: usize,
    client: Option<ClientId>,
    /// The first entry that the client's first instance had not read when the client connected.
    since: usize,
    /// An instance has read the entries before this index while the client was connected there.
    applied: usize,
    stream: Option<(usize, Subscription)>,
    last: Option<EventId>,
    /// Events before this entry are not owed.
    from: usize,
    seen: BTreeSet<usize>,
    /// The client's earlier ids with topics that are missing without a gap.
    untold: Vec<(ClientId, usize)>,
}

struct Model {
    order: Order,
    meanings: Vec<Meaning>,
    instances: [Instance; 2],
    /// The meanings of the unsent entries.
    unsent: [VecDeque<Meaning>; 2],
    browsers: Vec<Browser>,
    limits: Limits,
    /// How many clients returned with topics.
    returned: usize,
}

impl Model {
    fn new(remembered: usize) -> Self {
        let (order, limits) = (Order::default(), Limits::default().remembered(remembered));
        let instances = [(); 2].map(|()| Instance::new(&order, limits, 0));
        let browsers = (0..BROWSERS).map(|number| Browser {
            user: number % 2,
            own: TOPICS.len() + number % 2,
            client: None,
            since: 0,
            applied: 0,
            stream: None,
            last: None,
            from: 0,
            seen: BTreeSet::new(),
            untold: Vec::new(),
        });
        let (browsers, unsent) = (browsers.collect(), Default::default());
        let meanings = Vec::new();
        Self { order, meanings, instances, unsent, browsers, limits, returned: 0 }
    }

    /// Notes an entry that the test has an instance send.
    fn sent(&mut self, at: usize, is_sent: bool, meaning: Meaning) {
        self.note_own_entries(at, usize::from(is_sent));
        if is_sent {
            self.unsent[at].push_back(meaning);
        }
    }

    /// Notes the entries that an instance sent by itself, before the `more` newest.
    fn note_own_entries(&mut self, at: usize, more: usize) {
        let waiting = self.instances[at].outbox.0.lock().unwrap().len();
        while self.unsent[at].len() + more < waiting {
            self.unsent[at].push_back(Meaning::Other);
        }
    }

    /// Returns the topics of a client that follows `own` after the entries from `since` up to
    /// `upto`, each with the entry since which the client follows the topic. `ids`: the ids of the
    /// client.
    fn topics(
        &self,
        browser: usize,
        ids: &[ClientId],
        since: usize,
        upto: usize,
    ) -> BTreeMap<usize, usize> {
        self.topics_and_left(browser, ids, since, upto).0
    }

    /// The same, and the topics that the client ever left.
    fn topics_and_left(
        &self,
        browser: usize,
        ids: &[ClientId],
        since: usize,
        upto: usize,
    ) -> (BTreeMap<usize, usize>, BTreeSet<usize>) {
        let Browser { user, own, .. } = self.browsers[browser];
        let (mut topics, mut left) = (BTreeMap::new(), BTreeSet::new());
        for at in since..upto.max(since) {
            let (Meaning::Join(to, topic) | Meaning::Leave(to, topic)) = self.meanings[at] else {
                continue;
            };
            let is_in = match to {
                ToWhom::Client(id) => ids.contains(&id),
                ToWhom::User(of) => of == user,
                ToWhom::Follower(of) => of == own || topics.contains_key(&of),
            };
            match self.meanings[at] {
                Meaning::Join(..) if is_in => drop(topics.entry(topic).or_insert(at)),
                Meaning::Leave(..) if is_in => {
                    topics.remove(&topic);
                    left.insert(topic);
                }
                _ => {}
            }
        }
        (topics, left)
    }

    fn run(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Publish { at, topic: number } => {
                let event = Event::new("n").data(number.to_string());
                let is_sent = self.instances[at].hub.send_to_topic(topic(number), event).is_ok();
                self.sent(at, is_sent, Meaning::Event(number));
            }
            Op::Join { at, to, topic: number } => {
                let Some((audience, to)) = self.audience(to) else { return Ok(()) };
                let is_sent = self.instances[at].hub.join(audience, topic(number)).is_ok();
                self.sent(at, is_sent, Meaning::Join(to, number));
            }
            Op::Leave { at, to, topic: number } => {
                let Some((audience, to)) = self.audience(to) else { return Ok(()) };
                let is_sent = self.instances[at].hub.leave(audience, topic(number)).is_ok();
                self.sent(at, is_sent, Meaning::Leave(to, number));
            }
            Op::Flush { at } => self.flush(at),
            Op::Read { at, count } => self.read(at, count),
            Op::Connect { browser, at } => self.connect(browser, at)?,
            Op::Forge { browser, at } => {
                let Browser { user, client: Some(client), last: Some(last), .. } =
                    self.browsers[browser]
                else {
                    return Ok(());
                };
                let forged = Subscriber::new().user(USERS[1 - user]).client_id(client).resume(last);
                let forged = self.instances[at].hub.subscribe(forged).unwrap();
                prop_assert_ne!(forged.client_id(), client);
                prop_assert!(self.instances[at].topics(forged.client_id()).is_empty());
            }
            Op::Cut { browser } => self.drop_stream(browser),
            Op::Take { browser } => self.take(browser)?,
            Op::Kill { at, tail } => {
                for browser in 0..BROWSERS {
                    if self.browsers[browser].stream.as_ref().is_some_and(|(on, _)| *on == at) {
                        self.drop_stream(browser);
                    }
                }
                self.unsent[at].clear();
                self.instances[at] = Instance::new(&self.order, self.limits, tail);
            }
            Op::Crowd { at } => {
                for _ in 0..3 {
                    drop(
                        self.instances[at].hub.subscribe(Subscriber::new().user("crowd")).unwrap(),
                    );
                }
            }
        }
        Ok(())
    }

    fn audience(&self, to: To) -> Option<(Audience, ToWhom)> {
        Some(match to {
            To::Browser(browser) => {
                let client = self.browsers[browser].client?;
                (Audience::client(client), ToWhom::Client(client))
            }
            To::User(user) => (Audience::user(USERS[user]), ToWhom::User(user)),
            To::Follower(of) => (Audience::topic(topic(of)), ToWhom::Follower(of)),
        })
    }

    fn flush(&mut self, at: usize) {
        self.note_own_entries(at, 0);
        self.instances[at].flush(&mut self.order);
        self.meanings.extend(self.unsent[at].drain(..));
        assert_eq!(self.meanings.len(), self.order.entries.len());
    }

    fn read(&mut self, at: usize, count: usize) {
        self.note_own_entries(at, 0);
        self.instances[at].read(&self.order, count);
        self.note_own_entries(at, 0);
    }

    fn drop_stream(&mut self, browser: usize) {
        let browser = &mut self.browsers[browser];
        if let Some((at, stream)) = browser.stream.take() {
            browser.applied = browser.applied.max(self.instances[at].read);
            // A client that moves on before its instance has read the join is not found by a third.
            browser.untold.clear();
            drop(stream);
        }
    }

    fn connect(&mut self, browser: usize, at: usize) -> Result<(), TestCaseError> {
        let read = self.instances[at].read;
        let Browser { user, own, client: claimed, last, .. } = self.browsers[browser];
        let mut who = Subscriber::new().user(USERS[user]).topic(topic(own));
        if let (Some(client), Some(last)) = (claimed, last) {
            who = who.client_id(client).resume(last);
        }
        let claimed = claimed.filter(|_| last.is_some());
        // A page for an open connection has the topics that the next connection may not get back.
        let is_here = |client| self.instances[at].hub.count(Audience::client(client)) > 0;
        let last = last.filter(|_| !claimed.is_some_and(is_here));
        let page = last.map(|last| self.instances[at].hub.read(&who, last, 0).unwrap());
        let stream = self.instances[at].hub.subscribe(who).unwrap();
        if let Some(page) = page {
            prop_assert_eq!(page.truncated, !stream.is_resumed(), "a page and a stream differ");
        }
        self.note_own_entries(at, 0);
        // The old connection dies later than the client returns.
        self.drop_stream(browser);
        let (client, is_resumed) = (stream.client_id(), stream.is_resumed());
        let (since, applied) = (self.browsers[browser].since, self.browsers[browser].applied);
        if claimed == Some(client) {
            let topics = self.topics(browser, &[client], since, read);
            let mut expected: BTreeSet<_> =
                topics.keys().map(|&number| topic(number).to_owned()).collect();
            expected.insert(topic(own).to_owned());
            let actual = self.instances[at].topics(client);
            if is_resumed {
                prop_assert_eq!(&actual, &expected);
                self.returned += usize::from(actual.len() > 1);
            }
            prop_assert!(actual.is_subset(&expected), "{:?} {:?}", actual, expected);
        } else if let (Some(before), true) = (claimed, is_resumed) {
            let topics = self.topics(browser, &[before], since, read);
            prop_assert!(topics.is_empty(), "{:?} are silently missing", topics);
            if !self.topics(browser, &[before], since, applied).is_empty() {
                self.browsers[browser].untold.push((before, since));
            }
        }
        let is_kept = claimed == Some(client);
        let of = &mut self.browsers[browser];
        if !is_resumed {
            of.untold.clear();
            of.seen.clear();
            of.from = usize::MAX;
        }
        if !is_kept {
            (of.client, of.since, of.applied) = (Some(client), read, read);
        }
        of.applied = of.applied.max(read);
        of.stream = Some((at, stream));
        if is_kept && !is_resumed {
            // The topics that the client got back are not those of the model: begin anew.
            self.drop_stream(browser);
            let of = &mut self.browsers[browser];
            (of.client, of.last, of.from) = (None, None, usize::MAX);
            return Ok(());
        }
        // The page learns the id from the first item.
        let (_, stream) = self.browsers[browser].stream.as_mut().unwrap();
        let opening = read_items(stream, 1);
        self.receive(browser, &opening)
    }

    fn take(&mut self, browser: usize) -> Result<(), TestCaseError> {
        let Some((at, stream)) = &mut self.browsers[browser].stream else { return Ok(()) };
        let (at, text) = (*at, read(stream));
        self.receive(browser, &text)?;
        let Browser { client, since, applied, from, own, seen, .. } = &self.browsers[browser];
        let read = self.instances[at].read;
        // Another instance can have applied more commands to the client before.
        let followed = self.topics(browser, &[client.unwrap()], *since, read.max(*applied));
        for entry in (*from).min(read)..read {
            let Meaning::Event(topic) = self.meanings[entry] else { continue };
            let is_for = topic == *own || followed.get(&topic).is_some_and(|&since| since < entry);
            prop_assert!(!is_for || seen.contains(&entry), "entry {} is missing", entry);
        }
        Ok(())
    }

    fn receive(&mut self, browser: usize, text: &str) -> Result<(), TestCaseError> {
        for frame in frames(text) {
            let id = frame.id.unwrap();
            let of = &mut self.browsers[browser];
            of.last = Some(id);
            // The index of the entry after the position.
            let next = id.seq() as usize;
            match frame.event.as_str() {
                "hub:open" if of.from == usize::MAX => of.from = next,
                "hub:open" => {}
                "hub:gap" => {
                    of.untold.clear();
                    of.from = next;
                }
                _ => {
                    let Meaning::Event(topic) = self.meanings[next - 1] else {
                        panic!("{frame:?}")
                    };
                    prop_assert_eq!(&frame.data, &topic.to_string());
                    prop_assert!(of.seen.insert(next - 1), "an event arrived twice");
                    let (client, since, own) = (of.client.unwrap(), of.since, of.own);
                    let followed = self.topics(browser, &[client], since, next - 1);
                    prop_assert!(topic == own || followed.contains_key(&topic), "{:?}", frame);
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..3 {
            for at in 0..2 {
                self.flush(at);
            }
            for at in 0..2 {
                self.read(at, usize::MAX);
            }
        }
        for browser in 0..BROWSERS {
            self.take(browser)?;
            let Browser { stream: Some((at, stream)), untold, since: since_now, .. } =
                &self.browsers[browser]
            else {
                continue;
            };
            let actual = self.instances[*at].topics(stream.client_id());
            for &(before, since) in untold {
                let (now, end) = (stream.client_id(), self.meanings.len());
                let topics = self.topics(browser, &[before], since, end);
                // A later command can be for the new id: the server then decided about the topic. An
                // instance that is behind gives the new id commands from before `since`, too.
                let since = since.min(*since_now);
                let (_, left) = self.topics_and_left(browser, &[now], since, end);
                let has = |number| left.contains(&number) || actual.contains(topic(number));
                let has = topics.keys().all(|&number| has(number));
                prop_assert!(has, "{:?} are silently missing", topics);
            }
        }
        Ok(())
    }
}

/// A client comes back, under a third id, to an instance that has read nothing. The third id joins
/// topic 0 by a command from before the second id, and so leaves topic 2 with the followers of topic
/// 0. The second id does not.
#[test]
fn instance_that_is_behind_gives_a_new_id_older_commands() {
    let mut model = Model::new(0);
    let ops = [
        Op::Join { at: 1, to: To::Follower(3), topic: 0 },
        Op::Connect { browser: 2, at: 1 },
        Op::Join { at: 1, to: To::User(0), topic: 2 },
        Op::Flush { at: 1 },
        Op::Read { at: 0, count: 1 },
        Op::Connect { browser: 2, at: 0 },
        Op::Read { at: 0, count: 1 },
        Op::Connect { browser: 2, at: 1 },
        Op::Leave { at: 0, to: To::Follower(0), topic: 2 },
    ];
    ops.iter().for_each(|op| model.run(op).unwrap());
    assert_eq!(model.browsers[2].untold.len(), 1);
    model.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn topics_are_those_of_the_model(
        ops in vec(op(), 1..120), remembered in prop_oneof![Just(0usize), Just(2), Just(64)],
    ) {
        let mut model = Model::new(remembered);
        for op in &ops {
            model.run(op)?;
        }
        model.finish()?;
    }
}
