//! Mounting a hub: a route that opens streams, in the server that you have.
//!
//! On every server, the handler of the stream does the same three things: verify the identity of
//! the request, read the `Last-Event-ID`, and return the result of
//! [`Hub::subscribe`](crate::Hub::subscribe) as the response. The result is a stream, or a
//! [refusal](super::limits) that a browser understands.
//!
//! | server | features | the id of the request | the response | example |
//! |---|---|---|---|---|
//! | axum | `axum-serve`, `tokio` | `LastEventId` is an extractor | the `Result` itself | `axum` |
//! | axum, many streams | `serve` | the same | the same | `axum` |
//! | warp | `warp`, `tokio` | [`last_event_id`](crate::warp::last_event_id) is a filter | the `Result` itself | `warp` |
//! | hyper | `http` | [`LastEventId::from_request`](crate::LastEventId::from_request) | [`into_response`](crate::http::into_response) | `hyper_smol` |
//! | actix-web | `http`, `tokio` | [`LastEventId::from_parts`](crate::LastEventId::from_parts) | `into_response`, converted by a function of the example | `actix` |
//! | any other | none | `LastEventId::from_parts` | a [`Subscription`](crate::Subscription) is a `Stream<Item = Bytes>` | |
//!
//! # axum
//!
#![cfg_attr(all(feature = "axum-serve", feature = "tokio"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "axum-serve", feature = "tokio")), doc = "```ignore")]
//! use axum::{Router, extract::State, routing::get};
//! use sse_hub::watchdog::Watchdog;
//! use sse_hub::{Hub, LastEventId, Refused, Subscriber, Subscription, TokioTimer};
//!
//! async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
//!     hub.subscribe(Subscriber::new().user("42").resume(last))
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(TokioTimer::new()).build()?;
//! let app = Router::new().route("/events", get(events)).with_state(hub);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! // Cuts connections that make no progress, and sends small events at once.
//! let listener = Watchdog::new(TokioTimer::new()).listen(listener);
//! axum::serve(listener, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `serve`, `sse_hub::serve(listener, app).await?` replaces the last three lines,
//! and a stream needs less memory and processor time: see [direct serving](mod@crate::serve).
//!
//! # warp
//!
//! [`sse_hub::warp`](mod@crate::warp) has the route. `warp::serve` has no option for small packets:
//! set `nodelay` on the listening socket, as the example `warp` does.
//!
//! # hyper, and servers of the `http` crate
//!
#![cfg_attr(feature = "http", doc = "```")]
#![cfg_attr(not(feature = "http"), doc = "```ignore")]
//! use http::{Method, Request, Response};
//! use sse_hub::http::{Body, head_response, into_response};
//! use sse_hub::{Hub, LastEventId, Subscriber};
//!
//! fn events<B>(hub: &Hub, request: &Request<B>) -> Response<Body> {
//!     if request.method() == Method::HEAD {
//!         return head_response();
//!     }
//!     let last = LastEventId::from_request(request.headers(), request.uri());
//!     into_response(hub.subscribe(Subscriber::new().resume(last)))
//! }
//! ```
//!
//! Set `TCP_NODELAY` on accepted sockets, or watch them with
//! [`Watchdog::watch_tcp`](crate::watchdog::Watchdog::watch_tcp), which sets the option. Otherwise
//! a small event waits until the client has acknowledged the event before.
//!
//! # Other runtimes
//!
//! A hub spawns no task and needs a [`Timer`](crate::Timer): `TokioTimer`, or, with the feature
//! `hyper`, `HyperTimer` around the runtime's timer for hyper, as the example `hyper_smol` has for
//! smol. Without either, implement the trait.
//!
//! # `HEAD`
//!
//! A request for headers must have no side effects, but routers call the handler of `GET` for
//! `HEAD` too. A subscription would announce its user, and take a place of the user's limit.
//!
//! - With axum, extract `LastEventId` in every handler that subscribes: the extractor answers
//!   `HEAD` with the headers of the stream, and the handler is not called.
//! - With warp, `last_event_id` refuses `HEAD`, and [`head`](crate::warp::head) answers it.
//! - With other servers, route `HEAD` to [`head_response`](crate::http::head_response).
//!
//! Put authentication before the answer, so that `HEAD` and `GET` give the same status.
//!
//! # A stream without a hub
//!
//! [`EventStream`](crate::EventStream) sends any `Stream` of events, such as the rows of an export,
//! to the client of one request. If the events must survive the request, use a [run](super::runs).
//!
//! # Limits
//!
//! - Middleware must not read, buffer or compress the body. Compression layers of tower-http leave
//!   `text/event-stream` alone. A timeout of the handler is harmless, and a timeout of the body
//!   cuts idle streams.
//! - The response has status 200, `text/event-stream`, `cache-control: no-cache, no-transform`,
//!   `x-accel-buffering: no` and `x-content-type-options: nosniff`. A layer that replaces these
//!   headers can break the stream behind a [proxy](super::proxies).
//! - actix-web notices that a client has left only at the next write, unless
//!   `h1_allow_half_closed(false)` is set, as in the example.
