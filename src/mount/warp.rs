use std::convert::Infallible;

use ::http::{HeaderMap, Response};
use ::warp::reject::Reject;
use ::warp::reply::{Reply, Response as Answer};
use ::warp::{Filter, header, query, reply};
use bytes::Bytes;
use futures_core::Stream;

use super::http::{self, Body};
use super::stream::{EventStream, IntoEvent};
use crate::error::Refused;
use crate::hub::subscription::Subscription;
use crate::wire::id::LastEventId;

/// Extracts where a client stopped. Never rejects a request: a first connection is [`LastEventId::none`], and garbage
/// becomes a gap in the stream.
#[must_use]
pub fn last_event_id()
-> impl Filter<Extract = (LastEventId,), Error = Infallible> + Copy + Send + Sync + 'static {
    let query = query::raw().or_else(|_| async { Ok::<_, Infallible>((String::new(),)) });
    header::headers_cloned()
        .and(query)
        .map(|headers: HeaderMap, query: String| LastEventId::from_headers(&headers, &query))
}

/// Warp's bodies cannot be made from an `http_body::Body`, but from a stream.
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
        answer(http::response(self))
    }
}

impl<S> Reply for EventStream<S>
where
    S: Stream + Send + Sync + 'static,
    S::Item: IntoEvent,
{
    fn into_response(self) -> Answer {
        answer(http::response(self))
    }
}

impl Reply for Refused {
    fn into_response(self) -> Answer {
        answer(http::refusal::<Subscription>(&self))
    }
}

/// For filters that reject with it, whose `recover` returns it as a reply.
impl Reject for Refused {}
