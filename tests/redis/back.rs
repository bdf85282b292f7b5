//! Events for clients that come back, and the number of reads that Redis served for them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sse_hub::{Audience, Event, EventId, HubBuilder};
use tokio::time::timeout;

use crate::load::Instance;
use crate::server::{DEADLINE, Server};

/// Publishes events `1`, `2`... and returns their ids.
pub(crate) async fn publish(instance: &Instance, events: usize, topics: usize) -> Vec<EventId> {
    let mut waiting = Vec::new();
    let mut ids = Vec::new();
    for number in 1..=events {
        let audience = match topics {
            0 => Audience::all(),
            topics => Audience::topic((number % topics).to_string()),
        };
        let event = Event::new("n").data(number.to_string());
        waiting.push(instance.hub.publish_confirmed(audience, event).unwrap());
        if waiting.len() == 1_000 || number == events {
            for confirmation in waiting.drain(..) {
                ids.push(timeout(DEADLINE, confirmation).await.expect("in time").unwrap());
            }
        }
    }
    ids
}

pub(crate) async fn ready(url: &str, set: impl FnOnce(HubBuilder) -> HubBuilder) -> Instance {
    let instance = Instance::with(url, |redis| redis, set);
    timeout(DEADLINE, instance.backplane.ready()).await.expect("Redis answers");
    instance
}

/// Counts how often a server was asked for a range of the stream, from the newest entry back.
pub(crate) struct Reads {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    reads: u64,
    /// The newest marker of [`Reads::count`] that came by.
    marker: u64,
}

impl Reads {
    /// Watches the commands of the server. The thread ends with the server.
    pub(crate) fn of(server: &Server) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        let counted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines {
                let mut seen = counted.lock().unwrap();
                // The script, and not the commands that it runs.
                let is_script = line.contains("\"EVAL");
                seen.reads += u64::from(is_script && line.contains("\"XREVRANGE\""));
                let marker = line.split_once("\"ECHO\" \"marker-").map(|(_, rest)| rest);
                if let Some(marker) = marker.and_then(|rest| rest.strip_suffix('"')) {
                    seen.marker = marker.parse().unwrap();
                }
            }
        });
        Self { seen }
    }

    /// Returns the number of reads until now.
    pub(crate) fn count(&self, server: &Server) -> u64 {
        static MARKERS: AtomicU64 = AtomicU64::new(1);
        let marker = MARKERS.fetch_add(1, Ordering::Relaxed);
        let _: String = server.run(&format!("ECHO marker-{marker}"));
        let start = Instant::now();
        loop {
            let seen = self.seen.lock().unwrap();
            if seen.marker >= marker {
                return seen.reads;
            }
            drop(seen);
            assert!(start.elapsed() < DEADLINE, "the monitor is behind");
            std::thread::yield_now();
        }
    }
}
