//! Events, as an application builds them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::frame::{Draft, RETRY_RANGE, Sealed};
use super::traceparent::Traceparent;

/// A message to clients: a type, data, and sometimes a `retry` or a comment.
///
/// Setters take and return the event; a second call of a setter replaces the first value. If a
/// value is invalid, such as a type with a line break, the event remembers the error and every
/// method that takes the event refuses it, before any byte is written. [`check`](Self::check)
/// returns the error at once.
///
/// Events have two uses. A [`Hub`](crate::Hub) publishes an event and issues its id. A standalone
/// [`EventStream`](crate::EventStream) encodes an event for one client, with an [`id`](Self::id) of
/// the caller's choice or none.
///
/// # Data
///
/// Data is text. CRLF, CR and LF each end a line, and the client receives the lines joined by LF;
/// everything else arrives unchanged. Encode binary data as text, for example in Base64.
///
/// ```
/// use sse_hub::Event;
///
/// let plain = Event::default().data("hello");
/// let named = Event::new("alert").data("the lines\nof an alert");
/// assert!(named.check().is_ok());
/// assert!(Event::new("two\nlines").check().is_err());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Event {
    draft: Draft,
    /// Boxed, because few events have these parts and every event is moved several times.
    rare: Option<Box<Rare>>,
    invalid: Option<EventError>,
}

#[derive(Debug, Clone, Default)]
struct Rare {
    retry: Option<Duration>,
    comment: Option<Box<str>>,
    conflation: Option<Box<str>>,
    idempotency: Option<Box<str>>,
    traceparent: Option<Traceparent>,
    own_id: Option<Box<str>>,
}

impl Rare {
    /// Returns whether no part appears on the wire.
    fn is_empty(&self) -> bool {
        self.retry.is_none() && self.comment.is_none() && self.own_id.is_none()
    }

    fn seal(&self, draft: Draft) -> Sealed {
        draft.seal(self.retry, self.comment.as_deref())
    }
}

impl Event {
    /// The longest [`id`](Self::id), in bytes.
    pub const MAX_ID_LEN: usize = 128;

    /// Creates an event of this type, for the page's `addEventListener(event_type, ...)`.
    ///
    /// [`Event::default`] has no type; a page receives it as `message`. Avoid the types `open` and
    /// `error`: a browser dispatches its own events under these names.
    #[must_use]
    #[inline]
    pub fn new(event_type: impl AsRef<str>) -> Self {
        Self::default().event(event_type)
    }

    /// Creates an event from a typed payload: the payload's JSON, under the payload's event type.
    ///
    /// # Errors
    ///
    /// Returns [`JsonError`] if the payload does not serialise.
    ///
    /// ```
    /// use serde::Serialize;
    /// use sse_hub::{Event, EventType, Payload};
    ///
    /// #[derive(Serialize)]
    /// struct Notification {
    ///     title: String,
    /// }
    ///
    /// impl Payload for Notification {
    ///     const TYPE: EventType = EventType::from_static("notification");
    /// }
    ///
    /// let event = Event::from_payload(&Notification { title: "Your report is ready".into() })?;
    /// # Ok::<(), sse_hub::JsonError>(())
    /// ```
    #[cfg(feature = "json")]
    pub fn from_payload<T: Payload>(payload: &T) -> Result<Self, JsonError> {
        Self::new(T::TYPE).json(payload)
    }

    /// Sets the type: a valid [`EventType`].
    #[must_use]
    #[inline]
    pub fn event(mut self, event_type: impl AsRef<str>) -> Self {
        let event_type = event_type.as_ref();
        match check_type(event_type) {
            Ok(()) => self.draft.set_type(event_type),
            Err(error) => self.refuse(EventError::Type(error)),
        }
        self
    }

    /// Sets the data. An event with empty data is delivered like any other.
    #[must_use]
    #[inline]
    pub fn data(mut self, data: impl AsRef<str>) -> Self {
        self.draft.set_data(data.as_ref().as_bytes());
        self
    }

    /// Sets the data to `value` as JSON.
    ///
    /// # Errors
    ///
    /// Returns [`JsonError`] if the value does not serialise, such as a map with keys that are not
    /// text.
    ///
    /// ```
    /// use sse_hub::Event;
    ///
    /// let event = Event::new("point").json(&[3, 4])?;
    /// assert_eq!(event.encode()?, "event: point\ndata: [3,4]\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Result<Self, JsonError> {
        self.draft.set_data_with(|buf| serde_json::to_writer(buf, value))?;
        Ok(self)
    }

    /// Sets the delay of the client before a reconnect, from now on. Must be from 1 ms to 24 days.
    #[must_use]
    pub fn retry(mut self, retry: Duration) -> Self {
        if !RETRY_RANGE.contains(&retry) {
            self.refuse(EventError::Retry);
        }
        self.rare().retry = Some(retry);
        self
    }

    /// Sets a comment of one line. Clients skip comments; they help to debug a stream.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<Box<str>>) -> Self {
        let comment = comment.into();
        if memchr::memchr2(b'\r', b'\n', comment.as_bytes()).is_some() {
            self.refuse(EventError::Comment);
        }
        self.rare().comment = Some(comment);
        self
    }

    /// For a hub: sets the conflation key. The hub retains only the newest event with a key.
    ///
    /// For values that replace each other, such as prices or positions. An event replaces an
    /// earlier event if the key, the audience and the type are equal. A client that keeps up
    /// receives all of them. A client that is behind or reconnects receives the newest only,
    /// without a gap.
    ///
    /// Must have 1 to [`Event::MAX_KEY_LEN`] bytes. The key is not sent. A standalone stream
    /// ignores it.
    ///
    /// ```
    /// use sse_hub::Event;
    ///
    /// let price = Event::new("price").data("42.50").conflate("ACME");
    /// ```
    #[must_use]
    pub fn conflate(mut self, key: impl Into<Box<str>>) -> Self {
        let key = key.into();
        if !(1..=Self::MAX_KEY_LEN).contains(&key.len()) {
            self.refuse(EventError::Key);
        }
        self.rare().conflation = Some(key);
        self
    }

    /// For a hub with a backplane: sets the idempotency key. Of several events with the same key,
    /// only the first is delivered, across instances and restarts, for as long as the backplane
    /// remembers the key.
    ///
    /// Use the key if a publish may be repeated: a webhook that is delivered twice, or a job that
    /// was killed and starts again. A hub without a [backplane](crate::HubBuilder::backplane) and a
    /// standalone stream ignore the key.
    ///
    /// Must have 1 to [`Event::MAX_KEY_LEN`] bytes. The key is not sent.
    ///
    /// ```
    /// use sse_hub::Event;
    ///
    /// let paid = Event::new("paid").data("order 17").idempotency_key("webhook-8c1f");
    /// ```
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<Box<str>>) -> Self {
        let key = key.into();
        if !(1..=Self::MAX_KEY_LEN).contains(&key.len()) {
            self.refuse(EventError::IdempotencyKey);
        }
        self.rare().idempotency = Some(key);
        self
    }

    /// The longest [conflation key](Self::conflate) or [idempotency key](Self::idempotency_key), in
    /// bytes.
    pub const MAX_KEY_LEN: usize = 256;

    /// Takes the conflation key and the idempotency key.
    pub(crate) fn take_keys(&mut self) -> (Option<Box<str>>, Option<Box<str>>) {
        let Some(rare) = &mut self.rare else { return (None, None) };
        (rare.conflation.take(), rare.idempotency.take())
    }

    /// For a hub: sets the trace that the event belongs to, as the text of a `traceparent` of
    /// [W3C Trace Context][w3c]. Clients do not receive the text.
    ///
    /// The text is the field `traceparent` of the [span](crate::design#observability) `publish`,
    /// and with a [backplane](crate::HubBuilder::backplane) of the span `process` on each instance
    /// that hands the event out. So the trace of a request that publishes shows when the other
    /// instances took the event. Pass the context of the current span, as your tracer injects it
    /// into a request: a header that a browser sent may be invalid, and the event is then refused.
    /// A text of a later version than 00 becomes one of version 00.
    ///
    /// An event with a `traceparent` travels between instances in a form of its own. An instance
    /// with a version of this crate from before this method skips the event, and tells its clients
    /// a gap: update all instances before you set a `traceparent`. The text of an event of a
    /// [run](crate::Run) stays on the instance of the producer. A standalone stream ignores the
    /// text.
    ///
    /// ```
    /// use sse_hub::{Event, EventError};
    ///
    /// let current = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let event = Event::new("paid").data("order 17").traceparent(current);
    /// assert_eq!(event.encode()?, "event: paid\ndata: order 17\n\n");
    /// assert_eq!(Event::new("paid").traceparent("no").check(), Err(EventError::Traceparent));
    /// # Ok::<(), sse_hub::EventError>(())
    /// ```
    ///
    /// [w3c]: https://www.w3.org/TR/2021/REC-trace-context-1-20211123/#traceparent-header
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl AsRef<str>) -> Self {
        match Traceparent::parse(traceparent.as_ref()) {
            Some(traceparent) => self.rare().traceparent = Some(traceparent),
            None => self.refuse(EventError::Traceparent),
        }
        self
    }

    /// Returns the trace that the event belongs to.
    pub(crate) fn trace(&self) -> Option<Traceparent> {
        self.rare.as_ref()?.traceparent
    }

    /// For a standalone [`EventStream`](crate::EventStream): sets the id, which the client sends as
    /// `Last-Event-ID` when reconnecting. A hub issues the ids and refuses an event with an id.
    ///
    /// Must have 1 to [`Event::MAX_ID_LEN`] bytes, each an ASCII letter or digit or one of `.`,
    /// `_`, `~` and `-`: some clients cannot send other characters and would never connect again.
    /// An event with only an id moves the client's position and is not dispatched to the page.
    ///
    /// ```
    /// use sse_hub::Event;
    ///
    /// let event = Event::new("token").data("a").id("answer-7.1");
    /// assert_eq!(event.encode()?, "event: token\ndata: a\nid: answer-7.1\n\n");
    /// assert!(Event::new("token").id("two words").check().is_err());
    /// # Ok::<(), sse_hub::EventError>(())
    /// ```
    #[must_use]
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        let id = id.as_ref();
        if is_id(id.as_bytes()) {
            self.rare().own_id = Some(id.into());
        } else {
            self.refuse(EventError::Id);
        }
        self
    }

    /// Returns whether the event can be sent. A hub also refuses an event with an [`id`](Self::id).
    ///
    /// # Errors
    ///
    /// Returns the error of the first invalid part, or [`EventError::Empty`].
    #[inline]
    pub fn check(&self) -> Result<(), EventError> {
        match self.invalid {
            Some(error) => Err(error),
            None if self.is_empty() => Err(EventError::Empty),
            None => Ok(()),
        }
    }

    /// Checks the event for a hub.
    #[inline]
    pub(crate) fn check_for_hub(&self) -> Result<(), EventError> {
        self.check()?;
        if self.own_id().is_some() { Err(EventError::OwnId) } else { Ok(()) }
    }

    /// Returns the event's bytes on the wire. [`EventStream`](crate::EventStream) encodes a whole
    /// stream.
    ///
    /// # Errors
    ///
    /// Returns the error of [`check`](Self::check).
    ///
    /// ```
    /// use sse_hub::Event;
    ///
    /// let event = Event::new("token").data("a\r\nb");
    /// assert_eq!(event.encode()?, "event: token\ndata: a\ndata: b\n\n");
    /// # Ok::<(), sse_hub::EventError>(())
    /// ```
    #[inline]
    pub fn encode(self) -> Result<Bytes, EventError> {
        self.check()?;
        Ok(match self.rare {
            None => self.draft.seal(None, None).finish_without_id(),
            Some(rare) => rare.seal(self.draft).finish_with(rare.own_id.as_deref()),
        })
    }

    /// Encodes the event without its id. The event must have been [checked](Self::check).
    #[inline]
    pub(crate) fn seal(self) -> Sealed {
        match self.rare {
            None => self.draft.seal(None, None),
            Some(rare) => rare.seal(self.draft),
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn own_id(&self) -> Option<&str> {
        self.rare.as_ref()?.own_id.as_deref()
    }

    fn is_empty(&self) -> bool {
        self.draft.is_empty() && self.rare.as_ref().is_none_or(|rare| rare.is_empty())
    }

    fn refuse(&mut self, error: EventError) {
        self.invalid.get_or_insert(error);
    }
}

/// A type that is sent as JSON under its own event type.
///
/// [`Event::from_payload`] has an example.
#[cfg(feature = "json")]
pub trait Payload: serde::Serialize {
    /// The event type that a page listens for. [`EventType::from_static`] checks the name when the
    /// program is compiled.
    const TYPE: EventType;
}

/// A valid event type.
///
/// An event type has 1 to [`EventType::MAX_LEN`] bytes, contains no CR, LF or NUL, and does not
/// begin with `hub:`, the prefix of the hub's own events.
///
/// No character has a special meaning: `*` is a type like any other, for a hub, for a filter of
/// [`Subscriber`](crate::Subscriber) and for a native `EventSource`. In the browser client of this
/// project, a listener for `*` receives every event, and an event of the type `*` once.
///
/// ```
/// use sse_hub::EventType;
///
/// const ALERT: EventType = EventType::from_static("alert");
/// assert_eq!(ALERT.as_str(), "alert");
/// assert!(EventType::new("hub:open").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(Cow<'static, str>);

impl EventType {
    /// The longest type, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Checks a name at run time.
    ///
    /// # Errors
    ///
    /// Returns the rule that the name breaks.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidEventType> {
        let name = name.into();
        check_type(&name)?;
        Ok(Self(name))
    }

    /// Checks a literal name. In a `const`, an invalid name does not compile.
    ///
    /// # Panics
    ///
    /// Panics if the name is invalid and the call is not evaluated at compile time.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        match check_type(name) {
            Ok(()) => Self(Cow::Borrowed(name)),
            Err(InvalidEventType::Empty) => panic!("the event type is empty"),
            Err(InvalidEventType::TooLong) => panic!("the event type is too long"),
            Err(InvalidEventType::Reserved) => {
                panic!("event types beginning `hub:` are the hub's own")
            }
            Err(InvalidEventType::Byte) => panic!("the event type contains CR, LF or NUL"),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for EventType {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const fn check_type(name: &str) -> Result<(), InvalidEventType> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Err(InvalidEventType::Empty);
    }
    if bytes.len() > EventType::MAX_LEN {
        return Err(InvalidEventType::TooLong);
    }
    if matches!(bytes, [b'h', b'u', b'b', b':', ..]) {
        return Err(InvalidEventType::Reserved);
    }
    // No early exit, so that the compiler vectorises the loop.
    let (mut at, mut broken) = (0, false);
    while at < bytes.len() {
        broken |= bytes[at] == b'\r' || bytes[at] == b'\n' || bytes[at] == 0;
        at += 1;
    }
    if broken { Err(InvalidEventType::Byte) } else { Ok(()) }
}

fn is_id(id: &[u8]) -> bool {
    let is_safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~-".contains(byte);
    (1..=Event::MAX_ID_LEN).contains(&id.len()) && id.iter().all(is_safe)
}

/// A name is not an [`EventType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEventType {
    /// The name is empty.
    #[error("the event type is empty: leave it out to send a plain `message`")]
    Empty,
    /// The name is longer than [`EventType::MAX_LEN`].
    #[error("the event type is longer than {} bytes", EventType::MAX_LEN)]
    TooLong,
    /// The name begins with `hub:`.
    #[error("event types beginning `hub:` are the hub's own")]
    Reserved,
    /// The name contains CR, LF or NUL.
    #[error("the event type contains CR, LF or NUL, which would end or break its line")]
    Byte,
}

/// An [`Event`] cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The type is invalid.
    #[error(transparent)]
    Type(#[from] InvalidEventType),
    /// The comment has more than one line.
    #[error("the comment contains CR or LF: send one line")]
    Comment,
    /// The `retry` is below 1 ms or above 24 days.
    #[error("retry is below one millisecond or above 24 days: clients would reconnect in a loop")]
    Retry,
    /// The conflation key is empty or too long.
    #[error("the conflation key is empty or longer than {} bytes", Event::MAX_KEY_LEN)]
    Key,
    /// The idempotency key is empty or too long.
    #[error("the idempotency key is empty or longer than {} bytes", Event::MAX_KEY_LEN)]
    IdempotencyKey,
    /// The `traceparent` is not a text of W3C Trace Context.
    #[error("invalid traceparent: expected `00-(trace id)-(parent id)-(flags)` in hexadecimal")]
    Traceparent,
    /// The id has bytes that some clients cannot send back, or it is empty or too long.
    #[error("invalid id: expected 1 to {} bytes of `[A-Za-z0-9._~-]`", Event::MAX_ID_LEN)]
    Id,
    /// The event was given to a hub and has an id.
    #[error("the event has an id: a hub issues ids itself")]
    OwnId,
    /// The event belongs to a snapshot of a stream that has begun.
    #[error("the stream has begun: add the snapshot before the first poll")]
    Late,
    /// The event belongs to a snapshot of a stream that
    /// [begins with the last events](crate::Subscriber::replay_last) or with [runs](crate::Run).
    #[error(
        "the stream begins with the last events: use `replay_last`, `latest`, `run` or a snapshot, not two"
    )]
    Replay,
    /// No part was set.
    #[error("the event is empty: set a type, data, a retry or a comment")]
    Empty,
}

/// A payload does not serialise to JSON.
#[cfg(feature = "json")]
#[derive(Debug, thiserror::Error)]
#[error("the payload does not serialise to JSON")]
pub struct JsonError(#[from] serde_json::Error);
