//! The newest value of each conflation key, beyond the retention.
//!
//! A value that the retention would evict moves here, and stays until a later event replaces it or
//! the bound of values evicts it. Values are part of the log: a read of the log finds a value here
//! as it finds a retained event, so there is no second way to read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::{Entry, Listed};
use super::evicted::Evicted;
use super::hash::KeyMap;
use super::identity::Identity;
use super::key::Key;
use super::retain::Values;
use crate::wire::id::EventId;

/// The values that outlive the retention.
#[derive(Debug)]
pub(super) struct Kept {
    most: Values,
    order: BTreeMap<EventId, Arc<Entry>>,
    /// The sum of the weights of the values.
    bytes: usize,
    /// The values of each key, in id order.
    index: KeyMap<Listed>,
    /// The values that the bound evicted. Only a client that begins with the values needs to know
    /// these apart from other evicted events.
    lost: Evicted,
    /// How many values the bound has evicted.
    evictions: u64,
}

impl Kept {
    /// `rows`: how many rows the record of lost values may have.
    pub(super) fn new(most: Values, rows: usize) -> Self {
        Self {
            most,
            order: BTreeMap::new(),
            bytes: 0,
            index: KeyMap::new(),
            // A value can be from before the log, if another instance kept the value.
            lost: Evicted::new(rows, EventId::ORIGIN),
            evictions: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many values the bound has evicted so far.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Returns whether a value fits within the bound alone. Otherwise it would evict all others.
    pub(super) fn fits(&self, value: &Entry) -> bool {
        value.weight() <= self.most.bytes
    }

    /// Adds a value. The caller must then [take the surplus](Self::take_surplus).
    pub(super) fn add(&mut self, value: Arc<Entry>) {
        self.bytes += value.weight();
        for (hash, key) in value.hashed_keys() {
            let values = self.index.get_or_default(hash, key);
            if values.is_empty() {
                // Many names have a single value.
                values.reserve_exact(1);
            }
            // Mostly the newest: the retention evicts the oldest event first, unless a topic has a
            // limit of its own.
            let at = values.partition_point(|&(id, _)| id < value.id);
            values.insert(at, (value.id, Arc::clone(&value)));
        }
        self.order.insert(value.id, value);
    }

    /// Removes a value.
    pub(super) fn take(&mut self, id: EventId) -> Option<Arc<Entry>> {
        let value = self.order.remove(&id)?;
        self.bytes -= value.weight();
        for (hash, key) in value.hashed_keys() {
            let Some(values) = self.index.get_mut(hash, key) else { continue };
            if let Ok(at) = values.binary_search_by_key(&id, |&(id, _)| id) {
                values.remove(at);
            }
            if values.is_empty() {
                self.index.remove(hash, key);
            }
        }
        Some(value)
    }

    /// Removes a value beyond the bound, the oldest first, and records the value as lost.
    pub(super) fn take_surplus(&mut self) -> Option<Arc<Entry>> {
        if self.order.len() <= self.most.keys && self.bytes <= self.most.bytes {
            return None;
        }
        let oldest = *self.order.keys().next()?;
        let value = self.take(oldest)?;
        self.note_lost(&value);
        Some(value)
    }

    /// Records a value as lost.
    pub(super) fn note_lost(&mut self, value: &Entry) {
        self.evictions += 1;
        self.lost.record_for_holders(value.id, &value.hashes);
    }

    /// Returns the newest value for this client after `after` that the bound has evicted.
    pub(super) fn lost_since(&self, after: EventId, client: Identity<'_>) -> Option<EventId> {
        self.lost.since(after, after, client)
    }

    /// Returns the values under a key, in id order.
    pub(super) fn under(&self, hash: u64, key: &Key) -> Option<&Listed> {
        self.index.get(hash, key)
    }

    /// Returns the values before a position, the newest first.
    pub(super) fn newest_before(
        &self,
        before: EventId,
    ) -> impl Iterator<Item = (EventId, &Arc<Entry>)> {
        self.order.range(..before).rev().map(|(&id, value)| (id, value))
    }
}
