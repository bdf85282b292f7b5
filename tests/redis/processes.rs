//! Instances as processes, over real sockets: they are killed, and their clients resume at others.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::{Router, routing};
use sse_hub::{
    Audience, Event, EventId, Hub, LastEventId, Refused, Retain, Subscriber, Subscription,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::load::{Instance, until};
use crate::ports::Port;
use crate::server::{ATTEMPTS, DEADLINE, Server};

pub(crate) const URL: &str = "SSE_HUB_INSTANCE_OF";
const PORT: &str = "SSE_HUB_INSTANCE_PORT";

/// Not a test: the other tests run this as a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs redis-server"]
async fn instance() {
    let Ok(url) = std::env::var(URL) else { return };
    let retain = |hub: sse_hub::HubBuilder| hub.retain(Retain::default().events(20_000));
    let instance = Instance::with(&url, |redis| redis, retain);
    instance.backplane.ready().await;
    let app = Router::new()
        .route("/events", routing::get(events))
        .route("/publish", routing::post(publish))
        .with_state(instance.hub.clone());
    serve(app).await;
}

/// Serves at the port that the parent process chose, until the parent kills this process or ends.
pub(crate) async fn serve(app: Router) {
    // Only the parent has the other end of the pipe, which closes however the parent ends.
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    println!("\n{LISTENS}");
    axum::serve(listener, app).await.unwrap();
}

const LISTENS: &str = "the instance listens";

async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().resume(last))
}

#[derive(serde::Deserialize)]
struct Publish {
    name: String,
}

async fn publish(State(hub): State<Hub>, Query(Publish { name }): Query<Publish>) -> String {
    let event = Event::new("n").data(&name).idempotency_key(name);
    hub.publish_confirmed(Audience::all(), event).unwrap().await.unwrap().to_string()
}

/// Waits until a line of the program's output has a value for `find`. Returns an error if the
/// program ends before, or takes too long. The program must be started with a piped output.
pub(crate) fn printed<T: Send + 'static>(
    child: &mut Child,
    find: impl Fn(&str) -> Option<T> + Send + 'static,
) -> Result<T, RecvTimeoutError> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    // Reads to the end: a full pipe would block the program.
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(found) = find(&line) {
                let _ = tell.send(found);
            }
        }
    });
    told.recv_timeout(DEADLINE)
}

/// Dropping the value kills the process.
pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
    /// No other test gets the port while clients still try to connect to a killed instance.
    _reserved: Port,
}

impl Process {
    fn start(server: &Server) -> Self {
        Self::of(server, "processes::instance")
    }

    /// Runs a function of this program as a process.
    pub(crate) fn of(server: &Server, test: &str) -> Self {
        for _ in 0..ATTEMPTS {
            let reserved = Port::take();
            let port = reserved.number();
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "--nocapture", test])
                .env(URL, server.url())
                .env(PORT, port.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // From here on, the guard kills the process.
            let mut process = Self { child, port, _reserved: reserved };
            match printed(&mut process.child, |line| (line == LISTENS).then_some(())) {
                Ok(()) => return process,
                // Another program has the port.
                Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the instance does not listen in time"),
            }
        }
        panic!("the instance exits at {ATTEMPTS} different ports");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser's `EventSource`, as far as these tests need.
#[derive(Default)]
struct EventSource {
    last: Option<String>,
    first: Option<EventId>,
    seen: Vec<(EventId, String)>,
    gaps: usize,
    connections: usize,
}

impl EventSource {
    /// Returns whether the end came.
    async fn connect(&mut self, port: u16, end: &str, open: &AtomicUsize) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let last =
            self.last.as_ref().map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let request = format!("GET /events HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut lines = tokio::io::BufReader::new(stream).lines();
        let (mut kind, mut data, mut id) = (String::new(), String::new(), None);
        // Lines with the sizes of chunks are ignored.
        while let Some(line) = lines.next_line().await? {
            match line.split_once(": ") {
                Some(("event", value)) => kind = value.to_owned(),
                Some(("data", value)) => data = value.to_owned(),
                Some(("id", value)) => id = Some(value.to_owned()),
                _ if line.is_empty() && !kind.is_empty() => {
                    let place = id.take().expect("an id");
                    let position: EventId = place.parse().unwrap();
                    match &*kind {
                        "hub:open" => {
                            self.first.get_or_insert(position);
                            self.connections += 1;
                            open.fetch_add(usize::from(self.connections == 1), Ordering::Relaxed);
                        }
                        "hub:gap" => self.gaps += 1,
                        _ => self.seen.push((position, data.clone())),
                    }
                    self.last = Some(place);
                    if kind == "n" && data == end {
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

/// The ports of the instances. A restarted instance has another port.
type Ports = Arc<Mutex<Vec<u16>>>;

fn port(ports: &Ports, turn: usize) -> u16 {
    let ports = ports.lock().unwrap();
    ports[turn % ports.len()]
}

/// Publishes at one instance after another until there is an answer. The key prevents repeats.
async fn post(ports: &Ports, at: usize, name: &str) -> EventId {
    let mut turn = at;
    loop {
        if let Ok(Some(id)) = try_post(port(ports, turn), name).await {
            return id;
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn try_post(port: u16, name: &str) -> std::io::Result<Option<EventId>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!(
        "POST /publish?name={name} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.rsplit("\r\n\r\n").next().and_then(|id| id.parse().ok()))
}

/// Runs clients and publishers, at instances that are killed several times.
async fn kill_instances(
    server: &Server,
    count: usize,
    clients: usize,
    publishers: usize,
    kills: u32,
) {
    let mut processes: Vec<Process> = (0..count).map(|_| Process::start(server)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let open = Arc::new(AtomicUsize::new(0));
    let ports: Ports = Arc::new(Mutex::new(processes.iter().map(|it| it.port).collect()));

    let reading: Vec<_> = (0..clients)
        .map(|client| {
            let (ports, open) = (Arc::clone(&ports), Arc::clone(&open));
            tokio::spawn(async move {
                let mut source = EventSource::default();
                for turn in client.. {
                    let port = port(&ports, turn);
                    if let Ok(true) = source.connect(port, "end", &open).await {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                source
            })
        })
        .collect();
    until("all are connected", || open.load(Ordering::Relaxed) == clients).await;

    let confirmed = Arc::new(AtomicUsize::new(0));
    let publishing: Vec<_> = (0..publishers)
        .map(|publisher| {
            let (ports, stop) = (Arc::clone(&ports), Arc::clone(&stop));
            let confirmed = Arc::clone(&confirmed);
            tokio::spawn(async move {
                let mut sent = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("{publisher}:{}", sent.len());
                    let id = timeout(DEADLINE, post(&ports, publisher, &name)).await;
                    sent.push((id.expect("an instance is there"), name));
                    confirmed.fetch_add(1, Ordering::Relaxed);
                }
                sent
            })
        })
        .collect();

    let start = Instant::now();
    for kill in 0..kills as usize {
        let before = confirmed.load(Ordering::Relaxed);
        until("publishing goes on", || confirmed.load(Ordering::Relaxed) > before + 20).await;
        let at = kill % count;
        processes[at].kill();
        let restarted = Process::start(server);
        // The killed instance gives its port back only when no client looks for it there.
        ports.lock().unwrap()[at] = restarted.port;
        processes[at] = restarted;
    }
    let before = confirmed.load(Ordering::Relaxed);
    until("publishing goes on", || confirmed.load(Ordering::Relaxed) > before + 20).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = std::collections::BTreeMap::new();
    for publisher in publishing {
        all.extend(publisher.await.unwrap());
    }
    let end = post(&ports, 0, "end").await;
    all.insert(end, "end".to_owned());

    let mut moved = 0;
    for (number, client) in reading.into_iter().enumerate() {
        let client = timeout(DEADLINE, client).await.expect("the end reaches all").unwrap();
        moved += client.connections - 1;
        assert_eq!(client.gaps, 0, "client {number}");
        let first = client.first.unwrap();
        let expected: Vec<_> = all.range(first..).filter(|(id, _)| **id > first).collect();
        let seen: Vec<_> = client.seen.iter().map(|(id, name)| (id, name)).collect();
        assert_eq!(
            seen.len(),
            expected.len(),
            "client {number}, of {} connections",
            client.connections
        );
        assert!(seen == expected, "client {number} has another sequence");
    }
    let took = start.elapsed();
    let events = all.len();
    println!(
        "{kills} kills of {count} instances: {clients} clients moved {moved} times, {events} events each, exact ({took:?})"
    );
    assert!(moved >= kills as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn clients_of_a_killed_instance_resume_at_another() {
    let server = Server::start(&[]);
    let kills = std::env::var("SSE_HUB_ROUNDS").ok().and_then(|kills| kills.parse().ok());
    kill_instances(&server, 2, 20, 2, kills.unwrap_or(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn thousand_clients_of_three_killed_instances() {
    let server = Server::start(&[]);
    kill_instances(&server, 3, 1_000, 8, 3).await;
}
