//! A server on a real socket, and a client without a library.
#![allow(dead_code, unused_imports, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::serve::Listener;
use serde::Deserialize;
use sse_hub::{
    Audience, ClientId, Event, EventId, Hub, LastEventId, Refused, Subscriber, Subscription,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

mod follow;
pub(crate) use follow::{Followed, Seen};

/// The limit for steps that take milliseconds on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn publish(hub: &Hub, number: u64) -> EventId {
    hub.publish_confirmed(Audience::all(), Event::new("n").data(number.to_string()))
        .unwrap()
        .id()
        .unwrap()
}

pub(crate) fn frame(event: &str, data: &str, id: EventId) -> String {
    format!("event: {event}\ndata: {data}\nid: {id}\n\n")
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let timeout = tokio::time::timeout(DEADLINE, future).await;
    timeout.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

pub(crate) async fn eventually(deadline: Duration, what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let timeout = tokio::time::timeout(deadline, holds).await;
    timeout.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}"));
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) serving: JoinHandle<()>,
}

#[derive(Deserialize)]
pub(crate) struct Who {
    user: Option<String>,
    session: Option<String>,
    topics: Option<String>,
}

impl Server {
    pub(crate) async fn start(hub: &Hub) -> Self {
        Self::start_until(hub, std::future::pending()).await
    }

    pub(crate) async fn start_until(
        hub: &Hub,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::start_on(listener, hub, end)
    }

    pub(crate) fn start_on(
        listener: impl Listener<Addr = SocketAddr>,
        hub: &Hub,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let app = Router::new()
            .route("/events", get(events))
            .route("/last", get(last))
            .with_state(hub.clone());
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(end).await.unwrap();
        });
        Self { address, serving }
    }

    pub(crate) async fn get(&self, path: &str, last: Option<&[u8]>) -> Client {
        let client = Client::get(self.address, path, last, usize::MAX).await;
        client.expect("the server closed the connection")
    }
}

pub(crate) async fn events(
    State(hub): State<Hub>,
    Query(Who { user, session, topics }): Query<Who>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    let mut subscriber = Subscriber::new().resume(last);
    if let Some(user) = user {
        subscriber = subscriber.user(user);
    }
    if let Some(session) = session {
        subscriber = subscriber.session(session);
    }
    if let Some(topics) = topics {
        subscriber = subscriber.topics(topics.split(','));
    }
    hub.subscribe(subscriber)
}

pub(crate) async fn last(last: Option<LastEventId>) -> String {
    match last.map(LastEventId::id) {
        None => "none".to_owned(),
        Some(None) => "unknown".to_owned(),
        Some(Some(id)) => id.to_string(),
    }
}

/// A connection for a single request.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    /// How many bytes may be read before the connection is cut.
    pub(crate) budget: usize,
    pub(crate) head: Head,
    pub(crate) framing: Framing,
    /// All bytes read after the head.
    pub(crate) raw: Vec<u8>,
    /// The same without the transfer encoding and without the returned frames.
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Head {
    pub(crate) status: String,
    pub(crate) headers: BTreeMap<String, String>,
}

pub(crate) struct Open {
    pub(crate) client: ClientId,
    pub(crate) resumed: bool,
    pub(crate) retry: Duration,
    pub(crate) id: EventId,
}

impl Client {
    /// Returns `None` if the connection is cut before the end of the head.
    pub(crate) async fn get(
        address: SocketAddr,
        path: &str,
        last: Option<&[u8]>,
        budget: usize,
    ) -> Option<Self> {
        let socket = within("the connection", TcpStream::connect(address)).await.unwrap();
        Self::ask(socket, path, last, budget).await
    }

    /// Sends the request on a connected socket.
    pub(crate) async fn ask(
        socket: TcpStream,
        path: &str,
        last: Option<&[u8]>,
        budget: usize,
    ) -> Option<Self> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
        if let Some(last) = last {
            request.extend([b"last-event-id: ", last, b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        let mut client = Self {
            socket,
            budget,
            head: Head::default(),
            framing: Framing::Head,
            raw: Vec::new(),
            body: Vec::new(),
        };
        match within("the request is sent", client.socket.write_all(&request)).await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            sent => sent.unwrap(),
        }

        let end = loop {
            if let Some(end) = find(&client.raw, b"\r\n\r\n") {
                break end;
            }
            if !client.more().await {
                return None;
            }
        };
        let rest = client.raw.split_off(end + 4);
        let head = String::from_utf8(std::mem::replace(&mut client.raw, rest)).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        client.head.status = lines.next().unwrap().to_owned();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let again = client.head.headers.insert(name.to_owned(), value.to_owned());
            assert_eq!(again, None, "{name} comes twice");
        }
        client.framing = Framing::of(&client.head.headers);
        client.framing.decode(&client.raw, &mut client.body);
        Some(client)
    }

    /// Returns the client's port.
    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// Reads more bytes. Returns `false` if the connection is cut or closed.
    pub(crate) async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let room = self.budget.min(buffer.len());
        if room == 0 {
            return false;
        }
        let reading = self.socket.read(&mut buffer[..room]);
        let read = match within("something to read", reading).await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            read => read.unwrap(),
        };
        self.budget -= read;
        self.raw.extend(&buffer[..read]);
        self.framing.decode(&buffer[..read], &mut self.body);
        read > 0
    }

    /// Returns the next frame, or `None` at the end of the response, which must not be within a
    /// frame.
    pub(crate) async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.body, b"\n\n") {
                let rest = self.body.split_off(end + 2);
                let frame = std::mem::replace(&mut self.body, rest);
                return Some(String::from_utf8(frame).unwrap());
            }
            if self.framing.is_at_end() {
                assert_eq!(self.body.escape_ascii().to_string(), "");
                return None;
            }
            assert!(self.more().await, "the connection ended before the response");
        }
    }

    /// Returns the rest of the body.
    pub(crate) async fn rest(mut self) -> String {
        while !self.framing.is_at_end() {
            assert!(self.more().await, "the connection ended before the response");
        }
        String::from_utf8(self.body).unwrap()
    }

    /// Returns the first frame of a stream, which must be a valid `hub:open`.
    pub(crate) async fn open(&mut self) -> Open {
        let frame = self.frame().await.unwrap();
        let rest = frame.strip_prefix("event: hub:open\nretry: ").expect(&frame);
        let (retry, rest) = rest.split_once("\ndata: {\"client\":\"").expect(&frame);
        let (client, rest) = rest.split_once("\",\"resumed\":").expect(&frame);
        let (resumed, rest) = rest.split_once("}\nid: ").expect(&frame);
        // The period of heartbeats follows, unless the hub sends none.
        let resumed = resumed.split_once(',').map_or(resumed, |(resumed, _)| resumed);
        let id = rest.strip_suffix("\n\n").expect(&frame);
        Open {
            client: client.parse().expect(&frame),
            resumed: resumed.parse().expect(&frame),
            retry: Duration::from_millis(retry.parse().expect(&frame)),
            id: id.parse().expect(&frame),
        }
    }

    /// Returns the id of a gap, which must be the next frame.
    pub(crate) async fn gap(&mut self, reason: &str) -> EventId {
        let frame = self.frame().await.unwrap();
        let rest = frame.strip_prefix("event: hub:gap\n").expect(&frame);
        let (data, id) = rest.split_once("\nid: ").expect(&frame);
        assert_eq!(data, format!("data: {{\"reason\":\"{reason}\"}}"));
        id.strip_suffix("\n\n").expect(&frame).parse().expect(&frame)
    }
}

pub(crate) fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

/// The position of the reader in the body of a response.
#[derive(Debug, PartialEq)]
pub(crate) enum Framing {
    /// In the head.
    Head,
    /// In the line with the length of a chunk, read up to here.
    ChunkLength(Vec<u8>),
    /// In a chunk of which this many bytes are missing.
    Chunk(usize),
    /// In the line end after a chunk. True if the chunk is the last.
    ChunkEnd(&'static [u8], bool),
    /// In a body of known length of which this many bytes are missing.
    Length(usize),
    End,
}

impl Framing {
    pub(crate) fn of(headers: &BTreeMap<String, String>) -> Self {
        if let Some(length) = headers.get("content-length") {
            assert_ne!(headers["content-type"], "text/event-stream", "a stream has no length");
            return Self::Length(length.parse().unwrap()).or_end();
        }
        assert_eq!(headers["transfer-encoding"], "chunked");
        Self::ChunkLength(Vec::new())
    }

    pub(crate) fn or_end(self) -> Self {
        if self == Self::Length(0) { Self::End } else { self }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self, Self::End)
    }

    pub(crate) fn decode(&mut self, raw: &[u8], body: &mut Vec<u8>) {
        if matches!(self, Self::Head) {
            return;
        }
        for &byte in raw {
            let state = std::mem::replace(self, Self::End);
            *self = match state {
                Self::ChunkLength(mut line) => {
                    line.push(byte);
                    match line.strip_suffix(b"\r\n") {
                        None => Self::ChunkLength(line),
                        Some(digits) => {
                            let digits = str::from_utf8(digits).unwrap();
                            match usize::from_str_radix(digits, 16).unwrap() {
                                0 => Self::ChunkEnd(b"\r\n", true),
                                length => Self::Chunk(length),
                            }
                        }
                    }
                }
                Self::Chunk(length) => {
                    body.push(byte);
                    if length == 1 {
                        Self::ChunkEnd(b"\r\n", false)
                    } else {
                        Self::Chunk(length - 1)
                    }
                }
                Self::ChunkEnd(expected, is_last) => {
                    assert_eq!(byte, expected[0]);
                    match (&expected[1..], is_last) {
                        ([], true) => Self::End,
                        ([], false) => Self::ChunkLength(Vec::new()),
                        (more, is_last) => Self::ChunkEnd(more, is_last),
                    }
                }
                Self::Length(length) => {
                    body.push(byte);
                    Self::Length(length - 1).or_end()
                }
                Self::Head | Self::End => panic!("the response goes on after its end"),
            };
        }
    }
}
