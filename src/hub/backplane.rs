//! The port to an engine that orders and carries events between instances: events out. The other half, ordered
//! events in, is [`Feed`](super::feed::Feed).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::end::EndReason;
use crate::log::codec::{self, Command};
use crate::sync::Mutex;
use crate::wire::id::EventId;

/// An engine that gives the events of many hubs one order, and each of the hubs all of them: the part of it that a hub
/// calls. `sse_hub::redis` is one; a test's can be a few lines.
///
/// With a backplane a hub hands out nothing that it publishes. The event goes to the engine, which gives it an id and
/// brings it back, with everybody's, through a [`Feed`](crate::backplane::Feed). The hub spawns nothing and waits for nothing: what drives the
/// engine is its own.
pub trait Backplane: fmt::Debug + Send + Sync + 'static {
    /// Takes an event to be put into the order. Those of one thread stay in its order.
    ///
    /// Must not wait: it is called by whoever publishes, from any thread. No lock is held.
    ///
    /// # Errors
    ///
    /// [`Unsent`], and then nothing became of the event.
    fn send(&self, event: Outgoing) -> Result<(), Unsent>;

    /// A client has come with an id that the hub has not read up to: see [`Feed::disown`](crate::backplane::Feed::disown). Must not
    /// wait.
    fn look_ahead(&self) {}

    /// Users have come to the hub or left it, after all of that was [taken](crate::backplane::Feed::take_changes): for
    /// engines that tell other instances who is online. Must not wait. No lock is held.
    fn presence(&self) {}

    /// Whether it can bring events from before what the hub holds. Always the same. If not, who comes from there is told
    /// a gap.
    fn looks_back(&self) -> bool {
        false
    }

    /// A client has come that missed older events: see [`Feed::wanted`](crate::backplane::Feed::wanted). Must not wait.
    /// No lock is held.
    fn look_back(&self) {}

    /// The hub is closed and sends nothing any more. Must not wait.
    fn close(&self) {}
}

/// What a user did, as instances tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Has a client at an instance, and had none.
    Came(Arc<str>),
    /// Has none there any more; why the last of them ended.
    Gone(Arc<str>, EndReason),
}

impl Change {
    pub(crate) fn user(&self) -> &Arc<str> {
        let (Self::Came(user) | Self::Gone(user, _)) = self;
        user
    }
}

/// Why an engine did not take an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsent {
    /// As much as it may hold is waiting to be sent.
    Full,
    /// It has ended.
    Closed,
}

/// An event on its way to the order, in the form that [`Feed::append`](crate::backplane::Feed::append) reads.
#[derive(Debug)]
pub struct Outgoing {
    entry: Bytes,
    key: Option<Box<str>>,
    ticket: Option<Ticket>,
}

impl Outgoing {
    pub(super) fn new(entry: Vec<u8>, key: Option<Box<str>>) -> Self {
        Self { entry: entry.into(), key, ticket: None }
    }

    /// What is to be done to clients, which travels as an event does.
    pub(super) fn of(command: &Command) -> Self {
        Self::new(codec::write_command(command), None)
    }

    /// What is told once the event has its place.
    pub(super) fn confirmation(&mut self) -> Confirmation {
        let answer = Arc::new(Mutex::new(Answer::Awaited(None)));
        self.ticket = Some(Ticket { answer: Arc::clone(&answer) });
        Confirmation { answer }
    }

    /// The event, but for its id: bytes that mean something only to hubs.
    #[must_use]
    pub fn entry(&self) -> &Bytes {
        &self.entry
    }

    /// Its [idempotency key](crate::Event::idempotency_key), if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The event has this place in the order, and is as durable as it gets. Told to whoever waits for it; an event
    /// that is dropped without is told to be [`Unconfirmed`].
    pub fn confirm(mut self, id: EventId) {
        if let Some(ticket) = self.ticket.take() {
            ticket.answer(Answer::Confirmed(id));
        }
    }
}

/// The engine's end of a [`Confirmation`].
#[derive(Debug)]
struct Ticket {
    answer: Arc<Mutex<Answer>>,
}

#[derive(Debug)]
enum Answer {
    Awaited(Option<Waker>),
    Confirmed(EventId),
    Never,
}

impl Ticket {
    fn answer(&self, answer: Answer) {
        let mut known = self.answer.lock();
        let Answer::Awaited(waker) = &mut *known else { return };
        let waker = waker.take();
        *known = answer;
        drop(known);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.answer(Answer::Never);
    }
}

/// Ready with the event's id once its place in the order is acknowledged:
/// [`Hub::publish_confirmed`](crate::Hub::publish_confirmed) makes it.
///
/// # Cancel safety
///
/// The event was handed over by the call that made it. Dropping this, or no longer waiting for it, stops nothing but
/// the waiting.
#[derive(Debug)]
#[must_use = "the id is told only if it is awaited"]
pub struct Confirmation {
    answer: Arc<Mutex<Answer>>,
}

impl Confirmation {
    pub(super) fn ready(id: EventId) -> Self {
        Self { answer: Arc::new(Mutex::new(Answer::Confirmed(id))) }
    }
}

impl Future for Confirmation {
    type Output = Result<EventId, Unconfirmed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let mut answer = self.answer.lock();
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

/// The engine ended before it knew what became of an event: it may have its place in the order or not. Published again
/// with the same [idempotency key](crate::Event::idempotency_key) it lands once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backplane ended before it knew what became of the event")]
pub struct Unconfirmed(());
