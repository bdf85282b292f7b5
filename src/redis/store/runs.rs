//! The copies of runs, and the leases of the instances that have open runs.
//!
//! The script that publishes an entry of a run also copies the entry to a stream of the run's own,
//! under the same id (`lua/runs.lua`). So an instance that starts later finds the run from its
//! beginning, however short the stream of all events is. The hash `runs` has a record of each run.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value, aio::MultiplexedConnection};

use super::entry::{self, CopiedEntry};
use super::millis;
use super::script::{self, Loaded, RunKeys, unexpected};
use crate::EventId;
use crate::backplane::{Incoming, InstanceId, Kind};

/// Forgets ended runs: those that were kept for long enough, and beyond the limits those that ended
/// first. A copy expires by itself; only the copies of runs that go earlier must be named.
/// Returns the names of further runs that must go: the caller passes their copies to the next call.
const PRUNE: &str = r"
local call, match = redis.call, string.match
local most_bytes, most_runs = tonumber(ARGV[1]), tonumber(ARGV[2])
local copies, wanted, back = {}, {}, {}
for at = 3, #KEYS do copies[match(KEYS[at], '^{.-}:run:(.*)$')] = KEYS[at] end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local open, ended = match(call('HGET', KEYS[1], '') or '', '^(%d+) (%d+)$')
open, ended = tonumber(open or 0), tonumber(ended or 0)
local left, runs = open + ended, call('ZCARD', KEYS[2])
for _ = 1, 256 do
  local name = call('ZPOPMIN', KEYS[2])[1]
  if not name then break end
  local bytes, till = match(call('HGET', KEYS[1], name) or '', '^ended (%d+) (%d+) ')
  if bytes then
    local is_due = tonumber(till) <= now
    if not is_due and not copies[name] then
      back[#back + 1] = {till, name}
      if (left <= most_bytes and runs <= most_runs) or #wanted == 64 then break end
      wanted[#wanted + 1] = name
    else
      if copies[name] then call('DEL', copies[name]) end
      call('HDEL', KEYS[1], name)
      ended = ended - bytes
    end
    left = left - bytes
  end
  runs = runs - 1
end
for _, run in ipairs(back) do call('ZADD', KEYS[2], run[1], run[2]) end
call('HSET', KEYS[1], '', string.format('%.0f %.0f', open, math.max(0, ended)))
return wanted
";

/// Reads copies, one after the other, up to a number of entries and a number of bytes, and at least
/// one entry. Returns the newest position of the order, and for each copy the record of the run, 1
/// if the copy ends there, and the entries. A copy that no hub wrote is empty.
const READ_COPIES: &str = r"
local answer, total, bytes = {redis.call('GET', KEYS[2]) or '0-0'}, 0, 0
local from, most, room = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for at = 3, #KEYS do
  local name = string.match(KEYS[at], '^{.-}:run:(.*)$')
  local record = redis.call('HGET', KEYS[1], name)
  local found, step, is_end = {}, 1, record and 0 or 1
  answer[#answer + 1] = {record or '', 1, found}
  while is_end == 0 do
    local asked = math.min(step, most - total)
    local some = redis.pcall('XRANGE', KEYS[at], from, '+', 'COUNT', asked)
    for _, entry in ipairs(some) do
      bytes = bytes + 64
      for _, field in ipairs(entry[2]) do bytes = bytes + #field end
      if bytes > room and total > 0 then
        answer[#answer][2] = 0
        return answer
      end
      found[#found + 1] = entry
      total = total + 1
    end
    if #some < asked then break end
    from = '(' .. some[#some][1]
    if total >= most then
      answer[#answer][2] = 0
      return answer
    end
    step = math.min(2 * step, 64)
  end
  from = '-'
end
return answer
";

/// About how many records one answer has.
const RECORDS: usize = 256;

/// The most copies in a read.
pub(crate) const COPIES: usize = 128;

/// The most calls in which ended runs are forgotten at a time. The rest is for the next time.
const PRUNES: usize = 16;

/// The most bytes of an instance's lease that are looked at.
const RENEWAL_LEN: usize = 20;

/// The value of a lease that the instance gave up.
const GIVEN_UP: &[u8] = b"over";

/// How many renewals there are in a lease.
const BEATS: u32 = 8;

/// The longest time between two renewals. Readers must know of a death two seconds after the end of
/// the lease, which is five times this time.
const LONGEST_BEAT: Duration = Duration::from_millis(400);

/// Returns the time between two renewals of a lease.
pub(crate) fn beat(lease: Duration) -> Duration {
    (lease / BEATS).min(LONGEST_BEAT)
}

/// Returns how long Redis keeps a lease.
fn life(lease: Duration) -> u64 {
    millis(lease).saturating_mul(2)
}

/// The copies and the leases, as an instance uses them.
#[derive(Debug)]
pub(crate) struct RunStore {
    keys: RunKeys,
    prune: Loaded,
    read: Loaded,
}

/// What the record of a run says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) is_open: bool,
    /// The first entry of the run. Tells the run from others of the name.
    pub(crate) first: EventId,
    pub(crate) last: EventId,
    /// The newest event that the copy has dropped, or the end of an earlier run of the name; the
    /// origin if there is none.
    pub(crate) lost: EventId,
    pub(crate) producer: [u8; 16],
    /// Why the run must stop.
    pub(crate) stop: Option<Arc<str>>,
}

/// Copies that were read together.
#[derive(Debug)]
pub(crate) struct CopyPages {
    /// The newest position of the order at the time of the read.
    pub(crate) upto: EventId,
    pub(crate) pages: Vec<CopyPage>,
}

/// A part of a copy.
#[derive(Debug)]
pub(crate) struct CopyPage {
    /// `None` if the run is unknown.
    pub(crate) record: Option<Record>,
    pub(crate) is_end: bool,
    pub(crate) entries: Vec<CopiedEntry>,
}

/// A copy of which not all pages are read.
#[derive(Debug)]
pub(crate) struct PartOfCopy {
    /// The first entry of the run.
    first: EventId,
    /// The newest event that the copy does not have.
    pub(crate) lost: EventId,
    /// The last entry that is read, malformed or not.
    pub(crate) upto: EventId,
    pub(crate) entries: Vec<(EventId, Incoming)>,
}

/// The lease of another instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunLease {
    /// Changes with each renewal.
    Renewed(Vec<u8>),
    GivenUp,
    Absent,
}

impl RunStore {
    pub(crate) fn new(keys: RunKeys) -> Self {
        Self { keys, prune: Loaded::new(&[PRUNE]), read: Loaded::new(&[READ_COPIES]) }
    }

    /// Renews the lease of a publisher, and returns the records of runs.
    pub(crate) async fn renew_and_look(
        &self,
        connection: &mut MultiplexedConnection,
        (instance, renewal): (InstanceId, u64),
        lease: Duration,
        names: &[&str],
    ) -> RedisResult<Vec<Option<Record>>> {
        let mut calls = redis::pipe();
        calls.cmd("SET").arg(self.keys.lease_of(instance)).arg(renewal);
        calls.arg("PX").arg(life(lease)).ignore();
        for name in names {
            calls.cmd("HGET").arg(&self.keys.records).arg(name);
        }
        let records: Vec<Option<Vec<u8>>> = calls.query_async(connection).await?;
        Ok(records.into_iter().map(|record| Record::parse(&record?)).collect())
    }

    /// Renews the lease of an instance, by a number that no earlier renewal had, and returns the
    /// leases of others.
    pub(crate) async fn renew(
        &self,
        connection: &mut MultiplexedConnection,
        own: Option<(InstanceId, u64)>,
        lease: Duration,
        others: &[InstanceId],
    ) -> RedisResult<Vec<RunLease>> {
        let mut calls = redis::pipe();
        if let Some((instance, renewal)) = own {
            calls.cmd("SET").arg(self.keys.lease_of(instance)).arg(renewal);
            calls.arg("PX").arg(life(lease)).ignore();
        }
        if others.is_empty() {
            if own.is_some() {
                calls.query_async::<()>(connection).await?;
            }
            return Ok(Vec::new());
        }
        let call = calls.cmd("MGET");
        for &instance in others {
            call.arg(self.keys.lease_of(instance));
        }
        let (leases,): (Vec<Option<Vec<u8>>>,) = calls.query_async(connection).await?;
        Ok(leases.into_iter().map(RunLease::of).collect())
    }

    /// Replaces the lease of an instance by a note that the instance has ended.
    pub(crate) async fn give_up(
        &self,
        connection: &mut MultiplexedConnection,
        instance: InstanceId,
        lease: Duration,
    ) -> RedisResult<()> {
        let mut call = redis::cmd("SET");
        call.arg(self.keys.lease_of(instance)).arg(GIVEN_UP).arg("PX").arg(life(lease));
        call.query_async(connection).await
    }

    /// Forgets ended runs that were kept for long enough, or are beyond the limits.
    pub(crate) async fn prune(
        &self,
        connection: &mut MultiplexedConnection,
        most_bytes: usize,
        most_runs: usize,
    ) -> RedisResult<()> {
        let mut copies: Vec<Vec<u8>> = Vec::new();
        for _ in 0..PRUNES {
            let fill = |call: &mut Cmd| {
                call.arg(2 + copies.len()).arg(&self.keys.records).arg(&self.keys.ended);
                call.arg(&copies).arg(most_bytes).arg(most_runs);
            };
            let answer = self.prune.call(connection, fill).await?;
            let names: Vec<Vec<u8>> = redis::from_redis_value(answer)?;
            if names.is_empty() {
                break;
            }
            copies = names.iter().map(|name| self.keys.copy_of(name)).collect();
        }
        Ok(())
    }

    /// Returns the names of all runs with their records.
    pub(crate) async fn records(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Vec<(Vec<u8>, Record)>> {
        // Programs that have no runs need no right to read the hash.
        let get = redis::cmd("GET").arg(&self.keys.records).query_async::<Value>(connection).await;
        match get {
            Err(error) if error.code() == Some("WRONGTYPE") => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(Vec::new()),
        }
        let (mut cursor, mut records) = ("0".to_owned(), Vec::new());
        loop {
            let mut call = redis::cmd("HSCAN");
            call.arg(&self.keys.records).arg(&cursor).arg("COUNT").arg(RECORDS);
            type Answer = (String, Vec<(Vec<u8>, Vec<u8>)>);
            let (next, some) = match call.query_async::<Answer>(connection).await {
                Ok(answer) => answer,
                // Not a hash of a hub. The next entry of a run replaces the key.
                Err(error) if error.code() == Some("WRONGTYPE") => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let known = |(name, record): (Vec<u8>, Vec<u8>)| Some((name, Record::parse(&record)?));
            records.extend(some.into_iter().filter_map(known));
            if next == "0" {
                return Ok(records);
            }
            cursor = next;
        }
    }

    /// Reads copies, at most `entries` entries and about `bytes` bytes, and at least one entry. The
    /// first copy is read after a position. `last`: the key of the newest position.
    pub(crate) async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        last: &str,
        names: &[Vec<u8>],
        after: EventId,
        entries: usize,
        bytes: usize,
    ) -> RedisResult<CopyPages> {
        let fill = |call: &mut Cmd| {
            call.arg(2 + names.len()).arg(&self.keys.records).arg(last);
            for name in names {
                call.arg(self.keys.copy_of(name));
            }
            call.arg(format!("({after}")).arg(entries).arg(bytes);
        };
        let Value::Array(answer) = self.read.call(connection, fill).await? else {
            return Err(unexpected("copies"));
        };
        let mut parts = answer.into_iter();
        let upto = script::id(parts.next().unwrap_or(Value::Nil))?;
        let page = |page: Value| {
            let (record, is_end, entries): (Vec<u8>, u8, Value) = redis::from_redis_value(page)?;
            let entries = entry::copied(entries).ok_or_else(|| unexpected("a stream"))?;
            Ok(CopyPage { record: Record::parse(&record), is_end: is_end == 1, entries })
        };
        Ok(CopyPages { upto, pages: parts.map(page).collect::<RedisResult<_>>()? })
    }
}

impl PartOfCopy {
    /// Adds a page to a copy. `horizon`: a greater time is not of a hub's clock. Returns the number
    /// of malformed entries, too.
    ///
    /// Returns no copy if Redis has no run of the name any more, or another run than before: that
    /// run has begun after the tail.
    pub(crate) fn extended(
        part: Option<Self>,
        page: CopyPage,
        horizon: u64,
    ) -> (Option<Self>, usize) {
        let Some(Record { first, lost, .. }) = page.record else { return (None, 0) };
        let upto = EventId::ORIGIN;
        let mut part = part.unwrap_or(Self { first, lost, upto, entries: Vec::new() });
        if part.first != first {
            return (None, 0);
        }
        part.lost = part.lost.max(lost);
        let mut malformed = 0;
        for (id, bytes) in page.entries {
            part.upto = id;
            let entry = bytes.and_then(|bytes| Incoming::parse(&bytes).ok());
            let is_part = |entry: &Incoming| entry.kind() == Kind::Run;
            match entry.filter(is_part).filter(|_| id.epoch() <= horizon) {
                Some(entry) => part.entries.push((id, entry)),
                // The entry can have been an event.
                None => {
                    malformed += 1;
                    part.lost = part.lost.max(id);
                }
            }
        }
        (Some(part), malformed)
    }
}

impl RunLease {
    fn of(value: Option<Vec<u8>>) -> Self {
        match value {
            Some(value) if value == GIVEN_UP => Self::GivenUp,
            Some(value) if value.len() <= RENEWAL_LEN => Self::Renewed(value),
            _ => Self::Absent,
        }
    }
}

impl Record {
    /// Parses a record as the script writes it.
    fn parse(record: &[u8]) -> Option<Self> {
        let mut parts = record.splitn(7, |&byte| byte == b' ');
        let is_open = match parts.next()? {
            b"open" | b"stopping" => true,
            b"ended" => false,
            _ => return None,
        };
        let mut parts = parts.skip(2);
        let mut id = || parts.next().and_then(|id| EventId::from_bytes(id).ok());
        let (first, last, lost) = (id()?, id()?, id()?);
        let (producer, reason) = parts.next()?.split_first_chunk()?;
        let stop = std::str::from_utf8(reason).ok().filter(|reason| !reason.is_empty());
        Some(Self { is_open, first, last, lost, producer: *producer, stop: stop.map(Arc::from) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A page of a run that began with 5-0, up to `last`.
    fn page(first: u64, lost: u64, entries: &[(u64, &[u8])]) -> CopyPage {
        let id = |epoch| EventId::new(epoch, 0);
        let record = Record {
            is_open: true,
            first: id(first),
            last: id(9),
            lost: id(lost),
            producer: [0; 16],
            stop: None,
        };
        let entries = entries.iter().map(|&(at, bytes)| (id(at), Some(bytes.to_vec())));
        CopyPage { record: Some(record), is_end: false, entries: entries.collect() }
    }

    /// A stop of the run `r`.
    const PART: &[u8] = b"\x02\x09\x01\0\0\0r\x04\0\0\0user";

    #[test]
    fn copy_knows_what_was_dropped_between_two_pages() {
        let id = |epoch| EventId::new(epoch, 0);
        let (part, malformed) = PartOfCopy::extended(None, page(5, 0, &[(5, PART)]), 100);
        assert_eq!(malformed, 0);
        // Redis has dropped the entry 6 since the page before.
        let (part, _) = PartOfCopy::extended(part, page(5, 6, &[(7, PART)]), 100);
        let part = part.expect("the run is the same");
        assert_eq!((part.lost, part.upto, part.entries.len()), (id(6), id(7), 2));
    }

    #[test]
    fn copy_counts_malformed_entries_as_lost() {
        let id = |epoch| EventId::new(epoch, 0);
        let entries = [(5, PART), (6, &b"other"[..]), (7, PART), (200, PART)];
        let (part, malformed) = PartOfCopy::extended(None, page(5, 0, &entries), 100);
        let part = part.expect("a run");
        assert_eq!((malformed, part.lost, part.upto), (2, id(200), id(200)));
        assert_eq!(part.entries.len(), 2);
    }

    #[test]
    fn copy_of_another_run_is_given_up() {
        let first = |part| PartOfCopy::extended(part, page(5, 0, &[(5, PART)]), 100).0;
        let part = first(None);
        assert!(part.is_some());
        assert!(PartOfCopy::extended(part, page(8, 0, &[(8, PART)]), 100).0.is_none());
        let gone = CopyPage { record: None, is_end: true, entries: Vec::new() };
        assert!(PartOfCopy::extended(first(None), gone, 100).0.is_none());
    }

    #[test]
    fn records_of_the_script_are_read_and_others_are_not() {
        let record = |is_open| Record {
            is_open,
            first: EventId::new(5, 0),
            last: EventId::new(7, 1),
            lost: EventId::new(6, 2),
            producer: *b"sixteen  \xff\0bytes",
            stop: None,
        };
        let of = |state: &str, reason: &str| {
            let rest = b" 10 0 5-0 7-1 6-2 sixteen  \xff\0bytes";
            [state.as_bytes(), rest, reason.as_bytes()].concat()
        };
        assert_eq!(Record::parse(&of("open", "")), Some(record(true)));
        let stopped = Record { stop: Some("user".into()), ..record(true) };
        assert_eq!(Record::parse(&of("stopping", "user")), Some(stopped));
        assert_eq!(Record::parse(&of("ended", "")), Some(record(false)));
        for other in [
            &b""[..],
            b"10 20",
            b"gone 10 0 5-0 7-1 6-2 sixteen bytes are",
            b"open 10 0 5-0 7-1 x sixteen bytes are",
            b"open 10 0 5-0 7-1 6-2 fifteen bytes..",
        ] {
            assert_eq!(Record::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn leases_are_renewed_given_up_or_absent() {
        let of = |value: &[u8]| RunLease::of(Some(value.to_vec()));
        assert_eq!(of(b"17"), RunLease::Renewed(b"17".to_vec()));
        assert_eq!(of(b"over"), RunLease::GivenUp);
        assert_eq!(of(&[b'1'; 21]), RunLease::Absent);
        assert_eq!(RunLease::of(None), RunLease::Absent);
    }

    proptest! {
        #[test]
        fn no_record_panics(record in vec(any::<u8>(), 0..64)) {
            let _ = Record::parse(&record);
        }
    }
}
