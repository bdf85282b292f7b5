use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::core::settings::Limits;
use crate::error::RefusedCause;
use crate::log::hash::KeyHasher;
use crate::log::identity::{Filter, Membership};
use crate::log::key::{ClientId, Key};
use crate::log::name::Name;
use crate::log::profile::Owner;
use crate::wire::frame;
use crate::wire::id::{LastEventId, Resume};

/// A client that connects, as the application describes it to
/// [`Hub::subscribe`](crate::Hub::subscribe).
///
/// A hub authenticates nobody: put here only what the handler has verified.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{LastEventId, Subscriber};
///
/// let anonymous = Subscriber::new();
/// let tab = Subscriber::new()
///     .user("42")
///     .session("s9")
///     .topic("orders")
///     .event_types(["order", "alert"])
///     .expires_in(Duration::from_secs(3600))
///     .resume(LastEventId::from("1763-12"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Subscriber {
    pub(super) user: Option<Arc<str>>,
    pub(super) session: Option<Arc<str>>,
    /// A set: a request with many topics, repeated or not, costs little.
    topics: BTreeSet<Arc<str>>,
    pub(super) run_names: BTreeSet<Arc<str>>,
    ends_with_runs: Option<bool>,
    /// The selected event types; `None` for all types.
    pub(super) types: Option<BTreeSet<Box<str>>>,
    pub(super) resume: Resume,
    pub(super) client_id: Option<ClientId>,
    pub(super) replay_last: usize,
    pub(super) latest: bool,
    /// The period of [`at_most_every`](Self::at_most_every).
    pub(super) period: Option<Duration>,
    until: Option<Instant>,
    expires_in: Option<Duration>,
}

impl Subscriber {
    /// Creates a client without user, session and topics. It receives the events for all clients,
    /// and those for its own client id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the user. All tabs and devices of one person share a user.
    #[must_use]
    pub fn user(mut self, user: impl Into<Name>) -> Self {
        self.user = Some(user.into().into_inner());
        self
    }

    /// Sets the session, such as that of a login cookie.
    #[must_use]
    pub fn session(mut self, session: impl Into<Name>) -> Self {
        self.session = Some(session.into().into_inner());
        self
    }

    /// Adds a topic. A topic that is added twice counts once.
    #[must_use]
    pub fn topic(self, topic: impl Into<Name>) -> Self {
        self.topics([topic])
    }

    /// Adds topics.
    #[must_use]
    pub fn topics<T: Into<Name>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(|topic| topic.into().into_inner()));
        self
    }

    /// Adds a [run](crate::Run), to be read from its beginning to its end.
    ///
    /// A first connection, without a `Last-Event-ID`, receives the run from its beginning, and the
    /// other events for the client from now on. A connection that [resumes](Self::resume) receives
    /// everything after its position, of the run and for its other names. So a page that adds a run
    /// to its stream must connect without an id.
    ///
    /// A stream without topics ends when all its runs have ended: see
    /// [`ends_with_runs`](Self::ends_with_runs). A run counts as a topic for
    /// [`Limits::topics`](crate::Limits::topics). Decide first whether the client may read the run.
    #[must_use]
    pub fn run(self, run: impl Into<Name>) -> Self {
        self.runs([run])
    }

    /// Adds runs, as [`run`](Self::run) does.
    #[must_use]
    pub fn runs<T: Into<Name>>(mut self, runs: impl IntoIterator<Item = T>) -> Self {
        self.run_names.extend(runs.into_iter().map(|run| run.into().into_inner()));
        self
    }

    /// Sets whether the stream is complete when all its [runs](Self::run) have ended. By default it
    /// is, if the client has no topics.
    ///
    /// A complete stream ends with a final `hub:end`, with the state of the run that ended last.
    /// The next request of a native `EventSource` is refused as
    /// [`Complete`](crate::RefusedCause::Complete), and the response stops the `EventSource`. If a
    /// run is unknown, the client is refused, or waits: see
    /// [`RunLimits::wait`](crate::RunLimits::wait).
    ///
    /// A stream that is not complete with its runs receives the end of each run as an event,
    /// `hub:run-end`. An unknown run has no events.
    #[must_use]
    pub fn ends_with_runs(mut self, is_on: bool) -> Self {
        self.ends_with_runs = Some(is_on);
        self
    }

    /// Whether the stream is complete when all its runs have ended.
    pub(super) fn is_of_runs(&self) -> bool {
        !self.run_names.is_empty() && self.ends_with_runs.unwrap_or(self.topics.is_empty())
    }

    /// Returns the event types that the client receives.
    pub(super) fn type_filter(&self, hasher: &KeyHasher) -> Filter {
        match &self.types {
            Some(types) if !self.run_names.is_empty() => {
                // The events of the hub always come.
                let end = Box::from(frame::RUN_END);
                Filter::new(Some(&types.iter().cloned().chain([end]).collect()), hasher)
            }
            types => Filter::new(types.as_ref(), hasher),
        }
    }

    /// Selects event types: the client receives only events of these types. `message` stands for
    /// events without a type. A second call replaces the selection.
    ///
    /// The hub's own events (`hub:open`, `hub:gap` and others) always come. Without this call the
    /// client receives events of all types; with an empty list, none. Events of other types are
    /// neither sent nor counted as missed. [`Limits::event_types`](crate::Limits::event_types)
    /// bounds the number of types.
    #[must_use]
    pub fn event_types<T: AsRef<str>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types = Some(types.into_iter().map(|name| name.as_ref().into()).collect());
        self
    }

    /// Continues where the client stopped: after a [`LastEventId`] or an
    /// [`EventId`](crate::EventId).
    #[must_use]
    pub fn resume(mut self, last: impl Into<LastEventId>) -> Self {
        self.resume = last.into().0;
        self
    }

    /// Sets the client id that `hub:open` gave this client on its last connection.
    ///
    /// The client keeps the id if it was connected as the same user in the same session, and the
    /// hub remembers it. Events that were sent to the id alone are replayed then, too, and the client
    /// gets back the topics that the server [added](crate::Hub::join) it to, as far as
    /// [`Limits::topics`](crate::Limits::topics) allows beside the topics of this request. If the hub
    /// has not noticed yet that the old connection is dead, the old stream ends as
    /// [`Displaced`](crate::EndReason::Displaced). Otherwise the client gets a new id, and a gap if
    /// events for the old id, or joined topics, may be lost.
    ///
    /// A hub remembers the ids of the clients that left last: as many as the hub retains events, and
    /// at least 1,024. It also knows the ids of the clients that
    /// [`Limits::remembered`](crate::Limits::remembered) keeps with their topics. With a backplane,
    /// a client that has joined a topic also keeps the id on another instance.
    #[must_use]
    pub fn client_id(mut self, client: ClientId) -> Self {
        self.client_id = Some(client);
        self
    }

    /// On a first connection, begins with the last `events` events that the client would have
    /// received, of those that the hub retains. A stream has either these or a
    /// [snapshot](crate::Subscription::with_snapshot): both is an error.
    #[must_use]
    pub fn replay_last(mut self, events: usize) -> Self {
        self.replay_last = events;
        self
    }

    /// On a first connection, begins with the *values*: the newest event of each conflation key
    /// ([`Event::conflate`]) that the client may see. Then come the events that are published from
    /// then on. Replaces [`replay_last`](Self::replay_last).
    ///
    /// The hub must keep the values, see [`Retain::keep_latest`]. Otherwise the stream begins with
    /// the values that the hub happens to retain.
    ///
    /// - **Exact.** The values come in the order of their ids, each for the identity and the event
    ///   types of this client. If a value is replaced before the client reads it, only the new event
    ///   comes. No event that is published after `subscribe` is missing.
    /// - **A lost value** is told by a gap at the start: the hub has evicted values that the
    ///   client could see. A later event of each lost key may have come since.
    /// - **Position.** The last value carries the id from which the stream continues. If the
    ///   client is cut off before, it continues after the last value that it has, as after any event.
    /// - **A later connection** continues at the client's position, as without this method. If the
    ///   position is unknown, the client gets a gap and the values.
    /// - **Snapshots.** A stream has either the values or a
    ///   [snapshot](crate::Subscription::with_snapshot): both is an error.
    ///
    /// ```
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, Hub, ManualTimer, Retain, Subscriber};
    ///
    /// let retain = Retain::default().events(1).keep_latest(500);
    /// let hub = Hub::builder(ManualTimer::new()).retain(retain).build()?;
    /// let price = |symbol, price| Event::new("price").conflate(symbol).data(price);
    /// for (symbol, value) in [("ACME", "ACME 17"), ("INIT", "INIT 3"), ("ACME", "ACME 18")] {
    ///     hub.send_to_topic("prices", price(symbol, value))?;
    /// }
    /// let mut page = hub.subscribe(Subscriber::new().topic("prices").latest())?;
    /// hub.send_to_topic("prices", price("INIT", "INIT 4"))?;
    /// let mut text = String::new();
    /// while let Some(Some(item)) = page.next().now_or_never() {
    ///     text += &String::from_utf8_lossy(&item);
    /// }
    /// let values: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    /// assert_eq!(values[1..], ["ACME 18", "INIT 4"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A stream that reads [runs](Self::run) begins with the runs, and this setting changes nothing.
    ///
    /// [`Event::conflate`]: crate::Event::conflate
    /// [`Retain::keep_latest`]: crate::Retain::keep_latest
    #[must_use]
    pub fn latest(mut self) -> Self {
        self.latest = true;
        self
    }

    /// Sends the client at most one batch of events in a period. A batch has only the newest event
    /// of each conflation key ([`Event::conflate`]), and all events without a key. So a slow page
    /// receives a fraction of the bytes, and loses nothing that its keys do not replace.
    ///
    /// - The first event after a quiet period comes at once. Then the client rests for a period, and
    ///   receives everything that came meanwhile as the next batch. A large batch comes as several
    ///   items.
    /// - The first frames, heartbeats and the end of the stream do not wait. A stream that is to
    ///   end delivers its backlog at once.
    /// - The events of a period must fit into the [retention](crate::Retain). A client that loses
    ///   events gets a gap, as any slow client does.
    /// - A client that rests is not [stalled](crate::HubBuilder::stalled_after), and does not count
    ///   as [lagging](crate::Stats::lagged).
    ///
    /// Zero means no pace, the default. A period of more than an hour is taken for an hour.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
    ///
    /// let timer = ManualTimer::new();
    /// let hub = Hub::builder(timer.clone()).heartbeat(None).build()?;
    /// let mut page = hub.subscribe(Subscriber::new().at_most_every(Duration::from_secs(1)))?;
    /// let price = |value: u32| Event::new("price").conflate("ACME").data(value.to_string());
    /// let _opening = page.next().now_or_never();
    /// hub.broadcast(price(1))?;
    /// assert!(page.next().now_or_never().is_some(), "the first event comes at once");
    /// for value in 2..=20 {
    ///     hub.broadcast(price(value))?;
    /// }
    /// assert!(page.next().now_or_never().is_none());
    /// timer.advance(Duration::from_secs(1));
    /// let batch = page.next().now_or_never().flatten().unwrap();
    /// let text = String::from_utf8_lossy(&batch);
    /// assert!(text.contains("data: 20") && !text.contains("data: 19"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`Event::conflate`]: crate::Event::conflate
    #[must_use]
    pub fn at_most_every(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// Ends the stream at `deadline`, by the clock of the hub's timer. For tokens, see
    /// [`expires_in`](Self::expires_in) and [`expires_at`](Self::expires_at).
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.until = Some(deadline);
        self
    }

    /// Ends the stream so long after the client was let in: when its token expires. With zero, the
    /// stream ends at once.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(lifetime);
        self
    }

    /// Ends the stream at a time of the system's clock: when its token expires. A time in the past
    /// ends the stream at once.
    ///
    /// Later changes of the system's clock do not move the end.
    #[must_use]
    pub fn expires_at(self, time: SystemTime) -> Self {
        self.expires_in(time.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// When the stream must end, for a client that is let in at `now`.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let expiry = self.expires_in.and_then(|lifetime| now.checked_add(lifetime));
        [self.until, expiry].into_iter().flatten().min()
    }

    /// The user and the session.
    pub(super) fn owner(&self) -> Owner {
        Owner { user: self.user.clone(), session: self.session.clone() }
    }

    /// Checks the limits of one request. Takes time in proportion to the request, and no lock.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), RefusedCause> {
        if self.topics.len() + self.run_names.len() > limits.topics {
            return Err(RefusedCause::TooManyTopics { limit: limits.topics });
        }
        if let Some(types) = &self.types {
            if types.len() > limits.event_types {
                return Err(RefusedCause::TooManyEventTypes { limit: limits.event_types });
            }
            let longest = types.iter().map(|name| name.len()).max().unwrap_or_default();
            if longest > limits.name_len {
                return Err(RefusedCause::EventTypeTooLong {
                    len: longest,
                    limit: limits.name_len,
                });
            }
        }
        let user = self.user.clone().map(Key::User);
        let session = self.session.clone().map(Key::Session);
        let topics = self.topics.iter().cloned().map(Key::Topic);
        let runs = self.run_names.iter().cloned().map(Key::Run);
        let mut keys = user.into_iter().chain(session).chain(topics).chain(runs);
        keys.try_for_each(|key| key.check(limits.name_len))?;
        Ok(())
    }

    /// Returns the memberships of the client, each once, without that of its client id, for which
    /// there is room. Hashes every name: no lock may be held.
    pub(super) fn memberships(&self, hasher: &KeyHasher) -> Vec<Membership> {
        let user = self.user.clone().map(Key::User);
        let session = self.session.clone().map(Key::Session);
        let count = 2 + usize::from(user.is_some()) + usize::from(session.is_some());
        let mut memberships = Vec::with_capacity(count + self.topics.len() + self.run_names.len());
        let topics = self.topics.iter().cloned().map(Key::Topic);
        let runs = self.run_names.iter().cloned().map(Key::Run);
        let keys = [Key::All].into_iter().chain(user).chain(session).chain(topics).chain(runs);
        memberships.extend(keys.map(|key| Membership::of(key, hasher)));
        memberships
    }
}
