//! Ending streams: of an audience, at once or after their backlog, and of the whole hub.

use bytes::{Bytes, BytesMut};

use super::shared::Shared;
use crate::core::backplane::Outgoing;
use crate::core::client::Client;
use crate::core::deferred::Work;
use crate::core::end::{End, EndReason, Goodbye};
use crate::core::state::{Lifecycle, State};
use crate::core::telemetry;
use crate::error::DisconnectError;
use crate::log::audience::Audience;
use crate::log::codec::{self, Action, Command, EndKind};
use crate::sync::{self, contain_panic};
use crate::wire::event::Event;
use crate::wire::frame::{self, Sealed};

/// Ends the streams of an audience. Returns how many streams of this instance match.
pub(super) fn end_streams(
    shared: &Shared,
    audience: Audience,
    kind: EndKind,
    goodbye: Goodbye,
) -> Result<usize, DisconnectError> {
    audience.check(shared.config.limits.name_len)?;
    let Goodbye { reason, event } = goodbye;
    event.as_ref().map_or(Ok(()), Event::check_for_hub)?;
    let last = event.map(Event::seal);
    if let Some(backplane) = &shared.config.backplane {
        let matched = shared.count(&audience);
        let action = Action::End { kind, reason: reason.into(), last };
        let command = Command { audience, action };
        sync::assert_unlocked();
        backplane.send(Outgoing::new(codec::write_command(&command), None))?;
        return Ok(matched);
    }
    let last = last.map(Sealed::finish_without_id).unwrap_or_default();
    let mut work = Work::begin(&shared.config);
    let ended = {
        // Without the ordering lock, an event under way could reach some of the streams only.
        let _order = shared.order.lock();
        let mut state = shared.state.lock();
        end_now(&mut state, &audience, kind, &reason, &last, &mut work)
    };
    work.run();
    Ok(ended)
}

/// Ends the streams of an audience, each with the frames `last` and `hub:end`. Returns how many.
pub(super) fn end_now(
    state: &mut State,
    audience: &Audience,
    kind: EndKind,
    reason: &str,
    last: &[u8],
    work: &mut Work<'_>,
) -> usize {
    let slots = state.matching(audience);
    let config = work.config;
    let frames = |client: &Client, is_final| -> Bytes {
        let mut frames = BytesMut::from(last);
        frames.extend_from_slice(&frame::end(reason, config.retry(client.id), is_final));
        frames.freeze()
    };
    for &slot in &slots {
        match kind {
            EndKind::Disconnect => {
                let end = |client: &Client| End {
                    reason: EndReason::Disconnected,
                    last: Some(frames(client, false)),
                };
                state.expel(slot, end, work);
            }
            EndKind::Finish => {
                let Some(client) = state.routes.get(slot) else { continue };
                let last = Some(frames(client, true));
                let end = End { reason: EndReason::Finished, last };
                let mut inbox = client.lock();
                // The client has read past this place in the order on another instance, or its id
                // is of no order and a gap is due. Its stream was opened after the finish.
                if inbox.mailbox.cursor() <= state.log.head() {
                    work.extend(inbox.end(end));
                }
            }
        }
    }
    slots.len()
}

/// Closes the hub: no event is published and no client let in any more, and streams end after their
/// backlog.
pub(super) fn close(shared: &Shared) {
    let mut work = Work::begin_release(&shared.config);
    let mut order = shared.order.lock();
    if order.is_closed {
        return;
    }
    order.is_closed = true;
    let mut state = shared.state.lock();
    state.lifecycle = Lifecycle::Closed;
    state.end_all(EndReason::Closed, &mut work);
    if let Some(roster) = &mut state.roster {
        roster.close(&mut work);
    }
    // Other instances hear that this one is gone, not that single users left.
    let remote = state.remote.take();
    let (clients, published) = (state.routes.len(), shared.published(state.counts.published));
    drop(state);
    drop(order);
    drop(remote);
    work.run();
    if let Some(backplane) = &shared.config.backplane {
        sync::assert_unlocked();
        contain_panic(|| backplane.on_close());
    }
    contain_panic(|| telemetry::closed(clients, published));
}
