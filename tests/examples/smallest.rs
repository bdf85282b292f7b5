//! The smallest servers, on four frameworks.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{Server, program};

/// Tests the behaviour that all four share. Returns a stream that is still open.
fn works(server: &Server) -> crate::client::Response {
    let (mut page, open) = server.get("/events").send().opened();
    assert!(open.data.contains("\"resumed\":false"), "{open:?}");
    let (mut other, _) = server.get("/events").send().opened();

    let said = server.post("/say").body("hello\nyou");
    assert_eq!((said.status, said.text().as_str()), (200, "2 listen\n"));
    let first = page.frame();
    assert_eq!((first.event.as_str(), first.data.as_str()), ("said", "hello\nyou"));
    assert!(first.id > open.id);
    assert_eq!(other.frame(), first);

    // A page that lost the connection resumes by the header, or by the query without a header.
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
    // An id that no hub wrote becomes a gap, and never an error page.
    let request = server.get("/events").header("Last-Event-ID", "\u{e9}\u{e9}");
    let (mut lost, _) = request.send().opened();
    let gap = lost.frame();
    assert_eq!((gap.event.as_str(), gap.reason()), ("hub:gap", Some("unknown")));

    assert_eq!(server.get("/nowhere").send().status, 404);
    assert_eq!(other.frame().data, "missed");
    other
}

#[test]
fn axum() {
    works(&Server::start("axum"));
    works(&Server::start_program("axum", &[], &["--via", "axum"]));
}

#[test]
fn warp() {
    works(&Server::start("warp"));
}

#[test]
fn actix() {
    works(&Server::start("actix"));
}

#[test]
fn hyper_on_smol_runs_without_tokio() {
    let server = Server::start("hyper_smol");
    let mut page = works(&server);
    // The timer of the example fires repeatedly.
    page.heartbeat();
    page.heartbeat();

    // The process has no thread of tokio, and another example has some.
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

    // The program contains no code that could start a runtime: the builder would name the threads.
    let builds = |example| {
        let program = fs::read(program(example)).unwrap();
        memchr::memmem::find(&program, b"tokio-rt-worker").is_some()
    };
    assert!(!builds("hyper_smol"));
    // Runtimes with many threads, and with a single thread.
    assert!(builds("axum") && builds("actix"));
}

/// actix-web must notice a client that closes the connection without a write. The system shows the
/// result: the server's socket must not stay half-closed.
#[cfg(target_os = "linux")]
#[test]
fn actix_notices_a_disconnected_client() {
    let server = Server::start("actix");
    let (stream, _) = server.get("/events").send().opened();
    let ends = format!(
        ":{:04X} 0100007F:{:04X} ",
        server.address.port(),
        stream.socket().local_addr().unwrap().port()
    );
    let is_there = || {
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().any(|line| line.contains(&ends))
    };
    assert!(is_there());
    drop(stream);
    let begun = Instant::now();
    while is_there() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the server keeps its end open");
        thread::sleep(Duration::from_millis(5));
    }
}
