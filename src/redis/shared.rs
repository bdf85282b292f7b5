//! The state that the tasks of a backplane share.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use super::config::Redis;
use super::connect::address::Address;
use super::connect::failover::MasterGeneration;
use super::health::Health;
use super::store::clock::millis;
use super::store::lease::Lease;
use super::store::outbox::Outbox;
use super::store::script::{Keys, Scripts};

/// The state that the tasks of a backplane share.
pub(crate) struct RedisShared {
    pub(crate) scripts: Scripts,
    pub(crate) presence: Lease,
    pub(crate) outbox: Outbox,
    pub(crate) is_loaded: watch::Sender<bool>,
    /// The future that connects the hub is being awaited.
    pub(crate) is_running: AtomicBool,
    /// A client came with an id that the hub has not read up to.
    pub(crate) is_client_ahead: AtomicBool,
    /// A client waits for older events.
    pub(crate) history_wanted: Notify,
    pub(crate) address: Address,
    pub(crate) master: MasterGeneration,
    pub(crate) timeout: Duration,
    pub(crate) health: Health,
}

impl RedisShared {
    pub(crate) fn new(settings: Redis, publisher: &str) -> Self {
        let keys = Keys::new(&settings.prefix, publisher);
        Self {
            presence: Lease::new(&settings.prefix, publisher, settings.lease),
            scripts: Scripts::new(keys, settings.keep, millis(settings.remember)),
            outbox: Outbox::new(settings.outbox_events, settings.outbox_bytes),
            is_loaded: watch::Sender::new(false),
            is_running: AtomicBool::new(false),
            is_client_ahead: AtomicBool::new(false),
            history_wanted: Notify::new(),
            address: settings.address,
            master: MasterGeneration::default(),
            timeout: settings.timeout,
            health: Health::default(),
        }
    }

    pub(crate) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.address.connect(self.timeout, &self.scripts.keys().stream, &self.master).await
    }
}
