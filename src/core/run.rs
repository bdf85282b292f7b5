//! The request to stop a run, as the producer sees it.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use slab::Slab;

use crate::sync::Mutex;

/// The producer of a run. A thread that holds the lock takes no other lock.
#[derive(Debug)]
pub(crate) struct Producer {
    /// There is a reason. Written under the lock, read without.
    is_stopped: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Why the producer must stop.
    reason: Option<Arc<str>>,
    /// The tasks that wait for a reason.
    tasks: Slab<Waker>,
}

impl Producer {
    /// `reason`: why the run that the producer takes over must stop.
    pub(crate) fn new(reason: Option<Arc<str>>) -> Self {
        Self {
            is_stopped: AtomicBool::new(reason.is_some()),
            waiting: Mutex::new(Waiting { reason, tasks: Slab::new() }),
        }
    }

    /// Whether the producer must stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Asks the producer to stop. The first reason counts. The caller must wake the tasks when it
    /// holds no lock.
    pub(crate) fn stop(&self, reason: Arc<str>) -> Vec<Waker> {
        let mut waiting = self.waiting.lock();
        if waiting.reason.is_some() {
            return Vec::new();
        }
        waiting.reason = Some(reason);
        self.is_stopped.store(true, Ordering::Release);
        mem::take(&mut waiting.tasks).into_iter().map(|(_, waker)| waker).collect()
    }

    /// Registers a task that waits, under `key` if the task is registered already. Returns the
    /// reason if the producer must stop. Moves a replaced waker to `waker`: the caller must drop
    /// the waker without a lock.
    pub(crate) fn register(
        &self,
        key: &mut Option<usize>,
        waker: &mut Option<Waker>,
    ) -> Option<Arc<str>> {
        let mut waiting = self.waiting.lock();
        if let Some(reason) = &waiting.reason {
            // The list of tasks was taken.
            *key = None;
            return Some(Arc::clone(reason));
        }
        match key.and_then(|key| waiting.tasks.get_mut(key)) {
            Some(known) => {
                if let Some(new) = waker {
                    mem::swap(known, new);
                }
            }
            None => *key = waker.take().map(|waker| waiting.tasks.insert(waker)),
        }
        None
    }

    /// Removes a task that waits no more. The caller must drop the waker without a lock.
    pub(crate) fn unregister(&self, key: usize) -> Option<Waker> {
        let mut waiting = self.waiting.lock();
        // After the list was taken, the key is of no task.
        if waiting.reason.is_some() { None } else { waiting.tasks.try_remove(key) }
    }
}
