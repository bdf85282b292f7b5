//! Draining a hub for a shutdown.

mod support;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use sse_hub::{
    Audience, EndReason, Heartbeat, Hub, ManualTimer, PublishError, RefusedCause, Subscriber,
    Subscription, Timer as _,
};

use support::{SECOND, Woken, data, end, event, frames, has_ended, hub_with, last_id, read, wait};

const PERIOD: Duration = Duration::from_secs(100);

fn crowd(hub: &Hub, count: usize) -> Vec<Subscription> {
    let open = |_| {
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        read(&mut stream);
        stream
    };
    (0..count).map(open).collect()
}

/// Polls with a counting waker.
fn poll<F: Future>(future: Pin<&mut F>) -> (Poll<F::Output>, Arc<Woken>) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    (future.poll(&mut Context::from_waker(&waker)), woken)
}

#[test]
fn empty_hub_drains_at_once() {
    let (hub, _) = hub_with(|hub| hub);
    assert_eq!(hub.drain(PERIOD).now_or_never(), Some(()));
    assert_eq!(hub.drain(Duration::ZERO).now_or_never(), Some(()));
    drop(crowd(&hub_with(|hub| hub).0, 3));
    assert_eq!(hub.drain(PERIOD).now_or_never(), Some(()));
}

#[test]
fn stream_polled_late_still_gets_its_end() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 20);
    let mut drain = pin!(hub.drain(PERIOD));
    // A busy server may poll no stream during the whole period.
    timer.advance(PERIOD);
    assert_eq!(poll(drain.as_mut()).0, Poll::Ready(()));
    for stream in &mut streams {
        assert_eq!(end(&read(stream)).as_deref(), Some("drained"));
        assert!(has_ended(stream));
    }
}

#[test]
fn drain_refuses_newcomers_softly_even_if_dropped() {
    let (hub, _) = hub_with(|hub| hub);
    let _streams = crowd(&hub, 1);
    let drain = hub.drain(PERIOD);
    for _ in 0..2 {
        let refused = hub.subscribe(Subscriber::new()).unwrap_err();
        assert_eq!(refused.cause(), RefusedCause::Draining);
        assert!(refused.is_temporary());
        assert!((2250..=3750).contains(&refused.retry().as_millis()));
    }
    drop(drain);
    let refused = hub.subscribe(Subscriber::new()).unwrap_err();
    assert_eq!(refused.cause(), RefusedCause::Draining);
    assert_eq!(hub.stats().refused(RefusedCause::Draining), 3);
}

#[test]
fn streams_end_across_the_period_after_their_backlog() {
    const STREAMS: usize = 300;
    // Some streams are behind and read their backlog from the log.
    for window in [2, 1000] {
        let heartbeat = Heartbeat::default().every(15 * SECOND);
        let (hub, timer) = hub_with(|hub| hub.window(window).heartbeat(heartbeat));
        let mut streams: Vec<(Subscription, String)> =
            crowd(&hub, STREAMS).into_iter().map(|stream| (stream, String::new())).collect();
        streams.iter_mut().for_each(|(stream, _)| drop(wait(stream)));
        let mut drain = Box::pin(hub.drain(PERIOD));
        let (mut published, mut ended) = (0, Vec::new());
        for second in 0..100 {
            for _ in 0..3 {
                let receipt = hub.broadcast(event(published)).unwrap();
                assert_eq!(
                    receipt.matched(),
                    streams.len(),
                    "publishing must work during the drain"
                );
                published += 1;
            }
            timer.advance(SECOND);
            streams.retain_mut(|(stream, text)| {
                *text += &read(stream);
                let Some(reason) = end(text) else { return true };
                assert!(has_ended(stream));
                assert_eq!(reason, "drained");
                assert!(frames(text).last().unwrap().retry.is_some());
                let all: Vec<String> = (0..published).map(|number| number.to_string()).collect();
                assert_eq!(data(text), all, "every event from before the drain must arrive");
                ended.push(second);
                false
            });
            let gone = streams.is_empty();
            assert_eq!(
                poll(drain.as_mut()).0.is_ready(),
                gone,
                "the drain must be ready when the last stream ends"
            );
            if gone {
                break;
            }
        }
        assert_eq!(ended.len(), STREAMS, "a stream ended after the period");
        for tenth in 0..9 {
            let some = ended.iter().filter(|&&second| second / 10 == tenth).count();
            assert!((5..100).contains(&some), "{some} in tenth {tenth}: {ended:?}");
        }
        assert_eq!(hub.stats().ended(EndReason::Drained), STREAMS as u64);
        assert_eq!(hub.stats().clients, 0);
        drop(drain);
        assert_eq!(timer.next_deadline(), None, "a deadline is left over");
    }
}

#[test]
fn drained_clients_reconnect_at_different_times() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 100);
    let _drain = hub.drain(SECOND);
    timer.advance(SECOND);
    let retry = |stream: &mut Subscription| frames(&read(stream)).last().unwrap().retry.unwrap();
    let times: std::collections::BTreeSet<Duration> = streams.iter_mut().map(retry).collect();
    assert!(times.len() > 50, "{times:?}");
    let is_spread = |time: &Duration| (2250..=3750).contains(&time.as_millis());
    assert!(times.iter().all(is_spread), "{times:?}");
}

#[test]
fn drained_client_resumes_on_another_instance() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let last = hub.publish_confirmed(Audience::all(), event("last")).unwrap().id().unwrap();
    drop(hub.drain(PERIOD));
    timer.advance(PERIOD);
    let text = read(&mut stream);
    assert_eq!((last_id(&text), end(&text).as_deref()), (last, Some("drained")));
}

#[test]
fn idle_stream_wakes_for_its_end() {
    let (hub, timer) = hub_with(|hub| hub.heartbeat(None));
    let [mut stream] = <[Subscription; 1]>::try_from(crowd(&hub, 1)).unwrap();
    let woken = wait(&mut stream);
    drop(hub.drain(PERIOD));
    assert_eq!(woken.count(), 1, "one wake-up must arm the timer");
    let woken = wait(&mut stream);
    timer.advance(PERIOD);
    assert_eq!(woken.count(), 1);
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("drained"));
}

#[test]
fn unread_streams_end_with_the_period() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut stalled = crowd(&hub, 20);
    let mut never_read: Vec<Subscription> =
        (0..20).map(|_| hub.subscribe(Subscriber::new()).unwrap()).collect();
    hub.broadcast(event("unread")).unwrap();
    let mut drain = pin!(hub.drain(PERIOD));
    assert!(poll(drain.as_mut()).0.is_pending());
    timer.advance(PERIOD - Duration::from_nanos(1));
    let (polled, woken) = poll(drain.as_mut());
    assert!(polled.is_pending());
    let clients = hub.stats().clients;
    timer.advance(Duration::from_nanos(1));
    assert_eq!(woken.count(), 1, "the timer must wake the task");
    assert_eq!(hub.stats().clients, clients);
    assert!(poll(drain.as_mut()).0.is_ready());
    let stats = hub.stats();
    assert_eq!((stats.clients, stats.client_names), (0, 0));
    assert_eq!(stats.ended(EndReason::Drained), 40);
    for stream in stalled.iter_mut().chain(&mut never_read) {
        read(stream);
        assert!(has_ended(stream));
    }
    drop((stalled, never_read));
    assert_eq!(hub.stats().ended(EndReason::Left), 0);
}

#[test]
fn drain_ends_when_last_stream_is_dropped() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 3);
    let mut drain = pin!(hub.drain(PERIOD));
    while let Some(stream) = streams.pop() {
        let (polled, woken) = poll(drain.as_mut());
        assert!(polled.is_pending());
        drop(stream);
        assert_eq!(
            woken.count(),
            usize::from(streams.is_empty()),
            "only the last stream must wake the drain"
        );
    }
    assert!(poll(drain.as_mut()).0.is_ready());
    assert!(timer.next_deadline().is_some_and(|deadline| deadline > timer.now()));
}

#[test]
fn dropping_drain_keeps_streams_ending() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 10);
    for polls in 0..3 {
        let mut drain = Box::pin(hub.drain(PERIOD));
        let wakers: Vec<_> = (0..polls).map(|_| poll(drain.as_mut()).1).collect();
        drop(drain);
        for woken in wakers {
            assert_eq!(Arc::strong_count(&woken), 1, "the dropped drain must release its waker");
        }
    }
    timer.advance(PERIOD);
    for stream in &mut streams {
        assert_eq!(end(&read(stream)).as_deref(), Some("drained"));
        assert!(has_ended(stream));
    }
    assert_eq!(hub.stats().clients, 0);
}

#[test]
fn only_the_latest_waker_is_kept() {
    let (hub, _) = hub_with(|hub| hub);
    let streams = crowd(&hub, 1);
    let mut drain = pin!(hub.drain(PERIOD));
    let (_, first) = poll(drain.as_mut());
    let (_, second) = poll(drain.as_mut());
    drop(streams);
    assert_eq!((first.count(), second.count()), (0, 1));
}

#[test]
fn dropped_drain_frees_its_waker() {
    let (hub, _) = hub_with(|hub| hub);
    let _streams = crowd(&hub, 1);
    let mut drain = Box::pin(hub.drain(PERIOD));
    let (_, woken) = poll(drain.as_mut());
    drop(drain);
    assert_eq!(Arc::strong_count(&woken), 1, "the hub must drop the waker");
}

#[test]
fn two_drains_end_at_the_earlier_deadline() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 50);
    let mut slow = Box::pin(hub.drain(10 * PERIOD));
    let mut fast = Box::pin(hub.drain(PERIOD));
    let mut third = Box::pin(hub.drain(PERIOD));
    let (polled, slow_woken) = poll(slow.as_mut());
    assert!(polled.is_pending() && poll(third.as_mut()).0.is_pending());
    let (polled, fast_woken) = poll(fast.as_mut());
    assert!(polled.is_pending());
    drop(third);
    timer.advance(PERIOD);
    for stream in &mut streams {
        assert_eq!(end(&read(stream)).as_deref(), Some("drained"));
        assert!(has_ended(stream));
    }
    assert!(slow_woken.count() >= 1 && fast_woken.count() >= 1);
    assert!(poll(slow.as_mut()).0.is_ready() && poll(fast.as_mut()).0.is_ready());
    assert_eq!(hub.drain(PERIOD).now_or_never(), Some(()));
}

#[test]
fn drain_without_deadline_waits_without_panic() {
    let (hub, _) = hub_with(|hub| hub);
    let streams = crowd(&hub, 100);
    let mut drain = pin!(hub.drain(Duration::from_secs(u64::MAX / 2)));
    assert!(poll(drain.as_mut()).0.is_pending());
    drop(streams);
    assert!(poll(drain.as_mut()).0.is_ready());
}

#[test]
fn zero_period_ends_all_streams() {
    let (hub, _) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 10);
    hub.broadcast(event("before")).unwrap();
    let drain = hub.drain(Duration::ZERO);
    for stream in &mut streams {
        let text = read(stream);
        assert_eq!((data(&text).len(), end(&text).as_deref()), (1, Some("drained")));
        assert!(has_ended(stream));
    }
    assert_eq!(drain.now_or_never(), Some(()));
}

#[test]
fn deadline_within_the_period_holds() {
    let (hub, timer) = hub_with(|hub| hub);
    let until = timer.now() + SECOND / 1000;
    let mut streams: Vec<Subscription> =
        (0..10).map(|_| hub.subscribe(Subscriber::new().until(until)).unwrap()).collect();
    let _drain = hub.drain(1000 * PERIOD);
    timer.advance(SECOND / 1000);
    let ends = streams.iter_mut().filter_map(|stream| end(&read(stream)));
    assert!(ends.filter(|reason| reason == "expired").count() >= 9);
}

#[test]
fn closing_during_drain_ends_remaining_streams() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 100);
    let mut drain = pin!(hub.drain(PERIOD));
    timer.advance(PERIOD / 2);
    hub.broadcast(event("meanwhile")).unwrap();
    hub.close();
    assert_eq!(hub.broadcast(event("x")), Err(PublishError::Closed));
    assert_eq!(hub.subscribe(Subscriber::new()).unwrap_err().cause(), RefusedCause::Closed);
    for stream in &mut streams {
        assert_eq!(data(&read(stream)), ["meanwhile"]);
        assert!(has_ended(stream));
    }
    assert!(poll(drain.as_mut()).0.is_ready());
    assert_eq!(hub.stats().clients, 0);
    assert_eq!(hub.stats().ended(EndReason::Closed), 100);
}

#[test]
fn drain_after_close_waits_for_readers() {
    let (hub, timer) = hub_with(|hub| hub);
    let mut streams = crowd(&hub, 3);
    hub.broadcast(event("x")).unwrap();
    hub.close();
    let mut drain = pin!(hub.drain(PERIOD));
    assert!(poll(drain.as_mut()).0.is_pending());
    assert_eq!(data(&read(&mut streams[0])), ["x"]);
    timer.advance(PERIOD);
    assert!(poll(drain.as_mut()).0.is_ready());
    assert_eq!(hub.count(Audience::all()), 0);
}

#[test]
fn drain_outlives_its_hub() {
    let timer = ManualTimer::new();
    let hub = Hub::builder(timer.clone()).build().unwrap();
    let mut streams = crowd(&hub, 3);
    let mut drain = pin!(hub.drain(PERIOD));
    drop(hub);
    for stream in &mut streams {
        read(stream);
        assert!(has_ended(stream));
    }
    assert!(poll(drain.as_mut()).0.is_ready());
}

#[cfg(all(feature = "axum", feature = "tokio"))]
mod over_sockets {
    use std::net::Ipv4Addr;

    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;
    use sse_hub::{Refused, TokioTimer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const STREAMS: usize = 200;
    /// The limit for operations that take far less time.
    const DEADLINE: Duration = Duration::from_secs(30);

    async fn events(State(hub): State<Hub>) -> Result<Subscription, Refused> {
        hub.subscribe(Subscriber::new())
    }

    /// Decodes a chunked body and checks that the body is complete.
    fn unchunked(mut raw: &[u8]) -> String {
        let head = raw.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        assert!(raw.starts_with(b"HTTP/1.1 200 OK\r\n"));
        raw = &raw[head + 4..];
        let mut body = Vec::new();
        loop {
            let line = raw.windows(2).position(|end| end == b"\r\n").expect("a chunk's length");
            let digits = std::str::from_utf8(&raw[..line]).unwrap();
            let length = usize::from_str_radix(digits, 16).unwrap();
            let chunk = &raw[line + 2..];
            assert_eq!(&chunk[length..length + 2], b"\r\n", "the chunk must be complete");
            body.extend_from_slice(&chunk[..length]);
            raw = &chunk[length + 2..];
            if length == 0 {
                assert_eq!(raw, b"", "data after the last chunk");
                return String::from_utf8(body).unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn server_drains_200_live_streams_with_whole_frames() {
        let hub = Hub::builder(TokioTimer::new()).build().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (app, draining) = (Router::new().route("/", get(events)), hub.clone());
        let shutdown = async move {
            stopped.await.unwrap();
            // The last tenth of the time is reserve for a loaded machine.
            draining.drain(Duration::from_secs(3)).await;
        };
        let app = app.with_state(hub.clone());
        let server = axum::serve(listener, app).with_graceful_shutdown(shutdown);
        let server = tokio::spawn(server.into_future());

        let mut clients = Vec::new();
        for _ in 0..STREAMS {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            clients.push(tokio::spawn(async move {
                let mut raw = Vec::new();
                socket.read_to_end(&mut raw).await.unwrap();
                unchunked(&raw)
            }));
        }
        timeout(DEADLINE, async {
            while hub.stats().clients < STREAMS {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("all clients must connect");
        let publisher = hub.clone();
        stop.send(()).unwrap();
        // Publish until the last stream has ended, so that every stream has a backlog.
        let mut published = 0;
        timeout(DEADLINE, async {
            while publisher.stats().clients > 0 {
                publisher.broadcast(event(published)).unwrap();
                published += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.await.unwrap().unwrap();
        })
        .await
        .expect("the server must exit");

        for client in clients {
            let text = timeout(DEADLINE, client).await.expect("the connection must close").unwrap();
            assert_eq!(end(&text).as_deref(), Some("drained"));
            let got = data(&text);
            let expected: Vec<String> = (0..got.len()).map(|number| number.to_string()).collect();
            assert_eq!(got, expected, "events must be contiguous from the first");
        }
        assert_eq!(hub.stats().ended(EndReason::Drained), STREAMS as u64);
        hub.close();
    }
}
