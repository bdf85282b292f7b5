//! Random schedules against a naive model of the hub's promises.
//!
//! The model keeps the whole history and applies the retention limits naively. Browsers connect,
//! read, lose the connection within a frame, and reconnect with the same or another identity. The
//! model checks the order, the absence of repeats and of losses inside retention, a gap exactly
//! when an event was lost, and that a replay follows the audience and the filter of the *new*
//! connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Audience, ClientId, Event, EventId, Goodbye, Hub, LastEventId, ManualTimer, Retain, Subscriber,
    Subscription,
};

const BROWSERS: usize = 3;

#[derive(Debug, Clone)]
struct Settings {
    events: usize,
    per_topic: Option<usize>,
    bytes: usize,
    age: Option<u64>,
    window: usize,
    batch: usize,
}

#[derive(Debug, Clone)]
enum Op {
    Publish {
        to: To,
        event_type: u8,
        key: Option<u8>,
        len: usize,
    },
    Connect {
        browser: usize,
        who: Who,
        from: From,
        keeps_id: bool,
    },
    /// Adds a topic to an open stream.
    Join {
        browser: usize,
        topic: u8,
    },
    LeaveTopic {
        browser: usize,
        topic: u8,
    },
    Disconnect {
        browser: usize,
    },
    /// Drops the stream between two frames.
    Leave {
        browser: usize,
    },
    /// Reads an item.
    Read {
        browser: usize,
    },
    /// Reads an item and loses the connection within the item, with everything after it.
    Cut {
        browser: usize,
        keep: f64,
    },
    /// Reads every available item.
    Drain {
        browser: usize,
    },
    Advance {
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    All,
    User(u8),
    Session(u8),
    Topic(u8),
    /// The latest client of this browser.
    Client(usize),
    EitherUser,
    EitherTopic,
    TopicAndUser(u8, u8),
    TopicExceptUser(u8, u8),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Who {
    user: Option<u8>,
    session: Option<u8>,
    /// Each topic with the position of its join.
    topics: BTreeMap<u8, EventId>,
    /// The topics among these that the server added the client to.
    joined: BTreeSet<u8>,
    types: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
enum From {
    Nothing,
    /// A first connection that requests the last events.
    Last(usize),
    /// The last event id, as a browser sends it.
    WhereItStopped,
    Garbage,
    /// A position this far back in the order, or ahead of the order if negative.
    Position(i8),
    AnEarlierLife,
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        1..20usize,
        prop::option::of(1..8usize),
        1_000..6_000usize,
        prop::option::of(1..20u64),
        1..6usize,
        1..400usize,
    )
        .prop_map(|(events, per_topic, bytes, age, window, batch)| {
            let per_topic = per_topic.map(|limit| limit.min(events));
            Settings { events, per_topic, bytes, age, window, batch }
        })
}

fn op() -> impl Strategy<Value = Op> {
    let browser = || 0..BROWSERS;
    let to = prop_oneof![
        2 => Just(To::All),
        2 => (0..2u8).prop_map(To::User),
        1 => (0..2u8).prop_map(To::Session),
        4 => (0..3u8).prop_map(To::Topic),
        1 => browser().prop_map(To::Client),
        1 => Just(To::EitherUser),
        1 => Just(To::EitherTopic),
        1 => (0..3u8, 0..2u8).prop_map(|(topic, user)| To::TopicAndUser(topic, user)),
        1 => (0..3u8, 0..2u8).prop_map(|(topic, user)| To::TopicExceptUser(topic, user)),

    ];
    let who = (
        prop::option::of(0..2u8),
        prop::option::of(0..2u8),
        vec(0..3u8, 0..3),
        prop::option::weighted(0.3, vec(0..3u8, 0..3)),
    )
        .prop_map(|(user, session, topics, types)| {
            let topics = topics.into_iter().map(|topic| (topic, EventId::new(0, 0))).collect();
            Who { user, session, topics, joined: BTreeSet::new(), types }
        });
    let from = prop_oneof![
        2 => Just(From::Nothing),
        1 => (1..6usize).prop_map(From::Last),

        6 => Just(From::WhereItStopped),
        1 => Just(From::Garbage),
        2 => (-2..20i8).prop_map(From::Position),
        1 => Just(From::AnEarlierLife),
    ];
    prop_oneof![
        12 => (to, 0..3u8, prop::option::weighted(0.3, 0..2u8), 0..80usize)
            .prop_map(|(to, event_type, key, len)| Op::Publish { to, event_type, key, len }),
        4 => (browser(), who, from, any::<bool>())
            .prop_map(|(browser, who, from, keeps_id)| Op::Connect { browser, who, from, keeps_id }),
        1 => (browser(), 0..3u8).prop_map(|(browser, topic)| Op::Join { browser, topic }),
        1 => (browser(), 0..3u8).prop_map(|(browser, topic)| Op::LeaveTopic { browser, topic }),
        1 => browser().prop_map(|browser| Op::Disconnect { browser }),
        1 => browser().prop_map(|browser| Op::Leave { browser }),
        4 => browser().prop_map(|browser| Op::Read { browser }),
        1 => (browser(), 0.0..1.0f64).prop_map(|(browser, keep)| Op::Cut { browser, keep }),
        2 => browser().prop_map(|browser| Op::Drain { browser }),
        1 => (1..8u64).prop_map(|seconds| Op::Advance { seconds }),
    ]
}

/// Whether the log still holds an event.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    Yes,
    /// Older than the limit, but the hub has not been used since. The hub may notice at the next
    /// read.
    TooOld,
    No,
    /// Replaced by a later event. The hub need not deliver this event, and does not report a loss.
    Replaced,
}

#[derive(Debug, Clone)]
struct Published {
    id: EventId,
    to: To,
    client: Option<ClientId>,
    event_type: u8,
    key: Option<u8>,
    frame: String,
    at: u64,
    kept: Kept,
}

impl Published {
    fn is_for(&self, who: &Who, client: ClientId) -> bool {
        let admitted = who.types.as_ref().is_none_or(|types| types.contains(&self.event_type));
        let follows = |topic: u8| who.topics.get(&topic).is_some_and(|&since| since < self.id);
        admitted
            && match self.to {
                To::All => true,
                To::User(user) => who.user == Some(user),
                To::Session(session) => who.session == Some(session),
                To::Topic(topic) => follows(topic),
                To::Client(_) => self.client == Some(client),
                To::EitherUser => who.user.is_some(),
                To::EitherTopic => follows(0) || follows(1),
                To::TopicAndUser(topic, user) => follows(topic) && who.user == Some(user),
                To::TopicExceptUser(topic, user) => follows(topic) && who.user != Some(user),
            }
    }

    /// Returns the topics with a limit that counts this event.
    fn counts_for(&self) -> &[u8] {
        match &self.to {
            To::Topic(topic) | To::TopicExceptUser(topic, _) => std::slice::from_ref(topic),
            To::EitherTopic => &[0, 1],
            _ => &[],
        }
    }

    /// Returns the names under which the hub finds the event: of an `and`, the user.
    fn index(&self) -> Vec<String> {
        match self.to {
            To::All => vec!["all".to_owned()],
            To::User(user) | To::TopicAndUser(_, user) => vec![format!("user {user}")],
            To::Session(session) => vec![format!("session {session}")],
            To::Topic(topic) | To::TopicExceptUser(topic, _) => vec![format!("topic {topic}")],
            To::Client(_) => vec![format!("client {:?}", self.client)],
            To::EitherUser => vec!["user 0".to_owned(), "user 1".to_owned()],
            To::EitherTopic => vec!["topic 0".to_owned(), "topic 1".to_owned()],
        }
    }

    fn weight(&self) -> usize {
        // As documented at `Retain`. Each name has one byte.
        let (names, of_names) = match self.to {
            To::All | To::Client(_) => (0, 0),
            To::User(_) | To::Session(_) | To::Topic(_) => (1, 1),
            To::EitherUser | To::EitherTopic => (2, 2 + 2 * 192),
            To::TopicAndUser(..) | To::TopicExceptUser(..) => (2, 2 + 2 * 128 + 192),
        };
        let of_type = if self.event_type > 0 { type_name(self.event_type).len() } else { 0 };
        let of_several = if names > 1 { 64 * names } else { 0 };
        let of_key = self.key.map_or(0, |key| 192 + key_name(key).len() + of_type + of_several);
        self.frame.len() + of_names + of_key
    }
}

#[derive(Default)]
struct Browser {
    /// The current or latest identity.
    who: Who,
    client: Option<ClientId>,
    stream: Option<Subscription>,
    /// The id that the browser would send as `Last-Event-ID`.
    last: Option<EventId>,
    /// The events received since the last connection that did not resume at the browser's position.
    seen: BTreeSet<EventId>,
    /// On this connection, the browser has every event up to here, or got a gap.
    position: EventId,
    /// After `replay_last`: the losses that were made before the client came.
    exempt: BTreeSet<EventId>,
    /// After `replay_last`: how many events had been lost when the client came.
    lost_before: Option<usize>,
    /// Events of topics that the client has left since: they may arrive or not.
    optional: Vec<EventId>,
    /// The browser sent an id of another hub, and has not received the gap yet.
    astray: bool,
    /// Events that were lost when a gap was sent. The gap comes first and stands for all losses,
    /// even if retained events lie between.
    told: Vec<EventId>,
    opened: bool,
}

struct Model {
    settings: Settings,
    timer: ManualTimer,
    hub: Hub,
    birth: EventId,
    now: u64,
    history: Vec<Published>,
    browsers: Vec<Browser>,
}

impl Model {
    fn new(settings: Settings) -> Self {
        let timer = ManualTimer::new();
        let mut retain = Retain::default().events(settings.events).bytes(settings.bytes);
        if let Some(limit) = settings.per_topic {
            retain = retain.per_topic(limit);
        }
        retain = match settings.age {
            Some(seconds) => retain.age(Duration::from_secs(seconds)),
            None => retain.age(None),
        };
        let hub = Hub::builder(timer.clone())
            .heartbeat(None)
            .retain(retain)
            .window(settings.window)
            .max_batch_bytes(settings.batch)
            .build()
            .unwrap();
        let mut probe = hub.subscribe(Subscriber::new()).unwrap();
        let opening = probe.next().now_or_never().unwrap().unwrap();
        let birth = frames(&opening)[0].id.unwrap();
        let browsers = (0..BROWSERS).map(|_| Browser::default()).collect();
        Self { settings, timer, hub, birth, now: 0, history: Vec::new(), browsers }
    }

    fn head(&self) -> EventId {
        self.history.last().map_or(self.birth, |last| last.id)
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Publish { to, event_type, key, len } => {
                self.publish(*to, *event_type, *key, *len);
            }

            Op::Connect { browser, who, from, keeps_id } => {
                self.connect(*browser, who, *from, *keeps_id);
            }
            Op::Join { browser, topic } => self.join(*browser, *topic),
            Op::LeaveTopic { browser, topic } => self.leave_topic(*browser, *topic),
            Op::Disconnect { browser } => self.disconnect(*browser),
            Op::Leave { browser } => self.browsers[*browser].stream = None,
            Op::Read { browser } => {
                self.read(*browser, None);
            }
            Op::Cut { browser, keep } => {
                self.read(*browser, Some(*keep));
                self.browsers[*browser].stream = None;
            }
            Op::Drain { browser } => self.drain(*browser),
            Op::Advance { seconds } => {
                self.timer.advance(Duration::from_secs(*seconds));
                self.now += seconds;
                if let Some(age) = self.settings.age {
                    for event in &mut self.history {
                        if event.kept == Kept::Yes && event.at + age <= self.now {
                            event.kept = Kept::TooOld;
                        }
                    }
                }
            }
        }
    }

    fn publish(&mut self, to: To, event_type: u8, key: Option<u8>, len: usize) {
        let (audience, client) = match to {
            To::All => (Audience::all(), None),
            To::User(user) => (Audience::user(user.to_string()), None),
            To::Session(session) => (Audience::session(session.to_string()), None),
            To::Topic(topic) => (Audience::topic(topic.to_string()), None),
            To::EitherUser => (Audience::users(["0", "1"]), None),
            To::EitherTopic => (Audience::topic("1").or(Audience::topic("0")), None),
            To::TopicAndUser(topic, user) => {
                let topic = Audience::topic(topic.to_string());
                (topic.and(Audience::user(user.to_string())), None)
            }
            To::TopicExceptUser(topic, user) => {
                let topic = Audience::topic(topic.to_string());
                (topic.except(Audience::user(user.to_string())), None)
            }
            To::Client(browser) => {
                let Some(client) = self.browsers[browser].client else { return };
                (Audience::client(client), Some(client))
            }
        };
        let data = "x".repeat(len);
        let mut event = Event::default().data(&data);
        let mut frame = format!("data: {data}\n");
        if event_type > 0 {
            event = event.event(type_name(event_type));
            frame = format!("event: {}\n{frame}", type_name(event_type));
        }
        if let Some(key) = key {
            event = event.conflate(key_name(key));
        }
        // The receipt does not contain the id: the frames that arrive prove this id.
        let id = EventId::new(self.head().epoch(), self.head().seq() + 1);
        let receipt = self.hub.publish(audience, event).unwrap();
        assert!(id > self.head(), "ids increase");
        frame += &format!("id: {id}\n\n");

        self.expire();
        let at = self.now;
        let replaced = self.history.iter_mut().filter(|event| {
            let is_same =
                (event.to, event.client) == (to, client) && event.event_type == event_type;
            key.is_some() && is_same && event.key == key && event.kept == Kept::Yes
        });
        replaced.for_each(|event| event.kept = Kept::Replaced);
        let kept = Kept::Yes;
        self.history.push(Published { id, to, client, event_type, key, frame, at, kept });
        self.retain();
        self.check_retained();
        let event = self.history.last().unwrap();
        let open = self.browsers.iter().filter(|browser| browser.stream.is_some());
        let matched =
            open.filter(|browser| event.is_for(&browser.who, browser.client.unwrap())).count();
        // The model's probe also connected while the hub was built, and has left since.
        assert_eq!(
            receipt.matched(),
            matched,
            "the receipt must count the clients of the audience"
        );
    }

    /// Any use of the hub evicts events that are too old.
    fn expire(&mut self) {
        for event in &mut self.history {
            if event.kept == Kept::TooOld {
                event.kept = Kept::No;
            }
        }
    }

    fn retain(&mut self) {
        let Settings { events, per_topic, bytes, .. } = self.settings;
        let topics = self.history.last().unwrap().counts_for().to_vec();
        for topic in topics {
            let is_kept = |event: &&mut Published| {
                event.kept == Kept::Yes && event.counts_for().contains(&topic)
            };
            if per_topic
                .is_some_and(|limit| self.history.iter_mut().filter(is_kept).count() > limit)
            {
                self.history.iter_mut().find(is_kept).unwrap().kept = Kept::No;
            }
        }
        loop {
            let kept = || self.history.iter().filter(|event| event.kept == Kept::Yes);
            if kept().count() <= events && kept().map(Published::weight).sum::<usize>() <= bytes {
                break;
            }
            self.history.iter_mut().find(|event| event.kept == Kept::Yes).unwrap().kept = Kept::No;
        }
    }

    /// Right after a publish, the hub holds exactly the events of the model, under their names.
    fn check_retained(&self) {
        let kept = || self.history.iter().filter(|event| event.kept == Kept::Yes);
        let stats = self.hub.stats();
        let bytes = kept().map(Published::weight).sum::<usize>();
        assert_eq!((stats.retained, stats.retained_bytes), (kept().count(), bytes));
        let names: BTreeSet<String> = kept().flat_map(Published::index).collect();
        assert_eq!(stats.retained_names, names.len());
    }

    fn connect(&mut self, browser: usize, who: &Who, from: From, keeps_id: bool) {
        let head = self.head();
        let last = match from {
            From::Nothing | From::Last(_) => LastEventId::none(),
            From::WhereItStopped => {
                self.browsers[browser].last.map_or_else(LastEventId::none, LastEventId::from)
            }
            From::Garbage => LastEventId::from_bytes(b"\xff-1"),
            From::Position(back) => {
                let back = i64::from(back);
                EventId::new(head.epoch(), (head.seq() as i64 - back).max(0) as u64).into()
            }
            From::AnEarlierLife => EventId::new(self.birth.epoch() - 1, 7).into(),
        };
        let mut subscriber = Subscriber::new()
            .topics(who.topics.keys().map(|topic| topic.to_string()))
            .resume(Some(last));
        if let Some(user) = who.user {
            subscriber = subscriber.user(user.to_string());
        }
        if let Some(session) = who.session {
            subscriber = subscriber.session(session.to_string());
        }
        if let Some(types) = &who.types {
            subscriber =
                subscriber.event_types(types.iter().map(|&event_type| type_name(event_type)));
        }
        if let From::Last(events) = from {
            subscriber = subscriber.replay_last(events);
        }
        let before = &self.browsers[browser];
        let was = before.client;
        let mut keeps = None;
        if keeps_id && let Some(client) = was {
            subscriber = subscriber.client_id(client);
            let is_same = (before.who.user, before.who.session) == (who.user, who.session);
            // An open stream of the same owner ends: the client came back early.
            keeps = is_same.then_some(client);
        }
        // The client gets back the topics that the server added it to.
        let (mut who, before) = (who.clone(), before.who.clone());
        for topic in before.joined.iter().filter(|_| keeps.is_some()) {
            let since = before.topics[topic];
            who.topics.entry(*topic).or_insert(since);
            who.joined.insert(*topic);
        }
        let who = &who;
        let stream = self.hub.subscribe(subscriber).unwrap();
        self.expire();
        let client = stream.client_id();
        let topics = self.hub.clients(Audience::client(client)).remove(0).topics;
        let topics: BTreeSet<u8> = topics.iter().map(|topic| topic.parse().unwrap()).collect();
        assert!(topics.iter().eq(who.topics.keys()), "{topics:?} {who:?}");
        assert_eq!(was.filter(|&was| was == client), keeps, "only the owner keeps the client id");

        let known = last.id().filter(|&id| id <= head && id != EventId::new(0, 0));
        let seen = match from {
            From::WhereItStopped => std::mem::take(&mut self.browsers[browser].seen),
            _ => BTreeSet::new(),
        };
        let resumed =
            known.is_some_and(|id| id >= self.birth && !self.lost(who, client, id, &[Kept::No]));
        assert_eq!(stream.is_resumed(), resumed, "a gap exactly when an event was lost");
        let position = match from {
            From::Last(events) => {
                let mine = self.history.iter().rev().filter(|event| event.is_for(who, client));
                let last = mine.filter(|event| event.kept == Kept::Yes).take(events).last();
                last.map_or(head, |oldest| oldest.id.predecessor())
            }
            _ if !last.is_first_connection() => known.unwrap_or(head),
            _ => head,
        };
        let lost = || self.history.iter().filter(|event| event.kept == Kept::No);
        let is_exempt = last.is_first_connection() && position < head;
        let exempt = lost().filter(|_| is_exempt).map(|event| event.id).collect();
        let lost_before = is_exempt.then(|| lost().count());
        let gone = !last.is_first_connection() && known.is_none();
        self.browsers[browser] = Browser {
            who: who.clone(),
            client: Some(client),
            stream: Some(stream),
            last: self.browsers[browser].last,
            seen,
            position,
            exempt,
            lost_before,
            optional: Vec::new(),
            astray: gone,
            told: Vec::new(),
            opened: false,
        };
    }
    /// A client that is away joins, too.
    fn join(&mut self, browser: usize, topic: u8) {
        let head = self.head();
        let Browser { stream, who, client: Some(client), .. } = &mut self.browsers[browser] else {
            return;
        };
        let joined = self.hub.join(Audience::client(*client), topic.to_string()).unwrap();
        let is_new = stream.is_some() && !who.topics.contains_key(&topic);
        assert_eq!(joined.changed, usize::from(is_new));
        who.topics.entry(topic).or_insert(head);
        who.joined.insert(topic);
    }

    fn leave_topic(&mut self, browser: usize, topic: u8) {
        let Browser { stream, who, client: Some(client), optional, position, .. } =
            &mut self.browsers[browser]
        else {
            return;
        };
        let client = *client;
        let left = self.hub.leave(Audience::client(client), topic.to_string()).unwrap();
        let is_new = stream.is_some() && who.topics.contains_key(&topic);
        assert_eq!(left.changed, usize::from(is_new));
        let before = who.clone();
        who.topics.remove(&topic);
        who.joined.remove(&topic);
        let pending = self.history.iter().filter(|event| event.id > *position);
        let no_more =
            pending.filter(|event| event.is_for(&before, client) && !event.is_for(who, client));
        optional.extend(no_more.map(|event| event.id));
    }

    fn disconnect(&mut self, browser: usize) {
        let Some(mut stream) = self.browsers[browser].stream.take() else { return };
        let client = Audience::client(stream.client_id());
        assert_eq!(
            self.hub
                .disconnect(&client, Goodbye::from_static("test"))
                .map(|clients| clients.changed),
            Ok(1)
        );
        if !self.browsers[browser].opened {
            stream.next().now_or_never().unwrap().unwrap();
        }
        let last = stream.next().now_or_never().unwrap().unwrap();
        assert!(last.starts_with(b"event: hub:end\n"), "the backlog must not be sent");
        assert_eq!(stream.next().now_or_never(), Some(None));
    }

    /// Returns whether an event for this client after this position is in one of these states.
    fn lost(&self, who: &Who, client: ClientId, after: EventId, like: &[Kept]) -> bool {
        let mut after = self.history.iter().filter(|event| event.id > after);
        after.any(|event| event.is_for(who, client) && like.contains(&event.kept))
    }

    /// Reads an item. Returns `false` if none is available.
    fn read(&mut self, browser: usize, cut: Option<f64>) -> bool {
        let Some(stream) = &mut self.browsers[browser].stream else { return false };
        let Some(item) = stream.next().now_or_never() else { return false };
        let item = item.expect("the hub is open");
        let keep = cut.map_or(item.len(), |keep| (item.len() as f64 * keep) as usize);
        let (mut events, mut bytes) = (0, 0);
        for frame in frames(&item[..keep]) {
            if frame.text.starts_with("event: hub:") {
                self.control(browser, &frame);
            } else {
                events += 1;
                bytes += frame.text.len();
                self.deliver(browser, &frame);
            }
        }
        assert!(events <= 1 || bytes <= self.settings.batch, "batches must be bounded");
        true
    }

    fn control(&mut self, browser: usize, frame: &Frame<'_>) {
        let Browser { who, client, position, lost_before, astray, opened, .. } =
            &self.browsers[browser];
        let id = frame.id.expect("control events carry a position");
        if frame.text.starts_with("event: hub:open") {
            assert!(!opened, "one opening");
            let browser = &mut self.browsers[browser];
            browser.opened = true;
            browser.last = Some(id);
            return;
        }
        assert!(*opened && frame.text.starts_with("event: hub:gap"));
        let (who, client, position, lost_before) =
            (who.clone(), client.unwrap(), *position, *lost_before);
        if *astray {
            assert_eq!(
                id, position,
                "after an id of another hub, the stream continues at the head"
            );
        } else {
            let earlier_life = position < self.birth;
            assert!(
                earlier_life || self.lost(&who, client, position, &[Kept::No, Kept::TooOld]),
                "a gap only if something was lost"
            );
            let is_lost = |event: &&Published| matches!(event.kept, Kept::No | Kept::TooOld);
            let lost_now = self.history.iter().filter(is_lost).count();
            let is_news = lost_before.is_none_or(|before| before < lost_now);
            assert!(is_news, "no gap for what was lost before the client came");
            assert!(id >= position, "a gap moves the position on");
            let skipped = self.history.iter().filter(|event| event.id > position && event.id <= id);
            for event in skipped {
                let is_lost = event.kept != Kept::Yes || !event.is_for(&who, client);
                assert!(is_lost, "a gap must not skip retained events");
            }
            assert!(id <= self.head() && id >= self.birth);
        }
        let is_lost = |event: &&Published| matches!(event.kept, Kept::No | Kept::TooOld);
        let lost = self.history.iter().filter(|event| event.id > position).filter(is_lost);
        let told = lost.map(|event| event.id).collect();
        let browser = &mut self.browsers[browser];
        browser.position = id;
        browser.last = Some(id);
        browser.told = told;
        browser.astray = false;
    }

    fn deliver(&mut self, browser: usize, frame: &Frame<'_>) {
        let Browser { who, client, position, exempt, optional, astray, told, opened, .. } =
            &self.browsers[browser];
        assert!(*opened && !*astray, "the opening must come first, then the gap for an unknown id");
        let id = frame.id.expect("every event carries an id");
        assert!(id > *position, "in order, without repeats");
        let event =
            self.history.iter().find(|event| event.id == id).expect("the event was published");
        assert_eq!(frame.text, event.frame, "frames must match byte for byte");
        let is_for = event.is_for(who, client.unwrap()) || optional.contains(&id);
        assert!(is_for, "an event for another client");
        let skipped = |event: &&Published| {
            event.id > *position && event.id < id && event.is_for(who, client.unwrap())
        };
        let replaced = |event: &&Published| event.kept == Kept::Replaced;
        let skipped = self.history.iter().filter(skipped).filter(|event| !replaced(event));
        for skipped in skipped {
            assert!(skipped.kept != Kept::Yes, "nothing is lost inside retention");
            let is_known = exempt.contains(&skipped.id) || told.contains(&skipped.id);
            assert!(is_known, "a loss is told before the next event");
        }
        let browser = &mut self.browsers[browser];
        browser.position = id;
        browser.last = Some(id);
        assert!(browser.seen.insert(id), "an event arrived twice");
    }

    fn drain(&mut self, browser: usize) {
        while self.read(browser, None) {}
        let Browser { who, client, position, exempt, told, stream, .. } = &self.browsers[browser];
        if stream.is_none() {
            return;
        }
        let client = client.unwrap();
        assert!(
            !self.lost(who, client, *position, &[Kept::Yes]),
            "every retained event must be delivered"
        );
        let lost = |event: &&Published| {
            event.id > *position
                && !exempt.contains(&event.id)
                && event.kept == Kept::No
                && event.is_for(who, client)
        };
        for lost in self.history.iter().filter(lost) {
            assert!(told.contains(&lost.id), "every loss must be covered by a gap");
        }
    }
}

struct Frame<'a> {
    text: &'a str,
    id: Option<EventId>,
}

/// Returns the complete frames of the received bytes.
fn frames(bytes: &[u8]) -> Vec<Frame<'_>> {
    let text = std::str::from_utf8(bytes).unwrap();
    let whole = text.split_inclusive("\n\n").filter(|frame| frame.ends_with("\n\n"));
    whole
        .map(|text| {
            let last_line = text.trim_end().lines().last().unwrap();
            Frame { text, id: last_line.strip_prefix("id: ").map(|id| id.parse().unwrap()) }
        })
        .collect()
}

fn key_name(key: u8) -> &'static str {
    ["a", "a longer key"][usize::from(key)]
}

fn type_name(event_type: u8) -> &'static str {
    ["message", "price", "news"][usize::from(event_type)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hub_matches_the_naive_model(settings in settings(), ops in vec(op(), 1..80)) {
        let mut model = Model::new(settings);
        for op in &ops {
            model.run(op);
        }
        for browser in 0..BROWSERS {
            model.drain(browser);
        }
        let stats = model.hub.stats();
        let kept = model.history.iter().filter(|event| matches!(event.kept, Kept::Yes | Kept::TooOld)).count();
        prop_assert!(stats.retained <= kept);
        prop_assert!(stats.retained_bytes <= model.settings.bytes);
        model.browsers.clear();
        let stats = model.hub.stats();
        prop_assert_eq!((stats.clients, stats.client_names), (0, 0));
    }
}
