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

/// All that the stream has now.
fn read(stream: &mut Subscription) -> String {
    let mut text = String::new();
    while let Some(Some(bytes)) = stream.next().now_or_never() {
        text += std::str::from_utf8(&bytes).unwrap();
    }
    text
}

#[test]
fn a_stream_opens_with_who_it_is_and_where_it_stands() {
    let hub = hub();
    let first = hub.broadcast(Event::new("before")).unwrap().id().unwrap();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let opening = read(&mut stream);
    let (start, rest) = opening.split_once("\nretry: ").unwrap();
    let (retry, rest) = rest.split_once('\n').unwrap();
    assert_eq!(start, "event: hub:open");
    assert!((2250..=3750).contains(&retry.parse::<u64>().unwrap()), "3 s, spread: {retry}");
    let client = stream.client();
    assert_eq!(
        rest,
        format!("data: {{\"client\":\"{client}\",\"resumed\":false}}\nid: {first}\n\n")
    );
}

#[test]
fn clients_are_told_to_come_back_at_different_times() {
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
fn each_audience_reaches_those_whom_it_names() {
    let hub = hub();
    let subscriber = || Subscriber::new().user("a").session("b").topic("c");
    let mut tab = hub.subscribe(subscriber()).unwrap();
    let mut nobody = hub.subscribe(Subscriber::new()).unwrap();
    // The same names of other kinds.
    let mut other = hub.subscribe(Subscriber::new().user("c").session("a").topic("b")).unwrap();
    for stream in [&mut tab, &mut nobody, &mut other] {
        read(stream);
    }
    let to = [
        Audience::user("a"),
        Audience::session("b"),
        Audience::topic("c"),
        Audience::client(tab.client()),
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
fn a_client_that_is_up_to_date_gets_nothing_again() {
    let hub = hub();
    let last = hub.broadcast(Event::new("x")).unwrap().id().unwrap();
    let mut stream = hub.subscribe(Subscriber::new().resume(last)).unwrap();
    assert!(stream.resumed());
    assert!(read(&mut stream).ends_with(&format!("\"resumed\":true}}\nid: {last}\n\n")));
}

#[test]
fn a_client_that_saw_no_event_yet_resumes_from_where_it_connected() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let opening = read(&mut stream);
    let last = opening.trim_end().rsplit_once("id: ").unwrap().1.to_owned();
    drop(stream);
    hub.broadcast(Event::new("meanwhile")).unwrap();
    let mut stream = hub.subscribe(Subscriber::new().resume(last.as_str())).unwrap();
    assert!(stream.resumed());
    assert!(read(&mut stream).contains("event: meanwhile\n"));
}

/// What a browser holds that read only the first frame of a stream.
fn cut_after_opening(hub: &Hub, subscriber: Subscriber) -> String {
    let mut stream = hub.subscribe(subscriber).unwrap();
    assert!(!stream.resumed());
    let opening = stream.next().now_or_never().unwrap().unwrap();
    let opening = std::str::from_utf8(&opening).unwrap();
    let (first, _) = opening.split_once("\n\n").unwrap();
    assert!(first.starts_with("event: hub:open\n"));
    first.rsplit_once("id: ").unwrap().1.to_owned()
}

#[test]
fn a_stream_cut_between_its_opening_and_the_gap_is_told_the_gap_again_and_repeats_nothing() {
    let retain = Retain::default().events(100).per_topic(2);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().unwrap();
    let publish = |topic: &str, name: &str| {
        hub.publish(Audience::topic(topic), Event::new(name)).unwrap().id().unwrap()
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
fn an_id_of_no_hub_is_told_a_gap_and_goes_on_from_now_also_after_a_cut() {
    let hub = hub();
    hub.broadcast(Event::new("seen")).unwrap();
    let strange =
        ["garbage", "0", "0-0", "-", "1-", "9999999999999999999-0", "99999999999999999999999-1"];
    for last in strange {
        let held = cut_after_opening(&hub, Subscriber::new().resume(last));
        hub.broadcast(Event::new("seen")).unwrap();
        let mut stream = hub.subscribe(Subscriber::new().resume(held.as_str())).unwrap();
        let now = hub.broadcast(Event::new("new")).unwrap().id().unwrap();
        let text = read(&mut stream);
        let held = now.predecessor();
        let gap = format!("event: hub:gap\ndata: {{\"reason\":\"unknown\"}}\nid: {held}\n\n");
        assert!(text.contains(&gap), "{last}: {text}");
        assert_eq!((text.matches("seen").count(), text.matches("new").count()), (0, 1), "{last}");
    }
}

#[test]
fn replay_is_for_who_the_client_is_now() {
    let hub = hub();
    let start = hub.broadcast(Event::new("x")).unwrap().id().unwrap();
    hub.send_to_user("alice", Event::new("private")).unwrap();
    let mut stream = hub.subscribe(Subscriber::new().user("bob").resume(start)).unwrap();
    assert!(stream.resumed());
    assert!(!read(&mut stream).contains("private"));
}

#[test]
fn what_a_filter_leaves_out_is_not_missed() {
    let hub = Hub::builder(ManualTimer::new()).retain(Retain::default().events(1)).build().unwrap();
    let start = hub.broadcast(Event::new("wanted")).unwrap().id().unwrap();
    for _ in 0..10 {
        hub.broadcast(Event::new("other")).unwrap();
    }
    let subscriber = || Subscriber::new().resume(start);
    assert!(hub.subscribe(subscriber().events(["wanted"])).unwrap().resumed());
    assert!(!hub.subscribe(subscriber()).unwrap().resumed());
    assert!(!hub.subscribe(subscriber().events(["wanted", "other"])).unwrap().resumed());
}

#[test]
fn a_busy_topic_does_not_push_out_the_others() {
    let retain = Retain::default().events(100).per_topic(2);
    let hub = Hub::builder(ManualTimer::new()).retain(retain).build().unwrap();
    let start = hub.publish(Audience::topic("quiet"), Event::new("first")).unwrap().id().unwrap();
    let quiet = hub.publish(Audience::topic("quiet"), Event::new("second")).unwrap().id().unwrap();
    for _ in 0..10_000 {
        hub.publish(Audience::topic("busy"), Event::new("x")).unwrap();
    }
    assert_eq!(hub.stats().retained, 4);
    let mut stream = hub.subscribe(Subscriber::new().topic("quiet").resume(start)).unwrap();
    assert!(stream.resumed());
    assert!(read(&mut stream).ends_with(&format!("id: {quiet}\n\n")));
}

#[test]
fn a_large_event_travels_alone_and_a_burst_travels_together() {
    let hub = Hub::builder(ManualTimer::new()).batch(1000).build().unwrap();
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
fn an_event_larger_than_all_that_is_retained_is_refused() {
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
fn names_that_cannot_be_are_refused_on_both_sides() {
    let hub = hub();
    let long = "x".repeat(257);
    let cases = [
        (Audience::user(""), Subscriber::new().user(""), NameError::Empty(NameKind::User)),
        (Audience::session(""), Subscriber::new().session(""), NameError::Empty(NameKind::Session)),
        (Audience::topic(""), Subscriber::new().topic(""), NameError::Empty(NameKind::Topic)),
        (
            Audience::user(long.as_str()),
            Subscriber::new().user(long.as_str()),
            NameError::TooLong { kind: NameKind::User, max_len: 256 },
        ),
        (
            Audience::topic(long.as_str()),
            Subscriber::new().topic(long.as_str()),
            NameError::TooLong { kind: NameKind::Topic, max_len: 256 },
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
fn an_invalid_event_is_an_error_and_nothing_is_stored() {
    let hub = hub();
    let error = hub.broadcast(Event::new("a\nb").data("x")).unwrap_err();
    assert!(matches!(error, PublishError::Event(EventError::Type(_))));
    assert_eq!(hub.broadcast(Event::default()), Err(PublishError::Event(EventError::Empty)));
    assert_eq!((hub.stats().published, hub.stats().retained), (0, 0));
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let builder = || Hub::builder(ManualTimer::new());
    let wrong = [
        (builder().heartbeat(Heartbeat::default().every(Duration::ZERO)), ConfigError::Heartbeat),
        (builder().retry(Duration::from_micros(999)), ConfigError::Retry),
        (builder().retain(Retain::default().events(0)), ConfigError::RetainsNothing("events")),
        (
            builder().retain(Retain::default().events(1).bytes(0)),
            ConfigError::RetainsNothing("bytes"),
        ),
        (
            builder().retain(Retain::default().events(1).per_topic(0)),
            ConfigError::RetainsNothing("per_topic"),
        ),
        (
            builder().retain(Retain::default().events(1).age(Duration::ZERO)),
            ConfigError::RetainsNothing("age"),
        ),
        (
            builder().retain(Retain::default().events(1).per_topic(2)),
            ConfigError::PerTopic { per_topic: 2, events: 1 },
        ),
        (builder().window(0), ConfigError::Window),
        (builder().batch(0), ConfigError::Batch),
    ];
    for (builder, error) in wrong {
        assert_eq!(builder.build().unwrap_err(), error);
    }
}

#[test]
fn a_closed_hub_delivers_what_was_published_and_ends() {
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
        assert_eq!(stream.next().now_or_never(), Some(None), "it stays ended");
    }
    assert_eq!(hub.stats().clients, 0, "a stream that ended is forgotten before it is dropped");
}

#[test]
fn the_last_handle_closes_the_hub() {
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
fn a_displaced_client_that_is_behind_reads_nothing_in_the_name_of_its_successor() {
    let limits = Limits::default().per_user(1).displace_oldest();
    let hub = Hub::builder(ManualTimer::new()).window(1).limits(limits).build().unwrap();
    let mut old = hub.subscribe(Subscriber::new().user("alice")).unwrap();
    read(&mut old);
    for _ in 0..3 {
        hub.send_to_user("alice", Event::new("for-alice")).unwrap();
    }
    // Takes alice's place, which frees the slot, and bob takes the slot.
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
