//! What the end of a stream is.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::wire::frame;

/// Why a stream ended. [`Stats::ended`](crate::Stats::ended) counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The subscription was dropped: the client went away, or the handler gave up.
    Left,
    /// The hub was closed.
    Closed,
    /// The hub was drained.
    Drained,
    /// The application disconnected the client.
    Disconnected,
    /// Its [deadline](crate::Subscriber::until) came.
    Expired,
    /// Its [lifetime](crate::HubBuilder::lifetime) was over.
    Lifetime,
    /// It was not read though events waited.
    Stalled,
    /// It missed events and the hub is set to [end such streams](crate::HubBuilder::end_lagging).
    Lagged,
    /// A newer client of its user or session took its place.
    Displaced,
    /// With a backplane: the instance that it was on is gone. Only [presence](crate::PresenceEvent::Left) tells this, of
    /// users of other instances.
    Vanished,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Left,
        Self::Closed,
        Self::Drained,
        Self::Disconnected,
        Self::Expired,
        Self::Lifetime,
        Self::Stalled,
        Self::Lagged,
        Self::Displaced,
        Self::Vanished,
    ];

    /// One word for it, as `hub:end` carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Closed => "closed",
            Self::Drained => "drained",
            Self::Disconnected => "disconnected",
            Self::Expired => "expired",
            Self::Lifetime => "lifetime",
            Self::Stalled => "stalled",
            Self::Lagged => "lagged",
            Self::Displaced => "displaced",
            Self::Vanished => "vanished",
        }
    }

    /// Whether the client gets what was published before. Of a client that is forgotten at once that is what is in its
    /// window; the rest waits in the log for its return.
    const fn delivers_the_rest(self) -> bool {
        matches!(self, Self::Closed | Self::Drained | Self::Lifetime | Self::Displaced)
    }
}

/// The end of a stream, once it was decided.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: EndReason,
    /// What is sent last, until it was.
    pub(super) last: Option<Bytes>,
}

impl End {
    /// An end that is told in the stream, with the time after which the client is to come back.
    pub(super) fn told(reason: EndReason, retry: Duration) -> Self {
        Self { reason, last: Some(frame::end(reason.as_str(), retry)) }
    }

    pub(super) fn is_immediate(&self) -> bool {
        !self.reason.delivers_the_rest()
    }
}

/// When a stream is to end, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    pub(crate) reason: EndReason,
}
