//! The retained events of a run.
//!
//! If the run appends text, the text of adjacent events is kept in pieces, each with the id and the
//! end of every event. Only the newest events are kept as entries too: the windows of live clients
//! hold weak handles to these.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::entry::{Conflation, Entry};
use super::hash::KeyHashes;
use super::key::Key;
use crate::wire::decode;
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// Bytes that each event counts for beside its frame and names: the entry and its place here.
const EVENT_WEIGHT: usize = 256;

/// Bytes that each event of a text counts for beside the text: its [`Mark`], and the room that a
/// growing list keeps.
const MARK_WEIGHT: usize = 2 * size_of::<Mark>();

/// Bytes that each text counts for beside its events: the allocation and its place here.
const TEXT_WEIGHT: usize = 256;

/// The most bytes of a text, and its most events. The bound of the run removes a whole text, and a
/// read copies it under the lock.
const TEXT_BYTES: usize = 16 << 10;
const TEXT_EVENTS: usize = 4096;

/// The newest events of a text that are kept as entries, too, while a window of a live client holds
/// the oldest: two windows of clients.
const RECENT: usize = 64;

/// The events of a run that are kept, in id order.
#[derive(Debug)]
pub(crate) struct RunLog {
    key: Key,
    appends: Option<Arc<Appends>>,
    items: VecDeque<Item>,
    /// The newest events of the texts.
    recent: VecDeque<Arc<Entry>>,
    recent_bytes: usize,
    /// The latest retained event of each conflation.
    latest: HashMap<Arc<Conflation>, EventId>,
    bytes: usize,
    /// The most bytes of the run.
    limit: usize,
    /// The newest dropped event; `ORIGIN` if there is none.
    lost: EventId,
}

/// The type whose adjacent events are one text, with the hashes of such an event.
#[derive(Debug)]
struct Appends {
    event_type: Box<str>,
    hashes: KeyHashes,
}

#[derive(Debug)]
enum Item {
    Event(Arc<Entry>),
    Text(Box<Text>),
}

/// The text of adjacent events.
#[derive(Debug)]
struct Text {
    of: Arc<Appends>,
    text: String,
    /// The first event.
    first: EventId,
    marks: Vec<Mark>,
    /// The time of the newest event.
    at: Instant,
}

/// An event of a text.
#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    /// The epoch, counted from the epoch of the first event.
    epoch: u32,
    /// Where the event ends in the text.
    end: u32,
}

impl Text {
    fn id(&self, mark: &Mark) -> EventId {
        EventId::new(self.first.epoch() + u64::from(mark.epoch), mark.seq)
    }

    /// Returns the number of events up to a position.
    fn upto(&self, position: EventId) -> usize {
        self.marks.partition_point(|mark| self.id(mark) <= position)
    }

    fn last(&self) -> EventId {
        self.marks.last().map_or(EventId::ORIGIN, |last| self.id(last))
    }

    fn end_of(&self, count: usize) -> usize {
        count.checked_sub(1).map_or(0, |last| self.marks[last].end as usize)
    }

    /// Adds an event. Returns `false` if the text has no room, or the event is no plain text.
    fn append(&mut self, entry: &Entry, most: usize) -> bool {
        let Some(epoch) = entry.id.epoch().checked_sub(self.first.epoch()) else { return false };
        let Ok(epoch) = u32::try_from(epoch) else { return false };
        let is_full = self.text.len() + entry.len() > TEXT_BYTES.min(most)
            || self.marks.len() == TEXT_EVENTS
            || (self.marks.len() + 1) * MARK_WEIGHT > most;
        if !self.marks.is_empty() && is_full {
            return false;
        }
        if !decode::append_text(entry.frame.bytes(), &mut self.text) {
            return false;
        }
        let Ok(end) = u32::try_from(self.text.len()) else { return false };
        self.marks.push(Mark { seq: entry.id.seq(), epoch, end });
        self.at = entry.at;
        true
    }

    fn weight(&self) -> usize {
        // A growing text has up to twice the room that it needs.
        TEXT_WEIGHT + 2 * self.text.len() + MARK_WEIGHT * self.marks.len()
    }
}

impl Item {
    fn last(&self) -> EventId {
        match self {
            Self::Event(entry) => entry.id,
            Self::Text(text) => text.last(),
        }
    }

    fn first(&self) -> EventId {
        match self {
            Self::Event(entry) => entry.id,
            Self::Text(text) => text.first,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Event(entry) => weight_of(entry),
            Self::Text(text) => text.weight(),
        }
    }
}

fn weight_of(entry: &Entry) -> usize {
    EVENT_WEIGHT + entry.weight()
}

/// Returns the most bytes that an event of `weight` bytes can count for in a run.
pub(super) const fn most_weight(weight: usize) -> usize {
    // As an entry, and as a text.
    EVENT_WEIGHT + TEXT_WEIGHT + MARK_WEIGHT + 3 * weight
}

impl RunLog {
    /// `appends`: the type whose adjacent events are one text, and the hashes of such an event.
    /// `lost`: the end of an earlier run of the name, whose events are dropped.
    pub(super) fn new(
        key: Key,
        appends: Option<(Box<str>, KeyHashes)>,
        limit: usize,
        lost: EventId,
    ) -> Self {
        let mut run = Self {
            key,
            appends: None,
            items: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            latest: HashMap::new(),
            bytes: 0,
            limit,
            lost,
        };
        run.set_appends(appends);
        run
    }

    /// Sets the type whose adjacent events are one text.
    pub(super) fn set_appends(&mut self, appends: Option<(Box<str>, KeyHashes)>) {
        self.appends = appends.map(|(event_type, hashes)| Arc::new(Appends { event_type, hashes }));
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the bytes that the events count for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the newest dropped event; `ORIGIN` if there is none.
    pub(super) fn lost(&self) -> EventId {
        self.lost
    }

    /// Returns the oldest retained event.
    pub(super) fn first(&self) -> Option<EventId> {
        self.items.front().map(Item::first)
    }

    /// Appends an event, and drops the oldest events beyond the limit of the run. Moves dropped
    /// entries to `freed`: the caller frees them after unlocking.
    pub(super) fn append(&mut self, entry: &Arc<Entry>, freed: &mut Vec<Arc<Entry>>) {
        if let Some(conflation) = &entry.conflation {
            // Removed first: an insertion would keep the old key, and with it a second copy.
            let older = self.latest.remove(conflation);
            self.latest.insert(Arc::clone(conflation), entry.id);
            older.into_iter().for_each(|older| self.take_out(older, freed));
        }
        let is_text = self.append_text(entry);
        if is_text {
            self.recent_bytes += weight_of(entry);
            self.bytes += weight_of(entry);
            // Nobody needs an entry that every live client has taken.
            while self.recent.front().is_some_and(|oldest| Arc::weak_count(oldest) == 0) {
                self.drop_recent(freed);
            }
            self.recent.push_back(Arc::clone(entry));
            while self.recent.len() > RECENT || self.recent_bytes > self.limit / 4 {
                self.drop_recent(freed);
            }
        } else {
            self.bytes += weight_of(entry);
            self.items.push_back(Item::Event(Arc::clone(entry)));
        }
        while self.bytes > self.limit && self.drop_oldest(freed) {}
    }

    fn append_text(&mut self, entry: &Entry) -> bool {
        let Some(appends) = &self.appends else { return false };
        if entry.hashes.event_type != appends.hashes.event_type || entry.conflation.is_some() {
            return false;
        }
        // Small beside the limit: the oldest text goes as a whole.
        let most = self.limit / 4;
        if let Some(Item::Text(text)) = self.items.back_mut() {
            let before = text.weight();
            if Arc::ptr_eq(&text.of, appends) && text.append(entry, most) {
                self.bytes += text.weight() - before;
                return true;
            }
            text.text.shrink_to_fit();
            text.marks.shrink_to_fit();
        }
        let (of, first, at) = (Arc::clone(appends), entry.id, entry.at);
        let mut text = Text { of, text: String::new(), first, marks: Vec::new(), at };
        if !text.append(entry, most) {
            return false;
        }
        self.bytes += text.weight();
        self.items.push_back(Item::Text(Box::new(text)));
        true
    }

    fn drop_recent(&mut self, freed: &mut Vec<Arc<Entry>>) {
        let Some(entry) = self.recent.pop_front() else { return };
        self.recent_bytes -= weight_of(&entry);
        self.bytes -= weight_of(&entry);
        freed.push(entry);
    }

    /// Drops the oldest event or text. Returns `false` if there is none.
    pub(super) fn drop_oldest(&mut self, freed: &mut Vec<Arc<Entry>>) -> bool {
        let Some(item) = self.items.pop_front() else { return false };
        self.bytes -= item.weight();
        self.lost = item.last();
        while self.recent.front().is_some_and(|entry| entry.id <= self.lost) {
            self.drop_recent(freed);
        }
        if let Item::Event(entry) = item {
            if let Some(conflation) = &entry.conflation {
                self.latest.remove(conflation);
            }
            freed.push(entry);
        }
        true
    }

    /// Drops the events up to `lost`, or notes that they were dropped before.
    pub(super) fn lose(&mut self, lost: EventId, freed: &mut Vec<Arc<Entry>>) {
        while self.first().is_some_and(|first| first <= lost) {
            self.drop_oldest(freed);
        }
        self.lost = self.lost.max(lost);
    }

    /// Removes an event that a later value replaces, without a loss.
    fn take_out(&mut self, id: EventId, freed: &mut Vec<Arc<Entry>>) {
        let at = self.items.partition_point(|item| item.last() < id);
        let is_event = matches!(self.items.get(at), Some(Item::Event(entry)) if entry.id == id);
        if is_event && let Some(Item::Event(entry)) = self.items.remove(at) {
            self.bytes -= weight_of(&entry);
            freed.push(entry);
        }
    }

    /// Returns the first event after a position: the index of its item, and its id.
    pub(super) fn seek(&self, after: EventId) -> Option<(usize, EventId)> {
        let at = self.items.partition_point(|item| item.last() <= after);
        Some((at, self.next_in(at, after)?))
    }

    /// Returns the first event after a position, in the item at this index or the item behind it.
    pub(super) fn seek_from(&self, at: usize, after: EventId) -> Option<(usize, EventId)> {
        let at = if self.items.get(at)?.last() <= after { at + 1 } else { at };
        Some((at, self.next_in(at, after)?))
    }

    fn next_in(&self, at: usize, after: EventId) -> Option<EventId> {
        match self.items.get(at)? {
            Item::Event(entry) => Some(entry.id),
            Item::Text(text) => text.marks.get(text.upto(after)).map(|mark| text.id(mark)),
        }
    }

    /// Returns the event of the item at this index, or the events of its text after `after` and up
    /// to `upto` as one event, under the id of the last. `upto` must not lie before the first.
    pub(super) fn take(&self, at: usize, after: EventId, upto: EventId) -> Arc<Entry> {
        match &self.items[at] {
            Item::Event(entry) => Arc::clone(entry),
            Item::Text(text) => {
                let (from, to) = (text.upto(after), text.upto(upto));
                let part = &text.text[text.end_of(from)..text.end_of(to)];
                let event = match &*text.of.event_type {
                    "message" => Event::default(),
                    event_type => Event::new(event_type),
                };
                let (id, hashes) = (text.id(&text.marks[to - 1]), text.of.hashes.clone());
                Entry::joined(id, event.data(part).seal(), &self.key, hashes, text.at)
            }
        }
    }
}
