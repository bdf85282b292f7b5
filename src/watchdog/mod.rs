//! Cuts connections that make no progress, around the sockets of any server on tokio.
//!
//! A server does not poll a stream while its client reads nothing, so nothing inside the stream can
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
//! The watchdog also sets `TCP_NODELAY`. Without this option, a small event waits until the client
//! has acknowledged the event before it.
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
//! - A connection counts as a whole. If one stream of an HTTP/2 connection stalls while others move,
//!   the hub forgets its client, and the window of that stream bounds the bytes that the server
//!   holds. An HTTP/2 client that sends `PING` keeps its connection.

mod connection;
#[cfg(feature = "axum-serve")]
mod listener;
mod requests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

#[cfg(feature = "serve")]
pub(crate) use self::connection::Waiting;
pub use self::connection::{Cut, Watched};
use self::connection::{Shared, SocketLimits};
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
            stalled: Duration::from_secs(30),
            request: Duration::from_secs(30),
            idle: Duration::from_secs(120),
        };
        let keepalive = Some(Duration::from_secs(60));
        WatchdogBuilder { timer: Box::new(timer), limits, keepalive }
    }

    /// Watches an accepted TCP connection. Sets its [options](Self::prepare), and resets the
    /// connection when it is cut, so that the system also drops its unsent bytes.
    pub fn watch_tcp<IO>(&self, socket: IO) -> Watched<IO>
    where
        for<'a> SockRef<'a>: From<&'a IO>,
    {
        self.prepare(&socket);
        Watched::new(socket, reset, Arc::clone(&self.shared))
    }

    /// Watches a connection whose options are set. `reset` is the way to reset it.
    #[cfg(feature = "serve")]
    pub(crate) fn watch_prepared<IO>(&self, io: IO, reset: fn(&IO)) -> Watched<IO> {
        Watched::new(io, reset, Arc::clone(&self.shared))
    }

    #[cfg(feature = "serve")]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Watches a connection of any kind, such as the inside of TLS. Its bytes must be those of
    /// HTTP.
    pub fn watch<IO>(&self, io: IO) -> Watched<IO> {
        Watched::new(io, |_| (), Arc::clone(&self.shared))
    }

    /// Sets the options of a TCP socket: `TCP_NODELAY`, keepalive, and on Linux the limits of
    /// unsent bytes and of unacknowledged time. If an option cannot be set, this is logged at
    /// `DEBUG`.
    pub fn prepare<S>(&self, socket: &S)
    where
        for<'a> SockRef<'a>: From<&'a S>,
    {
        let socket = SockRef::from(socket);
        let log = |option: &str, result: io::Result<()>| {
            if let Err(error) = result {
                tracing::debug!(target: "sse_hub", option, %error, "socket option not set");
            }
        };
        if let Some(time) = self.shared.keepalive {
            let interval = (time / 4).max(Duration::from_secs(1));
            let probes = TcpKeepalive::new().with_time(time).with_interval(interval);
            log("keepalive", socket.set_tcp_keepalive(&probes));
        }
        #[cfg(target_os = "linux")]
        {
            let limit = Some(self.shared.limits.stalled);
            let limit = limit.filter(|&limit| limit <= MAX_USER_TIMEOUT);
            log("user timeout", socket.set_tcp_user_timeout(limit));
            log("notsent lowat", socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES));
        }
        // Last: a socket that inherits this option of a listener has inherited the others, too.
        log("nodelay", socket.set_tcp_nodelay(true));
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

/// Makes the system drop the unsent bytes of a socket when the socket is closed.
pub(crate) fn reset<IO>(socket: &IO)
where
    for<'a> SockRef<'a>: From<&'a IO>,
{
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(target: "sse_hub", %error, "connection closed without a reset");
    }
}

/// The most bytes that the system holds unsent for a socket. Without this limit, a peer that does
/// not read costs up to 4 MiB, and a slow reader seems to stand still: a socket has room again only
/// when a third of its buffer is free.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 64 << 10;

/// The longest `TCP_USER_TIMEOUT`: 31 bits of milliseconds.
#[cfg(target_os = "linux")]
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("limits", &self.shared.limits)
            .field("cuts", &self.cuts())
            .finish_non_exhaustive()
    }
}

/// Settings for a [`Watchdog`]. [`Duration::MAX`] turns a limit off.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::ManualTimer;
/// use sse_hub::watchdog::Watchdog;
///
/// let watchdog = Watchdog::builder(ManualTimer::new())
///     .stalled_after(Duration::from_secs(10))
///     .idle_after(Duration::MAX)
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
    /// receives the unread events when it reconnects.
    pub fn stalled_after(mut self, limit: Duration) -> Self {
        self.limits.stalled = limit;
        self
    }

    /// Sets how long the head of a request may take. The default is 30 seconds. The time of the
    /// first head begins with the connection, and the time of a later head with its first byte. It
    /// does not count while the server itself does not read.
    pub fn request_within(mut self, limit: Duration) -> Self {
        self.limits.request = limit;
        self
    }

    /// Sets how long no byte may move in either direction. The default is two minutes. The limit
    /// must be longer than the period of the [heartbeat](crate::Heartbeat), and longer than a
    /// handler may take to respond. Empty lines before a request do not count as movement.
    pub fn idle_after(mut self, limit: Duration) -> Self {
        self.limits.idle = limit;
        self
    }

    /// Sets the silence after which the system probes whether the peer is alive. The default is a
    /// minute.
    pub fn keepalive(mut self, after: Duration) -> Self {
        self.keepalive = Some(after).filter(|after| *after < Duration::MAX);
        self
    }

    /// Builds the watchdog.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a limit is zero: every connection would be cut at once.
    pub fn build(self) -> Result<Watchdog, ConfigError> {
        let SocketLimits { stalled, request, idle } = self.limits;
        let settings = [
            ("Watchdog::stalled_after", stalled),
            ("Watchdog::request_within", request),
            ("Watchdog::idle_after", idle),
            ("Watchdog::keepalive", self.keepalive.unwrap_or(Duration::MAX)),
        ];
        for (setting, limit) in settings {
            if limit.is_zero() {
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
