//! A proxy that forwards all bytes unchanged, reports the traffic, and cuts a connection after an
//! exact number of bytes; or that forwards a stream in other pieces, as every proxy may.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{self, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::http1::{Chunk, Framing, Reader, find};
use crate::within;

/// The traffic of streams. Other responses are not reported.
#[derive(Debug)]
pub(crate) enum Passed {
    /// A request for a stream, with the id.
    Request { last: Option<String> },
    /// A completely forwarded item of a stream.
    Item(Vec<u8>),
    /// The proxy cut the connection.
    Cut(Anatomy),
}

/// A planned cut: in the item that contains this text, after this many bytes of the item on the
/// connection.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) within: String,
    pub(crate) after: usize,
}

/// The number of bytes of an item on the connection, and the range of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anatomy {
    pub(crate) all: usize,
    pub(crate) frames_end: usize,
}

/// The pieces in which the bytes of a stream are forwarded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pieces {
    AsTheyCome,
    /// Pieces of a few bytes, which end within fields, lines and characters.
    Small,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    passed: mpsc::UnboundedReceiver<Passed>,
    cut: Arc<Mutex<Option<Cut>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr, pieces: Pieces) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, passed) = mpsc::unbounded_channel();
        let cut = Arc::new(Mutex::new(None));
        let plan = Arc::clone(&cut);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let forwarding = Forwarding::between(client, target, pieces, &tell, &plan).await;
                tokio::spawn(forwarding.run());
            }
        });
        Self { address, passed, cut, accepting }
    }

    pub(crate) fn cut(&self, cut: Cut) {
        *self.cut.lock().unwrap() = Some(cut);
    }

    pub(crate) async fn next(&mut self) -> Passed {
        within("something on the wire", self.passed.recv()).await.expect("the proxy runs")
    }

    /// Cuts the next item that contains the text, after all planned cuts.
    pub(crate) async fn item_with(&mut self, sought: &str) -> Vec<u8> {
        loop {
            if let Passed::Item(item) = self.next().await
                && find(&item, sought.as_bytes()).is_some()
            {
                return item;
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Forwarding {
    from_client: Reader<OwnedReadHalf>,
    to_client: OwnedWriteHalf,
    from_server: Reader<OwnedReadHalf>,
    to_server: OwnedWriteHalf,
    pieces: Pieces,
    tell: mpsc::UnboundedSender<Passed>,
    plan: Arc<Mutex<Option<Cut>>>,
}

impl Forwarding {
    async fn between(
        client: TcpStream,
        target: SocketAddr,
        pieces: Pieces,
        tell: &mpsc::UnboundedSender<Passed>,
        plan: &Arc<Mutex<Option<Cut>>>,
    ) -> Self {
        let server = TcpStream::connect(target).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        Self {
            from_client: Reader::new(from_client),
            to_client,
            from_server: Reader::new(from_server),
            to_server,
            pieces,
            tell: tell.clone(),
            plan: Arc::clone(plan),
        }
    }

    /// Runs until one side closes. The drop then closes the other.
    async fn run(mut self) {
        while self.exchange().await.is_ok_and(|another| another) {}
    }

    /// Forwards a request and its response. Returns true if another may follow.
    async fn exchange(&mut self) -> io::Result<bool> {
        let Some(request) = self.from_client.head().await else { return Ok(false) };
        self.to_server.write_all(&request.raw).await?;
        let Some(response) = self.from_server.head().await else { return Ok(false) };
        if matches!(response.framing(), Framing::Chunked) {
            let _ = self.tell.send(Passed::Request { last: request.header("last-event-id") });
        }
        self.to_client.write_all(&response.raw).await?;
        match response.framing() {
            Framing::Chunked => self.stream().await,
            Framing::Length(length) => {
                let Some(body) = self.from_server.take(length).await else { return Ok(false) };
                self.to_client.write_all(&body).await?;
                Ok(true)
            }
            Framing::UntilClosed => {
                let body = self.from_server.rest().await;
                self.to_client.write_all(&body).await?;
                Ok(false)
            }
        }
    }

    async fn stream(&mut self) -> io::Result<bool> {
        loop {
            let chunk = tokio::select! {
                chunk = self.from_server.chunk() => chunk,
                // A client sends nothing during a stream, so this read is the end.
                _ = self.from_client.more() => return Ok(false),
            };
            let Some(chunk) = chunk else { return Ok(false) };
            if let Some(after) = self.is_to_be_cut(&chunk) {
                self.to_client.write_all(&chunk.raw[..after]).await?;
                let anatomy = Anatomy { all: chunk.raw.len(), frames_end: chunk.raw.len() - 2 };
                // Reported before the close, because the client may reconnect before this line
                // continues.
                let _ = self.tell.send(Passed::Cut(anatomy));
                // End the connection without the end of the response, like a server that crashed.
                self.to_client.shutdown().await?;
                return Ok(false);
            }
            self.forward(&chunk).await?;
            if chunk.data.is_empty() {
                return Ok(true);
            }
            let _ = self.tell.send(Passed::Item(chunk.data));
        }
    }

    async fn forward(&mut self, chunk: &Chunk) -> io::Result<()> {
        if matches!(self.pieces, Pieces::AsTheyCome) || chunk.data.is_empty() {
            return self.to_client.write_all(&chunk.raw).await;
        }
        let sizes: &[usize] = match chunk.data.len() {
            // Several small events share an item. Only long items would take too long in such small
            // pieces.
            ..32_768 => &[1, 3, 2, 7, 5, 29, 11, 61],
            _ => &[16_381],
        };
        let mut sizes = sizes.iter().cycle();
        let mut rest = &chunk.data[..];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            let length = format!("{:x}\r\n", piece.len());
            let piece = [length.as_bytes(), piece, b"\r\n"].concat();
            self.to_client.write_all(&piece).await?;
            // A pause, so that the client reads each piece separately, as far as possible.
            tokio::time::sleep(Duration::from_millis(1)).await;
            rest = others;
        }
        Ok(())
    }

    fn is_to_be_cut(&self, chunk: &Chunk) -> Option<usize> {
        let mut plan = self.plan.lock().unwrap();
        let found = plan.take_if(|cut| find(&chunk.data, cut.within.as_bytes()).is_some())?;
        Some(found.after)
    }
}
