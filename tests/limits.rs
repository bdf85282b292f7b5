//! Limits on the number of clients and of their topics: at each limit, and just beyond.

mod support;

use std::time::Duration;

use sse_hub::{
    Audience, AudienceError, ConfigError, EndReason, Event, EventId, Hub, JoinError, Limits,
    ManualTimer, NameError, NameKind, PublishError, Refused, RefusedCause, Retain, Stats,
    Subscriber, Subscription,
};

use support::{data, end, frames, gaps, has_ended, hub_with, last_id, read, wait};

fn limited(limits: Limits) -> Hub {
    hub_with(|hub| hub.limits(limits)).0
}

/// Asserts that the client is refused and that only the count of refusals changes.
fn refused(hub: &Hub, subscriber: Subscriber) -> Refused {
    let before = hub.stats();
    let refused = hub.subscribe(subscriber).unwrap_err();
    let after = hub.stats();
    assert_eq!(after.refused(refused.cause()), before.refused(refused.cause()) + 1);
    let holds = |stats: Stats| {
        let ended = EndReason::ALL.iter().map(|&reason| stats.ended(reason)).collect::<Vec<_>>();
        (stats.clients, stats.client_names, stats.retained, stats.opened, ended)
    };
    assert_eq!(holds(after), holds(before));
    refused
}

#[test]
fn full_hub_has_room_after_a_client_leaves() {
    let hub = limited(Limits::default().clients(2));
    let first = hub.subscribe(Subscriber::new().user("a")).unwrap();
    let _second = hub.subscribe(Subscriber::new().user("b")).unwrap();
    let error = refused(&hub, Subscriber::new().user("c").session("s").topic("t"));
    assert_eq!(error.cause(), RefusedCause::Full { limit: 2 });
    assert_eq!(error.to_string(), "the hub has 2 clients, the limit of `Limits::clients`");
    assert!(error.is_temporary());
    assert_eq!(hub.count(Audience::user("c")), 0);
    drop(first);
    let _third = hub.subscribe(Subscriber::new().user("c")).unwrap();
    assert_eq!(hub.stats().clients, 2);
}

#[test]
fn user_and_session_have_separate_limits() {
    let hub = limited(Limits::default().per_user(2).per_session(1));
    let who = |user: &str, session: &str| Subscriber::new().user(user).session(session);
    let _first = hub.subscribe(who("a", "s1")).unwrap();
    let cause = refused(&hub, who("a", "s1")).cause();
    assert_eq!(cause, RefusedCause::SessionFull { limit: 1 });
    let second = hub.subscribe(who("a", "s2")).unwrap();
    let error = refused(&hub, who("a", "s3"));
    assert_eq!(error.cause(), RefusedCause::UserFull { limit: 2 });
    assert!(error.is_temporary());
    let _other = hub.subscribe(who("b", "s3")).unwrap();
    // The same name, but of the other kind.
    let _turned = hub.subscribe(who("s1", "a")).unwrap();
    // A client without a user and a session has no such limit.
    let nobody = || hub.subscribe(Subscriber::new()).unwrap();
    let _nobodies: Vec<Subscription> = (0..10).map(|_| nobody()).collect();
    drop(second);
    let _third = hub.subscribe(who("a", "s4")).unwrap();
}

#[test]
fn too_many_topics_are_refused_repeats_count_once() {
    let hub = limited(Limits::default().topics(2));
    let error = refused(&hub, Subscriber::new().topics(["a", "b", "c"]));
    assert_eq!(error.cause(), RefusedCause::TooManyTopics { limit: 2 });
    assert!(!error.is_temporary());
    let _stream = hub.subscribe(Subscriber::new().topics(["a", "b", "a"]).topic("b")).unwrap();

    let none = limited(Limits::default().topics(0));
    refused(&none, Subscriber::new().topic("a"));
    let _stream = none.subscribe(Subscriber::new()).unwrap();
    let error = none.join(Audience::all(), "a");
    assert_eq!(error, Err(JoinError::TooManyTopics { limit: 0 }));
}

#[test]
fn default_limits_are_64_topics_and_256_bytes() {
    let hub = limited(Limits::default());
    let topics = |count: usize| (0..count).map(|topic| topic.to_string());
    let _stream = hub.subscribe(Subscriber::new().topics(topics(64))).unwrap();
    let cause = refused(&hub, Subscriber::new().topics(topics(65))).cause();
    assert_eq!(cause, RefusedCause::TooManyTopics { limit: 64 });
    let _stream = hub.subscribe(Subscriber::new().user("x".repeat(256))).unwrap();
    let cause = refused(&hub, Subscriber::new().user("x".repeat(257))).cause();
    let error = NameError::TooLong { kind: NameKind::User, len: 257, limit: 256 };
    assert_eq!(cause, RefusedCause::Name(error));
}

#[test]
fn more_event_types_than_allowed_are_refused() {
    let hub = limited(Limits::default().event_types(2).name_len(4));
    let error = refused(&hub, Subscriber::new().event_types(["a", "b", "c"]));
    assert_eq!(error.cause(), RefusedCause::TooManyEventTypes { limit: 2 });
    assert_eq!(error.to_string(), "more than 2 event types, the limit of `Limits::event_types`");
    assert_eq!(error.cause().as_str(), "event-types");
    assert!(!error.is_temporary());
    // A type counts once, and the last selection counts.
    let twice = ["a", "b", "a", "b", "b"];
    let _stream = hub.subscribe(Subscriber::new().event_types(twice)).unwrap();
    let replaced = Subscriber::new().event_types(["a", "b", "c"]).event_types(["d"]);
    let mut stream = hub.subscribe(replaced).unwrap();
    hub.broadcast(Event::new("a").data("1")).unwrap();
    hub.broadcast(Event::new("d").data("2")).unwrap();
    assert_eq!(data(&read(&mut stream)), ["2"]);

    let none = limited(Limits::default().event_types(0));
    refused(&none, Subscriber::new().event_types(["a"]));
    let nothing: [&str; 0] = [];
    let _stream = none.subscribe(Subscriber::new().event_types(nothing)).unwrap();
    let _stream = none.subscribe(Subscriber::new()).unwrap();

    let default = limited(Limits::default());
    let types = |count: usize| (0..count).map(|number| number.to_string());
    let _stream = default.subscribe(Subscriber::new().event_types(types(64))).unwrap();
    let cause = refused(&default, Subscriber::new().event_types(types(65))).cause();
    assert_eq!(cause, RefusedCause::TooManyEventTypes { limit: 64 });
}

#[test]
fn long_event_types_are_refused() {
    let hub = limited(Limits::default().name_len(4));
    let _stream = hub.subscribe(Subscriber::new().event_types(["four", "", "é+2"])).unwrap();
    for (long, len) in [("fives", 5), ("éé+", 5), ("message", 7)] {
        let error = refused(&hub, Subscriber::new().event_types(["a", long]));
        assert_eq!(error.cause(), RefusedCause::EventTypeTooLong { len, limit: 4 });
        assert_eq!(error.cause().as_str(), "event-type-length");
        assert!(!error.is_temporary() && error.to_string().contains("`Limits::name_len`"));
    }
    let default = limited(Limits::default());
    let _stream = default.subscribe(Subscriber::new().event_types(["x".repeat(256)])).unwrap();
    let cause = refused(&default, Subscriber::new().event_types(["x".repeat(257)])).cause();
    assert_eq!(cause, RefusedCause::EventTypeTooLong { len: 257, limit: 256 });
}

#[test]
fn refused_request_displaces_nobody() {
    let limits = Limits::default().per_user(1).displace_oldest(true).event_types(1).topics(1);
    let hub = limited(limits);
    let who = || Subscriber::new().user("u").session("s");
    let mut stream = hub.subscribe(who()).unwrap();
    let again = || who().client_id(stream.client_id());
    for client in [again().event_types(["a", "b"]), again().topics(["a", "b"])] {
        refused(&hub, client);
    }
    read(&mut stream);
    assert!(!has_ended(&mut stream));
}

/// Adds each topic by itself, as a handler does that reads a query.
#[test]
fn many_topics_and_types_are_refused_early() {
    const MANY: usize = 100_000;
    support::within(Duration::from_secs(20), || {
        let hub = limited(Limits::default());
        let name = |number: usize| format!("topic-{number}");
        let topics = (0..MANY).fold(Subscriber::new(), |who, number| who.topic(name(number)));
        let cause = refused(&hub, topics).cause();
        assert_eq!(cause, RefusedCause::TooManyTopics { limit: 64 });
        let cause = refused(&hub, Subscriber::new().event_types((0..MANY).map(name))).cause();
        assert_eq!(cause, RefusedCause::TooManyEventTypes { limit: 64 });
        // Repeated topics count once.
        let same = (0..MANY).fold(Subscriber::new(), |who, _| who.topic("a"));
        let same = same.event_types((0..MANY).map(|_| "a"));
        let stream = hub.subscribe(same).unwrap();
        assert_eq!(hub.clients(Audience::all())[0].topics.len(), 1);
        drop(stream);
    });
}

#[test]
fn names_are_allowed_up_to_the_limit() {
    let hub = limited(Limits::default().name_len(4));
    // The limit counts bytes, not characters.
    let (fits, long) = ("üü", "üüx");
    let stream = hub.subscribe(Subscriber::new().user(fits).session(fits).topic(fits)).unwrap();
    for audience in [Audience::user(fits), Audience::session(fits), Audience::topic(fits)] {
        assert_eq!(hub.publish(audience, Event::new("x")).unwrap().matched(), 1);
    }
    let me = Audience::client(stream.client_id());
    assert_eq!(hub.join(&me, "four").map(|clients| clients.changed), Ok(1));

    let error = |kind| NameError::TooLong { kind, len: 5, limit: 4 };
    let kinds = [
        (NameKind::User, Subscriber::new().user(long), Audience::user(long)),
        (NameKind::Session, Subscriber::new().session(long), Audience::session(long)),
        (NameKind::Topic, Subscriber::new().topic(long), Audience::topic(long)),
    ];
    for (kind, subscriber, audience) in kinds {
        let refused = refused(&hub, subscriber);
        assert_eq!(refused.cause(), RefusedCause::Name(error(kind)));
        assert!(!refused.is_temporary());
        let published = hub.publish(audience.clone(), Event::new("x"));
        assert_eq!(published, Err(PublishError::Audience(AudienceError::Name(error(kind)))));
        assert_eq!(
            hub.join(&audience, "t"),
            Err(JoinError::Audience(AudienceError::Name(error(kind))))
        );
    }
    assert_eq!(hub.join(&me, long), Err(JoinError::Topic(error(NameKind::Topic))));
    assert_eq!(hub.join(&me, ""), Err(JoinError::Topic(NameError::Empty(NameKind::Topic))));
}

#[test]
fn limit_of_zero_clients_is_named() {
    let default = Limits::default;
    let wrong = [
        (Limits::default().clients(0), "Limits::clients"),
        (default().per_user(0), "Limits::per_user"),
        (default().per_session(0), "Limits::per_session"),
        (default().name_len(0), "Limits::name_len"),
    ];
    for (limits, name) in wrong {
        let error = Hub::builder(ManualTimer::new()).limits(limits).build().unwrap_err();
        assert_eq!(error, ConfigError::Zero { setting: name });
        assert!(error.to_string().contains(&format!("`{name}`")));
    }
    let zero = Duration::ZERO;
    let wrong = [
        (Hub::builder(ManualTimer::new()).lifetime(zero), "lifetime"),
        (Hub::builder(ManualTimer::new()).stalled_after(zero), "stalled_after"),
    ];
    for (builder, name) in wrong {
        assert_eq!(builder.build().unwrap_err(), ConfigError::Zero { setting: name });
    }
}

#[test]
fn oldest_client_of_user_is_displaced_with_backlog() {
    let hub = limited(Limits::default().per_user(2).displace_oldest(true));
    let user = || hub.subscribe(Subscriber::new().user("a")).unwrap();
    let mut other = hub.subscribe(Subscriber::new().user("b")).unwrap();
    let (mut first, mut second) = (user(), user());
    for stream in [&mut other, &mut first, &mut second] {
        read(stream);
    }
    let woken = wait(&mut first);
    hub.send_to_user("a", Event::new("x").data("before")).unwrap();
    let mut third = user();
    read(&mut third);
    assert_eq!(hub.send_to_user("a", Event::new("x").data("after")).unwrap().matched(), 2);
    assert_eq!(woken.count(), 1);
    assert_eq!(hub.stats().clients, 3);

    let text = read(&mut first);
    assert_eq!(data(&text), ["before"]);
    assert_eq!(end(&text).as_deref(), Some("displaced"));
    let retry = frames(&text).last().unwrap().retry.unwrap().as_millis();
    assert!((2250..=3750).contains(&retry), "{retry}");
    assert!(has_ended(&mut first));
    assert_eq!(data(&read(&mut second)), ["before", "after"]);
    assert_eq!(data(&read(&mut third)), ["after"]);
    assert_eq!(data(&read(&mut other)), [""; 0]);
    drop(first);
    let stats = hub.stats();
    assert_eq!((stats.clients, stats.ended(EndReason::Displaced)), (3, 1));
    assert_eq!(stats.ended(EndReason::Left), 0);

    // The next oldest client is displaced next.
    let _fourth = user();
    assert_eq!(end(&read(&mut second)).as_deref(), Some("displaced"));
    assert_eq!(end(&read(&mut third)), None);
}

#[test]
fn displaced_idle_stream_is_woken() {
    let hub = limited(Limits::default().per_session(1).displace_oldest(true));
    let session = || hub.subscribe(Subscriber::new().session("s")).unwrap();
    let mut first = session();
    read(&mut first);
    let woken = wait(&mut first);
    let mut second = session();
    assert_eq!(woken.count(), 1);
    assert_eq!(end(&read(&mut first)).as_deref(), Some("displaced"));
    assert!(has_ended(&mut first));
    assert_eq!(end(&read(&mut second)), None);
}

#[test]
fn client_at_both_limits_displaces_two() {
    let limits = Limits::default().clients(3).per_user(2).per_session(1).displace_oldest(true);
    let hub = limited(limits);
    let who = |user: &str, session: &str| {
        hub.subscribe(Subscriber::new().user(user).session(session)).unwrap()
    };
    let mut streams = [who("a", "s1"), who("b", "s2"), who("a", "s3")];
    for stream in &mut streams {
        read(stream);
    }
    let mut newest = who("a", "s2");
    read(&mut newest);
    let ends = streams.each_mut().map(|stream| end(&read(stream)));
    assert_eq!(ends.map(|end| end.is_some()), [true, true, false]);
    assert_eq!(hub.stats().clients, 2);
}

#[test]
fn refused_client_displaces_no_client() {
    let hub = limited(Limits::default().clients(2).per_user(1).topics(1).displace_oldest(true));
    let mut first = hub.subscribe(Subscriber::new().user("a")).unwrap();
    let mut second = hub.subscribe(Subscriber::new().user("b")).unwrap();
    for stream in [&mut first, &mut second] {
        read(stream);
    }
    assert_eq!(refused(&hub, Subscriber::new()).cause(), RefusedCause::Full { limit: 2 });
    refused(&hub, Subscriber::new().user("a").topics(["x", "y"]));
    refused(&hub, Subscriber::new().user("a").topic(""));
    assert!(!has_ended(&mut first) && !has_ended(&mut second));
    // A client that displaces another needs no additional room.
    let _third = hub.subscribe(Subscriber::new().user("a")).unwrap();
    assert_eq!(hub.stats().clients, 2);
    assert_eq!(end(&read(&mut first)).as_deref(), Some("displaced"));
}

#[test]
fn displaced_client_resumes_without_a_gap() {
    let hub = limited(Limits::default().per_user(1).displace_oldest(true));
    let user = || Subscriber::new().user("a");
    let mut first = hub.subscribe(user()).unwrap();
    hub.send_to_user("a", Event::new("x").data("1")).unwrap();
    let _second = hub.subscribe(user()).unwrap();
    let text = read(&mut first);
    hub.send_to_user("a", Event::new("x").data("2")).unwrap();
    let mut again = hub.subscribe(user().resume(last_id(&text))).unwrap();
    assert!(again.is_resumed());
    assert_eq!([data(&text), data(&read(&mut again))].concat(), ["1", "2"]);
}

#[test]
fn displaced_stream_behind_resumes_its_own_events() {
    let limits = Limits::default().per_user(1).displace_oldest(true);
    let (hub, _) = hub_with(|hub| hub.window(1).limits(limits));
    let who = |session: &str, topic: &str| {
        Subscriber::new().user("a").session(session.to_owned()).topic(topic.to_owned())
    };
    let mut first = hub.subscribe(who("old", "own")).unwrap();
    let mut page = read(&mut first);
    for number in 0..5 {
        hub.publish(Audience::topic("own"), Event::new("x").data(number.to_string())).unwrap();
        hub.publish(Audience::session("new"), Event::new("x").data("of another")).unwrap();
        hub.publish(Audience::topic("other"), Event::new("x").data("of another")).unwrap();
    }
    let second = hub.subscribe(who("new", "other")).unwrap();
    let text = read(&mut first);
    assert_eq!(end(&text).as_deref(), Some("displaced"));
    assert!(has_ended(&mut first));
    drop(second);
    page += &text;
    let mut again = hub.subscribe(who("old", "own").resume(last_id(&page))).unwrap();
    assert!(again.is_resumed());
    page += &read(&mut again);
    assert_eq!(data(&page), ["0", "1", "2", "3", "4"]);
}

fn publish(hub: &Hub, count: usize) -> Vec<EventId> {
    let event = |number: usize| Event::new("x").data(number.to_string());
    (0..count)
        .map(|number| hub.publish_confirmed(Audience::all(), event(number)).unwrap().id().unwrap())
        .collect()
}

#[test]
fn replay_beyond_the_cap_sends_a_gap() {
    let hub = limited(Limits::default().replay(3));
    let ids = publish(&hub, 10);
    for (number, &id) in ids.iter().enumerate() {
        let mut stream = hub.subscribe(Subscriber::new().resume(id)).unwrap();
        let missing = 9 - number;
        assert_eq!(stream.is_resumed(), missing <= 3, "{missing}");
        let text = read(&mut stream);
        let told = if missing <= 3 { vec![] } else { vec!["capped"] };
        assert_eq!(gaps(&text), told);
        let newest: Vec<String> =
            (10 - missing.min(3)..10).map(|number| number.to_string()).collect();
        assert_eq!(data(&text), newest, "{missing}");
    }
}

#[test]
fn capped_gap_and_opening_ids_resume() {
    let hub = limited(Limits::default().replay(3));
    let ids = publish(&hub, 10);
    let text = read(&mut hub.subscribe(Subscriber::new().resume(ids[1])).unwrap());
    let frames = frames(&text);
    let (open, gap) = (&frames[0], &frames[1]);
    assert_eq!(
        open.id,
        Some(ids[1]),
        "a stream cut before the gap must resume at its old position"
    );
    assert_eq!(gap.id, Some(ids[6]));
    let mut again = hub.subscribe(Subscriber::new().resume(gap.id.unwrap())).unwrap();
    assert!(again.is_resumed());
    assert_eq!(data(&read(&mut again)), ["7", "8", "9"]);
}

#[test]
fn cap_counts_own_events_and_zero_disables_replay() {
    let hub = limited(Limits::default().replay(2));
    let start = publish(&hub, 1)[0];
    for number in 0..10 {
        hub.send_to_user("other", Event::new("x").data("of another")).unwrap();
        if number % 5 == 0 {
            hub.send_to_user("me", Event::new("x").data(number.to_string())).unwrap();
            hub.send_to_user("me", Event::new("y").data("unwanted")).unwrap();
        }
    }
    let me = Subscriber::new().user("me").event_types(["x"]).resume(start);
    let mut stream = hub.subscribe(me).unwrap();
    assert!(stream.is_resumed());
    assert_eq!(data(&read(&mut stream)), ["0", "5"]);

    let hub = limited(Limits::default().replay(0));
    let ids = publish(&hub, 2);
    assert!(hub.subscribe(Subscriber::new().resume(ids[1])).unwrap().is_resumed());
    let mut stream = hub.subscribe(Subscriber::new().resume(ids[0])).unwrap();
    hub.broadcast(Event::new("x").data("new")).unwrap();
    let text = read(&mut stream);
    assert_eq!((gaps(&text), data(&text)), (vec!["capped".to_owned()], vec!["new".to_owned()]));
}

#[test]
fn cap_holds_after_lost_events() {
    let (hub, _) =
        hub_with(|hub| hub.retain(Retain::default().events(5)).limits(Limits::default().replay(3)));
    let ids = publish(&hub, 10);
    let text = read(&mut hub.subscribe(Subscriber::new().resume(ids[0])).unwrap());
    assert_eq!((gaps(&text).len(), data(&text)), (1, ["7", "8", "9"].map(str::to_owned).to_vec()));
}

#[cfg(feature = "http")]
mod over_http {
    use http_body_util::BodyExt as _;
    use sse_hub::RefusalStyle;

    use super::*;

    fn body(response: http::Response<sse_hub::http::Body>) -> String {
        let body = futures_executor::block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Returns a hub, a connected client, and a client that the hub refuses for this cause.
    type Case = (Limits, Option<Subscriber>, Subscriber, &'static str, u16);

    fn temporary() -> [Case; 3] {
        let default = Limits::default;
        let (user, session) = (|| Subscriber::new().user("a"), || Subscriber::new().session("s"));
        [
            (Limits::default().clients(1), Some(Subscriber::new()), Subscriber::new(), "full", 503),
            (default().per_user(1), Some(user()), user(), "user-full", 429),
            (default().per_session(1), Some(session()), session(), "session-full", 429),
        ]
    }

    #[test]
    fn soft_refusal_is_a_stream_by_default() {
        for (limits, held, client, word, _) in temporary() {
            let hub = limited(limits);
            let _held = held.map(|held| hub.subscribe(held).unwrap());
            let refused = hub.subscribe(client).unwrap_err();
            let response = sse_hub::http::into_response(Err(refused));
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            assert!(!response.headers().contains_key("retry-after"));
            let [frame] = frames(&body(response)).try_into().unwrap();
            assert_eq!((frame.event.as_str(), frame.reason()), ("hub:refused", Some(word)));
            assert!((2250..=3750).contains(&frame.retry.unwrap().as_millis()), "{frame:?}");
            assert_eq!(frame.id, None, "the refusal must not carry an id");
        }
    }

    #[test]
    fn soft_refusal_is_a_status_if_set() {
        for (limits, held, client, _, status) in temporary() {
            let (hub, _) = hub_with(|hub| hub.limits(limits).refusals(RefusalStyle::Status));
            let _held = held.map(|held| hub.subscribe(held).unwrap());
            let refused = hub.subscribe(client).unwrap_err();
            let (retry, text) = (refused.retry(), refused.to_string());
            let response = sse_hub::http::into_response(Err(refused));
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((3..=4).contains(&seconds), "2.25 to 3.75 s, rounded up");
            assert!(retry <= Duration::from_secs(seconds));
            assert!(retry > Duration::from_secs(seconds - 1));
            assert_eq!(body(response), text);
        }
    }

    #[test]
    fn closed_and_draining_hubs_refuse_softly() {
        for (word, cause) in
            [("closed", RefusedCause::Closed), ("draining", RefusedCause::Draining)]
        {
            for (refusals, status) in [(RefusalStyle::Stream, 200), (RefusalStyle::Status, 503)] {
                let (hub, _) = hub_with(|hub| hub.refusals(refusals));
                match cause {
                    RefusedCause::Closed => hub.close(),
                    _ => drop(hub.drain(Duration::from_secs(1))),
                }
                let refused = super::refused(&hub, Subscriber::new());
                assert_eq!((refused.cause(), refused.cause().as_str()), (cause, word));
                assert!(refused.is_temporary());
                assert_eq!(sse_hub::http::into_response(Err(refused)).status(), status);
            }
        }
    }

    #[test]
    fn permanent_refusal_is_a_bad_request() {
        for refusals in [RefusalStyle::Stream, RefusalStyle::Status] {
            let limits = Limits::default().topics(1).event_types(1);
            let (hub, _) = hub_with(|hub| hub.limits(limits).refusals(refusals));
            for client in [
                Subscriber::new().topics(["a", "b"]),
                Subscriber::new().user(""),
                Subscriber::new().event_types(["a", "b"]),
                Subscriber::new().event_types(["x".repeat(257)]),
            ] {
                let refused = super::refused(&hub, client);
                let response = sse_hub::http::into_response(Err(refused));
                assert_eq!(response.status(), 400);
                assert!(!response.headers().contains_key("retry-after"));
                assert_eq!(body(response), refused.to_string());
            }
        }
    }
}
