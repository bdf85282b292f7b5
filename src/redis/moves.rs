//! Whether sentinels name another master than the one that is spoken to, which answers as before until it is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{ErrorKind, RedisResult};

use super::address::{Address, Named};

#[derive(Debug, Default)]
pub(super) struct Moves {
    known: Mutex<Option<Named>>,
    count: AtomicU64,
}

impl Moves {
    /// How often the master has changed until now: to be asked before a connection is made.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// An error, if it has changed since.
    pub(super) fn check(&self, count: u64) -> RedisResult<()> {
        if self.count() == count {
            return Ok(());
        }
        Err((ErrorKind::Client, "the sentinels name another master").into())
    }

    /// This is the master.
    pub(super) fn note(&self, named: Named) {
        let before = self.known.lock().replace(named.clone());
        if before.is_some_and(|before| before != named) {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Asks the sentinels from time to time, if there are any. An ordered failover is otherwise noticed ten seconds later,
    /// and what is confirmed meanwhile is lost.
    pub(super) async fn watch(&self, address: &Address, timeout: Duration) {
        const EVERY: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(EVERY).await;
            match address.named(timeout).await {
                None => return,
                Some(Ok(named)) => self.note(named),
                // Without them all goes on as it is.
                Some(Err(_)) => {}
            }
        }
    }
}
