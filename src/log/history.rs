//! Older events, brought back to the log for a while.
//!
//! The log of a hub with a backplane can be made longer at its old end: what it let go of, or never had, is put back in
//! its place, so that whoever wants it reads it as it reads everything. Meanwhile the log keeps more than its retention,
//! by an allowance, and neither limits topics nor looks at the age of events: what is read is not to be pulled away.

use std::sync::Arc;

use super::audience::Key;
use super::log::{Entry, Log, Raised};
use super::retain::Allowance;
use crate::wire::id::EventId;

impl Log {
    /// The position after which nothing is lost to anybody.
    pub(crate) fn whole_from(&self) -> EventId {
        self.lost.whole_from()
    }

    /// Keeps more than its retention from now on.
    pub(crate) fn raise(&mut self, by: Allowance) {
        let base = self.whole_from();
        self.raised.get_or_insert(Raised { by, base, full: false });
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.is_some()
    }

    /// How many events more it would hold, raised by so much.
    pub(crate) fn room(&self, by: Allowance) -> usize {
        let limit = self.retain.events.saturating_add(by.events);
        match &self.raised {
            Some(raised) if raised.full => 0,
            _ => limit.saturating_sub(self.len()),
        }
    }

    /// Whether whoever reads after this position reads what the retention alone would not keep.
    pub(crate) fn reaches_back(&self, after: EventId) -> bool {
        let Some(Raised { base, .. }) = &self.raised else { return false };
        let usual = self.order.len().checked_sub(self.retain.events);
        let usual = usual.and_then(|at| self.order.get(at)).map(|&(id, _)| id);
        after < usual.map_or(*base, |usual| usual.max(*base))
    }

    /// Nothing was lost after this position that is not here.
    pub(crate) fn reach_back(&mut self, position: EventId) {
        self.lost.restore(position);
    }

    /// Puts back the newest event of those that are lost; `previous` is the position of the one before it in the order.
    /// `false` if there is no room.
    ///
    /// One that is there all the same, between others that a topic's limit pushed out, stays. One that has a later
    /// value stays out, as if it had been here.
    pub(crate) fn restore(&mut self, entry: Arc<Entry>, previous: EventId) -> bool {
        let at = self.order.binary_search_by_key(&entry.id, |&(id, _)| id);
        let is_there = at.is_ok_and(|at| self.order[at].1.is_some());
        let is_outdated =
            entry.conflation.as_ref().is_some_and(|key| self.latest.contains_key(key));
        if is_there || is_outdated {
            self.lost.restore(previous);
            return true;
        }
        let limit = self.limit();
        let bytes = self.bytes + entry.weight();
        if self.len() >= limit.events || bytes > limit.bytes {
            if let Some(raised) = &mut self.raised {
                raised.full = true;
            }
            return false;
        }
        if let Some(conflation) = &entry.conflation {
            self.latest.insert(Arc::clone(conflation), entry.id);
        }
        self.bytes = bytes;
        for key in entry.keys() {
            let entries = self.index.entry(key.clone()).or_default();
            let at = entries.partition_point(|other| other.id < entry.id);
            entries.insert(at, Arc::clone(&entry));
        }
        self.lost.restore(previous);
        match at {
            Ok(hole) => {
                self.order[hole].1 = Some(entry);
                self.holes -= 1;
            }
            Err(at) => self.order.insert(at, (entry.id, Some(entry))),
        }
        true
    }

    /// Goes back to its retention, and lets go of so many events for it at most: to be called again while it
    /// [is raised](Self::is_raised).
    pub(crate) fn lower(&mut self, most: usize, evicted: &mut Vec<Arc<Entry>>) {
        for _ in 0..most {
            if self.len() <= self.retain.events && self.bytes <= self.retain.bytes {
                self.raised = None;
                self.limit_topics(evicted);
                return;
            }
            self.evict_oldest(evicted);
        }
    }

    fn limit_topics(&mut self, evicted: &mut Vec<Arc<Entry>>) {
        let Some(limit) = self.retain.per_topic else { return };
        let topics = self.index.iter().filter(|(key, _)| matches!(key, Key::Topic(_)));
        let surplus = topics.flat_map(|(_, entries)| {
            entries.iter().take(entries.len().saturating_sub(limit)).map(|entry| entry.id)
        });
        for id in surplus.collect::<Vec<_>>() {
            self.evict(id, evicted);
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::log::audience::{Audience, Filter, Identity, Place};
    use crate::log::log::{Budget, Parts};
    use crate::log::lost::Marker;
    use crate::log::retain::Retain;
    use crate::wire::event::Event;

    const KINDS: usize = 5;

    /// Some of its events are for all, and some for others than its user.
    fn audience(kind: usize) -> Audience {
        match kind {
            0 => Audience::all(),
            1 => Audience::topic("a"),
            2 => Audience::topic("b"),
            3 => Audience::topic("a").or(Audience::user("u")),
            _ => Audience::topic("b").except(Audience::user("u")),
        }
    }

    /// Clients, and the kinds that are for them.
    const CLIENTS: [(&[&str], bool, [bool; KINDS]); 4] = [
        (&["a"], false, [true, true, false, true, false]),
        (&["b"], true, [true, false, true, true, false]),
        (&["b"], false, [true, false, true, false, true]),
        (&[], false, [true, false, false, false, false]),
    ];

    #[derive(Debug, Clone)]
    enum Op {
        Append { kind: usize, conflates: bool },
        Raise,
        Restore { count: usize },
        Lower { most: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0..KINDS, prop::bool::weighted(0.2))
                .prop_map(|(kind, conflates)| Op::Append { kind, conflates }),
            2 => Just(Op::Raise),
            4 => (1..6usize).prop_map(|count| Op::Restore { count }),
            2 => (1..6usize).prop_map(|most| Op::Lower { most }),
        ]
    }

    struct Model {
        log: Log,
        /// All that was ever appended, and what takes the place of which.
        all: Vec<(Arc<Entry>, usize, bool)>,
    }

    impl Model {
        fn append(&mut self, kind: usize, conflates: bool, marker: &Marker, now: Instant) {
            let id = EventId(1, self.all.len() as u64 + 1);
            let key = conflates.then(|| "key".into());
            let parts = Parts::new(audience(kind), b"n", key, marker);
            let frame = Event::new("n").data("x").seal().finish(id);
            let entry = Arc::new(Entry::new(id, frame, parts, now));
            self.log.append(Arc::clone(&entry), &mut Vec::new());
            self.all.push((entry, kind, conflates));
        }

        fn restore(&mut self, count: usize) {
            for _ in 0..count {
                let EventId(_, at) = self.log.whole_from();
                if at == 0 || !self.log.is_raised() {
                    return;
                }
                let (entry, ..) = &self.all[at as usize - 1];
                if !self.log.restore(Arc::clone(entry), EventId(1, at - 1)) {
                    return;
                }
            }
        }

        /// Whether a later value of the same took its place.
        fn is_outdated(&self, at: usize) -> bool {
            let (_, kind, conflates) = self.all[at];
            let later = |(_, other, also): &(_, usize, bool)| *also && *other == kind;
            conflates && self.all[at + 1..].iter().any(later)
        }

        fn check(&self) -> Result<(), TestCaseError> {
            let limit = self.log.limit();
            prop_assert!(self.log.len() <= limit.events);
            let held = self.log.order.iter().filter_map(|(_, entry)| entry.as_ref());
            prop_assert_eq!(
                self.log.bytes(),
                held.clone().map(|entry| entry.weight()).sum::<usize>()
            );
            prop_assert_eq!(self.log.len(), held.count());
            prop_assert!(self.log.order.iter().is_sorted_by(|(a, _), (b, _)| a < b));
            for (topics, is_u, kinds) in CLIENTS {
                let user = is_u.then(|| Key::User("u".into()));
                let topics = topics.iter().map(|&topic| Key::Topic(topic.into()));
                let keys = [Key::All].into_iter().chain(user).chain(topics);
                let place = |key| Place { key, since: EventId(0, 0), index: 0 };
                let places: Vec<Place> = keys.map(place).collect();
                let client = Identity { places: &places, filter: &Filter::Everything };
                for after in 0..=self.all.len() {
                    let position = EventId(1, after as u64);
                    let expected = (after..self.all.len())
                        .filter(|&at| kinds[self.all[at].1] && !self.is_outdated(at))
                        .map(|at| self.all[at].0.id);
                    let expected: Vec<EventId> = expected.collect();
                    let mut read = Vec::new();
                    self.log.read(position, client, Budget { bytes: usize::MAX }, &mut read);
                    let read: Vec<EventId> = read.into_iter().map(|entry| entry.id).collect();
                    match self.log.lost_since(position, client) {
                        None => prop_assert_eq!(read, expected, "after {}", position),
                        Some(lost) => {
                            prop_assert!(position < lost && lost <= self.log.whole_from());
                            let is_there = |id: &EventId| *id <= lost || read.contains(id);
                            prop_assert!(expected.iter().all(is_there), "{expected:?} {read:?}");
                        }
                    }
                }
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn whoever_reads_has_all_or_is_told(
            ops in vec(op(), 1..50), events in 1..8usize, per_topic in prop::option::of(1..4usize),
            older in 1..12usize,
        ) {
            let mut retain = Retain::events(events).any_age();
            retain.per_topic = per_topic.map(|limit| limit.min(events));
            let (marker, now) = (Marker::default(), Instant::now());
            let mut model = Model { log: Log::new(retain, EventId(1, 0), marker.clone()), all: vec![] };
            for op in ops {
                match op {
                    Op::Append { kind, conflates } => model.append(kind, conflates, &marker, now),
                    Op::Raise => model.log.raise(Allowance { events: older, bytes: 1 << 20 }),
                    Op::Restore { count } => model.restore(count),
                    Op::Lower { most } => model.log.lower(most, &mut Vec::new()),
                }
                model.check()?;
            }
            let most = model.all.len() + 1;
            model.log.lower(most, &mut Vec::new());
            prop_assert!(!model.log.is_raised() && model.log.len() <= events);
            for topic in ["a", "b"] {
                let kept = model.log.index.get(&Key::Topic(topic.into())).map_or(0, |kept| kept.len());
                prop_assert!(retain.per_topic.is_none_or(|limit| kept <= limit));
            }
            model.check()?;
        }
    }

    #[test]
    fn nothing_is_too_old_while_it_is_raised() {
        let (marker, now) = (Marker::default(), Instant::now());
        let retain = Retain::events(9).age(Duration::from_secs(1));
        let mut model = Model { log: Log::new(retain, EventId(1, 0), marker.clone()), all: vec![] };
        model.append(0, false, &marker, now);
        model.log.raise(Allowance { events: 1, bytes: 1 });
        model.append(0, false, &marker, now + Duration::from_secs(5));
        assert_eq!(model.log.len(), 2);
        model.log.lower(1, &mut Vec::new());
        model.log.expire(now + Duration::from_secs(5), &mut Vec::new());
        assert_eq!(model.log.len(), 1);
    }
}
