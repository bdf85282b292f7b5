//! The runs of a hub, by name.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::audience::Audience;
use super::entry::{Encoded, Entry};
use super::hash::{KeyHashes, KeyMap};
use super::key::Key;
use super::producer::{InstanceId, ProducerAt, ProducerId};
use super::retain::RunLimits;
use super::run_log::{self, RunLog};
use crate::error::RunError;
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// Whether a run goes on, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunState {
    /// The run has a producer.
    Open,
    /// The producer [finished](crate::Run::finish) the run.
    Finished,
    /// The producer reported a [failure](crate::Run::fail).
    Failed,
    /// The run was [stopped](crate::Hub::stop_run), and the producer ended the run.
    Stopped,
    /// The producer was dropped without an end: its task panicked, or was aborted.
    Abandoned,
    /// The instance of the producer died, or the order was replaced without the run. A hub without
    /// a backplane does not report this state.
    Lost,
}

impl RunState {
    /// Every state, in the order of the variants. Later versions may add states.
    pub const ALL: &'static [Self] =
        &[Self::Open, Self::Finished, Self::Failed, Self::Stopped, Self::Abandoned, Self::Lost];

    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Returns the word for this state. For the end of a run, `hub:run-end` carries the word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Abandoned => "abandoned",
            Self::Lost => "lost",
        }
    }
}

/// The runs, open or ended, and their events.
#[derive(Debug)]
pub(crate) struct Runs {
    limits: RunLimits,
    runs: Slab<RunRecord>,
    names: KeyMap<usize>,
    /// The ended runs by the time of the end.
    ended: BTreeSet<(Instant, usize)>,
    /// The oldest retained event of each run; those of ended runs come first.
    oldest: BTreeSet<(bool, EventId, usize)>,
    /// How many open runs have a producer on each instance.
    instances: HashMap<InstanceId, usize>,
    instance_changes: u64,
    /// The starts that can have an effect, as copies of runs say.
    decided: Option<Box<Decided>>,
    /// The bytes that the events of all runs count for.
    bytes: usize,
}

/// A run, as the hub keeps it.
#[derive(Debug)]
pub(crate) struct RunRecord {
    /// The retained events.
    kept: RunLog,
    hash: u64,
    /// Tells the producer from earlier producers, and from those of another run in the same slot.
    pub(crate) producer: ProducerId,
    /// The position before the first event.
    pub(crate) begin: EventId,
    /// The newest event; `begin` before the first.
    pub(crate) last: EventId,
    pub(crate) state: RunState,
    pub(crate) started: Instant,
    pub(crate) ended: Option<Instant>,
    /// How many events were published.
    pub(crate) events: u64,
    /// Why the run must stop.
    pub(crate) stop: Option<Arc<str>>,
    is_gone: bool,
    /// This instance has reported the run as lost, and the report has not come back.
    is_reported_lost: bool,
}

impl RunRecord {
    pub(crate) fn is_open(&self) -> bool {
        self.state == RunState::Open
    }

    /// Whether the order was replaced, and the new order does not have the run. A run that is gone
    /// takes no events: it can only end, for its readers.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(crate) fn key(&self) -> &Key {
        self.kept.key()
    }

    /// Returns the name.
    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        match self.key() {
            Key::Run(name) => Some(Arc::clone(name)),
            _ => None,
        }
    }

    /// Returns the hash of the key.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the bytes that the retained events count for.
    pub(crate) fn bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// Returns the newest dropped event, of this run or of the run that had the name before;
    /// `ORIGIN` if there is none.
    pub(crate) fn lost(&self) -> EventId {
        self.kept.lost()
    }

    pub(super) fn kept(&self) -> &RunLog {
        &self.kept
    }

    /// Returns the key of the run's oldest event in [`Runs::oldest`].
    fn oldest(&self, slot: usize) -> Option<(bool, EventId, usize)> {
        self.kept.first().map(|first| (self.is_open(), first, slot))
    }
}

/// The starts that can have an effect up to a position, which copies of runs decide: the log began
/// within the order, and does not know which runs were open before.
#[derive(Debug)]
pub(crate) struct Decided {
    /// Up to here, no start of a name without a copy has an effect.
    pub(crate) upto: EventId,
    /// The position up to which each copy decides, and the starts of the copy.
    pub(crate) copies: HashMap<Key, (EventId, Vec<EventId>)>,
}

impl Decided {
    /// Returns whether a start can have an effect.
    pub(crate) fn admits(&self, key: &Key, id: EventId) -> bool {
        match self.copies.get(key) {
            Some((upto, starts)) => id > *upto || starts.contains(&id),
            None => id > self.upto,
        }
    }

    /// Returns whether the copies say nothing about an event: the event may be of a run that ended
    /// before the run of the copy began.
    pub(crate) fn lacks(&self, key: &Key, id: EventId) -> bool {
        match self.copies.get(key) {
            Some((upto, starts)) => id <= *upto && starts.first().is_none_or(|&first| id < first),
            None => id <= self.upto,
        }
    }
}

/// A run to start.
#[derive(Debug)]
pub(crate) struct NewRun {
    pub(crate) key: Key,
    pub(crate) hash: u64,
    pub(crate) producer: ProducerId,
    /// The type whose adjacent events are one text, with the hashes of such an event.
    pub(crate) appends: Option<(Box<str>, KeyHashes)>,
    /// An open run of the name gets a new producer.
    pub(crate) takes_over: bool,
}

/// A run that was started or taken over.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) slot: usize,
    /// The producer whose run was taken over.
    pub(crate) superseded: Option<ProducerId>,
    /// Why the run that was taken over must stop.
    pub(crate) stop: Option<Arc<str>>,
    /// Events of the run that had the name may be missing, and the readers are not told yet.
    pub(crate) lacks: bool,
}

impl Runs {
    pub(super) fn new(limits: RunLimits) -> Self {
        Self {
            limits,
            runs: Slab::new(),
            names: KeyMap::new(),
            ended: BTreeSet::new(),
            oldest: BTreeSet::new(),
            instances: HashMap::new(),
            instance_changes: 0,
            decided: None,
            bytes: 0,
        }
    }

    /// Returns the number of runs, open or ended.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Returns the number of open runs.
    pub(crate) fn open(&self) -> usize {
        self.runs.len() - self.ended.len()
    }

    /// Whether a run has ended that is not forgotten.
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Returns the bytes that the events of all runs count for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the instances with producers of open runs.
    pub(crate) fn instances(&self) -> impl Iterator<Item = InstanceId> {
        self.instances.keys().copied()
    }

    /// Returns how often the [instances](Self::instances) have changed.
    pub(crate) fn instance_changes(&self) -> u64 {
        self.instance_changes
    }

    pub(crate) fn find(&self, hash: u64, key: &Key) -> Option<&RunRecord> {
        self.names.get(hash, key).and_then(|&slot| self.runs.get(slot))
    }

    /// Returns the open run of a producer.
    pub(crate) fn of_producer(
        &self,
        hash: u64,
        key: &Key,
        producer: ProducerId,
    ) -> Result<&RunRecord, RunError> {
        self.slot_of(hash, key, producer).map(|slot| &self.runs[slot])
    }

    /// Returns the slot of the open run of a producer.
    pub(super) fn slot_of(
        &self,
        hash: u64,
        key: &Key,
        producer: ProducerId,
    ) -> Result<usize, RunError> {
        let slot = self.names.get(hash, key).copied();
        match slot.and_then(|slot| Some((slot, self.runs.get(slot)?))) {
            Some((slot, run)) if run.producer == producer => {
                if run.is_open() {
                    Ok(slot)
                } else {
                    Err(RunError::Ended)
                }
            }
            // A producer that has ended the run knows. So another producer took the run over.
            _ => Err(RunError::Superseded),
        }
    }

    /// Returns the slot of the open run of a producer, if the run takes an event. `is_loss`: the
    /// event is the end as lost, which a run that is gone takes, too.
    pub(super) fn slot_for_event(
        &self,
        run: (u64, &Key),
        producer: ProducerAt,
        is_loss: bool,
    ) -> Result<usize, RunError> {
        // The run of another producer may be in the slot by now.
        let is_there = |&slot: &usize| {
            self.runs.get(slot).is_some_and(|run| run.producer == producer.id && run.is_open())
        };
        let slot = match producer.slot.filter(is_there) {
            Some(slot) => slot,
            None => self.slot_of(run.0, run.1, producer.id)?,
        };
        if self.runs[slot].is_gone && !is_loss { Err(RunError::Lost) } else { Ok(slot) }
    }

    /// Notes that an open run must stop. The first reason counts. Returns the producer.
    pub(super) fn stop(
        &mut self,
        hash: u64,
        key: &Key,
        reason: &Arc<str>,
    ) -> Result<ProducerId, RunError> {
        let slot = self.names.get(hash, key).ok_or(RunError::Unknown)?;
        let run = self.runs.get_mut(*slot).ok_or(RunError::Unknown)?;
        if !run.is_open() || run.is_gone {
            return Err(RunError::Ended);
        }
        run.stop.get_or_insert_with(|| Arc::clone(reason));
        Ok(run.producer)
    }

    /// Returns the open runs of an instance that are not reported as lost yet.
    pub(crate) fn of_instance(&self, instance: InstanceId) -> impl Iterator<Item = &RunRecord> {
        self.iter().filter(move |run| {
            run.is_open() && run.producer.instance == instance && !run.is_reported_lost
        })
    }

    /// Notes that the open run of a producer is reported as lost.
    pub(super) fn note_reported_lost(&mut self, hash: u64, key: &Key, producer: ProducerId) {
        if let Some(slot) = self.names.get(hash, key)
            && let Some(run) = self.runs.get_mut(*slot).filter(|run| run.producer == producer)
        {
            run.is_reported_lost = true;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RunRecord> {
        self.runs.iter().map(|(_, run)| run)
    }

    /// Sets the starts that can have an effect.
    pub(super) fn decide(&mut self, decided: Decided) {
        self.decided = Some(Box::new(decided));
    }

    /// Returns whether a start of the order can have an effect.
    pub(crate) fn admits_start(&self, key: &Key, id: EventId) -> bool {
        self.decided.as_ref().is_none_or(|decided| decided.admits(key, id))
    }

    /// Returns whether the copies of runs say nothing about an event: see [`Decided::lacks`].
    pub(super) fn lacks(&self, key: &Key, id: EventId) -> bool {
        self.decided.as_ref().is_some_and(|decided| decided.lacks(key, id))
    }

    /// Notes that the log lacks an event. Returns `false` if no run that is gone has the name.
    pub(super) fn note_lacking_in_gone(&mut self, hash: u64, key: &Key, id: EventId) -> bool {
        let run = self.names.get(hash, key).and_then(|&slot| self.runs.get_mut(slot));
        let Some(run) = run.filter(|run| run.is_gone && run.is_open()) else { return false };
        run.last = id;
        true
    }

    /// Returns an error if a start has no effect now.
    pub(crate) fn may_start(&self, hash: u64, key: &Key, takes_over: bool) -> Result<(), RunError> {
        match self.find(hash, key).filter(|run| run.is_open() && !run.is_gone) {
            Some(_) if takes_over => Ok(()),
            Some(_) => Err(RunError::Open),
            None if self.open() < self.limits.runs => Ok(()),
            None => Err(RunError::Full { limit: self.limits.runs }),
        }
    }

    /// Starts or takes over a run, whose events come after `begin`. The events of an ended run of
    /// the name move to `freed`.
    pub(super) fn begin_run(
        &mut self,
        new: NewRun,
        begin: EventId,
        now: Instant,
        freed: &mut Vec<RunLog>,
    ) -> Result<Begun, RunError> {
        let NewRun { key, hash, producer, appends, takes_over } = new;
        let known = self.names.get(hash, &key).copied();
        let (mut lost, mut lacks) = (EventId::ORIGIN, false);
        if let Some(slot) = known
            && let Some(run) = self.runs.get_mut(slot)
        {
            if run.is_open() && !run.is_gone {
                if !takes_over {
                    return Err(RunError::Open);
                }
                let superseded = mem::replace(&mut run.producer, producer);
                run.kept.set_appends(appends);
                run.is_reported_lost = false;
                let stop = run.stop.clone();
                self.count(superseded.instance, false);
                self.count(producer.instance, true);
                return Ok(Begun { slot, superseded: Some(superseded), stop, lacks: false });
            }
            lacks = run.is_gone && run.last > run.kept.lost();
            lost = run.last;
            self.remove(slot, freed);
        }
        if self.is_full() {
            return Err(RunError::Full { limit: self.limits.runs });
        }
        let kept = RunLog::new(key.clone(), appends, self.limits.per_run(), lost);
        let slot = self.runs.insert(RunRecord {
            kept,
            hash,
            producer,
            begin,
            last: begin,
            state: RunState::Open,
            started: now,
            ended: None,
            events: 0,
            stop: None,
            is_gone: false,
            is_reported_lost: false,
        });
        *self.names.get_or_default(hash, &key) = slot;
        self.count(producer.instance, true);
        Ok(Begun { slot, superseded: None, stop: None, lacks })
    }

    /// Takes the open runs that these runs lack from the runs of a replaced order. They are gone,
    /// and have lost all events up to `floor`.
    pub(super) fn take_gone(&mut self, old: &mut Self, floor: EventId, freed: &mut Vec<RunLog>) {
        for (_, mut run) in mem::take(&mut old.runs) {
            let is_known = self.knows(run.hash, run.kept.key());
            if !run.is_open() || is_known || self.is_full() {
                freed.push(run.kept);
                continue;
            }
            let (key, hash) = (run.kept.key().clone(), run.hash);
            let empty = RunLog::new(key.clone(), None, self.limits.per_run(), floor);
            freed.push(mem::replace(&mut run.kept, empty));
            (run.last, run.is_gone, run.is_reported_lost) = (floor, true, false);
            self.count(run.producer.instance, true);
            *self.names.get_or_default(hash, &key) = self.runs.insert(run);
        }
        *old = Self::new(self.limits);
    }

    /// Counts an open run of an instance, or uncounts it.
    fn count(&mut self, instance: InstanceId, is_more: bool) {
        let open = self.instances.entry(instance).or_default();
        let before = *open;
        *open = if is_more { before + 1 } else { before.saturating_sub(1) };
        if before == 0 || *open == 0 {
            self.instance_changes += 1;
        }
        if *open == 0 {
            self.instances.remove(&instance);
        }
    }

    /// Whether there are as many runs as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= self.limits.runs
    }

    /// Whether the run of a name exists.
    pub(super) fn knows(&self, hash: u64, key: &Key) -> bool {
        self.names.get(hash, key).is_some()
    }

    /// Appends an event to a run. Returns whether the run keeps the entry, and how many events or
    /// texts went for the event.
    pub(super) fn append(
        &mut self,
        slot: usize,
        entry: &Arc<Entry>,
        freed: &mut Vec<Arc<Entry>>,
    ) -> (bool, u64) {
        let lost = self.runs.get(slot).map(|run| run.kept.lost());
        let mut is_kept = false;
        self.change(slot, |run| {
            is_kept = run.kept.append(entry, freed);
            run.last = entry.id;
            run.events += 1;
        });
        let now_lost = self.runs.get(slot).map(|run| run.kept.lost());
        let mut dropped = u64::from(now_lost != lost);
        while self.bytes > self.limits.bytes
            && let Some(&(_, _, slot)) = self.oldest.first()
        {
            self.change(slot, |run| {
                run.kept.drop_oldest(freed);
            });
            dropped += 1;
        }
        (is_kept, dropped)
    }

    /// Notes that the events of a run up to `lost` are dropped.
    pub(super) fn lose(
        &mut self,
        hash: u64,
        key: &Key,
        lost: EventId,
        freed: &mut Vec<Arc<Entry>>,
    ) {
        if let Some(&slot) = self.names.get(hash, key) {
            self.change(slot, |run| run.kept.lose(lost, freed));
        }
    }

    /// Changes the events of a run.
    fn change(&mut self, slot: usize, change: impl FnOnce(&mut RunRecord)) {
        let Some(run) = self.runs.get_mut(slot) else { return };
        let (bytes, oldest) = (run.kept.bytes(), run.oldest(slot));
        change(run);
        self.bytes = self.bytes + run.kept.bytes() - bytes;
        let now_oldest = run.oldest(slot);
        self.reorder(oldest, now_oldest);
    }

    fn reorder(
        &mut self,
        before: Option<(bool, EventId, usize)>,
        now: Option<(bool, EventId, usize)>,
    ) {
        if before != now {
            if let Some(before) = before {
                self.oldest.remove(&before);
            }
            self.oldest.extend(now);
        }
    }

    /// Ends an open run.
    pub(super) fn end(&mut self, hash: u64, key: &Key, state: RunState, now: Instant) {
        let Some(&slot) = self.names.get(hash, key) else { return };
        let Some(run) = self.runs.get_mut(slot) else { return };
        let oldest = run.oldest(slot);
        (run.state, run.ended) = (state, Some(now));
        let now_oldest = run.oldest(slot);
        let instance = run.producer.instance;
        self.count(instance, false);
        self.ended.insert((now, slot));
        self.reorder(oldest, now_oldest);
    }

    /// Forgets the run that ended first, if `must_go` or its time is over at `now`. Returns the
    /// hash of the run and its last event.
    pub(super) fn forget_first(
        &mut self,
        must_go: bool,
        now: Instant,
        freed: &mut Vec<RunLog>,
    ) -> Option<(u64, EventId)> {
        let &(ended, slot) = self.ended.first()?;
        if !must_go && now.saturating_duration_since(ended) < self.limits.keep {
            return None;
        }
        self.remove(slot, freed)
    }

    fn remove(&mut self, slot: usize, freed: &mut Vec<RunLog>) -> Option<(u64, EventId)> {
        let run = self.runs.try_remove(slot)?;
        if let Some(oldest) = run.oldest(slot) {
            self.oldest.remove(&oldest);
        }
        match run.ended {
            Some(ended) => drop(self.ended.remove(&(ended, slot))),
            // A run that is gone makes room for a new run of the name.
            None => self.count(run.producer.instance, false),
        }
        self.names.remove(run.hash, run.key());
        self.bytes -= run.kept.bytes();
        if self.runs.is_empty() {
            // A slab cannot move its elements, so the room of a peak is freed once all are gone.
            self.runs = Slab::new();
        }
        let forgotten = (run.hash, run.last);
        freed.push(run.kept);
        Some(forgotten)
    }

    /// Checks and encodes an event of a run, which may count for at most `limit` bytes. `audience`:
    /// the readers of the run. Returns the idempotency key, too.
    #[inline]
    pub(crate) fn encode(
        audience: Audience,
        mut event: Event,
        limit: usize,
    ) -> Result<(Encoded, Option<Box<str>>), RunError> {
        event.check_for_hub()?;
        let (conflation, key) = event.take_keys();
        // The parts of a run carry no trace.
        let event = Encoded { audience, conflation, trace: None, sealed: event.seal() };
        let bytes = run_log::most_weight(event.max_weight());
        if bytes > limit {
            return Err(RunError::TooLarge { bytes, limit });
        }
        Ok((event, key))
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;
    use crate::log::hash::KeyHasher;

    #[test]
    fn copies_decide_up_to_their_positions() {
        let id = |seq| EventId::new(1, seq);
        let key = |name: &str| Key::Run(name.into());
        let copies =
            [(key("copied"), (id(8), vec![id(3), id(6)])), (key("empty"), (id(8), vec![]))];
        let decided = Decided { upto: id(10), copies: copies.into_iter().collect() };
        let all = |is: &dyn Fn(&Key, EventId) -> bool, name| {
            (1..=12).filter(|&seq| is(&key(name), id(seq))).collect::<Vec<_>>()
        };
        let starts = |name| all(&|key, id| decided.admits(key, id), name);
        assert_eq!(starts("copied"), [3, 6, 9, 10, 11, 12]);
        assert_eq!(starts("empty"), [9, 10, 11, 12]);
        assert_eq!(starts("unknown"), [11, 12]);
        let lacking = |name| all(&|key, id| decided.lacks(key, id), name);
        assert_eq!(lacking("copied"), [1, 2]);
        assert_eq!(lacking("empty"), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(lacking("unknown"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn only_a_run_that_is_gone_notes_an_event_that_the_log_lacks() {
        let (hasher, key, id) =
            (KeyHasher::default(), Key::Run("r".into()), |seq| EventId::new(1, seq));
        let hash = hasher.key(&key);
        let producer = ProducerId { instance: InstanceId::from_bytes([1; 8]), serial: 1 };
        let new = NewRun { key: key.clone(), hash, producer, appends: None, takes_over: false };
        let mut before = Runs::new(RunLimits::default());
        before.begin_run(new, id(1), Instant::now(), &mut Vec::new()).unwrap();
        assert!(!before.note_lacking_in_gone(hash, &key, id(2)));
        let mut runs = Runs::new(RunLimits::default());
        runs.take_gone(&mut before, id(3), &mut Vec::new());
        assert!(runs.note_lacking_in_gone(hash, &key, id(4)));
    }
}
