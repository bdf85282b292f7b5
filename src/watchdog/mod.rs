//! Cuts connections that make no progress, around the sockets of any server on tokio.
//!
//! A server does not poll a stream while the client reads nothing, so nothing inside the stream can
//! notice a stall. The hub [forgets such a client](crate::HubBuilder::stalled_after), but the
//! server keeps the socket. A [`Watchdog`] wraps the socket, observes the bytes in both directions,
//! and cuts the connection if a limit passes:
//!
//! | [`Cut`] | limit | the connection is cut if |
//! |---|---|---|
//! | stalled | [`stalled_after`](WatchdogBuilder::stalled_after) | a write has found no room for this long |
//! | no request | [`request_within`](WatchdogBuilder::request_within) | the head of a request, the first or a later one, is incomplete for this long |
//! | idle | [`idle_after`](WatchdogBuilder::idle_after) | no byte has moved in either direction for this long |
//!
//! An operating system takes megabytes for a peer that does not read before a write finds no room.
//! On Linux the watchdog therefore limits the unsent bytes of a socket to 64 KiB
//! (`TCP_NOTSENT_LOWAT`), and sets `stalled_after` as the time after which the system gives up a
//! peer that acknowledges nothing or stays full (`TCP_USER_TIMEOUT`): this ends streams of little
//! traffic.
//!
//! [`guide::slow_clients`](crate::guide::slow_clients) has the whole picture of such clients.
//!
//! The watchdog also sets `TCP_NODELAY`. Without this option, a small event waits until the client
//! has acknowledged the previous event.
//!
//! With axum's server (feature `axum-serve`):
//!
//! ```no_run
//! # #[cfg(feature = "axum-serve")]
//! # async fn serve(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
//! use sse_hub::TokioTimer;
//! use sse_hub::watchdog::Watchdog;
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! let watchdog = Watchdog::new(TokioTimer::new());
//! axum::serve(watchdog.listen(listener), app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With hyper, or with warp's service in hyper, watch each accepted connection:
//! [`watch_tcp`](Watchdog::watch_tcp), or [`prepare`](Watchdog::prepare) and
//! [`watch`](Watchdog::watch) around TLS.
//!
//! # Limits of the watchdog
//!
//! - Bodies of requests have no deadline, because an upload may be slow. If a handler reads bodies,
//!   limit their time in the handler.
//! - A connection counts as a whole. If one stream of an HTTP/2 connection stalls while others
//!   move, the hub forgets the client, and the window of that stream bounds the bytes that the
//!   server holds. An HTTP/2 client that sends `PING` keeps the connection.

mod connection;
#[cfg(feature = "axum-serve")]
mod listener;
mod requests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[cfg(feature = "axum-serve")]
use ::axum::serve::Listener;
use socket2::SockRef;

pub use self::connection::{Cut, Watched};
use self::connection::{Shared, SocketLimits};
#[cfg(feature = "serve")]
pub(crate) use self::connection::{is_prepared, reset};
#[cfg(feature = "axum-serve")]
pub use self::listener::WatchedListener;
use crate::error::ConfigError;
use crate::time::timer::Timer;

/// Cuts connections that make no progress: see the [module](self).
///
/// Clones share the settings and the [counts](Self::cuts).
#[derive(Clone)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

impl Watchdog {
    /// Creates a watchdog with the default limits.
    #[must_use]
    pub fn new(timer: impl Timer) -> Self {
        Self::builder(timer).watchdog()
    }

    /// Returns a builder with the default limits.
    pub fn builder(timer: impl Timer) -> WatchdogBuilder {
        let limits = SocketLimits {
            stalled: Some(Duration::from_secs(30)),
            request: Some(Duration::from_secs(30)),
            idle: Some(Duration::from_secs(120)),
        };
        let keepalive = Some(Duration::from_secs(60));
        WatchdogBuilder { timer: Box::new(timer), limits, keepalive }
    }

    /// Watches an accepted TCP connection. Sets the [options](Self::prepare) of the socket. The cut
    /// is a reset, so that the system also drops the unsent bytes.
    pub fn watch_tcp<IO>(&self, socket: IO) -> Watched<IO>
    where
        for<'a> SockRef<'a>: From<&'a IO>,
    {
        Watched::tcp(socket, Arc::clone(&self.shared))
    }

    /// Watches a connection with options that are set. `reset` is the way to reset it.
    #[cfg(feature = "serve")]
    pub(crate) fn watch_prepared<IO>(&self, io: IO, reset: fn(&IO)) -> Watched<IO> {
        Watched::new(io, reset, Arc::clone(&self.shared))
    }

    /// Watches a connection of any kind, such as the inside of TLS. The bytes must be HTTP.
    pub fn watch<IO>(&self, io: IO) -> Watched<IO> {
        Watched::new(io, |_| (), Arc::clone(&self.shared))
    }

    /// Watches every connection that `listener` accepts, for axum's server.
    ///
    /// If more clients connect at once than the listener's backlog holds, their systems retry after
    /// a second or more. The backlog is 1,024 for tokio's `TcpListener::bind`, and
    /// `TcpSocket::listen` sets another.
    ///
    /// ```no_run
    /// # async fn serve(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
    /// use sse_hub::TokioTimer;
    /// use sse_hub::watchdog::Watchdog;
    ///
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    /// let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    /// axum::serve(listener, app).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "axum-serve")]
    #[cfg_attr(docsrs, doc(cfg(feature = "axum-serve")))]
    pub fn listen<L>(&self, listener: L) -> WatchedListener<L>
    where
        L: Listener,
        for<'a> SockRef<'a>: From<&'a L::Io>,
    {
        WatchedListener::new(listener, Arc::clone(&self.shared))
    }

    /// Sets the options of a TCP socket: `TCP_NODELAY`, keepalive, and on Linux the limits of
    /// unsent bytes and of unacknowledged time. If an option cannot be set, this is logged at
    /// `DEBUG`.
    pub fn prepare<S>(&self, socket: &S)
    where
        for<'a> SockRef<'a>: From<&'a S>,
    {
        self.shared.prepare(&SockRef::from(socket));
    }

    /// Returns the number of connections cut so far.
    #[must_use]
    pub fn cuts(&self) -> Cuts {
        let count = |cut: Cut| self.shared.cuts[cut as usize].load(Ordering::Relaxed);
        Cuts {
            stalled: count(Cut::Stalled),
            no_request: count(Cut::NoRequest),
            idle: count(Cut::Idle),
        }
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("limits", &self.shared.limits)
            .field("cuts", &self.cuts())
            .finish_non_exhaustive()
    }
}

/// Settings for a [`Watchdog`]. `None` turns a limit off.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::ManualTimer;
/// use sse_hub::watchdog::Watchdog;
///
/// let watchdog = Watchdog::builder(ManualTimer::new())
///     .stalled_after(Duration::from_secs(10))
///     .idle_after(None)
///     .build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct WatchdogBuilder {
    timer: Box<dyn Timer>,
    limits: SocketLimits,
    keepalive: Option<Duration>,
}

impl WatchdogBuilder {
    /// Sets how long a write may wait for room. The default is 30 seconds. A client that is cut
    /// receives the unread events after reconnecting.
    pub fn stalled_after(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limits.stalled = limit.into();
        self
    }

    /// Sets how long the head of a request may take. The default is 30 seconds. The time of the
    /// first head begins with the connection, and the time of a later head with the first byte.
    /// Time in which the server does not read is not counted.
    pub fn request_within(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limits.request = limit.into();
        self
    }

    /// Sets how long no byte may move in either direction. The default is two minutes. The limit
    /// must be longer than the period of the [heartbeat](crate::Heartbeat), and longer than a
    /// handler may take to respond. Empty lines before a request do not count as movement.
    pub fn idle_after(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limits.idle = limit.into();
        self
    }

    /// Sets the silence after which the system probes whether the peer is alive. The default is a
    /// minute.
    pub fn keepalive(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.keepalive = after.into();
        self
    }

    /// Builds the watchdog.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] if a limit is zero: every connection would be cut at once.
    pub fn build(self) -> Result<Watchdog, ConfigError> {
        let SocketLimits { stalled, request, idle } = self.limits;
        let settings = [
            ("Watchdog::stalled_after", stalled),
            ("Watchdog::request_within", request),
            ("Watchdog::idle_after", idle),
            ("Watchdog::keepalive", self.keepalive),
        ];
        for (setting, limit) in settings {
            if limit == Some(Duration::ZERO) {
                return Err(ConfigError::Zero { setting });
            }
        }
        Ok(self.watchdog())
    }

    fn watchdog(self) -> Watchdog {
        let Self { timer, limits, keepalive } = self;
        let cuts = Default::default();
        Watchdog { shared: Arc::new(Shared { timer, limits, keepalive, cuts }) }
    }
}

/// The number of connections that a [`Watchdog`] has cut, by [`Cut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Cuts {
    /// The number of connections cut for [`Cut::Stalled`].
    pub stalled: u64,
    /// The number of connections cut for [`Cut::NoRequest`].
    pub no_request: u64,
    /// The number of connections cut for [`Cut::Idle`].
    pub idle: u64,
}
