//! Older events, from where the order is kept: for clients that stand before what the log holds.
//!
//! Such a client is *held*: it is let in at its own position and sent nothing but heartbeats, and the engine is told that
//! somebody looks back. It brings what lies before the log, piece by piece from the newest back, and each piece becomes
//! part of the log. A client is let go on as soon as the log reaches back to where it stands, or nothing more can come;
//! then it reads the log as whoever is behind does. So there is no second way to read, and nothing that a client could
//! get twice or miss where two ways meet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Config;
use super::feed::Feed;
use super::later::Later;
use super::link::Behind;
use super::shared::Shared;
use super::state::{Client, State};
use crate::log::codec::Received;
use crate::log::entry::{Entry, Prepared};
use crate::sync;
use crate::wire::id::EventId;

/// How many events are put back, or let go of, under one hold of the state lock.
const PIECE: usize = 256;

/// Older events that clients wait for: those of the order from one position back to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// The position of the newest that is wanted. Where the order has nothing at it, all that is wanted is
    /// [gone](Feed::gone).
    pub upto: EventId,
    /// The oldest position at which a client stands.
    pub after: EventId,
    /// How many there is room for.
    pub events: usize,
}

/// # Looking back
impl Feed {
    /// What older events clients wait for now, if they do. To be asked after
    /// [`Backplane::look_back`](super::backplane::Backplane::look_back) was called, and again after each answer until
    /// there is nothing more.
    ///
    /// How often the order is read for it is the engine's to bound: all that wait are in one answer, however many they
    /// are. While it cannot read it just tries again. Clients that wait for [too long](crate::History::wait) go on by
    /// themselves.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        let shared = self.shared.upgrade()?;
        let allowance = shared.config.history?.allowance;
        let now = shared.config.timer.now();
        let mut later = Later::default();
        let wanted = {
            let mut state = shared.state.lock();
            state.release(now, &shared.config, &mut later);
            let (upto, events) = (state.log.whole_from(), state.log.room(allowance));
            let after = state.link.behind.iter().map(|behind| behind.after).min();
            after.map(|after| Wanted { upto, after: after.max(state.link.gone), events })
        };
        later.run();
        wanted
    }

    /// Brings older events: *all* that the order has after `floor` and up to `upto`, the position that was
    /// [wanted](Self::wanted). In order, each with its age.
    ///
    /// A piece that does not end where the log begins by now, because that has moved, is left. So is what there is no
    /// room for. What is malformed ends it: it counts as [gone](Self::gone), with all before.
    pub fn restore<T: AsRef<[u8]>>(
        &self,
        upto: EventId,
        floor: EventId,
        piece: impl IntoIterator<Item = (EventId, Duration, T)>,
    ) {
        let Some(shared) = self.shared.upgrade() else { return };
        let piece =
            piece.into_iter().map(|(id, age, entry)| (id, age, Received::read(entry.as_ref())));
        let piece: Vec<_> = piece.collect();
        shared.restore(upto, floor, piece);
    }

    /// The order no longer has what lies up to `position`, or never had. Whoever waits for it is told a gap.
    pub fn gone(&self, position: EventId) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = shared.config.timer.now();
        let mut later = Later::default();
        {
            let mut state = shared.state.lock();
            state.link.gone = state.link.gone.max(position);
            state.release(now, &shared.config, &mut later);
        }
        later.run();
    }
}

impl Shared {
    /// Puts a piece of the order before what the log holds.
    fn restore(
        &self,
        upto: EventId,
        floor: EventId,
        piece: Vec<(EventId, Duration, Option<Received>)>,
    ) {
        let now = self.config.timer.now();
        let mut malformed = None;
        // The newest first, each with the position of the one before.
        let mut entries = Vec::with_capacity(piece.len());
        let mut next: Option<Arc<Entry>> = None;
        for (id, age, received) in piece.into_iter().rev() {
            // It was done to the clients that there were then, and is nothing to read.
            if let Some(Received::Command(_)) = received {
                continue;
            }
            entries.extend(next.take().map(|entry| (entry, id)));
            let Some(Received::Event(event)) = received else {
                malformed = Some(id);
                break;
            };
            let at = now.checked_sub(age).unwrap_or(now);
            next = Some(Prepared::new(event, &self.hasher).into_entry(id, at));
        }
        entries.extend(next.map(|entry| (entry, floor)));

        let mut later = Later::default();
        let mut state = self.state.lock();
        state.counts.malformed += u64::from(malformed.is_some());
        state.link.used = Some(now);
        let mut reached = upto;
        'all: for some in entries.chunks(PIECE) {
            // Meanwhile the log can have let go of more, or have begun anew.
            if !state.log.is_raised() || state.log.whole_from() != reached {
                break;
            }
            for (entry, previous) in some {
                if !state.log.restore(Arc::clone(entry), *previous) {
                    break 'all;
                }
                state.counts.restored += 1;
                reached = *previous;
            }
            state = sync::let_others(&self.state, state);
        }
        match malformed {
            Some(malformed) => state.link.gone = state.link.gone.max(malformed),
            None if entries.is_empty() && state.log.whole_from() == upto => {
                state.log.reach_back(floor);
            }
            None => {}
        }
        state.release(now, &self.config, &mut later);
        drop(state);
        later.run();
        // Those that did not fit are freed here, without a lock.
        drop(entries);
    }
}

impl State {
    /// Whether events that were lost after this position can be had.
    pub(super) fn can_look_back(&self, after: EventId, config: &Config) -> bool {
        let Some(history) = config.history else { return false };
        let whole_from = self.log.whole_from();
        self.link.loaded
            && after < whole_from
            && self.link.gone < whole_from
            && self.log.room(history.allowance) > 0
    }

    /// Whether all that was lost after this position is likely to be had.
    pub(super) fn hopes_for(&self, after: EventId, config: &Config) -> bool {
        self.link.gone <= after && self.can_look_back(after, config)
    }

    /// A client is held until the log reaches back to `after`.
    pub(super) fn note_behind(
        &mut self,
        slot: usize,
        client: &Client,
        after: EventId,
        now: Instant,
        config: &Config,
    ) {
        let Some(history) = config.history else { return };
        // From now on nothing leaves the log that it will need.
        self.log.raise(history.allowance);
        self.link.used = Some(now);
        let crowd = 2 * self.routes.len() + 64;
        self.link.behind.push(Behind { slot, serial: client.serial, after });
        if self.link.behind.len() > crowd {
            self.forget_who_is_not_behind();
        }
    }

    fn forget_who_is_not_behind(&mut self) {
        let routes = &self.routes;
        self.link.behind.retain(|behind| {
            let client = routes.get(behind.slot);
            let client = client.filter(|client| client.serial == behind.serial);
            client.is_some_and(|client| client.inbox.lock().held.is_some())
        });
    }

    /// Lets those go on that the log reaches back to, or all, if nothing more can come.
    fn release(&mut self, now: Instant, config: &Config, later: &mut Later) {
        self.forget_who_is_not_behind();
        let whole_from = self.log.whole_from();
        let is_over = !self.can_look_back(EventId::ORIGIN, config);
        let is_served = |behind: &mut Behind| is_over || behind.after >= whole_from;
        let served: Vec<Behind> = self.link.behind.extract_if(.., is_served).collect();
        for Behind { slot, .. } in served {
            if let Some(client) = self.routes.get(slot) {
                let mut inbox = client.inbox.lock();
                inbox.release(whole_from, now);
                later.extend(inbox.waker.take());
            }
            self.watch(slot, now, config);
        }
    }

    /// Goes back to what is to be retained, a little at a time, once nobody has needed more for a while.
    pub(super) fn lower(&mut self, now: Instant, most: usize, evicted: &mut Vec<Arc<Entry>>) {
        const LINGER: Duration = Duration::from_secs(10);
        if !self.log.is_raised() {
            return;
        }
        let used = *self.link.used.get_or_insert(now);
        if now.saturating_duration_since(used) < LINGER {
            return;
        }
        self.forget_who_is_not_behind();
        if self.link.behind.is_empty() {
            self.log.lower(most, evicted);
        } else {
            self.link.used = Some(now);
        }
    }
}
