//! Joined topics over a real Redis: instances are killed, and the topics move with the clients.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::{Router, routing};
use futures_util::StreamExt as _;
use sse_hub::{
    Audience, ClientId, Event, EventId, Hub, HubBuilder, LastEventId, Refused, Retain, Subscriber,
    Subscription,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::load::{Instance, until};
use crate::processes::{Process, URL, serve};
use crate::server::{DEADLINE, Server};
use crate::support::{data, frames, gaps, last_id, read};

const ROOMS: usize = 4;

/// Not a test: the other tests run this as a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs redis-server"]
async fn instance() {
    let Ok(url) = std::env::var(URL) else { return };
    let retain = |hub: HubBuilder| hub.retain(Retain::default().events(20_000));
    let instance = Instance::with(&url, |redis| redis, retain);
    instance.backplane.ready().await;
    let app = Router::new()
        .route("/events", routing::get(events))
        .route("/publish", routing::post(publish))
        .route("/join", routing::post(join))
        .with_state(instance.hub.clone());
    serve(app).await;
}

#[derive(serde::Deserialize)]
struct Ask {
    user: String,
    client: Option<String>,
    #[serde(default)]
    room: String,
}

async fn events(
    State(hub): State<Hub>,
    Query(Ask { user, client, .. }): Query<Ask>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    let mut who = Subscriber::new().user(user).resume(last);
    if let Some(client) = client.and_then(|client| client.parse().ok()) {
        who = who.client_id(client);
    }
    hub.subscribe(who)
}

/// Publishes to a room, or to all.
async fn publish(State(hub): State<Hub>, Query(Ask { user, room, .. }): Query<Ask>) -> String {
    let event = Event::new("n").data(&user).idempotency_key(user);
    let to = if room.is_empty() { Audience::all() } else { Audience::topic(room) };
    hub.publish_confirmed(to, event).unwrap().await.unwrap().to_string()
}

/// Adds a user's clients to a room, and returns a position after the join.
async fn join(State(hub): State<Hub>, Query(Ask { user, room, .. }): Query<Ask>) -> String {
    hub.join(Audience::user(&user), room).unwrap();
    let mark = hub.publish_confirmed(Audience::user("nobody"), Event::new("mark")).unwrap();
    mark.await.unwrap().to_string()
}

type Ports = Arc<Mutex<Vec<u16>>>;

fn port(ports: &Ports, turn: usize) -> u16 {
    let ports = ports.lock().unwrap();
    ports[turn % ports.len()]
}

/// Asks one instance after another until there is an answer.
async fn post(ports: &Ports, at: usize, path: &str) -> EventId {
    for turn in at.. {
        if let Ok(Some(id)) = try_post(port(ports, turn), path).await {
            return id;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    unreachable!()
}

async fn try_post(port: u16, path: &str) -> std::io::Result<Option<EventId>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.rsplit("\r\n\r\n").next().and_then(|id| id.parse().ok()))
}

/// A page that must be in its room from a position on, until it is told otherwise.
#[derive(Debug, Clone, Copy)]
struct Promise {
    after: EventId,
    until: Option<EventId>,
}

/// What a page and its requests to join share.
#[derive(Debug, Default)]
struct Joined {
    promises: Vec<Promise>,
    /// Counts the times that the page was told of a gap.
    told: usize,
}

struct Page {
    number: usize,
    ports: Ports,
    client: Option<ClientId>,
    last: Option<EventId>,
    seen: Vec<(EventId, String)>,
    joined: Arc<Mutex<Joined>>,
    /// How often the page returned with its id and without a gap, and how often it was told a gap.
    kept: usize,
    told: usize,
    open: Arc<AtomicUsize>,
}

impl Page {
    /// Asks the server for the room, as a handler does for a client that is not resumed.
    fn join(&self) {
        let told = {
            let mut joined = self.joined.lock().unwrap();
            let last = self.last;
            if let Some(Promise { until: until @ None, .. }) = joined.promises.last_mut() {
                *until = last;
            }
            joined.told += 1;
            joined.told
        };
        let (ports, joined, number) =
            (Arc::clone(&self.ports), Arc::clone(&self.joined), self.number);
        let open = Arc::clone(&self.open);
        tokio::spawn(async move {
            let path = format!("/join?user=u{number}&room=r{}", number % ROOMS);
            let after = post(&ports, number, &path).await;
            let mut joined = joined.lock().unwrap();
            if joined.told == told {
                joined.promises.push(Promise { after, until: None });
            }
            open.fetch_add(usize::from(told == 1), Ordering::Relaxed);
        });
    }

    fn opened(&mut self, text: &str) {
        let (client, rest) = text.split_once("\"client\":\"").unwrap().1.split_once('"').unwrap();
        let client: ClientId = client.parse().unwrap();
        let is_resumed = rest.contains("\"resumed\":true");
        let is_first = self.client.is_none();
        let is_same = self.client.replace(client) == Some(client);
        if is_resumed {
            self.kept += usize::from(is_same);
        } else {
            self.told += usize::from(!is_first);
            self.join();
        }
    }

    /// Returns whether the end came.
    async fn connect(&mut self, port: u16) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let last = self.last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let client = self.client.map_or(String::new(), |client| format!("&client={client}"));
        let request = format!(
            "GET /events?user=u{}{client} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n",
            self.number
        );
        stream.write_all(request.as_bytes()).await?;
        let mut lines = tokio::io::BufReader::new(stream).lines();
        let (mut kind, mut text, mut id) = (String::new(), String::new(), None);
        // Lines with the sizes of chunks are ignored.
        while let Some(line) = lines.next_line().await? {
            match line.split_once(": ") {
                Some(("event", value)) => kind = value.to_owned(),
                Some(("data", value)) => text = value.to_owned(),
                Some(("id", value)) => id = Some(value.parse().unwrap()),
                _ if line.is_empty() && !kind.is_empty() => {
                    let position: EventId = id.take().expect("an id");
                    match &*kind {
                        "hub:open" => self.opened(&text),
                        // The gap of an opening that is not resumed comes at the same position.
                        "hub:gap" if self.last < Some(position) => {
                            self.told += 1;
                            self.join();
                        }
                        "hub:gap" => self.join(),
                        _ => self.seen.push((position, text.clone())),
                    }
                    self.last = Some(position);
                    if kind == "n" && text == "end" {
                        return Ok(true);
                    }
                    kind.clear();
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Kills instances while pages are in rooms. Checks that each page has every event of the room,
/// once and in order, except between a gap and the next join.
async fn kill_instances(server: &Server, count: usize, pages: usize, kills: usize) {
    let mut processes: Vec<Process> =
        (0..count).map(|_| Process::of(server, "rooms::instance")).collect();
    let ports: Ports = Arc::new(Mutex::new(processes.iter().map(|it| it.port).collect()));
    let (open, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reading: Vec<_> = (0..pages)
        .map(|number| {
            let (ports, open) = (Arc::clone(&ports), Arc::clone(&open));
            tokio::spawn(async move {
                let mut page = Page {
                    number,
                    ports: Arc::clone(&ports),
                    client: None,
                    last: None,
                    seen: Vec::new(),
                    joined: Arc::default(),
                    kept: 0,
                    told: 0,
                    open,
                };
                for turn in number.. {
                    if let Ok(true) = page.connect(port(&ports, turn)).await {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                page
            })
        })
        .collect();
    until("all have joined", || open.load(Ordering::Relaxed) == pages).await;

    let confirmed = Arc::new(AtomicUsize::new(0));
    let publishing: Vec<_> = (0..ROOMS)
        .map(|room| {
            let (ports, stop) = (Arc::clone(&ports), Arc::clone(&stop));
            let confirmed = Arc::clone(&confirmed);
            tokio::spawn(async move {
                let mut sent = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("{room}:{}", sent.len());
                    let path = format!("/publish?user={name}&room=r{room}");
                    let id = timeout(DEADLINE, post(&ports, room, &path)).await;
                    sent.push((id.expect("an instance is there"), name));
                    confirmed.fetch_add(1, Ordering::Relaxed);
                }
                sent
            })
        })
        .collect();
    for kill in 0..kills {
        let before = confirmed.load(Ordering::Relaxed);
        until("publishing goes on", || confirmed.load(Ordering::Relaxed) > before + 20).await;
        let at = kill % count;
        processes[at].kill();
        let restarted = Process::of(server, "rooms::instance");
        ports.lock().unwrap()[at] = restarted.port;
        processes[at] = restarted;
    }
    let before = confirmed.load(Ordering::Relaxed);
    until("publishing goes on", || confirmed.load(Ordering::Relaxed) > before + 20).await;
    stop.store(true, Ordering::Relaxed);
    let mut rooms = Vec::new();
    for publisher in publishing {
        rooms.push(publisher.await.unwrap());
    }
    post(&ports, 0, "/publish?user=end").await;

    let (mut kept, mut told, mut promised) = (0, 0, 0);
    for (number, page) in reading.into_iter().enumerate() {
        let page = timeout(DEADLINE, page).await.expect("the end reaches all").unwrap();
        assert!(page.seen.is_sorted_by(|(a, _), (b, _)| a < b), "page {number}: order or repeats");
        let seen: BTreeSet<_> = page.seen.iter().map(|(id, _)| *id).collect();
        let room = &rooms[number % ROOMS];
        for (id, name) in &page.seen {
            assert!(name == "end" || room.contains(&(*id, name.clone())), "page {number}: {name}");
        }
        for Promise { after, until } in &page.joined.lock().unwrap().promises {
            let until = until.unwrap_or(EventId::new(u64::MAX, 0));
            for (id, name) in room.iter().filter(|(id, _)| after < id && *id <= until) {
                assert!(
                    seen.contains(id),
                    "page {number} lacks {name} at {id}, in {after} to {until}"
                );
                promised += 1;
            }
        }
        kept += page.kept;
        told += page.told;
    }
    println!("{kills} kills: {kept} returns with topics, {told} with a gap, {promised} events due");
    assert!(kept >= pages / 2, "pages must return with their topics: {kept}, {told} gaps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn topics_survive_killed_instances() {
    let server = Server::start(&[]);
    let kills = std::env::var("SSE_HUB_ROUNDS").ok().and_then(|kills| kills.parse().ok());
    kill_instances(&server, 2, 24, kills.unwrap_or(5)).await;
}

/// Reads until an event has this data.
async fn read_until(stream: &mut Subscription, name: &str) -> String {
    let mut text = String::new();
    while !data(&text).iter().any(|data| data == name) {
        let item = timeout(DEADLINE, stream.next()).await.expect("the event comes").unwrap();
        text += std::str::from_utf8(&item).unwrap();
    }
    text
}

fn ann() -> Subscriber {
    Subscriber::new().user("ann")
}

fn follows(hub: &Hub, client: ClientId) -> bool {
    hub.clients(client).iter().any(|client| client.topics.iter().any(|topic| &**topic == "room"))
}

/// Returns a client that has joined the room, and has read an event of the room.
async fn joined(here: &Instance) -> (Subscription, EventId) {
    let mut tab = here.hub.subscribe(ann()).unwrap();
    here.hub.join(tab.client_id(), "room").unwrap();
    here.hub.send_to_topic("room", Event::new("n").data("1")).unwrap();
    let position = last_id(&read_until(&mut tab, "1").await);
    (tab, position)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn emptied_redis_is_a_gap_and_topics_return_later() {
    let server = Server::start(&[]);
    let [here, there] =
        [Instance::ready(&server.url()).await, Instance::ready(&server.url()).await];
    let (mut tab, position) = joined(&here).await;
    let client = tab.client_id();
    until("the other instance has read all", || there.hub.position() >= position).await;
    let _: String = server.run("FLUSHALL");
    until("both have noticed", || {
        [&here, &there].iter().all(|instance| instance.hub.stats().resets > 0)
    })
    .await;
    let again = there.hub.subscribe(ann().client_id(client).resume(position)).unwrap();
    assert!(!again.is_resumed());
    drop(again);
    // The client stays in the room, and its instance says so in the new order.
    here.hub.send_to_topic("room", Event::new("n").data("2")).unwrap();
    let text = read_until(&mut tab, "2").await;
    // An entry that came to the empty Redis before the reset is told as a reset, too.
    let told = gaps(&text);
    assert!(!told.is_empty() && told.iter().all(|gap| gap == "reset"), "{told:?}");
    let position = last_id(&text);
    let mut again = None;
    until("the other instance has read of the topics", || {
        let stream = there.hub.subscribe(ann().client_id(client).resume(position)).unwrap();
        again = Some(stream).filter(|stream| stream.is_resumed());
        again.is_some()
    })
    .await;
    let mut again = again.unwrap();
    assert_eq!(again.client_id(), client);
    assert!(follows(&there.hub, client));
    here.hub.send_to_topic("room", Event::new("n").data("3")).unwrap();
    assert_eq!(gaps(&read_until(&mut again, "3").await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn late_instance_knows_no_topics_before_a_drain() {
    let server = Server::start(&[]);
    let few = |hub: HubBuilder| hub.retain(Retain::default().events(2));
    let late = async || {
        let instance = Instance::with(&server.url(), |redis| redis, few);
        timeout(DEADLINE, instance.backplane.ready()).await.unwrap();
        instance
    };
    let here = Instance::ready(&server.url()).await;
    // Before the first join, an instance knows that there are no topics.
    let unknown: ClientId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let claim = |client| ann().client_id(client).resume(here.hub.position());
    here.publish("0").await;
    let early = late().await;
    until("it has read all", || early.hub.position() == here.hub.position()).await;
    assert!(early.hub.subscribe(claim(unknown)).unwrap().is_resumed());
    let (tab, _) = joined(&here).await;
    for name in ["a", "b", "c"] {
        here.publish(name).await;
    }
    let late = late().await;
    until("it has read all", || late.hub.position() == here.hub.position()).await;
    for client in [tab.client_id(), unknown] {
        let mut strange = late.hub.subscribe(claim(client)).unwrap();
        assert!(!strange.is_resumed(), "the topics of the client are unknown");
        assert_eq!(gaps(&read(&mut strange)), ["evicted"]);
    }
    let known = early.hub.subscribe(claim(tab.client_id())).unwrap();
    assert!(known.is_resumed() && follows(&early.hub, tab.client_id()));
    drop(known);
    let before = here.hub.position();
    let _drain = here.hub.drain(Duration::from_secs(60));
    until("the announcement is read", || late.hub.position() > before).await;
    let known = late.hub.subscribe(ann().client_id(tab.client_id()).resume(before)).unwrap();
    assert!(known.is_resumed() && follows(&late.hub, tab.client_id()));
    let opening = frames(&read(&mut { known })).remove(0).data;
    assert!(opening.contains(&tab.client_id().to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn forged_note_of_joins_counts_as_joins() {
    let server = Server::start(&[]);
    let _: u64 = server.run("LPUSH {sse-hub}:joins x");
    let here = Instance::ready(&server.url()).await;
    let position = here.publish("0").await;
    until("it has read all", || here.hub.position() == position).await;
    let unknown: ClientId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let strange = here.hub.subscribe(ann().client_id(unknown).resume(position)).unwrap();
    assert!(!strange.is_resumed(), "the topics of the client are unknown");
    drop(joined(&here).await);
    assert_eq!(server.run::<String>("GET {sse-hub}:joins"), "1", "the next join replaces the key");
}
