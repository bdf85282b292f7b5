//! The part of a stream before the live events: the first frames, and a snapshot.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use super::admission::Start;
use crate::sync;
use crate::wire::event::Event;
use crate::wire::frame::{self, Sealed};
use crate::wire::id::EventId;

/// The most events of a snapshot in an item: a source that always has events must not keep other
/// tasks from running.
const LOADED: usize = 64;

/// The part of a stream before the live events.
pub(super) enum Opening {
    /// Nothing has been sent so far.
    First(First),
    /// After the first frames: the rest of the snapshot comes from the application.
    Load(Load),
}

/// The first frames: `hub:open`, a gap if events are missing, and the events of a snapshot.
pub(super) struct First {
    pub(super) start: Start,
    /// The newest event at the time of the subscription.
    pub(super) head: EventId,
    /// The request asks for the last events, which exclude a snapshot.
    pub(super) asks_for_replay: bool,
    pub(super) snapshot: Vec<Event>,
    /// Further events of the snapshot.
    pub(super) source: Option<Source>,
}

impl First {
    pub(super) fn has_snapshot(&self) -> bool {
        !self.snapshot.is_empty() || self.source.is_some()
    }

    /// Where the stream continues after a snapshot.
    pub(super) fn position(&self) -> EventId {
        self.head.max(self.start.position())
    }
}

/// A snapshot that comes from the application, a few events at a time.
pub(super) struct Load {
    source: Source,
    /// The newest event of the snapshot. Held back, because the last event carries the position.
    newest: Option<Sealed>,
    position: EventId,
}

/// The next part of a snapshot.
pub(super) enum Loaded {
    /// Some events.
    Part(Bytes),
    /// The last events. They move the client to where the stream continues.
    Last(Bytes),
    /// The application failed, or an event cannot be sent.
    Failed(BoxError),
}

type BoxError = Box<dyn Error + Send + Sync>;

/// A stream of the application.
///
/// The mutex is never locked. A subscription is `Sync`, and the stream need not be.
pub(super) struct Source(Mutex<Box<dyn Events>>);

trait Events: Send {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, BoxError>>>;
}

impl<S, E> Events for Pin<Box<S>>
where
    S: Stream<Item = Result<Event, E>> + Send,
    E: Into<BoxError>,
{
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, BoxError>>> {
        self.as_mut().poll_next(cx).map(|next| next.map(|event| event.map_err(Into::into)))
    }
}

impl Source {
    pub(super) fn new<S, E>(events: S) -> Self
    where
        S: Stream<Item = Result<Event, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Mutex::new(Box::new(Box::pin(events))))
    }

    /// Returns the next event, if it can be sent.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Sealed, BoxError>>> {
        let events = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The stream is foreign code.
        sync::assert_unlocked();
        events.poll_next(cx).map(|next| {
            next.map(|event| {
                let event = event?;
                event.check_for_hub()?;
                Ok(event.seal())
            })
        })
    }
}

impl Load {
    pub(super) fn new(source: Source, position: EventId) -> Self {
        Self { source, newest: None, position }
    }

    /// Returns the next events of the snapshot, of about `bytes` bytes at most.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Loaded> {
        let mut frames = Vec::new();
        // An event more, because the newest is held back.
        for _ in 0..=LOADED {
            if frames.len() >= bytes {
                break;
            }
            match self.source.poll_next(cx) {
                Poll::Ready(Some(Ok(event))) => {
                    if let Some(event) = self.newest.replace(event) {
                        frames.extend_from_slice(&event.finish_without_id());
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Loaded::Failed(error)),
                Poll::Ready(None) => {
                    let last = self.newest.take().map(|event| event.finish(self.position));
                    let last = last
                        .map_or_else(|| frame::position(self.position), |last| last.into_bytes());
                    frames.extend_from_slice(&last);
                    return Poll::Ready(Loaded::Last(frames.into()));
                }
                Poll::Pending if frames.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Loaded::Part(frames.into()))
    }
}
