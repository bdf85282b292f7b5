//! The timer of tokio.

use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::runtime::Handle;

use super::timer::{Sleep, Timer};

/// The timer of tokio.
///
/// Streams must be polled inside a tokio runtime with an enabled timer; axum and warp do that.
/// Outside of a runtime a stream sends no heartbeats, and the crate logs this once at `ERROR`. In a
/// runtime that was built without `enable_time`, tokio panics, as for its own timers. Obeys
/// `tokio::time::pause`.
///
/// ```
/// use sse_hub::{Hub, TokioTimer};
///
/// let hub = Hub::builder(TokioTimer::new()).build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TokioTimer;

impl TokioTimer {
    /// Creates the timer. May be called outside of a runtime.
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
        // Log once: this is a mistake in the program, and every stream would repeat it.
        static LOGGED: Once = Once::new();
        LOGGED.call_once(|| {
            tracing::error!(
                target: "sse_hub",
                "stream polled outside of a tokio runtime: no heartbeats"
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
