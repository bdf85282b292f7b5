//! The open connections of a server.

use std::any::Any;
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::hub::drain::{Drain, Drainable};
use crate::sync::{self, Mutex};
use crate::watchdog::{self, Watchdog, Watched};

/// The open connections of a server, and the stage of the server.
pub(super) struct Open {
    watchdog: Watchdog,
    stage: AtomicU8,
    /// The wakers of the connections' tasks. `None` until the task is polled.
    tasks: Mutex<Slab<Option<Waker>>>,
    /// The hubs of the streams so far.
    hubs: Mutex<Vec<Drainable>>,
    /// The tasks that wake the clients of these hubs.
    waking: Mutex<Vec<JoinHandle<()>>>,
    /// Notified when a connection closes. A notification waits for the next reader.
    pub(super) closed: Notify,
}

/// How far the end of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Serving,
    /// Connections end after their response, and the hubs end their streams.
    Ending,
    /// Streams that are left end at once.
    Over,
}

impl Open {
    pub(super) fn new(watchdog: Watchdog) -> Arc<Self> {
        Arc::new(Self {
            watchdog,
            stage: AtomicU8::new(Stage::Serving as u8),
            tasks: Mutex::new(Slab::new()),
            hubs: Mutex::new(Vec::new()),
            waking: Mutex::new(Vec::new()),
            closed: Notify::new(),
        })
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Ending,
            _ => Stage::Over,
        }
    }

    /// Sets the stage, and wakes every connection.
    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
        // Cloned, because a task needs the waker for the next stage. The wakers are tokio's.
        let tasks = self.tasks.lock();
        let wakers: Vec<Waker> = tasks.iter().filter_map(|(_, waker)| waker.clone()).collect();
        drop(tasks);
        sync::assert_unlocked();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns the output of the future, or `None` if the future waits in `stage` or later. The
    /// task of a connection is woken in every stage.
    pub(super) async fn before<T>(
        &self,
        stage: Stage,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Pending if self.stage() >= stage => Poll::Ready(None),
            polled => polled.map(Some),
        })
        .await
    }

    pub(super) fn count(&self) -> usize {
        self.tasks.lock().len()
    }

    pub(super) async fn all_closed(&self) {
        while self.count() > 0 {
            self.closed.notified().await;
        }
    }

    /// Watches a connection, whose socket has the options. The cut of a TCP socket is a reset.
    pub(super) fn watch<IO: 'static>(&self, io: IO) -> Watched<IO> {
        self.watchdog.watch_prepared(io, |io| {
            if let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() {
                watchdog::reset(socket);
            }
        })
    }

    /// The hub of a stream must be drained when the server ends. Until the end of the hub or of the
    /// server, a task wakes the clients of large broadcasts.
    pub(super) fn remember(&self, hub: Drainable) {
        let mut hubs = self.hubs.lock();
        if hubs.iter().any(|known| known.is_same(&hub)) {
            return;
        }
        hubs.retain(Drainable::exists);
        hubs.push(hub.clone());
        drop(hubs);
        if let Some(waking) = hub.waking() {
            let task = tokio::spawn(waking);
            let mut waking = self.waking.lock();
            waking.retain(|task| !task.is_finished());
            waking.push(task);
        }
    }

    /// Lets the hubs wake the clients by themselves again: this runtime may stop when the server
    /// has ended, while the hubs have clients elsewhere.
    pub(super) async fn end_waking(&self) {
        let tasks = mem::take(&mut *self.waking.lock());
        for task in tasks {
            task.abort();
            // Ready when the task is dropped.
            let _ = task.await;
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
    pub(super) open: Arc<Open>,
    /// A server has fewer than 2^32 connections.
    key: u32,
    has_waker: bool,
}

impl Place {
    pub(super) fn new(open: &Arc<Open>) -> Self {
        let key = open.tasks.lock().insert(None);
        Self { open: Arc::clone(open), key: key as u32, has_waker: false }
    }

    /// Wakes the task in each later stage, by the waker of the first call. Must be called before
    /// the task reads the stage.
    pub(super) fn set_waker(&mut self, waker: &Waker) {
        if !mem::replace(&mut self.has_waker, true) {
            let waker = Some(waker.clone());
            self.open.tasks.lock()[self.key as usize] = waker;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let old = self.open.tasks.lock().remove(self.key as usize);
        sync::assert_unlocked();
        drop(old);
        self.open.closed.notify_one();
    }
}
