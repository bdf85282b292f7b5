use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backplane::Backplane;
use super::settings::{History, Limits, Presence};
use crate::error::{ConfigError, RefusalStyle};
use crate::log::entry::Budget;
use crate::log::key::ClientId;
use crate::log::retain::{Retain, RunLimits};
use crate::sync;
use crate::time::heartbeat::Heartbeat;
use crate::time::timer::Timer;
use crate::wire::frame;

/// The default of `HubBuilder::retry`.
const RETRY: Duration = Duration::from_secs(3);

/// The default of `HubBuilder::max_batch_bytes`: a few TCP segments, so that a write is worth its
/// system call.
const BATCH_BYTES: usize = 64 << 10;

/// The default of `HubBuilder::window`: a burst of this many events needs no read of the log.
const WINDOW_EVENTS: usize = 32;

/// The default of `HubBuilder::stalled_after`.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// The least part of `HubBuilder::retry` that a client waits. The largest is 2 minus this.
const LEAST_RETRY: f64 = 0.75;

/// The part of `HubBuilder::lifetime` over which the ends of streams are spread.
const LIFETIME_SPREAD: f64 = 0.1;

/// The settings of a hub, as its builder left them.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) timer: Arc<dyn Timer>,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) retain: Retain,
    pub(crate) runs: RunLimits,
    /// How long a client waits for runs that are not known. `None`: the client is refused.
    pub(crate) run_wait: Option<Duration>,
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
    pub(crate) announce_outages: bool,
    /// `None` unless the backplane supports history reads.
    pub(crate) history: Option<History>,
}

impl Config {
    pub(crate) fn new(timer: impl Timer) -> Self {
        Self {
            timer: Arc::new(timer),
            heartbeat: Some(Heartbeat::default()),
            retain: Retain::default(),
            runs: RunLimits::default(),
            run_wait: None,
            retry: RETRY,
            batch: Budget { bytes: BATCH_BYTES },
            window: WINDOW_EVENTS,
            limits: Limits::default(),
            refusals: RefusalStyle::default(),
            lifetime: None,
            stall: Some(STALLED_AFTER),
            end_lagging: false,
            presence: None,
            backplane: None,
            announce_outages: false,
            history: Some(History::default()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.retain.check()?;
        self.runs.check()?;
        self.limits.check()?;
        self.history.as_ref().map_or(Ok(()), History::check)?;
        self.presence.map_or(Ok(()), |presence| presence.check(&self.limits))?;
        if self.heartbeat.is_some_and(|heartbeat| heartbeat.every.is_zero()) {
            return Err(ConfigError::Zero { setting: "Heartbeat::every" });
        }
        if !frame::RETRY_RANGE.contains(&self.retry) {
            return Err(ConfigError::Retry { retry: self.retry });
        }
        let zero = [
            ("window", self.window == 0),
            ("max_batch_bytes", self.batch.bytes == 0),
            ("lifetime", self.lifetime == Some(Duration::ZERO)),
            ("stalled_after", self.stall == Some(Duration::ZERO)),
        ];
        match zero.into_iter().find(|&(_, is_zero)| is_zero) {
            Some((setting, _)) => Err(ConfigError::Zero { setting }),
            None => Ok(()),
        }
    }

    /// Reads the clock, which is foreign code: no lock may be held.
    pub(crate) fn now(&self) -> Instant {
        sync::assert_unlocked();
        self.timer.now()
    }

    /// The reconnect delay of this client: 0.75 to 1.25 of the setting, so that clients that lost
    /// their server together do not return together.
    pub(crate) fn retry(&self, client: ClientId) -> Duration {
        let spread = 2.0 * (1.0 - LEAST_RETRY) * client.spread();
        let jittered = self.retry.mul_f64(LEAST_RETRY + spread);
        jittered.clamp(*frame::RETRY_RANGE.start(), *frame::RETRY_RANGE.end())
    }

    /// How long the stream of this client may be open: 0.9 to 1 of the setting.
    pub(crate) fn lifetime(&self, client: ClientId) -> Option<Duration> {
        self.lifetime.map(|lifetime| lifetime - lifetime.mul_f64(LIFETIME_SPREAD * client.spread()))
    }
}
