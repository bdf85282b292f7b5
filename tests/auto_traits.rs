//! Auto traits are API: losing one breaks programs that this crate never sees.

use std::fmt::Debug;
use std::hash::Hash;

use sse_hub::{
    Audience, ClientId, ConfigError, Event, EventError, EventId, EventType, Heartbeat, Hub,
    HubBuilder, InvalidEventType, LastEventId, ManualTimer, NameError, NameKind,
    ParseClientIdError, ParseEventIdError, Presence, PresenceEvent, PresenceWatch, PublishError,
    Receipt, Refused, RefusedCause, Retain, Sleep, Stats, Subscriber, Subscription, Timer,
    Unmatched, UserInfo, WatchError,
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
fn a_hub_is_a_handle_that_every_thread_may_hold() {
    const { cloned::<Hub>() };
    const { shared::<HubBuilder>() };
}

#[test]
fn a_subscription_may_move_between_threads_and_needs_no_pinning() {
    const { shared::<Subscription>() };
    const { stream::<Subscription>() };
}

#[test]
fn a_watch_may_move_between_threads_and_needs_no_pinning() {
    const fn events<T: futures_util::Stream<Item = PresenceEvent>>() {}

    const { shared::<PresenceWatch>() };
    const { events::<PresenceWatch>() };
    const { cloned::<PresenceEvent>() };
    const { cloned::<UserInfo>() };
    const { cloned::<sse_hub::backplane::Change>() };
    const { cloned::<sse_hub::backplane::Feed>() };
    const { value::<Presence>() };
    const { error::<WatchError>() };
}

#[test]
fn what_is_published_and_who_subscribes_may_be_made_on_any_thread() {
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
fn errors_fit_in_a_box_that_crosses_threads() {
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
fn the_timer_of_tokio_is_shared_between_streams() {
    const { timer::<sse_hub::TokioTimer>() };
}

#[cfg(feature = "watchdog")]
#[test]
fn a_watched_connection_goes_wherever_its_task_does() {
    use sse_hub::watchdog::{Cut, Watchdog, Watched};

    const { shared::<Watchdog>() };
    const { shared::<Watched<tokio::io::DuplexStream>>() };
    const { error::<Cut>() };
}

#[cfg(feature = "json")]
#[test]
fn a_payload_that_does_not_serialise_is_an_error_like_the_others() {
    const { error::<sse_hub::JsonError>() };
}

#[cfg(feature = "http")]
#[test]
fn a_body_goes_wherever_its_stream_does() {
    use sse_hub::http::Body;

    const fn body<T: http_body::Body<Data = bytes::Bytes, Error = std::convert::Infallible>>() {}

    const { shared::<Body>() };
    const { body::<Body>() };
    const { shared::<Body<futures_util::stream::Empty<bytes::Bytes>>>() };
    const { body::<Body<futures_util::stream::Empty<bytes::Bytes>>>() };
}

#[test]
fn the_port_and_what_drives_it_may_be_on_any_thread() {
    use sse_hub::backplane::{Backplane, Feed, Malformed, Mark, Outgoing, Unsent};

    const { boxed::<dyn Backplane>() };
    const { cloned::<Feed>() };
    const { shared::<Outgoing>() };
    const { cloned::<Mark>() };
    const { value::<Unsent>() };
    const { error::<Malformed>() };
    const { shared::<sse_hub::Confirmation>() };
    const { error::<sse_hub::Unconfirmed>() };
}

#[cfg(feature = "redis")]
#[test]
fn redis_may_be_driven_from_any_thread() {
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
fn settings_of_redis_that_nothing_could_work_with_are_named() {
    use sse_hub::redis::Redis;

    let refused = |set: fn(Redis) -> Redis| {
        let built = set(Redis::new("redis://localhost").unwrap()).build();
        built.unwrap_err().to_string()
    };
    assert_eq!(refused(|redis| redis.prefix("a}b")), "the prefix is empty or contains `{` or `}`");
    assert_eq!(refused(|redis| redis.prefix("")), "the prefix is empty or contains `{` or `}`");
    assert_eq!(refused(|redis| redis.keep_events(0)), "`keep` is zero");
    assert_eq!(refused(|redis| redis.outbox(0, 1)), "`outbox` is zero");
    assert_eq!(refused(|redis| redis.outbox(1, 0)), "`outbox` is zero");
    assert_eq!(refused(|redis| redis.timeout(std::time::Duration::ZERO)), "`timeout` is zero");
    let secret = Redis::new("redis://:secret@localhost").unwrap();
    assert!(!format!("{secret:?}").contains("secret"));
    let secret = secret.build().unwrap();
    assert!(!format!("{secret:?}").contains("secret"));
    assert!(
        Redis::new("redis://:secret@local host")
            .is_err_and(|error| !error.to_string().contains("secret"))
    );
}
