//! Whether a backplane is ready, and why it is not.

use std::time::{Duration, Instant, SystemTime};

use sse_hub::redis::{NotReadyCause, Redis, RedisBackplane};
use sse_hub::{Hub, TokioTimer};

use crate::instances::allow_hub;
use crate::load::{Instance, until};
use crate::server::{DEADLINE, Line, Nobody, Server, Wire};

const SHORT: Duration = Duration::from_millis(500);

fn failure(cause: NotReadyCause) -> String {
    match cause {
        NotReadyCause::Failed(cause) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_server_is_an_error_in_time() {
    let nobody = Nobody::new();
    let here = Instance::new(&format!("redis://127.0.0.1:{}", nobody.port()));
    let (start, before) = (Instant::now(), SystemTime::now());
    let error = here.backplane.ready_within(SHORT).await.unwrap_err();
    assert!(start.elapsed() >= SHORT && start.elapsed() < DEADLINE);
    let shown = error.to_string();
    assert!(shown.starts_with("the backplane is not ready: "), "{shown}");
    let cause = failure(error.cause);
    assert!(cause.to_lowercase().contains("refused"), "{cause}");
    let last = here.backplane.last_error().unwrap();
    assert!(!last.is_resolved && last.to_string() == cause, "{last:?}");
    assert!(before <= last.at && last.at <= SystemTime::now());
    // A question without waiting has the same answer.
    let error = here.backplane.ready_within(Duration::ZERO).await.unwrap_err();
    assert_eq!(failure(error.cause), cause);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn wrong_password_is_an_error_until_it_is_right() {
    let server = Server::start(&[]);
    allow_hub(&server, "");
    let url = format!("redis://hub:another@127.0.0.1:{}", server.port());
    let here = Instance::with(&url, |redis| redis.prefix("shop"), |hub| hub);
    let error = here.backplane.ready_within(SHORT).await.unwrap_err();
    let cause = failure(error.cause);
    assert!(cause.contains("uthentication failed"), "{cause}");
    assert!(!cause.contains("another"), "the password must not be shown: {cause}");

    let _: String = server.run("ACL SETUSER hub >another");
    assert_eq!(here.backplane.ready_within(DEADLINE).await, Ok(()));
    let last = || here.backplane.last_error().unwrap();
    until("a resolved error", || last().is_resolved).await;
    assert_eq!(&*last().cause, cause, "the latest error stays known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn silent_server_is_no_answer_and_then_a_timeout() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    wire.set(Line::Silent);
    let here = Instance::with(&wire.url(), |redis| redis.timeout(4 * SHORT), |hub| hub);
    let running = async {
        while cause(&here.backplane).await == NotReadyCause::NotRunning {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, running).await.expect("the backplane runs");
    let error = here.backplane.ready_within(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.cause, NotReadyCause::NoAnswer);
    until("an error", || here.backplane.last_error().is_some()).await;
    failure(here.backplane.ready_within(Duration::ZERO).await.unwrap_err().cause);
    wire.set(Line::Open);
    assert_eq!(here.backplane.ready_within(DEADLINE).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn outage_after_the_start_is_the_last_error() {
    let mut server = Server::durable();
    let here = Instance::new(&server.url());
    assert_eq!(here.backplane.ready_within(DEADLINE).await, Ok(()));
    assert_eq!(here.backplane.last_error(), None);
    server.kill();
    here.until("an outage", |hub| hub.stats().degraded).await;
    assert!(here.backplane.last_error().is_some_and(|error| !error.is_resolved));
    assert_eq!(here.backplane.ready_within(Duration::ZERO).await, Ok(()), "the order is loaded");
    server.restart();
    here.until("its end", |hub| !hub.stats().degraded).await;
    assert!(here.backplane.last_error().is_some_and(|error| error.is_resolved));
}

async fn cause(backplane: &RedisBackplane) -> NotReadyCause {
    backplane.ready_within(Duration::ZERO).await.unwrap_err().cause
}

#[tokio::test]
async fn a_backplane_that_does_not_run_says_so() {
    let nobody = Nobody::new();
    let url = format!("redis://127.0.0.1:{}", nobody.port());
    let backplane = Redis::new(&url).unwrap().build().unwrap();
    let hub = Hub::builder(TokioTimer::new()).backplane(backplane.clone()).build().unwrap();
    assert_eq!(cause(&backplane).await, NotReadyCause::NotRunning);
    let running = backplane.run(&hub);
    assert_eq!(cause(&backplane).await, NotReadyCause::NotRunning, "the future is not awaited");
    let running = tokio::spawn(running);
    until("an attempt", || backplane.last_error().is_some()).await;
    failure(cause(&backplane).await);
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(cause(&backplane).await, NotReadyCause::NotRunning, "the future was dropped");

    // The error of `run` with a hub of another backplane, or none.
    let other = Hub::builder(TokioTimer::new()).build().unwrap();
    let backplane = Redis::new(&url).unwrap().build().unwrap();
    backplane.run(&other).await;
    assert_eq!(cause(&backplane).await, NotReadyCause::NotRunning);
}
