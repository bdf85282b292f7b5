//! Notices that the sentinels name another master.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::{ErrorKind, RedisResult};

/// A host and a port, as sentinels name the master.
pub(crate) type HostPort = (String, u16);

/// Counts how often the sentinels named another master.
///
/// After an ordered failover the old master answers as before for some ten seconds. So each
/// connection belongs to a generation, and must be replaced when the generation changes.
#[derive(Debug, Default)]
pub(crate) struct MasterGeneration {
    named: Mutex<Option<HostPort>>,
    generation: AtomicU64,
}

impl MasterGeneration {
    /// Returns the generation. Read it before connecting: a failover during the connect is then
    /// noticed by [`check`](Self::check).
    pub(crate) fn current(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns an error if the master has changed since `generation`.
    pub(crate) fn check(&self, generation: u64) -> RedisResult<()> {
        if self.current() == generation {
            return Ok(());
        }
        Err((ErrorKind::Client, "the sentinels name another master").into())
    }

    /// Records the master that a sentinel named.
    pub(crate) fn note(&self, named: HostPort) {
        let before = self.named.lock().replace(named.clone());
        if before.is_some_and(|before| before != named) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
}
