//! History reads: clients, and readers without a stream, that wait for older events than the log
//! has.
//!
//! Such a client is *held*: the hub sends it only heartbeats, and asks the backplane for the events
//! before the log. The backplane brings them in pieces, from the newest back, and each piece becomes
//! part of the log. The hub releases a client as soon as the log reaches back to its position, or if
//! nothing more can come. The client then reads the log like any client that is behind. There is no
//! second way to read, so no event can be lost or repeated where two ways meet.
//!
//! A reader of a [page](crate::Page) waits in the same way, and reads the log when released. It has
//! no stream and no slot: its future holds a key here, and frees the key when it is dropped.

use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::client::Client;
use super::settings::History;
use crate::log::entry::Entry;
use crate::log::log::Log;
use crate::log::routes::Routes;
use crate::wire::id::EventId;

/// How long the log keeps older events after the last read of them.
const LINGER: Duration = Duration::from_secs(10);

/// The most readers without a stream that wait at a time. Each piece of older events looks at every
/// reader under the state lock.
const MAX_READERS: usize = 4096;

/// A range of older events that clients wait for, or readers without a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryRequest {
    /// The position of the newest event that is wanted. If the order has no entry there, every
    /// event that is wanted is [gone](crate::backplane::Feed::gone).
    pub upto: EventId,
    /// The oldest position that a client or a reader waits at. Events after it are wanted.
    pub after: EventId,
    /// How many events the log has room for.
    pub events: usize,
}

/// The clients that are held, the readers that wait, and up to where older events can still come.
#[derive(Debug)]
pub(crate) struct Held {
    /// `None` if the hub does no history reads.
    history: Option<History>,
    clients: Vec<HeldClient>,
    /// Each reader stays until its future removes it.
    readers: Slab<Reader>,
    /// The backplane cannot bring events up to this id.
    gone: EventId,
    /// When a client or a reader last read, or waited for, events beyond the retention.
    used: Option<Instant>,
}

#[derive(Debug)]
struct HeldClient {
    slot: usize,
    serial: u64,
    /// The client has every event up to here.
    after: EventId,
}

/// A reader without a stream.
#[derive(Debug)]
enum Reader {
    /// Waits for the events after `after`. The waker is that of the last poll.
    Waiting { after: EventId, waker: Option<Waker> },
    /// May read the log. Losses up to `requested` must not be requested again.
    Released { requested: EventId },
}

impl Reader {
    fn after(&self) -> Option<EventId> {
        match self {
            Self::Waiting { after, .. } => Some(*after),
            Self::Released { .. } => None,
        }
    }

    /// Lets the reader go on. Returns the waker of its task.
    fn release(&mut self, requested: EventId) -> Option<Waker> {
        match mem::replace(self, Self::Released { requested }) {
            Self::Waiting { waker, .. } => waker,
            Self::Released { .. } => None,
        }
    }
}

/// The hub has no room for one more waiting reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyReaders;

impl Held {
    pub(crate) fn new(history: Option<History>) -> Self {
        Self {
            history,
            clients: Vec::new(),
            readers: Slab::new(),
            gone: EventId::ORIGIN,
            used: None,
        }
    }

    /// Returns until when a client or a reader may wait for the events after `after`; `None` if
    /// none can come.
    pub(crate) fn may_hold(&self, after: EventId, log: &Log, now: Instant) -> Option<Instant> {
        let history = self.history.filter(|_| self.can_bring(after, log))?;
        Some(history.until(now))
    }

    /// Whether the backplane can bring some event after `after` that the log lacks.
    fn can_bring(&self, after: EventId, log: &Log) -> bool {
        let Some(history) = self.history else { return false };
        let whole_from = log.whole_from();
        after < whole_from && self.gone < whole_from && log.room(history.allowance) > 0
    }

    /// Whether the backplane is likely to bring *every* event after `after` that the log lacks.
    pub(crate) fn is_hopeful(&self, after: EventId, log: &Log) -> bool {
        self.gone <= after && self.can_bring(after, log)
    }

    /// Returns until when clients may wait after the log was loaded for the first time.
    pub(crate) fn until_first_load(&self, now: Instant) -> Option<Instant> {
        self.history.map(|history| history.until(now))
    }

    /// Adds a client that waits for the events after `after`. The caller holds its mailbox.
    pub(crate) fn add(
        &mut self,
        slot: usize,
        client: &Client,
        after: EventId,
        now: Instant,
        log: &mut Log,
        routes: &Routes<Arc<Client>>,
    ) {
        self.note_wait(now, log);
        self.clients.push(HeldClient { slot, serial: client.serial, after });
        if self.clients.len() > routes.prune_at() {
            self.prune(routes);
        }
    }

    /// Adds a reader that waits for the events after `after`, and returns its key. The future of
    /// the reader must [remove](Self::remove_reader) the key.
    pub(crate) fn add_reader(
        &mut self,
        after: EventId,
        now: Instant,
        log: &mut Log,
    ) -> Result<usize, TooManyReaders> {
        if self.readers.len() >= MAX_READERS {
            return Err(TooManyReaders);
        }
        self.note_wait(now, log);
        Ok(self.readers.insert(Reader::Waiting { after, waker: None }))
    }

    /// From here on the log drops no event that a client or a reader will need.
    fn note_wait(&mut self, now: Instant, log: &mut Log) {
        let Some(history) = self.history else { return };
        log.raise(history.allowance);
        self.used = Some(now);
    }

    /// Returns up to where losses were requested, if the reader may read the log. Otherwise keeps
    /// the waker, and leaves the waker of the last poll in its place: it must be dropped after
    /// unlocking.
    pub(crate) fn poll_reader(&mut self, key: usize, new: &mut Option<Waker>) -> Option<EventId> {
        match &mut self.readers[key] {
            Reader::Waiting { waker, .. } => {
                mem::swap(waker, new);
                None
            }
            Reader::Released { requested } => Some(*requested),
        }
    }

    /// Removes a reader. The waker must be dropped after unlocking.
    pub(crate) fn remove_reader(&mut self, key: usize) -> Option<Waker> {
        self.readers.try_remove(key).and_then(|mut reader| reader.release(EventId::ORIGIN))
    }

    /// Lets every reader go on. Losses up to `requested` must not be requested again.
    pub(crate) fn release_readers(&mut self, requested: EventId, wakers: &mut impl Extend<Waker>) {
        wakers.extend(self.readers.iter_mut().filter_map(|(_, reader)| reader.release(requested)));
    }

    /// Forgets clients that left or are no longer held.
    fn prune(&mut self, routes: &Routes<Arc<Client>>) {
        self.clients.retain(|held| {
            let client = routes.get(held.slot).filter(|client| client.serial == held.serial);
            client.is_some_and(|client| client.lock().mailbox.held_until().is_some())
        });
    }

    /// Lets the readers go on that the log reaches back to, or all if no event can come any more.
    /// Takes the slots of the clients for which the same holds: each must be
    /// [released](crate::log::mailbox::Mailbox::release) with `log.whole_from()`.
    #[must_use]
    pub(crate) fn take_served(
        &mut self,
        log: &Log,
        routes: &Routes<Arc<Client>>,
        wakers: &mut impl Extend<Waker>,
    ) -> Vec<usize> {
        self.prune(routes);
        let whole_from = log.whole_from();
        let is_over = !self.can_bring(EventId::ORIGIN, log);
        let is_served = |after| is_over || after >= whole_from;
        let readers = self.readers.iter_mut().map(|(_, reader)| reader);
        let readers = readers.filter(|reader| reader.after().is_some_and(is_served));
        wakers.extend(readers.filter_map(|reader| reader.release(whole_from)));
        let served = self.clients.extract_if(.., |client| is_served(client.after));
        served.map(|client| client.slot).collect()
    }

    /// Returns the range that is waited for, if there is any.
    pub(crate) fn request(&self, log: &Log) -> Option<HistoryRequest> {
        let allowance = self.history?.allowance;
        let after = self.waited_for().min()?.max(self.gone);
        Some(HistoryRequest { upto: log.whole_from(), after, events: log.room(allowance) })
    }

    /// The positions of the clients and readers that wait.
    fn waited_for(&self) -> impl Iterator<Item = EventId> {
        let readers = self.readers.iter().filter_map(|(_, reader)| reader.after());
        self.clients.iter().map(|client| client.after).chain(readers)
    }

    /// Whether clients or readers wait.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waited_for().next().is_some()
    }

    /// The backplane cannot bring events up to `position`.
    pub(crate) fn note_gone(&mut self, position: EventId) {
        self.gone = self.gone.max(position);
    }

    /// A client or a reader reads at `cursor`: older events stay in the log while they are read.
    pub(crate) fn note_read(&mut self, cursor: EventId, log: &Log, now: Instant) {
        if log.reaches_back(cursor) {
            self.used = Some(now);
        }
    }

    /// Older events were brought.
    pub(crate) fn note_brought(&mut self, now: Instant) {
        self.used = Some(now);
    }

    /// The log was replaced: no client is held any more, and readers read again. If the order is
    /// another (`reset`), the older events of the old order are of no use.
    pub(crate) fn restart(&mut self, reset: Option<EventId>, wakers: &mut impl Extend<Waker>) {
        self.clients.clear();
        self.release_readers(EventId::ORIGIN, wakers);
        if let Some(floor) = reset {
            self.gone = floor;
        }
    }

    /// Returns the log to its retention once nothing beyond it was needed for a while, `most`
    /// events at a time. Must be called again while the log is raised.
    pub(crate) fn lower(
        &mut self,
        now: Instant,
        most: usize,
        log: &mut Log,
        routes: &Routes<Arc<Client>>,
        evicted: &mut Vec<Arc<Entry>>,
    ) {
        if !log.is_raised() {
            return;
        }
        let used = *self.used.get_or_insert(now);
        if now.saturating_duration_since(used) < LINGER {
            return;
        }
        self.prune(routes);
        if self.is_waited_for() {
            self.used = Some(now);
        } else {
            log.lower(most, evicted);
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;
    use crate::core::client;
    use crate::core::end::Ending;
    use crate::core::inbox::{Inbox, Inboxes};
    use crate::log::audience::Audience;
    use crate::log::identity::Membership;
    use crate::log::key::Key;

    use crate::log::entry::{Encoded, Prepared};
    use crate::log::hash::KeyHasher;
    use crate::log::mailbox::{Mailbox, Pace};
    use crate::log::retain::{Retain, RunLimits};
    use crate::wire::event::Event;

    const fn id(count: u64) -> EventId {
        EventId::new(1, count)
    }

    struct World {
        log: Log,
        routes: Routes<Arc<Client>>,
        inboxes: Inboxes,
        serial: u64,
        held: Held,
        now: Instant,
        evicted: Vec<Arc<Entry>>,
        /// The tasks of readers that may go on.
        wakers: Vec<Waker>,
    }

    impl World {
        /// A log that retains `retain` events and lost all events up to `floor`.
        fn new(retain: usize, floor: u64, history: usize) -> Self {
            let now = Instant::now();
            let history = History::default().events(history).max_wait(Duration::from_secs(60));
            let log = Log::new(
                Retain::default().events(retain),
                RunLimits::default(),
                id(floor),
                KeyHasher::default(),
            );
            Self {
                log,
                routes: Routes::new(KeyHasher::default()),
                inboxes: Inboxes::default(),
                serial: 0,
                held: Held::new(Some(history)),
                now,
                evicted: Vec::new(),
                wakers: Vec::new(),
            }
        }

        fn entry(&self, count: u64) -> Arc<Entry> {
            let sealed = Event::new("x").seal();
            let event =
                Encoded { audience: Audience::all(), conflation: None, trace: None, sealed };
            Prepared::new(event, &KeyHasher::default()).into_entry(id(count), self.now)
        }

        fn append(&mut self, counts: std::ops::RangeInclusive<u64>) {
            for count in counts {
                let entry = self.entry(count);
                self.log.append(entry, &mut self.evicted);
            }
        }

        /// Lets in a client at `cursor`, and holds it.
        fn hold(&mut self, cursor: u64) -> usize {
            let mailbox = Mailbox::new(id(cursor), self.log.head(), Pace::Excused, self.now);
            let place = self.inboxes.add(Inbox::new(mailbox, Ending::open(None, None)));
            self.serial += 1;
            let client = client::tests::client(self.serial, place);
            let tag = client::tag(&client);
            let everyone = Membership::of(Key::All, &KeyHasher::default());
            let slot = self.routes.add(vec![everyone], Arc::clone(&client), tag);
            let until = self.held.may_hold(id(cursor), &self.log, self.now).unwrap();
            client.lock().mailbox.hold(until);
            let Self { held, log, routes, now, .. } = self;
            held.add(slot, &client, id(cursor), *now, log, routes);
            slot
        }

        fn served(&mut self) -> Vec<usize> {
            let Self { held, log, routes, wakers, .. } = self;
            held.take_served(log, routes, wakers)
        }

        fn bring(&mut self, count: u64) {
            let entry = self.entry(count);
            assert!(self.log.restore(entry, id(count - 1)));
        }

        fn lower(&mut self) {
            let Self { held, log, routes, now, evicted, .. } = self;
            held.lower(*now, 64, log, routes, evicted);
        }
    }

    #[test]
    fn request_reaches_back_to_the_oldest_client() {
        let mut world = World::new(4, 10, 100);
        world.append(11..=12);
        assert_eq!(world.held.request(&world.log), None);
        world.hold(8);
        world.hold(6);
        let request = HistoryRequest { upto: id(10), after: id(6), events: 102 };
        assert_eq!(world.held.request(&world.log), Some(request));
        world.held.note_gone(id(7));
        assert_eq!(
            world.held.request(&world.log),
            Some(HistoryRequest { after: id(7), ..request })
        );
        world.held.note_gone(id(3));
        assert_eq!(world.held.request(&world.log).unwrap().after, id(7), "gone never goes back");
    }

    #[test]
    fn clients_are_served_when_the_log_reaches_them() {
        let mut world = World::new(4, 10, 100);
        world.append(11..=12);
        let (far, near) = (world.hold(8), world.hold(9));
        assert!(world.served().is_empty());
        world.bring(10);
        assert_eq!(world.served(), [near]);
        assert!(world.held.is_waited_for());
        world.bring(9);
        assert_eq!(world.served(), [far]);
        assert!(!world.held.is_waited_for());
    }

    #[test]
    fn clients_are_served_when_nothing_more_can_come() {
        let mut gone = World::new(4, 10, 100);
        gone.append(11..=12);
        let slot = gone.hold(8);
        gone.held.note_gone(id(10));
        assert_eq!(gone.served(), [slot]);
        assert_eq!(gone.held.may_hold(id(8), &gone.log, gone.now), None);

        let mut full = World::new(4, 10, 1);
        full.append(11..=14);
        let slot = full.hold(8);
        full.bring(10);
        let entry = full.entry(9);
        assert!(!full.log.restore(entry, id(8)), "the allowance is used up");
        assert_eq!(full.served(), [slot]);
    }

    #[test]
    fn hope_ends_where_events_are_gone() {
        let mut world = World::new(4, 10, 100);
        world.append(11..=12);
        assert!(world.held.is_hopeful(id(8), &world.log));
        world.held.note_gone(id(9));
        assert!(!world.held.is_hopeful(id(8), &world.log), "event 9 cannot come");
        assert!(world.held.may_hold(id(8), &world.log, world.now).is_some(), "event 10 can");
        assert!(world.held.is_hopeful(id(9), &world.log));
        assert!(!world.held.is_hopeful(id(10), &world.log), "nothing is lost after 10");
    }

    #[test]
    fn clients_that_left_or_went_on_are_forgotten() {
        let mut world = World::new(4, 10, 100);
        world.append(11..=12);
        let (left, released) = (world.hold(8), world.hold(8));
        drop(world.routes.remove(left));
        let client = Arc::clone(world.routes.get(released).unwrap());
        client.lock().mailbox.release(EventId::LAST, world.now);
        world.held.note_gone(id(10));
        assert!(world.served().is_empty());
    }

    #[test]
    fn record_of_waiting_clients_shrinks_when_they_leave() {
        let mut world = World::new(4, 10, 100);
        world.append(11..=12);
        let crowd: Vec<usize> = (0..1000).map(|_| world.hold(8)).collect();
        crowd.into_iter().for_each(|slot| drop(world.routes.remove(slot)));
        world.hold(8);
        assert_eq!(world.held.clients.len(), 1);
    }

    #[test]
    fn another_order_has_no_older_events() {
        let mut world = World::new(4, 10, 100);
        world.append(11..=12);
        world.hold(8);
        world.held.restart(None, &mut world.wakers);
        assert!(!world.held.is_waited_for());
        assert!(world.held.is_hopeful(id(8), &world.log), "the order is the same");
        world.held.restart(Some(id(20)), &mut world.wakers);
        world.log = Log::new(
            Retain::default().events(4),
            RunLimits::default(),
            id(20),
            KeyHasher::default(),
        );
        world.append(21..=22);
        assert_eq!(world.held.may_hold(id(8), &world.log, world.now), None);
    }

    #[test]
    fn a_wait_is_bounded_by_the_setting() {
        let mut world = World::new(4, 10, 100);
        world.append(11..=12);
        let until = world.now + Duration::from_secs(60);
        assert_eq!(world.held.may_hold(id(8), &world.log, world.now), Some(until));
        assert_eq!(world.held.until_first_load(world.now), Some(until));
        let unbounded = Held::new(Some(History::default().max_wait(Duration::MAX)));
        assert!(
            unbounded.until_first_load(world.now) > Some(world.now + Duration::from_secs(1 << 24))
        );
        let off = Held::new(None);
        assert_eq!(off.may_hold(id(8), &world.log, world.now), None);
        assert_eq!((off.until_first_load(world.now), off.request(&world.log)), (None, None));
    }

    #[test]
    fn older_events_stay_while_they_are_used() {
        let mut world = World::new(2, 10, 100);
        world.append(11..=12);
        let slot = world.hold(8);
        world.bring(10);
        world.bring(9);
        assert_eq!(world.served(), [slot]);
        let wait = |world: &mut World, seconds| world.now += Duration::from_secs(seconds);

        wait(&mut world, 9);
        world.lower();
        assert!(world.log.is_raised(), "used less than ten seconds ago");
        world.held.note_read(id(8), &world.log, world.now);
        wait(&mut world, 9);
        world.lower();
        assert!(world.log.is_raised(), "read nine seconds ago");
        world.held.note_brought(world.now);
        wait(&mut world, 9);
        world.lower();
        assert!(world.log.is_raised(), "brought nine seconds ago");
        world.held.note_read(id(12), &world.log, world.now);
        wait(&mut world, 1);
        world.lower();
        assert!(!world.log.is_raised(), "a read within the retention needs no older events");
        assert_eq!(world.log.len(), 2);
    }

    #[test]
    fn older_events_stay_while_a_client_waits() {
        let mut world = World::new(2, 10, 100);
        world.append(11..=12);
        world.hold(8);
        world.now += Duration::from_secs(11);
        world.lower();
        assert!(world.log.is_raised());
        world.held.restart(None, &mut world.wakers);
        world.lower();
        assert!(world.log.is_raised(), "the wait counts as use");
        world.now += Duration::from_secs(11);
        world.lower();
        assert!(!world.log.is_raised());
    }
}
