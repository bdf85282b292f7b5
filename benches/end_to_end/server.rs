//! The servers to compare. Each is a process with a single thread that serves.
//!
//! The load sends commands over a connection of their own. The task that reads the commands
//! publishes, as a handler of a request would.
//!
//! | command | the server |
//! |---|---|
//! | `all COUNT` | publishes so many events for all clients at once |
//! | `one USER TIME` | publishes an event for one user; `TIME` comes back in the event |
//! | `state` | answers with the number of clients and of tasks |

use std::collections::HashMap;
use std::convert::Infallible;
use std::env;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::str::{self, FromStr};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{Sse, sse};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use futures_util::{Stream, stream};
use memchr::{memchr, memmem};
use mio::{Events, Interest, Poll, Token};
use serde::Deserialize;
use slab::Slab;
use socket2::{Domain, Socket, Type};
use sse_hub::{
    Event, Heartbeat, Hub, LastEventId, Refused, Retain, Subscriber, Subscription, TokioTimer,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use crate::event::{self, TO_ALL, TO_ONE};

/// The queue of connections that wait for `accept`. The kernel may allow fewer.
const BACKLOG: i32 = 4096;

/// The events that the hub retains: more than a client can be behind. The log must be full before
/// memory is measured, because it grows until then.
pub(crate) const RETAINED: usize = 1024;

/// Longer than a run: the servers arm their heartbeats, and none is sent.
const HEARTBEAT: Duration = Duration::from_secs(3600);

/// A server to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A loop that calls `send` once for each client and event: the price of the kernel alone.
    Bare,
    /// axum's `Sse` over `tokio::sync::broadcast`.
    AxumSse,
    /// The hub on `axum::serve`.
    HubAxum,
    /// The hub on `sse_hub::serve`.
    #[cfg(feature = "serve")]
    HubServe,
}

impl Peer {
    /// All peers. The first is the measure for the others.
    pub(crate) const ALL: &[Self] = &[
        Self::Bare,
        Self::AxumSse,
        Self::HubAxum,
        #[cfg(feature = "serve")]
        Self::HubServe,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare send",
            Self::AxumSse => "axum Sse",
            Self::HubAxum => "hub on axum::serve",
            #[cfg(feature = "serve")]
            Self::HubServe => "hub on serve",
        }
    }

    /// Whether an event can be published for one client.
    pub(crate) fn has_users(self) -> bool {
        self != Self::AxumSse
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let peer = Self::ALL.iter().find(|peer| peer.name() == name);
        peer.copied().ok_or_else(|| format!("no such peer: {name}"))
    }
}

/// Serves until the load closes the connection for commands. Logs to the standard error, if
/// `RUST_LOG` is set.
pub(crate) fn run(peer: Peer) -> io::Result<()> {
    if peer == Peer::Bare {
        return bare();
    }
    // As many threads as the server has processors.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    }
    // Everything is spawned: the thread of `block_on` takes no part in serving.
    runtime.block_on(runtime.spawn(serve(peer)))?
}

async fn serve(peer: Peer) -> io::Result<()> {
    match peer {
        Peer::Bare => unreachable!("the bare loop needs no runtime"),
        Peer::AxumSse => {
            let (app, commands) = axum_sse();
            on_axum(app, commands).await
        }
        Peer::HubAxum => {
            let (app, commands) = hub();
            on_axum(app, commands).await
        }
        #[cfg(feature = "serve")]
        Peer::HubServe => {
            let (app, commands) = hub();
            on_serve(app, commands).await
        }
    }
}

fn announce(clients: SocketAddr, commands: SocketAddr) {
    println!("{} {}", clients.port(), commands.port());
}

/// A command of the load.
enum Command {
    All { count: usize },
    One { user: usize, asked: u64 },
    State,
}

impl Command {
    fn parse(line: &str) -> Self {
        let mut words = line.split_ascii_whitespace();
        let number = |word: Option<&str>| -> u64 {
            word.and_then(|word| word.parse().ok())
                .unwrap_or_else(|| panic!("not a command: {line}"))
        };
        match words.next() {
            Some("all") => Self::All { count: number(words.next()) as usize },
            Some("one") => {
                Self::One { user: number(words.next()) as usize, asked: number(words.next()) }
            }
            Some("state") => Self::State,
            _ => panic!("not a command: {line}"),
        }
    }
}

// The servers on tokio.

/// The actions of the commands in a server.
trait Commands: Send + 'static {
    /// Publishes the event with this position for all clients.
    fn all(&self, number: u64);
    fn one(&self, user: usize, asked: u64);
    fn clients(&self) -> usize;
}

/// Serves as the documentation of axum does, with `TCP_NODELAY`: without this option, an event may
/// wait for the acknowledgement of the last.
async fn on_axum(app: Router, commands: impl Commands) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        // Fails if the client is gone.
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    obey(address, commands).await
}

/// Carries out the commands of the load.
async fn obey(address: SocketAddr, commands: impl Commands) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    announce(address, listener.local_addr()?);
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    tokio::spawn(read_commands(stream, commands)).await?
}

async fn read_commands(stream: TcpStream, commands: impl Commands) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut published = 0;
    while let Some(line) = lines.next_line().await? {
        match Command::parse(&line) {
            Command::All { count } => {
                for _ in 0..count {
                    commands.all(published);
                    published += 1;
                }
            }
            Command::One { user, asked } => commands.one(user, asked),
            Command::State => {
                let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
                write.write_all(format!("{} {tasks}\n", commands.clients()).as_bytes()).await?;
            }
        }
    }
    Ok(())
}

impl Commands for Hub {
    fn all(&self, number: u64) {
        let event = Event::new("n").data(event::data(TO_ALL, number));
        self.broadcast(event).expect("the event is valid");
    }

    fn one(&self, user: usize, asked: u64) {
        let event = Event::new("n").data(event::data(TO_ONE, asked));
        self.send_to_user(user.to_string(), event).expect("the event is valid");
    }

    fn clients(&self) -> usize {
        self.stats().clients
    }
}

/// The query of a client's request.
#[derive(Deserialize)]
struct Identity {
    user: Option<usize>,
}

fn hub() -> (Router, impl Commands) {
    async fn events(
        State(hub): State<Hub>,
        Query(Identity { user }): Query<Identity>,
        last: LastEventId,
    ) -> Result<Subscription, Refused> {
        let subscriber = Subscriber::new().resume(last);
        hub.subscribe(match user {
            Some(user) => subscriber.user(user.to_string()),
            None => subscriber,
        })
    }

    let heartbeat = Heartbeat::every(Heartbeat::default(), HEARTBEAT);
    let retain = Retain::default().events(RETAINED);
    let hub = Hub::builder(TokioTimer::new()).heartbeat(heartbeat).retain(retain).build();
    let hub = hub.expect("the settings are valid");
    (Router::new().route("/events", get(events)).with_state(hub.clone()), hub)
}

#[cfg(feature = "serve")]
async fn on_serve(app: Router, commands: impl Commands) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { sse_hub::serve(listener, app).await });
    obey(address, commands).await
}

struct Channel {
    sender: broadcast::Sender<sse::Event>,
}

impl Commands for Channel {
    fn all(&self, number: u64) {
        let event = sse::Event::default().event("n").data(event::data(TO_ALL, number));
        // Fails if there is no client.
        let _ = self.sender.send(event.id(id(number)));
    }

    fn one(&self, _: usize, _: u64) {
        unreachable!("a broadcast channel has no users");
    }

    fn clients(&self) -> usize {
        self.sender.receiver_count()
    }
}

fn axum_sse() -> (Router, impl Commands) {
    async fn events(
        State(sender): State<broadcast::Sender<sse::Event>>,
    ) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
        let events = stream::unfold(sender.subscribe(), |mut receiver| async {
            let event = receiver.recv().await.expect("no client lags, and the sender stays");
            Some((Ok(event), receiver))
        });
        Sse::new(events).keep_alive(sse::KeepAlive::new().interval(HEARTBEAT))
    }

    let (sender, _) = broadcast::channel(128);
    (Router::new().route("/events", get(events)).with_state(sender.clone()), Channel { sender })
}

/// Returns an event id as long as those of the hub.
fn id(number: u64) -> String {
    format!("1700000000000-{number}")
}

// The bare loop.

/// The listener, and the connection for commands. Clients have smaller tokens.
const LISTENER: Token = Token(usize::MAX);
const COMMANDS: Token = Token(usize::MAX - 1);

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// A thread, an epoll instance and a list of sockets.
struct Bare {
    poll: Poll,
    listener: mio::net::TcpListener,
    clients: Slab<Client>,
    /// The client of each user.
    users: HashMap<usize, usize>,
    published: u64,
}

struct Client {
    stream: mio::net::TcpStream,
    /// Whether the request came.
    is_open: bool,
    user: Option<usize>,
}

fn bare() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    let mut listener = mio::net::TcpListener::from_std(socket.into());
    let commands = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(listener.local_addr()?, commands.local_addr()?);
    let (commands, _) = commands.accept()?;
    commands.set_nonblocking(true)?;
    commands.set_nodelay(true)?;
    let mut commands = mio::net::TcpStream::from_std(commands);

    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut commands, COMMANDS, Interest::READABLE)?;
    let (clients, users) = (Slab::new(), HashMap::new());
    Bare { poll, listener, clients, users, published: 0 }.serve(commands)
}

impl Bare {
    /// Serves until the load closes the connection for commands.
    fn serve(mut self, mut commands: mio::net::TcpStream) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let (mut lines, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    COMMANDS => loop {
                        match commands.read(&mut buffer) {
                            Ok(0) => return Ok(()),
                            Ok(read) => lines.extend_from_slice(&buffer[..read]),
                            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                        while let Some(end) = memchr(b'\n', &lines) {
                            let line: Vec<u8> = lines.drain(..=end).collect();
                            self.obey(str::from_utf8(&line).expect("text"), &mut commands)?;
                        }
                    },
                    Token(client) => self.read(client, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut stream, _) = match self.listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                accepted => accepted?,
            };
            let entry = self.clients.vacant_entry();
            let token = Token(entry.key());
            // Fails if the client is gone.
            let _ = stream.set_nodelay(true);
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            entry.insert(Client { stream, is_open: false, user: None });
        }
    }

    /// Answers a request, which comes as a whole, or notices that the client is gone.
    fn read(&mut self, key: usize, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => self.remove(key),
            Ok(_) if client.is_open => {}
            Ok(read) => {
                let user = memmem::find(&buffer[..read], b"?user=").map(|at| {
                    let digits =
                        buffer[at + 6..read].iter().take_while(|byte| byte.is_ascii_digit());
                    digits.fold(0, |user, &digit| user * 10 + usize::from(digit - b'0'))
                });
                client.is_open = true;
                client.user = user;
                if let Some(user) = user {
                    self.users.insert(user, key);
                }
                if !is_sent(&mut self.clients[key].stream, HEAD) {
                    self.remove(key);
                }
            }
        }
    }

    fn remove(&mut self, key: usize) {
        let client = self.clients.remove(key);
        if let Some(user) = client.user {
            self.users.remove(&user);
        }
    }

    fn obey(&mut self, line: &str, commands: &mut mio::net::TcpStream) -> io::Result<()> {
        match Command::parse(line) {
            Command::All { count } => (0..count).for_each(|_| self.all()),
            Command::One { user, asked } => {
                let frame = chunk(&event::data(TO_ONE, asked), asked);
                let Some(&key) = self.users.get(&user) else { return Ok(()) };
                if !is_sent(&mut self.clients[key].stream, &frame) {
                    self.remove(key);
                }
            }
            Command::State => {
                let open = self.clients.iter().filter(|(_, client)| client.is_open).count();
                commands.write_all(format!("{open} 0\n").as_bytes())?;
            }
        }
        Ok(())
    }

    fn all(&mut self) {
        let frame = chunk(&event::data(TO_ALL, self.published), self.published);
        self.published += 1;
        let mut gone = Vec::new();
        for (key, client) in &mut self.clients {
            if client.is_open && !is_sent(&mut client.stream, &frame) {
                gone.push(key);
            }
        }
        gone.into_iter().for_each(|key| self.remove(key));
    }
}

/// Sends without waiting. Returns `false` if the client is gone or does not read.
fn is_sent(stream: &mut mio::net::TcpStream, bytes: &[u8]) -> bool {
    stream.write(bytes).is_ok_and(|written| written == bytes.len())
}

fn chunk(data: &str, number: u64) -> Vec<u8> {
    let frame = format!("event: n\ndata: {data}\nid: {}\n\n", id(number));
    format!("{:x}\r\n{frame}\r\n", frame.len()).into_bytes()
}
