//! The documented format: other programs publish by the bytes and the script of the guide.

use std::path::Path;
use std::process::Command;

use redis::{Connection, RedisResult, Value};
use sse_hub::redis::format::PUBLISH_SCRIPT;
use sse_hub::{Audience, Event, EventId, Subscriber};

use crate::load::{Instance, until};
use crate::publisher::allow_worker;
use crate::server::{DEADLINE, Server, connect};
use crate::support::{data, frames, read};
use crate::told::Told;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/publish.py");

/// An event for all clients, with the data `x`.
const ENTRY: &[u8] = b"\x01\x00\x00event: n\ndata: x\n";

/// Runs the program as the user of the guide's line for publishers. Returns the printed id.
fn run(server: &Server, arguments: [&str; 3]) -> EventId {
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("clients");
    assert!(clients.join("installed").exists(), "python is missing: run tests/clients/install");
    let output = Command::new(clients.join("venv/bin/python"))
        .args(["-W", "error", PROGRAM])
        .args(arguments)
        .env("REDIS_URL", format!("redis://worker:secret@127.0.0.1:{}", server.port()))
        .env("PREFIX", "shop")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().expect("an id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server and python"]
async fn python_program_publishes_to_a_user() {
    let lines = std::fs::read_to_string(PROGRAM).unwrap().lines().count();
    assert!(lines <= 40, "{lines} lines");
    let server = Server::start(&[]);
    allow_worker(&server, "");
    let there = Instance::with(&server.url(), |redis| redis.prefix("shop"), |hub| hub);
    there.backplane.ready().await;
    let user = "42: é\u{1}\n";
    let mut page = there.hub.subscribe(Subscriber::new().user(user)).unwrap();
    let mut other = there.hub.subscribe(Subscriber::new().user("42")).unwrap();
    let texts = ["hello", "", "one\r\ntwo\rthree\n", "data: x\nid: 7\n\nevent: y", " ü "];
    let mut ids: Vec<EventId> = texts.map(|text| run(&server, [user, "greeting", text])).into();
    assert!(ids.is_sorted());
    ids.push(
        there.hub.publish_confirmed(Audience::all(), Event::new("end")).unwrap().await.unwrap(),
    );
    let (mut text, mut others) = (String::new(), String::new());
    until("the end", || {
        text += &read(&mut page);
        others += &read(&mut other);
        text.contains("event: end\n") && others.contains("event: end\n")
    })
    .await;
    let got = frames(&text).into_iter().filter(|frame| !frame.event.starts_with("hub:"));
    assert_eq!(got.map(|frame| frame.id.unwrap()).collect::<Vec<_>>(), ids);
    // As a page reads the data.
    let stored = there.hub.recent(Audience::user(user), 10).unwrap();
    let stored: Vec<_> = stored.iter().map(|event| (&*event.event_type, &*event.data)).collect();
    let expected = ["hello", "", "one\ntwo\nthree\n", "data: x\nid: 7\n\nevent: y", " ü "];
    assert_eq!(stored, expected.map(|text| ("greeting", text)));
    assert_eq!(data(&others), [""], "events of another user");
    let stats = there.hub.stats();
    assert_eq!((stats.malformed, stats.resets), (0, 0));
    assert_eq!(server.run::<Vec<Value>>("ACL LOG"), []);
}

/// Calls the script as the guide says, for the prefix `shop` and the publisher `p`.
fn call(
    connection: &mut Connection,
    number: u64,
    answered: &str,
    events: &[(&[u8], Option<&str>)],
) -> RedisResult<Value> {
    let once: Vec<_> = events.iter().filter_map(|(_, key)| *key).collect();
    let mut command = redis::cmd("EVAL");
    command.arg(PUBLISH_SCRIPT).arg(3 + once.len());
    command.arg("{shop}:events").arg("{shop}:last").arg("{shop}:publisher:p");
    for key in once {
        command.arg(format!("{{shop}}:once:{key}"));
    }
    command.arg("MAXLEN").arg(100_000).arg("0-0").arg(answered).arg(number).arg(86_400_000);
    let mut next = 4;
    for (bytes, key) in events {
        command.arg(*bytes).arg(if key.is_some() { next } else { 0 });
        next += usize::from(key.is_some());
    }
    command.query(connection)
}

fn ids(answer: Value) -> Vec<String> {
    let ids: String = redis::from_redis_value(answer).unwrap();
    ids.split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn script_answers_as_the_guide_says() {
    let server = Server::start(&[]);
    let there = Instance::with(&server.url(), |redis| redis.prefix("shop"), |hub| hub);
    there.backplane.ready().await;
    let mut client = there.client();
    let mut connection = connect(server.port(), DEADLINE).unwrap();
    let mut call =
        |number, answered: &str, events: &[_]| call(&mut connection, number, answered, events);
    let batch = [(ENTRY, None), (ENTRY, Some("k")), (ENTRY, None)];
    let first = ids(call(1, "0-0", &batch).unwrap());
    assert_eq!(first.len(), 3);
    assert_eq!(ids(call(1, "0-0", &batch).unwrap()), first, "the same batch again");
    let second = ids(call(4, &first[2], &[(ENTRY, Some("k")), (ENTRY, None)]).unwrap());
    assert_eq!(second[0], first[1], "the same idempotency key");
    let newest = second[1].clone();
    let stale = call(1, "0-0", &batch).unwrap_err();
    assert_eq!(stale.code(), Some("STALE"), "{stale}");
    // Three values if an idempotency key holds no id.
    let _: String = server.run("SET {shop}:once:forged nonsense");
    let answer = call(6, &newest, &[(ENTRY, Some("forged"))]).unwrap();
    let (error, third, replaced): (String, String, u64) = redis::from_redis_value(answer).unwrap();
    assert_eq!((error.as_str(), replaced), ("", 1));
    // And if Redis refuses an event. A hub that finds no stream begins anew, so a client can lose
    // events that are unread by then.
    client.until_count(5).await;
    let _: String = server.run("RENAME {shop}:events {shop}:kept");
    let _: String = server.run("SET {shop}:events another");
    let answer = call(7, &third, &batch).unwrap();
    let (error, none, _): (String, String, u64) = redis::from_redis_value(answer).unwrap();
    assert!(error.contains("WRONGTYPE") && none.is_empty(), "{error} {none}");
    let _: u32 = server.run("DEL {shop}:events");
    let _: String = server.run("RENAME {shop}:kept {shop}:events");
    let _: String = server.run("SET {shop}:last nonsense");
    let corrupt = call(7, &third, &batch).unwrap_err();
    assert_eq!(corrupt.code(), Some("CORRUPT"), "{corrupt}");
    let _: String = server.run(&format!("SET {{shop}}:last {third}"));
    there.publish("end").await;
    client.until("end").await;
    let seen: Vec<_> = client.seen.iter().map(|(id, _)| id.to_string()).collect();
    let expected: Vec<_> = first.into_iter().chain([newest, third]).collect();
    assert_eq!(seen[..5], expected);
    assert_eq!((seen.len(), there.hub.stats().malformed), (6, 0));
}

// On a single thread, where `tracing` is recorded.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn entries_of_a_later_version_are_skipped_and_logged() {
    for (later, first_bytes) in [
        (&b"\x07\x01of a later version"[..], "format=7 kind=1 "),
        (b"\x02\xc8\x00\x01\0\0\0t", "format=2 kind=200 "),
        (b"\x09", "format=9 "),
    ] {
        let (told, _guard) = Told::record();
        let server = Server::start(&[]);
        let there = Instance::with(&server.url(), |redis| redis.prefix("shop"), |hub| hub);
        there.backplane.ready().await;
        let mut client = there.client();
        there.publish("before").await;
        client.until("before").await;
        let mut connection = connect(server.port(), DEADLINE).unwrap();
        call(&mut connection, 1, "0-0", &[(later, None)]).unwrap();
        there.until("a skipped entry", |hub| hub.stats().malformed == 1).await;
        call(&mut connection, 2, "0-0", &[(later, None), (ENTRY, None)]).unwrap();
        // The entry can have been an event: the loss is told before the next event. A client that
        // reads between the two entries is told twice.
        client.until("x").await;
        assert_eq!(client.names(), ["before", "x"]);
        assert!(matches!(client.gaps.len(), 1 | 2), "{:?}", client.gaps);
        let stats = there.hub.stats();
        assert_eq!((stats.malformed, stats.degraded), (2, false));
        let text = told.text();
        let message = "stream entries of an unknown format skipped";
        assert_eq!(text.matches(message).count(), 1, "once for a burst: {text}");
        let line = text.lines().find(|line| line.contains(message)).unwrap();
        assert!(line.contains(first_bytes), "{line}");
        assert!(!text.contains("malformed stream entries skipped"), "{text}");
    }
}
