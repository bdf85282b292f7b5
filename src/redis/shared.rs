//! What the parts of the backplane share.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use super::config::Redis;
use super::connect::address::Address;
use super::connect::failover::Moves;
use super::health::{Part, Troubles};
use super::store::clock::millis;
use super::store::lease::Lease;
use super::store::outbox::Outbox;
use super::store::script::{Keys, Scripts};
use crate::backplane::Feed;

/// What the parts share.
pub(crate) struct Shared {
    pub(crate) scripts: Scripts,
    pub(crate) presence: Lease,
    pub(crate) outbox: Outbox,
    pub(crate) is_loaded: watch::Sender<bool>,
    /// Somebody came ahead of what was read.
    pub(crate) looks: AtomicBool,
    /// Somebody waits for older events.
    pub(crate) looks_back: Notify,
    pub(crate) address: Address,
    pub(crate) moves: Moves,
    pub(crate) timeout: Duration,
    pub(crate) troubles: Troubles,
}

impl Shared {
    pub(crate) fn new(settings: Redis, publisher: &str) -> Self {
        let keys = Keys::new(&settings.prefix, publisher);
        Self {
            presence: Lease::new(&settings.prefix, publisher, settings.lease),
            scripts: Scripts::new(keys, settings.keep, millis(settings.remember)),
            outbox: Outbox::new(settings.outbox_events, settings.outbox_bytes),
            is_loaded: watch::Sender::new(false),
            looks: AtomicBool::new(false),
            looks_back: Notify::new(),
            address: settings.address,
            moves: Moves::default(),
            timeout: settings.timeout,
            troubles: Troubles::default(),
        }
    }

    pub(crate) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.address.connect(self.timeout, &self.scripts.keys().stream, &self.moves).await
    }

    /// A part of it is in trouble, or no longer.
    pub(crate) fn tell(&self, feed: &Feed, part: Part, trouble: Option<&str>) {
        self.troubles.tell(feed, part, trouble);
    }
}
