//! The state that a hub and its subscriptions share, and the paths of an event: publish, hand out,
//! read.
//!
//! Lock order: the *ordering* lock, then the *state* lock, then a client's *inbox*. A thread that
//! holds a lock may take only the locks after it. No foreign code runs under a lock.
//!
//! Publishers hold the ordering lock from the issue of an id until the event is handed to every
//! client, so events are handed out in the order of their ids. A large hand-out releases the state
//! lock between its pieces: a client that connects or reads the log waits for one piece only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tracing::Span;

use crate::core::backplane::{Outgoing, SendError};
use crate::core::client::Client;
use crate::core::config::Config;
use crate::core::deferred::Work;
use crate::core::encoder;
use crate::core::end::EndReason;
use crate::core::receipt::{Confirmation, Receipt};
use crate::core::state::{LogRead, PIECE, State};
#[cfg(feature = "metrics")]
use crate::core::stats::Recorded;
use crate::core::stats::{Rare, Stats};
use crate::core::telemetry;
use crate::error::{PublishError, RunError};
use crate::log::audience::Audience;
use crate::log::entry::{Batch, Encoded, Entry, Prepared};
use crate::log::hash::KeyHasher;
use crate::log::log::Log;
use crate::log::mailbox::EntryRef;
use crate::log::producer::{InstanceId, ProducerAt, ProducerId};
use crate::log::recipients::Recipients;
use crate::log::routes::Member;
use crate::sync::{self, LongMutex, Mutex, MutexGuard};
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// The most older events that a publisher or a reader frees when a history read is over.
const MAX_LOWERED: usize = 64;

/// The most older events that a heartbeat frees: heartbeats hold nobody up.
const MAX_LOWERED_IDLE: usize = 1024;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// The id of this hub among the instances.
    pub(super) instance: InstanceId,
    pub(super) hasher: KeyHasher,
    pub(super) rare: Rare,
    #[cfg(feature = "metrics")]
    pub(super) recorded: Mutex<Recorded>,
    pub(super) order: LongMutex<Order>,
    pub(super) state: Mutex<State>,
    /// Whether streams must show the hub as degraded. Written under the state lock.
    pub(super) shows_degraded: AtomicBool,
    /// Whether there are ended runs to forget later. Written under the state lock.
    pub(super) has_ended_runs: AtomicBool,
    /// How many events this hub gave to the backplane.
    sent: AtomicU64,
    /// How many producers of runs this hub had.
    producers: AtomicU64,
}

/// The data that the ordering lock guards.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) last: EventId,
    pub(super) is_closed: bool,
    /// Evicted events, freed after the state lock is released. The list keeps the allocation.
    evicted: Vec<Arc<Entry>>,
}

impl Order {
    /// Returns whether the hub takes an entry of the backplane's order: a closed hub takes none,
    /// and before the first load no entry is known to be the next.
    pub(super) fn takes(&self, id: EventId) -> bool {
        !self.is_closed && id > self.last && self.last != EventId::ORIGIN
    }
}

impl Shared {
    /// `birth`: the position before the first event.
    pub(crate) fn new(config: Config, birth: EventId) -> Self {
        let hasher = KeyHasher::default();
        let state =
            State::new(&config, Log::new(config.retain, config.runs, birth, hasher.clone()));
        let order = Order { last: birth, is_closed: false, evicted: Vec::new() };
        let (order, state) = (LongMutex::new(order), Mutex::new(state));
        Self {
            config,
            instance: InstanceId::new(),
            hasher,
            rare: Rare::default(),
            #[cfg(feature = "metrics")]
            recorded: Mutex::new(Recorded::default()),
            order,
            state,
            shows_degraded: AtomicBool::new(false),
            has_ended_runs: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            producers: AtomicU64::new(0),
        }
    }

    /// Returns the id of a new producer of a run.
    pub(super) fn new_producer(&self) -> ProducerId {
        let serial = self.producers.fetch_add(1, Ordering::Relaxed);
        ProducerId { instance: self.instance, serial }
    }

    pub(crate) fn publish(
        &self,
        audience: Audience,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        self.in_span(audience, event, |span, event, key| {
            if self.config.backplane.is_none() {
                return Ok(Receipt::new(self.publish_here(span, event)?.1));
            }
            let outgoing = self.outgoing(&event, key);
            // Count before the send: afterwards a client may have connected because of the event.
            let matched = self.count(&event.audience);
            self.send(outgoing)?;
            telemetry::matched(span, matched);
            Ok(Receipt::new(matched))
        })
    }

    pub(crate) fn publish_confirmed(
        &self,
        audience: Audience,
        event: Event,
    ) -> Result<Confirmation, PublishError> {
        self.in_span(audience, event, |span, event, key| {
            if self.config.backplane.is_none() {
                return self.publish_here(span, event).map(|(id, _)| Confirmation::ready(id));
            }
            let mut outgoing = self.outgoing(&event, key);
            let confirmation = outgoing.confirmation();
            self.send(outgoing)?;
            Ok(confirmation)
        })
    }

    /// Checks an event, and publishes the event by `publish`, which also gets the idempotency key.
    #[inline]
    fn in_span<T>(
        &self,
        audience: Audience,
        event: Event,
        publish: impl FnOnce(&Span, Encoded, Option<Box<str>>) -> Result<T, PublishError>,
    ) -> Result<T, PublishError> {
        let span = telemetry::publish(&audience, &event).entered();
        // No chain of combinators: each would move the result.
        let published = match self.check(audience, event) {
            Ok((event, key)) => publish(&span, event, key),
            Err(error) => Err(error),
        };
        if let Err(error) = &published {
            telemetry::publish_failed(&span, error);
        }
        published
    }

    fn outgoing(&self, event: &Encoded, key: Option<Box<str>>) -> Outgoing {
        encoder::outgoing(event, key, self.config.retain.kept())
    }

    /// Gives an event to the backplane.
    pub(super) fn send(&self, event: Outgoing) -> Result<(), SendError> {
        if let Some(backplane) = &self.config.backplane {
            sync::assert_unlocked();
            backplane.send(event)?;
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns an event that can be published, and its idempotency key.
    fn check(
        &self,
        audience: Audience,
        event: Event,
    ) -> Result<(Encoded, Option<Box<str>>), PublishError> {
        let Config { limits, retain, .. } = &self.config;
        Encoded::new(audience, event, limits.name_len, retain.bytes)
    }

    /// Publishes in the hub's own order.
    fn publish_here(&self, span: &Span, event: Encoded) -> Result<(EventId, usize), PublishError> {
        let prepared = Prepared::new(event, &self.hasher);
        let mut work = Work::begin(&self.config);
        let published = {
            let mut order = self.order.lock();
            if order.is_closed {
                return Err(PublishError::Closed);
            }
            let id = Self::next_id(&order);
            (id, self.put(&mut order, id, prepared, &mut work))
        };
        work.run();
        telemetry::event_id(span, published.0);
        telemetry::matched(span, published.1);
        Ok(published)
    }

    /// Appends an event under `id` and hands it out. Returns how many clients took it.
    pub(super) fn put(
        &self,
        order: &mut Order,
        id: EventId,
        prepared: Prepared,
        work: &mut Work<'_>,
    ) -> usize {
        order.last = id;
        let entry = prepared.into_entry(id, work.now);
        let mut state = self.state.lock();
        state.log.append(Arc::clone(&entry), &mut order.evicted);
        state.lower(MAX_LOWERED, entry.at, &mut order.evicted);
        state.counts.published += 1;
        let matched = hand_out(&self.state, state, &entry, &EntryRef::new(&entry, true), work);
        order.evicted.clear();
        matched
    }

    /// Appends an event under `id` to the run of a producer, and hands it out. Returns how many
    /// clients took it. `is_loss`: the event is the end as lost, which a run that is gone takes,
    /// too.
    pub(super) fn put_in_run(
        &self,
        order: &mut Order,
        id: EventId,
        producer: ProducerAt,
        prepared: Prepared,
        is_loss: bool,
        work: &mut Work<'_>,
    ) -> Result<usize, RunError> {
        let entry = prepared.into_entry(id, work.now);
        let mut state = self.state.lock();
        let by_log = state.log.append_to_run(producer, &entry, is_loss, &mut order.evicted)?;
        order.last = id;
        state.counts.published += 1;
        let entry_ref = EntryRef::new(&entry, by_log);
        let matched = hand_out(&self.state, state, &entry, &entry_ref, work);
        order.evicted.clear();
        Ok(matched)
    }

    /// Returns a new id of the hub's own order.
    pub(super) fn next_id(order: &Order) -> EventId {
        EventId::new(order.last.epoch(), order.last.seq() + 1)
    }

    /// Takes the state lock for an operation that is no publish, and lets a hand-out that is under
    /// way go first: otherwise the publisher waits for such an operation after each piece.
    pub(super) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.order.let_pass();
        self.state.lock()
    }

    /// Forgets a client whose stream has ended, unless the hub has forgotten the client already.
    pub(crate) fn leave(&self, slot: usize, client: &Arc<Client>) {
        let mut work = Work::begin_release(&self.config);
        let mut state = self.lock_state();
        forget(&mut state, slot, client, &mut work);
        drop(state);
        work.run();
    }

    /// Frees everything of a client whose stream is dropped. `slot`: `None` if the client has left.
    /// The caller must not touch the client's inbox afterwards.
    pub(crate) fn free(&self, slot: Option<usize>, client: &Arc<Client>) {
        let mut work = Work::begin_release(&self.config);
        let mut state = self.lock_state();
        if let Some(slot) = slot {
            forget(&mut state, slot, client, &mut work);
        }
        let inbox = state.inboxes.remove(&client.place);
        drop(state);
        drop(inbox);
        work.run();
    }

    /// Reads the log for a client that is behind.
    pub(crate) fn catch_up(&self, slot: usize, client: &Arc<Client>, out: &mut Batch) -> LogRead {
        let mut work = Work::begin(&self.config);
        let mut state = self.lock_state();
        state.log.expire(work.now, &mut work.evicted);
        state.log.forget_runs(work.now, &mut work.forgotten);
        state.lower(MAX_LOWERED, work.now, &mut work.evicted);
        let read = state.read_log(slot, client, out, &mut work);
        // After the read: otherwise the reading client could count as stalled.
        state.expel_stalled(&mut work);
        drop(state);
        work.run();
        read
    }

    /// Does the hub's housekeeping, on the occasion of a heartbeat: ends stalled streams, and frees
    /// events and runs beyond the retention.
    pub(crate) fn housekeep(&self) {
        let Config { stall, history, .. } = &self.config;
        // A heartbeat may miss a run that ends now: the next heartbeat finds the run.
        let has_ended_runs = self.has_ended_runs.load(Ordering::Relaxed);
        if stall.is_none() && history.is_none() && !has_ended_runs {
            return;
        }
        let mut work = Work::begin(&self.config);
        let mut state = self.lock_state();
        if has_ended_runs {
            state.log.forget_runs(work.now, &mut work.forgotten);
            self.has_ended_runs.store(state.log.runs().has_ended(), Ordering::Relaxed);
        }
        state.lower(MAX_LOWERED_IDLE, work.now, &mut work.evicted);
        state.expel_stalled(&mut work);
        drop(state);
        work.run();
    }

    /// Moves a client that has received everything to the end of the log. Returns the position of
    /// the client.
    pub(crate) fn refresh(&self, slot: usize, client: &Arc<Client>) -> EventId {
        self.state.lock().refresh(slot, client)
    }

    /// Counts an audience's clients.
    pub(crate) fn count(&self, audience: &Audience) -> usize {
        let recipients = Recipients::new(audience, &self.hasher);
        if let Recipients::Key(key) = &recipients {
            return self.state.lock().routes.members(key).len();
        }
        let mut slots = Vec::new();
        visit(&self.state, &recipients, |_, member| slots.push(member.slot()));
        slots.sort_unstable();
        slots.dedup();
        slots.len()
    }

    /// Returns how many events this hub published: `local` counts those of a hub without a
    /// backplane.
    pub(super) fn published(&self, local: u64) -> u64 {
        match self.config.backplane {
            Some(_) => self.sent.load(Ordering::Relaxed),
            None => local,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let mut stats =
            Stats::new(&state.routes, &state.log, state.counts, state.inboxes.read(), &self.rare);
        stats.degraded = state.health.is_degraded() || !state.is_loaded;
        stats
    }

    /// Reads the clock for a caller that holds no lock.
    pub(crate) fn now(&self) -> Instant {
        self.config.now()
    }
}

/// Forgets the client in a slot. The slot of a client that the hub has forgotten may belong to
/// another client.
pub(super) fn forget(state: &mut State, slot: usize, client: &Arc<Client>, work: &mut Work<'_>) {
    if state.has(slot, client) {
        let reason = client.lock().ending().reason().unwrap_or(EndReason::Left);
        state.forget(slot, reason, work);
    }
}

/// Visits an audience's clients, a piece for each hold of the state lock. A client that holds
/// several of the audience's index keys is visited for each.
pub(super) fn visit(
    lock: &Mutex<State>,
    audience: &Recipients,
    mut visit: impl FnMut(&State, &Member<Arc<Client>>),
) {
    let is_all = audience.are_all_holders();
    let mut state = lock.lock();
    // How many clients this hold of the lock may still look at.
    let mut room = PIECE;
    for key in audience.keys() {
        // From the end: see `Routes::unlist`. No client that moves in the list is missed.
        let mut left = usize::MAX;
        while left > 0 {
            if room == 0 {
                state = sync::yield_lock(lock, state);
                room = PIECE;
            }
            let members = state.routes.members(key);
            left = left.min(members.len());
            let rest = left.saturating_sub(room);
            for member in members[rest..left].iter().rev() {
                let is_in = || {
                    let client = state.identity(member.slot());
                    client.is_some_and(|client| audience.include(client, EventId::LAST))
                };
                if is_all || is_in() {
                    visit(&state, member);
                }
            }
            // A key without clients costs a look-up.
            room = room.saturating_sub((left - rest).max(1));
            left = rest;
        }
    }
}

/// Hands an appended event to every client of the audience, piece by piece. Returns how many
/// took it.
///
/// The caller holds the ordering lock, so no later event overtakes this one. Lists are walked
/// from their end, so a client that moves in its list between two pieces was met before: see
/// [`Routes::remove`](crate::log::routes::Routes::remove). A client that connects between two
/// pieces has a position after the event, and does not take it.
fn hand_out<'a>(
    lock: &'a Mutex<State>,
    mut state: MutexGuard<'a, State>,
    entry: &Arc<Entry>,
    entry_ref: &EntryRef,
    work: &mut Work<'_>,
) -> usize {
    let mut matched = 0;
    // How many clients this hold of the lock may still look at.
    let mut room = PIECE;
    for key in entry.hashed_keys() {
        let mut left = usize::MAX;
        while left > 0 {
            if room == 0 {
                state = sync::yield_lock(lock, state);
                room = PIECE;
            }
            state.expel_stalled(work);
            let piece = state.hand_piece(entry, entry_ref, key, left, room, work);
            matched += piece.given;
            left = piece.left;
            // A key without clients costs a look-up.
            room = room.saturating_sub(piece.looked_at.max(1));
        }
    }
    matched
}
