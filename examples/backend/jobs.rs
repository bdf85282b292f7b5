//! A background job that reports progress to the page that started the job.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sse_hub::http::ErrorResponse;
use sse_hub::{Audience, ClientId, Event, EventType, Hub, Payload};

use crate::{App, Caller};

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
    /// The client id of the page, from its `hub:open`.
    client: String,
    rows: u32,
}

pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Json(Export { client, rows }): Json<Export>,
) -> Result<(StatusCode, Json<Value>), ErrorResponse> {
    let client: ClientId = client.parse()?;
    // The id comes from the request. Together with the user it cannot address another user's page.
    let page = Audience::client(client).and(Audience::user(user));
    if app.hub.count(&page) == 0 {
        // The page must open a stream first.
        return Err(StatusCode::CONFLICT.into());
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
        // Each report replaces the one before: a slow page gets only the newest, and frequent
        // reports do not evict other events.
        let event = Event::from_payload(&progress).map(|event| event.conflate(&*job));
        report(&hub, &page, event);
    }
    report(&hub, &page, Event::from_payload(&Done { job: &job, rows }));
}

/// Publishes a report. The job continues if that fails.
fn report(hub: &Hub, page: &Audience, event: Result<Event, sse_hub::JsonError>) {
    let published = event.map(|event| hub.publish(page.clone(), event));
    match published {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "job report failed"),
        Err(error) => tracing::warn!(%error, "job report failed"),
    }
}
