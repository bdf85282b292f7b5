//! Connections: where the server is, how to reach the server, and when to try again.

pub(crate) mod address;
pub(crate) mod back_off;
pub(crate) mod credentials;
pub(crate) mod failover;
pub(crate) mod link;
#[cfg_attr(not(feature = "redis-tls"), path = "no_tls.rs")]
pub(crate) mod tls;
