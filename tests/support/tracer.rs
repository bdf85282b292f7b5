//! Records what `tracing` tells.

use std::sync::LazyLock;

use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber, Subscriber, set_default};

/// Gives this thread's events to the subscriber until the guard is dropped.
///
/// While a process has a single subscriber, the first thread that meets an event decides for all
/// threads whether the event is enabled. A second subscriber prevents that.
pub(crate) fn trace_to(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&ANOTHER);
    set_default(subscriber)
}
