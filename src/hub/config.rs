use std::time::Duration;

use crate::error::ConfigError;
use crate::log::audience::ClientId;
use crate::log::log::{Budget, Retain};
use crate::time::heartbeat::Heartbeat;
use crate::time::timer::Timer;

/// A hub's settings, as its builder left them.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) timer: Box<dyn Timer>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) retain: Retain,
    pub(crate) retry: Duration,
    pub(crate) batch: Budget,
    pub(crate) window: usize,
}

impl Config {
    pub(crate) fn new(timer: impl Timer) -> Self {
        Self {
            timer: Box::new(timer),
            heartbeat: Heartbeat::default(),
            retain: Retain::default(),
            retry: Duration::from_secs(3),
            batch: Budget { bytes: 64 << 10 },
            window: 32,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.retain.check()?;
        if self.heartbeat.every == Some(Duration::ZERO) {
            return Err(ConfigError::Heartbeat);
        }
        if self.retry.as_millis() == 0 {
            return Err(ConfigError::Retry);
        }
        if self.window == 0 {
            return Err(ConfigError::Window);
        }
        if self.batch.bytes == 0 {
            return Err(ConfigError::Batch);
        }
        Ok(())
    }

    /// When this client is to come back: between three and five quarters of the setting, so that those who lost
    /// their server at one moment do not return at one moment.
    pub(crate) fn retry(&self, client: ClientId) -> Duration {
        let spread = f64::from(client.spread()) / f64::from(u16::MAX);
        let jittered = self.retry.mul_f64(0.75 + spread / 2.0);
        jittered.max(Duration::from_millis(1))
    }
}
