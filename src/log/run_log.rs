//! The retained events of a run.
//!
//! If the run appends text, the text of adjacent events is kept in pieces, each with the id and the
//! end of every event. No entry is kept for such an event: the windows of live clients pin the entry
//! until the clients read. Any other client reads the text.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::entry::{Conflation, Entry};
use super::hash::KeyHashes;
use super::key::Key;
use crate::wire::decode;
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// Bytes that each event counts for beside its frame and names: the entry and its place here.
const EVENT_WEIGHT: usize = 256;

/// Bytes that each event of a text counts for beside the text: its [`Mark`], and the room that a
/// growing list keeps.
const MARK_WEIGHT: usize = 2 * size_of::<Mark>();

/// Bytes that each text counts for beside its events: the allocation and its place here.
const TEXT_WEIGHT: usize = 256;

/// The most bytes of a text, and its most events. The bound of the run removes a whole text, and a
/// read copies it under the lock.
const TEXT_BYTES: usize = 16 << 10;
const TEXT_EVENTS: usize = 4096;

/// The most bytes of the frame of an event whose text is kept. Every client may hold such an event,
/// beyond the bounds of the runs.
const TEXT_EVENT_BYTES: usize = 1 << 10;

/// The events of a run that are kept, in id order.
#[derive(Debug)]
pub(crate) struct RunLog {
    key: Key,
    appends: Option<Arc<Appends>>,
    items: VecDeque<Item>,
    /// The latest retained event of each conflation.
    latest: HashMap<Arc<Conflation>, EventId>,
    bytes: usize,
    /// The most bytes of the run.
    limit: usize,
    /// The newest dropped event; `ORIGIN` if there is none.
    lost: EventId,
}

/// The type whose adjacent events are one text, with the hashes of such an event.
#[derive(Debug)]
struct Appends {
    event_type: Box<str>,
    hashes: KeyHashes,
}

#[derive(Debug)]
enum Item {
    Event(Arc<Entry>),
    Text(Box<Text>),
}

/// The text of adjacent events.
#[derive(Debug)]
struct Text {
    of: Arc<Appends>,
    text: String,
    /// The first event.
    first: EventId,
    marks: Vec<Mark>,
    /// The time of the newest event.
    at: Instant,
}

/// An event of a text.
#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    /// The epoch, counted from the epoch of the first event.
    epoch: u32,
    /// Where the event ends in the text.
    end: u32,
}

impl Text {
    fn id(&self, mark: &Mark) -> EventId {
        EventId::new(self.first.epoch() + u64::from(mark.epoch), mark.seq)
    }

    /// Returns the number of events up to a position.
    fn upto(&self, position: EventId) -> usize {
        self.marks.partition_point(|mark| self.id(mark) <= position)
    }

    fn last(&self) -> EventId {
        self.marks.last().map_or(EventId::ORIGIN, |last| self.id(last))
    }

    fn end_of(&self, count: usize) -> usize {
        count.checked_sub(1).map_or(0, |last| self.marks[last].end as usize)
    }

    /// Adds an event. Returns `false` if the text has no room, or the event is no plain text.
    fn append(&mut self, entry: &Entry, most: usize) -> bool {
        let Some(epoch) = entry.id.epoch().checked_sub(self.first.epoch()) else { return false };
        let Ok(epoch) = u32::try_from(epoch) else { return false };
        let is_full = self.text.len() + entry.len() > TEXT_BYTES.min(most)
            || self.marks.len() == TEXT_EVENTS
            || (self.marks.len() + 1) * MARK_WEIGHT > most;
        if !self.marks.is_empty() && is_full {
            return false;
        }
        if !decode::append_text(entry.frame.bytes(), &mut self.text) {
            return false;
        }
        let Ok(end) = u32::try_from(self.text.len()) else { return false };
        self.marks.push(Mark { seq: entry.id.seq(), epoch, end });
        self.at = entry.at;
        true
    }

    fn weight(&self) -> usize {
        // A growing text has up to twice the room that it needs.
        TEXT_WEIGHT + 2 * self.text.len() + MARK_WEIGHT * self.marks.len()
    }
}

impl Item {
    fn last(&self) -> EventId {
        match self {
            Self::Event(entry) => entry.id,
            Self::Text(text) => text.last(),
        }
    }

    fn first(&self) -> EventId {
        match self {
            Self::Event(entry) => entry.id,
            Self::Text(text) => text.first,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Event(entry) => weight_of(entry),
            Self::Text(text) => text.weight(),
        }
    }
}

fn weight_of(entry: &Entry) -> usize {
    EVENT_WEIGHT + entry.weight()
}

/// Returns the most bytes that an event of `weight` bytes can count for in a run.
pub(super) const fn most_weight(weight: usize) -> usize {
    // As a text. An entry counts for less.
    TEXT_WEIGHT + MARK_WEIGHT + 2 * weight
}

const _: () = assert!(EVENT_WEIGHT <= TEXT_WEIGHT + MARK_WEIGHT);

impl RunLog {
    /// `appends`: the type whose adjacent events are one text, and the hashes of such an event.
    /// `lost`: the end of an earlier run of the name, whose events are dropped.
    pub(super) fn new(
        key: Key,
        appends: Option<(Box<str>, KeyHashes)>,
        limit: usize,
        lost: EventId,
    ) -> Self {
        let mut run = Self {
            key,
            appends: None,
            items: VecDeque::new(),
            latest: HashMap::new(),
            bytes: 0,
            limit,
            lost,
        };
        run.set_appends(appends);
        run
    }

    /// Sets the type whose adjacent events are one text.
    pub(super) fn set_appends(&mut self, appends: Option<(Box<str>, KeyHashes)>) {
        self.appends = appends.map(|(event_type, hashes)| Arc::new(Appends { event_type, hashes }));
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the bytes that the events count for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the newest dropped event; `ORIGIN` if there is none.
    pub(super) fn lost(&self) -> EventId {
        self.lost
    }

    /// Returns the oldest retained event.
    pub(super) fn first(&self) -> Option<EventId> {
        self.items.front().map(Item::first)
    }

    /// Appends an event, and drops the oldest events beyond the limit of the run. Moves dropped
    /// entries to `freed`: the caller frees them after unlocking. Returns whether the run keeps the
    /// entry, and not only the text.
    pub(super) fn append(&mut self, entry: &Arc<Entry>, freed: &mut Vec<Arc<Entry>>) -> bool {
        if let Some(conflation) = &entry.conflation {
            // Removed first: an insertion would keep the old key, and with it a second copy.
            let older = self.latest.remove(conflation);
            self.latest.insert(Arc::clone(conflation), entry.id);
            older.into_iter().for_each(|older| self.take_out(older, freed));
        }
        let is_text = self.append_text(entry);
        if !is_text {
            self.bytes += weight_of(entry);
            self.items.push_back(Item::Event(Arc::clone(entry)));
        }
        while self.bytes > self.limit && self.drop_oldest(freed) {}
        !is_text
    }

    fn append_text(&mut self, entry: &Entry) -> bool {
        let Some(appends) = &self.appends else { return false };
        if entry.hashes.event_type != appends.hashes.event_type
            || entry.conflation.is_some()
            || entry.len() > TEXT_EVENT_BYTES
        {
            return false;
        }
        // The oldest text goes as a whole, and must not be the newest: a text counts for at most
        // three eighths of the limit.
        let most = self.limit / 8;
        if let Some(Item::Text(text)) = self.items.back_mut() {
            let before = text.weight();
            if Arc::ptr_eq(&text.of, appends) && text.append(entry, most) {
                self.bytes += text.weight() - before;
                return true;
            }
            text.text.shrink_to_fit();
            text.marks.shrink_to_fit();
        }
        let (of, first, at) = (Arc::clone(appends), entry.id, entry.at);
        let mut text = Text { of, text: String::new(), first, marks: Vec::new(), at };
        if !text.append(entry, most) {
            return false;
        }
        self.bytes += text.weight();
        self.items.push_back(Item::Text(Box::new(text)));
        true
    }

    /// Drops the oldest event or text. Returns `false` if there is none.
    pub(super) fn drop_oldest(&mut self, freed: &mut Vec<Arc<Entry>>) -> bool {
        let Some(item) = self.items.pop_front() else { return false };
        self.bytes -= item.weight();
        self.lost = item.last();
        if let Item::Event(entry) = item {
            if let Some(conflation) = &entry.conflation {
                self.latest.remove(conflation);
            }
            freed.push(entry);
        }
        true
    }

    /// Drops the events up to `lost`, or notes that they were dropped before.
    pub(super) fn lose(&mut self, lost: EventId, freed: &mut Vec<Arc<Entry>>) {
        while self.first().is_some_and(|first| first <= lost) {
            self.drop_oldest(freed);
        }
        self.lost = self.lost.max(lost);
    }

    /// Removes an event that a later value replaces, without a loss.
    fn take_out(&mut self, id: EventId, freed: &mut Vec<Arc<Entry>>) {
        let at = self.items.partition_point(|item| item.last() < id);
        let is_event = matches!(self.items.get(at), Some(Item::Event(entry)) if entry.id == id);
        if is_event && let Some(Item::Event(entry)) = self.items.remove(at) {
            self.bytes -= weight_of(&entry);
            freed.push(entry);
        }
    }

    /// Returns the first event after a position: the index of its item, and its id.
    pub(super) fn seek(&self, after: EventId) -> Option<(usize, EventId)> {
        let at = self.items.partition_point(|item| item.last() <= after);
        Some((at, self.next_in(at, after)?))
    }

    /// Returns the first event after a position, in the item at this index or the item behind it.
    pub(super) fn seek_from(&self, at: usize, after: EventId) -> Option<(usize, EventId)> {
        let at = if self.items.get(at)?.last() <= after { at + 1 } else { at };
        Some((at, self.next_in(at, after)?))
    }

    fn next_in(&self, at: usize, after: EventId) -> Option<EventId> {
        match self.items.get(at)? {
            Item::Event(entry) => Some(entry.id),
            Item::Text(text) => text.marks.get(text.upto(after)).map(|mark| text.id(mark)),
        }
    }

    /// Returns the event of the item at this index, or the events of its text after `after` and up
    /// to `upto` as one event, under the id of the last. `upto` must not lie before the first.
    pub(super) fn take(&self, at: usize, after: EventId, upto: EventId) -> Arc<Entry> {
        match &self.items[at] {
            Item::Event(entry) => Arc::clone(entry),
            Item::Text(text) => {
                let (from, to) = (text.upto(after), text.upto(upto));
                let part = &text.text[text.end_of(from)..text.end_of(to)];
                let event = match &*text.of.event_type {
                    "message" => Event::default(),
                    event_type => Event::new(event_type),
                };
                let (id, hashes) = (text.id(&text.marks[to - 1]), text.of.hashes.clone());
                Entry::joined(id, event.data(part).seal(), &self.key, hashes, text.at)
            }
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::log::audience::Audience;
    use crate::log::entry::{Encoded, Prepared};
    use crate::log::hash::KeyHasher;

    #[derive(Debug, Clone)]
    enum Op {
        Append {
            count: usize,
            is_token: bool,
            key: Option<u8>,
            len: usize,
        },
        /// Another order begins, with a later epoch.
        NewEpoch,
        /// A new producer appends text of its own.
        TakeOver,
        DropOldest,
        Lose {
            upto: Index,
        },
    }

    fn op() -> impl Strategy<Value = Op> {
        let append = (1..6usize, any::<bool>(), prop::option::weighted(0.3, 0..3u8), 0..60usize);
        prop_oneof![
            12 => append.prop_map(|(count, is_token, key, len)| {
                Op::Append { count, is_token, key, len }
            }),
            1 => Just(Op::NewEpoch),
            1 => Just(Op::TakeOver),
            1 => Just(Op::DropOldest),
            1 => any::<Index>().prop_map(|upto| Op::Lose { upto }),
        ]
    }

    struct Sent {
        id: EventId,
        data: String,
        key: Option<(bool, u8)>,
    }

    /// A run, with all of its events.
    struct Model {
        log: RunLog,
        hasher: KeyHasher,
        now: Instant,
        next: EventId,
        sent: Vec<Sent>,
        freed: Vec<Arc<Entry>>,
    }

    impl Model {
        fn new(limit: usize) -> Self {
            let key = Key::Run("r".into());
            let mut model = Self {
                log: RunLog::new(key, None, limit, EventId::ORIGIN),
                hasher: KeyHasher::default(),
                now: Instant::now(),
                next: EventId::new(3, 1),
                sent: Vec::new(),
                freed: Vec::new(),
            };
            model.take_over();
            model
        }

        fn take_over(&mut self) {
            let hashes = self.hasher.hashes(&[Key::Run("r".into())], b"token");
            self.log.set_appends(Some(("token".into(), hashes)));
        }

        fn append(&mut self, is_token: bool, key: Option<u8>, len: usize) {
            let id = self.next;
            self.next = EventId::new(id.epoch(), id.seq() + 1);
            let letter = char::from(b'a' + (id.seq() % 26) as u8);
            let data = letter.to_string().repeat(len);
            let sealed = Event::new(if is_token { "token" } else { "note" }).data(&data).seal();
            let conflation = key.map(|key| key.to_string().into());
            let event =
                Encoded { audience: Audience::run("r".into()), conflation, trace: None, sealed };
            let entry = Prepared::new(event, &self.hasher).into_entry(id, self.now);
            let is_kept = self.log.append(&entry, &mut self.freed);
            let handles = 1 + self.freed.iter().filter(|freed| Arc::ptr_eq(freed, &entry)).count();
            assert_eq!(is_kept, Arc::strong_count(&entry) > handles);
            let key = key.map(|key| (is_token, key));
            self.sent.retain(|sent| key.is_none() || sent.key != key);
            self.sent.push(Sent { id, data, key });
            let newest = self.log.items.back().map(Item::last);
            assert_eq!(newest, Some(id), "the bound drops no event that was just published");
        }

        fn run(&mut self, op: &Op) {
            match *op {
                Op::Append { count, is_token, key, len } => {
                    (0..count).for_each(|_| self.append(is_token, key, len));
                }
                Op::NewEpoch => self.next = EventId::new(self.next.epoch() + 1, 0),
                Op::TakeOver => self.take_over(),
                Op::DropOldest => drop(self.log.drop_oldest(&mut self.freed)),
                Op::Lose { ref upto } if !self.sent.is_empty() => {
                    let upto = self.sent[upto.index(self.sent.len())].id;
                    self.log.lose(upto, &mut self.freed);
                    assert!(self.log.lost() >= upto);
                }
                Op::Lose { .. } => {}
            }
        }

        /// Reads the data of all events after a position.
        fn read(&self, mut after: EventId) -> String {
            let mut all = String::new();
            let mut next = self.log.seek(after);
            while let Some((at, first)) = next {
                assert!(first > after);
                let entry = self.log.take(at, first.predecessor(), EventId::LAST);
                assert!(entry.id >= first);
                after = entry.id;
                let (_, data) = decode::stored(entry.frame.bytes()).unwrap();
                all += &data;
                next = self.log.seek_from(at, after);
            }
            all
        }

        fn check(&self, after: EventId) {
            let log = &self.log;
            let after = after.max(log.lost());
            let rest = self.sent.iter().filter(|sent| sent.id > after);
            let rest: String = rest.map(|sent| sent.data.as_str()).collect();
            assert_eq!(self.read(after), rest, "after {after}");
            assert!(log.first().is_none_or(|first| first > log.lost()));
            assert_eq!(log.bytes, log.items.iter().map(Item::weight).sum::<usize>());
            assert!(log.bytes <= log.limit, "{} bytes of {}", log.bytes, log.limit);
            let events = log.items.iter().filter(|item| matches!(item, Item::Event(_)));
            assert!(log.latest.len() <= events.count());
        }

        fn texts(&self) -> impl Iterator<Item = &Text> {
            self.log.items.iter().filter_map(|item| match item {
                Item::Text(text) => Some(&**text),
                Item::Event(_) => None,
            })
        }
    }

    proptest! {
        #[test]
        fn a_run_keeps_every_event_after_its_losses(
            limit in 2_000..40_000usize, ops in vec(op(), 1..60), after in any::<Index>(),
        ) {
            let mut model = Model::new(limit);
            for op in &ops {
                model.run(op);
                let after = model.sent.get(after.index(model.sent.len().max(1)));
                model.check(after.map_or(EventId::ORIGIN, |sent| sent.id));
            }
        }
    }

    #[test]
    fn a_text_is_small_and_counts_its_memory() {
        for (limit, len) in [(4_000, 32), (16_000, 1), (8 << 20, 1), (8 << 20, 900)] {
            let mut model = Model::new(limit);
            for _ in 0..9_000 {
                model.append(true, None, len);
            }
            assert!(model.texts().count() > 0);
            for text in model.texts() {
                let (bytes, marks) = (text.text.len(), text.marks.len());
                // One text is the least that the limit of the run drops.
                assert!(bytes <= TEXT_BYTES.min(limit / 8) && marks <= TEXT_EVENTS);
                assert!(marks * MARK_WEIGHT <= limit / 8);
                let allocated = text.text.capacity() + text.marks.capacity() * size_of::<Mark>();
                assert!(allocated <= text.weight(), "{allocated} bytes");
            }
        }
    }

    #[test]
    fn a_large_event_is_kept_beside_the_texts() {
        let without_data = Event::new("token").data("").seal().finish(EventId::new(3, 1));
        let largest = TEXT_EVENT_BYTES - without_data.bytes().len();
        let mut model = Model::new(16 << 20);
        for len in [largest, largest + 1, 3] {
            model.append(true, None, len);
        }
        let large = matches!(&model.log.items[1], Item::Event(entry) if entry.id.seq() == 2);
        assert!(large && model.log.items.len() == 3 && model.texts().count() == 2);
        model.check(EventId::ORIGIN);
    }

    #[test]
    fn an_event_larger_than_the_share_of_a_text_is_a_text_alone() {
        // An eighth of the limit is less than the event.
        let mut model = Model::new(4_000);
        for _ in 0..3 {
            model.append(true, None, 600);
        }
        let texts: Vec<usize> = model.texts().map(|text| text.marks.len()).collect();
        assert_eq!(texts, [1, 1]);
        assert_eq!(model.log.lost(), EventId::new(3, 1));
        model.check(EventId::ORIGIN);
    }

    #[test]
    fn a_run_may_be_full_to_the_byte() {
        let notes = |limit| {
            let mut model = Model::new(limit);
            (0..2).for_each(|_| model.append(false, None, 9));
            model
        };
        let bytes = notes(1 << 20).log.bytes();
        assert_eq!(notes(bytes).log.lost(), EventId::ORIGIN);
        assert_eq!(notes(bytes - 1).log.lost(), EventId::new(3, 1));
    }

    #[test]
    fn event_counts_for_at_most_its_bound() {
        for (is_token, len) in [(true, 0), (true, 1), (true, 900), (true, 2_000), (false, 900)] {
            let mut model = Model::new(1 << 20);
            model.append(is_token, None, len);
            let frame = Event::new("token").data("x".repeat(len)).seal().max_len();
            let bytes = model.log.bytes();
            assert!(bytes > len && bytes <= most_weight(frame + 1), "{bytes} bytes for {len}");
        }
    }
}
