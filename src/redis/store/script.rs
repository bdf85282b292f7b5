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

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, RedisResult, Script, Value, aio::MultiplexedConnection};

use super::entry::{self, Entry};
use super::{FOR_EVER, millis};
use crate::backplane::InstanceId;
use crate::redis::format::PUBLISH_SCRIPT;
use crate::{EventId, RunLimits};

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

/// The first part of `PUBLISH_SCRIPT`, `RESET` and `BEGIN`.
///
/// `add` gives an entry the stream's own next id (`*`): the clock's, or the successor of the newest
/// id if that is greater. If this id is not greater than all known ids, the entry is taken back,
/// and gets the successor of the greatest known id. So ids grow also if the stream is emptied while
/// the clock is set back, and beyond the newest seen id (`floor`). Only the first entry of a batch
/// needs the check. Every hundredth entry trims the stream, which Redis does a node at a time.
///
/// A `last` or an entry that is further ahead of the clock than `HORIZON` is malformed. Such a
/// `last` counts as missing. A clock that is set back by less costs nothing. Without the limit, a
/// single forged entry with the greatest id would leave no room for another, and would lead all
/// hubs to a position that nothing can follow. Redis cannot lower the end of a stream, so `repair`
/// makes a stream that ends with such an entry anew, with the newest plausible entries.
const ADD: &str = include_str!("../lua/add.lua");

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
    latest: String,
    latest_order: String,
    pub(crate) runs: RunKeys,
}

/// The names of the keys for runs.
#[derive(Debug, Clone)]
pub(crate) struct RunKeys {
    /// The hash with a record of each run.
    pub(crate) records: String,
    /// The set that orders the ended runs by the time when they are forgotten.
    pub(crate) ended: String,
    copy: String,
    lease: String,
}

impl RunKeys {
    /// Returns the key of the copy of a run.
    pub(crate) fn copy_of(&self, name: &[u8]) -> Vec<u8> {
        [self.copy.as_bytes(), name].concat()
    }

    /// Returns the key of the lease of an instance that has open runs.
    pub(crate) fn lease_of(&self, instance: InstanceId) -> String {
        format!("{}{instance}", self.lease)
    }
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
            latest: key("latest"),
            latest_order: key("latest-order"),
            runs: RunKeys {
                records: key("runs"),
                ended: key("runs-ended"),
                copy: key("run:"),
                lease: key("runs-of:"),
            },
        }
    }
}

/// The scripts of a hub or a publisher.
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
    /// The most values that are kept.
    pub(crate) most_values: usize,
    /// The limits for the copies of runs.
    pub(crate) run_limits: CopyLimits,
    /// Each event.
    pub(crate) events: E,
}

/// An event of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfBatch<'a> {
    pub(crate) entry: &'a [u8],
    pub(crate) idempotency_key: Option<&'a str>,
    /// See [`Outgoing::value_of`](crate::backplane::Outgoing::value_of).
    pub(crate) value_of: Option<&'a [u8]>,
    /// The name of the run that the entry is a part of.
    pub(crate) run: Option<&'a str>,
}

/// The limits for the copies of runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyLimits {
    /// The most bytes of a copy.
    pub(crate) bytes_per_run: usize,
    /// The most bytes of the copies of all open runs.
    pub(crate) bytes: usize,
    /// How long an ended run is kept.
    pub(crate) keep: Duration,
}

impl CopyLimits {
    /// Returns the limits that hubs with these limits have.
    pub(crate) fn of(runs: &RunLimits) -> Self {
        Self { bytes_per_run: runs.per_run(), bytes: runs.bytes, keep: runs.keep }
    }
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
        let adding = |script| Loaded::new(&[ADD, script]);
        Self {
            keys,
            keep,
            remember,
            publish: Loaded::new(&[PUBLISH_SCRIPT]),
            reset: adding(RESET),
            begin: adding(BEGIN),
            trim: Loaded::new(&[TRIM]),
            read: Loaded::new(&[READ]),
        }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Publishes a batch once, however often the batch is sent.
    ///
    /// For each publisher, Redis keeps the number of the first event of its latest batch, and the
    /// ids of that batch. A batch with the same number is the same batch: events that are in the
    /// stream already are answered and not added again. A batch with a lower number comes late,
    /// over an abandoned connection. If the stream still ends at the publisher's last answer, then
    /// nothing of this batch is in the stream, and the record need not be read. The record is
    /// written also if the batch fails half way, so no refused command ends the script: the calls
    /// after the first event are `pcall`s, or are in a `try`.
    ///
    /// A record or an idempotency key that no hub can have written is ignored and replaced. Such a
    /// record has more ids than the batch, or an id that cannot be of the batch.
    pub(crate) async fn publish<'a, E>(
        &self,
        connection: &mut MultiplexedConnection,
        batch: BatchOf<E>,
    ) -> RedisResult<Taken>
    where
        E: Iterator<Item = OfBatch<'a>> + Clone,
    {
        let BatchOf { record, first, floor, answered, most_values, run_limits, events } = batch;
        let fill = |command: &mut Cmd| {
            let once: Vec<&str> =
                events.clone().filter_map(|event| event.idempotency_key).collect();
            let Keys { stream, last, publisher, once: prefix, latest, latest_order, runs, .. } =
                &self.keys;
            let (mut copies, mut copy_of) = (Vec::new(), HashMap::new());
            for name in events.clone().filter_map(|event| event.run) {
                copy_of.entry(name).or_insert_with(|| {
                    copies.push(name);
                    copies.len() - 1
                });
            }
            let values = events.clone().filter(|event| event.value_of.is_some()).count();
            let of_values = if values > 0 { 2 } else { 0 };
            let of_runs = if copies.is_empty() { 0 } else { 2 };
            let fixed = 3 + of_runs;
            let keys = fixed + once.len() + copies.len() + of_values;
            command.arg(keys).arg(stream).arg(last);
            if record == 0 {
                command.arg(publisher);
            } else {
                command.arg(format!("{publisher}.{record}"));
            }
            if of_runs > 0 {
                command.arg(&runs.records).arg(&runs.ended);
            }
            for key in &once {
                command.arg([prefix, *key].concat());
            }
            for name in &copies {
                command.arg(runs.copy_of(name.as_bytes()));
            }
            if values > 0 {
                command.arg(latest).arg(latest_order);
            }
            self.arg_add(command, floor);
            command.arg(answered.to_string()).arg(first);
            let remember = self.remember;
            if of_runs > 0 {
                let CopyLimits { bytes_per_run, bytes, keep } = run_limits;
                let keep = millis(keep.min(FOR_EVER));
                let limits = format!("{bytes_per_run} {bytes} {keep}");
                command.arg(format!("{remember} {most_values} {values} {limits}"));
            } else if values > 0 {
                command.arg(format!("{remember} {most_values} {values}"));
            } else {
                command.arg(remember);
            }
            let (mut next_key, first_copy) = (fixed + 1, fixed + 1 + once.len());
            for event in events.clone() {
                let has_key = event.idempotency_key.is_some();
                let key = if has_key { next_key } else { 0 };
                next_key += usize::from(has_key);
                command.arg(event.entry);
                match event.run.and_then(|name| copy_of.get(name)) {
                    Some(at) => command.arg(format!("{key} {}", first_copy + at)),
                    None => command.arg(key),
                };
            }
            for (at, event) in (1..).zip(events.clone()) {
                if let Some(name) = event.value_of {
                    command.arg(at).arg(name);
                }
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

    /// Notes that clients have joined topics. The note outlives the entries that say which clients.
    pub(crate) async fn note_joins(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        redis::cmd("SET").arg(&self.keys.joins).arg(1).query_async(connection).await
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

    /// Reads the values. `most`: about how many one command returns, because the line may be slow.
    /// Each value is at least as new as this call.
    pub(crate) async fn read_values(
        &self,
        connection: &mut MultiplexedConnection,
        most: usize,
    ) -> RedisResult<Vec<Value>> {
        let (mut cursor, mut values) = ("0".to_owned(), Vec::new());
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(&self.keys.latest).arg(&cursor).arg("COUNT").arg(most);
            let answer: RedisResult<(String, Vec<Value>)> = command.query_async(connection).await;
            let piece = match answer {
                Ok((next, piece)) => {
                    cursor = next;
                    piece
                }
                // Not a hash of a hub. The next event with a key replaces the key.
                Err(error) if error.code() == Some("WRONGTYPE") => return Ok(values),
                Err(error) => return Err(error),
            };
            values.extend(piece);
            if cursor == "0" {
                return Ok(values);
            }
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

/// Returns the id in an answer.
pub(crate) fn id(answer: Value) -> RedisResult<EventId> {
    let text: String = redis::from_redis_value(answer)?;
    text.parse().map_err(|_| unexpected("a position"))
}

/// The error for an answer that no hub's data can lead to.
pub(crate) fn unexpected(what: &'static str) -> redis::RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "not written by a hub", what.to_owned()).into()
}
