//! What a hub and its subscriptions share.
//!
//! Lock order: the *ordering* lock, then the *state* lock, then a client's *inbox*. A thread that holds one takes
//! only those after it. Wakers are woken, and dropped, when none is held: both are foreign code.
//!
//! The ordering lock is the publishers' own and is held from the issuing of an id until its event has been handed to
//! everybody, so hand-outs come in id order. The state lock is let go of between the pieces of a large hand-out, so
//! that a client that connects or catches up meanwhile waits for a piece of it and not for all.

use std::sync::Arc;

use super::config::Config;
use super::end::EndReason;
use super::later::Later;
use super::receipt::Receipt;
use super::state::{CaughtUp, Client, State};
use super::stats::{Reads, Stats};
use crate::error::PublishError;
use crate::log::audience::Audience;
use crate::log::log::{Entry, Log, Parts};
use crate::log::lost::Marker;
use crate::sync::{self, Mutex, MutexGuard};
use crate::wire::event::Event;
use crate::wire::id::EventId;

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

impl Shared {
    /// `birth`: the position before the first event.
    pub(crate) fn new(config: Config, birth: EventId) -> Self {
        let marker = Marker::default();
        let state = State::new(&config, Log::new(config.retain, birth, marker.clone()));
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

        // A foreign clock is read before the lock; two publishers may be a moment out of order by it.
        let now = self.config.timer.now();
        let mut later = Later::default();
        let receipt = {
            let mut order = self.order.lock();
            if order.closed {
                return Err(PublishError::Closed);
            }
            let EventId(epoch, count) = order.last;
            let id = EventId(epoch, count + 1);
            order.last = id;
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
        out: &mut Vec<Arc<Entry>>,
    ) -> Option<CaughtUp> {
        let now = self.config.timer.now();
        let mut evicted = Vec::new();
        let mut later = Later::default();
        let mut state = self.state.lock();
        state.log.expire(now, &mut evicted);
        let caught_up = state.read_log(slot, client, now, &self.config, out);
        // After it has read, or it could find that it is stalled itself.
        state.expel_stalled(now, &self.config, &mut later);
        drop(state);
        drop(evicted);
        later.run();
        caught_up
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let state = &*state;
        Stats::new(&state.routes, &state.log, state.counts, self.reads.sum())
    }
}
