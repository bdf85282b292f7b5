//! The name of a user, a session or a topic, in each form that callers have.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The name of a user, a session or a topic.
///
/// Every method that takes a name takes `impl Into<Name>`: text in each of its usual forms, and
/// integers, which are written in decimal. An `Arc<str>` is shared and not copied.
///
/// ```
/// use sse_hub::{Audience, Subscriber};
///
/// let (user_id, room) = (42_u64, String::from("room-7"));
/// let tab = Subscriber::new().user(user_id).topic(&room);
/// assert_eq!(Audience::user(user_id), Audience::user("42"));
/// assert_eq!(Audience::topic(&room), Audience::topic("room-7"));
/// ```
///
/// A name must have 1 to [`Limits::name_len`](crate::Limits::name_len) bytes. The hub checks the
/// length when the name is used.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Returns the text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_inner(self) -> Arc<str> {
        self.0
    }
}

impl From<Arc<str>> for Name {
    fn from(name: Arc<str>) -> Self {
        Self(name)
    }
}

impl From<&Arc<str>> for Name {
    fn from(name: &Arc<str>) -> Self {
        Self(Arc::clone(name))
    }
}

impl From<&Self> for Name {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl From<Name> for Arc<str> {
    fn from(name: Name) -> Self {
        name.0
    }
}

macro_rules! from_text {
    ($($text:ty),*) => {$(
        impl From<$text> for Name {
            fn from(name: $text) -> Self {
                Self(Arc::from(name))
            }
        }
    )*};
}

from_text!(&str, &mut str, String, Box<str>, Cow<'_, str>);

macro_rules! from_reference {
    ($($text:ty),*) => {$(
        impl From<$text> for Name {
            fn from(name: $text) -> Self {
                Self(Arc::from(&**name))
            }
        }
    )*};
}

from_reference!(&String, &Box<str>, &Cow<'_, str>, &&str);

macro_rules! from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Name {
            /// Writes the number in decimal.
            fn from(number: $integer) -> Self {
                Self(Arc::from(itoa::Buffer::new().format(number)))
            }
        }

        impl From<&$integer> for Name {
            /// Writes the number in decimal.
            fn from(number: &$integer) -> Self {
                Self::from(*number)
            }
        }
    )*};
}

from_integer!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
