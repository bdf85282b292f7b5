//! The heartbeat setting.

use std::time::Duration;

use bytes::Bytes;

use crate::wire::frame;

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

    pub(crate) const fn frame(self) -> Bytes {
        if self.visible { frame::VISIBLE_HEARTBEAT } else { frame::HEARTBEAT }
    }
}

impl Default for Heartbeat {
    /// A comment after 15 idle seconds.
    fn default() -> Self {
        Self { every: Duration::from_secs(15), visible: false }
    }
}
