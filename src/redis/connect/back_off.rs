//! How long to wait before the next try.

use std::time::Duration;

/// Waits longer with each failure, up to a quarter of a second, and by chance, so that many instances do not come back
/// at one moment.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(8);
    const MOST: Duration = Duration::from_millis(250);

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) async fn wait(&mut self) {
        let most = Self::FIRST.saturating_mul(1 << self.failures.min(5)).min(Self::MOST);
        self.failures = self.failures.saturating_add(1);
        let mut chance = [0; 2];
        // Without randomness all wait for as long.
        let _ = getrandom::fill(&mut chance);
        let share = f64::from(u16::from_ne_bytes(chance)) / f64::from(u16::MAX);
        tokio::time::sleep(most.mul_f64(1.0 - share)).await;
    }
}
