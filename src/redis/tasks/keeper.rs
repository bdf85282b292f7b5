//! Keeps the lease of an instance that has open runs, finds the instances whose lease is over, and
//! forgets ended runs beyond the limits. A publisher without a hub cannot forget runs, so each
//! instance does this for the runs of all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::{Instant, timeout_at};

use super::sync_health::SyncHealth;
use crate::backplane::{Feed, InstanceId, TailLimits};
use crate::redis::connect::link::{Failure, Link};
use crate::redis::shared::RedisShared;
use crate::redis::store::runs::{RunLease, beat};

/// Ended runs are forgotten with every so many checks.
const PRUNE_EVERY: u64 = 4;

/// See [`Keeper::holds`].
const HOLDS: u64 = 2;

/// The most instances that are watched. Further instances are forged.
const MOST_INSTANCES: usize = 4096;

pub(crate) struct Keeper {
    shared: Arc<RedisShared>,
    feed: Feed,
    link: Link,
    own: InstanceId,
    /// For how many further renewals this instance keeps its lease without an open run. Runs that
    /// follow each other at once then share a lease.
    holds: u64,
    /// Counts the renewals: each writes another number.
    renewal: u64,
    /// After how many checks ended runs must be forgotten. Zero if no run has changed since the last
    /// time.
    prune_in: u64,
    /// The other instances with open runs.
    peers: HashMap<InstanceId, Peer>,
    /// The time of the last answer.
    checked: Option<Instant>,
    health: SyncHealth,
}

/// Another instance, as it was last seen.
#[derive(Debug)]
struct Peer {
    lease: RunLease,
    /// Since when the lease is unchanged, by the own clock. No clocks are compared.
    since: Instant,
    /// When the hub was told that the instance is dead.
    told: Option<Instant>,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<RedisShared>, feed: Feed) -> Self {
        let (own, link, peers) = (feed.instance(), Link::default(), HashMap::new());
        let (health, checked) = (SyncHealth::new("lease"), None);
        Self { shared, feed, link, own, holds: 0, renewal: 0, prune_in: 0, peers, checked, health }
    }

    /// Keeps and watches leases while there are open runs, until the hub is closed and all entries
    /// are sent. Then gives the lease up, so that the other instances need not wait for its end.
    pub(crate) async fn run(mut self) {
        while !self.is_over() {
            let mut others = self.feed.run_instances();
            let has_runs = others.contains(&self.own);
            others.retain(|instance| *instance != self.own);
            others.truncate(MOST_INSTANCES);
            if has_runs {
                self.holds = HOLDS;
            }
            // Also after a run that began and ended since the last look at the instances.
            let has_parts = self.shared.has_run_parts.swap(false, Ordering::AcqRel);
            if has_parts && self.prune_in == 0 {
                self.prune_in = PRUNE_EVERY;
            }
            if others.is_empty() && self.holds == 0 && self.prune_in == 0 {
                self.peers.clear();
                self.shared.runs_changed.notified().await;
                continue;
            }
            let start = Instant::now();
            let checked = self.check(&others).await;
            if self.health.settle(&mut self.link, checked).await.is_some() {
                self.holds = self.holds.saturating_sub(1);
                self.wait(start + self.beat()).await;
            }
        }
        if self.renewal > 0 {
            self.give_up().await;
        }
    }

    fn is_over(&self) -> bool {
        let outbox = &self.shared.outbox;
        self.feed.is_closed() && outbox.is_over() && outbox.len() == 0
    }

    /// Returns the time between two renewals.
    fn beat(&self) -> Duration {
        beat(self.shared.presence.lease)
    }

    /// Waits until the next renewal is due. The first run of this instance needs a lease at once.
    async fn wait(&self, due: Instant) {
        while timeout_at(due, self.shared.runs_changed.notified()).await.is_ok() {
            let needs_lease = self.holds == 0 && self.feed.run_instances().contains(&self.own);
            if needs_lease || self.is_over() {
                return;
            }
        }
    }

    /// Renews the own lease, looks at the leases of the others, and forgets ended runs when that is
    /// due.
    async fn check(&mut self, others: &[InstanceId]) -> RedisResult<()> {
        if self.holds > 0 || !others.is_empty() {
            self.check_leases(others).await?;
        }
        if self.prune_in == 1 {
            let shared = Arc::clone(&self.shared);
            let TailLimits { runs, run_bytes, .. } = self.feed.tail_limits();
            shared.runs.prune(self.link.get(&shared).await?, run_bytes, runs).await?;
            self.link.answered();
        }
        self.prune_in = self.prune_in.saturating_sub(1);
        Ok(())
    }

    async fn check_leases(&mut self, others: &[InstanceId]) -> RedisResult<()> {
        let shared = Arc::clone(&self.shared);
        let lease = shared.presence.lease;
        let connection = self.link.probe(&shared).await?;
        let renews = self.holds > 0;
        let own = renews.then_some((self.own, self.renewal + 1));
        let leases = shared.runs.renew(connection, own, lease, others).await?;
        self.link.answered();
        self.renewal += u64::from(renews);
        let now = Instant::now();
        // After a cut of this instance, renewals may be missing: the patience begins anew.
        let was_away = self.checked.is_none_or(|at| now - at > lease / 2);
        self.checked = Some(now);
        self.peers.retain(|instance, _| others.contains(instance));
        let (patience, pause) = (lease + 2 * self.beat(), 4 * self.beat());
        for (&instance, lease) in others.iter().zip(leases) {
            let peer = self.peers.entry(instance).or_insert_with(|| Peer {
                lease: RunLease::Absent,
                since: now,
                told: None,
            });
            if lease != RunLease::Absent && lease != peer.lease {
                *peer = Peer { lease, since: now, told: None };
            } else if was_away {
                peer.since = now;
            }
            let is_dead = peer.lease == RunLease::GivenUp || now - peer.since > patience;
            // Told again if the ends do not come back: the outbox may have been full.
            if is_dead && peer.told.is_none_or(|at| now - at > pause) {
                peer.told = Some(now);
                self.feed.lose_runs(instance);
            }
        }
        Ok(())
    }

    /// Tells the other instances that this instance has ended. If Redis is away, the others notice
    /// the end when the lease is over.
    async fn give_up(&mut self) {
        let shared = Arc::clone(&self.shared);
        for _ in 0..2 {
            let Ok(connection) = self.link.probe(&shared).await else { return };
            let lease = shared.presence.lease;
            match shared.runs.give_up(connection, self.own, lease).await {
                Err(error) if self.link.failed(&error) == Failure::Retry => {}
                _ => return,
            }
        }
    }
}
