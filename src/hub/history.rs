use std::time::{Duration, Instant};

use crate::error::ConfigError;
use crate::log::retain::Allowance;

/// How far a hub looks back for clients that come back from before what it [retains](crate::Retain), if its
/// [backplane](crate::HubBuilder::backplane) still holds the order there (`sse_hub::redis` does). Without a backplane
/// it means nothing.
///
/// What such clients miss is read once, for all of them together, in pieces from the newest back, and put before what
/// the hub retains. There it stays until it was not read for ten seconds. Meanwhile no topic is limited of its own and
/// nothing is too old.
///
/// So the events that a hub holds, and their bytes, are at most:
///
/// ```text
/// always                    Retain::events,                   Retain::bytes
/// while it is looked back   Retain::events + History::events, Retain::bytes + History::bytes
/// ```
///
/// and as much beside them for each event as [`Retain`](crate::Retain) says. A client from further back than that is told
/// a `hub:gap` and goes on with the oldest that is there; so is one from before what the backplane holds.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::History;
///
/// let history = History::events(50_000).bytes(32 << 20).wait(Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    pub(crate) allowance: Allowance,
    pub(crate) wait: Duration,
}

impl History {
    /// At most this many events before those that are retained, and at most 16 MiB of them. A client waits a minute for
    /// them at most.
    #[must_use]
    pub const fn events(events: usize) -> Self {
        let allowance = Allowance { events, bytes: 16 << 20 };
        Self { allowance, wait: Duration::from_secs(60) }
    }

    /// At most this many bytes of frames, before those that are retained.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.allowance.bytes = bytes;
        self
    }

    /// For how long a client waits for what it missed, whose backplane does not answer. Then it is told a gap, and goes
    /// on with what the hub has.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Whoever comes from before what is retained is told a gap.
    #[must_use]
    pub const fn none() -> Self {
        Self::events(0)
    }

    /// Until when a client waits that comes now.
    pub(super) fn until(&self, now: Instant) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        now.checked_add(self.wait).unwrap_or(now + FAR)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zero = [("bytes", self.allowance.bytes == 0), ("wait", self.wait.is_zero())];
        match zero.into_iter().find(|&(_, is_zero)| is_zero) {
            Some((setting, _)) => Err(ConfigError::HistoryIsZero(setting)),
            None => Ok(()),
        }
    }
}

impl Default for History {
    /// `History::events(16_384)`.
    fn default() -> Self {
        Self::events(16_384)
    }
}
