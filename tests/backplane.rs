//! Several hubs on a shared order, held in a list, under random schedules.
//!
//! Browsers move between hubs, lose connections within frames, and reconnect. Hubs read late,
//! restart, and look back late, partially or never. The order is rolled back and trimmed. The model
//! checks the order, the absence of repeats, that every loss is covered by a gap, and that no gap
//! covers events that the order holds and the hub has room for.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::backplane::{Backplane, Feed, Incoming, Loaded, Outgoing, SendError};
use sse_hub::{
    Audience, Event, EventId, Goodbye, History, Hub, LastEventId, ManualTimer, PublishError,
    Retain, Subscriber, Subscription,
};

#[path = "support/order.rs"]
mod order;
mod support;

use order::{Entry, Instance, Order, Placed};
use support::{data, end, frames, gaps, last_id, names, read, wait};

fn two() -> (Order, Instance, Instance) {
    let mut order = Order::default();
    let mut here = Instance::new(Retain::default());
    let mut there = Instance::new(Retain::default());
    here.read(&mut order, 0);
    there.read(&mut order, 0);
    (order, here, there)
}

#[test]
fn client_resumes_on_instance_that_read_less() {
    let (mut order, mut here, mut there) = two();
    let mut stream = here.subscribe(LastEventId::none());
    ["1", "2", "3"].into_iter().for_each(|name| here.broadcast(name));
    assert_eq!(
        data(&read(&mut stream)),
        [""; 0],
        "an event must not be delivered before it is placed"
    );
    here.settle(&mut order);
    let text = read(&mut stream);
    assert_eq!(data(&text), ["1", "2", "3"]);

    there.read(&mut order, 1);
    let mut stream = there.subscribe(last_id(&text));
    assert!(stream.is_resumed());
    there.settle(&mut order);
    assert_eq!(data(&read(&mut stream)), [""; 0], "the client must not receive an event twice");
    there.broadcast("4");
    there.settle(&mut order);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["4".to_owned()], vec![]));
}

#[test]
fn id_beyond_the_end_gets_a_gap() {
    let (mut order, here, mut there) = two();
    here.broadcast("1");
    let mut stream = there.subscribe(EventId::new(9_000, 7));
    there.settle(&mut order);
    let text = read(&mut stream);
    assert_eq!(gaps(&text), ["unknown"]);
    assert!(last_id(&text) < EventId::new(9_000, 7), "the gap must carry a fresh id");
    there.broadcast("2");
    there.settle(&mut order);
    assert_eq!(data(&read(&mut stream)), ["2"]);
}

#[test]
fn only_a_later_end_disowns_clients_ahead() {
    let (mut order, mut here, there) = two();
    here.broadcast("1");
    here.settle(&mut order);
    let earlier = there.subscribe(EventId::new(9_000, 7));
    let mark = there.feed.ahead().unwrap();
    let end = order.last;
    here.broadcast("2");
    here.settle(&mut order);
    let mut later = there.subscribe(order.last);
    there.feed.disown(mark, end);
    assert_eq!(gaps(&read(&mut later)), [""; 0]);
    drop(earlier);
    assert!(there.feed.ahead().is_some());
    drop(later);
    assert!(there.feed.ahead().is_none(), "disconnected clients must not be tracked");
}

#[test]
fn engine_is_not_asked_about_clients_at_the_end() {
    #[derive(Debug, Clone, Default)]
    struct Asked(Arc<AtomicUsize>);

    impl Backplane for Asked {
        fn send(&self, _: Outgoing) -> Result<(), SendError> {
            Ok(())
        }

        fn on_client_ahead(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let asked = Asked::default();
    let hub = Hub::builder(ManualTimer::new()).backplane(asked.clone()).build().unwrap();
    let end = EventId::new(5, 0);
    Feed::new(&hub).unwrap().load(Loaded::new(end, []));
    let resume = |id| hub.subscribe(Subscriber::new().resume(id)).unwrap();
    let _streams = [hub.subscribe(Subscriber::new()).unwrap(), resume(end)];
    assert_eq!(asked.0.load(Ordering::Relaxed), 0);
    let _ahead = resume(EventId::new(6, 0));
    assert_eq!(asked.0.load(Ordering::Relaxed), 1);
}

#[test]
fn client_waits_until_the_order_is_found() {
    let mut order = Order::default();
    let mut early = Instance::new(Retain::default());
    early.settle(&mut order);
    ["1", "2"].into_iter().for_each(|name| early.broadcast(name));
    early.settle(&mut order);
    let second = order.last;

    let mut late = Instance::new(Retain::default());
    assert!(late.hub.stats().degraded);
    let mut fresh = late.subscribe(LastEventId::none());
    let mut known = late.subscribe(order.entries[0].id);
    let mut garbage = late.subscribe("garbage");
    for stream in [&mut fresh, &mut known, &mut garbage] {
        read(stream);
    }
    let woken = wait(&mut fresh);
    late.settle(&mut order);
    assert_eq!(woken.count(), 1);
    assert!(!late.hub.stats().degraded);
    assert_eq!(late.hub.stats().resets, 0, "the first order replaces no other");
    let text = read(&mut fresh);
    assert_eq!(
        (gaps(&text), data(&text), last_id(&text)),
        (vec!["unknown".into()], vec![], second)
    );
    let text = read(&mut known);
    assert_eq!((gaps(&text), data(&text)), (vec![], vec!["2".to_owned()]));
    assert_eq!(gaps(&read(&mut garbage)), ["unknown"]);
}

#[test]
fn loaded_tail_begins_after_its_floor() {
    let (mut order, mut here, _) = two();
    ["1", "2", "3"].into_iter().for_each(|name| here.broadcast(name));
    here.settle(&mut order);
    let late = Instance::new(Retain::default());
    let floor = order.entries[0].id;
    let mut known = late.subscribe(floor);
    read(&mut known);
    // The engine repeats an entry, and begins with the entry at the floor.
    let tail = [0, 1, 1, 2].map(|at| {
        let Entry::Event(entry) = &order.entries[at].entry else { panic!("an event") };
        (order.entries[at].id, Duration::ZERO, Incoming::parse(entry).unwrap())
    });
    late.feed.load(Loaded::new(floor, tail));
    let text = read(&mut known);
    assert_eq!((data(&text), gaps(&text)), (names(2..=3), vec![]));
    let page = late.hub.read(&Subscriber::new(), LastEventId::none(), 9).unwrap();
    assert_eq!(page.events.iter().map(|event| &event.data).collect::<Vec<_>>(), ["2", "3"]);
}

#[test]
fn new_order_with_older_ids_is_a_gap_for_all() {
    let (mut order, mut here, _) = two();
    let mut stream = here.subscribe(LastEventId::none());
    here.broadcast("1");
    here.settle(&mut order);
    let last = last_id(&read(&mut stream));
    // The new order has events with ids up to the last id of the old order.
    here.begin_anew(EventId::new(1, 0));
    let text = read(&mut stream);
    assert_eq!(gaps(&text), ["reset"], "a client that had read everything");
    assert!(last_id(&text) > last);
    assert_eq!(gaps(&read(&mut here.subscribe(last))), ["evicted"], "a client that returns");
    // The last id of an epoch has the first id of the next epoch after it.
    here.begin_anew(EventId::new(7, u64::MAX));
    here.begin_anew(EventId::new(1, 0));
    assert_eq!((gaps(&read(&mut stream)).len(), here.hub.position()), (1, EventId::new(8, 0)));
}

#[test]
fn ending_stream_gets_nothing_of_a_new_order() {
    let (mut order, mut here, _) = two();
    let [mut done, mut behind] =
        ["a", "b"].map(|user| here.hub.subscribe(Subscriber::new().user(user)).unwrap());
    read(&mut done);
    read(&mut behind);
    here.hub.send_to_user("b", Event::new("n").data("old")).unwrap();
    here.hub.finish(Audience::all(), Goodbye::from_static("over")).unwrap();
    here.settle(&mut order);
    let before = order.last;
    order.entries.clear();
    order.last = EventId::new(0, 0);
    here.read(&mut order, usize::MAX);
    here.broadcast("new");
    here.settle(&mut order);
    assert!(order.last > before);
    let text = read(&mut done);
    assert_eq!((data(&text), gaps(&text), end(&text).as_deref()), (vec![], vec![], Some("over")));
    let text = read(&mut behind);
    assert_eq!((data(&text), gaps(&text)), (vec![], vec!["reset".to_owned()]));
    assert_eq!(end(&text).as_deref(), Some("over"), "the unread event is of the old order");
}

#[test]
fn rolled_back_history_sends_fresh_gap_to_all() {
    let (mut order, mut here, mut there) = two();
    let mut streams = [here.subscribe(LastEventId::none()), there.subscribe(LastEventId::none())];
    ["1", "2"].into_iter().for_each(|name| here.broadcast(name));
    here.settle(&mut order);
    there.settle(&mut order);
    let before: Vec<_> = streams.iter_mut().map(|stream| last_id(&read(stream))).collect();

    order.entries.clear();
    order.last = EventId::new(0, 0);
    there.read(&mut order, usize::MAX);
    here.read(&mut order, usize::MAX);
    here.broadcast("3");
    here.settle(&mut order);
    there.settle(&mut order);
    for (stream, before) in streams.iter_mut().zip(before) {
        let text = read(stream);
        assert_eq!(gaps(&text), ["reset"]);
        assert_eq!(data(&text), ["3"]);
        assert!(frames(&text)[0].id > Some(before), "ids must never decrease");
    }
    assert_eq!((here.hub.stats().resets, there.hub.stats().resets), (1, 1));
    let mut back = here.subscribe(EventId::new(1, 0));
    assert_eq!(gaps(&read(&mut back)), ["evicted"], "a reconnecting client must get the gap too");
}

#[test]
fn confirmation_has_the_id_on_the_wire() {
    let (mut order, here, mut there) = two();
    let mut stream = there.subscribe(LastEventId::none());
    read(&mut stream);
    let event = || Event::new("n").data("1");
    let mut confirmation = here.hub.publish_confirmed(Audience::all(), event()).unwrap();
    assert!((&mut confirmation).now_or_never().is_none());
    here.flush(&mut order);
    let id = confirmation.now_or_never().unwrap().unwrap();
    there.settle(&mut order);
    assert_eq!(last_id(&read(&mut stream)), id);

    let lost = here.hub.publish_confirmed(Audience::all(), event()).unwrap();
    here.outbox.0.lock().unwrap().clear();
    assert!(lost.now_or_never().unwrap().is_err(), "the result is unknown for ever");
}

#[test]
fn full_outbox_is_an_error() {
    let (_, here, _) = two();
    let _tab = here.subscribe(LastEventId::none());
    let receipt = here.hub.broadcast(Event::new("n")).unwrap();
    assert_eq!(receipt.matched(), 1);
    let confirmation = here.hub.publish_confirmed(Audience::all(), Event::new("n")).unwrap();
    assert_eq!(confirmation.id(), None, "the event is not placed yet");
    while here.outbox.0.lock().unwrap().len() < 64 {
        here.hub.broadcast(Event::new("n")).unwrap();
    }
    assert_eq!(here.hub.broadcast(Event::new("n")), Err(PublishError::Backlog));
}

#[test]
fn malformed_entries_are_counted_and_skipped() {
    let (mut order, mut here, _) = two();
    let mut stream = here.subscribe(LastEventId::none());
    for garbage in [&b""[..], b"\x01", b"garbage", b"\x01\x00\x00event: hub:open\ndata: {}\n"] {
        assert!(Incoming::parse(garbage).is_err());
        here.feed.skip_malformed();
    }
    assert_eq!(here.hub.stats().malformed, 4);
    let is_unknown = |entry: &[u8]| Incoming::parse(entry).unwrap_err().is_unknown_format();
    assert!(is_unknown(b"\x7f of a later version") && !is_unknown(b"\x01 damaged"));
    here.broadcast("1");
    here.settle(&mut order);
    assert_eq!(data(&read(&mut stream)), ["1"]);
}

const HUBS: usize = 2;
const NOBODY: u8 = u8::MAX;
const BROWSERS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Publish {
        hub: usize,
        user: Option<u8>,
    },
    /// Adds an entry that no hub can decode.
    Command {
        hub: usize,
    },
    Flush {
        hub: usize,
    },
    Read {
        hub: usize,
        count: usize,
    },
    Look {
        hub: usize,
    },
    Restart {
        hub: usize,
    },
    /// Looks for older events.
    LookBack {
        hub: usize,
        count: usize,
    },
    /// Delivers the older events that were found.
    Bring {
        hub: usize,
    },
    /// Advances time until hubs drop older events that no client waits for.
    Pass {
        hub: usize,
    },
    /// Removes the newest entries of the order.
    RollBack {
        count: usize,
    },
    /// Removes the oldest entries.
    Trim {
        count: usize,
    },
    Connect {
        browser: usize,
        hub: usize,
        forged: Option<u8>,
    },
    Leave {
        browser: usize,
    },
    Take {
        browser: usize,
        keep: Option<f64>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (hub, browser) = (|| 0..HUBS, || 0..BROWSERS);
    prop_oneof![
        8 => (hub(), prop::option::of(0..2u8)).prop_map(|(hub, user)| Op::Publish { hub, user }),
        2 => hub().prop_map(|hub| Op::Command { hub }),
        6 => hub().prop_map(|hub| Op::Flush { hub }),
        8 => (hub(), 0..4usize).prop_map(|(hub, count)| Op::Read { hub, count }),
        3 => hub().prop_map(|hub| Op::Look { hub }),
        1 => hub().prop_map(|hub| Op::Restart { hub }),
        4 => (hub(), 1..5usize).prop_map(|(hub, count)| Op::LookBack { hub, count }),
        4 => hub().prop_map(|hub| Op::Bring { hub }),
        2 => hub().prop_map(|hub| Op::Pass { hub }),
        1 => (1..6usize).prop_map(|count| Op::RollBack { count }),
        1 => (1..10usize).prop_map(|count| Op::Trim { count }),
        5 => (browser(), hub(), prop::option::weighted(0.1, 0..20u8))
            .prop_map(|(browser, hub, forged)| Op::Connect { browser, hub, forged }),
        1 => browser().prop_map(|browser| Op::Leave { browser }),
        6 => (browser(), prop::option::weighted(0.3, 0.0..1.0f64))
            .prop_map(|(browser, keep)| Op::Take { browser, keep }),
    ]
}

#[derive(Default)]
struct Browser {
    user: u8,
    stream: Option<Subscription>,
    last: Option<EventId>,
    /// The browser has every event up to here, or got a gap for it. `None` before the first gap.
    at: Option<EventId>,
    /// Lost events that the browser neither received from a hub that held them nor got a gap for.
    owed: BTreeSet<EventId>,
    seen: BTreeSet<EventId>,
    gaps: usize,
    feed: Option<Feed>,
    /// With topic limits, a gap covers all losses so far, although events newer than some of them
    /// follow.
    told: EventId,
}

/// An event that was placed at some time.
#[derive(Debug, PartialEq)]
struct Past {
    id: EventId,
    user: Option<u8>,
    /// Rolled back. Hubs may still hold the event.
    gone: bool,
    /// Trimmed from the order. Hubs may still hold the event.
    trimmed: bool,
}

/// All instances, browsers and events.
#[derive(Debug, Default)]
struct World {
    history: Vec<Past>,
    /// The largest number of events a hub holds after looking back.
    room: usize,
    /// The order never went backwards.
    is_straight: bool,
    limits_topics: bool,
}

impl World {
    /// Returns the newest event that a gap reported as lost, but that the order of a hub at `head`
    /// holds and the hub has room for.
    fn could_be_had(&self, browser: &Browser, after: EventId, gap: EventId) -> Option<&Past> {
        let head = browser.head();
        let has_room = |id| {
            let since = |past: &&Past| id < past.id && past.id <= head;
            self.history.iter().filter(since).count() < self.room
        };
        self.history.iter().rev().find(|past| {
            after < past.id
                && past.id <= gap
                && !past.trimmed
                && is_for(browser, past.user)
                && has_room(past.id)
        })
    }
}

fn is_for(browser: &Browser, user: Option<u8>) -> bool {
    user.is_none_or(|user| user == browser.user)
}

impl Browser {
    /// Returns how far the hub has read.
    fn head(&self) -> EventId {
        self.feed.as_ref().expect("the browser is connected").head()
    }

    fn take(&mut self, keep: Option<f64>, world: &World) -> Result<bool, TestCaseError> {
        let history = &world.history;
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let bytes = match stream.next().now_or_never() {
            Some(Some(bytes)) => bytes,
            None => return Ok(false),
            Some(None) => {
                self.stream = None;
                return Ok(false);
            }
        };
        let mut text = std::str::from_utf8(&bytes).unwrap();
        if let Some(keep) = keep {
            let cut = (text.len() as f64 * keep) as usize;
            text = &text[..text[..cut].rfind("\n\n").map_or(0, |end| end + 2)];
            self.stream = None;
        }
        let mut newest = None;
        for frame in frames(text) {
            let id = frame.id.expect("an id");
            prop_assert!(newest.is_none_or(|newest| newest < id || frame.event == "hub:gap"));
            newest = Some(id);
            match &*frame.event {
                "hub:open" => {
                    if self.last.is_none() {
                        self.at = Some(id).filter(|&id| id != EventId::new(0, 0));
                    }
                }
                "hub:gap" => {
                    if world.is_straight
                        && frame.reason() == Some("evicted")
                        && let Some(at) = self.at
                    {
                        prop_assert_eq!(world.could_be_had(self, at, id), None, "after {}", at);
                    }
                    let is_back = self.at.is_some_and(|at| id < at);
                    self.owed.retain(|&owed| owed > id && !is_back);
                    self.at = Some(id);
                    self.gaps += 1;
                    if world.limits_topics {
                        self.told = self.head();
                    }
                }
                _ => {
                    let at = self.at.expect("the stream must begin with a gap or a position");
                    let skipped = history.iter().find(|past| {
                        !past.gone
                            && at.max(self.told) < past.id
                            && past.id < id
                            && is_for(self, past.user)
                    });
                    prop_assert_eq!(skipped, None, "between {} and {}", at, id);
                    prop_assert!(
                        history.iter().any(|past| past.id == id && is_for(self, past.user))
                    );
                    prop_assert!(id > at);
                    self.owed.remove(&id);
                    prop_assert!(self.seen.insert(id), "{} came twice", id);
                    self.at = Some(id);
                }
            }
            self.last = Some(id);
        }
        Ok(true)
    }
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    retained: usize,
    per_topic: Option<usize>,
    older: usize,
}

fn settings() -> impl Strategy<Value = Settings> {
    let retained = prop_oneof![1..8usize, Just(1_000)];
    let older = prop_oneof![Just(0), 1..8usize, Just(1_000)];
    (retained, prop::option::weighted(0.3, 1..3usize), older).prop_map(
        |(retained, per_topic, older)| {
            let per_topic = per_topic.map(|limit| limit.min(retained));
            Settings { retained, per_topic, older }
        },
    )
}

fn run(ops: &[Op], settings: Settings) -> Result<(), TestCaseError> {
    let Settings { retained, per_topic, older } = settings;
    let mut order = Order::default();
    let retain = Retain::default().events(retained).age(None);
    let retain = per_topic.map_or(retain, |limit| retain.per_topic(limit));
    let history = History::default().events(older).max_wait(Duration::from_secs(24 * 3600));
    let history = Some(history).filter(|_| older > 0);
    let new = || Instance::with(|hub| hub.retain(retain).history(history));
    let mut hubs: Vec<_> = (0..HUBS).map(|_| new()).collect();
    hubs.iter_mut().for_each(|hub| hub.read(&mut order, 0));
    let mut browsers: Vec<_> =
        (0..BROWSERS).map(|at| Browser { user: at as u8 % 2, ..Browser::default() }).collect();
    let mut world = World {
        // A topic's limit can keep events that are older than evicted events.
        room: if older > 0 && per_topic.is_none() { retained + older } else { older },
        is_straight: true,
        limits_topics: per_topic.is_some(),
        ..World::default()
    };
    let mut users: Vec<VecDeque<Option<u8>>> = vec![VecDeque::new(); HUBS];
    let mut is_quiet = world.room.max(if per_topic.is_none() { retained } else { 0 }) > ops.len();

    let flush = |hub: usize,
                 hubs: &mut Vec<Instance>,
                 order: &mut Order,
                 users: &mut Vec<VecDeque<Option<u8>>>,
                 world: &mut World| {
        let before = order.entries.len();
        hubs[hub].flush(order);
        let placed = order.entries[before..].iter().map(|placed| placed.id);
        let users = users[hub].drain(..);
        let past = |(id, user)| Past { id, user, gone: false, trimmed: false };
        world.history.extend(placed.zip(users).map(past));
    };

    for op in ops {
        match *op {
            Op::Publish { hub, user } => {
                let name = ["0", "1"];
                let to =
                    user.map_or_else(Audience::all, |user| Audience::topic(name[user as usize]));
                if hubs[hub].hub.publish(to, Event::new("n")).is_ok() {
                    users[hub].push_back(user);
                }
            }
            Op::Command { hub } => {
                let nobody = Audience::user("nobody");
                if hubs[hub].hub.disconnect(&nobody, Goodbye::from_static("out")).is_ok() {
                    users[hub].push_back(Some(NOBODY));
                }
            }
            Op::Flush { hub } => flush(hub, &mut hubs, &mut order, &mut users, &mut world),
            Op::Read { hub, count } => hubs[hub].read(&mut order, count),
            Op::Look { hub } => hubs[hub].look(&order),
            Op::LookBack { hub, count } => {
                hubs[hub].look_back(&order, count);
            }
            Op::Bring { hub } => hubs[hub].bring(),
            Op::Pass { hub } => hubs[hub].timer.advance(Duration::from_secs(11)),
            Op::Trim { count } => {
                is_quiet = false;
                // The entry that reports the loss may be trimmed before a hub reads it.
                browsers.iter_mut().for_each(|browser| browser.owed.clear());
                for placed in order.trim(count) {
                    let past = world.history.iter_mut().find(|past| past.id == placed.id);
                    past.into_iter().for_each(|past| past.trimmed = true);
                }
            }
            Op::Restart { hub } => {
                hubs[hub] = new();
                users[hub].clear();
                // No hub may be left that knows of the loss.
                browsers.iter_mut().for_each(|browser| browser.owed.clear());
                is_quiet = false;
            }
            Op::RollBack { count } => {
                is_quiet = false;
                world.is_straight = false;
                let gone = order.roll_back(count);
                let is_mark = |placed: &&Placed| matches!(placed.entry, Entry::Mark);
                let read = hubs.iter().filter_map(|hub| hub.at).max().unwrap_or_default();
                if gone.iter().filter(is_mark).any(|mark| mark.id > read) {
                    // Two losses at once: the entry that reports the first is trimmed before a hub
                    // reads it.
                    browsers.iter_mut().for_each(|browser| browser.owed.clear());
                }
                for past in &mut world.history {
                    if gone.iter().any(|placed| placed.id == past.id) {
                        past.gone = true;
                        let is_known = past.id <= read;
                        for browser in &mut browsers {
                            let is_missed = browser.at.is_some_and(|at| at < past.id);
                            if is_known && is_missed && is_for(browser, past.user) {
                                browser.owed.insert(past.id);
                            }
                        }
                    }
                }
            }
            Op::Connect { browser, hub, forged } => {
                let Browser { user, stream, last, at, seen, owed, feed, .. } =
                    &mut browsers[browser];
                *feed = Some(hubs[hub].feed.clone());
                if let Some(ahead) = forged {
                    // The browser claims every event up to there, which may have become true.
                    is_quiet = false;
                    *last = Some(EventId::new(order.clock + u64::from(ahead), 3));
                    *at = *last;
                    owed.clear();
                    seen.clear();
                }
                let resume = last.map_or_else(LastEventId::none, LastEventId::from);
                let who = Subscriber::new().topic(["0", "1"][*user as usize]).resume(resume);
                *stream = Some(hubs[hub].hub.subscribe(who).unwrap());
            }
            Op::Leave { browser } => browsers[browser].stream = None,
            Op::Take { browser, keep } => {
                browsers[browser].take(keep, &world)?;
            }
        }
    }

    // After recovery, every browser must have all events or a gap.
    for _ in 0..2 {
        for hub in 0..HUBS {
            flush(hub, &mut hubs, &mut order, &mut users, &mut world);
        }
        hubs.iter_mut().for_each(|hub| hub.settle(&mut order));
    }
    for browser in &mut browsers {
        while browser.take(None, &world)? {}
        hubs.iter_mut().for_each(|hub| hub.look_back_for_all(&order));
        while browser.take(None, &world)? {}
        if browser.stream.is_none() {
            let last = browser.last.map_or_else(LastEventId::none, LastEventId::from);
            let who = Subscriber::new().topic(["0", "1"][browser.user as usize]).resume(last);
            browser.stream = Some(hubs[0].hub.subscribe(who).unwrap());
            browser.feed = Some(hubs[0].feed.clone());
            hubs[0].settle(&mut order);
            while browser.take(None, &world)? {}
            hubs[0].look_back_for_all(&order);
        }
        while browser.take(None, &world)? {}
        prop_assert_eq!(browser.owed.first(), None, "a lost event without a gap");
        let at = browser.at.expect("a position");
        let missing = world
            .history
            .iter()
            .find(|past| !past.gone && past.id > at && is_for(browser, past.user));
        prop_assert_eq!(missing, None, "an event is missing at {}", at);
        if is_quiet {
            prop_assert_eq!(browser.gaps, 0, "a gap without a loss");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn moving_browsers_get_all_events_or_gaps(
        ops in vec(op(), 1..80), settings in settings(),
    ) {
        run(&ops, settings)?;
    }
}
