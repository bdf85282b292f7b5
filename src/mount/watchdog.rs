use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::ConfigError;
use crate::time::heartbeat::{Heartbeat, Silence};
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

struct Shared {
    timer: Box<dyn Timer>,
    limits: Limits,
    keepalive: Option<Duration>,
    /// By [`Cut`].
    cuts: [AtomicU64; 3],
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    stalled: Duration,
    request: Duration,
    idle: Duration,
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
        Watched { reset, ..self.watch(socket) }
    }

    /// Watches a connection of any kind, such as one inside of TLS. The bytes must be those of HTTP.
    pub fn watch<IO>(&self, io: IO) -> Watched<IO> {
        let now = self.shared.timer.now();
        let guard = Guard {
            shared: Arc::clone(&self.shared),
            request: Some(Request { since: now, begun: false, in_line: false }),
            moved: now,
            writing: None,
            flushing: None,
            silence: Silence::new(Heartbeat::off()),
            cut: None,
        };
        Watched { io, reset: |_| (), guard }
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
    /// [`Heartbeat`]'s silence, and more than a handler may take to answer.
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

/// Why a [`Watchdog`] cut a connection: what the [`io::Error`] of kind `TimedOut` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Cut {
    /// The peer took nothing of what was to be written.
    #[error("cut: the peer does not read what is written")]
    Stalled,
    /// The peer sent no whole request.
    #[error("cut: the peer sends no whole request")]
    NoRequest,
    /// Nothing moved.
    #[error("cut: nothing moved in either direction")]
    Idle,
}

impl Cut {
    /// One word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::NoRequest => "no-request",
            Self::Idle => "idle",
        }
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

pin_project_lite::pin_project! {
    /// A connection that a [`Watchdog`] watches. Made to be driven by one task, as servers do.
    ///
    /// Once it is cut, reading and writing fail with an error of kind [`TimedOut`](io::ErrorKind::TimedOut) that
    /// holds a [`Cut`].
    ///
    /// # Cancel safety
    ///
    /// That of the connection inside: the watchdog takes no bytes off it and keeps none.
    #[derive(Debug)]
    pub struct Watched<IO> {
        #[pin]
        io: IO,
        // Makes the socket drop what is unsent when it is closed.
        reset: fn(&IO),
        guard: Guard,
    }
}

impl<IO> Watched<IO> {
    /// The connection inside.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

/// What is known of a connection's movement.
struct Guard {
    shared: Arc<Shared>,
    /// Until the first request is there.
    request: Option<Request>,
    /// When bytes last moved, in either direction; at first, when it was accepted.
    moved: Instant,
    /// Since when a write has waited for room.
    writing: Option<Instant>,
    /// Since when a flush or a shutdown has. Apart from `writing`: a socket flushes at once whatever it has no room for.
    flushing: Option<Instant>,
    /// Waits for the limits, as a stream does for its end.
    silence: Silence,
    cut: Option<Cut>,
}

impl Guard {
    fn now(&self) -> Instant {
        self.shared.timer.now()
    }

    fn has_read(&mut self, bytes: &[u8]) {
        if self.request.as_mut().is_some_and(|request| request.ends_in(bytes)) {
            self.request = None;
        }
        self.moved = self.now();
    }

    fn has_written(&mut self, is_ready: bool) {
        if is_ready {
            self.writing = None;
            self.moved = self.now();
        } else if self.writing.is_none() {
            self.writing = Some(self.now());
        }
    }

    fn has_flushed(&mut self, is_ready: bool) {
        match (is_ready, self.flushing) {
            (false, None) => self.flushing = Some(self.now()),
            (true, Some(_)) => {
                self.flushing = None;
                self.moved = self.now();
            }
            (false, Some(_)) | (true, None) => {}
        }
    }

    /// What comes first if nothing moves any more.
    fn next(&self) -> Option<(Instant, Cut)> {
        let Limits { stalled, request, idle } = self.shared.limits;
        let asked = self.request.as_ref().map(|request| request.since);
        let limits = [
            (self.writing, stalled, Cut::Stalled),
            (self.flushing, stalled, Cut::Stalled),
            (asked, request, Cut::NoRequest),
            (Some(self.moved), idle, Cut::Idle),
        ];
        let ends = limits
            .into_iter()
            .filter_map(|(since, limit, cut)| Some((since?.checked_add(limit)?, cut)));
        ends.min_by_key(|&(at, _)| at)
    }

    /// Waits for the limits while the connection does not move: ready when it is to be cut.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        let Some((at, cut)) = self.next() else { return Poll::Pending };
        ready!(self.silence.poll(cx, &*self.shared.timer, Some(at)));
        self.cut = Some(cut);
        self.shared.cuts[cut as usize].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "sse_hub", reason = cut.as_str(), "connection cut");
        Poll::Ready(cut)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("writing", &self.writing)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

/// The first request of a connection, until its head has come whole: up to its blank line, which HTTP/2's preface has too.
#[derive(Debug)]
struct Request {
    since: Instant,
    /// There was something else than ends of lines: before the first line they mean nothing.
    begun: bool,
    /// The line has something in it.
    in_line: bool,
}

impl Request {
    fn ends_in(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| match byte {
            b'\n' => self.begun && !std::mem::take(&mut self.in_line),
            b'\r' => false,
            _ => {
                self.begun = true;
                self.in_line = true;
                false
            }
        })
    }
}

impl<IO> Watched<IO> {
    /// Does something to the connection unless it is cut, and cuts it if it does not move for too long.
    fn poll_io<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut IO>, &mut Guard, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut this = self.project();
        let cut = match this.guard.cut {
            Some(cut) => cut,
            None => {
                let polled = poll(this.io.as_mut(), this.guard, cx);
                if polled.is_ready() {
                    return polled;
                }
                let cut = ready!(this.guard.poll(cx));
                (this.reset)(&this.io);
                cut
            }
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, cut)))
    }

    fn poll_out<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<T>>,
        note: impl FnOnce(&mut Guard, bool),
    ) -> Poll<io::Result<T>> {
        self.poll_io(cx, |io, guard, cx| {
            let polled = poll(io, cx);
            note(guard, polled.is_ready());
            polled
        })
    }
}

impl<IO: AsyncRead> AsyncRead for Watched<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_io(cx, |io, guard, cx| {
            let before = buf.filled().len();
            let polled = io.poll_read(cx, buf);
            if let Some(read @ [_, ..]) = buf.filled().get(before..) {
                guard.has_read(read);
            }
            polled
        })
    }
}

impl<IO: AsyncWrite> AsyncWrite for Watched<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |io, cx| io.poll_write(cx, buf), Guard::has_written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |io, cx| io.poll_write_vectored(cx, bufs), Guard::has_written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx, AsyncWrite::poll_flush, Guard::has_flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx, AsyncWrite::poll_shutdown, Guard::has_flushed)
    }
}
