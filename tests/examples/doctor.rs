//! The example `doctor` as a program: its arguments, its report and its exit status.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output};

use crate::server::{Server, program};

fn doctor(arguments: &[&str]) -> Output {
    Command::new(program("doctor")).args(arguments).output().expect("the example is built")
}

/// Returns the report, if the exit status is as expected.
#[track_caller]
fn report(code: i32, arguments: &[&str]) -> String {
    let output = doctor(arguments);
    let [text, errors] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    assert_eq!(code == 2, text.is_empty() && !errors.is_empty(), "{text}{errors}");
    format!("{text}{errors}")
}

#[test]
fn sound_stream_exits_with_0() {
    let demo = Server::start_program("demo", &[], &["--heartbeat", "0.2"]);
    let url = format!("http://{}/events?user=ann", demo.address);
    let text = report(0, &[&url]);
    assert!(text.ends_with("\nno fault\n"), "{text}");
    for line in ["first frame    ok ", "timeouts       ok ", "resume         ok "] {
        assert!(text.contains(line), "{text}");
    }
    // Without a known proxy, an advice has the lines of all.
    assert!(text.contains(" nginx    listen 443 ssl http2;\n"), "{text}");
    // The host of the URL need not have an address.
    let elsewhere = demo.address.to_string();
    let text = report(0, &["http://localhost:1/events?user=ann", "--connect", &elsewhere]);
    assert!(text.ends_with("\nno fault\n"), "{text}");
}

#[test]
fn fault_exits_with_1() {
    let demo = Server::start("demo");
    let url = format!("http://{}", demo.address);
    let text = report(1, &[&url]);
    assert!(text.contains("titled \"sse-hub demo\"") && text.ends_with("\n1 fault\n"), "{text}");
    let text = report(1, &[&format!("{url}/nowhere")]);
    assert!(text.contains("404 Not Found"), "{text}");
    let text = report(1, &[&format!("https://{}/events", demo.address)]);
    assert!(text.contains("the URL must be http"), "{text}");
}

#[test]
fn header_carries_the_proof() {
    let demo = Server::start_program("demo", &[], &["--heartbeat", "0.2", "--login", "600"]);
    let url = format!("http://{}/events?user=ann", demo.address);
    let text = report(1, &[&url]);
    assert!(text.contains("401 Unauthorized") && text.contains("--header"), "{text}");
    let token = demo.post("/api/token").json(&serde_json::json!({})).json();
    let header = format!("authorization: Bearer {}", token["token"].as_str().unwrap());
    report(0, &[&url, "--header", &header]);
}

#[test]
fn nothing_to_examine_exits_with_2() {
    // The port is free again.
    let address =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()).unwrap();
    let text = report(2, &[&format!("http://{address}/events")]);
    assert!(text.contains("cannot connect"), "{text}");
    let url = "http://127.0.0.1/events";
    for arguments in [
        &[][..],
        &["ftp://127.0.0.1/events"],
        &["/events"],
        &[url, "--for", "soon"],
        &[url, "--for", "-1s"],
        &[url, "--for"],
        &[url, "--header", "a b: c"],
        &[url, "--origin", "a\nb"],
        &[url, "--unknown", "x"],
        &["https://127.0.0.1/events", "--ca", "no-such-file"],
    ] {
        report(2, arguments);
    }
}
