//! Joining and leaving topics while streams are open.

mod support;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sse_hub::{
    Audience, ClientId, Event, Hub, JoinError, Limits, NameError, NameKind, RefusedCause, Retain,
    Subscriber, Subscription,
};

use support::{call_on_wake, data, gaps, hub_with, last_id, read, wait};

fn open(hub: &Hub, subscriber: Subscriber) -> Subscription {
    let mut stream = hub.subscribe(subscriber).unwrap();
    read(&mut stream);
    stream
}

fn publish(hub: &Hub, topic: &str, data: impl ToString) -> usize {
    let event = Event::new("x").data(data.to_string());
    hub.publish(Audience::topic(topic), event).unwrap().matched()
}

/// Opens more streams of a user than join a topic at a time. `between` is called when the first of
/// these have joined and the last has not.
fn crowd(hub: &Hub, between: impl FnOnce(ClientId) + Send + 'static) -> Vec<Subscription> {
    let mut streams: Vec<_> = (0..65).map(|_| open(hub, Subscriber::new().user("crowd"))).collect();
    let last = streams[64].client_id();
    call_on_wake(&mut streams[0], move || between(last));
    streams
}

#[test]
fn limit_holds_for_joins_between_the_pieces_of_a_crowd() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(1)));
    publish(&hub, "t", 1);
    let other = hub.clone();
    let streams = crowd(&hub, move |last| {
        other.join(last, "other").unwrap();
    });
    let joined = hub.join_with_last(Audience::user("crowd"), "t", 1).unwrap();
    assert_eq!((joined.matched, joined.changed), (65, 64));
    let topics = &hub.clients(streams[64].client_id())[0].topics;
    assert_eq!(topics.concat(), "other");
}

#[test]
fn client_that_returns_while_a_crowd_changes_is_changed() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(1)));
    let gone = [(); 2].map(|()| open(&hub, Subscriber::new().user("crowd")).client_id());
    publish(&hub, "t", 1);
    let returned = Arc::new(Mutex::new(Vec::new()));
    let (other, streams) = (hub.clone(), Arc::clone(&returned));
    let _crowd = crowd(&hub, move |_| {
        let back = |client| Subscriber::new().user("crowd").client_id(client);
        let full = back(gone[1]).topic("own");
        let back = [back(gone[0]), full].map(|request| other.subscribe(request).unwrap());
        streams.lock().unwrap().extend(back);
    });
    hub.join_with_last(Audience::user("crowd"), "t", 1).unwrap();
    assert_eq!(returned.lock().unwrap().len(), 2);
    assert_eq!(gone.map(|client| hub.clients(client)[0].topics.concat()), ["t", "own"]);
}

#[test]
fn clients_join_and_leave_by_any_audience() {
    let (hub, _) = hub_with(|hub| hub);
    let mut streams = [
        open(&hub, Subscriber::new().user("u").session("s1").topic("old")),
        open(&hub, Subscriber::new().user("u").session("s2")),
        open(&hub, Subscriber::new().user("v").session("s3").topic("old")),
        open(&hub, Subscriber::new()),
    ];
    let client = Audience::client(streams[3].client_id());
    let table: [(Audience, &[usize]); 7] = [
        (client.clone(), &[3]),
        (Audience::user("u"), &[0, 1]),
        (Audience::session("s3"), &[2]),
        (Audience::topic("old"), &[0, 2]),
        (Audience::all(), &[0, 1, 2, 3]),
        (Audience::topic("old").except(Audience::user("u")).or(client), &[2, 3]),
        (Audience::user("nobody"), &[]),
    ];
    for (round, (audience, members)) in table.into_iter().enumerate() {
        let topic = format!("new {round}");
        let names = hub.stats().client_names;
        assert_eq!(publish(&hub, &topic, "before"), 0);
        assert_eq!(
            hub.join(&audience, topic.as_str()).map(|clients| clients.changed),
            Ok(members.len())
        );
        assert_eq!(
            hub.join(&audience, topic.as_str()).map(|clients| clients.changed),
            Ok(0),
            "members must not join again"
        );
        assert_eq!(hub.count(Audience::topic(topic.as_str())), members.len());
        assert_eq!(hub.stats().client_names, names + usize::from(!members.is_empty()));
        assert_eq!(publish(&hub, &topic, "joined"), members.len());
        assert_eq!(
            hub.leave(&audience, topic.as_str()).map(|clients| clients.changed),
            Ok(members.len())
        );
        assert_eq!(hub.leave(&audience, topic.as_str()).map(|clients| clients.changed), Ok(0));
        assert_eq!(publish(&hub, &topic, "after"), 0);
        assert_eq!(hub.stats().client_names, names, "a name without clients must be forgotten");
        for (number, stream) in streams.iter_mut().enumerate() {
            let expected = if members.contains(&number) { vec!["joined"] } else { vec![] };
            assert_eq!(data(&read(stream)), expected, "client {number} in round {round}");
        }
    }
    let topics: Vec<usize> = streams
        .iter()
        .map(|stream| hub.clients(Audience::client(stream.client_id()))[0].topics.len())
        .collect();
    assert_eq!(topics, [1, 0, 1, 0]);
}

#[test]
fn members_are_not_counted_again() {
    let (hub, _) = hub_with(|hub| hub);
    let mut first = open(&hub, Subscriber::new().topic("t"));
    let mut second = open(&hub, Subscriber::new());
    assert_eq!(hub.join(Audience::all(), "t").map(|clients| clients.changed), Ok(1));
    assert_eq!(publish(&hub, "t", "1"), 2);
    assert_eq!(
        hub.leave(Audience::client(first.client_id()), "t").map(|clients| clients.changed),
        Ok(1)
    );
    assert_eq!(publish(&hub, "t", "2"), 1);
    assert_eq!(hub.leave(Audience::all(), "t").map(|clients| clients.changed), Ok(1));
    assert_eq!((data(&read(&mut first)).len(), data(&read(&mut second)).len()), (1, 2));
    drop(first);
    drop(second);
    assert_eq!(hub.stats().client_names, 0);
}

#[test]
fn leaving_a_topic_keeps_the_others() {
    let names = ["a", "b", "c", "d"];
    for left in names {
        for gone in names {
            let (hub, _) = hub_with(|hub| hub);
            // First in every list, so that the other client moves when this client leaves.
            let first = open(&hub, Subscriber::new().user("first").topics(names));
            let mut other = open(&hub, Subscriber::new().user("other").topics(names));
            assert_eq!(
                hub.leave(Audience::user("other"), left).map(|clients| clients.changed),
                Ok(1)
            );
            assert_eq!(
                hub.leave(Audience::user("first"), gone).map(|clients| clients.changed),
                Ok(1)
            );
            for topic in names {
                let others = usize::from(topic != left);
                assert_eq!(publish(&hub, topic, topic), others + usize::from(topic != gone));
                assert_eq!(data(&read(&mut other)).len(), others, "{topic} without {left}");
            }
            drop(first);
            let rest: Vec<usize> = names.map(|topic| publish(&hub, topic, topic)).to_vec();
            assert_eq!(rest, names.map(|topic| usize::from(topic != left)));
            drop(other);
            assert_eq!((hub.stats().clients, hub.stats().client_names), (0, 0));
        }
    }
}

#[test]
fn a_joined_topic_wakes_the_stream() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = open(&hub, Subscriber::new());
    let woken = wait(&mut stream);
    hub.join(Audience::all(), "t").unwrap();
    assert_eq!(woken.count(), 0, "no event for the stream yet");
    publish(&hub, "t", "1");
    assert_eq!(woken.count(), 1);
    assert_eq!(data(&read(&mut stream)), ["1"]);
}

#[test]
fn a_join_beyond_the_limit_changes_nothing() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(2)));
    let _full = open(&hub, Subscriber::new().user("u").topics(["a", "b"]));
    let _room = open(&hub, Subscriber::new().user("u"));
    let user = Audience::user("u");
    let error = JoinError::TooManyTopics { limit: 2 };
    assert_eq!(hub.join(&user, "c"), Err(error));
    assert_eq!(hub.count(Audience::topic("c")), 0, "no client must join");
    assert_eq!(
        hub.join(&user, "a").map(|clients| clients.changed),
        Ok(1),
        "a member needs no additional room"
    );
    assert_eq!(hub.join(&user, "b").map(|clients| clients.changed), Ok(1));
    assert_eq!(hub.join(&user, "c"), Err(error));
    assert_eq!(hub.leave(&user, "a").map(|clients| clients.changed), Ok(2));
    assert_eq!(hub.join(&user, "c").map(|clients| clients.changed), Ok(2));
    let long = "x".repeat(257);
    let error = NameError::TooLong { kind: NameKind::Topic, len: 257, limit: 256 };
    assert_eq!(hub.join(&user, long.as_str()), Err(JoinError::Topic(error)));
    assert_eq!(hub.leave(&user, long).map(|clients| clients.changed), Ok(0));
}

#[test]
fn a_join_counts_from_its_position() {
    for window in [1, 2, 100] {
        for retained in [4, 1000] {
            let (hub, _) = hub_with(|hub| {
                hub.window(window).retain(Retain::default().events(1000).per_topic(retained))
            });
            let mut stream = open(&hub, Subscriber::new().user("u"));
            // The client is behind when it joins, so it reads from before the join.
            for number in 0..5 {
                hub.send_to_user("u", Event::new("x").data(format!("own {number}"))).unwrap();
                publish(&hub, "t", "before");
            }
            assert_eq!(hub.join(Audience::user("u"), "t").map(|clients| clients.changed), Ok(1));
            for number in 0..3 {
                publish(&hub, "t", format!("t {number}"));
            }
            let text = read(&mut stream);
            let expected = ["own 0", "own 1", "own 2", "own 3", "own 4", "t 0", "t 1", "t 2"];
            assert_eq!(data(&text), expected, "window {window}, {retained} retained");
            assert_eq!(gaps(&text), [""; 0], "losses from before the join must not be a gap");
        }
    }
}

#[test]
fn only_losses_after_the_join_are_gaps() {
    let (hub, _) =
        hub_with(|hub| hub.window(1).retain(Retain::default().events(1000).per_topic(2)));
    let mut stream = open(&hub, Subscriber::new());
    (0..10).for_each(|number| assert_eq!(publish(&hub, "t", number), 0));
    hub.join(Audience::all(), "t").unwrap();
    (10..15).for_each(|number| assert_eq!(publish(&hub, "t", number), 1));
    let text = read(&mut stream);
    assert_eq!((gaps(&text).len(), data(&text)), (1, vec!["13".to_owned(), "14".to_owned()]));
}

#[test]
fn combined_audiences_respect_the_join_position() {
    let (hub, _) = hub_with(|hub| hub.window(1));
    let mut stream = open(&hub, Subscriber::new().user("u"));
    let both = || Audience::topic("t").and(Audience::user("u"));
    let but = || Audience::user("u").except(Audience::topic("t"));
    let mut expected = Vec::new();
    for round in 0..4 {
        let is_in = round % 2 == 1;
        for (audience, word, is_for) in [(both(), "both", is_in), (but(), "but", !is_in)] {
            let word = format!("{word} {round}");
            let receipt = hub.publish(audience, Event::new("x").data(&word)).unwrap();
            assert_eq!(receipt.matched(), usize::from(is_for));
            expected.extend(is_for.then_some(word));
        }
        // Read at once, because the membership at the time of the publish counts.
        assert_eq!(data(&read(&mut stream)), std::mem::take(&mut expected));
        if is_in {
            assert_eq!(hub.leave(Audience::all(), "t").map(|clients| clients.changed), Ok(1));
        } else {
            assert_eq!(hub.join(Audience::all(), "t").map(|clients| clients.changed), Ok(1));
        }
    }
}

#[test]
fn a_later_join_does_not_exclude_older_events() {
    // The client is behind: it reads the older events after it joined.
    let (hub, _) = hub_with(|hub| hub.window(1));
    let mut stream = open(&hub, Subscriber::new().user("u"));
    let but = || Audience::user("u").except(Audience::topic("t"));
    for number in 0..3 {
        hub.publish(but(), Event::new("x").data(number.to_string())).unwrap();
    }
    hub.join(Audience::all(), "t").unwrap();
    assert_eq!(hub.publish(but(), Event::new("x").data("3")).unwrap().matched(), 0);
    assert_eq!(data(&read(&mut stream)), ["0", "1", "2"], "the client was no member yet");
}

#[test]
fn no_new_event_arrives_after_leaving() {
    for window in [1, 100] {
        let (hub, _) = hub_with(|hub| hub.window(window));
        let mut stream = open(&hub, Subscriber::new().topic("t"));
        for number in 0..5 {
            publish(&hub, "t", number);
        }
        hub.leave(Audience::all(), "t").unwrap();
        for _ in 0..5 {
            assert_eq!(publish(&hub, "t", "after"), 0);
        }
        hub.broadcast(Event::new("x").data("all")).unwrap();
        let mut got = data(&read(&mut stream));
        assert_eq!(got.pop().as_deref(), Some("all"));
        let before = ["0", "1", "2", "3", "4"];
        assert!(got.is_empty() || got == before, "all earlier events or none: {got:?}");
    }
}

#[test]
fn a_reconnect_follows_the_new_topics() {
    let (hub, _) = hub_with(|hub| hub);
    let mut stream = hub.subscribe(Subscriber::new().topic("own")).unwrap();
    hub.join(Audience::all(), "t").unwrap();
    let position = last_id(&read(&mut stream));
    drop(stream);
    publish(&hub, "t", "joined");
    publish(&hub, "own", "own");
    let mut again = hub.subscribe(Subscriber::new().topic("own").resume(position)).unwrap();
    assert!(again.is_resumed());
    assert_eq!(data(&read(&mut again)), ["own"]);
}

#[test]
fn repeated_topic_counts_once() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(2)));
    let subscriber = Subscriber::new().topic("b").topics(["a", "b", "a"]).topic("a");
    let stream = open(&hub, subscriber);
    let topics = hub.clients(Audience::client(stream.client_id())).remove(0).topics;
    let topics: BTreeSet<&str> = topics.iter().map(|topic| &**topic).collect();
    assert_eq!(topics, BTreeSet::from(["a", "b"]));
    assert_eq!(publish(&hub, "a", "once"), 1);
}

#[test]
fn topics_one_by_one_cost_as_much_as_at_once() {
    let (hub, _) = hub_with(|hub| hub);
    let names: Vec<String> = (0..4_000).map(|at| format!("{:06}", at * 7919 % 999_983)).collect();
    let refuse = |subscriber: &dyn Fn() -> Subscriber| {
        let start = Instant::now();
        let refused = hub.subscribe(subscriber()).unwrap_err();
        assert!(matches!(refused.cause(), RefusedCause::TooManyTopics { .. }));
        start.elapsed()
    };
    let names = || names.iter().map(String::as_str);
    let at_once = || Subscriber::new().topics(names());
    let one_by_one = || names().fold(Subscriber::new(), Subscriber::topic);
    // The shortest of several runs in turns, because other tests run at the same time.
    let (mut all, mut each) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        (all, each) = (all.min(refuse(&at_once)), each.min(refuse(&one_by_one)));
    }
    // If each call sorted the topics, the factor would be some hundreds.
    assert!(each < all * 30, "{all:?} for all topics at once, {each:?} one by one");
}

/// A client that joins and leaves.
struct Mover {
    stream: Subscription,
    /// The newest number whose publish had begun when the client joined or left.
    begun: usize,
    is_in: bool,
    read: usize,
}

#[test]
fn joins_during_hand_outs_lose_no_event() {
    const EVENTS: usize = 400;
    // More clients than one hold of the lock serves.
    const STEADY: usize = 400;
    const MOVERS: usize = 200;
    for window in [4, 10_000] {
        let (hub, _) = hub_with(|hub| hub.window(window));
        let mut steady: Vec<Subscription> =
            (0..STEADY).map(|_| open(&hub, Subscriber::new().topic("t"))).collect();
        let mut movers: Vec<Mover> = (0..MOVERS)
            .map(|_| Mover {
                stream: open(&hub, Subscriber::new()),
                begun: 0,
                is_in: false,
                read: 0,
            })
            .collect();
        // Numbers begin with 1.
        let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let moves = thread::scope(|threads| {
            threads.spawn(|| {
                for number in 1..=EVENTS {
                    begun.store(number, Ordering::SeqCst);
                    let audience = match number % 3 {
                        0 => Audience::topics(["t", "other"]),
                        1 => Audience::topic("t").except(Audience::user("nobody")),
                        _ => Audience::topic("t"),
                    };
                    let event = Event::new("x").data(number.to_string());
                    let matched = hub.publish(audience, event).unwrap().matched();
                    done.store(number, Ordering::SeqCst);
                    assert!(matched >= STEADY, "{matched} of {STEADY} at least");
                }
            });
            threads.spawn(|| {
                // Other clients come and go, so that elements of the lists move.
                while done.load(Ordering::SeqCst) < EVENTS {
                    let guests: Vec<Subscription> = (0..20)
                        .map(|_| hub.subscribe(Subscriber::new().topic("t")).unwrap())
                        .collect();
                    drop(guests);
                }
            });
            let (mut moves, mut chance) = (0, Chance::new());
            while done.load(Ordering::SeqCst) < EVENTS {
                movers[chance.below(MOVERS)].turn(&hub, &begun, &done);
                moves += 1;
            }
            moves
        });
        assert!(moves > 100, "{moves} moves");
        for mover in &mut movers {
            mover.turn(&hub, &begun, &done);
        }
        assert!(movers.iter().map(|mover| mover.read).sum::<usize>() > 0);
        let all: Vec<String> = (1..=EVENTS).map(|number| number.to_string()).collect();
        for stream in &mut steady {
            let text = read(stream);
            assert_eq!(data(&text), all, "window {window}");
            assert_eq!(gaps(&text), [""; 0]);
        }
        drop((steady, movers));
        assert_eq!((hub.stats().clients, hub.stats().client_names), (0, 0));
    }
}

impl Mover {
    /// Checks the events since the last turn, then joins or leaves.
    fn turn(&mut self, hub: &Hub, begun: &AtomicUsize, done: &AtomicUsize) {
        let done = done.load(Ordering::SeqCst);
        let numbers: Vec<usize> =
            data(&read(&mut self.stream)).iter().map(|number| number.parse().unwrap()).collect();
        self.read += numbers.len();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        let got: BTreeSet<usize> = numbers.into_iter().collect();
        let me = Audience::client(self.stream.client_id());
        let changed = if self.is_in {
            let missing = (self.begun + 1..=done).find(|number| !got.contains(number));
            assert_eq!(missing, None, "in since {}, until {done}: {got:?}", self.begun);
            hub.leave(&me, "t")
        } else {
            let late = got.iter().find(|&&number| number > self.begun);
            assert_eq!(late, None, "out since {}", self.begun);
            hub.join(&me, "t")
        };
        assert_eq!(changed.map(|clients| clients.changed), Ok(1));
        self.is_in = !self.is_in;
        self.begun = begun.load(Ordering::SeqCst);
    }
}

/// Random numbers with a seed that differs from run to run.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = RandomState::new().build_hasher().finish() | 1;
        // The output of a failed test shows the seed.
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}
