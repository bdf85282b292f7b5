//! What a hub and its subscriptions share.
//!
//! Lock order: the *ordering* lock, then the *state* lock, then a client's *inbox*. A thread that holds one takes
//! only those after it. Wakers are woken, and dropped, when none is held: both are foreign code.
//!
//! The ordering lock is the publishers' own and is held from the issuing of an id until its event has been handed to
//! everybody, so hand-outs come in id order. The state lock is let go of between the pieces of a large hand-out, so
//! that a client that connects or catches up meanwhile waits for a piece of it and not for all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::task::Waker;

use slab::Slab;

use super::config::Config;
use super::ending::{End, EndReason, Until, Watched};
use super::later::{Ended, Later};
use super::presence::Roster;
use super::receipt::Receipt;
use super::stats::{Counts, Reads, Stats};
use crate::error::PublishError;
use crate::log::audience::{Audience, ClientId, Filter, Identity, Key};
use crate::log::departed::{Departed, Owner};
use crate::log::log::{Entry, Log, Parts};
use crate::log::lost::Marker;
use crate::log::mailbox::Mailbox;
use crate::log::routes::Routes;
use crate::sync::{self, Mutex, MutexGuard};
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// How many clients are handed an event before the state lock is let go of. One, where loom looks at every order.
const PIECE: usize = if cfg!(sse_hub_loom) { 1 } else { 256 };

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    marker: Marker,
    pub(super) reads: Reads,
    #[cfg(feature = "metrics")]
    pub(super) recorded: Mutex<super::metrics::Recorded>,
    pub(super) order: Mutex<Order>,
    pub(super) state: Mutex<State>,
}

/// Behind the ordering lock.
#[derive(Debug)]
pub(super) struct Order {
    last: EventId,
    pub(super) closed: bool,
    /// Events on their way out, dropped when the state lock is released. Kept for its allocation.
    evicted: Vec<Arc<Entry>>,
}

/// Behind the state lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) routes: Routes<Arc<Client>>,
    pub(super) departed: Departed,
    /// Clients for which something waits, the longest first; each once at most.
    pub(super) watched: BinaryHeap<Reverse<Watched>>,
    /// Who waits for the last client to be gone.
    pub(super) waiting_for_last: Slab<Waker>,
    pub(super) draining: bool,
    pub(super) closed: bool,
    pub(super) counts: Counts,
    /// Unless it is off.
    pub(super) presence: Option<Roster>,
}

/// One open stream, as publishers see it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    /// Which one it was of all that were ever let in.
    pub(super) serial: u64,
    pub(super) filter: Filter,
    pub(super) inbox: Mutex<Inbox>,
}

/// Behind the inbox lock.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) mailbox: Mailbox,
    /// Who waits for the mailbox to fill. Taken by whoever fills it.
    pub(super) waker: Option<Waker>,
    /// The stream is to end, or has.
    pub(super) end: Option<End>,
    /// When it is to end by itself.
    pub(super) until: Option<Until>,
    /// It stands among those who are [watched](State::watched).
    pub(super) watched: bool,
}

/// What a client that was behind has learned from the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaughtUp {
    /// Where it stands after what it missed, if it did.
    pub(crate) gap: Option<EventId>,
}

impl Inbox {
    pub(super) fn new(mailbox: Mailbox) -> Self {
        Self { mailbox, waker: None, end: None, until: None, watched: false }
    }
}

impl Shared {
    /// `birth`: the position before the first event.
    pub(crate) fn new(config: Config, birth: EventId) -> Self {
        let marker = Marker::default();
        let state = State {
            log: Log::new(config.retain, birth, marker.clone()),
            routes: Routes::new(),
            departed: Departed::new(config.retain.events.max(1024)),
            watched: BinaryHeap::new(),
            waiting_for_last: Slab::new(),
            draining: false,
            closed: false,
            counts: Counts::default(),
            presence: config.presence.map(|on| Roster::new(on, Arc::clone(&config.timer))),
        };
        let order = Order { last: birth, closed: false, evicted: Vec::new() };
        let (order, state) = (Mutex::new(order), Mutex::new(state));
        Self {
            config,
            marker,
            reads: Reads::default(),
            #[cfg(feature = "metrics")]
            recorded: Mutex::new(super::metrics::Recorded::default()),
            order,
            state,
        }
    }

    pub(crate) fn publish(
        &self,
        audience: Audience,
        mut event: Event,
    ) -> Result<Receipt, PublishError> {
        audience.check(self.config.limits.name_len)?;
        event.check_for_hub()?;
        let conflation = event.take_conflation();
        let sealed = event.seal();
        let parts = Parts::new(audience, sealed.event_type(), conflation, &self.marker);
        let (bytes, limit) = (sealed.max_len() + parts.len(), self.config.retain.bytes);
        if bytes > limit {
            return Err(PublishError::TooLarge { bytes, limit });
        }

        let mut later = Later::default();
        let receipt = {
            let mut order = self.order.lock();
            if order.closed {
                return Err(PublishError::Closed);
            }
            let EventId(epoch, count) = order.last;
            let id = EventId(epoch, count + 1);
            order.last = id;
            let now = self.config.timer.now();
            let entry = Arc::new(Entry::new(id, sealed.finish(id), parts, now));

            let mut state = self.state.lock();
            state.log.append(Arc::clone(&entry), &mut order.evicted);
            state.counts.published += 1;
            let matched = self.hand_out(state, &entry, &mut later);
            order.evicted.clear();
            Receipt { id, matched }
        };
        later.run();
        Ok(receipt)
    }

    /// Hands an appended event to everybody it is for, piece by piece, and counts them.
    ///
    /// The ordering lock is held. Lists are walked from their end: see [`Routes::remove`]. Whoever connects between
    /// two pieces has a position after the event and does not take it.
    fn hand_out<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        entry: &Arc<Entry>,
        later: &mut Later,
    ) -> usize {
        let mut matched = 0;
        for key in entry.keys() {
            let mut left = usize::MAX;
            loop {
                state.expel_stalled(entry.at, &self.config, later);
                let (given, rest) =
                    state.hand_piece(entry, key, left, self.config.stall.is_some(), later);
                matched += given;
                left = rest;
                if left == 0 {
                    break;
                }
                state = sync::let_others(&self.state, state);
            }
        }
        matched
    }

    /// Forgets a client whose stream ended or was dropped, unless the hub has already.
    pub(crate) fn leave(&self, slot: usize, client: &Arc<Client>) {
        let mut later = Later::default();
        let mut state = self.state.lock();
        if state.has(slot, client) {
            let reason = client.inbox.lock().end.as_ref().map_or(EndReason::Left, |end| end.reason);
            state.forget(slot, reason, &mut later);
        }
        drop(state);
        later.run();
    }

    /// Reads the log for a client that is behind; `None` if it was forgotten, and its slot may be somebody else's.
    pub(crate) fn catch_up(
        &self,
        slot: usize,
        client: &Arc<Client>,
        out: &mut Vec<Arc<Entry>>,
    ) -> Option<CaughtUp> {
        let now = self.config.timer.now();
        let mut evicted = Vec::new();
        let mut later = Later::default();
        let mut state = self.state.lock();
        state.expel_stalled(now, &self.config, &mut later);
        state.log.expire(now, &mut evicted);
        if !state.has(slot, client) {
            drop(state);
            later.run();
            return None;
        }
        let log = &state.log;
        let identity = Identity { places: state.routes.places(slot), filter: &client.filter };
        let mut inbox = client.inbox.lock();
        let lags = inbox.mailbox.starts_reading_the_log();
        let cursor = inbox.mailbox.cursor();
        let all = log.read(cursor, identity, self.config.batch, out);
        let lost = log.lost_since(inbox.mailbox.told(), identity);
        let gap = lost.map(|lost| {
            // Where topics have limits of their own, what is retained can be older than what was lost. The client is
            // to get that too, also if it is cut off right after the gap and comes back with its id.
            out.first().map_or(lost, |first| lost.min(first.id.before()))
        });
        if all {
            inbox.mailbox.catch_up(log.head());
        } else if let Some(last) = out.last() {
            inbox.mailbox.advance(last.id, now);
        }
        drop(inbox);
        state.counts.lagged += u64::from(lags);
        state.counts.gaps += u64::from(gap.is_some());
        drop(state);
        drop(evicted);
        later.run();
        Some(CaughtUp { gap })
    }

    /// Ends streams that are not read, on the occasion of another stream's heartbeat.
    pub(crate) fn look_for_stalled(&self) {
        if self.config.stall.is_none() {
            return;
        }
        let now = self.config.timer.now();
        let mut later = Later::default();
        self.state.lock().expel_stalled(now, &self.config, &mut later);
        later.run();
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let state = &*state;
        Stats::new(&state.routes, &state.log, state.counts, self.reads.sum())
    }
}

impl State {
    /// Whether this client is the one in the slot.
    fn has(&self, slot: usize, client: &Arc<Client>) -> bool {
        self.routes.get(slot).is_some_and(|member| Arc::ptr_eq(member, client))
    }

    /// Hands an event to the last members of a key's list before `left`, and returns how many took it and how many are
    /// left.
    fn hand_piece(
        &mut self,
        entry: &Arc<Entry>,
        key: &Key,
        left: usize,
        watch: bool,
        later: &mut Later,
    ) -> (usize, usize) {
        let members = self.routes.members(key);
        let left = left.min(members.len());
        let rest = left.saturating_sub(PIECE);
        let mut given = 0;
        for member in members[rest..left].iter().rev() {
            let (slot, client) = (member.slot, &member.reach);
            if !client.filter.admits(entry.frame.event_type()) {
                continue;
            }
            // Who else it is, is looked up only where that matters: it lies elsewhere in memory.
            let places = || Identity { places: self.routes.places(slot), filter: &client.filter };
            if !entry.is_for_all_holders() && !places().is_in(&entry.audience, entry.id) {
                continue;
            }
            let mut inbox = client.inbox.lock();
            if inbox.mailbox.push(entry) {
                given += 1;
                later.extend(inbox.waker.take());
                if watch && !inbox.watched {
                    inbox.watched = true;
                    let since = entry.at;
                    self.watched.push(Reverse(Watched { since, slot, serial: client.serial }));
                }
            }
        }
        (given, rest)
    }

    /// Forgets a client.
    pub(super) fn forget(&mut self, slot: usize, reason: EndReason, later: &mut Later) {
        let mut owner = Owner { user: None, session: None };
        for place in self.routes.places(slot) {
            match &place.key {
                Key::User(user) => owner.user = Some(Arc::clone(user)),
                Key::Session(session) => owner.session = Some(Arc::clone(session)),
                Key::All | Key::Client(_) | Key::Topic(_) => {}
            }
        }
        let Some(client) = self.routes.remove(slot) else { return };
        later.tell(Ended { client: client.id, has_user: owner.user.is_some(), reason });
        self.note_departure(owner.user.as_ref(), reason, later);
        self.departed.remember(client.id, owner);
        self.counts.ended[reason as usize] += 1;
        // Its waker is foreign code: dropped by the caller, when no lock is held.
        later.extend(client.inbox.lock().waker.take());
        if self.routes.len() == 0 {
            later.extend(self.waiting_for_last.drain());
        }
    }
}
