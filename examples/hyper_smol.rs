//! The smallest useful server on hyper and smol, without a tokio runtime: each text that is posted
//! appears in every page that listens.
//!
//! The hub and hyper have the same timer, that of smol-hyper. With the timer, the hub sends
//! heartbeats, and hyper ends connections whose request does not arrive.
//!
//! Run with
//!
//! ```text
//! cargo run --example hyper_smol --features http,hyper -- --port 3003
//! ```
//!
//! and then, in two terminals,
//!
//! ```text
//! curl --no-buffer http://127.0.0.1:3003/events
//! curl --data hello http://127.0.0.1:3003/say
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use async_signal::{Signal, Signals};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::server::graceful::GracefulShutdown;
use smol::future;
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use sse_hub::http::{Body as StreamBody, error_response, head_response, into_response};
use sse_hub::{Event, Heartbeat, Hub, HyperTimer, LastEventId, Subscriber};

/// The time over which clients are told to reconnect.
const DRAIN: Duration = Duration::from_secs(2);

/// The time that open connections have after the drain.
const GRACE: Duration = Duration::from_secs(4);

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        // Far more often than the default, so that you see the heartbeats.
        let heartbeat = Heartbeat::default().every(Duration::from_secs(2));
        let hub = Hub::builder(HyperTimer::new(SmolTimer::new())).heartbeat(heartbeat).build()?;
        let port = std::env::args().skip_while(|argument| argument != "--port").nth(1);
        let port: u16 = port.as_deref().unwrap_or("3003").parse()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        println!("listening on http://{}", listener.local_addr()?);

        let connections = GracefulShutdown::new();
        let mut signals = Signals::new([Signal::Int, Signal::Term])?;
        let drained = async {
            signals.next().await;
            hub.drain(DRAIN).await;
            hub.close();
            Ok(())
        };
        // Accepts during the drain too, so that a client that reconnects too early is told so.
        future::or(drained, accept(&listener, &hub, &connections)).await?;
        // A connection that never completes its request must not hold up the end.
        let overdue = async {
            smol::Timer::after(GRACE).await;
        };
        future::or(connections.shutdown(), overdue).await;
        Ok(())
    })
}

async fn accept(
    listener: &TcpListener,
    hub: &Hub,
    connections: &GracefulShutdown,
) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        // Small events must not wait for the acknowledgement of the event before.
        socket.set_nodelay(true)?;
        smol::spawn(serve(socket, hub.clone(), connections)).detach();
    }
}

fn serve(
    socket: TcpStream,
    hub: Hub,
    connections: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static {
    let service = service_fn(move |request| {
        let hub = hub.clone();
        async move { answer(&hub, request).await }
    });
    let mut http = http1::Builder::new();
    let serving = http.timer(SmolTimer::new()).serve_connection(FuturesIo::new(socket), service);
    let serving = connections.watch(serving);
    async {
        // An error is no news: a page that closes breaks the connection.
        let _ = serving.await;
    }
}

/// A stream or a text.
type Body = Either<StreamBody, Full<Bytes>>;

async fn answer(hub: &Hub, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        // `new EventSource("/events")` in a page sends this request, and again after a lost
        // connection.
        (&Method::GET, "/events") => {
            let last = LastEventId::from_request(request.headers(), request.uri());
            into_response(hub.subscribe(Subscriber::new().resume(last))).map(Either::Left)
        }
        (&Method::HEAD, "/events") => head_response().map(Either::Left),
        (&Method::POST, "/say") => {
            match Limited::new(request.into_body(), 16 << 10).collect().await {
                Ok(text) => say(hub, &String::from_utf8_lossy(&text.to_bytes())),
                Err(_) => text(StatusCode::BAD_REQUEST, "the text is too long or incomplete"),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "there are GET /events and POST /say"),
    })
}

fn say(hub: &Hub, said: &str) -> Response<Body> {
    match hub.broadcast(Event::new("said").data(said)) {
        Ok(receipt) => text(StatusCode::OK, format!("{} listen\n", receipt.matched())),
        Err(error) => error_response(error).map(Either::Left),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::new(text.into())));
    *response.status_mut() = status;
    response
}
