use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::requests::Requests;
use crate::time::deadline::IdleDeadline;
use crate::time::timer::Timer;

/// The state that a watchdog shares with its connections.
pub(crate) struct Shared {
    pub(super) timer: Box<dyn Timer>,
    pub(super) limits: SocketLimits,
    pub(super) keepalive: Option<Duration>,
    /// The number of cut connections, by [`Cut`].
    pub(super) cuts: [AtomicU64; 3],
}

impl Shared {
    fn count(&self, cut: Cut) {
        self.cuts[cut as usize].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "sse_hub", reason = cut.as_str(), "connection cut");
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct SocketLimits {
    pub(super) stalled: Duration,
    pub(super) request: Duration,
    pub(super) idle: Duration,
}

/// The reason for which a [`Watchdog`](super::Watchdog) cut a connection. The [`io::Error`] of kind
/// `TimedOut` contains it.
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
    /// A connection under a [`Watchdog`](super::Watchdog). One task must drive it, as servers do.
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
    /// `reset` makes the socket drop its unsent bytes when it is closed.
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

    /// Returns the inner connection.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Ends the watch.
    #[cfg(feature = "serve")]
    pub(crate) fn into_inner(self) -> IO {
        self.io
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

/// A write that waits for room, outside of a [`Watched`].
#[cfg(feature = "serve")]
pub(crate) struct Waiting {
    since: Instant,
    idle: IdleDeadline,
}

#[cfg(feature = "serve")]
impl Waiting {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { since: shared.timer.now(), idle: IdleDeadline::new(None) }
    }

    /// Ready when the connection must be cut. The cut is then counted.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<()> {
        let Some(at) = self.since.checked_add(shared.limits.stalled) else { return Poll::Pending };
        ready!(self.idle.poll(cx, &*shared.timer, Some(at)));
        shared.count(Cut::Stalled);
        Poll::Ready(())
    }
}

/// The progress of a connection, and its deadlines.
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
            .filter_map(|(since, limit, cut)| Some((since?.checked_add(limit)?, cut)));
        ends.min_by_key(|&(at, _)| at)
    }

    /// Ready when the connection must be cut. Call it only while no byte moves.
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
    /// Polls the inner connection unless it was cut, and cuts it if a deadline passed.
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
