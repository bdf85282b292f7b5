use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::audience::ClientId;

/// The clients that left last, so that one that returns with its id can be known as the same.
///
/// Bounded: the oldest are forgotten first.
#[derive(Debug)]
pub(crate) struct Departed {
    owners: HashMap<ClientId, Owner>,
    order: VecDeque<ClientId>,
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
        Self { owners: HashMap::new(), order: VecDeque::new(), capacity }
    }

    pub(crate) fn remember(&mut self, client: ClientId, owner: Owner) {
        if self.owners.insert(client, owner).is_none() {
            self.order.push_back(client);
        }
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }

    /// Whether this client was here, as the same user in the same session.
    pub(crate) fn was(&self, client: ClientId, owner: &Owner) -> bool {
        self.owners.get(&client) == Some(owner)
    }
}
