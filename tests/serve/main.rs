//! Direct serving over real sockets: the answers are those of axum's server.
#![cfg(feature = "serve")]

#[cfg(target_os = "linux")]
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
#[cfg(target_os = "linux")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::routing::get;
#[cfg(target_os = "linux")]
use axum::serve::Listener;
use axum::serve::ListenerExt as _;
#[cfg(target_os = "linux")]
use sse_hub::serve::IncomingStream;
use sse_hub::serve::Serving;
use sse_hub::watchdog::Watchdog;
use sse_hub::{Event, Hub, LastEventId, Subscriber, Subscription, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
#[cfg(target_os = "linux")]
use tower_service::Service;

mod layers;
mod limits;
mod memory;
mod same;
#[path = "../sockets/mod.rs"]
mod sockets;

use sockets::{DEADLINE, eventually, within};

fn router(hub: &Hub) -> Router {
    async fn events(State(hub): State<Hub>, last: LastEventId) -> Subscription {
        hub.subscribe(Subscriber::new().resume(last)).unwrap()
    }
    async fn who(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
        peer.to_string()
    }
    Router::new()
        .route("/events", get(events))
        .route("/hello", get(|| async { "hello" }))
        .route("/who", get(who))
        .with_state(hub.clone())
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains(end) {
            let read = socket.read_buf(&mut text).await.unwrap();
            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&text));
        }
    };
    within(end, reading).await;
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn pipelined_requests_are_answered_around_a_stream() {
    let hub = Hub::builder(TokioTimer::new()).build().unwrap();
    let (listener, address) = bind().await;
    let app = router(&hub).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(sse_hub::serve(listener, app).into_future());
    let mut socket = TcpStream::connect(address).await.unwrap();
    for path in ["/who", "/events", "/hello"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
    }
    let text = read_until(&mut socket, "hub:open").await;
    assert!(text.contains(&socket.local_addr().unwrap().to_string()), "{text}");
    eventually(DEADLINE, "one client", || hub.stats().clients == 1).await;
    hub.broadcast(Event::new("n").data("1")).unwrap();
    read_until(&mut socket, "event: n\ndata: 1\n").await;
    hub.close();
    let text = read_until(&mut socket, "\r\n\r\nhello").await;
    assert!(text.contains("0\r\n\r\nHTTP/1.1 200 OK\r\n"), "{text}");
}

#[tokio::test]
async fn every_kind_of_service_is_served() {
    async fn hello(serve: impl IntoFuture<IntoFuture = Serving>, address: SocketAddr) {
        let serving = tokio::spawn(serve.into_future());
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        read_until(&mut socket, "\r\n\r\nhello").await;
        serving.abort();
    }
    let hub = Hub::builder(TokioTimer::new()).build().unwrap();
    let (listener, address) = bind().await;
    hello(sse_hub::serve(listener, router(&hub)), address).await;
    let (listener, address) = bind().await;
    hello(sse_hub::serve(listener, router(&hub).into_make_service()), address).await;
    let (listener, address) = bind().await;
    hello(sse_hub::serve(listener, get(|| async { "hello" })), address).await;
    let (listener, address) = bind().await;
    let tapped = listener.tap_io(|_| ());
    let app = router(&hub).into_make_service_with_connect_info::<SocketAddr>();
    hello(sse_hub::serve(tapped, app), address).await;
    #[cfg(feature = "warp")]
    {
        let (listener, address) = bind().await;
        let service = warp::service(warp::Filter::map(warp::any(), || "hello"));
        hello(sse_hub::serve(listener, service), address).await;
    }
}

/// Sockets have their options: a stalled client is given up by the watchdog or by the system.
#[tokio::test]
async fn stalled_client_on_tcp_is_given_up() {
    const LIMIT: Duration = Duration::from_secs(1);
    let hub = Hub::builder(TokioTimer::new()).heartbeat(None).stalled_after(None).build().unwrap();
    let (listener, address) = bind().await;
    let watchdog = Watchdog::builder(TokioTimer::new()).stalled_after(LIMIT).build().unwrap();
    tokio::spawn(sse_hub::serve(listener, router(&hub)).watchdog(watchdog).into_future());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stalled = socket.connect(address).await.unwrap();
    let mut reader = TcpStream::connect(address).await.unwrap();
    for socket in [&mut stalled, &mut reader] {
        socket.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        read_until(socket, "hub:open").await;
    }
    let reading = tokio::spawn(async move { read_until(&mut reader, "event: end\n").await });
    let begun = Instant::now();
    for _ in 0..64 {
        hub.broadcast(Event::new("bulk").data("x".repeat(64 << 10))).unwrap();
        tokio::task::yield_now().await;
    }
    eventually(DEADLINE, "the stalled client is gone", || hub.stats().clients == 1).await;
    assert!(begun.elapsed() >= LIMIT, "{:?}", begun.elapsed());
    hub.broadcast(Event::new("end")).unwrap();
    let text = within("the other client reads on", reading).await.unwrap();
    assert_eq!(text.matches("event: bulk\n").count(), 64);
}

/// Makes services, and sends the options of each connection.
#[cfg(target_os = "linux")]
struct Probe {
    app: Router,
    options: tokio::sync::mpsc::UnboundedSender<[u64; 4]>,
}

#[cfg(target_os = "linux")]
impl<L: Listener<Io = TcpStream>> Service<IncomingStream<'_, L>> for Probe {
    type Response = Router;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Router, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, L>) -> Self::Future {
        let socket = socket2::SockRef::from(stream.io());
        let user_timeout = socket.tcp_user_timeout().unwrap().unwrap_or_default();
        let options = [
            socket.tcp_nodelay().unwrap().into(),
            if socket.keepalive().unwrap() {
                socket.tcp_keepalive_time().unwrap().as_secs()
            } else {
                0
            },
            user_timeout.as_secs(),
            socket.tcp_notsent_lowat().unwrap().into(),
        ];
        self.options.send(options).unwrap();
        std::future::ready(Ok(self.app.clone()))
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn accepted_sockets_have_their_options() {
    let nodelay = |socket: &mut TcpStream| socket.set_nodelay(true).unwrap();
    let hub = Hub::builder(TokioTimer::new()).build().unwrap();
    for is_tapped in [false, true] {
        let (listener, address) = bind().await;
        let (options, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let probe = Probe { app: router(&hub), options };
        if is_tapped {
            tokio::spawn(sse_hub::serve(listener.tap_io(nodelay), probe).into_future());
        } else {
            tokio::spawn(sse_hub::serve(listener, probe).into_future());
        }
        // The first connection is older than the server.
        for _ in 0..2 {
            let _client = TcpStream::connect(address).await.unwrap();
            let options = within("the options", seen.recv()).await.unwrap();
            assert_eq!(options, [1, 60, 30, 64 << 10], "tapped: {is_tapped}");
        }
    }
}
