//! Returning memory to the allocator after a peak.

use std::collections::HashMap;
use std::hash::Hash;

/// Elements whose room is kept although it is unused: below this size, growing again would cost
/// more than the memory is worth.
const KEPT: usize = 1024;

/// Returns whether a collection should give memory back: more than three quarters of a large
/// allocation are unused. A peak, such as a burst of clients, must not be paid for for ever.
pub(crate) fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 4
}

/// Halves a sparse map at least; leaves room to grow, so that the next insertions do not rehash.
pub(crate) fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to(2 * map.len());
    }
}
