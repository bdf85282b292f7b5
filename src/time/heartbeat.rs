//! The heartbeat setting.

use std::time::Duration;

use bytes::Bytes;

use crate::wire::frame;
use crate::wire::id::EventId;

/// The heartbeat of an idle stream.
///
/// A heartbeat keeps proxies from closing an idle connection, and reveals a dead connection to the
/// server. By default the heartbeat is a comment after 15 seconds without an event; pages do not
/// see comments.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{Heartbeat, Hub, ManualTimer};
///
/// let heartbeat = Heartbeat::default().every(Duration::from_secs(25)).visible(true);
/// let hub = Hub::builder(ManualTimer::new()).heartbeat(heartbeat).build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    pub(crate) every: Duration,
    pub(crate) visible: bool,
    pub(crate) has_position: bool,
}

impl Heartbeat {
    /// Sets the idle time before a heartbeat, and between two heartbeats. Must not be zero. Most
    /// proxies close a connection after 60 idle seconds.
    #[must_use]
    pub const fn every(mut self, idle: Duration) -> Self {
        self.every = idle;
        self
    }

    /// Sets whether the heartbeat is a `hub:heartbeat` event, for pages that must see heartbeats in
    /// a native `EventSource`: the browser does not show comments to a page.
    #[must_use]
    pub const fn visible(mut self, visible: bool) -> Self {
        self.visible = visible;
        self
    }

    /// Sets whether the heartbeat carries the client's position: the id from which the client
    /// continues after a reconnect. The heartbeat is then a [visible](Self::visible) event. Off by
    /// default.
    ///
    /// A client for which nothing is published otherwise keeps the id of its last event. If the log
    /// evicts that id's successors meanwhile, the client comes back to a position from before the
    /// log, and the hub must look in its record of evicted events, which is bounded. With the
    /// setting, the client comes back to the position of its last heartbeat.
    ///
    /// The position needs an event: the standard allows a block that has an id only, but some
    /// clients take the block for an event. Each such heartbeat takes the hub's lock for a moment. A
    /// stream without a hub has no position: its heartbeat is a visible event.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, Heartbeat, Hub, ManualTimer, Subscriber};
    ///
    /// let timer = ManualTimer::new();
    /// let heartbeat = Heartbeat::default().every(Duration::from_secs(15)).position(true);
    /// let hub = Hub::builder(timer.clone()).heartbeat(heartbeat).build()?;
    /// let mut page = hub.subscribe(Subscriber::new())?;
    /// while page.next().now_or_never().is_some() {}
    /// hub.send_to_topic("others", Event::new("x"))?;
    /// timer.advance(Duration::from_secs(15));
    /// let heartbeat = page.next().now_or_never().flatten().unwrap();
    /// let id = format!("id: {}\n\n", hub.position());
    /// assert!(heartbeat.ends_with(id.as_bytes()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn position(mut self, has_position: bool) -> Self {
        self.has_position = has_position;
        self
    }

    /// Returns the bytes of a heartbeat. `position`: the client's position, if the heartbeat carries
    /// the position.
    pub(crate) fn frame(self, position: Option<EventId>) -> Bytes {
        match position {
            Some(position) => frame::heartbeat_at(position),
            None if self.visible || self.has_position => frame::VISIBLE_HEARTBEAT,
            None => frame::HEARTBEAT,
        }
    }
}

impl Default for Heartbeat {
    /// A comment after 15 idle seconds.
    fn default() -> Self {
        Self { every: Duration::from_secs(15), visible: false, has_position: false }
    }
}
