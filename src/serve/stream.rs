//! A connection while a stream is sent: a small future that polls the stream and writes.

use std::cell::Cell;
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum_core::body::Body;
use bytes::buf::Chain;
use bytes::{Buf as _, Bytes};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::app::App;
use super::link::Leaving;
use super::open::{Open, Stage};

/// Up to this size, an item is copied beside its chunk's framing, and is sent by one `send`. A
/// `writev` of three pieces costs more.
const MAX_COPIED_BYTES: usize = 16 << 10;

/// The items that a task sends before other tasks have a turn.
const MAX_ITEMS: usize = 32;

/// The bytes that are read at a time: a client has nothing to say during a stream.
const READ_BYTES: usize = 256;

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const LINE_END: &[u8] = b"\r\n";

thread_local! {
    /// The chunk that is being sent. Taken while in use, because a connection is foreign code.
    static CHUNK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A socket that hyper or a stream may have.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// Sends a stream. There is one for each client, so the size matters.
pub(super) struct Streaming<IO> {
    io: IO,
    /// `None` at the end of the stream.
    body: Option<Body>,
    is_chunked: bool,
    /// The head of the response, until the first item is sent.
    head: Box<[u8]>,
    /// The first bytes behind the request for the stream.
    read: Box<[u8]>,
    /// `None` if the connection closes after the stream.
    app: Option<App>,
}

/// Bytes for which the connection has no room: at most the beginning and the end of a chunk, and
/// the item between them.
pub(super) type Unsent = Chain<Bytes, Chain<Bytes, Bytes>>;

/// A connection on which everything unsent was sent.
pub(super) enum Sent<IO> {
    /// The stream goes on.
    Item(Streaming<IO>),
    /// The connection waits for the next request.
    Stream { io: IO, read: Bytes, app: App },
}

impl<IO: Io> Streaming<IO> {
    /// `read` are the first bytes behind the request for the stream. The connection serves `app`
    /// after the stream, if the head allows.
    pub(super) fn new(io: IO, leaving: Leaving, read: Vec<u8>, app: App) -> Self {
        let Leaving { body, is_chunked, head } = leaving;
        debug_assert!(head.ends_with(b"\r\n\r\n"), "hyper has written the head");
        let app = Some(app).filter(|_| is_chunked && keeps_alive(&head));
        Self { io, body: Some(body), is_chunked, head: head.into(), read: read.into(), app }
    }

    /// Ready when bytes must be [sent](Self::send_rest) before the stream goes on, or before the
    /// stream ends. Ready with an error if the connection must be closed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stage: Stage) -> Poll<io::Result<Unsent>> {
        if stage == Stage::Over {
            self.body = None;
        }
        for _ in 0..MAX_ITEMS {
            let polled = match &mut self.body {
                Some(body) => Pin::new(body).poll_frame(cx),
                None => Poll::Ready(None),
            };
            let item = match polled {
                // hyper sends no trailers that the head does not announce. If the body fails, the
                // client must see that the stream was cut.
                Poll::Ready(Some(frame)) => {
                    frame.map_err(io::Error::other)?.into_data().unwrap_or_default()
                }
                Poll::Ready(None) => {
                    self.body = None;
                    let last = Bytes::from_static(if self.is_chunked { LAST_CHUNK } else { b"" });
                    return Poll::Ready(Ok(unsent(mem::take(&mut self.head).into(), last, b"")));
                }
                // The head waits for the first item only if there is one.
                Poll::Pending if !self.head.is_empty() => Bytes::new(),
                Poll::Pending => match Pin::new(&mut self.io).poll_flush(cx)? {
                    Poll::Ready(()) => return self.poll_closed(cx).map(Err),
                    Poll::Pending => {
                        return Poll::Ready(Ok(unsent(Bytes::new(), Bytes::new(), b"")));
                    }
                },
            };
            if let Some(unsent) = self.send(cx, item)? {
                return Poll::Ready(Ok(unsent));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends the head, if it was not sent, and an item. Returns the bytes that are left.
    fn send(&mut self, cx: &mut Context<'_>, item: Bytes) -> io::Result<Option<Unsent>> {
        let mut chunk = CHUNK.take();
        chunk.clear();
        chunk.extend_from_slice(&mem::take(&mut self.head));
        let has_framing = self.is_chunked && !item.is_empty();
        if has_framing {
            push_size(&mut chunk, item.len());
        }
        let end = if has_framing { LINE_END } else { b"" };
        let left = if item.len() > MAX_COPIED_BYTES {
            Some(unsent(Bytes::copy_from_slice(&chunk), item, end))
        } else {
            chunk.extend_from_slice(&item);
            chunk.extend_from_slice(end);
            let sent = match Pin::new(&mut self.io).poll_write(cx, &chunk) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            (sent < chunk.len())
                .then(|| unsent(Bytes::copy_from_slice(&chunk[sent..]), Bytes::new(), b""))
        };
        CHUNK.set(chunk);
        Ok(left)
    }

    /// Ready when the client has closed the connection.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // Bytes behind the request are for later, and hide the end of the connection.
        while self.read.is_empty() {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut buf = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.read = buf.filled().into(),
                Ok(()) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    /// Sends bytes, within the limits of the watchdog. Then closes the connection if that is due.
    /// Returns `None` if the connection was closed or lost.
    ///
    /// Needs more memory than a stream, so box the future.
    pub(super) async fn send_rest(self, mut unsent: Unsent, open: &Open) -> Option<Sent<IO>> {
        let Self { io, body, is_chunked, head, read, app } = self;
        let mut io = open.watch(io).resume(&read);
        let is_end = body.is_none();
        let app = app.filter(|_| !is_end || open.stage() == Stage::Serving);
        let closes = is_end && app.is_none();
        let sending = async {
            io.write_all_buf(&mut unsent).await?;
            io.flush().await?;
            if closes { io.shutdown().await } else { Ok(()) }
        };
        let sent = open.before(Stage::Over, sending).await;
        if sent.is_none() {
            io.reset();
        }
        sent?.ok()?;
        let io = io.into_inner();
        Some(match app {
            Some(app) if is_end => Sent::Stream { io, read: read.into(), app },
            _ if is_end => return None,
            app => Sent::Item(Self { io, body, is_chunked, head, read, app }),
        })
    }
}

fn unsent(begin: Bytes, item: Bytes, end: &'static [u8]) -> Unsent {
    begin.chain(item.chain(Bytes::from_static(end)))
}

/// Whether another request may follow, by the last head: hyper announces there a close of the
/// connection.
fn keeps_alive(head: &[u8]) -> bool {
    for line in head.rsplit(|&byte| byte == b'\n') {
        // No name of a header has a slash.
        if line.starts_with(b"HTTP/1.") {
            return true;
        }
        if let Some(options) = line.strip_prefix(b"connection:")
            && options
                .split(|&byte| byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
        {
            return false;
        }
    }
    // The head was too long to be written at once.
    false
}

/// Writes the line before a chunk: the size in upper-case hexadecimal digits, as hyper does.
fn push_size(chunk: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    let digit = |at: u32| b"0123456789ABCDEF"[size >> (4 * at) & 15];
    chunk.extend((0..digits).rev().map(digit));
    chunk.extend_from_slice(LINE_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_size_is_hexadecimal() {
        for size in [1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 20, usize::MAX] {
            let mut chunk = Vec::new();
            push_size(&mut chunk, size);
            assert_eq!(chunk, format!("{size:X}\r\n").as_bytes());
        }
    }

    #[test]
    fn last_head_tells_whether_requests_follow() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nconnection: x , Close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nconnection: closed\r\nx: close\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", true),
            ("x: 1\r\n\r\n", false),
        ] {
            assert_eq!(keeps_alive(head.as_bytes()), expected, "{head}");
        }
    }
}
