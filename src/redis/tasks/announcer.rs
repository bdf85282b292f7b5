//! Announces the users of this instance, and the members of its topics, to the other instances.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::{Instant, sleep_until, timeout};

use super::sync_health::SyncHealth;
use crate::backplane::{Feed, UserChange};
use crate::redis::connect::link::{Failure, Link};
use crate::redis::shared::RedisShared;
use crate::redis::store::lease::{Announcement, SetSize};
use crate::redis::store::script::unexpected;

/// The most seats in a script: Redis serves no other client while the script runs.
const BATCH: usize = 1024;

/// The shortest time between two announcements. A user that joins and leaves in between is not
/// announced.
const PACE: Duration = Duration::from_millis(100);

pub(crate) struct Announcer {
    shared: Arc<RedisShared>,
    feed: Feed,
    link: Link,
    /// The version of this instance's set in Redis.
    version: u64,
    /// How many seats the set has.
    size: SetSize,
    /// Redis has this version of the set, as far as is known.
    is_known: bool,
    /// The changes that are on their way to the next version.
    batch: Vec<UserChange>,
    health: SyncHealth,
}

impl Announcer {
    pub(crate) fn new(shared: Arc<RedisShared>, feed: Feed) -> Self {
        let (link, health) = (Link::default(), SyncHealth::new("presence"));
        let (version, size, is_known, batch) = (0, SetSize::default(), false, Vec::new());
        Self { shared, feed, link, version, size, is_known, batch, health }
    }

    /// Announces users until the hub is closed, and then announces the end of the instance.
    pub(crate) async fn run(mut self) {
        while !self.feed.is_closed() {
            let written = self.write().await;
            if self.health.settle(&mut self.link, written).await == Some(true) {
                let now = Instant::now();
                let lease = &self.shared.presence;
                if timeout(lease.beat(), lease.changed.notified()).await.is_ok() {
                    sleep_until(now + PACE).await;
                }
            }
        }
        // If Redis is away, the other instances notice the end when the lease is over.
        for _ in 0..2 {
            let Ok(connection) = self.link.probe(&self.shared).await else { return };
            match self.shared.presence.leave(connection).await {
                Err(error) if self.link.failed(&error) == Failure::Retry => {}
                _ => return,
            }
        }
    }

    /// Writes the changes that wait, or a heartbeat. Returns `false` if more changes wait.
    async fn write(&mut self) -> RedisResult<bool> {
        if !self.is_known {
            return self.write_all().await.map(|()| true);
        }
        // A batch is repeated unchanged: Redis knows the batch by the version.
        if self.batch.is_empty() {
            self.batch = self.feed.take_changes(BATCH);
        }
        let announcement = Announcement {
            is_anew: false,
            version: self.version + u64::from(!self.batch.is_empty()),
            size: self.size.after(&self.batch),
            changes: &self.batch,
        };
        let (version, size) = (announcement.version, announcement.size);
        let shared = Arc::clone(&self.shared);
        let connection = self.link.probe(&shared).await?;
        let is_taken = shared.presence.announce(connection, announcement).await?;
        self.link.answered();
        if !is_taken {
            // Redis is empty, went back to an older dump, or has removed this instance as dead.
            self.is_known = false;
            return Ok(false);
        }
        (self.version, self.size) = (version, size);
        let is_all = self.batch.len() < BATCH;
        self.batch.clear();
        Ok(is_all)
    }

    /// Writes all seats of this instance as a new version of its set.
    async fn write_all(&mut self) -> RedisResult<()> {
        let shared = Arc::clone(&self.shared);
        let lease = &shared.presence;
        let connection = self.link.probe(&shared).await?;
        let seats = self.feed.take_users();
        self.batch.clear();
        lease.fill(connection, true, &seats[..seats.len().min(BATCH)]).await?;
        for chunk in seats.chunks(BATCH).skip(1) {
            lease.fill(connection, false, chunk).await?;
        }
        self.version += 1;
        self.size = SetSize::of(&seats);
        let (version, size) = (self.version, self.size);
        let all = Announcement { is_anew: true, version, size, changes: &[] };
        self.is_known = lease.announce(connection, all).await?;
        self.link.answered();
        if self.is_known { Ok(()) } else { Err(unexpected("the users of this instance")) }
    }
}
