//! Reads the stream in order, and feeds the hub.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{RedisError, RedisResult, Value};
use tokio::time::Instant;

use super::read_size::ReadSize;
use crate::EventId;
use crate::backplane::{Feed, Incoming, Kind, Loaded, RunCopy, TailLimits};
use crate::redis::connect::back_off::BackOff;
use crate::redis::connect::link::{Failure, Link};
use crate::redis::health::{Burst, Part};
use crate::redis::shared::RedisShared;
use crate::redis::store::entry::{self, Content, Entry};
use crate::redis::store::runs::{COPIES, CopyPages, PartOfCopy};
use crate::redis::store::script::{Page, Range, unexpected};
use crate::redis::store::tail::{Position, Start, Tail};
use crate::redis::store::values::Values;
use crate::redis::store::{millis, now};

/// The share of the timeout for which a read waits at the server for the next entry. The rest is
/// for the answer to arrive.
const BLOCK_SHARE: u32 = 2;

/// How often a read of copies that does not arrive in time is repeated: until the size is the
/// smallest, and the time the longest.
const TRIES: u32 = 12;

/// About how many values one answer has.
const VALUES: usize = 64;

pub(crate) struct Reader {
    shared: Arc<RedisShared>,
    feed: Feed,
    /// `None` until the end of the stream is known.
    position: Option<Position>,
    /// The last link that this reader has read; `None` before the first link.
    last_link: Option<Entry>,
    /// An id with a greater time, in milliseconds, is malformed. Zero until Redis has said.
    horizon: u64,
    size: ReadSize,
    malformed: Burst,
    unknown: Burst,
}

impl Reader {
    pub(crate) fn new(shared: Arc<RedisShared>, feed: Feed) -> Self {
        Self {
            shared,
            feed,
            position: None,
            last_link: None,
            horizon: 0,
            size: ReadSize::default(),
            malformed: Burst::default(),
            unknown: Burst::default(),
        }
    }

    /// Reads until the hub is closed.
    pub(crate) async fn run(mut self) {
        let (mut link, mut back_off) = (Link::default(), BackOff::default());
        while !self.feed.is_closed() {
            let Err(error) = self.read(&mut link, &mut back_off).await else { return };
            if error.is_timeout() && link.had_full_time() && !self.size.timed_out() {
                link.wait_longer();
            }
            // Not longer than for one answer: the old master may get events for ever.
            let limit = self.shared.timeout;
            let _ = tokio::time::timeout(limit, self.drain(&mut link)).await;
            if link.failed(&error) == Failure::Report {
                self.shared.health.report(Some(&self.feed), Part::Reader, Some(&error.to_string()));
                back_off.wait().await;
            }
        }
    }

    /// Reads over a connection, until that fails or the hub is closed.
    async fn read(&mut self, link: &mut Link, back_off: &mut BackOff) -> RedisResult<()> {
        let mut position = match self.position {
            Some(position) => {
                self.compare(position, link).await?;
                self.verify(position, link).await?
            }
            None => self.begin(link).await?,
        };
        // The first read does not wait, so that the hub knows at once whether Redis answers.
        let mut may_wait = false;
        loop {
            self.position = Some(position);
            if self.feed.is_closed() {
                return Ok(());
            }
            // A server can accept connections and refuse to be read: report health only now.
            let page = self.page(position.cursor, may_wait, link).await?;
            self.shared.health.report(Some(&self.feed), Part::Reader, None);
            back_off.reset();
            if page.entries.is_empty() {
                position = self.verify(position, link).await?;
            } else {
                self.take(page.entries, &mut position, link).await?;
            }
            // Wait at the server only if nothing is left: waiting reads cannot count bytes.
            may_wait = page.is_end;
            self.check_clients_ahead(link).await?;
        }
    }

    /// Reads the next entries. If `may_wait`, waits for some time if there are none.
    async fn page(&mut self, after: EventId, may_wait: bool, link: &mut Link) -> RedisResult<Page> {
        let start = Instant::now();
        let shared = Arc::clone(&self.shared);
        let connection = link.get(&shared).await?;
        let page = if may_wait {
            let wait = millis(shared.timeout / BLOCK_SHARE).max(1);
            let most = self.size.entries();
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(most).arg("BLOCK").arg(wait);
            command.arg("STREAMS").arg(&shared.scripts.keys().stream).arg(after.to_string());
            let answer: Value = command.query_async(connection).await?;
            let entries = entry::read(answer).ok_or_else(|| unexpected("a stream"))?;
            // The time is for waiting, mostly, and says nothing about the line.
            self.size.answered(&entries, shared.timeout, shared.timeout);
            let is_end = entries.len() < most;
            Page { entries, is_end }
        } else {
            let (most, bytes) = (ReadSize::most_entries(), self.size.bytes());
            let page = shared.scripts.read(connection, Range::After(after), most, bytes).await?;
            self.size.answered(&page.entries, start.elapsed(), shared.timeout);
            page
        };
        if page.entries.is_empty() {
            link.answered();
        } else {
            link.carried(&shared);
        }
        Ok(page)
    }

    /// Finds the end of the stream, and loads as much as the hub retains.
    ///
    /// A read that does not arrive in time is repeated with a smaller size. The entries that
    /// arrived before are kept: a slow line brings the whole in any number of reads.
    async fn begin(&mut self, link: &mut Link) -> RedisResult<Position> {
        let shared = Arc::clone(&self.shared);
        let begin = shared.scripts.begin(link.get(&shared).await?).await?;
        link.answered();
        self.horizon = begin.horizon;
        let TailLimits { events, bytes, age, .. } = self.feed.tail_limits();
        let oldest = age.map_or(0, |age| now().saturating_sub(millis(age)));
        let mut tail = Tail::new(events, bytes, oldest, begin.horizon);
        let mut before = None;
        while tail.wants_more() {
            let start = Instant::now();
            let connection = link.get(&shared).await?;
            // Not much more than there is room for: an answer that is left out wastes the line.
            let bytes = self.size.bytes().min(tail.room().max(1));
            let (range, most) = (Range::Before(before), ReadSize::most_entries());
            let page = match shared.scripts.read(connection, range, most, bytes).await {
                Ok(page) => page,
                // The connection is given up. The collected entries stay: the stream only grows at
                // the end, and a break in the chain shows every other change.
                Err(error) if error.is_timeout() && before.is_some() => {
                    self.adapt(&error, link);
                    continue;
                }
                Err(error) => return Err(error),
            };
            link.carried(&shared);
            self.size.answered(&page.entries, start.elapsed(), shared.timeout);
            before = tail.extend(page.entries);
            if before.is_none() || page.is_end {
                break;
            }
        }
        let Start { position, floor, entries } = tail.finish(begin.last);
        let aged = aged(entries);
        self.load(floor, aged, link).await?;
        shared.is_loaded.send_replace(true);
        shared.outbox.begin();
        Ok(position)
    }

    /// After an answer that did not arrive in time: the next read asks for less, or waits for
    /// longer.
    fn adapt(&mut self, error: &RedisError, link: &mut Link) {
        if !self.size.timed_out() {
            link.wait_longer();
        }
        link.failed(error);
    }

    /// Reads the rest of a server that is not the master any more.
    ///
    /// The sender confirms no event after the master has changed. So after this, some instance has
    /// read each confirmed event, and finds the confirmed events that the new master's order lacks.
    async fn drain(&mut self, link: &mut Link) {
        let shared = Arc::clone(&self.shared);
        while let Some(mut position) = self.position
            && let Some(connection) = link.old_master(&shared)
        {
            let range = Range::After(position.cursor);
            let (most, bytes) = (ReadSize::most_entries(), self.size.bytes());
            let Ok(page) = shared.scripts.read(connection, range, most, bytes).await else {
                return;
            };
            for Entry { id, content } in page.entries {
                // Only entries that follow: a break is for the new master to explain.
                let Content::Link { previous, bytes } = content else { return };
                if previous != position.chain || id.epoch() > self.horizon {
                    return;
                }
                let Ok(entry) = Incoming::parse(&bytes) else { return };
                self.feed.append(id, entry);
                shared.owed.pass(id);
                position = Position { cursor: id, chain: id };
                self.position = Some(position);
                self.last_link = Some(Entry { id, content: Content::Link { previous, bytes } });
            }
            if page.is_end {
                return;
            }
        }
    }

    /// Checks that the last link is the same entry in the stream of this connection.
    ///
    /// Two servers that were masters at the same time can give an id to different entries. The
    /// chain alone cannot show that: the next entry names the id that this reader has.
    async fn compare(&self, position: Position, link: &mut Link) -> RedisResult<()> {
        let Some(known) = self.last_link.as_ref().filter(|known| known.id == position.chain) else {
            return Ok(());
        };
        let range = Range::Back { from: known.id, to: known.id };
        let page = self.shared.scripts.read(link.get(&self.shared).await?, range, 1, 1).await?;
        link.answered();
        // A missing entry proves nothing: the entry may be trimmed, and the chain shows the rest.
        if page.entries.first().is_some_and(|found| found != known) {
            self.reset(position.cursor.max(self.feed.head()), link).await?;
        }
        Ok(())
    }

    /// Checks that the stream still is the one that was read, by the key `last`: without a new
    /// entry nothing else says so.
    async fn verify(&mut self, mut position: Position, link: &mut Link) -> RedisResult<Position> {
        // Before the question: an answer to the sender that comes meanwhile is no loss.
        let owed = self.shared.owed.newest().unwrap_or_default();
        let last = self.last(link).await?;
        if last < position.chain.max(owed) {
            // The stream is empty, or went back to an older dump. All readers read the reset entry
            // next, after the entries published since.
            let seen = position.cursor.max(position.chain).max(self.feed.head()).max(owed);
            self.reset(seen, link).await?;
            return Ok(position);
        }
        if last > position.chain {
            // New entries came between the read and the question; or they are gone, and no
            // later entry will say so.
            let page = self.page(position.cursor, false, link).await?;
            if page.entries.is_empty() {
                self.forget(last, link).await?;
                return Ok(Position { cursor: last, chain: last });
            }
            self.take(page.entries, &mut position, link).await?;
        }
        Ok(position)
    }

    /// Returns the newest position; the origin if there is none, or none that a hub can have
    /// written.
    async fn last(&mut self, link: &mut Link) -> RedisResult<EventId> {
        let shared = Arc::clone(&self.shared);
        let last = shared.scripts.last(link.get(&shared).await?).await?;
        link.answered();
        let is_far = last.epoch() > self.horizon && !self.repair(last, link).await?;
        Ok(if is_far { EventId::default() } else { last })
    }

    async fn reset(&self, since: EventId, link: &mut Link) -> RedisResult<()> {
        self.shared.scripts.reset(link.get(&self.shared).await?, since, since).await?;
        link.answered();
        Ok(())
    }

    /// Asks Redis whether an id can be a hub's: the clock goes on. If not, Redis repairs the
    /// stream.
    async fn repair(&mut self, id: EventId, link: &mut Link) -> RedisResult<bool> {
        let shared = Arc::clone(&self.shared);
        self.horizon = shared.scripts.begin(link.get(&shared).await?).await?.horizon;
        link.answered();
        Ok(id.epoch() <= self.horizon)
    }

    /// Checks the clients that came with an id that the hub had not read up to: if their ids are
    /// beyond the end of the stream, they are of another order.
    ///
    /// The reader does this, although the sender would be sooner: no answer with entries of an
    /// older order is on its way over this connection, which such a client could get again.
    async fn check_clients_ahead(&mut self, link: &mut Link) -> RedisResult<()> {
        if !self.shared.is_client_ahead.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(clients) = self.feed.ahead() else { return Ok(()) };
        let end = self.last(link).await;
        if end.is_err() {
            self.shared.is_client_ahead.store(true, Ordering::Release);
        }
        self.feed.disown(clients, end?);
        Ok(())
    }

    /// Feeds the hub, and moves `position`.
    async fn take(
        &mut self,
        entries: Vec<Entry>,
        position: &mut Position,
        link: &mut Link,
    ) -> RedisResult<()> {
        for Entry { id, content } in entries {
            if id.epoch() > self.horizon && !self.repair(id, link).await? {
                // The cursor must stay before the entry: entries with greater ids never come, and
                // the repaired stream goes on after the cursor.
                self.skip_malformed();
                return Ok(());
            }
            position.cursor = id;
            match content {
                Content::Link { previous, bytes } => match Incoming::parse(&bytes) {
                    Ok(entry) => {
                        let is_lacking = self.shared.owed.is_lacking_between(previous, id);
                        if previous < position.chain || is_lacking {
                            // The entry that this reader has read last, or an event that Redis has
                            // confirmed, is not of this order. Readers that never read the entry
                            // cannot know.
                            self.reset(id, link).await?;
                        }
                        if previous != position.chain || is_lacking {
                            self.forget(id.predecessor(), link).await?;
                        }
                        if entry.kind() == Kind::Run {
                            // Before the hub has the part, and wakes the keeper.
                            self.shared.has_run_parts.store(true, Ordering::Release);
                        }
                        self.feed.append(id, entry);
                        self.shared.owed.pass(id);
                        position.chain = id;
                        let content = Content::Link { previous, bytes };
                        self.last_link = Some(Entry { id, content });
                    }
                    // After an entry that this version cannot read, the chain stays: the next link,
                    // which names that entry, then shows the loss.
                    Err(error) if error.is_unknown_format() => self.skip_unknown(&bytes),
                    Err(_) => self.skip_malformed(),
                },
                // Also if this reader wrote the reset: a client may have come since from an instance
                // that had not read the order's end.
                Content::Reset { .. } => {
                    self.forget(id, link).await?;
                    position.chain = id;
                }
                Content::Malformed => self.skip_malformed(),
            }
            // If a later entry fails, the reader goes on after this entry.
            self.position = Some(*position);
        }
        Ok(())
    }

    /// Counts an entry of another format. The first bytes tell an operator which program wrote it.
    fn skip_unknown(&mut self, bytes: &[u8]) {
        self.feed.skip_malformed();
        self.unknown.warn(|| {
            let (format, kind) = (bytes.first(), bytes.get(1));
            tracing::warn!(
                target: "sse_hub",
                format,
                kind,
                "stream entries of an unknown format skipped"
            );
        });
    }

    /// Counts an entry that no hub wrote.
    fn skip_malformed(&mut self) {
        self.feed.skip_malformed();
        self.malformed.warn(|| {
            tracing::warn!(target: "sse_hub", "malformed stream entries skipped");
        });
    }

    /// Tells the hub that all unread events up to `floor` are gone.
    async fn forget(&mut self, floor: EventId, link: &mut Link) -> RedisResult<()> {
        self.load(floor, Vec::new(), link).await
    }

    /// Loads the end of the order, with the runs, and the values if the hub keeps values.
    ///
    /// The values and the copies of runs are read after the end of the order: changes meanwhile come
    /// with the next entries.
    async fn load(
        &mut self,
        floor: EventId,
        tail: Vec<(EventId, Duration, Incoming)>,
        link: &mut Link,
    ) -> RedisResult<()> {
        let shared = Arc::clone(&self.shared);
        // After the end of the order: a join that the hub does not read is known now.
        let has_joins = shared.scripts.has_joins(link.get(&shared).await?).await?;
        link.answered();
        // Before the names of the runs: all runs that are open here are among the names.
        let upto = self.last(link).await?;
        let mut loaded = Loaded::new(floor, tail).runs(upto, self.copies(link).await?);
        if self.feed.tail_limits().values.is_some() {
            let fields = shared.scripts.read_values(link.get(&shared).await?, VALUES).await?;
            link.answered();
            let Values { events, is_whole, malformed } = Values::parse(fields, self.horizon);
            (0..malformed).for_each(|_| self.skip_malformed());
            loaded = loaded.latest(aged(events), is_whole);
        }
        self.feed.load(loaded);
        shared.owed.pass(self.feed.head());
        if !has_joins {
            self.feed.no_earlier_joins();
        }
        Ok(())
    }

    /// Reads the copies of the open runs, and then of those that ended last, as many as the hub
    /// keeps.
    ///
    /// A read that does not arrive in time is repeated with a smaller size, and the copies that
    /// arrived before are kept.
    async fn copies(&mut self, link: &mut Link) -> RedisResult<Vec<RunCopy>> {
        let shared = Arc::clone(&self.shared);
        let TailLimits { runs: most, run_bytes: mut room, .. } = self.feed.tail_limits();
        let mut records = shared.runs.records(link.get(&shared).await?).await?;
        link.answered();
        records.sort_unstable_by_key(|(_, run)| (!run.is_open, Reverse(run.last)));
        // An open run without a copy counts as not open.
        let open = records.partition_point(|(_, run)| run.is_open);
        records.truncate(most.max(open));
        let names: Vec<Vec<u8>> = records.into_iter().map(|(name, _)| name).collect();
        let (mut copies, mut at) = (Vec::new(), 0);
        let (mut part, mut tries): (Option<PartOfCopy>, _) = (None, TRIES);
        // The rest of a copy is read also if there is no room: a part of a copy is of no use.
        while at < names.len() && (at < open || room > 0 || part.is_some()) {
            let start = Instant::now();
            let some = &names[at..names.len().min(at + COPIES)];
            let after = part.as_ref().map_or(EventId::ORIGIN, |part| part.upto);
            let connection = link.get(&shared).await?;
            let (most, bytes) = (ReadSize::most_entries(), self.size.bytes());
            let last = &shared.scripts.keys().last;
            let read = shared.runs.read(connection, last, some, after, most, bytes).await;
            let CopyPages { upto, pages } = match read {
                Ok(read) => read,
                Err(error) if error.is_timeout() && tries > 0 => {
                    tries -= 1;
                    self.adapt(&error, link);
                    continue;
                }
                Err(error) => return Err(error),
            };
            link.carried(&shared);
            tries = TRIES;
            let entries = pages.iter().flat_map(|page| &page.entries);
            let lens = entries.map(|(_, bytes)| bytes.as_ref().map_or(0, Vec::len));
            room = room.saturating_sub(lens.clone().sum());
            self.size.answered_lens(lens, start.elapsed(), shared.timeout);
            for page in pages {
                let is_end = page.is_end;
                let (more, malformed) = PartOfCopy::extended(part.take(), page, self.horizon);
                part = more;
                (0..malformed).for_each(|_| self.skip_malformed());
                if is_end {
                    copies.extend(part.take().map(|PartOfCopy { lost, entries, .. }| {
                        RunCopy::new(upto, aged(entries)).lost(lost)
                    }));
                    at += 1;
                }
            }
        }
        Ok(copies)
    }
}

/// Adds the age of each event.
fn aged(events: Vec<(EventId, Incoming)>) -> Vec<(EventId, Duration, Incoming)> {
    let now = now();
    let age = |id: EventId| Duration::from_millis(now.saturating_sub(id.epoch()));
    events.into_iter().map(|(id, event)| (id, age(id), event)).collect()
}
