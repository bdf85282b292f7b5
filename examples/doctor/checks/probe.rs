//! The requests, and the facts that they bring.

use std::time::Duration;

use hyper::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, COOKIE,
    HeaderName, HeaderValue, LOCATION,
};
use hyper::{Method, Uri, Version};
use sse_hub::EventId;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::{Answer, Failure, Head, PATIENCE, Target};
use super::stream::Stream;

/// An opening that takes longer is late.
pub(crate) const PROMPT: Duration = Duration::from_secs(2);

/// The longest time that a stream is watched if no time is given.
const WINDOW: Duration = Duration::from_secs(60);

/// The most redirects that are followed.
const REDIRECTS: usize = 5;

/// An id that no hub gives. A hub answers it with `hub:gap`, so it shows that an id arrives.
const NO_ID: &str = "doctor";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The head of a stream and its first events.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) head: Head,
    pub(crate) stream: Stream,
}

/// The facts of an examination. `None` if a request was not needed.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The URL after all redirects.
    pub(crate) url: Uri,
    pub(crate) redirects: usize,
    pub(crate) origin: Option<HeaderValue>,
    /// Whether the requests have a cookie or a token.
    pub(crate) has_proof: bool,
    /// How long the stream was watched.
    pub(crate) watched: Duration,
    /// The first response.
    pub(crate) first: Result<Head, Failure>,
    /// The begin of the body, if the response is no stream.
    pub(crate) text: String,
    /// The stream that was watched.
    pub(crate) stream: Option<Stream>,
    /// The response to `HEAD`, if the stream is late.
    pub(crate) head: Option<Result<Head, Failure>>,
    /// A second stream, which resumes at the position of the first.
    pub(crate) resumed: Option<Result<Opening, Failure>>,
    /// A stream with an id that no hub gives, in the header and in the query.
    pub(crate) by_header: Option<Result<Opening, Failure>>,
    pub(crate) by_query: Option<Result<Opening, Failure>>,
    /// A stream with all retained events, so that its first item is long.
    pub(crate) replayed: Option<Result<Opening, Failure>>,
    /// A stream over HTTP/1.1, if the first came over HTTP/2. nginx holds back only the former.
    pub(crate) by_http1: Option<Result<Opening, Failure>>,
    pub(crate) preflight: Option<Result<Head, Failure>>,
}

/// Examines a stream, within the window of the target and a few times [`PATIENCE`].
pub(crate) async fn examine(target: &Target) -> Facts {
    let (first, url, redirects) = follow(target).await;
    let has_proof = [COOKIE, AUTHORIZATION].iter().any(|name| target.headers.contains_key(name));
    let mut facts = Facts {
        url,
        redirects,
        origin: target.origin.clone(),
        has_proof,
        watched: Duration::ZERO,
        first: first.as_ref().map(|answer| answer.head.clone()).map_err(Failure::clone),
        text: String::new(),
        stream: None,
        head: None,
        resumed: None,
        by_header: None,
        by_query: None,
        replayed: None,
        by_http1: None,
        preflight: None,
    };
    match first {
        Ok(answer) if answer.head.is_stream() => watch(target, answer, &mut facts).await,
        Ok(answer) => facts.text = answer.text().await,
        Err(Failure::Silent) => facts.head = Some(head(target, &facts.url).await),
        Err(_) => {}
    }
    facts
}

/// Sends the first request, and follows redirects. Returns the URL and the number of redirects.
async fn follow(target: &Target) -> (Result<Answer, Failure>, Uri, usize) {
    let mut url = target.url.clone();
    let mut redirects = 0;
    loop {
        let answer = target.ask(Method::GET, &url, &[]).await;
        let next = answer.as_ref().ok().and_then(|answer| destination(&answer.head, &url));
        match next {
            Some(next) if redirects < REDIRECTS => url = next,
            _ => return (answer, url, redirects),
        }
        redirects += 1;
    }
}

/// Returns the destination of a redirect.
fn destination(head: &Head, from: &Uri) -> Option<Uri> {
    let location = head.headers.get(LOCATION).filter(|_| head.status.is_redirection())?;
    let location: Uri = location.to_str().ok()?.parse().ok()?;
    let mut parts = location.into_parts();
    parts.scheme = parts.scheme.or_else(|| from.scheme().cloned());
    parts.authority = parts.authority.or_else(|| from.authority().cloned());
    Uri::from_parts(parts).ok()
}

/// Watches the stream, and makes the other requests meanwhile.
async fn watch(target: &Target, mut answer: Answer, facts: &mut Facts) {
    if answer.head.compression().is_some() {
        // The other checks need the text.
        let plain = [(hyper::header::ACCEPT_ENCODING, "identity")];
        match target.ask(Method::GET, &facts.url, &plain).await {
            Ok(other) if other.head.is_stream() && other.head.compression().is_none() => {
                answer = other;
            }
            _ => return,
        }
    }
    answer.read(PATIENCE, |stream| stream.open.is_some() || stream.refused.is_some()).await;
    let is_prompt = answer.stream.open.as_ref().is_some_and(|&(at, _)| at < PROMPT);
    let window = target.window.unwrap_or(WINDOW);
    let until = Instant::now() + window.saturating_sub(answer.elapsed());
    let opened = answer.stream.clone();
    let aside = async {
        if !is_prompt {
            facts.head = Some(head(target, &facts.url).await);
        }
        if opened.open.is_some() {
            aside(target, &opened, facts).await;
        }
        facts.preflight = preflight(target, &facts.url).await;
    };
    let mut aside = Box::pin(aside);
    let mut is_aside_done = false;
    let mut is_over = answer.stream.end.is_some();
    loop {
        let decides = decides_in(&answer.stream, answer.elapsed());
        let is_decided = target.window.is_none() && decides.is_zero();
        if is_aside_done && (is_over || is_decided) {
            break;
        }
        tokio::select! {
            () = &mut aside, if !is_aside_done => is_aside_done = true,
            more = answer.more(), if !is_over => is_over = !more,
            () = sleep_until(until), if !is_over => is_over = true,
            () = sleep(decides), if is_aside_done && target.window.is_none() => {}
        }
    }
    drop(aside);
    facts.watched = answer.elapsed();
    facts.stream = Some(answer.stream.clone());
}

/// How much later than its period a heartbeat may come.
pub(crate) fn slack(period: Duration) -> Duration {
    PROMPT.max(period / 2)
}

/// Returns the time until the stream was watched for long enough: until two heartbeats came, or a
/// heartbeat is certainly missing. A busy stream has no heartbeats.
fn decides_in(stream: &Stream, now: Duration) -> Duration {
    match stream.period() {
        None if stream.open.is_some() => Duration::MAX,
        Some(period) if stream.heartbeats < 2 => (2 * period + slack(period)).saturating_sub(now),
        _ => Duration::ZERO,
    }
}

/// The requests beside the first stream.
async fn aside(target: &Target, first: &Stream, facts: &mut Facts) {
    let Some(position) = &first.position else { return };
    let resumed = resume(target, &facts.url, position).await;
    let is_resumed = matches!(&resumed, Ok(opening) if opening.is_resumed());
    let is_fresh = matches!(&resumed, Ok(opening) if opening.is_fresh());
    let is_silent = matches!(resumed, Err(Failure::Silent));
    facts.resumed = Some(resumed);
    if is_fresh {
        facts.by_header = Some(resume(target, &facts.url, NO_ID).await);
    }
    let is_lost = matches!(&facts.by_header, Some(Ok(opening)) if opening.is_fresh());
    if is_lost || is_silent {
        let query = facts.url.query().map(|query| format!("{query}&")).unwrap_or_default();
        let path = format!("{}?{query}lastEventId={NO_ID}", facts.url.path());
        let mut parts = facts.url.clone().into_parts();
        parts.path_and_query = path.parse().ok();
        let url = Uri::from_parts(parts).expect("a path instead of a path");
        facts.by_query = Some(open(target, &url, &[]).await);
    }
    let is_http2 = facts.first.as_ref().is_ok_and(|head| head.version == Version::HTTP_2);
    if is_http2 && !is_silent {
        let older = Target { protocols: &[b"http/1.1"], ..target.clone() };
        facts.by_http1 = Some(open(&older, &facts.url, &[]).await);
    }
    // Directly before all events of the hub: a compressor may wait for a long first item.
    if let Some(id) = position.parse::<EventId>().ok().filter(|_| is_resumed) {
        let begin = EventId::new(id.epoch(), 0).to_string();
        facts.replayed = Some(resume(target, &facts.url, &begin).await);
    }
}

impl Opening {
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.open.as_ref().is_some_and(|(_, open)| open.resumed)
    }

    /// Returns true if the hub took the client for a new client.
    pub(crate) fn is_fresh(&self) -> bool {
        self.stream.open.is_some() && !self.is_resumed() && self.stream.gap.is_none()
    }

    /// Returns true if the id of the request has reached the hub.
    pub(crate) fn has_effect(&self) -> bool {
        self.stream.open.is_some() && !self.is_fresh()
    }
}

async fn resume(target: &Target, url: &Uri, id: &str) -> Result<Opening, Failure> {
    open(target, url, &[(LAST_EVENT_ID, id)]).await
}

/// Opens a stream, and reads its first events.
async fn open(
    target: &Target,
    url: &Uri,
    headers: &[(HeaderName, &str)],
) -> Result<Opening, Failure> {
    /// The time between `hub:open` and a gap, which usually come together.
    const TOGETHER: Duration = Duration::from_millis(500);
    let mut answer = target.ask(Method::GET, url, headers).await?;
    if answer.head.is_stream() && answer.head.compression().is_none() {
        answer.read(PATIENCE, |stream| stream.open.is_some() || stream.refused.is_some()).await;
        let is_settled = |stream: &Stream| {
            let is_resumed = stream.open.as_ref().is_none_or(|(_, open)| open.resumed);
            is_resumed || stream.gap.is_some()
        };
        answer.read(TOGETHER, is_settled).await;
        if answer.stream.open.is_none() && answer.stream.end.is_none() {
            return Err(Failure::Silent);
        }
    }
    Ok(Opening { head: answer.head.clone(), stream: answer.stream.clone() })
}

async fn head(target: &Target, url: &Uri) -> Result<Head, Failure> {
    target.ask(Method::HEAD, url, &[]).await.map(|answer| answer.head.clone())
}

/// Asks as a page of another origin that sends headers. Returns `None` without an origin.
async fn preflight(target: &Target, url: &Uri) -> Option<Result<Head, Failure>> {
    target.origin.as_ref()?;
    let asked = [
        (ACCESS_CONTROL_REQUEST_METHOD, "GET"),
        (ACCESS_CONTROL_REQUEST_HEADERS, "cache-control,last-event-id"),
    ];
    // A browser sends no cookie and no token with this request.
    let page = Target { headers: hyper::HeaderMap::new(), ..target.clone() };
    Some(page.ask(Method::OPTIONS, url, &asked).await.map(|answer| answer.head.clone()))
}
