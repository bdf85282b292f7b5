//! Audiences: live, on replay and after an eviction, compared with a naive evaluation; and their
//! cost.

mod support;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use sse_hub::{
    Audience, AudienceError, ClientId, DisconnectError, Event, EventId, Goodbye, Hub, JoinError,
    ManualTimer, NameError, NameKind, PublishError, Retain, Subscriber, Subscription,
};

use support::{data, gaps, hub_with, last_id, read};

/// An audience expression.
#[derive(Debug, Clone)]
enum Tree {
    All,
    Client(usize),
    Clients(Vec<usize>),
    User(u8),
    Users(Vec<u8>),
    Session(u8),
    Topic(u8),
    Topics(Vec<u8>),
    Or(Box<[Self; 2]>),
    And(Box<[Self; 2]>),
    Except(Box<[Self; 2]>),
}

impl Tree {
    /// Returns the audience, for clients with these ids.
    fn audience(&self, ids: &[ClientId]) -> Audience {
        let names = |names: &[u8]| names.iter().map(u8::to_string).collect::<Vec<_>>();
        match self {
            Self::All => Audience::all(),
            Self::Client(client) => Audience::client(ids[*client]),
            Self::Clients(clients) => Audience::clients(clients.iter().map(|&client| ids[client])),
            Self::User(user) => Audience::user(user.to_string()),
            Self::Users(users) => Audience::users(names(users)),
            Self::Session(session) => Audience::session(session.to_string()),
            Self::Topic(topic) => Audience::topic(topic.to_string()),
            Self::Topics(topics) => Audience::topics(names(topics)),
            Self::Or(sides) => sides[0].audience(ids).or(sides[1].audience(ids)),
            Self::And(sides) => sides[0].audience(ids).and(sides[1].audience(ids)),
            Self::Except(sides) => sides[0].audience(ids).except(sides[1].audience(ids)),
        }
    }

    /// Returns whether this client is in the audience.
    fn has(&self, client: usize, who: &Who) -> bool {
        let user = |name: &u8| who.user == Some(*name);
        match self {
            Self::All => true,
            Self::Client(it) => *it == client,
            Self::Clients(them) => them.contains(&client),
            Self::User(name) => user(name),
            Self::Users(names) => names.iter().any(user),
            Self::Session(name) => who.session == Some(*name),
            Self::Topic(name) => who.topics.contains(name),
            Self::Topics(names) => names.iter().any(|name| who.topics.contains(name)),
            Self::Or(sides) => sides.iter().any(|side| side.has(client, who)),
            Self::And(sides) => sides.iter().all(|side| side.has(client, who)),
            Self::Except(sides) => sides[0].has(client, who) && !sides[1].has(client, who),
        }
    }
}

#[derive(Debug, Clone)]
struct Who {
    user: Option<u8>,
    session: Option<u8>,
    topics: BTreeSet<u8>,
    /// The only event type that the client receives, if it has a filter.
    wants: Option<u8>,
}

impl Who {
    fn subscriber(&self) -> Subscriber {
        let mut who = Subscriber::new().topics(self.topics.iter().map(u8::to_string));
        if let Some(user) = self.user {
            who = who.user(user.to_string());
        }
        if let Some(session) = self.session {
            who = who.session(session.to_string());
        }
        match self.wants {
            Some(wants) => who.event_types([wants.to_string()]),
            None => who,
        }
    }

    fn admits(&self, event_type: u8) -> bool {
        self.wants.is_none_or(|wants| wants == event_type)
    }
}

const CLIENTS: usize = 5;
/// Few names, so that they repeat.
const NAMES: u8 = 3;

fn tree() -> impl Strategy<Value = Tree> {
    let name = || 0..NAMES;
    let leaf = prop_oneof![
        1 => Just(Tree::All),
        2 => (0..CLIENTS).prop_map(Tree::Client),
        1 => vec(0..CLIENTS, 0..3).prop_map(Tree::Clients),
        2 => name().prop_map(Tree::User),
        1 => vec(name(), 0..3).prop_map(Tree::Users),
        2 => name().prop_map(Tree::Session),
        2 => name().prop_map(Tree::Topic),
        1 => vec(name(), 0..3).prop_map(Tree::Topics),
    ];
    leaf.prop_recursive(6, 24, 2, |part| {
        let pair = (part.clone(), part).prop_map(|(left, right)| Box::new([left, right]));
        prop_oneof![
            pair.clone().prop_map(Tree::Or),
            pair.clone().prop_map(Tree::And),
            pair.prop_map(Tree::Except),
        ]
    })
}

fn who() -> impl Strategy<Value = Who> {
    let name = || option::of(0..NAMES);
    let wants = option::weighted(0.3, 0..2u8);
    (name(), name(), btree_set(0..NAMES, 0..3), wants)
        .prop_map(|(user, session, topics, wants)| Who { user, session, topics, wants })
}

fn crowd() -> impl Strategy<Value = Vec<Who>> {
    vec(who(), CLIENTS)
}

/// Connects all clients, and returns the newest position.
fn connect(hub: &Hub, crowd: &[Who]) -> (Vec<Subscription>, Vec<ClientId>, EventId) {
    let mut streams: Vec<Subscription> =
        crowd.iter().map(|who| hub.subscribe(who.subscriber()).unwrap()).collect();
    let ids = streams.iter().map(Subscription::client_id).collect();
    let start = streams.iter_mut().map(|stream| last_id(&read(stream))).max().unwrap();
    (streams, ids, start)
}

fn event(event_type: u8, number: usize) -> Event {
    Event::new(event_type.to_string()).data(number.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn audiences_match_a_naive_evaluation(
        crowd in crowd(),
        events in vec((tree(), 0..2u8), 1..12),
        window in 1..4usize,
        unread in any::<bool>(),
    ) {
        let (hub, _) = hub_with(|hub| hub.window(window));
        let (mut streams, ids, start) = connect(&hub, &crowd);
        let mut expected = vec![Vec::new(); CLIENTS];
        let mut received = vec![String::new(); CLIENTS];
        for (number, (tree, event_type)) in events.iter().enumerate() {
            let audience = tree.audience(&ids);
            let members: Vec<usize> =
                (0..CLIENTS).filter(|&client| tree.has(client, &crowd[client])).collect();
            prop_assert_eq!(hub.count(&audience), members.len());
            let listed: BTreeSet<ClientId> =
                hub.clients(&audience).iter().map(|info| info.client_id).collect();
            prop_assert_eq!(hub.clients(&audience).len(), members.len(), "clients are listed twice");
            prop_assert_eq!(listed, members.iter().map(|&client| ids[client]).collect());

            let admitted: Vec<usize> =
                members.into_iter().filter(|&client| crowd[client].admits(*event_type)).collect();
            let receipt = hub.publish(audience, event(*event_type, number)).unwrap();
            prop_assert_eq!(receipt.matched(), admitted.len());
            for client in admitted {
                expected[client].push(number.to_string());
            }
            if !unread {
                for (stream, text) in streams.iter_mut().zip(&mut received) {
                    *text += &read(stream);
                }
            }
        }
        for (client, stream) in streams.iter_mut().enumerate() {
            received[client] += &read(stream);
            prop_assert_eq!(&data(&received[client]), &expected[client], "live");
        }
        drop(streams);
        for (client, who) in crowd.iter().enumerate() {
            let again = who.subscriber().client_id(ids[client]).resume(start);
            let mut stream = hub.subscribe(again).unwrap();
            prop_assert_eq!(stream.client_id(), ids[client]);
            prop_assert!(stream.is_resumed());
            prop_assert_eq!(&data(&read(&mut stream)), &expected[client], "on replay");
        }
    }

    #[test]
    fn gaps_are_exact_for_evicted_events(
        crowd in crowd(),
        events in vec((tree(), 0..2u8), 1..40),
        retained in 1..4usize,
    ) {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(retained)));
        let (streams, ids, start) = connect(&hub, &crowd);
        drop(streams);
        let positions: Vec<EventId> = events
            .iter()
            .enumerate()
            .map(|(number, (tree, event_type))| {
                hub.publish_confirmed(tree.audience(&ids), event(*event_type, number)).unwrap().id().unwrap()
            })
            .collect();
        let lost = events.len().saturating_sub(retained);
        for (client, who) in crowd.iter().enumerate() {
            let is_for = |number: usize| {
                let (tree, event_type) = &events[number];
                who.admits(*event_type) && tree.has(client, who)
            };
            for seen in 0..=events.len() {
                let position = if seen == 0 { start } else { positions[seen - 1] };
                let again = who.subscriber().client_id(ids[client]).resume(position);
                let mut stream = hub.subscribe(again).unwrap();
                prop_assert_eq!(stream.is_resumed(), !(seen..lost).any(is_for));
                let text = read(&mut stream);
                prop_assert_eq!(gaps(&text).is_empty(), stream.is_resumed());
                let rest = (seen.max(lost)..events.len()).filter(|&number| is_for(number));
                let rest: Vec<String> = rest.map(|number| number.to_string()).collect();
                prop_assert_eq!(data(&text), rest);
            }
        }
    }

    #[test]
    fn events_of_several_topics_count_for_each(
        events in vec(btree_set(0..NAMES, 1..3), 1..40),
        limit in 1..4usize,
        follows in btree_set(0..NAMES, 0..4),
    ) {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(100).per_topic(limit)));
        let topics = |names: &BTreeSet<u8>| names.iter().map(u8::to_string).collect::<Vec<_>>();
        let mut probe = hub.subscribe(Subscriber::new()).unwrap();
        let start = last_id(&read(&mut probe));
        let mut kept: Vec<(usize, &BTreeSet<u8>)> = Vec::new();
        let mut lost = Vec::new();
        for (number, names) in events.iter().enumerate() {
            hub.publish(Audience::topics(topics(names)), event(0, number)).unwrap();
            for name in names {
                let of_topic = |(_, names): &&(usize, &BTreeSet<u8>)| names.contains(name);
                if kept.iter().filter(of_topic).count() == limit {
                    let oldest = kept.iter().position(|kept| of_topic(&kept)).unwrap();
                    lost.push(kept.remove(oldest));
                }
            }
            kept.push((number, names));
            prop_assert_eq!(hub.stats().retained, kept.len());
        }
        let is_for = |(_, names): &&(usize, &BTreeSet<u8>)| !names.is_disjoint(&follows);
        let follower = Subscriber::new().topics(topics(&follows));
        let mut stream = hub.subscribe(follower.resume(start)).unwrap();
        prop_assert_eq!(stream.is_resumed(), !lost.iter().any(|lost| is_for(&lost)));
        let expected: Vec<String> =
            kept.iter().filter(is_for).map(|(number, _)| number.to_string()).collect();
        prop_assert_eq!(data(&read(&mut stream)), expected);
    }
}

#[test]
fn audiences_combine() {
    let (hub, _) = hub_with(|hub| hub);
    let who = [
        Subscriber::new().user("ann").session("s1").topics(["red", "blue"]),
        Subscriber::new().user("ann").session("s2").topic("red"),
        Subscriber::new().user("bob").session("s3").topic("blue"),
        Subscriber::new(),
    ];
    let mut streams = who.map(|who| hub.subscribe(who).unwrap());
    for stream in &mut streams {
        read(stream);
    }
    let ids = streams.each_ref().map(Subscription::client_id);
    let all = Audience::all;
    let user = |name: &str| Audience::user(name);
    let session = |name: &str| Audience::session(name);
    let topic = |name: &str| Audience::topic(name);
    let client = |number: usize| Audience::client(ids[number]);
    let table: [(&str, Audience, &[usize]); 20] = [
        ("either", user("ann").or(user("bob")), &[0, 1, 2]),
        ("both", user("ann").and(topic("blue")), &[0]),
        ("all but", topic("red").except(client(0)), &[1]),
        ("the same user twice", user("ann").or(user("ann")).or(topic("red")), &[0, 1]),
        ("all and some", all().and(session("s3")), &[2]),
        ("all or some", session("s3").or(all()), &[0, 1, 2, 3]),
        ("all except some", all().except(user("ann")), &[2, 3]),
        ("but, twice", all().except(user("ann")).except(user("bob")), &[3]),
        ("nobody", Audience::clients([]), &[]),
        ("some and empty", user("ann").and(Audience::clients([])), &[]),
        ("empty or some", Audience::topics::<&str>([]).or(user("bob")), &[2]),
        ("some except empty", user("bob").except(Audience::users::<&str>([])), &[2]),
        ("some except all", user("bob").except(all()), &[]),
        ("some except the same", user("ann").except(user("ann")), &[]),
        ("several", Audience::clients([ids[3], ids[1], ids[3]]), &[1, 3]),
        ("several topics", Audience::topics(["red", "blue"]), &[0, 1, 2]),
        ("several users", Audience::users(["bob", "nobody"]), &[2]),
        ("and over a nested or", user("ann").and(topic("blue").or(session("s2"))), &[0, 1]),
        ("or after and", user("ann").and(topic("blue")).or(session("s2")), &[0, 1]),
        (
            "except applies to the whole or",
            topic("red").or(topic("blue")).except(user("ann")),
            &[2],
        ),
    ];
    for (what, audience, members) in table {
        assert_eq!(hub.count(&audience), members.len(), "{what}");
        let receipt = hub.publish(audience, Event::new("x").data(what)).unwrap();
        assert_eq!(receipt.matched(), members.len(), "{what}");
        for (client, stream) in streams.iter_mut().enumerate() {
            let once = if members.contains(&client) { vec![what] } else { vec![] };
            assert_eq!(data(&read(stream)), once, "client {client}");
        }
    }
}

#[test]
fn equal_audiences_have_equal_hashes() {
    let both = |user: u64| Audience::user(user).and(Audience::topic("t"));
    let table = [
        (both(42), Audience::user("42").and(Audience::topic("t")), true),
        (both(42), both(43), false),
        (both(42), Audience::topic("t").and(Audience::user(42_u64)), false),
        (Audience::user("a"), Audience::session("a"), false),
    ];
    for (one, other, is_equal) in table {
        assert_eq!(one == other, is_equal, "{one:?} {other:?}");
        let hash = |audience| BuildHasherDefault::<DefaultHasher>::default().hash_one(audience);
        assert_eq!(hash(&one) == hash(&other), is_equal, "{one:?} {other:?}");
    }
}

#[test]
fn listed_clients_have_their_names() {
    let (hub, _) = hub_with(|hub| hub);
    let stream = hub.subscribe(Subscriber::new().user("a").session("b").topics(["d", "c"]));
    let stream = stream.unwrap();
    let plain = hub.subscribe(Subscriber::new()).unwrap();
    let [info] = hub.clients(Audience::user("a")).try_into().unwrap();
    assert_eq!(info.client_id, stream.client_id());
    assert_eq!((info.user.as_deref(), info.session.as_deref()), (Some("a"), Some("b")));
    let topics: BTreeSet<&str> = info.topics.iter().map(|topic| &**topic).collect();
    assert_eq!(topics, BTreeSet::from(["c", "d"]));
    let [info] = hub.clients(Audience::client(plain.client_id())).try_into().unwrap();
    assert_eq!((info.user, info.session, info.topics), (None, None, vec![]));
}

/// Returns the error with which every method refuses an audience.
fn refused(hub: &Hub, audience: &Audience) -> AudienceError {
    let before = hub.stats();
    let Err(PublishError::Audience(error)) = hub.publish(audience.clone(), Event::new("x")) else {
        panic!("the invalid audience must be refused");
    };
    assert_eq!(hub.join(audience, "t"), Err(JoinError::Audience(error)));
    assert_eq!(hub.leave(audience, "t"), Err(JoinError::Audience(error)));
    assert_eq!(
        hub.disconnect(audience, Goodbye::from_static("x")),
        Err(DisconnectError::Audience(error))
    );
    assert_eq!(hub.stats(), before, "no trace");
    error
}

fn numbered(users: std::ops::Range<usize>) -> Audience {
    Audience::users(users.map(|user| user.to_string()))
}

#[test]
fn too_many_names_are_an_error() {
    let (hub, _) = hub_with(|hub| hub);
    let _stream = hub.subscribe(Subscriber::new().user("0")).unwrap();
    let most = numbered(0..Audience::MAX_NAMES);
    assert_eq!(hub.publish(most.clone(), Event::new("x")).unwrap().matched(), 1);
    let more = Audience::user("one more");
    let too_many = [
        numbered(0..Audience::MAX_NAMES + 1),
        most.clone().or(more.clone()),
        most.clone().and(more.clone()),
        most.clone().except(more.clone()),
        more.clone().except(most.clone()),
        Audience::all().except(numbered(0..6000)).or(numbered(0..6000)),
    ];
    for audience in too_many {
        assert_eq!(refused(&hub, &audience), AudienceError::Excessive);
    }
    // A later combination does not make the audience valid.
    let too_many = most.or(more);
    let later = [
        too_many.clone().and(Audience::user("0")),
        too_many.clone().or(Audience::all()),
        too_many.clone().except(Audience::user("0")),
        Audience::all().except(too_many.clone()),
        Audience::all().except(Audience::user("0")).except(too_many.clone()),
        Audience::user("0").or(too_many.clone()),
        Audience::user("0").and(too_many),
    ];
    for audience in later {
        assert_eq!(refused(&hub, &audience), AudienceError::Excessive);
    }
}

#[test]
fn too_many_excluded_names_include_nobody() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = hub.subscribe(Subscriber::new().user("0")).unwrap();
    read(&mut stream);
    let most = Audience::MAX_NAMES - 1;
    let audience = Audience::all().except(numbered(0..most)).except(numbered(most..most + 10));
    let published = hub.publish(audience, Event::new("x").data("not for user 0"));
    assert_eq!(data(&read(&mut stream)), [""; 0], "{published:?}");
    assert_eq!(published, Err(PublishError::Audience(AudienceError::Excessive)));
}

/// Alternates `or`, `and` and `except`.
fn turns(count: usize) -> Audience {
    (0..count).fold(Audience::user("0"), |audience, turn| match turn % 3 {
        0 => audience.or(Audience::user("a")),
        1 => audience.and(Audience::all()),
        _ => audience.except(Audience::user("b")),
    })
}

#[test]
fn a_too_deep_audience_is_an_error() {
    let (hub, _) = hub_with(|hub| hub);
    let _stream = hub.subscribe(Subscriber::new().user("0")).unwrap();
    let deep = turns(Audience::MAX_DEPTH - 1);
    assert_eq!(hub.publish(deep, Event::new("x")).unwrap().matched(), 1);
    for turns in [Audience::MAX_DEPTH + 1, 1000].map(turns) {
        assert_eq!(refused(&hub, &turns), AudienceError::Excessive);
    }
    // The other side can be too deep as well.
    let mut right = Audience::user("0");
    for turn in 0..Audience::MAX_DEPTH + 1 {
        let left = Audience::user("a");
        right = if turn % 2 == 0 { left.or(right) } else { left.and(right) };
    }
    assert_eq!(refused(&hub, &right), AudienceError::Excessive);
}

#[test]
fn a_chain_of_one_operation_is_flat() {
    let (hub, _) = hub_with(|hub| hub);
    let _stream = hub.subscribe(Subscriber::new().user("0").topic("t")).unwrap();
    let names = || (0..1000).map(|name| Audience::user(name.to_string()));
    let any = names().reduce(Audience::or).unwrap();
    assert_eq!(hub.count(&any), 1);
    assert_eq!(hub.publish(any, Event::new("x")).unwrap().matched(), 1);
    let all = (0..1000).map(|_| Audience::user("0")).reduce(Audience::and).unwrap();
    assert_eq!(hub.publish(all, Event::new("x")).unwrap().matched(), 1);
    let but = names().skip(1).fold(Audience::topic("t"), Audience::except);
    assert_eq!(hub.publish(but.clone(), Event::new("x")).unwrap().matched(), 1);
    let nobody = but.except(Audience::user("0"));
    assert_eq!(hub.publish(nobody, Event::new("x")).unwrap().matched(), 0);
}

/// Returns the shortest of several runs, because other tests run at the same time.
fn shortest(mut run: impl FnMut() -> Duration) -> Duration {
    (0..7).map(|_| run()).min().unwrap_or(Duration::MAX)
}

fn elapsed<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Returns the time of a publish to `clients` clients of topic `t`, with 64 topics each.
fn publish_time(clients: usize, audience: impl Fn() -> Audience) -> Duration {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(1)));
    let topics = |client: usize| (1..64).map(move |topic| format!("{client}-{topic}"));
    let subscribe = |client| Subscriber::new().topic("t").topics(topics(client));
    let streams: Vec<_> =
        (0..clients).map(|client| hub.subscribe(subscribe(client)).unwrap()).collect();
    let time = shortest(|| {
        let audience = audience();
        elapsed(|| hub.publish(audience, Event::new("x")).unwrap())
    });
    drop(streams);
    time
}

#[test]
fn excluded_names_do_not_multiply_with_topics() {
    let pair = |pair: usize| Audience::user(pair.to_string()).and(Audience::session("s"));
    let names = || Audience::topic("t").except(numbered(0..9_999));
    let pairs = || Audience::topic("t").except((0..4_000).map(pair).reduce(Audience::or).unwrap());
    // A publish must index the names once. Comparing each name with each topic of each client would
    // make 50 clients 30 times as expensive as a single client.
    for audience in [&names as &dyn Fn() -> Audience, &pairs] {
        let (one, many) = (publish_time(1, audience), publish_time(50, audience));
        println!("to one client: {one:?}, to 50 clients: {many:?}");
        assert!(many < 5 * one, "to one client: {one:?}, to 50 clients: {many:?}");
    }
}

#[test]
fn many_event_types_do_not_slow_publishing() {
    let broadcast_time = |types: usize| {
        let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(1)));
        let names: Vec<String> = (0..types).map(|name| format!("type {name}")).collect();
        let subscribe = || Subscriber::new().event_types(names.iter().map(String::as_str));
        let streams: Vec<_> = (0..200).map(|_| hub.subscribe(subscribe()).unwrap()).collect();
        let time = shortest(|| elapsed(|| hub.broadcast(Event::new("other")).unwrap()));
        drop(streams);
        time
    };
    let (few, many) = (broadcast_time(1), broadcast_time(64));
    println!("{few:?} with 1 type, {many:?} with 64 types");
    assert!(many < 4 * few, "{few:?} with 1 type, {many:?} with 64 types");
}

#[test]
fn event_types_and_topics_do_not_multiply() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(1)));
    for number in 0..1_000 {
        hub.send_to_user(number.to_string(), event(0, number)).unwrap();
    }
    let resume_time = |types: usize| {
        let types: Vec<String> = (0..types).map(|name| format!("type {name}")).collect();
        shortest(|| {
            let topics = (0..64).map(|topic| topic.to_string());
            let who =
                Subscriber::new().topics(topics).event_types(types.iter().map(String::as_str));
            let who = who.resume(EventId::new(1, 1));
            elapsed(|| hub.subscribe(who).unwrap())
        })
    };
    let (few, many) = (resume_time(1), resume_time(64));
    println!("{few:?} with 1 type, {many:?} with 64 types");
    assert!(many < 4 * few, "{few:?} with 1 type, {many:?} with 64 types");
}

#[test]
fn repeated_event_type_counts_once() {
    let (hub, _) = hub_with(|hub| hub);
    let types = ["a", "message", "a", "message"];
    let mut stream = hub.subscribe(Subscriber::new().event_types(types)).unwrap();
    read(&mut stream);
    for (event_type, matched) in [("a", 1), ("b", 0), ("message", 1)] {
        let receipt = hub.broadcast(Event::new(event_type).data(event_type)).unwrap();
        assert_eq!(receipt.matched(), matched);
    }
    hub.broadcast(Event::default().data("no type")).unwrap();
    assert_eq!(data(&read(&mut stream)), ["a", "message", "no type"]);
}

/// Checks a generous limit, which quadratic work exceeds.
fn in_reasonable_time<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = run();
    let took = start.elapsed();
    println!("{what}: {took:?}");
    assert!(took < Duration::from_secs(1), "{what} took {took:?}");
    made
}

#[test]
fn endless_nesting_is_an_error_soon() {
    let (hub, _) = hub_with(|hub| hub);
    let deep = in_reasonable_time("10,000 turns", || turns(10_000));
    assert_eq!(refused(&hub, &deep), AudienceError::Excessive);
}

#[test]
fn an_endless_chain_is_an_error_soon() {
    let (hub, _) = hub_with(|hub| hub);
    let names = (0..100_000).map(|name| Audience::user(name.to_string()));
    let any = in_reasonable_time("100,000 ors", || names.reduce(Audience::or).unwrap());
    assert_eq!(refused(&hub, &any), AudienceError::Excessive);
}

#[test]
fn parts_without_names_are_bounded() {
    let (hub, _) = hub_with(|hub| hub);
    let nobody = (0..=2 * Audience::MAX_NAMES).map(|_| Audience::clients([]));
    let all = nobody.reduce(Audience::and).unwrap();
    assert_eq!(refused(&hub, &all), AudienceError::Excessive);
}

#[test]
fn names_count_towards_retained_bytes() {
    let counted = |audience: Audience| {
        let (hub, _) = hub_with(|hub| hub);
        hub.publish(audience, Event::new("x")).unwrap();
        hub.stats().retained_bytes
    };
    let none = counted(Audience::all());
    assert_eq!(counted(Audience::user("x".repeat(200))), none + 200);
    let any = counted(Audience::users((0..1000).map(|user| format!("{user:0>10}"))));
    assert_eq!(any, none + 1000 * (192 + 10), "each name must cost one index key");
    let but = counted(Audience::topic("t").except(numbered(0..1000)));
    let digits = (0..1000).map(|user: usize| user.to_string().len()).sum::<usize>();
    assert_eq!(
        but,
        none + 1001 * 128 + 192 + digits + 1,
        "each name must count, and one index key"
    );
}

#[test]
fn a_large_audience_evicts_by_bytes() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(10).bytes(30_000)));
    let published = hub.publish_confirmed(numbered(0..100), Event::new("x")).unwrap();
    assert!((19_200..20_000).contains(&hub.stats().retained_bytes), "{:?}", hub.stats());
    hub.publish(numbered(0..100), Event::new("x")).unwrap();
    assert_eq!(hub.stats().retained, 1, "the second event must evict the first");
    let mut stream =
        hub.subscribe(Subscriber::new().user("7").resume(published.id().unwrap())).unwrap();
    assert_eq!(data(&read(&mut stream)).len(), 1);
    let error = hub.publish(numbered(0..200), Event::new("x")).unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { bytes: 38_400.., limit: 30_000 }));
    assert_eq!(hub.stats().retained, 1);
}

#[test]
fn an_invalid_name_is_found_in_every_part() {
    let (hub, _) = hub_with(|hub| hub);
    let fine = || Audience::user("fine");
    let wrong = || Audience::topic("");
    let audiences = [
        wrong().or(fine()),
        fine().and(wrong()),
        fine().except(wrong()),
        fine().except(fine()).except(fine().and(wrong())),
        Audience::topics(["fine", ""]),
    ];
    for audience in audiences {
        let error = AudienceError::Name(NameError::Empty(NameKind::Topic));
        assert_eq!(refused(&hub, &audience), error);
    }
}

#[test]
fn combined_gaps_are_exact_for_256_evictions() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(1)));
    let mut probe = hub.subscribe(Subscriber::new()).unwrap();
    let start = last_id(&read(&mut probe));
    drop(probe);
    hub.publish(Audience::topic("t").except(Audience::user("a")), Event::new("x")).unwrap();
    let other = || Audience::user("c").and(Audience::user("d"));
    let resumes = |user: &str, types: &[&str]| {
        let who = Subscriber::new().user(user).topic("t").resume(start);
        let who = if types.is_empty() { who } else { who.event_types(types.iter().copied()) };
        hub.subscribe(who).unwrap().is_resumed()
    };
    for evicted in 1..=256 {
        hub.publish(other(), Event::new("x")).unwrap();
        assert!(!resumes("b", &[]), "b must get a gap after {evicted} lost events");
        assert!(!resumes("b", &["x"]));
        assert!(resumes("b", &["y"]), "the filter of b excludes the lost type");
        assert!(resumes("a", &[]), "a is not in the audience of the {evicted} lost events");
    }
    hub.publish(other(), Event::new("x")).unwrap();
    assert!(!resumes("a", &[]), "the audience of the loss must be forgotten");
    assert!(resumes("a", &["y"]), "the type of the loss must still be known");
    assert!(!resumes("b", &[]));
}

#[test]
fn a_client_with_many_matches_receives_once() {
    let timer = ManualTimer::new();
    let hub = Hub::builder(timer).window(1).heartbeat(None).build().unwrap();
    let topics = ["a", "b", "c"];
    let mut stream = hub.subscribe(Subscriber::new().user("u").topics(topics)).unwrap();
    read(&mut stream);
    let audience = || Audience::topics(topics).or(Audience::user("u"));
    for number in 0..10 {
        let receipt = hub.publish(audience(), event(0, number)).unwrap();
        assert_eq!(receipt.matched(), 1);
    }
    let numbers: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(data(&read(&mut stream)), numbers);
}
