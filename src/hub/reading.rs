//! The readers of runs: where a reader begins, and when a stream is complete.

use std::sync::Arc;

use super::subscriber::Subscriber;
use crate::core::client::Client;
use crate::core::deferred::Work;
use crate::core::end::{End, EndReason};
use crate::core::inbox::Inbox;
use crate::core::state::{PIECE, State};
use crate::log::hash::KeyHasher;
use crate::log::identity::Membership;
use crate::log::key::Key;
use crate::log::routes::Member;
use crate::log::runs::{RunRecord, RunState};
use crate::sync::{self, Mutex, MutexGuard};
use crate::wire::id::EventId;

/// The runs of a client that connects, with their hashes.
#[derive(Debug)]
pub(super) struct RunNames(Vec<(u64, Key)>);

impl RunNames {
    /// Hashes the names, which a request may choose: no lock may be held.
    pub(super) fn new(subscriber: &Subscriber, hasher: &KeyHasher) -> Self {
        let keys = subscriber.run_names.iter().map(|run| Key::Run(Arc::clone(run)));
        Self(keys.map(|key| (hasher.key(&key), key)).collect())
    }
}

/// The state of these runs, when the client is let in.
#[derive(Debug, Default)]
pub(super) struct ClientRuns {
    /// The client names runs.
    pub(super) is_reader: bool,
    /// The position before the first event of each known run, by the names.
    begins: Vec<(Key, EventId)>,
    /// The oldest of these positions.
    pub(super) begin: Option<EventId>,
    /// A run has lost events.
    pub(super) has_lost: bool,
    /// Not every run is known.
    pub(super) has_unknown: bool,
    is_open: bool,
    /// The last event of the run that ended last, and how it ended.
    last: Option<(EventId, RunState)>,
}

impl ClientRuns {
    pub(super) fn new(state: &State, names: &RunNames) -> Self {
        let runs = names.0.iter();
        Self::of(runs.map(|(hash, key)| (key, state.log.runs().find(*hash, key))))
    }

    /// Takes each run with its name. An unknown run is `None`.
    pub(super) fn of<'a>(runs: impl Iterator<Item = (&'a Key, Option<&'a RunRecord>)>) -> Self {
        let mut all = Self::default();
        for (_, run) in runs {
            all.is_reader = true;
            let Some(run) = run else {
                all.has_unknown = true;
                continue;
            };
            all.begins.push((run.key().clone(), run.begin));
            all.has_lost |= run.lost() > run.begin;
            if run.is_open() {
                all.is_open = true;
            } else if all.last.is_none_or(|(last, _)| last < run.last) {
                all.last = Some((run.last, run.state));
            }
        }
        // A request may name many runs, and each of its keys is looked up.
        all.begins.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all.begin = all.begins.iter().map(|&(_, begin)| begin).min();
        all
    }

    /// Lets a client share the names of its runs with the log: a hand-out then compares no text.
    pub(super) fn share_names(&self, memberships: &mut [Membership]) {
        for held in memberships {
            if let Some((run, _)) = self.known(&held.key) {
                held.key = run.clone();
            }
        }
    }

    fn known(&self, key: &Key) -> Option<&(Key, EventId)> {
        let at = self.begins.binary_search_by(|(run, _)| run.cmp(key)).ok()?;
        self.begins.get(at)
    }

    /// Returns the end of the runs if all known runs have ended: the last event, and how the run
    /// ended.
    pub(super) fn end(&self) -> Option<(EventId, RunState)> {
        if self.is_open { None } else { self.last }
    }

    /// Returns the position after which a client that begins with its runs holds a key. `others`:
    /// the position for keys that are no known run.
    pub(super) fn since(&self, key: &Key, others: EventId) -> EventId {
        self.known(key).map_or(others, |&(_, begin)| begin)
    }
}

/// Decides whether the stream of a client is complete, or waits for its runs, after the order was
/// loaded. `is_first`: no order was loaded before, so the wait begins now.
pub(super) fn settle(
    client: &Client,
    inbox: &mut Inbox,
    runs: &ClientRuns,
    is_first: bool,
    work: &mut Work<'_>,
) {
    if !client.ends_with_runs {
        return;
    }
    if let Some((_, end)) = runs.end() {
        if inbox.ending().accepts(EndReason::Finished) {
            work.extend(inbox.end(End::complete(end.as_str(), work.config.retry(client.id))));
        }
    } else if runs.begin.is_some() {
        inbox.note_run();
    } else if is_first {
        await_runs(inbox, work);
        // The task must arm the timer.
        work.extend(inbox.take_waker());
    }
}

/// Lets a stream wait for its runs, none of which is known.
pub(super) fn await_runs(inbox: &mut Inbox, work: &Work<'_>) {
    let by = work.config.run_wait.and_then(|wait| work.now.checked_add(wait));
    by.into_iter().for_each(|by| inbox.await_runs(by));
}

/// Finishes the streams that are complete because a run has ended in this state.
///
/// A client that connects between two pieces finds that the run has ended.
pub(super) fn complete<'a>(
    lock: &'a Mutex<State>,
    state: MutexGuard<'a, State>,
    run: &Key,
    end: RunState,
    work: &mut Work<'_>,
) {
    visit_readers(lock, state, run, |state, slot, client| {
        let goes_on = || state.identity(slot).is_some_and(|client| state.log.has_open_run(client));
        if !client.ends_with_runs || goes_on() {
            return;
        }
        let mut inbox = client.lock();
        if inbox.ending().accepts(EndReason::Finished) {
            let retry = work.config.retry(client.id);
            work.extend(inbox.end(End::complete(end.as_str(), retry)));
        }
    });
}

/// Tells the readers that waited for a run that the run has started.
///
/// A client that connects between two pieces finds the run, and does not wait.
pub(super) fn note_start<'a>(lock: &'a Mutex<State>, state: MutexGuard<'a, State>, run: &Key) {
    visit_readers(lock, state, run, |_, _, client| client.lock().note_run());
}

/// Lets the readers of a run read the log, which lacks events of an older run of the name.
pub(super) fn note_loss(state: &mut State, run: &Key, work: &mut Work<'_>) {
    let slots: Vec<usize> = state.routes.members(run).iter().map(Member::slot).collect();
    let head = state.log.head();
    for slot in slots {
        let Some(client) = state.routes.get(slot) else { continue };
        let mut inbox = client.lock();
        if inbox.is_open() {
            // The read of the log finds the loss.
            inbox.mailbox.restart(head, work.now);
            work.extend(inbox.take_waker());
        }
        drop(inbox);
        state.watch(slot, work);
    }
}

/// Visits the readers of a run, each with its slot.
///
/// The caller holds the ordering lock. The lock of the state is released between pieces.
fn visit_readers<'a>(
    lock: &'a Mutex<State>,
    mut state: MutexGuard<'a, State>,
    run: &Key,
    mut visit: impl FnMut(&State, usize, &Client),
) {
    let mut left = usize::MAX;
    loop {
        let members = state.routes.members(run);
        left = left.min(members.len());
        let rest = left.saturating_sub(PIECE);
        for member in members[rest..left].iter().rev() {
            visit(&state, member.slot(), &member.reach);
        }
        left = rest;
        if left == 0 {
            return;
        }
        state = sync::yield_lock(lock, state);
    }
}
