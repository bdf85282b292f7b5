//! Every interleaving of a few threads, by loom.
//!
//! Run with `RUSTFLAGS="--cfg sse_hub_loom" cargo test --release --test loom`.
#![cfg(sse_hub_loom)]

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use loom::future::block_on;
use loom::thread;
use sse_hub::backplane::{Backplane, Feed, Outgoing, Unsent};
use sse_hub::{
    Audience, Event, EventId, Heartbeat, Hub, ManualTimer, Retain, Subscriber, Subscription,
};

/// Without heartbeats: time stands still in a model.
fn hub(window: usize, retain: usize) -> Hub {
    Hub::builder(ManualTimer::new())
        .heartbeat(Heartbeat::disabled())
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
    hub.broadcast(Event::new("x")).unwrap().id().unwrap()
}

/// The next `count` ids, waiting for them.
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
    assert!(!text.contains("hub:gap"), "nothing was lost");
    text.lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .map(|id| id.parse().unwrap())
        .collect()
}

#[test]
fn a_reader_that_waits_is_woken_by_a_publish() {
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
fn two_publishers_are_seen_in_one_order_by_all() {
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
fn subscribing_while_an_event_is_published_takes_it_whole_or_not() {
    loom::model(|| {
        let hub = hub(4, 4);
        // Another client, so that the hand-out comes in pieces.
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
        assert!(stream.next().now_or_never().is_none(), "and nothing twice");
    });
}

#[test]
fn resuming_while_events_are_published_joins_replay_and_live() {
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
fn a_reader_that_falls_behind_catches_up_to_live() {
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
fn dropping_a_stream_while_an_event_is_handed_out_leaves_nothing() {
    loom::model(|| {
        let hub = hub(4, 4);
        let (leaving, mut staying) = (opened(&hub), opened(&hub));
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || publish(&hub)
        });
        drop(leaving);
        let id = publisher.join().unwrap();
        assert_eq!(next_ids(&mut staying, 1), [id], "whoever stays is met, though places moved");
        assert_eq!(hub.stats().clients, 1);
    });
}

#[test]
fn closing_wakes_a_reader_after_what_was_published() {
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
fn joining_a_topic_during_a_publish_takes_the_event_or_not_and_every_later_one() {
    loom::model(|| {
        let hub = hub(4, 4);
        // Another follower, so that lists have more than one.
        let _steady = hub.subscribe(Subscriber::new().topic("t")).unwrap();
        let mut stream = opened(&hub);
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || hub.publish(Audience::topic("t"), Event::new("x")).unwrap().id().unwrap()
        });
        assert_eq!(hub.join(&Audience::client(stream.client()), "t"), Ok(1));
        let during = publisher.join().unwrap();
        let after = hub.publish(Audience::topic("t"), Event::new("x")).unwrap().id().unwrap();
        let seen = next_ids(&mut stream, 1);
        match seen.as_slice() {
            [one] if *one == during => assert_eq!(next_ids(&mut stream, 1), [after]),
            other => assert!(other == [after] || other == [during, after]),
        }
        assert!(stream.next().now_or_never().is_none(), "nothing twice");
    });
}

#[test]
fn leaving_a_topic_during_a_publish_skips_nobody_who_stays() {
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
            move || hub.publish(Audience::topic("t"), Event::new("x")).unwrap().id().unwrap()
        });
        assert_eq!(hub.leave(&Audience::client(leaving.client()), "t"), Ok(1));
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
            move || hub.disconnect(&Audience::all(), "logout", None).unwrap()
        });
        let last = block_on(stream.next()).unwrap();
        assert!(last.starts_with(b"event: hub:end\n"));
        assert_eq!(ender.join().unwrap(), 1);
        // Its place is somebody else's by now.
        let _next = opened(&hub);
        drop(stream);
        assert_eq!(hub.stats().clients, 1);
    });
}

#[test]
fn draining_is_over_when_the_last_stream_goes() {
    loom::model(|| {
        let hub = hub(4, 4);
        let stream = opened(&hub);
        let leaver = thread::spawn(move || drop(stream));
        // The period never passes: time stands still.
        block_on(hub.drain(Duration::from_secs(3600)));
        leaver.join().unwrap();
        assert_eq!(hub.stats().clients, 0);
    });
}

#[test]
fn a_client_that_connects_during_a_drain_is_refused_or_waited_for() {
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

/// An engine that takes all and places nothing.
#[derive(Debug)]
struct Nowhere;

impl Backplane for Nowhere {
    fn send(&self, _: Outgoing) -> Result<(), Unsent> {
        Ok(())
    }
}

#[test]
fn a_reader_that_comes_or_waits_as_an_outage_is_told_is_told_it() {
    loom::model(|| {
        let timer = ManualTimer::new();
        let builder = Hub::builder(timer.clone()).heartbeat(Heartbeat::disabled());
        let hub = builder.backplane(Nowhere).tell_degraded().build().unwrap();
        let feed = Feed::of(&hub).unwrap();
        feed.degraded(Some("gone"));
        timer.advance(Duration::from_secs(1));
        let teller = thread::spawn(move || feed.degraded(Some("gone")));
        let told = block_on(opened(&hub).next()).unwrap();
        assert!(told.starts_with(b"event: hub:degraded\n"));
        teller.join().unwrap();
    });
}

/// Keeps what is sent.
#[derive(Debug, Clone, Default)]
struct Kept(std::sync::Arc<std::sync::Mutex<Vec<bytes::Bytes>>>);

impl Backplane for Kept {
    fn send(&self, event: Outgoing) -> Result<(), Unsent> {
        self.0.lock().unwrap().push(event.entry().clone());
        Ok(())
    }
}

#[test]
fn a_reader_of_an_order_that_begins_anew_is_told_first_and_gets_nothing_twice() {
    loom::model(|| {
        let kept = Kept::default();
        let builder = Hub::builder(ManualTimer::new()).heartbeat(Heartbeat::disabled());
        let hub = builder.backplane(kept.clone()).build().unwrap();
        hub.broadcast(Event::new("x")).unwrap();
        let entry = kept.0.lock().unwrap()[0].clone();
        let feed = Feed::of(&hub).unwrap();
        feed.load(EventId::new(1, 0), [(EventId::new(2, 0), Duration::ZERO, &entry)]);
        let mut stream = hub.subscribe(Subscriber::new().resume(EventId::new(1, 0))).unwrap();
        stream.next().now_or_never().unwrap();

        let engine = thread::spawn(move || {
            feed.load(EventId::new(3, 0), None::<(EventId, Duration, bytes::Bytes)>);
            feed.append(EventId::new(4, 0), &entry).unwrap();
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
            // The position right before the next event says the same.
            .map(|it| if it == EventId::new(3, u64::MAX).to_string() { "3-0" } else { it })
            .collect();
        let (old, new) = (["x", "2-0"], ["hub:gap", "3-0", "x", "4-0"]);
        let is_right = frames == new || frames == [&old[..], &new[..]].concat();
        assert!(is_right, "{frames:?}");
    });
}
