use std::time::Duration;

use crate::error::ConfigError;

/// How much a hub keeps for clients that come back or fall behind.
///
/// What is kept is all that the hub holds of its events, whatever its clients do (but for what it
/// [looks back](crate::History) for, if it has a backplane): at most `bytes` of frames (the
/// allocation of a frame can be a quarter larger than it), and for each of `events` about 450 bytes of bookkeeping. To
/// remember what was lost to whom takes up to 200 bytes more for each of `events` (of 1024 at least). Measured on 64 bits,
/// with the slack of allocations: 270 to 350 in all where events are for everybody or for one topic, 610 to 660 where
/// each is for another user.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::Retain;
///
/// let retain = Retain::events(4096).per_topic(256).bytes(16 << 20).age(Duration::from_secs(300));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retain {
    pub(crate) events: usize,
    pub(crate) per_topic: Option<usize>,
    pub(crate) bytes: usize,
    pub(crate) age: Option<Duration>,
}

impl Retain {
    /// This many events, at most 16 MiB of them, each for at most five minutes.
    #[must_use]
    pub const fn events(events: usize) -> Self {
        Self { events, per_topic: None, bytes: 16 << 20, age: Some(Duration::from_secs(300)) }
    }

    /// At most this many events of each topic, so that a busy one does not push out the others.
    #[must_use]
    pub const fn per_topic(mut self, events: usize) -> Self {
        self.per_topic = Some(events);
        self
    }

    /// At most this many bytes of frames in all. A larger event is refused.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Each event for at most this long, counted from its publishing. Decided when the hub is next used.
    #[must_use]
    pub const fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Each event until another limit pushes it out.
    #[must_use]
    pub const fn any_age(mut self) -> Self {
        self.age = None;
        self
    }

    /// The same and an allowance. Then no topic is limited of its own, and nothing is too old.
    pub(super) fn raised(mut self, by: Allowance) -> Self {
        self.events = self.events.saturating_add(by.events);
        self.bytes = self.bytes.saturating_add(by.bytes);
        (self.per_topic, self.age) = (None, None);
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("events", self.events == 0),
            ("per_topic", self.per_topic == Some(0)),
            ("bytes", self.bytes == 0),
            ("age", self.age == Some(Duration::ZERO)),
        ];
        if let Some((setting, _)) = zero.into_iter().find(|&(_, is_zero)| is_zero) {
            return Err(ConfigError::RetainsNothing(setting));
        }
        match self.per_topic {
            Some(per_topic) if per_topic > self.events => {
                Err(ConfigError::PerTopic { per_topic, events: self.events })
            }
            _ => Ok(()),
        }
    }
}

impl Default for Retain {
    /// `Retain::events(4096)`.
    fn default() -> Self {
        Self::events(4096)
    }
}

/// What may be kept beyond the retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}
