use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use crate::time::deadline::IdleDeadline;
use crate::time::heartbeat::Heartbeat;
use crate::time::timer::Timer;
use crate::wire::event::{Event, EventError};
use crate::wire::frame::Draft;

pin_project_lite::pin_project! {
    /// One's own stream: the events of any `Stream`, without a hub, as bytes for one client.
    ///
    /// For what is made for a single request: the tokens of a language model, the progress of a job, the rows of an
    /// export. Its items are [`Event`]s or `Result`s of them ([`IntoEvent`]), and what comes out is a `Stream` of
    /// `Bytes` with heartbeats, to be written to the response as they come: an axum handler returns it (feature `axum`),
    /// `sse_hub::http::response` makes a response of it (feature `http`).
    ///
    /// ```
    /// use std::fmt;
    /// use futures_util::{Stream, StreamExt as _, stream};
    /// use sse_hub::{Event, EventStream, ManualTimer, Timer};
    ///
    /// # struct ModelError;
    /// # impl fmt::Display for ModelError {
    /// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("overloaded") }
    /// # }
    /// fn answer(
    ///     tokens: impl Stream<Item = Result<String, ModelError>>,
    ///     timer: impl Timer, // In a service: `TokioTimer::new()`, feature `tokio`.
    /// ) -> EventStream<impl Stream<Item = Result<Event, ModelError>>> {
    ///     let tokens = tokens.map(|token| Ok(Event::new("token").data(token?)));
    ///     let done = stream::iter([Ok(Event::new("done"))]);
    ///     EventStream::new(tokens.chain(done), timer)
    /// }
    ///
    /// # futures_executor::block_on(async {
    /// let tokens = stream::iter([Ok("Hel".to_owned()), Ok("lo".to_owned())]);
    /// let frames: Vec<_> = answer(tokens, ManualTimer::new()).collect().await;
    /// assert_eq!(frames, [
    ///     "event: token\ndata: Hel\n\n",
    ///     "event: token\ndata: lo\n\n",
    ///     "event: done\ndata: \n\n",
    /// ]);
    ///
    /// let tokens = stream::iter([Ok("Hel".to_owned()), Err(ModelError)]);
    /// let frames: Vec<_> = answer(tokens, ManualTimer::new()).collect().await;
    /// assert_eq!(frames[1], "event: hub:error\ndata: {\"reason\":\"error\"}\n\n");
    /// # });
    /// ```
    ///
    /// # Ends, errors and coming back
    ///
    /// It ends when the inner stream does. An `Err`, and an event that cannot be sent ([`Event::check`]), end it too,
    /// after a last event `hub:error` whose data is JSON: the `reason` is `error` or `invalid-event`. The error's text
    /// stays in the server unless [`show_errors`](Self::show_errors) is asked for. An invalid event is a fault of the
    /// program; it and an `Err` are logged at `DEBUG`, and the inner stream is the place to do more.
    /// The inner stream is dropped as soon as it has ended or failed.
    ///
    /// A browser's `EventSource` takes every end for a lost connection and asks again. A page that has all it wants
    /// closes it: send an event that says so, as `done` does above, and listen for `hub:error` too. Without ids nothing
    /// tells the next request from the first, and it starts over. Where it could go on instead, give the events ids
    /// ([`Event::id`]) and read the request's `Last-Event-ID` header, in which anything may arrive
    /// ([`LastEventId`](crate::LastEventId) understands the ids of hubs only). There is no first frame: unlike a hub's,
    /// the stream begins with its own events.
    ///
    /// # Cancel safety
    ///
    /// An item is taken off the inner stream only when its bytes are returned, so a `next()` that is dropped before it
    /// is ready loses nothing. Dropping the stream drops the inner one.
    #[must_use = "streams do nothing unless polled"]
    pub struct EventStream<S> {
        // Gone once the stream has ended.
        #[pin]
        events: Option<S>,
        // Gone once it was sent.
        retry: Option<Duration>,
        show_errors: bool,
        heartbeat: Heartbeat,
        idle: IdleDeadline,
        timer: Box<dyn Timer>,
    }
}

impl<S> EventStream<S>
where
    S: Stream,
    S::Item: IntoEvent,
{
    /// Sends what `events` yields, with the usual [`Heartbeat`]s by `timer`.
    pub fn new(events: S, timer: impl Timer) -> Self {
        let heartbeat = Heartbeat::default();
        Self {
            events: Some(events),
            retry: None,
            show_errors: false,
            heartbeat,
            idle: IdleDeadline::new(heartbeat),
            timer: Box::new(timer),
        }
    }
}

impl<S> EventStream<S> {
    /// Sets what is sent while no event is ready.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self.idle = IdleDeadline::new(heartbeat);
        self
    }

    /// Tells the client first of all how long to wait before it reconnects. Below a millisecond and above 24 days
    /// it is as invalid as [`Event::retry`] is, and the stream consists of `hub:error`.
    pub fn retry(mut self, retry: Duration) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Adds the text of the error that ends the stream to its `hub:error`, as `message`. The client reads it: it must
    /// hold nothing that is not for its eyes.
    pub fn show_errors(mut self) -> Self {
        self.show_errors = true;
        self
    }
}

impl<S> Stream for EventStream<S>
where
    S: Stream,
    S::Item: IntoEvent,
{
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut this = self.project();
        let Some(events) = this.events.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let encoded = match this.retry.take() {
            Some(retry) => Event::default().retry(retry).encode().map_err(invalid),
            None => match events.poll_next(cx) {
                Poll::Ready(Some(item)) => encode(item, *this.show_errors),
                Poll::Ready(None) => {
                    this.events.set(None);
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let due = this.idle.poll(cx, &**this.timer, None);
                    return due.map(|_| Some(this.heartbeat.frame()));
                }
            },
        };
        this.idle.restart();
        Poll::Ready(Some(encoded.unwrap_or_else(|last| {
            this.events.set(None);
            last
        })))
    }
}

impl<S> fmt::Debug for EventStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("ended", &self.events.is_none())
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

/// What the stream in an [`EventStream`] yields: an [`Event`], or a `Result<Event, E>` whose error can be displayed.
///
/// Purposefully sealed: anything else is mapped to one of the two.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an `Event` nor a `Result<Event, E>` whose error can be displayed",
    label = "a stream of these cannot be sent",
    note = "turn the items into events first: `stream.map(|item| Event::new(\"item\").data(item))`"
)]
pub trait IntoEvent: sealed::IntoEvent {}

impl IntoEvent for Event {}

impl<E: fmt::Display> IntoEvent for Result<Event, E> {}

mod sealed {
    use super::{Event, fmt};

    #[expect(unnameable_types, reason = "it seals")]
    pub trait IntoEvent {
        type Error: fmt::Display;

        fn into_event(self) -> Result<Event, Self::Error>;
    }
}

impl sealed::IntoEvent for Event {
    type Error = Infallible;

    fn into_event(self) -> Result<Event, Infallible> {
        Ok(self)
    }
}

impl<E: fmt::Display> sealed::IntoEvent for Result<Event, E> {
    type Error = E;

    fn into_event(self) -> Self {
        self
    }
}

/// The item's frame, or the last one of the stream.
fn encode(item: impl IntoEvent, show_errors: bool) -> Result<Bytes, Bytes> {
    match item.into_event() {
        Ok(event) => event.encode().map_err(invalid),
        Err(error) => {
            tracing::debug!(target: "sse_hub", %error, "event stream failed");
            Err(last("error", show_errors.then_some(&error as &dyn fmt::Display)))
        }
    }
}

fn invalid(error: EventError) -> Bytes {
    tracing::debug!(target: "sse_hub", %error, "event stream has an invalid event");
    last("invalid-event", None)
}

fn last(reason: &str, message: Option<&dyn fmt::Display>) -> Bytes {
    let mut data = format!("{{\"reason\":\"{reason}\"");
    if let Some(message) = message {
        data.push_str(",\"message\":\"");
        // Not `to_string`, which panics where a `Display` fails: what it has written by then is told.
        let _ = write!(JsonText(&mut data), "{message}");
        data.push('"');
    }
    data.push('}');
    let mut draft = Draft::default();
    draft.set_type("hub:error");
    draft.set_data(data.as_bytes());
    draft.seal(None, None).finish_without_id()
}

/// Writes text as the inside of a JSON string.
struct JsonText<'a>(&'a mut String);

impl fmt::Write for JsonText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                '\0'..='\u{1F}' => write!(self.0, "\\u{:04x}", u32::from(character))?,
                _ => self.0.push(character),
            }
        }
        Ok(())
    }
}
