use ::http::{HeaderMap, Method, Response};
use ::warp::reject::Reject;
use ::warp::reply::{Reply, Response as Answer};
use ::warp::{Filter, Rejection, header, method, query, reject, reply};
use bytes::Bytes;
use futures_core::Stream;

use super::event_stream::{EventStream, IntoEvent};
use super::http::{self, Body, ErrorResponse};
use crate::error::{
    AudienceError, DisconnectError, FollowError, InvalidReason, JoinError, MembersError, NameError,
    PublishError, ReadError, Refused, RunError,
};
use crate::hub::subscription::Subscription;
use crate::log::key::ParseClientIdError;
use crate::wire::event::EventError;
#[cfg(feature = "json")]
use crate::wire::event::JsonError;
use crate::wire::id::LastEventId;

/// Extracts the `Last-Event-ID` of a request.
///
/// Rejects only `HEAD`, as not found, so that no filter behind this one subscribes for it: answer
/// `HEAD` with [`head`]. For a first connection the value is [`LastEventId::none`], and for an
/// invalid header an unknown id, which becomes a gap in the stream.
#[must_use]
pub fn last_event_id()
-> impl Filter<Extract = (LastEventId,), Error = Rejection> + Copy + Send + Sync + 'static {
    let is_not_head =
        method().and_then(
            async |method: Method| {
                if method == Method::HEAD { Err(reject::not_found()) } else { Ok(()) }
            },
        );
    let query = query::raw().or_else(async |_| Ok::<_, Rejection>((String::new(),)));
    is_not_head
        .untuple_one()
        .and(header::headers_cloned())
        .and(query)
        .map(|headers: HeaderMap, query: String| LastEventId::from_headers(&headers, &query))
}

/// Answers `HEAD` with the headers of a stream, and opens none.
#[must_use]
pub fn head()
-> impl Filter<Extract = (impl Reply,), Error = Rejection> + Copy + Send + Sync + 'static {
    ::warp::head().map(|| answer(http::head_response()))
}

/// Converts the body through a stream, because warp makes no body from an `http_body::Body`.
fn answer<S>(response: Response<Body<S>>) -> Answer
where
    S: Stream<Item = Bytes> + Send + Sync + 'static,
{
    let (parts, body) = response.into_parts();
    let body = reply::stream(body).into_response().into_body();
    Answer::from_parts(parts, body)
}

impl Reply for Subscription {
    fn into_response(self) -> Answer {
        answer(http::subscription_response(self))
    }
}

impl<S> Reply for EventStream<S>
where
    S: Stream + Send + Sync + 'static,
    S::Item: IntoEvent,
{
    fn into_response(self) -> Answer {
        answer(http::stream_response(self))
    }
}

impl Reply for Refused {
    fn into_response(self) -> Answer {
        answer(http::refusal(&self))
    }
}

/// For filters that reject with a refusal, if `recover` returns it as the reply.
impl Reject for Refused {}

macro_rules! error_replies {
    ($($(#[$meta:meta])* $error:ty,)*) => {$(
        $(#[$meta])*
        impl Reply for $error {
            fn into_response(self) -> Answer {
                answer(http::error_response(self))
            }
        }

        /// For filters that reject with this error, if `recover` returns it as the reply.
        $(#[$meta])*
        impl Reject for $error {}
    )*};
}

error_replies! {
    ErrorResponse,
    PublishError,
    JoinError,
    FollowError,
    ReadError,
    MembersError,
    DisconnectError,
    RunError,
    EventError,
    #[cfg(feature = "json")]
    JsonError,
    AudienceError,
    InvalidReason,
    NameError,
    ParseClientIdError,
}
