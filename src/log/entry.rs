//! Events on their way into the log, and the log's entries.
//!
//! ```text
//! Event -> Encoded  checked and encoded: also the form in which an event travels
//!       -> Prepared  indexed and hashed, ready to get its id under the lock
//!       -> Entry     in the log
//! ```

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::audience::{Audience, Extent};
use super::hash::{KeyHasher, KeyHashes};
use super::identity::{Filter, Identity};
use super::key::Key;
use super::recipients::Recipients;
use crate::error::PublishError;
use crate::wire::event::Event;
use crate::wire::frame::{Frame, Sealed};
use crate::wire::id::EventId;
use crate::wire::traceparent::Traceparent;

/// Bytes that each index key of an event with several keys counts for, beside the name: the key in
/// the event, its hash, and its list in the index of the log. Of a single key only the name counts,
/// because the rest is part of the fixed cost of an event.
const KEY_WEIGHT: usize = 192;

/// Bytes that each name of an `and` or an `except` counts for, beside the name: the name and its
/// hash in [`Recipients`], and a node of the expression.
const NAME_WEIGHT: usize = 128;

/// Bytes that a conflation key counts for, beside the key and the event type: the key's allocations
/// and its entry in the log.
const CONFLATION_WEIGHT: usize = 192;

/// Bytes that each name of a conflated audience counts for again, because the conflation keeps the
/// audience to compare it.
const CONFLATED_NAME_WEIGHT: usize = 64;

/// An event that was checked and encoded. The frame lacks the id only.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) audience: Audience,
    pub(crate) conflation: Option<Box<str>>,
    /// Travels between instances, and is not kept in the log. Boxed, because few events have a
    /// trace and every event is moved several times.
    pub(crate) trace: Option<Box<Traceparent>>,
    pub(crate) sealed: Sealed,
}

impl Encoded {
    /// Checks an event for an audience, and encodes it. Returns the idempotency key, too.
    /// `name_len`: the longest name. `most_bytes`: the most that the event may count for in the
    /// log.
    #[inline]
    pub(crate) fn new(
        audience: Audience,
        mut event: Event,
        name_len: usize,
        most_bytes: usize,
    ) -> Result<(Self, Option<Box<str>>), PublishError> {
        audience.check(name_len)?;
        event.check_for_hub()?;
        let (conflation, key) = event.take_keys();
        let trace = event.trace().map(Box::new);
        let event = Self { audience, conflation, trace, sealed: event.seal() };
        let bytes = event.max_weight();
        if bytes > most_bytes {
            return Err(PublishError::TooLarge { bytes, limit: most_bytes });
        }
        Ok((event, key))
    }

    /// Returns the most bytes that the event can count for in the log.
    pub(crate) fn max_weight(&self) -> usize {
        self.sealed.max_len() + self.weight_without_frame()
    }

    /// Returns the bytes of everything that grows with the names and keys of the event.
    fn weight_without_frame(&self) -> usize {
        let single = self.audience.key();
        let is_single = single.is_some();
        let Extent { names, name_bytes, index_keys } = match single {
            Some(key) => Extent { names: 1, name_bytes: key.name_len(), index_keys: 1 },
            None => self.audience.extent(),
        };
        let of_keys = if is_single { 0 } else { KEY_WEIGHT * index_keys };
        let of_names = if self.audience.is_its_index() { 0 } else { NAME_WEIGHT * names };
        let of_conflation = self.conflation.as_ref().map_or(0, |key| {
            let of_names = if is_single { 0 } else { CONFLATED_NAME_WEIGHT * names };
            CONFLATION_WEIGHT + key.len() + self.sealed.event_type().len() + of_names
        });
        name_bytes + of_keys + of_names + of_conflation
    }
}

/// An event that is ready to get its id.
///
/// All work that grows with the event or its audience (indexing, hashing) is done in
/// [`new`](Self::new), before a lock is taken.
#[derive(Debug)]
pub(crate) struct Prepared {
    recipients: Recipients,
    hashes: KeyHashes,
    conflation: Option<Arc<Conflation>>,
    weight: usize,
    sealed: Sealed,
}

impl Prepared {
    pub(crate) fn new(event: Encoded, hasher: &KeyHasher) -> Self {
        Self::hashed(event, hasher, |keys, event_type| hasher.hashes(keys, event_type))
    }

    /// Prepares an event with a single index key, for a caller that knows the hash of the key.
    pub(crate) fn under(event: Encoded, hash: u64, hasher: &KeyHasher) -> Self {
        Self::hashed(event, hasher, |_, event_type| hasher.hashes_under(hash, event_type))
    }

    #[inline]
    fn hashed(
        event: Encoded,
        hasher: &KeyHasher,
        hashes: impl FnOnce(&[Key], &[u8]) -> KeyHashes,
    ) -> Self {
        let weight = event.weight_without_frame();
        let Encoded { audience, conflation, sealed, trace: _ } = event;
        let event_type = sealed.event_type();
        let (recipients, conflation) = match conflation {
            None => (Recipients::of(audience, hasher), None),
            Some(key) => {
                let recipients = Recipients::new(&audience, hasher);
                let hash = hasher.hash(&(&audience, event_type, &key));
                let conflation = Conflation { hash, audience, event_type: event_type.into(), key };
                (recipients, Some(Arc::new(conflation)))
            }
        };
        let hashes = hashes(recipients.keys(), event_type);
        Self { recipients, hashes, conflation, weight, sealed }
    }

    /// Returns the first key that indexes the event, with its hash: for an event of a run, the run.
    pub(crate) fn first_key(&self) -> Option<(u64, &Key)> {
        Some((*self.hashes.keys.first()?, self.recipients.keys().first()?))
    }

    /// Writes the id into the frame. The frame is not copied.
    pub(crate) fn into_entry(self, id: EventId, published: Instant) -> Arc<Entry> {
        let Self { recipients, hashes, conflation, weight, sealed } = self;
        let frame = sealed.finish(id);
        let at = published;
        let content = Content { id, frame, recipients, at, hashes, conflation, weight };
        Arc::new(Entry { content: Box::new(content) })
    }
}

/// An event in the log.
///
/// The windows of clients hold weak handles, and a weak handle keeps the allocation of its entry.
/// So the content is a separate allocation, which is freed when the event is evicted: the handle of
/// a client that does not read keeps a few words only.
#[derive(Debug)]
pub(crate) struct Entry {
    content: Box<Content>,
}

impl Entry {
    /// Joins events of one key to an event under the id of the last.
    pub(super) fn joined(
        id: EventId,
        sealed: Sealed,
        key: &Key,
        hashes: KeyHashes,
        at: Instant,
    ) -> Arc<Self> {
        let (frame, recipients) = (sealed.finish(id), Recipients::Key(key.clone()));
        let content = Content { id, frame, recipients, at, hashes, conflation: None, weight: 0 };
        Arc::new(Self { content: Box::new(content) })
    }
}

impl Deref for Entry {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.content
    }
}

#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) id: EventId,
    pub(crate) frame: Frame,
    pub(super) recipients: Recipients,
    /// The time of publishing.
    pub(crate) at: Instant,
    pub(super) hashes: KeyHashes,
    pub(super) conflation: Option<Arc<Conflation>>,
    /// The bytes that the event counts for, without the frame.
    weight: usize,
}

impl Content {
    /// Returns the keys that index the event.
    pub(crate) fn keys(&self) -> &[Key] {
        self.recipients.keys()
    }

    /// Returns the keys that index the event, with their hashes.
    pub(crate) fn hashed_keys(&self) -> impl Iterator<Item = (u64, &Key)> {
        self.hashes.keys.iter().copied().zip(self.keys())
    }

    /// Returns whether every client that holds one of the keys is in the audience.
    pub(crate) fn is_for_all_holders(&self) -> bool {
        self.recipients.are_all_holders()
    }

    /// Returns whether the filter of a client admits the event's type.
    pub(crate) fn passes(&self, filter: &Filter) -> bool {
        filter.admits(self.hashes.event_type)
    }

    /// Returns whether a client is in the audience.
    pub(crate) fn is_addressed_to(&self, client: Identity<'_>) -> bool {
        self.recipients.include(client, self.id)
    }

    /// Returns whether the event is for a client that holds one of the keys.
    pub(super) fn is_for(&self, client: Identity<'_>) -> bool {
        self.passes(client.filter) && (self.is_for_all_holders() || self.is_addressed_to(client))
    }

    /// Returns whether the event is the value of a conflation key.
    pub(crate) fn is_value(&self) -> bool {
        self.conflation.is_some()
    }

    /// Returns the length of the frame in bytes.
    pub(crate) fn len(&self) -> usize {
        self.frame.bytes().len()
    }

    /// Returns the bytes that the event counts for in the log.
    pub(super) fn weight(&self) -> usize {
        self.len() + self.weight
    }
}

/// The identity of a value: a later event with an equal conflation replaces an earlier event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflation {
    /// Computed before the lock is taken, because an audience may have many names.
    hash: u64,
    audience: Audience,
    event_type: Box<[u8]>,
    key: Box<str>,
}

impl Hash for Conflation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Events in id order. The ids lie beside each other: a search and a merge read no event, which
/// would lie elsewhere in memory.
pub(super) type Listed = VecDeque<(EventId, Arc<Entry>)>;

/// The events of one read. Most reads take one.
pub(crate) type Batch = SmallVec<[Arc<Entry>; 4]>;

/// The most events that one read of the log takes: a publisher waits for the lock meanwhile.
const MAX_EVENTS: usize = 64;

/// The most bytes of frames that one read takes. A read takes at least one event, and at most
/// [`MAX_EVENTS`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) bytes: usize,
}

impl Budget {
    /// Returns whether `entry` fits into a batch that holds `taken`.
    pub(crate) fn allows(self, taken: &Batch, taken_bytes: usize, entry: &Entry) -> bool {
        taken.is_empty() || taken.len() < MAX_EVENTS && taken_bytes + entry.len() <= self.bytes
    }
}
