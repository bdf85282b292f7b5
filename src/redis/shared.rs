//! The state that the tasks of a backplane share.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use super::connect::address::Address;
use super::connect::failover::MasterGeneration;
use super::health::Health;
use super::store::lease::Lease;
use super::store::outbox::Outbox;
use super::store::owed::Owed;
use super::store::runs::RunStore;
use super::store::script::Scripts;

/// The state that the tasks of a backplane share.
pub(crate) struct RedisShared {
    pub(crate) scripts: Scripts,
    pub(crate) presence: Lease,
    pub(crate) outbox: Outbox,
    pub(crate) owed: Owed,
    pub(crate) runs: RunStore,
    /// The instances with open runs changed, or the hub was closed.
    pub(crate) runs_changed: Notify,
    /// Parts of runs came since the keeper last looked: runs may have ended.
    pub(crate) has_run_parts: AtomicBool,
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
    pub(crate) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.address.connect(self.timeout, &self.scripts.keys().stream, &self.master).await
    }
}
