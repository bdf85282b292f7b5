//! Clients without a driver: the crates, and curl with a parser for the output.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use axum::http::Request;
use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use http_body_util::{BodyDataStream, BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use sse_stream::SseStream;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::clients::{Run, Said};
use crate::standard::{Callback, EventSource};

/// Aborts a task on drop.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The state that the application around a parser keeps between connections.
struct Follower {
    address: SocketAddr,
    last: String,
    retry: Duration,
    tell: mpsc::UnboundedSender<Said>,
}

impl Follower {
    fn start<F>(address: SocketAddr, follow: impl FnOnce(Self) -> F) -> Run
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, said) = mpsc::unbounded_channel();
        let this = Self { address, last: String::new(), retry: Duration::from_secs(3), tell };
        Run::new(said, Abort(tokio::spawn(follow(this))))
    }

    fn tell(&mut self, kind: &str, data: &str, id: &str) {
        id.clone_into(&mut self.last);
        let callback = Callback { kind: kind.to_owned(), data: data.to_owned(), id: id.to_owned() };
        let _ = self.tell.send(Said::Callback(callback));
    }

    async fn connect(&self) -> Result<Incoming, Box<dyn std::error::Error + Send + Sync>> {
        let socket = TcpStream::connect(self.address).await?;
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        let mut request = Request::get("/events").header("host", self.address.to_string());
        if !self.last.is_empty() {
            request = request.header("last-event-id", &self.last);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        Ok(client.send_request(request).await?.into_body())
    }
}

pub(crate) fn eventsource_stream(address: SocketAddr) -> Run {
    Follower::start(address, async |mut this| {
        loop {
            if let Ok(body) = this.connect().await {
                let mut events = BodyDataStream::new(body).eventsource();
                while let Some(Ok(event)) = events.next().await {
                    this.retry = event.retry.unwrap_or(this.retry);
                    this.tell(&event.event, &event.data, &event.id);
                }
            }
            tokio::time::sleep(this.retry).await;
        }
    })
}

pub(crate) fn sse_stream(address: SocketAddr) -> Run {
    Follower::start(address, async |mut this| {
        loop {
            if let Ok(body) = this.connect().await {
                let mut events = SseStream::new(body.boxed());
                while let Some(Ok(event)) = events.next().await {
                    this.retry = event.retry.map_or(this.retry, Duration::from_millis);
                    let kind = event.event.as_deref().unwrap_or("message");
                    let data = event.data.as_deref().unwrap_or_default();
                    this.tell(kind, data, event.id.as_deref().unwrap_or_default());
                }
            }
            tokio::time::sleep(this.retry).await;
        }
    })
}

pub(crate) fn curl(address: SocketAddr) -> Run {
    Follower::start(address, async move |this| {
        let mut source = EventSource::default();
        loop {
            let mut command = Command::new("curl");
            command.args(["--silent", "--no-buffer", &format!("http://{address}/events")]);
            if !source.last_event_id.is_empty() {
                command.args(["--header", &format!("Last-Event-ID: {}", source.last_event_id)]);
            }
            let command = command.stdout(Stdio::piped()).kill_on_drop(true);
            let mut process = match command.spawn() {
                Ok(process) => process,
                Err(error) => {
                    let why = format!("cannot start curl, install it: {error}");
                    let _ = this.tell.send(Said::Failed(why));
                    return;
                }
            };
            let mut stdout = process.stdout.take().unwrap();
            let mut bytes = Vec::with_capacity(1 << 16);
            while stdout.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                for callback in source.read(&bytes) {
                    let _ = this.tell.send(Said::Callback(callback));
                }
                bytes.clear();
            }
            source.reconnect();
            tokio::time::sleep(Duration::from_millis(source.retry_ms.unwrap_or(3_000))).await;
        }
    })
}
