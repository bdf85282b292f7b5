//! Layers around a router behave as under axum's server. Each row of the table in the documentation
//! of `sse_hub::serve` is a test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::http::{HeaderMap, HeaderName, Request, Response};
use axum::response::IntoResponse as _;
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use sse_hub::{Event, EventStream, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use tower_http::cors::CorsLayer;
use tower_http::metrics::InFlightRequestsLayer;
use tower_http::metrics::in_flight_requests::InFlightRequestsCounter;
use tower_http::request_id::{
    MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::{ResponseBodyTimeoutLayer, TimeoutLayer};
use tower_http::trace::TraceLayer;

use crate::memory::{Answered, Connector, Pipes, pipes, read};

/// The calls that a layer got.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn push(&self, call: impl Into<String>) {
        self.0.lock().unwrap().push(call.into());
    }
}

fn events() -> EventStream<impl stream::Stream<Item = Event> + Send + 'static> {
    let events = [Event::new("n").data("1"), Event::new("n").data("2")];
    EventStream::new(stream::iter(events), TokioTimer::new())
}

fn router() -> Router {
    let held = || async {
        let events = stream::iter([Event::new("n").data("1")]).chain(stream::pending());
        EventStream::new(events, TokioTimer::new()).heartbeat(None).into_response()
    };
    Router::new()
        .route("/s", get(|| async { events().into_response() }))
        .route("/held", get(held))
        .route("/panics", get(async || -> String { panic!("in a handler") }))
        .route("/waits", get(std::future::pending::<()>))
}

/// The result of a request to one of the servers.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answered: Answered,
    calls: Vec<String>,
    /// The calls after the client has closed the connection.
    calls_at_end: Vec<String>,
}

async fn outcome(
    connector: Connector,
    calls: Calls,
    headers: &str,
    path: &str,
    wait: Duration,
) -> Outcome {
    let mut pipe = connector.connect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    pipe.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let mut is_closed = read(&mut pipe, &mut bytes).await;
    if wait > Duration::ZERO {
        tokio::time::sleep(wait).await;
        is_closed |= read(&mut pipe, &mut bytes).await;
    }
    let answered = Answered::new(&bytes, is_closed);
    let calls_so_far = calls.0.lock().unwrap().clone();
    drop(pipe);
    read(&mut connector.connect(), &mut Vec::new()).await;
    let calls_at_end = calls.0.lock().unwrap().clone();
    Outcome { answered, calls: calls_so_far, calls_at_end }
}

/// Asks both servers. Returns their outcome, and whether the stream has left hyper in ours.
async fn same(
    layers: impl Fn(Router, Calls) -> Router,
    headers: &str,
    path: &str,
    wait: Duration,
) -> (Outcome, bool) {
    let start = |serve: fn(Pipes, Router)| {
        let ((connector, listener), calls) = (pipes(), Calls::default());
        serve(listener, layers(router(), calls.clone()));
        (connector, calls)
    };
    let (axums, calls) = start(|listener, app| {
        tokio::spawn(axum::serve(listener, app).into_future());
    });
    let expected = outcome(axums, calls, headers, path, wait).await;
    let (ours, calls) = start(|listener, app| {
        tokio::spawn(sse_hub::serve(listener, app).into_future());
    });
    let left = {
        let mut pipe = ours.connect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        pipe.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        read(&mut pipe, &mut bytes).await;
        ours.has_left_hyper()
    };
    read(&mut ours.connect(), &mut Vec::new()).await;
    calls.0.lock().unwrap().clear();
    let answered = outcome(ours, calls, headers, path, wait).await;
    assert_eq!(answered, expected);
    (answered, left)
}

#[tokio::test]
async fn trace_sees_each_chunk_and_the_end() {
    let trace = |app: Router, calls: Calls| {
        let on = |name: &'static str| {
            let calls = calls.clone();
            move |more: String| calls.push(format!("{name} {more}"))
        };
        let (request, response) = (on("request"), on("response"));
        let (chunk, end, failure) = (on("chunk"), on("end"), on("failure"));
        app.layer(
            TraceLayer::new_for_http()
                .on_request(move |asked: &Request<Body>, _: &tracing::Span| {
                    request(asked.uri().to_string());
                })
                .on_response(move |answer: &Response<Body>, _: Duration, _: &tracing::Span| {
                    response(answer.status().to_string());
                })
                .on_body_chunk(move |data: &Bytes, _: Duration, _: &tracing::Span| {
                    chunk(data.len().to_string());
                })
                .on_eos(move |_: Option<&HeaderMap>, _: Duration, _: &tracing::Span| {
                    end(String::new());
                })
                .on_failure(move |failed, _: Duration, _: &tracing::Span| {
                    let _: tower_http::classify::ServerErrorsFailureClass = failed;
                    failure(String::new());
                }),
        )
    };
    let (seen, _) = same(trace, "", "/s", Duration::ZERO).await;
    assert_eq!(seen.calls, ["request /s", "response 200 OK", "chunk 18", "chunk 18", "end "]);
    let (seen, left) = same(trace, "", "/held", Duration::ZERO).await;
    assert_eq!(seen.calls_at_end, ["request /held", "response 200 OK", "chunk 18"]);
    assert!(left);
}

#[tokio::test]
async fn cors_adds_its_headers() {
    let cors = |app: Router, _| app.layer(CorsLayer::permissive());
    let (seen, left) = same(cors, "origin: https://b\r\n", "/held", Duration::ZERO).await;
    assert!(seen.answered.text.contains("access-control-allow-origin: *\r\n"));
    assert!(left);
}

#[tokio::test]
async fn compressed_stream_stays_with_hyper() {
    // The default of the layer never compresses a stream of events.
    let default = |app: Router, _| app.layer(CompressionLayer::new());
    let (seen, left) = same(default, "accept-encoding: gzip\r\n", "/held", Duration::ZERO).await;
    assert!(!seen.answered.text.contains("content-encoding"));
    assert!(left);
    let always =
        |app: Router, _| app.layer(CompressionLayer::new().compress_when(SizeAbove::new(0)));
    let (seen, left) = same(always, "accept-encoding: gzip\r\n", "/held", Duration::ZERO).await;
    assert!(seen.answered.text.contains("content-encoding: gzip\r\n"));
    assert!(!left);
}

#[tokio::test(start_paused = true)]
async fn timeout_of_a_handler_does_not_end_streams() {
    let timeout = |app: Router, _| {
        app.layer(TimeoutLayer::with_status_code(
            axum::http::StatusCode::GATEWAY_TIMEOUT,
            Duration::from_secs(1),
        ))
    };
    let (seen, _) = same(timeout, "", "/waits", Duration::from_secs(2)).await;
    assert!(seen.answered.text.starts_with("HTTP/1.1 504 "), "{}", seen.answered.text);
    let (seen, left) = same(timeout, "", "/held", Duration::from_secs(20)).await;
    assert!(!seen.answered.is_closed);
    assert!(left);
}

#[tokio::test(start_paused = true)]
async fn timeout_of_a_body_cuts_a_silent_stream() {
    let timeout = |app: Router, _| app.layer(ResponseBodyTimeoutLayer::new(Duration::from_secs(1)));
    let (seen, left) = same(timeout, "", "/held", Duration::from_millis(900)).await;
    assert!(!seen.answered.is_closed);
    assert!(left);
    let (seen, _) = same(timeout, "", "/held", Duration::from_secs(2)).await;
    assert!(seen.answered.is_closed);
    assert!(!seen.answered.text.ends_with("0\r\n\r\n"), "the stream was cut");
}

#[tokio::test]
async fn panic_of_a_handler_is_caught() {
    let catch = |app: Router, _| app.layer(CatchPanicLayer::new());
    let (seen, _) = same(catch, "", "/panics", Duration::ZERO).await;
    assert!(seen.answered.text.starts_with("HTTP/1.1 500 "));
    let (_, left) = same(catch, "", "/held", Duration::ZERO).await;
    assert!(left);
}

#[derive(Clone)]
struct Seven;

impl MakeRequestId for Seven {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        Some(RequestId::new(HeaderValue::from_static("7")))
    }
}

#[tokio::test]
async fn request_id_is_in_the_head() {
    let name = HeaderName::from_static("x-request-id");
    let id = |app: Router, _| {
        let app = app.layer(PropagateRequestIdLayer::new(name.clone()));
        app.layer(SetRequestIdLayer::new(name.clone(), Seven))
    };
    let (seen, left) = same(id, "", "/held", Duration::ZERO).await;
    assert!(seen.answered.text.contains("x-request-id: 7\r\n"));
    assert!(left);
}

#[tokio::test]
async fn header_of_a_layer_replaces_ours() {
    let set = |app: Router, _| {
        let private = HeaderValue::from_static("private");
        app.layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, private))
    };
    let (seen, left) = same(set, "", "/held", Duration::ZERO).await;
    assert!(seen.answered.text.contains("cache-control: private\r\n"));
    assert!(left);
}

#[tokio::test]
async fn request_is_in_flight_until_its_stream_ends() {
    let (connector, listener) = pipes();
    let counter = InFlightRequestsCounter::new();
    let app = router().layer(InFlightRequestsLayer::new(counter.clone()));
    tokio::spawn(sse_hub::serve(listener, app).into_future());
    let mut pipe = connector.connect();
    pipe.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    read(&mut pipe, &mut bytes).await;
    assert!(connector.has_left_hyper());
    assert_eq!(counter.get(), 1, "the body's guard lives");
    drop(pipe);
    read(&mut connector.connect(), &mut bytes).await;
    assert_eq!(counter.get(), 0);
}
