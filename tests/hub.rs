//! Opening, targeting, refusing and closing, without a network.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{
    Audience, ConfigError, Event, EventError, Heartbeat, Hub, Limits, ManualTimer, NameError,
    NameKind, PublishError, RefusedCause, Retain, Subscriber, Subscription,
};

fn hub() -> Hub {
    Hub::builder(ManualTimer::new()).build().unwrap()
}

/// Reads every available item.
fn read(stream: &mut Subscription) -> String {
    let mut text = String::new();
    while let Some(Some(bytes)) = stream.next().now_or_never() {
        text += std::str::from_utf8(&bytes).unwrap();
    }
    text
}

#[test]
fn opening_carries_client_id_and_position() {
    let hub = hub();
    let first = hub.publish_confirmed(Audience::all(), Event::new("before")).unwrap().id().unwrap();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let opening = read(&mut stream);
    let (start, rest) = opening.split_once("\nretry: ").unwrap();
    let (retry, rest) = rest.split_once('\n').unwrap();
    assert_eq!(start, "event: hub:open");
    assert!((2250..=3750).contains(&retry.parse::<u64>().unwrap()), "3 s, spread: {retry}");
    let client = stream.client_id();
    assert_eq!(
        rest,
        format!(
            "data: {{\"client\":\"{client}\",\"resumed\":false,\"heartbeat\":15000}}\nid: {first}\n\n"
        )
    );
}

#[test]
fn clients_reconnect_at_different_times() {
    let hub = hub();
    let retry = |_| {
        let opening = read(&mut hub.subscribe(Subscriber::new()).unwrap());
        let line = opening.lines().find_map(|line| line.strip_prefix("retry: ").map(str::to_owned));
        line.unwrap()
    };
    let times: std::collections::HashSet<String> = (0..100).map(retry).collect();
    assert!(times.len() > 50, "{} different times of 100", times.len());
}

#[test]
fn audience_reaches_the_named_clients() {
    let hub = hub();
    let subscriber = || Subscriber::new().user("a").session("b").topic("c");
    let mut tab = hub.subscribe(subscriber()).unwrap();
    let mut nobody = hub.subscribe(Subscriber::new()).unwrap();
    // Names of a kind must not match names of another kind.
    let mut other = hub.subscribe(Subscriber::new().user("c").session("a").topic("b")).unwrap();
    for stream in [&mut tab, &mut nobody, &mut other] {
        read(stream);
    }
    let to = [
        Audience::user("a"),
        Audience::session("b"),
        Audience::topic("c"),
        Audience::client(tab.client_id()),
    ];
    for audience in to {
        assert_eq!(hub.publish(audience, Event::new("x")).unwrap().matched(), 1);
        assert!(read(&mut tab).starts_with("event: x\n"));
        assert_eq!(read(&mut nobody) + &read(&mut other), "");
    }
    assert_eq!(hub.broadcast(Event::new("x")).unwrap().matched(), 3);
    assert!(hub.send_to_user("nobody", Event::new("x")).unwrap().require_match().is_err());
}

#[test]
fn resume_at_head_replays_no_event() {
    let hub = hub();
    let last = hub.publish_confirmed(Audience::all(), Event::new("x")).unwrap().id().unwrap();
    let mut stream = hub.subscribe(Subscriber::new().resume(last)).unwrap();
    assert!(stream.is_resumed());
    assert!(
        read(&mut stream)
            .ends_with(&format!("\"resumed\":true,\"heartbeat\":15000}}\nid: {last}\n\n"))
    );
}

#[test]
fn client_without_events_resumes_from_its_opening() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let opening = read(&mut stream);
    let last = opening.trim_end().rsplit_once("id: ").unwrap().1.to_owned();
    drop(stream);
    hub.broadcast(Event::new("meanwhile")).unwrap();
    let mut stream = hub.subscribe(Subscriber::new().resume(last.as_str())).unwrap();
    assert!(stream.is_resumed());
    assert!(read(&mut stream).contains("event: meanwhile\n"));
}

/// Returns the bytes of a stream that was cut off after its first frame.
fn cut_after_opening(hub: &Hub, subscriber: Subscriber) -> String {
    let mut stream = hub.subscribe(subscriber).unwrap();
    assert!(!stream.is_resumed());
    let opening = stream.next().now_or_never().unwrap().unwrap();
    let opening = std::str::from_utf8(&opening).unwrap();
    let (first, _) = opening.split_once("\n\n").unwrap();
    assert!(first.starts_with("event: hub:open\n"));
    first.rsplit_once("id: ").unwrap().1.to_owned()
}

#[test]
fn cut_before_the_gap_repeats_only_the_gap() {
    let retain = Retain::default().events(100).per_topic(2);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().unwrap();
    let publish = |topic: &str, name: &str| {
        hub.publish_confirmed(Audience::topic(topic), Event::new(name)).unwrap().id().unwrap()
    };
    publish("b", "seen");
    let last = publish("a", "seen");
    for name in ["lost", "kept", "kept"] {
        publish("a", name);
    }
    let subscriber = || Subscriber::new().topics(["a", "b"]);
    let held = cut_after_opening(&hub, subscriber().resume(last));
    let text = read(&mut hub.subscribe(subscriber().resume(held.as_str())).unwrap());
    assert!(text.contains("event: hub:gap\ndata: {\"reason\":\"evicted\"}\n"));
    assert_eq!((text.matches("seen").count(), text.matches("kept").count()), (0, 2));
}

#[test]
fn foreign_id_gets_a_gap_and_continues() {
    let hub = hub();
    hub.broadcast(Event::new("seen")).unwrap();
    let strange =
        ["garbage", "0", "0-0", "-", "1-", "9999999999999999999-0", "99999999999999999999999-1"];
    for last in strange {
        let held = cut_after_opening(&hub, Subscriber::new().resume(last));
        hub.broadcast(Event::new("seen")).unwrap();
        let mut stream = hub.subscribe(Subscriber::new().resume(held.as_str())).unwrap();
        let now = hub.publish_confirmed(Audience::all(), Event::new("new")).unwrap().id().unwrap();
        let text = read(&mut stream);
        let held = now.predecessor();
        let gap = format!("event: hub:gap\ndata: {{\"reason\":\"unknown\"}}\nid: {held}\n\n");
        assert!(text.contains(&gap), "{last}: {text}");
        assert_eq!((text.matches("seen").count(), text.matches("new").count()), (0, 1), "{last}");
    }
}

#[test]
fn gap_of_a_foreign_id_is_the_only_gap() {
    let retain = Retain::default().events(1);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().unwrap();
    let mut stream = hub.subscribe(Subscriber::new().resume("garbage")).unwrap();
    // None of these events is for the client. The hub drops its records of the first.
    for topic in 0..2_000 {
        hub.send_to_topic(topic.to_string(), Event::new("x")).unwrap();
    }
    let text = read(&mut stream);
    assert_eq!(text.matches("event: hub:gap").count(), 1, "{text}");
}

#[test]
fn replay_uses_the_current_identity() {
    let hub = hub();
    let start = hub.publish_confirmed(Audience::all(), Event::new("x")).unwrap().id().unwrap();
    hub.send_to_user("alice", Event::new("private")).unwrap();
    let mut stream = hub.subscribe(Subscriber::new().user("bob").resume(start)).unwrap();
    assert!(stream.is_resumed());
    assert!(!read(&mut stream).contains("private"));
}

#[test]
fn filtered_events_are_not_missed() {
    let hub = Hub::builder(ManualTimer::new()).retain(Retain::default().events(1)).build().unwrap();
    let start = hub.publish_confirmed(Audience::all(), Event::new("wanted")).unwrap().id().unwrap();
    for _ in 0..10 {
        hub.broadcast(Event::new("other")).unwrap();
    }
    let subscriber = || Subscriber::new().resume(start);
    assert!(hub.subscribe(subscriber().event_types(["wanted"])).unwrap().is_resumed());
    assert!(!hub.subscribe(subscriber()).unwrap().is_resumed());
    assert!(!hub.subscribe(subscriber().event_types(["wanted", "other"])).unwrap().is_resumed());
}

#[test]
fn stats_count_the_reads_of_all_streams() {
    const CLIENTS: usize = 40;
    let hub = hub();
    let mut streams: Vec<_> =
        (0..CLIENTS).map(|_| hub.subscribe(Subscriber::new()).unwrap()).collect();
    streams.iter_mut().for_each(|stream| drop(read(stream)));
    for number in 0..3 {
        hub.broadcast(Event::new("x").data(number.to_string())).unwrap();
    }
    let bytes: usize = streams.iter_mut().map(|stream| read(stream).len()).sum();
    let expected = (3 * CLIENTS as u64, bytes as u64, 2 * CLIENTS as u64);
    let counts = || {
        let stats = hub.stats();
        (stats.delivered, stats.delivered_bytes, stats.batched)
    };
    assert_eq!(counts(), expected);
    drop(streams);
    assert_eq!(counts(), expected, "the counts outlive the clients");
}

#[test]
fn busy_topic_does_not_evict_others() {
    let retain = Retain::default().events(100).per_topic(2);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().unwrap();
    let start =
        hub.publish_confirmed(Audience::topic("quiet"), Event::new("first")).unwrap().id().unwrap();
    let quiet = hub
        .publish_confirmed(Audience::topic("quiet"), Event::new("second"))
        .unwrap()
        .id()
        .unwrap();
    for _ in 0..10_000 {
        hub.publish(Audience::topic("busy"), Event::new("x")).unwrap();
    }
    assert_eq!(hub.stats().retained, 4);
    let mut stream = hub.subscribe(Subscriber::new().topic("quiet").resume(start)).unwrap();
    assert!(stream.is_resumed());
    assert!(read(&mut stream).ends_with(&format!("id: {quiet}\n\n")));
}

#[test]
fn large_events_go_alone_and_bursts_batched() {
    let hub = Hub::builder(ManualTimer::new()).max_batch_bytes(1000).build().unwrap();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    hub.broadcast(Event::default().data("x".repeat(5000))).unwrap();
    for _ in 0..10 {
        hub.broadcast(Event::default().data("small")).unwrap();
    }
    let sizes: Vec<usize> = std::iter::from_fn(|| stream.next().now_or_never())
        .map(|item| item.unwrap().len())
        .collect();
    assert!(sizes[0] > 5000);
    assert_eq!(sizes.len(), 2, "{sizes:?}");
}

#[test]
fn event_larger_than_retention_is_refused() {
    let hub = Hub::builder(ManualTimer::new())
        .retain(Retain::default().events(10).bytes(100))
        .build()
        .unwrap();
    let error = hub.broadcast(Event::default().data("x".repeat(100))).unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { limit: 100, .. }));
    assert!(error.to_string().contains("Retain::bytes"));
    assert_eq!(hub.stats().published, 0);
}

#[test]
fn invalid_names_are_refused_everywhere() {
    let hub = hub();
    let long = "x".repeat(257);
    let cases = [
        (Audience::user(""), Subscriber::new().user(""), NameError::Empty(NameKind::User)),
        (Audience::session(""), Subscriber::new().session(""), NameError::Empty(NameKind::Session)),
        (Audience::topic(""), Subscriber::new().topic(""), NameError::Empty(NameKind::Topic)),
        (
            Audience::user(long.as_str()),
            Subscriber::new().user(long.as_str()),
            NameError::TooLong { kind: NameKind::User, len: 257, limit: 256 },
        ),
        (
            Audience::topic(long.as_str()),
            Subscriber::new().topic(long.as_str()),
            NameError::TooLong { kind: NameKind::Topic, len: 257, limit: 256 },
        ),
    ];
    for (audience, subscriber, error) in cases {
        assert_eq!(
            hub.publish(audience, Event::new("x")),
            Err(PublishError::Audience(error.into()))
        );
        let refused = hub.subscribe(subscriber).unwrap_err();
        assert_eq!(refused.cause(), RefusedCause::Name(error));
        assert!(!refused.is_temporary());
    }
    let longest = "ü".repeat(128);
    let _stream = hub.subscribe(Subscriber::new().user(longest.as_str())).unwrap();
    assert_eq!(hub.send_to_user(longest.as_str(), Event::new("x")).unwrap().matched(), 1);
}

#[test]
fn invalid_event_is_refused_and_not_stored() {
    let hub = hub();
    let error = hub.broadcast(Event::new("a\nb").data("x")).unwrap_err();
    assert!(matches!(error, PublishError::Event(EventError::Type(_))));
    assert_eq!(hub.broadcast(Event::default()), Err(PublishError::Event(EventError::Empty)));
    assert_eq!((hub.stats().published, hub.stats().retained), (0, 0));
}

#[test]
fn contradicting_settings_are_named() {
    let builder = || Hub::builder(ManualTimer::new());
    let wrong = [
        (
            builder().heartbeat(Heartbeat::default().every(Duration::ZERO)),
            ConfigError::Zero { setting: "Heartbeat::every" },
        ),
        (
            builder().retry(Duration::from_micros(999)),
            ConfigError::Retry { retry: Duration::from_micros(999) },
        ),
        (
            builder().retain(Retain::default().events(0)),
            ConfigError::Zero { setting: "Retain::events" },
        ),
        (
            builder().retain(Retain::default().events(1).bytes(0)),
            ConfigError::Zero { setting: "Retain::bytes" },
        ),
        (
            builder().retain(Retain::default().events(1).per_topic(0)),
            ConfigError::Zero { setting: "Retain::per_topic" },
        ),
        (
            builder().retain(Retain::default().events(1).age(Duration::ZERO)),
            ConfigError::Zero { setting: "Retain::age" },
        ),
        (
            builder().retain(Retain::default().events(1).per_topic(2)),
            ConfigError::PerTopic { per_topic: 2, events: 1 },
        ),
        (builder().window(0), ConfigError::Zero { setting: "window" }),
        (builder().max_batch_bytes(0), ConfigError::Zero { setting: "max_batch_bytes" }),
    ];
    for (builder, error) in wrong {
        assert_eq!(builder.build().unwrap_err(), error);
    }
}

#[test]
fn closed_hub_delivers_backlog_and_ends() {
    let hub = hub();
    let mut live = hub.subscribe(Subscriber::new()).unwrap();
    let mut unread = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut live);
    for _ in 0..100 {
        hub.broadcast(Event::new("x")).unwrap();
    }
    hub.close();
    hub.close();
    assert_eq!(hub.broadcast(Event::new("x")), Err(PublishError::Closed));
    let refused = hub.subscribe(Subscriber::new()).unwrap_err();
    assert_eq!(refused.cause(), RefusedCause::Closed);
    assert!(refused.is_temporary());
    for stream in [&mut live, &mut unread] {
        assert_eq!(read(stream).matches("event: x\n").count(), 100);
        assert_eq!(stream.next().now_or_never(), Some(None));
        assert_eq!(stream.next().now_or_never(), Some(None), "the stream must stay ended");
    }
    assert_eq!(hub.stats().clients, 0, "an ended stream must be forgotten before its drop");
}

#[test]
fn last_handle_closes_the_hub() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    read(&mut stream);
    let other = hub.clone();
    drop(hub);
    assert_eq!(stream.next().now_or_never(), None);
    drop(other);
    assert_eq!(stream.next().now_or_never(), Some(None));
}

#[test]
fn stalled_clients_pin_no_payload() {
    let retain = Retain::default().events(8).bytes(1 << 20);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().unwrap();
    let mut stalled: Vec<Subscription> =
        (0..100).map(|_| hub.subscribe(Subscriber::new()).unwrap()).collect();
    for _ in 0..1000 {
        hub.broadcast(Event::default().data("x".repeat(1000))).unwrap();
    }
    let stats = hub.stats();
    assert_eq!(stats.retained, 8);
    assert!(stats.retained_bytes <= 8 * 1100);
    for stream in &mut stalled {
        let text = read(stream);
        assert!(text.contains("event: hub:gap\n"));
        assert_eq!(text.matches("data: x").count(), 8);
    }
}

#[test]
fn displaced_stream_reads_nothing_of_its_successor() {
    let limits = Limits::default().per_user(1).displace_oldest(true);
    let hub = Hub::builder(ManualTimer::new()).window(1).limits(limits).build().unwrap();
    let mut old = hub.subscribe(Subscriber::new().user("alice")).unwrap();
    read(&mut old);
    for _ in 0..3 {
        hub.send_to_user("alice", Event::new("for-alice")).unwrap();
    }
    // The new client displaces alice and frees the slot, which bob takes.
    let other = hub.subscribe(Subscriber::new().user("alice")).unwrap();
    drop(other);
    let _bob = hub.subscribe(Subscriber::new().user("bob")).unwrap();
    let _carol = hub.subscribe(Subscriber::new().user("bob2")).unwrap();
    hub.send_to_user("bob", Event::new("for-bob")).unwrap();
    hub.send_to_user("bob2", Event::new("for-bob")).unwrap();

    let text = read(&mut old);
    assert!(!text.contains("for-bob"), "{text}");
    assert!(text.contains("event: hub:end\n") && text.contains("\"displaced\""), "{text}");
    assert_eq!(old.next().now_or_never(), Some(None));
    assert_eq!(hub.stats().clients, 2);
}
