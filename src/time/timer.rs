use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Time, as a hub gets it: a clock and a way to be woken.
///
/// `TokioTimer` (feature `tokio`) and [`ManualTimer`](crate::ManualTimer) are ready made; another runtime's takes
/// a dozen lines. A hub reads the clock when it publishes and when a stream has nothing to send, and holds at most
/// one [`Sleep`] for each open stream, which is not touched while the stream is busy, and one for each
/// [`PresenceWatch`](crate::PresenceWatch).
///
/// ```
/// use std::pin::Pin;
/// use std::time::Instant;
/// use sse_hub::{Sleep, Timer};
///
/// #[derive(Debug)]
/// struct MyTimer;
///
/// impl Timer for MyTimer {
///     fn now(&self) -> Instant {
///         Instant::now()
///     }
///
///     fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
/// #       sse_hub::ManualTimer::new().sleep_until(deadline)
/// #       /*
///         Box::pin(MySleep::new(deadline))
/// #       */
///     }
/// }
/// ```
pub trait Timer: fmt::Debug + Send + Sync + 'static {
    /// The time now. Never goes back.
    fn now(&self) -> Instant;

    /// What is ready once [`now`](Self::now) has reached `deadline`, and not a moment before. A timer that is coarser than
    /// its clock rounds up: a stream that is woken early leaves its sleep alone, as one that is still to go off.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>>;
}

impl<T: Timer + ?Sized> Timer for Arc<T> {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        (**self).sleep_until(deadline)
    }
}

/// A deadline to wait for, made by [`Timer::sleep_until`].
///
/// It is not a `Future` because it is used again and again: after it was ready, [`reset`](Self::reset) arms it
/// anew.
pub trait Sleep: Send + Sync + 'static {
    /// Ready once the deadline has passed. Until then the waker of the *latest* call is woken when it does.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    /// Waits for another deadline instead.
    fn reset(self: Pin<&mut Self>, deadline: Instant);
}
