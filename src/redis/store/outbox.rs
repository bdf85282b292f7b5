//! The events that wait to be sent to Redis, in order.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::backplane::{Outgoing, SendError};

/// The limits of a batch: Redis serves no other client while the script runs.
const BATCH_EVENTS: usize = 1024;
pub(crate) const BATCH_BYTES: usize = 512 << 10;

/// The memory that an event takes in addition to its bytes, about.
const OVERHEAD: usize = 64;

/// A bounded queue from the publishers to the sender.
pub(crate) struct Outbox {
    most_events: usize,
    most_bytes: usize,
    queue: Mutex<Queue>,
    /// There is a new event, or the queue is closed, or sending may begin.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Queue {
    /// The events that the sender has not taken.
    events: VecDeque<Outgoing>,
    /// The number of events that are not acknowledged: those of `events` and of the batch that the
    /// sender has taken.
    count: usize,
    /// The size of those, in bytes.
    bytes: usize,
    is_closed: bool,
}

impl Outbox {
    pub(crate) fn new(most_events: usize, most_bytes: usize) -> Self {
        let (queue, changed) = (Mutex::default(), Notify::new());
        Self { most_events, most_bytes, queue, changed }
    }

    pub(crate) fn push(&self, event: Outgoing) -> Result<(), SendError> {
        {
            let mut queue = self.queue.lock();
            let bytes = weight(&event);
            if queue.is_closed {
                return Err(SendError::Closed);
            }
            // An event that is larger than the whole queue may wait alone.
            let is_full = queue.count > 0 && queue.bytes.saturating_add(bytes) > self.most_bytes;
            if is_full || queue.count >= self.most_events {
                return Err(SendError::Full);
            }
            queue.count += 1;
            queue.bytes += bytes;
            queue.events.push_back(event);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Wakes the sender: the end of the stream is known.
    pub(crate) fn begin(&self) {
        self.changed.notify_one();
    }

    /// Refuses further events.
    pub(crate) fn close(&self) {
        self.queue.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Drops all events that are not acknowledged, and returns how many those are: also those of
    /// the batch that the sender had taken. The sender must have been dropped before.
    pub(crate) fn abandon(&self) -> usize {
        let (left, events) = {
            let mut queue = self.queue.lock();
            queue.is_closed = true;
            let events = std::mem::take(&mut queue.events);
            queue.bytes = 0;
            (std::mem::take(&mut queue.count), events)
        };
        // After the lock: each drop wakes the publisher that waits for the confirmation.
        drop(events);
        left
    }

    /// Returns how many events are not acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.queue.lock().count
    }

    /// Takes the next batch, of about `most` bytes.
    pub(crate) fn fill(&self, batch: &mut VecDeque<Outgoing>, most: usize) {
        let mut queue = self.queue.lock();
        let mut bytes = 0;
        while let Some(next) = queue.events.front() {
            bytes += weight(next);
            if batch.len() >= BATCH_EVENTS || (bytes > most && !batch.is_empty()) {
                break;
            }
            batch.extend(queue.events.pop_front());
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().is_closed
    }

    /// Whether nothing is left to take, and nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        let queue = self.queue.lock();
        queue.is_closed && queue.events.is_empty()
    }

    pub(crate) fn acknowledged(&self, events: usize, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.count -= events;
        queue.bytes -= bytes;
    }
}

/// Returns the memory that an event takes while it waits.
pub(crate) fn weight(event: &Outgoing) -> usize {
    let names = event.key().map_or(0, str::len) + event.value_of().map_or(0, <[u8]>::len);
    event.entry().len() + names + OVERHEAD
}
