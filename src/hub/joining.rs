//! Joining a topic, with its last events, and leaving a topic.
//!
//! A client that joins gets the events after its own position as it gets any event: with their ids,
//! from the log, in order with the others. The client has moved past the older events: these come
//! before, in the order of their ids, but without them, because an id would move the client back.

use std::sync::Arc;

use super::crowd;
use super::shared::Shared;
use crate::core::client::Client;
use crate::core::deferred::Work;
use crate::core::state::State;
use crate::log::identity::{Identity, Membership};
use crate::log::key::{ClientId, Key};
use crate::log::pages::{self, LastOf, Older, Read};
use crate::log::recipients::Recipients;
use crate::log::routes::Member;
use crate::sync::MutexGuard;
use crate::wire::id::EventId;

/// The most clients that join or leave a topic in a hold of the locks.
const JOINED: usize = if cfg!(sse_hub_loom) { 1 } else { 64 };

/// The most events of the topic that the clients of a hold look at, but for those of the last
/// client. With many events for each client, fewer clients join in a hold.
const LOOKED_AT: usize = 2048;

/// A change of the clients of a topic.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Join(Joined<'a>),
    Leave(&'a Key),
}

/// A topic for clients to join, and the limits.
#[derive(Clone, Copy)]
pub(super) struct Joined<'a> {
    pub(super) topic: &'a Key,
    /// The most events of the topic that each client gets.
    pub(super) last: usize,
    /// The most topics of a client.
    pub(super) limit: usize,
}

/// The relation of a client to a topic, at the time of the search.
pub(super) struct Relation {
    pub(super) follows: bool,
    /// The client follows the topic, or may follow another topic.
    pub(super) has_room: bool,
    /// The server had added the client to a topic before.
    pub(super) has_joined: bool,
}

pub(super) type Found = crowd::Found<Relation>;

/// Finds an audience's clients. A caller that then changes the clients must note before which
/// clients come back meanwhile: see [`Returns`].
pub(super) fn find(shared: &Shared, audience: &Recipients, topic: &Key) -> Vec<Found> {
    let limit = shared.config.limits.topics;
    crowd::find(shared, audience, |state, slot, _| Relation {
        follows: follows(state, slot, topic),
        has_room: has_room(state, slot, topic, limit),
        has_joined: has_joined(state, slot),
    })
}

/// Adds clients to a topic, or removes clients. Returns how many clients this changed.
///
/// A client that has left the hub since the search does not join, nor does a client without room for
/// the topic. A crowd changes a piece at a time, and each piece waits for the current hand-out.
/// Otherwise each piece of a hand-out could wait for a piece of the crowd, and the publisher for all
/// of these.
pub(super) fn change(shared: &Shared, clients: &[Found], change: Change<'_>) -> usize {
    let mut pieces = Pieces::new(clients);
    let mut changed = 0;
    while !pieces.left.is_empty() {
        let mut work = Work::begin(&shared.config);
        // As for the list in `crowd::find`.
        work.expect_wakers(pieces.left.len().min(JOINED));
        let order = (clients.len() > JOINED).then(|| shared.order.lock());
        changed += pieces.change_next(&mut shared.state.lock(), change, &mut work);
        order.into_iter().for_each(MutexGuard::hand_over);
        work.run();
    }
    changed
}

/// The same for a caller that holds the ordering lock.
pub(super) fn change_in_order(
    shared: &Shared,
    clients: &[Found],
    change: Change<'_>,
    work: &mut Work<'_>,
) {
    let mut pieces = Pieces::new(clients);
    while !pieces.left.is_empty() {
        pieces.change_next(&mut shared.state.lock(), change, work);
    }
}

/// A crowd that changes a piece at a time.
struct Pieces<'a> {
    left: &'a [Found],
    /// The last events of the topic, as the client before got them.
    older: Older,
}

impl<'a> Pieces<'a> {
    fn new(clients: &'a [Found]) -> Self {
        Self { left: clients, older: Older::default() }
    }

    /// Changes the next clients, [`JOINED`] at most. Returns how many of these the change reached.
    fn change_next(&mut self, state: &mut State, change: Change<'_>, work: &mut Work<'_>) -> usize {
        if let Change::Join(_) = change {
            state.last_join = state.log.head();
        }
        let (mut changed, mut room) = (0, LOOKED_AT);
        for _ in 0..JOINED {
            let Some((Found { slot, client, .. }, left)) = self.left.split_first() else { break };
            self.left = left;
            if !state.has(*slot, client) {
                continue;
            }
            let is_changed = match change {
                Change::Join(joined) if !has_room(state, *slot, joined.topic, joined.limit) => {
                    false
                }
                Change::Join(Joined { topic, last: 0, .. }) => {
                    state.join_topic(*slot, topic, state.log.head(), work)
                }
                Change::Join(joined) => {
                    let (joins, looked) =
                        join_one(state, *slot, client, &joined, &mut self.older, work);
                    room = room.saturating_sub(looked);
                    joins
                }
                Change::Leave(topic) => state.leave_topic(*slot, topic, work),
            };
            changed += usize::from(is_changed);
            if room == 0 {
                break;
            }
        }
        changed
    }
}

/// Adds a client to a topic with its last events. Returns whether the client joins, and how many
/// events this looked at. `known`: the events of the client before.
fn join_one(
    state: &mut State,
    slot: usize,
    client: &Arc<Client>,
    joined: &Joined<'_>,
    known: &mut Older,
    work: &mut Work<'_>,
) -> (bool, usize) {
    let Joined { topic, last, .. } = *joined;
    let head = state.log.head();
    // Held to the end: a read in between would move the client past unsent events of the topic.
    let mut inbox = client.lock();
    if !inbox.is_open() {
        return (state.join_topic(slot, topic, head, work), 0);
    }
    // For every position at first, to judge the events of the topic.
    if !state.join_topic(slot, topic, EventId::ORIGIN, work) {
        return (false, 0);
    }
    let Some(now) = state.identity(slot) else { return (false, 0) };
    let Some((_, others)) = now.memberships.split_last() else { return (false, 0) };
    let before = Identity { memberships: others, ..now };
    let cursor = inbox.mailbox.cursor();
    let read = Read {
        from: client.start.get().copied().unwrap_or(cursor),
        position: cursor,
        has_values: client.has_values,
        values_upto: inbox.beginning().map(|values| values.upto),
    };
    let LastOf { older, has_newer, since, looked_at } =
        pages::last_of(&state.log, topic, [before, now], last, read, known);
    let has_lost = state.log.lost_since(cursor, before).is_some();
    state.routes.hold_last_since(slot, since);
    // A client that reads the log, or will, reads these events there.
    if has_newer && !inbox.mailbox.will_read_log() {
        inbox.mailbox.restart(head, work.now);
        if !has_lost {
            inbox.mailbox.excuse(state.log.evictions());
        }
    }
    let has_older = !older.is_empty();
    if has_older {
        known.clone_from(&older);
        inbox.add_unsent(older);
    }
    if has_newer || has_older {
        work.wake_later(inbox.take_waker());
    }
    drop(inbox);
    if has_newer {
        state.watch(slot, work);
    }
    (true, looked_at)
}

/// Notes which clients come back while a crowd changes in pieces. Such a client can be missed twice:
/// it was not connected when the crowd was searched, and is not away when the change ends.
///
/// Dropping this ends the notes, and takes the state lock for it.
pub(super) struct Returns<'a> {
    shared: &'a Shared,
    /// The number of the list. `None` if the notes have ended.
    list: Option<usize>,
}

impl<'a> Returns<'a> {
    pub(super) fn note(shared: &'a Shared) -> Self {
        Self { shared, list: Some(shared.state.lock().away.begin_noting()) }
    }

    /// Ends a change: changes the clients that are away, and those of the audience that have come
    /// back. Returns the clients that have come back, and the clients that are away and joined a
    /// topic for the first time.
    pub(super) fn change(
        mut self,
        state: &mut State,
        audience: &Recipients,
        change: Change<'_>,
        since: EventId,
        work: &mut Work<'_>,
    ) -> Vec<ClientId> {
        let list = self.list.take();
        let mut ids = list.map(|list| state.away.end_noting(list)).unwrap_or_default();
        for id in &ids {
            let back = state.routes.members(&Key::Client(*id)).first().map(Member::slot);
            let is_in = |&slot: &usize| {
                let identity = state.identity(slot);
                identity.is_some_and(|client| audience.include(client, EventId::LAST))
            };
            let Some(slot) = back.filter(is_in) else { continue };
            match change {
                Change::Join(Joined { topic, limit, .. })
                    if has_room(state, slot, topic, limit) =>
                {
                    state.join_topic(slot, topic, since, work);
                }
                Change::Join(_) => {}
                Change::Leave(topic) => {
                    state.leave_topic(slot, topic, work);
                }
            }
        }
        match change {
            Change::Join(Joined { topic, limit, .. }) => {
                ids.extend(state.away.join(audience, topic, since, limit));
            }
            Change::Leave(topic) => state.away.leave(audience, topic),
        }
        ids
    }
}

impl Drop for Returns<'_> {
    fn drop(&mut self) {
        if let Some(list) = self.list {
            self.shared.state.lock().away.end_noting(list);
        }
    }
}

/// Returns whether the server has added a client to a topic.
pub(super) fn has_joined(state: &State, slot: usize) -> bool {
    state.routes.memberships(slot).iter().any(|held| held.is_joined)
}

pub(super) fn follows(state: &State, slot: usize, topic: &Key) -> bool {
    state.routes.memberships(slot).iter().any(|held| held.key == *topic)
}

/// Returns whether a client follows this topic, or may follow another topic.
pub(super) fn has_room(state: &State, slot: usize, topic: &Key, limit: usize) -> bool {
    let is_topic = |held: &&Membership| matches!(held.key, Key::Topic(_));
    let count = state.routes.memberships(slot).iter().filter(is_topic).count();
    count < limit || follows(state, slot, topic)
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use crate::core::settings::Limits;
    use crate::hub::hub::Hub;
    use crate::hub::subscriber::Subscriber;
    use crate::log::audience::Audience;
    use crate::time::manual::ManualTimer;

    #[test]
    fn refused_join_notes_no_returns() {
        let limits = Limits::default().topics(1);
        let hub = Hub::builder(ManualTimer::new()).limits(limits).build().unwrap();
        let _client = hub.subscribe(Subscriber::new().topic("a")).unwrap();
        assert!(hub.join(Audience::all(), "b").is_err());
        assert!(!hub.shared().state.lock().away.is_noting());
    }
}
