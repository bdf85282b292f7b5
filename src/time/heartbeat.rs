use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::timer::{Sleep, Timer};
use crate::wire::frame;

/// What is sent on a stream that has nothing to send.
///
/// A heartbeat keeps proxies from closing a silent connection and lets a dead one be noticed. By default it is a
/// comment, which no page sees, after 15 seconds of silence.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::Heartbeat;
///
/// let comment = Heartbeat::every(Duration::from_secs(25));
/// let event = Heartbeat::every(Duration::from_secs(25)).visible();
/// # assert_ne!(comment, event);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    pub(crate) every: Option<Duration>,
    pub(crate) visible: bool,
}

impl Heartbeat {
    /// After this much silence, and again after each further span of it. Most proxies allow 60 seconds.
    #[must_use]
    pub const fn every(silence: Duration) -> Self {
        Self { every: Some(silence), visible: false }
    }

    /// None: only for streams that are never silent for long.
    #[must_use]
    pub const fn off() -> Self {
        Self { every: None, visible: false }
    }

    /// Sends a `hub:heartbeat` event in place of the comment, for pages that watch a native `EventSource` for life:
    /// it shows them no comments.
    #[must_use]
    pub const fn visible(mut self) -> Self {
        self.visible = true;
        self
    }

    pub(crate) const fn frame(self) -> Bytes {
        if self.visible { frame::VISIBLE_HEARTBEAT } else { frame::HEARTBEAT }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::every(Duration::from_secs(15))
    }
}

/// What a silent stream waits for in time: its next heartbeat, and its end if it has one.
///
/// While a stream is busy its timer is not touched: it is left to go off at an old deadline, and then armed for what
/// is left. Whether something is due is decided by the clock, never by the timer.
pub(crate) struct Silence {
    every: Option<Duration>,
    /// Something was sent since `due` was set.
    broken: bool,
    due: Option<Instant>,
    armed: Option<Armed>,
}

/// What has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Heartbeat,
    End,
}

struct Armed {
    sleep: Pin<Box<dyn Sleep>>,
    until: Instant,
    /// Whom it will wake.
    waker: Waker,
}

impl Silence {
    pub(crate) fn new(heartbeat: Heartbeat) -> Self {
        Self { every: heartbeat.every, broken: true, due: None, armed: None }
    }

    /// Something is sent now.
    pub(crate) fn end(&mut self) {
        self.broken = true;
    }

    /// Ready when the stream's end has come, or a heartbeat is due, which then counts as sent. To be polled only when
    /// there is nothing else to send.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: &dyn Timer,
        end: Option<Instant>,
    ) -> Poll<Due> {
        if self.every.is_none() && end.is_none() {
            return Poll::Pending;
        }
        loop {
            let now = timer.now();
            if end.is_some_and(|end| end <= now) {
                return Poll::Ready(Due::End);
            }
            if mem::take(&mut self.broken) {
                self.due = self.every.and_then(|every| now.checked_add(every));
            }
            if self.due.is_some_and(|due| due <= now) {
                self.due = self.every.and_then(|every| now.checked_add(every));
                return Poll::Ready(Due::Heartbeat);
            }
            let Some(next) = [self.due, end].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            if self.sleep_until(next, now, cx, timer).is_pending() {
                return Poll::Pending;
            }
            // The timer and the clock disagree by a moment, or time has passed since `now`: ask the clock again.
        }
    }

    fn sleep_until(
        &mut self,
        due: Instant,
        now: Instant,
        cx: &mut Context<'_>,
        timer: &dyn Timer,
    ) -> Poll<()> {
        let armed = match &mut self.armed {
            None => self.armed.insert(Armed {
                sleep: timer.sleep_until(due),
                until: due,
                waker: cx.waker().clone(),
            }),
            // It will still go off, for this task, and no later than `due`: leave it alone.
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

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silence")
            .field("every", &self.every)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}
