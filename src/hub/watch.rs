use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_core::Stream;

use super::elsewhere::Elsewhere;
use super::hub::Hub;
use super::later::Later;
use super::presence::{PresenceEvent, Roster, Sight, UserInfo};
use super::shared::Shared;
use super::state::State;
use crate::error::WatchError;
use crate::log::key::Key;
use crate::time::deadline::IdleDeadline;
use crate::time::heartbeat::Heartbeat;

/// Sees who comes and goes: [`Hub::watch`] makes it.
///
/// A `Stream` of [`PresenceEvent`]s, in one order for all that watch: a user's joins and leaves take turns. It is a
/// cursor in what the hub [keeps](crate::Presence::events) and not a queue of its own: one that is not read costs
/// nothing, and is told what it missed. When nothing happens it waits for the end of the next grace period with one
/// [`Sleep`](crate::Sleep), which no other task has to drive. It keeps no hub alive, and ends when the hub is closed.
///
/// # Cancel safety
///
/// An event is taken off only when it is returned, so a `next()` that is dropped before it is ready loses nothing.
///
/// Purposefully not `Clone`: watch again, which begins at a moment of its own.
#[must_use = "a watch sees nothing unless it is polled"]
pub struct PresenceWatch {
    shared: Arc<Shared>,
    place: usize,
    /// Waits for the next grace to be over, as a stream does for its end.
    idle: IdleDeadline,
}

impl Shared {
    fn watch(self: &Arc<Self>) -> Result<PresenceWatch, WatchError> {
        let now = self.config.timer.now();
        let mut later = Later::default();
        let place = {
            let mut state = self.state.lock();
            let roster = state.presence.as_mut().ok_or(WatchError::Off)?;
            roster.watch(now, &mut later)
        };
        later.run();
        let idle = IdleDeadline::new(Heartbeat::disabled());
        Ok(PresenceWatch { shared: Arc::clone(self), place, idle })
    }
}

impl State {
    fn is_online(&mut self, user: Arc<str>, now: Instant, later: &mut Later) -> bool {
        let is_away = |roster: &mut Roster| roster.is_away(&user, now, later);
        self.presence.as_mut().is_some_and(is_away)
            || self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.of(&user) > 0)
            || !self.routes.members(&Key::User(user)).is_empty()
    }

    fn users(&mut self, now: Instant, later: &mut Later) -> Vec<UserInfo> {
        let elsewhere = |user: &str| self.elsewhere.as_ref().map_or(0, |others| others.of(user));
        let here = self.routes.lists().filter_map(|(key, clients)| match key {
            Key::User(user) => {
                Some(UserInfo { user: Arc::clone(user), clients, elsewhere: elsewhere(user) })
            }
            _ => None,
        });
        let others = self.elsewhere.iter().flat_map(Elsewhere::users);
        let only_there = others.filter_map(|(user, elsewhere)| {
            let user = Arc::clone(user);
            let is_here = !self.routes.members(&Key::User(Arc::clone(&user))).is_empty();
            (!is_here).then_some(UserInfo { user, clients: 0, elsewhere })
        });
        let away = self.presence.iter_mut().flat_map(|roster| roster.away(now, later));
        let away = away.map(|user| UserInfo { user: Arc::clone(user), clients: 0, elsewhere: 0 });
        here.chain(only_there).chain(away).collect()
    }
}

/// # Presence
impl Hub {
    /// Watches who comes and goes from now on: with a [backplane](crate::HubBuilder::backplane) anywhere, of all instances
    /// that have presence on.
    ///
    /// To know who is there as well, watch first and then list: a change between the two is in the list already, and
    /// making it again to a set of users changes nothing.
    ///
    /// # Errors
    ///
    /// [`WatchError`], when the hub was built without [`presence`](crate::HubBuilder::presence).
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use std::time::Duration;
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{EndReason, Hub, ManualTimer, Presence, PresenceEvent, Subscriber};
    ///
    /// # futures_executor::block_on(async {
    /// let timer = ManualTimer::new();
    /// let grace = Duration::from_secs(10);
    /// let hub = Hub::builder(timer.clone()).presence(Presence::with_grace(grace)).build()?;
    /// let tab = hub.subscribe(Subscriber::new().user("ann"))?;
    ///
    /// let mut watch = hub.watch()?;
    /// let mut online: HashSet<_> = hub.users().into_iter().map(|info| info.user).collect();
    /// assert!(online.contains("ann"));
    ///
    /// // She reloads the page, which nobody is to notice.
    /// drop(tab);
    /// let tab = hub.subscribe(Subscriber::new().user("ann"))?;
    /// assert!(watch.next().now_or_never().is_none());
    ///
    /// // She closes it.
    /// drop(tab);
    /// assert!(hub.is_online("ann"), "she may come back");
    /// timer.advance(grace);
    /// match watch.next().await {
    ///     Some(PresenceEvent::Joined { user }) => drop(online.insert(user)),
    ///     Some(PresenceEvent::Left { user, reason }) => {
    ///         assert_eq!(reason, EndReason::Left);
    ///         online.remove(&user);
    ///     }
    ///     // It fell behind, and starts again.
    ///     Some(_) => online = hub.users().into_iter().map(|info| info.user).collect(),
    ///     None => println!("the hub is closed"),
    /// }
    /// assert!(online.is_empty() && !hub.is_online("ann"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn watch(&self) -> Result<PresenceWatch, WatchError> {
        self.shared().watch()
    }

    /// Whether a user has a client, on any instance, or is [away](crate::Presence) and may come back.
    #[must_use]
    pub fn is_online(&self, user: impl Into<Arc<str>>) -> bool {
        let (user, now) = (user.into(), self.shared().config.timer.now());
        let mut later = Later::default();
        let is_online = self.shared().state.lock().is_online(user, now, &mut later);
        later.run();
        is_online
    }

    /// Lists the users that are online, each once, in no particular order; also those that are
    /// [away](crate::Presence). Takes the time of going through all names that clients have.
    ///
    /// Without [`presence`](crate::HubBuilder::presence) nobody is away, and it lists those that have clients; with a
    /// backplane, of this instance only.
    #[must_use]
    pub fn users(&self) -> Vec<UserInfo> {
        let now = self.shared().config.timer.now();
        let mut later = Later::default();
        let users = self.shared().state.lock().users(now, &mut later);
        later.run();
        users
    }
}

impl Stream for PresenceWatch {
    type Item = PresenceEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceEvent>> {
        let this = self.get_mut();
        let timer = &this.shared.config.timer;
        loop {
            let now = timer.now();
            let mut later = Later::default();
            let (sight, old) = {
                let mut state = this.shared.state.lock();
                let Some(roster) = &mut state.presence else { return Poll::Ready(None) };
                roster.look(this.place, cx, now, &mut later)
            };
            drop(old);
            later.run();
            let next = match sight {
                Sight::Event(event) => return Poll::Ready(Some(event)),
                Sight::Closed => return Poll::Ready(None),
                Sight::Nothing(next) => next,
            };
            // When it is over, the next round finds who has left.
            ready!(this.idle.poll(cx, &**timer, next));
        }
    }
}

impl Drop for PresenceWatch {
    fn drop(&mut self) {
        let held = {
            let mut state = self.shared.state.lock();
            state.presence.as_mut().map(|roster| roster.unwatch(self.place))
        };
        drop(held);
    }
}

impl fmt::Debug for PresenceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceWatch").finish_non_exhaustive()
    }
}
