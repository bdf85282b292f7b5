//! The part of the port that presence goes through: who is here goes out, and who is elsewhere comes in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::backplane::Change;
use super::end::EndReason;
use super::feed::Feed;
use super::later::Later;
use super::shared::Shared;
use super::state::State;
use super::telemetry;
use crate::log::key::Key;
use crate::sync;

/// How many changes are made before the state lock is let go of.
const PIECE: usize = 256;

/// # Presence
///
/// An instance tells the others which users have clients with it, and is told the same of each of them. All of it is
/// about sets: what is told twice changes nothing, and an engine that has lost count begins anew with all of them.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::backplane::{Backplane, Feed, Outgoing, Unsent};
/// use sse_hub::{Hub, ManualTimer, Presence, Subscriber};
///
/// #[derive(Debug)]
/// struct Engine;
///
/// impl Backplane for Engine {
///     fn send(&self, event: Outgoing) -> Result<(), Unsent> {
///         Ok(()) // To be put into the order.
///     }
/// }
///
/// let hub = || {
///     let presence = Presence::with_grace(Duration::from_secs(10));
///     Hub::builder(ManualTimer::new()).presence(presence).backplane(Engine).build()
/// };
/// let (here, there) = (hub()?, hub()?);
/// let _tab = here.subscribe(Subscriber::new().user("ann"))?;
///
/// // What an engine does when it is told that there is something to tell.
/// let (from, to) = (Feed::of(&here).unwrap(), Feed::of(&there).unwrap());
/// to.changed("the first", from.take_changes(1000));
/// assert!(there.is_online("ann"));
/// to.absent("the first");
/// assert!(there.users()[0].elsewhere == 0, "away, until the grace is over");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Feed {
    /// How many users of other instances the hub wants to know of at most; `None` if it does not share
    /// [presence](crate::Presence).
    #[must_use]
    pub fn shares_presence(&self) -> Option<usize> {
        self.shared.upgrade().and_then(|shared| shared.config.presence.map(|on| on.elsewhere))
    }

    /// Takes the users that came or went since they were last taken, each once, and so many at most.
    ///
    /// [`Backplane::presence`](super::backplane::Backplane::presence) says when there are some. One who came and went
    /// between is not among them. What was taken is the engine's to tell.
    #[must_use]
    pub fn take_changes(&self, most: usize) -> Vec<Change> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let mut state = shared.state.lock();
        state.elsewhere.as_mut().map_or_else(Vec::new, |elsewhere| elsewhere.take(most))
    }

    /// Lists the users that have clients here. What is [taken](Self::take_changes) next has happened since.
    #[must_use]
    pub fn take_users(&self) -> Vec<Arc<str>> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let mut state = shared.state.lock();
        let Some(elsewhere) = &mut state.elsewhere else { return Vec::new() };
        elsewhere.forget_untold();
        let users = state.routes.lists().filter_map(|(key, _)| match key {
            Key::User(user) => Some(Arc::clone(user)),
            _ => None,
        });
        users.collect()
    }

    /// These users have clients at another instance, and no others have.
    pub fn present(&self, instance: &str, users: impl IntoIterator<Item = Arc<str>>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let users: HashSet<Arc<str>> = users.into_iter().collect();
        let mut gone = shared.users_at(instance);
        gone.retain(|user| !users.contains(user));
        let gone = gone.into_iter().map(|user| Change::Gone(user, EndReason::Left));
        shared.change(instance, users.into_iter().map(Change::Came).chain(gone));
    }

    /// Users came to another instance, or went.
    pub fn changed(&self, instance: &str, changes: impl IntoIterator<Item = Change>) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.change(instance, changes);
    }

    /// Another instance is gone, and all of its clients with it.
    pub fn absent(&self, instance: &str) {
        let Some(shared) = self.shared.upgrade() else { return };
        let users = shared.users_at(instance).into_iter();
        shared.change(instance, users.map(|user| Change::Gone(user, EndReason::Vanished)));
    }
}

impl Shared {
    fn users_at(&self, instance: &str) -> Vec<Arc<str>> {
        let state = self.state.lock();
        state.elsewhere.iter().flat_map(|elsewhere| elsewhere.at(instance).cloned()).collect()
    }

    /// Makes changes, a piece at a time: an instance can have as many users as there are clients, and others wait for
    /// the lock.
    fn change(&self, instance: &str, changes: impl IntoIterator<Item = Change>) {
        let max_len = self.config.limits.name_len;
        let is_name = |change: &Change| (1..=max_len).contains(&change.user().len());
        // Whoever calls this may compute them, which is foreign code.
        let changes: Vec<Change> = changes.into_iter().filter(is_name).collect();
        let now = self.config.timer.now();
        let mut later = Later::default();
        let mut is_full = false;
        let mut state = self.state.lock();
        for (at, change) in changes.into_iter().enumerate() {
            if at % PIECE == PIECE - 1 {
                state = sync::let_others(&self.state, state);
            }
            is_full |= state.note_elsewhere(instance, change, now, &mut later);
        }
        let tells = is_full && !std::mem::replace(&mut state.told_full, true);
        drop(state);
        later.run();
        if tells {
            telemetry::too_many_elsewhere();
        }
    }
}

impl State {
    /// A user came to another instance, or went. Returns whether there is no room to know that.
    fn note_elsewhere(
        &mut self,
        instance: &str,
        change: Change,
        now: Instant,
        later: &mut Later,
    ) -> bool {
        let (Some(elsewhere), Some(roster)) = (&mut self.elsewhere, &mut self.presence) else {
            return false;
        };
        let user = change.user();
        let key = Key::User(Arc::clone(user));
        let is_here = !self.routes.members(&key).is_empty();
        match &change {
            Change::Came(_) => match elsewhere.add(instance, user) {
                None => return true,
                Some(true) if !is_here => roster.arrive(Arc::clone(user), now, later),
                Some(_) => {}
            },
            Change::Gone(_, reason) => {
                if elsewhere.remove(instance, user) && !is_here {
                    roster.depart(user, *reason, later);
                }
            }
        }
        false
    }
}
