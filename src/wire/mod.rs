//! The wire format: events, ids and their bytes. Nothing here knows of hubs, clients or time.

pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod id;
pub(crate) mod received;
