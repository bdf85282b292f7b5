//! The copies of runs in Redis, as the script of the guide writes them: other programs use the same
//! keys, arguments and bytes.

use std::collections::{BTreeSet, HashMap};

use redis::{Connection, Value};
use sse_hub::redis::format::PUBLISH_SCRIPT;

use crate::load::until;
use crate::server::{DEADLINE, Server, connect};

const RUNS: &str = "{shop}:runs";
const ENDED: &str = "{shop}:runs-ended";

/// The kinds of the parts of runs.
const START: u8 = 6;
const TAKE_OVER: u8 = 7;
const EVENT: u8 = 8;
const STOP: u8 = 9;
const END: u8 = 10;

fn text(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

/// A part of a run, of a producer whose name has bytes that the records use as dividers.
fn part(kind: u8, run: &str, producer: u8, rest: &[u8]) -> Vec<u8> {
    let producer = [b"7 \n\0\xff:; ".as_slice(), &[producer; 8]].concat();
    [&[2, kind][..], &text(run), &producer, rest].concat()
}

fn start(run: &str, producer: u8) -> Vec<u8> {
    part(START, run, producer, &[0])
}

fn take_over(run: &str, producer: u8) -> Vec<u8> {
    part(TAKE_OVER, run, producer, &[0])
}

fn event(run: &str, producer: u8, data: &str) -> Vec<u8> {
    part(EVENT, run, producer, &[b"\0data: ", data.as_bytes(), b"\n"].concat())
}

/// An event of a type with a conflation key.
fn value(run: &str, kind: &str, key: &str, data: &str) -> Vec<u8> {
    let frame = format!("event: {kind}\ndata: {data}\n");
    part(EVENT, run, 1, &[&[1][..], &text(key), frame.as_bytes()].concat())
}

fn stop(run: &str) -> Vec<u8> {
    [&[2, STOP][..], &text(run), &text("user")].concat()
}

fn end(run: &str, producer: u8) -> Vec<u8> {
    part(END, run, producer, &[1])
}

/// The name of the run that a part belongs to.
fn run_of(part: &[u8]) -> &str {
    let (len, rest) = part[2..].split_first_chunk().unwrap();
    std::str::from_utf8(&rest[..u32::from_le_bytes(*len) as usize]).unwrap()
}

/// A publisher in another language, for the prefix `shop`.
struct Program {
    connection: Connection,
    number: usize,
    answered: String,
    /// The most bytes of a run, the most of all open runs, and the milliseconds after the end.
    limits: [u64; 3],
}

impl Program {
    fn new(server: &Server) -> Self {
        let connection = connect(server.port(), DEADLINE).unwrap();
        let limits = [8 << 20, 64 << 20, 600_000];
        Self { connection, number: 1, answered: "0-0".to_owned(), limits }
    }

    /// Sends a batch, as the guide says. Returns the error and the ids.
    fn send(&mut self, parts: &[Vec<u8>]) -> (String, Vec<String>) {
        let runs: BTreeSet<&str> = parts.iter().map(|part| run_of(part)).collect();
        let index: HashMap<&str, usize> = runs.iter().copied().zip(6..).collect();
        let mut call = redis::cmd("EVAL");
        call.arg(PUBLISH_SCRIPT).arg(5 + runs.len());
        call.arg("{shop}:events").arg("{shop}:last").arg("{shop}:publisher:p");
        call.arg(RUNS).arg(ENDED);
        for run in runs {
            call.arg(copy_of(run));
        }
        let [run, all, keep] = self.limits;
        call.arg("MAXLEN").arg(100_000).arg("0-0").arg(&self.answered).arg(self.number);
        call.arg(format!("86400000 0 0 {run} {all} {keep}"));
        for part in parts {
            call.arg(&part[..]).arg(format!("0 {}", index[run_of(part)]));
        }
        let (error, ids): (String, String) = match call.query(&mut self.connection).unwrap() {
            Value::Array(answer) => {
                let answer: (_, _, u64) = redis::from_redis_value(Value::Array(answer)).unwrap();
                (answer.0, answer.1)
            }
            ids => (String::new(), redis::from_redis_value(ids).unwrap()),
        };
        (error, ids.split_whitespace().map(str::to_owned).collect())
    }

    /// Sends a batch that is taken as a whole.
    fn publish(&mut self, parts: &[Vec<u8>]) -> Vec<String> {
        let (error, ids) = self.send(parts);
        assert_eq!((error.as_str(), ids.len()), ("", parts.len()));
        self.answered = ids.last().unwrap().clone();
        self.number += parts.len();
        ids
    }

    /// Returns the copy of a run: ids and bytes.
    fn copy(&mut self, run: &str) -> Vec<(String, Vec<u8>)> {
        let mut call = redis::cmd("XRANGE");
        call.arg(copy_of(run)).arg("-").arg("+");
        let copy: Vec<(String, HashMap<String, Vec<u8>>)> =
            call.query(&mut self.connection).unwrap();
        copy.into_iter().map(|(id, mut fields)| (id, fields.remove("e").unwrap())).collect()
    }

    fn kinds(&mut self, run: &str) -> Vec<u8> {
        self.copy(run).iter().map(|(_, part)| part[1]).collect()
    }

    /// Returns the bytes that a copy counts for.
    fn weight(&mut self, run: &str) -> usize {
        self.copy(run).iter().map(|(_, part)| 64 + part.len()).sum()
    }

    /// Returns the parts of a record: up to the producer, as the guide says.
    fn record(&mut self, run: &str) -> Vec<String> {
        let mut call = redis::cmd("HGET");
        let record: Option<Vec<u8>> = call.arg(RUNS).arg(run).query(&mut self.connection).unwrap();
        let record = String::from_utf8_lossy(&record.unwrap_or_default()).into_owned();
        record.splitn(7, ' ').take(6).map(str::to_owned).collect()
    }
}

fn copy_of(run: &str) -> String {
    format!("{{shop}}:run:{run}")
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn only_parts_with_an_effect_are_copied() {
    let server = Server::start(&[]);
    let mut program = Program::new(&server);
    let run = "a\nname: of {10} \u{ff}";
    let parts = [
        (event(run, 1, "before the start"), false),
        (start(run, 1), true),
        (event(run, 1, "x"), true),
        (event(run, 2, "of another producer"), false),
        (start(run, 3), false),
        (event(run, 3, "of a refused start"), false),
        (stop(run), true),
        (stop(run), false),
        (take_over(run, 4), true),
        (event(run, 1, "of the older producer"), false),
        (end(run, 1), false),
        (event(run, 4, "y"), true),
    ];
    let batch: Vec<_> = parts.iter().map(|(part, _)| part.clone()).collect();
    let (_, first) = program.send(&batch);
    // The answer was lost: the batch comes again.
    assert_eq!(program.publish(&batch), first);
    let copied = first.into_iter().zip(parts).filter(|(_, (_, is_copied))| *is_copied);
    let expected: Vec<_> = copied.map(|(id, (part, _))| (id, part)).collect();
    assert_eq!(program.copy(run), expected);
    assert_eq!(program.record(run)[0], "stopping");
    assert_eq!(server.run::<i64>(&format!("PTTL {}", copy_of("nobody"))), -2);

    program.publish(&[end(run, 4), event(run, 4, "late"), stop(run)]);
    assert_eq!(program.kinds(run), [START, EVENT, STOP, TAKE_OVER, EVENT, END]);
    let last = program.copy(run).pop().unwrap().0;
    let weight = program.weight(run).to_string();
    let record = program.record(run);
    assert_eq!((&*record[0], &*record[1], &*record[4]), ("ended", &*weight, &*last));

    // The name is used again, and an ended run can be taken over, too.
    let first = program.publish(&[take_over(run, 5), event(run, 5, "z")]);
    assert_eq!(program.kinds(run), [TAKE_OVER, EVENT]);
    let record = program.record(run);
    assert_eq!((&*record[0], &*record[3], &*record[5]), ("open", &*first[0], &*last));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn copies_lose_only_their_oldest_events() {
    let server = Server::start(&[]);
    let mut program = Program::new(&server);
    program.limits[0] = 6_000;
    let mut ids = Vec::new();
    for producer in 0..60 {
        let begin = if producer == 0 { start("a", 0) } else { take_over("a", producer) };
        let mut batch = vec![begin];
        batch.extend((0..5).map(|number| event("a", producer, &format!("{number}"))));
        if producer == 20 {
            batch.push(stop("a"));
        }
        ids.extend(program.publish(&batch).into_iter().zip(batch));
    }
    let (copy, weight) = (program.copy("a"), program.weight("a"));
    let record = program.record("a");
    assert!((5_000..=6_000).contains(&weight), "{weight}");
    assert_eq!(record[1], weight.to_string());
    assert_eq!(copy[0], ids[0], "the start stays");
    assert_eq!(copy.iter().filter(|(_, part)| part[1] == STOP).count(), 1);
    // All events after the newest dropped event, and no other, each after the start of its producer.
    let events = |all: &[(String, Vec<u8>)]| {
        all.iter().filter(|(_, part)| part[1] == EVENT).cloned().collect::<Vec<_>>()
    };
    let lost = ids.iter().position(|(id, _)| *id == record[5]).unwrap();
    assert_eq!(events(&copy), events(&ids[lost + 1..]));
    let mut producer = Vec::new();
    for (id, part) in &copy {
        match part[1] {
            START | TAKE_OVER => producer = part[7..23].to_vec(),
            EVENT => assert_eq!(part[7..23], producer, "{id}"),
            _ => {}
        }
    }
    // Producers without events leave nothing.
    let silent: Vec<_> = (0..200).map(|producer| take_over("a", producer)).collect();
    program.publish(&silent);
    assert!(program.weight("a") <= weight + 200, "{}", program.weight("a"));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn open_runs_share_a_bound() {
    let server = Server::start(&[]);
    let mut program = Program::new(&server);
    program.limits[1] = 10_000;
    let runs = ["a", "b", "c", "d"];
    for run in runs {
        let mut batch = vec![start(run, 1)];
        batch.extend((0..100).map(|number| event(run, 1, &format!("{number}"))));
        program.publish(&batch);
    }
    let weight: usize = runs.map(|run| program.weight(run)).iter().sum();
    // The starts stay.
    assert!(weight <= 10_000 + 4 * 100, "{weight}");
    let sums: String = server.run(&format!("HGET {RUNS} {}", ""));
    assert_eq!(sums, format!("{weight} 0"));
    for run in runs {
        assert_eq!(program.kinds(run)[0], START);
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn copies_of_values_are_conflated() {
    let server = Server::start(&[]);
    let mut program = Program::new(&server);
    let mut batch = vec![start("a", 1), event("a", 1, "plain")];
    for number in 0..300 {
        batch.push(value("a", "progress", &format!("{}", number % 3), &number.to_string()));
    }
    batch.push(value("a", "other", "1", "of another type"));
    let ids = program.publish(&batch);
    let kept: Vec<_> = program.copy("a").into_iter().map(|(id, _)| id).collect();
    let expected = [&ids[..2], &ids[299..]].concat();
    assert_eq!(kept, expected, "the newest of each key, and no loss is noted");
    assert_eq!(program.record("a")[5], "0-0");
    assert_eq!(program.record("a")[1], program.weight("a").to_string());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn copy_expires_after_the_end_only() {
    let server = Server::start(&[]);
    let mut program = Program::new(&server);
    program.limits[2] = 50;
    program.publish(&[start("a", 1), start("b", 1), event("a", 1, "x"), end("a", 1)]);
    assert_eq!(server.run::<i64>(&format!("PTTL {}", copy_of("b"))), -1);
    until("the end of the copy", || server.run::<u8>(&format!("EXISTS {}", copy_of("a"))) == 0)
        .await;
    assert_eq!(program.kinds("b"), [START]);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn failed_copies_are_removed_and_events_land_once() {
    let server = Server::start(&[]);
    let mut program = Program::new(&server);
    program.publish(&[start("a", 1), start("b", 1)]);
    let greatest = format!("XADD {} 18446744073709551615-1 e x", copy_of("a"));
    for (forge, cause) in [
        (vec![format!("DEL {}", copy_of("a")), format!("SET {} x", copy_of("a"))], "WRONGTYPE"),
        (vec![greatest], "equal or smaller"),
        (vec![format!("DEL {RUNS}"), format!("SET {RUNS} x")], "WRONGTYPE"),
        (vec![format!("DEL {RUNS}"), format!("RPUSH {RUNS} x")], "WRONGTYPE"),
    ] {
        program.publish(&[end("a", 1), start("a", 1), event("a", 1, "x")]);
        for forge in forge {
            let _: Value = server.run(&forge);
        }
        let before: usize = server.run("XLEN {shop}:events");
        let batch = [event("a", 1, "y"), event("b", 1, "z")];
        let (error, ids) = program.send(&batch);
        assert!(error.starts_with("run not copied: ") && error.contains(cause), "{error}");
        assert_eq!(ids.len(), 1, "the event is in the stream");
        // The answer was lost: the whole batch comes again.
        assert_eq!(program.publish(&batch)[0], ids[0]);
        assert_eq!(server.run::<usize>("XLEN {shop}:events"), before + 2);
        assert_eq!(server.run::<u8>(&format!("EXISTS {}", copy_of("a"))), 0, "a copy with a hole");
    }
    program.publish(&[start("a", 2), event("a", 2, "x")]);
    assert_eq!(program.kinds("a"), [START, EVENT], "the keys are replaced");
    let _: Value = server.run(&format!("DEL {ENDED}"));
    let _: Value = server.run(&format!("SET {ENDED} x"));
    let (error, _) = program.send(&[end("a", 2)]);
    assert!(error.contains("WRONGTYPE"), "{error}");
    program.publish(&[end("a", 2), start("a", 3), end("a", 3)]);
    assert_eq!(program.kinds("a"), [START, END]);
}
