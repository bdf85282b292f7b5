//! The log and its readers: plain types behind `&mut self`, without locks, wakers, clocks or async.

pub(crate) mod audience;
pub(crate) mod away;
pub(crate) mod codec;
pub(crate) mod departed;
pub(crate) mod entry;
pub(crate) mod evicted;
pub(crate) mod hash;
pub(crate) mod identity;
pub(crate) mod kept;
pub(crate) mod key;
#[expect(clippy::module_inception, reason = "the folder is named for its main type")]
pub(crate) mod log;
pub(crate) mod mailbox;
mod merge;
pub(crate) mod name;
pub(crate) mod pages;
pub(crate) mod producer;
pub(crate) mod profile;
pub(crate) mod recipients;
pub(crate) mod retain;
pub(crate) mod routes;
pub(crate) mod run_log;
pub(crate) mod runs;
