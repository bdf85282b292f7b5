//! What is on its way to Redis, in order, each event once.

use std::collections::VecDeque;

use parking_lot::Mutex;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;

use super::driver::{BackOff, Part, Shared};
use crate::backplane::{Feed, Outgoing, Unsent};
use crate::wire::id::EventId;

/// How much goes out in one script: Redis serves nobody else meanwhile.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 512 << 10;

/// A bounded queue from whoever publishes to the one that sends.
pub(super) struct Outbox {
    most_events: usize,
    most_bytes: usize,
    queue: Mutex<Queue>,
    changed: Notify,
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
    pub(super) fn new(most_events: usize, most_bytes: usize) -> Self {
        let (queue, changed) = (Mutex::default(), Notify::new());
        Self { most_events, most_bytes, queue, changed }
    }

    pub(super) fn push(&self, event: Outgoing) -> Result<(), Unsent> {
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
    pub(super) fn begin(&self) {
        self.changed.notify_one();
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_one();
    }

    /// Lets go of what is left, which nobody will send, and returns how much that is.
    pub(super) fn abandon(&self) -> usize {
        let left = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.events)
        };
        // Whoever waits for a confirmation is woken by this, and that is foreign code.
        left.len()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.lock().count
    }

    /// Adds to what is being sent.
    fn fill(&self, batch: &mut VecDeque<Outgoing>) {
        let mut queue = self.queue.lock();
        let mut bytes: usize = batch.iter().map(weight).sum();
        while let Some(next) = queue.events.front() {
            bytes += weight(next);
            if batch.len() >= BATCH || (bytes > BATCH_BYTES && !batch.is_empty()) {
                break;
            }
            batch.extend(queue.events.pop_front());
        }
    }

    fn is_over(&self) -> bool {
        let queue = self.queue.lock();
        queue.closed && queue.events.is_empty()
    }

    fn acknowledged(&self, events: usize, bytes: usize) {
        let mut queue = self.queue.lock();
        queue.count -= events;
        queue.bytes -= bytes;
    }
}

/// What it counts for while it waits.
fn weight(event: &Outgoing) -> usize {
    const BESIDE: usize = 64;
    event.entry().len() + event.key().map_or(0, str::len) + BESIDE
}

impl Shared {
    /// Sends until the hub is closed and all is acknowledged.
    ///
    /// One batch is under way at a time, and it is sent again as it is until it is answered: Redis knows it by the number
    /// of its first event, so a lost answer costs neither an event nor a second one.
    pub(super) async fn send_all(&self, feed: &Feed) {
        let mut sender = Sender {
            connection: None,
            batch: VecDeque::new(),
            first: 1,
            newest: EventId::ORIGIN,
            moves: 0,
        };
        let mut back_off = BackOff::default();
        loop {
            // A batch that was begun is repeated as it is.
            if sender.batch.is_empty() {
                self.outbox.fill(&mut sender.batch);
            }
            // Clients that wait for the end of the stream get what is published now after they were told where that is.
            // Of a hub that was closed there are none, and nobody looks for it any more.
            let waits = !*self.is_loaded.borrow() && !self.outbox.queue.lock().closed;
            if waits || sender.batch.is_empty() {
                if sender.batch.is_empty() && self.outbox.is_over() {
                    return;
                }
                self.outbox.changed.notified().await;
                continue;
            }
            let sent = sender.send(self, feed).await;
            let trouble =
                sent.map_err(|error| error.to_string()).and_then(|refused| match refused {
                    Some(refused) => Err(refused),
                    None => Ok(()),
                });
            if let Err(cause) = trouble {
                sender.connection = None;
                self.tell(feed, Part::Outbox, Some(&cause));
                back_off.wait().await;
            } else {
                back_off.reset();
                self.tell(feed, Part::Outbox, None);
            }
        }
    }
}

struct Sender {
    connection: Option<MultiplexedConnection>,
    batch: VecDeque<Outgoing>,
    /// The number of the batch's first event, of all that were ever sent.
    first: u64,
    /// The newest id that was confirmed.
    newest: EventId,
    /// How often the master had changed when the connection was made.
    moves: u64,
}

impl Sender {
    /// Sends the batch, and confirms what was taken of it. What Redis says against the rest, if it is refused.
    async fn send(&mut self, shared: &Shared, feed: &Feed) -> RedisResult<Option<String>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                self.moves = shared.moves.count();
                self.connection.insert(shared.connect().await?)
            }
        };
        shared.moves.check(self.moves)?;
        let events = self.batch.iter().map(|event| (&**event.entry(), event.key()));
        let floor = feed.head().max(self.newest);
        let taken = shared.scripts.publish(connection, floor, self.first, events).await?;
        self.first += taken.ids.len() as u64;
        let mut bytes = 0;
        let count = taken.ids.len();
        for (event, id) in self.batch.drain(..count.min(self.batch.len())).zip(taken.ids) {
            bytes += weight(&event);
            self.newest = self.newest.max(id);
            event.confirm(id);
        }
        shared.outbox.acknowledged(count, bytes);
        Ok(taken.failed)
    }
}
