//! Fails if an operation takes 5 % more instructions than the committed figure.
//!
//! Instructions, unlike times, do not depend on the load of the machine, so CI can check them. The
//! program runs each case under callgrind (of valgrind), which counts only inside the function of
//! the case, and compares with `guards.tsv`:
//!
//! ```text
//! cargo bench --all-features --bench guards             # check
//! cargo bench --all-features --bench guards -- --renew  # write the figures of this compiler
//! cargo bench --all-features --bench guards -- --test   # run the cases once, without valgrind
//! ```
//!
//! The figures depend on the compiler. With a compiler that has no figures, the program prints the
//! counts and succeeds. A change that adds instructions for a good reason renews the figures, and
//! its commit says why.
//!
//! | case | counts |
//! |---|---|
//! | `encode` | an event of 200 bytes: from `Event::new` until the frame is freed |
//! | `publish` | a broadcast of such an event to 1,000 clients that wait |
//! | `read` | the poll that returns such an event, and the freeing of the item |
//! | `wait` | the next poll, which finds nothing |
//! | `connect` | a client with 64 topics, 64 event types and an old id subscribes and leaves |
//! | `replay` | the poll that reads 64 events from the log, for a client with 64 topics |
//! | `page` | `Hub::read` of 100 events of a topic, in a log with 10,000 events of other topics |
//! | `topic` | a publish of a small event to a topic with two clients that wait |
//! | `job` | the same to a run with two readers |
//! | `token` | the same to a run that appends text |
//! | `mixed` | the poll that reads two such events, and two events of a topic that came between |
//!
//! `job` and `token` must take at most 1.1 times the instructions of `topic`, with every compiler.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{
    Audience, Event, Hub, LastEventId, ManualTimer, Retain, Run, RunOptions, Subscriber,
    Subscription,
};

const CASES: [&str; 11] = [
    "encode", "publish", "read", "wait", "connect", "replay", "page", "topic", "job", "token",
    "mixed",
];

/// The most instructions of a publish to a run, in proportion to a publish to a topic.
const MOST_OF_A_RUN: f64 = 1.1;

const CLIENTS: usize = 1_000;

/// How often a case runs before it is counted, so that queues and tables have their full size.
const BEFORE: usize = 40;

/// How often a case is counted.
const TIMES: usize = 20;

/// The most instructions, in proportion to the committed figure.
const MOST: f64 = 1.05;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        ["--renew"] => renew(),
        ["--test"] => run(),
        // Under callgrind.
        ["--run"] => run(),
        _ => panic!("unknown arguments {arguments:?}"),
    }
}

/// The cases. Each is a function that is not inlined: callgrind knows it by its name.
fn run() -> ExitCode {
    let data = "x".repeat(200);
    for _ in 0..TIMES {
        counted_encode(black_box(&data));
    }
    let hub = Hub::builder(ManualTimer::new()).build().expect("the settings are valid");
    let connect = |_| {
        let mut stream = hub.subscribe(Subscriber::new()).expect("the hub is open");
        stream.next().now_or_never().expect("the opening is there at once");
        assert!(stream.next().now_or_never().is_none());
        stream
    };
    let mut streams: Vec<Subscription> = (0..CLIENTS).map(connect).collect();
    for round in 0..BEFORE + TIMES {
        let event = Event::new("notification").data(&data);
        if round < BEFORE {
            hub.broadcast(event).expect("valid");
        } else {
            counted_publish(&hub, event);
        }
        for (nth, stream) in streams.iter_mut().enumerate() {
            if round < BEFORE || nth % 100 != 99 {
                assert!(read(stream).is_some());
                assert!(read(stream).is_none());
            } else {
                counted_read(stream);
                counted_wait(stream);
            }
        }
    }
    run_small();
    mixed();
    old_clients(&data);
    page(&data);
    ExitCode::SUCCESS
}

/// Connects clients with many names and an old id.
fn old_clients(data: &str) {
    const EVENTS: usize = 1_024;
    let retain = Retain::default().events(EVENTS);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().expect("valid");
    let names =
        |kind: &str| -> Vec<String> { (0..64).map(|it| format!("{kind}-{it:05}")).collect() };
    let (topics, types) = (names("topic"), names("type"));
    let mut ids = Vec::new();
    for number in 0..2 * EVENTS {
        let event = Event::new("notification").data(data);
        let published = hub.publish_confirmed(Audience::topic(&topics[number % 64]), event);
        ids.push(published.expect("valid").id().expect("the hub has no backplane"));
    }
    let of_types = Subscriber::new().topics(&topics).event_types(&types).resume(ids[0]);
    let behind = Subscriber::new().topics(&topics).resume(ids[EVENTS + 1]);
    for _ in 0..TIMES {
        counted_connect(&hub, of_types.clone());
        let mut stream = hub.subscribe(behind.clone()).expect("the hub is open");
        stream.next().now_or_never().expect("the opening is there at once");
        counted_replay(&mut stream);
    }
}

fn page(data: &str) {
    const EVENTS: usize = 100;
    let retain = Retain::default().events(101 * EVENTS);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().expect("valid");
    for number in 0..101 * EVENTS {
        let topic = if number % 101 == 0 { 0 } else { number };
        let event = Event::new("notification").data(data);
        hub.send_to_topic(topic, event).expect("valid");
    }
    let reader = Subscriber::new().user("42").topic(0);
    for _ in 0..TIMES {
        counted_page(&hub, &reader);
    }
}

/// The cases of small events, in a hub whose log is full.
fn run_small() {
    let hub = Hub::builder(ManualTimer::new()).build().expect("the settings are valid");
    let start = |name, options| hub.start_run(name, options).expect("the name is free");
    let job = start("job", RunOptions::default());
    let answer = start("answer", RunOptions::default().append("token"));
    let client = |client: Subscriber| hub.subscribe(client).expect("the hub is open");
    let mut streams: Vec<Subscription> = (0..2)
        .flat_map(|_| {
            let run = |name| client(Subscriber::new().run(name));
            [client(Subscriber::new().topic("topic")), run("job"), run("answer")]
        })
        .collect();
    let event = || Event::new("token").data("word ");
    // As many events as the log keeps: from there on, each event evicts another.
    for _ in 0..4096 {
        hub.send_to_topic("topic", event()).expect("valid");
    }
    for round in 0..BEFORE + TIMES {
        streams.iter_mut().for_each(|stream| while read(stream).is_some() {});
        let (to_topic, to_job, to_answer) = (event(), event(), event());
        if round < BEFORE {
            hub.send_to_topic("topic", to_topic).expect("valid");
            job.publish(to_job).expect("valid");
            answer.publish(to_answer).expect("valid");
        } else {
            counted_topic(&hub, to_topic);
            counted_job(&job, to_job);
            counted_token(&answer, to_answer);
        }
    }
}

/// A client that reads a run and a topic, and has events of both to read.
fn mixed() {
    let hub = Hub::builder(ManualTimer::new()).build().expect("the settings are valid");
    let options = RunOptions::default().append("token");
    let answer = hub.start_run("answer", options).expect("the name is free");
    let client = Subscriber::new().topic("topic").run("answer");
    let mut stream = hub.subscribe(client).expect("the hub is open");
    while read(&mut stream).is_some() {}
    for round in 0..BEFORE + TIMES {
        for _ in 0..2 {
            answer.publish(Event::new("token").data("word ")).expect("valid");
            hub.send_to_topic("topic", Event::new("news").data("x")).expect("valid");
        }
        if round < BEFORE {
            assert!(read(&mut stream).is_some());
        } else {
            counted_mixed(&mut stream);
        }
        assert!(read(&mut stream).is_none());
    }
}

/// How many calls of a case are counted.
fn calls(case: &str) -> usize {
    match case {
        "read" | "wait" => TIMES * CLIENTS / 100,
        _ => TIMES,
    }
}

#[inline(never)]
fn counted_encode(data: &str) {
    drop(black_box(Event::new("notification").data(data).encode()));
}

#[inline(never)]
fn counted_publish(hub: &Hub, event: Event) {
    hub.broadcast(event).expect("valid");
}

#[inline(never)]
fn counted_topic(hub: &Hub, event: Event) {
    hub.send_to_topic("topic", event).expect("valid");
}

#[inline(never)]
fn counted_job(run: &Run, event: Event) {
    run.publish(event).expect("valid");
}

#[inline(never)]
fn counted_token(run: &Run, event: Event) {
    run.publish(event).expect("valid");
}

#[inline(never)]
fn counted_read(stream: &mut Subscription) {
    assert!(black_box(read(stream)).is_some());
}

#[inline(never)]
fn counted_wait(stream: &mut Subscription) {
    assert!(black_box(read(stream)).is_none());
}

#[inline(never)]
fn counted_connect(hub: &Hub, subscriber: Subscriber) {
    drop(hub.subscribe(subscriber).expect("the hub is open"));
}

#[inline(never)]
fn counted_replay(stream: &mut Subscription) {
    assert!(black_box(read(stream)).is_some());
}

#[inline(never)]
fn counted_mixed(stream: &mut Subscription) {
    assert!(black_box(read(stream)).is_some());
}

#[inline(never)]
fn counted_page(hub: &Hub, reader: &Subscriber) {
    let page = hub.read(reader, LastEventId::none(), 100).expect("valid");
    assert_eq!(black_box(page).events.len(), 100);
}

fn read(stream: &mut Subscription) -> Option<Option<Bytes>> {
    stream.next().now_or_never()
}

fn check() -> ExitCode {
    let compiler = compiler();
    let figures = figures();
    let mut failed = false;
    println!("{:<10} {:>12} {:>12} {:>8}", "case", "instructions", "committed", "ratio");
    let mut topic = None;
    for case in CASES {
        let counted = count(case);
        match (case, topic) {
            ("topic", _) => topic = Some(counted),
            ("job" | "token", Some(topic)) => {
                let ratio = counted as f64 / topic as f64;
                println!("{case:<10} {ratio:>25.3} of a publish to a topic");
                if ratio > MOST_OF_A_RUN {
                    println!("a publish to a run takes more than {MOST_OF_A_RUN} of it");
                    return ExitCode::FAILURE;
                }
            }
            _ => {}
        }
        let known = figures.iter().find(|(of, name, _)| (of, name.as_str()) == (&compiler, case));
        let Some((_, _, committed)) = known else {
            println!("{case:<10} {counted:>12} {:>12}", "-");
            continue;
        };
        let ratio = counted as f64 / *committed as f64;
        let verdict = if ratio > MOST {
            failed = true;
            "too many"
        } else if ratio < 2.0 - MOST {
            "fewer: renew the figures"
        } else {
            ""
        };
        println!("{case:<10} {counted:>12} {committed:>12} {ratio:>8.3} {verdict}");
    }
    if figures.iter().all(|(of, _, _)| *of != compiler) {
        println!("guards.tsv has no figures of {compiler}: nothing was checked. Add them by");
    } else if failed {
        println!(
            "An operation takes more instructions. If the change is worth them, renew them by"
        );
    } else {
        return ExitCode::SUCCESS;
    }
    println!("cargo bench --all-features --bench guards -- --renew");
    ExitCode::from(u8::from(failed))
}

fn renew() -> ExitCode {
    let compiler = compiler();
    let mut text = String::new();
    for (of, case, committed) in figures().iter().filter(|(of, _, _)| *of != compiler) {
        writeln!(text, "{of}\t{case}\t{committed}").expect("a String");
    }
    for case in CASES {
        writeln!(text, "{compiler}\t{case}\t{}", count(case)).expect("a String");
    }
    fs::write(path(), &text).expect("guards.tsv can be written");
    print!("{text}");
    ExitCode::SUCCESS
}

/// Returns the instructions of one call.
fn count(case: &str) -> usize {
    let out = env::temp_dir().join(format!("sse-hub-guards-{}", std::process::id()));
    let mut output = std::ffi::OsString::from("--callgrind-out-file=");
    output.push(&out);
    let result = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*counted_{case}*"))
        .arg(output)
        .arg(env::current_exe().expect("the path of this program"))
        .arg("--run")
        .output()
        .expect("valgrind starts: install it, or run the cases without it by --test");
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let profile = fs::read_to_string(&out).expect("callgrind writes a profile");
    fs::remove_file(&out).expect("the profile is a file");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: usize = total.and_then(|total| total.trim().parse().ok()).expect("a total");
    assert!(total > 0, "callgrind did not find the function of {case}");
    total / calls(case)
}

fn compiler() -> String {
    let rustc = Command::new("rustc").arg("--version").output().expect("rustc runs");
    String::from_utf8(rustc.stdout).expect("text").trim().to_string()
}

/// Returns the committed figures: compiler, case, instructions.
fn figures() -> Vec<(String, String, usize)> {
    let text = fs::read_to_string(path()).unwrap_or_default();
    let parse = |line: &str| {
        let mut fields = line.split('\t').map(String::from);
        let (compiler, case) = (fields.next()?, fields.next()?);
        Some((compiler, case, fields.next()?.parse().ok()?))
    };
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("{line} in guards.tsv"))).collect()
}

fn path() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/guards.tsv"))
}
