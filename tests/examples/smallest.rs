//! The same server on four frameworks.

use std::fs;

use crate::server::{Server, program};

/// What every one of them does, and the stream that is still open.
fn works(server: &Server) -> crate::client::Response {
    let (mut page, open) = server.get("/events").send().opened();
    assert!(open.data.contains("\"resumed\":false"), "{open:?}");
    let (mut other, _) = server.get("/events").send().opened();

    let said = server.post("/say").body("hello\nyou");
    assert_eq!((said.status, said.text().as_str()), (200, "2 listen\n"));
    let first = page.frame();
    assert_eq!((first.event.as_str(), first.data.as_str()), ("said", "helloyou"));
    assert!(first.id > open.id);
    assert_eq!(other.frame(), first);

    // A page that was cut off goes on where it was: by its header, or by the query if it cannot set one.
    drop(page);
    assert_eq!(server.post("/say").body("missed").status, 200);
    let last = first.id.unwrap().to_string();
    let by_header = server.get("/events").header("Last-Event-ID", &last);
    let by_query = server.get(&format!("/events?lastEventId={last}"));
    for request in [by_header, by_query] {
        let (mut back, open) = request.send().opened();
        assert!(open.data.contains("\"resumed\":true"), "{open:?}");
        assert_eq!(back.frame().data, "missed");
    }
    // What no hub wrote is a gap, and never an error page.
    let request = server.get("/events").header("Last-Event-ID", "\u{e9}\u{e9}");
    let (mut lost, _) = request.send().opened();
    let gap = lost.frame();
    assert_eq!((gap.event.as_str(), gap.reason()), ("hub:gap", "unknown"));

    assert_eq!(server.get("/nowhere").send().status, 404);
    assert_eq!(other.frame().data, "missed");
    other
}

/// Ends its streams before itself at ctrl-c, and well.
fn drains(example: &str) {
    let mut server = Server::start(example);
    let mut page = works(&server);
    server.interrupt();
    let end = page.frame();
    assert_eq!((end.event.as_str(), end.reason()), ("hub:end", "drained"));
    assert!(end.retry.is_some(), "it is told when to come back: {end:?}");
    assert_eq!(page.next_frame(), None);
    assert!(server.exit().success());
}

#[test]
fn axum() {
    drains("axum");
}

#[test]
fn warp() {
    drains("warp");
}

#[test]
fn actix() {
    drains("actix");
}

#[test]
fn hyper_on_smol_works_and_sends_heartbeats_without_a_tokio_runtime() {
    let server = Server::start("hyper_smol");
    let mut page = works(&server);
    // The timer is the example's own, and goes off again and again.
    page.heartbeat();
    page.heartbeat();

    // There is no thread of one, while another example has them ...
    let tokios = |server: &Server| {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
        let names =
            tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        let (tokios, others): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("tokio"));
        assert!(!others.is_empty(), "the main thread is there");
        tokios
    };
    assert_eq!(tokios(&server), [""; 0]);
    let on_tokio = Server::start("axum");
    assert_ne!(tokios(&on_tokio), [""; 0]);

    // ... and nothing that could start one was linked: the builder, which makes every kind, names its threads.
    let builds = |example| {
        let program = fs::read(program(example)).unwrap();
        memchr::memmem::find(&program, b"tokio-rt-worker").is_some()
    };
    assert!(!builds("hyper_smol"));
    // Many threads, and one.
    assert!(builds("axum") && builds("actix"));
}
