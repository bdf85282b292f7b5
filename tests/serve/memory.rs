//! A listener whose connections are pipes in memory. On a single thread, all servers make the same
//! steps in every run.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::serve::Listener;
use futures_util::FutureExt as _;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// More than the responses to the most requests of a test: 128 with 20 KiB each. If the bytes behind
/// a request are no request, hyper drops the bytes of the response that the pipe has no room for.
const PIPE_BYTES: usize = 4 << 20;

/// The turns of the other tasks after which a connection without new bytes is taken for idle.
const IDLE_TURNS: usize = 24;

pub(crate) struct Pipes(UnboundedReceiver<Pipe>);

#[derive(Clone)]
pub(crate) struct Connector {
    sender: UnboundedSender<Pipe>,
    room: Arc<AtomicUsize>,
}

pub(crate) fn pipes() -> (Connector, Pipes) {
    let (sender, receiver) = unbounded_channel();
    (Connector { sender, room: Arc::default() }, Pipes(receiver))
}

/// The server's end of a connection.
pub(crate) struct Pipe {
    stream: DuplexStream,
    /// The room that the server had for bytes when it read last.
    room: Arc<AtomicUsize>,
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.room.store(buf.remaining(), Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Listener for Pipes {
    type Io = Pipe;
    type Addr = ();

    async fn accept(&mut self) -> (Pipe, ()) {
        match self.0.recv().await {
            Some(pipe) => (pipe, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The answer of a server to a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// The bytes, without the dates.
    pub(crate) text: String,
    pub(crate) is_closed: bool,
}

impl Answered {
    pub(crate) fn new(bytes: &[u8], is_closed: bool) -> Self {
        Self { text: without_dates(bytes), is_closed }
    }
}

impl Connector {
    pub(crate) fn connect(&self) -> DuplexStream {
        self.connect_narrow(PIPE_BYTES)
    }

    /// Connects by a pipe that holds this many bytes in each direction.
    pub(crate) fn connect_narrow(&self, bytes: usize) -> DuplexStream {
        let (near, stream) = duplex(bytes);
        let pipe = Pipe { stream, room: Arc::clone(&self.room) };
        assert!(self.sender.send(pipe).is_ok(), "the server accepts");
        near
    }

    /// Whether the newest connection has left hyper, which reads into a large buffer.
    pub(crate) fn has_left_hyper(&self) -> bool {
        self.room.load(Ordering::Relaxed) < 1 << 10
    }

    /// Sends the pieces, each after the server has done all that it can do.
    pub(crate) async fn ask(&self, pieces: &[&[u8]]) -> Answered {
        let mut pipe = self.connect();
        let (mut bytes, mut is_closed) = (Vec::new(), false);
        for piece in pieces {
            // A server that has closed the connection refuses more.
            if !is_closed && pipe.write_all(piece).await.is_err() {
                is_closed = true;
            }
            is_closed |= read(&mut pipe, &mut bytes).await;
        }
        Answered::new(&bytes, is_closed)
    }
}

/// Reads until the server is idle. Returns whether the connection is closed.
pub(crate) async fn read(pipe: &mut DuplexStream, bytes: &mut Vec<u8>) -> bool {
    let mut turns = 0;
    while turns < IDLE_TURNS {
        match pipe.read_buf(bytes).now_or_never() {
            Some(Ok(0) | Err(_)) => return true,
            Some(Ok(_)) => turns = 0,
            None => {
                turns += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    false
}

fn without_dates(bytes: &[u8]) -> String {
    // A long run of one letter is not worth reading.
    let text = String::from_utf8_lossy(bytes).replace(&"x".repeat(1 << 10), "[1024 x]");
    let lines = text.split_inclusive("\r\n");
    lines.map(|line| if line.starts_with("date: ") { "date: -\r\n" } else { line }).collect()
}
