//! The services that [`serve`](super::serve) takes.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
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
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tower_service::Service;

type BoxError = Box<dyn Error + Send + Sync>;

/// The service of a connection.
#[expect(unnameable_types, reason = "the trait is a seal")]
pub trait App: Clone + Send + 'static {
    type Service: Service<
            Request<Self::RequestBody>,
            Response = Response<Self::Body>,
            Error: Into<BoxError>,
            Future: Send,
        > + Clone
        + Send
        + 'static;
    type RequestBody: Send + 'static;
    type Body: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static;

    fn service(&self) -> Self::Service;

    fn request(request: Request<RequestBody>) -> Request<Self::RequestBody>;
}

/// A service that takes axum's requests.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "only a seal names the type")]
pub struct AxumApp<S>(S);

impl<S> App for AxumApp<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Service = S;
    type RequestBody = Body;
    type Body = Body;

    fn service(&self) -> S {
        self.0.clone()
    }

    fn request(request: Request<RequestBody>) -> Request<Body> {
        request.map(Body::new)
    }
}

/// Any other tower service.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "only a seal names the type")]
pub struct TowerApp<S>(S);

impl<S, B> App for TowerApp<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Service = S;
    type RequestBody = RequestBody;
    type Body = B;

    fn service(&self) -> S {
        self.0.clone()
    }

    fn request(request: Request<RequestBody>) -> Request<RequestBody> {
        request
    }
}

/// A value that [`serve`](super::serve) makes the services of connections from.
///
/// | value | such as |
/// |---|---|
/// | a service of axum's requests and responses | a `Router`, with its layers; a `MethodRouter` |
/// | a service that makes them from an [`IncomingStream`] | `into_make_service_with_connect_info` |
/// | any other tower service, if its body of a response is `Sync` | `warp::service` |
///
/// `Kind` is inferred. Purposefully sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served",
    note = "a service must take `Request<axum::body::Body>` and return axum's `Response`, or take \
            `Request<sse_hub::serve::RequestBody>` and return a body that is `Sync`",
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
        type App: App;

        fn ready(&mut self) -> impl Future<Output = ()> + Send {
            std::future::ready(())
        }

        /// Call this after [`ready`](Self::ready).
        fn app(&mut self, stream: IncomingStream<'_, L>) -> impl Future<Output = Self::App> + Send;
    }
}

impl<L, S> sealed::Serves<L, kind::Axum> for S
where
    L: Listener,
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type App = AxumApp<S>;

    fn app(&mut self, _: IncomingStream<'_, L>) -> impl Future<Output = AxumApp<S>> + Send {
        std::future::ready(AxumApp(self.clone()))
    }
}

impl<L, M, S> sealed::Serves<L, kind::Make<S>> for M
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Response = S, Error = Infallible> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type App = AxumApp<S>;

    async fn ready(&mut self) {
        poll_fn(|cx| self.poll_ready(cx)).await.unwrap_or_else(|never| match never {});
    }

    fn app(&mut self, stream: IncomingStream<'_, L>) -> impl Future<Output = AxumApp<S>> + Send {
        let making = self.call(stream);
        async move { AxumApp(making.await.unwrap_or_else(|never| match never {})) }
    }
}

impl<L, S, B> sealed::Serves<L, kind::Tower> for S
where
    L: Listener,
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    // `Sync`, because axum's body is not: axum's services are of the other kind only.
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + Sync + 'static,
{
    type App = TowerApp<S>;

    fn app(&mut self, _: IncomingStream<'_, L>) -> impl Future<Output = TowerApp<S>> + Send {
        std::future::ready(TowerApp(self.clone()))
    }
}

/// An accepted connection, from which a service that makes services makes the next.
///
/// This is `axum::serve::IncomingStream`, which only axum can create. For a type of your own in
/// `into_make_service_with_connect_info`, implement axum's `Connected` for both types.
pub struct IncomingStream<'a, L: Listener> {
    io: &'a L::Io,
    remote_addr: &'a L::Addr,
}

impl<'a, L: Listener> IncomingStream<'a, L> {
    pub(super) fn new(io: &'a L::Io, remote_addr: &'a L::Addr) -> Self {
        Self { io, remote_addr }
    }

    /// Returns the connection.
    pub fn io(&self) -> &L::Io {
        self.io
    }

    /// Returns the address of the peer.
    pub fn remote_addr(&self) -> &L::Addr {
        self.remote_addr
    }
}

impl<L: Listener> fmt::Debug for IncomingStream<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream").finish_non_exhaustive()
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
    /// Whether the body was read to the end. `None` if the body is empty.
    is_read: Option<Arc<AtomicBool>>,
}

impl RequestBody {
    /// Returns the body, and a flag for the end of reading.
    pub(super) fn new(body: Incoming) -> (Self, Option<Arc<AtomicBool>>) {
        let is_empty = http_body::Body::is_end_stream(&body);
        let is_read = (!is_empty).then(Arc::default);
        (Self { body, is_read: is_read.clone() }, is_read)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let is_end = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => this.body.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if let Some(is_read) = this.is_read.as_ref().filter(|_| is_end) {
            is_read.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
