//! The events and spans of the crate for `tracing`: a function for each.
//!
//! Call these functions without a lock: a subscriber of `tracing` is foreign code. `INFO` and
//! `WARN` are for events that happen a few times in a hub's life, or are rate-limited by their
//! caller. Events that a crowd of clients can cause are `DEBUG`, and spans are `TRACE`. No event
//! and no span names a user, a session or a topic. `design.rs` lists both for operators.
//!
//! A span that no subscriber wants costs a load and a comparison. So the functions of spans take
//! references only, and compute fields inside of `span_if_wanted`.
//!
//! The fields of spans are those of OpenTelemetry's conventions for messaging, version 1.42.0:
//! <https://github.com/open-telemetry/semantic-conventions/blob/v1.42.0/docs/messaging/messaging-spans.md>.
//! The namespace `messaging.sse_hub` is for attributes of this system alone. The layer
//! `tracing-opentelemetry` reads the fields that begin with `otel.`.

use std::error::Error;
use std::time::Duration;

use tracing::field::{Empty, display};
use tracing::level_filters::LevelFilter;
use tracing::{Span, debug, info, trace_span, warn};

use super::end::EndReason;
use crate::error::{PublishError, RefusedCause, RunError};
use crate::log::audience::Audience;
use crate::log::entry::Encoded;
use crate::log::key::{ClientId, Key};
use crate::log::runs::RunState;
use crate::sync;
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// The target of every event of this crate.
const TARGET: &str = "sse_hub";

/// The value of `messaging.system`. A system that is not in the conventions uses its own name.
const SYSTEM: &str = "sse_hub";

/// Makes a span, or [`Span::none`] if no subscriber has the level `TRACE` for any target.
///
/// `trace_span!` alone is not free: if a crate enables the feature `log` of `tracing`, as axum does
/// by default, and there is no subscriber, then `trace_span!` offers the fields to `log`, and the
/// span reports to `log` when it is entered, left and closed.
macro_rules! span_if_wanted {
    ($($parts:tt)*) => {
        if LevelFilter::current() == LevelFilter::TRACE {
            trace_span!(target: TARGET, $($parts)*)
        } else {
            Span::none()
        }
    };
}

/// A call that publishes an event.
#[inline]
pub(crate) fn publish(audience: &Audience, event: &Event) -> Span {
    sync::assert_unlocked();
    span_if_wanted!(
        "publish",
        otel.name = %format_args!("publish {}", destination(audience)),
        otel.kind = "producer",
        otel.status_code = Empty,
        messaging.system = SYSTEM,
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.template = destination(audience),
        traceparent = event.trace().map(display),
        messaging.message.id = Empty,
        messaging.sse_hub.matched = Empty,
        error.type = Empty,
    )
}

/// An event of the order that an instance hands out to its clients.
#[inline]
pub(crate) fn process(id: EventId, event: &Encoded) -> Span {
    sync::assert_unlocked();
    span_if_wanted!(
        "process",
        otel.name = %format_args!("process {}", destination(&event.audience)),
        otel.kind = "consumer",
        messaging.system = SYSTEM,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.template = destination(&event.audience),
        traceparent = event.trace.as_ref().map(display),
        messaging.message.id = %id,
        messaging.sse_hub.matched = Empty,
    )
}

/// The admission of a client. The conventions have no type for this operation.
pub(crate) fn subscribe() -> Span {
    sync::assert_unlocked();
    span_if_wanted!(
        "subscribe",
        otel.status_code = Empty,
        messaging.system = SYSTEM,
        messaging.operation.name = "subscribe",
        messaging.sse_hub.start = Empty,
        error.type = Empty,
    )
}

/// A read of older events from the backplane, and their way into the log.
#[cfg(feature = "redis")]
pub(crate) fn history_read() -> Span {
    sync::assert_unlocked();
    span_if_wanted!(
        "history read",
        otel.kind = "client",
        otel.status_code = Empty,
        messaging.system = SYSTEM,
        messaging.operation.name = "history read",
        messaging.operation.type = "receive",
        messaging.batch.message_count = Empty,
        error.type = Empty,
    )
}

/// The id that the hub gave to the event, for the span of [`publish`].
#[inline]
pub(crate) fn event_id(span: &Span, id: EventId) {
    sync::assert_unlocked();
    if !span.is_disabled() {
        span.record("messaging.message.id", display(id));
    }
}

/// How many clients of this instance the event is for.
#[inline]
pub(crate) fn matched(span: &Span, clients: usize) {
    sync::assert_unlocked();
    if !span.is_disabled() {
        span.record("messaging.sse_hub.matched", clients);
    }
}

pub(crate) fn publish_failed(span: &Span, error: &PublishError) {
    let word = match error {
        PublishError::Event(_) => "event",
        PublishError::Audience(_) => "audience",
        PublishError::TooLarge { .. } => "too-large",
        PublishError::Backlog => "backlog",
        PublishError::Closed => "closed",
    };
    failed(span, word);
}

pub(crate) fn run_publish_failed(span: &Span, error: &RunError) {
    let word = match error {
        RunError::Event(_) => "event",
        RunError::TooLarge { .. } => "too-large",
        RunError::Open => "open",
        RunError::Full { .. } => "full",
        RunError::Ended => "ended",
        RunError::Superseded => "superseded",
        RunError::Lost => "lost",
        RunError::Backlog => "backlog",
        RunError::Closed => "closed",
        // Of a start or a stop only.
        RunError::Name(_) | RunError::Reason(_) | RunError::Unknown => "other",
    };
    failed(span, word);
}

/// `count`: how many events and commands the read brought.
#[cfg(feature = "redis")]
pub(crate) fn history_brought(span: &Span, count: usize) {
    span.record("messaging.batch.message_count", count);
}

#[cfg(feature = "redis")]
pub(crate) fn history_failed(span: &Span, word: &str) {
    failed(span, word);
}

/// `word`: has few values, as the convention for `error.type` demands.
fn failed(span: &Span, word: &str) {
    sync::assert_unlocked();
    span.record("error.type", word);
    span.record("otel.status_code", "ERROR");
}

/// The kind of an audience, without the name: names are confidential, and their number is not
/// bounded.
fn destination(audience: &Audience) -> &'static str {
    match audience.key() {
        Some(Key::All) => "all",
        Some(Key::Client(_)) => "client/{client}",
        Some(Key::User(_)) => "user/{user}",
        Some(Key::Session(_)) => "session/{session}",
        Some(Key::Topic(_)) => "topic/{topic}",
        Some(Key::Run(_)) => "run/{run}",
        None => "combined",
    }
}

pub(crate) fn built(birth: EventId) {
    sync::assert_unlocked();
    debug!(target: TARGET, epoch = birth.epoch(), "hub built");
}

/// `span`: of [`subscribe`].
pub(crate) fn opened(span: &Span, client: ClientId, has_user: bool, start: &str) {
    sync::assert_unlocked();
    span.record("messaging.sse_hub.start", start);
    debug!(target: TARGET, %client, has_user, start, "client opened");
}

pub(crate) fn ended(client: ClientId, has_user: bool, reason: EndReason) {
    sync::assert_unlocked();
    debug!(target: TARGET, %client, has_user, reason = reason.as_str(), "client ended");
}

/// `error`: why the application's snapshot ended early.
pub(crate) fn snapshot_failed(client: ClientId, error: &(dyn Error + 'static)) {
    sync::assert_unlocked();
    debug!(target: TARGET, %client, error, "snapshot failed");
}

/// `span`: of [`subscribe`].
pub(crate) fn refused(span: &Span, cause: RefusedCause) {
    sync::assert_unlocked();
    failed(span, cause.as_str());
    debug!(target: TARGET, cause = cause.as_str(), "client refused");
}

pub(crate) fn drain_started(clients: usize, over: Duration) {
    sync::assert_unlocked();
    info!(target: TARGET, clients, over_ms = millis(over), "drain started");
}

/// `cut`: how many clients were left at the end of the period.
pub(crate) fn drain_ended(cut: usize, took: Duration) {
    sync::assert_unlocked();
    info!(target: TARGET, cut, took_ms = millis(took), "drain ended");
}

pub(crate) fn closed(clients: usize, published: u64) {
    sync::assert_unlocked();
    info!(target: TARGET, clients, published, "hub closed");
}

/// `events`: how many events the run had, its end included.
pub(crate) fn run_ended(state: RunState, events: u64) {
    sync::assert_unlocked();
    debug!(target: TARGET, state = state.as_str(), events, "run ended");
}

/// `cause`: why the backplane cannot be reached, or `None` if it can be reached again.
pub(crate) fn degraded(cause: Option<&str>) {
    sync::assert_unlocked();
    match cause {
        Some(cause) => warn!(target: TARGET, cause, "backplane unreachable"),
        None => info!(target: TARGET, "backplane reachable again"),
    }
}

/// The order was replaced, and every client gets a gap.
pub(crate) fn reset(floor: EventId) {
    sync::assert_unlocked();
    warn!(target: TARGET, %floor, "order reset");
}

/// Clients that a command of another instance could not add to a topic.
pub(crate) fn join_rejected(clients: usize, limit: usize) {
    sync::assert_unlocked();
    debug!(target: TARGET, clients, limit, "join rejected: topic limit");
}

/// Reported once in a hub's life.
pub(crate) fn remote_users_limit(limit: usize) {
    sync::assert_unlocked();
    warn!(target: TARGET, limit, "remote users ignored: `Presence::max_remote_users` reached");
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
