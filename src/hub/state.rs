//! What stands behind the state lock, and behind each client's inbox lock.
//!
//! Functions here take what a lock guards, and so say which lock is held. What is foreign code goes into a [`Later`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::config::Config;
use super::elsewhere::Elsewhere;
use super::end::{End, EndReason, Until};
use super::later::{Ended, Later};
use super::link::Link;
use super::presence::Roster;
use super::stats::Counts;
use crate::log::audience::Audience;
use crate::log::departed::{Departed, Owner};
use crate::log::entry::Entry;
use crate::log::identity::{Filter, Identity};
use crate::log::key::{ClientId, Key};
use crate::log::log::Log;
use crate::log::mailbox::Mailbox;
use crate::log::recipients::Recipients;
use crate::log::routes::Routes;
use crate::sync::Mutex;
use crate::wire::id::EventId;

/// How many clients are handed an event before the state lock is let go of. One, where loom looks at every order.
pub(super) const PIECE: usize = if cfg!(sse_hub_loom) { 1 } else { 256 };

/// Behind the state lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) routes: Routes<Arc<Client>>,
    pub(super) departed: Departed,
    /// Clients for which something waits, the longest first; each once at most.
    watched: BinaryHeap<Reverse<Watched>>,
    /// Who waits for the last client to be gone.
    pub(super) waiting_for_last: Slab<Waker>,
    /// The log's head when a client last joined a topic.
    pub(super) last_join: EventId,
    pub(super) draining: bool,
    pub(super) closed: bool,
    pub(super) counts: Counts,
    /// Unless it is off.
    pub(super) presence: Option<Roster>,
    /// Unless that is off, or the hub is alone.
    pub(super) elsewhere: Option<Elsewhere>,
    /// It was told that there are more users elsewhere than it may know of.
    pub(super) told_full: bool,
    pub(super) link: Link,
}

/// A client for which something waits, and since when at the earliest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Watched {
    since: Instant,
    slot: usize,
    serial: u64,
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
    /// The stream is to end, or has. It is handed nothing any more.
    pub(super) end: Option<End>,
    /// When it is to end by itself, after what was published before.
    until: Option<Until>,
    /// When it is to end whatever it has not read.
    deadline: Option<Instant>,
    /// It stands among those who are watched.
    watched: bool,
    /// Until when it is sent nothing, because what it missed may be brought.
    pub(super) held: Option<Instant>,
    /// What was lost up to here is not to be looked for, because it was.
    pub(super) sought: EventId,
    /// It was let go on, and has not read since.
    pub(super) is_back: bool,
}

impl Inbox {
    pub(super) fn new(mailbox: Mailbox) -> Self {
        Self {
            mailbox,
            waker: None,
            end: None,
            until: None,
            deadline: None,
            watched: false,
            held: None,
            sought: EventId::ORIGIN,
            is_back: false,
        }
    }

    /// Lets it go on, when the log has all after `whole_from`.
    pub(super) fn release(&mut self, whole_from: EventId, now: Instant) {
        self.held = None;
        self.sought = whole_from;
        self.is_back = true;
        self.mailbox.wait_from(now);
    }

    /// The log begins anew, and there is nothing to be looked for.
    pub(super) fn let_go(&mut self) {
        (self.held, self.sought, self.is_back) = (None, EventId::ORIGIN, false);
    }

    /// Since when something has waited for it to read. While it is held it has nothing to read.
    fn waiting_since(&self) -> Option<Instant> {
        self.mailbox.waiting_since().filter(|_| self.held.is_none())
    }

    /// Ends the stream. An end at once takes the place of one that delivers the rest, and otherwise the first counts.
    pub(super) fn end(&mut self, end: End) -> Option<Waker> {
        match &self.end {
            Some(earlier) if earlier.is_immediate() || !end.is_immediate() => {}
            _ => self.end = Some(end),
        }
        self.waker.take()
    }

    /// Brings the stream's end forward.
    pub(super) fn end_by(&mut self, until: Until) {
        if until.reason == EndReason::Expired {
            self.deadline = Some(self.deadline.map_or(until.at, |earlier| earlier.min(until.at)));
        } else if self.until.is_none_or(|earlier| until.at < earlier.at) {
            self.until = Some(until);
        }
    }

    /// When to look at [`pass`](Self::pass) again.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let until = self.until.map(|until| until.at).filter(|_| self.end.is_none());
        [until, self.deadline, self.held].into_iter().flatten().min()
    }

    /// Ends the stream if its time has come at `now`. One that was held for too long goes on.
    pub(super) fn pass(&mut self, now: Instant, retry: Duration) {
        if self.held.is_some_and(|until| until <= now) {
            (self.held, self.sought, self.is_back) = (None, EventId::LAST, true);
        }
        let expired = self.deadline.filter(|&at| at <= now).map(|_| EndReason::Expired);
        let over = self.until.filter(|until| until.at <= now).map(|until| until.reason);
        for reason in [expired, over].into_iter().flatten() {
            self.end(End::told(reason, retry));
        }
    }
}

impl State {
    pub(super) fn new(config: &Config, log: Log) -> Self {
        Self {
            routes: Routes::new(log.hasher().clone()),
            log,
            departed: Departed::new(config.retain.events.max(1024)),
            watched: BinaryHeap::new(),
            waiting_for_last: Slab::new(),
            last_join: EventId::ORIGIN,
            draining: false,
            closed: false,
            counts: Counts::default(),
            presence: config.presence.map(|on| Roster::new(on, Arc::clone(&config.timer))),
            elsewhere: config.presence.and_then(|on| {
                let backplane = Arc::clone(config.backplane.as_ref()?);
                Some(Elsewhere::new(backplane, on.elsewhere))
            }),
            told_full: false,
            link: Link::default(),
        }
    }

    /// Whether this client is the one in the slot.
    pub(super) fn has(&self, slot: usize, client: &Arc<Client>) -> bool {
        self.routes.get(slot).is_some_and(|member| Arc::ptr_eq(member, client))
    }

    pub(super) fn identity(&self, slot: usize) -> Option<Identity<'_>> {
        let client = self.routes.get(slot)?;
        Some(Identity { memberships: self.routes.memberships(slot), filter: &client.filter })
    }

    /// The slots of an audience's clients, each once.
    pub(super) fn matching(&self, audience: &Audience) -> Vec<usize> {
        let recipients = Recipients::new(audience, self.log.hasher());
        let keys = recipients.keys();
        let holders = keys.iter().flat_map(|key| self.routes.members(key));
        let matched = holders.map(|member| member.slot).filter(|&slot| {
            let is_in = |client: Identity<'_>| recipients.include(client, EventId::LAST);
            recipients.are_all_holders() || self.identity(slot).is_some_and(is_in)
        });
        let mut slots: Vec<usize> = matched.collect();
        if keys.len() > 1 {
            slots.sort_unstable();
            slots.dedup();
        }
        slots
    }

    /// Hands an event to the last members of a key's list before `left`, and returns how many took it and how many are
    /// left.
    pub(super) fn hand_piece(
        &mut self,
        entry: &Arc<Entry>,
        key: &Key,
        left: usize,
        config: &Config,
        later: &mut Later,
    ) -> (usize, usize) {
        // Whoever joins between two pieces of a hand-out joins for what comes after it.
        let joined_since = entry.id <= self.last_join;
        let members = self.routes.members(key);
        let left = left.min(members.len());
        let rest = left.saturating_sub(PIECE);
        let mut given = 0;
        for member in members[rest..left].iter().rev() {
            let (slot, client) = (member.slot, &member.reach);
            if !entry.passes(&client.filter) {
                continue;
            }
            // Who else it is, is looked up only where that matters: it lies elsewhere in memory.
            let places =
                || Identity { memberships: self.routes.memberships(slot), filter: &client.filter };
            let is_known = entry.is_for_all_holders() && !joined_since;
            if !is_known && !entry.is_addressed_to(places()) {
                continue;
            }
            let mut inbox = client.inbox.lock();
            if inbox.end.is_none() && inbox.mailbox.push(entry) {
                given += 1;
                if inbox.held.is_some() {
                    // It could not read it.
                    continue;
                }
                later.extend(inbox.waker.take());
                watch(&mut self.watched, slot, client.serial, &mut inbox, entry.at, config);
            }
        }
        (given, rest)
    }

    /// Looks after a client for which something waits from the first.
    pub(super) fn watch(&mut self, slot: usize, since: Instant, config: &Config) {
        let Some(client) = self.routes.get(slot) else { return };
        watch(&mut self.watched, slot, client.serial, &mut client.inbox.lock(), since, config);
    }

    /// Tells every stream to end after what was published before.
    pub(super) fn end_all(&self, reason: EndReason, later: &mut Later) {
        let clients = self.routes.iter();
        later.extend(
            clients.filter_map(|(_, client)| client.inbox.lock().end(End { reason, last: None })),
        );
    }

    /// Ends a stream and forgets its client at once. Whoever polls the stream next finds its end.
    pub(super) fn expel(
        &mut self,
        slot: usize,
        end: impl FnOnce(&Client) -> End,
        later: &mut Later,
    ) {
        let Some(client) = self.routes.get(slot).map(Arc::clone) else { return };
        let end = end(&client);
        let mut inbox = client.inbox.lock();
        later.extend(inbox.end(end));
        let reason = inbox.end.as_ref().map_or(EndReason::Left, |end| end.reason);
        drop(inbox);
        self.forget(slot, reason, later);
    }

    /// Ends streams that have not been read for too long though something waits for them: a few at a time, so that
    /// whoever finds them is not held up.
    ///
    /// A stalled stream cannot notice by itself. The server does not poll it, so no timer inside it goes off; others do,
    /// as they publish, connect and send heartbeats.
    pub(super) fn expel_stalled(&mut self, now: Instant, config: &Config, later: &mut Later) {
        const FEW: usize = 64;
        let Some(limit) = config.stall else { return };
        for _ in 0..FEW {
            match self.watched.peek() {
                Some(Reverse(oldest)) if now.saturating_duration_since(oldest.since) >= limit => {}
                _ => return,
            }
            let Some(Reverse(Watched { slot, serial, .. })) = self.watched.pop() else { return };
            let Some(client) = self.routes.get(slot).filter(|client| client.serial == serial)
            else {
                continue;
            };
            let client = Arc::clone(client);
            let mut inbox = client.inbox.lock();
            match inbox.waiting_since() {
                None => inbox.watched = false,
                Some(since) if now.saturating_duration_since(since) < limit => {
                    self.watched.push(Reverse(Watched { since, slot, serial }));
                }
                Some(_) => {
                    drop(inbox);
                    self.expel(slot, |_| End { reason: EndReason::Stalled, last: None }, later);
                }
            }
        }
    }

    /// Forgets a client.
    pub(super) fn forget(&mut self, slot: usize, reason: EndReason, later: &mut Later) {
        let mut owner = Owner { user: None, session: None };
        for place in self.routes.memberships(slot) {
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
        if self.watched.len() > 2 * self.routes.len() + 64 {
            let routes = &self.routes;
            self.watched.retain(|Reverse(watched)| {
                routes.get(watched.slot).is_some_and(|client| client.serial == watched.serial)
            });
            self.watched.shrink_to(2 * self.watched.len());
        }
    }

    /// A client was registered.
    pub(super) fn note_arrival(&mut self, slot: usize, now: Instant, later: &mut Later) {
        let Some(roster) = &mut self.presence else { return };
        let mut keys = self.routes.memberships(slot).iter().map(|place| &place.key);
        let Some((key, user)) = keys.find_map(|key| match key {
            Key::User(user) => Some((key, user)),
            _ => None,
        }) else {
            return;
        };
        if self.routes.members(key).len() != 1 {
            return;
        }
        if let Some(elsewhere) = &mut self.elsewhere {
            later.tell_presence(elsewhere.came(user));
        }
        if self.elsewhere.as_ref().is_none_or(|elsewhere| elsewhere.of(user) == 0) {
            roster.arrive(Arc::clone(user), now, later);
        }
    }

    /// A client was forgotten.
    pub(super) fn note_departure(
        &mut self,
        user: Option<&Arc<str>>,
        reason: EndReason,
        later: &mut Later,
    ) {
        let (Some(roster), Some(user)) = (&mut self.presence, user) else { return };
        if !self.routes.members(&Key::User(Arc::clone(user))).is_empty() {
            return;
        }
        if let Some(elsewhere) = &mut self.elsewhere {
            later.tell_presence(elsewhere.went(user, reason));
        }
        if self.elsewhere.as_ref().is_none_or(|elsewhere| elsewhere.of(user) == 0) {
            roster.depart(user, reason, later);
        }
    }
}

fn watch(
    watched: &mut BinaryHeap<Reverse<Watched>>,
    slot: usize,
    serial: u64,
    inbox: &mut Inbox,
    since: Instant,
    config: &Config,
) {
    if config.stall.is_some() && !inbox.watched {
        inbox.watched = true;
        watched.push(Reverse(Watched { since, slot, serial }));
    }
}
