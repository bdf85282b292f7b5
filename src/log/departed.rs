use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::audience::ClientId;

/// The clients that left last, so that one that returns with its id can be known as the same.
///
/// Bounded: those that left first are forgotten first.
#[derive(Debug)]
pub(crate) struct Departed {
    owners: HashMap<ClientId, (Owner, u64)>,
    /// Who left, and when in the order of leaving. One that left again stands here twice, and the last counts.
    order: VecDeque<(ClientId, u64)>,
    count: u64,
    capacity: usize,
}

/// Whose client it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: Option<Arc<str>>,
    pub(crate) session: Option<Arc<str>>,
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
        if self.order.len() > 2 * self.capacity {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|&(client, at)| self.is_latest(client, at));
            self.order = order;
        }
    }

    /// Whether this client was here, as the same user in the same session.
    pub(crate) fn was(&self, client: ClientId, owner: &Owner) -> bool {
        self.owners.get(&client).is_some_and(|(known, _)| known == owner)
    }

    fn is_latest(&self, client: ClientId, at: u64) -> bool {
        self.owners.get(&client).is_some_and(|&(_, latest)| latest == at)
    }
}
