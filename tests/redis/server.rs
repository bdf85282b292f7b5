//! A redis-server of one's own, and a wire to it that can be cut.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// For what takes milliseconds on a machine that has nothing else to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How many bytes of each connection are recorded.
const RECORDED: usize = 8 << 10;

/// Killed, and its directory removed, when it is dropped.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    port: u16,
    options: Vec<String>,
}

impl Server {
    /// One that writes each command to its disk before it answers.
    pub(crate) fn durable() -> Self {
        Self::start(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn start(options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sse-hub-redis-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory for redis-server");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let port = free_port();
        let child = spawn(&directory, port, &options);
        let server = Self { child, directory, port, options };
        server.wait_until_it_answers();
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// As when its machine loses power, but for what the operating system has not written.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Starts it again after it was killed. Returns when it answers.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.directory, self.port, &self.options);
        self.wait_until_it_answers();
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

    /// Runs a command, its parts divided by blanks.
    pub(crate) fn run<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_run(command).expect(command)
    }

    pub(crate) fn try_run<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        let mut parts = command.split(' ');
        let mut command = redis::cmd(parts.next().unwrap_or_default());
        command.arg(parts.collect::<Vec<_>>()).query(&mut connection)
    }

    fn wait_until_it_answers(&self) {
        let start = Instant::now();
        while let Err(error) = self.try_run::<String>("PING") {
            assert!(start.elapsed() < DEADLINE, "redis-server does not answer: {error}");
            // Nothing tells when it does.
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(directory: &Path, port: u16, options: &Vec<String>) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .arg("--dir")
        .arg(directory)
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server on the PATH: install it (Debian: redis-server)")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Line {
    Open,
    /// Nothing arrives, and nobody is told. What was sent arrives when it is open again.
    Silent,
    /// Connections are dropped.
    Down,
}

/// A wire to a server.
pub(crate) struct Wire {
    port: u16,
    line: watch::Sender<(Line, u32)>,
    target: Arc<Mutex<u16>>,
    /// What was sent to the server first, over each connection.
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
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
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let mut line = lines.subscribe();
                let (_, downs) = *line.borrow_and_update();
                let to = Arc::clone(&to);
                let sent = Arc::clone(&all_sent);
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
                    tokio::spawn(carry(from_client, to_server, line.clone(), downs, record));
                    carry(from_server, to_client, line, downs, |_| {}).await;
                });
            }
        });
        Self { port, line, target, sent, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_modify(|(now, downs)| {
            // Counted, so that it is noticed however short it is.
            *downs += u32::from(line == Line::Down);
            *now = line;
        });
    }

    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().unwrap().clone()
    }

    /// Leads to another server, once it is open again.
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

/// Carries bytes until the line is down, or was since it was down so often.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<(Line, u32)>,
    downs: u32,
    mut record: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 64 << 10];
    let mut other = line.clone();
    loop {
        let read = tokio::select! {
            _ = other.wait_for(|(_, now)| *now != downs) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        record(&buffer[..count]);
        if !opens(&mut line, downs).await || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits while the line is silent; `false` if it was down.
async fn opens(line: &mut watch::Receiver<(Line, u32)>, downs: u32) -> bool {
    let changed = line.wait_for(|(line, now)| *line != Line::Silent || *now != downs).await;
    changed.is_ok_and(|now| *now == (Line::Open, downs))
}
