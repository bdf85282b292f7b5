//! A page with buttons, and the server that pushes what they do to every tab that it is for.
//!
//! Run with
//!
//! ```text
//! cargo run --example demo --features axum-serve,json,tokio -- --port 3000
//! ```
//!
//! and open the address that it prints in two tabs. Several that share a Redis are one: events, who is online, and whom a
//! button ends or joins to a topic (add the feature `redis`):
//!
//! ```text
//! cargo run --example demo --features axum-serve,json,tokio,redis -- --port 3001 --redis redis://127.0.0.1:6379
//! ```
//!
//! It asks for no password: whoever opens the page says who they are.

mod api;
mod arguments;
mod events;
mod hub;
mod tokens;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;
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
        .route("/events", get(events))
        .merge(api::routes())
        .merge(tokens::routes())
        .merge(page());
    if let Some(web) = web {
        app = app.nest_service("/app", ServeDir::new(web));
    }
    let app = app.layer(Extension(tokens)).with_state(hubs.clone());

    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("sse-hub demo: http://{}", listener.local_addr()?);
    // Clients that stop reading, or never ask for anything, do not keep their sockets.
    let listener = Watchdog::builder(TokioTimer::new()).build()?.listen(listener);

    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::error!(%error, "cannot wait for ctrl-c");
            }
            // The server waits for its streams, so end them: each page is told when to come back.
            let hub = hubs.now();
            hub.drain(Duration::from_secs(2)).await;
            hub.close();
        })
        .await?;
    Ok(())
}

/// What a page says of itself. A service would take it from a session that it has verified.
#[derive(Deserialize)]
struct Tab {
    user: Option<String>,
    session: Option<String>,
    client: Option<String>,
    events: Option<String>,
    topics: Option<String>,
}

async fn events(
    State(hubs): State<Hubs>,
    Admitted(until): Admitted,
    Query(tab): Query<Tab>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    let mut subscriber = Subscriber::new().resume(last).topic(hubs.own());
    if let Some(until) = until {
        subscriber = subscriber.until(until);
    }
    if let Some(user) = tab.user {
        subscriber = subscriber.user(user);
    }
    if let Some(session) = tab.session {
        subscriber = subscriber.session(session);
    }
    // A tab that comes back keeps its id, and so gets what was sent to it alone meanwhile.
    if let Some(client) = tab.client.and_then(|text| text.parse::<ClientId>().ok()) {
        subscriber = subscriber.client(client);
    }
    if let Some(topics) = tab.topics {
        subscriber = subscriber.topics(topics.split(',').map(str::trim).map(String::from));
    }
    if let Some(types) = tab.events {
        let always = events::Presence::TYPE;
        let types = types.split(',').map(str::trim).chain([always.as_str()]);
        subscriber = subscriber.events(types);
    }
    hubs.now().subscribe(subscriber)
}

/// Serves the page, its scripts and the modules of `examples/client`. The program contains all files.
fn page() -> Router<Hubs> {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
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
        ("/client/sse-client.js", SCRIPT, include_str!("../../client/sse-client.js")),
        ("/client/sse-shared.js", SCRIPT, include_str!("../../client/sse-shared.js")),
    ];
    files.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router
            .route(path, get(async move || ([(CONTENT_TYPE, content_type)], text).into_response()))
    })
}
