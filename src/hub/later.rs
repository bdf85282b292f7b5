//! What is done once no lock is held, because it is foreign code: waking tasks and telling `tracing`.

use std::task::Waker;

use tracing::level_filters::LevelFilter;

use super::end::EndReason;
use super::telemetry;
use crate::log::audience::ClientId;

/// Collected under the locks.
#[derive(Debug, Default)]
#[must_use = "who waits is woken only if it is run"]
pub(super) struct Later {
    wakers: Vec<Waker>,
    ended: Vec<Ended>,
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

    /// To be called when no lock is held.
    pub(super) fn run(self) {
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
