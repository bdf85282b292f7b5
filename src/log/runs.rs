//! The runs of a hub, by name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::entry::Entry;
use super::hash::{KeyHashes, KeyMap};
use super::key::Key;
use super::retain::RunLimits;
use super::run_log::{self, RunLog};
use crate::error::RunError;
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
    /// The instance of the producer died. A hub without a backplane does not report this state.
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
    /// The bytes that the events of all runs count for.
    bytes: usize,
    /// How many producers the runs had so far.
    serials: u64,
    /// How many runs were started, and how many ended in each state.
    counts: [u64; RunState::COUNT],
}

/// A run, as the hub keeps it.
#[derive(Debug)]
pub(crate) struct RunRecord {
    /// The retained events.
    kept: RunLog,
    hash: u64,
    /// Tells the producer from earlier producers, and from those of another run in the same slot.
    pub(crate) serial: u64,
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
}

impl RunRecord {
    pub(crate) fn is_open(&self) -> bool {
        self.state == RunState::Open
    }

    pub(crate) fn key(&self) -> &Key {
        self.kept.key()
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

/// A run to start.
#[derive(Debug)]
pub(crate) struct NewRun {
    pub(crate) key: Key,
    pub(crate) hash: u64,
    /// The type whose adjacent events are one text, with the hashes of such an event.
    pub(crate) appends: Option<(Box<str>, KeyHashes)>,
    /// An open run of the name gets a new producer.
    pub(crate) takes_over: bool,
}

/// A run that was started or taken over.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) slot: usize,
    pub(crate) serial: u64,
    /// The serial of the producer whose run was taken over.
    pub(crate) superseded: Option<u64>,
    /// Why the run that was taken over must stop.
    pub(crate) stop: Option<Arc<str>>,
}

impl Runs {
    pub(super) fn new(limits: RunLimits) -> Self {
        Self {
            limits,
            runs: Slab::new(),
            names: KeyMap::new(),
            ended: BTreeSet::new(),
            oldest: BTreeSet::new(),
            bytes: 0,
            serials: 0,
            counts: [0; RunState::COUNT],
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

    /// Returns how many runs were started (at the place of [`RunState::Open`]), and how many ended
    /// in each other state.
    pub(crate) fn counts(&self) -> [u64; RunState::COUNT] {
        self.counts
    }

    pub(crate) fn find(&self, hash: u64, key: &Key) -> Option<&RunRecord> {
        self.names.get(hash, key).and_then(|&slot| self.runs.get(slot))
    }

    /// Returns the open run of a producer.
    pub(crate) fn of_producer(&self, slot: usize, serial: u64) -> Result<&RunRecord, RunError> {
        match self.runs.get(slot).filter(|run| run.serial == serial) {
            Some(run) if run.is_open() => Ok(run),
            Some(_) => Err(RunError::Ended),
            // A producer that has ended the run knows. So another producer took the run over.
            None => Err(RunError::Superseded),
        }
    }

    /// Notes that an open run must stop. The first reason counts. Returns the serial of its
    /// producer.
    pub(super) fn stop(
        &mut self,
        hash: u64,
        key: &Key,
        reason: &Arc<str>,
    ) -> Result<u64, RunError> {
        let slot = self.names.get(hash, key).ok_or(RunError::Unknown)?;
        let run = self.runs.get_mut(*slot).ok_or(RunError::Unknown)?;
        if !run.is_open() {
            return Err(RunError::Ended);
        }
        run.stop.get_or_insert_with(|| Arc::clone(reason));
        Ok(run.serial)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RunRecord> {
        self.runs.iter().map(|(_, run)| run)
    }

    /// Starts or takes over a run, whose events come after `begin`. The events of an ended run of
    /// the name move to `freed`.
    pub(super) fn begin_run(
        &mut self,
        new: NewRun,
        begin: EventId,
        now: Instant,
        freed: &mut Vec<RunLog>,
    ) -> Result<Started, RunError> {
        let NewRun { key, hash, appends, takes_over } = new;
        let known = self.names.get(hash, &key).copied();
        let mut lost = EventId::ORIGIN;
        if let Some(slot) = known
            && let Some(run) = self.runs.get_mut(slot)
        {
            if run.is_open() {
                if !takes_over {
                    return Err(RunError::Open);
                }
                self.serials += 1;
                let superseded = Some(run.serial);
                run.serial = self.serials;
                run.kept.set_appends(appends);
                let (serial, stop) = (run.serial, run.stop.clone());
                return Ok(Started { slot, serial, superseded, stop });
            }
            lost = run.last;
            self.remove(slot, freed);
        }
        if self.is_full() {
            return Err(RunError::Full { limit: self.limits.runs });
        }
        self.serials += 1;
        self.counts[RunState::Open as usize] += 1;
        let kept = RunLog::new(key.clone(), appends, self.limits.per_run(), lost);
        let slot = self.runs.insert(RunRecord {
            kept,
            hash,
            serial: self.serials,
            begin,
            last: begin,
            state: RunState::Open,
            started: now,
            ended: None,
            events: 0,
            stop: None,
        });
        *self.names.get_or_default(hash, &key) = slot;
        Ok(Started { slot, serial: self.serials, superseded: None, stop: None })
    }

    /// Whether there are as many runs as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= self.limits.runs
    }

    /// Whether the run of a name exists.
    pub(super) fn knows(&self, hash: u64, key: &Key) -> bool {
        self.names.get(hash, key).is_some()
    }

    /// Appends an event to a run. Returns how many events or texts went for it.
    pub(super) fn append(
        &mut self,
        slot: usize,
        entry: &Arc<Entry>,
        freed: &mut Vec<Arc<Entry>>,
    ) -> u64 {
        let Some(run) = self.runs.get_mut(slot) else { return 0 };
        let (bytes, oldest, lost) = (run.kept.bytes(), run.oldest(slot), run.kept.lost());
        run.kept.append(entry, freed);
        run.last = entry.id;
        run.events += 1;
        let mut dropped = u64::from(run.kept.lost() != lost);
        self.bytes = self.bytes + run.kept.bytes() - bytes;
        let now_oldest = run.oldest(slot);
        self.reorder(oldest, now_oldest);
        while self.bytes > self.limits.bytes
            && let Some(&(_, _, slot)) = self.oldest.first()
            && let Some(run) = self.runs.get_mut(slot)
        {
            let (bytes, oldest) = (run.kept.bytes(), run.oldest(slot));
            run.kept.drop_oldest(freed);
            dropped += 1;
            self.bytes = self.bytes + run.kept.bytes() - bytes;
            let now_oldest = run.oldest(slot);
            self.reorder(oldest, now_oldest);
        }
        dropped
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
    pub(super) fn end(&mut self, slot: usize, state: RunState, now: Instant) {
        let Some(run) = self.runs.get_mut(slot) else { return };
        let oldest = run.oldest(slot);
        (run.state, run.ended) = (state, Some(now));
        let now_oldest = run.oldest(slot);
        self.counts[state as usize] += 1;
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
        if let Some(ended) = run.ended {
            self.ended.remove(&(ended, slot));
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

    /// Returns the most bytes that an event of `weight` bytes can count for.
    pub(crate) const fn most_weight(weight: usize) -> usize {
        run_log::most_weight(weight)
    }
}
