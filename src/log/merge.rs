//! The events of several keys in the order of their ids.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

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

/// Returns the events of several keys after a position, each once.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    lists: Vec<Events<'a>>,
    next: BinaryHeap<Reverse<(EventId, usize, usize)>>,
    newest: EventId,
    upto: EventId,
}

impl<'a> Merge<'a> {
    /// `lists`: the events of each key, with the position after which the reader holds the key. The
    /// events after `upto` are not returned.
    pub(super) fn new(
        lists: impl IntoIterator<Item = (Events<'a>, EventId)>,
        after: EventId,
        upto: EventId,
    ) -> Self {
        let mut merge = Self { lists: Vec::new(), next: BinaryHeap::new(), newest: after, upto };
        for (events, since) in lists {
            if let Some((at, id)) = events.seek(after.max(since)) {
                merge.next.push(Reverse((id, merge.lists.len(), at)));
                merge.lists.push(events);
            }
        }
        merge
    }

    /// The position up to which every event was returned.
    pub(super) fn newest(&self) -> EventId {
        self.newest
    }
}

impl Iterator for Merge<'_> {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        loop {
            let Reverse((id, list, at)) = self.next.pop()?;
            if id > self.upto {
                // All others are newer.
                self.next.clear();
                return None;
            }
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
                return Some(entry);
            }
        }
    }
}
