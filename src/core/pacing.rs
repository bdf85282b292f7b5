//! The pace of a client that receives at most one batch in a period.
//!
//! The client reads a *batch*: the events up to the newest event when the batch began. Then the
//! client rests until the period is over. Events that come meanwhile wait in the log, which holds
//! only the newest event of each conflation key. So a batch has each key once, and no event is lost
//! that the log retains for a period.

use std::time::{Duration, Instant};

use crate::wire::id::EventId;

/// The longest period. A longer period would leave a client without news for longer than most logs
/// retain events.
pub(crate) const MAX_PERIOD: Duration = Duration::from_secs(3600);

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pacing {
    period: Duration,
    stage: Stage,
    /// When the client received the newest part of the batch; `None` if it received nothing yet.
    sent: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The next event begins a batch.
    Ready,
    /// The client reads the events up to here.
    Reading(EventId),
    /// The client reads nothing until then.
    Resting(Instant),
}

impl Pacing {
    /// Returns the pace of a client; `None` if the period is zero.
    pub(crate) fn every(period: Duration) -> Option<Self> {
        let period = period.min(MAX_PERIOD);
        (!period.is_zero()).then_some(Self { period, stage: Stage::Ready, sent: None })
    }

    /// Until when the client rests, if it does.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Resting(until) => Some(until),
            Stage::Ready | Stage::Reading(_) => None,
        }
    }

    /// Begins a batch with the events up to `tail`, unless the client still reads a batch. `cursor`
    /// is the client's position. Returns whether a batch begins.
    pub(super) fn begin(&mut self, cursor: EventId, tail: EventId) -> bool {
        if let Stage::Reading(end) = self.stage
            && cursor < end
        {
            return false;
        }
        self.stage = Stage::Reading(tail);
        true
    }

    /// Up to where the client reads before it rests. `None` if there is no such position.
    pub(super) fn batch_end(&self) -> Option<EventId> {
        match self.stage {
            Stage::Reading(end) => Some(end),
            Stage::Ready | Stage::Resting(_) => None,
        }
    }

    /// Notes a read at `now`: whether the client received events, and whether these were the last
    /// of the batch. The client rests after a batch, unless later events replaced the whole batch.
    pub(super) fn note_read(&mut self, has_sent: bool, is_last: bool, now: Instant) {
        if has_sent {
            self.sent = Some(now);
        }
        // A read without events can find the end of the batch late: the rest counts from the events.
        if is_last && let Some(sent) = self.sent.take() {
            // A time that the clock cannot show is a time at which nobody reads.
            self.stage = sent.checked_add(self.period).map_or(Stage::Ready, Stage::Resting);
        }
    }

    /// Ends the rest if it is over at `now`.
    pub(super) fn pass(&mut self, now: Instant) {
        if self.rests_until().is_some_and(|until| until <= now) {
            self.stage = Stage::Ready;
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(count: u64) -> EventId {
        EventId::new(1, count)
    }

    #[test]
    fn batch_ends_where_the_log_ended_when_it_began() {
        let mut pacing = Pacing::every(SECOND).unwrap();
        assert!(pacing.begin(id(1), id(5)));
        assert!(!pacing.begin(id(4), id(9)), "the batch is not read yet");
        assert_eq!(pacing.batch_end(), Some(id(5)));
        assert!(pacing.begin(id(5), id(9)));
        assert_eq!(pacing.batch_end(), Some(id(9)));
    }

    #[test]
    fn rest_lasts_for_the_period() {
        let (mut pacing, now) = (Pacing::every(SECOND).unwrap(), Instant::now());
        pacing.note_read(false, true, now);
        assert_eq!(pacing.rests_until(), None, "nothing was sent");
        pacing.note_read(true, false, now);
        assert_eq!(pacing.rests_until(), None, "the batch goes on");
        pacing.note_read(false, true, now + SECOND / 4);
        assert_eq!((pacing.rests_until(), pacing.batch_end()), (Some(now + SECOND), None));
        pacing.pass(now + SECOND / 2);
        assert!(pacing.rests_until().is_some());
        pacing.pass(now + SECOND);
        assert_eq!(pacing.rests_until(), None);
    }

    #[test]
    fn zero_is_no_pace_and_long_periods_are_cut() {
        assert!(Pacing::every(Duration::ZERO).is_none());
        let (mut pacing, now) = (Pacing::every(Duration::MAX).unwrap(), Instant::now());
        pacing.note_read(true, true, now);
        assert_eq!(pacing.rests_until(), Some(now + MAX_PERIOD));
    }
}
