use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::frame::{Draft, RETRY_RANGE, Sealed};

/// What an application sends: a type, data, and now and then a `retry` or a comment.
///
/// Setters take and return the event, and a later call of one replaces what an earlier one set. An invalid part
/// (a line break in the type, say) is remembered and refused by whatever the event is given to, before a byte of it
/// is written; [`check`](Self::check) asks at once.
///
/// What a hub publishes gets its id from the hub. An event of [one's own stream](crate::EventStream) may be given
/// one: [`id`](Self::id).
///
/// # Data
///
/// Data is text. CRLF, CR and LF in it each end a line, and a client gets the lines back joined by LF; nothing
/// else is changed. Binary data wants an encoding of its own, such as Base64.
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
    /// Apart, because hardly an event has any of it and all are moved about.
    rare: Option<Box<Rare>>,
    invalid: Option<EventError>,
}

#[derive(Debug, Clone, Default)]
struct Rare {
    retry: Option<Duration>,
    comment: Option<Box<str>>,
    conflation: Option<Box<str>>,
    idempotency: Option<Box<str>>,
    own_id: Option<Box<str>>,
}

impl Rare {
    /// Whether nothing of it is sent.
    fn is_empty(&self) -> bool {
        self.retry.is_none() && self.comment.is_none() && self.own_id.is_none()
    }

    fn seal(&self, draft: Draft) -> Sealed {
        draft.seal(self.retry, self.comment.as_deref())
    }
}

impl Event {
    /// The longest id that a caller may set, in bytes.
    pub const MAX_ID_LEN: usize = 128;

    /// An event of this type, which a page receives by `addEventListener(event_type, ...)`.
    ///
    /// [`Event::default`] is one without a type, which a page receives as `message`. Two names to avoid are `open`
    /// and `error`: a browser dispatches events of its own under them.
    #[must_use]
    #[inline]
    pub fn new(event_type: impl AsRef<str>) -> Self {
        Self::default().event(event_type)
    }

    /// A typed payload as JSON, under the type that it declares.
    ///
    /// # Errors
    ///
    /// [`JsonError`] when the payload does not serialise.
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
    /// let event = Event::of(&Notification { title: "Your report is ready".into() })?;
    /// # Ok::<(), sse_hub::JsonError>(())
    /// ```
    #[cfg(feature = "json")]
    pub fn of<T: Payload>(payload: &T) -> Result<Self, JsonError> {
        Self::new(T::TYPE).json(payload)
    }

    /// Sets the type. See [`EventType`] for what one may be.
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

    /// Sets the data. Empty data is an event all the same.
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
    /// [`JsonError`] when the value does not serialise (a map whose keys are not text, for example).
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Result<Self, JsonError> {
        self.draft.set_data_with(|buf| serde_json::to_writer(buf, value))?;
        Ok(self)
    }

    /// Tells the client how long to wait before it reconnects, from now on: from a millisecond to 24 days.
    #[must_use]
    pub fn retry(mut self, retry: Duration) -> Self {
        if !RETRY_RANGE.contains(&retry) {
            self.refuse(EventError::Retry);
        }
        self.rare().retry = Some(retry);
        self
    }

    /// Sets a comment: one line that clients skip and people who watch the stream see.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<Box<str>>) -> Self {
        let comment = comment.into();
        if memchr::memchr2(b'\r', b'\n', comment.as_bytes()).is_some() {
            self.refuse(EventError::Comment);
        }
        self.rare().comment = Some(comment);
        self
    }

    /// Makes it the latest value of something: a hub keeps only the newest event of each key.
    ///
    /// For values that replace each other, such as prices or positions. Events have the same key if their audience and
    /// their type are the same, too. A client that reads at once gets all of them, one that is behind or comes back only
    /// the newest, and what was replaced is not missed. From 1 to [`Event::MAX_KEY_LEN`] bytes; it is not sent.
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

    /// Makes it land once, however often it is published with this key: across instances and restarts, for as long as
    /// the backplane is set to remember.
    ///
    /// For what is published again because nobody knows whether it was the first time: a webhook that is delivered
    /// twice, a job that was killed and starts over. Without a [backplane](crate::HubBuilder::backplane) nothing is
    /// remembered and the key means nothing. From 1 to [`Event::MAX_KEY_LEN`] bytes; it is not sent.
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

    /// The longest [conflation key](Self::conflate) or [idempotency key](Self::idempotency_key), in bytes.
    pub const MAX_KEY_LEN: usize = 256;

    /// The key of its conflation, and that of its idempotency.
    pub(crate) fn take_keys(&mut self) -> (Option<Box<str>>, Option<Box<str>>) {
        let Some(rare) = &mut self.rare else { return (None, None) };
        (rare.conflation.take(), rare.idempotency.take())
    }

    /// Sets the id of an event of one's own stream, which a client that comes back sends as `Last-Event-ID`. A hub
    /// issues ids itself and refuses an event that has one.
    ///
    /// From 1 to [`Event::MAX_ID_LEN`] bytes, each a letter or digit of ASCII or one of `.`, `_`, `~` and `-`: with
    /// others some clients could never connect again. An event with an id alone moves a client's position, and no page
    /// sees it.
    ///
    /// ```
    /// use sse_hub::Event;
    ///
    /// assert_eq!(Event::new("token").data("a").id("answer-7.1").encode()?, "event: token\ndata: a\nid: answer-7.1\n\n");
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

    /// Whether the event can be sent. A hub refuses one that has an [`id`](Self::id), too.
    ///
    /// # Errors
    ///
    /// The first part that was refused, or that there is nothing in the event at all.
    #[inline]
    pub fn check(&self) -> Result<(), EventError> {
        match self.invalid {
            Some(error) => Err(error),
            None if self.is_empty() => Err(EventError::Empty),
            None => Ok(()),
        }
    }

    /// As [`check`](Self::check), for a hub.
    #[inline]
    pub(crate) fn check_for_hub(&self) -> Result<(), EventError> {
        self.check()?;
        if self.own_id().is_some() { Err(EventError::OwnId) } else { Ok(()) }
    }

    /// The event's bytes on the wire. [`EventStream`](crate::EventStream) makes a whole stream of them.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check).
    ///
    /// ```
    /// use sse_hub::Event;
    ///
    /// assert_eq!(Event::new("token").data("a\r\nb").encode()?, "event: token\ndata: a\ndata: b\n\n");
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

    /// The event, which was [checked](Self::check), as a frame that lacks its id.
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

/// A type that is sent as JSON under an event type of its own.
#[cfg(feature = "json")]
pub trait Payload: serde::Serialize {
    /// The event type that a page listens for. [`EventType::from_static`] checks it when the program is compiled.
    const TYPE: EventType;
}

/// The name of a kind of event, known to be valid.
///
/// From 1 to [`EventType::MAX_LEN`] bytes, without CR, LF and NUL, and not beginning with `hub:`, which names the
/// hub's own events.
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

    /// Checks a name that is known only when the program runs.
    ///
    /// # Errors
    ///
    /// [`InvalidEventType`] says which rule it breaks.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidEventType> {
        let name = name.into();
        check_type(&name)?;
        Ok(Self(name))
    }

    /// Checks a name that stands in the program: in a `const` an invalid one does not compile.
    ///
    /// # Panics
    ///
    /// When it is invalid and not evaluated at compile time.
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
    // Without a way out of the loop, which therefore becomes a few vector instructions.
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

/// Why a name is not an [`EventType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEventType {
    /// It is empty.
    #[error("the event type is empty: leave it out to send a plain `message`")]
    Empty,
    /// It is longer than [`EventType::MAX_LEN`].
    #[error("the event type is longer than {} bytes", EventType::MAX_LEN)]
    TooLong,
    /// It begins with `hub:`.
    #[error("event types beginning `hub:` are the hub's own")]
    Reserved,
    /// It contains CR, LF or NUL.
    #[error("the event type contains CR, LF or NUL, which would end or break its line")]
    Byte,
}

/// Why an [`Event`] cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// Its type is not one.
    #[error(transparent)]
    Type(#[from] InvalidEventType),
    /// Its comment has more than one line.
    #[error("the comment contains CR or LF: send one line")]
    Comment,
    /// Its `retry` is below one millisecond or above 24 days.
    #[error("retry is below one millisecond or above 24 days: clients would reconnect in a loop")]
    Retry,
    /// Its conflation key is empty or too long.
    #[error("the conflation key is empty or longer than {} bytes", Event::MAX_KEY_LEN)]
    Key,
    /// Its idempotency key is empty or too long.
    #[error("the idempotency key is empty or longer than {} bytes", Event::MAX_KEY_LEN)]
    IdempotencyKey,
    /// Its id is not one that every client can send back.
    #[error("the id is not 1 to {} bytes of `[A-Za-z0-9._~-]`", Event::MAX_ID_LEN)]
    Id,
    /// It was given to a hub and has an id of its own.
    #[error("the event has an id of its own: a hub issues ids itself")]
    OwnId,
    /// Nothing was set.
    #[error("the event is empty: set a type, data, a retry or a comment")]
    Empty,
}

/// A payload did not serialise to JSON.
#[cfg(feature = "json")]
#[derive(Debug, thiserror::Error)]
#[error("the payload does not serialise to JSON")]
pub struct JsonError(#[from] serde_json::Error);
