//! The task of a connection: under hyper, and while a stream is sent.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::server::conn::http1::{Parts, UpgradeableConnection};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt as _;

use super::app::App;
use super::link::{Link, Next, Service, Socket};
use super::open::{Open, Place, Stage};
use super::stream::{Io, Sent, Streaming, Unsent};
use crate::watchdog::Watched;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The task of a connection. A task keeps the memory of its largest state, and nearly all
/// connections send a stream: all other work is boxed.
pub(super) struct Connection<IO> {
    place: Place,
    stream: Option<Streaming<IO>>,
    work: Option<Work<IO>>,
}

/// Ends with the stream to send next, or with `None` when the connection is closed.
type Work<IO> = Pin<Box<dyn Future<Output = Option<Streaming<IO>>> + Send>>;

impl<IO: Io> Connection<IO> {
    /// A connection that was accepted.
    pub(super) fn accepted(io: IO, app: App, open: &Arc<Open>) -> Self {
        let work = serve(open.watch(io), app, Arc::clone(open));
        Self { place: Place::new(open), stream: None, work: Some(Box::pin(work)) }
    }

    /// A connection of HTTP/1, for whose requests `app` has a refusal.
    pub(super) fn refused(io: IO, app: App, open: &Arc<Open>) -> Self {
        let work = serve_http1(open.watch(io), Bytes::new(), app, Arc::clone(open));
        Self { place: Place::new(open), stream: None, work: Some(Box::pin(work)) }
    }
}

impl<IO: Io> Future for Connection<IO> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { place, stream, work } = &mut *self;
        loop {
            if let Some(working) = work {
                // A task has the same waker as long as it lives.
                place.set_waker(cx.waker());
                *stream = ready!(working.as_mut().poll(cx));
                *work = None;
            }
            let Some(streaming) = stream else { return Poll::Ready(()) };
            match ready!(streaming.poll(cx, place.open.stage())) {
                Ok(unsent) => {
                    let sending =
                        stream.take().map(|stream| send(stream, unsent, Arc::clone(&place.open)));
                    *work = sending.map(|sending| Box::pin(sending) as Work<IO>);
                }
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

/// Serves requests until a stream leaves hyper.
async fn serve<IO: Io>(mut io: Watched<IO>, app: App, open: Arc<Open>) -> Option<Streaming<IO>> {
    // A connection without a request closes, as under hyper.
    let (is_http2, read) = open.before(Stage::Ending, read_version(&mut io)).await??;
    if !is_http2 {
        return serve_http1(io, read, app, open).await;
    }
    let link = Link::new(true);
    let io = TokioIo::new(Socket { io, read, link: Arc::clone(&link) });
    let service = Service { app, open: Arc::clone(&open), link: Arc::clone(&link) };
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    // axum's server enables the protocol for WebSockets over HTTP/2, too.
    let http2 = http2.enable_connect_protocol().serve_connection(io, service);
    run(Box::pin(http2).as_mut(), http2::Connection::graceful_shutdown, &open, &link).await;
    None
}

/// Returns whether the client speaks HTTP/2, and the bytes that tell. Returns `None` if the
/// connection is lost.
async fn read_version<IO: Io>(io: &mut Watched<IO>) -> Option<(bool, Bytes)> {
    let mut read = [0; H2_PREFACE.len()];
    let mut len = 0;
    loop {
        // No more than axum's server reads here, and hyper gets these bytes alone: behind a part of
        // a head, hyper waits for the end of a damaged head. Behind all bytes, hyper would refuse
        // the head at once. hyper also decides about the end of the bytes.
        let count = io.read(&mut read[len..]).await.ok()?;
        len += count;
        let may_be_http2 = count > 0 && H2_PREFACE.starts_with(&read[..len]);
        if !may_be_http2 || len == read.len() {
            return Some((may_be_http2, Bytes::copy_from_slice(&read[..len])));
        }
    }
}

/// Serves requests of HTTP/1 until a stream leaves hyper.
async fn serve_http1<IO: Io>(
    io: Watched<IO>,
    read: Bytes,
    app: App,
    open: Arc<Open>,
) -> Option<Streaming<IO>> {
    let link = Link::new(false);
    let io = TokioIo::new(Socket { io, read, link: Arc::clone(&link) });
    let service = Service { app, open: Arc::clone(&open), link: Arc::clone(&link) };
    // The watchdog has the deadline of a head.
    let mut http1 = http1::Builder::new().serve_connection(io, service);
    match run(Pin::new(&mut http1), http1::Connection::graceful_shutdown, &open, &link).await? {
        Next::Stream(leaving) => {
            let Parts { io, read_buf, service, .. } = http1.into_parts();
            let Socket { io, read, .. } = io.into_inner();
            // The bytes of hyper come first. Copied, because they are a part of a large buffer.
            let read = [read_buf, read].concat();
            Some(Streaming::new(io.into_inner(), leaving, read, service.app))
        }
        Next::Upgrade => {
            link.is_hypers.store(true, Ordering::Relaxed);
            run(
                Box::pin(http1.with_upgrades()).as_mut(),
                UpgradeableConnection::graceful_shutdown,
                &open,
                &link,
            )
            .await;
            None
        }
    }
}

/// Polls hyper until the connection ends, or hyper waits for the connection's task. `end` begins
/// the end of the connection.
async fn run<C>(
    mut hyper: Pin<&mut C>,
    end: fn(Pin<&mut C>),
    open: &Open,
    link: &Link,
) -> Option<Next>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut is_ending = false;
    poll_fn(|cx| {
        let stage = open.stage();
        if stage == Stage::Over && link.has_stream() {
            return Poll::Ready(None);
        }
        if stage > Stage::Serving && !mem::replace(&mut is_ending, true) {
            end(hyper.as_mut());
        }
        match hyper.as_mut().poll(cx) {
            Poll::Pending => link.next().map_or(Poll::Pending, |next| Poll::Ready(Some(next))),
            Poll::Ready(ended) => {
                if let Err(error) = ended {
                    tracing::trace!(target: "sse_hub", %error, "connection failed");
                }
                Poll::Ready(None)
            }
        }
    })
    .await
}

/// Sends bytes of a stream, and goes on with the stream or with the requests behind it.
async fn send<IO: Io>(
    stream: Streaming<IO>,
    unsent: Unsent,
    open: Arc<Open>,
) -> Option<Streaming<IO>> {
    match stream.send_rest(unsent, &open).await? {
        Sent::Item(stream) => Some(stream),
        Sent::Stream { io, read, app } => {
            let io = open.watch(io).resume(&read);
            // Boxed, because this future also belongs to each client that does not read.
            Box::pin(serve_http1(io, read, app, open)).await
        }
    }
}
