//! An HTTP client without a library, with a connection for each request.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::server::DEADLINE;
use crate::support::{self, Frame};

pub(crate) struct Request {
    address: SocketAddr,
    head: String,
}

impl Request {
    pub(crate) fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
        Self { address, head }
    }

    /// Replaces the host.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.head = self.head.replacen(&format!("host: {}", self.address), host, 1);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    pub(crate) fn json(self, body: &Value) -> Response {
        self.header("content-type", "application/json").body(&body.to_string())
    }

    pub(crate) fn body(self, body: &str) -> Response {
        self.header("content-length", &body.len().to_string()).send_with(body)
    }

    pub(crate) fn send(self) -> Response {
        self.send_with("")
    }

    fn send_with(self, body: &str) -> Response {
        let mut socket = TcpStream::connect(self.address).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(format!("{}\r\n{body}", self.head).as_bytes()).unwrap();
        Response::read(BufReader::new(socket))
    }
}

/// A response. The body is read piece by piece.
pub(crate) struct Response {
    socket: BufReader<TcpStream>,
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    /// The part of the body that is read and not returned yet.
    text: String,
}

impl Response {
    fn read(mut socket: BufReader<TcpStream>) -> Self {
        let mut line = || {
            let mut line = String::new();
            socket.read_line(&mut line).expect("the server must respond");
            line.trim_end().to_owned()
        };
        let status = line();
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.unwrap_or_else(|| panic!("no status line: {status:?}"));
        let mut headers = BTreeMap::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Self { socket, status, headers, text: String::new() }
    }

    /// The connection, for its options and addresses.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Asserts that the response is a stream.
    #[track_caller]
    pub(crate) fn stream(self) -> Self {
        let status = self.status;
        assert!(status == 200, "{status}: {}", self.text());
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        assert_eq!(self.header("cache-control"), Some("no-cache, no-transform"));
        assert_eq!(self.header("x-accel-buffering"), Some("no"));
        self
    }

    /// Asserts that the response is the stream of a hub, and takes the first frame.
    #[track_caller]
    pub(crate) fn opened(self) -> (Self, Frame) {
        let mut stream = self.stream();
        let open = stream.frame();
        assert_eq!(open.event, "hub:open");
        (stream, open)
    }

    /// Returns the next frame. Skips heartbeats.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        self.next_frame().expect("a frame, and not the end")
    }

    /// Returns the next frame, or `None` at the end.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                let frame = std::mem::replace(&mut self.text, rest);
                return support::frames(&frame).pop();
            }
            if !self.read_chunk() {
                // Only heartbeats may be left.
                assert_eq!(support::frames(&self.text), []);
                return None;
            }
        }
    }

    /// Waits for a heartbeat, which must be the next item.
    pub(crate) fn heartbeat(&mut self) {
        while self.text.is_empty() {
            assert!(self.read_chunk(), "the stream has ended");
        }
        assert_eq!(self.text.remove(0), ':');
        assert_eq!(self.text.remove(0), '\n');
    }

    /// Returns the rest of the body.
    pub(crate) fn text(mut self) -> String {
        match self.header("content-length").map(|length| length.parse::<u64>().unwrap()) {
            Some(length) => {
                let mut body = String::new();
                self.socket.by_ref().take(length).read_to_string(&mut body).unwrap();
                body
            }
            None if self.header("transfer-encoding").is_none() => String::new(),
            None => {
                while self.read_chunk() {}
                self.text
            }
        }
    }

    pub(crate) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// Returns false for the last chunk.
    fn read_chunk(&mut self) -> bool {
        assert_eq!(self.header("transfer-encoding"), Some("chunked"));
        let mut size = String::new();
        self.socket.read_line(&mut size).expect("the stream must not end");
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk, not a cut");
        let mut chunk = vec![0; size + 2];
        self.socket.read_exact(&mut chunk).unwrap();
        assert_eq!(chunk.split_off(size), b"\r\n");
        // A chunk of a stream contains whole frames, and so whole characters.
        self.text += str::from_utf8(&chunk).unwrap();
        size > 0
    }
}
