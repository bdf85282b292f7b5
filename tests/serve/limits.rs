//! Clients that stall, close or are too many, and the end of the server.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use sse_hub::serve::Serving;
use sse_hub::watchdog::Watchdog;
use sse_hub::{
    Event, EventStream, Hub, HubBuilder, ManualTimer, Subscriber, Subscription, TokioTimer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::memory::{Connector, Pipes, pipes, read};

const SECOND: Duration = Duration::from_secs(1);

const GET: &[u8] = b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n";

/// The hub itself ends no stream, so that only the server can.
fn hub() -> HubBuilder {
    Hub::builder(TokioTimer::new()).heartbeat(None).stalled_after(None)
}

fn router(hub: &Hub) -> Router {
    let events = async |State(hub): State<Hub>| -> Subscription {
        hub.subscribe(Subscriber::new()).unwrap()
    };
    let own = async || {
        let one = [Event::new("own").data("1")];
        EventStream::new(
            futures_util::StreamExt::chain(stream::iter(one), stream::pending()),
            TokioTimer::new(),
        )
    };
    Router::new()
        .route("/events", get(events))
        .route("/own", get(own))
        .route("/hello", get(async || "hello"))
        .route("/waits", get(pending::<()>))
        .with_state(hub.clone())
}

/// A server whose stalled connections are cut after ten seconds of a manual clock.
fn watched(hub: &Hub) -> (Connector, Watchdog, ManualTimer) {
    let (connector, listener) = pipes();
    let timer = ManualTimer::new();
    let watchdog = Watchdog::builder(timer.clone()).stalled_after(10 * SECOND).build().unwrap();
    let serve = sse_hub::serve(listener, router(hub)).watchdog(watchdog.clone());
    tokio::spawn(serve.into_future());
    (connector, watchdog, timer)
}

/// Lets the other tasks run until they wait.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

async fn open(connector: &Connector, bytes: usize, request: &[u8]) -> DuplexStream {
    let mut pipe = connector.connect_narrow(bytes);
    pipe.write_all(request).await.unwrap();
    settle().await;
    pipe
}

async fn text(pipe: &mut DuplexStream) -> (String, bool) {
    let mut bytes = Vec::new();
    let is_closed = read(pipe, &mut bytes).await;
    (String::from_utf8(bytes).unwrap(), is_closed)
}

/// Asserts that the only connection is cut when it has stalled for ten seconds, and not before.
async fn assert_cut(hub: &Hub, watchdog: &Watchdog, timer: &ManualTimer) {
    settle().await;
    timer.advance(10 * SECOND - Duration::from_nanos(1));
    settle().await;
    assert_eq!(watchdog.cuts().stalled, 0);
    timer.advance(Duration::from_nanos(1));
    settle().await;
    assert_eq!(watchdog.cuts().stalled, 1);
    assert_eq!(hub.stats().clients, 0);
}

#[tokio::test]
async fn client_that_reads_no_head_is_cut() {
    let hub = hub().build().unwrap();
    let (connector, watchdog, timer) = watched(&hub);
    let _client = open(&connector, 64, GET).await;
    assert_eq!(hub.stats().clients, 1);
    assert_cut(&hub, &watchdog, &timer).await;
}

#[tokio::test]
async fn client_that_stops_in_a_chunk_is_cut() {
    for size in [600, 100 << 10] {
        let hub = hub().build().unwrap();
        let (connector, watchdog, timer) = watched(&hub);
        let mut client = open(&connector, 1 << 10, GET).await;
        assert!(text(&mut client).await.0.contains("hub:open"));
        timer.advance(60 * SECOND);
        settle().await;
        assert_eq!(hub.stats().clients, 1, "a silent stream is not stalled");
        for _ in 0..2 {
            hub.broadcast(Event::new("n").data("x".repeat(size))).unwrap();
        }
        assert_cut(&hub, &watchdog, &timer).await;
    }
}

#[tokio::test]
async fn client_that_reads_no_end_is_cut() {
    let hub = hub().build().unwrap();
    let (connector, watchdog, timer) = watched(&hub);
    let mut client = open(&connector, 600, GET).await;
    text(&mut client).await;
    // The event leaves two bytes of the pipe: not enough for the last chunk.
    hub.broadcast(Event::new("n").data("x".repeat(548))).unwrap();
    settle().await;
    hub.close();
    assert_cut(&hub, &watchdog, &timer).await;
}

#[tokio::test]
async fn slow_reader_keeps_its_stream() {
    let hub = hub().build().unwrap();
    let (connector, watchdog, timer) = watched(&hub);
    let mut client = open(&connector, 1 << 10, GET).await;
    let mut bytes = Vec::new();
    read(&mut client, &mut bytes).await;
    hub.broadcast(Event::new("n").data("x".repeat(20 << 10))).unwrap();
    settle().await;
    let mut pieces = 0;
    while !bytes.ends_with(b"\n\n\r\n") || bytes.len() < 20 << 10 {
        timer.advance(9 * SECOND);
        settle().await;
        // One pipe at a time.
        let mut piece = vec![0; 1 << 10];
        let count = client.read(&mut piece).await.unwrap();
        assert!(count > 0, "the connection was cut");
        bytes.extend(&piece[..count]);
        pieces += 1;
        assert!(pieces < 100, "the event does not end");
        settle().await;
    }
    assert_eq!(watchdog.cuts().stalled, 0);
    assert_eq!(hub.stats().clients, 1);
}

#[tokio::test]
async fn closed_client_is_noticed_at_once() {
    let hub = hub().build().unwrap();
    let (connector, _, _) = watched(&hub);
    for is_full in [false, true] {
        let mut client = open(&connector, 1 << 10, GET).await;
        text(&mut client).await;
        assert!(connector.has_left_hyper());
        if is_full {
            hub.broadcast(Event::new("n").data("x".repeat(20 << 10))).unwrap();
            settle().await;
        }
        assert_eq!(hub.stats().clients, 1);
        drop(client);
        settle().await;
        assert_eq!(hub.stats().clients, 0);
    }
}

/// Serves until the sender sends.
fn ending(listener: Pipes, hub: &Hub) -> (oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    let (stop, stopped) = oneshot::channel();
    let serve = sse_hub::serve(listener, router(hub)).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving: Serving = serve.drain_over(2 * SECOND).into_future();
    (stop, tokio::spawn(serving))
}

#[tokio::test(start_paused = true)]
async fn server_drains_its_hubs_and_ends() {
    let hub = hub().build().unwrap();
    let (connector, listener) = pipes();
    let (stop, serving) = ending(listener, &hub);
    let begun = tokio::time::Instant::now();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = open(&connector, 1 << 10, GET).await;
        assert!(text(&mut client).await.0.contains("hub:open"));
        clients.push(client);
    }
    let mut idle = open(&connector, 1 << 10, b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(text(&mut idle).await.0.ends_with("\r\n\r\nhello"));
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
    for mut client in clients {
        let (end, is_closed) = text(&mut client).await;
        assert!(is_closed);
        assert!(end.contains("event: hub:end\n"), "{end}");
        assert!(end.ends_with("\n\n\r\n0\r\n\r\n"), "{end}");
    }
    assert!(text(&mut idle).await.1);
}

#[tokio::test(start_paused = true)]
async fn server_ends_beside_stalled_clients() {
    let hub = hub().build().unwrap();
    let (connector, listener) = pipes();
    let (stop, serving) = ending(listener, &hub);
    let begun = tokio::time::Instant::now();
    // In the head, in a small chunk and in a large chunk.
    let _in_head = open(&connector, 64, GET).await;
    let mut in_chunk = open(&connector, 1 << 10, GET).await;
    text(&mut in_chunk).await;
    let mut until_closed = open(&connector, 1 << 10, b"GET /events HTTP/1.0\r\n\r\n").await;
    text(&mut until_closed).await;
    // A stream without a hub ends at the end of a frame.
    let mut own = open(&connector, 1 << 10, b"GET /own HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(text(&mut own).await.0.contains("event: own\n"));
    hub.broadcast(Event::new("n").data("x".repeat(2 << 10))).unwrap();
    settle().await;
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let took = begun.elapsed();
    assert!((5 * SECOND..=7 * SECOND + SECOND / 10).contains(&took), "{took:?}");
    assert_eq!(hub.stats().clients, 0);
    let (end, is_closed) = text(&mut own).await;
    assert!(end.ends_with("0\r\n\r\n") && is_closed, "{end}");
}

#[tokio::test(start_paused = true)]
async fn hubs_are_left_alone_without_a_drain() {
    let hub = hub().build().unwrap();
    let (connector, listener) = pipes();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = sse_hub::serve(listener, router(&hub)).drain_over(None);
    let serve = serve.with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(serve.into_future());
    let mut client = open(&connector, 1 << 10, GET).await;
    text(&mut client).await;
    drop(stop);
    serving.await.unwrap().unwrap();
    let (end, is_closed) = text(&mut client).await;
    assert_eq!((&*end, is_closed), ("0\r\n\r\n", true));
    assert!(hub.subscribe(Subscriber::new()).is_ok(), "the hub is not drained");
}

#[tokio::test(start_paused = true)]
async fn answer_under_way_is_sent_before_the_end() {
    for before in ["", "HEAD /events HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let hub = hub().build().unwrap();
        let (connector, listener) = pipes();
        let (stop, serving) = ending(listener, &hub);
        let requests = format!("{before}GET /waits HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut waiting = open(&connector, 1 << 10, requests.as_bytes()).await;
        stop.send(()).unwrap();
        tokio::time::sleep(100 * SECOND).await;
        assert!(!serving.is_finished(), "as under axum's server");
        assert!(!text(&mut waiting).await.1);
        drop(waiting);
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn event_for_one_client_overtakes_a_broadcast() {
    const CLIENTS: usize = 1000;
    let hub = hub().build().unwrap();
    let (connector, listener) = pipes();
    let events = async |State(hub): State<Hub>, uri: axum::http::Uri| -> Subscription {
        hub.subscribe(Subscriber::new().user(uri.query().unwrap())).unwrap()
    };
    let app = Router::new().route("/events", get(events)).with_state(hub.clone());
    tokio::spawn(sse_hub::serve(listener, app).into_future());
    let mut clients = Vec::new();
    for user in 0..CLIENTS {
        let mut client = connector.connect_narrow(1 << 10);
        let request = format!("GET /events?{user} HTTP/1.1\r\nhost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        clients.push(client);
    }
    while hub.stats().clients < CLIENTS {
        settle().await;
    }
    settle().await;

    let has_event = |client: &mut DuplexStream, event: &str| {
        let mut bytes = Vec::new();
        // Without tokio's budget, which many reads in a turn would exhaust.
        while let Some(Ok(1..)) =
            tokio::task::unconstrained(client.read_buf(&mut bytes)).now_or_never()
        {}
        String::from_utf8_lossy(&bytes).contains(event)
    };
    let count = |clients: &mut [DuplexStream], event: &str| {
        let has_event = clients.iter_mut().map(|client| has_event(client, event));
        has_event.filter(|&has_event| has_event).count()
    };
    assert_eq!(count(&mut clients, "event: hub:open\n"), CLIENTS);
    for user in (0..CLIENTS).step_by(50) {
        hub.broadcast(Event::new("all").data("1")).unwrap();
        tokio::task::yield_now().await;
        hub.send_to_user(user, Event::new("one").data("2")).unwrap();
        let mut turns = 0;
        while !has_event(&mut clients[user], "event: one\n") {
            turns += 1;
            assert!(turns < CLIENTS, "the event does not come");
            tokio::task::yield_now().await;
        }
        let first = count(&mut clients, "event: all\n");
        assert!(first < CLIENTS / 2, "{first} clients came first");
        settle().await;
        assert_eq!(first + 1 + count(&mut clients, "event: all\n"), CLIENTS);
    }
}

/// The hub stays open after the end of the server, and nothing drives the runtime any more.
#[test]
fn ended_server_leaves_no_client_asleep() {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let hub = hub().build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connector, listener) = pipes();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = sse_hub::serve(listener, router(&hub)).drain_over(None);
        let serve = serve.with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let serving = tokio::spawn(serve.into_future());
        let mut client = open(&connector, 1 << 10, GET).await;
        assert!(text(&mut client).await.0.contains("hub:open"));
        drop((client, stop));
        serving.await.unwrap().unwrap();
    });
    let clients: Vec<_> = (0..1000)
        .map(|_| {
            let mut stream = hub.subscribe(Subscriber::new()).unwrap();
            let woken = Arc::new(Woken(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&woken));
            let mut cx = Context::from_waker(&waker);
            while stream.poll_next_unpin(&mut cx).is_ready() {}
            (stream, woken)
        })
        .collect();
    hub.broadcast(Event::new("all").data("1")).unwrap();
    let is_woken = |woken: &Woken| woken.0.load(Ordering::Relaxed);
    let asleep = clients.iter().filter(|(_, woken)| !is_woken(woken)).count();
    assert_eq!(asleep, 0);
}

#[tokio::test]
async fn connection_above_the_limit_is_refused_politely() {
    let hub = hub().build().unwrap();
    let (connector, listener) = pipes();
    let serve = sse_hub::serve(listener, router(&hub)).max_connections(1);
    tokio::spawn(serve.into_future());
    let mut first = open(&connector, 1 << 10, GET).await;
    assert!(text(&mut first).await.0.contains("hub:open"));

    let mut plain = open(&connector, 1 << 10, b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let (answer, is_closed) = text(&mut plain).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nretry-after: 5\r\n"), "{answer}");
    assert!(is_closed);

    // A browser's `EventSource` would never come back after another status.
    let request = b"GET /events HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n";
    let mut stream = open(&connector, 1 << 10, request).await;
    let (answer, is_closed) = text(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let refused = "event: hub:refused\nretry: 5000\ndata: {\"reason\":\"full\"}\n\n";
    assert!(answer.contains(refused), "{answer}");
    assert!(is_closed);

    drop(first);
    settle().await;
    let mut next = open(&connector, 1 << 10, GET).await;
    assert!(text(&mut next).await.0.contains("hub:open"));
}
