//! The time of a delivery as the number of clients grows, beside other ways to send to many tasks.
//!
//! | part | measures |
//! |---|---|
//! | `single`, `burst16`, `burst256` | publishing this many events of 200 bytes, until each of the clients has read them: the time per delivery. One task for each client, on one thread. |
//! | `threads` | the same on two threads, with 1 and with 4 publishers |
//! | `targeted` | publishing to a user, to a client, and to a topic with ten clients, with the reads |
//! | `heartbeat` | the time per heartbeat of idle clients |
//!
//! | peer | each client |
//! |---|---|
//! | `sse-hub` | polls its `Subscription`, with heartbeats of `TokioTimer` |
//! | `tokio broadcast` | receives `Bytes` from `tokio::sync::broadcast`, and does nothing else |
//! | `async-broadcast` | receives `Bytes` from the channel of this crate |
//! | `axum Sse` | polls the body of axum's `Sse` with `KeepAlive`, over a receiver of tokio's channel |
//!
//! The peers take turns, each in a runtime of its own, and a ratio compares turns of one round. On
//! one thread the time is the processor time of the thread. On two threads it is the wall clock's.
//! Before each turn an event is sent that does not count: it sets back the heartbeats that became
//! due in the meantime.
//!
//! See `support/report.rs` for the arguments.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::response::{IntoResponse as _, Sse, sse};
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use sse_hub::{Audience, Event, Hub, Subscriber, Subscription, TokioTimer};
use tokio::runtime::{self, Runtime};
use tokio::sync::broadcast;

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/report.rs"]
mod report;

use report::Bench;

const TYPE: &str = "notification";
/// Bytes of the data of an event.
const DATA: usize = 200;
/// Events of the largest round: a channel must hold them all.
const CAPACITY: usize = 256;

fn main() {
    let mut bench = Bench::start("fan_out");
    for (part, events, full) in [
        ("single", 1, &[1_000, 10_000, 100_000, 1_000_000][..]),
        ("burst16", 16, &[1_000, 10_000, 100_000, 1_000_000]),
        // A round of a million clients takes minutes: ask for it by `--clients`.
        ("burst256", 256, &[1_000, 10_000, 100_000]),
    ] {
        if bench.wants(part) {
            for clients in bench.clients(full, 200) {
                deliveries(&mut bench, part, clients, Load { events, publishers: 1, threads: 1 });
            }
        }
    }
    for (part, events, publishers) in [
        ("threads, one event, 1 publisher", 1, 1),
        ("threads, 16 events, 1 publisher", 16, 1),
        ("threads, 4 publishers, one event each", 4, 4),
        ("threads, 4 publishers, 16 events each", 64, 4),
    ] {
        if bench.wants(part) {
            for clients in bench.clients(&[1_000, 10_000, 100_000], 200) {
                deliveries(&mut bench, part, clients, Load { events, publishers, threads: 2 });
            }
        }
    }
    if bench.wants("targeted") {
        targeted(&mut bench);
    }
    if bench.wants("heartbeat") {
        for clients in bench.clients(&[100_000], 200) {
            heartbeats(&mut bench, clients);
        }
    }
    bench.finish();
}

/// Connects clients: the number of clients, and of threads.
type Connect = fn(usize, usize) -> Crowd;

/// Publishes to a few clients, in a turn with this number.
type SendTo = fn(&mut Audiences, usize);

/// Connects clients that wait.
type Open = fn(usize) -> Idle;

#[derive(Clone, Copy)]
struct Load {
    /// Events of a round, of all publishers.
    events: usize,
    publishers: usize,
    threads: usize,
}

fn deliveries(bench: &mut Bench, part: &str, clients: usize, load: Load) {
    let peers: [(&str, Connect); 4] = [
        ("sse-hub", Crowd::of_hub),
        ("tokio broadcast", Crowd::of_tokio),
        ("async-broadcast", Crowd::of_async_broadcast),
        ("axum Sse", Crowd::of_axum),
    ];
    let wanted = peers.iter().filter(|(peer, _)| bench.wants_peer(peer));
    let mut peers: Vec<(&str, Crowd, Vec<f64>)> =
        wanted.map(|&(peer, crowd)| (peer, crowd(clients, load.threads), Vec::new())).collect();
    let deliveries = clients * load.events;
    // A turn of a small crowd has several publishes, because the clocks are not free.
    let publishes = if bench.is_smoke() { 1 } else { 200_000 / deliveries }.max(1);
    let rounds = match deliveries {
        ..1_000_000 => bench.rounds(31, 2),
        1_000_000..10_000_000 => bench.rounds(9, 2),
        _ => bench.rounds(3, 2),
    };
    for _ in 0..rounds {
        for (_, crowd, times) in &mut peers {
            let time = crowd.turn(load, publishes);
            times.push(time.as_nanos() as f64 / (publishes * deliveries) as f64);
        }
    }
    let peers: Vec<_> = peers.into_iter().map(|(peer, _, times)| (peer, times)).collect();
    bench.compare(part, clients, "ns/delivery", &peers);
}

/// The clients of a peer, each a task.
struct Crowd {
    runtime: Runtime,
    clients: u64,
    publisher: Arc<dyn Publish>,
    progress: Arc<Progress>,
}

trait Publish: Send + Sync {
    fn publish(&self);
    /// Returns the bytes of the next events on the wire.
    fn len_of_next(&self, events: usize) -> u64;
}

/// The clients' progress, with a cost for a delivery that is small and the same for each peer.
#[derive(Default)]
struct Progress {
    /// Bytes that each client has when it has read all events.
    goal: AtomicU64,
    /// Clients that reached a goal, since the start: a counter for each thread of the runtime. A
    /// counter has a single writer and a cache line of its own.
    reached: [Counter; 2],
}

#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

thread_local! {
    static THREAD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The progress of one client.
struct Reader {
    progress: Arc<Progress>,
    bytes: u64,
}

impl Reader {
    #[inline]
    fn read(&mut self, len: usize) {
        if len < 8 {
            return; // A heartbeat.
        }
        self.bytes += len as u64;
        if self.bytes >= self.progress.goal.load(Ordering::Relaxed) {
            let Counter(reached) = &self.progress.reached[THREAD.get()];
            reached.store(reached.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
    }
}

impl Crowd {
    fn new(threads: usize, publisher: impl Publish + 'static) -> Self {
        let builder = match threads {
            1 => runtime::Builder::new_current_thread(),
            _ => runtime::Builder::new_multi_thread(),
        };
        let started = AtomicUsize::new(0);
        let runtime = { builder }
            .worker_threads(threads)
            .on_thread_start(move || {
                // Only threads that poll tasks: the runtime starts no others here.
                THREAD.set(started.fetch_add(1, Ordering::Relaxed));
            })
            .enable_all()
            .build()
            .expect("a runtime");
        Self { runtime, clients: 0, publisher: Arc::new(publisher), progress: Arc::default() }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, client: impl FnOnce(Reader) -> F) {
        let reader = Reader { progress: Arc::clone(&self.progress), bytes: 0 };
        self.runtime.spawn(client(reader));
        self.clients += 1;
    }

    fn of_hub(clients: usize, threads: usize) -> Self {
        let hub = Hub::builder(TokioTimer::new()).build().expect("the settings are valid");
        let mut crowd = Self::new(threads, HubPublisher::new(hub.clone()));
        for _ in 0..clients {
            let mut stream = hub.subscribe(Subscriber::new()).expect("the hub is open");
            stream.next().now_or_never().expect("the opening is there at once");
            crowd.spawn(|mut reader| async move {
                while let Some(item) = stream.next().await {
                    reader.read(item.len());
                }
            });
        }
        crowd
    }

    fn of_tokio(clients: usize, threads: usize) -> Self {
        let (sender, _) = broadcast::channel::<Bytes>(CAPACITY);
        let mut crowd = Self::new(threads, Sender::new(sender.clone()));
        for _ in 0..clients {
            let mut receiver = sender.subscribe();
            crowd.spawn(|mut reader| async move {
                while let Ok(item) = receiver.recv().await {
                    reader.read(item.len());
                }
            });
        }
        crowd
    }

    fn of_async_broadcast(clients: usize, threads: usize) -> Self {
        let (sender, first) = async_broadcast::broadcast::<Bytes>(CAPACITY);
        let mut crowd = Self::new(threads, Sender::new(sender));
        let first = first.deactivate();
        for _ in 0..clients {
            let mut receiver = first.activate_cloned();
            crowd.spawn(|mut reader| async move {
                while let Ok(item) = receiver.recv().await {
                    reader.read(item.len());
                }
            });
        }
        crowd
    }

    fn of_axum(clients: usize, threads: usize) -> Self {
        let (sender, _) = broadcast::channel::<Arc<str>>(CAPACITY);
        let mut crowd = Self::new(threads, Sender::new(sender.clone()));
        for _ in 0..clients {
            let events = axum_events(sender.subscribe());
            // The body creates its timer.
            let inside = crowd.runtime.enter();
            let mut body = axum_body(events);
            drop(inside);
            crowd.spawn(|mut reader| async move {
                while let Some(Ok(frame)) = body.frame().await {
                    reader.read(frame.data_ref().map_or(0, Bytes::len));
                }
            });
        }
        crowd
    }

    /// Returns the time of this many publishes, each until all clients have read.
    fn turn(&self, load: Load, publishes: usize) -> Duration {
        self.publish(Load { events: 1, publishers: 1, ..load });
        let (start, processor) = (Instant::now(), cpu::thread_time());
        for _ in 0..publishes {
            self.publish(load);
        }
        if load.threads == 1 { cpu::thread_time() - processor } else { start.elapsed() }
    }

    fn publish(&self, load: Load) {
        let reached = |progress: &Progress| -> u64 {
            progress.reached.iter().map(|Counter(reached)| reached.load(Ordering::Acquire)).sum()
        };
        self.progress.goal.fetch_add(self.publisher.len_of_next(load.events), Ordering::Relaxed);
        let all = reached(&self.progress) + self.clients;
        let (progress, publisher) = (Arc::clone(&self.progress), Arc::clone(&self.publisher));
        let round = async move {
            if load.publishers == 1 {
                (0..load.events).for_each(|_| publisher.publish());
            } else {
                for _ in 0..load.publishers {
                    let publisher = Arc::clone(&publisher);
                    let events = load.events / load.publishers;
                    tokio::spawn(async move { (0..events).for_each(|_| publisher.publish()) });
                }
            }
            while reached(&progress) < all {
                tokio::task::yield_now().await;
            }
        };
        self.runtime.block_on(self.runtime.spawn(round)).expect("the round ends");
    }
}

struct HubPublisher {
    hub: Hub,
    data: String,
    /// Bytes of a frame, apart from the sequence number.
    without_seq: u64,
    /// Sequence number of the next event.
    next: AtomicU64,
}

impl HubPublisher {
    fn new(hub: Hub) -> Self {
        let data = "x".repeat(DATA);
        let first = hub.publish_confirmed(Audience::all(), Event::new(TYPE).data(&data));
        let id = first.expect("valid").id().expect("the hub has no backplane");
        let frame = Event::new(TYPE).data(&data).id(id.to_string()).encode().expect("valid");
        let without_seq = frame.len() as u64 - digits(id.seq());
        Self { hub, data, without_seq, next: AtomicU64::new(id.seq() + 1) }
    }
}

fn digits(number: u64) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

impl Publish for HubPublisher {
    fn publish(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
        self.hub.broadcast(Event::new(TYPE).data(&self.data)).expect("valid");
    }

    fn len_of_next(&self, events: usize) -> u64 {
        let next = self.next.load(Ordering::Relaxed);
        (next..next + events as u64).map(|seq| self.without_seq + digits(seq)).sum()
    }
}

struct Sender<S> {
    sender: S,
    frame: Bytes,
}

impl<S> Sender<S> {
    fn new(sender: S) -> Self {
        let frame = Event::new(TYPE).data("x".repeat(DATA)).encode().expect("valid");
        Self { sender, frame }
    }
}

impl Publish for Sender<broadcast::Sender<Bytes>> {
    fn publish(&self) {
        self.sender.send(Bytes::copy_from_slice(&self.frame)).expect("there are receivers");
    }

    fn len_of_next(&self, events: usize) -> u64 {
        (events * self.frame.len()) as u64
    }
}

impl Publish for Sender<async_broadcast::Sender<Bytes>> {
    fn publish(&self) {
        let event = Bytes::copy_from_slice(&self.frame);
        self.sender.try_broadcast(event).expect("the channel has room");
    }

    fn len_of_next(&self, events: usize) -> u64 {
        (events * self.frame.len()) as u64
    }
}

impl Publish for Sender<broadcast::Sender<Arc<str>>> {
    fn publish(&self) {
        self.sender.send("x".repeat(DATA).into()).expect("there are receivers");
    }

    fn len_of_next(&self, events: usize) -> u64 {
        (events * self.frame.len()) as u64
    }
}

type AxumEvent = Result<sse::Event, Infallible>;

fn axum_events(receiver: broadcast::Receiver<Arc<str>>) -> impl Stream<Item = AxumEvent> {
    stream::unfold(receiver, |mut receiver| async {
        let data = receiver.recv().await.ok()?;
        Some((Ok(sse::Event::default().event(TYPE).data(data)), receiver))
    })
}

fn axum_body(events: impl Stream<Item = AxumEvent> + Send + 'static) -> axum::body::Body {
    Sse::new(events).keep_alive(sse::KeepAlive::new()).into_response().into_body()
}

/// Publishes to few of many clients, and the reads of these clients. The crowds take turns.
fn targeted(bench: &mut Bench) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let sizes = bench.clients(&[1_000, 10_000, 100_000, 1_000_000], 200);
    let mut crowds: Vec<Audiences> = sizes.into_iter().map(Audiences::new).collect();
    let parts: [(&str, SendTo); 4] = [
        ("targeted: a user", |crowd, _| crowd.send_to_user(0)),
        // Each turn another user: with many clients the memory of that client is in no cache.
        ("targeted: users in turn", Audiences::send_to_user),
        ("targeted: a client", |crowd, _| crowd.send_to_client()),
        ("targeted: a topic of 10", |crowd, _| crowd.send_to_topic()),
    ];
    let rounds = bench.rounds(31, 2);
    let turns = if bench.is_smoke() { 10 } else { 2_000 };
    for (part, publish) in parts {
        let mut times = vec![Vec::new(); crowds.len()];
        for _ in 0..rounds {
            for (crowd, times) in crowds.iter_mut().zip(&mut times) {
                let start = cpu::thread_time();
                (0..turns).for_each(|turn| publish(crowd, turn));
                times
                    .push((cpu::thread_time() - start).as_nanos() as f64 / f64::from(turns as u32));
            }
        }
        for (crowd, times) in crowds.iter().zip(times) {
            bench.record("sse-hub", crowd.streams.len(), part, report::median(times), "ns");
        }
    }
}

/// Clients with a user each, and a topic with ten clients.
struct Audiences {
    hub: Hub,
    streams: Vec<Subscription>,
    /// Some of the users, with the index of the stream. Spread over all.
    users: Vec<(Arc<str>, usize)>,
    /// The streams of the topic.
    topic: Vec<usize>,
    data: String,
}

impl Audiences {
    fn new(clients: usize) -> Self {
        let hub = Hub::builder(TokioTimer::new()).build().expect("the settings are valid");
        let mut crowd = Self {
            hub,
            streams: Vec::with_capacity(clients),
            users: Vec::new(),
            topic: Vec::new(),
            data: "x".repeat(DATA),
        };
        for at in 0..clients {
            let user: Arc<str> = format!("user-{at}").into();
            let mut subscriber = Subscriber::new().user(Arc::clone(&user));
            if at % (clients / 10) == 0 {
                subscriber = subscriber.topic("ten");
                crowd.topic.push(at);
            }
            if at % (clients / 100) == 0 {
                crowd.users.push((user, at));
            }
            let mut stream = crowd.hub.subscribe(subscriber).expect("the hub is open");
            stream.next().now_or_never().expect("the opening is there at once");
            assert!(stream.next().now_or_never().is_none());
            crowd.streams.push(stream);
        }
        assert_eq!(crowd.topic.len(), 10);
        crowd
    }

    fn event(&self) -> Event {
        Event::new(TYPE).data(&self.data)
    }

    fn send_to_user(&mut self, turn: usize) {
        let (user, at) = &self.users[turn % self.users.len()];
        self.hub.send_to_user(Arc::clone(user), self.event()).expect("valid");
        read(&mut self.streams[*at]);
    }

    fn send_to_client(&mut self) {
        let at = self.streams.len() / 2;
        let client = self.streams[at].client_id();
        self.hub.send_to_client(client, self.event()).expect("valid");
        read(&mut self.streams[at]);
    }

    fn send_to_topic(&mut self) {
        self.hub.publish(Audience::topic("ten"), self.event()).expect("valid");
        for &at in &self.topic {
            read(&mut self.streams[at]);
        }
    }
}

/// Reads an event, and waits for the next as a served stream does.
fn read(stream: &mut Subscription) {
    black_box(stream.next().now_or_never().expect("it was published"));
    assert!(stream.next().now_or_never().is_none());
}

/// Periods of heartbeats of a round.
const PERIODS: u32 = 4;

/// Idle clients over several periods of 15 seconds. The time is tokio's paused time, which skips to
/// the next deadline when no task can run: all processor time is the heartbeats' own.
fn heartbeats(bench: &mut Bench, clients: usize) {
    let peers: [(&str, Open); 2] = [("sse-hub", Idle::of_hub), ("axum Sse", Idle::of_axum)];
    let wanted = peers.iter().filter(|(peer, _)| bench.wants_peer(peer));
    let mut peers: Vec<_> = wanted.map(|&(peer, idle)| (peer, idle(clients), Vec::new())).collect();
    for (_, idle, _) in &peers {
        // The period of a client begins with the first poll of its task.
        idle.run();
    }
    for _ in 0..bench.rounds(5, 1) {
        for (_, idle, times) in &mut peers {
            times.push(idle.turn(clients));
        }
    }
    let peers: Vec<_> = peers.into_iter().map(|(peer, _, times)| (peer, times)).collect();
    bench.compare("heartbeat", clients, "ns/heartbeat", &peers);
}

struct Idle {
    runtime: Runtime,
    heartbeats: Arc<AtomicUsize>,
}

const PERIOD: Duration = Duration::from_secs(15);

impl Idle {
    /// Connects the clients over one period, so that their heartbeats are spread, too.
    fn new<S>(clients: usize, connect: impl Fn() -> S) -> Self
    where
        S: Stream + Send + 'static,
    {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let heartbeats = Arc::new(AtomicUsize::new(0));
        runtime.block_on(async {
            let clients = u32::try_from(clients).expect("fewer than 2^32");
            let group = (clients / 100).max(1);
            for client in 0..clients {
                let mut stream = Box::pin(connect());
                let heartbeats = Arc::clone(&heartbeats);
                tokio::spawn(async move {
                    while stream.next().await.is_some() {
                        heartbeats.fetch_add(1, Ordering::Relaxed);
                    }
                });
                if client % group == 0 {
                    tokio::time::advance(PERIOD * group / clients).await;
                }
            }
        });
        Self { runtime, heartbeats }
    }

    fn of_hub(clients: usize) -> Self {
        let hub = Hub::builder(TokioTimer::new()).build().expect("the settings are valid");
        Self::new(clients, || {
            let mut stream = hub.subscribe(Subscriber::new()).expect("the hub is open");
            stream.next().now_or_never().expect("the opening is there at once");
            // A client keeps the hub open.
            let hub = hub.clone();
            stream.inspect(move |_| _ = black_box(&hub))
        })
    }

    fn of_axum(clients: usize) -> Self {
        let (sender, _) = broadcast::channel::<Arc<str>>(CAPACITY);
        Self::new(clients, || {
            let sender = sender.clone();
            let body = axum_body(axum_events(sender.subscribe())).into_data_stream();
            body.inspect(move |_| _ = black_box(&sender))
        })
    }

    fn run(&self) {
        self.runtime.block_on(async { tokio::time::sleep(PERIOD * PERIODS).await });
    }

    /// Returns the processor time of a heartbeat in nanoseconds.
    fn turn(&self, clients: usize) -> f64 {
        let before = self.heartbeats.load(Ordering::Relaxed);
        let start = cpu::thread_time();
        self.run();
        let time = cpu::thread_time() - start;
        let heartbeats = self.heartbeats.load(Ordering::Relaxed) - before;
        let expected = clients * PERIODS as usize;
        assert!(
            (expected * 9 / 10..=expected * 11 / 10).contains(&heartbeats),
            "{heartbeats} heartbeats instead of {expected}"
        );
        time.as_nanos() as f64 / heartbeats as f64
    }
}
