//! The recipes work, and refuse misuse.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

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

/// Returns the client id of `hub:open`.
fn client_of(open: &Frame) -> String {
    json_of(open)["client"].as_str().unwrap().to_owned()
}

#[test]
fn job_reports_only_to_its_page() {
    let server = start();
    let (mut page, open) = stream(&server, "user=ann");
    let (mut other, _) = stream(&server, "user=ann");
    let client = client_of(&open);

    let export = json!({ "client": client, "rows": 20 });
    let started = server.post("/jobs?user=ann").json(&export);
    assert_eq!(started.status, 202);
    let job = started.json()["job"].clone();
    let mut last = 0;
    let done = loop {
        let frame = page.frame();
        if frame.event != "job-progress" {
            break frame;
        }
        let progress = json_of(&frame);
        assert_eq!(progress["job"], job);
        let percent = progress["percent"].as_u64().unwrap();
        assert!(percent > last, "{percent} after {last}");
        last = percent;
    };
    assert_eq!(last, 100);
    assert_eq!(
        (done.event.as_str(), json_of(&done)),
        ("job-done", json!({ "job": job, "rows": 20 }))
    );

    // The next event of the other page is not from the job.
    assert_eq!(message("m1", &shipped("17")).send(&server), 204);
    assert_eq!(other.frame().event, "order");

    // Another user with the id of the page must not send to the page.
    assert_eq!(server.post("/jobs?user=eve").json(&export).status, 409);
    let garbage = json!({ "client": "nobody", "rows": 1 });
    assert_eq!(server.post("/jobs?user=ann").json(&garbage).status, 400);
}

#[test]
fn returning_page_gets_the_newest_progress() {
    let server = start();
    let (page, open) = stream(&server, "user=ann");
    let (client, last) = (client_of(&open), open.id.unwrap());
    let export = json!({ "client": client, "rows": 20 });
    assert_eq!(server.post("/jobs?user=ann").json(&export).status, 202);
    drop(page);

    // Another page waits for a longer job, so that the first job ends before.
    let (mut clock, open) = stream(&server, "user=ann");
    let export = json!({ "client": client_of(&open), "rows": 60 });
    assert_eq!(server.post("/jobs?user=ann").json(&export).status, 202);
    while clock.frame().event != "job-done" {}
    // A page keeps the client id after the server has noticed the lost connection.
    let began = Instant::now();
    while server.get("/admin/online?user=root").send().json()[0]["streams"] != 1 {
        assert!(began.elapsed() < DEADLINE, "the server must notice the lost connection");
    }

    let query = format!("user=ann&client={client}&lastEventId={last}");
    let (mut back, open) = stream(&server, &query);
    assert_eq!(client_of(&open), client, "the page must keep its client id");
    let progress = back.frame();
    assert_eq!(
        (progress.event.as_str(), &json_of(&progress)["percent"]),
        ("job-progress", &json!(100))
    );
    assert_eq!(back.frame().event, "job-done");
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
    assert_eq!(json_of(&told), json!({ "user": "ann", "streams": 2 }));
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
