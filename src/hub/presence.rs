//! Who is online, by user: plain bookkeeping behind the state lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::end::EndReason;
use super::later::Later;
use crate::error::ConfigError;
use crate::time::timer::Timer;

/// How a hub tells who comes and goes: set it with [`HubBuilder::presence`](crate::HubBuilder::presence), and watch
/// with [`Hub::watch`](crate::Hub::watch).
///
/// A user comes with their first client. When the last is gone they are *away*, and count as online: only if none comes
/// back within the grace period have they left, so a page that reloads is neither a leave nor a join. Clients without a
/// [user](crate::Subscriber::user) are not seen.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{Hub, ManualTimer, Presence};
///
/// let presence = Presence::with_grace(Duration::from_secs(10)).away(20_000).events(8192);
/// let hub = Hub::builder(ManualTimer::new()).presence(presence).build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
///
/// # Many instances
///
/// With a [backplane](crate::HubBuilder::backplane) users are those of all instances that have presence on. One comes who
/// was online nowhere, and has left when their last client *anywhere* has been gone for the grace period: so a user who
/// is led to another instance by a load balancer does neither, if the grace is longer than it takes to come there and for
/// the others to hear of it (over Redis some 100 ms). Each instance sees the same in the end, and by its own clock. The
/// users of an instance that dies count as online for a while: see the engine, `sse_hub::redis`. What an instance knows
/// of others it keeps while it cannot reach them.
///
/// # Memory
///
/// About `away * (200 + n) + events * (64 + n)` bytes at most, where `n` is the length of a user's name, however many clients
/// come and go. Nothing for users that are online, and no events are kept while nobody watches. With a backplane about
/// `elsewhere * (130 + n)` bytes more (measured on 64 bits: 120 and `n`, of half a million users), and 60 for each user here
/// of whom the others are still to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    pub(crate) grace: Duration,
    pub(crate) away: usize,
    pub(crate) events: usize,
    pub(crate) elsewhere: usize,
}

impl Presence {
    /// Users that come back within this time have not left. A reload takes a moment; a connection that was lost takes
    /// [`HubBuilder::retry`](crate::HubBuilder::retry) and a half of it, and what it takes to connect. With zero, every
    /// reload is a leave and a join.
    #[must_use]
    pub const fn with_grace(grace: Duration) -> Self {
        Self { grace, away: 10_000, events: 4096, elsewhere: 1_000_000 }
    }

    /// At most this many users are away at a time: 10 000, unless set. When there are more, the one that has been for
    /// longest is reported as left before its grace is over.
    ///
    /// To honour the grace it takes at least `users that leave in a second * grace in seconds`; the grace that can be
    /// had is `away / users that leave in a second`.
    #[must_use]
    pub const fn away(mut self, users: usize) -> Self {
        self.away = users;
        self
    }

    /// How many events are kept for those who watch: 4096, unless set. One that falls further behind gets
    /// [`PresenceEvent::Missed`].
    #[must_use]
    pub const fn events(mut self, events: usize) -> Self {
        self.events = events;
        self
    }

    /// With a [backplane](crate::HubBuilder::backplane): at most this many users of other instances are known, each counted
    /// once for each instance: a million, unless set. Those beyond are not seen, and `tracing` is told once.
    #[must_use]
    pub const fn elsewhere(mut self, users: usize) -> Self {
        self.elsewhere = users;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let limits = [("away", self.away), ("events", self.events), ("elsewhere", self.elsewhere)];
        match limits.iter().find(|limit| limit.1 == 0) {
            Some((limit, _)) => Err(ConfigError::PresenceIsZero(limit)),
            None => Ok(()),
        }
    }
}

/// What a [`PresenceWatch`](crate::PresenceWatch) sees.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceEvent {
    /// A user came who was not online.
    Joined {
        /// Who.
        user: Arc<str>,
    },
    /// A user's last client has been gone for the grace period.
    Left {
        /// Who.
        user: Arc<str>,
        /// Why the last of their clients ended.
        reason: EndReason,
    },
    /// The watcher fell behind what is [kept](Presence::events): some events are lost to it, and it goes on from now.
    /// Read [`Hub::users`](crate::Hub::users) anew.
    Missed,
}

/// A user that is online, as [`Hub::users`](crate::Hub::users) lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserInfo {
    /// Who.
    pub user: Arc<str>,
    /// How many clients they have: on this instance, if there are several.
    pub clients: usize,
    /// On how many other instances they have some. Who has none anywhere is away.
    pub elsewhere: usize,
}

/// Users that are away, and what those who watch have not seen yet.
#[derive(Debug)]
pub(super) struct Roster {
    settings: Presence,
    timer: Arc<dyn Timer>,
    /// Users without clients whose grace is not over, or was not found to be yet.
    away: HashMap<Arc<str>, Turn>,
    /// The same, by when it is over.
    turns: BTreeMap<Turn, (Arc<str>, EndReason)>,
    /// Makes turns of one moment differ.
    serial: u64,
    /// The latest events, kept while somebody watches.
    events: VecDeque<PresenceEvent>,
    /// How many events there were before those.
    dropped: u64,
    watchers: Slab<Watcher>,
    closed: bool,
}

/// When a user's grace is over, and which of all these it is.
type Turn = (Instant, u64);

#[derive(Debug)]
struct Watcher {
    /// How many events it has seen, or was told it missed.
    seen: u64,
    waker: Option<Waker>,
    /// When it will wake by itself.
    until: Option<Instant>,
}

/// What a watcher finds.
#[derive(Debug)]
pub(super) enum Sight {
    Event(PresenceEvent),
    /// Nothing, until something happens or, if it is given, this moment comes. The waker is registered.
    Nothing(Option<Instant>),
    Closed,
}

/// How many graces are found to be over at a time, so that whoever finds them is not held up.
const FEW: usize = 64;

/// Used where the clock cannot go as far as a grace period.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Roster {
    pub(super) fn new(settings: Presence, timer: Arc<dyn Timer>) -> Self {
        Self {
            settings,
            timer,
            away: HashMap::new(),
            turns: BTreeMap::new(),
            serial: 0,
            events: VecDeque::new(),
            dropped: 0,
            watchers: Slab::new(),
            closed: false,
        }
    }

    /// A user has its first client.
    pub(super) fn arrive(&mut self, user: Arc<str>, now: Instant, later: &mut Later) {
        let before = self.head();
        self.expire(now, FEW);
        self.settle(&user, now);
        match self.away.remove(&user) {
            Some(turn) => drop(self.turns.remove(&turn)),
            None => self.tell(PresenceEvent::Joined { user }),
        }
        self.wake_since(before, later);
    }

    /// A user's last client is gone.
    pub(super) fn depart(&mut self, user: &Arc<str>, reason: EndReason, later: &mut Later) {
        if self.closed {
            return;
        }
        let now = self.timer.now();
        let before = self.head();
        let over = [self.settings.grace, FAR].into_iter().find_map(|by| now.checked_add(by));
        let over = over.unwrap_or(now);
        let turn = (over, self.serial);
        self.serial += 1;
        self.away.insert(Arc::clone(user), turn);
        self.turns.insert(turn, (Arc::clone(user), reason));
        self.expire(now, FEW);
        if self.away.len() > self.settings.away {
            self.give_up_first();
        }
        self.wake_since(before, later);
        // Mostly another's turn comes first, and whoever waits will wake for that.
        if self.turns.first_key_value().is_some_and(|(&first, _)| first == turn) {
            let waiting = self.watchers.iter_mut().map(|(_, watcher)| watcher);
            let too_long = waiting.filter(|watcher| watcher.until.is_none_or(|until| until > over));
            later.extend(too_long.filter_map(|watcher| watcher.waker.take()));
        }
    }

    /// Reports users whose grace is over, so many at most.
    fn expire(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.turns.first_key_value() {
                Some((&(over, _), _)) if over <= now => self.give_up_first(),
                _ => return,
            }
        }
    }

    /// Reports this user if its grace is over: the graces of many others may be, too.
    fn settle(&mut self, user: &Arc<str>, now: Instant) {
        if self.away.get(user).is_some_and(|&(over, _)| over <= now)
            && let Some(turn) = self.away.remove(user)
            && let Some((user, reason)) = self.turns.remove(&turn)
        {
            self.tell(PresenceEvent::Left { user, reason });
        }
    }

    fn give_up_first(&mut self) {
        let Some((_, (user, reason))) = self.turns.pop_first() else { return };
        self.away.remove(&user);
        self.tell(PresenceEvent::Left { user, reason });
    }

    fn tell(&mut self, event: PresenceEvent) {
        if self.watchers.is_empty() {
            self.dropped += 1;
            return;
        }
        if self.events.len() >= self.settings.events {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// How many events there ever were.
    fn head(&self) -> u64 {
        self.dropped + self.events.len() as u64
    }

    fn wake_since(&mut self, before: u64, later: &mut Later) {
        if self.head() != before {
            later.extend(self.watchers.iter_mut().filter_map(|(_, watcher)| watcher.waker.take()));
        }
    }

    /// Adds a watcher, which sees what happens from here on, and returns its place.
    pub(super) fn watch(&mut self, now: Instant, later: &mut Later) -> usize {
        let before = self.head();
        self.expire(now, FEW);
        self.wake_since(before, later);
        self.watchers.insert(Watcher { seen: self.head(), waker: None, until: None })
    }

    /// What a watcher sees next. Returns also the waker that it had, to be dropped when no lock is held.
    pub(super) fn look(
        &mut self,
        place: usize,
        cx: &Context<'_>,
        now: Instant,
        later: &mut Later,
    ) -> (Sight, Option<Waker>) {
        let Some(old) = self.watchers.get_mut(place).map(|watcher| watcher.waker.take()) else {
            return (Sight::Closed, None);
        };
        let before = self.head();
        if self.watchers[place].seen == before {
            // Not before it has seen what is there: what it finds by itself never makes it fall behind.
            self.expire(now, FEW);
        }
        self.wake_since(before, later);
        let head = self.head();
        let next = self.turns.first_key_value().map(|(&(over, _), _)| over);
        let watcher = &mut self.watchers[place];
        if watcher.seen < self.dropped {
            watcher.seen = head;
            return (Sight::Event(PresenceEvent::Missed), old);
        }
        // The offset is within the ring, whose length is a `usize`.
        if let Some(event) = self.events.get((watcher.seen - self.dropped) as usize) {
            watcher.seen += 1;
            return (Sight::Event(event.clone()), old);
        }
        if self.closed {
            return (Sight::Closed, old);
        }
        watcher.until = next;
        let (known, old) = match old {
            Some(waker) if waker.will_wake(cx.waker()) => (waker, None),
            old => (cx.waker().clone(), old),
        };
        watcher.waker = Some(known);
        (Sight::Nothing(next), old)
    }

    /// Removes a watcher. What it held is to be dropped when no lock is.
    pub(super) fn unwatch(&mut self, place: usize) -> (Option<Waker>, VecDeque<PresenceEvent>) {
        let waker = self.watchers.try_remove(place).and_then(|watcher| watcher.waker);
        if !self.watchers.is_empty() {
            return (waker, VecDeque::new());
        }
        self.dropped = self.head();
        (waker, mem::take(&mut self.events))
    }

    /// The hub was closed: those who watch see what happened before, and the end.
    pub(super) fn close(&mut self, later: &mut Later) {
        self.closed = true;
        self.away = HashMap::new();
        self.turns = BTreeMap::new();
        later.extend(self.watchers.iter_mut().filter_map(|(_, watcher)| watcher.waker.take()));
    }

    /// Whether a user is away, and not for too long. One that was is reported as left now, and not only by the clock's
    /// word: another thread, which read the clock before, would find that user back in time, and tell nobody.
    pub(super) fn is_away(&mut self, user: &Arc<str>, now: Instant, later: &mut Later) -> bool {
        let before = self.head();
        self.expire(now, FEW);
        self.settle(user, now);
        self.wake_since(before, later);
        self.away.contains_key(user)
    }

    /// All who are away, as for [`is_away`](Self::is_away).
    pub(super) fn away<'a>(
        &'a mut self,
        now: Instant,
        later: &mut Later,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let before = self.head();
        self.expire(now, usize::MAX);
        self.wake_since(before, later);
        self.away.keys()
    }
}
