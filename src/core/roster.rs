//! Presence: which seats are taken, away, or empty. A seat is a user, or a member of a topic.
//!
//! A seat is taken while it has a client, and for a grace period after the last client. Other files
//! count the clients, so the roster holds only seats that are away. Nothing runs when a grace
//! period is over: the next operation finds that by the clock.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::backplane::UserChange;
use super::deferred::Work;
use super::end::EndReason;
use super::seats::{Seat, Seats};
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

/// An event of a [`TopicWatch`](crate::TopicWatch).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicEvent {
    /// A user became a member of a topic.
    Joined {
        /// The user.
        user: Arc<str>,
        /// The topic.
        topic: Arc<str>,
    },
    /// A user is a member of a topic no more: the last client of the user in the topic left it, or
    /// has been gone for the grace period.
    Left {
        /// The user.
        user: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// [`EndReason::LeftTopic`] if the client left the topic and not the hub. Otherwise why the
        /// stream of the client ended.
        reason: EndReason,
    },
    /// The watcher fell behind the events that the hub [keeps](crate::Presence::event_buffer). Some
    /// are lost to the watcher, which goes on from now. Call
    /// [`Hub::users_in`](crate::Hub::users_in) again.
    Missed,
}

/// A user that is online, as [`Hub::users`](crate::Hub::users) and
/// [`Hub::users_in`](crate::Hub::users_in) list it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserInfo {
    /// The user.
    pub user: Arc<str>,
    /// How many clients the user has on this instance. In the list of a topic, only clients that
    /// follow the topic count.
    pub clients: usize,
    /// On how many other instances the user has clients. A user without any client is away.
    pub other_instances: usize,
}

/// The seats that are away, and the events that watchers have not seen yet.
#[derive(Debug)]
pub(crate) struct Roster {
    settings: Presence,
    /// Seats without clients, with a departure that is not reported yet.
    away: Seats<Turn>,
    /// The same seats, by the end of their grace period, and why their last client ended.
    turns: BTreeMap<Turn, (Seat, EndReason)>,
    /// Makes turns of one instant differ.
    serial: u64,
    /// The latest events, kept while there are watchers.
    events: VecDeque<UserChange>,
    /// How many events came before those, while there were watchers.
    dropped: u64,
    watchers: Slab<Watcher>,
    is_closed: bool,
}

/// When the grace period of a seat ends, and a number that makes it unique.
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
    Event(UserChange),
    /// The watcher missed events, and goes on from now.
    Missed,
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
            away: Seats::default(),
            turns: BTreeMap::new(),
            serial: 0,
            events: VecDeque::new(),
            dropped: 0,
            watchers: Slab::new(),
            is_closed: false,
        }
    }

    /// The first client of a seat came.
    pub(crate) fn arrive(&mut self, seat: Seat, work: &mut Work<'_>) {
        if self.is_closed {
            return;
        }
        let before = self.head();
        self.expire(work.now, MAX_EXPIRED);
        self.expire_seat(&seat, work.now);
        match self.away.remove(&seat) {
            Some(turn) => drop(self.turns.remove(&turn)),
            None => self.emit(UserChange::Joined(seat)),
        }
        self.wake_since(before, work);
    }

    /// The last client of a seat left.
    pub(crate) fn depart(&mut self, seat: Seat, reason: EndReason, work: &mut Work<'_>) {
        if self.is_closed {
            return;
        }
        let before = self.head();
        if reason == EndReason::LeftTopic {
            // A client that leaves a topic does not reload: nobody waits for its return.
            self.expire(work.now, MAX_EXPIRED);
            self.emit(UserChange::Left(seat, reason));
            self.wake_since(before, work);
            return;
        }
        let ends = [self.settings.grace, FAR].into_iter().find_map(|by| work.now.checked_add(by));
        let ends = ends.unwrap_or(work.now);
        let turn = (ends, self.serial);
        self.serial += 1;
        self.away.insert(seat.clone(), turn);
        self.turns.insert(turn, (seat, reason));
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

    /// Reports at most `most` seats whose grace period is over.
    fn expire(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.turns.first_key_value() {
                Some((&(ends, _), _)) if ends <= now => self.expire_first(),
                _ => return,
            }
        }
    }

    /// Reports this seat if its grace period is over. [`expire`](Self::expire) may have stopped
    /// before it.
    fn expire_seat(&mut self, seat: &Seat, now: Instant) {
        if self.away.get(seat).is_some_and(|&(ends, _)| ends <= now)
            && let Some(turn) = self.away.remove(seat)
            && let Some((seat, reason)) = self.turns.remove(&turn)
        {
            self.emit(UserChange::Left(seat, reason));
        }
    }

    fn expire_first(&mut self) {
        let Some((_, (seat, reason))) = self.turns.pop_first() else { return };
        self.away.remove(&seat);
        self.emit(UserChange::Left(seat, reason));
    }

    fn emit(&mut self, event: UserChange) {
        if self.watchers.is_empty() {
            return;
        }
        if self.events.len() >= self.settings.event_buffer {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// How many events came while there were watchers.
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
            return Sight::Missed;
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
    pub(crate) fn unwatch(&mut self, key: usize) -> (Option<Waker>, VecDeque<UserChange>) {
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
        self.away = Seats::default();
        self.turns = BTreeMap::new();
        work.extend(self.watchers.iter_mut().filter_map(|(_, watcher)| watcher.waker.take()));
    }

    /// Whether a seat is away, and its grace period not over.
    ///
    /// If the grace period is over, the departure is reported under the same lock. Otherwise
    /// another thread, which read the clock earlier, could find the user back in time, and no event
    /// would correct this answer.
    pub(crate) fn is_away(&mut self, seat: &Seat, work: &mut Work<'_>) -> bool {
        let before = self.head();
        self.expire(work.now, MAX_EXPIRED);
        self.expire_seat(seat, work.now);
        self.wake_since(before, work);
        self.away.get(seat).is_some()
    }

    /// The users that are away, or those that are away from a topic. Reports every departure first,
    /// as [`is_away`](Self::is_away) does.
    pub(crate) fn away<'a>(
        &'a mut self,
        topic: Option<&str>,
        work: &mut Work<'_>,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let before = self.head();
        self.expire(work.now, usize::MAX);
        self.wake_since(before, work);
        self.away.of(topic).map(|(user, _)| user)
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::core::config::Config;
    use crate::time::manual::ManualTimer;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn departure_of_an_earlier_time_wakes_watchers() {
        let config = Config::new(ManualTimer::new());
        let mut roster = Roster::new(Presence::default());
        let [ann, bob] = ["ann", "bob"].map(Seat::from);
        // Two threads read the clock, and the later time gets the lock first.
        let mut earlier = Work::begin(&config);
        let mut later = Work::begin(&config);
        later.now += Duration::from_secs(1);
        let watcher = roster.watch(&mut earlier);
        roster.depart(ann, EndReason::Left, &mut later);
        let count = Arc::new(Count::default());
        let mut waker = Some(Waker::from(Arc::clone(&count)));
        let sight = roster.poll(watcher, &mut waker, &mut later);
        assert!(matches!(sight, Sight::Nothing(Some(_))), "{sight:?}");
        roster.depart(bob, EndReason::Left, &mut earlier);
        earlier.run();
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "the timer must be armed for bob");
        later.run();
    }
}
