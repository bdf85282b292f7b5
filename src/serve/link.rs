//! The parts of a connection that hyper holds, and the way of a stream out of hyper.
//!
//! hyper calls [`Service`] and gets an [`Answer`]. When hyper asks the answer to be a stream for
//! the first frame, the body goes to the [`Link`]. From then on, [`Socket`] keeps the bytes that
//! hyper writes, and the connection's task takes all of them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
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
    next: Mutex<Option<Next>>,
    /// hyper keeps the connection to the end: HTTP/2, or the protocol may change.
    pub(super) is_hypers: AtomicBool,
    /// The streams of this crate that hyper sends have clones.
    streams: Arc<()>,
}

/// The work of the connection's task after hyper has done all that hyper can do.
pub(super) enum Next {
    /// Take the connection, and send the stream.
    Stream(Leaving),
    /// Let hyper change the protocol.
    Upgrade,
}

/// A stream that leaves hyper, because hyper has encoded the head.
pub(super) struct Leaving {
    pub(super) body: Body,
    /// hyper's rule for a body of unknown length: chunks, or the end of the connection.
    pub(super) is_chunked: bool,
    /// The bytes that hyper has written since, up to the end of the head: the head leaves in the
    /// same packet as the first item.
    pub(super) head: Vec<u8>,
}

impl Link {
    pub(super) fn new(is_hypers: bool) -> Arc<Self> {
        let (next, is_hypers) = (Mutex::new(None), is_hypers.into());
        Arc::new(Self { next, is_hypers, streams: Arc::default() })
    }

    /// Whether hyper sends a stream of this crate.
    pub(super) fn has_stream(&self) -> bool {
        Arc::strong_count(&self.streams) > 1
    }

    /// Must be called after each poll of hyper: hyper waits for the work.
    pub(super) fn next(&self) -> Option<Next> {
        self.next.lock().take()
    }

    /// Ready when hyper can change the protocol. No waker: the connection's task polls again.
    fn poll_upgrade(&self) -> Poll<()> {
        if self.is_hypers.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *self.next.lock() = Some(Next::Upgrade);
        Poll::Pending
    }

    /// Keeps the bytes, if a stream is leaving. Otherwise they are for the connection.
    fn keep(&self, bytes: &[IoSlice<'_>]) -> Option<usize> {
        let mut next = self.next.lock();
        let Some(Next::Stream(Leaving { head, .. })) = &mut *next else { return None };
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
                poll_fn(|_| link.poll_upgrade()).await;
            }
            let (mut leaves, mut stays) = (None, None);
            if let Some(Direct { hub }) = response.extensions_mut().remove() {
                hub.into_iter().for_each(|hub| open.remember(hub));
                if link.is_hypers.load(Ordering::Relaxed)
                    || is_connect
                    || method == Method::HEAD
                    || !is_read.load(Ordering::Relaxed)
                    || has_other_framing(&response)
                {
                    stays = Some(Arc::clone(&link.streams));
                } else {
                    let is_chunked = ![version, response.version()].contains(&Version::HTTP_10);
                    leaves = Some((link, is_chunked));
                }
            }
            Ok(response.map(|body| Answer { body: Some(body), leaves, _stays: stays }))
        })
    }
}

/// Whether a body is of known length, of changed bytes, or with trailers.
fn has_other_framing(response: &Response<Body>) -> bool {
    [CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER]
        .iter()
        .any(|name| response.headers().contains_key(name))
        || response.body().is_end_stream()
        || response.body().size_hint().exact().is_some()
}

/// The body of a response, for hyper.
pub(super) struct Answer {
    /// `None` once the body has left hyper.
    body: Option<Body>,
    /// The link by which the body leaves as soon as hyper asks for the first frame, and whether the
    /// body is sent in chunks.
    leaves: Option<(Arc<Link>, bool)>,
    /// See [`Link::has_stream`].
    _stays: Option<Arc<()>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum_core::Error>>> {
        let Self { body, leaves, .. } = &mut *self;
        if let Some((link, is_chunked)) = leaves {
            if let Some(body) = body.take() {
                let leaving = Leaving { body, is_chunked: *is_chunked, head: Vec::new() };
                *link.next.lock() = Some(Next::Stream(leaving));
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
