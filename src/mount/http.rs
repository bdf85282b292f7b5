use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
#[cfg(feature = "serve")]
use std::time::Duration;

#[cfg(feature = "serve")]
use ::http::HeaderMap;
#[cfg(feature = "serve")]
use ::http::header::ACCEPT;
use ::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use futures_core::Stream;
use http_body::Frame;

use crate::error::{
    AudienceError, DisconnectError, FollowError, InvalidReason, JoinError, MembersError, NameError,
    PublishError, ReadError, RefusalStyle, Refused, RefusedCause, RunError,
};
#[cfg(feature = "serve")]
use crate::hub::drain::Drainable;
use crate::hub::subscription::Subscription;
use crate::log::key::ParseClientIdError;
use crate::wire::event::EventError;
#[cfg(feature = "json")]
use crate::wire::event::JsonError;
use crate::wire::frame;

const EVENT_STREAM: &str = "text/event-stream";

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Returns the response for the result of [`Hub::subscribe`](crate::Hub::subscribe): a stream, or
/// the [`refusal`].
///
/// ```
/// use sse_hub::{Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let response = sse_hub::http::into_response(hub.subscribe(Subscriber::new()));
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["content-type"], "text/event-stream");
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
pub fn into_response(subscribed: Result<Subscription, Refused>) -> Response<Body> {
    match subscribed {
        Ok(subscription) => subscription_response(subscription),
        Err(refused) => refusal(&refused),
    }
}

/// Returns a response that streams `frames`: a [`Subscription`], an
/// [`EventStream`](crate::EventStream), or any stream of frames. Its headers stop proxies from
/// buffering and compressing the stream.
///
/// ```
/// use futures_util::stream;
/// use sse_hub::{Event, EventStream, ManualTimer};
///
/// let rows = stream::iter([Event::new("row").data("1"), Event::new("row").data("2")]);
/// let stream = EventStream::new(rows, ManualTimer::new());
/// let response = sse_hub::http::stream_response(stream);
/// assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
/// ```
pub fn stream_response<S>(frames: S) -> Response<Body<S>> {
    #[allow(unused_mut, reason = "only `serve` marks the response")]
    let mut response = event_stream(Body { content: Content::Stream { frames } });
    #[cfg(feature = "serve")]
    response.extensions_mut().insert(Direct { hub: None });
    response
}

/// Returns the response for a subscription, for the adapters.
pub(super) fn subscription_response(subscription: Subscription) -> Response<Body> {
    #[cfg(feature = "serve")]
    let direct = Direct { hub: Some(subscription.drainable()) };
    #[allow(unused_mut, reason = "only `serve` marks the response")]
    let mut response = stream_response(subscription);
    #[cfg(feature = "serve")]
    response.extensions_mut().insert(direct);
    response
}

/// Marks a response whose body is a stream of this crate. The extension outlives the layers that
/// wrap the body.
#[cfg(feature = "serve")]
#[derive(Clone)]
pub(crate) struct Direct {
    pub(crate) hub: Option<Drainable>,
}

/// Returns the response for a client that the server itself has no room for. The request's
/// `headers` tell whether the client expects a stream.
#[cfg(feature = "serve")]
pub(crate) fn server_is_full(headers: &HeaderMap, retry: Duration) -> Response<Body> {
    let takes_stream = headers.get_all(ACCEPT).iter().any(|accept| {
        let mut parts = accept.as_bytes().windows(EVENT_STREAM.len());
        parts.any(|part| part.eq_ignore_ascii_case(EVENT_STREAM.as_bytes()))
    });
    let mut response = if takes_stream {
        event_stream(Body::whole(frame::refused(retry, "full")))
    } else {
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "the server is full");
        let seconds = retry.as_millis().div_ceil(1000);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        response
    };
    end_connection(&mut response);
    response
}

/// Returns the response for a refused client.
///
/// A browser's `EventSource` never reconnects after a status other than 200. If the client may try
/// again, the response is therefore a stream with one `hub:refused` event, which carries the reason
/// and the delay before the next attempt, and then ends. If the hub is set to
/// [`RefusalStyle::Status`], the response is `503` or `429` with `retry-after`. A client that must
/// not try again gets `400`, or `404` for an unknown run. The text of these statuses is the reason.
/// A client that has everything of its runs gets the [`stop_response`].
///
/// If the hub is draining or closed, the response has `connection: close`, so that an HTTP/1.1
/// client opens the next connection to another instance. Servers remove that header on HTTP/2,
/// where the server's graceful shutdown closes the connection.
///
/// ```
/// use sse_hub::{Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// hub.close();
/// let refused = hub.subscribe(Subscriber::new()).unwrap_err();
/// let response = sse_hub::http::refusal(&refused);
/// assert_eq!((response.status().as_u16(), &response.headers()["connection"]), (200, &"close".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn refusal(refused: &Refused) -> Response<Body> {
    let cause = refused.cause();
    let mut response = if cause == RefusedCause::Complete {
        stop_response()
    } else if cause == RefusedCause::UnknownRun {
        text(StatusCode::NOT_FOUND, refused.to_string())
    } else if !refused.is_temporary() {
        text(StatusCode::BAD_REQUEST, refused.to_string())
    } else if refused.style() == RefusalStyle::Stream {
        event_stream(Body::whole(frame::refused(refused.retry(), cause.as_str())))
    } else {
        let status = match cause {
            RefusedCause::UserFull { .. } | RefusedCause::SessionFull { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = text(status, refused.to_string());
        let seconds = refused.retry().as_millis().div_ceil(1000);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        response
    };
    if matches!(cause, RefusedCause::Draining | RefusedCause::Closed) {
        end_connection(&mut response);
    }
    response
}

/// Returns the response for a `HEAD` request to the URL of a stream: the headers that `GET` would
/// get, and no body. Answer `HEAD` with this response instead of subscribing, because a request
/// for headers must have no side effects: a subscription announces its user and takes a place of
/// the user's limit.
///
/// The axum extractor [`LastEventId`](crate::LastEventId) answers `HEAD` without the handler.
///
/// ```
/// use http::{Method, Request, Response};
/// use sse_hub::http::{Body, head_response, into_response};
/// use sse_hub::{Hub, LastEventId, Subscriber};
///
/// fn events(hub: &Hub, request: &Request<()>) -> Response<Body> {
///     if request.method() == Method::HEAD {
///         return head_response();
///     }
///     let last = LastEventId::from_request(request.headers(), request.uri());
///     into_response(hub.subscribe(Subscriber::new().resume(last)))
/// }
/// ```
pub fn head_response() -> Response<Body> {
    event_stream(Body::empty())
}

/// Returns a `204 No Content` response, which stops a browser's `EventSource` for good.
///
/// A native `EventSource` takes every end of a stream for a lost connection and connects again.
/// Give this response to the request after the end, if the server can tell that nothing more will
/// follow: the request's `Last-Event-ID` is the id of the last event
/// ([`EventStream::final_event`](crate::EventStream::final_event) shows this), the job of the
/// URL is done, or the account of the user was deactivated.
///
/// Do not give this response to a client that may succeed later, such as one whose session expired:
/// use `401` for a page that can log in again, and a [`refusal`] for one that should retry. The
/// response has `cache-control: no-store`, because a cached `204` would also stop later streams of
/// the same URL.
pub fn stop_response() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the response for an error of this crate: see [`ErrorResponse`].
///
/// ```
/// use sse_hub::{Event, Hub, ManualTimer};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let error = hub.broadcast(Event::new("two\nlines")).unwrap_err();
/// assert_eq!(sse_hub::http::error_response(error).status(), 400);
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
pub fn error_response(error: impl Into<ErrorResponse>) -> Response<Body> {
    let (status, ends_connection) = match error.into().0 {
        Answer::Status { status, ends_connection } => (status, ends_connection),
        Answer::Refused(refused) => return refusal(&refused),
    };
    let mut response = text(status, status.canonical_reason().unwrap_or_default());
    if ends_connection {
        end_connection(&mut response);
    }
    response
}

/// The rejection of the axum extractor [`LastEventId`](crate::LastEventId) for a `HEAD` request.
/// The response is the [`head_response`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a HEAD request opens no stream")]
pub struct HeadRequest(());

impl HeadRequest {
    #[cfg(feature = "axum")]
    pub(super) const fn new() -> Self {
        Self(())
    }
}

fn event_stream<S>(body: Body<S>) -> Response<Body<S>> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Without this header, a kept connection would bring the next request to the same instance.
fn end_connection(response: &mut Response<Body>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The response for an error of this crate, as a status. A handler that returns
/// `Result<_, ErrorResponse>` can use `?` on all of them, on [`Refused`], whose response is the
/// [`refusal`], and on a [`StatusCode`] of its own.
///
/// | status | error |
/// |---|---|
/// | `400` | an invalid event, audience, topic, name or client id, and too many topics |
/// | `401` | a read by a subscriber whose time is over |
/// | `403` | a request with the id of a client that is not the requester's |
/// | `404` | a run that the hub does not know |
/// | `409` | a run that is open already, or that another producer took over |
/// | `410` | a run that has ended |
/// | `413` | an event larger than the hub retains |
/// | `503` | the backplane's backlog is full or was not read so far, too many runs are open, or the hub is closed (with `connection: close`) |
/// | `500` | the program must be changed: a payload that does not serialise, an event with an id of its own or without content, an invalid reason to disconnect, a run of a hub with a backplane |
///
/// The body is the name of the status. The text of the error stays in the server's log:
/// `request failed` at `ERROR` for `500`, and at `DEBUG` for the others.
///
/// With feature `axum`, this type and the errors themselves are `IntoResponse`; with feature
/// `warp`, they are `Reply`. For other servers, [`error_response`] returns the response.
///
/// ```
/// use http::StatusCode;
/// use sse_hub::http::ErrorResponse;
/// use sse_hub::{Audience, Event, Hub};
///
/// fn greet(hub: &Hub, client: &str) -> Result<(), ErrorResponse> {
///     let page = Audience::client(client.parse()?);
///     if hub.count(&page) == 0 {
///         return Err(StatusCode::NOT_FOUND.into());
///     }
///     hub.publish(page, Event::new("greeting"))?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorResponse(Answer);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Status { status: StatusCode, ends_connection: bool },
    Refused(Refused),
}

impl ErrorResponse {
    /// Returns the status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self.0 {
            Answer::Status { status, .. } => status,
            Answer::Refused(refused) => refusal(&refused).status(),
        }
    }
}

impl From<StatusCode> for ErrorResponse {
    fn from(status: StatusCode) -> Self {
        Self(Answer::Status { status, ends_connection: false })
    }
}

/// For a handler that subscribes, and can fail in another step, such as a snapshot.
impl From<Refused> for ErrorResponse {
    fn from(refused: Refused) -> Self {
        Self(Answer::Refused(refused))
    }
}

impl<E: HttpError> From<E> for ErrorResponse {
    fn from(error: E) -> Self {
        let status = error.status();
        let code = status.as_u16();
        // Requests cause these errors: a higher level could fill a disk.
        tracing::debug!(target: "sse_hub", %error, status = code, "request failed");
        Self(Answer::Status { status, ends_connection: error.ends_connection() })
    }
}

/// An error of this crate that can be a response. Purposefully sealed: convert the errors of your
/// program to a [`StatusCode`].
pub trait HttpError: sealed::HttpError {}

impl<E: sealed::HttpError> HttpError for E {}

mod sealed {
    use super::{StatusCode, fmt};

    #[expect(unnameable_types, reason = "the trait is a seal")]
    pub trait HttpError: fmt::Display {
        fn status(&self) -> StatusCode;

        /// Returns true if a retry must reach another instance.
        fn ends_connection(&self) -> bool {
            false
        }
    }
}

// The table of statuses, for all adapters. `500` is for errors that no other request can avoid:
// only a change of the program can.

impl sealed::HttpError for PublishError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Event(error) => error.status(),
            Self::Audience(error) => error.status(),
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Backlog | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn ends_connection(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl sealed::HttpError for JoinError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Topic(_) | Self::Audience(_) | Self::TooManyTopics { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Backlog | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn ends_connection(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl sealed::HttpError for FollowError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Join(error) => error.status(),
        }
    }

    fn ends_connection(&self) -> bool {
        matches!(self, Self::Join(JoinError::Closed))
    }
}

impl sealed::HttpError for ReadError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Reader(_) | Self::Audience(_) => StatusCode::BAD_REQUEST,
            Self::Expired => StatusCode::UNAUTHORIZED,
            // The program writes the audience.
            Self::Combined => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotLoaded | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl sealed::HttpError for RunError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Name(_) | Self::Reason(_) => StatusCode::BAD_REQUEST,
            Self::Event(error) => error.status(),
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Open | Self::Superseded | Self::Lost => StatusCode::CONFLICT,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Ended => StatusCode::GONE,
            Self::Full { .. } | Self::Backlog | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn ends_connection(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl sealed::HttpError for MembersError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Topic(_) => StatusCode::BAD_REQUEST,
            // The program chooses the topics.
            Self::Off => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl sealed::HttpError for DisconnectError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Event(error) => error.status(),
            Self::Audience(error) => error.status(),
            Self::Backlog | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn ends_connection(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

impl sealed::HttpError for EventError {
    fn status(&self) -> StatusCode {
        match self {
            // The values may come from the request.
            Self::Type(_)
            | Self::Comment
            | Self::Retry
            | Self::Key
            | Self::IdempotencyKey
            | Self::Id => StatusCode::BAD_REQUEST,
            // The program sets an id for a hub, or nothing at all, or a snapshot too late or
            // besides a replay.
            Self::OwnId | Self::Late | Self::Replay | Self::Empty => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

#[cfg(feature = "json")]
impl sealed::HttpError for JsonError {
    fn status(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

impl sealed::HttpError for AudienceError {
    fn status(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }
}

impl sealed::HttpError for InvalidReason {
    fn status(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

impl sealed::HttpError for NameError {
    fn status(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }
}

impl sealed::HttpError for ParseClientIdError {
    fn status(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }
}

pin_project_lite::pin_project! {
    /// An `http_body::Body` that sends each frame when the stream yields it, and ends with the
    /// stream.
    ///
    /// The body is also a `Stream` of `Result`s, for servers that take their bodies in that form.
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

    fn empty() -> Self {
        Self { content: Content::Whole { rest: None } }
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
