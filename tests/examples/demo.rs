//! The server of the demo: odd requests and arguments.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::server::{Server, program};

#[test]
fn foreign_host_reaches_no_json_endpoint() {
    let server = Server::start("demo");
    let port = server.address.port();
    let foreign = [
        "host: evil.example".to_owned(),
        format!("host: evil.example:{port}"),
        format!("host: localhost.evil.example:{port}"),
        format!("host: 127.0.0.1.evil.example:{port}"),
        format!("host: localhost@evil.example:{port}"),
        format!("host: 127.0.0.2:{port}"),
        "host: 0.0.0.0".to_owned(),
        "host: ".to_owned(),
        format!("host: localhost\r\nhost: evil.example:{port}"),
        "x-no-host: 1".to_owned(),
    ];
    let kick = json!({ "user": "ann" });
    for host in &foreign {
        for path in ["/api/stats", "/api/users"] {
            let status = server.get(path).host(host).send().status;
            assert!(matches!(status, 400 | 403), "{status} for {path} with {host}");
        }
        for path in ["/api/kick", "/api/token", "/api/drain"] {
            let status = server.post(path).host(host).json(&kick).status;
            assert!(matches!(status, 400 | 403), "{status} for {path} with {host}");
        }
    }
    assert_eq!(server.get("/api/stats").send().json()["opened"], 0);
    for host in ["localhost", "LocalHost:1", "127.0.0.1", "[::1]:3000"] {
        let host = format!("host: {host}");
        assert_eq!(server.get("/api/stats").host(&host).send().status, 200, "{host}");
        drop(server.get("/events").host(&host).send().opened());
    }
}

#[test]
fn odd_query_does_not_end_an_event_source() {
    let server = Server::start("demo");
    let queries = [
        "topics=,,,",
        "topics=",
        "topics=,%20,a,,",
        "user=",
        "user=ann&user=bob",
        "user=&user=",
        "user=ann&user=",
        "session=&session=s",
        "client=nobody&client=",
        "events=",
        "events=,,&events=a",
        "topics=a&topics=b&user=ann&user=ann&session=s&session=s",
        "unknown=1&=&&",
        "%FF=%FF",
    ];
    for query in queries {
        let (_, open) = server.get(&format!("/events?{query}")).send().opened();
        assert!(open.data.contains("\"resumed\":false"), "{query}");
    }
    // Of a repeated name the last value counts.
    let (mut stream, _) = server.get("/events?user=ann&user=bob").send().opened();
    let notice = json!({ "to": { "kind": "user", "name": "bob" }, "title": "a", "message": "b" });
    assert_eq!(server.post("/api/notify").json(&notice).status, 200);
    while stream.frame().event != "notification" {}
}

#[test]
fn time_without_end_is_an_error() {
    let times = ["1e18", "1e300", "inf", "NaN", "-1", "31536001", "1e9", "x", ""];
    for (name, time) in
        ["--login", "--heartbeat"].into_iter().flat_map(|name| times.map(|time| (name, time)))
    {
        let mut process = Command::new(program("demo"))
            .args(["--port", "0", name, time])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The output ends with the process, or with the address, which must not be printed.
        let mut printed = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut printed).unwrap();
        let _ = process.kill();
        let output = process.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((printed.as_str(), output.status.code()), ("", Some(1)), "{name} {time}");
        assert!(error.contains(name) && !error.contains("panicked"), "{error}");
    }
    let server = Server::start_program("demo", &[], &["--login", "31536000"]);
    let token = server.post("/api/token").send().json()["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    drop(server.get("/events").header("authorization", &bearer).send().opened());
}
