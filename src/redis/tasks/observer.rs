//! Follows the presence of the other instances, and finds the instances that are dead.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisResult, Value};
use tokio::time::Instant;

use super::sync_health::SyncHealth;
use crate::EventId;
use crate::backplane::{Feed, Seat};
use crate::redis::connect::link::Link;
use crate::redis::shared::RedisShared;
use crate::redis::store::changes::{self, News, Notice, Step};
use crate::redis::store::lease::SetSize;
use crate::redis::store::millis;

/// The most entries in a read of the stream.
const CHUNK: usize = 64;

/// How many seats are read from a set in a step.
const STEP: usize = 1024;

/// The most instances that are observed. Further instances are forged, or there is a mistake.
const MOST_INSTANCES: usize = 4096;

/// How often a set that changes meanwhile is read again.
const TRIES: usize = 3;

/// How often the instances are checked: eight times in a lease.
const CHECKS: u32 = 8;

pub(crate) struct Observer {
    shared: Arc<RedisShared>,
    feed: Feed,
    /// The most seats of other instances that the hub wants to know.
    most: usize,
    /// The last entry of the stream that is read.
    position: EventId,
    peers: HashMap<String, Peer>,
    /// The time of the last check.
    checked: Option<Instant>,
    health: SyncHealth,
}

/// Another instance.
#[derive(Debug)]
struct Peer {
    /// The version of the set that the hub knows. `None` if the set must be read.
    version: Option<u64>,
    /// The version that Redis had at the last check.
    seen: u64,
    /// The time of the last heartbeat, by the clock of Redis.
    alive: u64,
    /// When this instance saw that heartbeat, by the own clock. No clocks are compared.
    since: Instant,
    /// Without a heartbeat for too long.
    is_gone: bool,
}

/// The record of an instance in Redis.
#[derive(Debug, Clone, Copy)]
struct Record {
    version: u64,
    /// The time of the last heartbeat, in milliseconds of Redis's clock.
    alive: u64,
    /// The number of seats in the set.
    size: SetSize,
}

/// The state of presence in Redis, at a check.
struct Census {
    /// The newest entry of the stream.
    end: EventId,
    /// The other instances.
    records: Vec<(String, Record)>,
}

impl Observer {
    pub(crate) fn new(shared: Arc<RedisShared>, feed: Feed, most: usize) -> Self {
        let (position, peers) = (EventId::default(), HashMap::new());
        let health = SyncHealth::new("presence");
        Self { shared, feed, most, position, peers, checked: None, health }
    }

    /// Follows the other instances until the hub is closed.
    pub(crate) async fn run(mut self) {
        let (mut link, mut has_failed) = (Link::default(), true);
        while !self.feed.is_closed() {
            let followed = self.follow(has_failed, &mut link).await;
            has_failed = followed.is_err();
            self.health.settle(&mut link, followed).await;
        }
    }

    /// Checks the instances if that is due, and reads the news up to the next check.
    async fn follow(&mut self, must_check: bool, link: &mut Link) -> RedisResult<()> {
        if must_check || self.until_check().is_zero() {
            self.check(link).await?;
        }
        for Notice { position, news } in self.notices(self.until_check(), link).await? {
            self.position = position.parse().unwrap_or(self.position);
            if let Some(news) = news {
                self.hear(news, link).await?;
            }
        }
        Ok(())
    }

    fn until_check(&self) -> Duration {
        let every = self.shared.presence.lease / CHECKS;
        self.checked.map_or(Duration::ZERO, |at| every.saturating_sub(at.elapsed()))
    }

    /// Reads the stream, and waits for at most `due` if there is nothing new.
    async fn notices(&self, due: Duration, link: &mut Link) -> RedisResult<Vec<Notice>> {
        let wait = millis(due.min(self.shared.timeout / 2)).max(1);
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(CHUNK).arg("BLOCK").arg(wait).arg("STREAMS");
        command.arg(&self.shared.presence.stream).arg(self.position.to_string());
        let answer = command.query_async(link.get(&self.shared).await?).await?;
        link.answered();
        changes::read(answer)
    }

    async fn hear(&mut self, news: News, link: &mut Link) -> RedisResult<()> {
        let News { instance, version, step } = news;
        if instance == self.shared.presence.id {
            return Ok(());
        }
        if step == Step::Gone {
            self.peers.remove(&instance);
            self.feed.remove_instance(&instance);
            return Ok(());
        }
        let Some(peer) = Peer::of(&mut self.peers, &instance) else { return Ok(()) };
        peer.since = Instant::now();
        peer.is_gone = false;
        let known = peer.version;
        match step {
            _ if known >= Some(version) => {}
            Step::Changes(changes)
                if known.is_some_and(|known| known.checked_add(1) == Some(version)) =>
            {
                peer.version = Some(version);
                self.feed.change_users(&instance, changes);
            }
            // Changes are missing.
            Step::Changes(_) | Step::Anew | Step::Gone => self.read(&instance, link).await?,
        }
        Ok(())
    }

    /// Checks which instances are alive, and whether news are missing.
    async fn check(&mut self, link: &mut Link) -> RedisResult<()> {
        let Census { end, records } = self.census(link).await?;
        let now = Instant::now();
        let lease = &self.shared.presence;
        // After a cut of this instance, heartbeats may be missing: the patience with all
        // instances begins anew.
        let was_away = self.checked.is_none_or(|at| now - at > lease.lease / 2);
        // Another stream stands in place of the known stream.
        let is_another = self.checked.is_none() || end < self.position;
        self.checked = Some(now);
        if is_another {
            // Earlier news are in the sets, which are read below if they are newer.
            self.position = end;
        }
        let mut stale = Vec::new();
        let mut listed = HashSet::new();
        for (name, Record { version, alive, .. }) in records {
            let Some(peer) = Peer::of(&mut self.peers, &name) else { continue };
            if peer.alive != alive {
                (peer.alive, peer.since, peer.is_gone) = (alive, now, false);
            }
            let is_behind = peer.version.is_none_or(|known| known < version);
            // If the version is new since the last check, the news may be on their way.
            let has_missed = peer.version.is_none_or(|known| known < peer.seen) || is_another;
            peer.seen = version;
            if is_behind && has_missed && !peer.is_gone {
                stale.push(name.clone());
            }
            listed.insert(name);
        }
        let gone = self.expire(now, was_away, &listed);
        gone.iter().for_each(|name| self.feed.remove_instance(name));
        for name in stale {
            self.read(&name, link).await?;
        }
        Ok(())
    }

    /// Reads the end of the stream, and the records of the other instances.
    async fn census(&self, link: &mut Link) -> RedisResult<Census> {
        let lease = &self.shared.presence;
        let mut questions = redis::pipe();
        questions.cmd("XREVRANGE").arg(&lease.stream).arg("+").arg("-").arg("COUNT").arg(1);
        questions.cmd("HGETALL").arg(&lease.instances);
        questions.cmd("TIME");
        type End = Vec<(String, Value)>;
        type All = Vec<(Vec<u8>, Vec<u8>)>;
        let answer = questions.query_async(link.get(&self.shared).await?).await?;
        let (end, all, (seconds, _)): (End, All, (u64, u64)) = answer;
        link.answered();
        let end = end.first().and_then(|(id, _)| id.parse().ok()).unwrap_or_default();
        // A heartbeat in the future is of a clock that went back, until the next heartbeat, or
        // forged: then it must not take the place of a real instance.
        let latest = seconds.saturating_mul(1000).saturating_add(lease.lifetime());
        let record = |(name, value): (Vec<u8>, Vec<u8>)| {
            let (name, record) = changes::name(&name).zip(record(&value))?;
            (name != lease.id && record.alive <= latest).then_some((name, record))
        };
        let mut records: Vec<_> = all.into_iter().filter_map(record).collect();
        if records.len() > MOST_INSTANCES {
            records.sort_unstable_by_key(|(_, record)| std::cmp::Reverse(record.alive));
            records.truncate(MOST_INSTANCES);
        }
        Ok(Census { end, records })
    }

    /// Finds the instances that gave no heartbeat for too long, and forgets those that Redis has
    /// forgotten too. Returns the newly dead instances.
    fn expire(&mut self, now: Instant, was_away: bool, listed: &HashSet<String>) -> Vec<String> {
        let patience = self.shared.presence.patience();
        let mut gone = Vec::new();
        self.peers.retain(|name, peer| {
            if was_away {
                peer.since = now;
            }
            if !peer.is_gone && now - peer.since > patience {
                (peer.is_gone, peer.version) = (true, None);
                gone.push(name.clone());
            }
            !peer.is_gone || listed.contains(name)
        });
        gone
    }

    /// Reads all seats of an instance.
    ///
    /// The set is read in steps, so that Redis serves other clients in between. If the set changes
    /// meanwhile, the set is read again. If the set changes all the time, the result has at least
    /// the version from before the read, and the later changes come by the stream.
    async fn read(&mut self, instance: &str, link: &mut Link) -> RedisResult<()> {
        let (mut seats, mut version) = (HashSet::new(), None);
        for _ in 0..TRIES {
            let Some(before) = self.record(instance, link).await? else {
                // The instance begins the set anew, and will announce that.
                return Ok(());
            };
            seats = self.seats(instance, link).await?;
            version = Some(before.version);
            let after = self.record(instance, link).await?;
            if after.is_some_and(|after| after.version == before.version) {
                let size = before.size;
                let expected = if self.feed.wants_topics() { size.all } else { size.users };
                if seats.len() != expected && seats.len() <= self.most {
                    // Somebody else removed seats. The instance will notice, and begin anew.
                    return Ok(());
                }
                break;
            }
        }
        if let Some(peer) = self.peers.get_mut(instance) {
            peer.version = version;
            self.feed.replace_users(instance, seats);
        }
        Ok(())
    }

    async fn record(&self, instance: &str, link: &mut Link) -> RedisResult<Option<Record>> {
        let mut command = redis::cmd("HGET");
        command.arg(&self.shared.presence.instances).arg(instance);
        let value: Option<Vec<u8>> = command.query_async(link.get(&self.shared).await?).await?;
        link.answered();
        Ok(value.and_then(|value| record(&value)))
    }

    /// Reads the seats that the hub wants to know, and stops above the limit.
    async fn seats(&self, instance: &str, link: &mut Link) -> RedisResult<HashSet<Seat>> {
        let key = self.shared.presence.users_of(instance);
        let wants_topics = self.feed.wants_topics();
        let mut seats = HashSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(&key).arg(&cursor).arg("COUNT").arg(STEP);
            let (next, some): (String, Vec<Vec<u8>>) =
                command.query_async(link.get(&self.shared).await?).await?;
            link.answered();
            let some = some.iter().filter_map(|element| changes::seat(element));
            seats.extend(some.filter(|seat| wants_topics || seat.topic.is_none()));
            if next == "0" || seats.len() > self.most {
                return Ok(seats);
            }
            cursor = next;
        }
    }
}

impl Peer {
    /// Returns the peer of this name. `None` if there are too many instances: the dead
    /// make room first.
    fn of<'a>(peers: &'a mut HashMap<String, Self>, name: &str) -> Option<&'a mut Self> {
        if !peers.contains_key(name) {
            if peers.len() >= MOST_INSTANCES {
                peers.retain(|_, peer| !peer.is_gone);
            }
            if peers.len() >= MOST_INSTANCES {
                return None;
            }
            let (since, is_gone) = (Instant::now(), false);
            let fresh = Self { version: None, seen: 0, alive: 0, since, is_gone };
            peers.insert(name.to_owned(), fresh);
        }
        peers.get_mut(name)
    }
}

fn record(value: &[u8]) -> Option<Record> {
    let mut parts = std::str::from_utf8(value).ok()?.split(' ');
    let (version, alive, users) = (parts.next()?, parts.next()?, parts.next()?);
    let users = users.parse().ok()?;
    // An older version knows no members.
    let all = parts.next().map_or(Some(users), |all| all.parse().ok())?;
    let size = SetSize { users, all };
    Some(Record { version: version.parse().ok()?, alive: alive.parse().ok()?, size })
}
