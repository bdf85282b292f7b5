//! Clients that come back from before the retained events, and the reads that Redis serves for
//! them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sse_hub::{Audience, Event, EventId, History, Hub, HubBuilder, Page, Retain, Subscriber};
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Id, Record};
use tracing::subscriber::{NoSubscriber, set_default};
use tracing::{Dispatch, Subscriber as Tracer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{self, LookupSpan};

use crate::back::{Reads, publish, ready};
use crate::load::{Client, Instance, Load, until};
use crate::server::{DEADLINE, Line, Server, Wire};

const EVENTS: usize = 5_000;

/// Retains very few events.
fn little(hub: HubBuilder) -> HubBuilder {
    hub.retain(Retain::default().events(16))
}

/// Checks that the client has the events `from..=to`, and got so many `evicted` gaps.
#[track_caller]
fn check(client: &Client, from: usize, to: usize, gaps: usize) {
    assert_eq!(client.gaps, vec!["evicted"; gaps]);
    let mut expected = (from..=to).map(|number| number.to_string());
    let odd = client.names().into_iter().find(|&name| expected.next().as_deref() != Some(name));
    assert_eq!((odd, expected.next()), (None, None), "of {} to {to}", from);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn client_resumes_from_five_thousand_events_back() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let running = ready(&server.url(), little).await;
    let ids = publish(&here, EVENTS, 0).await;
    let reads = Reads::of(&server);
    let started_since = ready(&server.url(), little).await;
    let mut clients = Vec::new();
    for there in [&running, &started_since] {
        let mut newest = Client::at(ids[EVENTS - 2]);
        newest.connect(&there.hub);
        newest.until("5000").await;
        let (before, start) = (reads.count(&server), Instant::now());
        let mut client = Client::at(ids[0]);
        client.connect(&there.hub);
        client.until("5000").await;
        println!("one client from {EVENTS} events back: {:?}", start.elapsed());
        check(&client, 2, EVENTS, 0);
        assert_eq!(there.hub.stats().restored, EVENTS as u64 - 17);

        // Further clients need no further read.
        let read = reads.count(&server);
        assert!((3..=6).contains(&(read - before)), "{} reads", read - before);
        for back in [ids[1], ids[2_500], ids[4_990]] {
            let mut other = Client::at(back);
            other.connect(&there.hub);
            other.until("5000").await;
            assert_eq!(other.gaps, [""; 0]);
        }
        assert_eq!(reads.count(&server), read);
        clients.push(client);
    }
    let next = here.publish("next").await;
    for mut client in clients {
        client.until("next").await;
        assert_eq!(client.seen.last().unwrap().0, next);
    }
}

/// Collects the fields that spans of history reads get when the read is over.
#[derive(Clone, Default)]
struct HistoryReads(Arc<Mutex<Vec<(&'static str, String)>>>);

impl<S: Tracer + for<'a> LookupSpan<'a>> Layer<S> for HistoryReads {
    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if context.span(id).is_some_and(|span| span.name() == "history read") {
            values.record(&mut self.clone());
        }
    }
}

impl Visit for HistoryReads {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push((field.name(), format!("{value:?}")));
    }
}

/// One thread, because the subscriber of `tracing` is that of this thread.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn history_read_has_a_span() {
    // While a process has a single subscriber, the first thread that meets a span decides for all
    // threads whether the span is enabled.
    let _another = Dispatch::new(NoSubscriber::new());
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let there = ready(&server.url(), little).await;
    let ids = publish(&here, 100, 0).await;
    let mut newest = Client::at(ids[98]);
    newest.connect(&there.hub);
    newest.until("100").await;
    let reads = HistoryReads::default();
    let _guard = set_default(registry::Registry::default().with(reads.clone()));
    let mut client = Client::at(ids[0]);
    client.connect(&there.hub);
    client.until("100").await;
    check(&client, 2, 100, 0);
    let fields = reads.0.lock().unwrap().clone();
    let mut brought = 0;
    for (name, value) in fields {
        assert_eq!(name, "messaging.batch.message_count");
        brought += value.parse::<u64>().unwrap();
    }
    assert!(brought > 50, "few events are retained");
    assert_eq!(brought, there.hub.stats().restored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn client_beyond_the_history_limit_gets_a_gap() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, EVENTS, 0).await;
    let cap = |hub: HubBuilder| little(hub).history(History::default().events(1_000));
    let there = ready(&server.url(), cap).await;
    let mut client = Client::at(ids[0]);
    client.connect(&there.hub);
    client.until("5000").await;
    check(&client, EVENTS - 1_015, EVENTS, 1);
    let stats = there.hub.stats();
    assert_eq!((stats.retained, stats.restored), (1_016, 1_000));

    let mut other = Client::at(ids[EVENTS - 1_017]);
    other.connect(&there.hub);
    other.until("5000").await;
    assert_eq!((other.names().len(), other.gaps.len()), (1_016, 0), "as far as the cap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn trimmed_events_are_a_gap_before_the_rest() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, EVENTS, 0).await;
    let _: usize = server.run("XTRIM {sse-hub}:events MAXLEN = 2000");
    let there = ready(&server.url(), little).await;
    for back in [ids[0], ids[EVENTS - 2_002]] {
        let mut client = Client::at(back);
        client.connect(&there.hub);
        client.until("5000").await;
        check(&client, EVENTS - 1_999, EVENTS, 1);
    }
    let mut client = Client::at(ids[EVENTS - 2_001]);
    client.connect(&there.hub);
    client.until("5000").await;
    assert_eq!(client.gaps, [""; 0], "nothing of what it missed was trimmed");
    assert_eq!(client.names().len(), 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn emptied_while_it_is_read() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, 4 * EVENTS, 0).await;
    let all = |hub: HubBuilder| little(hub).history(History::default().events(100_000));
    let there = ready(&server.url(), all).await;
    let mut client = Client::at(ids[0]);
    client.connect(&there.hub);
    let reading = tokio::spawn(async move {
        client.until_gap().await;
        client.until("end").await;
        client
    });
    there.until("the first of it", |hub| hub.stats().restored > 0).await;
    let _: String = server.run("FLUSHALL");
    there.until("the news", |hub| hub.stats().resets > 0 || hub.stats().gaps > 0).await;
    // An event that comes during a reset can be part of the loss.
    until("the end", || {
        here.hub.broadcast(Event::new("n").data("end")).unwrap();
        reading.is_finished()
    })
    .await;
    let client = reading.await.unwrap();
    assert!(client.gaps.iter().all(|gap| gap == "reset" || gap == "evicted"), "{:?}", client.gaps);
    let ids: Vec<EventId> = client.seen.iter().map(|(id, _)| *id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn connections_killed_while_it_is_read() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, 4 * EVENTS, 0).await;
    let all = |hub: HubBuilder| little(hub).history(History::default().events(100_000));
    let there = ready(&server.url(), all).await;
    let mut client = Client::at(ids[0]);
    client.connect(&there.hub);
    let reading = tokio::spawn(async move {
        client.until("20000").await;
        client
    });
    let mut kills = 0;
    while !reading.is_finished() {
        kills += server.run::<u32>("CLIENT KILL TYPE normal SKIPME yes");
        tokio::time::sleep(Duration::from_millis(30)).await;
        if kills > 40 {
            break;
        }
    }
    let client = reading.await.unwrap();
    assert!(kills > 10, "{kills}");
    check(&client, 2, 4 * EVENTS, 0);
}

/// Returns two instances that cannot reach a Redis with many events. The second waits for older
/// events for at most 300 ms. The first value of the result keeps the Redis alive.
async fn silent() -> (impl Sized, Wire, Vec<EventId>, [Instance; 2]) {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, EVENTS, 0).await;
    let patient = ready(&wire.url(), little).await;
    let history = History::default().events(10_000).max_wait(Duration::from_millis(300));
    let hasty = ready(&wire.url(), |hub| little(hub).history(history)).await;
    wire.set(Line::Silent);
    ((server, here), wire, ids, [patient, hasty])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn client_waits_for_a_silent_redis_within_limits() {
    let (_server, wire, ids, [patient, hasty]) = silent().await;
    let mut waits = Client::at(ids[0]);
    waits.connect(&patient.hub);
    let mut gives_up = Client::at(ids[0]);
    gives_up.connect(&hasty.hub);
    let start = Instant::now();
    gives_up.until("5000").await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    check(&gives_up, EVENTS - 15, EVENTS, 1);

    let early = timeout(Duration::from_millis(100), waits.until("5000")).await;
    assert!(early.is_err(), "{:?}", waits.names().len());
    wire.set(Line::Down);
    wire.set(Line::Open);
    waits.until("5000").await;
    check(&waits, 2, EVENTS, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn malformed_entries_and_commands_are_skipped() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let mut ids = publish(&here, 500, 0).await;
    for junk in ["e junk p 0-0", "x y", "m", "e junk"].iter().cycle().take(600) {
        let pair = if junk.split(' ').count() % 2 == 0 { junk } else { "m 1" };
        let _: String = server.run(&format!("XADD {{sse-hub}}:events * {pair}"));
    }
    for number in 0..600 {
        here.hub.join(Audience::user(number.to_string()), "t").unwrap();
    }
    ids.extend(publish(&here, 500, 0).await);
    here.hub.leave(Audience::all(), "t").unwrap();
    let there = ready(&server.url(), little).await;
    let mut client = Client::at(ids[0]);
    client.connect(&there.hub);
    // The second event of that name.
    let reading = async {
        while client.seen.last().is_none_or(|(id, _)| *id < ids[999]) {
            assert!(client.read().await);
        }
    };
    timeout(DEADLINE, reading).await.expect("all of it");
    assert_eq!(client.gaps, [""; 0]);
    let seen: Vec<EventId> = client.seen.iter().map(|(id, _)| *id).collect();
    assert_eq!(seen, ids[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn nothing_is_missed_with_little_retention_under_load() {
    let server = Server::start(&[]);
    let far =
        |hub: HubBuilder| little(hub).history(History::default().events(1_000_000).bytes(1 << 30));
    let instances = [ready(&server.url(), far).await, ready(&server.url(), far).await];
    let load = Load::start(&instances.each_ref(), 4, 48);
    let start = Instant::now();
    let mut bursts = 0;
    while start.elapsed() < Duration::from_secs(3) {
        let _: u32 = server.run("CLIENT KILL TYPE normal SKIPME yes");
        // More than is retained, in a batch.
        for number in 0..64 {
            let event = Event::new("n").data(format!("burst-{bursts}-{number}"));
            instances[bursts % 2].hub.broadcast(event).unwrap();
        }
        bursts += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let confirmed = load.confirmed();
    load.stop().await.check_exact();
    let restored = instances.each_ref().map(|instance| instance.hub.stats().restored);
    println!("{confirmed} events; {restored:?} brought back");
    assert!(restored.iter().sum::<u64>() > 0, "nobody ever fell behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn hub_without_history_reads_none() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, 100, 0).await;
    let none = |hub: HubBuilder| little(hub).history(None);
    let there = ready(&server.url(), none).await;
    let reads = Reads::of(&server);
    let before = reads.count(&server);
    let mut client = Client::at(ids[0]);
    client.connect(&there.hub);
    client.until("100").await;
    check(&client, 85, 100, 1);
    assert_eq!(reads.count(&server), before);
}

async fn page(hub: &Hub, after: EventId, limit: usize) -> Page {
    let who = Subscriber::new();
    let reading = hub.read_with_history(&who, after, limit);
    timeout(DEADLINE, reading).await.expect("a page within the deadline").unwrap()
}

fn numbers(page: &Page) -> Vec<usize> {
    page.events.iter().map(|event| event.data.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn pages_reach_back_five_thousand_events() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, EVENTS, 0).await;
    let there = ready(&server.url(), little).await;
    let reads = Reads::of(&server);
    assert!(there.hub.read(&Subscriber::new(), ids[0], 100).unwrap().truncated);

    // Readers that come together share the reads of Redis.
    let begins = [0, 1, 2_500, 4_990];
    let mut together = Vec::new();
    for begin in begins {
        let (hub, after) = (there.hub.clone(), ids[begin]);
        together.push(tokio::spawn(async move { page(&hub, after, usize::MAX).await }));
    }
    for (reading, begin) in together.into_iter().zip(begins) {
        let page = timeout(DEADLINE, reading).await.unwrap().unwrap();
        assert_eq!(numbers(&page), (begin + 2..=EVENTS).collect::<Vec<_>>());
        assert!(!page.truncated && !page.has_more && page.next == ids[EVENTS - 1]);
    }
    let read = reads.count(&server);
    assert!((1..=6).contains(&read), "{read} reads");
    assert_eq!(there.hub.stats().restored, EVENTS as u64 - 17);

    // The pages of a single reader need no further read.
    let (mut at, mut all) = (ids[0], Vec::new());
    loop {
        let page = page(&there.hub, at, 700).await;
        assert!(!page.truncated);
        all.extend(numbers(&page));
        at = page.next;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(all, (2..=EVENTS).collect::<Vec<_>>());
    assert_eq!(reads.count(&server), read);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn pages_say_which_events_cannot_come() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let ids = publish(&here, EVENTS, 0).await;
    let cap = |hub: HubBuilder| little(hub).history(History::default().events(1_000));
    let capped = ready(&server.url(), cap).await;
    let newest = page(&capped.hub, ids[0], usize::MAX).await;
    assert_eq!(numbers(&newest), (EVENTS - 1_015..=EVENTS).collect::<Vec<_>>());
    assert!(newest.truncated);

    let _: usize = server.run("XTRIM {sse-hub}:events MAXLEN = 2000");
    let there = ready(&server.url(), little).await;
    for (back, is_trimmed) in [(0, true), (EVENTS - 2_002, true), (EVENTS - 2_001, false)] {
        let rest = page(&there.hub, ids[back], usize::MAX).await;
        assert_eq!(numbers(&rest), (EVENTS - 1_999..=EVENTS).collect::<Vec<_>>());
        assert_eq!(rest.truncated, is_trimmed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn page_waits_for_a_silent_redis_within_limits() {
    let (_server, wire, ids, [patient, hasty]) = silent().await;
    let (hub, after) = (patient.hub.clone(), ids[0]);
    let waits = tokio::spawn(async move { page(&hub, after, usize::MAX).await });
    let start = Instant::now();
    let rest = page(&hasty.hub, ids[0], usize::MAX).await;
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(numbers(&rest), (EVENTS - 15..=EVENTS).collect::<Vec<_>>());
    assert!(rest.truncated && !waits.is_finished());

    wire.set(Line::Down);
    wire.set(Line::Open);
    let whole = timeout(DEADLINE, waits).await.unwrap().unwrap();
    assert_eq!((numbers(&whole).len(), whole.truncated), (EVENTS - 1, false));

    // A hub that is closed meanwhile waits no longer.
    let other = ready(&wire.url(), little).await;
    wire.set(Line::Silent);
    let (hub, after) = (other.hub.clone(), ids[0]);
    let waits = tokio::spawn(async move { page(&hub, after, usize::MAX).await });
    other.hub.close();
    let rest = timeout(DEADLINE, waits).await.unwrap().unwrap();
    assert_eq!((numbers(&rest).len(), rest.truncated), (16, true));
}
