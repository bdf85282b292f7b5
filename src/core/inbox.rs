//! The inboxes of the clients, side by side in memory.
//!
//! A hand-out visits the inbox of each client, and each client then visits its own. With many
//! clients, both wait for memory that is in no cache. So inboxes are small, and lie in blocks in
//! the order in which clients come: a hand-out reads memory forward, and takes the lock of a block
//! once.
//!
//! An inbox belongs to a client from the subscription until the subscription is dropped, also if
//! the hub forgets the client earlier.

use std::array;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::end::{End, EndReason, Ending};
use super::extras::{Beginning, Extras};
use super::pacing::Pacing;
use super::stats::Read;
use crate::log::entry::{Batch, Budget, Entry};
use crate::log::mailbox::{Mailbox, Waiting};
use crate::log::pages::Older;
use crate::sync::{Mutex, MutexGuard};
use crate::wire::id::EventId;

/// How many inboxes share a lock. With more, a hand-out takes fewer locks, and more streams wait
/// for each other. loom explores every order with a lock for each.
const BLOCK: usize = if cfg!(sse_hub_loom) { 1 } else { 16 };

/// The part of a client that a block's lock guards: the client's position, its end, and its waker.
///
/// [`Mailbox`] decides how the client reads, [`Ending`] whether it takes events. The two meet only
/// here.
///
/// The fields that a live client needs come first, in one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Inbox {
    /// Wakes the task that polls the stream. The thread that fills the inbox takes the waker, or
    /// leaves the waker to a task that wakes many clients.
    waker: Option<Waker>,
    /// The client stands in the list of clients that may stall.
    pub(crate) is_watched: bool,
    /// The stream's timer fired since the last poll.
    timer_fired: bool,
    /// The client has a pace, and reads nothing for now. A thread that adds an event must not wake
    /// the stream: the timer does.
    is_resting: bool,
    /// The client is in [`Due`](super::due::Due): a task takes the waker later.
    is_due: bool,
    /// The fields behind the mailbox have their first values: the stream is open without a
    /// scheduled end, and has no extras.
    is_plain: bool,
    /// The stream waits for the snapshot of the application: it is no fault of the client that the
    /// events are not read.
    awaits_snapshot: bool,
    pub(crate) mailbox: Mailbox,
    ending: Ending,
    /// `None` for most clients.
    extras: Option<Box<Extras>>,
}

// The fields up to the mailbox take 24 bytes, and the fields of a live client in it 40.
const _: () = assert!(size_of::<Inbox>() == 128);

impl Inbox {
    pub(crate) fn new(mailbox: Mailbox, ending: Ending) -> Self {
        Self {
            waker: None,
            is_watched: false,
            timer_fired: false,
            is_resting: false,
            is_due: false,
            is_plain: ending.is_endless(),
            awaits_snapshot: false,
            mailbox,
            ending,
            extras: None,
        }
    }

    /// The inbox of nobody.
    fn vacant() -> Self {
        Self::new(Mailbox::live(EventId::ORIGIN), Ending::open(None, None))
    }

    /// Decides the end of the stream. Returns the waker of its task.
    pub(crate) fn end(&mut self, end: End) -> Option<Waker> {
        self.ending.decide(end);
        self.is_plain = false;
        self.waker.take()
    }

    /// Schedules the end of the stream. Returns the waker of its task, which must arm the timer.
    pub(crate) fn schedule_end(&mut self, at: Instant, reason: EndReason) -> Option<Waker> {
        self.ending.schedule(at, reason);
        self.is_plain = false;
        self.waker.take()
    }

    /// Schedules an end for the case that none of the stream's runs starts.
    pub(crate) fn await_runs(&mut self, by: Instant) {
        self.ending.await_runs(by);
        self.is_plain = false;
    }

    /// A run of the stream has started.
    pub(crate) fn note_run(&mut self) {
        self.ending.note_run();
    }

    /// The state of the end of the stream.
    pub(crate) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// Takes the last frames of a stream that is [over](Ending::take_over).
    pub(crate) fn take_over(&mut self) -> Option<Option<Bytes>> {
        self.ending.take_over()
    }

    /// Takes the last frames of a stream whose [backlog is delivered](Ending::take_last).
    pub(crate) fn take_last(&mut self) -> Option<Option<Bytes>> {
        self.ending.take_last()
    }

    /// Whether the stream takes further events.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.is_plain || self.ending.is_open()
    }

    /// Takes the waker of the stream's task, which must be woken after the locks are released.
    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// Leaves the waker to a task that takes the waker later. Returns false if there is no waker,
    /// or if the task knows.
    #[inline]
    pub(super) fn leave_waker(&mut self) -> bool {
        let leaves = self.waker.is_some() && !self.is_due;
        self.is_due |= leaves;
        leaves
    }

    /// Takes the waker that was left, unless an event for the client took it before.
    #[cfg(feature = "serve")]
    pub(super) fn take_left_waker(&mut self) -> Option<Waker> {
        self.is_due = false;
        self.waker.take()
    }

    /// Whether the task of `waker` will be woken.
    pub(crate) fn will_wake(&self, waker: &Waker) -> bool {
        self.waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }

    /// Registers the waker of the stream's task. Returns the previous waker, which must be dropped
    /// after the lock is released: its destructor is foreign code.
    pub(crate) fn register(&mut self, waker: Waker) -> Option<Waker> {
        self.waker.replace(waker)
    }

    /// Takes the only event of the window of a stream that has no other concern. `None` if the
    /// stream must be looked at more closely.
    #[inline]
    pub(crate) fn take_only(&mut self) -> Option<Arc<Entry>> {
        if self.is_plain && !self.timer_fired { self.mailbox.take_only() } else { None }
    }

    /// Whether the stream is open without a scheduled end, and has no extras.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Adds events before the client's position.
    pub(crate) fn add_unsent(&mut self, events: Older) {
        if !events.is_empty() {
            self.change_extras(|extras| extras.add_unsent(events));
        }
    }

    /// Whether [`take_unsent`](Self::take_unsent) has events.
    pub(crate) fn has_unsent(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.has_unsent())
    }

    /// Takes the oldest events before the client's position, within `budget`. Returns whether the
    /// log evicted some of these.
    pub(crate) fn take_unsent(&mut self, budget: Budget, out: &mut Batch) -> bool {
        self.change_extras(|extras| extras.take_unsent(budget, out))
    }

    /// Makes the client begin with the values up to `upto`.
    pub(crate) fn begin_with_values(&mut self, upto: EventId) {
        self.change_extras(|extras| extras.values = Some(Beginning { upto, told: None }));
    }

    /// The values that the client still has to read, if it began with the values.
    pub(crate) fn beginning(&self) -> Option<Beginning> {
        self.extras.as_ref()?.values
    }

    /// Notes which losses of values the client was told; `None` if the client has read all values.
    pub(crate) fn set_beginning(&mut self, values: Option<Beginning>) {
        if self.beginning() != values {
            self.change_extras(|extras| extras.values = values);
        }
    }

    /// Sets the pace of the client.
    pub(crate) fn set_pace(&mut self, pacing: Pacing) {
        self.change_extras(|extras| extras.pacing = Some(pacing));
    }

    /// Returns whether the client has a pace.
    pub(crate) fn is_paced(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.pacing.is_some())
    }

    /// Returns whether the client may read now. A client with a pace begins a batch, or rests.
    ///
    /// An end does not wait for the pace: the backlog of a stream that is to end comes at once.
    pub(crate) fn may_read(&mut self) -> bool {
        let is_open = self.is_open();
        let Some(pacing) = self.extras.as_mut().and_then(|extras| extras.pacing.as_mut()) else {
            return true;
        };
        if self.is_resting {
            return !is_open;
        }
        let mailbox = &mut self.mailbox;
        if is_open && pacing.begin(mailbox.cursor(), mailbox.tail()) {
            // The log holds each conflation key once, the window does not.
            mailbox.skip_window();
        }
        true
    }

    /// Up to where the client may read now.
    pub(crate) fn batch_end(&self) -> EventId {
        let pacing = self.extras.as_ref().and_then(|extras| extras.pacing);
        let end = pacing.and_then(|pacing| pacing.batch_end());
        end.filter(|_| self.is_open()).unwrap_or(EventId::LAST)
    }

    /// Notes a read at `now`, and whether the client received events. A client with a pace that has
    /// read its batch rests.
    pub(crate) fn note_read(&mut self, has_sent: bool, now: Instant) {
        let is_last = !self.has_unsent()
            && (!self.mailbox.is_waiting() || self.mailbox.cursor() >= self.batch_end());
        self.change_pace(|pacing| pacing.note_read(has_sent, is_last, now));
    }

    /// Whether events that come now must wait for the end of the client's rest.
    pub(crate) fn is_resting(&self) -> bool {
        self.is_resting
    }

    fn rests_until(&self) -> Option<Instant> {
        self.extras.as_ref()?.pacing?.rests_until()
    }

    /// Changes the pace of the client, if there is one, and with it whether the client rests.
    fn change_pace(&mut self, change: impl FnOnce(&mut Pacing)) {
        if let Some(pacing) = self.extras.as_mut().and_then(|extras| extras.pacing.as_mut()) {
            change(pacing);
            self.is_resting = pacing.rests_until().is_some();
        }
    }

    fn change_extras<T>(&mut self, change: impl FnOnce(&mut Extras) -> T) -> T {
        let extras = self.extras.get_or_insert_default();
        let result = change(extras);
        if extras.is_empty() {
            self.extras = None;
        }
        self.is_plain = self.extras.is_none() && self.ending.is_endless();
        result
    }

    /// The stream's timer fired. Returns the waker of the stream's task.
    pub(super) fn fire(&mut self) -> Option<Waker> {
        self.timer_fired = true;
        self.waker.take()
    }

    /// Returns whether the timer fired since the last call.
    pub(crate) fn take_fired(&mut self) -> bool {
        mem::take(&mut self.timer_fired)
    }

    /// When [`pass`](Self::pass) has something to do next.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let rest = if self.is_resting { self.rests_until() } else { None };
        let times = [self.ending.next_at(), self.mailbox.held_until(), rest];
        times.into_iter().flatten().min()
    }

    /// Handles the deadlines that passed at `now`: ends the stream, releases a client that was held
    /// too long, or ends the rest of a client with a pace.
    pub(crate) fn pass(&mut self, now: Instant, retry: Duration) {
        if self.mailbox.held_until().is_some_and(|until| until <= now) {
            // The backplane did not answer in time: report every loss, and request none again.
            self.mailbox.release(EventId::LAST, now);
        }
        if self.is_resting {
            self.change_pace(|pacing| pacing.pass(now));
        }
        self.ending.pass(now, retry);
    }

    /// Since when events have waited for the stream to be read. The time of a rest does not count.
    pub(crate) fn waiting(&self) -> Waiting {
        match (self.mailbox.waiting(), self.rests_until()) {
            (Waiting::Since(_), _) if self.awaits_snapshot => Waiting::ReadNow,
            (Waiting::Since(since), Some(until)) => Waiting::Since(since.max(until)),
            (Waiting::ReadNow, Some(until)) => Waiting::Since(until),
            (waiting, _) => waiting,
        }
    }

    /// The stream waits for the snapshot of the application.
    pub(crate) fn await_snapshot(&mut self) {
        self.awaits_snapshot = true;
    }

    /// The stream returns a part of the snapshot: from `now` on, the client must read.
    pub(crate) fn note_snapshot(&mut self, now: Instant) {
        self.awaits_snapshot = false;
        self.mailbox.note_progress(now);
    }
}

/// Inboxes that lie side by side, under a lock.
#[derive(Debug)]
pub(crate) struct Block {
    /// Which inboxes hold a waker. Written under the lock, read without: a stream whose waker is
    /// there has nothing to look at, or will be woken.
    waits: [AtomicBool; BLOCK],
    contents: Mutex<Contents>,
}

#[derive(Debug)]
struct Contents {
    inboxes: [Inbox; BLOCK],
    /// The reads of all clients that ever had an inbox here.
    read: Read,
}

impl Block {
    fn new() -> Self {
        let inboxes = array::from_fn(|_| Inbox::vacant());
        Self {
            waits: array::from_fn(|_| AtomicBool::new(false)),
            contents: Mutex::new(Contents { inboxes, read: Read::default() }),
        }
    }

    fn lock(&self, index: usize) -> InboxGuard<'_> {
        InboxGuard { waits: &self.waits[index], contents: self.contents.lock(), index }
    }
}

/// Access to an inbox. Dropping the guard unlocks.
///
/// The lock is that of the block: a thread that holds one inbox must lock no other.
#[derive(Debug)]
#[must_use = "dropping the guard unlocks at once"]
pub(crate) struct InboxGuard<'a> {
    waits: &'a AtomicBool,
    contents: MutexGuard<'a, Contents>,
    index: usize,
}

impl InboxGuard<'_> {
    /// Counts an item that the stream returns: `events` events of `bytes` bytes.
    pub(crate) fn count_read(&mut self, events: usize, bytes: usize) {
        self.contents.read.add(events, bytes);
    }
}

impl Deref for InboxGuard<'_> {
    type Target = Inbox;

    fn deref(&self) -> &Inbox {
        &self.contents.inboxes[self.index]
    }
}

impl DerefMut for InboxGuard<'_> {
    fn deref_mut(&mut self) -> &mut Inbox {
        &mut self.contents.inboxes[self.index]
    }
}

impl Drop for InboxGuard<'_> {
    fn drop(&mut self) {
        self.waits.store(self.waker.is_some(), Ordering::Relaxed);
    }
}

/// Where the inbox of a client lies.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    block: Arc<Block>,
    number: u32,
}

impl Place {
    /// The number of the inbox among all inboxes.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn lock(&self) -> InboxGuard<'_> {
        self.block.lock(index(self.number))
    }

    /// Whether the inbox holds a waker. Takes no lock: a thread that changes the inbox at the same
    /// time takes the waker, and wakes.
    pub(crate) fn waits(&self) -> bool {
        self.block.waits[index(self.number)].load(Ordering::Relaxed)
    }
}

/// The index of an inbox in its block.
const fn index(number: u32) -> usize {
    number as usize % BLOCK
}

/// The inboxes of a hub's clients.
#[derive(Debug, Default)]
pub(crate) struct Inboxes {
    rows: Vec<Row>,
    /// The rows with a vacant inbox.
    with_room: Vec<u32>,
    /// How many rows have a block.
    blocks: usize,
    /// The reads of clients in blocks that are freed.
    read: Read,
}

/// The place of a block.
#[derive(Debug)]
struct Row {
    /// `None` if every inbox is vacant.
    block: Option<Arc<Block>>,
    /// The bits of the vacant inboxes.
    vacant: u16,
}

const ALL_VACANT: u16 = u16::MAX >> (u16::BITS as usize - BLOCK);

impl Inboxes {
    /// Adds an inbox.
    pub(crate) fn add(&mut self, inbox: Inbox) -> Place {
        let at = *self.with_room.last().unwrap_or(&(self.rows.len() as u32));
        if at as usize == self.rows.len() {
            self.rows.push(Row { block: None, vacant: ALL_VACANT });
            self.with_room.push(at);
        }
        let row = &mut self.rows[at as usize];
        let index = row.vacant.trailing_zeros();
        row.vacant &= row.vacant - 1;
        if row.vacant == 0 {
            self.with_room.pop();
        }
        let block = Arc::clone(row.block.get_or_insert_with(|| {
            self.blocks += 1;
            Arc::new(Block::new())
        }));
        let place = Place { block, number: at * BLOCK as u32 + index };
        *place.lock() = inbox;
        place
    }

    /// Removes an inbox, which must be dropped after the locks are released.
    pub(crate) fn remove(&mut self, place: &Place) -> Inbox {
        let inbox = mem::replace(&mut *place.lock(), Inbox::vacant());
        let at = place.number as usize / BLOCK;
        let row = &mut self.rows[at];
        if row.vacant == 0 {
            self.with_room.push(at as u32);
        }
        row.vacant |= 1 << index(place.number);
        if row.vacant == ALL_VACANT {
            row.block = None;
            self.read.merge(&place.block.contents.lock().read);
            self.blocks -= 1;
            if self.blocks == 0 {
                (self.rows, self.with_room) = (Vec::new(), Vec::new());
            }
        }
        inbox
    }

    /// Visits inboxes one after the other. Inboxes that lie side by side cost one lock.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk { rows: &self.rows, here: None }
    }

    /// Returns the sum of the reads of all clients.
    pub(crate) fn read(&self) -> Read {
        let mut sum = self.read;
        for block in self.rows.iter().filter_map(|row| row.block.as_ref()) {
            sum.merge(&block.contents.lock().read);
        }
        sum
    }
}

/// See [`Inboxes::walk`].
pub(crate) struct Walk<'a> {
    rows: &'a [Row],
    here: Option<(usize, &'a Block, MutexGuard<'a, Contents>)>,
}

impl Walk<'_> {
    /// Runs `visit` on the inbox with this number, under its lock. `None` if there is none.
    #[inline]
    pub(crate) fn visit<T>(
        &mut self,
        number: u32,
        visit: impl FnOnce(&mut Inbox) -> T,
    ) -> Option<T> {
        let at = number as usize / BLOCK;
        if self.here.as_ref().is_none_or(|&(here, ..)| here != at) {
            // Unlocks the block before.
            self.here = None;
            let block = self.rows.get(at)?.block.as_deref()?;
            self.here = Some((at, block, block.contents.lock()));
        }
        let (_, block, contents) = self.here.as_mut()?;
        let index = index(number);
        let inbox = &mut contents.inboxes[index];
        let result = visit(inbox);
        block.waits[index].store(inbox.waker.is_some(), Ordering::Relaxed);
        Some(result)
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::sync::Weak;

    use super::*;

    fn inbox(position: u64) -> Inbox {
        Inbox::new(Mailbox::live(EventId::new(1, position)), Ending::open(None, None))
    }

    fn position(place: &Place) -> u64 {
        place.lock().mailbox.cursor().seq()
    }

    #[test]
    fn vacant_places_are_taken_again() {
        let mut inboxes = Inboxes::default();
        let count = 3 * BLOCK as u64;
        let places: Vec<Place> = (0..count).map(|number| inboxes.add(inbox(number))).collect();
        assert!(places.iter().zip(0..).all(|(place, number)| position(place) == number));
        for at in [0, BLOCK, BLOCK + 1] {
            inboxes.remove(&places[at]);
        }
        let mut numbers: Vec<u32> = (0..3).map(|_| inboxes.add(inbox(9)).number()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, BLOCK as u32, BLOCK as u32 + 1]);
        assert_eq!((inboxes.rows.len(), position(&places[2])), (3, 2), "the others stay");
    }

    #[test]
    fn freed_blocks_keep_their_counts() {
        let mut inboxes = Inboxes::default();
        let places: Vec<Place> = (0..=BLOCK).map(|_| inboxes.add(inbox(0))).collect();
        for place in &places {
            place.lock().count_read(2, 10);
        }
        let read = format!("{:?}", inboxes.read());
        for place in places {
            inboxes.remove(&place);
            assert_eq!(format!("{:?}", inboxes.read()), read);
        }
        assert!(inboxes.rows.is_empty() && inboxes.with_room.is_empty() && inboxes.blocks == 0);
    }

    #[test]
    fn waits_says_whether_a_waker_is_there() {
        let mut inboxes = Inboxes::default();
        let place = inboxes.add(inbox(0));
        assert!(!place.waits());
        place.lock().register(Waker::noop().clone());
        assert!(place.waits());
        inboxes.walk().visit(place.number(), |inbox| assert!(inbox.take_waker().is_some()));
        assert!(!place.waits());
        place.lock().register(Waker::noop().clone());
        assert!(place.lock().fire().is_some() && !place.waits() && place.lock().take_fired());
    }

    #[test]
    fn ends_and_unsent_events_leave_the_short_path() {
        let at = Instant::now();
        let mut ended = inbox(0);
        assert!(ended.is_plain() && ended.is_open());
        ended.end(End::silent(EndReason::Closed));
        assert!(!ended.is_plain() && !ended.is_open());
        let mut scheduled = inbox(0);
        scheduled.schedule_end(at, EndReason::Drained);
        assert!(!scheduled.is_plain() && scheduled.is_open());
        let mut behind = inbox(0);
        behind.add_unsent([(EventId::new(1, 1), Weak::new())].into());
        assert!(!behind.is_plain() && behind.is_open());
        let is_lost = behind.take_unsent(Budget { bytes: 1 }, &mut Batch::new());
        assert!(is_lost && behind.is_plain() && !behind.has_unsent());
    }
}
