//! Presence of users in topics, on a manual timer.
#![cfg(not(sse_hub_loom))]

mod support;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use sse_hub::{
    Audience, ConfigError, EndReason, Event, Goodbye, Hub, HubBuilder, Limits, ManualTimer,
    MembersError, NameError, NameKind, Presence, PresenceEvent, Subscriber, Subscription,
    TopicEvent, TopicWatch, WatchError,
};
use support::{SECOND, hub_with, read};

const GRACE: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(60);

fn presence() -> Presence {
    Presence::default().grace(GRACE).topics(&["room-", "lobby"])
}

fn settings(hub: HubBuilder) -> HubBuilder {
    hub.presence(presence()).heartbeat(None).stalled_after(STALL)
}

fn watched() -> (ManualTimer, Hub, TopicWatch) {
    let (hub, timer) = hub_with(settings);
    let watch = hub.watch_topics().unwrap();
    (timer, hub, watch)
}

fn tab(hub: &Hub, user: &str, topics: &[&str]) -> Subscription {
    hub.subscribe(Subscriber::new().user(user).topics(topics.iter().copied())).unwrap()
}

fn joined(user: &str, topic: &str) -> TopicEvent {
    TopicEvent::Joined { user: user.into(), topic: topic.into() }
}

fn left(user: &str, topic: &str, reason: EndReason) -> TopicEvent {
    TopicEvent::Left { user: user.into(), topic: topic.into(), reason }
}

/// Reads every available event.
fn seen<W: Stream + Unpin>(watch: &mut W) -> Vec<W::Item> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
}

fn poll(watch: &mut TopicWatch, waker: &Waker) -> Poll<Option<TopicEvent>> {
    Pin::new(watch).poll_next(&mut Context::from_waker(waker))
}

/// Counts wake-ups.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

/// Returns the members of a topic with their number of clients.
fn members(hub: &Hub, topic: &str) -> BTreeMap<String, usize> {
    let members = hub.users_in(topic).unwrap();
    let map: BTreeMap<_, _> =
        members.iter().map(|info| (info.user.to_string(), info.clients)).collect();
    assert_eq!(map.len(), members.len(), "each once");
    for user in ["ann", "bob", "cid"] {
        assert_eq!(hub.is_member(user, topic), Ok(map.contains_key(user)), "{user} in {topic}");
    }
    map
}

#[test]
fn each_way_of_following_makes_a_member() {
    let (_timer, hub, mut watch) = watched();
    let first = tab(&hub, "ann", &["room-1"]);
    let second = tab(&hub, "bob", &[]);
    hub.join(second.client_id(), "room-1").unwrap();
    let third = tab(&hub, "cid", &[]);
    hub.join_with_last(third.client_id(), "room-1", 5).unwrap();
    let fourth = tab(&hub, "dan", &[]);
    hub.follow(&Subscriber::new().user("dan"), fourth.client_id(), "room-1", 0).unwrap();
    let all = ["ann", "bob", "cid", "dan"];
    assert_eq!(seen(&mut watch), all.map(|user| joined(user, "room-1")));
    assert_eq!(members(&hub, "room-1"), all.map(|user| (user.to_owned(), 1)).into());
    // A join that changes nothing is no event.
    hub.join(Audience::topic("room-1"), "room-1").unwrap();
    assert_eq!(seen(&mut watch), []);
    drop(first);
}

#[cfg(feature = "http")]
#[test]
fn request_of_a_page_makes_a_member() {
    let (_timer, hub, mut watch) = watched();
    let page = tab(&hub, "ann", &[]);
    let (who, query) =
        (Subscriber::new().user("ann"), format!("client={}&topic=room-1", page.client_id()));
    sse_hub::http::join_topic(&hub, &who, &query, |_| true).unwrap();
    assert_eq!(members(&hub, "room-1"), [("ann".into(), 1)].into());
    let denied = sse_hub::http::join_topic(&hub, &who, &query.replace('1', "2"), |_| false);
    assert!(denied.is_err());
    sse_hub::http::leave_topic(&hub, &who, &query).unwrap();
    let events = [joined("ann", "room-1"), left("ann", "room-1", EndReason::LeftTopic)];
    assert_eq!(seen(&mut watch), events);
}

#[test]
fn member_leaves_with_the_last_tab() {
    let (timer, hub, mut watch) = watched();
    let tabs = [tab(&hub, "ann", &["room-1"]), tab(&hub, "ann", &["room-1"])];
    let _elsewhere = tab(&hub, "ann", &["room-2"]);
    assert_eq!(members(&hub, "room-1"), [("ann".into(), 2)].into());
    assert_eq!(seen(&mut watch), [joined("ann", "room-1"), joined("ann", "room-2")]);
    let [one, other] = tabs;
    drop(one);
    timer.advance(GRACE * 2);
    assert_eq!(seen(&mut watch), []);
    drop(other);
    timer.advance(GRACE - SECOND);
    assert_eq!(members(&hub, "room-1"), [("ann".into(), 0)].into(), "away");
    assert_eq!(seen(&mut watch), []);
    timer.advance(SECOND);
    assert_eq!(members(&hub, "room-1"), [].into());
    assert_eq!(seen(&mut watch), [left("ann", "room-1", EndReason::Left)]);
    assert!(hub.is_online("ann"));
}

#[test]
fn leaving_a_topic_knows_no_grace() {
    let (timer, hub, mut watch) = watched();
    let one = tab(&hub, "ann", &["room-1", "room-2"]);
    let other = tab(&hub, "ann", &["room-1"]);
    hub.leave(one.client_id(), "room-1").unwrap();
    seen(&mut watch);
    assert_eq!(members(&hub, "room-1"), [("ann".into(), 1)].into(), "the other tab is there");
    hub.leave(other.client_id(), "room-1").unwrap();
    assert_eq!(seen(&mut watch), [left("ann", "room-1", EndReason::LeftTopic)]);
    assert_eq!(members(&hub, "room-1"), [].into());
    assert_eq!(members(&hub, "room-2"), [("ann".into(), 1)].into());
    assert_eq!(hub.stats().ended(EndReason::LeftTopic), 0, "no stream ended");
    // The streams end later: the topic that the client had left is not left again.
    drop((one, other));
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch), [left("ann", "room-2", EndReason::Left)]);
}

#[test]
fn away_member_cannot_leave_earlier() {
    let (timer, hub, mut watch) = watched();
    drop(tab(&hub, "ann", &["room-1"]));
    assert_eq!(hub.leave(Audience::user("ann"), "room-1").unwrap().matched, 0);
    assert_eq!(members(&hub, "room-1"), [("ann".into(), 0)].into());
    timer.advance(GRACE);
    let events = [joined("ann", "room-1"), left("ann", "room-1", EndReason::Left)];
    assert_eq!(seen(&mut watch), events);
}

#[test]
fn reload_within_grace_is_no_change() {
    let (timer, hub, mut watch) = watched();
    let mut page = tab(&hub, "ann", &["room-1"]);
    assert_eq!(seen(&mut watch), [joined("ann", "room-1")]);
    for round in 0..20 {
        drop(page);
        timer.advance(GRACE - SECOND);
        page = tab(&hub, "ann", &[]);
        let who = page.client_id();
        if round % 2 == 0 {
            hub.join(who, "room-1").unwrap();
        } else {
            hub.join_with_last(who, "room-1", 1).unwrap();
        }
        timer.advance(GRACE * 2);
        assert_eq!(seen(&mut watch), []);
    }
    // The page returns, but not to the room.
    drop(page);
    let _page = tab(&hub, "ann", &[]);
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch), [left("ann", "room-1", EndReason::Left)]);
}

#[test]
fn leave_carries_the_end_of_the_stream() {
    let (timer, hub, mut watch) = watched();
    let stalled = tab(&hub, "stalled", &["room-1"]);
    let mut finished = tab(&hub, "finished", &["room-1"]);
    let mut expired =
        hub.subscribe(Subscriber::new().user("expired").topic("room-1").expires_in(STALL)).unwrap();
    let disconnected = tab(&hub, "disconnected", &["room-1"]);
    seen(&mut watch);
    hub.disconnect(Audience::user("disconnected"), Goodbye::from_static("bye")).unwrap();
    hub.finish(Audience::user("finished"), Goodbye::from_static("bye")).unwrap();
    assert_eq!(members(&hub, "room-1")["finished"], 1, "the stream must be read to its end");
    read(&mut finished);
    hub.send_to_user("stalled", Event::new("waits")).unwrap();
    timer.advance(STALL);
    // The publisher finds the stalled stream, and the poll the deadline.
    hub.send_to_user("nobody", Event::new("x")).unwrap();
    read(&mut expired);
    let online = members(&hub, "room-1");
    assert_eq!(online, [("expired".into(), 0), ("stalled".into(), 0)].into(), "both are away");
    timer.advance(GRACE);
    let reasons = [
        ("disconnected", EndReason::Disconnected),
        ("finished", EndReason::Finished),
        ("stalled", EndReason::Stalled),
        ("expired", EndReason::Expired),
    ];
    assert_eq!(seen(&mut watch), reasons.map(|(user, reason)| left(user, "room-1", reason)));
    drop((stalled, disconnected));
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch), [], "the clients had ended before");
}

#[test]
fn client_without_user_is_no_member() {
    let (timer, hub, mut watch) = watched();
    let session = hub.subscribe(Subscriber::new().session("s").topic("room-1")).unwrap();
    hub.join(session.client_id(), "room-2").unwrap();
    hub.leave(session.client_id(), "room-1").unwrap();
    drop(session);
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch), []);
    assert_eq!((members(&hub, "room-1"), members(&hub, "room-2")), ([].into(), [].into()));
}

#[test]
fn only_selected_topics_have_members() {
    let (timer, hub, mut watch) = watched();
    let page = tab(&hub, "ann", &["news", "room", "room-", "lobby-2", "Room-1"]);
    hub.join(page.client_id(), "alerts").unwrap();
    hub.leave(page.client_id(), "alerts").unwrap();
    assert_eq!(seen(&mut watch), [joined("ann", "lobby-2"), joined("ann", "room-")]);
    for topic in ["news", "room", "Room-1", "alerts"] {
        assert_eq!(hub.users_in(topic), Err(MembersError::Off), "{topic}");
        assert_eq!(hub.is_member("ann", topic), Err(MembersError::Off), "{topic}");
    }
    drop(page);
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch).len(), 2);

    let (hub, _) = hub_with(|hub| hub.presence(Presence::default().all_topics()));
    let _page = tab(&hub, "ann", &["news"]);
    assert_eq!(members(&hub, "news"), [("ann".into(), 1)].into());
    assert_eq!(members(&hub, "unknown"), [].into());
}

#[test]
fn topics_are_off_by_default() {
    let (hub, _) = hub_with(|hub| hub);
    assert_eq!(hub.watch_topics().unwrap_err(), WatchError::Off);
    assert_eq!(hub.users_in("room-1"), Err(MembersError::Off));
    let (hub, _) = hub_with(|hub| hub.presence(Presence::default()));
    assert_eq!(hub.watch_topics().unwrap_err(), WatchError::NoTopics);
    assert_eq!(hub.users_in("room-1"), Err(MembersError::Off));
    assert!(hub.watch().is_ok());
}

#[test]
fn invalid_names_get_typed_errors() {
    let limits = Limits::default().name_len(8);
    let (hub, _) = hub_with(|hub| hub.presence(presence()).limits(limits));
    let empty = NameError::Empty(NameKind::Topic);
    let too_long = NameError::TooLong { kind: NameKind::Topic, len: 9, limit: 8 };
    assert_eq!(hub.users_in(""), Err(MembersError::Topic(empty)));
    assert_eq!(hub.users_in("room-6789"), Err(MembersError::Topic(too_long)));
    assert_eq!(hub.users_in("room-678"), Ok(vec![]));
    assert_eq!(hub.is_member("ann", ""), Err(MembersError::Topic(empty)));
    assert_eq!(hub.is_member("", "room-678"), Ok(false), "no client can have this user");
    let build = |presence| {
        let hub = Hub::builder(ManualTimer::new()).limits(limits).presence(presence);
        hub.build().map(drop)
    };
    let long = Presence::default().topics(&["room-", "123456789"]);
    assert_eq!(build(long), Err(ConfigError::TopicPrefix { len: 9, limit: 8 }));
    assert_eq!(build(long.topics(&["12345678"])), Ok(()));
    assert_eq!(build(long.topics(&[])), Ok(()));
}

#[test]
fn crowd_in_topics_hides_no_user() {
    let settings = presence().event_buffer(4).max_away(4);
    let (hub, timer) = hub_with(|hub| hub.presence(settings));
    let (mut users, mut topics) = (hub.watch().unwrap(), hub.watch_topics().unwrap());
    let away = tab(&hub, "away", &[]);
    drop(away);
    let rooms: Vec<String> = (0..50).map(|room| format!("room-{room}")).collect();
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    drop(tab(&hub, "crowd", &rooms));
    let expected = ["away", "crowd"].map(|user| PresenceEvent::Joined { user: user.into() });
    assert_eq!(seen(&mut users), expected);
    assert!(hub.is_online("away"), "members that are away take no room of users");
    assert_eq!(seen(&mut topics), [TopicEvent::Missed]);
    let away = rooms.iter().filter(|room| !members(&hub, room).is_empty()).count();
    assert_eq!(away, 4);
    timer.advance(GRACE);
    assert_eq!(seen(&mut topics).len(), 4);
    assert_eq!(hub.users(), []);
}

#[test]
fn topic_changes_wake_only_topic_watchers() {
    let (timer, hub, mut watch) = watched();
    let mut users = hub.watch().unwrap();
    let page = tab(&hub, "ann", &[]);
    assert_eq!(seen(&mut users).len(), 1);
    let (of_users, of_topics) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let user_waker = of_users.waker();
    assert!(Pin::new(&mut users).poll_next(&mut Context::from_waker(&user_waker)).is_pending());
    assert!(poll(&mut watch, &of_topics.waker()).is_pending());
    hub.join(page.client_id(), "room-1").unwrap();
    assert_eq!(of_topics.take(), 1);
    assert_eq!(seen(&mut watch), [joined("ann", "room-1")]);
    assert!(poll(&mut watch, &of_topics.waker()).is_pending());
    hub.leave(page.client_id(), "room-1").unwrap();
    assert_eq!((of_topics.take(), of_users.take()), (1, 0));
    assert_eq!(seen(&mut watch), [left("ann", "room-1", EndReason::LeftTopic)]);
    assert_eq!(timer.next_deadline(), None, "nobody is away");
    // The watch waits for the end of the grace period by its own timer.
    hub.join(page.client_id(), "room-1").unwrap();
    let _other = tab(&hub, "ann", &[]);
    drop(page);
    seen(&mut watch);
    assert!(poll(&mut watch, &of_topics.waker()).is_pending());
    timer.advance(GRACE);
    assert_eq!((of_topics.take(), of_users.take()), (1, 0));
    assert_eq!(seen(&mut watch), [left("ann", "room-1", EndReason::Left)]);
}

#[test]
fn late_leave_comes_before_a_topic_is_left() {
    // More members than one operation ends: the later ones are found by the clock.
    let (timer, hub, mut watch) = watched();
    drop((0..100).map(|user| tab(&hub, &user.to_string(), &["room-1"])).collect::<Vec<_>>());
    seen(&mut watch);
    timer.advance(GRACE);
    let page = tab(&hub, "99", &["room-1"]);
    hub.leave(page.client_id(), "room-1").unwrap();
    let events = seen(&mut watch);
    let of_it = events.iter().filter(|event| match event {
        TopicEvent::Joined { user, .. } | TopicEvent::Left { user, .. } => &**user == "99",
        _ => true,
    });
    let expected = [
        left("99", "room-1", EndReason::Left),
        joined("99", "room-1"),
        left("99", "room-1", EndReason::LeftTopic),
    ];
    assert!(of_it.eq(&expected), "{events:?}");
    assert_eq!(events.len(), 102);
}

#[test]
fn watch_ends_after_events_before_close() {
    let (timer, hub, mut watch) = watched();
    let page = tab(&hub, "ann", &["room-1"]);
    let mut waits = hub.watch_topics().unwrap();
    let count = Arc::new(Count::default());
    assert!(poll(&mut waits, &count.waker()).is_pending());
    hub.close();
    assert_eq!(count.take(), 1);
    let _ = hub.leave(page.client_id(), "room-1");
    let _ = hub.join(page.client_id(), "room-2");
    drop(page);
    timer.advance(GRACE);
    for event in [Some(joined("ann", "room-1")), None, None] {
        assert_eq!(watch.next().now_or_never(), Some(event));
    }
    assert_eq!(waits.next().now_or_never(), Some(None));
    assert_eq!(members(&hub, "room-1"), [].into());
    drop(hub);
    assert_eq!(waits.next().now_or_never(), Some(None));
}
