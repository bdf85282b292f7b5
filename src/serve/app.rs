//! The services that [`serve`](super::serve) takes.

use std::convert::Infallible;
use std::error::Error;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use ::axum::extract::connect_info::Connected;
use ::axum::serve::Listener;
use ::http::{Request, Response};
use axum_core::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tower_service::Service;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The service of a connection. Boxed: all other types of a connection know only its socket.
pub(super) type App = Box<dyn Fn(Request<RequestBody>) -> Responding + Send>;

pub(super) type Responding = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// A service of requests with the body `R`.
#[expect(unnameable_types, reason = "a short name for the bounds")]
pub trait Answers<R>:
    Service<
        Request<R>,
        Response = Response<<Self as Answers<R>>::Body>,
        Error: Into<BoxError>,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<R, B, S> Answers<R> for S
where
    S: Service<Request<R>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

fn app<R: 'static>(service: impl Answers<R>, body: fn(RequestBody) -> R) -> App {
    Box::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            let response = service.call(request.map(body)).await.map_err(Into::into)?;
            Ok(response.map(Body::new))
        })
    })
}

/// A value that [`serve`](super::serve) makes the services of connections from.
///
/// | value | such as |
/// |---|---|
/// | a service of axum's requests and responses | a `Router`, with its layers; a `MethodRouter` |
/// | a service that makes them from an [`IncomingStream`] | `into_make_service_with_connect_info` |
/// | any other tower service, if its body of a response is `Sync` and yields [`Bytes`] | `warp::service` |
///
/// `Kind` is inferred. Purposefully sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served",
    note = "a service must take `Request<axum::body::Body>` and return axum's `Response`, or take \
            `Request<sse_hub::serve::RequestBody>` and return a body of `Bytes` that is `Sync`",
    note = "for `into_make_service_with_connect_info::<C>()`, `C` must implement \
            `Connected<sse_hub::serve::IncomingStream<'_, L>>`"
)]
pub trait Serves<L: Listener, Kind>: sealed::Serves<L, Kind> {}

impl<L: Listener, Kind, M: sealed::Serves<L, Kind>> Serves<L, Kind> for M {}

/// The kinds of values that can be served, which tell the implementations of [`Serves`] apart.
pub mod kind {
    /// A service of axum's requests and responses.
    #[derive(Debug)]
    pub struct Axum(());

    /// A service that makes services of the type `S`.
    #[derive(Debug)]
    pub struct Make<S>(std::marker::PhantomData<S>);

    /// Any other tower service.
    #[derive(Debug)]
    pub struct Tower(());
}

pub(super) mod sealed {
    use super::{App, IncomingStream, Listener};

    #[expect(unnameable_types, reason = "the trait is a seal")]
    pub trait Serves<L: Listener, Kind>: Send + 'static {
        fn ready(&mut self) -> impl Future<Output = ()> + Send {
            std::future::ready(())
        }

        /// Call this after [`ready`](Self::ready).
        fn app(&mut self, stream: IncomingStream<'_, L>) -> impl Future<Output = App> + Send;
    }
}

impl<L: Listener, S: Answers<Body, Body = Body>> sealed::Serves<L, kind::Axum> for S {
    fn app(&mut self, _: IncomingStream<'_, L>) -> impl Future<Output = App> + Send {
        ready(app(self.clone(), Body::new))
    }
}

impl<L, M, S> sealed::Serves<L, kind::Make<S>> for M
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Response = S, Error = Infallible> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Answers<Body, Body = Body>,
{
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll_ready(cx)).await.unwrap_or_else(|never| match never {});
    }

    fn app(&mut self, stream: IncomingStream<'_, L>) -> impl Future<Output = App> + Send {
        let making = self.call(stream);
        async move { app(making.await.unwrap_or_else(|never| match never {}), Body::new) }
    }
}

impl<L, S> sealed::Serves<L, kind::Tower> for S
where
    L: Listener,
    // `Sync`, because axum's body is not: axum's services are of the other kind only.
    S: Answers<RequestBody, Body: Sync>,
{
    fn app(&mut self, _: IncomingStream<'_, L>) -> impl Future<Output = App> + Send {
        ready(app(self.clone(), |body| body))
    }
}

/// An accepted connection, from which a service that makes services makes the next.
///
/// This is `axum::serve::IncomingStream`, which only axum can create. For a type of your own in
/// `into_make_service_with_connect_info`, implement axum's `Connected` for both types.
#[derive(Debug)]
pub struct IncomingStream<'a, L: Listener> {
    pub(super) io: &'a L::Io,
    pub(super) remote_addr: &'a L::Addr,
}

impl<L: Listener> IncomingStream<'_, L> {
    /// Returns the connection.
    pub fn io(&self) -> &L::Io {
        self.io
    }

    /// Returns the address of the peer.
    pub fn remote_addr(&self) -> &L::Addr {
        self.remote_addr
    }
}

impl<L: Listener<Addr = Self>> Connected<IncomingStream<'_, L>> for SocketAddr {
    fn connect_info(stream: IncomingStream<'_, L>) -> Self {
        *stream.remote_addr()
    }
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    is_read: Arc<AtomicBool>,
}

impl RequestBody {
    /// Returns the body, and whether the body was read to the end.
    pub(super) fn new(body: Incoming) -> (Self, Arc<AtomicBool>) {
        let is_read = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, is_read: Arc::clone(&is_read) }, is_read)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let is_end = match &polled {
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            Poll::Ready(None) => true,
            _ => false,
        };
        self.is_read.fetch_or(is_end, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
