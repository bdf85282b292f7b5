//! The delays that clients and publishers cause each other.
//!
//! - Connecting, while another thread broadcasts without a pause, with 0 and with 100,000 other
//!   clients.
//! - A broadcast to 900 clients, if another 100 clients read and if those do not. The time runs
//!   from publishing to the client's own read, and clients read in turn. Both cases alternate, so
//!   that a change in the machine's speed affects both.
//! - Publishes, while 10,000 clients join a room of 10,000 others with the last 20 events, and
//!   while these leave the room.
//! - A broadcast to 1,000 clients beside a hostile client, for each kind of [`HOSTILE`].
//!
//! Prints medians and 99th percentiles. Run with `-- --test` for a short run with fewer clients,
//! and with names of parts (`connect`, `stalled`, `room`, `hostile`) for these parts only.
//!
//! The times of the parts `room` and `hostile` do not include the time that the measured thread
//! waited for a processor, although the thread was ready: see [`Clock`]. So other programs disturb
//! these parts little. The time in which a thread is parked counts, and so does the time in which
//! another thread of this program is suspended while the thread holds a lock.
//!
//! # The hostile client
//!
//! A thread sends the requests of the hostile client, at most 1,000 a second. The time of a
//! broadcast runs from publishing until the last of the 1,000 clients has read the event. Three
//! cases alternate:
//!
//! | case | the hostile thread |
//! |---|---|
//! | alone | sleeps |
//! | control | sends the same requests to another hub with the same clients and events |
//! | hostile | sends the requests to the hub of the 1,000 clients |
//!
//! The hostile thread uses the processor, the caches and the allocator as much in the control as in
//! the hostile case. So the ratio of these two cases shows only the costs inside the hub: the wait
//! for its locks, and slower work. The rate must be bounded: without a bound, a request that holds
//! a lock for a few microseconds keeps that lock busy for most of the time, which is the load of
//! thousands of clients. If a request takes more than a millisecond, the rate is lower. The table
//! shows the rate.
//!
//! The row `except` is a publisher. Each publish to 1,000 clients takes time in the hub, whatever
//! the audience. So the control of this row publishes to the same hub, and the audience excludes a
//! single name in place of 9,999.
//!
//! Each number is the median over several repetitions. The p99 ratio must be at most 1.1 on a
//! machine that does nothing else. The program prints the ratio and asserts nothing about time.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{
    Audience, Event, EventId, Hub, LastEventId, ManualTimer, RefusedCause, Retain, Subscriber,
    Subscription,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let smoke = arguments.iter().any(|argument| argument == "--test");
    let parts: Vec<&str> = arguments.iter().map(|it| &**it).filter(|&it| it != "--test").collect();
    let wants = |part: &str| parts.is_empty() || parts.contains(&part);
    if wants("connect") {
        connects(smoke);
    }
    if wants("stalled") {
        stalled_clients(smoke);
    }
    if wants("room") {
        room(if smoke { 500 } else { 10_000 });
    }
    if wants("hostile") {
        hostile(if smoke { Size::SMOKE } else { Size::FULL });
    }
}

fn connects(smoke: bool) {
    let (crowd, connects) = if smoke { (1_000, 200) } else { (100_000, 5_000) };
    for clients in [0, crowd] {
        let (broadcasts, mut times) = measure(clients, connects);
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "connect beside {clients} clients: median {:?}, p99 {:?}, max {:?} over {connects} connects, \
             {broadcasts} broadcasts meanwhile",
            at(0.5),
            at(0.99),
            at(1.0),
        );
    }
}

fn stalled_clients(smoke: bool) {
    let rounds = if smoke { 20 } else { 2_000 };
    let [all_read, some_stall] = stalled(rounds).map(|mut times| {
        times.sort_unstable();
        [0.5, 0.99].map(|share| times[((times.len() - 1) as f64 * share) as usize])
    });
    println!(
        "900 clients wait for a broadcast: median {:?}, p99 {:?} if 100 more read too; median {:?}, p99 {:?} if those \
         stall (p99 x {:.3})",
        all_read[0],
        all_read[1],
        some_stall[0],
        some_stall[1],
        some_stall[1].as_secs_f64() / all_read[1].as_secs_f64(),
    );
}

fn hostile(size: Size) {
    println!("\na broadcast to {} clients, beside a hostile client", size.clients);
    println!(
        "{:<32} {:>6}  {:>17}  {:>17}  {:>17}  {:>9}  {:>9}",
        "",
        "rate",
        "alone p50, p99",
        "control p50, p99",
        "hostile p50, p99",
        "p50 ratio",
        "p99 ratio",
    );
    for kind in HOSTILE {
        println!("{}", beside(kind, size));
    }
}

/// Returns the times from publishing to reading of 900 clients: if another 100 clients read, and if
/// those do not.
fn stalled(rounds: usize) -> [Vec<Duration>; 2] {
    let group = || {
        let hub = Hub::builder(ManualTimer::new()).build().expect("the settings are valid");
        let connect = |_| hub.subscribe(Subscriber::new()).expect("the hub is open");
        let mut streams: Vec<Subscription> = (0..1_000).map(connect).collect();
        for stream in &mut streams {
            stream.next().now_or_never().expect("the opening is there at once");
        }
        (hub, streams)
    };
    let mut groups = [group(), group()];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..2 * rounds {
        let which = round % 2;
        let (hub, streams) = &mut groups[which];
        let start = Instant::now();
        hub.broadcast(Event::new("notification").data("x")).expect("valid");
        for stream in &mut streams[..900] {
            stream.next().now_or_never().expect("it was published");
            times[which].push(start.elapsed());
        }
        if which == 0 {
            for stream in &mut streams[900..] {
                stream.next().now_or_never().expect("it was published");
            }
        }
    }
    times
}

fn measure(clients: usize, connects: usize) -> (u64, Vec<Duration>) {
    let hub = Hub::builder(ManualTimer::new())
        .retain(Retain::default().events(1024))
        .build()
        .expect("the settings are valid");
    let connect = || hub.subscribe(Subscriber::new().user("42")).expect("the hub is open");
    let mut crowd: Vec<Subscription> = (0..clients).map(|_| connect()).collect();
    for stream in &mut crowd {
        stream.next().now_or_never().expect("the opening is there at once");
    }
    let done = AtomicBool::new(false);
    let before = hub.stats().published;
    let times = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hub.broadcast(Event::new("notification").data("x")).expect("valid");
            }
        });
        while hub.stats().published == before {
            thread::yield_now();
        }
        let times = (0..connects).map(|_| {
            let start = Instant::now();
            let stream = connect();
            let took = start.elapsed();
            drop(stream);
            // Connect at intervals, not as fast as possible.
            thread::sleep(Duration::from_micros(100));
            took
        });
        let times = times.collect();
        done.store(true, Ordering::Relaxed);
        times
    });
    (hub.stats().published - before, times)
}

/// Prints the times of publishes while clients join a room with its last events, and leave the
/// room.
///
/// A publish to a user waits for the locks, and does little else. A publish to the room waits for
/// the locks with each piece of the hand-out.
fn room(clients: usize) {
    const ROUNDS: usize = 6;
    const LAST: usize = 20;
    // The publishes must not evict the history.
    let retain = Retain::default().events(1 << 20).bytes(usize::MAX);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().expect("valid");
    let rooms: Vec<String> = (0..ROUNDS).map(|round| format!("room-{round}")).collect();
    let connect = |subscriber| {
        let mut stream = hub.subscribe(subscriber).expect("the request is within the limits");
        stream.next().now_or_never().expect("the opening is there at once");
        stream
    };
    for room in &rooms {
        for _ in 0..LAST {
            hub.send_to_topic(&**room, Event::new("line").data("x")).expect("valid");
        }
    }
    let others = (0..clients).map(|_| connect(Subscriber::new().topics(rooms.iter().cloned())));
    let others: Vec<Subscription> = others.collect();
    let joiners = (0..clients).map(|_| connect(Subscriber::new().topic("lobby")));
    let mut joiners: Vec<Subscription> = joiners.collect();
    let user = connect(Subscriber::new().user("u"));

    // What the other thread does: an index of `times`, or `UNTIMED`, or `OVER`.
    const UNTIMED: usize = 3;
    const OVER: usize = 4;
    let step = AtomicUsize::new(UNTIMED);
    let mut times: [[Vec<Duration>; 2]; UNTIMED] = Default::default();
    thread::scope(|scope| {
        let (hub, rooms, step, joiners) = (&hub, &rooms, &step, &mut joiners);
        scope.spawn(move || {
            let set = |next| step.store(next, Ordering::SeqCst);
            for room in rooms {
                set(0);
                thread::sleep(Duration::from_millis(20));
                set(1);
                let joined = hub.join_with_last(Audience::topic("lobby"), &**room, LAST);
                set(UNTIMED);
                assert_eq!(joined.expect("valid").changed, clients);
                for joiner in &mut *joiners {
                    let history = joiner.next().now_or_never().flatten().expect("the history");
                    assert!(history.iter().filter(|&&byte| byte == b'x').count() >= LAST);
                    while joiner.next().now_or_never().is_some() {}
                }
                set(2);
                let left = hub.leave(Audience::topic("lobby"), &**room);
                set(UNTIMED);
                assert_eq!(left.expect("valid").changed, clients);
            }
            set(OVER);
        });
        let mut clock = Clock::start();
        let last = &rooms[ROUNDS - 1];
        loop {
            let step = step.load(Ordering::SeqCst);
            match times.get_mut(step) {
                Some(times) => {
                    let audiences = [Audience::user("u"), Audience::topic(&**last)];
                    for (audience, times) in audiences.into_iter().zip(times) {
                        let event = Event::new("line").data("x");
                        times.push(clock.time(|| hub.publish(audience, event).expect("valid")).1);
                    }
                }
                None if step == OVER => break,
                None => thread::yield_now(),
            }
        }
    });
    drop((others, user));

    println!(
        "\na publish while {clients} clients join a room of {clients} with {LAST} events, and leave"
    );
    println!(
        "{:<8} {:<10} {:>9}  {:>9}  {:>9}  {:>9}",
        "to", "meanwhile", "publishes", "p50", "p99", "max"
    );
    for (to, name) in ["a user", "the room"].into_iter().enumerate() {
        for (step, meanwhile) in ["nothing", "join", "leave"].into_iter().enumerate() {
            let times = &mut times[step][to];
            times.sort_unstable();
            let at = |share: f64| match times.len() {
                0 => f64::NAN,
                len => times[((len - 1) as f64 * share) as usize].as_secs_f64() * 1e6,
            };
            let count = times.len();
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(at);
            println!(
                "{name:<8} {meanwhile:<10} {count:>9}  {p50:>6.1} us  {p99:>6.1} us  {max:>6.1} us"
            );
        }
    }
}

/// Measures the time of this thread without the time in which the thread was ready and had no
/// processor, as the scheduler of Linux counts it. Elsewhere, measures the time.
struct Clock {
    schedstat: Option<File>,
}

impl Clock {
    /// Must be called on the thread that is measured.
    fn start() -> Self {
        Self { schedstat: File::open("/proc/thread-self/schedstat").ok() }
    }

    fn time<T>(&mut self, measured: impl FnOnce() -> T) -> (T, Duration) {
        let waited = self.waited();
        let start = Instant::now();
        let result = measured();
        let took = start.elapsed();
        (result, took.saturating_sub(self.waited() - waited))
    }

    /// Returns how long this thread has waited for a processor: the second number.
    fn waited(&mut self) -> Duration {
        let Some(file) = &mut self.schedstat else { return Duration::ZERO };
        let mut text = [0; 128];
        file.rewind().expect("the file can be read again");
        let len = file.read(&mut text).expect("the file can be read");
        let text = std::str::from_utf8(&text[..len]).expect("numbers");
        let waited = text.split_ascii_whitespace().nth(1).expect("three numbers");
        Duration::from_nanos(waited.parse().expect("a number"))
    }
}

/// The hostile clients.
const HOSTILE: &[Hostile] = &[
    Hostile { name: "64 types, 64 topics, old id", control: Control::Twin, request: many_types },
    Hostile { name: "10,000 types, refused", control: Control::Twin, request: refused_types },
    Hostile {
        name: "64 topics that all others follow",
        control: Control::Twin,
        request: many_topics,
    },
    Hostile { name: "30,000 topics, refused", control: Control::Twin, request: refused_topics },
    Hostile { name: "except 9,999 names", control: Control::OneName, request: except_many },
    Hostile { name: "does not read", control: Control::Twin, request: stall },
    Hostile { name: "resumes in a loop", control: Control::Twin, request: resume },
    Hostile { name: "subscribes and drops", control: Control::Twin, request: connect_and_drop },
];

#[derive(Clone, Copy)]
struct Hostile {
    name: &'static str,
    control: Control,
    /// Sends one request. If the function returns a stream, the stream stays open until the case
    /// changes, and no request follows.
    request: fn(&Target, &Names, u64) -> Option<Subscription>,
}

/// The work of the hostile thread in the control.
#[derive(Clone, Copy)]
enum Control {
    /// The same requests, to another hub.
    Twin,
    /// A publish with an audience that excludes one name, to the same hub.
    OneName,
}

/// The extent of a run. A repetition has `blocks` blocks of each case, and a block has `rounds`
/// broadcasts.
#[derive(Clone, Copy)]
struct Size {
    clients: usize,
    repetitions: usize,
    blocks: usize,
    rounds: usize,
}

impl Size {
    const FULL: Self = Self { clients: 1_000, repetitions: 7, blocks: 10, rounds: 200 };
    const SMOKE: Self = Self { clients: 100, repetitions: 1, blocks: 1, rounds: 5 };
}

/// The number of topics of each client: the default limit of a hub.
const TOPICS: usize = 64;

/// The number of events that each hub retains.
const RETAINED: usize = 1_024;

/// The time between two requests of a hostile client.
const PERIOD: Duration = Duration::from_millis(1);

const ALONE: u8 = 0;
const CONTROL: u8 = 1;
const BESIDE: u8 = 2;
const DONE: u8 = 3;

/// A hub, as the hostile thread sees it.
struct Target {
    hub: Hub,
    /// A position before every retained event.
    evicted: EventId,
    /// The number of the newest event that was published before a block.
    newest: AtomicU64,
}

/// Names that the hostile requests share, so that making them takes no time.
struct Names {
    /// Topics that every client follows.
    followed: Vec<Arc<str>>,
    /// Topics of half of the retained events. Only hostile clients follow them.
    quiet: Vec<Arc<str>>,
    /// More names than any limit admits. No event has them.
    unused: Vec<Arc<str>>,
    except_many: Audience,
    except_one: Audience,
}

impl Names {
    fn new() -> Self {
        let names = |kind: &str, count: usize| -> Vec<Arc<str>> {
            (0..count).map(|number| format!("{kind}-{number:05}").into()).collect()
        };
        let followed = names("followed", TOPICS);
        let unused = names("unused", 30_000);
        // The last topic of every client is excluded: the hub compares each topic of each client,
        // and the event reaches no client.
        let excluded = Audience::topic(Arc::clone(&followed[TOPICS - 1]));
        let included = Audience::topic(Arc::clone(&followed[0]));
        let many = unused.iter().take(Audience::MAX_NAMES - 2).cloned();
        let many = Audience::topics(many).or(excluded.clone());
        Self {
            followed,
            quiet: names("quiet", TOPICS),
            unused,
            except_many: included.clone().except(many),
            except_one: included.except(excluded),
        }
    }
}

/// Selects types that no event has, so that the hub must look through all retained events.
fn many_types(target: &Target, names: &Names, _: u64) -> Option<Subscription> {
    let types = names.unused.iter().take(64).map(|name| &**name);
    let subscriber = Subscriber::new().topics(names.quiet.iter().cloned()).event_types(types);
    drop(open(target, subscriber.resume(target.evicted)));
    None
}

fn refused_types(target: &Target, names: &Names, _: u64) -> Option<Subscription> {
    let types = names.unused.iter().take(10_000).map(|name| &**name);
    let subscriber = Subscriber::new().topics(names.quiet.iter().cloned()).event_types(types);
    let refused = target.hub.subscribe(subscriber.resume(target.evicted));
    let cause = refused.expect_err("the types exceed the limit").cause();
    assert!(matches!(cause, RefusedCause::TooManyEventTypes { .. }), "{cause}");
    None
}

fn many_topics(target: &Target, names: &Names, _: u64) -> Option<Subscription> {
    drop(open(target, Subscriber::new().topics(names.followed.iter().cloned())));
    None
}

fn refused_topics(target: &Target, names: &Names, _: u64) -> Option<Subscription> {
    let refused = target.hub.subscribe(Subscriber::new().topics(names.unused.iter().cloned()));
    let cause = refused.expect_err("the topics exceed the limit").cause();
    assert!(matches!(cause, RefusedCause::TooManyTopics { .. }), "{cause}");
    None
}

fn except_many(target: &Target, names: &Names, _: u64) -> Option<Subscription> {
    exclude(target, &names.except_many);
    None
}

fn exclude(target: &Target, audience: &Audience) {
    let receipt = target.hub.publish(audience, Event::new("excluded").data("x")).expect("valid");
    assert_eq!(receipt.matched(), 0, "every client is excluded");
}

fn stall(target: &Target, names: &Names, _: u64) -> Option<Subscription> {
    Some(open(target, Subscriber::new().topics(names.quiet.iter().cloned())))
}

/// Resumes in turn before the retained events, at their beginning, and from an unknown position,
/// and reads everything.
fn resume(target: &Target, names: &Names, count: u64) -> Option<Subscription> {
    let oldest = target.newest.load(Ordering::Relaxed) - RETAINED as u64 + 100;
    let last = match count % 3 {
        0 => target.evicted.into(),
        1 => EventId::new(target.evicted.epoch(), oldest).into(),
        _ => LastEventId::from_bytes(b"unknown"),
    };
    let subscriber = Subscriber::new().topics(names.quiet.iter().cloned()).resume(last);
    let mut stream = open(target, subscriber);
    read(&mut stream);
    None
}

fn connect_and_drop(target: &Target, _: &Names, _: u64) -> Option<Subscription> {
    drop(open(target, Subscriber::new()));
    None
}

/// Subscribes, and reads the first item.
fn open(target: &Target, subscriber: Subscriber) -> Subscription {
    let mut stream = target.hub.subscribe(subscriber).expect("the request is within the limits");
    stream.next().now_or_never().expect("the opening is there at once");
    stream
}

/// Reads every available item, with a bound on their number.
fn read(stream: &mut Subscription) {
    for _ in 0..2 * RETAINED {
        if stream.next().now_or_never().is_none() {
            return;
        }
    }
}

/// Returns a hub with a full log, and its clients.
fn crowd(clients: usize, names: &Names) -> (Target, Vec<Subscription>) {
    let hub = Hub::builder(ManualTimer::new())
        .retain(Retain::default().events(RETAINED))
        .stalled_after(None)
        .build()
        .expect("the settings are valid");
    let first = publish_quiet(&hub, names, 0);
    let target = Target { hub, evicted: first, newest: AtomicU64::new(first.seq()) };
    for round in 0..RETAINED {
        target.hub.broadcast(Event::new("notification").data("x")).expect("valid");
        let id = publish_quiet(&target.hub, names, round);
        target.newest.store(id.seq(), Ordering::Relaxed);
    }
    let connect = |number: usize| {
        let client = Subscriber::new().user(number.to_string());
        open(&target, client.topics(names.followed.iter().cloned()))
    };
    let streams = (0..clients).map(connect).collect();
    (target, streams)
}

/// Publishes to a topic that only hostile clients follow.
fn publish_quiet(hub: &Hub, names: &Names, round: usize) -> EventId {
    let topic = Audience::topic(Arc::clone(&names.quiet[round % TOPICS]));
    let event = Event::new("quiet").data("x");
    let confirmation = hub.publish_confirmed(topic, event).expect("valid");
    confirmation.id().expect("a hub without a backplane places events at once")
}

/// Returns a row of the table.
fn beside(kind: &Hostile, size: Size) -> String {
    let names = Names::new();
    let (target, mut streams) = crowd(size.clients, &names);
    let (twin, _others) = crowd(size.clients, &names);
    // The case that the main thread wants, and the case that the hostile thread is in.
    let (wanted, current) = (AtomicU8::new(ALONE), AtomicU8::new(ALONE));
    let requests = AtomicU64::new(0);
    let mut hostile_time = Duration::ZERO;
    // For each repetition, the median and the 99th percentile of each case.
    let mut results: Vec<[[f64; 2]; 3]> = Vec::new();
    let mut clock = Clock::start();
    thread::scope(|scope| {
        let attacker =
            scope.spawn(|| attack(kind, [&twin, &target], &names, &wanted, &current, &requests));
        let _done = Finish(&wanted);
        for _ in 0..size.repetitions {
            let mut times = [const { Vec::new() }; 3];
            for block in 0..3 * size.blocks {
                let case = block % 3;
                wanted.store(case as u8, Ordering::SeqCst);
                while current.load(Ordering::SeqCst) != case as u8 {
                    assert!(!attacker.is_finished(), "{} failed", kind.name);
                    thread::yield_now();
                }
                let begun = Instant::now();
                for round in 0..size.rounds {
                    times[case].push(broadcast(&target.hub, &mut streams, &mut clock));
                    let id = publish_quiet(&target.hub, &names, round);
                    target.newest.store(id.seq(), Ordering::Relaxed);
                }
                if case as u8 == BESIDE {
                    hostile_time += begun.elapsed();
                }
            }
            results.push(times.map(|mut times| {
                times.sort_unstable();
                [0.5, 0.99].map(|share| {
                    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
                })
            }));
        }
    });

    let median = |value: &dyn Fn(&[[f64; 2]; 3]) -> f64| {
        let mut values: Vec<f64> = results.iter().map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    // A client that sends a single request, before the measurement, has no rate. Nor has a run that
    // is too short for many requests.
    let rate = match requests.load(Ordering::Relaxed) {
        requests if requests > 0 && hostile_time > 100 * PERIOD => {
            format!("{:.0}/s", requests as f64 / hostile_time.as_secs_f64())
        }
        _ => String::from("-"),
    };
    let mut row = format!("{:<32} {rate:>6}", kind.name);
    for case in 0..3 {
        let [p50, p99] = [0, 1].map(|share| median(&|result| result[case][share]));
        let _ = write!(row, "  {p50:>5.0} us, {p99:>5.0} us");
    }
    for share in 0..2 {
        let ratio = |result: &[[f64; 2]; 3]| {
            result[usize::from(BESIDE)][share] / result[usize::from(CONTROL)][share]
        };
        let _ = write!(row, "  {:>9.3}", median(&ratio));
    }
    row
}

/// Ends the hostile thread, also if the main thread panics: the scope waits for the hostile thread.
struct Finish<'a>(&'a AtomicU8);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(DONE, Ordering::SeqCst);
    }
}

/// Publishes an event to all clients. Returns the time until the last client has read the event.
fn broadcast(hub: &Hub, streams: &mut [Subscription], clock: &mut Clock) -> Duration {
    let publish_and_read = || {
        hub.broadcast(Event::new("notification").data("x")).expect("valid");
        for stream in streams {
            stream.next().now_or_never().expect("it was published");
        }
    };
    clock.time(publish_and_read).1
}

/// Runs the hostile client until the wanted case is [`DONE`]. Counts the requests of the hostile
/// case.
fn attack(
    kind: &Hostile,
    [twin, target]: [&Target; 2],
    names: &Names,
    wanted: &AtomicU8,
    current: &AtomicU8,
    requests: &AtomicU64,
) {
    let mut kept: Option<Subscription> = None;
    let mut count = 0;
    let mut due = Instant::now();
    loop {
        let case = wanted.load(Ordering::SeqCst);
        let is_new = current.load(Ordering::SeqCst) != case;
        if is_new {
            kept = None;
        }
        match (case, kind.control) {
            (DONE, _) => return,
            (ALONE, _) => {}
            _ if kept.is_some() => {}
            (CONTROL, Control::Twin) => kept = (kind.request)(twin, names, count),
            (CONTROL, Control::OneName) => exclude(target, &names.except_one),
            _ => {
                kept = (kind.request)(target, names, count);
                // The measurement begins after the first request.
                requests.fetch_add(u64::from(!is_new), Ordering::Relaxed);
            }
        }
        count += 1;
        current.store(case, Ordering::SeqCst);
        // A slow request delays the next requests: the thread never makes up for missed time.
        due = Instant::now().max(due + PERIOD);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}
