//! The events of several keys in a sequence, by their ids.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{Entry, Listed};
use super::run_log::RunLog;
use crate::wire::id::EventId;

/// The retained events of one key, in id order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Events<'a> {
    Key(&'a Listed),
    Run(&'a RunLog),
}

impl Events<'_> {
    /// Returns the first event after a position: its index, and its id.
    fn seek(self, after: EventId) -> Option<(usize, EventId)> {
        match self {
            Self::Key(entries) => {
                let at = entries.partition_point(|&(id, _)| id <= after);
                Some((at, entries.get(at)?.0))
            }
            Self::Run(run) => run.seek(after),
        }
    }

    /// Returns the first event after a position that lies in the element at this index.
    fn seek_from(self, at: usize, after: EventId) -> Option<(usize, EventId)> {
        match self {
            Self::Key(entries) => Some((at + 1, entries.get(at + 1)?.0)),
            Self::Run(run) => run.seek_from(at, after),
        }
    }
}

/// Returns the events of several keys after a position, each once, with the id of its first event:
/// the text of a run has several, and carries the id of the last.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    lists: SmallVec<[Events<'a>; 8]>,
    next: BinaryHeap<Reverse<(EventId, usize, usize)>>,
    newest: EventId,
    upto: EventId,
    /// How many elements of the lists may still be looked at.
    left: usize,
}

impl<'a> Merge<'a> {
    /// `lists`: the events of each key, with the position after which the reader holds the key. The
    /// events after `upto` are not returned.
    pub(super) fn new(
        lists: impl IntoIterator<Item = (Events<'a>, EventId)>,
        after: EventId,
        upto: EventId,
    ) -> Self {
        let (lists_of, next) = (SmallVec::new(), BinaryHeap::new());
        let mut merge = Self { lists: lists_of, next, newest: after, upto, left: usize::MAX };
        for (events, since) in lists {
            if let Some((at, id)) = events.seek(after.max(since)) {
                merge.next.push(Reverse((id, merge.lists.len(), at)));
                merge.lists.push(events);
            }
        }
        merge
    }

    /// Sets how many elements of the lists are looked at. An event under several keys is an element
    /// of each list.
    pub(super) fn at_most(mut self, elements: usize) -> Self {
        self.left = elements;
        self
    }

    /// The position up to which every event was returned.
    pub(super) fn newest(&self) -> EventId {
        self.newest
    }

    /// After the last event: the position up to which every event was returned, if there are more.
    pub(super) fn rest(&self) -> Option<EventId> {
        let Reverse((id, ..)) = self.next.peek()?;
        (*id <= self.upto).then_some(self.newest)
    }
}

impl Iterator for Merge<'_> {
    type Item = (EventId, Arc<Entry>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let &Reverse((id, list, at)) = self.next.peek()?;
            if id > self.upto {
                // All others are newer.
                return None;
            }
            self.left = self.left.checked_sub(1)?;
            self.next.pop();
            let events = self.lists[list];
            let entry = match events {
                Events::Key(entries) => Arc::clone(&entries[at].1),
                Events::Run(run) => {
                    // A text ends before the next event of another key.
                    let other = self.next.peek().map(|Reverse((other, ..))| other.predecessor());
                    let upto = other.map_or(self.upto, |other| other.min(self.upto));
                    run.take(at, id.predecessor(), upto.max(id))
                }
            };
            if let Some((at, id)) = events.seek_from(at, entry.id) {
                self.next.push(Reverse((id, list, at)));
            }
            // An event under two keys of the reader is in both lists.
            if id > self.newest {
                self.newest = entry.id;
                return Some((id, entry));
            }
        }
    }
}

/// Returns the events of several keys before a position, each once, the newest first.
#[derive(Debug)]
pub(super) struct Backward<'a> {
    lists: SmallVec<[(&'a Listed, EventId); 8]>,
    next: BinaryHeap<(EventId, usize, usize)>,
    oldest: EventId,
    /// How many elements of the lists may still be looked at.
    left: usize,
}

impl<'a> Backward<'a> {
    /// `lists`: the events of each key, with the position after which the reader holds the key.
    pub(super) fn new(lists: SmallVec<[(&'a Listed, EventId); 8]>, before: EventId) -> Self {
        let last = lists.iter().enumerate().filter_map(|(list, &(entries, since))| {
            let at = entries.partition_point(|&(id, _)| id < before).checked_sub(1)?;
            let (id, _) = entries[at];
            (id > since).then_some((id, list, at))
        });
        let next = last.collect();
        Self { lists, next, oldest: before, left: usize::MAX }
    }

    /// Sets how many elements of the lists are looked at. An event under several keys is an element
    /// of each list.
    pub(super) fn at_most(mut self, elements: usize) -> Self {
        self.left = elements;
        self
    }

    /// After the last event: the position of the oldest returned event, if there are more.
    pub(super) fn rest(&self) -> Option<EventId> {
        self.next.peek().map(|_| self.oldest)
    }
}

impl<'a> Iterator for Backward<'a> {
    type Item = &'a Arc<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let &(id, list, at) = self.next.peek()?;
            self.left = self.left.checked_sub(1)?;
            self.next.pop();
            let (entries, since) = self.lists[list];
            if let Some(at) = at.checked_sub(1)
                && let (older, _) = entries[at]
                && older > since
            {
                self.next.push((older, list, at));
            }
            // An event under two keys of the reader is in both lists.
            if id < self.oldest {
                self.oldest = id;
                return Some(&entries[at].1);
            }
        }
    }
}
