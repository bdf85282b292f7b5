//! The log and what reads it: plain types behind `&mut self`, without locks, wakers, clocks or async.

pub(crate) mod audience;
pub(crate) mod command;
pub(crate) mod departed;
pub(crate) mod history;
#[expect(clippy::module_inception, reason = "it is the log, on the floor named for it")]
pub(crate) mod log;
pub(crate) mod lost;
pub(crate) mod mailbox;
pub(crate) mod packed;
pub(crate) mod retain;
pub(crate) mod routes;
