//! The events of the crate for `tracing`: a function per event.
//!
//! Call these functions without a lock: a subscriber of `tracing` is foreign code. `INFO` and `WARN`
//! are for events that happen a few times in a hub's life, or are rate-limited by their caller.
//! Events that a crowd of clients can cause are `DEBUG`. No event names a user, a session or a
//! topic. `design.rs` lists the events for operators.

use std::error::Error;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::end::EndReason;
use crate::error::RefusedCause;
use crate::log::key::ClientId;
use crate::log::runs::RunState;
use crate::sync;
use crate::wire::id::EventId;

/// The target of every event of this crate.
const TARGET: &str = "sse_hub";

pub(crate) fn built(birth: EventId) {
    sync::assert_unlocked();
    debug!(target: TARGET, epoch = birth.epoch(), "hub built");
}

pub(crate) fn opened(client: ClientId, has_user: bool, start: &str) {
    sync::assert_unlocked();
    debug!(target: TARGET, %client, has_user, start, "client opened");
}

pub(crate) fn ended(client: ClientId, has_user: bool, reason: EndReason) {
    sync::assert_unlocked();
    debug!(target: TARGET, %client, has_user, reason = reason.as_str(), "client ended");
}

/// `error`: why the application's snapshot ended early.
pub(crate) fn snapshot_failed(client: ClientId, error: &(dyn Error + 'static)) {
    sync::assert_unlocked();
    debug!(target: TARGET, %client, error, "snapshot failed");
}

pub(crate) fn refused(cause: RefusedCause) {
    sync::assert_unlocked();
    debug!(target: TARGET, cause = cause.as_str(), "client refused");
}

pub(crate) fn drain_started(clients: usize, over: Duration) {
    sync::assert_unlocked();
    info!(target: TARGET, clients, over_ms = millis(over), "drain started");
}

/// `cut`: how many clients were left at the end of the period.
pub(crate) fn drain_ended(cut: usize, took: Duration) {
    sync::assert_unlocked();
    info!(target: TARGET, cut, took_ms = millis(took), "drain ended");
}

pub(crate) fn closed(clients: usize, published: u64) {
    sync::assert_unlocked();
    info!(target: TARGET, clients, published, "hub closed");
}

/// `events`: how many events the run had, its end included.
pub(crate) fn run_ended(state: RunState, events: u64) {
    sync::assert_unlocked();
    debug!(target: TARGET, state = state.as_str(), events, "run ended");
}

/// `cause`: why the backplane cannot be reached, or `None` if it can be reached again.
pub(crate) fn degraded(cause: Option<&str>) {
    sync::assert_unlocked();
    match cause {
        Some(cause) => warn!(target: TARGET, cause, "backplane unreachable"),
        None => info!(target: TARGET, "backplane reachable again"),
    }
}

/// The order was replaced, and every client gets a gap.
pub(crate) fn reset(floor: EventId) {
    sync::assert_unlocked();
    warn!(target: TARGET, %floor, "order reset");
}

/// Clients that a command of another instance could not add to a topic.
pub(crate) fn join_rejected(clients: usize, limit: usize) {
    sync::assert_unlocked();
    debug!(target: TARGET, clients, limit, "join rejected: topic limit");
}

/// Reported once in a hub's life.
pub(crate) fn remote_users_limit(limit: usize) {
    sync::assert_unlocked();
    warn!(target: TARGET, limit, "remote users ignored: `Presence::max_remote_users` reached");
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
