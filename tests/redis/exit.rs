//! Events that a backplane or a publisher leaves behind when it ends.

use sse_hub::redis::Redis;
use sse_hub::{Event, Hub, TokioTimer};
use tokio::time::timeout;

use crate::load::{Source, until};
use crate::server::{DEADLINE, Nobody, Server};
use crate::told::Told;

fn hub(url: &str) -> (Hub, sse_hub::redis::RedisBackplane) {
    let backplane = Redis::new(url).unwrap().build().unwrap();
    let hub = Hub::builder(TokioTimer::new()).backplane(backplane.clone()).build().unwrap();
    (hub, backplane)
}

fn event() -> Event {
    Event::new("n").data("x")
}

// On a single thread, where `tracing` is recorded.
#[tokio::test]
async fn events_left_without_redis_are_counted() {
    let nobody = Nobody::new();
    for count in [0, 1, 100, 1_000, 1_025, 3_000] {
        for has_started in [false, true] {
            let (told, _guard) = Told::record();
            let (hub, backplane) = hub(&format!("redis://127.0.0.1:{}", nobody.port()));
            let running = backplane.run(&hub);
            for _ in 0..count {
                hub.broadcast(event()).unwrap();
            }
            hub.close();
            if has_started {
                let running = tokio::spawn(running);
                // The hub is closed, so the first poll takes a batch.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                running.abort();
                assert_eq!(running.await.is_err(), count > 0);
            } else {
                drop(running);
            }
            let left = told.text().matches("unacknowledged events").count();
            assert_eq!(left, usize::from(count > 0), "{}", told.text());
            if count > 0 {
                assert!(told.contains(&format!("left={count} ")), "{}", told.text());
            }
            assert_eq!(backplane.waiting(), 0);
        }
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn events_left_with_a_batch_under_way() {
    let (told, _guard) = Told::record();
    let server = Server::start(&[]);
    let (hub, backplane) = hub(&server.url());
    let running = tokio::spawn(backplane.run(&hub));
    timeout(DEADLINE, backplane.ready()).await.unwrap();
    let end = async |_: Source| {
        assert_eq!(backplane.waiting(), 1_500);
        running.abort();
        assert!(running.await.is_err());
    };
    end_under_way(&server, &told, Source::Hub(hub), end).await;
}

/// Calls `end` while 1,500 events are on their way, and checks that each is counted as lost.
pub(crate) async fn end_under_way(
    server: &Server,
    told: &Told,
    source: Source,
    end: impl AsyncFnOnce(Source),
) {
    for _ in 0..7 {
        timeout(DEADLINE, source.publish(event())).await.unwrap().unwrap();
    }
    server.pause();
    let mut waiting = Vec::new();
    for _ in 0..1_500 {
        waiting.push(source.publish(event()));
        // The first goes alone, and the batches follow.
        tokio::task::yield_now().await;
    }
    end(source).await;
    server.resume();
    assert!(told.contains("left=1500 "), "{}", told.text());
    for confirmation in waiting {
        assert!(timeout(DEADLINE, confirmation).await.unwrap().is_err());
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn nothing_is_left_when_all_is_acknowledged() {
    let (told, _guard) = Told::record();
    let server = Server::start(&[]);
    let (hub, backplane) = hub(&server.url());
    let running = tokio::spawn(backplane.run(&hub));
    for _ in 0..3_000 {
        hub.broadcast(event()).unwrap();
    }
    hub.close();
    timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(!told.contains("left="), "{}", told.text());
    until("all of them", || server.run::<u32>("XLEN {sse-hub}:events") == 3_000).await;
}
