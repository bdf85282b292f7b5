//! Hubs on one order, which is a list.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sse_hub::backplane::{Backplane, Feed, Outgoing, Unsent, Wanted};
use sse_hub::{
    Event, EventId, History, Hub, HubBuilder, LastEventId, ManualTimer, Retain, Subscriber,
    Subscription,
};

/// The order, and the clock that its ids come from.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) entries: Vec<Placed>,
    pub(crate) last: EventId,
    /// Of the last entry that says that the order went backwards.
    pub(crate) mark: EventId,
    pub(crate) clock: u64,
    /// The newest position, and the newest mark, of what was trimmed.
    pub(crate) trimmed: [EventId; 2],
}

#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) id: EventId,
    /// The id of the one before, when it was placed.
    pub(crate) previous: EventId,
    pub(crate) entry: Entry,
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Event(Bytes),
    /// The order went backwards.
    Mark,
}

impl Order {
    /// Tells those who cannot know by themselves that it went backwards before `since`, once.
    pub(crate) fn mark(&mut self, since: EventId) {
        if self.mark <= since {
            self.mark = self.place(Entry::Mark, since);
        }
    }

    /// Loses the oldest entries, and returns them.
    pub(crate) fn trim(&mut self, count: usize) -> Vec<Placed> {
        let trimmed: Vec<_> = self.entries.drain(..count.min(self.entries.len())).collect();
        for placed in &trimmed {
            self.trimmed[0] = placed.id;
            if let Entry::Mark = placed.entry {
                self.trimmed[1] = placed.id;
            }
        }
        trimmed
    }

    /// Loses the newest entries, and returns them.
    pub(crate) fn roll_back(&mut self, count: usize) -> Vec<Placed> {
        let gone = self.entries.split_off(self.entries.len().saturating_sub(count));
        let is_mark = |placed: &&Placed| matches!(placed.entry, Entry::Mark);
        let [last, mark] = self.trimmed;
        self.mark = self.entries.iter().rfind(is_mark).map_or(mark, |mark| mark.id);
        self.last = self.entries.last().map_or(last, |last| last.id);
        gone
    }

    pub(crate) fn place(&mut self, entry: Entry, floor: EventId) -> EventId {
        self.clock += 1;
        let id = EventId::new(self.clock, 0).max(EventId::new(floor.epoch(), floor.seq() + 1));
        self.entries.push(Placed { id, previous: self.last, entry });
        self.last = id;
        id
    }
}

/// What a hub has sent and what has not been placed yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(pub(crate) Arc<Mutex<VecDeque<Outgoing>>>);

impl Backplane for Outbox {
    fn send(&self, event: Outgoing) -> Result<(), Unsent> {
        let mut waiting = self.0.lock().unwrap();
        if waiting.len() >= 64 {
            return Err(Unsent::Full);
        }
        waiting.push_back(event);
        Ok(())
    }

    fn looks_back(&self) -> bool {
        true
    }
}

/// Older events, on their way to a hub.
#[derive(Debug)]
pub(crate) struct Found {
    upto: EventId,
    floor: EventId,
    piece: VecDeque<(EventId, Duration, Bytes)>,
    is_all: bool,
}

pub(crate) struct Instance {
    pub(crate) hub: Hub,
    pub(crate) feed: Feed,
    pub(crate) outbox: Outbox,
    /// How far it has read.
    pub(crate) at: Option<EventId>,
    pub(crate) timer: ManualTimer,
    /// What was looked back for and not brought yet.
    pub(crate) found: Option<Found>,
}

impl Instance {
    pub(crate) fn new(retain: Retain) -> Self {
        Self::with(|hub| hub.retain(retain).history(History::none()))
    }

    pub(crate) fn with(set: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        let (outbox, timer) = (Outbox::default(), ManualTimer::new());
        let hub = set(Hub::builder(timer.clone()).backplane(outbox.clone())).build().unwrap();
        let feed = Feed::of(&hub).unwrap();
        Self { hub, feed, outbox, at: None, timer, found: None }
    }

    pub(crate) fn broadcast(&self, name: &str) {
        self.hub.broadcast(Event::new("n").data(name)).unwrap();
    }

    /// Places what it has sent.
    pub(crate) fn flush(&self, order: &mut Order) {
        for event in self.outbox.0.lock().unwrap().drain(..) {
            let id = order.place(Entry::Event(event.entry().clone()), self.at.unwrap_or_default());
            event.confirm(id);
        }
    }

    /// Reads so many entries, as an engine does.
    pub(crate) fn read(&mut self, order: &mut Order, count: usize) {
        let mut at = match self.at {
            None => self.find_the_end(order),
            Some(at) if order.last < at => {
                order.mark(at);
                at
            }
            Some(at) => at,
        };
        let after = order.entries.partition_point(|placed| placed.id <= at);
        let entries: Vec<_> = order.entries[after..].iter().take(count).cloned().collect();
        for placed in entries {
            match placed.entry {
                Entry::Event(entry) => {
                    if placed.previous != at {
                        if placed.previous < at {
                            order.mark(placed.id);
                        }
                        self.begin_anew(placed.id.predecessor());
                    }
                    self.feed.append(placed.id, &entry).unwrap();
                }
                Entry::Mark => self.begin_anew(placed.id),
            }
            at = placed.id;
        }
        if after == order.entries.len() && order.last > at {
            // What was written is gone, and nothing will ever say so.
            at = order.last;
            self.begin_anew(at);
        }
        self.at = Some(at);
    }

    pub(crate) fn begin_anew(&self, floor: EventId) {
        self.feed.load(floor, None::<(EventId, Duration, Bytes)>);
    }

    fn find_the_end(&self, order: &mut Order) -> EventId {
        const TAIL: usize = 4;
        if order.last == EventId::new(0, 0) {
            order.clock += 1;
            order.last = EventId::new(order.clock, 0);
        }
        let tail = &order.entries[order.entries.len().saturating_sub(TAIL)..];
        let mut floor = tail.first().map_or(order.last, |first| first.previous);
        let mut at = floor;
        let mut events = Vec::new();
        for placed in tail {
            if placed.previous != at {
                floor = placed.id.predecessor();
                events.clear();
            }
            match &placed.entry {
                Entry::Event(entry) => events.push((placed.id, Duration::ZERO, entry.clone())),
                Entry::Mark => {
                    floor = placed.id;
                    events.clear();
                }
            }
            at = placed.id;
        }
        self.feed.load(floor, events);
        at
    }

    /// Looks for the end of the order, for those who are ahead.
    pub(crate) fn look(&self, order: &Order) {
        if let Some(mark) = self.feed.ahead() {
            self.feed.disown(mark, order.last);
        }
    }

    /// Looks for older events, as an engine does: each has to be the one that the next named. `false` if nothing is
    /// wanted.
    pub(crate) fn look_back(&mut self, order: &Order, count: usize) -> bool {
        let Some(Wanted { upto, after, .. }) = self.feed.wanted() else { return false };
        let mut found = Found { upto, floor: upto, piece: VecDeque::new(), is_all: false };
        let known = order.entries.partition_point(|placed| placed.id <= upto);
        let mut older = order.entries[..known].iter().rev();
        while found.floor > after && found.piece.len() < count && !found.is_all {
            match older.next() {
                Some(Placed { id, previous, entry: Entry::Event(entry) }) if *id == found.floor => {
                    found.piece.push_front((*id, Duration::ZERO, entry.clone()));
                    found.floor = *previous;
                }
                _ => found.is_all = true,
            }
        }
        self.found = Some(found);
        true
    }

    /// Brings what was found.
    pub(crate) fn bring(&mut self) {
        let Some(Found { upto, floor, piece, is_all }) = self.found.take() else { return };
        self.feed.restore(upto, floor, piece);
        if is_all {
            self.feed.gone(floor);
        }
    }

    /// All of it.
    pub(crate) fn settle(&mut self, order: &mut Order) {
        self.flush(order);
        self.read(order, usize::MAX);
        self.look(order);
        self.look_back_for_all(order);
    }

    pub(crate) fn look_back_for_all(&mut self, order: &Order) {
        self.bring();
        let rounds = order.entries.len() + 1;
        for _ in 0..=rounds {
            if !self.look_back(order, 3) {
                return;
            }
            self.bring();
        }
        panic!("more is wanted than there is");
    }

    pub(crate) fn subscribe(&self, last: impl Into<LastEventId>) -> Subscription {
        self.hub.subscribe(Subscriber::new().resume(last)).unwrap()
    }
}
