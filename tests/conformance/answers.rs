//! The answers of every server to a request: statuses, headers, and the treatment of an id.

use std::time::Duration;

use axum::http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sse_hub::{Audience, Event, EventId, Limits, RefusalStyle, Subscriber};
use tokio::net::TcpStream;

use crate::http1::{Client, NO_HEADERS};
use crate::servers::{Adapter, Mount, ORIGIN, Server};
use crate::{bare, hub, within};

#[tokio::test]
async fn head_disables_buffering_and_leaves_at_once() {
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
async fn http2_answers_match_without_connection_headers() {
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

        // More streams on one connection than browsers open over HTTP/1.1.
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
        let id = hub
            .publish_confirmed(Audience::all(), Event::new("n").data("all at once"))
            .unwrap()
            .id()
            .unwrap();
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
async fn any_last_id_gets_a_stream() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let [first, second] = ["0", "1"].map(|data| {
            hub.publish_confirmed(Audience::all(), Event::new("n").data(data))
                .unwrap()
                .id()
                .unwrap()
        });
        let ahead = EventId::new(first.epoch(), u64::MAX).to_string();
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
            // The header wins, even if the query has a valid id.
            let mut client = Client::get(server.address, path, &[("last-event-id", id)]).await;
            assert_eq!(client.status(), "200 OK", "{what}");
            assert!(client.frame().await.unwrap().contains("\"resumed\":false"), "{what}");
            let gap = format!("event: hub:gap\ndata: {{\"reason\":\"unknown\"}}\nid: {second}\n\n");
            assert_eq!(client.frame().await.unwrap(), gap, "{what}");
        }

        let digits = "7".repeat(4096);
        for id in ["%FF%FE", "%31-1", "0", "$", &digits, &ahead] {
            let path = format!("/events?last_event_id={id}");
            let mut client = Client::get(server.address, &path, NO_HEADERS).await;
            assert_eq!(client.status(), "200 OK", "{adapter:?} {path}");
            assert!(
                client.frame().await.unwrap().contains("\"resumed\":false"),
                "{adapter:?} {path}"
            );
            let gap = client.frame().await.unwrap();
            assert!(gap.starts_with("event: hub:gap\n"), "{adapter:?} {path}: {gap}");
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
async fn temporary_refusal_has_status_200() {
    for adapter in Adapter::ALL {
        let full = |refusals| {
            let hub = hub()
                .limits(Limits::default().clients(1).per_user(1))
                .refusals(refusals)
                .build()
                .unwrap();
            let occupant = hub.subscribe(Subscriber::new().user("ann")).unwrap();
            (hub, occupant)
        };
        let (hub, _occupant) = full(RefusalStyle::Stream);
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        assert_eq!(client.status(), "200 OK", "{adapter:?}");
        assert_eq!(client.head.header("content-type").unwrap(), "text/event-stream");
        let stream = client.rest().await;
        assert!(stream.starts_with("event: hub:refused\nretry: "), "{adapter:?} {stream}");
        assert!(stream.ends_with("\ndata: {\"reason\":\"full\"}\n\n"), "{adapter:?} {stream}");

        let (hub, _occupant) = full(RefusalStyle::Status);
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
async fn only_allowed_origin_reads_with_credentials() {
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
