//! Presence of users and of members of topics against a naive model of its promises.
#![cfg(not(sse_hub_loom))]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use sse_hub::{
    Audience, EndReason, Event, Goodbye, Hub, ManualTimer, Presence, PresenceEvent, PresenceWatch,
    Subscriber, Subscription, TopicEvent, TopicWatch,
};
use support::SECOND;

/// A user, and a topic for a member.
type Seat = (String, Option<&'static str>);

/// A seat that was taken, or that is empty for this reason. `None`: events were missed.
type Change = Option<(Seat, Option<EndReason>)>;

/// Presence selects the first two.
const TOPICS: [&str; 3] = ["r1", "r2", "x"];

const GRACE: u64 = 5;
const AWAY: usize = 3;
const EVENTS: usize = 6;
/// When a client that does not read is ended.
const STALL: u64 = 3;

#[derive(Debug, Clone)]
enum Op {
    /// Without a user, the client is no member.
    Come {
        user: Option<u8>,
        topics: Vec<&'static str>,
    },
    Go {
        nth: usize,
    },
    Stall {
        nth: usize,
    },
    Disconnect {
        user: u8,
    },
    Join {
        user: u8,
        topic: &'static str,
    },
    JoinOne {
        nth: usize,
        topic: &'static str,
        last: usize,
    },
    Leave {
        user: u8,
        topic: &'static str,
    },
    LeaveOne {
        nth: usize,
        topic: &'static str,
    },
    Advance {
        seconds: u64,
    },
    Watch {
        topics: bool,
    },
    Read {
        nth: usize,
        most: usize,
    },
    List,
    Ask {
        user: u8,
    },
    Unwatch {
        nth: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let user = || 0..5u8;
    let topic = || prop::sample::select(TOPICS.to_vec());
    let nth = || 0..8usize;
    let topics = btree_set(topic(), 0..3).prop_map(|topics| topics.into_iter().collect());
    prop_oneof![
        8 => (prop::option::weighted(0.9, user()), topics)
            .prop_map(|(user, topics)| Op::Come { user, topics }),
        6 => nth().prop_map(|nth| Op::Go { nth }),
        1 => nth().prop_map(|nth| Op::Stall { nth }),
        1 => user().prop_map(|user| Op::Disconnect { user }),
        2 => (user(), topic()).prop_map(|(user, topic)| Op::Join { user, topic }),
        2 => (nth(), topic(), 0..2usize)
            .prop_map(|(nth, topic, last)| Op::JoinOne { nth, topic, last }),
        1 => (user(), topic()).prop_map(|(user, topic)| Op::Leave { user, topic }),
        4 => (nth(), topic()).prop_map(|(nth, topic)| Op::LeaveOne { nth, topic }),
        4 => (0..8u64).prop_map(|seconds| Op::Advance { seconds }),
        2 => any::<bool>().prop_map(|topics| Op::Watch { topics }),
        5 => (0..4usize, 1..6usize).prop_map(|(nth, most)| Op::Read { nth, most }),
        1 => Just(Op::List),
        2 => user().prop_map(|user| Op::Ask { user }),
        1 => (0..4usize).prop_map(|nth| Op::Unwatch { nth }),
    ]
}

/// The seats of a kind: of users, or of members.
#[derive(Default)]
struct Side {
    away: Vec<(u64, Seat, EndReason)>,
    all: Vec<(Seat, Option<EndReason>)>,
}

impl Side {
    fn arrive(&mut self, seat: Seat) {
        match self.away.iter().position(|away| away.1 == seat) {
            Some(at) => drop(self.away.remove(at)),
            None => self.all.push((seat, None)),
        }
    }

    fn depart(&mut self, now: u64, seat: Seat, reason: EndReason) {
        if reason == EndReason::LeftTopic {
            self.all.push((seat, Some(reason)));
            return;
        }
        self.away.push((now + GRACE, seat, reason));
        if self.away.len() > AWAY {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        let (_, seat, reason) = self.away.remove(0);
        self.all.push((seat, Some(reason)));
    }

    fn advance(&mut self, now: u64) {
        while self.away.first().is_some_and(|away| away.0 <= now) {
            self.give_up();
        }
    }
}

/// A connected client.
struct Tab {
    stream: Subscription,
    user: Option<u8>,
    topics: Vec<&'static str>,
}

impl Tab {
    fn has(&self, seat: &Seat) -> bool {
        self.user.is_some_and(|user| user.to_string() == seat.0)
            && seat.1.is_none_or(|topic| self.topics.contains(&topic))
    }

    /// The topics in the order in which the hub looks at them, which shows in the events.
    fn order(&mut self, hub: &Hub) {
        let infos = hub.clients(self.stream.client_id());
        let follows = |topic: &&str| infos[0].topics.iter().position(|name| **name == **topic);
        assert_eq!(infos[0].topics.len(), self.topics.len());
        self.topics.sort_by_key(|topic| follows(topic).expect("the hub knows the topic"));
    }

    /// The seats of the topics, and then that of the user.
    fn seats(&self) -> Vec<Seat> {
        let Some(user) = self.user else { return Vec::new() };
        let members = self.topics.iter().filter(|topic| **topic != "x");
        let members = members.map(|&topic| (user.to_string(), Some(topic)));
        members.chain([(user.to_string(), None)]).collect()
    }
}

/// The promises without regard to cost: leaves happen at their moment, and a watcher sees them when
/// it polls.
#[derive(Default)]
struct Model {
    now: u64,
    users: Side,
    members: Side,
}

impl Model {
    fn side(&mut self, is_of_members: bool) -> &mut Side {
        if is_of_members { &mut self.members } else { &mut self.users }
    }

    /// A client takes part in a seat. `others`: the clients without it.
    fn enter(&mut self, seat: Seat, others: &[Tab]) {
        if !others.iter().any(|tab| tab.has(&seat)) {
            self.side(seat.1.is_some()).arrive(seat);
        }
    }

    /// A client does not take part in a seat any more. `others`: the clients without it.
    fn exit(&mut self, seat: Seat, reason: EndReason, others: &[Tab]) {
        if !others.iter().any(|tab| tab.has(&seat)) {
            let now = self.now;
            self.side(seat.1.is_some()).depart(now, seat, reason);
        }
    }

    fn advance(&mut self, seconds: u64) {
        self.now += seconds;
        self.users.advance(self.now);
        self.members.advance(self.now);
    }

    /// The users in a topic, or all users, with their number of clients.
    fn list(&self, topic: Option<&'static str>, tabs: &[Tab]) -> BTreeMap<String, usize> {
        let mut users: BTreeMap<String, usize> = BTreeMap::new();
        for tab in tabs {
            let is_in = topic.is_none_or(|topic| tab.topics.contains(&topic));
            if let Some(user) = tab.user.filter(|_| is_in) {
                *users.entry(user.to_string()).or_default() += 1;
            }
        }
        let side = if topic.is_some() { &self.members } else { &self.users };
        let away = side.away.iter().filter(|away| away.1.1 == topic);
        users.extend(away.map(|away| (away.1.0.clone(), 0)));
        users
    }

    fn check_lists(&self, hub: &Hub, tabs: &[Tab]) -> Result<(), TestCaseError> {
        for topic in [None, Some(TOPICS[0]), Some(TOPICS[1])] {
            let infos = topic.map_or_else(|| hub.users(), |topic| hub.users_in(topic).unwrap());
            let users: BTreeMap<_, _> =
                infos.iter().map(|info| (info.user.to_string(), info.clients)).collect();
            prop_assert_eq!(users.len(), infos.len(), "each once");
            prop_assert_eq!(users, self.list(topic, tabs), "in {:?}", topic);
        }
        Ok(())
    }
}

/// A watch of users or of topics.
enum Watch {
    Users(PresenceWatch),
    Topics(TopicWatch),
}

impl Watch {
    fn is_of_topics(&self) -> bool {
        matches!(self, Self::Topics(_))
    }

    fn next(&mut self) -> Option<Change> {
        let topic = |of: &str| TOPICS.into_iter().find(|topic| *topic == of);
        Some(match self {
            Self::Users(watch) => match watch.next().now_or_never().flatten()? {
                PresenceEvent::Joined { user } => Some(((user.to_string(), None), None)),
                PresenceEvent::Left { user, reason } => {
                    Some(((user.to_string(), None), Some(reason)))
                }
                _ => None,
            },
            Self::Topics(watch) => match watch.next().now_or_never().flatten()? {
                TopicEvent::Joined { user, topic: of } => {
                    Some(((user.to_string(), topic(&of)), None))
                }
                TopicEvent::Left { user, topic: of, reason } => {
                    Some(((user.to_string(), topic(&of)), Some(reason)))
                }
                _ => None,
            },
        })
    }
}

fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let timer = ManualTimer::new();
    let presence = Presence::default()
        .grace(Duration::from_secs(GRACE))
        .max_away(AWAY)
        .event_buffer(EVENTS)
        .topics(&["r"]);
    let hub = Hub::builder(timer.clone()).heartbeat(None).presence(presence);
    let hub = hub.stalled_after(Duration::from_secs(STALL)).build().unwrap();
    let mut model = Model::default();
    let mut tabs: Vec<Tab> = Vec::new();
    // Each watcher with the position of its next event.
    let mut watchers: Vec<(Watch, usize)> = Vec::new();
    let pass = |model: &mut Model, seconds: u64| {
        timer.advance(SECOND * seconds as u32);
        model.advance(seconds);
    };
    for op in ops {
        match op {
            Op::Come { user, topics } => {
                let mut who = Subscriber::new().topics(topics.iter().copied());
                if let Some(user) = user {
                    who = who.user(user);
                }
                let tab = Tab { stream: hub.subscribe(who).unwrap(), user, topics };
                tab.seats().into_iter().for_each(|seat| model.enter(seat, &tabs));
                tabs.push(tab);
            }
            Op::Go { nth } if nth < tabs.len() => {
                let mut tab = tabs.remove(nth);
                tab.order(&hub);
                let seats = tab.seats();
                drop(tab.stream);
                seats.into_iter().for_each(|seat| model.exit(seat, EndReason::Left, &tabs));
            }
            Op::Stall { nth } if nth < tabs.len() => {
                let mut tab = tabs.remove(nth);
                tab.order(&hub);
                hub.send_to_client(tab.stream.client_id(), Event::new("waits")).unwrap();
                pass(&mut model, STALL);
                // A publisher finds the client that stalled.
                hub.send_to_session("nobody", Event::new("x")).unwrap();
                let seats = tab.seats();
                seats.into_iter().for_each(|seat| model.exit(seat, EndReason::Stalled, &tabs));
                // The end of the stream comes later, and changes nothing.
                drop(tab.stream);
            }
            Op::Disconnect { user } => {
                let who = Audience::user(user);
                let order: Vec<_> = hub.clients(&who).iter().map(|info| info.client_id).collect();
                tabs.iter_mut().for_each(|tab| tab.order(&hub));
                hub.disconnect(&who, Goodbye::from_static("bye")).unwrap();
                for id in order {
                    let at = tabs.iter().position(|tab| tab.stream.client_id() == id).unwrap();
                    let tab = tabs.remove(at);
                    let reason = EndReason::Disconnected;
                    tab.seats().into_iter().for_each(|seat| model.exit(seat, reason, &tabs));
                }
            }
            Op::Join { user, topic } => {
                hub.join(Audience::user(user), topic).unwrap();
                for at in 0..tabs.len() {
                    if tabs[at].user == Some(user) {
                        join(&mut model, &mut tabs, at, topic);
                    }
                }
            }
            Op::JoinOne { nth, topic, last } if nth < tabs.len() => {
                hub.join_with_last(tabs[nth].stream.client_id(), topic, last).unwrap();
                join(&mut model, &mut tabs, nth, topic);
            }
            Op::Leave { user, topic } => {
                hub.leave(Audience::user(user), topic).unwrap();
                for at in 0..tabs.len() {
                    if tabs[at].user == Some(user) {
                        leave(&mut model, &mut tabs, at, topic);
                    }
                }
            }
            Op::LeaveOne { nth, topic } if nth < tabs.len() => {
                hub.leave(tabs[nth].stream.client_id(), topic).unwrap();
                leave(&mut model, &mut tabs, nth, topic);
            }
            Op::Advance { seconds } => pass(&mut model, seconds),
            Op::Watch { topics } => {
                let watch = if topics {
                    Watch::Topics(hub.watch_topics().unwrap())
                } else {
                    Watch::Users(hub.watch().unwrap())
                };
                watchers.push((watch, model.side(topics).all.len()));
            }
            Op::Read { nth, most } if nth < watchers.len() => {
                let (watch, at) = &mut watchers[nth];
                let all = &model.side(watch.is_of_topics()).all;
                for _ in 0..most {
                    let Some(change) = watch.next() else {
                        prop_assert_eq!(*at, all.len(), "the watcher must have seen every event");
                        break;
                    };
                    let Some(change) = change else {
                        prop_assert!(all.len() - *at > EVENTS);
                        // The list counts every event up to the position where the watcher
                        // continues.
                        *at = all.len();
                        model.check_lists(&hub, &tabs)?;
                        while watch.next().is_some() {}
                        break;
                    };
                    prop_assert_eq!(&change, &all[*at]);
                    *at += 1;
                }
            }
            Op::List => model.check_lists(&hub, &tabs)?,
            Op::Ask { user } => {
                let user = user.to_string();
                let is_online = model.list(None, &tabs).contains_key(&user);
                prop_assert_eq!(hub.is_online(user), is_online);
            }
            Op::Unwatch { nth } if nth < watchers.len() => drop(watchers.remove(nth)),
            Op::Go { .. }
            | Op::Stall { .. }
            | Op::JoinOne { .. }
            | Op::LeaveOne { .. }
            | Op::Read { .. }
            | Op::Unwatch { .. } => {}
        }
    }
    model.check_lists(&hub, &tabs)
}

fn join(model: &mut Model, tabs: &mut [Tab], at: usize, topic: &'static str) {
    if tabs[at].topics.contains(&topic) {
        return;
    }
    if let Some(user) = tabs[at].user.filter(|_| topic != "x") {
        model.enter((user.to_string(), Some(topic)), tabs);
    }
    tabs[at].topics.push(topic);
}

fn leave(model: &mut Model, tabs: &mut [Tab], at: usize, topic: &'static str) {
    let Some(place) = tabs[at].topics.iter().position(|of| *of == topic) else { return };
    tabs[at].topics.remove(place);
    if let Some(user) = tabs[at].user.filter(|_| topic != "x") {
        model.exit((user.to_string(), Some(topic)), EndReason::LeftTopic, tabs);
    }
}

proptest! {
    #[test]
    fn watchers_match_the_naive_model(ops in vec(op(), 0..200)) {
        run(ops)?;
    }
}
