//! Telling clients of an outage of the backplane.

use std::sync::atomic::Ordering;

use super::later::Later;
use super::shared::Shared;
use super::state::{PIECE, State};
use crate::log::key::Key;

impl Shared {
    /// Says that events are held up, or no longer; returns whether that is for a log.
    pub(super) fn degrade(&self, degraded: bool) -> bool {
        let now = self.config.timer.now();
        let mut state = self.state.lock();
        let is_for_a_log = state.link.degrade(degraded, now);
        let degraded = degraded || !state.link.loaded;
        let is_news = self.config.tells_degraded && state.link.outage.note(degraded, now);
        if is_news {
            // Under the lock, so that the last to say it is the one who knew last.
            self.tells_degraded.store(degraded, Ordering::Release);
        }
        drop(state);
        if is_news {
            self.wake_all();
        }
        is_for_a_log
    }

    /// Wakes every stream, a piece at a time. Whoever connects between two of them looks by itself: see
    /// [`Routes::remove`](crate::log::routes::Routes::remove) for why the rest are met.
    fn wake_all(&self) {
        let mut left = usize::MAX;
        while left > 0 {
            let mut later = Later::default();
            left = self.state.lock().wake_piece(left, &mut later);
            later.run();
        }
    }
}

impl State {
    /// Wakes the last clients before `left`, and returns how many are left.
    fn wake_piece(&self, left: usize, later: &mut Later) -> usize {
        let members = self.routes.members(&Key::All);
        let left = left.min(members.len());
        let rest = left.saturating_sub(PIECE);
        let clients = members[rest..left].iter().rev();
        later.extend(clients.filter_map(|member| member.reach.inbox.lock().waker.take()));
        rest
    }
}
