//! The answers of `sse_hub::serve` are those of axum's server, byte for byte: for odd requests, cut
//! and merged at every byte.

use std::convert::Infallible;
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Request, Response, StatusCode, Version};
use axum::response::IntoResponse as _;
use axum::routing::{self, get};
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use sse_hub::{Event, EventStream, TokioTimer};

use crate::memory::{Answered, Connector, pipes};

/// A stream of three events, the last larger than an item that is copied.
fn stream() -> Response<Body> {
    let events = [
        Event::new("a").data("1"),
        Event::default().data("\r\n0\r\n\r\n"),
        Event::new("large").data("x".repeat(20 << 10)),
    ];
    EventStream::new(stream::iter(events), TokioTimer::new()).into_response()
}

fn with(name: &'static str, value: &'static str) -> Response<Body> {
    let mut response = stream();
    response.headers_mut().append(HeaderName::from_static(name), value.parse().unwrap());
    response
}

/// A body with something behind its data, a moment later: an error, or trailers. hyper drops the
/// data before an error that comes in the same moment.
struct Behind {
    body: Body,
    behind: Option<Result<HeaderMap, &'static str>>,
    is_late: bool,
}

impl http_body::Body for Behind {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into);
        match polled {
            Poll::Ready(None) if !std::mem::replace(&mut self.is_late, true) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                Poll::Ready(self.behind.take().map(|behind| Ok(Frame::trailers(behind?))))
            }
            polled => polled,
        }
    }
}

fn behind(behind: Result<HeaderMap, &'static str>) -> Response<Body> {
    stream().map(|body| Body::new(Behind { body, behind: Some(behind), is_late: false }))
}

fn trailers() -> HeaderMap {
    [(HeaderName::from_static("x-end"), "1".parse().unwrap())].into_iter().collect()
}

/// Changes the protocol: sends back all bytes that follow.
async fn upgrade(request: Request<Body>) -> Response<Body> {
    let upgrading = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrading.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let headers = [("connection", "upgrade"), ("upgrade", "echo")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn echo(request: Request<Body>) -> Response<Body> {
    match request.into_body().collect().await {
        Ok(body) => with("x-read", "all").map(|stream| {
            let read = stream::iter([Ok::<_, Infallible>(body.to_bytes())]);
            Body::from_stream(read.chain(stream.into_data_stream().map(|data| Ok(data.unwrap()))))
        }),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn router() -> Router {
    let version = || async {
        let mut response = stream();
        *response.version_mut() = Version::HTTP_10;
        response
    };
    let status = |status: StatusCode| async move || (status, stream());
    Router::new()
        .route("/plain", routing::any(|| async { "plain" }))
        .route("/s", routing::any(|| async { stream() }))
        .route("/echo", routing::any(echo))
        .route("/upgrade", routing::any(upgrade))
        .route("/close", routing::any(|| async { with("connection", "x, Close") }))
        .route("/keep", routing::any(|| async { with("connection", "keep-alive") }))
        .route("/encoded", routing::any(|| async { with("content-encoding", "none") }))
        .route("/te", routing::any(|| async { with("transfer-encoding", "chunked") }))
        .route("/date", routing::any(|| async { with("date", "today") }))
        .route("/twice", routing::any(|| async { with("cache-control", "private") }))
        .route("/trailer", routing::any(|| async { behind(Ok(trailers())) }))
        .route(
            "/announced",
            routing::any(|| async {
                let mut response = behind(Ok(trailers()));
                response.headers_mut().insert("trailer", "x-end".parse().unwrap());
                response
            }),
        )
        .route("/fails", routing::any(|| async { behind(Err("failed")) }))
        .route("/old", routing::any(version))
        .route("/created", routing::any(status(StatusCode::CREATED)))
        .route("/empty", routing::any(status(StatusCode::NO_CONTENT)))
        .route("/known", routing::any(status(StatusCode::NOT_MODIFIED)))
        .route("/get", get(|| async { stream() }))
}

const REQUESTS: [&str; 47] = [
    "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly",
    "GET /s HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /plain HTTP/1.1\r\nhost: a\r\n\r\n",
    "\r\n\r\nGET /s HTTP/1.1\r\nHOST:a\r\n\r\n",
    "GET /s HTTP/1.1\nhost: a\n\n",
    "GET http://a/s?x=1 HTTP/1.1\r\nhost: a\r\n\r\n",
    "HEAD /s HTTP/1.1\r\nhost: a\r\n\r\n",
    "OPTIONS /s HTTP/1.1\r\nhost: a\r\n\r\n",
    "M-SEARCH /s HTTP/1.1\r\nhost: a\r\n\r\n",
    "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nConnection: x ,\tCLOSE\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nconnection: close\r\nconnection: keep-alive\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nconnection: closed\r\n\r\n",
    "GET /s HTTP/1.0\r\n\r\n",
    "GET /s HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "GET /keep HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "HEAD /s HTTP/1.0\r\n\r\n",
    "GET /plain HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n",
    "GET /trailer HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n",
    "GET /announced HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n",
    "POST /s HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    "POST /s HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
    "POST /s HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx: 1\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody",
    "POST /s HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "GET /close HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /encoded HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /te HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /date HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /twice HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /fails HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /old HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /created HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /empty HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /known HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST /get HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /s HTTP/1.1\r\nhost : a\r\n\r\n",
];

/// Bytes that are no request of HTTP/1.
const NO_REQUESTS: [&str; 7] = [
    "",
    "PRI * HTTP/2.0\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "PRI * HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /s HTTP/3.7\r\n\r\n",
    "\u{0}\u{1}\r\n\r\n",
    // hyper refuses this head at once, or waits for the end, by the pieces of the head.
    "GET /s HTTP/1.1\r\nhost: a\r\n\rx",
];

/// Both servers, with the same service.
struct Both {
    ours: Connector,
    axums: Connector,
}

impl Both {
    fn new() -> Self {
        let (ours, listener) = pipes();
        tokio::spawn(sse_hub::serve(listener, router()).into_future());
        let (axums, listener) = pipes();
        tokio::spawn(axum::serve(listener, router()).into_future());
        Self { ours, axums }
    }

    async fn ask(&self, pieces: &[&[u8]]) -> Answered {
        let expected = self.axums.ask(pieces).await;
        let answered = self.ours.ask(pieces).await;
        let pieces = pieces.iter().map(|piece| String::from_utf8_lossy(piece));
        assert_eq!(answered, expected, "{:#?}", pieces.collect::<Vec<_>>());
        expected
    }
}

#[tokio::test]
async fn answers_are_axums_for_requests_cut_at_every_byte() {
    let both = Both::new();
    let (mut streams, mut closed) = (0, 0);
    for request in REQUESTS.iter().chain(&NO_REQUESTS).map(|request| request.as_bytes()) {
        let whole = both.ask(&[request]).await;
        streams += usize::from(whole.text.contains("event: large"));
        closed += usize::from(whole.is_closed);
        for at in 1..request.len() {
            both.ask(&[&request[..at], &request[at..]]).await;
        }
    }
    // The corpus has streams, and connections that close and that stay.
    assert!(streams > 30, "{streams}");
    assert!((10..40).contains(&closed), "{closed}");
}

#[tokio::test]
async fn answers_are_axums_for_each_pair_of_requests() {
    let both = Both::new();
    for first in REQUESTS {
        for second in REQUESTS {
            both.ask(&[&[first, second].concat().into_bytes()]).await;
        }
    }
}

#[tokio::test]
async fn upgraded_connection_sends_back_all_bytes() {
    let both = Both::new();
    let answered = both.ask(&[REQUESTS[0].as_bytes(), b"late"]).await;
    assert!(answered.text.starts_with("HTTP/1.1 101 "), "{}", answered.text);
    assert!(answered.text.ends_with("\r\n\r\nearlylate"), "{}", answered.text);
}

#[tokio::test]
async fn stream_over_http2_stays_with_hyper() {
    let both = Both::new();
    let pipe = TokioIo::new(both.ours.connect());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), pipe).await.unwrap();
    tokio::spawn(connection);
    for path in ["http://a/s", "http://a/plain", "http://a/s"] {
        let request = Request::get(path).body(String::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let is_stream = String::from_utf8_lossy(&body).contains("event: large\n");
        assert_eq!(is_stream, path.ends_with("/s"));
        assert!(!both.ours.has_left_hyper());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_axums_for_requests_cut_anywhere(
        requests in prop::collection::vec(
            prop::sample::select([&REQUESTS[..], &NO_REQUESTS[..]].concat()), 1..6,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        flip in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = requests.concat().into_bytes();
        if let (Some((at, byte)), false) = (flip, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { Both::new().ask(&pieces).await });
    }
}

/// Reads pieces from bytes. A byte of 0x80 and above stands for a request of the corpus or a word,
/// and 0xFF ends a piece.
fn pieces(script: &[u8]) -> Vec<Vec<u8>> {
    const WORDS: [&str; 8] = [
        "GET /s HTTP/1.1\r\n",
        "POST /echo HTTP/1.1\r\n",
        "host: a\r\n",
        "connection: ",
        "content-length: ",
        "transfer-encoding: chunked\r\n",
        "expect: 100-continue\r\n",
        "\r\n\r\n",
    ];
    let known = [&WORDS[..], &REQUESTS, &NO_REQUESTS].concat();
    let expand = |bytes: &[u8]| {
        let word = |byte: &u8| known.get(usize::from(*byte).wrapping_sub(0x80));
        let part = |byte| word(byte).map_or_else(|| slice::from_ref(byte), |word| word.as_bytes());
        bytes.iter().flat_map(part).copied().collect::<Vec<u8>>()
    };
    // A piece without bytes would be no write.
    let pieces = script.split(|&byte| byte == 0xFF).take(16).map(expand);
    pieces.filter(|piece| !piece.is_empty()).collect()
}

#[test]
fn answers_are_axums_for_any_bytes() {
    // Each byte can stand for a request, whose answer has 20 KiB.
    bolero::check!().with_max_len(128).for_each(|script: &[u8]| {
        let pieces = pieces(script);
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { Both::new().ask(&pieces).await });
    });
}
