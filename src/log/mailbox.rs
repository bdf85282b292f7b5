use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::log::{Budget, Entry};
use crate::wire::id::EventId;

/// A client's bounded window on the tail of the log.
///
/// It holds weak handles: a client that does not read pins no event. One that falls behind, because more came than
/// the window holds or because the log let go of what was in it, is told to read the log from [`cursor`](Self::cursor).
#[derive(Debug)]
pub(crate) struct Mailbox {
    window: VecDeque<Weak<Entry>>,
    capacity: usize,
    /// All for this client up to here was taken.
    cursor: EventId,
    /// All for this client up to here was taken, is in the window, or is to be read from the log.
    tail: EventId,
    behind: bool,
    /// It is behind, and has begun to read the log.
    reading: bool,
    /// What was lost up to here is none of its concern.
    missable: EventId,
    /// How long something has waited without a read.
    waiting_since: Option<Instant>,
    /// Why a gap at the cursor is to be told before all else.
    owed: Option<&'static str>,
}

/// What there is to take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Batch,
    Nothing,
    /// Tell a gap that moves the client here, and why.
    Gap(EventId, &'static str),
    /// Read the log from the cursor.
    Behind,
}

impl Mailbox {
    /// A mailbox for a client at `cursor`, when the log is at `head`, that is told what it misses after `missable`.
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
            // A cursor ahead of the log has all up to there, whoever gave it.
            tail: head.max(cursor),
            behind,
            reading: behind,
            missable,
            waiting_since: behind.then_some(now),
            owed: None,
        }
    }

    /// Starts anew at its cursor, when what the log holds is no longer what it was.
    pub(crate) fn restart(&mut self, head: EventId, now: Instant) {
        let owed = self.owed;
        *self = Self::new(self.cursor, head, self.missable, self.capacity, now);
        self.owed = owed;
    }

    /// Moves to `cursor` without what lies between, which is told as a gap.
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

    /// The position after which a loss is to be told.
    pub(crate) fn told(&self) -> EventId {
        self.cursor.max(self.missable)
    }

    /// The newest event for this client.
    pub(crate) fn tail(&self) -> EventId {
        self.tail
    }

    /// Since when something has waited without a read.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    /// What waits for it has waited since `now` and not longer: it could not read before.
    pub(crate) fn wait_from(&mut self, now: Instant) {
        if let Some(since) = &mut self.waiting_since {
            *since = now;
        }
    }

    /// Adds an event for this client; `false` if it had that one already.
    ///
    /// Events come in order, but one that was appended before this client connected, or before it had read the log
    /// to its end, may still be on its way here.
    pub(crate) fn push(&mut self, entry: &Arc<Entry>) -> bool {
        if entry.id <= self.tail {
            return false;
        }
        if !self.behind {
            if self.window.is_empty() {
                // Nothing for this client lies between. Keeps the cursor fresh for whoever seldom gets anything.
                self.cursor = entry.id.before();
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

    /// Takes the oldest events of the window. The clock is read only if some are left.
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

    /// Whether the log is to be read next, and nothing told before.
    pub(crate) fn reads_the_log(&self) -> bool {
        self.behind && self.owed.is_none()
    }

    /// Whether a client that was live begins to read the log.
    pub(crate) fn starts_reading_the_log(&mut self) -> bool {
        !mem::replace(&mut self.reading, true)
    }

    /// The log was read up to `cursor` at `now`, and that is not all of it.
    pub(crate) fn advance(&mut self, cursor: EventId, now: Instant) {
        self.cursor = cursor;
        self.waiting_since = Some(now);
    }

    /// The log was read to its end, which is `head`, and cannot have grown since.
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
