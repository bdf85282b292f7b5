//! The clients that left recently.

use std::collections::{BTreeMap, HashMap};

use super::key::ClientId;
use super::profile::Owner;

/// Remembers the clients that left last, so that a returning client can keep its id.
///
/// Bounded: the client that left first is forgotten first.
#[derive(Debug)]
pub(crate) struct Departed {
    /// The owner of each client, and the number of the client's latest departure.
    owners: HashMap<ClientId, (Owner, u64)>,
    /// The clients by the numbers of their latest departures.
    order: BTreeMap<u64, ClientId>,
    count: u64,
    capacity: usize,
}

impl Departed {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { owners: HashMap::new(), order: BTreeMap::new(), count: 0, capacity }
    }

    pub(crate) fn remember(&mut self, client: ClientId, owner: Owner) {
        self.count += 1;
        if let Some((_, earlier)) = self.owners.insert(client, (owner, self.count)) {
            self.order.remove(&earlier);
        }
        self.order.insert(self.count, client);
        while self.owners.len() > self.capacity {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.owners.remove(&oldest);
        }
    }

    /// Returns whether this client left recently, as the same user and in the same session.
    pub(crate) fn was(&self, client: ClientId, owner: &Owner) -> bool {
        self.owners.get(&client).is_some_and(|(known, _)| known == owner)
    }

    /// Returns whether this client is remembered, of any owner.
    pub(crate) fn knows(&self, client: ClientId) -> bool {
        self.owners.contains_key(&client)
    }
}
