//! A client, as audiences and filters see it.

use super::audience::Audience;
use super::key::Key;
use crate::wire::id::EventId;

/// A client's holding of a key.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) key: Key,
    /// The client holds the key for events after this id.
    pub(crate) since: EventId,
    /// The client's index in the list of the key's members.
    pub(crate) index: usize,
}

/// The keys and the filter of a client: they decide whether an event is for the client, live, on
/// replay, and after the event was evicted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) memberships: &'a [Membership],
    pub(crate) filter: &'a Filter,
}

impl Identity<'_> {
    /// Returns whether the client is in the audience of the event with this id.
    pub(crate) fn is_in(&self, audience: &Audience, id: EventId) -> bool {
        audience
            .matches(|key| self.memberships.iter().any(|held| held.since < id && held.key == *key))
    }
}

/// The event types that a client receives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Filter {
    #[default]
    Everything,
    Types(Box<[Box<str>]>),
}

impl Filter {
    pub(crate) fn admits(&self, event_type: &[u8]) -> bool {
        match self {
            Self::Everything => true,
            Self::Types(types) => {
                let event_type = dispatched_as(event_type);
                types.iter().any(|admitted| admitted.as_bytes() == event_type)
            }
        }
    }
}

/// Returns the type under which a browser dispatches an event.
pub(crate) fn dispatched_as(event_type: &[u8]) -> &[u8] {
    if event_type.is_empty() { b"message" } else { event_type }
}
