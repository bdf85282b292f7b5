//! How many clients there may be and what one may ask for: at each limit, and one beyond.

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

/// Refuses a client, of which no trace is kept but the count.
fn refused(hub: &Hub, subscriber: Subscriber) -> Refused {
    let before = hub.stats();
    let refused = hub.subscribe(subscriber).unwrap_err();
    let after = hub.stats();
    assert_eq!(after.refused(refused.cause()), before.refused(refused.cause()) + 1);
    let holds = |stats: Stats| {
        let ended = EndReason::ALL.map(|reason| stats.ended(reason));
        (stats.clients, stats.names, stats.retained, stats.opened, ended)
    };
    assert_eq!(holds(after), holds(before));
    refused
}

#[test]
fn a_hub_is_full_at_its_limit_and_has_room_again_when_one_leaves() {
    let hub = limited(Limits::clients(2));
    let first = hub.subscribe(Subscriber::new().user("a")).unwrap();
    let _second = hub.subscribe(Subscriber::new().user("b")).unwrap();
    let error = refused(&hub, Subscriber::new().user("c").session("s").topic("t"));
    assert_eq!(error.cause(), RefusedCause::Full { limit: 2 });
    assert_eq!(error.to_string(), "there are 2 clients, which is the limit");
    assert!(error.is_temporary());
    assert_eq!(hub.count(&Audience::user("c")), 0);
    drop(first);
    let _third = hub.subscribe(Subscriber::new().user("c")).unwrap();
    assert_eq!(hub.stats().clients, 2);
}

#[test]
fn a_user_and_a_session_have_limits_of_their_own() {
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
    // The same name as another's, but of the other kind.
    let _turned = hub.subscribe(who("s1", "a")).unwrap();
    // Who has neither has no such limit.
    let nobody = || hub.subscribe(Subscriber::new()).unwrap();
    let _nobodies: Vec<Subscription> = (0..10).map(|_| nobody()).collect();
    drop(second);
    let _third = hub.subscribe(who("a", "s4")).unwrap();
}

#[test]
fn more_topics_than_allowed_are_refused_for_good_and_the_same_twice_is_one() {
    let hub = limited(Limits::default().topics(2));
    let error = refused(&hub, Subscriber::new().topics(["a", "b", "c"]));
    assert_eq!(error.cause(), RefusedCause::TooManyTopics { limit: 2 });
    assert!(!error.is_temporary());
    let _stream = hub.subscribe(Subscriber::new().topics(["a", "b", "a"]).topic("b")).unwrap();

    let none = limited(Limits::default().topics(0));
    refused(&none, Subscriber::new().topic("a"));
    let _stream = none.subscribe(Subscriber::new()).unwrap();
    let error = none.join(&Audience::all(), "a");
    assert_eq!(error, Err(JoinError::TooManyTopics { limit: 0 }));
}

#[test]
fn sixty_four_topics_and_names_of_256_bytes_are_allowed_unless_set() {
    let hub = limited(Limits::default());
    let topics = |count: usize| (0..count).map(|topic| topic.to_string());
    let _stream = hub.subscribe(Subscriber::new().topics(topics(64))).unwrap();
    let cause = refused(&hub, Subscriber::new().topics(topics(65))).cause();
    assert_eq!(cause, RefusedCause::TooManyTopics { limit: 64 });
    let _stream = hub.subscribe(Subscriber::new().user("x".repeat(256))).unwrap();
    let cause = refused(&hub, Subscriber::new().user("x".repeat(257))).cause();
    let error = NameError::TooLong { kind: NameKind::User, max_len: 256 };
    assert_eq!(cause, RefusedCause::Name(error));
}

#[test]
fn names_are_allowed_up_to_their_limit_everywhere() {
    let hub = limited(Limits::default().name_len(4));
    // Bytes count, and not characters.
    let (fits, long) = ("üü", "üüx");
    let stream = hub.subscribe(Subscriber::new().user(fits).session(fits).topic(fits)).unwrap();
    for audience in [Audience::user(fits), Audience::session(fits), Audience::topic(fits)] {
        assert_eq!(hub.publish(audience, Event::new("x")).unwrap().matched(), 1);
    }
    let me = Audience::client(stream.client());
    assert_eq!(hub.join(&me, "four"), Ok(1));

    let error = |kind| NameError::TooLong { kind, max_len: 4 };
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
fn a_limit_of_zero_that_lets_nobody_in_is_named() {
    let default = Limits::default;
    let wrong = [
        (Limits::clients(0), "clients"),
        (default().per_user(0), "per_user"),
        (default().per_session(0), "per_session"),
        (default().name_len(0), "name_len"),
    ];
    for (limits, name) in wrong {
        let error = Hub::builder(ManualTimer::new()).limits(limits).build().unwrap_err();
        assert_eq!(error, ConfigError::LimitIsZero(name));
        assert!(error.to_string().contains(&format!("`Limits::{name}`")));
    }
    let zero = Duration::ZERO;
    let wrong = [
        (Hub::builder(ManualTimer::new()).lifetime(zero), "lifetime"),
        (Hub::builder(ManualTimer::new()).stalled_after(zero), "stalled_after"),
    ];
    for (builder, name) in wrong {
        assert_eq!(builder.build().unwrap_err(), ConfigError::EndsAtOnce(name));
    }
}

#[test]
fn the_oldest_of_a_user_makes_room_for_the_newest_and_gets_what_was_published_before() {
    let hub = limited(Limits::default().per_user(2).displace_oldest());
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
    let retry = frames(&text).last().unwrap().retry.unwrap();
    assert!((2250..=3750).contains(&retry), "{retry}");
    assert!(has_ended(&mut first));
    assert_eq!(data(&read(&mut second)), ["before", "after"]);
    assert_eq!(data(&read(&mut third)), ["after"]);
    assert_eq!(data(&read(&mut other)), [""; 0]);
    drop(first);
    let stats = hub.stats();
    assert_eq!((stats.clients, stats.ended(EndReason::Displaced)), (3, 1));
    assert_eq!(stats.ended(EndReason::Left), 0);

    // The next in age is next.
    let _fourth = user();
    assert_eq!(end(&read(&mut second)).as_deref(), Some("displaced"));
    assert_eq!(end(&read(&mut third)), None);
}

#[test]
fn a_displaced_stream_that_was_idle_is_woken_to_end() {
    let hub = limited(Limits::default().per_session(1).displace_oldest());
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
fn one_that_is_at_both_limits_displaces_one_of_each() {
    let limits = Limits::clients(3).per_user(2).per_session(1).displace_oldest();
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
fn a_full_hub_refuses_and_displaces_nobody_for_a_client_that_it_does_not_let_in() {
    let hub = limited(Limits::clients(2).per_user(1).topics(1).displace_oldest());
    let mut first = hub.subscribe(Subscriber::new().user("a")).unwrap();
    let mut second = hub.subscribe(Subscriber::new().user("b")).unwrap();
    for stream in [&mut first, &mut second] {
        read(stream);
    }
    assert_eq!(refused(&hub, Subscriber::new()).cause(), RefusedCause::Full { limit: 2 });
    refused(&hub, Subscriber::new().user("a").topics(["x", "y"]));
    refused(&hub, Subscriber::new().user("a").topic(""));
    assert!(!has_ended(&mut first) && !has_ended(&mut second));
    // Who displaces takes no more room than there was.
    let _third = hub.subscribe(Subscriber::new().user("a")).unwrap();
    assert_eq!(hub.stats().clients, 2);
    assert_eq!(end(&read(&mut first)).as_deref(), Some("displaced"));
}

#[test]
fn a_displaced_client_that_comes_back_resumes_without_a_gap() {
    let hub = limited(Limits::default().per_user(1).displace_oldest());
    let user = || Subscriber::new().user("a");
    let mut first = hub.subscribe(user()).unwrap();
    hub.send_to_user("a", Event::new("x").data("1")).unwrap();
    let _second = hub.subscribe(user()).unwrap();
    let text = read(&mut first);
    hub.send_to_user("a", Event::new("x").data("2")).unwrap();
    let mut again = hub.subscribe(user().resume(last_id(&text))).unwrap();
    assert!(again.resumed());
    assert_eq!([data(&text), data(&read(&mut again))].concat(), ["1", "2"]);
}

#[test]
fn a_displaced_stream_that_was_behind_gets_nothing_of_others_and_its_own_when_it_is_back() {
    let limits = Limits::default().per_user(1).displace_oldest();
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
    assert!(again.resumed());
    page += &read(&mut again);
    assert_eq!(data(&page), ["0", "1", "2", "3", "4"]);
}

fn publish(hub: &Hub, count: usize) -> Vec<EventId> {
    let event = |number: usize| Event::new("x").data(number.to_string());
    (0..count).map(|number| hub.broadcast(event(number)).unwrap().id().unwrap()).collect()
}

#[test]
fn a_replay_beyond_its_cap_is_a_gap_and_then_exactly_the_newest() {
    let hub = limited(Limits::default().replay(3));
    let ids = publish(&hub, 10);
    for (number, &id) in ids.iter().enumerate() {
        let mut stream = hub.subscribe(Subscriber::new().resume(id)).unwrap();
        let missing = 9 - number;
        assert_eq!(stream.resumed(), missing <= 3, "{missing}");
        let text = read(&mut stream);
        let told = if missing <= 3 { vec![] } else { vec!["capped"] };
        assert_eq!(gaps(&text), told);
        let newest: Vec<String> =
            (10 - missing.min(3)..10).map(|number| number.to_string()).collect();
        assert_eq!(data(&text), newest, "{missing}");
    }
}

#[test]
fn the_id_of_a_capped_gap_and_of_the_opening_before_it_are_ones_to_come_back_with() {
    let hub = limited(Limits::default().replay(3));
    let ids = publish(&hub, 10);
    let text = read(&mut hub.subscribe(Subscriber::new().resume(ids[1])).unwrap());
    let frames = frames(&text);
    let (open, gap) = (&frames[0], &frames[1]);
    assert_eq!(open.id, Some(ids[1]), "cut before the gap, it comes back to it");
    assert_eq!(gap.id, Some(ids[6]));
    let mut again = hub.subscribe(Subscriber::new().resume(gap.id.unwrap())).unwrap();
    assert!(again.resumed());
    assert_eq!(data(&read(&mut again)), ["7", "8", "9"]);
}

#[test]
fn a_cap_counts_what_is_for_the_client_and_a_cap_of_none_replays_nothing() {
    let hub = limited(Limits::default().replay(2));
    let start = publish(&hub, 1)[0];
    for number in 0..10 {
        hub.send_to_user("other", Event::new("x").data("of another")).unwrap();
        if number % 5 == 0 {
            hub.send_to_user("me", Event::new("x").data(number.to_string())).unwrap();
            hub.send_to_user("me", Event::new("y").data("unwanted")).unwrap();
        }
    }
    let me = Subscriber::new().user("me").events(["x"]).resume(start);
    let mut stream = hub.subscribe(me).unwrap();
    assert!(stream.resumed());
    assert_eq!(data(&read(&mut stream)), ["0", "5"]);

    let hub = limited(Limits::default().replay(0));
    let ids = publish(&hub, 2);
    assert!(hub.subscribe(Subscriber::new().resume(ids[1])).unwrap().resumed());
    let mut stream = hub.subscribe(Subscriber::new().resume(ids[0])).unwrap();
    hub.broadcast(Event::new("x").data("new")).unwrap();
    let text = read(&mut stream);
    assert_eq!((gaps(&text), data(&text)), (vec!["capped".to_owned()], vec!["new".to_owned()]));
}

#[test]
fn a_cap_also_holds_for_one_that_missed_what_was_lost() {
    let (hub, _) =
        hub_with(|hub| hub.retain(Retain::events(5)).limits(Limits::default().replay(3)));
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

    /// A hub, somebody whom it holds, and somebody whom it refuses for this cause.
    type Case = (Limits, Option<Subscriber>, Subscriber, &'static str, u16);

    fn temporary() -> [Case; 3] {
        let default = Limits::default;
        let (user, session) = (|| Subscriber::new().user("a"), || Subscriber::new().session("s"));
        [
            (Limits::clients(1), Some(Subscriber::new()), Subscriber::new(), "full", 503),
            (default().per_user(1), Some(user()), user(), "user-full", 429),
            (default().per_session(1), Some(session()), session(), "session-full", 429),
        ]
    }

    #[test]
    fn one_that_may_come_back_is_told_so_in_a_stream() {
        for (limits, held, client, word, _) in temporary() {
            let hub = limited(limits);
            let _held = held.map(|held| hub.subscribe(held).unwrap());
            let refused = hub.subscribe(client).unwrap_err();
            let response = sse_hub::http::into_response(Err(refused));
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            assert!(!response.headers().contains_key("retry-after"));
            let [frame] = frames(&body(response)).try_into().unwrap();
            assert_eq!((frame.event.as_str(), frame.reason()), ("hub:refused", word));
            assert!((2250..=3750).contains(&frame.retry.unwrap()), "{frame:?}");
            assert_eq!(frame.id, None, "it has no position to come back with");
        }
    }

    #[test]
    fn one_that_may_come_back_is_told_so_by_a_status_where_the_hub_is_set_to() {
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
    fn a_closed_and_a_draining_hub_refuse_softly() {
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
    fn one_that_may_not_come_back_is_a_bad_request_in_both_ways() {
        for refusals in [RefusalStyle::Stream, RefusalStyle::Status] {
            let limits = Limits::default().topics(1);
            let (hub, _) = hub_with(|hub| hub.limits(limits).refusals(refusals));
            for client in [Subscriber::new().topics(["a", "b"]), Subscriber::new().user("")] {
                let refused = super::refused(&hub, client);
                let response = sse_hub::http::into_response(Err(refused));
                assert_eq!(response.status(), 400);
                assert!(!response.headers().contains_key("retry-after"));
                assert_eq!(body(response), refused.to_string());
            }
        }
    }
}
