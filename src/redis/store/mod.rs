//! The keys in Redis: how they are written, and how their contents are read. Redis counts time in
//! milliseconds.

pub(crate) mod changes;
pub(crate) mod entry;
pub(crate) mod lease;
pub(crate) mod outbox;
pub(crate) mod owed;
pub(crate) mod producing;
pub(crate) mod runs;
pub(crate) mod script;
pub(crate) mod tail;
pub(crate) mod values;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time to live that means "for ever". Redis refuses times that overflow the clock.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
