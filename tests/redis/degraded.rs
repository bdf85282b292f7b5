//! Clients hear of an outage of a real Redis.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use sse_hub::{HubBuilder, Subscriber, Subscription};
use tokio::time::timeout;

use crate::load::Instance;
use crate::server::{DEADLINE, Server};
use crate::support::frames;

/// Returns the data of the next `hub:degraded`.
pub(crate) async fn told(stream: &mut Subscription) -> String {
    let telling = async {
        while let Some(bytes) = stream.next().await {
            for frame in frames(std::str::from_utf8(&bytes).unwrap()) {
                if frame.event == "hub:degraded" {
                    return frame.data;
                }
            }
        }
        panic!("the stream ended");
    };
    timeout(DEADLINE, telling).await.expect("an outage is told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn outage_and_its_end_are_told_without_publishing() {
    // The server must come back with all data: a reset entry would wake the reader at once.
    let mut server = Server::durable();
    // The longer Redis may take to answer, the longer a read waits for the next event.
    let slow = Duration::from_secs(600);
    for patience in [Duration::from_secs(2), slow] {
        let here = Instance::with(
            &server.url(),
            |redis| redis.timeout(patience),
            |hub: HubBuilder| hub.announce_outages(true),
        );
        here.backplane.ready().await;
        let mut stream = here.hub.subscribe(Subscriber::new()).unwrap();
        server.kill();
        assert_eq!(told(&mut stream).await, r#"{"degraded":true}"#);
        let mut newcomer = here.hub.subscribe(Subscriber::new()).unwrap();
        assert_eq!(told(&mut newcomer).await, r#"{"degraded":true}"#);
        server.restart();
        assert_eq!(told(&mut stream).await, r#"{"degraded":false}"#);
        assert_eq!(told(&mut newcomer).await, r#"{"degraded":false}"#);
        here.until("a hub that works", |hub| !hub.stats().degraded).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_connections_are_no_outage_for_clients() {
    const ROUNDS: usize = 20;
    let server = Server::start(&[]);
    let here =
        Instance::with(&server.url(), |redis| redis, |hub: HubBuilder| hub.announce_outages(true));
    here.backplane.ready().await;
    let mut stream = here.hub.subscribe(Subscriber::new()).unwrap();
    let (start, mut quick) = (Instant::now(), 0);
    for round in 0.. {
        if quick == ROUNDS {
            break;
        }
        assert!(start.elapsed() < 4 * DEADLINE, "{quick} of {round} rounds were quick");
        let killed = Instant::now();
        let _: u32 = server.run("CLIENT KILL TYPE normal SKIPME yes");
        tokio::time::sleep(Duration::from_millis(100)).await;
        here.publish(&round.to_string()).await;
        let reading = async {
            let mut is_told = false;
            loop {
                let bytes = stream.next().await.expect("the stream goes on");
                for frame in frames(std::str::from_utf8(&bytes).unwrap()) {
                    is_told |= frame.event == "hub:degraded" && frame.data.contains("true");
                    if frame.event == "n" && frame.data == round.to_string() {
                        return is_told;
                    }
                }
            }
        };
        let is_told = timeout(DEADLINE, reading).await.expect("the event comes");
        // On a busy machine, a new connection can take a second. That is an outage, and is told.
        let is_quick = killed.elapsed() < Duration::from_secs(1);
        assert!(!(is_told && is_quick), "an outage is told in round {round}");
        quick += usize::from(is_quick);
    }
}
