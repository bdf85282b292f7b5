//! Letting clients in.

use std::sync::{Arc, OnceLock};

use super::reading::{self, ClientRuns, RunNames};
use super::returning::{self, Claim};
use super::shared::Shared;
use super::subscriber::Subscriber;
use crate::core::client::{self, Client};
use crate::core::config::Config;
use crate::core::deferred::Work;
use crate::core::end::{End, EndReason, Ending};
use crate::core::inbox::Inbox;
use crate::core::pacing::Pacing;
use crate::core::state::{Lifecycle, State};
use crate::error::{Refused, RefusedCause};
use crate::log::codec::Announcement;
use crate::log::identity::{Identity, Membership};
use crate::log::key::{ClientId, Key};
use crate::log::mailbox::{GapReason, Mailbox, Pace};
use crate::log::profile::Owner;
use crate::log::routes::Member;
use crate::wire::id::{EventId, Resume};

/// A client that was let in.
pub(super) struct Admitted {
    pub(super) client: Arc<Client>,
    pub(super) slot: usize,
    pub(super) start: Start,
    /// The newest event when the client was let in: a snapshot replaces the events up to here.
    pub(super) head: EventId,
    /// The request asks for the last events, for the values, or for runs.
    pub(super) asks_for_replay: bool,
    /// The client with the restored topics, for the other instances.
    pub(super) announcement: Option<Announcement>,
    /// The client receives at most one batch in a period.
    pub(super) is_paced: bool,
}

/// The position that a request names, as this hub sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// A first connection.
    Fresh,
    /// In the order, as far as this hub has read the order.
    Known(EventId),
    /// Another instance has read further.
    Ahead(EventId),
    /// Of no order of this hub.
    Unknown,
}

impl Position {
    /// `head`: up to where this hub has read the order.
    pub(super) fn of(resume: Resume, head: EventId, config: &Config) -> Self {
        match resume {
            Resume::Fresh => Self::Fresh,
            // `hub:open` has this position before the first value.
            Resume::Unknown | Resume::After(EventId::ORIGIN) => Self::Unknown,
            Resume::After(id) if id <= head => Self::Known(id),
            Resume::After(id) if config.backplane.is_some() => Self::Ahead(id),
            Resume::After(_) => Self::Unknown,
        }
    }
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// A first connection, after this event.
    Fresh(EventId),
    /// Directly after the client's own position.
    Resumed(EventId),
    /// Directly after the client's own position, if the backplane brings the missed events.
    Sought(EventId),
    /// After the client's own position, with a gap that the read of the log reports.
    Behind(EventId),
    /// Before the values: a first connection, or an unknown position, which is reported as a gap.
    Values { is_unknown: bool },
    /// After a gap that is reported at once.
    Gap {
        /// The position of `hub:open`: a client that is cut off before the gap comes back to here.
        held: EventId,
        /// Where the stream continues.
        now: EventId,
        reason: GapReason,
    },
}

impl Start {
    /// The word for the log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh(_) | Self::Values { is_unknown: false } => "fresh",
            Self::Resumed(_) | Self::Sought(_) => "resumed",
            Self::Behind(_) | Self::Values { is_unknown: true } | Self::Gap { .. } => "gap",
        }
    }

    /// Where the stream continues.
    pub(super) fn position(self) -> EventId {
        match self {
            Self::Fresh(id) | Self::Resumed(id) | Self::Sought(id) | Self::Behind(id) => id,
            Self::Values { .. } => EventId::ORIGIN,
            Self::Gap { now, .. } => now,
        }
    }

    /// Whether the client continues at its own position, without a gap.
    pub(super) const fn is_resumed(self) -> bool {
        matches!(self, Self::Resumed(_) | Self::Sought(_))
    }

    const fn pace(self) -> Pace {
        match self {
            Self::Fresh(_) | Self::Resumed(_) | Self::Values { .. } => Pace::Reading,
            Self::Sought(_) | Self::Behind(_) | Self::Gap { .. } => Pace::Excused,
        }
    }
}

/// Lets a client in.
///
/// The caller must free the client if nobody gets the stream.
pub(super) fn admit(
    shared: &Shared,
    subscriber: Subscriber,
    work: &mut Work<'_>,
) -> Result<Admitted, Refused> {
    let config = work.config;
    let fresh = ClientId::random();
    let retry = fresh.as_ref().map_or(config.retry, |&id| config.retry(id));
    let checked = fresh.map_err(|_| RefusedCause::NoRandomness);
    // Work that grows with the request is done here, before the lock.
    let checked = checked.and_then(|fresh| subscriber.check(&config.limits).map(|()| fresh));
    let filter = subscriber.type_filter(&shared.hasher);
    let mut memberships = match checked {
        Ok(_) => subscriber.memberships(&shared.hasher),
        Err(_) => Vec::new(),
    };
    let claim = checked.ok().and_then(|_| Claim::new(shared, &subscriber, subscriber.resume));
    let names = RunNames::new(&subscriber, &shared.hasher);
    let mut state = shared.lock_state();
    state.expel_stalled(work);
    state.log.forget_runs(work.now, &mut work.forgotten);
    let runs = ClientRuns::new(&state, &names);
    let ids = checked.and_then(|fresh| {
        check_runs(&state, &subscriber, &runs, config)?;
        Ok((fresh, make_room(&mut state, &subscriber, work)?))
    });
    let (fresh, kept) = match ids {
        Ok(ids) => ids,
        Err(cause) => {
            state.counts.refused[cause.index()] += 1;
            return Err(Refused::new(cause, retry, config.refusals));
        }
    };
    runs.share_names(&mut memberships);
    let id = kept.unwrap_or(fresh);
    let lost_id = subscriber.client_id.filter(|&claimed| claimed != id);
    memberships.push(Membership::of(Key::Client(id), &shared.hasher));
    let returned = kept.and_then(|id| state.away.take(id, &subscriber.owner()));
    let claim = claim.filter(|claim| {
        returned.is_none() && (kept.is_some() || !returning::is_known(&state, claim.id))
    });
    let may_lack = |claim: &Claim| returning::may_lack(&state, claim, work.now);
    let mut lacks_topics = claim.as_ref().is_some_and(may_lack);
    state.log.expire(work.now, &mut work.evicted);
    state.counts.opened += 1;
    // The position is fixed and the client registered under one lock: the client is handed every
    // event that is appended from here on, and none that is in the log already.
    let head = state.log.head();
    let now = work.now;
    let position = |start: Start| Mailbox::new(start.position(), head, start.pace(), now);
    let lifetime = config.lifetime(fresh).and_then(|lifetime| work.now.checked_add(lifetime));
    let until = lifetime.map(|at| (at, EndReason::Lifetime));
    let ending = Ending::open(until, subscriber.deadline(work.now));
    let mut inbox = Inbox::new(position(Start::Fresh(head)), ending);
    let pacing = subscriber.period.and_then(Pacing::every);
    if let Some(pacing) = pacing {
        inbox.set_pace(pacing);
    }
    let values = values_start(&subscriber, head, config);
    if values.is_some() {
        inbox.begin_with_values(head);
    }
    let client = Arc::new(Client {
        id,
        serial: state.counts.opened,
        filter,
        ends_with_runs: subscriber.is_of_runs(),
        start: OnceLock::new(),
        has_values: values.is_some(),
        place: state.inboxes.add(inbox),
    });
    let slot = state.routes.add(memberships, Arc::clone(&client), client::tag(&client));
    let gets_topics = returned.as_ref().is_some_and(|returned| !returned.topics.is_empty());
    if let Some(returned) = returned {
        lacks_topics = returning::restore(&mut state, slot, returned, config.limits.topics);
    }
    state.note_arrival(slot, work);
    // The beginning depends on the keys of the registered client.
    let (start, since) = match values {
        Some(values) => (values, None),
        None => start(&state, slot, &subscriber, &runs, lost_id, lacks_topics, work),
    };
    if let Some(since) = since {
        state.routes.hold_since(slot, |key| runs.since(key, since));
    }
    if let Some(claim) = claim.filter(|_| start.is_resumed() && kept.is_none()) {
        returning::watch(&mut state, slot, claim, work.now);
    }
    // The first and only call. Values are no events since the start.
    let _ = client.start.set(if values.is_some() { head } else { start.position() });
    if start.position() != head {
        let mut inbox = client.lock();
        inbox.mailbox = position(start);
        if let Start::Fresh(_) = start {
            inbox.mailbox.excuse(state.log.evictions());
        }
    }
    if client.ends_with_runs {
        let mut inbox = client.lock();
        if let Some((_, end)) = runs.end() {
            // Nobody polls the stream so far: there is no waker.
            inbox.end(End::complete(end.as_str(), config.retry(id)));
        } else if runs.begin.is_none() && state.is_loaded {
            reading::await_runs(&mut inbox, work);
        }
    }
    if start.position() < head {
        state.watch(slot, work);
    }
    if start.position() > head {
        let State { ahead, log, routes, .. } = &mut *state;
        ahead.add(slot, &client, start.position(), log, routes);
        work.note_client_ahead();
    }
    let asks_for_replay = subscriber.replay_last > 0 || subscriber.latest || runs.is_reader;
    let is_paced = pacing.is_some();
    // The topics of the request may be others than before.
    let backplane = config.backplane.as_ref().filter(|_| gets_topics);
    let announcement = backplane.map(|_| returning::describe(&state, [id]));
    Ok(Admitted { client, slot, start, head, asks_for_replay, announcement, is_paced })
}

/// Checks the runs of a stream that ends with the runs.
fn check_runs(
    state: &State,
    subscriber: &Subscriber,
    runs: &ClientRuns,
    config: &Config,
) -> Result<(), RefusedCause> {
    if !subscriber.is_of_runs() {
        return Ok(());
    }
    if runs.has_unknown && config.run_wait.is_none() {
        return Err(RefusedCause::UnknownRun);
    }
    match (subscriber.resume, runs.end()) {
        (Resume::After(id), Some((last, _))) if last <= id && id <= state.log.head() => {
            Err(RefusedCause::Complete)
        }
        _ => Ok(()),
    }
}

/// Makes room for one more client. Returns the id that the client keeps, if any.
///
/// A client that returns before its old connection is known to be dead takes its id over, and the
/// old stream ends. The oldest client of the user or session may have to leave, too. No client
/// leaves for a client that is refused.
fn make_room(
    state: &mut State,
    subscriber: &Subscriber,
    work: &mut Work<'_>,
) -> Result<Option<ClientId>, RefusedCause> {
    match state.lifecycle {
        Lifecycle::Open => {}
        Lifecycle::Draining => return Err(RefusedCause::Draining),
        Lifecycle::Closed => return Err(RefusedCause::Closed),
    }
    let config = work.config;
    let limits = &config.limits;
    let owner = subscriber.owner();
    let old = subscriber.client_id.and_then(|id| returning::connection_of(state, id, &owner));
    // The old connection has the same user and session, and leaves room in each.
    let freed = usize::from(old.is_some());
    let crowded = |state: &State| {
        let of_user = owner.user.clone().map(Key::User);
        let of_session = owner.session.clone().map(Key::Session);
        let user_full = RefusedCause::UserFull { limit: limits.per_user };
        let session_full = RefusedCause::SessionFull { limit: limits.per_session };
        let full =
            [(of_user, limits.per_user, user_full), (of_session, limits.per_session, session_full)];
        full.into_iter().find_map(|(key, limit, cause)| {
            let key = key?;
            (state.routes.members(&key).len() - freed >= limit).then_some((key, cause))
        })
    };
    let leaves_room = freed > 0 || limits.displace_oldest && crowded(state).is_some();
    if state.routes.len() >= limits.clients && !leaves_room {
        return Err(RefusedCause::Full { limit: limits.clients });
    }
    while let Some((key, cause)) = crowded(state) {
        let members = state.routes.members(&key).iter().filter(|member| Some(member.slot()) != old);
        let oldest = members.min_by_key(|member| member.reach.serial).map(Member::slot);
        let Some(oldest) = oldest.filter(|_| limits.displace_oldest) else { return Err(cause) };
        displace(state, oldest, config, work);
    }
    if let Some(old) = old {
        displace(state, old, config, work);
    }
    Ok(subscriber.client_id.filter(|&id| old.is_some() || was_owned(state, id, &owner)))
}

/// Whether a client id was that of a client of this owner, which has left. The id of a connected
/// client of another owner is never given away.
pub(super) fn was_owned(state: &State, id: ClientId, owner: &Owner) -> bool {
    let is_known = state.departed.was(id, owner) || state.away.restores(id, owner);
    is_known && state.routes.members(&Key::Client(id)).is_empty()
}

fn displace(state: &mut State, slot: usize, config: &Config, work: &mut Work<'_>) {
    let end = |client: &Client| End::announced(EndReason::Displaced, config.retry(client.id));
    state.expel(slot, end, work);
}

/// Where a client begins that asks for the values. `None` if the client continues at its own
/// position.
fn values_start(subscriber: &Subscriber, head: EventId, config: &Config) -> Option<Start> {
    let is_unknown = match Position::of(subscriber.resume, head, config) {
        Position::Fresh => false,
        Position::Known(_) | Position::Ahead(_) => return None,
        Position::Unknown => true,
    };
    // A stream that reads runs begins with the runs.
    let begins_with_values = subscriber.latest && subscriber.run_names.is_empty();
    begins_with_values.then_some(Start::Values { is_unknown })
}

/// Where a client that was just registered begins. `lost_id`: the id that the client had before and
/// could not keep. `lacks_topics`: the client may lack topics that it had joined. For a client
/// whose runs have a past, also returns the position after which the client holds its other keys.
fn start(
    state: &State,
    slot: usize,
    subscriber: &Subscriber,
    runs: &ClientRuns,
    lost_id: Option<ClientId>,
    lacks_topics: bool,
    work: &Work<'_>,
) -> (Start, Option<EventId>) {
    let (head, replay) = (state.log.head(), work.config.limits.replay);
    let Some(client) = state.identity(slot) else { return (Start::Fresh(head), None) };
    match Position::of(subscriber.resume, head, work.config) {
        Position::Fresh => {
            let count = subscriber.replay_last.min(replay);
            let others = match subscriber.replay_last {
                0 => head,
                _ => state.log.before_last(count, client).0,
            };
            let Some(begin) = runs.begin else { return (Start::Fresh(others), None) };
            let position = begin.min(others);
            // A run that lost events begins with a gap.
            let is_whole = !runs.has_lost;
            let start = if is_whole { Start::Fresh(position) } else { Start::Behind(position) };
            (start, Some(others))
        }
        Position::Known(id) => {
            if replay < state.log.len()
                && let (_, Some(now)) = state.log.before_last(replay, client)
                && now > id
            {
                // The limit is not for runs: these continue after the client's position.
                let start = |now| Start::Gap { held: id, now, reason: GapReason::Capped };
                return if runs.is_reader { (start(id), Some(now)) } else { (start(now), None) };
            }
            let is_lost = |lost| had_events(state, lost, id, client);
            let start = if lacks_topics || lost_id.is_some_and(is_lost) {
                Start::Gap { held: id, now: id, reason: GapReason::Evicted }
            } else if state.log.lost_since(id, client).is_none() {
                Start::Resumed(id)
            } else if state.held.is_hopeful(id, &state.log) {
                Start::Sought(id)
            } else {
                Start::Behind(id)
            };
            (start, None)
        }
        // The client's own position counts, unless the end of the order turns out to lie before it.
        Position::Ahead(id) => {
            let gap = Start::Gap { held: id, now: id, reason: GapReason::Evicted };
            (if lacks_topics { gap } else { Start::Resumed(id) }, None)
        }
        Position::Unknown => {
            let now = runs.begin.unwrap_or(head);
            let start = Start::Gap { held: EventId::ORIGIN, now, reason: GapReason::Unknown };
            (start, runs.begin.map(|_| head))
        }
    }
}

/// Returns whether a client missed an event after `after` because the client could not keep the id
/// `lost`. If the id is known to be of another owner, the client never was that client, and missed
/// nothing.
pub(super) fn had_events(
    state: &State,
    lost: ClientId,
    after: EventId,
    client: Identity<'_>,
) -> bool {
    !returning::is_known(state, lost) && state.log.had_events(Key::Client(lost), after, client)
}
