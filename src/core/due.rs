use std::collections::VecDeque;
use std::task::Waker;

use super::inbox::Inbox;

/// The clients of large broadcasts that a task (`hub/waking`) wakes a few at a time. Their wakers
/// are in the inboxes.
///
/// An event for a few clients finds these wakers, and wakes the clients at once. Otherwise such a
/// client would have its place in the runtime's queue already, behind all others of the broadcast.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// There is a task that wakes the clients.
    is_on: bool,
    /// The numbers of the inboxes, in the order of the hand-out. An inbox is in here once.
    numbers: VecDeque<u32>,
    /// The waker of the task. `None` while the task has clients to wake.
    task: Option<Waker>,
}

impl Due {
    /// Whether a hand-out to so many clients leaves the wakers. The list is bounded if the task does
    /// not run: an inbox that gets another client can be in here again.
    pub(crate) fn takes(&self, clients: usize) -> bool {
        self.is_on && self.numbers.len() < 2 * clients
    }

    /// Leaves the waker of an inbox to the task.
    pub(crate) fn add(&mut self, number: u32, inbox: &mut Inbox) {
        if inbox.leave_waker() {
            self.numbers.push_back(number);
        }
    }

    /// Takes the waker of the task, if there are clients to wake.
    pub(crate) fn take_task(&mut self) -> Option<Waker> {
        if self.numbers.is_empty() { None } else { self.task.take() }
    }

    /// Returns false if the clients have a task already.
    #[cfg(feature = "serve")]
    pub(crate) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_on, true)
    }

    /// From now on, hand-outs wake all clients.
    #[cfg(feature = "serve")]
    pub(crate) fn end(&mut self) -> Option<Waker> {
        self.is_on = false;
        self.task.take()
    }

    /// Takes the next inboxes to wake.
    #[cfg(feature = "serve")]
    pub(crate) fn next(&mut self, count: usize) -> impl Iterator<Item = u32> {
        self.numbers.drain(..count.min(self.numbers.len()))
    }

    /// Registers the task for the next broadcast, unless there are clients to wake. Returns a waker
    /// that must be dropped after the lock is released, and whether the task was registered.
    #[cfg(feature = "serve")]
    pub(crate) fn register(&mut self, task: Waker) -> (Option<Waker>, bool) {
        if self.numbers.is_empty() { (self.task.replace(task), true) } else { (Some(task), false) }
    }
}

/// The task ends with the hub.
impl Drop for Due {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}
