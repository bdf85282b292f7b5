//! Interleavings of a few threads, checked with loom.
//!
//! Run with `RUSTFLAGS="--cfg sse_hub_loom" cargo test --release --test loom`.
#![cfg(sse_hub_loom)]

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use loom::future::block_on;
use loom::thread;
use sse_hub::backplane::{Backplane, Feed, Incoming, Loaded, Outgoing, SendError};
use sse_hub::{
    Audience, Event, EventId, Goodbye, Hub, ManualTimer, Retain, RunOptions, Subscriber,
    Subscription,
};

/// Disables heartbeats, because time does not advance in a model.
fn hub(window: usize, retain: usize) -> Hub {
    Hub::builder(ManualTimer::new())
        .heartbeat(None)
        .window(window)
        .retain(Retain::default().events(retain))
        .build()
        .unwrap()
}

fn opened(hub: &Hub) -> Subscription {
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    stream.next().now_or_never().unwrap();
    stream
}

fn publish(hub: &Hub) -> EventId {
    hub.publish_confirmed(Audience::all(), Event::new("x")).unwrap().id().unwrap()
}

/// Waits for the next `count` ids and returns them.
fn next_ids(stream: &mut Subscription, count: usize) -> Vec<EventId> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = block_on(stream.next()).expect("the hub is open");
        seen.extend(ids(&batch));
    }
    seen
}

fn ids(batch: &[u8]) -> Vec<EventId> {
    let text = std::str::from_utf8(batch).unwrap();
    assert!(!text.contains("hub:gap"), "a gap without a loss");
    text.lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .map(|id| id.parse().unwrap())
        .collect()
}

#[test]
fn stop_reaches_a_waiting_producer() {
    loom::model(|| {
        let hub = hub(4, 4);
        let run = hub.start_run("a", RunOptions::default()).unwrap();
        let stopper = thread::spawn({
            let hub = hub.clone();
            move || hub.stop_run("a", "user").unwrap()
        });
        assert_eq!(&*block_on(run.stopped()), "user");
        stopper.join().unwrap();
        assert!(run.is_stopped());
    });
}

/// Reads a stream to its end, and asserts that the end of the run comes once.
fn read_run(mut stream: Subscription) {
    let mut text = String::new();
    while let Some(item) = block_on(stream.next()) {
        text += std::str::from_utf8(&item).unwrap();
    }
    let count = |line: &str| text.matches(line).count();
    assert_eq!((count("event: hub:run-end"), count("\"final\""), count("hub:gap")), (1, 1, 0));
}

#[test]
fn end_of_a_run_wakes_a_waiting_reader() {
    loom::model(|| {
        let hub = hub(4, 4);
        let run = hub.start_run("a", RunOptions::default()).unwrap();
        let stream = hub.subscribe(Subscriber::new().run("a")).unwrap();
        let producer = thread::spawn(move || run.finish(None).unwrap());
        read_run(stream);
        producer.join().unwrap();
    });
}

#[test]
fn reader_that_connects_during_the_end_gets_the_end() {
    loom::model(|| {
        let hub = hub(4, 4);
        let run = hub.start_run("a", RunOptions::default()).unwrap();
        let producer = thread::spawn(move || run.finish(None).unwrap());
        let stream = hub.subscribe(Subscriber::new().run("a")).unwrap();
        producer.join().unwrap();
        read_run(stream);
    });
}

#[test]
fn taken_over_producer_publishes_nothing() {
    loom::model(|| {
        let hub = hub(4, 4);
        let old = hub.start_run("a", RunOptions::default()).unwrap();
        let taker = thread::spawn({
            let hub = hub.clone();
            move || hub.start_run("a", RunOptions::default().take_over(true)).unwrap()
        });
        let was_open = old.publish(Event::new("x")).is_ok();
        let new = taker.join().unwrap();
        assert!(old.finish(None).is_err());
        new.publish(Event::new("x")).unwrap();
        assert_eq!(hub.run("a").unwrap().events, u64::from(was_open) + 1);
    });
}

#[test]
fn publish_wakes_a_waiting_reader() {
    loom::model(|| {
        let hub = hub(4, 4);
        let mut stream = opened(&hub);
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || publish(&hub)
        });
        let seen = next_ids(&mut stream, 1);
        assert_eq!(seen, [publisher.join().unwrap()]);
    });
}

#[test]
fn readers_agree_on_the_order_of_publishers() {
    loom::model(|| {
        let hub = hub(4, 4);
        let (mut one, mut other) = (opened(&hub), opened(&hub));
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || publish(&hub)
        });
        publish(&hub);
        publisher.join().unwrap();
        let seen = next_ids(&mut one, 2);
        assert!(seen[0] < seen[1]);
        assert_eq!(next_ids(&mut other, 2), seen);
    });
}

#[test]
fn subscribing_during_publish_takes_whole_event_or_none() {
    loom::model(|| {
        let hub = hub(4, 4);
        // A second client, so that delivery takes several steps.
        let _steady = opened(&hub);
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || (publish(&hub), publish(&hub))
        });
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        let opening = stream.next().now_or_never().unwrap().unwrap();
        let start = ids(&opening)[0];
        let (first, second) = publisher.join().unwrap();
        let expected: Vec<EventId> = [first, second].into_iter().filter(|&id| id > start).collect();
        assert_eq!(next_ids(&mut stream, expected.len()), expected);
        assert!(stream.next().now_or_never().is_none(), "an event must not arrive twice");
    });
}

#[test]
fn resuming_during_publishes_joins_replay_and_live() {
    loom::model(|| {
        let hub = hub(1, 8);
        let start = publish(&hub);
        let missed = publish(&hub);
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || [publish(&hub), publish(&hub)]
        });
        let mut stream = hub.subscribe(Subscriber::new().resume(start)).unwrap();
        stream.next().now_or_never().unwrap();
        let seen = next_ids(&mut stream, 3);
        let [third, fourth] = publisher.join().unwrap();
        assert_eq!(seen, [missed, third, fourth]);
        assert!(stream.next().now_or_never().is_none());
    });
}

#[test]
fn reader_behind_catches_up_to_live() {
    loom::model(|| {
        let hub = hub(1, 8);
        let mut stream = opened(&hub);
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || [publish(&hub), publish(&hub), publish(&hub)]
        });
        let seen = next_ids(&mut stream, 3);
        assert_eq!(seen, publisher.join().unwrap());
        assert!(stream.next().now_or_never().is_none());
    });
}

#[test]
fn dropped_stream_during_delivery_leaves_nothing() {
    loom::model(|| {
        let hub = hub(4, 4);
        let (leaving, mut staying) = (opened(&hub), opened(&hub));
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || publish(&hub)
        });
        drop(leaving);
        let id = publisher.join().unwrap();
        assert_eq!(
            next_ids(&mut staying, 1),
            [id],
            "the remaining client must receive the event after slots moved"
        );
        assert_eq!(hub.stats().clients, 1);
    });
}

#[test]
fn closing_wakes_a_reader_after_its_backlog() {
    loom::model(|| {
        let hub = hub(4, 4);
        let mut stream = opened(&hub);
        let closer = thread::spawn({
            let hub = hub.clone();
            move || {
                publish(&hub);
                hub.close();
            }
        });
        let mut seen = 0;
        while let Some(batch) = block_on(stream.next()) {
            seen += ids(&batch).len();
        }
        assert_eq!(seen, 1);
        closer.join().unwrap();
        assert_eq!(hub.stats().clients, 0);
    });
}

#[test]
fn joining_during_publish_takes_every_later_event() {
    loom::model(|| {
        let hub = hub(4, 4);
        // A second follower, so that the lists have several entries.
        let _steady = hub.subscribe(Subscriber::new().topic("t")).unwrap();
        let mut stream = opened(&hub);
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || {
                hub.publish_confirmed(Audience::topic("t"), Event::new("x")).unwrap().id().unwrap()
            }
        });
        assert_eq!(
            hub.join(Audience::client(stream.client_id()), "t").map(|clients| clients.changed),
            Ok(1)
        );
        let during = publisher.join().unwrap();
        let after =
            hub.publish_confirmed(Audience::topic("t"), Event::new("x")).unwrap().id().unwrap();
        let seen = next_ids(&mut stream, 1);
        match seen.as_slice() {
            [one] if *one == during => assert_eq!(next_ids(&mut stream, 1), [after]),
            other => assert!(other == [after] || other == [during, after]),
        }
        assert!(stream.next().now_or_never().is_none(), "nothing twice");
    });
}

/// A join changes a crowd in pieces. A client can leave and come back between two pieces, or take its
/// own connection over.
#[test]
fn client_that_returns_during_a_join_has_the_topic() {
    for displaces in [false, true] {
        loom::model(move || {
            let hub = hub(4, 4);
            let _other = hub.subscribe(Subscriber::new().user("u")).unwrap();
            let first = hub.subscribe(Subscriber::new().user("u")).unwrap();
            let id = first.client_id();
            let joiner = thread::spawn({
                let hub = hub.clone();
                move || hub.join(Audience::user("u"), "t").unwrap()
            });
            let first = displaces.then_some(first);
            let second = hub.subscribe(Subscriber::new().user("u").client_id(id)).unwrap();
            joiner.join().unwrap();
            assert_eq!(second.client_id(), id);
            assert_eq!(hub.clients(id)[0].topics.len(), 1);
            drop(first);
        });
    }
}

/// The same for a client that leaves a topic with a crowd.
#[test]
fn client_that_returns_during_a_leave_lacks_the_topic() {
    loom::model(|| {
        let hub = hub(4, 4);
        let _other = hub.subscribe(Subscriber::new().user("u")).unwrap();
        let first = hub.subscribe(Subscriber::new().user("u")).unwrap();
        let id = first.client_id();
        hub.join(Audience::user("u"), "t").unwrap();
        let leaver = thread::spawn({
            let hub = hub.clone();
            move || hub.leave(Audience::user("u"), "t").unwrap()
        });
        drop(first);
        let second = hub.subscribe(Subscriber::new().user("u").client_id(id)).unwrap();
        leaver.join().unwrap();
        assert_eq!(second.client_id(), id);
        assert_eq!(hub.clients(id)[0].topics.len(), 0);
    });
}

#[test]
fn leaving_during_publish_skips_no_remaining_client() {
    loom::model(|| {
        let hub = hub(4, 4);
        let follower = || {
            let mut stream = hub.subscribe(Subscriber::new().topic("t")).unwrap();
            stream.next().now_or_never().unwrap();
            stream
        };
        let (leaving, mut staying) = (follower(), follower());
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || {
                hub.publish_confirmed(Audience::topic("t"), Event::new("x")).unwrap().id().unwrap()
            }
        });
        assert_eq!(
            hub.leave(Audience::client(leaving.client_id()), "t").map(|clients| clients.changed),
            Ok(1)
        );
        let id = publisher.join().unwrap();
        assert_eq!(next_ids(&mut staying, 1), [id]);
        assert!(staying.next().now_or_never().is_none(), "nothing twice");
    });
}

#[test]
fn disconnecting_wakes_a_reader_and_forgets_it_once() {
    loom::model(|| {
        let hub = hub(4, 4);
        let mut stream = opened(&hub);
        let ender = thread::spawn({
            let hub = hub.clone();
            move || hub.disconnect(Audience::all(), Goodbye::from_static("logout")).unwrap()
        });
        let last = block_on(stream.next()).unwrap();
        assert!(last.starts_with(b"event: hub:end\n"));
        assert_eq!(ender.join().unwrap().changed, 1);
        // Another client may have the slot by now.
        let _next = opened(&hub);
        drop(stream);
        assert_eq!(hub.stats().clients, 1);
    });
}

#[test]
fn finished_streams_agree_on_an_event_under_way() {
    loom::model(|| {
        let hub = hub(4, 4);
        let mut streams = [opened(&hub), opened(&hub)];
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || publish(&hub)
        });
        let ended = hub.finish(Audience::all(), Goodbye::from_static("done")).unwrap();
        assert_eq!((ended.matched, ended.changed), (2, 2));
        publisher.join().unwrap();
        let [one, other] = streams.each_mut().map(|stream| {
            let mut text = String::new();
            while let Some(item) = block_on(stream.next()) {
                text += std::str::from_utf8(&item).unwrap();
            }
            text.matches("event: x\n").count()
        });
        assert_eq!(one, other, "the end must have one place among the events");
    });
}

#[test]
fn drain_ends_with_the_last_stream() {
    loom::model(|| {
        let hub = hub(4, 4);
        let stream = opened(&hub);
        let leaver = thread::spawn(move || drop(stream));
        // The period never passes, because time does not advance.
        block_on(hub.drain(Duration::from_secs(3600)));
        leaver.join().unwrap();
        assert_eq!(hub.stats().clients, 0);
    });
}

#[test]
fn connecting_during_drain_is_refused_or_awaited() {
    loom::model(|| {
        let hub = hub(4, 4);
        let comer = thread::spawn({
            let hub = hub.clone();
            move || hub.subscribe(Subscriber::new()).map(drop).is_ok()
        });
        block_on(hub.drain(Duration::from_secs(3600)));
        comer.join().unwrap();
        assert!(hub.subscribe(Subscriber::new()).is_err());
        assert_eq!(hub.stats().clients, 0);
    });
}

/// An engine that accepts every event and places none.
#[derive(Debug)]
struct Nowhere;

impl Backplane for Nowhere {
    fn send(&self, _: Outgoing) -> Result<(), SendError> {
        Ok(())
    }
}

#[test]
fn reader_during_an_outage_gets_the_notice() {
    loom::model(|| {
        let timer = ManualTimer::new();
        let builder = Hub::builder(timer.clone()).heartbeat(None);
        let hub = builder.backplane(Nowhere).announce_outages(true).build().unwrap();
        let feed = Feed::new(&hub).unwrap();
        feed.degraded(Some("gone"));
        timer.advance(Duration::from_secs(1));
        let teller = thread::spawn(move || feed.degraded(Some("gone")));
        let told = block_on(opened(&hub).next()).unwrap();
        assert!(told.starts_with(b"event: hub:degraded\n"));
        teller.join().unwrap();
    });
}

/// An engine that keeps sent events.
#[derive(Debug, Clone, Default)]
struct Kept(std::sync::Arc<std::sync::Mutex<Vec<bytes::Bytes>>>);

impl Backplane for Kept {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        self.0.lock().unwrap().push(event.entry().clone());
        Ok(())
    }
}

#[test]
fn reader_of_rolled_back_order_gets_no_repeats() {
    loom::model(|| {
        let kept = Kept::default();
        let builder = Hub::builder(ManualTimer::new()).heartbeat(None);
        let hub = builder.backplane(kept.clone()).build().unwrap();
        hub.broadcast(Event::new("x")).unwrap();
        let entry = kept.0.lock().unwrap()[0].clone();
        let feed = Feed::new(&hub).unwrap();
        let parse = |entry: &[u8]| Incoming::parse(entry).unwrap();
        feed.load(Loaded::new(
            EventId::new(1, 0),
            [(EventId::new(2, 0), Duration::ZERO, parse(&entry))],
        ));
        let mut stream = hub.subscribe(Subscriber::new().resume(EventId::new(1, 0))).unwrap();
        stream.next().now_or_never().unwrap();

        let engine = thread::spawn(move || {
            feed.load(Loaded::new(EventId::new(3, 0), []));
            feed.append(EventId::new(4, 0), parse(&entry));
        });
        let mut text = String::new();
        let mut take = |stream: &mut Subscription| {
            while let Some(Some(bytes)) = stream.next().now_or_never() {
                text += std::str::from_utf8(&bytes).unwrap();
            }
        };
        take(&mut stream);
        engine.join().unwrap();
        take(&mut stream);
        let frames: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("id: ").or(line.strip_prefix("event: ")))
            // The position right before the next event is equivalent.
            .map(|it| if it == EventId::new(3, u64::MAX).to_string() { "3-0" } else { it })
            .collect();
        let (old, new) = (["x", "2-0"], ["hub:gap", "3-0", "x", "4-0"]);
        let is_right = frames == new || frames == [&old[..], &new[..]].concat();
        assert!(is_right, "{frames:?}");
    });
}

#[test]
fn values_join_live_events_without_a_hole() {
    loom::model(|| {
        let hub = Hub::builder(ManualTimer::new())
            .heartbeat(None)
            .retain(Retain::default().events(1).keep_latest(4))
            .build()
            .unwrap();
        let price = |hub: &Hub, key: &str| {
            let event = Event::new("x").conflate(key);
            hub.publish_confirmed(Audience::all(), event).unwrap().id().unwrap()
        };
        price(&hub, "a");
        let kept = price(&hub, "b");
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || price(&hub, "a")
        });
        let mut stream = hub.subscribe(Subscriber::new().latest()).unwrap();
        let mut seen = Vec::new();
        while let Some(item) = stream.next().now_or_never() {
            seen.extend(ids(&item.unwrap()));
        }
        let changed = publisher.join().unwrap();
        while let Some(item) = stream.next().now_or_never() {
            seen.extend(ids(&item.unwrap()));
        }
        assert!(seen.is_sorted(), "{seen:?}");
        assert!(seen.contains(&kept) || seen.contains(&changed), "{seen:?}");
        assert_eq!(seen.last(), Some(&changed), "the newest value comes last: {seen:?}");
    });
}

/// An engine that can bring older events.
#[derive(Debug, Clone, Default)]
struct Past(Kept);

impl Backplane for Past {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        self.0.send(event)
    }

    fn supports_history(&self) -> bool {
        true
    }
}

#[test]
fn page_that_waits_is_woken_by_its_events() {
    loom::model(|| {
        let past = Past::default();
        let builder = Hub::builder(ManualTimer::new()).heartbeat(None);
        let hub = builder.backplane(past.clone()).build().unwrap();
        hub.broadcast(Event::new("x").data("1")).unwrap();
        let entry = past.0.0.lock().unwrap()[0].clone();
        let (feed, head) = (Feed::new(&hub).unwrap(), EventId::new(2, 0));
        feed.load(Loaded::new(head, []));
        let (who, after) = (Subscriber::new(), EventId::new(1, 0));
        let mut reading = Box::pin(hub.read_with_history(&who, after, 10));
        let mut dropped = Box::pin(hub.read_with_history(&who, after, 10));
        assert!(reading.as_mut().now_or_never().is_none());
        assert!(dropped.as_mut().now_or_never().is_none());
        let engine = thread::spawn({
            let feed = feed.clone();
            move || {
                let entry = Incoming::parse(&entry).unwrap();
                feed.restore(head, after, [(head, Duration::ZERO, entry)]);
            }
        });
        drop(dropped);
        let page = block_on(reading).unwrap();
        assert_eq!((page.events.len(), page.truncated), (1, false));
        engine.join().unwrap();
        assert!(feed.history_request().is_none());
    });
}
