//! Reading the log without a stream, against a naive model and a stream of the same client.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::backplane::{Backplane, Feed, Incoming, Loaded, Outgoing, SendError};
use sse_hub::{
    Audience, AudienceError, Event, EventId, Goodbye, Hub, LastEventId, Limits, ManualTimer,
    NameError, NameKind, Page, ReadError, RefusedCause, Retain, StoredEvent, Subscriber,
};

use support::{data, frames, gaps, hub_with, read};

fn texts(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|event| event.data.as_str()).collect()
}

fn event(data: impl ToString) -> Event {
    Event::new("x").data(data.to_string())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    All,
    User(u8),
    Topic(u8),
    EitherTopic,
    TopicExceptUser(u8, u8),
    TopicAndUser(u8, u8),
}

impl To {
    fn audience(self) -> Audience {
        match self {
            Self::All => Audience::all(),
            Self::User(user) => Audience::user(user),
            Self::Topic(topic) => Audience::topic(topic),
            Self::EitherTopic => Audience::topics([0, 1]),
            Self::TopicExceptUser(topic, user) => {
                Audience::topic(topic).except(Audience::user(user))
            }
            Self::TopicAndUser(topic, user) => Audience::topic(topic).and(Audience::user(user)),
        }
    }

    /// Whether the log indexes the event under a topic.
    fn is_under(self, topic: u8) -> bool {
        match self {
            Self::EitherTopic => topic < 2,
            Self::Topic(own) | Self::TopicExceptUser(own, _) => own == topic,
            // Under the user, which is expected to have fewer clients.
            Self::All | Self::User(_) | Self::TopicAndUser(..) => false,
        }
    }
}

#[derive(Debug, Clone)]
struct Who {
    user: Option<u8>,
    topics: BTreeSet<u8>,
    types: Option<BTreeSet<u8>>,
    /// Holds the key of all clients, as each client does.
    is_client: bool,
}

impl Who {
    fn holds(user: Option<u8>, topics: impl IntoIterator<Item = u8>) -> Self {
        Self { user, topics: topics.into_iter().collect(), types: None, is_client: false }
    }

    fn subscriber(&self) -> Subscriber {
        let mut subscriber = Subscriber::new().topics(self.topics.iter());
        if let Some(user) = self.user {
            subscriber = subscriber.user(user);
        }
        match &self.types {
            Some(types) => subscriber.event_types(types.iter().map(u8::to_string)),
            None => subscriber,
        }
    }
}

#[derive(Debug, Clone)]
struct Published {
    id: EventId,
    to: To,
    event_type: u8,
    key: Option<u8>,
    data: String,
}

impl Published {
    fn is_for(&self, who: &Who) -> bool {
        let is_user = |user| who.user == Some(user);
        let is_addressed = match self.to {
            To::All => who.is_client,
            To::User(user) => is_user(user),
            To::Topic(topic) => who.topics.contains(&topic),
            To::EitherTopic => !who.topics.is_disjoint(&[0, 1].into()),
            To::TopicExceptUser(topic, user) => who.topics.contains(&topic) && !is_user(user),
            To::TopicAndUser(topic, user) => who.topics.contains(&topic) && is_user(user),
        };
        is_addressed && who.types.as_ref().is_none_or(|types| types.contains(&self.event_type))
    }
}

#[derive(Debug, Clone)]
enum Op {
    Publish { to: To, event_type: u8, key: Option<u8> },
    Read { who: Who, from: From, limit: usize },
    Recent { user: Option<u8>, topics: BTreeSet<u8>, count: usize },
    RecentOf { event_type: u8, count: usize },
}

#[derive(Debug, Clone, Copy)]
enum From {
    Nothing,
    Garbage,
    Zero,
    /// So many positions before the end; a negative number is after the end.
    Back(i64),
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        Just(To::All),
        (0..2u8).prop_map(To::User),
        (0..3u8).prop_map(To::Topic),
        Just(To::EitherTopic),
        (0..2u8, 0..2u8).prop_map(|(topic, user)| To::TopicExceptUser(topic, user)),
        (0..2u8, 0..2u8).prop_map(|(topic, user)| To::TopicAndUser(topic, user)),
    ]
}

fn topics() -> impl Strategy<Value = BTreeSet<u8>> {
    prop::collection::btree_set(0..3u8, 0..4)
}

fn op() -> impl Strategy<Value = Op> {
    let types = prop::option::weighted(0.3, prop::collection::btree_set(0..3u8, 0..3));
    let who = (prop::option::of(0..2u8), topics(), types);
    let who = who.prop_map(|(user, topics, types)| Who { user, topics, types, is_client: true });
    let from = prop_oneof![
        2 => Just(From::Nothing),
        1 => Just(From::Garbage),
        1 => Just(From::Zero),
        6 => (-2..25i64).prop_map(From::Back),
    ];
    prop_oneof![
        8 => (to(), 0..3u8, prop::option::weighted(0.2, 0..2u8))
            .prop_map(|(to, event_type, key)| Op::Publish { to, event_type, key }),
        4 => (who, from, 0..6usize).prop_map(|(who, from, limit)| Op::Read { who, from, limit }),
        1 => (prop::option::of(0..2u8), topics(), 0..6usize)
            .prop_map(|(user, topics, count)| Op::Recent { user, topics, count }),
        1 => (0..3u8, 0..6usize).prop_map(|(event_type, count)| Op::RecentOf { event_type, count }),
    ]
}

struct Model {
    hub: Hub,
    events: usize,
    per_topic: Option<usize>,
    retained: Vec<Published>,
    /// Evicted events that no later value replaced.
    lost: Vec<Published>,
    count: usize,
}

impl Model {
    fn new(events: usize, per_topic: Option<usize>) -> Self {
        let per_topic = per_topic.map(|limit| limit.min(events));
        let retain = Retain::default().events(events).per_topic(per_topic).age(None);
        let (hub, _) = hub_with(|hub| hub.retain(retain));
        Self { hub, events, per_topic, retained: Vec::new(), lost: Vec::new(), count: 0 }
    }

    fn publish(&mut self, to: To, event_type: u8, key: Option<u8>) {
        self.count += 1;
        let data = format!("line {}\nof two", self.count);
        let mut event = Event::new(event_type.to_string()).data(&data);
        if let Some(key) = key {
            event = event.conflate(key.to_string());
        }
        let id = self.hub.publish_confirmed(to.audience(), event).unwrap().id().unwrap();
        let is_older = |old: &Published| {
            key.is_some() && (old.to, old.event_type, old.key) == (to, event_type, key)
        };
        self.retained.retain(|old| !is_older(old));
        self.retained.push(Published { id, to, event_type, key, data });
        for topic in 0..3 {
            let under = |event: &&Published| event.to.is_under(topic);
            let count = self.retained.iter().filter(under).count();
            if self.per_topic.is_some_and(|limit| count > limit) {
                let oldest = self.retained.iter().position(|event| under(&event)).unwrap();
                self.lost.push(self.retained.remove(oldest));
            }
        }
        while self.retained.len() > self.events {
            self.lost.push(self.retained.remove(0));
        }
    }

    fn retained_for(&self, who: &Who, after: EventId) -> Vec<&Published> {
        let later = self.retained.iter().filter(|event| event.id > after);
        later.filter(|event| event.is_for(who)).collect()
    }

    fn has_lost(&self, who: &Who, after: EventId) -> bool {
        self.lost.iter().any(|event| event.id > after && event.is_for(who))
    }

    fn read(&self, who: &Who, from: From, limit: usize) {
        let head = self.hub.position();
        let start = EventId::new(head.epoch(), 0);
        let last = match from {
            From::Nothing => LastEventId::none(),
            From::Garbage => LastEventId::from("garbage"),
            From::Zero => EventId::new(0, 0).into(),
            From::Back(back) => {
                let seq = head.seq().checked_add_signed(-back).unwrap_or_default();
                EventId::new(head.epoch(), seq).into()
            }
        };
        let page = self.hub.read(&who.subscriber(), last, limit).unwrap();
        let known = last.id().filter(|&id| id != EventId::new(0, 0) && id <= head);
        let first = last.is_first_connection().then_some(start);
        let Some(after) = known.or(first) else {
            // A stream would report a gap, and begin at the end.
            assert_eq!((page.events.len(), page.next, page.truncated), (0, head, true));
            assert!(!page.has_more);
            return;
        };
        let expected = self.retained_for(who, after);
        let is_lost = known.is_some() && self.has_lost(who, after);
        assert_eq!(page.truncated, is_lost);
        self.check_pages(who, page, &expected, limit);

        if known.is_some() {
            // A stream of this client says the same.
            let mut stream = self.hub.subscribe(who.subscriber().resume(last)).unwrap();
            let text = read(&mut stream);
            assert_eq!(!gaps(&text).is_empty(), is_lost);
            let got: Vec<_> =
                frames(&text).into_iter().filter(|frame| !frame.is_of_hub()).collect();
            let ids: Vec<_> = got.iter().map(|frame| frame.id.unwrap()).collect();
            assert_eq!(ids, expected.iter().map(|event| event.id).collect::<Vec<_>>());
        }
    }

    /// Reads on from a page to the end.
    fn check_pages(&self, who: &Who, mut page: Page, expected: &[&Published], mut limit: usize) {
        let mut left = expected;
        loop {
            let (now, rest) = left.split_at(limit.min(left.len()));
            self.check(&page.events, now);
            assert_eq!(page.has_more, !rest.is_empty());
            let Some(first) = rest.first() else { break };
            assert!(page.next < first.id && now.last().is_none_or(|last| last.id == page.next));
            // A page without events makes no progress.
            limit = limit.max(1);
            let after = page.next;
            page = self.hub.read(&who.subscriber(), after, limit).unwrap();
            assert_eq!(page.truncated, self.has_lost(who, after));
            left = rest;
        }
        assert_eq!(page.next, self.hub.position());
    }

    fn check(&self, events: &[StoredEvent], expected: &[&Published]) {
        let got: Vec<_> =
            events.iter().map(|event| (event.id, &*event.event_type, &*event.data)).collect();
        let types: Vec<_> = expected.iter().map(|event| event.event_type.to_string()).collect();
        let pairs = expected.iter().zip(&types);
        let expected: Vec<_> =
            pairs.map(|(event, name)| (event.id, name.as_str(), event.data.as_str())).collect();
        assert_eq!(got, expected);
    }

    fn recent(&self, user: Option<u8>, topics: &BTreeSet<u8>, count: usize) {
        let names = Audience::topics(topics.iter());
        let audience = match user {
            Some(user) => names.or(Audience::user(user)),
            None => names,
        };
        let events = self.hub.recent(audience, count).unwrap();
        let who = Who::holds(user, topics.iter().copied());
        let all = self.retained_for(&who, EventId::default());
        self.check(&events, &all[all.len().saturating_sub(count)..]);
        let to_all = Who { is_client: true, ..Who::holds(None, []) };
        let all = self.retained_for(&to_all, EventId::default());
        let events = self.hub.recent(Audience::all(), count).unwrap();
        self.check(&events, &all[all.len().saturating_sub(count)..]);
    }

    fn recent_of(&self, event_type: u8, count: usize) {
        let events = self.hub.recent_of(event_type.to_string(), count).unwrap();
        let all: Vec<_> =
            self.retained.iter().filter(|event| event.event_type == event_type).collect();
        self.check(&events, &all[all.len().saturating_sub(count)..]);
    }
}

proptest! {
    #[test]
    fn pages_hold_the_events_of_the_model(
        events in 1..20usize,
        per_topic in prop::option::of(1..8usize),
        ops in vec(op(), 1..60),
    ) {
        let mut model = Model::new(events, per_topic);
        for op in ops {
            match op {
                Op::Publish { to, event_type, key } => model.publish(to, event_type, key),
                Op::Read { who, from, limit } => model.read(&who, from, limit),
                Op::Recent { user, topics, count } => model.recent(user, &topics, count),
                Op::RecentOf { event_type, count } => model.recent_of(event_type, count),
            }
        }
    }
}

#[test]
fn long_log_is_read_across_pieces() {
    // More events than one hold of the lock looks at, most of them of no interest.
    let retain = Retain::default().events(10_000).bytes(64 << 20);
    let (hub, _) = hub_with(|hub| hub.retain(retain));
    let mut expected = Vec::new();
    for number in 0..10_000 {
        let is_wanted = number % 1500 == 700 || number == 9_999;
        let event = Event::new(if is_wanted { "wanted" } else { "other" }).data(number.to_string());
        hub.broadcast(event).unwrap();
        expected.extend(is_wanted.then(|| number.to_string()));
    }
    let who = Subscriber::new().event_types(["wanted"]);
    let page = hub.read(&who, LastEventId::none(), 100).unwrap();
    assert_eq!(texts(&page.events), expected);
    assert!(!page.truncated && !page.has_more && page.next == hub.position());
    let first = hub.read(&who, LastEventId::none(), 3).unwrap();
    assert_eq!((texts(&first.events), first.has_more), (texts(&page.events[..3]), true));
    let empty = hub.read(&who, LastEventId::none(), 0).unwrap();
    let first = hub.read(&who, LastEventId::from(empty.next), 1).unwrap();
    assert_eq!((texts(&first.events), empty.has_more), (texts(&page.events[..1]), true));
    let none = hub.read(&Subscriber::new().event_types(["never"]), LastEventId::none(), 1).unwrap();
    assert!(none.events.is_empty() && !none.has_more && none.next == hub.position());
    let last = hub.recent_of("wanted", 5).unwrap();
    assert_eq!(texts(&last), expected[expected.len() - 5..]);
    assert_eq!(hub.recent_of("never", 5).unwrap(), []);
    let others = hub.recent_of("other", usize::MAX).unwrap();
    assert_eq!(others.len(), 10_000 - expected.len(), "each event once");
    let all = hub.recent(Audience::all(), usize::MAX).unwrap();
    assert_eq!(all.len(), 10_000);
    let whole = hub.read(&Subscriber::new(), LastEventId::none(), usize::MAX).unwrap();
    assert_eq!(whole.events, all);
}

#[test]
fn a_reader_beside_publishers_misses_nothing_untold() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(3000).bytes(64 << 20)));
    let who = Subscriber::new().topic("t");
    let (is_over, start) = (AtomicBool::new(false), hub.position());
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..30_000_u64 {
                // Other topics evict, and a reader of them all needs several pieces.
                hub.send_to_topic(["t", "u", "t"][number as usize % 3], event(number)).unwrap();
            }
            is_over.store(true, Ordering::Release);
        });
        let (mut at, mut next, mut told) = (start, 0_u64, 0);
        loop {
            let was_over = is_over.load(Ordering::Acquire);
            let page = hub.read(&who, at, 2000).unwrap();
            for event in &page.events {
                let number: u64 = event.data.parse().unwrap();
                let is_next = number == next + u64::from(next % 3 == 1);
                assert!(is_next || page.truncated && number > next, "{number} after {next}");
                next = number + 1;
            }
            told += u64::from(page.truncated);
            assert!(page.next >= at);
            at = page.next;
            if was_over && !page.has_more {
                break;
            }
        }
        assert!(next == 30_000 && told < 30_000);
    });
}

#[test]
fn an_id_is_read_only_by_its_owner() {
    let (hub, _) = hub_with(|hub| hub);
    let ann = || Subscriber::new().user("ann").session("s1");
    let mut stream = hub.subscribe(ann()).unwrap();
    read(&mut stream);
    let (id, start) = (stream.client_id(), hub.position());
    hub.send_to_client(id, event("secret")).unwrap();
    let others = [
        Subscriber::new(),
        Subscriber::new().user("bob").session("s1"),
        Subscriber::new().user("ann").session("s2"),
        Subscriber::new().user("ann"),
    ];
    for is_connected in [true, false] {
        let page = hub.read(&ann().client_id(id), start, 10).unwrap();
        assert_eq!((texts(&page.events), page.truncated), (vec!["secret"], false));
        assert!(hub.read(&ann(), start, 10).unwrap().events.is_empty(), "the id was not sent");
        let nobody = hub.read(&others[1], start, 10).unwrap();
        for other in &others {
            let page = hub.read(&other.clone().client_id(id), start, 10).unwrap();
            assert_eq!(page, nobody, "a foreign id must reveal nothing");
        }
        if is_connected {
            // The read ended no stream, and registered nobody.
            assert_eq!(data(&read(&mut stream)), ["secret"]);
            assert_eq!((hub.stats().clients, hub.stats().opened), (1, 1));
            hub.disconnect(id, Goodbye::from_static("x")).unwrap();
        }
    }
    // An id that the hub does not know may have had events: a stream would get a gap.
    let unknown = "00112233445566778899aabbccddeeff".parse().unwrap();
    assert!(!hub.read(&ann().client_id(unknown), start, 10).unwrap().truncated);
    hub.send_to_client(unknown, event("lost")).unwrap();
    assert!(hub.read(&ann().client_id(unknown), start, 10).unwrap().truncated);
    assert!(!hub.read(&ann().client_id(unknown), LastEventId::none(), 10).unwrap().truncated);
}

#[test]
fn bad_readers_are_typed_errors() {
    let timer = ManualTimer::new();
    let limits = Limits::default().topics(2).event_types(1).name_len(4);
    let hub = Hub::builder(timer.clone()).limits(limits).build().unwrap();
    let first = LastEventId::none();
    let error = |who: Subscriber| hub.read(&who, first, 1).unwrap_err();
    let many = RefusedCause::TooManyTopics { limit: 2 };
    assert_eq!(error(Subscriber::new().topics(["a", "b", "c"])), ReadError::Reader(many));
    let types = RefusedCause::TooManyEventTypes { limit: 1 };
    assert_eq!(error(Subscriber::new().event_types(["a", "b"])), ReadError::Reader(types));
    let empty = RefusedCause::Name(NameError::Empty(NameKind::User));
    assert_eq!(error(Subscriber::new().user("")), ReadError::Reader(empty));
    assert_eq!(error(Subscriber::new().expires_in(Duration::ZERO)), ReadError::Expired);
    let who = Subscriber::new().expires_in(Duration::from_secs(1));
    assert!(hub.read(&who, first, 1).is_ok());

    let long = NameError::TooLong { kind: NameKind::Topic, len: 5, limit: 4 };
    let long = ReadError::Audience(AudienceError::Name(long));
    assert_eq!(hub.recent(Audience::topic("12345"), 1), Err(long));
    let both = Audience::topic("a").and(Audience::topic("b"));
    assert_eq!(hub.recent(both, 1), Err(ReadError::Combined));
    let without = Audience::topic("a").except(Audience::topic("b"));
    assert_eq!(hub.recent(without, 1), Err(ReadError::Combined));
    assert_eq!(hub.recent(Audience::topics::<&str>([]), 1), Ok(vec![]));
    assert_eq!(hub.recent_of("hub:open", 1), Ok(vec![]));
    hub.broadcast(event("1")).unwrap();
    assert_eq!(hub.recent(Audience::all(), 0), Ok(vec![]));
    // A closed hub can still be read.
    hub.close();
    assert_eq!(texts(&hub.read(&Subscriber::new(), first, 1).unwrap().events), ["1"]);
}

#[test]
fn old_events_are_not_read() {
    let age = Duration::from_secs(10);
    let (hub, timer) = hub_with(|hub| hub.retain(Retain::default().age(age)));
    let start = hub.position();
    hub.broadcast(event("old")).unwrap();
    timer.advance(age);
    let page = hub.read(&Subscriber::new(), start, 10).unwrap();
    assert!(page.events.is_empty() && page.truncated && !page.has_more);
    hub.broadcast(event("young")).unwrap();
    assert_eq!(texts(&hub.recent(Audience::all(), 10).unwrap()), ["young"]);
    timer.advance(age);
    assert_eq!(hub.recent_of("x", 10).unwrap(), []);
    assert_eq!(hub.recent(Audience::all(), 10).unwrap(), []);
}

#[test]
fn frames_without_data_are_no_events() {
    let (hub, _) = hub_with(|hub| hub);
    hub.broadcast(Event::default().comment("a comment")).unwrap();
    hub.broadcast(Event::default().data("untyped")).unwrap();
    let page = hub.read(&Subscriber::new(), LastEventId::none(), 10).unwrap();
    assert_eq!(texts(&page.events), ["untyped"]);
    assert_eq!(page.events[0].event_type, "message");
    assert_eq!(hub.recent_of("message", 1).unwrap(), page.events);
    let first = hub.read(&Subscriber::new(), LastEventId::none(), 1).unwrap();
    assert!(first.events.is_empty() && first.has_more, "the comment takes the place of an event");
}

/// Keeps the entries that the hub sends.
#[derive(Debug, Clone, Default)]
struct Engine(Arc<Mutex<Vec<Bytes>>>);

impl Backplane for Engine {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        self.0.lock().unwrap().push(event.entry().clone());
        Ok(())
    }
}

#[test]
fn backplane_is_read_once_loaded() {
    let engine = Engine::default();
    let (hub, _) = hub_with(|hub| hub.backplane(engine.clone()));
    let feed = Feed::new(&hub).unwrap();
    let (who, first) = (Subscriber::new(), LastEventId::none());
    assert_eq!(hub.read(&who, first, 1), Err(ReadError::NotLoaded));
    assert_eq!(hub.recent(Audience::all(), 1), Err(ReadError::NotLoaded));
    assert_eq!(hub.recent_of("x", 1), Err(ReadError::NotLoaded));
    assert_eq!(hub.position(), EventId::default());
    hub.broadcast(event("1")).unwrap();
    let entry = engine.0.lock().unwrap()[0].clone();
    let entry = Incoming::parse(&entry).unwrap();
    feed.load(Loaded::new(EventId::new(5, 0), [(EventId::new(5, 1), Duration::ZERO, entry)]));
    assert_eq!(hub.position(), EventId::new(5, 1));
    let page = hub.read(&who, first, 10).unwrap();
    assert_eq!((texts(&page.events), page.next), (vec!["1"], EventId::new(5, 1)));
    // Older events are not in the log. A later position is that of another instance.
    assert!(hub.read(&who, EventId::new(4, 0), 10).unwrap().truncated);
    let ahead = hub.read(&who, EventId::new(5, 9), 10).unwrap();
    assert_eq!((ahead.next, ahead.truncated), (EventId::new(5, 9), false));
    assert!(ahead.events.is_empty() && !ahead.has_more);
}

#[cfg(feature = "json")]
#[test]
fn pages_are_serialized_with_their_names() {
    let (hub, _) = hub_with(|hub| hub);
    hub.broadcast(Event::new("x").data("a\r\nb")).unwrap();
    let page = hub.read(&Subscriber::new(), LastEventId::none(), 10).unwrap();
    let id = hub.position();
    let event = format!(r#"{{"id":"{id}","event_type":"x","data":"a\nb"}}"#);
    let json =
        format!(r#"{{"events":[{event}],"next":"{id}","truncated":false,"has_more":false}}"#);
    assert_eq!(serde_json::to_string(&page).unwrap(), json);
}
