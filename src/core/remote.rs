//! The seats of other instances, and the local changes that are not announced yet.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::backplane::UserChange;
use super::end::EndReason;
use super::seats::{Seat, SeatKind, Seats};

/// Seats by instance, and the number of instances by seat.
#[derive(Debug)]
pub(crate) struct Remote {
    /// The most seats of a kind, each counted once per instance that has it.
    max_seats: usize,
    users: usize,
    members: usize,
    instances: HashMap<Arc<str>, Seats<()>>,
    /// On how many instances each seat is taken.
    seats: Seats<usize>,
    /// Seats whose local presence changed since the last announcement. If the seat is empty: why.
    /// Holds at most the seats that are taken here and those that were announced to be taken.
    unannounced: Seats<Option<EndReason>>,
    /// The limit was reached, and the log has the warning.
    is_limit_reported: bool,
}

/// The result of adding a seat that another instance reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// No other instance has the seat.
    First,
    /// Another instance has the seat already.
    Known,
    /// There is no room to remember the seat.
    Full,
}

impl Remote {
    pub(crate) fn new(max_seats: usize) -> Self {
        Self {
            max_seats,
            users: 0,
            members: 0,
            instances: HashMap::new(),
            seats: Seats::default(),
            unannounced: Seats::default(),
            is_limit_reported: false,
        }
    }

    /// On how many other instances a seat is taken.
    pub(crate) fn instances_of(&self, seat: &Seat) -> usize {
        self.seats.get(seat).copied().unwrap_or(0)
    }

    /// The seats of other instances.
    pub(crate) fn seats(&self) -> &Seats<usize> {
        &self.seats
    }

    /// The seats that are taken on an instance.
    pub(crate) fn seats_of(&self, instance: &str) -> impl Iterator<Item = Seat> {
        self.instances.get(instance).into_iter().flat_map(Seats::iter)
    }

    fn count(&mut self, seat: &Seat) -> &mut usize {
        match seat.kind() {
            SeatKind::User => &mut self.users,
            SeatKind::Member => &mut self.members,
        }
    }

    /// A seat is taken on an instance.
    pub(crate) fn add(&mut self, instance: &str, seat: &Seat) -> Added {
        if self.instances.get(instance).is_some_and(|seats| seats.get(seat).is_some()) {
            return Added::Known;
        }
        if *self.count(seat) >= self.max_seats {
            return Added::Full;
        }
        *self.count(seat) += 1;
        // A name is allocated once, on however many instances the user is.
        let seat = self.seats.with_known_names(seat);
        let is_first = self.seats.increment(&seat) == 1;
        if !self.instances.contains_key(instance) {
            self.instances.insert(instance.into(), Seats::default());
        }
        if let Some(seats) = self.instances.get_mut(instance) {
            seats.insert(seat, ());
        }
        if is_first { Added::First } else { Added::Known }
    }

    /// A seat is empty on an instance. Returns whether this instance alone had the seat.
    pub(crate) fn remove(&mut self, instance: &str, seat: &Seat) -> bool {
        let Some(seats) = self.instances.get_mut(instance) else { return false };
        if seats.remove(seat).is_none() {
            return false;
        }
        if seats.is_empty() {
            self.instances.remove(instance);
        }
        *self.count(seat) -= 1;
        self.seats.decrement(seat) == 0
    }

    /// The limit is reached. Returns whether the log needs the warning, once in a hub's life.
    pub(crate) fn report_limit(&mut self) -> bool {
        !mem::replace(&mut self.is_limit_reported, true)
    }

    /// A seat is taken on this instance. Returns whether the backplane must be told of changes.
    #[must_use]
    pub(crate) fn note_arrival(&mut self, seat: &Seat) -> bool {
        self.note(seat, None)
    }

    /// A seat is empty on this instance. Returns whether the backplane must be told of changes.
    #[must_use]
    pub(crate) fn note_departure(&mut self, seat: &Seat, reason: EndReason) -> bool {
        self.note(seat, Some(reason))
    }

    fn note(&mut self, seat: &Seat, reason: Option<EndReason>) -> bool {
        let was_empty = self.unannounced.is_empty();
        // A change that is not announced yet is the opposite change: together they are none.
        if self.unannounced.remove(seat).is_none() {
            self.unannounced.insert(seat.clone(), reason);
        }
        was_empty && !self.unannounced.is_empty()
    }

    /// Takes at most `most` changes to announce.
    pub(crate) fn take_changes(&mut self, most: usize) -> Vec<UserChange> {
        let taken = self.unannounced.take_some(most).into_iter();
        let changes = taken.map(|(seat, reason)| match reason {
            None => UserChange::Joined(seat),
            Some(reason) => UserChange::Left(seat, reason),
        });
        changes.collect()
    }

    /// Every seat is announced.
    pub(crate) fn clear_changes(&mut self) {
        self.unannounced = Seats::default();
    }
}
