//! The clients that left recently.

use std::collections::{HashMap, VecDeque};

use super::key::ClientId;
use super::profile::Owner;

/// Remembers the clients that left last, so that a returning client can keep its id.
///
/// Bounded: the client that left first is forgotten first.
#[derive(Debug)]
pub(crate) struct Departed {
    owners: HashMap<ClientId, (Owner, u64)>,
    /// Departures in order, each with its number. A client that left twice has two rows; the row
    /// with the number in `owners` is the valid row.
    order: VecDeque<(ClientId, u64)>,
    count: u64,
    capacity: usize,
}

impl Departed {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { owners: HashMap::new(), order: VecDeque::new(), count: 0, capacity }
    }

    pub(crate) fn remember(&mut self, client: ClientId, owner: Owner) {
        self.count += 1;
        self.owners.insert(client, (owner, self.count));
        self.order.push_back((client, self.count));
        while self.owners.len() > self.capacity {
            let Some((client, at)) = self.order.pop_front() else { break };
            if self.is_latest(client, at) {
                self.owners.remove(&client);
            }
        }
        // Clients that return and leave again add rows without adding owners.
        if self.order.len() > 2 * self.capacity {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|&(client, at)| self.is_latest(client, at));
            self.order = order;
        }
    }

    /// Returns whether this client left recently, as the same user and in the same session.
    pub(crate) fn was(&self, client: ClientId, owner: &Owner) -> bool {
        self.owners.get(&client).is_some_and(|(known, _)| known == owner)
    }

    /// Whether this client is remembered, whoever its owner is.
    pub(crate) fn knows(&self, client: ClientId) -> bool {
        self.owners.contains_key(&client)
    }

    fn is_latest(&self, client: ClientId, at: u64) -> bool {
        self.owners.get(&client).is_some_and(|&(_, latest)| latest == at)
    }
}
