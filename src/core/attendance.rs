//! The presence of users and of members of topics, on this instance and on others.
//!
//! A seat is taken by its first client on any instance, and is empty after the grace period. The
//! same rules hold for users and for members; only the count of local clients differs: the routes
//! count the clients of a user, and this file counts those of a member.

use std::sync::Arc;

use super::backplane::UserChange;
use super::deferred::Work;
use super::end::EndReason;
use super::remote::{Added, Remote};
use super::roster::Roster;
use super::seats::{Seat, SeatKind, Seats};
use super::settings::Presence;

#[derive(Debug)]
pub(crate) struct Attendance {
    settings: Presence,
    users: Roster,
    members: Roster,
    /// The number of local clients of each member.
    clients: Seats<usize>,
    /// `None` if the hub has no backplane, or is closed.
    remote: Option<Remote>,
}

impl Attendance {
    pub(crate) fn new(settings: Presence, has_backplane: bool) -> Self {
        Self {
            settings,
            users: Roster::new(settings),
            members: Roster::new(settings),
            clients: Seats::default(),
            remote: has_backplane.then(|| Remote::new(settings.max_remote_users)),
        }
    }

    pub(crate) fn roster(&mut self, kind: SeatKind) -> &mut Roster {
        match kind {
            SeatKind::User => &mut self.users,
            SeatKind::Member => &mut self.members,
        }
    }

    pub(crate) fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    pub(crate) fn remote_mut(&mut self) -> Option<&mut Remote> {
        self.remote.as_mut()
    }

    /// The members of topics with local clients.
    pub(crate) fn local_members(&self) -> &Seats<usize> {
        &self.clients
    }

    /// A client of a user follows a topic from now on.
    pub(crate) fn enter(&mut self, user: &Arc<str>, topic: &Arc<str>, work: &mut Work<'_>) {
        if !self.settings.selects(topic) {
            return;
        }
        let seat = Seat { user: Arc::clone(user), topic: Some(Arc::clone(topic)) };
        if self.clients.increment(&seat) == 1 {
            self.arrive(seat, work);
        }
    }

    /// A client of a user, which followed a topic, does not follow it any more.
    pub(crate) fn exit(
        &mut self,
        user: &Arc<str>,
        topic: &Arc<str>,
        reason: EndReason,
        work: &mut Work<'_>,
    ) {
        if !self.settings.selects(topic) {
            return;
        }
        let seat = Seat { user: Arc::clone(user), topic: Some(Arc::clone(topic)) };
        if self.clients.decrement(&seat) == 0 {
            self.depart(seat, reason, work);
        }
    }

    /// The first local client of a seat came.
    pub(crate) fn arrive(&mut self, seat: Seat, work: &mut Work<'_>) {
        if let Some(remote) = &mut self.remote
            && remote.note_arrival(&seat)
        {
            work.note_presence_changed();
        }
        if self.remote.as_ref().is_none_or(|remote| remote.instances_of(&seat) == 0) {
            self.roster(seat.kind()).arrive(seat, work);
        }
    }

    /// The last local client of a seat left.
    pub(crate) fn depart(&mut self, seat: Seat, reason: EndReason, work: &mut Work<'_>) {
        if let Some(remote) = &mut self.remote
            && remote.note_departure(&seat, reason)
        {
            work.note_presence_changed();
        }
        if self.remote.as_ref().is_none_or(|remote| remote.instances_of(&seat) == 0) {
            self.roster(seat.kind()).depart(seat, reason, work);
        }
    }

    /// Applies a change of another instance. `is_user_here`: whether the user of a seat without a
    /// topic has local clients. Returns whether there is no room to know of the seat.
    pub(crate) fn hear(
        &mut self,
        instance: &str,
        change: UserChange,
        is_user_here: bool,
        work: &mut Work<'_>,
    ) -> bool {
        let Some(remote) = &mut self.remote else { return false };
        let is_here = match change.seat().kind() {
            SeatKind::User => is_user_here,
            SeatKind::Member => self.clients.get(change.seat()).is_some(),
        };
        match change {
            UserChange::Joined(seat) => match remote.add(instance, &seat) {
                Added::Full => return true,
                Added::First if !is_here => self.roster(seat.kind()).arrive(seat, work),
                Added::First | Added::Known => {}
            },
            UserChange::Left(seat, reason) => {
                if remote.remove(instance, &seat) && !is_here {
                    self.roster(seat.kind()).depart(seat, reason, work);
                }
            }
        }
        false
    }

    /// The hub is closed: watchers see the events before, and then the end. Returns the seats of
    /// other instances, to be freed without the lock. No departure is announced: other instances
    /// hear that this instance is gone.
    pub(crate) fn close(&mut self, work: &mut Work<'_>) -> Option<Remote> {
        self.users.close(work);
        self.members.close(work);
        self.remote.take()
    }
}
