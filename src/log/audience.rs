use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{AudienceError, NameError, NameKind};
use crate::wire::id::EventId;

/// Whom an event is for.
///
/// Names are whole and typed: a user `a` and a topic `a` have nothing to do with each other, and no character in a
/// name means anything. Audiences combine, and a client that one matches twice gets the event once:
///
/// ```
/// use sse_hub::{Audience, ClientId};
///
/// let everybody = Audience::all();
/// let all_tabs_of_one_user = Audience::user("42");
/// let two_users = Audience::users(["42", "43"]);
/// let who_follows_and_is_logged_in_here = Audience::topic("orders").and(Audience::session("s9"));
/// # let me: ClientId = "00112233445566778899aabbccddeeff".parse()?;
/// let the_others = Audience::topic("orders").except(Audience::client(me));
/// # Ok::<(), sse_hub::ParseClientIdError>(())
/// ```
///
/// # Cost
///
/// Publishing costs what the clients cost that hold one of the audience's names, not what all that are connected do. Of
/// an `and`, the side that names fewer is looked up (a client before a user, a session, a topic and everybody); of an
/// `except`, the side before it. An audience of many names counts towards [`Retain::bytes`](crate::Retain::bytes) with
/// 64 bytes for each name.
#[derive(Debug, Clone)]
pub struct Audience {
    pub(super) who: Who,
    pub(super) size: Size,
}

/// Whom it names, however it was combined to that.
impl PartialEq for Audience {
    fn eq(&self, other: &Self) -> bool {
        self.who == other.who
    }
}

impl Eq for Audience {}

impl Hash for Audience {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.who.hash(state);
    }
}

/// How large an audience is, known without walking it: it may be combined many times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Names, and parts without any.
    pub(super) names: usize,
    pub(super) depth: usize,
}

impl Size {
    pub(super) const ONE: Self = Self { names: 1, depth: 1 };

    /// Of what was combined beyond what is allowed, and is refused.
    const EXCESSIVE: Self = Self { names: usize::MAX, depth: usize::MAX };

    /// Of both side by side.
    pub(super) fn beside(self, other: Self) -> Self {
        let names = self.names.saturating_add(other.names);
        Self { names, depth: self.depth.max(other.depth) }
    }

    /// Of both side by side, in something around them.
    pub(super) fn around(self, other: Self) -> Self {
        let both = self.beside(other);
        Self { depth: both.depth.saturating_add(1), ..both }
    }

    /// Of what is inside, when what was around it has gone.
    fn unwrapped(self) -> Self {
        Self { depth: self.depth.saturating_sub(1), ..self }
    }

    fn is_excessive(self) -> bool {
        self.names > Audience::MAX_NAMES || self.depth > Audience::MAX_DEPTH
    }
}

/// Cheap to clone: the log and its memory of what was lost keep it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Holds(Key),
    AnyOf(Arc<Vec<Self>>),
    AllOf(Arc<Vec<Self>>),
    Except(Arc<[Audience; 2]>),
}

impl Audience {
    /// How many names one audience may have.
    pub const MAX_NAMES: usize = 10_000;

    /// How deep audiences may be combined, a single name counting as one: `or`, `and` and `except` in turns. A chain of
    /// one of them is one.
    pub const MAX_DEPTH: usize = 32;

    const fn holds(key: Key) -> Self {
        Self { who: Who::Holds(key), size: Size::ONE }
    }

    /// Every client.
    #[must_use]
    pub const fn all() -> Self {
        Self::holds(Key::All)
    }

    /// One client: one open stream, such as one tab of a browser.
    ///
    /// A tab that comes back is another client, unless its request says which it was ([`Subscriber::client`]): a browser's
    /// `EventSource` asks at the same address again and does not. What must reach it all the same is for its session or
    /// its user.
    ///
    /// [`Subscriber::client`]: crate::Subscriber::client
    #[must_use]
    pub const fn client(client: ClientId) -> Self {
        Self::holds(Key::Client(client))
    }

    /// All clients of a user.
    #[must_use]
    pub fn user(user: impl Into<Arc<str>>) -> Self {
        Self::holds(Key::User(user.into()))
    }

    /// All clients of a session.
    #[must_use]
    pub fn session(session: impl Into<Arc<str>>) -> Self {
        Self::holds(Key::Session(session.into()))
    }

    /// All clients that subscribed to a topic.
    #[must_use]
    pub fn topic(topic: impl Into<Arc<str>>) -> Self {
        Self::holds(Key::Topic(topic.into()))
    }

    /// Each of several clients. Nobody, if there are none.
    #[must_use]
    pub fn clients(clients: impl IntoIterator<Item = ClientId>) -> Self {
        Self::any_of(clients.into_iter().map(Key::Client))
    }

    /// All clients of each of several users. Nobody, if there are none.
    #[must_use]
    pub fn users<T: Into<Arc<str>>>(users: impl IntoIterator<Item = T>) -> Self {
        Self::any_of(users.into_iter().map(|user| Key::User(user.into())))
    }

    /// All clients that subscribed to any of several topics. Nobody, if there are none.
    #[must_use]
    pub fn topics<T: Into<Arc<str>>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self::any_of(topics.into_iter().map(|topic| Key::Topic(topic.into())))
    }

    fn any_of(keys: impl Iterator<Item = Key>) -> Self {
        let parts: Vec<Who> = keys.map(Who::Holds).collect();
        let names = parts.len().max(1);
        Self::bounded(Who::AnyOf(Arc::new(parts)), Size { names, depth: 2 })
    }

    /// Whoever this or the other audience matches.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let split = |who| match who {
            Who::AnyOf(parts) => Ok(Arc::unwrap_or_clone(parts)),
            who => Err(who),
        };
        self.chain(other, split, |parts| Who::AnyOf(Arc::new(parts)))
    }

    /// Whoever both match.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let split = |who| match who {
            Who::AllOf(parts) => Ok(Arc::unwrap_or_clone(parts)),
            who => Err(who),
        };
        self.chain(other, split, |parts| Who::AllOf(Arc::new(parts)))
    }

    /// Whoever this matches and the other does not.
    #[must_use]
    pub fn except(self, other: Self) -> Self {
        let [whom, not] = match self.who {
            Who::Except(sides) => {
                let [whom, not] = Arc::unwrap_or_clone(sides);
                [whom, not.or(other)]
            }
            who => [Self { who, ..self }, other],
        };
        let size = whom.size.around(not.size);
        Self::bounded(Who::Except(Arc::new([whom, not])), size)
    }

    /// Both as parts of one, with the parts of those that are such a one already.
    fn chain(
        self,
        other: Self,
        split: impl Fn(Who) -> Result<Vec<Who>, Who>,
        join: impl Fn(Vec<Who>) -> Who,
    ) -> Self {
        let inside = |who, size: Size| match split(who) {
            Ok(parts) => (parts, size.unwrapped()),
            Err(who) => (vec![who], size),
        };
        let (mut parts, size) = inside(self.who, self.size);
        let (more, other_size) = inside(other.who, other.size);
        parts.extend(more);
        Self::bounded(join(parts), size.around(other_size))
    }

    /// Forgets what was combined beyond the limits, so that nothing later walks it, and remembers that.
    fn bounded(who: Who, size: Size) -> Self {
        if size.is_excessive() {
            return Self { who: Who::AnyOf(Arc::default()), size: Size::EXCESSIVE };
        }
        Self { who, size }
    }

    pub(crate) fn check(&self, max_name_len: usize) -> Result<(), AudienceError> {
        if self.size.is_excessive() {
            return Err(AudienceError::Excessive);
        }
        Ok(self.who.try_each(&mut |key| key.check(max_name_len))?)
    }

    /// How many names it has.
    pub(crate) fn names(&self) -> usize {
        self.size.names
    }

    /// The only key, if it is that simple.
    pub(crate) fn key(&self) -> Option<&Key> {
        match &self.who {
            Who::Holds(key) => Some(key),
            Who::AnyOf(_) | Who::AllOf(_) | Who::Except(_) => None,
        }
    }

    /// The keys that index it, each once: whoever it matches holds at least one of them.
    pub(crate) fn index(&self) -> Vec<Key> {
        let mut keys = self.who.index();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether everybody who holds one of its [keys](Self::index) is matched.
    pub(crate) fn is_its_index(&self) -> bool {
        match &self.who {
            Who::Holds(_) => true,
            Who::AnyOf(parts) => parts.iter().all(|part| matches!(part, Who::Holds(_))),
            Who::AllOf(_) | Who::Except(_) => false,
        }
    }

    pub(crate) fn matches(&self, holds: impl Fn(&Key) -> bool) -> bool {
        self.who.matches(&holds)
    }
}

impl Who {
    fn try_each<E>(&self, check: &mut impl FnMut(&Key) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Holds(key) => check(key),
            Self::AnyOf(parts) | Self::AllOf(parts) => {
                parts.iter().try_for_each(|part| part.try_each(check))
            }
            Self::Except(sides) => sides.iter().try_for_each(|side| side.who.try_each(check)),
        }
    }

    fn matches(&self, holds: &impl Fn(&Key) -> bool) -> bool {
        match self {
            Self::Holds(key) => holds(key),
            Self::AnyOf(parts) => parts.iter().any(|part| part.matches(holds)),
            Self::AllOf(parts) => parts.iter().all(|part| part.matches(holds)),
            Self::Except(sides) => {
                let [whom, not] = &**sides;
                whom.who.matches(holds) && !not.who.matches(holds)
            }
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
                let weight = |keys: &Vec<Key>| keys.iter().map(Key::weight).sum::<u64>();
                parts.iter().map(Self::index).min_by_key(weight).unwrap_or_default()
            }
            Self::Except(sides) => sides[0].who.index(),
        }
    }
}

/// A client's id: 128 random bits, 32 hexadecimal digits in text.
///
/// `hub:open` tells a page its own, so that it can ask the server to answer to this tab.
///
/// ```
/// use sse_hub::ClientId;
///
/// let id: ClientId = "00112233445566778899aabbccddeeff".parse()?;
/// assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
/// # Ok::<(), sse_hub::ParseClientIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub(super) [u8; 16]);

impl ClientId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A number from 0 to 1 that is its own, for spreading clients in time.
    pub(crate) fn spread(self) -> f64 {
        f64::from(u16::from_ne_bytes([self.0[0], self.0[1]])) / f64::from(u16::MAX)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClientId {
    type Err = ParseClientIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.as_bytes().iter().all(hex) {
            return Err(ParseClientIdError(()));
        }
        let bits = u128::from_str_radix(text, 16).map_err(|_| ParseClientIdError(()))?;
        Ok(Self(bits.to_be_bytes()))
    }
}

/// What was read is not a [`ClientId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a client id: expected 32 lower-case hexadecimal digits, as `hub:open` gave them")]
pub struct ParseClientIdError(());

/// One thing that an event can be addressed to and that a client can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    All,
    Client(ClientId),
    User(Arc<str>),
    Session(Arc<str>),
    Topic(Arc<str>),
}

impl Key {
    pub(crate) fn check(&self, max_len: usize) -> Result<(), NameError> {
        let (name, kind) = match self {
            Self::All | Self::Client(_) => return Ok(()),
            Self::User(name) => (name, NameKind::User),
            Self::Session(name) => (name, NameKind::Session),
            Self::Topic(name) => (name, NameKind::Topic),
        };
        match name.len() {
            0 => Err(NameError::Empty(kind)),
            len if len > max_len => Err(NameError::TooLong { kind, max_len }),
            _ => Ok(()),
        }
    }

    /// How many clients a key of this kind has, roughly: to choose which part of an `and` to look up.
    fn weight(&self) -> u64 {
        match self {
            Self::Client(_) => 1,
            Self::Session(_) => 4,
            Self::User(_) => 8,
            Self::Topic(_) => 1 << 12,
            Self::All => 1 << 32,
        }
    }
}

/// One of a client's keys.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) key: Key,
    /// It holds the key for events after this one.
    pub(crate) since: EventId,
    /// Where it stands in the list of the key's members.
    pub(crate) index: usize,
}

/// Who a client is, for deciding whether an event is for it: live, on replay, and when one was lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) places: &'a [Place],
    pub(crate) filter: &'a Filter,
}

impl Identity<'_> {
    /// Whether it is in the audience of the event with this id.
    pub(crate) fn is_in(&self, audience: &Audience, id: EventId) -> bool {
        audience
            .matches(|key| self.places.iter().any(|place| place.since < id && place.key == *key))
    }
}

/// Which event types a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Filter {
    #[default]
    Everything,
    Types(Box<[Box<str>]>),
}

impl Filter {
    pub(crate) fn admits(&self, event_type: &[u8]) -> bool {
        match self {
            Self::Everything => true,
            Self::Types(types) => {
                let event_type = dispatched_as(event_type);
                types.iter().any(|admitted| admitted.as_bytes() == event_type)
            }
        }
    }
}

/// The type that a browser dispatches an event under.
pub(crate) fn dispatched_as(event_type: &[u8]) -> &[u8] {
    if event_type.is_empty() { b"message" } else { event_type }
}
