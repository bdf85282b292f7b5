//! Errors of the public API, each with the values that the caller needs to act on.

use std::fmt;
use std::time::Duration;

use crate::wire::event::EventError;

/// Why a publish failed. The event had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event is invalid.
    #[error("invalid event: {0}")]
    Event(#[from] EventError),
    /// The audience is invalid.
    #[error("invalid audience: {0}")]
    Audience(#[from] AudienceError),
    /// The event is larger than [`Retain::bytes`](crate::Retain::bytes).
    #[error(
        "the event takes up to {bytes} bytes, more than the {limit} of `Retain::bytes`: send less"
    )]
    TooLarge {
        /// The most bytes that the event takes in the log.
        bytes: usize,
        /// The value of `Retain::bytes`.
        limit: usize,
    },
    /// Too many events wait for the backplane, which is slow or unreachable.
    #[error("too many events wait for the backplane")]
    Backlog,
    /// The hub is closed, or the publisher has ended.
    #[error("the hub or the publisher is closed")]
    Closed,
}

/// The hub refused a client, and keeps no trace of the client.
///
/// With an adapter, a `Refused` is a response. If the same request may succeed later (the hub is
/// full or closing), the response is a short stream that makes a browser come back, or a status,
/// as [set](crate::HubBuilder::refusals). Otherwise the response is a `400`, a `404` for an unknown
/// run, or a `204` for a client that has everything of its runs. A browser does not come back after
/// these.
///
/// ```
/// use sse_hub::{Hub, Limits, ManualTimer, RefusedCause, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).limits(Limits::default().clients(1)).build()?;
/// let _first = hub.subscribe(Subscriber::new())?;
/// let refused = hub.subscribe(Subscriber::new()).unwrap_err();
/// assert_eq!(refused.cause(), RefusedCause::Full { limit: 1 });
/// assert!(refused.is_temporary());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

    /// Returns the cause.
    #[must_use]
    pub const fn cause(&self) -> RefusedCause {
        self.cause
    }

    /// Returns how long the client must wait before it tries again, if it
    /// [may](Self::is_temporary).
    #[must_use]
    pub const fn retry(&self) -> Duration {
        self.retry
    }

    /// Returns the form of the response, if the client may try again.
    #[must_use]
    pub const fn style(&self) -> RefusalStyle {
        self.style
    }

    /// Returns whether the same request may succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self.cause {
            RefusedCause::Name(_)
            | RefusedCause::TooManyTopics { .. }
            | RefusedCause::TooManyEventTypes { .. }
            | RefusedCause::EventTypeTooLong { .. }
            | RefusedCause::UnknownRun
            | RefusedCause::Complete => false,
            RefusedCause::Full { .. }
            | RefusedCause::UserFull { .. }
            | RefusedCause::SessionFull { .. }
            | RefusedCause::Draining
            | RefusedCause::Closed
            | RefusedCause::NoRandomness => true,
        }
    }
}

/// The form of the response to a refused client that may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RefusalStyle {
    /// A stream of one `hub:refused` event, with status 200: the only answer after which a
    /// browser's `EventSource` comes back by itself.
    #[default]
    Stream,
    /// A status, for clients that handle statuses: `503`, or `429` at a limit of the client's own
    /// user or session, with `retry-after`.
    Status,
}

/// Why the hub refused a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedCause {
    /// A name of the subscriber is invalid.
    #[error("invalid name: {0}")]
    Name(#[from] NameError),
    /// The subscriber has more topics than [`Limits::topics`](crate::Limits::topics).
    #[error("more than {limit} topics, the limit of `Limits::topics`")]
    TooManyTopics {
        /// The most topics of a client.
        limit: usize,
    },
    /// The subscriber selects more event types than
    /// [`Limits::event_types`](crate::Limits::event_types).
    #[error("more than {limit} event types, the limit of `Limits::event_types`")]
    TooManyEventTypes {
        /// The most event types of a client.
        limit: usize,
    },
    /// The subscriber selects an event type that is longer than
    /// [`Limits::name_len`](crate::Limits::name_len).
    #[error("an event type of {len} bytes, more than the {limit} of `Limits::name_len`")]
    EventTypeTooLong {
        /// The length of the event type in bytes.
        len: usize,
        /// The longest name in bytes.
        limit: usize,
    },
    /// The hub has as many clients as [`Limits::clients`](crate::Limits::clients) allows.
    #[error("the hub has {limit} clients, the limit of `Limits::clients`")]
    Full {
        /// The most clients of the hub.
        limit: usize,
    },
    /// The user has as many clients as [`Limits::per_user`](crate::Limits::per_user) allows.
    #[error("the user has {limit} clients, the limit of `Limits::per_user`")]
    UserFull {
        /// The most clients of a user.
        limit: usize,
    },
    /// The session has as many clients as [`Limits::per_session`](crate::Limits::per_session)
    /// allows.
    #[error("the session has {limit} clients, the limit of `Limits::per_session`")]
    SessionFull {
        /// The most clients of a session.
        limit: usize,
    },
    /// The hub is draining: another instance will take its place.
    #[error("the hub is draining")]
    Draining,
    /// The hub is closed.
    #[error("the hub is closed")]
    Closed,
    /// The operating system returned no random bytes for a client id.
    #[error("the operating system returns no random bytes")]
    NoRandomness,
    /// A run of a stream that [ends with its runs](crate::Subscriber::ends_with_runs) is unknown:
    /// the run has not started, or the hub has forgotten the run.
    #[error("no run has this name")]
    UnknownRun,
    /// The runs of the stream have ended, and the client has received everything.
    #[error("the runs have ended, and the client has every event")]
    Complete,
}

impl RefusedCause {
    pub(crate) const COUNT: usize = 12;

    /// One value of each cause.
    pub(crate) const EACH: [Self; Self::COUNT] = [
        Self::Name(NameError::Empty(NameKind::User)),
        Self::TooManyTopics { limit: 0 },
        Self::TooManyEventTypes { limit: 0 },
        Self::EventTypeTooLong { len: 0, limit: 0 },
        Self::Full { limit: 0 },
        Self::UserFull { limit: 0 },
        Self::SessionFull { limit: 0 },
        Self::Draining,
        Self::Closed,
        Self::NoRandomness,
        Self::UnknownRun,
        Self::Complete,
    ];

    /// The index of the cause among all causes.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Name(_) => 0,
            Self::TooManyTopics { .. } => 1,
            Self::TooManyEventTypes { .. } => 2,
            Self::EventTypeTooLong { .. } => 3,
            Self::Full { .. } => 4,
            Self::UserFull { .. } => 5,
            Self::SessionFull { .. } => 6,
            Self::Draining => 7,
            Self::Closed => 8,
            Self::NoRandomness => 9,
            Self::UnknownRun => 10,
            Self::Complete => 11,
        }
    }

    /// Returns the word for the cause that `hub:refused` carries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::TooManyTopics { .. } => "topics",
            Self::TooManyEventTypes { .. } => "event-types",
            Self::EventTypeTooLong { .. } => "event-type-length",
            Self::Full { .. } => "full",
            Self::UserFull { .. } => "user-full",
            Self::SessionFull { .. } => "session-full",
            Self::Draining => "draining",
            Self::Closed => "closed",
            Self::NoRandomness => "unavailable",
            Self::UnknownRun => "unknown-run",
            Self::Complete => "complete",
        }
    }
}

/// Why [`Hub::disconnect`](crate::Hub::disconnect) or [`Hub::finish`](crate::Hub::finish) failed.
/// The call ended no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectError {
    /// The audience is invalid.
    #[error("invalid audience: {0}")]
    Audience(#[from] AudienceError),
    /// The last event is invalid.
    #[error("invalid last event: {0}")]
    Event(#[from] EventError),
    /// Too many entries wait for the backplane.
    #[error("too many events wait for the backplane")]
    Backlog,
    /// The hub is closed, and its streams have ended; or the publisher has ended. The call did not
    /// reach other instances.
    #[error("the hub or the publisher is closed")]
    Closed,
}

/// A text that cannot be the reason of a [`Goodbye`](crate::Goodbye).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid reason: expected 1 to 64 ASCII letters, digits, `-` and `_`")]
pub struct InvalidReason(pub(crate) ());

/// Why [`Hub::join`](crate::Hub::join) or [`Hub::leave`](crate::Hub::leave) failed. No client
/// joined or left the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The name of the topic is invalid.
    #[error("invalid topic: {0}")]
    Topic(#[from] NameError),
    /// The audience is invalid.
    #[error("invalid audience: {0}")]
    Audience(#[from] AudienceError),
    /// A client would exceed [`Limits::topics`](crate::Limits::topics).
    #[error("a client would have more than {limit} topics, the limit of `Limits::topics`")]
    TooManyTopics {
        /// The most topics of a client.
        limit: usize,
    },
    /// Too many entries wait for the backplane.
    #[error("too many events wait for the backplane")]
    Backlog,
    /// The hub is closed, and cannot tell its backplane; or the publisher has ended.
    #[error("the hub or the publisher is closed")]
    Closed,
}

/// Why [`Hub::follow`](crate::Hub::follow) or [`Hub::unfollow`](crate::Hub::unfollow) failed. No
/// client joined or left the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The client is not connected as this user and session. The error does not say whether the
    /// client is connected at all.
    #[error("the client is not connected as this user and session")]
    Denied,
    /// The client cannot join.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Why [`Hub::read`](crate::Hub::read), [`Hub::recent`](crate::Hub::recent) or
/// [`Hub::recent_of`](crate::Hub::recent_of) failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The subscriber cannot be a client: a name is invalid, or a limit is exceeded.
    #[error("invalid reader: {0}")]
    Reader(RefusedCause),
    /// The [deadline](crate::Subscriber::expires_in) of the subscriber has passed.
    #[error("the time of the reader is over")]
    Expired,
    /// The audience is invalid.
    #[error("invalid audience: {0}")]
    Audience(#[from] AudienceError),
    /// The audience has an `and` or an `except`.
    #[error("an audience with `and` or `except` names no events: read for one name, or several")]
    Combined,
    /// With a backplane: the hub has not read the end of the order so far.
    #[error("the backplane was not read so far")]
    NotLoaded,
    /// With a backplane: as many readers wait for older events as may wait at a time.
    #[error("too many readers wait for older events")]
    Busy,
}

/// Why [`Hub::watch`](crate::Hub::watch) or [`Hub::watch_topics`](crate::Hub::watch_topics) failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The hub was built without presence.
    #[error("presence is off: set `HubBuilder::presence`")]
    Off,
    /// The hub's presence selects no topic.
    #[error("presence of topics is off: set `Presence::topics`")]
    NoTopics,
}

/// Why [`Hub::users_in`](crate::Hub::users_in) failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The hub does not know the members of this topic: it was built without presence, or
    /// [`Presence::topics`](crate::Presence::topics) does not select the topic.
    #[error("presence of this topic is off: set `Presence::topics`")]
    Off,
    /// The name of the topic is invalid.
    #[error("invalid topic: {0}")]
    Topic(#[from] NameError),
}

/// Why an operation on a [run](crate::Run) failed. The operation had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The name of the run is invalid.
    #[error("invalid run: {0}")]
    Name(#[from] NameError),
    /// The event is invalid, or the event type of
    /// [`RunOptions::append`](crate::RunOptions::append).
    #[error("invalid event: {0}")]
    Event(#[from] EventError),
    /// The reason of a stop is invalid.
    #[error(transparent)]
    Reason(#[from] InvalidReason),
    /// The event is larger than the hub keeps of a run.
    #[error("the event takes up to {bytes} bytes, more than the {limit} of `RunLimits`: send less")]
    TooLarge {
        /// The most bytes that the event takes.
        bytes: usize,
        /// The smaller of `RunLimits::bytes_per_run` and `RunLimits::bytes`.
        limit: usize,
    },
    /// The name is that of an open run: see
    /// [`RunOptions::take_over`](crate::RunOptions::take_over).
    #[error("a run of this name is open")]
    Open,
    /// As many runs are open as [`RunLimits::runs`](crate::RunLimits::runs) allows.
    #[error("{limit} runs are open, the limit of `RunLimits::runs`")]
    Full {
        /// The most runs of the hub.
        limit: usize,
    },
    /// No run has this name, or the hub has forgotten the run.
    #[error("no run has this name")]
    Unknown,
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// Another producer took the run over.
    #[error("another producer took the run over")]
    Superseded,
    /// The run was lost: another instance found this instance dead, or the order was replaced and
    /// does not have the run. With a [backplane](crate::HubBuilder::backplane) only.
    #[error("the run was lost: this instance was out of reach, or the order was replaced")]
    Lost,
    /// Too many events wait to be sent to the [backplane](crate::HubBuilder::backplane).
    #[error("too many events wait for the backplane")]
    Backlog,
    /// The hub is closed.
    #[error("the hub is closed")]
    Closed,
}

/// Why an audience is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudienceError {
    /// A name in the audience is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The audience has more than [`Audience::MAX_NAMES`](crate::Audience::MAX_NAMES) names, or is
    /// deeper than [`Audience::MAX_DEPTH`](crate::Audience::MAX_DEPTH).
    #[error("too many names, or combined too deeply: publish to a topic instead")]
    Excessive,
}

/// Why a text cannot name a user, a session, a topic or a run. Every other text can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty: usually a value is missing.
    #[error("an empty {0}: a client without a {0} must not set it")]
    Empty(NameKind),
    /// The name is longer than [`Limits::name_len`](crate::Limits::name_len).
    #[error("a {kind} of {len} bytes, more than the {limit} of `Limits::name_len`")]
    TooLong {
        /// The kind of the name.
        kind: NameKind,
        /// The length of the name in bytes.
        len: usize,
        /// The longest name in bytes.
        limit: usize,
    },
}

/// The kinds of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameKind {
    /// A user.
    User,
    /// A session.
    Session,
    /// A topic.
    Topic,
    /// A run.
    Run,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Topic => "topic",
            Self::Run => "run",
        })
    }
}

/// Why [`HubBuilder::build`](crate::HubBuilder::build) failed: a setting contradicts another, or no
/// hub could work with the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is zero. A setting that can be off takes `None`.
    #[error("`{setting}` is zero: set at least 1, or `None` if the setting can be off")]
    Zero {
        /// The setting, such as `Limits::clients`.
        setting: &'static str,
    },
    /// Clients would reconnect in a loop: browsers take a longer delay for zero.
    #[error("`retry` is {retry:?}: set 1 ms to 24 days, or clients would reconnect in a loop")]
    Retry {
        /// The delay of the setting.
        retry: Duration,
    },
    /// No topic can begin with a prefix of `Presence::topics`.
    #[error(
        "a prefix of {len} bytes in `Presence::topics`, more than the {limit} of `Limits::name_len`"
    )]
    TopicPrefix {
        /// The length of the prefix in bytes.
        len: usize,
        /// The longest name in bytes.
        limit: usize,
    },
    /// `Retain::per_topic` has no effect.
    #[error("`Retain::per_topic` is {per_topic}, more than the {events} of `Retain::events`")]
    PerTopic {
        /// The most events of a topic.
        per_topic: usize,
        /// The most events of all topics.
        events: usize,
    },
}
