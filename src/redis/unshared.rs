//! Telling people, not more often than they would read it.

use std::time::Duration;

use redis::RedisError;
use tokio::time::Instant;

/// Tells of what keeps presence from being shared, now and then.
#[derive(Debug, Default)]
pub(crate) struct Unshared {
    told: Option<Instant>,
    is_told: bool,
}

impl Unshared {
    pub(crate) fn tell(&mut self, trouble: Option<&RedisError>) {
        const QUIET: Duration = Duration::from_secs(60);
        match trouble {
            Some(cause) if !self.is_told && self.told.is_none_or(|at| at.elapsed() >= QUIET) => {
                (self.told, self.is_told) = (Some(Instant::now()), true);
                tracing::warn!(target: "sse_hub", %cause, "who is online is not shared");
            }
            None if std::mem::take(&mut self.is_told) => {
                tracing::info!(target: "sse_hub", "who is online is shared again");
            }
            _ => {}
        }
    }
}
