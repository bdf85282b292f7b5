//! How the hub ends streams.

use bytes::BytesMut;

use super::backplane::{Outgoing, Unsent};
use super::config::Config;
use super::end::{End, EndReason};
use super::later::Later;
use super::shared::Shared;
use super::state::{Client, State};
use super::telemetry;
use crate::error::DisconnectError;
use crate::log::audience::Audience;
use crate::log::codec::{self, Action, Command};
use crate::wire::event::Event;
use crate::wire::frame::{self, Sealed};

impl Shared {
    /// Ends the streams of an audience at once. `last` is sent before the end.
    pub(crate) fn disconnect(
        &self,
        audience: &Audience,
        reason: &str,
        last: Option<Event>,
    ) -> Result<usize, DisconnectError> {
        audience.check(self.config.limits.name_len)?;
        if !codec::is_reason(reason) {
            return Err(DisconnectError::Reason);
        }
        last.as_ref().map_or(Ok(()), Event::check_for_hub)?;
        let last = last.map(Event::seal);
        if let Some(backplane) = &self.config.backplane {
            let matched = self.count(audience);
            let action = Action::Disconnect { reason: reason.into(), last };
            let command = Command { audience: audience.clone(), action };
            backplane.send(Outgoing::of(&command)).map_err(not_sent)?;
            return Ok(matched);
        }
        let last = last.map(Sealed::finish_without_id).unwrap_or_default();
        let mut later = Later::default();
        let ended = self.state.lock().disconnect(audience, reason, &last, &self.config, &mut later);
        later.run();
        Ok(ended)
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
        // Of those who are still to go nobody is told one by one: the instance is gone.
        let elsewhere = state.elsewhere.take();
        let (clients, published) = (state.routes.len(), state.counts.published);
        drop(state);
        drop(order);
        drop(elsewhere);
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

fn not_sent(unsent: Unsent) -> DisconnectError {
    match unsent {
        Unsent::Full => DisconnectError::Backlog,
        Unsent::Closed => DisconnectError::Closed,
    }
}

impl State {
    /// Ends the streams of an audience at once, each with these frames and the word for its end, and counts them.
    pub(super) fn disconnect(
        &mut self,
        audience: &Audience,
        reason: &str,
        last: &[u8],
        config: &Config,
        later: &mut Later,
    ) -> usize {
        let slots = self.matching(audience);
        for &slot in &slots {
            let end = |client: &Client| {
                let mut frames = BytesMut::from(last);
                frames.extend_from_slice(&frame::end(reason, config.retry(client.id)));
                End { reason: EndReason::Disconnected, last: Some(frames.freeze()) }
            };
            self.expel(slot, end, later);
        }
        slots.len()
    }
}
