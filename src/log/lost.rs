use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::mem;

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
    /// Nothing after this was lost, or it was brought back.
    whole_from: EventId,
    /// Some of it was brought back, and is still recorded as lost.
    restored: bool,
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
        let (floor, whole_from, restored) = (birth, birth, false);
        Self { marker, newest, combined, combined_names: 0, capacity, floor, whole_from, restored }
    }

    /// The position after which nothing is lost to anybody.
    pub(crate) fn whole_from(&self) -> EventId {
        self.whole_from
    }

    /// All after `position` is back in the log.
    pub(crate) fn restore(&mut self, position: EventId) {
        self.restored |= position < self.whole_from;
        self.whole_from = self.whole_from.min(position);
    }

    /// An event has left the log.
    pub(crate) fn record(&mut self, id: EventId, audience: &Audience, marks: &Marks) {
        self.forget_what_was_restored();
        self.whole_from = self.whole_from.max(id);
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
        let floor = self.floor.min(self.whole_from);
        let unknown = (after < floor).then_some(floor);
        let known = client.places.iter().filter_map(|place| {
            let key = self.marker.key(&place.key);
            let after = after.max(place.since);
            // Whether more was lost before what was brought back, the row no longer says: to be safe, it was.
            let newest = |row: u64| self.newest.get(&row).map(|&id| id.min(self.whole_from));
            let row = |row: u64| newest(row).filter(|&id| id > after);
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
        let after = self.combined.iter().filter(|&&(id, ..)| after < id && id <= self.whole_from);
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

    /// Before anything else is lost: what is recorded has to lie before it.
    fn forget_what_was_restored(&mut self) {
        if !mem::take(&mut self.restored) {
            return;
        }
        let whole_from = self.whole_from;
        self.floor = self.floor.min(whole_from);
        self.newest.values_mut().for_each(|id| *id = whole_from.min(*id));
        self.combined.retain(|&(id, ..)| id <= whole_from);
        self.combined_names = self.combined.iter().map(|(_, audience, _)| audience.names()).sum();
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
    fn what_was_brought_back_is_not_lost_until_it_is_lost_again() {
        let mut lost = Lost::new(Marker::default(), 100, BIRTH);
        let all = Filter::Everything;
        for count in 1..=9 {
            lose(&mut lost, &user(count % 3), "news", count as u64);
        }
        lose(&mut lost, &user(1).and(user(2)), "news", 10);
        let both = [user(1), user(2)];
        lost.restore(EventId(5, 5));
        assert_eq!(since(&lost, EventId(5, 5), &both, &all), None);
        assert_eq!(since(&lost, EventId(5, 4), &[user(2)], &all), Some(5));
        assert_eq!(since(&lost, BIRTH, &both, &all), Some(5));
        lose(&mut lost, &user(0), "news", 6);
        assert_eq!(since(&lost, EventId(5, 5), &[user(0)], &all), Some(6));
        assert_eq!(since(&lost, EventId(5, 5), &both, &all), None, "they have 7, 8 and 10 again");
        assert_eq!(since(&lost, BIRTH, &[user(2)], &all), Some(5));
        assert_eq!(lost.whole_from(), EventId(5, 6));

        let mut begun_late = Lost::new(Marker::default(), 100, EventId(5, 9));
        begun_late.restore(EventId(5, 2));
        assert_eq!(since(&begun_late, EventId(5, 2), &both, &all), None);
        assert_eq!(since(&begun_late, EventId(5, 1), &both, &all), Some(2));
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
