//! Groups of settings: limits, history reads, presence.

use std::time::{Duration, Instant};

use crate::error::ConfigError;
use crate::log::retain::Allowance;

/// How many clients a hub lets in, and the limits of a single client.
///
/// A client beyond a limit is [refused](crate::Refused), and the hub keeps no trace of it.
///
/// | limit | default |
/// |---|---|
/// | [`clients`](Self::clients), [`per_user`](Self::per_user), [`per_session`](Self::per_session), [`replay`](Self::replay) | none |
/// | [`topics`](Self::topics) | 64 per client |
/// | [`event_types`](Self::event_types) | 64 per client |
/// | [`name_len`](Self::name_len) | 256 bytes |
/// | [`remembered`](Self::remembered) | 4,096 clients |
///
/// The work that a request causes under the hub's lock grows with `topics * event_types`: with the
/// defaults, at most 4,096 lookups.
///
/// ```
/// use sse_hub::Limits;
///
/// let limits = Limits::default().clients(50_000).per_user(8).per_session(4).topics(16);
/// let newest_tab_wins = Limits::default().per_user(1).displace_oldest(true);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    pub(crate) clients: usize,
    pub(crate) per_user: usize,
    pub(crate) per_session: usize,
    pub(crate) topics: usize,
    pub(crate) event_types: usize,
    pub(crate) name_len: usize,
    pub(crate) replay: usize,
    pub(crate) remembered: usize,
    pub(crate) displace_oldest: bool,
}

impl Limits {
    /// Sets the most clients in total.
    #[must_use]
    pub const fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// Sets the most clients of a user.
    ///
    /// A client that returns with its [id](crate::Subscriber::client_id) replaces its old
    /// connection and needs no room. Leave room for clients that return without: the hub may not
    /// have noticed yet that their old connection is dead.
    #[must_use]
    pub const fn per_user(mut self, clients: usize) -> Self {
        self.per_user = clients;
        self
    }

    /// Sets the most clients of a session.
    #[must_use]
    pub const fn per_session(mut self, clients: usize) -> Self {
        self.per_session = clients;
        self
    }

    /// Sets the most topics of a client, including topics that the client
    /// [joined](crate::Hub::join) and [runs](crate::Subscriber::run).
    #[must_use]
    pub const fn topics(mut self, topics: usize) -> Self {
        self.topics = topics;
        self
    }

    /// Sets the most event types that a client may [select](crate::Subscriber::event_types).
    #[must_use]
    pub const fn event_types(mut self, types: usize) -> Self {
        self.event_types = types;
        self
    }

    /// Sets the longest name of a user, a session, a topic, a run or a selected event type, in
    /// bytes.
    #[must_use]
    pub const fn name_len(mut self, bytes: usize) -> Self {
        self.name_len = bytes;
        self
    }

    /// Sets the most events that are replayed to a client: the newest, after a `hub:gap`. A first
    /// connection does not begin with more either.
    #[must_use]
    pub const fn replay(mut self, events: usize) -> Self {
        self.replay = events;
        self
    }

    /// Sets how many clients that are away the hub remembers with their topics. A client that
    /// [returns](crate::Subscriber::client_id) gets back the topics that it
    /// [joined](crate::Hub::join). With a backplane, these are also the clients of other instances
    /// that have joined topics. With 0, no client gets topics back.
    ///
    /// Beyond the limit, the hub forgets the client that it has remembered for the longest time. If
    /// a forgotten client may have had topics, the client gets a `hub:gap` when it returns, and is
    /// not resumed.
    ///
    /// # Memory
    ///
    /// For clients with a user, a session and `t` topics, with names of `n` bytes, at most about
    ///
    /// ```text
    /// remembered * (1200 + 2 * n + t * (400 + n))   bytes
    /// ```
    ///
    /// and with a backplane 512 commands with 8,192 names in addition. (As measured on 64 bits:
    /// 1000 and 310 in place of 1200 and 400, before the tables of names double.)
    #[must_use]
    pub const fn remembered(mut self, clients: usize) -> Self {
        self.remembered = clients;
        self
    }

    /// If set, a client beyond `per_user` or `per_session` displaces the oldest client of the user
    /// or session. Otherwise the client is refused, which is the default.
    #[must_use]
    pub const fn displace_oldest(mut self, is_on: bool) -> Self {
        self.displace_oldest = is_on;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        first_zero([
            ("Limits::clients", self.clients == 0),
            ("Limits::per_user", self.per_user == 0),
            ("Limits::per_session", self.per_session == 0),
            ("Limits::name_len", self.name_len == 0),
        ])
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: usize::MAX,
            per_user: usize::MAX,
            per_session: usize::MAX,
            topics: 64,
            event_types: 64,
            name_len: 256,
            replay: usize::MAX,
            remembered: 4096,
            displace_oldest: false,
        }
    }
}

/// How far a hub reads back for clients that missed more than the log [retains](crate::Retain), and
/// for [pages](crate::Hub::read_with_history).
///
/// Needs a [backplane](crate::HubBuilder::backplane) that supports history reads, as
/// `sse_hub::redis` does. Without a backplane these settings change nothing.
///
/// The hub reads older events once for all clients that need them, in pieces from the newest back,
/// and puts them before the retained events. The older events stay until neither a client nor a
/// page has read them for ten seconds. Meanwhile `Retain::per_topic` and `Retain::age` do not
/// apply.
///
/// # Memory
///
/// A hub holds at most so many events and bytes:
///
/// ```text
/// otherwise             Retain::events                    Retain::bytes
/// during history reads  Retain::events + History::events  Retain::bytes + History::bytes
/// ```
///
/// [`Retain`](crate::Retain) says what each event costs in addition. A client that missed more gets
/// a `hub:gap` and continues with the oldest event that is there. The same applies if the backplane
/// no longer has the events.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::History;
///
/// let wait = Duration::from_secs(10);
/// let history = History::default().events(50_000).bytes(32 << 20).max_wait(wait);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    pub(crate) allowance: Allowance,
    pub(crate) max_wait: Duration,
}

impl History {
    /// Sets the most events beyond the retention: 16,384 by default.
    #[must_use]
    pub const fn events(mut self, events: usize) -> Self {
        self.allowance.events = events;
        self
    }

    /// Sets the most bytes beyond the retention: 16 MiB by default.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.allowance.bytes = bytes;
        self
    }

    /// Sets how long a client waits for a backplane that does not answer: one minute by default.
    /// Then the client gets a gap, and continues with the events of the hub. A page is
    /// [truncated](crate::Page::truncated) then.
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Until when a client waits that comes at `now`.
    pub(crate) fn until(&self, now: Instant) -> Instant {
        /// Stands in for a wait that the clock cannot add: one year.
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        now.checked_add(self.max_wait).unwrap_or(now + FAR)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        first_zero([
            ("History::events", self.allowance.events == 0),
            ("History::bytes", self.allowance.bytes == 0),
            ("History::max_wait", self.max_wait.is_zero()),
        ])
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            allowance: Allowance { events: 16_384, bytes: 16 << 20 },
            max_wait: Duration::from_secs(60),
        }
    }
}

/// How a hub reports users that come and go, and the members of topics.
///
/// [`HubBuilder::presence`](crate::HubBuilder::presence) turns presence on, and
/// [`Hub::watch`](crate::Hub::watch) returns the reports.
///
/// A user comes with the first client. After the last client left, the user is *away*, and still
/// counts as online. Only if no client comes back within the grace period has the user left. So a
/// page that reloads is neither a leave nor a join. Clients without a
/// [user](crate::Subscriber::user) are not reported.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{Hub, ManualTimer, Presence};
///
/// let presence = Presence::default().grace(Duration::from_secs(10)).max_away(20_000);
/// let hub = Hub::builder(ManualTimer::new()).presence(presence).build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
///
/// # Members of topics
///
/// With [`topics`](Self::topics), the hub also knows the users in each of these topics, such as the
/// rooms of a chat: [`Hub::users_in`](crate::Hub::users_in) lists them, and
/// [`Hub::watch_topics`](crate::Hub::watch_topics) reports changes. Off by default. A topic that is
/// not selected costs nothing.
///
/// - A user is a member from the first client that follows the topic, whether by
///   [`Subscriber::topic`](crate::Subscriber::topic), [`Hub::join`](crate::Hub::join),
///   [`Hub::follow`](crate::Hub::follow) or `http::join_topic`. Two tabs in a room are one member.
/// - If the stream of the last of these clients ends, the member is away for the grace period, and
///   then has left. This holds for each end of a stream, also if the hub ended a stalled client.
/// - If the last of these clients [leaves](crate::Hub::leave) the topic, the member has left at
///   once, with the reason [`LeftTopic`](crate::EndReason::LeftTopic): a client that leaves a room
///   does not reload. A member that is away has no client that could leave, and stays away until
///   the end of the grace period.
/// - A client without a user is no member, although it receives the events of the topic.
///
/// ```
/// use futures_util::{FutureExt as _, StreamExt as _};
/// use sse_hub::{Hub, ManualTimer, Presence, Subscriber, TopicEvent};
///
/// let presence = Presence::default().topics(&["room-"]);
/// let hub = Hub::builder(ManualTimer::new()).presence(presence).build()?;
/// let mut watch = hub.watch_topics()?;
///
/// let tab = hub.subscribe(Subscriber::new().user("ann"))?;
/// hub.join(tab.client_id(), "room-7")?;
/// match watch.next().now_or_never() {
///     Some(Some(TopicEvent::Joined { user, topic })) => {
///         assert_eq!((&*user, &*topic), ("ann", "room-7"));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Many instances
///
/// With a [backplane](crate::HubBuilder::backplane), users are those of all instances that have
/// presence on. A user joins if the user was online nowhere, and leaves if the last client *on any
/// instance* has been gone for the grace period. A user that a load balancer sends to another
/// instance does neither, if the grace period is longer than the reconnect plus the time until the
/// other instances hear of the move (over Redis about 100 ms). All instances agree in the end, each
/// by the local clock. The users of an instance that dies count as online for a while: see
/// `sse_hub::redis`. An instance that cannot reach the others keeps the last known state.
///
/// The same holds for members of topics. All instances must select the same topics: an instance
/// ignores the members of other topics, and knows no members of an instance that does not select
/// the topic.
///
/// # Memory
///
/// For user names of `n` bytes, however many clients come and go, at most about
///
/// ```text
/// max_away * (250 + n) + event_buffer * (64 + n)   bytes, and with a backplane in addition
/// max_remote_users * (130 + n) + 60 * (local users that are not announced yet)
/// ```
///
/// Users that are online cost nothing, and no events are kept while there is no watcher.
///
/// The same limits hold for the members of topics, counted apart from the users, so that a crowd in
/// the rooms hides no user. For topic names of `t` bytes the members add at most about
///
/// ```text
/// 60 * members + 260 * topics        of this instance
/// max_away * (250 + n + t) + 260 * (topics that members are away from)
/// event_buffer * (64 + n + t)
/// max_remote_users * (130 + n) + (420 + t) * (topics of each other instance)    with a backplane
/// 60 * (local members that are not announced yet) + 260 * (their topics)        with a backplane
/// ```
///
/// Each pair of a user and a topic is a member: there are at most [`Limits::clients`] times
/// [`Limits::topics`] on this instance. (Measured on 64 bits with 120,000 members, `cargo bench
/// --bench presence -- memory`: in rooms of 1, 2 and 100 members, 258, 129 and 33 bytes for each
/// member that is online, 477, 316 and 209 for each that is away, and 548, 290 and 89 for each of
/// another instance, with names of 12 and 14 bytes.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    pub(crate) grace: Duration,
    pub(crate) max_away: usize,
    pub(crate) event_buffer: usize,
    pub(crate) max_remote_users: usize,
    /// The topics with members begin with one of these.
    pub(crate) topics: &'static [&'static str],
}

impl Presence {
    /// Sets how long a user may be away before the user has left: 10 seconds by default.
    ///
    /// A reload takes a moment. A lost connection takes up to 1.25 times
    /// [`HubBuilder::retry`](crate::HubBuilder::retry), plus the time to connect. With zero, every
    /// reload is a leave and a join.
    #[must_use]
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the most users that are away at a time: 10,000 by default. If there are more, the user
    /// that has been away longest is reported as left before the end of the grace period.
    ///
    /// To honour the grace period, the limit must be at least
    /// `users that leave per second * grace in seconds`. As many members of topics can be away: for
    /// these, multiply by the topics of a user.
    #[must_use]
    pub const fn max_away(mut self, users: usize) -> Self {
        self.max_away = users;
        self
    }

    /// Sets how many events are kept for watchers: 4,096 by default, and as many for the watchers
    /// of topics. A watcher that falls further behind gets
    /// [`PresenceEvent::Missed`](crate::PresenceEvent::Missed) or
    /// [`TopicEvent::Missed`](crate::TopicEvent::Missed).
    #[must_use]
    pub const fn event_buffer(mut self, events: usize) -> Self {
        self.event_buffer = events;
        self
    }

    /// Sets the most users of other instances, each counted once per instance: 1,000,000 by
    /// default. The hub ignores users beyond the limit, and logs a single warning. The hub knows as
    /// many members of topics on other instances.
    #[must_use]
    pub const fn max_remote_users(mut self, users: usize) -> Self {
        self.max_remote_users = users;
        self
    }

    /// Selects the topics whose [members](Self#members-of-topics) the hub knows: those that begin
    /// with one of `prefixes`. A whole name is a prefix, too. By default no topic is selected.
    ///
    /// ```
    /// use sse_hub::Presence;
    ///
    /// let rooms_and_lobby = Presence::default().topics(&["room-", "lobby"]);
    /// ```
    #[must_use]
    pub const fn topics(mut self, prefixes: &'static [&'static str]) -> Self {
        self.topics = prefixes;
        self
    }

    /// Selects every topic, as [`topics`](Self::topics) does with an empty prefix.
    #[must_use]
    pub const fn all_topics(self) -> Self {
        self.topics(&[""])
    }

    /// Whether the hub knows the members of a topic.
    pub(crate) fn selects(&self, topic: &str) -> bool {
        self.topics.iter().any(|prefix| topic.starts_with(prefix))
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        let too_long = |prefix: &&&str| prefix.len() > limits.name_len;
        if let Some(prefix) = self.topics.iter().find(too_long) {
            return Err(ConfigError::TopicPrefix { len: prefix.len(), limit: limits.name_len });
        }
        first_zero([
            ("Presence::max_away", self.max_away == 0),
            ("Presence::event_buffer", self.event_buffer == 0),
            ("Presence::max_remote_users", self.max_remote_users == 0),
        ])
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            max_away: 10_000,
            event_buffer: 4096,
            max_remote_users: 1_000_000,
            topics: &[],
        }
    }
}

/// Names the first setting that is zero.
fn first_zero<const N: usize>(settings: [(&'static str, bool); N]) -> Result<(), ConfigError> {
    match settings.into_iter().find(|&(_, is_zero)| is_zero) {
        Some((setting, _)) => Err(ConfigError::Zero { setting }),
        None => Ok(()),
    }
}
