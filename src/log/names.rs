//! The names of an expression, for look-ups by the keys of a client.
//!
//! A hand-out looks up each key of each client under the locks, and most keys are no name. So a
//! look-up of such a key must take a few instructions, and must read memory that fits into the
//! first cache of the processor: 16 KiB for 10,000 names.
//!
//! The names lie in a few allocations, whatever their number. An event is freed under the ordering
//! lock, and freeing 10,000 names one by one would hold up the publisher who evicts the event.

use super::identity::Membership;
use super::key::Key;

/// The most names that are compared one by one, and numbered by the bits of a byte. An index for so
/// few names costs more than it saves.
pub(super) const FEW: usize = 8;

/// Bits of the filter for each name. A key that is no name then passes the filter once in eight
/// times at most.
const BITS: usize = 8;

/// The names of an expression, numbered from the left. A name that occurs in several parts of the
/// expression has several numbers.
#[derive(Debug)]
pub(super) enum Names {
    /// At most [`FEW`] names.
    Few(Vec<(u64, Key)>),
    Many(Box<NameIndex>),
}

#[derive(Debug)]
pub(super) struct NameIndex {
    /// A bit for each prefix of a hash: set if a name has the prefix.
    filter: Box<[u64]>,
    /// The length of the rest of a hash behind the prefix.
    shift: u32,
    /// The hashes of the names with their numbers, sorted by the hash.
    hashes: Box<[(u64, u32)]>,
    /// The [bytes](Key::write) of all names, in the order of their numbers.
    bytes: Box<[u8]>,
    /// For each number, the end of the name in `bytes`.
    ends: Box<[usize]>,
}

impl Names {
    /// `names`: each with its hash, in the order of their numbers. More names than `few`, which is
    /// at most [`FEW`], have an index.
    pub(super) fn new(names: &[(u64, &Key)], few: usize) -> Self {
        if names.len() <= few {
            let names = names.iter().map(|&(hash, key)| (hash, key.clone()));
            return Self::Few(names.collect());
        }
        Self::Many(Box::new(NameIndex::new(names)))
    }

    /// Returns how many names there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(names) => names.len(),
            Self::Many(index) => index.ends.len(),
        }
    }
}

/// Returns the numbers of a client's key among [few](Names::Few) names, as bits.
pub(super) fn mask(names: &[(u64, Key)], held: &Membership) -> u8 {
    let is_key = |&(hash, ref key): &(u64, Key)| hash == held.hash && *key == held.key;
    let bits = names.iter().enumerate().filter(|(_, name)| is_key(name));
    bits.fold(0, |mask, (number, _)| mask | 1 << number)
}

impl NameIndex {
    fn new(names: &[(u64, &Key)]) -> Self {
        let bits = (BITS * names.len()).next_power_of_two().max(64);
        let mut filter = vec![0; bits / 64].into_boxed_slice();
        let shift = 64 - bits.trailing_zeros();
        let mut hashes = Vec::with_capacity(names.len());
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(names.len());
        for (number, &(hash, key)) in (0..).zip(names) {
            let bit = hash >> shift;
            filter[(bit / 64) as usize] |= 1 << (bit % 64);
            hashes.push((hash, number));
            key.write(&mut bytes);
            ends.push(bytes.len());
        }
        // Nearly sorted: `Node::new` sorts the names of each part.
        hashes.sort_unstable_by_key(|&(hash, _)| hash);
        let (hashes, bytes) = (hashes.into_boxed_slice(), bytes.into_boxed_slice());
        Self { filter, shift, hashes, bytes, ends: ends.into_boxed_slice() }
    }

    /// Returns whether a key with this hash can be a name.
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let bit = hash >> self.shift;
        self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    /// Returns the numbers of a client's key.
    pub(super) fn numbers(&self, held: &Membership) -> impl Iterator<Item = u32> {
        let first = self.hashes.partition_point(|&(hash, _)| hash < held.hash);
        let of_hash = self.hashes[first..].iter().take_while(|&&(hash, _)| hash == held.hash);
        // The keys are compared too: an event must not reach a client because of a collision.
        of_hash.map(|&(_, number)| number).filter(|&number| held.key.is_written(self.name(number)))
    }

    /// Returns the bytes of the name with this number.
    fn name(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;
    use crate::wire::id::EventId;

    fn held(key: &Key, hash: u64) -> Membership {
        let key = key.clone();
        Membership { key, hash, since: EventId::ORIGIN, is_joined: false, index: 0 }
    }

    fn numbers(names: &Names, held: &Membership) -> Vec<u32> {
        match names {
            Names::Few(names) => {
                let mask = mask(names, held);
                (0..8).filter(|number| mask & 1 << number != 0).collect()
            }
            Names::Many(index) if !index.may_have(held.hash) => Vec::new(),
            Names::Many(index) => {
                let mut numbers: Vec<u32> = index.numbers(held).collect();
                numbers.sort_unstable();
                numbers
            }
        }
    }

    #[test]
    fn names_with_one_hash_are_told_apart() {
        // The last two names have the same text.
        let names = ["a", "b", "c"].map(|name| Key::User(name.into()));
        let [first, second, third] = &names;
        let other = Key::Topic("a".into());
        // As if all names had one hash.
        let keys = [(7, first), (7, second), (7, first)].into_iter().cycle();
        for count in [3, FEW + 1, 10_000] {
            let keys: Vec<(u64, &Key)> = keys.clone().take(count).collect();
            let names = Names::new(&keys, FEW);
            let expected = |key: &Key| {
                let numbers = (0..).zip(&keys).filter(|(_, (_, name))| *name == key);
                numbers.map(|(number, _)| number).collect::<Vec<u32>>()
            };
            assert_eq!(names.len(), count);
            for key in [first, second] {
                assert_eq!(numbers(&names, &held(key, 7)), expected(key));
            }
            for absent in [third, &other] {
                assert!(numbers(&names, &held(absent, 7)).is_empty());
            }
        }
    }

    #[test]
    fn every_name_is_found_by_its_hash() {
        for count in [FEW, FEW + 1, 1_000, 10_000] {
            let keys: Vec<Key> =
                (0..2 * count).map(|name| Key::Topic(name.to_string().into())).collect();
            // Hashes at both ends of the range, and between.
            let hash = |number: usize| (u64::MAX / (2 * count as u64 - 1)) * number as u64;
            // Every second key is a name.
            let all: Vec<(u64, &Key)> =
                keys.iter().enumerate().map(|(number, key)| (hash(number), key)).collect();
            let named: Vec<(u64, &Key)> = all.iter().step_by(2).copied().collect();
            let names = Names::new(&named, FEW);
            for (number, &(hash, key)) in all.iter().enumerate() {
                let expected: Vec<u32> =
                    (number % 2 == 0).then_some(number as u32 / 2).into_iter().collect();
                assert_eq!(numbers(&names, &held(key, hash)), expected, "{key:?} of {count}");
            }
        }
    }

    #[test]
    fn few_other_keys_pass_the_filter() {
        let hasher = super::super::hash::KeyHasher::default();
        let key = |name: usize| Key::Topic(name.to_string().into());
        let keys: Vec<Key> = (0..10_000).map(key).collect();
        let names: Vec<(u64, &Key)> = keys.iter().map(|key| (hasher.key(key), key)).collect();
        let Names::Many(index) = Names::new(&names, FEW) else { panic!("many names") };
        let others = (10_000..20_000).map(|name| hasher.key(&key(name)));
        let passed = others.filter(|&hash| index.may_have(hash)).count();
        assert!(passed < 1_500, "{passed} of 10,000 keys pass");
    }
}
