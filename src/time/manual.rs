//! A clock for tests.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::timer::{Sleep, Timer};
use crate::sync::{self, Mutex};

/// A clock that stands still until a test [advances](Self::advance) the time: a test of hours of
/// heartbeats takes milliseconds.
///
/// Clones share the clock.
///
/// ```
/// use std::time::Duration;
/// use futures_util::StreamExt as _;
/// use sse_hub::{Heartbeat, Hub, ManualTimer, Subscriber};
/// # use futures_util::FutureExt as _;
///
/// let timer = ManualTimer::new();
/// let heartbeat = Heartbeat::default().every(Duration::from_secs(15));
/// let hub = Hub::builder(timer.clone()).heartbeat(heartbeat).build()?;
/// let mut stream = hub.subscribe(Subscriber::new())?;
/// stream.next().now_or_never().expect("`hub:open` is ready at once");
/// assert!(stream.next().now_or_never().is_none());
///
/// timer.advance(Duration::from_secs(15));
/// assert_eq!(stream.next().now_or_never(), Some(Some(":\n".into())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ManualTimer {
    clock: Arc<Mutex<Clock>>,
}

struct Clock {
    now: Instant,
    sleeps: Slab<Pending>,
}

struct Pending {
    deadline: Instant,
    waker: Option<Waker>,
}

impl ManualTimer {
    /// Creates a clock that starts at the present.
    #[must_use]
    pub fn new() -> Self {
        let clock = Clock { now: Instant::now(), sleeps: Slab::new() };
        Self { clock: Arc::new(Mutex::new(clock)) }
    }

    /// Advances the clock and wakes the sleeps whose deadline has passed. Does nothing if the time
    /// would exceed the range of `Instant`.
    pub fn advance(&self, by: Duration) {
        let due: Vec<Waker> = {
            let mut clock = self.clock.lock();
            let now = clock.now.checked_add(by).unwrap_or(clock.now);
            clock.now = now;
            let due = clock.sleeps.iter_mut().filter(|(_, sleep)| sleep.deadline <= now);
            due.filter_map(|(_, sleep)| sleep.waker.take()).collect()
        };
        // After unlocking: a waker may call this timer.
        due.into_iter().for_each(Waker::wake);
    }

    /// Returns the earliest deadline for which a task waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let clock = self.clock.lock();
        let waiting = clock.sleeps.iter().filter(|(_, sleep)| sleep.waker.is_some());
        waiting.map(|(_, sleep)| sleep.deadline).min()
    }
}

impl Default for ManualTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = self.clock.lock();
        f.debug_struct("ManualTimer")
            .field("now", &clock.now)
            .field("sleeps", &clock.sleeps.len())
            .finish()
    }
}

impl Timer for ManualTimer {
    fn now(&self) -> Instant {
        self.clock.lock().now
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let key = self.clock.lock().sleeps.insert(Pending { deadline, waker: None });
        Box::pin(ManualSleep { clock: Arc::clone(&self.clock), key })
    }
}

struct ManualSleep {
    clock: Arc<Mutex<Clock>>,
    key: usize,
}

impl Sleep for ManualSleep {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned before the lock is taken, and dropped after it: a waker may call this timer.
        sync::assert_unlocked();
        let waker = cx.waker().clone();
        let mut clock = self.clock.lock();
        let now = clock.now;
        let sleep = &mut clock.sleeps[self.key];
        if sleep.deadline <= now {
            return Poll::Ready(());
        }
        let old = sleep.waker.replace(waker);
        drop(clock);
        drop(old);
        Poll::Pending
    }

    fn reset(self: Pin<&mut Self>, deadline: Instant) {
        self.clock.lock().sleeps[self.key].deadline = deadline;
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        let pending = self.clock.lock().sleeps.remove(self.key);
        // After unlocking: the destructor of a waker is foreign code.
        drop(pending);
    }
}
