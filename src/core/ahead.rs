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

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use super::*;
    use crate::core::client::tests::client;
    use crate::core::end::Ending;
    use crate::core::inbox::{Inbox, Inboxes};
    use crate::log::hash::KeyHasher;
    use crate::log::mailbox::Mailbox;
    use crate::log::retain::{Retain, RunLimits};

    const fn id(count: u64) -> EventId {
        EventId::new(1, count)
    }

    struct World {
        log: Log,
        routes: Routes<Arc<Client>>,
        inboxes: Inboxes,
        serial: u64,
        ahead: Ahead,
    }

    impl World {
        fn new() -> Self {
            let hasher = KeyHasher::default;
            Self {
                log: Log::new(Retain::default(), RunLimits::default(), id(5), hasher()),
                routes: Routes::new(hasher()),
                inboxes: Inboxes::default(),
                serial: 0,
                ahead: Ahead::default(),
            }
        }

        /// Lets in a client at a position that the log has not reached.
        fn come(&mut self, position: u64) -> usize {
            let mailbox = Mailbox::live(id(position));
            let place = self.inboxes.add(Inbox::new(mailbox, Ending::open(None, None)));
            self.serial += 1;
            let client = client(self.serial, place);
            let slot = self.routes.add(Vec::new(), Arc::clone(&client), 0);
            self.ahead.add(slot, &client, id(position), &self.log, &self.routes);
            slot
        }

        fn mark(&mut self) -> Option<AheadUpTo> {
            self.ahead.mark(&self.log, &self.routes)
        }
    }

    #[test]
    fn record_of_clients_ahead_shrinks_when_they_leave() {
        let mut world = World::new();
        let crowd: Vec<usize> = (0..1000).map(|_| world.come(9)).collect();
        crowd.into_iter().for_each(|slot| drop(world.routes.remove(slot)));
        world.come(9);
        assert_eq!(world.ahead.clients.len(), 1);
    }

    #[test]
    fn only_clients_beyond_the_end_are_disowned() {
        let mut world = World::new();
        let [_, _, beyond] = [7, 8, 9].map(|position| world.come(position));
        let mark = world.mark().expect("clients are ahead");
        let World { log, routes, ahead, .. } = &mut world;
        assert_eq!(ahead.take_disowned(mark, id(8), log, routes), [beyond]);
        log.pass(id(8));
        assert!(world.mark().is_none(), "the log has reached the others");
    }
}
