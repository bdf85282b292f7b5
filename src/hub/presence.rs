//! Presence, as users of the hub see it: the watch, and the list of users.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::shared::Shared;
use crate::core::deferred::Work;
use crate::core::remote::Remote;
use crate::core::roster::{PresenceEvent, Sight, UserInfo};
use crate::error::WatchError;
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
pub struct PresenceWatch {
    shared: Arc<Shared>,
    /// The key of this watcher in the roster.
    key: usize,
    /// Waits for the end of the next grace period.
    idle: IdleDeadline,
}

pub(super) fn watch(shared: &Arc<Shared>) -> Result<PresenceWatch, WatchError> {
    let mut work = Work::begin(&shared.config);
    let key = {
        let mut state = shared.state.lock();
        let roster = state.roster.as_mut().ok_or(WatchError::Off)?;
        roster.watch(&mut work)
    };
    work.run();
    let idle = IdleDeadline::new(None);
    Ok(PresenceWatch { shared: Arc::clone(shared), key, idle })
}

pub(super) fn is_online(shared: &Shared, user: Arc<str>) -> bool {
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    let is_online = state.roster.as_mut().is_some_and(|roster| roster.is_away(&user, &mut work))
        || state.remote.as_ref().is_some_and(|remote| remote.instances_of(&user) > 0)
        || !state.routes.members(&Key::User(user)).is_empty();
    drop(state);
    work.run();
    is_online
}

pub(super) fn users(shared: &Shared) -> Vec<UserInfo> {
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    let away = state.roster.iter_mut().flat_map(|roster| roster.away(&mut work));
    let away = away.map(|user| UserInfo { user: Arc::clone(user), clients: 0, other_instances: 0 });
    let mut users: Vec<UserInfo> = away.collect();
    let other_instances =
        |user: &str| state.remote.as_ref().map_or(0, |remote| remote.instances_of(user));
    users.extend(state.routes.lists().filter_map(|(key, clients)| match key {
        Key::User(user) => {
            let other_instances = other_instances(user);
            Some(UserInfo { user: Arc::clone(user), clients, other_instances })
        }
        _ => None,
    }));
    let remote = state.remote.iter().flat_map(Remote::users);
    users.extend(remote.filter_map(|(user, other_instances)| {
        let user = Arc::clone(user);
        let is_here = !state.routes.members(&Key::User(Arc::clone(&user))).is_empty();
        (!is_here).then_some(UserInfo { user, clients: 0, other_instances })
    }));
    drop(state);
    work.run();
    users
}

impl Stream for PresenceWatch {
    type Item = PresenceEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceEvent>> {
        let this = self.get_mut();
        loop {
            let mut work = Work::begin(&this.shared.config);
            // Cloned before the lock is taken, and dropped after it: both are foreign code.
            sync::assert_unlocked();
            let mut waker = Some(cx.waker().clone());
            let sight = {
                let mut state = this.shared.state.lock();
                let Some(roster) = &mut state.roster else { return Poll::Ready(None) };
                roster.poll(this.key, &mut waker, &mut work)
            };
            drop(waker);
            work.run();
            let next = match sight {
                Sight::Event(event) => return Poll::Ready(Some(event)),
                Sight::Closed => return Poll::Ready(None),
                Sight::Nothing(next) => next,
            };
            // When the grace period is over, the next round finds the user that has left.
            ready!(this.idle.poll(cx, &*this.shared.config.timer, next));
        }
    }
}

impl Drop for PresenceWatch {
    fn drop(&mut self) {
        let held = {
            let mut state = self.shared.state.lock();
            state.roster.as_mut().map(|roster| roster.unwatch(self.key))
        };
        drop(held);
    }
}

impl fmt::Debug for PresenceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceWatch").finish_non_exhaustive()
    }
}
