//! Clients that came with an id that the log has not reached.
//!
//! Such a client was on an instance that has read further, or its id is of no order. The hub lets the
//! client in at its own position. If the end of the order lies before that position, the client is
//! moved, and told a gap.

use std::sync::Arc;

use super::client::Client;
use crate::log::log::Log;
use crate::log::routes::Routes;
use crate::wire::id::EventId;

/// The clients that had come ahead of the log up to a moment.
///
/// [`Feed::ahead`](crate::backplane::Feed::ahead) returns it, and
/// [`Feed::disown`](crate::backplane::Feed::disown) takes it.
#[derive(Debug, Clone, Copy)]
pub struct AheadUpTo(u64);

/// Clients ahead of the log, by serial number.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    clients: Vec<AheadClient>,
}

#[derive(Debug)]
struct AheadClient {
    slot: usize,
    serial: u64,
    /// Where the client stands.
    id: EventId,
}

impl Ahead {
    pub(crate) fn add(
        &mut self,
        slot: usize,
        client: &Client,
        id: EventId,
        log: &Log,
        routes: &Routes<Arc<Client>>,
    ) {
        self.clients.push(AheadClient { slot, serial: client.serial, id });
        if self.clients.len() > routes.prune_at() {
            self.prune(log, routes);
        }
    }

    /// Names the clients that are ahead now; `None` if there are none.
    pub(crate) fn mark(&mut self, log: &Log, routes: &Routes<Arc<Client>>) -> Option<AheadUpTo> {
        self.prune(log, routes);
        self.clients.last().map(|last| AheadUpTo(last.serial))
    }

    /// Takes the slots of the named clients whose id lies after `end`, the end of the order.
    #[must_use]
    pub(crate) fn take_disowned(
        &mut self,
        mark: AheadUpTo,
        end: EventId,
        log: &Log,
        routes: &Routes<Arc<Client>>,
    ) -> Vec<usize> {
        self.prune(log, routes);
        let is_disowned = |ahead: &mut AheadClient| ahead.serial <= mark.0 && ahead.id > end;
        self.clients.extract_if(.., is_disowned).map(|ahead| ahead.slot).collect()
    }

    /// Forgets clients that left, or that the log has reached.
    fn prune(&mut self, log: &Log, routes: &Routes<Arc<Client>>) {
        self.clients.retain(|ahead| {
            let is_here =
                routes.get(ahead.slot).is_some_and(|client| client.serial == ahead.serial);
            is_here && ahead.id > log.head()
        });
    }
}
