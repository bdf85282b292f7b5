//! The log: the hub's bounded memory of events.
//!
//! # Raising
//!
//! With a backplane, the log can grow at the old end: events that the log evicted or never held are
//! put back in their place, and clients read these as any other event. A *raised* log keeps more
//! than the retention, by an allowance, and limits neither topics nor the age of events: no event
//! may be evicted between the restoration and the read.
//!
//! # Values
//!
//! An event with a conflation key is the *value* of the key until a later event replaces it. With
//! [`Retain::keep_latest`], a value that the retention would evict is not lost: it leaves the
//! retained events, and stays in the log among the [kept](Kept) values.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::iter;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::entry::{Batch, Budget, Conflation, Entry, Listed};
use super::evicted::Evicted;
use super::hash::{KeyHasher, KeyHashes, KeyMap};
use super::identity::{Identity, Membership};
use super::kept::Kept;
use super::key::Key;
use super::merge::{Backward, Events, Merge};
use super::producer::{ProducerAt, ProducerId};
use super::retain::{Allowance, Retain, RunLimits};
use super::run_log::RunLog;
use super::runs::{Begun, Decided, NewRun, RunRecord, RunState, Runs};
use crate::error::RunError;
use crate::wire::frame;
use crate::wire::id::EventId;

/// Rows of evicted events for each retained event: two rows per event, times two. A client that
/// returns after the whole retention was replaced still gets an exact answer, unless every event
/// had a unique name. The rows of event types for all keys are few.
const EVICTED_ROWS_PER_EVENT: usize = 4;

/// The fewest rows of evicted events, for hubs that retain a few events only.
const MIN_EVICTED_ROWS: usize = 1024;

/// The most missed events of a client in which the log looks for events with an `and` or an `except`
/// that were for another client, too: the look holds a lock.
const MOST_MISSED: usize = 4096;

/// The most runs that one operation forgets.
const MAX_FORGOTTEN: usize = 64;

/// The owner of the events. Clients hold the newest events of a text: see [`RunLog`].
#[derive(Debug)]
pub(crate) struct Log {
    retain: Retain,
    raised: Option<Raised>,
    /// The retained events, without the kept values, in id order. An event that left before older
    /// events leaves a hole.
    order: VecDeque<(EventId, Option<Arc<Entry>>)>,
    holes: usize,
    /// The sum of the weights of the retained events.
    bytes: usize,
    /// The retained events of each key.
    index: KeyMap<Listed>,
    /// The values beyond the retention. `None` if the hub keeps none.
    kept: Option<Box<Kept>>,
    /// The latest event of each conflation in the log, retained or kept.
    latest: HashMap<Arc<Conflation>, EventId>,
    evicted: Evicted,
    /// The log has held an event whose audience has an `and` or an `except`.
    has_combined: bool,
    /// The events of runs are kept apart: no other field counts these.
    runs: Box<Runs>,
    /// The runs that were forgotten. Apart from the evicted events: a history read brings no run
    /// back.
    forgotten: Box<Evicted>,
    hasher: KeyHasher,
    /// The position before the first event that the log can have held.
    birth: EventId,
    /// The order can have values before `birth` that the log never held.
    lacks_values: bool,
    head: EventId,
    /// How many events this log has evicted.
    evictions: u64,
}

/// The log keeps more than its retention: see the module's documentation.
#[derive(Debug)]
struct Raised {
    by: Allowance,
    /// The position after which the log was complete before the raise.
    base: EventId,
    /// An event did not fit.
    full: bool,
}

impl Log {
    pub(crate) fn new(retain: Retain, runs: RunLimits, birth: EventId, hasher: KeyHasher) -> Self {
        let rows =
            |events: usize| events.saturating_mul(EVICTED_ROWS_PER_EVENT).max(MIN_EVICTED_ROWS);
        let kept = retain.kept().map(|most| Box::new(Kept::new(most, rows(most.keys))));
        Self {
            retain,
            raised: None,
            order: VecDeque::new(),
            holes: 0,
            bytes: 0,
            index: KeyMap::new(),
            kept,
            latest: HashMap::new(),
            forgotten: Box::new(Evicted::new(rows(runs.runs), birth)),
            runs: Box::new(Runs::new(runs)),
            evicted: Evicted::new(rows(retain.events), birth),
            has_combined: false,
            hasher,
            birth,
            lacks_values: false,
            head: birth,
            evictions: 0,
        }
    }

    /// Returns how many events this log has evicted so far. While the number stays the same, no
    /// client loses an event.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Returns the hasher of the hub.
    pub(crate) fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Returns the newest position.
    pub(crate) fn head(&self) -> EventId {
        self.head
    }

    /// Moves the head to a position without an event.
    pub(crate) fn pass(&mut self, id: EventId) {
        self.head = self.head.max(id);
    }

    /// Returns the number of events, kept values included.
    pub(crate) fn len(&self) -> usize {
        self.retained() + self.kept.as_ref().map_or(0, |kept| kept.len())
    }

    /// Returns the bytes that the events count for, kept values included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.kept.as_ref().map_or(0, |kept| kept.bytes())
    }

    /// Returns the number of events that the retention limits.
    fn retained(&self) -> usize {
        self.order.len() - self.holes
    }

    /// Returns the number of keys with retained events.
    pub(crate) fn keys(&self) -> usize {
        self.index.len()
    }

    /// Returns the limits that hold now.
    fn limit(&self) -> Retain {
        self.raised.as_ref().map_or(self.retain, |raised| self.retain.raised(raised.by))
    }

    /// Appends an event, which must be newer than every event before, and moves the events that
    /// must go for it to `evicted`: the caller frees them after unlocking.
    pub(crate) fn append(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        debug_assert!(entry.id > self.head);
        self.expire(entry.at, evicted);
        let limit = self.limit();
        self.head = entry.id;
        self.bytes += entry.weight();
        self.has_combined |= !entry.is_for_all_holders();
        self.order.push_back((entry.id, Some(Arc::clone(&entry))));
        if let Some(conflation) = &entry.conflation {
            // Removed first: an insertion would keep the old key, and with it a second copy.
            let older = self.latest.remove(conflation);
            self.latest.insert(Arc::clone(conflation), entry.id);
            // Not recorded as evicted: a client that has not read the old value reads the new
            // value.
            evicted.extend(older.and_then(|older| self.take_out(older)));
        }
        for (hash, key) in entry.hashed_keys() {
            let entries = self.index.get_or_default(hash, key);
            if entries.is_empty() {
                // Many names have a single event.
                entries.reserve_exact(1);
            }
            entries.push_back((entry.id, Arc::clone(&entry)));
            let full = limit.per_topic.is_some_and(|limit| entries.len() > limit);
            if full && matches!(key, Key::Topic(_)) {
                let oldest = entries[0].0;
                self.evict(oldest, evicted);
            }
        }
        while self.retained() > limit.events || self.bytes > limit.bytes {
            self.evict_oldest(evicted);
        }
    }

    /// Adds the value of a conflation key from before the log, which must have no later events yet.
    /// Ignores an event without a key, and a value that is older than the known value.
    pub(crate) fn seed(&mut self, value: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        let Some(conflation) = &value.conflation else { return };
        if value.id > self.birth || self.latest.get(conflation).is_some_and(|&id| id >= value.id) {
            return;
        }
        let older = self.latest.remove(conflation);
        self.latest.insert(Arc::clone(conflation), value.id);
        self.has_combined |= !value.is_for_all_holders();
        evicted.extend(older.and_then(|older| self.take_out(older)));
        self.keep(value, evicted);
    }

    /// Notes that the order can have values from before the log that the log does not hold.
    pub(crate) fn note_lacking_values(&mut self) {
        self.lacks_values = true;
    }

    /// Evicts the events that are too old at `now`.
    pub(crate) fn expire(&mut self, now: Instant, evicted: &mut Vec<Arc<Entry>>) {
        let Some(age) = self.limit().age else { return };
        while let Some((_, Some(oldest))) = self.order.front() {
            if now.saturating_duration_since(oldest.at) < age {
                break;
            }
            self.evict_oldest(evicted);
        }
    }

    /// Reads the retained events for a client after a position and up to `upto`, in order. Returns
    /// whether these were all.
    ///
    /// Merges the lists of the client's keys, so the cost follows the number of events under these
    /// keys, not the number of retained events.
    pub(crate) fn read(
        &self,
        after: EventId,
        upto: EventId,
        client: Identity<'_>,
        budget: Budget,
        out: &mut Batch,
    ) -> bool {
        let mut bytes = 0;
        // Only runs need the merge, which clones the handle of an event before the filter decides.
        if client.has_runs() {
            let mut events = Merge::new(self.events_of(client), after, upto);
            return events.all(|(_, entry)| {
                if !entry.is_for(client) {
                    return true;
                }
                let has_room = budget.allows(out, bytes, &entry);
                if has_room {
                    bytes += entry.len();
                    out.push(entry);
                }
                has_room
            });
        }
        let lists = self.lists(client);
        let mut next: BinaryHeap<Reverse<(EventId, usize, usize)>> = lists
            .iter()
            .enumerate()
            .filter_map(|(list, &(entries, since))| {
                let after = after.max(since);
                if entries.back().is_none_or(|&(newest, _)| newest <= after) {
                    return None;
                }
                let at = entries.partition_point(|&(id, _)| id <= after);
                entries.get(at).map(|&(id, _)| Reverse((id, list, at)))
            })
            .collect();
        let mut newest = after;
        // Most clients have events under one key only.
        if let [Reverse((_, list, at))] = next.as_slice() {
            for (id, entry) in lists[*list].0.range(*at..) {
                if *id > upto {
                    break;
                }
                if entry.is_for(client) {
                    if !budget.allows(out, bytes, entry) {
                        return false;
                    }
                    bytes += entry.len();
                    out.push(Arc::clone(entry));
                }
            }
            return true;
        }
        while let Some(mut top) = next.peek_mut() {
            let Reverse((id, list, at)) = *top;
            let (entries, _) = lists[list];
            if id > upto {
                return true;
            }
            let (_, entry) = &entries[at];
            // An event under two keys of the client is in both lists.
            if id > newest && entry.is_for(client) {
                if !budget.allows(out, bytes, entry) {
                    return false;
                }
                bytes += entry.len();
                newest = id;
                out.push(Arc::clone(entry));
            }
            match entries.get(at + 1) {
                Some(&(following, _)) => *top = Reverse((following, list, at + 1)),
                None => drop(PeekMut::pop(top)),
            }
        }
        true
    }

    /// Returns the position directly before the first retained event for a client after a position
    /// and up to `upto`. `None` if there is no such event.
    pub(crate) fn before_first(
        &self,
        after: EventId,
        upto: EventId,
        client: Identity<'_>,
    ) -> Option<EventId> {
        let mut events = Merge::new(self.events_of(client), after, upto);
        let first = events.find(|(_, entry)| entry.is_for(client));
        first.map(|(id, _)| id.predecessor())
    }

    /// Returns the retained events of each of a client's keys, runs included, with the position
    /// after which the client holds the key.
    pub(super) fn events_of<'a>(
        &'a self,
        client: Identity<'a>,
    ) -> impl Iterator<Item = (Events<'a>, EventId)> {
        client.memberships.iter().flat_map(|held| {
            let is_run = held.key.is_run();
            let run = is_run.then(|| self.runs.find(held.hash, &held.key)).flatten();
            let run = run.map(|run| Events::Run(run.kept()));
            let lists = self.lists_of(held.hash, &held.key).map(Events::Key);
            lists.chain(run).map(|events| (events, held.since))
        })
    }

    /// Returns the position directly before the last `count` retained events for a client, and the
    /// newest retained event for the client that is older, if there is any.
    pub(crate) fn before_last(
        &self,
        count: usize,
        client: Identity<'_>,
    ) -> (EventId, Option<EventId>) {
        let events = Backward::new(self.lists(client), EventId::LAST);
        let mut left = count;
        let mut oldest = None;
        for entry in events.filter(|entry| entry.is_for(client)) {
            if left == 0 {
                return (oldest.map_or(entry.id, EventId::predecessor), Some(entry.id));
            }
            left -= 1;
            oldest = Some(entry.id);
        }
        (oldest.map_or(self.head, EventId::predecessor), None)
    }

    /// Returns the retained events of each of a client's keys but runs, with the position after
    /// which the client holds the key.
    pub(super) fn lists<'a>(
        &'a self,
        client: Identity<'a>,
    ) -> SmallVec<[(&'a Listed, EventId); 8]> {
        let memberships = client.memberships.iter();
        let lists = memberships.flat_map(|held| {
            self.lists_of(held.hash, &held.key).map(|entries| (entries, held.since))
        });
        lists.collect()
    }

    /// Returns the retained events and the kept values under a key, each in id order.
    fn lists_of(&self, hash: u64, key: &Key) -> impl Iterator<Item = &Listed> {
        let kept = self.kept.as_ref().and_then(|kept| kept.under(hash, key));
        self.index.get(hash, key).into_iter().chain(kept)
    }

    /// Returns the events under a key, the newest first.
    pub(super) fn newest_under(&self, key: &Key) -> impl Iterator<Item = &Arc<Entry>> {
        let mut lists = self.lists_of(self.hasher.key(key), key);
        let [one, other] = [lists.next(), lists.next()]
            .map(|list| list.into_iter().flatten().rev().map(|(id, entry)| (*id, entry)));
        newest_first(one, other).map(|(_, entry)| entry)
    }

    /// Returns the positions before `before`, the newest first, each with its event unless the
    /// event left before older events.
    pub(super) fn newest_before(
        &self,
        before: EventId,
    ) -> impl Iterator<Item = (EventId, Option<&Arc<Entry>>)> {
        let end = self.order.partition_point(|&(id, _)| id < before);
        let retained = self.order.range(..end).rev().map(|(id, entry)| (*id, entry.as_ref()));
        let kept = self.kept.iter().flat_map(move |kept| kept.newest_before(before));
        newest_first(retained, kept.map(|(id, value)| (id, Some(value))))
    }

    /// Returns the newest evicted event for this client after `after`.
    pub(crate) fn lost_since(&self, after: EventId, client: Identity<'_>) -> Option<EventId> {
        let mut runs = client.runs().peekable();
        if runs.peek().is_none() {
            return self.evicted.since(after, after, client);
        }
        let others = client.memberships.iter().filter(|held| !held.key.is_run());
        let others = others.map(|held| after.max(held.since)).min().unwrap_or(EventId::LAST);
        let mut from = EventId::LAST;
        let mut lost = self.evicted.since(after, others, client);
        for held in runs {
            let after = after.max(held.since);
            match self.runs.find(held.hash, &held.key) {
                Some(run) => {
                    lost = lost.max(Some(run.lost()).filter(|&lost| lost > after));
                    // Before the beginning, another run of the name may be forgotten.
                    if after < run.begin {
                        from = from.min(after);
                    }
                }
                None => from = from.min(after),
            }
        }
        self.forgotten.since(after, from, client).max(lost)
    }

    /// Returns the runs, whose events the log keeps apart from the other events.
    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Starts or takes over a run, whose events come after `begin`. Moves the events of runs that
    /// are forgotten to `freed`: the caller frees them after unlocking.
    pub(crate) fn start_run(
        &mut self,
        new: NewRun,
        begin: EventId,
        now: Instant,
        freed: &mut Vec<RunLog>,
    ) -> Result<Begun, RunError> {
        self.forget_runs(now, freed);
        if self.runs.is_full() && !self.runs.knows(new.hash, &new.key) {
            self.forget_run(true, now, freed);
        }
        let before = freed.len();
        let started = self.runs.begin_run(new, begin, now, freed);
        // The events of an ended run of the name.
        self.evictions += (freed.len() - before) as u64;
        started
    }

    /// Appends an event to the run of a producer. The event must be newer than every event of the
    /// run. `is_loss`: the event is the end as lost, which a run that is gone takes, too. Returns
    /// whether the log keeps the entry, and not only the text.
    pub(crate) fn append_to_run(
        &mut self,
        producer: ProducerAt,
        entry: &Arc<Entry>,
        is_loss: bool,
        freed: &mut Vec<Arc<Entry>>,
    ) -> Result<bool, RunError> {
        let run = entry.hashed_keys().next().ok_or(RunError::Unknown)?;
        let slot = self.runs.slot_for_event(run, producer, is_loss)?;
        self.pass(entry.id);
        let (is_kept, evictions) = self.runs.append(slot, entry, freed);
        self.evictions += evictions;
        Ok(is_kept)
    }

    /// Notes that the events of a run up to `lost` are dropped.
    pub(crate) fn lose_in_run(
        &mut self,
        hash: u64,
        key: &Key,
        lost: EventId,
        freed: &mut Vec<Arc<Entry>>,
    ) {
        self.runs.lose(hash, key, lost, freed);
    }

    /// Sets the starts of runs that have an effect.
    pub(crate) fn decide_runs(&mut self, decided: Decided) {
        self.runs.decide(decided);
    }

    /// Takes the open runs that this log lacks from the log of a replaced order. They are gone, and
    /// have lost all events up to `floor`.
    pub(crate) fn take_gone_runs(
        &mut self,
        old: &mut Self,
        floor: EventId,
        freed: &mut Vec<RunLog>,
    ) {
        self.runs.take_gone(&mut old.runs, floor, freed);
    }

    /// Notes that the open run of a producer is reported as lost.
    pub(crate) fn note_reported_lost(&mut self, hash: u64, key: &Key, producer: ProducerId) {
        self.runs.note_reported_lost(hash, key, producer);
    }

    /// Notes that an open run must stop. Returns the producer.
    pub(crate) fn stop_run(
        &mut self,
        hash: u64,
        key: &Key,
        reason: &Arc<str>,
    ) -> Result<ProducerId, RunError> {
        self.runs.stop(hash, key, reason)
    }

    /// Returns the runs that a client reads, each with its name.
    pub(crate) fn runs_of<'a>(
        &'a self,
        client: Identity<'a>,
    ) -> impl Iterator<Item = (&'a Key, Option<&'a RunRecord>)> {
        client.runs().map(|held| (&held.key, self.runs.find(held.hash, &held.key)))
    }

    /// Whether a client reads an open run.
    pub(crate) fn has_open_run(&self, client: Identity<'_>) -> bool {
        self.runs_of(client).any(|(_, run)| run.is_some_and(RunRecord::is_open))
    }

    /// Ends an open run.
    pub(crate) fn end_run(&mut self, hash: u64, key: &Key, state: RunState, now: Instant) {
        self.runs.end(hash, key, state, now);
    }

    /// Forgets the runs whose time is over at `now`.
    pub(crate) fn forget_runs(&mut self, now: Instant, freed: &mut Vec<RunLog>) {
        for _ in 0..MAX_FORGOTTEN {
            if !self.forget_run(false, now, freed) {
                return;
            }
        }
    }

    /// Notes an event of a run that has no effect, because the run has another producer, or because
    /// the log began within the order and does not know the run: then the event counts as lost.
    /// Returns whether readers must be told the loss now. The readers of a run that is gone are
    /// told with the next start, because a run without a next start ends for them.
    pub(crate) fn note_ineffective(&mut self, hash: u64, key: &Key, id: EventId) -> bool {
        if !self.runs.lacks(key, id) || self.runs.note_lacking_in_gone(hash, key, id) {
            return false;
        }
        self.note_lacking_run(hash, id);
        true
    }

    /// Notes that the log may lack an event of a run that has ended.
    pub(crate) fn note_lacking_run(&mut self, run: u64, id: EventId) {
        self.evictions += 1;
        self.record_forgotten(run, id);
    }

    fn forget_run(&mut self, must_go: bool, now: Instant, freed: &mut Vec<RunLog>) -> bool {
        let Some((run, last)) = self.runs.forget_first(must_go, now, freed) else { return false };
        self.evictions += 1;
        self.record_forgotten(run, last);
        true
    }

    fn record_forgotten(&mut self, run: u64, last: EventId) {
        // Every reader of a run admits the type of its end.
        let event_type = self.hasher.event_type(frame::RUN_END.as_bytes());
        let hashes = KeyHashes { keys: [run].into_iter().collect(), event_type };
        self.forgotten.record_for_holders(last, &hashes);
    }

    /// Returns whether an event after `after`, retained or evicted, is not for this client, and would
    /// be for the client with this key, too. If the client missed more than `MOST_MISSED` events, the
    /// result may be `true` without such an event.
    pub(crate) fn had_events(&self, key: Key, after: EventId, client: Identity<'_>) -> bool {
        let held = Membership::of(key.clone(), &self.hasher);
        let memberships: Vec<_> = client.memberships.iter().cloned().chain([held]).collect();
        let holder = Identity { memberships: &memberships, ..client };
        let evicted = |client| self.evicted.since(after, after, client);
        let is_missed = |entry: &Arc<Entry>| entry.is_for(holder) && !entry.is_addressed_to(client);
        let mut under_key = self.newest_under(&key).take_while(|entry| entry.id > after);
        // Events that name the key beside other names can be indexed by these.
        let under_others = || {
            let all = Backward::new(self.lists(client), EventId::LAST);
            let mut missed = all.take_while(|entry| entry.id > after);
            missed.by_ref().take(MOST_MISSED).any(is_missed) || missed.next().is_some()
        };
        evicted(holder) > evicted(client)
            || under_key.any(is_missed)
            || self.has_combined && under_others()
    }

    /// Returns the newest value for this client after `after` that the log lacks although no later
    /// event replaced it; the position before the log if any value from before may be lacking.
    pub(crate) fn lost_values(&self, after: EventId, client: Identity<'_>) -> Option<EventId> {
        let lacking = (self.lacks_values && after < self.birth).then_some(self.birth);
        let lost = match &self.kept {
            Some(kept) => kept.lost_since(after, client),
            // The log evicted nothing from before its first event.
            None => {
                let after = after.max(self.birth);
                self.evicted.since(after, after, client)
            }
        };
        lost.max(lacking)
    }

    /// Returns how many values the log has lost so far. While the number stays the same,
    /// [`lost_values`](Self::lost_values) returns nothing new.
    pub(crate) fn value_evictions(&self) -> u64 {
        self.kept.as_ref().map_or(self.evictions, |kept| kept.evictions())
    }

    fn evict_oldest(&mut self, evicted: &mut Vec<Arc<Entry>>) {
        if let Some(&(oldest, _)) = self.order.front() {
            self.evict(oldest, evicted);
        }
    }

    /// Removes a retained event. If the event is a value, it stays among the kept values.
    fn evict(&mut self, id: EventId, evicted: &mut Vec<Arc<Entry>>) {
        let Some(entry) = self.take_retained(id) else { return };
        if entry.is_value() {
            self.keep(entry, evicted);
        } else {
            self.note_evicted(entry, evicted);
        }
    }

    /// Keeps a value beyond the retention, as far as the bound allows.
    fn keep(&mut self, value: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        let Some(kept) = &mut self.kept else { return self.note_evicted(value, evicted) };
        if !kept.fits(&value) {
            kept.note_lost(&value);
            return self.note_evicted(value, evicted);
        }
        kept.add(value);
        while let Some(oldest) = self.kept.as_mut().and_then(|kept| kept.take_surplus()) {
            self.note_evicted(oldest, evicted);
        }
    }

    /// Records an event that was removed as evicted.
    fn note_evicted(&mut self, entry: Arc<Entry>, evicted: &mut Vec<Arc<Entry>>) {
        self.evictions += 1;
        self.evicted.record(entry.id, &entry.recipients, &entry.hashes);
        if let Some(conflation) = &entry.conflation {
            self.latest.remove(conflation);
        }
        evicted.push(entry);
    }

    /// Removes an event from the log, without recording it as evicted.
    fn take_out(&mut self, id: EventId) -> Option<Arc<Entry>> {
        let kept = self.kept.as_mut().and_then(|kept| kept.take(id));
        kept.or_else(|| self.take_retained(id))
    }

    fn take_retained(&mut self, id: EventId) -> Option<Arc<Entry>> {
        let at = self.order.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        let entry = self.order[at].1.take()?;
        self.holes += 1;
        self.bytes -= entry.weight();
        for (hash, key) in entry.hashed_keys() {
            let Some(entries) = self.index.get_mut(hash, key) else { continue };
            if let Ok(at) = entries.binary_search_by_key(&id, |&(id, _)| id) {
                entries.remove(at);
            }
            if entries.is_empty() {
                self.index.remove(hash, key);
            }
        }
        self.close_holes();
        Some(entry)
    }

    /// Keeps the oldest element an event, and the holes fewer than the events.
    fn close_holes(&mut self) {
        while let Some((_, None)) = self.order.front() {
            self.order.pop_front();
            self.holes -= 1;
        }
        if self.holes > self.order.len() / 2 {
            self.order.retain(|(_, entry)| entry.is_some());
            self.holes = 0;
        }
    }

    /// Returns the position after which no event is missing for any client.
    pub(crate) fn whole_from(&self) -> EventId {
        self.evicted.whole_from()
    }

    /// Starts to keep more than the retention.
    pub(crate) fn raise(&mut self, by: Allowance) {
        let base = self.whole_from();
        self.raised.get_or_insert(Raised { by, base, full: false });
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.is_some()
    }

    /// Returns the number of events that still fit into the log, raised by this allowance.
    pub(crate) fn room(&self, by: Allowance) -> usize {
        let limit = self.retain.events.saturating_add(by.events);
        match &self.raised {
            Some(raised) if raised.full => 0,
            _ => limit.saturating_sub(self.retained()),
        }
    }

    /// Returns whether a read after this position returns events that the retention alone would not
    /// keep.
    pub(crate) fn reaches_back(&self, after: EventId) -> bool {
        let Some(Raised { base, .. }) = &self.raised else { return false };
        let surplus = self.order.len().checked_sub(self.retain.events);
        let newest = surplus.and_then(|events| self.order.get(events.checked_sub(1)?));
        after < newest.map_or(*base, |&(newest, _)| newest.max(*base))
    }

    /// Notes that the log holds every event after this position.
    pub(crate) fn reach_back(&mut self, position: EventId) {
        self.evicted.restore(position);
    }

    /// Puts the newest missing event back; `previous` is the position of the event before it in the
    /// order. Returns `false` if there is no room.
    ///
    /// An event can be in the log already, between events that the limit of a topic evicted: then
    /// only the position moves. So it does for an event whose conflation has a later value.
    pub(crate) fn restore(&mut self, entry: Arc<Entry>, previous: EventId) -> bool {
        let at = self.order.binary_search_by_key(&entry.id, |&(id, _)| id);
        let is_there = at.is_ok_and(|at| self.order[at].1.is_some());
        let is_outdated =
            entry.conflation.as_ref().is_some_and(|key| self.latest.contains_key(key));
        if is_there || is_outdated {
            self.evicted.restore(previous);
            return true;
        }
        let limit = self.limit();
        let bytes = self.bytes + entry.weight();
        if self.retained() >= limit.events || bytes > limit.bytes {
            if let Some(raised) = &mut self.raised {
                raised.full = true;
            }
            return false;
        }
        if let Some(conflation) = &entry.conflation {
            self.latest.insert(Arc::clone(conflation), entry.id);
        }
        self.bytes = bytes;
        self.has_combined |= !entry.is_for_all_holders();
        for (hash, key) in entry.hashed_keys() {
            let entries = self.index.get_or_default(hash, key);
            let at = entries.partition_point(|&(id, _)| id < entry.id);
            entries.insert(at, (entry.id, Arc::clone(&entry)));
        }
        self.evicted.restore(previous);
        match at {
            Ok(hole) => {
                self.order[hole].1 = Some(entry);
                self.holes -= 1;
            }
            Err(at) => self.order.insert(at, (entry.id, Some(entry))),
        }
        true
    }

    /// Returns to the retention by evicting at most `most` events, so that the lock is held for a
    /// short time. The caller must repeat the call while the log [is raised](Self::is_raised).
    pub(crate) fn lower(&mut self, most: usize, evicted: &mut Vec<Arc<Entry>>) {
        for _ in 0..most {
            if self.retained() <= self.retain.events && self.bytes <= self.retain.bytes {
                self.raised = None;
                self.limit_topics(evicted);
                return;
            }
            self.evict_oldest(evicted);
        }
    }

    fn limit_topics(&mut self, evicted: &mut Vec<Arc<Entry>>) {
        let Some(limit) = self.retain.per_topic else { return };
        let topics = self.index.iter().filter(|(key, _)| matches!(key, Key::Topic(_)));
        let surplus = topics.flat_map(|(_, entries)| {
            entries.iter().take(entries.len().saturating_sub(limit)).map(|&(id, _)| id)
        });
        for id in surplus.collect::<Vec<_>>() {
            self.evict(id, evicted);
        }
    }
}

/// Merges two sequences of positions, each the newest first.
fn newest_first<T>(
    one: impl Iterator<Item = (EventId, T)>,
    other: impl Iterator<Item = (EventId, T)>,
) -> impl Iterator<Item = (EventId, T)> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    iter::from_fn(move || {
        let is_newer = one.peek().map(|&(id, _)| id) >= other.peek().map(|&(id, _)| id);
        if is_newer { one.next() } else { other.next() }
    })
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::log::audience::Audience;
    use crate::log::entry::{Encoded, Prepared};
    use crate::log::identity::Filter;
    use crate::wire::event::Event;

    const KINDS: usize = 6;

    /// Topic `b` has events for all its followers, and events that exclude user `u`.
    fn audience(kind: usize) -> Audience {
        match kind {
            0 => Audience::all(),
            1 => Audience::topic("a"),
            2 => Audience::topic("b"),
            3 => Audience::topic("a").or(Audience::user("u")),
            4 => Audience::topic("a").or(Audience::topic("b")),
            _ => Audience::topic("b").except(Audience::user("u")),
        }
    }

    /// Clients: the topics, whether the user is `u`, and the kinds of events for the client.
    const CLIENTS: [(&[&str], bool, [bool; KINDS]); 4] = [
        (&["a"], false, [true, true, false, true, true, false]),
        (&["b"], true, [true, false, true, true, true, false]),
        (&["b"], false, [true, false, true, false, true, true]),
        (&[], false, [true, false, false, false, false, false]),
    ];

    #[derive(Debug, Clone)]
    enum Op {
        Append { kind: usize, conflates: bool },
        Raise,
        Restore { count: usize },
        Lower { most: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0..KINDS, prop::bool::weighted(0.2))
                .prop_map(|(kind, conflates)| Op::Append { kind, conflates }),
            2 => Just(Op::Raise),
            4 => (1..6usize).prop_map(|count| Op::Restore { count }),
            2 => (1..6usize).prop_map(|most| Op::Lower { most }),
        ]
    }

    struct Model {
        log: Log,
        /// Every appended event, with the kind, and whether the event conflates.
        all: Vec<(Arc<Entry>, usize, bool)>,
    }

    impl Model {
        fn append(&mut self, kind: usize, conflates: bool, hasher: &KeyHasher, now: Instant) {
            let id = EventId::new(1, self.all.len() as u64 + 1);
            let conflation = conflates.then(|| "key".into());
            let sealed = Event::new("n").data("x").seal();
            let event = Encoded { audience: audience(kind), conflation, trace: None, sealed };
            let entry = Prepared::new(event, hasher).into_entry(id, now);
            self.log.append(Arc::clone(&entry), &mut Vec::new());
            self.all.push((entry, kind, conflates));
        }

        fn restore(&mut self, count: usize) {
            for _ in 0..count {
                let at = self.log.whole_from().seq();
                if at == 0 || !self.log.is_raised() {
                    return;
                }
                let (entry, ..) = &self.all[at as usize - 1];
                if !self.log.restore(Arc::clone(entry), EventId::new(1, at - 1)) {
                    return;
                }
            }
        }

        /// Returns whether a later event conflates this one.
        fn is_outdated(&self, at: usize) -> bool {
            let (_, kind, conflates) = self.all[at];
            let later = |(_, other, also): &(_, usize, bool)| *also && *other == kind;
            conflates && self.all[at + 1..].iter().any(later)
        }

        fn check(&self) -> Result<(), TestCaseError> {
            let limit = self.log.limit();
            prop_assert!(self.log.retained() <= limit.events);
            let held = self.log.order.iter().filter_map(|(_, entry)| entry.as_ref());
            prop_assert_eq!(
                self.log.bytes(),
                held.clone().map(|entry| entry.weight()).sum::<usize>()
            );
            prop_assert_eq!(self.log.len(), held.count());
            prop_assert!(self.log.order.iter().is_sorted_by(|(a, _), (b, _)| a < b));
            // Replaced events take no room for ever.
            prop_assert!(self.log.order.len() <= 2 * self.log.retained());
            for (topics, is_u, kinds) in CLIENTS {
                let user = is_u.then(|| Key::User("u".into()));
                let topics = topics.iter().map(|&topic| Key::Topic(topic.into()));
                let keys = [Key::All].into_iter().chain(user).chain(topics);
                let hold = |key| {
                    let hash = self.log.hasher().key(&key);
                    Membership { key, hash, since: EventId::ORIGIN, is_joined: false, index: 0 }
                };
                let memberships: Vec<Membership> = keys.map(hold).collect();
                let client = Identity { memberships: &memberships, filter: &Filter::Everything };
                for after in 0..=self.all.len() {
                    let position = EventId::new(1, after as u64);
                    let expected = (after..self.all.len())
                        .filter(|&at| kinds[self.all[at].1] && !self.is_outdated(at))
                        .map(|at| self.all[at].0.id);
                    let expected: Vec<EventId> = expected.collect();
                    let mut read = Batch::new();
                    self.log.read(
                        position,
                        EventId::LAST,
                        client,
                        Budget { bytes: usize::MAX },
                        &mut read,
                    );
                    let read: Vec<EventId> = read.into_iter().map(|entry| entry.id).collect();
                    match self.log.lost_since(position, client) {
                        None => prop_assert_eq!(read, expected, "after {}", position),
                        Some(lost) => {
                            prop_assert!(position < lost && lost <= self.log.whole_from());
                            let is_there = |id: &EventId| *id <= lost || read.contains(id);
                            prop_assert!(expected.iter().all(is_there), "{expected:?} {read:?}");
                        }
                    }
                }
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn a_reader_gets_every_event_or_a_gap(
            ops in vec(op(), 1..50), events in 1..8usize, per_topic in prop::option::of(1..4usize),
            older in 1..12usize,
        ) {
            let mut retain = Retain::default().events(events).age(None);
            retain.per_topic = per_topic.map(|limit| limit.min(events));
            let (hasher, now) = (KeyHasher::default(), Instant::now());
            let mut model = Model { log: Log::new(retain, RunLimits::default(), EventId::new(1, 0), hasher.clone()), all: vec![] };
            for op in ops {
                match op {
                    Op::Append { kind, conflates } => model.append(kind, conflates, &hasher, now),
                    Op::Raise => model.log.raise(Allowance { events: older, bytes: 1 << 20 }),
                    Op::Restore { count } => model.restore(count),
                    Op::Lower { most } => model.log.lower(most, &mut Vec::new()),
                }
                model.check()?;
            }
            let most = model.all.len() + 1;
            model.log.lower(most, &mut Vec::new());
            prop_assert!(!model.log.is_raised() && model.log.len() <= events);
            for topic in ["a", "b"] {
                let key = Key::Topic(topic.into());
                let kept = model.log.index.get(hasher.key(&key), &key).map_or(0, |kept| kept.len());
                prop_assert!(retain.per_topic.is_none_or(|limit| kept <= limit));
            }
            model.check()?;
        }
    }

    /// Returns an event, with a conflation key or without.
    fn entry(seq: u64, audience: Audience, key: Option<&str>, hasher: &KeyHasher) -> Arc<Entry> {
        let (conflation, sealed) = (key.map(Into::into), Event::new("n").data("x").seal());
        let event = Encoded { audience, conflation, trace: None, sealed };
        Prepared::new(event, hasher).into_entry(EventId::new(1, seq), Instant::now())
    }

    /// Returns an event of topic `a`.
    fn value(seq: u64, key: Option<&str>, hasher: &KeyHasher) -> Arc<Entry> {
        entry(seq, Audience::topic("a"), key, hasher)
    }

    #[test]
    fn a_log_may_be_full_to_the_byte() {
        let hasher = KeyHasher::default();
        let weight = value(1, None, &hasher).weight();
        let retain = Retain::default().bytes(2 * weight).age(None);
        let birth = EventId::new(1, 0);
        let mut log = Log::new(retain, RunLimits::default(), birth, hasher.clone());
        let entries: Vec<_> = (1..=3).map(|id| value(id, None, &hasher)).collect();
        let mut evicted = Vec::new();
        log.append(Arc::clone(&entries[0]), &mut evicted);
        log.append(Arc::clone(&entries[1]), &mut evicted);
        assert!(evicted.is_empty());
        log.append(Arc::clone(&entries[2]), &mut evicted);
        assert_eq!((evicted.len(), log.bytes()), (1, 2 * weight));
        log.raise(Allowance { events: 9, bytes: weight });
        assert!(log.restore(Arc::clone(&entries[0]), birth));
        assert_eq!(log.bytes(), 3 * weight);
    }

    #[test]
    fn only_the_newest_earlier_values_are_seeded() {
        let hasher = KeyHasher::default();
        let birth = EventId::new(1, 10);
        let retain = Retain::default().keep_latest(9);
        let mut log = Log::new(retain, RunLimits::default(), birth, hasher.clone());
        let mut evicted = Vec::new();
        let values = [(5, "k"), (7, "k"), (3, "k"), (7, "k"), (10, "l"), (11, "m")];
        values.into_iter().for_each(|(id, key)| {
            log.seed(value(id, Some(key), &hasher), &mut evicted);
        });
        log.seed(value(4, None, &hasher), &mut evicted);
        let seeded = log.newest_before(EventId::LAST).map(|(id, _)| id.seq());
        assert_eq!(seeded.collect::<Vec<_>>(), [10, 7]);
        assert_eq!(evicted.iter().map(|value| value.id.seq()).collect::<Vec<_>>(), [5]);
        assert_eq!(log.head(), birth);

        // Values that the log never held are from before the log.
        let held = [Membership::of(Key::Topic("a".into()), &hasher)];
        let client = Identity { memberships: &held, filter: &Filter::Everything };
        assert_eq!(log.lost_values(EventId::ORIGIN, client), None);
        log.note_lacking_values();
        assert_eq!(log.lost_values(birth.predecessor(), client), Some(birth));
        assert_eq!(log.lost_values(birth, client), None);
    }

    #[test]
    fn a_lacking_event_of_a_run_counts_as_a_loss() {
        let hasher = KeyHasher::default();
        let (retain, limits) = (Retain::default(), RunLimits::default());
        let mut log = Log::new(retain, limits, EventId::new(1, 0), hasher.clone());
        let held = [Membership::of(Key::Run("r".into()), &hasher)];
        let client = Identity { memberships: &held, filter: &Filter::Everything };
        let (after, lost, evictions) = (EventId::new(1, 0), EventId::new(1, 3), log.evictions());
        assert_eq!(log.lost_since(after, client), None);
        log.note_lacking_run(hasher.key(&held[0].key), lost);
        assert_eq!(log.lost_since(after, client), Some(lost));
        assert_ne!(log.evictions(), evictions, "a client that was told all losses looks again");
    }

    #[test]
    fn events_are_found_before_and_after_positions() {
        let hasher = KeyHasher::default();
        let retain = Retain::default().events(2).age(None);
        let mut log = Log::new(retain, RunLimits::default(), EventId::new(1, 0), hasher.clone());
        let key = Key::Topic("a".into());
        for seq in 1..=2 {
            let id = EventId::new(1, seq);
            log.append(value(seq, None, &hasher), &mut Vec::new());
            let stranger = Identity { memberships: &[], filter: &Filter::Everything };
            assert!(log.had_events(key.clone(), id.predecessor(), stranger));
            assert!(!log.had_events(key.clone(), id, stranger));
        }
        let before = |id: u64| {
            let events = log.newest_before(EventId::new(1, id)).map(|(id, _)| id.seq());
            events.collect::<Vec<_>>()
        };
        assert_eq!([before(1), before(2), before(3)], [vec![], vec![1], vec![2, 1]]);
    }

    #[test]
    fn a_look_for_events_of_another_client_is_bounded() {
        let hasher = KeyHasher::default();
        let retain = Retain::default().events(2 * MOST_MISSED).age(None);
        let start = EventId::new(1, 0);
        let mut log = Log::new(retain, RunLimits::default(), start, hasher.clone());
        let append = |log: &mut Log, seq: usize, audience| {
            log.append(entry(seq as u64, audience, None, &hasher), &mut Vec::new());
        };
        let held = [Membership::of(Key::Topic("a".into()), &hasher)];
        let client = Identity { memberships: &held, filter: &Filter::Everything };
        let other = || Key::User("other".into());
        for seq in 1..=MOST_MISSED {
            append(&mut log, seq, Audience::topic("a"));
        }
        assert!(!log.had_events(other(), start, client));
        append(&mut log, MOST_MISSED + 1, Audience::topic("a").except(Audience::user("u")));
        assert!(log.had_events(other(), start, client), "one event too many to look at");
        assert!(!log.had_events(other(), EventId::new(1, 1), client));
    }

    #[test]
    fn restored_event_takes_its_place_under_a_name() {
        let (hasher, now) = (KeyHasher::default(), Instant::now());
        let mut retain = Retain::default().events(9).age(None);
        retain.per_topic = Some(2);
        let log = Log::new(retain, RunLimits::default(), EventId::new(1, 0), hasher.clone());
        let mut model = Model { log, all: vec![] };
        // For `b`, for `a` or `b`, and twice for `a`: the limit of `a` evicts the second event.
        [2, 4, 1, 1].into_iter().for_each(|kind| model.append(kind, false, &hasher, now));
        model.log.raise(Allowance { events: 9, bytes: 1 << 20 });
        model.restore(1);
        let b = Key::Topic("b".into());
        let under_b = model.log.newest_under(&b);
        assert_eq!(under_b.map(|entry| entry.id.seq()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn missed_event_under_another_name_is_found() {
        let hasher = KeyHasher::default();
        let retain = Retain::default().keep_latest(1).age(None);
        let birth = EventId::new(1, 5);
        let event = |seq: u64| {
            // The index has the session, and not the user.
            let audience = Audience::session("s").and(Audience::user("other"));
            entry(seq, audience, Some("key"), &hasher)
        };
        let held = [Membership::of(Key::Session("s".into()), &hasher)];
        let client = Identity { memberships: &held, filter: &Filter::Everything };
        let append = |log: &mut Log| log.append(event(6), &mut Vec::new());
        let seed = |log: &mut Log| log.seed(event(4), &mut Vec::new());
        let restore = |log: &mut Log| {
            log.raise(Allowance { events: 1, bytes: 1 << 20 });
            assert!(log.restore(event(5), EventId::new(1, 4)));
        };
        let adds: [&dyn Fn(&mut Log); 3] = [&append, &seed, &restore];
        for add in adds {
            let mut log = Log::new(retain, RunLimits::default(), birth, hasher.clone());
            let had_events =
                |log: &Log| log.had_events(Key::User("other".into()), EventId::new(1, 3), client);
            assert!(!had_events(&log));
            add(&mut log);
            assert!(had_events(&log));
        }
    }

    #[test]
    fn only_a_read_of_surplus_events_reaches_back() {
        let (hasher, now) = (KeyHasher::default(), Instant::now());
        let retain = Retain::default().events(2).age(None);
        let birth = EventId::new(1, 0);
        let log = Log::new(retain, RunLimits::default(), birth, hasher.clone());
        let mut model = Model { log, all: vec![] };
        let reaching = |model: &Model| {
            let positions = (0..=model.all.len() as u64).map(|seq| EventId::new(1, seq));
            positions.filter(|&after| model.log.reaches_back(after)).count()
        };
        (0..4).for_each(|_| model.append(0, false, &hasher, now));
        assert_eq!(reaching(&model), 0);
        model.log.raise(Allowance { events: 9, bytes: 1 << 20 });
        // After positions 0 and 1: the events 1 and 2 were evicted, and may come back.
        assert_eq!(reaching(&model), 2);
        model.restore(2);
        assert_eq!((reaching(&model), model.log.len()), (2, 4));
        model.append(0, false, &hasher, now);
        assert_eq!(reaching(&model), 3);
        model.log.lower(9, &mut Vec::new());
        assert_eq!(reaching(&model), 0);
    }

    #[test]
    fn a_raised_log_expires_no_event() {
        let (hasher, now) = (KeyHasher::default(), Instant::now());
        let retain = Retain::default().events(9).age(Duration::from_secs(1));
        let mut model = Model {
            log: Log::new(retain, RunLimits::default(), EventId::new(1, 0), hasher.clone()),
            all: vec![],
        };
        model.append(0, false, &hasher, now);
        model.log.raise(Allowance { events: 1, bytes: 1 });
        model.append(0, false, &hasher, now + Duration::from_secs(5));
        assert_eq!(model.log.len(), 2);
        model.log.lower(1, &mut Vec::new());
        model.log.expire(now + Duration::from_secs(5), &mut Vec::new());
        assert_eq!(model.log.len(), 1);
    }
}
