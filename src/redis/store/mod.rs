//! The keys in Redis: how they are written, and how their contents are read.

pub(crate) mod changes;
pub(crate) mod clock;
pub(crate) mod entry;
pub(crate) mod lease;
pub(crate) mod outbox;
pub(crate) mod script;
pub(crate) mod tail;
