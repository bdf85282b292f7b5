//! Reading the log without a stream.

#[cfg(feature = "json")]
use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use std::sync::Arc;

use super::admission;
use super::returning::{self, Claim};
use super::shared::Shared;
use super::subscriber::Subscriber;
use crate::core::deferred::Work;
use crate::error::ReadError;
use crate::log::audience::Audience;
use crate::log::entry::Entry;
use crate::log::identity::{Filter, Identity, Membership};
use crate::log::key::Key;
use crate::log::log::Log;
use crate::log::pages;
use crate::sync;
use crate::wire::decode;
use crate::wire::id::{EventId, LastEventId, Resume};

/// An event of the log, as [`Hub::read`](crate::Hub::read) returns it.
///
/// With the feature `json`, a `StoredEvent` and a [`Page`] are `Serialize`, with the names of their
/// fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// The event's id.
    pub id: EventId,
    /// The event's type; `message` for an event without a type.
    pub event_type: String,
    /// The event's data. Its lines end in LF, as a client receives them.
    pub data: String,
}

impl StoredEvent {
    /// Parses an entry. Returns `None` if the entry has no data, so that a client receives no event
    /// for it. Takes time in proportion to the frame: no lock may be held.
    fn new(entry: &Entry) -> Option<Self> {
        let (event_type, data) = decode::stored(entry.frame.bytes())?;
        Some(Self { id: entry.id, event_type, data })
    }
}

/// A part of the log, as [`Hub::read`](crate::Hub::read) returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The events for the reader, in the order of their ids.
    pub events: Vec<StoredEvent>,
    /// Where the next page begins: the reader has every event up to here. Pass the position to
    /// [`Hub::read`](crate::Hub::read), or to [`Subscriber::resume`] to continue with a stream.
    ///
    /// [`Subscriber::resume`]: crate::Subscriber::resume
    pub next: EventId,
    /// Events for the reader are missing between the position of the request and
    /// [`next`](Self::next), for which a stream would report a gap.
    pub truncated: bool,
    /// The log has further events for the reader after [`next`](Self::next).
    pub has_more: bool,
}

impl Page {
    const fn empty(next: EventId, truncated: bool) -> Self {
        Self { events: Vec::new(), next, truncated, has_more: false }
    }
}

#[cfg(feature = "json")]
impl Serialize for StoredEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut event = serializer.serialize_struct("StoredEvent", 3)?;
        event.serialize_field("id", &self.id)?;
        event.serialize_field("event_type", &self.event_type)?;
        event.serialize_field("data", &self.data)?;
        event.end()
    }
}

#[cfg(feature = "json")]
impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut page = serializer.serialize_struct("Page", 4)?;
        page.serialize_field("events", &self.events)?;
        page.serialize_field("next", &self.next)?;
        page.serialize_field("truncated", &self.truncated)?;
        page.serialize_field("has_more", &self.has_more)?;
        page.end()
    }
}

/// Reads at most `limit` events for a subscriber after a position.
pub(super) fn read(
    shared: &Shared,
    who: &Subscriber,
    after: LastEventId,
    limit: usize,
) -> Result<Page, ReadError> {
    who.check(&shared.config.limits).map_err(ReadError::Reader)?;
    let filter = who.type_filter(&shared.hasher);
    let (owner, claimed) = (who.owner(), who.client_id);
    let mut memberships = who.memberships(&shared.hasher);
    memberships.extend(claimed.map(|id| Membership::of(Key::Client(id), &shared.hasher)));
    let claim = Claim::new(shared, who, after.0);
    let mut work = Work::begin(&shared.config);
    if who.deadline(work.now).is_some_and(|deadline| deadline <= work.now) {
        return Err(ReadError::Expired);
    }
    let mut taken = Vec::new();
    let mut state = shared.lock_state();
    if !state.is_loaded {
        return Err(ReadError::NotLoaded);
    }
    state.log.expire(work.now, &mut work.evicted);
    let lost_id = claimed.filter(|&id| {
        let is_connected = returning::connection_of(&state, id, &owner).is_some();
        !is_connected && !admission::was_owned(&state, id, &owner)
    });
    if lost_id.is_some() {
        // A reader reads the events of an id only if a stream would keep the id.
        memberships.retain(|held| !matches!(held.key, Key::Client(_)));
    }
    let joined = claimed.and_then(|id| returning::joined(&state, id, &owner));
    let mut truncated = match &joined {
        Some(joined) => joined.is_partial,
        None => claim.is_some_and(|claim| {
            (lost_id.is_none() || !returning::is_known(&state, claim.id))
                && returning::may_lack(&state, &claim, work.now)
        }),
    };
    for topic in joined.into_iter().flat_map(|joined| joined.topics) {
        if memberships.iter().all(|held| held.key != topic.key) {
            memberships.push(topic);
        }
    }
    let reader = Identity { memberships: &memberships, filter: &filter };

    let head = state.log.head();
    let start = match after.0 {
        Resume::Fresh => EventId::ORIGIN,
        Resume::After(id) if EventId::ORIGIN < id && id <= head => id,
        // Another instance has read further.
        Resume::After(id) if id > head && shared.config.backplane.is_some() => {
            return Ok(Page::empty(id, truncated));
        }
        Resume::After(_) | Resume::Unknown => return Ok(Page::empty(head, true)),
    };
    let is_lost = |lost| start > EventId::ORIGIN && admission::had_events(&state, lost, start);
    truncated |= lost_id.is_some_and(is_lost);
    // An event more than the limit, to know whether there is more.
    let most = limit.saturating_add(1);
    let mut at = start;
    let end = loop {
        // Also between two pieces: the log may have evicted events that were not read yet.
        truncated |= at > EventId::ORIGIN && state.log.lost_since(at, reader).is_some();
        match pages::forward(&state.log, at, reader, most, &mut taken) {
            Some(next) => at = next,
            None => break state.log.head(),
        }
        state = sync::yield_lock(&shared.state, state);
    };
    let has_more = taken.len() > limit;
    let next = match (has_more, limit.checked_sub(1)) {
        (false, _) => end,
        (true, Some(last)) => taken[last].id,
        // Not the position before the id of `taken[0]`: a text has the id of its last event.
        (true, None) => state.log.before_first(at, EventId::LAST, reader).unwrap_or(at),
    };
    drop(state);
    work.run();

    taken.truncate(limit);
    let events = taken.iter().filter_map(|entry| StoredEvent::new(entry)).collect();
    Ok(Page { events, next, truncated, has_more })
}

/// Reads the last `count` events for a holder of every name of the audience, and of no other name.
pub(super) fn recent(
    shared: &Shared,
    audience: &Audience,
    count: usize,
) -> Result<Vec<StoredEvent>, ReadError> {
    audience.check(shared.config.limits.name_len)?;
    if !audience.is_its_index() {
        return Err(ReadError::Combined);
    }
    let memberships = memberships(shared, audience.index());
    let reader = Identity { memberships: &memberships, filter: &Filter::Everything };
    backward(shared, count, |log, before, out| pages::backward(log, before, reader, count, out))
}

/// Reads the last `count` events of a type, of every audience.
pub(super) fn recent_of(
    shared: &Shared,
    event_type: &str,
    count: usize,
) -> Result<Vec<StoredEvent>, ReadError> {
    let filter = Filter::new(Some(&[event_type.into()].into()), &shared.hasher);
    backward(shared, count, |log, before, out| pages::backward_of(log, before, &filter, count, out))
}

/// Reads pieces from the end of the log, and returns the events in the order of their ids.
fn backward(
    shared: &Shared,
    count: usize,
    piece: impl Fn(&Log, EventId, &mut Vec<Arc<Entry>>) -> Option<EventId>,
) -> Result<Vec<StoredEvent>, ReadError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut work = Work::begin(&shared.config);
    let mut taken = Vec::new();
    let mut state = shared.lock_state();
    if !state.is_loaded {
        return Err(ReadError::NotLoaded);
    }
    state.log.expire(work.now, &mut work.evicted);
    let mut before = EventId::LAST;
    while let Some(next) = piece(&state.log, before, &mut taken) {
        before = next;
        state = sync::yield_lock(&shared.state, state);
    }
    drop(state);
    work.run();
    Ok(taken.iter().rev().filter_map(|entry| StoredEvent::new(entry)).collect())
}

/// Hashes the keys, which a request may name: no lock may be held.
fn memberships(shared: &Shared, keys: Vec<Key>) -> Vec<Membership> {
    keys.into_iter().map(|key| Membership::of(key, &shared.hasher)).collect()
}
