//! The load: a process that holds the clients of a server.
//!
//! A single thread reads all sockets with an epoll instance, and counts events by their first byte.
//! While a command is under way, the thread does not sleep: a server that had to wake the load for
//! each event would pay for that, and a slower server would pay more often.
//!
//! Commands come over the standard input. The answer to each is a line.
//!
//! | command | the load | the answer |
//! |---|---|---|
//! | `connect COUNT WINDOW USERS` | connects, with at most `WINDOW` clients on their way | `Connected` |
//! | `all ROUNDS BURST` | asks for a burst, reads it at all clients, asks for the next | `Delivered` |
//! | `one MILLIS PAUSE_MICROS ALL_MICROS` | asks for events for single users, beside events for all | `Delivered` |
//! | `churn SECONDS RATE PUBLISHES` | connects and leaves while others stay | `Churned` |
//! | `state` | asks the server | `ServerState` |

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::{Duration, Instant};

use memchr::{memchr2_iter, memmem};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::event::{self, HEADER, Header, TO_ALL, TO_ONE};

/// The limit of each step. The slowest server connects 9,000 clients at once within 15 s.
const DEADLINE: Duration = Duration::from_secs(90);

/// Clients connect from so many addresses, because the ports of an address are fewer than the
/// clients of a run.
const SOURCES: u64 = 64;
const PORTS: std::ops::Range<u64> = 10_000..32_000;

/// How long a client of the churn stays.
const STAY: Duration = Duration::from_millis(100);

/// The most clients of the churn at a time.
const MOST_CHURNING: usize = 5_000;

/// The room before a read for the rest of the last: a head, or the beginning of an event.
const REST: usize = 4096;

/// `connect` goes on in the background.
const EINPROGRESS: i32 = 115;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// An answer: numbers in a line.
pub(crate) trait Answer: Sized {
    fn from_numbers(numbers: &[u64]) -> Option<Self>;
}

macro_rules! answers {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: u64,)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(write!(f, "{} ", self.$field)?;)*
                Ok(())
            }
        }

        impl Answer for $name {
            fn from_numbers(numbers: &[u64]) -> Option<Self> {
                let [$($field,)*] = *numbers else { return None };
                Some(Self { $($field,)* })
            }
        }
    )*};
}

answers! {
    Connected {
        /// In nanoseconds.
        took,
        /// Connections that were lost before the answer came.
        lost,
    }
    /// Times are in nanoseconds, from the publishing to the read.
    Delivered {
        took,
        count,
        p50,
        p99,
        max,
        /// The same from when the load asked. Only for events to single users.
        asked_p50,
        asked_p99,
    }
    Churned {
        connected,
        failed,
        /// Events that a client which stayed missed, or received twice or out of order.
        faults,
        /// Events that all clients which stayed received.
        delivered,
    }
    ServerState {
        clients,
        tasks,
    }
}

/// Carries out commands until the standard input ends.
pub(crate) fn run(clients: u16, commands: u16) -> Result<()> {
    let mut load = Load::new(clients, commands)?;
    for line in io::stdin().lines() {
        match load.obey(&line?) {
            Ok(answer) => println!("ok {answer}"),
            Err(error) => println!("error {error}"),
        }
    }
    Ok(())
}

/// A client of the server.
struct Client {
    stream: mio::net::TcpStream,
    phase: Phase,
    user: Option<usize>,
    churns: bool,
    /// Distinguishes clients that had the same key.
    serial: u64,
    /// The end of the last read: the beginning of a head, or of the data of an event.
    rest: Vec<u8>,
    /// The position of the next event, once the first event came.
    expects: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// The request was sent.
    Asked,
    /// The head of the response came.
    Open,
}

/// The parts of events that the load reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measure {
    Count,
    DelaysToAll,
    DelaysToOne,
    Order,
}

/// The answers of the server since the command began.
#[derive(Default)]
struct Seen {
    heads: i64,
    /// Events, without those of the churn.
    to_all: u64,
    to_one: u64,
    delays: Vec<u64>,
    asked: Vec<u64>,
    faults: u64,
    /// Clients that lost their connection, unless they churn.
    lost: Vec<Option<usize>>,
    /// Clients of the churn that lost their connection before they left.
    failed: u64,
}

struct Load {
    poll: Poll,
    server: SocketAddr,
    commands: TcpStream,
    answers: BufReader<TcpStream>,
    clients: Slab<Client>,
    /// How many connections were tried.
    tried: u64,
    /// The user of the next client.
    users: usize,
    measure: Measure,
    seen: Seen,
    events: Events,
    buffer: Vec<u8>,
}

impl Load {
    fn new(clients: u16, commands: u16) -> Result<Self> {
        let commands = TcpStream::connect((Ipv4Addr::LOCALHOST, commands))?;
        commands.set_nodelay(true)?;
        Ok(Self {
            poll: Poll::new()?,
            server: (Ipv4Addr::LOCALHOST, clients).into(),
            answers: BufReader::new(commands.try_clone()?),
            commands,
            clients: Slab::new(),
            tried: 0,
            users: 0,
            measure: Measure::Count,
            seen: Seen::default(),
            events: Events::with_capacity(1024),
            buffer: vec![0; REST + 64 * 1024],
        })
    }

    fn obey(&mut self, line: &str) -> Result<String> {
        let mut words = line.split_ascii_whitespace();
        let command = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map(str::parse).collect::<std::result::Result<_, _>>()?;
        self.seen = Seen::default();
        self.measure = Measure::Count;
        Ok(match (command, &*numbers) {
            ("connect", &[count, window, users]) => {
                self.connect(count as i64, window as i64, users != 0)?.to_string()
            }
            ("all", &[rounds, burst]) => self.all(rounds, burst)?.to_string(),
            ("one", &[millis, pause, all]) => {
                let every = Duration::from_micros;
                self.one(Duration::from_millis(millis), every(pause), every(all))?
            }
            ("churn", &[seconds, rate, publishes]) => {
                self.churn(Duration::from_secs(seconds), rate, publishes)?.to_string()
            }
            ("state", []) => self.state()?.to_string(),
            _ => return Err(format!("not a command: {line}").into()),
        })
    }

    fn connect(&mut self, count: i64, window: i64, users: bool) -> Result<Connected> {
        let begun = Instant::now();
        let (mut started, mut lost) = (0, 0);
        while self.seen.heads < count {
            while started < count && started - self.seen.heads < window {
                self.start(users.then_some(self.users), false)?;
                self.users += 1;
                started += 1;
                if started % 64 == 0 {
                    self.step(Duration::ZERO)?;
                }
            }
            self.step(Duration::ZERO)?;
            for user in std::mem::take(&mut self.seen.lost) {
                lost += 1;
                self.start(user, false)?;
            }
            within(begun, || format!("{} of {count} clients are connected", self.seen.heads))?;
        }
        Ok(Connected { took: nanos(begun), lost })
    }

    /// Asks for bursts in turn: each begins when all clients have the last.
    fn all(&mut self, rounds: u64, burst: u64) -> Result<Delivered> {
        // In a burst, the first event waits for the last to be published: there is no delay to
        // compare.
        self.measure = if burst == 1 { Measure::DelaysToAll } else { Measure::Count };
        let begun = Instant::now();
        for round in 1..=rounds {
            self.commands.write_all(format!("all {burst}\n").as_bytes())?;
            let expected = round * burst * self.clients.len() as u64;
            while self.seen.to_all < expected {
                self.step(Duration::ZERO)?;
                self.check_living()?;
                within(begun, || format!("{} of {expected} events came", self.seen.to_all))?;
            }
        }
        let took = nanos(begun);
        Ok(self.delivered(took, rounds * burst * self.clients.len() as u64))
    }

    fn one(&mut self, during: Duration, pause: Duration, all: Duration) -> Result<String> {
        self.measure = Measure::DelaysToOne;
        let users = self.clients.len() as u64;
        let (mut ones, mut alls) = (0, 0);
        let begun = Instant::now();
        while begun.elapsed() < during {
            if begun.elapsed() >= all * alls {
                self.commands.write_all(b"all 1\n")?;
                alls += 1;
            }
            if begun.elapsed() >= pause * ones {
                // A stride through all users that repeats none early.
                let user = (u64::from(ones) * 7919) % users;
                let command = format!("one {user} {}\n", event::now());
                self.commands.write_all(command.as_bytes())?;
                ones += 1;
            }
            self.step(Duration::ZERO)?;
        }
        let (ones, alls) = (u64::from(ones), u64::from(alls) * users);
        while self.seen.to_one < ones || self.seen.to_all < alls {
            self.step(Duration::ZERO)?;
            self.check_living()?;
            within(begun, || format!("{} of {ones} events came", self.seen.to_one))?;
        }
        Ok(self.delivered(nanos(begun), ones).to_string())
    }

    fn delivered(&mut self, took: u64, count: u64) -> Delivered {
        let Seen { delays, asked, .. } = &mut self.seen;
        delays.sort_unstable();
        asked.sort_unstable();
        let at = |times: &[u64], share: f64| {
            let last = times.len().saturating_sub(1) as f64;
            times.get((last * share) as usize).copied().unwrap_or_default()
        };
        Delivered {
            took,
            count,
            p50: at(delays, 0.5),
            p99: at(delays, 0.99),
            max: at(delays, 1.0),
            asked_p50: at(asked, 0.5),
            asked_p99: at(asked, 0.99),
        }
    }

    /// Clients come and go beside those that are connected.
    fn churn(&mut self, during: Duration, rate: u64, publishes: u64) -> Result<Churned> {
        self.measure = Measure::Order;
        let living = self.clients.len() as u64;
        let mut staying = VecDeque::new();
        let (mut connected, mut published) = (0, 0);
        let begun = Instant::now();
        while begun.elapsed() < during {
            let due = |rate: u64| (begun.elapsed().as_secs_f64() * rate as f64) as u64;
            while connected < due(rate) && staying.len() < MOST_CHURNING {
                let key = self.start(None, true)?;
                staying.push_back((Instant::now() + STAY, key, self.clients[key].serial));
                connected += 1;
            }
            if published < due(publishes) {
                self.commands.write_all(b"all 1\n")?;
                published += 1;
            }
            while let Some(&(until, key, serial)) = staying.front()
                && until <= Instant::now()
            {
                staying.pop_front();
                self.leave(key, serial);
            }
            self.step(Duration::from_millis(1))?;
            self.check_living()?;
        }
        for (_, key, serial) in staying {
            self.leave(key, serial);
        }
        let begun = Instant::now();
        while self.seen.to_all < living * published && begun.elapsed() < DEADLINE {
            self.step(Duration::from_millis(1))?;
            self.check_living()?;
        }
        let Seen { failed, faults, to_all, .. } = self.seen;
        let faults = faults + (living * published).abs_diff(to_all);
        Ok(Churned { connected, failed, faults, delivered: to_all })
    }

    /// Closes a connection of the churn, unless the server closed the connection before.
    fn leave(&mut self, key: usize, serial: u64) {
        if self.clients.get(key).is_some_and(|client| client.serial == serial) {
            let client = self.clients.remove(key);
            self.seen.failed += u64::from(client.phase != Phase::Open);
        }
    }

    fn state(&mut self) -> Result<ServerState> {
        self.commands.write_all(b"state\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers = line.split_ascii_whitespace().map(u64::from_str);
        let numbers: Vec<_> = numbers.collect::<std::result::Result<_, _>>()?;
        ServerState::from_numbers(&numbers).ok_or_else(|| "not a state".into())
    }

    fn check_living(&self) -> Result<()> {
        match self.seen.lost.len() {
            0 => Ok(()),
            lost => Err(format!("the server closed {lost} streams").into()),
        }
    }

    /// Begins a connection.
    fn start(&mut self, user: Option<usize>, churns: bool) -> Result<usize> {
        let mut stream = self.socket()?;
        let entry = self.clients.vacant_entry();
        let (key, serial) = (entry.key(), self.tried);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(key), interest)?;
        let (phase, rest, expects) = (Phase::Connecting, Vec::new(), None);
        entry.insert(Client { stream, phase, user, churns, serial, rest, expects });
        Ok(key)
    }

    /// Returns a socket that connects from an address and port that no other client has. A port
    /// that the kernel chooses may still wait for the last packets of an earlier client.
    fn socket(&mut self) -> Result<mio::net::TcpStream> {
        loop {
            let (source, port) = (self.tried % SOURCES, self.tried / SOURCES);
            self.tried += 1;
            let source = Ipv4Addr::new(127, 1, std::process::id() as u8, source as u8 + 1);
            let port = PORTS.start + port % (PORTS.end - PORTS.start);
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            let connected = socket
                .bind(&SocketAddr::from((source, port as u16)).into())
                .and_then(|()| socket.connect(&self.server.into()));
            match connected.map_err(|error| (error.raw_os_error(), error)) {
                Err((_, error))
                    if matches!(
                        error.kind(),
                        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
                    ) => {}
                Err((code, error)) if code != Some(EINPROGRESS) => return Err(error.into()),
                _ => return Ok(mio::net::TcpStream::from_std(socket.into())),
            }
        }
    }

    /// Handles the sockets that are ready.
    fn step(&mut self, timeout: Duration) -> Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            polled => polled?,
        }
        for event in &events {
            let key = event.token().0;
            if !self.goes_on(key) {
                self.remove(key);
            }
        }
        self.events = events;
        Ok(())
    }

    fn remove(&mut self, key: usize) {
        let client = self.clients.remove(key);
        if client.churns {
            self.seen.failed += 1;
        } else {
            self.seen.heads -= i64::from(client.phase == Phase::Open);
            self.seen.lost.push(client.user);
        }
    }

    /// Sends the request or reads. Returns `false` if the connection has ended.
    fn goes_on(&mut self, key: usize) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        if client.phase == Phase::Connecting {
            let query = client.user.map(|user| format!("?user={user}")).unwrap_or_default();
            let request = format!("GET /events{query} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            match client.stream.write(request.as_bytes()) {
                Ok(_) => client.phase = Phase::Asked,
                Err(error) if is_early(&error) => {}
                Err(_) => return false,
            }
            // The answer causes another event.
            return true;
        }
        loop {
            let room = &mut self.buffer[REST..];
            let (read, more) = match client.stream.read(room) {
                Ok(0) => return false,
                // A socket that filled the room may have more. Otherwise the next bytes cause an
                // event.
                Ok(read) => (read, read == room.len()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            };
            let begin = REST - client.rest.len();
            self.buffer[begin..REST].copy_from_slice(&client.rest);
            client.rest.clear();
            client.take(&self.buffer[begin..REST + read], self.measure, &mut self.seen);
            if !more {
                return true;
            }
        }
    }
}

impl Client {
    fn take(&mut self, mut bytes: &[u8], measure: Measure, seen: &mut Seen) {
        if self.phase == Phase::Asked {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                self.rest.extend_from_slice(bytes);
                return;
            };
            assert!(bytes.starts_with(b"HTTP/1.1 200 "), "refused");
            self.phase = Phase::Open;
            seen.heads += i64::from(!self.churns);
            bytes = &bytes[end..];
        }
        if self.churns {
            return;
        }
        let now = if measure == Measure::Count { 0 } else { event::now() };
        for at in memchr2_iter(TO_ALL, TO_ONE, bytes) {
            let Some(data) = bytes[at..].first_chunk::<HEADER>() else {
                self.rest.extend_from_slice(&bytes[at..]);
                break;
            };
            let is_to_all = data[0] == TO_ALL;
            seen.to_all += u64::from(is_to_all);
            seen.to_one += u64::from(!is_to_all);
            match measure {
                Measure::DelaysToAll if is_to_all => {
                    seen.delays.push(now.saturating_sub(Header::parse(data).published));
                }
                Measure::DelaysToOne if !is_to_all => {
                    let Header { published, number } = Header::parse(data);
                    seen.delays.push(now.saturating_sub(published));
                    seen.asked.push(now.saturating_sub(number));
                }
                Measure::Order => {
                    let Header { number, .. } = Header::parse(data);
                    seen.faults += u64::from(self.expects.is_some_and(|next| next != number));
                    self.expects = Some(number + 1);
                }
                _ => {}
            }
        }
    }
}

/// Whether the connection is not made yet.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

fn nanos(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}

/// Fails if the step takes too long.
fn within(begun: Instant, state: impl FnOnce() -> String) -> Result<()> {
    if begun.elapsed() < DEADLINE {
        return Ok(());
    }
    Err(format!("not within {DEADLINE:?}: {}", state()).into())
}
