//! Each example is started as the program that it is, and does over real sockets what its user would expect.
//!
//! `cargo test --all-features` builds the examples before it runs this. `cargo test --test examples` does not: see what
//! [`server::Server::start`] says then.

mod auth_cors;
mod backend;
mod client;
mod server;
mod smallest;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
