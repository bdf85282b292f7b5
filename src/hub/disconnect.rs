//! Ending streams: of an audience, at once or after their backlog, and of the whole hub.

use std::mem;
use std::sync::Arc;

use super::crowd;
use super::shared::{self, Shared};
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
use crate::wire::id::EventId;

/// The most clients that one hold of the state lock forgets. loom explores every order.
const FORGOTTEN: usize = if cfg!(sse_hub_loom) { 1 } else { 64 };

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
        let visit = |state: &State, _, client: &Client| would_end(state, &client.lock(), kind);
        let affected = affected(&crowd::find(shared, &recipients, visit));
        let action = Action::End { kind, reason: reason.into(), last };
        let command = Command { audience, action };
        sync::assert_unlocked();
        backplane.send(Outgoing::new(codec::write_command(&command), None))?;
        return Ok(affected);
    }
    let last = last.map(Sealed::finish_without_id).unwrap_or_default();
    let ends = Ends { audience: &recipients, kind, reason: &reason, last: &last };
    let mut work = Work::begin(&shared.config);
    work.expect_wakers(crowd::most(shared, &recipients));
    let found = {
        // Without the ordering lock, an event under way could reach some of the streams only.
        let _order = shared.order.lock();
        end(shared, &ends, &mut work)
    };
    work.run();
    if kind == EndKind::Disconnect {
        // The streams take no event any more, so publishers need not wait for this.
        for piece in found.chunks(FORGOTTEN) {
            let mut work = Work::begin(&shared.config);
            forget(shared, piece, &mut work);
            work.run();
        }
    }
    Ok(affected(&found))
}

/// An end of the streams of an audience, each with the frames `last` and `hub:end`.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) audience: &'a Recipients,
    pub(super) kind: EndKind,
    pub(super) reason: &'a str,
    pub(super) last: &'a [u8],
}

/// A client of an end, and whether the end changes its stream.
type Found = crowd::Found<bool>;

fn affected(found: &[Found]) -> Affected {
    let changed = found.iter().filter(|found| found.visit).count();
    Affected { matched: found.len(), changed }
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

/// Ends streams for a caller that holds the ordering lock, and forgets the clients that were
/// disconnected.
pub(super) fn end_in_order(shared: &Shared, ends: &Ends<'_>, work: &mut Work<'_>) {
    let found = end(shared, ends, work);
    if ends.kind == EndKind::Disconnect {
        found.chunks(FORGOTTEN).for_each(|piece| forget(shared, piece, work));
    }
}

/// Ends streams. The caller holds the ordering lock, so that all streams end at one place among the
/// events. The state lock is released between two pieces of the crowd.
fn end(shared: &Shared, ends: &Ends<'_>, work: &mut Work<'_>) -> Vec<Found> {
    let Ends { audience, kind, reason, last } = *ends;
    let config = &shared.config;
    let (reason_of_end, is_final) = match kind {
        EndKind::Disconnect => (EndReason::Disconnected, false),
        EndKind::Finish => (EndReason::Finished, true),
    };
    crowd::find(shared, audience, |state, _, client| {
        let mut inbox = client.lock();
        let is_ended = would_end(state, &inbox, kind);
        if is_ended {
            let end = frame::end(reason, config.retry(client.id), is_final);
            let frames = [last, &*end].concat();
            let end = End { reason: reason_of_end, last: Some(frames.into()) };
            work.wake_later(inbox.end(end));
        }
        is_ended
    })
}

/// Forgets clients whose streams are over.
fn forget(shared: &Shared, clients: &[Found], work: &mut Work<'_>) {
    let mut state = shared.state.lock();
    for Found { slot, client, .. } in clients {
        shared::forget(&mut state, *slot, client, work);
    }
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
    // No engine brings older events any more.
    state.held.release_readers(EventId::LAST, &mut work);
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
