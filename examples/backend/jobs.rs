//! Background jobs. Each is a *run* of the user that started the job: all devices of the user can
//! follow and stop the job, and all pages of the user are told the end.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sse_hub::http::ErrorResponse;
use sse_hub::{Audience, Event, EventType, Hub, LastEventId, Payload, Run, RunOptions, Subscriber};

use crate::{App, Caller};

/// How many rows a file has.
const ROWS_PER_FILE: u32 = 20;

#[derive(Default)]
pub(crate) struct Jobs {
    /// Stands for the ids of your database.
    started: AtomicU64,
}

#[derive(Serialize)]
struct Progress {
    percent: u32,
}

impl Payload for Progress {
    const TYPE: EventType = EventType::from_static("job-progress");
}

#[derive(Serialize)]
struct Written {
    file: String,
}

impl Payload for Written {
    const TYPE: EventType = EventType::from_static("job-file");
}

#[derive(Serialize)]
struct Ended {
    job: u64,
    state: &'static str,
}

impl Payload for Ended {
    const TYPE: EventType = EventType::from_static("job-ended");
}

/// Returns the name of the run of a job.
///
/// The user comes from the session, and only the number from the request. So a request cannot
/// address a job of another user: such a job is unknown, with the status 404. The answer 403 would
/// tell strangers which jobs exist.
fn run_of(user: &str, job: u64) -> String {
    format!("{user}/{job}")
}

/// Returns the user and the number in the name of a run. The name of the user may contain a `/`.
fn job_of(run: &str) -> Option<(&str, u64)> {
    let (user, job) = run.rsplit_once('/')?;
    Some((user, job.parse().ok()?))
}

#[derive(Deserialize)]
pub(crate) struct Export {
    rows: u32,
}

pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Json(Export { rows }): Json<Export>,
) -> Result<(StatusCode, Json<Value>), ErrorResponse> {
    let job = app.jobs.started.fetch_add(1, Ordering::Relaxed);
    let start = || app.hub.start_run(run_of(&user, job), RunOptions::default());
    let run = app.users.while_active(&user, start)??;
    tokio::spawn(work(app.hub.clone(), user, job, run, rows));
    Ok((StatusCode::ACCEPTED, Json(json!({ "job": job }))))
}

/// Does the job, and then tells all pages of the user how the job ended.
async fn work(hub: Hub, user: String, job: u64, run: Run, rows: u32) {
    let name = run.name().to_owned();
    // A task of its own, so that the pages are told even if the export panics. The run then ends as
    // abandoned, because the task drops the run.
    match tokio::spawn(export(run, job, rows)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, job, "job broke off"),
        Err(error) => tracing::error!(%error, job, "job panicked"),
    }
    let Some(run) = hub.run(name) else { return };
    let ended = Event::from_payload(&Ended { job, state: run.state.as_str() });
    let told = ended.map(|ended| hub.publish(Audience::user(user), ended));
    if !matches!(told, Ok(Ok(_))) {
        tracing::warn!(job, ?told, "end of a job not published");
    }
}

async fn export(run: Run, job: u64, rows: u32) -> Result<(), Box<dyn Error + Send + Sync>> {
    for row in 1..=rows {
        // Between two rows, the job can be stopped. The files up to here stay.
        if run.is_stopped() {
            break;
        }
        // The work.
        tokio::time::sleep(Duration::from_millis(10)).await;

        // Each report of the progress replaces the one before. The files are all needed.
        let percent = (u64::from(row) * 100 / u64::from(rows)) as u32;
        run.publish(Event::from_payload(&Progress { percent })?.conflate("progress"))?;
        if row % ROWS_PER_FILE == 0 || row == rows {
            let file = format!("export-{job}-{}.csv", row.div_ceil(ROWS_PER_FILE));
            run.publish(Event::from_payload(&Written { file })?)?;
        }
    }
    // As stopped, if somebody asked for that.
    Ok(run.finish(None)?)
}

/// The stream of a job, from the beginning and also after the end.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Path(job): Path<u64>,
    last: LastEventId,
) -> Response {
    // Only the events of the run: the other events for the user come with `/events`. With the user,
    // the stream ends when an admin deactivates the user.
    let types = [Progress::TYPE, Written::TYPE];
    let who = Subscriber::new().user(&*user).run(run_of(&user, job)).event_types(types);
    app.open(&user, who.resume(last))
}

pub(crate) async fn stop(
    State(app): State<Arc<App>>,
    Caller(user): Caller,
    Path(job): Path<u64>,
) -> Result<StatusCode, ErrorResponse> {
    app.users.while_active(&user, || app.hub.stop_run(run_of(&user, job), "user"))??;
    Ok(StatusCode::ACCEPTED)
}

/// Asks the open jobs of a user to stop. Returns their number.
pub(crate) fn stop_all(hub: &Hub, user: &str) -> usize {
    let runs = hub.runs().into_iter();
    let own = runs.filter(|run| job_of(&run.name).is_some_and(|(owner, _)| owner == user));
    // An error is the answer for a job that has ended.
    own.filter(|run| hub.stop_run(&*run.name, "deactivated").is_ok()).count()
}

#[derive(Serialize)]
pub(crate) struct Listed {
    user: String,
    job: u64,
    state: &'static str,
}

/// Lists the jobs of the caller, for another device. For an admin, lists the jobs of all users.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<Vec<Listed>>, ErrorResponse> {
    let runs = app.users.while_active(&caller.0, || app.hub.runs())?;
    let mut jobs = Vec::new();
    for run in &runs {
        if let Some((user, job)) = job_of(&run.name)
            && (user == caller.0 || caller.is_admin())
        {
            jobs.push(Listed { user: user.to_owned(), job, state: run.state.as_str() });
        }
    }
    jobs.sort_unstable_by_key(|listed| listed.job);
    Ok(Json(jobs))
}
