//! What is done once no lock is held, because it is foreign code: waking tasks, and telling `tracing` and the backplane.

use std::sync::Arc;
use std::task::Waker;

use tracing::level_filters::LevelFilter;

use super::backplane::Backplane;
use super::end::EndReason;
use super::telemetry;
use crate::log::key::ClientId;

/// Collected under the locks.
#[derive(Debug, Default)]
#[must_use = "who waits is woken only if it is run"]
pub(super) struct Later {
    wakers: Vec<Waker>,
    ended: Vec<Ended>,
    /// There are users that came or went.
    told: Option<Arc<dyn Backplane>>,
}

/// A client that was forgotten.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) client: ClientId,
    pub(super) has_user: bool,
    pub(super) reason: EndReason,
}

impl Later {
    pub(super) fn tell(&mut self, ended: Ended) {
        // Asks a number and not the subscriber: all clients can end in one go, and mostly nobody wants to read it.
        if LevelFilter::current() >= LevelFilter::DEBUG {
            self.ended.push(ended);
        }
    }

    /// Tells the backplane, if it is given, of users that came or went.
    pub(super) fn tell_presence(&mut self, backplane: Option<Arc<dyn Backplane>>) {
        self.told = self.told.take().or(backplane);
    }

    /// To be called when no lock is held.
    pub(super) fn run(self) {
        if let Some(backplane) = self.told {
            backplane.presence();
        }
        self.wakers.into_iter().for_each(Waker::wake);
        for Ended { client, has_user, reason } in self.ended {
            telemetry::ended(client, has_user, reason);
        }
    }
}

impl Extend<Waker> for Later {
    fn extend<T: IntoIterator<Item = Waker>>(&mut self, wakers: T) {
        self.wakers.extend(wakers);
    }
}
