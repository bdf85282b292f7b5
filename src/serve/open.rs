//! The open connections of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;

use crate::hub::drain::{Drain, Drainable};
use crate::sync::{self, Mutex};
use crate::watchdog::Watchdog;

/// The open connections of a server, and the stage of the server.
pub(super) struct Open {
    watchdog: Watchdog,
    stage: AtomicU8,
    /// The wakers of the connections' tasks.
    tasks: Mutex<Slab<Option<Waker>>>,
    /// The hubs of the streams so far.
    hubs: Mutex<Vec<Drainable>>,
    /// Notified when a connection closes.
    closed: Notify,
}

/// How far the end of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Stage {
    Serving,
    /// Connections end after their response, and the hubs end their streams.
    Ending,
    /// Streams that are left end at once.
    Over,
}

impl Open {
    pub(super) fn new(watchdog: Watchdog) -> Self {
        Self {
            watchdog,
            stage: AtomicU8::new(Stage::Serving as u8),
            tasks: Mutex::new(Slab::new()),
            hubs: Mutex::new(Vec::new()),
            closed: Notify::new(),
        }
    }

    pub(super) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Ending,
            _ => Stage::Over,
        }
    }

    /// Sets the stage, and wakes every connection.
    pub(super) fn enter(&self, stage: Stage) {
        let mut tasks = self.tasks.lock();
        self.stage.store(stage as u8, Ordering::Release);
        let wakers: Vec<Waker> = tasks.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        drop(tasks);
        sync::assert_unlocked();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn count(&self) -> usize {
        self.tasks.lock().len()
    }

    /// Completes when a connection closes, from the first poll on.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Completes when no connection is open.
    pub(super) async fn all_closed(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            // Before the look: a connection that closes after the look completes the future.
            closed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// The hub of a stream must be drained when the server ends.
    pub(super) fn remember(&self, hub: Drainable) {
        let mut hubs = self.hubs.lock();
        if !hubs.iter().any(|known| known.is_same(&hub)) {
            hubs.retain(Drainable::exists);
            hubs.push(hub);
        }
    }

    /// Begins to drain the hubs of all streams so far.
    pub(super) fn drain_hubs(&self, over: Duration) -> Vec<Drain> {
        let hubs = self.hubs.lock().clone();
        hubs.iter().filter_map(|hub| hub.begin_drain(over)).collect()
    }
}

/// The place of a connection among the open connections. The drop frees the place.
pub(super) struct Place {
    open: Arc<Open>,
    key: usize,
    /// The stage in which the task left a waker.
    known_in: Option<Stage>,
}

impl Place {
    pub(super) fn new(open: Arc<Open>) -> Self {
        let key = open.tasks.lock().insert(None);
        Self { open, key, known_in: None }
    }

    pub(super) fn open(&self) -> &Arc<Open> {
        &self.open
    }

    /// Returns the stage. The next stage wakes this task.
    pub(super) fn poll_stage(&mut self, waker: &Waker) -> Stage {
        let stage = self.open.stage();
        if self.known_in == Some(stage) {
            return stage;
        }
        let waker = Some(waker.clone());
        let mut tasks = self.open.tasks.lock();
        let old = std::mem::replace(&mut tasks[self.key], waker);
        // Read under the lock: an `enter` from here on takes this waker.
        let stage = self.open.stage();
        drop(tasks);
        sync::assert_unlocked();
        drop(old);
        self.known_in = Some(stage);
        stage
    }

    /// The connection gets another task.
    pub(super) fn moved(mut self) -> Self {
        self.known_in = None;
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let old = self.open.tasks.lock().remove(self.key);
        sync::assert_unlocked();
        drop(old);
        self.open.closed.notify_waiters();
    }
}
