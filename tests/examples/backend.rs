//! The recipes work, and refuse misuse.

use std::ops::RangeInclusive;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use sse_hub::EventId;

use crate::client::Response;
use crate::server::{DEADLINE, Server};
use crate::support::Frame;

const KEY: &[u8] = b"thirty-two bytes that are secret";

fn start() -> Server {
    let secret = format!("whsec_{}", STANDARD.encode(KEY));
    Server::start_with("backend", &[("WEBHOOK_SECRET", &secret)])
}

fn stream(server: &Server, query: &str) -> (Response, Frame) {
    server.get(&format!("/events?{query}")).send().opened()
}

fn json_of(frame: &Frame) -> Value {
    serde_json::from_str(&frame.data).unwrap_or_else(|error| panic!("{error}: {frame:?}"))
}

struct Message {
    id: &'static str,
    timestamp: i64,
    signed: String,
    sent: String,
    key: &'static [u8],
}

/// A genuine message of now.
fn message(id: &'static str, body: &Value) -> Message {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let body = body.to_string();
    Message { id, timestamp: now as i64, signed: body.clone(), sent: body, key: KEY }
}

impl Message {
    fn signature(&self) -> String {
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.signed);
        let mac = Hmac::<Sha256>::new_from_slice(self.key).unwrap().chain_update(signed);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn send(&self, server: &Server) -> u16 {
        self.send_with(server, &self.signature())
    }

    fn send_with(&self, server: &Server, signature: &str) -> u16 {
        let request = server.post("/webhooks/orders").header("webhook-id", self.id);
        let request = request.header("webhook-timestamp", &self.timestamp.to_string());
        request.header("webhook-signature", signature).body(&self.sent).status
    }
}

fn shipped(order: &str) -> Value {
    json!({ "user": "ann", "order": order, "state": "shipped", "margin": 0.4 })
}

#[test]
fn webhook_reaches_the_pages_of_its_user() {
    let server = start();
    let (mut ann, _) = stream(&server, "user=ann");
    let (mut support, _) = stream(&server, "user=bob&order=17");
    let (mut other, _) = stream(&server, "user=bob&order=18");

    assert_eq!(message("m1", &shipped("17")).send(&server), 204);
    for page in [&mut ann, &mut support] {
        let frame = page.frame();
        assert_eq!(frame.event, "order");
        assert_eq!(json_of(&frame), json!({ "order": "17", "state": "shipped" }));
    }
    assert_eq!(message("m2", &shipped("18")).send(&server), 204);
    assert_eq!(json_of(&other.frame())["order"], "18");
}

#[test]
fn repeated_webhook_is_published_once() {
    let server = start();
    let (mut ann, _) = stream(&server, "user=ann");
    let first = message("m1", &shipped("17"));
    assert_eq!(first.send(&server), 204);
    assert_eq!(first.send(&server), 204);
    // A later attempt has a new signature.
    let later = Message { timestamp: first.timestamp + 1, ..message("m1", &shipped("17")) };
    assert_ne!(later.signature(), first.signature());
    assert_eq!(later.send(&server), 204);

    assert_eq!(message("m2", &shipped("18")).send(&server), 204);
    assert_eq!(json_of(&ann.frame())["order"], "17");
    assert_eq!(json_of(&ann.frame())["order"], "18");

    // A failed message is not remembered as processed.
    assert_eq!(message("m3", &shipped(&"9".repeat(1000))).send(&server), 400);
    assert_eq!(message("m3", &shipped("19")).send(&server), 204);
    assert_eq!(json_of(&ann.frame())["order"], "19");
}

#[test]
fn forged_webhook_is_refused() {
    let server = start();
    let (mut ann, _) = stream(&server, "user=ann");
    let genuine = || message("m1", &shipped("17"));
    let now = genuine().timestamp;
    let refused = [
        Message { key: b"another key", ..genuine() },
        Message { sent: shipped("18").to_string(), ..genuine() },
        // The signature covers the bytes, not the meaning of the JSON.
        Message { sent: format!("{} ", genuine().sent), ..genuine() },
        Message { timestamp: now - 5 * 60 - 1, ..genuine() },
        Message { timestamp: now + 5 * 60 + 60, ..genuine() },
        Message { timestamp: -1, ..genuine() },
        Message { timestamp: i64::MAX, ..genuine() },
    ];
    for message in &refused {
        assert_eq!(message.send(&server), 401, "{} {}", message.timestamp, message.sent);
    }
    let signature = genuine().signature();
    let elsewhere = Message { id: "m0", ..genuine() };
    assert_eq!(elsewhere.send_with(&server, &signature), 401);
    let bare = signature.strip_prefix("v1,").unwrap();
    for wrong in ["", "v1,", bare, &signature[..19], &format!("v2,{bare}")] {
        assert_eq!(genuine().send_with(&server, wrong), 401, "{wrong}");
    }
    let unsigned = server.post("/webhooks/orders").body(&genuine().sent);
    assert_eq!(unsigned.status, 401);

    // While the key is replaced there are two signatures. The refused messages had no effect.
    let old = Message { key: b"the old key", ..genuine() }.signature();
    assert_eq!(genuine().send_with(&server, &format!("{old} {signature}")), 204);
    assert_eq!(json_of(&ann.frame())["order"], "17");
}

/// Starts a job of a user. Returns the path.
fn start_job(server: &Server, user: &str, rows: u32) -> String {
    let started = server.post(&format!("/jobs?user={user}")).json(&json!({ "rows": rows }));
    assert_eq!(started.status, 202);
    format!("/jobs/{}", started.json()["job"])
}

/// Opens the stream of a job as a user, from the beginning.
fn follow(server: &Server, job: &str, user: &str) -> Response {
    server.get(&format!("{job}/events?user={user}")).send().opened().0
}

/// Reads up to the next event of a type, and returns the frame.
fn next_of(stream: &mut Response, event: &str) -> Frame {
    let began = Instant::now();
    loop {
        let frame = stream.frame();
        if frame.event == event {
            return frame;
        }
        assert!(began.elapsed() < DEADLINE, "no {event}: {frame:?}");
    }
}

/// The rest of the stream of a job.
#[derive(Debug, Default)]
struct Rest {
    ids: Vec<EventId>,
    files: Vec<String>,
    percents: Vec<u64>,
    /// The reason of `hub:run-end`.
    state: Option<String>,
    /// The reason of the final `hub:end`.
    end: Option<String>,
}

/// Reads the stream of a job to its end.
fn rest(mut stream: Response) -> Rest {
    let mut rest = Rest::default();
    let began = Instant::now();
    while let Some(frame) = stream.next_frame() {
        assert!(began.elapsed() < DEADLINE, "the job must end: {rest:?}");
        let word = |name: &str| json_of(&frame)[name].as_str().map(str::to_owned);
        match &*frame.event {
            "job-file" => rest.files.extend(word("file")),
            "job-progress" => rest.percents.extend(json_of(&frame)["percent"].as_u64()),
            "hub:run-end" => rest.state = word("reason"),
            _ => {
                assert!(frame.is_final(), "{frame:?}");
                rest.end = word("reason");
                continue;
            }
        }
        rest.ids.extend(frame.id);
    }
    assert!(rest.ids.is_sorted_by(|one, next| one < next), "{rest:?}");
    assert!(rest.percents.is_sorted_by(|one, next| one < next), "{rest:?}");
    rest
}

fn files(job: u64, numbers: RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| format!("export-{job}-{number}.csv")).collect()
}

#[test]
fn job_is_followed_from_its_beginning() {
    let server = start();
    let (mut page, _) = stream(&server, "user=ann");
    let (mut other, _) = stream(&server, "user=bob");
    let job = start_job(&server, "ann", 50);
    let live = rest(follow(&server, &job, "ann"));
    assert_eq!(live.files, files(0, 1..=3));
    assert_eq!(live.percents.last(), Some(&100));
    assert!(live.percents.len() > 1, "{live:?}");
    assert_eq!((live.state.as_deref(), live.end.as_deref()), (Some("finished"), Some("finished")));

    // All pages of the user are told the end, and only this.
    let told = page.frame();
    assert_eq!(told.event, "job-ended");
    assert_eq!(json_of(&told), json!({ "job": 0, "state": "finished" }));
    // Another user gets nothing of the job before the next event.
    let shipped = json!({ "user": "bob", "order": "17", "state": "shipped" });
    assert_eq!(message("m1", &shipped).send(&server), 204);
    assert_eq!(other.frame().event, "order");

    // A device that comes late gets all files, and only the newest progress.
    let late = rest(follow(&server, &job, "ann"));
    assert_eq!((late.files, late.percents), (live.files, vec![100]));
    assert_eq!(late.end.as_deref(), Some("finished"));

    // A page that has everything is stopped.
    let last = live.ids.last().unwrap().to_string();
    let back = server.get(&format!("{job}/events?user=ann")).header("last-event-id", &last);
    assert_eq!(back.send().status, 204);
}

#[test]
fn reload_continues_a_job_exactly() {
    let server = start();
    let (mut page, _) = stream(&server, "user=ann");
    let job = start_job(&server, "ann", 100);
    let mut second = follow(&server, &job, "ann");
    let mut first = follow(&server, &job, "ann");
    let read = next_of(&mut first, "job-file");
    assert_eq!(json_of(&read)["file"], "export-0-1.csv");
    drop(first);
    // Files are written while the page is away.
    while json_of(&next_of(&mut second, "job-file"))["file"] != "export-0-3.csv" {}

    let last = read.id.unwrap();
    let back =
        server.get(&format!("{job}/events?user=ann")).header("last-event-id", &last.to_string());
    let continued = rest(back.send().opened().0);
    assert!(continued.ids[0] > last, "{continued:?}");
    assert_eq!(continued.files, files(0, 2..=5));
    assert_eq!(continued.end.as_deref(), Some("finished"));
    assert_eq!(rest(second).files, files(0, 4..=5));
    // The loss of a reader has no effect on the job.
    assert_eq!(json_of(&page.frame()), json!({ "job": 0, "state": "finished" }));
}

#[test]
fn job_of_another_user_is_unknown() {
    let server = start();
    let job = start_job(&server, "ann", 100_000);
    assert_eq!(job, "/jobs/0");
    // A name that contains the separator of the names of runs.
    start_job(&server, "ann/0", 100_000);
    let mut reader = follow(&server, &job, "ann");
    for (user, job) in [("eve", 0), ("root", 0), ("ann/0", 0), ("ann", 1), ("ann", 9), ("", 0)] {
        // The same answer for a job of another user as for no job.
        let events = server.get(&format!("/jobs/{job}/events?user={user}")).send();
        let refused = if user.is_empty() { 400 } else { 404 };
        assert_eq!(events.status, refused, "{user} {job}");
        let stop = server.delete(&format!("/jobs/{job}?user={user}")).send();
        assert_eq!(stop.status, 404, "{user} {job}");
    }
    // The user cannot be in the number.
    assert_eq!(server.get("/jobs/ann%2F0/events?user=eve").send().status, 400);
    assert_eq!(server.get("/jobs/0/events").send().status, 401);
    assert_eq!(server.delete("/jobs/0").send().status, 401);
    assert_eq!(server.post("/jobs").json(&json!({ "rows": 1 })).status, 401);

    let jobs = |user: &str| server.get(&format!("/jobs?user={user}")).send().json();
    let of_ann = json!({ "user": "ann", "job": 0, "state": "open" });
    let of_other = json!({ "user": "ann/0", "job": 1, "state": "open" });
    assert_eq!(jobs("ann"), json!([of_ann]));
    assert_eq!(jobs("ann/0"), json!([of_other]));
    assert_eq!(jobs("eve"), json!([]));
    assert_eq!(jobs("root"), json!([of_ann, of_other]));
    // The refused requests had no effect.
    assert_eq!(next_of(&mut reader, "job-file").event, "job-file");
}

#[test]
fn job_is_stopped_from_another_connection() {
    let server = start();
    let (mut page, _) = stream(&server, "user=ann");
    let job = start_job(&server, "ann", 100_000);
    let mut reader = follow(&server, &job, "ann");
    next_of(&mut reader, "job-file");
    let path = format!("{job}?user=ann");
    // An event for the user comes to the page, and not into the stream of the job.
    assert_eq!(message("m1", &shipped("17")).send(&server), 204);
    assert_eq!(page.frame().event, "order");
    assert_eq!(server.delete(&path).send().status, 202);
    let stopped = rest(reader);
    assert_eq!(
        (stopped.state.as_deref(), stopped.end.as_deref()),
        (Some("stopped"), Some("stopped"))
    );
    assert_eq!(json_of(&page.frame()), json!({ "job": 0, "state": "stopped" }));
    assert_eq!(server.delete(&path).send().status, 410);
    assert_eq!(rest(follow(&server, &job, "ann")).files[..1], files(0, 1..=1));
}

#[test]
fn deactivation_stops_the_jobs_of_the_user() {
    let server = start();
    let (mut admin, _) = stream(&server, "user=root");
    // An ended job does not count.
    let ended = start_job(&server, "ann", 0);
    rest(follow(&server, &ended, "ann"));
    let job = start_job(&server, "ann", 100_000);
    start_job(&server, "ann", 100_000);
    start_job(&server, "annabel", 100_000);
    let mut reader = follow(&server, &job, "ann");
    let last = next_of(&mut reader, "job-file").id.unwrap().to_string();

    let response = server.post("/admin/users/ann/deactivate?user=root").send();
    assert_eq!(response.status, 204);
    let told = next_of(&mut admin, "user-deactivated");
    assert_eq!(json_of(&told), json!({ "user": "ann", "streams": 1, "jobs": 2 }));
    // The stream ends as the other streams of the user do.
    next_of(&mut reader, "account-closed");
    let end = reader.frame();
    assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("deactivated")));
    assert_eq!(reader.next_frame(), None);

    let jobs = || server.get("/jobs?user=root").send().json();
    let job =
        |user: &str, job: u32, state: &str| json!({ "user": user, "job": job, "state": state });
    let expected = json!([
        job("ann", 0, "finished"),
        job("ann", 1, "stopped"),
        job("ann", 2, "stopped"),
        job("annabel", 3, "open"),
    ]);
    let began = Instant::now();
    while jobs() != expected {
        assert!(began.elapsed() < DEADLINE, "the jobs must stop: {}", jobs());
    }

    let back = server.get("/jobs/1/events?user=ann").header("last-event-id", &last).send();
    assert_eq!((back.status, back.header("content-type")), (204, None));
    assert_eq!(server.post("/jobs?user=ann").json(&json!({ "rows": 1 })).status, 403);
    assert_eq!(server.delete("/jobs/1?user=ann").send().status, 403);
    assert_eq!(server.get("/jobs?user=ann").send().status, 403);
    assert_eq!(jobs(), expected, "a refused start must not start a job");
}

#[test]
fn deactivated_user_is_stopped() {
    let server = start();
    let (mut admin, _) = stream(&server, "user=root");
    let (mut tab, open) = stream(&server, "user=ann");
    let (mut phone, _) = stream(&server, "user=ann");
    let (mut bob, _) = stream(&server, "user=bob");
    // Each user is announced once, independent of the number of streams.
    for name in ["root", "ann", "bob"] {
        let frame = admin.frame();
        assert_eq!(frame.event, "user-changed");
        assert_eq!(json_of(&frame), json!({ "user": name, "online": true }));
    }
    let online = server.get("/admin/online?user=root").send().json();
    let expected = json!([
        { "user": "ann", "streams": 2 },
        { "user": "bob", "streams": 1 },
        { "user": "root", "streams": 1 },
    ]);
    assert_eq!(online, expected);

    let response = server.post("/admin/users/ann/deactivate?user=root").send();
    assert_eq!(response.status, 204);
    for stream in [&mut tab, &mut phone] {
        assert_eq!(stream.frame().event, "account-closed");
        let end = stream.frame();
        assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("deactivated")));
        assert_eq!(stream.next_frame(), None);
    }
    let told = admin.frame();
    assert_eq!(told.event, "user-deactivated");
    assert_eq!(json_of(&told), json!({ "user": "ann", "streams": 2, "jobs": 0 }));
    let left = admin.frame();
    assert_eq!(json_of(&left), json!({ "user": "ann", "online": false }), "after the grace");

    // A browser reconnects, and is stopped.
    let back =
        server.get("/events?user=ann").header("last-event-id", &open.id.unwrap().to_string());
    let back = back.send();
    assert_eq!((back.status, back.header("content-type")), (204, None));
    let online = server.get("/admin/online?user=root").send().json();
    assert_eq!(online.as_array().unwrap().len(), 2);

    // Other users received no event of this, and stay connected.
    let shipped = json!({ "user": "bob", "order": "17", "state": "shipped" });
    assert_eq!(message("m1", &shipped).send(&server), 204);
    assert_eq!(bob.frame().event, "order");
}

#[test]
fn only_admins_manage_users() {
    let mut server = start();
    let (mut ann, _) = stream(&server, "user=ann");
    assert_eq!(server.get("/admin/online?user=ann").send().status, 403);
    assert_eq!(server.get("/admin/online").send().status, 401);
    assert_eq!(server.post("/admin/users/ann/deactivate?user=eve").send().status, 403);
    assert_eq!(server.get("/events").send().status, 401);
    // Her stream is open until the server stops.
    server.interrupt();
    let end = ann.frame();
    assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("drained")));
    assert!(server.exit().success());
}
