//! What is done inside Redis, atomically: the scripts, and the keys that they share.
//!
//! The stream holds the events. `last` is the id of the last entry that a hub wrote: each entry carries, as `p`, the
//! `last` that it found. So the entries are a chain, and a reader whose own last entry is not the one that the next
//! names knows that something is gone between, whatever became of the stream. `mark` is the id of the last entry that
//! says so to those who cannot know it by themselves.

use redis::{Cmd, RedisResult, Script, Value, aio::MultiplexedConnection};

use crate::redis::config::Keep;
use crate::wire::id::EventId;

/// What `PUBLISH` and `MARK` begin with.
///
/// `add` gives an entry the stream's own next id (`*`): the clock's, or the one after the newest if that is later. If it
/// is not past all that is known, the entry is taken back and gets the one right after that. So ids grow also over a
/// stream that was emptied while the clock was set back, and over what `floor` says was seen. The first that is added is
/// past all: those after it need no look. Only each hundredth trims the stream, which Redis does by so many at a time.
const ADD: &str = r"
local call, pcall, byte, sub = redis.call, redis.pcall, string.byte, string.sub
local stream, lastkey, floor = KEYS[1], KEYS[2], ARGV[3]
local last = call('GET', lastkey)
-- Looked at before anything is added, which each retry would add again. The fourth argument is a position anyway.
if last and last ~= ARGV[4] and not string.match(last, '^%d+%-%d+$') then
  return redis.error_reply('CORRUPT ' .. lastkey .. ' holds no position')
end
local function milliseconds()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function after(a, b)
  if byte(a, 14) == 45 and byte(b, 14) == 45 then
    -- Dashes, as clocks from 2001 to 2286 have them: no numbers are needed, which take longer.
    local ams, bms = sub(a, 1, 13), sub(b, 1, 13)
    if ams ~= bms then return ams > bms end
    if #a ~= #b then return #a > #b end
    return a > b
  end
  local ams, aseq = string.match(a, '(%d+)-(%d+)')
  local bms, bseq = string.match(b, '(%d+)-(%d+)')
  if ams ~= bms then return tonumber(ams) > tonumber(bms) end
  return tonumber(aseq) > tonumber(bseq)
end
local trim = ARGV[2]
if ARGV[1] == 'MINID' then trim = string.format('%.0f-0', math.max(0, milliseconds() - trim)) end
local added
local plain = 0
local function add(field, value)
  local got
  if plain > 0 then
    plain = plain - 1
    got = pcall('XADD', stream, '*', field, value, 'p', added)
  else
    plain = 99
    local previous = added or last or '0-0'
    got = pcall('XADD', stream, ARGV[1], '~', trim, '*', field, value, 'p', previous)
    if not added and type(got) == 'string' then
      -- What begins anew begins in the next millisecond: in this one another may have ended.
      local top = last or string.format('%.0f-0', milliseconds() + 1)
      if floor ~= top and after(floor, top) then top = floor end
      if not after(got, top) then
        call('XDEL', stream, got)
        local ms, seq = string.match(top, '(%d+)-(%d+)')
        local id = string.format('%s-%.0f', ms, seq + 1)
        got = pcall('XADD', stream, id, field, value, 'p', previous)
      end
    end
  end
  if type(got) == 'table' then return nil, got.err end
  added = got
  return got
end
";

/// Publishes a batch once, however often it is sent.
///
/// Of each publisher Redis keeps the number of its latest batch's first event and the ids of that batch. The same number
/// again is the same batch: what was taken of it is answered and not added. A lower one is a straggler of a connection
/// that was given up. If nothing was added since what the publisher was told last, then nothing of this batch was, and
/// neither has to be looked for. All is recorded also if it fails half way, so `pcall` throughout.
const PUBLISH: &str = r"
local first = ARGV[5]
local ids, had = {}, 0
if last ~= ARGV[4] then
  local state = call('GET', KEYS[3])
  if state then
    local known = sub(state, 1, string.find(state, ' ', 1, true) - 1)
    if known == first then
      for taken in string.gmatch(state, ' (%S+)') do
        had = had + 1
        ids[had] = taken
      end
    elseif tonumber(known) > tonumber(first) then
      return redis.error_reply('STALE a later batch was taken')
    end
  end
end
local count, taken, failed = (#ARGV - 6) / 2, had, nil
for event = had + 1, count do
  local entry, key = ARGV[5 + 2 * event], ARGV[6 + 2 * event]
  local got = key ~= '0' and pcall('GET', KEYS[tonumber(key)])
  if not got then
    got, failed = add('e', entry)
    if got and key ~= '0' then pcall('SET', KEYS[tonumber(key)], got, 'PX', ARGV[6]) end
  elseif type(got) == 'table' then
    failed = got.err
  end
  if failed then break end
  taken = event
  ids[event] = got
end
local all = table.concat(ids, ' ')
if taken > had then
  if added then pcall('SET', lastkey, added) end
  pcall('SET', KEYS[3], first .. ' ' .. all, 'PX', ARGV[6])
end
if failed then return {failed, all} end
return all
";

/// Says that the order went backwards before `since`, unless that was said.
const MARK: &str = r"
local said = call('GET', KEYS[3])
if said and after(said, ARGV[4]) then return said end
local got, failed = add('m', ARGV[4])
if failed then return redis.error_reply(failed) end
pcall('SET', lastkey, got)
pcall('SET', KEYS[3], got)
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
pub(crate) struct Keys {
    pub(crate) stream: String,
    pub(crate) last: String,
    mark: String,
    publisher: String,
    once: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, publisher: &str) -> Self {
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
pub(crate) struct Scripts {
    keys: Keys,
    keep: Keep,
    /// For how many milliseconds Redis remembers a publisher, and an idempotency key.
    remember: u64,
    publish: Loaded,
    mark: Loaded,
    begin: Loaded,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Of those that were taken, in order.
    pub(crate) ids: Vec<EventId>,
    /// Why the rest was not.
    pub(crate) failed: Option<String>,
}

impl Scripts {
    pub(crate) fn new(keys: Keys, keep: Keep, remember: u64) -> Self {
        Self {
            keys,
            keep,
            remember,
            publish: Loaded::new(&[ADD, PUBLISH]),
            mark: Loaded::new(&[ADD, MARK]),
            begin: Loaded::new(&[BEGIN]),
        }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Publishes a batch whose first event has the number `first`. `floor`: ids are to be newer than that. `told`: the
    /// newest id that was an answer to this publisher before it sent the batch for the first time.
    pub(crate) async fn publish<'a, E>(
        &self,
        connection: &mut MultiplexedConnection,
        floor: EventId,
        told: EventId,
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
            command.arg(told.to_string()).arg(first).arg(self.remember);
            let mut next = 4;
            for (entry, key) in events.clone() {
                command.arg(entry).arg(if key.is_some() { next } else { 0 });
                next += usize::from(key.is_some());
            }
        };
        let answer = self.publish.call(connection, fill).await?;
        let (failed, ids): (Option<String>, String) = match answer {
            Value::Array(_) => redis::from_redis_value(answer)?,
            ids => (None, redis::from_redis_value(ids)?),
        };
        let ids: Option<Vec<EventId>> =
            ids.split_ascii_whitespace().map(|id| id.parse().ok()).collect();
        Ok(Taken { ids: ids.ok_or_else(|| unexpected("ids"))?, failed })
    }

    /// Says that the order went backwards before `since`. Returns where it was said.
    pub(crate) async fn mark(
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
    pub(crate) async fn begin(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<EventId> {
        let fill = |command: &mut Cmd| {
            command.arg(2).arg(&self.keys.stream).arg(&self.keys.last);
        };
        id(self.begin.call(connection, fill).await?)
    }

    /// The newest position; the origin if nobody knows.
    pub(crate) async fn last(
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
pub(crate) struct Loaded {
    code: String,
    hash: String,
}

impl Loaded {
    pub(crate) fn new(parts: &[&str]) -> Self {
        let code = parts.concat();
        let hash = Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    pub(crate) async fn call(
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

pub(crate) fn unexpected(what: &'static str) -> redis::RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "not what a hub has written", what.to_owned()).into()
}
