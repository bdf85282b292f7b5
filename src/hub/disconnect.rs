//! Ending streams: of an audience, at once or after their backlog, and of the whole hub.

use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::shared::Shared;
use crate::core::backplane::Outgoing;
use crate::core::client::Client;
use crate::core::deferred::Work;
use crate::core::end::{End, EndReason, Goodbye};
use crate::core::inbox::Inbox;
use crate::core::receipt::Affected;
use crate::core::run::Told;
use crate::core::state::{Lifecycle, State};
use crate::core::telemetry;
use crate::error::{DisconnectError, RunError};
use crate::log::audience::Audience;
use crate::log::codec::{self, Action, Command, EndKind};
use crate::log::recipients::Recipients;
use crate::log::runs::RunState;
use crate::sync::{self, contain_panic};
use crate::wire::event::Event;
use crate::wire::frame::{self, Sealed};

/// Ends the streams of an audience, on every instance.
pub(super) fn end_streams(
    shared: &Shared,
    audience: Audience,
    kind: EndKind,
    goodbye: Goodbye,
) -> Result<Affected, DisconnectError> {
    audience.check(shared.config.limits.name_len)?;
    let Goodbye { reason, event } = goodbye;
    event.as_ref().map_or(Ok(()), Event::check_for_hub)?;
    let last = event.map(Event::seal);
    let recipients = Recipients::new(&audience, &shared.hasher);
    if let Some(backplane) = &shared.config.backplane {
        let affected = preview(&shared.state.lock(), &recipients, kind);
        let action = Action::End { kind, reason: reason.into(), last };
        let command = Command { audience, action };
        sync::assert_unlocked();
        backplane.send(Outgoing::new(codec::write_command(&command), None))?;
        return Ok(affected);
    }
    let last = last.map(Sealed::finish_without_id).unwrap_or_default();
    let mut work = Work::begin(&shared.config);
    let ended = {
        // Without the ordering lock, an event under way could reach some of the streams only.
        let _order = shared.order.lock_long();
        let mut state = shared.state.lock();
        end_now(&mut state, &recipients, kind, &reason, &last, &mut work)
    };
    work.run();
    Ok(ended)
}

/// Returns the streams of this instance that an end would reach now.
fn preview(state: &State, audience: &Recipients, kind: EndKind) -> Affected {
    let slots = state.routes.matching(audience);
    let clients = slots.iter().filter_map(|&slot| state.routes.get(slot));
    let changed = clients.filter(|client| would_end(state, &client.lock(), kind)).count();
    Affected { matched: slots.len(), changed }
}

/// Whether an end of this kind changes a stream.
fn would_end(state: &State, inbox: &Inbox, kind: EndKind) -> bool {
    match kind {
        EndKind::Disconnect => inbox.ending().accepts(EndReason::Disconnected),
        // A client beyond the log's head has read past this place in the order on another instance,
        // or its id is of no order and a gap is due. Its stream was opened after the finish.
        EndKind::Finish => {
            inbox.mailbox.cursor() <= state.log.head()
                && inbox.ending().accepts(EndReason::Finished)
        }
    }
}

/// Ends the streams of an audience, each with the frames `last` and `hub:end`.
pub(super) fn end_now(
    state: &mut State,
    audience: &Recipients,
    kind: EndKind,
    reason: &str,
    last: &[u8],
    work: &mut Work<'_>,
) -> Affected {
    let slots = state.routes.matching(audience);
    let mut changed = 0;
    let config = work.config;
    let frames = |client: &Client, is_final| -> Bytes {
        let mut frames = BytesMut::from(last);
        frames.extend_from_slice(&frame::end(reason, config.retry(client.id), is_final));
        frames.freeze()
    };
    for &slot in &slots {
        let Some(client) = state.routes.get(slot) else { continue };
        let is_ended = would_end(state, &client.lock(), kind);
        changed += usize::from(is_ended);
        match kind {
            // A stream that is over is forgotten here, too.
            EndKind::Disconnect => {
                let end = |client: &Client| End {
                    reason: EndReason::Disconnected,
                    last: Some(frames(client, false)),
                };
                state.expel(slot, end, work);
            }
            EndKind::Finish if is_ended => {
                let last = Some(frames(client, true));
                let end = End { reason: EndReason::Finished, last };
                work.extend(client.lock().end(end));
            }
            EndKind::Finish => {}
        }
    }
    Affected { matched: slots.len(), changed }
}

/// Closes the hub: no event is published and no client let in any more, and streams end after their
/// backlog.
pub(super) fn close(shared: &Shared) {
    let mut work = Work::begin_release(&shared.config);
    let mut order = shared.order.lock_long();
    if order.is_closed {
        return;
    }
    order.is_closed = true;
    let mut state = shared.state.lock();
    state.lifecycle = Lifecycle::Closed;
    state.end_all(EndReason::Closed, &mut work);
    let remote = state.attendance.as_mut().and_then(|attendance| attendance.close(&mut work));
    let producers = mem::take(&mut state.producers);
    let (clients, published) = (state.routes.len(), shared.published(state.counts.published));
    drop(state);
    drop(order);
    drop(remote);
    let has_backplane = shared.config.backplane.is_some();
    for producer in producers.into_values() {
        if has_backplane && !producer.has_ended() {
            let end = producer.default_end(RunState::Abandoned);
            work.send_run_end(Arc::clone(&producer.name), producer.id, end);
        }
        work.tell(producer, Told::Over(RunError::Closed, "closed".into()));
    }
    work.run();
    if let Some(backplane) = &shared.config.backplane {
        sync::assert_unlocked();
        contain_panic(|| backplane.on_close());
    }
    contain_panic(|| telemetry::closed(clients, published));
}
