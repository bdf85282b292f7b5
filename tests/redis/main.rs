//! Many instances over a real Redis, which the tests start and stop themselves.
#![cfg(all(feature = "redis", feature = "tokio"))]

mod cluster;
mod degraded;
mod faults;
mod instances;
mod load;
#[cfg(feature = "axum")]
mod processes;
mod sentinel;
mod server;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "redis-tls")]
mod tls;
