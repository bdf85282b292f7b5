//! Recipes of a backend, a file each: a [webhook] whose news reach the user they are about, [jobs] that report to the page
//! that started them, and [users] that are seen, sent away and told of.
//!
//! Run with
//!
//! ```text
//! export WEBHOOK_SECRET=whsec_$(head -c 32 /dev/urandom | base64)
//! cargo run --example backend --features axum-serve,json,tokio -- --port 3007
//! ```
//!
//! and then, in two terminals,
//!
//! ```text
//! curl --no-buffer 'http://127.0.0.1:3007/events?user=root'
//! curl --no-buffer 'http://127.0.0.1:3007/events?user=ann'
//! ```
//!
//! and in a third
//!
//! ```text
//! curl 'http://127.0.0.1:3007/admin/online?user=root'
//! curl --json '{"client":"(from the hub:open of ann)","rows":50}' 'http://127.0.0.1:3007/jobs?user=ann'
//! curl --request POST 'http://127.0.0.1:3007/admin/users/ann/deactivate?user=root'
//! ```

mod jobs;
mod users;
mod webhook;

use std::error::Error;
use std::num::ParseIntError;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use sse_hub::watchdog::Watchdog;
use sse_hub::{Hub, LastEventId, Presence, Subscriber, TokioTimer};

struct App {
    hub: Hub,
    jobs: jobs::Jobs,
    users: users::Users,
    webhooks: webhook::Webhooks,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new())
        .retry(Duration::from_secs(1))
        // Longer than a page takes to come back.
        .presence(Presence::with_grace(Duration::from_secs(3)))
        .build()?;
    tokio::spawn(users::tell_admins(hub.clone(), hub.watch()?));

    let secret = std::env::var("WEBHOOK_SECRET").map_err(|_| "WEBHOOK_SECRET is to be set")?;
    let app = Arc::new(App {
        hub: hub.clone(),
        jobs: jobs::Jobs::default(),
        users: users::Users::default(),
        webhooks: webhook::Webhooks::new(&secret)?,
    });
    let app = Router::new()
        .route("/events", get(events))
        .route("/webhooks/orders", post(webhook::order))
        .route("/jobs", post(jobs::start))
        .route("/admin/online", get(users::online))
        .route("/admin/users/{name}/deactivate", post(users::deactivate))
        .with_state(app);

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port()?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // Clients that stop reading, or never ask for anything, do not keep their sockets.
    let listener = Watchdog::builder(TokioTimer::new()).build()?.listen(listener);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            // If it cannot be waited for, that is a reason to stop as well.
            let _ = tokio::signal::ctrl_c().await;
            hub.drain(Duration::from_secs(2)).await;
            hub.close();
        })
        .await?;
    Ok(())
}

/// Who makes a request.
///
/// It believes what the address says, in place of your sessions: the example `auth_cors` shows some.
struct Caller(String);

impl Caller {
    fn is_admin(&self) -> bool {
        self.0 == "root"
    }
}

#[derive(Deserialize)]
struct Who {
    user: String,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, StatusCode> {
        let who = Query::<Who>::try_from_uri(&parts.uri);
        who.map(|Query(Who { user })| Self(user)).map_err(|_| StatusCode::UNAUTHORIZED)
    }
}

#[derive(Deserialize)]
struct Page {
    /// What `hub:open` told a page that opens its stream anew: it goes on getting what is for it alone.
    client: Option<String>,
    order: Option<String>,
}

async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Page { client, order }): Query<Page>,
    last: LastEventId,
) -> Response {
    let mut who = Subscriber::new().user(&*caller.0).resume(last);
    if let Some(client) = client.and_then(|client| client.parse().ok()) {
        who = who.client(client);
    }
    if let Some(order) = order {
        // Whether the caller may see this order is yours to check here.
        who = who.topic(webhook::topic_of(&order));
    }
    if caller.is_admin() {
        who = who.topic(users::ADMINS);
    }
    match app.users.while_active(&caller.0, || app.hub.subscribe(who)) {
        Some(answer) => answer.into_response(),
        // To a browser's `EventSource` that says: never come back.
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A status and the reason as text.
struct Failed(StatusCode, String);

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// `--port 3007`, or else the variable `PORT`, or else 3007. 0 takes any that is free.
fn port() -> Result<u16, ParseIntError> {
    let given = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    given.or_else(|| std::env::var("PORT").ok()).map_or(Ok(3007), |port| port.parse())
}
