use crate::error::ConfigError;

/// How many clients there may be, and what one may ask for.
///
/// A client beyond a limit is [refused](crate::Refused), and no trace of it is kept. Unset limits are: no limit on
/// clients, 64 topics for each, names of 256 bytes, and a replay of all that is retained.
///
/// ```
/// use sse_hub::Limits;
///
/// let limits = Limits::clients(50_000).per_user(8).per_session(4).topics(16).replay(1_000);
/// let newest_tab_wins = Limits::default().per_user(1).displace_oldest();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    pub(crate) clients: usize,
    pub(crate) per_user: usize,
    pub(crate) per_session: usize,
    pub(crate) topics: usize,
    pub(crate) name_len: usize,
    pub(crate) replay: usize,
    pub(crate) displaces: bool,
}

impl Limits {
    /// At most this many clients in total.
    #[must_use]
    pub const fn clients(clients: usize) -> Self {
        Self {
            clients,
            per_user: usize::MAX,
            per_session: usize::MAX,
            topics: 64,
            name_len: 256,
            replay: usize::MAX,
            displaces: false,
        }
    }

    /// At most this many clients of one user. Leave room for a tab that comes back before the hub has noticed that its
    /// old connection is dead.
    #[must_use]
    pub const fn per_user(mut self, clients: usize) -> Self {
        self.per_user = clients;
        self
    }

    /// At most this many clients of one session.
    #[must_use]
    pub const fn per_session(mut self, clients: usize) -> Self {
        self.per_session = clients;
        self
    }

    /// At most this many topics for one client, joined ones included.
    #[must_use]
    pub const fn topics(mut self, topics: usize) -> Self {
        self.topics = topics;
        self
    }

    /// At most this many bytes for the name of a user, a session or a topic.
    #[must_use]
    pub const fn name_len(mut self, bytes: usize) -> Self {
        self.name_len = bytes;
        self
    }

    /// At most this many events for one client that comes back: the newest, after a `hub:gap`. Neither does a first
    /// connection begin with more.
    #[must_use]
    pub const fn replay(mut self, events: usize) -> Self {
        self.replay = events;
        self
    }

    /// At the limit of a user or a session, ends its oldest client and lets the new one in.
    #[must_use]
    pub const fn displace_oldest(mut self) -> Self {
        self.displaces = true;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("clients", self.clients),
            ("per_user", self.per_user),
            ("per_session", self.per_session),
            ("name_len", self.name_len),
        ];
        match zero.into_iter().find(|&(_, limit)| limit == 0) {
            Some((limit, _)) => Err(ConfigError::LimitIsZero(limit)),
            None => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::clients(usize::MAX)
    }
}
