//! An order of entries in memory: what an engine keeps, and what an instance reads.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::backplane::Outgoing;
use crate::wire::id::EventId;

/// The order. Each entry names the entry before, so that a reader notices a loss.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) entries: Vec<Placed>,
    pub(super) last: EventId,
    /// The id of the latest mark.
    mark: EventId,
    /// The first number of the latest id.
    clock: u64,
    /// The newest position and the newest mark among the trimmed entries.
    trimmed: [EventId; 2],
    /// The newest event of each value. A rollback leaves them as they are.
    values: HashMap<Box<[u8]>, (EventId, Bytes)>,
    /// The parts of each run, by its name.
    copies: HashMap<Box<str>, Vec<(EventId, Bytes)>>,
    /// The ids of events with an idempotency key.
    keys: HashMap<Box<str>, EventId>,
    /// An entry has let clients join topics.
    has_joins: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) id: EventId,
    /// The last id of the order when this entry was placed.
    previous: EventId,
    /// `None` for a mark: the order went backwards.
    entry: Option<Bytes>,
}

/// A call of the feed.
pub(super) enum Step {
    Append(EventId, Bytes),
    Load(Load),
}

pub(super) struct Load {
    pub(super) floor: EventId,
    pub(super) values: Vec<(EventId, Bytes)>,
    pub(super) copies: Vec<Vec<(EventId, Bytes)>>,
    /// The end of the order.
    pub(super) end: EventId,
    pub(super) tail: Vec<(EventId, Bytes)>,
    pub(super) has_joins: bool,
}

impl Order {
    fn place(&mut self, entry: Option<Bytes>, floor: EventId) -> EventId {
        self.clock += 1;
        let id = EventId::new(self.clock, 0).max(EventId::new(floor.epoch(), floor.seq() + 1));
        self.entries.push(Placed { id, previous: self.last, entry });
        self.last = id;
        id
    }

    pub(super) fn place_event(&mut self, event: &Outgoing, floor: EventId) -> EventId {
        if let Some(id) = event.key().and_then(|key| self.keys.get(key)) {
            return *id;
        }
        let id = self.place(Some(event.entry().clone()), floor);
        if let Some(value) = event.value_of() {
            self.values.insert(value.into(), (id, event.entry().clone()));
        }
        if let Some(part) = event.run() {
            let copy = self.copies.entry(part.name.into()).or_default();
            copy.push((id, event.entry().clone()));
        }
        if let Some(key) = event.key() {
            self.keys.insert(key.into(), id);
        }
        self.has_joins |= event.joins();
        id
    }

    /// Adds a mark for a rollback before `since`, if the order has none yet. Instances that did not
    /// read the removed entries need the mark.
    fn mark(&mut self, since: EventId) {
        if self.mark <= since {
            self.mark = self.place(None, since);
        }
    }

    pub(super) fn trim(&mut self, count: usize) -> Vec<EventId> {
        let trimmed = self.entries.drain(..count.min(self.entries.len()));
        let ids = trimmed.map(|placed| {
            self.trimmed[0] = placed.id;
            if placed.entry.is_none() {
                self.trimmed[1] = placed.id;
            }
            placed.id
        });
        ids.collect()
    }

    pub(super) fn roll_back(&mut self, count: usize) -> Vec<EventId> {
        let gone = self.entries.split_off(self.entries.len().saturating_sub(count));
        let [last, mark] = self.trimmed;
        let newest = self.entries.iter().rfind(|placed| placed.entry.is_none());
        self.mark = newest.map_or(mark, |mark| mark.id);
        self.last = self.entries.last().map_or(last, |last| last.id);
        for copy in self.copies.values_mut() {
            copy.retain(|(id, _)| *id <= self.last);
        }
        gone.into_iter().map(|placed| placed.id).collect()
    }

    /// Returns the calls for the next entries of an instance that has read up to `position`.
    pub(super) fn read(
        &mut self,
        position: &mut Option<EventId>,
        count: usize,
        tail: usize,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = match *position {
            None => {
                let (load, at) = self.find_the_end(tail);
                steps.push(Step::Load(load));
                at
            }
            Some(at) if self.last < at => {
                self.mark(at);
                at
            }
            Some(at) => at,
        };
        let after = self.entries.partition_point(|placed| placed.id <= at);
        let entries: Vec<_> = self.entries[after..].iter().take(count).cloned().collect();
        for placed in entries {
            match placed.entry {
                Some(entry) => {
                    if placed.previous != at {
                        if placed.previous < at {
                            self.mark(placed.id);
                        }
                        steps.push(Step::Load(self.load(placed.id.predecessor(), Vec::new())));
                    }
                    steps.push(Step::Append(placed.id, entry));
                }
                None => steps.push(Step::Load(self.load(placed.id, Vec::new()))),
            }
            at = placed.id;
        }
        if after == self.entries.len() && self.last > at {
            // The removed entries leave no mark behind, so no later entry reports the loss.
            at = self.last;
            steps.push(Step::Load(self.load(at, Vec::new())));
        }
        *position = Some(at);
        steps
    }

    fn load(&self, floor: EventId, tail: Vec<(EventId, Bytes)>) -> Load {
        Load {
            floor,
            values: self.values.values().cloned().collect(),
            copies: self.copies.values().cloned().collect(),
            end: self.last,
            tail,
            has_joins: self.has_joins,
        }
    }

    /// Returns the newest entries, at most `most`, and the position after them.
    fn find_the_end(&mut self, most: usize) -> (Load, EventId) {
        if self.last == EventId::default() {
            self.clock += 1;
            self.last = EventId::new(self.clock, 0);
        }
        let newest = &self.entries[self.entries.len().saturating_sub(most)..];
        let mut floor = newest.first().map_or(self.last, |first| first.previous);
        let mut at = floor;
        let mut tail = Vec::new();
        for placed in newest {
            if placed.previous != at {
                floor = placed.id.predecessor();
                tail.clear();
            }
            match &placed.entry {
                Some(entry) => tail.push((placed.id, entry.clone())),
                None => {
                    floor = placed.id;
                    tail.clear();
                }
            }
            at = placed.id;
        }
        (self.load(floor, tail), at)
    }

    /// Returns at most `count` entries up to `upto` that follow each other without a break, the
    /// position before them, and whether no earlier entry can follow.
    pub(super) fn before(
        &self,
        upto: EventId,
        after: EventId,
        count: usize,
    ) -> (VecDeque<(EventId, Bytes)>, EventId, bool) {
        let (mut found, mut floor) = (VecDeque::new(), upto);
        let known = self.entries.partition_point(|placed| placed.id <= upto);
        let mut older = self.entries[..known].iter().rev();
        while floor > after && found.len() < count {
            match older.next() {
                Some(Placed { id, previous, entry: Some(entry) }) if *id == floor => {
                    found.push_front((*id, entry.clone()));
                    floor = *previous;
                }
                _ => return (found, floor, true),
            }
        }
        (found, floor, false)
    }
}
