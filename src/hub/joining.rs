//! Joining a topic with its last events.
//!
//! A client that joins gets the events after its own position as it gets any event: with their ids,
//! from the log, in order with the others. The client has moved past the older events: these come
//! before, in the order of their ids, but without them, because an id would move the client back.

use std::sync::Arc;

use crate::core::client::Client;
use crate::core::deferred::Work;
use crate::core::state::State;
use crate::log::identity::Identity;
use crate::log::key::Key;
use crate::log::pages::{self, LastOf, Read};
use crate::sync::{self, Mutex, MutexGuard};
use crate::wire::id::EventId;

/// The most clients that join in one hold of the state lock: each looks at some of the topic's last
/// events.
const JOINED: usize = if cfg!(sse_hub_loom) { 1 } else { 64 };

/// A topic for clients to join, and the limits.
pub(super) struct Joined<'a> {
    pub(super) topic: &'a Key,
    /// The most events of the topic that each client gets.
    pub(super) last: usize,
    /// The most topics of a client.
    pub(super) limit: usize,
}

/// Adds clients to a topic, with the last events of the topic. Returns how many joined.
///
/// With events, the lock is released between two pieces. A client that left in between, or joined
/// other topics up to the limit, does not join.
pub(super) fn join<'a>(
    lock: &'a Mutex<State>,
    mut state: MutexGuard<'a, State>,
    slots: Vec<usize>,
    joined: &Joined<'_>,
    work: &mut Work<'_>,
) -> usize {
    if joined.last == 0 {
        let head = state.log.head();
        state.last_join = head;
        let joins = |&slot: &usize| state.join_topic(slot, joined.topic, head, work);
        return slots.into_iter().filter(joins).count();
    }
    let clients = slots.into_iter().filter_map(|slot| Some((slot, state.routes.get(slot)?)));
    let clients: Vec<_> = clients.map(|(slot, client)| (slot, Arc::clone(client))).collect();
    let mut changed = 0;
    for (number, piece) in clients.chunks(JOINED).enumerate() {
        if number > 0 {
            state = sync::yield_lock(lock, state);
        }
        state.last_join = state.log.head();
        for (slot, client) in piece {
            let may_join =
                state.has(*slot, client) && has_room(&state, *slot, joined.topic, joined.limit);
            changed += usize::from(may_join && join_one(&mut state, *slot, client, joined, work));
        }
    }
    changed
}

fn join_one(
    state: &mut State,
    slot: usize,
    client: &Arc<Client>,
    joined: &Joined<'_>,
    work: &mut Work<'_>,
) -> bool {
    let Joined { topic, last, .. } = *joined;
    let head = state.log.head();
    // Held to the end: a read in between would move the client past unsent events of the topic.
    let mut inbox = client.lock();
    if !inbox.is_open() {
        return state.join_topic(slot, topic, head, work);
    }
    // For every position at first, to judge the events of the topic.
    if !state.join_topic(slot, topic, EventId::ORIGIN, work) {
        return false;
    }
    let Some(now) = state.identity(slot) else { return false };
    let Some((_, others)) = now.memberships.split_last() else { return false };
    let before = Identity { memberships: others, ..now };
    let cursor = inbox.mailbox.cursor();
    let read = Read {
        from: client.start.get().copied().unwrap_or(cursor),
        position: cursor,
        has_values: client.has_values,
        values_upto: inbox.beginning().map(|values| values.upto),
    };
    let LastOf { older, has_newer, since } =
        pages::last_of(&state.log, topic, [before, now], last, read);
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
    inbox.add_unsent(older);
    if has_newer || has_older {
        work.extend(inbox.take_waker());
    }
    drop(inbox);
    if has_newer {
        state.watch(slot, work);
    }
    true
}

pub(super) fn follows(state: &State, slot: usize, topic: &Key) -> bool {
    state.routes.memberships(slot).iter().any(|place| place.key == *topic)
}

/// Whether a client follows this topic, or may follow one more.
pub(super) fn has_room(state: &State, slot: usize, topic: &Key, limit: usize) -> bool {
    let is_topic = |key: &Key| matches!(key, Key::Topic(_));
    let places = state.routes.memberships(slot);
    let topics = places.iter().filter(|place| is_topic(&place.key)).count();
    topics < limit || follows(state, slot, topic)
}
