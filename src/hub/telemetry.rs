//! What is told to `tracing`: one function for each event. Called when no lock is held.
//!
//! `INFO` is for what happens a few times in a hub's life. What a crowd of clients can cause is `DEBUG`, and names of
//! users, sessions and topics are in neither.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::end::EndReason;
use crate::error::RefusedCause;
use crate::log::key::ClientId;
use crate::wire::id::EventId;

const TARGET: &str = "sse_hub";

pub(super) fn built(birth: EventId) {
    debug!(target: TARGET, epoch = birth.epoch(), "hub built");
}

pub(super) fn opened(client: ClientId, has_user: bool, start: &str) {
    debug!(target: TARGET, %client, has_user, start, "client opened");
}

pub(super) fn ended(client: ClientId, has_user: bool, reason: EndReason) {
    debug!(target: TARGET, %client, has_user, reason = reason.as_str(), "client ended");
}

pub(super) fn refused(cause: RefusedCause) {
    debug!(target: TARGET, cause = cause.as_str(), "client refused");
}

pub(super) fn drain_started(clients: usize, over: Duration) {
    info!(target: TARGET, clients, over_ms = millis(over), "drain started");
}

/// `cut`: how many clients were left at the end of the period.
pub(super) fn drain_ended(cut: usize, took: Duration) {
    info!(target: TARGET, cut, took_ms = millis(took), "drain ended");
}

pub(super) fn closed(clients: usize, published: u64) {
    info!(target: TARGET, clients, published, "hub closed");
}

/// Events are held up, or no longer.
pub(super) fn degraded(cause: Option<&str>) {
    match cause {
        Some(cause) => warn!(target: TARGET, cause, "backplane lost"),
        None => info!(target: TARGET, "backplane found again"),
    }
}

/// Everybody was told a gap.
pub(super) fn reset(floor: EventId) {
    warn!(target: TARGET, %floor, "history lost");
}

/// Clients that were to join a topic everywhere and have as many as they may.
pub(super) fn not_joined(clients: usize, limit: usize) {
    debug!(target: TARGET, clients, limit, "no room for a topic");
}

/// Once in a hub's life.
pub(super) fn too_many_elsewhere() {
    warn!(target: TARGET, "more users of other instances than `Presence::elsewhere` allows: some are not seen");
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
