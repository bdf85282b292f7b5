//! Reads the stream by position, and feeds the hub what it finds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use crate::backplane::Feed;
use crate::redis::connect::back_off::BackOff;
use crate::redis::health::Part;
use crate::redis::shared::Shared;
use crate::redis::store::clock::{millis, now};
use crate::redis::store::entry::{self, Content, Entry, is_event};
use crate::redis::store::script::unexpected;
use crate::redis::store::tail::{Place, Tail};
use crate::wire::id::EventId;

/// How many entries one read takes at most.
pub(crate) const CHUNK: usize = 256;

pub(crate) struct Reader {
    shared: Arc<Shared>,
    feed: Feed,
    /// Where it stands, once the end of the stream was found.
    place: Option<Place>,
    garbage: Burst,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, feed: Feed) -> Self {
        Self { shared, feed, place: None, garbage: Burst::default() }
    }

    /// Reads until the hub is closed.
    pub(crate) async fn run(mut self) {
        let mut back_off = BackOff::default();
        while !self.feed.is_closed() {
            let Err(error) = self.read(&mut back_off).await else { return };
            self.shared.tell(&self.feed, Part::Reader, Some(&error.to_string()));
            back_off.wait().await;
        }
    }

    /// Reads over one connection, until that is lost or the hub is closed.
    async fn read(&mut self, back_off: &mut BackOff) -> RedisResult<()> {
        let moves = self.shared.moves.count();
        let mut connection = self.shared.connect().await?;
        let mut place = match self.place {
            Some(place) => self.go_on(place, &mut connection).await?,
            None => self.begin(&mut connection).await?,
        };
        // The first read does not wait, so that it is known at once whether all is well.
        let mut waits = false;
        loop {
            self.place = Some(place);
            if self.feed.is_closed() {
                return Ok(());
            }
            self.shared.moves.check(moves)?;
            // It can be that it answers and will not be read: only that is well.
            let entries = self.entries(place.cursor, waits, &mut connection).await?;
            self.shared.tell(&self.feed, Part::Reader, None);
            back_off.reset();
            waits = true;
            if entries.is_empty() {
                place = self.go_on(place, &mut connection).await?;
            } else {
                self.take(entries, &mut place, &mut connection).await?;
            }
            self.look_ahead(&mut connection).await?;
        }
    }

    /// The next entries, if there are any after a while.
    async fn entries(
        &self,
        after: EventId,
        waits: bool,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Vec<Entry>> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(CHUNK);
        if waits {
            command.arg("BLOCK").arg(millis(self.shared.timeout / 2).max(1));
        }
        command.arg("STREAMS").arg(&self.shared.scripts.keys().stream).arg(after.to_string());
        let answer: Value = command.query_async(connection).await?;
        entry::read(answer).ok_or_else(|| unexpected("a stream"))
    }

    /// Finds the end of the stream, and loads what the hub retains of it.
    async fn begin(&self, connection: &mut MultiplexedConnection) -> RedisResult<Place> {
        let last = self.shared.scripts.begin(connection).await?;
        let (events, bytes, age) = self.feed.retained();
        let oldest = age.map_or(0, |age| now().saturating_sub(millis(age)));
        let mut tail = Tail::new(events, bytes, oldest);
        let mut before = "+".to_owned();
        while tail.wants_more() {
            let mut command = redis::cmd("XREVRANGE");
            command.arg(&self.shared.scripts.keys().stream).arg(&before).arg("-");
            let answer = command.arg("COUNT").arg(CHUNK).query_async(connection).await?;
            let entries = entry::range(answer).ok_or_else(|| unexpected("a stream"))?;
            let Some(oldest) = tail.extend(entries) else { break };
            before = format!("({oldest}");
        }
        let (place, floor, events) = tail.finish(last);
        let now = now();
        let aged = events
            .into_iter()
            .map(|(id, event)| (id, Duration::from_millis(now.saturating_sub(id.0)), event));
        self.feed.load(floor, aged);
        self.shared.is_loaded.send_replace(true);
        self.shared.outbox.begin();
        Ok(place)
    }

    /// Looks whether the stream still is the one that was read, where nothing new in it says so.
    async fn go_on(
        &mut self,
        mut place: Place,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Place> {
        let last = self.shared.scripts.last(connection).await?;
        if last < place.chain {
            // It was emptied, or is an older one.
            let seen = place.cursor.max(place.chain).max(self.feed.head());
            self.shared.scripts.mark(connection, seen, seen).await?;
            // It is read next, by all, after what was published since.
            return Ok(place);
        }
        if last > place.chain {
            // Written since it was asked; or it is gone, and nothing will ever say so.
            let entries = self.entries(place.cursor, false, connection).await?;
            if entries.is_empty() {
                self.forget(last);
                return Ok(Place { cursor: last, chain: last });
            }
            self.take(entries, &mut place, connection).await?;
        }
        Ok(place)
    }

    /// Looks whether those who came ahead of what was read are ahead of all there is.
    ///
    /// Here and not where events are sent, though that would be sooner: nothing of an older history is on its way from
    /// this connection, which a client could get again.
    async fn look_ahead(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        if !self.shared.looks.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(mark) = self.feed.ahead() else { return Ok(()) };
        let end = self.shared.scripts.last(connection).await;
        if end.is_err() {
            self.shared.looks.store(true, Ordering::Release);
        }
        self.feed.disown(mark, end?);
        Ok(())
    }

    async fn take(
        &mut self,
        entries: Vec<Entry>,
        place: &mut Place,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        for Entry { id, content } in entries {
            place.cursor = id;
            match content {
                Content::Event { previous, event } | Content::Command { previous, event } => {
                    if previous != place.chain && is_event(&event) {
                        if previous < place.chain {
                            // What was read last is not in the order any more. Others may never have read it.
                            self.shared.scripts.mark(connection, id, id).await?;
                        }
                        self.forget(id.before());
                    }
                    // One that cannot be read is not passed over: the next, which names it, will not follow.
                    match self.feed.append(id, &event) {
                        Ok(()) => place.chain = id,
                        Err(_) => self.garbage.tell(),
                    }
                }
                // Also where it was found before: a client can have come since, from where it was not.
                Content::Mark { .. } => {
                    self.forget(id);
                    place.chain = id;
                }
                Content::Garbage => {
                    // Counted as what it is.
                    let _ = self.feed.append(id, &[]);
                    self.garbage.tell();
                }
            }
            // If what follows fails, it goes on after this.
            self.place = Some(*place);
        }
        Ok(())
    }

    /// What came before is gone.
    fn forget(&self, floor: EventId) {
        self.feed.load(floor, None::<(EventId, Duration, Vec<u8>)>);
    }
}

/// Tells of garbage once, however much there is.
#[derive(Debug, Default)]
struct Burst {
    last: Option<tokio::time::Instant>,
}

impl Burst {
    fn tell(&mut self) {
        const QUIET: Duration = Duration::from_secs(60);
        let now = tokio::time::Instant::now();
        if self.last.replace(now).is_none_or(|last| now.duration_since(last) >= QUIET) {
            tracing::warn!(target: "sse_hub", "entries that are no events are left out");
        }
    }
}
