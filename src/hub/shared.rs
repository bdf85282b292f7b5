//! What a hub and its subscriptions share.
//!
//! Lock order: the *ordering* lock, then the *state* lock, then a client's *inbox*. A thread that holds one takes
//! only those after it. Wakers are woken, and dropped, when none is held: both are foreign code.
//!
//! The ordering lock is the publishers' own and is held from the issuing of an id until its event has been handed to
//! everybody, so hand-outs come in id order. The state lock is let go of between the pieces of a large hand-out, so
//! that a client that connects or catches up meanwhile waits for a piece of it and not for all.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::backplane::{Backplane, Confirmation, Outgoing, Unsent};
use super::catch_up::CaughtUp;
use super::config::Config;
use super::end::EndReason;
use super::later::Later;
use super::receipt::Receipt;
use super::state::{Client, State};
use super::stats::{Reads, Stats};
use crate::error::PublishError;
use crate::log::audience::Audience;
use crate::log::codec;
use crate::log::entry::{Encoded, Entry, Prepared};
use crate::log::hash::KeyHasher;
use crate::log::log::Log;
use crate::sync::{self, Mutex, MutexGuard};
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// How many events go at once of those that were kept beyond the retention.
const FEW: usize = 64;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(super) hasher: KeyHasher,
    pub(super) reads: Reads,
    #[cfg(feature = "metrics")]
    pub(super) recorded: Mutex<super::recorded::Recorded>,
    pub(super) order: Mutex<Order>,
    pub(super) state: Mutex<State>,
    /// What every stream is to have told of the backplane: a degraded hub, or one that is not.
    pub(super) tells_degraded: AtomicBool,
}

/// Behind the ordering lock.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) last: EventId,
    pub(super) closed: bool,
    /// Events on their way out, dropped when the state lock is released. Kept for its allocation.
    evicted: Vec<Arc<Entry>>,
}

impl Shared {
    /// `birth`: the position before the first event.
    pub(crate) fn new(config: Config, birth: EventId) -> Self {
        let hasher = KeyHasher::default();
        let state = State::new(&config, Log::new(config.retain, birth, hasher.clone()));
        let order = Order { last: birth, closed: false, evicted: Vec::new() };
        let (order, state) = (Mutex::new(order), Mutex::new(state));
        Self {
            config,
            hasher,
            reads: Reads::default(),
            #[cfg(feature = "metrics")]
            recorded: Mutex::new(super::recorded::Recorded::default()),
            order,
            state,
            tells_degraded: AtomicBool::new(false),
        }
    }

    pub(crate) fn publish(
        &self,
        audience: Audience,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        let Some(backplane) = &self.config.backplane else {
            let (id, matched) = self.publish_here(self.check(audience, event)?.0)?;
            return Ok(Receipt { id: Some(id), matched });
        };
        let (event, key) = self.check(audience, event)?;
        let outgoing = Outgoing::new(codec::write_event(&event), key);
        // Before it is sent: afterwards somebody may be here because of it.
        let matched = self.count(&event.audience);
        send(&**backplane, outgoing)?;
        Ok(Receipt { id: None, matched })
    }

    pub(crate) fn publish_confirmed(
        &self,
        audience: Audience,
        event: Event,
    ) -> Result<Confirmation, PublishError> {
        let (event, key) = self.check(audience, event)?;
        let Some(backplane) = &self.config.backplane else {
            return self.publish_here(event).map(|(id, _)| Confirmation::ready(id));
        };
        let mut outgoing = Outgoing::new(codec::write_event(&event), key);
        let confirmation = outgoing.confirmation();
        send(&**backplane, outgoing)?;
        Ok(confirmation)
    }

    /// An event that can be published, and its idempotency key.
    fn check(
        &self,
        audience: Audience,
        mut event: Event,
    ) -> Result<(Encoded, Option<Box<str>>), PublishError> {
        audience.check(self.config.limits.name_len)?;
        event.check_for_hub()?;
        let (conflation, key) = event.take_keys();
        let event = Encoded { audience, conflation, sealed: event.seal() };
        let (bytes, limit) = (event.max_weight(), self.config.retain.bytes);
        if bytes > limit {
            return Err(PublishError::TooLarge { bytes, limit });
        }
        Ok((event, key))
    }

    /// Publishes in an order of the hub's own.
    fn publish_here(&self, event: Encoded) -> Result<(EventId, usize), PublishError> {
        let prepared = Prepared::new(event, &self.hasher);
        // A foreign clock is read before the lock; two publishers may be a moment out of order by it.
        let now = self.config.timer.now();
        let mut later = Later::default();
        let published = {
            let mut order = self.order.lock();
            if order.closed {
                return Err(PublishError::Closed);
            }
            let id = EventId::new(order.last.epoch(), order.last.seq() + 1);
            (id, self.put(&mut order, id, prepared, now, &mut later))
        };
        later.run();
        Ok(published)
    }

    /// Gives an event its place and hands it out; returns how many it was for.
    pub(super) fn put(
        &self,
        order: &mut Order,
        id: EventId,
        prepared: Prepared,
        now: Instant,
        later: &mut Later,
    ) -> usize {
        order.last = id;
        let entry = prepared.into_entry(id, now);
        let mut state = self.state.lock();
        state.log.append(Arc::clone(&entry), &mut order.evicted);
        state.lower(entry.at, FEW, &mut order.evicted);
        state.counts.published += 1;
        let matched = self.hand_out(state, &entry, later);
        order.evicted.clear();
        matched
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
                let (given, rest) = state.hand_piece(entry, key, left, &self.config, later);
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

    /// Reads the log for a client that is behind; `None` if it was forgotten.
    pub(crate) fn catch_up(
        &self,
        slot: usize,
        client: &Arc<Client>,
        may_look_back: bool,
        out: &mut Vec<Arc<Entry>>,
    ) -> Option<CaughtUp> {
        let now = self.config.timer.now();
        let mut evicted = Vec::new();
        let mut later = Later::default();
        let mut state = self.state.lock();
        state.log.expire(now, &mut evicted);
        state.lower(now, FEW, &mut evicted);
        let caught_up = state.read_log(slot, client, may_look_back, now, &self.config, out);
        // After it has read, or it could find that it is stalled itself.
        state.expel_stalled(now, &self.config, &mut later);
        drop(state);
        drop(evicted);
        later.run();
        if caught_up.is_some_and(|caught_up| caught_up.is_held)
            && let Some(backplane) = &self.config.backplane
        {
            backplane.look_back();
        }
        caught_up
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let state = &*state;
        let mut stats = Stats::new(&state.routes, &state.log, state.counts, self.reads.sum());
        if self.config.backplane.is_some() {
            stats.degraded = state.link.degraded || !state.link.loaded;
            stats.resets = state.link.resets;
        }
        stats
    }
}

fn send(backplane: &dyn Backplane, event: Outgoing) -> Result<(), PublishError> {
    backplane.send(event).map_err(|unsent| match unsent {
        Unsent::Full => PublishError::Backlog,
        Unsent::Closed => PublishError::Closed,
    })
}
