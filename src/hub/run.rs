//! The producers of runs.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::parts;
use super::shared::Shared;
use crate::core::backplane::Outgoing;
use crate::core::deferred::Work;
use crate::core::receipt::{Receipt, Ticket};
use crate::core::run::{Awaited, Producer};
use crate::core::state::{Lifecycle, State};
use crate::core::telemetry;
use crate::error::{InvalidReason, RunError};
use crate::log::audience::Audience;
use crate::log::codec::{self, RunAction, RunEntry};
use crate::log::entry::{Encoded, Prepared};
use crate::log::key::Key;
use crate::log::producer::ProducerAt;
use crate::log::runs::{NewRun, RunRecord, RunState, Runs};
use crate::sync::{self, MutexGuard};
use crate::wire::event::Event;

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
/// | [`Lost`](RunState::Lost) | with a backplane: the instance has died, or the order was replaced |
///
/// The last event of a run is `hub:run-end`, with the name of the run and the reason. A stream that
/// reads only runs is then complete, and ends with a final `hub:end`. The events and the end stay
/// for [`RunLimits::keep`](crate::RunLimits::keep). A run that is silent does not end. If the hub
/// is closed, the run is gone without an end, as the hub's log is. With a backplane, the run then
/// ends as abandoned on the other instances.
///
/// # Instances
///
/// With a [backplane](crate::HubBuilder::backplane), the events of a run are sent to the order of
/// all instances, and any instance can read, stop and take over the run. The order decides which
/// producer a run has: see [`started`](Self::started). A method that returns `Ok` has sent the
/// event or the end. If another producer took the run over before, or the run was lost, the order
/// drops the event. Once this instance has read that, the next call returns the error.
///
/// A `Run` does not keep the hub open. Purposefully not `Clone`: tasks share a `Run` in an `Arc`.
#[must_use = "dropping a run ends the run as abandoned"]
pub struct Run {
    shared: Arc<Shared>,
    audience: Audience,
    /// The hash of the run's name.
    hash: u64,
    /// The slot is known without a backplane only.
    at: ProducerAt,
    producer: Arc<Producer>,
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
    /// Events with a comment, a `retry` or a conflation key are not joined, and neither are events
    /// whose frame is longer than 1 KiB.
    pub fn append(mut self, event_type: impl AsRef<str>) -> Self {
        self.appends = Some(event_type.as_ref().into());
        self
    }
}

/// For programs that start runs without a hub.
impl RunOptions {
    /// Returns whether an open run of the name goes on with the new producer.
    #[must_use]
    pub const fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// Returns the type whose adjacent events are one text.
    #[must_use]
    pub fn appended_type(&self) -> Option<&str> {
        self.appends.as_deref()
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
    let key = Key::Run(Arc::clone(&name));
    key.check(shared.config.limits.name_len)?;
    let RunOptions { takes_over, appends } = options;
    appends.as_deref().map_or(Ok(()), |event_type| Event::new(event_type).check())?;
    let producer = Arc::new(Producer::new(shared.new_producer(), Arc::clone(&name)));
    let hash = shared.hasher.key(&key);
    let mut work = Work::begin(&shared.config);
    let started = if shared.config.backplane.is_none() {
        let appends = appends.map(|event_type| parts::texts(shared, &key, event_type));
        let new = NewRun { key, hash, producer: producer.id, appends, takes_over };
        let order = shared.order.lock();
        if order.is_closed {
            return Err(RunError::Closed);
        }
        shared.state.lock().producers.insert(producer.id.serial, Arc::clone(&producer));
        parts::start(shared, new, order.last, &mut work).map(Some)
    } else {
        let state = shared.lock_state();
        let started = propose(state, hash, &key, takes_over, &producer);
        started.and_then(|()| {
            let action = RunAction::Start { producer: producer.id, takes_over, appends };
            let start = Outgoing::of_run(&RunEntry { name: Arc::clone(&name), action });
            let sent = send(shared, start.with_ticket(Ticket::of(Arc::clone(&producer))));
            if sent.is_err() {
                drop(parts::take_own(&mut shared.state.lock(), producer.id));
            }
            sent.map(|()| None)
        })
    };
    work.run();
    let at = ProducerAt { id: producer.id, slot: started? };
    Ok(Run { shared: Arc::clone(shared), audience: Audience::run(name), hash, at, producer })
}

/// Registers a producer whose start is to be sent, unless the start would be refused by the order
/// as far as this instance has read it.
fn propose(
    mut state: MutexGuard<'_, State>,
    hash: u64,
    key: &Key,
    takes_over: bool,
    producer: &Arc<Producer>,
) -> Result<(), RunError> {
    if state.lifecycle == Lifecycle::Closed {
        return Err(RunError::Closed);
    }
    state.log.runs().may_start(hash, key, takes_over)?;
    state.producers.insert(producer.id.serial, Arc::clone(producer));
    Ok(())
}

/// Gives a part of a run, which is no event, to the backplane.
fn send(shared: &Shared, part: Outgoing) -> Result<(), RunError> {
    let Some(backplane) = &shared.config.backplane else { return Ok(()) };
    sync::assert_unlocked();
    Ok(backplane.send(part)?)
}

/// Asks the producer of a run to stop.
pub(super) fn stop(shared: &Shared, name: Arc<str>, reason: &str) -> Result<(), RunError> {
    if !codec::is_reason(reason.as_bytes()) {
        return Err(InvalidReason(()).into());
    }
    let (key, reason) = (Key::Run(Arc::clone(&name)), Arc::from(reason));
    let hash = shared.hasher.key(&key);
    if shared.config.backplane.is_some() {
        {
            let state = shared.lock_state();
            let run = state.log.runs().find(hash, &key);
            // The start of a run of this instance may be on its way.
            let is_starting = || state.producers.values().any(|producer| producer.name == name);
            match run {
                // The first reason counts.
                Some(run) if run.is_open() && run.stop.is_some() => return Ok(()),
                Some(run) if run.is_open() => {}
                _ if is_starting() => {}
                Some(_) => return Err(RunError::Ended),
                None => return Err(RunError::Unknown),
            }
        }
        let stop = RunEntry { name, action: RunAction::Stop { reason } };
        return send(shared, Outgoing::of_run(&stop));
    }
    let mut work = Work::begin(&shared.config);
    let stopped = parts::stop(&mut shared.lock_state(), hash, &key, &reason, &mut work);
    work.run();
    stopped
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
        Some(Self {
            name: run.shared_name()?,
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
        &self.producer.name
    }

    /// Publishes an event to the readers of the run. Never waits, as
    /// [`Hub::publish`](crate::Hub::publish), and the receipt counts as there.
    ///
    /// A [conflation key](Event::conflate) holds within the run: a late reader of a job gets the
    /// latest progress only.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the event is invalid or too large, the run has ended or was taken
    /// over, or the hub is closed. With a backplane, also if the run was not started or is lost, or
    /// if too many events wait to be sent. The event has no effect then.
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
        if self.shared.config.backplane.is_some() {
            self.producer.check()?;
            let (event, key) = self.encode(event)?;
            return self.send(event, key);
        }
        // The log knows whether the run takes the event. What the producer was told says why not.
        self.put_here(event).map_err(|error| self.producer.check().err().unwrap_or(error))
    }

    /// Publishes an event in the hub's own order.
    #[inline]
    fn put_here(&self, event: Event) -> Result<Receipt, RunError> {
        let (event, _) = self.encode(event)?;
        let event = Prepared::under(event, self.hash, &self.shared.hasher);
        let mut work = Work::begin(&self.shared.config);
        let matched = {
            let mut order = self.shared.order.lock();
            if order.is_closed {
                return Err(RunError::Closed);
            }
            let id = Shared::next_id(&order);
            self.shared.put_in_run(&mut order, id, self.at, event, false, &mut work)?
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
    /// Too many waiting events refuse the last event, and not the end.
    pub fn finish(&self, event: impl Into<Option<Event>>) -> Result<(), RunError> {
        let end = self.producer.default_end(RunState::Finished);
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
    /// | `refused` | the run was not [started](Self::started) |
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
        Stopped(Wait::new(&self.producer, Awaited::Stop))
    }

    /// Returns a future that resolves when the run was started: at once for a hub alone. With a
    /// [backplane](crate::HubBuilder::backplane), when this instance has read the start back from
    /// the order.
    ///
    /// The run takes events before that. A handler that answers with the name of the run must wait
    /// first: another instance may have started a run of the name just before.
    ///
    /// # Errors
    ///
    /// | error | when |
    /// |---|---|
    /// | [`RunError::Open`] | the order has an earlier start of the name: this run was never started |
    /// | [`RunError::Full`] | this hub has as many open runs as [`RunLimits::runs`](crate::RunLimits::runs) |
    /// | [`RunError::Lost`] | the order was replaced meanwhile |
    /// | [`RunError::Closed`] | the hub was closed, or the backplane has ended |
    ///
    /// Then the other methods return the same error.
    ///
    /// ```
    /// use sse_hub::{Hub, ManualTimer, RunOptions};
    ///
    /// # futures_executor::block_on(async {
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let run = hub.start_run("answer-7", RunOptions::default())?;
    /// run.started().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn started(&self) -> Started {
        Started(Wait::new(&self.producer, Awaited::Verdict))
    }

    /// Checks and encodes an event. Returns the idempotency key, too.
    #[inline]
    fn encode(&self, event: Event) -> Result<(Encoded, Option<Box<str>>), RunError> {
        Runs::encode(self.audience.clone(), event, self.shared.config.runs.per_run())
    }

    /// Gives an event to the backplane.
    fn send(&self, event: Encoded, key: Option<Box<str>>) -> Result<Receipt, RunError> {
        // Count before the send, as for an event of the hub.
        let matched = self.shared.count(&event.audience);
        let Encoded { conflation, sealed, .. } = event;
        let action = RunAction::Event { producer: self.producer.id, conflation, sealed };
        let entry = RunEntry { name: Arc::clone(&self.producer.name), action };
        self.shared.send(Outgoing::of_run(&entry).with_key(key))?;
        Ok(Receipt::new(matched))
    }

    fn end(&self, last: Option<Event>, end: RunState, mut work: Work<'_>) -> Result<(), RunError> {
        let producer = &self.producer;
        producer.check()?;
        let last = last.map(|event| self.encode(event)).transpose()?;
        if self.shared.config.backplane.is_some() {
            // Two threads may end the run: the order has one end.
            if producer.set_ended(true) {
                return Err(RunError::Ended);
            }
            let sent = last.map_or(Ok(()), |(event, key)| self.send(event, key).map(drop));
            let sent = sent.and_then(|()| {
                let action = RunAction::End { producer: producer.id, state: end };
                let entry = RunEntry { name: Arc::clone(&producer.name), action };
                send(&self.shared, Outgoing::of_run(&entry))
            });
            if sent.is_err() {
                producer.set_ended(false);
            }
            return sent;
        }
        let last = last.map(|(event, _)| Prepared::under(event, self.hash, &self.shared.hasher));
        let event = parts::end_event(&self.shared, Arc::clone(&producer.name), end);
        let (end, events) = {
            let mut order = self.shared.order.lock();
            if order.is_closed {
                return Err(RunError::Closed);
            }
            if let Some(last) = last {
                let id = Shared::next_id(&order);
                self.shared.put_in_run(&mut order, id, self.at, last, false, &mut work)?;
            }
            let id = Shared::next_id(&order);
            parts::end(&self.shared, &mut order, id, producer.id, end, event, &mut work)?
        };
        producer.set_ended(true);
        work.run();
        telemetry::run_ended(end, events);
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let end = self.producer.default_end(RunState::Abandoned);
        // A run that has ended, or that another producer took over, goes on.
        let _ = self.end(None, end, Work::begin_release(&self.shared.config));
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("name", &self.name())
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
pub struct Stopped(Wait);

/// Resolves when the order has decided whether the run was started, as [`Run::started`] returns
/// it.
///
/// # Cancel safety
///
/// Dropping the future loses nothing: the next future resolves at once if the decision has come.
/// The run goes on.
#[must_use = "futures do nothing unless polled"]
pub struct Started(Wait);

/// A task that waits for a change of a producer.
struct Wait {
    producer: Arc<Producer>,
    awaited: Awaited,
    /// The key of this task among those that wait.
    key: Option<usize>,
}

impl Wait {
    fn new(producer: &Arc<Producer>, awaited: Awaited) -> Self {
        Self { producer: Arc::clone(producer), awaited, key: None }
    }

    /// Waits for the change, which `get` returns once it has come.
    fn poll<T>(&mut self, cx: &Context<'_>, get: impl Fn(&Producer) -> Option<T>) -> Poll<T> {
        // Cloning and dropping a waker is foreign code: both happen without a lock.
        sync::assert_unlocked();
        let mut waker = Some(cx.waker().clone());
        if self.producer.register(self.awaited, &mut self.key, &mut waker) {
            return Poll::Pending;
        }
        get(&self.producer).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let waker = self.key.and_then(|key| self.producer.unregister(self.awaited, key));
        sync::assert_unlocked();
        drop(waker);
    }
}

impl Future for Stopped {
    type Output = Arc<str>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<str>> {
        self.get_mut().0.poll(cx, Producer::reason)
    }
}

impl Future for Started {
    type Output = Result<(), RunError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RunError>> {
        self.get_mut().0.poll(cx, Producer::verdict)
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopped").finish_non_exhaustive()
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}
