//! A page that loses the connection repeatedly.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use sse_hub::{Event, EventId, Hub};

use super::{Client, DEADLINE, eventually};

/// Everything that a page received over the connections of an `EventSource`.
#[derive(Default)]
pub(crate) struct Followed {
    pub(crate) seen: Vec<Seen>,
    pub(crate) cuts: usize,
    pub(crate) cuts_within_frames: usize,
}

pub(crate) enum Seen {
    Open { resumed: bool },
    Gap { id: EventId },
    Event { number: u64, id: EventId },
}

impl Followed {
    /// Publishes `total` numbered events on another thread, while the page's connection is cut
    /// after up to `longest` bytes each time, head included. `away` returns how many events are
    /// published before the page reconnects.
    pub(crate) async fn follow(
        hub: &Hub,
        address: SocketAddr,
        total: u64,
        longest: u64,
        away: impl Fn(&mut Chance) -> u64,
    ) -> Self {
        let mut chance = Chance::new();
        let (allow, allowed) = mpsc::channel::<u64>();
        let publishing = hub.clone();
        let publisher = thread::spawn(move || {
            let numbers = (0..).zip(allowed.into_iter().flat_map(|count| 0..count));
            for (number, _) in numbers {
                publishing.send_to_user("ann", Event::new("n").data(number.to_string())).unwrap();
            }
        });

        let mut followed = Self::default();
        let mut page = EventSource::default();
        let mut allowed = 0;
        let mut next = 0;
        while next < total {
            // A page without a frame has no position to resume from, so the first connection must
            // deliver a frame.
            let first = if page.last_event_id.is_empty() { 1_000 } else { 0 };
            let budget = usize::try_from(first + chance.below(longest)).unwrap();
            page.reconnect();
            let last = Some(page.last_event_id.as_bytes()).filter(|last| !last.is_empty());
            let client = Client::get(address, "/events?user=ann", last, budget).await;
            if let Some(mut client) = client {
                assert_eq!(client.head.status, "HTTP/1.1 200 OK");
                loop {
                    for seen in page.read(&std::mem::take(&mut client.body)) {
                        if let Seen::Event { number, .. } = seen {
                            next = number + 1;
                        }
                        followed.seen.push(seen);
                    }
                    if next == total {
                        break;
                    }
                    if next == allowed && !page.last_event_id.is_empty() {
                        let count = (1 + chance.below(300)).min(total - allowed);
                        allow.send(count).unwrap();
                        allowed += count;
                    }
                    if !client.more().await {
                        break;
                    }
                }
            }
            followed.cuts += 1;
            followed.cuts_within_frames += usize::from(!page.is_between_frames());
            let count = away(&mut chance).min(total - allowed);
            allow.send(count).unwrap();
            allowed += count;
            eventually(DEADLINE, "all is published", || hub.stats().published == allowed).await;
        }
        drop(allow);
        publisher.join().unwrap();
        followed
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Event { number, .. } => Some(*number),
            _ => None,
        })
    }
}

/// Interprets a stream with LF line ends as section 9.2.6 of the HTML standard requires.
#[derive(Default)]
pub(crate) struct EventSource {
    /// The last event ID string. Outlives the connection, and changes only with a whole event.
    pub(crate) last_event_id: String,
    line: Vec<u8>,
    event: String,
    data: String,
    pub(crate) id: String,
}

impl EventSource {
    pub(crate) fn reconnect(&mut self) {
        *self = Self {
            last_event_id: self.last_event_id.clone(),
            id: self.last_event_id.clone(),
            ..Self::default()
        };
    }

    pub(crate) fn is_between_frames(&self) -> bool {
        self.line.is_empty() && self.event.is_empty() && self.data.is_empty()
    }

    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
            if line.is_empty() {
                seen.extend(self.dispatch());
                continue;
            }
            match line.split_once(": ") {
                Some(("event", value)) => self.event = value.to_owned(),
                Some(("data", value)) => self.data.push_str(value),
                Some(("id", value)) => self.id = value.to_owned(),
                Some(("retry", _)) => {}
                _ => panic!("a stray line: {line:?}"),
            }
        }
        seen
    }

    pub(crate) fn dispatch(&mut self) -> Option<Seen> {
        self.last_event_id.clone_from(&self.id);
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        let id = self.id.parse().unwrap();
        match event.as_str() {
            "hub:open" => Some(Seen::Open { resumed: data.contains("\"resumed\":true") }),
            "hub:gap" => Some(Seen::Gap { id }),
            "n" => Some(Seen::Event { number: data.parse().unwrap(), id }),
            _ => panic!("a stray event: {event:?}"),
        }
    }
}

/// Numbers that differ in each run.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new() -> Self {
        let seed = RandomState::new().build_hasher().finish() | 1;
        // Printed if the test fails.
        println!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // Xorshift. The high bits are of better quality.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}
