//! Streams for those who are logged in, and for pages of other origins.
//!
//! | who | proves itself by | why |
//! |---|---|---|
//! | a page of this site | the cookie of its session | `EventSource` sends it by itself, to another origin with `withCredentials` |
//! | a page of another site | a ticket in the address of the stream | from there it sends no cookie, and it can never set a header |
//! | what uses `fetch`, or no browser | `Authorization: Bearer` | it can |
//!
//! The stream of a session ends when the session does: at its logout, or when it expires.
//!
//! Run with
//!
//! ```text
//! cargo run --example auth_cors --features axum,json,tokio -- --port 3005
//! ```
//!
//! and then
//!
//! ```text
//! curl --cookie-jar jar --json '{"user":"ann","password":"demo"}' http://127.0.0.1:3005/login
//! curl --cookie jar --no-buffer http://127.0.0.1:3005/events &
//! curl --cookie jar --json '{"text":"hello"}' http://127.0.0.1:3005/note
//! curl --cookie jar --request POST http://127.0.0.1:3005/logout
//! ```
//!
//! A page of another site has an access token (from `/token`, by way of its own server) and opens its stream so:
//!
//! ```text
//! let last = "";
//! async function open() {
//!   const answer = await fetch(hub + "/ticket", { method: "POST", headers: { authorization: "Bearer " + token } });
//!   if (!answer.ok) return login();
//!   const { ticket } = await answer.json();
//!   const stream = new EventSource(`${hub}/events?ticket=${ticket}&lastEventId=${last}`);
//!   for (const type of ["hub:open", "hub:gap", "note"])
//!     stream.addEventListener(type, (event) => last = event.lastEventId);
//!   stream.addEventListener("logged-out", () => { stream.close(); login(); });
//!   // It has tried again by itself, with a ticket that was good no longer: get another.
//!   stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) setTimeout(open, 1000); };
//! }
//! ```

mod credentials;

use std::error::Error;
use std::num::ParseIntError;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, ORIGIN, SET_COOKIE, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cookie::{Cookie, SameSite};
use serde::Deserialize;
use serde_json::{Value, json};
use sse_hub::{Audience, Event, Hub, LastEventId, Refused, Subscriber, Subscription, TokioTimer};
use tower_http::cors::CorsLayer;

use crate::credentials::{Purpose, Session, Sessions};

/// The pages of other origins that may use this server. Whole origins, never a pattern: `*` is not allowed with
/// credentials, and reflecting any origin would be the same by another name.
const ORIGINS: [&str; 2] = ["https://app.example.com", "http://localhost:5173"];

/// The prefix makes browsers refuse it from anything but this host itself, over TLS (or on the machine itself).
const COOKIE_NAME: &str = "__Host-session";

struct App {
    hub: Hub,
    sessions: Sessions,
    origins: Vec<HeaderValue>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let sessions =
        Sessions::new(seconds("SESSION_SECONDS", 3600)?, seconds("TICKET_SECONDS", 30)?)?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port()?)).await?;
    let own = format!("http://{}", listener.local_addr()?);
    let mut origins: Vec<_> = ORIGINS.map(HeaderValue::from_static).into();
    // A page of one's own sends its origin with a `POST`, too.
    origins.push(own.parse()?);

    println!("listening on {own}");
    axum::serve(listener, router(App { hub: hub.clone(), sessions, origins }))
        .with_graceful_shutdown(async move {
            // If it cannot be waited for, that is a reason to stop as well.
            let _ = tokio::signal::ctrl_c().await;
            hub.drain(Duration::from_secs(2)).await;
            hub.close();
        })
        .await?;
    Ok(())
}

fn router(app: App) -> Router {
    let app = Arc::new(app);
    let cors = CorsLayer::new()
        .allow_origin(app.origins.clone())
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST])
        // What fetch clients send: `EventSource` sends no header that would need to be allowed.
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("last-event-id")])
        .max_age(Duration::from_secs(600));
    Router::new()
        .route("/login", post(login))
        .route("/token", post(token))
        .route("/ticket", post(ticket))
        .route("/logout", post(logout))
        .route("/events", get(events))
        .route("/note", post(note))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), known_origins_only))
        // Outermost, so that pages can read refusals as well.
        .layer(cors)
        .with_state(app)
}

/// Refuses what comes from a page of an unknown origin, before anything is done for it.
///
/// CORS is not enough. It keeps such a page from *reading* the answer; the request was made all the same, with the
/// user's cookie where the browser sends it, and a stream that nobody can read still takes one of the user's places.
async fn known_origins_only(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_known = match headers.get(ORIGIN) {
        Some(origin) => app.origins.contains(origin),
        // Without are: pages of one's own that get something, all that is no browser, and an image or a script tag of any
        // page, which a browser tells apart by this header.
        None => {
            let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
            matches!(site, None | Some(b"same-origin" | b"none"))
        }
    };
    if !is_known {
        return (StatusCode::FORBIDDEN, "this origin may not use the server").into_response();
    }
    next.run(request).await
}

#[derive(Deserialize)]
struct Opening {
    ticket: Option<String>,
}

async fn events(
    State(app): State<Arc<App>>,
    Query(Opening { ticket }): Query<Opening>,
    session: Result<Session, Unauthorized>,
    last: LastEventId,
) -> Result<Result<Subscription, Refused>, Unauthorized> {
    let session = match ticket {
        // Whoever brings a ticket is judged by it alone.
        Some(ticket) => app.sessions.verify(Purpose::Ticket, &ticket).ok_or(Unauthorized)?,
        None => session?,
    };
    let who = Subscriber::new()
        .user(Arc::clone(&session.user))
        .session(Arc::clone(&session.id))
        .until(session.deadline())
        .resume(last);
    // A logout at this moment closes the session before, and it is refused here, or after, and finds the stream to end.
    app.sessions.while_open(&session, || app.hub.subscribe(who)).ok_or(Unauthorized)
}

/// The answer to who is not known.
///
/// `EventSource` never comes back after any status but 200, and here that is right: the same cookie or ticket would be
/// refused again every few seconds. The page gets an `error` with `readyState` at `CLOSED`, and can get a new ticket, or
/// ask its user to log in. `204` would say "never come back" too, but a client that uses `fetch` could not tell it from
/// a stream that ended well.
struct Unauthorized;

impl IntoResponse for Unauthorized {
    fn into_response(self) -> Response {
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "log in first").into_response()
    }
}

/// By its `Authorization`, or else by its cookie. Not by a ticket, which opens a stream and nothing else: one that was found
/// in a log would get another, and so on for ever.
impl FromRequestParts<Arc<App>> for Session {
    type Rejection = Unauthorized;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Unauthorized> {
        let session = match parts.headers.get(AUTHORIZATION) {
            Some(header) => {
                let bearer = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
                bearer.and_then(|token| app.sessions.verify(Purpose::Access, token))
            }
            None => cookie_of(&parts.headers)
                .and_then(|token| app.sessions.verify(Purpose::Cookie, &token)),
        };
        session.ok_or(Unauthorized)
    }
}

fn cookie_of(headers: &HeaderMap) -> Option<String> {
    let sent = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut cookies = sent.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == COOKIE_NAME).map(|cookie| cookie.value().to_owned())
}

/// `HttpOnly`: no script reads it. `SameSite=Strict`: nothing that another site starts is done with it, be it a form, a
/// picture or a stream. `Secure`: never over a plain connection.
fn set_cookie(token: String, lasts: Duration) -> [(HeaderName, String); 1] {
    let lasts = lasts.try_into().unwrap_or(cookie::time::Duration::MAX);
    let cookie = Cookie::build((COOKIE_NAME, token))
        .path("/")
        .http_only(true)
        .secure(true)
        .same_site(SameSite::Strict)
        .max_age(lasts);
    [(SET_COOKIE, cookie.to_string())]
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

impl Login {
    fn open(self, sessions: &Sessions) -> Result<Session, Failed> {
        // Your users and the hashes of their passwords belong here.
        if self.user.is_empty() || self.password != "demo" {
            return Err(Failed(StatusCode::UNAUTHORIZED, "wrong user or password".to_owned()));
        }
        sessions.open(&self.user).map_err(Failed::from)
    }
}

/// For a page of this site. Being JSON, it cannot be sent by a form of another.
async fn login(
    State(app): State<Arc<App>>,
    Json(login): Json<Login>,
) -> Result<impl IntoResponse, Failed> {
    let session = login.open(&app.sessions)?;
    let cookie = set_cookie(app.sessions.issue(Purpose::Cookie, &session), app.sessions.last);
    Ok((cookie, StatusCode::NO_CONTENT))
}

/// For what is no page of this site.
async fn token(
    State(app): State<Arc<App>>,
    Json(login): Json<Login>,
) -> Result<Json<Value>, Failed> {
    let session = login.open(&app.sessions)?;
    let token = app.sessions.issue(Purpose::Access, &session);
    Ok(Json(json!({ "token": token, "expires_in": app.sessions.last.as_secs() })))
}

async fn ticket(State(app): State<Arc<App>>, session: Session) -> Json<Value> {
    let ticket = app.sessions.issue(Purpose::Ticket, &session);
    Json(json!({ "ticket": ticket, "expires_in": app.sessions.tickets_last.as_secs() }))
}

async fn logout(
    State(app): State<Arc<App>>,
    session: Session,
) -> Result<impl IntoResponse, Failed> {
    // In this order: see `events`.
    app.sessions.close(&session);
    let goodbye = Event::new("logged-out");
    app.hub.disconnect(&Audience::session(session.id), "logout", Some(goodbye))?;
    Ok((set_cookie(String::new(), Duration::ZERO), StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
struct Note {
    text: String,
}

/// Something to see: a note to oneself, on all one's devices.
async fn note(
    State(app): State<Arc<App>>,
    session: Session,
    Json(Note { text }): Json<Note>,
) -> Result<StatusCode, Failed> {
    app.hub.send_to_user(session.user, Event::new("note").data(text))?;
    Ok(StatusCode::NO_CONTENT)
}

struct Failed(StatusCode, String);

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

fn seconds(variable: &str, otherwise: u64) -> Result<Duration, ParseIntError> {
    let given = std::env::var(variable).ok().map_or(Ok(otherwise), |given| given.parse());
    given.map(Duration::from_secs)
}

/// `--port 3005`, or else the variable `PORT`, or else 3005. 0 takes any that is free.
fn port() -> Result<u16, ParseIntError> {
    let given = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    given.or_else(|| std::env::var("PORT").ok()).map_or(Ok(3005), |port| port.parse())
}
