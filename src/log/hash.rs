//! Hashes of keys and event types, computed before a lock is taken.
//!
//! The hashes have a random seed, so nobody outside can choose names that collide. By chance two
//! names collide once in 2^64.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use smallvec::SmallVec;

use super::key::Key;

/// A map whose keys are hashes already.
pub(crate) type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Prehashed>>;

/// A map by key that takes the hash of a key from the caller.
#[derive(Debug)]
pub(super) struct KeyMap<V>(HashMap<HashedKey, V, BuildHasherDefault<Prehashed>>);

#[derive(Debug)]
struct HashedKey {
    hash: u64,
    key: Key,
}

/// A key with its hash, owned or borrowed: a look-up must not clone the key.
trait KeyAndHash {
    fn parts(&self) -> (u64, &Key);
}

impl KeyAndHash for HashedKey {
    fn parts(&self) -> (u64, &Key) {
        (self.hash, &self.key)
    }
}

impl KeyAndHash for (u64, &Key) {
    fn parts(&self) -> (u64, &Key) {
        *self
    }
}

impl Hash for dyn KeyAndHash + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.parts().0);
    }
}

impl PartialEq for dyn KeyAndHash + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn KeyAndHash + '_ {}

impl Hash for HashedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for HashedKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for HashedKey {}

impl<'a> Borrow<dyn KeyAndHash + 'a> for HashedKey {
    fn borrow(&self) -> &(dyn KeyAndHash + 'a) {
        self
    }
}

impl<V> KeyMap<V> {
    pub(super) fn new() -> Self {
        Self(HashMap::default())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, hash: u64, key: &Key) -> Option<&V> {
        self.0.get(&(hash, key) as &dyn KeyAndHash)
    }

    pub(super) fn get_mut(&mut self, hash: u64, key: &Key) -> Option<&mut V> {
        self.0.get_mut(&(hash, key) as &dyn KeyAndHash)
    }

    /// Clones the key only if the map does not have it: a name is shared between threads.
    pub(super) fn get_or_default(&mut self, hash: u64, key: &Key) -> &mut V
    where
        V: Default,
    {
        let borrowed = &(hash, key) as &dyn KeyAndHash;
        if !self.0.contains_key(borrowed) {
            self.0.insert(HashedKey { hash, key: key.clone() }, V::default());
        }
        self.0.get_mut(borrowed).expect("the key was there or was inserted")
    }

    pub(super) fn remove(&mut self, hash: u64, key: &Key) {
        self.0.remove(&(hash, key) as &dyn KeyAndHash);
    }

    #[cfg(test)]
    pub(super) fn allocated(&self) -> usize {
        self.0.capacity()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.0.iter().map(|(hashed, value)| (&hashed.key, value))
    }

    /// Gives memory back after a peak.
    pub(super) fn shrink(&mut self) {
        shrink(&mut self.0);
    }
}

/// Hashes keys and event types with the seed of a hub. Clones share the seed.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyHasher(RandomState);

impl KeyHasher {
    pub(crate) fn hashes(&self, keys: &[Key], event_type: &[u8]) -> KeyHashes {
        let keys = keys.iter().map(|key| self.key(key)).collect();
        KeyHashes { keys, event_type: self.event_type(event_type) }
    }

    /// Adds the hash of an event type to the hash of the only index key.
    pub(crate) fn hashes_under(&self, key: u64, event_type: &[u8]) -> KeyHashes {
        KeyHashes { keys: SmallVec::from_buf([key]), event_type: self.event_type(event_type) }
    }

    /// Returns the hash of any other value.
    pub(super) fn hash(&self, value: &impl Hash) -> u64 {
        self.0.hash_one(value)
    }

    pub(crate) fn key(&self, key: &Key) -> u64 {
        self.0.hash_one(key)
    }

    pub(super) fn event_type(&self, event_type: &[u8]) -> u64 {
        self.0.hash_one(dispatched_as(event_type))
    }
}

/// The hashes of an event's index keys and of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyHashes {
    pub(super) keys: SmallVec<[u64; 1]>,
    pub(super) event_type: u64,
}

/// Returns the type under which a browser dispatches an event.
fn dispatched_as(event_type: &[u8]) -> &[u8] {
    if event_type.is_empty() { b"message" } else { event_type }
}

/// A hasher that returns its input.
#[derive(Debug, Default)]
pub(crate) struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Unreachable, because all keys are `u64`. Any deterministic result is correct.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

/// Elements whose room is kept although it is unused: below this size, growing again would cost
/// more than the memory is worth.
const KEPT: usize = 1024;

/// Returns whether a collection should give memory back: more than three quarters of a large
/// allocation are unused. A peak, such as a burst of clients, must not be paid for for ever.
pub(super) fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 4
}

/// Halves a sparse map at least; leaves room to grow, so that the next insertions do not rehash.
pub(crate) fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to(2 * map.len());
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;

    /// Returns a map that had `peak` keys, of which `rest` are left.
    fn after_a_peak(peak: usize, rest: usize) -> KeyMap<usize> {
        let hasher = KeyHasher::default();
        let mut map = KeyMap::new();
        let key = |number: usize| Key::User(number.to_string().into());
        for number in 0..peak {
            *map.get_or_default(hasher.key(&key(number)), &key(number)) = number;
        }
        (rest..peak).for_each(|number| map.remove(hasher.key(&key(number)), &key(number)));
        map
    }

    #[test]
    fn a_sparse_map_gives_memory_back_and_keeps_room() {
        let mut map = after_a_peak(10_000, 1_000);
        let before = map.allocated();
        map.shrink();
        let after = map.allocated();
        assert!((2_000..before / 2).contains(&after), "{after} of {before}");
        assert!(map.iter().map(|(_, &number)| number).sum::<usize>() == 999 * 500);
        // A small map, and a map that is half full, keep their room.
        for mut map in [after_a_peak(700, 1), after_a_peak(7_000, 4_000)] {
            let before = map.allocated();
            map.shrink();
            assert_eq!(map.allocated(), before);
        }
    }
}
