//! Times as Redis has them: in milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ids that lie further than this ahead of Redis's clock are malformed: ten years.
///
/// A clock that is set back by less costs nothing. Without the limit, a single forged entry with
/// the greatest id would leave no room for another, and would lead all hubs to a position that
/// nothing can follow.
pub(crate) const HORIZON_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
