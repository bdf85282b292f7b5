//! Instances behind a slow line, and the size of reads.

use std::time::Duration;

use sse_hub::{Audience, Event, History, Retain};
use tokio::time::timeout;

use crate::load::{Client, Instance};
use crate::server::{DEADLINE, Server, Wire};

/// Short, so that a line is slow for it without being slow for the test.
const TIMEOUT: Duration = Duration::from_millis(400);

async fn publish(instance: &Instance, name: &str, bytes: usize) -> sse_hub::EventId {
    let data = format!("{name} {}", "x".repeat(bytes));
    let sent = instance.hub.publish_confirmed(Audience::all(), Event::new("n").data(data));
    timeout(DEADLINE, sent.unwrap()).await.expect("in time").unwrap()
}

fn behind(wire: &Wire, retain: Retain) -> Instance {
    let history = History::default().events(1_000);
    let hub = |hub: sse_hub::HubBuilder| hub.retain(retain).history(history);
    Instance::with(&wire.url(), |redis| redis.timeout(TIMEOUT), hub)
}

/// Reads until an event begins with this name.
async fn until(client: &mut Client, name: &str) {
    let reading = async {
        while !client.seen.iter().any(|(_, data)| data.split(' ').next() == Some(name)) {
            assert!(client.read().await, "the stream ended before {name}");
        }
    };
    timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("{name} does not come"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn slow_line_loads_reads_and_publishes() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let mut ids = Vec::new();
    // Twenty times as much as a timeout can bring, and an event that alone is too much.
    for number in 0..40 {
        ids.push(publish(&here, &number.to_string(), 20_000).await);
    }
    publish(&here, "large", 250_000).await;
    let wire = Wire::to(&server).await;
    wire.limit(300_000);
    let slow = behind(&wire, Retain::default().events(30));
    timeout(DEADLINE, slow.backplane.ready()).await.expect("a slow line is enough");
    assert_eq!(slow.hub.stats().retained, 30);

    let mut client = slow.client();
    publish(&slow, "from-here", 250_000).await;
    publish(&here, "from-there", 250_000).await;
    for number in 0..10 {
        publish(&here, &format!("more-{number}"), 20_000).await;
    }
    until(&mut client, "more-9").await;
    assert_eq!(client.gaps, [""; 0]);
    assert_eq!(client.seen.len(), 12);

    // From before the retained events.
    let mut back = Client::at(ids[0]);
    back.connect(&slow.hub);
    until(&mut back, "more-9").await;
    assert_eq!(back.gaps, [""; 0]);
    assert_eq!(back.seen.len(), 39 + 1 + 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn start_reads_what_is_retained_and_one_answer() {
    const EVENT: usize = 500_000;
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    // A crowd of small events before and after the large ones: their mean says little.
    for crowd in 0..2 {
        for number in 0..300 {
            here.hub.broadcast(Event::new("n").data(number.to_string())).unwrap();
        }
        for number in 0..60 {
            publish(&here, &format!("{crowd}-{number}"), EVENT).await;
        }
    }
    for (retain, most) in [
        // In bytes: the retention, an answer, and the event that does not fit.
        (Retain::default().events(10_000).bytes(3_000_000), 3_000_000 + (1 << 20) + EVENT),
        (Retain::default().events(4), 4 * EVENT + (1 << 20) + EVENT),
    ] {
        let wire = Wire::to(&server).await;
        let there = behind(&wire, retain);
        timeout(DEADLINE, there.backplane.ready()).await.expect("in time");
        let received = wire.received();
        println!("{received} bytes for {retain:?}");
        assert!(received < most as u64 + 20_000, "{received} of {most}");
        assert!(there.hub.stats().retained > 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn backlog_is_read_in_answers_of_a_megabyte() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let (here, there) = (Instance::ready(&server.url()).await, Instance::ready(&wire.url()).await);
    let mut client = there.client();
    wire.set(crate::server::Line::Down);
    for number in 0..300 {
        here.hub.broadcast(Event::new("n").data(number.to_string())).unwrap();
    }
    for number in 0..100 {
        publish(&here, &format!("large-{number}"), 200_000).await;
    }
    let outputs = tokio::spawn({
        let url = server.url();
        async move { largest_output(&url).await }
    });
    wire.set(crate::server::Line::Open);
    until(&mut client, "large-99").await;
    here.publish("end").await;
    let largest = outputs.await.unwrap();
    println!("the largest output buffer: {largest} bytes");
    assert!(largest < 6 << 20, "{largest}");
    assert_eq!(client.gaps, [""; 0]);
    assert_eq!(client.seen.len(), 400);
}

/// Watches the memory that Redis needs for answers, until the event `end` is in the stream.
async fn largest_output(url: &str) -> u64 {
    let client = redis::Client::open(url).unwrap();
    // The usual limit for an answer is half a second, which a busy machine can take.
    let limit = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(DEADLINE))
        .set_response_timeout(Some(DEADLINE));
    let connecting = client.get_multiplexed_async_connection_with_config(&limit);
    let mut connection = connecting.await.unwrap();
    let mut largest = 0;
    loop {
        let list: String =
            redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.unwrap();
        let memory = list.split(' ').filter_map(|part| part.strip_prefix("omem="));
        largest = memory.filter_map(|bytes| bytes.parse().ok()).fold(largest, u64::max);
        let newest: Vec<(String, Vec<String>)> = redis::cmd("XREVRANGE")
            .arg("{sse-hub}:events")
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut connection)
            .await
            .unwrap();
        if newest.first().is_some_and(|(_, fields)| fields[1].ends_with("data: end\n")) {
            return largest;
        }
    }
}
