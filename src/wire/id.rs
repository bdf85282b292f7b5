use std::fmt;
use std::str::FromStr;

/// The position of an event in the order of a hub, written `a-b`.
///
/// A hub issues ids in strictly increasing order and writes each as the last field of its event. A
/// browser sends the last id that it received as `Last-Event-ID`. In a hub without a backplane, `a`
/// is the epoch of the hub (the time of its start, in milliseconds since 1970) and `b` counts the
/// published events, so an id from an earlier run of the hub is older than all retained events.
///
/// **Ids reveal volume.** Every client sees ids from its `hub:open` on, and two ids tell how many
/// events the hub published between them, including events for other clients. The epoch tells when
/// the hub started. If these numbers must stay secret, use a hub for each tenant.
///
/// ```
/// use sse_hub::EventId;
///
/// let id: EventId = "1763-12".parse()?;
/// assert_eq!(id, EventId(1763, 12));
/// assert_eq!(id.to_string(), "1763-12");
/// assert!(id < EventId(1763, 13));
/// # Ok::<(), sse_hub::ParseEventIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId(pub u64, pub u64);

impl EventId {
    /// Before every event of every hub, and so the position of nobody. A stream opens with it when the client came
    /// with an id of another hub, and whoever comes back with it is told what such a client is told.
    pub(crate) const ORIGIN: Self = Self(0, 0);

    /// After every event of every hub.
    pub(crate) const LAST: Self = Self(u64::MAX, u64::MAX);

    /// Room that the longest id takes: two times twenty digits and the `-`.
    pub(crate) const MAX_LEN: usize = 41;

    /// The position right before this one.
    pub(crate) fn before(self) -> Self {
        match self {
            Self(0, 0) => Self::ORIGIN,
            Self(a, 0) => Self(a - 1, u64::MAX),
            Self(a, b) => Self(a, b - 1),
        }
    }

    /// Reads an id from what a client sent, which may be any bytes.
    ///
    /// Only the form that a hub writes is an id: two decimal numbers below 2^64 without sign or leading zeros,
    /// joined by `-`.
    ///
    /// # Errors
    ///
    /// [`ParseEventIdError`] for everything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseEventIdError> {
        let dash = memchr::memchr(b'-', bytes).ok_or(ParseEventIdError(()))?;
        Ok(Self(number(&bytes[..dash])?, number(&bytes[dash + 1..])?))
    }
}

fn number(digits: &[u8]) -> Result<u64, ParseEventIdError> {
    let canonical = match digits {
        [] | [b'0', _, ..] => false,
        all => all.len() <= 20 && all.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return Err(ParseEventIdError(()));
    }
    digits
        .iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(ParseEventIdError(()))
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_bytes(text.as_bytes())
    }
}

/// What was read is not an [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id: expected two decimal numbers joined by `-`, such as 1763-12")]
pub struct ParseEventIdError(());

/// Where a connecting client says that it stopped: the `Last-Event-ID` of its request.
///
/// Anything may arrive in that header. What is not an id that a hub writes is kept as *unknown*: the client is
/// told of a gap and goes on from now, it never sees an error page (which would stop a browser's `EventSource` for
/// good).
///
/// ```
/// use sse_hub::{EventId, LastEventId};
///
/// assert_eq!(LastEventId::from_bytes(b"1763-12"), LastEventId::from(EventId(1763, 12)));
/// assert_eq!(LastEventId::from_bytes(b""), LastEventId::none());
/// assert!(LastEventId::from_bytes(b"\xff\xfe").is_some());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastEventId(pub(crate) Resume);

/// What clients that cannot set a header call it in the query.
const QUERY_NAMES: [&str; 3] = ["lastEventId", "last_event_id", "last-event-id"];

/// What a [`LastEventId`] says, for the log to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Resume {
    /// A first connection.
    #[default]
    Fresh,
    /// After this event.
    After(EventId),
    /// After something that no hub wrote.
    Unknown,
}

impl LastEventId {
    /// A first connection, which goes on from nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(Resume::Fresh)
    }

    /// Reads the value of the header or query parameter; an empty one says nothing.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Self {
        if value.is_empty() {
            return Self::none();
        }
        Self(EventId::from_bytes(value).map_or(Resume::Unknown, Resume::After))
    }

    /// Reads it from a request of any framework: from the value of its `Last-Event-ID` header, or else from the parameter
    /// `lastEventId`, `last_event_id` or `last-event-id` of its query, which clients that cannot set headers use.
    ///
    /// ```
    /// use sse_hub::{EventId, LastEventId};
    ///
    /// let last = LastEventId::from_parts(None, "topic=orders&lastEventId=1763-12");
    /// assert_eq!(last.id(), Some(EventId(1763, 12)));
    /// // The header is the newer: a browser sends it when it reconnects to the same address.
    /// let last = LastEventId::from_parts(Some(b"1763-15"), "lastEventId=1763-12");
    /// assert_eq!(last.id(), Some(EventId(1763, 15)));
    /// ```
    #[must_use]
    pub fn from_parts(header: Option<&[u8]>, query: &str) -> Self {
        let from_header = Self::from_bytes(header.unwrap_or_default());
        if from_header.is_some() {
            return from_header;
        }
        // An id has no character that a query would encode, so what is encoded is no id.
        let parameters = query.split('&');
        let mut named = parameters.filter_map(|parameter| parameter.split_once('='));
        let said = named.find(|(name, value)| QUERY_NAMES.contains(name) && !value.is_empty());
        said.map_or_else(Self::none, |(_, value)| Self::from_bytes(value.as_bytes()))
    }

    /// Whether the client said where it stopped, understood or not.
    #[must_use]
    pub const fn is_some(self) -> bool {
        !matches!(self.0, Resume::Fresh)
    }

    /// The id, if the client sent one that a hub could have written.
    #[must_use]
    pub const fn id(self) -> Option<EventId> {
        match self.0 {
            Resume::After(id) => Some(id),
            Resume::Fresh | Resume::Unknown => None,
        }
    }
}

impl From<EventId> for LastEventId {
    fn from(id: EventId) -> Self {
        Self(Resume::After(id))
    }
}

impl From<Option<Self>> for LastEventId {
    fn from(last: Option<Self>) -> Self {
        last.unwrap_or_default()
    }
}

impl From<&str> for LastEventId {
    fn from(value: &str) -> Self {
        Self::from_bytes(value.as_bytes())
    }
}
