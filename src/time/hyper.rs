//! Every timer of hyper, as a timer of a hub.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::rt;

use super::timer::{Sleep, Timer};

/// A timer of hyper, for a hub.
///
/// A runtime that hyper runs on has a [`hyper::rt::Timer`], such as `TokioTimer` of hyper-util or
/// `SmolTimer` of smol-hyper. A hub then needs no timer of its own for this runtime.
///
/// The runtime's rules hold for streams too: tokio's timers panic outside of a tokio runtime, where
/// `TokioTimer` of this crate only logs an error. A timer that fires early is armed again. Clones
/// share the timer.
///
/// ```
/// use std::time::Duration;
/// use futures_util::StreamExt as _;
/// use smol_hyper::rt::SmolTimer;
/// use sse_hub::{Heartbeat, Hub, HyperTimer, Subscriber};
///
/// # smol::block_on(async {
/// let heartbeat = Heartbeat::default().every(Duration::from_millis(20));
/// let hub = Hub::builder(HyperTimer::new(SmolTimer::new())).heartbeat(heartbeat).build()?;
/// let mut stream = hub.subscribe(Subscriber::new())?;
/// assert!(stream.next().await.unwrap().starts_with(b"event: hub:open\n"));
/// assert_eq!(stream.next().await.unwrap(), ":\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct HyperTimer {
    timer: Arc<dyn rt::Timer + Send + Sync>,
}

impl HyperTimer {
    /// Creates the timer of a hub from a timer of hyper.
    pub fn new(timer: impl rt::Timer + Send + Sync + 'static) -> Self {
        Self { timer: Arc::new(timer) }
    }
}

impl Timer for HyperTimer {
    fn now(&self) -> Instant {
        self.timer.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let sleep = self.timer.sleep_until(deadline);
        Box::pin(HyperSleep { timer: Arc::clone(&self.timer), sleep, deadline })
    }
}

impl fmt::Debug for HyperTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperTimer").finish_non_exhaustive()
    }
}

struct HyperSleep {
    timer: Arc<dyn rt::Timer + Send + Sync>,
    sleep: Pin<Box<dyn rt::Sleep>>,
    deadline: Instant,
}

impl Sleep for HyperSleep {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The clock decides. hyper's sleep is a future, and must not be polled after its end.
        if self.deadline <= self.timer.now() {
            return Poll::Ready(());
        }
        ready!(self.sleep.as_mut().poll(cx));
        if self.timer.now() < self.deadline {
            // hyper allows a timer that is coarser than its clock. Through the executor, not in a
            // loop: such a timer may be ready at once each time.
            let deadline = self.deadline;
            self.as_mut().reset(deadline);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        let this = &mut *self;
        this.deadline = deadline;
        this.timer.reset(&mut this.sleep, deadline);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::task::noop_waker_ref;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A timer whose sleeps are ready `early` before their deadline, and panic if polled after.
    #[derive(Clone)]
    struct Coarse {
        now: Arc<Mutex<Instant>>,
        early: Duration,
    }

    struct CoarseSleep {
        timer: Coarse,
        deadline: Instant,
        is_over: bool,
    }

    impl rt::Timer for Coarse {
        fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
            self.sleep_until(self.now() + duration)
        }

        fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
            Box::pin(CoarseSleep { timer: self.clone(), deadline, is_over: false })
        }

        fn now(&self) -> Instant {
            *self.now.lock().unwrap()
        }
    }

    impl rt::Sleep for CoarseSleep {}

    impl Future for CoarseSleep {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            assert!(!self.is_over, "polled after the end");
            self.is_over = self.deadline <= rt::Timer::now(&self.timer) + self.timer.early;
            if self.is_over { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    fn coarse(early: Duration) -> (Coarse, HyperTimer) {
        let coarse = Coarse { now: Arc::new(Mutex::new(Instant::now())), early };
        (coarse.clone(), HyperTimer::new(coarse))
    }

    fn poll(sleep: &mut Pin<Box<dyn Sleep>>) -> Poll<()> {
        sleep.as_mut().poll(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn early_timer_is_armed_again() {
        let (clock, timer) = coarse(SECOND);
        let mut sleep = timer.sleep_until(timer.now() + 2 * SECOND);
        for _ in 0..20 {
            assert_eq!(poll(&mut sleep), Poll::Pending);
            *clock.now.lock().unwrap() += SECOND / 10;
        }
        assert_eq!(poll(&mut sleep), Poll::Ready(()));
    }

    #[test]
    fn sleep_that_is_over_stays_ready_until_reset() {
        let (clock, timer) = coarse(Duration::ZERO);
        let mut sleep = timer.sleep_until(timer.now() + SECOND);
        for _ in 0..3 {
            assert_eq!(poll(&mut sleep), Poll::Pending);
            *clock.now.lock().unwrap() += SECOND;
            assert_eq!(poll(&mut sleep), Poll::Ready(()));
            assert_eq!(poll(&mut sleep), Poll::Ready(()));
            sleep.as_mut().reset(timer.now() + SECOND);
        }
    }
}
