use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::log::key::ClientId;
use crate::wire::id::{LastEventId, Resume};

/// Who connects: what the application knows of a client when it lets it in.
///
/// All of it is the application's word. A hub authenticates nobody: put here what the handler has verified.
///
/// ```
/// use sse_hub::{EventId, Subscriber};
///
/// let somebody = Subscriber::new();
/// let tab = Subscriber::new()
///     .user("42")
///     .session("s9")
///     .topic("orders")
///     .events(["order", "alert"])
///     .resume(EventId::new(1763, 12));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Subscriber {
    pub(crate) user: Option<Arc<str>>,
    pub(crate) session: Option<Arc<str>>,
    /// A set, so that a request with many topics, repeated or not, costs linear time.
    pub(crate) topics: BTreeSet<Arc<str>>,
    /// The event types, without duplicates; every type if `None`.
    pub(crate) types: Option<BTreeSet<Box<str>>>,
    pub(crate) resume: Resume,
    pub(crate) client: Option<ClientId>,
    pub(crate) last: usize,
    pub(crate) until: Option<Instant>,
}

impl Subscriber {
    /// A client without user, session and topics: it gets what is for everybody, and what is for it alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whose client it is. All tabs and devices of one person share a user.
    #[must_use]
    pub fn user(mut self, user: impl Into<Arc<str>>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Which session it belongs to, such as that of a login cookie.
    #[must_use]
    pub fn session(mut self, session: impl Into<Arc<str>>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// Adds a topic. Twice the same is once.
    #[must_use]
    pub fn topic(self, topic: impl Into<Arc<str>>) -> Self {
        self.topics([topic])
    }

    /// Adds topics.
    #[must_use]
    pub fn topics<T: Into<Arc<str>>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Only events of these types; `message` stands for those without one.
    ///
    /// The hub's own events (`hub:open`, `hub:gap` ...) always come. Without this call, so do all others; with an
    /// empty list, none. Events that the filter leaves out are neither sent nor counted as missed.
    #[must_use]
    pub fn events<T: Into<Box<str>>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Goes on where the client stopped: a [`LastEventId`], or an [`EventId`](crate::EventId).
    #[must_use]
    pub fn resume(mut self, last: impl Into<LastEventId>) -> Self {
        self.resume = last.into().0;
        self
    }

    /// The id that the client had before, as `hub:open` told it. It keeps it if it was here lately as the same user in
    /// the same session, and if nobody uses it: what was sent to it alone meanwhile is replayed too. Otherwise it gets a
    /// new one.
    ///
    /// A hub remembers as many of the clients that left last as it retains events, and 1024 at least.
    #[must_use]
    pub fn client(mut self, client: ClientId) -> Self {
        self.client = Some(client);
        self
    }

    /// On a first connection, begins with the last `events` that it would have got.
    #[must_use]
    pub fn last(mut self, events: usize) -> Self {
        self.last = events;
        self
    }

    /// Ends the stream at this time, by the hub's timer: when the token it was opened with expires.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.until = Some(deadline);
        self
    }
}
