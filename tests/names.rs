//! Names in each form that callers have, counts of clients, and the forms of ids and counters.

mod support;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use sse_hub::{
    Audience, ClientId, Event, EventId, EventType, Goodbye, Hub, JoinError, Limits, Name,
    NameError, NameKind, Presence, PublishError, RunOptions, Subscriber, Subscription,
};

use support::{SECOND, data, hub_with, read};

fn open(hub: &Hub, subscriber: Subscriber) -> Subscription {
    let mut stream = hub.subscribe(subscriber).unwrap();
    read(&mut stream);
    stream
}

#[test]
fn every_form_of_a_name_is_one_name() {
    let (text, shared) = (String::from("42"), Arc::<str>::from("42"));
    let (boxed, borrowed) = (Box::<str>::from("42"), Cow::Borrowed("42"));
    let (name, twice, number) = (Name::from("42"), &"42", &42_usize);
    let forms: [Audience; 17] = [
        Audience::user("42"),
        Audience::user(twice),
        Audience::user(&text),
        Audience::user(text.clone()),
        Audience::user(&shared),
        Audience::user(Arc::clone(&shared)),
        Audience::user(&boxed),
        Audience::user(boxed.clone()),
        Audience::user(&borrowed),
        Audience::user(borrowed.clone()),
        Audience::user(&name),
        Audience::user(name.clone()),
        Audience::user(42_u8),
        Audience::user(42_i128),
        Audience::user(number),
        Audience::users([42]).or(Audience::users([&text])).or(Audience::users::<&str>([])),
        Audience::user(42).or(Audience::user(42)),
    ];
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = open(&hub, Subscriber::new().user(42).session(&text).topics([7_u64, 8]));
    for audience in &forms {
        assert_eq!(hub.count(audience), 1, "{audience:?}");
    }
    assert_eq!(forms[..15].iter().filter(|form| **form == forms[0]).count(), 15);
    hub.send_to_user(&text, Event::new("x").data("user")).unwrap();
    hub.send_to_session(42, Event::new("x").data("session")).unwrap();
    hub.send_to_topic(8_i64, Event::new("x").data("topic")).unwrap();
    hub.join(Audience::topics(["7"]), i128::MIN).unwrap();
    hub.send_to_topic(i128::MIN.to_string(), Event::new("x").data("joined")).unwrap();
    let least = i128::MIN.to_string();
    hub.leave(Audience::user(42), &least).unwrap();
    hub.send_to_topic(i128::MIN, Event::new("x").data("left")).unwrap();
    assert_eq!(data(&read(&mut stream)), ["user", "session", "topic", "joined"]);
    assert!(hub.is_online(42) && hub.is_online(&text) && !hub.is_online(-42));
    // A shared name is not copied.
    let again: Arc<str> = Name::from(&shared).into();
    assert!(Arc::ptr_eq(&again, &shared));
}

#[test]
fn selected_types_come_in_every_form() {
    let (hub, _) = hub_with(|hub| hub);
    let wanted = vec![String::from("a"), String::from("b")];
    let mut streams = [
        open(&hub, Subscriber::new().event_types(&wanted)),
        open(&hub, Subscriber::new().event_types(wanted)),
        open(&hub, Subscriber::new().event_types(["a", "b"])),
    ];
    for event_type in ["a", "c", "b"] {
        hub.broadcast(Event::new(event_type).data(event_type)).unwrap();
    }
    for stream in &mut streams {
        assert_eq!(data(&read(stream)), ["a", "b"]);
    }
}

#[test]
fn bad_names_are_errors_in_every_form() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().name_len(3)));
    let event = || Event::new("x").data("");
    let long = NameError::TooLong { kind: NameKind::Topic, len: 4, limit: 3 };
    assert_eq!(hub.send_to_topic(1000, event()), Err(PublishError::Audience(long.into())));
    assert_eq!(hub.send_to_topic(-100, event()), Err(PublishError::Audience(long.into())));
    let topic = String::from("long");
    assert_eq!(hub.join(Audience::all(), &topic), Err(JoinError::Topic(long)));
    let empty = NameError::Empty(NameKind::Topic);
    assert_eq!(hub.send_to_topic("", event()), Err(PublishError::Audience(empty.into())));
    assert!(hub.send_to_topic(999, event()).is_ok());
    assert!(!hub.is_online("") && !hub.is_online(1000));
}

#[test]
fn counts_tell_matched_from_changed() {
    let (hub, _) = hub_with(|hub| hub);
    let counts = |clients: sse_hub::Affected| (clients.matched, clients.changed);
    let first = open(&hub, Subscriber::new().user("u").topic("t"));
    let mut second = open(&hub, Subscriber::new().user("u"));
    let user = Audience::user("u");
    assert_eq!(counts(hub.join(&user, "t").unwrap()), (2, 1));
    assert_eq!(counts(hub.join(&user, "t").unwrap()), (2, 0));
    assert_eq!(counts(hub.leave(first.client_id(), "t").unwrap()), (1, 1));
    assert_eq!(counts(hub.leave(&user, "t").unwrap()), (2, 1));
    assert_eq!(counts(hub.leave(Audience::user("nobody"), "t").unwrap()), (0, 0));

    let bye = || Goodbye::from_static("bye");
    hub.broadcast(Event::new("x").data("unread")).unwrap();
    assert_eq!(counts(hub.finish(second.client_id(), bye()).unwrap()), (1, 1));
    // The stream of the second client still has its backlog: it is to end, and keeps its reason.
    assert_eq!(counts(hub.finish(&user, bye()).unwrap()), (2, 1));
    // An end at once replaces an end after the backlog.
    assert_eq!(counts(hub.disconnect(&user, bye()).unwrap()), (2, 2));
    assert_eq!(counts(hub.disconnect(&user, bye()).unwrap()), (0, 0));
    assert!(data(&read(&mut second)).is_empty());
}

#[test]
fn an_expired_stream_matches_and_does_not_change() {
    let (hub, timer) = hub_with(|hub| hub);
    let deadline = std::time::Duration::from_secs(1);
    let mut stream = open(&hub, Subscriber::new().user("u").expires_in(deadline));
    let _other = open(&hub, Subscriber::new().user("u"));
    timer.advance(deadline);
    // One item: the stream is over, and was not read to its end.
    assert!(support::poll(&mut stream).flatten().is_some());
    let ended = hub.disconnect(Audience::user("u"), Goodbye::from_static("bye")).unwrap();
    assert_eq!((ended.matched, ended.changed), (2, 1));
}

#[test]
fn stats_print_labelled_reasons() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().clients(1)));
    let stream = open(&hub, Subscriber::new());
    assert!(hub.subscribe(Subscriber::new()).is_err());
    drop(stream);
    let shown = format!("{:?}", hub.stats());
    assert!(shown.contains("ended: {\"left\": 1}, refused: {\"full\": 1}"), "{shown}");
    assert!(shown.starts_with("Stats { clients: 0, client_names: 0, "), "{shown}");
}

#[test]
fn delays_are_counted_by_powers_of_two() {
    let (hub, timer) = hub_with(|hub| hub);
    assert_eq!(hub.stats().delays().quantile(0.5), None);
    // The hub measures the first event that each stream reads.
    for (streams, delay) in [(3, Duration::from_millis(1)), (1, SECOND)] {
        let mut streams: Vec<_> = (0..streams).map(|_| open(&hub, Subscriber::new())).collect();
        hub.broadcast(Event::new("x")).unwrap();
        timer.advance(delay);
        for stream in &mut streams {
            read(stream);
        }
    }
    let stats = hub.stats();
    let delays = stats.delays();
    let (low, high) = (Duration::from_micros(1 << 10), Duration::from_micros(1 << 20));
    let counted: Vec<_> = delays.buckets().filter(|&(_, count)| count > 0).collect();
    assert_eq!(counted, [(low, 3), (high, 1)]);
    assert_eq!(delays.count(), 4);
    for (share, bound) in
        [(-1.0, low), (0.0, low), (0.5, low), (0.75, low), (0.76, high), (2.0, high)]
    {
        assert_eq!(delays.quantile(share), Some(bound), "{share}");
    }
    assert_eq!(format!("{delays:?}"), "{1.024ms: 3, 1.048576s: 1}");
    #[cfg(feature = "json")]
    assert_eq!(
        serde_json::to_string(delays).unwrap(),
        r#"[{"below_us":1024,"count":3},{"below_us":1048576,"count":1}]"#
    );
}

#[test]
fn names_and_ids_print_their_text() {
    fn check<T: std::fmt::Display + std::fmt::Debug>(value: T, text: &str, debug: &str) {
        assert_eq!((value.to_string().as_str(), format!("{value:?}").as_str()), (text, debug));
    }

    check(Name::from("a\tb"), "a\tb", r#""a\tb""#);
    assert_eq!(Name::from("a\tb").as_str(), "a\tb");
    check(EventId::new(1763, 12), "1763-12", "1763-12");
    let client = "00112233445566778899aabbccddeeff";
    check(client.parse::<ClientId>().unwrap(), client, client);
    let instance = sse_hub::backplane::InstanceId::from_bytes([0, 1, 2, 3, 4, 5, 6, 255]);
    check(instance, "00010203040506ff", "00010203040506ff");
    assert_eq!(EventType::new("order.paid").unwrap().to_string(), "order.paid");
}

#[test]
fn handles_print_their_type_and_state() {
    let (hub, _) = hub_with(|hub| hub.presence(Presence::default()));
    let stream = open(&hub, Subscriber::new());
    let client = stream.client_id();
    let shown = format!("Subscription {{ client_id: {client}, is_resumed: false, .. }}");
    assert_eq!(format!("{stream:?}"), shown);
    let run = hub.start_run("answer", RunOptions::default()).unwrap();
    assert_eq!(format!("{run:?}"), r#"Run { name: "answer", is_stopped: false, .. }"#);
    assert_eq!(format!("{:?}", run.stopped()), "Stopped { .. }");
    assert_eq!(format!("{:?}", run.started()), "Started { .. }");
    let confirmation = hub.publish_confirmed(Audience::all(), Event::new("x")).unwrap();
    let shown = format!("Confirmation {{ id: {:?} }}", confirmation.id());
    assert_eq!(format!("{confirmation:?}"), shown);
    assert_eq!(format!("{:?}", hub.watch().unwrap()), "PresenceWatch { .. }");
    let shown = format!("Hub {{ stats: {:?}, .. }}", hub.stats());
    assert_eq!(format!("{hub:?}"), shown);
    assert!(format!("{:?}", hub.drain(SECOND)).starts_with("Drain { until: "));
}

#[cfg(feature = "json")]
#[test]
fn ids_are_their_text_in_json() {
    let client: ClientId = "00112233445566778899aabbccddeeff".parse().unwrap();
    let ids = (EventId::new(1763, 12), client);
    let json = r#"["1763-12","00112233445566778899aabbccddeeff"]"#;
    assert_eq!(serde_json::to_string(&ids).unwrap(), json);
    assert_eq!(serde_json::from_str::<(EventId, ClientId)>(json).unwrap(), ids);
    // Also from text with escapes, which is not borrowed from the input, and from a value.
    assert_eq!(serde_json::from_str::<EventId>("\"1763\\u002d12\"").unwrap(), ids.0);
    assert_eq!(serde_json::from_value::<EventId>("1763-12".into()).unwrap(), ids.0);
    for bad in ["\"1763\"", "\"01-2\"", "1763", "null", "[1763,12]", "\"\"", "{\"epoch\":1}"] {
        assert!(serde_json::from_str::<EventId>(bad).is_err(), "{bad}");
        assert!(serde_json::from_str::<ClientId>(bad).is_err(), "{bad}");
    }
    let error = serde_json::from_str::<EventId>("7").unwrap_err().to_string();
    assert!(error.contains("expected an event id, such as \"1763-12\""), "{error}");
    let error = serde_json::from_str::<ClientId>("\"FF\"").unwrap_err().to_string();
    assert!(error.contains("32 lower-case hexadecimal digits"), "{error}");
}

#[cfg(feature = "json")]
#[test]
fn stats_in_json_have_every_word() {
    use sse_hub::EndReason;

    let (hub, _) = hub_with(|hub| hub);
    let mut stream = open(&hub, Subscriber::new());
    hub.broadcast(Event::new("x").data("1")).unwrap();
    read(&mut stream);
    drop(stream);
    let stats = hub.stats();
    let json = serde_json::to_value(stats).unwrap();
    assert_eq!((&json["clients"], &json["published"]), (&0.into(), &1.into()));
    assert_eq!(json["degraded"], false);
    let ended = json["ended"].as_object().unwrap();
    assert_eq!((ended.len(), &ended["left"]), (EndReason::ALL.len(), &1.into()));
    assert_eq!(json["refused"].as_object().unwrap().len(), 12);
    assert_eq!(json["ended_runs"].as_object().unwrap().len(), 5);
    assert_eq!(json["refused"]["full"], 0);
    let delays = json["delays"].as_array().unwrap();
    let counted: u64 = delays.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, stats.delays().count());
    assert!(delays.iter().all(|bucket| bucket["below_us"].as_u64().unwrap().is_power_of_two()));
    // Every public field is there.
    let shown = format!("{stats:?}");
    for (field, value) in json.as_object().unwrap().iter().filter(|(_, value)| !value.is_object()) {
        assert!(value.is_array() || shown.contains(&format!("{field}: {value}")), "{field}");
    }
}
