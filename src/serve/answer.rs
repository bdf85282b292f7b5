//! The service that hyper calls: the application's, with a look at each response.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, TRAILER, TRANSFER_ENCODING};
use ::http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use tower_service::Service;

use super::app::{App, RequestBody};
use super::link::{Answer, Link, Offer};
use super::open::Open;
use crate::mount::http::Direct;

/// The service of a connection, for hyper.
pub(super) struct Answers<A: App> {
    app: A,
    open: Arc<Open>,
    /// `None` on HTTP/2, where all responses are hyper's.
    link: Option<Arc<Link<A::Body>>>,
    /// A stream of this crate is among the responses that hyper sends.
    has_stream: Arc<AtomicBool>,
}

impl<A: App> Answers<A> {
    pub(super) fn new(
        app: A,
        open: Arc<Open>,
        link: Option<Arc<Link<A::Body>>>,
        has_stream: Arc<AtomicBool>,
    ) -> Self {
        Self { app, open, link, has_stream }
    }

    pub(super) fn into_app(self) -> A {
        self.app
    }
}

impl<A: App> HyperService<Request<Incoming>> for Answers<A> {
    type Response = Response<Answer<A::Body>>;
    type Error = <A::Service as Service<Request<A::RequestBody>>>::Error;
    type Future = Answering<A>;

    fn call(&self, request: Request<Incoming>) -> Answering<A> {
        let method = request.method();
        let asked = Asked {
            version: request.version(),
            is_head: method == Method::HEAD,
            is_connect: method == Method::CONNECT,
            is_read: None,
        };
        let (parts, body) = request.into_parts();
        let (body, is_read) = RequestBody::new(body);
        Answering {
            service: self.app.service(),
            state: State::Ready { request: Some(A::request(Request::from_parts(parts, body))) },
            open: Arc::clone(&self.open),
            link: self.link.clone(),
            has_stream: Arc::clone(&self.has_stream),
            asked: Asked { is_read, ..asked },
        }
    }
}

/// The parts of a request that decide about the form of the response.
struct Asked {
    version: Version,
    is_head: bool,
    is_connect: bool,
    /// Whether the body was read to the end. `None` if there is no body.
    is_read: Option<Arc<AtomicBool>>,
}

impl Asked {
    /// Returns whether a stream is sent in chunks. Returns `None` if hyper must send the stream.
    fn can_take<B: http_body::Body>(&self, response: &Response<B>) -> Option<bool> {
        /// A body of known length, of changed bytes, or with trailers is hyper's.
        const HYPERS: [HeaderName; 4] =
            [CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER];
        let (headers, body) = (response.headers(), response.body());
        let is_read = self.is_read.as_ref().is_none_or(|is_read| is_read.load(Ordering::Relaxed));
        let is_hypers = self.is_head
            || self.is_connect
            || !is_read
            || HYPERS.iter().any(|name| headers.contains_key(name))
            || body.is_end_stream()
            || body.size_hint().exact().is_some();
        if is_hypers {
            return None;
        }
        match (self.version, response.version()) {
            (Version::HTTP_11, Version::HTTP_10) | (Version::HTTP_10, _) => Some(false),
            (Version::HTTP_11, _) => Some(true),
            _ => None,
        }
    }
}

pin_project_lite::pin_project! {
    /// A response that is being made.
    pub(super) struct Answering<A: App> {
        service: A::Service,
        #[pin]
        state: State<A>,
        open: Arc<Open>,
        link: Option<Arc<Link<A::Body>>>,
        has_stream: Arc<AtomicBool>,
        asked: Asked,
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State<A: App> {
        Ready { request: Option<Request<A::RequestBody>> },
        Called { #[pin] future: <A::Service as Service<Request<A::RequestBody>>>::Future },
        /// The response changes the protocol, and hyper cannot change the protocol yet.
        Upgrading { response: Option<Response<Answer<A::Body>>> },
    }
}

impl<A: App> Future for Answering<A> {
    type Output =
        Result<Response<Answer<A::Body>>, <A::Service as Service<Request<A::RequestBody>>>::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Ready { request } => {
                    ready!(this.service.poll_ready(cx))?;
                    let request = request.take().expect("the service is called once");
                    let future = this.service.call(request);
                    this.state.set(State::Called { future });
                }
                StateProjection::Called { future } => {
                    let response = ready!(future.poll(cx))?;
                    let response = answer(response, this.open, this.link.as_ref(), this.asked)
                        .unwrap_or_else(|response| {
                            this.has_stream.store(true, Ordering::Relaxed);
                            response
                        });
                    this.state.set(State::Upgrading { response: Some(response) });
                }
                StateProjection::Upgrading { response } => {
                    let changes = response.as_ref().is_some_and(|response| {
                        response.status() == StatusCode::SWITCHING_PROTOCOLS
                            || this.asked.is_connect && response.status().is_success()
                    });
                    if changes && this.link.as_ref().is_some_and(|link| !link.is_upgradeable()) {
                        // The connection's task finds the wish after this poll.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let response = response.take().expect("a future is polled until it is ready");
                    return Poll::Ready(Ok(response));
                }
            }
        }
    }
}

/// Returns the response for hyper, with a body to take over if possible. The result is an error if
/// hyper must send a stream of this crate.
fn answer<B: http_body::Body>(
    mut response: Response<B>,
    open: &Open,
    link: Option<&Arc<Link<B>>>,
    asked: &Asked,
) -> Result<Response<Answer<B>>, Response<Answer<B>>> {
    let Some(Direct { hub }) = response.extensions_mut().remove() else {
        return Ok(response.map(|body| Answer::Own { body }));
    };
    if let Some(hub) = hub {
        open.remember(hub);
    }
    match (link, asked.can_take(&response)) {
        (Some(link), Some(is_chunked)) if link.takes_offers() => {
            Ok(response.map(|body| link.offer(Offer { body, is_chunked })))
        }
        _ => Err(response.map(|body| Answer::Own { body })),
    }
}
