//! Who is online at other instances, and what those are still to be told of this one: plain bookkeeping behind the
//! state lock.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::backplane::{Backplane, Change};
use super::end::EndReason;
use crate::log::shrink::shrink;

/// Users by instance, and instances by user.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// Who is told that there is something to tell.
    backplane: Arc<dyn Backplane>,
    /// How many users there may be, counted once for each instance that has them.
    most: usize,
    count: usize,
    instances: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// On how many of them each is.
    users: HashMap<Arc<str>, usize>,
    /// Users whose being here or not is other than was told last; why their last client ended, of those that are not.
    /// So there are never more than are here and were told to be.
    untold: HashMap<Arc<str>, Option<EndReason>>,
}

impl Elsewhere {
    pub(super) fn new(backplane: Arc<dyn Backplane>, most: usize) -> Self {
        Self {
            backplane,
            most,
            count: 0,
            instances: HashMap::new(),
            users: HashMap::new(),
            untold: HashMap::new(),
        }
    }

    /// On how many other instances a user is.
    pub(super) fn of(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    pub(super) fn users(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.users.iter().map(|(user, &instances)| (user, instances))
    }

    /// The users of an instance.
    pub(super) fn at(&self, instance: &str) -> impl Iterator<Item = &Arc<str>> {
        self.instances.get(instance).into_iter().flatten()
    }

    /// A user is at an instance. Returns whether they were at none, or nothing if there is no room to know that.
    pub(super) fn add(&mut self, instance: &str, user: &Arc<str>) -> Option<bool> {
        if self.instances.get(instance).is_some_and(|users| users.contains(user)) {
            return Some(false);
        }
        if self.count >= self.most {
            return None;
        }
        // One allocation for a name, on however many instances.
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
        Some(*instances == 1)
    }

    /// A user is not at an instance. Returns whether they are at none any more.
    pub(super) fn remove(&mut self, instance: &str, user: &str) -> bool {
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

    /// A user is here who was not. Returns whom to tell that there is something to tell, if that is new.
    #[must_use]
    pub(super) fn came(&mut self, user: &Arc<str>) -> Option<Arc<dyn Backplane>> {
        self.note(user, None)
    }

    /// A user is not here any more. Returns as [`came`](Self::came) does.
    #[must_use]
    pub(super) fn went(&mut self, user: &Arc<str>, why: EndReason) -> Option<Arc<dyn Backplane>> {
        self.note(user, Some(why))
    }

    fn note(&mut self, user: &Arc<str>, why: Option<EndReason>) -> Option<Arc<dyn Backplane>> {
        let was_empty = self.untold.is_empty();
        // What was not told yet is the other: both together are nothing to tell.
        if self.untold.remove(user).is_none() {
            self.untold.insert(Arc::clone(user), why);
        }
        (was_empty && !self.untold.is_empty()).then(|| Arc::clone(&self.backplane))
    }

    /// Takes what is to be told, so much at most.
    pub(super) fn take(&mut self, most: usize) -> Vec<Change> {
        let change = |(user, why)| match why {
            None => Change::Came(user),
            Some(reason) => Change::Gone(user, reason),
        };
        if self.untold.len() <= most {
            return mem::take(&mut self.untold).into_iter().map(change).collect();
        }
        let taken = self.untold.extract_if(|_, _| true).take(most).map(change).collect();
        shrink(&mut self.untold);
        taken
    }

    /// Everything is told.
    pub(super) fn forget_untold(&mut self) {
        self.untold = HashMap::new();
    }
}
