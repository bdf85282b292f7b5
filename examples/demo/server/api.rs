//! What the page's buttons do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sse_hub::{Audience, ClientId, Event, Goodbye, Hub, PublishError, Receipt};

use crate::events::{Alert, Level, Notification, Progress, Tick, Upload};
use crate::hub::{Hubs, online};

pub(crate) fn routes() -> Router<Hubs> {
    Router::new()
        .route("/api/notify", post(notify))
        .route("/api/alert", post(alert))
        .route("/api/jobs", post(job))
        .route("/api/custom", post(custom))
        .route("/api/topics", post(follow))
        .route("/api/kick", post(kick))
        .route("/api/flood", post(flood))
        .route("/api/drain", post(drain))
        .route("/api/users", get(async |State(hubs): State<Hubs>| Json(online(&hubs.now()))))
        .route("/api/stats", get(stats))
}

/// The audience of a button.
#[derive(Clone, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
enum Target {
    All,
    User(String),
    Session(String),
    Topic(String),
    Client(String),
}

impl Target {
    fn audience(self) -> Result<Audience, Failed> {
        Ok(match self {
            Self::All => Audience::all(),
            Self::User(name) => Audience::user(name),
            Self::Session(name) => Audience::session(name),
            Self::Topic(name) => Audience::topic(name),
            Self::Client(id) => Audience::client(id.parse()?),
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::All => "everybody".into(),
            Self::User(name) => format!("user {name}"),
            Self::Session(name) => format!("session {name}"),
            Self::Topic(name) => format!("topic {name}"),
            Self::Client(_) => "this tab".into(),
        }
    }
}

#[derive(Deserialize)]
struct Notify {
    to: Target,
    title: String,
    message: String,
}

async fn notify(
    State(hubs): State<Hubs>,
    Json(Notify { to, title, message }): Json<Notify>,
) -> Result<Json<Sent>, Failed> {
    let event =
        Event::from_payload(&Notification { title, message, to: to.describe(), at: now() })?;
    Ok(sent(hubs.now().publish(to.audience()?, event)?))
}

#[derive(Deserialize)]
struct RaiseAlert {
    level: Level,
    message: String,
}

async fn alert(
    State(hubs): State<Hubs>,
    Json(RaiseAlert { level, message }): Json<RaiseAlert>,
) -> Result<Json<Sent>, Failed> {
    Ok(sent(hubs.now().broadcast(Event::from_payload(&Alert { level, message, at: now() })?)?))
}

#[derive(Deserialize)]
struct StartJob {
    client: String,
    file: String,
}

/// Starts a background job, which tells the tab that asked for it how far it is.
async fn job(
    State(hubs): State<Hubs>,
    Json(StartJob { client, file }): Json<StartJob>,
) -> Result<Json<Sent>, Failed> {
    let client: ClientId = client.parse()?;
    let job = format!("job-{}", now());
    let hub = hubs.now();
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
    let state = if percent == 100 { Progress::Done } else { Progress::Running };
    let upload = Upload { job: job.into(), file: file.into(), percent, state, at: now() };
    Ok(hub.send_to_client(client, Event::from_payload(&upload)?)?)
}

#[derive(Deserialize)]
struct Custom {
    event: String,
    data: serde_json::Value,
    to: Target,
}

async fn custom(
    State(hubs): State<Hubs>,
    Json(Custom { event, data, to }): Json<Custom>,
) -> Result<Json<Sent>, Failed> {
    Ok(sent(hubs.now().publish(to.audience()?, Event::new(event).json(&data)?)?))
}

#[derive(Deserialize)]
struct Follow {
    client: String,
    topic: String,
    follow: bool,
}

/// An open stream joins a topic, or leaves it, without connecting anew.
async fn follow(
    State(hubs): State<Hubs>,
    Json(Follow { client, topic, follow }): Json<Follow>,
) -> Result<Json<Changed>, Failed> {
    let (hub, tab) = (hubs.now(), Audience::client(client.parse()?));
    let clients = if follow { hub.join(&tab, topic)? } else { hub.leave(&tab, topic)? };
    Ok(Json(Changed { changed: clients.changed }))
}

#[derive(Deserialize)]
struct Kick {
    user: String,
}

/// Ends a user's streams, on whichever demo they are. Their pages come back by themselves, as this demo lets everybody in.
async fn kick(
    State(hubs): State<Hubs>,
    Json(Kick { user }): Json<Kick>,
) -> Result<Json<Changed>, Failed> {
    let hub = hubs.now();
    // Of other demos it is not known how many, but one at least.
    let elsewhere = hub.users().into_iter().find(|info| *info.user == *user);
    let elsewhere = elsewhere.map_or(0, |info| info.other_instances);
    let here = hub.disconnect(Audience::user(user), Goodbye::from_static("kicked"))?;
    Ok(Json(Changed { changed: elsewhere + here.changed }))
}

#[derive(Deserialize)]
struct Flood {
    events: u32,
    per_second: u32,
    size: usize,
}

/// Publishes many events to everybody, at a rate.
async fn flood(
    State(hubs): State<Hubs>,
    Json(Flood { events, per_second, size }): Json<Flood>,
) -> Result<Json<Changed>, Failed> {
    if events > 200_000 || per_second == 0 || size > 10_000 {
        let limits = "at most 200000 events of 10000 bytes, and more than none a second";
        return Err(Failed(StatusCode::UNPROCESSABLE_ENTITY, limits.into()));
    }
    let hub = hubs.now();
    let padding = "x".repeat(size);
    tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        let each = per_second.div_ceil(100);
        let mut n = 0;
        while n < events {
            pace.tick().await;
            for _ in 0..each.min(events - n) {
                if let Err(error) = publish_tick(&hub, n, &padding) {
                    tracing::debug!(%error, "the flood is over");
                    return;
                }
                n += 1;
            }
        }
    });
    Ok(Json(Changed { changed: events as usize }))
}

fn publish_tick(hub: &Hub, n: u32, padding: &str) -> Result<(), Box<dyn std::error::Error>> {
    let event = Event::from_payload(&Tick { n, at: now(), padding: padding.into() })?;
    hub.broadcast(event).map(drop).map_err(|error: PublishError| error.into())
}

#[derive(Deserialize)]
struct DrainOver {
    seconds: f64,
}

/// Does what a shutdown does, and then opens again.
async fn drain(
    State(hubs): State<Hubs>,
    Json(DrainOver { seconds }): Json<DrainOver>,
) -> Result<Json<Changed>, Failed> {
    let over = Duration::try_from_secs_f64(seconds.min(60.0))?;
    let changed = hubs.now().stats().clients;
    tokio::spawn(async move { hubs.drain(over).await });
    Ok(Json(Changed { changed }))
}

#[derive(Serialize)]
struct Counts {
    clients: usize,
    published: u64,
    retained: usize,
    delivered: u64,
    gaps: u64,
    opened: u64,
    /// How many events it keeps at most.
    retains: usize,
}

async fn stats(State(hubs): State<Hubs>) -> Json<Counts> {
    let stats = hubs.now().stats();
    Json(Counts {
        clients: stats.clients,
        published: stats.published,
        retained: stats.retained,
        delivered: stats.delivered,
        gaps: stats.gaps,
        opened: stats.opened,
        retains: hubs.retains(),
    })
}

/// What a button shows.
#[derive(Serialize)]
struct Sent {
    matched: usize,
}

fn sent(receipt: Receipt) -> Json<Sent> {
    Json(Sent { matched: receipt.matched() })
}

/// How many clients or events it was about.
#[derive(Serialize)]
struct Changed {
    changed: usize,
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
