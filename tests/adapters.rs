//! The adapters side by side: `HEAD`, errors as responses, refusals that end a connection, clients
//! that leave, and layers around a stream.
#![cfg(all(feature = "axum-serve", feature = "tokio", feature = "warp"))]

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode as ActixStatus;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use axum::{Router, http};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::Deserialize;
use sse_hub::http::{
    Body, ErrorResponse, error_response, head_response, into_response, stop_response,
};
use sse_hub::watchdog::Watchdog;
use sse_hub::{
    Audience, AudienceError, ClientId, DisconnectError, Event, EventError, EventStream,
    FollowError, Goodbye, Hub, HubBuilder, InvalidEventType, JoinError, LastEventId, Limits,
    MembersError, NameError, NameKind, Presence, PresenceEvent, PublishError, ReadError,
    RefusalStyle, Refused, RefusedCause, RunError, Subscriber, Subscription, TokioTimer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use warp::Filter as _;

#[path = "support/busy.rs"]
mod busy;
mod sockets;
use busy::BusyClock;
use sockets::{DEADLINE, eventually, within};

fn hub() -> HubBuilder {
    Hub::builder(TokioTimer::new()).heartbeat(None)
}

#[derive(Deserialize)]
struct Who {
    user: String,
}

fn as_user(hub: &Hub, user: &str, last: LastEventId) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().user(user).resume(last))
}

async fn bind() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// A server on axum. `/optional` extracts an optional id.
async fn on_axum(hub: Hub) -> SocketAddr {
    let events = async |State(hub): State<Hub>, Query(who): Query<Who>, last: LastEventId| {
        as_user(&hub, &who.user, last)
    };
    let optional =
        async |State(hub): State<Hub>, Query(who): Query<Who>, last: Option<LastEventId>| {
            as_user(&hub, &who.user, last.unwrap_or_default())
        };
    let app = Router::new()
        .route("/events", get(events))
        .route("/optional", get(optional))
        .with_state(hub);
    let listener = bind().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A server on hyper, for HTTP/1.1 and HTTP/2.
async fn on_hyper(hub: Hub) -> SocketAddr {
    let listener = bind().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let hub = hub.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let hub = hub.clone();
                async move {
                    if request.method() == Method::HEAD {
                        return Ok::<_, Infallible>(head_response());
                    }
                    let last = LastEventId::from_request(request.headers(), request.uri());
                    Ok(into_response(as_user(&hub, "ann", last)))
                }
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(socket), service).await
            });
        }
    });
    address
}

async fn on_warp(hub: Hub) -> SocketAddr {
    let path = warp::path!("events");
    // Without a filter for the method: the filter for the id must refuse `HEAD` itself.
    let events = path
        .and(sse_hub::warp::last_event_id())
        .map(move |last: LastEventId| as_user(&hub, "ann", last));
    let routes = events.or(path.and(sse_hub::warp::head()));
    let listener = bind().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(warp::serve(routes).incoming(listener).run());
    address
}

/// The recipe of the example `actix`.
fn on_actix(hub: Hub) -> SocketAddr {
    fn answer(response: http::Response<Body>) -> HttpResponse {
        let (head, body) = response.into_parts();
        let status = ActixStatus::from_u16(head.status.as_u16()).unwrap();
        let mut answer = HttpResponse::build(status);
        for (name, value) in &head.headers {
            answer.insert_header((name.as_str(), value.as_bytes()));
        }
        if head.headers.contains_key("connection") {
            answer.force_close();
        }
        answer.streaming(body)
    }

    async fn events(hub: web::Data<Hub>, request: HttpRequest) -> HttpResponse {
        let last = LastEventId::from_parts(None, request.query_string());
        answer(into_response(as_user(&hub, "ann", last)))
    }

    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let app = move || {
                App::new()
                    .app_data(web::Data::new(hub.clone()))
                    .route("/events", web::get().to(events))
                    .route("/events", web::head().to(async || answer(head_response())))
            };
            let server = HttpServer::new(app).workers(1).disable_signals();
            let server = server.h1_allow_half_closed(false).bind(("127.0.0.1", 0)).unwrap();
            tell.send(server.addrs()[0]).unwrap();
            server.run().await.unwrap();
        });
    });
    told.recv().unwrap()
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut socket = within("the connection", TcpStream::connect(address)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn read_to(socket: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(end) {
        let read = within(end, socket.read_buf(&mut text)).await.unwrap();
        assert!(read > 0, "the connection ends: {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

async fn read_to_end(mut socket: TcpStream) -> String {
    let mut text = String::new();
    within("the end of the connection", socket.read_to_string(&mut text)).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_subscribes_nobody() {
    for name in ["axum", "hyper", "warp", "actix"] {
        let hub = hub()
            .presence(Presence::default().grace(Duration::ZERO))
            .limits(Limits::default().clients(9).per_user(1).displace_oldest(true))
            .build()
            .unwrap();
        let address = match name {
            "axum" => on_axum(hub.clone()).await,
            "hyper" => on_hyper(hub.clone()).await,
            "warp" => on_warp(hub.clone()).await,
            _ => on_actix(hub.clone()),
        };
        // The live tab of the user must stay.
        let mut live = send(address, "GET /events?user=ann HTTP/1.1\r\nhost: a\r\n\r\n").await;
        read_to(&mut live, "hub:open").await;
        let paths: &[&str] = match name {
            "axum" => {
                &["/events?user=ann", "/events?user=eve&lastEventId=1-1", "/optional?user=ann"]
            }
            _ => &["/events", "/events?lastEventId=1-1", "/events?"],
        };
        for path in paths {
            for version in ["1.1", "1.0"] {
                let request =
                    format!("HEAD {path} HTTP/{version}\r\nhost: a\r\nconnection: close\r\n\r\n");
                let head = read_to_end(send(address, &request).await).await;
                assert!(head.starts_with("HTTP/1."), "{name} {path}: {head}");
                assert!(head.contains(" 200 OK\r\n"), "{name} {path}: {head}");
                assert!(head.contains("content-type: text/event-stream\r\n"), "{name}: {head}");
                assert!(head.contains("cache-control: no-cache, no-transform\r\n"), "{head}");
                assert!(head.ends_with("\r\n\r\n") && !head.contains("content-length"), "{head}");
            }
        }
        let stats = hub.stats();
        assert_eq!((stats.opened, stats.clients), (1, 1), "{name}");
        hub.broadcast(Event::new("still").data("here")).unwrap();
        read_to(&mut live, "event: still").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_or_closed_hub_ends_connections_of_http1() {
    for style in [RefusalStyle::Stream, RefusalStyle::Status] {
        for name in ["axum", "hyper", "warp", "actix"] {
            for is_closed in [false, true] {
                let hub =
                    hub().limits(Limits::default().clients(1)).refusals(style).build().unwrap();
                let address = match name {
                    "axum" => on_axum(hub.clone()).await,
                    "hyper" => on_hyper(hub.clone()).await,
                    "warp" => on_warp(hub.clone()).await,
                    _ => on_actix(hub.clone()),
                };
                let occupant = hub.subscribe(Subscriber::new()).unwrap();
                let request = "GET /events?user=ann HTTP/1.1\r\nhost: a\r\n\r\n";
                let mut kept = send(address, request).await;
                // A full hub keeps the connection: the client may succeed there.
                let end = if style == RefusalStyle::Stream { "\r\n0\r\n\r\n" } else { "the limit" };
                let full = read_to(&mut kept, end).await;
                assert!(!full.contains("connection: close"), "{name}: {full}");

                let draining = if is_closed {
                    hub.close();
                    None
                } else {
                    Some(hub.drain(Duration::from_secs(60)))
                };
                kept.write_all(request.as_bytes()).await.unwrap();
                let refused = read_to_end(kept).await;
                assert!(refused.contains("connection: close\r\n"), "{name} {style:?}: {refused}");
                let status = if style == RefusalStyle::Stream { " 200 " } else { " 503 " };
                assert!(refused.contains(status), "{name}: {refused}");
                drop((draining, occupant));
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_connection_of_http2() {
    let hub = hub().build().unwrap();
    let address = on_hyper(hub.clone()).await;
    hub.close();
    let socket = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket);
    let (mut client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get(format!("http://{address}/events"));
        let sent = client.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let response = within("the response", sent).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("connection"), None);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"event: hub:refused\n"), "{body:?}");
    }
}

/// The time from the close of a client's connection to its `Left`.
async fn leaves(hub: &Hub, address: SocketAddr, reset: bool) -> Duration {
    let mut watch = hub.watch().unwrap();
    let mut socket = send(address, "GET /events?user=ann HTTP/1.1\r\nhost: a\r\n\r\n").await;
    read_to(&mut socket, "hub:open").await;
    if reset {
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let begun = BusyClock::start();
    drop(socket);
    loop {
        if let Some(PresenceEvent::Left { .. }) =
            within("it left", futures_util::StreamExt::next(&mut watch)).await
        {
            return begun.elapsed();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_connection_has_left() {
    let hub = || hub().presence(Presence::default().grace(Duration::ZERO)).build().unwrap();
    let hubs = [hub(), hub(), hub(), hub()];
    let servers = [
        on_axum(hubs[0].clone()).await,
        on_hyper(hubs[1].clone()).await,
        on_warp(hubs[2].clone()).await,
        on_actix(hubs[3].clone()),
    ];
    for (hub, address) in hubs.iter().zip(servers) {
        for reset in [false, true] {
            let took = leaves(hub, address, reset).await;
            assert!(took < Duration::from_secs(2), "after {took:?}");
        }
    }
}

#[tokio::test]
async fn watched_sockets_have_no_delay() {
    let listener = Watchdog::new(TokioTimer::new()).listen(bind().await);
    let (told, mut nodelay) = tokio::sync::mpsc::unbounded_channel();
    let listener = listener.tap_io(move |io| {
        let _ = told.send(io.get_ref().nodelay().unwrap());
    });
    let hub = hub().build().unwrap();
    let server = sockets::Server::start_on(listener, &hub, std::future::pending());
    for _ in 0..3 {
        let mut client = server.get("/events", None).await;
        client.open().await;
        assert_eq!(nodelay.recv().await, Some(true));
    }
}

/// A compression layer of tower-http, by its default and by predicates that would compress all.
#[tokio::test]
async fn compression_layers_do_not_hold_back_events() {
    use tower_http::compression::CompressionLayer;
    use tower_http::compression::predicate::{Predicate as _, SizeAbove};

    async fn events(State(hub): State<Hub>) -> Result<Subscription, Refused> {
        hub.subscribe(Subscriber::new())
    }
    async fn text() -> String {
        "x".repeat(1000)
    }

    for layer in 0..3 {
        let hub = hub().build().unwrap();
        let app = Router::new().route("/events", get(events)).route("/text", get(text));
        let app = app.with_state(hub.clone());
        let app = match layer {
            0 => app.layer(CompressionLayer::new()),
            1 => app.layer(CompressionLayer::new().compress_when(SizeAbove::new(0))),
            _ => {
                let all = |_: StatusCode, _: http::Version, _: &_, _: &_| true;
                app.layer(CompressionLayer::new().compress_when(SizeAbove::new(0).and(all)))
            }
        };
        let listener = bind().await;
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });

        let accept = "host: a\r\naccept-encoding: gzip\r\n";
        let mut other = send(address, &format!("GET /text HTTP/1.1\r\n{accept}\r\n")).await;
        let mut head = [0; 400];
        let read = within("the text", other.read(&mut head)).await.unwrap();
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        assert!(head.contains("content-encoding: gzip\r\n"), "the layer works: {head}");

        let stream = send(address, &format!("GET /events HTTP/1.1\r\n{accept}\r\n")).await;
        let mut stream = Plain::of(stream).await;
        assert_eq!(stream.is_compressed, layer > 0);
        stream.read_to("hub:open").await;
        for number in 0..20 {
            // Each event must arrive before the next is published.
            let data = format!("event {number} of layer {layer}");
            hub.broadcast(Event::new("n").data(&data)).unwrap();
            stream.read_to(&format!("data: {data}\nid: ")).await;
        }
    }
}

/// The text of a response that may be compressed.
struct Plain {
    socket: TcpStream,
    framing: sockets::Framing,
    is_compressed: bool,
    gzip: flate2::write::GzDecoder<Vec<u8>>,
    text: Vec<u8>,
}

impl Plain {
    async fn of(mut socket: TcpStream) -> Self {
        let mut head = Vec::new();
        // One byte at a time, so that the body stays in the socket.
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("the head", socket.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        Self {
            socket,
            framing: sockets::Framing::ChunkLength(Vec::new()),
            is_compressed: head.contains("content-encoding: gzip\r\n"),
            gzip: flate2::write::GzDecoder::new(Vec::new()),
            text: Vec::new(),
        }
    }

    /// Reads until the text contains `end`.
    async fn read_to(&mut self, end: &str) {
        while !String::from_utf8_lossy(&self.text).contains(end) {
            let mut raw = Vec::new();
            assert!(within(end, self.socket.read_buf(&mut raw)).await.unwrap() > 0);
            let mut body = Vec::new();
            self.framing.decode(&raw, &mut body);
            if self.is_compressed {
                self.gzip.write_all(&body).unwrap();
                self.gzip.flush().unwrap();
                self.text.clone_from(self.gzip.get_ref());
            } else {
                self.text.extend(body);
            }
        }
    }
}

/// The status of each error, on every adapter alike.
#[tokio::test]
async fn errors_are_statuses_without_their_text() {
    fn check<E>(error: E, status: u16)
    where
        E: Clone + IntoResponse + warp::Reply + std::fmt::Display + Into<ErrorResponse>,
    {
        let text = error.to_string();
        let of_axum = IntoResponse::into_response(error.clone());
        let of_warp = warp::Reply::into_response(error.clone());
        let of_http = error_response(error);
        assert_eq!(of_http.status(), status, "{text}");
        assert_eq!(of_axum.status(), status, "{text}");
        assert_eq!(of_warp.status(), status, "{text}");
        assert_eq!(of_axum.headers(), of_http.headers());
        assert_eq!(of_warp.headers(), of_http.headers());
        assert_eq!(of_http.headers()["content-type"], "text/plain; charset=utf-8");
        let body = futures_executor::block_on(of_http.into_body().collect()).unwrap().to_bytes();
        let of_axum = futures_executor::block_on(of_axum.into_body().collect()).unwrap();
        assert_eq!(of_axum.to_bytes(), body);
        let body = String::from_utf8(body.into()).unwrap();
        assert_eq!(Some(body.as_str()), StatusCode::from_u16(status).unwrap().canonical_reason());
    }

    let name = NameError::Empty(NameKind::User);
    check(PublishError::Event(EventError::Type(InvalidEventType::Byte)), 400);
    check(PublishError::Event(EventError::OwnId), 500);
    check(PublishError::Audience(AudienceError::Excessive), 400);
    check(PublishError::Audience(AudienceError::Name(name)), 400);
    check(PublishError::TooLarge { bytes: 9, limit: 3 }, 413);
    check(PublishError::Backlog, 503);
    check(PublishError::Closed, 503);
    check(JoinError::Topic(name), 400);
    check(JoinError::Audience(AudienceError::Excessive), 400);
    check(JoinError::TooManyTopics { limit: 3 }, 400);
    check(JoinError::Backlog, 503);
    check(JoinError::Closed, 503);
    check(ReadError::Reader(RefusedCause::TooManyTopics { limit: 3 }), 400);
    check(ReadError::Audience(AudienceError::Excessive), 400);
    check(ReadError::Expired, 401);
    check(FollowError::Denied, 403);
    check(FollowError::Join(JoinError::TooManyTopics { limit: 3 }), 400);
    check(FollowError::Join(JoinError::Closed), 503);
    check(ReadError::Combined, 500);
    check(ReadError::NotLoaded, 503);
    check(ReadError::Busy, 503);
    check(MembersError::Topic(NameError::Empty(NameKind::Topic)), 400);
    check(MembersError::Off, 500);
    check(DisconnectError::Audience(AudienceError::Excessive), 400);
    check(DisconnectError::Event(EventError::Comment), 400);
    check(DisconnectError::Backlog, 503);
    check(DisconnectError::Closed, 503);
    for error in [
        EventError::Type(InvalidEventType::Empty),
        EventError::Comment,
        EventError::Retry,
        EventError::Key,
        EventError::IdempotencyKey,
        EventError::Traceparent,
        EventError::Id,
    ] {
        check(error, 400);
    }
    check(EventError::OwnId, 500);
    check(EventError::Empty, 500);
    check(EventError::Late, 500);
    check(AudienceError::Excessive, 400);
    check(name, 400);
    check("nobody".parse::<ClientId>().unwrap_err(), 400);
    check(Goodbye::new("two words").unwrap_err(), 500);
    assert_eq!(ErrorResponse::from(StatusCode::CONFLICT).status(), StatusCode::CONFLICT);
}

/// Only another instance can help if the hub is closed.
#[test]
fn only_a_closed_hub_ends_the_connection() {
    let ends = |error: ErrorResponse| error_response(error).headers().contains_key("connection");

    assert!(ends(PublishError::Closed.into()));
    assert!(ends(JoinError::Closed.into()));
    assert!(ends(FollowError::Join(JoinError::Closed).into()));
    assert!(ends(RunError::Closed.into()));
    assert!(ends(DisconnectError::Closed.into()));

    assert!(!ends(PublishError::Backlog.into()));
    assert!(!ends(JoinError::Backlog.into()));
    assert!(!ends(FollowError::Join(JoinError::Backlog).into()));
    assert!(!ends(FollowError::Denied.into()));
    assert!(!ends(RunError::Backlog.into()));
    assert!(!ends(DisconnectError::Backlog.into()));
    assert!(!ends(ReadError::Busy.into()));
    assert!(!ends(MembersError::Off.into()));
    assert!(!ends(EventError::Comment.into()));
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_payload_that_does_not_serialise_is_a_500() {
    let keys: std::collections::HashMap<(u8, u8), u8> = [((1, 2), 3)].into();
    let failed = || Event::new("a").json(&keys).unwrap_err();
    assert_eq!(failed().into_response().status(), 500);
    assert_eq!(warp::Reply::into_response(failed()).status(), 500);
    let response = error_response(failed());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "Internal Server Error");
}

/// A handler of a stream that can also fail in its snapshot has one error type.
#[tokio::test]
async fn refusal_is_the_error_of_a_handler() {
    fn handle(hub: &Hub) -> Result<Subscription, ErrorResponse> {
        let stream = hub.subscribe(Subscriber::new().replay_last(1))?;
        Ok(stream.with_snapshot([Event::new("a")])?)
    }
    for style in [RefusalStyle::Stream, RefusalStyle::Status] {
        let hub = hub().refusals(style).build().unwrap();
        assert_eq!(handle(&hub).unwrap_err().status(), 500, "a snapshot and a replay");
        hub.close();
        let refused = hub.subscribe(Subscriber::new()).unwrap_err();
        let (error, expected) = (handle(&hub).unwrap_err(), into_response(Err(refused)));
        assert_eq!(error.status(), expected.status());
        for response in [
            error.into_response().into_parts().0,
            warp::Reply::into_response(error).into_parts().0,
            error_response(error).into_parts().0,
        ] {
            assert_eq!(response.status, expected.status());
            assert_eq!(response.headers["connection"], "close");
            assert_eq!(
                response.headers.get("content-type"),
                expected.headers().get("content-type")
            );
        }
    }
}

/// `?` works on every error of the crate, and the handler's own statuses fit in.
#[tokio::test]
async fn one_error_type_serves_a_whole_handler() {
    fn handle(hub: &Hub, client: &str) -> Result<&'static str, ErrorResponse> {
        let page = Audience::client(client.parse()?);
        let event = Event::new("a").data("b");
        event.check()?;
        hub.join(&page, "topic")?;
        hub.disconnect(&page, Goodbye::from_static("word"))?;
        hub.publish(page.clone(), event)?;
        match hub.count(&page) {
            0 => Err(StatusCode::NOT_FOUND.into()),
            _ => Ok("sent"),
        }
    }
    let hub = hub().build().unwrap();
    let client = hub.subscribe(Subscriber::new()).unwrap().client_id().to_string();
    assert_eq!(handle(&hub, "nobody").into_response().status(), 400);
    assert_eq!(handle(&hub, &client).into_response().status(), 404);
    hub.close();
    assert_eq!(warp::Reply::into_response(handle(&hub, &client)).status(), 503);
}

#[tokio::test]
async fn own_stream_is_a_reply_of_warp() {
    let events = stream::iter([Event::new("a").data("b")]);
    let reply = warp::Reply::into_response(EventStream::new(events, TokioTimer::new()));
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), "event: a\ndata: b\n\n");
}

#[tokio::test]
async fn a_stop_is_a_204_that_no_cache_keeps() {
    let response = stop_response();
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers().len(), 1);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
    let app = Router::new().route("/", get(async || stop_response()));
    let listener = bind().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = read_to_end(send(address, request).await).await;
    assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
    assert!(!answer.contains("content-type") && answer.ends_with("\r\n\r\n"), "{answer}");
}

/// A client that was served once, and then sends a byte of the next request now and then.
#[tokio::test]
async fn a_later_request_that_never_ends_is_cut() {
    let limit = Duration::from_secs(1);
    let watchdog = Watchdog::builder(TokioTimer::new()).request_within(limit).build().unwrap();
    let listener = watchdog.listen(bind().await);
    let hub = hub().build().unwrap();
    let server = sockets::Server::start_on(listener, &hub, std::future::pending());
    let request = "GET /last HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut slow = send(server.address, request).await;
    read_to(&mut slow, "none").await;
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let endless = b"GET /last HTTP/1.1\r\ncookie: ".iter().chain(&[b'a'; 1500]);
    for byte in endless {
        tick.tick().await;
        if slow.write_all(&[*byte]).await.is_err() {
            break;
        }
    }
    let took = begun.elapsed();
    assert!(limit <= took && took < limit + Duration::from_secs(4), "cut after {took:?}");
    eventually(DEADLINE, "counted", || watchdog.cuts().no_request == 1).await;
}
