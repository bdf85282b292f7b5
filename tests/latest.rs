//! `Retain::keep_latest` and `Subscriber::latest`: the newest value of each conflation key, and then
//! everything that is published later.
#![cfg(not(sse_hub_loom))]

mod support;

use std::collections::BTreeSet;
use std::iter;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Audience, ConfigError, Event, EventId, Goodbye, Hub, ManualTimer, Retain, Subscriber,
    Subscription,
};

use support::{
    SECOND, data, end, event, frames, gaps, hub_with, last_id, names, poll, publish, read,
    read_items,
};

fn price(symbol: &str, value: usize) -> Event {
    event(value).conflate(symbol)
}

/// Publishes each number as the value of another key.
fn publish_values(hub: &Hub, values: impl IntoIterator<Item = usize>) {
    for value in values {
        hub.broadcast(price(&value.to_string(), value)).unwrap();
    }
}

fn with_latest(hub: &Hub) -> Subscription {
    hub.subscribe(Subscriber::new().latest()).unwrap()
}

/// Retains one event beside the values.
fn keeping(keys: usize) -> (Hub, ManualTimer) {
    hub_with(|hub| hub.retain(Retain::default().events(1).keep_latest(keys)))
}

#[test]
fn values_outlive_count_and_age() {
    let retain = Retain::default().events(3).age(10 * SECOND).keep_latest(10);
    let (hub, timer) = hub_with(|hub| hub.retain(retain));
    hub.broadcast(price("a", 1)).unwrap();
    hub.broadcast(price("b", 2)).unwrap();
    hub.broadcast(price("a", 3)).unwrap();
    publish(&hub, 4..=9);
    timer.advance(3600 * SECOND);
    assert_eq!(data(&read(&mut with_latest(&hub))), names([2, 3]));
    let stats = hub.stats();
    assert_eq!(stats.delivered, 2, "{stats:?}");
    assert_eq!(stats.retained, 2, "{stats:?}");
    hub.broadcast(price("b", 10)).unwrap();
    assert_eq!(data(&read(&mut with_latest(&hub))), names([3, 10]));
}

#[test]
fn resuming_client_gets_kept_values_without_a_gap() {
    let (hub, _) = keeping(10);
    let first = hub.publish_confirmed(Audience::all(), event(1)).unwrap().id().unwrap();
    for value in 2..=6 {
        hub.broadcast(price(["a", "b"][value % 2], value)).unwrap();
    }
    let mut stream = hub.subscribe(Subscriber::new().resume(first)).unwrap();
    assert!(stream.is_resumed());
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([5, 6]), vec![]));
}

#[test]
fn events_without_key_before_the_start_stay_away() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().keep_latest(10)));
    publish(&hub, 1..=2000);
    hub.broadcast(price("a", 2001)).unwrap();
    publish(&hub, 2002..=4000);
    let mut stream = with_latest(&hub);
    publish(&hub, 4001..=4002);
    let text = read(&mut stream);
    assert_eq!(data(&text), names([2001, 4001, 4002]));
    assert_eq!((gaps(&text), last_id(&text)), (vec![], hub.position()));
}

#[test]
fn last_value_carries_a_fresh_position() {
    let (hub, _) = keeping(10);
    publish_values(&hub, 1..=3);
    publish(&hub, 4..=9);
    let text = read(&mut with_latest(&hub));
    assert_eq!((data(&text), last_id(&text)), (names([1, 2, 3]), hub.position()));
    // A quiet page comes back, and missed nothing.
    let mut again = hub.subscribe(Subscriber::new().latest().resume(last_id(&text))).unwrap();
    assert!(again.is_resumed());
    let text = read(&mut again);
    assert_eq!((data(&text), gaps(&text)), (names([]), vec![]));
}

#[test]
fn stream_without_values_opens_at_its_position() {
    let (hub, _) = keeping(10);
    publish(&hub, 1..=9);
    let text = read(&mut with_latest(&hub));
    assert_eq!(frames(&text).len(), 1, "{text}");
    assert_eq!(last_id(&text), hub.position());
    // More events than a piece of the log has.
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(5000).keep_latest(10)));
    publish(&hub, 1..=5000);
    let text = read_items(&mut with_latest(&hub), 1);
    assert_eq!((frames(&text).len(), last_id(&text)), (1, hub.position()));
}

#[test]
fn id_beyond_the_log_begins_with_the_values() {
    let (hub, _) = keeping(10);
    hub.broadcast(price("a", 1)).unwrap();
    let ahead = EventId::new(u64::MAX, 0);
    let mut stream = hub.subscribe(Subscriber::new().latest().resume(ahead)).unwrap();
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([1]), vec!["unknown".to_owned()]));
}

#[test]
fn cut_before_the_first_value_begins_again() {
    let (hub, _) = keeping(10);
    hub.broadcast(price("a", 1)).unwrap();
    publish(&hub, 2..=5);
    let opening = frames(&read(&mut with_latest(&hub)))[0].clone();
    assert_eq!(opening.id, Some(EventId::new(0, 0)));
    let last = opening.id.unwrap();
    let mut stream = hub.subscribe(Subscriber::new().latest().resume(last)).unwrap();
    assert!(!stream.is_resumed());
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([1]), vec!["unknown".to_owned()]));
}

#[test]
fn bound_of_keys_evicts_the_oldest_and_tells() {
    let (hub, _) = keeping(2);
    for (value, symbol) in ["a", "b", "c", "d"].into_iter().enumerate() {
        hub.send_to_topic("t", price(symbol, value)).unwrap();
    }
    let mut follower = hub.subscribe(Subscriber::new().topic("t").latest()).unwrap();
    let text = read(&mut follower);
    assert_eq!((data(&text), gaps(&text)), (names([1, 2, 3]), vec!["evicted".to_owned()]));
    assert_eq!(frames(&text)[1].event, "hub:gap", "before the values: {text}");
    assert_eq!(gaps(&read(&mut with_latest(&hub))), [""; 0], "could not see the lost value");
    // A client that left before the loss is told, too.
    let before = EventId::new(hub.position().epoch(), 0);
    let mut back = hub.subscribe(Subscriber::new().topic("t").resume(before)).unwrap();
    let text = read(&mut back);
    assert_eq!((data(&text), gaps(&text)), (names([1, 2, 3]), vec!["evicted".to_owned()]));
}

#[test]
fn bound_of_bytes_holds_and_huge_values_are_not_kept() {
    let retain = Retain::default().events(1).keep_latest(100).latest_bytes(4_000);
    let (hub, _) = hub_with(|hub| hub.retain(retain));
    let of_size = |symbol: &str, len| {
        hub.broadcast(Event::new("x").data("y".repeat(len)).conflate(symbol)).unwrap();
    };
    of_size("small", 10);
    of_size("huge", 10_000);
    publish(&hub, 1..=1);
    let text = read(&mut with_latest(&hub));
    assert_eq!(data(&text), ["y".repeat(10)], "the huge value did not evict the small");
    assert_eq!(gaps(&text), ["evicted"]);
    (0..100).for_each(|symbol| of_size(&symbol.to_string(), 500));
    let stats = hub.stats();
    assert!(stats.retained_bytes < 4_000 + 1_000, "{stats:?}");
}

#[test]
fn kept_values_count_as_retained_bytes() {
    let retain = Retain::default().events(1).age(10 * SECOND).keep_latest(10);
    let (hub, timer) = hub_with(|hub| hub.retain(retain));
    hub.broadcast(price("a", 1)).unwrap();
    let bytes = hub.stats().retained_bytes;
    // Few rounds: an id with more digits takes more bytes.
    for value in 2..=4 {
        hub.broadcast(price("b", value)).unwrap();
        hub.broadcast(price("a", value)).unwrap();
        timer.advance(3600 * SECOND);
        let stats = hub.stats();
        assert_eq!((stats.retained, stats.retained_bytes), (2, 2 * bytes), "after {value}");
    }
}

#[test]
fn value_lost_while_values_are_read_is_told() {
    let retain = Retain::default().events(1).keep_latest(3);
    let (hub, _) = hub_with(|hub| hub.retain(retain).max_batch_bytes(1));
    publish_values(&hub, 1..=4);
    let mut stream = with_latest(&hub);
    let mut text = read_items(&mut stream, 1);
    assert_eq!(data(&text), names([1]));
    publish_values(&hub, 5..=6);
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text).len()), (names([1, 3, 4, 5, 6]), 1), "{text}");
}

#[test]
fn replaced_value_comes_once_in_its_new_form() {
    let (hub, _) =
        hub_with(|hub| hub.retain(Retain::default().events(1).keep_latest(9)).max_batch_bytes(1));
    publish_values(&hub, 1..=3);
    let mut stream = with_latest(&hub);
    let mut text = read_items(&mut stream, 1);
    hub.broadcast(price("2", 20)).unwrap();
    hub.broadcast(price("3", 30)).unwrap();
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([1, 20, 30]), vec![]));
}

#[test]
fn end_while_values_are_read_delivers_the_rest() {
    let (hub, _) =
        hub_with(|hub| hub.retain(Retain::default().events(1).keep_latest(9)).max_batch_bytes(1));
    publish_values(&hub, 1..=3);
    let mut stream = with_latest(&hub);
    let mut text = read_items(&mut stream, 1);
    hub.finish(Audience::all(), Goodbye::from_static("done")).unwrap();
    text += &read(&mut stream);
    assert_eq!((data(&text), end(&text).as_deref()), (names([1, 2, 3]), Some("done")));
}

#[test]
fn without_the_setting_retained_values_come_and_losses_are_told() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(3)));
    hub.broadcast(price("a", 1)).unwrap();
    publish(&hub, 2..=3);
    let text = read(&mut with_latest(&hub));
    assert_eq!((data(&text), gaps(&text)), (names([1]), vec![]));
    publish(&hub, 4..=4);
    let text = read(&mut with_latest(&hub));
    assert_eq!((data(&text), gaps(&text)), (names([]), vec!["evicted".to_owned()]));
}

#[test]
fn joining_while_values_are_read_misses_and_repeats_nothing() {
    for items in 1..=3 {
        let retain = Retain::default().events(9).keep_latest(9);
        let (hub, _) = hub_with(|hub| hub.retain(retain).max_batch_bytes(1));
        let either = Audience::topic("a").or(Audience::topic("b"));
        hub.send_to_topic("a", price("1", 1)).unwrap();
        hub.publish(either.clone(), price("2", 2)).unwrap();
        hub.send_to_topic("b", event(3)).unwrap();
        hub.publish(either, event(4)).unwrap();
        hub.send_to_topic("b", price("5", 5)).unwrap();
        hub.send_to_topic("b", event(6)).unwrap();
        let mut stream = hub.subscribe(Subscriber::new().topic("a").latest()).unwrap();
        hub.send_to_topic("b", event(7)).unwrap();
        let mut text = read_items(&mut stream, items);
        let _ = hub.join_with_last(stream.client_id(), "b", 9).unwrap();
        text += &read(&mut stream);
        let mut got = data(&text);
        got.sort();
        assert_eq!(got, names(1..=7), "after {items} items: {text}");
    }
}

#[test]
fn batches_of_values_are_bounded() {
    const MOST: usize = 200;
    let (hub, _) =
        hub_with(|hub| hub.retain(Retain::default().keep_latest(9)).max_batch_bytes(MOST));
    publish_values(&hub, 1..=20);
    let mut stream = with_latest(&hub);
    let items: Vec<_> = iter::from_fn(|| poll(&mut stream).flatten()).skip(1).collect();
    assert!(items.len() > 2 && items.iter().all(|item| item.len() <= MOST), "{items:?}");
}

#[test]
fn values_and_snapshot_exclude_each_other() {
    let (hub, _) = keeping(1);
    assert!(with_latest(&hub).with_snapshot([event(1)]).is_err());
}

#[test]
fn zero_values_are_refused() {
    let build = |retain| Hub::builder(ManualTimer::new()).retain(retain).build().unwrap_err();
    let zero = |setting| ConfigError::Zero { setting };
    assert_eq!(build(Retain::default().keep_latest(0)), zero("Retain::keep_latest"));
    assert_eq!(build(Retain::default().latest_bytes(0)), zero("Retain::latest_bytes"));
}

const BROWSERS: usize = 3;

#[derive(Debug, Clone)]
struct Settings {
    events: usize,
    per_topic: Option<usize>,
    age: Option<u64>,
    keys: usize,
    window: usize,
    batch: usize,
}

#[derive(Debug, Clone)]
enum Op {
    Publish {
        to: usize,
        event_type: usize,
        key: Option<usize>,
    },
    /// A first connection that begins with the values.
    Connect {
        browser: usize,
        who: usize,
        filter: Option<usize>,
    },
    /// Comes back with the last id, as the same client.
    Resume {
        browser: usize,
    },
    Read {
        browser: usize,
    },
    /// Reads an item and loses the connection after this many frames.
    Cut {
        browser: usize,
        frames: usize,
    },
    Drain {
        browser: usize,
    },
    Advance {
        seconds: u64,
    },
}

const AUDIENCES: usize = 4;

fn audience(to: usize) -> Audience {
    match to {
        0 => Audience::all(),
        1 => Audience::topic("a"),
        2 => Audience::topic("a").or(Audience::user("u")),
        _ => Audience::topic("a").except(Audience::user("u")),
    }
}

/// Whether a client follows topic `a`, whether the user is `u`, and the audiences that include the
/// client.
const CLIENTS: [(bool, bool, [bool; AUDIENCES]); 4] = [
    (false, false, [true, false, false, false]),
    (true, false, [true, true, true, true]),
    (true, true, [true, true, true, false]),
    (false, true, [true, false, true, false]),
];

const TYPES: [&str; 2] = ["x", "y"];

fn settings() -> impl Strategy<Value = Settings> {
    (
        1..8usize,
        prop::option::of(1..4usize),
        prop::option::of(1..20u64),
        1..6usize,
        1..4usize,
        prop_oneof![Just(1), Just(64 << 10)],
    )
        .prop_map(|(events, per_topic, age, keys, window, batch)| {
            let per_topic = per_topic.map(|limit| limit.min(events));
            Settings { events, per_topic, age, keys, window, batch }
        })
}

fn op() -> impl Strategy<Value = Op> {
    let browser = || 0..BROWSERS;
    prop_oneof![
        12 => (0..AUDIENCES, 0..TYPES.len(), prop::option::weighted(0.6, 0..4usize))
            .prop_map(|(to, event_type, key)| Op::Publish { to, event_type, key }),
        3 => (browser(), 0..CLIENTS.len(), prop::option::weighted(0.3, 0..TYPES.len()))
            .prop_map(|(browser, who, filter)| Op::Connect { browser, who, filter }),
        2 => browser().prop_map(|browser| Op::Resume { browser }),
        4 => browser().prop_map(|browser| Op::Read { browser }),
        1 => (browser(), 0..6usize).prop_map(|(browser, frames)| Op::Cut { browser, frames }),
        2 => browser().prop_map(|browser| Op::Drain { browser }),
        1 => (1..8u64).prop_map(|seconds| Op::Advance { seconds }),
    ]
}

#[derive(Debug, Clone)]
struct Published {
    id: EventId,
    to: usize,
    event_type: usize,
    key: Option<usize>,
    at: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Retained,
    Kept,
    Replaced,
    Lost,
}

#[derive(Default)]
struct Browser {
    who: usize,
    filter: Option<usize>,
    stream: Option<Subscription>,
    last: Option<EventId>,
    /// The events that this connection must bring, or tell as lost.
    wanted: BTreeSet<usize>,
    /// Events from here on are wanted when they are published.
    seen: BTreeSet<usize>,
    /// The newest received event of each conflation.
    newest: Vec<((usize, usize, usize), usize)>,
    /// The reported losses of this connection.
    told: BTreeSet<usize>,
}

struct Model {
    settings: Settings,
    timer: ManualTimer,
    hub: Hub,
    now: u64,
    history: Vec<Published>,
    browsers: Vec<Browser>,
}

impl Model {
    fn new(settings: Settings) -> Self {
        let mut retain = Retain::default().events(settings.events).keep_latest(settings.keys);
        retain =
            retain.per_topic(settings.per_topic).age(settings.age.map(|age| SECOND * age as u32));
        let (hub, timer) = hub_with(|hub| {
            hub.retain(retain)
                .window(settings.window)
                .max_batch_bytes(settings.batch)
                .heartbeat(None)
                .stalled_after(None)
        });
        let browsers = (0..BROWSERS).map(|_| Browser::default()).collect();
        Self { settings, timer, hub, now: 0, history: Vec::new(), browsers }
    }

    fn is_for(&self, browser: &Browser, at: usize) -> bool {
        let event = &self.history[at];
        let (.., audiences) = CLIENTS[browser.who];
        audiences[event.to] && browser.filter.is_none_or(|only| only == event.event_type)
    }

    /// Evicts as the documentation of `Retain` says. Any use of the hub does.
    fn limit(&mut self) {
        let Settings { events, per_topic, age, keys, .. } = self.settings;
        let is = |event: &Published, state| event.state == state;
        let aged: Vec<usize> = (0..self.history.len())
            .filter(|&at| is(&self.history[at], State::Retained))
            .take_while(|&at| age.is_some_and(|age| self.history[at].at + age <= self.now))
            .collect();
        aged.into_iter().for_each(|at| self.evict(at));
        if let Some(limit) = per_topic {
            let of_topic = |event: &Published| is(event, State::Retained) && event.to > 0;
            let all: Vec<usize> =
                (0..self.history.len()).filter(|&at| of_topic(&self.history[at])).collect();
            let surplus = all.len().saturating_sub(limit);
            all[..surplus].iter().for_each(|&at| self.evict(at));
        }
        let all: Vec<usize> =
            (0..self.history.len()).filter(|&at| is(&self.history[at], State::Retained)).collect();
        let surplus = all.len().saturating_sub(events);
        all[..surplus].iter().for_each(|&at| self.evict(at));
        assert!(self.history.iter().filter(|event| is(event, State::Kept)).count() <= keys);
    }

    fn evict(&mut self, at: usize) {
        let has_key = self.history[at].key.is_some();
        self.history[at].state = if has_key { State::Kept } else { State::Lost };
        let is_kept = |event: &Published| event.state == State::Kept;
        if self.history.iter().filter(|event| is_kept(event)).count() > self.settings.keys {
            self.history.iter_mut().find(|event| is_kept(event)).unwrap().state = State::Lost;
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Publish { to, event_type, key } => self.publish(to, event_type, key),
            Op::Connect { browser, who, filter } => {
                let new = Browser { who, filter, ..Browser::default() };
                self.browsers[browser] = new;
                self.connect(browser);
            }
            Op::Resume { browser } => self.connect(browser),
            Op::Read { browser } => drop(self.read(browser, usize::MAX)),
            Op::Cut { browser, frames } => {
                self.read(browser, frames);
                self.browsers[browser].stream = None;
            }
            Op::Drain { browser } => self.drain(browser),
            Op::Advance { seconds } => {
                self.timer.advance(SECOND * seconds as u32);
                self.now += seconds;
            }
        }
    }

    fn publish(&mut self, to: usize, event_type: usize, key: Option<usize>) {
        // The hub expires before it appends, and the new event may replace an expired value.
        self.limit();
        let number = self.history.len();
        let mut event = Event::new(TYPES[event_type]).data(number.to_string());
        if let Some(key) = key {
            event = event.conflate(key.to_string());
        }
        let id = self.hub.publish_confirmed(audience(to), event).unwrap().id().unwrap();
        let older = self.history.iter_mut().filter(|older| {
            let is_same = (older.to, older.event_type, older.key) == (to, event_type, key);
            key.is_some() && is_same && matches!(older.state, State::Retained | State::Kept)
        });
        older.for_each(|older| older.state = State::Replaced);
        let state = State::Retained;
        self.history.push(Published { id, to, event_type, key, at: self.now, state });
        self.limit();
        for at in 0..BROWSERS {
            let is_open = self.browsers[at].stream.is_some();
            if is_open && self.is_for(&self.browsers[at], number) {
                self.browsers[at].wanted.insert(number);
            }
        }
    }

    fn connect(&mut self, browser: usize) {
        self.limit();
        let (has_topic, is_u, _) = CLIENTS[self.browsers[browser].who];
        let mut request = Subscriber::new().latest();
        if has_topic {
            request = request.topic("a");
        }
        if is_u {
            request = request.user("u");
        }
        if let Some(only) = self.browsers[browser].filter {
            request = request.event_types([TYPES[only]]);
        }
        let last = self.browsers[browser].last;
        if let Some(last) = last {
            request = request.resume(last);
        }
        let last = last.filter(|&last| last > EventId::new(0, 0));
        let stream = self.hub.subscribe(request).unwrap();
        let is_wanted = |event: &Published| match last {
            Some(last) => event.id > last && event.state != State::Replaced,
            // Values only. The model cannot know whether a lost value was replaced since: it was
            // not, because the value would then have another state.
            None => event.key.is_some() && event.state != State::Replaced,
        };
        let wanted = (0..self.history.len())
            .filter(|&at| is_wanted(&self.history[at]) && self.is_for(&self.browsers[browser], at));
        let wanted = wanted.collect();
        let browser = &mut self.browsers[browser];
        browser.wanted = wanted;
        browser.told.clear();
        browser.stream = Some(stream);
        if last.is_none() {
            // Begins again.
            browser.seen.clear();
            browser.newest.clear();
        }
    }

    /// Reads an item, of which at most `most` frames arrive. Returns `false` if there is none.
    fn read(&mut self, browser: usize, most: usize) -> bool {
        self.limit();
        let Some(stream) = &mut self.browsers[browser].stream else { return false };
        let Some(item) = stream.next().now_or_never() else { return false };
        let item = item.expect("the stream stays open");
        for frame in frames(std::str::from_utf8(&item).unwrap()).into_iter().take(most) {
            let id = frame.id.expect("every frame has an id");
            if let Some(last) = self.browsers[browser].last
                && frame.event != "hub:open"
            {
                assert!(last <= id, "ids never go back: {last} {frame:?}");
            }
            self.browsers[browser].last = Some(id);
            match &*frame.event {
                "hub:open" => {}
                "hub:gap" => {
                    let is_lost = |at: &usize| self.history[*at].state == State::Lost;
                    let told = (0..self.history.len()).filter(is_lost);
                    self.browsers[browser].told.extend(told);
                }
                _ => self.take(browser, frame.data.parse().unwrap(), id),
            }
        }
        true
    }

    fn take(&mut self, browser: usize, at: usize, id: EventId) {
        let event = &self.history[at];
        assert!(event.id <= id && id <= self.hub.position());
        assert!(self.is_for(&self.browsers[browser], at), "event {at} is for others");
        let browser = &mut self.browsers[browser];
        assert!(browser.wanted.remove(&at), "event {at} was not expected");
        assert!(browser.seen.insert(at), "event {at} came twice");
        if let Some(key) = event.key {
            let key = (event.to, event.event_type, key);
            if let Some((_, newest)) = browser.newest.iter_mut().find(|(known, _)| *known == key) {
                assert!(*newest < at, "event {at} is older than {newest}");
                *newest = at;
            } else {
                browser.newest.push((key, at));
            }
        }
    }

    fn drain(&mut self, browser: usize) {
        while self.read(browser, usize::MAX) {}
        let Browser { stream: Some(_), wanted, told, .. } = &self.browsers[browser] else { return };
        for &at in wanted {
            let state = self.history[at].state;
            let is_settled = state == State::Replaced || state == State::Lost && told.contains(&at);
            assert!(is_settled, "event {at} is missing: {:?}", self.history[at]);
        }
    }
}

proptest! {
    #[test]
    fn values_then_changes_are_exact(settings in settings(), ops in vec(op(), 1..80)) {
        let mut model = Model::new(settings);
        for op in &ops {
            model.run(op);
        }
        for browser in 0..BROWSERS {
            model.drain(browser);
        }
    }
}

#[test]
fn slow_reader_of_many_values_gets_all() {
    let retain = Retain::default().events(1).keep_latest(3_000);
    let (hub, _) = hub_with(|hub| hub.retain(retain));
    publish_values(&hub, 0..3_000);
    let mut stream = with_latest(&hub);
    let mut text = String::new();
    for round in 0..20 {
        let Some(Some(item)) = poll(&mut stream) else { break };
        text += std::str::from_utf8(&item).unwrap();
        // Changes come between the items.
        hub.broadcast(price("changing", 3_000 + round)).unwrap();
    }
    text += &read(&mut stream);
    let got = data(&text);
    assert_eq!((got[..2_999].to_vec(), gaps(&text)), (names(0..2_999), vec![]));
}
