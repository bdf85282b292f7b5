//! For axum: [`LastEventId`] is an extractor; [`Subscription`], [`EventStream`], [`Refused`] and
//! the errors of the crate are responses.

use ::http::Method;
use ::http::request::Parts;
use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use futures_core::Stream;

use super::event_stream::{EventStream, IntoEvent};
use super::http::{self, ErrorResponse, HeadRequest};
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

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        http::subscription_response(self).map(Body::new)
    }
}

impl<S> IntoResponse for EventStream<S>
where
    S: Stream + Send + 'static,
    S::Item: IntoEvent,
{
    fn into_response(self) -> Response {
        http::stream_response(self).map(Body::new)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        http::refusal(&self).map(Body::new)
    }
}

impl IntoResponse for HeadRequest {
    fn into_response(self) -> Response {
        http::head_response().map(Body::new)
    }
}

macro_rules! error_responses {
    ($($(#[$meta:meta])* $error:ty,)*) => {$(
        $(#[$meta])*
        impl IntoResponse for $error {
            fn into_response(self) -> Response {
                http::error_response(self).map(Body::new)
            }
        }
    )*};
}

error_responses! {
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

/// Rejects only `HEAD`, with the response for it: axum calls the handler of `GET` for `HEAD` too,
/// and a handler that extracts this type must not subscribe then. For a first connection the value
/// is [`LastEventId::none`], and for an invalid header an unknown id, which becomes a gap.
impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = HeadRequest;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HeadRequest> {
        if parts.method == Method::HEAD {
            return Err(HeadRequest::new());
        }
        Ok(Self::from_request(&parts.headers, &parts.uri))
    }
}

/// `None` for a first connection. Rejects `HEAD`, as the extractor without `Option` does.
impl<S: Sync> OptionalFromRequestParts<S> for LastEventId {
    type Rejection = HeadRequest;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, HeadRequest> {
        let last = <Self as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(Some(last).filter(|last| !last.is_first_connection()))
    }
}
