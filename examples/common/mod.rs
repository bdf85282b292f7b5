//! Shared by the examples: the port, the server, and an orderly end of the process. To end your own server in
//! order, copy everything below `port`.
#![allow(dead_code, reason = "no example uses all of it")]

use std::num::ParseIntError;
use std::time::Duration;

use sse_hub::Hub;
use tokio::time::sleep;

/// Returns the number behind `--port`, or the variable `PORT`, or `default`. 0 takes any free port.
pub(crate) fn port(default: u16) -> Result<u16, ParseIntError> {
    let argument = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    argument.or_else(|| std::env::var("PORT").ok()).map_or(Ok(default), |port| port.parse())
}

/// Whether axum's own server must serve: `--via axum`.
pub(crate) fn is_via_axum() -> bool {
    let argument = std::env::args().skip_while(|argument| argument != "--via").nth(1);
    argument.is_some_and(|via| via == "axum")
}

/// The time over which clients are told to reconnect.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// The time that the server has after the drain to finish its connections.
pub(crate) const GRACE: Duration = Duration::from_secs(4);

/// Completes when the process must end: at SIGINT (ctrl-c), or at SIGTERM, which containers and
/// systemd send.
pub(crate) async fn shutdown_signal() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate())?.recv().await;
        std::io::Result::Ok(())
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<std::io::Result<()>>();
    // If a signal cannot be awaited, the process ends too: better than one that ignores the signal.
    tokio::select! { _ = interrupted => {} _ = terminated => {} }
}

/// Waits for the signal, and then ends the streams of the hub: a graceful shutdown of the server
/// waits for its streams, and they do not end by themselves.
pub(crate) async fn drained(hub: Hub) {
    shutdown_signal().await;
    hub.drain(DRAIN).await;
    hub.close();
}

/// Completes when the server must end even if a connection is open: one without a complete request
/// would hold up a graceful shutdown for ever.
pub(crate) async fn overdue() {
    shutdown_signal().await;
    sleep(DRAIN + GRACE).await;
}
