//! A reader of streams for tests.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Waker, ready};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;

use super::frame::{Frame, Parser};
use crate::error::Refused;
use crate::hub::hub::Hub;
use crate::hub::subscriber::Subscriber;
use crate::log::key::ClientId;
use crate::wire::id::EventId;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Source = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// The time that a waiting method waits, unless [`Reader::patience`] sets another.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most frames that a single call reads: a stream may be endless.
const MOST_FRAMES: usize = 100_000;

/// The frames that a failure shows.
const SHOWN_FRAMES: usize = 16;

/// Reads a stream as a page does, and returns its [frames](Frame).
///
/// Reads a [`Subscription`](crate::Subscription), an [`EventStream`](crate::EventStream), or, with
/// feature `http`, the response of a handler. Heartbeats that are comments are
/// [counted](Self::heartbeats), and are no frames.
///
/// [`next`](Self::next) and [`until`](Self::until) wait, on any runtime, and fail after ten seconds
/// of real time ([`patience`](Self::patience)). The other methods return the frames that are ready,
/// and suit a [`ManualTimer`](crate::ManualTimer).
///
/// ```
/// use sse_hub::testing::Reader;
/// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let mut tab = Reader::new(hub.subscribe(Subscriber::new().user("ann"))?);
/// hub.send_to_user("ann", Event::new("paid").data("17"))?;
///
/// let [open, paid] = <[_; 2]>::try_from(tab.all_ready()).unwrap();
/// assert_eq!(open.client_id(), tab.client_id());
/// assert_eq!((paid.event.as_str(), paid.data.as_str()), ("paid", "17"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Every method that reads panics if
///
/// - the bytes are not those of an event stream: a line with an unknown field or with CR, or an
///   end within a frame,
/// - the body of a response breaks, or
/// - a single call reads 100,000 frames.
///
/// # Cancel safety
///
/// Dropping `next()` before the future is ready loses nothing. Dropping `until()` loses the frames
/// that were skipped.
pub struct Reader {
    /// `None` after the end of the stream, or after a cut.
    source: Option<Source>,
    parser: Parser,
    /// Read, and not returned yet.
    ready: VecDeque<Frame>,
    /// Why nothing more can be read. Reported after the frames before.
    fault: Option<String>,
    heartbeats: usize,
    client: Option<ClientId>,
    position: Option<EventId>,
    patience: Duration,
    /// The last returned frames, as text.
    shown: VecDeque<String>,
}

impl Reader {
    /// Creates a reader of a [`Subscription`](crate::Subscription), an
    /// [`EventStream`](crate::EventStream), or another stream of bytes.
    pub fn new(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::of_source(Box::pin(Whole { stream: Box::pin(stream) }))
    }

    fn of_source(source: Source) -> Self {
        Self {
            source: Some(source),
            parser: Parser::default(),
            ready: VecDeque::new(),
            fault: None,
            heartbeats: 0,
            client: None,
            position: None,
            patience: PATIENCE,
            shown: VecDeque::new(),
        }
    }

    /// Creates a reader of the response of a handler, or of a client's request.
    ///
    /// ```
    /// use sse_hub::testing::Reader;
    /// use sse_hub::{Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let response = sse_hub::http::into_response(hub.subscribe(Subscriber::new()));
    /// assert_eq!(Reader::of_response(response).all_ready()[0].event, "hub:open");
    /// # Ok::<(), sse_hub::ConfigError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics unless the response has status 200 and the content type `text/event-stream`.
    #[cfg(feature = "http")]
    #[track_caller]
    pub fn of_response<B>(response: http::Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(http::header::CONTENT_TYPE);
        let is_stream =
            content_type.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
        assert!(
            head.status == http::StatusCode::OK && is_stream,
            "the response is no event stream: status {}, content type {content_type:?}",
            head.status,
        );
        Self::of_source(Box::pin(OfBody { body: Box::pin(body) }))
    }

    /// Sets the real time that [`next`](Self::next) and [`until`](Self::until) wait: ten seconds by
    /// default.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Waits for the next frame. Returns `None` at the end of the stream.
    ///
    /// # Panics
    ///
    /// Panics if no frame comes in [time](Self::patience), and see [`Reader`].
    #[track_caller]
    #[expect(clippy::should_implement_trait, reason = "the lint does not see that this is async")]
    pub fn next(&mut self) -> impl Future<Output = Option<Frame>> + Send {
        let (caller, mut alarm) = (Location::caller(), Alarm::new(self.patience));
        poll_fn(move |cx| match self.poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(self.expect(frame, caller)),
            Poll::Pending if alarm.has_rung(cx) => self.fail("no frame came in time", caller),
            Poll::Pending => Poll::Pending,
        })
    }

    /// Waits for the next frame of a type, and skips all other frames.
    ///
    /// ```
    /// use sse_hub::testing::Reader;
    /// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
    ///
    /// # futures_executor::block_on(async {
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let mut tab = Reader::new(hub.subscribe(Subscriber::new())?);
    /// hub.broadcast(Event::new("news").data("1"))?;
    /// hub.broadcast(Event::new("price").data("17"))?;
    /// assert_eq!(tab.until("price").await.data, "17");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if no such frame comes in [time](Self::patience) or before the end, and see
    /// [`Reader`].
    #[track_caller]
    pub fn until(&mut self, event_type: &str) -> impl Future<Output = Frame> + Send {
        let (caller, mut alarm) = (Location::caller(), Alarm::new(self.patience));
        let mut count = 0;
        poll_fn(move |cx| {
            loop {
                let problem = match self.poll_frame(cx) {
                    Poll::Ready(frame) => match self.expect(frame, caller) {
                        Some(frame) if frame.event == event_type => {
                            return Poll::Ready(frame);
                        }
                        Some(_) if count < MOST_FRAMES => {
                            count += 1;
                            continue;
                        }
                        Some(_) => "too many frames came before",
                        None => "the stream ended before",
                    },
                    Poll::Pending if alarm.has_rung(cx) => "the time ended before",
                    Poll::Pending => return Poll::Pending,
                };
                self.fail(&format!("{problem} `{event_type}`"), caller)
            }
        })
    }

    /// Returns the next frame, if a frame is ready.
    ///
    /// # Panics
    ///
    /// See [`Reader`].
    #[track_caller]
    pub fn try_next(&mut self) -> Option<Frame> {
        match self.poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => self.expect(frame, Location::caller()),
            Poll::Pending => None,
        }
    }

    /// Returns all frames that are ready, with those of the hub.
    ///
    /// # Panics
    ///
    /// See [`Reader`].
    #[track_caller]
    pub fn all_ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.try_next() {
            frames.push(frame);
            if frames.len() > MOST_FRAMES {
                self.fail("the stream has too many frames", Location::caller());
            }
        }
        frames
    }

    /// Returns the data of all events of the application that are ready. Drops the frames of the
    /// hub.
    ///
    /// # Panics
    ///
    /// See [`Reader`].
    #[track_caller]
    pub fn all_data(&mut self) -> Vec<String> {
        let frames = self.all_ready().into_iter();
        frames.filter(|frame| !frame.is_of_hub()).map(|frame| frame.data).collect()
    }

    /// Returns whether the stream has ended and all frames were returned. Reads the stream, if no
    /// frame is left.
    ///
    /// # Panics
    ///
    /// See [`Reader`].
    #[track_caller]
    pub fn has_ended(&mut self) -> bool {
        if self.ready.is_empty() {
            let read = self.poll_source(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(frame) = read {
                self.ready.extend(self.expect(frame, Location::caller()));
            }
        }
        self.ready.is_empty() && self.source.is_none()
    }

    /// Returns the number of heartbeats so far. An event `hub:heartbeat` is a frame, and does not
    /// count.
    #[must_use]
    pub fn heartbeats(&self) -> usize {
        self.heartbeats
    }

    /// Returns the client id that the last `hub:open` named.
    #[must_use]
    pub fn client_id(&self) -> Option<ClientId> {
        self.client
    }

    /// Returns the id that the page would send as `Last-Event-ID`: that of the last returned frame
    /// with an id.
    #[must_use]
    pub fn position(&self) -> Option<EventId> {
        self.position
    }

    /// Cuts the connection: drops the stream. The reader loses the frames that are not returned
    /// yet, as a page does.
    pub fn cut(&mut self) {
        self.source = None;
        self.parser = Parser::default();
        self.ready.clear();
        self.fault = None;
    }

    /// Cuts the connection, and connects again as a page does: with the last id and the client id.
    ///
    /// `hub` is the same hub, another [instance](super::Instance), or a new hub for a server that
    /// restarted.
    ///
    /// ```
    /// use sse_hub::testing::Reader;
    /// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let ann = || Subscriber::new().user("ann");
    /// let mut tab = Reader::new(hub.subscribe(ann())?);
    /// hub.send_to_user("ann", Event::new("paid").data("1"))?;
    /// assert_eq!(tab.all_data(), ["1"]);
    ///
    /// tab.cut();
    /// hub.send_to_user("ann", Event::new("paid").data("2"))?;
    /// tab.reconnect(&hub, ann())?;
    /// assert_eq!(tab.all_data(), ["2"]);
    ///
    /// let restarted = Hub::builder(ManualTimer::new()).build()?;
    /// tab.reconnect(&restarted, ann())?;
    /// assert_eq!(tab.all_ready()[1].event, "hub:gap");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the hub's refusal. The reader is then without a stream.
    pub fn reconnect(&mut self, hub: &Hub, client: Subscriber) -> Result<(), Refused> {
        self.cut();
        let client = self.position.into_iter().fold(client, Subscriber::resume);
        let client = self.client.into_iter().fold(client, Subscriber::client_id);
        self.source = Some(Box::pin(Whole { stream: Box::pin(hub.subscribe(client)?) }));
        Ok(())
    }

    /// Returns the next frame, and notes that the page has received the frame.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, String>> {
        let read = self.poll_source(cx);
        if let Poll::Ready(Ok(Some(frame))) = &read {
            self.position = frame.id.or(self.position);
            self.client = frame.client_id().or(self.client);
            if self.shown.len() == SHOWN_FRAMES {
                self.shown.pop_front();
            }
            self.shown.push_back(frame.to_string());
        }
        read
    }

    /// Returns the next frame. Reads the stream until a frame is complete.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, String>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Ok(Some(frame)));
            }
            if let Some(fault) = &self.fault {
                return Poll::Ready(Err(fault.clone()));
            }
            let Some(source) = &mut self.source else { return Poll::Ready(Ok(None)) };
            let read = match ready!(source.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) => self.parser.read(&bytes, &mut self.ready, &mut self.heartbeats),
                Some(Err(error)) => Err(format!("the stream broke: {error}")),
                None => {
                    self.source = None;
                    self.parser.end()
                }
            };
            self.fault = read.err();
        }
    }

    fn expect<T>(&self, read: Result<T, String>, caller: &Location<'_>) -> T {
        read.unwrap_or_else(|problem| self.fail(&problem, caller))
    }

    fn fail(&self, problem: &str, caller: &Location<'_>) -> ! {
        let mut shown = String::new();
        for frame in &self.shown {
            shown.push_str("\n  ");
            shown.push_str(frame);
        }
        let seen = if shown.is_empty() { "no frame was read" } else { "the last frames were:" };
        panic!("{caller}: {problem}; {seen}{shown}");
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("client_id", &self.client)
            .field("position", &self.position)
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

/// A stream that cannot break.
struct Whole<S> {
    stream: Pin<Box<S>>,
}

impl<S: Stream<Item = Bytes>> Stream for Whole<S> {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(cx).map(|item| item.map(Ok))
    }
}

/// The body of a response, without trailers.
#[cfg(feature = "http")]
struct OfBody<B> {
    body: Pin<Box<B>>,
}

#[cfg(feature = "http")]
impl<B: http_body::Body<Data = Bytes, Error: Into<BoxError>>> Stream for OfBody<B> {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(self.body.as_mut().poll_frame(cx)) {
                None => None,
                Some(Err(error)) => Some(Err(error.into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Some(Ok(bytes)),
                    Err(_) => continue,
                },
            });
        }
    }
}

/// Wakes the task of a waiting method at a deadline of real time, without a runtime.
struct Alarm {
    deadline: Instant,
    /// The task that a thread wakes. The thread ends when the sender is dropped.
    armed: Option<(Waker, mpsc::Sender<()>)>,
}

impl Alarm {
    fn new(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, armed: None }
    }

    /// Returns whether the deadline has passed. If not, the task is woken then.
    fn has_rung(&mut self, cx: &Context<'_>) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if !self.armed.as_ref().is_some_and(|(waker, _)| waker.will_wake(cx.waker())) {
            let (sender, ended) = mpsc::channel();
            let waker = cx.waker().clone();
            thread::spawn(move || {
                if ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                    waker.wake();
                }
            });
            self.armed = Some((cx.waker().clone(), sender));
        }
        false
    }
}
