use std::collections::HashMap;

use slab::Slab;
use smallvec::SmallVec;

use super::audience::{Key, Place};
use crate::wire::id::EventId;

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
    pub(crate) slot: usize,
    /// Which of the slot's places this is.
    place: usize,
}

#[derive(Debug)]
struct Slot<T> {
    reach: T,
    places: Vec<Place>,
}

impl<T: Clone> Routes<T> {
    pub(crate) fn new() -> Self {
        Self { members: HashMap::new(), slots: Slab::new() }
    }

    /// Adds a member under each of `keys`, which are all different, and returns its slot.
    pub(crate) fn add(&mut self, keys: Vec<Key>, reach: T) -> usize {
        let places = Vec::with_capacity(keys.len());
        let slot = self.slots.insert(Slot { reach, places });
        for key in keys {
            self.join(slot, key, EventId::ORIGIN);
        }
        slot
    }

    /// Adds a member to the holders of a key, for events after `since`; `false` if it is one.
    pub(crate) fn join(&mut self, slot: usize, key: Key, since: EventId) -> bool {
        let Some(Slot { reach, places }) = self.slots.get_mut(slot) else { return false };
        if places.iter().any(|place| place.key == key) {
            return false;
        }
        let members = self.members.entry(key.clone()).or_default();
        members.push(Member { reach: reach.clone(), slot, place: places.len() });
        places.push(Place { key, since, index: members.len() - 1 });
        true
    }

    /// Takes a member from the holders of a key; `false` if it is none.
    pub(crate) fn leave(&mut self, slot: usize, key: &Key) -> bool {
        let Some(Slot { places, .. }) = self.slots.get_mut(slot) else { return false };
        let Some(at) = places.iter().position(|place| place.key == *key) else { return false };
        let Place { index, .. } = places.swap_remove(at);
        if let Some(moved) = places.get(at)
            && let Some(members) = self.members.get_mut(&moved.key)
        {
            members[moved.index].place = at;
        }
        self.unlist(key, index);
        true
    }

    /// Removes a member from everywhere.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<T> {
        let Slot { reach, places } = self.slots.try_remove(slot)?;
        for Place { key, index, .. } in places {
            self.unlist(&key, index);
        }
        self.shrink();
        Some(reach)
    }

    /// Takes one out of the list of a key's members.
    ///
    /// The last takes its place. A hand-out that walks a list from its end, a piece at a time, therefore meets every
    /// member that stays: those that move have been met already.
    fn unlist(&mut self, key: &Key, index: usize) {
        let Some(members) = self.members.get_mut(key) else { return };
        members.swap_remove(index);
        if let Some(moved) = members.get(index) {
            self.slots[moved.slot].places[moved.place].index = index;
        } else if members.is_empty() {
            self.members.remove(key);
            return;
        }
        if members.capacity() > KEPT && members.len() < members.capacity() / 4 {
            members.shrink_to_fit();
        }
    }

    /// Who holds this key.
    pub(crate) fn members(&self, key: &Key) -> &[Member<T>] {
        self.members.get(key).map_or(&[], SmallVec::as_slice)
    }

    /// Every key, and how many hold it.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (&Key, usize)> {
        self.members.iter().map(|(key, members)| (key, members.len()))
    }

    /// How to reach the member in a slot.
    pub(crate) fn get(&self, slot: usize) -> Option<&T> {
        self.slots.get(slot).map(|slot| &slot.reach)
    }

    /// What a member holds.
    pub(crate) fn places(&self, slot: usize) -> &[Place] {
        self.slots.get(slot).map_or(&[], |slot| &slot.places)
    }

    /// Everybody, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.slots.iter().map(|(slot, member)| (slot, &member.reach))
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
