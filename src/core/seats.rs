//! Seats: presence counts the users of the hub, and the users in each topic. Each is a seat.

use std::collections::HashMap;
use std::sync::Arc;

use crate::log::hash::shrink;
use crate::log::name::Name;

/// A user, or a user as a member of a topic: presence counts both in the same way.
///
/// ```
/// use sse_hub::backplane::Seat;
///
/// let ann = Seat::user("ann");
/// let ann_in_room = Seat::member("ann", "room-7");
/// assert_eq!(ann_in_room.topic.as_deref(), Some("room-7"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Seat {
    /// The user.
    pub user: Arc<str>,
    /// The topic, if the seat is that of a member.
    pub topic: Option<Arc<str>>,
}

impl Seat {
    /// Creates the seat of a user.
    pub fn user(user: impl Into<Name>) -> Self {
        Self { user: user.into().into_inner(), topic: None }
    }

    /// Creates the seat of a member of a topic.
    pub fn member(user: impl Into<Name>, topic: impl Into<Name>) -> Self {
        Self { user: user.into().into_inner(), topic: Some(topic.into().into_inner()) }
    }

    pub(crate) fn kind(&self) -> SeatKind {
        if self.topic.is_some() { SeatKind::Member } else { SeatKind::User }
    }
}

impl From<&str> for Seat {
    /// The seat of a user.
    fn from(user: &str) -> Self {
        Self::user(user)
    }
}

impl From<Arc<str>> for Seat {
    /// The seat of a user.
    fn from(user: Arc<str>) -> Self {
        Self::user(user)
    }
}

/// The kinds of seats. Each kind has its own watchers and its own limits, so a crowd in the topics
/// cannot hide a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeatKind {
    User,
    Member,
}

/// A map by seat. Lists the seats of a topic without looking at the others.
#[derive(Debug)]
pub(crate) struct Seats<V> {
    users: HashMap<Arc<str>, V>,
    /// No topic is empty.
    topics: HashMap<Arc<str>, HashMap<Arc<str>, V>>,
    /// How many seats all topics have.
    members: usize,
}

impl<V> Default for Seats<V> {
    fn default() -> Self {
        Self { users: HashMap::new(), topics: HashMap::new(), members: 0 }
    }
}

impl<V> Seats<V> {
    pub(crate) fn len(&self) -> usize {
        self.users.len() + self.members
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, seat: &Seat) -> Option<&V> {
        match &seat.topic {
            None => self.users.get(&seat.user),
            Some(topic) => self.topics.get(topic)?.get(&seat.user),
        }
    }

    pub(crate) fn insert(&mut self, seat: Seat, value: V) -> Option<V> {
        let Some(topic) = seat.topic else { return self.users.insert(seat.user, value) };
        let before = self.topics.entry(topic).or_default().insert(seat.user, value);
        self.members += usize::from(before.is_none());
        before
    }

    pub(crate) fn remove(&mut self, seat: &Seat) -> Option<V> {
        let Some(topic) = &seat.topic else {
            let removed = self.users.remove(&seat.user);
            shrink(&mut self.users);
            return removed;
        };
        let users = self.topics.get_mut(topic)?;
        let removed = users.remove(&seat.user)?;
        self.members -= 1;
        if users.is_empty() {
            self.topics.remove(topic);
            shrink(&mut self.topics);
        } else {
            shrink(users);
        }
        Some(removed)
    }

    /// Returns the seats of a topic, or those of the users without a topic.
    pub(crate) fn of<'a>(
        &'a self,
        topic: Option<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> + use<'a, V> {
        let users = topic.map_or(Some(&self.users), |topic| self.topics.get(topic));
        users.into_iter().flatten()
    }

    /// Returns all seats.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Seat> {
        let users = self.users.keys().map(|user| Seat { user: Arc::clone(user), topic: None });
        let members = self.topics.iter().flat_map(|(topic, users)| {
            users.keys().map(|user| Seat { user: Arc::clone(user), topic: Some(Arc::clone(topic)) })
        });
        users.chain(members)
    }

    /// Returns the seat with the names of this map, so that a name is allocated once.
    pub(crate) fn with_known_names(&self, seat: &Seat) -> Seat {
        let known = seat.topic.as_ref().map(|topic| (topic, self.topics.get_key_value(topic)));
        let (topic, users) = match known {
            None => (None, None),
            Some((topic, None)) => (Some(topic), None),
            Some((_, Some((topic, users)))) => (Some(topic), Some(users)),
        };
        let user = users.and_then(|users| users.get_key_value(&seat.user));
        let user = user.or_else(|| self.users.get_key_value(&seat.user));
        let user = user.map_or(&seat.user, |(user, _)| user);
        Seat { user: Arc::clone(user), topic: topic.cloned() }
    }

    /// Removes at most `most` seats and returns them, in no particular order.
    pub(crate) fn take_some(&mut self, most: usize) -> Vec<(Seat, V)> {
        let mut taken = Vec::with_capacity(most.min(self.len()));
        let users = self.users.extract_if(|_, _| true).take(most);
        taken.extend(users.map(|(user, value)| (Seat { user, topic: None }, value)));
        let mut emptied = Vec::new();
        for (topic, users) in &mut self.topics {
            let room = most - taken.len();
            if room == 0 {
                break;
            }
            let users_before = users.len();
            taken.extend(
                users
                    .extract_if(|_, _| true)
                    .take(room)
                    .map(|(user, value)| (Seat { user, topic: Some(Arc::clone(topic)) }, value)),
            );
            self.members -= users_before - users.len();
            if users.is_empty() {
                emptied.push(Arc::clone(topic));
            }
        }
        for topic in emptied {
            self.topics.remove(&topic);
        }
        shrink(&mut self.users);
        shrink(&mut self.topics);
        taken
    }
}

impl Seats<usize> {
    /// Adds 1 to the count of a seat. Returns the count.
    pub(crate) fn increment(&mut self, seat: &Seat) -> usize {
        let users = match &seat.topic {
            None => &mut self.users,
            Some(topic) => self.topics.entry(Arc::clone(topic)).or_default(),
        };
        let count = users.entry(Arc::clone(&seat.user)).or_default();
        *count += 1;
        self.members += usize::from(*count == 1 && seat.topic.is_some());
        *count
    }

    /// Subtracts 1 from the count of a seat, and removes the seat at 0. Returns the count.
    pub(crate) fn decrement(&mut self, seat: &Seat) -> usize {
        let users = match &seat.topic {
            None => Some(&mut self.users),
            Some(topic) => self.topics.get_mut(topic),
        };
        let Some(count) = users.and_then(|users| users.get_mut(&seat.user)) else { return 0 };
        *count -= 1;
        let left = *count;
        if left == 0 {
            self.remove(seat);
        }
        left
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn seat() -> impl Strategy<Value = Seat> {
        ("[a-c]", prop::option::of("[r-s]"))
            .prop_map(|(user, topic)| Seat { user: user.into(), topic: topic.map(Arc::from) })
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(Seat, usize),
        Remove(Seat),
        Increment(Seat),
        Decrement(Seat),
        Take(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (seat(), 1..4usize).prop_map(|(seat, value)| Op::Insert(seat, value)),
            2 => seat().prop_map(Op::Remove),
            4 => seat().prop_map(Op::Increment),
            4 => seat().prop_map(Op::Decrement),
            1 => (0..5usize).prop_map(Op::Take),
        ]
    }

    proptest! {
        #[test]
        fn seats_match_a_flat_map(ops in vec(op(), 0..60)) {
            let mut seats = Seats::default();
            let mut flat: BTreeMap<Seat, usize> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(seat, value) => {
                        let before = flat.insert(seat.clone(), value);
                        prop_assert_eq!(seats.insert(seat, value), before);
                    }
                    Op::Remove(seat) => prop_assert_eq!(seats.remove(&seat), flat.remove(&seat)),
                    Op::Increment(seat) => {
                        let count = flat.entry(seat.clone()).or_default();
                        *count += 1;
                        prop_assert_eq!(seats.increment(&seat), *count);
                    }
                    Op::Decrement(seat) => {
                        let left = flat.get(&seat).map_or(0, |count| count - 1);
                        prop_assert_eq!(seats.decrement(&seat), left);
                        flat.remove(&seat);
                        flat.extend((left > 0).then_some((seat, left)));
                    }
                    Op::Take(most) => {
                        let taken = seats.take_some(most);
                        prop_assert_eq!(taken.len(), most.min(flat.len()));
                        for (seat, value) in taken {
                            prop_assert_eq!(flat.remove(&seat), Some(value));
                        }
                    }
                }
                prop_assert_eq!((seats.len(), seats.is_empty()), (flat.len(), flat.is_empty()));
                let mut all: Vec<Seat> = seats.iter().collect();
                all.sort();
                prop_assert!(all.iter().eq(flat.keys()), "{all:?}");
                for topic in [None, Some("r"), Some("s"), Some("t")] {
                    let of: BTreeMap<_, _> = seats.of(topic).collect();
                    let in_topic = flat.iter().filter(|(seat, _)| seat.topic.as_deref() == topic);
                    let expected = in_topic.map(|(seat, value)| (&seat.user, value));
                    prop_assert_eq!(of, expected.collect::<BTreeMap<_, _>>());
                }
                prop_assert!(seats.topics.values().all(|users| !users.is_empty()));
            }
        }
    }

    #[test]
    fn known_names_are_shared() {
        let mut seats = Seats::default();
        let (ann, in_room) = (Seat::user("ann"), Seat::member("bob", "room"));
        seats.insert(ann.clone(), ());
        seats.insert(in_room.clone(), ());
        let shares = |of: Seat, user: &Seat, topic: bool| {
            let known = seats.with_known_names(&of);
            assert_eq!(known, of);
            assert!(Arc::ptr_eq(&known.user, &user.user));
            let same = known.topic.as_ref().zip(in_room.topic.as_ref());
            assert_eq!(same.is_some_and(|(one, other)| Arc::ptr_eq(one, other)), topic);
        };
        shares(Seat::user("ann"), &ann, false);
        shares(Seat::member("ann", "room"), &ann, true);
        shares(Seat::member("bob", "room"), &in_room, true);
        shares(Seat::member("ann", "hall"), &ann, false);
    }
}
