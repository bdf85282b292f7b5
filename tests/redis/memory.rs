//! A Redis whose memory is full.

use sse_hub::{Audience, Event, EventId, History, HubBuilder, Retain};
use tokio::time::timeout;

use crate::load::{Client, Instance};
use crate::server::{DEADLINE, Line, Server, Wire};
use crate::told::Told;

async fn publish(instance: &Instance, name: &str, bytes: usize) -> EventId {
    let data = format!("{name} {}", "x".repeat(bytes));
    let sent = instance.hub.publish_confirmed(Audience::all(), Event::new("n").data(data));
    timeout(DEADLINE, sent.unwrap()).await.expect("publishing goes on").unwrap()
}

fn full() -> Server {
    Server::start(&["--maxmemory", "24mb", "--maxmemory-policy", "noeviction"])
}

fn little(hub: HubBuilder) -> HubBuilder {
    hub.retain(Retain::default().events(10)).history(History::default().events(10_000))
}

// On a single thread, where `tracing` is recorded.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn full_redis_is_trimmed_and_publishing_goes_on() {
    let (told, _guard) = Told::record();
    let server = full();
    let here = Instance::with(&server.url(), |redis| redis, little);
    timeout(DEADLINE, here.backplane.ready()).await.unwrap();
    let mut live = here.client();
    let first = publish(&here, "first", 100_000).await;
    let mut away = Client::at(first);
    // Three times as much as there is room for: of one size, and then of others.
    for number in 0..400 {
        publish(&here, &number.to_string(), 100_000).await;
        while live.seen.len() <= number {
            timeout(DEADLINE, live.read()).await.unwrap();
        }
    }
    for (number, bytes) in
        [10, 2_000_000, 300, 1_000_000, 50_000].iter().cycle().take(50).enumerate()
    {
        publish(&here, &format!("mixed-{number}"), *bytes).await;
    }
    assert!(told.contains("out of memory"), "{}", told.text());
    let length: usize = server.run("XLEN {sse-hub}:events");
    println!("{length} events are kept");
    assert!(length > 5, "only as much is trimmed as is needed: {length}");

    // A client that missed trimmed events is told.
    away.connect(&here.hub);
    let reading = async {
        while !away.seen.iter().any(|(_, data)| data.starts_with("mixed-49 ")) {
            assert!(away.read().await);
        }
    };
    timeout(DEADLINE, reading).await.unwrap();
    assert_eq!(away.gaps, ["evicted"]);
    let newest: EventId = away.seen.last().unwrap().0;
    assert!(newest > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn trimmed_unread_events_are_reported() {
    let server = full();
    let wire = Wire::to(&server).await;
    let here = Instance::with(&server.url(), |redis| redis, little);
    let there = Instance::with(&wire.url(), |redis| redis, little);
    for instance in [&here, &there] {
        timeout(DEADLINE, instance.backplane.ready()).await.unwrap();
    }
    let mut client = there.client();
    publish(&here, "before", 10).await;
    timeout(DEADLINE, async {
        while client.seen.is_empty() {
            assert!(client.read().await);
        }
    })
    .await
    .unwrap();
    wire.set(Line::Down);
    for number in 0..400 {
        publish(&here, &number.to_string(), 100_000).await;
    }
    wire.set(Line::Open);
    client.until_gap().await;
    assert_eq!(client.gaps, ["reset"]);
    publish(&here, "after", 10).await;
    timeout(DEADLINE, async {
        while !client.seen.iter().any(|(_, data)| data.starts_with("after ")) {
            assert!(client.read().await);
        }
    })
    .await
    .unwrap();
}
