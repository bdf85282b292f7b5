//! A client, as audiences and filters see it.

use std::collections::BTreeSet;

use super::hash::KeyHasher;
use super::key::Key;
use crate::wire::id::EventId;

/// A client's holding of a key.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) key: Key,
    /// The hash of the key.
    pub(super) hash: u64,
    /// The client holds the key for events after this id.
    pub(crate) since: EventId,
    /// The server added the client to the topic: the client gets the topic back after a reconnect.
    pub(crate) is_joined: bool,
    /// The client's index in the list of the key's members.
    pub(super) index: u32,
}

impl Membership {
    /// Returns a membership of a reader that is not registered: for events of every position.
    pub(crate) fn of(key: Key, hasher: &KeyHasher) -> Self {
        Self { hash: hasher.key(&key), key, since: EventId::ORIGIN, is_joined: false, index: 0 }
    }
}

/// The keys and the filter of a client: they decide whether an event is for the client, live, on
/// replay, and after the event was evicted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) memberships: &'a [Membership],
    pub(crate) filter: &'a Filter,
}

impl<'a> Identity<'a> {
    /// Whether the client reads runs.
    pub(super) fn has_runs(self) -> bool {
        self.runs().next().is_some()
    }

    /// The runs that the client reads.
    pub(super) fn runs(self) -> impl Iterator<Item = &'a Membership> {
        self.memberships.iter().filter(|held| held.key.is_run())
    }
}

/// The event types that a client receives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Filter {
    #[default]
    Everything,
    /// The hashes of the types, sorted: every event asks for a type under a lock. A sorted slice
    /// takes less memory in each client than a hash set, and is as fast for the few types that a
    /// client has.
    Types(Box<[u64]>),
}

impl Filter {
    /// Hashes each type once. Must be called without a lock, because a request names the types.
    pub(crate) fn new(types: Option<&BTreeSet<Box<str>>>, hasher: &KeyHasher) -> Self {
        types.map_or(Self::Everything, |types| {
            let hashes = types.iter().map(|name| hasher.event_type(name.as_bytes()));
            let mut hashes: Box<[u64]> = hashes.collect();
            hashes.sort_unstable();
            Self::Types(hashes)
        })
    }

    /// Returns whether the client receives events of the type with this hash.
    pub(super) fn admits(&self, event_type: u64) -> bool {
        match self {
            Self::Everything => true,
            Self::Types(types) => types.binary_search(&event_type).is_ok(),
        }
    }
}
