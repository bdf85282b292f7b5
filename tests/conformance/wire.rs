//! The bytes that every server writes, independent of the mount.

use std::time::Duration;

use futures_util::future::join_all;
use sse_hub::{Audience, Event, Goodbye, Heartbeat, Hub, ManualTimer, PublishError, Timer as _};

use crate::corpus;
use crate::http1::{Client, NO_HEADERS};
use crate::servers::{Adapter, Server};
use crate::standard::EventSource;
use crate::{DEADLINE, eventually, hub};

#[tokio::test]
async fn standard_parser_reads_the_corpus_back() {
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        let mut bytes = client.until("\n\n").await;
        let mut expected = Vec::new();
        for entry in corpus::entries() {
            let id = hub.publish_confirmed(Audience::all(), entry.event()).unwrap().id().unwrap();
            let frame = client.until(&format!("id: {id}\n\n")).await;
            let callback = entry.expected(id);
            let text = str::from_utf8(&frame).expect("the frame is UTF-8");
            assert!(!text.contains('\r'), "{adapter:?}: lines must end in LF alone: {text:?}");
            let lines = text.split('\n').filter(|line| line.starts_with("data: ")).count();
            assert_eq!(lines, callback.data.matches('\n').count() + 1, "{adapter:?}: {text:?}");
            let id_at = text.find("\nid: ").expect("the frame has an id");
            assert_eq!(text[id_at..], format!("\nid: {id}\n\n"), "the id must be the last field");
            bytes.extend(frame);
            expected.push(callback);
        }
        assert!(
            !bytes.starts_with("\u{feff}".as_bytes()),
            "the stream must not start with a byte order mark"
        );
        let mut callbacks = EventSource::default().read(&bytes);
        assert_eq!(callbacks.remove(0).kind, "hub:open");
        assert_eq!(callbacks, expected, "{adapter:?}");
    }
}

#[tokio::test]
async fn fields_that_would_break_a_line_are_refused() {
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
            // Only the hub issues ids.
            Event::new("a").id("fine"),
            Event::new("a").retry(Duration::ZERO),
            Event::new("a").retry(Duration::from_secs(25 * 24 * 3600)),
        ] {
            hub.broadcast(event).unwrap_err();
            refused += 1;
        }
        assert_eq!(refused, 44);
        let id = hub
            .publish_confirmed(
                Audience::all(),
                Event::new("good").retry(Duration::from_millis(1_500)),
            )
            .unwrap()
            .id()
            .unwrap();
        let expected = format!("event: good\ndata: \nretry: 1500\nid: {id}\n\n");
        assert_eq!(client.frame().await.unwrap(), expected, "{adapter:?}");
        assert!(id.to_string().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
    }
}

#[tokio::test]
async fn own_ids_are_sent_unchanged() {
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
async fn stream_ends_between_frames() {
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
            // Enough events that the end comes while many are in transit.
            for number in 0..200 {
                let data = format!("{number}\n").repeat(100);
                hub.broadcast(Event::new("n").data(data)).unwrap();
            }
            match ending {
                "close" => hub.close(),
                "disconnect" => {
                    let goodbye = Event::new("goodbye");
                    let goodbye = Goodbye::from_static("logout").event(goodbye);
                    hub.disconnect(Audience::user("ann"), goodbye).unwrap();
                }
                _ => {}
            }
            let ended = async {
                match ending {
                    "drain" => hub.drain(Duration::from_secs(1)).await,
                    "stop" => {
                        // A service shuts down in this order: first the streams end, then the
                        // server.
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
async fn default_heartbeat_is_a_comment_line() {
    for adapter in Adapter::ALL {
        let timer = ManualTimer::new();
        // The default heartbeat.
        let hub = Hub::builder(timer.clone()).build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let mut client = Client::get(server.address, "/events", NO_HEADERS).await;
        client.until("\n\n").await;
        client.chunks.clear();
        for _ in 0..3 {
            eventually("it waits", || timer.next_deadline().is_some()).await;
            timer.advance(Duration::from_secs(15) - Duration::from_nanos(1));
            assert!(timer.next_deadline().is_some(), "{adapter:?}: a stream was woken early");
            timer.advance(Duration::from_nanos(1));
            client.more().await;
        }
        assert_eq!(client.chunks, [b":\n"; 3], "{adapter:?}");
        let now = timer.now();
        assert!(timer.next_deadline().is_none_or(|next| next > now));
    }
}

#[tokio::test]
async fn events_pass_frequent_heartbeats() {
    for adapter in Adapter::ALL {
        let every = Duration::from_millis(2);
        let hub = hub().heartbeat(Heartbeat::default().every(every)).build().unwrap();
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
