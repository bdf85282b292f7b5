//! Whether sentinels name another master than the one that is spoken to, which answers as before until it is told.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::{ErrorKind, RedisResult};

/// A host and a port, as sentinels name the master.
pub(crate) type Named = (String, u16);

#[derive(Debug, Default)]
pub(crate) struct Moves {
    known: Mutex<Option<Named>>,
    count: AtomicU64,
}

impl Moves {
    /// How often the master has changed until now: to be asked before a connection is made.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// An error, if it has changed since.
    pub(crate) fn check(&self, count: u64) -> RedisResult<()> {
        if self.count() == count {
            return Ok(());
        }
        Err((ErrorKind::Client, "the sentinels name another master").into())
    }

    /// This is the master.
    pub(crate) fn note(&self, named: Named) {
        let before = self.known.lock().replace(named.clone());
        if before.is_some_and(|before| before != named) {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }
}
