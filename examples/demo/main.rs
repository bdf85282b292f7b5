//! A page with buttons, and the server that pushes what they do to every tab that it is for.
//!
//! Run with
//!
//! ```text
//! cargo run --example demo --features axum,json,tokio -- --port 3000
//! ```
//!
//! and open the address that it prints in two tabs. Two that share a Redis share everything else (add the feature `redis`):
//!
//! ```text
//! cargo run --example demo --features axum,json,tokio,redis -- --port 3001 --redis redis://127.0.0.1:6379
//! ```
//!
//! It has no login: whoever opens the page says who they are.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sse_hub::{
    Audience, ClientId, Event, EventType, Heartbeat, Hub, HubBuilder, LastEventId, Payload,
    Receipt, Refused, Subscriber, Subscription, TokioTimer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();

    let Arguments { port, redis } = arguments()?;
    let builder = Hub::builder(TokioTimer::new())
        .heartbeat(Heartbeat::every(Duration::from_secs(15)))
        .retry(Duration::from_secs(2));
    let hub = build(builder, redis).await?;

    let app = Router::new()
        .route("/", get(|| async { Html(include_str!("index.html")) }))
        .route("/events", get(events))
        .route("/api/notify", post(notify))
        .route("/api/alert", post(alert))
        .route("/api/jobs", post(job))
        .route("/api/custom", post(custom))
        .route("/api/stats", get(stats))
        .with_state(hub.clone());

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("sse-hub demo: http://{}", listener.local_addr()?);

    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::error!(%error, "cannot wait for ctrl-c");
            }
            // The server waits for its streams, so end them: each page is told when to come back.
            hub.drain(Duration::from_secs(2)).await;
            hub.close();
        })
        .await?;
    Ok(())
}

struct Arguments {
    port: u16,
    redis: Option<String>,
}

/// `--port 3000`, or else the variable `PORT`, or else 3000. 0 takes any that is free. `--redis URL` makes it one of
/// several.
fn arguments() -> Result<Arguments, String> {
    let (mut port, mut redis) = (std::env::var("PORT").ok(), None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} takes a value"));
        match argument.as_str() {
            "--port" => port = Some(value?),
            "--redis" => redis = Some(value?),
            other => {
                return Err(format!(
                    "unknown argument {other}: there are --port NUMBER and --redis URL"
                ));
            }
        }
    }
    let given = port.unwrap_or_else(|| "3000".into());
    let port =
        given.parse().map_err(|_| format!("{given} is no port: give a number from 0 to 65535"))?;
    Ok(Arguments { port, redis })
}

#[cfg(feature = "redis")]
async fn build(
    builder: HubBuilder,
    redis: Option<String>,
) -> Result<Hub, Box<dyn std::error::Error>> {
    let Some(address) = redis else { return Ok(builder.build()?) };
    let backplane = sse_hub::redis::Redis::new(&address)?.prefix("sse-hub-demo").build()?;
    let hub = builder.backplane(backplane.clone()).build()?;
    tokio::spawn(backplane.run(&hub));
    if tokio::time::timeout(Duration::from_secs(5), backplane.ready()).await.is_err() {
        tracing::warn!("Redis does not answer yet: serving without");
    }
    Ok(hub)
}

#[cfg(not(feature = "redis"))]
async fn build(
    builder: HubBuilder,
    redis: Option<String>,
) -> Result<Hub, Box<dyn std::error::Error>> {
    if redis.is_some() {
        return Err("--redis needs the feature `redis`".into());
    }
    Ok(builder.build()?)
}

#[derive(Deserialize)]
struct Tab {
    user: Option<String>,
    session: Option<String>,
    events: Option<String>,
}

async fn events(
    State(hub): State<Hub>,
    Query(tab): Query<Tab>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    let mut subscriber = Subscriber::new().resume(last);
    if let Some(user) = tab.user {
        subscriber = subscriber.user(user);
    }
    if let Some(session) = tab.session {
        subscriber = subscriber.session(session);
    }
    if let Some(types) = tab.events {
        subscriber = subscriber.events(types.split(',').map(str::trim));
    }
    hub.subscribe(subscriber)
}

/// Whom a button sends to.
#[derive(Clone, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
enum Target {
    All,
    User(String),
    Session(String),
    Client(String),
}

impl Target {
    fn audience(self) -> Result<Audience, Failed> {
        Ok(match self {
            Self::All => Audience::all(),
            Self::User(name) => Audience::user(name),
            Self::Session(name) => Audience::session(name),
            Self::Client(id) => Audience::client(id.parse()?),
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::All => "everybody".into(),
            Self::User(name) => format!("user {name}"),
            Self::Session(name) => format!("session {name}"),
            Self::Client(_) => "this tab".into(),
        }
    }
}

#[derive(Serialize)]
struct Notification {
    title: String,
    message: String,
    to: String,
    at: u64,
}

impl Payload for Notification {
    const TYPE: EventType = EventType::from_static("notification");
}

#[derive(Deserialize)]
struct Notify {
    to: Target,
    title: String,
    message: String,
}

async fn notify(State(hub): State<Hub>, Json(request): Json<Notify>) -> Result<Json<Sent>, Failed> {
    let Notify { to, title, message } = request;
    let event = Event::of(&Notification { title, message, to: to.describe(), at: now() })?;
    Ok(sent(hub.publish(to.audience()?, event)?))
}

#[derive(Deserialize)]
struct RaiseAlert {
    level: Level,
    message: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Info,
    Warning,
    Critical,
}

#[derive(Serialize)]
struct Alert {
    level: Level,
    message: String,
    at: u64,
}

impl Payload for Alert {
    const TYPE: EventType = EventType::from_static("alert");
}

async fn alert(
    State(hub): State<Hub>,
    Json(RaiseAlert { level, message }): Json<RaiseAlert>,
) -> Result<Json<Sent>, Failed> {
    Ok(sent(hub.broadcast(Event::of(&Alert { level, message, at: now() })?)?))
}

#[derive(Deserialize)]
struct StartJob {
    client: String,
    file: String,
}

#[derive(Serialize)]
struct Upload {
    job: String,
    file: String,
    percent: u32,
    state: &'static str,
}

impl Payload for Upload {
    const TYPE: EventType = EventType::from_static("upload");
}

/// Starts a background job, which tells the tab that asked for it how far it is.
async fn job(
    State(hub): State<Hub>,
    Json(StartJob { client, file }): Json<StartJob>,
) -> Result<Json<Sent>, Failed> {
    let client: ClientId = client.parse()?;
    let job = format!("job-{}", now());
    let first = report(&hub, client, &job, &file, 0)?;
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        for percent in (4..=100).step_by(4) {
            tick.tick().await;
            if let Err(Failed(_, error)) = report(&hub, client, &job, &file, percent) {
                tracing::warn!(job, error, "the upload is not reported any more");
                return;
            }
        }
    });
    Ok(sent(first))
}

fn report(
    hub: &Hub,
    client: ClientId,
    job: &str,
    file: &str,
    percent: u32,
) -> Result<Receipt, Failed> {
    let state = if percent == 100 { "done" } else { "running" };
    let upload = Upload { job: job.into(), file: file.into(), percent, state };
    Ok(hub.send_to_client(client, Event::of(&upload)?)?)
}

#[derive(Deserialize)]
struct Custom {
    event: String,
    data: serde_json::Value,
    to: Target,
}

async fn custom(State(hub): State<Hub>, Json(request): Json<Custom>) -> Result<Json<Sent>, Failed> {
    let event = Event::new(request.event).json(&request.data)?;
    Ok(sent(hub.publish(request.to.audience()?, event)?))
}

#[derive(Serialize)]
struct Counts {
    clients: usize,
    published: u64,
    retained: usize,
}

async fn stats(State(hub): State<Hub>) -> Json<Counts> {
    let stats = hub.stats();
    Json(Counts { clients: stats.clients, published: stats.published, retained: stats.retained })
}

/// What a button shows.
#[derive(Serialize)]
struct Sent {
    /// Unless the event is still on its way to the backplane.
    id: Option<String>,
    matched: usize,
}

fn sent(receipt: Receipt) -> Json<Sent> {
    let id = receipt.id().map(|id| id.to_string());
    Json(Sent { id, matched: receipt.matched() })
}

/// What a button shows when the server will not do it: the hub's errors say what to do.
struct Failed(StatusCode, String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64)
}
