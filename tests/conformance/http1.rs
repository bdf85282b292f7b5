//! HTTP/1.1 read byte by byte without a library: the basis of the tests' own client and of the
//! proxy.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::within;

/// Parses a connection. Dropping a pending method loses no bytes.
pub(crate) struct Reader<R> {
    from: R,
    unread: Vec<u8>,
}

pub(crate) struct Head {
    pub(crate) raw: Vec<u8>,
    /// The line of the request or of the status.
    pub(crate) first: String,
    /// Names in lower case, in order.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// A piece of a body as the server wrote the piece. Empty data is the end.
pub(crate) struct Chunk {
    pub(crate) raw: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

/// The framing of a body.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    Chunked,
    Length(usize),
    UntilClosed,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, unread: Vec::new() }
    }

    /// Reads more bytes. Returns `false` if the other side has ended.
    pub(crate) async fn more(&mut self) -> bool {
        self.from.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0)
    }

    pub(crate) async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        Some(Head::parse(self.unread.drain(..end).collect()))
    }

    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.unread.drain(..count).collect())
    }

    pub(crate) async fn chunk(&mut self) -> Option<Chunk> {
        let data_at = loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                break at + 2;
            }
            if !self.more().await {
                return None;
            }
        };
        let digits = str::from_utf8(&self.unread[..data_at - 2]).unwrap();
        let length = usize::from_str_radix(digits, 16).expect("the length of a chunk");
        while self.unread.len() < data_at + length + 2 {
            if !self.more().await {
                return None;
            }
        }
        let raw: Vec<u8> = self.unread.drain(..data_at + length + 2).collect();
        assert!(raw.ends_with(b"\r\n"), "a chunk must have the announced length");
        let data = raw[data_at..data_at + length].to_vec();
        Some(Chunk { raw, data })
    }

    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.unread)
    }
}

impl Head {
    fn parse(raw: Vec<u8>) -> Self {
        let mut lines = raw.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let first = String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
        let headers = lines.take_while(|line| !line.is_empty()).map(|line| {
            let colon = line.iter().position(|&byte| byte == b':').expect("a header has a colon");
            let name = String::from_utf8(line[..colon].to_ascii_lowercase()).unwrap();
            (name, line[colon + 1..].trim_ascii().to_vec())
        });
        let headers = headers.collect();
        Self { raw, first, headers }
    }

    /// Returns the values of all headers of this name, joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        let values: Vec<_> = named.map(|(_, value)| String::from_utf8_lossy(value)).collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }

    pub(crate) fn framing(&self) -> Framing {
        match (self.header("transfer-encoding"), self.header("content-length")) {
            (Some(encoding), _) if encoding == "chunked" => Framing::Chunked,
            (Some(encoding), _) => panic!("a transfer encoding {encoding}"),
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) if self.first.contains(" 204 ") => Framing::Length(0),
            (None, None) => Framing::UntilClosed,
        }
    }
}

pub(crate) const NO_HEADERS: &[(&str, &str)] = &[];

/// A connection for a single request.
pub(crate) struct Client {
    pub(crate) head: Head,
    /// The items of the stream, as far as the server wrote them separately.
    pub(crate) chunks: Vec<Vec<u8>>,
    reader: Reader<OwnedReadHalf>,
    framing: Framing,
    body: Vec<u8>,
    ended: bool,
    /// Closes the connection on drop.
    _writer: OwnedWriteHalf,
}

impl Client {
    pub(crate) async fn get(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, impl AsRef<[u8]>)],
    ) -> Self {
        Self::request("GET", address, path, headers).await
    }

    pub(crate) async fn request(
        method: &str,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, impl AsRef<[u8]>)],
    ) -> Self {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n").into_bytes();
        for (name, value) in headers {
            request.extend([name.as_bytes(), b": ", value.as_ref(), b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        let answered = async {
            let (reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
            writer.write_all(&request).await.unwrap();
            let mut reader = Reader::new(reader);
            let head = reader.head().await.expect("the server answers");
            let framing = head.framing();
            Self {
                head,
                chunks: Vec::new(),
                reader,
                framing,
                body: Vec::new(),
                ended: false,
                _writer: writer,
            }
        };
        within("the answer", answered).await
    }

    pub(crate) fn status(&self) -> &str {
        self.head.first.strip_prefix("HTTP/1.1 ").expect(&self.head.first)
    }

    /// Reads more bytes. Returns `false` at the end of the response.
    pub(crate) async fn more(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let read = async {
            match self.framing {
                Framing::Chunked => self.reader.chunk().await.map(|chunk| chunk.data),
                Framing::Length(length) => {
                    self.ended = true;
                    self.reader.take(length).await
                }
                Framing::UntilClosed => {
                    self.ended = true;
                    Some(self.reader.rest().await)
                }
            }
        };
        let data = within("the next piece of the body", read).await;
        let data = data.expect("the connection ended before the response");
        self.ended |= data.is_empty();
        self.body.extend(&data);
        if !data.is_empty() {
            self.chunks.push(data);
        }
        !self.ended
    }

    /// Returns the next frame with its blank line, or `None` at the end of the response, which must
    /// not be within a frame.
    pub(crate) async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.body, b"\n\n") {
                return Some(String::from_utf8(self.body.drain(..at + 2).collect()).unwrap());
            }
            if !self.more().await {
                assert_eq!(
                    self.body.escape_ascii().to_string(),
                    "",
                    "the body must not end within a frame"
                );
                return None;
            }
        }
    }

    /// Returns the text up to this part, and the part itself.
    pub(crate) async fn until(&mut self, sought: &str) -> Vec<u8> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.body[searched..], sought.as_bytes()) {
                return self.body.drain(..searched + at + sought.len()).collect();
            }
            searched = self.body.len().saturating_sub(sought.len());
            assert!(self.more().await, "the response ended before {sought:?}");
        }
    }

    /// Returns the rest of the body.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.body)).unwrap()
    }
}

pub(crate) fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}
