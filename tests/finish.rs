//! `Hub::finish`: a final end means that the client has everything that was published before.

mod support;

#[path = "support/order.rs"]
mod order;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Audience, DisconnectError, EndReason, Event, EventError, EventId, Goodbye, History, Hub,
    HubBuilder, Limits, ManualTimer, Retain, Subscriber, Subscription,
};

use order::{Instance, Order, late};
use support::{
    SECOND, data, end, event, frames, gaps, has_ended, hub_with, last_id, names, poll, publish,
    read, read_items, wait,
};

fn done() -> Goodbye {
    Goodbye::from_static("done").event(event("last"))
}

/// The data of these events, and of the last event.
fn completed(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let mut names = names(numbers);
    names.push("last".to_owned());
    names
}

/// Whether a text ends with the final end. Nothing else in the text may be final.
fn is_final(text: &str) -> bool {
    let (frames, end) = (frames(text), end(text));
    let finals = frames.iter().filter(|frame| frame.is_final()).count();
    let is_final = frames.last().is_some_and(support::Frame::is_final);
    assert_eq!(finals, usize::from(is_final), "{text}");
    assert_eq!(text.contains("\"final\""), is_final, "{text}");
    assert!(!is_final || end.as_deref() == Some("done"), "{text}");
    is_final
}

/// Every speed: how many items are read before and between the events, windows and batches.
fn speeds() -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let settings = [(1, 1), (1, 64 << 10), (3, 1), (3, 100), (32, 1), (32, 64 << 10)];
    settings.into_iter().flat_map(|(window, batch)| {
        let reads = [(0, 0), (1, 0), (2, 0), (1, 1), (0, 4), (20, 20)];
        reads.into_iter().map(move |(first, later)| (window, batch, first, later))
    })
}

#[test]
fn finish_delivers_everything_at_any_speed() {
    for (window, batch, first, later) in speeds() {
        let (hub, _) = hub_with(|hub| hub.window(window).max_batch_bytes(batch));
        let mut stream = hub.subscribe(Subscriber::new().topic("t")).unwrap();
        let mut text = read_items(&mut stream, first);
        publish(&hub, 1..=5);
        text += &read_items(&mut stream, later);
        publish(&hub, 6..=9);
        assert_eq!(hub.finish(Audience::topic("t"), done()).map(|clients| clients.changed), Ok(1));
        assert_eq!(hub.broadcast(event("late")).unwrap().matched(), 0);
        text += &read_items(&mut stream, later);
        publish(&hub, 10..=50);
        text += &read(&mut stream);
        assert_eq!(data(&text), completed(1..=9), "{window} {batch} {first} {later}");
        assert!(is_final(&text) && gaps(&text).is_empty());
        assert!(has_ended(&mut stream) && has_ended(&mut stream));
        let stats = hub.stats();
        assert_eq!((stats.clients, stats.ended(EndReason::Finished)), (0, 1));
    }
}

#[test]
fn finish_tells_evicted_events_before_the_end() {
    for (window, batch, first, later) in speeds() {
        let retain = Retain::default().events(3);
        let (hub, _) = hub_with(|hub| hub.retain(retain).window(window).max_batch_bytes(batch));
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        let mut text = read_items(&mut stream, first);
        publish(&hub, 1..=5);
        text += &read_items(&mut stream, later);
        publish(&hub, 6..=9);
        assert_eq!(hub.finish(Audience::all(), done()).map(|clients| clients.changed), Ok(1));
        if later == 1 {
            // Everything from before the end is evicted, too.
            publish(&hub, 10..=50);
        }
        text += &read(&mut stream);
        let got = data(&text);
        assert!(is_final(&text) && got.ends_with(&completed([])), "{text}");
        let missed = names(1..=9).into_iter().filter(|name| !got.contains(name)).count();
        assert_eq!(missed > 0, !gaps(&text).is_empty(), "{window} {batch} {first} {later} {text}");
        let published = completed(1..=9);
        assert!(got.iter().all(|name| published.contains(name)), "{text}");
        if later != 1 {
            assert!(got.ends_with(&completed(7..=9)), "{text}");
        }
        assert!(has_ended(&mut stream));
    }
}

#[test]
fn finish_without_a_last_event_sends_only_the_end() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    let woken = wait(&mut stream);
    hub.finish(Audience::all(), Goodbye::from_static("done")).unwrap();
    assert_eq!(woken.count(), 1);
    let text = read(&mut stream);
    assert_eq!(frames(&text).len(), 1);
    assert!(is_final(&text) && has_ended(&mut stream));
}

#[test]
fn first_finish_counts() {
    let (hub, _) = hub_with(|hub| hub.window(1).max_batch_bytes(1));
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    publish(&hub, 1..=3);
    hub.finish(Audience::all(), done()).unwrap();
    publish(&hub, 4..=6);
    let second = Goodbye::from_static("second").event(event("second"));
    hub.finish(Audience::all(), second).unwrap();
    let text = read(&mut stream);
    assert_eq!(data(&text), completed(1..=3));
    assert!(is_final(&text));
}

#[test]
fn finish_reaches_only_its_audience() {
    let (hub, _) = hub_with(|hub| hub);
    let open = |topic: &str| hub.subscribe(Subscriber::new().topic(topic.to_owned())).unwrap();
    let mut streams = [open("a"), open("a"), open("b")];
    assert_eq!(hub.finish(Audience::topic("nobody"), done()).map(|clients| clients.changed), Ok(0));
    assert_eq!(hub.finish(Audience::topic("a"), done()).map(|clients| clients.changed), Ok(2));
    let texts = streams.each_mut().map(read);
    assert_eq!(texts.map(|text| is_final(&text)), [true, true, false]);
    assert!(!has_ended(&mut streams[2]));
}

#[test]
fn invalid_finish_ends_nobody() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    let finish = |last: Event| {
        hub.finish(Audience::all(), Goodbye::from_static("done").event(last)).unwrap_err()
    };
    assert_eq!(finish(Event::default()), DisconnectError::Event(EventError::Empty));
    assert_eq!(finish(event("x").id("own")), DisconnectError::Event(EventError::OwnId));
    let reserved = finish(Event::new("hub:end").data(""));
    assert!(matches!(reserved, DisconnectError::Event(EventError::Type(_))), "{reserved}");
    let audience = hub.finish(Audience::topic(""), done()).unwrap_err();
    assert!(matches!(audience, DisconnectError::Audience(_)), "{audience}");
    assert!(!has_ended(&mut stream));
    publish(&hub, [1]);
    assert_eq!(data(&read(&mut stream)), ["1"]);
}

/// What else ends a stream, or changes how it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Other {
    Drain,
    /// A drain whose period is over before everything was read.
    CutDrain,
    Close,
    Disconnect,
    Lifetime,
    Deadline,
    Stall,
    /// The client comes back with its id.
    Displace,
}

const OTHERS: [Other; 8] = [
    Other::Drain,
    Other::CutDrain,
    Other::Close,
    Other::Disconnect,
    Other::Lifetime,
    Other::Deadline,
    Other::Stall,
    Other::Displace,
];

fn owner() -> Subscriber {
    Subscriber::new().user("u").session("s").topic("t")
}

/// A client of a hub that is set so that `other` happens when [`happen`] is called.
fn open_for(other: Other, window: usize) -> (Hub, ManualTimer, Subscription) {
    let lifetime = (other == Other::Lifetime).then_some(10 * SECOND);
    let stall = (other == Other::Stall).then_some(30 * SECOND);
    let (hub, timer) = hub_with(|hub| {
        let hub = hub.window(window).max_batch_bytes(1).heartbeat(None);
        hub.lifetime(lifetime).stalled_after(stall)
    });
    let who = if other == Other::Deadline { owner().expires_in(10 * SECOND) } else { owner() };
    let stream = hub.subscribe(who).unwrap();
    (hub, timer, stream)
}

fn happen(other: Other, hub: &Hub, timer: &ManualTimer, id: sse_hub::ClientId) {
    match other {
        Other::Drain => {
            drop(hub.drain(10 * SECOND));
            timer.advance(10 * SECOND);
        }
        Other::CutDrain => {
            let mut drain = hub.drain(10 * SECOND);
            assert!((&mut drain).now_or_never().is_none());
            timer.advance(10 * SECOND);
            assert!((&mut drain).now_or_never().is_some());
        }
        Other::Close => hub.close(),
        Other::Disconnect => {
            hub.disconnect(Audience::topic("t"), Goodbye::from_static("out")).unwrap();
        }
        Other::Lifetime | Other::Deadline => timer.advance(10 * SECOND),
        Other::Stall => {
            timer.advance(30 * SECOND);
            // An operation that notices.
            drop(hub.subscribe(Subscriber::new()).unwrap());
        }
        Other::Displace => drop(hub.subscribe(owner().client_id(id)).unwrap()),
    }
}

/// A client that was not told that its stream is complete must come back and get the rest.
fn assert_complete(hub: &Hub, other: Other, text: &str, published: usize) {
    let got = data(text);
    assert!(gaps(text).is_empty(), "{text}");
    if is_final(text) {
        assert_eq!(got, completed(1..=published), "{other:?}: a final end is complete");
        return;
    }
    assert_eq!(got, names(1..=got.len()), "{other:?}");
    if let Ok(mut again) = hub.subscribe(owner().resume(last_id(text))) {
        let rest = read(&mut again);
        assert!(again.is_resumed() && gaps(&rest).is_empty(), "{other:?}");
        assert_eq!(data(&rest), names(got.len() + 1..=published), "{other:?} {text} {rest}");
    }
}

#[test]
fn finish_and_then_another_end() {
    for other in OTHERS {
        for (window, items) in [(1, 1), (1, 3), (32, 1), (32, 3), (32, 0)] {
            let (hub, timer, mut stream) = open_for(other, window);
            let id = stream.client_id();
            let mut text = read_items(&mut stream, items);
            publish(&hub, 1..=5);
            text += &read_items(&mut stream, usize::from(items == 3));
            assert_eq!(
                hub.finish(Audience::topic("t"), done()).map(|clients| clients.changed),
                Ok(1)
            );
            text += &read_items(&mut stream, usize::from(items == 3));
            happen(other, &hub, &timer, id);
            text += &read(&mut stream);
            assert!(has_ended(&mut stream), "{other:?}");
            let is_behind = window == 1;
            let is_final = is_final(&text);
            match other {
                Other::Drain | Other::Close | Other::Lifetime => assert!(is_final, "{text}"),
                Other::Disconnect => assert_eq!(end(&text).as_deref(), Some("out")),
                Other::Deadline => assert_eq!(end(&text).as_deref(), Some("expired")),
                Other::Stall => assert_eq!(end(&text), None),
                // A client that is forgotten reads its window, and no log.
                Other::Displace | Other::CutDrain => assert_eq!(is_final, !is_behind, "{text}"),
            }
            assert_complete(&hub, other, &text, 5);
            assert_eq!(hub.stats().clients, 0);
        }
    }
}

#[test]
fn another_end_and_then_finish() {
    for other in OTHERS {
        for (window, items) in [(1, 1), (1, 3), (32, 1), (32, 3)] {
            let (hub, timer, mut stream) = open_for(other, window);
            let id = stream.client_id();
            let mut text = read_items(&mut stream, items);
            publish(&hub, 1..=5);
            happen(other, &hub, &timer, id);
            // An item, at which the stream notices ends by time.
            text += &read_items(&mut stream, 1);
            let mut published = 5;
            if other != Other::Close {
                publish(&hub, [6]);
                published = 6;
            }
            let finished = hub.finish(Audience::topic("t"), done()).unwrap();
            let is_here =
                matches!(other, Other::Drain | Other::Close | Other::Lifetime | Other::Deadline);
            assert_eq!(finished.matched, usize::from(is_here), "{other:?}");
            text += &read(&mut stream);
            assert!(has_ended(&mut stream), "{other:?}");
            assert!(!is_final(&text), "the client must come back for event 6: {text}");
            assert_complete(&hub, other, &text, published);
        }
    }
}

#[test]
fn finished_client_that_lagged_is_told_and_finished() {
    for is_on in [false, true] {
        let (hub, _) =
            hub_with(|hub| hub.retain(Retain::default().events(3)).window(1).end_lagging(is_on));
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        read(&mut stream);
        publish(&hub, 1..=9);
        hub.finish(Audience::all(), done()).unwrap();
        let text = read(&mut stream);
        assert_eq!(gaps(&text), ["evicted"], "{text}");
        assert_eq!(data(&text), completed(7..=9));
        assert!(is_final(&text) && has_ended(&mut stream));
    }
}

#[test]
fn losses_after_the_end_are_for_the_return() {
    // A topic with a limit of its own loses events while older ones are retained.
    let retain = Retain::default().events(100).per_topic(1);
    for (batch, reads) in [(1, 2), (1, 1), (64 << 10, 1)] {
        let (hub, timer) =
            hub_with(|hub| hub.retain(retain).window(1).max_batch_bytes(batch).heartbeat(None));
        let mut stream = hub.subscribe(owner()).unwrap();
        read(&mut stream);
        publish(&hub, 1..=2);
        drop(hub.drain(SECOND));
        timer.advance(SECOND);
        let mut text = read_items(&mut stream, reads);
        publish(&hub, [3]);
        for number in [4, 5] {
            hub.publish(Audience::topic("t"), event(number)).unwrap();
        }
        text += &read(&mut stream);
        assert_eq!(data(&text), names(1..=2), "{text}");
        // The hub knows the newest loss only: a client that had not read up to its end is told.
        assert_eq!(gaps(&text).len(), usize::from(batch == 1 && reads == 1), "{text}");
        assert_eq!(end(&text).as_deref(), Some("drained"));
        assert_eq!(last_id(&text).seq(), 2, "{text}");
    }
}

#[test]
fn loss_before_and_after_the_end_is_told_once() {
    let retain = Retain::default().events(100).per_topic(1);
    let (hub, _) = hub_with(|hub| hub.retain(retain).window(1).max_batch_bytes(1));
    let mut stream = hub.subscribe(owner()).unwrap();
    read(&mut stream);
    for number in [1, 2] {
        hub.publish(Audience::topic("t"), event(number)).unwrap();
    }
    hub.finish(Audience::topic("t"), done()).unwrap();
    publish(&hub, [3]);
    for number in [4, 5] {
        hub.publish(Audience::topic("t"), event(number)).unwrap();
    }
    let text = read(&mut stream);
    assert_eq!(gaps(&text), ["evicted"], "{text}");
    assert_eq!(data(&text), completed([]), "{text}");
    assert_eq!(last_id(&text).seq(), 2, "a gap does not go beyond the end: {text}");
    assert!(is_final(&text));
}

/// Sends what the hub has to send, and reads the order. Reads no older events.
fn exchange(hub: &mut Instance, order: &mut Order) {
    hub.flush(order);
    hub.read(order, usize::MAX);
}

#[test]
fn held_client_reads_the_history_before_the_end() {
    for batch in [1, 64 << 10] {
        for pieces in [1, 3, 20] {
            let (mut order, mut hub) = late(9, |hub| hub.max_batch_bytes(batch));
            let mut stream = hub.subscribe(order.entries[0].id);
            let mut text = read(&mut stream);
            hub.broadcast("10");
            exchange(&mut hub, &mut order);
            assert_eq!(
                hub.hub.finish(Audience::all(), done()).map(|clients| clients.changed),
                Ok(1)
            );
            assert_eq!(
                hub.hub.finish(Audience::topic("nobody"), done()).map(|clients| clients.changed),
                Ok(0)
            );
            hub.broadcast("late");
            exchange(&mut hub, &mut order);
            let woken = wait(&mut stream);
            while hub.look_back(&order, pieces) {
                hub.bring();
            }
            assert!(woken.count() > 0);
            text += &read(&mut stream);
            assert_eq!(data(&text), completed(2..=10), "{batch} {pieces} {text}");
            assert!(is_final(&text) && gaps(&text).is_empty() && has_ended(&mut stream));
        }
    }
}

#[test]
fn held_client_is_told_a_gap_before_the_end() {
    let wait_for = |by| move |hub: HubBuilder| hub.history(History::default().max_wait(by));
    // The order lost the older events.
    let (mut order, mut hub) = late(9, wait_for(SECOND));
    let position = order.entries[0].id;
    order.trim(4);
    let mut stream = hub.subscribe(position);
    let mut text = read(&mut stream);
    hub.hub.finish(Audience::all(), done()).unwrap();
    exchange(&mut hub, &mut order);
    hub.look_back_for_all(&order);
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (completed(5..=9), vec!["evicted".to_owned()]));
    assert!(is_final(&text) && has_ended(&mut stream));

    // The backplane did not answer in time.
    let (mut order, mut hub) = late(9, wait_for(SECOND));
    let mut stream = hub.subscribe(order.entries[0].id);
    let mut text = read(&mut stream);
    wait(&mut stream);
    hub.hub.finish(Audience::all(), done()).unwrap();
    exchange(&mut hub, &mut order);
    text += &read(&mut stream);
    assert!(!has_ended(&mut stream));
    hub.timer.advance(SECOND);
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (completed(8..=9), vec!["evicted".to_owned()]));
    assert!(is_final(&text) && has_ended(&mut stream));

    // The order was replaced.
    let (mut order, mut hub) = late(9, wait_for(SECOND));
    let mut stream = hub.subscribe(order.entries[0].id);
    let mut text = read(&mut stream);
    hub.hub.finish(Audience::all(), done()).unwrap();
    exchange(&mut hub, &mut order);
    hub.begin_anew(EventId::new(order.clock + 1, 0));
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (completed([]), vec!["reset".to_owned()]));
    assert!(is_final(&text) && has_ended(&mut stream));
}

#[test]
fn held_client_that_is_forgotten_ends_at_once() {
    let (mut order, mut hub) = late(9, |hub| hub.heartbeat(None));
    let mut stream = hub.subscribe(order.entries[0].id);
    let mut text = read(&mut stream);
    hub.hub.finish(Audience::all(), done()).unwrap();
    exchange(&mut hub, &mut order);
    let mut drain = hub.hub.drain(SECOND);
    assert!((&mut drain).now_or_never().is_none());
    let woken = wait(&mut stream);
    hub.timer.advance(SECOND);
    assert!((&mut drain).now_or_never().is_some());
    assert!(woken.count() > 0);
    text += &read(&mut stream);
    assert!(has_ended(&mut stream), "the stream waits for nobody");
    assert!(!is_final(&text), "the client comes back for the rest: {text}");
    assert_eq!(last_id(&text), order.entries[0].id);
}

#[test]
fn finish_has_one_place_in_the_order() {
    let mut order = Order::default();
    let mut hubs = [Instance::new(Retain::default()), Instance::new(Retain::default())];
    let batched = |hub: HubBuilder| hub.retain(Retain::default()).window(1).max_batch_bytes(1);
    let mut third = Instance::with(batched);
    hubs.iter_mut().for_each(|hub| hub.settle(&mut order));
    third.settle(&mut order);
    let mut streams: Vec<_> =
        hubs.iter().chain([&third]).map(|hub| hub.hub.subscribe(owner()).unwrap()).collect();
    let [first, second] = &mut hubs;
    second.broadcast("1");
    assert_eq!(
        first.hub.finish(Audience::topic("t"), done()).map(|clients| clients.changed),
        Ok(1)
    );
    first.broadcast("3");
    second.broadcast("2");
    // The finish of the first comes between the events of the second.
    second.flush(&mut order);
    first.flush(&mut order);
    third.broadcast("4");
    third.flush(&mut order);
    for hub in hubs.iter_mut().chain([&mut third]) {
        // Entry by entry, and then the rest.
        hub.read(&mut order, 1);
        hub.read(&mut order, 1);
        hub.read(&mut order, usize::MAX);
    }
    for stream in &mut streams {
        let text = read(stream);
        assert_eq!(data(&text), completed(1..=2));
        assert!(is_final(&text) && has_ended(stream));
    }
    // The position lies before the finish: a client that comes now is not finished.
    let mut again = hubs[0].subscribe(order.entries[1].id);
    let text = read(&mut again);
    assert_eq!(data(&text), names(3..=4));
    assert!(!is_final(&text) && !has_ended(&mut again));
}

#[test]
fn finish_passes_clients_that_have_read_past_it() {
    let mut order = Order::default();
    let [mut fast, mut slow] = [(); 2].map(|()| Instance::new(Retain::default()));
    fast.settle(&mut order);
    slow.settle(&mut order);
    fast.broadcast("1");
    assert_eq!(fast.hub.finish(Audience::topic("t"), done()).map(|clients| clients.changed), Ok(0));
    fast.broadcast("2");
    fast.settle(&mut order);
    fast.broadcast("3");
    let mut stream = fast.hub.subscribe(owner()).unwrap();
    fast.settle(&mut order);
    let position = last_id(&read(&mut stream));
    drop(stream);
    // The slow instance has read nothing of that: the client came after the finish.
    let mut stream = slow.hub.subscribe(owner().resume(position)).unwrap();
    let mut behind = slow.hub.subscribe(owner()).unwrap();
    // A position that no instance has ever been at.
    let astray = EventId::new(position.epoch() + 1000, 0);
    let mut astray = slow.hub.subscribe(owner().resume(astray)).unwrap();
    fast.broadcast("4");
    fast.settle(&mut order);
    slow.settle(&mut order);
    let texts = [&mut stream, &mut behind, &mut astray].map(read);
    assert_eq!((data(&texts[0]), is_final(&texts[0])), (names([4]), false), "{}", texts[0]);
    assert_eq!((data(&texts[1]), is_final(&texts[1])), (completed([1]), true), "{}", texts[1]);
    assert_eq!((gaps(&texts[2]), is_final(&texts[2])), (vec!["unknown".to_owned()], false));
    assert_eq!(slow.hub.finish(Audience::topic("t"), done()).map(|clients| clients.changed), Ok(2));
    slow.settle(&mut order);
    assert!(is_final(&read(&mut stream)) && is_final(&read(&mut astray)), "this one is later");
}

/// More clients than one hold of the state lock ends.
const CROWD: usize = 600;

#[test]
fn crowd_ends_at_one_place_among_events() {
    let retain = Retain::default().events(1 << 20).bytes(usize::MAX).age(None);
    let (hub, _) = hub_with(|hub| hub.retain(retain));
    for _ in 0..4 {
        let connect = |_| hub.subscribe(Subscriber::new()).unwrap();
        let mut streams: Vec<_> = (0..CROWD).map(connect).collect();
        let (start, is_over) = (Barrier::new(2), AtomicBool::new(false));
        let ended = thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                while !is_over.load(Ordering::Relaxed) {
                    hub.broadcast(event("x")).unwrap();
                }
            });
            start.wait();
            let ended = hub.finish(Audience::all(), Goodbye::from_static("done")).unwrap();
            is_over.store(true, Ordering::Relaxed);
            ended
        });
        assert_eq!((ended.matched, ended.changed), (CROWD, CROWD));
        let lasts = streams.iter_mut().map(|stream| {
            let text = read(stream);
            assert!(is_final(&text));
            last_id(&text)
        });
        let lasts: BTreeSet<_> = lasts.collect();
        assert_eq!(lasts.len(), 1, "the streams end at different events: {lasts:?}");
    }
}

#[test]
fn client_of_a_crowd_with_two_names_counts_once() {
    let (hub, _) = hub_with(|hub| hub);
    let topics = [["a", "a"], ["b", "b"], ["a", "b"]];
    let connect = |at: usize| hub.subscribe(Subscriber::new().topics(topics[at % 3])).unwrap();
    let mut streams: Vec<_> = (0..CROWD).map(connect).collect();
    let other = hub.subscribe(Subscriber::new().topic("c")).unwrap();
    let crowd = || Audience::topic("a").or(Audience::topic("b"));
    let ids: Vec<_> = streams.iter().map(Subscription::client_id).collect();
    let listed: Vec<_> = hub.clients(crowd()).iter().map(|info| info.client_id).collect();
    assert_eq!(listed, ids);
    let first = hub.finish(Audience::topic("a"), done()).unwrap();
    assert_eq!((first.matched, first.changed), (400, 400));
    let rest = hub.finish(crowd(), done()).unwrap();
    assert_eq!((rest.matched, rest.changed), (CROWD, 200));
    assert!(streams.iter_mut().all(|stream| is_final(&read(stream))));

    let streams: Vec<_> = (0..CROWD).map(connect).collect();
    let ended = hub.disconnect(crowd(), Goodbye::from_static("logout")).unwrap();
    assert_eq!((ended.matched, ended.changed), (CROWD, CROWD));
    assert_eq!((hub.stats().clients, hub.count(crowd())), (1, 0), "forgotten at once");
    drop((streams, other));
}

#[test]
fn sixty_slow_answers_get_their_last_token() {
    const ANSWERS: usize = 60;
    const TOKENS: usize = 200;
    let retain = Retain::default().events(ANSWERS * TOKENS);
    let (hub, _) = hub_with(|hub| hub.retain(retain).window(4).max_batch_bytes(200));
    let topic = |answer: usize| Audience::topic(format!("answer-{answer}"));
    let who = |answer: usize| Subscriber::new().topic(format!("answer-{answer}"));
    let mut streams: Vec<_> = (0..ANSWERS).map(|of| hub.subscribe(who(of)).unwrap()).collect();
    let mut texts = vec![String::new(); ANSWERS];
    for token in 1..=TOKENS {
        for answer in 0..ANSWERS {
            hub.publish(topic(answer), event(token)).unwrap();
            // The answers end one after the other, and the readers differ in pace.
            if token % (answer + 1) == 0 {
                texts[answer] += &read_items(&mut streams[answer], 1);
            }
            if token == TOKENS {
                assert_eq!(
                    hub.finish(topic(answer), Goodbye::from_static("done"))
                        .map(|clients| clients.changed),
                    Ok(1)
                );
            }
        }
    }
    for (stream, text) in streams.iter_mut().zip(&mut texts) {
        *text += &read(stream);
        assert_eq!(data(text), names(1..=TOKENS));
        assert!(is_final(text) && gaps(text).is_empty() && has_ended(stream));
    }
    assert_eq!(hub.stats().ended(EndReason::Finished), ANSWERS as u64);
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Publish {
        is_for_topic: bool,
    },
    Read,
    Finish,
    Disconnect,
    Drain,
    Advance,
    /// The client loses its connection and comes back.
    Return {
        keeps_id: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => any::<bool>().prop_map(|is_for_topic| Op::Publish { is_for_topic }),
        8 => Just(Op::Read),
        3 => Just(Op::Finish),
        1 => Just(Op::Disconnect),
        1 => Just(Op::Drain),
        2 => Just(Op::Advance),
        2 => any::<bool>().prop_map(|keeps_id| Op::Return { keeps_id }),
    ]
}

/// A client. Each event carries a number.
struct Model {
    hub: Hub,
    timer: ManualTimer,
    stream: Option<Subscription>,
    published: usize,
    /// How many events had been published at the first finish of the open stream.
    finished: Option<usize>,
    /// The newest event that the client has, or was told that it missed.
    reached: usize,
    /// The newest event when a gap was told last: a gap stands for every loss up to here.
    told: usize,
    position: Option<EventId>,
    is_complete: bool,
}

impl Model {
    fn run(&mut self, op: Op) {
        match op {
            Op::Publish { is_for_topic } => {
                let to = if is_for_topic { Audience::topic("t") } else { Audience::all() };
                self.published += 1;
                self.hub.publish(to, event(self.published)).unwrap();
            }
            Op::Read => {
                self.read();
            }
            Op::Finish => {
                let ended = self.hub.finish(Audience::topic("t"), done()).unwrap();
                if ended.matched > 0 {
                    self.finished.get_or_insert(self.published);
                }
            }
            Op::Disconnect => {
                let out = Goodbye::from_static("out");
                self.hub.disconnect(Audience::topic("t"), out).unwrap();
            }
            Op::Drain => drop(self.hub.drain(20 * SECOND)),
            Op::Advance => self.timer.advance(7 * SECOND),
            Op::Return { keeps_id } => self.come_back(keeps_id),
        }
    }

    fn come_back(&mut self, keeps_id: bool) {
        let mut who = owner();
        if let Some(position) = self.position {
            who = who.resume(position);
        }
        let old = self.stream.take();
        if let Some(old) = old.as_ref().filter(|_| keeps_id) {
            who = who.client_id(old.client_id());
        }
        // The old connection is found to be dead only after the client came back.
        self.stream = self.hub.subscribe(who).ok();
        drop(old);
        self.finished = None;
        self.told = 0;
        if self.position.is_none() {
            self.reached = self.published;
        }
    }

    /// Reads an item. Returns whether there was any.
    fn read(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let Some(item) = poll(stream) else { return false };
        let Some(item) = item else {
            self.stream = None;
            return false;
        };
        let text = std::str::from_utf8(&item).unwrap();
        for frame in frames(text) {
            match frame.event.as_str() {
                "hub:open" => {}
                "hub:gap" => {
                    assert!(frame.id >= self.position, "a gap does not go back: {text}");
                    self.reached = frame.id.unwrap().seq() as usize;
                    self.told = self.published;
                }
                "hub:end" if frame.is_final() => {
                    let finished = self.finished.expect("a finish before a final end");
                    assert!(self.reached <= finished, "no more than that: {text}");
                    let reached = self.reached.max(self.told);
                    assert!(reached >= finished, "everything before the finish: {text}");
                    assert!(text.contains("data: last\n"), "{text}");
                    self.is_complete = true;
                }
                "hub:end" => assert!(!text.contains("data: last\n"), "{text}"),
                _ if frame.data == "last" => assert_eq!(frame.id, None),
                _ => {
                    let number: usize = frame.data.parse().unwrap();
                    assert!(number > self.reached, "in order");
                    let has_hole = number - 1 > self.reached.max(self.told);
                    assert!(!has_hole, "every hole is told: {text}");
                    assert!(self.finished.is_none_or(|finished| number <= finished), "{text}");
                    self.reached = number;
                }
            }
            self.position = frame.id.or(self.position);
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn final_end_is_complete(
        retain in 1..12usize,
        per_topic in prop::option::of(1..4usize),
        window in 1..5usize,
        batch in prop_oneof![Just(1), 1..200usize],
        end_lagging in any::<bool>(),
        is_timed in any::<bool>(),
        replay in prop::option::of(1..5usize),
        ops in vec(op(), 1..60),
    ) {
        let timer = ManualTimer::new();
        let mut retain = Retain::default().events(retain);
        if let Some(limit) = per_topic {
            retain = retain.per_topic(limit).events(12);
        }
        let limits = replay.map_or_else(Limits::default, |events| Limits::default().replay(events));
        let hub = Hub::builder(timer.clone())
            .heartbeat(None)
            .retain(retain)
            .window(window)
            .max_batch_bytes(batch)
            .end_lagging(end_lagging)
            .limits(limits)
            .lifetime(is_timed.then_some(Duration::from_secs(30)))
            .stalled_after(is_timed.then_some(Duration::from_secs(20)))
            .build()
            .unwrap();
        let stream = Some(hub.subscribe(owner()).unwrap());
        let mut model = Model {
            hub, timer, stream, published: 0, finished: None, reached: 0, told: 0, position: None,
            is_complete: false,
        };
        for op in ops {
            if model.is_complete {
                break;
            }
            model.run(op);
        }
        while model.read() {}
        if model.finished.is_some() && model.stream.is_none() {
            // Ended, by the finish or by an end that makes the client come back.
            prop_assert_eq!(model.hub.stats().clients, 0);
        }
        if model.stream.is_some() {
            let reached = model.reached.max(model.told);
            prop_assert!(reached >= model.published, "an open stream has everything");
            prop_assert!(model.finished.is_none(), "a finished stream ends");
        }
    }
}
