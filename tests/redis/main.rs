//! Many instances over a real Redis, which the tests start and stop themselves.
#![cfg(all(feature = "redis", feature = "tokio"))]

mod back;
mod cluster;
mod commands;
mod degraded;
#[cfg(all(feature = "axum-serve", feature = "json"))]
mod demo;
mod faults;
mod history;
mod instances;
mod load;
#[path = "../support/ports.rs"]
mod ports;
mod presence;
#[cfg(feature = "axum")]
mod processes;
mod sentinel;
mod server;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(feature = "axum")]
mod users;
