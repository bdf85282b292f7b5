//! The scripts that Redis runs atomically, and the keys that they share.
//!
//! The stream holds the events. The key `last` is the id of the last entry that a hub added. Each
//! entry carries, in its field `p`, the `last` that it found. So the entries form a chain: a reader
//! whose own last entry is not the `p` of the next entry knows that entries between them are gone,
//! whatever happened to the stream. The key `reset` is the id of the last entry that tells this to
//! readers that cannot know it by themselves.
//!
//! Anything may stand at these keys. A value that no hub wrote is replaced where that loses
//! nothing, and is an error otherwise.

use std::time::Duration;

use redis::{Cmd, RedisResult, Script, Value, aio::MultiplexedConnection};

use super::entry::{self, Entry};
use super::millis;
use crate::EventId;

/// Ids that lie further than this ahead of Redis's clock are malformed: ten years.
///
/// A clock that is set back by less costs nothing. Without the limit, a single forged entry with
/// the greatest id would leave no room for another, and would lead all hubs to a position that
/// nothing can follow.
const HORIZON_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// The limit that the stream is trimmed to, about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep {
    Events(u64),
    Age(Duration),
}

impl Keep {
    /// Returns the limit as `XADD` takes it. An age is in milliseconds; the script subtracts it
    /// from the clock.
    pub(crate) fn strategy(self) -> (&'static str, u64) {
        match self {
            // The greatest number that Redis reads.
            Self::Events(events) => ("MAXLEN", events.min(i64::MAX as u64)),
            Self::Age(age) => ("MINID", millis(age)),
        }
    }
}

/// The first part of `PUBLISH`, `RESET` and `BEGIN`.
///
/// `add` gives an entry the stream's own next id (`*`): the clock's, or the successor of the newest
/// id if that is greater. If this id is not greater than all known ids, the entry is taken back,
/// and gets the successor of the greatest known id. So ids grow also if the stream is emptied while
/// the clock is set back, and beyond the newest seen id (`floor`). Only the first entry of a batch
/// needs the check. Every hundredth entry trims the stream, which Redis does a node at a time.
///
/// A `last` or an entry that is further ahead of the clock than `HORIZON` is not a hub's. Such a
/// `last` counts as missing. A stream that ends with such an entry has no room for an entry with a
/// plausible id, and Redis cannot lower the end of a stream: `repair` makes the stream anew, with
/// the newest plausible entries.
const ADD: &str = r"
local call, pcall, byte, sub = redis.call, redis.pcall, string.byte, string.sub
local match, format = string.match, string.format
local stream, lastkey, floor = KEYS[1], KEYS[2], ARGV[3]
local function milliseconds()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function number(digits)
  if byte(digits) == 48 then return digits == '0' end
  return #digits < 20 or (#digits == 20 and digits <= '18446744073709551615')
end
-- Whether hubs read it as an id: two numbers of 64 bits, without leading zeros.
local function position(value)
  if type(value) ~= 'string' then return false end
  local ms, seq = match(value, '^(%d+)%-(%d+)$')
  return ms and number(ms) and number(seq)
end
local function is_far(id)
  -- Thirteen digits that begin with 1 are before 2033: no need to ask for the time.
  if byte(id, 1) == 49 and byte(id, 14) == 45 then return false end
  return tonumber(match(id, '^%d+')) > milliseconds() + HORIZON
end
local function after(a, b)
  if byte(a, 14) == 45 and byte(b, 14) == 45 then
    -- Dashes at the same place, as from 2001 to 2286: comparing texts is faster than numbers.
    local ams, bms = sub(a, 1, 13), sub(b, 1, 13)
    if ams ~= bms then return ams > bms end
    if #a ~= #b then return #a > #b end
    return a > b
  end
  local ams, aseq = match(a, '(%d+)-(%d+)')
  local bms, bseq = match(b, '(%d+)-(%d+)')
  if ams ~= bms then return tonumber(ams) > tonumber(bms) end
  return tonumber(aseq) > tonumber(bseq)
end
local function successor(id)
  local ms, seq = match(id, '(%d+)-(%d+)')
  -- A number of Lua is exact up to 15 digits.
  if #seq > 15 then return format('%.0f-0', ms + 1) end
  return format('%s-%.0f', ms, seq + 1)
end
local last = call('GET', lastkey)
-- Checked before anything is added: each retry would add it again. ARGV[4] is always a position.
if last and last ~= ARGV[4] then
  if not position(last) then
    return redis.error_reply('CORRUPT ' .. lastkey .. ' holds no position')
  end
  if is_far(last) then last = false end
end
local function repair()
  local limit = format('%.0f', milliseconds() + HORIZON)
  local kept = call('XREVRANGE', stream, limit, '-', 'COUNT', 256)
  call('DEL', stream)
  for at = #kept, 1, -1 do
    -- No hub writes more than two fields; `unpack` fails for some thousands.
    if #kept[at][2] <= 16 then call('XADD', stream, kept[at][1], unpack(kept[at][2])) end
  end
end
local function is_broken(got)
  if type(got) == 'string' then return is_far(got) end
  return match(got.err, 'exhausted')
end
local trim = ARGV[2]
if ARGV[1] == 'MINID' then trim = format('%.0f-0', math.max(0, milliseconds() - trim)) end
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
    if not added and is_broken(got) then
      repair()
      got = pcall('XADD', stream, '*', field, value, 'p', previous)
    end
    if not added and type(got) == 'string' then
      -- A new order begins in the next millisecond: another order may have ended in this one.
      local top = last or format('%.0f-0', milliseconds() + 1)
      if floor ~= top and after(floor, top) and not is_far(floor) then top = floor end
      if not after(got, top) then
        call('XDEL', stream, got)
        got = pcall('XADD', stream, successor(top), field, value, 'p', previous)
      end
    end
  end
  if type(got) == 'table' then return nil, got.err end
  added = got
  return got
end
";

/// Publishes a batch once, however often the batch is sent.
///
/// For each publisher, Redis keeps the number of the first event of its latest batch, and the ids
/// of that batch. A batch with the same number is the same batch: events that are in the stream
/// already are answered and not added again. A batch with a lower number comes late, over an
/// abandoned connection. If the stream still ends at the publisher's last answer, then nothing of
/// this batch is in the stream, and the record need not be read. The record is written also if the
/// batch fails half way, so the calls are `pcall`s.
///
/// A record or an idempotency key that no hub can have written is ignored and replaced. Such a
/// record has more ids than the batch, or an id that cannot be of the batch.
///
/// The key `joins` says that clients have joined topics at some time. It outlives the entries that
/// say which clients.
const PUBLISH: &str = r"
local first, count = ARGV[5], (#ARGV - 7) / 2
local ids, had, replaced = {}, 0, 0
if last ~= ARGV[4] then
  local state = pcall('GET', KEYS[3])
  local known = type(state) == 'string' and match(state, '^(%d+) ')
  if known == first then
    for taken in string.gmatch(state, ' (%S+)') do
      local event = had + 1
      local can_be = event <= count and position(taken) and not (last and after(taken, last))
      -- An event without an idempotency key is newer than all that came before the batch.
      if can_be and ARGV[7 + 2 * event] == '0' then can_be = after(taken, ARGV[4]) end
      if not can_be then
        ids, had = {}, 0
        break
      end
      had = event
      ids[had] = taken
    end
  elseif known and tonumber(known) > tonumber(first) then
    return redis.error_reply('STALE a later batch was taken')
  end
end
local taken, failed = had, nil
for event = had + 1, count do
  local entry, key = ARGV[6 + 2 * event], ARGV[7 + 2 * event]
  local got = key ~= '0' and pcall('GET', KEYS[tonumber(key)])
  if got then
    local newest = added or last
    if not position(got) or is_far(got) or (newest and after(got, newest)) then
      got = false
      replaced = replaced + 1
    end
  end
  if not got then
    got, failed = add('e', entry)
    if got and key ~= '0' then pcall('SET', KEYS[tonumber(key)], got, 'PX', ARGV[6]) end
  end
  if failed then break end
  taken = event
  ids[event] = got
end
local all = table.concat(ids, ' ')
if taken > had then
  if ARGV[7] == '1' then pcall('SET', KEYS[4], '1') end
  if added then pcall('SET', lastkey, added) end
  pcall('SET', KEYS[3], first .. ' ' .. all, 'PX', ARGV[6])
end
if failed or replaced > 0 then return {failed or '', all, replaced} end
return all
";

/// Adds an entry that says that the order went backwards before `since`, unless there is such an
/// entry.
const RESET: &str = r"
local said = pcall('GET', KEYS[3])
if position(said) and not is_far(said) and after(said, ARGV[4]) then return said end
local got, failed = add('r', ARGV[4])
if failed then return redis.error_reply(failed) end
pcall('SET', lastkey, got)
pcall('SET', KEYS[3], got)
return got
";

/// Repairs the end of the stream, and returns the newest position, or the first of a new order; and
/// the greatest plausible time of an id.
const BEGIN: &str = r"
local function newest()
  local top = call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return top and top[1]
end
local top = newest()
if top and is_far(top) then
  repair()
  top = newest()
end
if not last then
  last = top or format('%.0f-0', milliseconds() + 1)
  call('SET', lastkey, last)
end
return {last, format('%.0f', milliseconds() + HORIZON)}
";

/// Removes the oldest eighth of the stream. Redis allows this also if its memory is full.
const TRIM: &str = r"
local length = redis.call('XLEN', KEYS[1])
local least = length - math.ceil(length / 8)
return redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', string.format('%.0f', least))
";

/// Reads a range of the stream, up to a number of entries and a number of bytes, and at least one
/// entry. `XREAD` and `XRANGE` have no limit in bytes. Returns 1 if the range ends there.
///
/// The steps grow, so that neither many small entries take many calls, nor Redis copies much more
/// than is sent. An entry with the greatest id ends the range: Redis refuses to search after it.
const READ: &str = r"
local found, bytes, from, step = {}, 0, ARGV[2], 1
local most, room = tonumber(ARGV[4]), tonumber(ARGV[5])
while #found < most do
  local asked = math.min(step, most - #found)
  local some = redis.call(ARGV[1], KEYS[1], from, ARGV[3], 'COUNT', asked)
  for _, entry in ipairs(some) do
    bytes = bytes + 64
    for _, field in ipairs(entry[2]) do bytes = bytes + #field end
    if bytes > room and #found > 0 then return {0, found} end
    found[#found + 1] = entry
  end
  local last = #some > 0 and some[#some][1]
  if #some < asked or last == '18446744073709551615-18446744073709551615' then
    return {1, found}
  end
  from = '(' .. last
  step = math.min(2 * step, 64)
end
return {0, found}
";

/// The names of the keys. All are in the same slot of a cluster, because a script must not use
/// several.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) stream: String,
    pub(crate) last: String,
    reset: String,
    joins: String,
    publisher: String,
    once: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, publisher: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}");
        Self {
            stream: key("events"),
            last: key("last"),
            reset: key("reset"),
            joins: key("joins"),
            publisher: key("publisher:") + publisher,
            once: key("once:"),
        }
    }
}

/// The scripts of a hub.
#[derive(Debug)]
pub(crate) struct Scripts {
    keys: Keys,
    keep: Keep,
    /// For how many milliseconds Redis remembers a publisher and an idempotency key.
    remember: u64,
    publish: Loaded,
    reset: Loaded,
    begin: Loaded,
    trim: Loaded,
    read: Loaded,
}

/// A batch on its way to Redis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchOf<E> {
    /// Tells apart the records of a publisher. Raised when a record is forged.
    pub(crate) record: u32,
    /// The number of the batch's first event among all events of the publisher.
    pub(crate) first: u64,
    /// The new ids must be greater than this id.
    pub(crate) floor: EventId,
    /// The newest id in the answers before the first attempt to send the batch.
    pub(crate) answered: EventId,
    /// An entry lets clients join topics.
    pub(crate) has_joins: bool,
    /// Each event, and its idempotency key.
    pub(crate) events: E,
}

/// Redis's answer to a batch.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The ids of the added events, in order.
    pub(crate) ids: Vec<EventId>,
    /// Why Redis refused the other events.
    pub(crate) failed: Option<String>,
    /// How many idempotency keys held something that no hub wrote.
    pub(crate) replaced: u64,
}

/// The newest position, as the script [`BEGIN`] returns it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    pub(crate) last: EventId,
    /// An id with a greater time, in milliseconds, is malformed.
    pub(crate) horizon: u64,
}

/// Which entries to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Range {
    /// After a position, the oldest first.
    After(EventId),
    /// All, the newest first, and if a position is given, only those before.
    Before(Option<EventId>),
    /// From a position back to another, the newest first, both included.
    Back { from: EventId, to: EventId },
}

/// A part of a range.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// The range has no more entries.
    pub(crate) is_end: bool,
}

impl Scripts {
    pub(crate) fn new(keys: Keys, keep: Keep, remember: u64) -> Self {
        let horizon = format!("local HORIZON = {HORIZON_MS}\n");
        let adding = |script| Loaded::new(&[&horizon, ADD, script]);
        Self {
            keys,
            keep,
            remember,
            publish: adding(PUBLISH),
            reset: adding(RESET),
            begin: adding(BEGIN),
            trim: Loaded::new(&[TRIM]),
            read: Loaded::new(&[READ]),
        }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) async fn publish<'a, E>(
        &self,
        connection: &mut MultiplexedConnection,
        batch: BatchOf<E>,
    ) -> RedisResult<Taken>
    where
        E: Iterator<Item = (&'a [u8], Option<&'a str>)> + Clone,
    {
        let BatchOf { record, first, floor, answered, has_joins, events } = batch;
        let fill = |command: &mut Cmd| {
            let once: Vec<&str> = events.clone().filter_map(|(_, key)| key).collect();
            let Keys { stream, last, joins, publisher, once: prefix, .. } = &self.keys;
            command.arg(4 + once.len()).arg(stream).arg(last);
            if record == 0 {
                command.arg(publisher);
            } else {
                command.arg(format!("{publisher}.{record}"));
            }
            command.arg(joins);
            for key in &once {
                command.arg([prefix, *key].concat());
            }
            self.arg_add(command, floor);
            command.arg(answered.to_string()).arg(first).arg(self.remember);
            command.arg(u8::from(has_joins));
            let mut next_key = 5;
            for (entry, key) in events.clone() {
                command.arg(entry).arg(if key.is_some() { next_key } else { 0 });
                next_key += usize::from(key.is_some());
            }
        };
        let answer = self.publish.call(connection, fill).await?;
        let (failed, ids, replaced): (String, String, u64) = match answer {
            Value::Array(_) => redis::from_redis_value(answer)?,
            ids => (String::new(), redis::from_redis_value(ids)?, 0),
        };
        let ids: Option<Vec<EventId>> =
            ids.split_ascii_whitespace().map(|id| id.parse().ok()).collect();
        let failed = Some(failed).filter(|failed| !failed.is_empty());
        Ok(Taken { ids: ids.ok_or_else(|| unexpected("ids"))?, failed, replaced })
    }

    /// Says that the order went backwards before `since`. Returns the id of the entry that says so.
    pub(crate) async fn reset(
        &self,
        connection: &mut MultiplexedConnection,
        floor: EventId,
        since: EventId,
    ) -> RedisResult<EventId> {
        let fill = |command: &mut Cmd| {
            let Keys { stream, last, reset, .. } = &self.keys;
            command.arg(3).arg(stream).arg(last).arg(reset);
            self.arg_add(command, floor);
            command.arg(since.to_string());
        };
        id(self.reset.call(connection, fill).await?)
    }

    /// Finds the newest position, after a repair of the stream if needed.
    pub(crate) async fn begin(&self, connection: &mut MultiplexedConnection) -> RedisResult<Begin> {
        let fill = |command: &mut Cmd| {
            command.arg(2).arg(&self.keys.stream).arg(&self.keys.last);
            self.arg_add(command, EventId::default());
            command.arg(EventId::default().to_string());
        };
        let answer = self.begin.call(connection, fill).await?;
        let (last, horizon): (String, u64) = redis::from_redis_value(answer)?;
        Ok(Begin { last: last.parse().map_err(|_| unexpected("a position"))?, horizon })
    }

    /// Returns the newest position as it stands; the origin if there is none.
    pub(crate) async fn last(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<EventId> {
        let answer = redis::cmd("GET").arg(&self.keys.last).query_async(connection).await?;
        if let Value::Nil = answer { Ok(EventId::default()) } else { id(answer) }
    }

    /// Returns whether clients have ever joined topics.
    pub(crate) async fn has_joins(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<bool> {
        let answer = redis::cmd("GET").arg(&self.keys.joins).query_async(connection).await;
        match answer {
            Ok(Value::Nil) => Ok(false),
            Ok(_) => Ok(true),
            // No hub wrote the key: the answer is unknown.
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes the oldest eighth of the events. Returns how many events are gone.
    pub(crate) async fn trim(&self, connection: &mut MultiplexedConnection) -> RedisResult<u64> {
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(&self.keys.stream);
        };
        Ok(redis::from_redis_value(self.trim.call(connection, fill).await?)?)
    }

    /// Reads at most `entries` entries and about `bytes` bytes of a range, and at least one entry.
    pub(crate) async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        range: Range,
        entries: usize,
        bytes: usize,
    ) -> RedisResult<Page> {
        let (command, from, to) = match range {
            Range::After(id) => ("XRANGE", format!("({id}"), "+".to_owned()),
            Range::Before(None) => ("XREVRANGE", "+".to_owned(), "-".to_owned()),
            Range::Before(Some(id)) => ("XREVRANGE", format!("({id}"), "-".to_owned()),
            Range::Back { from, to } => ("XREVRANGE", from.to_string(), to.to_string()),
        };
        let fill = |call: &mut Cmd| {
            call.arg(1).arg(&self.keys.stream);
            call.arg(command).arg(&from).arg(&to).arg(entries).arg(bytes);
        };
        let answer = self.read.call(connection, fill).await?;
        let (is_end, entries): (u8, Value) = redis::from_redis_value(answer)?;
        let entries = entry::range(entries).ok_or_else(|| unexpected("a stream"))?;
        Ok(Page { entries, is_end: is_end == 1 })
    }

    fn arg_add(&self, command: &mut Cmd, floor: EventId) {
        let (strategy, limit) = self.keep.strategy();
        command.arg(strategy).arg(limit).arg(floor.to_string());
    }
}

/// A script that is sent by its hash, and as a whole if Redis does not know it.
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

/// The error for an answer that no hub's data can lead to.
pub(crate) fn unexpected(what: &'static str) -> redis::RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "not written by a hub", what.to_owned()).into()
}
