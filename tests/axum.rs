//! Streams over real sockets, read byte by byte by a client without a library.
#![cfg(all(feature = "axum", feature = "tokio"))]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use sse_hub::{
    Audience, Event, EventId, Heartbeat, Hub, HubBuilder, ManualTimer, Retain, Subscriber,
    Timer as _, TokioTimer,
};
use tokio::sync::oneshot;

mod sockets;
use sockets::{DEADLINE, Followed, Seen, Server, eventually, frame, publish, within};

const RETRY: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_stream_opens_before_anything_is_published() {
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
    assert_eq!(open.id.seq(), 0);
    assert_eq!(hub.stats().published, 0);
    assert_eq!(hub.stats().clients, 1);
    let retry = open.retry;
    assert!((RETRY.mul_f64(0.75)..=RETRY.mul_f64(1.25)).contains(&retry), "retry: {retry:?}");
}

#[tokio::test]
async fn an_event_reaches_exactly_its_audience() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let paths = [
        "/events?user=ann&session=s1&topics=red",
        "/events?user=ann&session=s2&topics=red,blue",
        "/events?user=bob&session=s1&topics=blue",
        "/events",
        // Names are typed: the same text as a user and as a topic are different names.
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
        assert_eq!(hub.count(&audience), receivers.len(), "{data}");
        let sent = hub.publish_confirmed(audience, Event::new("to").data(data)).unwrap();
        for &receiver in receivers {
            expected[receiver].push_str(&frame("to", data, sent.id().unwrap()));
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
async fn a_closed_client_is_gone_within_a_second() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let mut client = server.get(&format!("/events?user={number}&topics=t"), None).await;
        client.open().await;
        clients.push(client);
    }
    assert_eq!(hub.stats().clients, 10);

    // This client closes its socket after reading everything.
    drop(clients.pop());
    eventually(Duration::from_secs(1), "the first is gone", || hub.stats().clients == 9).await;
    // The others close with unread bytes, which resets the connections.
    hub.broadcast(Event::new("unread")).unwrap();
    for client in &clients {
        within("the event is there", client.socket.readable()).await.unwrap();
    }
    drop(clients.split_off(1));
    eventually(Duration::from_secs(1), "the others are gone", || hub.stats().clients == 1).await;
    // The name for all clients, and one client id, user and topic.
    assert_eq!(hub.stats().client_names, 4);
    let survivor = &mut clients[0];
    assert!(survivor.frame().await.unwrap().starts_with("event: unread\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_many_cuts_gets_each_event_once() {
    const EVENTS: u64 = 10_000;
    let hub = hub().retain(Retain::default().events(20_000)).build().unwrap();
    let server = Server::start(&hub).await;

    let followed =
        Followed::follow(&hub, server.address, EVENTS, 6_000, |chance| chance.below(50)).await;

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
async fn each_gap_precedes_the_next_event() {
    const RETAINED: u64 = 64;
    let hub = hub().retain(Retain::default().events(RETAINED as usize)).build().unwrap();
    let server = Server::start(&hub).await;

    let followed =
        Followed::follow(&hub, server.address, 10_000, 6_000, |chance| chance.below(3 * RETAINED))
            .await;

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
async fn a_client_resumes_from_the_id_of_a_gap() {
    let hub = hub().retain(Retain::default().events(3)).build().unwrap();
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
        let id = EventId::new(first.epoch(), first.seq() + number);
        assert_eq!(client.frame().await.unwrap(), frame("n", &number.to_string(), id));
    }

    // A client that lost its connection before the gap gets the gap again.
    let mut client = server.get("/events", Some(open.id.to_string().as_bytes())).await;
    assert!(!client.open().await.resumed);
    assert_eq!(client.gap("evicted").await, gap);

    let mut client = server.get("/events", Some(gap.to_string().as_bytes())).await;
    let open = client.open().await;
    assert!(open.resumed);
    assert_eq!(open.id, gap);
    let third = EventId::new(first.epoch(), first.seq() + 3);
    assert_eq!(client.frame().await.unwrap(), frame("n", "3", third));
}

#[tokio::test]
async fn a_client_resumes_by_header_or_query() {
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
        // An empty header counts as absent.
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
async fn an_invalid_id_is_a_gap_and_no_error() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut head = publish(&hub, 0);
    let ahead = format!("{}-{}", head.epoch(), u64::MAX);
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
    // The header wins even if the query has a valid id.
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
async fn a_handler_may_extract_an_optional_id() {
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
async fn an_invalid_name_is_a_bad_request() {
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let long = "x".repeat(257);
    let requests = [
        (
            "/events?user=".to_owned(),
            "invalid name: an empty user: a client without a user must not set it",
        ),
        (
            format!("/events?topics=fine,{long}"),
            "invalid name: a topic of 257 bytes, more than the 256 of `Limits::name_len`",
        ),
    ];
    for (path, reason) in requests {
        let client = server.get(&path, None).await;
        assert_eq!(client.head.status, "HTTP/1.1 400 Bad Request");
        assert_eq!(client.head.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(client.rest().await, reason);
    }
    assert_eq!(hub.stats().opened, 0);
    assert_eq!(hub.stats().client_names, 0);
}

#[tokio::test]
async fn a_closed_hub_refuses_with_a_delay() {
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
async fn close_ends_streams_after_earlier_events() {
    // 500 events exceed the window of a client, so that it reads some from the log.
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
async fn a_closed_hub_lets_the_server_shut_down() {
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
    // Twice as many descriptors, which must fit into the lowest limit that systems set.
    const CLIENTS: usize = 100;
    let hub = hub().build().unwrap();
    let server = Server::start(&hub).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.get("/events", None).await;
        client.open().await;
        clients.push(client);
    }

    assert_eq!(hub.count(Audience::all()), CLIENTS);
    let news = Event::new("news").data("for all");
    let sent = hub.publish_confirmed(Audience::all(), news).unwrap();
    let expected = frame("news", "for all", sent.id().unwrap());
    for client in &mut clients {
        assert_eq!(client.frame().await.unwrap(), expected);
    }
    drop(clients);
    eventually(DEADLINE, "all are gone", || hub.stats().clients == 0).await;
}

#[tokio::test]
async fn a_silent_stream_sends_only_heartbeats() {
    const EVERY: Duration = Duration::from_secs(15);
    let timer = ManualTimer::new();
    let hub =
        Hub::builder(timer.clone()).heartbeat(Heartbeat::default().every(EVERY)).build().unwrap();
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

    // The silence counts from the last event, not from the last heartbeat.
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
async fn a_body_has_a_frame_for_each_item() {
    let hub = hub().build().unwrap();
    let response = sse_hub::http::into_response(hub.subscribe(Subscriber::new()));
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
async fn a_body_streams_any_stream() {
    let frames = ["data: a\n\n", ":\n", "data: b\n\n"].map(Bytes::from);
    let response = sse_hub::http::stream_response(futures_util::stream::iter(frames));
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let whole = within("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(whole.to_bytes(), "data: a\n\n:\ndata: b\n\n");
}

#[tokio::test]
async fn a_refusal_is_one_frame_without_a_length() {
    let hub = hub().build().unwrap();
    let invalid = hub.subscribe(Subscriber::new().session("")).unwrap_err();
    hub.close();
    let closed = hub.subscribe(Subscriber::new()).unwrap_err();

    for (refused, status) in [(invalid, 400), (closed, 200)] {
        let response = sse_hub::http::into_response(Err(refused));
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
    // A heartbeat would come between frames if a test reads slowly.
    Hub::builder(TokioTimer::new()).heartbeat(None).retry(RETRY)
}

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns the reconnect delay from the whole stream of a refused client.
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
