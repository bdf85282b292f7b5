//! The clients of an audience, found a piece at a time.

use std::sync::Arc;

use super::shared::Shared;
use crate::core::client::Client;
use crate::core::state::{PIECE, State};
use crate::log::recipients::Recipients;
use crate::sync;
use crate::wire::id::EventId;

/// A client of an audience. The hub may have forgotten the client since, and may have given the
/// slot to another client.
pub(super) struct Found<T> {
    pub(super) slot: usize,
    pub(super) client: Arc<Client>,
    /// The result of the visit.
    pub(super) visit: T,
}

/// Visits an audience's clients, and returns them in the order in which they connected. Releases
/// the lock between two pieces. A client that connects meanwhile is not found.
///
/// A client with several keys of the audience is visited for each. The result has the first visit.
/// `visit` runs under the lock.
pub(super) fn find<T, F>(shared: &Shared, audience: &Recipients, mut visit: F) -> Vec<Found<T>>
where
    F: FnMut(&State, usize, &Client) -> T,
{
    let is_all = audience.are_all_holders();
    // Not under the lock: if many clients have freed memory, the allocator can tidy up for
    // milliseconds before it returns a large piece.
    let mut found = Vec::with_capacity(most(shared, audience));
    let mut state = shared.state.lock();
    let newest = state.counts.opened;
    for key in audience.keys() {
        // From the end: see `Routes::unlist`. No client that moves in the list is missed.
        let mut left = usize::MAX;
        loop {
            let members = state.routes.members(key);
            left = left.min(members.len());
            let rest = left.saturating_sub(PIECE);
            let is_in = |client| is_all || audience.include(client, EventId::LAST);
            for member in members[rest..left].iter().rev() {
                let (slot, client) = (member.slot(), &member.reach);
                if client.serial <= newest && state.identity(slot).is_some_and(is_in) {
                    let visit = visit(&state, slot, client);
                    found.push(Found { slot, client: Arc::clone(client), visit });
                }
            }
            left = rest;
            if left == 0 {
                break;
            }
            state = sync::yield_lock(&shared.state, state);
        }
    }
    drop(state);
    // A stable sort: the first visit stays the first.
    found.sort_by_key(|found| found.client.serial);
    found.dedup_by_key(|found| found.client.serial);
    found
}

/// Returns the most clients that [`find`] finds now.
pub(super) fn most(shared: &Shared, audience: &Recipients) -> usize {
    let state = shared.state.lock();
    audience.keys().iter().map(|key| state.routes.members(key).len()).sum()
}
