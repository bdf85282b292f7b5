//! Hubs on a shared order, held in a list.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sse_hub::backplane::{
    Backplane, Feed, HistoryRequest, Incoming, Loaded, Outgoing, RunCopy, RunPart, RunPartKind,
    SendError,
};
use sse_hub::{
    Event, EventId, Hub, HubBuilder, LastEventId, ManualTimer, Retain, Subscriber, Subscription,
};

/// The order, and the clock of its ids.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) entries: Vec<Placed>,
    pub(crate) last: EventId,
    /// The id of the latest mark.
    pub(crate) mark: EventId,
    pub(crate) clock: u64,
    /// The newest position and the newest mark among the trimmed entries.
    pub(crate) trimmed: [EventId; 2],
    /// The newest event of each value. A rollback leaves them as they are.
    pub(crate) values: BTreeMap<Vec<u8>, (EventId, Bytes)>,
    pub(crate) copying: Copying,
    /// The copies of runs, by name.
    pub(crate) copies: BTreeMap<String, Copy>,
    /// All parts of runs so far.
    pub(crate) parts: Vec<Part>,
}

/// A part of a run.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    id: EventId,
    name: String,
    kind: RunPartKind,
    producer: Vec<u8>,
    entry: Bytes,
}

/// The parts of runs that the engine copies.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Copying {
    /// Every part.
    #[default]
    All,
    /// The parts with an effect, and at most so many events of each run.
    Effective(usize),
    Nothing,
}

/// The copy of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copy {
    entries: Vec<(EventId, RunPartKind, Bytes)>,
    /// The newest dropped event.
    lost: EventId,
    /// The producer, if the run is open.
    producer: Option<Vec<u8>>,
}

impl Copy {
    /// Applies the rule of [`RunPartKind`]. Returns whether the part has an effect.
    fn has_effect(&mut self, kind: RunPartKind, producer: &[u8]) -> bool {
        let is_open = self.producer.is_some();
        let is_current = self.producer.as_deref() == Some(producer);
        match kind {
            RunPartKind::Start | RunPartKind::TakeOver => {
                if !is_open {
                    (self.entries, self.lost) = (Vec::new(), EventId::default());
                }
                let starts = !is_open || kind == RunPartKind::TakeOver;
                if starts {
                    self.producer = Some(producer.to_vec());
                }
                starts
            }
            RunPartKind::Stop => is_open,
            RunPartKind::End if is_current => {
                self.producer = None;
                true
            }
            _ => is_current,
        }
    }

    fn bound(&mut self, events: usize) {
        let is_event = |(_, kind, _): &(EventId, RunPartKind, Bytes)| *kind == RunPartKind::Event;
        while self.entries.iter().filter(|entry| is_event(entry)).count() > events {
            let at = self.entries.iter().position(is_event).unwrap();
            self.lost = self.entries.remove(at).0;
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) id: EventId,
    /// The last id of the order when this entry was placed.
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
    /// Copies a part of a run.
    fn copy(&mut self, id: EventId, event: &Outgoing) {
        let Some(RunPart { name, kind, producer, .. }) = event.run() else { return };
        let (name, producer, entry) = (name.to_owned(), producer.to_vec(), event.entry().clone());
        let part = Part { id, name, kind, producer, entry };
        self.keep(&part);
        self.parts.push(part);
    }

    fn keep(&mut self, Part { id, name, kind, producer, entry }: &Part) {
        let entry = (*id, *kind, entry.clone());
        let copy = self.copies.entry(name.clone()).or_default();
        match self.copying {
            Copying::Nothing => {}
            Copying::All => copy.entries.push(entry),
            Copying::Effective(events) => {
                if copy.has_effect(*kind, producer) {
                    copy.entries.push(entry);
                    copy.bound(events);
                }
            }
        }
    }

    /// Takes the copies back to before the parts with these ids.
    pub(crate) fn roll_back_copies(&mut self, gone: &BTreeSet<EventId>) {
        self.copies.clear();
        self.parts.retain(|part| !gone.contains(&part.id));
        for part in self.parts.clone() {
            self.keep(&part);
        }
    }

    /// The copies of runs, as an engine loads them.
    fn run_copies(&self) -> impl Iterator<Item = RunCopy> {
        self.copies.values().map(|copy| {
            let entries = copy
                .entries
                .iter()
                .map(|(id, _, entry)| (*id, Duration::ZERO, Incoming::parse(entry).unwrap()));
            RunCopy::new(self.last, entries).lost(copy.lost)
        })
    }

    /// Adds a mark for a rollback before `since`, if the order has none yet. Instances that did not
    /// read the removed entries need the mark.
    pub(crate) fn mark(&mut self, since: EventId) {
        if self.mark <= since {
            self.mark = self.place(Entry::Mark, since);
        }
    }

    /// Removes the oldest entries, and returns them.
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

    /// Removes the newest entries, and returns them.
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

/// Sent events that are not placed yet, and how often the instances with runs have changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(pub(crate) Arc<Mutex<VecDeque<Outgoing>>>, pub(crate) Arc<Mutex<usize>>);

impl Backplane for Outbox {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        let mut waiting = self.0.lock().unwrap();
        let is_end = event.run().is_some_and(|part| part.kind == RunPartKind::End);
        if waiting.len() >= 64 && !is_end {
            return Err(SendError::Full);
        }
        waiting.push_back(event);
        Ok(())
    }

    fn on_runs_changed(&self) {
        *self.1.lock().unwrap() += 1;
    }

    fn supports_history(&self) -> bool {
        true
    }
}

/// Older events that were found and not delivered yet.
#[derive(Debug)]
pub(crate) struct Found {
    upto: EventId,
    floor: EventId,
    piece: VecDeque<(EventId, Duration, Incoming)>,
    is_all: bool,
}

pub(crate) struct Instance {
    pub(crate) hub: Hub,
    pub(crate) feed: Feed,
    pub(crate) outbox: Outbox,
    /// The last position that was read.
    pub(crate) at: Option<EventId>,
    pub(crate) timer: ManualTimer,
    /// The result of a look back that was not delivered yet.
    pub(crate) found: Option<Found>,
}

impl Instance {
    pub(crate) fn new(retain: Retain) -> Self {
        Self::with(|hub| hub.retain(retain).history(None))
    }

    pub(crate) fn with(set: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        let (outbox, timer) = (Outbox::default(), ManualTimer::new());
        let hub = set(Hub::builder(timer.clone()).backplane(outbox.clone())).build().unwrap();
        let feed = Feed::new(&hub).unwrap();
        Self { hub, feed, outbox, at: None, timer, found: None }
    }

    pub(crate) fn broadcast(&self, name: &str) {
        self.hub.broadcast(Event::new("n").data(name)).unwrap();
    }

    /// Places the sent events.
    pub(crate) fn flush(&self, order: &mut Order) {
        for event in self.outbox.0.lock().unwrap().drain(..) {
            let id = order.place(Entry::Event(event.entry().clone()), self.at.unwrap_or_default());
            if let Some(value) = event.value_of() {
                order.values.insert(value.to_vec(), (id, event.entry().clone()));
            }
            order.copy(id, &event);
            event.confirm(id);
        }
    }

    /// Reads up to `count` entries, as an engine does.
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
                        self.begin_with_values(order, placed.id.predecessor());
                    }
                    self.feed.append(placed.id, Incoming::parse(&entry).unwrap());
                }
                Entry::Mark => self.begin_with_values(order, placed.id),
            }
            at = placed.id;
        }
        if after == order.entries.len() && order.last > at {
            // The removed entries leave no mark behind, so no later entry reports the loss.
            at = order.last;
            self.begin_with_values(order, at);
        }
        self.at = Some(at);
    }

    pub(crate) fn begin_anew(&self, floor: EventId) {
        self.feed.load(Loaded::new(floor, []));
    }

    pub(crate) fn begin_with_values(&self, order: &Order, floor: EventId) {
        self.load(order, floor, Vec::new());
    }

    fn load(&self, order: &Order, floor: EventId, tail: Vec<(EventId, Duration, Incoming)>) {
        let mut loaded = Loaded::new(floor, tail);
        if order.copying != Copying::Nothing {
            loaded = loaded.runs(order.last, order.run_copies());
        }
        if self.feed.tail_limits().values.is_none() {
            return self.feed.load(loaded);
        }
        let values = order.values.values();
        let values =
            values.map(|(id, entry)| (*id, Duration::ZERO, Incoming::parse(entry).unwrap()));
        self.feed.load(loaded.latest(values, true));
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
                Entry::Event(entry) => {
                    events.push((placed.id, Duration::ZERO, Incoming::parse(entry).unwrap()));
                }
                Entry::Mark => {
                    floor = placed.id;
                    events.clear();
                }
            }
            at = placed.id;
        }
        self.load(order, floor, events);
        at
    }

    /// Looks for the end of the order, for clients that are ahead.
    pub(crate) fn look(&self, order: &Order) {
        if let Some(mark) = self.feed.ahead() {
            self.feed.disown(mark, order.last);
        }
    }

    /// Looks for older events, as an engine does. Each event must be the predecessor that the next
    /// event names. Returns `false` if the hub requests no events.
    pub(crate) fn look_back(&mut self, order: &Order, count: usize) -> bool {
        let Some(HistoryRequest { upto, after, .. }) = self.feed.history_request() else {
            return false;
        };
        let mut found = Found { upto, floor: upto, piece: VecDeque::new(), is_all: false };
        let known = order.entries.partition_point(|placed| placed.id <= upto);
        let mut older = order.entries[..known].iter().rev();
        while found.floor > after && found.piece.len() < count && !found.is_all {
            match older.next() {
                Some(Placed { id, previous, entry: Entry::Event(entry) }) if *id == found.floor => {
                    let entry = Incoming::parse(entry).unwrap();
                    found.piece.push_front((*id, Duration::ZERO, entry));
                    found.floor = *previous;
                }
                _ => found.is_all = true,
            }
        }
        self.found = Some(found);
        true
    }

    /// Delivers the events that were found.
    pub(crate) fn bring(&mut self) {
        let Some(Found { upto, floor, piece, is_all }) = self.found.take() else { return };
        self.feed.restore(upto, floor, piece);
        if is_all {
            self.feed.gone(floor);
        }
    }

    /// Places, reads and looks back until no step is left.
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
        panic!("the hub requests events beyond the order");
    }

    pub(crate) fn subscribe(&self, last: impl Into<LastEventId>) -> Subscription {
        self.hub.subscribe(Subscriber::new().resume(last)).unwrap()
    }
}

/// Returns events `1` to `count` of an order, and a hub that retains the last two.
pub(crate) fn late(count: usize, set: impl FnOnce(HubBuilder) -> HubBuilder) -> (Order, Instance) {
    let mut order = Order::default();
    let mut early = Instance::new(Retain::default());
    early.settle(&mut order);
    for number in 1..=count {
        early.broadcast(&number.to_string());
        early.settle(&mut order);
    }
    let mut late = Instance::with(|hub| set(hub.retain(Retain::default().events(2))));
    late.read(&mut order, usize::MAX);
    (order, late)
}
