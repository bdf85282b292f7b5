//! Encodes events and commands for the order, without a hub.

use std::sync::Arc;

use super::backplane::Outgoing;
use super::end::Goodbye;
use super::settings::Limits;
use crate::error::{DisconnectError, JoinError, PublishError};
use crate::log::audience::Audience;
use crate::log::codec::{self, Action, Command, EndKind};
use crate::log::entry::Encoded;
use crate::log::key::Key;
use crate::log::name::Name;
use crate::log::retain::{Retain, Values};
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
}

impl Encoder {
    /// Creates an encoder with the limits of the hubs that read the order: the length of names, the
    /// bytes of an event, and the [values](Retain::keep_latest). The other limits have no effect.
    #[must_use]
    pub const fn new(limits: &Limits, retain: &Retain) -> Self {
        Self { name_len: limits.name_len, event_bytes: retain.bytes, kept: retain.kept() }
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
