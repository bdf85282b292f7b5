//! Tokens that open streams, if the command line asks for tokens: to try a page with a token that expires.
//!
//! Every request for a token gets a token. The example `auth_cors` asks for a password, and shows cookies, tickets and pages of other origins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde::Serialize;

/// How long a token lasts, if they are asked for, and those that were given.
#[derive(Clone)]
pub(crate) struct Tokens {
    last: Option<Duration>,
    given: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Tokens {
    pub(crate) fn new(last: Option<Duration>) -> Self {
        Self { last, given: Arc::default() }
    }

    fn give(&self) -> Result<Token, StatusCode> {
        let last = self.last.ok_or(StatusCode::NOT_FOUND)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let (now, token) = (Instant::now(), format!("{:032x}", u128::from_be_bytes(random)));
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, until| *until > now);
        given.insert(token.clone(), now + last);
        Ok(Token { token, seconds: last.as_secs_f64() })
    }

    fn valid_until(&self, token: &str) -> Option<Instant> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get(token).copied().filter(|&until| until > Instant::now())
    }
}

#[derive(Serialize)]
struct Token {
    token: String,
    seconds: f64,
}

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let give = async |Extension(tokens): Extension<Tokens>| tokens.give().map(Json);
    Router::new().route("/api/token", post(give))
}

/// Until when a stream may last, if its token says so. Where tokens are asked for, one is needed.
pub(crate) struct Admitted(pub(crate) Option<Instant>);

impl<S: Sync> FromRequestParts<S> for Admitted {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let tokens = parts.extensions.get::<Tokens>().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        if tokens.last.is_none() {
            return Ok(Self(None));
        }
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let until = token.and_then(|token| tokens.valid_until(token));
        until.map(|until| Self(Some(until))).ok_or(StatusCode::UNAUTHORIZED)
    }
}
