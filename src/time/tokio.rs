use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::runtime::Handle;

use super::timer::{Sleep, Timer};

/// tokio's timer.
///
/// Streams must be polled inside a tokio runtime whose timer is enabled, which is where axum and warp poll them.
/// Outside of one there are no heartbeats, and a log line at `ERROR` says so. In a runtime built without
/// `enable_time` tokio panics, as it does for its own timers. Obeys `tokio::time::pause`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TokioTimer;

impl TokioTimer {
    /// May be called anywhere, also before there is a runtime.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Timer for TokioTimer {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        if Handle::try_current().is_ok() {
            return Box::pin(TokioSleep { sleep: tokio::time::sleep_until(deadline.into()) });
        }
        // Once: this is a fault of the program, and every stream would repeat it.
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::error!(
                "streams are polled outside of a tokio runtime: they send no heartbeats"
            );
        });
        Box::pin(Never)
    }
}

pin_project_lite::pin_project! {
    struct TokioSleep { #[pin] sleep: tokio::time::Sleep }
}

impl Sleep for TokioSleep {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.project().sleep, cx)
    }

    fn reset(self: Pin<&mut Self>, deadline: Instant) {
        self.project().sleep.reset(deadline.into());
    }
}

struct Never;

impl Sleep for Never {
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn reset(self: Pin<&mut Self>, _: Instant) {}
}
