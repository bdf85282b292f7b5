//! The end of the stream, read backwards: what a hub begins with.

use super::entry::{Content, Entry, is_event};
use crate::wire::id::EventId;

/// Where a reader stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The stream's entries up to here were read.
    pub(crate) cursor: EventId,
    /// The last of those that a hub wrote: the next names it as the one before.
    pub(crate) chain: EventId,
}

/// Collects entries until there are as many as the hub retains.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The newest first.
    entries: Vec<Entry>,
    events: usize,
    bytes: usize,
    /// In milliseconds since 1970.
    oldest: u64,
    is_full: bool,
}

impl Tail {
    /// At most so many events, and about so many bytes of them, and none from before `oldest`.
    pub(crate) fn new(events: usize, bytes: usize, oldest: u64) -> Self {
        Self { entries: Vec::new(), events, bytes, oldest, is_full: events == 0 }
    }

    pub(crate) fn wants_more(&self) -> bool {
        !self.is_full
    }

    /// Adds older entries, the newest of them first. Returns the oldest, if there are any.
    pub(crate) fn extend(&mut self, entries: Vec<Entry>) -> Option<EventId> {
        let oldest = entries.last()?.id;
        for mut entry in entries {
            if let Content::Event { event, .. } | Content::Command { event, .. } = &entry.content
                && !is_event(event)
            {
                entry.content = Content::Garbage;
            }
            if let Content::Command { event, .. } = &mut entry.content {
                // For whoever was there then: only its place counts.
                *event = Vec::new();
            }
            if let Content::Event { event, .. } = &entry.content {
                let fits = self.events > 0 && event.len() <= self.bytes;
                if self.is_full || !fits || entry.id.0 < self.oldest {
                    self.is_full = true;
                    break;
                }
                self.events -= 1;
                self.bytes -= event.len();
            }
            // Of garbage only the newest says something: where to go on.
            if entry.content != Content::Garbage || self.entries.is_empty() {
                self.entries.push(entry);
            }
        }
        Some(oldest)
    }

    /// What to load, and where to go on. `last`: the newest position, as it was asked before.
    pub(crate) fn finish(self, last: EventId) -> (Place, EventId, Vec<(EventId, Vec<u8>)>) {
        let cursor = self.entries.first().map_or(last, |newest| newest.id.max(last));
        let mut place = Place { cursor, chain: EventId::ORIGIN };
        let mut floor = None;
        let mut events = Vec::new();
        for Entry { id, content } in self.entries.into_iter().rev() {
            let (Content::Event { previous, .. }
            | Content::Command { previous, .. }
            | Content::Mark { previous, .. }) = content
            else {
                continue;
            };
            if floor.is_none() {
                floor = Some(previous);
            } else if previous != place.chain {
                floor = Some(id.before());
                events.clear();
            }
            match content {
                Content::Event { event, .. } => events.push((id, event)),
                Content::Mark { .. } => {
                    floor = Some(id);
                    events.clear();
                }
                Content::Command { .. } | Content::Garbage => {}
            }
            place.chain = id;
        }
        if place.chain < last {
            // Something was written that is gone.
            (floor, place.chain) = (Some(last), last);
            events.clear();
        }
        (place, floor.unwrap_or(last), events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::store::entry::made::{at, command, event, garbage, mark};

    /// Cursor, chain, floor and events.
    fn finish(
        entries: Vec<Entry>,
        last: u64,
        events: usize,
    ) -> (EventId, EventId, EventId, Vec<u64>) {
        let mut tail = Tail::new(events, 1_000, 2);
        tail.extend(entries.into_iter().rev().collect());
        let (place, floor, events) = tail.finish(at(last));
        (place.cursor, place.chain, floor, events.into_iter().map(|(id, _)| id.0).collect())
    }

    #[test]
    fn a_tail_begins_after_what_its_first_event_names() {
        let chain = || vec![event(5, 4), garbage(6), event(7, 5), event(9, 7)];
        assert_eq!(finish(chain(), 9, 9), (at(9), at(9), at(4), vec![5, 7, 9]));
        assert_eq!(finish(chain(), 9, 2), (at(9), at(9), at(5), vec![7, 9]));
        assert_eq!(finish(vec![], 9, 9), (at(9), at(9), at(9), vec![]));
        assert_eq!(finish(chain(), 7, 9).3, [5, 7, 9], "written since the position was asked");
        let garbage_last = vec![event(5, 4), garbage(6)];
        assert_eq!(finish(garbage_last, 5, 9), (at(6), at(5), at(4), vec![5]));
    }

    #[test]
    fn what_was_done_to_clients_is_a_link_and_counts_for_nothing() {
        let chain = || vec![event(5, 4), command(6, 5), command(7, 6), event(8, 7), command(9, 8)];
        assert_eq!(finish(chain(), 9, 9), (at(9), at(9), at(4), vec![5, 8]));
        assert_eq!(finish(chain(), 9, 2), (at(9), at(9), at(4), vec![5, 8]));
        assert_eq!(finish(chain(), 9, 1), (at(9), at(9), at(5), vec![8]));
        let only = vec![command(6, 5)];
        assert_eq!(finish(only, 6, 9), (at(6), at(6), at(5), vec![]));
    }

    #[test]
    fn what_comes_before_a_break_is_left() {
        let broken = vec![event(5, 4), event(7, 6), event(8, 7)];
        assert_eq!(finish(broken, 8, 9), (at(8), at(8), at(7).before(), vec![7, 8]));
        let marked = vec![event(5, 4), mark(7, 5), event(8, 7)];
        assert_eq!(finish(marked, 8, 9), (at(8), at(8), at(7), vec![8]));
        let gone = vec![event(5, 4)];
        assert_eq!(finish(gone, 8, 9), (at(8), at(8), at(8), vec![]));
        let too_old = vec![event(1, 0), event(5, 1)];
        assert_eq!(finish(too_old, 5, 9), (at(5), at(5), at(1), vec![5]));
    }
}
