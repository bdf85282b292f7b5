//! How the hub ends streams.

use bytes::BytesMut;

use super::end::{End, EndReason};
use super::later::Later;
use super::shared::Shared;
use super::state::Client;
use super::telemetry;
use crate::error::DisconnectError;
use crate::log::audience::Audience;
use crate::wire::event::Event;
use crate::wire::frame;

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
        state.end_all(EndReason::Closed, &mut later);
        if let Some(roster) = &mut state.presence {
            roster.close(&mut later);
        }
        let (clients, published) = (state.routes.len(), state.counts.published);
        drop(state);
        drop(order);
        later.run();
        if let Some(backplane) = &self.config.backplane {
            backplane.close();
        }
        telemetry::closed(clients, published);
    }

    /// Ends streams that are not read, on the occasion of another stream's heartbeat, and lets go of what is kept beyond
    /// the retention.
    pub(crate) fn look_around(&self) {
        const MANY: usize = 1024;
        if self.config.stall.is_none() && self.config.history.is_none() {
            return;
        }
        let now = self.config.timer.now();
        let (mut later, mut evicted) = (Later::default(), Vec::new());
        let mut state = self.state.lock();
        state.lower(now, MANY, &mut evicted);
        state.expel_stalled(now, &self.config, &mut later);
        drop(state);
        drop(evicted);
        later.run();
    }
}
