//! Hashes of keys and event types, computed before a lock is taken.
//!
//! The hashes have a random seed, so nobody outside can choose names that collide. By chance two names
//! collide once in 2^64.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use smallvec::SmallVec;

use super::key::Key;

/// A map whose keys are hashes already.
pub(crate) type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Prehashed>>;

/// A set of hashes.
pub(crate) type HashedSet = HashSet<u64, BuildHasherDefault<Prehashed>>;

/// Hashes keys and event types with the seed of a hub. Clones share the seed.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyHasher(RandomState);

impl KeyHasher {
    pub(crate) fn hashes(&self, keys: &[Key], event_type: &[u8]) -> KeyHashes {
        let keys = keys.iter().map(|key| self.key(key)).collect();
        KeyHashes { keys, event_type: self.event_type(event_type) }
    }

    /// Returns the hash of any other value.
    pub(super) fn hash(&self, value: &impl Hash) -> u64 {
        self.0.hash_one(value)
    }

    pub(super) fn key(&self, key: &Key) -> u64 {
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
