//! Auto traits are part of the API: removing one breaks programs outside this crate.

use std::fmt::Debug;
use std::hash::Hash;

use sse_hub::{
    Audience, ClientId, ConfigError, Event, EventError, EventId, EventType, Heartbeat, Hub,
    HubBuilder, InvalidEventType, LastEventId, ManualTimer, MembersError, NameError, NameKind,
    ParseClientIdError, ParseEventIdError, Presence, PresenceEvent, PresenceWatch, PublishError,
    Receipt, Refused, RefusedCause, Retain, Run, RunError, RunInfo, RunLimits, RunOptions,
    RunState, Sleep, Started, Stats, Stopped, Subscriber, Subscription, Timer, TopicEvent,
    TopicWatch, Unmatched, UserInfo, WatchError,
};

const fn shared<T: Debug + Send + Sync + Unpin + 'static>() {}
const fn cloned<T: Debug + Clone + Send + Sync + Unpin + 'static>() {}
const fn value<T: Debug + Copy + Eq + Send + Sync + Unpin + 'static>() {}
const fn key<T: Debug + Clone + Eq + Hash + Send + Sync + Unpin + 'static>() {}
const fn error<T: std::error::Error + Send + Sync + Unpin + 'static>() {}
const fn timer<T: Timer + Clone + Unpin>() {}
const fn stream<T: futures_util::Stream<Item = bytes::Bytes>>() {}
const fn boxed<T: Send + Sync + ?Sized + 'static>() {}

#[test]
fn hub_is_send_sync_and_clone() {
    const { cloned::<Hub>() };
    const { shared::<HubBuilder>() };
}

#[test]
fn subscription_is_send_and_unpin() {
    const { shared::<Subscription>() };
    const { stream::<Subscription>() };
}

#[test]
fn watch_is_send_and_unpin() {
    const fn events<T: futures_util::Stream<Item = PresenceEvent>>() {}

    const { shared::<PresenceWatch>() };
    const { events::<PresenceWatch>() };
    const { cloned::<PresenceEvent>() };
    const { cloned::<UserInfo>() };
    const { cloned::<sse_hub::backplane::UserChange>() };
    const { key::<sse_hub::backplane::Seat>() };
    const { cloned::<sse_hub::backplane::Feed>() };
    const { value::<Presence>() };
    const { error::<WatchError>() };
}

#[test]
fn runs_can_be_shared_by_tasks() {
    const fn started<T: Future<Output = Result<(), RunError>> + Send>() {}
    const fn stopped<T: Future<Output = std::sync::Arc<str>> + Send>() {}

    const { shared::<Run>() };
    const { shared::<Started>() };
    const { started::<Started>() };
    const { shared::<Stopped>() };
    const { stopped::<Stopped>() };
    const { cloned::<RunOptions>() };
    const { cloned::<RunInfo>() };
    const { value::<RunLimits>() };
    const { value::<RunState>() };
    const { error::<RunError>() };
}

#[test]
fn topic_watch_is_send_and_unpin() {
    const fn events<T: futures_util::Stream<Item = TopicEvent>>() {}

    const { shared::<TopicWatch>() };
    const { events::<TopicWatch>() };
    const { cloned::<TopicEvent>() };
    const { error::<MembersError>() };
}

#[test]
fn events_and_subscribers_are_send() {
    const { cloned::<Event>() };
    const { key::<EventType>() };
    const { key::<Audience>() };
    const { cloned::<Subscriber>() };
    const { value::<Receipt>() };
    const { value::<Stats>() };
}

#[test]
fn ids_and_settings_are_plain_values() {
    const { value::<EventId>() };
    const { key::<EventId>() };
    const { value::<ClientId>() };
    const { key::<ClientId>() };
    const { value::<LastEventId>() };
    const { value::<Heartbeat>() };
    const { value::<Retain>() };
    const { value::<NameKind>() };
}

#[test]
fn errors_box_across_threads() {
    const { error::<PublishError>() };
    const { error::<Refused>() };
    const { error::<RefusedCause>() };
    const { error::<ConfigError>() };
    const { error::<NameError>() };
    const { error::<EventError>() };
    const { error::<InvalidEventType>() };
    const { error::<ParseEventIdError>() };
    const { error::<ParseClientIdError>() };
    const { error::<Unmatched>() };
}

#[test]
fn timers_are_shared_between_streams() {
    const { timer::<ManualTimer>() };
    const { timer::<std::sync::Arc<dyn Timer>>() };
    const { boxed::<dyn Timer>() };
    const { boxed::<dyn Sleep>() };
}

#[cfg(feature = "tokio")]
#[test]
fn tokio_timer_is_shared_between_streams() {
    const { timer::<sse_hub::TokioTimer>() };
}

#[cfg(feature = "hyper")]
#[test]
fn hyper_timer_is_shared_between_streams() {
    const { timer::<sse_hub::HyperTimer>() };
}

#[cfg(feature = "watchdog")]
#[test]
fn watched_connection_moves_with_its_task() {
    use sse_hub::watchdog::{Cut, Watchdog, Watched};

    const { shared::<Watchdog>() };
    const { shared::<Watched<tokio::io::DuplexStream>>() };
    const { error::<Cut>() };
}

#[cfg(feature = "serve")]
#[test]
fn server_moves_to_its_task() {
    use sse_hub::serve::{RequestBody, Serving};

    fn moves<T: Send + 'static>() {}
    moves::<Serving>();
    // warp's service needs this.
    const { shared::<RequestBody>() };
}

#[cfg(feature = "json")]
#[test]
fn serialize_error_boxes_across_threads() {
    const { error::<sse_hub::JsonError>() };
}

#[cfg(feature = "http")]
#[test]
fn body_moves_with_its_stream() {
    use sse_hub::http::Body;

    const fn body<T: http_body::Body<Data = bytes::Bytes, Error = std::convert::Infallible>>() {}

    const { shared::<Body>() };
    const { body::<Body>() };
    const { shared::<Body<futures_util::stream::Empty<bytes::Bytes>>>() };
    const { body::<Body<futures_util::stream::Empty<bytes::Bytes>>>() };
}

#[test]
fn backplane_and_feed_cross_threads() {
    use sse_hub::backplane::{
        AheadUpTo, Backplane, Encoder, Feed, Incoming, InstanceId, Loaded, Malformed, Outgoing,
        RunCopy, RunEncoder, RunPart, SendError,
    };

    const { boxed::<dyn Backplane>() };
    const { cloned::<Feed>() };
    const { cloned::<Encoder>() };
    const { cloned::<RunEncoder>() };
    const { shared::<Outgoing>() };
    const { shared::<Incoming>() };
    const { shared::<Loaded>() };
    const { shared::<RunCopy>() };
    const { shared::<RunPart<'_>>() };
    const { shared::<InstanceId>() };
    const { cloned::<AheadUpTo>() };
    const { value::<SendError>() };
    const { error::<Malformed>() };
    const { shared::<sse_hub::Confirmation>() };
    const { error::<sse_hub::Unconfirmed>() };
}

#[cfg(feature = "redis")]
#[test]
fn redis_driver_is_send() {
    use sse_hub::redis::{Redis, RedisBackplane, RedisConfigError};

    const fn sent<T: Send + 'static>(_: &T) {}

    const { shared::<Redis>() };
    const { cloned::<RedisBackplane>() };
    const { error::<RedisConfigError>() };
    let backplane = Redis::new("redis://localhost").unwrap().build().unwrap();
    let hub = Hub::builder(ManualTimer::new()).backplane(backplane.clone()).build().unwrap();
    sent(&backplane.run(&hub));
}

#[cfg(feature = "redis")]
#[test]
fn publisher_crosses_threads_and_hides_secrets() {
    use sse_hub::redis::{NotFlushed, NotFlushedCause, Redis, RedisPublisher, RedisRun};

    const fn sent<T: Send + 'static>(_: &T) {}

    const { cloned::<RedisPublisher>() };
    const { shared::<RedisRun>() };
    const { error::<NotFlushed>() };
    const { error::<NotFlushedCause>() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let publisher = runtime
        .block_on(async { Redis::new("redis://:secret@localhost").unwrap().publisher().unwrap() });
    assert!(!format!("{publisher:?}").contains("secret"));
    sent(&publisher.flush());
}

#[cfg(feature = "redis")]
#[test]
fn redis_debug_output_hides_secrets() {
    use sse_hub::redis::{Credentials, Redis};

    const { cloned::<Credentials>() };
    assert!(!format!("{:?}", Credentials::new("hub", "secret")).contains("secret"));
    let secret = Redis::new("redis://:secret@localhost").unwrap();
    assert!(!format!("{secret:?}").contains("secret"));
    let secret = secret.build().unwrap();
    assert!(!format!("{secret:?}").contains("secret"));
    assert!(
        Redis::new("redis://:secret@local host")
            .is_err_and(|error| !error.to_string().contains("secret"))
    );
}
