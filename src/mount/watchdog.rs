use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::watched::{Cut, Limits, Shared, Watched};
use crate::error::ConfigError;
use crate::time::timer::Timer;

/// Cuts connections that do not move.
///
/// A server does not ask a stream for more while its client reads nothing, so nothing inside the stream can tell. The hub
/// [forgets such a client](crate::HubBuilder::stalled_after), and its socket stays with the server. A watchdog stands
/// around the socket, where it sees whether bytes move, and cuts the connection when they do not:
///
/// - **stalled**: what is to be written has found no room for [`stalled_after`](WatchdogBuilder::stalled_after). A system
///   takes megabytes for a peer that does not read before it has no room. On Linux it is told to hold 64 KiB at most that it
///   could not send (`TCP_NOTSENT_LOWAT`), and to give up a peer that has not acknowledged what was sent, or not made
///   room for more, within the same limit (`TCP_USER_TIMEOUT`): that ends streams of little traffic.
/// - **no request**: the first request has not come whole within [`request_within`](WatchdogBuilder::request_within).
/// - **idle**: nothing has moved in either direction for [`idle_after`](WatchdogBuilder::idle_after): a connection that is
///   kept alive for a next request, or whose peer is gone without a word. Streams have their heartbeats.
///
/// With axum's server (feature `axum-serve`):
///
/// ```no_run
/// # #[cfg(feature = "axum-serve")]
/// # async fn serve(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// use sse_hub::{TokioTimer, Watchdog};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// let watchdog = Watchdog::builder(TokioTimer::new()).build()?;
/// axum::serve(watchdog.listen(listener), app).await?;
/// # Ok(())
/// # }
/// ```
///
/// With hyper, or warp's service in hyper, watch each connection that was accepted: [`watch_tcp`](Self::watch_tcp), or
/// [`prepare`](Self::prepare) and [`watch`](Self::watch) around TLS.
///
/// It sees connections and not streams: of several streams in one connection of HTTP/2 one can stall while the others
/// move. Then the hub forgets its client, and what the server holds for it is bounded by the window of that stream.
///
/// Clones share the settings and the [counts](Self::cuts).
#[derive(Clone)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

impl Watchdog {
    /// Starts with a timer, and usual limits.
    pub fn builder(timer: impl Timer) -> WatchdogBuilder {
        let limits = Limits {
            stalled: Duration::from_secs(30),
            request: Duration::from_secs(30),
            idle: Duration::from_secs(120),
        };
        let keepalive = Some(Duration::from_secs(60));
        WatchdogBuilder { timer: Box::new(timer), limits, keepalive }
    }

    /// Watches a connection just accepted: sets its [options](Self::prepare), and when it is cut resets it, so that nothing
    /// of it is left in the system either.
    pub fn watch_tcp<IO>(&self, socket: IO) -> Watched<IO>
    where
        for<'a> SockRef<'a>: From<&'a IO>,
    {
        self.prepare(&socket);
        let reset = |socket: &IO| {
            if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%error, "a connection is not reset but closed");
            }
        };
        Watched::new(socket, reset, Arc::clone(&self.shared))
    }

    /// Watches a connection of any kind, such as one inside of TLS. The bytes must be those of HTTP.
    pub fn watch<IO>(&self, io: IO) -> Watched<IO> {
        Watched::new(io, |_| (), Arc::clone(&self.shared))
    }

    /// Sets the options of a TCP socket: no delay for small writes, keepalive, and on Linux how much the system holds unsent
    /// and when it gives up a peer that does not answer. One that cannot be set is left, and told at `DEBUG`.
    pub fn prepare<S>(&self, socket: &S)
    where
        for<'a> SockRef<'a>: From<&'a S>,
    {
        let socket = SockRef::from(socket);
        let told = |option: &str, result: io::Result<()>| {
            if let Err(error) = result {
                tracing::debug!(option, %error, "a socket's option cannot be set");
            }
        };
        told("nodelay", socket.set_tcp_nodelay(true));
        if let Some(time) = self.shared.keepalive {
            let interval = (time / 4).max(Duration::from_secs(1));
            let probes = TcpKeepalive::new().with_time(time).with_interval(interval);
            told("keepalive", socket.set_tcp_keepalive(&probes));
        }
        #[cfg(target_os = "linux")]
        {
            let limit = Some(self.shared.limits.stalled).filter(|&limit| limit <= LONGEST);
            told("user timeout", socket.set_tcp_user_timeout(limit));
            told("unsent", socket.set_tcp_notsent_lowat(UNSENT));
        }
    }

    /// How many connections were cut so far.
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

/// How many bytes the system holds that it could not send. Without it a peer that does not read is given up to 4 MiB, and
/// one that reads slowly seems to stand still: a socket has room again when a third of that is free.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 << 10;

/// The longest time that the system can be told, in milliseconds of 31 bits.
#[cfg(target_os = "linux")]
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("limits", &self.shared.limits)
            .field("cuts", &self.cuts())
            .finish_non_exhaustive()
    }
}

/// Settings for a [`Watchdog`]. [`Duration::MAX`] makes a limit none.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct WatchdogBuilder {
    timer: Box<dyn Timer>,
    limits: Limits,
    keepalive: Option<Duration>,
}

impl WatchdogBuilder {
    /// How long a write may wait for room: 30 seconds, unless set. What a client has not read by then it gets when it
    /// comes back.
    pub fn stalled_after(mut self, limit: Duration) -> Self {
        self.limits.stalled = limit;
        self
    }

    /// How long the head of a connection's first request may take: 30 seconds, unless set.
    pub fn request_within(mut self, limit: Duration) -> Self {
        self.limits.request = limit;
        self
    }

    /// How long a connection may stand still in both directions: two minutes, unless set. It must be more than the
    /// [heartbeat](crate::Heartbeat)'s silence, and more than a handler may take to answer.
    pub fn idle_after(mut self, limit: Duration) -> Self {
        self.limits.idle = limit;
        self
    }

    /// After how much silence the system asks whether the peer is still there: a minute, unless set.
    pub fn keepalive(mut self, after: Duration) -> Self {
        self.keepalive = Some(after).filter(|after| *after < Duration::MAX);
        self
    }

    /// Builds the watchdog.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], when a limit is zero: every connection would be cut at once.
    pub fn build(self) -> Result<Watchdog, ConfigError> {
        let Limits { stalled, request, idle } = self.limits;
        let settings = [
            ("Watchdog::stalled_after", stalled),
            ("Watchdog::request_within", request),
            ("Watchdog::idle_after", idle),
            ("Watchdog::keepalive", self.keepalive.unwrap_or(Duration::MAX)),
        ];
        for (setting, limit) in settings {
            if limit.is_zero() {
                return Err(ConfigError::EndsAtOnce(setting));
            }
        }
        let Self { timer, limits, keepalive } = self;
        let cuts = Default::default();
        Ok(Watchdog { shared: Arc::new(Shared { timer, limits, keepalive, cuts }) })
    }
}

/// How many connections a [`Watchdog`] has cut, by [`Cut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Cuts {
    /// See [`Cut::Stalled`].
    pub stalled: u64,
    /// See [`Cut::NoRequest`].
    pub no_request: u64,
    /// See [`Cut::Idle`].
    pub idle: u64,
}
