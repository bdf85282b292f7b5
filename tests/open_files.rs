//! A server at the limit of open files. A binary of its own, because the limit is the process's.
#![cfg(all(feature = "serve", target_os = "linux"))]

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

const DEADLINE: Duration = Duration::from_secs(30);

/// The messages of the crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        if event.metadata().target() == "sse_hub" {
            let mut message = Message(String::new());
            event.record(&mut message);
            let line = format!("{} {}", event.metadata().level(), message.0);
            self.0.lock().unwrap().push(line);
        }
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Opens files until the limit.
fn fill() -> Vec<File> {
    let mut files = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(24), "EMFILE");
                return files;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn server_waits_for_open_files_and_recovers() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let (_, hard) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
    rlimit::setrlimit(rlimit::Resource::NOFILE, 64.min(hard), hard).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    client.set_nonblocking(true).unwrap();

    let files = fill();
    let app = Router::new().route("/hello", get(async || "hello"));
    tokio::spawn(sse_hub::serve(listener, app).into_future());
    let begun = Instant::now();
    while log.lines().is_empty() {
        assert!(begun.elapsed() < DEADLINE, "the failure is not logged");
        tokio::task::yield_now().await;
    }
    // Many attempts, but one message.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(log.lines(), ["WARN connections are not accepted"]);
    let error = client.read(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    drop(files);
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert!(begun.elapsed() < DEADLINE, "the server does not recover");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut bytes = [0; 1024];
        match client.read(&mut bytes) {
            Ok(count) => answer.extend(&bytes[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    let expected = ["WARN connections are not accepted", "INFO connections are accepted again"];
    assert_eq!(log.lines(), expected);
}
