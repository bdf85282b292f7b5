use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::requests::Requests;
use crate::time::deadline::IdleDeadline;
use crate::time::timer::Timer;

/// The most bytes that the system holds unsent for a socket. Without this limit, a peer that does
/// not read costs up to 4 MiB, and a slow reader seems to stand still: a socket has room again only
/// when a third of the buffer is free.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 64 << 10;

/// The longest `TCP_USER_TIMEOUT`: 31 bits of milliseconds.
#[cfg(target_os = "linux")]
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// The state that a watchdog shares with the connections.
pub(crate) struct Shared {
    pub(super) timer: Box<dyn Timer>,
    pub(super) limits: SocketLimits,
    pub(super) keepalive: Option<Duration>,
    /// The number of cut connections, by [`Cut`].
    pub(super) cuts: [AtomicU64; 3],
}

impl Shared {
    /// Sets the options of a TCP socket.
    pub(super) fn prepare(&self, socket: &SockRef<'_>) {
        let log = |option: &str, result: io::Result<()>| {
            if let Err(error) = result {
                tracing::debug!(target: "sse_hub", option, %error, "socket option not set");
            }
        };
        log("nodelay", socket.set_tcp_nodelay(true));
        if let Some(time) = self.keepalive {
            let interval = (time / 4).max(Duration::from_secs(1));
            let probes = TcpKeepalive::new().with_time(time).with_interval(interval);
            log("keepalive", socket.set_tcp_keepalive(&probes));
        }
        #[cfg(target_os = "linux")]
        {
            let limit = self.limits.stalled.filter(|&limit| limit <= MAX_USER_TIMEOUT);
            log("user timeout", socket.set_tcp_user_timeout(limit));
            // Last, because `is_prepared` looks at this option for all.
            log("notsent lowat", socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES));
        }
    }

    fn count(&self, cut: Cut) {
        self.cuts[cut as usize].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "sse_hub", reason = cut.as_str(), "connection cut");
    }
}

/// Whether [`Watchdog::prepare`](super::Watchdog::prepare) set the options of the socket, or of the
/// listener from which the socket inherited the options. Only Linux is known to inherit all.
#[cfg(feature = "serve")]
pub(crate) fn is_prepared<S>(socket: &S) -> bool
where
    for<'a> SockRef<'a>: From<&'a S>,
{
    #[cfg(target_os = "linux")]
    {
        SockRef::from(socket).tcp_notsent_lowat().is_ok_and(|bytes| bytes == MAX_UNSENT_BYTES)
    }
    #[cfg(not(target_os = "linux"))]
    {
        _ = socket;
        false
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

/// The limits of a watchdog. `None` turns a limit off.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketLimits {
    pub(super) stalled: Option<Duration>,
    pub(super) request: Option<Duration>,
    pub(super) idle: Option<Duration>,
}

/// The reason for which a [`Watchdog`](super::Watchdog) cut a connection: the content of an
/// [`io::Error`] of kind `TimedOut`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Cut {
    /// The peer did not read: a write found no room for too long.
    #[error("connection cut: the peer does not read")]
    Stalled,
    /// The peer did not complete the head of a request in time.
    #[error("connection cut: the head of the request is incomplete")]
    NoRequest,
    /// No byte moved in either direction.
    #[error("connection cut: no byte moved in either direction")]
    Idle,
}

impl Cut {
    /// Returns the reason as one word, for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::NoRequest => "no-request",
            Self::Idle => "idle",
        }
    }
}

pin_project_lite::pin_project! {
    /// A connection under a [`Watchdog`](super::Watchdog). A single task must drive the connection,
    /// as servers do.
    ///
    /// After the cut, reads and writes fail with an error of kind
    /// [`TimedOut`](io::ErrorKind::TimedOut) that contains a [`Cut`].
    ///
    /// # Cancel safety
    ///
    /// The same as for the inner connection: `Watched` buffers no bytes.
    #[derive(Debug)]
    pub struct Watched<IO> {
        #[pin]
        io: IO,
        reset: fn(&IO),
        guard: Guard,
    }
}

impl<IO> Watched<IO> {
    /// `reset` makes a socket drop the unsent bytes when the socket is closed.
    pub(super) fn new(io: IO, reset: fn(&IO), shared: Arc<Shared>) -> Self {
        let now = shared.timer.now();
        let guard = Guard {
            shared,
            requests: Requests::new(now),
            waits_to_read: false,
            moved: now,
            writing: None,
            flushing: None,
            idle: IdleDeadline::new(None),
            cut: None,
        };
        Self { io, reset, guard }
    }

    /// Watches an accepted TCP connection. The cut is a reset.
    pub(super) fn tcp(socket: IO, shared: Arc<Shared>) -> Self
    where
        for<'a> SockRef<'a>: From<&'a IO>,
    {
        shared.prepare(&SockRef::from(&socket));
        Self::new(socket, reset, shared)
    }

    /// Returns the inner connection.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Ends the watch.
    #[cfg(feature = "serve")]
    pub(crate) fn into_inner(self) -> IO {
        self.io
    }

    /// Makes the connection drop the unsent bytes when the connection is closed.
    #[cfg(feature = "serve")]
    pub(crate) fn reset(&self) {
        (self.reset)(&self.io);
    }

    /// Begins the watch again, behind a request. `read` was read from the connection meanwhile, and
    /// was not yet taken for a request.
    #[cfg(feature = "serve")]
    pub(crate) fn resume(mut self, read: &[u8]) -> Self {
        self.guard.requests.between_requests();
        self.guard.has_read(read, true);
        self
    }
}

/// The progress and the deadlines of a connection.
struct Guard {
    shared: Arc<Shared>,
    requests: Requests,
    /// The last read found no bytes.
    waits_to_read: bool,
    /// The last time that a byte moved in either direction; at first, the time of the accept.
    moved: Instant,
    /// The time since which a write waits for room.
    writing: Option<Instant>,
    /// The time since which a flush or a shutdown waits. Apart from `writing`, because a TCP socket
    /// flushes at once even if a write has no room.
    flushing: Option<Instant>,
    /// Wakes the task at the next deadline.
    idle: IdleDeadline,
    cut: Option<Cut>,
}

impl Guard {
    fn now(&self) -> Instant {
        self.shared.timer.now()
    }

    fn has_read(&mut self, bytes: &[u8], is_ready: bool) {
        self.waits_to_read = !is_ready;
        if !bytes.is_empty() {
            let now = self.now();
            if self.requests.read(bytes, now) {
                self.moved = now;
            }
        }
    }

    fn has_written(&mut self, bytes: &[u8], is_ready: bool) {
        if is_ready {
            self.requests.written(bytes);
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

    /// Returns the next deadline, if no byte moves until then.
    fn next(&self) -> Option<(Instant, Cut)> {
        let SocketLimits { stalled, request, idle } = self.shared.limits;
        // While the server does not read, the rest of the head may wait in the system, for example
        // behind a stream that is still being sent. The peer is not late then.
        let head = self.requests.head_since().filter(|_| self.waits_to_read);
        let limits = [
            (self.writing, stalled, Cut::Stalled),
            (self.flushing, stalled, Cut::Stalled),
            (head, request, Cut::NoRequest),
            (Some(self.moved), idle, Cut::Idle),
        ];
        let ends = limits
            .into_iter()
            .filter_map(|(since, limit, cut)| Some((since?.checked_add(limit?)?, cut)));
        ends.min_by_key(|&(at, _)| at)
    }

    /// Returns ready when the connection must be cut. Must be called only while no byte moves.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        let Some((at, cut)) = self.next() else { return Poll::Pending };
        ready!(self.idle.poll(cx, &*self.shared.timer, Some(at)));
        self.cut = Some(cut);
        self.shared.count(cut);
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

impl<IO> Watched<IO> {
    /// Polls the inner connection, unless the connection was cut. Cuts if a deadline passed.
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
            let read = buf.filled().get(before..).unwrap_or_default();
            guard.has_read(read, polled.is_ready());
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
        self.poll_io(cx, |io, guard, cx| {
            let polled = io.poll_write(cx, buf);
            guard.has_written(buf, polled.is_ready());
            polled
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |io, guard, cx| {
            let polled = io.poll_write_vectored(cx, bufs);
            let first = bufs.iter().find(|buf| !buf.is_empty());
            guard.has_written(first.map_or(&[], |buf| buf), polled.is_ready());
            polled
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, |io, guard, cx| {
            let polled = io.poll_flush(cx);
            guard.has_flushed(polled.is_ready());
            polled
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, |io, guard, cx| {
            let polled = io.poll_shutdown(cx);
            guard.has_flushed(polled.is_ready());
            polled
        })
    }
}
