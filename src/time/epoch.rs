//! The epochs of hubs: the first part of the ids that a hub without a backplane issues.
//!
//! A hub must reject the ids of every other hub, or a client would resume among events that the
//! client never saw. Ids of an earlier process of the same service must count as older.
//! So an epoch is the time of the start, made unique within the process, with random digits against
//! two processes that start in the same millisecond:
//!
//! ```text
//! 1763000000000 123456    milliseconds since 1970, then six random digits
//! ```

use std::hash::{BuildHasher as _, RandomState};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number of epochs in a millisecond. Times up to the year 2554 fit into 64 bits.
const PER_MILLISECOND: u64 = 1_000_000;

/// The newest epoch of this process.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Returns a new epoch: greater than every earlier epoch of this process and, if the clock did not
/// go back, than those of all processes that started in an earlier millisecond.
pub(crate) fn next() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let candidate = at(since_1970, RandomState::new().hash_one(process::id()));
    // The clock can stand still or go back between two hubs.
    let take = |last: u64| Some(candidate.max(last.saturating_add(1)));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    last.ok().and_then(take).unwrap_or(candidate)
}

fn at(since_1970: Duration, random: u64) -> u64 {
    let milliseconds = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    milliseconds.saturating_mul(PER_MILLISECOND).saturating_add(random % PER_MILLISECOND)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;

    #[test]
    fn epochs_are_unique_in_a_process() {
        const EACH: usize = 10_000;
        let threads: Vec<_> = (0..4)
            .map(|_| thread::spawn(|| (0..EACH).map(|_| next()).collect::<Vec<u64>>()))
            .collect();
        let mut all = BTreeSet::new();
        for thread in threads {
            let epochs = thread.join().unwrap();
            assert!(epochs.is_sorted());
            all.extend(epochs);
        }
        assert_eq!(all.len(), 4 * EACH);
    }

    #[test]
    fn an_epoch_grows_with_the_clock() {
        let (time, step) = (Duration::from_millis(1_763_000_000_000), Duration::from_millis(1));
        assert_eq!(at(time, 9_000_000_123_456), 1_763_000_000_000_123_456);
        assert!(at(time, u64::MAX) < at(time + step, 0));
        // An id of a version with epochs in milliseconds is older than every epoch.
        assert!(1_763_000_000_000 < at(time, 0));
        assert_eq!(at(Duration::MAX, 1), u64::MAX);
    }

    #[test]
    fn epochs_of_one_moment_differ_between_processes() {
        // Each process has its own `RandomState`, and so has each call.
        let random = || RandomState::new().hash_one(process::id()) % PER_MILLISECOND;
        let all: BTreeSet<u64> = (0..100).map(|_| random()).collect();
        assert!(all.len() > 90, "{} different of 100", all.len());
    }
}
