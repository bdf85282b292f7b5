//! The data that the state lock guards.
//!
//! Functions here take `&mut State`, which proves that the lock is held. They run no foreign code:
//! wakers and notifications go into a [`Work`], which the caller runs after the lock is released.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use slab::Slab;

use super::ahead::Ahead;
use super::attendance::Attendance;
use super::client::{self, Client};
use super::config::Config;
use super::deferred::{Ended, Work};
use super::due::Due;
use super::end::{End, EndReason};
use super::extras::Beginning;
use super::health::Health;
use super::held::Held;
use super::inbox::{Inbox, InboxGuard, Inboxes};
use super::run::Producer;
use super::seats::Seat;
use super::stats::Counts;
use crate::log::away::Away;
use crate::log::departed::Departed;
use crate::log::entry::{Batch, Budget, Entry};
use crate::log::identity::{Identity, Membership};
use crate::log::key::{ClientId, Key};
use crate::log::log::Log;
use crate::log::mailbox::{EntryRef, GapReason, Handle, Pace, Pushed, Waiting};
use crate::log::pages;
use crate::log::profile::{Owner, Profile};
use crate::log::routes::Routes;
use crate::wire::id::EventId;

/// The most clients that one hold of the state lock hands an event to, wakes or changes. In between
/// the lock is released for other threads. loom explores every order with pieces of one.
pub(crate) const PIECE: usize = if cfg!(sse_hub_loom) { 1 } else { 256 };

/// The most stalled clients that one operation ends.
const MAX_EXPELLED: usize = 64;

/// The least number of departed clients that the hub remembers.
const MIN_DEPARTED: usize = 1024;

/// The data that the state lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) log: Log,
    pub(crate) routes: Routes<Arc<Client>>,
    pub(crate) inboxes: Inboxes,
    pub(crate) departed: Departed,
    pub(crate) away: Box<Away>,
    /// The producers of this instance whose runs may be open, by their serials.
    pub(crate) producers: HashMap<u64, Arc<Producer>>,
    /// Clients that events wait for, the longest wait first. Each client is in here at most once.
    watched: BinaryHeap<Reverse<Watched>>,
    /// The clients that tasks of servers wake.
    pub(crate) due: Due,
    /// The tasks that wait for the last client to leave.
    pub(crate) waiting_for_last: Slab<Waker>,
    /// The log's head when a client last joined a topic.
    pub(crate) last_join: EventId,
    pub(crate) lifecycle: Lifecycle,
    /// Whether the end of the order is known. Always true without a backplane.
    pub(crate) is_loaded: bool,
    pub(crate) counts: Counts,
    /// `None` if presence is off.
    pub(crate) attendance: Option<Box<Attendance>>,
    pub(crate) held: Held,
    pub(crate) ahead: Ahead,
    pub(crate) health: Health,
}

/// Whether the hub lets clients in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    Open,
    Draining,
    Closed,
}

/// A client that events wait for, and since when at the earliest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Watched {
    since: Instant,
    slot: usize,
    serial: u64,
}

/// The result of a read of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LogRead {
    /// The hub has forgotten the client.
    Forgotten,
    /// Nothing: the client must look at its inbox first.
    Retry,
    /// Events, possibly none. `gap`: where the client stands after the loss that it must report.
    Events { gap: Option<EventId> },
    /// Values, possibly none. `end`: where the stream continues after the last value, if these were
    /// the last.
    Values { gap: Option<EventId>, end: Option<EventId> },
}

/// A piece of a hand-out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handed {
    /// How many clients took the event.
    pub(crate) given: usize,
    pub(crate) looked_at: usize,
    /// How many members of the key's list are left.
    pub(crate) left: usize,
}

impl State {
    pub(crate) fn new(config: &Config, log: Log) -> Self {
        let has_backplane = config.backplane.is_some();
        Self {
            away: Box::new(Away::new(
                config.limits.remembered,
                !has_backplane,
                log.hasher().clone(),
            )),
            routes: Routes::new(log.hasher().clone()),
            inboxes: Inboxes::default(),
            log,
            departed: Departed::new(config.retain.events.max(MIN_DEPARTED)),
            producers: HashMap::new(),
            watched: BinaryHeap::new(),
            due: Due::default(),
            waiting_for_last: Slab::new(),
            last_join: EventId::ORIGIN,
            lifecycle: Lifecycle::Open,
            is_loaded: !has_backplane,
            counts: Counts::default(),
            attendance: config
                .presence
                .map(|presence| Box::new(Attendance::new(presence, has_backplane))),
            held: Held::new(config.history),
            ahead: Ahead::default(),
            health: Health::default(),
        }
    }

    /// Whether `client` is the client in this slot. A slot is reused after its client left.
    pub(crate) fn has(&self, slot: usize, client: &Arc<Client>) -> bool {
        self.routes.get(slot).is_some_and(|member| Arc::ptr_eq(member, client))
    }

    pub(crate) fn identity(&self, slot: usize) -> Option<Identity<'_>> {
        let client = self.routes.get(slot)?;
        Some(Identity { memberships: self.routes.memberships(slot), filter: &client.filter })
    }

    /// Returns the user and the session of a client.
    pub(crate) fn owner(&self, slot: usize) -> Owner {
        Owner::of(self.routes.memberships(slot))
    }

    /// Returns a client that is connected, or remembered.
    pub(crate) fn profile(&self, id: ClientId) -> Option<Profile> {
        match self.routes.members(&Key::Client(id)).first() {
            Some(member) => Some(Profile::of(id, self.routes.memberships(member.slot()))),
            None => self.away.profile(id),
        }
    }

    /// Hands an event to the last `most` members of a key's list before `left`. `most` is at most
    /// [`PIECE`].
    pub(crate) fn hand_piece(
        &mut self,
        entry: &Arc<Entry>,
        entry_ref: &EntryRef,
        (hash, key): (u64, &Key),
        left: usize,
        most: usize,
        work: &mut Work<'_>,
    ) -> Handed {
        // A client that joins between two pieces of a hand-out joins for later events only.
        let joined_since = entry.id <= self.last_join;
        let is_for_all = entry.is_for_all_holders() && !joined_since;
        let members = self.routes.members_under(hash, key);
        let are_due = members.len() > PIECE && self.due.takes(members.len());
        if left > members.len() && !are_due {
            work.expect_wakers(members.len());
        }
        let left = left.min(members.len());
        let rest = left.saturating_sub(most);
        let (config, watched, due) = (work.config, &mut self.watched, &mut self.due);
        let mut walk = self.inboxes.walk();
        let event = Handle { id: entry.id, at: entry.at, entry: entry_ref };
        let mut given = 0;
        for member in members[rest..left].iter().rev() {
            let (slot, (number, is_filtered)) = (member.slot(), client::untagged(member.tag));
            if is_filtered && !entry.passes(&member.reach.filter) {
                continue;
            }
            // The client and its other keys lie elsewhere in memory: look at them only if they
            // matter.
            let is_in = || {
                let memberships = self.routes.memberships(slot);
                entry.is_addressed_to(Identity { memberships, filter: &member.reach.filter })
            };
            if !is_for_all && !is_in() {
                continue;
            }
            walk.visit(number, |inbox| {
                if !inbox.is_open() {
                    return;
                }
                // A client that rests reads the log afterwards, which is conflated.
                let capacity = if inbox.is_resting() { 0 } else { config.window };
                match inbox.mailbox.push(&event, capacity) {
                    Pushed::Stale => return,
                    Pushed::Ready => given += 1,
                    Pushed::Held => {
                        // The client cannot read the event yet: do not wake it.
                        given += 1;
                        return;
                    }
                }
                if inbox.is_resting() {
                    // The timer of the stream wakes.
                } else if are_due {
                    due.add(number, inbox);
                } else {
                    work.wake_later(inbox.take_waker());
                }
                if !inbox.is_watched {
                    watch(watched, slot, member.reach.serial, inbox, event.at, config);
                }
            });
        }
        work.extend(self.due.take_tasks());
        Handed { given, looked_at: left - rest, left: rest }
    }

    /// Wakes so many clients of large broadcasts.
    #[cfg(feature = "serve")]
    pub(crate) fn wake_due(&mut self, count: usize, work: &mut Work<'_>) {
        let mut walk = self.inboxes.walk();
        for number in self.due.next(count) {
            work.wake_later(walk.visit(number, Inbox::take_left_waker).flatten());
        }
    }

    /// Watches whether a client stalls, for which events may have waited since `work.now`.
    pub(crate) fn watch(&mut self, slot: usize, work: &Work<'_>) {
        let Some(client) = self.routes.get(slot) else { return };
        let mut inbox = client.lock();
        watch(&mut self.watched, slot, client.serial, &mut inbox, work.now, work.config);
    }

    /// Ends every stream after its backlog.
    pub(crate) fn end_all(&self, reason: EndReason, work: &mut Work<'_>) {
        let clients = self.routes.iter();
        work.extend(clients.filter_map(|(_, client)| client.lock().end(End::silent(reason))));
    }

    /// Ends a stream and forgets its client at once. The next poll of the stream finds its end.
    pub(crate) fn expel(
        &mut self,
        slot: usize,
        end: impl FnOnce(&Client) -> End,
        work: &mut Work<'_>,
    ) {
        let Some(client) = self.routes.get(slot).map(Arc::clone) else { return };
        let end = end(&client);
        let mut inbox = client.lock();
        work.extend(inbox.end(end));
        let reason = inbox.ending().reason().unwrap_or(EndReason::Left);
        drop(inbox);
        self.forget(slot, reason, work);
    }

    /// Ends streams that were not read for too long although events wait, [`MAX_EXPELLED`] at most.
    ///
    /// A stalled stream cannot notice by itself: the server does not poll it, so no timer inside it
    /// fires. Other operations notice, as clients publish, connect and send heartbeats.
    pub(crate) fn expel_stalled(&mut self, work: &mut Work<'_>) {
        let Some(limit) = work.config.stall else { return };
        let is_over = |since: Instant, now: Instant| now.saturating_duration_since(since) >= limit;
        for _ in 0..MAX_EXPELLED {
            match self.watched.peek() {
                Some(Reverse(oldest)) if is_over(oldest.since, work.now) => {}
                _ => return,
            }
            let Some(Reverse(Watched { slot, serial, .. })) = self.watched.pop() else { return };
            let Some(client) = self.routes.get(slot).filter(|client| client.serial == serial)
            else {
                continue;
            };
            let mut inbox = client.lock();
            let since = match inbox.waiting() {
                Waiting::No => {
                    inbox.is_watched = false;
                    continue;
                }
                Waiting::Since(since) => since,
                Waiting::ReadNow => work.now,
            };
            drop(inbox);
            if is_over(since, work.now) {
                self.expel(slot, |_| End::silent(EndReason::Stalled), work);
            } else {
                self.watched.push(Reverse(Watched { since, slot, serial }));
            }
        }
    }

    /// Forgets a client.
    pub(crate) fn forget(&mut self, slot: usize, reason: EndReason, work: &mut Work<'_>) {
        let owner = self.owner(slot);
        if let (Some(attendance), Some(user)) = (&mut self.attendance, &owner.user) {
            for topic in topics_of(self.routes.memberships(slot)) {
                attendance.exit(user, topic, reason, work);
            }
        }
        let Some((client, memberships)) = self.routes.remove(slot) else { return };
        work.report_end(Ended { client: client.id, has_user: owner.user.is_some(), reason });
        self.note_departure(owner.user.as_ref(), reason, work);
        self.departed.remember(client.id, owner);
        self.counts.ended[reason as usize] += 1;
        let mut inbox = client.lock();
        // A client of another instance can be ahead of the log.
        let at = inbox.mailbox.cursor().max(self.log.head());
        self.away.remember(client.id, memberships, at);
        if inbox.mailbox.held_until().is_some() {
            // The client waits for older events that nobody will bring.
            inbox.mailbox.release(EventId::LAST, work.now);
        }
        // The destructor of a waker is foreign code: it must run without a lock.
        work.extend(inbox.take_waker());
        drop(inbox);
        if self.routes.len() == 0 {
            work.extend(self.waiting_for_last.drain());
        }
        if self.watched.len() > self.routes.prune_at() {
            let routes = &self.routes;
            self.watched.retain(|Reverse(watched)| {
                routes.get(watched.slot).is_some_and(|client| client.serial == watched.serial)
            });
            self.watched.shrink_to(2 * self.watched.len());
        }
    }

    /// Adds a client to a topic, as the server asks, for events after `since`. Returns `false` if
    /// the client follows the topic already.
    pub(crate) fn join_topic(
        &mut self,
        slot: usize,
        topic: &Key,
        since: EventId,
        work: &mut Work<'_>,
    ) -> bool {
        let joins = self.routes.join_by_server(slot, topic.clone(), since);
        if let (true, Some(attendance), Key::Topic(topic)) = (joins, &mut self.attendance, topic)
            && let Some(user) = user_of(self.routes.memberships(slot))
        {
            attendance.enter(user, topic, work);
        }
        joins
    }

    /// Removes a client from a topic. Returns `false` if the client does not follow the topic.
    pub(crate) fn leave_topic(&mut self, slot: usize, topic: &Key, work: &mut Work<'_>) -> bool {
        let leaves = self.routes.leave(slot, topic);
        if let (true, Some(attendance), Key::Topic(topic)) = (leaves, &mut self.attendance, topic)
            && let Some(user) = user_of(self.routes.memberships(slot))
        {
            attendance.exit(user, topic, EndReason::LeftTopic, work);
        }
        leaves
    }

    /// A client was registered: its user may have come online, and joined its topics.
    pub(crate) fn note_arrival(&mut self, slot: usize, work: &mut Work<'_>) {
        let Some(attendance) = &mut self.attendance else { return };
        let memberships = self.routes.memberships(slot);
        let Some(user) = user_of(memberships) else { return };
        if self.routes.members(&Key::User(Arc::clone(user))).len() == 1 {
            attendance.arrive(Seat::user(user), work);
        }
        for topic in topics_of(memberships) {
            attendance.enter(user, topic, work);
        }
    }

    /// A client was forgotten: its user may be away.
    fn note_departure(&mut self, user: Option<&Arc<str>>, reason: EndReason, work: &mut Work<'_>) {
        let (Some(attendance), Some(user)) = (&mut self.attendance, user) else { return };
        if self.routes.members(&Key::User(Arc::clone(user))).is_empty() {
            attendance.depart(Seat::user(user), reason, work);
        }
    }

    /// Reads the log for a client that is behind.
    ///
    /// A client that lost events may be held until they come. A client that must not lag is ended.
    pub(crate) fn read_log(
        &mut self,
        slot: usize,
        client: &Arc<Client>,
        out: &mut Batch,
        work: &mut Work<'_>,
    ) -> LogRead {
        // The slot of a client that was forgotten may belong to another client now.
        if !self.has(slot, client) {
            return LogRead::Forgotten;
        }
        let config = work.config;
        let identity =
            Identity { memberships: self.routes.memberships(slot), filter: &client.filter };
        let mut inbox = client.lock();
        // The order may have been replaced since the client was found to be behind: then the client
        // must report a gap first.
        let Some((pace, requested)) = inbox.mailbox.reads_log() else { return LogRead::Retry };
        let cursor = inbox.mailbox.cursor();
        if let Some(values) = inbox.beginning() {
            let read = read_values(&self.log, identity, values, &mut inbox, out, work);
            drop(inbox);
            self.watch(slot, work);
            return read;
        }
        let replay = config.limits.replay;
        if pace == Pace::Released
            && replay < self.log.len()
            && let (_, Some(at)) = self.log.before_last(replay, identity)
            && at > cursor
        {
            inbox.mailbox.jump(at, self.log.head(), GapReason::Capped, work.now);
            return LogRead::Retry;
        }
        // A stream that is to end delivers nothing after its tail. Later losses are for the client's
        // return: a gap beyond the tail would skip events that the log still holds.
        let upto = if inbox.is_open() { EventId::LAST } else { inbox.mailbox.tail() };
        let must_report = cursor < upto && inbox.mailbox.must_report_loss(self.log.evictions());
        let lost = must_report.then(|| self.log.lost_since(cursor, identity)).flatten();
        // Of each key, the log knows the newest loss only. A loss after the tail can hide an earlier
        // loss, and is reported to be safe.
        let lost = lost.map(|lost| lost.min(upto));
        if let Some(lost) = lost {
            // A client whose stream is complete does not come back: it is told the gap now.
            let may_lag = pace.is_excused() || !config.end_lagging || inbox.ending().is_final();
            if may_lag
                && lost > requested
                && let Some(until) = self.held.may_hold(cursor, &self.log, work.now)
            {
                inbox.mailbox.hold(until);
                drop(inbox);
                self.held.add(slot, client, cursor, work.now, &mut self.log, &self.routes);
                work.note_history_wanted();
                return LogRead::Retry;
            }
            if !may_lag {
                let end = End::announced(EndReason::Lagged, config.retry(client.id));
                work.extend(inbox.end(end));
                return LogRead::Retry;
            }
        }
        self.held.note_read(cursor, &self.log, work.now);
        // A client with a pace lags by its own wish.
        self.counts.lagged += u64::from(pace == Pace::FellBehind && !inbox.is_paced());
        // Events published after the end was decided are for the client's return. Events after the
        // batch of a client with a pace are for the next batch.
        let batch_end = inbox.batch_end();
        let is_read = self.log.read(cursor, upto.min(batch_end), identity, config.batch, out);
        let mut next = Batch::new();
        if is_read && batch_end < upto {
            self.log.read(batch_end, upto, identity, Budget { bytes: 0 }, &mut next);
        }
        let is_cut = !next.is_empty();
        let is_live = is_read && !is_cut;
        let gap = lost.map(|lost| {
            // If topics have limits of their own, the log can hold events older than the loss. The
            // client must get these too, also if it is cut off right after the gap.
            let position = self.log.before_first(cursor, upto, identity);
            position.map_or(lost, |position| lost.min(position))
        });
        if !out.is_empty() {
            inbox.count_read(out.len(), out.iter().map(|entry| entry.len()).sum());
        }
        if gap.is_some() {
            // The client is told once, not with every read up to the loss.
            inbox.mailbox.excuse(self.log.evictions());
        }
        if is_live {
            inbox.mailbox.catch_up(self.log.head());
        } else if is_cut {
            inbox.mailbox.advance(batch_end, work.now);
        } else if let Some(last) = out.last() {
            inbox.mailbox.advance(last.id, work.now);
        }
        inbox.note_read(!out.is_empty(), work.now);
        drop(inbox);
        if !is_live {
            self.watch(slot, work);
        }
        LogRead::Events { gap }
    }

    /// Moves a client that has received everything to the end of the log. Returns the position of
    /// the client.
    pub(crate) fn refresh(&self, slot: usize, client: &Arc<Client>) -> EventId {
        let mut inbox = client.lock();
        let (cursor, head) = (inbox.mailbox.cursor(), self.log.head());
        if inbox.mailbox.is_waiting() || cursor >= head || !self.has(slot, client) {
            return cursor;
        }
        let Some(identity) = self.identity(slot) else { return cursor };
        // An event of the log may still be on its way to the client.
        let mut waiting = Batch::new();
        self.log.read(cursor, EventId::LAST, identity, Budget { bytes: 0 }, &mut waiting);
        if !waiting.is_empty() || self.log.lost_since(cursor, identity).is_some() {
            return cursor;
        }
        inbox.mailbox.catch_up(head);
        head
    }

    /// Lets the held clients and the waiting readers go on that the log has reached, or all if
    /// nothing more can come.
    pub(crate) fn release_served(&mut self, work: &mut Work<'_>) {
        let whole_from = self.log.whole_from();
        for slot in self.held.take_served(&self.log, &self.routes, work) {
            if let Some(client) = self.routes.get(slot) {
                let mut inbox = client.lock();
                inbox.mailbox.release(whole_from, work.now);
                work.extend(inbox.take_waker());
            }
            self.watch(slot, work);
        }
    }

    /// Frees up to `most` events that history reads left beyond the retention.
    pub(crate) fn lower(&mut self, most: usize, now: Instant, evicted: &mut Vec<Arc<Entry>>) {
        self.held.lower(now, most, &mut self.log, &self.routes, evicted);
    }
}

/// Reads the log for a client that begins with the values.
fn read_values(
    log: &Log,
    client: Identity<'_>,
    Beginning { upto, told }: Beginning,
    inbox: &mut InboxGuard<'_>,
    out: &mut Batch,
    work: &Work<'_>,
) -> LogRead {
    let cursor = inbox.mailbox.cursor();
    let evictions = log.value_evictions();
    let may_lack = told != Some(evictions);
    // A later loss is for the reads after the values. But it can hide an earlier loss.
    let lost = may_lack.then(|| log.lost_values(cursor, client)).flatten();
    let next = pages::values(log, cursor, upto, client, work.config.batch, out);
    let lost = lost.map(|lost| match (out.first(), next) {
        (Some(first), _) => lost.min(first.id.predecessor()),
        (None, Some(next)) => lost.min(next),
        (None, None) => upto,
    });
    inbox.set_beginning(next.map(|_| Beginning { upto, told: Some(evictions) }));
    match next {
        Some(next) => inbox.mailbox.advance(next, work.now),
        None if upto == log.head() => inbox.mailbox.catch_up(upto),
        None => inbox.mailbox.advance(upto, work.now),
    }
    if !out.is_empty() {
        inbox.count_read(out.len(), out.iter().map(|value| value.len()).sum());
    }
    inbox.note_read(!out.is_empty(), work.now);
    LogRead::Values { gap: lost, end: next.is_none().then_some(upto) }
}

fn user_of(memberships: &[Membership]) -> Option<&Arc<str>> {
    memberships.iter().find_map(|place| match &place.key {
        Key::User(user) => Some(user),
        _ => None,
    })
}

fn topics_of(memberships: &[Membership]) -> impl Iterator<Item = &Arc<str>> {
    memberships.iter().filter_map(|place| match &place.key {
        Key::Topic(topic) => Some(topic),
        _ => None,
    })
}

fn watch(
    watched: &mut BinaryHeap<Reverse<Watched>>,
    slot: usize,
    serial: u64,
    inbox: &mut Inbox,
    since: Instant,
    config: &Config,
) {
    if config.stall.is_some() && !inbox.is_watched {
        inbox.is_watched = true;
        watched.push(Reverse(Watched { since, slot, serial }));
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::ops::RangeInclusive;
    use std::time::Duration;

    use super::*;
    use crate::core::client::tests::client;
    use crate::core::end::Ending;
    use crate::core::settings::History;
    use crate::log::audience::Audience;
    use crate::log::entry::{Encoded, Prepared};
    use crate::log::hash::KeyHasher;
    use crate::log::mailbox::Mailbox;
    use crate::log::retain::RunLimits;
    use crate::time::manual::ManualTimer;
    use crate::time::timer::Timer as _;
    use crate::wire::event::Event;

    const STALL: Duration = Duration::from_secs(60);

    const fn id(count: u64) -> EventId {
        EventId::new(1, count)
    }

    /// A state without a hub: each step of an operation is a call.
    struct World {
        config: Config,
        timer: ManualTimer,
        state: State,
        serial: u64,
    }

    impl World {
        /// A log that retains `retain` events.
        fn new(retain: usize) -> Self {
            let timer = ManualTimer::new();
            let mut config = Config::new(timer.clone());
            config.retain = config.retain.events(retain);
            let log = Log::new(config.retain, RunLimits::default(), id(0), KeyHasher::default());
            Self { state: State::new(&config, log), config, timer, serial: 0 }
        }

        /// Lets in a client of a topic, at `cursor`.
        fn come(&mut self, topic: &str, cursor: u64) -> (usize, Arc<Client>) {
            let (head, now) = (self.state.log.head(), self.timer.now());
            let mailbox = Mailbox::new(id(cursor), head, Pace::Reading, now);
            let place = self.state.inboxes.add(Inbox::new(mailbox, Ending::open(None, None)));
            self.serial += 1;
            let client = client(self.serial, place);
            let topic = Membership::of(Key::Topic(topic.into()), self.state.log.hasher());
            let tag = client::tag(&client);
            (self.state.routes.add(vec![topic], Arc::clone(&client), tag), client)
        }

        /// Appends events to a topic, and hands out none.
        fn append(&mut self, topic: &str, counts: RangeInclusive<u64>) -> Option<Arc<Entry>> {
            let mut last = None;
            for count in counts {
                let sealed = Event::new("x").data("data").seal();
                let audience = Audience::topic(topic);
                let event = Encoded { audience, conflation: None, trace: None, sealed };
                let event = Prepared::new(event, self.state.log.hasher());
                let entry = event.into_entry(id(count), self.timer.now());
                self.state.log.append(Arc::clone(&entry), &mut Vec::new());
                last = Some(entry);
            }
            last
        }

        fn with<T>(&mut self, run: impl FnOnce(&mut State, &mut Work<'_>) -> T) -> T {
            let mut work = Work::begin(&self.config);
            let result = run(&mut self.state, &mut work);
            work.run();
            result
        }

        /// Hands an event to the last `most` clients of its topic before `left`.
        fn hand(&mut self, entry: &Arc<Entry>, left: usize, most: usize) -> Handed {
            let key = entry.hashed_keys().next().expect("an event has a topic");
            let entry_ref = EntryRef::new(entry, true);
            self.with(|state, work| state.hand_piece(entry, &entry_ref, key, left, most, work))
        }

        /// Reads the log for a client, an event at a time.
        fn read(&mut self, slot: usize, client: &Arc<Client>) -> (LogRead, Vec<u64>) {
            self.config.batch = Budget { bytes: 1 };
            let mut batch = Batch::new();
            let read = self.with(|state, work| state.read_log(slot, client, &mut batch, work));
            (read, batch.iter().map(|entry| entry.id.seq()).collect())
        }

        fn leave(&mut self, slot: usize) {
            self.with(|state, work| state.forget(slot, EndReason::Left, work));
        }

        fn expel_stalled(&mut self) {
            self.with(|state, work| state.expel_stalled(work));
        }
    }

    #[test]
    fn client_that_joins_during_a_hand_out_misses_the_event() {
        let mut world = World::new(10);
        let [first, _, _] = ["t"; 3].map(|topic| world.come(topic, 0).0);
        let (late, late_client) = world.come("other", 0);
        let event = world.append("t", 1..=1).unwrap();
        let piece = world.hand(&event, usize::MAX, 1);
        assert_eq!((piece.given, piece.left), (1, 2));
        // The client comes to the end of the list, and takes the place of a client that leaves.
        let topic = Key::Topic("t".into());
        world.state.last_join = world.state.log.head();
        world.with(|state, work| assert!(state.join_topic(late, &topic, id(1), work)));
        world.leave(first);
        assert_eq!(world.state.routes.members(&topic)[0].slot(), late);
        assert_eq!(world.hand(&event, piece.left, PIECE).given, 1);
        assert!(!late_client.lock().mailbox.is_waiting());

        let event = world.append("t", 2..=2).unwrap();
        assert_eq!(world.hand(&event, usize::MAX, PIECE).given, 3, "the next event is for all");
    }

    #[test]
    fn stalled_client_ends_after_a_crowd_left() {
        let mut world = World::new(10);
        let (slow, slow_client) = world.come("t", 0);
        let crowd: Vec<usize> = (0..1000).map(|_| world.come("t", 0).0).collect();
        let event = world.append("t", 1..=1).unwrap();
        for piece in 0..4 {
            world.hand(&event, 1001 - 256 * piece, PIECE);
        }
        assert_eq!(world.state.watched.len(), 1001);
        let mut crowd = crowd.into_iter();
        world.leave(crowd.next().unwrap());
        assert_eq!(
            world.state.watched.len(),
            1001,
            "a look at the list for each client is too dear"
        );
        crowd.for_each(|slot| world.leave(slot));
        assert!(world.state.watched.len() < 100, "the list must shrink with the crowd");
        world.timer.advance(STALL);
        world.expel_stalled();
        assert!(!world.state.has(slow, &slow_client));
    }

    #[test]
    fn client_that_stops_reading_the_log_stalls() {
        let mut world = World::new(10);
        world.append("t", 1..=4);
        let (slot, client) = world.come("t", 0);
        world.with(|state, work| state.watch(slot, work));
        // The client waits for older events when the list of clients is looked at.
        client.lock().mailbox.hold(world.timer.now());
        world.timer.advance(STALL);
        world.expel_stalled();
        assert!(world.state.has(slot, &client) && world.state.watched.is_empty());
        client.lock().mailbox.release(EventId::LAST, world.timer.now());

        for count in 1..=2 {
            assert_eq!(world.read(slot, &client).1, [count]);
            assert_eq!(world.state.watched.len(), 1, "a client is in the list once");
        }
        world.timer.advance(STALL);
        world.expel_stalled();
        assert!(!world.state.has(slot, &client));
    }

    #[test]
    fn stall_limit_that_is_off_watches_no_client() {
        let mut world = World::new(10);
        world.config.stall = None;
        let (slot, client) = world.come("t", 0);
        let event = world.append("t", 1..=2).unwrap();
        world.hand(&event, usize::MAX, PIECE);
        client.lock().mailbox.skip_to(id(0), world.timer.now());
        world.with(|state, work| state.watch(slot, work));
        assert!(world.state.watched.is_empty());
    }

    #[test]
    fn ended_stream_reports_no_loss_beyond_its_end() {
        let mut world = World::new(2);
        world.append("t", 1..=1);
        let (slot, client) = world.come("t", 0);
        // The stream ends before the next events are handed out.
        world.append("t", 2..=2);
        assert_eq!(world.read(slot, &client).1, [1]);
        drop(client.lock().end(End::silent(EndReason::Drained)));
        world.append("t", 3..=5);
        let (read, events) = world.read(slot, &client);
        assert!(matches!(read, LogRead::Events { gap: None }), "{read:?}");
        assert!(events.is_empty());
    }

    #[test]
    fn loss_is_requested_from_the_backplane_once() {
        let mut world = World::new(1);
        world.state.held = Held::new(Some(History::default()));
        world.append("t", 1..=1);
        world.append("other", 2..=2);
        let (slot, client) = world.come("t", 0);
        assert!(matches!(world.read(slot, &client).0, LogRead::Retry));
        assert!(client.lock().mailbox.held_until().is_some(), "event 1 may be brought");
        world.state.held.note_gone(id(1));
        world.with(State::release_served);
        // After a later loss, of others, the backplane can bring events again.
        world.append("other", 3..=3);
        world.timer.advance(STALL);
        world.state.lower(64, world.timer.now(), &mut Vec::new());
        assert!(world.state.held.may_hold(id(1), &world.state.log, world.timer.now()).is_some());
        let (read, _) = world.read(slot, &client);
        assert!(matches!(read, LogRead::Events { gap: Some(lost) } if lost == id(1)), "{read:?}");
    }

    #[test]
    fn fresh_position_passes_no_event_and_no_gap() {
        let mut world = World::new(2);
        let (slot, client) = world.come("t", 0);
        world.append("other", 1..=3);
        assert_eq!(world.state.refresh(slot, &client), id(3), "the client has missed nothing");
        assert_eq!(client.lock().mailbox.cursor(), id(3));

        world.append("t", 4..=4);
        assert_eq!(world.state.refresh(slot, &client), id(3), "event 4 is on its way");
        world.append("other", 5..=7);
        assert_eq!(world.state.refresh(slot, &client), id(3), "event 4 is lost");

        let (head, now) = (world.state.log.head(), world.timer.now());
        client.lock().mailbox.jump(id(5), head, GapReason::Reset, now);
        assert_eq!(world.state.refresh(slot, &client), id(5), "the gap is not reported yet");
        assert!(client.lock().mailbox.is_waiting());
    }

    #[test]
    fn forgotten_client_keeps_its_position() {
        let mut world = World::new(2);
        let (slot, client) = world.come("t", 0);
        world.append("other", 1..=3);
        world.leave(slot);
        let (other, _) = world.come("other", 3);
        assert_eq!(slot, other);
        assert_eq!(world.state.refresh(slot, &client), id(0));
    }

    #[test]
    fn client_ahead_of_the_log_stays_ahead() {
        let mut world = World::new(2);
        let (slot, client) = world.come("t", 9);
        world.append("other", 1..=3);
        assert_eq!(world.state.refresh(slot, &client), id(9));
        assert_eq!(client.lock().mailbox.cursor(), id(9));
    }
}
