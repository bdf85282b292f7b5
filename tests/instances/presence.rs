//! Presence on several instances, over an engine that is a list, against a naive model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::backplane::{Backplane, Feed, Outgoing, SendError, UserChange};
use sse_hub::{
    Audience, EndReason, Event, Hub, Limits, ManualTimer, Presence, PresenceEvent, PresenceWatch,
    Subscriber, Subscription,
};

use crate::support::SECOND;

/// Counts calls of `on_presence_changed`.
#[derive(Debug, Clone, Default)]
struct Told(Arc<AtomicUsize>);

impl Backplane for Told {
    fn send(&self, _: Outgoing) -> Result<(), SendError> {
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
    let all: BTreeSet<_> = feed.take_users().iter().map(|user| user.to_string()).collect();
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

const HUBS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Come { hub: usize, user: u8 },
    Go { nth: usize },
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
    prop_oneof![
        8 => (hub(), 0..4u8).prop_map(|(hub, user)| Op::Come { hub, user }),
        8 => (0..8usize).prop_map(|nth| Op::Go { nth }),
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
    All(Vec<Arc<str>>),
    Gone,
}

/// The expected state of one hub, without regard to cost.
#[derive(Default)]
struct Model {
    now: u32,
    /// The users of every known instance, this instance included, with their number of clients (1
    /// for other instances).
    clients: BTreeMap<String, BTreeMap<String, usize>>,
    away: Vec<(u32, String, EndReason)>,
    all: Vec<PresenceEvent>,
}

impl Model {
    fn is_anywhere(&self, user: &str) -> bool {
        self.clients.values().any(|users| users.contains_key(user))
    }

    fn come(&mut self, instance: &str, user: &str) {
        if !self.is_anywhere(user) {
            match self.away.iter().position(|away| away.1 == user) {
                Some(at) => drop(self.away.remove(at)),
                None => self.all.push(joined(user)),
            }
        }
        let users = self.clients.entry(instance.to_owned()).or_default();
        *users.entry(user.to_owned()).or_default() += 1;
    }

    fn go(&mut self, instance: &str, user: &str, reason: EndReason) {
        let Some(users) = self.clients.get_mut(instance) else { return };
        let Some(clients) = users.get_mut(user) else { return };
        *clients -= 1;
        if *clients > 0 {
            return;
        }
        users.remove(user);
        if !self.is_anywhere(user) {
            self.away.push((self.now + GRACE, user.to_owned(), reason));
        }
    }

    fn hear(&mut self, from: &str, message: &Message) {
        let known = |model: &Self| -> Vec<String> {
            model.clients.get(from).into_iter().flat_map(|users| users.keys().cloned()).collect()
        };
        match message {
            Message::Changed(changes) => {
                for change in changes {
                    match change {
                        UserChange::Joined(user) if known(self).contains(&user.to_string()) => {}
                        UserChange::Joined(user) => self.come(from, user),
                        UserChange::Left(user, reason) => self.go(from, user, *reason),
                        other => panic!("unknown change: {other:?}"),
                    }
                }
            }
            Message::All(users) => {
                for user in known(self) {
                    if !users.iter().any(|other| **other == *user) {
                        self.go(from, &user, EndReason::Left);
                    }
                }
                for user in users {
                    if !known(self).contains(&user.to_string()) {
                        self.come(from, user);
                    }
                }
            }
            Message::Gone => {
                for user in known(self) {
                    self.go(from, &user, EndReason::Vanished);
                }
            }
        }
    }

    fn advance(&mut self, seconds: u32) {
        self.now += seconds;
        while self.away.first().is_some_and(|away| away.0 <= self.now) {
            let (_, user, reason) = self.away.remove(0);
            self.all.push(left(&user, reason));
        }
    }

    fn users(&self, own: &str) -> BTreeMap<String, (usize, usize)> {
        let mut users: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (instance, present) in &self.clients {
            for (user, clients) in present {
                let entry = users.entry(user.clone()).or_default();
                if instance == own { entry.0 += clients } else { entry.1 += 1 }
            }
        }
        users.extend(self.away.iter().map(|away| (away.1.clone(), (0, 0))));
        users
    }
}

/// A hub, its engine and its expected state.
struct Instance {
    name: String,
    hub: Hub,
    feed: Feed,
    told: Told,
    watch: PresenceWatch,
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
        let (hub, feed, told) = hub(timer, Presence::default().grace(SECOND * GRACE));
        let watch = hub.watch().unwrap();
        let model = Model { now, ..Model::default() };
        let (seen, at, is_cut, is_unknown) = (0, 0, false, true);
        Self { name, hub, feed, told, watch, seen, model, at, is_cut, is_unknown }
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
                Message::All(users) => self.feed.replace_users(from, users.clone()),
                Message::Gone => self.feed.remove_instance(from),
            }
            self.model.hear(from, message);
        }
    }

    /// Events of the same moment may come in any order.
    fn check(&mut self) -> Result<(), TestCaseError> {
        prop_assert_eq!(users(&self.hub), self.model.users(&self.name));
        let mut seen: Vec<PresenceEvent> = std::iter::from_fn(|| next(&mut self.watch)).collect();
        let mut expected = self.model.all[self.seen..].to_vec();
        self.seen = self.model.all.len();
        let mut online = BTreeSet::new();
        for event in &seen {
            let (user, comes) = match event {
                PresenceEvent::Joined { user } => (user, true),
                PresenceEvent::Left { user, .. } => (user, false),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(online.insert((user.clone(), comes)), "{user} twice within one step");
        }
        let order = |event: &PresenceEvent| format!("{event:?}");
        seen.sort_by_key(order);
        expected.sort_by_key(order);
        prop_assert_eq!(seen, expected);
        Ok(())
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
    let mut tabs: Vec<(usize, u8, Subscription)> = Vec::new();
    let mut dead: Vec<String> = Vec::new();
    for op in ops {
        match *op {
            Op::Come { hub, user } => {
                let (of, user_name) = (&mut hubs[hub], user.to_string());
                tabs.push((hub, user, tab(&of.hub, &user_name)));
                of.model.come(&of.name, &user_name);
            }
            Op::Go { nth } if nth < tabs.len() => {
                let (hub, user, tab) = tabs.remove(nth);
                drop(tab);
                let of = &mut hubs[hub];
                of.model.go(&of.name, &user.to_string(), EndReason::Left);
            }
            Op::Go { .. } => {}
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
                tabs.retain(|tab| tab.0 != hub);
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

    // After recovery, every hub sees every user with a tab, and no other user after the grace.
    list.extend(dead.into_iter().map(|name| (name, Message::Gone)));
    for hub in &mut hubs {
        hub.is_cut = false;
        hub.announce(&mut list, usize::MAX);
    }
    hubs.iter_mut().for_each(|hub| hub.observe(&list, usize::MAX));
    timer.advance(SECOND * GRACE);
    let online: BTreeSet<String> = tabs.iter().map(|tab| tab.1.to_string()).collect();
    for hub in &mut hubs {
        hub.model.advance(GRACE);
        hub.check()?;
        let seen: BTreeSet<String> = users(&hub.hub).into_keys().collect();
        prop_assert_eq!(&seen, &online, "at {}", hub.name);
        let mut told = BTreeSet::new();
        for event in &hub.model.all {
            match event {
                PresenceEvent::Joined { user } => prop_assert!(told.insert(user.to_string())),
                PresenceEvent::Left { user, .. } => prop_assert!(told.remove(&**user)),
                _ => unreachable!("the model reports no other event"),
            }
        }
        prop_assert_eq!(
            &told,
            &online,
            "joins and leaves must alternate, and end with the online users"
        );
        prop_assert!(hub.feed.take_changes(1).is_empty());
        prop_assert!(
            hub.told.0.load(Ordering::Relaxed) > 0 || !hub.model.clients.contains_key(&hub.name)
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_hub_sees_users_of_all_instances(ops in vec(op(), 1..120)) {
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
