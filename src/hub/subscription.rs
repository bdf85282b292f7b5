use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;

use super::admission::{Admitted, Start};
use super::catch_up::CaughtUp;
use super::config::Config;
use super::end::{End, EndReason};
use super::shared::Shared;
use super::state::{Client, Inbox};
use super::subscriber::Subscriber;
use crate::error::Refused;
use crate::log::entry::Entry;
use crate::log::key::ClientId;
use crate::log::mailbox::Taken;
use crate::sync::MutexGuard;
use crate::time::deadline::{Due, IdleDeadline};
use crate::wire::event::{Event, EventError};
use crate::wire::frame;
use crate::wire::id::EventId;

/// The server's end of a client's stream: [`Hub::subscribe`](crate::Hub::subscribe) makes it.
///
/// A `Stream` of `Bytes`, each item one or more whole frames (or a heartbeat), to be written to the response as they
/// come. The first is `hub:open`. It is not a queue: a client that does not read costs no memory for what it does
/// not read. The stream ends when the hub is closed.
///
/// # Cancel safety
///
/// An item is taken off only when it is returned, so a `next()` that is dropped before it is ready loses nothing.
/// Dropping the subscription frees everything that the hub holds for the client, at once.
///
/// Purposefully not `Clone`: it is one client's place.
#[must_use = "dropping a subscription disconnects its client"]
pub struct Subscription {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// Gone once the client was forgotten.
    slot: Option<usize>,
    start: Start,
    /// What comes after `hub:open` and before all else.
    first: Vec<Event>,
    opened: bool,
    /// It came too late for something, and has not caught up since: it is told of a gap, and not ended for it.
    is_late: bool,
    idle: IdleDeadline,
    /// What the poll under way has taken. Empty between polls; kept for its allocation.
    batch: Vec<Arc<Entry>>,
    /// How many items it has sent.
    items: u32,
    /// What it was told last of the backplane.
    told_degraded: bool,
}

impl Subscription {
    pub(crate) fn open(shared: &Arc<Shared>, subscriber: Subscriber) -> Result<Self, Refused> {
        let Admitted { client, slot, start } = shared.subscribe(subscriber)?;
        Ok(Self {
            shared: Arc::clone(shared),
            client,
            slot: Some(slot),
            start,
            first: Vec::new(),
            opened: false,
            is_late: !matches!(start, Start::Fresh(_) | Start::Resumed(_)),
            idle: IdleDeadline::new(shared.config.heartbeat),
            batch: Vec::new(),
            items: 0,
            told_degraded: false,
        })
    }

    /// The client's id, as `hub:open` tells it.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.client.id
    }

    /// Whether the client goes on where it stopped, without a gap.
    ///
    /// With a backplane that is what is to be expected: where the order ends, or whether what it missed can still be
    /// [looked back](crate::History) for, is found out after it was let in. If not, it is told a gap later.
    #[must_use]
    pub fn resumed(&self) -> bool {
        matches!(self.start, Start::Resumed(_) | Start::Sought(_))
    }

    /// Puts events of its own before the live ones: a snapshot, then its changes.
    ///
    /// Everything published since the client was let in comes after them, so state that is read *after* subscribing is
    /// neither missing a change nor older than the one that follows. A client that is cut off before it has all of them
    /// does not count as one that saw the first: it comes back to a gap, and is not [`resumed`](Self::resumed).
    ///
    /// # Errors
    ///
    /// [`EventError`] for one that cannot be sent.
    ///
    /// ```
    /// use sse_hub::{Event, Hub, LastEventId, Subscriber, Subscription};
    ///
    /// fn orders(hub: &Hub, last: LastEventId) -> Result<Subscription, Box<dyn std::error::Error>> {
    ///     let stream = hub.subscribe(Subscriber::new().topic("orders").resume(last))?;
    ///     if stream.resumed() {
    ///         return Ok(stream);
    ///     }
    ///     let orders = "[17, 18]"; // Read from the database now, and not before.
    ///     Ok(stream.first([Event::new("orders").data(orders)])?)
    /// }
    /// ```
    pub fn first(mut self, events: impl IntoIterator<Item = Event>) -> Result<Self, EventError> {
        for event in events {
            event.check_for_hub()?;
            self.first.push(event);
        }
        Ok(self)
    }

    /// The first frames.
    ///
    /// The id of `hub:open` is where the client stands before any gap is told, and before it has the events of its own.
    /// If it is cut off between, it must come back to the gap, and not as one that missed nothing.
    fn opening(&mut self) -> Bytes {
        let position = self.start.position();
        let has_first = !self.first.is_empty();
        let held = match self.start {
            _ if has_first => EventId::ORIGIN,
            Start::Gap { held, .. } => held,
            Start::Fresh(_) | Start::Resumed(_) | Start::Sought(_) | Start::Behind(_) => position,
        };
        let client = self.client.id;
        let retry = self.shared.config.retry(client);
        let mut frames = vec![frame::open(held, retry, &client.to_string(), self.resumed())];
        if let Start::Gap { reason, .. } = self.start {
            self.shared.reads.gap(self.client.serial);
            frames.push(frame::gap(if has_first { held } else { position }, reason));
        }
        let last = self.first.pop();
        for event in self.first.drain(..) {
            frames.push(event.seal().finish_without_id());
        }
        frames.extend(last.map(|event| event.seal().finish(position).into_bytes()));
        match frames.as_slice() {
            [one] => one.clone(),
            more => joined(more),
        }
    }

    /// The next events, if there are any; otherwise registers the waker, or finds that the stream has ended.
    fn poll_events(&mut self, cx: &Context<'_>, end: &mut Option<Instant>) -> Poll<Option<Bytes>> {
        let config = &self.shared.config;
        loop {
            let mut inbox = self.client.inbox.lock();
            *end = inbox.next_end();
            if end.is_some() {
                inbox.pass(config.timer.now(), config.retry(self.client.id));
            }
            if inbox.end.as_ref().is_some_and(End::is_immediate) {
                return Poll::Ready(inbox.end.as_mut().and_then(|end| end.last.take()));
            }
            if inbox.held.is_some() {
                if let Some(end) = &mut inbox.end {
                    // What it misses is for whoever comes back.
                    return Poll::Ready(end.last.take());
                }
                self.is_late = true;
                return wait(inbox, cx);
            }
            match inbox.mailbox.take(config.batch, || config.timer.now(), &mut self.batch) {
                Taken::Batch => {
                    drop(inbox);
                    self.is_late = false;
                    return Poll::Ready(Some(self.take_batch(None)));
                }
                Taken::Gap(id, reason) => {
                    drop(inbox);
                    self.is_late = true;
                    self.shared.reads.gap(self.client.serial);
                    return Poll::Ready(Some(frame::gap(id, reason)));
                }
                Taken::Behind => {
                    drop(inbox);
                    let may_look_back = self.is_late || !config.end_lagging;
                    let caught_up = self.slot.and_then(|slot| {
                        let batch = &mut self.batch;
                        self.shared.catch_up(slot, &self.client, may_look_back, batch)
                    });
                    let Some(CaughtUp { gap, is_live, .. }) = caught_up else {
                        // It is forgotten. What it has not read it gets when it comes back.
                        let mut inbox = self.client.inbox.lock();
                        return Poll::Ready(inbox.end.as_mut().and_then(|end| end.last.take()));
                    };
                    let excused = self.is_late;
                    self.is_late &= !is_live;
                    if gap.is_some() && config.end_lagging && !excused {
                        self.batch.clear();
                        let end = End::told(EndReason::Lagged, config.retry(self.client.id));
                        let waker = self.client.inbox.lock().end(end);
                        drop(waker);
                        continue;
                    }
                    let gap = gap.map(|id| frame::gap(id, "evicted"));
                    if gap.is_some() {
                        self.shared.reads.gap(self.client.serial);
                    }
                    if gap.is_some() || !self.batch.is_empty() {
                        return Poll::Ready(Some(self.take_batch(gap)));
                    }
                    // Nothing of it was for this client, which is live now; or it is held, or told a gap next.
                }
                Taken::Nothing => {
                    if let Some(end) = &mut inbox.end {
                        return Poll::Ready(end.last.take());
                    }
                    self.is_late = false;
                    return wait(inbox, cx);
                }
            }
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
        const MEASURED: u32 = 16;
        let Some(oldest) = self.batch.first() else { return };
        let Shared { reads, config, .. } = &*self.shared;
        reads.count(self.client.serial, self.batch.len(), bytes);
        if self.items.is_multiple_of(MEASURED) {
            let delay = config.timer.now().saturating_duration_since(oldest.at);
            reads.delay(self.client.serial, delay);
        }
        self.items = self.items.wrapping_add(1);
    }

    fn has_outage_to_tell(&self) -> bool {
        let tells = self.shared.tells_degraded.load(Ordering::Acquire);
        // After its end it tells nothing.
        tells != self.told_degraded && self.slot.is_some()
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
        if !this.opened {
            this.opened = true;
            this.idle.restart();
            return Poll::Ready(Some(this.opening()));
        }
        loop {
            if this.has_outage_to_tell() {
                this.told_degraded = !this.told_degraded;
                this.idle.restart();
                return Poll::Ready(Some(frame::degraded(this.told_degraded)));
            }
            let mut end = None;
            match this.poll_events(cx, &mut end) {
                Poll::Ready(Some(events)) => {
                    this.idle.restart();
                    return Poll::Ready(Some(events));
                }
                Poll::Ready(None) => {
                    this.leave();
                    return Poll::Ready(None);
                }
                // Whoever tells it now finds the waker; who did before that may not have.
                Poll::Pending if this.has_outage_to_tell() => continue,
                Poll::Pending => {}
            }
            let Config { heartbeat, timer, .. } = &this.shared.config;
            match ready!(this.idle.poll(cx, &**timer, end)) {
                Due::Heartbeat => {
                    this.shared.look_around();
                    return Poll::Ready(Some(heartbeat.frame()));
                }
                // Its end has come, which the next round finds.
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
            .field("client", &self.client.id)
            .field("resumed", &self.resumed())
            .finish_non_exhaustive()
    }
}

/// Checked and registered under one lock: whoever fills the mailbox next, or lets the client go on, finds the waker.
fn wait<T>(mut inbox: MutexGuard<'_, Inbox>, cx: &Context<'_>) -> Poll<T> {
    let is_known = inbox.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
    let old = if is_known { None } else { inbox.waker.replace(cx.waker().clone()) };
    drop(inbox);
    drop(old);
    Poll::Pending
}

fn joined<'a>(frames: impl IntoIterator<Item = &'a Bytes> + Clone) -> Bytes {
    let len = frames.clone().into_iter().map(Bytes::len).sum();
    let mut all = BytesMut::with_capacity(len);
    frames.into_iter().for_each(|frame| all.put_slice(frame));
    all.freeze()
}
