//! The events that wait to be sent to Redis, in order.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::EventId;
use crate::backplane::{Outgoing, RunPartKind, SendError};

/// The limits of a batch: Redis serves no other client while the script runs.
const BATCH_EVENTS: usize = 1024;
pub(crate) const BATCH_BYTES: usize = 512 << 10;

/// The memory that an event takes in addition to its bytes, about.
const OVERHEAD: usize = 64;

/// A bounded queue from the publishers to the sender.
pub(crate) struct Outbox {
    most_events: usize,
    most_bytes: usize,
    queue: Mutex<Queue>,
    /// There is a new event, or the queue is closed, or sending may begin.
    pub(crate) changed: Notify,
    /// Events were acknowledged, or the others were abandoned.
    pub(crate) moved: Notify,
}

#[derive(Default)]
struct Queue {
    /// The events that the sender has not taken.
    events: VecDeque<Outgoing>,
    /// How many events were accepted.
    accepted: u64,
    /// How many events were acknowledged, the oldest first. The others are those of `events` and of
    /// the batch that the sender has taken.
    acknowledged: u64,
    /// The size of the events that are not acknowledged, in bytes.
    bytes: usize,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Takes no further event. Those that wait are sent.
    Closed,
    /// The events that wait were dropped, and count as lost.
    Abandoned,
}

/// How far the first events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many are not acknowledged.
    pub(crate) left: u64,
    /// Those that are left never will be.
    pub(crate) is_over: bool,
}

impl Queue {
    /// Returns how many events are not acknowledged.
    fn count(&self) -> usize {
        match self.state {
            State::Abandoned => 0,
            // Each is in memory, so the number fits.
            State::Open | State::Closed => (self.accepted - self.acknowledged) as usize,
        }
    }
}

impl Outbox {
    pub(crate) fn new(most_events: usize, most_bytes: usize) -> Self {
        let (queue, changed, moved) = (Mutex::default(), Notify::new(), Notify::new());
        Self { most_events, most_bytes, queue, changed, moved }
    }

    pub(crate) fn push(&self, event: Outgoing) -> Result<(), SendError> {
        {
            let mut queue = self.queue.lock();
            let bytes = weight(&event);
            if queue.state != State::Open {
                return Err(SendError::Closed);
            }
            let count = queue.count();
            // An event that is larger than the whole queue may wait alone.
            let is_large = count > 0 && queue.bytes.saturating_add(bytes) > self.most_bytes;
            // The end of a run is accepted even then: a producer that is dropped cannot try again.
            // The number of open runs bounds how many such ends there are.
            if (is_large || count >= self.most_events) && !ends_run(&event) {
                return Err(SendError::Full);
            }
            queue.accepted += 1;
            queue.bytes += bytes;
            queue.events.push_back(event);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Wakes the sender: the end of the stream is known.
    pub(crate) fn begin(&self) {
        self.changed.notify_one();
    }

    /// Refuses further events.
    pub(crate) fn close(&self) {
        {
            let mut queue = self.queue.lock();
            if queue.state == State::Open {
                queue.state = State::Closed;
            }
        }
        self.changed.notify_one();
    }

    /// Drops all events that are not acknowledged, and returns how many those are: also those of
    /// the batch that the sender had taken. A sender that still runs acknowledges none of them.
    pub(crate) fn abandon(&self) -> usize {
        let (left, events) = {
            let mut queue = self.queue.lock();
            let left = queue.count();
            queue.state = State::Abandoned;
            queue.bytes = 0;
            (left, std::mem::take(&mut queue.events))
        };
        // After the lock: each drop wakes the publisher that waits for the confirmation.
        drop(events);
        self.changed.notify_one();
        self.moved.notify_waiters();
        left
    }

    /// Returns how many events are not acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.queue.lock().count()
    }

    /// Returns how many events were accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.queue.lock().accepted
    }

    /// Returns how far the first `count` accepted events are sent.
    pub(crate) fn progress(&self, count: u64) -> Progress {
        let queue = self.queue.lock();
        let left = count.saturating_sub(queue.acknowledged);
        Progress { left, is_over: queue.state == State::Abandoned }
    }

    /// Takes the next batch, of about `most` bytes.
    pub(crate) fn fill(&self, batch: &mut VecDeque<Outgoing>, most: usize) {
        let mut queue = self.queue.lock();
        let mut bytes = 0;
        while let Some(next) = queue.events.front() {
            bytes += weight(next);
            if batch.len() >= BATCH_EVENTS || (bytes > most && !batch.is_empty()) {
                break;
            }
            batch.extend(queue.events.pop_front());
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().state != State::Open
    }

    /// Whether nothing is left to take, and nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        let queue = self.queue.lock();
        queue.state != State::Open && queue.events.is_empty()
    }

    /// Acknowledges the oldest events, under their ids. Returns `false` if the events were
    /// [abandoned](Self::abandon): then they count as lost, and none is confirmed.
    pub(crate) fn acknowledge(&self, taken: Vec<(Outgoing, EventId)>) -> bool {
        {
            let mut queue = self.queue.lock();
            if queue.state == State::Abandoned {
                return false;
            }
            queue.acknowledged += taken.len() as u64;
            queue.bytes -= taken.iter().map(|(event, _)| weight(event)).sum::<usize>();
        }
        // After the lock: each confirmation wakes a publisher.
        for (event, id) in taken {
            event.confirm(id);
        }
        self.moved.notify_waiters();
        true
    }
}

fn ends_run(event: &Outgoing) -> bool {
    event.run().is_some_and(|part| part.kind == RunPartKind::End)
}

/// Returns the memory that an event takes while it waits.
fn weight(event: &Outgoing) -> usize {
    let names = event.key().map_or(0, str::len) + event.value_of().map_or(0, <[u8]>::len);
    event.entry().len() + names + OVERHEAD
}

#[cfg(test)]
mod tests {
    use futures_executor::block_on;

    use super::*;
    use crate::backplane::Encoder;
    use crate::{Audience, Confirmation, Event, Limits, Retain};

    fn push(outbox: &Outbox) -> Result<Confirmation, SendError> {
        let mut event = Encoder::default().event(Audience::all(), Event::new("n")).unwrap();
        let confirmation = event.confirmation();
        outbox.push(event).map(|()| confirmation)
    }

    fn take(outbox: &Outbox) -> Vec<(Outgoing, EventId)> {
        let mut batch = VecDeque::new();
        outbox.fill(&mut batch, BATCH_BYTES);
        batch.into_iter().zip((1..).map(|seq| EventId::new(1, seq))).collect()
    }

    #[test]
    fn names_of_an_event_take_room() {
        let of = |retain: Retain, event: Event| {
            Encoder::new(&Limits::default(), &retain).event(Audience::topic("t"), event).unwrap()
        };
        let event = || Event::new("n").conflate("a key");
        let plain = weight(&of(Retain::default(), event()));
        assert_eq!(weight(&of(Retain::default(), event().idempotency_key("once"))), plain + 4);
        let value = of(Retain::default().keep_latest(1), event());
        assert_eq!(weight(&value), plain + value.value_of().unwrap().len());
        let outbox = Outbox::new(9, 2 * plain);
        outbox.push(value).unwrap();
        assert_eq!(outbox.push(of(Retain::default(), event())).unwrap_err(), SendError::Full);
    }

    #[test]
    fn progress_counts_only_the_first_events() {
        let outbox = Outbox::new(3, usize::MAX);
        let mut waiting: Vec<_> = (0..3).map(|_| push(&outbox).unwrap()).collect();
        assert_eq!(push(&outbox).unwrap_err(), SendError::Full);
        assert_eq!((outbox.accepted(), outbox.len()), (3, 3));
        let mut batch = take(&outbox);
        let rest = batch.split_off(2);
        assert!(outbox.acknowledge(batch));
        assert_eq!(outbox.progress(2), Progress { left: 0, is_over: false });
        assert_eq!(outbox.progress(3), Progress { left: 1, is_over: false });
        waiting.push(push(&outbox).unwrap());
        assert!(outbox.acknowledge(rest));
        assert_eq!(outbox.progress(3), Progress { left: 0, is_over: false });
        assert_eq!((outbox.accepted(), outbox.len()), (4, 1));
        outbox.close();
        assert_eq!(push(&outbox).unwrap_err(), SendError::Closed);
        assert_eq!(outbox.len(), 1, "a closed queue is still sent");
        assert!(outbox.acknowledge(take(&outbox)) && outbox.is_over());
        assert!(waiting.into_iter().all(|confirmation| block_on(confirmation).is_ok()));
    }

    #[test]
    fn each_event_is_acknowledged_or_counted_as_lost() {
        for (taken, left) in [(0, 5), (2, 3), (5, 0)] {
            let outbox = Outbox::new(8, usize::MAX);
            let waiting: Vec<_> = (0..5).map(|_| push(&outbox).unwrap()).collect();
            let mut batch = take(&outbox);
            let late = batch.split_off(taken);
            assert!(outbox.acknowledge(batch));
            assert_eq!(outbox.abandon(), left);
            assert_eq!(outbox.abandon(), 0, "counted once");
            assert!(!outbox.acknowledge(late), "an answer that comes after the count");
            assert_eq!(outbox.progress(5), Progress { left: left as u64, is_over: true });
            assert_eq!((outbox.len(), outbox.is_over()), (0, true));
            outbox.close();
            assert_eq!(push(&outbox).unwrap_err(), SendError::Closed);
            let confirmed = waiting.into_iter().filter_map(|waiting| block_on(waiting).ok());
            assert_eq!(confirmed.count(), taken);
        }
    }
}
