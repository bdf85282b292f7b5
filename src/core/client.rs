//! A client, as publishers see it.

use std::sync::{Arc, OnceLock};
use std::task::Wake;

use super::inbox::{InboxGuard, Place};
use crate::log::identity::Filter;
use crate::log::key::ClientId;
use crate::wire::id::EventId;

/// An open stream.
///
/// A client is the waker of the stream's timer. So the timer need not be polled anew when another
/// task polls the stream, and a stream knows without asking the timer or the clock that no deadline
/// has passed.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    /// The number of this client among all clients that the hub ever let in. Tells clients apart
    /// that had the same slot.
    pub(crate) serial: u64,
    pub(crate) filter: Filter,
    /// The stream is complete when all runs that it reads have ended.
    pub(crate) ends_with_runs: bool,
    /// Where the stream began. Set when the client is let in.
    pub(crate) start: OnceLock<EventId>,
    /// The stream began with the values up to `start`.
    pub(crate) has_values: bool,
    pub(crate) place: Place,
}

impl Client {
    pub(crate) fn lock(&self) -> InboxGuard<'_> {
        self.place.lock()
    }
}

impl Wake for Client {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // If the stream was dropped in this moment, the place may belong to another client: its
        // stream then looks at the clock once too often.
        let waker = self.lock().fire();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The tag of a member of a key: the number of the inbox, and whether the client has a filter.
pub(crate) fn tag(client: &Client) -> u32 {
    client.place.number() << 1 | u32::from(client.filter != Filter::Everything)
}

/// Returns the number of the inbox, and whether the client has a filter.
pub(crate) fn untagged(tag: u32) -> (u32, bool) {
    (tag >> 1, tag & 1 == 1)
}

#[cfg(all(test, not(sse_hub_loom)))]
pub(crate) mod tests {
    use super::*;

    /// A client without a filter.
    pub(crate) fn client(serial: u64, place: Place) -> Arc<Client> {
        Arc::new(Client {
            id: "00112233445566778899aabbccddeeff".parse().unwrap(),
            serial,
            filter: Filter::Everything,
            ends_with_runs: false,
            start: OnceLock::new(),
            has_values: false,
            place,
        })
    }
}
