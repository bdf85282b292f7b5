//! What is on its way to Redis, in order, each event once.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::backplane::{Outgoing, Unsent};

/// How much goes out in one script: Redis serves nobody else meanwhile.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 512 << 10;

/// A bounded queue from whoever publishes to the one that sends.
pub(crate) struct Outbox {
    most_events: usize,
    most_bytes: usize,
    queue: Mutex<Queue>,
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Outgoing>,
    /// With what is being sent.
    count: usize,
    bytes: usize,
    closed: bool,
}

impl Outbox {
    pub(crate) fn new(most_events: usize, most_bytes: usize) -> Self {
        let (queue, changed) = (Mutex::default(), Notify::new());
        Self { most_events, most_bytes, queue, changed }
    }

    pub(crate) fn push(&self, event: Outgoing) -> Result<(), Unsent> {
        {
            let mut queue = self.queue.lock();
            let bytes = weight(&event);
            if queue.closed {
                return Err(Unsent::Closed);
            }
            // One that is larger than all that may wait goes alone.
            let is_full = queue.count > 0 && queue.bytes + bytes > self.most_bytes;
            if is_full || queue.count >= self.most_events {
                return Err(Unsent::Full);
            }
            queue.count += 1;
            queue.bytes += bytes;
            queue.events.push_back(event);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// The end of the stream was found.
    pub(crate) fn begin(&self) {
        self.changed.notify_one();
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_one();
    }

    /// Lets go of what is left, which nobody will send, and returns how much that is.
    pub(crate) fn abandon(&self) -> usize {
        let left = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.events)
        };
        // Whoever waits for a confirmation is woken by this, and that is foreign code.
        left.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.lock().count
    }

    /// Takes what is to be sent next.
    pub(crate) fn fill(&self, batch: &mut VecDeque<Outgoing>) {
        let mut queue = self.queue.lock();
        let mut bytes = 0;
        while let Some(next) = queue.events.front() {
            bytes += weight(next);
            if batch.len() >= BATCH || (bytes > BATCH_BYTES && !batch.is_empty()) {
                break;
            }
            batch.extend(queue.events.pop_front());
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    pub(crate) fn is_over(&self) -> bool {
        let queue = self.queue.lock();
        queue.closed && queue.events.is_empty()
    }

    pub(crate) fn acknowledged(&self, events: usize, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.count -= events;
        queue.bytes -= bytes;
    }
}

/// What it counts for while it waits.
pub(crate) fn weight(event: &Outgoing) -> usize {
    const BESIDE: usize = 64;
    event.entry().len() + event.key().map_or(0, str::len) + BESIDE
}
