//! The locked shell around the log: hubs and subscriptions.

pub(crate) mod config;
#[expect(clippy::module_inception, reason = "it is the hub, on the floor named for it")]
pub(crate) mod hub;
pub(crate) mod receipt;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod subscriber;
pub(crate) mod subscription;
