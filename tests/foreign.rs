//! Clocks, wakers, backplanes, tracing subscribers and iterators of the application: they may call
//! the hub, and a panic in one harms nobody else.

mod support;

#[path = "support/tracer.rs"]
mod tracer;

use std::cell::Cell;
use std::fmt::{self, Debug};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::backplane::{
    Backplane, Feed, Incoming, Loaded, Outgoing, Seat, SendError, UserChange,
};
use sse_hub::{
    Audience, EndReason, Event, EventId, Goodbye, Heartbeat, History, Hub, HubBuilder, Limits,
    ManualTimer, Presence, Retain, Sleep, Subscriber, Subscription, Timer,
};
use support::{SECOND, data, has_ended, poll, read, within};
use tracer::trace_to;
use tracing::Subscriber as Tracer;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt as _};
use tracing_subscriber::registry;

const LIMIT: Duration = Duration::from_secs(20);

thread_local! {
    /// Whether this thread calls the hub from foreign code: the calls below that call nothing.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Foreign code of one hub: calls the hub wherever it is called itself.
#[derive(Clone, Default)]
struct Meddler(Arc<Inner>);

#[derive(Default)]
struct Inner {
    hub: Mutex<Option<Hub>>,
    /// A lock of its own, as a simulated clock has.
    own: Mutex<()>,
    calls: AtomicUsize,
}

impl Debug for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meddler").finish_non_exhaustive()
    }
}

impl Meddler {
    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// Calls every method of the hub, from inside of a call of the hub.
    fn meddle(&self) {
        if IS_INSIDE.replace(true) {
            return;
        }
        drop(self.0.own.lock().unwrap());
        let hub = self.0.hub.lock().unwrap().clone();
        if let Some(hub) = hub {
            self.0.calls.fetch_add(1, Ordering::SeqCst);
            let _ = hub.publish(Audience::topic("foreign"), Event::new("x").data("foreign"));
            let _ = hub.publish_confirmed(Audience::user("foreign"), Event::new("x").data("f"));
            if let Ok(mut stream) = hub.subscribe(Subscriber::new().user("foreign").topic("f")) {
                let _ = (poll(&mut stream), poll(&mut stream));
                let _ = hub.join(stream.client_id(), "g");
                let _ = hub.leave(stream.client_id(), "g");
                let _ = hub.disconnect(stream.client_id(), Goodbye::from_static("out"));
            }
            let _ = hub.finish(Audience::topic("nobody"), Goodbye::from_static("done"));
            let _ = (hub.stats(), hub.users(), hub.is_online("ann"), hub.count(Audience::all()));
            let _ = hub.clients(Audience::topic("t"));
            if let Ok(mut watch) = hub.watch() {
                let _ = watch.next().now_or_never();
            }
            let _ = hub.users_in("t");
            if let Ok(mut watch) = hub.watch_topics() {
                let _ = watch.next().now_or_never();
            }
            if let Some(feed) = Feed::new(&hub) {
                let _ = (feed.head(), feed.ahead(), feed.take_changes(9), feed.take_users());
                let _ = (feed.is_closed(), feed.tail_limits(), feed.history_request());
                feed.change_users("foreign", [UserChange::Joined("far".into())]);
                feed.remove_instance("foreign");
            }
        }
        IS_INSIDE.set(false);
    }
}

/// A clock that meddles.
#[derive(Debug, Clone)]
struct Clock(ManualTimer, Meddler);

impl Timer for Clock {
    fn now(&self) -> Instant {
        self.1.meddle();
        self.0.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.1.meddle();
        Box::pin(MeddlingSleep(self.0.sleep_until(deadline), self.1.clone()))
    }
}

struct MeddlingSleep(Pin<Box<dyn Sleep>>, Meddler);

impl Sleep for MeddlingSleep {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.1.meddle();
        self.0.as_mut().poll(cx)
    }

    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.1.meddle();
        self.0.as_mut().reset(deadline);
    }
}

impl Drop for MeddlingSleep {
    fn drop(&mut self) {
        self.1.meddle();
    }
}

/// A waker that meddles when it wakes, and when its last clone is dropped.
struct MeddlingWaker(Meddler);

impl Wake for MeddlingWaker {
    fn wake(self: Arc<Self>) {
        self.0.meddle();
    }
}

impl Drop for MeddlingWaker {
    fn drop(&mut self) {
        self.0.meddle();
    }
}

impl Meddler {
    fn waker(&self) -> Waker {
        Waker::from(Arc::new(MeddlingWaker(self.clone())))
    }

    /// Polls with a waker that lives in the hub only.
    fn poll(&self, stream: &mut Subscription) -> bool {
        let waker = self.waker();
        stream.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending()
    }
}

/// A backplane that meddles, and takes everything.
#[derive(Debug, Clone)]
struct Engine(Meddler, Arc<Mutex<Vec<Outgoing>>>);

impl Backplane for Engine {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        self.0.meddle();
        self.1.lock().unwrap().push(event);
        Ok(())
    }

    fn on_client_ahead(&self) {
        self.0.meddle();
    }

    fn on_presence_changed(&self) {
        self.0.meddle();
    }

    fn supports_history(&self) -> bool {
        true
    }

    fn on_history_wanted(&self) {
        self.0.meddle();
    }

    fn on_close(&self) {
        self.0.meddle();
    }
}

impl<S: Tracer> Layer<S> for Meddler {
    fn on_event(&self, _: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        self.meddle();
    }
}

/// Which foreign code meddles.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Clock,
    Wakers,
    Backplane,
    Tracer,
    Everybody,
}

const EACH: [Who; 5] = [Who::Clock, Who::Wakers, Who::Backplane, Who::Tracer, Who::Everybody];

/// A hub with foreign code of a single kind.
struct Scene {
    hub: Hub,
    timer: ManualTimer,
    meddler: Meddler,
    /// Meddles if wakers do.
    wakers: Meddler,
    sent: Arc<Mutex<Vec<Outgoing>>>,
    _tracing: DefaultGuard,
}

impl Scene {
    fn new(who: Who, is_clustered: bool) -> Self {
        let meddler = Meddler::default();
        let of = |kind: Who| match who == kind || who == Who::Everybody {
            true => meddler.clone(),
            // Without a hub nothing happens.
            false => Meddler::default(),
        };
        let timer = ManualTimer::new();
        let sent = Arc::default();
        let mut hub = Hub::builder(Clock(timer.clone(), of(Who::Clock)))
            .presence(Presence::default().grace(SECOND).all_topics())
            .heartbeat(Heartbeat::default().every(3 * SECOND))
            .retain(Retain::default().events(4))
            .limits(Limits::default().per_user(3).displace_oldest(true))
            .history(History::default().max_wait(SECOND))
            .announce_outages(true)
            .stalled_after(30 * SECOND)
            .max_batch_bytes(1)
            .window(2);
        if is_clustered {
            hub = hub.backplane(Engine(of(Who::Backplane), Arc::clone(&sent)));
        }
        let tracing = trace_to(registry().with(of(Who::Tracer)));
        let hub = hub.build().unwrap();
        *meddler.0.hub.lock().unwrap() = Some(hub.clone());
        Self { hub, timer, wakers: of(Who::Wakers), meddler, sent, _tracing: tracing }
    }

    fn open(&self, user: &str) -> Subscription {
        self.hub.subscribe(Subscriber::new().user(user).topic("t")).unwrap()
    }

    /// Polls until the stream waits, each time with a waker of its own.
    fn drain(&self, stream: &mut Subscription) {
        for _ in 0..1000 {
            if self.wakers.poll(stream) || has_no_more(stream) {
                return;
            }
        }
        panic!("a stream without an end");
    }

    /// Delivers what the hub sent, as an engine does.
    fn deliver(&self, feed: &Feed) {
        let sent: Vec<Outgoing> = self.sent.lock().unwrap().drain(..).collect();
        for event in sent {
            let id = EventId::new(feed.head().epoch() + 1, 0);
            feed.append(id, Incoming::parse(event.entry()).unwrap());
            event.confirm(id);
        }
    }
}

fn has_no_more(stream: &mut Subscription) -> bool {
    matches!(poll(stream), None | Some(None))
}

/// Every public method, with streams that wait, lag, stall, are held, and end.
fn use_everything(scene: &Scene) {
    let Scene { hub, timer, meddler, wakers, .. } = scene;
    let (mut watch, mut topics) = (hub.watch().unwrap(), hub.watch_topics().unwrap());
    let waker = wakers.waker();
    let mut watched = || {
        let cx = &mut Context::from_waker(&waker);
        for _ in 0..100 {
            let is_pending = watch.poll_next_unpin(cx).is_pending();
            if topics.poll_next_unpin(cx).is_pending() && is_pending {
                return;
            }
        }
    };
    let mut streams: Vec<_> = ["ann", "bob", "cy"].map(|user| scene.open(user)).into();
    let publish = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            hub.broadcast(Event::new("x").data(number.to_string())).unwrap();
            let to = Audience::topic("t").except(Audience::user("bob"));
            drop(hub.publish_confirmed(to, Event::new("x").data("t")).unwrap());
        }
    };
    for round in 0..3 {
        streams.iter_mut().for_each(|stream| scene.drain(stream));
        watched();
        // At first no more than a window holds, which takes several reads.
        publish(0..1 + 4 * round);
        streams.iter_mut().for_each(|stream| scene.drain(stream));
        // The displaced, and clients that come with ids of all kinds.
        streams.extend((0..4).map(|_| scene.open("ann")));
        let ids = [EventId::new(1, 1), EventId::new(u64::MAX - 9, 0)];
        let resumed = ids.map(|id| hub.subscribe(Subscriber::new().resume(id)).unwrap());
        let iterator = (0..2).map(|part| {
            meddler.meddle();
            Event::new("snapshot").data(part.to_string())
        });
        let [first, second] = resumed;
        streams.push(first.with_snapshot(iterator).unwrap());
        streams.push(second);
        streams.push(hub.subscribe(Subscriber::new().replay_last(3).user("dee")).unwrap());
        let limited = Subscriber::new().expires_in(2 * SECOND);
        streams.push(hub.subscribe(limited).unwrap());
        timer.advance(3 * SECOND);
        watched();
        streams.iter_mut().for_each(|stream| scene.drain(stream));
        hub.join(Audience::user("bob"), "u").unwrap();
        hub.leave(Audience::user("bob"), "u").unwrap();
        let _ = (hub.users(), hub.is_online("ann"), hub.stats(), hub.count(Audience::all()));
        let _ = hub.clients(Audience::all());
        drop(streams.remove(0));
        hub.disconnect(Audience::user("cy"), Goodbye::from_static("out")).unwrap();
        hub.finish(Audience::user("dee"), Goodbye::from_static("done")).unwrap();
        streams.iter_mut().for_each(|stream| scene.drain(stream));
        publish(0..5);
        // Those that are not read stall.
        timer.advance(31 * SECOND);
        publish(0..1);
        watched();
    }
    let mut drain = hub.drain(SECOND);
    let waker = wakers.waker();
    let _ = drain.poll_unpin(&mut Context::from_waker(&waker));
    let _ = hub.subscribe(Subscriber::new()).unwrap_err();
    timer.advance(SECOND / 2);
    streams.iter_mut().for_each(|stream| scene.drain(stream));
    timer.advance(SECOND);
    let waker = wakers.waker();
    assert!(drain.poll_unpin(&mut Context::from_waker(&waker)).is_ready());
    hub.close();
    watched();
    drop(streams);
    assert_eq!(hub.stats().clients, 0);
    *meddler.0.hub.lock().unwrap() = None;
}

#[test]
fn foreign_code_may_call_the_hub() {
    for who in EACH.into_iter().filter(|&who| who != Who::Backplane) {
        within(LIMIT, move || {
            let scene = Scene::new(who, false);
            use_everything(&scene);
            assert!(scene.meddler.calls() > 10, "{who:?}: {}", scene.meddler.calls());
        });
    }
}

#[test]
fn foreign_code_may_call_a_hub_of_several() {
    for who in EACH {
        within(LIMIT, move || {
            let scene = Scene::new(who, true);
            let meddler = &scene.meddler;
            let feed = Feed::new(&scene.hub).unwrap();
            // Before the first load, and with iterators that call the hub.
            let early = scene.open("early");
            let tail = |meddler: &Meddler| {
                let meddler = meddler.clone();
                std::iter::once_with(move || {
                    meddler.meddle();
                    // An event for everybody.
                    let entry = Incoming::parse(b"\x01\0\0data: x\n").unwrap();
                    (EventId::new(20, 0), Duration::ZERO, entry)
                })
            };
            feed.load(Loaded::new(EventId::new(10, 0), tail(meddler)));
            feed.degraded(Some("gone"));
            scene.timer.advance(2 * SECOND);
            feed.degraded(Some("gone"));
            for number in 0..9 {
                scene.hub.broadcast(Event::new("x").data(number.to_string())).unwrap();
            }
            scene.deliver(&feed);
            // A client that is held.
            let mut held =
                scene.hub.subscribe(Subscriber::new().resume(EventId::new(5, 0))).unwrap();
            scene.drain(&mut held);
            let wanted = feed.history_request().expect("a client waits");
            feed.restore(wanted.upto, wanted.after, tail(meddler));
            feed.gone(wanted.upto);
            scene.drain(&mut held);
            feed.degraded(None);
            scene.timer.advance(2 * SECOND);
            feed.degraded(None);
            // Clients that are ahead.
            let _ahead = scene.hub.subscribe(Subscriber::new().resume(EventId::new(1 << 40, 0)));
            if let Some(mark) = feed.ahead() {
                feed.disown(mark, feed.head());
            }
            let users = ["ann", "far"].map(|user| {
                meddler.meddle();
                Seat::user(user)
            });
            feed.replace_users("other", users);
            let meddling = meddler.clone();
            let changes = ["a", "b"].map(|user| UserChange::Joined(user.into())).into_iter();
            feed.change_users("other", changes.inspect(|_| meddling.meddle()));
            feed.remove_instance("other");
            let _ = (feed.take_users(), feed.take_changes(3), feed.presence_limit());
            feed.skip_malformed();
            use_everything(&scene);
            scene.deliver(&feed);
            feed.load(Loaded::new(EventId::new(1 << 50, 0), tail(meddler)));
            drop((early, held));
            assert!(meddler.calls() > 10, "{who:?}: {}", meddler.calls());
        });
    }
}

#[test]
fn waker_of_a_manual_timer_may_use_it() {
    within(LIMIT, || {
        let timer = ManualTimer::new();
        let meddler = Meddler::default();
        let hub = Hub::builder(timer.clone()).build().unwrap();
        *meddler.0.hub.lock().unwrap() = Some(hub.clone());
        let mut sleep = timer.sleep_until(timer.now() + SECOND);
        for _ in 0..3 {
            // Each waker is dropped when the next takes its place.
            let waker = meddler.waker();
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        timer.advance(SECOND);
        drop(sleep);
        assert_eq!(meddler.calls(), 4, "two replaced, one woken and dropped");
        *meddler.0.hub.lock().unwrap() = None;
    });
}

/// Panics each time that it wakes.
struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

/// Runs foreign code that may panic, without a message for each.
fn quietly<T>(run: impl FnOnce() -> T) -> std::thread::Result<T> {
    panic::catch_unwind(AssertUnwindSafe(run))
}

fn event(data: &str) -> Event {
    Event::new("x").data(data)
}

#[test]
fn waker_that_panics_harms_nobody_else() {
    type Act = fn(&Hub, &ManualTimer);
    let ends: [(&str, Act); 6] = [
        ("publish", |hub, _| {
            hub.broadcast(event("1")).unwrap();
        }),
        ("disconnect", |hub, _| {
            hub.disconnect(Audience::all(), Goodbye::from_static("out")).unwrap();
        }),
        ("finish", |hub, _| {
            hub.finish(Audience::all(), Goodbye::from_static("done")).unwrap();
        }),
        ("drain", |hub, _| drop(hub.drain(SECOND))),
        ("close", |hub, _| hub.close()),
        ("drop", |_, _| {}),
    ];
    for bad in 0..5 {
        for (name, end) in ends {
            let timer = ManualTimer::new();
            let hub = Hub::builder(timer.clone()).heartbeat(None).build().unwrap();
            let woken = Arc::new(support::Woken::default());
            let mut streams: Vec<_> =
                (0..5).map(|_| hub.subscribe(Subscriber::new().user("u")).unwrap()).collect();
            for (number, stream) in streams.iter_mut().enumerate() {
                read(stream);
                let waker = match number == bad {
                    true => Waker::from(Arc::new(PanickingWaker)),
                    false => Waker::from(Arc::clone(&woken)),
                };
                assert!(stream.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
            }
            assert!(quietly(|| end(&hub, &timer)).is_ok(), "{name} returns");
            if name == "drop" {
                assert!(quietly(|| drop(streams)).is_ok());
                assert_eq!(hub.stats().clients, 0);
                continue;
            }
            assert_eq!(woken.count(), 4, "{name}");
            assert!(hub.publish(Audience::all(), event("2")).is_ok() || name == "close");
            for stream in &mut streams {
                let text = read(stream);
                assert_eq!(
                    data(&text).len(),
                    match name {
                        "publish" => 2,
                        "drain" => 1,
                        _ => 0,
                    }
                );
            }
            drop(streams);
            assert_eq!(hub.stats().clients, 0, "{name}");
        }
    }
}

#[test]
fn waker_of_a_drain_or_watch_that_panics_harms_nobody_else() {
    let timer = ManualTimer::new();
    let hub = Hub::builder(timer).presence(Presence::default()).build().unwrap();
    let (bad, woken) = (Waker::from(Arc::new(PanickingWaker)), Arc::new(support::Woken::default()));
    let mut watches: Vec<_> = (0..3).map(|_| hub.watch().unwrap()).collect();
    for (number, watch) in watches.iter_mut().enumerate() {
        let waker = if number == 1 { bad.clone() } else { Arc::clone(&woken).into() };
        assert!(watch.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    let stream = quietly(|| hub.subscribe(Subscriber::new().user("u")).unwrap()).unwrap();
    assert_eq!(woken.count(), 2);
    let mut drains: Vec<_> = (0..3).map(|_| hub.drain(SECOND)).collect();
    for (number, drain) in drains.iter_mut().enumerate() {
        let waker = if number == 1 { bad.clone() } else { Arc::clone(&woken).into() };
        assert!(drain.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    quietly(|| drop(stream)).unwrap();
    assert_eq!(woken.count(), 4);
}

/// Panics in the call that it is set to.
#[derive(Debug, Clone, Default)]
struct Fuse(Arc<AtomicUsize>);

impl Fuse {
    /// The call after this many panics.
    fn set(&self, calls: usize) {
        self.0.store(calls + 1, Ordering::SeqCst);
    }

    fn has_blown(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    fn burn(&self) {
        let left = self.0.load(Ordering::SeqCst);
        if left > 0 {
            self.0.store(left - 1, Ordering::SeqCst);
            assert!(left > 1, "foreign code that panics");
        }
    }
}

#[derive(Debug)]
struct Fused(ManualTimer, Fuse);

impl Timer for Fused {
    fn now(&self) -> Instant {
        self.1.burn();
        self.0.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.1.burn();
        self.0.sleep_until(deadline)
    }
}

impl<S: Tracer> Layer<S> for Fuse {
    fn on_event(&self, _: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        self.burn();
    }
}

#[derive(Debug)]
struct FusedEngine(Fuse);

impl Backplane for FusedEngine {
    fn send(&self, _: Outgoing) -> Result<(), SendError> {
        self.0.burn();
        Ok(())
    }

    fn on_client_ahead(&self) {
        self.0.burn();
    }

    fn on_presence_changed(&self) {
        self.0.burn();
    }

    fn on_close(&self) {
        self.0.burn();
    }
}

/// Runs an operation once for each call of foreign code in it, which then panics. Afterwards no
/// client may be registered without a stream, and the hub must go on.
fn burn_in(
    build: impl Fn(&Fuse, ManualTimer) -> (Hub, Option<DefaultGuard>),
    operation: impl Fn(&Hub, &ManualTimer, &mut Vec<Subscription>),
) -> usize {
    for calls in 0..200 {
        let (fuse, timer) = (Fuse::default(), ManualTimer::new());
        let (hub, _guard) = build(&fuse, timer.clone());
        let mut streams: Vec<_> =
            (0..2).map(|_| hub.subscribe(Subscriber::new().user("other")).unwrap()).collect();
        fuse.set(calls);
        let _ = quietly(|| operation(&hub, &timer, &mut streams));
        let has_blown = fuse.has_blown();
        fuse.0.store(0, Ordering::SeqCst);
        let here = hub.stats().clients;
        assert!(here <= streams.len(), "{here} clients, {} streams, {calls}", streams.len());
        let mut fresh = hub.subscribe(Subscriber::new().user("fresh")).ok();
        let _ = hub.broadcast(event("after"));
        if let Some(fresh) = &mut fresh {
            assert_eq!(data(&read(fresh)).len(), usize::from(Feed::new(&hub).is_none()));
        }
        drop((fresh, streams));
        assert_eq!(hub.stats().clients, 0, "{calls}");
        assert!(hub.clients(Audience::all()).is_empty());
        if !has_blown {
            return calls;
        }
    }
    panic!("an operation that never ends");
}

type Operation = fn(&Hub, &ManualTimer, &mut Vec<Subscription>);

/// What an application does with a hub.
fn operations() -> Vec<(&'static str, Operation)> {
    vec![
        ("subscribe", |hub, _, streams| {
            streams.push(hub.subscribe(Subscriber::new().user("ann")).unwrap());
        }),
        ("subscribe and drop", |hub, _, _| {
            drop(hub.subscribe(Subscriber::new().user("ann")).unwrap());
        }),
        ("ahead", |hub, _, streams| {
            let id = EventId::new(1 << 40, 0);
            streams.push(hub.subscribe(Subscriber::new().user("ann").resume(id)).unwrap());
        }),
        ("snapshot", |hub, _, streams| {
            let stream = hub.subscribe(Subscriber::new()).unwrap();
            streams.push(stream.with_snapshot([event("s")]).unwrap());
        }),
        ("drop", |_, _, streams| drop(streams.pop())),
        ("publish and read", |hub, _, streams| {
            hub.broadcast(event("1")).unwrap();
            streams.iter_mut().for_each(|stream| drop(read(stream)));
        }),
        ("disconnect", |hub, _, _| {
            hub.disconnect(Audience::all(), Goodbye::from_static("out")).unwrap();
        }),
        ("finish and read", |hub, _, streams| {
            hub.finish(Audience::all(), Goodbye::from_static("out")).unwrap();
            streams.iter_mut().for_each(|stream| drop(read(stream)));
        }),
        ("drain", |hub, timer, _| {
            let mut drain = hub.drain(SECOND);
            assert!((&mut drain).now_or_never().is_none());
            timer.advance(SECOND);
            assert!((&mut drain).now_or_never().is_some());
        }),
        ("presence", |hub, timer, streams| {
            drop(streams.pop());
            drop(streams.pop());
            timer.advance(60 * SECOND);
            let _ = (hub.is_online("other"), hub.users(), hub.watch());
            let _ = (hub.users_in("t"), hub.watch_topics());
        }),
        ("close", |hub, _, _| hub.close()),
    ]
}

fn settings(timer: impl Timer) -> HubBuilder {
    Hub::builder(timer).presence(Presence::default().grace(SECOND).all_topics()).max_batch_bytes(1)
}

#[test]
fn clock_that_panics_once_leaves_no_client() {
    for (name, operation) in operations() {
        let build =
            |fuse: &Fuse, timer| (settings(Fused(timer, fuse.clone())).build().unwrap(), None);
        let calls = burn_in(build, operation);
        assert!(calls > 0, "{name} reads the clock");
    }
}

#[test]
fn tracer_that_panics_once_leaves_no_client() {
    let mut burnt = 0;
    for (_, operation) in operations() {
        let build = |fuse: &Fuse, timer| {
            let guard = trace_to(registry().with(fuse.clone()));
            (settings(timer).build().unwrap(), Some(guard))
        };
        burnt += burn_in(build, operation);
    }
    assert!(burnt > 8, "{burnt}");
}

#[test]
fn backplane_that_panics_once_leaves_no_client() {
    let mut burnt = 0;
    for (_, operation) in operations() {
        let build = |fuse: &Fuse, timer| {
            let hub = settings(timer).backplane(FusedEngine(fuse.clone())).build().unwrap();
            let feed = Feed::new(&hub).unwrap();
            feed.load(Loaded::new(EventId::new(1, 0), []));
            (hub, None)
        };
        burnt += burn_in(build, operation);
    }
    assert!(burnt >= 5, "{burnt}");
}

/// An engine whose notifications panic.
#[derive(Debug)]
struct FusedNotifications(Fuse);

impl Backplane for FusedNotifications {
    fn send(&self, _: Outgoing) -> Result<(), SendError> {
        Ok(())
    }

    fn on_client_ahead(&self) {
        self.0.burn();
    }

    fn on_presence_changed(&self) {
        self.0.burn();
    }
}

#[test]
fn notification_that_panics_stops_no_operation() {
    let mut burnt = 0;
    for (name, operation) in operations() {
        for calls in 0..20 {
            let (fuse, timer) = (Fuse::default(), ManualTimer::new());
            let engine = FusedNotifications(fuse.clone());
            let hub = settings(timer.clone()).backplane(engine).build().unwrap();
            let feed = Feed::new(&hub).unwrap();
            feed.load(Loaded::new(EventId::new(1, 0), []));
            let mut streams: Vec<_> =
                (0..2).map(|_| hub.subscribe(Subscriber::new().user("other")).unwrap()).collect();
            // The next change is a notification only if these changes were taken.
            assert_eq!(feed.take_changes(9).len(), 1);
            fuse.set(calls);
            let done = quietly(|| operation(&hub, &timer, &mut streams));
            assert!(done.is_ok(), "{name}: {calls}");
            if !fuse.has_blown() {
                break;
            }
            burnt += 1;
        }
    }
    assert!(burnt >= 5, "{burnt}");
}

#[test]
fn tracer_that_panics_at_client_opened_ends_the_stream() {
    let fuse = Fuse::default();
    let _guard = trace_to(registry().with(fuse.clone()));
    let hub = settings(ManualTimer::new()).build().unwrap();
    fuse.set(0);
    assert!(quietly(|| hub.subscribe(Subscriber::new().user("ann"))).is_err());
    assert_eq!((hub.stats().clients, hub.stats().ended(EndReason::Left)), (0, 1));
    let mut stream = hub.subscribe(Subscriber::new().user("ann")).unwrap();
    read(&mut stream);
    assert!(!has_ended(&mut stream));
}

#[test]
fn clock_that_panics_does_not_keep_a_dropped_stream() {
    for is_unwinding in [false, true] {
        let fuse = Fuse::default();
        let timer = Fused(ManualTimer::new(), fuse.clone());
        let hub = settings(timer).build().unwrap();
        let stream = hub.subscribe(Subscriber::new().user("ann")).unwrap();
        fuse.set(0);
        let dropped = quietly(|| {
            let _stream = stream;
            // A panic while a thread unwinds aborts the process.
            assert!(!is_unwinding, "a task that panics");
        });
        assert_eq!(dropped.is_err(), is_unwinding);
        assert!(fuse.has_blown());
        assert_eq!(hub.stats().clients, 0);
    }
}

#[test]
fn clock_that_panics_does_not_keep_a_hub_open() {
    let fuse = Fuse::default();
    let hub = settings(Fused(ManualTimer::new(), fuse.clone())).build().unwrap();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    fuse.set(0);
    assert!(quietly(|| drop(hub)).is_ok());
    read(&mut stream);
    assert!(has_ended(&mut stream), "the last handle closes the hub");
}
