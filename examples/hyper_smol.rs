//! The smallest useful server on hyper and smol: no tokio runtime is in the process. What is posted to it appears in
//! every page that listens.
//!
//! A hub takes its time from [`Timer`]; for a runtime that has none ready made it is the dozen lines of [`SmolTimer`].
//!
//! Run with
//!
//! ```text
//! cargo run --example hyper_smol --features http -- --port 3003
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
use std::num::ParseIntError;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::{FuturesIo, SmolTimer as HyperTimer};
use sse_hub::{Event, Heartbeat, Hub, LastEventId, Sleep, Subscriber, Timer};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        // Far more often than usual, to be seen.
        let heartbeat = Heartbeat::every(Duration::from_secs(2));
        let hub = Hub::builder(SmolTimer).heartbeat(heartbeat).build()?;
        let listener = TcpListener::bind(("127.0.0.1", port()?)).await?;
        println!("listening on http://{}", listener.local_addr()?);
        loop {
            let (socket, _) = listener.accept().await?;
            smol::spawn(serve(socket, hub.clone())).detach();
        }
    })
}

async fn serve(socket: TcpStream, hub: Hub) {
    let service = service_fn(|request| answer(&hub, request));
    // hyper's own timer ends connections whose request does not come.
    let mut http = http1::Builder::new();
    let serving = http.timer(HyperTimer::new()).serve_connection(FuturesIo::new(socket), service);
    // A page that is closed breaks its connection off, so an error is nothing to report.
    let _ = serving.await;
}

/// A stream, or a text.
type Body = Either<sse_hub::http::Body, Full<Bytes>>;

async fn answer(hub: &Hub, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        // `new EventSource("/events")` in a page ends up here, and again whenever its connection was lost.
        (&Method::GET, "/events") => {
            let last = LastEventId::from_request(request.headers(), request.uri());
            // Let in or refused, it is the response.
            sse_hub::http::into_response(hub.subscribe(Subscriber::new().resume(last)))
                .map(Either::Left)
        }
        (&Method::POST, "/say") => {
            match Limited::new(request.into_body(), 16 << 10).collect().await {
                Ok(text) => say(hub, &String::from_utf8_lossy(&text.to_bytes())),
                Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "there are GET /events and POST /say".to_owned()),
    })
}

fn say(hub: &Hub, said: &str) -> Response<Body> {
    match hub.broadcast(Event::new("said").data(said)) {
        Ok(receipt) => text(StatusCode::OK, format!("{} listen\n", receipt.matched())),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    response
}

/// smol's time, as a hub gets it.
#[derive(Debug)]
struct SmolTimer;

impl Timer for SmolTimer {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(SmolSleep(smol::Timer::at(deadline)))
    }
}

struct SmolSleep(smol::Timer);

impl Sleep for SmolSleep {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }

    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.set_at(deadline);
    }
}

/// `--port 3003`, or else the variable `PORT`, or else 3003. 0 takes any that is free.
fn port() -> Result<u16, ParseIntError> {
    let given = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    given.or_else(|| std::env::var("PORT").ok()).map_or(Ok(3003), |port| port.parse())
}
