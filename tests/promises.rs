//! The hub's promises, each as a small test under its number. The model, the soak and the loom
//! tests check the same promises under random schedules.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Audience, ClientId, EndReason, Event, EventId, EventType, Goodbye, Heartbeat, Hub, LastEventId,
    Limits, ManualTimer, Retain, Subscriber, Subscription,
};

fn hub(retain: Retain) -> Hub {
    Hub::builder(ManualTimer::new()).retain(retain).build().unwrap()
}

/// Reads every available item.
fn read(stream: &mut Subscription) -> String {
    let mut text = String::new();
    while let Some(Some(item)) = stream.next().now_or_never() {
        text += std::str::from_utf8(&item).unwrap();
    }
    text
}

/// Returns the ids of the application's events in the text.
fn ids(text: &str) -> Vec<EventId> {
    let frames = text.split_inclusive("\n\n").filter(|frame| !frame.starts_with("event: hub:"));
    frames.filter_map(|frame| frame.rsplit_once("id: ")?.1.trim_end().parse().ok()).collect()
}

#[test]
fn b1_clients_agree_on_the_order() {
    const EVENTS: usize = 500;
    let hub = hub(Retain::default().events(4 * EVENTS));
    let topics: [&[&str]; 4] = [&["a"], &["b"], &["a", "b"], &["b", "c"]];
    let mut streams = topics.map(|topics| {
        let subscriber = Subscriber::new().topics(topics.iter().copied());
        hub.subscribe(subscriber).unwrap()
    });
    thread::scope(|scope| {
        for topic in ["a", "b", "c", "a"] {
            let hub = &hub;
            scope.spawn(move || {
                for _ in 0..EVENTS {
                    hub.publish(Audience::topic(topic), Event::new("x")).unwrap();
                }
            });
        }
    });
    let seen = streams.each_mut().map(|stream| ids(&read(stream)));
    assert_eq!(seen.each_ref().map(Vec::len), [2 * EVENTS, EVENTS, 3 * EVENTS, 2 * EVENTS]);
    for one in &seen {
        for other in &seen {
            let in_one: BTreeSet<&EventId> = one.iter().collect();
            let in_other: BTreeSet<&EventId> = other.iter().collect();
            let shared_by_one: Vec<_> = one.iter().filter(|id| in_other.contains(id)).collect();
            let shared_by_other: Vec<_> = other.iter().filter(|id| in_one.contains(id)).collect();
            assert_eq!(shared_by_one, shared_by_other);
        }
    }
}

#[test]
fn b2_no_loss_or_repeat_inside_retention() {
    const EVENTS: usize = 5_000;
    let hub = hub(Retain::default().events(EVENTS));
    let mut last = None;
    let mut seen = Vec::new();
    let mut connections = 0;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..EVENTS {
                hub.broadcast(Event::new("x")).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        loop {
            // Every event published before this point reaches the last connection.
            let is_last = done.load(Ordering::SeqCst);
            let subscriber = last.map_or_else(
                || Subscriber::new().replay_last(EVENTS),
                |last: EventId| Subscriber::new().resume(last),
            );
            let mut stream = hub.subscribe(subscriber).unwrap();
            connections += 1;
            stream.next().now_or_never().unwrap();
            let items = if is_last { usize::MAX } else { connections % 3 };
            for _ in 0..items {
                let Some(item) = stream.next().now_or_never() else { break };
                let text = item.unwrap();
                let text = std::str::from_utf8(&text).unwrap();
                assert!(!text.contains("hub:gap"));
                seen.extend(ids(text));
            }
            last = seen.last().copied().or(last);
            if is_last {
                break;
            }
        }
    });
    assert_eq!(seen.len(), EVENTS, "over {connections} connections");
    assert!(seen.is_sorted_by(|a, b| a < b));
}

#[test]
fn b3_gap_precedes_the_next_event_after_loss() {
    let hub = hub(Retain::default().events(3));
    let mut reader = hub.subscribe(Subscriber::new()).unwrap();
    let last = ids(&{
        read(&mut reader);
        hub.broadcast(Event::new("seen")).unwrap();
        read(&mut reader)
    })[0];
    drop(reader);
    for _ in 0..5 {
        hub.broadcast(Event::new("x")).unwrap();
    }
    let text = read(&mut hub.subscribe(Subscriber::new().resume(last)).unwrap());
    let frames: Vec<&str> = text.split_inclusive("\n\n").collect();
    assert!(frames[0].starts_with("event: hub:open\n") && frames[0].contains("\"resumed\":false"));
    assert!(frames[1].starts_with("event: hub:gap\n"));
    assert_eq!(frames.len(), 2 + 3);
    let gap: EventId = frames[1].rsplit_once("id: ").unwrap().1.trim().parse().unwrap();
    assert!(gap > last, "the gap must carry a fresh id, so that the stale id is not sent again");
    assert!(hub.subscribe(Subscriber::new().resume(gap)).unwrap().is_resumed());
}

#[test]
fn b5_slow_reader_does_not_delay_others() {
    const CLIENTS: usize = 1_000;
    let retained = 64 << 10;
    let hub = hub(Retain::default().events(1 << 20).bytes(retained));
    let connect = |_| {
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        stream.next().now_or_never().unwrap();
        stream
    };
    let mut live: Vec<Subscription> = (0..CLIENTS).map(connect).collect();
    let mut stalled: Vec<Subscription> = (0..CLIENTS / 10).map(connect).collect();
    for _ in 0..500 {
        let id = hub
            .publish_confirmed(Audience::all(), Event::default().data("x".repeat(1000)))
            .unwrap()
            .id()
            .unwrap();
        for stream in &mut live {
            assert_eq!(ids(&read(stream)), [id], "the event must arrive at once and alone");
        }
        assert!(hub.stats().retained_bytes <= retained);
    }
    for stream in &mut stalled {
        assert!(read(stream).starts_with("event: hub:gap\n"));
    }
    assert_eq!(hub.stats().gaps, stalled.len() as u64);
}

#[test]
fn b6_shutdown_ends_every_stream() {
    const LIVE: usize = 10_000;
    const STALLED: usize = 100;
    let timer = ManualTimer::new();
    let hub = Hub::builder(timer.clone()).build().unwrap();
    let connect = |_| {
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        stream.next().now_or_never().unwrap();
        assert!(stream.next().now_or_never().is_none());
        Some(stream)
    };
    let mut live: Vec<Option<Subscription>> = (0..LIVE).map(connect).collect();
    let stalled: Vec<Option<Subscription>> = (0..STALLED).map(connect).collect();
    hub.broadcast(Event::new("last-words")).unwrap();

    let over = Duration::from_secs(10);
    let mut drain = hub.drain(over);
    assert!((&mut drain).now_or_never().is_none());
    let mut left = Vec::new();
    for _ in 0..20 {
        timer.advance(over / 20);
        for place in &mut live {
            let Some(stream) = place else { continue };
            let text = read(stream);
            if stream.next().now_or_never() == Some(None) {
                assert!(text.ends_with("\n\n") && text.contains("event: hub:end\nretry: "));
                *place = None;
            }
        }
        left.push(live.iter().flatten().count());
    }
    assert_eq!(left.last(), Some(&0));
    assert!((4_000..6_000).contains(&left[8]), "the ends must spread over nine tenths: {left:?}");
    assert!(drain.now_or_never().is_some(), "unread streams must end too");
    assert_eq!(hub.stats().clients, 0);
    assert_eq!(hub.stats().ended(EndReason::Drained), (LIVE + STALLED) as u64);
    drop(stalled);
    assert_eq!(hub.stats().ended(EndReason::Left), 0);
}

/// A call that a program may make on a hub.
#[derive(Debug, Clone)]
enum Call {
    Publish { audience: u8, name: String, event_type: String, data: String, key: Option<String> },
    Subscribe { user: String, topic: String, types: Vec<String>, last: Vec<u8>, count: usize },
    Claim { bits: [u8; 32] },
    Read,
    Drop,
    Join { name: String },
    Leave { name: String },
    Disconnect { reason: String, last: Option<String> },
    First { text: String },
    Advance { millis: u64 },
    Drain { millis: u64 },
    Close,
}

fn call() -> impl Strategy<Value = Call> {
    let text = || "\\PC{0,6}|[\r\n\0:a-c]{0,6}";
    prop_oneof![
        6 => (0..8u8, text(), text(), text(), prop::option::of(text())).prop_map(
            |(audience, name, event_type, data, key)| Call::Publish { audience, name, event_type, data, key }
        ),
        6 => (text(), text(), vec(text(), 0..3), vec(any::<u8>(), 0..24), 0..usize::MAX).prop_map(
            |(user, topic, types, last, count)| Call::Subscribe { user, topic, types, last, count }
        ),
        1 => any::<[u8; 32]>().prop_map(|bits| Call::Claim { bits }),
        4 => Just(Call::Read),
        2 => Just(Call::Drop),
        2 => text().prop_map(|name| Call::Join { name }),
        1 => text().prop_map(|name| Call::Leave { name }),
        1 => (text(), prop::option::of(text())).prop_map(|(reason, last)| Call::Disconnect { reason, last }),
        1 => text().prop_map(|text| Call::First { text }),
        2 => any::<u64>().prop_map(|millis| Call::Advance { millis: millis % (1 << 40) }),
        1 => any::<u64>().prop_map(|millis| Call::Drain { millis }),
        1 => Just(Call::Close),
    ]
}

fn audience(kind: u8, name: &str) -> Audience {
    match kind {
        0 => Audience::all(),
        1 => Audience::user(name),
        2 => Audience::session(name),
        3 => Audience::topic(name),
        4 => Audience::topic(name).and(Audience::user(name)),
        5 => Audience::all().except(Audience::topic(name)),
        6 => Audience::users([name, "a", "a"]).or(Audience::topic(name)),
        _ => Audience::clients([]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn b7_random_calls_do_not_panic(calls in vec(call(), 1..60), limits in any::<[usize; 3]>(), times in any::<[Duration; 3]>()) {
        let timer = ManualTimer::new();
        let [clients, per_user, replay] = limits.map(|limit| limit % 8);
        let [retry, lifetime, stall] = times;
        let built = Hub::builder(timer.clone())
            .limits(Limits::default().clients(clients).per_user(per_user).replay(replay).displace_oldest(true))
            .retain(Retain::default().events(8).per_topic(4).age(lifetime))
            .retry(retry)
            .lifetime(lifetime)
            .stalled_after(stall)
            .heartbeat(Heartbeat::default().every(stall))
            .build();
        let hub = built.unwrap_or_else(|_| Hub::builder(timer.clone()).build().unwrap());
        let mut streams: Vec<Subscription> = Vec::new();
        let mut drains = Vec::new();
        for call in calls {
            match call {
                Call::Publish { audience: kind, name, event_type, data, key } => {
                    let mut event = Event::new(event_type).data(data);
                    if let Some(key) = key {
                        event = event.conflate(key);
                    }
                    let _ = hub.publish(audience(kind, &name), event);
                }
                Call::Subscribe { user, topic, types, last, count } => {
                    let subscriber = Subscriber::new()
                        .user(user)
                        .topic(topic)
                        .event_types(types)
                        .resume(LastEventId::from_bytes(&last))
                        .replay_last(count);
                    streams.extend(hub.subscribe(subscriber));
                }
                Call::Claim { bits } => {
                    let text: String = bits.iter().map(|bit| char::from(b"0123456789abcdef"[usize::from(bit % 16)])).collect();
                    let client: ClientId = text.parse().unwrap();
                    streams.extend(hub.subscribe(Subscriber::new().client_id(client)));
                }
                Call::Read => {
                    for stream in &mut streams {
                        for _ in 0..4 {
                            let _ = stream.next().now_or_never();
                        }
                    }
                }
                Call::Drop => drop(streams.pop()),
                Call::Join { name } => drop(hub.join(Audience::all(), name)),
                Call::Leave { name } => drop(hub.leave(Audience::all(), name)),
                Call::Disconnect { reason, last } => {
                    let Ok(goodbye) = Goodbye::new(reason) else { continue };
                    let goodbye = match last {
                        Some(last) => goodbye.event(Event::new(last)),
                        None => goodbye,
                    };
                    let _ = hub.disconnect(Audience::all(), goodbye);
                }
                Call::First { text } => {
                    if let Some(stream) = streams.pop() {
                        streams.extend(stream.with_snapshot([Event::new("x"), Event::default().data(text)]));
                    }
                }
                Call::Advance { millis } => timer.advance(Duration::from_millis(millis)),
                Call::Drain { millis } => {
                    let mut drain = hub.drain(Duration::from_millis(millis));
                    let _ = (&mut drain).now_or_never();
                    drains.push(drain);
                }
                Call::Close => hub.close(),
            }
        }
        drop(streams);
        prop_assert_eq!((hub.stats().clients, hub.stats().client_names), (0, 0));
    }
}

#[test]
fn b7_extreme_values_do_not_panic() {
    let hub = hub(Retain::default().events(1));
    let far = Instant::now() + Duration::from_secs(u64::from(u32::MAX));
    let mut stream = hub.subscribe(Subscriber::new().until(far).replay_last(usize::MAX)).unwrap();
    read(&mut stream);
    let ids = [
        EventId::new(0, 0),
        EventId::new(0, 1),
        EventId::new(u64::MAX, 0),
        EventId::new(u64::MAX, u64::MAX),
    ];
    for id in ids {
        read(&mut hub.subscribe(Subscriber::new().resume(id)).unwrap());
    }
    let longest = EventType::new("t".repeat(EventType::MAX_LEN)).unwrap();
    assert_eq!(hub.broadcast(Event::new(longest)).unwrap().matched(), 1);
    drop(hub.drain(Duration::MAX));
}
