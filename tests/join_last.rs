//! Joining a topic with its last events, against a naive model.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Audience, Event, EventId, Goodbye, Hub, JoinError, Limits, NameError, NameKind, Retain,
    Subscriber, Subscription,
};

use support::{Frame, data, frames, gaps, has_ended, hub_with, poll, read, wait};

fn event(data: impl ToString) -> Event {
    Event::new("x").data(data.to_string())
}

fn publish(hub: &Hub, topic: &str, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        hub.send_to_topic(topic, event(number)).unwrap();
    }
}

fn open(hub: &Hub, subscriber: Subscriber) -> Subscription {
    let mut stream = hub.subscribe(subscriber).unwrap();
    assert!(poll(&mut stream).flatten().is_some());
    stream
}

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

#[derive(Debug, Clone, Copy)]
enum To {
    All,
    User(u8),
    Topic(u8),
    EitherTopic,
    TopicOrUser(u8, u8),
    TopicExceptUser(u8, u8),
}

impl To {
    fn audience(self) -> Audience {
        match self {
            Self::All => Audience::all(),
            Self::User(user) => Audience::user(user),
            Self::Topic(topic) => Audience::topic(topic),
            Self::EitherTopic => Audience::topics([0, 1]),
            Self::TopicOrUser(topic, user) => Audience::topic(topic).or(Audience::user(user)),
            Self::TopicExceptUser(topic, user) => {
                Audience::topic(topic).except(Audience::user(user))
            }
        }
    }

    fn is_under(self, topic: u8) -> bool {
        match self {
            Self::All | Self::User(_) => false,
            Self::EitherTopic => topic < 2,
            Self::Topic(own) | Self::TopicOrUser(own, _) | Self::TopicExceptUser(own, _) => {
                own == topic
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Publish { to: To, event_type: u8 },
    Connect { browser: usize, user: u8, types: Option<BTreeSet<u8>>, back: Option<usize> },
    Join { browser: usize, topic: u8, last: usize },
    Read { browser: usize, items: usize },
}

const BROWSERS: usize = 2;

fn op() -> impl Strategy<Value = Op> {
    let to = prop_oneof![
        Just(To::All),
        (0..2u8).prop_map(To::User),
        (0..3u8).prop_map(To::Topic),
        Just(To::EitherTopic),
        (0..3u8, 0..2u8).prop_map(|(topic, user)| To::TopicOrUser(topic, user)),
        (0..3u8, 0..2u8).prop_map(|(topic, user)| To::TopicExceptUser(topic, user)),
    ];
    let types = prop::option::weighted(0.2, prop::collection::btree_set(0..2u8, 0..2));
    let browser = 0..BROWSERS;
    prop_oneof![
        8 => (to, 0..2u8).prop_map(|(to, event_type)| Op::Publish { to, event_type }),
        1 => (browser.clone(), 0..2u8, types, prop::option::of(0..12usize))
            .prop_map(|(browser, user, types, back)| Op::Connect { browser, user, types, back }),
        3 => (browser.clone(), 0..3u8, 0..8usize)
            .prop_map(|(browser, topic, last)| Op::Join { browser, topic, last }),
        3 => (browser, 1..9usize).prop_map(|(browser, items)| Op::Read { browser, items }),
    ]
}

struct Browser {
    stream: Subscription,
    user: u8,
    types: Option<BTreeSet<u8>>,
    /// Each topic with the number of the last event before its first.
    topics: BTreeMap<u8, usize>,
    /// The events that must still come.
    due: BTreeSet<usize>,
    got: BTreeSet<usize>,
    /// The last event since the last join.
    last: usize,
    id: Option<EventId>,
}

impl Browser {
    fn wants(&self, (number, to, event_type): (usize, To, u8)) -> bool {
        let is_in = |topic: u8| self.topics.get(&topic).is_some_and(|&since| since < number);
        let is_addressed = match to {
            To::All => true,
            To::User(user) => user == self.user,
            To::Topic(topic) => is_in(topic),
            To::EitherTopic => is_in(0) || is_in(1),
            To::TopicOrUser(topic, user) => is_in(topic) || user == self.user,
            To::TopicExceptUser(topic, user) => is_in(topic) && user != self.user,
        };
        is_addressed && self.types.as_ref().is_none_or(|types| types.contains(&event_type))
    }

    /// Reads items. Returns whether nothing is left.
    fn read(&mut self, items: usize) -> bool {
        for _ in 0..items {
            let Some(Some(item)) = poll(&mut self.stream) else { return true };
            for frame in frames(std::str::from_utf8(&item).unwrap()) {
                self.take(frame);
            }
        }
        false
    }

    fn take(&mut self, frame: Frame) {
        if frame.event == "hub:open" {
            return;
        }
        assert!(!frame.is_of_hub(), "nothing is lost: {frame:?}");
        let number: usize = frame.data.parse().unwrap();
        assert!(self.due.remove(&number), "{number} is not due, or came twice");
        self.got.insert(number);
        assert!(number > self.last, "{number} after {}: out of order", self.last);
        self.last = number;
        if let Some(id) = frame.id {
            assert_eq!(id.seq(), number as u64);
            assert!(self.id.is_none_or(|before| before < id), "an id moves the client back");
            self.id = Some(id);
        } else {
            let id = self.stream.position().seq();
            assert!(number as u64 <= id, "an event without an id must be older");
        }
    }
}

struct Model {
    hub: Hub,
    history: Vec<(usize, To, u8)>,
    browsers: Vec<Browser>,
}

impl Model {
    fn connect(hub: &Hub, history: &[(usize, To, u8)], op: &Op) -> Browser {
        let Op::Connect { user, types, back, .. } = op else { unreachable!() };
        let mut subscriber = Subscriber::new().user(user);
        if let Some(types) = types {
            subscriber = subscriber.event_types(types.iter().map(u8::to_string));
        }
        let head = hub.position();
        let mut start = history.len();
        if let Some(back) = back.filter(|&back| back <= start) {
            start -= back;
            subscriber = subscriber.resume(EventId::new(head.epoch(), start as u64));
        }
        let stream = hub.subscribe(subscriber).unwrap();
        let mut browser = Browser {
            stream,
            user: *user,
            types: types.clone(),
            topics: BTreeMap::new(),
            due: BTreeSet::new(),
            got: BTreeSet::new(),
            last: 0,
            id: None,
        };
        let missed = history[start..].iter().filter(|&&event| browser.wants(event));
        browser.due = missed.map(|&(number, ..)| number).collect();
        browser
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Publish { to, event_type } => {
                let number = self.history.len() + 1;
                let event = Event::new(event_type.to_string()).data(number.to_string());
                let id = self.hub.publish_confirmed(to.audience(), event).unwrap().id().unwrap();
                assert_eq!(id.seq(), number as u64);
                self.history.push((number, to, event_type));
                for browser in &mut self.browsers {
                    if browser.wants((number, to, event_type)) {
                        browser.due.insert(number);
                    }
                }
            }
            Op::Connect { browser, .. } => {
                self.browsers[browser] = Self::connect(&self.hub, &self.history, op);
            }
            Op::Join { browser, topic, last } => {
                let browser = &mut self.browsers[browser];
                let client = browser.stream.client_id();
                let joined = self.hub.join_with_last(client, topic, last).unwrap();
                assert_eq!(joined.changed, usize::from(!browser.topics.contains_key(&topic)));
                if joined.changed == 0 {
                    return;
                }
                browser.topics.insert(topic, 0);
                let of_topic = self.history.iter().rev().filter(|event| event.1.is_under(topic));
                let wanted = of_topic.filter(|&&event| browser.wants(event)).take(last);
                let numbers: Vec<usize> = wanted.map(|&(number, ..)| number).collect();
                let since = numbers.last().map_or(self.history.len(), |oldest| oldest - 1);
                browser.topics.insert(topic, since);
                let is_new = |number: &usize| !browser.got.contains(number);
                let new: Vec<usize> = numbers.into_iter().filter(is_new).collect();
                browser.due.extend(new);
                browser.last = 0;
            }
            Op::Read { browser, items } => {
                let browser = &mut self.browsers[browser];
                if browser.read(items) {
                    assert!(browser.due.is_empty(), "{:?} did not come", browser.due);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn joined_clients_get_the_events_of_the_model(
        window in prop_oneof![1..4usize, Just(32)],
        batch in prop_oneof![Just(1), 40..120usize, Just(64 << 10)],
        ops in vec(op(), 1..80),
    ) {
        let (hub, _) = hub_with(|hub| hub.window(window).max_batch_bytes(batch));
        let first = Op::Connect { browser: 0, user: 0, types: None, back: None };
        let browsers = (0..BROWSERS).map(|_| Model::connect(&hub, &[], &first)).collect();
        let mut model = Model { hub, history: Vec::new(), browsers };
        for op in &ops {
            model.run(op);
        }
        for browser in 0..BROWSERS {
            model.run(&Op::Read { browser, items: usize::MAX });
        }
    }
}

#[test]
fn history_wakes_and_precedes_later_events() {
    for (items, window) in [(0, 32), (1, 32), (1, 1)] {
        let (hub, _) = hub_with(|hub| hub.window(window));
        publish(&hub, "t", 1..=5);
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        let head = hub.position();
        for _ in 0..items {
            assert!(poll(&mut stream).is_some());
        }
        let woken = (items > 0).then(|| wait(&mut stream));
        assert_eq!(hub.join_with_last(stream.client_id(), "t", 3).unwrap().changed, 1);
        assert_eq!(woken.map(|woken| woken.count()), (items > 0).then_some(1));
        publish(&hub, "t", 6..=7);
        let text = read(&mut stream);
        assert_eq!(data(&text), names(3..=7));
        assert_eq!(gaps(&text), [""; 0]);
        let ids: Vec<_> = frames(&text).iter().rev().take(5).map(|frame| frame.id).collect();
        assert_eq!(ids[2..], [None; 3], "an older id would move the client back");
        assert_eq!(ids[1], Some(EventId::new(head.epoch(), 6)));
        assert_eq!(hub.stats().delivered, 5);
        // A second join replays nothing, and a join after a leave does.
        assert_eq!(hub.join_with_last(stream.client_id(), "t", 3).unwrap().changed, 0);
        assert_eq!(data(&read(&mut stream)), [""; 0]);
        hub.leave(stream.client_id(), "t").unwrap();
        hub.join_with_last(stream.client_id(), "t", 2).unwrap();
        assert_eq!(data(&read(&mut stream)), names(6..=7));
    }
}

#[test]
fn history_comes_in_items_of_the_batch_size() {
    const BATCH: usize = 256;
    let (hub, _) = hub_with(|hub| hub.max_batch_bytes(BATCH));
    for number in 0..16 {
        hub.send_to_topic("t", event(format!("{number:064}"))).unwrap();
    }
    let mut stream = open(&hub, Subscriber::new());
    hub.join_with_last(stream.client_id(), "t", 16).unwrap();
    let items = std::iter::from_fn(|| poll(&mut stream).flatten());
    let sizes: Vec<usize> = items.map(|item| item.len()).collect();
    assert!(sizes.iter().all(|&size| size <= BATCH) && sizes.len() > 1, "{sizes:?}");
    assert_eq!(hub.stats().delivered, 16);
    assert!(hub.stats().batched > 0, "small events share an item");
}

#[test]
fn history_has_the_event_directly_before_the_join_of_another_topic() {
    let (hub, _) = hub_with(|hub| hub);
    let audience = Audience::topics(["a", "b"]).or(Audience::user("ann"));
    hub.publish(audience, event(1)).unwrap();
    let mut stream = open(&hub, Subscriber::new().user("ann"));
    hub.join(stream.client_id(), "b").unwrap();
    assert_eq!(data(&read(&mut stream)), [""; 0]);
    hub.join_with_last(stream.client_id(), "a", 1).unwrap();
    assert_eq!(data(&read(&mut stream)), ["1"]);
}

#[test]
fn history_may_be_of_filtered_and_excluded_events() {
    let (hub, _) = hub_with(|hub| hub);
    for number in 0..3000 {
        let is_wanted = number % 1000 == 0 || number == 2500;
        let event = Event::new(if is_wanted { "wanted" } else { "other" }).data(number.to_string());
        hub.send_to_topic("t", event).unwrap();
    }
    let mut stream = open(&hub, Subscriber::new().event_types(["wanted"]));
    hub.join_with_last(stream.client_id(), "t", 2).unwrap();
    // Of the last 1,024 events of the topic.
    assert_eq!(data(&read(&mut stream)), names([2000, 2500]));
    let mut ann = open(&hub, Subscriber::new().user("ann"));
    hub.publish(Audience::topic("u").except(Audience::user("ann")), event("hers")).unwrap();
    hub.send_to_topic("u", event("for all")).unwrap();
    hub.join_with_last(Audience::user("ann"), "u", 2).unwrap();
    assert_eq!(data(&read(&mut ann)), ["for all"], "the client's own message stays out");
}

#[test]
fn an_event_of_two_topics_comes_once() {
    let (hub, _) = hub_with(|hub| hub);
    let either = Audience::topic("t").or(Audience::topic("u"));
    hub.publish(either.clone(), event(1)).unwrap();
    publish(&hub, "t", [2]);
    hub.publish(either, event(3)).unwrap();
    let mut stream = open(&hub, Subscriber::new());
    hub.join_with_last(stream.client_id(), "t", 2).unwrap();
    assert_eq!(data(&read(&mut stream)), names([2, 3]));
    hub.join_with_last(stream.client_id(), "u", 9).unwrap();
    assert_eq!(data(&read(&mut stream)), names([1]), "the other event came with the first topic");
}

#[test]
fn evicted_history_is_a_gap_at_the_same_position() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(4)));
    publish(&hub, "t", 1..=4);
    let mut stream = open(&hub, Subscriber::new());
    let position = stream.position();
    hub.join_with_last(stream.client_id(), "t", 3).unwrap();
    publish(&hub, "u", 5..=7);
    let text = read(&mut stream);
    assert_eq!(gaps(&text), ["evicted"], "{text}");
    assert_eq!(frames(&text)[0].id, Some(position));
    assert_eq!(data(&text), ["4"]);
    // The loss was told once.
    publish(&hub, "t", [8]);
    let text = read(&mut stream);
    assert_eq!((gaps(&text).len(), data(&text)), (0, names([8])));
}

#[test]
fn a_loss_before_the_join_is_still_told() {
    for window in [100, 2] {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(4)).window(window));
        let mut stream = open(&hub, Subscriber::new().topic("own"));
        publish(&hub, "own", 1..=3);
        publish(&hub, "t", 4..=6);
        hub.join_with_last(stream.client_id(), "t", 2).unwrap();
        let text = read(&mut stream);
        assert_eq!((gaps(&text).len(), data(&text)), (1, names([3, 5, 6])), "{text}");
        assert_eq!(hub.stats().lagged, u64::from(window == 2), "fell behind before the join");
    }
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(4)).window(2));
    // Without a loss of its own, the client is told none.
    let mut stream = open(&hub, Subscriber::new().topic("own"));
    publish(&hub, "t", 7..=20);
    hub.join_with_last(stream.client_id(), "t", 2).unwrap();
    let text = read(&mut stream);
    assert_eq!((gaps(&text).len(), data(&text)), (0, names([19, 20])), "{text}");
}

#[test]
fn joined_value_brings_no_gap_for_events_after_it() {
    let retain = Retain::default().events(4).keep_latest(9);
    let (hub, _) = hub_with(|hub| hub.retain(retain));
    let mut stream = open(&hub, Subscriber::new());
    hub.send_to_topic("t", event(1).conflate("price")).unwrap();
    publish(&hub, "t", 2..=20);
    hub.join_with_last(stream.client_id(), "t", 5).unwrap();
    let text = read(&mut stream);
    assert_eq!((gaps(&text).len(), data(&text)), (0, names([1, 17, 18, 19, 20])), "{text}");
}

#[test]
fn gap_of_joined_events_counts_no_delivered_bytes() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(2)));
    publish(&hub, "t", 1..=2);
    let mut stream = open(&hub, Subscriber::new());
    hub.join_with_last(stream.client_id(), "t", 2).unwrap();
    publish(&hub, "u", [3]);
    let text = read(&mut stream);
    let [gap, event] = &frames(&text)[..] else { panic!("{text}") };
    assert_eq!((&*gap.event, &*event.data), ("hub:gap", "2"));
    let stats = hub.stats();
    assert_eq!((stats.delivered, stats.delivered_bytes), (1, "event: x\ndata: 2\n\n".len() as u64));
}

#[test]
fn history_comes_before_a_final_end() {
    let (hub, _) = hub_with(|hub| hub);
    publish(&hub, "t", 1..=3);
    let mut finished = open(&hub, Subscriber::new());
    let mut ended = open(&hub, Subscriber::new());
    hub.join_with_last(Audience::all(), "t", 2).unwrap();
    hub.finish(finished.client_id(), Goodbye::from_static("done")).unwrap();
    hub.disconnect(ended.client_id(), Goodbye::from_static("out")).unwrap();
    // A stream that is to end takes no event of a later join.
    publish(&hub, "u", [9]);
    hub.join_with_last(finished.client_id(), "u", 1).unwrap();
    let text = read(&mut finished);
    assert_eq!(data(&text), names([2, 3]));
    assert!(frames(&text).pop().unwrap().is_final() && has_ended(&mut finished));
    assert_eq!(data(&read(&mut ended)), [""; 0], "an end at once sends nothing more");
}

#[test]
fn a_bad_join_changes_nothing() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(1).name_len(3)));
    publish(&hub, "t", 1..=3);
    let mut stream = open(&hub, Subscriber::new().topic("a"));
    let full = JoinError::TooManyTopics { limit: 1 };
    assert_eq!(hub.join_with_last(Audience::all(), "t", 1), Err(full));
    let empty = JoinError::Topic(NameError::Empty(NameKind::Topic));
    assert_eq!(hub.join_with_last(Audience::all(), "", 1), Err(empty));
    assert!(hub.join_with_last(Audience::user("long"), "t", 1).is_err());
    assert_eq!(data(&read(&mut stream)), [""; 0]);
    hub.leave(Audience::all(), "a").unwrap();
    assert_eq!(hub.join_with_last(Audience::all(), "t", usize::MAX).unwrap().changed, 1);
    assert_eq!(data(&read(&mut stream)), names(1..=3));
}

#[test]
fn a_crowd_joins_beside_a_publisher_and_leaves() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(100_000)));
    let mut streams: Vec<_> =
        (0..500).map(|_| open(&hub, Subscriber::new().user("crowd"))).collect();
    publish(&hub, "t", 0..100);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 100;
            while !is_over.load(Ordering::Acquire) {
                publish(&hub, "t", [number]);
                number += 1;
            }
        });
        let joined = hub.join_with_last(Audience::user("crowd"), "t", 20).unwrap();
        assert_eq!((joined.matched, joined.changed), (500, 500));
        is_over.store(true, Ordering::Release);
    });
    let newest = hub.recent(Audience::topic("t"), 1).unwrap()[0].data.parse().unwrap();
    for stream in &mut streams {
        let text = read(stream);
        let got: Vec<usize> = data(&text).iter().map(|number| number.parse().unwrap()).collect();
        let first = *got.first().unwrap();
        assert_eq!(got, (first..=newest).collect::<Vec<_>>(), "in order, without a hole");
        assert!((80..=newest - 19).contains(&first), "{first} of {newest}");
        assert_eq!(gaps(&text).len(), 0);
    }
    for changed in [500, 0] {
        let left = hub.leave(Audience::user("crowd"), "t").unwrap();
        assert_eq!((left.matched, left.changed), (500, changed));
    }
    publish(&hub, "t", [0]);
    assert!(streams.iter_mut().all(|stream| read(stream).is_empty()));
}
