//! A crowd comes back to an instance over a real Redis. A separate program, because the crowd would
//! disturb tests that measure time.
#![cfg(all(feature = "redis", feature = "tokio"))]

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use sse_hub::{Audience, Event, History, HubBuilder, Retain, Subscriber, Subscription};
use tokio::time::timeout;

#[path = "redis/back.rs"]
mod back;
#[path = "support/busy.rs"]
mod busy;
#[path = "redis/load.rs"]
#[allow(dead_code, reason = "no test uses all of it")]
mod load;
#[path = "support/ports.rs"]
mod ports;
#[path = "redis/server.rs"]
#[allow(dead_code, reason = "no test uses all of it")]
mod server;
mod support;

use back::{Reads, publish, ready};
use load::Instance;
use server::{DEADLINE, Server};

const CROWD: usize = 10_000;
const STORM: usize = 20_000;
const TOPICS: usize = 20;

/// Returns the numbers of the events until the last, and the number of gaps.
async fn read_to_the_end(mut stream: Subscription) -> (Vec<usize>, usize) {
    let (mut seen, mut gaps) = (Vec::new(), 0);
    while let Some(bytes) = stream.next().await {
        for line in std::str::from_utf8(&bytes).unwrap().lines() {
            match line.strip_prefix("data: ") {
                Some("end") => return (seen, gaps),
                Some(number) => seen.extend(number.parse::<usize>()),
                None => gaps += usize::from(line == "event: hub:gap"),
            }
        }
    }
    panic!("a stream ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn storm_is_one_read_in_100_ms() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, STORM, TOPICS).await;
    let set = |hub: HubBuilder| {
        // A client that waits for longer than `max_wait` gets a gap. That must not come before the
        // deadline of this test.
        let history = History::default().events(2 * STORM).bytes(64 << 20);
        hub.retain(Retain::default().events(256)).history(history.max_wait(4 * DEADLINE))
    };
    let there = ready(&server.url(), set).await;
    // Publishing goes on meanwhile.
    let hub = here.hub.clone();
    let publishing = tokio::spawn(async move {
        for number in STORM + 1.. {
            let topic = Audience::topic((number % TOPICS).to_string());
            let event = Event::new("n").data(number.to_string());
            hub.publish_confirmed(topic, event).unwrap().await.unwrap();
            if number > STORM + 500 && hub.count(Audience::topic("stop")) > 0 {
                return number;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        unreachable!()
    });
    let reads = Reads::of(&server);
    let (start, before) = (Instant::now(), reads.count(&server));
    let is_paced = || {
        let read = reads.count(&server) - before;
        let took = start.elapsed();
        assert!(u128::from(read) <= took.as_millis() / 100 + 1, "{read} reads in {took:?}");
        read
    };
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        // Clients of different ages, and of all topics.
        let from = number * 7919 % STORM;
        let topic = number % TOPICS;
        let who = Subscriber::new().topic(topic.to_string()).resume(ids[from]);
        let stream = there.hub.subscribe(who).unwrap();
        crowd.push((from + 1, topic, tokio::spawn(read_to_the_end(stream))));
        if number % 100 == 0 {
            is_paced();
            tokio::task::yield_now().await;
        }
    }
    // All clients have caught up, and read live.
    let behind: usize = crowd.iter().map(|(from, topic, _)| missed(*from, *topic, STORM)).sum();
    let (deadline, mut reached) = (4 * DEADLINE, None);
    while reached.is_none() {
        assert!(start.elapsed() < deadline, "{:?} of {behind}", there.hub.stats().delivered);
        is_paced();
        tokio::time::sleep(Duration::from_millis(10)).await;
        reached = Some(start.elapsed()).filter(|_| there.hub.stats().delivered >= behind as u64);
    }
    let _stop = here.hub.subscribe(Subscriber::new().topic("stop")).unwrap();
    let last = publishing.await.unwrap();
    here.publish("end").await;
    let mut wrong = 0;
    for (from, topic, reading) in crowd {
        let (seen, gaps) = timeout(deadline, reading).await.expect("the end reaches all").unwrap();
        let expected = (from + 1..=last).filter(|number| number % TOPICS == topic);
        wrong += usize::from(gaps > 0 || !expected.eq(seen));
    }
    let (took, read) = (start.elapsed(), is_paced());
    println!(
        "{CROWD} clients missed {behind} events and had them after {:?}: {read} range reads in {took:?}, {} events brought",
        reached.unwrap(),
        there.hub.stats().restored,
    );
    assert_eq!(wrong, 0, "clients that got something else than what they missed");
    assert!(read >= 5, "{read}: it was read in pieces");
}

fn missed(from: usize, topic: usize, to: usize) -> usize {
    (from + 1..=to).filter(|number| number % TOPICS == topic).count()
}
