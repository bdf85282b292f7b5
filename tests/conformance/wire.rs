//! What every server puts on the wire, whatever mounts the hub.

use std::time::Duration;

use axum::http::{Request, Version};
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sse_hub::{
    Audience, Event, EventId, Heartbeat, Hub, Limits, ManualTimer, PublishError, Refusals,
    Subscriber, Timer as _,
};
use tokio::net::TcpStream;

use crate::corpus;
use crate::http1::Client;
use crate::servers::{Adapter, Mount, ORIGIN, Server};
use crate::standard::EventSource;
use crate::{DEADLINE, bare, eventually, hub, within};

const NO_HEADERS: &[(&str, &str)] = &[];

#[tokio::test]
async fn the_corpus_is_text_of_whole_fields_that_the_standard_reads_back() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        let mut bytes = client.until("\n\n").await;
        let mut expected = Vec::new();
        for entry in corpus::entries() {
            let id = hub.broadcast(entry.event()).unwrap().id();
            let frame = client.until(&format!("id: {id}\n\n")).await;
            let callback = entry.expected(id);
            let text = str::from_utf8(&frame).expect("it is UTF-8");
            assert!(!text.contains('\r'), "{adapter:?}: its lines end in LF alone: {text:?}");
            let lines = text.split('\n').filter(|line| line.starts_with("data: ")).count();
            assert_eq!(lines, callback.data.matches('\n').count() + 1, "{adapter:?}: {text:?}");
            let id_at = text.find("\nid: ").expect("it has an id");
            assert_eq!(text[id_at..], format!("\nid: {id}\n\n"), "the id is its last field");
            bytes.extend(frame);
            expected.push(callback);
        }
        assert!(!bytes.starts_with("\u{feff}".as_bytes()), "no byte order mark");
        let mut callbacks = EventSource::default().read(&bytes);
        assert_eq!(callbacks.remove(0).kind, "hub:open");
        assert_eq!(callbacks, expected, "{adapter:?}");
    }
}

#[tokio::test]
async fn a_type_a_comment_or_an_id_that_would_break_its_line_is_refused_before_a_byte_is_sent() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        client.until("\n\n").await;
        let mut refused = 0;
        for byte in ["\r", "\n", "\r\n"] {
            for text in
                [byte.to_owned(), format!("{byte}a"), format!("a{byte}"), format!("a{byte}id: 9-9")]
            {
                for event in [
                    Event::new(&text).data("forged"),
                    Event::new("a").data("forged").comment(text.as_str()),
                    Event::new("a").data("forged").id(&text),
                ] {
                    let error = hub.broadcast(event).unwrap_err();
                    assert!(matches!(error, PublishError::Event(_)), "{error}");
                    refused += 1;
                }
            }
        }
        for event in [
            Event::new("a\0b"),
            Event::new("hub:open"),
            Event::new(""),
            Event::new("a").id("7\0"),
            Event::new("a").id("é"),
            // A hub issues ids itself.
            Event::new("a").id("fine"),
            Event::new("a").retry(Duration::ZERO),
            Event::new("a").retry(Duration::from_secs(25 * 24 * 3600)),
        ] {
            hub.broadcast(event).unwrap_err();
            refused += 1;
        }
        assert_eq!(refused, 44);
        let id =
            hub.broadcast(Event::new("good").retry(Duration::from_millis(1_500))).unwrap().id();
        let expected = format!("event: good\ndata: \nretry: 1500\nid: {id}\n\n");
        assert_eq!(client.frame().await.unwrap(), expected, "{adapter:?}");
        assert!(id.to_string().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
    }
}

#[tokio::test]
async fn ids_of_ones_own_are_sent_as_they_are_and_an_invalid_one_ends_the_stream_between_frames() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/own", NO_HEADERS).await;
        let expected = format!(
            "retry: 2000\n\n\
             event: token\ndata: a\ndata: id: 9\nid: answer-7.1_~\n\n\
             data: \ndata: \nid: {}\n\n\
             event: slow\ndata: \nretry: 1500\n: one line\n\n\
             event: hub:error\ndata: {{\"reason\":\"invalid-event\"}}\n\n",
            "x".repeat(128)
        );
        assert_eq!(client.rest().await, expected, "{adapter:?}");
    }
}

#[tokio::test]
async fn a_stream_ends_at_the_end_of_a_frame_however_it_ends() {
    for adapter in Adapter::ALL {
        for ending in ["close", "drain", "disconnect", "stop"] {
            let hub = hub().retry(Duration::from_secs(2)).build().unwrap();
            let server = Server::start(adapter, &hub).await;
            let mut clients = Vec::new();
            for _ in 0..5 {
                let mut client = Client::get(server.address, "/events?user=ann", NO_HEADERS).await;
                client.until("\n\n").await;
                clients.push(client);
            }
            // Enough for the end to come while much of it is under way.
            for number in 0..200 {
                let data = format!("{number}\n").repeat(100);
                hub.broadcast(Event::new("n").data(data)).unwrap();
            }
            match ending {
                "close" => hub.close(),
                "disconnect" => {
                    let goodbye = Event::new("goodbye");
                    hub.disconnect(&Audience::user("ann"), "logout", Some(goodbye)).unwrap();
                }
                _ => {}
            }
            let ended = async {
                match ending {
                    "drain" => hub.drain(Duration::from_secs(1)).await,
                    "stop" => {
                        // As a service would that shuts down: its streams end, and then the server does.
                        hub.close();
                        server.stop().await;
                    }
                    _ => {}
                }
            };
            let read = join_all(clients.iter_mut().map(|client| async {
                let mut last = String::new();
                while let Some(frame) = client.frame().await {
                    last = frame;
                }
                last
            }));
            let ((), lasts) = tokio::join!(ended, read);
            for last in lasts {
                let what = format!("{adapter:?} {ending}: {last}");
                match ending {
                    "close" | "stop" => {
                        assert!(last.starts_with("event: n\ndata: 199\n"), "{what}")
                    }
                    "drain" => assert!(last.contains("{\"reason\":\"drained\"}"), "{what}"),
                    _ => assert!(last.contains("{\"reason\":\"logout\"}"), "{what}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_heartbeat_is_a_colon_and_a_line_feed_after_fifteen_seconds_of_silence() {
    for adapter in Adapter::ALL {
        let timer = ManualTimer::new();
        // As it is unless set.
        let hub = Hub::builder(timer.clone()).build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        client.until("\n\n").await;
        client.chunks.clear();
        for _ in 0..3 {
            eventually("it waits", || timer.next_deadline().is_some()).await;
            timer.advance(Duration::from_secs(15) - Duration::from_nanos(1));
            assert!(timer.next_deadline().is_some(), "{adapter:?}: nothing was woken early");
            timer.advance(Duration::from_nanos(1));
            client.more().await;
        }
        assert_eq!(client.chunks, [b":\n"; 3], "{adapter:?}");
        let now = timer.now();
        assert!(timer.next_deadline().is_none_or(|next| next > now));
    }
}

#[tokio::test]
async fn the_head_keeps_proxies_and_caches_out_of_the_way_and_leaves_at_once_with_the_first_frame()
{
    for adapter in Adapter::ALL {
        let hub = hub().retry(Duration::from_secs(4)).build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        assert_eq!(client.status(), "200 OK");
        let headers = client
            .head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), str::from_utf8(value).unwrap()));
        assert_eq!(
            without_date(headers),
            [
                ("cache-control", "no-cache, no-transform"),
                ("content-type", "text/event-stream"),
                ("transfer-encoding", "chunked"),
                ("x-accel-buffering", "no"),
                ("x-content-type-options", "nosniff"),
            ]
        );
        let open = client.frame().await.unwrap();
        assert_eq!(hub.stats().published, 0);
        let rest = open.strip_prefix("event: hub:open\nretry: ").expect(&open);
        let (retry, _) = rest.split_once('\n').unwrap();
        assert!(retry.bytes().all(|byte| byte.is_ascii_digit()), "{retry}");
        assert!((3_000..=5_000).contains(&retry.parse::<u64>().unwrap()), "{retry}");
    }
}

#[tokio::test]
async fn over_http2_it_is_the_same_without_the_headers_of_a_connection() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let mut mount = Mount::new(adapter);
        mount.looped = Some(bare::Listening::default());
        let server = mount.start(&hub).await;
        let socket = TcpStream::connect(server.address).await.unwrap();
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
        let (mut client, connection) = handshake.await.unwrap();
        let connection = tokio::spawn(connection);

        // More than browsers would let through over HTTP/1.1, on one connection.
        let mut bodies = Vec::new();
        for _ in 0..7 {
            let uri = format!("http://{}/events", server.address);
            let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
            let response = within("the head", client.send_request(request)).await.unwrap();
            assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
            let headers = response.headers().iter();
            let headers = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
            assert_eq!(
                without_date(headers),
                [
                    ("cache-control", "no-cache, no-transform"),
                    ("content-type", "text/event-stream"),
                    ("x-accel-buffering", "no"),
                    ("x-content-type-options", "nosniff"),
                ]
            );
            let mut body = response.into_body();
            let open = within("the first frame", body.frame()).await.unwrap().unwrap();
            assert!(open.into_data().unwrap().starts_with(b"event: hub:open\n"), "{adapter:?}");
            bodies.push(body);
        }
        let id = hub.broadcast(Event::new("n").data("all at once")).unwrap().id();
        for body in &mut bodies {
            let frame = within("the event", body.frame()).await.unwrap().unwrap();
            let expected = format!("event: n\ndata: all at once\nid: {id}\n\n");
            assert_eq!(frame.into_data().unwrap(), expected, "{adapter:?}");
        }
        connection.abort();
    }
}

fn without_date<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    let mut headers: Vec<_> = headers.filter(|&(name, _)| name != "date").collect();
    headers.sort_unstable();
    headers
}

#[tokio::test]
async fn whatever_is_sent_as_the_last_id_is_answered_with_a_stream() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let [first, second] =
            ["0", "1"].map(|data| hub.broadcast(Event::new("n").data(data)).unwrap().id());
        let ahead = EventId(first.0, u64::MAX).to_string();
        let (digits, bytes) = ([b'7'; 4096], [0xe9; 4096]);
        let garbage: [&[u8]; 9] = [
            b"\xff\xfe",
            "\u{202e}née".as_bytes(),
            &digits,
            &bytes,
            b"0",
            b"$",
            b"1-2-3",
            b"+1-2",
            ahead.as_bytes(),
        ];
        let good = format!("/events?lastEventId={first}");
        for (id, path) in garbage.iter().flat_map(|id| [(id, "/events"), (id, good.as_str())]) {
            let what = format!("{adapter:?} {path} {}", String::from_utf8_lossy(id));
            // The header wins, also if the query says something better.
            let mut client = Client::get(server.address, path, &[("last-event-id", id)]).await;
            assert_eq!(client.status(), "200 OK", "{what}");
            assert!(client.frame().await.unwrap().contains("\"resumed\":false"), "{what}");
            let gap = format!("event: hub:gap\ndata: {{\"reason\":\"unknown\"}}\nid: {second}\n\n");
            assert_eq!(client.frame().await.unwrap(), gap, "{what}");
        }

        let header = first.to_string();
        let requests = [
            ("/events".to_owned(), Some(&header)),
            (format!("/events?lastEventId={first}"), None),
            (format!("/events?user=ann&last_event_id={first}"), None),
            (format!("/events?last-event-id={first}&user=ann"), None),
            (format!("/events?lastEventId={second}"), Some(&header)),
        ];
        for (path, header) in requests {
            let headers: Vec<_> =
                header.iter().map(|id| ("Last-Event-ID", id.as_bytes())).collect();
            let mut client = Client::get(server.address, &path, &headers).await;
            assert!(
                client.frame().await.unwrap().contains("\"resumed\":true"),
                "{adapter:?} {path}"
            );
            let missed = format!("event: n\ndata: 1\nid: {second}\n\n");
            assert_eq!(client.frame().await.unwrap(), missed, "{adapter:?} {path}");
        }
    }
}

#[tokio::test]
async fn only_who_may_never_come_gets_another_status_than_200() {
    for adapter in Adapter::ALL {
        let full = |refusals| {
            let hub =
                hub().limits(Limits::clients(1).per_user(1)).refusals(refusals).build().unwrap();
            let occupant = hub.subscribe(Subscriber::new().user("ann")).unwrap();
            (hub, occupant)
        };
        let (hub, _occupant) = full(Refusals::Stream);
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        assert_eq!(client.status(), "200 OK", "{adapter:?}");
        assert_eq!(client.head.header("content-type").unwrap(), "text/event-stream");
        let stream = client.rest().await;
        assert!(stream.starts_with("event: hub:refused\nretry: "), "{adapter:?} {stream}");
        assert!(stream.ends_with("\ndata: {\"reason\":\"full\"}\n\n"), "{adapter:?} {stream}");

        let (hub, _occupant) = full(Refusals::Status);
        let server = Server::start(adapter, &hub).await;
        for (path, status) in
            [("/events", "503 Service Unavailable"), ("/events?session=", "400 Bad Request")]
        {
            let client = Client::get(server.address, path, NO_HEADERS).await;
            assert_eq!(client.status(), status, "{adapter:?}");
            assert_eq!(client.head.header("content-type").unwrap(), "text/plain; charset=utf-8");
            let retry = client.head.header("retry-after");
            assert_eq!(retry.is_some(), status.starts_with('5'), "{adapter:?} {retry:?}");
        }

        for expected in ["200 OK", "200 OK", "204 No Content", "204 No Content"] {
            let client = Client::get(server.address, "/gone", NO_HEADERS).await;
            assert_eq!(client.status(), expected, "{adapter:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_the_one_allowed_origin_may_read_with_credentials_and_no_other() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let mut mount = Mount::new(adapter);
        mount.cors = true;
        let server = mount.start(&hub).await;

        let mut client = Client::get(server.address, "/events", &[("origin", ORIGIN)]).await;
        assert_eq!(client.status(), "200 OK");
        let header = |client: &Client, name: &str| client.head.header(name).unwrap_or_default();
        assert_eq!(header(&client, "access-control-allow-origin"), ORIGIN, "{adapter:?}");
        assert_eq!(header(&client, "access-control-allow-credentials"), "true", "{adapter:?}");
        assert!(names(&header(&client, "vary")).contains(&"origin".to_owned()), "{adapter:?}");
        assert_eq!(header(&client, "content-type"), "text/event-stream");
        assert!(client.frame().await.unwrap().starts_with("event: hub:open\n"));

        let preflight = [
            ("origin", ORIGIN),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization,last-event-id"),
        ];
        let client = Client::request("OPTIONS", server.address, "/events", &preflight).await;
        assert!(client.status().starts_with("20"), "{adapter:?} {}", client.status());
        assert_eq!(header(&client, "access-control-allow-origin"), ORIGIN, "{adapter:?}");
        assert_eq!(header(&client, "access-control-allow-credentials"), "true", "{adapter:?}");
        assert_eq!(
            names(&header(&client, "access-control-allow-headers")),
            ["authorization", "last-event-id"]
        );
        assert_eq!(names(&header(&client, "access-control-allow-methods")), ["get"]);

        let foreign = [("origin", "https://app.example.evil.test")];
        let client = Client::get(server.address, "/events", &foreign).await;
        assert_eq!(client.head.header("access-control-allow-origin"), None, "{adapter:?}");
    }
}

fn names(list: &str) -> Vec<String> {
    let mut names: Vec<_> = list.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn events_get_through_a_heartbeat_of_every_few_milliseconds() {
    for adapter in Adapter::ALL {
        let every = Duration::from_millis(2);
        let hub = hub().heartbeat(Heartbeat::every(every)).build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        let mut source = EventSource::default();
        let mut callbacks = Vec::new();
        let heartbeats =
            |client: &Client| client.chunks.iter().filter(|&chunk| chunk == b":\n").count();
        let started = std::time::Instant::now();
        for number in 1..=3 {
            while heartbeats(&client) < number * 20 {
                assert!(client.more().await && started.elapsed() < DEADLINE);
            }
            hub.broadcast(Event::new("n").data(number.to_string())).unwrap();
        }
        callbacks.extend(source.read(&client.until("data: 3\n").await));
        callbacks.extend(source.read(client.frame().await.unwrap().as_bytes()));
        let kinds: Vec<_> = callbacks.iter().map(|callback| callback.kind.as_str()).collect();
        assert_eq!(kinds, ["hub:open", "n", "n", "n"], "{adapter:?}");
    }
}
