//! Who comes and goes, by a clock that stands still until it is told to go on.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream as _, StreamExt as _};
use sse_hub::{
    Audience, ConfigError, EndReason, Heartbeat, Hub, HubBuilder, Limits, ManualTimer, Presence,
    PresenceEvent, PresenceWatch, Subscriber, Subscription, Timer as _, WatchError,
};
use support::within;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(10);

fn builder(timer: &ManualTimer, presence: Presence) -> HubBuilder {
    Hub::builder(timer.clone()).presence(presence).heartbeat(Heartbeat::disabled())
}

fn watched() -> (ManualTimer, Hub, PresenceWatch) {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::with_grace(GRACE)).build().unwrap();
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

/// All that the watcher sees now.
fn seen(watch: &mut PresenceWatch) -> Vec<PresenceEvent> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
}

/// Who is online, with how many clients.
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

/// Counts how often it is woken.
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
fn a_user_joins_with_the_first_client_and_leaves_a_grace_after_the_last() {
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
fn a_reload_is_neither_a_leave_nor_a_join() {
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
    assert_eq!(seen(&mut watch), [left("ann", EndReason::Left), joined("ann")], "one too late");
}

#[test]
fn a_user_with_two_tabs_leaves_with_the_second() {
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
fn a_leave_carries_why_the_last_client_ended() {
    let (timer, hub, mut watch) = watched();
    let one = tab(&hub, "ann");
    let other = tab(&hub, "ann");
    drop(one);
    hub.disconnect(&Audience::user("ann"), "logout", None).unwrap();
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
    assert_eq!(seen(&mut watch), [], "it had ended before");
}

#[test]
fn a_tab_that_displaces_another_of_its_user_is_no_change() {
    let timer = ManualTimer::new();
    let limits = Limits::default().per_user(1).displace_oldest();
    let hub = builder(&timer, Presence::with_grace(GRACE)).limits(limits).build().unwrap();
    let mut watch = hub.watch().unwrap();
    let _old = tab(&hub, "ann");
    let _new = tab(&hub, "ann");
    timer.advance(GRACE * 2);
    assert_eq!(seen(&mut watch), [joined("ann")]);
}

#[test]
fn without_a_grace_each_reload_is_a_leave_and_a_join() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::with_grace(Duration::ZERO)).build().unwrap();
    let mut watch = hub.watch().unwrap();
    drop(tab(&hub, "ann"));
    assert_eq!(seen(&mut watch), [joined("ann"), left("ann", EndReason::Left)]);
    assert!(!hub.is_online("ann"));
}

#[test]
fn a_grace_beyond_all_clocks_is_never_over() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::with_grace(Duration::MAX)).build().unwrap();
    let mut watch = hub.watch().unwrap();
    drop(tab(&hub, "ann"));
    timer.advance(Duration::from_secs(1 << 29));
    assert_eq!(seen(&mut watch), [joined("ann")]);
}

#[test]
fn only_users_are_seen() {
    let (timer, hub, mut watch) = watched();
    drop(hub.subscribe(Subscriber::new().session("ann").topic("bob")).unwrap());
    timer.advance(GRACE);
    assert_eq!(seen(&mut watch), []);
    assert!(users(&hub).is_empty());
    assert!(!hub.is_online("ann") && !hub.is_online("bob") && !hub.is_online(""));
}

#[test]
fn a_hub_without_presence_lists_who_is_connected() {
    let hub = Hub::builder(ManualTimer::new()).build().unwrap();
    assert_eq!(hub.watch().unwrap_err(), WatchError::Off);
    let ann = tab(&hub, "ann");
    assert!(hub.is_online("ann"));
    assert_eq!(users(&hub), [("ann".into(), 1)].into());
    drop(ann);
    assert!(!hub.is_online("ann"));
}

#[test]
fn settings_that_nothing_could_work_with_are_named() {
    let build = |presence| builder(&ManualTimer::new(), presence).build().unwrap_err();
    let presence = Presence::with_grace(GRACE);
    assert_eq!(build(presence.away(0)), ConfigError::PresenceIsZero("away"));
    assert_eq!(build(presence.events(0)), ConfigError::PresenceIsZero("events"));
}

#[test]
fn a_watcher_that_falls_behind_is_told_once_and_goes_on_from_now() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::with_grace(GRACE).events(3)).build().unwrap();
    let (mut slow, mut slower) = (hub.watch().unwrap(), hub.watch().unwrap());
    let mut tabs: Vec<_> = ["a", "b", "c"].map(|user| tab(&hub, user)).into();
    assert_eq!(slow.next().now_or_never(), Some(Some(joined("a"))));
    tabs.push(tab(&hub, "d"));
    assert_eq!(seen(&mut slow), ["b", "c", "d"].map(joined), "not more than are kept");
    assert_eq!(seen(&mut slower), [PresenceEvent::Missed]);
    assert_eq!(users(&hub).len(), 4);
    tabs.push(tab(&hub, "e"));
    assert_eq!(seen(&mut slower), [joined("e")]);
}

#[test]
fn a_crowd_that_left_does_not_overtake_a_watcher_that_reads() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::with_grace(GRACE).events(64).away(1000)).build().unwrap();
    let tabs: Vec<_> = (0..1000).map(|user| tab(&hub, &user.to_string())).collect();
    let mut watch = hub.watch().unwrap();
    drop(tabs);
    timer.advance(GRACE);
    let events = seen(&mut watch);
    assert_eq!(events.len(), 1000);
    assert!(!events.contains(&PresenceEvent::Missed));
}

#[test]
fn a_user_back_too_late_left_before_it_joins_however_many_left_before_it() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::with_grace(GRACE)).build().unwrap();
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
fn users_that_are_away_are_bounded_and_the_first_is_given_up() {
    let timer = ManualTimer::new();
    let hub = builder(&timer, Presence::with_grace(GRACE).away(2)).build().unwrap();
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
    // Somebody who comes back makes room.
    let _b = tab(&hub, "b");
    drop(tab(&hub, "d"));
    assert_eq!(seen(&mut watch), [joined("d")]);
}

#[test]
fn many_watchers_see_the_same() {
    let (timer, hub, watch) = watched();
    let mut watchers = vec![watch];
    watchers.extend((0..100).map(|_| hub.watch().unwrap()));
    let ann = tab(&hub, "ann");
    let mut late = hub.watch().unwrap();
    assert_eq!(users(&hub).len(), 1, "one that comes late lists");
    drop(ann);
    timer.advance(GRACE);
    for watch in &mut watchers {
        assert_eq!(seen(watch), [joined("ann"), left("ann", EndReason::Left)]);
    }
    assert_eq!(seen(&mut late), [left("ann", EndReason::Left)]);
}

#[test]
fn a_watcher_that_is_dropped_frees_its_place_and_its_waker() {
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
    assert_eq!(seen(&mut hub.watch().unwrap()), [], "what was before it is not seen");
}

#[test]
fn no_event_is_kept_while_nobody_watches() {
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
fn the_stream_ends_after_what_was_before_the_hub_was_closed() {
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
fn a_watch_does_not_keep_its_hub_open() {
    let (_timer, hub, mut watch) = watched();
    drop(hub);
    assert_eq!(watch.next().now_or_never(), Some(None));
}

#[test]
fn a_watcher_that_waits_is_woken_once_by_a_join_and_by_the_end_of_a_grace() {
    let (timer, hub, mut watch) = watched();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(poll(&mut watch, &waker).is_pending());
    assert_eq!(timer.next_deadline(), None, "nobody is away");

    let ann = tab(&hub, "ann");
    assert_eq!(count.take(), 1);
    let bob = tab(&hub, "bob");
    assert_eq!(count.take(), 0, "it knows");
    assert_eq!(seen(&mut watch), [joined("ann"), joined("bob")]);
    assert!(poll(&mut watch, &waker).is_pending());

    drop(ann);
    assert_eq!(count.take(), 1, "to arm its timer");
    assert!(poll(&mut watch, &waker).is_pending());
    assert_eq!(timer.next_deadline(), Some(timer.now() + GRACE));
    timer.advance(SECOND);
    drop(bob);
    assert_eq!(count.take(), 0, "it will wake before");

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
fn a_reload_leaves_an_armed_timer_alone_and_loses_no_later_wake_up() {
    let (timer, hub, mut watch) = watched();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let ann = tab(&hub, "ann");
    assert_eq!(seen(&mut watch), [joined("ann")]);
    drop(ann);
    assert!(poll(&mut watch, &waker).is_pending());
    timer.advance(SECOND);
    let ann = tab(&hub, "ann");
    drop(ann);
    assert_eq!(count.take(), 0, "it wakes before her new grace is over");
    timer.advance(GRACE - SECOND);
    assert_eq!(count.take(), 1);
    assert!(poll(&mut watch, &waker).is_pending());
    timer.advance(SECOND);
    assert_eq!(count.take(), 1);
    assert_eq!(poll(&mut watch, &waker), Poll::Ready(Some(left("ann", EndReason::Left))));
}

#[test]
fn a_leave_that_another_finds_wakes_those_who_wait() {
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
fn a_leave_that_one_watcher_finds_wakes_the_others() {
    let (timer, hub, mut watch) = watched();
    let mut other = hub.watch().unwrap();
    drop(tab(&hub, "ann"));
    assert_eq!(seen(&mut other), seen(&mut watch));
    let count = Arc::new(Count::default());
    assert!(poll(&mut other, &Waker::from(Arc::clone(&count))).is_pending());
    timer.advance(GRACE);
    assert_eq!(count.take(), 1, "by its own timer");
    assert_eq!(seen(&mut watch), [left("ann", EndReason::Left)]);
    assert_eq!(count.take(), 1, "which is not relied on");
}

#[test]
fn a_watch_moved_to_another_task_wakes_that_one() {
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

/// Uses the hub from `wake` and from its drop, as an executor that runs tasks in place would.
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
fn a_waker_that_uses_the_hub_does_not_deadlock() {
    within(SECOND * 10, || {
        let (timer, hub, mut watch) = watched();
        let uses = || Waker::from(Arc::new(Uses { hub: hub.clone(), left: AtomicUsize::new(3) }));
        let mut other = hub.watch().unwrap();
        for _ in 0..2 {
            assert!(poll(&mut watch, &uses()).is_pending());
            assert!(poll(&mut other, &uses()).is_pending());
            // The last handles of the first two are dropped.
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
fn watchers_on_many_threads_end_with_what_is_true() {
    const USERS: usize = 8;
    let timer = ManualTimer::new();
    let presence = Presence::with_grace(SECOND).events(16).away(4);
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
