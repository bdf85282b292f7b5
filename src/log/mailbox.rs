//! The window of a client on the tail of the log.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::entry::{Budget, Entry};
use crate::wire::id::EventId;

/// The newest events of a client that were not read yet, in a bounded window.
///
/// The window holds weak handles, so a client that does not read pins no event. A client falls
/// behind when the window overflows or when the log evicts an event of the window. Then the window
/// is dropped, and the client reads the log from its [`cursor`](Self::cursor).
#[derive(Debug)]
pub(crate) struct Mailbox {
    window: VecDeque<Weak<Entry>>,
    capacity: usize,
    /// The client took every event for it up to this position.
    cursor: EventId,
    /// Every event for the client up to this position was taken, is in the window, or will be read
    /// from the log. At least `cursor`.
    tail: EventId,
    /// The next events must be read from the log. The window is empty then.
    behind: bool,
    /// The client is behind and has begun to read the log.
    reading: bool,
    /// Losses up to this position are not reported: the client connected after them.
    missable: EventId,
    /// The time since which an event has waited for a read.
    waiting_since: Option<Instant>,
    /// The reason of a gap at the cursor that must be sent before anything else.
    owed: Option<&'static str>,
}

/// The result of [`Mailbox::take`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// At least one event was taken.
    Batch,
    Nothing,
    /// The caller must send a gap that moves the client to this position, for this reason.
    Gap(EventId, &'static str),
    /// The caller must read the log from the cursor.
    Behind,
}

impl Mailbox {
    /// Creates the mailbox of a client at `cursor`, with the log at `head`. Losses up to `missable`
    /// are not reported.
    pub(crate) fn new(
        cursor: EventId,
        head: EventId,
        missable: EventId,
        capacity: usize,
        now: Instant,
    ) -> Self {
        let behind = cursor < head;
        let window = VecDeque::new();
        Self {
            window,
            capacity,
            cursor,
            // A cursor ahead of the log came from another instance, which delivered up to there.
            tail: head.max(cursor),
            behind,
            reading: behind,
            missable,
            waiting_since: behind.then_some(now),
            owed: None,
        }
    }

    /// Restarts at the cursor, after the log was replaced.
    pub(crate) fn restart(&mut self, head: EventId, now: Instant) {
        let owed = self.owed;
        *self = Self::new(self.cursor, head, self.missable, self.capacity, now);
        self.owed = owed;
    }

    /// Moves the client to `cursor` and reports the skipped events as a gap.
    pub(crate) fn jump(
        &mut self,
        cursor: EventId,
        head: EventId,
        reason: &'static str,
        now: Instant,
    ) {
        *self = Self::new(cursor, head, cursor, self.capacity, now);
        self.owed = Some(reason);
        self.waiting_since = Some(now);
    }

    pub(crate) fn cursor(&self) -> EventId {
        self.cursor
    }

    /// Returns the position after which losses must be reported.
    pub(crate) fn told(&self) -> EventId {
        self.cursor.max(self.missable)
    }

    /// Returns the newest position for which the client needs no read of the log, see `tail`.
    pub(crate) fn tail(&self) -> EventId {
        self.tail
    }

    /// Returns the time since which an event has waited for a read.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    /// Restarts the waiting time at `now`, because the client could not read before.
    pub(crate) fn wait_from(&mut self, now: Instant) {
        if let Some(since) = &mut self.waiting_since {
            *since = now;
        }
    }

    /// Adds an event for this client. Returns `false` if the client has the event already.
    ///
    /// Events arrive in id order. A hand-out releases the state lock between pieces, so an event
    /// can arrive that was appended before the client connected or before it read the log to the
    /// end.
    pub(crate) fn push(&mut self, entry: &Arc<Entry>) -> bool {
        if entry.id <= self.tail {
            return false;
        }
        if !self.behind {
            if self.window.is_empty() {
                // No event for this client lies between. Moving the cursor keeps it inside the log
                // for a client that seldom gets an event.
                self.cursor = entry.id.predecessor();
            }
            if self.window.len() < self.capacity {
                self.window.push_back(Arc::downgrade(entry));
            } else {
                self.fall_behind();
            }
        }
        self.tail = entry.id;
        self.waiting_since.get_or_insert(entry.at);
        true
    }

    /// Takes the oldest events of the window. Reads the clock only if events are left.
    pub(crate) fn take(
        &mut self,
        budget: Budget,
        now: impl FnOnce() -> Instant,
        out: &mut Vec<Arc<Entry>>,
    ) -> Taken {
        if let Some(reason) = self.owed.take() {
            self.waiting_since = self.behind.then(now);
            return Taken::Gap(self.cursor, reason);
        }
        if self.behind {
            return Taken::Behind;
        }
        let mut bytes = 0;
        while let Some(oldest) = self.window.front() {
            let Some(entry) = oldest.upgrade() else {
                if !out.is_empty() {
                    break;
                }
                self.fall_behind();
                return Taken::Behind;
            };
            if !budget.allows(out, bytes, &entry) {
                break;
            }
            bytes += entry.len();
            self.cursor = entry.id;
            self.window.pop_front();
            out.push(entry);
        }
        if out.is_empty() {
            return Taken::Nothing;
        }
        self.waiting_since = if self.window.is_empty() { None } else { Some(now()) };
        Taken::Batch
    }

    /// Returns whether the log must be read next, with no gap to send before.
    pub(crate) fn reads_the_log(&self) -> bool {
        self.behind && self.owed.is_none()
    }

    /// Notes a read of the log. Returns whether the client was live before.
    pub(crate) fn starts_reading_the_log(&mut self) -> bool {
        !mem::replace(&mut self.reading, true)
    }

    /// Notes that the log was read up to `cursor` at `now`, with more to read.
    pub(crate) fn advance(&mut self, cursor: EventId, now: Instant) {
        self.cursor = cursor;
        self.waiting_since = Some(now);
    }

    /// Notes that the log was read to its end at `head`. The state lock must have been held since,
    /// so that the log cannot have grown.
    pub(crate) fn catch_up(&mut self, head: EventId) {
        self.cursor = head;
        self.tail = head;
        self.behind = false;
        self.reading = false;
        self.waiting_since = None;
    }

    fn fall_behind(&mut self) {
        self.window = VecDeque::new();
        self.behind = true;
    }
}
