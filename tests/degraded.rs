//! Clients receive a notice if the order of events is unreachable for a while.

mod support;

use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::StreamExt as _;
use sse_hub::backplane::{Backplane, Feed, Incoming, Loaded, Outgoing, SendError};
use sse_hub::{Event, EventId, Heartbeat, Hub, HubBuilder, ManualTimer, Subscriber, Subscription};
use support::{Counting, SECOND, frames, last_id, poll, read, wait, within};

const LOST: &str = "event: hub:degraded\ndata: {\"degraded\":true}\n\n";
const FOUND: &str = "event: hub:degraded\ndata: {\"degraded\":false}\n\n";

/// An engine that accepts every event and places none.
#[derive(Debug)]
struct Nowhere;

impl Backplane for Nowhere {
    fn send(&self, _: Outgoing) -> Result<(), SendError> {
        Ok(())
    }
}

struct Instance {
    hub: Hub,
    feed: Feed,
    timer: ManualTimer,
}

impl Instance {
    /// Builds a hub with an engine that has found the end of the order.
    fn new() -> Self {
        let instance = Self::with(|hub: HubBuilder| hub.announce_outages(true));
        instance.load();
        instance
    }

    fn with(set: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        let timer = ManualTimer::new();
        let builder = Hub::builder(timer.clone()).backplane(Nowhere).heartbeat(None);
        let hub = set(builder).build().unwrap();
        let feed = Feed::new(&hub).unwrap();
        Self { hub, feed, timer }
    }

    fn load(&self) {
        self.feed.load(Loaded::new(EventId::new(7, 7), []));
        self.feed.degraded(None);
    }

    fn open(&self) -> Subscription {
        let mut stream = self.hub.subscribe(Subscriber::new()).unwrap();
        assert!(poll(&mut stream).unwrap().unwrap().starts_with(b"event: hub:open\n"));
        stream
    }

    /// Reports the outage as an engine does: at once, and again after the delay.
    fn lose(&self) {
        self.feed.degraded(Some("gone"));
        self.timer.advance(SECOND);
        self.feed.degraded(Some("gone"));
    }

    fn find(&self) {
        self.feed.degraded(None);
        self.timer.advance(SECOND);
        self.feed.degraded(None);
    }
}

#[test]
fn lasting_outage_is_announced_once() {
    let here = Instance::new();
    let mut stream = here.open();
    let woken = wait(&mut stream);
    here.feed.degraded(Some("gone"));
    here.timer.advance(SECOND - Duration::from_millis(1));
    here.feed.degraded(Some("gone"));
    assert_eq!(
        (woken.count(), read(&mut stream)),
        (0, String::new()),
        "the outage is shorter than a second"
    );

    let woken = wait(&mut stream);
    here.timer.advance(Duration::from_millis(1));
    here.feed.degraded(Some("gone"));
    assert_eq!((woken.count(), &*read(&mut stream)), (1, LOST));
    let woken = wait(&mut stream);
    here.lose();
    assert_eq!(
        (woken.count(), read(&mut stream)),
        (0, String::new()),
        "the outage was announced already"
    );

    let woken = wait(&mut stream);
    here.find();
    assert_eq!((woken.count(), &*read(&mut stream)), (1, FOUND));
    here.find();
    assert_eq!(read(&mut stream), "");
}

#[test]
fn announcements_are_off_by_default() {
    let here = Instance::with(|hub| hub);
    here.load();
    let mut stream = here.open();
    here.lose();
    assert!(here.hub.stats().degraded);
    assert_eq!(read(&mut stream), "");
    assert_eq!(read(&mut here.open()), "");
}

#[test]
fn newcomer_gets_outage_between_opening_and_events() {
    let here = Instance::new();
    here.lose();
    let mut stream = here.open();
    assert_eq!(read(&mut stream), LOST);
    here.find();
    assert_eq!(read(&mut here.open()), "");

    here.lose();
    let snapshot = Event::new("snapshot").data("1");
    let mut stream =
        here.hub.subscribe(Subscriber::new()).unwrap().with_snapshot([snapshot]).unwrap();
    let told: Vec<_> = frames(&read(&mut stream)).into_iter().map(|frame| frame.event).collect();
    assert_eq!(told, ["hub:open", "snapshot", "hub:degraded"]);
}

#[test]
fn order_never_found_is_an_outage() {
    let here = Instance::with(|hub: HubBuilder| hub.announce_outages(true));
    let mut stream = here.open();
    // The engine answers, but does not know the end of the order.
    here.find();
    assert_eq!(read(&mut stream), LOST);
    here.load();
    here.find();
    assert!(read(&mut stream).starts_with(FOUND));
}

#[test]
fn heartbeat_before_the_order_has_no_position() {
    let heartbeat = Heartbeat::default().every(10 * SECOND).position(true);
    let instance = Instance::with(|hub| hub.heartbeat(heartbeat));
    let mut stream = instance.open();
    assert!(poll(&mut stream).is_none());
    instance.timer.advance(10 * SECOND);
    assert_eq!(read(&mut stream), "event: hub:heartbeat\ndata: {}\n\n");
    instance.load();
    let gap = read(&mut stream);
    assert_eq!(last_id(&gap), instance.hub.position());
}

#[test]
fn short_outage_is_not_announced() {
    let here = Instance::new();
    let mut stream = here.open();
    let woken = wait(&mut stream);
    for _ in 0..1_000 {
        here.feed.degraded(Some("gone"));
        here.timer.advance(Duration::from_millis(700));
        here.feed.degraded(Some("gone"));
        here.feed.degraded(None);
        here.timer.advance(Duration::from_millis(700));
    }
    assert_eq!((woken.count(), read(&mut stream)), (0, String::new()));
}

#[test]
fn unread_stream_gets_only_latest_state() {
    let here = Instance::new();
    let (mut knows, mut does_not) = (here.open(), here.open());
    here.lose();
    here.find();
    assert_eq!(read(&mut knows), "", "the state did not change");
    here.lose();
    assert_eq!(read(&mut knows), LOST);
    here.find();
    here.lose();
    assert_eq!(read(&mut knows), "", "it knows");
    assert_eq!(read(&mut does_not), LOST);
}

#[test]
fn busy_stream_keeps_timer_and_position() {
    let timer = Counting::default();
    let kept = Kept::default();
    let builder = Hub::builder(timer.clone()).backplane(kept.clone());
    let hub = builder.announce_outages(true).build().unwrap();
    let feed = Feed::new(&hub).unwrap();
    feed.load(Loaded::new(EventId::new(7, 0), []));
    feed.degraded(None);
    hub.broadcast(Event::new("n").data("1")).unwrap();
    let entry = kept.0.lock().unwrap().pop().unwrap();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let mut text = String::new();
    // Each poll has an item: the notice must come before the next event, not after the last.
    let mut poll =
        || text += std::str::from_utf8(&support::poll(&mut stream).unwrap().unwrap()).unwrap();
    poll();
    for number in 1..=4 {
        feed.append(EventId::new(7, number), Incoming::parse(&entry).unwrap());
        if number == 3 {
            feed.degraded(Some("gone"));
            timer.timer.advance(SECOND);
            feed.degraded(Some("gone"));
            poll();
        }
        poll();
    }
    let told = frames(&text);
    let events: Vec<_> = told.iter().map(|frame| &*frame.event).collect();
    assert_eq!(events, ["hub:open", "n", "n", "hub:degraded", "n", "n"]);
    assert_eq!(told[3].id, None, "the notice must not carry an id");
    assert_eq!(support::last_id(&text), EventId::new(7, 4));
    assert_eq!(timer.touched.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// An engine that keeps published events.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<std::sync::Mutex<Vec<bytes::Bytes>>>);

impl Backplane for Kept {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        self.0.lock().unwrap().push(event.entry().clone());
        Ok(())
    }
}

/// A waker that publishes, subscribes and reads statistics.
struct Meddler(Hub);

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        self.0.broadcast(Event::new("n")).unwrap();
        drop(self.0.subscribe(Subscriber::new()).unwrap());
        assert!(self.0.stats().degraded);
    }
}

#[test]
fn ten_thousand_waiters_wake_without_a_lock() {
    within(Duration::from_secs(60), || {
        let here = Instance::new();
        let mut streams: Vec<_> = (0..10_000).map(|_| here.open()).collect();
        let meddler = Waker::from(Arc::new(Meddler(here.hub.clone())));
        for stream in &mut streams {
            assert!(stream.poll_next_unpin(&mut Context::from_waker(&meddler)).is_pending());
        }
        here.lose();
        for stream in &mut streams {
            assert_eq!(read(stream), LOST);
        }
    });
}

#[test]
fn ended_stream_sends_no_notice() {
    let here = Instance::new();
    let mut stream = here.open();
    here.hub.close();
    assert!(support::has_ended(&mut stream));
    here.lose();
    assert!(support::has_ended(&mut stream));
}
