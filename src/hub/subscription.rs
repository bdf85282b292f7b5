use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;

use super::admission::{self, Admitted, Start};
#[cfg(feature = "serve")]
use super::drain::Drainable;
use super::shared::Shared;
use super::subscriber::Subscriber;
use crate::core::client::{Client, Inbox};
use crate::core::config::Config;
use crate::core::deferred::Work;
use crate::core::state::LogRead;
use crate::core::telemetry;
use crate::error::Refused;
use crate::log::entry::Entry;
use crate::log::key::ClientId;
use crate::log::mailbox::{GapReason, Taken};
use crate::sync::{self, MutexGuard};
use crate::time::deadline::{Due, IdleDeadline};
use crate::time::heartbeat::Heartbeat;
use crate::wire::event::{Event, EventError};
use crate::wire::frame;
use crate::wire::id::EventId;

/// One read in this many measures the delay of its oldest event.
const MEASURED_READS: u32 = 16;

/// The server's end of a client's stream, as [`Hub::subscribe`](crate::Hub::subscribe) returns it.
///
/// A `Stream` of `Bytes`. Each item is one or more whole frames, or a heartbeat, and must be written
/// to the response as it comes. The first item begins with `hub:open`. A subscription is not a
/// queue: events that a client does not read cost no memory for that client.
///
/// The stream ends for the reasons that [`EndReason`](crate::EndReason) lists. If the hub ends the
/// stream, the last frame is `hub:end`, unless the hub was closed or the client stalled.
///
/// # Cancel safety
///
/// An item is taken only when it is returned, so dropping `next()` before it is ready loses nothing.
/// Dropping the subscription frees everything that the hub holds for the client, at once.
///
/// Purposefully not `Clone`: a subscription is the position of one client.
#[must_use = "dropping a subscription disconnects its client"]
pub struct Subscription {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// `None` once the client was forgotten.
    slot: Option<usize>,
    /// Where the stream began.
    start: Start,
    /// The newest event when the client was let in.
    head: EventId,
    phase: Phase,
    /// When the next heartbeat is due.
    idle: IdleDeadline,
    /// The stream ends at a set time: its polls must read the clock.
    is_timed: bool,
    /// The events of the poll under way. Empty between polls; kept for its allocation.
    batch: Vec<Arc<Entry>>,
    /// How many items the stream has returned.
    items: u32,
    /// The state of the backplane that the client was told last.
    told_degraded: bool,
    /// A clone of the task's waker, made before the lock is taken: cloning is foreign code.
    spare_waker: Option<Waker>,
}

/// The next part of the stream.
enum Phase {
    /// `hub:open`, a gap if events were missed, and the snapshot.
    Opening(Vec<Event>),
    /// Events.
    Live,
}

impl Subscription {
    pub(super) fn open(shared: &Arc<Shared>, subscriber: Subscriber) -> Result<Self, Refused> {
        let mut work = Work::begin(&shared.config);
        let has_user = subscriber.user.is_some();
        let admitted = admission::admit(shared, subscriber, &mut work);
        // The subscription frees the client when it is dropped. It must exist before foreign code
        // runs: a panic there must not leave a client without a stream.
        let admitted = admitted.map(|admitted| Self::new(shared, admitted));
        work.run();
        match &admitted {
            Ok(stream) => telemetry::opened(stream.client.id, has_user, stream.start.as_str()),
            Err(refused) => telemetry::refused(refused.cause()),
        }
        admitted
    }

    fn new(shared: &Arc<Shared>, Admitted { client, slot, start, head }: Admitted) -> Self {
        Self {
            shared: Arc::clone(shared),
            client,
            slot: Some(slot),
            start,
            head,
            phase: Phase::Opening(Vec::new()),
            idle: IdleDeadline::new(shared.config.heartbeat),
            is_timed: false,
            batch: Vec::new(),
            items: 0,
            told_degraded: false,
            spare_waker: None,
        }
    }

    /// Returns the client's id, as `hub:open` tells it to the client.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.client.id
    }

    /// Returns whether the client continues where it stopped, without a gap.
    ///
    /// With a backplane the answer is an expectation: the hub learns later where the order ends, or
    /// whether the [older events](crate::History) can be read. If not, the client gets a gap.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.start.is_resumed()
    }

    #[cfg(feature = "serve")]
    pub(crate) fn drainable(&self) -> Drainable {
        Drainable::new(&self.shared)
    }

    /// Sends a snapshot before the live events: the state, and then its changes.
    ///
    /// The client receives `hub:open`, a gap if it missed events, the snapshot, and then exactly the
    /// events that were published after it subscribed. The snapshot replaces every event before: a
    /// resumed client and [`Subscriber::replay_last`] get no replay. So subscribe first, and then
    /// read the state: it misses no change. A change that is in the state already may come once
    /// more.
    ///
    /// If the client is cut off before the whole snapshot was sent, it returns to a gap, and is not
    /// [resumed](Self::is_resumed). Without events, this method changes nothing.
    ///
    /// # Errors
    ///
    /// Returns [`EventError`] if an event cannot be sent, or if the stream was polled before.
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
        let Phase::Opening(snapshot) = &mut self.phase else { return Err(EventError::Late) };
        for event in events {
            event.check_for_hub()?;
            snapshot.push(event);
        }
        if !snapshot.is_empty() {
            let now = self.shared.now();
            self.client.inbox.lock().mailbox.skip_to(self.head, now);
        }
        Ok(self)
    }

    /// Returns the first frames.
    ///
    /// The id of `hub:open` is the client's position before a gap is reported and before the
    /// snapshot. A client that is cut off in between must return to the gap.
    fn opening(&self, snapshot: Vec<Event>) -> Bytes {
        let has_snapshot = !snapshot.is_empty();
        let (held, gap) = match self.start {
            Start::Gap { held, reason, now } => (held, Some((now, reason))),
            // The events that the client missed are not replayed: report the loss now.
            Start::Behind(_) | Start::Sought(_) if has_snapshot => {
                (EventId::ORIGIN, Some((EventId::ORIGIN, GapReason::Evicted)))
            }
            Start::Fresh(id) | Start::Resumed(id) | Start::Sought(id) | Start::Behind(id) => {
                (id, None)
            }
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
            self.shared.reads.gap(self.client.serial);
            frames.push(frame::gap(if has_snapshot { held } else { position }, reason.as_str()));
        }
        let mut snapshot = snapshot.into_iter();
        let last = snapshot.next_back();
        frames.extend(snapshot.map(|event| event.seal().finish_without_id()));
        let position = self.head.max(self.start.position());
        frames.extend(last.map(|event| event.seal().finish(position).into_bytes()));
        match frames.as_slice() {
            [one] => one.clone(),
            more => joined(more),
        }
    }

    /// Returns the next events, if there are any. Otherwise registers the waker, or finds that the
    /// stream has ended. Leaves in `due` when the stream must be polled again.
    fn poll_events(&mut self, cx: &Context<'_>, due: &mut Option<Instant>) -> Poll<Option<Bytes>> {
        loop {
            let now = self.is_timed.then(|| self.shared.now());
            self.refresh_waker(cx);
            let mut inbox = self.client.inbox.lock();
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
                (None, _) => self.is_timed = false,
            }
            if let Some(last) = inbox.ending.take_over() {
                return Poll::Ready(last);
            }
            match inbox.mailbox.take(self.shared.config.batch, &mut self.batch) {
                Taken::Batch => {
                    self.settle(inbox);
                    return Poll::Ready(Some(self.take_batch(None)));
                }
                Taken::Gap(id, reason) => {
                    self.settle(inbox);
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
                Taken::Held if inbox.ending.is_final() || inbox.ending.is_open() => {
                    return wait(inbox, &mut self.spare_waker, cx);
                }
                // The client comes back, and gets the missing events then.
                Taken::Held | Taken::Nothing => {
                    return match inbox.ending.take_last() {
                        Some(last) => Poll::Ready(last),
                        None => wait(inbox, &mut self.spare_waker, cx),
                    };
                }
            }
        }
    }

    /// Reads the log. Returns the item to send, or `None` if the inbox must be looked at again.
    fn read_log(&mut self) -> Option<Option<Bytes>> {
        let Some(slot) = self.slot else { return Some(None) };
        match self.shared.catch_up(slot, &self.client, &mut self.batch) {
            LogRead::Retry => None,
            // A client that was forgotten reads no more. It gets the rest when it comes back, so it
            // must not be told that its stream is complete.
            LogRead::Forgotten => {
                let mut inbox = self.client.inbox.lock();
                let last = inbox.ending.take_last().flatten();
                Some(last.filter(|_| !inbox.ending.is_final()))
            }
            LogRead::Events { gap: None } if self.batch.is_empty() => None,
            LogRead::Events { gap } => {
                let gap = gap.map(|id| self.gap(id, GapReason::Evicted));
                Some(Some(self.take_batch(gap)))
            }
        }
    }

    fn gap(&self, id: EventId, reason: GapReason) -> Bytes {
        self.shared.reads.gap(self.client.serial);
        frame::gap(id, reason.as_str())
    }

    /// Sets the time of a read that left events behind, for which the lock must be released: the
    /// clock is foreign code.
    fn settle(&self, inbox: MutexGuard<'_, Inbox>) {
        let is_settled = inbox.mailbox.is_settled();
        drop(inbox);
        if !is_settled {
            let now = self.shared.now();
            self.client.inbox.lock().mailbox.settle_read(now);
        }
    }

    fn take_batch(&mut self, gap: Option<Bytes>) -> Bytes {
        let bytes = match (&gap, self.batch.as_slice()) {
            (None, [one]) => one.frame.bytes().clone(),
            (gap, more) => joined(gap.iter().chain(more.iter().map(|entry| entry.frame.bytes()))),
        };
        self.count_batch(bytes.len() - gap.map_or(0, |gap| gap.len()));
        self.batch.clear();
        bytes
    }

    fn count_batch(&mut self, bytes: usize) {
        let Some(oldest) = self.batch.first() else { return };
        let Shared { reads, .. } = &*self.shared;
        reads.count(self.client.serial, self.batch.len(), bytes);
        if self.items.is_multiple_of(MEASURED_READS) {
            let delay = self.shared.now().saturating_duration_since(oldest.at);
            reads.delay(self.client.serial, delay);
        }
        self.items = self.items.wrapping_add(1);
    }

    /// Makes a spare clone of the task's waker, unless a spare exists.
    fn refresh_waker(&mut self, cx: &Context<'_>) {
        if self.spare_waker.as_ref().is_none_or(|spare| !spare.will_wake(cx.waker())) {
            sync::assert_unlocked();
            self.spare_waker = Some(cx.waker().clone());
        }
    }

    /// Whether the client must be told that the backplane was lost or found.
    fn must_tell_health(&self) -> bool {
        let is_degraded = self.shared.shows_degraded.load(Ordering::Acquire);
        // After its end a stream tells nothing.
        is_degraded != self.told_degraded && self.slot.is_some()
    }

    fn leave(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.leave(slot, &self.client);
        }
    }
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        if let Phase::Opening(snapshot) = &mut this.phase {
            let snapshot = mem::take(snapshot);
            this.phase = Phase::Live;
            this.idle.restart();
            return Poll::Ready(Some(this.opening(snapshot)));
        }
        loop {
            if this.must_tell_health() {
                this.told_degraded = !this.told_degraded;
                this.idle.restart();
                return Poll::Ready(Some(frame::degraded(this.told_degraded)));
            }
            let mut due = None;
            match this.poll_events(cx, &mut due) {
                Poll::Ready(Some(events)) => {
                    this.idle.restart();
                    return Poll::Ready(Some(events));
                }
                Poll::Ready(None) => {
                    this.leave();
                    return Poll::Ready(None);
                }
                // A thread that changes the state from here on finds the waker. A thread that
                // changed the state before may have found no waker.
                Poll::Pending if this.must_tell_health() => continue,
                Poll::Pending => {}
            }
            let Config { heartbeat, timer, .. } = &this.shared.config;
            match ready!(this.idle.poll(cx, &**timer, due)) {
                Due::Heartbeat => {
                    this.shared.housekeep();
                    return Poll::Ready(heartbeat.map(Heartbeat::frame));
                }
                // The stream is due to end: the next round ends it.
                Due::End => {}
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.leave();
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
/// fills the inbox finds the waker.
fn wait<T>(
    mut inbox: MutexGuard<'_, Inbox>,
    spare: &mut Option<Waker>,
    cx: &Context<'_>,
) -> Poll<T> {
    if inbox.will_wake(cx.waker()) {
        return Poll::Pending;
    }
    let old = spare.take().and_then(|waker| inbox.register(waker));
    // The destructor of a waker is foreign code.
    drop(inbox);
    sync::assert_unlocked();
    drop(old);
    Poll::Pending
}

fn joined<'a>(frames: impl IntoIterator<Item = &'a Bytes> + Clone) -> Bytes {
    let len = frames.clone().into_iter().map(Bytes::len).sum();
    let mut all = BytesMut::with_capacity(len);
    frames.into_iter().for_each(|frame| all.put_slice(frame));
    all.freeze()
}
