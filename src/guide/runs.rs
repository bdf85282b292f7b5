//! Runs: the answer of a model, or the progress of a job, that outlives the request.
//!
//! A run is a stream of events with a name, a producer, a beginning and an end. The producer is a
//! task of your application. A page that reloads, a second device and a page that comes after the
//! end read the same run from its beginning to its end.
//!
//! | to | use |
//! |---|---|
//! | start a run | [`Hub::start_run`](crate::Hub::start_run) |
//! | publish, and end the run | [`Run::publish`](crate::Run::publish), [`Run::finish`](crate::Run::finish), [`Run::fail`](crate::Run::fail) |
//! | read a run | [`Subscriber::run`](crate::Subscriber::run) |
//! | stop a run by a button | [`Hub::stop_run`](crate::Hub::stop_run), [`Run::stopped`](crate::Run::stopped) |
//! | list the runs | [`Hub::runs`](crate::Hub::runs), [`Hub::run`](crate::Hub::run) |
//! | bound the memory | [`RunLimits`](crate::RunLimits) |
//! | take over the run of a worker that hangs | [`RunOptions::take_over`](crate::RunOptions::take_over) |
//!
//! # An answer
//!
//! The first handler starts the run and spawns the task. The handler of the stream subscribes. Check
//! there first that the user has the right to the answer:
//!
#![cfg_attr(all(feature = "axum-serve", feature = "tokio"), doc = "```")]
#![cfg_attr(not(all(feature = "axum-serve", feature = "tokio")), doc = "```ignore")]
//! use axum::extract::{Path, State};
//! use axum::http::StatusCode;
//! use futures_util::{Stream, StreamExt as _};
//! use sse_hub::http::ErrorResponse;
//! use sse_hub::{
//!     Event, Hub, LastEventId, Refused, Run, RunError, RunOptions, Subscriber, Subscription,
//! };
//!
//! # fn model(question: String) -> impl Stream<Item = Result<String, String>> + Send {
//! #     futures_util::stream::iter([Ok(question)])
//! # }
//! /// `POST /answers/{name}`, with the question.
//! async fn ask(
//!     State(hub): State<Hub>,
//!     Path(name): Path<String>,
//!     question: String,
//! ) -> Result<StatusCode, ErrorResponse> {
//!     let run = hub.start_run(name, RunOptions::default().append("token"))?;
//!     tokio::spawn(async move { produce(&run, question).await });
//!     Ok(StatusCode::CREATED)
//! }
//!
//! async fn produce(run: &Run, question: String) -> Result<(), RunError> {
//!     let mut tokens = Box::pin(model(question));
//!     let mut stopped = run.stopped();
//!     loop {
//!         let token = tokio::select! {
//!             token = tokens.next() => token,
//!             _ = &mut stopped => return run.finish(None),
//!         };
//!         match token {
//!             Some(Ok(token)) => drop(run.publish(Event::new("token").data(token))?),
//!             Some(Err(error)) => return run.fail(Event::new("problem").data(error)),
//!             None => return run.finish(None),
//!         }
//!     }
//! }
//!
//! /// `GET /answers/{name}`
//! async fn answer(
//!     State(hub): State<Hub>,
//!     Path(name): Path<String>,
//!     last: LastEventId,
//! ) -> Result<Subscription, Refused> {
//!     let types = ["token", "problem"];
//!     hub.subscribe(Subscriber::new().run(name).event_types(types).resume(last))
//! }
//!
//! /// `DELETE /answers/{name}`: the stop button.
//! async fn stop(
//!     State(hub): State<Hub>,
//!     Path(name): Path<String>,
//! ) -> Result<StatusCode, ErrorResponse> {
//!     hub.stop_run(name, "user")?;
//!     Ok(StatusCode::ACCEPTED)
//! }
//! ```
//!
//! A native `EventSource` is enough in the page. The page clears the text when it opens the stream,
//! appends the data of each `token`, and closes the stream at the final `hub:end`:
//!
//! ```js
//! text.textContent = "";
//! const stream = new EventSource("/answers/" + name);
//! stream.addEventListener("token", (token) => text.textContent += token.data);
//! stream.addEventListener("hub:gap", () => text.textContent += "[...]");
//! stream.addEventListener("hub:end", (end) => JSON.parse(end.data).final && stream.close());
//! ```
//!
//! | a request for the stream | gets |
//! |---|---|
//! | without an id, of an open run | the run from its beginning, and then live |
//! | with the id of the last event | the rest |
//! | after the end | everything that is kept, and then the end |
//! | after the end, with the id of the last event | `204`, which stops a native `EventSource` |
//! | of an unknown run | `404`, or a stream that [waits](crate::RunLimits::wait) |
//!
//! The examples `answer` and `jobs` are whole programs. In the example `backend`, runs belong to
//! users: the run of another user is unknown, all pages of the user are told the end, and the runs
//! of a deactivated user stop.
//!
//! # Progress
//!
//! A job reports often, and a late page needs the newest report only: give the reports a
//! [conflation key](crate::Event::conflate). The result is the event that ends the run.
//!
//! ```
//! use sse_hub::{Event, Hub, ManualTimer, RunOptions};
//!
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let job = hub.start_run("export-7", RunOptions::default())?;
//! for percent in ["50", "100"] {
//!     job.publish(Event::new("progress").data(percent).conflate("progress"))?;
//! }
//! job.finish(Event::new("result").data("/exports/7.csv"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Runs beside topics
//!
//! A client can read topics and runs in one stream. The end of a run is then an event,
//! `hub:run-end`, with the name and the reason, and the stream goes on. A page that adds a run
//! opens its stream anew, without an id: with an id, the stream continues after that position, also
//! in the run.
//!
//! # Several instances
//!
//! With a [backplane](super::instances), all this holds across instances: a run is started on one
//! instance, and read and stopped on any. The order of the backplane decides, and an instance
//! learns the decision when it reads the order. So a few things come later than for a hub alone:
//!
//! | | a hub alone | several instances |
//! |---|---|---|
//! | whether the run was started | at once | [`Run::started`](crate::Run::started) waits; the run takes events meanwhile |
//! | a name that another instance uses | an error at once | an error at once, or from `started` |
//! | a takeover | the older producer gets an error at once | its events have no effect from the takeover on, and the error comes when its instance reads the takeover |
//! | an unknown run | `404` | a stream that waits for 2 seconds, and then ends with `unknown-run`: see [`RunLimits::wait`](crate::RunLimits::wait) |
//! | the process of the producer ends | the run is gone | the run ends as `lost` within the lease, and a hub that is closed in order ends its runs as `abandoned` |
//!
//! The handler that answers with the name of the run awaits `started` first:
//!
//! ```
//! use sse_hub::{Event, Hub, Run, RunError, RunOptions};
//!
//! async fn start(hub: &Hub, name: &str) -> Result<Run, RunError> {
//!     let run = hub.start_run(name, RunOptions::default().append("token"))?;
//!     run.publish(Event::new("token").data("Hello"))?;
//!     run.started().await?;
//!     Ok(run)
//! }
//! ```
//!
//! If an instance was out of reach for longer than the lease, the others have ended its runs, and
//! its producers get [`RunError::Lost`](crate::RunError::Lost). So they do if the backplane lost
//! the run. The readers have then received `hub:run-end` with the reason `lost`: start the work
//! again under the same name, if the work can be repeated.
//!
//! # Limits
//!
//! - A run lives in the process of its producer. If the process ends, a hub alone loses the run.
//! - A producer that hangs keeps its run open: a silent run does not expire. Stop the run, or take
//!   the run over.
//! - A run beyond its bytes loses its oldest events, and the readers get `hub:gap`.
//! - The name is in the address. Decide before `subscribe` and `stop_run` whether the user has the
//!   right to the run.
