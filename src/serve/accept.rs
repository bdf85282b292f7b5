//! The loop that accepts connections, and the end of the server.

use std::any::Any;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use ::axum::serve::Listener;
use axum_core::body::Body;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::Settings;
use super::app::{App, IncomingStream, Serves};
use super::connection::Connection;
use super::open::{Open, Stage};
use crate::mount::http::server_is_full;
use crate::watchdog;

/// The longest time until the next attempt, if the system has no resources for a connection. A
/// connection that closes frees some, and ends the wait.
const RETRY_ACCEPT: Duration = Duration::from_secs(1);

/// The time that streams have to end by themselves after the drain.
const GRACE: Duration = Duration::from_secs(5);

/// The connections that get a refusal at a time. Any more are closed.
const MAX_REFUSALS: usize = 64;

/// The delay before a refused client tries again.
const RETRY: Duration = Duration::from_secs(5);

/// Serves until the signal, and then until the last connection is closed.
pub(super) async fn serve<L, M, K>(
    mut listener: L,
    mut services: M,
    settings: Settings,
    signal: impl Future<Output = ()>,
) where
    L: Listener,
    M: Serves<L, K>,
{
    let Settings { watchdog, backlog, max_connections, drain_over } = settings;
    if let Some(tcp) = (&listener as &dyn Any).downcast_ref::<TcpListener>() {
        set_backlog(tcp, backlog);
        // On Linux, connections inherit the options: six system calls less for each. Connections
        // that wait since before have none.
        watchdog.prepare(tcp);
    }
    let (open, refused) = (Open::new(watchdog.clone()), Open::new(watchdog.clone()));
    let mut signal = pin!(signal);
    let mut is_failing = false;
    loop {
        let (io, remote_addr) = tokio::select! {
            biased;
            () = &mut signal => break,
            accepted = accept(&mut listener, &open, &mut is_failing) => accepted,
        };
        if let Some(socket) = (&io as &dyn Any).downcast_ref::<TcpStream>()
            && !watchdog::is_prepared(socket)
        {
            watchdog.prepare(socket);
        }
        if open.count() < max_connections {
            services.ready().await;
            let stream = IncomingStream { io: &io, remote_addr: &remote_addr };
            let app = services.app(stream).await;
            tokio::spawn(Connection::accepted(io, app, &open));
        } else if refused.count() < MAX_REFUSALS {
            tokio::spawn(Connection::refused(io, refusal(), &refused));
        }
    }
    // New connections go to another instance from now on.
    drop(listener);
    drop(services);
    end(&open, drain_over).await;
}

/// Ends all connections: streams with their hubs, other connections after their responses.
async fn end(open: &Open, drain_over: Option<Duration>) {
    open.enter(Stage::Ending);
    let drains = drain_over.map_or_else(Vec::new, |over| open.drain_hubs(over));
    let drained = async {
        for drain in drains {
            drain.await;
        }
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = open.all_closed() => {}
        () = drained => open.enter(Stage::Over),
    }
    open.all_closed().await;
    open.end_waking().await;
}

/// Accepts a connection. Errors of tokio's TCP listener are handled here, and those of other
/// listeners by the listener.
async fn accept<L: Listener>(
    listener: &mut L,
    open: &Open,
    is_failing: &mut bool,
) -> (L::Io, L::Addr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    let Some(tcp) = (&mut *listener as &mut dyn Any).downcast_mut::<TcpListener>() else {
        return listener.accept().await;
    };
    loop {
        match TcpListener::accept(tcp).await {
            Ok(accepted) => {
                if std::mem::take(is_failing) {
                    tracing::info!(target: "sse_hub", "connections are accepted again");
                }
                return same(accepted);
            }
            Err(error) => match error.kind() {
                // The client is gone already.
                ConnectionAborted | ConnectionRefused | ConnectionReset => {}
                _ => {
                    if !std::mem::replace(is_failing, true) {
                        tracing::warn!(target: "sse_hub", %error, "connections are not accepted");
                    }
                    let _ = tokio::time::timeout(RETRY_ACCEPT, open.closed.notified()).await;
                }
            },
        }
    }
}

/// Returns the connection as the listener's own types, which are these.
fn same<T: 'static>(accepted: (TcpStream, SocketAddr)) -> T {
    let mut accepted = Some(accepted);
    let accepted = (&mut accepted as &mut dyn Any).downcast_mut::<Option<T>>();
    accepted.and_then(Option::take).expect("the listener is tokio's")
}

/// A listener can listen again, with another backlog.
fn set_backlog(tcp: &TcpListener, backlog: u32) {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    if let Err(error) = SockRef::from(tcp).listen(backlog) {
        tracing::debug!(target: "sse_hub", option = "backlog", %error, "socket option not set");
    }
}

/// Returns the service for a connection above the limit.
fn refusal() -> App {
    Box::new(|request| {
        let response = server_is_full(request.headers(), RETRY);
        Box::pin(ready(Ok(response.map(Body::new))))
    })
}
