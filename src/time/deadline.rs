//! The deadlines of an idle stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::heartbeat::Heartbeat;
use super::timer::{Sleep, Timer};
use crate::sync;

/// The deadlines of an idle stream: the next heartbeat, and the end of the stream, if set.
///
/// A busy stream touches neither its timer nor the clock: the timer fires at an old deadline and is
/// then armed for the remaining time. The clock decides whether a deadline has passed, never the
/// timer.
pub(crate) struct IdleDeadline {
    every: Option<Duration>,
    /// Since when the stream has been idle. `None`: since the next look at the clock.
    since: Option<Instant>,
    armed: Option<Armed>,
}

/// The deadline that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Heartbeat,
    End,
}

struct Armed {
    sleep: Pin<Box<dyn Sleep>>,
    until: Instant,
    /// The waker that the sleep holds.
    waker: Waker,
}

impl IdleDeadline {
    pub(crate) fn new(heartbeat: Option<Heartbeat>) -> Self {
        Self { every: heartbeat.map(|heartbeat| heartbeat.every), since: None, armed: None }
    }

    /// Restarts the idle time, because the stream sends something now. Reads no clock.
    pub(crate) fn restart(&mut self) {
        self.since = None;
    }

    /// Restarts the idle time, because the stream sends an event that was published at `at`. The
    /// next look at the clock may be late: the idle time is then not counted from there.
    pub(crate) fn restart_at(&mut self, at: Instant) {
        self.since = Some(at);
    }

    /// Returns ready when the end of the stream has come, or when a heartbeat is due: the heartbeat
    /// then counts as sent. Must be polled only if the stream has nothing else to send.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: &dyn Timer,
        end: Option<Instant>,
    ) -> Poll<Due> {
        if self.every.is_none() && end.is_none() {
            return Poll::Pending;
        }
        // The clock, the sleep and the waker are foreign code.
        sync::assert_unlocked();
        loop {
            let now = timer.now();
            if end.is_some_and(|end| end <= now) {
                return Poll::Ready(Due::End);
            }
            let since = *self.since.get_or_insert(now);
            let heartbeat = self.every.and_then(|every| since.checked_add(every));
            if heartbeat.is_some_and(|due| due <= now) {
                self.since = Some(now);
                return Poll::Ready(Due::Heartbeat);
            }
            let Some(next) = [heartbeat, end].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            if self.sleep_until(next, now, timer, cx).is_pending() {
                return Poll::Pending;
            }
            // The timer fired before the clock reached `next`, or time passed since `now` was read:
            // ask the clock again.
        }
    }

    fn sleep_until(
        &mut self,
        due: Instant,
        now: Instant,
        timer: &dyn Timer,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let armed = match &mut self.armed {
            None => self.armed.insert(Armed {
                sleep: timer.sleep_until(due),
                until: due,
                waker: cx.waker().clone(),
            }),
            // The sleep fires for this task and no later than `due`: do not touch it.
            Some(armed)
                if now < armed.until && armed.until <= due && armed.waker.will_wake(cx.waker()) =>
            {
                return Poll::Pending;
            }
            Some(armed) => {
                if armed.until <= now || armed.until > due {
                    armed.until = due;
                    armed.sleep.as_mut().reset(due);
                }
                armed.waker.clone_from(cx.waker());
                armed
            }
        };
        armed.sleep.as_mut().poll(cx)
    }
}

impl fmt::Debug for IdleDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleDeadline").field("since", &self.since).finish_non_exhaustive()
    }
}
