//! The cost of publishing through Redis, compared with Redis alone. Starts a redis-server. Without
//! a redis-server on the PATH, prints a message and measures nothing.
//!
//! - Latency: from `publish` until each of 100 clients has read the event. For comparison, in
//!   turns, the time of Redis alone: for a bare, awaited `XADD`, and for a bare `XADD` until a
//!   blocked `XREAD` of another connection returns the entry.
//! - Throughput: confirmed events per second from a publisher that keeps 4096 events in flight. For
//!   comparison, in turns, a pipeline of as many bare `XADD`s.
//!
//! Run with `-- --test` for a short run.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use sse_hub::redis::Redis;
use sse_hub::{Audience, Event, Hub, Subscriber, Subscription, TokioTimer};
use tempfile::TempDir;

#[path = "../tests/support/ports.rs"]
mod ports;

use ports::Port;

const UNDER_WAY: usize = 4096;

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let Some(server) = Server::start() else {
        println!("no redis-server on the PATH: nothing is measured");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        latency(&server, if smoke { 50 } else { 5_000 }).await;
        throughput(&server, if smoke { 1 } else { 10 }).await;
    });
}

async fn latency(server: &Server, rounds: usize) {
    let hub = server.hub().await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = hub.subscribe(Subscriber::new()).expect("the hub is open");
        stream.next().await.expect("the opening");
        streams.push(stream);
    }
    let (mut connection, reader) = (server.connect().await, server.connect().await);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let start = Instant::now();
        add(&mut connection).await;
        times[0].push(start.elapsed());

        let mut reader = reader.clone();
        let reading = tokio::spawn(async move {
            let mut command = redis::cmd("XREAD");
            command.arg("BLOCK").arg(1000).arg("STREAMS").arg("bare").arg("$");
            command.query_async::<redis::Value>(&mut reader).await.expect("Redis answers");
        });
        server.until_one_is_blocked(&mut connection).await;
        let start = Instant::now();
        let (_, has_it) = tokio::join!(add(&mut connection), reading);
        has_it.expect("it reads");
        times[1].push(start.elapsed());

        let start = Instant::now();
        hub.broadcast(event()).expect("there is room");
        for stream in &mut streams {
            read(stream).await;
        }
        times[2].push(start.elapsed());
    }
    let [add, trip, through] = times.map(|mut times| {
        times.sort_unstable();
        [0.5, 0.99].map(|share| times[((times.len() - 1) as f64 * share) as usize])
    });
    for (what, [median, far]) in [
        ("bare XADD", add),
        ("bare XADD until a blocked XREAD has it", trip),
        ("publish until all of 100 clients have it", through),
    ] {
        let ratio = through[0].as_secs_f64() / median.as_secs_f64();
        println!("{what}: median {median:?}, p99 {far:?} (the last is {ratio:.2} of it)");
    }
}

async fn throughput(server: &Server, rounds: usize) {
    const EVENTS: usize = 8 * UNDER_WAY;
    let hub = server.hub().await;
    let mut connection = server.connect().await;
    let (mut bare, mut through) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..EVENTS / UNDER_WAY {
            let mut pipeline = redis::pipe();
            for _ in 0..UNDER_WAY {
                pipeline.add_command(command()).ignore();
            }
            let () = pipeline.query_async(&mut connection).await.expect("Redis answers");
        }
        bare += start.elapsed();

        let start = Instant::now();
        let mut waiting = std::collections::VecDeque::new();
        for _ in 0..EVENTS {
            if waiting.len() == UNDER_WAY {
                let oldest: sse_hub::Confirmation = waiting.pop_front().expect("one of them");
                oldest.await.expect("the backplane runs");
            }
            let sent = hub.publish_confirmed(Audience::all(), event());
            waiting.push_back(sent.expect("there is room"));
        }
        for confirmation in waiting {
            confirmation.await.expect("the backplane runs");
        }
        through += start.elapsed();
    }
    let rate = |time: Duration| (rounds * EVENTS) as f64 / time.as_secs_f64();
    println!(
        "throughput: {:.0} bare XADDs a second in pipelines of {UNDER_WAY}; {:.0} confirmed events a second, {:.0} %",
        rate(bare),
        rate(through),
        100.0 * rate(through) / rate(bare),
    );
}

fn event() -> Event {
    Event::new("news").data("x".repeat(200))
}

async fn read(stream: &mut Subscription) {
    stream.next().await.expect("the hub is open");
}

/// Returns a command as large as an event of the hub.
fn command() -> redis::Cmd {
    let mut command = redis::cmd("XADD");
    command.arg("bare").arg("MAXLEN").arg("~").arg(100_000).arg("*");
    command.arg("e").arg(&[b'x'; 222]).arg("p").arg("1795535342753-3");
    command
}

async fn add(connection: &mut MultiplexedConnection) {
    let () = command().query_async(connection).await.expect("Redis answers");
}

/// Dropping the server kills the process and removes its directory.
struct Server {
    child: Child,
    url: String,
    _directory: TempDir,
    _port: Port,
}

impl Server {
    /// Returns `None` if there is no redis-server.
    fn start() -> Option<Self> {
        const ATTEMPTS: usize = 20;
        for _ in 0..ATTEMPTS {
            let (directory, port) = (TempDir::new().expect("a directory"), Port::take());
            let child = Command::new("redis-server")
                .args(["--port", &port.number().to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--dir"])
                .arg(directory.path())
                .stdout(Stdio::null())
                .spawn();
            let url = format!("redis://127.0.0.1:{}", port.number());
            let mut server = Self { child: child.ok()?, url, _directory: directory, _port: port };
            if server.answers() {
                return Some(server);
            }
            // Another program has the port.
        }
        panic!("redis-server exits at {ATTEMPTS} different ports: start it by hand to see why");
    }

    /// Waits until the server answers. Returns `false` if it has exited.
    fn answers(&mut self) -> bool {
        let start = Instant::now();
        let own = format!("process_id:{}\r\n", self.child.id());
        while self.child.try_wait().expect("a child").is_none() {
            let info = || -> redis::RedisResult<String> {
                let mut connection = redis::Client::open(&*self.url)?.get_connection()?;
                redis::cmd("INFO").arg("server").query(&mut connection)
            };
            if info().is_ok_and(|info| info.contains(&own)) {
                return true;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "redis-server does not answer");
            thread::sleep(Duration::from_millis(2));
        }
        false
    }

    async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(&*self.url).expect("an address");
        client.get_multiplexed_async_connection().await.expect("Redis answers")
    }

    /// Waits until two connections are blocked: the hub's own reader and another.
    async fn until_one_is_blocked(&self, connection: &mut MultiplexedConnection) {
        loop {
            let mut command = redis::cmd("INFO");
            let info: String =
                command.arg("clients").query_async(connection).await.expect("Redis answers");
            if info.contains("blocked_clients:2") {
                return;
            }
        }
    }

    async fn hub(&self) -> Hub {
        let backplane =
            Redis::new(&self.url).and_then(Redis::build).expect("the settings are valid");
        let builder = Hub::builder(TokioTimer::new()).backplane(backplane.clone());
        let hub = builder.build().expect("the settings are valid");
        tokio::spawn(backplane.run(&hub));
        backplane.ready().await;
        hub
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
