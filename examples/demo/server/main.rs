//! A page with buttons, and the server that pushes their events to the tabs that each addresses.
//!
//! Run with
//!
//! ```text
//! cargo run --example demo --features json,serve -- --port 3000
//! ```
//!
//! and open the printed address in two tabs. Several demos that share a Redis act as one: they share
//! events, presence, disconnects and topics (add the feature `redis`):
//!
//! ```text
//! cargo run --example demo --features json,serve,redis -- --port 3001 --redis redis://127.0.0.1:6379
//! ```
//!
//! The demo asks for no password: the page states its user. The JSON endpoints accept only requests
//! for this machine (see [`host`]).

mod api;
mod arguments;
#[path = "../../common/mod.rs"]
mod common;
mod events;
mod host;
mod hub;
mod tokens;

use std::net::{Ipv4Addr, SocketAddr};

use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use sse_hub::watchdog::Watchdog;
use sse_hub::{ClientId, LastEventId, Payload as _, Refused, Subscriber, Subscription, TokioTimer};
use tower_http::services::ServeDir;

use crate::arguments::Arguments;
use crate::hub::Hubs;
use crate::tokens::{Admitted, Tokens};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();

    let arguments = Arguments::read()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let web = arguments.web.clone();
    let tokens = Tokens::new(arguments.login);
    let hubs = Hubs::new(arguments).await?;

    let mut app = Router::new()
        .merge(api::routes())
        .merge(tokens::routes())
        .layer(from_fn(host::own_only))
        .route("/events", get(events))
        .merge(page());
    if let Some(web) = web {
        app = app.nest_service("/app", ServeDir::new(web));
    }
    let app = app.layer(Extension(tokens)).with_state(hubs.clone());

    // From here on, a signal is not lost.
    let signal = common::shutdown_signal();
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("sse-hub demo: http://{}", listener.local_addr()?);
    let drained = async move {
        signal.await;
        // The server waits for its streams, and the drain ends them.
        let hub = hubs.now();
        hub.drain(common::DRAIN).await;
        hub.close();
    };
    let serving = async {
        if common::is_via_axum() {
            // Cuts connections that make no progress, and sets TCP_NODELAY, so that small events do
            // not wait.
            let listener = Watchdog::new(TokioTimer::new()).listen(listener);
            axum::serve(listener, app).with_graceful_shutdown(drained).await
        } else {
            // Does the same, and writes each stream straight to its socket.
            sse_hub::serve(listener, app).with_graceful_shutdown(drained).await
        }
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

/// The query of a stream: its user, session, client id, topics and event types. A service would take
/// the user from a verified session.
///
/// A query that is odd must not become an error page, because that would stop the `EventSource` of
/// the page for good. Empty values count as absent, and of a repeated name the last value counts.
struct Tab(Vec<(String, String)>);

impl Tab {
    fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().rev().filter(|(key, _)| key == name);
        values.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns the parts of a list, or `None` if it has none.
    fn list(&self, name: &str) -> Option<Vec<String>> {
        let parts = self.get(name)?.split(',').map(str::trim).filter(|part| !part.is_empty());
        Some(parts.map(String::from).collect::<Vec<_>>()).filter(|parts| !parts.is_empty())
    }
}

async fn events(
    State(hubs): State<Hubs>,
    Admitted(until): Admitted,
    Query(query): Query<Vec<(String, String)>>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    let tab = Tab(query);
    let mut subscriber = Subscriber::new().resume(last).topic(hubs.own());
    if let Some(until) = until {
        subscriber = subscriber.until(until);
    }
    if let Some(user) = tab.get("user") {
        subscriber = subscriber.user(user);
    }
    if let Some(session) = tab.get("session") {
        subscriber = subscriber.session(session);
    }
    // A tab that reconnects keeps its id, and receives the events that were sent to the id meanwhile.
    if let Some(client) = tab.get("client").and_then(|text| text.parse::<ClientId>().ok()) {
        subscriber = subscriber.client_id(client);
    }
    if let Some(topics) = tab.list("topics") {
        subscriber = subscriber.topics(topics);
    }
    if let Some(types) = tab.list("events") {
        let always = events::Presence::TYPE;
        subscriber =
            subscriber.event_types(types.iter().map(String::as_str).chain([always.as_str()]));
    }
    hubs.now().subscribe(subscriber)
}

/// Serves the page, its scripts and the modules of `examples/client`. The program contains all files.
fn page() -> Router<Hubs> {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const JSON: &str = "application/json";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let files = [
        ("/", HTML, include_str!("../page/index.html")),
        ("/page.css", CSS, include_str!("../page/page.css")),
        ("/page.js", SCRIPT, include_str!("../page/page.js")),
        ("/tools.js", SCRIPT, include_str!("../page/tools.js")),
        ("/stream.js", SCRIPT, include_str!("../page/stream.js")),
        ("/feed.js", SCRIPT, include_str!("../page/feed.js")),
        ("/chart.js", SCRIPT, include_str!("../page/chart.js")),
        ("/controls.js", SCRIPT, include_str!("../page/controls.js")),
        ("/doctor.js", SCRIPT, include_str!("../page/doctor.js")),
        ("/doctor.json", JSON, include_str!("../../doctor/advice.json")),
        ("/client/sse-client.js", SCRIPT, include_str!("../../client/sse-client.js")),
        ("/client/sse-shared.js", SCRIPT, include_str!("../../client/sse-shared.js")),
    ];
    files.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router
            .route(path, get(async move || ([(CONTENT_TYPE, content_type)], text).into_response()))
    })
}
