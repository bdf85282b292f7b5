//! The other half of the port: ordered events in.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::hub::Hub;
use super::later::Later;
use super::link::Mark;
use super::shared::Shared;
use super::telemetry;
use crate::log::codec::Received;
use crate::log::entry::{Encoded, Prepared};
use crate::log::log::Log;
use crate::wire::id::EventId;

/// Where an engine puts what comes out of the order: the other part of a [`Backplane`](super::backplane::Backplane).
///
/// The order is a sequence of events with increasing ids. An engine [loads](Self::load) the end of it once, and then
/// [appends](Self::append) what follows. Until it has loaded, clients are let in and wait.
///
/// Does not keep the hub alive.
#[derive(Clone)]
pub struct Feed {
    pub(super) shared: Weak<Shared>,
}

/// What was read is not an event that a hub has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an entry of a hub, or of a later version")]
pub struct Malformed(());

impl Feed {
    /// The feed of a hub, if it was built with a [backplane](crate::HubBuilder::backplane).
    #[must_use]
    pub fn of(hub: &Hub) -> Option<Self> {
        let shared = hub.shared();
        shared.config.backplane.is_some().then(|| Self { shared: Arc::downgrade(shared) })
    }

    /// Begins with a piece of the order, or with another.
    ///
    /// `floor` is the position before all that is known: nothing between it and the first of `tail` is missing. What the
    /// hub held before is forgotten. Whoever stands before the floor is told a gap and goes on from there, and so is who
    /// came before the first load without an id; the others go on where they are.
    ///
    /// Called again when what follows is not known to follow: the order went backwards, or part of it is gone. A floor
    /// that is not newer than all before is taken for one that is, so that no client sees an order that goes back.
    ///
    /// Each event of `tail` comes with its age. What is malformed in it is left out, and counted. So is, uncounted, what
    /// was to be done to clients: to those that there were then.
    pub fn load<T: AsRef<[u8]>>(
        &self,
        floor: EventId,
        tail: impl IntoIterator<Item = (EventId, Duration, T)>,
    ) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut malformed = 0;
        let events =
            tail.into_iter().filter_map(|(id, age, entry)| match Received::read(entry.as_ref()) {
                Some(Received::Event(event)) => Some((id, age, event)),
                Some(Received::Command(_)) => None,
                None => {
                    malformed += 1;
                    None
                }
            });
        let events: Vec<_> = events.collect();
        shared.load(floor, events, malformed);
    }

    /// Hands out the next event of the order, or does to the hub's clients what another hub, or this one, was asked to do
    /// to all ([`Hub::disconnect`], [`Hub::join`], [`Hub::leave`]): that is an entry like an event. One that is not newer
    /// than all before was had already, and is left.
    ///
    /// # Errors
    ///
    /// [`Malformed`], and the event was counted and left out.
    pub fn append(&self, id: EventId, entry: &[u8]) -> Result<(), Malformed> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        match Received::read(entry) {
            Some(Received::Event(event)) => shared.take_in(id, event),
            Some(Received::Command(command)) => shared.obey(id, command),
            None => {
                shared.state.lock().counts.malformed += 1;
                return Err(Malformed(()));
            }
        }
        Ok(())
    }

    /// The newest position, `0-0` before the first load.
    #[must_use]
    pub fn head(&self) -> EventId {
        self.shared.upgrade().map_or(EventId::new(0, 0), |shared| shared.state.lock().log.head())
    }

    /// Names the clients that have come until now with an id that the hub has not read up to. `None`, if there are none.
    ///
    /// Such a client was on an instance that has read further, or its id is of no order. It is let in at its own
    /// position and waits until the hub has come there. To be asked before the end of the order is, and then given to
    /// [`disown`](Self::disown).
    #[must_use]
    pub fn ahead(&self) -> Option<Mark> {
        self.shared.upgrade()?.state.lock().ahead()
    }

    /// Tells those among the clients of `mark` a gap whose id lies after `end`, the newest position of the order as it
    /// was found after the mark was taken. Their ids are of no order, or it went backwards.
    pub fn disown(&self, mark: Mark, end: EventId) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = shared.config.timer.now();
        let mut later = Later::default();
        shared.state.lock().disown(mark, end, now, &shared, &mut later);
        later.run();
    }

    /// Says whether events are held up, because the engine cannot reach what orders them. `cause` is for people to
    /// read; it is told to `tracing` with every change, and not more than a few times a minute.
    ///
    /// To be said again a second after it changed: clients are [told](crate::HubBuilder::tell_degraded) of what has lasted for
    /// as long, and nothing but this call looks at the clock for it.
    pub fn degraded(&self, cause: Option<&str>) {
        let Some(shared) = self.shared.upgrade() else { return };
        if shared.degrade(cause.is_some()) {
            telemetry::degraded(cause);
        }
    }

    /// Whether the hub was closed, and is fed in vain.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.upgrade().is_none_or(|shared| shared.state.lock().closed)
    }

    /// How many events are worth loading, and how many bytes of them, and of which age at most.
    #[must_use]
    pub fn retained(&self) -> (usize, usize, Option<Duration>) {
        self.shared.upgrade().map_or((0, 0, None), |shared| {
            let retain = &shared.config.retain;
            (retain.events, retain.bytes, retain.age)
        })
    }
}

impl Shared {
    /// Publishes what the order brings.
    fn take_in(&self, id: EventId, event: Encoded) {
        let prepared = Prepared::new(event, &self.hasher);
        let now = self.config.timer.now();
        let mut later = Later::default();
        {
            let mut order = self.order.lock();
            // Nothing is in order before the first load.
            let is_next = id > order.last && order.last != EventId::ORIGIN;
            if !order.closed && is_next {
                self.put(&mut order, id, prepared, now, &mut later);
            }
        }
        later.run();
    }

    fn load(&self, floor: EventId, events: Vec<(EventId, Duration, Encoded)>, malformed: u64) {
        let now = self.config.timer.now();
        let entry = |(id, age, event): (EventId, Duration, Encoded)| {
            let at = now.checked_sub(age).unwrap_or(now);
            Prepared::new(event, &self.hasher).into_entry(id, at)
        };
        let entries: Vec<_> = events.into_iter().map(entry).collect();

        let mut later = Later::default();
        let mut evicted = Vec::new();
        let mut order = self.order.lock();
        if order.closed {
            return;
        }
        let mut state = self.state.lock();
        let is_first = !state.link.loaded;
        let floor = floor.max(if is_first { EventId::new(0, 1) } else { order.last });
        let fresh = Log::new(self.config.retain, floor, self.hasher.clone());
        let old = std::mem::replace(&mut state.log, fresh);
        for entry in entries.into_iter() {
            if entry.id > state.log.head() {
                state.log.append(entry, &mut evicted);
            }
        }
        order.last = state.log.head();
        state.link.loaded = true;
        state.link.resets += u64::from(!is_first);
        state.counts.malformed += malformed;
        if !is_first {
            state.link.gone = floor;
        }
        state.move_to(floor, is_first, now, self, &mut later);
        let (are_ahead, are_behind) = (state.ahead().is_some(), !state.link.behind.is_empty());
        drop(state);
        drop(order);
        // A log of many events is not freed under the locks.
        drop((old, evicted));
        later.run();
        if are_ahead && let Some(backplane) = &self.config.backplane {
            backplane.look_ahead();
        }
        if are_behind && let Some(backplane) = &self.config.backplane {
            backplane.look_back();
        }
        if !is_first {
            telemetry::reset(floor);
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
