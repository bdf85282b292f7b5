//! Reading the log for a reader that is not a client: a piece at a time.
//!
//! A reader can be interested in few of the events under its keys, so a read of one piece ends after
//! a number of events that it looked at. The caller releases the lock between two pieces.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::entry::Entry;
use super::identity::{Filter, Identity};
use super::log::Log;
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
    let lists = log.lists(reader);
    let all = lists.iter().enumerate();
    let first = all.filter_map(|(list, &(entries, since))| {
        let at = entries.partition_point(|entry| entry.id <= after.max(since));
        entries.get(at).map(|entry| Reverse((entry.id, list, at)))
    });
    let mut next: BinaryHeap<_> = first.collect();
    let (mut newest, mut looked_at) = (after, 0);
    while let Some(Reverse((id, list, at))) = next.pop() {
        if out.len() >= most {
            return None;
        }
        if looked_at == LOOKED_AT {
            return Some(newest);
        }
        looked_at += 1;
        let (entries, _) = lists[list];
        // An event under two keys of the reader is in both lists.
        if id > newest {
            newest = id;
            if entries[at].is_for(reader) {
                out.push(Arc::clone(&entries[at]));
            }
        }
        if let Some(following) = entries.get(at + 1) {
            next.push(Reverse((following.id, list, at + 1)));
        }
    }
    None
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
    let lists = log.lists(reader);
    let all = lists.iter().enumerate();
    let last = all.filter_map(|(list, &(entries, _))| {
        let at = entries.partition_point(|entry| entry.id < before).checked_sub(1)?;
        Some((entries[at].id, list, at))
    });
    let mut next: BinaryHeap<_> = last.collect();
    let (mut oldest, mut looked_at) = (before, 0);
    while let Some((id, list, at)) = next.pop() {
        if out.len() >= most {
            return None;
        }
        if looked_at == LOOKED_AT {
            return Some(oldest);
        }
        looked_at += 1;
        let (entries, since) = lists[list];
        if id < oldest {
            oldest = id;
            if id > since && entries[at].is_for(reader) {
                out.push(Arc::clone(&entries[at]));
            }
        }
        if let Some(at) = at.checked_sub(1) {
            next.push((entries[at].id, list, at));
        }
    }
    None
}

/// The same for the events that a filter admits, whatever their audience.
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
