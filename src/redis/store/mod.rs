//! The keys in Redis: how they are written, and how their contents are read. Redis counts time in
//! milliseconds.

pub(crate) mod changes;
pub(crate) mod entry;
pub(crate) mod lease;
pub(crate) mod outbox;
pub(crate) mod owed;
pub(crate) mod script;
pub(crate) mod tail;
pub(crate) mod values;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
