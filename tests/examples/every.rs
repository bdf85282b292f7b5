//! The promises that every example keeps: an orderly end, `HEAD` without effects, small events at
//! once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Request, Response};
use crate::common;
use crate::server::{DEADLINE, Server};

/// The drain time of the examples, and the time to exit after the drain.
const END: Duration = Duration::from_secs(2 + 5);

const SECRET: &str = "whsec_dGhpcnR5LXR3byBieXRlcyB0aGF0IGFyZSBzZWNyZXQ=";

/// A running example, and the request for a stream.
struct Example {
    server: Server,
    path: &'static str,
    cookie: Option<String>,
}

impl Example {
    fn start(name: &str) -> Self {
        // No Redis listens there: the cluster serves without.
        let variables = [("WEBHOOK_SECRET", SECRET), ("REDIS_URL", "redis://127.0.0.1:9")];
        let server = Server::start_with(name, &variables);
        let path = match name {
            "chat" | "demo" | "backend" => "/events?user=ann",
            "answer" => "/answers/answer-0",
            "jobs" => "/jobs/job-0",
            "dashboard" => "/prices",
            _ => "/events",
        };
        match name {
            "answer" => {
                let question = ["word"; 2_000].join("+");
                assert_eq!(server.post(&format!("/ask?question={question}")).send().status, 201);
            }
            "jobs" => assert_eq!(server.post("/jobs?rows=100000").send().status, 202),
            _ => {}
        }
        let cookie = (name == "auth_cors").then(|| {
            let login = json!({ "user": "ann", "password": "demo" });
            let response = server.post("/login").json(&login);
            let cookie = response.header("set-cookie").expect("a cookie");
            cookie.split(';').next().unwrap().to_owned()
        });
        Self { server, path, cookie }
    }

    fn authorized(&self, request: Request) -> Request {
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    fn stream(&self) -> Response {
        self.authorized(self.server.get(self.path)).send().stream()
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.server.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }
}

/// Asserts that both signals end the streams and then the process, while other connections are
/// open.
fn ends(name: &str) {
    std::thread::scope(|scope| {
        for signal in ["TERM", "INT"] {
            scope.spawn(move || ends_by(name, signal));
        }
    });
}

fn ends_by(name: &str, signal: &str) {
    let mut example = Example::start(name);
    let mut stream = example.stream();
    let partial: Vec<TcpStream> = [
        &b""[..],
        b"\r\n",
        b"GET /events HT",
        b"GET /events HTTP/1.1\r\nhost: a\r\n",
        b"POST /say HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n\r\nhalf",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .into_iter()
    .map(|bytes| {
        let mut socket = example.connect();
        socket.write_all(bytes).unwrap();
        socket
    })
    .collect();
    // A connection that is kept after the response.
    let mut kept = example.connect();
    kept.write_all(b"GET /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
    assert!(kept.read(&mut [0; 1024]).unwrap() > 0);

    let begun = Instant::now();
    example.server.signal(signal);
    let mut last = stream.frame();
    while let Some(frame) = stream.next_frame() {
        last = frame;
    }
    assert_eq!((last.event.as_str(), last.reason()), ("hub:end", Some("drained")), "{signal}");
    assert!(last.retry.is_some(), "{last:?}");
    let status = example.server.exit();
    let took = begun.elapsed();
    assert!(took < END, "{name} ends {took:?} after SIG{signal}");
    // The cluster's events could not be sent without a Redis, which is a failure.
    assert!(status.success() || name == "cluster", "{name}: {status}");
    drop(partial);
}

#[test]
fn axum_ends_in_order() {
    ends("axum");
}

#[test]
fn warp_ends_in_order() {
    ends("warp");
}

#[test]
fn actix_ends_in_order() {
    ends("actix");
}

#[test]
fn hyper_smol_ends_in_order() {
    ends("hyper_smol");
}

#[test]
fn answer_ends_in_order() {
    ends("answer");
}

#[test]
fn jobs_end_in_order() {
    ends("jobs");
}

#[test]
fn auth_cors_ends_in_order() {
    ends("auth_cors");
}

#[test]
fn backend_ends_in_order() {
    ends("backend");
}

#[test]
fn chat_ends_in_order() {
    ends("chat");
}

#[test]
fn dashboard_ends_in_order() {
    ends("dashboard");
}

#[test]
fn demo_ends_in_order() {
    ends("demo");
}

#[cfg(feature = "redis")]
#[test]
fn cluster_ends_in_order() {
    ends("cluster");
}

/// A server can serve its first clients before its shutdown is polled.
#[cfg(unix)]
#[tokio::test]
async fn signal_before_the_first_poll_counts() {
    use tokio::signal::unix::{SignalKind, signal};

    let kinds = [("INT", SignalKind::interrupt()), ("TERM", SignalKind::terminate())];
    // From here on, the signals do not end this process.
    for (name, mut caught) in kinds.map(|(name, kind)| (name, signal(kind).unwrap())) {
        let shutdown = common::shutdown_signal();
        let kill = format!("kill -{name} {}", std::process::id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        caught.recv().await;
        let ends = tokio::time::timeout(DEADLINE, shutdown).await;
        assert!(ends.is_ok(), "SIG{name} is missed");
    }
}

/// Requests that reach a draining server over a kept connection are told to use another.
#[test]
fn refusal_while_draining_ends_its_connection() {
    for name in ["axum", "warp", "actix", "hyper_smol", "backend", "auth_cors", "demo"] {
        let example = Example::start(name);
        let mut kept = example.connect();
        kept.write_all(b"HEAD /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
        assert!(kept.read(&mut [0; 4096]).unwrap() > 0);
        // Some streams, so that the drain takes a while.
        let streams: Vec<_> = (0..20).map(|_| example.stream()).collect();
        example.server.signal("TERM");
        while example.stream().frame().event != "hub:refused" {}

        let cookie = example.cookie.as_deref().unwrap_or("a=b");
        let request =
            format!("GET {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: {cookie}\r\n\r\n", example.path);
        kept.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // The read ends only if the server closes the connection.
        kept.read_to_string(&mut answer).unwrap();
        let answer = answer.to_ascii_lowercase();
        assert!(answer.contains("\r\nconnection: close\r\n"), "{name}: {answer}");
        assert!(answer.contains("event: hub:refused\n"), "{name}: {answer}");
        drop(streams);
    }
}

/// Reads the head of a response and asserts that the response has no body.
fn head(example: &Example, method: &str) -> Vec<String> {
    let mut socket = example.connect();
    let cookie = example.cookie.as_deref().unwrap_or("a=b");
    let request = format!(
        "{method} {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n",
        example.path
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    while method == "HEAD" || !text.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        match socket.read(&mut bytes).unwrap() {
            0 => break,
            read => text.extend(&bytes[..read]),
        }
    }
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    assert!(method != "HEAD" || body.is_empty(), "{text}");
    let mut lines: Vec<_> = head.to_ascii_lowercase().lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("date: "));
    lines.sort();
    lines
}

#[test]
fn head_returns_the_headers_of_the_stream() {
    for name in [
        "axum",
        "warp",
        "actix",
        "hyper_smol",
        "backend",
        "auth_cors",
        "chat",
        "dashboard",
        "demo",
        "answer",
        "jobs",
    ] {
        let example = Example::start(name);
        let of_head = head(&example, "HEAD");
        let of_get = head(&example, "GET");
        let without_framing = |lines: &[String]| {
            let mut lines = lines.to_vec();
            // How the body is framed need not be told without a body.
            lines.retain(|line| line != "transfer-encoding: chunked");
            lines
        };
        assert_eq!(without_framing(&of_head), without_framing(&of_get), "{name}");
        assert!(of_head.iter().any(|line| line == "content-type: text/event-stream"), "{name}");
        assert!(!of_head.iter().any(|line| line.starts_with("content-length")), "{of_head:?}");
        if name == "auth_cors" {
            let anonymous = Example { cookie: None, ..example };
            assert!(
                head(&anonymous, "HEAD")[0..].iter().any(|line| line.ends_with("401 unauthorized"))
            );
        }
    }
}

#[test]
fn head_announces_no_user_in_the_demo() {
    let example = Example::start("demo");
    let opened = || example.server.get("/api/stats").send().json()["opened"].as_u64().unwrap();
    let users = || example.server.get("/api/users").send().json();
    for path in ["/events?user=eve", "/events?user=eve&user=eve&topics=,,,", "/events"] {
        let mut socket = example.connect();
        let request =
            format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!((opened(), users()), (0, json!([])), "{path}");
    }
}

/// Without `TCP_NODELAY`, the second of two small events waits until the client has acknowledged
/// the first, which a client delays by 40 ms.
#[cfg(target_os = "linux")]
fn sends_small_events_at_once(name: &str, say: impl Fn(&Example)) {
    use socket2::SockRef;

    let example = Example::start(name);
    let mut stream = example.stream();
    assert_eq!(stream.frame().event, "hub:open");
    let mut gaps = Vec::new();
    for _ in 0..15 {
        SockRef::from(stream.socket()).set_tcp_quickack(false).unwrap();
        say(&example);
        say(&example);
        stream.frame();
        SockRef::from(stream.socket()).set_tcp_quickack(false).unwrap();
        let first = Instant::now();
        stream.frame();
        gaps.push(first.elapsed());
    }
    gaps.sort_unstable();
    let median = gaps[gaps.len() / 2];
    println!("{name}: the second event comes {median:?} after the first");
    assert!(median < Duration::from_millis(25), "{name}: {gaps:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn small_events_do_not_wait() {
    for name in ["axum", "warp", "actix", "hyper_smol"] {
        sends_small_events_at_once(name, |example| {
            assert_eq!(example.server.post("/say").body("x").status, 200);
        });
    }
    sends_small_events_at_once("auth_cors", |example| {
        let note = example.authorized(example.server.post("/note"));
        assert_eq!(note.json(&json!({ "text": "x" })).status, 204);
    });
    sends_small_events_at_once("demo", |example| {
        let alert = json!({ "level": "info", "message": "x" });
        assert_eq!(example.server.post("/api/alert").json(&alert).status, 200);
    });
}
