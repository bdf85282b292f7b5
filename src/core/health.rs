//! Whether the backplane can be reached, and when clients are told of a change.
//!
//! The hub judges by the clock when the engine repeats its state, so no stream's timer is touched,
//! and an outage of a moment wakes nobody.

use std::time::{Duration, Instant};

/// How long a state must last before clients are told of it.
const LASTS: Duration = Duration::from_secs(1);

/// The least time between two reports of an outage to the log. A connection that flaps must not
/// flood the log; its recovery is reported if its outage was.
const LOG_PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Health {
    /// The engine's last word.
    is_degraded: bool,
    /// The state that clients see, and since when.
    state: Option<(bool, Instant)>,
    clients_told: bool,
    log_told: bool,
    log_told_at: Option<Instant>,
}

impl Health {
    pub(crate) fn is_degraded(&self) -> bool {
        self.is_degraded
    }

    /// The engine reports its state. Returns whether the change must be logged.
    pub(crate) fn report(&mut self, is_degraded: bool, now: Instant) -> bool {
        self.is_degraded = is_degraded;
        let is_due =
            self.log_told_at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_PERIOD);
        if self.log_told == is_degraded || is_degraded && !is_due {
            return false;
        }
        self.log_told = is_degraded;
        self.log_told_at = Some(now);
        true
    }

    /// Clients see this state at `now`. Returns whether they must be told: the state has lasted,
    /// and is not the state that they were told last.
    pub(crate) fn must_tell_clients(&mut self, is_degraded: bool, now: Instant) -> bool {
        let since = match self.state {
            Some((known, since)) if known == is_degraded => since,
            _ => now,
        };
        self.state = Some((is_degraded, since));
        let is_news =
            self.clients_told != is_degraded && now.saturating_duration_since(since) >= LASTS;
        if is_news {
            self.clients_told = is_degraded;
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_hear_of_lasting_changes_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut health = Health::default();
        assert!(!health.must_tell_clients(true, at(0)));
        assert!(!health.must_tell_clients(true, at(999)));
        assert!(health.must_tell_clients(true, at(1000)));
        assert!(!health.must_tell_clients(true, at(9000)), "clients know");
        assert!(!health.must_tell_clients(false, at(9000)));
        assert!(!health.must_tell_clients(true, at(9900)), "clients were told this state");
        assert!(!health.must_tell_clients(false, at(9950)));
        assert!(!health.must_tell_clients(false, at(10_900)), "since the last change");
        assert!(health.must_tell_clients(false, at(10_950)));
        assert!(!health.must_tell_clients(false, at(20_000)));
    }

    #[test]
    fn flapping_is_logged_once_per_period() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::default();
        assert!(!health.report(false, at(0)), "the log expects a healthy backplane");
        assert!(health.report(true, at(1)));
        assert!(health.report(false, at(2)), "a recovery is logged if its outage was");
        assert!(!health.report(true, at(3)));
        assert!(!health.report(false, at(4)), "nothing was logged to recover from");
        assert!(!health.report(true, at(5)));
        assert!(health.report(true, at(12)));
        assert!(health.is_degraded());
    }
}
