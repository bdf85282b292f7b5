//! Streams over real sockets, read byte by byte by a client that knows no library.
#![cfg(all(feature = "axum", feature = "tokio"))]

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use sse_hub::{
    Audience, ClientId, Event, EventId, Heartbeat, Hub, HubBuilder, LastEventId, ManualTimer,
    Refused, Retain, Subscriber, Subscription, Timer as _, TokioTimer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// For what takes milliseconds on a machine that has nothing else to do.
const DEADLINE: Duration = Duration::from_secs(30);

const RETRY: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_stream_opens_with_its_head_and_first_frame_before_anything_is_published() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut client = server.get("/events", None).await;

    assert_eq!(client.head.status, "HTTP/1.1 200 OK");
    assert!(client.head.headers.remove("date").is_some());
    let expected = [
        ("cache-control", "no-cache, no-transform"),
        ("content-type", "text/event-stream"),
        ("transfer-encoding", "chunked"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ];
    assert_eq!(client.head.headers, headers(&expected));

    let open = client.open().await;
    assert!(!open.resumed);
    assert_eq!(open.id.1, 0);
    assert_eq!(hub.stats().published, 0);
    assert_eq!(hub.stats().clients, 1);
    let retry = open.retry;
    assert!((RETRY.mul_f64(0.75)..=RETRY.mul_f64(1.25)).contains(&retry), "retry: {retry:?}");
}

#[tokio::test]
async fn an_event_reaches_exactly_those_whom_it_is_for() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let paths = [
        "/events?user=ann&session=s1&topics=red",
        "/events?user=ann&session=s2&topics=red,blue",
        "/events?user=bob&session=s1&topics=blue",
        "/events",
        // Names are typed: the same texts in other places are other names.
        "/events?user=red&session=ann&topics=s1,bob",
    ];
    let mut clients = Vec::new();
    let mut ids = Vec::new();
    for path in paths {
        let mut client = server.get(path, None).await;
        ids.push(client.open().await.client);
        clients.push(client);
    }

    let sendings = [
        ("a", Audience::user("ann"), &[0, 1][..]),
        ("b", Audience::session("s1"), &[0, 2]),
        ("c", Audience::topic("blue"), &[1, 2]),
        ("d", Audience::client(ids[3]), &[3]),
        ("e", Audience::all(), &[0, 1, 2, 3, 4]),
        ("f", Audience::topic("red"), &[0, 1]),
        ("g", Audience::client(ids[0]), &[0]),
        ("h", Audience::user("nobody"), &[]),
        ("i", Audience::session("ann"), &[4]),
        ("end", Audience::all(), &[0, 1, 2, 3, 4]),
    ];
    let mut expected = vec![String::new(); clients.len()];
    for (data, audience, receivers) in sendings {
        let receipt = hub.publish(audience, Event::new("to").data(data)).unwrap();
        assert_eq!(receipt.matched(), receivers.len(), "{data}");
        for &receiver in receivers {
            expected[receiver].push_str(&frame("to", data, receipt.id().unwrap()));
        }
    }
    for (client, expected) in clients.iter_mut().zip(expected) {
        let mut received = String::new();
        while !received.contains("data: end\n") {
            received.push_str(&client.frame().await.unwrap());
        }
        assert_eq!(received, expected);
    }
}

#[tokio::test]
async fn a_client_that_closes_its_socket_is_gone_within_a_second() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let mut client = server.get(&format!("/events?user={number}&topics=t"), None).await;
        client.open().await;
        clients.push(client);
    }
    assert_eq!(hub.stats().clients, 10);

    // Its socket closes with everything read.
    drop(clients.pop());
    eventually(Duration::from_secs(1), "the first is gone", || hub.stats().clients == 9).await;
    // Theirs close with something unread, which resets the connections.
    hub.broadcast(Event::new("unread")).unwrap();
    for client in &clients {
        within("the event is there", client.socket.readable()).await.unwrap();
    }
    drop(clients.split_off(1));
    eventually(Duration::from_secs(1), "the others are gone", || hub.stats().clients == 1).await;
    // Everybody, its client id, its user, its topic.
    assert_eq!(hub.stats().names, 4);
    let survivor = &mut clients[0];
    assert!(survivor.frame().await.unwrap().starts_with("event: unread\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_connection_is_cut_again_and_again_gets_every_event_once_and_in_order() {
    const EVENTS: u64 = 10_000;
    let hub = hub().retain(Retain::events(20_000)).build().unwrap();
    let server = Server::start(&hub).await;

    let followed = Followed::follow(&server, EVENTS, 6_000, |chance| chance.below(50)).await;

    let numbers: Vec<u64> = followed.numbers().collect();
    assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>());
    let mut opens = followed.seen.iter().filter_map(|seen| match seen {
        Seen::Open { resumed } => Some(*resumed),
        _ => None,
    });
    assert_eq!(opens.next(), Some(false));
    assert!(opens.all(|resumed| resumed));
    assert!(!followed.seen.iter().any(|seen| matches!(seen, Seen::Gap { .. })));
    // The frames alone are 450 kB.
    assert!(followed.cuts > 50, "{} cuts", followed.cuts);
    assert!(followed.cuts_within_frames > 25, "{} cuts", followed.cuts_within_frames);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_away_for_too_long_is_told_of_each_gap_before_the_next_event() {
    const RETAINED: u64 = 64;
    let hub = hub().retain(Retain::events(RETAINED as usize)).build().unwrap();
    let server = Server::start(&hub).await;

    let followed =
        Followed::follow(&server, 10_000, 6_000, |chance| chance.below(3 * RETAINED)).await;

    let mut next = 0;
    let mut gap = false;
    let mut gaps = 0;
    let mut position = EventId::default();
    for seen in &followed.seen {
        match *seen {
            Seen::Open { .. } => {}
            Seen::Gap { id } => {
                assert!(id > position, "the gap's id {id} is fresh after {position}");
                position = id;
                gap = true;
                gaps += 1;
            }
            Seen::Event { number, id } => {
                assert!(number >= next, "{number} came again");
                assert!(number == next || gap, "{next} to {number} are missing without a gap");
                assert!(id > position, "{id} follows {position}");
                position = id;
                next = number + 1;
                gap = false;
            }
        }
    }
    assert_eq!(next, 10_000);
    assert!(gaps > 10, "{gaps} gaps");
}

#[tokio::test]
async fn the_id_of_a_gap_is_one_to_go_on_from() {
    let hub = hub().retain(Retain::events(3)).build().unwrap();
    let server = Server::start(&hub).await;
    let first = publish(&hub, 0);
    for number in 1..=5 {
        publish(&hub, number);
    }

    let mut client = server.get("/events", Some(first.to_string().as_bytes())).await;
    let open = client.open().await;
    assert!(!open.resumed);
    let gap = client.gap("evicted").await;
    assert!(gap > first);
    for number in 3..=5 {
        let id = EventId(first.0, first.1 + number);
        assert_eq!(client.frame().await.unwrap(), frame("n", &number.to_string(), id));
    }

    // Cut off before the gap, it comes back to it.
    let mut client = server.get("/events", Some(open.id.to_string().as_bytes())).await;
    assert!(!client.open().await.resumed);
    assert_eq!(client.gap("evicted").await, gap);

    let mut client = server.get("/events", Some(gap.to_string().as_bytes())).await;
    let open = client.open().await;
    assert!(open.resumed);
    assert_eq!(open.id, gap);
    let third = EventId(first.0, first.1 + 3);
    assert_eq!(client.frame().await.unwrap(), frame("n", "3", third));
}

#[tokio::test]
async fn a_client_goes_on_after_the_id_in_its_header_or_else_in_its_query() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let [first, second, third] = [0, 1, 2].map(|number| publish(&hub, number));
    let header = first.to_string();
    let requests = [
        ("/events".to_owned(), Some(header.as_str()), first),
        (format!("/events?lastEventId={first}"), None, first),
        (format!("/events?last_event_id={first}"), None, first),
        (format!("/events?last-event-id={first}"), None, first),
        (format!("/events?user=ann&lastEventId={first}&session=s"), None, first),
        (format!("/events?lastEventId={second}"), Some(header.as_str()), first),
        (format!("/events?lastEventId=&last_event_id={second}"), None, second),
        // An empty header says nothing.
        (format!("/events?lastEventId={second}"), Some(""), second),
    ];
    for (path, header, after) in requests {
        let mut client = server.get(&path, header.map(str::as_bytes)).await;
        let open = client.open().await;
        assert!(open.resumed, "{path} {header:?}");
        assert_eq!(open.id, after, "{path} {header:?}");
        if after == first {
            assert_eq!(client.frame().await.unwrap(), frame("n", "1", second));
        }
        assert_eq!(client.frame().await.unwrap(), frame("n", "2", third));
    }
}

#[tokio::test]
async fn a_garbage_id_is_a_gap_and_never_an_error_page() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut head = publish(&hub, 0);
    let ahead = format!("{}-{}", head.0, u64::MAX);
    let long = [b'7'; 4096];
    let long_and_not_ascii = [0xe9; 4096];
    let garbage: [&[u8]; 17] = [
        b"\xff\xfe",
        "\u{202e}née".as_bytes(),
        &long,
        &long_and_not_ascii,
        b"0",
        b"-",
        b"1",
        b"1-",
        b"-1",
        b"1--1",
        b"1-2-3",
        b"01-2",
        b"+1-2",
        b"18446744073709551616-0",
        b"1-18446744073709551616",
        b"$",
        ahead.as_bytes(),
    ];
    let well_formed = format!("/events?lastEventId={head}");
    // Also where the query has a good one: the header wins.
    let headers = garbage.iter().flat_map(|id| [("/events", *id), (&well_formed, *id)]);
    let queries =
        [&long[..], b"0", b"-", b"%FF%FE", b"%31-1", b"18446744073709551616-0"].map(|id| {
            let id = str::from_utf8(id).unwrap();
            (format!("/events?last_event_id={id}"), None)
        });
    let requests = headers.map(|(path, id)| (path.to_owned(), Some(id))).chain(queries);
    for (number, (path, id)) in (1..).zip(requests) {
        let what = format!("{path} {}", String::from_utf8_lossy(id.unwrap_or_default()));
        let mut client = server.get(&path, id).await;
        assert_eq!(client.head.status, "HTTP/1.1 200 OK", "{what}");
        assert!(!client.open().await.resumed, "{what}");
        assert_eq!(client.gap("unknown").await, head, "{what}");
        head = publish(&hub, number);
        assert_eq!(client.frame().await.unwrap(), frame("n", &number.to_string(), head), "{what}");
    }
}

#[tokio::test]
async fn a_handler_may_ask_whether_there_is_an_id_at_all() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let requests: [(&str, Option<&[u8]>, &str); 6] = [
        ("/last", None, "none"),
        ("/last", Some(b""), "none"),
        ("/last?lastEventId=", None, "none"),
        ("/last", Some(b"1763-12"), "1763-12"),
        ("/last?last-event-id=1763-12", None, "1763-12"),
        ("/last", Some(b"\xff"), "unknown"),
    ];
    for (path, header, expected) in requests {
        let client = server.get(path, header).await;
        assert_eq!(client.rest().await, expected, "{path} {header:?}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_one_is_a_bad_request_with_the_reason() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let long = "x".repeat(257);
    let requests = [
        (
            "/events?user=".to_owned(),
            "the subscriber has an invalid name: an empty user: leave it out for clients that have none",
        ),
        (
            format!("/events?topics=fine,{long}"),
            "the subscriber has an invalid name: a topic of more than 256 bytes: use a shorter name, or a digest of it",
        ),
    ];
    for (path, reason) in requests {
        let client = server.get(&path, None).await;
        assert_eq!(client.head.status, "HTTP/1.1 400 Bad Request");
        assert_eq!(client.head.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(client.rest().await, reason);
    }
    assert_eq!(hub.stats().opened, 0);
    assert_eq!(hub.stats().names, 0);
}

#[tokio::test]
async fn a_closed_hub_tells_a_client_to_come_back_and_ends_the_stream() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    hub.close();

    let client = server.get("/events", None).await;
    assert_eq!(client.head.status, "HTTP/1.1 200 OK");
    assert_eq!(client.head.headers["content-type"], "text/event-stream");
    assert_eq!(client.head.headers["cache-control"], "no-cache, no-transform");
    assert_eq!(client.head.headers["x-accel-buffering"], "no");
    assert_eq!(client.head.headers["x-content-type-options"], "nosniff");
    let stream = client.rest().await;
    let retry = refused_retry(&stream, "closed");
    assert!((RETRY.mul_f64(0.75)..=RETRY.mul_f64(1.25)).contains(&retry), "retry: {retry:?}");
    assert_eq!(hub.stats().clients, 0);
}

#[tokio::test]
async fn closing_the_hub_ends_streams_after_what_was_published_before() {
    // 500 are more than a client's window holds, so that some of it is read from the log.
    for events in [0, 1, 500] {
        closing_after(events).await;
    }
}

async fn closing_after(events: u64) {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.get("/events", None).await;
        client.open().await;
        clients.push(client);
    }
    let mut expected = String::new();
    for number in 0..events {
        let id = publish(&hub, number);
        expected.push_str(&frame("n", &number.to_string(), id));
    }
    hub.close();
    for mut client in clients {
        let mut received = String::new();
        while let Some(frame) = client.frame().await {
            received.push_str(&frame);
        }
        assert_eq!(received, expected);
        assert!(client.raw.ends_with(b"\r\n0\r\n\r\n"), "the last chunk ends the response");
    }
    assert_eq!(hub.stats().clients, 0);
}

#[tokio::test]
async fn a_server_that_closes_its_hub_shuts_down_gracefully() {
    let hub = hub().build().unwrap();
    let (shut_down, told) = oneshot::channel();
    let closing = hub.clone();
    let server = Server::start_until(&hub, async move {
        told.await.unwrap();
        closing.close();
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.get("/events", None).await;
        client.open().await;
        clients.push(client);
    }
    let last = publish(&hub, 0);

    shut_down.send(()).unwrap();
    within("the server exits", server.serving).await.unwrap();
    for mut client in clients {
        assert_eq!(client.frame().await.unwrap(), frame("n", "0", last));
        assert_eq!(client.frame().await, None);
        assert!(client.raw.ends_with(b"\r\n0\r\n\r\n"), "the last chunk ends the response");
        assert!(!client.more().await, "the connection is closed");
    }
    assert_eq!(hub.stats().clients, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_connections_gets_a_broadcast() {
    // Twice as many descriptors, which must fit into the least limit that systems set.
    const CLIENTS: usize = 100;
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.get("/events", None).await;
        client.open().await;
        clients.push(client);
    }

    let receipt = hub.broadcast(Event::new("news").data("for all")).unwrap();
    assert_eq!(receipt.matched(), CLIENTS);
    let expected = frame("news", "for all", receipt.id().unwrap());
    for client in &mut clients {
        assert_eq!(client.frame().await.unwrap(), expected);
    }
    drop(clients);
    eventually(DEADLINE, "all are gone", || hub.stats().clients == 0).await;
}

#[tokio::test]
async fn a_silent_stream_carries_a_comment_line_at_each_interval_and_nothing_else() {
    const EVERY: Duration = Duration::from_secs(15);
    let timer = ManualTimer::new();
    let hub = Hub::builder(timer.clone()).heartbeat(Heartbeat::every(EVERY)).build().unwrap();
    let server = Server::start(&hub).await;
    let mut client = server.get("/events", None).await;
    client.open().await;
    client.raw.clear();

    let mut expected = Vec::new();
    for _ in 0..3 {
        eventually(DEADLINE, "it waits", || timer.next_deadline().is_some()).await;
        timer.advance(EVERY - Duration::from_nanos(1));
        assert!(timer.next_deadline().is_some(), "nothing was woken early");
        timer.advance(Duration::from_nanos(1));
        expected.extend(b"2\r\n:\n\r\n");
        while client.raw.len() < expected.len() {
            assert!(client.more().await);
        }
        assert_eq!(client.raw.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    // Silence is counted from the last event, not from the last heartbeat.
    timer.advance(EVERY / 3);
    let silent_since = timer.now();
    let id = publish(&hub, 0);
    let heartbeats = ":\n".repeat(3);
    assert_eq!(client.frame().await.unwrap(), heartbeats + &frame("n", "0", id));
    client.raw.clear();
    timer.advance(EVERY - Duration::from_nanos(1));
    eventually(DEADLINE, "it waits", || timer.next_deadline().is_some()).await;
    assert_eq!(timer.next_deadline(), Some(silent_since + EVERY));
    timer.advance(Duration::from_nanos(1));
    while client.raw.len() < 7 {
        assert!(client.more().await);
    }
    assert_eq!(client.raw, b"2\r\n:\n\r\n");
}

#[tokio::test]
async fn a_body_without_a_server_is_a_frame_for_each_item_of_its_stream() {
    let hub = hub().build().unwrap();
    let response = sse_hub::http::respond(hub.subscribe(Subscriber::new()));
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    assert!(!body.is_end_stream());
    assert_eq!(body.size_hint().exact(), None);
    let opening = next_data(&mut body).await.unwrap();
    assert!(opening.starts_with(b"event: hub:open\n"));

    let id = publish(&hub, 0);
    assert_eq!(next_data(&mut body).await.unwrap(), frame("n", "0", id));
    assert!(!body.is_end_stream());
    let (second, third) = (publish(&hub, 1), publish(&hub, 2));
    hub.close();
    let both = frame("n", "1", second) + &frame("n", "2", third);
    assert_eq!(next_data(&mut body).await.unwrap(), both);
    assert_eq!(next_data(&mut body).await, None);
}

#[tokio::test]
async fn a_body_streams_what_any_stream_yields() {
    let frames = ["data: a\n\n", ":\n", "data: b\n\n"].map(Bytes::from);
    let response = sse_hub::http::response(futures_util::stream::iter(frames));
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let whole = within("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(whole.to_bytes(), "data: a\n\n:\ndata: b\n\n");
}

#[tokio::test]
async fn a_refusal_without_a_server_is_whole_and_promises_no_length() {
    let hub = hub().build().unwrap();
    let invalid = hub.subscribe(Subscriber::new().session("")).unwrap_err();
    hub.close();
    let closed = hub.subscribe(Subscriber::new()).unwrap_err();

    for (refused, status) in [(invalid, 400), (closed, 200)] {
        let response = sse_hub::http::respond(Err(refused));
        assert_eq!(response.status(), status);
        let mut body = response.into_body();
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), None, "an event stream has no content-length");
        let text = next_data(&mut body).await.unwrap();
        assert!(body.is_end_stream());
        assert_eq!(next_data(&mut body).await, None);
        if refused.is_temporary() {
            let told = refused_retry(str::from_utf8(&text).unwrap(), "closed");
            assert_eq!(told.as_millis(), refused.retry().as_millis());
        } else {
            assert_eq!(text, refused.to_string());
        }
    }
}

fn hub() -> HubBuilder {
    // A heartbeat would come between frames where a test reads slowly.
    Hub::builder(TokioTimer::new()).heartbeat(Heartbeat::off()).retry(RETRY)
}

fn publish(hub: &Hub, number: u64) -> EventId {
    hub.broadcast(Event::new("n").data(number.to_string())).unwrap().id().unwrap()
}

fn frame(event: &str, data: &str, id: EventId) -> String {
    format!("event: {event}\ndata: {data}\nid: {id}\n\n")
}

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the whole stream of a refused client says about coming back.
fn refused_retry(stream: &str, reason: &str) -> Duration {
    let rest = stream.strip_prefix("event: hub:refused\nretry: ").expect(stream);
    let (retry, rest) = rest.split_once('\n').expect(stream);
    assert_eq!(rest, format!("data: {{\"reason\":\"{reason}\"}}\n\n"));
    Duration::from_millis(retry.parse().expect(stream))
}

async fn next_data(body: &mut sse_hub::http::Body) -> Option<Bytes> {
    let frame = within("the next frame", body.frame()).await?;
    let Ok(frame) = frame;
    Some(frame.into_data().expect("bodies have no trailers"))
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let timeout = tokio::time::timeout(DEADLINE, future).await;
    timeout.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

async fn eventually(deadline: Duration, what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let timeout = tokio::time::timeout(deadline, holds).await;
    timeout.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}"));
}

struct Server {
    hub: Hub,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Who {
    user: Option<String>,
    session: Option<String>,
    topics: Option<String>,
}

impl Server {
    async fn start(hub: &Hub) -> Self {
        Self::start_until(hub, std::future::pending()).await
    }

    async fn start_until(hub: &Hub, end: impl Future<Output = ()> + Send + 'static) -> Self {
        let app = Router::new()
            .route("/events", get(events))
            .route("/last", get(last))
            .with_state(hub.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(end).await.unwrap();
        });
        Self { hub: hub.clone(), address, serving }
    }

    async fn get(&self, path: &str, last: Option<&[u8]>) -> Client {
        self.get_until_cut(path, last, usize::MAX).await.expect("the server closed the connection")
    }

    async fn get_until_cut(
        &self,
        path: &str,
        last: Option<&[u8]>,
        budget: usize,
    ) -> Option<Client> {
        let socket = within("the connection", TcpStream::connect(self.address)).await.unwrap();
        Client::get(socket, path, last, budget).await
    }
}

async fn events(
    State(hub): State<Hub>,
    Query(Who { user, session, topics }): Query<Who>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    let mut subscriber = Subscriber::new().resume(last);
    if let Some(user) = user {
        subscriber = subscriber.user(user);
    }
    if let Some(session) = session {
        subscriber = subscriber.session(session);
    }
    if let Some(topics) = topics {
        subscriber = subscriber.topics(topics.split(','));
    }
    hub.subscribe(subscriber)
}

async fn last(last: Option<LastEventId>) -> String {
    match last.map(LastEventId::id) {
        None => "none".to_owned(),
        Some(None) => "unknown".to_owned(),
        Some(Some(id)) => id.to_string(),
    }
}

/// A connection with one request on it.
struct Client {
    socket: TcpStream,
    /// How many bytes may still be read until the connection is cut.
    budget: usize,
    head: Head,
    framing: Framing,
    /// Everything that was read after the head.
    raw: Vec<u8>,
    /// The same without its transfer encoding, as far as it was not taken.
    body: Vec<u8>,
}

#[derive(Default)]
struct Head {
    status: String,
    headers: BTreeMap<String, String>,
}

struct Open {
    client: ClientId,
    resumed: bool,
    retry: Duration,
    id: EventId,
}

impl Client {
    /// `None` if the connection is cut before the end of the head.
    async fn get(
        socket: TcpStream,
        path: &str,
        last: Option<&[u8]>,
        budget: usize,
    ) -> Option<Self> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
        if let Some(last) = last {
            request.extend([b"last-event-id: ", last, b"\r\n"].concat());
        }
        request.extend(b"\r\n");
        let mut client = Self {
            socket,
            budget,
            head: Head::default(),
            framing: Framing::Head,
            raw: Vec::new(),
            body: Vec::new(),
        };
        within("the request is sent", client.socket.write_all(&request)).await.unwrap();

        let end = loop {
            if let Some(end) = find(&client.raw, b"\r\n\r\n") {
                break end;
            }
            if !client.more().await {
                return None;
            }
        };
        let rest = client.raw.split_off(end + 4);
        let head = String::from_utf8(std::mem::replace(&mut client.raw, rest)).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        client.head.status = lines.next().unwrap().to_owned();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let again = client.head.headers.insert(name.to_owned(), value.to_owned());
            assert_eq!(again, None, "{name} comes twice");
        }
        client.framing = Framing::of(&client.head.headers);
        client.framing.decode(&client.raw, &mut client.body);
        Some(client)
    }

    /// Reads on. `false` if the connection was cut or closed.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let room = self.budget.min(buffer.len());
        if room == 0 {
            return false;
        }
        let reading = self.socket.read(&mut buffer[..room]);
        let read = within("something to read", reading).await.unwrap();
        self.budget -= read;
        self.raw.extend(&buffer[..read]);
        self.framing.decode(&buffer[..read], &mut self.body);
        read > 0
    }

    /// The next frame, or `None` at the end of the response, which is not within a frame.
    async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.body, b"\n\n") {
                let rest = self.body.split_off(end + 2);
                let frame = std::mem::replace(&mut self.body, rest);
                return Some(String::from_utf8(frame).unwrap());
            }
            if self.framing.is_at_end() {
                assert_eq!(self.body.escape_ascii().to_string(), "");
                return None;
            }
            assert!(self.more().await, "the connection ended before the response");
        }
    }

    /// All that is still to come.
    async fn rest(mut self) -> String {
        while !self.framing.is_at_end() {
            assert!(self.more().await, "the connection ended before the response");
        }
        String::from_utf8(self.body).unwrap()
    }

    /// The first frame of a stream, which must be exactly that.
    async fn open(&mut self) -> Open {
        let frame = self.frame().await.unwrap();
        let rest = frame.strip_prefix("event: hub:open\nretry: ").expect(&frame);
        let (retry, rest) = rest.split_once("\ndata: {\"client\":\"").expect(&frame);
        let (client, rest) = rest.split_once("\",\"resumed\":").expect(&frame);
        let (resumed, rest) = rest.split_once("}\nid: ").expect(&frame);
        let id = rest.strip_suffix("\n\n").expect(&frame);
        Open {
            client: client.parse().expect(&frame),
            resumed: resumed.parse().expect(&frame),
            retry: Duration::from_millis(retry.parse().expect(&frame)),
            id: id.parse().expect(&frame),
        }
    }

    /// A gap, which must be the next frame, and its id.
    async fn gap(&mut self, reason: &str) -> EventId {
        let frame = self.frame().await.unwrap();
        let rest = frame.strip_prefix("event: hub:gap\n").expect(&frame);
        let (data, id) = rest.split_once("\nid: ").expect(&frame);
        assert_eq!(data, format!("data: {{\"reason\":\"{reason}\"}}"));
        id.strip_suffix("\n\n").expect(&frame).parse().expect(&frame)
    }
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

/// How far the body of a response was read.
#[derive(Debug, PartialEq)]
enum Framing {
    /// Not yet.
    Head,
    /// Within the line that tells the length of a chunk, read up to here.
    ChunkLength(Vec<u8>),
    /// This much of a chunk is to come.
    Chunk(usize),
    /// This much of the line end after a chunk is to come.
    ChunkEnd(&'static [u8], bool),
    /// This much of a response that told its length is to come.
    Length(usize),
    End,
}

impl Framing {
    fn of(headers: &BTreeMap<String, String>) -> Self {
        if let Some(length) = headers.get("content-length") {
            assert_ne!(headers["content-type"], "text/event-stream", "a stream has no length");
            return Self::Length(length.parse().unwrap()).or_end();
        }
        assert_eq!(headers["transfer-encoding"], "chunked");
        Self::ChunkLength(Vec::new())
    }

    fn or_end(self) -> Self {
        if self == Self::Length(0) { Self::End } else { self }
    }

    fn is_at_end(&self) -> bool {
        matches!(self, Self::End)
    }

    fn decode(&mut self, raw: &[u8], body: &mut Vec<u8>) {
        if matches!(self, Self::Head) {
            return;
        }
        for &byte in raw {
            let state = std::mem::replace(self, Self::End);
            *self = match state {
                Self::ChunkLength(mut line) => {
                    line.push(byte);
                    match line.strip_suffix(b"\r\n") {
                        None => Self::ChunkLength(line),
                        Some(digits) => {
                            let digits = str::from_utf8(digits).unwrap();
                            match usize::from_str_radix(digits, 16).unwrap() {
                                0 => Self::ChunkEnd(b"\r\n", true),
                                length => Self::Chunk(length),
                            }
                        }
                    }
                }
                Self::Chunk(length) => {
                    body.push(byte);
                    if length == 1 {
                        Self::ChunkEnd(b"\r\n", false)
                    } else {
                        Self::Chunk(length - 1)
                    }
                }
                Self::ChunkEnd(expected, is_last) => {
                    assert_eq!(byte, expected[0]);
                    match (&expected[1..], is_last) {
                        ([], true) => Self::End,
                        ([], false) => Self::ChunkLength(Vec::new()),
                        (more, is_last) => Self::ChunkEnd(more, is_last),
                    }
                }
                Self::Length(length) => {
                    body.push(byte);
                    Self::Length(length - 1).or_end()
                }
                Self::Head | Self::End => panic!("the response goes on after its end"),
            };
        }
    }
}

/// What a page saw over many connections of one `EventSource`.
#[derive(Default)]
struct Followed {
    seen: Vec<Seen>,
    cuts: usize,
    cuts_within_frames: usize,
}

enum Seen {
    Open { resumed: bool },
    Gap { id: EventId },
    Event { number: u64, id: EventId },
}

impl Followed {
    /// Lets another thread publish `total` numbered events while the page's connection is cut after up to `longest`
    /// bytes each time, its head included. `away` says how many are published before the page is back.
    async fn follow(
        server: &Server,
        total: u64,
        longest: u64,
        away: impl Fn(&mut Chance) -> u64,
    ) -> Self {
        let mut chance = Chance::new();
        let (allow, allowed) = mpsc::channel::<u64>();
        let hub = server.hub.clone();
        let publisher = thread::spawn(move || {
            let numbers = (0..).zip(allowed.into_iter().flat_map(|count| 0..count));
            for (number, _) in numbers {
                hub.send_to_user("ann", Event::new("n").data(number.to_string())).unwrap();
            }
        });

        let mut followed = Self::default();
        let mut page = EventSource::default();
        let mut allowed = 0;
        let mut next = 0;
        while next < total {
            // A page that never saw a frame has no position to come back to, so the first connection gets as far as
            // one.
            let first = if page.last_event_id.is_empty() { 1_000 } else { 0 };
            let budget = usize::try_from(first + chance.below(longest)).unwrap();
            page.reconnect();
            let last = Some(page.last_event_id.as_bytes()).filter(|last| !last.is_empty());
            let client = server.get_until_cut("/events?user=ann", last, budget).await;
            if let Some(mut client) = client {
                assert_eq!(client.head.status, "HTTP/1.1 200 OK");
                loop {
                    for seen in page.read(&std::mem::take(&mut client.body)) {
                        if let Seen::Event { number, .. } = seen {
                            next = number + 1;
                        }
                        followed.seen.push(seen);
                    }
                    if next == total {
                        break;
                    }
                    if next == allowed && !page.last_event_id.is_empty() {
                        let count = (1 + chance.below(300)).min(total - allowed);
                        allow.send(count).unwrap();
                        allowed += count;
                    }
                    if !client.more().await {
                        break;
                    }
                }
            }
            followed.cuts += 1;
            followed.cuts_within_frames += usize::from(!page.is_between_frames());
            let count = away(&mut chance).min(total - allowed);
            allow.send(count).unwrap();
            allowed += count;
            eventually(DEADLINE, "all is published", || server.hub.stats().published == allowed)
                .await;
        }
        drop(allow);
        publisher.join().unwrap();
        followed
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Event { number, .. } => Some(*number),
            _ => None,
        })
    }
}

/// What the HTML standard, section 9.2.6, makes of a stream whose lines end in LF.
#[derive(Default)]
struct EventSource {
    /// The last event ID string: it outlives the connection, and changes only with a whole event.
    last_event_id: String,
    line: Vec<u8>,
    event: String,
    data: String,
    id: String,
}

impl EventSource {
    fn reconnect(&mut self) {
        *self = Self {
            last_event_id: self.last_event_id.clone(),
            id: self.last_event_id.clone(),
            ..Self::default()
        };
    }

    fn is_between_frames(&self) -> bool {
        self.line.is_empty() && self.event.is_empty() && self.data.is_empty()
    }

    fn read(&mut self, bytes: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
            if line.is_empty() {
                seen.extend(self.dispatch());
                continue;
            }
            match line.split_once(": ") {
                Some(("event", value)) => self.event = value.to_owned(),
                Some(("data", value)) => self.data.push_str(value),
                Some(("id", value)) => self.id = value.to_owned(),
                Some(("retry", _)) => {}
                _ => panic!("a stray line: {line:?}"),
            }
        }
        seen
    }

    fn dispatch(&mut self) -> Option<Seen> {
        self.last_event_id.clone_from(&self.id);
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        let id = self.id.parse().unwrap();
        match event.as_str() {
            "hub:open" => Some(Seen::Open { resumed: data.ends_with("\"resumed\":true}") }),
            "hub:gap" => Some(Seen::Gap { id }),
            "n" => Some(Seen::Event { number: data.parse().unwrap(), id }),
            _ => panic!("a stray event: {event:?}"),
        }
    }
}

/// Numbers that differ from run to run.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = RandomState::new().build_hasher().finish() | 1;
        // Seen when the test fails.
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // Xorshift; its high bits are the better ones.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}
