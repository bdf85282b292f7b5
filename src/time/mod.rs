//! Time: the port to a clock, its implementations, the deadlines of an idle stream, and the
//! epochs of hubs. The rest of the crate reads no clock and starts no timer.

pub(crate) mod deadline;
pub(crate) mod epoch;
pub(crate) mod heartbeat;
#[cfg(feature = "hyper")]
pub(crate) mod hyper;
pub(crate) mod manual;
pub(crate) mod timer;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;
