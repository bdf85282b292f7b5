//! Tells the other instances which users are here.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep_until, timeout};

use crate::backplane::{Change, Feed};
use crate::redis::connect::back_off::BackOff;
use crate::redis::shared::Shared;
use crate::redis::store::script::unexpected;
use crate::redis::unshared::Unshared;

/// How many users one script is about: Redis serves nobody else meanwhile.
const BATCH: usize = 1024;

/// Changes are told not more often than this, and those between go together. Who comes and goes between is not told.
const PACE: Duration = Duration::from_millis(100);

pub(crate) struct Announcer {
    shared: Arc<Shared>,
    feed: Feed,
    connection: Option<MultiplexedConnection>,
    /// How often the master had changed when it connected.
    moves: u64,
    /// Of the set that Redis has, or had.
    version: u64,
    /// How many users that has.
    total: usize,
    /// Redis has it, as far as is known.
    is_known: bool,
    /// What is on its way there.
    batch: Vec<Change>,
    trouble: Unshared,
}

impl Announcer {
    pub(crate) fn new(shared: Arc<Shared>, feed: Feed) -> Self {
        let (version, total, is_known, batch) = (0, 0, false, Vec::new());
        let trouble = Unshared::default();
        Self { shared, feed, connection: None, moves: 0, version, total, is_known, batch, trouble }
    }

    /// Tells who is here until the hub is closed, and then that it is.
    pub(crate) async fn run(mut self) {
        let mut back_off = BackOff::default();
        while !self.feed.is_closed() {
            let written = self.write().await;
            self.trouble.tell(written.as_ref().err());
            let Ok(is_all) = written else {
                self.connection = None;
                back_off.wait().await;
                continue;
            };
            back_off.reset();
            if is_all {
                let now = Instant::now();
                let lease = &self.shared.presence;
                if timeout(lease.beat(), lease.changed.notified()).await.is_ok() {
                    sleep_until(now + PACE).await;
                }
            }
        }
        // If Redis is away the others find out by themselves.
        if let Some(connection) = &mut self.connection {
            let _ = self.shared.presence.leave(connection).await;
        }
    }

    /// Writes what there is to tell, or that the instance is alive. Returns whether that was all.
    async fn write(&mut self) -> RedisResult<bool> {
        let lease = &self.shared.presence;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                self.moves = self.shared.moves.count();
                self.connection.insert(self.shared.connect().await?)
            }
        };
        self.shared.moves.check(self.moves)?;
        if !self.is_known {
            let users = self.feed.take_users();
            self.batch.clear();
            lease.fill(connection, true, &users[..users.len().min(BATCH)]).await?;
            for chunk in users.chunks(BATCH).skip(1) {
                lease.fill(connection, false, chunk).await?;
            }
            self.version += 1;
            self.total = users.len();
            let total = self.total;
            self.is_known = lease.announce(connection, true, self.version, total, &[]).await?;
            return if self.is_known {
                Ok(true)
            } else {
                Err(unexpected("the users that are here"))
            };
        }
        // A batch that was begun is repeated as it is: Redis knows it by its version.
        if self.batch.is_empty() {
            self.batch = self.feed.take_changes(BATCH);
        }
        let gone = self.batch.iter().filter(|change| matches!(change, Change::Gone(..))).count();
        let total = (self.total + self.batch.len() - gone).saturating_sub(gone);
        let version = self.version + u64::from(!self.batch.is_empty());
        if !lease.announce(connection, false, version, total, &self.batch).await? {
            // It was emptied, is an older one, or has taken this instance for gone.
            self.is_known = false;
            return Ok(false);
        }
        (self.version, self.total) = (version, total);
        let is_all = self.batch.len() < BATCH;
        self.batch.clear();
        Ok(is_all)
    }
}
