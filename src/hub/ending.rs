//! How streams end: by the hub, by their time, or because they are not read.

use std::cmp::Reverse;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::config::Config;
use super::later::Later;
use super::shared::{Client, Inbox, Shared, State};
use super::telemetry;
use crate::error::DisconnectError;
use crate::log::audience::Audience;
use crate::wire::event::Event;
use crate::wire::frame;

/// Why a stream ended. [`Stats::ended`](crate::Stats::ended) counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The subscription was dropped: the client went away, or the handler gave up.
    Left,
    /// The hub was closed.
    Closed,
    /// The hub was drained.
    Drained,
    /// The application disconnected the client.
    Disconnected,
    /// Its [deadline](crate::Subscriber::until) came.
    Expired,
    /// Its [lifetime](crate::HubBuilder::lifetime) was over.
    Lifetime,
    /// It was not read though events waited.
    Stalled,
    /// It missed events and the hub is set to [end such streams](crate::HubBuilder::end_lagging).
    Lagged,
    /// A newer client of its user or session took its place.
    Displaced,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Left,
        Self::Closed,
        Self::Drained,
        Self::Disconnected,
        Self::Expired,
        Self::Lifetime,
        Self::Stalled,
        Self::Lagged,
        Self::Displaced,
    ];

    /// One word for it, as `hub:end` carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Closed => "closed",
            Self::Drained => "drained",
            Self::Disconnected => "disconnected",
            Self::Expired => "expired",
            Self::Lifetime => "lifetime",
            Self::Stalled => "stalled",
            Self::Lagged => "lagged",
            Self::Displaced => "displaced",
        }
    }

    /// Whether the client gets what was published before.
    const fn delivers_the_rest(self) -> bool {
        matches!(self, Self::Closed | Self::Drained | Self::Lifetime | Self::Displaced)
    }
}

/// The end of a stream, once it was decided.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: EndReason,
    /// What is sent last, until it was.
    pub(super) last: Option<Bytes>,
}

impl End {
    /// An end that is told in the stream.
    pub(super) fn told(reason: EndReason, client: &Client, config: &Config) -> Self {
        Self { reason, last: Some(frame::end(reason.as_str(), config.retry(client.id))) }
    }

    pub(super) fn is_immediate(&self) -> bool {
        !self.reason.delivers_the_rest()
    }
}

/// When a stream is to end, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Until {
    pub(crate) at: Instant,
    pub(crate) reason: EndReason,
}

impl Inbox {
    /// Ends the stream, if nothing has yet.
    pub(super) fn end(&mut self, end: impl FnOnce() -> End) -> Option<Waker> {
        self.end.get_or_insert_with(end);
        self.waker.take()
    }

    /// Brings the stream's end forward.
    pub(super) fn end_by(&mut self, until: Until) {
        if self.until.is_none_or(|earlier| until.at < earlier.at) {
            self.until = Some(until);
        }
    }
}

impl State {
    /// Ends a stream and forgets its client at once. Whoever polls the stream next finds its end.
    pub(super) fn expel(
        &mut self,
        slot: usize,
        end: impl FnOnce(&Client) -> End,
        later: &mut Later,
    ) {
        let Some(client) = self.routes.get(slot).map(Arc::clone) else { return };
        let reason = {
            let mut inbox = client.inbox.lock();
            inbox.end.get_or_insert_with(|| end(&client)).reason
        };
        self.forget(slot, reason, later);
    }

    /// Ends streams that have not been read for too long though something waits for them: a few at a time, so that
    /// whoever finds them is not held up.
    ///
    /// A stalled stream cannot notice by itself. The server does not poll it, so no timer inside it goes off; others do,
    /// as they publish, connect and send heartbeats.
    pub(super) fn expel_stalled(&mut self, now: Instant, config: &Config, later: &mut Later) {
        const FEW: usize = 64;
        let Some(limit) = config.stall else { return };
        for _ in 0..FEW {
            match self.watched.peek() {
                Some(Reverse(oldest)) if now.saturating_duration_since(oldest.since) >= limit => {}
                _ => return,
            }
            let Some(Reverse(Watched { slot, serial, .. })) = self.watched.pop() else { return };
            let Some(client) = self.routes.get(slot).filter(|client| client.serial == serial)
            else {
                continue;
            };
            let client = Arc::clone(client);
            let mut inbox = client.inbox.lock();
            match inbox.mailbox.waiting_since() {
                None => inbox.watched = false,
                Some(since) if now.saturating_duration_since(since) < limit => {
                    self.watched.push(Reverse(Watched { since, slot, serial }));
                }
                Some(_) => {
                    drop(inbox);
                    self.expel(slot, |_| End { reason: EndReason::Stalled, last: None }, later);
                }
            }
        }
    }
}

/// A client for which something waits, and since when at the earliest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Watched {
    pub(super) since: Instant,
    pub(super) slot: usize,
    pub(super) serial: u64,
}

impl Shared {
    /// Ends the streams of an audience at once. `last` is sent before the end.
    pub(crate) fn disconnect(
        &self,
        audience: &Audience,
        reason: &str,
        last: Option<Event>,
    ) -> Result<usize, DisconnectError> {
        audience.check(self.config.limits.name_len)?;
        let of_a_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=64).contains(&reason.len()) || !reason.bytes().all(of_a_word) {
            return Err(DisconnectError::Reason);
        }
        last.as_ref().map_or(Ok(()), Event::check_for_hub)?;
        let last = last.map(Event::encode).transpose()?.unwrap_or_default();

        let mut later = Later::default();
        let mut state = self.state.lock();
        let slots = state.matching(audience);
        for &slot in &slots {
            let end = |client: &Client| {
                let mut frames = BytesMut::from(&last[..]);
                frames.extend_from_slice(&frame::end(reason, self.config.retry(client.id)));
                End { reason: EndReason::Disconnected, last: Some(frames.freeze()) }
            };
            state.expel(slot, end, &mut later);
        }
        drop(state);
        later.run();
        Ok(slots.len())
    }

    /// Ends the hub: nothing is published or let in any more, and streams end after what was published before.
    pub(crate) fn close(&self) {
        let mut order = self.order.lock();
        if order.closed {
            return;
        }
        order.closed = true;
        let mut state = self.state.lock();
        state.closed = true;
        let mut later = Later::default();
        later.extend(state.end_all(|_| End { reason: EndReason::Closed, last: None }));
        state.end_presence(&mut later);
        let (clients, published) = (state.routes.len(), state.counts.published);
        drop(state);
        drop(order);
        later.run();
        telemetry::closed(clients, published);
    }
}

impl State {
    /// Tells every stream to end.
    pub(super) fn end_all(&self, end: impl Fn(&Client) -> End) -> Vec<Waker> {
        let clients = self.routes.iter();
        clients.filter_map(|(_, client)| client.inbox.lock().end(|| end(client))).collect()
    }
}
