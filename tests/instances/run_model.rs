//! Random schedules of runs on several instances against a naive model.
//!
//! Producers on all instances start, take over, publish, stop and end. Instances read late, die,
//! and begin anew from a short tail and the copies of the runs. The order is trimmed, rolled back
//! and replaced. The model applies the rule of the parts to the entries of the order, in order, and
//! checks each frame that a reader gets, each producer, and the runs that each instance knows.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use sse_hub::backplane::{InstanceId, RunPartKind};
use sse_hub::{
    Event, EventId, History, Retain, Run, RunError, RunOptions, RunState, Subscriber, Subscription,
};

use crate::order::{Copying, Entry, Instance, Order};
use crate::support::frames;

const NAMES: [&str; 2] = ["a", "b"];
const INSTANCES: usize = 2;
const READERS: usize = 3;
const ORIGIN: EventId = EventId::new(0, 0);

#[derive(Debug, Clone)]
struct Settings {
    copying: Copying,
    has_history: bool,
    /// The instances do not know the order when the first entries are placed.
    begins_late: bool,
    window: usize,
    batch: usize,
}

#[derive(Debug, Clone)]
enum Op {
    Start { instance: usize, name: usize, takes_over: bool },
    Publish { producer: usize, is_token: bool },
    End { producer: usize, how: RunState, with_event: bool },
    Stop { instance: usize, name: usize },
    Topic { instance: usize },
    Flush { instance: usize },
    Read { instance: usize, count: usize },
    Die { instance: usize },
    Lose { instance: usize },
    Trim { count: usize },
    RollBack { count: usize, with_copies: bool },
    Clear,
    Connect { reader: usize, instance: usize, names: BTreeSet<usize>, topic: bool, resumes: bool },
    Drain { reader: usize },
    Next { reader: usize },
    Settle,
}

fn settings() -> impl Strategy<Value = Settings> {
    let copying = prop_oneof![
        Just(Copying::All),
        Just(Copying::Effective(usize::MAX)),
        (1..6usize).prop_map(Copying::Effective),
    ];
    (copying, any::<[bool; 2]>(), 1..6usize, 1..500usize).prop_map(
        |(copying, [has_history, begins_late], window, batch)| Settings {
            copying,
            has_history,
            begins_late,
            window,
            batch,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let (instance, name, reader) = (|| 0..INSTANCES, || 0..NAMES.len(), || 0..READERS);
    let how = prop_oneof![
        3 => Just(RunState::Finished),
        1 => Just(RunState::Failed),
        1 => Just(RunState::Abandoned)
    ];
    let connect =
        (reader(), instance(), btree_set(name(), 1..3), any::<bool>(), prop::bool::weighted(0.6));
    prop_oneof![
        6 => (instance(), name(), prop::bool::weighted(0.3))
            .prop_map(|(instance, name, takes_over)| Op::Start { instance, name, takes_over }),
        20 => (0..4usize, prop::bool::weighted(0.8))
            .prop_map(|(producer, is_token)| Op::Publish { producer, is_token }),
        3 => (0..4usize, how, any::<bool>())
            .prop_map(|(producer, how, with_event)| Op::End { producer, how, with_event }),
        1 => (instance(), name()).prop_map(|(instance, name)| Op::Stop { instance, name }),
        4 => instance().prop_map(|instance| Op::Topic { instance }),
        8 => instance().prop_map(|instance| Op::Flush { instance }),
        8 => (instance(), 1..8usize).prop_map(|(instance, count)| Op::Read { instance, count }),
        1 => instance().prop_map(|instance| Op::Die { instance }),
        1 => instance().prop_map(|instance| Op::Lose { instance }),
        1 => (1..9usize).prop_map(|count| Op::Trim { count }),
        1 => (0..4usize, any::<bool>())
            .prop_map(|(count, with_copies)| Op::RollBack { count, with_copies }),
        1 => prop::bool::weighted(0.3)
            .prop_map(|is_all| if is_all { Op::Clear } else { Op::Settle }),
        8 => connect.prop_map(|(reader, instance, names, topic, resumes)| {
            Op::Connect { reader, instance, names, topic, resumes }
        }),
        6 => reader().prop_map(|reader| Op::Drain { reader }),
        6 => reader().prop_map(|reader| Op::Next { reader }),
        3 => Just(Op::Settle),
    ]
}

/// A part of a run, or an event of the topic, in the order of the ids.
#[derive(Debug, Clone)]
struct Part {
    id: EventId,
    /// `None` for the topic.
    name: Option<String>,
    kind: RunPartKind,
    producer: Vec<u8>,
    /// The type and the data of an event; the word of the state for an end.
    text: (String, String),
}

/// A run as the order says.
#[derive(Debug, Clone)]
struct TrueRun {
    begin: EventId,
    producer: Vec<u8>,
    end: Option<(EventId, String)>,
    events: u64,
    is_stopped: bool,
}

/// The runs and events by the rule.
#[derive(Debug, Default)]
struct Truth {
    parts: Vec<Part>,
    /// The runs of each name, the newest last.
    runs: BTreeMap<String, Vec<TrueRun>>,
    /// The events for readers: the source, the type and the data.
    events: BTreeMap<EventId, (Option<String>, String, String)>,
    /// The producers whose starts had an effect.
    started: BTreeSet<Vec<u8>>,
    /// The producers of an older order: if a new order lacks the run, readers get the end.
    gone: BTreeSet<Vec<u8>>,
    /// Events that a reader may get: from before a rollback, and the ends of runs that are gone.
    ghosts: BTreeMap<EventId, (Option<String>, String, String)>,
}

impl Truth {
    /// Applies the rule of [`RunPartKind`].
    fn apply(&mut self, part: Part) {
        let Part { id, name, kind, producer, text: (event_type, data) } = part.clone();
        self.parts.push(part);
        let Some(name) = name else {
            self.events.insert(id, (None, event_type, data));
            return;
        };
        let runs = self.runs.entry(name.clone()).or_default();
        let open = runs.last_mut().filter(|run| run.end.is_none());
        match (kind, open) {
            (RunPartKind::Start | RunPartKind::TakeOver, None) => {
                self.started.insert(producer.clone());
                let is_stopped = false;
                runs.push(TrueRun { begin: id, producer, end: None, events: 0, is_stopped });
            }
            (RunPartKind::TakeOver, Some(run)) => {
                self.started.insert(producer.clone());
                run.producer = producer;
            }
            (RunPartKind::Event, Some(run)) if run.producer == producer => {
                run.events += 1;
                self.events.insert(id, (Some(name), event_type, data));
            }
            (RunPartKind::End, open)
                if open.as_ref().is_none_or(|run| run.producer != producer) =>
            {
                // A run that is gone ends for its readers.
                let is_gone = self.gone.contains(&producer);
                self.ghosts.extend(is_gone.then_some((id, (Some(name), event_type, data))));
            }
            (RunPartKind::End, Some(run)) => {
                run.events += 1;
                let end = format!("{{\"run\":\"{name}\",\"reason\":\"{data}\"}}");
                run.end = Some((id, data));
                self.events.insert(id, (Some(name), "hub:run-end".to_owned(), end));
            }
            (RunPartKind::Stop, Some(run)) => run.is_stopped = true,
            _ => {}
        }
    }

    /// Begins anew with the parts that are left.
    fn restart(&mut self, parts: Vec<Part>) {
        let old = std::mem::take(self);
        parts.into_iter().for_each(|part| self.apply(part));
        self.ghosts.extend(old.ghosts);
        self.ghosts.extend(old.events);
        self.gone = old.gone;
        self.gone.extend(old.started);
    }

    fn run(&self, name: usize) -> Option<&TrueRun> {
        self.runs.get(NAMES[name])?.last()
    }
}

struct Handle {
    run: Run,
    name: usize,
    producer: Vec<u8>,
    /// The instance, and its generation.
    on: (usize, usize),
    has_ended: bool,
    /// The instance had the order when the run was started. Otherwise the copies may not say
    /// whether the start had an effect, if the run has ended and a new run has the name.
    is_decided: bool,
}

#[derive(Default)]
struct Reader {
    names: BTreeSet<usize>,
    topic: bool,
    on: usize,
    stream: Option<Subscription>,
    last: Option<EventId>,
    cursor: EventId,
    /// The events of each run, and of the topic, count from here.
    since: [EventId; NAMES.len() + 1],
    /// Events up to here may be missing.
    excused: EventId,
    end: Option<String>,
}

struct Model {
    settings: Settings,
    order: Order,
    instances: Vec<Instance>,
    generations: [usize; INSTANCES],
    dead: Vec<InstanceId>,
    truth: Truth,
    handles: Vec<Handle>,
    readers: Vec<Reader>,
    published: usize,
    /// The order was rolled back or replaced, or an instance has missed a part.
    has_reset: bool,
}

fn instance(settings: &Settings) -> Instance {
    let Settings { has_history, window, batch, .. } = *settings;
    Instance::with(|hub| {
        hub.retain(Retain::default().age(None))
            .history(has_history.then(History::default))
            .stalled_after(None)
            .window(window)
            .max_batch_bytes(batch)
    })
}

impl Model {
    fn new(settings: Settings) -> Self {
        let order = Order { copying: settings.copying.clone(), ..Order::default() };
        let begins_late = settings.begins_late;
        let mut model = Self {
            instances: (0..INSTANCES).map(|_| instance(&settings)).collect(),
            settings,
            order,
            generations: [0; INSTANCES],
            dead: Vec::new(),
            truth: Truth::default(),
            handles: Vec::new(),
            readers: (0..READERS).map(|_| Reader::default()).collect(),
            published: 0,
            has_reset: false,
        };
        if !begins_late {
            (0..INSTANCES).for_each(|instance| model.read(instance, 0));
        }
        model
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Start { instance, name, takes_over } => self.start(*instance, *name, *takes_over),
            Op::Publish { producer, is_token } => {
                self.published += 1;
                let event_type = if *is_token { "token" } else { "note" };
                let event = Event::new(event_type).data(format!("{};", self.published));
                if let Some(handle) = self.handle(*producer) {
                    let _ = handle.run.publish(event);
                }
            }
            Op::End { producer, how, with_event } => self.end(*producer, *how, *with_event),
            Op::Stop { instance, name } => {
                let _ = self.instances[*instance].hub.stop_run(NAMES[*name], "user");
            }
            Op::Topic { instance } => {
                self.published += 1;
                let event = Event::new("topic").data(format!("{};", self.published));
                let _ = self.instances[*instance].hub.send_to_topic("t", event);
            }
            Op::Flush { instance } => self.flush(*instance),
            Op::Read { instance, count } => self.read(*instance, *count),
            Op::Die { instance } => self.die(*instance),
            Op::Lose { instance } => self.lose(*instance),
            Op::Trim { count } => {
                let trimmed = self.order.trim(*count);
                let last = trimmed.last().map_or(ORIGIN, |trimmed| trimmed.id);
                // An instance that has not read the entries begins anew.
                self.has_reset |=
                    self.instances.iter().any(|instance| instance.at.is_some_and(|at| at < last));
            }
            Op::RollBack { count, with_copies } => self.roll_back(*count, *with_copies),
            Op::Clear => self.clear(),
            Op::Connect { reader, instance, names, topic, resumes } => {
                self.connect(*reader, *instance, names, *topic, *resumes);
            }
            Op::Drain { reader } => while self.next(*reader) {},
            Op::Next { reader } => drop(self.next(*reader)),
            Op::Settle => self.settle(),
        }
    }

    /// The last handles, which schedules choose from.
    fn handle(&mut self, back: usize) -> Option<&mut Handle> {
        let at = self.handles.len().checked_sub(1 + back)?;
        self.handles.get_mut(at)
    }

    fn start(&mut self, on: usize, name: usize, takes_over: bool) {
        let options = RunOptions::default().append("token").take_over(takes_over);
        let instance = &self.instances[on];
        let is_open = instance.hub.run(NAMES[name]).is_some_and(|run| run.ended.is_none());
        match instance.hub.start_run(NAMES[name], options) {
            Ok(run) => {
                let outbox = instance.outbox.0.lock().unwrap();
                let producer = outbox.back().unwrap().run().unwrap().producer.to_vec();
                drop(outbox);
                let (is_decided, on) = (instance.at.is_some(), (on, self.generations[on]));
                let handle = Handle { run, name, producer, on, has_ended: false, is_decided };
                self.handles.push(handle);
            }
            Err(RunError::Open) => assert!(is_open && !takes_over),
            Err(RunError::Backlog) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn end(&mut self, back: usize, how: RunState, with_event: bool) {
        self.published += 1;
        let data = format!("{};", self.published);
        let Some(handle) = self.handle(back) else { return };
        let last = with_event.then(|| Event::new("note").data(data));
        let ended = match how {
            RunState::Finished => handle.run.finish(last),
            RunState::Failed => handle.run.fail(last),
            _ => {
                let at = self.handles.len() - 1 - back;
                drop(self.handles.remove(at));
                return;
            }
        };
        handle.has_ended |= ended.is_ok();
    }

    /// Places the entries of an instance, and applies them to the truth.
    fn flush(&mut self, instance: usize) {
        let outbox = self.instances[instance].outbox.0.lock().unwrap();
        let parts: Vec<_> = outbox
            .iter()
            .map(|event| {
                let part = event.run();
                let entry = String::from_utf8_lossy(event.entry()).into_owned();
                let kind = part.map_or(RunPartKind::Event, |part| part.kind);
                let text = match kind {
                    RunPartKind::Event => {
                        let frame = &entry[entry.rfind("event: ").unwrap()..];
                        let (event_type, data) = frame[7..].split_once("\ndata: ").unwrap();
                        (event_type.to_owned(), data.trim_end().to_owned())
                    }
                    RunPartKind::End => {
                        let state = RunState::ALL[usize::from(*event.entry().last().unwrap())];
                        (String::new(), state.as_str().to_owned())
                    }
                    _ => Default::default(),
                };
                let name = part.map(|part| part.name.to_owned());
                let producer = part.map_or(Vec::new(), |part| part.producer.to_vec());
                Part { id: ORIGIN, name, kind, producer, text }
            })
            .collect();
        drop(outbox);
        let before = self.order.entries.len();
        self.instances[instance].flush(&mut self.order);
        let placed: Vec<EventId> =
            self.order.entries[before..].iter().map(|placed| placed.id).collect();
        assert_eq!(placed.len(), parts.len());
        for (id, part) in placed.into_iter().zip(parts) {
            self.truth.apply(Part { id, ..part });
        }
    }

    fn read(&mut self, instance: usize, count: usize) {
        let instance = &mut self.instances[instance];
        instance.read(&mut self.order, count);
        instance.look(&self.order);
        instance.look_back_for_all(&self.order);
    }

    fn die(&mut self, at: usize) {
        let died = (at, self.generations[at]);
        self.generations[at] += 1;
        let old = std::mem::replace(&mut self.instances[at], instance(&self.settings));
        self.dead.push(old.feed.instance());
        self.readers.iter_mut().filter(|reader| reader.on == at).for_each(|reader| {
            reader.stream = None;
        });
        drop(old);
        self.handles.retain(|handle| handle.on != died);
    }

    fn lose(&self, instance: usize) {
        self.dead.iter().for_each(|dead| self.instances[instance].feed.lose_runs(*dead));
    }

    /// Makes every instance find that the order is another, before anything is placed.
    fn reset(&mut self) {
        self.has_reset = true;
        for instance in 0..INSTANCES {
            self.read(instance, usize::MAX);
        }
        for reader in &mut self.readers {
            reader.excused = self.order.last;
        }
    }

    fn roll_back(&mut self, count: usize, with_copies: bool) {
        let since = self.order.last;
        let gone = self.order.roll_back(count);
        if gone.iter().any(|placed| matches!(placed.entry, Entry::Mark)) {
            // Instances that have not read the mark must find a mark.
            self.order.mark(since);
        }
        let gone: BTreeSet<EventId> = gone.iter().map(|placed| placed.id).collect();
        let is_topic = |part: &Part| part.name.is_none();
        let mut parts = self.truth.parts.clone();
        // The copies of runs have the parts that the order does not have any more.
        parts.retain(|part| !gone.contains(&part.id) || !with_copies && !is_topic(part));
        self.truth.restart(parts);
        if with_copies {
            self.order.roll_back_copies(&gone);
        }
        self.order.mark(since);
        self.reset();
    }

    /// The order and everything beside is gone.
    fn clear(&mut self) {
        self.truth.restart(Vec::new());
        self.order.entries.clear();
        self.order.copies.clear();
        self.order.parts.clear();
        self.order.mark = ORIGIN;
        self.order.trimmed = [ORIGIN; 2];
        let since = self.order.last;
        self.order.last = ORIGIN;
        self.order.mark(since);
        self.reset();
        // The producers' instances report the lost runs for their readers.
        for reader in &mut self.readers {
            reader.stream = None;
            reader.last = None;
        }
    }

    fn connect(
        &mut self,
        number: usize,
        on: usize,
        names: &BTreeSet<usize>,
        topic: bool,
        resumes: bool,
    ) {
        let instance = &self.instances[on];
        let (head, is_loaded) = (instance.hub.position(), instance.at.is_some());
        let reader = &mut self.readers[number];
        reader.stream = None;
        let last = reader.last.filter(|_| resumes);
        if last.is_none() {
            (reader.names, reader.topic) = (names.clone(), topic);
        }
        let mut client = Subscriber::new().runs(reader.names.iter().map(|&name| NAMES[name]));
        if reader.topic {
            client = client.topic("t");
        }
        if let Some(last) = last {
            client = client.resume(last);
        }
        let Ok(stream) = instance.hub.subscribe(client) else {
            let is_over = |&name: &usize| {
                let run = instance.hub.run(NAMES[name]);
                run.is_none_or(|run| run.ended.is_some())
            };
            assert!(!reader.topic && reader.names.iter().all(is_over), "refused");
            return;
        };
        reader.on = on;
        reader.end = None;
        match last {
            Some(last) => {
                reader.cursor = last;
                reader.since = [last; NAMES.len() + 1];
            }
            None => {
                reader.excused = ORIGIN;
                reader.since = [head; NAMES.len() + 1];
                for (name, since) in NAMES.into_iter().zip(&mut reader.since) {
                    let runs = self.truth.runs.get(name).into_iter().flatten();
                    let known = runs.rev().find(|run| run.begin <= head);
                    if instance.hub.run(name).is_some() {
                        // The order does not have a run that is gone.
                        *since = known.map_or(ORIGIN, |run| run.begin);
                    }
                }
                let since = reader.since.iter().take(NAMES.len());
                let since = since.enumerate().filter(|(name, _)| reader.names.contains(name));
                reader.cursor = since.map(|(_, since)| *since).min().unwrap().min(head);
                if self.has_reset {
                    // The instance may know a run that is gone in place of a newer run of the name.
                    reader.cursor = ORIGIN;
                }
            }
        }
        if !is_loaded {
            // The beginning is decided with the first load, and a gap told.
            (reader.since, reader.cursor) = ([ORIGIN; NAMES.len() + 1], ORIGIN);
            if let Some(last) = last {
                (reader.since, reader.cursor) = ([last; NAMES.len() + 1], last);
            }
        }
        reader.stream = Some(stream);
    }

    /// The events for a reader after its cursor, and up to `upto`.
    fn waiting(&self, number: usize, upto: EventId) -> Vec<(EventId, &str, &str)> {
        let reader = &self.readers[number];
        let is_for = |(id, source): (EventId, &Option<String>)| match source {
            None => reader.topic && id > reader.since[NAMES.len()],
            Some(run) => {
                let name = NAMES.iter().position(|name| name == run).unwrap();
                reader.names.contains(&name) && id > reader.since[name]
            }
        };
        let events = self.truth.events.iter();
        let events = events.filter(|&(&id, (source, ..))| is_for((id, source)));
        let events = events.filter(|&(&id, _)| id > reader.cursor && id <= upto);
        events.map(|(id, (_, event_type, data))| (*id, &**event_type, &**data)).collect()
    }

    /// Reads an item of a stream. Returns whether there was an item.
    fn next(&mut self, number: usize) -> bool {
        let Some(stream) = &mut self.readers[number].stream else { return false };
        let Some(Some(item)) = stream.next().now_or_never() else { return false };
        for frame in frames(std::str::from_utf8(&item).unwrap()) {
            self.frame(number, &frame.event, &frame.data, frame.id);
        }
        true
    }

    fn frame(&mut self, number: usize, event_type: &str, data: &str, id: Option<EventId>) {
        let latest = self.truth.events.keys().next_back().copied().unwrap_or_default();
        let latest = latest.max(self.order.last);
        match event_type {
            "hub:open" => {
                let is_unknown = id == Some(ORIGIN);
                self.readers[number].last = id.filter(|_| !is_unknown);
                return;
            }
            "hub:gap" => {
                let is_late = self.settings.begins_late || self.generations != [0; INSTANCES];
                // A new run of a name takes the events of the run before.
                let has_new = self.truth.runs.values().any(|runs| runs.len() > 1);
                assert!(is_late || has_new || self.has_reset, "a gap without a loss");
                let reader = &mut self.readers[number];
                (reader.last, reader.excused) = (id, latest);
                return;
            }
            "hub:end" => {
                let word = data.split('"').nth(3).unwrap().to_owned();
                self.readers[number].end = Some(word);
                return;
            }
            _ => {}
        }
        let id = id.expect("an id");
        let reader = &self.readers[number];
        assert!(id > reader.cursor, "{id} after {}", reader.cursor);
        if !self.truth.events.contains_key(&id) {
            // Read before a rollback.
            assert!(
                self.truth.ghosts.contains_key(&id),
                "an event that never was: {event_type} {data}"
            );
            let reader = &mut self.readers[number];
            (reader.cursor, reader.last) = (id, Some(id));
            return;
        }
        let waiting = self.waiting(number, id);
        assert_eq!(waiting.last().map(|event| event.0), Some(id), "not for this reader: {data}");
        let excused = reader.excused;
        let source = |id: &EventId| &self.truth.events[id].0;
        let may_miss = |event: &(EventId, &str, &str)| event.0 <= excused;
        let is_one = |event: &(EventId, &str, &str)| {
            event.1 == event_type && source(&event.0) == source(&id)
        };
        let is_found = (0..waiting.len()).any(|from| {
            // A text may be joined across an event that is gone.
            let part = waiting[from..].iter().filter(|event| is_one(event) || !may_miss(event));
            let part: Vec<_> = part.collect();
            (part.len() == 1 || event_type == "token")
                && part.iter().all(|event| is_one(event))
                && part.iter().map(|event| event.2).collect::<String>() == data
                && waiting[..from].iter().all(may_miss)
        });
        assert!(is_found, "{event_type} {data} is not the next of {waiting:?}, excused {excused}");
        let reader = &mut self.readers[number];
        (reader.cursor, reader.last) = (id, Some(id));
    }

    fn settle(&mut self) {
        // A report of a lost run is sent when an instance reads, and read then.
        for _ in 0..3 {
            (0..INSTANCES).for_each(|instance| self.flush(instance));
            (0..INSTANCES).for_each(|instance| self.read(instance, usize::MAX));
        }
        for (at, instance) in self.instances.iter().enumerate() {
            assert!(instance.outbox.0.lock().unwrap().is_empty(), "instance {at} goes on sending");
        }
    }

    fn check(&mut self) {
        self.settle();
        self.lose(0);
        self.lose(1);
        self.settle();
        for instance in &self.instances {
            let mut alive: Vec<_> =
                self.instances.iter().map(|instance| instance.feed.instance()).collect();
            alive.retain(|id| instance.feed.run_instances().contains(id));
            assert_eq!(
                alive.len(),
                instance.feed.run_instances().len(),
                "a dead instance has runs"
            );
            for (name, text) in NAMES.into_iter().enumerate() {
                let known = instance.hub.run(text);
                let Some(run) = self.truth.run(name) else {
                    let is_over = known.is_none_or(|run| run.state == RunState::Lost);
                    assert!(is_over, "a run that the order does not have");
                    continue;
                };
                let known = known.expect("a run of the order");
                let state = run.end.as_ref().map_or("open", |(_, word)| word);
                assert_eq!(known.state.as_str(), state);
                assert!(known.events <= run.events);
                assert_eq!(known.stop.is_some(), run.is_stopped);
            }
        }
        for Handle { run, name, producer, has_ended, is_decided, .. } in &self.handles {
            let known = self.truth.run(*name);
            let current = known.filter(|known| known.end.is_none() && known.producer == *producer);
            let published = run.publish(Event::new("note").data("0;"));
            match (&published, current) {
                (Ok(_), Some(_)) => {}
                (Err(_), None) | (Err(RunError::Ended), Some(_)) => {
                    assert!(current.is_none() || *has_ended);
                }
                (result, current) => panic!("{result:?} of {producer:?} in {current:?}"),
            }
            let verdict = run.started().now_or_never().expect("a verdict");
            if !self.has_reset && *is_decided {
                assert_eq!(verdict.is_ok(), self.truth.started.contains(producer));
                let expected = match verdict {
                    Err(error) => Some(error),
                    Ok(()) if current.is_some() && !has_ended => None,
                    Ok(()) => published.err().filter(|error| *error != RunError::Open),
                };
                assert_eq!(published.err(), expected);
            }
        }
        for _ in 0..3 {
            // A client that reads may wait for older events.
            (0..READERS).for_each(|number| while self.next(number) {});
            self.settle();
        }
        for number in 0..READERS {
            while self.next(number) {}
            let reader = &self.readers[number];
            let Some(stream) = &reader.stream else { continue };
            let is_over = reader.end.is_some();
            assert!(!is_over || !reader.topic);
            let runs: Vec<_> =
                reader.names.iter().filter_map(|&name| self.truth.run(name)).collect();
            if !is_over && !reader.topic && !runs.is_empty() {
                let has_new = |run: &&TrueRun| {
                    run.end.as_ref().is_none_or(|(end, _)| *end <= stream.position())
                };
                let is_open = runs.iter().any(|run| run.end.is_none());
                assert!(is_open || runs.iter().any(has_new), "a stream without an end");
            }
            if !is_over {
                for event in self.waiting(number, EventId::new(u64::MAX, 0)) {
                    assert!(event.0 <= reader.excused, "{event:?} is missing");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn instances_agree_with_the_naive_model(settings in settings(), ops in vec(op(), 1..120)) {
        let mut model = Model::new(settings);
        for op in &ops {
            model.run(op);
        }
        model.check();
    }
}
