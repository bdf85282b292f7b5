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
    /// A stream without a hub: the events of any `Stream`, encoded for one client.
    ///
    /// Use an `EventStream` for the events of a single request: the tokens of a language model, the
    /// progress of a job, the rows of an export. The inner stream yields [`Event`]s or `Result`s of
    /// them ([`IntoEvent`]). `EventStream` is a `Stream` of `Bytes` with heartbeats, which the
    /// server writes to the response as they come. An axum handler or a warp filter returns the
    /// `EventStream` (features `axum` and `warp`); for other servers,
    /// `sse_hub::http::stream_response` makes a response (feature `http`).
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
    ///     let events = tokens.map(|token| Ok(Event::new("token").data(token?)));
    ///     EventStream::new(events, timer).final_event("done")
    /// }
    ///
    /// # futures_executor::block_on(async {
    /// let tokens = stream::iter([Ok("Hel".to_owned()), Ok("lo".to_owned())]);
    /// let frames: Vec<_> = answer(tokens, ManualTimer::new()).collect().await;
    /// assert_eq!(frames, [
    ///     "event: token\ndata: Hel\n\n",
    ///     "event: token\ndata: lo\n\n",
    ///     "event: hub:end\ndata: {\"reason\":\"done\",\"final\":true}\n\n",
    /// ]);
    ///
    /// let tokens = stream::iter([Ok("Hel".to_owned()), Err(ModelError)]);
    /// let frames: Vec<_> = answer(tokens, ManualTimer::new()).collect().await;
    /// assert_eq!(frames[1], "event: hub:error\ndata: {\"reason\":\"error\"}\n\n");
    /// # });
    /// ```
    ///
    /// # Ends and reconnects
    ///
    /// The stream ends when the inner stream ends. A browser's `EventSource` takes every end for a
    /// lost connection and connects again, and without ids the server cannot tell the second
    /// request from the first. Set [`final_event`](Self::final_event), so that the page closes the
    /// stream. If a lost connection should continue instead of starting over, give the events ids
    /// ([`Event::id`]) and read the `Last-Event-ID` header of the request. Any bytes may arrive in
    /// that header; [`LastEventId`](crate::LastEventId) parses only the ids of hubs. Unlike the
    /// stream of a hub, this stream has no first frame of its own.
    ///
    /// # Errors
    ///
    /// An `Err` from the inner stream, or an event that fails [`Event::check`], ends the stream.
    /// The last event is then `hub:error`, with JSON data: `reason` is `error` or `invalid-event`.
    /// The text of the error stays in the server, unless [`show_errors`](Self::show_errors) is on.
    /// Both are logged at `DEBUG`. The inner stream is dropped at once when it ends or fails.
    ///
    /// # Cancel safety
    ///
    /// `EventStream` takes an item from the inner stream only in the call that returns its bytes,
    /// so dropping a pending `next()` loses no event. Dropping the `EventStream` drops the inner
    /// stream.
    #[must_use = "streams do nothing unless polled"]
    pub struct EventStream<S> {
        // `None` after the end.
        #[pin]
        events: Option<S>,
        // `None` after the first item.
        retry: Option<Duration>,
        final_reason: Option<Box<str>>,
        show_errors: bool,
        heartbeat: Option<Heartbeat>,
        idle: IdleDeadline,
        timer: Box<dyn Timer>,
    }
}

impl<S> EventStream<S>
where
    S: Stream,
    S::Item: IntoEvent,
{
    /// Sends the items of `events`, with the default [`Heartbeat`] on `timer`.
    pub fn new(events: S, timer: impl Timer) -> Self {
        let heartbeat = Some(Heartbeat::default());
        Self {
            events: Some(events),
            retry: None,
            final_reason: None,
            show_errors: false,
            heartbeat,
            idle: IdleDeadline::new(heartbeat),
            timer: Box::new(timer),
        }
    }
}

impl<S> EventStream<S> {
    /// Sets the heartbeat that is sent while no event is ready; `None` for no heartbeats.
    pub fn heartbeat(mut self, heartbeat: impl Into<Option<Heartbeat>>) -> Self {
        self.heartbeat = heartbeat.into();
        self.idle = IdleDeadline::new(self.heartbeat);
        self
    }

    /// Sends the client's reconnect delay as the first item. A delay below a millisecond or above
    /// 24 days is invalid, as for [`Event::retry`]: the stream then consists of `hub:error`.
    pub fn retry(mut self, retry: Duration) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Sends `hub:end` after the last event of the inner stream, with the JSON data
    /// `{"reason": reason, "final": true}`: the answer is complete, and the client must not connect
    /// again. `reason` is a word for the page, such as `done`.
    ///
    /// `sse-client.js` and `useSSE` stop at this event. A page with a native `EventSource` must
    /// close the stream:
    ///
    /// ```text
    /// stream.addEventListener("hub:end", (end) => JSON.parse(end.data).final && stream.close());
    /// ```
    ///
    /// If the page does not, the `EventSource` asks again. Give the last event an id, and answer a
    /// request that brings this id with `204`, which stops every `EventSource`
    /// (`sse_hub::http::stop_response`).
    ///
    /// A stream that fails ends with `hub:error` and without this event: the client may try again.
    pub fn final_event(mut self, reason: impl Into<Box<str>>) -> Self {
        self.final_reason = Some(reason.into());
        self
    }

    /// Sets whether `hub:error` contains the text of the inner stream's error, as `message`. The
    /// default is `false`. The client reads this text, so the text must not contain secrets.
    pub fn show_errors(mut self, is_on: bool) -> Self {
        self.show_errors = is_on;
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
                    return Poll::Ready(this.final_reason.take().map(|reason| final_end(&reason)));
                }
                Poll::Pending => {
                    let due = this.idle.poll(cx, &**this.timer, None);
                    return due.map(|_| this.heartbeat.map(|heartbeat| heartbeat.frame(None)));
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

/// An item of the stream in an [`EventStream`]: an [`Event`], or a `Result<Event, E>` whose error
/// implements `Display`.
///
/// Purposefully sealed: map other items to one of the two.
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

    #[expect(unnameable_types, reason = "the trait is a seal")]
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

/// Returns the frame of the item, or as an error the last frame of the stream.
fn encode(item: impl IntoEvent, show_errors: bool) -> Result<Bytes, Bytes> {
    match item.into_event() {
        Ok(event) => event.encode().map_err(invalid),
        Err(error) => {
            tracing::debug!(target: "sse_hub", %error, "event stream failed");
            Err(failed("error", show_errors.then_some(&error as &dyn fmt::Display)))
        }
    }
}

fn invalid(error: EventError) -> Bytes {
    tracing::debug!(target: "sse_hub", %error, "event stream has an invalid event");
    failed("invalid-event", None)
}

fn failed(reason: &str, message: Option<&dyn fmt::Display>) -> Bytes {
    let mut data = format!("{{\"reason\":\"{reason}\"");
    if let Some(message) = message {
        data.push_str(",\"message\":");
        push_json(&mut data, message);
    }
    data.push('}');
    frame("hub:error", &data)
}

fn final_end(reason: &str) -> Bytes {
    let mut data = "{\"reason\":".to_owned();
    push_json(&mut data, reason);
    data.push_str(",\"final\":true}");
    frame("hub:end", &data)
}

fn frame(event_type: &str, data: &str) -> Bytes {
    let mut draft = Draft::default();
    draft.set_type(event_type);
    draft.set_data(data.as_bytes());
    draft.seal(None, None).finish_without_id()
}

/// Appends `text` as a JSON string.
fn push_json(data: &mut String, text: impl fmt::Display) {
    data.push('"');
    // `to_string` would panic if the `Display` fails. Here the text up to the failure stays.
    let _ = write!(JsonText(data), "{text}");
    data.push('"');
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
