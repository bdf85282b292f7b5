//! The wire format, byte for byte and parsed back.
//!
//! The tests `a1_` to `a9_` check the rules A1 to A9 of the wire format. Then follow the texts of
//! ids, and JSON. Last, random events with awkward characters in every field are published, and
//! three independent parsers read the stream: the parser in this file, written from the WHATWG HTML
//! standard, section 9.2.6, and the crates `eventsource-stream` and `sse-stream`. All tests use the
//! public API.

use std::convert::Infallible;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::Eventsource as _;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sse_hub::{
    Audience, ClientId, Event, EventError, EventId, EventType, Hub, HubBuilder, InvalidEventType,
    LastEventId, ManualTimer, ParseEventIdError, PublishError, Subscriber, Subscription,
};
use sse_stream::SseByteStream;

/// A hub with a single client. The stream was read up to `hub:open`.
struct Wire {
    hub: Hub,
    stream: Subscription,
    open: Bytes,
}

impl Wire {
    fn new() -> Self {
        Self::of(Hub::builder(ManualTimer::new()))
    }

    fn of(builder: HubBuilder) -> Self {
        let hub = builder.build().expect("the settings are valid");
        let mut stream = hub.subscribe(Subscriber::new()).expect("an open hub accepts clients");
        let open = next(&mut stream).expect("`hub:open` is available at once");
        Self { hub, stream, open }
    }

    /// Publishes an event and reads its frame.
    fn frame(&mut self, event: Event) -> Result<(EventId, String), PublishError> {
        let published = self.hub.publish_confirmed(Audience::all(), event);
        let frame = next(&mut self.stream).map(text);
        match published {
            Ok(receipt) => {
                Ok((receipt.id().unwrap(), frame.expect("a published event must arrive")))
            }
            Err(error) => {
                assert_eq!(frame, None, "a refused event must send nothing");
                Err(error)
            }
        }
    }
}

/// Returns the next item of a stream, if an item is ready.
fn next(stream: &mut Subscription) -> Option<Bytes> {
    stream.next().now_or_never().flatten()
}

fn text(bytes: Bytes) -> String {
    String::from_utf8(bytes.into()).expect("the stream is UTF-8")
}

/// Returns the frame of an event without the last field, which must be the published id.
#[track_caller]
fn fields(event: Event) -> String {
    let (id, frame) = Wire::new().frame(event).expect("the event is valid");
    let fields = frame.strip_suffix(&format!("id: {id}\n\n"));
    fields.unwrap_or_else(|| panic!("the id must be last: {frame:?}")).to_owned()
}

/// Returns the error with which `check` and the hub refuse an event.
#[track_caller]
fn refusal(event: Event) -> EventError {
    let checked = event.check().expect_err("`check` must find the error that `publish` reports");
    let mut wire = Wire::new();
    let error = wire.frame(event).expect_err("the event is invalid");
    assert_eq!(error, PublishError::Event(checked));
    assert_eq!((wire.hub.stats().published, wire.hub.stats().retained), (0, 0));
    checked
}

fn data(data: &str) -> Event {
    Event::default().data(data)
}

fn one_ms() -> Duration {
    Duration::from_millis(1)
}

#[test]
fn a1_lines_end_in_lf_alone() {
    let event = Event::new("t").data("a\r\nb\rc\nd\r").comment("c").retry(one_ms());
    let frame = fields(event);
    assert!(!frame.contains('\r'), "{frame:?}");
}

#[test]
fn a1_a_stream_adds_no_bom() {
    let mut wire = Wire::new();
    assert!(wire.open.starts_with(b"event: hub:open\n"));
    assert!(!text(wire.open.clone()).contains('\u{FEFF}'));
    let (id, frame) = wire.frame(data("\u{FEFF}a")).unwrap();
    assert_eq!(frame, format!("data: \u{FEFF}a\nid: {id}\n\n"));
    assert_eq!(fields(Event::new("\u{FEFF}").data("")), "event: \u{FEFF}\ndata: \n");
}

#[test]
fn a2_each_line_end_starts_a_data_line() {
    for line_end in ["\n", "\r", "\r\n"] {
        let event = data(&["a", "b", "c"].join(line_end));
        assert_eq!(fields(event), "data: a\ndata: b\ndata: c\n", "{line_end:?}");
    }
}

#[test]
fn a2_mixed_line_ends_are_distinguished() {
    assert_eq!(fields(data("a\n\rb")), "data: a\ndata: \ndata: b\n");
    assert_eq!(fields(data("a\r\r\nb")), "data: a\ndata: \ndata: b\n");
    assert_eq!(fields(data("a\r\n\nb")), "data: a\ndata: \ndata: b\n");
    assert_eq!(fields(data("\r\n\r\n")), "data: \ndata: \ndata: \n");
}

/// Data is searched for line ends in pieces of 16 KiB.
#[test]
fn a2_a_late_line_end_splits_long_data() {
    const PIECE: usize = 16 << 10;

    for len in [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 7] {
        let line = "a".repeat(len);
        for end in ["\n", "\r", "\r\n"] {
            let lines = fields(data(&format!("{line}{end}b")));
            assert!(lines == fields(data(&line)) + &fields(data("b")), "{end:?} after {len} bytes");
        }
    }
}

#[test]
fn a2_no_other_character_starts_a_line() {
    let all = "\u{2028}\u{2029}\u{85}\u{B}\u{C}\0\u{1C}\u{1E}";
    assert_eq!(fields(data(all)), format!("data: {all}\n"));
}

#[test]
fn a2_field_like_text_stays_data() {
    assert_eq!(
        fields(data("a\rid: 9\n\nevent: b")),
        "data: a\ndata: id: 9\ndata: \ndata: event: b\n"
    );
}

#[test]
fn a3_leading_and_trailing_spaces_are_kept() {
    assert_eq!(fields(data("  a ")), "data:   a \n");
    assert_eq!(fields(data("a\n b")), "data: a\ndata:  b\n");
    assert_eq!(fields(Event::new(" a").data("").comment(" c")), "event:  a\ndata: \n:  c\n");
}

#[test]
fn a4_empty_data_is_an_event() {
    assert_eq!(fields(data("")), "data: \n");
    assert_eq!(fields(Event::new("t").data("")), "event: t\ndata: \n");
}

#[test]
fn a4_type_without_data_is_an_event() {
    assert_eq!(fields(Event::new("t")), "event: t\ndata: \n");
    assert_eq!(
        fields(Event::new("t").retry(one_ms()).comment("c")),
        "event: t\ndata: \nretry: 1\n: c\n"
    );
}

#[test]
fn a4_trailing_newlines_are_kept() {
    for newlines in [1, 2, 3, 10_000] {
        let event = data(&format!("a{}", "\n".repeat(newlines)));
        assert_eq!(fields(event), format!("data: a\n{}", "data: \n".repeat(newlines)));
        assert_eq!(fields(data(&"\n".repeat(newlines))), "data: \n".repeat(newlines + 1));
    }
}

#[test]
fn a5_type_with_cr_lf_nul_is_refused() {
    for byte in ["\r", "\n", "\r\n", "\0"] {
        for name in [format!("{byte}a"), format!("a{byte}b"), format!("a{byte}")] {
            let error = EventError::Type(InvalidEventType::Byte);
            assert_eq!(refusal(Event::new(&name).data("a")), error, "{name:?}");
            assert_eq!(refusal(data("a").event(&name)), error, "{name:?}");
            assert_eq!(EventType::new(name), Err(InvalidEventType::Byte));
        }
    }
}

#[test]
fn a5_a_star_is_a_type_like_any_other() {
    assert_eq!(fields(Event::new("*").data("a")), "event: *\ndata: a\n");
    assert_eq!(EventType::new("*").unwrap().as_str(), "*");
    let hub = Wire::new().hub;
    let received = |filter: Option<&str>, event_type: &str| {
        let who = Subscriber::new();
        let who = if let Some(only) = filter { who.event_types([only]) } else { who };
        let mut stream = hub.subscribe(who).unwrap();
        next(&mut stream).expect("`hub:open` is ready at once");
        hub.broadcast(Event::new(event_type)).unwrap();
        let event = next(&mut stream);
        assert_eq!(next(&mut stream), None, "an event arrives once");
        event.is_some()
    };
    assert!(received(None, "*") && received(Some("*"), "*"));
    assert!(!received(Some("*"), "other"), "a filter has no wildcard");
    assert!(!received(Some("other"), "*"));
}

#[test]
fn a5_an_empty_type_is_refused() {
    assert_eq!(refusal(Event::new("").data("a")), EventError::Type(InvalidEventType::Empty));
    assert_eq!(EventType::new(""), Err(InvalidEventType::Empty));
}

#[test]
fn a5_a_type_has_at_most_256_bytes() {
    // Short types, and the limits.
    for len in [1, 31, 32, 33, 255, 256] {
        let name = "t".repeat(len);
        assert_eq!(fields(Event::new(&name).data("a")), format!("event: {name}\ndata: a\n"));
        assert_eq!(EventType::new(name.clone()).unwrap().as_str(), name);
    }
    for name in ["t".repeat(257), "é".repeat(129)] {
        assert_eq!(refusal(Event::new(&name)), EventError::Type(InvalidEventType::TooLong));
        assert_eq!(EventType::new(name), Err(InvalidEventType::TooLong));
    }
}

#[test]
fn a5_a_reserved_type_is_refused() {
    for name in ["hub:", "hub:open", "hub:gap", "hub:mine"] {
        assert_eq!(refusal(Event::new(name)), EventError::Type(InvalidEventType::Reserved));
        assert_eq!(EventType::new(name), Err(InvalidEventType::Reserved));
    }
    for name in ["hub", "hubs:open", " hub:open", "a hub:open"] {
        assert_eq!(fields(Event::new(name)), format!("event: {name}\ndata: \n"));
    }
}

#[test]
fn a5_comment_with_cr_or_lf_is_refused() {
    for comment in ["\r", "\n", "\r\n", "a\nb", "a\rb", "a\n", "\ra"] {
        assert_eq!(refusal(data("a").comment(comment)), EventError::Comment, "{comment:?}");
        assert_eq!(refusal(Event::default().comment(comment)), EventError::Comment);
    }
}

#[test]
fn a5_comment_is_one_line() {
    assert_eq!(fields(data("a").comment("b: c\u{2028}")), "data: a\n: b: c\u{2028}\n");
    assert_eq!(fields(Event::default().comment("only")), ": only\n");
    assert_eq!(fields(Event::default().comment("")), ": \n");
}

#[test]
fn a5_the_first_error_is_kept() {
    let error = EventError::Type(InvalidEventType::Byte);
    assert_eq!(refusal(Event::new("a\nb").comment("\n").event("ok").data("a")), error);
    assert_eq!(refusal(data("a").comment("\n").event("").comment("ok")), EventError::Comment);
    let unhealed = data("a").retry(Duration::ZERO).retry(one_ms());
    assert_eq!(refusal(unhealed), EventError::Retry);
}

#[test]
fn a5_an_empty_event_is_refused() {
    assert_eq!(refusal(Event::default()), EventError::Empty);
    assert_eq!(refusal(Event::default().conflate("key")), EventError::Empty);
}

#[test]
fn a6_ids_have_two_numbers_and_increase() {
    let mut wire = Wire::new();
    let mut last = EventId::new(0, 0);
    for _ in 0..1000 {
        let (id, frame) = wire.frame(data("a")).unwrap();
        let written = frame.strip_prefix("data: a\nid: ").unwrap().strip_suffix("\n\n").unwrap();
        let (epoch, count) = written.split_once('-').unwrap();
        assert!([epoch, count].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())));
        assert_eq!(written.parse(), Ok(id));
        assert!(id > last, "{id} after {last}");
        last = id;
    }
}

/// Publishes `count` events and returns the id of the last event.
fn publish(hub: &Hub, count: usize) -> EventId {
    let ids = (0..count)
        .map(|_| hub.publish_confirmed(Audience::all(), data("a")).unwrap().id().unwrap());
    ids.max().expect("at least one event")
}

#[test]
fn hubs_of_one_moment_refuse_foreign_ids() {
    let resumes = |hub: &Hub, id| hub.subscribe(Subscriber::new().resume(id)).unwrap().is_resumed();
    for _ in 0..200 {
        let [first, second] = [Wire::new().hub, Wire::new().hub];
        // With equal epochs, 3 would be a valid position among 9.
        let (few, many) = (publish(&first, 3), publish(&second, 9));
        assert!(!resumes(&second, few), "the second hub accepted {few}, at {many}");
        assert!(!resumes(&first, many), "the first hub accepted {many}, at {few}");
        assert!(resumes(&first, few) && resumes(&second, many));
    }
}

#[test]
fn ids_increase_over_restarts() {
    let mut last = EventId::new(0, 0);
    for _ in 0..200 {
        let id = publish(&Wire::new().hub, 3);
        assert!(id > last, "{id} after {last}");
        last = id;
    }
}

#[test]
fn a7_retry_is_in_milliseconds() {
    for (retry, digits) in [
        (Duration::from_millis(1), "1"),
        (Duration::from_micros(1_999), "1"),
        (Duration::from_millis(1_005), "1005"),
        (Duration::from_secs(3), "3000"),
        (Duration::from_secs(3600), "3600000"),
        (Duration::from_millis((1 << 31) - 1), "2147483647"),
    ] {
        assert_eq!(fields(data("a").retry(retry)), format!("data: a\nretry: {digits}\n"));
        assert_eq!(fields(Event::default().retry(retry)), format!("retry: {digits}\n"));
    }
}

#[test]
fn a7_a_retry_out_of_range_is_refused() {
    let too_short = [Duration::ZERO, Duration::from_nanos(1), Duration::from_nanos(999_999)];
    for retry in too_short.into_iter().chain([Duration::from_millis(1 << 31), Duration::MAX]) {
        assert_eq!(refusal(data("a").retry(retry)), EventError::Retry);
        assert_eq!(refusal(Event::default().retry(retry)), EventError::Retry);
    }
}

#[test]
fn a8_id_is_the_last_field() {
    let mut wire = Wire::new();
    let event = Event::new("t").data("a").retry(one_ms()).comment("c");
    let (id, frame) = wire.frame(event).unwrap();
    assert_eq!(frame, format!("event: t\ndata: a\nretry: 1\n: c\nid: {id}\n\n"));
}

#[test]
fn a8_hub_events_end_with_the_id() {
    let wire = Wire::new();
    let open = text(wire.open);
    let retry = read(open.as_bytes()).retries[0];
    let client = wire.stream.client_id();
    let id = read(open.as_bytes()).last_event_id;
    let data = format!(r#"{{"client":"{client}","resumed":false,"heartbeat":15000}}"#);
    assert_eq!(open, format!("event: hub:open\nretry: {retry}\ndata: {data}\nid: {id}\n\n"));

    let mut lost = wire.hub.subscribe(Subscriber::new().resume("no id")).unwrap();
    let open = text(next(&mut lost).unwrap());
    let gap = format!("\n\nevent: hub:gap\ndata: {{\"reason\":\"unknown\"}}\nid: {id}\n\n");
    assert!(open.ends_with(&gap), "{open:?}");
}

#[test]
fn a9_every_item_ends_at_a_frame_boundary() {
    // One event per item, all events in one item, and a window that is smaller than the backlog.
    for (window, batch) in [(64, 1), (64, 64 << 10), (64, 70), (1, 1), (1, 64 << 10)] {
        let mut wire =
            Wire::of(Hub::builder(ManualTimer::new()).window(window).max_batch_bytes(batch));
        let frames: String = (0..50)
            .map(|n| {
                let event = Event::new("t").data(format!("{n}\n\n"));
                let id = wire.hub.publish_confirmed(Audience::all(), event).unwrap().id().unwrap();
                format!("event: t\ndata: {n}\ndata: \ndata: \nid: {id}\n\n")
            })
            .collect();
        wire.hub.close();
        let mut received = String::new();
        while let Some(Some(item)) = wire.stream.next().now_or_never() {
            received += &text(item);
            assert!(received.ends_with("\n\n") && frames.starts_with(&received), "{received:?}");
        }
        assert_eq!(received, frames);
        assert_eq!(wire.stream.next().now_or_never(), Some(None), "the stream has ended");
    }
}

#[test]
fn setter_called_twice_replaces() {
    let long = "t".repeat(100);
    assert_eq!(fields(data("a\nb").data("c")), "data: c\n");
    assert_eq!(fields(data("c").data("a\nb")), "data: a\ndata: b\n");
    assert_eq!(fields(Event::new("t").data("a").data("")), "event: t\ndata: \n");
    assert_eq!(fields(Event::new(&long).event("t")), "event: t\ndata: \n");
    assert_eq!(fields(Event::new("t").data("a\nb").event("u")), "event: u\ndata: a\ndata: b\n");
    assert_eq!(fields(Event::new(&long).data("a").event("u")), "event: u\ndata: a\n");
    assert_eq!(fields(Event::new("u").data("a").event(&long)), format!("event: {long}\ndata: a\n"));
    assert_eq!(
        fields(data("a").retry(Duration::from_secs(9)).retry(one_ms())),
        "data: a\nretry: 1\n"
    );
    assert_eq!(fields(data("a").comment("b").comment("c")), "data: a\n: c\n");
}

#[test]
fn order_of_setters_does_not_matter() {
    for (name, text) in [("t", "a"), ("t", "a\r\nb\n"), (&"t".repeat(256), ""), ("é", "\n")] {
        let usual = fields(Event::new(name).data(text).retry(one_ms()).comment("c"));
        let reversed = Event::default().comment("c").retry(one_ms()).data(text).event(name);
        assert_eq!(fields(reversed), usual);
        assert_eq!(fields(data(text).event(name)), fields(Event::new(name).data(text)));
    }
}

#[test]
fn a_clone_is_independent() {
    let event = Event::new("t").data("a\nb");
    let other = event.clone().event("u").comment("c");
    assert_eq!(fields(other), "event: u\ndata: a\ndata: b\n: c\n");
    assert_eq!(fields(event), "event: t\ndata: a\ndata: b\n");
}

/// Parses an id with the parser of the standard library, and accepts only the form that a hub
/// writes.
fn canonical(bytes: &[u8]) -> Option<EventId> {
    let (a, b) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
    let id = EventId::new(a.parse().ok()?, b.parse().ok()?);
    (format!("{}-{}", id.epoch(), id.seq()).as_bytes() == bytes).then_some(id)
}

#[test]
fn only_the_form_of_a_hub_is_an_id() {
    let max = u64::MAX;
    for (text, id) in [
        ("0-0".into(), EventId::new(0, 0)),
        ("1763-12".into(), EventId::new(1763, 12)),
        ("10-100".into(), EventId::new(10, 100)),
        (format!("{max}-{max}"), EventId::new(max, max)),
    ] {
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(LastEventId::from_bytes(text.as_bytes()), LastEventId::from(id));
    }
    let garbage =
        "- -1 1- 1 11 1-2-3 1--2 -1-2 01-2 1-02 00-0 0-00 +1-2 1-+2 1_0-2 0x1-2 1.0-2 １-2 $ *";
    let spaced = [" 1-2", "1-2 ", "1 -2", "1- 2", "1-2\n", "1-2\0", "\t1-2", "\u{FEFF}1-2"];
    let overflowing = ["18446744073709551616-0", "0-18446744073709551616"];
    let long = ["99999999999999999999-0", "100000000000000000000-0", "0-100000000000000000000"];
    for text in garbage.split(' ').chain(spaced).chain(overflowing).chain(long) {
        assert!(text.parse::<EventId>().is_err(), "{text:?}");
        let last = LastEventId::from_bytes(text.as_bytes());
        assert!(!last.is_first_connection() && last.id().is_none(), "{text:?}");
        assert_ne!(last, LastEventId::none(), "{text:?}");
    }
    assert!("".parse::<EventId>().is_err());
}

#[test]
fn an_empty_last_event_id_is_a_first_connection() {
    assert_eq!(LastEventId::from_bytes(b""), LastEventId::none());
    assert!(LastEventId::none().is_first_connection());
    for byte in *b"0 9-\xFF\0" {
        let last = LastEventId::from_bytes(&vec![byte; 64 << 10]);
        assert!(!last.is_first_connection() && last.id().is_none());
    }
}

#[test]
fn written_client_id_parses() {
    let client = Wire::new().stream.client_id();
    let text = client.to_string();
    assert!(text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(text.parse(), Ok(client));
}

#[test]
fn a_client_id_has_32_hexadecimal_digits() {
    let digits = "00112233445566778899aabbccddeeff";
    assert_eq!(digits.parse::<ClientId>().unwrap().to_string(), digits);
    let with = |character: &str| digits.replacen("00", character, 1);
    for garbage in [
        String::new(),
        digits[1..].to_owned(),
        format!("{digits}0"),
        digits.to_uppercase(),
        with("+0"),
        with("-0"),
        with("0x"),
        with(" 0"),
        with("0g"),
        with("é"),
        with("\0\0"),
    ] {
        assert!(garbage.parse::<ClientId>().is_err(), "{garbage:?}");
    }
}

#[cfg(feature = "json")]
mod json {
    use std::collections::BTreeMap;

    use serde::Serialize;
    use serde_json::value::RawValue;
    use sse_hub::Payload;

    use super::*;

    #[derive(Serialize)]
    struct Notification {
        title: &'static str,
    }

    impl Payload for Notification {
        const TYPE: EventType = EventType::from_static("notification");
    }

    const TWO_LINES: Notification = Notification { title: "a\r\nb\u{2028}" };

    #[test]
    fn json_is_one_line_of_data() {
        let event = Event::new("t").json(&TWO_LINES).unwrap();
        assert_eq!(fields(event), "event: t\ndata: {\"title\":\"a\\r\\nb\u{2028}\"}\n");
    }

    #[test]
    fn json_beyond_the_first_buffer_is_whole() {
        let text = "x\n".repeat(5_000);
        let event = Event::new("t").json(&text).unwrap();
        assert_eq!(fields(event), format!("event: t\ndata: \"{}\"\n", "x\\n".repeat(5_000)));
    }

    #[test]
    fn payload_is_sent_under_its_type() {
        let event = Event::from_payload(&TWO_LINES).unwrap();
        assert_eq!(fields(event), "event: notification\ndata: {\"title\":\"a\\r\\nb\u{2028}\"}\n");
    }

    #[test]
    fn json_and_data_replace_each_other() {
        assert_eq!(fields(data("a\nb").json(&1).unwrap()), "data: 1\n");
        assert_eq!(fields(Event::default().json(&1).unwrap().data("a\nb")), "data: a\ndata: b\n");
        let event = Event::new("t").json(&1).unwrap().event("u").json(&2).unwrap();
        assert_eq!(fields(event), "event: u\ndata: 2\n");
    }

    #[test]
    fn an_unserialisable_value_is_an_error() {
        let keys_are_lists = BTreeMap::from([(vec![1], 2)]);
        let error = Event::new("t").json(&keys_are_lists).unwrap_err();
        assert_eq!(error.to_string(), "the payload does not serialise to JSON");
        assert!(std::error::Error::source(&error).is_some());
        // The first half of the value is valid.
        assert!(Event::new("t").json(&("half", keys_are_lists)).is_err());
    }

    #[test]
    fn raw_json_keeps_its_lines() {
        let raw = RawValue::from_string("[1,\n2,\r\n3,\r4]".into()).unwrap();
        let lines = "data: [1,\ndata: 2,\ndata: 3,\ndata: 4]\n";
        assert_eq!(fields(Event::default().json(&raw).unwrap()), lines);
        let event = Event::new("t").json(&raw).unwrap();
        assert_eq!(fields(event.clone()), format!("event: t\n{lines}"));
        assert_eq!(fields(event.event("u")), format!("event: u\n{lines}"));
    }
}

/// An event as a browser dispatches it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    event_type: String,
    data: String,
    last_event_id: String,
}

impl Message {
    fn new(event_type: &str, data: &str, last_event_id: &str) -> Self {
        let [event_type, data, last_event_id] = [event_type, data, last_event_id].map(Into::into);
        Self { event_type, data, last_event_id }
    }
}

/// The content of a stream, as a parser reads it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    messages: Vec<Message>,
    /// The comments, which a browser skips.
    comments: Vec<String>,
    retries: Vec<u128>,
    last_event_id: String,
}

/// Parses a stream according to section 9.2.6 of the WHATWG HTML standard.
fn read(stream: &[u8]) -> Read {
    // "UTF-8 decode" removes one BOM and replaces invalid bytes.
    let text = String::from_utf8_lossy(stream);
    let mut rest = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let mut read = Read::default();
    let (mut data, mut event_type, mut last_event_id) =
        (String::new(), String::new(), String::new());
    // Text after the last line end is not a line: "any pending data must be discarded".
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        let line_end = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + line_end..];
        if line.is_empty() {
            read.last_event_id.clone_from(&last_event_id);
            let event_type = mem::take(&mut event_type);
            if let Some(data) = mem::take(&mut data).strip_suffix('\n') {
                let event_type = if event_type.is_empty() { "message" } else { &event_type };
                read.messages.push(Message::new(event_type, data, &last_event_id));
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => read.comments.push(value.into()),
            "event" => event_type = value.into(),
            "data" => data += &format!("{value}\n"),
            "id" if !value.contains('\0') => last_event_id = value.into(),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                read.retries.extend(value.parse::<u128>());
            }
            _ => {}
        }
    }
    read
}

#[test]
fn reference_parser_reads_the_standard_examples() {
    let of = |stream: &str| read(stream.as_bytes()).messages;
    assert_eq!(
        of("data: YHOO\ndata: +2\ndata: 10\n\n"),
        [Message::new("message", "YHOO\n+2\n10", "")]
    );
    assert_eq!(
        of(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
        ),
        [
            Message::new("message", "first event", "1"),
            Message::new("message", "second event", ""),
            Message::new("message", " third event", ""),
        ]
    );
    assert_eq!(
        of("data\n\ndata\ndata\n\ndata:"),
        [Message::new("message", "", ""), Message::new("message", "\n", "")]
    );
    assert_eq!(
        of("data:test\n\ndata: test\n\n"),
        [Message::new("message", "test", ""), Message::new("message", "test", "")]
    );
    assert_eq!(
        of("event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n"),
        [Message::new("add", "73857293", ""), Message::new("remove", "2153", "")]
    );
}

#[test]
fn reference_parser_knows_all_line_ends() {
    for line_end in ["\n", "\r", "\r\n"] {
        let stream = "event: t\ndata: a\ndata: b\nid: 1\n\ndata: c\n\n".replace('\n', line_end);
        let expected = [Message::new("t", "a\nb", "1"), Message::new("message", "c", "1")];
        assert_eq!(read(stream.as_bytes()).messages, expected, "{line_end:?}");
    }
    let mixed = read(b"data: a\r\ndata: b\n\r\ndata: c\r\r\n").messages;
    assert_eq!(mixed, [Message::new("message", "a\nb", ""), Message::new("message", "c", "")]);
}

#[test]
fn reference_parser_skips_events_browsers_skip() {
    assert_eq!(read("\u{FEFF}data: a\n\n".as_bytes()).messages.len(), 1);
    assert_eq!(read("\u{FEFF}\u{FEFF}data: a\n\n".as_bytes()).messages.len(), 0);
    assert_eq!(read(b"data: a\n").messages, []);
    assert_eq!(read(b"event: t\n\ndata: a\n\n").messages, [Message::new("message", "a", "")]);
    assert_eq!(read(b"Data: a\ndata : a\n data: a\n\n").messages, []);
    assert_eq!(read(b"data: \xFF\n\n").messages, [Message::new("message", "\u{FFFD}", "")]);
    assert_eq!(read(b":a\n: b\n::c\n:\n").comments, ["a", "b", ":c", ""]);
    assert_eq!(read(b"retry: 10\nretry: 1x\nretry: -1\nretry:\nretry\nretry:7\n").retries, [10, 7]);
}

#[test]
fn the_parser_stores_an_id_at_the_blank_line() {
    let [without_data, with_nul, unfinished] =
        [&b"id: 1\n\n"[..], b"id: 1\n\nid: \x002\n\n", b"id: 1\n\nid: 2\n"].map(read);
    assert_eq!([without_data, with_nul, unfinished].map(|read| read.last_event_id), ["1"; 3]);
}

/// A call of a setter.
#[derive(Debug, Clone)]
enum Part {
    Type(String),
    Data(String),
    Comment(String),
    Retry(Duration),
}

impl Part {
    fn set(&self, event: Event) -> Event {
        match self {
            Self::Type(name) => event.event(name),
            Self::Data(data) => event.data(data),
            Self::Comment(comment) => event.comment(comment.as_str()),
            Self::Retry(retry) => event.retry(*retry),
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Type(name) => {
                (1..=256).contains(&name.len())
                    && !name.starts_with("hub:")
                    && !name.contains(['\r', '\n', '\0'])
            }
            Self::Data(_) => true,
            Self::Comment(comment) => !comment.contains(['\r', '\n']),
            Self::Retry(retry) => (one_ms()..Duration::from_millis(1 << 31)).contains(retry),
        }
    }

    /// Returns whether an error names this part.
    fn is_named_by(&self, error: EventError) -> bool {
        match self {
            Self::Type(_) => matches!(error, EventError::Type(_)),
            Self::Data(_) => false,
            Self::Comment(_) => error == EventError::Comment,
            Self::Retry(_) => error == EventError::Retry,
        }
    }
}

/// A published event, as a client must receive it.
#[derive(Debug, Default)]
struct Arrival {
    id: String,
    event_type: Option<String>,
    data: Option<String>,
    comment: Option<String>,
    retry: Option<u128>,
}

impl Arrival {
    fn of(parts: &[Part], id: EventId) -> Self {
        let mut arrival = Self { id: id.to_string(), ..Self::default() };
        for part in parts {
            match part.clone() {
                Part::Type(name) => arrival.event_type = Some(name),
                Part::Data(data) => {
                    arrival.data = Some(data.replace("\r\n", "\n").replace('\r', "\n"));
                }
                Part::Comment(comment) => arrival.comment = Some(comment),
                Part::Retry(retry) => arrival.retry = Some(retry.as_millis()),
            }
        }
        if arrival.event_type.is_some() {
            arrival.data.get_or_insert_default();
        }
        arrival
    }

    fn message(&self) -> Option<Message> {
        let event_type = self.event_type.as_deref().unwrap_or("message");
        self.data.as_ref().map(|data| Message::new(event_type, data, &self.id))
    }
}

/// Text of pieces that have a meaning to some parser.
fn awkward() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "\r", "\n", "\r\n", "\n\n", "\0", ":", " ", "\t", "\u{FEFF}", "\u{2028}", "\u{2029}",
        "\u{85}", "\u{B}", "\u{C}", "é", "語", "🦀", "e\u{301}", "id: 9", "data:", "event:",
        "retry: 1", "hub:", "a", "message",
    ];
    let piece = prop_oneof![6 => select(PIECES).prop_map(Into::into), 1 => any::<char>().prop_map(String::from)];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn one_line() -> impl Strategy<Value = String> {
    awkward().prop_map(|text| text.replace(['\r', '\n'], ""))
}

fn event_type() -> impl Strategy<Value = String> {
    let mostly_valid = one_line().prop_map(|text| format!("t{text}").replace('\0', ""));
    let led_by_anything = one_line().prop_map(|text| text.replace('\0', "") + "t");
    let long = (250..260usize).prop_map(|len| "t".repeat(len));
    prop_oneof![6 => mostly_valid, 6 => led_by_anything, 1 => long, 1 => awkward()]
}

fn retry() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1 => (0..2_000_000u64).prop_map(Duration::from_nanos),
        4 => (1..1u64 << 31).prop_map(Duration::from_millis),
        1 => any::<Duration>(),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let comment = prop_oneof![8 => one_line(), 1 => awkward()];
    let long = awkward().prop_map(|text| text.repeat(50));
    prop_oneof![
        4 => event_type().prop_map(Part::Type),
        6 => prop_oneof![8 => awkward(), 1 => long].prop_map(Part::Data),
        2 => comment.prop_map(Part::Comment),
        1 => retry().prop_map(Part::Retry),
    ]
}

/// Cuts a stream into pieces at any byte, as a network does.
fn pieces(stream: &Bytes, cuts: &[usize]) -> Vec<Result<Bytes, Infallible>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % stream.len()).collect();
    cuts.sort_unstable();
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([stream.len()]);
    starts.zip(ends).map(|(start, end)| Ok(stream.slice(start..end))).collect()
}

/// Returns all items of a stream that is never pending.
fn all<T>(stream: impl futures_util::Stream<Item = T>) -> Vec<T> {
    stream.collect().now_or_never().expect("every piece is available")
}

/// Publishes events, and checks that each is refused for its invalid part or arrives exactly,
/// however the network cuts the stream.
fn are_refused_or_arrive(events: &[Vec<Part>], cuts: &[usize]) {
    let mut wire = Wire::new();
    let mut bytes = Vec::from(wire.open.clone());
    let open = read(&bytes);
    let mut arrivals = Vec::new();
    for parts in events {
        let event = parts.iter().fold(Event::default(), |event, part| part.set(event));
        let invalid = parts.iter().find(|part| !part.is_valid());
        match wire.frame(event) {
            Ok((id, frame)) => {
                assert!(invalid.is_none() && !parts.is_empty(), "{invalid:?}");
                bytes.extend_from_slice(frame.as_bytes());
                arrivals.push(Arrival::of(parts, id));
            }
            Err(PublishError::Event(error)) => match invalid {
                Some(part) => assert!(part.is_named_by(error), "{part:?}: {error:?}"),
                None => assert!(parts.is_empty() && error == EventError::Empty),
            },
            Err(error) => panic!("{error:?}"),
        }
    }
    let bytes = Bytes::from(bytes);
    assert!(!bytes.contains(&b'\r'));

    let messages: Vec<Message> =
        open.messages.into_iter().chain(arrivals.iter().filter_map(Arrival::message)).collect();
    assert_eq!(
        read(&bytes),
        Read {
            messages: messages.clone(),
            comments: arrivals.iter().filter_map(|arrival| arrival.comment.clone()).collect(),
            retries: open
                .retries
                .into_iter()
                .chain(arrivals.iter().filter_map(|arrival| arrival.retry))
                .collect(),
            last_event_id: arrivals.last().map_or(open.last_event_id, |last| last.id.clone()),
        }
    );

    let pieces = pieces(&bytes, cuts);
    let dispatched: Vec<Message> = all(stream::iter(pieces.clone()).eventsource())
        .into_iter()
        .map(|event| {
            let event = event.expect("the stream contains only events");
            Message::new(&event.event, &event.data, &event.id)
        })
        .collect();
    assert_eq!(&dispatched, &messages);

    // This parser also returns the frames that a browser does not dispatch.
    let frames: Vec<sse_stream::Sse> = all(SseByteStream::new(stream::iter(pieces)))
        .into_iter()
        .skip(1)
        .map(|frame| frame.expect("the stream contains only events"))
        .collect();
    let expected: Vec<sse_stream::Sse> = arrivals
        .into_iter()
        .map(|arrival| sse_stream::Sse {
            event: arrival.event_type,
            data: arrival.data,
            id: Some(arrival.id),
            retry: arrival.retry.and_then(|retry| retry.try_into().ok()),
        })
        .collect();
    assert_eq!(frames, expected);
}

/// Reads events and cuts from bytes. The bytes above 0xF7, which UTF-8 does not use, begin a part:
/// the bytes up to the next of them are its text or number.
fn events_and_cuts(script: &[u8]) -> (Vec<Vec<Part>>, Vec<usize>) {
    let (mut events, mut cuts, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    let mut kind = 0xF8;
    for piece in script.split_inclusive(|&byte| byte > 0xF7) {
        let (bytes, next) = match piece {
            [bytes @ .., next] if *next > 0xF7 => (bytes, *next),
            bytes => (bytes, kind),
        };
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        match kind {
            0xF8 => parts.push(Part::Data(text())),
            0xF9 => parts.push(Part::Data(text().repeat(50))),
            0xFA => parts.push(Part::Type(text())),
            0xFB => parts.push(Part::Comment(text())),
            0xFC => parts.push(Part::Retry(Duration::from_micros(number))),
            0xFD => cuts.push(number as usize),
            _ => events.push(mem::take(&mut parts)),
        }
        kind = next;
    }
    events.push(parts);
    (events, cuts)
}

#[test]
fn any_script_is_refused_or_arrives() {
    bolero::check!().for_each(|script: &[u8]| {
        let (events, cuts) = events_and_cuts(script);
        are_refused_or_arrive(&events, &cuts);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_event_is_refused_or_arrives_exactly(
        events in vec(vec(part(), 0..6), 1..12),
        cuts in vec(any::<usize>(), 0..40),
    ) {
        are_refused_or_arrive(&events, &cuts);
    }

    #[test]
    fn event_id_text_parses_back(a: u64, b: u64, short in 0..32u32) {
        for id in [EventId::new(a, b), EventId::new(a >> short, b >> (2 * short)), EventId::new(b, u64::from(short))] {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(EventId::from_bytes(id.to_string().as_bytes()), Ok(id));
            prop_assert_eq!(LastEventId::from(id.to_string().as_str()).id(), Some(id));
        }
    }

    #[test]
    fn any_bytes_are_one_event_id_or_none(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..50),
            vec(select(&b"0123456789-"[..]), 0..24),
            vec(select(&b"01:-+ \0\xFF"[..]), 0..8),
            ("[0-9]{19,21}", "[0-9]{19,21}").prop_map(|(a, b)| format!("{a}-{b}").into_bytes()),
        ]
    ) {
        let parsed: Result<EventId, ParseEventIdError> = EventId::from_bytes(&bytes);
        prop_assert_eq!(parsed.ok(), canonical(&bytes));
        let last = LastEventId::from_bytes(&bytes);
        prop_assert_eq!(last.id(), canonical(&bytes));
        prop_assert_eq!(last.is_first_connection(), bytes.is_empty());
        if let Ok(text) = std::str::from_utf8(&bytes) {
            prop_assert_eq!(text.parse(), parsed);
            prop_assert_eq!(LastEventId::from(text), last);
        }
    }

    #[test]
    fn any_text_is_one_client_id_or_none(
        text in prop_oneof![
            any::<u128>().prop_map(|bits| format!("{bits:032x}")),
            "[0-9a-f]{31,33}",
            "[0-9a-fA-F]{32}",
            "[+][0-9a-f]{31}",
            "[0-9a-f]{30}é",
            ".{0,40}",
        ]
    ) {
        let is_one =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = text.parse::<ClientId>();
        prop_assert_eq!(parsed.is_ok(), is_one);
        if let Ok(client) = parsed {
            prop_assert_eq!(client.to_string(), text);
        }
    }
}
