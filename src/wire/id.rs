//! Event ids, and the `Last-Event-ID` of a request.

use std::fmt;
use std::str::FromStr;

/// The position of an event in the order of a hub, written `epoch-seq`.
///
/// A hub issues strictly increasing ids and writes the id as the last field of every event. A
/// browser sends the last id that it received back as `Last-Event-ID`. In a hub without a
/// backplane, the epoch stands for the start of the hub and `seq` counts its events. So an id that
/// an earlier process of a service issued is older than every id of the current process.
///
/// **Ids reveal volume**: two ids tell how many events the hub published between them. See
/// [`guide::ids`](crate::guide::ids).
///
/// ```
/// use sse_hub::EventId;
///
/// let id: EventId = "1763-12".parse()?;
/// assert_eq!(id, EventId::new(1763, 12));
/// assert_eq!(id.to_string(), "1763-12");
/// assert!(id < EventId::new(1763, 13));
/// # Ok::<(), sse_hub::ParseEventIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    // The derived order compares the fields in this sequence.
    epoch: u64,
    seq: u64,
}

impl EventId {
    /// The position before every event of every hub. A client with the id of another hub starts
    /// here, and is still answered with a gap if it reconnects from here.
    pub(crate) const ORIGIN: Self = Self::new(0, 0);

    /// The position after every event of every hub.
    pub(crate) const LAST: Self = Self::new(u64::MAX, u64::MAX);

    /// The longest text of an id, in bytes: two numbers of twenty digits and the `-`.
    pub(crate) const MAX_LEN: usize = 41;

    /// Creates an id. Only engines of a [backplane](crate::backplane) and tests need this: a hub
    /// issues the ids of its events.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// Returns the first number: the epoch of a hub, or the first number that the backplane issued.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// Returns the second number: the position within the epoch.
    #[must_use]
    pub const fn seq(self) -> u64 {
        self.seq
    }

    /// Returns the greatest id before this one. `0-0` has none and returns itself.
    ///
    /// ```
    /// use sse_hub::EventId;
    ///
    /// assert_eq!(EventId::new(5, 2).predecessor(), EventId::new(5, 1));
    /// assert_eq!(EventId::new(5, 0).predecessor(), EventId::new(4, u64::MAX));
    /// ```
    #[must_use]
    pub const fn predecessor(self) -> Self {
        match self {
            Self { epoch: 0, seq: 0 } => self,
            Self { epoch, seq: 0 } => Self::new(epoch - 1, u64::MAX),
            Self { epoch, seq } => Self::new(epoch, seq - 1),
        }
    }

    /// Returns the smallest id after this id; for [`LAST`](Self::LAST), the same id.
    pub(crate) const fn successor(self) -> Self {
        match self {
            Self { epoch: u64::MAX, seq: u64::MAX } => self,
            Self { epoch, seq: u64::MAX } => Self::new(epoch + 1, 0),
            Self { epoch, seq } => Self::new(epoch, seq + 1),
        }
    }

    /// Reads an id from any bytes, such as a header value.
    ///
    /// The only valid form is the form that a hub writes: two decimal numbers below 2^64, without
    /// signs and leading zeros, joined by `-`.
    ///
    /// # Errors
    ///
    /// Returns [`ParseEventIdError`] for all other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseEventIdError> {
        let dash = memchr::memchr(b'-', bytes).ok_or(ParseEventIdError(()))?;
        Ok(Self::new(number(&bytes[..dash])?, number(&bytes[dash + 1..])?))
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
        write!(f, "{}-{}", self.epoch, self.seq)
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

/// Serializes the text of the id. Feature `json`.
#[cfg(feature = "json")]
impl serde::Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the text of an id. Feature `json`.
#[cfg(feature = "json")]
impl<'de> serde::Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::text::deserialize(deserializer, "an event id, such as \"1763-12\"")
    }
}

/// A text is not an [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid event id: expected two decimal numbers joined by `-`, such as 1763-12")]
pub struct ParseEventIdError(());

/// The `Last-Event-ID` of a request: the position of a client that reconnects.
///
/// A request is one of three:
///
/// | request | [`is_first_connection`](Self::is_first_connection) | [`id`](Self::id) |
/// |---|---|---|
/// | without an id | `true` | `None` |
/// | with an id in the form that a hub writes | `false` | the id |
/// | with any other value | `false` | `None` |
///
/// An unreadable value is not an error: an error response would stop a browser's `EventSource` for
/// good. The client gets a gap and continues from now.
///
/// ```
/// use sse_hub::{EventId, LastEventId};
///
/// let last = LastEventId::from_bytes(b"1763-12");
/// assert_eq!(last.id(), Some(EventId::new(1763, 12)));
///
/// assert!(LastEventId::from_bytes(b"").is_first_connection());
/// assert!(!LastEventId::from_bytes(b"\xff\xfe").is_first_connection());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastEventId(pub(crate) Resume);

/// The query parameters of clients that cannot set a header, in the forms that such clients use.
const QUERY_NAMES: [&str; 3] = ["lastEventId", "last_event_id", "last-event-id"];

/// The content of a [`LastEventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Resume {
    /// A first connection, without an id.
    #[default]
    Fresh,
    /// The client has everything up to this id.
    After(EventId),
    /// The client sent a value that no hub wrote.
    Unknown,
}

impl LastEventId {
    /// A first connection.
    #[must_use]
    pub const fn none() -> Self {
        Self(Resume::Fresh)
    }

    /// Reads the value of a header or a query parameter. An empty value is a first connection.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Self {
        if value.is_empty() {
            return Self::none();
        }
        Self(EventId::from_bytes(value).map_or(Resume::Unknown, Resume::After))
    }

    /// Reads the id from a request of any framework: from the value of the `Last-Event-ID` header,
    /// or else from the query parameter `lastEventId`, `last_event_id` or `last-event-id`, for
    /// clients that cannot set headers.
    ///
    /// ```
    /// use sse_hub::{EventId, LastEventId};
    ///
    /// let last = LastEventId::from_parts(None, "topic=orders&lastEventId=1763-12");
    /// assert_eq!(last.id(), Some(EventId::new(1763, 12)));
    /// // The header wins: a browser that reconnects repeats the query and adds the header.
    /// let last = LastEventId::from_parts(Some(b"1763-15"), "lastEventId=1763-12");
    /// assert_eq!(last.id(), Some(EventId::new(1763, 15)));
    /// ```
    #[must_use]
    pub fn from_parts(header: Option<&[u8]>, query: &str) -> Self {
        let from_header = Self::from_bytes(header.unwrap_or_default());
        if !from_header.is_first_connection() {
            return from_header;
        }
        // No decoding: a query encodes none of the characters of an id.
        let parameters = query.split('&');
        let mut named = parameters.filter_map(|parameter| parameter.split_once('='));
        let found = named.find(|(name, value)| QUERY_NAMES.contains(name) && !value.is_empty());
        found.map_or_else(Self::none, |(_, value)| Self::from_bytes(value.as_bytes()))
    }

    /// Reads the header of a request, or else its query: see [`from_parts`](Self::from_parts).
    ///
    /// ```
    /// use http::{HeaderMap, Uri};
    /// use sse_hub::{EventId, LastEventId};
    ///
    /// let uri = Uri::from_static("/events?lastEventId=1763-12");
    /// let last = LastEventId::from_request(&HeaderMap::new(), &uri);
    /// assert_eq!(last.id(), Some(EventId::new(1763, 12)));
    /// ```
    #[cfg(feature = "http")]
    #[must_use]
    pub fn from_request(headers: &http::HeaderMap, uri: &http::Uri) -> Self {
        Self::from_headers(headers, uri.query().unwrap_or_default())
    }

    #[cfg(feature = "http")]
    pub(crate) fn from_headers(headers: &http::HeaderMap, query: &str) -> Self {
        let header = headers.get("last-event-id").map(http::HeaderValue::as_bytes);
        Self::from_parts(header, query)
    }

    /// Returns whether the client sent no position at all.
    #[must_use]
    pub const fn is_first_connection(self) -> bool {
        matches!(self.0, Resume::Fresh)
    }

    /// Returns the id, if the client sent one in the form that a hub writes.
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
