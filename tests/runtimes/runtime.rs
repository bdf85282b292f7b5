//! The four runtimes, behind the few operations that a test needs.

use std::pin::Pin;
use std::thread;
use std::time::Duration;

#[cfg(feature = "hyper")]
use sse_hub::HyperTimer;
use sse_hub::{ManualTimer, Timer};

pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) trait Runtime: 'static {
    type Timer: Timer + Clone;

    /// A short time, just long enough to be distinguished from none.
    const WHILE: Duration;

    fn start() -> Self;

    fn timer(&self) -> Self::Timer;

    fn block_on<T>(&self, test: impl Future<Output = T>) -> T;

    /// Runs a future beside the test. The returned future completes with the result.
    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T>;

    /// Advances a manual clock. A real clock needs no call.
    fn pass(&self, _: Duration) {}

    /// Returns true if a task waits for a manual clock: advancing the clock before would be too
    /// early.
    fn is_waited_for(&self) -> bool {
        true
    }
}

/// Tests wait for this time and use the time only as a lower bound, because a busy machine may take
/// longer.
#[cfg(any(feature = "hyper", feature = "tokio"))]
const REAL_WHILE: Duration = Duration::from_millis(40);

#[cfg(feature = "tokio")]
pub(crate) mod with_tokio {
    use super::{Duration, REAL_WHILE, Runtime, Task};
    use sse_hub::TokioTimer;
    use tokio::runtime::{self, Builder};

    pub(crate) struct ManyThreads(runtime::Runtime);

    pub(crate) struct OneThread(runtime::Runtime);

    fn spawn<T: Send + 'static>(
        runtime: &runtime::Runtime,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let handle = runtime.spawn(task);
        Box::pin(async { handle.await.unwrap() })
    }

    impl Runtime for ManyThreads {
        type Timer = TokioTimer;

        const WHILE: Duration = REAL_WHILE;

        fn start() -> Self {
            Self(Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap())
        }

        fn timer(&self) -> TokioTimer {
            TokioTimer::new()
        }

        fn block_on<T>(&self, test: impl Future<Output = T>) -> T {
            self.0.block_on(test)
        }

        fn spawn<T: Send + 'static>(
            &self,
            task: impl Future<Output = T> + Send + 'static,
        ) -> Task<T> {
            spawn(&self.0, task)
        }
    }

    impl Runtime for OneThread {
        type Timer = TokioTimer;

        const WHILE: Duration = REAL_WHILE;

        fn start() -> Self {
            Self(Builder::new_current_thread().enable_time().build().unwrap())
        }

        fn timer(&self) -> TokioTimer {
            TokioTimer::new()
        }

        fn block_on<T>(&self, test: impl Future<Output = T>) -> T {
            self.0.block_on(test)
        }

        fn spawn<T: Send + 'static>(
            &self,
            task: impl Future<Output = T> + Send + 'static,
        ) -> Task<T> {
            spawn(&self.0, task)
        }
    }
}

/// smol, with its timer for hyper. The test and the executor run on different threads.
#[cfg(feature = "hyper")]
pub(crate) struct Smol;

#[cfg(feature = "hyper")]
impl Runtime for Smol {
    type Timer = HyperTimer;

    const WHILE: Duration = REAL_WHILE;

    fn start() -> Self {
        Self
    }

    fn timer(&self) -> HyperTimer {
        HyperTimer::new(smol_hyper::rt::SmolTimer::new())
    }

    fn block_on<T>(&self, test: impl Future<Output = T>) -> T {
        smol::block_on(test)
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        Box::pin(smol::spawn(task))
    }
}

/// No runtime: blocking threads, and a manual clock.
pub(crate) struct Bare(ManualTimer);

impl Runtime for Bare {
    type Timer = ManualTimer;

    /// Costs no real time.
    const WHILE: Duration = Duration::from_secs(3600);

    fn start() -> Self {
        Self(ManualTimer::new())
    }

    fn timer(&self) -> ManualTimer {
        self.0.clone()
    }

    fn block_on<T>(&self, test: impl Future<Output = T>) -> T {
        futures_executor::block_on(test)
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let thread = thread::spawn(|| futures_executor::block_on(task));
        // Blocks only the thread of the test.
        Box::pin(async { thread.join().unwrap() })
    }

    fn pass(&self, time: Duration) {
        self.0.advance(time);
    }

    fn is_waited_for(&self) -> bool {
        self.0.next_deadline().is_some()
    }
}
