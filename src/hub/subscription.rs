use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use futures_core::Stream;

use super::admission::{self, Admitted, Start};
#[cfg(feature = "serve")]
use super::drain::Drainable;
use super::opening::{First, Load, Loaded, Opening, Source};
use super::returning;
use super::shared::Shared;
use super::subscriber::Subscriber;
use crate::core::client::Client;
use crate::core::deferred::Work;
use crate::core::inbox::{InboxGuard, Place};
use crate::core::state::LogRead;
use crate::core::telemetry;
use crate::error::Refused;
use crate::log::entry::{Batch, Entry};
use crate::log::key::ClientId;
use crate::log::mailbox::{GapReason, Taken};
use crate::sync;
use crate::time::deadline::{Due, IdleDeadline};
use crate::time::heartbeat::Heartbeat;
use crate::wire::event::{Event, EventError};
use crate::wire::frame;
use crate::wire::id::EventId;

/// Of so many reads, one measures the delay of the oldest event.
const MEASURED_READS: u8 = 16;

/// The server's end of a client's stream, as [`Hub::subscribe`](crate::Hub::subscribe) returns it.
///
/// A `Stream` of `Bytes`. Each item is one or more whole frames, or a heartbeat, and must be
/// written to the response as it comes. The first item begins with `hub:open`. A subscription is
/// not a queue: events that a client does not read cost no memory for that client, but for a few
/// small events of [runs that append text](crate::RunLimits#memory).
///
/// The stream ends for the reasons that [`EndReason`](crate::EndReason) lists. If the hub ends the
/// stream, the last frame is `hub:end`, unless the hub was closed or the client stalled.
///
/// # Cancel safety
///
/// Dropping `next()` before the future is ready loses nothing: the stream takes an item only to
/// return the item. Dropping the subscription frees everything that the hub holds for the client,
/// at once.
///
/// Purposefully not `Clone`: a subscription is the position of one client.
#[must_use = "dropping a subscription disconnects its client"]
pub struct Subscription {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// Where the client's inbox lies.
    place: Place,
    /// `None` once the stream has ended.
    slot: Option<u32>,
    is_resumed: bool,
    /// The stream ends at a set time: its polls must read the clock.
    is_timed: bool,
    /// The client receives at most one batch in a period.
    is_paced: bool,
    /// The timer is armed, or need not be.
    is_armed: bool,
    /// The state of the backplane that the client was told last.
    told_degraded: bool,
    /// How many items the stream has returned, up to the next that is measured.
    items: u8,
    /// The first frames and the snapshot, until they are sent.
    opening: Option<Box<Opening>>,
    /// When the next heartbeat is due.
    idle: IdleDeadline,
    /// The task of the waker that was registered last.
    task: Task,
}

/// Tells tasks apart, like [`Waker::will_wake`], without keeping a waker.
///
/// Another waker can have the address of a waker that was dropped. So the task counts only while
/// the inbox holds the waker that was registered.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Task {
    data: usize,
    vtable: usize,
}

impl Task {
    /// No task.
    const NONE: Self = Self { data: 0, vtable: 0 };

    fn of(waker: &Waker) -> Self {
        let vtable = ptr::from_ref(waker.vtable()) as usize;
        Self { data: waker.data() as usize, vtable }
    }
}

impl Subscription {
    pub(super) fn open(shared: &Arc<Shared>, subscriber: Subscriber) -> Result<Self, Refused> {
        let span = telemetry::subscribe().entered();
        let mut work = Work::begin(&shared.config);
        let has_user = subscriber.user.is_some();
        let admitted = admission::admit(shared, subscriber, &mut work);
        // The drop of the subscription frees the client. So the value must exist before foreign
        // code runs: a panic there must not leave a client without a stream.
        let admitted = admitted.map(|mut admitted| {
            let (start, announcement) = (admitted.start.as_str(), admitted.announcement.take());
            (Self::new(shared, admitted), start, announcement)
        });
        work.run();
        match &admitted {
            Ok((stream, start, _)) => telemetry::opened(&span, stream.client.id, has_user, start),
            Err(refused) => telemetry::refused(&span, refused.cause()),
        }
        let (stream, _, announcement) = admitted?;
        if let Some(announcement) = announcement {
            returning::announce(shared, announcement);
        }
        Ok(stream)
    }

    fn new(shared: &Arc<Shared>, admitted: Admitted) -> Self {
        let Admitted { client, slot, start, head, asks_for_replay, is_paced, .. } = admitted;
        let opening = First { start, head, asks_for_replay, snapshot: Vec::new(), source: None };
        Self {
            shared: Arc::clone(shared),
            place: client.place.clone(),
            client,
            // A hub has fewer than 2^32 clients.
            slot: Some(slot as u32),
            is_resumed: start.is_resumed(),
            is_timed: is_paced,
            is_paced,
            is_armed: false,
            told_degraded: false,
            items: 0,
            opening: Some(Box::new(Opening::First(opening))),
            idle: IdleDeadline::new(shared.config.heartbeat),
            task: Task::NONE,
        }
    }

    /// Returns the client's id, as `hub:open` tells it to the client.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.client.id
    }

    /// Returns whether the client continues where it stopped, without a gap, and with the topics
    /// that the server [added](crate::Hub::join) it to.
    ///
    /// The hub knows the topics of a client that names its [client id](Subscriber::client_id). A
    /// client without the id has only the topics of its request.
    ///
    /// With a backplane the answer is an expectation: the hub learns later where the order ends, or
    /// whether the [older events](crate::History) can be read. If not, the client gets a gap.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Returns the client's position: the stream has returned every event for the client up to
    /// here.
    ///
    /// Before the first item, the position is where the stream begins, after the snapshot if there
    /// is one. While nothing is published for the client, the position stays:
    /// [`Hub::position`](crate::Hub::position) is newer. To continue from here, see
    /// [`Subscriber::resume`].
    ///
    /// ```
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let mut stream = hub.subscribe(Subscriber::new().topic("orders"))?;
    /// let position = stream.position(); // Send it with the state that is read now.
    /// hub.send_to_topic("orders", Event::new("order").data("17"))?;
    /// while stream.next().now_or_never().is_some() {}
    /// assert!(position < stream.position() && stream.position() == hub.position());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn position(&self) -> EventId {
        self.place.lock().mailbox.cursor()
    }

    #[cfg(feature = "serve")]
    pub(crate) fn drainable(&self) -> Drainable {
        Drainable::new(&self.shared)
    }

    /// Sends a snapshot before the live events: the state, and then its changes.
    ///
    /// The client receives `hub:open`, a gap if it missed events, the snapshot, and then exactly
    /// the events that were published after it subscribed. The snapshot replaces every event
    /// before: a resumed client gets no replay. So subscribe first, and then read the state: it
    /// misses no change. A change that is in the state already may come once more.
    ///
    /// The snapshot heals the gap before it. The data of that gap says so, `"healed": true`: the
    /// page must not fetch the state that it is about to receive. A later gap is not healed.
    ///
    /// If the client is cut off before the whole snapshot was sent, it returns to a gap, and is not
    /// [resumed](Self::is_resumed). Without events, this method changes nothing.
    ///
    /// # Errors
    ///
    /// Returns [`EventError`] if an event cannot be sent, if the stream was polled before, or if
    /// the subscriber asks for the [last events](Subscriber::replay_last) or the
    /// [values](Subscriber::latest).
    ///
    /// ```
    /// use sse_hub::{Event, Hub, LastEventId, Subscriber, Subscription};
    ///
    /// fn orders(hub: &Hub, last: LastEventId) -> Result<Subscription, Box<dyn std::error::Error>> {
    ///     let stream = hub.subscribe(Subscriber::new().topic("orders").resume(last))?;
    ///     if stream.is_resumed() {
    ///         return Ok(stream);
    ///     }
    ///     let orders = "[17, 18]"; // Read from the database after subscribing.
    ///     Ok(stream.with_snapshot([Event::new("orders").data(orders)])?)
    /// }
    /// ```
    pub fn with_snapshot(
        mut self,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Self, EventError> {
        let Some(Opening::First(opening)) = self.opening.as_deref_mut() else {
            return Err(EventError::Late);
        };
        for event in events {
            if opening.asks_for_replay {
                return Err(EventError::Replay);
            }
            event.check_for_hub()?;
            opening.snapshot.push(event);
        }
        if opening.has_snapshot() {
            let now = self.shared.now();
            self.place.lock().mailbox.skip_to(opening.head, now);
        }
        Ok(self)
    }

    /// Sends a snapshot from a stream, such as the rows of a query.
    ///
    /// The same as [`with_snapshot`](Self::with_snapshot), for thousands of events. The hub polls
    /// `events` only as fast as the client reads, and holds at most
    /// [`HubBuilder::max_batch_bytes`](crate::HubBuilder::max_batch_bytes) and two events of the
    /// snapshot at a time.
    ///
    /// - `hub:open` does not wait for `events`. While `events` is not ready, the client receives
    ///   heartbeats.
    /// - After the snapshot, the client receives exactly the events since the subscription. Until
    ///   then these wait in the log: a snapshot that takes longer than the retention is followed by
    ///   a gap.
    /// - The last event of the snapshot carries the client's position. So the hub sends an event
    ///   when `events` has the next event, or ends.
    /// - An empty snapshot replaces every earlier event, too: a `hub:heartbeat` carries the
    ///   position.
    /// - The events of [`with_snapshot`](Self::with_snapshot) come first.
    ///
    /// If `events` returns an error, or an event that cannot be sent, the hub logs the error, and
    /// the stream ends without `hub:end`. The client reconnects, and gets a new snapshot. The same
    /// holds for a client that is cut off, or whose stream the hub ends, during the snapshot. Only
    /// [`Hub::finish`](crate::Hub::finish) waits for the rest of the snapshot, because the client
    /// does not come back.
    ///
    /// # Errors
    ///
    /// Returns [`EventError`] if the stream was polled before, or if the subscriber asks for the
    /// [last events](Subscriber::replay_last).
    ///
    /// ```
    /// use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
    /// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
    ///
    /// /// Stands for a query of a database.
    /// fn orders() -> impl Stream<Item = Result<u32, std::io::Error>> + Send {
    ///     stream::iter(1..=3).map(Ok)
    /// }
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let stream = hub.subscribe(Subscriber::new().topic("orders"))?;
    /// let rows = orders().map(|row| row.map(|order| Event::new("order").data(order.to_string())));
    /// let mut stream = stream.with_snapshot_stream(rows)?;
    /// hub.send_to_topic("orders", Event::new("order").data("4"))?;
    ///
    /// let mut text = String::new();
    /// while let Some(Some(item)) = stream.next().now_or_never() {
    ///     text += std::str::from_utf8(&item)?;
    /// }
    /// let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    /// assert_eq!(data.skip(1).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_snapshot_stream<S, E>(mut self, events: S) -> Result<Self, EventError>
    where
        S: Stream<Item = Result<Event, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let Some(Opening::First(opening)) = self.opening.as_deref_mut() else {
            return Err(EventError::Late);
        };
        if opening.asks_for_replay {
            return Err(EventError::Replay);
        }
        opening.source = Some(Source::new(events));
        let now = self.shared.now();
        self.place.lock().mailbox.skip_to(opening.head, now);
        Ok(self)
    }

    /// Returns the first frames.
    ///
    /// The id of `hub:open` is the client's position before a gap is reported and before the
    /// snapshot. A client that is cut off in between must return to the gap.
    fn open_frames(&mut self, opening: First) -> Bytes {
        let (has_snapshot, position) = (opening.has_snapshot(), opening.position());
        let First { start, snapshot, source, .. } = opening;
        let (held, gap) = match start {
            Start::Gap { held, reason, now } => (held, Some((now, reason))),
            // The events that the client missed are not replayed: report the loss now.
            Start::Behind(_) | Start::Sought(_) if has_snapshot => {
                (EventId::ORIGIN, Some((EventId::ORIGIN, GapReason::Evicted)))
            }
            Start::Fresh(id) | Start::Resumed(id) | Start::Sought(id) | Start::Behind(id) => {
                (id, None)
            }
            // See `open_with_values`.
            Start::Values { .. } => (EventId::ORIGIN, None),
        };
        // Only the last frame of a snapshot moves the client to where the stream continues.
        let held = if has_snapshot { EventId::ORIGIN } else { held };
        let heartbeat = self.shared.config.heartbeat.map(|heartbeat| heartbeat.every);
        let (id, retry) = (self.client.id, self.shared.config.retry(self.client.id));
        // A client that gets a snapshot must not take the snapshot for a repeat.
        let is_resumed = self.is_resumed() && !has_snapshot;
        let open = frame::open(held, retry, &id.to_string(), is_resumed, heartbeat);
        let mut frames = vec![open];
        if let Some((position, reason)) = gap {
            self.shared.rare.gap(self.client.serial);
            frames.push(if has_snapshot {
                frame::healed_gap(held, reason.as_str())
            } else {
                frame::gap(position, reason.as_str())
            });
        }
        let mut snapshot = snapshot.into_iter();
        let last = if source.is_none() { snapshot.next_back() } else { None };
        frames.extend(snapshot.map(|event| event.seal().finish_without_id()));
        frames.extend(last.map(|event| event.seal().finish(position).into_bytes()));
        let load = source.map(|source| Opening::Load(Load::new(source, position)));
        self.opening = load.map(Box::new);
        match frames.as_slice() {
            [one] => one.clone(),
            more => joined(more),
        }
    }

    /// Whether the inbox holds the waker of this task, and the timer is armed: then nothing has
    /// come since the last poll.
    fn is_waiting(&self, cx: &Context<'_>) -> bool {
        self.is_armed && self.task == Task::of(cx.waker()) && self.place.waits()
    }

    /// Returns the next event of a stream that keeps up and has no other concern: the short path.
    /// Registers the waker too. The stream is polled again directly, and must then only see that
    /// nothing has come since.
    #[inline]
    fn poll_live(&mut self, cx: &Context<'_>) -> Option<Bytes> {
        let mut waker = self.spare_waker(cx);
        let mut inbox = self.place.lock();
        let entry = inbox.take_only()?;
        inbox.count_read(1, entry.len());
        wait(inbox, &mut self.task, &mut waker, cx);
        self.note_read(&entry, &entry);
        Some(entry.frame.bytes().clone())
    }

    /// Returns the next events, if there are any. Otherwise registers the waker, or finds that the
    /// stream has ended. Leaves in `due` when the stream must be polled again.
    fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        due: &mut Option<Instant>,
    ) -> Poll<Option<Bytes>> {
        loop {
            let now = self.is_timed.then(|| self.shared.now());
            let mut waker = self.spare_waker(cx);
            let mut inbox = self.place.lock();
            if inbox.take_fired() {
                self.is_armed = false;
            }
            *due = inbox.next_at();
            match (*due, now) {
                (Some(_), Some(now)) => {
                    inbox.pass(now, self.shared.config.retry(self.client.id));
                    *due = inbox.next_at();
                }
                (Some(_), None) => {
                    // The clock must not be read under the lock: begin again.
                    self.is_timed = true;
                    continue;
                }
                (None, _) => self.is_timed = self.is_paced,
            }
            if let Some(last) = inbox.take_over() {
                return Poll::Ready(last);
            }
            if self.opening.is_some() {
                if !inbox.is_open()
                    && !inbox.ending().is_final()
                    && let Some(last) = inbox.take_last()
                {
                    // The client comes back, and gets a snapshot then.
                    return Poll::Ready(last);
                }
                if wait(inbox, &mut self.task, &mut waker, cx) {
                    return self.poll_snapshot(cx);
                }
                continue;
            }
            if !inbox.may_read() {
                if wait(inbox, &mut self.task, &mut waker, cx) {
                    return Poll::Pending;
                }
                continue;
            }
            if inbox.has_unsent() {
                let mut batch = Batch::new();
                let is_lost = inbox.take_unsent(self.shared.config.batch, &mut batch);
                now.into_iter().for_each(|now| inbox.note_read(true, now));
                let position = inbox.mailbox.cursor();
                drop(inbox);
                return Poll::Ready(Some(self.unsent_item(&batch, is_lost.then_some(position))));
            }
            let mut batch = Batch::new();
            match inbox.mailbox.take(self.shared.config.batch, &mut batch) {
                Taken::Batch => {
                    inbox.count_read(batch.len(), batch.iter().map(|entry| entry.len()).sum());
                    now.into_iter().for_each(|now| inbox.note_read(true, now));
                    if inbox.is_plain() && !inbox.mailbox.is_waiting() {
                        // The stream is polled again directly, and must then only see that nothing
                        // has come since.
                        wait(inbox, &mut self.task, &mut waker, cx);
                    } else {
                        self.settle(inbox);
                    }
                    return Poll::Ready(Some(self.item(&batch, None)));
                }
                Taken::Gap(id, reason) => {
                    self.settle(inbox);
                    self.idle.restart();
                    return Poll::Ready(Some(self.gap(id, reason)));
                }
                Taken::Behind => {
                    drop(inbox);
                    if let Some(item) = self.read_log() {
                        return Poll::Ready(item);
                    }
                    // No event of the log was for this client, which keeps up now; or the client
                    // is held, or must report a gap first, or has ended.
                }
                Taken::Held if inbox.ending().is_final() || inbox.is_open() => {
                    if wait(inbox, &mut self.task, &mut waker, cx) {
                        return Poll::Pending;
                    }
                }
                // The client comes back, and gets the missing events then.
                Taken::Held | Taken::Nothing => match inbox.take_last() {
                    Some(last) => return Poll::Ready(last),
                    None if wait(inbox, &mut self.task, &mut waker, cx) => return Poll::Pending,
                    None => {}
                },
            }
        }
    }

    /// Returns the next events of the snapshot that comes from the application.
    fn poll_snapshot(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(Opening::Load(load)) = self.opening.as_deref_mut() else { return Poll::Pending };
        let Poll::Ready(loaded) = load.poll(cx, self.shared.config.batch.bytes) else {
            self.place.lock().await_snapshot();
            return Poll::Pending;
        };
        let now = self.shared.now();
        self.idle.restart();
        let mut inbox = self.place.lock();
        inbox.note_snapshot(now);
        let (item, waker) = match loaded {
            Loaded::Part(item) => return Poll::Ready(Some(item)),
            // Events may wait already. A waker in the inbox would say that nothing has come.
            Loaded::Last(item) => (Ok(item), inbox.take_waker()),
            Loaded::Failed(error) => (Err(error), inbox.take_waker()),
        };
        drop(inbox);
        // Drops the application's stream, too.
        drop((waker, self.opening.take()));
        match item {
            Ok(item) => Poll::Ready(Some(item)),
            Err(error) => {
                telemetry::snapshot_failed(self.client.id, &*error);
                Poll::Ready(None)
            }
        }
    }

    /// Clones the task's waker, unless the inbox holds it. Must be called before the lock is taken:
    /// cloning is foreign code.
    fn spare_waker(&self, cx: &Context<'_>) -> Option<Waker> {
        if self.task == Task::of(cx.waker()) && self.place.waits() {
            return None;
        }
        sync::assert_unlocked();
        Some(cx.waker().clone())
    }

    /// Reads the log. Returns the item to send, or `None` if the inbox must be looked at again.
    fn read_log(&mut self) -> Option<Option<Bytes>> {
        let Some(slot) = self.slot else { return Some(None) };
        let mut batch = Batch::new();
        match self.shared.catch_up(slot as usize, &self.client, &mut batch) {
            LogRead::Retry => None,
            // A forgotten client reads no more, and gets the rest after a reconnect. So the stream
            // must not end as complete.
            LogRead::Forgotten => {
                let mut inbox = self.place.lock();
                let last = inbox.take_last().flatten();
                Some(last.filter(|_| !inbox.ending().is_final()))
            }
            LogRead::Events { gap: None } | LogRead::Values { gap: None, .. }
                if batch.is_empty() =>
            {
                None
            }
            LogRead::Events { gap } => {
                let gap = gap.map(|id| self.gap(id, GapReason::Evicted));
                let item = self.item(&batch, gap);
                // The events may be old.
                self.idle.restart();
                Some(Some(item))
            }
            LogRead::Values { gap, end } => {
                let gap = gap.map(|id| self.gap(id, GapReason::Evicted));
                Some(Some(self.values_item(gap, &batch, end)))
            }
        }
    }

    /// Joins values to one item. `end`: where the stream continues after the last value.
    ///
    /// The last value carries the position `end` instead of an old id. A client that returns after
    /// a quiet time would otherwise come back to the id of an old event, and get a gap for events
    /// that it never asked for.
    fn values_item(&mut self, first: Option<Bytes>, batch: &Batch, end: Option<EventId>) -> Bytes {
        // The events are old: they measure no delay.
        self.idle.restart();
        let mut frames: Vec<Bytes> = first.into_iter().collect();
        frames.extend(batch.iter().map(|value| value.frame.bytes().clone()));
        if let (Some(end), Some(value)) = (end, batch.last())
            && end != value.id
            && let Some(last) = frames.last_mut()
        {
            *last = value.frame.with_id(end);
        }
        joined(&frames)
    }

    /// Returns the first frames of a stream that begins with the values, and the first of these.
    ///
    /// The stream opens with an unknown position: a client that is cut off before the first value
    /// begins again. If there are no values, the stream opens at its position.
    fn open_with_values(&mut self, opening: First, is_unknown: bool) -> Bytes {
        let mut batch = Batch::new();
        let (gap, end) = loop {
            let slot = self.slot.map_or(usize::MAX, |slot| slot as usize);
            match self.shared.catch_up(slot, &self.client, &mut batch) {
                // A piece of the log without a value. Each piece moves the client.
                LogRead::Values { gap: None, end: None } if batch.is_empty() => {}
                LogRead::Values { gap, end } => break (gap, end),
                // The stream has ended, or the order is not known yet.
                LogRead::Retry | LogRead::Forgotten | LogRead::Events { .. } => break (None, None),
            }
        };
        let start = match (batch.first(), end) {
            (None, Some(end)) => Start::Fresh(end),
            _ => opening.start,
        };
        let mut first = self.open_frames(First { start, ..opening });
        let reason = if is_unknown { GapReason::Unknown } else { GapReason::Evicted };
        let position = batch.first().map(|first| first.id.predecessor()).or(end);
        if gap.is_some() || is_unknown {
            let gap = self.gap(gap.or(position).unwrap_or(EventId::ORIGIN), reason);
            first = joined(&[first, gap]);
        }
        self.values_item(Some(first), &batch, end)
    }

    fn gap(&self, id: EventId, reason: GapReason) -> Bytes {
        self.shared.rare.gap(self.client.serial);
        frame::gap(id, reason.as_str())
    }

    /// Sets the time of a read that left events behind, for which the lock must be released: the
    /// clock is foreign code.
    fn settle(&self, inbox: InboxGuard<'_>) {
        let is_settled = inbox.mailbox.is_settled();
        drop(inbox);
        if !is_settled {
            let now = self.shared.now();
            self.place.lock().mailbox.settle_read(now);
        }
    }

    /// Returns events before the client's position, without ids: an id would move the client back.
    fn unsent_item(&mut self, batch: &Batch, lost_at: Option<EventId>) -> Bytes {
        let mut frames = Vec::new();
        if let Some(position) = lost_at {
            frames.extend_from_slice(&self.gap(position, GapReason::Evicted));
        }
        let gap = frames.len();
        for entry in batch {
            entry.frame.put_without_id(&mut frames);
        }
        if !batch.is_empty() {
            self.place.lock().count_read(batch.len(), frames.len() - gap);
        }
        // The events may be old.
        self.idle.restart();
        frames.into()
    }

    /// Restarts the idle time, and measures the delay of some reads.
    fn note_read(&mut self, oldest: &Entry, newest: &Entry) {
        // A client with a pace chose its delay.
        if self.items == 0 && !self.is_paced {
            let delay = self.shared.now().saturating_duration_since(oldest.at);
            self.shared.rare.delay(self.client.serial, delay);
        }
        self.items = (self.items + 1) % MEASURED_READS;
        if self.is_armed {
            // The timer has not fired: the event is younger than the idle time.
            self.idle.restart_at(newest.at);
        } else {
            self.idle.restart();
        }
    }

    /// Joins events to one item.
    fn item(&mut self, batch: &Batch, gap: Option<Bytes>) -> Bytes {
        if let (Some(oldest), Some(newest)) = (batch.first(), batch.last()) {
            self.note_read(oldest, newest);
        }
        match (&gap, batch.as_slice()) {
            (None, [one]) => one.frame.bytes().clone(),
            (None, more) => joined(more.iter().map(|entry| entry.frame.bytes())),
            (Some(gap), more) => {
                joined([gap].into_iter().chain(more.iter().map(|entry| entry.frame.bytes())))
            }
        }
    }

    /// Waits for the next heartbeat, or for `end`.
    fn poll_idle(&mut self, end: Option<Instant>) -> Poll<Due> {
        let waker = Waker::from(Arc::clone(&self.client));
        let timer = &*self.shared.config.timer;
        let due = self.idle.poll(&mut Context::from_waker(&waker), timer, end);
        self.is_armed = due.is_pending();
        due
    }

    /// Whether the client must be told that the backplane was lost or found.
    fn must_tell_health(&self) -> bool {
        let is_degraded = self.shared.shows_degraded.load(Ordering::Acquire);
        // After its end a stream tells nothing.
        is_degraded != self.told_degraded && self.slot.is_some()
    }

    /// The whole of `poll_next`.
    #[inline(never)]
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.slot.is_none() {
            return Poll::Ready(None);
        }
        if let Some(Opening::First(_)) = self.opening.as_deref()
            && let Some(Opening::First(opening)) = self.opening.take().map(|opening| *opening)
        {
            self.idle.restart();
            if let Start::Values { is_unknown } = opening.start {
                return Poll::Ready(Some(self.open_with_values(opening, is_unknown)));
            }
            return Poll::Ready(Some(self.open_frames(opening)));
        }
        loop {
            if self.must_tell_health() {
                self.told_degraded = !self.told_degraded;
                self.idle.restart();
                return Poll::Ready(Some(frame::degraded(self.told_degraded)));
            }
            let mut due = None;
            match self.poll_events(cx, &mut due) {
                Poll::Ready(Some(events)) => return Poll::Ready(Some(events)),
                Poll::Ready(None) => {
                    self.leave();
                    return Poll::Ready(None);
                }
                // A thread that changes the state from here on finds the waker. A thread that
                // changed the state before may have found no waker.
                Poll::Pending if self.must_tell_health() => continue,
                Poll::Pending => {}
            }
            match ready!(self.poll_idle(due)) {
                Due::Heartbeat => {
                    self.shared.housekeep();
                    return Poll::Ready(
                        self.shared
                            .config
                            .heartbeat
                            .map(|heartbeat| heartbeat.frame(self.refreshed(heartbeat))),
                    );
                }
                // The stream is due to end: the next round ends it.
                Due::End => {}
            }
        }
    }

    /// Returns the position that a heartbeat carries.
    fn refreshed(&self, heartbeat: Heartbeat) -> Option<EventId> {
        // Only the end of a snapshot moves the client: until then it must return to the gap.
        let may_move = heartbeat.has_position && self.opening.is_none();
        let slot = self.slot.filter(|_| may_move)?;
        let position = self.shared.refresh(slot as usize, &self.client);
        // Before the first load, the position is of no order.
        Some(position).filter(|&position| position > EventId::ORIGIN)
    }

    fn leave(&mut self) {
        // Drops the application's stream, too.
        self.opening = None;
        if let Some(slot) = self.slot.take() {
            self.shared.leave(slot as usize, &self.client);
        }
    }
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        if this.opening.is_none() && !this.must_tell_health() {
            if this.is_waiting(cx) {
                return Poll::Pending;
            }
            if let Some(event) = this.poll_live(cx) {
                return Poll::Ready(Some(event));
            }
        }
        this.poll_any(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.free(self.slot.map(|slot| slot as usize), &self.client);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("client_id", &self.client.id)
            .field("is_resumed", &self.is_resumed())
            .finish_non_exhaustive()
    }
}

/// Registers the waker under the lock under which the inbox was found empty: the next thread that
/// fills the inbox finds the waker. Returns `false` if the waker must be cloned first.
fn wait(
    mut inbox: InboxGuard<'_>,
    task: &mut Task,
    spare: &mut Option<Waker>,
    cx: &Context<'_>,
) -> bool {
    if inbox.will_wake(cx.waker()) {
        return true;
    }
    let Some(waker) = spare.take() else {
        // A clone of a waker may differ from the waker. The next round must clone again: without
        // this, every round would find a waker that is not that of the task, and clone none.
        *task = Task::NONE;
        return false;
    };
    let old = inbox.register(waker);
    // The destructor of a waker is foreign code.
    drop(inbox);
    sync::assert_unlocked();
    drop(old);
    *task = Task::of(cx.waker());
    true
}

fn joined<'a>(frames: impl IntoIterator<Item = &'a Bytes> + Clone) -> Bytes {
    let len = frames.clone().into_iter().map(Bytes::len).sum();
    let mut all = Vec::with_capacity(len);
    for frame in frames {
        all.extend_from_slice(frame);
    }
    all.into()
}
