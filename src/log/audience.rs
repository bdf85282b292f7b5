//! The clients that an event addresses: an algebra over keys.

use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::key::{ClientId, Key};
use super::name::Name;
use crate::error::AudienceError;

/// The clients that an event addresses.
///
/// A name is a whole string with a type: the user `a` and the topic `a` are unrelated, and no
/// character in a name has a meaning. Audiences combine with [`or`](Self::or), [`and`](Self::and)
/// and [`except`](Self::except). A client that matches twice receives the event once.
///
/// ```
/// use sse_hub::{Audience, ClientId};
///
/// let every_client = Audience::all();
/// let tabs_of_a_user = Audience::user("42");
/// let two_users = Audience::users(["42", "43"]);
/// let followers_in_a_session = Audience::topic("orders").and(Audience::session("s9"));
/// # let me: ClientId = "00112233445566778899aabbccddeeff".parse()?;
/// let followers_but_me = Audience::topic("orders").except(Audience::client(me));
/// # Ok::<(), sse_hub::ParseClientIdError>(())
/// ```
///
/// # Cost
///
/// The cost of a publish follows the number of clients that hold a name of the audience, not the
/// number of connected clients. For an `and`, the hub looks up the side with fewer expected clients
/// (in this order: client, session, user, topic, all); for an `except`, the side before it.
#[derive(Debug, Clone)]
pub struct Audience {
    pub(super) expr: Expr,
    pub(super) size: Size,
}

/// Compares the expressions. The recorded size depends on how an audience was built.
impl PartialEq for Audience {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

impl Eq for Audience {}

impl Hash for Audience {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
    }
}

impl From<&Self> for Audience {
    /// Clones the audience, which costs a reference count.
    fn from(audience: &Self) -> Self {
        audience.clone()
    }
}

impl From<ClientId> for Audience {
    /// `Audience::client(client)`.
    fn from(client: ClientId) -> Self {
        Self::client(client)
    }
}

impl From<&ClientId> for Audience {
    /// `Audience::client(*client)`.
    fn from(client: &ClientId) -> Self {
        Self::client(*client)
    }
}

/// The size of an audience, kept beside the expression: an expression that shares its parts can be
/// exponentially large to walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// The number of names, plus the number of parts without a name.
    pub(super) names: usize,
    pub(super) depth: usize,
}

impl Size {
    pub(super) const ONE: Self = Self { names: 1, depth: 1 };

    /// The size of a combination beyond the limits. Combining it further keeps it excessive.
    const EXCESSIVE: Self = Self { names: usize::MAX, depth: usize::MAX };

    /// The size of two expressions side by side.
    pub(super) fn beside(self, other: Self) -> Self {
        let names = self.names.saturating_add(other.names);
        Self { names, depth: self.depth.max(other.depth) }
    }

    /// The size of an expression around two others.
    pub(super) fn around(self, other: Self) -> Self {
        let both = self.beside(other);
        Self { depth: both.depth.saturating_add(1), ..both }
    }

    /// The size of the parts of an expression, without the expression around them.
    fn unwrapped(self) -> Self {
        Self { depth: self.depth.saturating_sub(1), ..self }
    }

    fn is_excessive(self) -> bool {
        self.names > Audience::MAX_NAMES || self.depth > Audience::MAX_DEPTH
    }
}

/// The parts of an audience that take memory in the log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) names: usize,
    /// The length of all names together.
    pub(super) name_bytes: usize,
    /// At least the number of index keys, which are fewer if keys repeat.
    pub(super) index_keys: usize,
}

/// Cheap to clone, because log entries and the records of evicted events keep expressions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Expr {
    Holds(Key),
    AnyOf(Arc<Vec<Self>>),
    AllOf(Arc<Vec<Self>>),
    /// The clients of the first audience without those of the second.
    Except(Arc<[Audience; 2]>),
}

impl Audience {
    /// The most names in one audience. A larger audience is
    /// [`AudienceError::Excessive`](crate::AudienceError::Excessive): publish to a topic instead.
    pub const MAX_NAMES: usize = 10_000;

    /// The most levels of `or`, `and` and `except` in alternation; a single name is one level. A
    /// chain of the same operation adds one level.
    pub const MAX_DEPTH: usize = 32;

    /// The readers of a run.
    pub(crate) const fn run(run: Arc<str>) -> Self {
        Self::holds(Key::Run(run))
    }

    const fn holds(key: Key) -> Self {
        Self { expr: Expr::Holds(key), size: Size::ONE }
    }

    /// Every client.
    #[must_use]
    pub const fn all() -> Self {
        Self::holds(Key::All)
    }

    /// One client: one open stream, such as one browser tab.
    ///
    /// A tab that reconnects gets a new client id, unless its request carries the old one and the
    /// handler passes it to [`Subscriber::client_id`]. A browser's `EventSource` repeats its first
    /// request, so it cannot. Address events that must survive a reconnect to the session or user.
    ///
    /// [`Subscriber::client_id`]: crate::Subscriber::client_id
    #[must_use]
    pub const fn client(client: ClientId) -> Self {
        Self::holds(Key::Client(client))
    }

    /// All clients of a user.
    #[must_use]
    pub fn user(user: impl Into<Name>) -> Self {
        Self::holds(Key::User(user.into().into_inner()))
    }

    /// All clients of a session.
    #[must_use]
    pub fn session(session: impl Into<Name>) -> Self {
        Self::holds(Key::Session(session.into().into_inner()))
    }

    /// All clients that follow a topic.
    #[must_use]
    pub fn topic(topic: impl Into<Name>) -> Self {
        Self::holds(Key::Topic(topic.into().into_inner()))
    }

    /// Each of several clients. An empty list addresses no client.
    #[must_use]
    pub fn clients(clients: impl IntoIterator<Item = ClientId>) -> Self {
        Self::any_of(clients.into_iter().map(Key::Client))
    }

    /// All clients of each of several users. An empty list addresses no client.
    #[must_use]
    pub fn users<T: Into<Name>>(users: impl IntoIterator<Item = T>) -> Self {
        Self::any_of(users.into_iter().map(|user| Key::User(user.into().into_inner())))
    }

    /// All clients of each of several sessions. An empty list addresses no client.
    #[must_use]
    pub fn sessions<T: Into<Name>>(sessions: impl IntoIterator<Item = T>) -> Self {
        Self::any_of(sessions.into_iter().map(|session| Key::Session(session.into().into_inner())))
    }

    /// All clients that follow at least one of several topics. An empty list addresses no client.
    #[must_use]
    pub fn topics<T: Into<Name>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self::any_of(topics.into_iter().map(|topic| Key::Topic(topic.into().into_inner())))
    }

    fn any_of(keys: impl Iterator<Item = Key>) -> Self {
        let parts: Vec<Expr> = keys.map(Expr::Holds).collect();
        let names = parts.len().max(1);
        Self::bounded(Expr::AnyOf(Arc::new(parts)), Size { names, depth: 2 })
    }

    /// The clients of this audience and those of the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let split = |expr| match expr {
            Expr::AnyOf(parts) => Ok(Arc::unwrap_or_clone(parts)),
            expr => Err(expr),
        };
        self.chain(other, split, |parts| Expr::AnyOf(Arc::new(parts)))
    }

    /// The clients that are in both audiences.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let split = |expr| match expr {
            Expr::AllOf(parts) => Ok(Arc::unwrap_or_clone(parts)),
            expr => Err(expr),
        };
        self.chain(other, split, |parts| Expr::AllOf(Arc::new(parts)))
    }

    /// The clients of this audience that are not in the other.
    #[must_use]
    pub fn except(self, other: Self) -> Self {
        let [included, excluded] = match self.expr {
            Expr::Except(sides) => {
                let [included, excluded] = Arc::unwrap_or_clone(sides);
                [included, excluded.or(other)]
            }
            expr => [Self { expr, ..self }, other],
        };
        let size = included.size.around(excluded.size);
        Self::bounded(Expr::Except(Arc::new([included, excluded])), size)
    }

    /// Joins both audiences to one list. A side that is such a list already contributes its parts,
    /// so that a chain of the same operation stays flat.
    fn chain(
        self,
        other: Self,
        split: impl Fn(Expr) -> Result<Vec<Expr>, Expr>,
        join: impl Fn(Vec<Expr>) -> Expr,
    ) -> Self {
        let inside = |expr, size: Size| match split(expr) {
            Ok(parts) => (parts, size.unwrapped()),
            Err(expr) => (vec![expr], size),
        };
        let (mut parts, size) = inside(self.expr, self.size);
        let (more, other_size) = inside(other.expr, other.size);
        parts.extend(more);
        Self::bounded(join(parts), size.around(other_size))
    }

    /// Replaces an excessive expression by an empty one, so that no later step walks it. The size
    /// stays excessive, so that the audience is refused and never delivered to fewer clients.
    fn bounded(expr: Expr, size: Size) -> Self {
        if size.is_excessive() {
            return Self { expr: Expr::AnyOf(Arc::default()), size: Size::EXCESSIVE };
        }
        Self { expr, size }
    }

    pub(crate) fn check(&self, max_name_len: usize) -> Result<(), AudienceError> {
        if self.size.is_excessive() {
            return Err(AudienceError::Excessive);
        }
        Ok(self.expr.try_each(&mut |key| key.check(max_name_len))?)
    }

    /// Returns the parts of the audience that take memory in the log.
    pub(super) fn extent(&self) -> Extent {
        let mut extent = Extent { index_keys: self.expr.index_size().0, ..Extent::default() };
        let add = &mut |key: &Key| {
            extent.names += 1;
            extent.name_bytes += key.name_len();
            Ok::<(), Infallible>(())
        };
        let Ok(()) = self.expr.try_each(add);
        extent
    }

    /// Returns the only key of a simple audience.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.expr.key()
    }

    /// Returns the keys that index the audience, without duplicates: every client of the audience
    /// holds at least one of these keys.
    pub(crate) fn index(&self) -> Vec<Key> {
        let mut keys = self.expr.index();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Returns whether every client that holds one of the [index keys](Self::index) is in the
    /// audience.
    pub(crate) fn is_its_index(&self) -> bool {
        match &self.expr {
            Expr::Holds(_) => true,
            Expr::AnyOf(parts) => parts.iter().all(|part| matches!(part, Expr::Holds(_))),
            Expr::AllOf(_) | Expr::Except(_) => false,
        }
    }
}

impl Expr {
    /// Returns the key of an expression that is a single key.
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Holds(key) => Some(key),
            Self::AnyOf(_) | Self::AllOf(_) | Self::Except(_) => None,
        }
    }

    fn try_each<E>(&self, check: &mut impl FnMut(&Key) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Holds(key) => check(key),
            Self::AnyOf(parts) | Self::AllOf(parts) => {
                parts.iter().try_for_each(|part| part.try_each(check))
            }
            Self::Except(sides) => sides.iter().try_for_each(|side| side.expr.try_each(check)),
        }
    }

    fn index(&self) -> Vec<Key> {
        match self {
            Self::Holds(key) => vec![key.clone()],
            Self::AnyOf(parts) => {
                let keys: Vec<Key> = parts.iter().flat_map(Self::index).collect();
                if keys.contains(&Key::All) { vec![Key::All] } else { keys }
            }
            Self::AllOf(parts) => {
                let cheapest = parts.iter().min_by_key(|part| part.index_size().1);
                cheapest.map(Self::index).unwrap_or_default()
            }
            Self::Except(sides) => sides[0].expr.index(),
        }
    }

    /// Returns the number of keys in [`index`](Self::index), and of the clients that are expected
    /// to hold these keys.
    fn index_size(&self) -> (usize, u64) {
        match self {
            Self::Holds(key) => (1, key.expected_holders()),
            Self::AnyOf(parts) => {
                let all = Key::All.expected_holders();
                let sum =
                    parts.iter().map(Self::index_size).fold((0, 0), |sum: (usize, u64), size| {
                        (sum.0 + size.0, sum.1.saturating_add(size.1))
                    });
                if sum.1 >= all { (1, all) } else { sum }
            }
            Self::AllOf(parts) => {
                parts.iter().map(Self::index_size).min_by_key(|size| size.1).unwrap_or_default()
            }
            Self::Except(sides) => sides[0].expr.index_size(),
        }
    }
}
