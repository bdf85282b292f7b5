//! A client, as publishers see it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::end::{End, Ending};
use crate::log::entry::{Budget, Entry};
use crate::log::identity::Filter;
use crate::log::key::ClientId;
use crate::log::mailbox::{Mailbox, Waiting};
use crate::sync::Mutex;
use crate::wire::id::EventId;

/// An open stream.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    /// The number of this client among all clients that the hub ever let in. Tells clients apart
    /// that had the same slot.
    pub(crate) serial: u64,
    pub(crate) filter: Filter,
    pub(crate) inbox: Mutex<Inbox>,
}

/// The part of a client that the inbox lock guards: the client's position, its end, and its waker.
///
/// [`Mailbox`] decides how the client reads, [`Ending`] whether it takes events. The two meet only
/// here.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) mailbox: Mailbox,
    /// Where the stream began.
    pub(crate) start: EventId,
    /// Events before the client's position that the client must get, in the order of their ids. The
    /// log can evict an event before the client reads it.
    unsent: VecDeque<(EventId, Weak<Entry>)>,
    pub(crate) ending: Ending,
    /// Wakes the task that polls the stream. The thread that fills the inbox takes the
    /// waker.
    waker: Option<Waker>,
    /// The client stands in the list of clients that may stall.
    pub(crate) is_watched: bool,
}

impl Inbox {
    pub(crate) fn new(mailbox: Mailbox, ending: Ending) -> Self {
        let start = mailbox.cursor();
        let unsent = VecDeque::new();
        Self { mailbox, start, unsent, ending, waker: None, is_watched: false }
    }

    /// Adds events before the client's position.
    pub(crate) fn add_unsent(&mut self, events: Vec<(EventId, Weak<Entry>)>) {
        if !events.is_empty() {
            self.unsent.extend(events);
            self.unsent.make_contiguous().sort_by_key(|&(id, _)| id);
            // Topics can share an event.
            let mut last = None;
            self.unsent.retain(|&(id, _)| last.replace(id) != Some(id));
        }
    }

    /// Whether [`take_unsent`](Self::take_unsent) has events.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes the oldest events before the client's position, within `budget`. Returns whether the
    /// log evicted some of these.
    pub(crate) fn take_unsent(&mut self, budget: Budget, out: &mut Vec<Arc<Entry>>) -> bool {
        let (mut bytes, mut is_lost) = (0, false);
        while let Some((_, event)) = self.unsent.front() {
            match event.upgrade() {
                None => is_lost = true,
                Some(entry) if budget.allows(out, bytes, &entry) => {
                    bytes += entry.len();
                    out.push(entry);
                }
                Some(_) => break,
            }
            self.unsent.pop_front();
        }
        if self.unsent.is_empty() {
            // Most clients join rarely.
            self.unsent = VecDeque::new();
        }
        is_lost
    }

    /// Decides the end of the stream. Returns the waker of its task.
    pub(crate) fn end(&mut self, end: End) -> Option<Waker> {
        self.ending.decide(end);
        self.waker.take()
    }

    /// Takes the waker of the stream's task, which must be woken after the locks are released.
    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// Whether the task of `waker` will be woken.
    pub(crate) fn will_wake(&self, waker: &Waker) -> bool {
        self.waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }

    /// Registers the waker of the stream's task. Returns the previous waker, which must be dropped
    /// after the lock is released: its destructor is foreign code.
    pub(crate) fn register(&mut self, waker: Waker) -> Option<Waker> {
        self.waker.replace(waker)
    }

    /// When [`pass`](Self::pass) has something to do next.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        [self.ending.next_at(), self.mailbox.held_until()].into_iter().flatten().min()
    }

    /// Handles the deadlines that passed at `now`: ends the stream, or releases a client that was
    /// held too long.
    pub(crate) fn pass(&mut self, now: Instant, retry: Duration) {
        if self.mailbox.held_until().is_some_and(|until| until <= now) {
            // The backplane did not answer in time: report every loss, and request none again.
            self.mailbox.release(EventId::LAST, now);
        }
        self.ending.pass(now, retry);
    }

    /// Since when events have waited for the stream to be read.
    pub(crate) fn waiting(&self) -> Waiting {
        self.mailbox.waiting()
    }
}
