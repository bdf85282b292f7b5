//! Verdicts from facts, the reading of streams, and the lines to change, which are those of the
//! guide.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::checks::advice::{Cause, Place, all};
use super::checks::connection::{Failure, Head};
use super::checks::judge::{Check, Finding, Verdict, judge};
use super::checks::probe::{Facts, Opening};
use super::checks::report::{faults, report};
use super::checks::stream::{End, Stream};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{StatusCode, Version};

const ORIGIN: &str = "https://app.example";
const CLIENT: &str = "00000000000000000000000000000001";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn head(headers: &[(&'static str, &'static str)]) -> Head {
    let headers = headers
        .iter()
        .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Head {
        status: StatusCode::OK,
        version: Version::HTTP_2,
        headers: headers.collect(),
        after: millis(10),
    }
}

/// The head that a hub sends to a page of the origin.
fn stream_head() -> Head {
    head(&[
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-credentials", "true"),
        ("vary", "origin"),
    ])
}

fn open_frame(client: &str, resumed: bool) -> String {
    let data = format!("{{\"client\":\"{client}\",\"resumed\":{resumed},\"heartbeat\":15000}}");
    format!("event: hub:open\nretry: 1\ndata: {data}\nid: 7-1\n\n")
}

/// A stream of these pieces, each with the time in milliseconds.
fn stream(pieces: &[(u64, &str)]) -> Stream {
    let mut stream = Stream::default();
    for &(at, piece) in pieces {
        stream.push(millis(at), piece.as_bytes());
    }
    stream
}

fn opening(frames: &str) -> Opening {
    Opening { head: stream_head(), stream: stream(&[(10, frames)]) }
}

/// The facts of a sound connection, with a heartbeat each 15 seconds.
fn sound() -> Facts {
    let open = open_frame(CLIENT, false);
    let second = open_frame(&CLIENT.replace('1', "2"), true);
    let replayed = format!("{second}data: {}\n\n", "x".repeat(5_000));
    Facts {
        url: "https://shop.example/events".parse().unwrap(),
        redirects: 0,
        origin: Some(HeaderValue::from_static(ORIGIN)),
        has_proof: true,
        watched: millis(30_011),
        first: Ok(stream_head()),
        text: String::new(),
        stream: Some(stream(&[(10, &open), (15_010, ":\n"), (30_010, ":\n")])),
        head: None,
        resumed: Some(Ok(opening(&second))),
        by_header: None,
        by_query: None,
        replayed: Some(Ok(opening(&replayed))),
        by_http1: Some(Ok(opening(&open))),
        preflight: Some(Ok(head(&[(
            "access-control-allow-headers",
            "Cache-Control, last-event-id",
        )]))),
    }
}

fn verdict(findings: &[Finding], check: Check) -> Verdict {
    findings.iter().find(|finding| finding.check == check).expect("the check").verdict
}

/// Asserts that the change of the sound facts leads to this verdict, and to no other.
#[track_caller]
fn alone(verdict: Verdict, change: impl FnOnce(&mut Facts)) {
    let mut facts = sound();
    change(&mut facts);
    let findings = judge(&facts);
    let others: Vec<_> = findings.iter().filter(|it| it.verdict != Verdict::Ok).collect();
    assert!(matches!(others[..], [other] if other.verdict == verdict), "{others:#?}");
}

#[track_caller]
fn fault(cause: Cause, change: impl FnOnce(&mut Facts)) {
    alone(Verdict::Fault(cause), change);
}

#[track_caller]
fn advice(cause: Cause, change: impl FnOnce(&mut Facts)) {
    alone(Verdict::Advice(cause), change);
}

/// Replaces the first response by one with a status and a body.
fn answered(status: u16, content_type: &'static str, text: &str) -> impl FnOnce(&mut Facts) {
    let (status, text) = (StatusCode::from_u16(status).unwrap(), text.to_owned());
    move |facts| {
        facts.first = Ok(Head { status, ..head(&[("content-type", content_type)]) });
        (facts.text, facts.stream) = (text, None);
    }
}

/// Sets a header of the first response, or removes the header.
fn with(name: &'static str, value: Option<&'static str>) -> impl FnOnce(&mut Facts) {
    move |facts| {
        let headers = &mut facts.first.as_mut().unwrap().headers;
        headers.remove(name);
        headers.extend(
            value.map(|value| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
    }
}

/// Replaces the watched stream by these pieces after `hub:open`, and an end.
fn watched(pieces: &[(u64, &str)], end: Option<u64>, until: u64) -> impl FnOnce(&mut Facts) {
    let mut pieces = [&[(10, "")][..], pieces].concat();
    let open = open_frame(CLIENT, false);
    pieces[0].1 = &open;
    let mut stream = stream(&pieces);
    stream.end = end.map(|at| End { at: millis(at), error: None });
    move |facts| (facts.stream, facts.watched) = (Some(stream), millis(until))
}

#[test]
fn sound_facts_have_no_finding() {
    let findings = judge(&sound());
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{findings:#?}");
    assert_eq!(findings.len(), 13);
}

#[test]
fn connections_without_a_response() {
    let fails = |failure: Failure| move |facts: &mut Facts| facts.first = Err(failure);
    fault(Cause::Tls, fails(Failure::Tls("certificate expired".into())));
    fault(Cause::Transport, fails(Failure::Transport("reset".into())));
    fault(Cause::Silent, fails(Failure::Silent));
    // The service is there: only the body does not come.
    fault(Cause::Buffering, |facts| {
        facts.first = Err(Failure::Silent);
        facts.head = Some(Ok(stream_head()));
    });
    fault(Cause::Silent, |facts| {
        facts.first = Err(Failure::Silent);
        facts.head = Some(Err(Failure::Silent));
    });
}

#[test]
fn statuses_have_their_causes() {
    fault(Cause::Status, answered(404, "text/plain", ""));
    fault(Cause::Status, answered(500, "text/plain", ""));
    fault(Cause::Stopped, answered(204, "", ""));
    for status in [401, 403] {
        fault(Cause::Unauthorized, answered(status, "text/html", ""));
    }
    for status in [502, 503, 504] {
        fault(Cause::Upstream, answered(status, "text/html", ""));
    }
    for status in [429, 503] {
        fault(Cause::Refused, |facts| {
            answered(status, "text/plain", "the hub is full")(facts);
            with("retry-after", Some("3"))(facts);
        });
    }
    advice(Cause::Redirect, |facts| facts.redirects = 1);
}

#[test]
fn answers_that_are_no_streams() {
    let page = "<!doctype html><title>Sign in</title>";
    fault(Cause::Html, answered(200, "text/html; charset=utf-8", page));
    fault(Cause::ContentType, answered(200, "text/plain", ""));
    fault(Cause::ContentType, answered(200, "", ""));
    let mut facts = sound();
    answered(200, "text/html", page)(&mut facts);
    assert!(report(&judge(&facts), None).contains("titled \"Sign in\""));
    // A parameter and capital letters are allowed.
    let mut facts = sound();
    with("content-type", Some("Text/Event-Stream; charset=utf-8"))(&mut facts);
    assert_eq!(faults(&judge(&facts)), []);
}

#[test]
fn compression_of_any_stream_is_a_fault() {
    fault(Cause::Compression, with("content-encoding", Some("gzip")));
    fault(Cause::Compression, |facts| {
        let mut replayed = opening("");
        replayed.head.headers = HeaderMap::new();
        replayed.head.headers.insert("content-encoding", HeaderValue::from_static("br"));
        facts.replayed = Some(Ok(replayed));
    });
    let mut facts = sound();
    with("content-encoding", Some("identity"))(&mut facts);
    assert_eq!(faults(&judge(&facts)), []);
}

#[test]
fn late_first_frame_is_buffered_if_the_service_is_fast() {
    let late = |after: u64| {
        move |facts: &mut Facts| {
            let open = open_frame(CLIENT, false);
            let pieces = [(4_000, open.as_str()), (19_000, ":\n"), (34_000, ":\n")];
            (facts.stream, facts.watched) = (Some(stream(&pieces)), millis(34_001));
            facts.head = Some(Ok(Head { after: millis(after), ..stream_head() }));
        }
    };
    fault(Cause::Buffering, late(10));
    let mut facts = sound();
    late(3_900)(&mut facts);
    assert_eq!(faults(&judge(&facts)), []);
    // The head comes, and nothing more.
    let mut facts = sound();
    (facts.stream, facts.watched) = (Some(Stream::default()), millis(5_000));
    assert_eq!(faults(&judge(&facts)), [Cause::Buffering]);
    fault(Cause::Buffering, |facts| facts.by_http1 = Some(Err(Failure::Silent)));
    // A server without HTTP/1.1.
    let mut facts = sound();
    facts.by_http1 = Some(Err(Failure::Tls("no protocol".into())));
    assert_eq!(faults(&judge(&facts)), []);
}

#[test]
fn silence_decides_between_the_timeouts() {
    // Cut before the first heartbeat.
    fault(Cause::IdleTimeout, watched(&[], Some(10_000), 10_000));
    fault(Cause::IdleTimeout, watched(&[(4_000, "data: x\n\n")], Some(14_000), 14_000));
    // The stream survived the 15 seconds before a heartbeat, and was cut after five.
    fault(Cause::TotalTimeout, watched(&[(15_010, ":\n")], Some(20_000), 20_000));
    fault(Cause::TotalTimeout, watched(&[(15_010, ":\n")], Some(29_900), 29_900));
    fault(Cause::Ended, watched(&[], Some(12), 12));
    // HAProxy ends a stream that it cuts with an empty piece.
    fault(Cause::IdleTimeout, watched(&[(10_000, "")], Some(10_000), 10_000));
    // An end in order tells nothing about timeouts.
    let end = "event: hub:end\ndata: {\"reason\":\"displaced\"}\n\n";
    alone(Verdict::NotChecked, watched(&[(20, end)], Some(21), 21));
}

#[test]
fn missing_heartbeat_is_certain_after_its_slack() {
    // Heartbeats are due after 15 seconds, with half of that as slack.
    fault(Cause::HeartbeatLate, watched(&[], None, 22_600));
    fault(Cause::HeartbeatLate, watched(&[(40_010, ":\n:\n")], None, 40_011));
    alone(Verdict::NotChecked, watched(&[], None, 22_400));
    let busy = [(10_000, "data: x\n\n"), (20_000, "data: x\n\n"), (30_000, "data: x\n\n")];
    alone(Verdict::NotChecked, watched(&busy, None, 37_000));
    advice(Cause::NoHeartbeat, |facts| {
        let open = open_frame(CLIENT, false).replace(",\"heartbeat\":15000", "");
        facts.stream = Some(stream(&[(10, &open)]));
    });
    // A visible heartbeat counts, too.
    let visible = "event: hub:heartbeat\ndata: {}\n\n";
    let mut facts = sound();
    watched(&[(15_010, visible)], None, 15_011)(&mut facts);
    assert_eq!(verdict(&judge(&facts), Check::Timeouts), Verdict::Ok);
}

#[test]
fn second_stream_must_open_beside_the_first() {
    let waits = |by_query| {
        move |facts: &mut Facts| {
            facts.resumed = Some(Err(Failure::Silent));
            facts.by_query = Some(by_query);
        }
    };
    for by_query in [Err(Failure::Silent), Ok(opening(&open_frame(CLIENT, false)))] {
        let mut facts = sound();
        waits(by_query)(&mut facts);
        assert_eq!(faults(&judge(&facts)), [Cause::Waiting]);
    }
    let mut facts = sound();
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let queue = Opening { head: Head { status, ..head(&[]) }, stream: Stream::default() };
    facts.resumed = Some(Ok(queue));
    assert_eq!(faults(&judge(&facts)), [Cause::Waiting]);
    // The limit of a user is no fault of the connection.
    let mut facts = sound();
    facts.resumed = Some(Ok(opening("event: hub:refused\ndata: {\"reason\":\"user-full\"}\n\n")));
    assert_eq!(faults(&judge(&facts)), []);
    fault(Cause::Shared, |facts| facts.resumed = Some(Ok(opening(&open_frame(CLIENT, true)))));
}

#[test]
fn lost_header_differs_from_a_handler_without_resume() {
    let fresh = || opening(&open_frame(&CLIENT.replace('1', "3"), false));
    let gap = |reason| {
        let mut opening = fresh();
        let gap = format!("event: hub:gap\ndata: {{\"reason\":\"{reason}\"}}\nid: 7-1\n\n");
        opening.stream.push(millis(11), gap.as_bytes());
        opening
    };
    let resumes = |resumed: Opening, by_header, by_query| {
        move |facts: &mut Facts| {
            facts.resumed = Some(Ok(resumed));
            (facts.by_header, facts.by_query) = (Some(Ok(by_header)), Some(Ok(by_query)));
        }
    };
    fault(Cause::LastEventId, resumes(fresh(), fresh(), gap("unknown")));
    fault(Cause::NotResumed, resumes(fresh(), fresh(), fresh()));
    fault(Cause::UnknownId, resumes(gap("unknown"), fresh(), fresh()));
    // A stream with a snapshot never says that it resumes.
    let mut facts = sound();
    resumes(fresh(), gap("unknown"), fresh())(&mut facts);
    assert_eq!(faults(&judge(&facts)), []);
    let mut facts = sound();
    resumes(gap("evicted"), fresh(), fresh())(&mut facts);
    assert_eq!(faults(&judge(&facts)), []);
}

#[test]
fn headers_of_caches_and_collectors() {
    fault(Cause::Cached, with("age", Some("31")));
    fault(Cause::Cached, with("x-cache", Some("Hit from cloudfront")));
    fault(Cause::ContentLength, with("content-length", Some("142")));
    advice(Cause::Cacheable, with("cache-control", Some("no-cache")));
    advice(Cause::Cacheable, with("cache-control", None));
    let mut facts = sound();
    with("cf-cache-status", Some("DYNAMIC"))(&mut facts);
    assert_eq!(faults(&judge(&facts)), []);
}

#[test]
fn older_protocols_are_advices() {
    let version = |version, chunked: bool| {
        move |facts: &mut Facts| {
            let coding = chunked.then_some("chunked");
            with("transfer-encoding", coding)(facts);
            facts.first.as_mut().unwrap().version = version;
        }
    };
    advice(Cause::SixConnections, version(Version::HTTP_11, true));
    let mut facts = sound();
    version(Version::HTTP_10, false)(&mut facts);
    let findings = judge(&facts);
    assert_eq!(verdict(&findings, Check::Framing), Verdict::Advice(Cause::Http10));
    assert_eq!(faults(&findings), []);
}

#[test]
fn origin_must_be_allowed_exactly() {
    const ALLOW: &str = "access-control-allow-origin";
    fault(Cause::CorsMissing, with(ALLOW, None));
    fault(Cause::CorsMissing, with(ALLOW, Some("https://other.example")));
    fault(Cause::CorsTwice, with(ALLOW, Some("https://app.example, https://app.example")));
    fault(Cause::CorsCredentials, with(ALLOW, Some("*")));
    fault(Cause::CorsCredentials, with("access-control-allow-credentials", None));
    advice(Cause::CorsCredentials, |facts| {
        facts.has_proof = false;
        with(ALLOW, Some("*"))(facts);
    });
    advice(Cause::CorsVary, with("vary", Some("accept-encoding")));
    advice(Cause::CorsPreflight, |facts| {
        facts.preflight = Some(Ok(head(&[("access-control-allow-headers", "last-event-id")])));
    });
    let mut facts = sound();
    (facts.origin, facts.preflight) = (None, None);
    for check in [Check::Origin, Check::Preflight] {
        assert_eq!(verdict(&judge(&facts), check), Verdict::NotChecked);
    }
}

/// The pieces of a stream end anywhere.
#[test]
fn streams_are_read_in_pieces_of_any_length() {
    let text = "event: hub:open\r\ndata: {\"client\":\"c\",\"resumed\":true}\r\nid: 7-1\r\n\r\n\
                : a comment\n:\n: \n\
                event: x\ndata: {\"reason\":\"no\"}\nid: 7-2\n\n\
                event: hub:gap\ndata: {\"reason\":\"evicted\"}\n\n:\n";
    for length in 1..text.len() {
        let mut stream = Stream::default();
        for (number, piece) in text.as_bytes().chunks(length).enumerate() {
            stream.push(millis(number as u64), piece);
        }
        assert_eq!(stream.open.as_ref().map(|(_, open)| open.resumed), Some(true));
        assert_eq!((stream.heartbeats, stream.bytes), (2, text.len()));
        assert_eq!(stream.position.as_deref(), Some("7-2"));
        assert_eq!(stream.gap.as_deref(), Some("evicted"));
        assert_eq!(stream.refused, None);
    }
    // A line without an end takes a bounded amount of memory, and hides no line after it.
    let mut stream = Stream::default();
    for _ in 0..1_000 {
        stream.push(millis(1), &[b'x'; 1_000]);
    }
    stream.push(millis(2), b"\n:\n");
    assert_eq!(stream.heartbeats, 1);
}

#[test]
fn proxies_are_recognised_by_their_headers() {
    let proxy = |name, value| Place::of_proxy(&head(&[(name, value)]).headers);
    assert_eq!(proxy("server", "nginx/1.22.1"), Some(Place::Nginx));
    assert_eq!(proxy("server", "Caddy"), Some(Place::Caddy));
    assert_eq!(proxy("server", "Apache/2.4.71 (Debian)"), Some(Place::Apache));
    assert_eq!(proxy("via", "1.1 haproxy"), Some(Place::Haproxy));
    assert_eq!(proxy("server", "cloudflare"), None);
}

#[test]
fn report_has_the_lines_of_the_recognised_proxy() {
    let mut facts = sound();
    facts.by_http1 = Some(Err(Failure::Silent));
    let text = report(&judge(&facts), Some(Place::Nginx));
    assert!(text.contains("nginx    remove `proxy_ignore_headers"), "{text}");
    assert!(!text.contains("caddy "), "{text}");
    let text = report(&judge(&facts), None);
    for place in ["nginx", "caddy", "haproxy", "apache", "service"] {
        assert_eq!(text.matches(&format!("\n{:27} {place:<8} ", "")).count(), 1, "{text}");
    }
}

/// The guide has each line for a proxy: in a configuration, or in the table of the lines that break
/// streams.
#[test]
fn lines_for_proxies_are_in_the_guide() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let read = |file: &str| fs::read_to_string(guide.join(file)).unwrap();
    let table = read("proxies.rs");
    let mut count = 0;
    for (cause, advice) in all() {
        assert!(!advice.says.is_empty() && !advice.says.ends_with('.'), "{cause:?}");
        for (place, line) in advice.lines(None) {
            let configuration = match place {
                Place::Service => continue,
                Place::Nginx => "proxies/nginx.conf",
                Place::Caddy => "proxies/Caddyfile",
                Place::Haproxy => "proxies/haproxy.cfg",
                Place::Apache => "proxies/apache.conf",
            };
            let is_there = read(configuration).contains(line) || table.contains(line);
            assert!(is_there, "{cause:?}, {}: {line}", place.name());
            count += 1;
        }
    }
    assert!(count > 40, "the lines were not found: {count}");
}
