use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::audience::{Audience, Filter, Key};
use super::lost::{Lost, Mark, Marker};
use crate::error::ConfigError;
use crate::wire::frame::Frame;
use crate::wire::id::EventId;

/// How much a hub keeps for clients that come back or fall behind.
///
/// What is kept is all that the hub holds of its events, whatever its clients do: at most `bytes` of frames (the
/// allocation of a frame can be a quarter larger than it), and for each of `events` about 350 bytes of bookkeeping. To
/// remember what was lost to whom takes up to 200 bytes more for each of `events` (of 1024 at least). Measured on 64 bits:
/// 216 in all where everything is for everybody, 550 where each event is for another user.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::Retain;
///
/// let retain = Retain::events(4096).per_topic(256).bytes(16 << 20).age(Duration::from_secs(300));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retain {
    pub(crate) events: usize,
    pub(crate) per_topic: Option<usize>,
    pub(crate) bytes: usize,
    pub(crate) age: Option<Duration>,
}

impl Retain {
    /// This many events, at most 16 MiB of them, each for at most five minutes.
    #[must_use]
    pub const fn events(events: usize) -> Self {
        Self { events, per_topic: None, bytes: 16 << 20, age: Some(Duration::from_secs(300)) }
    }

    /// At most this many events of each topic, so that a busy one does not push out the others.
    #[must_use]
    pub const fn per_topic(mut self, events: usize) -> Self {
        self.per_topic = Some(events);
        self
    }

    /// At most this many bytes of frames in all. A larger event is refused.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Each event for at most this long, counted from its publishing. Decided when the hub is next used.
    #[must_use]
    pub const fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Each event until another limit pushes it out.
    #[must_use]
    pub const fn any_age(mut self) -> Self {
        self.age = None;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("events", self.events == 0),
            ("per_topic", self.per_topic == Some(0)),
            ("bytes", self.bytes == 0),
            ("age", self.age == Some(Duration::ZERO)),
        ];
        if let Some((setting, _)) = zero.into_iter().find(|&(_, is_zero)| is_zero) {
            return Err(ConfigError::RetainsNothing(setting));
        }
        match self.per_topic {
            Some(per_topic) if per_topic > self.events => {
                Err(ConfigError::PerTopic { per_topic, events: self.events })
            }
            _ => Ok(()),
        }
    }
}

impl Default for Retain {
    /// `Retain::events(4096)`.
    fn default() -> Self {
        Self::events(4096)
    }
}

/// An event in its place in the order.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) frame: Frame,
    pub(crate) audience: Audience,
    at: Instant,
    mark: Mark,
}

impl Entry {
    pub(crate) fn new(
        id: EventId,
        frame: Frame,
        audience: Audience,
        at: Instant,
        marker: &Marker,
    ) -> Self {
        let mark = marker.mark(&audience.keys()[0], frame.event_type());
        Self { id, frame, audience, at, mark }
    }

    pub(crate) fn len(&self) -> usize {
        self.frame.bytes().len()
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
    retain: Retain,
    /// All that is retained, in order. An event that its topic pushed out leaves a hole.
    order: VecDeque<(EventId, Option<Arc<Entry>>)>,
    holes: usize,
    bytes: usize,
    /// The same by key, each in order.
    index: HashMap<Key, VecDeque<Arc<Entry>>>,
    lost: Lost,
    head: EventId,
}

impl Log {
    pub(crate) fn new(retain: Retain, birth: EventId, marker: Marker) -> Self {
        // Two rows for each event and as many again: a client that comes back after all that was retained when it
        // left has gone still gets an exact answer, unless every event had a name of its own.
        let rows = retain.events.saturating_mul(4).max(1024);
        Self {
            retain,
            order: VecDeque::new(),
            holes: 0,
            bytes: 0,
            index: HashMap::new(),
            lost: Lost::new(marker, rows, birth),
            head: birth,
        }
    }

    /// The position after everything that was ever appended.
    pub(crate) fn head(&self) -> EventId {
        self.head
    }

    /// How many events are retained.
    pub(crate) fn len(&self) -> usize {
        self.order.len() - self.holes
    }

    /// How many bytes of frames are retained.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys have something retained.
    pub(crate) fn keys(&self) -> usize {
        self.index.len()
    }

    /// Appends an event, which is newer than all before, and moves what has to go for it to `evicted`.
    pub(crate) fn append(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        debug_assert!(entry.id > self.head);
        self.expire(entry.at, evicted);
        self.head = entry.id;
        self.bytes += entry.len();
        self.order.push_back((entry.id, Some(Arc::clone(&entry))));
        for key in entry.audience.keys() {
            let entries = self.index.entry(key.clone()).or_default();
            entries.push_back(Arc::clone(&entry));
            let full = self.retain.per_topic.is_some_and(|limit| entries.len() > limit);
            if full && matches!(key, Key::Topic(_)) {
                let oldest = entries[0].id;
                self.evict(oldest, evicted);
            }
        }
        while self.len() > self.retain.events || self.bytes > self.retain.bytes {
            self.evict_oldest(evicted);
        }
    }

    /// Lets go of what is too old at `now`.
    pub(crate) fn expire(&mut self, now: Instant, evicted: &mut Vec<Arc<Entry>>) {
        let Some(age) = self.retain.age else { return };
        while let Some((_, Some(oldest))) = self.order.front() {
            if now.saturating_duration_since(oldest.at) < age {
                break;
            }
            self.evict_oldest(evicted);
        }
    }

    /// Reads what is retained after a position for a client with these keys, in order.
    ///
    /// Returns whether that was all. The cost follows what is read, not what is retained for others.
    pub(crate) fn read(
        &self,
        after: EventId,
        keys: &[Key],
        filter: &Filter,
        budget: Budget,
        out: &mut Vec<Arc<Entry>>,
    ) -> bool {
        let lists: Vec<&VecDeque<Arc<Entry>>> =
            keys.iter().filter_map(|key| self.index.get(key)).collect();
        let mut next: BinaryHeap<Reverse<(EventId, usize, usize)>> = lists
            .iter()
            .enumerate()
            .filter_map(|(list, entries)| {
                let at = entries.partition_point(|entry| entry.id <= after);
                entries.get(at).map(|entry| Reverse((entry.id, list, at)))
            })
            .collect();
        let mut bytes = 0;
        let mut newest = after;
        while let Some(Reverse((id, list, at))) = next.pop() {
            let entry = &lists[list][at];
            // An event under two of the client's keys stands in both lists.
            if id > newest && filter.admits(entry.frame.event_type()) {
                if !budget.allows(out, bytes, entry) {
                    return false;
                }
                bytes += entry.len();
                newest = id;
                out.push(Arc::clone(entry));
            }
            if let Some(following) = lists[list].get(at + 1) {
                next.push(Reverse((following.id, list, at + 1)));
            }
        }
        true
    }

    /// The newest event after `after` that was for this client and is no longer retained, if there is one.
    pub(crate) fn lost_since(
        &self,
        after: EventId,
        keys: &[Key],
        filter: &Filter,
    ) -> Option<EventId> {
        self.lost.since(after, keys, filter)
    }

    fn evict_oldest(&mut self, evicted: &mut Vec<Arc<Entry>>) {
        if let Some(&(oldest, _)) = self.order.front() {
            self.evict(oldest, evicted);
        }
    }

    fn evict(&mut self, id: EventId, evicted: &mut Vec<Arc<Entry>>) {
        let Ok(at) = self.order.binary_search_by_key(&id, |&(id, _)| id) else { return };
        let Some(entry) = self.order[at].1.take() else { return };
        self.holes += 1;
        self.bytes -= entry.len();
        for key in entry.audience.keys() {
            let Some(entries) = self.index.get_mut(key) else { continue };
            if let Ok(at) = entries.binary_search_by_key(&id, |entry| entry.id) {
                entries.remove(at);
            }
            if entries.is_empty() {
                self.index.remove(key);
            }
        }
        self.lost.record(entry.mark, id);
        evicted.push(entry);
        self.close_holes();
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
