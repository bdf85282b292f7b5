//! The delay before the next attempt.

use std::time::Duration;

/// Doubles the delay with each failure, up to a quarter of a second. Each delay is random below
/// that bound, so that many instances do not reconnect at the same moment.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(8);
    const MOST: Duration = Duration::from_millis(250);
    /// `FIRST << 5` is past `MOST`.
    const DOUBLINGS: u32 = 5;

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) async fn wait(&mut self) {
        let doublings = self.failures.min(Self::DOUBLINGS);
        let most = Self::FIRST.saturating_mul(1 << doublings).min(Self::MOST);
        self.failures = self.failures.saturating_add(1);
        let mut random = [0; 2];
        // If the system has no randomness, the delay is `most`.
        let _ = getrandom::fill(&mut random);
        let share = f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX);
        tokio::time::sleep(most.mul_f64(1.0 - share)).await;
    }
}
