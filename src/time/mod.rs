//! Time: the port to a clock, its two implementations, and the deadlines of an idle stream. The
//! rest of the crate reads no clock and starts no timer of its own.

pub(crate) mod deadline;
pub(crate) mod heartbeat;
pub(crate) mod manual;
pub(crate) mod timer;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;
