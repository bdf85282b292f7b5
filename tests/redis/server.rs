//! A redis-server for a test, and a wire to the server that can be slow, silent or cut.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, IntoConnectionInfo as _};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ports::Port;

/// The limit for steps that take milliseconds on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The number of recorded bytes of each connection.
const RECORDED: usize = 32 << 10;

/// A running redis-server. Dropping the value kills the process and removes the directory.
pub(crate) struct Server {
    child: Child,
    directory: TempDir,
    /// The first is the server's own.
    ports: Vec<Port>,
    options: Vec<String>,
}

/// Stands for a further port in the options of [`Server::start`].
pub(crate) const PORT: &str = "{port}";

/// How often a server that exits is started at other ports.
pub(crate) const ATTEMPTS: usize = 20;

impl Server {
    /// Starts a server that writes each command to the disk before the answer.
    pub(crate) fn durable() -> Self {
        Self::start(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn start(options: &[&str]) -> Self {
        for _ in 0..ATTEMPTS {
            let mut ports = vec![Port::take()];
            let mut resolved = Vec::new();
            for &option in options {
                if option == PORT {
                    ports.push(Port::take());
                    resolved.push(ports.last().unwrap().number().to_string());
                } else {
                    resolved.push(option.to_owned());
                }
            }
            let directory = TempDir::new().expect("a directory for redis-server");
            let child = spawn(directory.path(), ports[0].number(), &resolved);
            let mut server = Self { child, directory, ports, options: resolved };
            if server.answers() {
                return server;
            }
            // Another program has a port of these.
        }
        panic!("redis-server exits at {ATTEMPTS} different ports: start it by hand to see why");
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports[0].number()
    }

    /// Returns the ports that stand for [`PORT`] in the options.
    pub(crate) fn further_port(&self, index: usize) -> u16 {
        self.ports[1 + index].number()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Kills the server: data that the operating system has not written stays intact.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Starts a killed server again. Returns when the server answers.
    pub(crate) fn restart(&mut self) {
        let start = Instant::now();
        loop {
            self.child = spawn(self.directory.path(), self.port(), &self.options);
            if self.answers() {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "redis-server exits at its old port");
        }
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill");
        assert!(status.success());
    }

    /// Runs a command whose parts are divided by blanks.
    pub(crate) fn run<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_run(command).expect(command)
    }

    pub(crate) fn try_run<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut connection = connect(self.port(), DEADLINE)?;
        let mut parts = command.split(' ');
        let mut command = redis::cmd(parts.next().unwrap_or_default());
        command.arg(parts.collect::<Vec<_>>()).query(&mut connection)
    }

    /// Returns how often clients and scripts called each command.
    pub(crate) fn commands(&self) -> Vec<(String, u64)> {
        let stats: String = self.run("INFO commandstats");
        let line = |line: &str| {
            let (name, counts) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), counts.split(',').next()?.parse().ok()?))
        };
        stats.lines().filter_map(line).collect()
    }

    /// Waits until the server answers. Returns `false` if the server has exited.
    fn answers(&mut self) -> bool {
        let port = self.port();
        answers(&mut self.child, port)
    }
}

/// Waits until a redis-server or a sentinel answers at the port. Returns `false` if the process has
/// exited.
pub(crate) fn answers(child: &mut Child, port: u16) -> bool {
    let start = Instant::now();
    // Another server can have the port.
    let own = format!("process_id:{}\r\n", child.id());
    loop {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        let info = info(port);
        if info.as_ref().is_ok_and(|info| info.contains(&own)) {
            return true;
        }
        assert!(start.elapsed() < DEADLINE, "redis-server does not answer: {info:?}");
        // No signal says when the server answers.
        thread::sleep(Duration::from_millis(2));
    }
}

fn info(port: u16) -> redis::RedisResult<String> {
    // Short: another program that has the port may never answer.
    let mut connection = connect(port, Duration::from_secs(2))?;
    redis::cmd("INFO").arg("server").query(&mut connection)
}

/// Connects to a server. `limit` holds for the connection, and for each answer.
pub(crate) fn connect(port: u16, limit: Duration) -> redis::RedisResult<Connection> {
    connect_to(&format!("redis://127.0.0.1:{port}"), limit)
}

/// Connects to an address, as the crate does: without `CLIENT SETINFO`, which servers since Redis
/// 7.2 know, and would count or refuse.
pub(crate) fn connect_to(url: &str, limit: Duration) -> redis::RedisResult<Connection> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let client = redis::Client::open(info.set_redis_settings(settings))?;
    let connection = client.get_connection_with_timeout(limit)?;
    connection.set_read_timeout(Some(limit))?;
    Ok(connection)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, port: u16, options: &[String]) -> Child {
    program()
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .arg("--dir")
        .arg(directory)
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect(NO_PROGRAM)
}

/// The message if [`program`] does not start.
pub(crate) const NO_PROGRAM: &str =
    "redis-server on the PATH (Debian: redis-server), or the program of SSE_HUB_REDIS_SERVER";

/// Returns the server under test: `SSE_HUB_REDIS_SERVER`, a path such as that of a valkey-server, or
/// else the redis-server on the `PATH`.
pub(crate) fn program() -> Command {
    Command::new(env::var_os("SSE_HUB_REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
}

/// An address at which no program listens while this value lives.
pub(crate) struct Nobody(tokio::net::TcpSocket);

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Bound, so that no other program gets the port. The socket never listens.
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

/// The fate of sent bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Line {
    Open,
    /// No byte arrives, without an error. The bytes arrive when the line is open again.
    Silent,
    /// Connections are dropped.
    Down,
}

/// A wire to a server.
pub(crate) struct Wire {
    port: u16,
    line: watch::Sender<(Line, u32)>,
    target: Arc<Mutex<u16>>,
    /// The first bytes that each connection sent to the server.
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    meter: Arc<Meter>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Meter {
    /// Bytes in a second, each way, of each connection. Zero is no limit.
    speed: AtomicU64,
    /// The bytes that the server has sent.
    received: AtomicU64,
    /// Connections with a lower number carry no more bytes.
    forgotten: AtomicUsize,
}

impl Meter {
    /// Waits as long as the bytes take.
    async fn carry(&self, bytes: usize) {
        let speed = self.speed.load(Ordering::Relaxed);
        if speed > 0 {
            tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / speed as f64)).await;
        }
    }

    fn has_forgotten(&self, connection: usize) -> bool {
        connection < self.forgotten.load(Ordering::Relaxed)
    }
}

impl Wire {
    pub(crate) async fn to(server: &Server) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = watch::Sender::new((Line::Open, 0));
        let target = Arc::new(Mutex::new(server.port()));
        let (lines, to) = (line.clone(), Arc::clone(&target));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let all_sent = Arc::clone(&sent);
        let meter = Arc::new(Meter::default());
        let metered = Arc::clone(&meter);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let mut line = lines.subscribe();
                let (_, downs) = *line.borrow_and_update();
                let to = Arc::clone(&to);
                let sent = Arc::clone(&all_sent);
                let meter = Arc::clone(&metered);
                tokio::spawn(async move {
                    if !opens(&mut line, downs).await {
                        return;
                    }
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *to.lock().unwrap()));
                    let Ok(server) = tokio::net::TcpStream::connect(address).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let connection = {
                        let mut sent = sent.lock().unwrap();
                        sent.push(Vec::new());
                        sent.len() - 1
                    };
                    let record = move |bytes: &[u8]| {
                        let sent = &mut sent.lock().unwrap()[connection];
                        let room = RECORDED - sent.len();
                        sent.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    };
                    let there = Way { line: line.clone(), downs, meter, connection };
                    let back = there.clone();
                    let count = Arc::clone(&back.meter);
                    tokio::spawn(there.carry(from_client, to_server, record));
                    let record = move |bytes: &[u8]| {
                        count.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    };
                    back.carry(from_server, to_client, record).await;
                });
            }
        });
        Self { port, line, target, sent, meter, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_modify(|(now, downs)| {
            // Counted, so that connections also notice a short cut.
            *downs += u32::from(line == Line::Down);
            *now = line;
        });
    }

    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().unwrap().clone()
    }

    /// From now on, carries so many bytes in a second, each way, on each connection.
    pub(crate) fn limit(&self, bytes_a_second: u64) {
        self.meter.speed.store(bytes_a_second, Ordering::Relaxed);
    }

    /// Returns how many bytes the server has sent.
    pub(crate) fn received(&self) -> u64 {
        self.meter.received.load(Ordering::Relaxed)
    }

    /// Stops carrying bytes of the present connections, without closing the connections, as a
    /// firewall does that has forgotten them. New connections work.
    pub(crate) fn forget(&self) {
        let connections = self.sent.lock().unwrap().len();
        self.meter.forgotten.store(connections, Ordering::Relaxed);
    }

    /// Leads new connections to another server.
    pub(crate) fn lead_to(&self, server: &Server) {
        *self.target.lock().unwrap() = server.port();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Line::Down);
    }
}

/// A direction of a connection.
#[derive(Clone)]
struct Way {
    line: watch::Receiver<(Line, u32)>,
    /// How often the line had been down when the connection was made.
    downs: u32,
    meter: Arc<Meter>,
    connection: usize,
}

impl Way {
    /// Carries bytes until the line is down, or was down meanwhile.
    async fn carry(
        mut self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut record: impl FnMut(&[u8]),
    ) {
        let mut buffer = vec![0; 64 << 10];
        let mut other = self.line.clone();
        loop {
            // Small pieces, so that a slow line is steady.
            let most =
                if self.meter.speed.load(Ordering::Relaxed) > 0 { 4 << 10 } else { 64 << 10 };
            let read = tokio::select! {
                _ = other.wait_for(|(_, now)| *now != self.downs) => return,
                read = from.read(&mut buffer[..most]) => read,
            };
            let Ok(count @ 1..) = read else { return };
            record(&buffer[..count]);
            self.meter.carry(count).await;
            if self.meter.has_forgotten(self.connection) {
                let _ = other.wait_for(|(_, now)| *now != self.downs).await;
                return;
            }
            let opens = opens(&mut self.line, self.downs).await;
            if !opens || to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }
}

/// Waits while the line is silent. Returns `false` if the line was down.
async fn opens(line: &mut watch::Receiver<(Line, u32)>, downs: u32) -> bool {
    let changed = line.wait_for(|(line, now)| *line != Line::Silent || *now != downs).await;
    changed.is_ok_and(|now| *now == (Line::Open, downs))
}
