//! A record of evicted events, to decide whether a client missed something.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use smallvec::SmallVec;

use super::hash::{HashedMap, KeyHashes};
use super::identity::{Filter, Identity};
use super::recipients::{Combined, Recipients};
use crate::wire::id::EventId;

/// The number of evicted events with a combined audience that are kept with that audience. Every
/// check of a returning client evaluates all of them, so the number must stay small.
const COMBINED: usize = 256;

/// The number of names in these audiences together: 16 on average. Bounds the memory and the cost
/// of a check.
const COMBINED_NAMES: usize = 16 * COMBINED;

/// The evicted events, as far as needed to decide whether a client missed an event.
///
/// The record keeps the newest evicted event for each key, for each event type within a key, and
/// for each event type.
/// That answers exactly for any position and any filter, in a few dozen bytes per name. Names come
/// from outside, so the number of rows is bounded: beyond it the older half is dropped, and a
/// position before the dropped rows gets a gap, to be safe.
///
/// With an `and` or an `except`, not every client that holds an index key is in the audience. The
/// newest of these events are kept with their audience. Older events are recorded as events for
/// every holder of their keys: a client may see a needless gap, and never lacks a gap.
#[derive(Debug)]
pub(crate) struct Evicted {
    newest: HashedMap<EventId>,
    combined: VecDeque<(EventId, Arc<Combined>, KeyHashes)>,
    combined_names: usize,
    capacity: usize,
    /// The record has no answer for positions before this position.
    floor: EventId,
    /// The log holds every event after this position.
    whole_from: EventId,
    /// Some recorded events are in the log again since the last eviction.
    restored: bool,
}

/// The row of an event type for all keys.
fn any_key(event_type: u64) -> u64 {
    one_type(0, event_type)
}

/// The row of a key for all event types.
fn any_type(key: u64) -> u64 {
    key
}

/// The row of a key for one event type.
fn one_type(key: u64, event_type: u64) -> u64 {
    // An odd summand, so that the row differs from the row of the key itself.
    key.wrapping_add(event_type | 1)
}

impl Evicted {
    /// `birth`: the position before the first event that the log can have held.
    pub(crate) fn new(capacity: usize, birth: EventId) -> Self {
        Self {
            newest: HashedMap::default(),
            combined: VecDeque::new(),
            combined_names: 0,
            capacity,
            floor: birth,
            whole_from: birth,
            restored: false,
        }
    }

    /// Returns the position after which no event is missing for any client.
    pub(crate) fn whole_from(&self) -> EventId {
        self.whole_from
    }

    /// Notes that every event after `position` is in the log again.
    pub(crate) fn restore(&mut self, position: EventId) {
        self.restored |= position < self.whole_from;
        self.whole_from = self.whole_from.min(position);
    }

    /// Records an evicted event.
    pub(crate) fn record(&mut self, id: EventId, recipients: &Recipients, hashes: &KeyHashes) {
        self.drop_restored_records();
        self.whole_from = self.whole_from.max(id);
        let Recipients::Some(combined) = recipients else {
            self.record_keys(id, hashes);
            return;
        };
        self.combined_names += combined.names();
        self.combined.push_back((id, Arc::clone(combined), hashes.clone()));
        while self.combined.len() > COMBINED || self.combined_names > COMBINED_NAMES {
            let Some((id, combined, hashes)) = self.combined.pop_front() else { break };
            self.combined_names -= combined.names();
            self.record_keys(id, &hashes);
        }
    }

    /// Records an evicted event as an event for every holder of its keys: the record does not keep
    /// the audience. A forgotten run counts as its last event.
    pub(super) fn record_for_holders(&mut self, id: EventId, hashes: &KeyHashes) {
        self.drop_restored_records();
        self.whole_from = self.whole_from.max(id);
        self.record_keys(id, hashes);
    }

    /// Returns the newest evicted event for this client after `after`. `from`: the position after
    /// which the record must know every event for the client; `after` for a client without runs.
    ///
    /// Runs under the state lock when a client connects or falls behind. Looks up at most one row
    /// for each key of the client and for each type of its filter. Of the types that lost an event
    /// after `after`, looks up a row within each key that lost an event after `after`. Evaluates at
    /// most [`COMBINED`] audiences. Hashes nothing.
    pub(crate) fn since(
        &self,
        after: EventId,
        from: EventId,
        client: Identity<'_>,
    ) -> Option<EventId> {
        let floor = self.floor.min(self.whole_from);
        let mut lost = (from < floor).then_some(floor);
        let types = self.lost_types(client.filter, after);
        for held in client.memberships {
            // Only a loss later than those found so far counts. So the types, of which a client
            // may have many, are looked up for few keys.
            let found = lost.unwrap_or(after).max(after).max(held.since);
            let of_any_type = self.newest_of(any_type(held.hash));
            let Some(of_any_type) = of_any_type.filter(|&id| id > found) else { continue };
            let later = match client.filter {
                Filter::Everything => Some(of_any_type),
                Filter::Types(_) => {
                    let rows = types.iter().map(|&name| one_type(held.hash, name));
                    rows.filter_map(|row| self.newest_of(row)).max().filter(|&id| id > found)
                }
            };
            lost = later.or(lost);
        }
        lost.max(self.combined_since(after, client))
    }

    /// Returns the newest evicted event of a row.
    fn newest_of(&self, row: u64) -> Option<EventId> {
        // A row keeps only the newest eviction. If the log has that event again, an older event of
        // the same row may still be missing: assume so, to be safe.
        self.newest.get(&row).map(|&id| id.min(self.whole_from))
    }

    /// Returns the types of a filter that lost an event after `after`. A client may name many types
    /// that no event has.
    fn lost_types(&self, filter: &Filter, after: EventId) -> SmallVec<[u64; 8]> {
        let is_lost = |&name: &u64| self.newest_of(any_key(name)).is_some_and(|id| id > after);
        match filter {
            Filter::Everything => SmallVec::new(),
            Filter::Types(types) => types.iter().copied().filter(is_lost).collect(),
        }
    }

    fn combined_since(&self, after: EventId, client: Identity<'_>) -> Option<EventId> {
        // The list is not in id order: the limit of a topic evicts newer events than the limit of
        // the log.
        let after = self.combined.iter().filter(|&&(id, ..)| after < id && id <= self.whole_from);
        let missed = after.filter(|(id, combined, hashes)| {
            client.filter.admits(hashes.event_type) && combined.includes(client, *id)
        });
        missed.map(|&(id, ..)| id).max()
    }

    fn record_keys(&mut self, id: EventId, hashes: &KeyHashes) {
        let of_keys =
            hashes.keys.iter().flat_map(|&key| [any_type(key), one_type(key, hashes.event_type)]);
        for row in of_keys.chain([any_key(hashes.event_type)]) {
            let newest = self.newest.entry(row).or_insert(id);
            *newest = id.max(*newest);
        }
        if self.newest.len() > self.capacity {
            self.drop_older_half();
        }
    }

    /// Moves every record to or before `whole_from`. Must run before the next eviction raises
    /// `whole_from`, or a restored event would count as evicted again.
    fn drop_restored_records(&mut self) {
        if !mem::take(&mut self.restored) {
            return;
        }
        let whole_from = self.whole_from;
        self.floor = self.floor.min(whole_from);
        self.newest.values_mut().for_each(|id| *id = whole_from.min(*id));
        self.combined.retain(|&(id, ..)| id <= whole_from);
        self.combined_names = self.combined.iter().map(|(_, combined, _)| combined.names()).sum();
    }

    fn drop_older_half(&mut self) {
        let mut ids: Vec<EventId> = self.newest.values().copied().collect();
        let middle = ids.len() / 2;
        let (_, &mut floor, _) = ids.select_nth_unstable(middle);
        self.floor = self.floor.max(floor);
        self.newest.retain(|_, id| *id > floor);
    }
}

#[cfg(test)]
mod tests {
    use super::super::audience::Audience;
    use super::super::hash::KeyHasher;
    use super::super::identity::Membership;
    use super::*;

    const BIRTH: EventId = EventId::new(5, 0);

    struct Record {
        evicted: Evicted,
        hasher: KeyHasher,
    }

    impl Record {
        fn new(capacity: usize, birth: EventId) -> Self {
            Self { evicted: Evicted::new(capacity, birth), hasher: KeyHasher::default() }
        }

        fn types(&self, names: &[&str]) -> Filter {
            Filter::new(Some(&names.iter().map(|&name| name.into()).collect()), &self.hasher)
        }
    }

    fn user(name: usize) -> Audience {
        Audience::user(name.to_string())
    }

    fn evict(record: &mut Record, audience: &Audience, event_type: &str, count: u64) {
        let recipients = Recipients::new(audience, &record.hasher);
        let hashes = record.hasher.hashes(recipients.keys(), event_type.as_bytes());
        record.evicted.record(EventId::new(5, count), &recipients, &hashes);
    }

    /// The newest event after `after` that a client with these keys missed.
    fn since(record: &Record, after: EventId, holds: &[Audience], filter: &Filter) -> Option<u64> {
        let hold = |audience: &Audience| Membership {
            key: audience.key().unwrap().clone(),
            hash: record.hasher.key(audience.key().unwrap()),
            since: EventId::ORIGIN,
            is_joined: false,
            index: 0,
        };
        let memberships: Vec<Membership> = holds.iter().map(hold).collect();
        let client = Identity { memberships: &memberships, filter };
        record.evicted.since(after, after, client).map(EventId::seq)
    }

    #[test]
    fn only_own_events_are_missed() {
        let mut record = Record::new(100, BIRTH);
        evict(&mut record, &user(1), "news", 7);
        let all = Filter::Everything;
        assert_eq!(since(&record, EventId::new(5, 6), &[user(1)], &all), Some(7));
        assert_eq!(since(&record, EventId::new(5, 7), &[user(1)], &all), None);
        assert_eq!(since(&record, BIRTH, &[user(2)], &all), None);
        assert_eq!(since(&record, BIRTH, &[user(1)], &record.types(&["other", "news"])), Some(7));
        assert_eq!(since(&record, BIRTH, &[user(1)], &record.types(&["other"])), None);
        assert_eq!(
            since(&record, EventId::new(4, 9), &[user(2)], &all),
            Some(0),
            "an earlier life"
        );
    }

    #[test]
    fn event_that_the_client_read_is_not_missed() {
        let mut record = Record::new(100, BIRTH);
        evict(&mut record, &user(1), "news", 5);
        evict(&mut record, &user(1), "other", 6);
        evict(&mut record, &user(2), "news", 7);
        let news = record.types(&["news"]);
        assert_eq!(since(&record, EventId::new(5, 5), &[user(1)], &news), None);
        assert_eq!(since(&record, EventId::new(5, 4), &[user(1)], &news), Some(5));
    }

    #[test]
    fn combined_audiences_are_exact_then_safe() {
        let mut record = Record::new(100, BIRTH);
        evict(&mut record, &Audience::topic("t").except(user(1)), "news", 1);
        let (follower, other) = ([Audience::topic("t"), user(2)], [Audience::topic("t"), user(1)]);
        let all = Filter::Everything;
        assert_eq!(since(&record, BIRTH, &follower, &all), Some(1));
        assert_eq!(since(&record, BIRTH, &other, &all), None);
        for count in 2..=COMBINED as u64 + 1 {
            evict(&mut record, &user(3).and(user(4)), "news", count);
        }
        assert_eq!(record.evicted.combined.len(), COMBINED);
        assert_eq!(since(&record, BIRTH, &other, &all), Some(1), "the audience is forgotten");
    }

    #[test]
    fn names_of_combined_audiences_are_bounded() {
        const EVENTS: u64 = 8;
        // Each has an equal part of the names.
        let others = Audience::users((2..COMBINED_NAMES / EVENTS as usize).map(|name| name as u64));
        let audience = Audience::topic("t").and(others).except(user(1));
        let (client, all) = ([Audience::topic("t"), user(1)], Filter::Everything);
        let mut record = Record::new(100, BIRTH);
        for count in 1..=3 * EVENTS {
            evict(&mut record, &audience, "news", count);
            // Of older events, the audience is forgotten.
            let forgotten = count.checked_sub(EVENTS).filter(|&count| count > 0);
            assert_eq!(since(&record, BIRTH, &client, &all), forgotten);
        }
    }

    #[test]
    fn restored_events_are_not_missed_until_evicted_again() {
        let mut record = Record::new(100, BIRTH);
        let all = Filter::Everything;
        for count in 1..=9 {
            evict(&mut record, &user(count % 3), "news", count as u64);
        }
        evict(&mut record, &user(1).and(user(2)), "news", 10);
        let both = [user(1), user(2)];
        record.evicted.restore(EventId::new(5, 5));
        assert_eq!(since(&record, EventId::new(5, 5), &both, &all), None);
        assert_eq!(since(&record, EventId::new(5, 4), &[user(2)], &all), Some(5));
        assert_eq!(since(&record, BIRTH, &both, &all), Some(5));
        evict(&mut record, &user(0), "news", 6);
        assert_eq!(since(&record, EventId::new(5, 5), &[user(0)], &all), Some(6));
        assert_eq!(
            since(&record, EventId::new(5, 5), &both, &all),
            None,
            "7, 8 and 10 are restored"
        );
        assert_eq!(since(&record, BIRTH, &[user(2)], &all), Some(5));
        assert_eq!(record.evicted.whole_from(), EventId::new(5, 6));

        // An event with a combined audience before the restored events stays missed.
        let mut record = Record::new(100, BIRTH);
        evict(&mut record, &user(1).and(user(2)), "news", 3);
        evict(&mut record, &user(3), "news", 9);
        record.evicted.restore(EventId::new(5, 5));
        evict(&mut record, &user(3), "news", 6);
        assert_eq!(since(&record, BIRTH, &both, &all), Some(3));

        let mut late_start = Record::new(100, EventId::new(5, 9));
        late_start.evicted.restore(EventId::new(5, 2));
        assert_eq!(since(&late_start, EventId::new(5, 2), &both, &all), None);
        assert_eq!(since(&late_start, EventId::new(5, 1), &both, &all), Some(2));
    }

    #[test]
    fn endless_names_stay_bounded_and_hide_no_loss() {
        const CAPACITY: usize = 101;
        let mut record = Record::new(CAPACITY, BIRTH);
        let (mut len, mut drops) = (0, 0);
        for count in 1..=10_000 {
            evict(&mut record, &user(count), "news", count as u64);
            assert!(record.evicted.newest.len() <= CAPACITY);
            drops += usize::from(record.evicted.newest.len() <= len);
            len = record.evicted.newest.len();
            if count == CAPACITY / 2 {
                // Two rows for each user, and the row of the type.
                assert_eq!(len, CAPACITY);
                assert_eq!(since(&record, BIRTH, &[user(0)], &Filter::Everything), None);
            }
        }
        // Each drop makes room for many rows.
        assert!(drops <= 10_000 / (CAPACITY / 5), "{drops} drops");
        for count in 1..=10_000 {
            let before = EventId::new(5, count as u64 - 1);
            let found = since(&record, before, &[user(count)], &Filter::Everything);
            assert!(found >= Some(count as u64), "user {count} missed an event without a gap");
        }
        let end = EventId::new(5, 10_000);
        assert_eq!(since(&record, end, &[user(1)], &Filter::Everything), None);
        // Rows of a single event are bounded, too.
        evict(&mut record, &Audience::users(0..1_000_u64), "news", 10_001);
        assert!(record.evicted.newest.len() <= CAPACITY);
        assert_eq!(since(&record, end, &[user(7)], &Filter::Everything), Some(10_001));
    }
}
