use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use smallvec::SmallVec;

use super::audience::{Audience, Filter, Identity, Key, dispatched_as};
use crate::wire::id::EventId;

/// How many of the events that were lost to combined audiences are remembered with those.
const COMBINED: usize = 256;

/// How many names those may have together.
const COMBINED_NAMES: usize = 16 * COMBINED;

/// What has left the log, remembered well enough to say whether a client missed something.
///
/// For each key, and for each type within a key, the newest event that was evicted. That answers exactly, for any
/// position and any filter, in a few dozen bytes for each name. Names come from outside, so the memory is bounded:
/// past the bound the older half is forgotten, and positions before it are answered with a gap to be safe.
///
/// Not everybody who holds a key of an `and` or an `except` is in its audience. Such events are remembered with their
/// audience, and after a while as if they had been for all who hold its keys, to be safe.
#[derive(Debug)]
pub(crate) struct Lost {
    marker: Marker,
    newest: HashMap<u64, EventId, BuildHasherDefault<Marked>>,
    combined: VecDeque<(EventId, Audience, Marks)>,
    combined_names: usize,
    capacity: usize,
    /// Positions before this one can no longer be answered, or never could.
    floor: EventId,
}

/// What an event leaves behind: the keys that index it and its type, as hashes.
///
/// They are computed before the lock is taken. Two of them collide once in 2^64, and then a client sees a gap that
/// was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    keys: SmallVec<[u64; 1]>,
    event_type: u64,
}

/// The row of one key for all types.
fn any_type(key: u64) -> u64 {
    key
}

/// The row of one key for one type.
fn one_type(key: u64, event_type: u64) -> u64 {
    // Odd, so that it differs from the key's own row.
    key.wrapping_add(event_type | 1)
}

/// Makes marks. Its clones make the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marker(RandomState);

impl Marker {
    pub(crate) fn marks(&self, keys: &[Key], event_type: &[u8]) -> Marks {
        let keys = keys.iter().map(|key| self.key(key)).collect();
        Marks { keys, event_type: self.event_type(event_type) }
    }

    /// A hash of anything else.
    pub(crate) fn hash(&self, value: &impl Hash) -> u64 {
        self.0.hash_one(value)
    }

    fn key(&self, key: &Key) -> u64 {
        self.0.hash_one(key)
    }

    fn event_type(&self, event_type: &[u8]) -> u64 {
        self.0.hash_one(dispatched_as(event_type))
    }
}

impl Lost {
    /// `birth`: the position before the first event that this log can have held.
    pub(crate) fn new(marker: Marker, capacity: usize, birth: EventId) -> Self {
        let combined = VecDeque::new();
        let newest = HashMap::default();
        Self { marker, newest, combined, combined_names: 0, capacity, floor: birth }
    }

    /// An event has left the log.
    pub(crate) fn record(&mut self, id: EventId, audience: &Audience, marks: &Marks) {
        if audience.is_its_index() {
            self.record_keys(id, marks);
            return;
        }
        self.combined_names += audience.names();
        self.combined.push_back((id, audience.clone(), marks.clone()));
        while self.combined.len() > COMBINED || self.combined_names > COMBINED_NAMES {
            let Some((id, audience, marks)) = self.combined.pop_front() else { break };
            self.combined_names -= audience.names();
            self.record_keys(id, &marks);
        }
    }

    /// The newest event after `after` that was for this client and that it can no longer get, if there is one.
    pub(crate) fn since(&self, after: EventId, client: Identity<'_>) -> Option<EventId> {
        let unknown = (after < self.floor).then_some(self.floor);
        let known = client.places.iter().filter_map(|place| {
            let key = self.marker.key(&place.key);
            let after = after.max(place.since);
            let row = |row: u64| self.newest.get(&row).copied().filter(|&id| id > after);
            match client.filter {
                Filter::Everything => row(any_type(key)),
                Filter::Types(types) => {
                    let of_type = |name: &str| self.marker.event_type(name.as_bytes());
                    types.iter().filter_map(|name| row(one_type(key, of_type(name)))).max()
                }
            }
        });
        known.max().max(unknown).max(self.combined_since(after, client))
    }

    fn combined_since(&self, after: EventId, client: Identity<'_>) -> Option<EventId> {
        let wanted = |marks: &Marks| match client.filter {
            Filter::Everything => true,
            Filter::Types(types) => {
                types.iter().any(|name| self.marker.event_type(name.as_bytes()) == marks.event_type)
            }
        };
        // Events are not evicted in order: a topic's limit lets go of newer ones than the hub's.
        let after = self.combined.iter().filter(|&&(id, ..)| id > after);
        let lost =
            after.filter(|(id, audience, marks)| wanted(marks) && client.is_in(audience, *id));
        lost.map(|&(id, ..)| id).max()
    }

    fn record_keys(&mut self, id: EventId, marks: &Marks) {
        for &key in &marks.keys {
            for row in [any_type(key), one_type(key, marks.event_type)] {
                let newest = self.newest.entry(row).or_insert(id);
                *newest = id.max(*newest);
            }
        }
        if self.newest.len() > self.capacity {
            self.forget_older_half();
        }
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
    use super::super::audience::Place;
    use super::*;

    const BIRTH: EventId = EventId(5, 0);

    fn user(name: usize) -> Audience {
        Audience::user(name.to_string())
    }

    fn lose(lost: &mut Lost, audience: &Audience, event_type: &str, count: u64) {
        let marks = lost.marker.marks(&audience.index(), event_type.as_bytes());
        lost.record(EventId(5, count), audience, &marks);
    }

    /// What a client with these keys missed after event `after`.
    fn since(lost: &Lost, after: EventId, holds: &[Audience], filter: &Filter) -> Option<u64> {
        let place = |audience: &Audience| Place {
            key: audience.key().unwrap().clone(),
            since: EventId::ORIGIN,
            index: 0,
        };
        let places: Vec<Place> = holds.iter().map(place).collect();
        lost.since(after, Identity { places: &places, filter }).map(|EventId(_, count)| count)
    }

    #[test]
    fn only_what_was_for_the_client_is_lost_to_it() {
        let mut lost = Lost::new(Marker::default(), 100, BIRTH);
        lose(&mut lost, &user(1), "news", 7);
        let types = |name: &str| Filter::Types([name.into()].into());
        let all = Filter::Everything;
        assert_eq!(since(&lost, EventId(5, 6), &[user(1)], &all), Some(7));
        assert_eq!(since(&lost, EventId(5, 7), &[user(1)], &all), None);
        assert_eq!(since(&lost, BIRTH, &[user(2)], &all), None);
        assert_eq!(since(&lost, BIRTH, &[user(1)], &types("news")), Some(7));
        assert_eq!(since(&lost, BIRTH, &[user(1)], &types("other")), None);
        assert_eq!(since(&lost, EventId(4, 9), &[user(2)], &all), Some(0), "an earlier life");
    }

    #[test]
    fn combined_audiences_are_exact_for_a_while_and_then_safe() {
        let mut lost = Lost::new(Marker::default(), 100, BIRTH);
        lose(&mut lost, &Audience::topic("t").except(user(1)), "news", 1);
        let (follower, other) = ([Audience::topic("t"), user(2)], [Audience::topic("t"), user(1)]);
        let all = Filter::Everything;
        assert_eq!(since(&lost, BIRTH, &follower, &all), Some(1));
        assert_eq!(since(&lost, BIRTH, &other, &all), None);
        for count in 2..=COMBINED as u64 + 1 {
            lose(&mut lost, &user(3).and(user(4)), "news", count);
        }
        assert_eq!(lost.combined.len(), COMBINED);
        assert_eq!(since(&lost, BIRTH, &other, &all), Some(1), "forgotten whom it was not for");
    }

    #[test]
    fn names_without_end_take_bounded_memory_and_never_hide_a_loss() {
        const CAPACITY: usize = 100;
        let mut lost = Lost::new(Marker::default(), CAPACITY, BIRTH);
        for count in 1..=10_000 {
            lose(&mut lost, &user(count), "news", count as u64);
            assert!(lost.newest.len() <= CAPACITY);
        }
        for count in 1..=10_000 {
            let before = EventId(5, count as u64 - 1);
            let told = since(&lost, before, &[user(count)], &Filter::Everything);
            assert!(told >= Some(count as u64), "user {count} was told of no gap");
        }
        assert_eq!(since(&lost, EventId(5, 10_000), &[user(1)], &Filter::Everything), None);
    }
}
