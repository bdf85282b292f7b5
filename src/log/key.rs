//! The names of clients: client ids, and the keys under which events and clients meet.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{NameError, NameKind};

/// A client's id: 128 random bits, written as 32 hexadecimal digits.
///
/// `hub:open` carries the id of the client, so that a page can ask the server to answer to this
/// tab only.
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

    /// Returns a number from 0 to 1 that depends on the id alone, to spread clients over time.
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

/// Serializes the text of the id. Feature `json`.
#[cfg(feature = "json")]
impl serde::Serialize for ClientId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the text of an id. Feature `json`.
#[cfg(feature = "json")]
impl<'de> serde::Deserialize<'de> for ClientId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::wire::text::deserialize(
            deserializer,
            "a client id of 32 lower-case hexadecimal digits",
        )
    }
}

/// A text is not a [`ClientId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid client id: expected 32 lower-case hexadecimal digits, as in `hub:open`")]
pub struct ParseClientIdError(());

/// A typed name: events are addressed to keys, and clients hold keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    All,
    Client(ClientId),
    User(Arc<str>),
    Session(Arc<str>),
    Topic(Arc<str>),
    /// No [`Audience`](super::audience::Audience) of an application has this key.
    Run(Arc<str>),
}

impl Key {
    pub(crate) fn is_run(&self) -> bool {
        matches!(self, Self::Run(_))
    }

    pub(crate) fn check(&self, limit: usize) -> Result<(), NameError> {
        let (name, kind) = match self {
            Self::All | Self::Client(_) => return Ok(()),
            Self::User(name) => (name, NameKind::User),
            Self::Session(name) => (name, NameKind::Session),
            Self::Topic(name) => (name, NameKind::Topic),
            Self::Run(name) => (name, NameKind::Run),
        };
        match name.len() {
            0 => Err(NameError::Empty(kind)),
            len if len > limit => Err(NameError::TooLong { kind, len, limit }),
            _ => Ok(()),
        }
    }

    /// Returns the length of the name, 0 for a key without a name.
    pub(super) fn name_len(&self) -> usize {
        match self {
            Self::All | Self::Client(_) => 0,
            Self::User(name) | Self::Session(name) | Self::Topic(name) | Self::Run(name) => {
                name.len()
            }
        }
    }

    /// Appends the bytes of the key: one for the kind, and the name.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (kind, name) = self.kind_and_name();
        out.push(kind);
        out.extend_from_slice(name);
    }

    /// Returns whether these are the [bytes](Self::write) of the key.
    pub(super) fn is_written(&self, bytes: &[u8]) -> bool {
        let (kind, name) = self.kind_and_name();
        bytes.split_first() == Some((&kind, name))
    }

    fn kind_and_name(&self) -> (u8, &[u8]) {
        match self {
            Self::All => (0, &[]),
            Self::Client(ClientId(id)) => (1, id),
            Self::User(name) => (2, name.as_bytes()),
            Self::Session(name) => (3, name.as_bytes()),
            Self::Topic(name) => (4, name.as_bytes()),
            Self::Run(name) => (5, name.as_bytes()),
        }
    }

    /// Estimates how many clients hold a key of this kind, to choose the side of an `and` that is
    /// looked up. Only the order of the figures matters.
    pub(super) fn expected_holders(&self) -> u64 {
        match self {
            Self::Client(_) => 1,
            Self::Session(_) | Self::Run(_) => 4,
            Self::User(_) => 8,
            Self::Topic(_) => 1 << 12,
            Self::All => 1 << 32,
        }
    }
}
