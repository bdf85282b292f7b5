//! The effects of a feed on the hub, under the hub's locks: events and commands of the order, a new
//! order, older events, the health of the backplane, and the users of other instances.
//!
//! Every instance applies a command when it reads the command's entry, also the instance that sent
//! it. So a command has the same place among the events on every instance.

use std::mem;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disconnect::{self, Ends};
use super::incoming::{Aged, Loaded};
use super::joining::{self, Change, Joined, Returns};
use super::parts::{self, Part, Replay};
use super::reading::{self, ClientRuns};
use super::returning;
use super::shared::Shared;
use crate::core::ahead::AheadUpTo;
use crate::core::backplane::UserChange;
use crate::core::deferred::Work;
use crate::core::remote::Remote;
use crate::core::seats::Seat;
use crate::core::settings::Limits;
use crate::core::state::{PIECE, State};
use crate::core::telemetry;
use crate::log::away::Bounds;
use crate::log::codec::{Action, Announcement, Command, Received, RunEntry};
use crate::log::entry::{Encoded, Entry, Prepared};
use crate::log::key::Key;
use crate::log::log::Log;
use crate::log::mailbox::GapReason;
use crate::log::producer::InstanceId;
use crate::log::recipients::Recipients;
use crate::sync;
use crate::wire::frame::Sealed;
use crate::wire::id::EventId;

/// Publishes an event of the order.
pub(super) fn event(shared: &Shared, id: EventId, event: Encoded) {
    let span = telemetry::process(id, &event).entered();
    let prepared = Prepared::new(event, &shared.hasher);
    let mut work = Work::begin(&shared.config);
    let matched = {
        let mut order = shared.order.lock();
        order.takes(id).then(|| shared.put(&mut order, id, prepared, &mut work))
    };
    work.run();
    if let Some(matched) = matched {
        telemetry::matched(&span, matched);
    }
}

/// Applies a command of the order.
pub(super) fn command(shared: &Shared, id: EventId, command: Command) {
    let Command { audience, action } = command;
    let limits = &shared.config.limits;
    // Work that grows with the audience is done here, before the locks.
    let audience = Recipients::new(&audience, &shared.hasher);
    let mut work = Work::begin(&shared.config);
    let mut rejected = 0;
    let mut announcement = None;
    {
        let mut order = shared.order.lock();
        if !order.takes(id) {
            return;
        }
        order.last = id;
        let mut state = shared.state.lock();
        state.log.pass(id);
        match action {
            Action::End { kind, reason, last } => {
                let last = last.map(Sealed::finish_without_id).unwrap_or_default();
                drop(state);
                let end = Ends { audience: &audience, kind, reason: &reason, last: &last };
                disconnect::end_in_order(shared, &end, &mut work);
            }
            Action::Join { topic, last } => {
                drop(state);
                let key = Key::Topic(topic);
                // The hub that sent the command may have other limits.
                let is_valid = key.check(limits.name_len).is_ok();
                let returns = is_valid.then(|| Returns::note(shared));
                let mut clients = joining::find(shared, &audience, &key);
                let all = clients.len();
                clients.retain(|found| is_valid && found.visit.has_room);
                rejected = all - clients.len();
                let joined = Joined { topic: &key, last: last as usize, limit: limits.topics };
                let change = Change::Join(joined);
                joining::change_in_order(shared, &clients, change, &mut work);
                let mut state = shared.state.lock();
                let mut first = state.away.take_unannounced();
                let claimants = state.away.claimants(&audience);
                if let Some(returns) = returns {
                    let new = clients.iter().filter(|found| !found.visit.has_joined);
                    first.extend(new.map(|found| found.client.id));
                    first.extend(returns.change(&mut state, &audience, change, id, &mut work));
                    state.away.note(id, audience, key.clone(), true, work.now);
                }
                returning::tell(&mut state, claimants, slice::from_ref(&key), &mut work);
                if !first.is_empty() {
                    // Still before the next command: the ordering lock is held.
                    announcement = Some(returning::describe(&state, first));
                }
            }
            Action::Leave(topic) => {
                drop(state);
                let topic = Key::Topic(topic);
                let returns = Returns::note(shared);
                let clients = joining::find(shared, &audience, &topic);
                let change = Change::Leave(&topic);
                joining::change_in_order(shared, &clients, change, &mut work);
                let mut state = shared.state.lock();
                returns.change(&mut state, &audience, change, id, &mut work);
                state.away.note(id, audience, topic, false, work.now);
            }
        }
    }
    work.run();
    if let Some(announcement) = announcement {
        returning::announce(shared, announcement);
    }
    if rejected > 0 {
        telemetry::join_rejected(rejected, limits.topics);
    }
}

/// Remembers the clients that an instance announced.
pub(super) fn announced(shared: &Shared, id: EventId, announcement: Announcement) {
    let Announcement { as_of, clients } = announcement;
    let bounds = bounds(&shared.config.limits);
    let mut work = Work::begin(&shared.config);
    let mut order = shared.order.lock();
    if !order.takes(id) {
        return;
    }
    order.last = id;
    let mut state = shared.state.lock();
    state.log.pass(id);
    for client in clients {
        // The own clients, which this instance knows better, and those that have moved here.
        if state.routes.members(&Key::Client(client.id)).is_empty() {
            let claimants = state.away.claimants_of(&client);
            let joined = client.topics.iter().filter(|topic| topic.is_joined);
            let topics: Vec<Key> = joined.map(|held| Key::Topic(Arc::clone(&held.topic))).collect();
            returning::tell(&mut state, claimants, &topics, &mut work);
            state.away.learn(client, as_of.min(id), id, bounds);
        }
    }
    drop(state);
    drop(order);
    work.run();
}

/// Applies a part of a run.
pub(super) fn run(shared: &Shared, id: EventId, entry: RunEntry) {
    let mut work = Work::begin(&shared.config);
    let part = Part::new(shared, id, work.now, entry);
    let mut ended = None;
    {
        let mut order = shared.order.lock();
        if !order.takes(id) {
            return;
        }
        match part {
            Some(part) => ended = parts::apply(shared, &mut order, part, &mut work),
            None => {
                order.last = id;
                shared.state.lock().log.pass(id);
            }
        }
    }
    work.run();
    if let Some((end, events)) = ended {
        telemetry::run_ended(end, events);
    }
}

/// Lists the instances with producers of open runs.
pub(super) fn run_instances(shared: &Shared) -> Vec<InstanceId> {
    shared.state.lock().log.runs().instances().collect()
}

/// No client has joined a topic before the part of the order that is read.
pub(super) fn no_earlier_joins(shared: &Shared) {
    shared.state.lock().away.note_no_joins();
}

/// Counts an entry that the engine could not parse.
pub(super) fn malformed(shared: &Shared) {
    shared.state.lock().counts.malformed += 1;
}

/// Begins with a part of the order that has no gap after the floor, or with another order.
pub(super) fn load(shared: &Shared, loaded: Loaded) {
    let Loaded { floor, tail, values, has_all_values, runs } = loaded;
    let mut work = Work::begin(&shared.config);
    let head = tail.last().map_or(floor, |&(last, ..)| last.max(floor));
    let mut values = entries_of(shared, values, &work);
    // The oldest first: if the bound is reached, the newest values stay.
    values.sort_unstable_by_key(|value| value.id);
    let (parts, tail): (Vec<Aged>, Vec<Aged>) =
        tail.into_iter().partition(|(.., it)| matches!(it, Received::Run(_)));
    let (events, commands): (Vec<Aged>, Vec<Aged>) =
        tail.into_iter().partition(|(.., it)| matches!(it, Received::Event(_)));
    let runs = Replay::new(shared, runs, parts, head, work.now);
    let entries = entries_of(shared, events, &work);
    let mut order = shared.order.lock();
    if order.is_closed {
        return;
    }
    let mut state = shared.state.lock();
    let is_first = !state.is_loaded;
    // The ids of a hub never go back: a floor that is not after the newest id is taken for the next
    // id. With the newest id itself, a client that had read everything would get no gap.
    let floor = floor.max(if is_first { EventId::new(0, 1) } else { order.last.successor() });
    let fresh = Log::new(shared.config.retain, shared.config.runs, floor, shared.hasher.clone());
    let mut old = mem::replace(&mut state.log, fresh);
    values.into_iter().for_each(|value| state.log.seed(value, &mut work.evicted));
    if !has_all_values {
        state.log.note_lacking_values();
    }
    for entry in entries {
        if entry.id > state.log.head() {
            state.log.append(entry, &mut work.evicted);
        }
    }
    runs.apply(&mut state, &mut old, floor, &mut work);
    shared.has_ended_runs.store(state.log.runs().has_ended(), Ordering::Relaxed);
    state.away.restart(floor, is_first);
    for (id, _, received) in commands {
        recall(&mut state, floor, id, received, &work);
    }
    // Commands, and parts of runs without an effect, take a place in the order, too.
    state.log.pass(head);
    order.last = state.log.head();
    state.is_loaded = true;
    state.counts.resets += u64::from(!is_first);
    state.held.restart((!is_first).then_some(floor), &mut work);
    relocate_clients(&mut state, floor, is_first, &mut work);
    let State { ahead, log, routes, held, .. } = &mut *state;
    if ahead.mark(log, routes).is_some() {
        work.note_client_ahead();
    }
    if held.is_waited_for() {
        work.note_history_wanted();
    }
    // Other instances may have missed a part of the order, too.
    let announcement = (!is_first).then(|| returning::describe_all(&state, &shared.config));
    drop(state);
    drop(order);
    // A log of many events must not be freed under the locks.
    drop(old);
    work.run();
    parts::reconcile(shared, is_first);
    if let Some(announcement) = announcement {
        returning::announce(shared, announcement);
    }
    if !is_first {
        telemetry::reset(floor);
    }
}

/// Applies an entry of the loaded part of the order to the remembered clients. A command was for
/// the connected clients of its time. The hub ignores entries up to its `floor`.
fn recall(state: &mut State, floor: EventId, id: EventId, received: Received, work: &Work<'_>) {
    if id <= floor {
        return;
    }
    let limits = &work.config.limits;
    match received {
        Received::Event(_)
        | Received::Run(_)
        | Received::Command(Command { action: Action::End { .. }, .. }) => {}
        Received::Command(Command { audience, action: Action::Join { topic, .. } }) => {
            let (key, audience) =
                (Key::Topic(topic), Recipients::new(&audience, state.log.hasher()));
            if key.check(limits.name_len).is_ok() {
                state.away.join(&audience, &key, id, limits.topics);
                state.away.note(id, audience, key, true, work.now);
            }
        }
        Received::Command(Command { audience, action: Action::Leave(topic) }) => {
            let (key, audience) =
                (Key::Topic(topic), Recipients::new(&audience, state.log.hasher()));
            state.away.leave(&audience, &key);
            state.away.note(id, audience, key, false, work.now);
        }
        Received::Announcement(Announcement { as_of, clients }) => {
            for client in clients {
                if state.routes.members(&Key::Client(client.id)).is_empty() {
                    state.away.learn(client, as_of.min(id), id, bounds(limits));
                }
            }
        }
    }
}

fn bounds(limits: &Limits) -> Bounds {
    Bounds { topics: limits.topics, name_len: limits.name_len }
}

/// Makes the events among entries of the order to entries of the log. Commands were for the clients
/// of their time.
fn entries_of(shared: &Shared, received: Vec<Aged>, work: &Work<'_>) -> Vec<Arc<Entry>> {
    let mut entries = Vec::with_capacity(received.len());
    for (id, age, received) in received {
        if let Received::Event(event) = received {
            entries.push(entry(shared, id, age, event, work));
        }
    }
    entries
}

/// Finds every client's position in a log that begins after `floor`.
fn relocate_clients(state: &mut State, floor: EventId, is_first: bool, work: &mut Work<'_>) {
    let reason = if is_first { GapReason::Evicted } else { GapReason::Reset };
    let head = state.log.head();
    let mut waiting = Vec::new();
    let mut behind = Vec::new();
    let mut fresh = Vec::new();
    for (slot, client) in state.routes.iter() {
        let runs = state.identity(slot).map(|client| ClientRuns::of(state.log.runs_of(client)));
        let runs = runs.unwrap_or_default();
        let mut inbox = client.lock();
        let is_open = inbox.is_open();
        let has_values = inbox.beginning().is_some();
        let mailbox = &mut inbox.mailbox;
        match mailbox.cursor() {
            // A stream that is to end takes no event of the new order. Its unread events of the
            // old order are lost.
            cursor if !is_open => {
                if cursor < mailbox.tail() {
                    mailbox.jump(floor, floor, reason, work.now);
                }
            }
            // The client came before anybody knew where the order ends, or has read no value yet.
            EventId::ORIGIN if has_values => {
                mailbox.jump(EventId::ORIGIN, head, GapReason::Unknown, work.now);
                inbox.begin_with_values(head);
            }
            EventId::ORIGIN => {
                // The runs of the client have a past.
                let now = runs.begin.unwrap_or(head);
                mailbox.jump(now, head, GapReason::Unknown, work.now);
                fresh.extend(runs.begin.map(|_| slot));
            }
            // The gap stands for the values that the client has not read.
            cursor if cursor < floor => {
                // The backplane may hold the events before the floor, unless the order is another.
                match state.held.until_first_load(work.now).filter(|_| is_first) {
                    Some(until) => {
                        mailbox.restart(head, work.now);
                        mailbox.hold(until);
                        behind.push((slot, Arc::clone(client), cursor));
                    }
                    // The log has the past of the runs, and reports the other events.
                    None if is_first && runs.begin.is_some() => mailbox.restart(head, work.now),
                    None => mailbox.jump(floor, head, reason, work.now),
                }
            }
            _ => mailbox.restart(head, work.now),
        }
        reading::settle(client, &mut inbox, &runs, is_first, work);
        if inbox.mailbox.is_waiting() {
            waiting.push(slot);
            work.extend(inbox.take_waker());
        }
    }
    for slot in fresh {
        let Some(client) = state.identity(slot) else { continue };
        let runs = ClientRuns::of(state.log.runs_of(client));
        state.routes.hold_since(slot, |key| runs.since(key, head));
    }
    for slot in waiting {
        state.watch(slot, work);
    }
    for (slot, client, after) in behind {
        let State { held, log, routes, .. } = &mut *state;
        held.add(slot, &client, after, work.now, log, routes);
    }
}

/// Moves the clients of `mark` whose id lies after `end`, and tells them a gap.
pub(super) fn disown(shared: &Shared, mark: AheadUpTo, end: EventId) {
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    // Before the first load the end of the order is not known.
    if state.is_loaded {
        let State { ahead, log, routes, .. } = &mut *state;
        let head = log.head();
        for slot in ahead.take_disowned(mark, end, log, routes) {
            if let Some(client) = state.routes.get(slot) {
                let mut inbox = client.lock();
                if inbox.is_open() {
                    // Not to the hub's own head: the client may have had the events between that
                    // and the end.
                    inbox.mailbox.jump(head.max(end), head, GapReason::Unknown, work.now);
                    work.extend(inbox.take_waker());
                }
            }
            state.watch(slot, &work);
        }
    }
    drop(state);
    work.run();
}

/// Puts older events back into the log: every entry of the order after `floor` and up to `upto`.
pub(super) fn restore(shared: &Shared, upto: EventId, floor: EventId, piece: Vec<Aged>) {
    let mut work = Work::begin(&shared.config);
    // The newest entry first, each with the position of the entry before it.
    let mut entries = Vec::with_capacity(piece.len());
    let mut next: Option<Arc<Entry>> = None;
    for (id, age, received) in piece.into_iter().rev() {
        // A command was for the clients of its time.
        let Received::Event(event) = received else { continue };
        entries.extend(next.take().map(|entry| (entry, id)));
        next = Some(entry(shared, id, age, event, &work));
    }
    entries.extend(next.map(|entry| (entry, floor)));

    let mut state = shared.state.lock();
    state.held.note_brought(work.now);
    let mut reached = upto;
    'all: for some in entries.chunks(PIECE) {
        // In the meantime the log may have evicted more, or begun anew.
        if !state.log.is_raised() || state.log.whole_from() != reached {
            break;
        }
        for (entry, previous) in some {
            if !state.log.restore(Arc::clone(entry), *previous) {
                break 'all;
            }
            state.counts.restored += 1;
            reached = *previous;
        }
        state = sync::yield_lock(&shared.state, state);
    }
    if entries.is_empty() && state.log.whole_from() == upto {
        state.log.reach_back(floor);
    }
    state.release_served(&mut work);
    drop(state);
    work.run();
    // Entries that did not fit are freed here, without a lock.
    drop(entries);
}

/// The order has no events up to `position`.
pub(super) fn gone(shared: &Shared, position: EventId) {
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    state.held.note_gone(position);
    state.release_served(&mut work);
    drop(state);
    work.run();
}

/// Makes an entry of the log from an event of the order.
fn entry(
    shared: &Shared,
    id: EventId,
    age: Duration,
    event: Encoded,
    work: &Work<'_>,
) -> Arc<Entry> {
    let at = work.now.checked_sub(age).unwrap_or(work.now);
    Prepared::new(event, &shared.hasher).into_entry(id, at)
}

/// Notes whether the backplane can be reached. Returns whether the change must be logged.
pub(super) fn health(shared: &Shared, is_degraded: bool) -> bool {
    let now = shared.now();
    let mut state = shared.state.lock();
    let must_log = state.health.report(is_degraded, now);
    let is_degraded = is_degraded || !state.is_loaded;
    let must_tell =
        shared.config.announce_outages && state.health.must_tell_clients(is_degraded, now);
    if must_tell {
        // Stored under the lock: the thread that knows last stores last.
        shared.shows_degraded.store(is_degraded, Ordering::Release);
    }
    drop(state);
    if must_tell {
        wake_all(shared);
    }
    must_log
}

/// Wakes every stream, a piece at a time. A client that connects between two pieces looks by
/// itself. [`Routes::remove`](crate::log::routes::Routes::remove) says why the walk meets the rest.
fn wake_all(shared: &Shared) {
    let mut left = usize::MAX;
    while left > 0 {
        let mut work = Work::begin(&shared.config);
        let state = shared.state.lock();
        let members = state.routes.members(&Key::All);
        left = left.min(members.len());
        let rest = left.saturating_sub(PIECE);
        let clients = members[rest..left].iter().rev();
        work.extend(clients.filter_map(|member| member.reach.lock().take_waker()));
        left = rest;
        drop(state);
        work.run();
    }
}

/// The seats of another instance, as far as the hub knows them.
pub(super) fn seats_of(shared: &Shared, instance: &str) -> Vec<Seat> {
    let state = shared.state.lock();
    let remote = state.attendance.as_ref().and_then(|attendance| attendance.remote());
    remote.into_iter().flat_map(|remote| remote.seats_of(instance)).collect()
}

/// Applies the changes of another instance's users, a piece at a time: an instance may have as many
/// users as clients, and other threads wait for the lock.
pub(super) fn user_changes(
    shared: &Shared,
    instance: &str,
    changes: impl IntoIterator<Item = UserChange>,
) {
    let Some(presence) = shared.config.presence else { return };
    let max_len = shared.config.limits.name_len;
    let is_name = |name: &str| (1..=max_len).contains(&name.len());
    let is_valid = |change: &UserChange| {
        let Seat { user, topic } = change.seat();
        is_name(user)
            && topic.as_ref().is_none_or(|topic| is_name(topic) && presence.selects(topic))
    };
    // The iterator is foreign code: it must run before the lock is taken.
    let changes: Vec<UserChange> = changes.into_iter().filter(is_valid).collect();
    let mut work = Work::begin(&shared.config);
    let mut is_full = false;
    let mut changes = changes.into_iter();
    let mut state = shared.state.lock();
    while changes.len() > 0 {
        for change in changes.by_ref().take(PIECE) {
            is_full |= user_change(&mut state, instance, change, &mut work);
        }
        state = sync::yield_lock(&shared.state, state);
    }
    let remote = state.attendance.as_mut().and_then(|attendance| attendance.remote_mut());
    let must_log = is_full && remote.is_some_and(Remote::report_limit);
    drop(state);
    work.run();
    if must_log {
        telemetry::remote_users_limit(presence.max_remote_users);
    }
}

/// Applies a change of another instance. Returns whether there is no room for the seat.
fn user_change(state: &mut State, instance: &str, change: UserChange, work: &mut Work<'_>) -> bool {
    let Some(attendance) = &mut state.attendance else { return false };
    let Seat { user, topic } = change.seat();
    let is_user_here =
        topic.is_none() && !state.routes.members(&Key::User(Arc::clone(user))).is_empty();
    attendance.hear(instance, change, is_user_here, work)
}
