//! Decides from the facts, without a connection.

use std::fmt;
use std::time::Duration;

use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap};
use hyper::{StatusCode, Version};

use super::advice::Cause;
use super::connection::{Failure, Head, PATIENCE};
use super::probe::{Facts, Opening, PROMPT, slack};
use super::stream::{End, Stream};

/// A check: a line of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Connection,
    Status,
    ContentType,
    Compression,
    FirstFrame,
    Timeouts,
    SecondStream,
    Resume,
    Cache,
    Framing,
    Protocol,
    Origin,
    Preflight,
}

impl Check {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Status => "status",
            Self::ContentType => "content type",
            Self::Compression => "compression",
            Self::FirstFrame => "first frame",
            Self::Timeouts => "timeouts",
            Self::SecondStream => "second stream",
            Self::Resume => "resume",
            Self::Cache => "cache",
            Self::Framing => "framing",
            Self::Protocol => "protocol",
            Self::Origin => "origin",
            Self::Preflight => "preflight",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    /// Streams fail, or lose events.
    Fault(Cause),
    /// Streams work, with a limit.
    Advice(Cause),
    NotChecked,
}

/// The result of a check, with the measured facts or the reason why it was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) verdict: Verdict,
    pub(crate) detail: String,
}

type Judgement = (Verdict, String);

fn ok(detail: impl Into<String>) -> Judgement {
    (Verdict::Ok, detail.into())
}

fn fault(cause: Cause, detail: impl Into<String>) -> Judgement {
    (Verdict::Fault(cause), detail.into())
}

fn advice(cause: Cause, detail: impl Into<String>) -> Judgement {
    (Verdict::Advice(cause), detail.into())
}

fn not_checked(reason: impl Into<String>) -> Judgement {
    (Verdict::NotChecked, reason.into())
}

/// Returns the findings of all checks, in the order of a request.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let connection = (Check::Connection, connection(facts));
    let head = match &facts.first {
        Ok(head) => head,
        // The connection works, and the service answers requests without a body.
        Err(Failure::Silent) if is_answered_by_head(facts) => {
            return listed([connection, (Check::FirstFrame, nothing_came(facts))]);
        }
        Err(_) => return listed([connection]),
    };
    let status = (Check::Status, status(head, facts));
    if head.status != StatusCode::OK {
        return listed([connection, status]);
    }
    let content_type = (Check::ContentType, content_type(head, facts));
    if !head.is_stream() {
        return listed([connection, status, content_type]);
    }
    let stream = |judge: &dyn Fn(&Stream) -> Judgement| match &facts.stream {
        Some(stream) => judge(stream),
        None => not_checked("the stream is compressed"),
    };
    listed([
        connection,
        status,
        content_type,
        (Check::Compression, compression(head, facts)),
        (Check::FirstFrame, stream(&|stream| first_frame(stream, facts))),
        (Check::Timeouts, stream(&|stream| timeouts(stream, facts))),
        (Check::SecondStream, stream(&|stream| second_stream(stream, facts))),
        (Check::Resume, stream(&|_| resume(facts))),
        (Check::Cache, cache(head)),
        (Check::Framing, framing(head)),
        (Check::Protocol, protocol(head, facts)),
        (Check::Origin, origin(head, facts)),
        (Check::Preflight, preflight(facts)),
    ])
}

fn listed(judged: impl IntoIterator<Item = (Check, Judgement)>) -> Vec<Finding> {
    let judged = judged.into_iter();
    judged.map(|(check, (verdict, detail))| Finding { check, verdict, detail }).collect()
}

fn connection(facts: &Facts) -> Judgement {
    match &facts.first {
        Ok(head) => ok(format!("{:?}, the response after {}", head.version, Time(head.after))),
        Err(Failure::Silent) if is_answered_by_head(facts) => ok("HEAD is answered"),
        Err(failure @ Failure::Silent) => fault(Cause::Silent, failure.to_string()),
        Err(Failure::Tls(error)) if error.contains("InvalidContentType") => {
            fault(Cause::Tls, format!("the port speaks no TLS, so the URL must be http: {error}"))
        }
        Err(Failure::Tls(error)) => fault(Cause::Tls, error),
        Err(failure) => fault(Cause::Transport, failure.to_string()),
    }
}

/// Returns true if the response to `HEAD` is the head of a stream, at once.
fn is_answered_by_head(facts: &Facts) -> bool {
    matches!(&facts.head, Some(Ok(head)) if head.after < PROMPT && head.is_stream())
}

fn nothing_came(facts: &Facts) -> Judgement {
    let head = match &facts.head {
        Some(Ok(head)) => format!(", and HEAD was answered after {}", Time(head.after)),
        _ => String::new(),
    };
    fault(Cause::Buffering, format!("no byte within {}{head}", Time(PATIENCE)))
}

fn status(head: &Head, facts: &Facts) -> Judgement {
    let detail = match title(&facts.text) {
        title if title.is_empty() => head.status.to_string(),
        title => format!("{}: {title}", head.status),
    };
    let cause = match head.status.as_u16() {
        200 if facts.redirects > 0 => {
            return advice(Cause::Redirect, format!("redirected to {}", facts.url));
        }
        200 => return ok(detail),
        204 => Cause::Stopped,
        401 | 403 => Cause::Unauthorized,
        429 | 503 if head.headers.contains_key("retry-after") => Cause::Refused,
        502..=504 => Cause::Upstream,
        _ => Cause::Status,
    };
    fault(cause, detail)
}

/// Returns the title of a page, or the first line of a text.
fn title(text: &str) -> String {
    const LENGTH: usize = 80;
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    let title = title.map_or(text, |(title, _)| title).trim();
    title.lines().next().unwrap_or_default().chars().take(LENGTH).collect()
}

fn content_type(head: &Head, facts: &Facts) -> Judgement {
    let content_type = head.get("content-type");
    if head.is_stream() {
        return ok(content_type);
    }
    if content_type.contains("html") {
        let title = title(&facts.text);
        return fault(Cause::Html, format!("{content_type}, titled \"{title}\", at {}", facts.url));
    }
    let detail = if content_type.is_empty() { "none" } else { content_type };
    fault(Cause::ContentType, detail)
}

fn compression(head: &Head, facts: &Facts) -> Judgement {
    /// The compressors of the guide's proxies wait for fewer bytes before they decide.
    const LONG: usize = 1024;
    if let Some(encoding) = head.compression() {
        return fault(Cause::Compression, format!("content-encoding: {encoding}"));
    }
    let others = [&facts.resumed, &facts.by_header, &facts.by_query, &facts.replayed];
    for opening in others.into_iter().filter_map(|other| other.as_ref()?.as_ref().ok()) {
        if let Some(encoding) = opening.head.compression() {
            let detail = format!("content-encoding: {encoding}, on a stream that resumes");
            return fault(Cause::Compression, detail);
        }
    }
    match &facts.replayed {
        Some(Ok(opening)) if opening.stream.bytes >= LONG => ok("none"),
        _ => ok("none; streams with a long first item were not tested: nothing is retained"),
    }
}

fn first_frame(stream: &Stream, facts: &Facts) -> Judgement {
    if let Some(reason) = &stream.refused {
        return fault(Cause::Refused, format!("hub:refused with the reason {reason}"));
    }
    match (&stream.open, &stream.end) {
        (Some((at, _)), _) if *at <= PROMPT => {
            let came = format!("hub:open after {}", Time(*at));
            match facts.by_http1 {
                Some(Err(Failure::Silent)) => {
                    let detail =
                        format!("{came}, but over HTTP/1.1 no byte within {}", Time(PATIENCE));
                    fault(Cause::Buffering, detail)
                }
                _ => ok(came),
            }
        }
        (Some((at, _)), _) => {
            let came = format!("hub:open after {}", Time(*at));
            match &facts.head {
                Some(Ok(head)) if head.after <= PROMPT => {
                    let head = Time(head.after);
                    fault(Cause::Buffering, format!("{came}, but HEAD answered after {head}"))
                }
                _ => ok(format!("{came}; the whole service is slow")),
            }
        }
        (None, _) if stream.bytes > 0 => {
            not_checked("the stream does not begin with hub:open, so no hub sends it")
        }
        (None, Some(_)) => fault(Cause::Ended, "the response is empty"),
        (None, None) => nothing_came(facts),
    }
}

fn timeouts(stream: &Stream, facts: &Facts) -> Judgement {
    /// A stream that ends within this time had no chance to be idle.
    const AT_ONCE: Duration = Duration::from_millis(500);
    if stream.open.is_none() {
        return not_checked("the stream has no hub:open");
    }
    if let Some(reason) = &stream.farewell {
        return not_checked(format!("the hub ended the stream: {reason}"));
    }
    let heard = stream.heard.unwrap_or_default();
    if let Some(End { at, error }) = &stream.end {
        let silence = at.saturating_sub(heard);
        let error = error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        if *at < AT_ONCE {
            return fault(Cause::Ended, format!("after {}{error}", Time(*at)));
        }
        // If the stream survived a longer silence, the last silence is not the reason.
        if stream.silence > silence {
            let survived = Time(stream.silence);
            let detail = format!(
                "cut {} after the request and {} after the last bytes, although a silence of \
                 {survived} passed{error}",
                Time(*at),
                Time(silence),
            );
            return fault(Cause::TotalTimeout, detail);
        }
        let wanted = stream.period().map(|period| {
            let (period, least) = (Time(period), Time(3 * period));
            format!("; the heartbeat comes after {period}, so allow at least {least}")
        });
        let detail =
            format!("cut after {} of silence{error}{}", Time(silence), wanted.unwrap_or_default());
        return fault(Cause::IdleTimeout, detail);
    }
    let watched = Time(facts.watched);
    let Some(period) = stream.period() else {
        return advice(Cause::NoHeartbeat, format!("the stream was open for {watched}"));
    };
    let (silence, due) = (stream.silence_until(facts.watched), period + slack(period));
    if silence > due {
        let detail =
            format!("no byte for {}; heartbeats are due after {}", Time(silence), Time(period));
        return fault(Cause::HeartbeatLate, detail);
    }
    if stream.heartbeats > 0 {
        return ok(format!("a heartbeat after {} of silence", Time(period)));
    }
    if facts.watched < due {
        let least = due.as_secs_f64().ceil();
        return not_checked(format!(
            "no heartbeat is due before {}: run with --for {least}s",
            Time(period)
        ));
    }
    not_checked(format!("the stream is busy: the longest silence was {}", Time(silence)))
}

fn second_stream(first: &Stream, facts: &Facts) -> Judgement {
    let second = match &facts.resumed {
        None => return not_checked("the first stream has no position"),
        Some(Ok(second)) => second,
        Some(Err(Failure::Silent)) => {
            let detail = match &facts.by_query {
                Some(Ok(_)) => "the same URL waits, and another query does not: a cache",
                _ => "every further request waits: a limit of connections or of threads",
            };
            return fault(Cause::Waiting, detail);
        }
        Some(Err(failure)) => return fault(Cause::Transport, failure.to_string()),
    };
    if let Some(reason) = &second.stream.refused {
        return not_checked(format!("the hub refuses a second stream: {reason}"));
    }
    match (&first.open, &second.stream.open) {
        (Some((_, first)), Some((_, second))) if first.client == second.client => {
            fault(Cause::Shared, format!("both streams have the client id {}", first.client))
        }
        (_, Some(_)) => ok("opens beside the first"),
        (_, None) if second.head.status.is_server_error() => {
            fault(Cause::Waiting, format!("the second request got {}", second.head.status))
        }
        (_, None) => not_checked(format!("the second request got {}", second.head.status)),
    }
}

fn resume(facts: &Facts) -> Judgement {
    let second = match &facts.resumed {
        Some(Ok(second)) if second.stream.open.is_some() => second,
        _ => return not_checked("there is no second stream"),
    };
    if second.is_resumed() {
        return ok("the stream continues at the position of the first");
    }
    match second.stream.gap.as_deref() {
        Some("unknown") => return fault(Cause::UnknownId, "hub:gap with the reason unknown"),
        Some(reason) => return ok(format!("the header arrives; hub:gap with the reason {reason}")),
        None => {}
    }
    let arrives = |asked: &Option<Result<Opening, Failure>>| {
        asked.as_ref().is_some_and(|asked| asked.as_ref().is_ok_and(Opening::has_effect))
    };
    if arrives(&facts.by_header) {
        ok("the header arrives; the stream begins with a snapshot")
    } else if arrives(&facts.by_query) {
        fault(Cause::LastEventId, "the header is lost, and ?lastEventId= arrives")
    } else {
        fault(Cause::NotResumed, "neither the header nor ?lastEventId= has an effect")
    }
}

fn cache(head: &Head) -> Judgement {
    let hit = ["x-cache", "x-cache-status", "cf-cache-status"].map(|name| head.get(name));
    if let Some(hit) = hit.iter().find(|value| value.to_ascii_uppercase().contains("HIT")) {
        return fault(Cause::Cached, format!("a cache reports {hit}"));
    }
    if head.headers.contains_key("age") {
        return fault(Cause::Cached, format!("age: {}", head.get("age")));
    }
    let control = head.get("cache-control");
    if control.contains("no-cache") && control.contains("no-transform") {
        ok(control)
    } else {
        advice(Cause::Cacheable, format!("cache-control: {control}"))
    }
}

fn framing(head: &Head) -> Judgement {
    if let Some(length) = head.headers.get("content-length") {
        return fault(Cause::ContentLength, format!("content-length: {length:?}"));
    }
    let is_marked = head.version > Version::HTTP_11 || head.get("transfer-encoding") == "chunked";
    if is_marked && head.version > Version::HTTP_10 {
        ok("the end of the stream is marked")
    } else {
        advice(Cause::Http10, format!("{:?} without chunks", head.version))
    }
}

fn protocol(head: &Head, facts: &Facts) -> Judgement {
    let version = format!("{:?}", head.version);
    match (head.version >= Version::HTTP_2, facts.url.scheme_str()) {
        (true, _) => ok(version),
        (false, Some("https")) => advice(Cause::SixConnections, version),
        (false, _) => {
            advice(Cause::SixConnections, format!("{version}; HTTP/2 of browsers needs https"))
        }
    }
}

/// Returns the allowed origins.
fn allowed(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).collect()
}

/// Returns true if a list of a header has the word.
fn lists(head: &Head, name: &str, word: &str) -> bool {
    let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(word))
}

fn origin(head: &Head, facts: &Facts) -> Judgement {
    let Some(origin) = facts.origin.as_ref().and_then(|origin| origin.to_str().ok()) else {
        return not_checked("for pages of another origin: run with --origin https://app.example");
    };
    let allowed = allowed(&head.headers);
    let detail = format!("access-control-allow-origin: {}", allowed.join(", "));
    // Only a request with a cookie or a token needs the permission.
    let no_credentials = |why: &str| {
        let judge = if facts.has_proof { fault } else { advice };
        judge(Cause::CorsCredentials, format!("{detail}; {why}"))
    };
    match allowed[..] {
        [] => fault(Cause::CorsMissing, "no access-control-allow-origin"),
        [_, _, ..] => fault(Cause::CorsTwice, detail),
        ["*"] => no_credentials("* allows no cookie"),
        [other] if other != origin => fault(Cause::CorsMissing, detail),
        _ if head.get("access-control-allow-credentials") != "true" => {
            no_credentials("access-control-allow-credentials is not true")
        }
        _ if !lists(head, "vary", "origin") && !lists(head, "vary", "*") => {
            advice(Cause::CorsVary, format!("vary: {}", head.get("vary")))
        }
        _ => ok(detail),
    }
}

fn preflight(facts: &Facts) -> Judgement {
    let head = match &facts.preflight {
        None => return not_checked("for pages of another origin"),
        Some(Err(failure)) => return advice(Cause::CorsPreflight, failure.to_string()),
        Some(Ok(head)) => head,
    };
    let allows = |name| {
        lists(head, "access-control-allow-headers", name)
            || lists(head, "access-control-allow-headers", "*") && !facts.has_proof
    };
    let missing: Vec<&str> =
        ["last-event-id", "cache-control"].into_iter().filter(|name| !allows(name)).collect();
    if !head.status.is_success() {
        advice(Cause::CorsPreflight, format!("OPTIONS is answered with {}", head.status))
    } else if missing.is_empty() {
        ok("last-event-id and cache-control are allowed")
    } else {
        advice(Cause::CorsPreflight, format!("not allowed: {}", missing.join(", ")))
    }
}

/// Writes a time with two or three digits.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis @ ..1000 => write!(f, "{millis} ms"),
            _ if self.0.subsec_millis() == 0 => write!(f, "{} s", self.0.as_secs()),
            _ => write!(f, "{:.1} s", self.0.as_secs_f64()),
        }
    }
}
