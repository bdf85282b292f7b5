use std::collections::HashMap;

use slab::Slab;
use smallvec::SmallVec;

use super::audience::Key;

/// Who is connected, and under which keys.
///
/// `T` is what a member is reached by. Finding, adding and removing a member costs the same however many there are,
/// and a key without members is forgotten: names come from outside.
#[derive(Debug)]
pub(crate) struct Routes<T> {
    members: HashMap<Key, Members<T>>,
    slots: Slab<Slot<T>>,
}

/// Room that is kept though it is not used.
const KEPT: usize = 1024;

/// Most keys have one member: a client's own id, mostly its session.
type Members<T> = SmallVec<[Member<T>; 1]>;

/// A member, as one key lists it.
#[derive(Debug)]
pub(crate) struct Member<T> {
    pub(crate) reach: T,
    slot: usize,
    /// Which of the slot's places this is.
    place: usize,
}

#[derive(Debug)]
struct Slot<T> {
    reach: T,
    places: SmallVec<[Place; 4]>,
}

/// Where a member stands in the list of one of its keys.
#[derive(Debug)]
struct Place {
    key: Key,
    index: usize,
}

impl<T: Clone> Routes<T> {
    pub(crate) fn new() -> Self {
        Self { members: HashMap::new(), slots: Slab::new() }
    }

    /// Adds a member under each of `keys`, which are all different, and returns its slot.
    pub(crate) fn add(&mut self, keys: &[Key], reach: T) -> usize {
        let slot = self.slots.vacant_key();
        let places = keys.iter().enumerate().map(|(place, key)| {
            let members = self.members.entry(key.clone()).or_default();
            members.push(Member { reach: reach.clone(), slot, place });
            Place { key: key.clone(), index: members.len() - 1 }
        });
        let places = places.collect();
        self.slots.insert(Slot { reach, places })
    }

    /// Removes a member from everywhere.
    ///
    /// In each list the last member takes its place. A hand-out that walks a list from its end, a piece at a time,
    /// therefore meets every member that stays: those that move have been met already.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<T> {
        let Slot { reach, places } = self.slots.try_remove(slot)?;
        for Place { key, index } in places {
            let Some(members) = self.members.get_mut(&key) else { continue };
            members.swap_remove(index);
            if let Some(moved) = members.get(index) {
                self.slots[moved.slot].places[moved.place].index = index;
            } else if members.is_empty() {
                self.members.remove(&key);
            } else if members.capacity() > KEPT && members.len() < members.capacity() / 4 {
                members.shrink_to_fit();
            }
        }
        self.shrink();
        Some(reach)
    }

    /// Who holds this key.
    pub(crate) fn members(&self, key: &Key) -> &[Member<T>] {
        self.members.get(key).map_or(&[], SmallVec::as_slice)
    }

    /// Everybody.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|(_, slot)| &slot.reach)
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many keys have members.
    pub(crate) fn keys(&self) -> usize {
        self.members.len()
    }

    /// Gives memory back once three quarters of it are unused, so that a crowd that came once is not paid for ever.
    fn shrink(&mut self) {
        if self.members.capacity() > KEPT && self.members.len() < self.members.capacity() / 4 {
            self.members.shrink_to(self.members.len() * 2);
        }
        if self.slots.is_empty() && self.slots.capacity() > KEPT {
            self.slots = Slab::new();
        }
    }
}
