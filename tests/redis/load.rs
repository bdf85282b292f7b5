//! Instances, clients that move between them, publishers, and the checks of the received events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use sse_hub::redis::{Redis, RedisBackplane, RedisPublisher};
use sse_hub::{
    Audience, Confirmation, Event, EventId, Hub, HubBuilder, LastEventId, Subscriber, Subscription,
    TokioTimer,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::busy::BusyClock;
use crate::server::DEADLINE;
use crate::support::frames;

/// A hub with Redis behind it.
pub(crate) struct Instance {
    pub(crate) hub: Hub,
    pub(crate) backplane: RedisBackplane,
    running: JoinHandle<()>,
}

impl Instance {
    pub(crate) fn new(url: &str) -> Self {
        Self::with(url, |redis| redis, |hub| hub)
    }

    pub(crate) fn with(
        url: &str,
        redis: impl FnOnce(Redis) -> Redis,
        hub: impl FnOnce(HubBuilder) -> HubBuilder,
    ) -> Self {
        let backplane = redis(Redis::new(url).unwrap()).build().unwrap();
        let builder = Hub::builder(TokioTimer::new()).backplane(backplane.clone());
        let hub = hub(builder).build().unwrap();
        let running = tokio::spawn(backplane.run(&hub));
        Self { hub, backplane, running }
    }

    pub(crate) async fn ready(url: &str) -> Self {
        let instance = Self::new(url);
        timeout(DEADLINE, instance.backplane.ready()).await.expect("Redis answers");
        instance
    }

    /// Closes the hub, and waits until all events are acknowledged.
    pub(crate) async fn close(mut self) {
        self.hub.close();
        timeout(DEADLINE, &mut self.running).await.expect("it ends").unwrap();
    }

    pub(crate) async fn publish(&self, name: &str) -> EventId {
        let event = Event::new("n").data(name);
        let confirmation = self.hub.publish_confirmed(Audience::all(), event).unwrap();
        timeout(DEADLINE, confirmation).await.expect("Redis answers").unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        let mut client = Client::default();
        client.connect(&self.hub);
        client
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Hub) -> bool) {
        until(what, || is_so(&self.hub)).await;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Waits for a condition that sends no signal.
pub(crate) async fn until(what: &str, is_so: impl FnMut() -> bool) {
    until_within(DEADLINE, what, is_so).await;
}

/// The same for a condition that takes long on an idle machine, too.
pub(crate) async fn until_within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A page that keeps the last id, and resumes with that id wherever it connects.
#[derive(Default)]
pub(crate) struct Client {
    stream: Option<Subscription>,
    last: Option<EventId>,
    /// The first position, or the position of the last gap.
    pub(crate) from: EventId,
    pub(crate) seen: Vec<(EventId, String)>,
    /// The number of events before the last gap.
    before_gap: usize,
    pub(crate) gaps: Vec<String>,
    /// The numbers of events before each gap that led to an older position.
    led_back: Vec<(usize, String)>,
}

impl Client {
    /// Returns a client that has all events up to `id`.
    pub(crate) fn at(id: EventId) -> Self {
        Self { last: Some(id), ..Self::default() }
    }

    pub(crate) fn connect(&mut self, hub: &Hub) {
        let last = self.last.map_or_else(LastEventId::none, LastEventId::from);
        self.stream = Some(hub.subscribe(Subscriber::new().resume(last)).unwrap());
    }

    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Reads one item; `false` at the end of the stream.
    pub(crate) async fn read(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let Some(bytes) = stream.next().await else { return false };
        for frame in frames(std::str::from_utf8(&bytes).unwrap()) {
            let id = frame.id.expect("an id");
            match &*frame.event {
                "hub:open" if self.last.is_none() => self.from = id,
                "hub:open" => {}
                "hub:gap" => {
                    if self.last.is_some_and(|last| id < last) {
                        self.led_back.push((self.seen.len(), frame.reason().unwrap().to_owned()));
                    }
                    self.from = id;
                    self.before_gap = self.seen.len();
                    self.gaps.push(frame.reason().unwrap().to_owned());
                }
                _ => self.seen.push((id, frame.data)),
            }
            self.last = Some(id);
        }
        true
    }

    /// Reads until an event has this name.
    pub(crate) async fn until(&mut self, name: &str) {
        let is_there = |client: &Self| client.seen.iter().any(|(_, seen)| seen == name);
        let reading = async {
            while !is_there(self) {
                assert!(self.read().await, "the stream ended before {name}");
            }
        };
        let in_time = timeout(DEADLINE, reading).await.is_ok();
        let (newest, stopped) = (self.seen.last(), self.last);
        assert!(in_time, "{name} does not come after {newest:?}, at {stopped:?}");
    }

    /// Reads until so many events have come.
    pub(crate) async fn until_count(&mut self, count: usize) {
        let reading = async {
            while self.seen.len() < count {
                assert!(self.read().await, "the stream ended before {count} events");
            }
        };
        timeout(DEADLINE, reading).await.expect("so many events come");
    }

    pub(crate) async fn until_gap(&mut self) {
        let gaps = self.gaps.len();
        let reading = async {
            while self.gaps.len() == gaps {
                assert!(self.read().await, "the stream ended before a gap");
            }
        };
        timeout(DEADLINE, reading).await.expect("a gap is told");
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.seen.iter().map(|(_, name)| &**name).collect()
    }
}

/// The confirmed events by id: a single event each, unless two servers gave ids at once.
type Confirmed = BTreeMap<EventId, Vec<String>>;

/// Publishes for a load.
#[derive(Clone)]
pub(crate) enum Source {
    Hub(Hub),
    Publisher(RedisPublisher),
}

impl Source {
    pub(crate) fn publish(&self, event: Event) -> Confirmation {
        match self {
            Self::Hub(hub) => hub.publish_confirmed(Audience::all(), event),
            Self::Publisher(publisher) => publisher.publish_confirmed(Audience::all(), event),
        }
        .unwrap()
    }
}

/// Publishers and clients at work until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    confirmed: Arc<Mutex<Confirmed>>,
    publishers: Vec<JoinHandle<()>>,
    clients: Vec<JoinHandle<Client>>,
    hubs: Vec<Hub>,
}

impl Load {
    /// Spreads the clients over the instances. Every second client moves on from time to time.
    pub(crate) fn start(instances: &[&Instance], publishers: usize, clients: usize) -> Self {
        let source = |at: usize| Source::Hub(instances[at % instances.len()].hub.clone());
        Self::of(instances, (0..publishers).map(source).collect(), clients)
    }

    /// The same with publishers of any kind, each on a task of its own.
    pub(crate) fn of(instances: &[&Instance], sources: Vec<Source>, clients: usize) -> Self {
        let hubs: Vec<Hub> = instances.iter().map(|instance| instance.hub.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let confirmed = Arc::new(Mutex::new(BTreeMap::new()));
        let publisher = |(number, source): (usize, Source)| {
            tokio::spawn(publish(number, source, Arc::clone(&stop), Arc::clone(&confirmed)))
        };
        let client = |number: usize| tokio::spawn(visit(number, hubs.clone()));
        Self {
            publishers: sources.into_iter().enumerate().map(publisher).collect(),
            clients: (0..clients).map(client).collect(),
            stop,
            confirmed,
            hubs,
        }
    }

    pub(crate) fn confirmed(&self) -> usize {
        self.confirmed.lock().unwrap().len()
    }

    /// Waits until more events are confirmed, and returns the time, for a limit.
    pub(crate) async fn goes_on(&self) -> Duration {
        let (start, before) = (BusyClock::start(), self.confirmed());
        // Some events may be on their way already.
        until("publishing goes on", || self.confirmed() > before + 16).await;
        start.elapsed()
    }

    /// Stops publishing, lets the clients read all events, and returns the outcome.
    pub(crate) async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        for publisher in self.publishers {
            timeout(DEADLINE, publisher).await.expect("a publisher ends").unwrap();
        }
        // Again and again: an event that a reset follows is part of the loss.
        let (hub, all) = (self.hubs[0].clone(), Arc::clone(&self.confirmed));
        let ending = tokio::spawn(async move {
            for number in 0.. {
                let name = format!("{END}{number}");
                let event = Event::new("n").data(&name);
                let confirmation = hub.publish_confirmed(Audience::all(), event).unwrap();
                let id = confirmation.await.unwrap();
                all.lock().unwrap().entry(id).or_default().push(name);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let mut clients = Vec::new();
        for client in self.clients {
            clients.push(timeout(DEADLINE, client).await.expect("the end reaches all").unwrap());
        }
        ending.abort();
        let confirmed = std::mem::take(&mut *self.confirmed.lock().unwrap());
        Outcome { confirmed, clients }
    }
}

const END: &str = "end:";

async fn publish(
    publisher: usize,
    source: Source,
    stop: Arc<AtomicBool>,
    confirmed: Arc<Mutex<Confirmed>>,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("{publisher}:{number}");
        let id = source.publish(Event::new("n").data(&name)).await.expect("the backplane runs");
        confirmed.lock().unwrap().entry(id).or_default().push(name);
    }
}

async fn visit(number: usize, hubs: Vec<Hub>) -> Client {
    let moves = number % 2 == 1 && hubs.len() > 1;
    let stay = Duration::from_millis(20 + 17 * (number as u64 % 7));
    let mut client = Client::default();
    for at in number.. {
        client.connect(&hubs[at % hubs.len()]);
        let leaves = Instant::now() + stay;
        loop {
            if client.seen.last().is_some_and(|(_, name)| name.starts_with(END)) {
                return client;
            }
            let is_open = if moves {
                match tokio::time::timeout_at(leaves.into(), client.read()).await {
                    Ok(is_open) => is_open,
                    Err(_) => break,
                }
            } else {
                client.read().await
            };
            if !is_open {
                break;
            }
        }
    }
    client
}

pub(crate) struct Outcome {
    confirmed: Confirmed,
    pub(crate) clients: Vec<Client>,
}

impl Outcome {
    /// Checks that each client has all confirmed events, once and in order, and no gap.
    pub(crate) fn check_exact(&self) {
        for client in &self.clients {
            assert_eq!(client.gaps, [""; 0], "nothing was lost");
        }
        self.check();
    }

    /// Checks the same from each client's last gap on.
    pub(crate) fn check(&self) {
        for client in &self.clients {
            // An id of an order that was rolled back can be ahead of the new order for a moment: a
            // client that moves then is led back, as one with a foreign id.
            let led_back = client.led_back.iter().find(|(_, reason)| reason != "unknown");
            assert_eq!(led_back, None, "ids never go back");
        }
        let twice = self.confirmed.iter().find(|(_, names)| names.len() > 1);
        assert_eq!(twice, None, "an id was given twice");
        self.check_after_two_masters();
    }

    /// Checks the same after two servers took events for a while. They can give an id twice, and a
    /// client that moves then is led back to an older position by a gap.
    pub(crate) fn check_after_two_masters(&self) {
        assert!(self.confirmed.len() > 1, "nothing was published");
        // Where two masters gave an id to different events, a reader cannot see that the order changed.
        let mut names_at: HashMap<EventId, HashSet<&str>> = HashMap::new();
        for (id, names) in &self.confirmed {
            names_at.entry(*id).or_default().extend(names.iter().map(String::as_str));
        }
        for (id, name) in self.clients.iter().flat_map(|client| &client.seen) {
            names_at.entry(*id).or_default().insert(name);
        }
        let was_given_twice = |id: &EventId| names_at[id].len() > 1;
        let mut ids: HashMap<&str, EventId> = HashMap::new();
        for (number, client) in self.clients.iter().enumerate() {
            let mut newest = EventId::new(0, 0);
            for (at, (id, name)) in client.seen.iter().enumerate() {
                if client.led_back.iter().any(|(before, _)| *before == at) {
                    newest = EventId::new(0, 0);
                }
                assert!(*id > newest, "client {number}: {id} ({name}) came after {newest}");
                newest = *id;
            }
            // An unconfirmed event that was lost and published again has two positions.
            let seen = &client.seen[client.before_gap..];
            for (id, name) in seen {
                let known = *ids.entry(name).or_insert(*id);
                let is_gone = self.clients.iter().any(|other| other.from > known.min(*id));
                let is_one = known == *id || was_given_twice(&known) || was_given_twice(id);
                assert!(is_one || is_gone, "client {number}: {name} has two places");
            }
            let got: HashMap<EventId, &str> =
                seen.iter().map(|(id, name)| (*id, &**name)).collect();
            // A gap with this reason stands where the orders part. Events of the replaced order can
            // have ids between that position and the first event of the new order.
            let is_reset = client.gaps.last().is_some_and(|reason| reason == "reset");
            let first = seen.first().filter(|_| is_reset).map(|(id, _)| id.predecessor());
            let from = first.map_or(client.from, |first| first.max(client.from));
            for (id, names) in self.confirmed.range(from..) {
                if from < *id && *id <= newest {
                    let is_one = got.get(id).is_some_and(|got| names.iter().any(|it| it == got));
                    let got = got.get(id);
                    assert!(
                        is_one,
                        "client {number}, from {from}, gaps {:?}: {id} {got:?} {names:?}",
                        client.gaps
                    );
                }
            }
            let mut last: HashMap<&str, u64> = HashMap::new();
            for (_, name) in seen {
                let Some((publisher, count)) = name.split_once(':') else { continue };
                let count = count.parse().unwrap();
                let before = last.insert(publisher, count);
                assert!(before < Some(count), "client {number}: {name} after {before:?}");
            }
        }
    }
}
