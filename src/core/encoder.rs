//! Encodes events and commands for the order, without a hub.

use std::sync::Arc;

use super::backplane::Outgoing;
use super::end::Goodbye;
use super::settings::Limits;
use crate::error::{DisconnectError, InvalidReason, JoinError, PublishError, RunError};
use crate::log::audience::Audience;
use crate::log::codec::{self, Action, Command, EndKind, RunAction, RunEntry};
use crate::log::entry::Encoded;
use crate::log::key::Key;
use crate::log::name::Name;
use crate::log::producer::{InstanceId, ProducerId};
use crate::log::retain::{Retain, RunLimits, Values};
use crate::log::runs::{RunState, Runs};
use crate::wire::event::Event;

/// Encodes events and commands as a hub does, for programs that send them without a hub: an engine
/// can offer a publisher for workers. `sse_hub::redis` does so.
///
/// Each result is an [`Outgoing`], which the engine must put into the order as if it came from a
/// hub.
///
/// ```
/// use sse_hub::backplane::{Encoder, Incoming};
/// use sse_hub::{Audience, Event, PublishError};
///
/// let encoder = Encoder::default();
/// let outgoing = encoder.event(Audience::user(42), Event::new("paid").data("17"))?;
/// assert!(Incoming::parse(outgoing.entry()).is_ok());
///
/// let invalid = encoder.event(Audience::user(""), Event::new("paid"));
/// assert!(matches!(invalid, Err(PublishError::Audience(_))));
/// # Ok::<(), PublishError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    /// The longest name, in bytes.
    name_len: usize,
    /// The most bytes that an event takes in the log.
    event_bytes: usize,
    /// The bound of the values that hubs keep.
    kept: Option<Values>,
    /// The most bytes that an event takes in a run.
    run_bytes: usize,
}

impl Encoder {
    /// Creates an encoder with the limits of the hubs that read the order: the length of names, the
    /// bytes of an event, and the [values](Retain::keep_latest). The other limits have no effect.
    #[must_use]
    pub const fn new(limits: &Limits, retain: &Retain) -> Self {
        let (event_bytes, kept) = (retain.bytes, retain.kept());
        let run_bytes = RunLimits::DEFAULT.bytes_per_run;
        Self { name_len: limits.name_len, event_bytes, kept, run_bytes }
    }

    /// Sets the limits of the hubs for [runs](Self::run): the bytes of an event. The other limits
    /// have no effect.
    #[must_use]
    pub fn run_limits(mut self, limits: &RunLimits) -> Self {
        self.run_bytes = limits.per_run();
        self
    }

    /// Encodes an event for an audience.
    ///
    /// # Errors
    ///
    /// Returns [`PublishError`] if the event or the audience is invalid, or if the event is larger
    /// than a log.
    pub fn event(
        &self,
        audience: impl Into<Audience>,
        event: Event,
    ) -> Result<Outgoing, PublishError> {
        let (event, key) = Encoded::new(audience.into(), event, self.name_len, self.event_bytes)?;
        Ok(outgoing(&event, key, self.kept))
    }

    /// Encodes the command of [`Hub::disconnect`](crate::Hub::disconnect).
    ///
    /// # Errors
    ///
    /// Returns [`DisconnectError`] if the audience or the last event is invalid.
    pub fn disconnect(
        &self,
        who: impl Into<Audience>,
        goodbye: Goodbye,
    ) -> Result<Outgoing, DisconnectError> {
        self.end(who.into(), EndKind::Disconnect, goodbye)
    }

    /// Encodes the command of [`Hub::finish`](crate::Hub::finish).
    ///
    /// # Errors
    ///
    /// Returns [`DisconnectError`] as [`disconnect`](Self::disconnect) does.
    pub fn finish(
        &self,
        who: impl Into<Audience>,
        goodbye: Goodbye,
    ) -> Result<Outgoing, DisconnectError> {
        self.end(who.into(), EndKind::Finish, goodbye)
    }

    /// Encodes the command of [`Hub::join`](crate::Hub::join), or with `last` above 0 that of
    /// [`Hub::join_with_last`](crate::Hub::join_with_last).
    ///
    /// # Errors
    ///
    /// Returns [`JoinError`] if the audience or the topic is invalid.
    pub fn join(
        &self,
        who: impl Into<Audience>,
        topic: impl Into<Name>,
        last: usize,
    ) -> Result<Outgoing, JoinError> {
        let audience = who.into();
        audience.check(self.name_len)?;
        let topic = self.topic(topic.into())?;
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        Ok(command(audience, Action::Join { topic, last }))
    }

    /// Encodes the command of [`Hub::leave`](crate::Hub::leave).
    ///
    /// # Errors
    ///
    /// Returns [`JoinError`] if the audience or the topic is invalid.
    pub fn leave(
        &self,
        who: impl Into<Audience>,
        topic: impl Into<Name>,
    ) -> Result<Outgoing, JoinError> {
        let audience = who.into();
        audience.check(self.name_len)?;
        Ok(command(audience, Action::Leave(self.topic(topic.into())?)))
    }

    /// Returns an encoder of the parts of a [run](crate::Run). `instance` must be an id that no hub
    /// and no other program has, and `serial` one that no other producer of the instance has.
    ///
    /// The engine must watch the instance as it watches a hub, or must end the runs of an instance
    /// that died: see [`Feed::lose_runs`](crate::backplane::Feed::lose_runs).
    ///
    /// # Errors
    ///
    /// Returns [`RunError::Name`] if the name is invalid.
    ///
    /// ```
    /// use sse_hub::backplane::{Encoder, InstanceId, RunPartKind};
    /// use sse_hub::{Event, RunError, RunState};
    ///
    /// let run = Encoder::default().run("job", InstanceId::from_bytes([7; 8]), 1)?;
    /// let start = run.begin(false, None)?;
    /// let event = run.event(Event::new("progress").data("50 %"))?;
    /// let end = run.end(RunState::Finished);
    /// assert_eq!(end.run().unwrap().kind, RunPartKind::End);
    /// # Ok::<(), RunError>(())
    /// ```
    pub fn run(
        &self,
        name: impl Into<Name>,
        instance: InstanceId,
        serial: u64,
    ) -> Result<RunEncoder, RunError> {
        let name = self.run_name(name.into())?;
        let limit = self.run_bytes;
        Ok(RunEncoder { name, producer: ProducerId { instance, serial }, limit })
    }

    /// Encodes the request of [`Hub::stop_run`](crate::Hub::stop_run).
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the name or the reason is invalid.
    pub fn stop_run(&self, name: impl Into<Name>, reason: &str) -> Result<Outgoing, RunError> {
        let name = self.run_name(name.into())?;
        if !codec::is_reason(reason.as_bytes()) {
            return Err(InvalidReason(()).into());
        }
        Ok(Outgoing::of_run(&RunEntry { name, action: RunAction::Stop { reason: reason.into() } }))
    }

    fn run_name(&self, name: Name) -> Result<Arc<str>, RunError> {
        let name = name.into_inner();
        Key::Run(Arc::clone(&name)).check(self.name_len)?;
        Ok(name)
    }

    fn end(
        &self,
        audience: Audience,
        kind: EndKind,
        goodbye: Goodbye,
    ) -> Result<Outgoing, DisconnectError> {
        audience.check(self.name_len)?;
        let Goodbye { reason, event } = goodbye;
        event.as_ref().map_or(Ok(()), Event::check_for_hub)?;
        let last = event.map(Event::seal);
        Ok(command(audience, Action::End { kind, reason: reason.into(), last }))
    }

    fn topic(&self, topic: Name) -> Result<Arc<str>, JoinError> {
        let topic = topic.into_inner();
        Key::Topic(Arc::clone(&topic)).check(self.name_len)?;
        Ok(topic)
    }
}

/// Encodes the parts of a run: see [`Encoder::run`].
#[derive(Debug, Clone)]
pub struct RunEncoder {
    name: Arc<str>,
    producer: ProducerId,
    /// The most bytes that an event takes in the run.
    limit: usize,
}

impl RunEncoder {
    /// Returns the name of the run.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Encodes the start, as [`RunOptions`](crate::RunOptions) say. `appends`: the type whose
    /// adjacent events are one text.
    ///
    /// # Errors
    ///
    /// Returns [`RunError::Event`] if the type is invalid.
    pub fn begin(&self, takes_over: bool, appends: Option<&str>) -> Result<Outgoing, RunError> {
        appends.map_or(Ok(()), |event_type| Event::new(event_type).check())?;
        let appends = appends.map(Into::into);
        Ok(self.part(RunAction::Start { producer: self.producer, takes_over, appends }))
    }

    /// Encodes an event.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the event is invalid or too large.
    pub fn event(&self, event: Event) -> Result<Outgoing, RunError> {
        let audience = Audience::run(Arc::clone(&self.name));
        let (Encoded { conflation, sealed, .. }, key) = Runs::encode(audience, event, self.limit)?;
        let action = RunAction::Event { producer: self.producer, conflation, sealed };
        Ok(self.part(action).with_key(key))
    }

    /// Encodes the end in a state. [`Open`](RunState::Open) is no end, and is sent as
    /// [`Abandoned`](RunState::Abandoned).
    #[must_use]
    pub fn end(&self, state: RunState) -> Outgoing {
        let state = if state == RunState::Open { RunState::Abandoned } else { state };
        self.part(RunAction::End { producer: self.producer, state })
    }

    fn part(&self, action: RunAction) -> Outgoing {
        Outgoing::of_run(&RunEntry { name: Arc::clone(&self.name), action })
    }
}

impl Default for Encoder {
    /// For hubs with the default [`Limits`] and [`Retain`].
    fn default() -> Self {
        Self::new(&Limits::default(), &Retain::default())
    }
}

fn command(audience: Audience, action: Action) -> Outgoing {
    Outgoing::new(codec::write_command(&Command { audience, action }), None)
}

/// Makes an event ready for the engine. `kept`: the bound of the values, if hubs keep values.
pub(crate) fn outgoing(event: &Encoded, key: Option<Box<str>>, kept: Option<Values>) -> Outgoing {
    let outgoing = Outgoing::new(codec::write_event(event), key);
    match kept {
        Some(most) => outgoing.with_value_of(codec::value_of(event), most.keys),
        None => outgoing,
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;
    use crate::error::{AudienceError, NameError, NameKind};
    use crate::log::codec::Received;
    use crate::wire::event::EventError;

    fn is_command(outgoing: &Outgoing) -> bool {
        matches!(Received::read(outgoing.entry()), Some(Received::Command(_)))
    }

    #[test]
    fn commands_are_read_by_hubs() {
        let encoder = Encoder::default();
        let goodbye = || Goodbye::from_static("done").event(Event::new("bye").data("x"));
        let all = Audience::all;
        assert!(is_command(&encoder.disconnect(all(), goodbye()).unwrap()));
        assert!(is_command(&encoder.finish(all(), goodbye()).unwrap()));
        assert!(is_command(&encoder.join(all(), "t", 0).unwrap()));
        assert!(is_command(&encoder.join(all(), "t", usize::MAX).unwrap()));
        assert!(is_command(&encoder.leave(all(), "t").unwrap()));
    }

    #[test]
    fn parts_of_runs_are_read_by_hubs_and_checked() {
        let encoder = Encoder::default().run_limits(&RunLimits::default().bytes_per_run(10_000));
        let run = encoder.run("job", InstanceId::from_bytes([7; 8]), 9).unwrap();
        let parts = [
            run.begin(true, Some("t")).unwrap(),
            run.event(Event::new("t").data("x").conflate("k")).unwrap(),
            encoder.stop_run("job", "user").unwrap(),
            run.end(RunState::Failed),
            run.end(RunState::Open),
        ];
        for part in parts {
            let read = Received::read(part.entry());
            assert!(matches!(read, Some(Received::Run(entry)) if &*entry.name == "job"));
        }
        let instance = InstanceId::from_bytes([0; 8]);
        assert!(matches!(encoder.run("", instance, 1), Err(RunError::Name(_))));
        assert!(matches!(encoder.stop_run("job", "no reason"), Err(RunError::Reason(_))));
        assert!(matches!(run.begin(false, Some("a\n")), Err(RunError::Event(_))));
        assert!(matches!(run.event(Event::new("t").id("1")), Err(RunError::Event(_))));
        let large = run.event(Event::new("t").data("x".repeat(10_000)));
        assert!(matches!(large, Err(RunError::TooLarge { limit: 10_000, .. })));
    }

    #[test]
    fn limits_of_the_hubs_are_checked() {
        let encoder = Encoder::new(&Limits::default().name_len(3), &Retain::default().bytes(100));
        let long = || Audience::user("long");
        let name = NameError::TooLong { kind: NameKind::User, len: 4, limit: 3 };
        let audience = AudienceError::Name(name);
        let event = || Event::new("n").data("x");
        assert_eq!(encoder.event(long(), event()).unwrap_err(), PublishError::Audience(audience));
        let goodbye = || Goodbye::from_static("done");
        let error = DisconnectError::Audience(audience);
        assert_eq!(encoder.disconnect(long(), goodbye()).unwrap_err(), error);
        assert_eq!(encoder.finish(long(), goodbye()).unwrap_err(), error);
        let error = JoinError::Audience(audience);
        assert_eq!(encoder.join(long(), "t", 0).unwrap_err(), error);
        assert_eq!(encoder.leave(long(), "t").unwrap_err(), error);
        let error = JoinError::Topic(NameError::Empty(NameKind::Topic));
        assert_eq!(encoder.join(Audience::all(), "", 0).unwrap_err(), error);
        assert_eq!(encoder.leave(Audience::all(), "").unwrap_err(), error);
        let with_id = Goodbye::from_static("done").event(event().id("7"));
        let error = DisconnectError::Event(EventError::OwnId);
        assert_eq!(encoder.finish(Audience::all(), with_id).unwrap_err(), error);
        let large = event().data("x".repeat(100));
        let error = encoder.event(Audience::all(), large).unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { limit: 100, .. }), "{error}");
    }
}
