//! Presence against a naive model of its promises.
#![cfg(not(sse_hub_loom))]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::{
    Audience, EndReason, Goodbye, Hub, ManualTimer, Presence, PresenceEvent, PresenceWatch,
    Subscriber, Subscription,
};

const SECOND: Duration = Duration::from_secs(1);

fn tab(hub: &Hub, user: &str) -> Subscription {
    hub.subscribe(Subscriber::new().user(user)).unwrap()
}

fn joined(user: &str) -> PresenceEvent {
    PresenceEvent::Joined { user: user.into() }
}

fn left(user: &str, reason: EndReason) -> PresenceEvent {
    PresenceEvent::Left { user: user.into(), reason }
}

/// Returns the online users with their number of clients.
fn users(hub: &Hub) -> BTreeMap<String, usize> {
    hub.users().iter().map(|info| (info.user.to_string(), info.clients)).collect()
}

#[derive(Debug, Clone)]
enum Op {
    Come { user: u8 },
    Go { nth: usize },
    Disconnect { user: u8 },
    Advance { seconds: u64 },
    Watch,
    Read { nth: usize, most: usize },
    List,
    Ask { user: u8 },
    Unwatch { nth: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..5u8).prop_map(|user| Op::Come { user }),
        6 => (0..8usize).prop_map(|nth| Op::Go { nth }),
        1 => (0..5u8).prop_map(|user| Op::Disconnect { user }),
        4 => (0..8u64).prop_map(|seconds| Op::Advance { seconds }),
        1 => Just(Op::Watch),
        4 => (0..3usize, 1..6usize).prop_map(|(nth, most)| Op::Read { nth, most }),
        1 => Just(Op::List),
        2 => (0..5u8).prop_map(|user| Op::Ask { user }),
        1 => (0..3usize).prop_map(|nth| Op::Unwatch { nth }),
    ]
}

/// The promises without regard to cost: leaves happen at their moment, and a watcher sees them when
/// it polls.
#[derive(Default)]
struct Model {
    now: u64,
    clients: Vec<u8>,
    away: Vec<(u64, u8, EndReason)>,
    all: Vec<PresenceEvent>,
}

const MODEL_GRACE: u64 = 5;
const MODEL_AWAY: usize = 3;
const MODEL_EVENTS: usize = 6;

impl Model {
    fn come(&mut self, user: u8) {
        let is_back = self.away.iter().position(|away| away.1 == user);
        if let Some(at) = is_back {
            self.away.remove(at);
        } else if !self.clients.contains(&user) {
            self.all.push(joined(&user.to_string()));
        }
        self.clients.push(user);
    }

    fn go(&mut self, at: usize, reason: EndReason) {
        let user = self.clients.remove(at);
        if !self.clients.contains(&user) {
            self.away.push((self.now + MODEL_GRACE, user, reason));
        }
        if self.away.len() > MODEL_AWAY {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        let (_, user, reason) = self.away.remove(0);
        self.all.push(left(&user.to_string(), reason));
    }

    fn advance(&mut self, seconds: u64) {
        self.now += seconds;
        while self.away.first().is_some_and(|away| away.0 <= self.now) {
            self.give_up();
        }
    }

    fn users(&self) -> BTreeMap<String, usize> {
        let mut users: BTreeMap<String, usize> = BTreeMap::new();
        for user in &self.clients {
            *users.entry(user.to_string()).or_default() += 1;
        }
        users.extend(self.away.iter().map(|away| (away.1.to_string(), 0)));
        users
    }
}

proptest! {
    #[test]
    fn watchers_match_the_naive_model(ops in vec(op(), 0..200)) {
        let timer = ManualTimer::new();
        let presence = Presence::default().grace(SECOND * MODEL_GRACE as u32)
            .max_away(MODEL_AWAY)
            .event_buffer(MODEL_EVENTS);
        let hub = Hub::builder(timer.clone()).presence(presence).build().unwrap();
        let mut model = Model::default();
        let mut tabs: Vec<Subscription> = Vec::new();
        // Each watcher with the position of its next event.
        let mut watchers: VecDeque<(PresenceWatch, usize)> = VecDeque::new();
        for op in ops {
            match op {
                Op::Come { user } => {
                    tabs.push(tab(&hub, &user.to_string()));
                    model.come(user);
                }
                Op::Go { nth } if nth < tabs.len() => {
                    drop(tabs.remove(nth));
                    model.go(nth, EndReason::Left);
                }
                Op::Disconnect { user } => {
                    let who = Audience::user(user.to_string());
                    hub.disconnect(&who, Goodbye::from_static("bye")).unwrap();
                    let mut left = Vec::new();
                    for (at, tab) in std::mem::take(&mut tabs).into_iter().enumerate() {
                        if model.clients[at] != user {
                            left.push(tab);
                        }
                    }
                    tabs = left;
                    while let Some(at) = model.clients.iter().position(|&of| of == user) {
                        model.go(at, EndReason::Disconnected);
                    }
                }
                Op::Advance { seconds } => {
                    timer.advance(SECOND * seconds as u32);
                    model.advance(seconds);
                }
                Op::Watch => watchers.push_back((hub.watch().unwrap(), model.all.len())),
                Op::Read { nth, most } if nth < watchers.len() => {
                    let (watch, at) = &mut watchers[nth];
                    for _ in 0..most {
                        let Some(event) = watch.next().now_or_never().flatten() else {
                            prop_assert_eq!(*at, model.all.len(), "the watcher must have seen every event");
                            break;
                        };
                        if event == PresenceEvent::Missed {
                            prop_assert!(model.all.len() - *at > MODEL_EVENTS);
                            // The list counts every event up to the position where the watcher
                            // continues.
                            prop_assert_eq!(users(&hub), model.users());
                            while watch.next().now_or_never().flatten().is_some() {}
                            *at = model.all.len();
                            break;
                        }
                        prop_assert_eq!(&event, &model.all[*at]);
                        *at += 1;
                    }
                }
                Op::List => prop_assert_eq!(users(&hub), model.users()),
                Op::Ask { user } => {
                    let user = user.to_string();
                    prop_assert_eq!(hub.is_online(user.as_str()), model.users().contains_key(&user));
                }
                Op::Unwatch { nth } if nth < watchers.len() => drop(watchers.remove(nth)),
                Op::Go { .. } | Op::Read { .. } | Op::Unwatch { .. } => {}
            }
        }
        prop_assert_eq!(users(&hub), model.users());
    }
}
