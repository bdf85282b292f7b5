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
    /// The audience names somebody in a way that nobody can be named.
    #[error("the audience names nobody: {0}")]
    Audience(#[from] NameError),
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
    /// The hub was closed.
    #[error("the hub is closed")]
    Closed,
}

/// A client was not let in. No trace of it is kept.
///
/// With an adapter it is a response: what may change (the hub is closing) is told in a stream of its own, so that a
/// browser comes back; what cannot is a `400`, so that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    cause: RefusedCause,
    retry: Duration,
}

impl Refused {
    pub(crate) const fn new(cause: RefusedCause, retry: Duration) -> Self {
        Self { cause, retry }
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

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        !matches!(self.cause, RefusedCause::Name(_))
    }
}

/// Why a client was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedCause {
    /// The subscriber has a name that cannot be one.
    #[error("the subscriber has an invalid name: {0}")]
    Name(#[from] NameError),
    /// The hub was closed; another may take its place.
    #[error("the hub is closed")]
    Closed,
    /// The operating system gave no random bytes for a client id.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

impl RefusedCause {
    /// One word for it, as `hub:refused` carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Closed => "closed",
            Self::NoRandomness => "unavailable",
        }
    }
}

/// The longest name of a user, a session or a topic, in bytes.
pub(crate) const MAX_NAME_LEN: usize = 256;

/// Why a text cannot name a user, a session or a topic. Any other text can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty, which is mostly a value that went missing on its way.
    #[error("an empty {0}: leave it out for clients that have none")]
    Empty(NameKind),
    /// It is longer than 256 bytes.
    #[error("a {0} of more than {MAX_NAME_LEN} bytes: use a shorter name, or a digest of it")]
    TooLong(NameKind),
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
    #[error("`retry` is below one millisecond: clients would reconnect in a loop")]
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
}
