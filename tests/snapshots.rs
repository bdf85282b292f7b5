//! Snapshots: a stream begins with the state, and goes on with its changes only.

mod support;

#[path = "support/order.rs"]
mod order;

use sse_hub::backplane::Loaded;
use sse_hub::{
    Audience, Event, EventError, EventId, Goodbye, Hub, LastEventId, Limits, Retain, Subscriber,
    Subscription,
};

use order::{Instance, Order};
use support::{Frame, data, event, frames, gaps, has_ended, hub_with, poll, read};

const ORIGIN: EventId = EventId::new(0, 0);

fn publish(hub: &Hub, numbers: impl IntoIterator<Item = usize>) -> Vec<EventId> {
    let publish = |number| hub.publish_confirmed(Audience::all(), event(number)).unwrap();
    numbers.into_iter().map(|number| publish(number).id().unwrap()).collect()
}

/// A snapshot in this many parts.
fn snapshot(parts: usize) -> Vec<Event> {
    (1..=parts).map(|part| Event::new("snapshot").data(part.to_string())).collect()
}

/// The client's head when it subscribed, and what it missed.
struct Expected {
    head: EventId,
    gap: Option<&'static str>,
    parts: usize,
}

/// Asserts the order of a stream's first frames, and returns the data of the events after them.
fn after_the_opening(text: &str, expected: &Expected) -> Vec<String> {
    let mut frames = frames(text).into_iter();
    let open = frames.next().unwrap();
    assert_eq!((open.event.as_str(), open.id), ("hub:open", Some(ORIGIN)), "{text}");
    assert!(open.data.contains("\"resumed\":false"), "{text}");
    if let Some(reason) = expected.gap {
        let gap = frames.next().unwrap();
        assert_eq!((gap.event.as_str(), gap.reason()), ("hub:gap", Some(reason)), "{text}");
        assert_eq!(gap.id, Some(ORIGIN), "a client that is cut off here returns to a gap");
        assert!(gap.is_healed(), "{text}");
    }
    for part in 1..=expected.parts {
        let frame = frames.next().unwrap();
        assert_eq!((frame.event.as_str(), frame.data), ("snapshot", part.to_string()), "{text}");
        let is_last = part == expected.parts;
        assert_eq!(frame.id, is_last.then_some(expected.head), "only the last frame moves on");
    }
    let after = |frame: Frame| {
        assert!(!frame.is_of_hub(), "one gap, before the snapshot: {text}");
        assert!(frame.id > Some(expected.head), "published after subscribing: {text}");
        frame.data
    };
    frames.map(after).collect()
}

/// Cuts the client off after each frame of the opening, and lets it come back.
fn assert_cuts(hub: &Hub, text: &str, expected: &Expected, later: &[String]) {
    let opening = frames(text);
    let frames_of_it = 1 + usize::from(expected.gap.is_some()) + expected.parts;
    for received in 1..=frames_of_it {
        let position = opening[..received].iter().rev().find_map(|frame| frame.id).unwrap();
        let mut again = hub.subscribe(Subscriber::new().resume(position)).unwrap();
        let is_whole = received == frames_of_it;
        assert_eq!(again.is_resumed(), is_whole, "cut after frame {received} of {text}");
        let rest = read(&mut again);
        assert_eq!(gaps(&rest).is_empty(), is_whole, "{rest}");
        if is_whole {
            assert_eq!(data(&rest), later);
        }
    }
}

#[test]
fn snapshot_replaces_every_older_event() {
    let many = || Retain::default().events(10);
    let all = || Retain::default();
    let none = Limits::default();
    let two = Limits::default().replay(2);
    let first = |ids: &[EventId]| Subscriber::new().resume(ids[0]);
    let recent = |ids: &[EventId]| Subscriber::new().resume(ids[28]);
    let newest = |ids: &[EventId]| Subscriber::new().resume(ids[30]);
    let old = |_: &[EventId]| Subscriber::new().resume(EventId::new(7, 7));
    let garbage = |_: &[EventId]| Subscriber::new().resume("garbage");
    let fresh = |_: &[EventId]| Subscriber::new();
    type Who<'a> = &'a dyn Fn(&[EventId]) -> Subscriber;
    let cases: [(Retain, Limits, Who<'_>, Option<&'static str>); 10] = [
        (many(), none, &first, Some("evicted")),
        (many(), two, &first, Some("capped")),
        (all(), two, &first, Some("capped")),
        (all(), none, &first, None),
        (many(), none, &recent, None),
        (many(), two, &recent, None),
        (many(), none, &newest, None),
        (all(), none, &old, Some("evicted")),
        (many(), none, &garbage, Some("unknown")),
        (many(), none, &fresh, None),
    ];
    for (case, (retain, limits, who, gap)) in cases.into_iter().enumerate() {
        for (window, batch) in [(1, 1), (32, 64 << 10)] {
            for parts in [1, 3] {
                for (between, after) in [(0, 1), (2, 0), (1, 1)] {
                    let (hub, _) = hub_with(|hub| {
                        hub.retain(retain).limits(limits).window(window).max_batch_bytes(batch)
                    });
                    let ids = publish(&hub, 0..=30);
                    let stream = hub.subscribe(who(&ids)).unwrap();
                    publish(&hub, 31..31 + between);
                    let mut stream = stream.with_snapshot(snapshot(parts)).unwrap();
                    publish(&hub, 31 + between..31 + between + after);
                    let text = read(&mut stream);
                    let expected = Expected { head: ids[30], gap, parts };
                    let later = after_the_opening(&text, &expected);
                    let numbers = (31..31 + between + after).map(|number| number.to_string());
                    assert_eq!(later, numbers.collect::<Vec<_>>(), "case {case}: {text}");
                    assert_cuts(&hub, &text, &expected, &later);
                    publish(&hub, [99]);
                    assert_eq!(data(&read(&mut stream)), ["99"], "live again: {case}");
                }
            }
        }
    }
}

#[test]
fn losses_after_subscribing_are_told_after_the_snapshot() {
    for (window, batch) in [(1, 1), (32, 64 << 10)] {
        let (hub, _) = hub_with(|hub| {
            hub.retain(Retain::default().events(3)).window(window).max_batch_bytes(batch)
        });
        let ids = publish(&hub, 1..=9);
        let stream = hub.subscribe(Subscriber::new().resume(ids[7])).unwrap();
        assert!(stream.is_resumed());
        let later = publish(&hub, 10..=15);
        let mut stream = stream.with_snapshot(snapshot(2)).unwrap();
        let text = read(&mut stream);
        let told: Vec<_> = frames(&text).into_iter().map(|frame| (frame.event, frame.id)).collect();
        let snapshot = "snapshot".to_owned();
        assert_eq!(told[1..3], [(snapshot.clone(), None), (snapshot, Some(ids[8]))], "{text}");
        assert_eq!(told[3], ("hub:gap".to_owned(), Some(later[2])), "{text}");
        assert!(!frames(&text)[3].is_healed(), "the snapshot does not have events 10 to 12");
        assert_eq!(data(&text)[2..], ["13", "14", "15"]);
    }
}

#[test]
fn only_a_gap_before_a_snapshot_is_healed() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(3)));
    let ids = publish(&hub, 0..=30);
    let positions = [LastEventId::from(ids[0]), "garbage".into(), EventId::new(7, 7).into()];
    for last in positions {
        let healed = |parts| {
            let stream = hub.subscribe(Subscriber::new().resume(last)).unwrap();
            let text = read(&mut stream.with_snapshot(snapshot(parts)).unwrap());
            let gap = frames(&text).into_iter().find(|frame| frame.event == "hub:gap").unwrap();
            (gap.is_healed(), gap.data)
        };
        let (is_healed, plain) = healed(0);
        assert!(!is_healed && !plain.contains("healed"), "{plain}");
        let (is_healed, data) = healed(1);
        assert!(is_healed, "{data}");
        assert_eq!(data.replace(",\"healed\":true", ""), plain);
    }
}

#[test]
fn replay_and_snapshot_exclude_each_other() {
    let (hub, _) = hub_with(|hub| hub);
    let ids = publish(&hub, 0..3);
    let who = || Subscriber::new().replay_last(2);
    // The mistake shows on the first request, and on each later.
    for subscriber in [who(), who().resume(ids[0]), who().resume("garbage")] {
        let stream = hub.subscribe(subscriber).unwrap();
        let error = stream.with_snapshot(snapshot(1)).map(drop).unwrap_err();
        assert_eq!(error, EventError::Replay);
    }
    assert_eq!(hub.stats().clients, 0, "a refused stream leaves nothing behind");
    let stream = hub.subscribe(who()).unwrap().with_snapshot([]);
    assert_eq!(data(&read(&mut stream.unwrap())), ["1", "2"], "no snapshot, and no error");
    let stream = hub.subscribe(who().replay_last(0)).unwrap();
    assert_eq!(data(&read(&mut stream.with_snapshot(snapshot(1)).unwrap())), ["1"]);
}

#[test]
fn position_is_that_of_the_last_frame() {
    for (window, batch) in [(1, 1), (32, 1), (32, 64 << 10)] {
        let (hub, _) = hub_with(|hub| {
            hub.retain(Retain::default().events(10)).window(window).max_batch_bytes(batch)
        });
        let ids = publish(&hub, 0..=30);
        let who = Subscriber::new();
        let streams = [
            (hub.subscribe(who.clone()).unwrap(), ids[30]),
            (hub.subscribe(who.clone().resume(ids[25])).unwrap(), ids[25]),
            (hub.subscribe(who.clone().replay_last(2)).unwrap(), ids[28]),
            (hub.subscribe(who.clone().resume("garbage")).unwrap(), ids[30]),
            (
                hub.subscribe(who.resume(ids[25])).unwrap().with_snapshot(snapshot(2)).unwrap(),
                ids[30],
            ),
        ];
        for (mut stream, start) in streams {
            assert_eq!(stream.position(), start);
            publish(&hub, [31]);
            assert_eq!(stream.position(), hub.position().predecessor().min(start));
            let opening = poll(&mut stream).unwrap().unwrap();
            assert!(opening.starts_with(b"event: hub:open\n"));
            // From here, the position is the id that a page would send back.
            while let Some(Some(item)) = poll(&mut stream) {
                let text = String::from_utf8(item.to_vec()).unwrap();
                let id = frames(&text).iter().rev().find_map(|frame| frame.id);
                assert_eq!(id, Some(stream.position()), "{text}");
            }
            assert_eq!(stream.position(), hub.position());
            // An event for others does not move the position, until an event follows.
            hub.send_to_user("other", event("other")).unwrap();
            assert_eq!(stream.position(), hub.position().predecessor());
        }
    }
}

#[test]
fn snapshot_in_parts_is_one_snapshot() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(10)));
    let ids = publish(&hub, 0..=30);
    let mut stream = hub.subscribe(Subscriber::new().resume(ids[0])).unwrap();
    for part in snapshot(3) {
        publish(&hub, [31]);
        stream = stream.with_snapshot([part]).unwrap().with_snapshot([]).unwrap();
    }
    let text = read(&mut stream);
    let expected = Expected { head: ids[30], gap: Some("evicted"), parts: 3 };
    assert_eq!(after_the_opening(&text, &expected), ["31"; 3]);
}

#[test]
fn empty_snapshot_changes_nothing() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(10)));
    let ids = publish(&hub, 0..=30);
    for from in [0, 25] {
        let who = || hub.subscribe(Subscriber::new().resume(ids[from])).unwrap();
        let mut streams = [who(), who().with_snapshot([]).unwrap()];
        let texts = streams.each_mut().map(read);
        let [mut without, mut with_empty] = texts.each_ref().map(|text| frames(text));
        let is_resumed = |open: Frame| (open.id, open.data.contains("\"resumed\":true"));
        assert_eq!(is_resumed(without.remove(0)), is_resumed(with_empty.remove(0)));
        assert_eq!(without, with_empty);
        assert_eq!(data(&texts[1]).len(), if from == 0 { 10 } else { 5 });
    }
}

#[test]
fn finished_stream_sends_its_snapshot_first() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(10)));
    let ids = publish(&hub, 0..=30);
    for from in [0, 25] {
        let stream = hub.subscribe(Subscriber::new().topic("t").resume(ids[from])).unwrap();
        let head = publish(&hub, [31])[0].predecessor();
        hub.finish(Audience::topic("t"), Goodbye::from_static("done")).unwrap();
        publish(&hub, [32]);
        let mut stream = stream.with_snapshot(snapshot(2)).unwrap();
        let text = read(&mut stream);
        assert_eq!(data(&text), ["1", "2", "31"], "{text}");
        assert!(frames(&text)[3 - usize::from(from > 0)].id == Some(head), "{text}");
        assert!(frames(&text).pop().unwrap().is_final() && has_ended(&mut stream));
    }
}

#[test]
fn snapshot_after_the_first_poll_is_late() {
    let (hub, _) = hub_with(|hub| hub);
    for parts in [0, 1] {
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        poll(&mut stream).unwrap();
        assert_eq!(stream.with_snapshot(snapshot(parts)).unwrap_err(), EventError::Late);
        assert_eq!(hub.stats().clients, 0);
    }
}

fn loaded(count: usize) -> (Order, Instance) {
    let mut order = Order::default();
    let mut hub = Instance::with(|hub| hub.retain(Retain::default().events(4)));
    hub.settle(&mut order);
    for number in 1..=count {
        hub.broadcast(&number.to_string());
        hub.settle(&mut order);
    }
    (order, hub)
}

fn late_hub() -> Instance {
    Instance::with(|hub| hub.retain(Retain::default().events(4)))
}

#[test]
fn snapshot_with_a_backplane_asks_for_no_history() {
    let (mut order, mut hub) = loaded(9);
    let first = order.entries[0].id;
    let stream = hub.subscribe(first);
    assert!(stream.is_resumed(), "the backplane may bring the older events");
    let mut stream = stream.with_snapshot(snapshot(2)).unwrap();
    hub.broadcast("10");
    hub.settle(&mut order);
    let text = read(&mut stream);
    let expected = Expected { head: order.entries[8].id, gap: Some("evicted"), parts: 2 };
    assert_eq!(after_the_opening(&text, &expected), ["10"]);
    assert!(hub.feed.history_request().is_none());
    assert!(!has_ended(&mut stream));
}

/// Nobody knows yet where the order ends: every loss and every event must be told.
#[test]
fn snapshot_before_the_first_load_loses_nothing() {
    let (mut order, mut early) = loaded(9);
    let ids: Vec<EventId> = order.entries.iter().map(|placed| placed.id).collect();
    let clients = |hub: &Instance| -> [Subscription; 4] {
        [
            hub.subscribe(LastEventId::none()),
            hub.subscribe(ids[1]),
            hub.subscribe(ids[7]),
            hub.subscribe(ids[8]),
        ]
        .map(|stream| stream.with_snapshot(snapshot(2)).unwrap())
    };
    for is_read_first in [false, true] {
        let mut hub = late_hub();
        let mut streams = clients(&hub);
        let mut texts = [const { String::new() }; 4];
        if is_read_first {
            texts = streams.each_mut().map(read);
        }
        early.broadcast("10");
        early.settle(&mut order);
        hub.read(&mut order, usize::MAX);
        hub.look(&order);
        for (text, stream) in texts.iter_mut().zip(&mut streams) {
            *text += &read(stream);
        }
        hub.look_back_for_all(&order);
        for (text, stream) in texts.iter_mut().zip(&mut streams) {
            *text += &read(stream);
            let parts = frames(text);
            assert_eq!((parts[0].event.as_str(), parts[0].id), ("hub:open", Some(ORIGIN)));
            assert!(parts[0].data.contains("\"resumed\":false"), "{text}");
            assert_eq!(data(text)[..2], ["1", "2"], "{text}");
            assert!(text.find("event: n\n").is_none_or(|at| text[at..].find("snapshot").is_none()));
        }
        let [fresh, far, near, newest] = texts;
        let number = order.entries.len() - 9;
        // A client without an id is told that events after the snapshot may be missing.
        assert_eq!(gaps(&fresh), ["unknown"], "{fresh}");
        assert_eq!(data(&fresh), ["1", "2"]);
        let later = |from: usize| {
            let numbers = (from..=9).map(|number| number.to_string());
            numbers.chain(vec!["10".to_owned(); number]).collect::<Vec<_>>()
        };
        for (text, from) in [(&far, 3), (&near, 9), (&newest, 10)] {
            assert_eq!(gaps(text), [""; 0], "{text}");
            assert_eq!(data(text)[2..], later(from)[..], "{text}");
        }
    }
}

#[test]
fn order_replaced_after_subscribing_is_told() {
    for from in [0, 7, 8] {
        let (mut order, hub) = loaded(9);
        let stream = hub.subscribe(order.entries[from].id);
        order.clock += 10;
        let floor = EventId::new(order.clock, 0);
        hub.feed.load(Loaded::new(floor, []));
        let mut stream = stream.with_snapshot(snapshot(1)).unwrap();
        let text = read(&mut stream);
        let events: Vec<_> = frames(&text).into_iter().map(|frame| frame.event).collect();
        assert_eq!(events.last().unwrap(), "hub:gap", "{text}");
        assert_eq!(gaps(&text).last().unwrap(), "reset", "{text}");
        let last = frames(&text).pop().unwrap().id;
        assert_eq!(last, Some(hub.feed.head()));
    }
}
