//! The wire format: events, ids and their bytes. Independent of hubs, clients and time.

pub(crate) mod decode;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod id;
#[cfg(feature = "json")]
pub(crate) mod text;
pub(crate) mod traceparent;
