//! The connected clients by key.

use slab::Slab;
use smallvec::SmallVec;

use super::hash::{KeyHasher, KeyMap, is_sparse};
use super::identity::{Filter, Identity, Membership};
use super::key::Key;
use super::recipients::Recipients;
use crate::wire::id::EventId;

/// The members of each key, and the keys of each member.
///
/// `T` is the handle to a member. Adding and removing a member takes constant time per key. A key
/// without members is removed, because names come from outside.
#[derive(Debug)]
pub(crate) struct Routes<T> {
    hasher: KeyHasher,
    members: KeyMap<Members<T>>,
    slots: Slab<Slot<T>>,
}

/// Most keys have one member, such as the client's id and usually its session.
type Members<T> = SmallVec<[Member<T>; 1]>;

/// A member in the list of one key.
#[derive(Debug)]
pub(crate) struct Member<T> {
    pub(crate) reach: T,
    /// What a hand-out must know of the member, without following `reach`.
    pub(crate) tag: u32,
    slot: u32,
    /// The index of the key among the memberships of the slot.
    membership: u32,
}

impl<T> Member<T> {
    pub(crate) fn slot(&self) -> usize {
        self.slot as usize
    }
}

#[derive(Debug)]
struct Slot<T> {
    reach: T,
    tag: u32,
    memberships: Vec<Membership>,
}

impl<T: Clone> Routes<T> {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Self { hasher, members: KeyMap::new(), slots: Slab::new() }
    }

    /// Adds a member under the keys of `memberships`, which must differ, and returns its slot.
    /// `tag` is kept in the list of each key.
    ///
    /// The caller hashes the keys, before a lock is taken: a request may name many.
    pub(crate) fn add(&mut self, memberships: Vec<Membership>, reach: T, tag: u32) -> usize {
        let entry = self.slots.vacant_entry();
        let slot = entry.key();
        let Slot { reach, tag, memberships } = entry.insert(Slot { reach, tag, memberships });
        for (at, held) in memberships.iter_mut().enumerate() {
            let members = self.members.get_or_default(held.hash, &held.key);
            held.index = members.len() as u32;
            let (slot, membership) = (slot as u32, at as u32);
            members.push(Member { reach: reach.clone(), tag: *tag, slot, membership });
        }
        slot
    }

    /// Adds a key as the server asks, for events after `since`: the client gets the key back after
    /// a reconnect. Returns `false` if the member holds the key already. `State::join_topic` and
    /// `leave_topic` also count the members of topics: a call past them loses the count.
    pub(crate) fn join_by_server(&mut self, slot: usize, key: Key, since: EventId) -> bool {
        let Some(Slot { reach, tag, memberships }) = self.slots.get_mut(slot) else { return false };
        if let Some(held) = memberships.iter_mut().find(|held| held.key == key) {
            held.is_joined = true;
            return false;
        }
        let hash = self.hasher.key(&key);
        let members = self.members.get_or_default(hash, &key);
        let membership = memberships.len() as u32;
        members.push(Member { reach: reach.clone(), tag: *tag, slot: slot as u32, membership });
        let index = members.len() as u32 - 1;
        memberships.push(Membership { key, hash, since, is_joined: true, index });
        true
    }

    /// Sets the position after which a member holds the key that it joined last.
    pub(crate) fn hold_last_since(&mut self, slot: usize, since: EventId) {
        let memberships = self.slots.get_mut(slot).map(|slot| &mut slot.memberships);
        if let Some(held) = memberships.and_then(|memberships| memberships.last_mut()) {
            held.since = since;
        }
    }

    /// Sets the position after which a member holds each of its keys.
    pub(crate) fn hold_since(&mut self, slot: usize, since: impl Fn(&Key) -> EventId) {
        let Some(Slot { memberships, .. }) = self.slots.get_mut(slot) else { return };
        memberships.iter_mut().for_each(|held| held.since = since(&held.key));
    }

    /// Takes a key from a member. Returns `false` if the member does not hold the key.
    pub(crate) fn leave(&mut self, slot: usize, key: &Key) -> bool {
        let Some(Slot { memberships, .. }) = self.slots.get_mut(slot) else { return false };
        let Some(at) = memberships.iter().position(|held| held.key == *key) else { return false };
        let Membership { hash, index, .. } = memberships.swap_remove(at);
        // The last membership took the free index: its key's list must point there.
        if let Some(moved) = memberships.get(at)
            && let Some(members) = self.members.get_mut(moved.hash, &moved.key)
        {
            members[moved.index as usize].membership = at as u32;
        }
        self.unlist(hash, key, index as usize);
        true
    }

    /// Removes a member with all its keys, and returns the handle and the keys.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<(T, Vec<Membership>)> {
        let Slot { reach, memberships, .. } = self.slots.try_remove(slot)?;
        for Membership { key, hash, index, .. } in &memberships {
            self.unlist(*hash, key, *index as usize);
        }
        self.shrink();
        Some((reach, memberships))
    }

    /// Returns the slots of an audience's members, each once.
    pub(crate) fn matching(&self, recipients: &Recipients) -> Vec<usize> {
        let keys = recipients.keys();
        let holders = keys.iter().flat_map(|key| self.members(key));
        let matched = holders.map(Member::slot).filter(|&slot| {
            let member =
                Identity { memberships: self.memberships(slot), filter: &Filter::Everything };
            recipients.are_all_holders() || recipients.include(member, EventId::LAST)
        });
        let mut slots: Vec<usize> = matched.collect();
        if keys.len() > 1 {
            slots.sort_unstable();
            slots.dedup();
        }
        slots
    }

    /// Removes an element from the member list of a key, by moving the last element into its index.
    ///
    /// A hand-out walks a list from the end and releases the lock between pieces. It still meets
    /// every member that stays: an element moves only to a lower index, so it was met already or
    /// lies ahead.
    fn unlist(&mut self, hash: u64, key: &Key, index: usize) {
        let Some(members) = self.members.get_mut(hash, key) else { return };
        members.swap_remove(index);
        if let Some(moved) = members.get(index) {
            let memberships = &mut self.slots[moved.slot()].memberships;
            memberships[moved.membership as usize].index = index as u32;
        } else if members.is_empty() {
            self.members.remove(hash, key);
            return;
        }
        if is_sparse(members.len(), members.capacity()) {
            members.shrink_to_fit();
        }
    }

    /// Returns the members that hold this key.
    pub(crate) fn members(&self, key: &Key) -> &[Member<T>] {
        self.members_under(self.hasher.key(key), key)
    }

    /// Returns the members that hold the key with this hash.
    pub(crate) fn members_under(&self, hash: u64, key: &Key) -> &[Member<T>] {
        self.members.get(hash, key).map_or(&[], SmallVec::as_slice)
    }

    /// Returns every key with the number of its members.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (&Key, usize)> {
        self.members.iter().map(|(key, members)| (key, members.len()))
    }

    /// Returns the handle of the member in a slot.
    pub(crate) fn get(&self, slot: usize) -> Option<&T> {
        self.slots.get(slot).map(|slot| &slot.reach)
    }

    /// Returns the keys of the member in a slot.
    pub(crate) fn memberships(&self, slot: usize) -> &[Membership] {
        self.slots.get(slot).map_or(&[], |slot| &slot.memberships)
    }

    /// Returns all members in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.slots.iter().map(|(slot, member)| (slot, &member.reach))
    }

    /// Returns the number of members.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the length at which a list with an entry for some of the members must be pruned. At
    /// least half of a longer list is about members that left, so pruning pays for itself.
    pub(crate) fn prune_at(&self) -> usize {
        2 * self.len() + 64
    }

    /// Returns the number of keys with members.
    pub(crate) fn keys(&self) -> usize {
        self.members.len()
    }

    /// Gives memory back after a peak. A slab cannot move its elements, so the slots shrink only
    /// once all of them are free.
    fn shrink(&mut self) {
        self.members.shrink();
        if self.slots.is_empty() && is_sparse(0, self.slots.capacity()) {
            self.slots = Slab::new();
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::super::audience::Audience;
    use super::*;

    fn key(name: u8) -> Key {
        Key::Topic(name.to_string().into())
    }

    fn audience() -> impl Strategy<Value = Audience> {
        let topic = || (0..5u8).prop_map(|name| Audience::topic(name.to_string()));
        prop_oneof![
            topic(),
            (topic(), topic()).prop_map(|(one, other)| one.or(other)),
            (topic(), topic()).prop_map(|(one, other)| one.and(other)),
            (topic(), topic(), topic()).prop_map(|(one, two, three)| one.or(two).except(three)),
        ]
    }

    proptest! {
        #[test]
        fn members_of_an_audience_are_found_once(
            members in vec(btree_set(0..5u8, 0..4), 0..8),
            changes in vec((0..8usize, 0..5u8, any::<bool>()), 0..12),
            audience in audience(),
        ) {
            let hasher = KeyHasher::default();
            let mut routes = Routes::new(hasher.clone());
            for (number, names) in members.iter().enumerate() {
                let held = names.iter().map(|&name| Membership::of(key(name), &hasher)).collect();
                prop_assert_eq!(routes.add(held, number, 0), number);
            }
            for (slot, name, joins) in changes {
                if joins {
                    routes.join_by_server(slot, key(name), EventId::ORIGIN);
                } else {
                    routes.leave(slot, &key(name));
                }
            }
            let recipients = Recipients::new(&audience, &hasher);
            let mut matching = routes.matching(&recipients);
            matching.sort_unstable();
            let is_member = |&slot: &usize| {
                let memberships = routes.memberships(slot);
                let member = Identity { memberships, filter: &Filter::Everything };
                recipients.include(member, EventId::LAST)
            };
            let expected: Vec<usize> = (0..members.len()).filter(is_member).collect();
            prop_assert_eq!(matching, expected);
        }
    }

    #[test]
    fn memory_is_given_back_after_a_crowd() {
        let hasher = KeyHasher::default();
        let mut routes = Routes::new(hasher.clone());
        for number in 0..5_000 {
            let own = Membership::of(Key::User(number.to_string().into()), &hasher);
            routes.add(vec![own, Membership::of(Key::All, &hasher)], number, 0);
        }
        let room = |routes: &Routes<usize>| {
            let all = routes.members.get(hasher.key(&Key::All), &Key::All);
            (all.map_or(0, SmallVec::capacity), routes.members.allocated(), routes.slots.capacity())
        };
        let full = room(&routes);
        (3_000..5_000).for_each(|slot| drop(routes.remove(slot)));
        assert_eq!(room(&routes).0, full.0, "a list that is not sparse keeps its room");
        (500..3_000).for_each(|slot| drop(routes.remove(slot)));
        let (all, names, _) = room(&routes);
        assert!(all < full.0 / 2 && names < full.1 / 2, "{all} and {names} of {full:?}");
        (0..500).for_each(|slot| drop(routes.remove(slot)));
        let (all, _, slots) = room(&routes);
        assert_eq!((all, slots, routes.keys()), (0, 0, 0));
    }
}
