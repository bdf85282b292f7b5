//! The port to a runtime's clock and timers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A clock, and a way to be woken at a deadline.
///
/// Implementations are `TokioTimer` (feature `tokio`), `HyperTimer` (feature `hyper`: every timer
/// of hyper, such as that of smol-hyper) and [`ManualTimer`](crate::ManualTimer). A timer for
/// another runtime takes a dozen lines.
///
/// A hub reads the clock when an event is published and when a stream is idle. The hub holds at
/// most one [`Sleep`] per open stream, which a busy stream does not touch, and one per
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
    /// Returns the time now. Must never go back.
    fn now(&self) -> Instant;

    /// Returns a sleep that is ready once [`now`](Self::now) has reached `deadline`, and never
    /// before.
    ///
    /// A timer that is coarser than the clock must round up: a stream that is woken early assumes
    /// that the sleep will still fire.
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

/// A wait for a deadline, returned by [`Timer::sleep_until`].
///
/// A sleep is not a `Future`, because streams reuse sleeps: [`reset`](Self::reset) arms a sleep
/// again that was ready.
pub trait Sleep: Send + Sync + 'static {
    /// Returns ready if the deadline has passed. Otherwise wakes the waker of the *latest* call
    /// when the deadline passes.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    /// Sets another deadline.
    fn reset(self: Pin<&mut Self>, deadline: Instant);
}
