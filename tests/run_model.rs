//! Random schedules of runs against a naive model.
//!
//! Producers start, publish, end, are stopped, taken over and dropped. Readers follow runs and a
//! topic, read, lose the connection within a frame, and come back. The model keeps the whole
//! history. Each received frame must be the next event for the reader, or the text of the next
//! adjacent events; an event may be missing only if the hub was free to drop it, and told a gap.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Event, EventId, Hub, LastEventId, ManualTimer, RefusedCause, Retain, Run, RunError, RunLimits,
    RunOptions, RunState, Subscriber, Subscription,
};
use support::SECOND;

const NAMES: usize = 3;
const READERS: usize = 3;
const KEEP: u64 = 20;
const RUN_END: &str = "hub:run-end";

#[derive(Debug, Clone)]
struct Settings {
    /// `None`: nothing is lost but old runs of a name, and forgotten runs.
    bytes: Option<usize>,
    /// How many events of the topic the hub keeps. `None`: more than there are.
    topic_events: Option<usize>,
    window: usize,
    batch: usize,
    appends: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Start {
        run: usize,
        takes_over: bool,
    },
    Token {
        run: usize,
        len: usize,
    },
    Note {
        run: usize,
        key: Option<u8>,
        len: usize,
    },
    /// By a producer that was taken over, or has ended the run.
    Outdated {
        which: usize,
    },
    End {
        run: usize,
        how: How,
        with_event: bool,
    },
    Stop {
        run: usize,
    },
    Topic {
        len: usize,
    },
    Connect {
        reader: usize,
        runs: BTreeSet<usize>,
        topic: bool,
        from: From,
    },
    Read {
        reader: usize,
    },
    Cut {
        reader: usize,
        keep: f64,
    },
    Drain {
        reader: usize,
    },
    Leave {
        reader: usize,
    },
    Advance {
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy)]
enum How {
    Finish,
    Fail,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Nothing,
    /// The id that the reader got last, with the runs and topics of the connection before.
    WhereItStopped,
    Garbage,
}

fn settings() -> impl Strategy<Value = Settings> {
    let bytes = prop::option::of(2_000..20_000usize);
    let topic_events = prop::option::of(1..3usize);
    (bytes, topic_events, 1..6usize, 1..2_000usize, any::<bool>()).prop_map(
        |(bytes, topic_events, window, batch, appends)| Settings {
            bytes,
            topic_events,
            window,
            batch,
            appends,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let run = || 0..NAMES;
    let reader = || 0..READERS;
    let how = prop_oneof![3 => Just(How::Finish), 1 => Just(How::Fail), 1 => Just(How::Drop)];
    let from = prop_oneof![
        3 => Just(From::Nothing),
        5 => Just(From::WhereItStopped),
        1 => Just(From::Garbage),
    ];
    let connect = (reader(), prop::collection::btree_set(run(), 0..3), any::<bool>(), from);
    prop_oneof![
        4 => (run(), prop::bool::weighted(0.4))
            .prop_map(|(run, takes_over)| Op::Start { run, takes_over }),
        16 => (run(), 0..40usize).prop_map(|(run, len)| Op::Token { run, len }),
        3 => (run(), prop::option::weighted(0.5, 0..2u8), 0..200usize)
            .prop_map(|(run, key, len)| Op::Note { run, key, len }),
        1 => (0..4usize).prop_map(|which| Op::Outdated { which }),
        3 => (run(), how, any::<bool>())
            .prop_map(|(run, how, with_event)| Op::End { run, how, with_event }),
        1 => run().prop_map(|run| Op::Stop { run }),
        8 => (0..40usize).prop_map(|len| Op::Topic { len }),
        6 => connect
            .prop_map(|(reader, runs, topic, from)| Op::Connect { reader, runs, topic, from }),
        5 => reader().prop_map(|reader| Op::Read { reader }),
        2 => (reader(), 0.0..1.0f64).prop_map(|(reader, keep)| Op::Cut { reader, keep }),
        4 => reader().prop_map(|reader| Op::Drain { reader }),
        1 => reader().prop_map(|reader| Op::Leave { reader }),
        1 => (1..15u64).prop_map(|seconds| Op::Advance { seconds }),
    ]
}

/// The source of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Topic,
    /// A run by its name, and the number of the run among all runs.
    Run(usize, usize),
}

#[derive(Debug, Clone)]
struct Published {
    id: EventId,
    source: Source,
    event_type: &'static str,
    data: String,
    key: Option<u8>,
    /// A later event has the same conflation key.
    replaced: bool,
    /// The hub has forgotten the run.
    forgotten: bool,
}

#[derive(Debug)]
struct KnownRun {
    number: usize,
    begin: EventId,
    state: RunState,
    last: EventId,
    ended: Option<u64>,
    is_stopped: bool,
}

#[derive(Default)]
struct Reader {
    runs: BTreeSet<usize>,
    topic: bool,
    stream: Option<Subscription>,
    /// The `Last-Event-ID` of the next connection.
    last: Option<EventId>,
    /// The reader has every event for it up to here.
    cursor: EventId,
    /// The events of the topic count from here.
    topic_since: EventId,
    /// The events of each run count from here.
    since: [EventId; NAMES],
    /// The cursor before the gap, if the reader got a gap and no event since.
    before_gap: Option<EventId>,
    /// Events up to here may be missing: a gap was told.
    excused: EventId,
    /// The stream must be complete, with the events up to here.
    complete: Option<EventId>,
    is_open: bool,
    told_end: Option<String>,
}

struct Model {
    settings: Settings,
    timer: ManualTimer,
    hub: Hub,
    now: u64,
    history: Vec<Published>,
    known: [Option<KnownRun>; NAMES],
    producers: [Option<Run>; NAMES],
    outdated: Vec<(Run, RunError)>,
    started: usize,
    readers: Vec<Reader>,
}

fn name(run: usize) -> &'static str {
    ["a", "b", "c"][run]
}

impl Model {
    fn new(settings: Settings) -> Self {
        let timer = ManualTimer::new();
        let mut limits = RunLimits::default().keep(KEEP as u32 * SECOND);
        if let Some(bytes) = settings.bytes {
            limits = limits.bytes(bytes).bytes_per_run(bytes / 2);
        }
        let mut retain = Retain::default().age(None);
        if let Some(events) = settings.topic_events {
            retain = retain.events(events);
        }
        let hub = Hub::builder(timer.clone())
            .heartbeat(None)
            .stalled_after(None)
            .runs(limits)
            .retain(retain)
            .window(settings.window)
            .max_batch_bytes(settings.batch)
            .build()
            .unwrap();
        let readers = (0..READERS).map(|_| Reader::default()).collect();
        Self {
            settings,
            timer,
            hub,
            now: 0,
            history: Vec::new(),
            known: [const { None }; NAMES],
            producers: [const { None }; NAMES],
            outdated: Vec::new(),
            started: 0,
            readers,
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Start { run, takes_over } => self.start(*run, *takes_over),
            Op::Token { run, len } => self.publish(*run, "token", &text(*len), None),
            Op::Note { run, key, len } => self.publish(*run, "note", &text(*len), *key),
            Op::Outdated { which } => {
                if let Some((run, error)) = self.outdated.get(*which) {
                    assert_eq!(run.publish(Event::new("x")).unwrap_err(), *error);
                    assert_eq!(run.finish(None), Err(*error));
                }
            }
            Op::End { run, how, with_event } => self.end(*run, *how, *with_event),
            Op::Stop { run } => self.stop(*run),
            Op::Topic { len } => {
                let data = text(*len);
                self.hub.send_to_topic("t", Event::new("topic").data(&data)).unwrap();
                self.note(self.hub.position(), Source::Topic, "topic", data, None);
            }
            Op::Connect { reader, runs, topic, from } => {
                self.connect(*reader, runs, *topic, *from);
            }
            Op::Read { reader } => drop(self.read(*reader, None)),
            Op::Cut { reader, keep } => {
                self.read(*reader, Some(*keep));
                self.readers[*reader].stream = None;
            }
            Op::Drain { reader } => self.drain(*reader),
            Op::Leave { reader } => self.readers[*reader].stream = None,
            Op::Advance { seconds } => {
                self.now += seconds;
                self.timer.advance(Duration::from_secs(*seconds));
                self.forget();
            }
        }
        self.check_bounds();
    }

    /// Makes the hub look at the clock, and forgets the runs whose time is over.
    fn forget(&mut self) {
        for run in 0..NAMES {
            let ended = self.known[run].as_ref().and_then(|known| known.ended);
            if ended.is_some_and(|ended| self.now - ended >= KEEP) {
                let number = self.known[run].take().unwrap().number;
                self.drop_events(run, number);
            }
            assert_eq!(self.hub.run(name(run)).is_some(), self.known[run].is_some());
        }
    }

    fn drop_events(&mut self, run: usize, number: usize) {
        for event in &mut self.history {
            event.forgotten |= event.source == Source::Run(run, number);
        }
    }

    fn note(
        &mut self,
        id: EventId,
        source: Source,
        event_type: &'static str,
        data: String,
        key: Option<u8>,
    ) {
        for older in &mut self.history {
            older.replaced |= key.is_some() && older.source == source && older.key == key;
        }
        let (replaced, forgotten) = (false, false);
        self.history.push(Published { id, source, event_type, data, key, replaced, forgotten });
    }

    fn start(&mut self, run: usize, takes_over: bool) {
        let begin = self.hub.position();
        let mut options = RunOptions::default().take_over(takes_over);
        if self.settings.appends {
            options = options.append("token");
        }
        let started = self.hub.start_run(name(run), options);
        match &mut self.known[run] {
            Some(known) if known.ended.is_none() => {
                if !takes_over {
                    assert_eq!(started.unwrap_err(), RunError::Open);
                    return;
                }
                let new = started.unwrap();
                assert_eq!(new.is_stopped(), known.is_stopped);
                let old = self.producers[run].replace(new).unwrap();
                assert!(old.is_stopped());
                self.outdated.push((old, RunError::Superseded));
            }
            known => {
                let old = known.as_ref().map(|known| known.number);
                self.started += 1;
                *known = Some(KnownRun {
                    number: self.started,
                    begin,
                    state: RunState::Open,
                    last: begin,
                    ended: None,
                    is_stopped: false,
                });
                self.producers[run] = Some(started.unwrap());
                old.into_iter().for_each(|old| self.drop_events(run, old));
            }
        }
    }

    fn publish(&mut self, run: usize, event_type: &'static str, data: &str, key: Option<u8>) {
        let Some(producer) = &self.producers[run] else { return };
        let mut event = Event::new(event_type).data(data);
        if let Some(key) = key {
            event = event.conflate(key.to_string());
        }
        let matched = match producer.publish(event) {
            Ok(receipt) => receipt.matched(),
            Err(RunError::TooLarge { .. }) if self.settings.bytes.is_some() => return,
            Err(error) => panic!("{error}"),
        };
        let takes = |reader: &&Reader| {
            reader.stream.is_some() && reader.complete.is_none() && reader.runs.contains(&run)
        };
        assert_eq!(matched, self.readers.iter().filter(takes).count());
        let number = self.known[run].as_ref().unwrap().number;
        let id = self.hub.position();
        self.note(id, Source::Run(run, number), event_type, data.to_owned(), key);
        self.known[run].as_mut().unwrap().last = id;
    }

    fn end(&mut self, run: usize, how: How, with_event: bool) {
        let Some(producer) = self.producers[run].take() else { return };
        let known = self.known[run].as_mut().unwrap();
        let last = with_event.then(|| Event::new("note").data("last"));
        let with_event = with_event && !matches!(how, How::Drop);
        let ended = match how {
            How::Finish => producer.finish(last),
            How::Fail => producer.fail(last),
            How::Drop => Ok(()),
        };
        let state = match how {
            How::Fail => RunState::Failed,
            _ if known.is_stopped => RunState::Stopped,
            How::Finish => RunState::Finished,
            How::Drop => RunState::Abandoned,
        };
        match how {
            How::Drop => drop(producer),
            _ => self.outdated.push((producer, RunError::Ended)),
        }
        ended.unwrap();
        let id = self.hub.position();
        let source = Source::Run(run, known.number);
        (known.state, known.ended, known.last) = (state, Some(self.now), id);
        if with_event {
            self.note(id.predecessor(), source, "note", "last".to_owned(), None);
        }
        let data = format!("{{\"run\":\"{}\",\"reason\":\"{}\"}}", name(run), state.as_str());
        self.note(id, source, "hub:run-end", data, None);
        for reader in 0..READERS {
            let is_over =
                |run: &usize| self.known[*run].as_ref().is_none_or(|it| it.ended.is_some());
            let reader = &mut self.readers[reader];
            let is_of_runs = reader.runs.contains(&run) && !reader.topic;
            if reader.stream.is_some() && is_of_runs && reader.runs.iter().all(is_over) {
                reader.complete.get_or_insert(id);
                reader.told_end.get_or_insert_with(|| state.as_str().to_owned());
            }
        }
    }

    fn stop(&mut self, run: usize) {
        let asked = self.hub.stop_run(name(run), "user");
        match &mut self.known[run] {
            None => assert_eq!(asked, Err(RunError::Unknown)),
            Some(known) if known.ended.is_some() => assert_eq!(asked, Err(RunError::Ended)),
            Some(known) => {
                assert_eq!(asked, Ok(()));
                known.is_stopped = true;
                let producer = self.producers[run].as_ref().unwrap();
                assert!(producer.is_stopped());
                assert_eq!(producer.stopped().now_or_never().as_deref(), Some("user"));
            }
        }
    }

    fn connect(&mut self, number: usize, runs: &BTreeSet<usize>, topic: bool, from: From) {
        let head = self.hub.position();
        let reader = &mut self.readers[number];
        reader.stream = None;
        let returns = from == From::WhereItStopped && reader.last.is_some();
        if !returns {
            (reader.runs, reader.topic) = (runs.clone(), topic);
            reader.before_gap = None;
        }
        // A stream that begins with a gap for an unknown id opens with an id that is unknown, too.
        let resumes = returns && reader.last != Some(EventId::new(0, 0));
        let mut client = Subscriber::new().runs(reader.runs.iter().map(|&run| name(run)));
        if reader.topic {
            client = client.topic("t");
        }
        client = match from {
            From::WhereItStopped if returns => client.resume(reader.last.unwrap()),
            From::Garbage => client.resume(LastEventId::from("garbage")),
            _ => client,
        };
        let known: Vec<&KnownRun> =
            reader.runs.iter().filter_map(|&run| self.known[run].as_ref()).collect();
        let is_of_runs = !reader.topic && !reader.runs.is_empty();
        let all_ended = !known.is_empty() && known.iter().all(|run| run.ended.is_some());
        let last = known.iter().max_by_key(|run| run.last);
        let stream = match self.hub.subscribe(client) {
            Ok(stream) => stream,
            Err(refused) => {
                assert!(is_of_runs);
                if known.len() < reader.runs.len() {
                    assert_eq!(refused.cause(), RefusedCause::UnknownRun);
                } else {
                    assert_eq!(refused.cause(), RefusedCause::Complete);
                    assert!(all_ended && resumes && reader.last.unwrap() >= last.unwrap().last);
                }
                return;
            }
        };
        if is_of_runs {
            assert_eq!(known.len(), reader.runs.len());
            assert!(!all_ended || !resumes || reader.last.unwrap() < last.unwrap().last);
        }
        reader.complete = (is_of_runs && all_ended).then_some(head);
        reader.told_end =
            last.filter(|_| reader.complete.is_some()).map(|run| run.state.as_str().to_owned());
        reader.excused = EventId::new(0, 0);
        reader.is_open = false;
        if resumes {
            let last = reader.last.unwrap();
            match reader.before_gap {
                // The hub has told the loss, and must send the rest before the gap.
                Some(before) => {
                    (reader.cursor, reader.excused) = (before, last);
                    reader.topic_since = reader.topic_since.min(last);
                    reader.since = reader.since.map(|since| since.min(last));
                }
                None => {
                    reader.cursor = last;
                    (reader.topic_since, reader.since) = (last, [last; NAMES]);
                }
            }
        } else {
            reader.cursor = known.iter().map(|run| run.begin).min().unwrap_or(head);
            reader.topic_since = head;
            for run in 0..NAMES {
                reader.since[run] = self.known[run].as_ref().map_or(head, |known| known.begin);
            }
            assert_eq!(stream.position(), reader.cursor);
        }
        reader.stream = Some(stream);
    }

    /// The events for a reader after its cursor, and up to `upto`.
    fn waiting(&self, number: usize, upto: EventId) -> Vec<&Published> {
        let reader = &self.readers[number];
        let is_for = |event: &&Published| match event.source {
            Source::Topic => reader.topic && event.id > reader.topic_since,
            Source::Run(run, _) => reader.runs.contains(&run) && event.id > reader.since[run],
        };
        let after =
            self.history.iter().filter(|event| event.id > reader.cursor && event.id <= upto);
        after.filter(is_for).collect()
    }

    /// Reads an item, or its first part. Returns whether there was an item.
    fn read(&mut self, number: usize, keep: Option<f64>) -> bool {
        let reader = &mut self.readers[number];
        let Some(stream) = &mut reader.stream else { return false };
        let Some(Some(item)) = stream.next().now_or_never() else { return false };
        let kept = keep.map_or(item.len(), |keep| (item.len() as f64 * keep) as usize);
        let text = String::from_utf8_lossy(&item[..kept]).into_owned();
        let (mut events, mut bytes) = (0, 0);
        for frame in text.split_inclusive("\n\n").filter(|frame| frame.ends_with("\n\n")) {
            let parsed = Frame::parse(frame);
            let is_of_hub = parsed.event_type.starts_with("hub:") && parsed.event_type != RUN_END;
            events += usize::from(!is_of_hub);
            bytes += if is_of_hub { 0 } else { frame.len() };
            self.frame(number, &parsed);
        }
        assert!(events <= 1 || bytes <= self.settings.batch, "batches must be bounded");
        true
    }

    fn frame(&mut self, number: usize, frame: &Frame) {
        let head = self.hub.position();
        let is_bounded = self.settings.bytes.is_some();
        match &*frame.event_type {
            "hub:open" => {
                let reader = &mut self.readers[number];
                assert!(!reader.is_open);
                reader.is_open = true;
                if reader.last != frame.id {
                    reader.before_gap = None;
                }
                // An id of nowhere is unknown again.
                reader.last = frame.id;
                return;
            }
            "hub:gap" => {
                let is_unknown = frame.data.contains("unknown");
                let upto = self.readers[number].complete.unwrap_or(head);
                let lost = self.waiting(number, upto).iter().any(|event| event.forgotten);
                let is_short = self.readers[number].topic && self.settings.topic_events.is_some();
                // Of each name, the hub knows the newest loss only. A loss after the end of the
                // stream can hide an earlier loss, and is reported to be safe.
                let later = self.waiting(number, head);
                let may_hide = later.iter().any(|event| event.forgotten && event.id > upto);
                assert!(
                    is_bounded || is_short || is_unknown || lost || may_hide,
                    "a gap without a loss"
                );
                let reader = &mut self.readers[number];
                reader.last = frame.id;
                reader.before_gap = None;
                if !is_unknown {
                    reader.excused = head;
                    reader.before_gap = Some(reader.cursor);
                }
                return;
            }
            "hub:end" => {
                let reader = &self.readers[number];
                let upto = reader.complete.expect("only a complete stream ends");
                self.check_missing(number, upto);
                let told = self.readers[number].told_end.as_deref().unwrap();
                assert_eq!(frame.data, format!("{{\"reason\":\"{told}\",\"final\":true}}"));
                return;
            }
            _ => {}
        }
        let id = frame.id.expect("an id");
        let reader = &self.readers[number];
        assert!(reader.is_open && id > reader.cursor, "{id} after {}", reader.cursor);
        assert!(reader.complete.is_none_or(|upto| id <= upto), "an event after the end");
        let waiting = self.waiting(number, id);
        assert_eq!(waiting.last().map(|event| event.id), Some(id), "an event for another client");
        let may_miss = |event: &&Published| self.may_miss(reader, event);
        let last = waiting[waiting.len() - 1];
        let is_one =
            |event: &Published| event.source == last.source && event.event_type == frame.event_type;
        let is_part = |from: usize| {
            // A text may be joined across an event that is gone.
            let part = waiting[from..].iter().filter(|event| is_one(event) || !may_miss(event));
            let part: Vec<&Published> = part.copied().collect();
            let may_join = frame.event_type == "token" && self.settings.appends;
            (part.len() == 1 || may_join)
                && part.iter().all(|event| is_one(event))
                && part.iter().map(|event| &*event.data).collect::<String>() == frame.data
        };
        let found =
            (0..waiting.len()).any(|from| is_part(from) && waiting[..from].iter().all(may_miss));
        assert!(found, "{frame:?} is not the next of {waiting:?}, excused {}", reader.excused);
        let reader = &mut self.readers[number];
        (reader.cursor, reader.last, reader.before_gap) = (id, Some(id), None);
    }

    /// Every event for a reader must have been received, or may be missing.
    fn check_missing(&self, number: usize, upto: EventId) {
        let reader = &self.readers[number];
        for event in self.waiting(number, upto) {
            assert!(self.may_miss(reader, event), "{event:?} is missing");
        }
    }

    /// Whether a reader may lack an event that was for it.
    fn may_miss(&self, reader: &Reader, event: &Published) -> bool {
        let is_bounded = match event.source {
            Source::Topic => self.settings.topic_events.is_some(),
            Source::Run(..) => self.settings.bytes.is_some(),
        };
        event.replaced || event.id <= reader.excused && (is_bounded || event.forgotten)
    }

    fn drain(&mut self, number: usize) {
        while self.read(number, None) {}
        let head = self.hub.position();
        let reader = &mut self.readers[number];
        let Some(stream) = &mut reader.stream else { return };
        let has_ended = matches!(stream.next().now_or_never(), Some(None));
        assert_eq!(has_ended, reader.complete.is_some(), "{:?}", reader.complete);
        let upto = reader.complete.unwrap_or(head);
        self.check_missing(number, upto);
        if has_ended {
            self.readers[number].stream = None;
        }
    }

    fn check_bounds(&self) {
        let stats = self.hub.stats();
        let infos = self.hub.runs();
        assert_eq!(stats.run_bytes, infos.iter().map(|run| run.bytes).sum::<usize>());
        assert_eq!(stats.retained_runs, self.known.iter().flatten().count());
        let is_open = |run: &&KnownRun| run.ended.is_none();
        assert_eq!(stats.runs, self.known.iter().flatten().filter(is_open).count());
        if let Some(bytes) = self.settings.bytes {
            assert!(stats.run_bytes <= bytes);
            assert!(infos.iter().all(|run| run.bytes <= bytes / 2));
        }
    }
}

/// Text that contains lines.
fn text(len: usize) -> String {
    "ab\ncd ".chars().cycle().take(len).collect()
}

#[derive(Debug)]
struct Frame {
    event_type: String,
    data: String,
    id: Option<EventId>,
}

impl Frame {
    fn parse(text: &str) -> Self {
        let (mut event_type, mut data, mut id) = (String::new(), Vec::new(), None);
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut event_type),
                Some(("data", value)) => data.push(value),
                Some(("id", value)) => id = Some(value.parse().unwrap()),
                Some(("retry", _)) => {}
                _ => assert!(line.is_empty(), "a stray line: {line:?}"),
            }
        }
        Self { event_type, data: data.join("\n"), id }
    }
}

/// A reader of two ended runs has not read the second run when two more runs use the name of the
/// first run. The reader gets the rest, and may be told a gap.
#[test]
fn loss_after_the_end_of_a_stream_hides_no_event() {
    let settings =
        Settings { bytes: None, topic_events: None, window: 1, batch: 1, appends: false };
    let mut model = Model::new(settings);
    let start = |run| Op::Start { run, takes_over: false };
    let finish = |run| Op::End { run, how: How::Finish, with_event: false };
    let connect = Op::Connect { reader: 0, runs: [0, 1].into(), topic: false, from: From::Nothing };
    let token = Op::Token { run: 1, len: 1 };
    let ops = [start(1), start(0), finish(0), token, finish(1), connect];
    ops.iter().for_each(|op| model.run(op));
    let (read, again) = (Op::Read { reader: 0 }, [start(0), finish(0)]);
    [&read, &again[0], &again[1], &read, &again[0]].into_iter().for_each(|op| model.run(op));
    model.drain(0);
    assert_eq!(model.readers[0].cursor, model.known[1].as_ref().unwrap().last);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_match_the_naive_model(settings in settings(), ops in vec(op(), 1..100)) {
        let mut model = Model::new(settings);
        for op in &ops {
            model.run(op);
        }
        for reader in 0..READERS {
            model.drain(reader);
        }
        // The rest goes with the producers and the time.
        model.producers = [const { None }; NAMES];
        model.outdated.clear();
        model.readers.clear();
        model.timer.advance(KEEP as u32 * SECOND);
        prop_assert!(model.hub.runs().is_empty());
        let stats = model.hub.stats();
        prop_assert_eq!((stats.run_bytes, stats.clients, stats.client_names), (0, 0, 0));
    }
}
