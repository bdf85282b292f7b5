//! Presence in Redis: the scripts, and the keys that they share.
//!
//! Each instance has a set of users and of members of topics, which expires unless the instance
//! lives. The hash `instances` holds, for each instance, the version of the set, the time of the
//! last heartbeat, the number of users, and the number of all elements. A small stream carries the
//! changes: an instance that has read version 7 of another's set applies the changes of version 8,
//! and reads the whole set if changes are missing. Versions are the instance's own numbers and only
//! grow, so they can be compared whatever happens to Redis.

use std::time::Duration;

use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::sync::Notify;

use super::changes;
use super::millis;
use super::script::Loaded;
use crate::backplane::{Seat, UserChange};

/// About how many entries the stream keeps. An instance that has missed some reads a set.
const KEPT_ENTRIES: usize = 256;

/// The heartbeats of an instance: four in a lease.
const BEATS: u32 = 4;

/// Begins a set anew, or adds to the set. `instances` names the instance only when the set is
/// whole.
const FILL: &str = r"
if ARGV[2] == '1' then
  redis.call('DEL', KEYS[2])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
if #ARGV > 3 then redis.call('SADD', KEYS[2], unpack(ARGV, 4)) end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
";

/// Applies the changes from one version of a set to the next, however often the changes are sent,
/// or records a heartbeat. Returns 0 if the set has another version than the instance expects.
///
/// With each heartbeat, instances are removed that gave none for ten lifetimes: their sets have
/// expired. A time in the future, of a clock that is set back or of an attacker, counts from now.
///
/// A forged entry with the greatest id leaves no room in the stream. The stream is then deleted:
/// instances that miss the entries read the sets.
const ANNOUNCE: &str = r"
local id, before, version, life = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local stored = redis.call('HGET', KEYS[1], id)
local known = stored and string.match(stored, '^%d+')
if known ~= version then
  if before ~= 'anew' and known ~= before then return 0 end
  local gone = tonumber(ARGV[10])
  if gone > 0 then redis.call('SREM', KEYS[2], unpack(ARGV, 11, 10 + gone)) end
  if #ARGV > 10 + gone then redis.call('SADD', KEYS[2], unpack(ARGV, 11 + gone)) end
  local entry = {'i', id, 'v', version, before == 'anew' and 'a' or 'c', ARGV[7]}
  if ARGV[8] ~= '' then
    entry[7], entry[8] = 't', ARGV[8]
  end
  local function add()
    return redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[9], '*', unpack(entry))
  end
  local got = add()
  if type(got) == 'table' and string.match(got.err, 'exhausted') then
    redis.call('DEL', KEYS[3])
    got = add()
  end
  if type(got) == 'table' then return got end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counts = ARGV[5] .. ' ' .. ARGV[6]
redis.call('HSET', KEYS[1], id, version .. string.format(' %.0f ', now) .. counts)
redis.call('PEXPIRE', KEYS[2], life)
if before == version then
  local all = redis.call('HGETALL', KEYS[1])
  for at = 2, #all, 2 do
    local version, alive, rest = string.match(all[at], '^(%d+) (%d+)( .*)$')
    alive = tonumber(alive)
    if not alive or now - alive > 10 * life then
      redis.call('HDEL', KEYS[1], all[at - 1])
    elseif alive > now then
      redis.call('HSET', KEYS[1], all[at - 1], version .. string.format(' %.0f', now) .. rest)
    end
  end
end
return redis.call('SCARD', KEYS[2]) == tonumber(ARGV[6]) and 1 or 0
";

/// Announces the end of an instance.
const LEAVE: &str = r"
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'i', ARGV[1], 'v', '0', 'g', '')
return 1
";

/// The presence of an instance in Redis.
pub(crate) struct Lease {
    /// The instance's own name.
    pub(crate) id: String,
    /// How long the instance may be cut off before the other instances assume a death.
    pub(crate) lease: Duration,
    pub(crate) instances: String,
    pub(crate) stream: String,
    users: String,
    /// Users joined or left, or the hub was closed.
    pub(crate) changed: Notify,
    fill: Loaded,
    announce: Loaded,
    leave: Loaded,
}

/// A step of an instance's set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announcement<'a> {
    /// A whole set, just filled: earlier versions mean nothing.
    pub(crate) is_anew: bool,
    /// The version after the changes.
    pub(crate) version: u64,
    /// The size of the set after the changes.
    pub(crate) size: SetSize,
    /// Without changes, the announcement is a heartbeat.
    pub(crate) changes: &'a [UserChange],
}

/// The number of seats in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SetSize {
    /// The users alone. An older version counts these.
    pub(crate) users: usize,
    /// The users, and the members of topics.
    pub(crate) all: usize,
}

impl SetSize {
    /// Returns the size of a set of these seats.
    pub(crate) fn of(seats: &[Seat]) -> Self {
        let users = seats.iter().filter(|seat| seat.topic.is_none()).count();
        Self { users, all: seats.len() }
    }

    /// Returns the size after changes, each of which applies to the set.
    pub(crate) fn after(mut self, changes: &[UserChange]) -> Self {
        for change in changes {
            let is_user = usize::from(change.seat().topic.is_none());
            (self.users, self.all) = match change {
                UserChange::Joined(_) => (self.users + is_user, self.all + 1),
                UserChange::Left(..) => {
                    (self.users.saturating_sub(is_user), self.all.saturating_sub(1))
                }
            };
        }
        self
    }
}

impl Lease {
    pub(crate) fn new(prefix: &str, id: &str, lease: Duration) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}");
        Self {
            id: id.to_owned(),
            lease,
            instances: key("instances"),
            stream: key("presence"),
            users: key("users:"),
            changed: Notify::new(),
            fill: Loaded::new(&[FILL]),
            announce: Loaded::new(&[ANNOUNCE]),
            leave: Loaded::new(&[LEAVE]),
        }
    }

    /// Returns the key of an instance's set.
    pub(crate) fn users_of(&self, instance: &str) -> String {
        [&self.users, instance].concat()
    }

    /// Returns the time between two heartbeats.
    pub(crate) fn beat(&self) -> Duration {
        self.lease / BEATS
    }

    /// Returns the time without a heartbeat after which an instance counts as dead: a lease of
    /// outage, up to a beat before that, and a beat to reconnect.
    pub(crate) fn patience(&self) -> Duration {
        self.lease + 2 * self.beat()
    }

    /// Returns the time after which a set expires, in milliseconds. Must be longer than the
    /// patience of all instances: an instance that starts later must find no set of a dead
    /// instance.
    pub(crate) fn lifetime(&self) -> u64 {
        millis(self.lease).saturating_mul(2)
    }

    /// Adds seats to the set. `is_first` begins the set anew.
    pub(crate) async fn fill(
        &self,
        connection: &mut MultiplexedConnection,
        is_first: bool,
        seats: &[Seat],
    ) -> RedisResult<()> {
        let fill = |command: &mut redis::Cmd| {
            command.arg(2).arg(&self.instances).arg(self.users_of(&self.id));
            command.arg(&self.id).arg(u8::from(is_first)).arg(self.lifetime());
            for seat in seats {
                command.arg(&*changes::element(seat));
            }
        };
        self.fill.call(connection, fill).await.map(drop)
    }

    /// Applies the changes. Returns whether Redis has the set that the announcement leads to.
    pub(crate) async fn announce(
        &self,
        connection: &mut MultiplexedConnection,
        announcement: Announcement<'_>,
    ) -> RedisResult<bool> {
        let Announcement { is_anew, version, size, changes } = announcement;
        let before = version - u64::from(!changes.is_empty());
        let entry = changes::write(changes);
        let fill = |command: &mut redis::Cmd| {
            let users = self.users_of(&self.id);
            command.arg(3).arg(&self.instances).arg(users).arg(&self.stream).arg(&self.id);
            if is_anew {
                command.arg("anew")
            } else {
                command.arg(before)
            };
            command.arg(version).arg(self.lifetime()).arg(size.users).arg(size.all);
            command.arg(&entry.users).arg(&entry.members).arg(KEPT_ENTRIES);
            let is_gone = |change: &&UserChange| matches!(change, UserChange::Left(..));
            command.arg(changes.iter().filter(is_gone).count());
            for change in changes.iter().filter(is_gone) {
                command.arg(&*changes::element(change.seat()));
            }
            for change in changes.iter().filter(|change| !is_gone(change)) {
                command.arg(&*changes::element(change.seat()));
            }
        };
        let answer = self.announce.call(connection, fill).await?;
        redis::from_redis_value::<u8>(answer).map(|taken| taken == 1).map_err(Into::into)
    }

    /// Announces the end of this instance.
    pub(crate) async fn leave(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let fill = |command: &mut redis::Cmd| {
            let users = self.users_of(&self.id);
            command.arg(3).arg(&self.instances).arg(users).arg(&self.stream);
            command.arg(&self.id).arg(KEPT_ENTRIES);
        };
        self.leave.call(connection, fill).await.map(drop)
    }
}
