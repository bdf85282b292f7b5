//! The users of other instances, and the local changes that are not announced yet.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::backplane::UserChange;
use super::end::EndReason;
use crate::log::hash::shrink;

/// Users by instance, and instances by user.
#[derive(Debug)]
pub(crate) struct Remote {
    /// The most users, each counted once per instance that has it.
    max_users: usize,
    count: usize,
    instances: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// On how many instances each user is.
    users: HashMap<Arc<str>, usize>,
    /// Users whose local presence changed since the last announcement. If the user has left: why.
    /// Holds at most the users that are here and those that were announced to be here.
    unannounced: HashMap<Arc<str>, Option<EndReason>>,
    /// The limit was reached, and the log was told.
    is_limit_reported: bool,
}

/// The result of adding a user that another instance reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// The user was on no other instance.
    First,
    /// The user was on another instance already.
    Known,
    /// There is no room to remember the user.
    Full,
}

impl Remote {
    pub(crate) fn new(max_users: usize) -> Self {
        Self {
            max_users,
            count: 0,
            instances: HashMap::new(),
            users: HashMap::new(),
            unannounced: HashMap::new(),
            is_limit_reported: false,
        }
    }

    /// On how many other instances a user is.
    pub(crate) fn instances_of(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.users.iter().map(|(user, &instances)| (user, instances))
    }

    /// The users of an instance.
    pub(crate) fn users_of(&self, instance: &str) -> impl Iterator<Item = &Arc<str>> {
        self.instances.get(instance).into_iter().flatten()
    }

    /// A user is at an instance.
    pub(crate) fn add(&mut self, instance: &str, user: &Arc<str>) -> Added {
        if self.instances.get(instance).is_some_and(|users| users.contains(user)) {
            return Added::Known;
        }
        if self.count >= self.max_users {
            return Added::Full;
        }
        // A name is allocated once, on however many instances the user is.
        let user = Arc::clone(self.users.get_key_value(user).map_or(user, |(known, _)| known));
        if !self.instances.contains_key(instance) {
            self.instances.insert(instance.into(), HashSet::new());
        }
        if let Some(users) = self.instances.get_mut(instance) {
            users.insert(Arc::clone(&user));
        }
        self.count += 1;
        let instances = self.users.entry(user).or_default();
        *instances += 1;
        if *instances == 1 { Added::First } else { Added::Known }
    }

    /// A user is not at an instance. Returns whether the user was there, and is on no other.
    pub(crate) fn remove(&mut self, instance: &str, user: &str) -> bool {
        let Some(users) = self.instances.get_mut(instance) else { return false };
        if !users.remove(user) {
            return false;
        }
        if users.is_empty() {
            self.instances.remove(instance);
        }
        self.count -= 1;
        let Some(instances) = self.users.get_mut(user) else { return false };
        *instances -= 1;
        if *instances > 0 {
            return false;
        }
        self.users.remove(user);
        shrink(&mut self.users);
        true
    }

    /// The limit was reached. Returns whether the log must be told, which is once in a hub's life.
    pub(crate) fn report_limit(&mut self) -> bool {
        !mem::replace(&mut self.is_limit_reported, true)
    }

    /// A user came to this instance. Returns whether the backplane must be told of changes.
    #[must_use]
    pub(crate) fn note_arrival(&mut self, user: &Arc<str>) -> bool {
        self.note(user, None)
    }

    /// A user left this instance. Returns whether the backplane must be told of changes.
    #[must_use]
    pub(crate) fn note_departure(&mut self, user: &Arc<str>, reason: EndReason) -> bool {
        self.note(user, Some(reason))
    }

    fn note(&mut self, user: &Arc<str>, reason: Option<EndReason>) -> bool {
        let was_empty = self.unannounced.is_empty();
        // A change that is not announced yet is the opposite change: together they are none.
        if self.unannounced.remove(user).is_none() {
            self.unannounced.insert(Arc::clone(user), reason);
        }
        was_empty && !self.unannounced.is_empty()
    }

    /// Takes at most `most` changes to announce.
    pub(crate) fn take_changes(&mut self, most: usize) -> Vec<UserChange> {
        let change = |(user, reason)| match reason {
            None => UserChange::Joined(user),
            Some(reason) => UserChange::Left(user, reason),
        };
        if self.unannounced.len() <= most {
            return mem::take(&mut self.unannounced).into_iter().map(change).collect();
        }
        let taken = self.unannounced.extract_if(|_, _| true).take(most).map(change).collect();
        shrink(&mut self.unannounced);
        taken
    }

    /// Every user is announced.
    pub(crate) fn clear_changes(&mut self) {
        self.unannounced = HashMap::new();
    }
}
