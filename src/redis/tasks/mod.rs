//! The tasks of a backplane: each has one connection and one loop.

pub(crate) mod announcer;
pub(crate) mod history;
pub(crate) mod observer;
pub(crate) mod reader;
pub(crate) mod sender;
