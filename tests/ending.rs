//! How streams end: disconnected, at a deadline, stalled, or lagging.

mod support;

use std::time::{Duration, SystemTime};

use sse_hub::{
    Audience, DisconnectError, EndReason, Event, EventError, EventId, Goodbye, Heartbeat, Hub,
    ManualTimer, Retain, Subscriber, Subscription, Timer as _,
};

use support::{SECOND, data, end, frames, gaps, has_ended, hub_with, last_id, poll, read, wait};

fn event(data: impl ToString) -> Event {
    Event::new("x").data(data.to_string())
}

fn open(hub: &Hub, subscriber: Subscriber) -> Subscription {
    let mut stream = hub.subscribe(subscriber).unwrap();
    read(&mut stream);
    stream
}

fn goodbye(reason: &str, last: Option<Event>) -> Goodbye {
    let goodbye = Goodbye::new(reason).unwrap();
    match last {
        Some(event) => goodbye.event(event),
        None => goodbye,
    }
}

#[test]
fn disconnect_selects_client_user_session_and_topic() {
    let (hub, _) = hub_with(|hub| hub);
    let who = || Subscriber::new().user("u").session("s").topic("t");
    let audiences: [fn(&Subscription) -> Audience; 5] = [
        |stream| Audience::client(stream.client_id()),
        |_| Audience::user("u"),
        |_| Audience::session("s"),
        |_| Audience::topic("t"),
        |stream| Audience::topic("t").and(Audience::client(stream.client_id())),
    ];
    let mut other = open(&hub, Subscriber::new().user("s").session("t").topic("u"));
    for (round, audience) in audiences.into_iter().enumerate() {
        for last in [None, Some(Event::new("goodbye").data("two\nlines"))] {
            let mut stream = open(&hub, who());
            let woken = wait(&mut stream);
            let has_last = last.is_some();
            assert_eq!(
                hub.disconnect(audience(&stream), goodbye("log-out_2", last))
                    .map(|clients| clients.changed),
                Ok(1)
            );
            assert_eq!(woken.count(), 1);
            assert_eq!(hub.stats().clients, 1, "the hub must forget the client at once");
            let text = read(&mut stream);
            assert_eq!(text.starts_with("event: goodbye\ndata: two\ndata: lines\n\n"), has_last);
            assert_eq!(frames(&text).len(), 1 + usize::from(has_last), "{round}");
            assert_eq!(end(&text).as_deref(), Some("log-out_2"));
            let retry = frames(&text).last().unwrap().retry.unwrap().as_millis();
            assert!((2250..=3750).contains(&retry), "{retry}");
            assert!(has_ended(&mut stream) && has_ended(&mut stream), "the stream must stay ended");
        }
    }
    assert!(!has_ended(&mut other));
    assert_eq!(hub.stats().ended(EndReason::Disconnected), 10);
    assert_eq!(
        hub.disconnect(Audience::user("nobody"), Goodbye::from_static("x"))
            .map(|clients| clients.changed),
        Ok(0)
    );
    assert_eq!(
        hub.disconnect(Audience::all(), Goodbye::from_static("x")).map(|clients| clients.changed),
        Ok(1)
    );
    assert_eq!(end(&read(&mut other)).as_deref(), Some("x"));
}

#[test]
fn invalid_reason_or_last_event_disconnects_no_client() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = open(&hub, Subscriber::new());
    let long = "x".repeat(65);
    for reason in ["", "two words", "\"", "\\", "a\n", "ü", "a\0", "a.b", &long] {
        assert!(Goodbye::new(reason).is_err(), "{reason:?}");
    }
    let error = hub.disconnect(Audience::all(), goodbye("x", Some(Event::default())));
    assert_eq!(error, Err(DisconnectError::Event(EventError::Empty)));
    let error = hub.disconnect(Audience::all(), goodbye("x", Some(Event::new("hub:end").data(""))));
    assert!(matches!(error, Err(DisconnectError::Event(EventError::Type(_)))));
    assert!(!has_ended(&mut stream));
    let longest = "x".repeat(64);
    assert_eq!(
        hub.disconnect(Audience::all(), goodbye(&longest, None)).map(|clients| clients.changed),
        Ok(1)
    );
    assert_eq!(end(&read(&mut stream)), Some(longest));
}

#[test]
fn last_event_with_an_id_is_refused() {
    let (hub, _) = hub_with(|hub| hub);
    let _stream = open(&hub, Subscriber::new());
    let error = hub.disconnect(Audience::all(), goodbye("x", Some(event("bye").id("own"))));
    assert_eq!(error, Err(DisconnectError::Event(EventError::OwnId)));
}

/// Publishes numbered events for all clients, and returns the last id.
fn publish(hub: &Hub, count: usize) -> EventId {
    let mut last = EventId::default();
    for number in 0..count {
        last = hub.publish_confirmed(Audience::all(), event(number)).unwrap().id().unwrap();
    }
    last
}

#[test]
fn disconnected_client_resumes_with_its_backlog() {
    for waiting in [1, 5, 50] {
        let (hub, _) = hub_with(|hub| hub.window(8));
        let mut stream = hub.subscribe(Subscriber::new()).unwrap();
        let first = hub.publish_confirmed(Audience::all(), event("read")).unwrap().id().unwrap();
        assert_eq!(data(&read(&mut stream)), ["read"]);
        publish(&hub, waiting);
        assert_eq!(
            hub.disconnect(Audience::all(), goodbye("x", Some(Event::new("bye").data(""))))
                .map(|clients| clients.changed),
            Ok(1)
        );
        let text = read(&mut stream);
        assert_eq!(frames(&text).len(), 2, "{text}");
        assert!(
            frames(&text).iter().all(|frame| frame.id.is_none()),
            "the position must not change"
        );
        hub.broadcast(event("after")).unwrap();
        let mut again = hub.subscribe(Subscriber::new().resume(first)).unwrap();
        assert!(again.is_resumed());
        assert_eq!(data(&read(&mut again)).len(), waiting + 1);
    }
}

#[test]
fn unread_disconnected_client_opens_and_ends() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    publish(&hub, 3);
    hub.disconnect(Audience::all(), Goodbye::from_static("x")).unwrap();
    let text = read(&mut stream);
    assert_eq!(frames(&text)[0].event, "hub:open");
    assert_eq!((data(&text).len(), end(&text).as_deref()), (0, Some("x")));
    assert!(has_ended(&mut stream));
}

#[test]
fn disconnect_overrides_a_pending_soft_end() {
    let soft: [fn(&Hub, &ManualTimer); 2] =
        [|hub, _| hub.close(), |_, timer| timer.advance(10 * SECOND)];
    for (case, end_softly) in soft.into_iter().enumerate() {
        let (hub, timer) = hub_with(|hub| hub.max_batch_bytes(1).lifetime(10 * SECOND));
        let mut stream = open(&hub, Subscriber::new());
        publish(&hub, 5);
        end_softly(&hub, &timer);
        assert_eq!(data(std::str::from_utf8(&poll(&mut stream).unwrap().unwrap()).unwrap()), ["0"]);
        let last = Some(Event::new("bye").data("bye"));
        assert_eq!(
            hub.disconnect(Audience::all(), goodbye("x", last)).map(|clients| clients.changed),
            Ok(1)
        );
        let text = read(&mut stream);
        assert_eq!(data(&text), ["bye"], "case {case}");
        assert_eq!(end(&text).as_deref(), Some("x"));
        assert_eq!(hub.stats().ended(EndReason::Disconnected), 1);
    }
}

#[test]
fn deadline_ends_an_idle_stream() {
    for heartbeat in [None, Some(Heartbeat::default().every(15 * SECOND))] {
        let (hub, timer) = hub_with(|hub| hub.heartbeat(heartbeat));
        let deadline = timer.now() + 100 * SECOND;
        let mut stream = open(&hub, Subscriber::new().until(deadline));
        let mut other = open(&hub, Subscriber::new());
        let mut told = String::new();
        for _ in 0..99 {
            timer.advance(SECOND);
            told += &read(&mut stream);
            assert!(poll(&mut stream).is_none());
        }
        assert_eq!(end(&told), None);
        let woken = wait(&mut stream);
        timer.advance(SECOND);
        assert_eq!(woken.count(), 1, "the deadline must wake the task");
        assert_eq!(end(&read(&mut stream)).as_deref(), Some("expired"));
        assert!(has_ended(&mut stream));
        assert_eq!(end(&read(&mut other)), None);
        assert_eq!(hub.stats().ended(EndReason::Expired), 1);
        assert_eq!(hub.stats().clients, 1);
    }
}

#[test]
fn deadline_ends_a_busy_stream() {
    let (hub, timer) = hub_with(|hub| hub.max_batch_bytes(1).window(4));
    let deadline = timer.now() + 10 * SECOND;
    let mut stream = open(&hub, Subscriber::new().until(deadline));
    publish(&hub, 100);
    let mut read = 0;
    let last = loop {
        let item =
            poll(&mut stream).expect("it is never idle").expect("the stream always has an item");
        let text = String::from_utf8(item.to_vec()).unwrap();
        if end(&text).is_some() {
            break text;
        }
        read += data(&text).len();
        publish(&hub, 2);
        timer.advance(SECOND);
    };
    assert_eq!(end(&last).as_deref(), Some("expired"));
    assert_eq!(read, 10, "one item each second until the tenth");
    assert!(has_ended(&mut stream));
}

#[test]
fn expiry_is_a_time_of_the_system_clock() {
    let (hub, timer) = hub_with(|hub| hub.heartbeat(None));
    let now = SystemTime::now();
    let mut past = hub.subscribe(Subscriber::new().expires_at(now - SECOND)).unwrap();
    assert_eq!(end(&read(&mut past)).as_deref(), Some("expired"));
    let mut later = open(&hub, Subscriber::new().expires_at(now + 60 * SECOND));
    assert_eq!(end(&read(&mut later)), None);
    timer.advance(60 * SECOND);
    assert_eq!(end(&read(&mut later)).as_deref(), Some("expired"));
}

#[test]
fn past_deadline_ends_the_stream_after_its_opening() {
    let (hub, timer) = hub_with(|hub| hub);
    let past = timer.now();
    timer.advance(SECOND);
    let start = publish(&hub, 1);
    for deadline in [past, timer.now()] {
        publish(&hub, 3);
        let late = Subscriber::new().resume(start).until(deadline);
        let text = read(&mut hub.subscribe(late).unwrap());
        assert_eq!(frames(&text)[0].event, "hub:open");
        assert_eq!(last_id(&text), start, "the client must resume from its position");
        assert_eq!((data(&text).len(), end(&text).as_deref()), (0, Some("expired")));
    }
    assert_eq!(hub.stats().clients, 0);
}

#[test]
fn lifetimes_spread_over_the_last_tenth() {
    let (hub, timer) = hub_with(|hub| hub.lifetime(1000 * SECOND).heartbeat(None));
    let mut streams: Vec<Subscription> = (0..200).map(|_| open(&hub, Subscriber::new())).collect();
    let mut ended = Vec::new();
    for second in 1..=1000 {
        timer.advance(SECOND);
        let before = streams.len();
        streams.retain_mut(|stream| {
            let end = end(&read(stream));
            assert!(end.is_none() || end.as_deref() == Some("lifetime"));
            end.is_none()
        });
        ended.extend(std::iter::repeat_n(second, before - streams.len()));
    }
    assert!(streams.is_empty());
    assert!(ended[0] >= 900, "{ended:?}");
    let halves = ended.iter().filter(|&&second| second < 950).count();
    assert!((40..160).contains(&halves), "spread: {ended:?}");
    assert_eq!(hub.stats().ended(EndReason::Lifetime), 200);
}

#[test]
fn events_between_two_lifetimes_are_not_lost() {
    let (hub, timer) = hub_with(|hub| hub.lifetime(10 * SECOND).window(2).max_batch_bytes(100));
    let mut stream = hub.subscribe(Subscriber::new().user("u")).unwrap();
    let (mut page, mut ends) = (String::new(), 0);
    for number in 0..1000 {
        hub.send_to_user("u", event(number)).unwrap();
        // Read the whole backlog after every third event.
        if number % 3 == 0 {
            let text = read(&mut stream);
            page += &text;
            if end(&text).is_some() {
                ends += 1;
                assert!(has_ended(&mut stream));
                hub.send_to_user("u", event("between")).unwrap();
                let again = Subscriber::new().user("u").resume(last_id(&page));
                stream = hub.subscribe(again).unwrap();
                assert!(stream.is_resumed());
            }
        }
        timer.advance(SECOND / 4);
    }
    page += &read(&mut stream);
    let mut got = data(&page);
    let between = got.extract_if(.., |data| data == "between").count();
    assert_eq!(got, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(ends >= 20 && between == ends, "{ends} ends, {between} between");
}

#[test]
fn lifetime_delivers_earlier_events_first() {
    let (hub, timer) = hub_with(|hub| hub.lifetime(10 * SECOND).window(2));
    let mut stream = open(&hub, Subscriber::new());
    publish(&hub, 100);
    timer.advance(10 * SECOND);
    let text = read(&mut stream);
    assert_eq!((data(&text).len(), end(&text).as_deref()), (100, Some("lifetime")));
}

#[test]
fn stream_is_silent_after_its_end() {
    let ends: [fn(&Hub, &ManualTimer); 2] =
        [|_, timer| timer.advance(10 * SECOND), |hub, _| drop(hub.drain(Duration::ZERO))];
    for end_it in ends {
        let (hub, timer) = hub_with(|hub| hub.lifetime(10 * SECOND));
        let mut stream = open(&hub, Subscriber::new());
        end_it(&hub, &timer);
        let last = poll(&mut stream).unwrap().unwrap();
        assert!(end(std::str::from_utf8(&last).unwrap()).is_some());
        publish(&hub, 1);
        assert!(has_ended(&mut stream));
    }
}

/// Reads an item and publishes two, until the stream ends.
fn never_idle(hub: &Hub, timer: &ManualTimer, stream: &mut Subscription) -> Option<String> {
    publish(hub, 2);
    for _ in 0..100 {
        timer.advance(SECOND);
        let item = poll(stream)??;
        if let Some(reason) = end(std::str::from_utf8(&item).unwrap()) {
            return Some(reason);
        }
        publish(hub, 2);
    }
    None
}

#[test]
fn lifetime_ends_a_busy_stream() {
    let (hub, timer) = hub_with(|hub| hub.max_batch_bytes(1).lifetime(10 * SECOND));
    let mut stream = open(&hub, Subscriber::new());
    assert_eq!(never_idle(&hub, &timer, &mut stream).as_deref(), Some("lifetime"));
}

#[test]
fn deadline_overrides_an_overdue_soft_end() {
    let (hub, timer) = hub_with(|hub| hub.max_batch_bytes(1).lifetime(10 * SECOND));
    let deadline = timer.now() + 50 * SECOND;
    let mut stream = open(&hub, Subscriber::new().until(deadline));
    publish(&hub, 1000);
    timer.advance(10 * SECOND);
    assert_eq!(data(std::str::from_utf8(&poll(&mut stream).unwrap().unwrap()).unwrap()), ["0"]);
    timer.advance(40 * SECOND);
    let text = read(&mut stream);
    assert_eq!(data(&text).len(), 0, "an expired token must receive no data");
    assert_eq!(end(&text).as_deref(), Some("expired"));
}

#[test]
fn earlier_of_deadline_and_lifetime_ends_the_stream() {
    for (deadline, reason) in [(5, "expired"), (500, "lifetime")] {
        let (hub, timer) = hub_with(|hub| hub.lifetime(100 * SECOND));
        let until = timer.now() + deadline * SECOND;
        let mut stream = open(&hub, Subscriber::new().until(until));
        timer.advance(SECOND * deadline.min(100));
        assert_eq!(end(&read(&mut stream)).as_deref(), Some(reason));
    }
}

const LIMIT: Duration = Duration::from_secs(60);

/// Returns a hub and a stream with an unread event, just before the stall limit.
fn stalled(opened: bool) -> (Hub, ManualTimer, Subscription) {
    let (hub, timer) = hub_with(|hub| hub.stalled_after(LIMIT));
    let mut stream = hub.subscribe(Subscriber::new().user("slow")).unwrap();
    if opened {
        read(&mut stream);
    }
    hub.send_to_user("slow", event("unread")).unwrap();
    timer.advance(LIMIT - Duration::from_nanos(1));
    (hub, timer, stream)
}

#[test]
fn any_activity_ends_a_stalled_stream() {
    type Occasion = (&'static str, fn(&Hub));
    let occasions: [Occasion; 5] = [
        ("an event for the stalled client", |hub| {
            assert_eq!(hub.send_to_user("slow", event("more")).unwrap().matched(), 0);
        }),
        ("an event for other clients", |hub| {
            hub.send_to_user("other", event("x")).unwrap();
        }),
        ("an event for all clients", |hub| {
            assert_eq!(hub.broadcast(event("x")).unwrap().matched(), 0);
        }),
        ("a client connects", |hub| drop(hub.subscribe(Subscriber::new()).unwrap())),
        ("a refused client", |hub| {
            hub.subscribe(Subscriber::new().user("")).unwrap_err();
        }),
    ];
    for (occasion, occurs) in occasions {
        for opened in [false, true] {
            let (hub, timer, mut stream) = stalled(opened);
            hub.broadcast(event("x")).unwrap();
            assert_eq!(hub.stats().ended(EndReason::Stalled), 0, "{occasion}, before the limit");
            timer.advance(Duration::from_nanos(1));
            assert_eq!(hub.stats().clients, 1, "no activity has ended the stream yet");
            occurs(&hub);
            let stats = hub.stats();
            assert_eq!((stats.clients, stats.client_names), (0, 0), "{occasion}");
            assert_eq!(stats.ended(EndReason::Stalled), 1, "{occasion}");
            let text = read(&mut stream);
            assert_eq!(text.starts_with("event: hub:open\n"), !opened);
            assert_eq!(data(&text), [""; 0], "the backlog must not be sent");
            assert!(has_ended(&mut stream) && has_ended(&mut stream));
            drop(stream);
            let ended: u64 = EndReason::ALL.iter().map(|&reason| hub.stats().ended(reason)).sum();
            let left = hub.stats().ended(EndReason::Left);
            assert_eq!(ended - left, 1, "the end must count once");
            assert_eq!(left, u64::from(occasion == "a client connects"));
        }
    }
}

#[test]
fn heartbeat_of_another_ends_a_stalled_stream() {
    let every = 25 * SECOND;
    let (hub, timer) =
        hub_with(|hub| hub.stalled_after(LIMIT).heartbeat(Heartbeat::default().every(every)));
    let mut slow = open(&hub, Subscriber::new().user("slow"));
    let mut other = open(&hub, Subscriber::new());
    hub.send_to_user("slow", event("unread")).unwrap();
    for clients in [2, 2, 1] {
        assert!(poll(&mut other).is_none());
        timer.advance(every);
        assert_eq!(poll(&mut other), Some(Some(":\n".into())));
        assert_eq!(hub.stats().clients, clients);
    }
    assert!(has_ended(&mut slow));
    assert_eq!(hub.stats().ended(EndReason::Stalled), 1);
}

#[test]
fn task_of_a_stalled_stream_is_woken() {
    let (hub, timer, mut stream) = stalled(true);
    // The task woke for the event, and has polled only for its first event since.
    read(&mut stream);
    let woken = wait(&mut stream);
    hub.send_to_user("slow", event("unread")).unwrap();
    assert_eq!(woken.count(), 1);
    timer.advance(LIMIT);
    hub.broadcast(event("x")).unwrap();
    assert!(has_ended(&mut stream));
}

#[test]
fn slowly_read_stream_is_not_stalled() {
    let retain = Retain::default().events(100).age(None);
    for (window, batch) in [(1000, 1), (1, 1), (4, 1)] {
        let (hub, timer) = hub_with(|hub| {
            hub.stalled_after(LIMIT).window(window).max_batch_bytes(batch).retain(retain)
        });
        let mut slow = open(&hub, Subscriber::new());
        let mut other = open(&hub, Subscriber::new().user("other"));
        publish(&hub, 50);
        for number in 0..50 {
            timer.advance(LIMIT - SECOND);
            hub.send_to_user("other", event("look")).unwrap();
            read(&mut other);
            let item = poll(&mut slow).unwrap().unwrap();
            let got = data(std::str::from_utf8(&item).unwrap());
            assert_eq!(got, [number.to_string()], "window {window}");
        }
        assert_eq!(hub.stats().ended(EndReason::Stalled), 0);
        timer.advance(2 * LIMIT);
        hub.send_to_user("other", event("look")).unwrap();
        assert!(!has_ended(&mut slow), "the stream has no backlog");
    }
}

#[test]
fn idle_stream_is_not_stalled() {
    let (hub, timer) = hub_with(|hub| hub.stalled_after(LIMIT));
    let mut idle = open(&hub, Subscriber::new().user("idle"));
    let never_polled = hub.subscribe(Subscriber::new()).unwrap();
    hub.send_to_user("idle", event("read")).unwrap();
    assert_eq!(data(&read(&mut idle)), ["read"]);
    for _ in 0..10 {
        timer.advance(LIMIT);
        hub.send_to_user("others", event("x")).unwrap();
        drop(hub.subscribe(Subscriber::new()).unwrap());
    }
    assert_eq!(hub.stats().clients, 2);
    assert_eq!(hub.stats().ended(EndReason::Stalled), 0);
    // The limit of a later event starts when the event is published.
    hub.send_to_user("idle", event("unread")).unwrap();
    timer.advance(LIMIT - SECOND);
    hub.send_to_user("others", event("x")).unwrap();
    assert_eq!(hub.stats().clients, 2);
    timer.advance(SECOND);
    hub.send_to_user("others", event("x")).unwrap();
    assert_eq!(hub.stats().clients, 1);
    drop(never_polled);
}

#[test]
fn stall_limit_can_be_disabled() {
    let (hub, timer) = hub_with(|hub| hub.stalled_after(None));
    let mut stream = open(&hub, Subscriber::new());
    publish(&hub, 1);
    timer.advance(1000 * LIMIT);
    publish(&hub, 1);
    drop(hub.subscribe(Subscriber::new()).unwrap());
    assert_eq!(hub.stats().clients, 1);
    // The first event is older than the retention age.
    assert_eq!(gaps(&read(&mut stream)), ["evicted"]);
}

#[test]
fn many_stalled_streams_end_within_few_events() {
    let (hub, timer) = hub_with(|hub| hub.stalled_after(LIMIT));
    let _streams: Vec<Subscription> = (0..1000).map(|_| open(&hub, Subscriber::new())).collect();
    publish(&hub, 1);
    timer.advance(LIMIT);
    for _ in 0..1000_usize.div_ceil(64) {
        hub.send_to_user("others", event("x")).unwrap();
    }
    assert_eq!(hub.stats().clients, 0);
    assert_eq!(hub.stats().ended(EndReason::Stalled), 1000);
}

#[test]
fn unread_replay_counts_as_stalled() {
    for read_first in [0, 2] {
        let (hub, timer) = hub_with(|hub| hub.stalled_after(LIMIT).max_batch_bytes(1));
        let start = publish(&hub, 1);
        publish(&hub, 5);
        let mut stream = hub.subscribe(Subscriber::new().resume(start)).unwrap();
        for _ in 0..read_first {
            assert!(poll(&mut stream).unwrap().is_some());
        }
        timer.advance(LIMIT);
        hub.send_to_user("others", event("x")).unwrap();
        assert_eq!(hub.stats().clients, 0, "{read_first} items were read");
    }
}

#[test]
fn late_read_before_detection_keeps_the_stream() {
    for window in [32, 1] {
        let (hub, timer) = hub_with(|hub| hub.stalled_after(LIMIT).window(window));
        let mut stream = open(&hub, Subscriber::new());
        publish(&hub, 5);
        timer.advance(LIMIT);
        assert_eq!(data(&read(&mut stream)).len(), 5, "window {window}");
        assert!(!has_ended(&mut stream));
    }
}

#[test]
fn dropping_stalled_stream_keeps_slot_successor() {
    let (hub, timer, stalled) = stalled(true);
    timer.advance(LIMIT);
    hub.broadcast(event("x")).unwrap();
    assert_eq!(hub.stats().clients, 0);
    // The new client takes the same slot.
    let mut next = open(&hub, Subscriber::new().user("next"));
    drop(stalled);
    assert_eq!(hub.stats().clients, 1);
    assert_eq!(hub.stats().ended(EndReason::Left), 0);
    assert_eq!(hub.send_to_user("next", event("x")).unwrap().matched(), 1);
    assert_eq!(data(&read(&mut next)), ["x"]);
    // The new client must not inherit the stall time of its predecessor.
    timer.advance(LIMIT);
    hub.broadcast(event("x")).unwrap();
    assert!(!has_ended_after_reading(&mut next));
}

fn has_ended_after_reading(stream: &mut Subscription) -> bool {
    read(stream);
    has_ended(stream)
}

#[test]
fn reused_slot_starts_a_new_stall_limit() {
    let (hub, timer) = hub_with(|hub| hub.stalled_after(LIMIT));
    let first = open(&hub, Subscriber::new().user("first"));
    hub.send_to_user("first", event("unread")).unwrap();
    timer.advance(LIMIT / 2);
    drop(first);
    let next = open(&hub, Subscriber::new().user("next"));
    hub.send_to_user("next", event("unread")).unwrap();
    timer.advance(LIMIT / 2);
    hub.send_to_user("others", event("x")).unwrap();
    assert_eq!(hub.stats().clients, 1, "the new client waited half the limit");
    timer.advance(LIMIT / 2);
    hub.send_to_user("others", event("x")).unwrap();
    assert_eq!(hub.stats().clients, 0);
    drop(next);
}

#[test]
fn dropping_disconnected_stream_keeps_slot_successor() {
    let (hub, _) = hub_with(|hub| hub);
    let mut first = open(&hub, Subscriber::new());
    hub.disconnect(Audience::all(), Goodbye::from_static("x")).unwrap();
    let next = open(&hub, Subscriber::new().user("secret"));
    hub.send_to_user("secret", event("of the next")).unwrap();
    assert_eq!(data(&read(&mut first)), [""; 0]);
    drop(first);
    assert_eq!((hub.stats().clients, hub.count(Audience::user("secret"))), (1, 1));
    drop(next);
    assert_eq!(hub.stats().clients, 0);
}

fn lagging(retain: usize) -> Hub {
    hub_with(|hub| hub.end_lagging(true).window(1).retain(Retain::default().events(retain))).0
}

#[test]
fn end_lagging_ends_stream_and_resume_gets_gap() {
    let hub = lagging(3);
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    let position = last_id(&read(&mut stream));
    publish(&hub, 10);
    let text = read(&mut stream);
    assert_eq!(frames(&text).len(), 1, "{text}");
    assert_eq!(end(&text).as_deref(), Some("lagged"));
    assert!(has_ended(&mut stream));
    assert_eq!(hub.stats().ended(EndReason::Lagged), 1);
    assert_eq!(hub.stats().clients, 0);
    let mut again = hub.subscribe(Subscriber::new().resume(position)).unwrap();
    let text = read(&mut again);
    assert_eq!((gaps(&text).len(), data(&text).len(), end(&text)), (1, 3, None));
    assert!(!has_ended(&mut again));
}

#[test]
fn stream_behind_without_loss_is_not_ended() {
    let hub = lagging(100);
    let mut stream = open(&hub, Subscriber::new());
    for _ in 0..10 {
        publish(&hub, 50);
        assert_eq!(data(&read(&mut stream)).len(), 50);
    }
    assert!(!has_ended(&mut stream));
}

#[test]
fn join_with_last_hides_no_lag() {
    let (hub, _) = hub_with(|hub| hub.end_lagging(true).retain(Retain::default().events(2)));
    let mut stream = open(&hub, Subscriber::new());
    publish(&hub, 3);
    hub.send_to_topic("t", event(3)).unwrap();
    hub.join_with_last(stream.client_id(), "t", 1).unwrap();
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("lagged"));
}

#[test]
fn late_resume_ends_only_for_new_losses() {
    let hub = lagging(3);
    let start = publish(&hub, 1);
    publish(&hub, 10);
    let mut stream = hub.subscribe(Subscriber::new().resume(start)).unwrap();
    let text = read(&mut stream);
    assert_eq!((gaps(&text).len(), data(&text).len(), end(&text)), (1, 3, None));
    publish(&hub, 3);
    assert_eq!(data(&read(&mut stream)).len(), 3);
    publish(&hub, 4);
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("lagged"));
}

#[test]
fn late_resume_without_replay_ends_for_new_losses() {
    let hub = lagging(3);
    let start = publish(&hub, 1);
    let to = |user: &str, count: usize| {
        for number in 0..count {
            hub.send_to_user(user, event(number)).unwrap();
        }
    };
    to("me", 1);
    to("others", 10);
    let mut stream = hub.subscribe(Subscriber::new().user("me").resume(start)).unwrap();
    let text = read(&mut stream);
    assert_eq!((gaps(&text).len(), data(&text).len()), (1, 0));
    to("me", 10);
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("lagged"));
}

#[test]
fn capped_late_resume_is_not_ended() {
    let (hub, _) = hub_with(|hub| {
        let retain = Retain::default().events(100).per_topic(2);
        hub.end_lagging(true).retain(retain).limits(sse_hub::Limits::default().replay(3))
    });
    let start = publish(&hub, 1);
    hub.send_to_user("u", event("0")).unwrap();
    hub.send_to_user("u", event("1")).unwrap();
    for number in 0..3 {
        hub.publish(Audience::topic("t"), event(number)).unwrap();
    }
    let who = Subscriber::new().user("u").topic("t").resume(start);
    let mut stream = hub.subscribe(who).unwrap();
    let text = read(&mut stream);
    assert_eq!((gaps(&text)[0].as_str(), end(&text)), ("capped", None));
    assert_eq!(data(&text).len(), 3);
}

#[test]
fn unknown_id_stream_ends_when_it_lags() {
    let hub = lagging(3);
    let mut stream = hub.subscribe(Subscriber::new().resume("garbage")).unwrap();
    assert!(read(&mut stream).contains("\"unknown\""));
    for _ in 0..50 {
        hub.broadcast(Event::new("x")).unwrap();
    }
    assert!(read(&mut stream).contains("\"lagged\""));
}

#[test]
fn ended_stream_keeps_its_position() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = open(&hub, Subscriber::new());
    publish(&hub, 1);
    read(&mut stream);
    let position = stream.position();
    assert_eq!(position, hub.position());
    hub.disconnect(stream.client_id(), goodbye("bye", None)).unwrap();
    assert!(end(&read(&mut stream)).is_some() && has_ended(&mut stream));
    // Later clients take the memory that is free.
    let mut others: Vec<Subscription> = (0..64).map(|_| open(&hub, Subscriber::new())).collect();
    publish(&hub, 2);
    others.iter_mut().for_each(|other| drop(read(other)));
    assert_eq!(stream.position(), position);
    assert!(has_ended(&mut stream), "an end is for ever");
}
