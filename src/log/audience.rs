use std::fmt;
use std::slice;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{MAX_NAME_LEN, NameError, NameKind};

/// Whom an event is for.
///
/// Names are whole and typed: a user `a` and a topic `a` have nothing to do with each other, and no character in a
/// name means anything.
///
/// ```
/// use sse_hub::Audience;
///
/// let everybody = Audience::all();
/// let all_tabs_of_one_user = Audience::user("42");
/// let who_follows = Audience::topic("orders/eu");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Audience(Key);

impl Audience {
    /// Every client.
    #[must_use]
    pub const fn all() -> Self {
        Self(Key::All)
    }

    /// One client: one open stream, such as one tab of a browser.
    #[must_use]
    pub const fn client(client: ClientId) -> Self {
        Self(Key::Client(client))
    }

    /// All clients of a user.
    #[must_use]
    pub fn user(user: impl Into<Arc<str>>) -> Self {
        Self(Key::User(user.into()))
    }

    /// All clients of a session.
    #[must_use]
    pub fn session(session: impl Into<Arc<str>>) -> Self {
        Self(Key::Session(session.into()))
    }

    /// All clients that subscribed to a topic.
    #[must_use]
    pub fn topic(topic: impl Into<Arc<str>>) -> Self {
        Self(Key::Topic(topic.into()))
    }

    /// The keys that index it: whoever it is for holds at least one of them.
    pub(crate) fn keys(&self) -> &[Key] {
        slice::from_ref(&self.0)
    }

    pub(crate) fn check(&self) -> Result<(), NameError> {
        self.0.check()
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
pub struct ClientId([u8; 16]);

impl ClientId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Sixteen of its bits, for spreading clients in time.
    pub(crate) fn spread(&self) -> u16 {
        u16::from_ne_bytes([self.0[0], self.0[1]])
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    All,
    Client(ClientId),
    User(Arc<str>),
    Session(Arc<str>),
    Topic(Arc<str>),
}

impl Key {
    pub(crate) fn check(&self) -> Result<(), NameError> {
        let (name, kind) = match self {
            Self::All | Self::Client(_) => return Ok(()),
            Self::User(name) => (name, NameKind::User),
            Self::Session(name) => (name, NameKind::Session),
            Self::Topic(name) => (name, NameKind::Topic),
        };
        match name.len() {
            0 => Err(NameError::Empty(kind)),
            1..=MAX_NAME_LEN => Ok(()),
            _ => Err(NameError::TooLong(kind)),
        }
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
