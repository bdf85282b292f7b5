//! The `tracing` events and spans, their levels and fields. No lock is held while they are emitted.

mod support;

#[path = "support/order.rs"]
mod order;

#[path = "support/tracer.rs"]
mod tracer;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use opentelemetry_semantic_conventions::attribute as otel;
use order::{Instance, Order, late};
use sse_hub::testing::Instances;
use sse_hub::{
    Audience, Event, EventStream, Goodbye, Hub, HubBuilder, Limits, ManualTimer, Presence, Retain,
    RunError, RunOptions, Subscriber, Subscription,
};
use support::within;
use tracer::trace_to;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Subscriber as Tracer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
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

/// Formats spans as events are: when a span ends, with all fields that have a value.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl<S: Tracer + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut line = Line::default();
        attributes.record(&mut line);
        context.span(id).unwrap().extensions_mut().insert(line);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Line>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        assert_eq!(span.metadata().target(), "sse_hub");
        let extensions = span.extensions();
        let fields = &extensions.get::<Line>().unwrap().fields;
        let line = format!("{} {}{fields}", span.metadata().level(), span.name());
        self.0.lock().unwrap().push(line);
    }
}

impl Spans {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
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

/// Captures this thread's spans until the guard is dropped.
fn captured_spans(level: Level) -> (Spans, DefaultGuard) {
    let spans = Spans::default();
    let layer = spans.clone().with_filter(LevelFilter::from_level(level));
    (spans, trace_to(registry().with(layer)))
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
fn publish_span_names_the_kind_of_audience() {
    let (spans, _guard) = captured_spans(Level::TRACE);
    let hub = builder(&ManualTimer::new()).build().unwrap();
    let stream = hub.subscribe(Subscriber::new().user("secret").topic("secret")).unwrap();
    let client = stream.client_id();
    spans.take();
    let run = hub.start_run("secret", RunOptions::default()).unwrap();
    let line = |destination: &str, rest: &str| {
        format!(
            "TRACE publish otel.name=publish {destination} otel.kind=producer \
             messaging.system=sse_hub messaging.operation.name=publish \
             messaging.operation.type=send messaging.destination.template={destination}{rest}"
        )
    };
    let cases = [
        (Audience::all(), "all", 1),
        (Audience::client(client), "client/{client}", 1),
        (Audience::user("secret"), "user/{user}", 1),
        (Audience::session("secret"), "session/{session}", 0),
        (Audience::topic("secret"), "topic/{topic}", 1),
        (Audience::users(["secret", "x"]), "combined", 1),
    ];
    for (audience, destination, matched) in cases {
        let event = || Event::new("x").data("secret");
        let id = hub.publish_confirmed(audience.clone(), event()).unwrap().id().unwrap();
        let _ = hub.publish(audience, event()).unwrap();
        let rest = format!(" messaging.message.id={id} messaging.sse_hub.matched={matched}");
        let [confirmed, published] = <[String; 2]>::try_from(spans.take()).unwrap();
        assert_eq!(confirmed, line(destination, &rest));
        assert!(published.ends_with(&format!(" messaging.sse_hub.matched={matched}")));
    }
    let _ = run.publish(Event::new("x")).unwrap();
    assert_eq!(spans.take(), [line("run/{run}", " messaging.sse_hub.matched=0")]);
}

#[test]
fn failed_operation_marks_its_span() {
    let (spans, _guard) = captured_spans(Level::TRACE);
    let limits = Limits::default().clients(1);
    let retain = Retain::default().bytes(1000);
    let hub = builder(&ManualTimer::new()).limits(limits).retain(retain).build().unwrap();
    let run = hub.start_run("r", RunOptions::default()).unwrap();
    let _first = hub.subscribe(Subscriber::new()).unwrap();
    hub.subscribe(Subscriber::new()).unwrap_err();
    let subscribe = "TRACE subscribe messaging.system=sse_hub messaging.operation.name=subscribe";
    let failed = |word| format!("error.type={word} otel.status_code=ERROR");
    let expected = [
        format!("{subscribe} messaging.sse_hub.start=fresh"),
        format!("{subscribe} {}", failed("full")),
    ];
    assert_eq!(spans.take(), expected);

    let ends_with = |word| {
        let lines = spans.take();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(&failed(word)), "{lines:?}");
    };
    hub.broadcast(Event::new("\n")).unwrap_err();
    ends_with("event");
    hub.send_to_user("", Event::new("x")).unwrap_err();
    ends_with("audience");
    hub.broadcast(Event::new("x").data("x".repeat(1000))).unwrap_err();
    ends_with("too-large");
    run.publish(Event::default()).unwrap_err();
    ends_with("event");
    run.finish(None).unwrap();
    run.publish(Event::new("x")).unwrap_err();
    ends_with("ended");
    hub.close();
    hub.broadcast(Event::new("x")).unwrap_err();
    ends_with("closed");
}

#[test]
fn full_backplane_marks_the_span_of_a_run() {
    let (spans, _guard) = captured_spans(Level::TRACE);
    let instances = Instances::held().max_unsent(1);
    let instance = instances.start(Hub::builder(ManualTimer::new())).unwrap();
    instance.read(1);
    let run = instance.hub().start_run("r", RunOptions::default()).unwrap();
    assert_eq!(run.publish(Event::new("x")), Err(RunError::Backlog));
    let spans = spans.take();
    assert!(
        spans.last().unwrap().ends_with("error.type=backlog otel.status_code=ERROR"),
        "{spans:?}"
    );
}

#[test]
fn instance_that_hands_out_has_a_span() {
    let (spans, _guard) = captured_spans(Level::TRACE);
    let (mut order, mut one, mut two) =
        (Order::default(), Instance::with(|hub| hub), Instance::with(|hub| hub));
    one.settle(&mut order);
    two.settle(&mut order);
    let _stream = two.hub.subscribe(Subscriber::new().user("secret")).unwrap();
    spans.take();
    let receipt = one.hub.send_to_user("secret", Event::new("x").data("secret")).unwrap();
    assert_eq!(receipt.matched(), 0);
    let published = spans.take();
    assert_eq!(published.len(), 1);
    assert!(published[0].ends_with("{user} messaging.sse_hub.matched=0"), "{published:?}");
    one.settle(&mut order);
    two.settle(&mut order);
    let process = |matched| {
        format!(
            "TRACE process otel.name=process user/{{user}} otel.kind=consumer \
             messaging.system=sse_hub messaging.operation.name=process \
             messaging.operation.type=process messaging.destination.template=user/{{user}} \
             messaging.message.id={} messaging.sse_hub.matched={matched}",
            two.hub.position()
        )
    };
    assert_eq!(spans.take(), [process(0), process(1)]);
}

#[test]
fn span_counts_a_client_that_waits_for_older_events() {
    let (mut order, mut here) = late(9, |hub| hub);
    let mut waits = here.subscribe(order.entries[0].id);
    drained(&mut waits);
    let (spans, _guard) = captured_spans(Level::TRACE);
    here.broadcast("10");
    here.flush(&mut order);
    here.read(&mut order, usize::MAX);
    let spans = spans.take();
    assert!(spans.last().unwrap().ends_with("messaging.sse_hub.matched=1"), "{spans:?}");
}

#[test]
fn traceparent_reaches_instances_and_no_client() {
    let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (spans, _guard) = captured_spans(Level::TRACE);
    let (mut order, mut one, mut two) =
        (Order::default(), Instance::with(|hub| hub), Instance::with(|hub| hub));
    one.settle(&mut order);
    two.settle(&mut order);
    let mut streams = [&one, &two].map(|it| it.hub.subscribe(Subscriber::new()).unwrap());
    streams.iter_mut().for_each(drained);
    spans.take();
    for (trace, count) in [(Some(text), 3), (None, 0)] {
        let event = Event::new("x").data("y");
        let event = trace.into_iter().fold(event, Event::traceparent);
        one.hub.broadcast(event).unwrap();
        one.settle(&mut order);
        two.settle(&mut order);
        let lines = spans.take();
        assert_eq!(lines.len(), 3, "{lines:?}");
        let field = format!(" traceparent={text} ");
        assert_eq!(lines.iter().filter(|line| line.contains(&field)).count(), count, "{lines:?}");
        let plain = format!("event: x\ndata: y\nid: {}\n\n", one.hub.position());
        for stream in &mut streams {
            assert_eq!(stream.next().now_or_never().unwrap().unwrap(), plain);
        }
    }
}

/// A log at `DEBUG` stays as it is, and delivering is in no span at any level.
#[test]
fn spans_are_trace_and_none_is_per_delivery() {
    for (level, expected) in [(Level::DEBUG, 0), (Level::TRACE, 3)] {
        let (spans, _guard) = captured_spans(level);
        let hub = builder(&ManualTimer::new()).build().unwrap();
        let mut streams = [(); 2].map(|()| hub.subscribe(Subscriber::new()).unwrap());
        hub.broadcast(Event::new("x")).unwrap();
        assert_eq!(spans.take().len(), expected, "{level}");
        streams.iter_mut().for_each(drained);
        assert!(spans.take().is_empty());
    }
}

/// The names are those of the crate of OpenTelemetry, so that a new version of the conventions is
/// noticed when the crate is updated.
#[test]
fn fields_are_those_of_the_conventions() {
    let known = [
        otel::ERROR_TYPE,
        otel::MESSAGING_BATCH_MESSAGE_COUNT,
        otel::MESSAGING_DESTINATION_TEMPLATE,
        otel::MESSAGING_MESSAGE_ID,
        otel::MESSAGING_OPERATION_NAME,
        otel::MESSAGING_OPERATION_TYPE,
        otel::MESSAGING_SYSTEM,
        // Of W3C Trace Context.
        "traceparent",
        // Of the layer `tracing-opentelemetry`.
        "otel.kind",
        "otel.name",
        "otel.status_code",
    ];
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/core/telemetry.rs");
    let source = std::fs::read_to_string(source).unwrap();
    // The fields in the macros of spans, such as `messaging.system = SYSTEM`.
    let spans =
        source.split("span_if_wanted!(").skip(1).map(|rest| rest.split("\n    )").next().unwrap());
    let fields: BTreeSet<&str> = spans
        .flat_map(str::lines)
        .filter_map(|line| line.trim().split_once(" = "))
        .map(|(name, _)| name)
        .collect();
    let own = |name: &&str| !name.starts_with("messaging.sse_hub.");
    let used: BTreeSet<&str> = fields.iter().copied().filter(own).collect();
    assert_eq!(used, known.into(), "fields of another convention");
    assert!(fields.len() > used.len());
    let version = opentelemetry_semantic_conventions::SCHEMA_URL.rsplit('/').next().unwrap();
    assert!(source.contains(&format!("/v{version}/")), "the version of {version} must be cited");
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
fn messages_of_a_backplane_have_their_levels() {
    let (lines, _guard) = captured(Level::INFO);
    let presence = Presence::default().max_remote_users(1);
    let mut order = Order::default();
    let mut here = Instance::with(|hub| hub.presence(presence));
    here.settle(&mut order);
    here.feed.degraded(Some("no route"));
    here.feed.degraded(Some("no route"));
    here.feed.degraded(None);
    let (lost, back) =
        ("WARN backplane unreachable cause=no route", "INFO backplane reachable again");
    assert_eq!(lines.take(), [lost, back], "once for each change");
    here.begin_anew(order.last);
    assert_eq!(lines.take(), [format!("WARN order reset floor={}", here.hub.position())]);
    let ignored = "WARN remote users ignored: `Presence::max_remote_users` reached limit=1";
    for (users, expected) in [(["a", "b"], vec![ignored]), (["a", "c"], vec![])] {
        here.feed.replace_users("there", users.map(Into::into));
        assert_eq!(lines.take(), expected, "once in a hub's life");
    }
}

#[test]
fn messages_about_single_clients_and_runs_are_debug() {
    let (lines, _guard) = captured(Level::DEBUG);
    let mut order = Order::default();
    let [mut here, mut there] =
        [2, 1].map(|topics| Instance::with(|hub| hub.limits(Limits::default().topics(topics))));
    here.settle(&mut order);
    there.settle(&mut order);
    let full = || Subscriber::new().user("ann").topic("a");
    let _streams = [&here, &there].map(|instance| instance.hub.subscribe(full()).unwrap());
    lines.take();
    here.hub.join(Audience::user("ann"), "b").unwrap();
    here.settle(&mut order);
    assert_eq!(lines.take(), [""; 0], "a join within the limit");
    there.settle(&mut order);
    assert_eq!(lines.take(), ["DEBUG join rejected: topic limit clients=1 limit=1"]);

    let hub = builder(&ManualTimer::new()).build().unwrap();
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    let client = stream.client_id();
    let run = hub.start_run("a", RunOptions::default()).unwrap();
    run.finish(Event::new("x").data("secret")).unwrap();
    let opened = format!("DEBUG client opened client={client} has_user=false start=fresh");
    let ended = "DEBUG run ended state=finished events=2".to_owned();
    let seen = lines.take().split_off(1);
    assert_eq!(seen, [opened, ended], "after the message of the new hub");
    let failing = stream::iter([Err::<Event, _>("no database")]);
    drained(&mut stream.with_snapshot_stream(failing).unwrap());
    let failed = format!("DEBUG snapshot failed client={client} error=no database");
    let ended = format!("DEBUG client ended client={client} has_user=false reason=left");
    assert_eq!(lines.take(), [failed, ended]);
    // The reader of a new run misses nothing of the run before.
    let _run = hub.start_run("a", RunOptions::default()).unwrap();
    let _reader = hub.subscribe(Subscriber::new().run("a")).unwrap();
    assert!(lines.take()[0].ends_with("start=fresh"));
}

#[test]
fn debug_output_names_the_type() {
    let timer = ManualTimer::new();
    let hub = builder(&timer).presence(Presence::default().topics(&["t"])).build().unwrap();
    let run = hub.start_run("a", RunOptions::default()).unwrap();
    let own = EventStream::new(stream::empty::<Event>(), timer);
    let shown: [(&str, &dyn Debug); 10] = [
        ("Hub", &hub),
        ("Subscription", &hub.subscribe(Subscriber::new()).unwrap()),
        ("Run", &run),
        ("Started", &run.started()),
        ("Stopped", &run.stopped()),
        ("PresenceWatch", &hub.watch().unwrap()),
        ("TopicWatch", &hub.watch_topics().unwrap()),
        ("Drain", &hub.drain(SECOND)),
        ("EventStream", &own),
        ("Feed", &Instance::with(|hub| hub).feed),
    ];
    for (name, value) in shown {
        let text = format!("{value:?}");
        assert!(text.starts_with(&format!("{name} {{")), "{text}");
    }
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
        self.call();
    }

    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.call();
    }

    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {
        self.call();
    }

    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        self.call();
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        self.call();
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.call();
    }
}

impl Uses {
    fn call(&self) {
        // Not within itself: `tracing` drops nested events, and passes nested spans on.
        let Some(hub) = self.0.lock().unwrap().take() else { return };
        let _ = hub.broadcast(Event::new("line"));
        drop(hub.subscribe(Subscriber::new().user("tracer")));
        let _ = (hub.stats(), hub.users(), hub.watch());
        *self.0.lock().unwrap() = Some(hub);
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
