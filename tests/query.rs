//! Streams from random query strings: a request gets a refusal with its cause, or a valid stream.
//!
//! The queries are read as the demo reads them: decoded, the last value of a repeated name counts,
//! and lists are separated by commas. A naive evaluation of the limits predicts each answer.
#![cfg(not(sse_hub_loom))]

mod support;

use std::collections::BTreeSet;
use std::slice;

use axum::extract::Query;
use axum::http::Uri;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sse_hub::{
    Audience, ClientId, EndReason, Event, EventId, Hub, LastEventId, Limits, RefusedCause, Retain,
    Subscriber, Subscription,
};

use support::{Frame, frames, gaps, hub_with, poll};

const TYPES: [&str; 3] = ["order", "alert", "message"];
const TOPICS: [&str; 3] = ["orders", "a b", "\u{fffd}"];

/// Stand in a query for the epoch of the hub, and for the id of the client before.
const EPOCH: &str = "EPOCH";
const CLIENT: &str = "CLIENT";

/// The most events that the hub retains.
const RETAINED: usize = 8;

/// The most polls until a client has read everything: an item for each retained event, for each of
/// the hub's own events, and for the last event.
const MAX_POLLS: usize = RETAINED + 4;

const MAX_TOPICS: usize = 64;
const MAX_TYPES: usize = 64;
const MAX_LEN: usize = 256;

/// Returns a hub with a full log, and the id of the newest event.
fn full_hub() -> (Hub, EventId) {
    let (hub, _) = hub_with(|builder| {
        let limits = Limits::default().topics(MAX_TOPICS).event_types(MAX_TYPES).name_len(MAX_LEN);
        builder.retain(Retain::default().events(RETAINED)).limits(limits)
    });
    let publish = |round: usize| {
        let topic = TOPICS[round % TOPICS.len()];
        let event = Event::new(TYPES[round % 2]).data(topic);
        hub.publish_confirmed(Audience::topic(topic), event).unwrap().id().unwrap()
    };
    let ids: Vec<EventId> = (0..2 * RETAINED).map(publish).collect();
    (hub, ids[ids.len() - 1])
}

/// Decodes a value of `application/x-www-form-urlencoded`. Malformed escapes stay, and invalid
/// UTF-8 is replaced.
fn decode(text: &str) -> String {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::new();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => {
                let [high, low] = [high, low].map(|&byte| char::from(byte).to_digit(16));
                high.zip(low).map(|(high, low)| (high * 16 + low) as u8)
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { &rest[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The decoded names and values of a query.
struct Tab(Vec<(String, String)>);

impl Tab {
    fn parse(query: &str) -> Self {
        let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
        Self(
            parameters
                .map(|parameter| {
                    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().rev().filter(|(key, _)| key == name);
        values.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn list(&self, name: &str) -> Option<BTreeSet<&str>> {
        let parts = self.get(name)?.split(',').map(str::trim).filter(|part| !part.is_empty());
        Some(parts.collect()).filter(|parts: &BTreeSet<&str>| !parts.is_empty())
    }

    fn subscriber(&self, last: LastEventId) -> Subscriber {
        let mut subscriber = Subscriber::new().resume(last);
        if let Some(user) = self.get("user") {
            subscriber = subscriber.user(user);
        }
        if let Some(session) = self.get("session") {
            subscriber = subscriber.session(session);
        }
        if let Some(client) = self.get("client").and_then(|text| text.parse::<ClientId>().ok()) {
            subscriber = subscriber.client_id(client);
        }
        if let Some(topics) = self.list("topics") {
            subscriber = subscriber.topics(topics);
        }
        if let Some(types) = self.list("events") {
            subscriber = subscriber.event_types(types);
        }
        subscriber
    }

    /// Returns the word of each cause for which the hub must refuse the request.
    fn causes(&self) -> BTreeSet<&'static str> {
        let topics = self.list("topics").unwrap_or_default();
        let types = self.list("events").unwrap_or_default();
        let names = [self.get("user"), self.get("session")];
        let mut names = names.into_iter().flatten().chain(topics.iter().copied());
        let causes = [
            ("topics", topics.len() > MAX_TOPICS),
            ("event-types", types.len() > MAX_TYPES),
            ("event-type-length", types.iter().any(|name| name.len() > MAX_LEN)),
            ("name", names.any(|name| name.len() > MAX_LEN)),
        ];
        causes.into_iter().filter(|(_, is_met)| *is_met).map(|(cause, _)| cause).collect()
    }

    /// Returns whether the client receives the events of this type.
    fn admits(&self, event_type: &str) -> bool {
        self.list("events").is_none_or(|types| types.contains(event_type))
    }
}

/// Returns the position of a request: of the header, or of the first parameter with a value.
fn last_of(header: Option<&[u8]>, query: &str) -> LastEventId {
    const NAMES: [&str; 3] = ["lastEventId=", "last_event_id=", "last-event-id="];
    let value = |parameter| NAMES.iter().find_map(|name| str::strip_prefix(parameter, name));
    let mut values = query.split('&').filter_map(value).map(str::as_bytes);
    let header = header.filter(|header| !header.is_empty());
    let value = header.or_else(|| values.find(|value| !value.is_empty()));
    value.map_or_else(LastEventId::none, LastEventId::from_bytes)
}

/// Reads everything. Fails if the stream needs more than [`MAX_POLLS`] polls.
fn read_all(stream: &mut Subscription) -> String {
    let mut text = String::new();
    for _ in 0..MAX_POLLS {
        match poll(stream) {
            None => return text,
            Some(item) => {
                text += std::str::from_utf8(&item.expect("the stream does not end")).unwrap();
            }
        }
    }
    panic!("the stream has more items than events: {text}");
}

/// Returns the events of the application. Fails if an event is not for the client.
fn events_for(tab: &Tab, text: &str) -> Vec<Frame> {
    let topics = tab.list("topics").unwrap_or_default();
    let events = frames(text).into_iter().filter(|frame| !frame.is_of_hub());
    events
        .inspect(|frame| {
            assert!(tab.admits(&frame.event), "not selected: {frame:?}");
            let data = frame.data.as_str();
            assert!(data == "last" || topics.contains(data), "not followed: {frame:?}");
        })
        .collect()
}

/// Connects a client for each request, and checks each answer. Returns the number of streams and
/// the causes of the refusals.
fn run(requests: &[(Option<Vec<u8>>, String)]) -> (usize, BTreeSet<&'static str>) {
    let (hub, newest) = full_hub();
    let mut streams: Vec<(Tab, Subscription)> = Vec::new();
    let mut refused = BTreeSet::new();
    let mut refusals = 0;
    for (header, query) in requests {
        let mut query = query.replace(EPOCH, &newest.epoch().to_string());
        if let Some((_, stream)) = streams.last() {
            query = query.replace(CLIENT, &stream.client_id().to_string());
        }
        let header = header.as_ref().map(|header| match std::str::from_utf8(header) {
            Ok(text) => text.replace(EPOCH, &newest.epoch().to_string()).into_bytes(),
            Err(_) => header.clone(),
        });
        let last = LastEventId::from_parts(header.as_deref(), &query);
        assert_eq!(last, last_of(header.as_deref(), &query));
        let tab = Tab::parse(&query);
        // The parser of this file must agree with the parser of the demo.
        if let Ok(uri) = format!("/events?{query}").parse::<Uri>() {
            let query = uri.query().unwrap_or_default();
            let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri).unwrap();
            assert_eq!(Tab::parse(query).0, pairs);
        }
        let causes = tab.causes();
        match hub.subscribe(tab.subscriber(last)) {
            Ok(mut stream) => {
                assert!(causes.is_empty(), "expected a refusal: {causes:?}");
                let text = read_all(&mut stream);
                assert_eq!(frames(&text)[0].event, "hub:open");
                let is_unknown = !last.is_first_connection() && last.id().is_none();
                if is_unknown {
                    assert_eq!(gaps(&text), ["unknown"]);
                }
                let replayed = events_for(&tab, &text);
                if is_unknown || last.is_first_connection() {
                    assert_eq!(replayed, [], "nothing precedes the connection");
                }
                streams.push((tab, stream));
            }
            Err(error) => {
                let cause = error.cause();
                assert!(causes.contains(cause.as_str()), "{cause}, and not one of {causes:?}");
                assert!(!error.is_temporary(), "{cause}");
                match cause {
                    RefusedCause::TooManyTopics { limit } => assert_eq!(limit, MAX_TOPICS),
                    RefusedCause::TooManyEventTypes { limit } => assert_eq!(limit, MAX_TYPES),
                    RefusedCause::EventTypeTooLong { len, limit } => assert!(len > limit),
                    _ => {}
                }
                refused.insert(cause.as_str());
                refusals += 1;
            }
        }
    }

    // Later requests may have taken over the id of a client with the same user and session.
    hub.broadcast(Event::default().data("last")).unwrap();
    for (tab, stream) in &mut streams {
        let mut text = String::new();
        while let Some(Some(item)) = poll(stream) {
            text += std::str::from_utf8(&item).unwrap();
        }
        let is_displaced = frames(&text).iter().any(|frame| frame.event == "hub:end");
        let events = events_for(tab, &text);
        assert_eq!(events.len(), usize::from(tab.admits("message") && !is_displaced));
    }

    let opened = streams.len();
    drop(streams);
    let stats = hub.stats();
    assert_eq!((stats.clients, stats.client_names), (0, 0));
    assert_eq!(hub.clients(Audience::all()), []);
    assert_eq!(stats.opened, opened as u64);
    let ended = stats.ended(EndReason::Left) + stats.ended(EndReason::Displaced);
    assert_eq!((opened + refusals, ended), (requests.len(), opened as u64));
    (opened, refused)
}

/// A part of a value: text, separators, escapes of any byte, broken escapes, and names that the hub
/// knows.
fn part() -> impl Strategy<Value = String> {
    let escape = any::<u8>().prop_map(|byte| format!("%{byte:02x}"));
    const SPECIAL: [&str; 12] =
        ["%00", "%0d%0a", "%0A", "%ff", "%c3%28", "%", "%4", "%zz", "+", ",", "=", "\0"];
    const KNOWN: [&str; 8] =
        ["orders", "a+b", "a%20b", "%ef%bf%bd", "order", "alert", "message", "hub:open"];
    prop_oneof![
        3 => select(&KNOWN[..]).prop_map(String::from),
        2 => Just(String::from(",")),
        2 => escape,
        2 => select(&SPECIAL[..]).prop_map(String::from),
        1 => any::<String>(),
        1 => "[a-z]{0,8}",
    ]
}

/// A list of numbers. Some lists have more different names, or longer names, than the limits allow.
fn list() -> impl Strategy<Value = String> {
    let count = prop_oneof![4 => 0..2 * MAX_TOPICS, 1 => 0..5_000usize];
    (count, 1..200usize, prop_oneof![8 => Just(1), 1 => 0..2 * MAX_LEN]).prop_map(
        |(count, different, len)| {
            let names = (0..count).map(|number| format!("{:0len$}", number % (different * 8)));
            names.collect::<Vec<_>>().join(",")
        },
    )
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => vec(part(), 0..8).prop_map(|parts| parts.concat()),
        3 => list(),
        1 => (0..2 * MAX_LEN).prop_map(|len| "x".repeat(len)),
        1 => (0..2 * MAX_LEN).prop_map(|len| "%00".repeat(len)),
        1 => "[0-9]{1,21}-[0-9]{1,21}",
        2 => (0..3 * RETAINED).prop_map(|seq| format!("{EPOCH}-{seq}")),
        1 => Just(String::from(CLIENT)),
        1 => "[0-9a-f]{32}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    const NAMES: [&str; 10] = [
        "user",
        "session",
        "client",
        "topics",
        "events",
        "lastEventId",
        "last_event_id",
        "last-event-id",
        "t%6fpics",
        "",
    ];
    let name = prop_oneof![8 => select(&NAMES[..]).prop_map(String::from), 1 => part()];
    let random = (name, value(), any::<bool>()).prop_map(|(name, value, has_value)| {
        if has_value || !value.is_empty() { format!("{name}={value}") } else { name }
    });
    // A client that returns, with the parameters of the client library.
    let position = (0..3 * RETAINED).prop_map(|seq| format!("lastEventId={EPOCH}-{seq}"));
    let identity = Just(format!("client={CLIENT}"));
    let topics = Just(String::from("topics=orders,a+b,%ef%bf%bd"));
    let parameter = prop_oneof![6 => random, 1 => position, 1 => identity, 1 => topics];
    prop_oneof![
        9 => vec(parameter, 0..8).prop_map(|parameters| parameters.join("&")),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_query_gets_a_refusal_or_a_valid_stream(
        requests in vec((proptest::option::of(vec(any::<u8>(), 0..48)), query()), 1..6),
    ) {
        run(&requests);
    }
}

/// Parts of queries that random bytes do not find. A byte of 0x80 and above stands for a part.
const WORDS: [&str; 24] = [
    "user=",
    "session=",
    "client=CLIENT",
    "topics=",
    "events=",
    "lastEventId=",
    "last_event_id=",
    "last-event-id=",
    "EPOCH-",
    "EPOCH-12",
    "orders",
    "a+b",
    "%ef%bf%bd",
    "order",
    "alert",
    "message",
    "hub:open",
    "18446744073709551615",
    "%00",
    "%0d%0a",
    "%ff",
    "00112233445566778899aabbccddeeff",
    "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// Reads requests from bytes: 0xFF ends a request, and 0xFE ends the header of a request.
fn requests(script: &[u8]) -> Vec<(Option<Vec<u8>>, String)> {
    let expand = |bytes: &[u8]| {
        let word = |byte: &u8| WORDS.get(usize::from(*byte).wrapping_sub(0x80));
        let part = |byte| word(byte).map_or_else(|| slice::from_ref(byte), |word| word.as_bytes());
        bytes.iter().flat_map(part).copied().collect::<Vec<u8>>()
    };
    let request = |bytes: &[u8]| {
        let mut parts = bytes.rsplitn(2, |&byte| byte == 0xFE).map(expand);
        let query = parts.next().unwrap_or_default();
        (parts.next(), String::from_utf8_lossy(&query).into_owned())
    };
    script.split(|&byte| byte == 0xFF).take(6).map(request).collect()
}

#[test]
fn any_bytes_get_a_refusal_or_a_valid_stream() {
    bolero::check!().for_each(|script: &[u8]| {
        run(&requests(script));
    });
}

#[test]
fn each_limit_refuses_with_its_cause() {
    let numbers = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let long = "x".repeat(MAX_LEN + 1);
    let admitted = [
        String::new(),
        "topics=,,,&events=%2c".into(),
        format!("topics={}&events={}", numbers(MAX_TOPICS), numbers(MAX_TYPES)),
        // A repeated name counts once, and of repeated parameters the last.
        format!("topics={}", "orders,".repeat(30_000)),
        format!("topics={}&topics=orders", numbers(30_000)),
        format!("user={long}&user=%00%0d%0a%ff&topics=%ff"),
        format!("user={}", "%c3%a9".repeat(MAX_LEN / 2)),
    ];
    let requests: Vec<_> = admitted.into_iter().map(|query| (None, query)).collect();
    assert_eq!(run(&requests), (requests.len(), BTreeSet::new()));

    let refused = [
        ("topics", format!("topics={}", numbers(30_000))),
        ("topics", format!("topics={}", numbers(MAX_TOPICS + 1))),
        ("event-types", format!("events={}", numbers(10_000))),
        ("event-types", format!("events={}", numbers(MAX_TYPES + 1))),
        ("event-type-length", format!("events={long}")),
        ("name", format!("user={long}")),
        ("name", format!("session={}", "%ff".repeat(MAX_LEN))),
        ("name", format!("topics=a,{long}")),
    ];
    for (cause, query) in refused {
        assert_eq!(run(&[(None, query)]), (0, BTreeSet::from([cause])));
    }
}

#[test]
fn resumed_query_replays_only_selected_events() {
    let (hub, head) = full_hub();
    let query = format!(
        "topics=orders,%ff&events=order&lastEventId={}-{}",
        head.epoch(),
        head.seq() - RETAINED as u64,
    );
    let tab = Tab::parse(&query);
    let mut stream = hub.subscribe(tab.subscriber(LastEventId::from_parts(None, &query))).unwrap();
    let replayed = events_for(&tab, &read_all(&mut stream));
    // Events 8 to 15 are retained. Even events are orders, and every third event has the topic.
    let data: Vec<&str> = replayed.iter().map(|frame| frame.data.as_str()).collect();
    assert_eq!(data, ["\u{fffd}", "orders", "\u{fffd}"]);
}
