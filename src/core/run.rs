//! The producer of a run: the verdict on its start, the request to stop, and the end.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use slab::Slab;

use super::receipt::Placed;
use crate::error::RunError;
use crate::log::producer::ProducerId;
use crate::log::runs::RunState;
use crate::sync::{self, Mutex, contain_panic};
use crate::wire::id::EventId;

/// The producer of a run. A thread that holds the lock takes no other lock, and takes this lock
/// while it holds no other.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    /// The name of the run.
    pub(crate) name: Arc<str>,
    /// There is a reason to stop. Written under the lock, read without.
    is_stopped: AtomicBool,
    /// The producer publishes no more. Written under the lock, read without.
    is_over: AtomicBool,
    /// This producer has ended the run. With a backplane: has sent the end.
    has_ended: AtomicBool,
    status: Mutex<Status>,
}

#[derive(Debug, Default)]
struct Status {
    /// Whether the run was started; `None` while the order has not decided.
    verdict: Option<Result<(), RunError>>,
    /// The place of the start in the order.
    placed: Option<EventId>,
    /// Why the producer must stop.
    reason: Option<Arc<str>>,
    /// Why the producer publishes no more.
    over: Option<RunError>,
    /// The tasks that wait for the verdict, and for a reason to stop.
    tasks: [Slab<Waker>; 2],
}

/// A change that a producer is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// The run was started, or taken over.
    Started,
    /// The producer must stop. The first reason counts.
    Stop(Arc<str>),
    /// The producer publishes no more, and must stop for this reason.
    Over(RunError, Arc<str>),
}

/// The changes that a task can wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Awaited {
    Verdict,
    Stop,
}

impl Producer {
    pub(crate) fn new(id: ProducerId, name: Arc<str>) -> Self {
        Self {
            id,
            name,
            is_stopped: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            status: Mutex::new(Status::default()),
        }
    }

    /// Returns an error if the producer publishes no more.
    pub(crate) fn check(&self) -> Result<(), RunError> {
        if self.is_over.load(Ordering::Acquire) {
            self.status.lock().over.map_or(Ok(()), Err)?;
        }
        if self.has_ended() { Err(RunError::Ended) } else { Ok(()) }
    }

    /// Whether the producer must stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Whether this producer has ended the run.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Notes that this producer has ended the run, or has not. Returns whether it had before.
    pub(crate) fn set_ended(&self, has_ended: bool) -> bool {
        self.has_ended.swap(has_ended, Ordering::AcqRel)
    }

    /// Returns the state in which the run ends if the producer does not say.
    pub(crate) fn default_end(&self, otherwise: RunState) -> RunState {
        if self.is_stopped() { RunState::Stopped } else { otherwise }
    }

    /// Whether the start may still come, after the order was read up to `head`. `is_first`: no
    /// other order was read before. A start that had a place in a replaced order does not come.
    pub(crate) fn is_awaited(&self, head: EventId, is_first: bool) -> bool {
        let status = self.status.lock();
        status.verdict.is_none() && status.placed.is_none_or(|placed| is_first && placed > head)
    }

    /// Tells the producer a change. The caller must wake the returned tasks without a lock.
    pub(crate) fn tell(&self, told: Told) -> Vec<Waker> {
        let mut status = self.status.lock();
        let (verdict, reason) = match told {
            Told::Started => (Some(Ok(())), None),
            Told::Stop(reason) => (None, Some(reason)),
            Told::Over(error, reason) => {
                status.over.get_or_insert(error);
                self.is_over.store(true, Ordering::Release);
                (Some(Err(error)), Some(reason))
            }
        };
        let mut woken = Vec::new();
        let [verdicts, stops] = &mut status.tasks;
        let mut wake = |tasks: &mut Slab<Waker>| {
            woken.extend(mem::take(tasks).into_iter().map(|(_, waker)| waker));
        };
        if verdict.is_some() {
            wake(verdicts);
        }
        if reason.is_some() {
            wake(stops);
        }
        status.verdict = status.verdict.or(verdict);
        if status.reason.is_none() && reason.is_some() {
            status.reason = reason;
            self.is_stopped.store(true, Ordering::Release);
        }
        woken
    }

    /// Returns whether the run was started, if the order has decided.
    pub(crate) fn verdict(&self) -> Option<Result<(), RunError>> {
        self.status.lock().verdict
    }

    /// Returns the reason to stop, if there is one.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.status.lock().reason.clone()
    }

    /// Registers a task that waits, under `key` if the task is registered already. Returns `false`
    /// if the change has come. Moves a replaced waker to `waker`: the caller must drop the waker
    /// without a lock.
    pub(crate) fn register(
        &self,
        awaited: Awaited,
        key: &mut Option<usize>,
        waker: &mut Option<Waker>,
    ) -> bool {
        let mut status = self.status.lock();
        if status.has(awaited) {
            // The list of tasks was taken.
            *key = None;
            return false;
        }
        let tasks = &mut status.tasks[awaited as usize];
        match key.and_then(|key| tasks.get_mut(key)) {
            Some(known) => {
                if let Some(new) = waker {
                    mem::swap(known, new);
                }
            }
            None => *key = waker.take().map(|waker| tasks.insert(waker)),
        }
        true
    }

    /// Removes a task that waits no more. The caller must drop the waker without a lock.
    pub(crate) fn unregister(&self, awaited: Awaited, key: usize) -> Option<Waker> {
        let mut status = self.status.lock();
        // After the list was taken, the key is of no task.
        if status.has(awaited) { None } else { status.tasks[awaited as usize].try_remove(key) }
    }
}

impl Status {
    fn has(&self, awaited: Awaited) -> bool {
        match awaited {
            Awaited::Verdict => self.verdict.is_some(),
            Awaited::Stop => self.reason.is_some(),
        }
    }
}

/// The place of the start in the order.
impl Placed for Producer {
    fn place(&self, id: Option<EventId>) {
        if id.is_some() {
            self.status.lock().placed = id;
            return;
        }
        // The engine has ended, so the start may never come back.
        if self.verdict().is_none() {
            for waker in self.tell(Told::Over(RunError::Closed, "closed".into())) {
                sync::assert_unlocked();
                contain_panic(|| waker.wake());
            }
        }
    }
}
