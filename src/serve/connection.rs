//! A connection under hyper.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::Answers;
use super::app::App;
use super::link::{Link, Socket};
use super::open::{Place, Stage};
use super::socket;
use super::stream::{Kept, Streaming};
use crate::watchdog::Watched;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The task of a connection under hyper.
pub(super) struct Connection<IO, A: App> {
    /// `None` once the connection has another task.
    place: Option<Place>,
    phase: Phase<IO, A>,
    is_ending: bool,
    /// hyper sends a stream of this crate.
    has_stream: Arc<AtomicBool>,
}

enum Phase<IO, A: App> {
    /// The first bytes tell the version.
    Unknown {
        io: Box<Watched<IO>>,
        read: BytesMut,
        app: A,
    },
    Http1 {
        http1: Box<Http1<IO, A>>,
        link: Arc<Link<A::Body>>,
    },
    /// hyper has the connection to the end.
    Hypers(Pin<Box<dyn Hypers>>),
    Done,
}

/// All pinned parts have a `Pin` of their own.
impl<IO, A: App> Unpin for Connection<IO, A> {}

type Io<IO, A> = TokioIo<Socket<Watched<IO>, <A as App>::Body>>;
type Http1<IO, A> = http1::Connection<Io<IO, A>, Answers<A>>;

impl<IO, A> Connection<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    /// A connection that was accepted.
    pub(super) fn accepted(io: IO, place: Place, app: A) -> Self {
        let io = place.open().watchdog().watch_prepared(io, socket::reset);
        let phase = Phase::Unknown { io: Box::new(io), read: BytesMut::new(), app };
        Self { place: Some(place), phase, is_ending: false, has_stream: Arc::default() }
    }

    /// A connection after a stream.
    fn resumed(kept: Kept<IO, A>) -> Self {
        let Kept { io, read, place, app } = kept;
        let place = place.moved();
        let io = place.open().watchdog().watch_prepared(io, socket::reset).resume(&read);
        let has_stream = Arc::default();
        let phase = Phase::http1(io, read, app, &place, &has_stream);
        Self { place: Some(place), phase, is_ending: false, has_stream }
    }

    /// Returns the future for a stream, which needs a smaller task than this one.
    fn take_over(&mut self) -> Option<Streaming<IO, A>> {
        let Phase::Http1 { link, .. } = &self.phase else { return None };
        let (offer, written) = link.take()?;
        let Phase::Http1 { http1, .. } = mem::replace(&mut self.phase, Phase::Done) else {
            unreachable!("the phase was just looked at");
        };
        let parts = http1.into_parts();
        let (io, unread) = parts.io.into_inner().into_parts();
        // The bytes of hyper come first. Copied, because they are a part of hyper's large buffer.
        let read = [parts.read_buf, unread].concat().into();
        let keeps_alive = offer.keeps_alive(&written) && !self.is_ending;
        let app = keeps_alive.then(|| parts.service.into_app());
        let place = self.place.take()?.moved();
        Some(Streaming::new(io.into_inner(), offer, written, read, place, app))
    }
}

impl<IO, A> Phase<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    fn http1(
        io: Watched<IO>,
        read: Bytes,
        app: A,
        place: &Place,
        has_stream: &Arc<AtomicBool>,
    ) -> Self {
        let link = Arc::new(Link::new());
        let io = TokioIo::new(Socket::new(io, read, Arc::clone(&link)));
        let open = Arc::clone(place.open());
        let answers = Answers::new(app, open, Some(Arc::clone(&link)), Arc::clone(has_stream));
        // The watchdog has the deadline of a head.
        let http1 = http1::Builder::new().serve_connection(io, answers);
        Self::Http1 { http1: Box::new(http1), link }
    }

    fn http2(
        io: Watched<IO>,
        read: Bytes,
        app: A,
        place: &Place,
        has_stream: &Arc<AtomicBool>,
    ) -> Self {
        let io = TokioIo::new(Socket::new(io, read, Arc::new(Link::new())));
        let answers = Answers::new(app, Arc::clone(place.open()), None, Arc::clone(has_stream));
        // axum's server enables the protocol for WebSockets over HTTP/2, too.
        let http2 = http2::Builder::new(TokioExecutor::new())
            .enable_connect_protocol()
            .serve_connection(io, answers);
        Self::Hypers(Box::pin(http2))
    }
}

impl<IO, A> Future for Connection<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(place) = &mut this.place else { return Poll::Ready(()) };
        let stage = place.poll_stage(cx.waker());
        if stage == Stage::Over && this.has_stream.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let ends_now = stage > Stage::Serving && !mem::replace(&mut this.is_ending, true);
        this.is_ending = stage > Stage::Serving;
        if let Phase::Unknown { io, read, .. } = &mut this.phase {
            // A connection without a request closes, as under hyper.
            if ends_now && read.is_empty() {
                return Poll::Ready(());
            }
            let Some(is_http2) = ready!(poll_version(cx, io, read)) else {
                return Poll::Ready(());
            };
            let Phase::Unknown { io, read, app } = mem::replace(&mut this.phase, Phase::Done)
            else {
                unreachable!("the phase was just looked at");
            };
            let make = if is_http2 { Phase::http2 } else { Phase::http1 };
            this.phase = make(*io, read.freeze(), app, place, &this.has_stream);
            if this.is_ending {
                this.phase.end();
            }
        } else if ends_now {
            this.phase.end();
        }
        loop {
            match &mut this.phase {
                Phase::Http1 { http1, link } => {
                    let polled = Pin::new(&mut **http1).poll(cx);
                    log(&polled);
                    if polled.is_ready() {
                        return Poll::Ready(());
                    }
                    if !link.wants_upgrade() {
                        break;
                    }
                    link.allow_upgrade();
                    let Phase::Http1 { http1, .. } = mem::replace(&mut this.phase, Phase::Done)
                    else {
                        unreachable!("the phase was just looked at");
                    };
                    this.phase = Phase::Hypers(Box::pin(http1.with_upgrades()));
                }
                Phase::Hypers(conn) => {
                    let polled = conn.as_mut().poll(cx);
                    log(&polled);
                    return polled.map(drop);
                }
                Phase::Unknown { .. } | Phase::Done => return Poll::Ready(()),
            }
        }
        match this.take_over() {
            Some(streaming) => {
                tokio::spawn(StreamTask { streaming });
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }
}

impl<IO, A> Phase<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    fn end(&mut self) {
        match self {
            Self::Http1 { http1, .. } => Pin::new(&mut **http1).graceful_shutdown(),
            Self::Hypers(conn) => conn.as_mut().end(),
            Self::Unknown { .. } | Self::Done => {}
        }
    }
}

fn log(polled: &Poll<hyper::Result<()>>) {
    if let Poll::Ready(Err(error)) = polled {
        tracing::trace!(target: "sse_hub", %error, "connection failed");
    }
}

/// Returns whether the client speaks HTTP/2, or `None` if the connection is closed.
fn poll_version<IO: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    io: &mut Watched<IO>,
    read: &mut BytesMut,
) -> Poll<Option<bool>> {
    loop {
        // No more than axum's server reads here: how hyper takes a damaged head depends on the
        // pieces in which the head comes.
        let mut bytes = [0; H2_PREFACE.len()];
        let mut buf = ReadBuf::new(&mut bytes[read.len()..]);
        match ready!(Pin::new(&mut *io).poll_read(cx, &mut buf)) {
            Err(_) => return Poll::Ready(None),
            // hyper decides about the end of the bytes.
            Ok(()) if buf.filled().is_empty() => return Poll::Ready(Some(false)),
            Ok(()) => read.extend_from_slice(buf.filled()),
        }
        if !H2_PREFACE.starts_with(read) {
            return Poll::Ready(Some(false));
        }
        if read.len() == H2_PREFACE.len() {
            return Poll::Ready(Some(true));
        }
    }
}

/// A connection that stays with hyper: HTTP/2, or a change of the protocol.
trait Hypers: Future<Output = hyper::Result<()>> + Send {
    /// Ends the connection after the responses under way.
    fn end(self: Pin<&mut Self>);
}

impl<IO, A> Hypers for http1::UpgradeableConnection<Io<IO, A>, Answers<A>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<IO, A> Hypers for http2::Connection<Io<IO, A>, Answers<A>, TokioExecutor>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

pin_project_lite::pin_project! {
    /// The task of a connection while a stream is sent. The connection has another task before and
    /// after, because a task keeps the memory of the largest state.
    struct StreamTask<IO, A: App> {
        #[pin]
        streaming: Streaming<IO, A>,
    }
}

impl<IO, A> Future for StreamTask<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(kept) = ready!(self.project().streaming.poll(cx)) {
            tokio::spawn(Connection::resumed(kept));
        }
        Poll::Ready(())
    }
}
