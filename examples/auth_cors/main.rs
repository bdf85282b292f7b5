//! Streams for logged-in users, and for pages of other origins.
//!
//! | client | proof | reason |
//! |---|---|---|
//! | a page of this site | the cookie of its session | `EventSource` sends the cookie by itself, to another origin with `withCredentials` |
//! | a page of another site | a ticket for one use in the URL of the stream | such a page sends no cookie, and `EventSource` cannot set a header |
//! | a client with `fetch`, or without a browser | `Authorization: Bearer` | it can set headers |
//!
//! The stream of a session ends with the session: at the logout, or at the expiry. A page that
//! opens gets the number of unread notes as a snapshot, `unread`, if there are any, and adds 1 for
//! each later `note`.
//!
//! Run with
//!
//! ```text
//! cargo run --example auth_cors --features axum-serve,json,tokio -- --port 3005
//! ```
//!
//! and then
//!
//! ```text
//! curl --cookie-jar jar --json '{"user":"ann","password":"demo"}' http://127.0.0.1:3005/login
//! curl --cookie jar --no-buffer http://127.0.0.1:3005/events &
//! curl --cookie jar --json '{"text":"hello"}' http://127.0.0.1:3005/note
//! curl --cookie jar --request POST http://127.0.0.1:3005/read
//! curl --cookie jar --request POST http://127.0.0.1:3005/logout
//! ```
//!
//! A page of another site has an access token (from `/token`, through its own server), and opens
//! its stream like this:
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
//!   // The stream reconnected by itself, and its ticket was used: get another.
//!   stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) setTimeout(open, 1000); };
//! }
//! ```

#[path = "../common/mod.rs"]
mod common;
mod credentials;

use std::collections::HashMap;
use std::error::Error;
use std::num::ParseIntError;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use sse_hub::http::ErrorResponse;
use sse_hub::watchdog::Watchdog;
use sse_hub::{
    Audience, Event, Goodbye, Hub, LastEventId, PublishError, Refused, Subscriber, Subscription,
    TokioTimer,
};
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;

use crate::credentials::{Session, Sessions};

/// The origins whose pages may use this server. List whole origins, never a pattern: browsers
/// refuse `*` together with credentials, and a server that reflects every origin would allow the
/// same.
const ORIGINS: [&str; 2] = ["https://app.example.com", "http://localhost:5173"];

struct App {
    hub: Hub,
    sessions: Sessions,
    origins: Vec<HeaderValue>,
    /// How many notes each user has not read.
    unread: Mutex<HashMap<Arc<str>, usize>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let sessions = Sessions::new(seconds("SESSION_SECONDS", 3600)?, seconds("TICKET_SECONDS", 30)?);
    let listener = TcpListener::bind(("127.0.0.1", common::port(3005)?)).await?;
    let own = format!("http://{}", listener.local_addr()?);
    let mut origins: Vec<_> = ORIGINS.map(HeaderValue::from_static).into();
    // The pages of this server send their origin too, with a `POST`.
    origins.push(own.parse()?);

    println!("listening on {own}");
    // Cuts connections that make no progress, and sets TCP_NODELAY, so that small events do not
    // wait.
    let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    let app = router(App { hub: hub.clone(), sessions, origins, unread: Mutex::default() });
    let server = axum::serve(listener, app).with_graceful_shutdown(common::drained(hub));
    tokio::select! {
        served = server => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

fn router(app: App) -> Router {
    let app = Arc::new(app);
    let cors = CorsLayer::new()
        .allow_origin(app.origins.clone())
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST])
        // The headers of clients with `fetch`, and of polyfills of `EventSource`. The browser's own
        // `EventSource` sends only headers that need no permission.
        .allow_headers([
            AUTHORIZATION,
            CACHE_CONTROL,
            CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
        ])
        .max_age(Duration::from_secs(600));
    Router::new()
        .route("/login", post(login))
        .route("/token", post(token))
        .route("/ticket", post(ticket))
        .route("/logout", post(logout))
        .route("/events", get(events))
        .route("/note", post(note))
        .route("/read", post(read))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), known_origins_only))
        // The outermost layer, so that pages can read refusals too.
        .layer(cors)
        .with_state(app)
}

/// Refuses requests from pages of unknown origins before they have an effect.
///
/// CORS alone is not enough: it only prevents such a page from *reading* the response. The browser
/// still sends the request, possibly with the user's cookie, and a stream that the page cannot read
/// still takes one of the user's places.
async fn known_origins_only(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_known = match headers.get(ORIGIN) {
        Some(origin) => app.origins.contains(origin),
        // Three kinds of request have no origin: a `GET` by a page of this server, a client that is
        // no browser, and an image or script tag of any page. A browser marks the last with
        // `sec-fetch-site`.
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

async fn events(
    State(app): State<Arc<App>>,
    Viewer(session): Viewer,
    last: LastEventId,
) -> Result<Result<Subscription, Refused>, Response> {
    let who = Subscriber::new()
        .user(Arc::clone(&session.user))
        .session(Arc::clone(&session.id))
        .until(session.deadline())
        .resume(last);
    // A concurrent logout either closes the session first, and the client is refused, or comes
    // later, and ends this stream.
    let opened = app.sessions.while_open(&session, || {
        // No note is published meanwhile: each is either counted here, or comes as an event.
        let unread = app.unread.lock();
        (app.hub.subscribe(who), unread.get(&session.user).copied())
    });
    Ok(match opened.ok_or_else(|| Unauthorized.into_response())? {
        (Ok(stream), Some(count)) if !stream.is_resumed() => {
            let unread = Event::new("unread").data(count.to_string());
            Ok(stream
                .with_snapshot([unread])
                .map_err(|e| ErrorResponse::from(e).into_response())?)
        }
        (stream, _) => stream,
    })
}

#[derive(Deserialize)]
struct Opening {
    ticket: Option<String>,
}

/// The session that may open a stream, as the ticket in the URL proves, or else the request itself.
struct Viewer(Session);

impl FromRequestParts<Arc<App>> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let opening = Query::<Opening>::try_from_uri(&parts.uri);
        let Query(Opening { ticket }) = opening.map_err(IntoResponse::into_response)?;
        let session = match ticket {
            // A valid cookie does not replace an invalid ticket.
            Some(ticket) => app.sessions.by_ticket(&ticket).ok_or(Unauthorized),
            None => Session::from_request_parts(parts, app).await,
        };
        session.map(Self).map_err(IntoResponse::into_response)
    }
}

/// The response to a request without a valid proof.
///
/// `EventSource` never reconnects after a status other than 200, and here that is right: the same
/// cookie or ticket would be refused again every few seconds. The page gets an `error` event with
/// `readyState` at `CLOSED`, and can get a new ticket or ask its user to log in. A `204` would stop
/// the `EventSource` too, but a client with `fetch` could not distinguish that from a stream that
/// ended well.
struct Unauthorized;

impl IntoResponse for Unauthorized {
    fn into_response(self) -> Response {
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "log in first").into_response()
    }
}

/// The session that the `Authorization` header proves, or else the cookie. A ticket is not enough:
/// with a ticket that leaked through a log, anybody could get the next ticket, and so on for ever.
impl FromRequestParts<Arc<App>> for Session {
    type Rejection = Unauthorized;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Unauthorized> {
        let session = match parts.headers.get(AUTHORIZATION) {
            Some(header) => {
                let bearer = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
                bearer.and_then(|token| app.sessions.by_access(token))
            }
            None => app.sessions.by_cookie(&parts.headers),
        };
        session.ok_or(Unauthorized)
    }
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

impl Login {
    fn open(self, sessions: &Sessions) -> Result<Session, ErrorResponse> {
        // Check your users and the hashes of their passwords here.
        if self.user.is_empty() || self.password != "demo" {
            return Err(StatusCode::UNAUTHORIZED.into());
        }
        sessions.open(&self.user).map_err(|_| StatusCode::SERVICE_UNAVAILABLE.into())
    }
}

/// For a page of this site. A form of another site cannot send JSON.
async fn login(
    State(app): State<Arc<App>>,
    Json(login): Json<Login>,
) -> Result<impl IntoResponse, ErrorResponse> {
    let session = login.open(&app.sessions)?;
    Ok((app.sessions.set_cookie(&session), StatusCode::NO_CONTENT))
}

/// For all other clients.
async fn token(
    State(app): State<Arc<App>>,
    Json(login): Json<Login>,
) -> Result<Json<Value>, ErrorResponse> {
    let session = login.open(&app.sessions)?;
    let token = app.sessions.access(&session);
    Ok(Json(json!({ "token": token, "expires_in": app.sessions.last.as_secs() })))
}

async fn ticket(
    State(app): State<Arc<App>>,
    session: Session,
) -> Result<Json<Value>, ErrorResponse> {
    let ticket = app.sessions.ticket(&session).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({ "ticket": ticket, "expires_in": app.sessions.tickets_last.as_secs() })))
}

async fn logout(
    State(app): State<Arc<App>>,
    session: Session,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ErrorResponse> {
    // In this order: `events` relies on it.
    app.sessions.close(&session);
    let goodbye = Event::new("logged-out");
    app.hub
        .disconnect(Audience::session(session.id), Goodbye::from_static("logout").event(goodbye))?;
    Ok((app.sessions.remove_cookie(&headers), StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
struct Note {
    text: String,
}

/// A note to the user's own pages, on all devices.
async fn note(
    State(app): State<Arc<App>>,
    session: Session,
    Json(Note { text }): Json<Note>,
) -> Result<StatusCode, PublishError> {
    let mut unread = app.unread.lock();
    app.hub.send_to_user(&session.user, Event::new("note").data(text))?;
    *unread.entry(session.user).or_default() += 1;
    Ok(StatusCode::NO_CONTENT)
}

/// The user has read the notes on a device: the other devices show `unread` as 0.
async fn read(State(app): State<Arc<App>>, session: Session) -> Result<StatusCode, PublishError> {
    let mut unread = app.unread.lock();
    app.hub.send_to_user(&session.user, Event::new("unread").data("0"))?;
    unread.remove(&session.user);
    Ok(StatusCode::NO_CONTENT)
}

fn seconds(variable: &str, otherwise: u64) -> Result<Duration, ParseIntError> {
    let given = std::env::var(variable).ok().map_or(Ok(otherwise), |given| given.parse());
    given.map(Duration::from_secs)
}
