//! Coming back and coming in: kept client ids, the last few events, snapshots, conflation.

mod support;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sse_hub::{
    Audience, ClientId, Event, EventError, EventId, Hub, Limits, Retain, Subscriber, Subscription,
};

use support::{SECOND, data, end, frames, gaps, has_ended, hub_with, last_id, poll, read};

fn hub() -> Hub {
    hub_with(|hub| hub).0
}

fn event(data: impl ToString) -> Event {
    Event::new("x").data(data.to_string())
}

/// Numbered events for everybody.
fn publish(hub: &Hub, count: usize) -> Vec<EventId> {
    (0..count).map(|number| hub.broadcast(event(number)).unwrap().id().unwrap()).collect()
}

/// A client that was here, where it stopped, and what was sent to it alone after.
fn gone(hub: &Hub, who: Subscriber) -> (ClientId, EventId) {
    let mut stream = hub.subscribe(who).unwrap();
    let client = stream.client();
    let position = last_id(&read(&mut stream));
    drop(stream);
    assert_eq!(hub.send_to_client(client, event("for it alone")).unwrap().matched(), 0);
    (client, position)
}

#[test]
fn a_client_that_returns_keeps_its_id_and_gets_what_was_sent_to_it_alone_meanwhile() {
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
            let again = who.clone().client(client).resume(position);
            let mut stream = hub.subscribe(again).unwrap();
            assert_eq!(stream.client(), client);
            assert!(stream.resumed());
            let text = read(&mut stream);
            assert!(frames(&text)[0].data.contains(&client.to_string()));
            assert_eq!(data(&text), ["for it alone"]);
            assert_eq!(hub.send_to_client(client, event("live")).unwrap().matched(), 1);
            let live = read(&mut stream);
            assert_eq!(data(&live), ["live"]);
            drop(stream);
            position = last_id(&live);
            client = hub.subscribe(who.clone().client(client)).unwrap().client();
            hub.send_to_client(client, event("for it alone")).unwrap();
        }
    }
}

#[test]
fn a_client_of_another_user_or_session_gets_a_new_id_and_nothing_of_the_old_one() {
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
        // Names are typed here, too.
        who(Some("s"), Some("u")),
    ];
    let (client, position) = gone(&hub, who(Some("u"), Some("s")));
    for other in others {
        let claimed = other.clone().client(client);
        for claimed in [claimed.clone().resume(position), claimed.clone().last(100)] {
            let mut stream = hub.subscribe(claimed).unwrap();
            assert_ne!(stream.client(), client, "{other:?}");
            assert_eq!(hub.send_to_client(client, event("live")).unwrap().matched(), 0);
            assert_eq!(data(&read(&mut stream)), [""; 0], "{other:?}");
        }
    }
    let (nobody, position) = gone(&hub, who(None, None));
    let other = who(Some("u"), None).client(nobody).resume(position);
    assert_ne!(hub.subscribe(other).unwrap().client(), nobody);
}

#[test]
fn an_id_in_use_is_not_given_away_and_one_that_never_was_is_not_made() {
    let hub = hub();
    let who = || Subscriber::new().user("u");
    let mut stream = hub.subscribe(who()).unwrap();
    let start = last_id(&read(&mut stream));
    let client = stream.client();
    let mut other = hub.subscribe(who().client(client).resume(start)).unwrap();
    assert_ne!(other.client(), client);
    hub.send_to_client(client, event("for the first")).unwrap();
    assert_eq!(data(&read(&mut other)), [""; 0]);
    assert_eq!(data(&read(&mut stream)), ["for the first"]);
    drop(stream);
    // Now it is free.
    let stream = hub.subscribe(who().client(client)).unwrap();
    assert_eq!(stream.client(), client);
    // And of two who ask for it, one gets it.
    assert_ne!(hub.subscribe(who().client(client)).unwrap().client(), client);

    let unknown: ClientId = "00112233445566778899aabbccddeeff".parse().unwrap();
    hub.send_to_client(unknown, event("x")).unwrap();
    let mut stream = hub.subscribe(who().client(unknown).resume(start)).unwrap();
    assert_ne!(stream.client(), unknown);
    assert_eq!(data(&read(&mut stream)), [""; 0]);
}

#[test]
fn an_id_is_kept_however_its_stream_ended() {
    let limits = Limits::default().per_user(1).displace_oldest();
    let (hub, timer) =
        hub_with(|hub| hub.limits(limits).stalled_after(SECOND).lifetime(9 * SECOND));
    let who = || Subscriber::new().user("u");
    let mut stream = hub.subscribe(who()).unwrap();
    let client = stream.client();
    let ways: [fn(&Hub, &sse_hub::ManualTimer); 3] = [
        |hub, _| assert_eq!(hub.disconnect(&Audience::all(), "x", None), Ok(1)),
        |hub, timer| {
            hub.send_to_user("u", event("unread")).unwrap();
            timer.advance(SECOND);
            hub.broadcast(event("look")).unwrap();
        },
        // By the next one itself: a browser is back before its dead connection is noticed.
        |_, _| {},
    ];
    for way in ways {
        way(&hub, &timer);
        let next = hub.subscribe(who().client(client)).unwrap();
        assert_eq!(next.client(), client);
        // The old one is dropped while the new one is there.
        drop(std::mem::replace(&mut stream, next));
        assert_eq!(hub.count(&Audience::client(client)), 1);
    }
    read(&mut stream);
    timer.advance(9 * SECOND);
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("lifetime"));
    assert!(has_ended(&mut stream));
    assert_eq!(hub.subscribe(who().client(client)).unwrap().client(), client);
}

/// How many of those who left are remembered here.
const REMEMBERED: usize = 1024;

fn come_and_go(hub: &Hub, count: usize) {
    (0..count).for_each(|_| drop(hub.subscribe(Subscriber::new()).unwrap()));
}

#[test]
fn the_clients_that_left_last_are_remembered_and_others_forgotten() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(10)));
    let leave = || hub.subscribe(Subscriber::new()).unwrap().client();
    let back = |client| hub.subscribe(Subscriber::new().client(client)).unwrap().client();
    let client = leave();
    come_and_go(&hub, REMEMBERED - 1);
    assert_eq!(back(client), client);
    let client = leave();
    come_and_go(&hub, REMEMBERED);
    assert_ne!(back(client), client);
}

#[test]
fn a_client_that_left_again_is_among_those_that_left_last() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(10)));
    let client = hub.subscribe(Subscriber::new()).unwrap().client();
    let back = || hub.subscribe(Subscriber::new().client(client)).unwrap().client();
    come_and_go(&hub, REMEMBERED - 1);
    assert_eq!(back(), client);
    come_and_go(&hub, 1);
    assert_eq!(back(), client, "one has left since");
}

/// To whom one of the events below is.
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
    fn the_last_few_are_exactly_those_it_would_have_got(
        events in vec((0..6usize, 0..2usize), 0..30),
        asked in 0..12usize,
        wants in option::of(0..2usize),
        retained in 1..30usize,
        batch in prop_oneof![Just(1), Just(10_000)],
    ) {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(retained)).batch(batch));
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
            me = me.events([wants.to_string()]);
        }
        let mut stream = hub.subscribe(me.clone().last(asked)).unwrap();
        prop_assert!(!stream.resumed());
        let text = read(&mut stream);
        prop_assert_eq!(data(&text), expected);
        prop_assert_eq!(gaps(&text), [""; 0], "nothing was missed by one who is new");
        // Once it has them, it goes on from there.
        hub.send_to_user("me", Event::new("0").data("live")).unwrap();
        let again = hub.subscribe(me.resume(last_id(&text))).unwrap();
        prop_assert!(again.resumed());
    }
}

#[test]
fn the_last_few_are_for_a_first_connection_only() {
    let hub = hub();
    let ids = publish(&hub, 5);
    let mut back = hub.subscribe(Subscriber::new().last(4).resume(ids[3])).unwrap();
    assert_eq!(data(&read(&mut back)), ["4"]);
    let mut strange = hub.subscribe(Subscriber::new().last(4).resume("garbage")).unwrap();
    assert_eq!(data(&read(&mut strange)), [""; 0]);
}

#[test]
fn what_was_lost_between_the_last_few_is_not_missed_by_one_who_is_new() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(100).per_topic(1)));
    hub.broadcast(event("all")).unwrap();
    for number in 0..3 {
        hub.publish(Audience::topic("t"), event(number)).unwrap();
    }
    let text = read(&mut hub.subscribe(Subscriber::new().topic("t").last(10)).unwrap());
    assert_eq!(data(&text), ["all", "2"]);
    assert_eq!(gaps(&text), [""; 0]);
}

/// A page that was cut off right after the first frame, and comes back.
fn cut_after_opening(hub: &Hub, who: &Subscriber, mut stream: Subscription) -> Subscription {
    let item = poll(&mut stream).unwrap().unwrap();
    let opening = frames(std::str::from_utf8(&item).unwrap()).remove(0);
    assert_eq!(opening.event, "hub:open");
    drop(stream);
    hub.subscribe(who.clone().resume(opening.id.unwrap())).unwrap()
}

#[test]
fn one_cut_off_before_the_last_few_gets_them_when_it_is_back() {
    let hub = hub();
    publish(&hub, 10);
    let who = Subscriber::new().last(3);
    let stream = hub.subscribe(who.clone()).unwrap();
    let mut again = cut_after_opening(&hub, &who, stream);
    assert!(again.resumed());
    assert_eq!(data(&read(&mut again)), ["7", "8", "9"]);
}

#[test]
fn one_cut_off_before_the_last_few_gets_them_also_where_fewer_were_retained() {
    for (published, asked, retained) in [(3, 5, 100), (3, 3, 100), (9, 5, 3), (9, 3, 3)] {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(retained)));
        publish(&hub, published);
        let who = Subscriber::new().last(asked);
        let stream = hub.subscribe(who.clone()).unwrap();
        let mut again = cut_after_opening(&hub, &who, stream);
        let text = read(&mut again);
        assert_eq!(data(&text).len(), 3, "{published} {asked} {retained}");
        assert!(again.resumed());
        assert_eq!(gaps(&text), [""; 0]);
    }
}

#[test]
fn one_for_whom_nothing_is_retained_resumes_from_its_opening() {
    let hub = hub();
    let who = Subscriber::new().last(5);
    let stream = hub.subscribe(who.clone()).unwrap();
    hub.broadcast(event("meanwhile")).unwrap();
    let mut again = cut_after_opening(&hub, &who, stream);
    assert_eq!(data(&read(&mut again)), ["meanwhile"]);
    assert!(again.resumed());
}

fn snapshot() -> [Event; 3] {
    ["a", "b", "c"].map(|part| Event::new("snapshot").data(part))
}

#[test]
fn a_snapshot_comes_before_every_change_since_the_client_was_let_in() {
    let hub = hub();
    hub.broadcast(event("long before")).unwrap();
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    hub.broadcast(event("1")).unwrap();
    let mut stream = stream.first(snapshot()).unwrap();
    hub.broadcast(event("2")).unwrap();
    let text = read(&mut stream);
    assert_eq!(data(&text), ["a", "b", "c", "1", "2"]);
    hub.broadcast(event("3")).unwrap();
    assert_eq!(data(&read(&mut stream)), ["3"]);
    let ids: Vec<Option<EventId>> = frames(&text).iter().map(|frame| frame.id).collect();
    assert_eq!((ids[1], ids[2]), (None, None), "until it has all, it stands where it opened");
    assert!(ids[3..].is_sorted() && ids[3].is_some());
    // Whoever has all of it resumes, with the changes.
    let again = Subscriber::new().resume(ids[3].unwrap());
    let mut again = hub.subscribe(again).unwrap();
    assert!(again.resumed());
    assert_eq!(data(&read(&mut again)), ["1", "2", "3"]);
}

#[test]
fn a_snapshot_may_come_in_parts_and_be_empty() {
    let hub = hub();
    let [a, b, c] = snapshot();
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    let mut stream = stream.first([a]).unwrap().first([]).unwrap().first([b, c]).unwrap();
    assert_eq!(data(&read(&mut stream)), ["a", "b", "c"]);

    let who = Subscriber::new();
    let stream = hub.subscribe(who.clone()).unwrap().first([]).unwrap();
    let again = cut_after_opening(&hub, &who, stream);
    assert!(again.resumed(), "there was nothing that it could have missed");
}

#[test]
fn one_cut_off_within_its_snapshot_is_not_resumed() {
    let hub = hub();
    let start = hub.broadcast(event("x")).unwrap().id().unwrap();
    for who in [
        Subscriber::new(),
        Subscriber::new().last(1),
        Subscriber::new().resume(start),
        Subscriber::new().resume("garbage"),
    ] {
        let text = read(&mut hub.subscribe(who).unwrap().first(snapshot()).unwrap());
        let opening = frames(&text);
        let parts = opening.iter().position(|frame| frame.event == "snapshot").unwrap();
        // After each frame but the last of the snapshot.
        for read_up_to in 1..parts + 3 {
            let position = opening[..read_up_to].iter().rev().find_map(|frame| frame.id).unwrap();
            let mut again = hub.subscribe(Subscriber::new().resume(position)).unwrap();
            assert!(!again.resumed(), "cut after frame {read_up_to} of {text}");
            assert_eq!(gaps(&read(&mut again)).len(), 1);
        }
        let position = opening[parts + 2].id.unwrap();
        assert!(hub.subscribe(Subscriber::new().resume(position)).unwrap().resumed());
    }
}

#[test]
fn an_event_of_a_snapshot_that_has_an_id_of_its_own_is_an_error() {
    let stream = hub().subscribe(Subscriber::new()).unwrap();
    let error = stream.first([event("x").id("own")]).unwrap_err();
    assert_eq!(error, EventError::OwnId);
}

#[test]
fn an_invalid_event_of_a_snapshot_is_an_error_and_disconnects() {
    let hub = hub();
    let invalid = [
        (Event::default(), EventError::Empty),
        (Event::new("x").comment("a\nb"), EventError::Comment),
        (event("x").conflate(""), EventError::Key),
    ];
    for (invalid, error) in invalid {
        let stream = hub.subscribe(Subscriber::new()).unwrap();
        assert_eq!(stream.first([event("fine"), invalid]).unwrap_err(), error);
        assert_eq!(hub.stats().clients, 0);
    }
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    assert!(matches!(stream.first([Event::new("hub:open")]).unwrap_err(), EventError::Type(_)));
}

fn price(of: &str, value: usize) -> Event {
    Event::new("price").data(format!("{of} {value}")).conflate(of)
}

#[test]
fn a_live_reader_gets_every_value_and_one_behind_the_newest_of_each_without_a_gap() {
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
        assert!(back.resumed());
        let new = hub.subscribe(Subscriber::new().last(10)).unwrap();
        for mut stream in [behind, back, new] {
            let text = read(&mut stream);
            assert_eq!(data(&text), ["a 99", "b 99"], "window {window}");
            assert_eq!(gaps(&text), [""; 0]);
        }
    }
}

#[test]
fn a_value_that_was_replaced_before_it_was_read_comes_once_among_the_others_and_in_order() {
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
fn other_audiences_types_and_keys_do_not_replace_each_other() {
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
    // Of each audience the last of three kinds, and all three of what has no key.
    let back = hub.subscribe(Subscriber::new().user("u").topics(["t", "u"]).resume(start)).unwrap();
    for mut stream in [stream, back] {
        let got = data(&read(&mut stream));
        assert_eq!(got.len(), 6 * (3 + 3));
        assert_eq!(got.iter().filter(|data| *data == "2").count(), 6 * 4);
    }
    assert_eq!(hub.stats().retained, 36);
}

#[test]
fn an_event_without_a_type_and_one_of_type_message_are_told_apart_or_not_but_never_lost() {
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
fn a_value_that_was_lost_is_missed_and_one_that_was_replaced_is_not() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(2)));
    let start = hub.broadcast(event("seen")).unwrap().id().unwrap();
    let resumes = || hub.subscribe(Subscriber::new().resume(start)).unwrap().resumed();
    for value in 0..100 {
        hub.broadcast(price("a", value)).unwrap();
        assert!(resumes(), "the first that are replaced take no room");
    }
    hub.broadcast(event("1")).unwrap();
    assert!(resumes());
    hub.broadcast(event("2")).unwrap();
    assert!(!resumes(), "the newest price has gone");
    // A new one of the same key replaces nothing.
    let published = hub.broadcast(price("a", 100)).unwrap();
    assert_eq!((published.matched(), hub.stats().retained), (0, 2));
    let text = read(&mut hub.subscribe(Subscriber::new().resume(start)).unwrap());
    assert_eq!((gaps(&text).len(), data(&text)), (1, vec!["2".to_owned(), "a 100".to_owned()]));
}

#[test]
fn values_of_a_topic_take_one_place_of_its_limit() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(100).per_topic(2)));
    let start = hub.broadcast(event("start")).unwrap().id().unwrap();
    let topic = || Audience::topic("t");
    hub.publish(topic(), event("kept")).unwrap();
    for value in 0..10 {
        hub.publish(topic(), price("a", value)).unwrap();
    }
    let mut stream = hub.subscribe(Subscriber::new().topic("t").resume(start)).unwrap();
    assert!(stream.resumed());
    assert_eq!(data(&read(&mut stream)), ["kept", "a 9"]);
}

#[test]
fn a_key_that_cannot_be_is_an_error() {
    let hub = hub();
    let longest = "x".repeat(Event::MAX_KEY_LEN);
    hub.broadcast(event("x").conflate(longest.as_str())).unwrap();
    for key in [String::new(), longest + "x"] {
        assert_eq!(event("x").conflate(key).check(), Err(EventError::Key));
    }
}

#[test]
fn a_key_is_not_sent() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    let id =
        hub.broadcast(Event::new("price").data("42").conflate("secret")).unwrap().id().unwrap();
    assert_eq!(read(&mut stream), format!("event: price\ndata: 42\nid: {id}\n\n"));
}
