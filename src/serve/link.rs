//! The parts of a connection that hyper holds, and the way of a stream out of hyper.
//!
//! hyper calls [`Service`] and gets an [`Answer`]. When hyper asks the answer to be a stream for the
//! first frame, the body goes to the [`Link`]. From then on, [`Socket`] keeps the bytes that hyper
//! writes, and the connection's task takes all of them.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use ::http::{Method, Request, Response, StatusCode, Version};
use axum_core::body::Body;
use bytes::{Buf as _, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::app::{App, BoxError, RequestBody};
use super::open::Open;
use crate::mount::http::Direct;
use crate::sync::Mutex;
use crate::watchdog::Watched;

/// The state that hyper's parts of a connection share with the connection's task.
pub(super) struct Link {
    state: Mutex<State>,
    /// hyper sends a stream of this crate.
    has_stream: AtomicBool,
}

enum State {
    /// A stream may leave hyper.
    Ordinary,
    /// hyper has encoded the head of this stream.
    Leaving(Leaving),
    /// A response that changes the protocol waits for [`Next::Upgrade`].
    UpgradeWanted,
    /// hyper keeps the connection to the end: HTTP/2, or the protocol may change.
    Hypers,
}

/// A stream that leaves hyper.
pub(super) struct Leaving {
    pub(super) body: Body,
    /// hyper's rule for a body of unknown length: chunks, or the end of the connection.
    pub(super) is_chunked: bool,
    /// The bytes that hyper has written since, up to the end of the head: the head leaves in the
    /// same packet as the first item.
    pub(super) head: Vec<u8>,
}

/// A task for the connection after hyper has done all that it can do.
pub(super) enum Next {
    /// Take the connection, and send the stream.
    Stream(Leaving),
    /// Let hyper change the protocol.
    Upgrade,
}

impl Link {
    pub(super) fn http1() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Ordinary), has_stream: AtomicBool::new(false) })
    }

    pub(super) fn http2() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Hypers), has_stream: AtomicBool::new(false) })
    }

    pub(super) fn has_stream(&self) -> bool {
        self.has_stream.load(Ordering::Relaxed)
    }

    /// Must be called after each poll of hyper: hyper waits for the result.
    pub(super) fn next(&self) -> Option<Next> {
        let mut state = self.state.lock();
        match mem::replace(&mut *state, State::Hypers) {
            State::Leaving(leaving) => Some(Next::Stream(leaving)),
            State::UpgradeWanted => Some(Next::Upgrade),
            other => {
                *state = other;
                None
            }
        }
    }

    fn is_hypers(&self) -> bool {
        matches!(*self.state.lock(), State::Hypers)
    }

    /// Ready when hyper can change the protocol. No waker: the connection's task polls again.
    fn poll_upgrade(&self) -> Poll<()> {
        let mut state = self.state.lock();
        if matches!(*state, State::Hypers) {
            return Poll::Ready(());
        }
        *state = State::UpgradeWanted;
        Poll::Pending
    }

    /// Keeps the bytes, if a stream is leaving. Otherwise they are for the connection.
    fn keep(&self, bytes: &[IoSlice<'_>]) -> Option<usize> {
        let mut state = self.state.lock();
        let State::Leaving(Leaving { head, .. }) = &mut *state else { return None };
        let before = head.len();
        bytes.iter().for_each(|bytes| head.extend_from_slice(bytes));
        Some(head.len() - before)
    }
}

/// The service that hyper calls: the application's, with a look at each response.
pub(super) struct Service {
    pub(super) app: App,
    pub(super) open: Arc<Open>,
    pub(super) link: Arc<Link>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (version, method) = (request.version(), request.method().clone());
        let (parts, body) = request.into_parts();
        let (body, is_read) = RequestBody::new(body);
        let responding = (self.app)(Request::from_parts(parts, body));
        let (open, link) = (Arc::clone(&self.open), Arc::clone(&self.link));
        Box::pin(async move {
            let mut response = responding.await?;
            let (status, is_connect) = (response.status(), method == Method::CONNECT);
            if status == StatusCode::SWITCHING_PROTOCOLS || is_connect && status.is_success() {
                std::future::poll_fn(|_| link.poll_upgrade()).await;
            }
            let mut leaves = None;
            if let Some(Direct { hub }) = response.extensions_mut().remove() {
                hub.into_iter().for_each(|hub| open.remember(hub));
                // A request for no body, or whose body is still to be read, is hyper's.
                let is_hypers = is_connect
                    || method == Method::HEAD
                    || !is_read.load(Ordering::Relaxed)
                    || link.is_hypers();
                let is_chunked = is_chunked(version, &response).filter(|_| !is_hypers);
                leaves = is_chunked.map(|is_chunked| (Arc::clone(&link), is_chunked));
                link.has_stream.fetch_or(leaves.is_none(), Ordering::Relaxed);
            }
            Ok(response.map(|body| Answer { body: Some(body), leaves }))
        })
    }
}

/// Returns whether a stream is sent in chunks. Returns `None` if hyper must send the stream: a body
/// of known length, of changed bytes, or with trailers.
fn is_chunked(version: Version, response: &Response<Body>) -> Option<bool> {
    let body = response.body();
    if [CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER]
        .iter()
        .any(|name| response.headers().contains_key(name))
        || body.is_end_stream()
        || body.size_hint().exact().is_some()
    {
        return None;
    }
    match (version, response.version()) {
        (Version::HTTP_11, Version::HTTP_10) | (Version::HTTP_10, _) => Some(false),
        (Version::HTTP_11, _) => Some(true),
        _ => None,
    }
}

/// The body of a response, for hyper.
pub(super) struct Answer {
    /// `None` once the body has left hyper.
    body: Option<Body>,
    /// The link by which the body leaves as soon as hyper asks for the first frame, and whether the
    /// body is sent in chunks.
    leaves: Option<(Arc<Link>, bool)>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum_core::Error>>> {
        let Self { body, leaves } = &mut *self;
        if let Some((link, is_chunked)) = leaves {
            if let Some(body) = body.take() {
                let leaving = Leaving { body, is_chunked: *is_chunked, head: Vec::new() };
                *link.state.lock() = State::Leaving(leaving);
            }
            // No waker: the connection's task takes the body after this poll.
            return Poll::Pending;
        }
        body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// The connection for hyper.
pub(super) struct Socket<IO> {
    pub(super) io: Watched<IO>,
    /// Bytes that were read from the connection before.
    pub(super) read: Bytes,
    pub(super) link: Arc<Link>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Socket<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Socket<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.link.keep(&[IoSlice::new(buf)]) {
            Some(kept) => Poll::Ready(Ok(kept)),
            None => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.link.keep(bufs) {
            Some(kept) => Poll::Ready(Ok(kept)),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
