//! The port to an engine that orders and carries events between instances: events out. The other
//! half, ordered events in, is [`Feed`](crate::backplane::Feed).

use std::fmt;

use bytes::Bytes;

use super::end::EndReason;
use super::receipt::{Confirmation, Ticket};
use super::seats::Seat;
use crate::error::{DisconnectError, JoinError, PublishError, RunError};
use crate::log::codec::{self, RunEntry, RunPart};
use crate::wire::id::EventId;

/// An engine that puts the events of many hubs in one order, and gives every hub all of them.
///
/// This trait is the part of the engine that a hub calls. `sse_hub::redis` implements the trait; an
/// engine for tests can be a few lines.
///
/// A hub with a backplane does not hand out published events. Each event goes to the engine. The
/// engine gives the event an id, and brings the events of all hubs back through a
/// [`Feed`](crate::backplane::Feed). A hub spawns no task and waits for nothing: an engine needs a
/// task of the application.
///
/// No method may wait. The hub calls every method without a lock.
pub trait Backplane: fmt::Debug + Send + Sync + 'static {
    /// Takes an event to put into the order. Events of a thread must keep their order.
    ///
    /// Any thread may call this, and several at a time. Methods of
    /// [`Feed`](crate::backplane::Feed) call this to announce clients that join topics: an engine
    /// must not hold a lock of this method while it calls a feed.
    ///
    /// An engine that is full must take the [end](crate::backplane::RunPartKind::End) of a run all
    /// the same. A `Run` that is dropped cannot send the end again, and the run would stay open. A
    /// hub sends one end for each run, and one for each run of an instance that
    /// [died](crate::backplane::Feed::lose_runs).
    ///
    /// # Errors
    ///
    /// Returns [`SendError`] if the event was not taken. The event must have no effect then.
    fn send(&self, event: Outgoing) -> Result<(), SendError>;

    /// A client came with an id that the hub has not read up to: see
    /// [`Feed::disown`](crate::backplane::Feed::disown).
    fn on_client_ahead(&self) {}

    /// Users came to the hub or left, or joined or left topics, since the engine last
    /// [took the changes](crate::backplane::Feed::take_changes). For engines that tell other
    /// instances which users are online.
    fn on_presence_changed(&self) {}

    /// The result of [`Feed::run_instances`](crate::backplane::Feed::run_instances) has changed.
    /// For engines that find instances that died.
    fn on_runs_changed(&self) {}

    /// Returns whether the engine can bring events from before the hub's log. The answer must
    /// always be the same. If `false`, a client from before the log gets a gap.
    fn supports_history(&self) -> bool {
        false
    }

    /// Clients or pages wait for older events: see
    /// [`Feed::history_request`](crate::backplane::Feed::history_request).
    fn on_history_wanted(&self) {}

    /// The hub is closed and sends nothing any more.
    fn on_close(&self) {}
}

/// A change of presence on an instance, as instances tell each other: of a user, or of a member of
/// a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserChange {
    /// The seat has clients on the instance, and had none.
    Joined(Seat),
    /// The seat has no client on the instance any more, and why the last client left.
    Left(Seat, EndReason),
}

impl UserChange {
    /// Returns the seat that changed.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        let (Self::Joined(seat) | Self::Left(seat, _)) = self;
        seat
    }
}

/// Why an engine did not take an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// As many events wait to be sent as the engine may hold.
    #[error("too many events wait for the backplane")]
    Full,
    /// The engine has ended.
    #[error("the backplane has ended")]
    Closed,
}

impl From<SendError> for PublishError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Backlog,
            SendError::Closed => Self::Closed,
        }
    }
}

impl From<SendError> for RunError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Backlog,
            SendError::Closed => Self::Closed,
        }
    }
}

impl From<SendError> for JoinError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Backlog,
            SendError::Closed => Self::Closed,
        }
    }
}

impl From<SendError> for DisconnectError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Backlog,
            SendError::Closed => Self::Closed,
        }
    }
}

/// An event on its way to the order. Hubs parse the [bytes](Self::entry) as an
/// [`Incoming`](crate::backplane::Incoming).
///
/// If an `Outgoing` is dropped without [`confirm`](Self::confirm), the publisher gets
/// [`Unconfirmed`](crate::Unconfirmed).
#[derive(Debug)]
pub struct Outgoing {
    entry: Bytes,
    key: Option<Box<str>>,
    value_of: Option<Box<[u8]>>,
    most_values: usize,
    ticket: Option<Ticket>,
}

impl Outgoing {
    pub(crate) fn new(entry: Vec<u8>, key: Option<Box<str>>) -> Self {
        Self { entry: entry.into(), key, value_of: None, most_values: 0, ticket: None }
    }

    /// Encodes a part of a run.
    pub(crate) fn of_run(entry: &RunEntry) -> Self {
        Self::new(codec::write_run(entry), None)
    }

    /// Marks the event as the value of a conflation, if it has a name. `most`: see
    /// [`most_values`](Self::most_values).
    pub(crate) fn with_value_of(mut self, name: Option<Box<[u8]>>, most: usize) -> Self {
        (self.value_of, self.most_values) = (name, most);
        self
    }

    pub(crate) fn with_key(mut self, key: Option<Box<str>>) -> Self {
        self.key = key;
        self
    }

    /// Gives the ticket of a task that waits for the place of the entry.
    pub(crate) fn with_ticket(mut self, ticket: Ticket) -> Self {
        self.ticket = Some(ticket);
        self
    }

    /// Returns the future that resolves when the event is confirmed: for a publisher without a hub.
    /// A second call ends the first future as [`Unconfirmed`](crate::Unconfirmed). A hub makes the
    /// first call, so an engine must not call this for the events of a hub.
    pub fn confirmation(&mut self) -> Confirmation {
        let (ticket, confirmation) = Confirmation::pending();
        self.ticket = Some(ticket);
        confirmation
    }

    /// Returns the event without its id: bytes with a meaning only to hubs.
    #[must_use]
    pub fn entry(&self) -> &Bytes {
        &self.entry
    }

    /// Returns whether the entry lets clients [join](crate::Hub::join) topics. An engine should
    /// note durably that the order has had such an entry: see
    /// [`Feed::no_earlier_joins`](crate::backplane::Feed::no_earlier_joins).
    #[must_use]
    pub fn joins(&self) -> bool {
        codec::joins(&self.entry)
    }

    /// Returns the [idempotency key](crate::Event::idempotency_key) of the event, if there is a
    /// key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns bytes that name the value that this event sets, if the event has a
    /// [conflation key](crate::Event::conflate) and the hub
    /// [keeps values](crate::Retain::keep_latest).
    ///
    /// Two events have equal bytes if the later event replaces the earlier. An engine must keep the
    /// newest event of each, with its id, for instances that start later: see
    /// [`Loaded::latest`](crate::backplane::Loaded::latest).
    #[must_use]
    pub fn value_of(&self) -> Option<&[u8]> {
        self.value_of.as_deref()
    }

    /// Returns the most [values](Self::value_of) that the hub keeps: zero if it keeps none.
    #[must_use]
    pub fn most_values(&self) -> usize {
        self.most_values
    }

    /// Returns which part of which run the entry is, if the entry belongs to a [run](crate::Run).
    ///
    /// An engine should copy such an entry, with its id, to a place of the run's own, in the same
    /// step that puts the entry into the order. An instance that starts later then has each run
    /// from its beginning, also if the order is trimmed: see
    /// [`RunCopy`](crate::backplane::RunCopy). Without copies, such an instance does not know the
    /// runs that started before the part of the order that it reads.
    ///
    /// The order decides which parts have an effect: see
    /// [`RunPartKind`](crate::backplane::RunPartKind). An engine may copy all parts, or apply the
    /// same rule and copy only the parts with an effect. An engine that bounds a copy must drop the
    /// oldest *events*, and note the id of the newest dropped event. If a part cannot be copied,
    /// the engine must drop the whole copy of the run.
    #[must_use]
    pub fn run(&self) -> Option<RunPart<'_>> {
        codec::run_part(&self.entry)
    }

    /// Acknowledges the event under `id`, and resolves the publisher's
    /// [`Confirmation`](crate::Confirmation).
    ///
    /// An engine must call this once the event has its place in the order and is as durable as the
    /// engine makes it.
    pub fn confirm(mut self, id: EventId) {
        if let Some(ticket) = self.ticket.take() {
            ticket.confirm(id);
        }
    }
}
