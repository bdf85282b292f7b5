//! Sends the events of the outbox, batch by batch: for a hub, or for a publisher without a hub.

use std::collections::VecDeque;
use std::sync::Arc;

use redis::{RedisError, RedisResult};

use crate::EventId;
use crate::backplane::{Feed, Outgoing};
use crate::redis::connect::back_off::BackOff;
use crate::redis::connect::link::{Failure, Link};
use crate::redis::health::{Burst, Part};
use crate::redis::shared::RedisShared;
use crate::redis::store::outbox::BATCH_BYTES;
use crate::redis::store::script::{BatchOf, CopyLimits, OfBatch};

/// The smallest limit for a batch, in bytes. A larger event is a batch of its own.
const LEAST_BYTES: usize = 1 << 10;

pub(crate) struct Sender {
    shared: Arc<RedisShared>,
    /// `None` for a publisher without a hub.
    feed: Option<Feed>,
    link: Link,
    /// The events that are on their way. A batch is sent again unchanged until it is answered:
    /// Redis knows it by the number of its first event, so a lost answer neither loses nor repeats
    /// events.
    batch: VecDeque<Outgoing>,
    /// The number of the batch's first event among all events of this sender.
    first: u64,
    /// See [`BatchOf::record`].
    record: u32,
    /// The newest confirmed id.
    newest: EventId,
    run_limits: CopyLimits,
    /// The limit for the next batch, in bytes: a slow line gets smaller batches.
    most_bytes: usize,
    /// Redis was out of memory, is trimmed, and has taken nothing since.
    has_trimmed: bool,
    trims: Burst,
    replacements: Burst,
}

/// Why Redis has not taken a batch, or a part of a batch.
enum Trouble {
    /// The connection failed, or Redis refused the script.
    Failed(RedisError),
    /// The script refused an event.
    Refused(String),
}

impl Sender {
    /// `run_limits`: the limits for the copies of runs.
    pub(crate) fn new(
        shared: Arc<RedisShared>,
        feed: Option<Feed>,
        run_limits: CopyLimits,
    ) -> Self {
        Self {
            shared,
            feed,
            run_limits,
            link: Link::default(),
            batch: VecDeque::new(),
            first: 1,
            record: 0,
            newest: EventId::default(),
            most_bytes: BATCH_BYTES,
            has_trimmed: false,
            trims: Burst::default(),
            replacements: Burst::default(),
        }
    }

    /// Sends until the outbox is closed and all events are acknowledged or abandoned.
    ///
    /// Batches go one at a time: the order of several would not survive a lost connection.
    pub(crate) async fn run(mut self) {
        let mut back_off = BackOff::default();
        while self.fill().await {
            let Err(trouble) = self.send().await else {
                back_off.reset();
                self.has_trimmed = false;
                self.shared.health.report(self.feed.as_ref(), Part::Sender, None);
                continue;
            };
            let cause = match trouble {
                Trouble::Failed(error) => {
                    self.adapt(&error);
                    if self.link.failed(&error) == Failure::Retry {
                        continue;
                    }
                    error.to_string()
                }
                Trouble::Refused(cause) => cause,
            };
            // Once without a report: if Redis needs nothing else, nothing is wrong.
            if is_out_of_memory(&cause) && self.trim().await && !self.has_trimmed {
                self.has_trimmed = true;
                continue;
            }
            self.shared.health.report(self.feed.as_ref(), Part::Sender, Some(&cause));
            back_off.wait().await;
        }
    }

    /// Waits for a batch. Returns `false` when nothing is left and nothing more will come.
    async fn fill(&mut self) -> bool {
        loop {
            if self.batch.is_empty() {
                self.shared.outbox.fill(&mut self.batch, self.most_bytes);
            }
            // Clients may wait for the end of the stream. An event that is sent before that is
            // found could come before it, and they would not get it. A closed hub has no clients,
            // and its reader may never find the end.
            let may_send = *self.shared.is_loaded.borrow() || self.shared.outbox.is_closed();
            if may_send && !self.batch.is_empty() {
                return true;
            }
            if self.batch.is_empty() && self.shared.outbox.is_over() {
                return false;
            }
            self.shared.outbox.changed.notified().await;
        }
    }

    /// Sends the batch, and confirms the events that Redis has taken.
    async fn send(&mut self) -> Result<(), Trouble> {
        let shared = Arc::clone(&self.shared);
        let connection = self.link.probe(&shared).await.map_err(Trouble::Failed)?;
        // Before the join is in the stream: an instance that skips the entry must find the note.
        if self.batch.iter().any(Outgoing::joins) {
            shared.scripts.note_joins(connection).await.map_err(Trouble::Failed)?;
        }
        let batch = BatchOf {
            record: self.record,
            first: self.first,
            floor: self.feed.as_ref().map_or(self.newest, |feed| feed.head().max(self.newest)),
            answered: self.newest,
            most_values: self.batch.iter().map(Outgoing::most_values).max().unwrap_or_default(),
            run_limits: self.run_limits,
            events: self.batch.iter().map(|event| OfBatch {
                entry: event.entry(),
                idempotency_key: event.key(),
                value_of: event.value_of(),
                run: event.run().map(|part| part.name),
            }),
        };
        let taken = shared.scripts.publish(connection, batch).await.map_err(Trouble::Failed)?;
        let is_quick = self.link.carried(&shared);
        // If the master has changed meanwhile, the events may be lost with the old one, and the
        // reader may have left it. Send them again: Redis knows them if they have reached the new
        // master.
        self.link.check(&shared).map_err(Trouble::Failed)?;
        // Never more than this batch has, even if Redis answers more ids.
        let count = taken.ids.len().min(self.batch.len());
        self.first += count as u64;
        self.newest = taken.ids.iter().copied().fold(self.newest, EventId::max);
        if self.feed.is_some() && count > 0 {
            shared.owed.add(self.newest);
        }
        let acknowledged = self.batch.drain(..count).zip(taken.ids).collect();
        if !shared.outbox.acknowledge(acknowledged) {
            // The rest counts as lost, too.
            self.batch.clear();
            return Ok(());
        }
        if is_quick && self.batch.is_empty() {
            self.most_bytes = (self.most_bytes * 2).min(BATCH_BYTES);
        }
        if taken.replaced > 0 {
            self.replacements.warn(|| {
                tracing::warn!(target: "sse_hub", "malformed idempotency keys replaced");
            });
        }
        taken.failed.map_or(Ok(()), |cause| Err(Trouble::Refused(cause)))
    }

    /// Learns from a failure before the batch is sent again.
    fn adapt(&mut self, error: &RedisError) {
        if error.is_timeout() && self.link.had_full_time() {
            // The batch must stay unchanged: give more time, and make the next batch smaller.
            self.link.wait_longer();
            self.most_bytes = (self.most_bytes / 4).max(LEAST_BYTES);
        }
        if error.code() == Some("STALE") {
            // Only a later batch of this publisher can make the batch stale, and there is none: the
            // record is forged. Go on with a record of another name.
            self.record = self.record.wrapping_add(1).max(1);
        }
    }

    /// Removes the oldest events from the stream, so that Redis has memory for the batch. Instances
    /// that have not read them find the chain broken and report the loss. Returns `false` if the
    /// stream is empty.
    async fn trim(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let trimmed: RedisResult<u64> = async {
            let trimmed = shared.scripts.trim(self.link.get(&shared).await?).await?;
            self.link.answered();
            Ok(trimmed)
        }
        .await;
        let events = trimmed.unwrap_or(0);
        if events > 0 {
            self.trims.warn(|| {
                tracing::warn!(
                    target: "sse_hub",
                    events,
                    "Redis is out of memory: the oldest events are removed"
                );
            });
        }
        events > 0
    }
}

fn is_out_of_memory(cause: &str) -> bool {
    cause.contains("OOM")
}
