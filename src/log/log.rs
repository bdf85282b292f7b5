use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::slice;
use std::sync::Arc;
use std::time::Instant;

use super::audience::{Audience, Identity, Key};
use super::lost::{Lost, Marker, Marks};
use super::retain::{Allowance, Retain};
use crate::wire::frame::Frame;
use crate::wire::id::EventId;

/// An event in its place in the order.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) frame: Frame,
    pub(crate) audience: Audience,
    /// When it was published.
    pub(crate) at: Instant,
    /// The keys that index it, where its audience is not just one.
    keys: Option<Box<[Key]>>,
    marks: Marks,
    /// What it is the latest value of.
    pub(super) conflation: Option<Arc<Conflation>>,
}

/// A later event with the same one takes the place of an earlier.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflation {
    /// Computed before the lock is taken: an audience may have many names.
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

/// What an entry is made of, but for its place in the order.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) audience: Audience,
    keys: Option<Box<[Key]>>,
    marks: Marks,
    conflation: Option<Arc<Conflation>>,
}

impl Parts {
    pub(crate) fn new(
        audience: Audience,
        event_type: &[u8],
        conflation: Option<Box<str>>,
        marker: &Marker,
    ) -> Self {
        let (keys, marks) = match audience.key() {
            Some(key) => (None, marker.marks(slice::from_ref(key), event_type)),
            None => {
                let keys = audience.index().into_boxed_slice();
                let marks = marker.marks(&keys, event_type);
                (Some(keys), marks)
            }
        };
        let conflation = conflation.map(|key| {
            let hash = marker.hash(&(&audience, event_type, &key));
            let (audience, event_type) = (audience.clone(), event_type.into());
            Arc::new(Conflation { hash, audience, event_type, key })
        });
        Self { audience, keys, marks, conflation }
    }
}

/// What retaining an audience counts for, if it is not just one name.
pub(crate) fn weight_of(audience: &Audience) -> usize {
    const NAME: usize = 64;
    if audience.key().is_some() { 0 } else { NAME * audience.names() }
}

impl Entry {
    pub(crate) fn new(id: EventId, frame: Frame, parts: Parts, at: Instant) -> Self {
        let Parts { audience, keys, marks, conflation } = parts;
        Self { id, frame, audience, at, keys, marks, conflation }
    }

    /// The keys that index it.
    pub(crate) fn keys(&self) -> &[Key] {
        match (&self.keys, self.audience.key()) {
            (Some(keys), _) => keys,
            (None, Some(key)) => slice::from_ref(key),
            (None, None) => &[],
        }
    }

    /// Whether everybody who holds one of its keys is in its audience.
    pub(crate) fn is_for_all_holders(&self) -> bool {
        self.keys.is_none() || self.audience.is_its_index()
    }

    /// Whether it is for a client that holds one of its keys.
    fn is_for(&self, client: Identity<'_>) -> bool {
        client.filter.admits(self.frame.event_type())
            && (self.is_for_all_holders() || client.is_in(&self.audience, self.id))
    }

    /// How long its frame is.
    pub(crate) fn len(&self) -> usize {
        self.frame.bytes().len()
    }

    /// What retaining it counts for.
    pub(super) fn weight(&self) -> usize {
        self.len() + weight_of(&self.audience)
    }
}

/// How much one read takes: at least one event, then no more than this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) bytes: usize,
}

impl Budget {
    /// Whether a batch that holds `taken` may take `entry` too.
    pub(crate) fn allows(self, taken: &[Arc<Entry>], taken_bytes: usize, entry: &Entry) -> bool {
        taken.is_empty() || taken_bytes + entry.len() <= self.bytes
    }
}

/// The hub's bounded memory: the only owner of events.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) retain: Retain,
    /// More than that, while what was let go of is wanted.
    pub(super) raised: Option<Raised>,
    /// All that is retained, in order. An event that its topic pushed out leaves a hole.
    pub(super) order: VecDeque<(EventId, Option<Arc<Entry>>)>,
    pub(super) holes: usize,
    pub(super) bytes: usize,
    /// The same by key, each in order.
    pub(super) index: HashMap<Key, VecDeque<Arc<Entry>>>,
    /// Which retained event is the latest of its conflation.
    pub(super) latest: HashMap<Arc<Conflation>, EventId>,
    pub(super) lost: Lost,
    head: EventId,
}

/// The log keeps more than its retention.
#[derive(Debug)]
pub(super) struct Raised {
    pub(super) by: Allowance,
    /// From where on the log was whole before.
    pub(super) base: EventId,
    /// Something did not fit.
    pub(super) full: bool,
}

impl Log {
    pub(crate) fn new(retain: Retain, birth: EventId, marker: Marker) -> Self {
        // Two rows for each event and as many again: a client that comes back after all that was retained when it
        // left has gone still gets an exact answer, unless every event had a name of its own.
        let rows = retain.events.saturating_mul(4).max(1024);
        Self {
            retain,
            raised: None,
            order: VecDeque::new(),
            holes: 0,
            bytes: 0,
            index: HashMap::new(),
            latest: HashMap::new(),
            lost: Lost::new(marker, rows, birth),
            head: birth,
        }
    }

    /// The position after everything that was ever appended.
    pub(crate) fn head(&self) -> EventId {
        self.head
    }

    /// Goes past a position that is no event's.
    pub(crate) fn pass(&mut self, id: EventId) {
        self.head = self.head.max(id);
    }

    /// How many events are retained.
    pub(crate) fn len(&self) -> usize {
        self.order.len() - self.holes
    }

    /// What the retained frames and combined audiences count for, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys have something retained.
    pub(crate) fn keys(&self) -> usize {
        self.index.len()
    }

    /// What limits the log now.
    pub(super) fn limit(&self) -> Retain {
        self.raised.as_ref().map_or(self.retain, |raised| self.retain.raised(raised.by))
    }

    /// Appends an event, which is newer than all before, and moves what has to go for it to `evicted`.
    pub(crate) fn append(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        debug_assert!(entry.id > self.head);
        self.expire(entry.at, evicted);
        let limit = self.limit();
        self.head = entry.id;
        self.bytes += entry.weight();
        self.order.push_back((entry.id, Some(Arc::clone(&entry))));
        if let Some(conflation) = &entry.conflation
            && let Some(older) = self.latest.insert(Arc::clone(conflation), entry.id)
        {
            // Not lost: whoever has not read it is to read this one.
            self.take_out(older, evicted);
        }
        for key in entry.keys() {
            let entries = self.index.entry(key.clone()).or_default();
            entries.push_back(Arc::clone(&entry));
            let full = limit.per_topic.is_some_and(|limit| entries.len() > limit);
            if full && matches!(key, Key::Topic(_)) {
                let oldest = entries[0].id;
                self.evict(oldest, evicted);
            }
        }
        while self.len() > limit.events || self.bytes > limit.bytes {
            self.evict_oldest(evicted);
        }
    }

    /// Lets go of what is too old at `now`.
    pub(crate) fn expire(&mut self, now: Instant, evicted: &mut Vec<Arc<Entry>>) {
        let Some(age) = self.limit().age else { return };
        while let Some((_, Some(oldest))) = self.order.front() {
            if now.saturating_duration_since(oldest.at) < age {
                break;
            }
            self.evict_oldest(evicted);
        }
    }

    /// Reads what is retained after a position for a client, in order.
    ///
    /// Returns whether that was all. The cost follows what is read, not what is retained for others.
    pub(crate) fn read(
        &self,
        after: EventId,
        client: Identity<'_>,
        budget: Budget,
        out: &mut Vec<Arc<Entry>>,
    ) -> bool {
        let lists = self.lists(client);
        let mut next: BinaryHeap<Reverse<(EventId, usize, usize)>> = lists
            .iter()
            .enumerate()
            .filter_map(|(list, &(entries, since))| {
                let at = entries.partition_point(|entry| entry.id <= after.max(since));
                entries.get(at).map(|entry| Reverse((entry.id, list, at)))
            })
            .collect();
        let mut bytes = 0;
        let mut newest = after;
        while let Some(Reverse((id, list, at))) = next.pop() {
            let (entries, _) = lists[list];
            let entry = &entries[at];
            // An event under two of the client's keys stands in both lists.
            if id > newest && entry.is_for(client) {
                if !budget.allows(out, bytes, entry) {
                    return false;
                }
                bytes += entry.len();
                newest = id;
                out.push(Arc::clone(entry));
            }
            if let Some(following) = entries.get(at + 1) {
                next.push(Reverse((following.id, list, at + 1)));
            }
        }
        true
    }

    /// The position after which the last `count` events lie that are retained for a client, and whether there are more.
    pub(crate) fn before_last(&self, count: usize, client: Identity<'_>) -> (EventId, bool) {
        let lists = self.lists(client);
        let mut next: BinaryHeap<(EventId, usize, usize)> = lists
            .iter()
            .enumerate()
            .filter_map(|(list, (entries, _))| {
                let at = entries.len().checked_sub(1)?;
                Some((entries[at].id, list, at))
            })
            .collect();
        let mut left = count;
        let mut oldest = None;
        while let Some((id, list, at)) = next.pop() {
            let (entries, since) = lists[list];
            if oldest != Some(id) && id > since && entries[at].is_for(client) {
                if left == 0 {
                    return (id, true);
                }
                left -= 1;
                oldest = Some(id);
            }
            if let Some(at) = at.checked_sub(1) {
                next.push((entries[at].id, list, at));
            }
        }
        (oldest.map_or(self.head, EventId::before), false)
    }

    /// What is retained for each of a client's keys, and from where on it holds them.
    fn lists<'a>(&'a self, client: Identity<'a>) -> Vec<(&'a VecDeque<Arc<Entry>>, EventId)> {
        let places = client.places.iter();
        places.filter_map(|place| Some((self.index.get(&place.key)?, place.since))).collect()
    }

    /// The newest event after `after` that was for this client and is no longer retained, if there is one.
    pub(crate) fn lost_since(&self, after: EventId, client: Identity<'_>) -> Option<EventId> {
        self.lost.since(after, client)
    }

    pub(super) fn evict_oldest(&mut self, evicted: &mut Vec<Arc<Entry>>) {
        if let Some(&(oldest, _)) = self.order.front() {
            self.evict(oldest, evicted);
        }
    }

    pub(super) fn evict(&mut self, id: EventId, evicted: &mut Vec<Arc<Entry>>) {
        let Some(entry) = self.take_out(id, evicted) else { return };
        self.lost.record(id, &entry.audience, &entry.marks);
        if let Some(conflation) = &entry.conflation {
            self.latest.remove(conflation);
        }
    }

    /// Takes an event out of all but the memory of what was lost.
    fn take_out(&mut self, id: EventId, evicted: &mut Vec<Arc<Entry>>) -> Option<Arc<Entry>> {
        let at = self.order.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        let entry = self.order[at].1.take()?;
        self.holes += 1;
        self.bytes -= entry.weight();
        for key in entry.keys() {
            let Some(entries) = self.index.get_mut(key) else { continue };
            if let Ok(at) = entries.binary_search_by_key(&id, |entry| entry.id) {
                entries.remove(at);
            }
            if entries.is_empty() {
                self.index.remove(key);
            }
        }
        evicted.push(Arc::clone(&entry));
        self.close_holes();
        Some(entry)
    }

    /// Keeps the oldest place filled and the holes fewer than the events.
    fn close_holes(&mut self) {
        while let Some((_, None)) = self.order.front() {
            self.order.pop_front();
            self.holes -= 1;
        }
        if self.holes > self.order.len() / 2 {
            self.order.retain(|(_, entry)| entry.is_some());
            self.holes = 0;
        }
    }
}
