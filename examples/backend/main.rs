//! Recipes for a backend with several users, one file each: a [webhook] with a message for the pages
//! of a user, [jobs] that belong to a user, and [users]: the server shows their presence, and can
//! deactivate a user. A deactivated user loses the streams and the jobs.
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
//! and in a third: start a job, follow the job for two seconds, follow it again from its beginning,
//! try that as another user, stop the job, start another, and deactivate the user.
//!
//! ```text
//! curl --json '{"rows":6000}' 'http://127.0.0.1:3007/jobs?user=ann'
//! curl --no-buffer --max-time 2 'http://127.0.0.1:3007/jobs/0/events?user=ann'
//! curl --no-buffer --max-time 2 'http://127.0.0.1:3007/jobs/0/events?user=ann'
//! curl --include 'http://127.0.0.1:3007/jobs/0/events?user=eve'
//! curl --request DELETE 'http://127.0.0.1:3007/jobs/0?user=ann'
//! curl --json '{"rows":6000}' 'http://127.0.0.1:3007/jobs?user=ann'
//! curl 'http://127.0.0.1:3007/admin/online?user=root'
//! curl --request POST 'http://127.0.0.1:3007/admin/users/ann/deactivate?user=root'
//! curl 'http://127.0.0.1:3007/jobs?user=root'
//! ```

#[path = "../common/mod.rs"]
mod common;
mod jobs;
mod users;
mod webhook;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Deserialize;
use sse_hub::http::stop_response;
use sse_hub::watchdog::Watchdog;
use sse_hub::{Hub, LastEventId, Presence, Subscriber, TokioTimer};
use tokio::net::TcpListener;

struct App {
    hub: Hub,
    jobs: jobs::Jobs,
    users: users::Users,
    webhooks: webhook::Webhooks,
}

impl App {
    /// Opens a stream of a user.
    fn open(&self, user: &str, who: Subscriber) -> Response {
        match self.users.while_active(user, || self.hub.subscribe(who)) {
            Ok(answer) => answer.into_response(),
            // The `EventSource` of a deactivated user must stop for good.
            Err(_) => stop_response().into_response(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new())
        .retry(Duration::from_secs(1))
        // Longer than the reload of a page takes.
        .presence(Presence::default().grace(Duration::from_secs(3)))
        .build()?;
    tokio::spawn(users::tell_admins(hub.clone(), hub.watch()?));

    let secret = std::env::var("WEBHOOK_SECRET").map_err(|_| "set WEBHOOK_SECRET")?;
    let app = Arc::new(App {
        hub: hub.clone(),
        jobs: jobs::Jobs::default(),
        users: users::Users::default(),
        webhooks: webhook::Webhooks::new(&secret)?,
    });
    let app = Router::new()
        .route("/events", get(events))
        .route("/webhooks/orders", post(webhook::order))
        .route("/jobs", get(jobs::list).post(jobs::start))
        .route("/jobs/{job}", delete(jobs::stop))
        .route("/jobs/{job}/events", get(jobs::events))
        .route("/admin/online", get(users::online))
        .route("/admin/users/{name}/deactivate", post(users::deactivate))
        .with_state(app);

    let listener = TcpListener::bind(("127.0.0.1", common::port(3007)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // Cuts connections that make no progress, and sets TCP_NODELAY, so that small events do not
    // wait.
    let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    let server = axum::serve(listener, app).with_graceful_shutdown(common::drained(hub));
    tokio::select! {
        served = server => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

/// The user that sends a request.
///
/// Trusts the URL. Use your sessions instead: the example `auth_cors` shows how.
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
    order: Option<String>,
}

async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Page { order }): Query<Page>,
    last: LastEventId,
) -> Response {
    let mut who = Subscriber::new().user(&*caller.0).resume(last);
    if let Some(order) = order {
        // Check here whether the caller may see this order.
        who = who.topic(webhook::topic_of(&order));
    }
    if caller.is_admin() {
        who = who.topic(users::ADMINS);
    }
    app.open(&caller.0, who)
}
