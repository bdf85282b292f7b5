//! The producers of runs of a publisher without a hub.

use std::fmt;
use std::sync::Arc;

use super::shared::RedisShared;
use super::store::producing::Producer;
use crate::backplane::Outgoing;
use crate::{Event, RunError, RunState};

/// The producer of a run, in a program without a hub: see [`Run`](crate::Run), whose methods these
/// are. Made by [`RedisPublisher::start_run`](super::RedisPublisher::start_run).
///
/// The publisher does not read the stream. It looks at the records of its runs in Redis every 0.4
/// seconds, or eight times in a shorter [lease](super::Redis::lease). So [`stopped`](Self::stopped),
/// and the error of a run that was taken over, come up to 0.4 seconds later than on a hub. Until
/// then, events are accepted and have no effect.
///
/// If the publisher ends, or its program dies, the runs end as [`Lost`](RunState::Lost) after the
/// [lease](super::Redis::lease): finish them, and [flush](super::RedisPublisher::flush) before.
#[must_use = "dropping a run ends the run as abandoned"]
pub struct RedisRun {
    shared: Arc<RedisShared>,
    producer: Arc<Producer>,
}

impl RedisRun {
    pub(super) fn new(shared: Arc<RedisShared>, producer: Arc<Producer>) -> Self {
        Self { shared, producer }
    }

    /// Returns the name of the run.
    #[must_use]
    pub fn name(&self) -> &str {
        self.producer.encoder.name()
    }

    /// Returns a future that resolves when it is known that the run was started: see
    /// [`Run::started`](crate::Run::started). Until then the run takes events.
    ///
    /// # Errors
    ///
    /// Returns [`RunError::Open`] if another run of the name was open, [`RunError::Lost`] if Redis
    /// has no record of the run, and [`RunError::Closed`] if the publisher has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub fn started(&self) -> impl Future<Output = Result<(), RunError>> + Send + use<> {
        let (producer, mut verdict) = (Arc::clone(&self.producer), self.producer.verdict());
        async move {
            let verdict = verdict.wait_for(Option::is_some).await.ok().and_then(|it| *it);
            drop(producer);
            verdict.unwrap_or(Err(RunError::Closed))
        }
    }

    /// Publishes an event to the readers of the run. Never waits.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the event is invalid or too large, the run has ended or was taken
    /// over, or the [outbox](super::Redis::outbox) is full. The event has no effect then.
    pub fn publish(&self, event: Event) -> Result<(), RunError> {
        self.producer.check()?;
        self.push(self.producer.encoder.event(event)?)
    }

    /// Publishes a last event, if there is one, and ends the run: as
    /// [stopped](RunState::Stopped) if that was asked for, and as finished otherwise.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish). The run goes on then, unless it had ended.
    pub fn finish(&self, event: impl Into<Option<Event>>) -> Result<(), RunError> {
        let end = if self.is_stopped() { RunState::Stopped } else { RunState::Finished };
        self.end(event.into(), end)
    }

    /// Publishes a last event, if there is one, and ends the run as failed.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`finish`](Self::finish).
    pub fn fail(&self, event: impl Into<Option<Event>>) -> Result<(), RunError> {
        self.end(event.into(), RunState::Failed)
    }

    /// Returns whether the producer must stop: see [`stopped`](Self::stopped).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.producer.is_stopped()
    }

    /// Returns a future that resolves when the producer must stop, with the reason: see
    /// [`Run::stopped`](crate::Run::stopped).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub fn stopped(&self) -> impl Future<Output = Arc<str>> + Send + use<> {
        let (producer, mut stop) = (Arc::clone(&self.producer), self.producer.stopping());
        async move {
            let reason = stop.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
            drop(producer);
            reason.unwrap_or_else(|| "closed".into())
        }
    }

    fn end(&self, last: Option<Event>, state: RunState) -> Result<(), RunError> {
        let last = last.map(|event| self.producer.encoder.event(event)).transpose()?;
        self.producer.begin_end()?;
        let sent = last.map_or(Ok(()), |last| self.push(last));
        let sent = sent.and_then(|()| self.push(self.producer.encoder.end(state)));
        self.producer.settle_end(sent.is_ok());
        sent?;
        self.producer.stop(state.as_str());
        Ok(())
    }

    fn push(&self, part: Outgoing) -> Result<(), RunError> {
        Ok(self.shared.outbox.push(part)?)
    }
}

impl Drop for RedisRun {
    fn drop(&mut self) {
        let end = if self.is_stopped() { RunState::Stopped } else { RunState::Abandoned };
        // A run that is over, or is another producer's, needs no end.
        let _ = self.end(None, end);
    }
}

impl fmt::Debug for RedisRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRun")
            .field("name", &self.name())
            .field("is_stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}
