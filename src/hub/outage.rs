//! Which outages of the backplane clients are told of: those that last, once, and none that comes and goes.

use std::time::{Duration, Instant};

/// How long it is so before it is told.
const LASTS: Duration = Duration::from_secs(1);

/// Whether the hub is degraded, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Outage {
    now: Option<(bool, Instant)>,
    told: bool,
}

impl Outage {
    /// It is so at `now`. Whether that is to be told, because it has been for long enough and is not what was told last.
    pub(super) fn note(&mut self, degraded: bool, now: Instant) -> bool {
        let since = match self.now {
            Some((known, since)) if known == degraded => since,
            _ => now,
        };
        self.now = Some((degraded, since));
        let is_news = self.told != degraded && now.saturating_duration_since(since) >= LASTS;
        if is_news {
            self.told = degraded;
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_what_comes_and_goes_is_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut outage = Outage::default();
        assert!(!outage.note(true, at(0)));
        assert!(!outage.note(true, at(999)));
        assert!(outage.note(true, at(1000)));
        assert!(!outage.note(true, at(9000)), "it was told");
        assert!(!outage.note(false, at(9000)));
        assert!(!outage.note(true, at(9900)), "it is as it was told");
        assert!(!outage.note(false, at(9950)));
        assert!(!outage.note(false, at(10_900)), "since it last changed");
        assert!(outage.note(false, at(10_950)));
        assert!(!outage.note(false, at(20_000)));
    }
}
