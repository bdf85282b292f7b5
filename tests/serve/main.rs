//! Direct serving over real sockets: the answers are those of axum's server.
#![cfg(feature = "serve")]

use std::net::{Ipv4Addr, SocketAddr};
#[cfg(target_os = "linux")]
use std::time::Duration;

use axum::Router;
#[cfg(target_os = "linux")]
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::routing::get;
use axum::serve::ListenerExt as _;
#[cfg(target_os = "linux")]
use socket2::SockRef;
#[cfg(target_os = "linux")]
use sse_hub::serve::IncomingStream;
use sse_hub::serve::Serving;
#[cfg(target_os = "linux")]
use sse_hub::watchdog::Watchdog;
use sse_hub::{Event, Hub, LastEventId, Subscriber, Subscription, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

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

/// The options of a socket that [`Watchdog::prepare`] sets.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, PartialEq)]
struct Options {
    nodelay: bool,
    keepalive: (bool, Duration, Duration),
    user_timeout: Option<Duration>,
    unsent: u32,
}

#[cfg(target_os = "linux")]
impl Options {
    fn of(socket: &TcpStream) -> Self {
        let socket = SockRef::from(socket);
        let keepalive = (
            socket.keepalive().unwrap(),
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
        );
        Self {
            nodelay: socket.tcp_nodelay().unwrap(),
            keepalive,
            user_timeout: socket.tcp_user_timeout().unwrap(),
            unsent: socket.tcp_notsent_lowat().unwrap(),
        }
    }
}

#[cfg(target_os = "linux")]
impl Connected<IncomingStream<'_, TcpListener>> for Options {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self::of(stream.io())
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn sockets_have_the_watchdogs_options() {
    let (listener, address) = bind().await;
    let watchdog = Watchdog::builder(TokioTimer::new())
        .stalled_after(Duration::from_secs(7))
        .keepalive(Duration::from_secs(40))
        .build()
        .unwrap();
    let expected = async {
        let (other, address) = bind().await;
        let (client, server) = tokio::join!(TcpStream::connect(address), other.accept());
        let (_client, (server, _)) = (client.unwrap(), server.unwrap());
        watchdog.prepare(&server);
        format!("{:?}", Options::of(&server))
    };
    let expected = expected.await;

    // In the queue of the listener, before the server has set any option.
    let early = TcpStream::connect(address).await.unwrap();
    let options = async |ConnectInfo(options): ConnectInfo<Options>| format!("{options:?}");
    let app = Router::new().route("/", get(options));
    let make = app.into_make_service_with_connect_info::<Options>();
    tokio::spawn(sse_hub::serve(listener, make).watchdog(watchdog.clone()).into_future());
    let late = async {
        // The answer shows that the server runs.
        let mut early = early;
        let seen = ask(&mut early).await;
        (seen, ask(&mut TcpStream::connect(address).await.unwrap()).await)
    };
    let (early, late) = within("two answers", late).await;
    assert_eq!(early, expected);
    assert_eq!(late, expected);
}

#[cfg(target_os = "linux")]
async fn ask(stream: &mut TcpStream) -> String {
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
