//! Reading the log without a stream.

#[cfg(feature = "json")]
use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::admission::{self, Position};
use super::returning::{self, Claim};
use super::shared::Shared;
use super::subscriber::Subscriber;
use crate::core::deferred::Work;
use crate::core::held::TooManyReaders;
use crate::core::state::{Lifecycle, State};
use crate::error::ReadError;
use crate::log::audience::Audience;
use crate::log::entry::Entry;
use crate::log::identity::{Filter, Identity, Membership};
use crate::log::key::{ClientId, Key};
use crate::log::log::Log;
use crate::log::pages;
use crate::log::profile::Owner;
use crate::sync;
use crate::time::deadline::IdleDeadline;
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

/// Reads at most `limit` events for a subscriber after a position, as far as the log has them.
pub(super) fn read(
    shared: &Shared,
    who: &Subscriber,
    after: LastEventId,
    limit: usize,
) -> Result<Page, ReadError> {
    let reader = Reader::new(shared, who, after, limit)?;
    match reader.read(shared, EventId::LAST)? {
        Attempt::Page(page) => Ok(page),
        Attempt::Wait(_) => unreachable!("no loss is newer than the last id"),
    }
}

/// Reads as [`read`] does. Waits for the backplane if events are lost that it may bring.
pub(super) async fn read_with_history(
    shared: &Shared,
    who: &Subscriber,
    after: LastEventId,
    limit: usize,
) -> Result<Page, ReadError> {
    let reader = Reader::new(shared, who, after, limit)?;
    let mut requested = match reader.after {
        // Without a position, the reader lacks no event from before the log.
        Resume::Fresh => EventId::LAST,
        Resume::After(_) | Resume::Unknown => EventId::ORIGIN,
    };
    // All waits together last no longer than the first may.
    let mut until = None;
    loop {
        match reader.read(shared, requested)? {
            Attempt::Page(page) => return Ok(page),
            Attempt::Wait(mut wait) => {
                wait.until = *until.get_or_insert(wait.until);
                requested = wait.await;
            }
        }
    }
}

/// A reader of the log: a request of a client, without a stream.
struct Reader {
    after: Resume,
    limit: usize,
    filter: Filter,
    /// The memberships of the request, without those of the client id and of joined topics.
    memberships: Vec<Membership>,
    owner: Owner,
    claimed: Option<ClientId>,
    claim: Option<Claim>,
    /// When the time of the reader is over.
    deadline: Option<Instant>,
}

/// The names of a reader.
struct Names {
    memberships: Vec<Membership>,
    /// The reader may lack a topic that the server had added its client to.
    may_lack: bool,
    /// The client id that a stream of the reader would not keep.
    lost_id: Option<ClientId>,
}

/// The result of a read of the log.
enum Attempt<'a> {
    Page(Page),
    /// The backplane may bring events that the log lacks.
    Wait(Wait<'a>),
}

impl Reader {
    /// Hashes the names of the request: no lock may be held.
    fn new(
        shared: &Shared,
        who: &Subscriber,
        after: LastEventId,
        limit: usize,
    ) -> Result<Self, ReadError> {
        who.check(&shared.config.limits).map_err(ReadError::Reader)?;
        Ok(Self {
            after: after.0,
            limit,
            filter: who.type_filter(&shared.hasher),
            memberships: who.memberships(&shared.hasher),
            owner: who.owner(),
            claimed: who.client_id,
            claim: Claim::new(shared, who, after.0),
            deadline: who.deadline(shared.now()),
        })
    }

    /// Returns the names that a stream of the reader would hold. `own`: the name of the client id.
    fn names(&self, state: &State, own: Option<Membership>, now: Instant) -> Names {
        let Self { owner, claim, .. } = self;
        let lost_id = self.claimed.filter(|&id| {
            let is_connected = returning::connection_of(state, id, owner).is_some();
            !is_connected && !admission::was_owned(state, id, owner)
        });
        let mut memberships = self.memberships.clone();
        // A reader reads the events of an id only if a stream would keep the id.
        memberships.extend(own.filter(|_| lost_id.is_none()));
        let joined = self.claimed.and_then(|id| returning::joined(state, id, owner));
        let may_lack = match &joined {
            Some(joined) => joined.is_partial,
            None => claim.as_ref().is_some_and(|claim| {
                (lost_id.is_none() || !returning::is_known(state, claim.id))
                    && returning::may_lack(state, claim, now)
            }),
        };
        for topic in joined.into_iter().flat_map(|joined| joined.topics) {
            if memberships.iter().all(|held| held.key != topic.key) {
                memberships.push(topic);
            }
        }
        Names { memberships, may_lack, lost_id }
    }

    /// Reads the log, or returns a wait for the backplane. Losses up to `requested` were requested
    /// already: the reader does not wait for these.
    fn read<'a>(&self, shared: &'a Shared, requested: EventId) -> Result<Attempt<'a>, ReadError> {
        let own = self.claimed.map(|id| Membership::of(Key::Client(id), &shared.hasher));
        let mut work = Work::begin(&shared.config);
        if self.deadline.is_some_and(|deadline| deadline <= work.now) {
            return Err(ReadError::Expired);
        }
        let mut taken = Vec::new();
        let mut guard = shared.lock_state();
        if !guard.is_loaded {
            return Err(ReadError::NotLoaded);
        }
        guard.log.expire(work.now, &mut work.evicted);
        let state = &*guard;
        let Names { memberships, may_lack, lost_id } = self.names(state, own, work.now);
        let reader = Identity { memberships: &memberships, filter: &self.filter };

        let head = state.log.head();
        let start = match Position::of(self.after, head, &shared.config) {
            Position::Fresh => EventId::ORIGIN,
            Position::Known(id) => id,
            Position::Ahead(id) => return Ok(Attempt::Page(Page::empty(id, may_lack))),
            Position::Unknown => return Ok(Attempt::Page(Page::empty(head, true))),
        };
        let is_lost =
            |lost| start > EventId::ORIGIN && admission::had_events(state, lost, start, reader);
        let mut truncated = may_lack || lost_id.is_some_and(is_lost);
        // An event more than the limit, to know whether there is more.
        let most = self.limit.saturating_add(1);
        let mut at = start;
        let end = loop {
            // Also between two pieces: the log may have evicted events that were not read yet.
            let is_known = at > EventId::ORIGIN;
            if let Some(lost) = is_known.then(|| guard.log.lost_since(at, reader)).flatten() {
                if let Some(until) = may_wait(&guard, start, lost, requested, work.now) {
                    let State { held, log, .. } = &mut *guard;
                    let key = held.add_reader(start, work.now, log);
                    let key = key.map_err(|TooManyReaders| ReadError::Busy)?;
                    work.note_history_wanted();
                    drop(guard);
                    let until = self.deadline.map_or(until, |deadline| until.min(deadline));
                    // Made before foreign code runs: dropping it frees the place of the reader.
                    let wait = Wait { shared, key, until, idle: IdleDeadline::new(None) };
                    work.run();
                    return Ok(Attempt::Wait(wait));
                }
                truncated = true;
            }
            match pages::forward(&guard.log, at, reader, most, &mut taken) {
                Some(next) => at = next,
                None => break guard.log.head(),
            }
            guard = sync::yield_lock(&shared.state, guard);
        };
        let has_more = taken.len() > self.limit;
        let next = match (has_more, self.limit.checked_sub(1)) {
            (false, _) => end,
            (true, Some(last)) => taken[last].id,
            // Not the position before the id of `taken[0]`: a text has the id of its last event.
            (true, None) => guard.log.before_first(at, EventId::LAST, reader).unwrap_or(at),
        };
        if start > EventId::ORIGIN {
            let State { held, log, .. } = &mut *guard;
            held.note_read(start, log, work.now);
        }
        drop(guard);
        work.run();

        taken.truncate(self.limit);
        let events = taken.iter().filter_map(|entry| StoredEvent::new(entry)).collect();
        Ok(Attempt::Page(Page { events, next, truncated, has_more }))
    }
}

/// Returns until when a reader may wait for the events after `after`; `None` if none can come, or if
/// the newest `lost` event was requested already.
fn may_wait(
    state: &State,
    after: EventId,
    lost: EventId,
    requested: EventId,
    now: Instant,
) -> Option<Instant> {
    if lost <= requested {
        return None;
    }
    match state.lifecycle {
        Lifecycle::Open | Lifecycle::Draining => state.held.may_hold(after, &state.log, now),
        Lifecycle::Closed => None,
    }
}

/// A place among the readers that wait for older events. Resolves with the position up to which
/// losses were requested, as soon as the log may be read, at `until` at the latest.
struct Wait<'a> {
    shared: &'a Shared,
    /// The key of the reader in [`Held`](crate::core::held::Held).
    key: usize,
    until: Instant,
    idle: IdleDeadline,
}

impl Future for Wait<'_> {
    type Output = EventId;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<EventId> {
        let this = self.get_mut();
        // Cloned before the lock is taken: cloning a waker is foreign code.
        sync::assert_unlocked();
        let mut waker = Some(cx.waker().clone());
        let released = this.shared.state.lock().held.poll_reader(this.key, &mut waker);
        drop(waker);
        if let Some(requested) = released {
            return Poll::Ready(requested);
        }
        let timer = &*this.shared.config.timer;
        // The backplane did not answer in time: request nothing again.
        this.idle.poll(cx, timer, Some(this.until)).map(|_| EventId::LAST)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let waker = self.shared.state.lock().held.remove_reader(self.key);
        drop(waker);
    }
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
