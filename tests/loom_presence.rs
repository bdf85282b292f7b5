//! Interleavings of watchers and users that join and leave, checked with loom.
//!
//! Run with `RUSTFLAGS="--cfg sse_hub_loom" cargo test --release --test loom_presence`.
#![cfg(sse_hub_loom)]

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use loom::future::block_on;
use loom::thread;
use sse_hub::{
    Audience, EndReason, Hub, ManualTimer, Presence, PresenceEvent, Subscriber, Subscription,
    TopicEvent, TopicWatch,
};

const GRACE: Duration = Duration::from_secs(1);

fn hub(timer: &ManualTimer) -> Hub {
    let presence = Presence::default().grace(GRACE);
    let hub = Hub::builder(timer.clone()).heartbeat(None).presence(presence);
    hub.build().unwrap()
}

fn tab(hub: &Hub) -> Subscription {
    hub.subscribe(Subscriber::new().user("ann")).unwrap()
}

#[test]
fn join_wakes_a_waiting_watcher() {
    loom::model(|| {
        let hub = hub(&ManualTimer::new());
        let mut watch = hub.watch().unwrap();
        let comes = thread::spawn({
            let hub = hub.clone();
            move || tab(&hub)
        });
        let event = block_on(watch.next()).unwrap();
        assert!(matches!(event, PresenceEvent::Joined { .. }));
        drop(comes.join().unwrap());
    });
}

#[test]
fn end_of_grace_wakes_a_waiting_watcher() {
    loom::model(|| {
        let timer = ManualTimer::new();
        let hub = hub(&timer);
        let ann = tab(&hub);
        let mut watch = hub.watch().unwrap();
        let goes = thread::spawn(move || {
            drop(ann);
            timer.advance(GRACE);
        });
        let event = block_on(watch.next()).unwrap();
        assert!(matches!(event, PresenceEvent::Left { .. }));
        goes.join().unwrap();
    });
}

#[test]
fn list_and_later_events_agree() {
    loom::model(|| {
        let timer = ManualTimer::new();
        let hub = hub(&timer);
        drop(tab(&hub));
        let mut watch = hub.watch().unwrap();
        let comes = thread::spawn({
            let hub = hub.clone();
            move || tab(&hub)
        });
        let passes = thread::spawn(move || timer.advance(GRACE));
        let mut online = !hub.users().is_empty();
        passes.join().unwrap();
        let _ann = comes.join().unwrap();
        while let Some(event) = watch.next().now_or_never() {
            match event.unwrap() {
                PresenceEvent::Joined { .. } => online = true,
                PresenceEvent::Left { .. } => online = false,
                event => panic!("{event:?}"),
            }
        }
        assert!(online);
    });
}

#[test]
fn closing_wakes_a_waiting_watcher() {
    loom::model(|| {
        let hub = hub(&ManualTimer::new());
        let mut watch = hub.watch().unwrap();
        let closes = thread::spawn(move || hub.close());
        assert_eq!(block_on(watch.next()), None);
        closes.join().unwrap();
    });
}

fn room() -> (ManualTimer, Hub) {
    let timer = ManualTimer::new();
    let presence = Presence::default().grace(GRACE).all_topics();
    let hub = Hub::builder(timer.clone()).heartbeat(None).presence(presence).build().unwrap();
    (timer, hub)
}

/// Applies the events of a watch to a member that was, or was not, in the room.
fn follow(watch: &mut TopicWatch, mut is_member: bool) -> bool {
    while let Some(event) = watch.next().now_or_never() {
        let joins = match event.unwrap() {
            TopicEvent::Joined { .. } => true,
            TopicEvent::Left { .. } => false,
            event => panic!("{event:?}"),
        };
        is_member = joins;
    }
    is_member
}

#[test]
fn join_of_a_topic_wakes_a_waiting_watcher() {
    loom::model(|| {
        let (_, hub) = room();
        let ann = tab(&hub);
        let mut watch = hub.watch_topics().unwrap();
        let joins = thread::spawn({
            let hub = hub.clone();
            move || hub.join(Audience::all(), "r").unwrap()
        });
        let event = block_on(watch.next()).unwrap();
        assert!(matches!(event, TopicEvent::Joined { .. }));
        joins.join().unwrap();
        drop(ann);
    });
}

#[test]
fn tabs_that_leave_and_close_are_one_departure() {
    loom::model(|| {
        let (timer, hub) = room();
        let who = || Subscriber::new().user("ann").topic("r");
        let (one, other) = (hub.subscribe(who()).unwrap(), hub.subscribe(who()).unwrap());
        let mut watch = hub.watch_topics().unwrap();
        let closes = thread::spawn(move || drop(one));
        hub.leave(other.client_id(), "r").unwrap();
        closes.join().unwrap();
        // The one that was last decides about the grace period.
        let is_away = !hub.users_in("r").unwrap().is_empty();
        timer.advance(GRACE);
        let reason = match watch.next().now_or_never().unwrap().unwrap() {
            TopicEvent::Left { reason, .. } => reason,
            event => panic!("{event:?}"),
        };
        assert_eq!(reason, if is_away { EndReason::Left } else { EndReason::LeftTopic });
        assert!(watch.next().now_or_never().is_none());
        assert!(hub.users_in("r").unwrap().is_empty());
    });
}

#[test]
fn members_and_later_events_agree() {
    loom::model(|| {
        let (_, hub) = room();
        let ann = tab(&hub);
        let mut watch = hub.watch_topics().unwrap();
        let comes_and_goes = thread::spawn({
            let (hub, client) = (hub.clone(), ann.client_id());
            move || {
                hub.join(client, "r").unwrap();
                hub.leave(client, "r").unwrap();
            }
        });
        let is_member = !hub.users_in("r").unwrap().is_empty();
        comes_and_goes.join().unwrap();
        assert!(!follow(&mut watch, is_member));
    });
}
