//! What is done inside Redis, atomically: the two scripts, and the keys that they share.
//!
//! The stream holds the events. `last` is the id of the last entry that a hub wrote: each entry carries, as `p`, the
//! `last` that it found. So the entries are a chain, and a reader whose own last entry is not the one that the next
//! names knows that something is gone between, whatever became of the stream. `mark` is the id of the last entry that
//! says so to those who cannot know it by themselves.

use redis::{Cmd, RedisResult, Script, Value, aio::MultiplexedConnection};

use super::config::Keep;
use crate::wire::id::EventId;

/// What both scripts begin with.
///
/// `add` gives an entry the next id: the stream's own (`*`) if the clock is past all that is known, or else the one right
/// after. So ids grow also over a stream that was emptied, a clock that was set back, and what `floor` says was seen.
const ADD: &str = r"
local stream, lastkey = KEYS[1], KEYS[2]
local function numbers(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end
local both = redis.call('MGET', lastkey, KEYS[3])
local last, state = both[1], both[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local trim = ARGV[2]
if ARGV[1] == 'MINID' then trim = string.format('%.0f-0', math.max(0, now - trim)) end
local id = '*'
do
  local ms, seq = numbers(ARGV[3])
  -- What begins anew begins in the next millisecond: in this one another may have ended.
  local lastms, lastseq = now + 1, 0
  if last then lastms, lastseq = numbers(last) else last = '0-0' end
  if lastms > ms or (lastms == ms and lastseq > seq) then ms, seq = lastms, lastseq end
  if now <= ms then id = string.format('%.0f-%.0f', ms, seq + 1) end
end
local function add(field, value)
  local got = redis.pcall('XADD', stream, ARGV[1], '~', trim, id, field, value, 'p', last)
  if type(got) == 'table' and id ~= '*' then
    -- Something else stands there already, and what follows it is newer than all.
    got = redis.pcall('XADD', stream, ARGV[1], '~', trim, '*', field, value, 'p', last)
  end
  if type(got) == 'table' then return nil, got.err end
  id = '*'
  last = got
  return got
end
";

/// Publishes a batch once, however often it is sent.
///
/// Of each publisher Redis keeps the number of its latest batch's first event and the ids of that batch. The same number
/// again is the same batch: what was taken of it is answered and not added. A lower one is a straggler of a connection
/// that was given up. All is recorded also if it fails half way, so `pcall` throughout.
const PUBLISH: &str = r"
local first = tonumber(ARGV[4])
local ids = {}
if state then
  local known = tonumber(string.match(state, '^%d+'))
  if known > first then return redis.error_reply('STALE a later batch was taken') end
  if known == first then
    for taken in string.gmatch(state, ' (%S+)') do ids[#ids + 1] = taken end
  end
end
local count, had, failed = (#ARGV - 6) / 2, #ids, nil
for event = had + 1, count do
  local entry, key = ARGV[5 + 2 * event], tonumber(ARGV[6 + 2 * event])
  local got = key > 0 and redis.pcall('GET', KEYS[key])
  if not got then
    got, failed = add('e', entry)
    if got and key > 0 then redis.pcall('SET', KEYS[key], got, 'PX', ARGV[6]) end
  elseif type(got) == 'table' then
    failed = got.err
  end
  if failed then break end
  ids[event] = got
end
if #ids > had then
  redis.pcall('SET', lastkey, last)
  redis.pcall('SET', KEYS[3], first .. ' ' .. table.concat(ids, ' '), 'PX', ARGV[5])
end
return {failed or '', ids}
";

/// Says that the order went backwards before `since`, unless that was said.
const MARK: &str = r"
if state then
  local ms, seq = numbers(state)
  local sincems, sinceseq = numbers(ARGV[4])
  if ms > sincems or (ms == sincems and seq > sinceseq) then return state end
end
local got, failed = add('m', ARGV[4])
if failed then return redis.error_reply(failed) end
redis.pcall('SET', lastkey, got)
redis.pcall('SET', KEYS[3], got)
return got
";

/// The position that an order begins at which nobody has written to.
const BEGIN: &str = r"
local last = redis.call('GET', KEYS[2])
if last then return last end
local time = redis.call('TIME')
last = string.format('%.0f-0', time[1] * 1000 + math.floor(time[2] / 1000) + 1)
local top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if top then last = top[1] end
redis.call('SET', KEYS[2], last)
return last
";

/// The names of the keys. All in one slot of a cluster, for a script may not touch several.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) stream: String,
    pub(super) last: String,
    mark: String,
    publisher: String,
    once: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, publisher: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}");
        Self {
            stream: key("events"),
            last: key("last"),
            mark: key("mark"),
            publisher: key("publisher:") + publisher,
            once: key("once:"),
        }
    }
}

/// The scripts of one hub.
#[derive(Debug)]
pub(super) struct Scripts {
    keys: Keys,
    keep: Keep,
    /// How long Redis remembers a publisher, and an idempotency key.
    remembers: [u64; 2],
    publish: Loaded,
    mark: Loaded,
    begin: Loaded,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Taken {
    /// Of those that were taken, in order.
    pub(super) ids: Vec<EventId>,
    /// Why the rest was not.
    pub(super) failed: Option<String>,
}

impl Scripts {
    pub(super) fn new(keys: Keys, keep: Keep, remembers: [u64; 2]) -> Self {
        Self {
            keys,
            keep,
            remembers,
            publish: Loaded::new(&[ADD, PUBLISH]),
            mark: Loaded::new(&[ADD, MARK]),
            begin: Loaded::new(&[BEGIN]),
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Publishes a batch whose first event has the number `first`. `floor`: ids are to be newer than that.
    pub(super) async fn publish<'a, E>(
        &self,
        connection: &mut MultiplexedConnection,
        floor: EventId,
        first: u64,
        events: E,
    ) -> RedisResult<Taken>
    where
        E: Iterator<Item = (&'a [u8], Option<&'a str>)> + Clone,
    {
        let fill = |command: &mut Cmd| {
            let once: Vec<&str> = events.clone().filter_map(|(_, key)| key).collect();
            let Keys { stream, last, publisher, once: prefix, .. } = &self.keys;
            command.arg(3 + once.len()).arg(stream).arg(last).arg(publisher);
            for key in &once {
                command.arg([prefix, *key].concat());
            }
            self.arg_add(command, floor);
            command.arg(first).arg(&self.remembers[..]);
            let mut next = 4;
            for (entry, key) in events.clone() {
                command.arg(entry).arg(if key.is_some() { next } else { 0 });
                next += usize::from(key.is_some());
            }
        };
        let answer = self.publish.call(connection, fill).await?;
        let (failed, ids): (String, Vec<String>) = redis::from_redis_value(answer)?;
        let ids: Option<Vec<EventId>> = ids.iter().map(|id| id.parse().ok()).collect();
        let ids = ids.ok_or_else(|| unexpected("an id"))?;
        Ok(Taken { ids, failed: Some(failed).filter(|failed| !failed.is_empty()) })
    }

    /// Says that the order went backwards before `since`. Returns where it was said.
    pub(super) async fn mark(
        &self,
        connection: &mut MultiplexedConnection,
        floor: EventId,
        since: EventId,
    ) -> RedisResult<EventId> {
        let fill = |command: &mut Cmd| {
            let Keys { stream, last, mark, .. } = &self.keys;
            command.arg(3).arg(stream).arg(last).arg(mark);
            self.arg_add(command, floor);
            command.arg(since.to_string());
        };
        id(self.mark.call(connection, fill).await?)
    }

    /// The newest position, or the first of all.
    pub(super) async fn begin(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<EventId> {
        let fill = |command: &mut Cmd| {
            command.arg(2).arg(&self.keys.stream).arg(&self.keys.last);
        };
        id(self.begin.call(connection, fill).await?)
    }

    /// The newest position; the origin if nobody knows.
    pub(super) async fn last(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<EventId> {
        let answer = redis::cmd("GET").arg(&self.keys.last).query_async(connection).await?;
        if let Value::Nil = answer { Ok(EventId::ORIGIN) } else { id(answer) }
    }

    fn arg_add(&self, command: &mut Cmd, floor: EventId) {
        let (strategy, limit) = self.keep.strategy();
        command.arg(strategy).arg(limit).arg(floor.to_string());
    }
}

/// A script that is sent by its hash, and whole where Redis does not know it.
#[derive(Debug)]
pub(super) struct Loaded {
    code: String,
    hash: String,
}

impl Loaded {
    pub(super) fn new(parts: &[&str]) -> Self {
        let code = parts.concat();
        let hash = Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    pub(super) async fn call(
        &self,
        connection: &mut MultiplexedConnection,
        fill: impl Fn(&mut Cmd),
    ) -> RedisResult<Value> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash);
        fill(&mut command);
        match command.query_async(connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let mut command = redis::cmd("EVAL");
                command.arg(&self.code);
                fill(&mut command);
                command.query_async(connection).await
            }
            answer => answer,
        }
    }
}

fn id(answer: Value) -> RedisResult<EventId> {
    let text: String = redis::from_redis_value(answer)?;
    text.parse().map_err(|_| unexpected("a position"))
}

pub(super) fn unexpected(what: &'static str) -> redis::RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "not what a hub has written", what.to_owned()).into()
}
