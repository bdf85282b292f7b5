//! Compares the hub's servers with the standard, and with clients of other authors, over real
//! sockets.
//!
//! Tests that need programs are ignored by default. `tests/clients/install` installs the clients
//! that are not crates.

use std::time::Duration;

mod answers;
mod bare;
mod browser;
mod chromium;
mod clients;
mod corpus;
mod doctor;
mod faults;
mod http1;
mod id_blocks;
mod in_process;
mod matrix;
mod nginx;
#[path = "../support/ports.rs"]
mod ports;
mod proxies;
mod proxy;
mod scenarios;
mod servers;
mod standard;
mod wire;

use sse_hub::{Hub, HubBuilder, Retain, TokioTimer};

/// The limit for steps that take milliseconds on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let timeout = tokio::time::timeout(DEADLINE, future).await;
    timeout.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(what, holds).await;
}

/// A hub without heartbeats, with a log that holds the corpus.
pub(crate) fn hub() -> HubBuilder {
    Hub::builder(TokioTimer::new())
        .heartbeat(None)
        .retain(Retain::default().events(4096).bytes(16 << 20))
}
