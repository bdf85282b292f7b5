//! The end of the stream, read backwards: an instance starts with it.

use super::entry::{Content, Entry};
use crate::EventId;
use crate::backplane::{Incoming, Kind};

/// The position of a reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    /// The last entry of the stream that is read.
    pub(crate) cursor: EventId,
    /// The last of them that a hub wrote: the next link must name this position.
    pub(crate) chain: EventId,
}

/// Collects entries until there are as many events as the hub retains.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The newest first.
    entries: Vec<Kept>,
    /// How many events, and how many bytes of events and commands, there is room for.
    events: usize,
    bytes: usize,
    /// Older events are not retained. In milliseconds since 1970.
    oldest: u64,
    /// A greater time is not of a hub's clock. In milliseconds since 1970.
    horizon: u64,
    is_full: bool,
}

#[derive(Debug)]
struct Kept {
    id: EventId,
    link: Option<Link>,
}

#[derive(Debug)]
enum Link {
    Event(EventId, Incoming),
    Command(EventId, Incoming),
    /// Adjacent parts of runs: the position before the first part, and the newest part if no other
    /// entry follows.
    Run(EventId, Option<Incoming>),
    Reset(EventId),
}

/// What an instance starts with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) position: Position,
    /// Nothing is missing between this position and the first entry.
    pub(crate) floor: EventId,
    /// The events and the commands.
    pub(crate) entries: Vec<(EventId, Incoming)>,
}

impl Tail {
    pub(crate) fn new(events: usize, bytes: usize, oldest: u64, horizon: u64) -> Self {
        Self { entries: Vec::new(), events, bytes, oldest, horizon, is_full: events == 0 }
    }

    pub(crate) fn wants_more(&self) -> bool {
        !self.is_full
    }

    /// Returns how many bytes of events there is room for.
    pub(crate) fn room(&self) -> usize {
        self.bytes
    }

    /// Adds older entries, the newest of them first. Returns the position of the oldest, if any.
    pub(crate) fn extend(&mut self, entries: Vec<Entry>) -> Option<EventId> {
        let oldest = entries.last()?.id;
        for Entry { id, content } in entries {
            if id.epoch() > self.horizon {
                continue;
            }
            let link = match content {
                Content::Link { previous, bytes } => match Incoming::parse(&bytes) {
                    Ok(event) if event.kind() == Kind::Event => {
                        let fits = self.events > 0 && bytes.len() <= self.bytes;
                        if !fits || id.epoch() < self.oldest {
                            self.is_full = true;
                            break;
                        }
                        self.events -= 1;
                        self.bytes -= bytes.len();
                        Some(Link::Event(previous, event))
                    }
                    Ok(part) if part.kind() == Kind::Run => {
                        if id.epoch() < self.oldest {
                            self.is_full = true;
                            break;
                        }
                        // The copy of the run has the part: only the chain needs the entry.
                        if let Some(Kept { link: Some(Link::Run(newer, _)), .. }) =
                            self.entries.last_mut()
                            && *newer == id
                        {
                            *newer = previous;
                            continue;
                        }
                        // The tail must end where the reader goes on.
                        let is_newest = self.entries.iter().all(|kept| kept.link.is_none());
                        Some(Link::Run(previous, is_newest.then_some(part)))
                    }
                    Ok(command) => {
                        // Otherwise the tail could be larger than the hub's log.
                        if bytes.len() > self.bytes {
                            self.is_full = true;
                            break;
                        }
                        self.bytes -= bytes.len();
                        Some(Link::Command(previous, command))
                    }
                    Err(_) => None,
                },
                Content::Reset { previous } => Some(Link::Reset(previous)),
                Content::Malformed => None,
            };
            // Of the malformed entries only the newest matters: it says where to read on.
            if link.is_some() || self.entries.is_empty() {
                self.entries.push(Kept { id, link });
            }
        }
        Some(oldest)
    }

    /// Returns the start. `last` is the newest position, as found before the entries.
    pub(crate) fn finish(self, last: EventId) -> Start {
        let cursor = self.entries.first().map_or(last, |newest| newest.id.max(last));
        let mut position = Position { cursor, chain: EventId::default() };
        let mut floor = None;
        let mut entries = Vec::new();
        for Kept { id, link } in self.entries.into_iter().rev() {
            let Some(link) = link else { continue };
            let (Link::Event(previous, _)
            | Link::Command(previous, _)
            | Link::Run(previous, _)
            | Link::Reset(previous)) = link;
            if floor.is_none() {
                floor = Some(previous);
            } else if previous != position.chain {
                // The chain is broken: earlier entries are gone.
                floor = Some(id.predecessor());
                entries.clear();
            }
            match link {
                Link::Event(_, entry) | Link::Command(_, entry) => entries.push((id, entry)),
                Link::Run(_, newest) => entries.extend(newest.map(|entry| (id, entry))),
                Link::Reset(_) => {
                    floor = Some(id);
                    entries.clear();
                }
            }
            position.chain = id;
        }
        if position.chain < last {
            // Entries up to `last` are gone.
            (floor, position.chain) = (Some(last), last);
            entries.clear();
        }
        Start { position, floor: floor.unwrap_or(last), entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::store::entry::made::{at, command, event, link, malformed, reset};

    const HORIZON: u64 = 100;

    /// Cursor, chain, floor and events.
    fn finish(
        entries: Vec<Entry>,
        last: u64,
        events: usize,
    ) -> (EventId, EventId, EventId, Vec<u64>) {
        let mut tail = Tail::new(events, 1_000, 2, HORIZON);
        tail.extend(entries.into_iter().rev().collect());
        let Start { position, floor, entries } = tail.finish(at(last));
        (
            position.cursor,
            position.chain,
            floor,
            entries
                .into_iter()
                .filter(|(_, entry)| entry.kind() == Kind::Event)
                .map(|(id, _)| id.epoch())
                .collect(),
        )
    }

    #[test]
    fn tail_begins_after_the_predecessor_of_its_first_event() {
        let chain = || vec![event(5, 4), malformed(6), event(7, 5), event(9, 7)];
        assert_eq!(finish(chain(), 9, 9), (at(9), at(9), at(4), vec![5, 7, 9]));
        assert_eq!(finish(chain(), 9, 2), (at(9), at(9), at(5), vec![7, 9]));
        assert_eq!(finish(vec![], 9, 9), (at(9), at(9), at(9), vec![]));
        assert_eq!(finish(chain(), 7, 9).3, [5, 7, 9], "written after `last` was read");
        let malformed_last = vec![event(5, 4), malformed(6)];
        assert_eq!(finish(malformed_last, 5, 9), (at(6), at(5), at(4), vec![5]));
    }

    #[test]
    fn commands_are_links_and_no_events() {
        let chain = || vec![event(5, 4), command(6, 5), command(7, 6), event(8, 7), command(9, 8)];
        assert_eq!(finish(chain(), 9, 9), (at(9), at(9), at(4), vec![5, 8]));
        assert_eq!(finish(chain(), 9, 2), (at(9), at(9), at(4), vec![5, 8]));
        assert_eq!(finish(chain(), 9, 1), (at(9), at(9), at(5), vec![8]));
        let only = vec![command(6, 5)];
        assert_eq!(finish(only, 6, 9), (at(6), at(6), at(5), vec![]));
    }

    #[test]
    fn parts_of_runs_are_links_and_take_no_room() {
        let part = |position, previous| link(position, previous, b"\x02\x09\x01\0\0\0a\x01\0\0\0u");
        let chain =
            || vec![event(4, 3), part(5, 4), part(6, 5), event(7, 6), part(8, 7), part(9, 8)];
        assert_eq!(finish(chain(), 9, 9), (at(9), at(9), at(3), vec![4, 7]));
        assert_eq!(finish(chain(), 9, 1), (at(9), at(9), at(4), vec![7]));
        let mut tail = Tail::new(1, 11, 2, HORIZON);
        tail.extend(chain().into_iter().rev().collect());
        let Start { floor, entries, .. } = tail.finish(at(9));
        let ids: Vec<_> = entries.iter().map(|(id, _)| *id).collect();
        assert_eq!((floor, ids), (at(4), vec![at(7), at(9)]), "the tail ends at the newest entry");
        // The chain is broken before, between and after parts.
        let broken = vec![event(4, 3), part(6, 5), event(7, 6)];
        assert_eq!(finish(broken, 7, 9), (at(7), at(7), at(6).predecessor(), vec![7]));
        let broken = vec![event(4, 3), part(5, 4), part(7, 6), event(8, 7)];
        assert_eq!(finish(broken, 8, 9), (at(8), at(8), at(7).predecessor(), vec![8]));
        let broken = vec![part(5, 4), event(7, 6)];
        assert_eq!(finish(broken, 7, 9), (at(7), at(7), at(7).predecessor(), vec![7]));
        // Earlier events are too old.
        let old = vec![event(1, 0), part(1, 0), event(5, 1)];
        assert_eq!(finish(old, 5, 9), (at(5), at(5), at(1), vec![5]));
    }

    #[test]
    fn commands_take_the_room_of_events() {
        let mut tail = Tail::new(9, 20, 2, HORIZON);
        // 11 bytes, and 8 bytes each.
        tail.extend(vec![event(9, 8), command(8, 7), command(7, 6)]);
        assert!(!tail.wants_more());
        let Start { floor, entries, .. } = tail.finish(at(9));
        assert_eq!((floor, entries.len()), (at(7), 2));
    }

    #[test]
    fn entries_before_a_break_are_left_out() {
        let broken = vec![event(5, 4), event(7, 6), event(8, 7)];
        assert_eq!(finish(broken, 8, 9), (at(8), at(8), at(7).predecessor(), vec![7, 8]));
        let after_reset = vec![event(5, 4), reset(7, 5), event(8, 7)];
        assert_eq!(finish(after_reset, 8, 9), (at(8), at(8), at(7), vec![8]));
        let gone = vec![event(5, 4)];
        assert_eq!(finish(gone, 8, 9), (at(8), at(8), at(8), vec![]));
        let too_old = vec![event(1, 0), event(5, 1)];
        assert_eq!(finish(too_old, 5, 9), (at(5), at(5), at(1), vec![5]));
    }

    #[test]
    fn entries_beyond_the_horizon_do_not_move_the_cursor() {
        let far = vec![event(5, 4), event(HORIZON + 1, 5), malformed(HORIZON + 2)];
        assert_eq!(finish(far, 5, 9), (at(5), at(5), at(4), vec![5]));
        assert_eq!(finish(vec![malformed(HORIZON + 2)], 5, 9).0, at(5));
    }
}
