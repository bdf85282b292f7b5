//! The answers to operations: how many clients an event matched, or an operation changed, and the
//! id of an event.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::{self, Mutex, contain_panic};
use crate::wire::id::EventId;

/// How many clients a published event matched.
///
/// [`Hub::publish`](crate::Hub::publish) returns it. For the id of the event, see
/// [`Hub::publish_confirmed`](crate::Hub::publish_confirmed).
///
/// ```
/// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let _tab = hub.subscribe(Subscriber::new().user("42"))?;
/// let receipt = hub.send_to_user("42", Event::new("greeting").data("hello"))?;
/// assert_eq!(receipt.matched(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    matched: usize,
}

impl Receipt {
    pub(crate) const fn new(matched: usize) -> Self {
        Self { matched }
    }

    /// Returns how many connected clients the event is for, after their filters. Clients that come
    /// back later are not counted.
    ///
    /// With a backplane: how many clients *of this instance* are in the audience, whatever their
    /// filters.
    #[must_use]
    pub const fn matched(&self) -> usize {
        self.matched
    }

    /// Makes an event without a connected client an error.
    ///
    /// The event stays published: a client that returns in time receives it.
    ///
    /// # Errors
    ///
    /// Returns [`Unmatched`] if [`matched`](Self::matched) is 0.
    pub const fn require_match(self) -> Result<Self, Unmatched> {
        if self.matched == 0 { Err(Unmatched(())) } else { Ok(self) }
    }
}

/// No connected client matched an event. The log keeps the event for clients that return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no connected client matched the event")]
pub struct Unmatched(());

/// Resolves with the id of an event, once the event has its place in the order.
///
/// [`Hub::publish_confirmed`](crate::Hub::publish_confirmed) returns it. Without a backplane the
/// event has its place at once.
///
/// # Cancel safety
///
/// The event was handed over by the call that returned the confirmation. Dropping the confirmation
/// ends only the waiting.
#[must_use = "the id is known only to those who await the confirmation"]
pub struct Confirmation(State);

enum State {
    Ready(EventId),
    Pending(Arc<Mutex<Answer>>),
}

/// The engine's end of a [`Confirmation`], or of another wait for the place of an entry.
#[derive(Debug)]
pub(crate) struct Ticket(Option<Arc<dyn Placed>>);

/// Waits for the place of an entry in the order.
pub(crate) trait Placed: fmt::Debug + Send + Sync {
    /// Takes the id of the entry, or `None` if nobody knows whether the entry has a place. Called
    /// once, without a lock.
    fn place(&self, id: Option<EventId>);
}

#[derive(Debug)]
enum Answer {
    Awaited(Option<Waker>),
    Confirmed(EventId),
    Never,
}

impl Confirmation {
    pub(crate) const fn ready(id: EventId) -> Self {
        Self(State::Ready(id))
    }

    pub(crate) fn pending() -> (Ticket, Self) {
        let answer = Arc::new(Mutex::new(Answer::Awaited(None)));
        (Ticket::of(Arc::clone(&answer)), Self(State::Pending(answer)))
    }

    /// Returns the id of the event, if the event has its place already: always without a
    /// backplane.
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Hub, ManualTimer};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let id = hub.publish_confirmed(Audience::all(), Event::new("news"))?.id();
    /// assert!(id.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> Option<EventId> {
        match &self.0 {
            State::Ready(id) => Some(*id),
            State::Pending(answer) => match *answer.lock() {
                Answer::Confirmed(id) => Some(id),
                Answer::Awaited(_) | Answer::Never => None,
            },
        }
    }
}

impl Future for Confirmation {
    type Output = Result<EventId, Unconfirmed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &self.0 {
            State::Ready(id) => return Poll::Ready(Ok(*id)),
            State::Pending(answer) => answer,
        };
        // Cloning and dropping a waker are foreign code: neither may run under the lock.
        sync::assert_unlocked();
        let waker = cx.waker().clone();
        let mut answer = answer.lock();
        let old = match &mut *answer {
            Answer::Confirmed(id) => return Poll::Ready(Ok(*id)),
            Answer::Never => return Poll::Ready(Err(Unconfirmed(()))),
            Answer::Awaited(known) => known.replace(waker),
        };
        drop(answer);
        drop(old);
        Poll::Pending
    }
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirmation").field("id", &self.id()).finish()
    }
}

impl Ticket {
    pub(crate) fn of(waits: Arc<impl Placed + 'static>) -> Self {
        Self(Some(waits))
    }

    pub(crate) fn confirm(mut self, id: EventId) {
        if let Some(waits) = self.0.take() {
            waits.place(Some(id));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(waits) = self.0.take() {
            waits.place(None);
        }
    }
}

impl Placed for Mutex<Answer> {
    fn place(&self, id: Option<EventId>) {
        let mut known = self.lock();
        let Answer::Awaited(waker) = &mut *known else { return };
        let waker = waker.take();
        *known = id.map_or(Answer::Never, Answer::Confirmed);
        drop(known);
        if let Some(waker) = waker {
            sync::assert_unlocked();
            contain_panic(|| waker.wake());
        }
    }
}

/// The backplane ended before it knew whether the event has its place in the order. To be sure,
/// publish the event again with the same [idempotency key](crate::Event::idempotency_key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backplane ended before it confirmed the event")]
pub struct Unconfirmed(());

/// How many clients [`Hub::join`](crate::Hub::join), [`Hub::leave`](crate::Hub::leave),
/// [`Hub::disconnect`](crate::Hub::disconnect) or [`Hub::finish`](crate::Hub::finish) reached.
///
/// Without a backplane, the counts are those of the whole hub. With a
/// [backplane](crate::HubBuilder::backplane), the operation reaches the clients of every instance,
/// and the counts cover the clients of this instance only: **clients of other instances are not
/// counted**. The operation takes effect when this instance reads it from the backplane, so the
/// counts describe the clients at the time of the call.
///
/// ```
/// use sse_hub::{Audience, Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let _follower = hub.subscribe(Subscriber::new().user(42).topic("orders"))?;
/// let _other = hub.subscribe(Subscriber::new().user(42))?;
///
/// let joined = hub.join(Audience::user(42), "orders")?;
/// assert_eq!((joined.matched, joined.changed), (2, 1), "one client followed the topic before");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Affected {
    /// The clients in the audience.
    pub matched: usize,
    /// The clients of these that the operation changed: that did not follow the topic and joined,
    /// that followed the topic and left, or whose stream this call ended.
    pub changed: usize,
}
