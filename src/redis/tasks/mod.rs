//! The tasks of a backplane: each has a connection and a loop.

pub(crate) mod announcer;
pub(crate) mod history;
pub(crate) mod keeper;
pub(crate) mod observer;
pub(crate) mod producers;
mod read_size;
pub(crate) mod reader;
pub(crate) mod sender;
mod sync_health;
