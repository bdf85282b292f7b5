use std::sync::Arc;
use std::time::Duration;

use super::backplane::Backplane;
use super::history::History;
use super::limits::Limits;
use super::presence::Presence;
use crate::error::{ConfigError, RefusalStyle};
use crate::log::audience::ClientId;
use crate::log::log::Budget;
use crate::log::retain::Retain;
use crate::time::heartbeat::Heartbeat;
use crate::time::timer::Timer;
use crate::wire::frame;

/// A hub's settings, as its builder left them.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) timer: Arc<dyn Timer>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) retain: Retain,
    pub(crate) retry: Duration,
    pub(crate) batch: Budget,
    pub(crate) window: usize,
    pub(crate) limits: Limits,
    pub(crate) refusals: RefusalStyle,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) stall: Option<Duration>,
    pub(crate) end_lagging: bool,
    pub(crate) presence: Option<Presence>,
    pub(crate) backplane: Option<Arc<dyn Backplane>>,
    pub(crate) tells_degraded: bool,
    /// With a backplane that looks back.
    pub(crate) history: Option<History>,
}

impl Config {
    pub(crate) fn new(timer: impl Timer) -> Self {
        Self {
            timer: Arc::new(timer),
            heartbeat: Heartbeat::default(),
            retain: Retain::default(),
            retry: Duration::from_secs(3),
            batch: Budget { bytes: 64 << 10 },
            window: 32,
            limits: Limits::default(),
            refusals: RefusalStyle::default(),
            lifetime: None,
            stall: Some(Duration::from_secs(60)),
            end_lagging: false,
            presence: None,
            backplane: None,
            tells_degraded: false,
            history: Some(History::default()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.retain.check()?;
        self.limits.check()?;
        self.history.as_ref().map_or(Ok(()), History::check)?;
        self.presence.as_ref().map_or(Ok(()), Presence::check)?;
        if self.heartbeat.every == Some(Duration::ZERO) {
            return Err(ConfigError::Heartbeat);
        }
        if !frame::RETRY_RANGE.contains(&self.retry) {
            return Err(ConfigError::Retry);
        }
        if self.window == 0 {
            return Err(ConfigError::Window);
        }
        if self.batch.bytes == 0 {
            return Err(ConfigError::Batch);
        }
        for (setting, time) in [("lifetime", self.lifetime), ("stalled_after", self.stall)] {
            if time == Some(Duration::ZERO) {
                return Err(ConfigError::EndsAtOnce(setting));
            }
        }
        Ok(())
    }

    /// When this client is to come back: between three and five quarters of the setting, so that those who lost
    /// their server at one moment do not return at one moment.
    pub(crate) fn retry(&self, client: ClientId) -> Duration {
        let jittered = self.retry.mul_f64(0.75 + client.spread() / 2.0);
        jittered.clamp(*frame::RETRY_RANGE.start(), *frame::RETRY_RANGE.end())
    }

    /// How long this client's stream may be open: between nine and ten tenths of the setting.
    pub(crate) fn lifetime(&self, client: ClientId) -> Option<Duration> {
        self.lifetime.map(|lifetime| lifetime - lifetime.mul_f64(client.spread() / 10.0))
    }
}
