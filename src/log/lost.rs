use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::audience::{Filter, Key, dispatched_as};
use crate::wire::id::EventId;

/// What has left the log, remembered well enough to say whether a client missed something.
///
/// For each key, and for each type within a key, the newest event that was evicted. That answers exactly, for any
/// position and any filter, in a few dozen bytes for each name. Names come from outside, so the memory is bounded:
/// past the bound the older half is forgotten, and positions before it are answered with a gap to be safe.
#[derive(Debug)]
pub(crate) struct Lost {
    marker: Marker,
    newest: HashMap<u64, EventId, BuildHasherDefault<Marked>>,
    capacity: usize,
    /// Positions before this one can no longer be answered, or never could.
    floor: EventId,
}

/// What an event leaves behind: the names it was for and its type, as hashes.
///
/// They are computed before the lock is taken. Two of them collide once in 2^64, and then a client sees a gap that
/// was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    key: u64,
    event_type: u64,
}

impl Mark {
    fn any_type(self) -> u64 {
        self.key
    }

    fn this_type(self) -> u64 {
        // Odd, so that it is a permutation; the key's own row keeps its hash.
        self.key.wrapping_add(self.event_type | 1)
    }
}

/// Makes marks. Its clones make the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marker(RandomState);

impl Marker {
    pub(crate) fn mark(&self, key: &Key, event_type: &[u8]) -> Mark {
        Mark { key: self.0.hash_one(key), event_type: self.0.hash_one(dispatched_as(event_type)) }
    }
}

impl Lost {
    /// `birth`: the position before the first event that this log can have held.
    pub(crate) fn new(marker: Marker, capacity: usize, birth: EventId) -> Self {
        Self { marker, newest: HashMap::default(), capacity, floor: birth }
    }

    /// An event with this mark has left the log.
    pub(crate) fn record(&mut self, mark: Mark, id: EventId) {
        for row in [mark.any_type(), mark.this_type()] {
            let newest = self.newest.entry(row).or_insert(id);
            *newest = id.max(*newest);
        }
        if self.newest.len() > self.capacity {
            self.forget_older_half();
        }
    }

    /// The newest event after `after` that a client with these keys and filter can no longer get, if there is one.
    pub(crate) fn since(&self, after: EventId, keys: &[Key], filter: &Filter) -> Option<EventId> {
        let unknown = (after < self.floor).then_some(self.floor);
        let row = |row: u64| self.newest.get(&row).copied().filter(|&id| id > after);
        let known = keys.iter().filter_map(|key| match filter {
            Filter::Everything => row(self.marker.mark(key, b"").any_type()),
            Filter::Types(types) => {
                let row_of = |name: &str| row(self.marker.mark(key, name.as_bytes()).this_type());
                types.iter().filter_map(|name| row_of(name)).max()
            }
        });
        known.max().max(unknown)
    }

    fn forget_older_half(&mut self) {
        let mut ids: Vec<EventId> = self.newest.values().copied().collect();
        let middle = ids.len() / 2;
        let (_, &mut floor, _) = ids.select_nth_unstable(middle);
        self.floor = self.floor.max(floor);
        self.newest.retain(|_, id| *id > floor);
    }
}

/// The keys of the map are hashes already.
#[derive(Debug, Default)]
struct Marked(u64);

impl Hasher for Marked {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached: the only keys are `u64`.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIRTH: EventId = EventId(5, 0);

    fn user(name: usize) -> Key {
        Key::User(name.to_string().into())
    }

    #[test]
    fn only_what_was_for_the_client_is_lost_to_it() {
        let marker = Marker::default();
        let mut lost = Lost::new(marker.clone(), 100, BIRTH);
        lost.record(marker.mark(&user(1), b"news"), EventId(5, 7));
        let types = |name: &str| Filter::Types([name.into()].into());
        let everything = Filter::Everything;
        assert_eq!(lost.since(EventId(5, 6), &[user(1)], &everything), Some(EventId(5, 7)));
        assert_eq!(lost.since(EventId(5, 7), &[user(1)], &everything), None);
        assert_eq!(lost.since(BIRTH, &[user(2)], &everything), None);
        assert_eq!(lost.since(BIRTH, &[user(1)], &types("news")), Some(EventId(5, 7)));
        assert_eq!(lost.since(BIRTH, &[user(1)], &types("other")), None);
        assert_eq!(
            lost.since(EventId(4, 9), &[user(2)], &everything),
            Some(BIRTH),
            "an earlier life"
        );
    }

    #[test]
    fn names_without_end_take_bounded_memory_and_never_hide_a_loss() {
        const CAPACITY: usize = 100;
        let marker = Marker::default();
        let mut lost = Lost::new(marker.clone(), CAPACITY, BIRTH);
        for count in 1..=10_000 {
            lost.record(marker.mark(&user(count), b"news"), EventId(5, count as u64));
            assert!(lost.newest.len() <= CAPACITY);
        }
        for count in 1..=10_000 {
            let before = EventId(5, count as u64 - 1);
            let since = lost.since(before, &[user(count)], &Filter::Everything);
            assert!(since >= Some(EventId(5, count as u64)), "user {count} was told of no gap");
        }
        let newest = EventId(5, 10_000);
        assert_eq!(lost.since(newest, &[user(1)], &Filter::Everything), None);
    }
}
