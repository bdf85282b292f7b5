//! A listener whose connections are pipes in memory. On a single thread, all servers make the same
//! steps in every run.

use std::io;

use axum::serve::Listener;
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// More than any response of a test.
const PIPE_BYTES: usize = 1 << 20;

/// The turns of the other tasks after which a connection without new bytes is taken for idle.
const IDLE_TURNS: usize = 24;

pub(crate) struct Pipes(UnboundedReceiver<DuplexStream>);

#[derive(Clone)]
pub(crate) struct Connector(UnboundedSender<DuplexStream>);

pub(crate) fn pipes() -> (Connector, Pipes) {
    let (sender, receiver) = unbounded_channel();
    (Connector(sender), Pipes(receiver))
}

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
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

impl Connector {
    pub(crate) fn connect(&self) -> DuplexStream {
        let (near, far) = duplex(PIPE_BYTES);
        self.0.send(far).unwrap();
        near
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
        Answered { text: without_dates(&bytes), is_closed }
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
