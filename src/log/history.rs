//! Older events, brought back to the log for a while.
//!
//! The log of a hub with a backplane can be made longer at its old end: what it let go of, or never had, is put back in
//! its place, so that whoever wants it reads it as it reads everything. Meanwhile the log keeps more than its retention,
//! by an allowance, and neither limits topics nor looks at the age of events: what is read is not to be pulled away.

use std::sync::Arc;

use super::log::{Entry, Log, Retain};
use crate::log::audience::Key;
use crate::wire::id::EventId;

/// What may be kept beyond the retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// The log keeps more than its retention.
#[derive(Debug)]
pub(super) struct Raised {
    by: Allowance,
    /// From where on the log was whole before.
    base: EventId,
    /// Something did not fit.
    full: bool,
}

impl Log {
    /// What limits the log now.
    pub(super) fn limit(&self) -> Retain {
        let Some(Raised { by, .. }) = &self.raised else { return self.retain };
        let mut limit = self.retain;
        limit.events = limit.events.saturating_add(by.events);
        limit.bytes = limit.bytes.saturating_add(by.bytes);
        (limit.per_topic, limit.age) = (None, None);
        limit
    }

    /// The position after which nothing is lost to anybody.
    pub(crate) fn whole_from(&self) -> EventId {
        self.lost.whole_from()
    }

    /// Keeps more than its retention from now on.
    pub(crate) fn raise(&mut self, by: Allowance) {
        let base = self.whole_from();
        self.raised.get_or_insert(Raised { by, base, full: false });
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.is_some()
    }

    /// How many events more it would hold, raised by so much.
    pub(crate) fn room(&self, by: Allowance) -> usize {
        let limit = self.retain.events.saturating_add(by.events);
        match &self.raised {
            Some(raised) if raised.full => 0,
            _ => limit.saturating_sub(self.len()),
        }
    }

    /// Whether whoever reads after this position reads what the retention alone would not keep.
    pub(crate) fn reaches_back(&self, after: EventId) -> bool {
        let Some(Raised { base, .. }) = &self.raised else { return false };
        let usual = self.order.len().checked_sub(self.retain.events);
        let usual = usual.and_then(|at| self.order.get(at)).map(|&(id, _)| id);
        after < usual.map_or(*base, |usual| usual.max(*base))
    }

    /// Nothing was lost after this position that is not here.
    pub(crate) fn reach_back(&mut self, position: EventId) {
        self.lost.restore(position);
    }

    /// Puts back the newest event of those that are lost; `previous` is the position of the one before it in the order.
    /// `false` if there is no room.
    ///
    /// One that is there all the same, between others that a topic's limit pushed out, stays. One that has a later
    /// value stays out, as if it had been here.
    pub(crate) fn restore(&mut self, entry: Arc<Entry>, previous: EventId) -> bool {
        let at = self.order.binary_search_by_key(&entry.id, |&(id, _)| id);
        let is_there = at.is_ok_and(|at| self.order[at].1.is_some());
        let is_outdated =
            entry.conflation.as_ref().is_some_and(|key| self.latest.contains_key(key));
        if is_there || is_outdated {
            self.lost.restore(previous);
            return true;
        }
        let limit = self.limit();
        let bytes = self.bytes + entry.weight();
        if self.len() >= limit.events || bytes > limit.bytes {
            if let Some(raised) = &mut self.raised {
                raised.full = true;
            }
            return false;
        }
        if let Some(conflation) = &entry.conflation {
            self.latest.insert(Arc::clone(conflation), entry.id);
        }
        self.bytes = bytes;
        for key in entry.keys() {
            let entries = self.index.entry(key.clone()).or_default();
            let at = entries.partition_point(|other| other.id < entry.id);
            entries.insert(at, Arc::clone(&entry));
        }
        self.lost.restore(previous);
        match at {
            Ok(hole) => {
                self.order[hole].1 = Some(entry);
                self.holes -= 1;
            }
            Err(at) => self.order.insert(at, (entry.id, Some(entry))),
        }
        true
    }

    /// Goes back to its retention, and lets go of so many events for it at most: to be called again while it
    /// [is raised](Self::is_raised).
    pub(crate) fn lower(&mut self, most: usize, evicted: &mut Vec<Arc<Entry>>) {
        for _ in 0..most {
            if self.len() <= self.retain.events && self.bytes <= self.retain.bytes {
                self.raised = None;
                self.limit_topics(evicted);
                return;
            }
            self.evict_oldest(evicted);
        }
    }

    fn limit_topics(&mut self, evicted: &mut Vec<Arc<Entry>>) {
        let Some(limit) = self.retain.per_topic else { return };
        let topics = self.index.iter().filter(|(key, _)| matches!(key, Key::Topic(_)));
        let surplus = topics.flat_map(|(_, entries)| {
            entries.iter().take(entries.len().saturating_sub(limit)).map(|entry| entry.id)
        });
        for id in surplus.collect::<Vec<_>>() {
            self.evict(id, evicted);
        }
    }
}
