//! `Subscriber::at_most_every`: at most one batch in a period, and nothing is lost.
#![cfg(not(sse_hub_loom))]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Audience, EndReason, Event, Goodbye, Heartbeat, Hub, ManualTimer, Retain, Subscriber,
    Subscription,
};

use support::{
    Counting, SECOND, data, end, event, gaps, has_ended, hub_with, names, poll, publish, read,
    read_items, wait,
};

fn paced(hub: &Hub, period: Duration) -> Subscription {
    hub.subscribe(Subscriber::new().at_most_every(period)).unwrap()
}

/// A stream that rests: its first event has come.
fn resting(hub: &Hub, period: Duration) -> Subscription {
    let mut stream = paced(hub, period);
    publish(hub, [0]);
    assert_eq!(data(&read(&mut stream)), names([0]));
    stream
}

fn no_heartbeats() -> (Hub, ManualTimer) {
    hub_with(|hub| hub.heartbeat(None))
}

#[test]
fn burst_comes_as_one_batch_per_period() {
    let (hub, timer) = no_heartbeats();
    let mut stream = resting(&hub, SECOND);
    for second in 0..3 {
        // More than the window holds, and more than a read of the log returns.
        publish(&hub, second * 1000..second * 1000 + 200);
        timer.advance(SECOND - Duration::from_millis(1));
        assert_eq!(read(&mut stream), "");
        timer.advance(Duration::from_millis(1));
        assert_eq!(data(&read(&mut stream)), names(second * 1000..second * 1000 + 200));
    }
    assert_eq!(hub.stats().lagged, 0);
    assert_eq!(hub.stats().delays().count(), 0, "the client chose the delay");
}

#[test]
fn event_after_a_quiet_period_comes_at_once() {
    let (hub, timer) = no_heartbeats();
    let mut stream = resting(&hub, SECOND);
    timer.advance(2 * SECOND);
    assert_eq!(read(&mut stream), "");
    let woken = wait(&mut stream);
    publish(&hub, [1]);
    assert_eq!(woken.count(), 1);
    assert_eq!(data(&read(&mut stream)), names([1]));
}

#[test]
fn resting_stream_is_woken_by_its_timer_only() {
    let (hub, timer) = no_heartbeats();
    let mut stream = resting(&hub, SECOND);
    let woken = wait(&mut stream);
    publish(&hub, 1..=500);
    assert_eq!(woken.count(), 0);
    timer.advance(SECOND);
    assert_eq!(woken.count(), 1);
    assert_eq!(data(&read(&mut stream)).len(), 500);
}

#[test]
fn timer_is_touched_once_in_a_period() {
    let (manual, touched) = (ManualTimer::new(), Default::default());
    let timer = Counting { timer: manual.clone(), touched };
    let hub = Hub::builder(timer.clone()).build().unwrap();
    let mut stream = resting(&hub, SECOND);
    let before = timer.touched.load(Ordering::Relaxed);
    const PERIODS: usize = 50;
    for period in 0..PERIODS {
        for number in 0..20 {
            publish(&hub, [period * 20 + number]);
            manual.advance(SECOND / 20);
            read(&mut stream);
        }
    }
    let touched = timer.touched.load(Ordering::Relaxed) - before;
    // Each time, the sleep is set and then polled.
    assert!(touched <= 2 * PERIODS + 2, "{touched} touches in {PERIODS} periods");
}

#[test]
fn batch_has_each_key_once_although_it_comes_in_pieces() {
    // Pieces of one event, and of more: the last piece may have room for later events.
    for bytes in [1, 80, 120, 160] {
        let (hub, timer) = hub_with(|hub| hub.heartbeat(None).max_batch_bytes(bytes));
        let mut stream = resting(&hub, SECOND);
        let price = |value| hub.broadcast(event(value).conflate("a")).unwrap();
        price(1);
        publish(&hub, 2..=6);
        timer.advance(SECOND);
        let mut text = read_items(&mut stream, 1);
        price(7);
        publish(&hub, 8..=8);
        text += &read(&mut stream);
        assert_eq!(data(&text), names([1, 2, 3, 4, 5, 6]), "the new value is for the next batch");
        timer.advance(SECOND);
        assert_eq!(data(&read(&mut stream)), names([7, 8]));
    }
}

#[test]
fn first_frames_and_values_do_not_wait() {
    let (hub, _) = hub_with(|hub| hub.heartbeat(None).retain(Retain::default().keep_latest(9)));
    hub.broadcast(event(1).conflate("a")).unwrap();
    let request = Subscriber::new().latest().at_most_every(SECOND);
    let mut stream = hub.subscribe(request).unwrap();
    assert_eq!(data(&read(&mut stream)), names([1]));
    publish(&hub, [2]);
    assert_eq!(read(&mut stream), "", "the values are the first batch");
}

#[test]
fn ends_do_not_wait() {
    let (hub, _) = no_heartbeats();
    let mut finished = resting(&hub, 60 * SECOND);
    let id = finished.client_id();
    publish(&hub, [1, 2]);
    let woken = wait(&mut finished);
    hub.finish(Audience::client(id), Goodbye::from_static("done")).unwrap();
    assert_eq!(woken.count(), 1);
    let text = read(&mut finished);
    assert_eq!((data(&text), end(&text).as_deref()), (names([1, 2]), Some("done")));
    assert!(has_ended(&mut finished));

    let mut disconnected = resting(&hub, 60 * SECOND);
    publish(&hub, [1]);
    let _ = hub.disconnect(disconnected.client_id(), Goodbye::from_static("out")).unwrap();
    let text = read(&mut disconnected);
    assert_eq!((data(&text), end(&text).as_deref()), (names([]), Some("out")));
}

#[test]
fn deadline_ends_a_resting_stream() {
    let (hub, timer) = no_heartbeats();
    let request = Subscriber::new().at_most_every(60 * SECOND).expires_in(SECOND);
    let mut stream = hub.subscribe(request).unwrap();
    publish(&hub, [0]);
    read(&mut stream);
    timer.advance(SECOND);
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("expired"));
}

#[test]
fn resting_client_is_not_stalled_and_an_unread_batch_is() {
    let (hub, timer) = hub_with(|hub| hub.heartbeat(None).stalled_after(10 * SECOND));
    let mut stream = resting(&hub, 60 * SECOND);
    publish(&hub, [1]);
    timer.advance(60 * SECOND);
    publish(&hub, [2]);
    assert_eq!(hub.stats().clients, 1, "the client could not read");
    assert_eq!(data(&read(&mut stream)), names([1, 2]));
    publish(&hub, [3]);
    timer.advance(69 * SECOND);
    publish(&hub, [4]);
    assert_eq!(hub.stats().clients, 1, "nine seconds after its rest");
    timer.advance(SECOND);
    publish(&hub, [5]);
    assert_eq!(hub.stats().ended(EndReason::Stalled), 1);
}

#[test]
fn heartbeats_come_during_a_rest() {
    let (hub, timer) = hub_with(|hub| hub.heartbeat(Heartbeat::default().every(10 * SECOND)));
    let mut stream = resting(&hub, 60 * SECOND);
    publish(&hub, [1]);
    for _ in 0..5 {
        assert_eq!(read(&mut stream), "");
        timer.advance(10 * SECOND);
        assert_eq!(read(&mut stream), ":\n");
    }
    timer.advance(10 * SECOND);
    assert_eq!(data(&read(&mut stream)), names([1]));
}

#[test]
fn loss_during_a_rest_is_told() {
    let (hub, timer) = hub_with(|hub| hub.heartbeat(None).retain(Retain::default().events(3)));
    let mut stream = resting(&hub, SECOND);
    publish(&hub, 1..=9);
    timer.advance(SECOND);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(7..=9), vec!["evicted".to_owned()]));
}

#[test]
fn zero_is_no_pace_and_an_absurd_period_is_an_hour() {
    let (hub, timer) = no_heartbeats();
    let mut stream = resting(&hub, Duration::ZERO);
    publish(&hub, [1]);
    assert_eq!(data(&read(&mut stream)), names([1]));
    let mut stream = resting(&hub, Duration::MAX);
    publish(&hub, [2]);
    timer.advance(3600 * SECOND - Duration::from_millis(1));
    assert_eq!(read(&mut stream), "");
    // The retention of five minutes is over: only the newest event is left, and a gap.
    publish(&hub, [3]);
    timer.advance(Duration::from_millis(1));
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([3]), vec!["evicted".to_owned()]));
}

#[test]
fn joined_events_wait_for_the_next_batch() {
    let (hub, timer) = no_heartbeats();
    hub.send_to_topic("t", event(7)).unwrap();
    let mut stream = resting(&hub, SECOND);
    let _ = hub.join_with_last(stream.client_id(), "t", 5).unwrap();
    assert_eq!(read(&mut stream), "");
    timer.advance(SECOND);
    assert_eq!(data(&read(&mut stream)), names([7]));
    hub.send_to_topic("t", event(8)).unwrap();
    assert_eq!(read(&mut stream), "", "the events of the topic were a batch");
}

#[derive(Debug, Clone)]
enum Op {
    Publish { key: Option<u8> },
    Advance { millis: u64 },
    Read,
    ReadItem,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => prop::option::weighted(0.6, 0..4u8).prop_map(|key| Op::Publish { key }),
        3 => (1..900u64).prop_map(|millis| Op::Advance { millis }),
        3 => Just(Op::Read),
        1 => Just(Op::ReadItem),
    ]
}

/// A client with a period of a second, naively.
#[derive(Default)]
struct Model {
    now: u64,
    waiting: Vec<(usize, Option<u8>)>,
    /// The rest of the batch that the client reads.
    batch: Vec<(usize, Option<u8>)>,
    rests_until: u64,
}

impl Model {
    /// The events that a read returns now, of which the client takes `most`.
    fn read(&mut self, most: usize) -> Vec<usize> {
        let mut read = Vec::new();
        while read.len() < most {
            if self.batch.is_empty() {
                if self.now < self.rests_until || self.waiting.is_empty() {
                    break;
                }
                self.batch = std::mem::take(&mut self.waiting);
            }
            read.push(self.batch.remove(0).0);
            // Counts once the batch is over: later events can replace the rest of the batch.
            self.rests_until = self.now + 1000;
        }
        read
    }

    /// A later event of a key replaces the earlier event wherever it waits.
    fn publish(&mut self, number: usize, key: Option<u8>) {
        if key.is_some() {
            let is_other = |&(_, other): &(usize, Option<u8>)| other != key;
            self.batch.retain(is_other);
            self.waiting.retain(is_other);
        }
        self.waiting.push((number, key));
    }
}

proptest! {
    #[test]
    fn batches_are_those_of_a_naive_client(
        ops in vec(op(), 1..150), window in 1..5usize,
    ) {
        // An item for each event, so that a batch has several.
        let (hub, timer) = hub_with(|hub| {
            hub.heartbeat(None).window(window).max_batch_bytes(1).retain(Retain::default().age(None))
        });
        let mut stream = paced(&hub, SECOND);
        read(&mut stream);
        let (mut model, mut newest) = (Model::default(), BTreeMap::new());
        for (number, op) in ops.iter().enumerate() {
            match *op {
                Op::Publish { key } => {
                    let mut event = Event::new("x").data(number.to_string());
                    if let Some(key) = key {
                        event = event.conflate(key.to_string());
                        newest.insert(key, number);
                    }
                    hub.broadcast(event).unwrap();
                    model.publish(number, key);
                }
                Op::Advance { millis } => {
                    timer.advance(Duration::from_millis(millis));
                    model.now += millis;
                }
                Op::Read => {
                    let text = read(&mut stream);
                    prop_assert_eq!(data(&text), names(model.read(usize::MAX)));
                    prop_assert_eq!(gaps(&text), [""; 0]);
                }
                Op::ReadItem => {
                    prop_assert_eq!(data(&read_items(&mut stream, 1)), names(model.read(1)));
                }
            }
        }
        timer.advance(SECOND);
        model.now += 1000;
        let rest = model.read(usize::MAX);
        prop_assert_eq!(data(&read(&mut stream)), names(rest));
        timer.advance(SECOND);
        model.now += 1000;
        prop_assert_eq!(data(&read(&mut stream)), names(model.read(usize::MAX)));
        prop_assert!(poll(&mut stream).is_none() && model.waiting.is_empty());
    }
}
