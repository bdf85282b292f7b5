//! Many instances over a real Redis, which the tests start and stop themselves.
#![cfg(all(feature = "redis", feature = "tokio"))]

mod access;
mod back;
#[path = "../support/busy.rs"]
mod busy;
mod cluster;
mod commands;
mod degraded;
#[cfg(all(feature = "axum-serve", feature = "json"))]
mod demo;
mod exit;
mod faults;
#[cfg(feature = "axum")]
mod format;
mod history;
mod idle;
mod instances;
mod latest;
mod line;
mod load;
mod memory;
mod poison;
#[path = "../support/ports.rs"]
mod ports;
mod presence;
#[cfg(feature = "axum")]
mod processes;
#[cfg(feature = "axum")]
mod publisher;
mod ready;
#[cfg(feature = "axum")]
mod rooms;
mod run_copies;
mod runs;
mod sentinel;
mod server;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "redis-tls")]
mod tls;
mod told;
#[path = "../support/tracer.rs"]
mod tracer;
#[cfg(feature = "axum")]
mod users;
