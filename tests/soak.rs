//! Eight threads that publish, connect, read, stall, join, leave and reconnect at random.
//!
//! Runs for two seconds, or for `SSE_HUB_SOAK_SECONDS` seconds. Each event contains its publisher
//! and the publisher's number in the topic. A follower must see each publisher's numbers without a
//! hole, except directly after a gap.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{
    Audience, EndReason, Event, EventId, Goodbye, Hub, ManualTimer, Retain, Subscriber,
    Subscription,
};

const THREADS: u64 = 8;
const TOPICS: u64 = 6;
const CLIENTS: usize = 40;
const AGE: Duration = Duration::from_secs(600);

#[test]
fn soak_loses_and_repeats_no_event() {
    let seconds = std::env::var("SSE_HUB_SOAK_SECONDS").map_or(2, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let timer = ManualTimer::new();
    let retain = Retain::default().events(2_000).per_topic(500).age(AGE);
    let hub = Hub::builder(timer.clone())
        .retain(retain)
        .window(8)
        .stalled_after(Duration::from_secs(30))
        .build()
        .unwrap();

    let seen: Vec<Seen> = thread::scope(|scope| {
        let threads = (0..THREADS).map(|number| {
            let (hub, timer) = (hub.clone(), timer.clone());
            scope.spawn(move || Worker::new(number, hub, timer).run(until))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    let total = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>();
    let stats = hub.stats();
    println!(
        "soak of {seconds} s: {} published, {} delivered, {} gaps, {} resumed, {} stalled, {} lagged",
        stats.published,
        total(|seen| seen.events),
        total(|seen| seen.gaps),
        total(|seen| seen.resumed),
        stats.ended(EndReason::Stalled),
        stats.lagged,
    );
    assert!(total(|seen| seen.events) > 1000 && total(|seen| seen.resumed) > 10);
    assert_eq!((stats.clients, stats.client_names), (0, 0));
    timer.advance(AGE);
    drop(hub.subscribe(Subscriber::new()).unwrap());
    let stats = hub.stats();
    assert_eq!((stats.retained, stats.retained_bytes, stats.retained_names), (0, 0, 0));
}

#[derive(Default)]
struct Seen {
    events: u64,
    gaps: u64,
    resumed: u64,
}

struct Worker {
    number: u64,
    hub: Hub,
    timer: ManualTimer,
    random: u64,
    /// The number of events sent to each topic.
    sent: [u64; TOPICS as usize],
    pages: Vec<Page>,
    seen: Seen,
}

/// A page in a browser. It keeps its state when the connection ends.
#[derive(Default)]
struct Page {
    stream: Option<Subscription>,
    last: Option<EventId>,
    /// The next number of each publisher in each topic, once the page has seen an event of both.
    next: HashMap<(u64, u64), u64>,
    topics: Vec<u64>,
    /// The first event of each joined topic that was certainly published after the join.
    joined: HashMap<u64, EventId>,
    /// The number of reads to skip.
    stalls_for: u64,
}

impl Worker {
    fn new(number: u64, hub: Hub, timer: ManualTimer) -> Self {
        let pages = (0..CLIENTS).map(|_| Page::default()).collect();
        let random = 0x9E37_79B9_7F4A_7C15 ^ (number + 1);
        Self {
            number,
            hub,
            timer,
            random,
            sent: [0; TOPICS as usize],
            pages,
            seen: Seen::default(),
        }
    }

    /// xorshift64. The schedule also depends on the threads, so a better generator would not make
    /// runs repeatable.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn run(mut self, until: Instant) -> Seen {
        while Instant::now() < until {
            let page = self.random(CLIENTS as u64) as usize;
            match self.random(100) {
                0..40 => self.publish(),
                40..75 => self.read(page),
                75..85 => self.connect(page),
                85..89 => self.pages[page].stream = None,
                89..93 => self.join(page),
                93..96 => self.leave(page),
                96..98 => self.pages[page].stalls_for = 1 + self.random(2000),
                98 if self.number == 0 => {
                    self.timer.advance(Duration::from_millis(self.random % 2000))
                }
                _ => {
                    let disconnected =
                        self.pages[page].stream.as_ref().map(Subscription::client_id);
                    if let Some(client) = disconnected {
                        self.hub
                            .disconnect(Audience::client(client), Goodbye::from_static("soak"))
                            .unwrap();
                    }
                }
            }
        }
        for page in 0..CLIENTS {
            self.pages[page].stalls_for = 0;
            self.read(page);
        }
        self.pages.clear();
        self.seen
    }

    fn publish(&mut self) {
        let topic = self.random(TOPICS);
        self.publish_to(topic);
    }

    fn publish_to(&mut self, topic: u64) -> EventId {
        let count = self.sent[topic as usize];
        self.sent[topic as usize] += 1;
        let event = Event::new("soak").data(format!("{topic} {} {count}", self.number));
        self.hub.publish_confirmed(Audience::topic(topic.to_string()), event).unwrap().id().unwrap()
    }

    fn connect(&mut self, page: usize) {
        let page = &mut self.pages[page];
        if page.stream.is_some() {
            return;
        }
        if page.topics.is_empty() {
            page.topics.push(page.next.len() as u64 % TOPICS);
        }
        let topics = page.topics.iter().map(u64::to_string);
        let mut subscriber = Subscriber::new().topics(topics);
        match page.last {
            Some(last) => subscriber = subscriber.resume(last),
            None => page.next.clear(),
        }
        let stream = self.hub.subscribe(subscriber).unwrap();
        self.seen.resumed += u64::from(stream.is_resumed());
        page.stream = Some(stream);
    }

    fn join(&mut self, page: usize) {
        let topic = self.random(TOPICS);
        let Some(stream) = &self.pages[page].stream else { return };
        if self
            .hub
            .join(Audience::client(stream.client_id()), topic.to_string())
            .map(|clients| clients.changed)
            == Ok(1)
        {
            let first = self.publish_to(topic);
            let page = &mut self.pages[page];
            page.topics.push(topic);
            page.joined.insert(topic, first);
        }
    }

    fn leave(&mut self, page: usize) {
        let topic = self.random(TOPICS);
        let page = &mut self.pages[page];
        let Some(stream) = &page.stream else { return };
        if self
            .hub
            .leave(Audience::client(stream.client_id()), topic.to_string())
            .map(|clients| clients.changed)
            == Ok(1)
        {
            page.topics.retain(|&followed| followed != topic);
            page.next.retain(|&(of, _), _| of != topic);
        }
    }

    fn read(&mut self, page: usize) {
        let page = &mut self.pages[page];
        page.stalls_for = page.stalls_for.saturating_sub(1);
        if page.stalls_for > 0 {
            return;
        }
        while let Some(stream) = &mut page.stream {
            match stream.next().now_or_never() {
                None => return,
                Some(None) => page.stream = None,
                Some(Some(item)) => page.take(std::str::from_utf8(&item).unwrap(), &mut self.seen),
            }
        }
    }
}

impl Page {
    fn take(&mut self, item: &str, seen: &mut Seen) {
        for frame in item.split_inclusive("\n\n") {
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
            let id = field("id: ").map(|id| id.parse::<EventId>().unwrap());
            match field("event: ").unwrap_or_default() {
                "hub:open" => self.last = id,
                "hub:gap" => {
                    seen.gaps += 1;
                    self.next.clear();
                    self.last = id;
                }
                "soak" => {
                    assert!(
                        id > self.last,
                        "ids must rise without repeats, also across connections"
                    );
                    self.last = id;
                    self.count(id.unwrap(), field("data: ").unwrap());
                    seen.events += 1;
                }
                other => assert!(other == "hub:end" || frame == ":\n", "{frame:?}"),
            }
        }
    }

    fn count(&mut self, id: EventId, data: &str) {
        let numbers: Vec<u64> = data.split(' ').map(|number| number.parse().unwrap()).collect();
        let [topic, publisher, count] = numbers[..] else { panic!("{data}") };
        if !self.topics.contains(&topic)
            || self.joined.get(&topic).is_some_and(|&joined| id < joined)
        {
            // Published before the page left or joined the topic, and read later. Events from
            // between are not for this page.
            return;
        }
        let expected = self.next.insert((topic, publisher), count + 1);
        assert!(expected.is_none_or(|expected| expected == count), "{data}: expected {expected:?}");
    }
}
