use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;

use super::config::Config;
use super::shared::{Admitted, Client, Shared, Start};
use super::subscriber::Subscriber;
use crate::error::Refused;
use crate::log::audience::ClientId;
use crate::log::log::Entry;
use crate::log::mailbox::Taken;
use crate::time::heartbeat::Silence;
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
    opened: bool,
    silence: Silence,
    /// What the poll under way has taken. Empty between polls; kept for its allocation.
    batch: Vec<Arc<Entry>>,
}

impl Subscription {
    pub(crate) fn open(shared: &Arc<Shared>, subscriber: Subscriber) -> Result<Self, Refused> {
        let Admitted { client, slot, start } = shared.subscribe(subscriber)?;
        Ok(Self {
            shared: Arc::clone(shared),
            client,
            slot: Some(slot),
            start,
            opened: false,
            silence: Silence::new(shared.config.heartbeat),
            batch: Vec::new(),
        })
    }

    /// The client's id, as `hub:open` tells it.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.client.id
    }

    /// Whether the client goes on where it stopped, without a gap.
    #[must_use]
    pub fn resumed(&self) -> bool {
        matches!(self.start, Start::Resumed(_))
    }

    /// The first frames.
    ///
    /// The id of `hub:open` is where the client stands before any gap is told. If it is cut off between the two, it
    /// must come back to the gap, and not as one that missed nothing.
    fn opening(&self) -> Bytes {
        let id = match self.start {
            Start::Fresh(id) | Start::Resumed(id) | Start::Behind(id) => id,
            Start::Lost(_) => EventId::ORIGIN,
        };
        let client = self.client.id;
        let retry = self.shared.config.retry(client);
        let open = frame::open(id, retry, &client.to_string(), self.resumed());
        match self.start {
            Start::Lost(head) => joined([&open, &frame::gap(head, "unknown")]),
            Start::Fresh(_) | Start::Resumed(_) | Start::Behind(_) => open,
        }
    }

    /// The next events, if there are any; otherwise registers the waker, or finds that the stream has ended.
    fn poll_events(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let mut inbox = self.client.inbox.lock();
            match inbox.mailbox.take(self.shared.config.batch, &mut self.batch) {
                Taken::Batch => {
                    drop(inbox);
                    return Poll::Ready(Some(self.take_batch(None)));
                }
                Taken::Behind => {
                    drop(inbox);
                    let gap = self.shared.catch_up(&self.client, &mut self.batch);
                    let gap = gap.map(|id| frame::gap(id, "evicted"));
                    if gap.is_some() || !self.batch.is_empty() {
                        return Poll::Ready(Some(self.take_batch(gap)));
                    }
                    // Nothing of it was for this client, which is live now.
                }
                Taken::Nothing if inbox.closed => {
                    drop(inbox);
                    return Poll::Ready(None);
                }
                Taken::Nothing => {
                    // Checked and registered under one lock: whoever fills the mailbox next finds the waker.
                    let is_known =
                        inbox.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
                    let old = if is_known { None } else { inbox.waker.replace(cx.waker().clone()) };
                    drop(inbox);
                    drop(old);
                    return Poll::Pending;
                }
            }
        }
    }

    fn take_batch(&mut self, gap: Option<Bytes>) -> Bytes {
        let bytes = match (&gap, self.batch.as_slice()) {
            (None, [one]) => one.frame.bytes().clone(),
            (gap, more) => joined(gap.iter().chain(more.iter().map(|entry| entry.frame.bytes()))),
        };
        self.batch.clear();
        bytes
    }

    fn leave(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.leave(slot);
        }
    }
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        if !this.opened {
            this.opened = true;
            this.silence.end();
            return Poll::Ready(Some(this.opening()));
        }
        match this.poll_events(cx) {
            Poll::Ready(Some(events)) => {
                this.silence.end();
                Poll::Ready(Some(events))
            }
            Poll::Ready(None) => {
                this.leave();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Config { heartbeat, timer, .. } = &this.shared.config;
                this.silence.poll(cx, &**timer).map(|()| Some(heartbeat.frame()))
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

fn joined<'a>(frames: impl IntoIterator<Item = &'a Bytes> + Clone) -> Bytes {
    let len = frames.clone().into_iter().map(Bytes::len).sum();
    let mut all = BytesMut::with_capacity(len);
    frames.into_iter().for_each(|frame| all.put_slice(frame));
    all.freeze()
}
