//! `Subscriber::replay_last`: which losses a client is told that begins with the last few events.

mod support;

use sse_hub::{Audience, Hub, HubBuilder, Retain, Subscriber};

use support::{SECOND, data, event, frames, gaps, hub_with, names, publish, read, read_items};

fn to_topic(hub: &Hub, topic: &str, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        hub.publish(Audience::topic(topic.to_owned()), event(number)).unwrap();
    }
}

fn small(hub: HubBuilder) -> HubBuilder {
    hub.retain(Retain::default().events(10)).max_batch_bytes(1)
}

#[test]
fn loss_after_the_first_read_is_told() {
    for (window, items, later) in [(1, 3, 5), (32, 3, 5), (32, 2, 3), (1, 9, 12), (1, 10, 11)] {
        let (hub, _) = hub_with(|hub| small(hub).window(window));
        publish(&hub, 1..=10);
        let mut stream = hub.subscribe(Subscriber::new().replay_last(10)).unwrap();
        // The opening, and all items but one.
        let mut text = read_items(&mut stream, items);
        assert_eq!(data(&text), names(1..items), "{text}");
        publish(&hub, 11..=10 + later);
        text += &read(&mut stream);
        let has_hole = items - 1 < later;
        assert_eq!(gaps(&text).len(), usize::from(has_hole), "{window} {items} {later} {text}");
        let rest = (later + 1).max(items);
        assert_eq!(data(&text), names((1..items).chain(rest..=10 + later)), "{text}");
        if has_hole {
            let frames = frames(&text);
            let gap = frames.iter().position(|frame| frame.event == "hub:gap").unwrap();
            assert_eq!(gap, items, "the gap stands in the hole: {text}");
        }
    }
}

#[test]
fn loss_before_the_first_read_is_told() {
    for (asked, window, opened) in [(10, 1, false), (10, 32, true), (3, 1, true), (100, 1, false)] {
        let (hub, _) = hub_with(|hub| small(hub).window(window));
        publish(&hub, 1..=10);
        let mut stream = hub.subscribe(Subscriber::new().replay_last(asked)).unwrap();
        let mut text = read_items(&mut stream, usize::from(opened));
        publish(&hub, 11..=20);
        text += &read(&mut stream);
        assert_eq!(gaps(&text), ["evicted"], "{text}");
        assert_eq!(data(&text), names(11..=20));
    }
}

#[test]
fn loss_by_age_is_told() {
    let retain = Retain::default().age(10 * SECOND);
    let (hub, timer) = hub_with(|hub| hub.retain(retain).max_batch_bytes(1).heartbeat(None));
    publish(&hub, 1..=3);
    let mut stream = hub.subscribe(Subscriber::new().replay_last(3)).unwrap();
    let mut text = read_items(&mut stream, 2);
    timer.advance(10 * SECOND);
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([1]), vec!["evicted".to_owned()]));
}

#[test]
fn older_losses_are_exempt() {
    // Retained: 1, 2 and 6. Lost before the client came: 3 to 5, of a topic with a limit.
    let retain = Retain::default().events(100).per_topic(1);
    for (window, batch) in [(1, 1), (32, 64 << 10)] {
        let (hub, _) = hub_with(|hub| hub.retain(retain).window(window).max_batch_bytes(batch));
        publish(&hub, 1..=2);
        to_topic(&hub, "t", 3..=6);
        let mut stream = hub.subscribe(Subscriber::new().topic("t").replay_last(3)).unwrap();
        let mut text = read_items(&mut stream, 2);
        // Events that evict nothing.
        publish(&hub, 7..=8);
        text += &read(&mut stream);
        assert_eq!(gaps(&text), [""; 0], "the client did not miss them: {text}");
        assert_eq!(data(&text), names([1, 2, 6, 7, 8]));
        // The client has caught up: later losses count.
        publish(&hub, 9..=80);
        to_topic(&hub, "t", 81..=82);
        text = read(&mut stream);
        assert_eq!(gaps(&text).len(), 1, "told once, however many reads follow: {text}");
        assert_eq!(data(&text), names((9..=80).chain([82])));
    }
}

#[test]
fn later_losses_of_a_topic_are_told() {
    let retain = Retain::default().events(100).per_topic(2);
    let (hub, _) = hub_with(|hub| hub.retain(retain).window(1).max_batch_bytes(1));
    publish(&hub, 1..=2);
    to_topic(&hub, "t", 3..=6);
    let mut stream = hub.subscribe(Subscriber::new().topic("t").replay_last(4)).unwrap();
    let mut text = read_items(&mut stream, 2);
    assert_eq!(data(&text), names([1]));
    to_topic(&hub, "t", [7]);
    text += &read(&mut stream);
    assert_eq!(gaps(&text).len(), 1, "event 5 is lost now: {text}");
    assert_eq!(data(&text), names([1, 2, 6, 7]));
}

#[test]
fn conflated_events_are_no_loss() {
    let (hub, _) = hub_with(|hub| small(hub).window(1));
    let price = |value: usize| event(value).conflate("price");
    publish(&hub, 1..=3);
    hub.broadcast(price(4)).unwrap();
    let mut stream = hub.subscribe(Subscriber::new().replay_last(4)).unwrap();
    let mut text = read_items(&mut stream, 2);
    for value in 5..=9 {
        hub.broadcast(price(value)).unwrap();
    }
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([1, 2, 3, 9]), vec![]));
}
