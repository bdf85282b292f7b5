//! Presence on several instances, over an engine that is a list, against a naive model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use sse_hub::backplane::{
    Backplane, Feed, Incoming, Loaded, Outgoing, Seat, SendError, UserChange,
};
use sse_hub::{
    Audience, EndReason, Event, EventId, Hub, Limits, ManualTimer, MembersError, Presence,
    PresenceEvent, PresenceWatch, Subscriber, Subscription, TopicEvent, TopicWatch,
};

use crate::support::SECOND;

/// Counts calls of `on_presence_changed`, and keeps the entries that the hub sent.
#[derive(Debug, Clone, Default)]
struct Told(Arc<AtomicUsize>, Arc<Mutex<Vec<Bytes>>>);

impl Backplane for Told {
    fn send(&self, entry: Outgoing) -> Result<(), SendError> {
        self.1.lock().unwrap().push(entry.entry().clone());
        Ok(())
    }

    fn on_presence_changed(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const GRACE: u32 = 5;

fn hub(timer: &ManualTimer, presence: Presence) -> (Hub, Feed, Told) {
    let told = Told::default();
    let hub = Hub::builder(timer.clone()).presence(presence).backplane(told.clone());
    let hub = hub.limits(Limits::default().name_len(8)).build().unwrap();
    let feed = Feed::new(&hub).unwrap();
    (hub, feed, told)
}

fn one() -> (Hub, Feed, Told, ManualTimer) {
    let timer = ManualTimer::new();
    let (hub, feed, told) = hub(&timer, Presence::default().grace(SECOND * GRACE));
    (hub, feed, told, timer)
}

fn tab(hub: &Hub, user: &str) -> Subscription {
    hub.subscribe(Subscriber::new().user(user)).unwrap()
}

fn came(user: &str) -> UserChange {
    UserChange::Joined(user.into())
}

fn gone(user: &str) -> UserChange {
    UserChange::Left(user.into(), EndReason::Left)
}

fn joined(user: &str) -> PresenceEvent {
    PresenceEvent::Joined { user: user.into() }
}

fn left(user: &str, reason: EndReason) -> PresenceEvent {
    PresenceEvent::Left { user: user.into(), reason }
}

fn next(watch: &mut PresenceWatch) -> Option<PresenceEvent> {
    watch.next().now_or_never().flatten()
}

/// Returns the online users, with the number of local clients and of other instances.
fn users(hub: &Hub) -> BTreeMap<String, (usize, usize)> {
    let users = hub.users();
    let all =
        users.iter().map(|info| (info.user.to_string(), (info.clients, info.other_instances)));
    let by_name: BTreeMap<_, _> = all.collect();
    assert_eq!(by_name.len(), users.len(), "each user must be listed once");
    by_name
}

#[test]
fn user_leaves_when_no_instance_has_it() {
    let (hub, feed, _, timer) = one();
    let mut watch = hub.watch().unwrap();
    feed.replace_users("b", ["ann".into()]);
    assert_eq!(next(&mut watch), Some(joined("ann")));
    let hers = tab(&hub, "ann");
    feed.change_users("c", [came("ann"), came("ann")]);
    assert_eq!(users(&hub), BTreeMap::from([("ann".into(), (1, 2))]));
    drop(hers);
    feed.change_users("b", [gone("ann")]);
    timer.advance(SECOND * GRACE * 2);
    assert_eq!(next(&mut watch), None);
    assert!(hub.is_online("ann"));
    assert_eq!(hub.count(Audience::user("ann")), 0, "the user has no local client");
    feed.change_users("c", [UserChange::Left("ann".into(), EndReason::Expired)]);
    assert_eq!(users(&hub), BTreeMap::from([("ann".into(), (0, 0))]), "away");
    timer.advance(SECOND * GRACE);
    assert_eq!(next(&mut watch), Some(left("ann", EndReason::Expired)));
    assert!(!hub.is_online("ann"));
}

#[test]
fn users_of_dead_instance_leave_after_grace() {
    let (hub, feed, _, timer) = one();
    let mut watch = hub.watch().unwrap();
    feed.replace_users("b", ["ann".into(), "bob".into(), "cid".into()]);
    feed.replace_users("c", ["bob".into()]);
    let _tab = tab(&hub, "cid");
    while next(&mut watch).is_some() {}
    feed.remove_instance("b");
    timer.advance(SECOND * GRACE);
    assert_eq!(next(&mut watch), Some(left("ann", EndReason::Vanished)));
    assert_eq!(next(&mut watch), None);
    assert_eq!(users(&hub), BTreeMap::from([("bob".into(), (0, 1)), ("cid".into(), (1, 0))]));
    feed.remove_instance("b");
    feed.remove_instance("never seen");
}

#[test]
fn engine_is_notified_once_for_pending_changes() {
    let (hub, feed, told, _) = one();
    let told = || told.0.load(Ordering::Relaxed);
    let ann = tab(&hub, "ann");
    let more = tab(&hub, "ann");
    assert_eq!(told(), 1);
    let bob = tab(&hub, "bob");
    assert_eq!(told(), 1, "an earlier notification is pending");
    drop(bob);
    assert_eq!(
        feed.take_changes(9),
        [came("ann")],
        "a user that joined and left must not be listed"
    );
    assert_eq!(feed.take_changes(9), []);
    drop(ann);
    assert_eq!(told(), 1, "a second tab must not notify the engine");
    drop(more);
    assert_eq!(told(), 2);
    let _tabs: Vec<_> = ["c", "d", "e"].into_iter().map(|user| tab(&hub, user)).collect();
    let (first, rest) = (feed.take_changes(3), feed.take_changes(9));
    assert_eq!((first.len(), rest.len()), (3, 1));
    assert!(first.iter().chain(&rest).any(|change| *change == gone("ann")));
    let _f = tab(&hub, "f");
    let all: BTreeSet<_> = feed.take_users().iter().map(|seat| seat.user.to_string()).collect();
    assert_eq!(all, ["c", "d", "e", "f"].map(String::from).into());
    assert_eq!(feed.take_changes(9), [], "take_users must consume the pending changes");
    drop(_tabs);
    assert_eq!(feed.take_changes(9).len(), 3);
}

#[test]
fn hub_without_backplane_or_presence_notifies_no_engine() {
    let told = Told::default();
    let hub = Hub::builder(ManualTimer::new()).backplane(told.clone()).build().unwrap();
    let feed = Feed::new(&hub).unwrap();
    let _tab = tab(&hub, "ann");
    feed.replace_users("b", ["bob".into()]);
    assert_eq!((feed.presence_limit(), told.0.load(Ordering::Relaxed)), (None, 0));
    assert_eq!(users(&hub), BTreeMap::from([("ann".into(), (1, 0))]));
    assert_eq!((feed.take_changes(9), feed.take_users()), (vec![], vec![]));
}

#[test]
fn excess_users_and_invalid_names_are_ignored() {
    let timer = ManualTimer::new();
    let (hub, feed, _) = hub(&timer, Presence::default().grace(SECOND).max_remote_users(2));
    assert_eq!(feed.presence_limit(), Some(2));
    feed.replace_users("b", ["".into(), "123456789".into(), "a".into()]);
    feed.change_users("c", [came("a"), came("b")]);
    assert_eq!(users(&hub), BTreeMap::from([("a".into(), (0, 2))]));
    feed.change_users("b", [gone("a"), came("b")]);
    assert_eq!(users(&hub).len(), 2, "the hub has room again");
}

#[test]
fn watch_ends_after_the_hub_closes() {
    let (hub, feed, told, _) = one();
    let mut watch = hub.watch().unwrap();
    let tab = tab(&hub, "ann");
    feed.replace_users("b", ["bob".into()]);
    hub.close();
    feed.replace_users("b", ["cid".into()]);
    drop(tab);
    assert_eq!(told.0.load(Ordering::Relaxed), 1);
    assert_eq!([next(&mut watch), next(&mut watch)], [Some(joined("ann")), Some(joined("bob"))]);
    assert_eq!(watch.next().now_or_never(), Some(None));
}

fn members(hub: &Hub, topic: &str) -> BTreeMap<String, (usize, usize)> {
    let members = hub.users_in(topic).unwrap().into_iter();
    let members: BTreeMap<_, _> =
        members.map(|info| (info.user.to_string(), (info.clients, info.other_instances))).collect();
    for user in ["ann", "bob", "cid", "dan"] {
        assert_eq!(hub.is_member(user, topic), Ok(members.contains_key(user)), "{user} in {topic}");
    }
    members
}

#[test]
fn members_of_all_instances_are_one_list() {
    let timer = ManualTimer::new();
    let (hub, feed, told) = hub(&timer, topics());
    let mut watch = hub.watch_topics().unwrap();
    let told = || told.0.load(Ordering::Relaxed);
    let _here = hub.subscribe(Subscriber::new().user("ann").topics(["r1", "x"])).unwrap();
    assert_eq!(told(), 1);
    let mut changes = feed.take_changes(9);
    changes.sort_by_key(|change| change.seat().clone());
    assert_eq!(changes, [came("ann"), UserChange::Joined(Seat::member("ann", "r1"))]);
    feed.replace_users("b", [Seat::member("ann", "r1"), Seat::member("bob", "r1")]);
    feed.change_users("c", [UserChange::Joined(Seat::member("bob", "r1"))]);
    let expected = [("ann".into(), (1, 1)), ("bob".into(), (0, 2))];
    assert_eq!(members(&hub, "r1"), expected.into());
    assert_eq!(members(&hub, "r2"), [].into());
    assert!(!hub.is_online("bob"), "a member is online only by a client");
    let left = |reason| [UserChange::Left(Seat::member("bob", "r1"), reason)];
    feed.change_users("b", left(EndReason::LeftTopic));
    assert_eq!(members(&hub, "r1")["bob"], (0, 1));
    feed.change_users("c", left(EndReason::LeftTopic));
    assert_eq!(members(&hub, "r1"), [("ann".into(), (1, 1))].into(), "no grace");
    feed.remove_instance("b");
    assert_eq!(members(&hub, "r1"), [("ann".into(), (1, 0))].into());
    let of = |user: &str| TopicEvent::Joined { user: user.into(), topic: "r1".into() };
    let last =
        TopicEvent::Left { user: "bob".into(), topic: "r1".into(), reason: EndReason::LeftTopic };
    let seen: Vec<_> = std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect();
    assert_eq!(seen, [of("ann"), of("bob"), last]);
}

#[test]
fn excess_and_unselected_members_are_ignored() {
    let timer = ManualTimer::new();
    let (hub, feed, _) = hub(&timer, topics().max_remote_users(2));
    assert_eq!((feed.presence_limit(), feed.wants_topics()), (Some(4), true));
    let member = |user: &str, topic: &str| Seat::member(user, topic);
    feed.replace_users(
        "b",
        [member("ann", "x"), member("ann", ""), member("", "r1"), member("ann", "r23456789")],
    );
    feed.change_users("b", ["a", "b", "c"].map(|user| UserChange::Joined(member(user, "r1"))));
    assert_eq!(members(&hub, "r1"), [("a".into(), (0, 1)), ("b".into(), (0, 1))].into());
    assert_eq!(hub.users_in("x"), Err(MembersError::Off));
    feed.replace_users("c", ["d".into(), "e".into(), "f".into()]);
    assert_eq!(users(&hub).len(), 2, "the members take no room of the users");
    feed.change_users("b", [UserChange::Left(member("a", "r1"), EndReason::LeftTopic)]);
    feed.change_users("b", [UserChange::Joined(member("c", "r1"))]);
    assert_eq!(members(&hub, "r1").into_keys().collect::<Vec<_>>(), ["b", "c"], "room again");

    let (plain, feed, _, _) = one();
    assert!(!feed.wants_topics());
    feed.replace_users("b", [member("ann", "r1"), "bob".into()]);
    assert_eq!(users(&plain), [("bob".into(), (0, 1))].into());
}

fn topics() -> Presence {
    Presence::default().grace(SECOND * GRACE).topics(&["r"])
}

const HUBS: usize = 3;

/// The topics of clients. Presence selects the first two.
const TOPICS: [&str; 3] = ["r1", "r2", "x"];

#[derive(Debug, Clone)]
enum Op {
    Come { hub: usize, user: u8, topics: BTreeSet<usize> },
    Go { nth: usize },
    Join { nth: usize, topic: usize },
    Leave { nth: usize, topic: usize },
    Announce { hub: usize, most: usize },
    Observe { hub: usize, most: usize },
    Cut { hub: usize },
    Mend { hub: usize },
    Expire { hub: usize },
    Die { hub: usize },
    Forget,
    Advance { seconds: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let hub = || 0..HUBS;
    let topic = || 0..TOPICS.len();
    let come = (hub(), 0..4u8, btree_set(topic(), 0..3));
    prop_oneof![
        8 => come.prop_map(|(hub, user, topics)| Op::Come { hub, user, topics }),
        8 => (0..8usize).prop_map(|nth| Op::Go { nth }),
        4 => (0..8usize, topic()).prop_map(|(nth, topic)| Op::Join { nth, topic }),
        4 => (0..8usize, topic()).prop_map(|(nth, topic)| Op::Leave { nth, topic }),
        8 => (hub(), 1..4usize).prop_map(|(hub, most)| Op::Announce { hub, most }),
        8 => (hub(), 1..6usize).prop_map(|(hub, most)| Op::Observe { hub, most }),
        1 => hub().prop_map(|hub| Op::Cut { hub }),
        2 => hub().prop_map(|hub| Op::Mend { hub }),
        1 => hub().prop_map(|hub| Op::Expire { hub }),
        1 => hub().prop_map(|hub| Op::Die { hub }),
        1 => Just(Op::Forget),
        4 => (0..8u32).prop_map(|seconds| Op::Advance { seconds }),
    ]
}

/// A message that an engine carries.
#[derive(Debug, Clone)]
enum Message {
    Changed(Vec<UserChange>),
    All(Vec<Seat>),
    Gone,
}

/// A seat that was taken, or that is empty for this reason.
type Change = (Seat, Option<EndReason>);

/// The expected state of one hub, without regard to cost.
#[derive(Default)]
struct Model {
    now: u32,
    /// The seats of every known instance, this instance included, with their number of clients (1
    /// for other instances).
    clients: BTreeMap<String, BTreeMap<Seat, usize>>,
    away: Vec<(u32, Seat, EndReason)>,
    all: Vec<Change>,
}

impl Model {
    fn is_anywhere(&self, seat: &Seat) -> bool {
        self.clients.values().any(|seats| seats.contains_key(seat))
    }

    fn come(&mut self, instance: &str, seat: &Seat) {
        if seat.topic.as_deref() == Some("x") {
            return;
        }
        if !self.is_anywhere(seat) {
            match self.away.iter().position(|away| away.1 == *seat) {
                Some(at) => drop(self.away.remove(at)),
                None => self.all.push((seat.clone(), None)),
            }
        }
        let seats = self.clients.entry(instance.to_owned()).or_default();
        *seats.entry(seat.clone()).or_default() += 1;
    }

    fn go(&mut self, instance: &str, seat: &Seat, reason: EndReason) {
        let Some(seats) = self.clients.get_mut(instance) else { return };
        let Some(clients) = seats.get_mut(seat) else { return };
        *clients -= 1;
        if *clients > 0 {
            return;
        }
        seats.remove(seat);
        if self.is_anywhere(seat) {
            return;
        }
        match reason {
            EndReason::LeftTopic => self.all.push((seat.clone(), Some(reason))),
            _ => self.away.push((self.now + GRACE, seat.clone(), reason)),
        }
    }

    fn hear(&mut self, from: &str, message: &Message) {
        let known = |model: &Self| -> Vec<Seat> {
            model.clients.get(from).into_iter().flat_map(|seats| seats.keys().cloned()).collect()
        };
        match message {
            Message::Changed(changes) => {
                for change in changes {
                    match change {
                        UserChange::Joined(seat) if known(self).contains(seat) => {}
                        UserChange::Joined(seat) => self.come(from, seat),
                        UserChange::Left(seat, reason) => self.go(from, seat, *reason),
                        other => panic!("unknown change: {other:?}"),
                    }
                }
            }
            Message::All(seats) => {
                for seat in known(self) {
                    if !seats.contains(&seat) {
                        self.go(from, &seat, EndReason::Left);
                    }
                }
                for seat in seats {
                    if !known(self).contains(seat) {
                        self.come(from, seat);
                    }
                }
            }
            Message::Gone => {
                for seat in known(self) {
                    self.go(from, &seat, EndReason::Vanished);
                }
            }
        }
    }

    fn advance(&mut self, seconds: u32) {
        self.now += seconds;
        while self.away.first().is_some_and(|away| away.0 <= self.now) {
            let (_, seat, reason) = self.away.remove(0);
            self.all.push((seat, Some(reason)));
        }
    }

    /// The users in a topic, or all users, with the numbers of local clients and other instances.
    fn users(&self, own: &str, topic: Option<&str>) -> BTreeMap<String, (usize, usize)> {
        let mut users: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let is_in = |seat: &Seat| seat.topic.as_deref() == topic;
        for (instance, present) in &self.clients {
            for (seat, clients) in present.iter().filter(|(seat, _)| is_in(seat)) {
                let entry = users.entry(seat.user.to_string()).or_default();
                if instance == own { entry.0 += clients } else { entry.1 += 1 }
            }
        }
        let away = self.away.iter().filter(|away| is_in(&away.1));
        users.extend(away.map(|away| (away.1.user.to_string(), (0, 0))));
        users
    }
}

/// A hub, its engine and its expected state.
struct Instance {
    name: String,
    hub: Hub,
    feed: Feed,
    told: Told,
    watches: (PresenceWatch, TopicWatch),
    seen: usize,
    model: Model,
    /// The number of entries of the list that the hub has read.
    at: usize,
    is_cut: bool,
    /// The other instances have no users of this instance.
    is_unknown: bool,
}

impl Instance {
    fn new(name: String, timer: &ManualTimer, now: u32) -> Self {
        let (hub, feed, told) = hub(timer, topics());
        feed.load(Loaded::new(EventId::new(1, 0), []));
        let watches = (hub.watch().unwrap(), hub.watch_topics().unwrap());
        let model = Model { now, ..Model::default() };
        let (seen, at, is_cut, is_unknown) = (0, 0, false, true);
        Self { name, hub, feed, told, watches, seen, model, at, is_cut, is_unknown }
    }

    /// Applies the commands that the hub sent.
    fn obey(&self) {
        // Taken out first: a hub that reads a join sends an announcement.
        let entries = std::mem::take(&mut *self.told.1.lock().unwrap());
        for entry in entries {
            let next = EventId::new(1, self.feed.head().seq() + 1);
            self.feed.append(next, Incoming::parse(&entry).unwrap());
        }
    }

    fn announce(&mut self, list: &mut Vec<(String, Message)>, most: usize) {
        if self.is_cut {
            return;
        }
        let message = if std::mem::take(&mut self.is_unknown) {
            Message::All(self.feed.take_users())
        } else {
            Message::Changed(self.feed.take_changes(most))
        };
        list.push((self.name.clone(), message));
    }

    fn observe(&mut self, list: &[(String, Message)], most: usize) {
        if self.is_cut {
            return;
        }
        for (from, message) in list[self.at..].iter().take(most) {
            self.at += 1;
            if *from == self.name {
                continue;
            }
            // Applied in the same order as by the hub, because the order shows in the events.
            match message {
                Message::Changed(changes) => self.feed.change_users(from, changes.clone()),
                Message::All(seats) => self.feed.replace_users(from, seats.clone()),
                Message::Gone => self.feed.remove_instance(from),
            }
            self.model.hear(from, message);
        }
    }

    /// Events of different seats, of the same moment, may come in any order.
    fn check(&mut self) -> Result<(), TestCaseError> {
        prop_assert_eq!(users(&self.hub), self.model.users(&self.name, None));
        for topic in &TOPICS[..2] {
            prop_assert_eq!(
                members(&self.hub, topic),
                self.model.users(&self.name, Some(topic)),
                "in {}",
                topic
            );
        }
        let mut seen: Vec<Change> = Vec::new();
        while let Some(event) = next(&mut self.watches.0) {
            seen.push(match event {
                PresenceEvent::Joined { user } => (Seat::user(user), None),
                PresenceEvent::Left { user, reason } => (Seat::user(user), Some(reason)),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            });
        }
        while let Some(event) = self.watches.1.next().now_or_never().flatten() {
            seen.push(match event {
                TopicEvent::Joined { user, topic } => (Seat::member(user, topic), None),
                TopicEvent::Left { user, topic, reason } => {
                    (Seat::member(user, topic), Some(reason))
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            });
        }
        let mut expected = self.model.all[self.seen..].to_vec();
        self.seen = self.model.all.len();
        // Stable: the events of a seat stay in their order.
        seen.sort_by(|one, other| one.0.cmp(&other.0));
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        prop_assert_eq!(seen, expected);
        Ok(())
    }
}

/// A client, with the topics that it follows.
struct Tab {
    hub: usize,
    user: String,
    topics: BTreeSet<usize>,
    stream: Subscription,
}

impl Tab {
    fn member(&self, topic: usize) -> Seat {
        Seat::member(&*self.user, TOPICS[topic])
    }

    /// The seats that the client takes part in.
    fn seats(&self) -> Vec<Seat> {
        let members = self.topics.iter().map(|&topic| self.member(topic));
        std::iter::once(Seat::user(&*self.user)).chain(members).collect()
    }
}

fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let timer = ManualTimer::new();
    let mut now = 0;
    let mut list = Vec::new();
    let name = |number: usize| format!("i{number}");
    let mut born = HUBS;
    let mut hubs: Vec<Instance> =
        (0..HUBS).map(|number| Instance::new(name(number), &timer, now)).collect();
    let mut tabs: Vec<Tab> = Vec::new();
    let mut dead: Vec<String> = Vec::new();
    for op in ops {
        match *op {
            Op::Come { hub, user, ref topics } => {
                let of = &mut hubs[hub];
                let user = user.to_string();
                let who = Subscriber::new().user(&user);
                let who = who.topics(topics.iter().map(|&topic| TOPICS[topic]));
                let stream = of.hub.subscribe(who).unwrap();
                let tab = Tab { hub, user, topics: topics.clone(), stream };
                tab.seats().iter().for_each(|seat| of.model.come(&of.name, seat));
                tabs.push(tab);
            }
            Op::Go { nth } if nth < tabs.len() => {
                let tab = tabs.remove(nth);
                let (of, seats) = (&mut hubs[tab.hub], tab.seats());
                drop(tab.stream);
                seats.iter().for_each(|seat| of.model.go(&of.name, seat, EndReason::Left));
            }
            Op::Join { nth, topic } if nth < tabs.len() => {
                let tab = &mut tabs[nth];
                let of = &mut hubs[tab.hub];
                of.hub.join(tab.stream.client_id(), TOPICS[topic]).unwrap();
                of.obey();
                if tab.topics.insert(topic) {
                    of.model.come(&of.name, &tab.member(topic));
                }
            }
            Op::Leave { nth, topic } if nth < tabs.len() => {
                let tab = &mut tabs[nth];
                let of = &mut hubs[tab.hub];
                of.hub.leave(tab.stream.client_id(), TOPICS[topic]).unwrap();
                of.obey();
                if tab.topics.remove(&topic) {
                    of.model.go(&of.name, &tab.member(topic), EndReason::LeftTopic);
                }
            }
            Op::Go { .. } | Op::Join { .. } | Op::Leave { .. } => {}
            Op::Announce { hub, most } => hubs[hub].announce(&mut list, most),
            Op::Observe { hub, most } => hubs[hub].observe(&list, most),
            Op::Cut { hub } => hubs[hub].is_cut = true,
            Op::Mend { hub } => hubs[hub].is_cut = false,
            Op::Expire { hub } => {
                list.extend(dead.pop().map(|name| (name, Message::Gone)));
                if hubs[hub].is_cut {
                    list.push((hubs[hub].name.clone(), Message::Gone));
                    hubs[hub].is_unknown = true;
                }
            }
            Op::Die { hub } => {
                tabs.retain(|tab| tab.hub != hub);
                let fresh = Instance::new(name(born), &timer, now);
                dead.push(std::mem::replace(&mut hubs[hub], fresh).name);
                born += 1;
            }
            Op::Forget => hubs.iter_mut().for_each(|hub| hub.is_unknown = true),
            Op::Advance { seconds } => {
                timer.advance(SECOND * seconds);
                now += seconds;
                hubs.iter_mut().for_each(|hub| hub.model.advance(seconds));
            }
        }
        hubs.iter_mut().try_for_each(Instance::check)?;
    }

    // After recovery, every hub sees every seat with a client, and no other seat after the grace.
    list.extend(dead.into_iter().map(|name| (name, Message::Gone)));
    for hub in &mut hubs {
        hub.is_cut = false;
        hub.announce(&mut list, usize::MAX);
    }
    hubs.iter_mut().for_each(|hub| hub.observe(&list, usize::MAX));
    timer.advance(SECOND * GRACE);
    let taken: BTreeSet<Seat> = tabs.iter().flat_map(Tab::seats).collect();
    let taken: BTreeSet<Seat> =
        taken.into_iter().filter(|seat| seat.topic.as_deref() != Some("x")).collect();
    for hub in &mut hubs {
        hub.model.advance(GRACE);
        hub.check()?;
        let mut seen: BTreeSet<Seat> = users(&hub.hub).into_keys().map(Seat::user).collect();
        for topic in &TOPICS[..2] {
            let members = members(&hub.hub, topic).into_keys();
            seen.extend(members.map(|user| Seat::member(user, *topic)));
        }
        prop_assert_eq!(&seen, &taken, "at {}", hub.name);
        let mut told = BTreeSet::new();
        for (seat, reason) in &hub.model.all {
            match reason {
                None => prop_assert!(told.insert(seat.clone())),
                Some(_) => prop_assert!(told.remove(seat)),
            }
        }
        prop_assert_eq!(&told, &taken, "joins and leaves must alternate, and end with the seats");
        prop_assert!(hub.feed.take_changes(1).is_empty());
        prop_assert!(
            hub.told.0.load(Ordering::Relaxed) > 0 || !hub.model.clients.contains_key(&hub.name)
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_hub_sees_seats_of_all_instances(ops in vec(op(), 1..120)) {
        run(&ops)?;
    }
}

#[test]
fn presence_continues_while_events_wait() {
    let (hub, feed, _, _) = one();
    feed.replace_users("b", ["ann".into()]);
    assert!(hub.is_online("ann"), "presence must not depend on the order of events");
    assert!(hub.broadcast(Event::new("n")).is_ok());
}
