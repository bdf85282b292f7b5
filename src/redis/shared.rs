//! What the parts of the backplane share.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use super::address::Address;
use super::clock::millis;
use super::config::Redis;
use super::lease::Lease;
use super::moves::Moves;
use super::outbox::Outbox;
use super::script::{Keys, Scripts};
use super::trouble::{Part, Troubles};
use crate::backplane::Feed;

/// What the parts share.
pub(super) struct Shared {
    pub(super) scripts: Scripts,
    pub(super) presence: Lease,
    pub(super) outbox: Outbox,
    pub(super) is_loaded: watch::Sender<bool>,
    /// Somebody came ahead of what was read.
    pub(super) looks: AtomicBool,
    /// Somebody waits for older events.
    pub(super) looks_back: Notify,
    pub(super) address: Address,
    pub(super) moves: Moves,
    pub(super) timeout: Duration,
    pub(super) troubles: Troubles,
}

impl Shared {
    pub(super) fn new(settings: Redis, publisher: &str) -> Self {
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

    pub(super) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.address.connect(self.timeout, &self.scripts.keys().stream, &self.moves).await
    }

    /// A part of it is in trouble, or no longer.
    pub(super) fn tell(&self, feed: &Feed, part: Part, trouble: Option<&str>) {
        self.troubles.tell(feed, part, trouble);
    }
}
