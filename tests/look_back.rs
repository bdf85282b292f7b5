//! Clients that resume from before the hub's retention, while the order still holds the events.

mod support;

#[path = "support/order.rs"]
mod order;

use std::time::Duration;

use sse_hub::backplane::Incoming;
use sse_hub::{
    Audience, EndReason, Event, EventId, Heartbeat, History, HubBuilder, LastEventId, Limits,
    Retain, Subscriber, Subscription,
};

use order::{Entry, Instance, Order, late};
use support::{SECOND, data, end, gaps, has_ended, last_id, names, read, wait};

/// Returns the position right after event `number`.
fn after(order: &Order, number: usize) -> EventId {
    order.entries[number - 1].id
}

/// Looks back once, for up to `count` events.
fn bring(hub: &mut Instance, order: &Order, count: usize) -> bool {
    let is_wanted = hub.look_back(order, count);
    hub.bring();
    is_wanted
}

fn back(hub: &Instance, order: &Order, number: usize) -> Subscription {
    hub.subscribe(after(order, number))
}

#[test]
fn waiting_client_gets_heartbeats_then_all_events() {
    let (mut order, mut hub) =
        late(9, |hub| hub.heartbeat(Heartbeat::default().every(15 * SECOND)));
    let mut stream = back(&hub, &order, 1);
    assert!(stream.is_resumed());
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text), last_id(&text)), (vec![], vec![], after(&order, 1)));
    hub.timer.advance(15 * SECOND);
    assert_eq!(support::poll(&mut stream), Some(Some(":\n".into())));

    assert!(bring(&mut hub, &order, 3));
    let woken = wait(&mut stream);
    hub.broadcast("10");
    hub.flush(&mut order);
    hub.read(&mut order, usize::MAX);
    assert_eq!(
        (data(&read(&mut stream)), woken.count()),
        (vec![], 0),
        "events must arrive in order only"
    );
    let woken = wait(&mut stream);
    assert!(bring(&mut hub, &order, 9));
    assert_eq!(woken.count(), 1);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(2..=10), vec![]));
    assert_eq!(hub.hub.stats().restored, 6);
    assert!(!hub.look_back(&order, 9), "no client waits for older events");
}

#[test]
fn waiting_clients_share_the_older_events() {
    let (order, mut hub) = late(9, |hub| hub);
    let mut streams: Vec<_> = [1, 4, 6, 8].map(|number| back(&hub, &order, number)).into();
    let texts: Vec<_> = streams.iter_mut().map(read).collect();
    assert_eq!(data(&texts[3]), ["9"], "the hub retains event 9");
    let [oldest, middle, newest] = [0, 1, 2];
    assert!(bring(&mut hub, &order, 2));
    assert_eq!(data(&read(&mut streams[newest])), names(7..=9));
    assert_eq!(data(&read(&mut streams[middle])), [""; 0]);
    // A new client must not restart the look back.
    let mut another = back(&hub, &order, 5);
    assert_eq!(data(&read(&mut another)), names(6..=9));
    assert!(bring(&mut hub, &order, 1));
    assert_eq!(data(&read(&mut streams[middle])), names(5..=9));
    assert!(bring(&mut hub, &order, 9));
    assert_eq!(data(&read(&mut streams[oldest])), names(2..=9));
    assert_eq!(hub.hub.stats().restored, 6);
}

#[test]
fn trimmed_events_are_a_gap_before_the_rest() {
    let (mut order, mut hub) = late(9, |hub| hub);
    let position = after(&order, 1);
    order.trim(4);
    let mut stream = hub.subscribe(position);
    read(&mut stream);
    hub.look_back_for_all(&order);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(5..=9), vec!["evicted".to_owned()]));
    let mut stream = hub.subscribe(position);
    assert!(!stream.is_resumed(), "the hub knows the loss by now");
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(5..=9), vec!["evicted".to_owned()]));
}

#[test]
fn history_limit_bounds_events_and_sends_gaps() {
    let (order, mut hub) = late(20, |hub| hub.history(History::default().events(5)));
    let mut stream = back(&hub, &order, 1);
    let mut within = back(&hub, &order, 13);
    assert_eq!(data(&(read(&mut stream) + &read(&mut within))), [""; 0]);
    hub.look_back_for_all(&order);
    assert_eq!(hub.hub.stats().retained, 7);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(14..=20), vec!["evicted".to_owned()]));
    let text = read(&mut within);
    assert_eq!((data(&text), gaps(&text)), (names(14..=20), vec![]));

    let bytes = |hub: HubBuilder| hub.history(History::default().events(100).bytes(200));
    let (order, mut hub) =
        late(20, |hub| bytes(hub.retain(Retain::default().events(2).bytes(300))));
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    hub.look_back_for_all(&order);
    let stats = hub.hub.stats();
    assert!((400..=500).contains(&stats.retained_bytes), "{stats:?}");
    let text = read(&mut stream);
    assert_eq!(gaps(&text), ["evicted"]);
    assert_eq!(data(&text), names(21 - stats.retained..=20));
}

#[test]
fn older_event_without_room_is_a_gap() {
    let retained = late(9, |hub| hub).1.hub.stats().retained_bytes;
    let full = Retain::default().events(2).bytes(retained);
    let history = History::default().bytes(1);
    let (order, mut hub) = late(9, |hub| hub.retain(full).history(history));
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    hub.look_back_for_all(&order);
    assert_eq!(hub.hub.stats().restored, 0);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(8..=9), vec!["evicted".to_owned()]));
}

#[test]
fn join_with_last_events_releases_no_waiting_client() {
    let (mut order, mut hub) = late(9, |hub| hub);
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    hub.hub.send_to_topic("t", Event::new("n").data("10")).unwrap();
    hub.hub.join_with_last(stream.client_id(), "t", 1).unwrap();
    hub.flush(&mut order);
    hub.read(&mut order, usize::MAX);
    assert_eq!(read(&mut stream), "", "the older events come first");
    hub.look_back_for_all(&order);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(2..=10), vec![]));
}

#[test]
fn unused_older_events_expire_and_can_return() {
    let (mut order, mut hub) = late(600, |hub| hub);
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    hub.look_back_for_all(&order);
    assert_eq!(hub.hub.stats().retained, 600 - 1);
    hub.timer.advance(9 * SECOND);
    assert_eq!(data(&read(&mut stream)), names(2..=600));
    hub.timer.advance(9 * SECOND);
    let mut publish = |hub: &mut Instance, name: &str| {
        hub.broadcast(name);
        hub.flush(&mut order);
        hub.read(&mut order, usize::MAX);
        hub.hub.stats().retained
    };
    assert_eq!(publish(&mut hub, "601"), 600, "a read must keep the older events");
    hub.timer.advance(2 * SECOND);
    let now = publish(&mut hub, "602");
    assert!((500..600).contains(&now), "the older events must expire in parts: {now}");
    let mut left = 600;
    for number in 603..620 {
        left = publish(&mut hub, &number.to_string());
    }
    assert_eq!(left, 2);

    let mut stream = back(&hub, &order, 590);
    assert_eq!(gaps(&read(&mut stream)), [""; 0]);
    hub.look_back_for_all(&order);
    assert_eq!(data(&read(&mut stream)), names(591..=619));
}

#[test]
fn client_that_waits_too_long_gets_a_gap() {
    let (mut order, mut hub) = late(9, |hub| {
        hub.history(History::default().events(100).max_wait(70 * SECOND)).stalled_after(60 * SECOND)
    });
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    wait(&mut stream);
    hub.timer.advance(69 * SECOND);
    hub.broadcast("10");
    hub.flush(&mut order);
    hub.read(&mut order, usize::MAX);
    assert_eq!(hub.hub.stats().clients, 1, "a waiting client must not count as stalled");
    let woken = {
        read(&mut stream);
        wait(&mut stream)
    };
    hub.timer.advance(SECOND);
    assert_eq!(woken.count(), 1);
    let text = read(&mut stream);
    assert_eq!(gaps(&text), ["evicted"]);
    assert_eq!(data(&text).last().unwrap(), "10");
    assert!(!hub.look_back(&order, 9), "nobody waits");
}

#[test]
fn audience_filter_and_conflation_hold_on_older_events() {
    let mut order = Order::default();
    let mut early = Instance::new(Retain::default());
    early.settle(&mut order);
    let mut publish = |audience: Audience, event: Event| {
        early.hub.publish(audience, event).unwrap();
        early.settle(&mut order);
    };
    let event = |data: &str| Event::new("n").data(data);
    publish(Audience::all(), event("first"));
    publish(Audience::user("ann"), event("hers"));
    publish(Audience::user("bob"), event("his"));
    publish(Audience::all(), Event::new("other").data("not wanted"));
    publish(Audience::topic("t").except(Audience::user("ann")), event("for others"));
    publish(Audience::topic("t").and(Audience::user("ann")), event("for her there"));
    for price in ["1", "2", "3"] {
        publish(Audience::all(), event(price).conflate("acme"));
    }
    for price in ["7", "8"] {
        publish(Audience::all(), event(price).conflate("bolt"));
    }
    publish(Audience::all(), event("last"));
    let from = order.entries[0].id;
    let mut hub = Instance::with(|hub| hub.retain(Retain::default().events(1)));
    hub.read(&mut order, usize::MAX);
    let who = |user: &str| Subscriber::new().user(user).topic("t").event_types(["n"]).resume(from);
    let mut streams = ["ann", "bob"].map(|user| hub.hub.subscribe(who(user)).unwrap());
    streams.iter_mut().for_each(|stream| assert_eq!(data(&read(stream)), [""; 0]));
    hub.look_back_for_all(&order);
    let [ann, bob] = streams.each_mut().map(|stream| {
        let text = read(stream);
        assert_eq!(gaps(&text), [""; 0]);
        data(&text)
    });
    assert_eq!(ann, ["hers", "for her there", "3", "8", "last"]);
    assert_eq!(bob, ["his", "for others", "3", "8", "last"]);
}

#[test]
fn older_events_of_a_topic_keep_their_order() {
    let mut order = Order::default();
    let retain = Retain::default().events(100).per_topic(2);
    let mut hub = Instance::with(|hub| hub.retain(retain));
    hub.settle(&mut order);
    for number in 1..=12 {
        let topic = if number % 6 == 0 { "quiet" } else { "busy" };
        hub.hub.publish(Audience::topic(topic), Event::new("n").data(number.to_string())).unwrap();
        hub.settle(&mut order);
    }
    let who = |topics: &[&str]| Subscriber::new().topics(topics.iter().copied());
    let from = after(&order, 1);
    let mut quiet = hub.hub.subscribe(who(&["quiet"]).resume(from)).unwrap();
    assert_eq!(data(&read(&mut quiet)), ["6", "12"], "the quiet topic lost no event");
    let mut both = hub.hub.subscribe(who(&["busy", "quiet"]).resume(from)).unwrap();
    assert_eq!(data(&read(&mut both)), [""; 0]);
    hub.look_back_for_all(&order);
    let text = read(&mut both);
    assert_eq!((data(&text), gaps(&text)), (names(2..=12), vec![]));
    hub.timer.advance(11 * SECOND);
    drop(hub.subscribe(LastEventId::none()));
    assert_eq!(hub.hub.stats().retained, 11);
    hub.broadcast("13");
    hub.settle(&mut order);
    assert_eq!(hub.hub.stats().retained, 5, "the topic limit must hold again");
}

#[test]
fn replay_limit_caps_older_events() {
    let limits = Limits::default().replay(4);
    let (order, mut hub) = late(20, |hub| hub.limits(limits));
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    hub.look_back_for_all(&order);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(17..=20), vec!["capped".to_owned()]));
    let mut stream = back(&hub, &order, 16);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(17..=20), vec![]));

    // A client that waited for exactly as many events gets them all.
    let (order, mut hub) = late(20, |hub| hub.limits(Limits::default().replay(8)));
    let mut streams = [1, 12].map(|number| back(&hub, &order, number));
    streams.iter_mut().for_each(|stream| assert_eq!(data(&read(stream)), [""; 0]));
    hub.look_back_for_all(&order);
    let [capped, whole] = streams.map(|mut stream| read(&mut stream));
    assert_eq!((data(&capped), gaps(&capped)), (names(13..=20), vec!["capped".to_owned()]));
    assert_eq!((data(&whole), gaps(&whole)), (names(13..=20), vec![]));

    // The limit also holds for a client that waited too long while another client received the
    // events.
    let (order, mut hub) =
        late(20, |hub| hub.limits(limits).history(History::default().events(100).max_wait(SECOND)));
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    assert!(bring(&mut hub, &order, 12));
    hub.timer.advance(SECOND);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(17..=20), vec!["capped".to_owned()]));
}

#[test]
fn lagging_stream_waits_only_after_a_resume() {
    let (mut order, mut hub) = late(9, |hub: HubBuilder| hub.end_lagging(true));
    let mut live = hub.subscribe(LastEventId::none());
    let mut resumed = back(&hub, &order, 1);
    read(&mut live);
    assert_eq!(data(&read(&mut resumed)), [""; 0]);
    for number in 10..=40 {
        hub.broadcast(&number.to_string());
        hub.flush(&mut order);
        hub.read(&mut order, usize::MAX);
    }
    // The log was longer for the resumed client, and has shrunk since.
    hub.look_back_for_all(&order);
    assert_eq!(data(&read(&mut resumed)), names(2..=40));
    assert_eq!(data(&read(&mut live)), names(10..=40));
    hub.timer.advance(11 * SECOND);
    for number in 41..=80 {
        hub.broadcast(&number.to_string());
        hub.flush(&mut order);
        hub.read(&mut order, usize::MAX);
    }
    assert_eq!(end(&read(&mut live)).as_deref(), Some("lagged"));
    let (mut order, mut hub) = late(9, |hub| hub);
    let mut slow = hub.subscribe(LastEventId::none());
    read(&mut slow);
    for number in 10..=80 {
        hub.broadcast(&number.to_string());
        hub.flush(&mut order);
        hub.read(&mut order, usize::MAX);
    }
    assert_eq!(data(&read(&mut slow)), [""; 0]);
    hub.look_back_for_all(&order);
    let text = read(&mut slow);
    assert_eq!((data(&text), gaps(&text)), (names(10..=80), vec![]), "others are, too");
}

#[test]
fn client_before_the_end_is_found_waits() {
    let (mut order, _) = late(9, |hub| hub);
    let from = after(&order, 1);
    order.trim(4);
    let mut hub = Instance::with(|hub| hub.retain(Retain::default().events(2)).end_lagging(true));
    let mut stream = hub.subscribe(from);
    assert!(stream.is_resumed());
    read(&mut stream);
    let woken = wait(&mut stream);
    hub.read(&mut order, usize::MAX);
    assert_eq!((data(&read(&mut stream)), woken.count()), (vec![], 1));
    hub.look_back_for_all(&order);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(5..=9), vec!["evicted".to_owned()]));
    assert!(!has_ended(&mut stream));
}

#[test]
fn waiting_client_loses_nothing_when_hub_closes() {
    let (order, mut hub) = late(9, |hub| hub);
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    let woken = wait(&mut stream);
    hub.hub.close();
    assert_eq!(woken.count(), 1);
    assert!(has_ended(&mut stream), "the client must resume from its old position");
    assert_eq!(hub.hub.stats().ended(EndReason::Closed), 1);
    assert!(!hub.look_back(&order, 9), "no client waits");
}

#[test]
fn rolled_back_order_releases_waiting_clients() {
    let (mut order, mut hub) = late(9, |hub| hub);
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    // Read from the old order, and delivered after the order was rolled back.
    assert!(hub.look_back(&order, 3));
    order.roll_back(9);
    hub.read(&mut order, usize::MAX);
    hub.read(&mut order, usize::MAX);
    hub.bring();
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec![], vec!["reset".to_owned()]));
    assert_eq!(hub.hub.stats().restored, 0);
    let mut other = back_at(&hub, 3);
    assert_eq!(gaps(&read(&mut other)), ["evicted"], "the lost events must not be requested");
    assert!(!hub.look_back(&order, 9));
}

fn back_at(hub: &Instance, position: u64) -> Subscription {
    hub.subscribe(EventId::new(position, 0))
}

#[test]
fn older_commands_are_not_applied_again() {
    let mut order = Order::default();
    let mut early = Instance::new(Retain::default());
    early.settle(&mut order);
    for number in 1..=9 {
        early.broadcast(&number.to_string());
        early.hub.join(Audience::all(), "t").unwrap();
        early.settle(&mut order);
    }
    for count in [1, 3] {
        let mut hub = Instance::with(|hub| hub.retain(Retain::default().events(1)));
        hub.read(&mut order, usize::MAX);
        // Right after the first event.
        let mut stream = hub.subscribe(order.entries[0].id);
        assert_eq!(data(&read(&mut stream)), [""; 0]);
        while bring(&mut hub, &order, count) {}
        let text = read(&mut stream);
        assert_eq!((data(&text), gaps(&text)), (names(2..=9), vec![]));
        assert_eq!(hub.hub.count(Audience::topic("t")), 0);
    }
}

#[test]
fn history_before_malformed_entry_is_lost() {
    let (order, hub) = late(9, |hub| hub);
    let mut stream = back(&hub, &order, 1);
    read(&mut stream);
    let wanted = hub.feed.history_request().unwrap();
    assert_eq!((wanted.upto, wanted.after), (after(&order, 7), after(&order, 1)));
    let piece = |numbers: std::ops::RangeInclusive<usize>| {
        order.entries[numbers.start() - 1..*numbers.end()].iter().map(|placed| {
            let Entry::Event(event) = &placed.entry else { panic!("an event") };
            (placed.id, Duration::ZERO, Incoming::parse(event).unwrap())
        })
    };
    hub.feed.restore(after(&order, 6), after(&order, 3), piece(4..=6));
    assert_eq!(hub.hub.stats().restored, 0);
    // A piece without events that does not reach the log, either.
    hub.feed.restore(after(&order, 6), after(&order, 1), []);
    assert_eq!(hub.feed.history_request(), Some(wanted));
    // Entry 5 is malformed: only the entries after it can be brought.
    hub.feed.restore(wanted.upto, after(&order, 5), piece(6..=7));
    hub.feed.gone(after(&order, 5));
    assert_eq!(hub.hub.stats().restored, 2);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(6..=9), vec!["evicted".to_owned()]));
}

#[test]
fn unsupported_or_disabled_look_back_sends_a_gap() {
    let (order, hub) = late(9, |hub| hub.history(None));
    let mut stream = back(&hub, &order, 1);
    assert!(!stream.is_resumed());
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names(8..=9), vec!["evicted".to_owned()]));
    assert!(hub.feed.history_request().is_none());
}

#[test]
fn unusable_settings_are_refused() {
    for history in [
        History::default().events(1).bytes(0),
        History::default().events(1).max_wait(Duration::ZERO),
    ] {
        let built = sse_hub::Hub::builder(sse_hub::ManualTimer::new()).history(history).build();
        assert!(matches!(built, Err(sse_hub::ConfigError::Zero { .. })), "{built:?}");
    }
}
