use std::fmt;
use std::time::Duration;

use crate::wire::event::EventError;

/// Why an event was not published. Nothing of it was stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event cannot be sent to anybody.
    #[error("the event cannot be sent: {0}")]
    Event(#[from] EventError),
    /// The audience cannot be one.
    #[error("the audience cannot be: {0}")]
    Audience(#[from] AudienceError),
    /// The event is larger than all that the hub may retain.
    #[error(
        "the event takes up to {bytes} bytes and the hub retains {limit}: send less, or raise `Retain::bytes`"
    )]
    TooLarge {
        /// What it could take on the wire.
        bytes: usize,
        /// What `Retain::bytes` allows.
        limit: usize,
    },
    /// The backplane holds as many events as it may that are still to be sent: what orders them is slow, or away.
    #[error("too many events wait for the backplane")]
    Backlog,
    /// The hub was closed.
    #[error("the hub is closed")]
    Closed,
}

/// A client was not let in. No trace of it is kept.
///
/// With an adapter it is a response: what may change (the hub is full, or closing) is told in a stream of its own, so
/// that a browser comes back, or by a status if the hub is [set to](crate::HubBuilder::refusals); what cannot is a
/// `400`, so that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    cause: RefusedCause,
    retry: Duration,
    style: RefusalStyle,
}

impl Refused {
    pub(crate) const fn new(cause: RefusedCause, retry: Duration, style: RefusalStyle) -> Self {
        Self { cause, retry, style }
    }

    /// Why.
    #[must_use]
    pub const fn cause(&self) -> RefusedCause {
        self.cause
    }

    /// When the client is to come back, if it [may](Self::is_temporary).
    #[must_use]
    pub const fn retry(&self) -> Duration {
        self.retry
    }

    /// Returns the hub's setting for the response to a client that may try again.
    #[must_use]
    pub const fn style(&self) -> RefusalStyle {
        self.style
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        !matches!(self.cause, RefusedCause::Name(_) | RefusedCause::TooManyTopics { .. })
    }
}

/// The form of the response to a refused client that may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RefusalStyle {
    /// A stream with one `hub:refused` event, which then ends, with status 200: a browser's
    /// `EventSource` reconnects by itself after no other status.
    #[default]
    Stream,
    /// A status with `retry-after`, for clients that handle statuses: `503`, or `429` if the limit
    /// is one of the client's own user or session.
    Status,
}

/// Why a client was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedCause {
    /// The subscriber has a name that cannot be one.
    #[error("the subscriber has an invalid name: {0}")]
    Name(#[from] NameError),
    /// It has more topics than [`Limits::topics`](crate::Limits::topics) allows.
    #[error("the subscriber has more than {limit} topics")]
    TooManyTopics {
        /// How many it may have.
        limit: usize,
    },
    /// There are as many clients as [`Limits::clients`](crate::Limits::clients) allows.
    #[error("there are {limit} clients, which is the limit")]
    Full {
        /// How many there may be.
        limit: usize,
    },
    /// Its user has as many clients as [`Limits::per_user`](crate::Limits::per_user) allows.
    #[error("the user has {limit} clients, which is the limit")]
    UserFull {
        /// How many it may have.
        limit: usize,
    },
    /// Its session has as many clients as [`Limits::per_session`](crate::Limits::per_session) allows.
    #[error("the session has {limit} clients, which is the limit")]
    SessionFull {
        /// How many it may have.
        limit: usize,
    },
    /// The hub is being drained; another is to take its place.
    #[error("the hub is being drained")]
    Draining,
    /// The hub was closed; another may take its place.
    #[error("the hub is closed")]
    Closed,
    /// The operating system gave no random bytes for a client id.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

impl RefusedCause {
    pub(crate) const COUNT: usize = 8;

    /// One of each.
    #[cfg(feature = "metrics")]
    pub(crate) const EACH: [Self; Self::COUNT] = [
        Self::Name(NameError::Empty(NameKind::User)),
        Self::TooManyTopics { limit: 0 },
        Self::Full { limit: 0 },
        Self::UserFull { limit: 0 },
        Self::SessionFull { limit: 0 },
        Self::Draining,
        Self::Closed,
        Self::NoRandomness,
    ];

    /// Its place among all causes.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Name(_) => 0,
            Self::TooManyTopics { .. } => 1,
            Self::Full { .. } => 2,
            Self::UserFull { .. } => 3,
            Self::SessionFull { .. } => 4,
            Self::Draining => 5,
            Self::Closed => 6,
            Self::NoRandomness => 7,
        }
    }

    /// One word for it, as `hub:refused` carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::TooManyTopics { .. } => "topics",
            Self::Full { .. } => "full",
            Self::UserFull { .. } => "user-full",
            Self::SessionFull { .. } => "session-full",
            Self::Draining => "draining",
            Self::Closed => "closed",
            Self::NoRandomness => "unavailable",
        }
    }
}

/// Why nobody was disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectError {
    /// The audience cannot be one.
    #[error("the audience cannot be: {0}")]
    Audience(#[from] AudienceError),
    /// The last event cannot be sent.
    #[error("the last event cannot be sent: {0}")]
    Event(#[from] EventError),
    /// The reason is not a word.
    #[error("the reason is not a word of 1 to 64 ASCII letters, digits, `-` and `_`")]
    Reason,
    /// The backplane holds as much as it may that is still to be sent.
    #[error("too much waits for the backplane")]
    Backlog,
    /// The hub was closed, and has ended all of its own streams. Others were not reached.
    #[error("the hub is closed")]
    Closed,
}

/// Why clients did not join or leave a topic. None of them did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The topic has a name that cannot be one.
    #[error("the topic cannot be: {0}")]
    Topic(#[from] NameError),
    /// The audience cannot be one.
    #[error("the audience cannot be: {0}")]
    Audience(#[from] AudienceError),
    /// One of them would have more topics than [`Limits::topics`](crate::Limits::topics) allows.
    #[error("a client would have more than {limit} topics")]
    TooManyTopics {
        /// How many it may have.
        limit: usize,
    },
    /// The backplane holds as much as it may that is still to be sent.
    #[error("too much waits for the backplane")]
    Backlog,
    /// The hub was closed, and has a backplane that would have to be told.
    #[error("the hub is closed")]
    Closed,
}

/// Why there is nothing to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The hub was built without presence.
    #[error("presence is off: set `HubBuilder::presence`")]
    Off,
}

/// Why an audience cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudienceError {
    /// It names somebody in a way that nobody can be named.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It has more than [`Audience::MAX_NAMES`](crate::Audience::MAX_NAMES) names or is deeper than
    /// [`Audience::MAX_DEPTH`](crate::Audience::MAX_DEPTH).
    #[error("it has too many names or is combined too deep: publish to a topic instead")]
    Excessive,
}

/// Why a text cannot name a user, a session or a topic. Any other text can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty, which is mostly a value that went missing on its way.
    #[error("an empty {0}: leave it out for clients that have none")]
    Empty(NameKind),
    /// It is longer than [`Limits::name_len`](crate::Limits::name_len).
    #[error("a {kind} of more than {max_len} bytes: use a shorter name, or a digest of it")]
    TooLong {
        /// What it is the name of.
        kind: NameKind,
        /// How many bytes it may have.
        max_len: usize,
    },
}

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameKind {
    /// A user.
    User,
    /// A session.
    Session,
    /// A topic.
    Topic,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Topic => "topic",
        })
    }
}

/// Settings that contradict each other or that nothing could work with; the text names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Heartbeats without a pause.
    #[error("`Heartbeat::every` is zero: use `Heartbeat::off()` for none")]
    Heartbeat,
    /// Clients would reconnect in a loop.
    #[error("`retry` is below one millisecond or above 24 days: clients would reconnect in a loop")]
    Retry,
    /// Nothing could be delivered: streams read from what is retained.
    #[error(
        "`Retain::{0}` is zero: nothing could be delivered, since streams read from what is retained"
    )]
    RetainsNothing(&'static str),
    /// One limit makes another meaningless.
    #[error("`Retain::per_topic` is {per_topic}, more than the {events} of `Retain::events`")]
    PerTopic {
        /// What is asked for each topic.
        per_topic: usize,
        /// What is retained in all.
        events: usize,
    },
    /// Streams could never be live.
    #[error("`window` is zero: every event would be read from the log")]
    Window,
    /// Batches that hold nothing.
    #[error("`batch` is zero bytes")]
    Batch,
    /// Nobody could be let in.
    #[error("`Limits::{0}` is zero: nobody could be let in")]
    LimitIsZero(&'static str),
    /// Nobody could be away, or nothing be seen.
    #[error("`Presence::{0}` is zero: for no grace, set that to zero")]
    PresenceIsZero(&'static str),
    /// Nothing could be looked back for.
    #[error("`History::{0}` is zero: use `History::none()` for none")]
    HistoryIsZero(&'static str),
    /// Streams that end as they begin.
    #[error("`{0}` is zero: every stream would end at once")]
    EndsAtOnce(&'static str),
}
