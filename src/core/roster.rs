//! Presence: which users are online, away, or have left.
//!
//! A user is online while a client of the user is connected, and for a grace period after the last
//! one. The routes know the former, so the roster holds only users that are away. Nothing runs when
//! a grace period is over: the next operation finds that by the clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::deferred::Work;
use super::end::EndReason;
use super::settings::Presence;

/// An event of a [`PresenceWatch`](crate::PresenceWatch).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceEvent {
    /// A user came online.
    Joined {
        /// The user.
        user: Arc<str>,
    },
    /// A user left: the last client of the user has been gone for the grace period.
    Left {
        /// The user.
        user: Arc<str>,
        /// Why the last client of the user ended.
        reason: EndReason,
    },
    /// The watcher fell behind the events that the hub [keeps](crate::Presence::event_buffer). Some
    /// are lost to the watcher, which goes on from now. Read [`Hub::users`](crate::Hub::users)
    /// again.
    Missed,
}

/// A user that is online, as [`Hub::users`](crate::Hub::users) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserInfo {
    /// The user.
    pub user: Arc<str>,
    /// How many clients the user has on this instance.
    pub clients: usize,
    /// On how many other instances the user has clients. A user without any client is away.
    pub other_instances: usize,
}

/// The users that are away, and the events that watchers have not seen yet.
#[derive(Debug)]
pub(crate) struct Roster {
    settings: Presence,
    /// Users without clients, with a departure that is not reported yet.
    away: HashMap<Arc<str>, Turn>,
    /// The same users, by the end of their grace period, and why their last client ended.
    turns: BTreeMap<Turn, (Arc<str>, EndReason)>,
    /// Makes turns of one instant differ.
    serial: u64,
    /// The latest events, kept while there are watchers.
    events: VecDeque<PresenceEvent>,
    /// How many events came before those.
    dropped: u64,
    watchers: Slab<Watcher>,
    is_closed: bool,
}

/// When the grace period of a user ends, and a number that makes it unique.
type Turn = (Instant, u64);

#[derive(Debug)]
struct Watcher {
    /// How many events the watcher has seen, or was told that it missed.
    seen: u64,
    waker: Option<Waker>,
    /// When the watcher's own timer will wake it.
    until: Option<Instant>,
}

/// The result of a watcher's poll.
#[derive(Debug)]
pub(crate) enum Sight {
    Event(PresenceEvent),
    /// No event until the next change or, if given, until this instant. The waker is registered.
    Nothing(Option<Instant>),
    Closed,
}

/// The most grace periods that one operation ends: an operation must not pay for a whole crowd.
const MAX_EXPIRED: usize = 64;

/// Stands in for a grace period that the clock cannot add: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Roster {
    pub(crate) fn new(settings: Presence) -> Self {
        Self {
            settings,
            away: HashMap::new(),
            turns: BTreeMap::new(),
            serial: 0,
            events: VecDeque::new(),
            dropped: 0,
            watchers: Slab::new(),
            is_closed: false,
        }
    }

    /// The first client of a user came.
    pub(crate) fn arrive(&mut self, user: Arc<str>, work: &mut Work<'_>) {
        let before = self.head();
        self.expire(work.now, MAX_EXPIRED);
        self.expire_user(&user, work.now);
        match self.away.remove(&user) {
            Some(turn) => drop(self.turns.remove(&turn)),
            None => self.emit(PresenceEvent::Joined { user }),
        }
        self.wake_since(before, work);
    }

    /// The last client of a user left.
    pub(crate) fn depart(&mut self, user: &Arc<str>, reason: EndReason, work: &mut Work<'_>) {
        if self.is_closed {
            return;
        }
        let before = self.head();
        let ends = [self.settings.grace, FAR].into_iter().find_map(|by| work.now.checked_add(by));
        let ends = ends.unwrap_or(work.now);
        let turn = (ends, self.serial);
        self.serial += 1;
        self.away.insert(Arc::clone(user), turn);
        self.turns.insert(turn, (Arc::clone(user), reason));
        self.expire(work.now, MAX_EXPIRED);
        if self.away.len() > self.settings.max_away {
            self.expire_first();
        }
        self.wake_since(before, work);
        // A grace period that begins later ends later. So the watchers must arm their timers again
        // only if this grace period is the first to end.
        if self.turns.first_key_value().is_some_and(|(&first, _)| first == turn) {
            let watchers = self.watchers.iter_mut().map(|(_, watcher)| watcher);
            let late = watchers.filter(|watcher| watcher.until.is_none_or(|until| until > ends));
            work.extend(late.filter_map(|watcher| watcher.waker.take()));
        }
    }

    /// Reports at most `most` users whose grace period is over.
    fn expire(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.turns.first_key_value() {
                Some((&(ends, _), _)) if ends <= now => self.expire_first(),
                _ => return,
            }
        }
    }

    /// Reports this user if its grace period is over. [`expire`](Self::expire) may have stopped
    /// before it.
    fn expire_user(&mut self, user: &Arc<str>, now: Instant) {
        if self.away.get(user).is_some_and(|&(ends, _)| ends <= now)
            && let Some(turn) = self.away.remove(user)
            && let Some((user, reason)) = self.turns.remove(&turn)
        {
            self.emit(PresenceEvent::Left { user, reason });
        }
    }

    fn expire_first(&mut self) {
        let Some((_, (user, reason))) = self.turns.pop_first() else { return };
        self.away.remove(&user);
        self.emit(PresenceEvent::Left { user, reason });
    }

    fn emit(&mut self, event: PresenceEvent) {
        if self.watchers.is_empty() {
            self.dropped += 1;
            return;
        }
        if self.events.len() >= self.settings.event_buffer {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// How many events there ever were.
    fn head(&self) -> u64 {
        self.dropped + self.events.len() as u64
    }

    fn wake_since(&mut self, before: u64, work: &mut Work<'_>) {
        if self.head() != before {
            work.extend(self.watchers.iter_mut().filter_map(|(_, watcher)| watcher.waker.take()));
        }
    }

    /// Adds a watcher, which sees the events from here on, and returns its key.
    pub(crate) fn watch(&mut self, work: &mut Work<'_>) -> usize {
        let before = self.head();
        self.expire(work.now, MAX_EXPIRED);
        self.wake_since(before, work);
        self.watchers.insert(Watcher { seen: self.head(), waker: None, until: None })
    }

    /// Returns the next event of a watcher. If there is none, registers `waker`.
    ///
    /// Leaves in `waker` a waker that must be dropped after the lock is released.
    pub(crate) fn poll(
        &mut self,
        key: usize,
        waker: &mut Option<Waker>,
        work: &mut Work<'_>,
    ) -> Sight {
        let before = self.head();
        let Some(watcher) = self.watchers.get_mut(key) else { return Sight::Closed };
        // The events that this watcher adds must wake the others only.
        let own = watcher.waker.take();
        if watcher.seen == before {
            // Only a watcher that has seen every event may add some: otherwise the events that it
            // adds itself would make it fall behind.
            self.expire(work.now, MAX_EXPIRED);
        }
        self.wake_since(before, work);
        let head = self.head();
        let next = self.turns.first_key_value().map(|(&(ends, _), _)| ends);
        let watcher = &mut self.watchers[key];
        watcher.waker = own;
        if watcher.seen < self.dropped {
            watcher.seen = head;
            return Sight::Event(PresenceEvent::Missed);
        }
        // The offset is within the ring, whose length is a `usize`.
        if let Some(event) = self.events.get((watcher.seen - self.dropped) as usize) {
            watcher.seen += 1;
            return Sight::Event(event.clone());
        }
        if self.is_closed {
            return Sight::Closed;
        }
        watcher.until = next;
        mem::swap(&mut watcher.waker, waker);
        Sight::Nothing(next)
    }

    /// Removes a watcher. The result must be dropped after the lock is released.
    pub(crate) fn unwatch(&mut self, key: usize) -> (Option<Waker>, VecDeque<PresenceEvent>) {
        let waker = self.watchers.try_remove(key).and_then(|watcher| watcher.waker);
        if !self.watchers.is_empty() {
            return (waker, VecDeque::new());
        }
        self.dropped = self.head();
        (waker, mem::take(&mut self.events))
    }

    /// The hub was closed: watchers see the events before, and then the end.
    pub(crate) fn close(&mut self, work: &mut Work<'_>) {
        self.is_closed = true;
        self.away = HashMap::new();
        self.turns = BTreeMap::new();
        work.extend(self.watchers.iter_mut().filter_map(|(_, watcher)| watcher.waker.take()));
    }

    /// Whether a user is away, and its grace period not over.
    ///
    /// If the grace period is over, the departure is reported under the same lock. Otherwise
    /// another thread, which read the clock earlier, could find the user back in time, and no event
    /// would correct this answer.
    pub(crate) fn is_away(&mut self, user: &Arc<str>, work: &mut Work<'_>) -> bool {
        let before = self.head();
        self.expire(work.now, MAX_EXPIRED);
        self.expire_user(user, work.now);
        self.wake_since(before, work);
        self.away.contains_key(user)
    }

    /// The users that are away. Reports every departure first, as [`is_away`](Self::is_away) does.
    pub(crate) fn away<'a>(
        &'a mut self,
        work: &mut Work<'_>,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let before = self.head();
        self.expire(work.now, usize::MAX);
        self.wake_since(before, work);
        self.away.keys()
    }
}
