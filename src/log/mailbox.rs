//! The position of a client in the log, and its window on the log's tail.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::entry::{Batch, Budget, Entry};
use crate::wire::id::EventId;

/// The position of one client in the log, and how the client gets its next events.
///
/// A client that keeps up reads its window: handles to the newest events. A handle pins no event,
/// with one exception: of some small events the log has only the text (see `RunLog`), and the window
/// pins a few of their entries. A client falls behind if more events come than the window holds, or
/// if the log drops an event of the window. Then the client reads the log from its
/// [`cursor`](Self::cursor).
///
/// Nearly every client has received everything, or has one event to read: it is *live*. The fields
/// that a live client needs come first, so that they lie in one cache line. The fields after them
/// do not count while the client is live.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Mailbox {
    /// Every event for the client up to here was received, is in the window, or must be read from
    /// the log. The mailbox takes no event at or before this position.
    tail: EventId,
    /// The only event of a live client's window, which is the event at the tail. If the window pins
    /// the event, `reading` has the event: the fields of a live client must fit a cache line.
    only: Option<Weak<Entry>>,
    stage: Stage,
    /// The client has received every event for it up to here.
    cursor: EventId,
    reading: Reading,
    /// How many events the log had evicted when the client connected and asked for the last few
    /// events, or when a gap was reported. While the log has evicted no more, the client has
    /// nothing new to be told. [`UNEXCUSED`] otherwise.
    excused_at: u64,
}

/// Whether events wait, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing waits: the client is live, and has received everything.
    Live,
    Since(Instant),
    /// See [`Waiting::ReadNow`].
    ReadNow,
}

/// The most events that a window pins. These count for no bound of the log.
const PINNED: usize = 8;

/// No loss is excused: no log evicts so many events.
const UNEXCUSED: u64 = u64::MAX;

/// How a client gets its next events.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "the box makes each client smaller")]
enum Reading {
    /// From the window. `pinned`: the only event of the window, if the window pins the event.
    /// `several`: `None` if the window never held more than one event.
    Window { pinned: Option<Arc<Entry>>, several: Option<Box<VecDeque<EntryRef>>> },
    /// From the log. `requested`: losses up to this id were already requested from the backplane;
    /// they must not be requested again.
    Log { pace: Pace, requested: EventId },
    /// Not before the backplane has brought the events that the client missed, or until `until`.
    Held { until: Instant },
    /// After a gap at the cursor, which must be reported first.
    Gap(GapReason),
}

/// Why a client reads the log. Decides whether a loss is the fault of a slow reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The client kept up, and has just fallen behind.
    FellBehind,
    /// The client has begun to read: it resumed, or fell behind before.
    Reading,
    /// A gap was reported, and the client has not kept up since: the loss is known.
    Excused,
    /// The client was held, and has not read since. Otherwise as `Excused`.
    Released,
}

/// Why events are missing, as `hub:gap` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// The log dropped them.
    Evicted,
    /// There are more than `Limits::replay` allows.
    Capped,
    /// The client's id is not of this order.
    Unknown,
    /// The order was replaced by another.
    Reset,
}

impl GapReason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Capped => "capped",
            Self::Unknown => "unknown",
            Self::Reset => "reset",
        }
    }
}

/// How long events have waited for a client that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nothing waits, or the client cannot read yet.
    No,
    Since(Instant),
    /// The client reads now. The reader sets the time, which it must not ask for under the lock.
    ReadNow,
}

/// An event on its way into mailboxes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handle<'a> {
    pub(crate) id: EventId,
    /// The time of publishing.
    pub(crate) at: Instant,
    pub(crate) entry: &'a EntryRef,
}

/// How a window refers to the entry of an event.
#[derive(Debug, Clone)]
pub(crate) enum EntryRef {
    /// The log owns the entry.
    Weak(Weak<Entry>),
    /// The log has only the text: the windows own the entry.
    Pinned(Arc<Entry>),
}

impl EntryRef {
    pub(crate) fn new(entry: &Arc<Entry>, by_log: bool) -> Self {
        if by_log { Self::Weak(Arc::downgrade(entry)) } else { Self::Pinned(Arc::clone(entry)) }
    }

    /// Returns the entry, unless the log has dropped the event.
    fn entry(&self) -> Option<Arc<Entry>> {
        match self {
            Self::Weak(entry) => entry.upgrade(),
            Self::Pinned(entry) => Some(Arc::clone(entry)),
        }
    }
}

/// A window without events.
const EMPTY: Reading = Reading::Window { pinned: None, several: None };

/// The result of [`Mailbox::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The event is not new to the client.
    Stale,
    /// The client can read the event.
    Ready,
    /// The client must wait for older events first.
    Held,
}

/// The result of [`Mailbox::take`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Events of the window.
    Batch,
    Nothing,
    /// A gap that moves the client to this id.
    Gap(EventId, GapReason),
    /// The client must read the log from its cursor.
    Behind,
    /// The client must wait for older events.
    Held,
}

impl Mailbox {
    /// Creates the mailbox of a client at `cursor`, when the log ends at `head`.
    pub(crate) fn new(cursor: EventId, head: EventId, pace: Pace, now: Instant) -> Self {
        if cursor >= head {
            // A client ahead of the log has every event up to its cursor from another instance.
            return Self::live(cursor);
        }
        let reading = Reading::Log { pace, requested: EventId::ORIGIN };
        Self { cursor, reading, stage: Stage::Since(now), ..Self::live(head) }
    }

    /// Creates the mailbox of a client that has every event up to `position`.
    pub(crate) fn live(position: EventId) -> Self {
        Self {
            tail: position,
            only: None,
            stage: Stage::Live,
            cursor: position,
            reading: EMPTY,
            excused_at: UNEXCUSED,
        }
    }

    /// Excuses every loss until the log has evicted more than `evicted` events.
    pub(crate) fn excuse(&mut self, evicted: u64) {
        self.excused_at = evicted;
    }

    /// Keeps the cursor, when the log was replaced by one that ends at `head`.
    pub(crate) fn restart(&mut self, head: EventId, now: Instant) {
        let pace = if self.is_excused() { Pace::Excused } else { Pace::Reading };
        let fresh = Self::new(self.cursor(), head, pace, now);
        match mem::replace(self, fresh).reading {
            // A gap that is not reported yet must not be lost.
            Reading::Gap(reason) => {
                self.reading = Reading::Gap(reason);
                self.stage = Stage::Since(now);
            }
            Reading::Window { .. } | Reading::Log { .. } | Reading::Held { .. } => {}
        }
    }

    /// Moves to `cursor`. The events before it are reported as a gap.
    pub(crate) fn jump(&mut self, cursor: EventId, head: EventId, reason: GapReason, now: Instant) {
        *self = Self::new(cursor, head, Pace::Excused, now);
        self.reading = Reading::Gap(reason);
        self.stage = Stage::Since(now);
    }

    /// Moves to `position` without a gap: a snapshot replaces the events before it.
    pub(crate) fn skip_to(&mut self, position: EventId, now: Instant) {
        if position > self.cursor() {
            *self = Self::new(position, self.tail, Pace::Reading, now);
        }
    }

    pub(crate) fn cursor(&self) -> EventId {
        // No event for this client lies before the only event of the window. The cursor stays fresh
        // for a client that seldom gets an event, so that its next resume finds no gap.
        match self.stage {
            Stage::Live => self.tail,
            _ if self.has_only() => self.tail.predecessor(),
            _ => self.cursor,
        }
    }

    /// Whether the window has a single event, which came when the client was live.
    fn has_only(&self) -> bool {
        self.only.is_some() || matches!(self.reading, Reading::Window { pinned: Some(_), .. })
    }

    /// Sets the fields that do not count while the client is live.
    fn unfold(&mut self) {
        self.cursor = self.cursor();
        if let Reading::Window { pinned, several } = &mut self.reading {
            let of_log = self.only.take().map(EntryRef::Weak);
            if let Some(only) = of_log.or_else(|| pinned.take().map(EntryRef::Pinned)) {
                several.get_or_insert_default().push_back(only);
            }
        }
    }

    /// The newest event for this client.
    pub(crate) fn tail(&self) -> EventId {
        self.tail
    }

    /// Whether a loss since the cursor must be reported, when the log has evicted `evicted` events.
    pub(crate) fn must_report_loss(&self, evicted: u64) -> bool {
        self.excused_at != evicted
    }

    /// Since when events have waited for a client that could read them.
    pub(crate) fn waiting(&self) -> Waiting {
        match (self.stage, &self.reading) {
            (Stage::Live, _) | (_, Reading::Held { .. }) => Waiting::No,
            (Stage::Since(since), _) => Waiting::Since(since),
            (Stage::ReadNow, _) => Waiting::ReadNow,
        }
    }

    /// Whether something waits for the client, also if the client is held.
    pub(crate) fn is_waiting(&self) -> bool {
        self.stage != Stage::Live
    }

    /// Whether the last read needs no [`settle_read`](Self::settle_read).
    pub(crate) fn is_settled(&self) -> bool {
        self.stage != Stage::ReadNow
    }

    /// Sets the time of a read that left events behind.
    pub(crate) fn settle_read(&mut self, now: Instant) {
        if self.stage == Stage::ReadNow {
            self.stage = Stage::Since(now);
        }
    }

    /// The client reads something else than events: the events that wait have waited since `now`.
    pub(crate) fn note_progress(&mut self, now: Instant) {
        if let Stage::Since(_) = self.stage {
            self.stage = Stage::Since(now);
        }
    }

    /// Adds an event for this client.
    ///
    /// Events come in order. An event that was appended before the client connected, or before the
    /// client had read the log to its end, may still be on its way here.
    #[inline]
    pub(crate) fn push(&mut self, event: &Handle<'_>, capacity: usize) -> Pushed {
        if event.id <= self.tail {
            return Pushed::Stale;
        }
        if self.stage == Stage::Live {
            match event.entry {
                EntryRef::Weak(entry) => self.only = Some(Weak::clone(entry)),
                EntryRef::Pinned(entry) => {
                    // A live client reads the window.
                    if let Reading::Window { pinned, .. } = &mut self.reading {
                        *pinned = Some(Arc::clone(entry));
                    }
                }
            }
            self.tail = event.id;
            self.stage = Stage::Since(event.at);
            return Pushed::Ready;
        }
        self.push_more(event, capacity)
    }

    /// Adds an event for a client that is not live, or has an event to read already.
    fn push_more(&mut self, event: &Handle<'_>, capacity: usize) -> Pushed {
        if self.has_only() {
            self.unfold();
        }
        if let Reading::Window { several, .. } = &mut self.reading {
            let window = several.get_or_insert_default();
            let is_pinned = matches!(event.entry, EntryRef::Pinned(_));
            if window.len() >= capacity {
                self.begin_log(Pace::FellBehind);
            } else if is_pinned && window.len() >= PINNED {
                // Not counted as lagging: a client that keeps up comes here, too, in a burst.
                self.begin_log(Pace::Reading);
            } else {
                window.push_back(event.entry.clone());
            }
        }
        self.tail = event.id;
        if self.held_until().is_some() { Pushed::Held } else { Pushed::Ready }
    }

    /// Takes the only event that waits for a live client. `None` if there is none, or if the log
    /// has dropped the event.
    #[inline]
    pub(crate) fn take_only(&mut self) -> Option<Arc<Entry>> {
        let entry = match (&self.only, &mut self.reading) {
            (Some(only), _) => only.upgrade()?,
            (None, Reading::Window { pinned, .. }) => pinned.take()?,
            (None, _) => return None,
        };
        self.only = None;
        self.stage = Stage::Live;
        Some(entry)
    }

    /// Takes the oldest events of the window, within `budget`.
    ///
    /// If events are left, the caller must [`settle_read`](Self::settle_read).
    pub(crate) fn take(&mut self, budget: Budget, out: &mut Batch) -> Taken {
        self.unfold();
        let window = match &mut self.reading {
            Reading::Window { several: Some(window), .. } => window,
            Reading::Window { several: None, .. } => return Taken::Nothing,
            Reading::Log { .. } => return Taken::Behind,
            Reading::Held { .. } => return Taken::Held,
            Reading::Gap(reason) => {
                let reason = *reason;
                self.report_gap();
                return Taken::Gap(self.cursor, reason);
            }
        };
        let mut bytes = 0;
        out.reserve(window.len());
        while let Some(oldest) = window.front() {
            let Some(entry) = oldest.entry() else {
                if !out.is_empty() {
                    break;
                }
                self.begin_log(Pace::FellBehind);
                return Taken::Behind;
            };
            if !budget.allows(out, bytes, &entry) {
                break;
            }
            bytes += entry.len();
            self.cursor = entry.id;
            window.pop_front();
            out.push(entry);
        }
        if out.is_empty() {
            return Taken::Nothing;
        }
        self.stage = if window.is_empty() { Stage::Live } else { Stage::ReadNow };
        Taken::Batch
    }

    /// Makes the client read the log if more than one event waits.
    pub(crate) fn skip_window(&mut self) {
        if let Reading::Window { several: Some(window), .. } = &self.reading
            && !window.is_empty()
        {
            self.begin_log(Pace::Reading);
        }
    }

    /// The gap is being reported: the client goes on from its cursor.
    fn report_gap(&mut self) {
        if self.cursor < self.tail {
            self.begin_log(Pace::Excused);
            self.stage = Stage::ReadNow;
        } else {
            self.reading = EMPTY;
            self.stage = Stage::Live;
        }
    }

    /// How the client reads the log, and up to where losses were requested. `None` if it does not.
    pub(crate) fn reads_log(&self) -> Option<(Pace, EventId)> {
        match self.reading {
            Reading::Log { pace, requested } => Some((pace, requested)),
            Reading::Window { .. } | Reading::Held { .. } | Reading::Gap(_) => None,
        }
    }

    /// Whether the client reads the log next, now or when it is no longer held.
    pub(crate) fn will_read_log(&self) -> bool {
        matches!(self.reading, Reading::Log { .. } | Reading::Held { .. })
    }

    /// Whether a loss is known to the client, and no fault of a slow reader.
    fn is_excused(&self) -> bool {
        match self.reading {
            Reading::Window { .. } => false,
            Reading::Log { pace, .. } => pace.is_excused(),
            Reading::Held { .. } | Reading::Gap(_) => true,
        }
    }

    /// Holds a client that reads the log until the events that it missed are there.
    pub(crate) fn hold(&mut self, until: Instant) {
        debug_assert!(self.reads_log().is_some(), "a client that is not behind misses nothing");
        self.reading = Reading::Held { until };
    }

    /// Until when the client is held, if it is.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        match self.reading {
            Reading::Held { until } => Some(until),
            Reading::Window { .. } | Reading::Log { .. } | Reading::Gap(_) => None,
        }
    }

    /// Lets a held client read the log. Losses up to `requested` must not be requested again.
    pub(crate) fn release(&mut self, requested: EventId, now: Instant) {
        self.reading = Reading::Log { pace: Pace::Released, requested };
        // The client could not read before.
        self.stage = Stage::Since(now);
    }

    /// The client has read the log up to `cursor`, and events are left.
    pub(crate) fn advance(&mut self, cursor: EventId, now: Instant) {
        self.cursor = cursor;
        self.stage = Stage::Since(now);
        if let Reading::Log { pace, .. } = &mut self.reading {
            *pace = if pace.is_excused() { Pace::Excused } else { Pace::Reading };
        }
    }

    /// The client has read the log to its end, which is `head`, under the lock of the log.
    pub(crate) fn catch_up(&mut self, head: EventId) {
        *self = Self::live(head);
    }

    /// The client reads the log from its cursor, and no loss was requested from the backplane.
    fn begin_log(&mut self, pace: Pace) {
        self.reading = Reading::Log { pace, requested: EventId::ORIGIN };
    }
}

impl Pace {
    pub(crate) const fn is_excused(self) -> bool {
        matches!(self, Self::Excused | Self::Released)
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::slice;

    use super::*;
    use crate::log::hash::KeyHasher;
    use crate::log::key::Key;
    use crate::wire::event::Event;

    const ALL: Budget = Budget { bytes: usize::MAX };

    fn id(seq: u64) -> EventId {
        EventId::new(1, seq)
    }

    /// Returns events with the ids from 1 on.
    fn entries(count: u64) -> Vec<Arc<Entry>> {
        let key = Key::User("ann".into());
        let hashes = KeyHasher::default().hashes(slice::from_ref(&key), b"n");
        let entry = |seq| {
            let sealed = Event::new("n").data("x").seal();
            Entry::joined(id(seq), sealed, &key, hashes.clone(), Instant::now())
        };
        (1..=count).map(entry).collect()
    }

    fn push(mailbox: &mut Mailbox, entry: &Arc<Entry>, by_log: bool, capacity: usize) {
        let entry_ref = EntryRef::new(entry, by_log);
        let event = Handle { id: entry.id, at: Instant::now(), entry: &entry_ref };
        assert_eq!(mailbox.push(&event, capacity), Pushed::Ready);
    }

    /// Takes the next events, and returns their numbers.
    fn taken(mailbox: &mut Mailbox, budget: Budget) -> Vec<u64> {
        let mut out = Batch::new();
        assert_eq!(mailbox.take(budget, &mut out), Taken::Batch);
        out.iter().map(|entry| entry.id.seq()).collect()
    }

    #[test]
    fn only_a_window_of_several_events_is_skipped() {
        let entries = entries(4);
        let mut mailbox = Mailbox::live(id(0));
        let is_skipped = |mailbox: &mut Mailbox| {
            mailbox.skip_window();
            mailbox.reads_log().is_some()
        };
        assert!(!is_skipped(&mut mailbox));
        push(&mut mailbox, &entries[0], true, 9);
        push(&mut mailbox, &entries[1], true, 9);
        taken(&mut mailbox, ALL);
        assert!(!mailbox.is_waiting() && !is_skipped(&mut mailbox), "the window is empty");
        push(&mut mailbox, &entries[2], true, 9);
        assert!(!is_skipped(&mut mailbox));
        push(&mut mailbox, &entries[3], true, 9);
        assert!(is_skipped(&mut mailbox));
    }

    #[test]
    fn a_client_reads_the_events_of_its_window() {
        // Whether the log keeps the entry of an event.
        let owners: [fn(u64) -> bool; 3] = [|_| false, |_| true, |seq| seq % 2 == 0];
        for by_log in owners {
            let mut entries = entries(2 + PINNED as u64);
            let mut mailbox = Mailbox::live(id(0));
            let push = |mailbox: &mut Mailbox, seq: u64| {
                push(mailbox, &entries[seq as usize - 1], by_log(seq), 9);
            };
            push(&mut mailbox, 1);
            assert_eq!(mailbox.cursor(), id(0));
            assert_eq!(mailbox.take_only().map(|entry| entry.id), Some(id(1)));
            assert!(!mailbox.is_waiting() && mailbox.cursor() == id(1));
            push(&mut mailbox, 2);
            assert_eq!(taken(&mut mailbox, ALL), [2]);
            let last = 2 + PINNED as u64;
            (3..=last).for_each(|seq| push(&mut mailbox, seq));
            assert!(mailbox.take_only().is_none() && mailbox.reads_log().is_none());
            for seq in 3..6 {
                assert_eq!((mailbox.cursor(), mailbox.tail()), (id(seq - 1), id(last)));
                assert_eq!(taken(&mut mailbox, Budget { bytes: 1 }), [seq]);
                assert!(mailbox.is_waiting() && !mailbox.is_settled());
            }
            assert_eq!(taken(&mut mailbox, Budget { bytes: 2 * entries[0].len() }), [6, 7]);
            assert_eq!(taken(&mut mailbox, ALL), (8..=last).collect::<Vec<_>>());
            assert!(!mailbox.is_waiting() && mailbox.is_settled());
            assert_eq!(mailbox.take(ALL, &mut Batch::new()), Taken::Nothing);
            // The client pins no event that it has read.
            let freed: Vec<_> = entries.drain(..).map(|entry| Arc::downgrade(&entry)).collect();
            assert!(freed.iter().all(|entry| entry.upgrade().is_none()));
        }
    }

    #[test]
    fn a_client_leaves_a_window_that_holds_no_more_events() {
        // Who keeps each event, the capacity of the window, and why the client reads the log.
        let (log, client) = (true, false);
        for (owners, capacity, pace) in [
            (vec![client; PINNED], 9, None),
            (vec![client; PINNED + 1], 9, Some(Pace::Reading)),
            (vec![client; 2], 2, None),
            (vec![client; 3], 2, Some(Pace::FellBehind)),
            (vec![client; 1], 0, None),
            (vec![client; 2], 0, Some(Pace::FellBehind)),
            (vec![client, log], 9, None),
            (vec![log, client], 9, None),
            ([vec![log; PINNED], vec![client]].concat(), 9, Some(Pace::Reading)),
            ([vec![client; PINNED], vec![log]].concat(), 9, None),
            ([vec![client; PINNED], vec![log; 2]].concat(), 9, Some(Pace::FellBehind)),
        ] {
            let mut mailbox = Mailbox::live(id(0));
            let mut entries = entries(owners.len() as u64);
            for (entry, &by_log) in entries.iter().zip(&owners) {
                push(&mut mailbox, entry, by_log, capacity);
            }
            assert_eq!(mailbox.reads_log().map(|(pace, _)| pace), pace, "{owners:?} {capacity}");
            assert_eq!((mailbox.cursor(), mailbox.tail().seq()), (id(0), owners.len() as u64));
            let pinned: Vec<_> = entries.drain(..).map(|entry| Arc::downgrade(&entry)).collect();
            for (entry, by_log) in pinned.iter().zip(owners) {
                assert_eq!(entry.upgrade().is_some(), pace.is_none() && !by_log);
            }
        }
    }

    #[test]
    fn a_client_reads_the_log_for_an_event_that_the_window_lost() {
        let mut entries = entries(3);
        let mut mailbox = Mailbox::live(id(0));
        for (entry, by_log) in entries.iter().zip([false, true, false]) {
            push(&mut mailbox, entry, by_log, 9);
        }
        entries.clear();
        assert_eq!(taken(&mut mailbox, ALL), [1]);
        assert_eq!(mailbox.take(ALL, &mut Batch::new()), Taken::Behind);
        assert_eq!((mailbox.cursor(), mailbox.tail()), (id(1), id(3)));
    }

    #[test]
    fn a_replaced_log_leaves_known_losses_excused() {
        let now = Instant::now();
        let behind = |pace| Mailbox::new(id(1), id(5), pace, now);
        let pace_after = |mut mailbox: Mailbox| {
            mailbox.restart(id(9), now);
            assert_eq!((mailbox.cursor(), mailbox.tail()), (id(1), id(9)));
            mailbox.reads_log().map(|(pace, _)| pace)
        };
        assert_eq!(pace_after(Mailbox::live(id(1))), Some(Pace::Reading));
        assert_eq!(pace_after(behind(Pace::FellBehind)), Some(Pace::Reading));
        assert_eq!(pace_after(behind(Pace::Excused)), Some(Pace::Excused));
        let mut held = behind(Pace::Reading);
        held.hold(now);
        assert_eq!(pace_after(held), Some(Pace::Excused));

        let mut told = behind(Pace::Reading);
        told.jump(id(2), id(5), GapReason::Capped, now);
        told.restart(id(9), now);
        let gap = told.take(Budget { bytes: 0 }, &mut Batch::new());
        assert_eq!(gap, Taken::Gap(id(2), GapReason::Capped));
        assert_eq!(told.reads_log().map(|(pace, _)| pace), Some(Pace::Excused));
    }
}
