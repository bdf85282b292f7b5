//! Interleavings of watchers and users that join and leave, checked with loom.
//!
//! Run with `RUSTFLAGS="--cfg sse_hub_loom" cargo test --release --test loom_presence`.
#![cfg(sse_hub_loom)]

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use loom::future::block_on;
use loom::thread;
use sse_hub::{Hub, ManualTimer, Presence, PresenceEvent, Subscriber, Subscription};

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
