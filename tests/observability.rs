//! What `tracing` is told, at which level, and that nothing is held meanwhile.

mod support;

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use sse_hub::{
    Audience, Event, EventStream, Heartbeat, Hub, HubBuilder, Limits, ManualTimer, Presence,
    Subscriber, Subscription,
};
use support::within;
use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};
use tracing::{Dispatch, Level, Subscriber as Tracer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::{filter::LevelFilter, registry};

const SECOND: Duration = Duration::from_secs(1);

/// Writes events as lines of `LEVEL message field=value ...`, fields in the order that they come in.
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

/// Captures what this thread tells, as long as the guard lives.
fn captured(level: Level) -> (Lines, DefaultGuard) {
    let lines = Lines::default();
    let layer = lines.clone().with_filter(LevelFilter::from_level(level));
    (lines, trace_to(registry().with(layer)))
}

/// While a process has but one subscriber, whichever thread meets an event first decides for all whether it is wanted,
/// and can do so with what was true before another thread got its own. With one more there are never so few.
fn trace_to(tracer: impl Tracer + Send + Sync) -> DefaultGuard {
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&ANOTHER);
    set_default(tracer)
}

fn builder(timer: &ManualTimer) -> HubBuilder {
    Hub::builder(timer.clone()).heartbeat(Heartbeat::disabled())
}

fn drained(stream: &mut Subscription) {
    while let Some(Some(_)) = stream.next().now_or_never() {}
}

#[test]
fn clients_are_told_of_at_debug_without_names() {
    let (lines, _guard) = captured(Level::TRACE);
    let timer = ManualTimer::new();
    let limits = Limits::default().per_user(1);
    let presence = Presence::with_grace(SECOND);
    let hub = builder(&timer).limits(limits).presence(presence).build().unwrap();
    let built = lines.take();
    assert_eq!(built.len(), 1);
    assert!(built[0].starts_with("DEBUG hub built epoch="), "{built:?}");

    let secret = || Subscriber::new().user("secret-user").session("secret-session");
    let stream = hub.subscribe(secret().topic("secret-topic")).unwrap();
    let client = stream.client();
    assert_eq!(
        lines.take(),
        [format!("DEBUG client opened client={client} has_user=true start=fresh")]
    );
    hub.subscribe(secret()).unwrap_err();
    assert_eq!(lines.take(), ["DEBUG client refused cause=user-full"]);
    hub.send_to_user("secret-user", Event::new("x").data("secret")).unwrap();
    assert!(lines.take().is_empty(), "nothing for each event");
    drop(stream);
    assert_eq!(
        lines.take(),
        [format!("DEBUG client ended client={client} has_user=true reason=left")]
    );

    let resumed = hub.subscribe(Subscriber::new().resume("garbage")).unwrap();
    let client = resumed.client();
    assert_eq!(
        lines.take(),
        [format!("DEBUG client opened client={client} has_user=false start=gap")]
    );
    hub.disconnect(&Audience::all(), "secret", None).unwrap();
    let ended = format!("DEBUG client ended client={client} has_user=false reason=disconnected");
    assert_eq!(lines.take(), [ended]);
    drop(resumed);
    assert!(lines.take().is_empty(), "it had ended before");
}

#[test]
fn a_client_that_takes_anothers_place_is_told_of_after_it() {
    let (lines, _guard) = captured(Level::DEBUG);
    let limits = Limits::default().per_user(1).displace_oldest();
    let hub = builder(&ManualTimer::new()).limits(limits).build().unwrap();
    let old = hub.subscribe(Subscriber::new().user("ann")).unwrap();
    lines.take();
    let new = hub.subscribe(Subscriber::new().user("ann")).unwrap();
    let (old, new) = (old.client(), new.client());
    assert_eq!(
        lines.take(),
        [
            format!("DEBUG client ended client={old} has_user=true reason=displaced"),
            format!("DEBUG client opened client={new} has_user=true start=fresh"),
        ]
    );
}

#[test]
fn no_crowd_can_fill_a_log_at_info() {
    let (lines, _guard) = captured(Level::INFO);
    let timer = ManualTimer::new();
    let hub = builder(&timer).limits(Limits::clients(100)).build().unwrap();
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

/// Does all that a hub can do whenever it is told of something, as a subscriber may that sends its lines to a page.
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
fn a_tracer_that_uses_the_hub_does_not_deadlock() {
    within(SECOND * 10, || {
        let timer = ManualTimer::new();
        let place = Arc::new(Mutex::new(None));
        let _guard = trace_to(registry().with(Uses(Arc::clone(&place))));
        let limits = Limits::default().per_user(1).displace_oldest();
        let hub = builder(&timer)
            .limits(limits)
            .presence(Presence::with_grace(SECOND))
            .stalled_after(SECOND)
            .build()
            .unwrap();
        *place.lock().unwrap() = Some(hub.clone());

        let open = || hub.subscribe(Subscriber::new().user("ann")).unwrap();
        let _displaced = open();
        let _disconnected = open();
        hub.disconnect(&Audience::all(), "bye", None).unwrap();
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
fn a_stream_of_ones_own_that_fails_is_told_of_once_at_debug() {
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
