//! Direct serving: [`serve()`] takes the place of `axum::serve`, and writes streams of this crate
//! straight to their sockets.
//!
//! Behind a usual HTTP server, each open stream costs the buffers and the state machine of a
//! connection, and each event passes both. Under [`serve()`] a stream costs one small task.
//! Requests, routers, layers and all other responses stay as they are.
//!
//! ```no_run
//! use axum::Router;
//! use axum::extract::State;
//! use axum::routing::get;
//! use sse_hub::{Hub, LastEventId, Refused, Subscriber, Subscription, TokioTimer};
//!
//! async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
//!     hub.subscribe(Subscriber::new().resume(last))
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(TokioTimer::new()).build()?;
//! let app = Router::new().route("/events", get(events)).with_state(hub);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! sse_hub::serve(listener, app).await?; // Instead of `axum::serve(listener, app).await?`.
//! # Ok(())
//! # }
//! ```
//!
//! # When to use it
//!
//! Use direct serving if a process holds thousands of streams over HTTP/1.1, directly or behind a
//! proxy that speaks HTTP/1.1 to the server, as nginx does by default. For a few streams, and for
//! clients that connect over HTTP/2 to the process itself, both servers do the same work.
//!
//! # How it works
//!
//! ```text
//!            request                     head
//!  socket ------------> hyper -> router <----- Subscription
//!    ^                    |        layers          |
//!    |                    | head                   | body, as the layers wrapped it
//!    |                    v                        v
//!    +---- one send ---- task: [head] size CRLF frames CRLF
//!    ^                    ^                        |
//!    +--------------------+---- poll the body <----+
//! ```
//!
//! 1. hyper reads the request and calls the service. The adapters of this crate mark a response
//!    that is a stream, and layers keep the mark.
//! 2. hyper encodes the head of the marked response, so the status, the headers, their order and
//!    `date` are hyper's. The first time that hyper asks for a frame, the connection leaves hyper
//!    with the head, the body and the bytes that were read behind the request.
//! 3. The task of the connection polls the body, and sends each item as one chunk by one `send`.
//!    The head and the first item leave together. Items above 16 KiB are not copied. While the
//!    socket is full, the task does not poll the body.
//! 4. After the stream, hyper gets the connection back for the next request, if the head did not
//!    announce a close.
//!
//! A broadcast to more than 256 clients of a hub wakes 128 clients at a time. An event for a single
//! client therefore does not wait until all clients have the broadcast.
//!
//! # Streams that stay with hyper
//!
//! | response | why |
//! |---|---|
//! | every response that is no stream of this crate | also another crate's `text/event-stream` |
//! | a stream over HTTP/2 | the streams of a connection share its flow control |
//! | a stream with another framing | its head has one of the headers listed below |
//! | a stream whose request has an unread body | the body is still to be read |
//! | a stream on a connection that changes its protocol | hyper hands such a connection on |
//!
//! The headers are `content-encoding`, `content-length`, `transfer-encoding` and `trailer`. Streams
//! that stay with hyper work as under `axum::serve`.
//!
//! # Layers
//!
//! The task polls the body with all wrappers of the layers, so a layer sees the same calls as under
//! `axum::serve`. Guards inside a body drop when the stream ends. The rows are tests, with the
//! layers of tower-http:
//!
//! | layer | effect on a stream |
//! |---|---|
//! | `TraceLayer` | sees the response, each chunk, the end and failures |
//! | `CorsLayer`, `SetResponseHeaderLayer`, `PropagateRequestIdLayer` | their headers are sent |
//! | `CompressionLayer` | leaves streams alone; if told to compress them, they stay with hyper |
//! | `TimeoutLayer` | limits the handler, not the stream |
//! | `ResponseBodyTimeoutLayer` | cuts a stream that is silent for longer |
//! | `CatchPanicLayer` | catches panics of the handler |
//! | `InFlightRequestsLayer` | counts the request until its stream ends |
//!
//! # Connections
//!
//! A [`Watchdog`](crate::watchdog) has the deadlines and the options of all connections. The
//! default cuts a client that does not read for 30 seconds, or that does not complete the head of a
//! request for 30 seconds, and has no limit for idle connections, as `axum::serve`. A stream that
//! is not stalled has no limit: heartbeats find a client that is gone. The options of a connection
//! are set if the listener is tokio's `TcpListener`. For another listener, such as one for TLS,
//! call [`Watchdog::prepare`](crate::watchdog::Watchdog::prepare) on each socket.
//!
//! At the limit of open files, the server stops to accept connections, logs this once, and tries
//! again when a connection closes, or after a second. Above
//! [`max_connections`](Serve::max_connections) a client gets `503` with `retry-after`; a client
//! that accepts `text/event-stream` gets a stream with `hub:refused`, because a browser's
//! `EventSource` never comes back after another status.
//!
//! # Shutting down
//!
//! After the signal of [`with_graceful_shutdown`](Serve::with_graceful_shutdown) the server:
//!
//! 1. closes the listener, and connections without a request;
//! 2. [drains](crate::Hub::drain) the hubs of all streams so far, over
//!    [`drain_over`](Serve::drain_over);
//! 3. ends streams that are left five seconds later: a stream without a hub at the end of an item,
//!    and a stalled client by a reset;
//! 4. waits for responses under way that are no streams, as `axum::serve` does.
//!
//! To refuse clients that come during the drain instead of their connections, drain the hub in the
//! signal, as the examples do. Then step 2 finds nothing to drain. Behind a load balancer, see
//! [`guide::shutdown`](crate::guide::shutdown).
//!
//! # Differences from `axum::serve`
//!
//! - `into_make_service_with_connect_info::<SocketAddr>()` works for every listener with such
//!   addresses. A type of your own must implement axum's `Connected` for
//!   [`sse_hub::serve::IncomingStream`](IncomingStream), too.
//! - HTTP/2 is always on.
//! - `TCP_NODELAY` is on, and the backlog is 4,096.
//! - A body that fails ends the connection after the bytes before the failure.

mod accept;
mod app;
mod connection;
mod link;
mod open;
mod stream;

use std::future::{self, Pending};
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use ::axum::serve::Listener;

pub use self::app::{IncomingStream, RequestBody, Serves, kind};
use crate::time::tokio::TokioTimer;
use crate::watchdog::Watchdog;

/// The default of [`Serve::backlog`]: the most that Linux allows, unless it is set otherwise.
const BACKLOG: u32 = 4096;

/// The default of [`Serve::drain_over`].
const DRAIN_OVER: Duration = Duration::from_secs(2);

/// Serves `service` on `listener`, as `axum::serve` does, and writes streams of this crate straight
/// to their sockets: see the [module](self).
///
/// Takes the listeners and services of `axum::serve`, and any tower service, such as
/// `warp::service(routes)`: see [`Serves`].
pub fn serve<L, M, K>(listener: L, service: M) -> Serve<L, M, K>
where
    L: Listener,
    M: Serves<L, K>,
{
    let watchdog = Watchdog::builder(TokioTimer::new()).idle_after(Duration::MAX);
    let settings = Settings {
        watchdog: watchdog.build().expect("no limit is zero"),
        backlog: BACKLOG,
        max_connections: usize::MAX,
        drain_over: Some(DRAIN_OVER),
    };
    Serve { listener, service, settings, signal: future::pending(), kind: PhantomData }
}

/// A server that was not started, from [`serve()`]. Must be awaited.
#[derive(Debug)]
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<L, M, K, F = Pending<()>> {
    listener: L,
    service: M,
    settings: Settings,
    signal: F,
    kind: PhantomData<fn() -> K>,
}

#[derive(Debug)]
struct Settings {
    watchdog: Watchdog,
    backlog: u32,
    max_connections: usize,
    drain_over: Option<Duration>,
}

impl<L: Listener, M, K, F> Serve<L, M, K, F> {
    /// Ends the server when `signal` completes: see [the module](self#shutting-down).
    pub fn with_graceful_shutdown<S>(self, signal: S) -> Serve<L, M, K, S>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, service, settings, signal: _, kind } = self;
        Serve { listener, service, settings, signal, kind }
    }

    /// Sets the watchdog of the connections: the time for the head of a request, the time that a
    /// write may wait for room, keepalive, and the count of cut connections.
    ///
    /// ```no_run
    /// # async fn run(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use sse_hub::TokioTimer;
    /// use sse_hub::watchdog::Watchdog;
    ///
    /// let watchdog = Watchdog::builder(TokioTimer::new())
    ///     .stalled_after(Duration::from_secs(10))
    ///     .request_within(Duration::from_secs(5))
    ///     .build()?;
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    /// sse_hub::serve(listener, app).watchdog(watchdog).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.settings.watchdog = watchdog;
        self
    }

    /// Sets how many connections may wait to be accepted, if the listener is tokio's `TcpListener`.
    /// The default is 4,096, and the system may allow less. If more clients connect at once, their
    /// systems retry after a second or more.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.settings.backlog = connections;
        self
    }

    /// Sets the most open connections. There is no limit by default. A client above the limit is
    /// [refused](self#connections).
    pub fn max_connections(mut self, max: usize) -> Self {
        self.settings.max_connections = max;
        self
    }

    /// Sets the period over which the hubs of the streams are drained at the end of the server. The
    /// default is two seconds. With `None`, the server leaves the hubs open, which other servers
    /// may use, and ends the streams after five seconds.
    ///
    /// The server knows the hub of a [`Subscription`](crate::Subscription) that a handler returns
    /// or that [`into_response`](crate::http::into_response) converts.
    pub fn drain_over(mut self, over: impl Into<Option<Duration>>) -> Self {
        self.settings.drain_over = over.into();
        self
    }

    /// Returns the address of the listener.
    ///
    /// # Errors
    ///
    /// Returns the error of the listener.
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

impl<L, M, K, F> IntoFuture for Serve<L, M, K, F>
where
    L: Listener,
    M: Serves<L, K>,
    K: 'static,
    F: Future<Output = ()> + Send + 'static,
{
    type Output = io::Result<()>;
    type IntoFuture = Serving;

    fn into_future(self) -> Serving {
        let Self { listener, service, settings, signal, kind: _ } = self;
        let serving = accept::serve::<L, M, K>(listener, service, settings, signal);
        Box::pin(async {
            serving.await;
            Ok(())
        })
    }
}

/// A running server: the future of [`Serve`].
pub type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;
