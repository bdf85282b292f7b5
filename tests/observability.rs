//! The `tracing` events, their levels and fields. No lock is held while events are emitted.

mod support;

#[path = "support/order.rs"]
mod order;

#[path = "support/tracer.rs"]
mod tracer;

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use order::{Instance, Order};
use sse_hub::{
    Audience, Event, EventStream, Goodbye, Hub, HubBuilder, Limits, ManualTimer, Presence,
    Subscriber, Subscription,
};
use support::within;
use tracer::trace_to;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Subscriber as Tracer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::{filter::LevelFilter, registry};

const SECOND: Duration = Duration::from_secs(1);

/// Formats events as `LEVEL message field=value ...`, with the fields in their original order.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: Tracer> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with("sse_hub") {
            return;
        }
        assert_eq!(metadata.target(), "sse_hub");
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields } = line;
        self.0.lock().unwrap().push(format!("{} {message}{fields}", metadata.level()));
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.message, "{value:?}").unwrap(),
            name => write!(self.fields, " {name}={value:?}").unwrap(),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.fields, " {}={value}", field.name()).unwrap();
    }
}

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Captures this thread's events until the guard is dropped.
fn captured(level: Level) -> (Lines, DefaultGuard) {
    let lines = Lines::default();
    let layer = lines.clone().with_filter(LevelFilter::from_level(level));
    (lines, trace_to(registry().with(layer)))
}

fn builder(timer: &ManualTimer) -> HubBuilder {
    Hub::builder(timer.clone()).heartbeat(None)
}

fn drained(stream: &mut Subscription) {
    while let Some(Some(_)) = stream.next().now_or_never() {}
}

#[test]
fn client_events_are_debug_without_names() {
    let (lines, _guard) = captured(Level::TRACE);
    let timer = ManualTimer::new();
    let limits = Limits::default().per_user(1);
    let presence = Presence::default().grace(SECOND);
    let hub = builder(&timer).limits(limits).presence(presence).build().unwrap();
    let built = lines.take();
    assert_eq!(built.len(), 1);
    assert!(built[0].starts_with("DEBUG hub built epoch="), "{built:?}");

    let secret = || Subscriber::new().user("secret-user").session("secret-session");
    let stream = hub.subscribe(secret().topic("secret-topic")).unwrap();
    let client = stream.client_id();
    assert_eq!(
        lines.take(),
        [format!("DEBUG client opened client={client} has_user=true start=fresh")]
    );
    hub.subscribe(secret()).unwrap_err();
    assert_eq!(lines.take(), ["DEBUG client refused cause=user-full"]);
    hub.send_to_user("secret-user", Event::new("x").data("secret")).unwrap();
    assert!(lines.take().is_empty(), "events must not be logged at debug");
    drop(stream);
    assert_eq!(
        lines.take(),
        [format!("DEBUG client ended client={client} has_user=true reason=left")]
    );

    let resumed = hub.subscribe(Subscriber::new().resume("garbage")).unwrap();
    let client = resumed.client_id();
    assert_eq!(
        lines.take(),
        [format!("DEBUG client opened client={client} has_user=false start=gap")]
    );
    hub.disconnect(Audience::all(), Goodbye::from_static("secret")).unwrap();
    let ended = format!("DEBUG client ended client={client} has_user=false reason=disconnected");
    assert_eq!(lines.take(), [ended]);
    drop(resumed);
    assert!(lines.take().is_empty(), "the client had ended before");
}

#[test]
fn displacing_client_is_logged_after_displaced_client() {
    let (lines, _guard) = captured(Level::DEBUG);
    let limits = Limits::default().per_user(1).displace_oldest(true);
    let hub = builder(&ManualTimer::new()).limits(limits).build().unwrap();
    let old = hub.subscribe(Subscriber::new().user("ann")).unwrap();
    lines.take();
    let new = hub.subscribe(Subscriber::new().user("ann")).unwrap();
    let (old, new) = (old.client_id(), new.client_id());
    assert_eq!(
        lines.take(),
        [
            format!("DEBUG client ended client={old} has_user=true reason=displaced"),
            format!("DEBUG client opened client={new} has_user=true start=fresh"),
        ]
    );
}

#[test]
fn info_level_is_independent_of_client_count() {
    let (lines, _guard) = captured(Level::INFO);
    let timer = ManualTimer::new();
    let hub = builder(&timer).limits(Limits::default().clients(100)).build().unwrap();
    let mut streams: Vec<_> =
        (0..1000).filter_map(|_| hub.subscribe(Subscriber::new()).ok()).collect();
    assert_eq!(streams.len(), 100);
    streams.truncate(3);
    assert!(lines.take().is_empty());

    let mut drain = hub.drain(SECOND * 10);
    assert_eq!(lines.take(), ["INFO drain started clients=3 over_ms=10000"]);
    assert!((&mut drain).now_or_never().is_none());
    timer.advance(SECOND * 10);
    streams.iter_mut().take(2).for_each(drained);
    assert!(lines.take().is_empty());
    assert!((&mut drain).now_or_never().is_some());
    assert_eq!(lines.take(), ["INFO drain ended cut=1 took_ms=10000"]);

    hub.close();
    hub.close();
    drop(hub);
    assert_eq!(lines.take(), ["INFO hub closed clients=0 published=0"]);
}

#[test]
fn closed_hub_reports_what_its_backplane_took() {
    let (lines, _guard) = captured(Level::INFO);
    for (tried, taken) in [(0, 0), (1, 1), (63, 63), (64, 64), (70, 64)] {
        for is_read in [false, true] {
            let (mut order, mut other) = (Order::default(), Instance::with(|hub| hub));
            let mut hub = Instance::with(|hub| hub);
            other.settle(&mut order);
            hub.settle(&mut order);
            // Events of another instance, and commands, are not published by this hub.
            (0..5).for_each(|_| other.broadcast("other"));
            other.settle(&mut order);
            hub.settle(&mut order);
            let mut confirmations = Vec::new();
            for number in 0..tried {
                let event = Event::new("x").data(number.to_string());
                let sent = match number % 2 {
                    0 => hub.hub.broadcast(event).is_ok(),
                    _ => {
                        let sent = hub.hub.publish_confirmed(Audience::all(), event);
                        sent.map(|sent| confirmations.push(sent)).is_ok()
                    }
                };
                assert_eq!(sent, number < taken);
            }
            if is_read {
                hub.settle(&mut order);
                let _ = hub.hub.join(Audience::all(), "t").unwrap();
                hub.hub.disconnect(Audience::all(), Goodbye::from_static("out")).unwrap();
                hub.settle(&mut order);
            }
            lines.take();
            hub.hub.close();
            let closed = format!("INFO hub closed clients=0 published={taken}");
            assert_eq!(lines.take(), [closed], "{tried} {is_read}");
        }
    }
}

/// Calls every method of the hub from a subscriber, like a subscriber that publishes its lines.
struct Uses(Arc<Mutex<Option<Hub>>>);

impl<S: Tracer> Layer<S> for Uses {
    fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(hub) = self.0.lock().unwrap().clone() else { return };
        let _ = hub.broadcast(Event::new("line"));
        drop(hub.subscribe(Subscriber::new().user("tracer")));
        let _ = (hub.stats(), hub.users(), hub.watch());
    }
}

#[test]
fn tracer_that_uses_the_hub_does_not_deadlock() {
    within(SECOND * 10, || {
        let timer = ManualTimer::new();
        let place = Arc::new(Mutex::new(None));
        let _guard = trace_to(registry().with(Uses(Arc::clone(&place))));
        let limits = Limits::default().per_user(1).displace_oldest(true);
        let hub = builder(&timer)
            .limits(limits)
            .presence(Presence::default().grace(SECOND))
            .stalled_after(SECOND)
            .build()
            .unwrap();
        *place.lock().unwrap() = Some(hub.clone());

        let open = || hub.subscribe(Subscriber::new().user("ann")).unwrap();
        let _displaced = open();
        let _disconnected = open();
        hub.disconnect(Audience::all(), Goodbye::from_static("bye")).unwrap();
        let _stalled = open();
        hub.broadcast(Event::new("x")).unwrap();
        timer.advance(SECOND * 2);
        hub.broadcast(Event::new("x")).unwrap();
        assert_eq!(hub.stats().ended(sse_hub::EndReason::Stalled), 1);
        let _cut = open();
        let mut drain = hub.drain(SECOND);
        hub.subscribe(Subscriber::new()).unwrap_err();
        timer.advance(SECOND);
        assert!((&mut drain).now_or_never().is_some());
        hub.close();
        assert!(hub.stats().published > 8, "it published");
        *place.lock().unwrap() = None;
    });
}

#[test]
fn failed_own_stream_is_logged_once_at_debug() {
    let (lines, _guard) = captured(Level::TRACE);
    let all = |items: Vec<Result<Event, &'static str>>| {
        let mut stream = EventStream::new(stream::iter(items), ManualTimer::new());
        while let Some(Some(_)) = stream.next().now_or_never() {}
        lines.take()
    };
    let told = all(vec![Ok(Event::new("a")), Err("secret"), Err("more")]);
    assert_eq!(told, ["DEBUG event stream failed error=secret"]);
    let told = all(vec![Ok(Event::new("\n")), Ok(Event::new("\n"))]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("DEBUG event stream has an invalid event error="), "{told:?}");
}
