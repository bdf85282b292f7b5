//! For axum: [`LastEventId`] is an extractor, [`Subscription`], [`EventStream`] and [`Refused`] are responses.

use std::convert::Infallible;

use ::http::request::Parts;
use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use futures_core::Stream;

use super::http;
use super::stream::{EventStream, IntoEvent};
use crate::error::Refused;
use crate::hub::subscription::Subscription;
use crate::wire::id::LastEventId;

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        http::response(self).map(Body::new)
    }
}

impl<S> IntoResponse for EventStream<S>
where
    S: Stream + Send + 'static,
    S::Item: IntoEvent,
{
    fn into_response(self) -> Response {
        http::response(self).map(Body::new)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        http::refusal::<Subscription>(&self).map(Body::new)
    }
}

/// Never rejects a request: a first connection is [`LastEventId::none`], and garbage becomes a gap in the stream.
impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_request(&parts.headers, &parts.uri))
    }
}

/// `None` for a first connection.
impl<S: Sync> OptionalFromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(Some(Self::from_request(&parts.headers, &parts.uri))
            .filter(|last| !last.is_first_connection()))
    }
}
