//! Pushes events from a web service to browsers over Server-Sent Events.
//!
//! A [`Hub`] takes [`Event`]s in and hands each to the clients that it is for: one tab, a user, a session, a topic or
//! everybody. [`Hub::subscribe`] lets a client in and returns its [`Subscription`], a `Stream<Item = Bytes>` that goes
//! into a response as it is.
//!
//! ```
//! use futures_util::StreamExt as _;
//! use sse_hub::{Audience, Event, Hub, LastEventId, ManualTimer, Subscriber};
//!
//! # futures_executor::block_on(async {
//! // In a service: `TokioTimer::new()`, feature `tokio`.
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//!
//! // In the handler of `GET /events`: who is it, and where did it stop?
//! let who = Subscriber::new().user("42").topic("orders").resume(LastEventId::none());
//! let mut stream = hub.subscribe(who)?;
//!
//! // Anywhere else.
//! hub.send_to_user("42", Event::new("greeting").data("hello"))?;
//! hub.publish(Audience::topic("orders"), Event::new("order").data("17 has shipped"))?;
//!
//! let opening = stream.next().await.unwrap();
//! assert!(opening.starts_with(b"event: hub:open\n"));
//! let both = stream.next().await.unwrap();
//! assert!(both.starts_with(b"event: greeting\ndata: hello\nid: "));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # One idea
//!
//! A hub is a log; a subscription is a reader of it. Publishing encodes an event once, gives it the next id and appends
//! it to the hub's bounded log. Each subscription reads from there: live through a small window on the log's tail, or
//! from its position in the log when it falls behind or comes back with a `Last-Event-ID`. So replay and live delivery
//! are one path, and the log alone owns events: its limits bound the hub's memory, whatever the clients do.
//!
//! # Where to read on
//!
//! | to learn | read |
//! |---|---|
//! | what a hub promises: ordering, resuming and gaps, slow clients, limits, closing, presence | [`Hub`] |
//! | what may be sent | [`Event`], [`EventType`], `Payload` |
//! | who is connected and whom an event is for | [`Subscriber`], [`Audience`] |
//! | how much is kept, and how many may come | [`Retain`], [`Limits`] |
//! | what it does | [`Stats`], and *Observability* in [`design`] |
//! | how to send a stream of one's own, without a hub | [`EventStream`] |
//! | who is online, and who comes and goes | [`Presence`], [`PresenceWatch`] |
//! | how silent streams are kept open, on which runtime | [`Heartbeat`], [`Timer`] |
//! | how connections that make no progress are cut | `sse_hub::watchdog` |
//! | how many instances are one hub | `sse_hub::redis`, and [`backplane`] for engines of one's own |
//! | how to answer a request | `sse_hub::http`, or the example of the adapter |
//! | what is logged and measured | [`design`](design#observability), [`Stats`] |
//! | how it is built and why | [`design`] |
//!
//! # Features
//!
//! None is on by default, and each only adds items: `json` (JSON and typed payloads), `tokio` (`TokioTimer`), `http` (a
//! response and an `http_body::Body`), `axum` (extractors and responses), `warp` (a filter and replies), `watchdog`
//! (`sse_hub::watchdog`, around sockets), `axum-serve` (the same for axum's server), `metrics` (`Hub::record_metrics`),
//! `redis` (many instances are one hub).
#![doc(test(attr(deny(warnings), allow(unused_variables, dead_code))))]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod design;
mod error;
mod hub;
mod log;
mod mount;
#[cfg(feature = "redis")]
pub mod redis;
mod sync;
mod time;
#[cfg(feature = "watchdog")]
pub mod watchdog;
mod wire;

pub mod backplane {
    //! The port to what makes many instances one hub: implement it for an engine of your own. `sse_hub::redis` does, over
    //! Redis Streams.
    //!
    //! Events go [out](Backplane::send) to an engine that gives them one order, and come [in](Feed) in that order, with
    //! those of the other instances. The id that the engine gives an event *is* its id, so a client that comes back to
    //! another instance goes on there.
    //!
    //! What is done to clients wherever they are (to disconnect them, to let them join a topic and leave it) goes the same
    //! way, and looks the same to an engine. Who is online needs no order: an engine may
    //! [take](Feed::take_changes) who came and went and tell it to the [others](Feed::changed), and is told when there is
    //! something to [take](Backplane::presence).

    pub use crate::hub::backplane::{Backplane, Change, Outgoing, Unsent};
    pub use crate::hub::feed::{Feed, Malformed};
    pub use crate::hub::link::Mark;
    pub use crate::hub::look_back::Wanted;
}

#[cfg(feature = "http")]
pub mod http {
    //! Streams over HTTP, for every server whose responses are `http::Response`s with an
    //! `http_body::Body`. The adapters for axum and warp are built on this module.
    //!
    //! | to answer | use |
    //! |---|---|
    //! | the result of [`Hub::subscribe`](crate::Hub::subscribe) | [`into_response`] |
    //! | with a stream of your own | [`stream_response`] |
    //! | a `HEAD` request, without subscribing | [`head_response`] |
    //! | a native `EventSource` that must stop | [`stop_response`] |
    //! | an error of this crate | [`error_response`], [`ErrorResponse`] |
    //!
    //! # `HEAD`
    //!
    //! A request for headers must have no side effects, but routers call the handler of `GET` for
    //! `HEAD` too. With axum, extract [`LastEventId`](crate::LastEventId) in every handler that
    //! subscribes: the extractor answers `HEAD` with the headers of the stream, and the handler is
    //! not called. With warp, `sse_hub::warp::last_event_id` refuses `HEAD` and `sse_hub::warp::head`
    //! answers it. With other servers, route `HEAD` to [`head_response`]. Put authentication before
    //! it, so that `HEAD` and `GET` give the same status.
    //!
    //! # Shutting down
    //!
    //! Behind a load balancer, take the instance out of service in this order:
    //!
    //! 1. Fail the readiness check, and wait until the load balancer has noticed.
    //! 2. [Drain](crate::Hub::drain) the hub: each client reconnects after a delay of its own, to
    //!    another instance. A client that still reaches this instance gets a [`refusal`], which ends
    //!    its HTTP/1.1 connection.
    //! 3. [Close](crate::Hub::close) the hub, and let the server finish. Bound the time of this step:
    //!    a connection that never completes its request would hold the server up. The examples give
    //!    the server four seconds.

    pub use crate::mount::http::{
        Body, ErrorResponse, HeadRequest, HttpError, error_response, head_response, into_response,
        refusal, stop_response, stream_response,
    };
}

#[cfg(feature = "warp")]
pub mod warp {
    //! For warp: [`last_event_id`] is a filter. [`Subscription`](crate::Subscription),
    //! [`EventStream`](crate::EventStream), [`Refused`](crate::Refused) and the errors of this crate
    //! are replies.
    //!
    //! ```
    //! use sse_hub::{Hub, LastEventId, Subscriber};
    //! use warp::{Filter, Rejection, Reply};
    //!
    //! fn routes(hub: Hub) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    //!     let path = warp::path!("events");
    //!     let events = path
    //!         .and(warp::get())
    //!         .and(sse_hub::warp::last_event_id())
    //!         // The `Result` is the reply: a stream or a refusal.
    //!         .map(move |last: LastEventId| hub.subscribe(Subscriber::new().resume(last)));
    //!     events.or(path.and(sse_hub::warp::head()))
    //! }
    //! ```
    //!
    //! # Pages of other origins
    //!
    //! - Never combine `warp::cors().allow_any_origin()` with `.allow_credentials(true)`: warp then
    //!   reflects every origin, so any page can read the streams of your users with their cookies.
    //!   List the origins with `allow_origins`.
    //! - `warp::cors()` sends no `vary: origin`. Without this header, a cache can answer one origin
    //!   with the response for another: add `warp::reply::with::header("vary", "origin")`.

    pub use crate::mount::warp::{head, last_event_id};
}

pub use crate::error::{
    AudienceError, ConfigError, DisconnectError, JoinError, NameError, NameKind, PublishError,
    RefusalStyle, Refused, RefusedCause, WatchError,
};
pub use crate::hub::backplane::{Confirmation, Unconfirmed};
pub use crate::hub::drain::Drain;
pub use crate::hub::end::EndReason;
pub use crate::hub::history::History;
pub use crate::hub::hub::{Hub, HubBuilder};
pub use crate::hub::limits::Limits;
pub use crate::hub::members::ClientInfo;
pub use crate::hub::presence::{Presence, PresenceEvent, UserInfo};
pub use crate::hub::receipt::{Receipt, Unmatched};
pub use crate::hub::stats::{Delays, Stats};
pub use crate::hub::subscriber::Subscriber;
pub use crate::hub::subscription::Subscription;
pub use crate::hub::watch::PresenceWatch;
pub use crate::log::audience::{Audience, ClientId, ParseClientIdError};
pub use crate::log::retain::Retain;
pub use crate::mount::event_stream::{EventStream, IntoEvent};
pub use crate::time::heartbeat::Heartbeat;
pub use crate::time::manual::ManualTimer;
pub use crate::time::timer::{Sleep, Timer};
#[cfg(feature = "tokio")]
pub use crate::time::tokio::TokioTimer;
pub use crate::wire::event::{Event, EventError, EventType, InvalidEventType};
#[cfg(feature = "json")]
pub use crate::wire::event::{JsonError, Payload};
pub use crate::wire::id::{EventId, LastEventId, ParseEventIdError};

#[cfg(all(doctest, feature = "axum-serve", feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
