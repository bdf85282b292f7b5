//! Runs each example as a process, and tests the process over real sockets.
//!
//! `cargo test --all-features` builds the examples first. `cargo test --test examples` does not,
//! and [`server::Server::start`] then says how to build them.

mod answer;
mod auth_cors;
mod backend;
mod chat;
mod client;
#[path = "../../examples/common/mod.rs"]
mod common;
mod dashboard;
mod demo;
mod doctor;
mod every;
#[cfg(all(unix, feature = "metrics", feature = "redis"))]
mod first_hour;
mod jobs;
#[cfg(all(feature = "metrics", feature = "redis"))]
mod metrics;
#[cfg(all(unix, feature = "metrics", feature = "redis"))]
#[path = "../support/ports.rs"]
mod ports;
mod server;
mod smallest;
#[path = "../support/mod.rs"]
mod support;
