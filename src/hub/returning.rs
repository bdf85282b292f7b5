//! Clients that return: their topics, and their announcement to other instances.

use std::sync::Arc;
use std::time::Instant;

use super::joining;
use super::shared::Shared;
use super::subscriber::Subscriber;
use crate::core::backplane::Outgoing;
use crate::core::client::Client;
use crate::core::config::Config;
use crate::core::deferred::Work;
use crate::core::state::State;
use crate::log::away::{Claimant, Returned};
use crate::log::codec::{self, Announcement};
use crate::log::identity::Membership;
use crate::log::key::{ClientId, Key};
use crate::log::mailbox::GapReason;
use crate::log::profile::Owner;
use crate::sync;
use crate::wire::id::Resume;

/// A request of a client that names the id of an earlier connection.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) id: ClientId,
    /// The client under the claimed id. Empty without a backplane.
    memberships: Vec<Membership>,
    after: Resume,
}

impl Claim {
    /// Hashes the names of the request: no lock may be held.
    pub(super) fn new(shared: &Shared, subscriber: &Subscriber, after: Resume) -> Option<Self> {
        let id = subscriber.client_id?;
        let memberships = if shared.config.backplane.is_some() {
            let mut memberships = subscriber.memberships(&shared.hasher);
            memberships.push(Membership::of(Key::Client(id), &shared.hasher));
            memberships
        } else {
            Vec::new()
        };
        Some(Self { id, memberships, after })
    }
}

/// Gives a client that was just registered the topics back that the server had added it to. The
/// topics of the request stay. Returns whether the client lacks a topic.
pub(super) fn restore(state: &mut State, slot: usize, returned: Returned, limit: usize) -> bool {
    let mut lacks = returned.is_partial;
    for Membership { key: topic, since, .. } in returned.topics {
        if joining::has_room(state, slot, &topic, limit) {
            state.routes.join_by_server(slot, topic, since);
        } else {
            lacks = true;
        }
    }
    lacks
}

/// Returns whether the hub knows a client under this id. If a client could not keep the id that it
/// claimed, the id is then that of another owner: the client never was that client.
pub(super) fn is_known(state: &State, id: ClientId) -> bool {
    let is_gone = state.departed.knows(id) || state.away.knows(id);
    is_gone || !state.routes.members(&Key::Client(id)).is_empty()
}

/// Returns whether a client may lack topics that the server had added it to, because the hub does
/// not know the client.
pub(super) fn may_lack(state: &State, claim: &Claim, now: Instant) -> bool {
    let Resume::After(after) = claim.after else { return false };
    // A client that is ahead may have joined in the part of the order that the hub has not read.
    after > state.log.head() || state.away.may_lack(&claim.memberships, after, now)
}

/// Finds the open connection of a client id, if it has this owner.
pub(super) fn connection_of(state: &State, id: ClientId, owner: &Owner) -> Option<usize> {
    let slot = state.routes.members(&Key::Client(id)).first()?.slot();
    (state.owner(slot) == *owner).then_some(slot)
}

/// Watches a client that named an id of which nothing is known, and that was not told so.
pub(super) fn watch(state: &mut State, slot: usize, claim: Claim, now: Instant) {
    // Without a backplane, nothing can become known later.
    if claim.memberships.is_empty() {
        return;
    }
    let Some(client) = state.routes.get(slot) else { return };
    let by = Claimant { slot, serial: client.serial };
    state.away.watch_claim(claim.memberships, by, now);
}

/// Tells a gap to watched clients that lack a topic which they had joined before they returned.
pub(super) fn tell(
    state: &mut State,
    claimants: Vec<Claimant>,
    topics: &[Key],
    work: &mut Work<'_>,
) {
    for Claimant { slot, serial } in claimants {
        let Some(client) = state.routes.get(slot).filter(|client| client.serial == serial) else {
            continue;
        };
        if topics.iter().all(|topic| joining::follows(state, slot, topic)) {
            continue;
        }
        let mut inbox = client.lock();
        if inbox.is_open() {
            let cursor = inbox.mailbox.cursor();
            inbox.mailbox.jump(cursor, state.log.head(), GapReason::Evicted, work.now);
            work.extend(inbox.take_waker());
        }
        drop(inbox);
        state.watch(slot, work);
    }
}

/// Returns the topics that the server has added a client of this owner to: a connected client, or
/// a client that would get the topics back.
pub(super) fn joined(state: &State, id: ClientId, owner: &Owner) -> Option<Returned> {
    match connection_of(state, id, owner) {
        Some(slot) => {
            let places = state.routes.memberships(slot).iter();
            let topics = places.filter(|place| place.is_joined).cloned().collect();
            Some(Returned { topics, is_partial: false })
        }
        None => state.away.returned(id, owner),
    }
}

/// Describes clients as of now. Clients without a topic that the server added them to are left out.
pub(super) fn describe(state: &State, ids: impl IntoIterator<Item = ClientId>) -> Announcement {
    let clients = ids.into_iter().filter_map(|id| state.profile(id));
    let clients = clients.filter(|client| client.topics.iter().any(|topic| topic.is_joined));
    Announcement { as_of: state.log.head(), clients: clients.collect() }
}

/// Describes the connected clients that have joined topics.
pub(super) fn describe_all(state: &State, config: &Config) -> Announcement {
    let clients = state.routes.iter().filter(|_| config.backplane.is_some());
    let joined = clients.filter(|&(slot, _)| joining::has_joined(state, slot));
    describe(state, joined.map(|(_, client): (usize, &Arc<Client>)| client.id))
}

/// Announces clients to the other instances. No lock may be held.
///
/// The backplane may be full. Then the clients are announced with the next command: until then,
/// other instances know from the command before that they do not know all.
pub(super) fn announce(shared: &Shared, announcement: Announcement) {
    sync::assert_unlocked();
    let Some(backplane) = &shared.config.backplane else { return };
    let mut clients = announcement.clients.iter().map(|client| client.id);
    let mut left = Vec::new();
    for (entry, count) in codec::write_announcements(&announcement) {
        let ids = clients.by_ref().take(count);
        if backplane.send(Outgoing::new(entry, None)).is_err() {
            left.extend(ids);
        } else {
            ids.for_each(drop);
        }
    }
    if !left.is_empty() {
        shared.state.lock().away.note_unannounced(left);
    }
}
