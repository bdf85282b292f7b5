//! The ids that Redis gave to the sender of an instance, and that the reader of the instance has
//! not met yet.
//!
//! If Redis goes back to an older state, Redis can lose events that no instance has read. The links
//! of the stream do not show that: the next event follows the last event that is left. But the
//! instance that published the events knows their ids, and reads the stream in order.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::EventId;

/// The most ids. An instance whose reader is that far behind its sender forgets later ids.
const MOST: usize = 1 << 12;

/// The newest id of each answer to the sender that the reader has not met.
#[derive(Default)]
pub(crate) struct Owed(Mutex<State>);

#[derive(Default)]
struct State {
    /// The newest position of the reader.
    read_up_to: EventId,
    /// In increasing order, all greater than `read_up_to`.
    ids: VecDeque<EventId>,
}

impl Owed {
    /// Redis has answered that an event has this id.
    pub(crate) fn add(&self, id: EventId) {
        let mut state = self.0.lock();
        let newest = state.ids.back().map_or(state.read_up_to, |&last| last.max(state.read_up_to));
        if id > newest && state.ids.len() < MOST {
            state.ids.push_back(id);
        }
    }

    /// Returns whether the stream lacks an event between an entry and the entry that the link
    /// names: the stream has lost the event. Earlier events may have been trimmed.
    pub(crate) fn is_lacking_between(&self, previous: EventId, entry: EventId) -> bool {
        let state = self.0.lock();
        let next = state.ids.partition_point(|&id| id <= previous);
        state.ids.get(next).is_some_and(|&id| id < entry)
    }

    /// The hub has all events up to this position, or a gap.
    pub(crate) fn pass(&self, position: EventId) {
        let mut state = self.0.lock();
        state.read_up_to = state.read_up_to.max(position);
        let passed = state.ids.partition_point(|&id| id <= position);
        state.ids.drain(..passed);
    }

    /// Returns the newest id.
    pub(crate) fn newest(&self) -> Option<EventId> {
        self.0.lock().ids.back().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> EventId {
        EventId::new(position, 0)
    }

    #[test]
    fn ids_between_two_links_are_lacking() {
        let owed = Owed::default();
        // The reader may be ahead of the answer.
        owed.pass(at(3));
        owed.add(at(2));
        owed.add(at(3));
        assert_eq!(owed.newest(), None);
        owed.add(at(5));
        owed.add(at(7));
        assert_eq!(owed.newest(), Some(at(7)));
        for id in 4..=5 {
            assert!(!owed.is_lacking_between(at(id - 1), at(id)));
            owed.pass(at(id));
        }
        assert!(owed.is_lacking_between(at(5), at(8)), "the stream lacks the event with the id 7");
        assert!(!owed.is_lacking_between(at(7), at(8)), "the event may have been trimmed");
        owed.pass(at(7));
        assert!(!owed.is_lacking_between(at(5), at(8)), "the reader has reported a gap");
    }

    #[test]
    fn ids_are_bounded() {
        let owed = Owed::default();
        (1..=2 * MOST as u64).for_each(|position| owed.add(at(position)));
        assert_eq!(owed.newest(), Some(at(MOST as u64)));
    }
}
