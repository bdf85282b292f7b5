//! The parts of runs, applied at their place in the order.
//!
//! A hub alone applies a part at once. A hub with a backplane sends the part, and every instance
//! applies the part when the part comes back. The state of a run is a function of the parts before,
//! so all instances agree on the producer of a run: see
//! [`RunPartKind`](crate::backplane::RunPartKind).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::incoming::{Aged, RunCopy};
use super::reading;
use super::shared::{Order, Shared};
use crate::core::deferred::Work;
use crate::core::run::{Producer, Told};
use crate::core::state::State;
use crate::error::RunError;
use crate::log::audience::Audience;
use crate::log::codec::{Received, RunAction, RunEntry};
use crate::log::entry::{Encoded, Prepared};
use crate::log::hash::KeyHashes;
use crate::log::key::Key;
use crate::log::log::Log;
use crate::log::producer::{InstanceId, ProducerId};
use crate::log::runs::{Begun, Decided, NewRun, RunRecord, RunState};
use crate::wire::frame;
use crate::wire::id::EventId;

/// A part of a run of the order, checked and ready to be applied under the locks.
#[derive(Debug)]
pub(super) struct Part {
    id: EventId,
    at: Instant,
    key: Key,
    hash: u64,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Start { producer: ProducerId, takes_over: bool, appends: Option<(Box<str>, KeyHashes)> },
    Event { producer: ProducerId, event: Prepared },
    Stop { reason: Arc<str> },
    End { producer: ProducerId, end: RunState, event: Prepared },
}

impl Part {
    /// Returns `None` if the name is invalid here: the hub that sent the part has other limits.
    pub(super) fn new(shared: &Shared, id: EventId, at: Instant, entry: RunEntry) -> Option<Self> {
        let RunEntry { name, action } = entry;
        let key = Key::Run(Arc::clone(&name));
        key.check(shared.config.limits.name_len).ok()?;
        let action = match action {
            RunAction::Start { producer, takes_over, appends } => {
                let appends = appends.map(|event_type| texts(shared, &key, event_type));
                Action::Start { producer, takes_over, appends }
            }
            RunAction::Event { producer, conflation, sealed } => {
                let event =
                    Encoded { audience: Audience::run(name), conflation, trace: None, sealed };
                Action::Event { producer, event: Prepared::new(event, &shared.hasher) }
            }
            RunAction::Stop { reason } => Action::Stop { reason },
            RunAction::End { producer, state } => {
                Action::End { producer, end: state, event: end_event(shared, name, state) }
            }
        };
        let hash = shared.hasher.key(&key);
        Some(Self { id, at, key, hash, action })
    }
}

/// Adds the hashes of an event to a type whose adjacent events are one text.
pub(super) fn texts(shared: &Shared, run: &Key, event_type: Box<str>) -> (Box<str>, KeyHashes) {
    let hashes = shared.hasher.hashes(std::slice::from_ref(run), event_type.as_bytes());
    (event_type, hashes)
}

/// Returns the last event of a run.
pub(super) fn end_event(shared: &Shared, name: Arc<str>, end: RunState) -> Prepared {
    let sealed = frame::run_end(&name, end.as_str());
    let event = Encoded { audience: Audience::run(name), conflation: None, trace: None, sealed };
    Prepared::new(event, &shared.hasher)
}

/// The state of a run that has ended, and the number of its events.
pub(super) type Ended = (RunState, u64);

/// Applies a part of the order. Returns the run that the part has ended.
pub(super) fn apply(
    shared: &Shared,
    order: &mut Order,
    part: Part,
    work: &mut Work<'_>,
) -> Option<Ended> {
    let Part { id, key, hash, action, .. } = part;
    let is_event = matches!(action, Action::Event { .. } | Action::End { .. });
    let applied = match action {
        Action::Start { producer, takes_over, appends } => {
            let new = NewRun { key: key.clone(), hash, producer, appends, takes_over };
            let mut state = shared.state.lock();
            if state.log.runs().admits_start(&new.key, id) {
                drop(state);
                start(shared, new, id, work).map(|_| None)
            } else {
                refuse(&mut state, &new.key, producer, RunError::Open, work);
                Err(RunError::Open)
            }
        }
        Action::Event { producer, event } => {
            shared.put_in_run(order, id, producer.into(), event, false, work).map(|_| None)
        }
        Action::Stop { reason } => {
            let mut state = shared.state.lock();
            state.log.pass(id);
            stop(&mut state, hash, &key, &reason, work).map(|()| None)
        }
        Action::End { producer, end: state, event } => {
            end(shared, order, id, producer, state, event, work).map(Some)
        }
    };
    order.last = id;
    applied.unwrap_or_else(|_| {
        let mut state = shared.state.lock();
        // A part without an effect takes a place in the order, too.
        state.log.pass(id);
        if is_event && state.log.note_ineffective(hash, &key, id) {
            // Now, because the gap must come before the next event.
            reading::note_loss(&mut state, &key, work);
        }
        None
    })
}

/// Starts a run, or takes an open run over. The events come after `begin`. Returns the slot of the
/// run.
pub(super) fn start(
    shared: &Shared,
    new: NewRun,
    begin: EventId,
    work: &mut Work<'_>,
) -> Result<usize, RunError> {
    let key = new.key.clone();
    let mut state = shared.state.lock();
    state.log.pass(begin);
    let Begun { slot, superseded, lacks, .. } = begin_run(&mut state, new, begin, work.now, work)?;
    state.counts.runs[RunState::Open as usize] += u64::from(superseded.is_none());
    if lacks {
        reading::note_loss(&mut state, &key, work);
    }
    if shared.config.run_wait.is_some() {
        reading::note_start(&shared.state, state, &key);
    }
    Ok(slot)
}

/// Starts a run, or takes an open run over, and tells the producers of this instance.
fn begin_run(
    state: &mut State,
    new: NewRun,
    begin: EventId,
    at: Instant,
    work: &mut Work<'_>,
) -> Result<Begun, RunError> {
    let (producer, key) = (new.producer, new.key.clone());
    let changes = state.log.runs().instance_changes();
    match state.log.start_run(new, begin, at, &mut work.forgotten) {
        Ok(begun) => {
            if let Some(older) = begun.superseded.and_then(|older| take_own(state, older)) {
                work.tell(older, Told::Over(RunError::Superseded, "superseded".into()));
            }
            if let Some(own) = own(state, producer) {
                work.tell(Arc::clone(own), Told::Started);
                if let Some(reason) = &begun.stop {
                    work.tell(Arc::clone(own), Told::Stop(Arc::clone(reason)));
                }
            }
            note_instances(state, changes, work);
            Ok(begun)
        }
        Err(error) => {
            refuse(state, &key, producer, error, work);
            Err(error)
        }
    }
}

/// Tells a producer of this instance that the start was refused.
fn refuse(
    state: &mut State,
    key: &Key,
    producer: ProducerId,
    error: RunError,
    work: &mut Work<'_>,
) {
    let Some(own) = take_own(state, producer) else { return };
    if let (RunError::Full { .. }, Key::Run(name)) = (error, key) {
        // Instances with room have started the run.
        work.send_run_end(Arc::clone(name), producer, RunState::Abandoned);
    }
    work.tell(own, Told::Over(error, "refused".into()));
}

/// Asks the producer of a run to stop.
pub(super) fn stop(
    state: &mut State,
    hash: u64,
    key: &Key,
    reason: &Arc<str>,
    work: &mut Work<'_>,
) -> Result<(), RunError> {
    let producer = state.log.stop_run(hash, key, reason)?;
    if let Some(own) = own(state, producer) {
        work.tell(Arc::clone(own), Told::Stop(Arc::clone(reason)));
    }
    Ok(())
}

/// Ends the run of a producer. `event`: the last event. Returns how many events the run had.
pub(super) fn end(
    shared: &Shared,
    order: &mut Order,
    id: EventId,
    producer: ProducerId,
    end: RunState,
    event: Prepared,
    work: &mut Work<'_>,
) -> Result<Ended, RunError> {
    let (hash, key) = event.first_key().ok_or(RunError::Unknown)?;
    let key = key.clone();
    shared.put_in_run(order, id, producer.into(), event, end == RunState::Lost, work)?;
    let mut state = shared.state.lock();
    let events = state.log.runs().of_producer(hash, &key, producer)?.events;
    end_run(&mut state, hash, &key, producer, end, work.now, work);
    state.counts.runs[end as usize] += 1;
    shared.has_ended_runs.store(true, Ordering::Relaxed);
    reading::complete(&shared.state, state, &key, end, work);
    Ok((end, events))
}

/// Ends the run of a producer, and tells a producer of this instance.
fn end_run(
    state: &mut State,
    hash: u64,
    key: &Key,
    producer: ProducerId,
    end: RunState,
    at: Instant,
    work: &mut Work<'_>,
) {
    let changes = state.log.runs().instance_changes();
    state.log.end_run(hash, key, end, at);
    if let Some(own) = take_own(state, producer) {
        let error = if end == RunState::Lost { RunError::Lost } else { RunError::Ended };
        work.tell(own, Told::Over(error, end.as_str().into()));
    }
    note_instances(state, changes, work);
}

/// The runs of a loaded part of the order.
pub(super) struct Replay {
    /// The parts of the copies and of the tail, in order.
    parts: Vec<Part>,
    /// The end of the tail.
    head: EventId,
    /// The newest dropped event of each copy.
    lost: Vec<(u64, Key, EventId)>,
    decided: Option<Decided>,
    /// The starts of the tail that have no effect.
    refused: Vec<(Key, ProducerId)>,
    /// The events of the tail that may be of a run from before the run of the copy.
    lacking: Vec<(u64, EventId)>,
}

impl Replay {
    /// `runs`: the copies of the runs, if the engine keeps copies. `tail`: the part of the order,
    /// which ends at `head`.
    pub(super) fn new(
        shared: &Shared,
        runs: Option<(EventId, Vec<RunCopy>)>,
        tail: Vec<Aged>,
        head: EventId,
        now: Instant,
    ) -> Self {
        let part = |(id, age, received): Aged| match received {
            Received::Run(entry) => {
                Part::new(shared, id, now.checked_sub(age).unwrap_or(now), entry)
            }
            _ => None,
        };
        let mut replay = Self {
            parts: Vec::new(),
            head,
            lost: Vec::new(),
            decided: None,
            refused: Vec::new(),
            lacking: Vec::new(),
        };
        let tail = tail.into_iter().filter_map(part);
        let Some((upto, copies)) = runs else {
            replay.parts.extend(tail);
            return replay;
        };
        let mut decided = Decided { upto, copies: HashMap::new() };
        for RunCopy { upto, entries, lost } in copies {
            let parts: Vec<Part> = entries.into_iter().filter_map(part).collect();
            let Some(Part { key, hash, .. }) = parts.first() else { continue };
            replay.lost.push((*hash, key.clone(), lost));
            // A start of the copy without an effect is refused at its place: the run is open there.
            let starts = parts.iter().filter(|part| matches!(part.action, Action::Start { .. }));
            let starts = starts.map(|part| part.id).collect();
            decided.copies.insert(key.clone(), (upto, starts));
            replay.parts.extend(parts);
        }
        for part in tail {
            let known = decided.copies.get(&part.key).map_or(decided.upto, |&(upto, _)| upto);
            match part.action {
                _ if part.id > known => replay.parts.push(part),
                Action::Start { producer, .. } if !decided.admits(&part.key, part.id) => {
                    replay.refused.push((part.key, producer));
                }
                Action::Event { .. } | Action::End { .. } if decided.lacks(&part.key, part.id) => {
                    replay.lacking.push((part.hash, part.id));
                }
                _ => {}
            }
        }
        replay.parts.sort_by_key(|part| part.id);
        replay.decided = Some(decided);
        replay
    }

    /// Puts the runs into a new log. Open runs of the `old` log that the new log lacks are gone.
    pub(super) fn apply(
        self,
        state: &mut State,
        old: &mut Log,
        floor: EventId,
        work: &mut Work<'_>,
    ) {
        // The hub ignores entries up to its floor, also if the engine begins before. Later entries
        // come by `append`.
        let head = self.head.max(floor);
        for part in self.parts.into_iter().filter(|part| part.id <= head) {
            replay(state, part, work);
        }
        for (hash, key, lost) in self.lost {
            state.log.lose_in_run(hash, &key, lost.min(head), &mut work.evicted);
        }
        for (key, producer) in self.refused {
            refuse(state, &key, producer, RunError::Open, work);
        }
        for (run, id) in self.lacking {
            state.log.note_lacking_run(run, id);
        }
        state.log.take_gone_runs(old, floor, &mut work.forgotten);
        state.log.forget_runs(work.now, &mut work.forgotten);
        self.decided.into_iter().for_each(|decided| state.log.decide_runs(decided));
        work.note_runs_changed();
    }
}

/// Applies a part to a log that is not read yet: nothing is handed out.
fn replay(state: &mut State, part: Part, work: &mut Work<'_>) {
    let Part { id, at, key, hash, action } = part;
    match action {
        Action::Start { producer, takes_over, appends } => {
            let new = NewRun { key, hash, producer, appends, takes_over };
            // An error has been told.
            let _ = begin_run(state, new, id, at, work);
        }
        Action::Event { producer, event } => {
            let entry = event.into_entry(id, at);
            // An event without an effect: the run has another producer.
            let _ = state.log.append_to_run(producer.into(), &entry, false, &mut work.evicted);
        }
        Action::Stop { reason } => drop(stop(state, hash, &key, &reason, work)),
        Action::End { producer, end, event } => {
            let entry = event.into_entry(id, at);
            if state.log.append_to_run(producer.into(), &entry, false, &mut work.evicted).is_ok() {
                end_run(state, hash, &key, producer, end, at, work);
            }
        }
    }
}

/// Ends the runs that the loaded part of the order has lost. No lock may be held, and the producers
/// must have been told about the replayed parts.
///
/// Every instance sends the end of each run that is gone, for the readers: another instance may
/// have read an end that this instance never reads. A producer of this instance without a run is
/// told. A run of this instance without a producer ends, too: the order went back to before the
/// end, or before a takeover.
pub(super) fn reconcile(shared: &Shared, is_first: bool) {
    let mut work = Work::begin(&shared.config);
    let (head, over, lacking) = {
        let state = shared.state.lock();
        let runs = state.log.runs();
        let is_over = |run: &&RunRecord| {
            let is_own = run.producer.instance == shared.instance;
            let has_producer = state.producers.contains_key(&run.producer.serial);
            run.is_open() && (run.is_gone() || is_own && !has_producer)
        };
        let over = runs.iter().filter(is_over);
        let over: Vec<_> =
            over.filter_map(|run| Some((run.shared_name()?, run.producer))).collect();
        let is_lacking = |producer: &&Arc<Producer>| {
            let key = Key::Run(Arc::clone(&producer.name));
            let run = runs.of_producer(shared.hasher.key(&key), &key, producer.id);
            run.map_or(true, RunRecord::is_gone)
        };
        let lacking: Vec<_> = state.producers.values().filter(is_lacking).cloned().collect();
        (state.log.head(), over, lacking)
    };
    for (name, producer) in over {
        work.send_run_end(name, producer, RunState::Lost);
    }
    for producer in lacking {
        // The lock of a producer is taken without another lock.
        if producer.is_awaited(head, is_first) {
            continue;
        }
        drop(take_own(&mut shared.state.lock(), producer.id));
        // If the start still comes, the end is behind the start.
        work.send_run_end(Arc::clone(&producer.name), producer.id, RunState::Lost);
        work.tell(producer, Told::Over(RunError::Lost, RunState::Lost.as_str().into()));
    }
    work.run();
}

/// Sends the end of each open run of an instance that died.
pub(super) fn lose(shared: &Shared, instance: InstanceId) {
    let mut work = Work::begin(&shared.config);
    {
        let mut state = shared.state.lock();
        let runs = state.log.runs().of_instance(instance);
        let runs: Vec<_> =
            runs.filter_map(|run| Some((run.hash(), run.shared_name()?, run.producer))).collect();
        for (hash, name, producer) in runs {
            state.log.note_reported_lost(hash, &Key::Run(Arc::clone(&name)), producer);
            work.send_run_end(name, producer, RunState::Lost);
        }
    }
    work.run();
}

/// Returns a producer of this instance.
fn own(state: &State, producer: ProducerId) -> Option<&Arc<Producer>> {
    state.producers.get(&producer.serial).filter(|own| own.id == producer)
}

/// Forgets and returns a producer of this instance.
pub(super) fn take_own(state: &mut State, producer: ProducerId) -> Option<Arc<Producer>> {
    own(state, producer)?;
    state.producers.remove(&producer.serial)
}

fn note_instances(state: &State, before: u64, work: &mut Work<'_>) {
    if state.log.runs().instance_changes() != before {
        work.note_runs_changed();
    }
}
