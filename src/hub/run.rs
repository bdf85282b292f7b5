//! The producers of runs.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use super::reading;
use super::shared::Shared;
use crate::core::deferred::Work;
use crate::core::receipt::Receipt;
use crate::core::run::Producer;
use crate::core::telemetry;
use crate::error::{InvalidReason, RunError};
use crate::log::audience::Audience;
use crate::log::codec;
use crate::log::entry::{Encoded, Prepared};
use crate::log::key::Key;
use crate::log::runs::{NewRun, RunRecord, RunState, Runs, Started};
use crate::sync;
use crate::wire::event::Event;
use crate::wire::frame;

/// The producer of a run: a stream of events with a name, a beginning and an end, such as the
/// answer of a model or the progress of a job.
///
/// [`Hub::start_run`](crate::Hub::start_run) returns a `Run`, which belongs to a task of the
/// application. So the run outlives the request that started the task. Any number of clients
/// [read](crate::Subscriber::run) the run at any time: a page that reloads, a second device, a page
/// that comes after the end.
///
/// ```
/// use futures_util::StreamExt as _;
/// use sse_hub::{Event, Hub, ManualTimer, RunOptions, Subscriber};
///
/// # futures_executor::block_on(async {
/// let hub = Hub::builder(ManualTimer::new()).build()?;
///
/// // In the handler that starts the answer: the task goes on when the request is over.
/// let run = hub.start_run("answer-7", RunOptions::default().append("token"))?;
/// for token in ["Hel", "lo", "!"] {
///     run.publish(Event::new("token").data(token))?;
/// }
/// run.finish(None)?;
///
/// // In the handler of the stream, also after the end.
/// let stream = hub.subscribe(Subscriber::new().run("answer-7"))?;
/// let text = String::from_utf8(stream.collect::<Vec<_>>().await.concat())?;
/// assert!(text.contains("event: token\ndata: Hello!\n"));
/// assert!(text.contains("event: hub:run-end\ndata: {\"run\":\"answer-7\",\"reason\":\"finished\"}\n"));
/// assert!(text.ends_with("data: {\"reason\":\"finished\",\"final\":true}\n\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Ordering
///
/// The events of a run have ids of the hub's order. So a client can read several runs and topics in
/// the same stream, and a single `Last-Event-ID` resumes everything.
///
/// # Resuming
///
/// A first connection receives the run from its beginning. A connection with a `Last-Event-ID`
/// receives everything after that position, without a repeat. If the run has lost events after the
/// position, the client gets `hub:gap` first: see [`RunLimits`](crate::RunLimits).
///
/// A first connection that is cut off while it receives the past of a run comes back to a position
/// of that past. The client then also receives the events for its other names that were published
/// since that position, or a gap if the hub has lost these. A page that needs only the run selects
/// the [event types](crate::Subscriber::event_types) of the run.
///
/// # Ends
///
/// | end | when |
/// |---|---|
/// | [`Finished`](RunState::Finished) | [`finish`](Self::finish) |
/// | [`Failed`](RunState::Failed) | [`fail`](Self::fail) |
/// | [`Stopped`](RunState::Stopped) | [`finish`](Self::finish) or a drop after [`Hub::stop_run`](crate::Hub::stop_run) |
/// | [`Abandoned`](RunState::Abandoned) | the `Run` is dropped: the task has panicked, or was aborted |
///
/// The last event of a run is `hub:run-end`, with the name of the run and the reason. A stream that
/// reads only runs is then complete, and ends with a final `hub:end`. The events and the end stay
/// for [`RunLimits::keep`](crate::RunLimits::keep). A run that is silent does not end. If the hub
/// is closed, the run is gone without an end, as the hub's log is.
///
/// A `Run` does not keep the hub open. Purposefully not `Clone`: tasks share a `Run` in an `Arc`.
#[must_use = "dropping a run ends the run as abandoned"]
pub struct Run {
    shared: Arc<Shared>,
    name: Arc<str>,
    audience: Audience,
    slot: usize,
    serial: u64,
    producer: Arc<Producer>,
    /// This producer has ended the run.
    has_ended: AtomicBool,
}

/// How a run is started.
///
/// ```
/// use sse_hub::RunOptions;
///
/// let answer = RunOptions::default().append("token");
/// let job = RunOptions::default().take_over(true);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a run is started"]
pub struct RunOptions {
    takes_over: bool,
    appends: Option<Box<str>>,
}

impl RunOptions {
    /// Sets whether an open run of the name goes on with this producer. By default,
    /// [`Hub::start_run`](crate::Hub::start_run) returns an error for the name of an open run.
    ///
    /// The run keeps the events, the readers and a request to stop. The older producer is fenced:
    /// the next call returns [`RunError::Superseded`], and a drop does not end the run.
    pub fn take_over(mut self, is_on: bool) -> Self {
        self.takes_over = is_on;
        self
    }

    /// Declares that the data of adjacent events of this type is a text, such as the tokens of an
    /// answer. `message` stands for events without a type.
    ///
    /// A client that is behind may get such events as a single event: the joined data, under the id
    /// of the last. So a late reader gets an answer of 10,000 tokens in a few frames, and the hub
    /// keeps the text instead of 10,000 frames. A client that continues in the middle gets the rest
    /// exactly. The page must append the data of each event.
    ///
    /// Events with a comment, a `retry` or a conflation key are not joined.
    pub fn append(mut self, event_type: impl AsRef<str>) -> Self {
        self.appends = Some(event_type.as_ref().into());
        self
    }
}

/// A run, as [`Hub::run`](crate::Hub::run) and [`Hub::runs`](crate::Hub::runs) return it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunInfo {
    /// The name of the run.
    pub name: Arc<str>,
    /// Whether the run goes on, or how it ended.
    pub state: RunState,
    /// When the run was started, by the clock of the hub's [`Timer`](crate::Timer).
    pub started: Instant,
    /// When the run ended, by the same clock.
    pub ended: Option<Instant>,
    /// How many events the run had, `hub:run-end` included.
    pub events: u64,
    /// How many bytes the retained events count for: see [`RunLimits`](crate::RunLimits#memory).
    pub bytes: usize,
    /// How many open streams read the run.
    pub clients: usize,
    /// Why the run must stop, if that was asked for.
    pub stop: Option<Arc<str>>,
}

/// Starts a run, or takes an open run over.
pub(super) fn start(
    shared: &Arc<Shared>,
    name: Arc<str>,
    options: RunOptions,
) -> Result<Run, RunError> {
    if shared.config.backplane.is_some() {
        return Err(RunError::Backplane);
    }
    let key = Key::Run(Arc::clone(&name));
    key.check(shared.config.limits.name_len)?;
    let RunOptions { takes_over, appends } = options;
    let appends = appends.map(|event_type| {
        Event::new(&event_type).check()?;
        let hashes = shared.hasher.hashes(std::slice::from_ref(&key), event_type.as_bytes());
        Ok::<_, RunError>((event_type, hashes))
    });
    let hash = shared.hasher.key(&key);
    let new = NewRun { key, hash, appends: appends.transpose()?, takes_over };
    let mut work = Work::begin(&shared.config);
    let started = {
        let order = shared.order.lock();
        if order.is_closed {
            return Err(RunError::Closed);
        }
        let mut state = shared.state.lock();
        let started = state.log.start_run(new, work.now, &mut work.forgotten);
        started.map(|Started { slot, serial, superseded, stop }| {
            let producer = Arc::new(Producer::new(stop));
            let older = superseded.and_then(|older| state.producers.remove(&older));
            state.producers.insert(serial, Arc::clone(&producer));
            if shared.config.runs.wait.is_some() {
                reading::note_start(&shared.state, state, &Key::Run(Arc::clone(&name)));
            }
            (slot, serial, producer, older)
        })
    };
    if let Ok((.., Some(older))) = &started {
        work.extend(older.stop("superseded".into()));
    }
    work.run();
    let (slot, serial, producer, _) = started?;
    Ok(Run {
        shared: Arc::clone(shared),
        audience: Audience::run(Arc::clone(&name)),
        name,
        slot,
        serial,
        producer,
        has_ended: AtomicBool::new(false),
    })
}

/// Asks the producer of a run to stop.
pub(super) fn stop(shared: &Shared, name: Arc<str>, reason: &str) -> Result<(), RunError> {
    if !codec::is_reason(reason.as_bytes()) {
        return Err(InvalidReason(()).into());
    }
    let (key, reason) = (Key::Run(name), Arc::from(reason));
    let hash = shared.hasher.key(&key);
    let mut work = Work::begin(&shared.config);
    let producer = {
        let mut state = shared.lock_state();
        let serial = state.log.stop_run(hash, &key, &reason)?;
        state.producers.get(&serial).cloned()
    };
    producer.into_iter().for_each(|producer| work.extend(producer.stop(Arc::clone(&reason))));
    work.run();
    Ok(())
}

/// Returns a run.
pub(super) fn info(shared: &Shared, name: Arc<str>) -> Option<RunInfo> {
    let key = Key::Run(name);
    let hash = shared.hasher.key(&key);
    let mut work = Work::begin(&shared.config);
    let info = {
        let mut state = shared.lock_state();
        state.log.forget_runs(work.now, &mut work.forgotten);
        let clients = state.routes.members_under(hash, &key).len();
        state.log.runs().find(hash, &key).and_then(|run| RunInfo::of(run, clients))
    };
    work.run();
    info
}

/// Lists the runs.
pub(super) fn list(shared: &Shared) -> Vec<RunInfo> {
    let mut work = Work::begin(&shared.config);
    let list = {
        let mut state = shared.lock_state();
        state.log.forget_runs(work.now, &mut work.forgotten);
        let clients = |run: &RunRecord| state.routes.members_under(run.hash(), run.key()).len();
        state.log.runs().iter().filter_map(|run| RunInfo::of(run, clients(run))).collect()
    };
    work.run();
    list
}

impl RunInfo {
    fn of(run: &RunRecord, clients: usize) -> Option<Self> {
        let Key::Run(name) = run.key() else { return None };
        Some(Self {
            name: Arc::clone(name),
            state: run.state,
            started: run.started,
            ended: run.ended,
            events: run.events,
            bytes: run.bytes(),
            clients,
            stop: run.stop.clone(),
        })
    }
}

impl Run {
    /// Returns the name of the run.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Publishes an event to the readers of the run. Never waits, as
    /// [`Hub::publish`](crate::Hub::publish).
    ///
    /// A [conflation key](Event::conflate) holds within the run: a late reader of a job gets the
    /// latest progress only.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the event is invalid or too large, the run has ended or was taken
    /// over, or the hub is closed. The event has no effect then.
    pub fn publish(&self, event: Event) -> Result<Receipt, RunError> {
        let span = telemetry::publish(&self.audience, &event).entered();
        let published = self.put_event(event);
        match &published {
            Ok(receipt) => telemetry::matched(&span, receipt.matched()),
            Err(error) => telemetry::run_publish_failed(&span, error),
        }
        published
    }

    #[inline]
    fn put_event(&self, event: Event) -> Result<Receipt, RunError> {
        self.check_open()?;
        let event = self.prepare(event)?;
        let mut work = Work::begin(&self.shared.config);
        let matched = {
            let mut order = self.shared.order.lock();
            if order.is_closed {
                return Err(RunError::Closed);
            }
            self.shared.put_in_run(&mut order, (self.slot, self.serial), event, &mut work)?
        };
        work.run();
        Ok(Receipt::new(matched))
    }

    /// Publishes a last event, if there is one, and ends the run: as
    /// [stopped](RunState::Stopped) if that was asked for, and as finished otherwise.
    ///
    /// ```
    /// use sse_hub::{Event, Hub, ManualTimer, RunError, RunOptions, RunState};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let run = hub.start_run("job-7", RunOptions::default())?;
    /// run.finish(Event::new("result").data("42"))?;
    /// assert_eq!(hub.run("job-7").map(|run| run.state), Some(RunState::Finished));
    /// assert_eq!(run.publish(Event::new("late")).unwrap_err(), RunError::Ended);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish). The run goes on then, unless it had ended.
    pub fn finish(&self, event: impl Into<Option<Event>>) -> Result<(), RunError> {
        let end = if self.is_stopped() { RunState::Stopped } else { RunState::Finished };
        self.end(event.into(), end, Work::begin(&self.shared.config))
    }

    /// Publishes a last event, if there is one, and ends the run as failed.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`finish`](Self::finish).
    pub fn fail(&self, event: impl Into<Option<Event>>) -> Result<(), RunError> {
        self.end(event.into(), RunState::Failed, Work::begin(&self.shared.config))
    }

    /// Returns whether the producer must stop: see [`stopped`](Self::stopped).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.producer.is_stopped()
    }

    /// Returns a future that resolves when the producer must stop, with the reason.
    ///
    /// | reason | when |
    /// |---|---|
    /// | that of [`Hub::stop_run`](crate::Hub::stop_run) | the run was asked to stop |
    /// | `superseded` | another producer took the run over |
    /// | `closed` | the hub was closed |
    /// | the [word](RunState::as_str) of the state | the run has ended |
    ///
    /// The future borrows nothing, so the work and the wait can be in the same `select!`.
    ///
    /// ```
    /// use sse_hub::{Event, Hub, ManualTimer, RunOptions, RunState};
    ///
    /// # futures_executor::block_on(async {
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let run = hub.start_run("answer-7", RunOptions::default())?;
    /// let stopped = run.stopped();
    /// // In the handler of the stop button:
    /// hub.stop_run("answer-7", "user")?;
    ///
    /// assert_eq!(&*stopped.await, "user");
    /// run.finish(Event::new("note").data("stopped by the user"))?;
    /// assert_eq!(hub.run("answer-7").map(|run| run.state), Some(RunState::Stopped));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn stopped(&self) -> Stopped {
        Stopped { producer: Arc::clone(&self.producer), key: None }
    }

    fn check_open(&self) -> Result<(), RunError> {
        if self.has_ended.load(Ordering::Acquire) { Err(RunError::Ended) } else { Ok(()) }
    }

    /// Returns an event that is ready for the run.
    fn prepare(&self, mut event: Event) -> Result<Prepared, RunError> {
        event.check_for_hub()?;
        // A hub without a backplane ignores the idempotency key.
        let (conflation, _) = event.take_keys();
        let (audience, trace) = (self.audience.clone(), event.trace().map(Box::new));
        let event = Encoded { audience, conflation, trace, sealed: event.seal() };
        let limit = self.shared.config.runs.per_run();
        let bytes = Runs::most_weight(event.max_weight());
        if bytes > limit {
            return Err(RunError::TooLarge { bytes, limit });
        }
        Ok(Prepared::new(event, &self.shared.hasher))
    }

    fn end(&self, last: Option<Event>, end: RunState, mut work: Work<'_>) -> Result<(), RunError> {
        self.check_open()?;
        let last = last.map(|event| self.prepare(event)).transpose()?;
        let sealed = frame::run_end(&self.name, end.as_str());
        let audience = self.audience.clone();
        let event = Encoded { audience, conflation: None, trace: None, sealed };
        let event = Prepared::new(event, &self.shared.hasher);
        let place = (self.slot, self.serial);
        let events = {
            let mut order = self.shared.order.lock();
            if order.is_closed {
                return Err(RunError::Closed);
            }
            if let Some(last) = last {
                self.shared.put_in_run(&mut order, place, last, &mut work)?;
            }
            self.shared.put_in_run(&mut order, place, event, &mut work)?;
            let mut state = self.shared.state.lock();
            let events = state.log.runs().of_producer(self.slot, self.serial)?.events;
            state.log.end_run(self.slot, end, work.now);
            self.shared.has_ended_runs.store(true, Ordering::Relaxed);
            state.producers.remove(&self.serial);
            let key = Key::Run(Arc::clone(&self.name));
            reading::complete(&self.shared.state, state, &key, end, &mut work);
            events
        };
        self.has_ended.store(true, Ordering::Release);
        work.extend(self.producer.stop(end.as_str().into()));
        work.run();
        telemetry::run_ended(end, events);
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.has_ended.load(Ordering::Acquire) {
            return;
        }
        let end = if self.is_stopped() { RunState::Stopped } else { RunState::Abandoned };
        // A run that another producer took over goes on.
        let _ = self.end(None, end, Work::begin_release(&self.shared.config));
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("name", &self.name)
            .field("is_stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}

/// Resolves when a producer must stop, with the reason, as [`Run::stopped`] returns it.
///
/// # Cancel safety
///
/// Dropping the future loses nothing: the next future resolves at once.
#[must_use = "futures do nothing unless polled"]
pub struct Stopped {
    producer: Arc<Producer>,
    /// The key of this task among those that wait.
    key: Option<usize>,
}

impl Future for Stopped {
    type Output = Arc<str>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<str>> {
        let this = self.get_mut();
        // Cloning and dropping a waker is foreign code: both happen without a lock.
        sync::assert_unlocked();
        let mut waker = Some(cx.waker().clone());
        match this.producer.register(&mut this.key, &mut waker) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let waker = self.key.and_then(|key| self.producer.unregister(key));
        sync::assert_unlocked();
        drop(waker);
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopped").finish_non_exhaustive()
    }
}
