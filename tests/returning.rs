//! Reconnecting and first connections: kept client ids and topics, the last few events, snapshots,
//! conflation.

mod support;

use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sse_hub::{
    Audience, ClientId, EndReason, Event, EventError, EventId, Goodbye, Hub, Limits, Presence,
    Retain, Subscriber, Subscription,
};

use support::{
    SECOND, call_on_wake, data, end, frames, gaps, has_ended, hub_with, last_id, poll, read,
};

fn hub() -> Hub {
    hub_with(|hub| hub).0
}

fn event(data: impl ToString) -> Event {
    Event::new("x").data(data.to_string())
}

/// Publishes numbered events for all clients.
fn publish(hub: &Hub, count: usize) -> Vec<EventId> {
    (0..count)
        .map(|number| hub.publish_confirmed(Audience::all(), event(number)).unwrap().id().unwrap())
        .collect()
}

/// Returns a disconnected client with the position, after an event for that client alone.
fn gone(hub: &Hub, who: Subscriber) -> (ClientId, EventId) {
    let mut stream = hub.subscribe(who).unwrap();
    let client = stream.client_id();
    let position = last_id(&read(&mut stream));
    drop(stream);
    assert_eq!(hub.send_to_client(client, event("for it alone")).unwrap().matched(), 0);
    (client, position)
}

#[test]
fn returning_client_keeps_id_and_its_events() {
    let who = [
        Subscriber::new(),
        Subscriber::new().user("u"),
        Subscriber::new().session("s"),
        Subscriber::new().user("u").session("s").topic("t"),
    ];
    for who in who {
        let hub = hub();
        let (mut client, mut position) = gone(&hub, who.clone());
        for _ in 0..3 {
            let again = who.clone().client_id(client).resume(position);
            let mut stream = hub.subscribe(again).unwrap();
            assert_eq!(stream.client_id(), client);
            assert!(stream.is_resumed());
            let text = read(&mut stream);
            assert!(frames(&text)[0].data.contains(&client.to_string()));
            assert_eq!(data(&text), ["for it alone"]);
            assert_eq!(hub.send_to_client(client, event("live")).unwrap().matched(), 1);
            let live = read(&mut stream);
            assert_eq!(data(&live), ["live"]);
            drop(stream);
            position = last_id(&live);
            client = hub.subscribe(who.clone().client_id(client)).unwrap().client_id();
            hub.send_to_client(client, event("for it alone")).unwrap();
        }
    }
}

#[test]
fn other_user_or_session_gets_new_id() {
    let hub = hub();
    let who = |user: Option<&str>, session: Option<&str>| {
        let mut who = Subscriber::new();
        if let Some(user) = user {
            who = who.user(user);
        }
        if let Some(session) = session {
            who = who.session(session);
        }
        who
    };
    let others = [
        who(Some("mallory"), Some("s")),
        who(Some("u"), Some("mallory")),
        who(Some("u"), None),
        who(None, Some("s")),
        who(None, None),
        // A user must not match a session of the same name.
        who(Some("s"), Some("u")),
    ];
    let (client, position) = gone(&hub, who(Some("u"), Some("s")));
    for other in others {
        let claimed = other.clone().client_id(client);
        for claimed in [claimed.clone().resume(position), claimed.clone().replay_last(100)] {
            let mut stream = hub.subscribe(claimed).unwrap();
            assert_ne!(stream.client_id(), client, "{other:?}");
            assert_eq!(hub.send_to_client(client, event("live")).unwrap().matched(), 0);
            assert_eq!(data(&read(&mut stream)), [""; 0], "{other:?}");
        }
    }
    let (nobody, position) = gone(&hub, who(None, None));
    let other = who(Some("u"), None).client_id(nobody).resume(position);
    assert_ne!(hub.subscribe(other).unwrap().client_id(), nobody);
}

fn who(user: Option<&str>, session: Option<&str>) -> Subscriber {
    let who = user.map_or_else(Subscriber::new, |user| Subscriber::new().user(user));
    match session {
        Some(session) => who.session(session),
        None => who,
    }
}

#[test]
fn owner_takes_over_an_id_in_use() {
    let owners = [(None, None), (Some("u"), None), (None, Some("s")), (Some("u"), Some("s"))];
    for (user, session) in owners {
        for unread in [0, 1, 50] {
            // A limit of 1 must not refuse a client that replaces an own connection.
            let limits = Limits::default().clients(1).per_user(1).per_session(1);
            let (hub, _) = hub_with(|hub| hub.limits(limits));
            let mut old = hub.subscribe(who(user, session)).unwrap();
            let start = last_id(&read(&mut old));
            let client = old.client_id();
            (0..unread).for_each(|number| {
                hub.send_to_client(client, event(number)).unwrap();
            });
            let again = who(user, session).client_id(client).resume(start);
            let mut new = hub.subscribe(again).unwrap();
            assert_eq!((new.client_id(), new.is_resumed()), (client, true));
            assert_eq!(data(&read(&mut new)).len(), unread, "each event must be replayed once");
            hub.send_to_client(client, event("live")).unwrap();
            assert_eq!(data(&read(&mut new)), ["live"]);
            let end = read(&mut old);
            assert!(end.contains("{\"reason\":\"displaced\"}") && !end.contains("live"), "{end}");
            let stats = hub.stats();
            assert_eq!((stats.clients, stats.ended(EndReason::Displaced)), (1, 1));
        }
    }
}

#[test]
fn other_owner_gets_no_events_of_id_in_use() {
    let others = [(None, None), (Some("v"), Some("s")), (Some("u"), None), (Some("u"), Some("t"))];
    for (user, session) in others {
        let hub = hub();
        let mut first = hub.subscribe(who(Some("u"), Some("s"))).unwrap();
        let start = last_id(&read(&mut first));
        let client = first.client_id();
        hub.send_to_client(client, event("for the first")).unwrap();
        let claim = who(user, session).client_id(client).resume(start);
        let mut other = hub.subscribe(claim).unwrap();
        assert_ne!(other.client_id(), client);
        assert_eq!(data(&read(&mut other)), [""; 0]);
        assert_eq!(data(&read(&mut first)), ["for the first"]);
        assert_eq!(hub.stats().clients, 2);
    }
}

#[test]
fn refused_client_displaces_no_client() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(1)));
    let mut old = hub.subscribe(who(Some("u"), None)).unwrap();
    read(&mut old);
    let again = who(Some("u"), None).client_id(old.client_id()).topics(["a", "b"]);
    assert!(hub.subscribe(again).is_err());
    assert_eq!(read(&mut old), "");
    assert_eq!(hub.stats().clients, 1);
}

#[test]
fn unknown_id_with_events_gets_a_gap() {
    let hub = hub();
    let mut stream = hub.subscribe(who(Some("u"), None)).unwrap();
    let start = last_id(&read(&mut stream));
    let unknown: ClientId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let again = || who(Some("u"), None).client_id(unknown).resume(start);
    let mut before = hub.subscribe(again()).unwrap();
    assert!(before.is_resumed() && before.client_id() != unknown);
    assert!(!read(&mut before).contains("hub:gap"));
    hub.send_to_client(unknown, event("lost")).unwrap();
    hub.broadcast(event("for all")).unwrap();
    let mut after = hub.subscribe(again()).unwrap();
    assert!(!after.is_resumed() && after.client_id() != unknown);
    let text = read(&mut after);
    assert!(text.contains("hub:gap"), "{text}");
    assert_eq!(data(&text), ["for all"]);
}

#[test]
fn missed_events_of_an_unknown_id_are_a_gap() {
    let unknown: ClientId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let (client, topic) = (|| Audience::client(unknown), |name: &str| Audience::topic(name));
    let audiences = [
        (client(), true),
        (client().or(topic("s")).except(Audience::user("v")), true),
        // Indexed by the topic, and not by the client.
        (topic("t").and(client().or(topic("s"))), true),
        (client().except(Audience::user("u")), false),
    ];
    for (number, (audience, is_lost)) in audiences.iter().enumerate() {
        for retained in [1, 9] {
            let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(retained)));
            let who = || who(Some("u"), None).topic("t").client_id(unknown);
            let start = last_id(&read(&mut hub.subscribe(who()).unwrap()));
            let receipt = hub.publish_confirmed(audience.clone(), event("lost")).unwrap();
            hub.send_to_user("other", event("evicts the lost event")).unwrap();
            let mut again = hub.subscribe(who().resume(start)).unwrap();
            let expected: &[&str] = if *is_lost { &["evicted"] } else { &[] };
            assert_eq!(gaps(&read(&mut again)), expected, "audience {number} of {retained} events");
            let after = hub.subscribe(who().resume(receipt.id().unwrap())).unwrap();
            assert!(after.is_resumed(), "the client had read the event");
            let other_type = hub.subscribe(who().event_types(["other"]).resume(start)).unwrap();
            assert!(other_type.is_resumed(), "the client selects other events");
        }
    }
}

#[test]
fn id_is_kept_after_every_kind_of_end() {
    let limits = Limits::default().per_user(1).displace_oldest(true);
    let (hub, timer) =
        hub_with(|hub| hub.limits(limits).stalled_after(SECOND).lifetime(9 * SECOND));
    let who = || Subscriber::new().user("u");
    let mut stream = hub.subscribe(who()).unwrap();
    let client = stream.client_id();
    let ways: [fn(&Hub, &sse_hub::ManualTimer); 3] = [
        |hub, _| {
            assert_eq!(
                hub.disconnect(Audience::all(), Goodbye::from_static("x"))
                    .map(|clients| clients.changed),
                Ok(1)
            )
        },
        |hub, timer| {
            hub.send_to_user("u", event("unread")).unwrap();
            timer.advance(SECOND);
            hub.broadcast(event("look")).unwrap();
        },
        // Ended by its successor: a browser reconnects before the hub notices the dead connection.
        |_, _| {},
    ];
    for way in ways {
        way(&hub, &timer);
        let next = hub.subscribe(who().client_id(client)).unwrap();
        assert_eq!(next.client_id(), client);
        // The old stream is dropped while the new stream is open.
        drop(std::mem::replace(&mut stream, next));
        assert_eq!(hub.count(Audience::client(client)), 1);
    }
    read(&mut stream);
    timer.advance(9 * SECOND);
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("lifetime"));
    assert!(has_ended(&mut stream));
    assert_eq!(hub.subscribe(who().client_id(client)).unwrap().client_id(), client);
}

/// The number of disconnected clients of which the hub here remembers the id beside the topics.
const REMEMBERED: usize = 1024;

fn come_and_go(hub: &Hub, count: usize) {
    (0..count).for_each(|_| drop(hub.subscribe(Subscriber::new()).unwrap()));
}

/// Returns a hub that remembers ids of clients, and no topics.
fn remembering_ids() -> Hub {
    let limits = Limits::default().remembered(0);
    hub_with(|hub| hub.retain(Retain::default().events(10)).limits(limits)).0
}

#[test]
fn latest_disconnected_clients_are_remembered() {
    let hub = remembering_ids();
    let leave = || hub.subscribe(Subscriber::new()).unwrap().client_id();
    let back = |client| hub.subscribe(Subscriber::new().client_id(client)).unwrap().client_id();
    let client = leave();
    come_and_go(&hub, REMEMBERED - 1);
    assert_eq!(back(client), client);
    let client = leave();
    come_and_go(&hub, REMEMBERED);
    assert_ne!(back(client), client);
    let newest = leave();
    assert_eq!(back(newest), newest);
}

#[test]
fn client_that_left_again_counts_as_latest() {
    let hub = remembering_ids();
    let client = hub.subscribe(Subscriber::new()).unwrap().client_id();
    let back = || hub.subscribe(Subscriber::new().client_id(client)).unwrap().client_id();
    come_and_go(&hub, REMEMBERED - 1);
    assert_eq!(back(), client);
    come_and_go(&hub, 1);
    assert_eq!(back(), client, "only one client has left since");
}

#[test]
fn remembered_client_keeps_its_id_beyond_other_departures() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(10)));
    for joins in [false, true] {
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        let (client, start) = (stream.client_id(), last_id(&read(&mut stream)));
        if joins {
            hub.join(client, "room").unwrap();
        }
        drop(stream);
        come_and_go(&hub, REMEMBERED);
        hub.send_to_client(client, event("sent by id")).unwrap();
        let again = Subscriber::new().client_id(client).resume(start);
        let mut stream = hub.subscribe(again).unwrap();
        assert_eq!((stream.client_id(), stream.is_resumed()), (client, true));
        assert_eq!(data(&read(&mut stream)), ["sent by id"]);
        assert_eq!(topics(&hub, client).len(), usize::from(joins));
    }
}

/// The audience of an event below, and whether the audience includes the client.
fn audience(number: usize) -> (Audience, bool) {
    match number % 6 {
        0 => (Audience::all(), true),
        1 => (Audience::user("me"), true),
        2 => (Audience::user("other"), false),
        3 => (Audience::topic("t").except(Audience::user("me")), false),
        4 => (Audience::topic("t").and(Audience::user("me")), true),
        _ => (Audience::users(["me", "other"]).or(Audience::topic("t")), true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_last_sends_the_latest_matching_events(
        events in vec((0..6usize, 0..2usize), 0..30),
        asked in 0..12usize,
        wants in option::of(0..2usize),
        retained in 1..30usize,
        batch in prop_oneof![Just(1), Just(10_000)],
    ) {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(retained)).max_batch_bytes(batch));
        let kept = events.len().saturating_sub(retained);
        let mut expected = Vec::new();
        for (number, &(to, event_type)) in events.iter().enumerate() {
            let (to, is_mine) = audience(to);
            let event = Event::new(event_type.to_string()).data(number.to_string());
            hub.publish(to, event).unwrap();
            if is_mine && number >= kept && wants.is_none_or(|wants| wants == event_type) {
                expected.push(number.to_string());
            }
        }
        let expected = expected.split_off(expected.len().saturating_sub(asked));
        let mut me = Subscriber::new().user("me").topic("t");
        if let Some(wants) = wants {
            me = me.event_types([wants.to_string()]);
        }
        let mut stream = hub.subscribe(me.clone().replay_last(asked)).unwrap();
        prop_assert!(!stream.is_resumed());
        let text = read(&mut stream);
        prop_assert_eq!(data(&text), expected);
        prop_assert_eq!(gaps(&text), [""; 0], "a new client missed no event");
        // After the replay, the client resumes from there.
        hub.send_to_user("me", Event::new("0").data("live")).unwrap();
        let again = hub.subscribe(me.resume(last_id(&text))).unwrap();
        prop_assert!(again.is_resumed());
    }
}

#[test]
fn replay_last_applies_to_first_connections_only() {
    let hub = hub();
    let ids = publish(&hub, 5);
    let mut back = hub.subscribe(Subscriber::new().replay_last(4).resume(ids[3])).unwrap();
    assert_eq!(data(&read(&mut back)), ["4"]);
    let mut strange = hub.subscribe(Subscriber::new().replay_last(4).resume("garbage")).unwrap();
    assert_eq!(data(&read(&mut strange)), [""; 0]);
}

#[test]
fn replay_last_ignores_earlier_losses() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(100).per_topic(1)));
    hub.broadcast(event("all")).unwrap();
    for number in 0..3 {
        hub.publish(Audience::topic("t"), event(number)).unwrap();
    }
    let text = read(&mut hub.subscribe(Subscriber::new().topic("t").replay_last(10)).unwrap());
    assert_eq!(data(&text), ["all", "2"]);
    assert_eq!(gaps(&text), [""; 0]);
}

/// Reconnects a page that was cut off after its first frame.
fn cut_after_opening(hub: &Hub, who: &Subscriber, mut stream: Subscription) -> Subscription {
    let item = poll(&mut stream).unwrap().unwrap();
    let opening = frames(std::str::from_utf8(&item).unwrap()).remove(0);
    assert_eq!(opening.event, "hub:open");
    drop(stream);
    hub.subscribe(who.clone().resume(opening.id.unwrap())).unwrap()
}

#[test]
fn replay_last_survives_a_cut_after_opening() {
    let hub = hub();
    publish(&hub, 10);
    let who = Subscriber::new().replay_last(3);
    let stream = hub.subscribe(who.clone()).unwrap();
    let mut again = cut_after_opening(&hub, &who, stream);
    assert!(again.is_resumed());
    assert_eq!(data(&read(&mut again)), ["7", "8", "9"]);
}

#[test]
fn replay_last_survives_a_cut_with_few_retained() {
    for (published, asked, retained) in [(3, 5, 100), (3, 3, 100), (9, 5, 3), (9, 3, 3)] {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(retained)));
        publish(&hub, published);
        let who = Subscriber::new().replay_last(asked);
        let stream = hub.subscribe(who.clone()).unwrap();
        let mut again = cut_after_opening(&hub, &who, stream);
        let text = read(&mut again);
        assert_eq!(data(&text).len(), 3, "{published} {asked} {retained}");
        assert!(again.is_resumed());
        assert_eq!(gaps(&text), [""; 0]);
    }
}

#[test]
fn empty_replay_last_resumes_from_its_opening() {
    let hub = hub();
    let who = Subscriber::new().replay_last(5);
    let stream = hub.subscribe(who.clone()).unwrap();
    hub.broadcast(event("meanwhile")).unwrap();
    let mut again = cut_after_opening(&hub, &who, stream);
    assert_eq!(data(&read(&mut again)), ["meanwhile"]);
    assert!(again.is_resumed());
}

fn snapshot() -> [Event; 3] {
    ["a", "b", "c"].map(|part| Event::new("snapshot").data(part))
}

#[test]
fn snapshot_precedes_changes_since_subscribing() {
    let hub = hub();
    hub.broadcast(event("long before")).unwrap();
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    hub.broadcast(event("1")).unwrap();
    let mut stream = stream.with_snapshot(snapshot()).unwrap();
    hub.broadcast(event("2")).unwrap();
    let text = read(&mut stream);
    assert_eq!(data(&text), ["a", "b", "c", "1", "2"]);
    hub.broadcast(event("3")).unwrap();
    assert_eq!(data(&read(&mut stream)), ["3"]);
    let ids: Vec<Option<EventId>> = frames(&text).iter().map(|frame| frame.id).collect();
    assert_eq!(
        (ids[1], ids[2]),
        (None, None),
        "the position must not move before the snapshot is complete"
    );
    assert!(ids[3..].is_sorted() && ids[3].is_some());
    // A client with the complete snapshot resumes with the changes.
    let again = Subscriber::new().resume(ids[3].unwrap());
    let mut again = hub.subscribe(again).unwrap();
    assert!(again.is_resumed());
    assert_eq!(data(&read(&mut again)), ["1", "2", "3"]);
}

#[test]
fn snapshot_may_have_parts_or_be_empty() {
    let hub = hub();
    let [a, b, c] = snapshot();
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    let mut stream = stream
        .with_snapshot([a])
        .unwrap()
        .with_snapshot([])
        .unwrap()
        .with_snapshot([b, c])
        .unwrap();
    assert_eq!(data(&read(&mut stream)), ["a", "b", "c"]);

    let who = Subscriber::new();
    let stream = hub.subscribe(who.clone()).unwrap().with_snapshot([]).unwrap();
    let again = cut_after_opening(&hub, &who, stream);
    assert!(again.is_resumed(), "the client cannot have missed an event");
}

#[test]
fn cut_within_a_snapshot_is_not_resumed() {
    let hub = hub();
    let start = hub.publish_confirmed(Audience::all(), event("x")).unwrap().id().unwrap();
    for who in
        [Subscriber::new(), Subscriber::new().resume(start), Subscriber::new().resume("garbage")]
    {
        let text = read(&mut hub.subscribe(who).unwrap().with_snapshot(snapshot()).unwrap());
        let opening = frames(&text);
        let parts = opening.iter().position(|frame| frame.event == "snapshot").unwrap();
        // After each frame except the last of the snapshot.
        for read_up_to in 1..parts + 3 {
            let position = opening[..read_up_to].iter().rev().find_map(|frame| frame.id).unwrap();
            let mut again = hub.subscribe(Subscriber::new().resume(position)).unwrap();
            assert!(!again.is_resumed(), "cut after frame {read_up_to} of {text}");
            assert_eq!(gaps(&read(&mut again)).len(), 1);
        }
        let position = opening[parts + 2].id.unwrap();
        assert!(hub.subscribe(Subscriber::new().resume(position)).unwrap().is_resumed());
    }
}

#[test]
fn snapshot_event_with_an_id_is_refused() {
    let stream = hub().subscribe(Subscriber::new()).unwrap();
    let error = stream.with_snapshot([event("x").id("own")]).unwrap_err();
    assert_eq!(error, EventError::OwnId);
}

#[test]
fn invalid_snapshot_event_disconnects() {
    let hub = hub();
    let invalid = [
        (Event::default(), EventError::Empty),
        (Event::new("x").comment("a\nb"), EventError::Comment),
        (event("x").conflate(""), EventError::Key),
    ];
    for (invalid, error) in invalid {
        let stream = hub.subscribe(Subscriber::new()).unwrap();
        assert_eq!(stream.with_snapshot([event("fine"), invalid]).unwrap_err(), error);
        assert_eq!(hub.stats().clients, 0);
    }
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    assert!(matches!(
        stream.with_snapshot([Event::new("hub:open")]).unwrap_err(),
        EventError::Type(_)
    ));
}

fn price(of: &str, value: usize) -> Event {
    Event::new("price").data(format!("{of} {value}")).conflate(of)
}

#[test]
fn conflation_sends_live_readers_every_value() {
    for window in [1, 4, 1000] {
        let (hub, _) = hub_with(|hub| hub.window(window));
        let mut live = hub.subscribe(Subscriber::new()).unwrap();
        let mut behind = hub.subscribe(Subscriber::new()).unwrap();
        let start = last_id(&read(&mut behind));
        read(&mut live);
        let mut got = Vec::new();
        for value in 0..100 {
            for of in ["a", "b"] {
                hub.broadcast(price(of, value)).unwrap();
                got.extend(data(&read(&mut live)));
            }
        }
        assert_eq!(got.len(), 200);
        let stats = hub.stats();
        assert_eq!((stats.retained, stats.retained_names), (2, 1));
        assert!(stats.retained_bytes < 2 * 260, "{stats:?}");
        let back = hub.subscribe(Subscriber::new().resume(start)).unwrap();
        assert!(back.is_resumed());
        let new = hub.subscribe(Subscriber::new().replay_last(10)).unwrap();
        for mut stream in [behind, back, new] {
            let text = read(&mut stream);
            assert_eq!(data(&text), ["a 99", "b 99"], "window {window}");
            assert_eq!(gaps(&text), [""; 0]);
        }
    }
}

#[test]
fn replaced_value_arrives_once_and_in_order() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    hub.broadcast(event("1")).unwrap();
    hub.broadcast(price("a", 1)).unwrap();
    hub.broadcast(event("2")).unwrap();
    hub.broadcast(price("a", 2)).unwrap();
    hub.broadcast(event("3")).unwrap();
    let text = read(&mut stream);
    assert_eq!(
        (data(&text), gaps(&text)),
        (["1", "2", "a 2", "3"].map(str::to_owned).to_vec(), vec![])
    );
}

#[test]
fn conflation_separates_audiences_types_and_keys() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new().user("u").topics(["t", "u"])).unwrap();
    let start = last_id(&read(&mut stream));
    let audiences = || {
        [
            Audience::all(),
            Audience::user("u"),
            Audience::topic("t"),
            Audience::topic("u"),
            Audience::topic("t").or(Audience::topic("u")),
            Audience::topic("t").and(Audience::topic("u")),
        ]
    };
    let kinds = [("a", Some("k")), ("b", Some("k")), ("a", Some("l")), ("a", None)];
    for round in 0..3 {
        for audience in audiences() {
            for (event_type, key) in kinds {
                let event = Event::new(event_type).data(round.to_string());
                let event = match key {
                    Some(key) => event.conflate(key),
                    None => event,
                };
                hub.publish(audience.clone(), event).unwrap();
            }
        }
    }
    // Each audience gets the last of three kinds, and all three events without a key.
    let back = hub.subscribe(Subscriber::new().user("u").topics(["t", "u"]).resume(start)).unwrap();
    for mut stream in [stream, back] {
        let got = data(&read(&mut stream));
        assert_eq!(got.len(), 6 * (3 + 3));
        assert_eq!(got.iter().filter(|data| *data == "2").count(), 6 * 4);
    }
    assert_eq!(hub.stats().retained, 36);
}

#[test]
fn missing_type_and_message_type_are_never_lost() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    hub.broadcast(Event::default().data("1").conflate("k")).unwrap();
    hub.broadcast(Event::new("message").data("2").conflate("k")).unwrap();
    let text = read(&mut stream);
    assert_eq!(data(&text).last().map(String::as_str), Some("2"));
    assert_eq!(gaps(&text), [""; 0]);
}

#[test]
fn lost_value_is_a_gap_and_replaced_is_not() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(2)));
    let start = hub.publish_confirmed(Audience::all(), event("seen")).unwrap().id().unwrap();
    let resumes = || hub.subscribe(Subscriber::new().resume(start)).unwrap().is_resumed();
    for value in 0..100 {
        hub.broadcast(price("a", value)).unwrap();
        assert!(resumes(), "replaced values must not take room");
    }
    hub.broadcast(event("1")).unwrap();
    assert!(resumes());
    hub.broadcast(event("2")).unwrap();
    assert!(!resumes(), "the newest price was evicted");
    // A new event of the same key has no event to replace.
    let published = hub.broadcast(price("a", 100)).unwrap();
    assert_eq!((published.matched(), hub.stats().retained), (0, 2));
    let text = read(&mut hub.subscribe(Subscriber::new().resume(start)).unwrap());
    assert_eq!((gaps(&text).len(), data(&text)), (1, vec!["2".to_owned(), "a 100".to_owned()]));
}

#[test]
fn conflated_values_take_one_slot_of_topic_limit() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(100).per_topic(2)));
    let start = hub.publish_confirmed(Audience::all(), event("start")).unwrap().id().unwrap();
    let topic = || Audience::topic("t");
    hub.publish(topic(), event("kept")).unwrap();
    for value in 0..10 {
        hub.publish(topic(), price("a", value)).unwrap();
    }
    let mut stream = hub.subscribe(Subscriber::new().topic("t").resume(start)).unwrap();
    assert!(stream.is_resumed());
    assert_eq!(data(&read(&mut stream)), ["kept", "a 9"]);
}

#[test]
fn invalid_key_is_refused() {
    let hub = hub();
    let longest = "x".repeat(Event::MAX_KEY_LEN);
    hub.broadcast(event("x").conflate(longest.as_str())).unwrap();
    for key in [String::new(), longest + "x"] {
        assert_eq!(event("x").conflate(key).check(), Err(EventError::Key));
    }
}

#[test]
fn key_is_not_sent() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    let id = hub
        .publish_confirmed(Audience::all(), Event::new("price").data("42").conflate("secret"))
        .unwrap()
        .id()
        .unwrap();
    assert_eq!(read(&mut stream), format!("event: price\ndata: 42\nid: {id}\n\n"));
}

fn topics(hub: &Hub, client: ClientId) -> Vec<String> {
    let clients = hub.clients(client);
    let topics = clients.iter().flat_map(|client| &client.topics);
    let mut topics: Vec<String> = topics.map(|topic| topic.to_string()).collect();
    topics.sort_unstable();
    topics
}

/// Returns a client that joined topics, read up to a position, and left.
fn gone_with_topics(hub: &Hub, who: Subscriber, joined: &[&str]) -> (ClientId, EventId) {
    let mut stream = hub.subscribe(who).unwrap();
    for topic in joined {
        hub.join(stream.client_id(), *topic).unwrap();
    }
    (stream.client_id(), last_id(&read(&mut stream)))
}

#[test]
fn joined_topics_return_with_their_events() {
    let hub = hub();
    let who = || Subscriber::new().user("u").topic("own");
    let (client, position) = gone_with_topics(&hub, who(), &["room", "left"]);
    let publish = |topic: &str| hub.send_to_topic(topic, event(topic)).unwrap();
    publish("room");
    publish("own");
    // While the client is away.
    hub.join(Audience::user("u"), "later").unwrap();
    assert_eq!(hub.leave(Audience::user("u"), "left").map(|clients| clients.changed), Ok(0));
    publish("later");
    publish("left");
    // The next request does not name the topic of the first.
    let who = Subscriber::new().user("u").client_id(client);
    let mut stream = hub.subscribe(who.clone().resume(position)).unwrap();
    assert!(stream.is_resumed());
    assert_eq!(topics(&hub, client), ["later", "room"]);
    let page = hub.read(&who, position, 10).unwrap();
    assert_eq!((page.events.len(), page.truncated), (2, false), "a page must match the stream");
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["room".into(), "later".into()], vec![]));
    publish("room");
    assert_eq!(data(&read(&mut stream)), ["room"]);
    // A second return, this time without a position.
    drop(stream);
    let page = hub.read(&who, position, 10).unwrap();
    assert_eq!(page.events.len(), 3, "a page must match the stream that would return");
    let mut stream = hub.subscribe(who).unwrap();
    assert_eq!(topics(&hub, client), ["later", "room"]);
    publish("room");
    assert_eq!(data(&read(&mut stream)), ["room"]);
}

#[test]
fn removed_topic_returns_only_if_requested() {
    let hub = hub();
    let who = || Subscriber::new().user("u");
    let (client, position) = gone_with_topics(&hub, who(), &["room", "kept"]);
    hub.leave(client, "room").unwrap();
    let again = || who().client_id(client).resume(position);
    drop(hub.subscribe(again()).unwrap());
    let stream = hub.subscribe(again()).unwrap();
    assert_eq!(topics(&hub, client), ["kept"]);
    drop(stream);
    let stream = hub.subscribe(again().topic("room")).unwrap();
    assert_eq!(topics(&hub, client), ["kept", "room"]);
    // A topic of the request that the server joins, too, returns without the request.
    hub.join(client, "room").unwrap();
    drop(stream);
    let _stream = hub.subscribe(again()).unwrap();
    assert_eq!(topics(&hub, client), ["kept", "room"]);
}

#[test]
fn full_client_keeps_a_requested_topic_that_it_joined() {
    let hub = hub_with(|hub| hub.limits(Limits::default().topics(1))).0;
    let who = Subscriber::new().user("u");
    for last in [0, 5] {
        let mut stream = hub.subscribe(who.clone().topic("t")).unwrap();
        let (client, position) = (stream.client_id(), last_id(&read(&mut stream)));
        assert_eq!(hub.join_with_last(client, "t", last).unwrap().changed, 0);
        drop(stream);
        let again = hub.subscribe(who.clone().client_id(client).resume(position)).unwrap();
        assert!(again.is_resumed());
        assert_eq!(topics(&hub, client), ["t"], "the server had added the client");
    }
}

#[test]
fn client_without_its_id_gets_no_topics() {
    let hub = hub();
    let who = || Subscriber::new().user("u").session("s");
    let (client, position) = gone_with_topics(&hub, who(), &["room"]);
    let others = [
        who().resume(position),
        Subscriber::new().client_id(client).resume(position),
        Subscriber::new().user("u").client_id(client).resume(position),
        Subscriber::new().user("s").session("u").client_id(client).resume(position),
    ];
    for other in others {
        let page = hub.read(&other, EventId::new(0, 0), 10).unwrap();
        let stream = hub.subscribe(other).unwrap();
        assert_eq!(topics(&hub, stream.client_id()), [""; 0]);
        assert!(page.events.is_empty());
    }
    let _stream = hub.subscribe(who().client_id(client)).unwrap();
    assert_eq!(topics(&hub, client), ["room"], "the owner must still get the topics");
}

#[test]
fn topics_beyond_the_limit_are_a_gap() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(2)));
    let (client, position) = gone_with_topics(&hub, Subscriber::new(), &["a", "b"]);
    let again = Subscriber::new().client_id(client).resume(position);
    let mut stream = hub.subscribe(again.clone().topic("c")).unwrap();
    assert!(!stream.is_resumed());
    assert_eq!(gaps(&read(&mut stream)), ["evicted"]);
    assert_eq!(topics(&hub, client), ["a", "c"]);
    drop(stream);
    assert!(hub.subscribe(again.topics(["a", "c"])).unwrap().is_resumed());
}

#[test]
fn forgotten_topics_are_a_gap() {
    for remembered in [0, 2] {
        let limits = Limits::default().remembered(remembered);
        let (hub, _) = hub_with(|hub| hub.limits(limits));
        // Clients that have joined nothing can be forgotten without a loss.
        let (plain, position) = gone_with_topics(&hub, Subscriber::new(), &[]);
        come_and_go(&hub, 3);
        let back = |client, position: EventId| {
            hub.subscribe(Subscriber::new().client_id(client).resume(position)).unwrap()
        };
        assert!(back(plain, position).is_resumed());
        let (client, position) = gone_with_topics(&hub, Subscriber::new(), &["room"]);
        come_and_go(&hub, 2);
        let mut stream = back(client, position);
        assert_eq!((stream.client_id(), stream.is_resumed()), (client, false));
        assert_eq!(gaps(&read(&mut stream)), ["evicted"]);
        drop(stream);
        // A join may be for a client that the hub has forgotten.
        let (client, position) = gone_with_topics(&hub, Subscriber::new().user("u"), &[]);
        come_and_go(&hub, 3);
        hub.join(Audience::user("u"), "room").unwrap();
        let again = Subscriber::new().user("u").client_id(client).resume(position);
        assert!(!hub.subscribe(again).unwrap().is_resumed());
        // A client that came later cannot have been forgotten.
        hub.broadcast(event("x")).unwrap();
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        let (client, position) = (stream.client_id(), last_id(&read(&mut stream)));
        drop(stream);
        assert!(back(client, position).is_resumed());
    }
}

#[test]
fn events_before_a_join_do_not_count_as_replayed() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().replay(1)));
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let (client, start) = (stream.client_id(), last_id(&read(&mut stream)));
    hub.send_to_topic("room", event("before")).unwrap();
    hub.join(client, "room").unwrap();
    hub.send_to_topic("room", event("after")).unwrap();
    drop(stream);
    let mut stream = hub.subscribe(Subscriber::new().client_id(client).resume(start)).unwrap();
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["after".to_owned()], vec![]));
}

#[test]
fn latest_clients_keep_their_topics() {
    let hub = hub_with(|hub| hub.limits(Limits::default().remembered(2))).0;
    let gone = [(); 3].map(|()| gone_with_topics(&hub, Subscriber::new(), &["room"]));
    // All stay connected: a client that leaves again takes the place of another.
    let back = gone.map(|(client, position)| {
        hub.subscribe(Subscriber::new().client_id(client).resume(position)).unwrap()
    });
    let of_back = |stream: &Subscription| (stream.is_resumed(), topics(&hub, stream.client_id()));
    let with_topics = (true, vec!["room".to_owned()]);
    assert_eq!(back.each_ref().map(of_back), [(false, vec![]), with_topics.clone(), with_topics]);
}

#[test]
fn full_client_that_is_away_joins_no_topic() {
    let hub = hub_with(|hub| hub.limits(Limits::default().topics(1))).0;
    let (client, position) = gone_with_topics(&hub, Subscriber::new(), &["room"]);
    hub.join(client, "second").unwrap();
    let again = Subscriber::new().client_id(client).resume(position);
    assert!(hub.subscribe(again).unwrap().is_resumed(), "the client lacks no topic");
    // A topic of the request takes no other place when the server joins the client.
    let (client, position) = gone_with_topics(&hub, Subscriber::new().topic("room"), &[]);
    hub.join(client, "room").unwrap();
    let again = Subscriber::new().client_id(client).resume(position);
    let stream = hub.subscribe(again).unwrap();
    assert_eq!((stream.is_resumed(), topics(&hub, client)), (true, vec!["room".to_owned()]));
}

#[test]
fn client_that_returns_while_its_crowd_joins_joins_too() {
    let (hub, _) = hub_with(|hub| hub);
    let who = || Subscriber::new().user("u");
    let (client, position) = gone_with_topics(&hub, who(), &["room"]);
    hub.send_to_topic("news", event("old")).unwrap();
    // More clients than join in a hold of the locks: between two holds, wakers run.
    let mut crowd: Vec<_> = (0..200).map(|_| hub.subscribe(who()).unwrap()).collect();
    crowd.iter_mut().for_each(|stream| drop(read(stream)));
    let returned = Arc::new(Mutex::new(None));
    let (at_hub, slot) = (hub.clone(), Arc::clone(&returned));
    let again = who().client_id(client).resume(position);
    let come_back = move || *slot.lock().unwrap() = Some(at_hub.subscribe(again).unwrap());
    call_on_wake(&mut crowd[0], come_back);
    hub.join_with_last(Audience::user("u"), "news", 1).unwrap();
    assert!(returned.lock().unwrap().is_some(), "the client has returned between two holds");
    assert_eq!(topics(&hub, client), ["news", "room"]);
}

#[test]
fn topics_of_a_live_connection_move_to_the_next() {
    let hub = hub();
    let who = || Subscriber::new().user("u");
    let mut old = hub.subscribe(who()).unwrap();
    let client = old.client_id();
    hub.join(client, "room").unwrap();
    hub.send_to_topic("room", event("1")).unwrap();
    let text = read(&mut old);
    hub.send_to_topic("room", event("2")).unwrap();
    let again = who().client_id(client).resume(last_id(&text));
    let mut new = hub.subscribe(again).unwrap();
    hub.send_to_topic("room", event("3")).unwrap();
    assert_eq!(data(&read(&mut new)), ["2", "3"]);
    assert_eq!(end(&read(&mut old)).as_deref(), Some("displaced"));
    drop(old);
    assert_eq!(topics(&hub, client), ["room"]);
}

#[test]
fn returning_client_is_a_member_of_its_topics() {
    let (hub, timer) =
        hub_with(|hub| hub.presence(Presence::default().grace(SECOND).topics(&["room"])));
    let who = || Subscriber::new().user("u");
    let (client, position) = gone_with_topics(&hub, who(), &["room"]);
    timer.advance(2 * SECOND);
    assert!(hub.users_in("room").unwrap().is_empty(), "the grace period is over");
    let _stream = hub.subscribe(who().client_id(client).resume(position)).unwrap();
    assert_eq!(hub.users_in("room").unwrap().len(), 1);
}
