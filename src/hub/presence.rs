//! Presence, as users of the hub see it: the watches, and the lists of users.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::shared::Shared;
use crate::core::attendance::Attendance;
use crate::core::backplane::UserChange;
use crate::core::deferred::Work;
use crate::core::roster::{PresenceEvent, Sight, TopicEvent, UserInfo};
use crate::core::seats::{Seat, SeatKind};
use crate::core::state::State;
use crate::error::{MembersError, WatchError};
use crate::log::key::Key;
use crate::sync;
use crate::time::deadline::IdleDeadline;

/// A stream of users that come and go, as [`Hub::watch`](crate::Hub::watch) returns it.
///
/// A `Stream` of [`PresenceEvent`]s, in the same order for all watchers: joins and leaves of a user
/// alternate. A watch is a cursor in the events that the hub
/// [keeps](crate::Presence::event_buffer), and no queue: a watch that is not read costs nothing, and
/// reports missed events. While nothing happens, a watch waits for the end of the next grace period
/// with a single [`Sleep`](crate::Sleep).
/// A watch does not keep the hub alive, and ends when the hub is closed.
///
/// # Cancel safety
///
/// `next()` takes an event only in the call that returns the event, so dropping a pending `next()`
/// loses nothing.
///
/// Purposefully not `Clone`: call `Hub::watch` again. The new watch begins at the time of the call.
#[must_use = "a watch sees nothing unless it is polled"]
pub struct PresenceWatch(Watch);

/// A stream of users that join and leave topics, as
/// [`Hub::watch_topics`](crate::Hub::watch_topics) returns it.
///
/// A `Stream` of [`TopicEvent`]s: joins and leaves of a user in a topic alternate. All else is as
/// for a [`PresenceWatch`]: a cursor and no queue, cancel safe, and the end with the hub. The
/// events of topics are kept apart from those of users, so a crowd in the topics does not make a
/// `PresenceWatch` miss events.
///
/// Purposefully not `Clone`: call `Hub::watch_topics` again.
#[must_use = "a watch sees nothing unless it is polled"]
pub struct TopicWatch(Watch);

/// A watcher of the seats of a kind.
struct Watch {
    shared: Arc<Shared>,
    kind: SeatKind,
    /// The key of this watcher in the roster.
    key: usize,
    /// Waits for the end of the next grace period.
    idle: IdleDeadline,
}

pub(super) fn watch(shared: &Arc<Shared>) -> Result<PresenceWatch, WatchError> {
    Watch::open(shared, SeatKind::User).map(PresenceWatch)
}

pub(super) fn watch_topics(shared: &Arc<Shared>) -> Result<TopicWatch, WatchError> {
    if shared.config.presence.is_some_and(|presence| presence.topics.is_empty()) {
        return Err(WatchError::NoTopics);
    }
    Watch::open(shared, SeatKind::Member).map(TopicWatch)
}

pub(super) fn is_online(shared: &Shared, user: Arc<str>) -> bool {
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    let State { attendance, routes, .. } = &mut *state;
    let attendance = attendance.as_mut();
    let is_elsewhere =
        attendance.is_some_and(|attendance| is_taken(attendance, &Seat::user(&user), &mut work));
    let is_online = is_elsewhere || !routes.members(&Key::User(user)).is_empty();
    drop(state);
    work.run();
    is_online
}

pub(super) fn is_member(
    shared: &Shared,
    user: Arc<str>,
    topic: Arc<str>,
) -> Result<bool, MembersError> {
    check_topic(shared, &topic)?;
    let seat = Seat::member(user, topic);
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    let is_member = state.attendance.as_mut().is_some_and(|attendance| {
        attendance.local_members().get(&seat).is_some() || is_taken(attendance, &seat, &mut work)
    });
    drop(state);
    work.run();
    Ok(is_member)
}

/// Whether a seat is away, or has clients on other instances.
fn is_taken(attendance: &mut Attendance, seat: &Seat, work: &mut Work<'_>) -> bool {
    attendance.roster(seat.kind()).is_away(seat, work)
        || attendance.remote().is_some_and(|remote| remote.instances_of(seat) > 0)
}

/// Checks that the hub knows the members of a topic.
fn check_topic(shared: &Shared, topic: &Arc<str>) -> Result<(), MembersError> {
    Key::Topic(Arc::clone(topic)).check(shared.config.limits.name_len)?;
    let selects = shared.config.presence.is_some_and(|presence| presence.selects(topic));
    selects.then_some(()).ok_or(MembersError::Off)
}

pub(super) fn users(shared: &Shared) -> Vec<UserInfo> {
    let mut work = Work::begin(&shared.config);
    let users = list(&mut shared.state.lock(), None, &mut work);
    work.run();
    users
}

pub(super) fn users_in(shared: &Shared, topic: Arc<str>) -> Result<Vec<UserInfo>, MembersError> {
    check_topic(shared, &topic)?;
    let mut work = Work::begin(&shared.config);
    let users = list(&mut shared.state.lock(), Some(&topic), &mut work);
    work.run();
    Ok(users)
}

/// Lists the members of a topic, or all users: those that are away, those with local clients, and
/// those that only other instances have.
fn list(state: &mut State, topic: Option<&Arc<str>>, work: &mut Work<'_>) -> Vec<UserInfo> {
    let State { attendance, routes, .. } = state;
    let name = topic.map(|topic| &**topic);
    let info = |user: &Arc<str>, clients, other_instances| UserInfo {
        user: Arc::clone(user),
        clients,
        other_instances,
    };
    let mut users = Vec::new();
    if let Some(attendance) = attendance {
        let kind = if topic.is_some() { SeatKind::Member } else { SeatKind::User };
        users.extend(attendance.roster(kind).away(name, work).map(|user| info(user, 0, 0)));
    }
    let attendance = attendance.as_ref();
    let remote = attendance.and_then(|attendance| attendance.remote());
    let members = attendance.map(|attendance| attendance.local_members());
    let seat = |user: &Arc<str>| Seat { user: Arc::clone(user), topic: topic.cloned() };
    let other_instances = |user| remote.map_or(0, |remote| remote.instances_of(&seat(user)));
    if topic.is_none() {
        users.extend(routes.lists().filter_map(|(key, clients)| match key {
            Key::User(user) => Some(info(user, clients, other_instances(user))),
            _ => None,
        }));
    } else {
        let members = members.into_iter().flat_map(|members| members.of(name));
        users.extend(members.map(|(user, &clients)| info(user, clients, other_instances(user))));
    }
    let is_here = |user: &Arc<str>| match topic {
        None => !routes.members(&Key::User(Arc::clone(user))).is_empty(),
        Some(_) => members.is_some_and(|members| members.get(&seat(user)).is_some()),
    };
    let elsewhere = remote.into_iter().flat_map(|remote| remote.seats().of(name));
    let elsewhere = elsewhere.filter(|(user, _)| !is_here(user));
    users.extend(elsewhere.map(|(user, &instances)| info(user, 0, instances)));
    users
}

impl Watch {
    fn open(shared: &Arc<Shared>, kind: SeatKind) -> Result<Self, WatchError> {
        let mut work = Work::begin(&shared.config);
        let key = {
            let mut state = shared.state.lock();
            let attendance = state.attendance.as_mut().ok_or(WatchError::Off)?;
            attendance.roster(kind).watch(&mut work)
        };
        work.run();
        let idle = IdleDeadline::new(None);
        Ok(Self { shared: Arc::clone(shared), kind, key, idle })
    }

    /// Returns the next change, or `Some(None)` if the watcher missed changes.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Option<UserChange>>> {
        loop {
            let mut work = Work::begin(&self.shared.config);
            // Cloned before the lock is taken, and dropped after it: both are foreign code.
            sync::assert_unlocked();
            let mut waker = Some(cx.waker().clone());
            let sight = {
                let mut state = self.shared.state.lock();
                let Some(attendance) = &mut state.attendance else { return Poll::Ready(None) };
                attendance.roster(self.kind).poll(self.key, &mut waker, &mut work)
            };
            drop(waker);
            work.run();
            let next = match sight {
                Sight::Event(change) => return Poll::Ready(Some(Some(change))),
                Sight::Missed => return Poll::Ready(Some(None)),
                Sight::Closed => return Poll::Ready(None),
                Sight::Nothing(next) => next,
            };
            // When the grace period is over, the next round finds the seat that is empty.
            ready!(self.idle.poll(cx, &*self.shared.config.timer, next));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let held = {
            let mut state = self.shared.state.lock();
            let attendance = state.attendance.as_mut();
            attendance.map(|attendance| attendance.roster(self.kind).unwatch(self.key))
        };
        drop(held);
    }
}

impl Stream for PresenceWatch {
    type Item = PresenceEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceEvent>> {
        let change = ready!(self.get_mut().0.poll(cx));
        Poll::Ready(change.map(|change| match change {
            Some(UserChange::Joined(seat)) => PresenceEvent::Joined { user: seat.user },
            Some(UserChange::Left(seat, reason)) => PresenceEvent::Left { user: seat.user, reason },
            None => PresenceEvent::Missed,
        }))
    }
}

impl Stream for TopicWatch {
    type Item = TopicEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TopicEvent>> {
        let change = ready!(self.get_mut().0.poll(cx));
        // Each seat in the roster of members has a topic.
        Poll::Ready(change.map(|change| match change {
            Some(UserChange::Joined(Seat { user, topic })) => {
                TopicEvent::Joined { user, topic: topic.unwrap_or_default() }
            }
            Some(UserChange::Left(Seat { user, topic }, reason)) => {
                TopicEvent::Left { user, topic: topic.unwrap_or_default(), reason }
            }
            None => TopicEvent::Missed,
        }))
    }
}

impl fmt::Debug for PresenceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceWatch").finish_non_exhaustive()
    }
}

impl fmt::Debug for TopicWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicWatch").finish_non_exhaustive()
    }
}
