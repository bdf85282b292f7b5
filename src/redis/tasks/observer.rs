//! Hears which users are at other instances, and finds which of those are gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use tokio::time::Instant;

use crate::backplane::Feed;
use crate::redis::connect::back_off::BackOff;
use crate::redis::shared::Shared;
use crate::redis::store::changes::{self, News, What};
use crate::redis::store::clock::millis;
use crate::redis::unshared::Unshared;
use crate::wire::id::EventId;

/// How many entries one read takes at most.
const CHUNK: usize = 64;

/// How many users are read from a set in one step.
const STEP: usize = 1024;

/// More instances than this are none.
const INSTANCES: usize = 4096;

pub(crate) struct Observer {
    shared: Arc<Shared>,
    feed: Feed,
    /// How many users are worth knowing.
    most: usize,
    /// The stream's entries up to here were read.
    position: EventId,
    peers: HashMap<String, Peer>,
    /// When it last looked who is alive.
    looked: Option<Instant>,
    trouble: Unshared,
}

/// Another instance.
#[derive(Debug)]
struct Peer {
    /// Of its set, as it was read.
    version: Option<u64>,
    /// Which version there was when it was last looked.
    there: u64,
    /// Its last sign of life.
    alive: u64,
    /// When that was seen.
    since: Instant,
    /// It gave none for too long.
    is_gone: bool,
}

impl Observer {
    pub(crate) fn new(shared: Arc<Shared>, feed: Feed, most: usize) -> Self {
        let (position, peers) = (EventId::ORIGIN, HashMap::new());
        Self { shared, feed, most, position, peers, looked: None, trouble: Unshared::default() }
    }

    /// Listens until the hub is closed.
    pub(crate) async fn run(mut self) {
        let mut back_off = BackOff::default();
        while !self.feed.is_closed() {
            let Err(error) = self.listen(&mut back_off).await else { return };
            self.trouble.tell(Some(&error));
            back_off.wait().await;
        }
    }

    /// Listens over one connection, until that is lost or the hub is closed.
    async fn listen(&mut self, back_off: &mut BackOff) -> RedisResult<()> {
        let moves = self.shared.moves.count();
        let mut connection = self.shared.connect().await?;
        self.look(&mut connection).await?;
        let every = self.shared.presence.lease / 8;
        while !self.feed.is_closed() {
            self.shared.moves.check(moves)?;
            let due = self.looked.map_or(Duration::ZERO, |at| every.saturating_sub(at.elapsed()));
            if due.is_zero() {
                self.look(&mut connection).await?;
                continue;
            }
            let news = self.news(due, &mut connection).await?;
            self.trouble.tell(None);
            back_off.reset();
            for News { position, what } in news {
                self.position = position.parse().unwrap_or(self.position);
                if let Some((instance, version, what)) = what {
                    self.hear(instance, version, what, &mut connection).await?;
                }
            }
        }
        Ok(())
    }

    /// What others have told, if they do before `due`.
    async fn news(
        &self,
        due: Duration,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Vec<News>> {
        let wait = millis(due.min(self.shared.timeout / 2)).max(1);
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(CHUNK).arg("BLOCK").arg(wait).arg("STREAMS");
        command.arg(&self.shared.presence.stream).arg(self.position.to_string());
        changes::read(command.query_async(connection).await?)
    }

    async fn hear(
        &mut self,
        instance: String,
        version: u64,
        what: What,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        if instance == self.shared.presence.id {
            return Ok(());
        }
        if what == What::Gone {
            self.peers.remove(&instance);
            self.feed.absent(&instance);
            return Ok(());
        }
        let Some(peer) = Peer::of(&mut self.peers, &instance) else { return Ok(()) };
        peer.since = Instant::now();
        peer.is_gone = false;
        let known = peer.version;
        match what {
            _ if known >= Some(version) => {}
            What::Changes(changes) if known.is_some_and(|known| known + 1 == version) => {
                peer.version = Some(version);
                self.feed.changed(&instance, changes);
            }
            What::Changes(_) | What::Anew | What::Gone => self.read(&instance, connection).await?,
        }
        Ok(())
    }

    /// Looks who is alive, and whether something was missed.
    async fn look(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let lease = &self.shared.presence;
        let mut both = redis::pipe();
        both.cmd("XREVRANGE").arg(&lease.stream).arg("+").arg("-").arg("COUNT").arg(1);
        both.cmd("HGETALL").arg(&lease.instances);
        type End = Vec<(String, Value)>;
        type All = Vec<(Vec<u8>, Vec<u8>)>;
        let (end, all): (End, All) = both.query_async(connection).await?;
        let end = end.first().and_then(|(id, _)| id.parse().ok()).unwrap_or(EventId::ORIGIN);

        let now = Instant::now();
        let patience = lease.patience();
        // Perhaps nobody could give a sign of life: all have as long from now on.
        let was_away = self.looked.is_none_or(|at| now - at > lease.lease / 2);
        // Another stream than the one that was read.
        let is_another = self.looked.is_none() || end < self.position;
        self.looked = Some(now);
        if is_another {
            // What stands before is in the sets, which are read now where they are newer.
            self.position = end;
        }
        let mut stale = Vec::new();
        let mut listed = HashSet::new();
        for (name, value) in all {
            let Some((name, life)) = changes::name(&name).zip(life(&value)) else { continue };
            let Life { version, alive, .. } = life;
            if name == lease.id {
                continue;
            }
            let Some(peer) = Peer::of(&mut self.peers, &name) else { continue };
            if peer.alive != alive {
                (peer.alive, peer.since, peer.is_gone) = (alive, now, false);
            }
            let is_behind = peer.version.is_none_or(|known| known < version);
            // Or it is on its way here.
            let missed = peer.version.is_none_or(|known| known < peer.there) || is_another;
            peer.there = version;
            if is_behind && missed && !peer.is_gone {
                stale.push(name.clone());
            }
            listed.insert(name);
        }
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
        gone.iter().for_each(|name| self.feed.absent(name));
        for name in stale {
            self.read(&name, connection).await?;
        }
        Ok(())
    }

    /// Reads all users of an instance.
    ///
    /// In steps, so that Redis serves others meanwhile. If the set was changed between, once more; and if it is changed all
    /// the time, what was read is as old as the version before, and the changes since come by the stream.
    async fn read(
        &mut self,
        instance: &str,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        const TRIES: usize = 3;
        let (mut users, mut read) = (HashSet::new(), None);
        for _ in 0..TRIES {
            let Some(Life { version, total, .. }) = self.life(instance, connection).await? else {
                // It begins anew, and will say so.
                return Ok(());
            };
            users = self.users(instance, connection).await?;
            read = Some(version);
            let after = self.life(instance, connection).await?;
            if after.is_some_and(|after| after.version == version) {
                if users.len() != total && users.len() <= self.most {
                    // Somebody else took it away, and it will be told anew.
                    return Ok(());
                }
                break;
            }
        }
        if let Some(peer) = self.peers.get_mut(instance) {
            peer.version = read;
            self.feed.present(instance, users);
        }
        Ok(())
    }

    async fn life(
        &self,
        instance: &str,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<Life>> {
        let mut command = redis::cmd("HGET");
        command.arg(&self.shared.presence.instances).arg(instance);
        let value: Option<Vec<u8>> = command.query_async(connection).await?;
        Ok(value.and_then(|value| life(&value)))
    }

    async fn users(
        &self,
        instance: &str,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<HashSet<Arc<str>>> {
        let key = self.shared.presence.users_of(instance);
        let mut users = HashSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(&key).arg(&cursor).arg("COUNT").arg(STEP);
            let (next, some): (String, Vec<Vec<u8>>) = command.query_async(connection).await?;
            let names = some.into_iter().filter_map(|name| String::from_utf8(name).ok());
            users.extend(names.map(Arc::from));
            if next == "0" || users.len() > self.most {
                return Ok(users);
            }
            cursor = next;
        }
    }
}

impl Peer {
    fn of<'a>(peers: &'a mut HashMap<String, Self>, name: &str) -> Option<&'a mut Self> {
        if !peers.contains_key(name) {
            if peers.len() >= INSTANCES {
                return None;
            }
            let (since, is_gone) = (Instant::now(), false);
            let fresh = Self { version: None, there: 0, alive: 0, since, is_gone };
            peers.insert(name.to_owned(), fresh);
        }
        peers.get_mut(name)
    }
}

/// What an instance says of itself.
struct Life {
    /// Of its set.
    version: u64,
    /// When it said so.
    alive: u64,
    /// How many users the set has.
    total: usize,
}

fn life(value: &[u8]) -> Option<Life> {
    let mut parts = std::str::from_utf8(value).ok()?.split(' ');
    let (version, alive, total) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Life {
        version: version.parse().ok()?,
        alive: alive.parse().ok()?,
        total: total.parse().ok()?,
    })
}
