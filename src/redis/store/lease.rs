//! Who is online where, inside Redis: the scripts, and the keys that they share.
//!
//! Each instance has a set of its users, which expires unless the instance lives. `instances` holds for each the version
//! of its set, when it was last alive and how many users the set has, and a small stream carries what changes: an instance that has read version 7
//! of another's set makes the changes of version 8, and reads the set anew if it has missed some. Versions are the
//! instance's own numbers and only grow, so they can be compared whatever became of the Redis.

use std::time::Duration;

use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::sync::Notify;

use super::changes;
use super::script::Loaded;
use crate::backplane::Change;
use crate::redis::store::clock::millis;

/// About how many entries the stream keeps. Whoever has missed some reads a set.
const KEPT: usize = 256;

/// Begins a set anew, or adds to it. Until it is whole nobody is to read it.
const FILL: &str = r"
if ARGV[2] == '1' then
  redis.call('DEL', KEYS[2])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
if #ARGV > 3 then redis.call('SADD', KEYS[2], unpack(ARGV, 4)) end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
";

/// Makes the changes from one version of a set to the next, however often it is sent, or says that the instance is
/// alive. Answers 0 if the set is not the one that the instance takes it for.
///
/// With each sign of life instances are forgotten that gave none for ten lifetimes: their sets have expired.
const ANNOUNCE: &str = r"
local id, before, version, life = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local stored = redis.call('HGET', KEYS[1], id)
local known = stored and string.match(stored, '^%d+')
if known ~= version then
  if before ~= 'anew' and known ~= before then return 0 end
  local gone = tonumber(ARGV[8])
  if gone > 0 then redis.call('SREM', KEYS[2], unpack(ARGV, 9, 8 + gone)) end
  if #ARGV > 8 + gone then redis.call('SADD', KEYS[2], unpack(ARGV, 9 + gone)) end
  local field = before == 'anew' and 'a' or 'c'
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'i', id, 'v', version, field, ARGV[6])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], id, version .. string.format(' %.0f ', now) .. ARGV[5])
redis.call('PEXPIRE', KEYS[2], life)
if before == version then
  local all = redis.call('HGETALL', KEYS[1])
  for at = 2, #all, 2 do
    local alive = tonumber(string.match(all[at], ' (%d+) '))
    if not alive or now - alive > 10 * life then redis.call('HDEL', KEYS[1], all[at - 1]) end
  end
end
return redis.call('SCARD', KEYS[2]) == tonumber(ARGV[5]) and 1 or 0
";

/// An instance ends.
const LEAVE: &str = r"
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'i', ARGV[1], 'v', '0', 'g', '')
return 1
";

/// What an instance's part in presence is made of.
pub(crate) struct Lease {
    /// The instance's own name.
    pub(crate) id: String,
    /// For how long it may be cut off without anybody noticing.
    pub(crate) lease: Duration,
    pub(crate) instances: String,
    pub(crate) stream: String,
    users: String,
    /// Users came or went, or the hub was closed.
    pub(crate) changed: Notify,
    fill: Loaded,
    announce: Loaded,
    leave: Loaded,
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

    /// The key of an instance's set.
    pub(crate) fn users_of(&self, instance: &str) -> String {
        [&self.users, instance].concat()
    }

    /// How often an instance gives a sign of life.
    pub(crate) fn beat(&self) -> Duration {
        self.lease / 4
    }

    /// An instance that gives none for so long is gone. One that was cut off for its lease has had a beat before, and a
    /// quarter of the lease to come back.
    pub(crate) fn patience(&self) -> Duration {
        self.lease + self.lease / 2
    }

    /// A set outlives the patience of all who know its instance: who does not know it yet reads nothing of the dead.
    fn lifetime(&self) -> u64 {
        millis(self.lease).saturating_mul(2)
    }

    /// Adds users to the set, which is begun anew with the first.
    pub(crate) async fn fill<U: AsRef<str>>(
        &self,
        connection: &mut MultiplexedConnection,
        is_first: bool,
        users: &[U],
    ) -> RedisResult<()> {
        let fill = |command: &mut redis::Cmd| {
            command.arg(2).arg(&self.instances).arg(self.users_of(&self.id));
            command.arg(&self.id).arg(u8::from(is_first)).arg(self.lifetime());
            for user in users {
                command.arg(user.as_ref());
            }
        };
        self.fill.call(connection, fill).await.map(drop)
    }

    /// Makes the changes that lead to `version`, after which there are `total` users; without any it is a sign of life.
    /// `is_anew`: the set was filled. Whether Redis has that now.
    pub(crate) async fn announce(
        &self,
        connection: &mut MultiplexedConnection,
        is_anew: bool,
        version: u64,
        total: usize,
        changes: &[Change],
    ) -> RedisResult<bool> {
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
            command.arg(version).arg(self.lifetime()).arg(total).arg(&entry).arg(KEPT);
            let is_gone = |change: &&Change| matches!(change, Change::Gone(..));
            command.arg(changes.iter().filter(is_gone).count());
            for change in changes.iter().filter(is_gone) {
                command.arg(&**change.user());
            }
            for change in changes.iter().filter(|change| !is_gone(change)) {
                command.arg(&**change.user());
            }
        };
        let answer = self.announce.call(connection, fill).await?;
        redis::from_redis_value::<u8>(answer).map(|taken| taken == 1).map_err(Into::into)
    }

    /// Says that the instance ends.
    pub(crate) async fn leave(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let fill = |command: &mut redis::Cmd| {
            let users = self.users_of(&self.id);
            command.arg(3).arg(&self.instances).arg(users).arg(&self.stream);
            command.arg(&self.id).arg(KEPT);
        };
        self.leave.call(connection, fill).await.map(drop)
    }
}
