use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use ::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use bytes::Bytes;
use futures_core::Stream;
use http_body::Frame;

use crate::error::{Refusals, Refused, RefusedCause};
use crate::hub::subscription::Subscription;
use crate::wire::frame;
use crate::wire::id::LastEventId;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The response to a client that was let in or refused: what [`Hub::subscribe`](crate::Hub::subscribe) returned.
///
/// ```
/// use sse_hub::{Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let response = sse_hub::http::respond(hub.subscribe(Subscriber::new()));
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["content-type"], "text/event-stream");
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
pub fn respond(subscribed: Result<Subscription, Refused>) -> Response<Body> {
    match subscribed {
        Ok(subscription) => response(subscription),
        Err(refused) => refusal(&refused),
    }
}

/// A response that streams `frames`, with the headers that keep proxies from holding it back.
pub fn response<S>(frames: S) -> Response<Body<S>> {
    event_stream(Body { content: Content::Stream { frames } })
}

/// The response to a client that is not let in.
///
/// A browser's `EventSource` never comes back after any status but 200. A client that may try again therefore gets a
/// stream of one `hub:refused` event, which says why and when to come back, and its end; or, if the hub is set to
/// [`Refusals::Status`], a `503` or `429` with `retry-after`. One that may not gets `400`. Those have the reason as text.
pub fn refusal<S>(refused: &Refused) -> Response<Body<S>> {
    let status = match (refused.is_temporary(), refused.refusals(), refused.cause()) {
        (true, Refusals::Stream, cause) => {
            return event_stream(Body::whole(frame::refused(refused.retry(), cause.as_str())));
        }
        (false, ..) => StatusCode::BAD_REQUEST,
        (true, _, RefusedCause::UserFull { .. } | RefusedCause::SessionFull { .. }) => {
            StatusCode::TOO_MANY_REQUESTS
        }
        (true, ..) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Response::new(Body::whole(refused.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if refused.is_temporary() {
        let seconds = refused.retry().as_millis().div_ceil(1000);
        headers.insert(RETRY_AFTER, u64::try_from(seconds).unwrap_or(u64::MAX).into());
    }
    response
}

fn event_stream<S>(body: Body<S>) -> Response<Body<S>> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl LastEventId {
    /// Reads it from a request: see [`from_parts`](Self::from_parts).
    ///
    /// ```
    /// use http::{HeaderMap, Uri};
    /// use sse_hub::{EventId, LastEventId};
    ///
    /// let uri = Uri::from_static("/events?lastEventId=1763-12");
    /// assert_eq!(LastEventId::from_request(&HeaderMap::new(), &uri).id(), Some(EventId::new(1763, 12)));
    /// ```
    #[must_use]
    pub fn from_request(headers: &HeaderMap, uri: &Uri) -> Self {
        Self::from_headers(headers, uri.query().unwrap_or_default())
    }

    pub(super) fn from_headers(headers: &HeaderMap, query: &str) -> Self {
        Self::from_parts(headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes), query)
    }
}

pin_project_lite::pin_project! {
    /// An `http_body::Body` that streams frames as they come. It ends when its stream does.
    ///
    /// It is a `Stream` of `Result`s as well, for servers that take their bodies in that form.
    #[derive(Debug)]
    pub struct Body<S = Subscription> {
        #[pin]
        content: Content<S>,
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Content<S> {
        Stream { #[pin] frames: S },
        Whole { rest: Option<Bytes> },
    }
}

impl<S> Body<S> {
    fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { content: Content::Whole { rest: Some(bytes.into()) } }
    }
}

impl<S: Stream<Item = Bytes>> Stream for Body<S> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match self.project().content.project() {
            Projected::Stream { frames } => frames.poll_next(cx),
            Projected::Whole { rest } => Poll::Ready(rest.take()),
        };
        next.map(|bytes| bytes.map(Ok))
    }
}

impl<S: Stream<Item = Bytes>> http_body::Body for Body<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_next(cx).map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole { rest: None })
    }
}
