use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::core::backplane::Backplane;
use crate::core::config::Config;
use crate::core::settings::{History, Limits, Presence};
use crate::core::telemetry;
use crate::error::{ConfigError, RefusalStyle};
use crate::log::entry::Budget;
use crate::log::retain::{Retain, RunLimits};
use crate::time::epoch;
use crate::time::heartbeat::Heartbeat;
use crate::time::timer::Timer;
use crate::wire::id::EventId;

/// Settings of a [`Hub`](crate::Hub), as [`Hub::builder`](crate::Hub::builder) starts them.
///
/// A setting that can be off takes an `Option`: `None` turns it off.
///
/// # Memory
///
/// In addition to [`Retain`], to [`RunLimits`], and to [`History`] during history reads, a hub takes for each client
/// 0.8 KiB, or 1.3 KiB with a user, a session and a topic (measured on 64 bits, with the
/// [`Subscription`](crate::Subscription) and without the runtime's and the server's share). While
/// events wait for a client, the client has up to [`window`](Self::window) handles of 16 bytes; each
/// handle can keep 32 bytes of an event that has left the log. The hub
/// remembers the ids, users and sessions of the clients that left last: as many clients as retained
/// events, and at least 1,024.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{Heartbeat, Hub, ManualTimer, Retain};
///
/// let hub = Hub::builder(ManualTimer::new())
///     .heartbeat(Heartbeat::default().every(Duration::from_secs(25)))
///     .retain(Retain::default().events(4096).bytes(16 << 20))
///     .retry(Duration::from_secs(3))
///     .stalled_after(None)
///     .build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct HubBuilder {
    config: Config,
}

impl HubBuilder {
    pub(super) fn new(timer: impl Timer) -> Self {
        Self { config: Config::new(timer) }
    }

    /// Sets the heartbeat of idle streams: by default a comment after 15 seconds. With `None`, idle
    /// streams send nothing, which suits only streams that are never idle for long.
    pub fn heartbeat(mut self, heartbeat: impl Into<Option<Heartbeat>>) -> Self {
        self.config.heartbeat = heartbeat.into();
        self
    }

    /// Sets how much the hub keeps for clients that come back or fall behind.
    pub fn retain(mut self, retain: Retain) -> Self {
        self.config.retain = retain;
        self
    }

    /// Sets how much the hub keeps of its [runs](crate::Run), and how many runs there may be.
    pub fn runs(mut self, limits: RunLimits) -> Self {
        self.config.runs = limits;
        self
    }

    /// Sets how long a client waits before reconnecting: from one millisecond to 24 days, 3 seconds
    /// by default. The delay of each client is random, 0.75 to 1.25 of the setting.
    pub fn retry(mut self, retry: Duration) -> Self {
        self.config.retry = retry;
        self
    }

    /// Sets how many clients the hub lets in, and the limits of a single client.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Sets the form of a temporary refusal: a stream by default.
    pub fn refusals(mut self, refusals: RefusalStyle) -> Self {
        self.config.refusals = refusals;
        self
    }

    /// Sets how long a stream may be open before the stream ends and the client reconnects: no limit
    /// by default. The lifetime of each stream is random, 0.9 to 1 of the setting. No event is lost.
    pub fn lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.config.lifetime = lifetime.into();
        self
    }

    /// Sets after how long a stream ends that is not read although events wait: 60 seconds by
    /// default. With `None`, such streams do not end.
    ///
    /// The hub notices when events are published, when clients connect or read the log, and with the
    /// heartbeats of other streams.
    pub fn stalled_after(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.stall = limit.into();
        self
    }

    /// Sets whether a slow client's stream ends when events are lost to the client. By default the
    /// client gets a gap and continues. A client whose stream ended gets the gap after reconnecting.
    pub fn end_lagging(mut self, is_on: bool) -> Self {
        self.config.end_lagging = is_on;
        self
    }

    /// Turns presence on, for [`Hub::watch`](crate::Hub::watch). Presence is off by default.
    pub fn presence(mut self, presence: impl Into<Option<Presence>>) -> Self {
        self.config.presence = presence.into();
        self
    }

    /// Makes this hub one of several instances that act as one hub: see
    /// [`backplane`](crate::backplane) and `sse_hub::redis`.
    pub fn backplane(mut self, backplane: impl Backplane) -> Self {
        self.config.backplane = Some(Arc::new(backplane));
        self
    }

    /// Sets whether the hub sends `hub:degraded` with `{"degraded":true}` when the
    /// [backplane](Self::backplane) has been out of reach for a second, and with
    /// `{"degraded":false}` when the backplane has been back for a second. Off by default.
    ///
    /// A client that connects during an outage is told after `hub:open`. A client that was not
    /// reading receives only the latest state. The event has no id and does not move the client's
    /// position.
    pub fn announce_outages(mut self, is_on: bool) -> Self {
        self.config.announce_outages = is_on;
        self
    }

    /// Sets how far the hub reads back for clients that missed more than the log has, if the
    /// backplane supports that. With `None`, such clients get a gap.
    pub fn history(mut self, history: impl Into<Option<History>>) -> Self {
        self.config.history = history.into();
        self
    }

    /// Sets how many bytes of waiting events one item of a
    /// [`Subscription`](crate::Subscription) joins at most: 64 KiB by default. A larger event is a
    /// single item.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.config.batch = Budget { bytes };
        self
    }

    /// Sets how many events may wait for a client before the client must read the log: 32 by
    /// default. A larger window makes bursts cheaper, and clients larger. An event of a
    /// [text](crate::RunOptions::append) may wait beside at most 7 other events.
    pub fn window(mut self, events: usize) -> Self {
        self.config.window = events;
        self
    }

    /// Checks the settings, and creates the state that the hub and its subscriptions share.
    pub(super) fn into_shared(mut self) -> Result<Shared, ConfigError> {
        self.config.check()?;
        let engine = self.config.backplane.as_ref();
        let supports_history = engine.is_some_and(|engine| engine.supports_history());
        // With a backplane, the position of the order is not known yet.
        let birth = match engine {
            None => EventId::new(epoch::next(), 0),
            Some(_) => EventId::ORIGIN,
        };
        self.config.run_wait = self.config.runs.wait_of(engine.is_some());
        self.config.history = self.config.history.filter(|_| supports_history);
        telemetry::built(birth);
        Ok(Shared::new(self.config, birth))
    }
}
