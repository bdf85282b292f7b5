//! `Hub::read_with_history`: pages of events that only the backplane still has, against a naive
//! model.

mod support;

#[path = "support/order.rs"]
mod order;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::backplane::{Backplane, Feed, Incoming, Loaded, Outgoing, SendError};
use sse_hub::{
    Audience, Event, EventId, Heartbeat, History, Hub, HubBuilder, LastEventId, ManualTimer, Page,
    ReadError, Retain, Subscriber,
};

use order::{Entry, Instance, Order, late};
use support::{SECOND, Woken, data, names, read};

/// A read that a test polls by hand.
type Reading<'a> = Pin<Box<dyn Future<Output = Result<Page, ReadError>> + Send + 'a>>;

/// Begins a read of every event after `after` for a client without names.
fn begin(hub: &Hub, after: EventId) -> Reading<'_> {
    Box::pin(async move { hub.read_with_history(&Subscriber::new(), after, 1000).await })
}

fn poll(reading: &mut Reading<'_>) -> Option<Result<Page, ReadError>> {
    reading.now_or_never()
}

/// Polls with a new counting waker, and asserts that the read waits.
fn wait(reading: &mut Reading<'_>) -> Arc<Woken> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let polled = reading.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "the read must wait: {polled:?}");
    woken
}

fn page(reading: &mut Reading<'_>) -> Page {
    poll(reading).expect("the read must be ready").unwrap()
}

fn texts(page: &Page) -> Vec<String> {
    page.events.iter().map(|event| event.data.clone()).collect()
}

/// Returns the position right after event `number`.
fn after(order: &Order, number: usize) -> EventId {
    order.entries[number - 1].id
}

/// Looks back once, for up to `count` events. Returns whether the hub requested events.
fn bring(instance: &mut Instance, order: &Order, count: usize) -> bool {
    let is_wanted = instance.look_back(order, count);
    instance.bring();
    is_wanted
}

#[test]
fn page_has_events_that_left_the_log() {
    let (order, mut instance) = late(9, |hub| hub);
    let hub = instance.hub.clone();
    let in_log = hub.read(&Subscriber::new(), after(&order, 1), 1000).unwrap();
    assert_eq!((texts(&in_log), in_log.truncated), (names(8..=9), true));

    let mut reading = begin(&hub, after(&order, 1));
    let woken = wait(&mut reading);
    assert!(bring(&mut instance, &order, 3));
    assert_eq!(woken.count(), 0, "three of the six missing events are there");
    let woken = wait(&mut reading);
    assert!(bring(&mut instance, &order, 9));
    assert_eq!(woken.count(), 1);
    let whole = page(&mut reading);
    assert_eq!((texts(&whole), whole.truncated, whole.has_more), (names(2..=9), false, false));
    assert_eq!(whole.next, after(&order, 9));
    assert!(!instance.look_back(&order, 9), "no reader waits for older events");

    // The following pages need no further request, also without the wait.
    let who = Subscriber::new();
    let first = hub.read_with_history(&who, after(&order, 1), 3).now_or_never().unwrap().unwrap();
    assert_eq!((texts(&first), first.truncated, first.has_more), (names(2..=4), false, true));
    let second = hub.read(&who, first.next, 3).unwrap();
    assert_eq!((texts(&second), second.truncated), (names(5..=7), false));
}

#[test]
fn reads_keep_the_older_events_for_ten_seconds() {
    let (order, mut instance) = late(9, |hub| hub.heartbeat(Heartbeat::default().every(SECOND)));
    let hub = instance.hub.clone();
    let mut reading = begin(&hub, after(&order, 1));
    wait(&mut reading);
    instance.look_back_for_all(&order);
    assert!(!page(&mut reading).truncated);
    let mut stream = instance.subscribe(LastEventId::none());
    read(&mut stream);
    let mut pass = |seconds: u32| {
        instance.timer.advance(seconds * SECOND);
        // A heartbeat does the housekeeping.
        read(&mut stream);
        hub.stats().retained
    };
    assert_eq!(pass(9), 8);
    assert!(!hub.read(&Subscriber::new(), after(&order, 1), 1).unwrap().truncated);
    assert_eq!(pass(9), 8, "read nine seconds ago");
    // A reader without a position needs no older events.
    hub.read(&Subscriber::new(), LastEventId::none(), 1).unwrap();
    assert_eq!(pass(9), 2);
}

#[test]
fn readers_and_streams_share_the_older_events() {
    let (order, mut instance) = late(9, |hub| hub);
    let hub = instance.hub.clone();
    let mut far = begin(&hub, after(&order, 1));
    let mut near = begin(&hub, after(&order, 5));
    let mut in_log = begin(&hub, after(&order, 7));
    assert_eq!(texts(&page(&mut in_log)), names(8..=9), "the log has these");
    let (far_woken, near_woken) = (wait(&mut far), wait(&mut near));
    let mut stream = instance.subscribe(after(&order, 3));
    assert_eq!(data(&read(&mut stream)), [""; 0]);
    assert!(bring(&mut instance, &order, 2));
    assert_eq!((far_woken.count(), near_woken.count()), (0, 1));
    assert_eq!(texts(&page(&mut near)), names(6..=9));
    assert!(bring(&mut instance, &order, 2));
    assert_eq!(data(&read(&mut stream)), names(4..=9));
    assert_eq!(far_woken.count(), 0);
    assert!(bring(&mut instance, &order, 2));
    assert_eq!(far_woken.count(), 1);
    assert_eq!(texts(&page(&mut far)), names(2..=9));
    assert_eq!(hub.stats().restored, 6, "each event is brought once");
}

#[test]
fn trimmed_events_truncate_the_page() {
    let (mut order, mut instance) = late(9, |hub| hub);
    let (hub, position) = (instance.hub.clone(), after(&order, 1));
    order.trim(4);
    let mut reading = begin(&hub, position);
    wait(&mut reading);
    instance.look_back_for_all(&order);
    let rest = page(&mut reading);
    assert_eq!((texts(&rest), rest.truncated), (names(5..=9), true));
    // The hub knows the loss by now.
    let rest = page(&mut begin(&hub, position));
    assert_eq!((texts(&rest), rest.truncated), (names(5..=9), true));
}

#[test]
fn history_limit_bounds_the_page() {
    let (order, mut instance) = late(20, |hub| hub.history(History::default().events(5)));
    let hub = instance.hub.clone();
    let mut reading = begin(&hub, after(&order, 1));
    let mut within = begin(&hub, after(&order, 13));
    wait(&mut reading);
    wait(&mut within);
    instance.look_back_for_all(&order);
    let (all, within) = (page(&mut reading), page(&mut within));
    assert_eq!((texts(&all), all.truncated), (names(14..=20), true));
    assert_eq!((texts(&within), within.truncated), (names(14..=20), false));
}

#[test]
fn dropped_reader_frees_its_place() {
    let (order, instance) = late(9, |hub| hub);
    let hub = instance.hub.clone();
    let (mut far, mut near) = (begin(&hub, after(&order, 1)), begin(&hub, after(&order, 5)));
    wait(&mut far);
    let waker = wait(&mut near);
    let wanted = || instance.feed.history_request().map(|request| request.after);
    assert_eq!(wanted(), Some(after(&order, 1)));
    drop(far);
    assert_eq!(wanted(), Some(after(&order, 5)), "the dropped reader wants nothing");
    drop(near);
    assert_eq!(wanted(), None);
    assert_eq!(Arc::strong_count(&waker), 1, "the hub must drop the waker");
}

#[test]
fn too_many_readers_are_refused() {
    const MOST: usize = 4096;
    let (order, mut instance) = late(9, |hub| hub);
    let hub = instance.hub.clone();
    let mut readings: Vec<_> = (0..MOST).map(|_| begin(&hub, after(&order, 1))).collect();
    for reading in &mut readings {
        assert_eq!(poll(reading), None);
    }
    assert_eq!(poll(&mut begin(&hub, after(&order, 1))), Some(Err(ReadError::Busy)));
    assert_eq!(texts(&page(&mut begin(&hub, after(&order, 7)))), names(8..=9), "needs no wait");
    readings.pop();
    let mut next = begin(&hub, after(&order, 1));
    assert_eq!(poll(&mut next), None, "a dropped reader leaves its place");
    readings.push(next);
    instance.look_back_for_all(&order);
    assert!(readings.iter_mut().all(|reading| texts(&page(reading)) == names(2..=9)));
}

#[test]
fn wait_ends_after_its_longest_time() {
    let wait_for = |hub: HubBuilder| hub.history(History::default().max_wait(5 * SECOND));
    let (order, mut instance) = late(9, wait_for);
    let hub = instance.hub.clone();
    let mut reading = begin(&hub, after(&order, 1));
    let woken = wait(&mut reading);
    instance.timer.advance(4 * SECOND);
    assert_eq!(woken.count(), 0);
    let woken = wait(&mut reading);
    // A part of the events is there, and does not prolong the wait.
    assert!(bring(&mut instance, &order, 3));
    instance.timer.advance(SECOND);
    assert_eq!(woken.count(), 1);
    let rest = page(&mut reading);
    assert_eq!((texts(&rest), rest.truncated), (names(5..=9), true));
    drop(reading);
    assert!(!instance.look_back(&order, 9), "the reader has gone on");
}

#[test]
fn wait_ends_with_the_deadline_of_the_reader() {
    let (order, instance) = late(9, |hub| hub);
    let (hub, at) = (instance.hub.clone(), after(&order, 1));
    let who = Subscriber::new().expires_in(2 * SECOND);
    let mut reading: Reading<'_> = Box::pin(hub.read_with_history(&who, at, 10));
    let woken = wait(&mut reading);
    instance.timer.advance(2 * SECOND);
    assert_eq!((woken.count(), poll(&mut reading)), (1, Some(Err(ReadError::Expired))));
}

#[test]
fn closed_hub_returns_the_events_of_the_log() {
    let (order, instance) = late(9, |hub| hub);
    let hub = instance.hub.clone();
    let mut reading = begin(&hub, after(&order, 1));
    let woken = wait(&mut reading);
    hub.close();
    assert_eq!(woken.count(), 1);
    for rest in [page(&mut reading), page(&mut begin(&hub, after(&order, 1)))] {
        assert_eq!((texts(&rest), rest.truncated), (names(8..=9), true));
    }
}

#[test]
fn replaced_order_ends_the_wait() {
    let (order, instance) = late(9, |hub| hub);
    let hub = instance.hub.clone();
    let mut reading = begin(&hub, after(&order, 1));
    let woken = wait(&mut reading);
    instance.begin_anew(EventId::new(100, 0));
    assert_eq!(woken.count(), 1);
    let rest = page(&mut reading);
    assert_eq!((rest.events.len(), rest.truncated), (0, true));
    assert!(rest.next >= EventId::new(100, 0));
    drop(reading);
    assert_eq!(instance.feed.history_request(), None);
}

#[test]
fn reads_without_a_loss_never_wait() {
    let (hub, _) = support::hub_with(|hub| hub.retain(Retain::default().events(2)));
    let start = hub.position();
    support::publish(&hub, 1..=9);
    let rest = page(&mut begin(&hub, start));
    assert_eq!((texts(&rest), rest.truncated), (names(8..=9), true), "no backplane");

    let (order, instance) = late(9, |hub| hub.history(None));
    let rest = page(&mut begin(&instance.hub, after(&order, 1)));
    assert_eq!((texts(&rest), rest.truncated), (names(8..=9), true), "no history");

    let (order, instance) = late(9, |hub| hub);
    let (hub, who) = (&instance.hub, Subscriber::new());
    let ready = |who: &Subscriber, after: LastEventId| {
        hub.read_with_history(who, after, 10).now_or_never().expect("no wait").unwrap()
    };
    let first = ready(&who, LastEventId::none());
    assert_eq!((texts(&first), first.truncated), (names(8..=9), false));
    assert_eq!(ready(&who, "garbage".into()), hub.read(&who, "garbage", 10).unwrap());
    let ahead = EventId::new(9_000, 0);
    assert_eq!(ready(&who, ahead.into()), hub.read(&who, ahead, 10).unwrap());
    // The lost events are not for this reader.
    let none = ready(&who.event_types(["other"]), after(&order, 6).into());
    assert_eq!((none.events.len(), none.truncated), (0, false));
    assert_eq!(instance.feed.history_request(), None);

    let early = Instance::with(|hub| hub);
    assert_eq!(poll(&mut begin(&early.hub, EventId::new(1, 1))), Some(Err(ReadError::NotLoaded)));
}

#[test]
fn a_waker_may_call_the_hub() {
    /// Reads the hub when woken, as an executor that polls at once does.
    struct Reads(Hub, AtomicUsize);

    impl Wake for Reads {
        fn wake(self: Arc<Self>) {
            let page = self.0.read(&Subscriber::new(), LastEventId::none(), 1000).unwrap();
            self.1.store(page.events.len(), Ordering::SeqCst);
        }
    }

    support::within(60 * SECOND, || {
        let (order, mut instance) = late(9, |hub| hub);
        let hub = instance.hub.clone();
        let mut reading = begin(&hub, after(&order, 1));
        let reads = Arc::new(Reads(hub.clone(), AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&reads));
        assert_eq!(reading.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        instance.look_back_for_all(&order);
        assert_eq!(reads.1.load(Ordering::SeqCst), 8);
    });
}

/// Brings the older events at once, within the call that asks for them.
#[derive(Debug, Clone, Default)]
struct Eager {
    feed: Arc<OnceLock<Feed>>,
    events: Arc<Mutex<Vec<Outgoing>>>,
}

impl Backplane for Eager {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        self.events.lock().unwrap().push(event);
        Ok(())
    }

    fn supports_history(&self) -> bool {
        true
    }

    fn on_history_wanted(&self) {
        let feed = self.feed.get().unwrap();
        let request = feed.history_request().unwrap();
        let events = self.events.lock().unwrap();
        let piece: Vec<_> = (request.after.seq() + 1..=request.upto.seq())
            .map(|seq| {
                let entry = Incoming::parse(events[seq as usize - 1].entry()).unwrap();
                (EventId::new(1, seq), Duration::ZERO, entry)
            })
            .collect();
        feed.restore(request.upto, request.after, piece);
    }
}

#[test]
fn events_may_come_before_the_first_poll() {
    let engine = Eager::default();
    let hub = Hub::builder(ManualTimer::new()).backplane(engine.clone()).build().unwrap();
    engine.feed.set(Feed::new(&hub).unwrap()).unwrap();
    support::publish(&hub, 1..=5);
    engine.feed.get().unwrap().load(Loaded::new(EventId::new(1, 5), []));
    let all = page(&mut begin(&hub, EventId::new(1, 1)));
    assert_eq!((texts(&all), all.truncated), (names(2..=5), false));
}

const READERS: usize = 2;
/// The longest wait of the model's hub, and more.
const LONG: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
enum Op {
    Publish {
        user: Option<u8>,
    },
    Trim {
        count: usize,
    },
    /// Begins a read, so many events back.
    Begin {
        reader: usize,
        user: Option<u8>,
        back: usize,
        limit: usize,
    },
    Poll {
        reader: usize,
    },
    Drop {
        reader: usize,
    },
    LookBack {
        count: usize,
    },
    Bring,
    Pass {
        time: Duration,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let user = || prop::option::of(0..2u8);
    prop_oneof![
        8 => user().prop_map(|user| Op::Publish { user }),
        1 => (1..6usize).prop_map(|count| Op::Trim { count }),
        6 => (0..READERS, user(), 1..25usize, 1..30usize)
            .prop_map(|(reader, user, back, limit)| Op::Begin { reader, user, back, limit }),
        6 => (0..READERS).prop_map(|reader| Op::Poll { reader }),
        1 => (0..READERS).prop_map(|reader| Op::Drop { reader }),
        4 => (1..5usize).prop_map(|count| Op::LookBack { count }),
        4 => Just(Op::Bring),
        1 => prop_oneof![Just(LONG), Just(Duration::from_secs(11))]
            .prop_map(|time| Op::Pass { time }),
    ]
}

/// A read that has begun.
struct Begun<'a> {
    reading: Reading<'a>,
    user: Option<u8>,
    after: EventId,
    limit: usize,
    /// Counts since the last poll.
    woken: Arc<Woken>,
    since: Duration,
}

/// Every event that was placed, with the user that the event is for.
struct World {
    history: Vec<(EventId, Option<u8>)>,
    /// Events up to here are trimmed from the order.
    trimmed: EventId,
    /// The largest number of events that the hub holds after looking back.
    room: usize,
    now: Duration,
}

impl World {
    fn check(&self, begun: &Begun<'_>, page: &Page) -> Result<(), TestCaseError> {
        let Begun { user, after, limit, since, .. } = begun;
        let is_for = |to: &Option<u8>| to.is_none() || to == user;
        let wanted = self.history.iter().filter(|(id, to)| id > after && is_for(to));
        let wanted: Vec<EventId> = wanted.map(|(id, _)| *id).collect();
        let got: Vec<EventId> = page.events.iter().map(|event| event.id).collect();
        let missed = wanted.iter().take_while(|id| Some(*id) != got.first()).count();
        let (missed, rest) = match got.is_empty() {
            // The page has no event, so every wanted event up to its end is missed.
            true => wanted.split_at(wanted.iter().filter(|id| **id <= page.next).count()),
            false => wanted.split_at(missed),
        };
        let expected = &rest[..rest.len().min(*limit)];
        prop_assert_eq!(&got, expected, "after {}", after);
        prop_assert_eq!(page.has_more, rest.len() > *limit);
        prop_assert!(missed.is_empty() || page.truncated, "unreported: {:?}", missed);
        if page.truncated && self.now < *since + LONG {
            let cannot_be_had = |id: EventId| {
                let later = self.history.iter().filter(|(other, _)| *other > id).count();
                id <= self.trimmed || later >= self.room
            };
            match missed.last() {
                Some(&newest) => prop_assert!(cannot_be_had(newest), "{newest} can be had"),
                // The log does not know for whom an event was that the log lacks.
                None => {
                    let is_before =
                        |id: &EventId| got.first().map_or(*id <= page.next, |first| id < first);
                    let mut others = self.history.iter().map(|(id, _)| *id);
                    let is_lacking = |id| id > *after && is_before(&id) && cannot_be_had(id);
                    prop_assert!(others.any(is_lacking), "nothing is missing");
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn pages_have_every_event_that_can_be_had(
        retained in 1..8usize,
        older in prop_oneof![1..8usize, Just(1000)],
        ops in vec(op(), 1..60),
    ) {
        let mut order = Order::default();
        let history = History::default().events(older).max_wait(LONG);
        let set = |hub: HubBuilder| {
            hub.retain(Retain::default().events(retained).age(None)).history(history)
        };
        let mut instance = Instance::with(set);
        instance.settle(&mut order);
        let hub = instance.hub.clone();
        let mut world = World {
            history: Vec::new(),
            trimmed: EventId::new(0, 0),
            room: retained + older,
            now: Duration::ZERO,
        };
        let mut readers: [Option<Begun<'_>>; READERS] = Default::default();
        let publish = |instance: &mut Instance, order: &mut Order, user: Option<u8>| {
            let audience = user.map_or_else(Audience::all, Audience::user);
            instance.hub.publish(audience, Event::new("n").data("x")).unwrap();
            instance.flush(order);
            instance.read(order, usize::MAX);
            (order.last, user)
        };
        // So that most reads begin before the log.
        for _ in 0..10 {
            world.history.push(publish(&mut instance, &mut order, None));
        }
        for op in ops {
            match op {
                Op::Publish { user } => {
                    world.history.push(publish(&mut instance, &mut order, user));
                }
                Op::Trim { count } => {
                    let trimmed = order.trim(count);
                    world.trimmed = trimmed.last().map_or(world.trimmed, |last| last.id);
                    prop_assert!(trimmed.iter().all(|it| matches!(it.entry, Entry::Event(_))));
                }
                Op::Begin { reader, user, back, limit } => {
                    let at = world.history.len().saturating_sub(back);
                    let after = world.history[at].0;
                    let mut who = Subscriber::new();
                    if let Some(user) = user {
                        who = who.user(user);
                    }
                    let hub = &hub;
                    readers[reader] = Some(Begun {
                        reading: Box::pin(async move {
                            hub.read_with_history(&who, after, limit).await
                        }),
                        user,
                        after,
                        limit,
                        woken: Arc::default(),
                        since: world.now,
                    });
                }
                Op::Poll { reader } => poll_reader(&mut readers[reader], &world)?,
                Op::Drop { reader } => readers[reader] = None,
                Op::LookBack { count } => {
                    instance.look_back(&order, count);
                }
                Op::Bring => instance.bring(),
                Op::Pass { time } => {
                    instance.timer.advance(time);
                    world.now += time;
                }
            }
            prop_assert!(hub.stats().retained <= retained + older);
        }
        for reader in &mut readers {
            instance.look_back_for_all(&order);
            poll_reader(reader, &world)?;
            // Events that were evicted before the poll may have to be brought again.
            instance.look_back_for_all(&order);
            poll_reader(reader, &world)?;
            prop_assert!(reader.is_none(), "the read waits, although everything was brought");
        }
        prop_assert_eq!(instance.feed.history_request(), None);
    }
}

/// Polls a read, and checks its page. A read that waits must have been woken before it is ready.
fn poll_reader(reader: &mut Option<Begun<'_>>, world: &World) -> Result<(), TestCaseError> {
    let Some(begun) = reader else { return Ok(()) };
    let waits = Arc::strong_count(&begun.woken) > 1;
    let woken = std::mem::take(&mut begun.woken);
    let waker = Waker::from(Arc::clone(&begun.woken));
    match begun.reading.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Pending => {}
        Poll::Ready(page) => {
            prop_assert!(!waits || woken.count() > 0, "ready, and not woken");
            world.check(begun, &page.unwrap())?;
            *reader = None;
        }
    }
    Ok(())
}
