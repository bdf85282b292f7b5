use std::collections::VecDeque;
use std::sync::{Arc, Weak};

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
}

/// What there is to take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Batch,
    Nothing,
    /// Read the log from the cursor.
    Behind,
}

impl Mailbox {
    /// A mailbox for a client at `cursor`, when the log is at `head`.
    pub(crate) fn new(cursor: EventId, head: EventId, capacity: usize) -> Self {
        Self { window: VecDeque::new(), capacity, cursor, tail: head, behind: cursor < head }
    }

    pub(crate) fn cursor(&self) -> EventId {
        self.cursor
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
        true
    }

    /// Takes the oldest events of the window.
    pub(crate) fn take(&mut self, budget: Budget, out: &mut Vec<Arc<Entry>>) -> Taken {
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
        if out.is_empty() { Taken::Nothing } else { Taken::Batch }
    }

    /// The log was read up to `cursor`, and that is not all of it.
    pub(crate) fn advance(&mut self, cursor: EventId) {
        self.cursor = cursor;
    }

    /// The log was read to its end, which is `head`, and cannot have grown since.
    pub(crate) fn catch_up(&mut self, head: EventId) {
        self.cursor = head;
        self.tail = head;
        self.behind = false;
    }

    fn fall_behind(&mut self) {
        self.window = VecDeque::new();
        self.behind = true;
    }
}
