use std::collections::VecDeque;
use std::task::Waker;

use slab::Slab;

use super::inbox::Inbox;

/// The clients of large broadcasts that tasks (`hub/waking`) wake a few at a time. Their wakers are
/// in the inboxes.
///
/// An event for a few clients finds these wakers, and wakes the clients at once. Otherwise such a
/// client would have its place in the runtime's queue already, behind all others of the broadcast.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// The numbers of the inboxes, in the order of the hand-out. A client is in here once.
    numbers: VecDeque<u32>,
    /// The wakers of the tasks, of which each server has one. `None` while a task has clients to
    /// wake. Each client is due for all tasks, so a task that is not polled delays no client if
    /// another task is polled.
    tasks: Slab<Option<Waker>>,
}

impl Due {
    /// Whether a hand-out to so many clients leaves the wakers. The list is bounded if no task
    /// runs: an inbox that gets another client can be in here again.
    pub(crate) fn takes(&self, clients: usize) -> bool {
        !self.tasks.is_empty() && self.numbers.len() < 2 * clients
    }

    /// Leaves the waker of an inbox to the tasks.
    pub(crate) fn add(&mut self, number: u32, inbox: &mut Inbox) {
        if inbox.leave_waker() {
            self.numbers.push_back(number);
        }
    }

    /// Takes the wakers of the tasks, if there are clients to wake.
    pub(crate) fn take_tasks(&mut self) -> impl Iterator<Item = Waker> {
        let tasks = (!self.numbers.is_empty()).then(|| self.tasks.iter_mut());
        tasks.into_iter().flatten().filter_map(|(_, task)| task.take())
    }

    /// Adds a task. Returns the key of the task.
    #[cfg(feature = "serve")]
    pub(crate) fn begin(&mut self) -> usize {
        self.tasks.insert(None)
    }

    /// Removes a task. Without tasks, hand-outs wake all clients. Returns a waker that must be
    /// dropped after the lock is released.
    #[cfg(feature = "serve")]
    pub(crate) fn end(&mut self, key: usize) -> Option<Waker> {
        self.tasks.remove(key)
    }

    /// Takes the next inboxes to wake.
    #[cfg(feature = "serve")]
    pub(crate) fn next(&mut self, count: usize) -> impl Iterator<Item = u32> {
        self.numbers.drain(..count.min(self.numbers.len()))
    }

    /// Registers a task for the next broadcast, unless there are clients to wake. Returns a waker
    /// that must be dropped after the lock is released, and whether the task was registered.
    #[cfg(feature = "serve")]
    pub(crate) fn register(&mut self, key: usize, task: Waker) -> (Option<Waker>, bool) {
        if self.numbers.is_empty() {
            (self.tasks[key].replace(task), true)
        } else {
            (Some(task), false)
        }
    }
}

/// The tasks end with the hub.
impl Drop for Due {
    fn drop(&mut self) {
        self.tasks.drain().flatten().for_each(Waker::wake);
    }
}
