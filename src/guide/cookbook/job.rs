//! A job: progress, cancellation, and a result for a page that comes late.
//!
//! The job is a [run](crate::guide::runs) that a task, or a worker in the same process, produces.
//! The example `jobs` is the whole server, and the example `backend` a server with several users.
//!
//! ```
//! use std::time::Duration;
//! use futures_util::StreamExt as _;
//! use sse_hub::{
//!     Event, Hub, LastEventId, ManualTimer, Refused, Run, RunError, RunLimits, RunOptions,
//!     RunState, Subscriber, Subscription,
//! };
//!
//! fn build() -> Result<Hub, sse_hub::ConfigError> {
//!     // The result stays for an hour. A page may come some seconds before its job is started.
//!     let limits =
//!         RunLimits::default().keep(Duration::from_secs(3600)).wait(Duration::from_secs(10));
//!     Hub::builder(ManualTimer::new()).runs(limits).build() // In a service: `TokioTimer::new()`.
//! }
//!
//! /// The work, on any thread: publishing never waits.
//! fn export(run: &Run, rows: u32) -> Result<(), RunError> {
//!     for row in 1..=rows {
//!         if run.is_stopped() {
//!             return run.finish(Event::new("cancelled").data(format!("{row} of {rows}")));
//!         }
//!         let percent = u64::from(row) * 100 / u64::from(rows);
//!         // Each report replaces the report before: a late page gets only the newest.
//!         run.publish(Event::new("progress").data(percent.to_string()).conflate("progress"))?;
//!     }
//!     run.finish(Event::new("result").data(format!("{rows} rows")))
//! }
//!
//! /// `GET /jobs/{name}`, after the rights of the user were checked.
//! fn events(hub: &Hub, name: &str, last: LastEventId) -> Result<Subscription, Refused> {
//!     hub.subscribe(Subscriber::new().run(name).resume(last))
//! }
//!
//! # futures_executor::block_on(async {
//! let hub = build()?;
//! export(&hub.start_run("job-7", RunOptions::default())?, 1_000)?;
//!
//! // A page that comes after the end.
//! let items: Vec<_> = events(&hub, "job-7", LastEventId::none())?.collect().await;
//! let text = String::from_utf8(items.concat())?;
//! assert_eq!(text.matches("event: progress\n").count(), 1);
//! assert!(text.contains("event: result\ndata: 1000 rows\n"));
//! assert_eq!(hub.run("job-7").map(|job| job.state), Some(RunState::Finished));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # The page
//!
//! ```text
//! const stream = new EventSource(`/jobs/${name}`);
//! stream.addEventListener("progress", (event) => bar.value = event.data);
//! stream.addEventListener("result", (event) => show(event.data));
//! stream.addEventListener("hub:run-end", (end) => state(JSON.parse(end.data).reason));
//! stream.addEventListener("hub:end", (end) => JSON.parse(end.data).final && stream.close());
//! cancel.onclick = () => fetch(`/jobs/${name}`, { method: "DELETE" }); // `Hub::stop_run`
//! ```
//!
//! # All jobs of a user in one stream
//!
//! A page with a list of jobs reads several runs at once: `Subscriber::new().runs(names)`. The
//! stream ends when all have ended, or stays open with
//! [`ends_with_runs(false)`](crate::Subscriber::ends_with_runs). Each end is an event,
//! `hub:run-end`, with the name of the run.
//!
//! # Limits
//!
//! - A worker that hangs keeps its run open. Start the run again with
//!   [`take_over`](crate::RunOptions::take_over): the old producer is fenced off.
//! - Jobs that must survive the process need a queue. Its worker starts the run again and takes
//!   over nothing: the progress of the old process is gone.
//! - A worker in another process cannot produce a run of this hub. Publish to a topic over
//!   [Redis](crate::guide::instances).
