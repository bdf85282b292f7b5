//! Presence on a manual timer.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream as _, StreamExt as _};
use sse_hub::{
    Audience, ConfigError, EndReason, Goodbye, Hub, HubBuilder, Limits, ManualTimer, Presence,
    PresenceEvent, PresenceWatch, Subscriber, Subscription, Timer as _, WatchError,
};
use support::within;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(10);

fn builder(timer: &ManualTimer, presence: Presence) -> HubBuilder {
    Hub::builder(timer.clone()).presence(presence).heartbeat(None)
}

fn watched() -> (ManualTimer, Hub, PresenceWatch) {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::default().grace(GRACE)).build().unwrap();
    let watch = hub.watch().unwrap();
    (timer, hub, watch)
}

fn tab(hub: &Hub, user: &str) -> Subscription {
    hub.subscribe(Subscriber::new().user(user)).unwrap()
}

fn joined(user: &str) -> PresenceEvent {
    PresenceEvent::Joined { user: user.into() }
}

fn left(user: &str, reason: EndReason) -> PresenceEvent {
    PresenceEvent::Left { user: user.into(), reason }
}

/// Reads every available event.
fn seen(watch: &mut PresenceWatch) -> Vec<PresenceEvent> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
}

/// Returns the online users with their number of clients.
fn users(hub: &Hub) -> BTreeMap<String, usize> {
    let users = hub.users();
    let map: BTreeMap<_, _> =
        users.iter().map(|info| (info.user.to_string(), info.clients)).collect();
    assert_eq!(map.len(), users.len(), "each once");
    map
}

fn poll(watch: &mut PresenceWatch, waker: &Waker) -> Poll<Option<PresenceEvent>> {
    std::pin::Pin::new(watch).poll_next(&mut Context::from_waker(waker))
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
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

#[test]
fn user_joins_first_and_leaves_after_grace() {
    let (timer, hub, mut watch) = watched();
    let ann = tab(&hub, "ann");
    assert_eq!(seen(&mut watch), [joined("ann")]);
    drop(ann);
    timer.advance(GRACE - SECOND);
    assert_eq!(seen(&mut watch), []);
    assert!(hub.is_online("ann"));
    assert_eq!(users(&hub), [("ann".into(), 0)].into());
    timer.advance(SECOND);
    assert!(!hub.is_online("ann"));
    assert!(users(&hub).is_empty());
    assert_eq!(seen(&mut watch), [left("ann", EndReason::Left)]);
}

#[test]
fn reload_within_grace_is_no_change() {
    let (timer, hub, mut watch) = watched();
    let mut ann = tab(&hub, "ann");
    assert_eq!(seen(&mut watch), [joined("ann")]);
    for _ in 0..100 {
        drop(ann);
        timer.advance(GRACE - SECOND);
        ann = tab(&hub, "ann");
        timer.advance(GRACE * 2);
        assert_eq!(seen(&mut watch), []);
    }
    drop(ann);
    timer.advance(GRACE);
    let _ann = tab(&hub, "ann");
    assert_eq!(
        seen(&mut watch),
        [left("ann", EndReason::Left), joined("ann")],
        "the grace period is over"
    );
}

#[test]
fn user_leaves_with_the_last_tab() {
    let (timer, hub, mut watch) = watched();
    let (one, other) = (tab(&hub, "ann"), tab(&hub, "ann"));
    assert_eq!(users(&hub), [("ann".into(), 2)].into());
    assert_eq!(seen(&mut watch), [joined("ann")]);
    drop(one);
    timer.advance(GRACE * 2);
    assert_eq!(seen(&mut watch), []);
    assert_eq!(users(&hub), [("ann".into(), 1)].into());
    drop(other);
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch), [left("ann", EndReason::Left)]);
}

#[test]
fn leave_carries_the_last_end_reason() {
    let (timer, hub, mut watch) = watched();
    let one = tab(&hub, "ann");
    let other = tab(&hub, "ann");
    drop(one);
    hub.disconnect(Audience::user("ann"), Goodbye::from_static("logout")).unwrap();
    let mut late =
        hub.subscribe(Subscriber::new().user("bob").until(timer.now() + SECOND)).unwrap();
    timer.advance(SECOND);
    while let Some(Some(_)) = late.next().now_or_never() {}
    timer.advance(GRACE);
    assert_eq!(
        seen(&mut watch),
        [
            joined("ann"),
            joined("bob"),
            left("ann", EndReason::Disconnected),
            left("bob", EndReason::Expired)
        ]
    );
    drop(other);
    assert_eq!(seen(&mut watch), [], "the client had ended before");
}

#[test]
fn displacing_own_tab_is_no_change() {
    let timer = ManualTimer::new();
    let limits = Limits::default().per_user(1).displace_oldest(true);
    let hub = builder(&timer, Presence::default().grace(GRACE)).limits(limits).build().unwrap();
    let mut watch = hub.watch().unwrap();
    let _old = tab(&hub, "ann");
    let _new = tab(&hub, "ann");
    timer.advance(GRACE * 2);
    assert_eq!(seen(&mut watch), [joined("ann")]);
}

#[test]
fn zero_grace_reports_each_reload() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::default().grace(Duration::ZERO)).build().unwrap();
    let mut watch = hub.watch().unwrap();
    drop(tab(&hub, "ann"));
    assert_eq!(seen(&mut watch), [joined("ann"), left("ann", EndReason::Left)]);
    assert!(!hub.is_online("ann"));
}

#[test]
fn grace_beyond_the_clock_never_ends() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::default().grace(Duration::MAX)).build().unwrap();
    let mut watch = hub.watch().unwrap();
    drop(tab(&hub, "ann"));
    timer.advance(Duration::from_secs(1 << 29));
    assert_eq!(seen(&mut watch), [joined("ann")]);
}

#[test]
fn only_users_are_reported() {
    let (timer, hub, mut watch) = watched();
    drop(hub.subscribe(Subscriber::new().session("ann").topic("bob")).unwrap());
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch), []);
    assert!(users(&hub).is_empty());
    assert!(!hub.is_online("ann") && !hub.is_online("bob") && !hub.is_online(""));
}

#[test]
fn hub_without_presence_lists_connected_users() {
    let hub = Hub::builder(ManualTimer::new()).build().unwrap();
    assert_eq!(hub.watch().unwrap_err(), WatchError::Off);
    let ann = tab(&hub, "ann");
    assert!(hub.is_online("ann"));
    assert_eq!(users(&hub), [("ann".into(), 1)].into());
    drop(ann);
    assert!(!hub.is_online("ann"));
}

#[test]
fn unusable_settings_are_named() {
    let build = |presence| builder(&ManualTimer::new(), presence).build().unwrap_err();
    let presence = Presence::default().grace(GRACE);
    assert_eq!(build(presence.max_away(0)), ConfigError::Zero { setting: "Presence::max_away" });
    assert_eq!(
        build(presence.event_buffer(0)),
        ConfigError::Zero { setting: "Presence::event_buffer" }
    );
}

#[test]
fn lagging_watcher_gets_one_notice_and_continues() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::default().grace(GRACE).event_buffer(3)).build().unwrap();
    let (mut slow, mut slower) = (hub.watch().unwrap(), hub.watch().unwrap());
    let mut tabs: Vec<_> = ["a", "b", "c"].map(|user| tab(&hub, user)).into();
    assert_eq!(slow.next().now_or_never(), Some(Some(joined("a"))));
    tabs.push(tab(&hub, "d"));
    assert_eq!(
        seen(&mut slow),
        ["b", "c", "d"].map(joined),
        "the watcher keeps at most its capacity"
    );
    assert_eq!(seen(&mut slower), [PresenceEvent::Missed]);
    assert_eq!(users(&hub).len(), 4);
    tabs.push(tab(&hub, "e"));
    assert_eq!(seen(&mut slower), [joined("e")]);
}

#[test]
fn many_leaves_do_not_overtake_a_reading_watcher() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::default().grace(GRACE).event_buffer(64).max_away(1000))
        .build()
        .unwrap();
    let tabs: Vec<_> = (0..1000).map(|user| tab(&hub, &user.to_string())).collect();
    let mut watch = hub.watch().unwrap();
    drop(tabs);
    timer.advance(GRACE);
    let events = seen(&mut watch);
    assert_eq!(events.len(), 1000);
    assert!(!events.contains(&PresenceEvent::Missed));
}

#[test]
fn late_return_reports_leave_before_join() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::default().grace(GRACE)).build().unwrap();
    drop((0..1000).map(|user| tab(&hub, &user.to_string())).collect::<Vec<_>>());
    timer.advance(GRACE);
    assert!(!hub.is_online("998"));
    let mut watch = hub.watch().unwrap();
    let _back = tab(&hub, "999");
    let events = seen(&mut watch);
    let of_it = |event: &&PresenceEvent| match event {
        PresenceEvent::Joined { user } | PresenceEvent::Left { user, .. } => &**user == "999",
        _ => true,
    };
    let of_it: Vec<_> = events.iter().filter(of_it).cloned().collect();
    assert_eq!(of_it, [left("999", EndReason::Left), joined("999")]);
    assert_eq!(users(&hub), [("999".into(), 1)].into());
}

#[test]
fn away_users_are_bounded_oldest_leaves_first() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::default().grace(GRACE).max_away(2)).build().unwrap();
    let mut watch = hub.watch().unwrap();
    for user in ["a", "b", "c"] {
        drop(tab(&hub, user));
        timer.advance(SECOND);
    }
    assert_eq!(
        seen(&mut watch),
        [joined("a"), joined("b"), joined("c"), left("a", EndReason::Left)]
    );
    assert_eq!(users(&hub).into_keys().collect::<Vec<_>>(), ["b", "c"]);
    // A user that returns frees its entry.
    let _b = tab(&hub, "b");
    drop(tab(&hub, "d"));
    assert_eq!(seen(&mut watch), [joined("d")]);
}

#[test]
fn watchers_see_the_same_events() {
    let (timer, hub, watch) = watched();
    let mut watchers = vec![watch];
    watchers.extend((0..100).map(|_| hub.watch().unwrap()));
    let ann = tab(&hub, "ann");
    let mut late = hub.watch().unwrap();
    assert_eq!(users(&hub).len(), 1, "a late watcher must list users");
    drop(ann);
    timer.advance(GRACE);
    for watch in &mut watchers {
        assert_eq!(seen(watch), [joined("ann"), left("ann", EndReason::Left)]);
    }
    assert_eq!(seen(&mut late), [left("ann", EndReason::Left)]);
}

#[test]
fn dropped_watcher_frees_its_slot_and_waker() {
    let (_timer, hub, mut watch) = watched();
    let count = Arc::new(Count::default());
    assert!(poll(&mut watch, &Waker::from(Arc::clone(&count))).is_pending());
    let mut other = hub.watch().unwrap();
    drop(watch);
    assert_eq!(Arc::strong_count(&count), 1);
    let _ann = tab(&hub, "ann");
    assert_eq!(count.take(), 0);
    assert_eq!(seen(&mut other), [joined("ann")]);
    drop(other);
    let _bob = tab(&hub, "bob");
    assert_eq!(seen(&mut hub.watch().unwrap()), [], "earlier events must not be delivered");
}

#[test]
fn events_are_dropped_without_watchers() {
    let (_timer, hub, watch) = watched();
    let come = |name: &Arc<str>| hub.subscribe(Subscriber::new().user(Arc::clone(name))).unwrap();
    let (seen, unseen): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
    let _ann = come(&seen);
    let kept = Arc::strong_count(&seen);
    drop(watch);
    assert_eq!(Arc::strong_count(&seen), kept - 1);
    let _bob = come(&unseen);
    assert_eq!(Arc::strong_count(&unseen), kept - 1);
}

#[test]
fn watch_ends_after_events_before_close() {
    let (timer, hub, mut watch) = watched();
    let ann = tab(&hub, "ann");
    drop(tab(&hub, "bob"));
    let mut waits = hub.watch().unwrap();
    let count = Arc::new(Count::default());
    assert!(poll(&mut waits, &Waker::from(Arc::clone(&count))).is_pending());
    hub.close();
    assert_eq!(count.take(), 1);
    drop(ann);
    timer.advance(GRACE);
    for event in [Some(joined("ann")), Some(joined("bob")), None, None] {
        assert_eq!(watch.next().now_or_never(), Some(event));
    }
    assert_eq!(waits.next().now_or_never(), Some(None));
    assert_eq!(hub.watch().unwrap().next().now_or_never(), Some(None));
    assert!(!hub.is_online("bob") && users(&hub).is_empty());
}

#[test]
fn watch_does_not_keep_hub_open() {
    let (_timer, hub, mut watch) = watched();
    drop(hub);
    assert_eq!(watch.next().now_or_never(), Some(None));
}

#[test]
fn waiting_watcher_wakes_once_per_event() {
    let (timer, hub, mut watch) = watched();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(poll(&mut watch, &waker).is_pending());
    assert_eq!(timer.next_deadline(), None, "no user is away");

    let ann = tab(&hub, "ann");
    assert_eq!(count.take(), 1);
    let bob = tab(&hub, "bob");
    assert_eq!(count.take(), 0, "it knows");
    assert_eq!(seen(&mut watch), [joined("ann"), joined("bob")]);
    assert!(poll(&mut watch, &waker).is_pending());

    drop(ann);
    assert_eq!(count.take(), 1, "one wake-up must arm the timer");
    assert!(poll(&mut watch, &waker).is_pending());
    assert_eq!(timer.next_deadline(), Some(timer.now() + GRACE));
    timer.advance(SECOND);
    drop(bob);
    assert_eq!(count.take(), 0, "the armed timer fires earlier");

    timer.advance(GRACE - SECOND);
    assert_eq!(count.take(), 1);
    assert_eq!(poll(&mut watch, &waker), Poll::Ready(Some(left("ann", EndReason::Left))));
    assert!(poll(&mut watch, &waker).is_pending());
    timer.advance(SECOND);
    assert_eq!(count.take(), 1);
    assert_eq!(poll(&mut watch, &waker), Poll::Ready(Some(left("bob", EndReason::Left))));
    assert!(poll(&mut watch, &waker).is_pending());
    timer.advance(GRACE * 10);
    assert_eq!(count.take(), 0);
}

#[test]
fn reload_keeps_armed_timer_and_later_wakes() {
    let (timer, hub, mut watch) = watched();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let ann = tab(&hub, "ann");
    assert_eq!(seen(&mut watch), [joined("ann")]);
    drop(ann);
    assert!(poll(&mut watch, &waker).is_pending());
    for later in [Duration::ZERO, SECOND] {
        timer.advance(later);
        let ann = tab(&hub, "ann");
        drop(ann);
        assert_eq!(count.take(), 0, "the armed timer fires before the new grace ends, or then");
    }
    timer.advance(GRACE - SECOND);
    assert_eq!(count.take(), 1);
    assert!(poll(&mut watch, &waker).is_pending());
    timer.advance(SECOND);
    assert_eq!(count.take(), 1);
    assert_eq!(poll(&mut watch, &waker), Poll::Ready(Some(left("ann", EndReason::Left))));
}

#[test]
fn leave_found_by_another_call_wakes_watchers() {
    for find in [
        &(|hub: &Hub| drop(tab(hub, "bob"))) as &dyn Fn(&Hub),
        &|hub| assert!(!hub.is_online("bob")),
        &|hub| assert!(hub.users().is_empty()),
    ] {
        let (timer, hub, mut watch) = watched();
        drop(tab(&hub, "bob"));
        seen(&mut watch);
        let count = Arc::new(Count::default());
        assert!(poll(&mut watch, &Waker::from(Arc::clone(&count))).is_pending());
        timer.advance(GRACE);
        count.take();
        find(&hub);
        assert_eq!(count.take(), 1);
        assert_eq!(seen(&mut watch)[0], left("bob", EndReason::Left));
    }
}

#[test]
fn leave_found_by_a_watcher_wakes_the_others() {
    let (timer, hub, mut watch) = watched();
    let mut other = hub.watch().unwrap();
    drop(tab(&hub, "ann"));
    assert_eq!(seen(&mut other), seen(&mut watch));
    let count = Arc::new(Count::default());
    assert!(poll(&mut other, &Waker::from(Arc::clone(&count))).is_pending());
    timer.advance(GRACE);
    assert_eq!(count.take(), 1, "its own timer must wake the watcher");
    assert_eq!(seen(&mut watch), [left("ann", EndReason::Left)]);
    assert_eq!(count.take(), 1, "another watcher's read must wake the watcher too");
}

#[test]
fn moved_watch_wakes_its_new_task() {
    let (timer, hub, mut watch) = watched();
    drop(tab(&hub, "ann"));
    assert_eq!(seen(&mut watch), [joined("ann")]);
    let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
    assert!(poll(&mut watch, &Waker::from(Arc::clone(&first))).is_pending());
    assert!(poll(&mut watch, &Waker::from(Arc::clone(&second))).is_pending());
    assert_eq!(Arc::strong_count(&first), 1);
    timer.advance(GRACE);
    assert_eq!((first.take(), second.take()), (0, 1));
}

/// Uses the hub from `wake` and from its destructor, like an executor that runs tasks in place.
struct Uses {
    hub: Hub,
    left: AtomicUsize,
}

impl Uses {
    fn hub(&self) {
        drop(self.hub.subscribe(Subscriber::new().user("from a waker")));
        drop(self.hub.watch());
        let _ = (self.hub.users(), self.hub.is_online("ann"));
    }
}

impl Wake for Uses {
    fn wake(self: Arc<Self>) {
        let left = self.left.load(Ordering::SeqCst);
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
            self.hub();
        }
    }
}

impl Drop for Uses {
    fn drop(&mut self) {
        self.hub();
    }
}

#[test]
fn waker_that_uses_the_hub_does_not_deadlock() {
    within(SECOND * 10, || {
        let (timer, hub, mut watch) = watched();
        let uses = || Waker::from(Arc::new(Uses { hub: hub.clone(), left: AtomicUsize::new(3) }));
        let mut other = hub.watch().unwrap();
        for _ in 0..2 {
            assert!(poll(&mut watch, &uses()).is_pending());
            assert!(poll(&mut other, &uses()).is_pending());
            // Drops the last handles of the first two.
            while poll(&mut watch, &uses()).is_ready() {}
            drop(tab(&hub, "ann"));
            while poll(&mut watch, &uses()).is_ready() {}
            while poll(&mut other, &uses()).is_ready() {}
            timer.advance(GRACE);
            while poll(&mut watch, Waker::noop()).is_ready() {}
            while poll(&mut other, Waker::noop()).is_ready() {}
        }
        assert!(poll(&mut watch, &uses()).is_pending());
        drop(watch);
        while poll(&mut other, Waker::noop()).is_ready() {}
        assert!(poll(&mut other, &uses()).is_pending());
        hub.close();
    });
}

#[test]
fn watchers_on_many_threads_agree_with_the_list() {
    const USERS: usize = 8;
    let timer = ManualTimer::new();
    let presence = Presence::default().grace(SECOND).event_buffer(16).max_away(4);
    let hub = builder(&timer, presence).build().unwrap();
    let watchers: Vec<_> = (0..3)
        .map(|_| {
            let hub = hub.clone();
            thread::spawn(move || {
                let mut watch = hub.watch().unwrap();
                let list = |hub: &Hub| users(hub).into_keys().collect::<BTreeSet<_>>();
                let mut online = list(&hub);
                futures_executor::block_on(async {
                    while !online.contains("the end") {
                        match watch.next().await.expect("the hub is open") {
                            PresenceEvent::Joined { user } => {
                                online.insert(user.to_string());
                            }
                            PresenceEvent::Left { user, .. } => {
                                online.remove(&*user);
                            }
                            _ => online = list(&hub),
                        }
                    }
                });
                online
            })
        })
        .collect();
    let stay: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..USERS)
            .map(|user| {
                let (hub, timer) = (&hub, &timer);
                scope.spawn(move || {
                    let name = user.to_string();
                    for round in 0..500 {
                        drop(tab(hub, &name));
                        if round % 5 == user % 5 {
                            timer.advance(SECOND / 2);
                        }
                    }
                    user.is_multiple_of(2).then(|| tab(hub, &name))
                })
            })
            .collect();
        clients.into_iter().filter_map(|client| client.join().unwrap()).collect()
    });
    timer.advance(SECOND);
    assert_eq!(users(&hub).len(), stay.len());
    let _end = tab(&hub, "the end");
    let online: BTreeSet<_> = users(&hub).into_keys().collect();
    for watcher in watchers {
        assert_eq!(watcher.join().unwrap(), online);
    }
}
