//! Jobs that report progress, can be cancelled, and keep the result for a page that comes late.
//!
//! A job is a *run*: a stream with a name, a producer, a beginning and an end.
//!
//! Run with
//!
//! ```text
//! cargo run --example jobs --features axum-serve,tokio -- --port 3007
//! ```
//!
//! and then
//!
//! ```text
//! curl -X POST "http://127.0.0.1:3007/jobs?rows=200"
//! curl --no-buffer http://127.0.0.1:3007/jobs/job-0
//! curl -X DELETE http://127.0.0.1:3007/jobs/job-0
//! curl http://127.0.0.1:3007/jobs
//! ```

mod common;

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use sse_hub::http::ErrorResponse;
use sse_hub::watchdog::Watchdog;
use sse_hub::{
    Event, Hub, LastEventId, Refused, Run, RunError, RunLimits, RunOptions, Subscriber,
    Subscription, TokioTimer,
};
use tokio::net::TcpListener;

struct Jobs {
    hub: Hub,
    started: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A result is kept for an hour. A page may come before the job is started.
    let limits = RunLimits::default().keep(Duration::from_secs(3600)).wait(Duration::from_secs(10));
    let hub = Hub::builder(TokioTimer::new()).runs(limits).build()?;
    let jobs = Arc::new(Jobs { hub: hub.clone(), started: AtomicU64::new(0) });
    let app = Router::new()
        .route("/jobs", get(list).post(start))
        .route("/jobs/{name}", get(events).delete(cancel))
        .with_state(jobs);
    let listener = TcpListener::bind(("127.0.0.1", common::port(3007)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    let server = axum::serve(listener, app).with_graceful_shutdown(common::drained(hub));
    tokio::select! {
        served = server => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

#[derive(Deserialize)]
struct Export {
    rows: u32,
}

/// Starts a job, and returns the name.
async fn start(
    State(jobs): State<Arc<Jobs>>,
    Query(Export { rows }): Query<Export>,
) -> Result<(StatusCode, String), ErrorResponse> {
    let name = format!("job-{}", jobs.started.fetch_add(1, Ordering::Relaxed));
    let run = jobs.hub.start_run(&name, RunOptions::default())?;
    tokio::spawn(async move {
        if let Err(error) = export(&run, rows).await {
            eprintln!("a job cannot report: {error}");
        }
    });
    Ok((StatusCode::ACCEPTED, name))
}

async fn export(run: &Run, rows: u32) -> Result<(), RunError> {
    for row in 0..rows {
        // Between two rows, the job can be cancelled.
        if run.is_stopped() {
            let note = format!("{row} of {rows} rows");
            return run.finish(Event::new("cancelled").data(note));
        }
        // The work.
        tokio::time::sleep(Duration::from_millis(10)).await;

        let percent = (u64::from(row) + 1) * 100 / u64::from(rows);
        // Each report replaces the last: a late page gets only the newest.
        let progress = Event::new("progress").data(percent.to_string()).conflate("progress");
        run.publish(progress)?;
    }
    if rows == 0 {
        return run.fail(Event::new("problem").data("nothing to export"));
    }
    run.finish(Event::new("result").data(format!("{rows} rows")))
}

/// The events of a job, also after the end.
async fn events(
    State(jobs): State<Arc<Jobs>>,
    Path(name): Path<String>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    jobs.hub.subscribe(Subscriber::new().run(name).resume(last))
}

async fn cancel(
    State(jobs): State<Arc<Jobs>>,
    Path(name): Path<String>,
) -> Result<StatusCode, ErrorResponse> {
    jobs.hub.stop_run(name, "cancelled")?;
    Ok(StatusCode::ACCEPTED)
}

/// A line for each job.
async fn list(State(jobs): State<Arc<Jobs>>) -> String {
    let mut runs = jobs.hub.runs();
    runs.sort_by(|a, b| a.started.cmp(&b.started).then_with(|| a.name.cmp(&b.name)));
    let mut lines = String::new();
    for run in runs {
        let _ = writeln!(lines, "{} {} {} pages", run.name, run.state.as_str(), run.clients);
    }
    lines
}
