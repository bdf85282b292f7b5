//! A background job that tells the page that started it how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sse_hub::{Audience, ClientId, Event, EventType, Hub, Payload};

use crate::{App, Caller, Failed};

#[derive(Default)]
pub(crate) struct Jobs {
    started: AtomicU64,
}

#[derive(Serialize)]
struct Progress<'a> {
    job: &'a str,
    percent: u32,
}

impl Payload for Progress<'_> {
    const TYPE: EventType = EventType::from_static("job-progress");
}

#[derive(Serialize)]
struct Done<'a> {
    job: &'a str,
    rows: u32,
}

impl Payload for Done<'_> {
    const TYPE: EventType = EventType::from_static("job-done");
}

#[derive(Deserialize)]
pub(crate) struct Export {
    /// The page, by the id that its `hub:open` told it.
    client: String,
    rows: u32,
}

pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Json(Export { client, rows }): Json<Export>,
) -> Result<(StatusCode, Json<Value>), Failed> {
    let client: ClientId = client.parse()?;
    // The id came from outside. With its user beside it, it reaches nobody else, whoever's id it is.
    let page = Audience::client(client).and(Audience::user(user));
    if app.hub.count(&page) == 0 {
        return Err(Failed(StatusCode::CONFLICT, "the page has no stream: open it first".into()));
    }
    let job = format!("job-{}", app.jobs.started.fetch_add(1, Ordering::Relaxed));
    let answer = Json(json!({ "job": job }));
    tokio::spawn(export(app.hub.clone(), page, job, rows));
    Ok((StatusCode::ACCEPTED, answer))
}

async fn export(hub: Hub, page: Audience, job: String, rows: u32) {
    for row in 0..rows {
        // The work.
        tokio::time::sleep(Duration::from_millis(10)).await;

        let percent = (u64::from(row) + 1) * 100 / u64::from(rows);
        let progress = Progress { job: &job, percent: percent as u32 };
        // Each replaces the last: a page that is slow, or was away for a moment, gets only the newest, and a job that
        // reports often crowds out nothing else that is retained.
        let event = Event::from_payload(&progress).map(|event| event.conflate(&*job));
        report(&hub, &page, event);
    }
    report(&hub, &page, Event::from_payload(&Done { job: &job, rows }));
}

/// The job goes on whether or not it can be told of it.
fn report(hub: &Hub, page: &Audience, event: Result<Event, sse_hub::JsonError>) {
    let published = event.map(|event| hub.publish(page.clone(), event));
    match published {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a job cannot be reported"),
        Err(error) => tracing::warn!(%error, "a job cannot be reported"),
    }
}
