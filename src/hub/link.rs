//! What a hub knows of its backplane: plain bookkeeping behind the state lock.

use std::time::{Duration, Instant};

use super::outage::Outage;
use crate::wire::id::EventId;

/// The clients that had come with an id ahead of the hub, up to a moment.
#[derive(Debug, Clone, Copy)]
pub struct Mark(pub(super) u64);

#[derive(Debug, Default)]
pub(super) struct Link {
    /// The order's end was found.
    pub(super) loaded: bool,
    pub(super) degraded: bool,
    /// How often what followed was not known to follow.
    pub(super) resets: u64,
    /// By serial number.
    pub(super) ahead: Vec<Ahead>,
    pub(super) outage: Outage,
    /// Clients that are held until what they missed is brought.
    pub(super) behind: Vec<Behind>,
    /// What lies up to here cannot be brought.
    pub(super) gone: EventId,
    /// When it was last of use that the log reaches back beyond its retention.
    pub(super) used: Option<Instant>,
    told: Option<Instant>,
    told_degraded: bool,
}

#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) slot: usize,
    pub(super) serial: u64,
    pub(super) id: EventId,
}

#[derive(Debug)]
pub(super) struct Behind {
    pub(super) slot: usize,
    pub(super) serial: u64,
    /// What was lost after this is what it missed.
    pub(super) after: EventId,
}

impl Link {
    /// Whether that is to be told.
    pub(super) fn degrade(&mut self, degraded: bool, now: Instant) -> bool {
        const QUIET: Duration = Duration::from_secs(10);
        self.degraded = degraded;
        // A connection that comes and goes is told of now and then; its recovery is told if its fall was.
        let long_ago = self.told.is_none_or(|told| now.saturating_duration_since(told) >= QUIET);
        if self.told_degraded == degraded || degraded && !long_ago {
            return false;
        }
        self.told_degraded = degraded;
        self.told = Some(now);
        true
    }
}
