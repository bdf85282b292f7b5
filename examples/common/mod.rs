//! Shared by the examples: the port, the server, and an orderly end of the process. To end your own
//! server in order, copy everything below `is_via_axum`.
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

/// Serves on this machine until the process must end, and then drains the hub.
#[cfg(feature = "serve")]
pub(crate) async fn serve(
    app: axum::Router,
    hub: Hub,
    port: u16,
) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        served = sse_hub::serve(listener, app).with_graceful_shutdown(drained(hub)) => Ok(served?),
        () = overdue() => Ok(()),
    }
}

/// The time over which clients are told to reconnect.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// The time that the server has after the drain to finish its connections.
pub(crate) const GRACE: Duration = Duration::from_secs(4);

/// Completes when the process must end: at SIGINT (ctrl-c), or at SIGTERM, which containers and
/// systemd send. Must be called in a tokio runtime.
///
/// A signal counts from this call on, not from the first poll: a server may serve its first clients
/// before the future is polled.
pub(crate) fn shutdown_signal() -> impl Future<Output = ()> + Send {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    };
    #[cfg(windows)]
    let signals = (tokio::signal::windows::ctrl_c(), tokio::signal::windows::ctrl_shutdown());
    async move {
        // If a signal cannot be awaited, the process ends at once: a process that ignores signals
        // is worse.
        let (Ok(mut interrupted), Ok(mut terminated)) = signals else { return };
        tokio::select! { _ = interrupted.recv() => {} _ = terminated.recv() => {} }
    }
}

/// Waits for the signal, and then ends the streams of the hub: a graceful shutdown of the server
/// waits for its streams, and they do not end by themselves.
pub(crate) fn drained(hub: Hub) -> impl Future<Output = ()> + Send {
    let signal = shutdown_signal();
    async move {
        signal.await;
        hub.drain(DRAIN).await;
        hub.close();
    }
}

/// Completes when the server must end even if a connection is open: a connection without a complete
/// request would hold up a graceful shutdown for ever.
pub(crate) fn overdue() -> impl Future<Output = ()> + Send {
    let signal = shutdown_signal();
    async move {
        signal.await;
        sleep(DRAIN + GRACE).await;
    }
}
