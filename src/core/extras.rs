//! The parts of an inbox that most clients do not have.

use super::pacing::Pacing;
use crate::log::entry::{Batch, Budget};
use crate::log::pages::Older;
use crate::wire::id::EventId;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Events before the client's position, of which the client must get those after the first
    /// `sent`. The log can evict an event before the client reads it.
    unsent: Older,
    /// At most the number of events in `unsent`.
    sent: usize,
    pub(super) values: Option<Beginning>,
    pub(super) pacing: Option<Pacing>,
}

/// A client begins with the values of the log, and has not read all of them yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// Up to here the client reads values only.
    pub(crate) upto: EventId,
    /// How many values the log had evicted when the client was last told. `None`: the client was
    /// told nothing yet.
    pub(crate) told: Option<u64>,
}

impl Extras {
    pub(super) fn is_empty(&self) -> bool {
        !self.has_unsent() && self.values.is_none() && self.pacing.is_none()
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.unsent.len()
    }

    pub(super) fn add_unsent(&mut self, events: Older) {
        if self.has_unsent() {
            let mut all = [&self.unsent[self.sent..], &*events].concat();
            all.sort_by_key(|&(id, _)| id);
            // Topics can share an event.
            all.dedup_by_key(|&mut (id, _)| id);
            self.unsent = all.into();
        } else {
            self.unsent = events;
        }
        self.sent = 0;
    }

    /// Takes the oldest unsent events, within `budget`. Returns whether the log evicted some of
    /// these.
    pub(super) fn take_unsent(&mut self, budget: Budget, out: &mut Batch) -> bool {
        let (mut bytes, mut is_lost) = (0, false);
        while let Some((_, event)) = self.unsent.get(self.sent) {
            match event.upgrade() {
                None => is_lost = true,
                Some(entry) if budget.allows(out, bytes, &entry) => {
                    bytes += entry.len();
                    out.push(entry);
                }
                Some(_) => break,
            }
            self.sent += 1;
        }
        is_lost
    }
}
