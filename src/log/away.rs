//! The topics of clients that are away: clients that left, and clients of other instances.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use slab::Slab;

use super::hash::{KeyHasher, shrink};
use super::identity::{Filter, Identity, Membership};
use super::key::{ClientId, Key};
use super::profile::{Followed, Owner, Profile};
use super::recipients::Recipients;
use super::routes::Routes;
use crate::wire::id::EventId;

/// The remembered commands, to complete an announcement of an earlier position.
const RECENT: usize = 512;

/// The names in the audiences of these commands together.
const RECENT_NAMES: usize = 16 * RECENT;

/// The most watched clients.
const MAX_CLAIMS: usize = 4096;

/// How long a forgotten command counts as possibly unannounced, and how long a client is watched:
/// longer than an instance is behind another.
const DOUBT: Duration = Duration::from_secs(60);

/// Remembers the topics of clients that are away, so that a client that returns gets back the
/// joined topics.
///
/// A join or a leave changes the remembered clients and the connected clients alike. The
/// number of clients is bounded: the hub forgets the oldest record first. If a
/// forgotten client may have had topics, [`may_lack`](Self::may_lack) says so.
///
/// # Other instances
///
/// An instance announces a client in the order when the client first joins a topic, and every
/// other instance remembers the client. All instances apply the same later commands. So an
/// instance without a record of a client knows that the client has no topics, unless
///
/// - the instance has not read the whole order (`is_blind`), or forgot such a record, or
/// - the announcement may not be in the order yet: a recent join is for the client, or
/// - the instance has not read the join yet. So a client that gets in without a record is
///   watched for a while: see [`Claimant`].
#[derive(Debug)]
pub(crate) struct Away {
    hasher: KeyHasher,
    /// Each client under its keys. A tag has no meaning here.
    routes: Routes<ClientId>,
    records: HashMap<ClientId, Record>,
    /// The clients by the numbers of their records, the oldest first.
    order: BTreeMap<u64, ClientId>,
    count: u64,
    capacity: usize,
    /// Clients of this instance with a position up to here may have forgotten topics.
    lost: EventId,
    /// The newest position of a forgotten client of this instance.
    forgotten: EventId,
    /// Clients of other instances may have topics that this instance does not know.
    is_blind: bool,
    /// A client has joined a topic, as far as this instance knows.
    has_joins: bool,
    /// The latest commands, the oldest first. Empty without a backplane.
    recent: VecDeque<Recent>,
    recent_names: usize,
    /// The newest command that this instance has not read, or has forgotten.
    unknown: EventId,
    /// Until then, the announcements of forgotten joins may be missing.
    doubt_until: Option<Instant>,
    /// The watched clients, each under the claimed keys, and since when.
    claims: Routes<Claimant>,
    claimed_at: VecDeque<(Instant, usize)>,
    /// Clients of this instance with an announcement that the backplane did not take.
    unannounced: Vec<ClientId>,
    /// The clients that have come back, for each change of a crowd that is under way.
    returned: Slab<Vec<ClientId>>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    slot: usize,
    number: u64,
    /// The client left this instance with this position, or an earlier position.
    at: EventId,
    /// The client left this instance, and no other instance has announced the client.
    is_own: bool,
    /// Some of the topics are beyond the limits of this instance.
    is_partial: bool,
}

/// A connected client that named an unknown id. If this instance reads later that the client of
/// that id had joined a topic, the connected client must get a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) slot: usize,
    pub(crate) serial: u64,
}

/// A join or a leave, as the order has it.
#[derive(Debug)]
struct Recent {
    id: EventId,
    at: Instant,
    recipients: Recipients,
    topic: Key,
    is_join: bool,
}

/// The topics that a client gets back.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    pub(crate) topics: Vec<Membership>,
    /// There are topics that the client cannot get back.
    pub(crate) is_partial: bool,
}

/// The limits of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) topics: usize,
    pub(crate) name_len: usize,
}

impl Away {
    /// `is_alone`: the hub has no backplane.
    pub(crate) fn new(capacity: usize, is_alone: bool, hasher: KeyHasher) -> Self {
        Self {
            routes: Routes::new(hasher.clone()),
            records: HashMap::new(),
            order: BTreeMap::new(),
            count: 0,
            capacity,
            lost: EventId::ORIGIN,
            forgotten: EventId::ORIGIN,
            is_blind: !is_alone,
            has_joins: false,
            recent: VecDeque::new(),
            recent_names: 0,
            unknown: EventId::ORIGIN,
            doubt_until: None,
            claims: Routes::new(hasher.clone()),
            claimed_at: VecDeque::new(),
            unannounced: Vec::new(),
            returned: Slab::new(),
            hasher,
        }
    }

    /// Remembers a client that has left. `at`: the client has no later position.
    pub(crate) fn remember(&mut self, id: ClientId, mut memberships: Vec<Membership>, at: EventId) {
        // No command is for a run, and a client that returns names its runs again.
        memberships.retain(|held| !held.key.is_run());
        let record = Record { slot: 0, number: 0, at, is_own: true, is_partial: false };
        self.put(id, memberships, record);
    }

    fn put(&mut self, id: ClientId, memberships: Vec<Membership>, record: Record) {
        self.remove(id);
        self.count += 1;
        let (slot, number) = (self.routes.add(memberships, id, 0), self.count);
        self.records.insert(id, Record { slot, number, ..record });
        self.order.insert(number, id);
        while self.records.len() > self.capacity {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.forget(oldest);
        }
    }

    fn forget(&mut self, id: ClientId) {
        let Some((Record { at, is_own, .. }, memberships)) = self.remove(id) else { return };
        let has_topics = memberships.iter().any(|held| held.is_joined);
        if is_own {
            self.forgotten = self.forgotten.max(at);
        }
        match (has_topics, is_own) {
            (true, true) => self.lost = self.lost.max(at),
            (true, false) => self.is_blind = true,
            (false, _) => {}
        }
    }

    fn remove(&mut self, id: ClientId) -> Option<(Record, Vec<Membership>)> {
        let record = self.records.remove(&id)?;
        self.order.remove(&record.number);
        shrink(&mut self.records);
        let (_, memberships) = self.routes.remove(record.slot)?;
        Some((record, memberships))
    }

    /// Returns whether a client with this id is remembered, of any owner.
    pub(crate) fn knows(&self, id: ClientId) -> bool {
        self.records.contains_key(&id)
    }

    /// Returns whether a client with this id and this owner is remembered. Such a client keeps its
    /// id, also without topics: the client must get the events for the id.
    pub(crate) fn restores(&self, id: ClientId, owner: &Owner) -> bool {
        self.held(id, owner).is_some()
    }

    fn held(&self, id: ClientId, owner: &Owner) -> Option<(Record, &[Membership])> {
        let record = *self.records.get(&id)?;
        let held = self.routes.memberships(record.slot);
        (Owner::of(held) == *owner).then_some((record, held))
    }

    /// Returns the topics that a client of this owner would get back. Returns `None` if the client
    /// is not remembered, or has another owner.
    pub(crate) fn returned(&self, id: ClientId, owner: &Owner) -> Option<Returned> {
        let (record, held) = self.held(id, owner)?;
        let topics = held.iter().filter(|held| held.is_joined).cloned().collect();
        Some(Returned { topics, is_partial: record.is_partial })
    }

    /// As [`returned`](Self::returned), and forgets the client.
    pub(crate) fn take(&mut self, id: ClientId, owner: &Owner) -> Option<Returned> {
        let returned = self.returned(id, owner)?;
        self.remove(id);
        self.returned.iter_mut().for_each(|(_, list)| list.push(id));
        Some(returned)
    }

    /// Begins to note the clients that come back. Returns the number of the list.
    pub(crate) fn begin_noting(&mut self) -> usize {
        self.returned.insert(Vec::new())
    }

    /// Returns whether clients that come back are noted.
    #[cfg(test)]
    pub(crate) fn is_noting(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Ends the list with this number. Returns the clients that have come back since its begin.
    pub(crate) fn end_noting(&mut self, list: usize) -> Vec<ClientId> {
        self.returned.try_remove(list).unwrap_or_default()
    }

    /// Returns whether a client without a record here may silently lack topics from now on.
    /// `claim`: the client of the request. `after`: the position of the request.
    pub(crate) fn may_lack(&self, claim: &[Membership], after: EventId, now: Instant) -> bool {
        let claim = Identity { memberships: claim, filter: &Filter::Everything };
        let has_claimed = |command: &Recent| {
            // The topics that the client had then are not known here.
            let includes = || command.recipients.include(claim, EventId::LAST);
            command.is_join && (command.recipients.has_topics() || includes())
        };
        after <= self.lost
            || self.is_blind
            || self.claims_are_full(now)
            || self.doubt_until.is_some_and(|until| now < until)
            || self.recent.iter().any(has_claimed)
    }

    fn claims_are_full(&self, now: Instant) -> bool {
        let oldest = self.claimed_at.front();
        let is_due = |&(since, _): &(Instant, usize)| now.saturating_duration_since(since) >= DOUBT;
        self.claimed_at.len() >= MAX_CLAIMS && !oldest.is_some_and(is_due)
    }

    /// Adds the remembered clients of an audience to a topic, for events after `since`. Returns the
    /// clients of this instance that have joined no topic before.
    pub(crate) fn join(
        &mut self,
        audience: &Recipients,
        topic: &Key,
        since: EventId,
        limit: usize,
    ) -> Vec<ClientId> {
        self.has_joins = true;
        // The join may be for a forgotten client.
        self.lost = self.lost.max(self.forgotten);
        let mut first = Vec::new();
        for slot in self.routes.matching(audience) {
            let had_topics = self.routes.memberships(slot).iter().any(|held| held.is_joined);
            self.join_slot(slot, topic, since, limit);
            if !had_topics
                && let Some(&id) = self.routes.get(slot)
                && self.records.get(&id).is_some_and(|record| record.is_own)
            {
                first.push(id);
            }
        }
        first
    }

    fn join_slot(&mut self, slot: usize, topic: &Key, since: EventId, limit: usize) {
        let held = self.routes.memberships(slot);
        let topics = held.iter().filter(|held| matches!(held.key, Key::Topic(_))).count();
        if topics < limit || held.iter().any(|held| held.key == *topic) {
            self.routes.join_by_server(slot, topic.clone(), since);
        }
    }

    /// Removes the remembered clients of an audience from a topic.
    pub(crate) fn leave(&mut self, audience: &Recipients, topic: &Key) {
        for slot in self.routes.matching(audience) {
            self.routes.leave(slot, topic);
        }
    }

    /// Returns a remembered client.
    pub(crate) fn profile(&self, id: ClientId) -> Option<Profile> {
        let record = self.records.get(&id)?;
        Some(Profile::of(id, self.routes.memberships(record.slot)))
    }
}

/// # Other instances
impl Away {
    /// Begins anew after an unread part of the order. `head`: where reading continues.
    /// `is_first`: the hub has read nothing before.
    pub(crate) fn restart(&mut self, head: EventId, is_first: bool) {
        // The note that clients have joined topics may be gone with the order.
        self.has_joins |= self.is_blind && !is_first;
        // A leave may be among the unread commands: no record is right for certain.
        for id in self.order.values().copied().collect::<Vec<_>>() {
            self.remove(id);
        }
        self.order.clear();
        self.recent.clear();
        self.recent_names = 0;
        // Every client gets a gap for the unread part.
        self.claims = Routes::new(self.hasher.clone());
        self.claimed_at.clear();
        (self.unknown, self.is_blind) = (head, true);
        if !is_first {
            self.forgotten = self.forgotten.max(head);
        }
    }

    /// No client has joined a topic before the part of the order that is read.
    pub(crate) fn note_no_joins(&mut self) {
        self.is_blind &= self.has_joins;
    }

    /// Notes a join or a leave of the order.
    pub(crate) fn note(
        &mut self,
        id: EventId,
        recipients: Recipients,
        topic: Key,
        is_join: bool,
        now: Instant,
    ) {
        self.recent_names += recipients.names();
        self.recent.push_back(Recent { id, at: now, recipients, topic, is_join });
        while self.recent.len() > RECENT || self.recent_names > RECENT_NAMES {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_names -= oldest.recipients.names();
            self.unknown = oldest.id;
            let until = oldest.at.checked_add(DOUBT).filter(|_| oldest.is_join);
            self.doubt_until = self.doubt_until.max(until);
        }
    }

    /// Remembers a client that another instance announced, with the topics as of a position.
    pub(crate) fn learn(&mut self, profile: Profile, as_of: EventId, at: EventId, bounds: Bounds) {
        self.has_joins = true;
        let keys = profile.keys();
        let is_valid = |key: &Key| key.check(bounds.name_len).is_ok();
        let is_of_another = self.knows(profile.id) && !self.restores(profile.id, &profile.owner);
        if is_of_another || !keys.iter().all(is_valid) {
            // No hub wrote this, or the client cannot come here.
            return;
        }
        if as_of < self.unknown {
            // The topics of today are not known.
            self.is_blind |= !self.knows(profile.id);
            return;
        }
        let mut held: Vec<_> = keys.into_iter().map(|key| self.membership(key)).collect();
        let count = profile.topics.len();
        let topics = profile.topics.into_iter().map(|Followed { topic, since, is_joined }| {
            let since = since.min(at);
            Membership { since, is_joined, ..self.membership(Key::Topic(topic)) }
        });
        let valid = topics.filter(|held| is_valid(&held.key));
        let before = held.len();
        for topic in valid.take(bounds.topics) {
            // An entry that no hub wrote may name a topic twice.
            if held.iter().all(|other| other.key != topic.key) {
                held.push(topic);
            }
        }
        let is_partial = held.len() - before < count;
        self.put(profile.id, held, Record { slot: 0, number: 0, at, is_own: false, is_partial });
        self.complete(profile.id, as_of, bounds.topics);
    }

    fn membership(&self, key: Key) -> Membership {
        Membership::of(key, &self.hasher)
    }

    /// Applies the commands after a position to a remembered client.
    fn complete(&mut self, id: ClientId, as_of: EventId, limit: usize) {
        let Some(&Record { slot, .. }) = self.records.get(&id) else { return };
        let missed = self.recent.partition_point(|command| command.id <= as_of);
        // Taken out, because a command changes the routes.
        let recent = std::mem::take(&mut self.recent);
        for Recent { id, recipients, topic, is_join, .. } in recent.range(missed..) {
            let memberships = self.routes.memberships(slot);
            let client = Identity { memberships, filter: &Filter::Everything };
            match recipients.include(client, EventId::LAST) {
                true if *is_join => self.join_slot(slot, topic, *id, limit),
                true => drop(self.routes.leave(slot, topic)),
                false => {}
            }
        }
        self.recent = recent;
    }

    /// Watches a client that gets in with an unknown id.
    pub(crate) fn watch_claim(&mut self, claim: Vec<Membership>, by: Claimant, now: Instant) {
        while let Some(&(since, slot)) = self.claimed_at.front()
            && now.saturating_duration_since(since) >= DOUBT
        {
            self.claimed_at.pop_front();
            self.claims.remove(slot);
        }
        let slot = self.claims.add(claim, by, 0);
        self.claimed_at.push_back((now, slot));
    }

    /// Returns the watched clients that claim to be in the audience of a join.
    pub(crate) fn claimants(&self, audience: &Recipients) -> Vec<Claimant> {
        // The topics that the clients had before are not known.
        let slots = match audience.has_topics() {
            true => self.claimed_at.iter().map(|&(_, slot)| slot).collect(),
            false => self.claims.matching(audience),
        };
        slots.into_iter().filter_map(|slot| self.claims.get(slot).copied()).collect()
    }

    /// Returns the watched clients that claim to be this client.
    pub(crate) fn claimants_of(&self, client: &Profile) -> Vec<Claimant> {
        let members = self.claims.members(&Key::Client(client.id)).iter();
        let same = members
            .filter(|member| Owner::of(self.claims.memberships(member.slot())) == client.owner);
        same.map(|member| member.reach).collect()
    }

    /// The backplane did not take the announcement of a client.
    pub(crate) fn note_unannounced(&mut self, ids: impl IntoIterator<Item = ClientId>) {
        self.unannounced.extend(ids);
    }

    /// Takes the clients that must be announced again.
    pub(crate) fn take_unannounced(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.unannounced)
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { topics: 4, name_len: 8 };

    fn owner(user: &str) -> Owner {
        Owner { user: Some(user.into()), session: None }
    }

    fn profile(id: ClientId, user: &str) -> Profile {
        let room = Followed { topic: "room".into(), since: EventId::ORIGIN, is_joined: true };
        Profile { id, owner: owner(user), topics: vec![room] }
    }

    #[test]
    fn invalid_announcements_change_nothing() {
        let mut away = Away::new(4, true, KeyHasher::default());
        let id = ClientId::random().unwrap();
        let learn = |away: &mut Away, profile| {
            away.learn(profile, EventId::new(1, 1), EventId::new(1, 1), BOUNDS);
        };
        learn(&mut away, profile(id, "ann"));
        learn(&mut away, profile(id, "bob"));
        assert!(away.returned(id, &owner("bob")).is_none(), "the id is of another user");
        assert_eq!(away.returned(id, &owner("ann")).map(|back| back.topics.len()), Some(1));
        let long = ClientId::random().unwrap();
        learn(&mut away, profile(long, "longer than a name"));
        assert!(!away.knows(long), "the user cannot come here");
    }

    #[test]
    fn join_after_a_reset_may_be_for_a_forgotten_client() {
        let now = Instant::now();
        let [start, head, join] = [1, 5, 9].map(|seq| EventId::new(1, seq));
        let mut away = Away::new(4, false, KeyHasher::default());
        let reset = |away: &mut Away, floor, is_first| {
            away.restart(floor, is_first);
            away.note_no_joins();
        };
        reset(&mut away, start, true);
        let everybody = Recipients::Key(Key::All);
        let mut other = Away::new(4, false, KeyHasher::default());
        reset(&mut other, start, true);
        other.join(&everybody, &Key::Topic("room".into()), join, 4);
        assert!(!other.may_lack(&[], start, now), "no client was remembered before the start");
        // A client that left up to here, and had no topics, is forgotten.
        reset(&mut away, head, false);
        assert!(!away.may_lack(&[], head, now));
        away.join(&everybody, &Key::Topic("room".into()), join, 4);
        assert!(away.may_lack(&[], head, now));
        assert!(!away.may_lack(&[], join, now), "the client came later");
    }

    #[test]
    fn remembered_client_holds_no_run() {
        let hasher = KeyHasher::default();
        let mut away = Away::new(4, true, hasher.clone());
        let [topic, run] = [Key::Topic("a".into()), Key::Run("a".into())];
        let memberships = [&topic, &run].map(|key| Membership::of(key.clone(), &hasher)).into();
        let id = ClientId::random().unwrap();
        away.remember(id, memberships, EventId::new(1, 1));
        assert_eq!((away.routes.members(&topic).len(), away.routes.members(&run).len()), (1, 0));
    }

    #[test]
    fn full_record_forgets_the_client_that_left_first() {
        let mut away = Away::new(2, true, KeyHasher::default());
        let [first, second, third] = [(); 3].map(|()| ClientId::random().unwrap());
        // The first client came back, and left again.
        for (seq, id) in [first, second, first, third].into_iter().enumerate() {
            away.remember(id, Vec::new(), EventId::new(1, seq as u64));
        }
        assert_eq!([first, second, third].map(|id| away.knows(id)), [true, false, true]);
    }
}
