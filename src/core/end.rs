//! How a stream ends: the reasons, and the states from open to ended.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::InvalidReason;
use crate::log::codec;
use crate::wire::event::Event;
use crate::wire::frame;

/// Why a stream ended. [`Stats::ended`](crate::Stats::ended) counts streams by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The subscription was dropped: the client disconnected, or the handler gave up.
    Left,
    /// The hub was closed.
    Closed,
    /// The hub was drained.
    Drained,
    /// The application [disconnected](crate::Hub::disconnect) the client.
    Disconnected,
    /// The application [finished](crate::Hub::finish) the stream.
    Finished,
    /// The [deadline](crate::Subscriber::until) of the client passed.
    Expired,
    /// The [lifetime](crate::HubBuilder::lifetime) of the stream was over.
    Lifetime,
    /// Events waited, and the stream was not read.
    Stalled,
    /// The client missed events, and the hub [ends such streams](crate::HubBuilder::end_lagging).
    Lagged,
    /// A newer client took the place of this client.
    Displaced,
    /// With a backplane: the instance of the client died. Only
    /// [presence](crate::PresenceEvent::Left) reports this reason, for users of other instances.
    Vanished,
    /// The client [left](crate::Hub::leave) a topic, and its stream goes on. Only
    /// [presence](crate::TopicEvent::Left) in a topic reports this reason.
    LeftTopic,
}

impl EndReason {
    /// Every reason, in the order of the variants. Later versions may add reasons.
    pub const ALL: &'static [Self] = &[
        Self::Left,
        Self::Closed,
        Self::Drained,
        Self::Disconnected,
        Self::Finished,
        Self::Expired,
        Self::Lifetime,
        Self::Stalled,
        Self::Lagged,
        Self::Displaced,
        Self::Vanished,
        Self::LeftTopic,
    ];

    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Returns the word for this reason that `hub:end` carries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Closed => "closed",
            Self::Drained => "drained",
            Self::Disconnected => "disconnected",
            Self::Finished => "finished",
            Self::Expired => "expired",
            Self::Lifetime => "lifetime",
            Self::Stalled => "stalled",
            Self::Lagged => "lagged",
            Self::Displaced => "displaced",
            Self::Vanished => "vanished",
            Self::LeftTopic => "left-topic",
        }
    }

    /// Whether the stream delivers the events published before its end. If the hub forgets the
    /// client at once, these are the events of its window; the log keeps the others for its return.
    const fn delivers_backlog(self) -> bool {
        matches!(
            self,
            Self::Closed | Self::Drained | Self::Finished | Self::Lifetime | Self::Displaced
        )
    }
}

/// The reason, and optionally a last event, with which the application ends streams.
///
/// [`Hub::disconnect`](crate::Hub::disconnect) and [`Hub::finish`](crate::Hub::finish) take a
/// `Goodbye`. Each stream ends with a `hub:end` event that carries the reason.
///
/// ```
/// use sse_hub::{Event, Goodbye};
///
/// const LOGOUT: Goodbye = Goodbye::from_static("logout");
/// let goodbye = Goodbye::new("logout")?.event(Event::new("logged-out"));
/// # Ok::<(), sse_hub::InvalidReason>(())
/// ```
#[derive(Debug, Clone)]
pub struct Goodbye {
    pub(crate) reason: Cow<'static, str>,
    pub(crate) event: Option<Event>,
}

impl Goodbye {
    /// Creates a goodbye with a reason: 1 to 64 ASCII letters, digits, `-` and `_`.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidReason`] for any other text.
    pub fn new(reason: impl Into<String>) -> Result<Self, InvalidReason> {
        let reason = reason.into();
        if !codec::is_reason(reason.as_bytes()) {
            return Err(InvalidReason(()));
        }
        Ok(Self { reason: Cow::Owned(reason), event: None })
    }

    /// Creates a goodbye with a constant reason.
    ///
    /// # Panics
    ///
    /// Panics if the reason is invalid: at compile time, if the goodbye is a constant.
    #[must_use]
    pub const fn from_static(reason: &'static str) -> Self {
        assert!(
            codec::is_reason(reason.as_bytes()),
            "a reason must be 1 to 64 ASCII letters, digits, `-` and `_`"
        );
        Self { reason: Cow::Borrowed(reason), event: None }
    }

    /// Sets the last event: each stream sends `event` directly before `hub:end`.
    #[must_use]
    pub fn event(mut self, event: Event) -> Self {
        self.event = Some(event);
        self
    }
}

/// The reason in `hub:end` if none of the stream's runs has started.
const UNKNOWN_RUN: &str = "unknown-run";

/// The end of a stream, once decided.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) reason: EndReason,
    /// The last frames, until they are sent.
    pub(crate) last: Option<Bytes>,
}

impl End {
    /// An end that sends nothing.
    pub(crate) fn silent(reason: EndReason) -> Self {
        Self { reason, last: None }
    }

    /// An end that sends `hub:end`, with the delay after which the client must reconnect.
    pub(crate) fn announced(reason: EndReason, retry: Duration) -> Self {
        Self { reason, last: Some(frame::end(reason.as_str(), retry, false)) }
    }

    /// The end of a complete stream, with the word that `hub:end` carries.
    pub(crate) fn complete(word: &str, retry: Duration) -> Self {
        Self { reason: EndReason::Finished, last: Some(frame::end(word, retry, true)) }
    }
}

/// The state of the end of a client's stream.
///
/// A stream is open, then delivers its backlog, then is over. Two kinds of ends skip the middle:
/// the stream is over at once, also if events are unread.
///
/// Nearly every stream is open and has no deadline. Such a stream takes no further memory.
#[derive(Debug)]
pub(crate) struct Ending(Option<Box<Phase>>);

#[derive(Debug)]
enum Phase {
    /// The stream takes events.
    Open {
        /// When the stream begins to deliver its backlog and end, and why.
        until: Option<(Instant, EndReason)>,
        /// When the stream is over at once, as [`EndReason::Expired`].
        deadline: Option<Instant>,
        /// When the stream is complete unless a run of the stream has started.
        run_by: Option<Instant>,
    },
    /// The stream takes no further events, and is over after the backlog or at the deadline.
    Backlog { end: End, deadline: Option<Instant> },
    /// The stream is over: only the last frames are left to send.
    Over(End),
}

impl Ending {
    pub(crate) fn open(until: Option<(Instant, EndReason)>, deadline: Option<Instant>) -> Self {
        let is_timed = until.is_some() || deadline.is_some();
        Self(is_timed.then(|| Box::new(Phase::Open { until, deadline, run_by: None })))
    }

    /// Schedules an end for the case that none of the stream's runs starts.
    pub(crate) fn await_runs(&mut self, by: Instant) {
        match self.0.as_deref_mut() {
            None => {
                let phase = Phase::Open { until: None, deadline: None, run_by: Some(by) };
                self.0 = Some(Box::new(phase));
            }
            Some(Phase::Open { run_by, .. }) => *run_by = Some(by),
            Some(_) => {}
        }
    }

    /// A run of the stream has started.
    pub(crate) fn note_run(&mut self) {
        if let Some(Phase::Open { run_by, .. }) = self.0.as_deref_mut() {
            *run_by = None;
        }
    }

    /// Whether the stream is open, and no end is scheduled.
    pub(crate) fn is_endless(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the stream takes further events.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.0.as_deref(), None | Some(Phase::Open { .. }))
    }

    /// Whether the client must not come back, so that it must see everything before its end.
    pub(crate) fn is_final(&self) -> bool {
        self.end().is_some_and(|end| end.reason == EndReason::Finished)
    }

    /// The reason of the end, if it is decided.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.end().map(|end| end.reason)
    }

    fn end(&self) -> Option<&End> {
        match self.0.as_deref()? {
            Phase::Open { .. } => None,
            Phase::Backlog { end, .. } | Phase::Over(end) => Some(end),
        }
    }

    /// Whether an end for `reason` changes the stream: see [`decide`](Self::decide).
    pub(crate) fn accepts(&self, reason: EndReason) -> bool {
        match self.0.as_deref() {
            None | Some(Phase::Open { .. }) => true,
            Some(Phase::Backlog { .. }) => !reason.delivers_backlog(),
            Some(Phase::Over(_)) => false,
        }
    }

    /// Decides the end. An end at once replaces an end after the backlog; otherwise the first
    /// decision counts, because the client may have been told already.
    pub(crate) fn decide(&mut self, end: End) {
        let has_backlog = end.reason.delivers_backlog();
        let deadline = match self.0.as_deref() {
            None => None,
            Some(Phase::Open { deadline, .. }) => *deadline,
            Some(Phase::Backlog { .. }) if !has_backlog => None,
            Some(Phase::Backlog { .. } | Phase::Over(_)) => return,
        };
        let phase = if has_backlog { Phase::Backlog { end, deadline } } else { Phase::Over(end) };
        self.0 = Some(Box::new(phase));
    }

    /// Schedules an end after the backlog at `at`, unless an end is scheduled already for `at` or
    /// earlier.
    pub(crate) fn schedule(&mut self, at: Instant, reason: EndReason) {
        match self.0.as_deref_mut() {
            None => *self = Self::open(Some((at, reason)), None),
            Some(Phase::Open { until, .. }) if until.is_none_or(|(earlier, _)| at < earlier) => {
                *until = Some((at, reason));
            }
            Some(_) => {}
        }
    }

    /// When [`pass`](Self::pass) has something to decide next.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        match self.0.as_deref()? {
            Phase::Open { until, deadline, run_by } => {
                [until.map(|(at, _)| at), *deadline, *run_by].into_iter().flatten().min()
            }
            Phase::Backlog { deadline, .. } => *deadline,
            Phase::Over(_) => None,
        }
    }

    /// Decides the ends whose time has come at `now`. A passed deadline wins over a scheduled end.
    pub(crate) fn pass(&mut self, now: Instant, retry: Duration) {
        let (until, deadline, run_by) = match self.0.as_deref() {
            Some(Phase::Open { until, deadline, run_by }) => (*until, *deadline, *run_by),
            Some(Phase::Backlog { deadline, .. }) => (None, *deadline, None),
            None | Some(Phase::Over(_)) => return,
        };
        if deadline.is_some_and(|at| at <= now) {
            self.decide(End::announced(EndReason::Expired, retry));
        } else if let Some((_, reason)) = until.filter(|&(at, _)| at <= now) {
            self.decide(End::announced(reason, retry));
        } else if run_by.is_some_and(|at| at <= now) {
            self.decide(End::complete(UNKNOWN_RUN, retry));
        }
    }

    /// Takes the last frames of a stream that is over at once. `None` if the stream is not.
    pub(crate) fn take_over(&mut self) -> Option<Option<Bytes>> {
        match self.0.as_deref_mut()? {
            Phase::Over(end) => Some(end.last.take()),
            Phase::Open { .. } | Phase::Backlog { .. } => None,
        }
    }

    /// Takes the last frames of a stream whose backlog is delivered. `None` if the stream is open.
    pub(crate) fn take_last(&mut self) -> Option<Option<Bytes>> {
        match self.0.as_deref_mut()? {
            Phase::Open { .. } => None,
            Phase::Backlog { end, .. } | Phase::Over(end) => Some(end.last.take()),
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(1);

    fn ending(ends: &[EndReason]) -> Ending {
        let mut ending = Ending::open(None, None);
        ends.iter().for_each(|&reason| ending.decide(End::silent(reason)));
        ending
    }

    #[test]
    fn first_end_counts_unless_a_later_one_is_at_once() {
        use EndReason::{Disconnected, Drained, Lifetime, Stalled};
        assert_eq!(ending(&[]).reason(), None);
        assert_eq!(ending(&[Drained, Lifetime]).reason(), Some(Drained));
        assert_eq!(ending(&[Drained, Stalled]).reason(), Some(Stalled));
        assert_eq!(ending(&[Stalled, Drained]).reason(), Some(Stalled));
        assert_eq!(ending(&[Stalled, Disconnected]).reason(), Some(Stalled));
    }

    #[test]
    fn backlog_is_delivered_only_before_a_soft_end() {
        let mut soft = ending(&[EndReason::Drained]);
        assert!(!soft.is_open() && soft.take_over().is_none() && soft.take_last().is_some());
        let mut hard = ending(&[EndReason::Stalled]);
        assert!(!hard.is_open() && hard.take_over().is_some());
        let mut open = ending(&[]);
        assert!(open.is_open() && open.take_over().is_none() && open.take_last().is_none());
    }

    #[test]
    fn deadline_wins_and_survives_a_soft_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut ending = Ending::open(Some((at(3), EndReason::Lifetime)), Some(at(5)));
        ending.schedule(at(4), EndReason::Drained);
        assert_eq!(ending.next_at(), Some(at(3)), "a later end does not replace an earlier one");
        ending.schedule(at(2), EndReason::Drained);
        assert_eq!(ending.next_at(), Some(at(2)));
        ending.schedule(at(2), EndReason::Displaced);
        ending.pass(at(1), RETRY);
        assert!(ending.is_open());
        ending.pass(at(2), RETRY);
        assert_eq!((ending.reason(), ending.next_at()), (Some(EndReason::Drained), Some(at(5))));
        ending.pass(at(4), RETRY);
        assert_eq!(ending.reason(), Some(EndReason::Drained));
        ending.pass(at(5), RETRY);
        assert_eq!((ending.reason(), ending.next_at()), (Some(EndReason::Expired), None));

        let mut both = Ending::open(Some((at(3), EndReason::Lifetime)), Some(at(4)));
        both.pass(at(9), RETRY);
        assert_eq!(both.reason(), Some(EndReason::Expired));
    }

    #[test]
    fn stream_without_a_run_is_complete_in_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut waits = Ending::open(Some((at(5), EndReason::Lifetime)), None);
        waits.await_runs(at(2));
        assert_eq!(waits.next_at(), Some(at(2)));
        waits.note_run();
        waits.pass(at(3), RETRY);
        assert!(waits.is_open() && waits.next_at() == Some(at(5)));
        let mut over = Ending::open(None, None);
        over.await_runs(at(2));
        over.pass(at(2), RETRY);
        assert!(over.is_final());
        let last = over.take_last().flatten().expect("a last frame");
        assert!(last.ends_with(b"data: {\"reason\":\"unknown-run\",\"final\":true}\n\n"));
    }

    #[test]
    fn only_a_finished_stream_is_final() {
        for &reason in EndReason::ALL {
            assert_eq!(ending(&[reason]).is_final(), reason == EndReason::Finished);
        }
    }

    #[test]
    fn reasons_are_counted_at_their_own_place() {
        for (at, &reason) in EndReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
