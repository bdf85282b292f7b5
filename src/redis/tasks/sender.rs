//! Sends what the outbox holds, batch by batch.

use std::collections::VecDeque;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use crate::backplane::{Feed, Outgoing};
use crate::redis::connect::back_off::BackOff;
use crate::redis::health::Part;
use crate::redis::shared::Shared;
use crate::redis::store::outbox::weight;
use crate::wire::id::EventId;

impl Shared {
    /// Sends until the hub is closed and all is acknowledged.
    ///
    /// One batch is under way at a time, and it is sent again as it is until it is answered: Redis knows it by the number
    /// of its first event, so a lost answer costs neither an event nor a second one.
    pub(crate) async fn send_all(&self, feed: &Feed) {
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
            let waits = !*self.is_loaded.borrow() && !self.outbox.is_closed();
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
        let taken =
            shared.scripts.publish(connection, floor, self.newest, self.first, events).await?;
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
