use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::time::deadline::IdleDeadline;
use crate::time::heartbeat::Heartbeat;
use crate::time::timer::Timer;

/// What a watchdog and its connections share.
pub(super) struct Shared {
    pub(super) timer: Box<dyn Timer>,
    pub(super) limits: Limits,
    pub(super) keepalive: Option<Duration>,
    /// By [`Cut`].
    pub(super) cuts: [AtomicU64; 3],
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) stalled: Duration,
    pub(super) request: Duration,
    pub(super) idle: Duration,
}

/// Why a [`Watchdog`](crate::Watchdog) cut a connection: what the [`io::Error`] of kind `TimedOut` holds.
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

pin_project_lite::pin_project! {
    /// A connection that a [`Watchdog`](crate::Watchdog) watches. Made to be driven by one task, as servers do.
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
        reset: fn(&IO),
        guard: Guard,
    }
}

impl<IO> Watched<IO> {
    /// `reset` makes the socket drop what is unsent when it is closed.
    pub(super) fn new(io: IO, reset: fn(&IO), shared: Arc<Shared>) -> Self {
        let now = shared.timer.now();
        let guard = Guard {
            shared,
            request: Some(Request { since: now, begun: false, in_line: false }),
            moved: now,
            writing: None,
            flushing: None,
            idle: IdleDeadline::new(Heartbeat::disabled()),
            cut: None,
        };
        Self { io, reset, guard }
    }

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
    idle: IdleDeadline,
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
        ready!(self.idle.poll(cx, &*self.shared.timer, Some(at)));
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
