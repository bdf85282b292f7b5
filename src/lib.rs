//! A hub that pushes events from a web service to browsers, over Server-Sent Events.
//!
//! A [`Hub`] takes [`Event`]s from the application, and delivers each event to the clients that the
//! event addresses: a tab, a user, a session, a topic, or all clients. [`Hub::subscribe`] lets a
//! client in and returns a [`Subscription`], a `Stream<Item = Bytes>` that is the body of the
//! response.
//!
//! ```
//! use futures_util::StreamExt as _;
//! use sse_hub::{Audience, Event, Hub, LastEventId, ManualTimer, Subscriber};
//!
//! # futures_executor::block_on(async {
//! // A service uses `TokioTimer::new()`, feature `tokio`.
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//!
//! // In the handler of `GET /events`: the client's identity, and its `Last-Event-ID`.
//! let client = Subscriber::new().user("42").topic("orders").resume(LastEventId::none());
//! let mut stream = hub.subscribe(client)?;
//!
//! // Anywhere else in the application.
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
//! A hub is a log, and a subscription is a reader of the log. Publishing encodes an event once,
//! gives the event the next id, and appends the event to the bounded log. A subscription that keeps
//! up reads the newest events from a small window. A subscription that falls behind, or resumes
//! from a `Last-Event-ID`, reads the log from the client's position. So replay and live delivery
//! are a single path. Only the log owns events: the limits of the log bound the hub's memory,
//! however slow the clients are.
//!
//! # Where to read on
//!
//! [`guide`] has a page for each task, from mounting to troubleshooting. The types have the
//! details:
//!
//! | topic | read |
//! |---|---|
//! | ordering, resuming and gaps, slow clients, limits, closing, presence | [`Hub`] |
//! | events and their types | [`Event`], [`EventType`], [`Payload`] |
//! | the identity of a client, and the clients that an event is for | [`Subscriber`], [`Audience`] |
//! | memory, and limits on clients | [`Retain`], [`Limits`] |
//! | a snapshot, and then its changes | [`Subscription::with_snapshot`], [`Hub::position`] |
//! | retained events without a stream | [`Hub::read`], [`Hub::recent`] |
//! | streams that end | [`Hub::finish`], [`Hub::disconnect`], [`Goodbye`] |
//! | answers and jobs that outlive their request | [`Run`], [`RunLimits`], [`guide::runs`] |
//! | users that come and go | [`Presence`], [`PresenceWatch`] |
//! | the members of a room | [`Hub::users_in`], [`TopicWatch`], [`Presence::topics`] |
//! | a stream without a hub | [`EventStream`] |
//! | heartbeats, on any runtime | [`Heartbeat`], [`Timer`] |
//! | responses to requests | `sse_hub::http`, `sse_hub::warp`, the examples |
//! | dead connections | `sse_hub::watchdog` |
//! | thousands of streams in one process | `sse_hub::serve` |
//! | several instances | `sse_hub::redis`, and [`backplane`] for other engines |
//! | tests of an application | [`guide::testing`], `sse_hub::testing` |
//! | logs and metrics | [`design`](design#observability), [`Stats`] |
//! | how the crate is built, and why | [`design`] |
//!
//! # Features
//!
//! A feature only adds items. `json` is on by default; `default-features = false` turns it off.
//!
//! | feature | adds |
//! |---|---|
//! | `json` | `Event::json`, typed payloads, serde for `ClientId`, `EventId`, `Page` and `Stats` |
//! | `tokio` | `TokioTimer` |
//! | `hyper` | `HyperTimer`: the timer of hyper for any runtime |
//! | `http` | responses and an `http_body::Body` for any server of the `http` crate |
//! | `axum` | extractors and responses |
//! | `warp` | filters and replies |
//! | `watchdog` | `sse_hub::watchdog`, around the sockets of any server on tokio |
//! | `axum-serve` | the same for axum's own server |
//! | `serve` | `sse_hub::serve`: instead of `axum::serve`, with streams written straight to their sockets |
//! | `metrics` | `Hub::record_metrics` |
//! | `redis` | `sse_hub::redis`: several instances act as one hub |
//! | `redis-tls` | `rediss://` addresses |
//! | `testing` | `sse_hub::testing`: a reader of streams, and instances in memory, for tests |
#![doc(test(attr(deny(warnings), allow(unused_variables, dead_code))))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod core;
pub mod design;
mod error;
pub mod guide;
mod hub;
mod log;
mod mount;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "serve")]
pub mod serve;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
#[cfg(feature = "watchdog")]
pub mod watchdog;
mod wire;

pub mod backplane {
    //! The port to an engine through which several instances act as a single hub. `sse_hub::redis`
    //! is such an engine; implement the port for others.
    //!
    //! Events go [out](Outgoing) to the engine, which decides their order. The events of all
    //! instances come [in](Incoming) in that order, through a [`Feed`]. The id that the engine
    //! gives an event *is* the event's id, so a client can resume on another instance. A program
    //! that only publishes needs no hub: an [`Encoder`] writes its events.
    //!
    //! Commands (to disconnect clients, or to let them join a topic) and the parts of runs travel in
    //! the same order, and look like events to the engine. An engine may keep a copy of each
    //! [run](Outgoing::run). Presence needs no order: an engine may
    //! [take](Feed::take_changes) the changes of this hub's users and of the members of its topics,
    //! and give them to the [other](Feed::change_users) instances.

    pub use crate::core::ahead::AheadUpTo;
    pub use crate::core::backplane::{Backplane, Outgoing, SendError, UserChange};
    pub use crate::core::encoder::{Encoder, RunEncoder};
    pub use crate::core::held::HistoryRequest;
    pub use crate::core::seats::Seat;
    pub use crate::hub::feed::{Feed, TailLimits};
    pub use crate::hub::incoming::{Incoming, Kind, Loaded, Malformed, RunCopy};
    pub use crate::log::codec::{RunPart, RunPartKind};
    pub use crate::log::producer::InstanceId;
}

#[cfg(feature = "http")]
pub mod http {
    //! Streams over HTTP, for every server with the `Response` of the crate `http` and an
    //! `http_body::Body`. The adapters for axum and warp are built on this module.
    //!
    //! | to answer | use |
    //! |---|---|
    //! | the result of [`Hub::subscribe`](crate::Hub::subscribe) | [`into_response`] |
    //! | with a stream of your own | [`stream_response`] |
    //! | a `HEAD` request, without subscribing | [`head_response`] |
    //! | a native `EventSource` that must stop | [`stop_response`] |
    //! | an error of this crate | [`error_response`], [`ErrorResponse`] |
    //! | a page that joins or leaves a topic | [`change_topics`], or [`join_topic`] and [`leave_topic`] |
    //!
    //! The guide says [how to mount](crate::guide::mounting) a stream, [answer
    //! `HEAD`](crate::guide::mounting#head), and [shut down](crate::guide::shutdown) in order.

    pub use crate::mount::http::{
        Body, ErrorResponse, HeadRequest, HttpError, error_response, head_response, into_response,
        refusal, stop_response, stream_response,
    };
    pub use crate::mount::topics::{change_topics, join_topic, leave_topic};
}

#[cfg(feature = "warp")]
pub mod warp {
    //! For warp: [`last_event_id`] is a filter. [`Subscription`](crate::Subscription),
    //! [`EventStream`](crate::EventStream), [`Refused`](crate::Refused) and the errors of this
    //! crate are replies.
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
    //! For pages of other origins, `warp::cors()` has two traps: see
    //! [`guide`](crate::guide::authentication#other-origins).

    pub use crate::mount::warp::{head, last_event_id};
}

pub use crate::core::end::{EndReason, Goodbye};
pub use crate::core::receipt::{Affected, Confirmation, Receipt, Unconfirmed, Unmatched};
pub use crate::core::roster::{PresenceEvent, TopicEvent, UserInfo};
pub use crate::core::settings::{History, Limits, Presence};
pub use crate::core::stats::{Delays, Stats};
pub use crate::error::{
    AudienceError, ConfigError, DisconnectError, FollowError, InvalidReason, JoinError,
    MembersError, NameError, NameKind, PublishError, ReadError, RefusalStyle, Refused,
    RefusedCause, RunError, WatchError,
};
pub use crate::hub::builder::HubBuilder;
pub use crate::hub::drain::Drain;
pub use crate::hub::hub::Hub;
pub use crate::hub::page::{Page, StoredEvent};
pub use crate::hub::presence::{PresenceWatch, TopicWatch};
pub use crate::hub::run::{Run, RunInfo, RunOptions, Started, Stopped};
pub use crate::hub::subscriber::Subscriber;
pub use crate::hub::subscription::Subscription;
pub use crate::hub::topics::ClientInfo;
pub use crate::log::audience::Audience;
pub use crate::log::key::{ClientId, ParseClientIdError};
pub use crate::log::name::Name;
pub use crate::log::retain::{Retain, RunLimits};
pub use crate::log::runs::RunState;
pub use crate::mount::event_stream::{EventStream, IntoEvent};
#[cfg(feature = "serve")]
pub use crate::serve::serve;
pub use crate::time::heartbeat::Heartbeat;
#[cfg(feature = "hyper")]
pub use crate::time::hyper::HyperTimer;
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
