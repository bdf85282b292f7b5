//! Reading the log a piece at a time, for a reader that is not a client, or for a client that
//! begins with the values.
//!
//! A reader can be interested in few of the events under its keys, so a read of one piece ends
//! after a number of events that it looked at. The caller releases the lock between two pieces.

use std::sync::{Arc, Weak};

use super::entry::{Batch, Budget, Entry};
use super::identity::{Filter, Identity};
use super::key::Key;
use super::log::Log;
use super::merge::{Backward, Merge};
use crate::wire::id::EventId;

/// The most events that one piece looks at.
const LOOKED_AT: usize = 1024;

/// Adds the events for a reader after a position to `out`, in order, until `out` holds `most`.
/// Returns where the next piece continues, or `None` if `out` is full or the log has no more.
pub(crate) fn forward(
    log: &Log,
    after: EventId,
    reader: Identity<'_>,
    most: usize,
    out: &mut Vec<Arc<Entry>>,
) -> Option<EventId> {
    let events = log.events_of(reader);
    let mut events = Merge::new(events, after, EventId::LAST).at_most(LOOKED_AT);
    while out.len() < most {
        let Some((_, entry)) = events.next() else { return events.rest() };
        out.extend(Some(entry).filter(|entry| entry.is_for(reader)));
    }
    None
}

/// Adds the values for a client after a position and up to `upto` to `out`, in order and within
/// `budget`. Returns where the next piece continues, or `None` if there are no more.
pub(crate) fn values(
    log: &Log,
    after: EventId,
    upto: EventId,
    client: Identity<'_>,
    budget: Budget,
    out: &mut Batch,
) -> Option<EventId> {
    let mut events = Merge::new(log.events_of(client), after, upto).at_most(LOOKED_AT);
    let mut bytes = 0;
    loop {
        let position = events.newest();
        let Some((_, entry)) = events.next() else { return events.rest() };
        if entry.is_value() && entry.is_for(client) {
            if !budget.allows(out, bytes, &entry) {
                return Some(position);
            }
            bytes += entry.len();
            out.push(entry);
        }
    }
}

/// Adds the newest events for a reader before a position to `out`, the newest first, until `out`
/// holds `most`. Returns where the next piece continues, or `None` if `out` is full or the log has
/// no more.
pub(crate) fn backward(
    log: &Log,
    before: EventId,
    reader: Identity<'_>,
    most: usize,
    out: &mut Vec<Arc<Entry>>,
) -> Option<EventId> {
    let mut events = Backward::new(log.lists(reader), before).at_most(LOOKED_AT);
    while out.len() < most {
        let Some(entry) = events.next() else { return events.rest() };
        out.extend(entry.is_for(reader).then(|| Arc::clone(entry)));
    }
    None
}

/// The same for the events of every audience that a filter admits.
pub(crate) fn backward_of(
    log: &Log,
    before: EventId,
    filter: &Filter,
    most: usize,
    out: &mut Vec<Arc<Entry>>,
) -> Option<EventId> {
    let mut oldest = before;
    for (looked_at, (id, entry)) in log.newest_before(before).enumerate() {
        if out.len() >= most {
            return None;
        }
        if looked_at == LOOKED_AT {
            return Some(oldest);
        }
        oldest = id;
        out.extend(entry.filter(|entry| entry.passes(filter)).cloned());
    }
    None
}

/// Events of a topic in the order of their ids. The clients of a crowd that joins share a list: a
/// list for each would be allocated and freed for each.
pub(crate) type Older = Arc<[(EventId, Weak<Entry>)]>;

/// The last events of a topic, for a client that joins.
pub(crate) struct LastOf {
    /// The events up to the client's position that the client did not get.
    pub(crate) older: Older,
    /// There are events after the client's position.
    pub(crate) has_newer: bool,
    /// The position before all these events: the client must hold the topic from here on.
    pub(crate) since: EventId,
    /// How many events of the topic the search looked at.
    pub(crate) looked_at: usize,
}

/// The reads of a client that joins a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    /// Where the stream began.
    pub(crate) from: EventId,
    /// Up to where the client got the events for its identity.
    pub(crate) position: EventId,
    /// The stream began with the values up to `from`.
    pub(crate) has_values: bool,
    /// The client still reads these values, and only values up to here.
    pub(crate) values_upto: Option<EventId>,
}

impl Read {
    /// Returns whether the client will read an event from the log.
    fn will_read(&self, entry: &Entry) -> bool {
        entry.id > self.position
            && (entry.is_value() || self.values_upto.is_none_or(|upto| entry.id > upto))
    }

    /// Returns whether the client got an event at or before the position that is for it.
    fn has_got(&self, entry: &Entry) -> bool {
        entry.id > self.from || self.has_values && entry.is_value()
    }
}

/// Finds the last `count` events of a topic for a client, among the last 1,024 events of the topic.
///
/// `before` and `now`: the identities of the client without and with the topic. `read`: the reads
/// of the client with the identity `before`. `known`: the list of another client, which becomes the
/// list of this client if the events are the same.
pub(crate) fn last_of(
    log: &Log,
    topic: &Key,
    [before, now]: [Identity<'_>; 2],
    count: usize,
    read: Read,
    known: &Older,
) -> LastOf {
    // A topic that was joined with its last events brought events from before the stream, too.
    let was_replayed = |entry: &Entry| {
        before.memberships.iter().any(|held| {
            let is_joined = EventId::ORIGIN < held.since && held.since < entry.id;
            is_joined && entry.keys().binary_search(&held.key).is_ok()
        })
    };
    let (mut has_newer, mut since, mut looked_at) = (false, log.head(), 0);
    let mut older = Same::new(known);
    let events = log.newest_under(topic).take(LOOKED_AT).inspect(|_| looked_at += 1);
    for entry in events.filter(|entry| entry.is_for(now)).take(count) {
        since = entry.id.predecessor();
        if read.will_read(entry) {
            has_newer = true;
            continue;
        }
        let has_got = entry.is_addressed_to(before) && (read.has_got(entry) || was_replayed(entry));
        if !has_got {
            older.push(entry);
        }
    }
    LastOf { older: older.finish(), has_newer, since, looked_at }
}

/// A list of events under construction, from its end, that is probably equal to a known list.
struct Same<'a> {
    known: &'a Older,
    /// So many of the last events of `known` are the last events of this list.
    same: usize,
    /// All events, the newest first, once the list is another than `known`.
    own: Vec<(EventId, Weak<Entry>)>,
}

impl<'a> Same<'a> {
    const fn new(known: &'a Older) -> Self {
        Self { known, same: 0, own: Vec::new() }
    }

    /// Adds an event before the others.
    fn push(&mut self, entry: &Arc<Entry>) {
        let next = self.known.iter().rev().nth(self.same);
        if self.own.is_empty() && next.is_some_and(|&(id, _)| id == entry.id) {
            self.same += 1;
            return;
        }
        self.differ();
        self.own.push((entry.id, Arc::downgrade(entry)));
    }

    /// The rest of `known` is not a part of this list.
    fn differ(&mut self) {
        if self.own.is_empty() {
            self.own.extend(self.known.iter().rev().take(self.same).cloned());
        }
    }

    fn finish(mut self) -> Older {
        if self.own.is_empty() && self.same == self.known.len() {
            return Arc::clone(self.known);
        }
        self.differ();
        if self.own.is_empty() {
            return Older::default(); // Without an allocation.
        }
        self.own.into_iter().rev().collect()
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::time::Instant;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;
    use crate::log::audience::Audience;
    use crate::log::entry::{Encoded, Prepared};
    use crate::log::hash::KeyHasher;
    use crate::wire::event::Event;

    proptest! {
        #[test]
        fn equal_lists_are_shared(known in btree_set(0..8usize, 0..8), wanted in btree_set(0..8usize, 0..8)) {
            let entries: Vec<Arc<Entry>> = (1..=8)
                .map(|seq| {
                    let sealed = Event::new("x").seal();
                    let event = Encoded { audience: Audience::all(), conflation: None, sealed };
                    let prepared = Prepared::new(event, &KeyHasher::default());
                    prepared.into_entry(EventId::new(1, seq), Instant::now())
                })
                .collect();
            let handle = |at: &usize| (entries[*at].id, Arc::downgrade(&entries[*at]));
            let older: Older = known.iter().map(handle).collect();
            let mut list = Same::new(&older);
            wanted.iter().rev().for_each(|at| list.push(&entries[*at]));
            let list = list.finish();
            prop_assert_eq!(list.len(), wanted.len());
            for ((id, handle), at) in list.iter().zip(&wanted) {
                let entry = handle.upgrade().expect("the entries are there");
                prop_assert!(*id == entry.id && Arc::ptr_eq(&entry, &entries[*at]));
            }
            prop_assert!(known != wanted || Arc::ptr_eq(&older, &list));
        }
    }
}
